// SPDX-License-Identifier: MPL-2.0

//! Lets a warning through when it is new, and then at most once in a while. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between two warnings of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts by kind, and what was said of them.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Debug)]
struct Kind {
    total: u64,
    said: Instant,
    since: u64,
}

impl Limiter {
    /// Counts one more; tells how many there were since the last warning if another is due now.
    pub fn count(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let Some(entry) = self.kinds.get_mut(kind) else {
            self.kinds.insert(kind, Kind { total: 1, said: now, since: 0 });
            return Some(1);
        };
        entry.total += 1;
        entry.since += 1;
        if now.saturating_duration_since(entry.said) < PAUSE {
            return None;
        }
        entry.said = now;
        Some(std::mem::take(&mut entry.since))
    }

    /// How many there were of each kind.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.kinds.iter().map(|(kind, entry)| (*kind, entry.total))
    }

    /// How many there were of all kinds.
    pub fn total(&self) -> u64 {
        self.totals().map(|(_, total)| total).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_at_once_then_one_in_ten_seconds_by_kind() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limiter = Limiter::default();
        assert_eq!(limiter.count("a", at(0)), Some(1));
        assert_eq!(limiter.count("a", at(1)), None);
        assert_eq!(limiter.count("b", at(1)), Some(1));
        assert_eq!(limiter.count("a", at(9)), None);
        assert_eq!(limiter.count("a", at(10)), Some(3));
        assert_eq!(limiter.count("a", at(11)), None);
        assert_eq!(limiter.totals().collect::<Vec<_>>(), [("a", 5), ("b", 1)]);
        assert_eq!(limiter.total(), 6);
    }
}
