// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests for keyframes: what becomes of them, and the answers that are ours to give.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tracing::debug;

use super::track::TrackState;
use super::{Driver, TIMELINE_LEAD};
use crate::config::Codec;
use crate::congestion::{REPLAY_PATIENCE, SKEW_PERIOD};
use crate::engine::MediaEngine;
use crate::error::Error;
use crate::event::{Event, KeyframeReason, TrackId};
use crate::frame::{DropReason, Frame};
use crate::gop_cache::{
    GopCache, GopCacheConfig, GopCacheMode, GopTooLong, LastSent, Link, ReplayThrottle, Verdict,
};
use crate::keyframe::{KeyframeGate, KeyframeStats};

/// A replay takes at most this much of the time up to the next live frame: receivers show pictures at the
/// distance of their times, and are to run through these at once.
const LONGEST_SPAN: Duration = Duration::from_millis(20);

/// The keyframes of one layer.
pub(super) struct Keyframes {
    codec: Codec,
    pub(super) gate: KeyframeGate,
    config: GopCacheConfig,
    cache: GopCache,
    throttle: ReplayThrottle,
    /// The frame that was sent (or, outside the room, kept) last, and when.
    last: Option<(LastSent, Instant)>,
    /// When somebody else asked for a keyframe last.
    asked: Option<Instant>,
    /// A request that was folded was reported since the last one that was forwarded.
    told_folded: bool,
    /// An encoder that ignores requests was reported.
    told_ignored: bool,
    /// A group of pictures that does not fit was reported.
    told_too_long: bool,
}

impl Keyframes {
    pub(super) fn new(codec: Codec, min_interval: Duration) -> Self {
        let config = GopCacheConfig::default();
        Self {
            codec,
            gate: KeyframeGate::new(min_interval),
            config,
            cache: GopCache::new(&config),
            throttle: ReplayThrottle::new(min_interval),
            last: None,
            asked: None,
            told_folded: false,
            told_ignored: false,
            told_too_long: false,
        }
    }

    /// Whether requests are answered from the cache.
    pub(super) fn caching(&self) -> bool {
        match self.config.mode {
            GopCacheMode::On => true,
            GopCacheMode::Auto => self.gate.ignores(),
            GopCacheMode::Off => false,
        }
    }

    /// Whether a viewer may be about to begin with this layer.
    pub(super) fn is_asked_for(&self, now: Instant) -> bool {
        self.asked.is_some_and(|at| now.saturating_duration_since(at) < SKEW_PERIOD)
    }

    pub(super) fn configure(&mut self, config: GopCacheConfig) {
        self.config = config;
        self.cache.set_limits(&config);
        if !self.caching() {
            self.cache.clear();
        }
    }

    /// A frame is to be sent: gives it back with a time behind everything that was sent before.
    pub(super) fn pass(&mut self, frame: Frame, keyframe: bool, now: Instant) -> (Frame, Option<GopTooLong>) {
        let frame = match &self.last {
            Some((last, _)) => last.before(self.codec, frame),
            None => frame,
        };
        if keyframe {
            self.gate.keyframe(now);
            if self.gate.first_viewer().is_none() {
                self.throttle.keyframe();
            }
        } else {
            self.gate.frame();
        }
        let too_long = self.keep(&frame, keyframe, now);
        (frame, too_long)
    }

    /// Notes a frame for a replay.
    pub(super) fn keep(&mut self, frame: &Frame, keyframe: bool, now: Instant) -> Option<GopTooLong> {
        let last = LastSent { media_time: frame.media_time, captured_at: frame.captured_at };
        self.last = Some((last, now));
        if !self.caching() {
            return None;
        }
        let too_long = self.cache.push(frame, keyframe).err()?;
        (!std::mem::replace(&mut self.told_too_long, true)).then_some(too_long)
    }

    /// A frame was not sent: the rest of its group of pictures can't be decoded.
    pub(super) fn lost(&mut self) {
        self.cache.clear();
    }

    /// Whoever asked is gone. What the source has made stays: what is sent next can begin with it.
    pub(super) fn forget_requests(&mut self) {
        self.gate.reset();
        self.throttle = ReplayThrottle::new(self.throttle.min_interval());
        self.told_folded = false;
    }

    /// Whether a stay can begin with what is kept.
    pub(super) fn can_resume(&self) -> bool {
        self.caching() && self.cache.len() > 0
    }

    /// Somebody wants a keyframe: whether the encoder is to be asked now, and whether to report it.
    fn request(&mut self, reason: KeyframeReason, now: Instant) -> (bool, bool) {
        let forward = self.gate.request(now, reason);
        let told = std::mem::replace(&mut self.told_folded, !forward);
        (forward, forward || !told)
    }

    /// What is to be sent again now for whoever wants a keyframe, and how long that may take.
    fn replay(&mut self, link: &Link, now: Instant) -> Option<(Vec<Frame>, Duration)> {
        if !self.can_resume() {
            return None;
        }
        let (last, at) = self.last?;
        if let Some(ready) = self.gate.first_viewer() {
            self.throttle.put_off(ready);
            return None;
        }
        let Verdict::Replay(takes) = self.throttle.request(now, &self.cache, link) else { return None };
        let span = now.saturating_duration_since(at).min(LONGEST_SPAN);
        let frames = self.cache.replay(self.codec, &last, span, (now, SystemTime::now()));
        if let Some(end) = frames.last() {
            // The next live frame comes after these.
            self.last = Some((LastSent { media_time: end.media_time, captured_at: end.captured_at }, at));
        }
        self.gate.replayed(frames.len());
        Some((frames, takes))
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.gate.poll_at().into_iter().chain(self.throttle.poll_at()).min()
    }

