// SPDX-License-Identifier: MPL-2.0

//! What a pad takes, one row a codec.

use std::str::FromStr;

use livekit_session::{Codec, H264Profile};

use super::AllowProfiles;

/// A kind of stream, and how it gets from a pad to the session.
#[derive(Debug)]
pub(crate) struct Row {
    /// What the session gets.
    pub codec: Codec,
    /// Media type of the caps.
    pub media_type: &'static str,
    /// What stands between the pad and its leaf; empty = the stream is in the leaf's form anyway.
    pub chain: &'static [Link],
    /// What the leaf takes.
    pub leaf_caps: &'static str,
    /// Forms that the pad takes, best first, each without a profile.
    pub forms: &'static [&'static str],
    /// Profiles that every browser can show, the most compatible first; empty = not a matter of profiles.
    pub browser_profiles: &'static [&'static str],
}

impl Row {
    /// Raw sound, which is encoded here.
    pub(crate) fn is_raw(&self) -> bool {
        self.media_type == RAW_AUDIO
    }
}

/// An element of GStreamer's own between pad and leaf.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its factory.
    pub factory: &'static str,
    /// Properties, as text.
    pub properties: &'static [(&'static str, &'static str)],
    /// Where it is, in words for an error message: Debian's package.
    pub package: &'static str,
}

const RAW_AUDIO: &str = "audio/x-raw";
const BAD: &str = "gstreamer1.0-plugins-bad";
const BASE: &str = "gstreamer1.0-plugins-base";
/// Two channels at most: more (family 1) have no agreed form in WebRTC.
const OPUS: &str = "audio/x-opus, channel-mapping-family=(int)0";

/// Everything that a pad takes.
pub(crate) static ROWS: [Row; 7] = [
    Row {
        codec: Codec::H264,
        media_type: "video/x-h264",
        // Parameter sets with every IDR: a viewer can come in at each of them.
        chain: &[Link { factory: "h264parse", properties: &[("config-interval", "-1")], package: BAD }],
        leaf_caps: "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
        forms: &[
            "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
            "video/x-h264, stream-format=(string){ byte-stream, avc, avc3 }, alignment=(string){ au, nal }",
        ],
        browser_profiles: &[
            "constrained-baseline",
            "baseline",
            "main",
            "constrained-high",
            "progressive-high",
            "high",
        ],
    },
    Row {
        codec: Codec::H265,
        media_type: "video/x-h265",
        chain: &[Link { factory: "h265parse", properties: &[("config-interval", "-1")], package: BAD }],
        leaf_caps: "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
        forms: &[
            "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
            "video/x-h265, stream-format=(string){ byte-stream, hvc1, hev1 }, alignment=(string){ au, nal }",
        ],
        browser_profiles: &["main"],
    },
    Row {
        codec: Codec::Vp8,
        media_type: "video/x-vp8",
        chain: &[],
        leaf_caps: "video/x-vp8",
        forms: &["video/x-vp8"],
        browser_profiles: &[],
    },
    Row {
        codec: Codec::Vp9,
        media_type: "video/x-vp9",
        chain: &[Link { factory: "vp9parse", properties: &[], package: BAD }],
        // A frame that is not shown goes out together with one that is: one RTP time, one picture.
        leaf_caps: "video/x-vp9, alignment=(string)super-frame",
        forms: &["video/x-vp9"],
        browser_profiles: &["0"],
    },
    Row {
        codec: Codec::Av1,
        media_type: "video/x-av1",
        chain: &[Link { factory: "av1parse", properties: &[], package: BAD }],
        leaf_caps: "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu",
        forms: &["video/x-av1"],
        browser_profiles: &["main"],
    },
    Row {
        codec: Codec::Opus,
        media_type: "audio/x-opus",
        chain: &[],
        leaf_caps: "audio/x-opus",
        forms: &[OPUS],
        browser_profiles: &[],
    },
    Row {
        codec: Codec::Opus,
        media_type: RAW_AUDIO,
        chain: &[
            Link { factory: "audioconvert", properties: &[], package: BASE },
            Link { factory: "audioresample", properties: &[], package: BASE },
            // The encoder makes of more channels than two what nobody plays.
            Link {
                factory: "capsfilter",
                properties: &[("caps", "audio/x-raw, rate=(int)48000, channels=(int)[ 1, 2 ]")],
                package: "libgstreamer1.0-0",
            },
            Link {
                factory: "opusenc",
                // In-band FEC (RFC 6716 §2.1.7) is made only as far as loss is expected.
                properties: &[("frame-size", "20"), ("inband-fec", "true"), ("packet-loss-percentage", "5")],
                package: BASE,
            },
        ],
        leaf_caps: OPUS,
        forms: &[RAW_AUDIO],
        browser_profiles: &[],
    },
];

