// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures as they lie in the one buffer of a hardware codec: planes one after the other, each row `stride` bytes
//! after the one before, each plane `rows` rows high (more than the picture has).

use crate::picture::Plane;
use crate::{Chroma, Error, Picture};

/// How samples lie in a buffer. Bytes are named in the order in which they stand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawFormat {
    /// Y, then U and V in turn, 4:2:0.
    Nv12,
    /// Y, then V and U in turn, 4:2:0.
    Nv21,
    /// Y, then U and V in turn, 4:2:2.
    Nv16,
    /// Y, then V and U in turn, 4:2:2.
    Nv61,
    /// Y, then U and V in turn, 4:4:4; rows of chroma are twice the stride.
    Nv24,
    /// Y, U, V, 4:2:0; rows of chroma are half the stride.
    I420,
    /// Y, V, U, 4:2:0; rows of chroma are half the stride.
    Yv12,
    /// Y, U, V, 4:2:2; rows of chroma are half the stride.
    I422,
    /// Y, U, V, 4:4:4.
    I444,
    /// Luma only.
    Gray8,
    /// Y U Y V.
    Yuyv,
    /// Y V Y U.
    Yvyu,
    /// U Y V Y.
    Uyvy,
    /// V Y U Y.
    Vyuy,
    /// R G B.
    Rgb24,
    /// B G R.
    Bgr24,
    /// A R G B.
    Argb,
    /// A B G R.
    Abgr,
    /// B G R A.
    Bgra,
    /// R G B A.
    Rgba,
    /// As NV12 with 10 bits: four samples in five bytes, lowest bits first.
    Nv15,
    /// As NV16 with 10 bits: four samples in five bytes, lowest bits first.
    Nv20,
    /// As NV12 with 10 bits in the upper bits of two bytes.
    P010,
}

/// Order of the four bytes of two packed 4:2:2 pixels: where Y of the first, U, Y of the second, V stand.
type Packed = [usize; 4];

impl RawFormat {
    fn packed(self) -> Option<Packed> {
        Some(match self {
            Self::Yuyv => [0, 1, 2, 3],
            Self::Yvyu => [0, 3, 2, 1],
            Self::Uyvy => [1, 0, 3, 2],
            Self::Vyuy => [1, 2, 3, 0],
            _ => return None,
        })
    }

    /// Bytes of a pixel and where R, G, B stand in it.
    fn rgb(self) -> Option<(usize, [usize; 3])> {
        Some(match self {
            Self::Rgb24 => (3, [0, 1, 2]),
            Self::Bgr24 => (3, [2, 1, 0]),
            Self::Argb => (4, [1, 2, 3]),
            Self::Abgr => (4, [3, 2, 1]),
            Self::Bgra => (4, [2, 1, 0]),
            Self::Rgba => (4, [0, 1, 2]),
            _ => return None,
        })
    }

    /// How often chroma is sampled; RGB counts as 4:4:4.
    pub const fn chroma(self) -> Chroma {
        match self {
            Self::Nv12 | Self::Nv21 | Self::I420 | Self::Yv12 | Self::Nv15 | Self::P010 => Chroma::Yuv420,
            Self::Nv16 | Self::Nv61 | Self::I422 | Self::Nv20 => Chroma::Yuv422,
            Self::Yuyv | Self::Yvyu | Self::Uyvy | Self::Vyuy => Chroma::Yuv422,
            Self::Gray8 => Chroma::Gray,
            _ => Chroma::Yuv444,
        }
    }

    /// Bits of a sample.
    pub const fn depth(self) -> u8 {
        match self {
            Self::Nv15 | Self::Nv20 | Self::P010 => 10,
            _ => 8,
        }
    }

    /// Bytes of the shortest row (of luma, or of all).
    pub fn min_stride(self, width: usize) -> usize {
        match self {
            Self::Yuyv | Self::Yvyu | Self::Uyvy | Self::Vyuy => width.div_ceil(2) * 4,
            Self::Nv15 | Self::Nv20 => (width * 10).div_ceil(8),
            Self::P010 => width * 2,
            _ => self.rgb().map_or(width, |(bytes, _)| width * bytes),
        }
    }

