// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a device that can only be asked, not waited for, is worth asking.

use std::time::Duration;

/// It is not left alone for longer than this, whatever it took before.
const MOST: Duration = Duration::from_millis(50);

/// How long frames take at least.
///
/// What is known are the times at which they were found done, of which the first look at three quarters of the time gives a
/// lower one when frames become faster: then the next look is earlier still.
#[derive(Debug, Default)]
pub(crate) struct Expect {
    least: Option<Duration>,
}

impl Expect {
    /// A frame was found done after so long.
    pub(crate) fn done(&mut self, took: Duration) {
        self.least = Some(match self.least {
            // Slower ones are believed bit by bit: one may have waited for others, or this thread for the processor.
            Some(least) if took > least => least + (took - least) / 8,
            _ => took,
        });
    }

    /// How long not to ask, when the oldest frame was given to the device so long ago.
    pub(crate) fn pause(&self, age: Duration) -> Duration {
        let least = self.least.unwrap_or_default();
        (least - least / 4).min(MOST).saturating_sub(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_frame_is_asked_for_at_once() {
        assert_eq!(Expect::default().pause(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn most_of_the_time_is_slept_through() {
        let mut expect = Expect::default();
        expect.done(20 * MS);
        assert_eq!(expect.pause(Duration::ZERO), 15 * MS);
        assert_eq!(expect.pause(10 * MS), 5 * MS);
        assert_eq!(expect.pause(16 * MS), Duration::ZERO);
        // A device that takes seconds is still looked after.
        expect.done(20 * MS);
        for _ in 0..100 {
            expect.done(4000 * MS);
        }
        assert_eq!(expect.pause(Duration::ZERO), MOST);
    }

    #[test]
    fn it_follows_a_device_that_becomes_faster_at_once_and_one_that_becomes_slower_in_a_while() {
        let mut expect = Expect::default();
        expect.done(20 * MS);
        // Frames take 4 ms from now on; they are found at the first look.
        let mut found = Vec::new();
        for _ in 0..6 {
            let took = expect.pause(Duration::ZERO).max(4 * MS);
            found.push(took.as_millis());
            expect.done(took);
        }
        assert_eq!(found, [15, 11, 8, 6, 4, 4]);
        // One that waited does not count much.
        expect.done(36 * MS);
        assert!(expect.pause(Duration::ZERO) < 7 * MS);
    }
}
