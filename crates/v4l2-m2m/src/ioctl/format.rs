// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_ENUM_FMT`, `VIDIOC_ENUM_FRAMESIZES`, `VIDIOC_TRY_FMT`, `VIDIOC_S_FMT`

use super::{Api, errno_enum, text};
use crate::ops::Handle;
use crate::queue::Direction;
use crate::uapi::*;

/// A row of what a queue can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatDescription {
    /// The format.
    pub fourcc: FourCc,
    /// Coded, not raw.
    pub compressed: bool,
    /// In words.
    pub description: String,
}

/// Colour, in V4L2's numbers; 0 is the default of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colorimetry {
    /// `enum v4l2_colorspace`
    pub colorspace: u32,
    /// `enum v4l2_xfer_func`
    pub transfer: u32,
    /// `enum v4l2_ycbcr_encoding`
    pub encoding: u32,
    /// `enum v4l2_quantization`
    pub quantization: u32,
}

/// Memory of a plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneFormat {
    /// Bytes from a line to the next; 0 for coded formats.
    pub bytesperline: u32,
    /// Bytes of the whole plane.
    pub sizeimage: u32,
}

/// Format of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Pixel or coded format.
    pub fourcc: FourCc,
    /// Width in pixels, as the device pads it.
    pub width: u32,
    /// Height in lines, as the device pads it.
    pub height: u32,
    /// Colour; the encoder writes it into the stream.
    pub colorimetry: Colorimetry,
    /// Pieces of memory.
    pub planes: Vec<PlaneFormat>,
}

/// Sizes that a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSizes {
    /// Least and greatest width.
    pub width: (u32, u32),
    /// Least and greatest height.
    pub height: (u32, u32),
    /// Width and height are multiples of these.
    pub step: (u32, u32),
}

errno_enum! {
    /// Why a format cannot be set.
    FormatError {
        EBUSY => Busy "the queue has buffers, or another program streams with this device",
        EINVAL => Unsupported "the device does not know this format or this kind of queue",
        ENOTTY => NoIoctl "the device does not offer this call",
        ENOMEM => NoMemory "the device has no memory or no session left",
    }
}

