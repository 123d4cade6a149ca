// SPDX-License-Identifier: MPL-2.0

//! Probes on the entry of a parser: what GStreamer's parsers do without a word.

use std::sync::atomic::{AtomicU32, Ordering};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::Leaf;
use super::checks::Warning;

/// Buffers without a single frame coming out of the parser: several GOPs of a camera, however it cuts them.
const SILENT_BUFFERS: u32 = 90;

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

/// A parser drops what it can't make frames of, such as a stream that never carries parameter sets. Warns if
/// data goes in and nothing comes out; gone with the first frame.
pub(crate) fn silence(entry: &gst::Pad, leaf: &Leaf) {
    let leaf = leaf.downgrade();
    let buffers = AtomicU32::new(0);
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    entry.add_probe(what, move |_pad, info| {
        let Some(leaf) = leaf.upgrade() else { return gst::PadProbeReturn::Remove };
        if leaf.imp().has_data() {
            return gst::PadProbeReturn::Remove;
        }
        let at_end = info.event().is_some_and(|event| event.type_() == gst::EventType::Eos);
        let so_far = match info.buffer() {
            Some(_) => buffers.fetch_add(1, Ordering::Relaxed) + 1,
            None => buffers.load(Ordering::Relaxed),
        };
        if so_far >= SILENT_BUFFERS || at_end && so_far > 1 {
            leaf.imp().warn(&Warning::NothingDecodable);
            return gst::PadProbeReturn::Remove;
        }
        gst::PadProbeReturn::Ok
    });
}
