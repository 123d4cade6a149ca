// SPDX-License-Identifier: MIT OR Apache-2.0

//! From what the network shows to a bitrate for all video together, and to orders for the engine's estimator.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{
    ARRIVED_KEEP, ARRIVED_MEMORY, ARRIVED_WINDOW, BRAKE_AGAIN, BRAKE_CARRIED, BRAKE_CONFIRM, BRAKE_DELAY,
    BRAKE_GROWTH, BRAKE_HOLD, BRAKE_MAX_HOLD, BRAKE_WINDOW, DELAY_GUARD, DOWN_STEP, DRAIN_DELAY,
    DRAIN_UTILISATION, FREE_LOSS, PANIC_CALM, PANIC_DELAY, PANIC_DROP, PANIC_KEEP, PANIC_LOSS,
    PANIC_LOSS_ALONE, PANIC_MAX_HOLD, PANIC_MAX_SETTLE, PANIC_SETTLE, PANIC_WINDOW, PROBE_ABOVE_PEAK,
    PROBE_FAST, PROBE_MAX_LOSS, PROBE_SLOW, PROVEN_MEMORY, RECOVER_BELOW, RECOVER_STEP, RESET_FLOOR,
    RTT_MEMORY, SAMPLE_INTERVAL, SILENCE, SILENCE_BITS, STUCK_AFTER, STUCK_BAND, STUCK_MAX_DELAY,
    STUCK_MAX_LOSS, UNDERSHOOT, UNDERSHOOT_AGAIN, UNDERSHOOT_ARRIVED, UNDERSHOOT_KEEP, UNDERSHOOT_LESS,
    UNDERSHOOT_PAUSE, UP_INTERVAL, UP_STEP, UTILISATION,
};

/// What the network showed since the last sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// What the estimator thinks the path carries, unaveraged, in bit/s of RTP payload.
    pub(crate) estimate: Option<u64>,
    /// Part of the packets of the last second that were reported lost, 0..1 (transport-cc).
    pub(crate) loss: Option<f32>,
    /// The last packet's way there and its report's way back.
    pub(crate) rtt: Option<Duration>,
    /// RTP payload bytes sent since the connection began.
    pub(crate) bytes_sent: u64,
}

/// What could be sent, in bit/s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The sum of what the wanted layers can use at most.
    pub(crate) max: u64,
    /// The sum of what they would like to start with.
    pub(crate) start: u64,
    /// What audio takes.
    pub(crate) audio: u64,
    /// What is not sent all the time, but worth knowing that it could be.
    pub(crate) spare: u64,
}

/// What to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// For all video together, in bit/s. `None` = there is no estimate yet.
    pub(crate) video: Option<u64>,
    /// The network, not the wish, is what limits `video`.
    pub(crate) limited: bool,
    /// Send nothing until then.
    pub(crate) hold: Option<Instant>,
    /// Forget what could be retransmitted.
    pub(crate) forget: bool,
    /// The link has become much smaller: clear the queues, and ask for keyframes that are ready when the hold ends.
    pub(crate) panic: bool,
    /// Start the estimator anew from this, in bit/s. To be done after `desired`.
    pub(crate) reset: Option<u64>,
    /// Tell the estimator to look for this, in bit/s.
    pub(crate) desired: Option<u64>,
}

/// See the module's documentation; its thresholds stand in the parent module.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    estimates: VecDeque<(Instant, u64)>,
    sent: VecDeque<(Instant, u64)>,
    /// When reports came, and what had been sent when the last packet left that they speak of.
    arrived: VecDeque<(Instant, u64)>,
    rtt: Option<Duration>,
    /// When the last report came.
    heard: Option<Instant>,
    rtts: MinRtt,
    target: Option<f64>,
    target_at: Option<Instant>,
    start_demand: u64,
    /// The estimate at the last congestion.
    peak: Option<u64>,
    desired: Option<u64>,
    /// The estimator must not look for more than this, until then.
    calm: Option<(u64, Instant)>,
    panicked: Option<Instant>,
    braked: Option<Instant>,
    /// Nothing was sent between these.
    held: Option<(Instant, Instant)>,
    /// How long packets waited, and what was sent, when the brake began.
    brake_began: (Duration, u64),
    /// The most that went out lately without waiting or loss.
    proven: Option<(u64, Instant)>,
    /// When an estimate far below that was put right last, and how often in a row.
    undershot: Option<(Instant, i32)>,
    /// When packets last did not wait.
    calm_at: Option<Instant>,
    /// After a panic: what the estimator is started with once more, and the end of the hold.
    settle: Option<(u64, Instant)>,
    /// The estimate that stands still, and since when.
    still: Option<(u64, Instant)>,
    probed: Option<Instant>,
    /// The desired bitrate was lowered, so that raising it makes the estimator probe.
    probing: bool,
}

