// SPDX-License-Identifier: MPL-2.0

//! Codecs, and which of them downstream wants.

use rockchip_mpp::Coding;

use super::layout::FORMATS;
use super::level::{self, Level};
use crate::drm;

/// Formats that are also read compressed, by encoders of H.264 and H.265.
const COMPRESSED: [&str; 2] = ["NV12", "NV16"];

/// A codec of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    H264,
    H265,
    Vp8,
    Jpeg,
}

/// All, in order of preference.
pub(crate) const CODECS: [Codec; 4] = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Jpeg];

/// Profiles of H.264 that MPP makes, best first. Its baseline is the constrained one.
const H264_PROFILES: [(&str, i32); 4] =
    [("high", 100), ("main", 77), ("constrained-baseline", 66), ("baseline", 66)];

impl Codec {
    pub fn coding(self) -> Coding {
        match self {
            Self::H264 => Coding::Avc,
            Self::H265 => Coding::Hevc,
            Self::Vp8 => Coding::Vp8,
            Self::Jpeg => Coding::Mjpeg,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Vp8 => "VP8",
            Self::Jpeg => "JPEG",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::H264 => "video/x-h264",
            Self::H265 => "video/x-h265",
            Self::Vp8 => "video/x-vp8",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// Whether the library works on several frames at once. VP8 blocks in any mode.
    pub fn parallel(self) -> bool {
        self != Self::Vp8
    }

    /// Whether compressed pixels (AFBC) are read.
    pub fn reads_compressed(self) -> bool {
        matches!(self, Self::H264 | Self::H265)
    }

    /// Least width and height.
    pub fn least_size(self) -> (u32, u32) {
        match self {
            Self::H264 | Self::H265 => (96, 64),
            Self::Vp8 => (128, 64),
            Self::Jpeg => (16, 16),
        }
    }
}

fn sized(builder: gst::caps::Builder<gst::caps::NoFeature>) -> gst::Caps {
    builder
        .field("width", gst::IntRange::new(16, 16384))
        .field("height", gst::IntRange::new(16, 16384))
        .field(
            "framerate",
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
        )
        .build()
}

/// Caps of the source pad's template.
pub(crate) fn src_caps() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    let all = caps.make_mut();
    for codec in CODECS {
        let builder = gst::Caps::builder(codec.media_type());
        all.append(match codec {
            Codec::H264 => sized(
                builder
                    .field("stream-format", gst::List::new(["byte-stream", "avc"]))
                    .field("alignment", "au")
                    .field("profile", gst::List::new(H264_PROFILES.map(|profile| profile.0))),
            ),
            Codec::H265 => sized(
                builder
                    .field("stream-format", gst::List::new(["byte-stream", "hvc1"]))
                    .field("alignment", "au")
                    .field("profile", "main"),
            ),
            Codec::Vp8 | Codec::Jpeg => sized(builder),
        });
    }
    caps
}

/// Caps of the sink pad's template: in dma-bufs, and in any memory.
pub(crate) fn sink_caps() -> gst::Caps {
    let formats = || gst::List::new(FORMATS.iter().map(|format| format.gst.to_str()));
    let mut caps = sized(gst::Caps::builder("video/x-raw").field("format", formats()));
    if let Some(structure) = caps.structure(0).map(ToOwned::to_owned) {
        let features = gst::CapsFeatures::new([gst_allocators::CAPS_FEATURE_MEMORY_DMABUF.as_str()]);
        let mut dmabuf = gst::Caps::new_empty();
        let names = || FORMATS.iter().map(|format| format.gst.to_str().as_str());
        let drm = drm::known().then(|| drm::template(&structure, names(), &COMPRESSED));
        dmabuf.make_mut().append_structure_full(structure, Some(features.clone()));
        if let Some(drm) = drm {
            dmabuf.make_mut().append_structure_full(drm, Some(features));
        }
        dmabuf.make_mut().append(caps);
        caps = dmabuf;
    }
    caps
}

/// Caps with width and height exchanged.
pub(crate) fn turned(mut caps: gst::Caps) -> gst::Caps {
    for structure in caps.make_mut().iter_mut() {
        let value = |name: &str| structure.value(name).ok().map(ToOwned::to_owned);
        let (width, height) = (value("width"), value("height"));
        // Pixels that are not square would have to be turned, too: left to the source.
        structure.remove_fields(["width", "height", "pixel-aspect-ratio"]);
        for (name, value) in [("width", height), ("height", width)] {
            if let Some(value) = value {
                structure.set_value(name, value);
            }
        }
    }
    caps
}

/// What downstream chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub codec: Codec,
    /// Name and MPP's number.
    pub profile: Option<(&'static str, i32)>,
    /// Only if the caps ask for one.
    pub level: Option<Level>,
    /// avc or hvc1.
    pub length_prefixed: bool,
}

/// A field's values, whether it is fixed or a list; none if it is missing or something else.
fn values(structure: &gst::StructureRef, field: &str) -> Vec<String> {
    let Ok(value) = structure.value(field) else { return Vec::new() };
    if let Ok(value) = value.get::<&str>() {
        return vec![value.into()];
    }
    match value.get::<gst::ListRef<'_>>() {
        Ok(list) => list.iter().filter_map(|value| value.get().ok()).collect(),
        Err(_) => Vec::new(),
    }
}