    pub(super) fn stats(&self) -> KeyframeStats {
        let mut stats = self.gate.stats();
        stats.cached_bytes = self.cache.bytes() as u64;
        stats
    }
}

impl Driver {
    /// Somebody wants a keyframe of a layer.
    pub(super) fn want_keyframe(&mut self, id: TrackId, index: usize, reason: KeyframeReason) {
        let Some(layer) = self.video_layer(id, index) else { return };
        if reason != KeyframeReason::Dropped {
            layer.asked = Some(Instant::now());
        } else {
            // Whatever made us drop frames would not let a replay through either.
            layer.lost();
        }
        let (forward, report) = layer.request(reason, Instant::now());
        debug!(?id, index, ?reason, forward, "a keyframe is wanted");
        if layer.can_resume() {
            self.replays.push((id, index));
        }
        if report {
            self.emit(Event::KeyframeRequest { track: id, layer: index, reason, forward });
        }
    }

    /// What is due of requests that came too early, and of encoders that do not answer.
    pub(super) fn poll_keyframes(&mut self, now: Instant) {
        let mut events = Vec::new();
        for (id, track) in &mut self.tracks {
            let layers = track.layers.iter_mut().zip(&track.shared.layers);
            for (index, (layer, shared)) in layers.enumerate() {
                let keyframes = &mut layer.keyframes;
                if let Some(reason) = keyframes.gate.poll(now) {
                    keyframes.told_folded = false;
                    events.push(Event::KeyframeRequest { track: *id, layer: index, reason, forward: true });
                }
                if keyframes.gate.ignores() && !std::mem::replace(&mut keyframes.told_ignored, true) {
                    shared.keep.store(keyframes.caching(), Ordering::Release);
                    events.push(Event::KeyframesIgnored { track: *id, layer: index });
                }
                if keyframes.throttle.poll_at().is_some_and(|at| now >= at) {
                    self.replays.push((*id, index));
                }
            }
        }
        for event in events {
            self.emit(event);
        }
    }

    /// Sends the current groups of pictures of layers again for which that was asked, if they are kept and the link
    /// can take it.
    pub(super) fn send_replays<E: MediaEngine>(&mut self, engine: &mut E) -> Result<(), Error> {
        while let Some((id, index)) = self.replays.pop() {
            let link =
                Link { rate: self.told_estimate.unwrap_or_default(), queue_age: engine.queue_age(id, index) };
            // What waits has older times than what would be sent again.
            let may = |t: &TrackState| t.is_live() && t.layers.get(index).is_some_and(|l| l.queue.is_empty());
            let may = self.tracks.get(&id).is_some_and(may);
            let Some(layer) = self.video_layer(id, index).filter(|_| may) else { continue };
            let Some((frames, takes)) = layer.replay(&link, Instant::now()) else { continue };
            let count = frames.len();
            if let Some(layer) = self.tracks.get_mut(&id).and_then(|t| t.layers.get_mut(index)) {
                layer.queue.wait_until(Instant::now() + takes * 2 + REPLAY_PATIENCE);
            }
            debug!(?id, index, count, ?takes, "the group of pictures is sent again");
            for frame in &frames {
                engine.write(id, index, frame)?;
            }
            self.emit(Event::GopReplayed { track: id, layer: index, frames: count, takes });
        }
        Ok(())
    }

    /// A frame that was not to be sent when it was written, but may be now.
    pub(super) fn kept<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        id: TrackId,
        index: usize,
        frame: Frame,
        keyframe: bool,
    ) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(&id) else { return Ok(()) };
        let live = track.is_live();
        let Some((layer, shared)) = track.layer_mut(index) else { return Ok(()) };
        // What is sent goes on from what is kept, in one piece.
        if live && shared.paused().is_none() && (keyframe || layer.keyframes.can_resume()) {
            return self.frame(engine, id, index, frame, keyframe);
        }
        shared.handed_over(frame.data.len());
        track.keep(index, frame, keyframe);
        Ok(())
    }

    pub(super) fn set_gop_cache(&mut self, id: TrackId, index: usize, config: GopCacheConfig) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        if let Some(layer) = track.layers.get_mut(index) {
            layer.keyframes.configure(config);
        }
        track.share_caching();
    }

    /// Of what is kept a frame is missing.
    pub(super) fn lost_kept(&mut self, id: TrackId, index: usize) {
        if let Some((layer, shared)) = self.tracks.get_mut(&id).and_then(|t| t.layer_mut(index)) {
            layer.keyframes.lost();
            shared.need_keyframe.store(true, Ordering::Release);
        }
    }

    fn video_layer(&mut self, id: TrackId, index: usize) -> Option<&mut Keyframes> {
        let track = self.tracks.get_mut(&id).filter(|track| track.is_video())?;
        Some(&mut track.layers.get_mut(index)?.keyframes)
    }
}

impl TrackState {
    /// Tells the writers whether frames are wanted outside the room too.
    pub(super) fn share_caching(&self) {
        for (layer, shared) in self.layers.iter().zip(&self.shared.layers) {
            shared.keep.store(layer.keyframes.caching(), Ordering::Release);
        }
    }

    /// A frame of a layer came outside the room.
    pub(super) fn keep(&mut self, index: usize, frame: Frame, keyframe: bool) {
        if let Some((layer, shared)) = self.layer_mut(index)
            && shared.paused() != Some(DropReason::Muted)
        {
            layer.keyframes.keep(&frame.later(TIMELINE_LEAD), keyframe, Instant::now());
        }
    }
}
