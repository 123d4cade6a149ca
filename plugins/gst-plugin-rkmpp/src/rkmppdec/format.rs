// SPDX-License-Identifier: MPL-2.0

//! From MPP's description of a picture to caps.

use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoFormat, VideoInfo,
    VideoTransferFunction,
};
use rockchip_mpp::sys::consts;
use rockchip_mpp::sys::{MppFrameContentLightMetadata, MppFrameMasteringDisplayMetadata};
use rockchip_mpp::{Format, Picture, PictureColour};

use crate::drm::{self, Compressed};

pub(crate) const DMABUF: &str = "memory:DMABuf";

/// What downstream has to know; a change means new caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub format: Format,
    colour: PictureColour,
    mastering: Option<MppFrameMasteringDisplayMetadata>,
    light: Option<MppFrameContentLightMetadata>,
}

impl Description {
    pub fn of(picture: &Picture) -> Self {
        Self {
            format: picture.format(),
            colour: picture.colour(),
            mastering: picture.mastering_display(),
            light: picture.content_light(),
        }
    }
}

/// How samples lie in planes: always one of luma and one of both colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pixels {
    /// GStreamer's own name; old releases may not have it.
    pub name: &'static str,
    /// What it can be unpacked to by the CPU.
    pub unpacked: Option<VideoFormat>,
    /// Bits of a sample.
    pub depth: usize,
    /// log2 of luma samples for each of colour, across and down.
    pub subsampling: (u32, u32),
}

impl Pixels {
    pub fn of(format: &Format) -> Option<Self> {
        Self::of_number(format.pixels())
    }

    fn of_number(number: i32) -> Option<Self> {
        let (name, unpacked, depth, subsampling) = match number {
            consts::MPP_FMT_YUV420SP => ("NV12", None, 8, (1, 1)),
            consts::MPP_FMT_YUV422SP => ("NV16", None, 8, (1, 0)),
            consts::MPP_FMT_YUV444SP => ("NV24", None, 8, (0, 0)),
            consts::MPP_FMT_YUV420SP_10BIT => ("NV12_10LE40", Some(VideoFormat::P01010le), 10, (1, 1)),
            consts::MPP_FMT_YUV422SP_10BIT => ("NV16_10LE40", Some(VideoFormat::I42210le), 10, (1, 0)),
            _ => return None,
        };
        Some(Self { name, unpacked, depth, subsampling })
    }

    /// What the parser says of the stream: 8 bits and 4:2:0 if it says nothing.
    pub fn expected(input: &gst::StructureRef) -> Option<Self> {
        let ten = input.get::<u32>("bit-depth-luma").is_ok_and(|depth| depth > 8);
        let format = match (input.get::<&str>("chroma-format").unwrap_or("4:2:0"), ten) {
            ("4:2:0", false) => consts::MPP_FMT_YUV420SP,
            ("4:2:0", true) => consts::MPP_FMT_YUV420SP_10BIT,
            ("4:2:2", false) => consts::MPP_FMT_YUV422SP,
            ("4:2:2", true) => consts::MPP_FMT_YUV422SP_10BIT,
            _ => return None,
        };
        Self::of_number(format)
    }

    /// The compressed kin, if its caps can be had.
    pub fn compressed(&self) -> Option<&'static Compressed> {
        Compressed::of(self.name).filter(|_| drm::known())
    }

    /// GStreamer's format, if this GStreamer has it.
    pub fn native(&self) -> Option<VideoFormat> {
        let format = VideoFormat::from_string(self.name);
        (format != VideoFormat::Unknown).then_some(format)
    }
}

/// Offsets and strides of the two planes, and bytes of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    pub offsets: [usize; 2],
    pub strides: [usize; 2],
    pub size: usize,
}

impl Planes {
    /// `None` if the numbers make no sense.
    pub fn of(format: &Format, pixels: &Pixels) -> Option<Self> {
        if format.is_compressed() {
            return Self::compressed(format, pixels);
        }
        let stride = format.hor_stride as usize;
        let lines = format.ver_stride as usize;
        let (width, height) = (
            format.width as usize + format.offset_x as usize,
            format.height as usize + format.offset_y as usize,
        );
        if width == 0 || height == 0 || stride < (width * pixels.depth).div_ceil(8) || lines < height {
            return None;
        }
        // NV24's second plane has two samples for each pixel.
        let chroma_stride = if pixels.subsampling.0 == 0 { stride * 2 } else { stride };
        let luma = stride.checked_mul(lines)?;
        let chroma = chroma_stride.checked_mul(lines.div_ceil(1 << pixels.subsampling.1))?;
        Some(Self { offsets: [0, luma], strides: [stride, chroma_stride], size: luma.checked_add(chroma)? })
    }
}

impl Planes {
    /// All of it is one plane, of which only the stride can be told.
    fn compressed(format: &Format, pixels: &Pixels) -> Option<Self> {
        let compressed = Compressed::of(pixels.name)?;
        let headers = format.header_stride;
        if format.width == 0
            || format.height == 0
            || !headers.is_multiple_of(16)
            || u64::from(headers) < u64::from(format.width) + u64::from(format.offset_x)
        {
            return None;
        }
        Some(Self { offsets: [0; 2], strides: [compressed.stride(headers), 0], size: format.buffer_size })
    }
}