impl Controller {
    /// Takes a sample, one each [`super::SAMPLE_INTERVAL`], and says what to do.
    pub(crate) fn sample(&mut self, now: Instant, sample: Sample, demand: Demand) -> Decision {
        let Some(raw) = sample.estimate else {
            return Decision { desired: self.desire(now, None, demand), ..Decision::default() };
        };
        let view = self.look(now, raw, &sample);
        let mut decision = Decision::default();
        if let Some((init, at)) = self.settle {
            let quiet = view.queueing < DRAIN_DELAY;
            if now >= at + if quiet { PANIC_SETTLE } else { PANIC_MAX_SETTLE } {
                self.settle = None;
                self.restart(now, init);
                decision.reset = Some(init);
            }
        } else if let Some(init) = self.panic(now, &view) {
            // What the queue holds was sent before the brake, if there was one.
            let last_sent = self.held_since(now).unwrap_or(now);
            let hold = last_sent + view.queueing.min(PANIC_MAX_HOLD);
            decision.panic = true;
            decision.forget = true;
            decision.hold = Some(hold.max(now));
            decision.reset = Some(init);
            self.settle = Some((init, hold.max(now)));
        } else if self.brake(now, &view) {
            decision.forget = true;
            decision.hold = Some(now + BRAKE_HOLD);
        } else if self.is_braking(now) && view.queueing > BRAKE_DELAY {
            let braked = self.braked.unwrap_or(now);
            decision.hold = Some((now + SAMPLE_INTERVAL * 5 / 4).max(braked + BRAKE_HOLD));
        } else if let Some(init) = self.undershot(now, &view) {
            decision.reset = Some(init);
            self.target = self.target.map(|target| target.max(UTILISATION * init as f64));
        } else if let Some(init) = self.stuck(now, &view, demand) {
            decision.reset = Some(init);
        }
        if let Some(end) = decision.hold {
            self.held = Some((self.held_since(now).unwrap_or(now), end));
        }
        let told = self.settle.map(|(init, _)| init).or(decision.reset);
        let raw = told.unwrap_or_else(|| self.credible(&view));
        let goal = self.goal(raw, &view, demand);
        decision.video = Some(self.follow(now, goal, &view, demand));
        decision.limited = goal < demand.max;
        let probe = self.probe(now, &view, demand, goal);
        decision.desired = self.desire(now, probe.then_some(raw), demand);
        decision
    }

