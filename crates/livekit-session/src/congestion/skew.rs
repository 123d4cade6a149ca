// SPDX-License-Identifier: MIT OR Apache-2.0

//! Layers of one track whose encoders take differently long.
//!
//! LiveKit's server changes a viewer from one layer to another only if the keyframe to begin with was captured less than
//! 50 ms before the last frame that it passed on, and waits for the next keyframe otherwise (`forwarder.go`, "switch point
//! too far behind"). A large layer that always comes later than that would never be seen. So while a viewer may be about
//! to change, the faster layers wait for the slower.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{SKEW_ALLOWED, SKEW_MAX_WAIT, SKEW_MEMORY};

/// How long after their capture the frames of a layer came lately.
#[derive(Debug, Default)]
pub(crate) struct Lateness {
    recent: VecDeque<(Instant, Duration)>,
}

impl Lateness {
    pub(crate) fn note(&mut self, now: Instant, captured_at: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > SKEW_MEMORY) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, now.saturating_duration_since(captured_at)));
    }

    /// The most in the last [`SKEW_MEMORY`]; `None` = nothing comes.
    pub(crate) fn most(&self, now: Instant) -> Option<Duration> {
        let lately = |(at, late): &(Instant, Duration)| {
            (now.saturating_duration_since(*at) <= SKEW_MEMORY).then_some(*late)
        };
        self.recent.iter().filter_map(lately).max()
    }
}

/// How long a frame that comes `late` after its capture has to wait for those of another layer.
pub(crate) fn lead(late: Duration, other: Duration) -> Duration {
    other.saturating_sub(late + SKEW_ALLOWED).min(SKEW_MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_faster_layer_waits_for_what_the_server_would_not_bear() {
        assert_eq!(lead(10 * MS, 30 * MS), Duration::ZERO);
        assert_eq!(lead(10 * MS, 45 * MS), Duration::ZERO);
        assert_eq!(lead(10 * MS, 85 * MS), 40 * MS);
        assert_eq!(lead(90 * MS, 10 * MS), Duration::ZERO, "the slower does not wait");
        assert_eq!(lead(10 * MS, 5000 * MS), SKEW_MAX_WAIT);
    }

    #[test]
    fn the_latest_of_the_last_frames_counts() {
        let mut lateness = Lateness::default();
        let t = Instant::now();
        assert_eq!(lateness.most(t), None);
        for (ms, late) in [(300, 20), (333, 150), (366, 30)] {
            lateness.note(t + ms * MS, t + ms * MS - late * MS);
        }
        assert_eq!(lateness.most(t + 400 * MS), Some(150 * MS));
        assert_eq!(lateness.most(t + 340 * MS + SKEW_MEMORY), Some(30 * MS));
        assert_eq!(lateness.most(t + 400 * MS + SKEW_MEMORY), None);
        lateness.note(t + 2000 * MS, t + 3000 * MS);
        assert_eq!((lateness.most(t + 2000 * MS), lateness.recent.len()), (Some(Duration::ZERO), 1));
    }
}
