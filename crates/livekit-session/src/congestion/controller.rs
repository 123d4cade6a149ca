// SPDX-License-Identifier: MIT OR Apache-2.0

//! From what the network shows to a bitrate for all video together, and to orders for the engine's estimator.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{
    BRAKE_AGAIN, BRAKE_CARRIED, BRAKE_CONFIRM, BRAKE_DELAY, BRAKE_GROWTH, BRAKE_HOLD, BRAKE_MAX_HOLD,
    BRAKE_WINDOW, DELAY_GUARD, DOWN_STEP, DRAIN_DELAY, DRAIN_UTILISATION, FREE_LOSS, PANIC_CALM, PANIC_DELAY,
    PANIC_DROP, PANIC_KEEP, PANIC_LOSS, PANIC_MAX_HOLD, PANIC_MAX_SETTLE, PANIC_SETTLE, PANIC_WINDOW,
    PROBE_ABOVE_PEAK, PROBE_FAST, PROBE_MAX_LOSS, PROBE_SLOW, PROVEN_MEMORY, RECOVER_BELOW, RECOVER_STEP,
    RESET_FLOOR, RTT_MEMORY, SAMPLE_INTERVAL, STUCK_AFTER, STUCK_BAND, STUCK_MAX_DELAY, STUCK_MAX_LOSS,
    UNDERSHOOT, UNDERSHOOT_AFTER, UNDERSHOOT_AGAIN, UNDERSHOOT_KEEP, UNDERSHOOT_LESS, UP_INTERVAL, UP_STEP,
    UTILISATION,
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
    /// How long packets waited, and what was sent, when the brake began.
    brake_began: (Duration, u64),
    /// The most that went out lately without waiting or loss.
    proven: Option<(u64, Instant)>,
    /// Since when the estimate is far below that on a free path.
    under: Option<Instant>,
    /// When that was put right last, and how often in a row.
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
            let last_sent = self.braked.filter(|_| self.is_braking(now)).unwrap_or(now);
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
        let raw = self.settle.map(|(init, _)| init).or(decision.reset).unwrap_or(raw);
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
        }
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
        let hurts = view.loss > PANIC_LOSS || view.queueing > PANIC_DELAY;
        let (waited, sent) = self.brake_began;
        let confirmed = self.is_braking(now) && view.queueing > BRAKE_CONFIRM.max(waited + BRAKE_GROWTH);
        // A loss-based estimate may have fallen far too low.
        let arrived = view.sent as f64 * f64::from(1.0 - view.loss.clamp(0.0, 1.0));
        let carried = match (collapsed && hurts, confirmed) {
            _ if !again => return None,
            (true, _) => (view.raw as f64).min(arrived).max(arrived / 3.0),
            (false, true) => (view.raw as f64).min(BRAKE_CARRIED * sent as f64),
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
        let free = view.queueing < STUCK_MAX_DELAY && view.loss < FREE_LOSS;
        self.proven = self.proven.filter(|(_, at)| now.saturating_duration_since(*at) < PROVEN_MEMORY);
        let flowed = view.sent.min(view.raw);
        if free && self.proven.is_none_or(|(most, _)| flowed >= most) {
            self.proven = Some((flowed, now));
        }
        let (most, _) = self.proven?;
        if !free || view.raw as f64 >= UNDERSHOOT * most as f64 {
            self.under = None;
            return None;
        }
        let since = *self.under.get_or_insert(now);
        if now.saturating_duration_since(since) < UNDERSHOOT_AFTER {
            return None;
        }
        let lately = self.undershot.filter(|(at, _)| now.saturating_duration_since(*at) < UNDERSHOOT_AGAIN);
        let before = lately.map_or(0, |(_, times)| times);
        (self.under, self.proven, self.undershot) = (None, None, Some((now, before.saturating_add(1))));
        let init = UNDERSHOOT_KEEP * UNDERSHOOT_LESS.powi(before) * most as f64;
        let init = (init as u64).max(RESET_FLOOR.min(most));
        if init <= view.raw {
            return None;
        }
        self.restart(now, init);
        Some(init)
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
}

