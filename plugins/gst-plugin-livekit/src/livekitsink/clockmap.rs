// SPDX-License-Identifier: MPL-2.0

//! Where running times lie on the monotonic clock. Pure: time is an argument.
//!
//! RTCP sender reports tie RTP time to wall time, and receivers put sound and picture together by them. So all
//! pads of a session share one map, and a thread that loses the CPU between reading two clocks must not move it.

use std::time::{Duration, Instant};

/// A look at both clocks that took no longer than this is exact enough to be taken as it is.
const EXACT: Duration = Duration::from_micros(100);
/// How far a clock may run off the monotonic one: a part in so many.
const DRIFT: u32 = 1000;

/// The running time of the pipeline's clock, between two readings of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub before: Instant,
    pub running: gst::ClockTime,
    pub after: Instant,
}

impl Look {
    /// Looks until it is exact, but not for long. `None` = there is no clock.
    pub fn take(mut running: impl FnMut() -> Option<gst::ClockTime>) -> Option<Self> {
        let mut look = || {
            let before = Instant::now();
            Some(Self { before, running: running()?, after: Instant::now() })
        };
        let mut best = look()?;
        for _ in 0..2 {
            if best.error() <= EXACT {
                break;
            }
            let next = look()?;
            if next.error() < best.error() {
                best = next;
            }
        }
        Some(best)
    }

    /// How far off it can be.
    fn error(&self) -> Duration {
        self.after.saturating_duration_since(self.before) / 2
    }

    fn middle(&self) -> Instant {
        self.before + self.error()
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct ClockMap {
    anchor: Option<Anchor>,
    /// By how much frames have been ahead of the clock, at most.
    lead: Duration,
}

#[derive(Debug)]
struct Anchor {
    base_time: gst::ClockTime,
    at: Instant,
    running: i128,
}

impl ClockMap {
    /// Takes a look into account.
    pub fn observe(&mut self, base_time: gst::ClockTime, look: &Look) {
        let running = i128::from(look.running.nseconds());
        let fresh = Anchor { base_time, at: look.middle(), running };
        let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.base_time == base_time) else {
            *self = Self { anchor: Some(fresh), lead: Duration::ZERO };
            return;
        };
        let age = fresh.at.saturating_duration_since(anchor.at);
        let off = (nanos(age) - (running - anchor.running)).unsigned_abs();
        // Beyond what this look's own error explains the clock itself has moved.
        if look.error() <= EXACT || off > (look.error() + age / DRIFT).as_nanos() {
            self.anchor = Some(fresh);
        }
    }

    /// The moment of a running time, for the sender reports: `now` at the latest, because a moment to come would
    /// keep them back. Frames that are ahead of the clock move the moments of all frames, of every pad, by the same
    /// amount, which leaves sound and picture together.
    pub fn moment(&mut self, running: gst::ClockTime, now: Instant) -> Instant {
        let Some(anchor) = &self.anchor else { return now };
        let after = i128::from(running.nseconds()) - anchor.running - nanos(self.lead);
        let distance = Duration::from_nanos(u64::try_from(after.unsigned_abs()).unwrap_or(u64::MAX));
        let moment = match after >= 0 {
            true => anchor.at.checked_add(distance),
            false => anchor.at.checked_sub(distance),
        };
        let Some(moment) = moment else { return now };
        self.lead += moment.saturating_duration_since(now);
        moment.min(now)
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: gst::ClockTime = gst::ClockTime::from_seconds(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn rt(n: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(n)
    }

    /// A look that began so many ms after `start`, read this running time `late` ms later and ended at once.
    fn look(start: Instant, at: u64, running: u64, late: u64) -> Look {
        Look { before: start + ms(at), running: rt(running + late), after: start + ms(at + late) }
    }

    #[test]
    fn a_moment_is_exact_even_if_the_thread_was_put_off_between_two_clocks() {
        let (start, mut map) = (Instant::now() + ms(1000), ClockMap::default());
        map.observe(BASE, &look(start, 0, 0, 0));
        let later = start + ms(5000);
        assert_eq!(map.moment(rt(40), later), start + ms(40));
        // 30 ms between the two readings: the middle would be 15 ms wrong.
        map.observe(BASE, &look(start, 1000, 1000, 30));
        assert_eq!(map.moment(rt(1000), later), start + ms(1000));
        assert_eq!(map.moment(rt(40), later), start + ms(40));
    }

    #[test]
    fn another_clocks_drift_is_followed_and_so_is_its_jump() {
        let (start, mut map) = (Instant::now() + ms(1000), ClockMap::default());
        map.observe(BASE, &look(start, 0, 0, 0));
        // Half a per mille slow.
        map.observe(BASE, &look(start, 10_000, 9_995, 0));
        assert_eq!(map.moment(rt(9_995), start + ms(20_000)), start + ms(10_000));
        // A jump by 700 ms, which no 20 ms explain.
        map.observe(BASE, &look(start, 11_000, 11_700, 20));
        let moment = map.moment(rt(11_700), start + ms(20_000));
        assert!(moment <= start + ms(11_010) && moment >= start + ms(10_990));
    }

    #[test]
    fn frames_ahead_of_the_clock_keep_their_distance_to_those_of_other_pads() {
        let (start, mut map) = (Instant::now() + ms(1000), ClockMap::default());
        map.observe(BASE, &look(start, 0, 0, 0));
        let now = start + ms(100);
        let ahead = map.moment(rt(130), now);
        assert_eq!(ahead, now, "not in the future");
        let behind = map.moment(rt(90), now);
        assert_eq!(ahead - behind, ms(40), "sound and picture stay together");
        // Another run of the clock has nothing to do with it.
        map.observe(BASE + rt(1), &look(start, 200, 0, 0));
        assert_eq!(map.moment(rt(10), start + ms(300)), start + ms(210));
    }

    #[test]
    fn odd_times_do_no_harm() {
        let (now, mut map) = (Instant::now(), ClockMap::default());
        assert_eq!(map.moment(gst::ClockTime::MAX, now), now, "no clock");
        map.observe(BASE, &Look { before: now, running: gst::ClockTime::MAX, after: now });
        assert!(map.moment(gst::ClockTime::ZERO, now) <= now);
        map.observe(BASE, &Look { before: now, running: gst::ClockTime::ZERO, after: now });
        for _ in 0..3 {
            assert_eq!(map.moment(gst::ClockTime::MAX, now), now);
        }
    }
}
