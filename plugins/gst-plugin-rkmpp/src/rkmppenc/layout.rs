// SPDX-License-Identifier: MPL-2.0

//! Where the planes of a picture lie. The hardware is told one stride and one number of lines; all planes follow
//! from them, one behind the other, from the first byte on.

use gst_video::VideoFormat;
use rockchip_mpp::sys::consts;

/// How a plane relates to the picture and to the first plane.
#[derive(Clone, Copy, Debug)]
struct Plane {
    /// Bytes for each `step` pixels of a line.
    bytes: usize,
    step: usize,
    /// Lines of the picture for each line of the plane.
    lines: usize,
    /// Its stride, as a ratio to the first plane's.
    stride: (usize, usize),
}

const fn plane(bytes: usize, step: usize, lines: usize, stride: (usize, usize)) -> Plane {
    Plane { bytes, step, lines, stride }
}

const Y: Plane = plane(1, 1, 1, (1, 1));
/// Chroma of 4:2:0, interleaved.
const UV420: Plane = plane(2, 2, 2, (1, 1));
const UV422: Plane = plane(2, 2, 1, (1, 1));
const UV444: Plane = plane(2, 1, 1, (2, 1));
const C420: Plane = plane(1, 2, 2, (1, 2));
const C422: Plane = plane(1, 2, 1, (1, 2));

/// A pixel format that the encoders take.
#[derive(Debug)]
pub(crate) struct Format {
    pub gst: VideoFormat,
    /// `MPP_FMT_*`.
    pub mpp: i32,
    planes: &'static [Plane],
    /// All JPEG encoders take it, too.
    pub jpeg: bool,
}

const fn format(gst: VideoFormat, mpp: i32, planes: &'static [Plane], jpeg: bool) -> Format {
    Format { gst, mpp, planes, jpeg }
}

impl Format {
    /// `MPP_FMT_*` with the mark of compressed pixels, if they are.
    pub fn number(&self, compressed: bool) -> i32 {
        if compressed { self.mpp | consts::MPP_FRAME_FBC_AFBC_V2 } else { self.mpp }
    }
}

/// All of them, best first: what needs no conversion by the hardware.
pub(crate) static FORMATS: [Format; 19] = [
    format(VideoFormat::Nv12, consts::MPP_FMT_YUV420SP, &[Y, UV420], true),
    format(VideoFormat::I420, consts::MPP_FMT_YUV420P, &[Y, C420, C420], true),
    format(VideoFormat::Nv21, consts::MPP_FMT_YUV420SP_VU, &[Y, UV420], false),
    format(VideoFormat::Yuy2, consts::MPP_FMT_YUV422_YUYV, &[plane(4, 2, 1, (1, 1))], true),
    format(VideoFormat::Uyvy, consts::MPP_FMT_YUV422_UYVY, &[plane(4, 2, 1, (1, 1))], true),
    format(VideoFormat::Yvyu, consts::MPP_FMT_YUV422_YVYU, &[plane(4, 2, 1, (1, 1))], false),
    format(VideoFormat::Vyuy, consts::MPP_FMT_YUV422_VYUY, &[plane(4, 2, 1, (1, 1))], false),
    format(VideoFormat::Nv16, consts::MPP_FMT_YUV422SP, &[Y, UV422], false),
    format(VideoFormat::Nv61, consts::MPP_FMT_YUV422SP_VU, &[Y, UV422], false),
    format(VideoFormat::Y42b, consts::MPP_FMT_YUV422P, &[Y, C422, C422], false),
    format(VideoFormat::Nv24, consts::MPP_FMT_YUV444SP, &[Y, UV444], false),
    format(VideoFormat::Y444, consts::MPP_FMT_YUV444P, &[Y, Y, Y], false),
    format(VideoFormat::Gray8, consts::MPP_FMT_YUV400, &[Y], false),
    format(VideoFormat::Bgra, consts::MPP_FMT_BGRA8888, &[plane(4, 1, 1, (1, 1))], true),
    format(VideoFormat::Rgba, consts::MPP_FMT_RGBA8888, &[plane(4, 1, 1, (1, 1))], true),
    format(VideoFormat::Argb, consts::MPP_FMT_ARGB8888, &[plane(4, 1, 1, (1, 1))], true),
    format(VideoFormat::Abgr, consts::MPP_FMT_ABGR8888, &[plane(4, 1, 1, (1, 1))], true),
    format(VideoFormat::Rgb, consts::MPP_FMT_RGB888, &[plane(3, 1, 1, (1, 1))], true),
    format(VideoFormat::Bgr, consts::MPP_FMT_BGR888, &[plane(3, 1, 1, (1, 1))], true),
];

/// The format of GStreamer's.
pub(crate) fn find(gst: VideoFormat) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.gst == gst)
}

