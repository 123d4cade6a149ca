// SPDX-License-Identifier: MPL-2.0

//! Buffers around decoded pictures: without a copy where downstream can use them as they are.

use gst_video::prelude::*;
use gst_video::{VideoFrameFlags, VideoFrameRef, VideoInfo, VideoMeta};
use rockchip_mpp::{Format, PictureBuffer};

use super::format::{Choice, Description, Pixels, Planes};
use super::unpack;
use crate::dmabuf::{self, Held};

/// What downstream said when it was asked for memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allocation {
    /// It reads strides and offsets.
    pub video_meta: bool,
    /// It cuts borders off by itself.
    pub crop_meta: bool,
    /// Buffers that it wants to hold.
    pub min: u32,
}

impl Allocation {
    /// From the answered query.
    pub fn of(query: &gst::query::Allocation) -> Self {
        Self {
            video_meta: query.find_allocation_meta::<VideoMeta>().is_some(),
            crop_meta: query.find_allocation_meta::<gst_video::VideoCropMeta>().is_some(),
            min: query.allocation_pools().map(|(_, _, min, _)| min).max().unwrap_or(0),
        }
    }
}

/// Where a picture lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub format: Format,
    pub pixels: Pixels,
    pub planes: Planes,
}

impl Layout {
    /// `None` if the numbers make no sense.
    pub fn new(format: Format, pixels: Pixels) -> Option<Self> {
        Some(Self { format, pixels, planes: Planes::of(&format, &pixels)? })
    }
}

/// What was agreed with downstream.
pub(crate) struct Agreement {
    pub description: Description,
    pub layout: Layout,
    pub choice: Choice,
    pub info: VideoInfo,
    pub allocation: Allocation,
    pub copy_reason: Option<&'static str>,
}

/// Where the first sample to be shown of each plane lies.
fn shown(Layout { format, pixels, planes }: &Layout) -> [usize; 2] {
    let (x, y) = (format.offset_x as usize, format.offset_y as usize);
    let (across, down) = pixels.subsampling;
    let [luma, chroma] = planes.offsets;
    let [luma_stride, chroma_stride] = planes.strides;
    [
        luma + y * luma_stride + x * pixels.depth / 8,
        chroma + (y >> down) * chroma_stride + (x >> across) * 2 * pixels.depth / 8,
    ]
}

/// Whether compressed pixels begin where nobody downstream would look for them: blocks cannot be cut in two.
pub(crate) fn is_hidden(layout: &Layout, choice: &Choice, allocation: &Allocation) -> bool {
    let cropped = layout.format.offset_x > 0 || layout.format.offset_y > 0;
    choice.compressed.is_some() && (cropped && !allocation.crop_meta || !allocation.video_meta)
}

/// Why a picture has to be copied; none if it has not.
pub(crate) fn copy_reason(
    layout: &Layout,
    choice: &Choice,
    allocation: &Allocation,
    info: &VideoInfo,
) -> Option<&'static str> {
    let Layout { format, pixels, planes } = layout;
    if choice.compressed.is_some() {
        return None;
    }
    if choice.unpack {
        return Some("downstream wants ten bits unpacked");
    }
    let cropped = format.offset_x > 0 || format.offset_y > 0;
    let usual = !cropped
        && info.offset().iter().zip(planes.offsets).all(|(&a, b)| a == b)
        && info.stride().iter().zip(planes.strides).all(|(&a, b)| usize::try_from(a) == Ok(b));
    if !allocation.video_meta && !usual {
        return Some("downstream does not read GstVideoMeta");
    }
    // Where a row begins inside of a byte, or between two samples of a colour, an offset can't say it.
    let (across, down) = pixels.subsampling;
    let whole = format.offset_x % (1 << across) == 0
        && format.offset_y % (1 << down) == 0
        && (pixels.depth == 8 || format.offset_x % 4 == 0);
    if cropped && !allocation.crop_meta && !whole {
        return Some("its borders cannot be cut off otherwise");
    }
    None
}

