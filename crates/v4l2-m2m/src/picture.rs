// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw pictures in a device's memory: where each plane lies, and how to bring one there.

use crate::ioctl::{Api, Format};
use crate::uapi::*;

/// A raw format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RawFormat {
    /// 4:2:0: Y, then CbCr.
    Nv12,
    /// 4:2:0: Y, Cb, Cr.
    I420,
    /// 4:2:0: Y, then CrCb.
    Nv21,
    /// 4:2:0: Y, Cr, Cb.
    Yv12,
    /// 4:2:2, packed.
    Yuy2,
    /// 4:2:2, packed, chroma first.
    Uyvy,
    /// 4:2:0 of 10 bits in the upper bits of two bytes: Y, then CbCr.
    P010,
}

/// A plane: samples of `bytes` bytes for `x` by `y` pixels.
#[derive(Clone, Copy, Debug)]
struct Sampling {
    x: u32,
    y: u32,
    bytes: u32,
}

const fn sampling(x: u32, y: u32, bytes: u32) -> Sampling {
    Sampling { x, y, bytes }
}

impl Sampling {
    fn row_bytes(self, width: u32) -> usize {
        (width.div_ceil(self.x) as usize).saturating_mul(self.bytes as usize)
    }

    fn rows(self, height: u32) -> usize {
        height.div_ceil(self.y) as usize
    }
}

impl RawFormat {
    /// What the kernel's drivers are asked for, the most wanted first.
    pub const ALL: [Self; 6] = [Self::Nv12, Self::I420, Self::Nv21, Self::Yv12, Self::Yuy2, Self::Uyvy];
    /// What NVIDIA's library takes, the most wanted first.
    pub const NVIDIA: [Self; 3] = [Self::Nv12, Self::I420, Self::P010];

    /// The kernel's names: planes in one piece of memory, planes in several.
    #[must_use]
    pub fn fourccs(self) -> &'static [FourCc] {
        match self {
            Self::Nv12 => &[V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_NV12M],
            Self::I420 => &[V4L2_PIX_FMT_YUV420, V4L2_PIX_FMT_YUV420M],
            Self::Nv21 => &[V4L2_PIX_FMT_NV21, V4L2_PIX_FMT_NV21M],
            Self::Yv12 => &[V4L2_PIX_FMT_YVU420, V4L2_PIX_FMT_YVU420M],
            Self::Yuy2 => &[V4L2_PIX_FMT_YUYV],
            Self::Uyvy => &[V4L2_PIX_FMT_UYVY],
            Self::P010 => &[V4L2_PIX_FMT_P010M],
        }
    }

    /// The format of the kernel's name.
    #[must_use]
    pub fn of(fourcc: FourCc) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::P010]);
        all.into_iter().find(|format| format.fourccs().contains(&fourcc))
    }

    fn planes(self) -> &'static [Sampling] {
        const Y: Sampling = sampling(1, 1, 1);
        const C: Sampling = sampling(2, 2, 1);
        const CC: Sampling = sampling(2, 2, 2);
        const Y10: Sampling = sampling(1, 1, 2);
        const CC10: Sampling = sampling(2, 2, 4);
        const PACKED: Sampling = sampling(2, 1, 4);
        match self {
            Self::Nv12 | Self::Nv21 => &[Y, CC],
            Self::I420 | Self::Yv12 => &[Y, C, C],
            Self::Yuy2 | Self::Uyvy => &[PACKED],
            Self::P010 => &[Y10, CC10],
        }
    }
}

/// A plane in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLayout {
    /// Which piece of memory.
    pub memory: usize,
    /// Where in it.
    pub offset: usize,
    /// Bytes from a line to the next.
    pub stride: usize,
    /// Lines, with those that the device adds.
    pub rows: usize,
    /// Bytes of a line, with the pixels that the device adds.
    pub row_bytes: usize,
    /// Bytes of a line that are visible.
    visible_bytes: usize,
    /// Lines that are visible.
    visible_rows: usize,
    /// Bytes of a sample.
    sample: usize,
}

/// A picture in the device's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    planes: Vec<PlaneLayout>,
    used: Vec<u32>,
}

