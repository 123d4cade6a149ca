// SPDX-License-Identifier: MPL-2.0

//! When the packets of a frame leave. Pure: times in, times out.

use std::time::Duration;

/// Packets that leave together: what a small switch port buffers without loss.
pub(crate) const MAX_TRAIN: usize = 16;
/// Where neither timestamps nor caps tell: 30 frames a second.
const DEFAULT_INTERVAL: Duration = Duration::from_nanos(33_333_333);
/// Longer pauses between frames say nothing about the rate.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// How a frame is cut into trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Packets in a train.
    pub train: usize,
    /// Time between the beginnings of two trains; 0 = none.
    pub gap: Duration,
}

/// Spreads `packets` of together `bytes` at `rate` bit/s (0 = at once), over half of `interval` at most.
pub(crate) fn plan(packets: usize, bytes: usize, rate: u64, interval: Duration) -> Plan {
    if rate == 0 || packets <= MAX_TRAIN {
        return Plan { train: packets.max(1), gap: Duration::ZERO };
    }
    let trains = packets.div_ceil(MAX_TRAIN);
    let nanos = bytes as u128 * 8 * 1_000_000_000 / u128::from(rate);
    let whole = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(interval / 2);
    Plan { train: MAX_TRAIN, gap: whole / u32::try_from(trains).unwrap_or(u32::MAX) }
}

/// Learns the time between two frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interval {
    last: Option<Duration>,
    measured: Option<Duration>,
    announced: Option<Duration>,
}

impl Interval {
    /// What the caps say, in frames per second.
    pub fn announce(&mut self, framerate: Option<f64>) {
        self.announced = framerate
            .filter(|rate| rate.is_finite() && *rate >= 1.0)
            .map(|rate| Duration::from_secs_f64(1.0 / rate));
    }

    /// A frame's timestamp.
    pub fn frame(&mut self, pts: Option<Duration>) {
        let step = pts.zip(self.last).and_then(|(pts, last)| pts.checked_sub(last));
        if let Some(step) = step.filter(|step| !step.is_zero() && *step <= MAX_INTERVAL) {
            self.measured = Some(step);
        }
        self.last = pts.or(self.last);
    }

    /// The time between two frames. Of what was measured and what was announced, the shorter counts: packets
    /// may leave too early, but never so late that frames pile up.
    pub fn get(&self) -> Duration {
        match (self.measured, self.announced) {
            (Some(one), Some(other)) => one.min(other),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => DEFAULT_INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn trains_leave_at_the_rate() {
        // 160 packets of 1250 bytes at 200 Mbit/s: 8 ms, in 10 trains.
        let plan = plan(160, 160 * 1250, 200_000_000, 40 * MS);
        assert_eq!(plan, Plan { train: 16, gap: Duration::from_micros(800) });
    }

    #[test]
    fn never_longer_than_half_an_interval() {
        let plan = plan(160, 160 * 1250, 1_000_000, 40 * MS);
        assert_eq!(plan, Plan { train: 16, gap: 2 * MS });
    }

    #[test]
    fn small_frames_and_rate_0_leave_at_once() {
        assert_eq!(plan(16, 16 * 1250, 1, 40 * MS), Plan { train: 16, gap: Duration::ZERO });
        assert_eq!(plan(400, 400 * 1250, 0, 40 * MS), Plan { train: 400, gap: Duration::ZERO });
        assert_eq!(plan(0, 0, 1, 40 * MS).train, 1, "a train of none would never end");
    }

    #[test]
    fn extremes_do_not_overflow() {
        let plan = plan(usize::MAX, usize::MAX, 1, Duration::MAX);
        assert_eq!(plan.train, 16);
        assert!(plan.gap > Duration::ZERO);
    }

    #[test]
    fn interval_from_timestamps_and_caps() {
        let mut interval = Interval::default();
        assert_eq!(interval.get(), DEFAULT_INTERVAL);
        interval.announce(Some(50.0));
        assert_eq!(interval.get(), 20 * MS);
        interval.frame(Some(100 * MS));
        assert_eq!(interval.get(), 20 * MS);
        interval.frame(Some(110 * MS));
        assert_eq!(interval.get(), 10 * MS);
        interval.frame(Some(150 * MS));
        assert_eq!(interval.get(), 20 * MS, "longer than announced");
        interval.announce(None);
        assert_eq!(interval.get(), 40 * MS);
        interval.frame(Some(150 * MS));
        interval.frame(Some(90 * MS));
        interval.frame(Some(9000 * MS));
        interval.frame(None);
        assert_eq!(interval.get(), 40 * MS, "a second field, a step back, a pause");
        interval.announce(Some(0.0));
        interval.announce(Some(f64::NAN));
        assert_eq!(interval.get(), 40 * MS);
    }
}
