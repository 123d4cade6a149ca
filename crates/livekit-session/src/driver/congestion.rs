// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the driver does about the network: passes frames on as fast as it takes them, and tells encoders how much
//! to make. The decisions are [`crate::congestion`]'s.

use std::time::{Duration, Instant};

use tracing::debug;

use super::Driver;
use super::track::{LayerState, TrackState};
use crate::config::LayerConfig;
use crate::congestion::{
    Allocator, Controller, Dropped, ENGINE_QUEUE, KEYFRAME_LEAD, LayerDemand, PACING_FACTOR, Sample, Share,
    TrackDemand, lead,
};
use crate::engine::MediaEngine;
use crate::error::Error;
use crate::event::{Event, KeyframeReason, Target, TargetReason, TrackId};
use crate::frame::{DropReason, Frame};

/// What audio is taken to need until it was measured, in bit/s.
const AUDIO_BITRATE: u64 = 64_000;
/// What the engine may be given before it has shown an estimate, in bit/s.
const FIRST_ESTIMATE: u64 = 6_000_000;
/// Over this time the bitrate of a layer is measured.
const METER_WINDOW: Duration = Duration::from_secs(1);
/// The engine is not asked more often than this whether it has room.
const MIN_FEED_PAUSE: Duration = Duration::from_millis(2);
const MAX_FEED_PAUSE: Duration = Duration::from_millis(20);

/// The state of one stay in a room.
#[derive(Debug, Default)]
pub(super) struct Congestion {
    controller: Controller,
    allocator: Allocator,
    estimate: Option<u64>,
    /// Nothing is sent until then: the network's queue has to become empty.
    hold: Option<Instant>,
    /// When to ask for keyframes, so that they are there when the hold ends.
    keyframe_at: Option<Instant>,
    /// When the engine may have room for more.
    feed_at: Option<Instant>,
}

/// What a layer's encoder makes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    since: Option<Instant>,
    bytes: u64,
    last: Option<u32>,
    /// The most in any window.
    peak: u32,
}

impl Congestion {
    /// A track is gone.
    pub(super) fn forget(&mut self, track: TrackId) {
        self.allocator.forget(track);
    }
}

impl Meter {
    fn add(&mut self, now: Instant, bytes: usize) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= METER_WINDOW {
            let rate = (self.bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u32;
            self.last = Some(rate);
            self.peak = self.peak.max(rate);
            (self.since, self.bytes) = (Some(now), 0);
        }
        self.bytes += bytes as u64;
    }
}

impl TrackState {
    fn demand(&self, id: TrackId) -> TrackDemand {
        let layer = |(index, (state, config)): (usize, (&LayerState, &LayerConfig))| LayerDemand {
            min: config.min_bitrate,
            start: config.start_bitrate,
            max: config.max_bitrate,
            observed: state.meter.peak,
            wanted: self.activity.idle(index).is_none(),
            replays: state.keyframes.caching(),
        };
        let layers = self.layers.iter().zip(&self.config.layers).enumerate().map(layer).collect();
        TrackDemand { track: id, priority: self.config.priority, layers }
    }

    /// How long a frame has to wait for those of layers that a viewer may be about to change to.
    fn lead(&self, index: usize, now: Instant, captured_at: Instant) -> Duration {
        // What is sent again goes by times of its own.
        if self.layers.len() < 2 || self.layers.iter().any(|layer| layer.keyframes.caching()) {
            return Duration::ZERO;
        }
        let others = self.layers.iter().enumerate().filter(|(i, layer)| {
            *i != index && layer.keyframes.is_asked_for(now) && self.activity.idle(*i).is_none()
        });
        let latest = others.filter_map(|(_, layer)| layer.lateness.most(now)).max();
        latest.map_or(Duration::ZERO, |other| lead(now.saturating_duration_since(captured_at), other))
    }

    /// When frames that wait have become too old.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.layers.iter().filter_map(|layer| layer.queue.expires_at()).min()
    }
}

impl Driver {
    /// When [`Self::feed`] has something to do.
    pub(super) fn feed_at(&self) -> Option<Instant> {
        self.tracks
            .values()
            .filter_map(TrackState::expires_at)
            .chain(self.congestion.feed_at)
            .chain(self.congestion.keyframe_at)
            .min()
    }