    /// Bytes of a picture with rows of `stride` bytes and planes of `rows` rows.
    pub fn size(self, stride: usize, rows: usize) -> usize {
        let plane = stride * rows;
        if self.packed().is_some() || self.rgb().is_some() {
            return plane;
        }
        match self.chroma() {
            Chroma::Gray => plane,
            Chroma::Yuv420 => plane + stride * rows.div_ceil(2),
            Chroma::Yuv422 => plane * 2,
            Chroma::Yuv444 => plane * 3,
        }
    }
}

/// A picture in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct RawImage<'a> {
    /// How its samples lie.
    pub format: RawFormat,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from row to row.
    pub stride: usize,
    /// Rows from plane to plane.
    pub rows: usize,
    /// The buffer.
    pub data: &'a [u8],
}

/// Where planes stand: byte offset, bytes from row to row.
struct Layout {
    planes: [(usize, usize); 3],
    end: usize,
}

fn check(
    format: RawFormat,
    size: (usize, usize),
    stride: usize,
    rows: usize,
    have: usize,
) -> Result<Layout, Error> {
    let (width, height) = size;
    if width == 0 || height == 0 || width > Picture::MAX_SIZE || height > Picture::MAX_SIZE {
        return Err(Error::Setting("width and height must be from 1 to 16384"));
    }
    if stride < format.min_stride(width) || rows < height || stride > 1 << 20 || rows > 1 << 16 {
        return Err(Error::Setting("the strides don't fit the picture"));
    }
    let luma = stride * rows;
    let half = stride.div_ceil(2);
    let planes = match format {
        RawFormat::I420 | RawFormat::Yv12 => {
            [(0, stride), (luma, half), (luma + half * rows.div_ceil(2), half)]
        }
        RawFormat::I422 => [(0, stride), (luma, half), (luma + half * rows, half)],
        RawFormat::I444 => [(0, stride), (luma, stride), (2 * luma, stride)],
        RawFormat::Nv24 => [(0, stride), (luma, 2 * stride), (luma, 2 * stride)],
        _ => [(0, stride), (luma, stride), (luma, stride)],
    };
    // The last row may end with the picture.
    let (w, h) = format.chroma().plane_size(width, height);
    let end = match format {
        _ if format.packed().is_some() || format.rgb().is_some() || format.chroma() == Chroma::Gray => {
            stride * (height - 1) + format.min_stride(width)
        }
        RawFormat::I420 | RawFormat::Yv12 | RawFormat::I422 | RawFormat::I444 => {
            planes.last().map_or(0, |(offset, stride)| offset + stride * (h - 1) + w)
        }
        _ => {
            planes.last().map_or(0, |(offset, stride)| offset + stride * (h - 1) + semi_planar_row(format, w))
        }
    };
    if have < end {
        return Err(Error::Buffer { needed: end, have });
    }
    Ok(Layout { planes, end })
}

/// Bytes of a row of `pairs` chroma pairs.
fn semi_planar_row(format: RawFormat, pairs: usize) -> usize {
    match format {
        RawFormat::Nv15 | RawFormat::Nv20 => (pairs * 20).div_ceil(8),
        RawFormat::P010 => pairs * 4,
        _ => pairs * 2,
    }
}

fn rows_of(data: &[u8], (offset, stride): (usize, usize), count: usize) -> impl Iterator<Item = &[u8]> {
    data.get(offset..).unwrap_or_default().chunks(stride.max(1)).take(count)
}

fn rows_of_mut(
    data: &mut [u8],
    (offset, stride): (usize, usize),
    count: usize,
) -> impl Iterator<Item = &mut [u8]> {
    data.get_mut(offset..).unwrap_or_default().chunks_mut(stride.max(1)).take(count)
}

