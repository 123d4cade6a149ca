// SPDX-License-Identifier: MIT OR Apache-2.0

//! The task that owns a session: joins, publishes, passes frames and events, comes back after a loss.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::config::{Credentials, Secret, SessionConfig, TrackConfig};
use crate::engine::{EngineEvent, EngineTrackStats, MediaEngine};
use crate::error::{Error, redact};
use crate::event::{ConnectionState, Event, KeyframeReason, Observer, TrackId};
use crate::frame::{DropReason, Frame};
use crate::keyframe::KeyframeGate;
use crate::session::{Command, Shared, TrackShared};
use crate::signal::token;
use crate::stats::TrackStats;

/// How long leaving may take in all, draining included.
const LEAVE_BUDGET: Duration = Duration::from_millis(1900);
/// How long what is queued may take to go out.
const DRAIN_BUDGET: Duration = Duration::from_millis(1000);
/// After the last packet: time for retransmissions, and for viewers' jitter buffers, which throw away what
/// they hold when a track ends.
const LINGER: Duration = Duration::from_millis(300);
/// A stay this long, with something published, was a success; a shorter one was a failed attempt.
const STABLE: Duration = Duration::from_secs(5);
/// How long a lost connection may take to be closed.
const GOODBYE: Duration = Duration::from_secs(1);
/// Frames of a track that wait to be sent may be this old; then the rest of the group of pictures is dropped.
const MAX_QUEUE_AGE: Duration = Duration::from_secs(1);
/// From losing the room to the first attempt to come back, at least; twice that at most.
const RETURN_DELAY: Duration = Duration::from_millis(50);
/// The first request for a keyframe says that the server has a subscriber; that one still has to agree on the
/// transport, and drops what comes before it has.
const SUBSCRIBER_SETUP: Duration = Duration::from_millis(250);
/// Added to all media times, so that a frame can be sent ahead of the stream's first.
const TIMELINE_LEAD: Duration = Duration::from_secs(1);
/// The observer hears of an estimate that differs from the last by more than this part of it.
const ESTIMATE_STEP: u64 = 32;
/// This many panics of the engine within [`PANIC_WINDOW`] end the session.
const MAX_PANICS: usize = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Runs a session to its end.
pub(crate) async fn run<E: MediaEngine + 'static>(
    config: SessionConfig,
    observer: Arc<dyn Observer>,
    commands: UnboundedReceiver<Command>,
    shared: Arc<Shared>,
) {
    let driver = Driver {
        config,
        observer,
        commands,
        shared: shared.clone(),
        tracks: BTreeMap::new(),
        started: Instant::now(),
        joined_once: false,
        server_token: None,
        told_estimate: None,
        participants: 0,
        up_since: None,
        closing: Vec::new(),
        token_request: Arc::default(),
    };
    // Also if an observer panics.
    let _ended = EndOnDrop(shared);
    driver.run::<E>().await;
}

struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

struct TrackState {
    config: TrackConfig,
    shared: Arc<TrackShared>,
    gate: KeyframeGate,
    sid: Option<String>,
    engine_stats: EngineTrackStats,
    keyframe_requests: u64,
    first_frame: Option<Duration>,
    /// The first keyframe, to be sent ahead of the stream.
    prime: Option<Frame>,
    /// Sent ahead; the publication is reported when a subscriber is ready, or then.
    primed: Option<Primed>,
}

/// A publication that waits for a subscriber.
struct Primed {
    until: Instant,
    /// A keyframe was asked for.
    asked: bool,
    published: Event,
}

