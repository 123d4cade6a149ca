// SPDX-License-Identifier: MPL-2.0

//! A session's events as structures of element messages. Pure.

use std::time::{Duration, Instant};

use livekit_session::{ConnectionQuality, Error, Event, KeyframeReason, Quality, TrackId};

use super::settings::nanos;

/// The track that an event is about, and its layer; without one it is about all of them.
pub(crate) fn about(event: &Event) -> Option<(&TrackId, Option<usize>)> {
    match event {
        Event::KeyframeRequest { track, layer, .. }
        | Event::KeyframesIgnored { track, layer, .. }
        | Event::GopTooLong { track, layer, .. }
        | Event::GopReplayed { track, layer, .. }
        | Event::Target { track, layer, .. } => Some((track, Some(*layer))),
        Event::Published { track, .. }
        | Event::Unpublished { track, .. }
        | Event::PublishFailed { track, .. }
        | Event::SubscribedQuality { track, .. }
        | Event::Muted { track, .. } => Some((track, None)),
        _ => None,
    }
}

/// The message for `event` about the pad of this name. `None` = this event has no message.
pub(crate) fn structure(event: &Event, pad: &str) -> Option<gst::Structure> {
    let message = match event {
        Event::Connecting { url, attempt } => {
            gst::Structure::builder("livekit-connecting").field("url", url).field("attempt", attempt).build()
        }
        Event::Joined(room) | Event::Moved(room) => {
            let name = if matches!(event, Event::Joined(_)) { "livekit-joined" } else { "livekit-moved" };
            gst::Structure::builder(name)
                .field("room", &room.name)
                .field("room-sid", &room.sid)
                .field("identity", &room.identity)
                .field("participant-sid", &room.participant_sid)
                .field("server-version", &room.server_version)
                .build()
        }
        Event::Published { sid, name, mime_type, .. } => gst::Structure::builder("livekit-published")
            .field("pad", pad)
            .field("track-sid", sid)
            .field("track-name", name)
            .field("mime-type", mime_type)
            .build(),
        Event::Unpublished { sid, .. } => {
            gst::Structure::builder("livekit-unpublished").field("pad", pad).field("track-sid", sid).build()
        }
        Event::KeyframeRequest { reason, forward, .. } => gst::Structure::builder("livekit-keyframe-request")
            .field("pad", pad)
            .field("kind", keyframe_reason(*reason))
            .field("forwarded", forward)
            .build(),
        Event::Muted { muted, by_server, .. } => gst::Structure::builder("livekit-muted")
            .field("pad", pad)
            .field("muted", muted)
            .field("by-server", by_server)
            .build(),
        Event::GopReplayed { frames, takes, .. } => gst::Structure::builder("livekit-gop-replayed")
            .field("pad", pad)
            .field("frames", u32::try_from(*frames).unwrap_or(u32::MAX))
            .field("delay", nanos(*takes))
            .build(),
        Event::BandwidthEstimate(bitrate) => {
            gst::Structure::builder("livekit-bandwidth-estimate").field("bitrate", bitrate).build()
        }
        Event::SubscribedQuality { qualities, .. } => {
            let mut message = gst::Structure::builder("livekit-subscribed-quality").field("pad", pad).build();
            for (quality, wanted) in qualities {
                message.set(
                    match quality {
                        Quality::Low => "low",
                        Quality::Medium => "medium",
                        Quality::High => "high",
                    },
                    wanted,
                );
            }
            message
        }
        Event::ParticipantJoined(who) | Event::ParticipantLeft(who) => {
            let name = match event {
                Event::ParticipantJoined(_) => "livekit-participant-joined",
                _ => "livekit-participant-left",
            };
            gst::Structure::builder(name)
                .field("identity", &who.identity)
                .field("sid", &who.sid)
                .field("name", &who.name)
                .build()
        }
        Event::ConnectionQuality { quality, score } => gst::Structure::builder("livekit-connection-quality")
            .field("quality", quality_name(*quality))
            .field("score", f64::from(*score))
            .build(),
        Event::Resuming { reason, attempt } => gst::Structure::builder("livekit-resuming")
            .field("reason", reason.to_string())
            .field("attempt", attempt)
            .build(),
        Event::Resumed { interrupted } => {
            gst::Structure::builder("livekit-resumed").field("interrupted", nanos(*interrupted)).build()
        }
        Event::Offline { reason, attempt, retry_in } => gst::Structure::builder("livekit-offline")
            .field("reason", reason.to_string())
            .field("attempt", attempt)
            .field("retry-in", nanos(*retry_in))
            .build(),
        Event::Disconnected(reason) => gst::Structure::builder("livekit-disconnected")
            .field("reason", reason.as_ref().map_or_else(|| "left".to_string(), Error::to_string))
            .build(),
        _ => return None,
    };
    Some(message)
}

