// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the driver does about a link that has become too small.

use super::activity::simulcast;
use super::*;
use crate::congestion::{KEYFRAME_LEAD, Sample};

/// What asked for keyframes because frames were dropped: the tracks, and when the first of them did.
fn dropped(b: &Bench) -> (Vec<TrackId>, Option<Instant>) {
    let of_drops = |e: &Event| {
        matches!(e, Event::KeyframeRequest { reason: KeyframeReason::Dropped, forward: true, .. })
    };
    let tracks = b.events().into_iter().filter(of_drops).filter_map(|event| match event {
        Event::KeyframeRequest { track, .. } => Some(track),
        _ => None,
    });
    let tracks: Vec<_> = tracks.collect();
    let first = (!tracks.is_empty()).then(|| b.when(of_drops));
    (tracks, first)
}

/// Packets begin to wait, and a frame of the first of two tracks becomes too old. Gives the track and who asked for a
/// keyframe how long after; `None` = the machine stood still, so that this was nothing sudden.
fn brake(attempt: usize) -> Option<(TrackId, Vec<TrackId>, Duration)> {
    let short = |config: &mut SessionConfig| {
        config.max_queue_time = Duration::from_millis(20);
        config.keyframe_min_interval = Duration::ZERO;
    };
    let b = bench_with(&format!("brake{attempt}"), None, vec![Join::Stay], short);
    let tracks = ["one", "two"].map(|name| b.session.add_track(TrackConfig::new(Codec::H264, name)));
    b.wait_for("publications", published(2));
    for track in &tracks {
        let _ = track.write(idr());
    }
    b.wait_for_writes(2);
    let late = Instant::now();
    for (rtt, bytes_sent) in [(2, 10_000), (400, 20_000)] {
        let rtt = Some(Duration::from_millis(rtt));
        b.script.say(EngineEvent::Network(Sample { estimate: Some(6_000_000), loss: None, rtt, bytes_sent }));
    }
    let last = 9_000_000;
    b.script.say(EngineEvent::BandwidthEstimate(last));
    b.wait_for("the samples", |e| e.iter().any(|e| matches!(e, Event::BandwidthEstimate(at) if *at == last)));
    let _ = tracks[0].write(delta());
    let is_over = || b.script.written.load(Ordering::SeqCst) > 2 || !dropped(&b).0.is_empty();
    b.wait_for("the frame's end", |_| is_over());
    let (asked, at) = dropped(&b);
    Some((tracks[0].id(), asked, at?.saturating_duration_since(late)))
}

#[test]
fn a_keyframe_for_what_was_dropped_in_a_hold_is_asked_for_at_its_end() {
    let (track, asked, after) = (0..20).find_map(brake).expect("a brake");
    assert_eq!(asked, [track], "the other one lost nothing");
    assert!(after >= Duration::from_millis(250) - KEYFRAME_LEAD, "{after:?}");
}

#[test]
fn a_faster_layer_waits_for_a_slower_that_a_viewer_may_change_to() {
    let b = bench("skew", None, vec![Join::Stay]);
    let track = b.session.add_track(simulcast());
    b.wait_for("publication", published(1));
    let late = |by: u64, frame: Frame| Frame {
        captured_at: Instant::now().checked_sub(Duration::from_millis(by)).unwrap(),
        ..frame
    };
    // All are asked for at the start. Nothing waits for what has not come.
    let _ = track.write_layer(0, late(0, idr()));
    b.wait_for_writes(1);
    let _ = track.write_layer(2, late(100_000, idr()));
    b.wait_for_writes(2);
    // The large layer's frames take for ever: the others wait for as long as they may. (Once more where the machine stood
    // still for so long that nothing is known of the large layer any more.)
    let waits = |attempt: usize| {
        // Asked for now, should that of the start be long ago.
        let (track_id, reason) = (track.id(), KeyframeReason::Pli);
        b.script.say(EngineEvent::KeyframeRequest { track: track_id, layer: 2, reason });
        let begin = Instant::now();
        let _ = track.write_layer(2, late(100_000, delta()));
        let _ = track.write_layer(1, late(0, idr()));
        b.wait_for_writes(4 + 2 * attempt);
        let written = b.script.written_at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = |layer| b.script.layers().iter().rposition(|l| *l == layer).unwrap();
        assert!(written[last(2)] < written[last(1)], "what is late does not wait");
        written[last(1)] - begin >= Duration::from_millis(200)
    };
    assert!((0..20).any(waits));
}