    /// A frame for the engine, now or as soon as it has room.
    pub(super) fn send<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        id: TrackId,
        index: usize,
        frame: Frame,
        keyframe: bool,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let Some(track) = self.tracks.get_mut(&id) else { return Ok(()) };
        let video = track.is_video();
        let Some((layer, shared)) = track.layer_mut(index) else { return Ok(()) };
        let bytes = frame.data.len();
        layer.meter.add(now, bytes);
        if !video {
            return engine.write(id, index, &frame);
        }
        if layer.congested {
            layer.keyframes.lost();
            shared.counters.retract(1, u64::from(keyframe), bytes as u64, DropReason::QueueFull);
            return Ok(());
        }
        layer.lateness.note(now, frame.captured_at);
        let due = now + track.lead(index, now, frame.captured_at);
        let Some(layer) = track.layers.get_mut(index) else { return Ok(()) };
        let dropped = layer.queue.push_due(now, due, frame, bytes, keyframe);
        self.dropped(id, index, dropped);
        self.feed(engine)
    }

    /// Gives the engine what it can take, and drops what has waited too long.
    pub(super) fn feed<E: MediaEngine>(&mut self, engine: &mut E) -> Result<(), Error> {
        let now = Instant::now();
        self.congestion.feed_at = None;
        let waiting: Vec<_> = self.waiting();
        for (id, index) in waiting {
            let layer = self.tracks.get_mut(&id).and_then(|t| t.layers.get_mut(index));
            let dropped = layer.map(|layer| layer.queue.expire(now)).unwrap_or_default();
            self.dropped(id, index, dropped);
        }
        self.want_due_keyframes(now);
        if let Some(hold) = self.congestion.hold {
            if now < hold {
                self.congestion.feed_at = Some(hold);
                return Ok(());
            }
            self.congestion.hold = None;
        }
        let rate = self.congestion.estimate.unwrap_or(FIRST_ESTIMATE) as f64 * PACING_FACTOR / 8.0;
        let room = rate * ENGINE_QUEUE.as_secs_f64();
        while let Some((since, id, index)) = self.oldest() {
            if since > now {
                self.congestion.feed_at = Some(since);
                return Ok(());
            }
            let queued = engine.queued_bytes() as f64;
            if queued >= room {
                let pause = Duration::from_secs_f64(((queued - room) / rate.max(1.0)).clamp(0.0, 1.0));
                self.congestion.feed_at = Some(now + pause.clamp(MIN_FEED_PAUSE, MAX_FEED_PAUSE));
                return Ok(());
            }
            self.pass_on(engine, id, index)?;
        }
        Ok(())
    }

    /// Asks for the keyframes that the end of a hold needs. (One that was asked for earlier would have the bitrate of
    /// before, and be dropped should the hold end in panic; and the next would come too soon after it.)
    fn want_due_keyframes(&mut self, now: Instant) {
        let Some(mut at) = self.congestion.keyframe_at else { return };
        if let Some(hold) = self.congestion.hold {
            at = at.max(hold.checked_sub(KEYFRAME_LEAD).unwrap_or(hold));
        }
        self.congestion.keyframe_at = Some(at).filter(|at| now < *at);
        if self.congestion.keyframe_at.is_some() {
            return;
        }
        for (id, index) in self.video_layers() {
            let layer = self.tracks.get(&id).and_then(|t| t.layers.get(index));
            if layer.is_some_and(|layer| layer.queue.is_dropping() && !layer.congested) {
                self.want_keyframe(id, index, KeyframeReason::Dropped);
            }
        }
    }

    /// Gives the engine all of a track that waits: nothing else will come.
    pub(super) fn flush<E: MediaEngine>(&mut self, engine: &mut E, id: TrackId) -> Result<(), Error> {
        let layers = self.tracks.get(&id).map_or(0, |t| t.layers.len());
        for index in 0..layers {
            while self.pass_on(engine, id, index)? {}
        }
        Ok(())
    }

    fn pass_on<E: MediaEngine>(&mut self, engine: &mut E, id: TrackId, index: usize) -> Result<bool, Error> {
        let Some(layer) = self.tracks.get_mut(&id).and_then(|t| t.layers.get_mut(index)) else {
            return Ok(false);
        };
        let waited = layer.queue.oldest().map(|since| since.elapsed()).unwrap_or_default();
        let Some(frame) = layer.queue.pop() else { return Ok(false) };
        layer.waited.0 = layer.waited.0.max(waited);
        engine.write(id, index, &frame)?;
        Ok(true)
    }

    /// Whether frames wait for the engine.
    pub(super) fn is_waiting(&self) -> bool {
        self.tracks.values().any(|t| t.layers.iter().any(|l| !l.queue.is_empty()))
    }

    fn waiting(&self) -> Vec<(TrackId, usize)> {
        let layers = |(id, track): (&TrackId, &TrackState)| {
            let id = *id;
            let waits = track.layers.iter().enumerate().filter(|(_, l)| !l.queue.is_empty());
            waits.map(move |(index, _)| (id, index)).collect::<Vec<_>>()
        };
        self.tracks.iter().flat_map(layers).collect()
    }

    /// The layer whose next frame has waited longest, and since when.
    fn oldest(&self) -> Option<(Instant, TrackId, usize)> {
        let since = |id: TrackId, track: &TrackState| {
            let since = track.layers.iter().enumerate().filter_map(|(i, l)| Some((l.queue.oldest()?, i)));
            since.min().map(|(at, index)| (at, id, index))
        };
        self.tracks.iter().filter_map(|(id, track)| since(*id, track)).min()
    }

    /// Counts what was dropped, and asks for a keyframe if it is time to.
    fn dropped(&mut self, id: TrackId, index: usize, dropped: Dropped) {
        if dropped == Dropped::default() {
            return;
        }
        if let Some((layer, shared)) = self.tracks.get_mut(&id).and_then(|t| t.layer_mut(index)) {
            if dropped.open {
                layer.keyframes.lost();
            }
            shared.counters.retract(dropped.frames, dropped.keyframes, dropped.bytes, DropReason::QueueFull);
        }
        match self.congestion.hold {
            _ if !dropped.want_keyframe => {}
            Some(hold) if Instant::now() < hold => {
                self.congestion.keyframe_at.get_or_insert_with(Instant::now);
            }
            _ => self.want_keyframe(id, index, KeyframeReason::Dropped),
        }
    }

    /// A look at the network: adapts what goes out.
    pub(super) fn on_network<E: MediaEngine>(&mut self, engine: &mut E, sample: Sample) -> Result<(), Error> {
        let now = Instant::now();
        let tracks = self.demands();
        self.congestion.estimate = sample.estimate.or(self.congestion.estimate);
        if tracks.is_empty() {
            return Ok(());
        }
        let demand = Allocator::demand(&tracks, self.audio_bitrate());
        let decision = self.congestion.controller.sample(now, sample, demand);

        if let Some(desired) = decision.desired {
            engine.set_desired_bitrate(desired);
        }
        if let Some(hold) = decision.hold {
            debug!(?sample, ?decision, "holding back");
            self.congestion.hold = Some(hold);
        }
        if decision.forget {
            engine.drop_retransmissions();
        }
        if decision.panic {
            for (id, index) in self.video_layers() {
                let layer = self.tracks.get_mut(&id).and_then(|t| t.layers.get_mut(index));
                let dropped = layer.map(|layer| layer.queue.clear(now)).unwrap_or_default();
                self.dropped(id, index, dropped);
            }
            self.congestion.keyframe_at = Some(now);
        }
        if let Some(init) = decision.reset {
            debug!(init, "the bandwidth estimator starts anew");
            self.congestion.estimate = Some(init);
            engine.reset_estimate(init);
        }
        self.share(now, decision.video, &tracks);
        self.feed(engine)
    }

    /// Tells the encoders what changed for them.
    fn share(&mut self, now: Instant, total: Option<u64>, tracks: &[TrackDemand]) {
        let shares = self.congestion.allocator.allocate(now, total, tracks);
        let mut events = Vec::new();
        for (track, shares) in tracks.iter().zip(shares) {
            for (index, share) in shares.into_iter().enumerate() {
                let state = self.tracks.get_mut(&track.track);
                let Some(layer) = state.and_then(|t| t.layers.get_mut(index)) else { continue };
                if let Some(target) = layer.target(share, total.is_none()) {
                    events.push((track.track, index, target));
                }
            }
        }
        for (id, index, target) in events {
            debug!(?id, index, ?target, "target");
            let layer = self.tracks.get_mut(&id).and_then(|t| t.layers.get_mut(index));
            let (mut resumed, mut dropped) = (false, Dropped::default());
            if let Some(layer) = layer {
                resumed = std::mem::replace(&mut layer.congested, !target.active) && target.active;
                if !target.active {
                    dropped = layer.queue.clear(now);
                }
            }
            self.dropped(id, index, dropped);
            self.emit(Event::Target { track: id, layer: index, target });
            if resumed {
                self.want_keyframe(id, index, KeyframeReason::Dropped);
            }
        }
    }

    /// The tracks of video that are sent.
    fn demands(&self) -> Vec<TrackDemand> {
        let sent = self.tracks.iter().filter(|(_, t)| t.is_video() && t.is_live());
        sent.map(|(id, track)| track.demand(*id)).collect()
    }

    fn video_layers(&self) -> Vec<(TrackId, usize)> {
        let sent = self.tracks.iter().filter(|(_, t)| t.is_video() && t.is_live() && t.has_sent());
        sent.flat_map(|(id, t)| (0..t.layers.len()).map(move |index| (*id, index))).collect()
    }

    fn audio_bitrate(&self) -> u64 {
        let sent = self.tracks.values().filter(|t| !t.is_video() && t.is_live() && !t.config.muted);
        let layers = sent.flat_map(|t| &t.layers);
        layers.map(|l| l.meter.last.map_or(AUDIO_BITRATE, u64::from)).sum()
    }
}

impl LayerState {
    /// What the encoder is to be told of its share, unless it knows.
    fn target(&mut self, share: Share, starting: bool) -> Option<Target> {
        let target = match share {
            // Whoever knows why nobody wants it tells the encoder, and that it has to begin anew.
            Share::Idle => {
                self.told = None;
                self.congested = false;
                return None;
            }
            Share::Unlimited => return None,
            Share::Paused => {
                let bitrate = self.told.map_or(0, |told| told.bitrate);
                Target { bitrate, active: false, reason: TargetReason::Congestion }
            }
            Share::Bitrate(bitrate) => {
                let reason = match (self.congested, starting) {
                    (true, _) => TargetReason::Resumed,
                    (false, true) => TargetReason::Start,
                    (false, false) => TargetReason::Estimate,
                };
                Target { bitrate, active: true, reason }
            }
        };
        let known = |told: Target| (told.active, told.bitrate) == (target.active, target.bitrate);
        if self.told.is_some_and(known) {
            return None;
        }
        self.told = Some(target);
        Some(target)
    }
}