/// Lists what a queue can carry. For an encoder the CAPTURE list is complete, the OUTPUT list is that of the coded
/// format set now.
///
/// # Errors
/// See [`FormatError`]; the end of the list is none.
pub fn enumerate_formats<D: Direction>(
    handle: &Handle,
    api: Api,
) -> Result<Vec<FormatDescription>, FormatError> {
    let mut list = Vec::new();
    // A driver that never ends its list would keep us here for ever.
    for index in 0..256 {
        let mut desc = v4l2_fmtdesc { index, type_: D::buffer_type(api), ..Default::default() };
        // SAFETY: the structure of this request.
        match unsafe { handle.ioctl(VIDIOC_ENUM_FMT, &mut desc) }.map_err(FormatError::from) {
            Ok(()) => list.push(FormatDescription {
                fourcc: FourCc(desc.pixelformat),
                compressed: desc.flags & V4L2_FMT_FLAG_COMPRESSED != 0,
                description: text(&desc.description),
            }),
            Err(FormatError::Unsupported) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(list)
}

/// The sizes for a format: the range, or what discrete sizes span. `None` if the device does not tell.
#[must_use]
pub fn frame_sizes(handle: &Handle, fourcc: FourCc) -> Option<FrameSizes> {
    let mut found: Option<FrameSizes> = None;
    for index in 0..256 {
        let mut size = v4l2_frmsizeenum { index, pixel_format: fourcc.0, ..Default::default() };
        // SAFETY: the structure of this request.
        if unsafe { handle.ioctl(VIDIOC_ENUM_FRAMESIZES, &mut size) }.is_err() {
            break;
        }
        let s = size.stepwise;
        if size.type_ != V4L2_FRMSIZE_TYPE_DISCRETE {
            return Some(FrameSizes {
                width: (s.min_width, s.max_width),
                height: (s.min_height, s.max_height),
                step: (s.step_width.max(1), s.step_height.max(1)),
            });
        }
        // A discrete size is width and height, which lie where the range has its widths.
        let (width, height) = (s.min_width, s.max_width);
        let all =
            found.get_or_insert(FrameSizes { width: (width, width), height: (height, height), step: (1, 1) });
        all.width = (all.width.0.min(width), all.width.1.max(width));
        all.height = (all.height.0.min(height), all.height.1.max(height));
    }
    found
}

fn to_raw<D: Direction>(api: Api, format: &Format) -> v4l2_format {
    let mut raw = v4l2_format { type_: D::buffer_type(api), ..Default::default() };
    let color = format.colorimetry;
    match api {
        Api::SinglePlane => {
            let plane = format.planes.first().copied().unwrap_or_default();
            raw.fmt.pix = v4l2_pix_format {
                width: format.width,
                height: format.height,
                pixelformat: format.fourcc.0,
                field: V4L2_FIELD_NONE,
                bytesperline: plane.bytesperline,
                sizeimage: plane.sizeimage,
                colorspace: color.colorspace,
                priv_: V4L2_PIX_FMT_PRIV_MAGIC,
                flags: 0,
                ycbcr_enc: color.encoding,
                quantization: color.quantization,
                xfer_func: color.transfer,
            };
        }
        Api::MultiPlane => {
            let mut mp = v4l2_pix_format_mplane {
                width: format.width,
                height: format.height,
                pixelformat: format.fourcc.0,
                field: V4L2_FIELD_NONE,
                colorspace: color.colorspace,
                num_planes: format.planes.len().clamp(1, VIDEO_MAX_PLANES) as u8,
                ycbcr_enc: color.encoding as u8,
                quantization: color.quantization as u8,
                xfer_func: color.transfer as u8,
                ..Default::default()
            };
            for (to, from) in mp.plane_fmt.iter_mut().zip(&format.planes) {
                (to.bytesperline, to.sizeimage) = (from.bytesperline, from.sizeimage);
            }
            raw.fmt.pix_mp = mp;
        }
    }
    raw
}

fn from_raw(api: Api, raw: &v4l2_format) -> Format {
    match api {
        Api::SinglePlane => {
            // SAFETY: the member for this buffer type; any bits are integers.
            let pix = unsafe { raw.fmt.pix };
            Format {
                fourcc: FourCc(pix.pixelformat),
                width: pix.width,
                height: pix.height,
                colorimetry: Colorimetry {
                    colorspace: pix.colorspace,
                    transfer: pix.xfer_func,
                    encoding: pix.ycbcr_enc,
                    quantization: pix.quantization,
                },
                planes: vec![PlaneFormat { bytesperline: pix.bytesperline, sizeimage: pix.sizeimage }],
            }
        }
        Api::MultiPlane => {
            // SAFETY: the member for this buffer type; any bits are integers.
            let mp = unsafe { raw.fmt.pix_mp };
            Format {
                fourcc: FourCc(mp.pixelformat),
                width: mp.width,
                height: mp.height,
                colorimetry: Colorimetry {
                    colorspace: mp.colorspace,
                    transfer: mp.xfer_func.into(),
                    encoding: mp.ycbcr_enc.into(),
                    quantization: mp.quantization.into(),
                },
                planes: mp
                    .plane_fmt
                    .iter()
                    .take(usize::from(mp.num_planes))
                    .map(|plane| PlaneFormat { bytesperline: plane.bytesperline, sizeimage: plane.sizeimage })
                    .collect(),
            }
        }
    }
}

/// Sets the format of a queue; answers what the device made of it.
///
/// # Errors
/// See [`FormatError`].
pub fn set_format<D: Direction>(handle: &Handle, api: Api, format: &Format) -> Result<Format, FormatError> {
    let mut raw = to_raw::<D>(api, format);
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_S_FMT, &mut raw) }?;
    Ok(from_raw(api, &raw))
}

/// Asks what the device would make of a format.
///
/// # Errors
/// See [`FormatError`].
pub fn try_format<D: Direction>(handle: &Handle, api: Api, format: &Format) -> Result<Format, FormatError> {
    let mut raw = to_raw::<D>(api, format);
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_TRY_FMT, &mut raw) }?;
    Ok(from_raw(api, &raw))
}
