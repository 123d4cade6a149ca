// SPDX-License-Identifier: MIT OR Apache-2.0

//! Groups of pictures that are sent again.

use super::*;

fn times(b: &Bench) -> Vec<Duration> {
    b.script.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replays(b: &Bench) -> Vec<usize> {
    let events = b.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let frames = events.iter().filter_map(|e| match e {
        Event::GopReplayed { frames, .. } => Some(*frames),
        _ => None,
    });
    frames.collect()
}

fn gop_cache(mode: crate::GopCacheMode) -> crate::GopCacheConfig {
    crate::GopCacheConfig { mode, ..Default::default() }
}

fn at(ms: u64, frame: Frame) -> Frame {
    Frame { media_time: Duration::from_millis(ms), ..frame }
}

#[test]
fn a_request_is_answered_from_the_cache_and_time_goes_forward() {
    let b = bench("replay", None, vec![Join::Viewer { asks: false }]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "file"));
    track.set_gop_cache(0, gop_cache(crate::GopCacheMode::On));
    b.wait_for("publication", published(1));
    for (n, f) in [idr(), delta(), delta()].into_iter().enumerate() {
        assert!(matches!(track.write(at(n as u64 * 33, f)), Outcome::Sent | Outcome::Queued));
    }
    b.wait_for_writes(3);
    let ask = |times: usize| {
        for _ in 0..times {
            let reason = KeyframeReason::Pli;
            b.script.say(EngineEvent::KeyframeRequest { track: track.id(), layer: 0, reason });
        }
    };
    ask(1);
    b.wait_for("replay", |_| replays(&b) == [3]);
    // Live frames go on behind it.
    let _ = track.write(at(99, delta()));
    b.wait_for_writes(3 + 3 + 1);
    // One that comes sooner than this after a replay waits.
    let interval = SessionConfig::new("", Credentials::Token("".into())).keyframe_min_interval;
    std::thread::sleep(interval);
    ask(1);
    b.wait_for("second replay", |_| replays(&b) == [3, 4]);
    let times = times(&b);
    assert_eq!(times.len(), 3 + 3 + 1 + 4);
    assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    assert_eq!(times[6], Duration::from_millis(99) + TIMELINE_LEAD, "a live frame keeps its time");
    assert!(times[5] < times[6] && times[5] < times[2] + Duration::from_millis(33), "squeezed in between");
    // At the same time, and once more when the interval is over.
    ask(100);
    b.wait_for("third replay", |_| replays(&b).len() > 2);
    let folded = |e: &Event| matches!(e, Event::KeyframeRequest { forward: false, .. });
    let forwarded = |e: &Event| matches!(e, Event::KeyframeRequest { forward: true, .. });
    assert!(replays(&b).len() < 50, "a storm of requests is no storm of replays");
    assert!(b.count(folded) <= b.count(forwarded), "a storm of requests is no storm of events");
    assert!(b.count(forwarded) >= 2, "the encoder is asked all the same");
    let received = || {
        let _refreshes_the_statistics = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
        b.session.stats().tracks[0].keyframes
    };
    b.wait_for("statistics", |_| received().received > 100 && received().replayed_frames >= 3 + 4 + 4);
}

#[test]
fn an_encoder_that_ignores_requests_is_told_and_its_pictures_are_kept_from_then_on() {
    let b = bench("ignores", None, vec![Join::Viewer { asks: true }]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    let ignored = |e: &Event| matches!(e, Event::KeyframesIgnored { .. });
    let _ = track.write(at(0, idr()));
    let mut n = 0;
    while b.count(ignored) == 0 {
        n += 1;
        assert!(n < 1000, "never told");
        let _ = track.write(at(n * 10, delta()));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(replays(&b).is_empty(), "not before it is known, and nothing was kept then");
    let _ = track.write(at(n * 10 + 10, idr()));
    let _ = track.write(at(n * 10 + 20, delta()));
    b.wait_for("replay", |_| replays(&b).contains(&2));
    assert_eq!(b.count(ignored), 1);
}

#[test]
fn a_source_that_cannot_be_asked_is_back_at_once_after_a_lost_room() {
    for (name, mode) in [("back", crate::GopCacheMode::On), ("back-off", crate::GopCacheMode::Off)] {
        let lost = Join::LoseAfter(2, Error::SignalClosed("test".into()));
        let b = bench(name, None, vec![lost, Join::Fail(unreachable()), held(Join::Stay)]);
        let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
        track.set_gop_cache(0, gop_cache(mode));
        b.wait_for("publication", published(1));
        for (n, f) in [idr(), delta()].into_iter().enumerate() {
            let _ = track.write(at(n as u64, f));
        }
        b.wait_for("loss", |e| e.iter().any(|e| matches!(e, Event::Offline { .. })));
        assert_eq!(track.write(at(3, delta())), Outcome::Dropped(DropReason::NotConnected));
        b.release();
        b.wait_for("second publication", published(2));
        if mode == crate::GopCacheMode::Off {
            assert_eq!(track.write(at(4, delta())), Outcome::Dropped(DropReason::WaitingForKeyframe));
            continue;
        }
        b.wait_for("replay", |_| replays(&b) == [3]);
        assert!(matches!(track.write(at(4, delta())), Outcome::Sent | Outcome::Queued));
        b.wait_for("frames", |_| times(&b).len() == 2 + 3 + 1);
        assert!(times(&b).windows(2).all(|w| w[0] < w[1]), "{:?}", times(&b));
    }
}

#[test]
fn a_gop_that_does_not_fit_is_told_once_and_a_gap_ends_what_is_kept() {
    let b = bench("too-long", None, vec![Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    track.set_gop_cache(0, gop_cache(crate::GopCacheMode::On));
    b.wait_for("publication", published(1));
    let told = |e: &Event| matches!(e, Event::GopTooLong { bound: crate::GopTooLong::Duration, .. });
    let cached = || b.session.stats().tracks[0].keyframes.cached_bytes;
    for n in 0..2 {
        let _ = track.write(at(n * 10_000, idr()));
        let _ = track.write(at(n * 10_000 + 2500, delta()));
    }
    b.wait_for("frames", |_| b.script.written.load(Ordering::SeqCst) == 4);
    assert_eq!(b.count(told), 1);
    let _ = track.write(at(30_000, idr()));
    track.set_gop_cache(0, gop_cache(crate::GopCacheMode::On));
    b.wait_for("frame", |_| b.script.written.load(Ordering::SeqCst) == 5);
    let refresh = || drop(b.session.add_track(TrackConfig::new(Codec::Opus, "a")));
    refresh();
    b.wait_for("bytes", |_| cached() > 0);
    let huge = vec![0; crate::MAX_FRAME_BYTES + 1];
    assert_eq!(track.write(frame(&huge)), Outcome::Dropped(DropReason::TooLarge));
    b.wait_for("request", |e| {
        e.iter().any(|e| matches!(e, Event::KeyframeRequest { reason: KeyframeReason::Dropped, .. }))
    });
    refresh();
    b.wait_for("no bytes", |_| cached() == 0);
}
