// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the sink: buffers and buffer lists in, datagrams out.

use std::io::IoSlice;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use super::pacing::{Interval, Plan, plan};
use super::sender::{Packet, Sender};
use super::settings::{self, Settings};
use super::socket;
use super::stats::Stats;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rtpudpsink-rs", gst::DebugColorFlags::empty(), Some("RTP UDP sink"))
});

#[derive(Default)]
struct State {
    sender: Option<Sender>,
    interval: Interval,
}

/// The behaviour of the element.
#[derive(Default)]
pub struct RtpUdpSink {
    settings: Mutex<Settings>,
    /// Only the streaming thread sends, and takes the sender out for it: no lock is held meanwhile.
    state: Mutex<State>,
    /// Set while a pause between two trains must end.
    unlocked: Mutex<bool>,
    wake: Condvar,
    stats: Stats,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpUdpSink {
    const NAME: &'static str = "GstRtpUdpSinkRs";
    type Type = super::RtpUdpSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for RtpUdpSink {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats.structure().to_value();
        }
        lock(&self.settings).get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }
}

impl GstObjectImpl for RtpUdpSink {}

impl ElementImpl for RtpUdpSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTP UDP sink",
                "Sink/Network",
                "Sends RTP packets by UDP, a frame in a few system calls",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::new_any();
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps)
                .into_iter()
                .collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for RtpUdpSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let opened = socket::open(&settings)
            .map_err(|error| gst::error_msg!(gst::ResourceError::OpenWrite, ["{error}"]))?;
        for complaint in &opened.complaints {
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ["{complaint}"]);
        }
        gst::info!(
            CAT,
            imp = self,
            "sends to {}, {} segmentation offload",
            opened.to,
            if opened.gso { "with" } else { "without" }
        );
        self.stats.reset();
        self.stats.gso.store(opened.gso, std::sync::atomic::Ordering::Relaxed);
        *lock(&self.state) = State { sender: Some(Sender::new(opened)), interval: Interval::default() };
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::default();
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let rate = caps.structure(0).and_then(|s| s.get::<String>("a-framerate").ok()?.trim().parse().ok());
        lock(&self.state).interval.announce(rate);
        self.parent_set_caps(caps)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.send(std::iter::once(buffer.as_ref()), buffer.pts())
    }

    fn render_list(&self, list: &gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.send(list.iter(), list.get(0).and_then(gst::BufferRef::pts))
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.unlocked) = true;
        self.wake.notify_all();
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.unlocked) = false;
        Ok(())
    }
}

impl RtpUdpSink {
    fn send<'a>(
        &self,
        buffers: impl Iterator<Item = &'a gst::BufferRef>,
        pts: Option<gst::ClockTime>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut maps = Vec::new();
        let mut counts = Vec::new();
        for buffer in buffers {
            let before = maps.len();
            for memory in buffer.iter_memories() {
                maps.push(memory.map_readable().map_err(|_| {
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::Read,
                        ["a packet's memory cannot be read"]
                    );
                    gst::FlowError::Error
                })?);
            }
            counts.push(maps.len() - before);
        }
        let parts: Vec<_> = maps.iter().map(|map| IoSlice::new(map)).collect();
        let mut rest = parts.as_slice();
        let mut packets = Vec::with_capacity(counts.len());
        for count in counts {
            let Some((own, after)) = rest.split_at_checked(count) else { break };
            packets.push(Packet { parts: own, len: own.iter().map(|part| part.len()).sum() });
            rest = after;
        }
        let bytes = packets.iter().map(|packet| packet.len).sum();
        let rate = lock(&self.settings).max_pacing_rate;
        let (mut sender, interval) = {
            let mut state = lock(&self.state);
            state.interval.frame(pts.map(Duration::from));
            (state.sender.take().ok_or(gst::FlowError::Flushing)?, state.interval.get())
        };
        let plan = plan(packets.len(), bytes, rate, interval);
        let result = self.send_trains(&mut sender, &packets, plan);
        lock(&self.state).sender = Some(sender);
        result
    }

    fn send_trains(
        &self,
        sender: &mut Sender,
        packets: &[Packet<'_>],
        plan: Plan,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if plan.gap > Duration::ZERO {
            Stats::add(&self.stats.paced_frames, 1);
        }
        let begin = Instant::now();
        for (index, train) in (0..).zip(packets.chunks(plan.train)) {
            while !self.wait_until(begin + plan.gap * index) {
                // Paused: what is left of the frame waits until it goes on. Stopped or flushed: the flow ends here.
                self.obj().wait_preroll()?;
            }
            sender.send(train, &self.stats);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Waits; false when the element is told to stop meanwhile.
    fn wait_until(&self, time: Instant) -> bool {
        let mut unlocked = lock(&self.unlocked);
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() || *unlocked {
                return !*unlocked || left.is_zero();
            }
            unlocked = self.wake.wait_timeout(unlocked, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left behind is whole: nothing here unwinds half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