/// A buffer around the picture itself.
pub(crate) fn wrapped(
    allocator: &gst_allocators::DmaBufAllocator,
    picture: PictureBuffer,
    held: &Held,
    agreement: &Agreement,
) -> Result<gst::Buffer, String> {
    let Agreement { layout, choice, allocation, .. } = agreement;
    let Layout { format, planes, .. } = layout;
    let size = if choice.compressed.is_some() { picture.size() } else { planes.size };
    let memory = dmabuf::wrap(allocator, picture, size, held)?;
    let mut buffer = gst::Buffer::new();
    let inner = buffer.get_mut().ok_or("the new buffer is somebody else's")?;
    inner.append_memory(memory);
    let cropped = format.offset_x > 0 || format.offset_y > 0;
    let rect = (format.offset_x, format.offset_y, format.width, format.height);
    if choice.compressed.is_some() {
        let whole = (format.width + format.offset_x, format.height + format.offset_y);
        dmabuf::add_compressed_meta(inner, whole, planes.strides[0]);
        if cropped {
            gst_video::VideoCropMeta::add(inner, rect);
        }
        return Ok(buffer);
    }
    let strides = planes.strides.map(|stride| i32::try_from(stride).unwrap_or(i32::MAX));
    let (width, height, offsets) = if cropped && allocation.crop_meta {
        (format.width + format.offset_x, format.height + format.offset_y, planes.offsets)
    } else {
        (format.width, format.height, shown(layout))
    };
    VideoMeta::add_full(inner, VideoFrameFlags::empty(), choice.format, width, height, &offsets, &strides)
        .map_err(|error| error.to_string())?;
    if cropped && allocation.crop_meta {
        gst_video::VideoCropMeta::add(inner, rect);
    }
    Ok(buffer)
}

/// Copies a picture into a buffer of the usual layout, unpacked if that was chosen.
pub(crate) fn copy(
    picture: &PictureBuffer,
    to: &mut gst::BufferRef,
    agreement: &Agreement,
) -> Result<(), String> {
    let Agreement { layout, choice, info, .. } = agreement;
    let mut to = VideoFrameRef::from_buffer_ref_writable(to, info).map_err(|error| error.to_string())?;
    picture
        .read(|from| {
            let from = from.get(..layout.planes.size)?;
            if choice.unpack { unpacked(from, &mut to, layout) } else { copied(from, &mut to, layout) }
        })
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "a picture that is smaller than it says".to_owned())
}

/// Rows of a plane, and samples in each.
fn extent(Layout { format, pixels, .. }: &Layout, plane: usize) -> (usize, usize) {
    let (width, height) = (format.width as usize, format.height as usize);
    if plane == 0 {
        (height, width)
    } else {
        let (across, down) = pixels.subsampling;
        (height.div_ceil(1 << down), 2 * width.div_ceil(1 << across))
    }
}

type Frame<'a> = VideoFrameRef<&'a mut gst::BufferRef>;

fn copied(from: &[u8], to: &mut Frame, layout: &Layout) -> Option<()> {
    let Layout { pixels, planes, .. } = layout;
    let starts = shown(layout);
    for (plane, (start, stride)) in starts.into_iter().zip(planes.strides).enumerate() {
        let (rows, samples) = extent(layout, plane);
        let bytes = if pixels.depth == 8 { samples } else { unpack::row_size(samples).min(stride) };
        let to_stride = usize::try_from(*to.plane_stride().get(plane)?).ok()?;
        let out = to.plane_data_mut(plane as u32).ok()?;
        for row in 0..rows {
            // A row's last group may be cut short by the end of the memory.
            let begin = start + row * stride;
            let source = from.get(begin..(begin + bytes).min(from.len()))?;
            out.get_mut(row * to_stride..)?.get_mut(..source.len())?.copy_from_slice(source);
        }
    }
    Some(())
}

fn unpacked(from: &[u8], to: &mut Frame, layout: &Layout) -> Option<()> {
    let Layout { format, pixels, planes } = layout;
    let planar = to.n_planes() == 3;
    // P010 has its bits at the upper end of a word, I422_10LE at the lower.
    let shift = if planar { 0 } else { 6 };
    let mut colours = Vec::new();
    for (plane, stride) in planes.strides.into_iter().enumerate() {
        let (rows, samples) = extent(layout, plane);
        let (x, y) = (format.offset_x as usize, format.offset_y as usize);
        let (across, down) = pixels.subsampling;
        let (skip, top) = if plane == 0 { (x, y) } else { (2 * (x >> across), y >> down) };
        for row in 0..rows {
            let begin = planes.offsets.get(plane)? + (top + row) * stride;
            let source = unpack::samples(from.get(begin..begin + stride)?).skip(skip).take(samples);
            if plane == 0 || !planar {
                let to_stride = usize::try_from(*to.plane_stride().get(plane)?).ok()?;
                let out = to.plane_data_mut(plane as u32).ok()?.get_mut(row * to_stride..)?;
                unpack::write(source, shift, out.get_mut(..samples * 2)?);
            } else {
                colours.clear();
                colours.extend(source);
                for colour in 0..2 {
                    let to_stride = usize::try_from(*to.plane_stride().get(1 + colour)?).ok()?;
                    let out = to.plane_data_mut(1 + colour as u32).ok()?.get_mut(row * to_stride..)?;
                    let every_other = colours.iter().copied().skip(colour).step_by(2);
                    unpack::write(every_other, shift, out.get_mut(..samples)?);
                }
            }
        }
    }
    Some(())
}
