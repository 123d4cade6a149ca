// SPDX-License-Identifier: MIT OR Apache-2.0

//! The handles that an application holds. All work happens in the [`crate::driver`] task.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::instrument::WithSubscriber;

use crate::config::{Codec, Description, LayerConfig, SessionConfig, TrackConfig};
use crate::data::{DataError, DataPacket, DataShared};
use crate::driver;
use crate::engine::MediaEngine;
use crate::engine::webrtc::WebRtcEngine;
use crate::error::Error;
use crate::event::{ConnectionState, KeyframeReason, Observer, TrackId};
use crate::frame::{DropReason, Frame, MAX_FRAME_BYTES, Outcome};
use crate::gop_cache::GopCacheConfig;
use crate::signal::RefusedCounters;
use crate::stats::{SessionStats, TrackCounters, TrackStats};

/// Frames on their way from [`Track::write`] to the transport may hold this much; beyond it the network
/// thread is stuck and the frame is dropped.
const MAX_HANDOVER_BYTES: usize = 16 * 1024 * 1024;
/// … and may be this many.
const MAX_HANDOVER_FRAMES: usize = 256;
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_PRIME_HOLD: Duration = Duration::from_secs(60);
const MAX_KEYFRAME_INTERVAL: Duration = Duration::from_secs(3600);
const MAX_QUEUE_TIME: Duration = Duration::from_secs(3600);
const MAX_GOP_CACHE_TIME: Duration = Duration::from_secs(60);
const MAX_GOP_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// A participant in a room. Joins in the background as soon as it is made, comes back by itself when the
/// connection is lost, and leaves when it is dropped.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
}

/// What handles and driver have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) status: Mutex<Status>,
    pub(crate) data: DataShared,
    ended: Condvar,
    refused: Arc<RefusedCounters>,
    next_track: AtomicU64,
}

/// What the driver publishes for [`Session::stats`] and [`Session::state`].
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Without its tracks, which follow.
    pub(crate) stats: SessionStats,
    /// What the driver knows of each track, and where its writer counts.
    pub(crate) tracks: Vec<(TrackStats, Arc<TrackShared>)>,
    /// Since when no frame can be sent; what was before is in `stats`.
    pub(crate) offline_since: Option<Instant>,
    pub(crate) ended: bool,
}

impl Status {
    /// No frame can be sent from now on.
    pub(crate) fn offline(&mut self, now: Instant) {
        self.offline_since.get_or_insert(now);
    }

    /// Frames can be sent from now on: how long they could not.
    pub(crate) fn online(&mut self, now: Instant) -> Duration {
        let lasted =
            self.offline_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.stats.offline += lasted;
        lasted
    }
}

/// What handles ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    AddTrack(TrackId, TrackConfig, Arc<TrackShared>),
    CloseTrack(TrackId),
    /// A frame of a layer, and whether decoding can start at it.
    Frame(TrackId, usize, Frame, bool),
    /// The same of one that is not sent, but may be of use later.
    Keep(TrackId, usize, Frame, bool),
    Prime(TrackId, usize, Frame),
    WantKeyframe(TrackId, usize, KeyframeReason),
    SetMuted(TrackId, bool),
    /// Something is in the data queue.
    Data,
    Describe(Description),
    /// A frame that was to be kept is missing.
    LostKept(TrackId, usize),
    SetGopCache(TrackId, usize, GopCacheConfig),
    Leave,
}

/// What a track's handle and the driver have in common.
#[derive(Debug)]
pub(crate) struct TrackShared {
    /// Published and connected: frames may go out.
    pub(crate) live: AtomicBool,
    /// Frames were refused for want of a connection: a picture kept for the start is one of the past.
    pub(crate) missed_start: AtomicBool,
    pub(crate) closed: AtomicBool,
    pub(crate) layers: Vec<LayerShared>,
}

/// … of one layer.
#[derive(Debug, Default)]
pub(crate) struct LayerShared {
    pub(crate) counters: TrackCounters,
    /// A frame was lost, so only a keyframe may follow.
    pub(crate) need_keyframe: AtomicBool,
    /// The driver knows that one is waited for.
    pub(crate) keyframe_wanted: AtomicBool,
    /// See [`Self::paused`]: one more than the reason's place in [`DropReason::ALL`]; 0 = not paused.
    pause: AtomicU8,
    /// Frames are wanted outside the room too, to begin with them.
    pub(crate) keep: AtomicBool,
    pub(crate) handover_frames: AtomicUsize,
    pub(crate) handover_bytes: AtomicUsize,
}

