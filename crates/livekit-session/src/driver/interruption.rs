// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interruptions that a stay in the room survives: the tracks stay published, and what the path does not carry is not
//! sent.

use std::time::{Duration, Instant};

use super::Driver;
use super::congestion::Congestion;
use crate::engine::MediaEngine;
use crate::event::{ConnectionState, Event, KeyframeReason, TrackId};

/// Where the estimate starts on a path that is new, or that was gone, in bit/s. The one of before says nothing of it,
/// and what the estimator made of the silence even less.
const ESTIMATE: u64 = 2_500_000;

impl Driver {
    /// What is sent does not arrive: frames are dropped and counted until it does.
    pub(super) fn path_lost(&mut self) {
        self.path_lost = true;
        self.set_state(ConnectionState::Reconnecting);
        self.shared.status().offline(Instant::now());
        for track in self.tracks.values_mut() {
            track.suspend();
        }
        self.publish_stats();
    }

    /// What is sent arrives again: every picture begins with a keyframe.
    pub(super) fn path_back<E: MediaEngine>(&mut self, engine: &mut E) {
        if !std::mem::replace(&mut self.path_lost, false) {
            return;
        }
        let lasted = self.shared.status().online(Instant::now());
        self.interrupted += lasted;
        // What waits to be sent again is of the time before.
        engine.drop_retransmissions();
        self.congestion = Congestion::default();
        engine.reset_estimate(ESTIMATE);
        let back: Vec<TrackId> =
            self.tracks.iter().filter(|(_, t)| t.sid.is_some()).map(|(id, _)| *id).collect();
        for id in back {
            let Some(track) = self.tracks.get_mut(&id) else { continue };
            // One that still waits for its first subscriber starts by itself.
            if track.primed.is_some() {
                continue;
            }
            // What was asked for in the last moments was answered into the void.
            for layer in &mut track.layers {
                layer.keyframes.forget_requests();
            }
            track.go_live();
            let layers = track.layers.len();
            for layer in 0..layers {
                self.want_keyframe(id, layer, KeyframeReason::Start);
            }
        }
        self.publish_stats();
    }

    /// Signalling, and with it everything, is as it was.
    pub(super) fn resumed(&mut self) {
        self.shared.status().stats.resumes += 1;
        self.set_state(ConnectionState::Connected);
        let interrupted = std::mem::replace(&mut self.interrupted, Duration::ZERO);
        self.emit(Event::Resumed { interrupted });
    }
}