/// Why a picture cannot be laid out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// The device's format is not the one asked for.
    #[error("the device chose the format {0}")]
    Format(FourCc),
    /// The device's memory is too small for its own size.
    #[error("the device's buffers of {sizeimage} bytes are too small for {width}x{height}")]
    TooSmall {
        /// What the device says.
        sizeimage: u32,
        /// The device's width.
        width: u32,
        /// The device's height.
        height: u32,
    },
    /// The device takes only smaller pictures.
    #[error("the device takes at most {0}x{1} pixels")]
    TooLarge(u32, u32),
}

/// A plane of a picture in somebody's memory.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// From its first line on.
    pub data: &'a [u8],
    /// Bytes from a line to the next.
    pub stride: usize,
}

impl Layout {
    /// Where a picture of `width` by `height` pixels lies, in what the device made of the format.
    ///
    /// A `bytesperline` that can't be true (some drivers say 0, or the pixels) is replaced by what the memory has room for.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn new(
        format: RawFormat,
        device: &Format,
        api: Api,
        width: u32,
        height: u32,
    ) -> Result<Self, LayoutError> {
        if !format.fourccs().contains(&device.fourcc) {
            return Err(LayoutError::Format(device.fourcc));
        }
        if device.width < width || device.height < height {
            return Err(LayoutError::TooLarge(device.width, device.height));
        }
        let samplings = format.planes();
        let separate =
            api == Api::MultiPlane && device.planes.len() == samplings.len() && samplings.len() > 1;
        let too_small =
            |sizeimage| LayoutError::TooSmall { sizeimage, width: device.width, height: device.height };
        let first = device.planes.first().copied().unwrap_or_default();
        let luma = samplings.first().copied().unwrap_or(sampling(1, 1, 1));
        // Bytes of all planes for each byte of a luma line, in halves: 3 for 4:2:0 in one piece.
        let lines: usize = samplings
            .iter()
            .map(|plane| {
                plane.rows(device.height) * plane.row_bytes(device.width)
                    / luma.row_bytes(device.width).max(1)
            })
            .sum();
        let mut stride = first.bytesperline as usize;
        let whole = |stride: usize| if separate { stride * luma.rows(device.height) } else { stride * lines };
        if stride < luma.row_bytes(device.width) || whole(stride) > first.sizeimage as usize {
            let rows = if separate { luma.rows(device.height) } else { lines };
            stride = first.sizeimage as usize / rows.max(1);
            if stride < luma.row_bytes(device.width) {
                return Err(too_small(first.sizeimage));
            }
        }
        let (mut planes, mut used, mut offset) = (Vec::new(), Vec::new(), 0);
        for (index, plane) in samplings.iter().enumerate() {
            let rows = plane.rows(device.height);
            let row_bytes = plane.row_bytes(device.width);
            let mut own = stride * plane.bytes as usize * luma.x as usize
                / (luma.bytes as usize * plane.x as usize).max(1);
            if separate {
                let memory = device.planes.get(index).copied().unwrap_or_default();
                let told = memory.bytesperline as usize;
                own = if index == 0 {
                    stride
                } else if told >= row_bytes && told * rows <= memory.sizeimage as usize {
                    told
                } else {
                    memory.sizeimage as usize / rows.max(1)
                };
                if own < row_bytes {
                    return Err(too_small(memory.sizeimage));
                }
                offset = 0;
                used.push(u32::try_from(own * rows).unwrap_or(u32::MAX));
            }
            planes.push(PlaneLayout {
                memory: if separate { index } else { 0 },
                offset,
                stride: own,
                rows,
                row_bytes,
                visible_bytes: plane.row_bytes(width),
                visible_rows: plane.rows(height),
                sample: plane.bytes as usize,
            });
            offset += own * rows;
        }
        if !separate {
            // Drivers compare with sizeimage, which can be more than the planes.
            if offset > first.sizeimage as usize {
                return Err(too_small(first.sizeimage));
            }
            used.push(first.sizeimage);
        }
        Ok(Self { planes, used })
    }

    /// The planes.
    #[must_use]
    pub fn planes(&self) -> &[PlaneLayout] {
        &self.planes
    }

    /// Bytes used of each piece of memory.
    #[must_use]
    pub fn used(&self) -> &[u32] {
        &self.used
    }

    /// Whether a picture with these strides and offsets in one piece of memory can be given to the device as it is.
    #[must_use]
    pub fn matches(&self, strides: &[usize], offsets: &[usize]) -> bool {
        self.planes.len() == strides.len()
            && self.planes.len() == offsets.len()
            && self
                .planes
                .iter()
                .zip(strides.iter().zip(offsets))
                .all(|(plane, (&stride, &offset))| plane.stride == stride && plane.offset == offset)
    }

    /// Black everywhere, for who writes less than the device reads.
    pub fn blank<'a>(&self, memories: impl Iterator<Item = &'a mut [u8]>) {
        for (index, memory) in memories.enumerate() {
            for (number, plane) in self.planes.iter().enumerate().filter(|(_, plane)| plane.memory == index) {
                let end =
                    plane.offset.saturating_add(plane.stride.saturating_mul(plane.rows)).min(memory.len());
                let bytes = memory.get_mut(plane.offset..end).unwrap_or_default();
                // Of 10 bits in two bytes the lower are 0; packed formats are grey, which is as good.
                let value = if number == 0 && self.planes.len() > 1 { 16 } else { 128 };
                let wide = self.planes.first().is_some_and(|luma| luma.sample == 2);
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = if wide && at % 2 == 0 { 0 } else { value };
                }
            }
        }
    }

    /// Copies a picture. What the device adds on the right and below repeats the edge, so that it costs no bits.
    ///
    /// `false` if the source or the memory is smaller than it should be; then part of the picture is missing.
    pub fn copy<'a>(&self, sources: &[Source<'_>], memories: impl Iterator<Item = &'a mut [u8]>) -> bool {
        let mut whole = sources.len() >= self.planes.len();
        for (index, memory) in memories.enumerate() {
            for (plane, source) in self.planes.iter().zip(sources).filter(|(plane, _)| plane.memory == index)
            {
                whole &= plane.copy(source, memory).is_some();
            }
        }
        whole
    }
}