pub(crate) fn quality_name(quality: ConnectionQuality) -> &'static str {
    match quality {
        ConnectionQuality::Poor => "poor",
        ConnectionQuality::Good => "good",
        ConnectionQuality::Excellent => "excellent",
        ConnectionQuality::Lost => "lost",
    }
}

fn keyframe_reason(reason: KeyframeReason) -> &'static str {
    match reason {
        KeyframeReason::Pli => "pli",
        KeyframeReason::Fir => "fir",
        KeyframeReason::Start => "start",
        KeyframeReason::Dropped => "dropped",
        KeyframeReason::Repeat => "repeat",
        KeyframeReason::Resumed => "resumed",
    }
}

/// Lets something through at once, and then at most once in a while.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    const PAUSE: Duration = Duration::from_secs(60);

    /// Whether it may happen now.
    pub fn allow(&mut self, now: Instant) -> bool {
        let allowed = self.last.is_none_or(|last| now.duration_since(last) >= Self::PAUSE);
        if allowed {
            self.last = Some(now);
        }
        allowed
    }

    /// The next one comes at once.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_session::Participant;

    fn message(event: &Event) -> gst::Structure {
        structure(event, "video_0").unwrap()
    }

    #[test]
    fn messages_have_the_documented_names_and_fields() {
        gst::init().unwrap();
        let connecting = message(&Event::Connecting { url: "ws://h".into(), attempt: 3 });
        assert_eq!(connecting.name(), "livekit-connecting");
        assert_eq!(connecting.get::<u32>("attempt"), Ok(3));
        let offline = message(&Event::Offline {
            reason: Error::SignalClosed("eof".into()),
            attempt: 2,
            retry_in: Duration::from_millis(1500),
        });
        assert_eq!(offline.get::<u64>("retry-in"), Ok(1_500_000_000));
        assert!(offline.get::<String>("reason").unwrap().contains("eof"));
        let resuming = message(&Event::Resuming { reason: Error::SignalClosed("eof".into()), attempt: 2 });
        assert_eq!((resuming.name().as_str(), resuming.get::<u32>("attempt")), ("livekit-resuming", Ok(2)));
        let resumed = message(&Event::Resumed { interrupted: Duration::from_secs(2) });
        assert_eq!(resumed.get::<u64>("interrupted"), Ok(2_000_000_000));
        let who = Participant { identity: "i".into(), sid: "PA_1".into(), name: "n".into() };
        assert_eq!(message(&Event::ParticipantJoined(who.clone())).name(), "livekit-participant-joined");
        let left = message(&Event::ParticipantLeft(who));
        assert_eq!((left.name().as_str(), left.get::<&str>("sid")), ("livekit-participant-left", Ok("PA_1")));
        assert_eq!(message(&Event::BandwidthEstimate(9)).get::<u64>("bitrate"), Ok(9));
        assert_eq!(message(&Event::Disconnected(None)).get::<&str>("reason"), Ok("left"));
        assert!(structure(&Event::StateChanged(Default::default()), "").is_none());
    }

    #[test]
    fn warnings_come_at_once_and_then_once_a_minute() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut throttle = Throttle::default();
        let allowed: Vec<_> = [0, 1, 30, 59, 60, 61, 120].map(|s| throttle.allow(at(s))).into();
        assert_eq!(allowed, [true, false, false, false, true, false, true]);
        throttle.reset();
        assert!(throttle.allow(at(121)));
    }
}