/// What the pad can have.
pub(crate) fn src_caps() -> gst::Caps {
    let formats = ["NV12", "NV16", "NV24", "NV12_10LE40", "NV16_10LE40"];
    let known = |formats: &[&'static str]| {
        gst::List::new(
            formats.iter().copied().filter(|name| VideoFormat::from_string(name) != VideoFormat::Unknown),
        )
    };
    let fields = |formats| {
        gst::Structure::builder("video/x-raw")
            .field("format", known(formats))
            .field("width", gst::IntRange::new(1, i32::MAX))
            .field("height", gst::IntRange::new(1, i32::MAX))
            .field(
                "framerate",
                gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
            )
            .build()
    };
    let plain = [&formats[..], &["P010_10LE", "I422_10LE"]].concat();
    let mut caps = gst::Caps::new_empty();
    {
        let caps = caps.make_mut();
        caps.append_structure_full(fields(&formats), Some(gst::CapsFeatures::new([DMABUF])));
        if drm::known() {
            let compressed = ["NV12", "NV16", "NV12_10LE40", "NV16_10LE40"];
            let drm = drm::template(&fields(&formats), formats.into_iter(), &compressed);
            caps.append_structure_full(drm, Some(gst::CapsFeatures::new([DMABUF])));
        }
        caps.append_structure(fields(&plain));
    }
    caps
}

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub format: VideoFormat,
    /// Caps with `memory:DMABuf`.
    pub dmabuf: bool,
    /// And with the kernel's name of the format.
    pub drm: bool,
    /// Of compressed pixels.
    pub compressed: Option<&'static Compressed>,
    /// By the CPU.
    pub unpack: bool,
}

/// Caps of pictures of this size.
fn sized(format: VideoFormat, (width, height): (u32, u32), dmabuf: bool) -> gst::Caps {
    let structure = gst::Structure::builder("video/x-raw")
        .field("format", format.to_str())
        .field("width", width as i32)
        .field("height", height as i32)
        .build();
    let mut caps = gst::Caps::new_empty();
    caps.make_mut().append_structure_full(structure, dmabuf.then(|| gst::CapsFeatures::new([DMABUF])));
    caps
}

/// Whether downstream takes such pictures compressed. Who takes anything does not know what to do with them.
pub(crate) fn takes_compressed(peer: &gst::Caps, pixels: &Pixels, size: Option<(u32, u32)>) -> bool {
    let (Some(compressed), Some(format), false) = (pixels.compressed(), pixels.native(), peer.is_any())
    else {
        return false;
    };
    let mut caps = sized(format, size.unwrap_or_default(), true);
    if size.is_none()
        && let Some(structure) = caps.make_mut().structure_mut(0)
    {
        structure.remove_fields(["width", "height"]);
    }
    compressed.rename(caps.make_mut());
    caps.can_intersect(peer)
}

/// Chooses from what downstream takes: dma-bufs if it names them, else plain memory, unpacked only if it has to be.
/// Compressed pixels are for whoever names them.
pub(crate) fn choose(peer: &gst::Caps, pixels: &Pixels, format: &Format, dmabuf: bool) -> Option<Choice> {
    let native = pixels.native();
    let size = (format.width, format.height);
    let plain = |format| Choice { format, dmabuf: false, drm: false, compressed: None, unpack: false };
    if format.is_compressed() {
        // Rockchip's own compression has no name that all agree on.
        let known = format.compression() == consts::MPP_FRAME_FBC_AFBC_V2;
        let compressed =
            pixels.compressed().filter(|_| known && takes_compressed(peer, pixels, Some(size)))?;
        return Some(Choice { dmabuf: true, drm: true, compressed: Some(compressed), ..plain(native?) });
    }
    let candidates = [
        // Who takes anything does not know what to do with a dma-buf.
        native.filter(|_| dmabuf && !peer.is_any()).map(|format| Choice { dmabuf: true, ..plain(format) }),
        native.filter(|_| dmabuf && !peer.is_any() && drm::known()).map(|format| Choice {
            dmabuf: true,
            drm: true,
            ..plain(format)
        }),
        native.map(plain),
        pixels.unpacked.map(|format| Choice { unpack: true, ..plain(format) }),
    ];
    candidates.into_iter().flatten().find(|choice| {
        let mut caps = sized(choice.format, size, choice.dmabuf);
        if choice.drm {
            drm::rename(caps.make_mut());
        }
        caps.can_intersect(peer)
    })
}

