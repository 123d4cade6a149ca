// SPDX-License-Identifier: MPL-2.0

//! Debug categories: one for each concern, so that a support case needs only the lines that matter.
//!
//! Beside the element's own lines these show what the session and the crates below it say, by way of [`bridge`] and [`records`]. All begin with
//! `livekitsink`, so `GST_DEBUG=livekitsink*:6` is all of them.

mod bridge;
mod limit;
mod records;
mod scrub;

use std::sync::LazyLock;

use livekit_session::Event;

pub(crate) use bridge::dispatch;

macro_rules! category {
    ($(#[$doc:meta])* $name:ident, $text:literal, $description:literal) => {
        $(#[$doc])*
        pub(crate) static $name: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
            gst::DebugCategory::new($text, gst::DebugColorFlags::empty(), Some($description))
        });
    };
}

category!(
    /// The element: states, pads, tracks.
    CAT, "livekitsink", "LiveKit sink: states, pads, tracks"
);
category!(
    /// The room: joining, losing, resuming, leaving it.
    SIGNALLING, "livekitsink-signalling", "LiveKit sink: joining, losing, resuming and leaving the room"
);
category!(
    /// The way of the media: ICE, relays, sockets, DTLS, SDP, RTP.
    MEDIA, "livekitsink-media", "LiveKit sink: ICE, relays, sockets, DTLS, SDP, RTP"
);
category!(
    /// What the network carries, and what encoders are told.
    BITRATE, "livekitsink-bitrate", "LiveKit sink: what the network carries, what encoders are told"
);
category!(
    /// Requests for keyframes, and what becomes of them.
    KEYFRAME, "livekitsink-keyframe", "LiveKit sink: requests for keyframes, and what becomes of them"
);
category!(
    /// Data packets and their channels.
    DATA, "livekitsink-data", "LiveKit sink: data packets and their channels"
);

/// All of them.
const ALL: [&LazyLock<gst::DebugCategory>; 6] = [&CAT, &SIGNALLING, &MEDIA, &BITRATE, &KEYFRAME, &DATA];

/// Modules and what they are about; the first that a target begins with counts.
const TARGETS: &[(&str, &LazyLock<gst::DebugCategory>)] = &[
    ("livekit_session::driver::congestion", &BITRATE),
    ("livekit_session::congestion", &BITRATE),
    ("livekit_session::engine::webrtc::bandwidth", &BITRATE),
    ("str0m::bwe", &BITRATE),
    ("str0m::pacer", &BITRATE),
    ("livekit_session::driver::keyframes", &KEYFRAME),
    ("livekit_session::keyframe", &KEYFRAME),
    ("livekit_session::gop_cache", &KEYFRAME),
    ("livekit_session::driver::data", &DATA),
    ("livekit_session::data", &DATA),
    ("livekit_session::engine::webrtc::data", &DATA),
    ("str0m::sctp", &DATA),
    ("str0m::channel", &DATA),
    ("livekit_session::engine::webrtc::resume", &SIGNALLING),
    ("livekit_session::engine", &MEDIA),
    ("livekit_session::e2ee", &MEDIA),
    ("livekit_session", &SIGNALLING),
];

/// What a line of this module is about. Crates below the session are about the media.
fn about(target: &str) -> &'static gst::DebugCategory {
    let of = |(module, _): &&(&str, _)| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    TARGETS.iter().find(of).map_or(&MEDIA, |(_, category)| category)
}

/// What an event of the session is about.
pub(crate) fn about_event(event: &Event) -> &'static gst::DebugCategory {
    match event {
        Event::KeyframeRequest { .. }
        | Event::KeyframesIgnored { .. }
        | Event::GopReplayed { .. }
        | Event::GopTooLong { .. } => &KEYFRAME,
        Event::BandwidthEstimate(_) | Event::Target { .. } => &BITRATE,
        Event::DataReady | Event::DataReceived(_) => &DATA,
        Event::StateChanged(_)
        | Event::Connecting { .. }
        | Event::Joined(_)
        | Event::Offline { .. }
        | Event::Resuming { .. }
        | Event::Resumed { .. }
        | Event::Moved(_)
        | Event::Disconnected(_)
        | Event::ConnectionQuality { .. } => &SIGNALLING,
        _ => &CAT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn modules_of_the_table_exist_and_the_longest_come_first() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/livekit-session/src");
        for (at, (module, _)) in TARGETS.iter().enumerate() {
            if let Some(rest) = module.strip_prefix("livekit_session::") {
                let path = sources.join(rest.replace("::", "/"));
                assert!(path.with_extension("rs").exists() || path.join("mod.rs").exists(), "{module}");
            }
            let hidden = TARGETS.iter().take(at).find(|(earlier, _)| module.starts_with(earlier));
            assert!(hidden.is_none(), "{module} stands behind {hidden:?}");
        }
    }

    #[test]
    fn what_becomes_of_the_room_is_signalling() {
        gst::init().unwrap();
        let room = livekit_session::RoomInfo {
            name: "hall".into(),
            sid: "RM_2".into(),
            identity: "me".into(),
            participant_sid: "PA_1".into(),
            server_version: "1".into(),
        };
        for event in [Event::Joined(room.clone()), Event::Moved(room), Event::Disconnected(None)] {
            assert_eq!(about_event(&event).name(), SIGNALLING.name(), "{event:?}");
        }
    }

    #[test]
    fn each_module_has_its_concern() {
        gst::init().unwrap();
        for (target, category) in [
            ("livekit_session::driver::congestion", &BITRATE),
            ("str0m::bwe::delay", &BITRATE),
            ("livekit_session::driver::keyframes", &KEYFRAME),
            ("livekit_session::engine::webrtc::data", &DATA),
            ("livekit_session::database", &SIGNALLING),
            ("livekit_session::engine::webrtc::transport::tcp", &MEDIA),
            ("livekit_session::driver", &SIGNALLING),
            ("livekit_session::signal::proxy", &SIGNALLING),
            ("str0m::dtls", &MEDIA),
            ("turn_client_proto::udp", &MEDIA),
        ] {
            assert_eq!(about(target).name(), category.name(), "{target}");
        }
        assert!(ALL.iter().all(|category| category.name().starts_with("livekitsink")));
    }
}