/// A plane in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneLayout {
    pub offset: usize,
    pub stride: usize,
    /// Bytes of a line that are picture.
    pub bytes: usize,
    /// Lines that are picture.
    pub lines: usize,
}

/// A picture in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes.
    pub hor_stride: usize,
    /// Lines of the first plane.
    pub ver_stride: usize,
    planes: [Option<PlaneLayout>; 3],
    /// Bytes of all.
    pub size: usize,
}

impl Layout {
    fn of(format: &Format, width: usize, height: usize, hor_stride: usize, ver_stride: usize) -> Self {
        let mut layout = Self { hor_stride, ver_stride, planes: [None; 3], size: 0 };
        for (slot, plane) in layout.planes.iter_mut().zip(format.planes) {
            let stride = hor_stride * plane.stride.0 / plane.stride.1;
            *slot = Some(PlaneLayout {
                offset: layout.size,
                stride,
                bytes: width.div_ceil(plane.step) * plane.bytes,
                lines: height.div_ceil(plane.lines),
            });
            layout.size += stride * (ver_stride / plane.lines);
        }
        layout
    }

    /// The layout of our own buffers: lines of a multiple of 16 pixels, planes of a multiple of 16 lines.
    pub fn aligned(format: &Format, width: usize, height: usize) -> Self {
        let bytes = format.planes.first().map_or(1, |plane| plane.bytes / plane.step);
        Self::of(format, width, height, width.next_multiple_of(16) * bytes, height.next_multiple_of(16))
    }

    /// The layout of somebody else's buffer of `size` bytes.
    ///
    /// # Errors
    /// Why the hardware cannot read it as it is.
    pub fn existing(
        format: &Format,
        (width, height): (usize, usize),
        strides: &[i32],
        offsets: &[usize],
        size: usize,
    ) -> Result<Self, &'static str> {
        let stride = |index: usize| strides.get(index).and_then(|&stride| usize::try_from(stride).ok());
        let hor_stride = stride(0).filter(|&stride| stride > 0).ok_or("its lines run backwards")?;
        if offsets.first() != Some(&0) {
            return Err("its first plane does not begin with the dma-buf");
        }
        let ver_stride = match offsets.get(1).filter(|_| format.planes.len() > 1) {
            Some(second) if second % hor_stride == 0 => second / hor_stride,
            Some(_) => return Err("its second plane does not begin with a line"),
            None => height,
        };
        // The chroma planes of 4:2:0 have half the lines.
        let ver_stride_fits = format.planes.iter().all(|plane| ver_stride % plane.lines == 0);
        if ver_stride < height || !ver_stride_fits {
            return Err("its planes have too few lines");
        }
        let layout = Self::of(format, width, height, hor_stride, ver_stride);
        for (index, plane) in layout.planes().enumerate() {
            if plane.stride < plane.bytes {
                return Err("its lines are too short");
            }
            if stride(index) != Some(plane.stride) {
                return Err("the strides of its planes do not fit together");
            }
            if offsets.get(index) != Some(&plane.offset) {
                return Err("its planes do not follow one another");
            }
        }
        if layout.size > size {
            return Err("it is too small");
        }
        Ok(layout)
    }

    /// The layout of compressed pixels: a row of headers for `stride` pixels, pictures from line `top` on, in a buffer of `size`
    /// bytes.
    ///
    /// # Errors
    /// Why there can be no such picture.
    pub fn compressed(
        (width, height): (usize, usize),
        stride: usize,
        (left, top): (usize, usize),
        size: usize,
    ) -> Result<Self, &'static str> {
        if stride < left + width {
            return Err("its rows of headers are too short");
        }
        let ver_stride = (top + height).next_multiple_of(16);
        // The headers alone, 16 bytes for each block of 16x16: what the blocks need, only they know.
        if size < stride * ver_stride / 16 {
            return Err("it is too small");
        }
        Ok(Self { hor_stride: stride, ver_stride, planes: [None; 3], size })
    }

    /// The planes, in order.
    pub fn planes(&self) -> impl Iterator<Item = PlaneLayout> + '_ {
        self.planes.iter().flatten().copied()
    }
}

