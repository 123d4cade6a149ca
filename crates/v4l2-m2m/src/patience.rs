// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long a wait may take. Time in which this process did not run (it was stopped, the machine was suspended) is not the
//! device's fault: what it did meanwhile has yet to be noticed, by threads that have yet to run.

use std::time::{Duration, Instant};

/// Waits are done in pieces of this.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// A piece counts for this at most, however long it took.
pub(crate) const LONGEST: Duration = Duration::from_millis(250);

/// What is left of a wait.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// A wait that begins `now`.
    pub(crate) fn new(total: Duration, now: Instant) -> Self {
        Self { left: total, looked: now }
    }

    /// How long to wait before the next look; `None`: the time is up.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        self.left = self.left.saturating_sub(passed.min(LONGEST));
        (!self.left.is_zero()).then(|| self.left.min(SLICE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_takes_its_time_and_no_more() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut patience = Patience::new(ms(250), start);
        assert_eq!(patience.next(start), Some(ms(100)));
        assert_eq!(patience.next(start + ms(100)), Some(ms(100)));
        // Woken for nothing.
        assert_eq!(patience.next(start + ms(170)), Some(ms(80)));
        assert_eq!(patience.next(start + ms(250)), None);
        assert_eq!(Patience::new(Duration::ZERO, start).next(start), None);
    }

    #[test]
    fn what_was_slept_through_does_not_count() {
        let start = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(5), start);
        assert!(patience.next(start).is_some());
        let later = start + Duration::from_secs(3600);
        assert!(patience.next(later).is_some());
        // 4.75 s are left.
        let slices = (1..).take_while(|n| patience.next(later + SLICE * *n).is_some()).count();
        assert_eq!(slices, 47);
    }
}
