// SPDX-License-Identifier: MPL-2.0

//! The session's media time, which goes on when running times begin anew. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::clockmap::{ClockMap, Look};

/// What is this far (ns) from where it should be is no time: while a pipeline changes its clock, there is a moment in which
/// the new clock is read with the base time of the old one. One keeps the time since the machine's start, the other since
/// 1970, and viewers stand still at a frame that is half a century ahead.
const ABSURD: i128 = 86_400 * 1_000_000_000;

/// The timeline that all pads of a session share, so that sound and picture stay together.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    base: Option<Base>,
    clocks: ClockMap,
}

#[derive(Debug)]
struct Base {
    base_time: gst::ClockTime,
    /// What is to be added to running times, ns.
    offset: i128,
    /// Where the clock last stood on the timeline (ns), and when.
    last: (i128, Instant),
}

/// How far one stream is on the timeline.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    base_time: Option<gst::ClockTime>,
    latest: i128,
}

impl Timeline {
    /// The media time of a frame's running time, and the moment of it on the monotonic clock.
    pub fn place(
        &mut self,
        base_time: gst::ClockTime,
        look: &Look,
        frame: gst::ClockTime,
        stream: &mut Progress,
    ) -> (Duration, Instant) {
        self.clocks.observe(base_time, look);
        let (media_time, frame) = self.media_time(base_time, look.running, look.after, frame, stream);
        (media_time, self.clocks.moment(frame, look.after))
    }

    /// The media time of a frame's running time, while the clock's is `current`; and the running time that was taken for it,
    /// because one that is absurd is not.
    ///
    /// Base times can't be compared: after a change of the clock they are in another clock's units. So what
    /// passed between two of them (a pause, a seek) is taken from the monotonic clock.
    fn media_time(
        &mut self,
        base_time: gst::ClockTime,
        current: gst::ClockTime,
        now: Instant,
        frame: gst::ClockTime,
        stream: &mut Progress,
    ) -> (Duration, gst::ClockTime) {
        let (mut current, mut frame) = (i128::from(current.nseconds()), i128::from(frame.nseconds()));
        let base = self.base.get_or_insert(Base { base_time, offset: 0, last: (current, now) });
        let (clock, when) = base.last;
        let elapsed = now.saturating_duration_since(when).as_nanos();
        let expected = clock + i128::try_from(elapsed).unwrap_or_default();
        if base.base_time != base_time {
            base.offset = expected - current;
            base.base_time = base_time;
        }
        if (current + base.offset - expected).abs() > ABSURD {
            current = expected - base.offset;
        }
        if frame - current > ABSURD {
            frame = current.max(0);
        }
        base.last = (current + base.offset, now);
        if stream.base_time != Some(base_time) {
            stream.base_time = Some(base_time);
            // Frames that were sent ahead of the clock (sync=false) may lie behind this.
            base.offset += (stream.latest - frame - base.offset).max(0);
        }
        let media = (frame + base.offset).max(0);
        stream.latest = stream.latest.max(media);
        let running = u64::try_from(frame).map_or(gst::ClockTime::MAX, gst::ClockTime::from_nseconds);
        (Duration::from_nanos(u64::try_from(media).unwrap_or(u64::MAX)), running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Bench(Timeline, Progress, Instant);

    impl Bench {
        fn new() -> Self {
            Self(Timeline::default(), Progress::default(), Instant::now())
        }

        /// Seconds: of the base time, of the monotonic clock, of the clock's running time, of the frame's.
        fn at(&mut self, base: u64, now: u64, current: u64, frame: u64) -> u64 {
            let s = gst::ClockTime::from_seconds;
            let now = self.2 + Duration::from_secs(now);
            self.0.media_time(s(base), s(current), now, s(frame), &mut self.1).0.as_secs()
        }
    }

    #[test]
    fn it_goes_on_over_a_pause_and_a_seek() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(100, 0, 0, 0), 0);
        assert_eq!(bench.at(100, 5, 5, 5), 5);
        assert_eq!(bench.at(110, 15, 5, 5), 15, "a pause of ten seconds");
        assert_eq!(bench.at(110, 17, 7, 7), 17);
        assert_eq!(bench.at(118, 18, 0, 0), 18, "a seek begins at zero");
    }

    #[test]
    fn another_clock_makes_no_jump() {
        for base in [3, 9_000_000] {
            let mut bench = Bench::new();
            assert_eq!(bench.at(1000, 0, 0, 0), 0);
            assert_eq!(bench.at(1010, 20, 10, 10), 20);
            assert_eq!(bench.at(base, 21, 10, 10), 21);
            assert_eq!(bench.at(base, 23, 12, 12), 23);
        }
    }

    #[test]
    fn it_never_goes_back_when_frames_are_ahead_of_the_clock() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(100, 0, 0, 0), 0);
        assert_eq!(bench.at(100, 1, 1, 60), 60);
        assert_eq!(bench.at(102, 2, 0, 0), 60, "a seek to the start");
        assert_eq!(bench.at(102, 2, 0, 1), 61);
    }

    #[test]
    fn streams_share_it() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(100, 0, 0, 0), 0);
        assert_eq!(bench.at(110, 10, 0, 0), 10);
        let (mut other, s) = (Progress::default(), gst::ClockTime::from_seconds);
        let now = bench.2 + Duration::from_secs(12);
        let (media, _) = bench.0.media_time(s(110), s(2), now, s(2), &mut other);
        assert_eq!(media, Duration::from_secs(12));
    }

    /// The new clock with the old one's base time, seen by the source, by the sink, and by both.
    #[test]
    fn a_clock_that_is_changed_at_this_moment_makes_no_jump() {
        let since_1970 = 1_790_000_000;
        for (current, frame) in [(2, since_1970), (since_1970, 2), (since_1970, since_1970)] {
            let mut bench = Bench::new();
            assert_eq!(bench.at(68_000, 0, 0, 0), 0);
            assert_eq!(bench.at(68_000, 2, current, frame), 2);
            assert_eq!(bench.at(since_1970, 3, 3, 3), 3);
            assert_eq!(bench.at(since_1970, 4, 4, 4), 4);
        }
    }

    #[test]
    fn odd_times_do_no_harm() {
        let mut bench = Bench::new();
        let max = u64::MAX / SECOND;
        assert_eq!(bench.at(0, 0, 0, max), 0);
        assert_eq!(bench.at(0, 1, 1, 86_000), 86_000, "of a long file, as fast as it is read");
        assert!(bench.at(1, 5, 0, max) >= 5);
        assert!(bench.at(2, 6, max, 0) >= 6);
    }
}
