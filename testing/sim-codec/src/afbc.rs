// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures as hardware lays them out in compressed buffers: Arm Frame Buffer Compression (AFBC), blocks of 16x16 pixels,
//! all components in one plane, each block at a place of its own ("sparse").
//!
//! In front stands a header of 16 bytes for each block: 32 bits say where its samples begin, sixteen times six bits how many
//! bytes each of its sixteen parts of 4x4 pixels has. The sizes are those of stored, uncompressed samples (1), which the
//! format allows, so that a reader has to go by the headers as it would with compressed ones. How the samples of a stored
//! part follow one another is not published: here it is luma, then the two colours, each row by row, lowest bits first.

use crate::picture::Plane;
use crate::{Chroma, Error, Picture};

/// Pixels across and down of a block.
const BLOCK: usize = 16;
/// Pixels across and down of a part of it.
const PART: usize = 4;
/// Bytes of a header.
const HEADER: usize = 16;
/// Samples begin at a multiple of so many bytes, a row of headers behind the last one.
const PAGE: usize = 4096;
/// What a header says of a part whose samples are stored as they are.
const STORED: u128 = 1;

/// A compressed buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Afbc {
    /// Pixels of a row of headers, a multiple of 16.
    pub stride: usize,
    /// Pixels of a column of headers, a multiple of 16.
    pub rows: usize,
    /// How often chroma is sampled: 4:2:0 or 4:2:2.
    pub chroma: Chroma,
    /// Bits of a sample, 8 or 10.
    pub depth: u8,
    /// Where the picture begins, pixels, even.
    pub offset: (usize, usize),
}

impl Afbc {
    /// Columns and rows of a part's chroma.
    const fn part_chroma(&self) -> (usize, usize) {
        self.chroma.plane_size(PART, PART)
    }

    /// Bytes of a stored part.
    const fn part_bytes(&self) -> usize {
        let (w, h) = self.part_chroma();
        (PART * PART + 2 * w * h) * self.depth as usize / 8
    }

    const fn blocks(&self) -> (usize, usize) {
        (self.stride / BLOCK, self.rows / BLOCK)
    }

    /// Bytes of a buffer.
    pub const fn size(&self) -> usize {
        let (across, down) = self.blocks();
        self.payload() + across * down * 16 * self.part_bytes()
    }

    /// Where samples begin: as the hardware's driver is told.
    const fn payload(&self) -> usize {
        (self.stride * (self.rows + BLOCK) / BLOCK).div_ceil(PAGE) * PAGE
    }

    fn check(&self, (width, height): (usize, usize), have: usize) -> Result<(), Error> {
        let (x, y) = self.offset;
        let blocks = self.stride.is_multiple_of(BLOCK) && self.rows.is_multiple_of(BLOCK);
        let sampling = matches!(self.chroma, Chroma::Yuv420 | Chroma::Yuv422) && matches!(self.depth, 8 | 10);
        if !blocks || !sampling || !x.is_multiple_of(2) || !y.is_multiple_of(2) || width == 0 || height == 0 {
            return Err(Error::Setting("compressed buffers are made of whole blocks of 4:2:0 or 4:2:2"));
        }
        if self.stride < x + width || self.rows < y + height || self.stride > 1 << 16 || self.rows > 1 << 16 {
            return Err(Error::Setting("the strides don't fit the picture"));
        }
        let needed = self.size();
        if have < needed { Err(Error::Buffer { needed, have }) } else { Ok(()) }
    }

    /// Where the samples of a part stand in the planes: plane, column, row; in the order of the file's head.
    fn samples(&self, block: (usize, usize), part: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let (w, h) = self.part_chroma();
        let (part_x, part_y) = (part % 4, part / 4);
        let (x, y) = (block.0 * 4 + part_x, block.1 * 4 + part_y);
        [(0, PART, PART), (1, w, h), (2, w, h)].into_iter().flat_map(move |(plane, w, h)| {
            (0..h).flat_map(move |row| (0..w).map(move |column| (plane, x * w + column, y * h + row)))
        })
    }

