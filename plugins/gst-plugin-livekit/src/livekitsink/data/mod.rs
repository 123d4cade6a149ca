// SPDX-License-Identifier: MPL-2.0

//! Data packets: `data_%u` pads, the signals `send-data` and `data-received`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{DataPacket, DataStats, ReceivedData};

use super::imp::LiveKitSink;
use super::log::DATA;
use super::session::Held;
use super::{DataLeaf, LiveKitSinkDataPad};

pub(super) mod leaf;
pub(super) mod pad;

/// Name template of the pads.
pub(super) const TEMPLATE: &str = "data_%u";

/// What data pads take. Never ANY, or anything could be linked to one by mistake.
pub(super) fn template_caps() -> gst::Caps {
    ["meta/x-klv", "application/json", "text/x-raw"].map(gst::Structure::new_empty).into_iter().collect()
}

impl LiveKitSink {
    /// Makes a data pad with its leaf.
    pub(super) fn new_data_pad(
        &self,
        templ: &gst::PadTemplate,
        name: &str,
    ) -> Result<gst::Pad, glib::BoolError> {
        let pad = gst::PadBuilder::<LiveKitSinkDataPad>::from_template(templ).name(name).build();
        let leaf: DataLeaf = glib::Object::builder().property("name", format!("{name}-leaf")).build();
        leaf.imp().attach(&self.obj(), &pad);
        self.obj().add(&leaf)?;
        let ready = pad
            .set_target(leaf.static_pad("sink").as_ref())
            .and_then(|()| leaf.sync_state_with_parent())
            .and_then(|()| if self.state().session.is_some() { pad.set_active(true) } else { Ok(()) })
            .and_then(|()| self.obj().add_pad(&pad));
        if let Err(error) = ready {
            self.remove_data_leaf(&pad);
            return Err(error);
        }
        leaf.imp().apply_sync(self);
        Ok(pad.upcast())
    }

    /// Takes a data pad's leaf away; it may hold the streaming thread.
    pub(super) fn remove_data_leaf(&self, pad: &LiveKitSinkDataPad) {
        if let Some(leaf) = self.data_leaf_of(pad) {
            leaf.set_locked_state(true);
            let _ = leaf.set_state(gst::State::Null);
            let _ = self.obj().remove(&leaf);
        }
    }

    fn data_leaf_of(&self, pad: &LiveKitSinkDataPad) -> Option<DataLeaf> {
        self.obj().by_name(&format!("{}-leaf", pad.name())).and_downcast()
    }

    fn data_pads(&self) -> Vec<LiveKitSinkDataPad> {
        self.obj().sink_pads().into_iter().filter_map(|pad| pad.downcast().ok()).collect()
    }

    pub(super) fn apply_sync_to_data(&self) {
        for leaf in self.data_pads().iter().filter_map(|pad| self.data_leaf_of(pad)) {
            leaf.imp().apply_sync(self);
        }
    }

    /// Whether data of others may be wanted, or data of ours is to be sent soon.
    pub(super) fn wants_data(&self) -> bool {
        let sink = self.obj();
        let heard = glib::subclass::SignalId::lookup("data-received", sink.type_())
            .is_some_and(|signal| glib::signal::signal_has_handler_pending(&*sink, signal, None, true));
        heard || !self.data_pads().is_empty()
    }

    /// A data pad that is not live has a stream: nothing of it is to be lost, so the pipeline waits until the
    /// network takes data.
    pub(super) fn hold_for_data(&self) {
        let done = {
            let mut state = self.state();
            if state.data_wanted {
                state.preroll.added(Held::Data);
                state.data_ready && state.preroll.settled(&Held::Data)
            } else {
                // A session that was started without data opens its channels with the first packet.
                state.tracks.is_empty() && state.preroll.finish()
            }
        };
        if done {
            self.post_async_done();
        }
    }

    /// The network takes data from now on.
    pub(super) fn data_is_ready(&self) {
        let done = {
            let mut state = self.state();
            state.data_ready = true;
            state.preroll.settled(&Held::Data)
        };
        if done {
            gst::debug!(DATA, imp = self, "async-done: data channels");
            self.post_async_done();
        }
    }

    /// A data pad is at its end: what it was held for is over, if it was at all.
    pub(super) fn data_ended(&self) {
        let done = {
            let mut state = self.state();
            let only = state.tracks.is_empty();
            state.preroll.settled(&Held::Data) || (only && state.preroll.finish())
        };
        if done {
            self.post_async_done();
        }
    }

