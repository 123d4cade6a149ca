// SPDX-License-Identifier: MIT OR Apache-2.0

//! A picture in planes, which encoders take and decoders give.

use crate::Error;

/// How often chroma is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// Luma only.
    Gray,
    /// 4:2:0, half the columns and half the rows.
    Yuv420,
    /// 4:2:2, half the columns.
    Yuv422,
    /// 4:4:4.
    Yuv444,
}

impl Chroma {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Gray => 0,
            Self::Yuv420 => 1,
            Self::Yuv422 => 2,
            Self::Yuv444 => 3,
        }
    }

    pub(crate) const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Gray,
            2 => Self::Yuv422,
            3 => Self::Yuv444,
            _ => Self::Yuv420,
        }
    }

    /// Columns and rows of a chroma plane.
    pub const fn plane_size(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Gray => (0, 0),
            Self::Yuv420 => (width.div_ceil(2), height.div_ceil(2)),
            Self::Yuv422 => (width.div_ceil(2), height),
            Self::Yuv444 => (width, height),
        }
    }
}

/// Samples of one component, rows without padding. Samples of more than 8 bits are two bytes, little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plane {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of a sample, 1 or 2.
    pub sample: usize,
    /// The samples.
    pub data: Vec<u8>,
}

impl Plane {
    pub(crate) fn filled(width: usize, height: usize, value: u8) -> Self {
        Self { width, height, sample: 1, data: vec![value; width * height] }
    }

    pub(crate) fn from_fn(
        width: usize,
        height: usize,
        sample: usize,
        f: impl Fn(usize, usize) -> u16,
    ) -> Self {
        let mut data = Vec::with_capacity(width * height * sample);
        for y in 0..height {
            for x in 0..width {
                let value = f(x, y);
                if sample == 1 {
                    data.push(u8::try_from(value).unwrap_or(u8::MAX));
                } else {
                    data.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        Self { width, height, sample, data }
    }

    /// Bytes of a row.
    pub const fn row_bytes(&self) -> usize {
        self.width * self.sample
    }

    /// Rows, top to bottom.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks(self.row_bytes().max(1))
    }

    /// A sample; outside of the plane, the nearest one inside.
    pub fn at(&self, x: usize, y: usize) -> u16 {
        let (x, y) = (x.min(self.width.saturating_sub(1)), y.min(self.height.saturating_sub(1)));
        let index = (y * self.width + x) * self.sample;
        let low = self.data.get(index).copied().unwrap_or(0);
        let high = if self.sample == 2 { self.data.get(index + 1).copied().unwrap_or(0) } else { 0 };
        u16::from_le_bytes([low, high])
    }

    /// All samples in order.
    pub fn samples(&self) -> impl Iterator<Item = u16> {
        self.data.chunks_exact(self.sample.max(1)).map(|bytes| match bytes {
            [low, high] => u16::from_le_bytes([*low, *high]),
            [one] => u16::from(*one),
            _ => 0,
        })
    }
}

/// A picture in planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// How often chroma is sampled.
    pub chroma: Chroma,
    /// Bits of a sample, 8 or 10.
    pub depth: u8,
    /// Y, U, V; the last two are empty without chroma.
    pub planes: [Plane; 3],
}

impl Picture {
    /// Largest width and height.
    pub const MAX_SIZE: usize = 16384;

