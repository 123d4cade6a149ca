// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the driver knows of a track and of each of its layers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::activity::{Activity, Idle};
use super::congestion::Meter;
use super::keyframes::Keyframes;
use crate::config::TrackConfig;
use crate::congestion::{Lateness, SendQueue};
use crate::engine::EngineTrackStats;
use crate::event::{Event, Target, TargetReason, TrackId};
use crate::frame::{DropReason, Frame};
use crate::session::{LayerShared, TrackShared};
use crate::stats::TrackStats;

/// A track, whether or not the room is joined.
pub(super) struct TrackState {
    pub(super) config: TrackConfig,
    pub(super) shared: Arc<TrackShared>,
    /// As many as in `config` and in `shared`.
    pub(super) layers: Vec<LayerState>,
    pub(super) sid: Option<String>,
    /// Whether anybody needs its frames.
    pub(super) activity: Activity,
    /// Keyframes were sent ahead; the publication is reported when a subscriber is ready, or then.
    pub(super) primed: Option<Primed>,
}

/// One encoding of a track's picture.
pub(super) struct LayerState {
    pub(super) keyframes: Keyframes,
    /// What the engine said last in this stay.
    pub(super) engine_stats: EngineTrackStats,
    /// What was counted in earlier stays.
    earlier: Earlier,
    /// The longest that a frame waited for the engine since the engine's last word, and what it was up to then.
    pub(super) waited: (Duration, Duration),
    /// From the session's start to the first frame handed to the engine.
    pub(super) first_frame: Option<Duration>,
    /// The first keyframe, to be sent ahead of the stream.
    pub(super) prime: Option<Frame>,
    /// Frames that wait for the engine.
    pub(super) queue: SendQueue<Frame>,
    pub(super) lateness: Lateness,
    pub(super) meter: Meter,
    /// What the encoder was told last.
    pub(super) told: Option<Target>,
    /// Nothing is sent: the network does not carry this layer beside the others.
    pub(super) congested: bool,
}

/// Counts of the engines of earlier stays: each begins at 0.
#[derive(Debug, Default)]
struct Earlier {
    retransmits: u64,
    rtx_packets: u64,
    rtx_bytes: u64,
    pli: u64,
    fir: u64,
    nack: u64,
    lost: u64,
}

/// A publication that waits for a subscriber.
pub(super) struct Primed {
    pub(super) until: Instant,
    /// A keyframe was asked for.
    pub(super) asked: bool,
    pub(super) published: Event,
}

impl TrackState {
    pub(super) fn new(
        config: TrackConfig,
        shared: Arc<TrackShared>,
        keyframe_min_interval: Duration,
        max_queue_time: Duration,
    ) -> Self {
        let layer = || LayerState {
            keyframes: Keyframes::new(config.codec, keyframe_min_interval),
            engine_stats: EngineTrackStats::default(),
            earlier: Earlier::default(),
            waited: (Duration::ZERO, Duration::ZERO),
            first_frame: None,
            prime: None,
            queue: SendQueue::new(max_queue_time),
            lateness: Lateness::default(),
            meter: Meter::default(),
            told: None,
            congested: false,
        };
        let layers: Vec<_> = shared.layers.iter().map(|_| layer()).collect();
        let activity = Activity::new(layers.len(), config.muted);
        Self { config, shared, layers, sid: None, activity, primed: None }
    }

    pub(super) fn is_video(&self) -> bool {
        self.config.codec.is_video()
    }

    /// A layer, with what it shares with its writer.
    pub(super) fn layer_mut(&mut self, layer: usize) -> Option<(&mut LayerState, &LayerShared)> {
        Some((self.layers.get_mut(layer)?, self.shared.layers.get(layer)?))
    }

