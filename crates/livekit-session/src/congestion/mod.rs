// SPDX-License-Identifier: MIT OR Apache-2.0

//! What to do when the network takes less than the encoders make. Pure: no I/O, time is an argument.
//!
//! [`Controller`] turns what the network shows every [`SAMPLE_INTERVAL`] into one bitrate for all video together and
//! into orders for the engine's estimator; [`Allocator`] shares that bitrate over tracks and layers; a [`SendQueue`]
//! per layer keeps frames back until they can leave, and drops the rest of a group of pictures once they are too old.
//!
//! All thresholds stand in this file and nowhere else. They were tuned with live 720p and 1080p encoders behind
//! links that were cut to a third of the stream's bitrate, with 50 ms of delay and up to 5 % of random loss;
//! `benches/congestion` measures them again.

mod allocation;
mod controller;
#[cfg(test)]
mod controller_tests;
mod queue;
mod skew;

pub(crate) use allocation::{Allocator, LayerDemand, Share, TrackDemand};
pub(crate) use controller::{Controller, Demand, Sample};
pub(crate) use queue::{Dropped, SendQueue};
pub(crate) use skew::{Lateness, lead};

use std::time::Duration;

// ---- The estimate and the target ----

/// How often the controller is to be fed. The engine's own averaged estimate follows up to two seconds late; this is
/// its raw value.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Part of the estimate that video may fill (audio comes off after that). The rest is for keyframes, retransmissions
/// and RTP headers, which the estimate does not count.
const UTILISATION: f64 = 0.9;
/// While packets wait this much longer than at best, this part only: what waits has to leave as well.
const DRAIN_DELAY: Duration = Duration::from_millis(80);
const DRAIN_UTILISATION: f64 = 0.75;
/// A goal this much below the target is followed at once …
const DOWN_STEP: f64 = 0.97;
/// … one above it by no more than this factor …
const UP_STEP: f64 = 1.10;
/// … in this time. What a false estimate can do until the delay gives it away is limited by this ramp.
const UP_INTERVAL: Duration = Duration::from_millis(250);
/// Below this part of what the link carried at the last congestion, it may rise by this factor instead: so much has
/// been seen to go through.
const RECOVER_BELOW: f64 = 0.8;
const RECOVER_STEP: f64 = 1.25;
/// So may a layer whose share of it is more than this many times what it was told: others gave way to it.
const CATCH_UP_ABOVE: f64 = 1.5;
/// While packets wait this much longer in the network than at best, the target does not rise and nothing is probed.
const DELAY_GUARD: Duration = Duration::from_millis(40);
/// The shortest round trip of this long a time is taken for the one of an empty path.
const RTT_MEMORY: Duration = Duration::from_secs(30);
/// What an estimator is told to look for: room for keyframes and retransmissions above the encoders' limits, by this
/// factor, and at least by this much, in bit/s. The pacer sends at 1.1 × the estimate: a keyframe of a stream that just
/// fits leaves in a row of small pieces.
const DESIRED_HEADROOM: f64 = 1.2;
const DESIRED_LEAST: u64 = 1_500_000;
/// … and for a layer whose groups of pictures are sent again for who comes late, this many times its bitrate more: such
/// a group goes out only if that takes no longer than a second.
const REPLAY_HEADROOM: u64 = 3;

/// What to tell an estimator to look for, where the encoders may make `wanted` bit/s.
pub(crate) fn desired(wanted: u64) -> u64 {
    let part = (wanted as f64 * DESIRED_HEADROOM) as u64;
    part.max(wanted.saturating_add(DESIRED_LEAST))
}

// ---- Brake: packets suddenly wait; it may be nothing, or the link has become much smaller ----

/// Packets wait this much longer than at best, …
const BRAKE_DELAY: Duration = Duration::from_millis(120);
/// … but less than [`DELAY_GUARD`] not longer ago than this: nothing more is sent for a moment, and what is on its way
/// is not sent again: old pictures would come later still, and the new ones after them.
const BRAKE_WINDOW: Duration = Duration::from_millis(500);
/// As long as the estimator takes to see what has happened. What waits until then is not yet too old.
const BRAKE_HOLD: Duration = Duration::from_millis(250);
/// If packets still wait at its end, the hold goes on, but not beyond this.
const BRAKE_MAX_HOLD: Duration = Duration::from_millis(450);
/// Packets that wait longer still at the next report, by this much and by so much more than when it began, mean panic
/// although the estimator has seen nothing yet: it does not while nothing is sent.
const BRAKE_CONFIRM: Duration = Duration::from_millis(180);
const BRAKE_GROWTH: Duration = Duration::from_millis(50);
/// Part of what was sent that such a link is taken to carry.
const BRAKE_CARRIED: f64 = 0.6;
/// Not again before this time.
const BRAKE_AGAIN: Duration = Duration::from_secs(3);
/// No report for this long since the brake began means panic too, if so many bits were sent that there has to be
/// one: LiveKit's server sends one for every twenty packets (and not more than ten a second), so the link carries less
/// than those in that time.
const SILENCE: Duration = Duration::from_millis(250);
const SILENCE_BITS: f64 = 20.0 * 1200.0 * 8.0;

// ---- Panic: the link has become much smaller ----