impl TrackShared {
    fn new(config: &TrackConfig) -> Self {
        let layer = || LayerShared {
            need_keyframe: AtomicBool::new(config.codec.is_video()),
            ..LayerShared::default()
        };
        Self {
            live: AtomicBool::default(),
            missed_start: AtomicBool::default(),
            closed: AtomicBool::default(),
            layers: config.layers.iter().map(|_| layer()).collect(),
        }
    }
}

impl LayerShared {
    /// Why nothing of the layer goes out for now; `None` = frames do.
    pub(crate) fn paused(&self) -> Option<DropReason> {
        let at = usize::from(self.pause.load(Ordering::Acquire)).checked_sub(1)?;
        DropReason::ALL.get(at).copied()
    }

    /// Lets no frame pass, and counts each under `reason`; with `None` frames go out again.
    pub(crate) fn set_paused(&self, reason: Option<DropReason>) {
        let at = reason.and_then(|reason| DropReason::ALL.iter().position(|r| *r == reason));
        let code = at.map_or(0, |at| u8::try_from(at + 1).unwrap_or_default());
        self.pause.store(code, Ordering::Release);
    }

    /// A frame of `bytes` is given to the driver.
    fn handing_over(&self, bytes: usize) {
        self.handover_frames.fetch_add(1, Ordering::AcqRel);
        self.handover_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Whether another frame of `bytes` is too much for the hand-over.
    fn is_full(&self, bytes: usize) -> bool {
        self.handover_frames.load(Ordering::Acquire) >= MAX_HANDOVER_FRAMES
            || self.handover_bytes.load(Ordering::Acquire) + bytes > MAX_HANDOVER_BYTES
    }

    /// The driver took a frame of `bytes` out of the hand-over.
    pub(crate) fn handed_over(&self, bytes: usize) {
        self.handover_frames.fetch_sub(1, Ordering::AcqRel);
        self.handover_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Shared {
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_ended(&self) {
        self.data.lock().end();
        self.status().ended = true;
        self.ended.notify_all();
    }
}

impl Session {
    /// Starts joining in the background and returns at once; `observer` hears how it goes.
    ///
    /// # Errors
    /// What [`SessionConfig::validate`] finds, and [`Error::Internal`] if no thread can be started.
    pub fn start(config: SessionConfig, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        Self::start_with::<WebRtcEngine>(config, observer)
    }

    pub(crate) fn start_with<E: MediaEngine + 'static>(
        mut config: SessionConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        config.validate()?;
        config.refused = Arc::default();
        // Beyond these nobody waits, and arithmetic with them is safe.
        config.connect_timeout = config.connect_timeout.min(MAX_CONNECT_TIMEOUT);
        config.prime_hold = config.prime_hold.min(MAX_PRIME_HOLD);
        config.keyframe_min_interval = config.keyframe_min_interval.min(MAX_KEYFRAME_INTERVAL);
        config.max_queue_time = config.max_queue_time.min(MAX_QUEUE_TIME);
        let runtime = crate::runtime::handle()?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            commands,
            status: Mutex::default(),
            data: DataShared::default(),
            ended: Condvar::new(),
            refused: config.refused.clone(),
            next_track: AtomicU64::new(1),
        });
        let log = config.log.clone();
        let driver = driver::run::<E>(config, observer, receiver, shared.clone());
        match log {
            Some(log) => drop(runtime.spawn(driver.with_subscriber(log))),
            None => drop(runtime.spawn(driver)),
        }
        Ok(Self { shared })
    }

    /// Adds a track; it is published as soon as the room is joined, and again after every reconnect.
    pub fn add_track(&self, mut config: TrackConfig) -> Track {
        if config.layers.is_empty() {
            config.layers.push(LayerConfig::default());
        }
        let id = TrackId(self.shared.next_track.fetch_add(1, Ordering::Relaxed));
        let codec = config.codec;
        let track = Arc::new(TrackShared::new(&config));
        let _ = self.shared.commands.send(Command::AddTrack(id, config, track.clone()));
        Track { id, codec, track, commands: self.shared.commands.clone() }
    }

    /// Sends bytes to other participants in the room. Never blocks.
    ///
    /// A reliable packet may be given before the room is joined and while it is lost: it waits (1024 packets or
    /// 1 MiB at most) and goes out, in order, as soon as there is a connection. Of those that were under way when
    /// a connection was lost some may not have arrived. A lossy packet is refused while there is none; if the
    /// network takes them too slowly, the oldest of those that wait (256 packets or 256 KiB) gives way.
    ///
    /// # Errors
    /// Why the packet is not sent.
    pub fn send_data(&self, packet: DataPacket) -> Result<(), DataError> {
        let wake = self.shared.data.lock().push(packet)?;
        if wake {
            let _ = self.shared.commands.send(Command::Data);
        }
        Ok(())
    }

