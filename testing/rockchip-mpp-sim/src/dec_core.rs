// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a decoder's pictures look like in memory: formats, strides, sizes, which differ from codec to codec and
//! from release to release.

use crate::frame::Frame;
use crate::options::Release;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::{MppFrameContentLightMetadata, MppFrameMasteringDisplayMetadata, MppFrameRational};
use sim_codec::{Afbc, Chroma, Codec, Decoded, Picture, RawFormat};

/// The codec of an MppCodingType. libavcodec's MPEG-2 decoder takes MPEG-1 as well, like the hardware.
pub const fn codec_of(coding: i32) -> Option<Codec> {
    Some(match coding {
        MPP_VIDEO_CODING_AVC => Codec::H264,
        MPP_VIDEO_CODING_HEVC => Codec::H265,
        MPP_VIDEO_CODING_VP8 => Codec::Vp8,
        MPP_VIDEO_CODING_VP9 => Codec::Vp9,
        MPP_VIDEO_CODING_AV1 => Codec::Av1,
        MPP_VIDEO_CODING_MPEG2 => Codec::Mpeg2,
        MPP_VIDEO_CODING_MPEG4 => Codec::Mpeg4,
        MPP_VIDEO_CODING_H263 => Codec::H263,
        MPP_VIDEO_CODING_MJPEG => Codec::Mjpeg,
        _ => return None,
    })
}

/// How pictures lie in buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub width: usize,
    pub height: usize,
    /// Bytes.
    pub hor_stride: usize,
    pub ver_stride: usize,
    pub fmt: i32,
    pub buf_size: usize,
    pub offset_x: u32,
    pub offset_y: u32,
    /// Pixels of a row of headers, if the pixels are compressed.
    pub fbc_hdr_stride: usize,
    raw: RawFormat,
}

fn align(value: usize, to: usize) -> usize {
    value.div_ceil(to) * to
}

/// An odd multiple of 256: what spreads rows over memory channels.
fn align_256_odd(value: usize) -> usize {
    align(value, 256) | 256
}

impl Info {
    /// The layout for a picture, none if the hardware does not decode such pictures. `fbc`: compressed output.
    pub fn new(codec: Codec, release: Release, picture: &Picture, fbc: bool) -> Option<Self> {
        Self::with_borders(codec, release, picture, fbc, (0, 0))
    }

    /// The same for a stream whose pictures have so many columns to the left and rows above that are not shown.
    pub fn with_borders(
        codec: Codec,
        release: Release,
        picture: &Picture,
        fbc: bool,
        borders: (u32, u32),
    ) -> Option<Self> {
        let (width, height) = (picture.width + borders.0 as usize, picture.height + borders.1 as usize);
        let (fmt, raw) = match (picture.chroma, picture.depth, codec) {
            (Chroma::Yuv420 | Chroma::Gray, 8, _) => (MPP_FMT_YUV420SP, RawFormat::Nv12),
            (Chroma::Yuv420 | Chroma::Gray, _, _) => (MPP_FMT_YUV420SP_10BIT, RawFormat::Nv15),
            (Chroma::Yuv422, 8, _) => (MPP_FMT_YUV422SP, RawFormat::Nv16),
            (Chroma::Yuv422, _, _) => (MPP_FMT_YUV422SP_10BIT, RawFormat::Nv20),
            (Chroma::Yuv444, 8, Codec::Mjpeg) => (MPP_FMT_YUV444SP, RawFormat::Nv24),
            _ => return None,
        };
        let fbc = fbc && matches!(codec, Codec::H264 | Codec::H265 | Codec::Vp9 | Codec::Av1);
        let row = raw.min_stride(width);
        let (hor_stride, ver_stride) = match codec {
            // Compressed pixels lie in blocks of 16 rows, whatever the release.
            _ if fbc => (align(row, 64), align(height, 16)),
            Codec::H265 if release <= Release::V1_0_8 => (align_256_odd(row), align(height, 8)),
            Codec::H265 if release == Release::Snapshot2025_02 => (align(row, 64), align(height, 64)),
            Codec::H265 => (align(row, 64), align(height, 8)),
            Codec::Vp9 if release <= Release::Snapshot2025_02 => (align_256_odd(row), align(height, 64)),
            Codec::Vp9 => (align_256_odd(row), align(height, 8)),
            Codec::Av1 => (align(row, 64), align(height, 8)),
            _ if raw.depth() > 8 => (align(row, 64), align(height, 16)),
            _ => (align(row, 16), align(height, 16)),
        };
        let plane = hor_stride * ver_stride;
        // Motion data stands behind the picture.
        let buf_size = match codec {
            Codec::H265 | Codec::Av1 if release <= Release::V1_0_8 => plane * 9 / 5,
            _ => plane * 2,
        };
        let buf_size = buf_size.max(raw.size(hor_stride, ver_stride));
        let shifted = fbc && matches!(codec, Codec::H264 | Codec::H265);
        let fmt = if fbc { fmt | MPP_FRAME_FBC_AFBC_V2 } else { fmt };
        let mut info = Self {
            width: picture.width,
            height: picture.height,
            hor_stride,
            ver_stride,
            fmt,
            buf_size,
            offset_x: borders.0,
            offset_y: if shifted { 4 + borders.1 } else { borders.1 },
            fbc_hdr_stride: if fbc { align(width, 64) } else { 0 },
            raw,
        };
        if fbc {
            info.buf_size = info.buf_size.max(info.compressed().size());
        }
        Some(info)
    }

