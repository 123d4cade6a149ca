// SPDX-License-Identifier: MPL-2.0

//! Makes a GStreamer buffer readable for the hardware: as the dma-buf that it is, or by one copy.

use gst_video::prelude::*;
use gst_video::{VideoCropMeta, VideoFrameRef, VideoInfo, VideoMeta};
use rockchip_mpp::{Buffer, Group, Mpp, RoiRegion};

use super::layout::{self, Format, Layout};
use crate::dmabuf;
use crate::drm::Compressed;

/// Added to the QP of a region that does not say itself.
const REGION_DELTA_QP: i16 = -6;

/// What has to be kept while the hardware reads, and what becomes of it then.
#[derive(Debug)]
pub(crate) enum Source {
    /// The buffer is ours: used again.
    Pooled,
    /// The memory is somebody else's: held.
    Imported { _buffer: gst::Buffer },
}

/// A picture that the hardware can read.
#[derive(Debug)]
pub(crate) struct Input {
    pub buffer: Buffer,
    pub layout: Layout,
    pub source: Source,
    /// Of compressed pixels: pixels of a row of headers, and where the picture begins.
    pub compression: Option<(u32, (u32, u32))>,
    /// Why a dma-buf was copied.
    pub copy_reason: Option<&'static str>,
}

/// Why a frame cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The buffer is empty, too small, or its memory cannot be mapped.
    #[error("a frame of {size} bytes cannot be read as {format} {width}x{height}")]
    Unreadable { size: usize, format: &'static str, width: u32, height: u32 },
    /// Only the hardware can read its pixels, and not as they lie.
    #[error("a compressed frame cannot be read: {0}")]
    Compressed(&'static str),
    /// There is no memory to copy to.
    #[error("no memory for frames: {0}")]
    Memory(#[from] rockchip_mpp::Error),
}

/// Uses the dma-buf as it is.
///
/// # Errors
/// Why not; `None` if it is none.
fn import(
    mpp: Mpp,
    format: &Format,
    info: &VideoInfo,
    buffer: &gst::Buffer,
) -> Result<Input, Option<&'static str>> {
    let dmabuf = dmabuf::of(buffer)?;
    let size = (info.width() as usize, info.height() as usize);
    let layout = match buffer.meta::<VideoMeta>() {
        Some(meta) => Layout::existing(format, size, meta.stride(), meta.offset(), dmabuf.size),
        None => Layout::existing(format, size, info.stride(), info.offset(), dmabuf.size),
    }
    .map_err(Some)?;
    let imported = Buffer::import(mpp, dmabuf.fd, dmabuf.size).map_err(|_| Some("the library refused it"))?;
    Ok(Input {
        buffer: imported,
        layout,
        source: Source::Imported { _buffer: buffer.clone() },
        compression: None,
        copy_reason: None,
    })
}

/// Uses a dma-buf of compressed pixels. They cannot be copied into another layout.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn prepare_compressed(
    mpp: Mpp,
    compressed: &Compressed,
    info: &VideoInfo,
    buffer: &gst::Buffer,
) -> Result<Input, InputError> {
    let no = InputError::Compressed;
    let dmabuf = dmabuf::of(buffer).map_err(|reason| no(reason.unwrap_or("it is no dma-buf")))?;
    let meta = buffer.meta::<VideoMeta>().ok_or(no("there is no GstVideoMeta"))?;
    if meta.offset().first() != Some(&0) {
        return Err(no("its headers do not begin with the dma-buf"));
    }
    let stride = meta.stride().first().and_then(|&stride| compressed.pixels(stride));
    let stride = stride.ok_or(no("the stride of its headers makes no sense"))?;
    let (x, y) = match buffer.meta::<VideoCropMeta>().map(|meta| meta.rect()) {
        Some((x, y, width, height)) if (width, height) == (info.width(), info.height()) => (x, y),
        Some(_) => return Err(no("another part of it is to be seen than the caps say")),
        None => (0, 0),
    };
    let at = (x.min(1 << 16) as usize, y.min(1 << 16) as usize);
    let size = (info.width() as usize, info.height() as usize);
    let layout = Layout::compressed(size, stride as usize, at, dmabuf.size).map_err(no)?;
    let imported = Buffer::import(mpp, dmabuf.fd, dmabuf.size).map_err(|_| no("the library refused it"))?;
    Ok(Input {
        buffer: imported,
        layout,
        source: Source::Imported { _buffer: buffer.clone() },
        compression: Some((stride, (x, y))),
        copy_reason: None,
    })
}

