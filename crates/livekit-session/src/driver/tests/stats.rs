// SPDX-License-Identifier: MIT OR Apache-2.0

//! Figures of tracks over several stays.

use super::*;
use crate::engine::{EngineTrackStats, TransportStats};
use crate::stats::TrackStats;

/// The engine reports these figures of the track's only layer.
fn report(b: &Bench, track: &crate::session::Track, stats: EngineTrackStats) {
    b.script.say(EngineEvent::TrackStats { track: track.id(), layer: 0, stats });
    b.script.say(EngineEvent::TransportStats(TransportStats::default()));
}

fn wait_for_stats(b: &Bench, what: &str, pred: impl Fn(&TrackStats) -> bool) -> TrackStats {
    let first = || b.session.stats().tracks.first().cloned();
    b.wait_for(what, |_| first().is_some_and(|stats| pred(&stats)));
    first().unwrap()
}

#[test]
fn counts_go_on_in_the_next_room_and_what_was_said_of_the_last_one_is_forgotten() {
    let lost = Error::SignalClosed("eof".into());
    let b = bench("figures", None, vec![Join::LoseAfter(1, lost), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    let (rtt, jitter) = (Some(Duration::from_millis(30)), Some(Duration::from_millis(2)));
    let first = EngineTrackStats {
        packets: 50,
        retransmits: 5,
        rtx_packets: 9,
        rtx_bytes: 900,
        pli: 2,
        fir: 1,
        nack: 3,
        rtt,
        jitter,
        loss: Some(0.5),
        lost: 4,
        ..Default::default()
    };
    report(&b, &track, first);
    let told = wait_for_stats(&b, "the first figures", |stats| stats.nack == 3);
    assert_eq!((told.pli, told.fir, told.packets_sent, told.packets_lost), (2, 1, 50, 4));
    assert_eq!((told.retransmits, told.rtx_packets, told.rtx_bytes), (5, 9, 900));
    assert_eq!((told.rtt, told.jitter, told.loss), (rtt, jitter, Some(0.5)));
    let _ = track.write(frame(&[1]));
    b.wait_for("the next room", published(2));
    let told = wait_for_stats(&b, "nothing said yet", |stats| stats.loss.is_none());
    assert_eq!((told.rtt, told.jitter, told.packets_sent), (None, None, 0));
    report(
        &b,
        &track,
        EngineTrackStats {
            packets: 7,
            retransmits: 1,
            rtx_packets: 2,
            rtx_bytes: 200,
            nack: 1,
            lost: 1,
            ..Default::default()
        },
    );
    let told = wait_for_stats(&b, "the next figures", |stats| stats.packets_sent == 7);
    assert_eq!((told.pli, told.fir, told.nack, told.packets_lost), (2, 1, 4, 5));
    assert_eq!((told.retransmits, told.rtx_packets, told.rtx_bytes), (6, 11, 1100));
}

#[test]
fn how_long_frames_wait_for_the_network_is_told_of_the_last_reports_only() {
    let b = bench("waiting", None, vec![Join::Congested]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    b.script.stuck.store(true, Ordering::SeqCst);
    let _ = track.write(idr());
    // The statistics are taken when the engine reports. One report at a time: each that is heard after the frame has
    // left takes something away from what is told of it.
    let heard = || b.script.says.lock().unwrap().is_empty();
    b.wait_for("the frame in the queue", |_| {
        if heard() {
            report(&b, &track, EngineTrackStats::default());
        }
        b.session.stats().tracks[0].queued_bytes > 0
    });
    b.wait_for("the reports to be heard", |_| heard());
    let wait = Duration::from_millis(30);
    std::thread::sleep(wait);
    b.script.stuck.store(false, Ordering::SeqCst);
    b.wait_for_writes(1);
    let pacer = Duration::from_secs(5);
    report(&b, &track, EngineTrackStats { queue_time: pacer, ..Default::default() });
    let told = wait_for_stats(&b, "the time", |stats| stats.queue_time >= pacer);
    assert!(told.queue_time >= pacer + wait, "{:?}: in the queue and in the pacer", told.queue_time);
    report(&b, &track, EngineTrackStats::default());
    wait_for_stats(&b, "nothing that waits", |stats| stats.queue_time.is_zero());
}

#[test]
fn the_bitrate_that_the_encoder_was_told_is_among_the_figures() {
    let b = bench("told", None, vec![Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(b.session.stats().tracks[0].target_bitrate, None);
    track.set_muted(true);
    b.wait_for("the pause", |e| e.iter().any(|e| matches!(e, Event::Target { .. })));
    report(&b, &track, EngineTrackStats::default());
    wait_for_stats(&b, "a target of nothing", |stats| stats.target_bitrate == Some(0));
}
