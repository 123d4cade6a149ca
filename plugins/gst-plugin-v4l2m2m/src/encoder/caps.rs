// SPDX-License-Identifier: MPL-2.0

//! Between GStreamer's caps and V4L2's formats.

use super::Kind;
use crate::nvmm::DMABUF;
use gst::glib::translate::IntoGlib;
use gst_encoder_glue::drm;
use gst_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry, VideoFormat};
use v4l2_m2m::codec::Codec;
use v4l2_m2m::ioctl::Colorimetry;
use v4l2_m2m::picture::RawFormat;
use v4l2_m2m::probe::CodecSupport;
use v4l2_m2m::uapi::{
    V4L2_COLORSPACE_BT2020, V4L2_COLORSPACE_REC709, V4L2_COLORSPACE_SMPTE170M, V4L2_QUANTIZATION_FULL_RANGE,
    V4L2_QUANTIZATION_LIM_RANGE,
};

/// Greatest width or height of any device.
const MAX_SIZE: i32 = 32768;

/// Media type of a codec.
pub(crate) fn media_type(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "video/x-h264",
        Codec::H265 => "video/x-h265",
        Codec::Vp8 => "video/x-vp8",
        Codec::Av1 => "video/x-av1",
        _ => "video/x-fwht",
    }
}

fn codec_of(structure: &gst::StructureRef) -> Option<Codec> {
    let all = Codec::ALL.into_iter().chain([Codec::Av1]);
    all.into_iter().find(|codec| media_type(*codec) == structure.name())
}

/// GStreamer's name of NAL units with lengths.
fn packaged(codec: Codec) -> &'static str {
    if codec == Codec::H264 { "avc" } else { "hvc1" }
}

fn coded(codec: Codec) -> gst::Caps {
    let builder = gst::Caps::builder(media_type(codec));
    match codec {
        Codec::H264 | Codec::H265 => builder
            .field("stream-format", gst::List::new(["byte-stream", packaged(codec)]))
            .field("alignment", "au")
            .build(),
        Codec::Av1 => builder.field("stream-format", "obu-stream").field("alignment", "tu").build(),
        _ => builder.build(),
    }
}

/// As slices.
fn apart(codec: Codec) -> gst::Caps {
    gst::Caps::builder(media_type(codec))
        .field("stream-format", "byte-stream")
        .field("alignment", "nal")
        .build()
}

/// Everything that any device of this kind may make.
pub(crate) fn src_template(kind: &Kind) -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    for codec in kind.codecs {
        caps.merge(coded(*codec));
        if kind.slices && v4l2_m2m::packaged::is_possible(*codec) {
            caps.merge(apart(*codec));
        }
    }
    caps
}

pub(crate) fn video_format(raw: RawFormat) -> VideoFormat {
    match raw {
        RawFormat::Nv12 => VideoFormat::Nv12,
        RawFormat::I420 => VideoFormat::I420,
        RawFormat::Nv21 => VideoFormat::Nv21,
        RawFormat::Yv12 => VideoFormat::Yv12,
        RawFormat::Yuy2 => VideoFormat::Yuy2,
        RawFormat::P010 => VideoFormat::P01010le,
        _ => VideoFormat::Uyvy,
    }
}

pub(crate) fn raw_format(format: VideoFormat) -> Option<RawFormat> {
    RawFormat::ALL.into_iter().chain([RawFormat::P010]).find(|raw| video_format(*raw) == format)
}

/// With the memories that are read in place first.
fn raw(formats: &[RawFormat], features: &[&str], width: i32, height: i32) -> gst::Caps {
    let plain = plain(formats, width, height);
    let mut all = gst::Caps::new_empty();
    for feature in features {
        let features = || Some(gst::CapsFeatures::new([*feature]));
        let mut caps = plain.clone();
        caps.make_mut().set_features(0, features());
        all.merge(caps);
        if *feature == DMABUF && drm::known() {
            let names = formats.iter().map(|raw| video_format(*raw).to_str().as_str());
            if let Some(fields) = plain.structure(0) {
                all.make_mut().append_structure_full(drm::template(fields, names), features());
            }
        }
    }
    all.merge(plain);
    all
}

fn plain(formats: &[RawFormat], width: i32, height: i32) -> gst::Caps {
    let names = formats.iter().map(|raw| video_format(*raw).to_str().to_string());
    gst::Caps::builder("video/x-raw")
        .field("format", gst::List::new(names))
        .field("width", gst::IntRange::new(1, width.max(2)))
        .field("height", gst::IntRange::new(1, height.max(2)))
        .field(
            "framerate",
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
        )
        .build()
}

/// Everything that any device of this kind may take.
pub(crate) fn sink_template(kind: &Kind) -> gst::Caps {
    raw(kind.raws, kind.features, MAX_SIZE, MAX_SIZE)
}

