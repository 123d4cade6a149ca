// SPDX-License-Identifier: MPL-2.0

//! The end of a data pad's chain: each buffer is a packet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use livekit_session::{DataError, DataPacket};

use super::super::log::DATA;
use super::super::messages::Throttle;
use super::super::{LiveKitSink, LiveKitSinkDataPad};

/// Why buffers of a pad were not sent, in the order of the statistics.
pub(crate) const DROPS: [&str; 6] =
    ["not-connected", "queue-full", "empty", "too-large", "not-allowed", "early"];

#[derive(Default)]
pub struct DataLeaf {
    owner: Mutex<Option<(glib::WeakRef<LiveKitSink>, glib::WeakRef<LiveKitSinkDataPad>)>>,
    segment: Mutex<gst::FormattedSegment<gst::ClockTime>>,
    /// What comes is live, as far as is known.
    live: AtomicBool,
    counters: Counters,
    /// One for each entry of [`DROPS`].
    warnings: Mutex<[Throttle; DROPS.len()]>,
}

/// Counters of one data pad, over its whole life.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub dropped: [AtomicU64; DROPS.len()],
}

impl DataLeaf {
    /// Tells the leaf whose it is.
    pub(crate) fn attach(&self, sink: &LiveKitSink, pad: &LiveKitSinkDataPad) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((sink.downgrade(), pad.downgrade()));
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn owner(&self) -> Option<(LiveKitSink, LiveKitSinkDataPad)> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let (sink, pad) = owner.as_ref()?;
        Some((sink.upgrade()?, pad.upgrade()?))
    }

    fn segment(&self) -> MutexGuard<'_, gst::FormattedSegment<gst::ClockTime>> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Live input is never held back, and nobody waits for it.
    fn look_upstream(&self) {
        let Some((sink, _)) = self.owner() else { return };
        let mut query = gst::query::Latency::new();
        let live = self.obj().sink_pad().peer_query(&mut query) && query.result().0;
        self.live.store(live, Ordering::Release);
        self.apply_sync(sink.imp());
        if live {
            sink.imp().end_preroll("live input");
        }
    }

    /// Takes over the element's `sync`.
    pub(crate) fn apply_sync(&self, sink: &super::super::imp::LiveKitSink) {
        let sync = sink.settings().sync && !self.live.load(Ordering::Acquire);
        if self.obj().is_sync() != sync {
            self.obj().set_sync(sync);
        }
    }

    /// Whether a buffer lies before the start of the stream.
    fn is_early(&self, buffer: &gst::BufferRef) -> bool {
        let Some(time) = buffer.dts_or_pts() else { return false };
        let running = self.segment().to_running_time_full(time);
        matches!(running, Some(gst::Signed::Negative(_)))
    }

    /// Counts a buffer that is not sent, and says so now and then. While the room is not joined, the element has
    /// said that already.
    fn dropped(&self, why: &str, detail: &str) {
        let Some(slot) = DROPS.iter().position(|name| *name == why) else { return };
        if let Some(counter) = self.counters.dropped.get(slot) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        gst::log!(DATA, imp = self, "dropped: {detail}");
        let told = why != "not-connected" && {
            let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            warnings.get_mut(slot).is_some_and(|throttle| throttle.allow(Instant::now()))
        };
        if told && let Some((sink, pad)) = self.owner() {
            gst::element_warning!(
                sink,
                gst::StreamError::Failed,
                ("{}: a data packet was not sent: {detail}", pad.name())
            );
        }
    }
}

/// Under which name a refusal is counted.
fn drop_name(error: DataError) -> &'static str {
    match error {
        DataError::Empty => "empty",
        DataError::TooLarge { .. } | DataError::AddressTooLarge => "too-large",
        DataError::QueueFull => "queue-full",
        DataError::NotAllowed => "not-allowed",
        // Not there (yet), or no longer.
        _ => "not-connected",
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DataLeaf {
    const NAME: &'static str = "GstLiveKitDataLeaf";
    type Type = super::super::DataLeaf;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for DataLeaf {
    fn constructed(&self) {
        self.parent_constructed();
        let leaf = self.obj();
        // As with the leaves of tracks: the bin does the preroll.
        leaf.set_async(false);
        leaf.set_enable_last_sample(false);
        leaf.set_qos(false);
        if leaf.has_property("processing-deadline") {
            leaf.set_property("processing-deadline", 0u64);
        }
    }
}

impl GstObjectImpl for DataLeaf {}

impl ElementImpl for DataLeaf {
    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = super::template_caps();
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps)
                .into_iter()
                .collect()
        });
        TEMPLATES.as_ref()
    }
}

impl BaseSinkImpl for DataLeaf {
    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.segment() = gst::FormattedSegment::default();
        self.obj().set_async(false);
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        match event.view() {
            EventView::Segment(segment) => {
                if let Some(time) = segment.segment().downcast_ref::<gst::ClockTime>() {
                    *self.segment() = time.clone();
                }
                self.look_upstream();
                if !self.live.load(Ordering::Acquire)
                    && let Some((sink, _)) = self.owner()
                {
                    sink.imp().hold_for_data();
                }
                self.parent_event(event)
            }
            EventView::FlushStart(_) if !self.live.load(Ordering::Acquire) => {
                // From here on as any sink: what comes after a seek is prerolled.
                self.obj().set_async(true);
                self.parent_event(event)
            }
            EventView::Eos(_) => {
                if let Some((sink, _)) = self.owner() {
                    sink.imp().data_ended();
                }
                self.parent_event(event)
            }
            _ => self.parent_event(event),
        }
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let map = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("Cannot read a buffer's memory"));
            gst::FlowError::Error
        })?;
        if self.is_early(buffer) {
            self.dropped("early", "it lies before the start of the stream");
            return Ok(gst::FlowSuccess::Ok);
        }
        let Some((sink, pad)) = self.owner() else { return Ok(gst::FlowSuccess::Ok) };
        let settings = pad.imp().settings();
        let packet = DataPacket {
            payload: Arc::from(map.as_slice()),
            topic: pad.imp().topic(),
            reliable: settings.reliable,
            destinations: settings.destinations,
        };
        let bytes = packet.payload.len() as u64;
        // Data after an EOS (a seek) joins again, as it does on other pads.
        let session = sink.imp().session_for_data(!self.live.load(Ordering::Acquire));
        match session.map_or(Err(DataError::Ended), |(_, session)| session.send_data(packet)) {
            Ok(()) => {
                self.counters.packets.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => self.dropped(drop_name(error), &error.to_string()),
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_counter() {
        let too_large = DataError::TooLarge { bytes: 1 };
        for (error, name) in [
            (DataError::Empty, "empty"),
            (too_large, "too-large"),
            (DataError::AddressTooLarge, "too-large"),
            (DataError::QueueFull, "queue-full"),
            (DataError::NotAllowed, "not-allowed"),
            (DataError::NotConnected, "not-connected"),
            (DataError::Ended, "not-connected"),
        ] {
            assert_eq!(drop_name(error), name);
            assert!(DROPS.contains(&name));
        }
    }
}