    fn look(&mut self, now: Instant, raw: u64, sample: &Sample) -> View {
        self.estimates.push_back((now, raw));
        self.sent.push_back((now, sample.bytes_sent));
        for history in [&mut self.estimates, &mut self.sent] {
            while history.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > PANIC_WINDOW) {
                history.pop_front();
            }
        }
        if let Some(rtt) = sample.rtt {
            self.rtts.add(now, rtt);
            // No two reports show the same to the nanosecond.
            if self.rtt.replace(rtt) != Some(rtt) {
                self.heard = Some(now);
                // Of what was sent longer ago than that nothing is known.
                let left =
                    now.checked_sub(rtt).filter(|left| self.sent.front().is_some_and(|(at, _)| at <= left));
                self.arrived.extend(left.map(|left| (now, self.sent_until(left))));
                while self.arrived.front().is_some_and(|(at, _)| now - *at > ARRIVED_MEMORY) {
                    self.arrived.pop_front();
                }
            }
        }
        let best = self.rtts.get();
        let sent = match (self.sent.front(), self.sent.back()) {
            (Some((from, a)), Some((to, b))) if to > from => {
                (b.saturating_sub(*a) as f64 * 8.0 / (*to - *from).as_secs_f64()) as u64
            }
            _ => 0,
        };
        View {
            raw,
            highest: self.estimates.iter().map(|(_, e)| *e).max().unwrap_or(raw),
            loss: sample.loss.unwrap_or(0.0),
            queueing: sample.rtt.zip(best).map(|(rtt, best)| rtt.saturating_sub(best)).unwrap_or_default(),
            sent,
            arrived: self.arrived(now, sample.loss.unwrap_or(0.0)),
        }
    }

    /// Bytes that were sent before a time.
    fn sent_until(&self, time: Instant) -> u64 {
        let after = self.sent.iter().position(|(at, _)| *at > time).unwrap_or(self.sent.len());
        let before = after.checked_sub(1).and_then(|i| self.sent.get(i));
        match (before, self.sent.get(after)) {
            (Some((from, a)), Some((to, b))) => {
                let part = (time - *from).as_secs_f64() / (*to - *from).as_secs_f64();
                a + (b.saturating_sub(*a) as f64 * part) as u64
            }
            (one, other) => one.or(other).map_or(0, |(_, bytes)| *bytes),
        }
    }

    /// What came through lately, in bit/s, if there are reports that tell.
    pub(super) fn arrived(&self, now: Instant, loss: f32) -> Option<u64> {
        let (to, b) = *self.arrived.back().filter(|(at, _)| now - *at < ARRIVED_WINDOW)?;
        let (from, a) = *self.arrived.iter().rev().find(|(at, _)| to - *at >= ARRIVED_WINDOW)?;
        let rate = b.saturating_sub(a) as f64 * 8.0 / (to - from).as_secs_f64();
        Some((rate * f64::from(1.0 - loss.clamp(0.0, 1.0))) as u64)
    }

    /// Bits that were sent and not reported on.
    fn unreported(&self) -> f64 {
        let (sent, reported) = (self.sent.back(), self.arrived.back());
        sent.zip(reported)
            .map_or(0.0, |((_, sent), (_, reported))| sent.saturating_sub(*reported) as f64 * 8.0)
    }

    /// Since when nothing is sent.
    fn held_since(&self, now: Instant) -> Option<Instant> {
        self.held.filter(|(_, end)| *end >= now).map(|(begin, _)| begin)
    }

    /// Whether a brake may still be on.
    fn is_braking(&self, now: Instant) -> bool {
        self.braked.is_some_and(|at| now.saturating_duration_since(at) < BRAKE_MAX_HOLD - SAMPLE_INTERVAL)
    }

    /// Whether packets have suddenly begun to wait.
    fn brake(&mut self, now: Instant, view: &View) -> bool {
        let past = |at: Option<Instant>, time| at.is_none_or(|at| now.saturating_duration_since(at) >= time);
        if view.queueing < DELAY_GUARD {
            self.calm_at = Some(now);
        }
        let sudden = !past(self.calm_at, BRAKE_WINDOW);
        let brake = view.queueing > BRAKE_DELAY && view.sent > 0 && sudden && past(self.braked, BRAKE_AGAIN);
        if brake {
            self.braked = Some(now);
            self.brake_began = (view.queueing, view.sent);
        }
        brake
    }

    /// What to start the estimator with, if the link has collapsed.
    fn panic(&mut self, now: Instant, view: &View) -> Option<u64> {
        let again = self.panicked.is_none_or(|at| now.saturating_duration_since(at) >= PANIC_WINDOW);
        let collapsed = (view.raw as f64) < PANIC_DROP * view.highest as f64 && view.raw < view.sent;
        let waits = view.queueing > DELAY_GUARD;
        let lost = view.loss > if waits { PANIC_LOSS } else { PANIC_LOSS_ALONE };
        let hurts = lost || view.queueing > PANIC_DELAY;
        let (waited, sent) = self.brake_began;
        let confirmed = self.is_braking(now) && view.queueing > BRAKE_CONFIRM.max(waited + BRAKE_GROWTH);
        // A report needs packets that arrive. (After one of what was sent last there is nothing to report.)
        let unheard = self.held_since(now).filter(|begin| self.heard.is_some_and(|heard| heard <= *begin));
        let silence = unheard.map_or(Duration::ZERO, |begin| now - begin);
        let silent = silence >= SILENCE && view.queueing > BRAKE_CONFIRM && self.unreported() >= SILENCE_BITS;
        let least_packets = if silent { SILENCE_BITS / silence.as_secs_f64() } else { f64::INFINITY };
        // A loss-based estimate may have fallen far too low.
        let arrived = view.sent as f64 * f64::from(1.0 - view.loss.clamp(0.0, 1.0));
        let carried = match (collapsed && hurts, confirmed || silent) {
            _ if !again => return None,
            (true, _) => (view.raw as f64).min(arrived).max(arrived / 3.0),
            (false, true) => (view.raw as f64).min(BRAKE_CARRIED * sent as f64).min(least_packets),
            (false, false) => return None,
        };
        let init = ((PANIC_KEEP * carried) as u64).max(RESET_FLOOR);
        self.panicked = Some(now);
        self.peak = Some(carried as u64);
        // Half of what the link carried, so it goes through once the queue is empty, whatever the estimator makes of the reports until then.
        self.proven = Some((init, now));
        self.restart(now, init);
        Some(init)
    }

    /// What to start the estimator with, if it fell far below what has just been carried.
    fn undershot(&mut self, now: Instant, view: &View) -> Option<u64> {
        let free = view.is_free();
        self.proven = self.proven.filter(|(_, at)| now.saturating_duration_since(*at) < PROVEN_MEMORY);
        let flowed = view.sent.min(view.raw);
        if free && self.proven.is_none_or(|(most, _)| flowed >= most) {
            self.proven = Some((flowed, now));
        }
        let (carried, arrived) = self.floors(view);
        let lately = self.undershot.filter(|(at, _)| now.saturating_duration_since(*at) < UNDERSHOOT_AGAIN);
        let just = lately.is_some_and(|(at, _)| now.saturating_duration_since(at) < UNDERSHOOT_PAUSE);
        let low = arrived > 0.0 || (free && (view.raw as f64) < carried);
        if just || !low {
            return None;
        }
        let before = lately.map_or(0, |(_, times)| times);
        self.undershot = Some((now, before.saturating_add(1)));
        let kept = match self.proven.take() {
            Some((most, _)) if free => {
                let kept = UNDERSHOOT_KEEP * UNDERSHOOT_LESS.powi(before) * most as f64;
                kept.max(RESET_FLOOR.min(most) as f64)
            }
            _ => 0.0,
        };
        let init = kept.max(arrived) as u64;
        if init <= view.raw {
            return None;
        }
        self.restart(now, init);
        Some(init)
    }

    /// Below what no estimate is believed: by what was carried without waiting or loss, and by what arrives.
    fn floors(&self, view: &View) -> (f64, f64) {
        if view.loss > PROBE_MAX_LOSS {
            return (0.0, 0.0);
        }
        let proven = self.proven.filter(|_| view.is_free()).map_or(0, |(most, _)| most);
        let arrived = view.arrived.map_or(0.0, |arrived| arrived as f64);
        let low = (view.raw as f64) < UNDERSHOOT_ARRIVED * arrived;
        (UNDERSHOOT * proven as f64, if low { ARRIVED_KEEP * arrived } else { 0.0 })
    }

    /// The estimate, as far as what it says fits the rest: an estimator that has hardly seen a packet lately takes
    /// that for all the path carries once it sees the next one late.
    fn credible(&self, view: &View) -> u64 {
        let (carried, arrived) = self.floors(view);
        view.raw.max(carried.max(arrived) as u64)
    }

    /// What to start the estimator with, if it stands still for no reason.
    fn stuck(&mut self, now: Instant, view: &View, demand: Demand) -> Option<u64> {
        let wanted = self.goal(view.raw, view, demand) < demand.max;
        let near = |still: u64| view.raw.abs_diff(still) as f64 <= STUCK_BAND * still as f64;
        let quiet = view.loss < STUCK_MAX_LOSS && view.queueing < STUCK_MAX_DELAY;
        match self.still {
            Some((still, since)) if wanted && quiet && near(still) => {
                if now.saturating_duration_since(since) < STUCK_AFTER {
                    return None;
                }
            }
            _ => {
                self.still = Some((view.raw, now));
                return None;
            }
        }
        let init = view.raw.max(RESET_FLOOR);
        self.restart(now, init);
        Some(init)
    }

    /// The estimator begins anew: what it said before means nothing now, and its first probes go up to twice what it
    /// is told to look for.
    fn restart(&mut self, now: Instant, init: u64) {
        self.estimates.clear();
        self.estimates.push_back((now, init));
        self.still = None;
        self.probing = false;
        self.probed = Some(now);
        self.calm = Some((init, now + PANIC_CALM));
    }

    fn goal(&self, raw: u64, view: &View, demand: Demand) -> u64 {
        let part = if view.queueing > DRAIN_DELAY { DRAIN_UTILISATION } else { UTILISATION };
        let goal = (part * raw as f64) as u64;
        goal.saturating_sub(demand.audio).min(demand.max)
    }

    fn follow(&mut self, now: Instant, goal: u64, view: &View, demand: Demand) -> u64 {
        let joined = demand.start.saturating_sub(std::mem::replace(&mut self.start_demand, demand.start));
        let goal = goal as f64;
        let elapsed =
            self.target_at.replace(now).map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        let target = match self.target {
            None => goal.min(demand.start as f64),
            Some(target) if goal < DOWN_STEP * target => {
                let congested = view.queueing > DELAY_GUARD || view.loss > PROBE_MAX_LOSS;
                if congested && self.panicked != Some(now) {
                    self.peak = Some(view.highest.min((target / UTILISATION) as u64));
                }
                goal
            }
            Some(target) if goal > target => {
                let steps = elapsed.as_secs_f64() / UP_INTERVAL.as_secs_f64();
                let known = self.peak.is_some_and(|peak| target < RECOVER_BELOW * UTILISATION * peak as f64);
                let factor = if known { RECOVER_STEP } else { UP_STEP };
                let step = if view.queueing < DELAY_GUARD { factor.powf(steps.min(1.0)) } else { 1.0 };
                // What is new to the room starts as it wants to.
                goal.min(target * step + joined as f64)
            }
            Some(target) => target,
        };
        self.target = Some(target);
        target as u64
    }

    fn probe(&self, now: Instant, view: &View, demand: Demand, goal: u64) -> bool {
        if self.probing || self.calm.is_some() || goal >= demand.max {
            return false;
        }
        let above = self.peak.is_none_or(|peak| view.raw as f64 > PROBE_ABOVE_PEAK * peak as f64);
        let pause = if above { PROBE_FAST } else { PROBE_SLOW };
        let due = self.probed.is_none_or(|at| now.saturating_duration_since(at) >= pause);
        due && view.queueing < DELAY_GUARD && view.loss < PROBE_MAX_LOSS
    }

    /// What the estimator is to look for, if that is news to it. An estimator probes when its wish rises above its
    /// estimate; so for a probe the wish goes below `probe`, the estimate, for one sample.
    fn desire(&mut self, now: Instant, probe: Option<u64>, demand: Demand) -> Option<u64> {
        if self.calm.is_some_and(|(_, until)| now >= until) {
            self.calm = None;
            // Raising the wish now is a probe.
            self.probed = Some(now);
        }
        let all = super::desired(demand.max + demand.audio).saturating_add(demand.spare);
        let desired = match (self.calm, probe) {
            (Some((limit, _)), _) => limit.min(all),
            (None, Some(estimate)) => (estimate / 2).min(all),
            (None, None) => all,
        };
        self.probing = probe.is_some();
        if self.probing {
            self.probed = Some(now);
        }
        (self.desired.replace(desired) != Some(desired)).then_some(desired)
    }
}