/// What a stream of H.264 says of its profile in its caps.
pub(crate) fn h264_profile(name: &str) -> H264Profile {
    match name {
        "constrained-baseline" => H264Profile::ConstrainedBaseline,
        "baseline" => H264Profile::Baseline,
        "main" | "extended" => H264Profile::Main,
        _ => H264Profile::High,
    }
}

/// Whether a stream of this form has, in its caps, the decoder configuration that it needs: `avcC` (ISO/IEC 14496-15
/// §5.3.3.1) or `hvcC` (§8.3.3.1), with every parameter set inside it.
pub(crate) fn has_sound_codec_data(structure: &gst::StructureRef) -> bool {
    let walk = match structure.get::<&str>("stream-format").unwrap_or_default() {
        "avc" => avcc,
        "hvc1" => hvcc,
        _ => return true,
    };
    let Ok(buffer) = structure.get::<gst::Buffer>("codec_data") else { return false };
    let Ok(map) = buffer.map_readable() else { return false };
    map.first() == Some(&1) && walk(&map).is_some()
}

/// Walks through SPS and PPS: a byte with their count, then a length of 16 bits before each.
fn avcc(data: &[u8]) -> Option<usize> {
    [0x1f, 0xff].into_iter().try_fold(5, |at, mask| {
        let count = usize::from(*data.get(at)? & mask);
        parameter_sets(data, at + 1, count)
    })
}

/// Walks through the arrays: a byte with their count, then type, count of 16 bits and the sets of each.
fn hvcc(data: &[u8]) -> Option<usize> {
    let arrays = *data.get(22)?;
    (0..arrays).try_fold(23, |at, _| {
        let count = data.get(at + 1..at + 3)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        parameter_sets(data, at + 3, count)
    })
}

/// Where `count` parameter sets that begin at `at` end; `None` if that is beyond the data.
fn parameter_sets(data: &[u8], at: usize, count: usize) -> Option<usize> {
    (0..count).try_fold(at, |at, _| {
        let length = data.get(at..at + 2)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let end = at + 2 + length;
        (end <= data.len()).then_some(end)
    })
}

/// Caps of the pad template for video or for audio: the media types alone.
pub(crate) fn template_caps(video: bool) -> gst::Caps {
    of_kind(video).map(|row| gst::Structure::new_empty(row.media_type)).collect()
}

/// Caps that a leaf's pad can have.
pub(crate) fn leaf_caps() -> gst::Caps {
    let encoded = ROWS.iter().filter(|row| !row.is_raw());
    encoded.filter_map(|row| gst::Structure::from_str(row.leaf_caps).ok()).collect()
}

/// The row of a media type.
pub(crate) fn row(media_type: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.media_type == media_type)
}

/// What the pad says it takes. A structure for each profile, because an encoder takes the first one it can
/// do, whereas the order within a list would be the encoder's own.
pub(crate) fn offered_caps(video: bool, profiles: AllowProfiles) -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    {
        let caps = caps.make_mut();
        for row in of_kind(video) {
            for form in row.forms.iter().filter_map(|form| gst::Structure::from_str(form).ok()) {
                for profile in row.browser_profiles {
                    let mut structure = form.clone();
                    structure.set("profile", *profile);
                    caps.append_structure(structure);
                }
            }
            // Last, so that it is nobody's first choice.
            if row.browser_profiles.is_empty() || profiles == AllowProfiles::Any {
                for form in row.forms.iter().filter_map(|form| gst::Structure::from_str(form).ok()) {
                    caps.append_structure(form);
                }
            }
        }
    }
    caps
}