    /// A moving picture with flat parts, slopes, edges and detail, 4:2:0 of 8 bits; `number` moves it.
    pub fn test_pattern(width: usize, height: usize, number: u32) -> Self {
        let shift = number as usize * 3;
        let luma = Plane::from_fn(width, height, 1, |x, y| {
            let slope = (x * 160 / width.max(1) + y * 40 / height.max(1)) as u16 + 20;
            let (sx, sy) = ((x + shift) / 16, (y + shift / 2) / 16);
            if (sx + sy) % 7 == 0 {
                235 - slope / 2
            } else if (sx * 3 + sy) % 11 == 0 {
                40 + ((x * 7 + y * 13 + shift) % 32) as u16
            } else {
                slope
            }
        });
        let (w, h) = Chroma::Yuv420.plane_size(width, height);
        let u = Plane::from_fn(w, h, 1, |x, _| 96 + ((x + shift) * 64 / w.max(1) % 64) as u16);
        let v = Plane::from_fn(w, h, 1, |_, y| 160 - (y * 64 / h.max(1)) as u16);
        Self { width, height, chroma: Chroma::Yuv420, depth: 8, planes: [luma, u, v] }
    }

    /// One grey.
    pub fn grey(width: usize, height: usize) -> Self {
        let (w, h) = Chroma::Yuv420.plane_size(width, height);
        let planes = [Plane::filled(width, height, 96), Plane::filled(w, h, 128), Plane::filled(w, h, 128)];
        Self { width, height, chroma: Chroma::Yuv420, depth: 8, planes }
    }

    /// The same picture with other chroma sampling: mean of what falls together, repeated where there is less.
    pub fn with_chroma(&self, chroma: Chroma) -> Self {
        if self.chroma == chroma {
            return self.clone();
        }
        let [luma, u, v] = &self.planes;
        let (w, h) = chroma.plane_size(self.width, self.height);
        let sample = luma.sample;
        let neutral = 1_u16 << (self.depth - 1);
        let convert = |plane: &Plane| {
            if plane.data.is_empty() {
                return Plane::from_fn(w, h, sample, |_, _| neutral);
            }
            // How many samples of the old plane lie under one of the new, at most 2.
            let across = plane.width.div_ceil(w.max(1)).clamp(1, 2);
            let down = plane.height.div_ceil(h.max(1)).clamp(1, 2);
            Plane::from_fn(w, h, sample, |x, y| {
                let x = if plane.width >= w { x * across } else { x / 2 };
                let y = if plane.height >= h { y * down } else { y / 2 };
                let sum: u32 = (0..across)
                    .flat_map(|i| (0..down).map(move |j| (i, j)))
                    .map(|(i, j)| u32::from(plane.at(x + i, y + j)))
                    .sum();
                let count = (across * down) as u32;
                u16::try_from((sum + count / 2) / count).unwrap_or(neutral)
            })
        };
        let planes = match chroma {
            Chroma::Gray => [luma.clone(), Plane::default(), Plane::default()],
            _ => [luma.clone(), convert(u), convert(v)],
        };
        Self { chroma, planes, ..*self }
    }

    /// The same picture with samples of `depth` bits (8 or 10).
    pub fn with_depth(&self, depth: u8) -> Self {
        if self.depth == depth {
            return self.clone();
        }
        let up = depth > self.depth;
        let convert = |plane: &Plane| {
            if plane.data.is_empty() {
                return Plane::default();
            }
            Plane::from_fn(plane.width, plane.height, if depth > 8 { 2 } else { 1 }, |x, y| {
                let value = plane.at(x, y);
                if up { value << 2 } else { value >> 2 }
            })
        };
        let [y, u, v] = &self.planes;
        Self { depth, planes: [convert(y), convert(u), convert(v)], ..*self }
    }

    /// Turned clockwise by `quarters` × 90°.
    pub fn rotated(&self, quarters: u8) -> Self {
        let turn = |plane: &Plane| match quarters % 4 {
            1 => Plane::from_fn(plane.height, plane.width, plane.sample, |x, y| {
                plane.at(y, (plane.height - 1).saturating_sub(x))
            }),
            2 => Plane::from_fn(plane.width, plane.height, plane.sample, |x, y| {
                plane.at((plane.width - 1).saturating_sub(x), (plane.height - 1).saturating_sub(y))
            }),
            3 => Plane::from_fn(plane.height, plane.width, plane.sample, |x, y| {
                plane.at((plane.width - 1).saturating_sub(y), x)
            }),
            _ => plane.clone(),
        };
        // Chroma that is halved one way only would be halved the other way afterwards.
        let base =
            if self.chroma == Chroma::Yuv422 { self.with_chroma(Chroma::Yuv420) } else { self.clone() };
        let (width, height) =
            if quarters % 2 == 1 { (self.height, self.width) } else { (self.width, self.height) };
        let [y, u, v] = &base.planes;
        let planes = [turn(y), turn(u), turn(v)];
        Self { width, height, chroma: base.chroma, depth: base.depth, planes }
    }