    /// The action signal `send-data`.
    pub(super) fn send_data(
        &self,
        payload: Option<&glib::Bytes>,
        topic: Option<String>,
        reliable: bool,
        destinations: Vec<String>,
    ) -> bool {
        let session = self.state().session.clone();
        let Some((_, session)) = session else {
            gst::warning!(DATA, imp = self, "send-data: not started; data can be sent from PAUSED on");
            return false;
        };
        let packet = DataPacket {
            payload: Arc::from(payload.map_or(&[][..], |bytes| bytes)),
            topic: topic.unwrap_or_default(),
            reliable,
            destinations,
        };
        match session.send_data(packet) {
            Ok(()) => true,
            Err(error) => {
                gst::warning!(DATA, imp = self, "send-data: not sent: {error}");
                false
            }
        }
    }

    /// Tells the application of a packet.
    pub(super) fn data_received(&self, data: &ReceivedData) {
        let payload = glib::Bytes::from_owned(data.payload.clone());
        self.obj()
            .emit_by_name::<()>("data-received", &[&payload, &data.topic, &data.sender, &data.reliable]);
    }

    /// Statistics of the data pads, by name.
    pub(super) fn data_pad_stats(&self) -> Vec<(String, gst::Structure)> {
        let stats = |pad: &LiveKitSinkDataPad| {
            let leaf = self.data_leaf_of(pad)?;
            Some((pad.name().to_string(), pad_structure(leaf.imp().counters())))
        };
        self.data_pads().iter().filter_map(stats).collect()
    }
}

fn pad_structure(counters: &leaf::Counters) -> gst::Structure {
    let dropped: u64 = counters.dropped.iter().map(|counter| counter.load(Relaxed)).sum();
    let mut structure = gst::Structure::builder("livekit-data-pad-stats")
        .field("packets", counters.packets.load(Relaxed))
        .field("bytes", counters.bytes.load(Relaxed))
        .field("packets-dropped", dropped)
        .build();
    for (why, count) in leaf::DROPS.iter().zip(&counters.dropped) {
        structure.set(format!("dropped-{why}"), count.load(Relaxed));
    }
    structure
}

/// The session's counters of data packets; `unheard` = received ones that the application was too slow for.
pub(super) fn structure(stats: &DataStats, unheard: u64) -> gst::Structure {
    gst::Structure::builder("livekit-data-stats")
        .field("packets-sent", stats.sent)
        .field("bytes-sent", stats.bytes_sent)
        .field("packets-refused", stats.refused)
        .field("packets-dropped", stats.dropped)
        .field("packets-queued", stats.queued)
        .field("packets-received", stats.received)
        .field("bytes-received", stats.bytes_received)
        .field("packets-unheard", unheard)
        .build()
}

/// Signals of the element that are about data.
pub(super) fn signals() -> Vec<glib::subclass::Signal> {
    let arguments = || [glib::Bytes::static_type(), String::static_type()];
    vec![
        // Sends a packet: payload, topic, whether reliably, identities of those who are to get it (none =
        // everybody). False = it was refused, and the log says why.
        glib::subclass::Signal::builder("send-data")
            .param_types(arguments().into_iter().chain([bool::static_type(), Vec::<String>::static_type()]))
            .return_type::<bool>()
            .action()
            .run_last()
            .class_handler(|args| {
                let sink = args.first()?.get::<super::LiveKitSink>().ok()?;
                let payload = args.get(1)?.get::<Option<glib::Bytes>>().ok()?;
                let topic = args.get(2)?.get::<Option<String>>().ok()?;
                let reliable = args.get(3)?.get::<bool>().ok()?;
                let destinations = args.get(4)?.get::<Vec<String>>().unwrap_or_default();
                Some(sink.imp().send_data(payload.as_ref(), topic, reliable, destinations).to_value())
            })
            .build(),
        // Another participant sent a packet: payload, topic, identity of the sender, whether reliably.
        glib::subclass::Signal::builder("data-received")
            .param_types(arguments().into_iter().chain([String::static_type(), bool::static_type()]))
            .build(),
    ]
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn data_pads_take_nothing_that_a_track_is_made_of() {
        gst::init().unwrap();
        let caps = template_caps();
        for text in ["meta/x-klv,parsed=true", "application/json", "text/x-raw,format=utf8"] {
            assert!(caps.can_intersect(&gst::Caps::from_str(text).unwrap()), "{text}");
        }
        assert!(!caps.is_any());
        for text in ["video/x-h264", "audio/x-opus", "video/x-raw", "application/x-rtp"] {
            assert!(!caps.can_intersect(&gst::Caps::from_str(text).unwrap()), "{text}");
        }
    }
}