/// The shortest round trip of the last [`RTT_MEMORY`], remembered in two halves.
#[derive(Debug, Default)]
struct MinRtt {
    now: Option<(Instant, Duration)>,
    before: Option<Duration>,
}

impl MinRtt {
    fn add(&mut self, now: Instant, rtt: Duration) {
        match &mut self.now {
            Some((since, least)) if now.saturating_duration_since(*since) < RTT_MEMORY / 2 => {
                *least = (*least).min(rtt);
            }
            half => self.before = half.replace((now, rtt)).map(|(_, least)| least),
        }
    }

    fn get(&self) -> Option<Duration> {
        self.now.map(|(_, least)| least).into_iter().chain(self.before).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DEMAND: Demand = Demand { max: 2_500_000, start: 2_500_000, audio: 0, spare: 0 };

    /// Feeds samples 100 ms apart; the bytes sent follow the target as a good encoder's do.
    struct Feed {
        controller: Controller,
        now: Instant,
        bytes: u64,
        rate: u64,
        rtt: Duration,
        demand: Demand,
        log: Vec<Decision>,
    }

    impl Feed {
        fn new(demand: Demand) -> Self {
            let now = Instant::now();
            let (controller, log) = (Controller::default(), Vec::new());
            Self { controller, now, bytes: 0, rate: demand.start, rtt: 20 * MS, demand, log }
        }

        fn one(&mut self, kbit: u64, loss: f32, queueing: u32) -> Decision {
            self.now += 100 * MS;
            self.bytes += self.rate / 80;
            let sample = Sample {
                estimate: Some(kbit * 1000),
                loss: Some(loss),
                rtt: Some(self.rtt + queueing * MS),
                bytes_sent: self.bytes,
            };
            let decision = self.controller.sample(self.now, sample, self.demand);
            self.rate = decision.video.unwrap_or(self.rate);
            self.log.push(decision);
            decision
        }

        fn many(&mut self, count: u32, kbit: u64, loss: f32, queueing: u32) -> Decision {
            (0..count).map(|_| self.one(kbit, loss, queueing)).last().unwrap_or_default()
        }

        fn panics(&self) -> usize {
            self.log.iter().filter(|d| d.panic).count()
        }

        fn resets(&self) -> usize {
            self.log.iter().filter(|d| d.reset.is_some()).count()
        }

        /// Times, in tenths of a second, at which the wish fell and so a probe began.
        fn probes(&self) -> Vec<usize> {
            let fell = |(_, d): &(usize, &Decision)| d.desired.is_some_and(|d| d < 2_000_000);
            self.log.iter().enumerate().filter(fell).map(|(i, _)| i).collect()
        }
    }

    #[test]
    fn room_for_what_is_sent_again_is_looked_for_and_not_given_to_encoders() {
        let mut f = Feed::new(Demand { spare: 6_000_000, ..DEMAND });
        let first = f.one(9000, 0.0, 0);
        assert_eq!(first.desired, Some(10_000_000));
        assert_eq!(f.many(50, 9000, 0.0, 0).video, Some(2_500_000));
    }

    #[test]
    fn without_an_estimate_there_is_only_a_wish() {
        let mut c = Controller::default();
        let now = Instant::now();
        let decision = c.sample(now, Sample::default(), DEMAND);
        assert_eq!(decision, Decision { desired: Some(4_000_000), ..Decision::default() });
        assert_eq!(c.sample(now, Sample::default(), DEMAND), Decision::default(), "said once");
    }

    #[test]
    fn a_free_path_gives_all_that_is_wanted_and_nothing_else_happens() {
        let mut f = Feed::new(DEMAND);
        f.many(600, 8000, 0.0, 0);
        assert!(f.log.iter().all(|d| d.video == Some(2_500_000) && !d.limited));
        assert_eq!((f.panics(), f.resets(), f.probes()), (0, 0, vec![]));
    }

    #[test]
    fn the_start_bitrate_is_the_start_and_then_it_grows_in_steps() {
        let mut f = Feed::new(Demand { start: 1_000_000, ..DEMAND });
        assert_eq!(f.one(8000, 0.0, 0).video, Some(1_000_000));
        let after_half_a_second = f.many(5, 8000, 0.0, 0).video.unwrap();
        assert!((1_200_000..=1_220_000).contains(&after_half_a_second), "{after_half_a_second}");
        assert_eq!(f.many(30, 8000, 0.0, 0).video, Some(2_500_000));
    }

    #[test]
    fn a_low_estimate_goes_before_the_start_bitrate() {
        let mut f = Feed::new(DEMAND);
        assert_eq!(f.one(1000, 0.0, 0).video, Some(900_000));
    }

    #[test]
    fn audio_comes_off() {
        let mut f = Feed::new(Demand { audio: 64_000, ..DEMAND });
        let decision = f.one(1000, 0.0, 0);
        assert_eq!((decision.video, decision.limited), (Some(836_000), true));
        assert_eq!(f.one(0, 0.0, 0).video, Some(0), "never below nothing");
    }

    #[test]
    fn down_at_once_up_in_steps_and_not_while_packets_wait() {
        let mut f = Feed::new(DEMAND);
        f.many(5, 2000, 0.0, 0);
        assert_eq!(f.one(1500, 0.0, 0).video, Some(1_350_000));
        assert_eq!(f.many(10, 2500, 0.0, 60).video, Some(1_350_000), "packets wait");
        let up = f.many(5, 2500, 0.0, 10).video.unwrap();
        assert!((1_620_000..=1_640_000).contains(&up), "10 % in 250 ms, not more: {up}");
        let less = f.one(up / 900 - up / 45_000, 0.0, 0).video.unwrap();
        assert_eq!(less, up, "2 % less is nothing");
    }

    /// 2.5 Mbit/s into 1 Mbit/s: first the queue fills, then packets are lost, then the estimate falls.
    fn cut() -> Feed {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        f.one(6000, 0.0, 60);
        f.one(6000, 0.0, 170);
        f.one(6000, 0.05, 175);
        f
    }

    /// Milliseconds from the last sample to the end of the hold.
    fn held(f: &Feed, decision: Decision) -> Option<u128> {
        decision.hold.map(|hold| hold.saturating_duration_since(f.now).as_millis())
    }

    #[test]
    fn when_packets_suddenly_wait_nothing_more_is_sent_for_a_moment() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        let first = f.one(6000, 0.0, 60);
        assert_eq!(held(&f, first), None);
        let brake = f.one(6000, 0.0, 200);
        assert_eq!((held(&f, brake), brake.panic), (Some(250), false));
        assert!(brake.forget && !first.forget, "nothing is sent again meanwhile");
        let again = f.one(6000, 0.0, 2);
        assert_eq!(held(&f, again), None, "it was nothing");
        f.many(4, 6000, 0.0, 2);
        let next = f.one(6000, 0.0, 200);
        assert_eq!(held(&f, next), None, "not again so soon, should it happen often");
        f.many(40, 6000, 0.0, 2);
        let later = f.one(6000, 0.0, 200);
        assert_eq!(held(&f, later), Some(250));
    }

