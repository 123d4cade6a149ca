// SPDX-License-Identifier: MIT OR Apache-2.0

//! When to try again. Takes time and randomness as arguments.

use std::time::Duration;

/// Delays between attempts: short and even while an outage is young, longer later, always with jitter so
/// that a fleet does not come back in step.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    attempts: u32,
}

/// Attempts within the first minute are at most this far apart.
pub const EARLY_MAX: Duration = Duration::from_secs(1);
/// Later ones at most this far.
pub const LATE_MAX: Duration = Duration::from_secs(15);
const FIRST: Duration = Duration::from_millis(200);
const EARLY_PHASE: Duration = Duration::from_secs(60);

impl Backoff {
    /// Notes one more failed attempt. `elapsed` = how long the outage lasts already, `jitter` = a random
    /// number in 0..1. Gives the attempt's number from 1, and how long to wait before the next.
    pub fn failed(&mut self, elapsed: Duration, jitter: f64) -> (u32, Duration) {
        self.attempts = self.attempts.saturating_add(1);
        let doublings = self.attempts.saturating_sub(1).min(16);
        let limit = if elapsed < EARLY_PHASE { EARLY_MAX } else { LATE_MAX };
        let full = FIRST.saturating_mul(1 << doublings).min(limit);
        let delay = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        (self.attempts, delay)
    }

    /// Failed attempts since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Connected: the next outage starts from the shortest delay.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_stays_below_the_limits_and_starts_over() {
        let mut b = Backoff::default();
        let first = b.failed(Duration::ZERO, 1.0);
        assert_eq!(first, (1, Duration::from_millis(200)));
        for _ in 0..50 {
            assert!(b.failed(Duration::from_secs(59), 1.0).1 <= EARLY_MAX);
        }
        let late = b.failed(Duration::from_secs(61), 1.0).1;
        assert_eq!(late, LATE_MAX);
        b.succeeded();
        assert_eq!(b.failed(Duration::ZERO, 0.0), (1, Duration::from_millis(100)));
    }

    #[test]
    fn jitter_outside_its_range_is_clamped() {
        for jitter in [-3.0, 7.0] {
            let delay = Backoff::default().failed(Duration::ZERO, jitter).1;
            assert!((Duration::from_millis(100)..=Duration::from_millis(200)).contains(&delay));
        }
    }
}
