// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time in the room: commands of the handles, events of the engine, timers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::track::{Primed, TrackState};
use super::{DRAIN_BUDGET, Driver, ESTIMATE_STEP, LINGER, TIMELINE_LEAD, until};
use crate::engine::{EngineEvent, MediaEngine};
use crate::error::Error;
use crate::event::{ConnectionState, Event, KeyframeReason, TrackId};
use crate::frame::Frame;
use crate::keyframe::SUBSCRIBER_SETUP;
use crate::session::Command;

impl Driver {
    /// Runs until the caller wants to leave (`Ok`) or the connection is over.
    pub(super) async fn in_room<E: MediaEngine>(&mut self, engine: &mut E) -> Result<(), Error> {
        loop {
            let closing = self.closing.iter().map(|(_, at)| *at);
            let timer =
                self.tracks.values().filter_map(TrackState::due).chain(closing).chain(self.feed_at()).min();
            // Not biased: a flood of frames must not keep the network waiting.
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Leave) | None => return Ok(()),
                    Some(command) => self.command(engine, command)?,
                },
                event = engine.next() => self.on_engine_event(engine, event?)?,
                () = until(timer) => self.on_timer(engine)?,
            }
            self.send_replays(engine)?;
        }
    }

    fn command<E: MediaEngine>(&mut self, engine: &mut E, command: Command) -> Result<(), Error> {
        match command {
            Command::AddTrack(id, config, shared) => {
                engine.publish(id, &config);
                self.add_track(id, config, shared);
            }
            Command::CloseTrack(id) => {
                self.flush(engine, id)?;
                self.congestion.forget(id);
                let sent = self.tracks.remove(&id).is_some_and(|t| t.has_sent());
                match sent {
                    true => self.closing.push((id, Instant::now() + LINGER)),
                    false => engine.unpublish(id),
                }
                self.publish_stats();
            }
            Command::Frame(id, layer, frame, keyframe) => self.frame(engine, id, layer, frame, keyframe)?,
            Command::Prime(id, layer, frame) => self.keep_prime(id, layer, frame),
            Command::Keep(id, layer, frame, keyframe) => self.kept(engine, id, layer, frame, keyframe)?,
            Command::WantKeyframe(id, layer, reason) => self.want_keyframe(id, layer, reason),
            Command::SetGopCache(id, layer, config) => self.set_gop_cache(id, layer, config),
            Command::LostKept(id, layer) => {
                self.lost_kept(id, layer);
                self.want_keyframe(id, layer, KeyframeReason::Dropped);
            }
            Command::SetMuted(id, muted) => {
                engine.set_muted(id, muted);
                self.set_muted(id, muted, false);
            }
            Command::Data => self.send_data(engine),
            Command::Describe(description) => {
                let change = self.take_description(description);
                if !change.is_empty() {
                    engine.describe(&change);
                }
            }
            Command::Leave => {}
        }
        Ok(())
    }

    pub(super) fn frame<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        id: TrackId,
        index: usize,
        frame: Frame,
        keyframe: bool,
    ) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(&id) else { return Ok(()) };
        let video = track.is_video();
        let now = Instant::now();
        let live = track.is_live();
        let Some((layer, shared)) = track.layer_mut(index) else { return Ok(()) };
        let bytes = frame.data.len();
        shared.handed_over(bytes);
        let paused = shared.paused();
        if let Some(reason) = paused.filter(|_| live) {
            // Was on its way when the layer was paused.
            shared.counters.retract(1, u64::from(keyframe), bytes as u64, reason);
        }
        if !live || paused.is_some() {
            track.keep(index, frame, keyframe);
            return Ok(());
        }
        layer.first_frame.get_or_insert_with(|| self.started.elapsed());
        let frame = frame.later(TIMELINE_LEAD);
        let (frame, too_long) = match video {
            true => layer.keyframes.pass(frame, keyframe, now),
            false => (frame, None),
        };
        if video {
            track.activity.frame(index, now);
        }
        if let Some(bound) = too_long {
            self.emit(Event::GopTooLong { track: id, layer: index, bound });
        }
        self.send(engine, id, index, frame, keyframe)
    }

    /// The server wants a keyframe of a layer.
    fn keyframe_requested(&mut self, id: TrackId, index: usize, reason: KeyframeReason) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.activity.keyframe_requested(index, Instant::now());
        }
        self.follow_activity(id);
        let idle = self.tracks.get(&id).and_then(|t| t.activity.idle(index));
        if idle.is_none() {
            self.want_keyframe(id, index, reason);
        }
    }

    fn on_timer<E: MediaEngine>(&mut self, engine: &mut E) -> Result<(), Error> {
        let now = Instant::now();
        if self.feed_at().is_some_and(|at| now >= at) {
            self.feed(engine)?;
        }
        for (id, _) in self.closing.extract_if(.., |(_, at)| now >= *at) {
            engine.unpublish(id);
        }
        let over = |t: &TrackState| t.primed.as_ref().is_some_and(|p| now >= p.until);
        let ready = self.tracks.iter_mut().filter(|(_, t)| over(t));
        let ready: Vec<_> = ready.filter_map(|(id, t)| Some((*id, t.primed.take()?.published))).collect();
        for (id, published) in ready {
            // No request upstream: the stream's first frame is a keyframe. Should it not be one, the track asks.
            self.start(id, published);
        }
        let quiet = |t: &TrackState| t.activity.poll_at().is_some_and(|at| now >= at);
        let quiet: Vec<_> = self.tracks.iter().filter(|(_, t)| quiet(t)).map(|(id, _)| *id).collect();
        for id in quiet {
            self.follow_activity(id);
        }
        self.poll_keyframes(now);
        Ok(())
    }

    /// Frames of the track go out from now on.
    fn start(&mut self, id: TrackId, published: Event) {
        if let Some(track) = self.tracks.get(&id).filter(|_| !self.path_lost) {
            track.go_live();
            self.shared.status().online(Instant::now());
        }
        self.emit(published);
        self.publish_stats();
    }

    fn on_engine_event<E: MediaEngine>(&mut self, engine: &mut E, event: EngineEvent) -> Result<(), Error> {
        match event {
            EngineEvent::Published { track, sid, name, mime_type } => {
                let Some(state) = self.tracks.get_mut(&track) else {
                    engine.unpublish(track);
                    return Ok(());
                };
                state.sid = Some(sid.clone());
                state.activity.published();
                self.media_up = true;
                self.follow_activity(track);
                let Some(state) = self.tracks.get_mut(&track) else { return Ok(()) };
                let published = Event::Published { track, sid, name, mime_type };
                self.up_since.get_or_insert_with(Instant::now);
                let in_time = !state.shared.missed_start.load(Ordering::Acquire);
                let ahead = in_time && self.participants > 0 && !state.activity.is_muted();
                let primes: Vec<_> = state.layers.iter_mut().map(|layer| layer.prime.take()).collect();
                let layers = state.layers.len();
                if ahead && primes.iter().any(Option::is_some) {
                    let until = Instant::now() + self.config.prime_hold;
                    state.primed = Some(Primed { until, asked: false, published });
                    let lead = TIMELINE_LEAD.saturating_sub(self.config.prime_hold);
                    for (layer, frame) in primes.into_iter().enumerate() {
                        let Some(frame) = frame else { continue };
                        let media_time = frame.media_time.saturating_add(lead);
                        engine.write(
                            track,
                            layer,
                            &Frame { media_time, captured_at: Instant::now(), ..frame },
                        )?;
                    }
                } else {
                    self.start(track, published);
                    for layer in 0..layers {
                        self.want_keyframe(track, layer, KeyframeReason::Start);
                    }
                }
            }
            EngineEvent::Resuming { reason, attempt } => {
                self.set_state(ConnectionState::Reconnecting);
                self.emit(Event::Resuming { reason, attempt });
            }
            EngineEvent::Moved(room) => self.moved(room),
            EngineEvent::PathLost => self.path_lost(),
            EngineEvent::PathBack => self.path_back(engine),
            EngineEvent::Resumed => self.resumed(),
            EngineEvent::Unpublished { track, sid } => self.emit(Event::Unpublished { track, sid }),
            EngineEvent::PublishFailed { track, reason } => {
                if let Some(state) = self.tracks.get(&track) {
                    state.shared.live.store(false, Ordering::Release);
                }
                self.emit(Event::PublishFailed { track, reason });
            }
            EngineEvent::DataOpen(open) => {
                self.shared.data.lock().set_open(open);
                if open {
                    self.media_up = true;
                    self.shared.status().online(Instant::now());
                    self.up_since.get_or_insert_with(Instant::now);
                    self.emit(Event::DataReady);
                    self.send_data(engine);
                }
            }
            EngineEvent::DataRoom => self.send_data(engine),
            EngineEvent::DataReceived(data) => {
                self.shared.data.lock().received(data.payload.len());
                self.emit(Event::DataReceived(data));
            }
            EngineEvent::DataAllowed(allowed) => self.shared.data.lock().set_forbidden(!allowed),
            EngineEvent::MetadataRefused { reason } => self.emit(Event::MetadataRefused { reason }),
            EngineEvent::KeyframeRequest { track, layer, reason } => {
                match self.tracks.get_mut(&track).and_then(|t| t.primed.as_mut()) {
                    Some(primed) if !primed.asked => {
                        primed.asked = true;
                        primed.until = Instant::now() + SUBSCRIBER_SETUP;
                    }
                    Some(_) => {}
                    // Each picture begins with one anyway when there is a path again.
                    None if self.path_lost => {}
                    None => self.keyframe_requested(track, layer, reason),
                }
            }
            EngineEvent::Network(sample) => self.on_network(engine, sample)?,
            EngineEvent::BandwidthEstimate(bitrate) => {
                let changed =
                    self.told_estimate.is_none_or(|told| told.abs_diff(bitrate) > told / ESTIMATE_STEP);
                if changed {
                    self.told_estimate = Some(bitrate);
                    self.emit(Event::BandwidthEstimate(bitrate));
                }
            }
            EngineEvent::FirstSubscriber { track } => {
                if let Some(state) = self.tracks.get_mut(&track) {
                    state.activity.first_subscriber();
                }
                self.follow_activity(track);
            }
            EngineEvent::SubscribedQuality { track, qualities } => {
                if let Some(state) = self.tracks.get_mut(&track) {
                    state.activity.subscribed(&qualities);
                }
                self.emit(Event::SubscribedQuality { track, qualities });
                self.follow_activity(track);
            }
            EngineEvent::ParticipantJoined(p) => {
                self.participants += 1;
                self.emit(Event::ParticipantJoined(p));
            }
            EngineEvent::ParticipantLeft(p) => {
                self.participants = self.participants.saturating_sub(1);
                self.emit(Event::ParticipantLeft(p));
            }
            EngineEvent::ConnectionQuality { quality, score } => {
                self.shared.status().stats.quality = Some(quality);
                self.emit(Event::ConnectionQuality { quality, score });
            }
            EngineEvent::TransportStats(stats) => {
                {
                    let mut status = self.shared.status();
                    status.stats.rtt = stats.rtt.or(status.stats.rtt);
                    status.stats.transport = stats.path.or(status.stats.transport);
                    status.stats.bandwidth_estimate = stats.estimate.or(status.stats.bandwidth_estimate);
                    status.stats.bytes_sent = stats.sent.bytes;
                    status.stats.datagrams_sent = stats.sent.datagrams;
                    status.stats.send_calls = stats.sent.calls;
                    status.stats.send_errors = stats.sent.errors;
                    status.stats.segmentation_refused = stats.sent.segmentation_refused;
                }
                self.publish_stats();
            }
            EngineEvent::TrackStats { track, layer, stats } => {
                if let Some((layer, _)) = self.tracks.get_mut(&track).and_then(|t| t.layer_mut(layer)) {
                    layer.engine_stats = stats;
                    layer.waited = (Duration::ZERO, layer.waited.0);
                }
            }
            EngineEvent::Muted { track, muted } => {
                self.set_muted(track, muted, true);
            }
        }
        Ok(())
    }

    /// Keeps the connection going until what was written has left, and a moment longer.
    pub(super) async fn drain<E: MediaEngine>(&mut self, engine: &mut E) {
        let unsent = !self.shared.data.lock().is_empty();
        if !unsent && !self.data_sent && !self.tracks.values().any(TrackState::has_sent) {
            return;
        }
        let deadline = Instant::now() + DRAIN_BUDGET;
        let mut linger: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if self.feed(engine).is_err() {
                return;
            }
            if linger.is_none() && (self.is_drained(engine) || now >= deadline) {
                linger = Some(now + LINGER);
            }
            if linger.is_some_and(|at| now >= at) {
                return;
            }
            let pause = now + Duration::from_millis(10);
            tokio::select! {
                event = engine.next() => match event {
                    Ok(event) => {
                        if self.on_engine_event(engine, event).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                () = sleep_until(pause.into()) => {}
            }
        }
    }
}