    /// Changes what the participant shows of itself, now and after every reconnect. What differs from before is
    /// sent; attributes that are missing are taken away, whereas the server keeps a name and metadata until
    /// the next join. A refusal is told by [`crate::Event::MetadataRefused`].
    pub fn describe(&self, description: Description) {
        let _ = self.shared.commands.send(Command::Describe(description));
    }

    /// Where the connection stands.
    pub fn state(&self) -> ConnectionState {
        self.shared.status().stats.state
    }

    /// A snapshot of all counters: those of frames are up to date, those of the network at most half a
    /// second old.
    pub fn stats(&self) -> SessionStats {
        let data = self.shared.data.lock().stats();
        let status = self.shared.status();
        let mut stats = status.stats.clone();
        stats.data = data;
        self.shared.refused.fill(&mut stats);
        stats.offline += status.offline_since.map_or(Duration::ZERO, |since| since.elapsed());
        stats.tracks = status
            .tracks
            .iter()
            .map(|(known, shared)| {
                let mut stats = known.clone();
                if let Some(layer) = shared.layers.get(stats.layer) {
                    layer.counters.fill(&mut stats);
                }
                stats
            })
            .collect();
        stats
    }

    /// Begins to leave: what is queued is sent first. [`crate::Event::Disconnected`] follows within two
    /// seconds, whatever the network does.
    pub fn leave(&self) {
        let _ = self.shared.commands.send(Command::Leave);
    }