    /// Left and right exchanged (`mirror`), top and bottom exchanged (`flip`).
    pub fn mirrored(&self, mirror: bool, flip: bool) -> Self {
        if !mirror && !flip {
            return self.clone();
        }
        let turn = |plane: &Plane| {
            Plane::from_fn(plane.width, plane.height, plane.sample, |x, y| {
                let x = if mirror { (plane.width - 1).saturating_sub(x) } else { x };
                let y = if flip { (plane.height - 1).saturating_sub(y) } else { y };
                plane.at(x, y)
            })
        };
        let [y, u, v] = &self.planes;
        Self { planes: [turn(y), turn(u), turn(v)], ..*self }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}x{} {:?} of {} bits", self.width, self.height, self.chroma, self.depth)
    }
}

/// Peak signal-to-noise ratio of Y, U, V in dB; infinite for equal planes.
///
/// # Errors
/// [`Error::Mismatch`] if the pictures differ in size, sampling or depth.
pub fn psnr(a: &Picture, b: &Picture) -> Result<[f64; 3], Error> {
    if a.describe() != b.describe() {
        return Err(Error::Mismatch { have: b.describe(), wanted: a.describe() });
    }
    let peak = f64::from((1_u32 << a.depth) - 1);
    let mut result = [f64::INFINITY; 3];
    for (value, (a, b)) in result.iter_mut().zip(a.planes.iter().zip(&b.planes)) {
        let squares: u64 = a
            .samples()
            .zip(b.samples())
            .map(|(a, b)| u64::from(a.abs_diff(b)) * u64::from(a.abs_diff(b)))
            .sum();
        if squares > 0 {
            *value = 10.0 * (peak * peak * (a.width * a.height) as f64 / squares as f64).log10();
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_of_known_noise() {
        let a = Picture::grey(64, 64);
        assert_eq!(psnr(&a, &a).unwrap(), [f64::INFINITY; 3]);
        let mut b = a.clone();
        b.planes[0].data.iter_mut().for_each(|v| *v += 1);
        // 20 log10(255) = 48.13
        assert!((psnr(&a, &b).unwrap()[0] - 48.1308).abs() < 0.001);
        assert!(matches!(psnr(&a, &Picture::grey(64, 66)), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn four_quarters_are_none() {
        let a = Picture::test_pattern(64, 48, 1);
        let once = a.rotated(1);
        assert_eq!((once.width, once.height), (48, 64));
        assert_eq!(once.planes[0].at(47, 0), a.planes[0].at(0, 0));
        assert_eq!(once.rotated(3), a);
        assert_eq!(a.rotated(2).rotated(2), a);
        assert_eq!(a.mirrored(true, true), a.rotated(2));
    }

    #[test]
    fn sampling_goes_up_and_down() {
        let a = Picture::test_pattern(66, 50, 1);
        for chroma in [Chroma::Yuv422, Chroma::Yuv444] {
            let b = a.with_chroma(chroma);
            assert_eq!((b.planes[1].width, b.planes[1].height), chroma.plane_size(66, 50));
            assert_eq!(b.with_chroma(Chroma::Yuv420), a);
        }
        assert_eq!(a.with_depth(10).with_depth(8), a);
        assert_eq!(a.with_depth(10).planes[0].at(5, 5), a.planes[0].at(5, 5) << 2);
    }
}