/// Chooses from what downstream allows (already intersected with the template).
pub(crate) fn choose(allowed: &gst::CapsRef) -> Option<Choice> {
    let (codec, structure) = CODECS.iter().find_map(|&codec| {
        let structure = allowed.iter().find(|structure| structure.name() == codec.media_type())?;
        Some((codec, structure))
    })?;
    let first_or_only =
        |packed: &str| values(structure, "stream-format").first().is_some_and(|first| first == packed);
    let levels = values(structure, "level");
    let profiles = values(structure, "profile");
    // A peer's order is its preference; what is open comes in our template's order.
    let profile =
        profiles.iter().find_map(|name| H264_PROFILES.iter().find(|profile| profile.0 == *name).copied());
    Some(match codec {
        Codec::H264 => Choice {
            codec,
            profile: Some(profile.unwrap_or(H264_PROFILES[0])),
            level: levels.iter().filter_map(|name| level::h264_named(name)).max_by_key(|level| level.mpp),
            length_prefixed: first_or_only("avc"),
        },
        Codec::H265 => Choice {
            codec,
            profile: Some(("main", 1)),
            level: levels.iter().filter_map(|name| level::h265_named(name)).max_by_key(|level| level.mpp),
            length_prefixed: first_or_only("hvc1"),
        },
        Codec::Vp8 | Codec::Jpeg => Choice { codec, profile: None, level: None, length_prefixed: false },
    })
}

impl Choice {
    /// The caps to announce.
    pub fn caps(&self, level: Option<Level>) -> gst::Caps {
        let mut builder = gst::Caps::builder(self.codec.media_type());
        let stream_format = match (self.codec, self.length_prefixed) {
            (Codec::H264, true) => Some("avc"),
            (Codec::H265, true) => Some("hvc1"),
            (Codec::H264 | Codec::H265, false) => Some("byte-stream"),
            _ => None,
        };
        if let Some(stream_format) = stream_format {
            builder = builder.field("stream-format", stream_format).field("alignment", "au");
        }
        if let Some((profile, _)) = self.profile {
            builder = builder.field("profile", profile);
        }
        if let Some(level) = level {
            builder = builder.field("level", level.name);
        }
        if self.codec == Codec::H265 {
            builder = builder.field("tier", "main");
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn chosen(caps: &str) -> Option<Choice> {
        gst::init().unwrap();
        choose(
            &src_caps()
                .intersect_with_mode(&gst::Caps::from_str(caps).unwrap(), gst::CapsIntersectMode::ZigZag),
        )
    }

    #[test]
    fn downstream_chooses_codec_and_form() {
        let any = chosen("ANY").unwrap();
        assert_eq!((any.codec, any.profile, any.length_prefixed), (Codec::H264, Some(("high", 100)), false));
        assert_eq!(chosen("video/x-h265; video/x-h264").unwrap().codec, Codec::H264);
        assert_eq!(chosen("video/x-h265").unwrap().profile, Some(("main", 1)));
        assert_eq!(chosen("image/jpeg").unwrap().codec, Codec::Jpeg);
        assert_eq!(chosen("video/x-vp8").unwrap().codec, Codec::Vp8);
        assert!(chosen("video/x-h264,stream-format=avc").unwrap().length_prefixed);
        assert!(chosen("video/x-h265,stream-format=hvc1").unwrap().length_prefixed);
        let baseline = chosen("video/x-h264,profile=constrained-baseline,level=(string)3.1").unwrap();
        assert_eq!((baseline.profile, baseline.level.unwrap().mpp), (Some(("constrained-baseline", 66)), 31));
        assert_eq!(chosen("video/x-av1"), None);
        assert_eq!(chosen("video/x-h264,profile=high-4:4:4"), None);
    }

    #[test]
    fn both_kinds_of_memory_are_offered() {
        gst::init().unwrap();
        let caps = sink_caps();
        let last = if drm::known() { 2 } else { 1 };
        assert_eq!(caps.size(), last + 1);
        let dmabuf = |index| {
            caps.features(index).unwrap().contains(gst_allocators::CAPS_FEATURE_MEMORY_DMABUF.as_str())
        };
        assert!((0..last).all(dmabuf) && !dmabuf(last));
    }
}
