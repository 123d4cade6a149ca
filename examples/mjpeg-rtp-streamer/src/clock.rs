// SPDX-License-Identifier: MIT OR Apache-2.0

//! The wall clock that all cameras share.
//!
//! Pictures are stamped by the monotonic clock. What the wall showed at a moment of it is told to receivers in RTCP sender
//! reports, and two views are put side by side by that. So all cameras use one difference between the two clocks, and not
//! each its own measurement: what is read while the system takes the CPU away is wrong by milliseconds.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use gst::prelude::*;

/// The difference is kept until it is wrong by more than this: the wall clock was set, or drifted.
const TOLERANCE_NS: i64 = 1_000_000;
const READINGS: usize = 8;

/// Tells what the wall clock shows at a time of the monotonic clock.
#[derive(Debug)]
pub struct SharedClock {
    clock: gst::Clock,
    /// Wall time since 1970 less monotonic time, ns.
    offset: Mutex<i64>,
}

impl Default for SharedClock {
    fn default() -> Self {
        let clock = gst::SystemClock::obtain();
        let offset = Mutex::new(measure(&clock));
        Self { clock, offset }
    }
}

impl SharedClock {
    /// The monotonic clock, for pipelines.
    pub fn clock(&self) -> &gst::Clock {
        &self.clock
    }

    /// Monotonic time, ns.
    pub fn now(&self) -> u64 {
        self.clock.time().nseconds()
    }

    /// Wall time since 1970, in ns, at a monotonic time.
    pub fn wall(&self, monotonic: u64) -> u64 {
        let measured = measure(&self.clock);
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_is_wrong(*offset, measured) {
            *offset = measured;
        }
        monotonic.saturating_add_signed(*offset)
    }
}

fn kept_is_wrong(kept: i64, measured: i64) -> bool {
    kept.abs_diff(measured) > TOLERANCE_NS.unsigned_abs()
}

/// The reading that the monotonic clock encloses most closely counts.
fn measure(clock: &gst::Clock) -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..READINGS {
        let before = clock.time().nseconds();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let after = clock.time().nseconds();
        let wall = i64::try_from(wall.as_nanos()).unwrap_or_default();
        let middle = i64::try_from(before.midpoint(after)).unwrap_or_default();
        if after.saturating_sub(before) < best.0 {
            best = (after.saturating_sub(before), wall.saturating_sub(middle));
        }
    }
    best.1
}

/// Ticks of the RTP clock in a time, ns. Rounds as GStreamer's payloaders do, and wraps as RTP does.
pub fn rtp_ticks(nanoseconds: u64) -> u32 {
    let ticks = u128::from(nanoseconds) * 90_000 / 1_000_000_000;
    u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or_default()
}

/// A wall time since 1970 as an NTP timestamp: seconds since 1900 in the upper half, their fraction in the lower one.
pub fn ntp(wall: u64) -> u64 {
    const UNIX_EPOCH_IN_NTP: u64 = 2_208_988_800;
    let seconds = wall / 1_000_000_000 + UNIX_EPOCH_IN_NTP;
    let fraction = ((wall % 1_000_000_000) << 32) / 1_000_000_000;
    (seconds << 32) | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_askers_get_the_same_difference() {
        gst::init().unwrap();
        let clock = SharedClock::default();
        let differences: Vec<_> = (0..200).map(|n| clock.wall(n * 1_000_000) - n * 1_000_000).collect();
        assert!(differences.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 1, "{differences:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        assert!((i128::from(clock.wall(clock.now())) - now).abs() < 100_000_000);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        assert!(!kept_is_wrong(5_000_000, 5_900_000));
        assert!(kept_is_wrong(5_000_000, 6_100_000));
        assert!(kept_is_wrong(5_000_000, -3_600_000_000_000));
    }

    #[test]
    fn units() {
        assert_eq!(rtp_ticks(1_000_000_000), 90_000);
        assert_eq!(rtp_ticks(33_333_333), 2999);
        assert_eq!(rtp_ticks((1 << 32) * 1_000_000_000 / 90_000 + 100_000), 8);
        assert_eq!(ntp(0), 2_208_988_800 << 32);
        assert_eq!(ntp(500_000_000) & 0xffff_ffff, 1 << 31);
    }
}