impl PlaneLayout {
    fn copy(&self, source: &Source<'_>, memory: &mut [u8]) -> Option<()> {
        let memory = memory.get_mut(self.offset..)?;
        if source.stride == self.stride && self.row_bytes == self.visible_bytes {
            // The last line may end with its pixels.
            let length = self.stride * self.visible_rows.checked_sub(1)? + self.visible_bytes;
            memory.get_mut(..length)?.copy_from_slice(source.data.get(..length)?);
        } else {
            for row in 0..self.visible_rows {
                let from = source.data.get(row * source.stride..)?.get(..self.visible_bytes)?;
                let to = memory.get_mut(row * self.stride..)?.get_mut(..self.row_bytes)?;
                to.get_mut(..self.visible_bytes)?.copy_from_slice(from);
                let last = from.get(self.visible_bytes.checked_sub(self.sample)?..)?;
                for sample in to.get_mut(self.visible_bytes..)?.chunks_mut(self.sample) {
                    for (to, from) in sample.iter_mut().zip(last) {
                        *to = *from;
                    }
                }
            }
        }
        let last = self.visible_rows.checked_sub(1)? * self.stride;
        for row in self.visible_rows..self.rows {
            let to = row * self.stride;
            if to + self.row_bytes > memory.len() {
                return None;
            }
            memory.copy_within(last..last + self.row_bytes, to);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioctl::PlaneFormat;

    fn device(fourcc: FourCc, width: u32, height: u32, planes: &[(u32, u32)]) -> Format {
        Format {
            fourcc,
            width,
            height,
            planes: planes
                .iter()
                .map(|&(bytesperline, sizeimage)| PlaneFormat { bytesperline, sizeimage })
                .collect(),
            ..Format::default()
        }
    }

    #[test]
    fn planes_in_one_piece() {
        let device = device(V4L2_PIX_FMT_YUV420, 8, 4, &[(16, 96)]);
        let layout = Layout::new(RawFormat::I420, &device, Api::SinglePlane, 8, 4).unwrap();
        let places: Vec<_> = layout.planes().iter().map(|p| (p.memory, p.offset, p.stride, p.rows)).collect();
        assert_eq!(places, [(0, 0, 16, 4), (0, 64, 8, 2), (0, 80, 8, 2)]);
        assert_eq!(layout.used(), [96]);
        assert!(layout.matches(&[16, 8, 8], &[0, 64, 80]));
        assert!(!layout.matches(&[16, 8, 8], &[0, 64, 88]));
    }

    #[test]
    fn planes_in_several_pieces() {
        let device = device(V4L2_PIX_FMT_NV12M, 8, 4, &[(16, 64), (16, 32)]);
        let layout = Layout::new(RawFormat::Nv12, &device, Api::MultiPlane, 8, 4).unwrap();
        let places: Vec<_> = layout.planes().iter().map(|p| (p.memory, p.offset, p.stride, p.rows)).collect();
        assert_eq!(places, [(0, 0, 16, 4), (1, 0, 16, 2)]);
        assert_eq!(layout.used(), [64, 32]);
    }

    #[test]
    fn a_wrong_bytesperline_is_replaced() {
        for wrong in [0, 4, 1000] {
            let one = device(V4L2_PIX_FMT_NV12, 8, 4, &[(wrong, 96)]);
            let layout = Layout::new(RawFormat::Nv12, &one, Api::SinglePlane, 8, 4).unwrap();
            assert_eq!(layout.planes()[0].stride, 16, "{wrong}");
            assert_eq!((layout.planes()[1].stride, layout.planes()[1].offset), (16, 64));
            let several = device(V4L2_PIX_FMT_NV12M, 8, 4, &[(wrong, 64), (wrong, 32)]);
            let layout = Layout::new(RawFormat::Nv12, &several, Api::MultiPlane, 8, 4).unwrap();
            assert_eq!((layout.planes()[0].stride, layout.planes()[1].stride), (16, 16), "{wrong}");
        }
        let small = device(V4L2_PIX_FMT_NV12, 8, 4, &[(8, 40)]);
        assert!(matches!(
            Layout::new(RawFormat::Nv12, &small, Api::SinglePlane, 8, 4),
            Err(LayoutError::TooSmall { .. })
        ));
    }

    #[test]
    fn too_large_and_another_format() {
        let small = device(V4L2_PIX_FMT_NV12, 8, 4, &[(8, 48)]);
        assert_eq!(
            Layout::new(RawFormat::Nv12, &small, Api::SinglePlane, 10, 4),
            Err(LayoutError::TooLarge(8, 4))
        );
        assert!(matches!(
            Layout::new(RawFormat::I420, &small, Api::SinglePlane, 8, 4),
            Err(LayoutError::Format(_))
        ));
    }

    #[test]
    fn blank_memory_is_black() {
        let nv12 = device(V4L2_PIX_FMT_NV12, 4, 2, &[(6, 20)]);
        let layout = Layout::new(RawFormat::Nv12, &nv12, Api::SinglePlane, 4, 2).unwrap();
        let mut memory = [1; 20];
        layout.blank([&mut memory[..]].into_iter());
        assert_eq!(
            (&memory[..12], &memory[12..18], &memory[18..]),
            (&[16; 12][..], &[128; 6][..], &[1; 2][..])
        );
        let p010 = device(V4L2_PIX_FMT_P010M, 4, 2, &[(8, 16), (8, 8)]);
        let layout = Layout::new(RawFormat::P010, &p010, Api::MultiPlane, 4, 2).unwrap();
        let (mut luma, mut chroma) = ([1; 16], [1; 8]);
        layout.blank([&mut luma[..], &mut chroma[..]].into_iter());
        assert_eq!((&luma[..4], &chroma[..4]), (&[0, 16, 0, 16][..], &[0, 128, 0, 128][..]));
    }

    #[test]
    fn edges_are_repeated() {
        // 3 x 3 pixels in a device that makes 4 x 4 of it, with a stride of 6.
        let device = device(V4L2_PIX_FMT_NV12, 4, 4, &[(6, 36)]);
        let layout = Layout::new(RawFormat::Nv12, &device, Api::SinglePlane, 3, 3).unwrap();
        let (y, c) = ([1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0], [10, 20, 30, 40, 11, 21, 31, 41]);
        let sources = [Source { data: &y, stride: 4 }, Source { data: &c, stride: 4 }];
        let mut memory = [0; 36];
        assert!(layout.copy(&sources, [&mut memory[..]].into_iter()));
        let lines: Vec<_> = memory.chunks(6).map(|line| &line[..4]).collect();
        assert_eq!(
            lines,
            [[1, 2, 3, 3], [4, 5, 6, 6], [7, 8, 9, 9], [7, 8, 9, 9], [10, 20, 30, 40], [11, 21, 31, 41]]
        );
        let short = [Source { data: &y[..5], stride: 4 }, Source { data: &c, stride: 4 }];
        assert!(!layout.copy(&short, [&mut memory[..]].into_iter()), "a source that is too short");
    }
}
