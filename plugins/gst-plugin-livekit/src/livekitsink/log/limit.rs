// SPDX-License-Identifier: MPL-2.0

//! How often one place in the code may speak. Pure: time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Over so long …
const WINDOW: Duration = Duration::from_secs(1);
/// … a place may speak so often.
const MOST: u32 = 20;

/// Who spoke lately. As many entries as there are places in the code.
#[derive(Debug)]
pub(super) struct Limits<K> {
    places: HashMap<K, Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    spoke: u32,
}

impl<K> Default for Limits<K> {
    fn default() -> Self {
        Self { places: HashMap::new() }
    }
}

impl<K: Hash + Eq> Limits<K> {
    /// Somebody wants to speak: `Some` = let him, and tell how often he was not let before.
    pub(super) fn ask(&mut self, place: K, now: Instant) -> Option<u32> {
        let place = self.places.entry(place).or_insert(Place { since: now, spoke: 0 });
        let mut missed = 0;
        if now.saturating_duration_since(place.since) >= WINDOW {
            missed = place.spoke.saturating_sub(MOST);
            *place = Place { since: now, spoke: 0 };
        }
        place.spoke = place.spoke.saturating_add(1);
        (place.spoke <= MOST).then_some(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_place_that_speaks_all_the_time_is_cut_short_and_says_so_later() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        let heard: Vec<_> = (0..100).filter_map(|n| limits.ask("a", start + n * MS)).collect();
        assert_eq!(heard, [0; MOST as usize]);
        assert_eq!(limits.ask("b", start + 100 * MS), Some(0), "another place");
        assert_eq!(limits.ask("a", start + 1000 * MS), Some(80));
        assert_eq!(limits.ask("a", start + 1001 * MS), Some(0));
    }

    #[test]
    fn who_speaks_rarely_is_never_cut_short() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        assert!((0..1000).all(|n| limits.ask("a", start + n * 60 * MS) == Some(0)));
    }
}
