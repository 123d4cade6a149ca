// SPDX-License-Identifier: MPL-2.0

//! The known encoders: how each one's bitrate is set, and how it takes keyframe requests. Data, and pure.
//!
//! The ranges are not here: they are read from the properties themselves, because they differ from version to
//! version. `docs/supported-encoders.md` is this table in words, with a pipeline for each row.

use gst::prelude::*;

/// What a property counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// bit/s
    Bit,
    /// 1,000 bit/s
    Kilobit,
}

impl Unit {
    /// bit/s in one of these.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Bit => 1,
            Self::Kilobit => 1000,
        }
    }
}

/// One way to tell an encoder its bitrate. The first one that the element has counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knob {
    /// A number property.
    Property {
        /// Its name.
        name: &'static str,
        /// What it counts.
        unit: Unit,
        /// Another property that the element must have too: what tells builds of one name apart.
        beside: Option<&'static str>,
    },
    /// A field of a structure property: a control of a V4L2 device, in bit/s.
    Control {
        /// The property.
        property: &'static str,
        /// The field.
        control: &'static str,
    },
    /// The event `GstTargetBitrate`, which the encoder acts on by itself: nothing is set.
    Event,
}

/// Whether the bitrate of a running encoder can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// It can.
    Yes,
    /// It is read when the encoder starts.
    No,
    /// It can from this version 1.x of GStreamer on.
    Since(u32),
}

impl Live {
    /// Whether it can with this version 1.x of GStreamer.
    pub fn with(self, minor: u32) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Since(since) => minor >= since,
        }
    }
}

/// How an encoder takes requests for a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyframes {
    /// The upstream event `GstForceKeyUnit`, as it should be.
    Event,
    /// The event, from this version 1.x of GStreamer on; before, requests have no effect.
    EventSince(u32),
    /// The event has no effect; an action signal of this name without arguments does it.
    Signal(&'static str),
}

/// A family of encoders that are told in the same way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Names of factories; `*` stands for any characters.
    pub factories: &'static [&'static str],
    /// How the bitrate is set, the best way first.
    pub knobs: &'static [Knob],
    /// Properties in the unit of the bitrate's that limit it or belong to it (a peak). They are moved along so that
    /// their ratio to the bitrate stays what the user made it. 0 in one of them means "by the encoder itself".
    pub along: &'static [&'static str],
    /// Whether a running encoder takes it.
    pub live: Live,
    /// While nobody needs its pictures, it is set to this part of its bitrate; 0 = as low as it goes.
    pub idle_part: u32,
    /// How it takes keyframe requests.
    pub keyframes: Keyframes,
}

const fn bits(name: &'static str) -> Knob {
    Knob::Property { name, unit: Unit::Bit, beside: None }
}

const fn kilobits(name: &'static str) -> Knob {
    Knob::Property { name, unit: Unit::Kilobit, beside: None }
}

/// A row without peculiarities.
const fn row(
    factories: &'static [&'static str],
    knobs: &'static [Knob],
    along: &'static [&'static str],
) -> Family {
    Family { factories, knobs, along, live: Live::Yes, idle_part: 0, keyframes: Keyframes::Event }
}