/// A sample, and what the ones before it say about it.
#[derive(Debug)]
struct View {
    raw: u64,
    /// The highest estimate of the last second.
    highest: u64,
    loss: f32,
    /// How much longer a packet takes than at best.
    queueing: Duration,
    /// Bit/s of the last second.
    sent: u64,
    /// Bit/s that came through, without what was lost.
    arrived: Option<u64>,
}

impl View {
    /// Packets hardly wait, and hardly any is lost.
    fn is_free(&self) -> bool {
        self.queueing < STUCK_MAX_DELAY && self.loss < FREE_LOSS
    }
}

/// The shortest round trip of the last [`RTT_MEMORY`], remembered in two halves.
#[derive(Debug, Default)]
pub(super) struct MinRtt {
    now: Option<(Instant, Duration)>,
    before: Option<Duration>,
}

impl MinRtt {
    pub(super) fn add(&mut self, now: Instant, rtt: Duration) {
        match &mut self.now {
            Some((since, least)) if now.saturating_duration_since(*since) < RTT_MEMORY / 2 => {
                *least = (*least).min(rtt);
            }
            half => self.before = half.replace((now, rtt)).map(|(_, least)| least),
        }
    }

    pub(super) fn get(&self) -> Option<Duration> {
        self.now.map(|(_, least)| least).into_iter().chain(self.before).min()
    }
}
