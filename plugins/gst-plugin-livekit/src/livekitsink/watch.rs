// SPDX-License-Identifier: MPL-2.0

//! Probes on the entry of a parser: what GStreamer's parsers do without a word.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::Leaf;
use super::checks::Warning;

/// How long data may come without a single frame coming out of the parser: longer than a camera's GOP, in
/// the middle of which one may have come.
const PATIENCE: Duration = Duration::from_secs(12);
/// A longer gap (a pause) does not count as time with data.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// A parser that can pull takes over its upstream's thread. Ours is put in while that thread is pushing, so
/// it is told that pushing is all there is.
pub(crate) fn push_only(entry: &gst::Pad) {
    entry.add_probe(gst::PadProbeType::QUERY_UPSTREAM, |_pad, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        match query.view_mut() {
            gst::QueryViewMut::Scheduling(scheduling) => {
                scheduling.set(gst::SchedulingFlags::SEQUENTIAL, 1, -1, 0);
                scheduling.add_scheduling_modes([gst::PadMode::Push]);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

/// Data that goes into a parser while nothing comes out. Pure: time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    buffers: u32,
    lasted: Duration,
    last: Option<Instant>,
    told: bool,
}

impl Silence {
    /// A buffer goes in. True = it is to be told now.
    fn buffer(&mut self, now: Instant) -> bool {
        self.buffers = self.buffers.saturating_add(1);
        if let Some(last) = self.last.replace(now) {
            self.lasted += now.saturating_duration_since(last).min(LONGEST_GAP);
        }
        self.lasted >= PATIENCE && !std::mem::replace(&mut self.told, true)
    }

    /// The stream ends. True = it is to be told now.
    fn end(&mut self) -> bool {
        self.buffers > 1 && !std::mem::replace(&mut self.told, true)
    }
}

/// A parser drops what it can't make frames of, such as a stream that never carries parameter sets. Warns if
/// data goes in and nothing comes out, once in each run.
pub(crate) fn silence(entry: &gst::Pad, leaf: &Leaf) {
    let leaf = leaf.downgrade();
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    entry.add_probe(what, move |_pad, info| {
        let Some(leaf) = leaf.upgrade() else { return gst::PadProbeReturn::Remove };
        if leaf.imp().has_data() {
            return gst::PadProbeReturn::Ok;
        }
        let at_end = info.event().is_some_and(|event| event.type_() == gst::EventType::Eos);
        let tell = match info.buffer() {
            Some(_) => leaf.imp().silence().buffer(Instant::now()),
            None => at_end && leaf.imp().silence().end(),
        };
        if tell {
            leaf.imp().warn(&Warning::NothingDecodable);
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of `count` buffers at this distance are told of.
    fn told(silence: &mut Silence, count: u32, distance: Duration) -> Vec<u32> {
        let start = Instant::now();
        (0..count).filter(|n| silence.buffer(start + distance * *n)).collect()
    }

    #[test]
    fn only_time_counts_not_how_the_stream_is_cut() {
        let ms = Duration::from_millis;
        assert_eq!(told(&mut Silence::default(), 5000, ms(2)), [] as [u32; 0], "10 s of many slices");
        assert_eq!(told(&mut Silence::default(), 1000, ms(40)), [300]);
    }

    #[test]
    fn a_pause_is_no_silence() {
        assert_eq!(told(&mut Silence::default(), 5, Duration::from_secs(60)), [] as [u32; 0]);
    }

    #[test]
    fn the_end_tells_at_once_but_not_twice() {
        let mut silence = Silence::default();
        assert!(!silence.buffer(Instant::now()) && !silence.end(), "a single buffer says nothing");
        assert!(!silence.buffer(Instant::now()) && silence.end());
        assert!(!silence.end());
    }
}
