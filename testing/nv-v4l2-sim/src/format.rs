// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pixel formats, and how pictures lie in memory.

use sim_codec::{Chroma, Codec, Picture, Plane};
use v4l2_m2m::uapi::FourCc;

/// A codec of CAPTURE.
pub fn codec_of(pixels: u32, av1: bool) -> Option<Codec> {
    match &pixels.to_le_bytes() {
        b"H264" => Some(Codec::H264),
        // NVIDIA's own number; the kernel's HEVC is not it (reference §2.3).
        b"H265" => Some(Codec::H265),
        b"AV10" if av1 => Some(Codec::Av1),
        _ => None,
    }
}

/// CAPTURE formats in the order of ENUM_FMT.
pub fn coded_formats(av1: bool) -> impl Iterator<Item = u32> {
    [*b"H264", *b"H265", *b"AV10"]
        .into_iter()
        .map(u32::from_le_bytes)
        .filter(move |pixels| codec_of(*pixels, av1).is_some())
}

/// A format of OUTPUT: separate planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// `YM12`: Y, U, V.
    Yuv420,
    /// `NM12`: Y, then U and V in turn.
    Nv12,
    /// `PM10`: as NM12, 10 bits in the upper bits of two bytes; H.265 only.
    P010,
}

impl Raw {
    /// All, in the order of ENUM_FMT.
    pub const ALL: [Self; 3] = [Self::Yuv420, Self::Nv12, Self::P010];

    /// The format's number.
    pub const fn pixels(self) -> u32 {
        match self {
            Self::Yuv420 => FourCc::new(b"YM12").0,
            Self::Nv12 => FourCc::new(b"NM12").0,
            Self::P010 => FourCc::new(b"PM10").0,
        }
    }

    /// The format of a number.
    pub fn of(pixels: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|raw| raw.pixels() == pixels)
    }

    /// Columns in bytes and rows of each plane, without padding.
    fn plane_sizes(self, width: usize, height: usize) -> Vec<(usize, usize)> {
        let chroma = height.div_ceil(2);
        match self {
            Self::Yuv420 => {
                vec![(width, height), (width.div_ceil(2), chroma), (width.div_ceil(2), chroma)]
            }
            Self::Nv12 => vec![(width, height), (width.div_ceil(2) * 2, chroma)],
            Self::P010 => vec![(width * 2, height), (width.div_ceil(2) * 4, chroma)],
        }
    }

    /// Where the planes of a picture stand in one piece of memory.
    pub fn layout(self, width: u32, height: u32) -> Layout {
        let mut planes = Vec::new();
        let mut at = 0;
        for (row, rows) in self.plane_sizes(width as usize, height as usize) {
            let pitch = row.next_multiple_of(PITCH);
            let size = pitch * rows;
            planes.push(PlaneLayout { at, pitch, row, rows, size });
            // A plane can be mapped on its own.
            at += size.next_multiple_of(PAGE);
        }
        Layout { raw: self, width, height, planes, size: at }
    }
}

/// The hardware's pitch is a multiple of this.
pub const PITCH: usize = 256;
/// Planes begin at multiples of this.
pub const PAGE: usize = 4096;

/// Where one plane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLayout {
    /// Byte offset.
    pub at: usize,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Bytes of a row without padding.
    pub row: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes with padding.
    pub size: usize,
}

/// Where the planes of a picture stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The format.
    pub raw: Raw,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// One after the other.
    pub planes: Vec<PlaneLayout>,
    /// Bytes altogether.
    pub size: usize,
}

impl Layout {
    /// The picture that lies there; what lies outside of `memory` is grey.
    pub fn read(&self, memory: &[u8]) -> Picture {
        let (width, height) = (self.width as usize, self.height as usize);
        let (w, h) = (width.div_ceil(2), height.div_ceil(2));
        let sample = if self.raw == Raw::P010 { 2 } else { 1 };
        let mut rows = self.planes.iter().map(|plane| {
            let mut data = Vec::with_capacity(plane.row * plane.rows);
            for row in 0..plane.rows {
                let at = plane.at + row * plane.pitch;
                match memory.get(at..at + plane.row) {
                    Some(row) => data.extend_from_slice(row),
                    None => data.resize(data.len() + plane.row, 128),
                }
            }
            if sample == 2 {
                // 10 bits from the upper bits of two bytes.
                for pair in data.chunks_exact_mut(2) {
                    if let [low, high] = pair {
                        [*low, *high] = (u16::from_le_bytes([*low, *high]) >> 6).to_le_bytes();
                    }
                }
            }
            data
        });
        let mut next = || rows.next().unwrap_or_default();
        let luma = Plane { width, height, sample, data: next() };
        let chroma = |data| Plane { width: w, height: h, sample, data };
        let (u, v) = if self.raw == Raw::Yuv420 {
            (next(), next())
        } else {
            let both = next();
            let part = |skip: usize| {
                both.chunks_exact(2 * sample)
                    .flat_map(move |pair| pair.iter().skip(skip).take(sample))
                    .copied()
            };
            (part(0).collect(), part(sample).collect())
        };
        let depth = if sample == 2 { 10 } else { 8 };
        Picture { width, height, chroma: Chroma::Yuv420, depth, planes: [luma, chroma(u), chroma(v)] }
    }

    /// Writes a picture of 8 bits and 4:2:0; for tests.
    pub fn write(&self, picture: &Picture, memory: &mut [u8]) {
        let [y, u, v] = &picture.planes;
        let both = Plane {
            width: u.width * 2,
            height: u.height,
            sample: 1,
            data: u.data.iter().zip(&v.data).flat_map(|(u, v)| [*u, *v]).collect(),
        };
        let planes: Vec<&Plane> = if self.raw == Raw::Yuv420 { vec![y, u, v] } else { vec![y, &both] };
        for (layout, plane) in self.planes.iter().zip(planes) {
            for (row, from) in plane.data.chunks_exact(plane.width.max(1)).enumerate() {
                let at = layout.at + row * layout.pitch;
                for (column, value) in from.iter().enumerate() {
                    if self.raw == Raw::P010 {
                        if let Some(to) = memory.get_mut(at + column * 2..at + column * 2 + 2) {
                            to.copy_from_slice(&(u16::from(*value) << 8).to_le_bytes());
                        }
                    } else if let Some(to) = memory.get_mut(at + column) {
                        *to = *value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_survive_memory() {
        let picture = Picture::test_pattern(322, 182, 3);
        for raw in [Raw::Yuv420, Raw::Nv12, Raw::P010] {
            let layout = raw.layout(322, 182);
            let mut memory = vec![0; layout.size];
            layout.write(&picture, &mut memory);
            let back = layout.read(&memory);
            assert_eq!(back.with_depth(8), picture, "{raw:?}");
        }
    }

    #[test]
    fn planes_can_be_mapped_one_by_one() {
        let layout = Raw::Yuv420.layout(1920, 1080);
        assert_eq!(layout.planes.iter().map(|p| p.pitch).collect::<Vec<_>>(), [2048, 1024, 1024]);
        assert!(layout.planes.iter().all(|p| p.at % PAGE == 0 && p.size == p.pitch * p.rows));
    }

    #[test]
    fn short_memory_gives_a_picture_all_the_same() {
        let layout = Raw::Nv12.layout(64, 64);
        assert_eq!(layout.read(&[]).planes[0].data, vec![128; 64 * 64]);
    }
}
