// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long to wait for a device that may hang.

use std::time::{Duration, Instant};

/// Without a sign of life. The slowest frame known takes 60 ms.
const LIMIT: Duration = Duration::from_secs(1);
/// Looks without a sign of life: time passes as well while the whole program is stopped, or gets no core.
const LOOKS: u32 = 10;

/// The time and the looks since something came back.
#[derive(Debug)]
pub(crate) struct Patience {
    since: Instant,
    looks: u32,
}

impl Patience {
    pub fn new() -> Self {
        Self { since: Instant::now(), looks: 0 }
    }

    /// Notes a look, and whether it was in vain.
    pub fn looked(&mut self, found: bool) {
        if found {
            *self = Self::new();
        } else {
            self.looks = self.looks.saturating_add(1);
        }
    }

    pub fn is_over(&self) -> bool {
        self.looks >= LOOKS && self.since.elapsed() >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_both_time_and_looks() {
        let mut patience = Patience::new();
        for _ in 0..LOOKS {
            patience.looked(false);
        }
        assert!(!patience.is_over());
        patience.since = Instant::now().checked_sub(LIMIT).unwrap();
        assert!(patience.is_over());
        patience.looked(true);
        assert!(!patience.is_over());
        patience.since = Instant::now().checked_sub(LIMIT).unwrap();
        assert!(!patience.is_over());
    }
}