/// Copies a plane line by line, or at once if the lines match. Both must be long enough; what is not, is left out.
pub(crate) fn copy_plane(target: &mut [u8], plane: &PlaneLayout, source: &[u8], source_stride: usize) {
    let Some(target) = target.get_mut(plane.offset..) else { return };
    if plane.stride == 0 || source_stride == 0 {
        return;
    }
    if plane.stride == source_stride {
        let len =
            (plane.stride * plane.lines.saturating_sub(1) + plane.bytes).min(target.len()).min(source.len());
        if let (Some(target), Some(source)) = (target.get_mut(..len), source.get(..len)) {
            target.copy_from_slice(source);
        }
        return;
    }
    for (target, source) in
        target.chunks_mut(plane.stride).zip(source.chunks(source_stride)).take(plane.lines)
    {
        if let (Some(target), Some(source)) = (target.get_mut(..plane.bytes), source.get(..plane.bytes)) {
            target.copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes(layout: &Layout) -> Vec<(usize, usize, usize, usize)> {
        layout.planes().map(|p| (p.offset, p.stride, p.bytes, p.lines)).collect()
    }

    #[test]
    fn our_own_buffers_are_aligned() {
        let layout = |format| Layout::aligned(find(format).unwrap(), 1918, 1080);
        let nv12 = layout(VideoFormat::Nv12);
        assert_eq!((nv12.hor_stride, nv12.ver_stride, nv12.size), (1920, 1088, 1920 * 1088 * 3 / 2));
        assert_eq!(planes(&nv12), [(0, 1920, 1918, 1080), (1920 * 1088, 1920, 1918, 540)]);
        let i420 = layout(VideoFormat::I420);
        assert_eq!(
            planes(&i420),
            [(0, 1920, 1918, 1080), (1920 * 1088, 960, 959, 540), (1920 * 1088 + 960 * 544, 960, 959, 540)]
        );
        assert_eq!(planes(&layout(VideoFormat::Nv24))[1], (1920 * 1088, 3840, 3836, 1080));
        assert_eq!(planes(&layout(VideoFormat::Yuy2)), [(0, 3840, 3836, 1080)]);
        assert_eq!(planes(&layout(VideoFormat::Rgb)), [(0, 5760, 5754, 1080)]);
    }

    #[test]
    fn only_fitting_dma_bufs_are_taken() {
        let nv12 = find(VideoFormat::Nv12).unwrap();
        let size = 640 * 480 * 3 / 2;
        let existing = |strides: &[i32], offsets: &[usize], size| {
            Layout::existing(nv12, (640, 480), strides, offsets, size)
        };
        let layout = existing(&[640, 640], &[0, 640 * 480], size).unwrap();
        assert_eq!((layout.hor_stride, layout.ver_stride), (640, 480));
        let layout = existing(&[704, 704], &[0, 704 * 496], 704 * 496 * 3 / 2).unwrap();
        assert_eq!((layout.hor_stride, layout.ver_stride), (704, 496));

        assert_eq!(existing(&[640, 640], &[0, 640 * 480], size - 1), Err("it is too small"));
        assert_eq!(
            existing(&[640, 640], &[64, 640 * 480], size),
            Err("its first plane does not begin with the dma-buf")
        );
        assert_eq!(
            existing(&[640, 640], &[0, 640 * 480 + 4], size),
            Err("its second plane does not begin with a line")
        );
        assert_eq!(existing(&[640, 640], &[0, 640 * 400], size), Err("its planes have too few lines"));
        assert_eq!(
            existing(&[640, 704], &[0, 640 * 480], 2 * size),
            Err("the strides of its planes do not fit together")
        );
        assert_eq!(existing(&[512, 512], &[0, 512 * 480], size), Err("its lines are too short"));
        assert_eq!(existing(&[-640, 640], &[0, 640 * 480], size), Err("its lines run backwards"));
        assert_eq!(existing(&[], &[], size), Err("its lines run backwards"));

        let i420 = find(VideoFormat::I420).unwrap();
        let shifted = Layout::existing(i420, (64, 64), &[64, 32, 32], &[0, 4096, 5121], 1 << 20);
        assert_eq!(shifted, Err("its planes do not follow one another"));
    }

    #[test]
    fn compressed_ones_need_room_for_their_headers() {
        let layout = Layout::compressed((640, 480), 640, (0, 4), 640 * 31).unwrap();
        assert_eq!((layout.hor_stride, layout.ver_stride, layout.planes().count()), (640, 496, 0));
        assert_eq!(Layout::compressed((640, 480), 640, (0, 4), 640 * 31 - 1), Err("it is too small"));
        assert_eq!(
            Layout::compressed((640, 480), 640, (16, 0), 1 << 20),
            Err("its rows of headers are too short")
        );
    }

    #[test]
    fn planes_are_copied_line_by_line() {
        let plane = PlaneLayout { offset: 1, stride: 4, bytes: 2, lines: 2 };
        let mut target = [0; 9];
        copy_plane(&mut target, &plane, &[1, 2, 9, 3, 4, 9], 3);
        assert_eq!(target, [0, 1, 2, 0, 0, 3, 4, 0, 0]);
        // A source that is cut short is no panic.
        copy_plane(&mut target, &plane, &[5], 4);
        copy_plane(&mut target, &plane, &[6, 7, 8], 3);
        assert_eq!(target, [0, 6, 7, 0, 0, 3, 4, 0, 0]);
    }
}