    /// Whether frames go out, unless a layer is idle.
    pub(super) fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire)
    }

    /// Pauses and resumes layers as the activity says. Gives those that it changed, each with what its encoder
    /// is to be told.
    pub(super) fn follow_activity(&mut self, now: Instant) -> Vec<(usize, Target)> {
        let video = self.is_video();
        let mut changed = Vec::new();
        for (index, idle) in self.activity.changes(now) {
            let config = self.config.layers.get(index).cloned().unwrap_or_default();
            let Some((layer, shared)) = self.layer_mut(index) else { continue };
            if idle == Some(Idle::Muted) {
                // What is not to be seen must not be seen later either.
                layer.keyframes.lost();
            }
            // What an encoder makes for nobody is lost unless it is kept, so what follows must not refer to it.
            let wanted = video && !layer.keyframes.can_resume();
            shared.need_keyframe.store(wanted, Ordering::Release);
            shared.keyframe_wanted.store(false, Ordering::Release);
            shared.set_paused(idle.map(|idle| match idle {
                Idle::Unwatched => DropReason::Unwatched,
                Idle::Muted => DropReason::Muted,
            }));
            let dropped = layer.queue.reset();
            let reason = shared.paused().unwrap_or(DropReason::WaitingForKeyframe);
            shared.counters.retract(dropped.frames, dropped.keyframes, dropped.bytes, reason);
            layer.congested = false;
            // A request that was open will not be answered, and is for nobody.
            layer.keyframes.forget_requests();
            let target = match idle {
                Some(idle) => Target {
                    bitrate: config.min_bitrate,
                    active: false,
                    reason: match idle {
                        Idle::Unwatched => TargetReason::Unwatched,
                        Idle::Muted => TargetReason::Muted,
                    },
                },
                None => Target {
                    bitrate: match config.start_bitrate {
                        0 => config.max_bitrate,
                        start => start,
                    },
                    active: true,
                    reason: TargetReason::Resumed,
                },
            };
            layer.told = Some(target);
            changed.push((index, target));
        }
        changed
    }

    /// Frames go out from now on; a keyframe first, unless one is kept.
    pub(super) fn go_live(&self) {
        for (layer, shared) in self.layers.iter().zip(&self.shared.layers) {
            let wanted = self.is_video() && !layer.keyframes.can_resume();
            shared.need_keyframe.store(wanted, Ordering::Release);
        }
        self.shared.live.store(true, Ordering::Release);
    }

    /// The connection is gone. Returns the id that the server had given the track.
    pub(super) fn go_down(&mut self) -> Option<String> {
        self.primed = None;
        for layer in &mut self.layers {
            let last = std::mem::take(&mut layer.engine_stats);
            layer.earlier.retransmits += last.retransmits;
            layer.earlier.rtx_packets += last.rtx_packets;
            layer.earlier.rtx_bytes += last.rtx_bytes;
            layer.earlier.pli += last.pli;
            layer.earlier.fir += last.fir;
            layer.earlier.nack += last.nack;
            layer.earlier.lost += last.lost;
            layer.waited = (Duration::ZERO, Duration::ZERO);
        }
        self.suspend();
        self.sid.take()
    }

    /// Nothing goes out until it is live again.
    pub(super) fn suspend(&mut self) {
        self.shared.live.store(false, Ordering::Release);
        for layer in &self.shared.layers {
            layer.keyframe_wanted.store(false, Ordering::Release);
        }
        for layer in &mut self.layers {
            layer.keyframes.forget_requests();
            layer.congested = false;
        }
        for (layer, shared) in self.layers.iter_mut().zip(&self.shared.layers) {
            let dropped = layer.queue.reset();
            let reason = DropReason::NotConnected;
            shared.counters.retract(dropped.frames, dropped.keyframes, dropped.bytes, reason);
        }
    }

    /// Whether anything was handed to the engine.
    pub(super) fn has_sent(&self) -> bool {
        self.layers.iter().any(|layer| layer.first_frame.is_some())
    }

    /// When a timer of the track is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let keyframes = self.layers.iter().filter_map(|layer| layer.keyframes.due());
        let activity = self.activity.poll_at();
        keyframes.chain(activity).chain(self.primed.as_ref().map(|primed| primed.until)).min()
    }

    /// A snapshot for each layer, without what the writers count.
    pub(super) fn stats(&self, id: TrackId) -> Vec<TrackStats> {
        let stats = |(index, layer): (usize, &LayerState)| {
            let engine = &layer.engine_stats;
            TrackStats {
                track: Some(id),
                layer: index,
                sid: self.sid.clone(),
                packets_sent: engine.packets,
                retransmits: layer.earlier.retransmits + engine.retransmits,
                rtx_packets: layer.earlier.rtx_packets + engine.rtx_packets,
                rtx_bytes: layer.earlier.rtx_bytes + engine.rtx_bytes,
                pli: layer.earlier.pli + engine.pli,
                fir: layer.earlier.fir + engine.fir,
                nack: layer.earlier.nack + engine.nack,
                rtt: engine.rtt,
                jitter: engine.jitter,
                loss: engine.loss,
                packets_lost: layer.earlier.lost + engine.lost,
                queued_bytes: engine.queued_bytes + layer.queue.bytes() as u64,
                queue_time: layer.waited.1 + engine.queue_time,
                target_bitrate: layer.told.map(|told| if told.active { told.bitrate } else { 0 }),
                keyframes: layer.keyframes.stats(),
                time_to_first_frame: layer.first_frame,
                ..TrackStats::default()
            }
        };
        self.layers.iter().enumerate().map(stats).collect()
    }
}