/// All rows; where several fit, the first one counts.
pub(crate) static FAMILIES: &[Family] = &[
    // This project's own.
    row(&["rkmppenc", "jetsonv4l2enc", "v4l2m2menc"], &[Knob::Event], &[]),
    // Software.
    // After a time at some kbit/s x264's buffer model allows only a tenth of a keyframe's bits, and it takes seconds to come
    // back to a readable picture.
    Family { idle_part: 4, ..row(&["x264enc"], &[kilobits("bitrate")], &[]) },
    row(&["x265enc"], &[kilobits("bitrate")], &[]),
    row(&["openh264enc"], &[bits("bitrate")], &["max-bitrate"]),
    row(&["vp8enc", "vp9enc"], &[bits("target-bitrate")], &[]),
    Family { keyframes: Keyframes::EventSince(24), ..row(&["av1enc"], &[kilobits("target-bitrate")], &[]) },
    Family { live: Live::No, ..row(&["svtav1enc"], &[kilobits("target-bitrate")], &["maximum-bitrate"]) },
    Family { live: Live::No, ..row(&["rav1enc"], &[bits("bitrate")], &[]) },
    // Rockchip's own plugin.
    row(&["mpph264enc", "mpph265enc", "mppvp8enc"], &[bits("bps")], &["bps-min", "bps-max"]),
    // NVIDIA Jetson.
    Family {
        keyframes: Keyframes::Signal("force-IDR"),
        ..row(&["nvv4l2*enc"], &[bits("bitrate")], &["peak-bitrate"])
    },
    // Kernel drivers. A second device's elements are called v4l2video11h264enc and so on.
    Family {
        keyframes: Keyframes::EventSince(24),
        ..row(
            &["v4l2*enc"],
            &[bits("bitrate"), Knob::Control { property: "extra-controls", control: "video_bitrate" }],
            &[],
        )
    },
    // Desktop GPUs.
    row(
        &[
            "nvh264enc",
            "nvh265enc",
            "nvav1enc",
            "nvh26*device*enc",
            "nvcuda*enc",
            "nvautogpu*enc",
            "nvd3d11*enc",
        ],
        &[kilobits("bitrate")],
        &["max-bitrate"],
    ),
    row(&["vaapi*enc"], &[kilobits("bitrate")], &[]),
    Family { live: Live::Since(22), ..row(&["va*enc"], &[kilobits("bitrate")], &[]) },
    row(&["qsv*enc"], &[kilobits("bitrate")], &["max-bitrate"]),
    row(&["msdk*enc"], &[kilobits("bitrate")], &["max-vbv-bitrate"]),
    row(&["amf*enc"], &[kilobits("bitrate")], &["max-bitrate"]),
    row(&["vtenc_*"], &[kilobits("bitrate")], &[]),
    Family { live: Live::No, ..row(&["vulkanh26*enc"], &[kilobits("bitrate")], &[]) },
    Family {
        live: Live::Since(28),
        ..row(&["mfh26*enc", "mfvp9*enc"], &[kilobits("bitrate")], &["max-bitrate"])
    },
    // OpenMAX. The build for Zynq counts kbit/s, and is the only one with a size of the coded picture buffer;
    // NVIDIA's old one calls the property "bitrate".
    row(
        &["omxh26*enc", "omxvp8*enc"],
        &[
            Knob::Property { name: "target-bitrate", unit: Unit::Kilobit, beside: Some("cpb-size") },
            bits("target-bitrate"),
            bits("bitrate"),
        ],
        &[],
    ),
    // Qualcomm's and, for i.MX, the community's.
    row(&["qtic2venc"], &[bits("target-bitrate")], &[]),
    row(&["imxvpuenc_h26*"], &[kilobits("bitrate")], &[]),
];

/// The row of `element`, by its factory.
pub(crate) fn family_of(element: &gst::Element) -> Option<&'static Family> {
    family(element.factory()?.name().as_str())
}

/// The row of the factory `name`.
pub(crate) fn family(name: &str) -> Option<&'static Family> {
    // Several plugins have still-picture encoders too, which know no bitrate.
    if name.contains("jpeg") {
        return None;
    }
    FAMILIES.iter().find(|family| family.factories.iter().any(|pattern| matches(pattern, name)))
}

/// Whether `name` has the form of `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    (0..=rest.len()).filter_map(|at| rest.get(at..)).any(|rest| matches(tail, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        assert!(matches("va*enc", "vah264lpenc") && matches("va*enc", "vaenc"));
        assert!(!matches("va*enc", "vah264encx") && !matches("va*enc", "nvah264enc"));
        assert!(matches("x264enc", "x264enc") && !matches("x264enc", "x264encx"));
        assert!(matches("nvh26*device*enc", "nvh264device1enc"));
    }

    #[test]
    fn encoders_are_in_the_row_of_their_plugin() {
        let knob = |name| family(name).and_then(|family| family.knobs.first().copied());
        assert_eq!(knob("v4l2m2menc"), Some(Knob::Event), "not one of GStreamer's own v4l2 encoders");
        assert_eq!(knob("jetsonv4l2enc"), Some(Knob::Event));
        assert_eq!(knob("nvv4l2h264enc"), Some(bits("bitrate")), "not a desktop one");
        assert_eq!(knob("nvh264enc"), Some(kilobits("bitrate")));
        assert_eq!(knob("vaapih264enc"), Some(kilobits("bitrate")));
        assert_eq!(knob("mpph264enc"), Some(bits("bps")));
        assert_eq!(knob("v4l2video11h264enc"), knob("v4l2h264enc"));
        for other in ["jpegenc", "opusenc", "nvjpegenc", "vajpegenc", "mfaacenc", "fakesrc", "encodebin"] {
            assert_eq!(knob(other), None, "{other}");
        }
    }

    #[test]
    fn liveness_may_depend_on_the_version() {
        assert!(Live::Yes.with(14) && !Live::No.with(30));
        assert!(!Live::Since(24).with(22) && Live::Since(24).with(24));
    }
}