/// What this device takes, for the codecs that downstream takes.
pub(crate) fn sink_caps(kind: &Kind, codecs: &[CodecSupport], downstream: Option<&gst::Caps>) -> gst::Caps {
    let mut all = gst::Caps::new_empty();
    for support in codecs {
        let able = |caps: &gst::Caps| {
            caps.can_intersect(&coded(support.codec))
                || (kind.slices && caps.can_intersect(&apart(support.codec)))
        };
        if downstream.is_none_or(able) {
            let size = |size: Option<u32>| size.and_then(|size| i32::try_from(size).ok()).unwrap_or(MAX_SIZE);
            let formats: Vec<_> = support.raws.iter().map(|(raw, _)| *raw).collect();
            let sizes = support.sizes;
            all.merge(raw(
                &formats,
                kind.features,
                size(sizes.map(|s| s.width.1)),
                size(sizes.map(|s| s.height.1)),
            ));
        }
    }
    all
}

/// What was chosen of downstream's caps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub codec: Codec,
    pub profiles: Vec<String>,
    pub level: Option<String>,
    /// `avc` or `hvc1`, not a byte stream.
    pub packaged: bool,
    /// Slices in buffers of their own.
    pub slices: bool,
}

/// The first of downstream's caps that the device can make from this raw format.
pub(crate) fn choose(downstream: &gst::Caps, codecs: &[CodecSupport], raw: RawFormat) -> Option<Wanted> {
    let able = |codec: &Codec| {
        codecs.iter().any(|s| s.codec == *codec && s.raws.iter().any(|(format, _)| *format == raw))
    };
    downstream.iter().find_map(|structure| {
        let codec = codec_of(structure).filter(able)?;
        let texts = |field: &str| -> Vec<String> {
            if let Ok(text) = structure.get::<String>(field) {
                return vec![text];
            }
            let list = structure.get::<gst::List>(field);
            list.map(|list| list.iter().filter_map(|value| value.get().ok()).collect()).unwrap_or_default()
        };
        // A list of levels is a choice that the least level which fits may be part of; only one level is a demand.
        let level = structure.get::<String>("level").ok();
        let formats = texts("stream-format");
        let has = |name: &str| formats.iter().any(|format| format == name);
        // Whoever takes both gets the byte stream, whose parameter sets can change.
        let packaged = v4l2_m2m::packaged::is_possible(codec) && has(packaged(codec)) && !has("byte-stream");
        // Whoever takes both gets whole pictures.
        let slices = structure.get::<&str>("alignment") == Ok("nal");
        Some(Wanted { codec, profiles: texts("profile"), level, packaged, slices })
    })
}

/// What is made.
pub(crate) fn output(wanted: &Wanted, profile: Option<&str>, level: Option<&str>) -> gst::Caps {
    let codec = wanted.codec;
    let mut caps = if wanted.slices { apart(codec) } else { coded(codec) };
    if v4l2_m2m::packaged::is_possible(codec) && !wanted.slices {
        caps.make_mut().set("stream-format", if wanted.packaged { packaged(codec) } else { "byte-stream" });
    }
    for (field, value) in [("profile", profile), ("level", level)] {
        if let Some(value) = value {
            caps.make_mut().set(field, value);
        }
    }
    caps
}

/// V4L2's numbers for a colorimetry; 0 where there is none.
pub(crate) fn colorimetry(color: &VideoColorimetry) -> Colorimetry {
    let colorspace = match color.matrix() {
        VideoColorMatrix::Bt709 => V4L2_COLORSPACE_REC709,
        VideoColorMatrix::Bt601 => V4L2_COLORSPACE_SMPTE170M,
        VideoColorMatrix::Bt2020 => V4L2_COLORSPACE_BT2020,
        _ => 0,
    };
    let quantization = match color.range() {
        VideoColorRange::Range0_255 => V4L2_QUANTIZATION_FULL_RANGE,
        VideoColorRange::Range16_235 => V4L2_QUANTIZATION_LIM_RANGE,
        _ => 0,
    };
    // enum v4l2_ycbcr_encoding
    let encoding = match color.matrix() {
        VideoColorMatrix::Bt601 => 1,
        VideoColorMatrix::Bt709 => 2,
        VideoColorMatrix::Bt2020 => 6,
        _ => 0,
    };
    // GstVideoTransferFunction by number, as its newer members have no name here, to enum v4l2_xfer_func.
    let transfer = match color.transfer().into_glib() {
        // BT.709, BT.2020 with 12 and 10 bits, BT.601: one curve.
        5 | 11 | 13 | 16 => 1,
        // sRGB
        7 => 2,
        // SMPTE 240M
        6 => 4,
        // SMPTE 2084
        14 => 7,
        _ => 0,
    };
    Colorimetry { colorspace, transfer, encoding, quantization }
}
