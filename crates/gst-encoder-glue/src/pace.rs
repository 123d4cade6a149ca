// SPDX-License-Identifier: MIT OR Apache-2.0

//! Leaves frames out for `max-framerate`: which, so that on average there are as many as wanted, and evenly.

use gst::prelude::*;

/// What a frame may be too early at most: cameras are not exact. Of short intervals a quarter.
const JITTER: gst::ClockTime = gst::ClockTime::from_mseconds(10);

/// Keeps the time at which the next frame is due.
#[derive(Debug, Default)]
pub struct Pace {
    due: Option<gst::ClockTime>,
}

impl Pace {
    /// Whether a frame of this time is taken, with so many frames a second wanted. All are as long as nobody wants fewer,
    /// and those without a time.
    pub fn takes(&mut self, pts: Option<gst::ClockTime>, wanted: Option<gst::Fraction>) -> bool {
        let Some(wanted) = wanted else {
            self.due = None;
            return true;
        };
        let (numer, denom) = (u64::try_from(wanted.numer()), u64::try_from(wanted.denom()));
        let (Some(pts), Ok(numer @ 1..), Ok(denom)) = (pts, numer, denom) else { return true };
        let Some(interval) = gst::ClockTime::SECOND.mul_div_floor(denom, numer) else { return true };
        // After a jump back there is nothing that would come before the time that is due.
        let due = self.due.filter(|&due| pts.saturating_add(interval * 2) >= due).unwrap_or(pts);
        if pts.saturating_add(JITTER.min(interval / 4)) < due {
            self.due = Some(due);
            return false;
        }
        // Counted from when it was due and not from when it came: the rest of one interval belongs to the next. But time
        // without any frame is not made up for.
        let from = if pts > due.saturating_add(interval) { pts } else { due };
        self.due = Some(from.saturating_add(interval));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(milliseconds: impl IntoIterator<Item = u64>, rate: i32) -> Vec<u64> {
        let mut pace = Pace::default();
        let mut takes = |&ms: &u64| {
            pace.takes(Some(gst::ClockTime::from_mseconds(ms)), Some(gst::Fraction::new(rate, 1)))
        };
        milliseconds.into_iter().filter(|ms| takes(ms)).collect()
    }

    #[test]
    fn as_many_as_wanted_and_evenly() {
        let camera = || (0..300).map(|number| number * 1000 / 30);
        assert_eq!(taken(camera(), 30).len(), 300);
        assert_eq!(taken(camera(), 60).len(), 300);
        for (rate, count) in [(25, 250), (20, 200), (15, 150), (10, 100), (7, 70), (1, 10)] {
            let times = taken(camera(), rate);
            assert!(times.len().abs_diff(count) <= 1, "{rate}: {}", times.len());
            let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
            // No two gaps differ by more than one frame of the camera, and what rounding adds.
            assert!(most - least <= 35, "{rate}: {least} to {most} ms");
        }
    }

    #[test]
    fn jitter_pauses_and_jumps() {
        assert_eq!(taken([0, 36, 64, 103, 130, 170], 30).len(), 6);
        assert_eq!(taken([0, 5_000, 5_010, 5_020, 5_100], 10), [0, 5_000, 5_100]);
        assert_eq!(taken([5_000, 0, 10, 100], 10), [5_000, 0, 100]);
    }

    #[test]
    fn without_a_time_or_a_wish_all_are_taken() {
        let (rate, second) = (Some(gst::Fraction::new(1, 1)), Some(gst::ClockTime::SECOND));
        let mut pace = Pace::default();
        assert!(pace.takes(None, rate) && pace.takes(second, rate) && pace.takes(None, rate));
        assert!(!pace.takes(second, rate));
        assert!(pace.takes(second, None) && pace.takes(second, None));
        // A new wish begins with the next frame.
        assert!(pace.takes(second, rate));
    }
}
