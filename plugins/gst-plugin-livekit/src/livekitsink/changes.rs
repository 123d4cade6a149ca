// SPDX-License-Identifier: MPL-2.0

//! How often a stream may become another one. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Changes in a row that are followed at once.
const BURST: u32 = 5;
/// After those, one change in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts the tracks that a pad has had: each costs the server and every viewer a negotiation.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    used: u32,
    since: Option<Instant>,
}

impl Changes {
    /// Whether a new track may be published now.
    pub fn allowed(&mut self, now: Instant) -> bool {
        if let Some(since) = self.since {
            let intervals = now.saturating_duration_since(since).as_millis() / INTERVAL.as_millis();
            let given_back = u32::try_from(intervals).unwrap_or(u32::MAX);
            if given_back > 0 {
                self.used = self.used.saturating_sub(given_back);
                self.since = Some(now);
            }
        }
        self.used < BURST
    }

    /// One was published.
    pub fn published(&mut self, now: Instant) {
        self.used = self.used.saturating_add(1);
        self.since.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_to_one_a_second() {
        let start = Instant::now();
        let mut changes = Changes::default();
        // A change every 10 ms for 10 s.
        let followed = (0..1000).filter(|n| {
            let now = start + Duration::from_millis(10) * *n;
            let allowed = changes.allowed(now);
            if allowed {
                changes.published(now);
            }
            allowed
        });
        let followed = followed.count();
        assert!((13..=15).contains(&followed), "{followed}");
    }

    #[test]
    fn a_change_now_and_then_is_always_followed() {
        let start = Instant::now();
        let mut changes = Changes::default();
        for n in 0..100 {
            let now = start + Duration::from_secs(2) * n;
            assert!(changes.allowed(now), "change {n}");
            changes.published(now);
        }
    }
}
