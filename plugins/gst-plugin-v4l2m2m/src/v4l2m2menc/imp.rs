// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the encoder: the states of the element, and what comes from upstream and downstream. What goes through the
//! device is in `stream.rs`.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread::JoinHandle;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;
use v4l2_m2m::encoder::Setup;
use v4l2_m2m::worker::{Change, Worker, WorkerError};

use super::caps;
use super::settings::{self, Settings};
use super::stats::Stats;
use super::target::Targets;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("v4l2m2menc", gst::DebugColorFlags::empty(), Some("V4L2 mem2mem encoder"))
});

/// What streaming needs.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Of the raw pictures.
    pub info: Option<gst_video::VideoInfo>,
    pub wanted: Option<caps::Wanted>,
    /// `None`: no stream is set up in the device, and the next frame needs one.
    pub setup: Option<Setup>,
    /// The stream has to be drained and set up anew before the next frame.
    pub restart: bool,
    pub targets: Targets,
    /// Frames were left out since nobody needed them.
    pub paused: bool,
    /// What pushing said last.
    pub flow: Option<gst::FlowError>,
    /// A failure was posted; nothing goes on.
    pub failed: bool,
    pub key_warned: bool,
    /// Of the frame that came out last.
    pub last_pts: Option<gst::ClockTime>,
}

/// The behaviour of the element.
#[derive(Debug, Default)]
pub struct V4l2M2mEnc {
    pub(super) settings: Mutex<Settings>,
    pub(super) state: Mutex<State>,
    pub(super) stats: Mutex<Stats>,
    worker: Mutex<Option<Arc<Worker>>>,
    /// Pushes what comes out while no frame comes in.
    pusher: Mutex<Option<JoinHandle<()>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for V4l2M2mEnc {
    const NAME: &'static str = "GstV4l2M2mEnc";
    type Type = super::V4l2M2mEnc;
    type ParentType = gst_video::VideoEncoder;
    type Interfaces = (gst::Preset,);
}

impl ObjectImpl for V4l2M2mEnc {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        match pspec.name() {
            "bitrate" | "peak-bitrate" => self.change_bitrate(),
            "gop-size" => {
                let frames = lock(&self.settings).gop();
                self.change(Change::Gop(frames));
            }
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return lock(&self.stats).structure().to_value();
        }
        let settings = lock(&self.settings).clone();
        settings.get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }
}

impl GstObjectImpl for V4l2M2mEnc {}
impl PresetImpl for V4l2M2mEnc {}

impl ElementImpl for V4l2M2mEnc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "V4L2 mem2mem encoder",
                "Codec/Encoder/Video/Hardware",
                "Encodes video with a stateful V4L2 mem2mem device",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let always = gst::PadPresence::Always;
            [
                ("sink", gst::PadDirection::Sink, caps::sink_template()),
                ("src", gst::PadDirection::Src, caps::src_template()),
            ]
            .into_iter()
            .filter_map(|(name, direction, caps)| gst::PadTemplate::new(name, direction, always, &caps).ok())
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // Whoever waits for the device holds a lock that stopping needs.
        if transition == gst::StateChange::PausedToReady
            && let Some(worker) = self.worker()
        {
            worker.interrupt();
        }
        self.parent_change_state(transition)
    }
}

