// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long to wait before a camera is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);
/// A stream that lived this long was a success: the next wait is short again.
const LASTING: Duration = Duration::from_secs(10);

/// Waits of half a second, doubled up to 15 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The wait after a failure, before which pictures came for the time `streamed`.
    pub fn after(&mut self, streamed: Duration) -> Duration {
        if streamed >= LASTING {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_shrink_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
        assert_eq!(backoff.after(Duration::from_secs(9)).as_millis(), 15000);
        assert_eq!(backoff.after(Duration::from_secs(10)).as_millis(), 500);
        assert_eq!(backoff.after(Duration::ZERO).as_millis(), 1000);
    }
}
