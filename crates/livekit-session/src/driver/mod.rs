// SPDX-License-Identifier: MIT OR Apache-2.0

//! The task that owns a session: joins, publishes, passes frames and events, comes back after a loss.

mod activity;
mod congestion;
mod data;
mod elsewhere;
mod interruption;
mod keyframes;
mod room;
mod track;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use tracing::instrument::WithSubscriber;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::config::{Credentials, Secret, SessionConfig, TrackConfig};
use crate::engine::MediaEngine;
use crate::error::{Error, LeaveReason, redact};
use crate::event::{ConnectionState, Event, KeyframeReason, Observer, TrackId};
use crate::frame::Frame;
use crate::session::{Command, Shared, TrackShared};
use crate::signal::token;
use congestion::Congestion;
use track::TrackState;

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
/// From losing the room to the first attempt to come back, at least; twice that at most.
const RETURN_DELAY: Duration = Duration::from_millis(50);
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
        moved: false,
        regions: VecDeque::new(),
        told_estimate: None,
        participants: 0,
        up_since: None,
        media_up: false,
        closing: Vec::new(),
        congestion: Congestion::default(),
        data_sent: false,
        replays: Vec::new(),
        token_request: Arc::default(),
        path_lost: false,
        interrupted: Duration::ZERO,
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

struct Driver {
    config: SessionConfig,
    observer: Arc<dyn Observer>,
    commands: UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    tracks: BTreeMap<TrackId, TrackState>,
    started: Instant,
    joined_once: bool,
    /// The server's replacement for a plain token, which may have expired by now. It too lasts ten minutes only.
    server_token: Option<Secret>,
    /// The server's token leads to another room than the one that we were told to join.
    moved: bool,
    /// Where to try to join next, before the address that we were given is tried again.
    regions: VecDeque<String>,
    /// The last estimate that the observer was told.
    told_estimate: Option<u64>,
    /// Others in the room.
    participants: usize,
    /// Since when this stay is a success, so far.
    up_since: Option<Instant>,
    /// Something was published in this stay, so media reaches the server.
    media_up: bool,
    /// Closed tracks whose last frames are still on their way to the viewers.
    closing: Vec<(TrackId, Instant)>,
    congestion: Congestion,
    /// Data went out in this stay.
    data_sent: bool,
    /// Layers whose current group of pictures is wanted again.
    replays: Vec<(TrackId, usize)>,
    /// The request for a token that is under way; one at a time, however long it takes.
    token_request: Arc<tokio::sync::Mutex<Option<TokenRequest>>>,
    /// The media path is dead, but the stay is not over.
    path_lost: bool,
    /// How long it was, since the interruption that is being mended began.
    interrupted: Duration,
}