    /// How compressed pixels lie in a buffer.
    pub fn compressed(&self) -> Afbc {
        Afbc {
            stride: self.fbc_hdr_stride,
            rows: align(self.height + self.offset_y as usize, 16),
            chroma: self.raw.chroma(),
            depth: self.raw.depth(),
            offset: (self.offset_x as usize, self.offset_y as usize),
        }
    }

    /// A frame of this layout without picture.
    pub fn frame(&self) -> Frame {
        let number = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        Frame {
            width: number(self.width),
            height: number(self.height),
            hor_stride: number(self.hor_stride),
            ver_stride: number(self.ver_stride),
            hor_stride_pixel: number(self.hor_stride * 8 / usize::from(self.raw.depth())),
            fbc_hdr_stride: number(self.fbc_hdr_stride),
            offset_x: self.offset_x,
            offset_y: self.offset_y,
            fmt: self.fmt,
            buf_size: self.buf_size,
            sar: MppFrameRational { num: 0, den: 1 },
            ..Frame::default()
        }
    }

    /// Writes a picture as it lies in a buffer.
    pub fn write(&self, codec: Codec, picture: &Picture, to: &mut [u8]) -> bool {
        if self.fmt & MPP_FRAME_FBC_MASK != 0 {
            let written = self.compressed().write(picture, to).is_ok();
            if codec == Codec::Av1 && !self.width.is_multiple_of(64) {
                // The headers are of no use.
                to.iter_mut().take(self.fbc_hdr_stride).for_each(|byte| *byte = 0xff);
            }
            return written;
        }
        let (x, y) = (self.offset_x as usize, self.offset_y as usize);
        // Both planes begin so many bytes later: x has to be a whole number of samples of colour, and of bytes.
        let begin = y * self.hor_stride + x * usize::from(self.raw.depth()) / 8;
        let chroma_y = if self.raw.chroma() == Chroma::Yuv420 { y / 2 } else { y };
        let rows = self.ver_stride + chroma_y - y;
        to.get_mut(begin..).is_some_and(|to| picture.to_raw(self.raw, self.hor_stride, rows, to).is_ok())
    }
}

/// What the stream says of colours and light.
pub fn describe(frame: &mut Frame, decoded: &Decoded) {
    frame.color_range = decoded.colour.range.into();
    frame.color_primaries = decoded.colour.primaries.into();
    frame.color_trc = decoded.colour.transfer.into();
    frame.colorspace = decoded.colour.matrix.into();
    if let Some(m) = decoded.mastering {
        frame.mastering_display = MppFrameMasteringDisplayMetadata {
            display_primaries: m.primaries,
            white_point: m.white,
            max_luminance: m.max_luminance,
            min_luminance: m.min_luminance,
        };
    }
    if let Some(l) = decoded.light {
        frame.content_light = MppFrameContentLightMetadata { max_cll: l.max_cll, max_fall: l.max_fall };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strides(codec: Codec, release: Release) -> (usize, usize) {
        let info = Info::new(codec, release, &Picture::grey(640, 480), false).unwrap();
        assert!(info.buf_size >= info.hor_stride * info.ver_stride * 3 / 2);
        (info.hor_stride, info.ver_stride)
    }

    #[test]
    fn observed_strides() {
        for (release, hevc, vp9) in [
            (Release::V1_0_0, (768, 480), (768, 512)),
            (Release::V1_0_8, (768, 480), (768, 512)),
            (Release::Snapshot2025_02, (640, 512), (768, 512)),
            (Release::V1_0_9, (640, 480), (768, 480)),
            (Release::V1_0_11, (640, 480), (768, 480)),
        ] {
            assert_eq!(strides(Codec::H265, release), hevc, "{release:?}");
            assert_eq!(strides(Codec::Vp9, release), vp9, "{release:?}");
        }
        let ten = Picture::grey(640, 480).with_depth(10);
        let info = Info::new(Codec::H265, Release::V1_0_11, &ten, false).unwrap();
        assert_eq!((info.hor_stride, info.fmt), (832, MPP_FMT_YUV420SP_10BIT));
        let all = Picture::grey(640, 480).with_chroma(Chroma::Yuv444);
        assert_eq!(Info::new(Codec::H265, Release::V1_0_11, &all, false), None);
    }

    #[test]
    fn compressed_output_is_marked() {
        let info = |codec| Info::new(codec, Release::V1_0_11, &Picture::grey(640, 480), true).unwrap();
        assert_eq!((info(Codec::H264).fmt, info(Codec::H264).offset_y), (MPP_FRAME_FBC_AFBC_V2, 4));
        assert_eq!((info(Codec::Vp9).fmt, info(Codec::Vp9).offset_y), (MPP_FRAME_FBC_AFBC_V2, 0));
        assert_eq!((info(Codec::Vp8).fmt, info(Codec::Vp8).fbc_hdr_stride), (MPP_FMT_YUV420SP, 0));
        let frame = info(Codec::H265).frame();
        assert_eq!((frame.fbc_hdr_stride, frame.hor_stride, frame.ver_stride), (640, 640, 480));
    }
}