/// Caps and their `VideoInfo`. `input` is what the parser says of the stream.
pub(crate) fn caps(
    choice: &Choice,
    description: &Description,
    input: &gst::StructureRef,
) -> Result<(gst::Caps, VideoInfo), gst::glib::BoolError> {
    let fraction = |name| input.get::<gst::Fraction>(name).ok();
    let mut builder = VideoInfo::builder(choice.format, description.format.width, description.format.height)
        .fps(fraction("framerate").unwrap_or(gst::Fraction::new(0, 1)))
        .par(fraction("pixel-aspect-ratio").unwrap_or(gst::Fraction::new(1, 1)));
    let mode = input.get::<&str>("interlace-mode").ok();
    if let Some(mode) = mode.map(gst_video::VideoInterlaceMode::from_string) {
        builder = builder.interlace_mode(mode);
    }
    let said = input.get::<&str>("colorimetry").ok().and_then(|text| text.parse().ok());
    let colorimetry = colorimetry(&description.colour, said);
    if let Some(colorimetry) = &colorimetry {
        builder = builder.colorimetry(colorimetry);
    }
    let info = builder.build()?;
    let mut caps = info.to_caps()?;
    {
        let caps = caps.make_mut();
        if choice.dmabuf {
            caps.set_features(0, Some(gst::CapsFeatures::new([DMABUF])));
        }
        match choice.compressed {
            Some(compressed) => compressed.rename(caps),
            None if choice.drm => drm::rename(caps),
            None => {}
        }
        if let Some(mastering) = &description.mastering {
            caps.set("mastering-display-info", mastering_display(mastering));
        }
        if let Some(light) = &description.light {
            caps.set("content-light-level", format!("{}:{}", light.max_cll, light.max_fall));
        }
    }
    Ok((caps, info))
}

/// GStreamer's text for it: red, green, blue, white, most and least light. H.265 begins with green.
fn mastering_display(mastering: &MppFrameMasteringDisplayMetadata) -> String {
    let [green, blue, red] = mastering.display_primaries;
    let mut text = String::new();
    for [x, y] in [red, green, blue, mastering.white_point] {
        text.push_str(&format!("{x}:{y}:"));
    }
    text + &format!("{}:{}", mastering.max_luminance, mastering.min_luminance)
}

/// What the decoder read in the stream, completed by what the caps `said`. `None` if neither says anything.
fn colorimetry(colour: &PictureColour, said: Option<VideoColorimetry>) -> Option<VideoColorimetry> {
    let told = colour.full_range.is_some()
        || [colour.primaries, colour.transfer, colour.matrix].iter().any(|&code| code > 0 && code != 2);
    if !told {
        return said;
    }
    let range = match colour.full_range {
        Some(true) => VideoColorRange::Range0_255,
        Some(false) => VideoColorRange::Range16_235,
        None => said.as_ref().map_or(VideoColorRange::Range16_235, VideoColorimetry::range),
    };
    let matrix = match colour.matrix {
        0 => VideoColorMatrix::Rgb,
        1 => VideoColorMatrix::Bt709,
        4 => VideoColorMatrix::Fcc,
        5 | 6 => VideoColorMatrix::Bt601,
        7 => VideoColorMatrix::Smpte240m,
        9 => VideoColorMatrix::Bt2020,
        _ => said.as_ref().map_or(VideoColorMatrix::Unknown, VideoColorimetry::matrix),
    };
    let transfer = match colour.transfer {
        1 => VideoTransferFunction::Bt709,
        6 => newer(16, VideoTransferFunction::Bt709),
        4 => VideoTransferFunction::Gamma22,
        5 => VideoTransferFunction::Gamma28,
        7 => VideoTransferFunction::Smpte240m,
        8 => VideoTransferFunction::Gamma10,
        9 => VideoTransferFunction::Log100,
        10 => VideoTransferFunction::Log316,
        13 => VideoTransferFunction::Srgb,
        14 => newer(13, VideoTransferFunction::Bt709),
        15 => VideoTransferFunction::Bt202012,
        16 => newer(14, VideoTransferFunction::Unknown),
        18 => newer(15, VideoTransferFunction::Unknown),
        _ => said.as_ref().map_or(VideoTransferFunction::Unknown, VideoColorimetry::transfer),
    };
    let primaries = match colour.primaries {
        1 => VideoColorPrimaries::Bt709,
        4 => VideoColorPrimaries::Bt470m,
        5 => VideoColorPrimaries::Bt470bg,
        6 => VideoColorPrimaries::Smpte170m,
        7 => VideoColorPrimaries::Smpte240m,
        8 => VideoColorPrimaries::Film,
        9 => VideoColorPrimaries::Bt2020,
        _ => said.as_ref().map_or(VideoColorPrimaries::Unknown, VideoColorimetry::primaries),
    };
    Some(VideoColorimetry::new(range, matrix, transfer, primaries))
}

/// A transfer function that GStreamer has from 1.18 on, by its number: BT.2020 with 10 bits is 13, SMPTE 2084 14, ARIB
/// STD-B67 15, BT.601 16.
fn newer(number: i32, older: VideoTransferFunction) -> VideoTransferFunction {
    let (major, minor, ..) = gst::version();
    if (major, minor) >= (1, 18) { VideoTransferFunction::__Unknown(number) } else { older }
}