    /// Blocks until the session has ended, `timeout` at most. True = it has ended.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        let mut status = self.shared.status();
        while !status.ended {
            let Some(left) = timeout.checked_sub(begin.elapsed()) else { return false };
            status = self.shared.ended.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A track of a [`Session`]; unpublished when dropped.
#[derive(Debug)]
pub struct Track {
    id: TrackId,
    codec: Codec,
    track: Arc<TrackShared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Track {
    /// The track's id in events and statistics.
    pub fn id(&self) -> TrackId {
        self.id
    }

    /// Sends a frame of the first layer, which is the only one unless the track is simulcast.
    /// See [`Self::write_layer`].
    pub fn write(&self, frame: Frame) -> Outcome {
        self.write_layer(0, frame)
    }

    /// Sends a frame of a layer. Never blocks; each layer may be written by one thread at a time.
    ///
    /// After a gap, and at the start, only a keyframe is taken: frames before it are dropped as
    /// [`DropReason::WaitingForKeyframe`] and the observer is told that a keyframe is wanted.
    ///
    /// A layer that the track does not have is [`DropReason::Closed`].
    pub fn write_layer(&self, layer: usize, frame: Frame) -> Outcome {
        let Some(shared) = self.track.layers.get(layer) else { return Outcome::Dropped(DropReason::Closed) };
        let bytes = frame.data.len();
        let keyframe = frame.is_keyframe(self.codec);
        let outcome = self.admit(layer, shared, frame, keyframe);
        shared.counters.count(outcome, bytes, keyframe);
        outcome
    }

    /// Gives the track's first keyframe ahead of time, for a stream that waits for
    /// [`crate::Event::Published`] before it starts (a file).
    ///
    /// A server tells subscribers of a track when its first packet comes, and they are not ready before
    /// the first picture has gone by; of a stream that can't be asked for another keyframe they would see
    /// nothing until the next one. So if anybody else is in the room, this frame is sent ahead, and
    /// `Published` follows a quarter of a second after somebody asked for a keyframe, or after
    /// [`SessionConfig::prime_hold`] if nobody does. The stream then starts with the same frame again, by [`Self::write`].
    pub fn prime(&self, frame: Frame) {
        self.prime_layer(0, frame);
    }

    /// [`Self::prime`] for a layer of a simulcast track.
    pub fn prime_layer(&self, layer: usize, frame: Frame) {
        if self.codec.is_video() && frame.is_keyframe(self.codec) && frame.data.len() <= MAX_FRAME_BYTES {
            let _ = self.commands.send(Command::Prime(self.id, layer, frame));
        }
    }

    /// Tells the room that there is nothing to see or hear for now, or that there is again. Frames of a muted
    /// track are dropped as [`DropReason::Muted`]; the first one after that has to be a keyframe.
    pub fn set_muted(&self, muted: bool) {
        let _ = self.commands.send(Command::SetMuted(self.id, muted));
    }

    /// How requests for a keyframe of a layer are answered when its source can't be asked; can be changed at any
    /// time. Memory beyond 64 MB and times beyond a minute are not used.
    pub fn set_gop_cache(&self, layer: usize, config: GopCacheConfig) {
        if !self.codec.is_video() {
            return;
        }
        let config = GopCacheConfig {
            max_duration: config.max_duration.min(MAX_GOP_CACHE_TIME),
            max_bytes: config.max_bytes.min(MAX_GOP_CACHE_BYTES),
            ..config
        };
        let _ = self.commands.send(Command::SetGopCache(self.id, layer, config));
    }

    /// The counters of the first layer that need no network: frames sent and dropped.
    pub fn stats(&self) -> TrackStats {
        let mut stats = TrackStats { track: Some(self.id), ..TrackStats::default() };
        if let Some(layer) = self.track.layers.first() {
            layer.counters.fill(&mut stats);
        }
        stats
    }

    /// Whether frames go out: published, and connected.
    pub fn is_live(&self) -> bool {
        self.track.live.load(Ordering::Acquire)
    }

    fn admit(&self, index: usize, layer: &LayerShared, frame: Frame, keyframe: bool) -> Outcome {
        let bytes = frame.data.len();
        if self.track.closed.load(Ordering::Acquire) {
            return Outcome::Dropped(DropReason::Closed);
        }
        if bytes == 0 {
            return Outcome::Dropped(DropReason::Empty);
        }
        if bytes > MAX_FRAME_BYTES {
            return self.lost(index, layer, DropReason::TooLarge);
        }
        if !self.track.live.load(Ordering::Acquire) {
            self.track.missed_start.store(true, Ordering::Release);
            self.keep(index, layer, frame, keyframe);
            return Outcome::Dropped(DropReason::NotConnected);
        }
        if let Some(reason) = layer.paused() {
            if reason != DropReason::Muted {
                self.keep(index, layer, frame, keyframe);
            }
            return Outcome::Dropped(reason);
        }
        if layer.need_keyframe.load(Ordering::Acquire) && !keyframe {
            self.want_keyframe(index, layer, KeyframeReason::Start);
            return Outcome::Dropped(DropReason::WaitingForKeyframe);
        }
        let queued = layer.handover_frames.load(Ordering::Acquire);
        if layer.is_full(bytes) {
            return self.lost(index, layer, DropReason::QueueFull);
        }
        layer.need_keyframe.store(false, Ordering::Release);
        layer.keyframe_wanted.store(false, Ordering::Release);
        layer.handing_over(bytes);
        if self.commands.send(Command::Frame(self.id, index, frame, keyframe)).is_err() {
            return Outcome::Dropped(DropReason::Closed);
        }
        if queued == 0 { Outcome::Sent } else { Outcome::Queued }
    }

    /// A frame that is not sent may be of use when others are.
    fn keep(&self, index: usize, layer: &LayerShared, frame: Frame, keyframe: bool) {
        if !layer.keep.load(Ordering::Acquire) {
            return;
        }
        if layer.is_full(frame.data.len()) {
            if !layer.need_keyframe.swap(true, Ordering::AcqRel) {
                let _ = self.commands.send(Command::LostKept(self.id, index));
            }
        } else if keyframe || !layer.need_keyframe.load(Ordering::Acquire) {
            layer.need_keyframe.store(false, Ordering::Release);
            layer.handing_over(frame.data.len());
            let _ = self.commands.send(Command::Keep(self.id, index, frame, keyframe));
        }
    }

    /// A frame that others refer to is missing now.
    fn lost(&self, index: usize, layer: &LayerShared, reason: DropReason) -> Outcome {
        if self.codec.is_video() {
            layer.need_keyframe.store(true, Ordering::Release);
            self.want_keyframe(index, layer, KeyframeReason::Dropped);
        }
        Outcome::Dropped(reason)
    }

    /// Says once that nothing goes out until a keyframe comes.
    fn want_keyframe(&self, index: usize, layer: &LayerShared, reason: KeyframeReason) {
        if !layer.keyframe_wanted.swap(true, Ordering::AcqRel) {
            let _ = self.commands.send(Command::WantKeyframe(self.id, index, reason));
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.track.closed.store(true, Ordering::Release);
        let _ = self.commands.send(Command::CloseTrack(self.id));
    }
}
