// SPDX-License-Identifier: MPL-2.0

//! What a pad takes, one row a codec.

use std::str::FromStr;

use livekit_session::Codec;

use super::AllowProfiles;

/// A codec, and how its streams get from a pad to the session.
#[derive(Debug)]
pub(crate) struct Row {
    pub codec: Codec,
    /// Media type of the caps.
    pub media_type: &'static str,
    /// Element that brings any stream into the leaf's form; `None` = it is in that form anyway.
    pub parser: Option<Parser>,
    /// What the leaf takes.
    pub leaf_caps: &'static str,
    /// Forms that the pad takes, best first, each without a profile.
    pub forms: &'static [&'static str],
    /// Profiles that every browser can show, the most compatible first; empty = not a matter of profiles.
    pub browser_profiles: &'static [&'static str],
}

/// GStreamer's own parser for a codec.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Its factory.
    pub factory: &'static str,
    /// Properties, as text.
    pub properties: &'static [(&'static str, &'static str)],
    /// Where it is, in words for an error message.
    pub package: &'static str,
}

/// Every codec.
pub(crate) static ROWS: [Row; 2] = [
    Row {
        codec: Codec::H264,
        media_type: "video/x-h264",
        parser: Some(Parser {
            factory: "h264parse",
            // Parameter sets with every IDR: a viewer can come in at each of them.
            properties: &[("config-interval", "-1")],
            package: "gstreamer1.0-plugins-bad",
        }),
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
        codec: Codec::Opus,
        media_type: "audio/x-opus",
        parser: None,
        // More than two channels (family 1) have no agreed form in WebRTC.
        leaf_caps: "audio/x-opus",
        forms: &["audio/x-opus, channel-mapping-family=(int)0"],
        browser_profiles: &[],
    },
];

/// Caps of the pad template for video or for audio: the media types alone.
pub(crate) fn template_caps(video: bool) -> gst::Caps {
    of_kind(video).map(|row| gst::Structure::new_empty(row.media_type)).collect()
}

/// Caps that a leaf's pad can have.
pub(crate) fn leaf_caps() -> gst::Caps {
    ROWS.iter().filter_map(|row| gst::Structure::from_str(row.leaf_caps).ok()).collect()
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
    fn the_most_compatible_profile_comes_first_and_byte_stream_before_avc() {
        gst::init().unwrap();
        let offered = offered_caps(true, AllowProfiles::Browser);
        let profiles: Vec<_> = offered.iter().map(|s| s.get::<String>("profile").unwrap()).collect();
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
        ] {
            assert!(accepts(true, &caps(good)), "{good}");
        }
        for bad in ["video/x-h265", "video/x-raw", "video/x-h264,stream-format=strange", "audio/x-opus"] {
            assert!(!accepts(true, &caps(bad)), "{bad}");
        }
        assert!(accepts(false, &caps("audio/x-opus,channels=2,channel-mapping-family=0")));
        assert!(accepts(false, &caps("audio/x-opus")));
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
        for row in &ROWS {
            assert!(accepts(row.codec.is_video(), &caps(row.leaf_caps)), "{}", row.media_type);
        }
    }
}