    /// Writes a picture; beyond its edges, its edges.
    ///
    /// # Errors
    /// [`Error::Buffer`] if the buffer is too small, [`Error::Setting`] for a layout that makes no sense.
    pub fn write(&self, picture: &Picture, data: &mut [u8]) -> Result<(), Error> {
        self.check((picture.width, picture.height), data.len())?;
        let picture = picture.with_chroma(self.chroma).with_depth(self.depth);
        let (across, down) = self.blocks();
        let sizes = (0..16).fold(0_u128, |sizes, part| sizes | STORED << (32 + 6 * part));
        for block in 0..across * down {
            let at = (block % across, block / across);
            let begin = self.payload() + block * 16 * self.part_bytes();
            let header = sizes | u128::from(u32::try_from(begin).unwrap_or(u32::MAX));
            if let Some(to) = data.get_mut(block * HEADER..(block + 1) * HEADER) {
                to.copy_from_slice(&header.to_le_bytes());
            }
            for part in 0..16 {
                let begin = begin + part * self.part_bytes();
                let Some(to) = data.get_mut(begin..begin + self.part_bytes()) else { continue };
                let samples = self.samples(at, part).map(|(plane, x, y)| self.sample(&picture, plane, x, y));
                pack(samples, self.depth, to);
            }
        }
        Ok(())
    }

    fn offset_of(&self, plane: usize) -> (usize, usize) {
        if plane == 0 { self.offset } else { self.chroma.plane_size(self.offset.0, self.offset.1) }
    }

    fn sample(&self, picture: &Picture, plane: usize, x: usize, y: usize) -> u16 {
        let (left, top) = self.offset_of(plane);
        picture.planes.get(plane).map_or(0, |plane| plane.at(x.saturating_sub(left), y.saturating_sub(top)))
    }

    /// Reads a picture of this size, by the headers.
    ///
    /// # Errors
    /// [`Error::Buffer`] if the buffer is too small, [`Error::Setting`] for a layout that makes no sense, or headers that
    /// say something else than [`write`](Self::write) writes.
    pub fn read(&self, (width, height): (usize, usize), data: &[u8]) -> Result<Picture, Error> {
        self.check((width, height), data.len())?;
        let bytes = if self.depth > 8 { 2 } else { 1 };
        let (w, h) = self.chroma.plane_size(width, height);
        let mut planes = [(width, height), (w, h), (w, h)].map(|(width, height)| Plane {
            width,
            height,
            sample: bytes,
            data: vec![0; width * height * bytes],
        });
        let (across, down) = self.blocks();
        for block in 0..across * down {
            let header = data.get(block * HEADER..(block + 1) * HEADER).and_then(|h| h.try_into().ok());
            let header = header.map_or(0, u128::from_le_bytes);
            let begin = usize::try_from(header & 0xffff_ffff).unwrap_or(0);
            if begin < across * down * HEADER {
                return Err(Error::Setting("a header points into the headers"));
            }
            for part in 0..16 {
                if header >> (32 + 6 * part) & 0x3f != STORED {
                    return Err(Error::Setting("a header says that its part is not stored as it is"));
                }
                let begin = begin + part * self.part_bytes();
                let from = data.get(begin..begin + self.part_bytes());
                let from = from.ok_or(Error::Setting("a header points behind the buffer"))?;
                let places = self.samples((block % across, block / across), part);
                for ((plane, x, y), value) in places.zip(unpack(from, self.depth)) {
                    let (left, top) = self.offset_of(plane);
                    let (Some(x), Some(y)) = (x.checked_sub(left), y.checked_sub(top)) else { continue };
                    let Some(plane) = planes.get_mut(plane).filter(|p| x < p.width && y < p.height) else {
                        continue;
                    };
                    let at = (y * plane.width + x) * bytes;
                    if let Some(to) = plane.data.get_mut(at..at + bytes) {
                        to.iter_mut().zip(value.to_le_bytes()).for_each(|(to, byte)| *to = byte);
                    }
                }
            }
        }
        Ok(Picture { width, height, chroma: self.chroma, depth: self.depth, planes })
    }
}