/// Whether the pad takes a stream with these caps. The profile is no part of it: many sources don't know it,
/// and once the parser has seen it, [`profile_refusal`] can say what is wrong.
pub(crate) fn accepts(video: bool, caps: &gst::CapsRef) -> bool {
    caps.iter().all(|structure| {
        let Some(row) = of_kind(video).find(|row| row.media_type == structure.name()) else { return false };
        let mut bare = structure.to_owned();
        bare.remove_field("profile");
        let bare: gst::Caps = [bare].into_iter().collect();
        row.forms
            .iter()
            .filter_map(|form| gst::Caps::from_str(form).ok())
            .any(|form| form.can_intersect(&bare))
    })
}

/// Why a stream is refused for its profile, and what to do about it.
pub(crate) fn profile_refusal(row: &Row, profile: &str) -> Option<String> {
    if row.browser_profiles.is_empty() || row.browser_profiles.contains(&profile) {
        return None;
    }
    Some(format!(
        "The stream has the profile '{profile}', which browsers can't show. Make the encoder produce 8-bit \
         4:2:0 in one of these profiles: {} (for example with '! video/x-raw,format=I420 !' before the \
         encoder), or set allow-profiles=any if all viewers can decode it",
        row.browser_profiles.join(", ")
    ))
}

fn of_kind(video: bool) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| row.codec.is_video() == video)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::Caps::from_str(text).unwrap()
    }

    #[test]
    fn h264_comes_first_and_encoded_sound_before_raw() {
        gst::init().unwrap();
        let names = |video| -> Vec<String> {
            let mut names: Vec<_> =
                offered_caps(video, AllowProfiles::Browser).iter().map(|s| s.name().to_string()).collect();
            names.dedup();
            names
        };
        let video = ["video/x-h264", "video/x-h265", "video/x-vp8", "video/x-vp9", "video/x-av1"];
        assert_eq!(names(true), video);
        assert_eq!(names(false), ["audio/x-opus", "audio/x-raw"]);
    }

    #[test]
    fn codec_data_is_read_to_its_end() {
        gst::init().unwrap();
        let sound = |text: &str| has_sound_codec_data(caps(text).structure(0).unwrap());
        let avc = |data: &str| sound(&format!("video/x-h264,stream-format=avc,codec_data=(buffer){data}"));
        // One SPS of two bytes, one PPS of one byte.
        assert!(avc("0142c00dffe10002674201000168"));
        for broken in
            ["ff", "0042c00dffe10002674201000168", "0142c00dffe1ffff67", "0142c00dffe1000267420100016801"]
        {
            let cut = broken.len() == 30;
            assert_eq!(avc(broken), cut, "{broken}: extensions of high profiles may follow");
        }
        assert!(!avc("0142c00dffe100026742010009"), "a PPS that is not there");
        assert!(!sound("video/x-h264,stream-format=avc"));
        assert!(!sound("video/x-h265,stream-format=hvc1,codec_data=(buffer)00"));
        let hvc = |data: &str| {
            let head = format!("01{}", "00".repeat(21));
            sound(&format!("video/x-h265,stream-format=hvc1,codec_data=(buffer){head}{data}"))
        };
        assert!(hvc("00") && hvc("01a0000100024001") && hvc("02a0000100024001a10001000142"));
        for lie in ["", "01", "01a000", "01a0000100034001", "02a0000100024001", "01a0000200024001"] {
            assert!(!hvc(lie), "{lie}");
        }
        assert!(sound("video/x-h264,stream-format=byte-stream") && sound("video/x-h264"));
    }

    #[test]
    fn profiles_are_known_by_their_names_in_caps() {
        assert_eq!(h264_profile("constrained-baseline"), H264Profile::ConstrainedBaseline);
        assert_eq!(h264_profile("baseline"), H264Profile::Baseline);
        assert_eq!(h264_profile("main"), H264Profile::Main);
        for high in ["high", "constrained-high", "progressive-high", "high-4:4:4"] {
            assert_eq!(h264_profile(high), H264Profile::High, "{high}");
        }
    }

    #[test]
    fn the_most_compatible_profile_comes_first_and_byte_stream_before_avc() {
        gst::init().unwrap();
        let offered = offered_caps(true, AllowProfiles::Browser);
        let h264 = offered.iter().filter(|s| s.name() == "video/x-h264");
        let profiles: Vec<_> = h264.map(|s| s.get::<String>("profile").unwrap()).collect();
        assert_eq!(profiles[..4], ["constrained-baseline", "baseline", "main", "constrained-high"]);
        assert_eq!(profiles.iter().position(|p| p == "high"), Some(5));
        assert_eq!(offered.structure(0).unwrap().get::<&str>("stream-format"), Ok("byte-stream"));
        assert!(offered.can_intersect(&caps("video/x-h264,profile=high,stream-format=avc,alignment=au")));
    }

    #[test]
    fn wide_profiles_are_offered_only_with_any() {
        gst::init().unwrap();
        let wide = caps("video/x-h264,profile=high-4:4:4,stream-format=byte-stream,alignment=au");
        assert!(!offered_caps(true, AllowProfiles::Browser).can_intersect(&wide));
        assert!(offered_caps(true, AllowProfiles::Any).can_intersect(&wide));
        let first = offered_caps(true, AllowProfiles::Any);
        assert_eq!(first.structure(0).unwrap().get::<&str>("profile"), Ok("constrained-baseline"));
    }

    #[test]
    fn streams_of_unknown_profile_or_form_are_accepted() {
        gst::init().unwrap();
        for good in [
            "video/x-h264",
            "video/x-h264,stream-format=byte-stream",
            "video/x-h264,stream-format=avc,alignment=au,width=16",
            "video/x-h264,stream-format=avc3,alignment=nal,profile=high-4:4:4",
            "video/x-h265,stream-format=hvc1,alignment=au",
            "video/x-vp8",
            "video/x-vp9,profile=(string)1",
            "video/x-av1,stream-format=obu-stream,alignment=frame",
        ] {
            assert!(accepts(true, &caps(good)), "{good}");
        }
        for bad in [
            "video/x-h266",
            "video/x-raw",
            "image/jpeg",
            "video/x-h265,stream-format=strange",
            "video/x-h264,stream-format=strange",
            "audio/x-opus",
        ] {
            assert!(!accepts(true, &caps(bad)), "{bad}");
        }
        assert!(accepts(false, &caps("audio/x-opus,channels=2,channel-mapping-family=0")));
        assert!(accepts(false, &caps("audio/x-opus")));
        assert!(accepts(false, &caps("audio/x-raw,format=F32LE,rate=44100,channels=6")));
        assert!(!accepts(false, &caps("audio/mpeg")) && !accepts(true, &caps("audio/x-raw")));
        assert!(!accepts(false, &caps("audio/x-opus,channels=6,channel-mapping-family=1")));
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        let h264 = row("video/x-h264").unwrap();
        assert_eq!(profile_refusal(h264, "high"), None);
        let text = profile_refusal(h264, "high-4:4:4").unwrap();
        assert!(text.contains("high-4:4:4") && text.contains("allow-profiles=any"), "{text}");
        assert_eq!(profile_refusal(row("audio/x-opus").unwrap(), "anything"), None);
    }

    #[test]
    fn every_leaf_form_is_one_that_the_pad_takes() {
        gst::init().unwrap();
        for row in ROWS.iter().filter(|row| !row.is_raw()) {
            assert!(accepts(row.codec.is_video(), &caps(row.leaf_caps)), "{}", row.media_type);
        }
    }
}