    #[test]
    fn a_brake_goes_on_while_packets_wait_but_not_for_ever() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        let mut ends = Vec::new();
        for _ in 0..10 {
            let decision = f.one(6000, 0.0, 200);
            ends.extend(decision.hold);
        }
        let braked = f.now - 900 * MS;
        let ends: Vec<_> = ends.into_iter().map(|end| (end - braked).as_millis()).collect();
        assert_eq!(ends, [250, 250, 325, 425]);
    }

    #[test]
    fn packets_that_wait_longer_and_longer_are_no_reason_to_brake() {
        let mut f = Feed::new(DEMAND);
        for n in 0..60 {
            assert_eq!(f.one(6000, 0.0, n * 4).hold, None);
        }
    }

    #[test]
    fn packets_that_wait_longer_still_while_nothing_is_sent_mean_panic() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        f.one(6000, 0.0, 130);
        let decision = f.one(6000, 0.0, 230);
        assert!(decision.panic);
        assert_eq!(held(&f, decision), Some(128));
        let init = decision.reset.unwrap();
        assert!((745_000..=755_000).contains(&init), "{init}");
        assert!(decision.video.unwrap() < init);
    }

    #[test]
    fn an_estimate_that_fell_far_below_what_went_through_is_put_right() {
        let mut f = Feed::new(Demand { max: 4_000_000, start: 4_000_000, audio: 0, spare: 0 });
        f.many(30, 1000, 0.0, 2);
        let sent = f.rate;
        assert_eq!(sent, 900_000);
        f.one(250, 0.0, 60);
        let low = f.many(4, 250, 0.0, 2);
        assert_eq!((low.video, f.resets()), (Some(225_000), 0));
        let put_right = f.one(250, 0.0, 2);
        let init = put_right.reset.unwrap();
        assert!((800_000..=815_000).contains(&init), "{init}");
        assert!(put_right.video.unwrap() >= 720_000, "at once: so much went through");
        f.many(20, 250, 0.0, 2);
        assert_eq!(f.resets(), 1, "once: if it falls again, it was right");
    }

    #[test]
    fn an_estimate_that_fell_because_of_loss_or_waiting_is_believed() {
        for (loss, queueing) in [(0.05, 2), (0.0, 60)] {
            let mut f = Feed::new(Demand { max: 4_000_000, start: 4_000_000, audio: 0, spare: 0 });
            f.many(30, 1000, 0.0, 2);
            f.many(30, 250, loss, queueing);
            assert_eq!(f.resets(), 0, "{loss} {queueing}");
        }
    }

    #[test]
    fn a_link_that_collapses_means_panic_once() {
        let mut f = cut();
        let decision = f.one(1600, 0.1, 300);
        assert!(decision.panic);
        // The brake came 200 ms ago: what waits in the network was sent before that.
        assert_eq!(held(&f, decision), Some(98));
        assert_eq!(decision.reset, Some(800_000), "well below what still falls");
        assert_eq!(decision.desired, Some(800_000), "its first probes must be small");
        let video = decision.video.unwrap();
        assert_eq!(video, 600_000);
        // The loss of the last second is still there, and the estimator takes it for the present.
        for decision in [f.one(800, 0.3, 290), f.one(200, 0.3, 100)] {
            assert_eq!((decision.video, decision.reset, decision.panic), (Some(video), None, false));
        }
        let settled = f.one(200, 0.3, 20);
        assert_eq!((settled.reset, settled.panic), (Some(800_000), false), "once more");
        f.many(6, 500, 0.2, 0);
        assert_eq!(f.panics(), 1);
        assert!(f.log.iter().rev().take(9).all(|d| d.desired.is_none()), "calm");
        f.many(10, 850, 0.0, 0);
        assert_eq!(f.log.iter().filter_map(|d| d.desired).next_back(), Some(4_000_000), "and then all");
    }

    #[test]
    fn what_the_link_carried_is_reached_again_faster_than_what_it_never_did() {
        let mut f = cut();
        let start = f.one(1600, 0.1, 300).video.unwrap();
        assert_eq!(start, 600_000);
        f.many(6, 667, 0.0, 10);
        // The link carried 1.6 Mbit/s. To 80 % of that by a quarter each 250 ms, from there on by a tenth.
        let half_a_second = f.many(5, 6000, 0.0, 0).video.unwrap();
        assert!((1.5..=1.6).contains(&(half_a_second as f64 / start as f64)), "{half_a_second}");
        let high = f.many(15, 6000, 0.0, 0).video.unwrap();
        let next = f.many(5, 6000, 0.0, 0).video.unwrap();
        assert!((1.20..=1.22).contains(&(next as f64 / high as f64)), "{high} {next}");
    }

    #[test]
    fn an_estimate_that_falls_after_a_panic_is_put_right_by_what_the_link_carried() {
        let mut f = cut();
        let init = f.one(1600, 0.1, 300).reset.unwrap();
        assert_eq!(init, 800_000);
        f.many(10, 800, 0.0, 10);
        assert_eq!(f.resets(), 2, "the panic's own");
        let put_right = (0..6).find_map(|_| Some(f.one(48, 0.0, 1)).filter(|d| d.reset.is_some())).unwrap();
        assert!(put_right.reset.unwrap() >= 500_000 && put_right.video.unwrap() > 400_000, "{put_right:?}");
    }

    #[test]
    fn an_estimate_that_falls_again_and_again_is_raised_less_each_time() {
        let mut f = Feed::new(Demand { max: 4_000_000, start: 4_000_000, audio: 0, spare: 0 });
        let mut raised = Vec::new();
        for _ in 0..3 {
            f.many(40, 2000, 0.0, 2);
            f.one(300, 0.0, 60);
            raised.extend((0..8).filter_map(|_| f.one(300, 0.0, 2).reset));
        }
        assert!(raised.len() == 3 && raised[0] > 1_000_000, "{raised:?}");
        for pair in raised.windows(2) {
            assert!((pair[1] as f64) < 0.7 * pair[0] as f64, "{raised:?}");
        }
    }

    #[test]
    fn reports_that_never_become_quiet_are_waited_for_half_a_second() {
        let mut f = cut();
        f.one(1600, 0.1, 300);
        let settled = (1..20).find(|_| f.one(400, 0.3, 300).reset.is_some());
        assert_eq!(settled, Some(6));
    }

    #[test]
    fn the_hold_is_limited_and_counts_from_now_without_a_brake() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        f.many(6, 6000, 0.0, 100);
        let panic = f.one(850, 0.25, 2000);
        assert_eq!((panic.panic, held(&f, panic)), (true, Some(PANIC_MAX_HOLD.as_millis())));
    }

    #[test]
    fn what_arrives_limits_the_restart_in_both_directions() {
        let mut f = cut();
        assert_eq!(
            f.one(2000, 0.5, 300).reset,
            Some(625_000),
            "half of what arrives, not of what is estimated"
        );
        let mut f = cut();
        let low = f.one(100, 0.2, 300).reset.unwrap();
        assert!((332_000..335_000).contains(&low), "a loss-based estimate may fall far too low: {low}");
        let mut f = cut();
        assert_eq!(f.one(100, 0.9, 300).reset, Some(RESET_FLOOR));
    }

    #[test]
    fn what_waits_has_to_leave_as_well() {
        let mut f = Feed::new(DEMAND);
        f.many(10, 1000, 0.0, 2);
        assert_eq!(f.one(1000, 0.0, 70).video, Some(900_000));
        assert_eq!(f.one(1000, 0.0, 90).video, Some(750_000));
    }

    #[test]
    fn random_loss_is_no_panic() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.01, 2);
        for n in 0..600u64 {
            // 5 % on average, up to 12 % at times; the estimate wanders, but stays above what is sent.
            let (loss, estimate) = (0.05 + 0.07 * ((n % 7) as f32 / 7.0 - 0.3), 6000 - (n % 11) * 300);
            f.one(estimate, loss, (n % 30) as u32);
        }
        assert_eq!(f.panics(), 0);
        assert!(f.log.iter().all(|d| d.video == Some(2_500_000)));
    }

    #[test]
    fn a_falling_estimate_alone_is_no_panic() {
        let mut f = Feed::new(DEMAND);
        f.many(30, 6000, 0.0, 2);
        let decision = f.one(850, 0.05, 70);
        assert_eq!((decision.panic, decision.video), (false, Some(765_000)));
    }

    #[test]
    fn an_estimate_that_stands_still_is_started_anew() {
        let mut f = Feed::new(DEMAND);
        f.many(5, 900, 0.03, 0);
        f.many(30, 171, 0.02, 5);
        assert_eq!(f.resets(), 0);
        f.many(12, 175, 0.02, 5);
        let reset = f.log.iter().find_map(|d| d.reset);
        assert_eq!((f.resets(), reset), (1, Some(RESET_FLOOR)));
        f.many(30, 300, 0.0, 5);
        assert_eq!(f.resets(), 1, "and given time");
        f.many(20, 300, 0.0, 5);
        assert_eq!(f.resets(), 2, "but not for ever");
    }

    #[test]
    fn it_is_not_stuck_while_it_grows_or_the_path_is_full_or_all_is_there() {
        let mut f = Feed::new(DEMAND);
        for n in 0..100 {
            f.one(500 + n * 8, 0.0, 0);
        }
        f.many(100, 1300, 0.0, 35);
        f.many(100, 1300, 0.2, 0);
        f.many(100, 2800, 0.0, 0);
        assert_eq!(f.resets(), 0);
    }

    #[test]
    fn it_probes_fast_above_the_last_congestion_and_slowly_below() {
        let mut f = cut();
        f.one(850, 0.25, 300);
        let from = f.log.len();
        let wobble = |n: u64| 840 + (n % 6) * 20;
        for n in 0..150 {
            f.one(wobble(n), 0.0, 5);
        }
        let slow: Vec<usize> = f.probes().into_iter().filter(|i| *i > from).collect();
        // The first is the end of the calm after the panic, which is a probe as well but not a fall.
        assert!((3..=5).contains(&slow.len()), "{slow:?}");
        assert!(slow.windows(2).all(|w| w[1] - w[0] >= 30), "{slow:?}");
        let from = f.log.len();
        for n in 0..60 {
            f.one(1000 + n * 10, 0.0, 5);
        }
        let fast: Vec<usize> = f.probes().into_iter().filter(|i| *i > from).collect();
        assert!((3..=4).contains(&fast.len()), "{fast:?}");
        // Each fall is followed by a rise at the next sample.
        for i in fast {
            assert_eq!(f.log.get(i + 1).and_then(|d| d.desired), Some(4_000_000));
        }
    }

    #[test]
    fn no_probe_while_packets_wait_or_are_lost_or_all_is_there() {
        let mut f = Feed::new(DEMAND);
        f.many(10, 900, 0.0, 0);
        let before = f.probes().len();
        for n in 0..100 {
            f.one(800 + n % 10 * 20, 0.0, 50);
        }
        for n in 0..100 {
            f.one(800 + n % 10 * 20, 0.06, 0);
        }
        f.many(100, 9000, 0.0, 0);
        assert_eq!(f.probes().len(), before);
    }

    #[test]
    fn a_layer_that_joins_starts_with_its_start_bitrate() {
        let mut f = Feed::new(Demand { max: 500_000, start: 500_000, audio: 0, spare: 0 });
        assert_eq!(f.many(10, 6000, 0.0, 0).video, Some(500_000));
        f.demand = Demand { max: 3_000_000, start: 1_500_000, audio: 0, spare: 0 };
        let video = f.one(6000, 0.0, 0).video.unwrap();
        assert!((1_500_000..1_600_000).contains(&video), "{video}");
    }

    #[test]
    fn the_best_round_trip_is_forgotten_after_a_while() {
        let mut rtts = MinRtt::default();
        let t = Instant::now();
        for n in 0..100 {
            rtts.add(t + n * 100 * MS, if n == 50 { 10 * MS } else { 30 * MS });
        }
        assert_eq!(rtts.get(), Some(10 * MS));
        for n in 100..600 {
            rtts.add(t + n * 100 * MS, 60 * MS);
        }
        assert_eq!(rtts.get(), Some(60 * MS));
    }

    #[test]
    fn absurd_samples_do_no_harm() {
        let mut c = Controller::default();
        let now = Instant::now();
        let demand =
            Demand { max: u64::MAX / 4, start: u64::MAX / 4, audio: u64::MAX / 4, spare: u64::MAX / 4 };
        for (estimate, loss) in
            [(u64::MAX, f32::NAN), (0, 2.0), (1, -1.0), (u64::MAX, 0.5), (0, f32::INFINITY)]
        {
            let sample = Sample {
                estimate: Some(estimate),
                loss: Some(loss),
                rtt: Some(Duration::MAX),
                bytes_sent: estimate,
            };
            let _ = c.sample(now, sample, demand);
            let _ = c.sample(now + 100 * MS, Sample { rtt: Some(Duration::ZERO), ..sample }, demand);
        }
    }
}