fn plane_of(data: &[u8], at: (usize, usize), (width, height): (usize, usize)) -> Plane {
    let mut copy = Vec::with_capacity(width * height);
    for row in rows_of(data, at, height) {
        copy.extend_from_slice(row.get(..width).unwrap_or_default());
    }
    Plane { width, height, sample: 1, data: copy }
}

impl Picture {
    /// The picture of a buffer, with the chroma sampling that it has there; RGB becomes BT.601 of limited range.
    ///
    /// # Errors
    /// [`Error::Buffer`] if the layout needs more bytes, [`Error::Setting`] for a layout that makes no sense or a
    /// format that only decoders give (10 bits).
    pub fn from_raw(raw: &RawImage) -> Result<Self, Error> {
        let (width, height) = (raw.width, raw.height);
        let layout = check(raw.format, (width, height), raw.stride, raw.rows, raw.data.len())?;
        let data = raw.data.get(..layout.end).unwrap_or(raw.data);
        let [luma_at, u_at, v_at] = layout.planes;
        let chroma = raw.format.chroma();
        let size = chroma.plane_size(width, height);
        let planes = match raw.format {
            RawFormat::Nv12 | RawFormat::Nv21 | RawFormat::Nv16 | RawFormat::Nv61 | RawFormat::Nv24 => {
                let mut first = Vec::with_capacity(size.0 * size.1);
                let mut second = Vec::with_capacity(size.0 * size.1);
                for row in rows_of(data, u_at, size.1) {
                    let row = row.get(..size.0 * 2).unwrap_or_default();
                    first.extend(row.iter().step_by(2));
                    second.extend(row.iter().skip(1).step_by(2));
                }
                let plane = |data| Plane { width: size.0, height: size.1, sample: 1, data };
                let luma = plane_of(data, luma_at, (width, height));
                if matches!(raw.format, RawFormat::Nv21 | RawFormat::Nv61) {
                    [luma, plane(second), plane(first)]
                } else {
                    [luma, plane(first), plane(second)]
                }
            }
            RawFormat::I420 | RawFormat::I422 | RawFormat::I444 => [
                plane_of(data, luma_at, (width, height)),
                plane_of(data, u_at, size),
                plane_of(data, v_at, size),
            ],
            RawFormat::Yv12 => [
                plane_of(data, luma_at, (width, height)),
                plane_of(data, v_at, size),
                plane_of(data, u_at, size),
            ],
            RawFormat::Gray8 => {
                [plane_of(data, luma_at, (width, height)), Plane::default(), Plane::default()]
            }
            RawFormat::Nv15 | RawFormat::Nv20 | RawFormat::P010 => {
                return Err(Error::Setting("pictures of 10 bits can't be read from a buffer"));
            }
            packed => {
                if let Some(order) = packed.packed() {
                    from_packed(data, raw, order)
                } else if let Some((bytes, order)) = packed.rgb() {
                    from_rgb(data, raw, bytes, order)
                } else {
                    return Err(Error::Setting("this format can't be read from a buffer"));
                }
            }
        };
        Ok(Self { width, height, chroma, depth: 8, planes })
    }