/// Makes `buffer` readable for the hardware. `spare` is a buffer of our own to be used for a copy, `group` where to get
/// one.
pub(crate) fn prepare(
    mpp: Mpp,
    format: &Format,
    info: &VideoInfo,
    buffer: &gst::Buffer,
    spare: impl FnOnce(usize) -> Option<Buffer>,
    group: &mut Option<Group>,
) -> Result<Input, InputError> {
    let copy_reason = match import(mpp, format, info, buffer) {
        Ok(input) => return Ok(input),
        Err(reason) => reason,
    };
    let layout = Layout::aligned(format, info.width() as usize, info.height() as usize);
    let unreadable = || InputError::Unreadable {
        size: buffer.size(),
        format: format.gst.to_str(),
        width: info.width(),
        height: info.height(),
    };
    if buffer.n_memory() == 0 || buffer.size() < info.size().min(smallest(buffer)) {
        return Err(unreadable());
    }
    let picture = VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(|_| unreadable())?;
    let mut target = match spare(layout.size) {
        Some(buffer) => buffer,
        None => {
            let group = match group {
                Some(group) => group,
                None => group.insert(Group::internal(mpp)?),
            };
            group.allocate(layout.size)?
        }
    };
    {
        let mut map = target.map_mut()?;
        let strides = picture.plane_stride();
        for (index, plane) in layout.planes().enumerate() {
            let stride = strides.get(index).and_then(|&stride| usize::try_from(stride).ok());
            let (Some(stride), Ok(data)) = (stride, picture.plane_data(index as u32)) else {
                return Err(unreadable());
            };
            layout::copy_plane(&mut map, &plane, data, stride);
        }
    }
    Ok(Input { buffer: target, layout, source: Source::Pooled, compression: None, copy_reason })
}

/// With a video meta the buffer's own layout counts, which mapping checks.
fn smallest(buffer: &gst::Buffer) -> usize {
    if buffer.meta::<VideoMeta>().is_some() { 1 } else { usize::MAX }
}

/// Regions of interest of a frame, on the grid of blocks.
pub(crate) fn regions(buffer: &gst::BufferRef, info: &VideoInfo) -> Vec<RoiRegion> {
    let bounded = |value: u32, limit: u32| u16::try_from(value.min(limit)).unwrap_or(u16::MAX);
    buffer
        .iter_meta::<gst_video::VideoRegionOfInterestMeta>()
        .filter_map(|meta| {
            let (x, y, width, height) = meta.rect();
            let (left, top) = (x.min(info.width()) / 16 * 16, y.min(info.height()) / 16 * 16);
            let right = x.saturating_add(width).min(info.width()).next_multiple_of(16);
            let bottom = y.saturating_add(height).min(info.height()).next_multiple_of(16);
            let delta_qp = meta
                .param("roi/rkmpp")
                .and_then(|params| params.get::<i32>("delta-qp").ok())
                .map_or(REGION_DELTA_QP, |delta| delta.clamp(-51, 51) as i16);
            (right > left && bottom > top).then(|| RoiRegion {
                x: bounded(left, info.width()),
                y: bounded(top, info.height()),
                width: bounded(right - left, u32::MAX),
                height: bounded(bottom - top, u32::MAX),
                delta_qp,
            })
        })
        .collect()
}
