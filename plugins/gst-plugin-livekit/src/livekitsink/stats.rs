// SPDX-License-Identifier: MPL-2.0

//! The `stats` property. Pure.

use livekit_session::{DropReason, SessionStats, TrackStats};

use super::messages;
use super::settings::nanos;

/// A session's counters as a structure; `pads` names the pad of each track of `stats`, in its order, with the
/// frames that the pad itself dropped because they lie before the start of the stream.
pub(crate) fn structure(
    stats: &SessionStats,
    identity: &str,
    pads: &[Option<(String, u64)>],
) -> gst::Structure {
    let mut all = gst::Structure::builder("livekit-stats")
        .field("identity", identity)
        .field_if_some("room", stats.room.as_deref())
        .field_if_some("transport", stats.transport.map(livekit_session::TransportPath::as_str))
        .field_if_some("rtt", stats.rtt.map(nanos))
        .field_if_some("bandwidth-estimate", stats.bandwidth_estimate)
        .field("bytes-sent", stats.bytes_sent)
        .field("datagrams-sent", stats.datagrams_sent)
        .field("send-calls", stats.send_calls)
        .field("send-errors", stats.send_errors)
        .field("segmentation-refused", stats.segmentation_refused)
        .field("reconnects", stats.reconnects)
        .field("resumes", stats.resumes)
        .field("offline-time", nanos(stats.offline))
        .field("signalling-malformed", stats.signalling_malformed)
        .field("signalling-too-large", stats.signalling_too_large)
        .field("signalling-unknown", stats.signalling_unknown)
        .field_if_some("connection-quality", stats.quality.map(messages::quality_name))
        .field_if_some("time-to-join", stats.time_to_join.map(nanos))
        .build();
    for (track, pad) in stats.tracks.iter().zip(pads) {
        // A track whose pad is gone is no longer of interest.
        if let Some((pad, early)) = pad {
            all.set(pad.as_str(), track_structure(track, *early));
        }
    }
    all
}

fn track_structure(track: &TrackStats, early: u64) -> gst::Structure {
    let keyframes = &track.keyframes;
    let mut structure = gst::Structure::builder("livekit-track-stats")
        .field_if_some("track-sid", track.sid.as_deref())
        .field("layer", u32::try_from(track.layer).unwrap_or(u32::MAX))
        .field("frames-sent", track.frames_sent)
        .field("bytes-sent", track.bytes_sent)
        .field("keyframes-sent", track.keyframes_sent)
        .field("frames-dropped", track.frames_dropped_total() + early)
        .field("dropped-early", early)
        .field("packets-sent", track.packets_sent)
        .field("retransmits", track.retransmits)
        .field("rtx-packets", track.rtx_packets)
        .field("rtx-bytes", track.rtx_bytes)
        .field("pli", track.pli)
        .field("fir", track.fir)
        .field("nack", track.nack)
        .field("keyframe-requests", keyframes.forwarded)
        .field("keyframe-requests-received", keyframes.received)
        .field("keyframe-requests-folded", keyframes.folded)
        .field("keyframe-requests-repeated", keyframes.repeated)
        .field("keyframe-requests-answered", keyframes.answered)
        .field_if_some("keyframe-answer-time", keyframes.answer_median.map(nanos))
        .field_if_some("keyframe-answer-time-max", keyframes.answer_max.map(nanos))
        .field("gop-replays", keyframes.replays)
        .field("gop-replayed-frames", keyframes.replayed_frames)
        .field("gop-cache-bytes", keyframes.cached_bytes)
        .field_if_some("rtt", track.rtt.map(nanos))
        .field_if_some("jitter", track.jitter.map(nanos))
        .field_if_some("loss", track.loss.map(f64::from))
        .field("packets-lost", track.packets_lost)
        .field("queued-bytes", track.queued_bytes)
        .field("queue-time", nanos(track.queue_time))
        .field_if_some("target-bitrate", track.target_bitrate)
        .field_if_some("time-to-first-frame", track.time_to_first_frame.map(nanos))
        .build();
    for (reason, count) in DropReason::ALL.iter().zip(track.frames_dropped) {
        structure.set(format!("dropped-{}", reason.as_str()), count);
    }
    structure
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tracks_stand_under_their_pads_and_unknown_figures_are_left_out() {
        gst::init().unwrap();
        let mut track = TrackStats { frames_sent: 5, loss: Some(0.25), ..TrackStats::default() };
        track.frames_dropped[1] = 2;
        track.jitter = Some(Duration::from_micros(1500));
        (track.retransmits, track.rtx_packets, track.rtx_bytes) = (3, 4, 400);
        (track.packets_lost, track.queue_time) = (9, Duration::from_millis(20));
        track.keyframes.forwarded = 7;
        track.keyframes.answer_median = Some(Duration::from_millis(4));
        let stats = SessionStats {
            rtt: Some(Duration::from_millis(3)),
            signalling_malformed: 1,
            signalling_too_large: 2,
            signalling_unknown: 3,
            tracks: vec![track, TrackStats::default()],
            ..SessionStats::default()
        };
        let all = structure(&stats, "me", &[Some(("video_0".into(), 3)), None]);
        assert_eq!(all.get::<u64>("rtt"), Ok(3_000_000));
        assert!(!all.has_field("bandwidth-estimate"));
        for (n, refused) in ["malformed", "too-large", "unknown"].into_iter().enumerate() {
            assert_eq!(all.get::<u64>(format!("signalling-{refused}")), Ok(n as u64 + 1));
        }
        let video = all.get::<gst::Structure>("video_0").unwrap();
        assert_eq!(video.get::<u64>("frames-sent"), Ok(5));
        assert_eq!(video.get::<u64>("frames-dropped"), Ok(5));
        assert_eq!(video.get::<u64>("dropped-early"), Ok(3));
        assert_eq!(video.get::<u64>("dropped-waiting-for-keyframe"), Ok(2));
        assert_eq!(video.get::<f64>("loss"), Ok(0.25));
        assert_eq!((video.get::<u64>("jitter"), video.get::<u64>("packets-lost")), (Ok(1_500_000), Ok(9)));
        assert_eq!((video.get::<u64>("retransmits"), video.get::<u64>("rtx-packets")), (Ok(3), Ok(4)));
        assert_eq!(video.get::<u64>("rtx-bytes"), Ok(400));
        assert_eq!(video.get::<u64>("queue-time"), Ok(20_000_000));
        assert!(!video.has_field("rtt") && !video.has_field("target-bitrate"));
        assert_eq!(video.get::<u64>("keyframe-requests"), Ok(7));
        assert_eq!(video.get::<u64>("keyframe-answer-time"), Ok(4_000_000));
        assert!(!video.has_field("time-to-first-frame") && !video.has_field("keyframe-answer-time-max"));
    }
}