struct Driver {
    config: SessionConfig,
    observer: Arc<dyn Observer>,
    commands: UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    tracks: BTreeMap<TrackId, TrackState>,
    started: Instant,
    joined_once: bool,
    /// The server's replacement for a plain token, which may have expired by now.
    server_token: Option<Secret>,
    /// The last estimate that the observer was told.
    told_estimate: Option<u64>,
    /// Others in the room.
    participants: usize,
    /// Since when this stay is a success, so far.
    up_since: Option<Instant>,
    /// Closed tracks whose last frames are still on their way to the viewers.
    closing: Vec<(TrackId, Instant)>,
    /// The request for a token that is under way; one at a time, however long it takes.
    token_request: Arc<tokio::sync::Mutex<Option<TokenRequest>>>,
}

type TokenRequest = tokio::task::JoinHandle<Result<Secret, Error>>;

/// How one stay in the room ended.
enum Stay {
    /// By our own wish.
    Left,
    /// By an error, before the room was joined or after.
    Over(Error),
}

impl Driver {
    async fn run<E: MediaEngine + 'static>(mut self) {
        let mut backoff = Backoff::default();
        let mut outage = Instant::now();
        let mut panics: Vec<Instant> = Vec::new();
        let end = loop {
            self.set_state(if self.joined_once {
                ConnectionState::Reconnecting
            } else {
                ConnectionState::Connecting
            });
            let attempt = backoff.attempts().saturating_add(1);
            self.emit(Event::Connecting { url: redact(&self.config.url), attempt });
            let stay = match AssertUnwindSafe(self.stay::<E>()).catch_unwind().await {
                Ok(stay) => stay,
                Err(panic) => {
                    let now = Instant::now();
                    panics.retain(|at| now.duration_since(*at) < PANIC_WINDOW);
                    panics.push(now);
                    let error = Error::Internal(format!("the media engine failed: {}", panic_text(&*panic)));
                    warn!(%error, "recovering by reconnecting");
                    if panics.len() >= MAX_PANICS {
                        break Some(error);
                    }
                    Stay::Over(error)
                }
            };
            self.tracks_down();
            let lasted = self.up_since.take().is_some_and(|since| since.elapsed() >= STABLE);
            let error = match stay {
                Stay::Left => break None,
                Stay::Over(error) => error,
            };
            if error.is_fatal() || matches!(error, Error::Left { can_reconnect: false, .. }) {
                break Some(error);
            }
            let (attempt, retry_in) = if lasted {
                // Losing a room is no failed attempt: the first try to get back comes almost at once.
                backoff.succeeded();
                outage = Instant::now();
                (0, RETURN_DELAY.mul_f64(1.0 + rand::random::<f64>()))
            } else {
                backoff.failed(outage.elapsed(), rand::random())
            };
            if self.config.reconnect_attempts.is_some_and(|limit| limit == 0 || attempt > limit) {
                break Some(error);
            }
            self.emit(Event::Offline { reason: error, attempt, retry_in });
            if self.wait(Instant::now() + retry_in).await {
                break None;
            }
        };
        self.set_state(if end.is_some() { ConnectionState::Failed } else { ConnectionState::Disconnected });
        self.emit(Event::Disconnected(end));
    }

    fn emit(&self, event: Event) {
        self.observer.event(event);
    }

    fn set_state(&self, state: ConnectionState) {
        let changed = {
            let mut status = self.shared.status();
            std::mem::replace(&mut status.stats.state, state) != state
        };
        if changed {
            self.emit(Event::StateChanged(state));
        }
    }

    /// Waits for the next attempt while tracks come and go. True = the caller wants to leave.
    async fn wait(&mut self, until: Instant) -> bool {
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Leave) | None => return true,
                    Some(command) => self.while_offline(command),
                },
                () = sleep_until(until.into()) => return false,
            }
        }
    }

    fn while_offline(&mut self, command: Command) {
        match command {
            Command::AddTrack(id, config, shared) => self.add_track(id, config, shared),
            Command::CloseTrack(id) => {
                self.tracks.remove(&id);
                self.publish_stats();
            }
            Command::Frame(id, frame, _) => {
                // Was on its way when the connection went.
                if let Some(track) = self.tracks.get(&id) {
                    track.shared.handed_over(frame.data.len());
                }
            }
            Command::Prime(id, frame) => self.keep_prime(id, frame),
            Command::WantKeyframe(..) | Command::Leave => {}
        }
    }

    fn keep_prime(&mut self, id: TrackId, frame: Frame) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.prime = Some(frame);
        }
    }

    fn add_track(&mut self, id: TrackId, config: TrackConfig, shared: Arc<TrackShared>) {
        let gate = KeyframeGate::new(self.config.keyframe_min_interval);
        self.tracks.insert(
            id,
            TrackState {
                config,
                shared,
                gate,
                sid: None,
                engine_stats: EngineTrackStats::default(),
                keyframe_requests: 0,
                first_frame: None,
                prime: None,
                primed: None,
            },
        );
        self.publish_stats();
    }

    /// The connection is gone: no frame is taken until the tracks are published again.
    fn tracks_down(&mut self) {
        for (id, track) in &mut self.tracks {
            track.shared.live.store(false, Ordering::Release);
            track.primed = None;
            track.shared.keyframe_wanted.store(false, Ordering::Release);
            track.gate = KeyframeGate::new(self.config.keyframe_min_interval);
            if let Some(sid) = track.sid.take() {
                self.observer.event(Event::Unpublished { track: *id, sid });
            }
        }
        self.publish_stats();
    }

    /// One stay in the room, from the attempt to join to its end.
    async fn stay<E: MediaEngine + 'static>(&mut self) -> Stay {
        let joining = join::<E>(self.config.clone(), self.server_token.take(), self.token_request.clone());
        tokio::pin!(joining);
        let (mut engine, room) = loop {
            tokio::select! {
                joined = &mut joining => match joined {
                    Ok(joined) => break joined,
                    Err(error) => return Stay::Over(error),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Leave) | None => return Stay::Left,
                    Some(command) => self.while_offline(command),
                },
            }
        };
        {
            let mut status = self.shared.status();
            if self.joined_once {
                status.stats.reconnects += 1;
            } else {
                status.stats.time_to_join = Some(self.started.elapsed());
            }
        }
        self.joined_once = true;
        self.participants = 0;
        self.closing.clear();
        if self.tracks.is_empty() {
            self.up_since = Some(Instant::now());
        }
        self.set_state(ConnectionState::Connected);
        self.emit(Event::Joined(room));
        for (id, track) in &self.tracks {
            engine.publish(*id, &track.config);
        }
        let end = self.in_room(&mut engine).await;
        self.server_token = engine.refreshed_token().filter(|_| self.token_is_fixed());
        match end {
            Ok(()) => {
                let deadline = Instant::now() + LEAVE_BUDGET;
                self.drain(&mut engine).await;
                self.tracks_down();
                engine.leave(deadline).await;
                Stay::Left
            }
            Err(error) => {
                debug!(%error, "connection lost");
                // Says goodbye where there still is somebody to hear it, while we are on our way back.
                tokio::spawn(engine.leave(Instant::now() + GOODBYE));
                Stay::Over(error)
            }
        }
    }

    fn token_is_fixed(&self) -> bool {
        matches!(self.config.credentials, Credentials::Token(_))
    }

    /// Runs until the caller wants to leave (`Ok`) or the connection is over.
    async fn in_room<E: MediaEngine>(&mut self, engine: &mut E) -> Result<(), Error> {
        loop {
            let due =
                |t: &TrackState| t.gate.poll_at().into_iter().chain(t.primed.as_ref().map(|p| p.until)).min();
            let closing = self.closing.iter().map(|(_, at)| *at);
            let timer = self.tracks.values().filter_map(due).chain(closing).min();
            // Not biased: a flood of frames must not keep the network waiting.
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Leave) | None => return Ok(()),
                    Some(command) => self.command(engine, command)?,
                },
                event = engine.next() => self.on_engine_event(engine, event?)?,
                () = until(timer) => self.on_timer(engine),
            }
        }
    }

    fn command<E: MediaEngine>(&mut self, engine: &mut E, command: Command) -> Result<(), Error> {
        match command {
            Command::AddTrack(id, config, shared) => {
                engine.publish(id, &config);
                self.add_track(id, config, shared);
            }
            Command::CloseTrack(id) => {
                let sent = self.tracks.remove(&id).is_some_and(|t| t.first_frame.is_some());
                match sent {
                    true => self.closing.push((id, Instant::now() + LINGER)),
                    false => engine.unpublish(id),
                }
                self.publish_stats();
            }
            Command::Frame(id, frame, keyframe) => self.frame(engine, id, frame, keyframe)?,
            Command::Prime(id, frame) => self.keep_prime(id, frame),
            Command::WantKeyframe(id, reason) => self.want_keyframe(id, reason),
            Command::Leave => {}
        }
        Ok(())
    }

    fn frame<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        id: TrackId,
        frame: Frame,
        keyframe: bool,
    ) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(&id) else { return Ok(()) };
        let bytes = frame.data.len();
        track.shared.handed_over(bytes);
        // A keyframe always passes: dropping it would only make us ask for the next one.
        if track.config.codec.is_video() && !keyframe {
            let dropping = track.shared.need_keyframe.load(Ordering::Acquire);
            if dropping || engine.queue_age(id) > MAX_QUEUE_AGE {
                track.shared.need_keyframe.store(true, Ordering::Release);
                track.shared.counters.retract(bytes, DropReason::QueueFull);
                if !dropping {
                    self.want_keyframe(id, KeyframeReason::Dropped);
                }
                return Ok(());
            }
        }
        match keyframe {
            true => track.gate.keyframe(Instant::now()),
            false => track.gate.frame(),
        }
        track.first_frame.get_or_insert_with(|| self.started.elapsed());
        let media_time = frame.media_time.saturating_add(TIMELINE_LEAD);
        engine.write(id, &Frame { media_time, ..frame })
    }

    fn want_keyframe(&mut self, id: TrackId, reason: KeyframeReason) {
        let video = self.tracks.get_mut(&id).filter(|t| t.config.codec.is_video());
        let Some(track) = video else { return };
        let forward = track.gate.request(Instant::now());
        track.keyframe_requests += u64::from(forward);
        self.emit(Event::KeyframeRequest { track: id, reason, forward });
    }

    fn on_timer<E: MediaEngine>(&mut self, engine: &mut E) {
        let now = Instant::now();
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
        for (id, track) in &mut self.tracks {
            if track.gate.poll(now) {
                track.keyframe_requests += 1;
                let reason = KeyframeReason::Repeat;
                self.observer.event(Event::KeyframeRequest { track: *id, reason, forward: true });
            }
        }
    }

    /// Frames of the track go out from now on.
    fn start(&mut self, id: TrackId, published: Event) {
        if let Some(track) = self.tracks.get(&id) {
            track.shared.need_keyframe.store(track.config.codec.is_video(), Ordering::Release);
            track.shared.live.store(true, Ordering::Release);
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
                let published = Event::Published { track, sid, name, mime_type };
                self.up_since.get_or_insert_with(Instant::now);
                let in_time = !state.shared.missed_start.load(Ordering::Acquire);
                let prime = state.prime.take().filter(|_| in_time && self.participants > 0);
                match prime {
                    Some(frame) => {
                        let ahead = TIMELINE_LEAD.saturating_sub(self.config.prime_hold);
                        let media_time = frame.media_time.saturating_add(ahead);
                        let until = Instant::now() + self.config.prime_hold;
                        state.primed = Some(Primed { until, asked: false, published });
                        engine.write(track, &Frame { media_time, captured_at: Instant::now(), ..frame })?;
                    }
                    None => {
                        self.start(track, published);
                        self.want_keyframe(track, KeyframeReason::Start);
                    }
                }
            }
            EngineEvent::Unpublished { track, sid } => self.emit(Event::Unpublished { track, sid }),
            EngineEvent::PublishFailed { track, reason } => self.emit(Event::PublishFailed { track, reason }),
            EngineEvent::MetadataRefused { reason } => self.emit(Event::MetadataRefused { reason }),
            EngineEvent::KeyframeRequest { track, reason } => {
                match self.tracks.get_mut(&track).and_then(|t| t.primed.as_mut()) {
                    Some(primed) if !primed.asked => {
                        primed.asked = true;
                        primed.until = Instant::now() + SUBSCRIBER_SETUP;
                    }
                    Some(_) => {}
                    None => self.want_keyframe(track, reason),
                }
            }
            EngineEvent::BandwidthEstimate(bitrate) => {
                let changed =
                    self.told_estimate.is_none_or(|told| told.abs_diff(bitrate) > told / ESTIMATE_STEP);
                if changed {
                    self.told_estimate = Some(bitrate);
                    self.emit(Event::BandwidthEstimate(bitrate));
                }
            }
            EngineEvent::SubscribedQuality { track, qualities } => {
                self.emit(Event::SubscribedQuality { track, qualities });
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
                self.emit(Event::ConnectionQuality { quality, score });
            }
            EngineEvent::TransportStats(stats) => {
                {
                    let mut status = self.shared.status();
                    status.stats.rtt = stats.rtt.or(status.stats.rtt);
                    status.stats.bandwidth_estimate = stats.estimate.or(status.stats.bandwidth_estimate);
                    status.stats.bytes_sent = stats.bytes_sent;
                    status.stats.send_errors = stats.send_errors;
                }
                self.publish_stats();
            }
            EngineEvent::TrackStats { track, stats } => {
                if let Some(state) = self.tracks.get_mut(&track) {
                    state.engine_stats = stats;
                }
            }
        }
        Ok(())
    }

    fn publish_stats(&self) {
        let tracks = self
            .tracks
            .iter()
            .map(|(id, track)| {
                let engine = &track.engine_stats;
                let stats = TrackStats {
                    track: Some(*id),
                    sid: track.sid.clone(),
                    packets_sent: engine.packets,
                    pli: engine.pli,
                    fir: engine.fir,
                    nack: engine.nack,
                    loss: engine.loss,
                    queued_bytes: engine.queued_bytes,
                    keyframe_requests: track.keyframe_requests,
                    time_to_first_frame: track.first_frame,
                    ..TrackStats::default()
                };
                (stats, track.shared.clone())
            })
            .collect();
        self.shared.status().tracks = tracks;
    }

    /// Keeps the connection going until what was written has left, and a moment longer.
    async fn drain<E: MediaEngine>(&mut self, engine: &mut E) {
        if self.tracks.values().all(|t| t.first_frame.is_none()) {
            return;
        }
        let deadline = Instant::now() + DRAIN_BUDGET;
        let mut linger: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if linger.is_none() && (engine.is_drained() || now >= deadline) {
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

/// Gets a token and joins with it, within the connect timeout.
async fn join<E: MediaEngine>(
    config: SessionConfig,
    server_token: Option<Secret>,
    token_request: Arc<tokio::sync::Mutex<Option<TokenRequest>>>,
) -> Result<(E, crate::event::RoomInfo), Error> {
    let timeout = config.connect_timeout;
    let attempt = async {
        let token = match server_token {
            Some(token) => token,
            None => {
                let mut request = token_request.lock().await;
                let config = config.clone();
                // A file or an application may take its time. If it takes longer than an attempt, the next
                // attempt waits for the same answer.
                let running = request
                    .get_or_insert_with(|| tokio::task::spawn_blocking(move || token::obtain(&config)));
                let answer = running.await;
                *request = None;
                answer.map_err(|_| Error::TokenSource("the token callback failed".into()))??
            }
        };
        E::join(&config, &token).await
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(Error::ConnectTimeout(timeout)))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