/// The estimate fell below this part of its maximum within [`PANIC_WINDOW`], and below what is sent, …
const PANIC_DROP: f64 = 0.65;
const PANIC_WINDOW: Duration = Duration::from_secs(1);
/// … while more than this part of the packets was lost and others wait for more than [`DELAY_GUARD`], …
const PANIC_LOSS: f32 = 0.08;
/// … or this part without any waiting (a link without a queue; a radio link loses less), …
const PANIC_LOSS_ALONE: f32 = 0.25;
/// … or packets wait this much longer than at best.
const PANIC_DELAY: Duration = Duration::from_millis(150);
/// Part of the falling estimate from which to start anew: it is still above what the link carries.
const PANIC_KEEP: f64 = 0.5;
/// Nothing is sent until the network's queue is empty, but not longer than this.
const PANIC_MAX_HOLD: Duration = Duration::from_millis(500);
/// After that the reports of what was lost still come in. The estimator takes them for the present; it is started
/// anew once more, and not believed before, this much later if packets don't wait any more, …
const PANIC_SETTLE: Duration = Duration::from_millis(150);
/// … and in any case after this.
const PANIC_MAX_SETTLE: Duration = Duration::from_millis(500);
/// How long the estimator may not look for more than it was reset to.
const PANIC_CALM: Duration = Duration::from_millis(1500);
/// How long an encoder takes to make a keyframe: it is asked for this much before the hold ends.
pub(crate) const KEYFRAME_LEAD: Duration = Duration::from_millis(40);
/// The estimator is never started anew below this, in bit/s.
const RESET_FLOOR: u64 = 300_000;

// ---- Stuck: the estimator stands still although the path is free ----

/// An estimate that stayed within this part of itself …
const STUCK_BAND: f64 = 0.08;
/// … for this long, though more is wanted, …
const STUCK_AFTER: Duration = Duration::from_secs(4);
/// … with less loss than this …
const STUCK_MAX_LOSS: f32 = 0.10;
/// … and no more than this delay above the best, is started anew from where it stands.
const STUCK_MAX_DELAY: Duration = Duration::from_millis(30);

// ---- Undershoot: the estimator fell far below what the path carries ----

/// An estimate below this part of what went out within [`PROVEN_MEMORY`] without waiting or loss is not believed while
/// packets hardly wait, and hardly any is lost, …
const UNDERSHOOT: f64 = 0.6;
const PROVEN_MEMORY: Duration = Duration::from_secs(5);
/// … and never one below this part of what arrives, as measured over the time after that.
const UNDERSHOOT_ARRIVED: f64 = 0.5;
const ARRIVED_WINDOW: Duration = Duration::from_millis(300);
const ARRIVED_MEMORY: Duration = Duration::from_secs(1);
/// The estimator is started anew: from this part of what arrives, or, where the path is free, …
const ARRIVED_KEEP: f64 = 0.85;
/// … from this part of what went out, if that is more.
const UNDERSHOOT_KEEP: f64 = 0.9;
/// Not again before this time.
const UNDERSHOOT_PAUSE: Duration = Duration::from_millis(250);
/// If it falls again within this time, it may have been right: only this part of that then, and again so each time.
const UNDERSHOOT_AGAIN: Duration = Duration::from_secs(10);
const UNDERSHOOT_LESS: f64 = 0.5;
/// More loss than this is no free path.
const FREE_LOSS: f32 = 0.02;

// ---- Probing: the estimator alone finds new room too slowly ----

/// Time between probes once the estimate exceeds the last congestion's by [`PROBE_ABOVE_PEAK`], or if there was none.
const PROBE_FAST: Duration = Duration::from_millis(1500);
const PROBE_ABOVE_PEAK: f64 = 1.12;
/// Time between probes below that.
const PROBE_SLOW: Duration = Duration::from_secs(3);
/// No probe while more than this is lost.
const PROBE_MAX_LOSS: f32 = 0.05;

// ---- Shares of tracks and layers ----

/// Ceiling of a layer whose `max-bitrate` is unset and that was not seen to make more, in bit/s.
const DEFAULT_MAX: u32 = 2_500_000;
/// A layer with an unset maximum may make this factor of the most that it was seen to make.
const OBSERVED_HEADROOM: f64 = 1.25;
/// No encoder is told less than this, in bit/s: below it no video codec makes a picture.
const FLOOR: u32 = 30_000;
/// Minimum of a layer above the lowest, if `min-bitrate` is unset: this part of its maximum. With less, the layer
/// below looks better.
const DEFAULT_LAYER_MIN: f64 = 0.25;
/// What was told to a layer within this time is told again at once: the estimate that was lower in between was wrong.
const DIP_MEMORY: Duration = Duration::from_secs(1);
/// A layer that was dropped comes back when its minimum fits with this to spare …
const REJOIN_MARGIN: f64 = 1.2;
/// … and not before this time.
const REJOIN_AFTER: Duration = Duration::from_secs(2);
/// … unless there is this many times what all that is sent then needs: it was only for a moment.
const REJOIN_AMPLE: u64 = 2;

// ---- Layers that come differently late ----

/// A layer may be ahead of another by this much: the server bears 50 ms.
const SKEW_ALLOWED: Duration = Duration::from_millis(35);
/// … and waits no longer than this for it.
const SKEW_MAX_WAIT: Duration = Duration::from_millis(200);
/// How late a layer is, its frames of this time show.
const SKEW_MEMORY: Duration = Duration::from_millis(500);
/// For this long after a keyframe was asked for, a viewer may be about to change to the layer: the server asks again each
/// second at least.
pub(crate) const SKEW_PERIOD: Duration = Duration::from_secs(3);

// ---- The queue before the engine ----

/// The engine is given frames while it holds less than this time's worth: what it has can't be taken back.
pub(crate) const ENGINE_QUEUE: Duration = Duration::from_millis(30);
/// The engine's pacer sends at this factor of the estimate.
pub(crate) const PACING_FACTOR: f64 = 1.1;
/// Bytes that one layer's queue may hold, whatever their age.
const MAX_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// A queue that drops asks for a keyframe at most this often.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);
/// While a group of pictures is sent again, live frames may wait for twice the time that should take, and this.
pub(crate) const REPLAY_PATIENCE: Duration = Duration::from_millis(500);