    /// Writes the picture into a buffer; sampling and depth are converted to what the format has.
    ///
    /// # Errors
    /// [`Error::Buffer`] if the buffer is too small, [`Error::Setting`] for a layout that makes no sense or a format
    /// that only encoders take (packed, RGB).
    pub fn to_raw(
        &self,
        format: RawFormat,
        stride: usize,
        rows: usize,
        data: &mut [u8],
    ) -> Result<(), Error> {
        let layout = check(format, (self.width, self.height), stride, rows, data.len())?;
        if format.packed().is_some() || format.rgb().is_some() {
            return Err(Error::Setting("packed formats can't be written"));
        }
        let converted;
        let this = if self.chroma == format.chroma() && self.depth == format.depth() {
            self
        } else {
            converted = self.with_chroma(format.chroma()).with_depth(format.depth());
            &converted
        };
        let [luma, u, v] = &this.planes;
        let [luma_at, u_at, v_at] = layout.planes;
        let mut copy = |at: (usize, usize), plane: &Plane| {
            for (to, from) in rows_of_mut(data, at, plane.height).zip(plane.rows()) {
                if let Some(to) = to.get_mut(..from.len()) {
                    to.copy_from_slice(from);
                }
            }
        };
        match format {
            RawFormat::Gray8 => copy(luma_at, luma),
            RawFormat::I420 | RawFormat::I422 | RawFormat::I444 => {
                copy(luma_at, luma);
                copy(u_at, u);
                copy(v_at, v);
            }
            RawFormat::Yv12 => {
                copy(luma_at, luma);
                copy(u_at, v);
                copy(v_at, u);
            }
            RawFormat::Nv15 | RawFormat::Nv20 => {
                pack_10(rows_of_mut(data, luma_at, luma.height), luma.rows());
                let pairs = interleaved(u, v);
                pack_10(rows_of_mut(data, u_at, u.height), pairs.chunks((u.width * 4).max(1)));
            }
            RawFormat::P010 => {
                upper_10(rows_of_mut(data, luma_at, luma.height), luma.rows());
                let pairs = interleaved(u, v);
                upper_10(rows_of_mut(data, u_at, u.height), pairs.chunks((u.width * 4).max(1)));
            }
            _ => {
                copy(luma_at, luma);
                let (u, v) =
                    if matches!(format, RawFormat::Nv21 | RawFormat::Nv61) { (v, u) } else { (u, v) };
                for (to, (u, v)) in rows_of_mut(data, u_at, u.height).zip(u.rows().zip(v.rows())) {
                    for (pair, (u, v)) in to.chunks_exact_mut(2).zip(u.iter().zip(v)) {
                        if let [a, b] = pair {
                            (*a, *b) = (*u, *v);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// U and V samples of two bytes in turn.
fn interleaved(u: &Plane, v: &Plane) -> Vec<u8> {
    u.samples()
        .zip(v.samples())
        .flat_map(|(u, v)| u.to_le_bytes().into_iter().chain(v.to_le_bytes()))
        .collect()
}

fn words(row: &[u8]) -> impl Iterator<Item = u16> {
    row.chunks_exact(2).map(|b| if let [low, high] = b { u16::from_le_bytes([*low, *high]) } else { 0 })
}

/// Four samples of 10 bits into five bytes, lowest bits first.
fn pack_10<'a>(to: impl Iterator<Item = &'a mut [u8]>, from: impl Iterator<Item = &'a [u8]>) {
    for (to, from) in to.zip(from) {
        let mut samples = words(from);
        for group in to.chunks_mut(5) {
            let Some(first) = samples.next() else { break };
            let mut value = u64::from(first & 0x3ff);
            let mut bits = 10;
            for sample in samples.by_ref().take(3) {
                value |= u64::from(sample & 0x3ff) << bits;
                bits += 10;
            }
            for (byte, value) in group.iter_mut().zip(value.to_le_bytes()).take((bits as usize).div_ceil(8)) {
                *byte = value;
            }
        }
    }
}

fn upper_10<'a>(to: impl Iterator<Item = &'a mut [u8]>, from: impl Iterator<Item = &'a [u8]>) {
    for (to, from) in to.zip(from) {
        for (pair, sample) in to.chunks_exact_mut(2).zip(words(from)) {
            pair.copy_from_slice(&(sample << 6).to_le_bytes());
        }
    }
}

fn from_packed(data: &[u8], raw: &RawImage, [y0, u, y1, v]: Packed) -> [Plane; 3] {
    let pairs = raw.width.div_ceil(2);
    let mut planes = [Vec::new(), Vec::new(), Vec::new()];
    let [luma, blue, red] = &mut planes;
    for row in rows_of(data, (0, raw.stride), raw.height) {
        let start = luma.len();
        for four in row.chunks_exact(4).take(pairs) {
            let at = |i: usize| four.get(i).copied().unwrap_or(0);
            luma.extend([at(y0), at(y1)]);
            blue.push(at(u));
            red.push(at(v));
        }
        luma.truncate(start + raw.width);
    }
    let [luma, blue, red] = planes;
    [
        Plane { width: raw.width, height: raw.height, sample: 1, data: luma },
        Plane { width: pairs, height: raw.height, sample: 1, data: blue },
        Plane { width: pairs, height: raw.height, sample: 1, data: red },
    ]
}

fn from_rgb(data: &[u8], raw: &RawImage, bytes: usize, [r, g, b]: [usize; 3]) -> [Plane; 3] {
    let mut planes = [Vec::new(), Vec::new(), Vec::new()];
    let [luma, blue, red] = &mut planes;
    let byte = |v: i32| u8::try_from(v).unwrap_or(u8::MAX);
    for row in rows_of(data, (0, raw.stride), raw.height) {
        for pixel in row.chunks_exact(bytes).take(raw.width) {
            let at = |i: usize| i32::from(pixel.get(i).copied().unwrap_or(0));
            let (r, g, b) = (at(r), at(g), at(b));
            // BT.601, limited range, in 1/256.
            luma.push(byte(((66 * r + 129 * g + 25 * b + 128) >> 8) + 16));
            blue.push(byte(((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128));
            red.push(byte(((112 * r - 94 * g - 18 * b + 128) >> 8) + 128));
        }
    }
    planes.map(|data| Plane { width: raw.width, height: raw.height, sample: 1, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(format: RawFormat, picture: &Picture, stride: usize, rows: usize) -> Picture {
        let mut buffer = vec![0xee; format.size(stride, rows)];
        picture.to_raw(format, stride, rows, &mut buffer).unwrap();
        let (width, height) = (picture.width, picture.height);
        Picture::from_raw(&RawImage { format, width, height, stride, rows, data: &buffer }).unwrap()
    }

    #[test]
    fn planar_formats_go_there_and_back() {
        let picture = Picture::test_pattern(66, 50, 2);
        for format in [RawFormat::Nv12, RawFormat::Nv21, RawFormat::I420, RawFormat::Yv12] {
            assert_eq!(through(format, &picture, 80, 64), picture, "{format:?}");
            // A last row without padding is enough.
            let mut short = vec![0; format.size(80, 50)];
            picture.to_raw(format, 80, 50, &mut short).unwrap();
        }
        for format in [RawFormat::Nv16, RawFormat::Nv61, RawFormat::I422] {
            assert_eq!(through(format, &picture, 80, 64), picture.with_chroma(Chroma::Yuv422), "{format:?}");
        }
        for format in [RawFormat::Nv24, RawFormat::I444] {
            assert_eq!(through(format, &picture, 80, 64), picture.with_chroma(Chroma::Yuv444), "{format:?}");
        }
        assert_eq!(through(RawFormat::Gray8, &picture, 80, 64), picture.with_chroma(Chroma::Gray));
    }

    #[test]
    fn samples_stand_where_the_format_says() {
        let picture = Picture::test_pattern(16, 16, 0);
        let mut buffer = vec![0; RawFormat::Nv12.size(32, 24)];
        picture.to_raw(RawFormat::Nv12, 32, 24, &mut buffer).unwrap();
        assert_eq!(u16::from(buffer[32 * 3 + 5]), picture.planes[0].at(5, 3));
        assert_eq!(u16::from(buffer[32 * 24 + 32 * 2 + 6]), picture.planes[1].at(3, 2));
        assert_eq!(u16::from(buffer[32 * 24 + 32 * 2 + 7]), picture.planes[2].at(3, 2));
    }

    #[test]
    fn ten_bits_are_packed() {
        let picture = Picture::test_pattern(16, 16, 0).with_depth(10);
        let stride = RawFormat::Nv15.min_stride(16);
        assert_eq!(stride, 20);
        let mut packed = vec![0; RawFormat::Nv15.size(stride, 16)];
        picture.to_raw(RawFormat::Nv15, stride, 16, &mut packed).unwrap();
        let bits = u64::from_le_bytes(packed[20..28].try_into().unwrap());
        for x in 0..4 {
            assert_eq!(((bits >> (10 * x)) & 0x3ff) as u16, picture.planes[0].at(x, 1));
        }
        let pairs = u64::from_le_bytes(packed[20 * 16..20 * 16 + 8].try_into().unwrap());
        assert_eq!(((pairs >> 10) & 0x3ff) as u16, picture.planes[2].at(0, 0));
        let mut upper = vec![0; RawFormat::P010.size(32, 16)];
        picture.to_raw(RawFormat::P010, 32, 16, &mut upper).unwrap();
        assert_eq!(u16::from_le_bytes([upper[34], upper[35]]) >> 6, picture.planes[0].at(1, 1));
    }

    #[test]
    fn packed_formats_are_read() {
        let row = [10, 1, 20, 2, 30, 3, 40, 4];
        let image = |format, data| RawImage { format, width: 4, height: 1, stride: 8, rows: 1, data };
        let picture = Picture::from_raw(&image(RawFormat::Yuyv, &row)).unwrap();
        assert_eq!(picture.planes[0].data, [10, 20, 30, 40]);
        assert_eq!(picture.planes[1].data, [1, 3]);
        assert_eq!(picture.planes[2].data, [2, 4]);
        let uyvy = [1, 10, 2, 20, 3, 30, 4, 40];
        assert_eq!(Picture::from_raw(&image(RawFormat::Uyvy, &uyvy)).unwrap(), picture);
        let vyuy = [2, 10, 1, 20, 4, 30, 3, 40];
        assert_eq!(Picture::from_raw(&image(RawFormat::Vyuy, &vyuy)).unwrap(), picture);
        let yvyu = [10, 2, 20, 1, 30, 4, 40, 3];
        assert_eq!(Picture::from_raw(&image(RawFormat::Yvyu, &yvyu)).unwrap(), picture);
    }

    #[test]
    fn rgb_orders_agree() {
        let expect = Picture::from_raw(&RawImage {
            format: RawFormat::Rgb24,
            width: 1,
            height: 1,
            stride: 3,
            rows: 1,
            data: &[255, 0, 0],
        })
        .unwrap();
        // Red in BT.601 limited range.
        assert_eq!(
            [expect.planes[0].at(0, 0), expect.planes[1].at(0, 0), expect.planes[2].at(0, 0)],
            [82, 90, 240]
        );
        for (format, data) in [
            (RawFormat::Argb, [9, 255, 0, 0]),
            (RawFormat::Abgr, [9, 0, 0, 255]),
            (RawFormat::Bgra, [0, 0, 255, 9]),
            (RawFormat::Rgba, [255, 0, 0, 9]),
        ] {
            let raw = RawImage { format, width: 1, height: 1, stride: 4, rows: 1, data: &data };
            assert_eq!(Picture::from_raw(&raw).unwrap(), expect, "{format:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let data = vec![0; 1000];
        let raw =
            RawImage { format: RawFormat::Nv12, width: 64, height: 64, stride: 64, rows: 64, data: &data };
        assert_eq!(Picture::from_raw(&raw), Err(Error::Buffer { needed: 64 * 96, have: 1000 }));
        assert!(matches!(Picture::from_raw(&RawImage { stride: 63, ..raw }), Err(Error::Setting(_))));
        assert!(matches!(Picture::from_raw(&RawImage { rows: 63, ..raw }), Err(Error::Setting(_))));
        assert!(matches!(Picture::from_raw(&RawImage { width: 0, ..raw }), Err(Error::Setting(_))));
        assert!(matches!(Picture::from_raw(&RawImage { height: usize::MAX, ..raw }), Err(Error::Setting(_))));
    }
}