type TokenRequest = oneshot::Receiver<Result<Secret, Error>>;

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
            let region = self.regions.pop_front();
            let url = redact(region.as_deref().unwrap_or(&self.config.url));
            self.emit(Event::Connecting { url, attempt });
            let stay = match AssertUnwindSafe(self.stay::<E>(region)).catch_unwind().await {
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
            if self.joined_once {
                self.shared.status().offline(Instant::now());
            }
            let old_room = self.give_up_moved_token(&error);
            if error.is_fatal() && !old_room && !self.may_come_back(&error) {
                break Some(error);
            }
            let own_wish = matches!(error, Error::AnotherCodec(_));
            let (attempt, retry_in) = if lasted || own_wish {
                // Losing a room is no failed attempt: the first try to get back comes almost at once.
                backoff.succeeded();
                outage = Instant::now();
                (0, RETURN_DELAY.mul_f64(1.0 + rand::random::<f64>()))
            } else {
                backoff.failed(outage.elapsed(), rand::random())
            };
            let given_up = |limit| limit == 0 || attempt > limit;
            if !own_wish && self.config.reconnect_attempts.is_some_and(given_up) {
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
            Command::Frame(id, layer, frame, keyframe) | Command::Keep(id, layer, frame, keyframe) => {
                let Some(track) = self.tracks.get_mut(&id) else { return };
                if let Some((_, layer)) = track.layer_mut(layer) {
                    layer.handed_over(frame.data.len());
                }
                // Was on its way when the connection went, or is to be kept for when it is back.
                track.keep(layer, frame, keyframe);
            }
            Command::LostKept(id, layer) => self.lost_kept(id, layer),
            Command::SetGopCache(id, layer, config) => self.set_gop_cache(id, layer, config),
            Command::Prime(id, layer, frame) => self.keep_prime(id, layer, frame),
            Command::SetMuted(id, muted) => self.set_muted(id, muted, false),
            Command::Describe(description) => {
                self.take_description(description);
            }
            // Reliable packets wait in their queue.
            Command::Data | Command::WantKeyframe(..) | Command::Leave => {}
        }
    }

    fn keep_prime(&mut self, id: TrackId, layer: usize, frame: Frame) {
        if let Some((layer, _)) = self.tracks.get_mut(&id).and_then(|t| t.layer_mut(layer)) {
            layer.prime = Some(frame);
        }
    }

    /// A track is muted or unmuted from now on, in later publications too.
    fn set_muted(&mut self, id: TrackId, muted: bool, by_server: bool) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        track.config.muted = muted;
        if track.activity.set_muted(muted) {
            self.emit(Event::Muted { track: id, muted, by_server });
            self.follow_activity(id);
        }
    }

    /// Acts on a change of who needs the frames of a track.
    fn follow_activity(&mut self, id: TrackId) {
        let now = Instant::now();
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let live = track.is_live();
        for (layer, target) in track.follow_activity(now) {
            self.emit(Event::Target { track: id, layer, target });
            // After the target: an encoder that was put to sleep is awake by now.
            if target.active && live {
                self.want_keyframe(id, layer, KeyframeReason::Resumed);
            }
        }
    }

    fn add_track(&mut self, id: TrackId, config: TrackConfig, shared: Arc<TrackShared>) {
        let track =
            TrackState::new(config, shared, self.config.keyframe_min_interval, self.config.max_queue_time);
        self.tracks.insert(id, track);
        // It may be muted from the start.
        self.follow_activity(id);
        self.publish_stats();
    }

    /// The connection is gone: no frame is taken until the tracks are published again.
    fn tracks_down(&mut self) {
        self.shared.data.lock().set_open(false);
        for (id, track) in &mut self.tracks {
            if let Some(sid) = track.go_down() {
                self.observer.event(Event::Unpublished { track: *id, sid });
            }
        }
        self.publish_stats();
    }

    fn publish_stats(&self) {
        let stats = |(id, track): (&TrackId, &TrackState)| {
            let shared = track.shared.clone();
            track.stats(*id).into_iter().map(move |stats| (stats, shared.clone()))
        };
        self.shared.status().tracks = self.tracks.iter().flat_map(stats).collect();
    }

    /// One stay in the room, from the attempt to join to its end.
    ///
    /// `region` = the server's address, if it is not the one of the configuration.
    async fn stay<E: MediaEngine + 'static>(&mut self, region: Option<String>) -> Stay {
        debug!(timeout = ?self.config.connect_timeout, "joining");
        let mut config = self.config.clone();
        let given = region.is_none();
        config.url = region.unwrap_or(config.url);
        let joining = join::<E>(config.clone(), given, self.server_token.clone(), self.token_request.clone());
        tokio::pin!(joining);
        let (mut engine, room, token) = loop {
            tokio::select! {
                joined = &mut joining => match joined {
                    Ok(joined) => break joined,
                    Err((error, regions)) => {
                        debug!(%error, "not joined");
                        if given {
                            self.regions = regions.into();
                        }
                        return Stay::Over(error);
                    }
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
            status.stats.room = Some(room.name.clone());
        }
        debug!(room = %room.sid, server = %room.server_version, "joined");
        self.joined_once = true;
        (self.participants, self.media_up) = (0, false);
        self.closing.clear();
        self.replays.clear();
        self.congestion = Congestion::default();
        self.data_sent = false;
        (self.path_lost, self.interrupted) = (false, Duration::ZERO);
        let data = self.wants_data();
        if self.tracks.is_empty() && !data {
            self.up_since = Some(Instant::now());
            self.shared.status().online(Instant::now());
        }
        self.set_state(ConnectionState::Connected);
        self.emit(Event::Joined(room));
        for (id, track) in &self.tracks {
            engine.publish(*id, &track.config);
        }
        if data {
            engine.want_data();
        }
        let end = self.in_room(&mut engine).await;
        // Kept through attempts that fail; what it replaced would be refused by now.
        if let Some(token) = engine.refreshed_token().filter(|_| self.token_is_fixed() || self.moved) {
            self.server_token = Some(token);
        }
        let suggested = engine.suggested_regions();
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
                tokio::spawn(engine.leave(Instant::now() + GOODBYE).with_current_subscriber());
                let begun = given.then_some((&config, &token));
                match self.choose_regions::<E>(&error, suggested, begun).await {
                    true => Stay::Left,
                    false => Stay::Over(error),
                }
            }
        }
    }

    /// Whether what is fatal otherwise is worth another attempt in this session: a file or an application that gave a
    /// good token once can give one again when that has expired.
    fn may_come_back(&self, error: &Error) -> bool {
        let renews = matches!(self.config.credentials, Credentials::TokenFile(_) | Credentials::Provider(_));
        match error {
            Error::Unauthorized { .. } => self.joined_once && renews,
            // The same login was good before: what the proxy asks about it is out of order.
            Error::Proxy { .. } => self.joined_once,
            Error::Left { reason: LeaveReason::ParticipantRemoved, .. } => self.config.rejoin_when_removed,
            _ => false,
        }
    }

    fn token_is_fixed(&self) -> bool {
        matches!(self.config.credentials, Credentials::Token(_))
    }
}

/// Gets a token and joins with it, within the connect timeout; gives the token too. If that fails and `elsewhere` is wanted, also where else
/// to try.
async fn join<E: MediaEngine>(
    config: SessionConfig,
    elsewhere: bool,
    server_token: Option<Secret>,
    token_request: Arc<tokio::sync::Mutex<Option<TokenRequest>>>,
) -> Result<(E, crate::event::RoomInfo, Secret), (Error, Vec<String>)> {
    let timeout = config.connect_timeout;
    let mut used = None;
    let attempt = async {
        let token = match server_token {
            Some(token) => token,
            None if token::is_at_hand(&config) => token::obtain(&config)?,
            None => {
                let mut request = token_request.lock().await;
                let config = config.clone();
                // A file or an application may take its time. If it takes longer than an attempt, the next
                // attempt waits for the same answer.
                let running = request.get_or_insert_with(|| {
                    crate::runtime::run_apart("livekit-token", move || token::obtain(&config))
                });
                let answer = running.await;
                *request = None;
                answer.map_err(|_| Error::TokenSource("the token callback failed".into()))??
            }
        };
        let token = used.insert(token).clone();
        let (engine, room) = E::join(&config, &token).await?;
        Ok((engine, room, token))
    };
    let joined = tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(Error::ConnectTimeout(timeout)));
    match (joined, used) {
        (Ok(joined), _) => Ok(joined),
        (Err(error), Some(token)) if elsewhere && elsewhere::may_help(&error) => {
            let regions = E::regions(&config, &token).await;
            Err((error, regions))
        }
        (Err(error), _) => Err((error, Vec::new())),
    }
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
mod tests;
