// SPDX-License-Identifier: MIT OR Apache-2.0

//! Layers that nobody watches, and muting.

use super::*;
use crate::config::LayerConfig;
use crate::driver::activity::SILENCE;
use crate::event::{Quality, TargetReason};

pub(super) fn simulcast() -> TrackConfig {
    let mut config = TrackConfig::new(Codec::H264, "v");
    let layer = |width: u32| LayerConfig {
        width,
        height: width / 2,
        max_bitrate: width * 1000,
        ..LayerConfig::default()
    };
    config.layers = vec![layer(320), layer(640), layer(1280)];
    config
}

pub(super) fn subscribed(track: TrackId, up_to: Option<Quality>) -> EngineEvent {
    let all = [Quality::Low, Quality::Medium, Quality::High];
    let qualities = all.map(|q| (q, up_to.is_some_and(|max| q <= max))).into();
    EngineEvent::SubscribedQuality { track, qualities }
}

fn targets(events: &[Event]) -> Vec<(usize, bool, TargetReason)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Target { layer, target, .. } => Some((*layer, target.active, target.reason)),
            _ => None,
        })
        .collect()
}

fn asked(events: &[Event], of: KeyframeReason) -> Vec<(usize, bool)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::KeyframeRequest { layer, reason, forward, .. } if *reason == of => {
                Some((*layer, *forward))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn layers_that_nobody_watches_are_paused_and_come_back_with_a_keyframe() {
    let bench = bench("unwatched", None, vec![]);
    let track = bench.session.add_track(simulcast());
    bench.wait_for("published", |e| e.iter().any(|e| matches!(e, Event::Published { .. })));
    for layer in 0..3 {
        assert_eq!(track.write_layer(layer, idr()), Outcome::Sent);
    }
    bench.wait_for_writes(3);
    bench.script.say(subscribed(track.id(), Some(Quality::Low)));
    bench.wait_for("two idle layers", |e| targets(e).len() == 2);
    let idle = TargetReason::Unwatched;
    assert_eq!(targets(&bench.events()), [(1, false, idle), (2, false, idle)]);
    for layer in 1..3 {
        assert_eq!(track.write_layer(layer, idr()), Outcome::Dropped(DropReason::Unwatched));
        bench.script.say(EngineEvent::KeyframeRequest {
            track: track.id(),
            layer,
            reason: KeyframeReason::Fir,
        });
    }
    assert_ne!(track.write_layer(0, delta()), Outcome::Dropped(DropReason::Unwatched));
    bench.script.say(subscribed(track.id(), Some(Quality::Medium)));
    bench.wait_for("the middle layer", |e| targets(e).len() == 3);
    assert_eq!(targets(&bench.events())[2], (1, true, TargetReason::Resumed));
    bench.wait_for("its keyframe request", |e| !asked(e, KeyframeReason::Resumed).is_empty());
    assert_eq!(asked(&bench.events(), KeyframeReason::Resumed), [(1, true)]);
    assert_eq!(asked(&bench.events(), KeyframeReason::Fir), [], "not of layers that nobody watches");
    assert_eq!(track.write_layer(1, delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    assert_eq!(track.write_layer(1, idr()), Outcome::Sent);
    assert_eq!(track.write_layer(2, idr()), Outcome::Dropped(DropReason::Unwatched));
    bench.wait_for_writes(5);
    assert_eq!(bench.script.layers(), [0, 1, 2, 0, 1]);
    let stats = bench.session.stats();
    let dropped = |layer: usize| {
        let at = DropReason::ALL.iter().position(|r| *r == DropReason::Unwatched).unwrap();
        stats.tracks[layer].frames_dropped[at]
    };
    assert_eq!([dropped(0), dropped(1), dropped(2)], [0, 1, 2]);
}

#[test]
fn a_track_without_a_word_of_subscribers_idles_and_a_request_wakes_it() {
    let bench = bench("silence", None, vec![]);
    let track = bench.session.add_track(TrackConfig::new(Codec::H264, "v"));
    bench.wait_for("published", |e| e.iter().any(|e| matches!(e, Event::Published { .. })));
    let begin = Instant::now();
    assert_eq!(track.write(idr()), Outcome::Sent);
    bench.wait_for("idle", |e| !targets(e).is_empty());
    assert!(begin.elapsed() >= SILENCE);
    assert_eq!(track.write(idr()), Outcome::Dropped(DropReason::Unwatched));
    bench.script.say(EngineEvent::KeyframeRequest {
        track: track.id(),
        layer: 0,
        reason: KeyframeReason::Pli,
    });
    bench.wait_for("awake", |e| targets(e).len() == 2);
    assert_eq!(targets(&bench.events())[1], (0, true, TargetReason::Resumed));
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    assert_eq!(track.write(idr()), Outcome::Sent);
}

#[test]
fn a_muted_track_sends_nothing_and_stays_muted_in_the_next_room() {
    let lost = Error::SignalClosed("eof".into());
    let bench = bench("muted", None, vec![Join::LoseAfter(2, lost), Join::Stay]);
    let track = bench.session.add_track(TrackConfig::new(Codec::H264, "v"));
    let sound = bench.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    bench.wait_for("published", |e| e.iter().filter(|e| matches!(e, Event::Published { .. })).count() == 2);
    assert_eq!(track.write(idr()), Outcome::Sent);
    track.set_muted(true);
    track.set_muted(true);
    sound.set_muted(true);
    bench.wait_for("muted", |e| targets(e).len() == 2);
    let muted = (0, false, TargetReason::Muted);
    assert_eq!(targets(&bench.events()), [muted, muted]);
    let told = bench.count(|e| matches!(e, Event::Muted { muted: true, by_server: false, .. }));
    assert_eq!(told, 2, "each once");
    assert_eq!(bench.script.mutes(), [false, false, true, true, true]);
    assert_eq!(track.write(idr()), Outcome::Dropped(DropReason::Muted));
    assert_eq!(sound.write(frame(&[1])), Outcome::Dropped(DropReason::Muted));
    // Sound comes back without a keyframe.
    sound.set_muted(false);
    bench.wait_for("sound", |e| targets(e).len() == 3);
    assert_eq!(sound.write(frame(&[1])), Outcome::Sent);
    // The second frame loses the room.
    bench.wait_for("the next room", |e| {
        e.iter().filter(|e| matches!(e, Event::Published { .. })).count() == 4
    });
    assert_eq!(bench.script.mutes()[6..], [true, false], "published as they are");
    assert_eq!(track.write(idr()), Outcome::Dropped(DropReason::Muted));
    track.set_muted(false);
    bench.wait_for("pictures", |e| targets(e).len() == 4);
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    assert_eq!(track.write(idr()), Outcome::Sent);
}

#[test]
fn the_server_may_mute_and_unmute() {
    let bench = bench("server-mute", None, vec![]);
    let track = bench.session.add_track(TrackConfig::new(Codec::H264, "v"));
    bench.wait_for("published", |e| e.iter().any(|e| matches!(e, Event::Published { .. })));
    for muted in [true, false] {
        bench.script.say(EngineEvent::Muted { track: track.id(), muted });
        bench.wait_for("it", |e| {
            e.iter().any(|e| matches!(e, Event::Muted { muted: m, by_server: true, .. } if *m == muted))
        });
        bench.wait_for("its target", |e| targets(e).len() == if muted { 1 } else { 2 });
        let dropped = track.write(idr()) == Outcome::Dropped(DropReason::Muted);
        assert_eq!(dropped, muted);
    }
    assert_eq!(bench.script.mutes(), [false], "the server need not be told what it said");
}