impl VideoEncoderImpl for V4l2M2mEnc {
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let path = settings.path();
        let ops = crate::testing::ops();
        let worker = Worker::open(&ops, path, settings.device_timeout).map_err(|error| match &error {
            WorkerError::Probe(tried) if tried.0.is_empty() => gst::error_msg!(
                gst::ResourceError::NotFound,
                ("No V4L2 encoder: there is no /dev/video* node; load the driver of the board's encoder")
            ),
            WorkerError::Probe(tried) => gst::error_msg!(
                gst::ResourceError::NotFound,
                ("No V4L2 encoder among the nodes tried: {tried}. Set 'device' if it is another node")
            ),
            _ => gst::error_msg!(gst::ResourceError::OpenRead, ("Cannot open the V4L2 encoder: {error}")),
        })?;
        let info = worker.info();
        gst::info!(CAT, imp = self, "using {} ({}, {})", info.path.display(), info.driver, info.card);
        *lock(&self.stats) = Stats {
            device: info.path.display().to_string(),
            driver: info.driver.clone(),
            ..Stats::default()
        };
        let worker = Arc::new(worker);
        let pusher = {
            let (worker, weak) = (Arc::clone(&worker), self.obj().downgrade());
            move || {
                while worker.wait_coded() {
                    let Some(obj) = weak.upgrade() else { return };
                    obj.imp().push_coded(&worker);
                }
            }
        };
        let thread = std::thread::Builder::new().name("v4l2m2menc:src".into()).spawn(pusher);
        let thread = thread.map_err(|error| {
            gst::error_msg!(gst::ResourceError::Failed, ("Cannot start a thread: {error}"))
        })?;
        *lock(&self.pusher) = Some(thread);
        *lock(&self.worker) = Some(worker);
        Ok(())
    }

    fn close(&self) -> Result<(), gst::ErrorMessage> {
        let worker = lock(&self.worker).take();
        if let Some(worker) = worker {
            let patience = lock(&self.settings).device_timeout;
            if !worker.quit(patience) {
                gst::warning!(CAT, imp = self, "the device does not let go; it is left behind");
            }
        }
        let pusher = lock(&self.pusher).take();
        // The thread may itself hold the last reference to the element.
        if let Some(pusher) = pusher
            && pusher.thread().id() != std::thread::current().id()
        {
            let _ = pusher.join();
        }
        Ok(())
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let worker = self
            .worker()
            .ok_or_else(|| gst::error_msg!(gst::ResourceError::NotFound, ("The device is not open")))?;
        worker.resume();
        *lock(&self.state) = State::default();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::default();
        if let Some(worker) = self.worker() {
            let patience = lock(&self.settings).device_timeout;
            if let Err(error) = worker.stop(patience) {
                // Stopping goes on all the same; the thread is left behind when the element is closed.
                gst::warning!(CAT, imp = self, "stopping: {error}");
            }
        }
        Ok(())
    }

    fn set_format(
        &self,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        let info = state.info().clone();
        let worker = self.worker().ok_or_else(|| gst::loggable_error!(CAT, "the device is not open"))?;
        let obj = self.obj();
        let allowed = obj.src_pad().allowed_caps().unwrap_or_else(caps::src_template);
        let raw = caps::raw_format(info.format())
            .ok_or_else(|| gst::loggable_error!(CAT, "no V4L2 format for {}", info.format()))?;
        let wanted = caps::choose(&allowed, &worker.info().codecs, raw).ok_or_else(|| {
            gst::loggable_error!(CAT, "the device makes none of {allowed} from {}", info.format())
        })?;
        let only_rate = {
            let streaming = lock(&self.state);
            streaming.setup.is_some()
                && !streaming.restart
                && streaming.wanted.as_ref() == Some(&wanted)
                && streaming.info.as_ref().is_some_and(|old| same_but_rate(old, &info))
        };
        if only_rate {
            let fps = info.fps();
            if let (Ok(n), Ok(d)) = (u32::try_from(fps.numer()), u32::try_from(fps.denom()))
                && n > 0
            {
                self.change(Change::Rate((n, d)));
            }
        } else {
            // No frame is lost: what is in the device comes out first.
            self.drain(&worker, None).map_err(|error| gst::loggable_error!(CAT, "draining: {error:?}"))?;
        }
        {
            let mut streaming = lock(&self.state);
            streaming.info = Some(info);
            streaming.wanted = Some(wanted);
        }
        if !only_rate {
            self.set_up(&worker).map_err(|()| gst::loggable_error!(CAT, "the device refuses"))?;
        }
        self.negotiate_output(state)
    }

    fn handle_frame(&self, frame: gst_video::VideoCodecFrame) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.encode(frame)
    }

    fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(worker) = self.worker() else { return Ok(gst::FlowSuccess::Ok) };
        self.drain(&worker, None)
    }

    fn flush(&self) -> bool {
        let Some(worker) = self.worker() else { return true };
        worker.resume();
        let patience = lock(&self.settings).device_timeout;
        {
            let mut state = lock(&self.state);
            state.flow = None;
            if state.setup.is_none() {
                return true;
            }
        }
        worker.flush(patience).is_ok()
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> gst::Caps {
        let obj = self.obj();
        let caps = self.worker().map(|worker| {
            let downstream = obj.src_pad().allowed_caps();
            caps::sink_caps(&worker.info().codecs, downstream.as_ref())
        });
        obj.proxy_getcaps(caps.as_ref(), filter)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => {
                if let Some(worker) = self.worker() {
                    worker.interrupt();
                }
            }
            gst::EventView::FlushStop(_) => {
                if let Some(worker) = self.worker() {
                    worker.resume();
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::CustomUpstream(custom) = event.view()
            && let Some(structure) = custom.structure()
            && lock(&self.state).targets.update(structure)
        {
            self.change_bitrate();
            return true;
        }
        self.parent_src_event(event)
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        // Any strides and offsets are taken.
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        self.parent_propose_allocation(query)
    }
}

impl V4l2M2mEnc {
    pub(super) fn worker(&self) -> Option<Arc<Worker>> {
        lock(&self.worker).clone()
    }

    /// The bitrate that is to hold now, and the peak.
    pub(super) fn bitrate(&self) -> (u32, u32) {
        let (own, peak) = {
            let settings = lock(&self.settings);
            (settings.bitrate, settings.peak_bitrate)
        };
        let (own, bitrate) = {
            let state = lock(&self.state);
            let own = if own == 0 { state.info.as_ref().map_or(1_000_000, default_bitrate) } else { own };
            (own, state.targets.bitrate(own))
        };
        // A target below the property takes the peak along.
        let peak = u64::from(peak) * u64::from(bitrate) / u64::from(own.max(1));
        (bitrate, u32::try_from(peak).unwrap_or(u32::MAX))
    }

    fn change_bitrate(&self) {
        let (bitrate, peak) = self.bitrate();
        {
            let mut stats = lock(&self.stats);
            if stats.bitrate == 0 {
                return;
            }
            stats.bitrate = bitrate;
        }
        self.change(Change::Bitrate(bitrate, peak));
    }

    /// Changes a stream that is set up.
    fn change(&self, change: Change) {
        if lock(&self.state).setup.is_none() {
            return;
        }
        if let Some(worker) = self.worker() {
            gst::debug!(CAT, imp = self, "{change:?}");
            let _ = worker.change(change);
        }
    }
}

/// An eighth of a bit for each pixel.
fn default_bitrate(info: &gst_video::VideoInfo) -> u32 {
    let fps = info.fps();
    let positive = |n: i32| u64::try_from(n).ok().filter(|n| *n > 0);
    let (n, d) = positive(fps.numer()).zip(positive(fps.denom())).unwrap_or((30, 1));
    let bits = u64::from(info.width()) * u64::from(info.height()) * n / d / 8;
    u32::try_from(bits.clamp(1, 1_000_000_000)).unwrap_or(1_000_000_000)
}

/// Whether two infos differ by nothing but the frame rate.
fn same_but_rate(old: &gst_video::VideoInfo, new: &gst_video::VideoInfo) -> bool {
    old.format() == new.format()
        && (old.width(), old.height()) == (new.width(), new.height())
        && old.colorimetry() == new.colorimetry()
}

/// A mutex that a panicking thread left is still usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