/// Samples one after the other, lowest bits first.
fn pack(samples: impl Iterator<Item = u16>, depth: u8, to: &mut [u8]) {
    let (mut bits, mut count) = (0_u64, 0);
    let mut to = to.iter_mut();
    for sample in samples {
        bits |= u64::from(sample) << count;
        count += u32::from(depth);
        while count >= 8 {
            if let Some(byte) = to.next() {
                *byte = (bits & 0xff) as u8;
            }
            bits >>= 8;
            count -= 8;
        }
    }
}

fn unpack(from: &[u8], depth: u8) -> impl Iterator<Item = u16> {
    let (mut bits, mut count) = (0_u64, 0);
    let mut from = from.iter();
    let depth = u32::from(depth);
    std::iter::from_fn(move || {
        while count < depth {
            bits |= u64::from(*from.next()?) << count;
            count += 8;
        }
        let sample = bits & ((1 << depth) - 1);
        bits >>= depth;
        count -= depth;
        u16::try_from(sample).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn afbc(chroma: Chroma, depth: u8) -> Afbc {
        Afbc { stride: 64, rows: 48, chroma, depth, offset: (0, 4) }
    }

    #[test]
    fn pictures_go_there_and_back() {
        for (chroma, depth, part) in [
            (Chroma::Yuv420, 8, 24),
            (Chroma::Yuv420, 10, 30),
            (Chroma::Yuv422, 8, 32),
            (Chroma::Yuv422, 10, 40),
        ] {
            let afbc = afbc(chroma, depth);
            let picture = Picture::test_pattern(50, 34, 3).with_chroma(chroma).with_depth(depth);
            // Twelve headers, and a row more than there is, end within the first page.
            assert_eq!(afbc.size(), 4096 + 12 * 16 * part);
            let mut data = vec![0xee; afbc.size()];
            afbc.write(&picture, &mut data).unwrap();
            assert_eq!(afbc.read((50, 34), &data).unwrap(), picture, "{chroma:?} {depth}");
        }
    }

    #[test]
    fn a_reader_goes_by_the_headers() {
        let afbc = afbc(Chroma::Yuv420, 8);
        let picture = Picture::test_pattern(64, 44, 0);
        let mut data = vec![0; afbc.size()];
        afbc.write(&picture, &mut data).unwrap();
        // The second block: its place, then sixteen times "stored".
        assert_eq!(u32::from_le_bytes(data[16..20].try_into().unwrap()), 4096 + 384);
        assert_eq!(data[20..23], [0x41, 0x10, 0x04]);
        // The picture begins four rows down: at the second row of parts.
        assert_eq!(u16::from(data[4096 + 4 * 24]), picture.planes[0].at(0, 0));
        // Two blocks change places, and their headers with them: nothing is to be seen of it.
        let (a, b) = (4096, 4096 + 384);
        let first = data[a..b].to_vec();
        data.copy_within(b..b + 384, a);
        data[b..b + 384].copy_from_slice(&first);
        data[0..4].copy_from_slice(&u32::try_from(b).unwrap().to_le_bytes());
        data[16..20].copy_from_slice(&u32::try_from(a).unwrap().to_le_bytes());
        assert_eq!(afbc.read((64, 44), &data).unwrap(), picture);

        let mut other = data.clone();
        other[20] = 0;
        assert!(matches!(afbc.read((64, 44), &other), Err(Error::Setting(_))));
        data[2] = 0xff;
        assert!(matches!(afbc.read((64, 44), &data), Err(Error::Setting(_))));
        // A picture in lines is none.
        assert!(afbc.read((64, 44), &vec![0x80; afbc.size()]).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let good = afbc(Chroma::Yuv420, 8);
        let mut data = vec![0; good.size()];
        let picture = Picture::grey(64, 44);
        for bad in [
            Afbc { stride: 63, ..good },
            Afbc { rows: 40, ..good },
            Afbc { offset: (0, 6), ..good },
            Afbc { offset: (1, 0), ..good },
            Afbc { chroma: Chroma::Yuv444, ..good },
            Afbc { depth: 12, ..good },
        ] {
            assert!(matches!(bad.write(&picture, &mut data), Err(Error::Setting(_))), "{bad:?}");
        }
        let needed = good.size();
        let short = data.get_mut(..needed - 1).unwrap();
        assert_eq!(good.write(&picture, short), Err(Error::Buffer { needed, have: needed - 1 }));
    }
}
