// SPDX-License-Identifier: MPL-2.0

//! What both elements do: the states of an encoder, and what comes from upstream and downstream. What goes through the
//! device is in `stream.rs`; an element adds its properties, its way to devices and its words for what fails ([`Kind`]).

pub(crate) mod caps;
mod import;
pub(crate) mod settings;
mod stats;
mod stream;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread::JoinHandle;

use gst::glib;
use gst::prelude::*;
use gst_encoder_glue::drm;
use gst_encoder_glue::pace::Pace;
use gst_encoder_glue::targets::{EVENT, Targets};
use gst_video::prelude::*;
use v4l2_m2m::codec::Codec;
use v4l2_m2m::encoder::Setup;
use v4l2_m2m::ops::V4l2Ops;
use v4l2_m2m::picture::RawFormat;
use v4l2_m2m::worker::{Change, Worker, WorkerError};

use crate::loans::{LoanPool, Loans};
use crate::nvmm::{DMABUF, NVMM};
use crate::pool::HeapPool;

pub(crate) use settings::Settings;
use stats::Stats;

/// Which keyframes carry parameter sets.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstV4l2EncHeaderMode")]
#[non_exhaustive]
pub enum HeaderMode {
    /// All; put in by the element where the device does not.
    #[default]
    #[enum_value(name = "With every keyframe", nick = "each-idr")]
    EachIdr,
    /// Those where the device puts them, mostly the first.
    #[enum_value(
        name = "Where the device puts them, mostly at the start of the stream",
        nick = "first-frame"
    )]
    FirstFrame,
}

/// Whose memory the device reads.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstV4l2EncIoMode")]
#[non_exhaustive]
pub enum IoMode {
    /// DMABufs are read where they are, if the device can; the rest is in the device's own memory, by upstream or by a copy.
    #[default]
    #[enum_value(name = "DMABufs where they are, the rest in the device's own memory", nick = "auto")]
    Auto,
    /// The device's own, which upstream may write to, and everything else is copied to.
    #[enum_value(name = "Everything in the device's own memory", nick = "mmap")]
    Mmap,
    /// As `auto`, but the device is set up for DMABufs before the first has come, and upstream is offered some to write to.
    #[enum_value(name = "DMABufs where they are, and some to write to for upstream", nick = "dmabuf")]
    DmaBuf,
}

/// What the size of the coded picture buffer is made for.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstV4l2EncLatencyMode")]
#[non_exhaustive]
pub enum LatencyMode {
    /// Small, so that every picture is soon sent.
    #[default]
    #[enum_value(name = "Small, so that every picture is soon sent", nick = "low")]
    Low,
    /// A second, so that bits can go where they are needed.
    #[enum_value(name = "A second, so that bits can go where they are needed", nick = "normal")]
    Normal,
}

/// What an element has of its own.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name.
    pub element: &'static str,
    /// Name of its statistics.
    pub stats: &'static str,
    /// Where it logs.
    pub category: &'static LazyLock<gst::DebugCategory>,
    /// What its devices may make, the most wanted first.
    pub codecs: &'static [Codec],
    /// What its devices may take.
    pub raws: &'static [RawFormat],
    /// They give out slices one by one.
    pub slices: bool,
    /// Memories other than the system's that its devices may read.
    pub features: &'static [&'static str],
    /// The way to its devices.
    pub ops: fn(&Settings) -> Result<Arc<dyn V4l2Ops>, gst::ErrorMessage>,
    /// Says why no device could be opened.
    pub refused: fn(&Settings, &WorkerError) -> gst::ErrorMessage,
    /// Where to look when the device of this name fails.
    pub hint: fn(&str) -> String,
}

/// Where raw pictures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Memory {
    #[default]
    System,
    DmaBuf,
    Nvmm,
}

impl Memory {
    fn of(caps: &gst::CapsRef) -> Self {
        let has = |feature| caps.features(0).is_some_and(|features| features.contains(feature));
        match () {
            () if has(NVMM) => Self::Nvmm,
            () if has(DMABUF) => Self::DmaBuf,
            () => Self::System,
        }
    }
}

/// Of `avc` and `hvc1`.
#[derive(Debug)]
pub(crate) struct Packaging {
    /// What the next caps are made with.
    input: gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    /// The parameter sets in the caps; `None`: no caps were sent.
    record: Option<Vec<u8>>,
    /// Of these nothing came, before there were caps. The base class takes none back without.
    lost: BTreeSet<u64>,
}

/// What streaming needs.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Of the raw pictures.
    pub info: Option<gst_video::VideoInfo>,
    pub wanted: Option<caps::Wanted>,
    /// `None`: no stream is set up in the device, and the next frame needs one.
    pub setup: Option<Setup>,
    /// The stream has to be drained and set up anew before the next frame.
    pub restart: bool,
    /// Where the pictures are.
    pub memory: Memory,
    /// As the last caps say. The base class does not tell of caps that differ by this alone.
    pub announced: Memory,
    /// DMABufs that the device cannot read are copied, from the first on.
    pub copying: bool,
    /// Bytes of a line of the DMABufs, if it is not what the device would choose.
    pub stride: Option<u32>,
    /// The device's buffer of each descriptor: its library wants them to stay together.
    pub bindings: HashMap<RawFd, u32>,
    pub targets: Targets,
    pub pace: Pace,
    /// Frame rate that the device was told.
    pub rate: Option<(u32, u32)>,
    /// Caps are not sent before the first keyframe, whose parameter sets belong in them.
    pub packaging: Option<Packaging>,
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

impl State {
    /// The lowest of the frame rates that are enough, and of the property if that is one.
    fn max_framerate(&self, own: gst::Fraction) -> Option<gst::Fraction> {
        let own = Some(own).filter(|own| own.numer() > 0);
        self.targets.wish().max_framerate.into_iter().chain(own).min()
    }
}

/// An encoder inside of an element.
#[derive(Debug)]
pub(crate) struct Core {
    pub kind: &'static Kind,
    pub settings: Mutex<Settings>,
    state: Mutex<State>,
    stats: Mutex<Stats>,
    worker: Mutex<Option<Arc<Worker>>>,
    ops: Mutex<Option<Arc<dyn V4l2Ops>>>,
    /// Held from reading a wish until it is on its way, so that the last one stays the last.
    changes: Mutex<()>,
    /// Pushes what comes out while no frame comes in.
    pusher: Mutex<Option<JoinHandle<()>>>,
    /// Buffers of the device that upstream writes to.
    loans: Loans,
}

impl Core {
    pub fn new(kind: &'static Kind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            settings: Mutex::default(),
            state: Mutex::default(),
            stats: Mutex::default(),
            worker: Mutex::default(),
            ops: Mutex::default(),
            changes: Mutex::default(),
            pusher: Mutex::default(),
            loans: Loans::default(),
        })
    }

    fn cat(&self) -> gst::DebugCategory {
        **self.kind.category
    }

    /// A property was set.
    pub fn changed(&self, obj: &gst_video::VideoEncoder, property: &str) {
        match property {
            "bitrate" | "peak-bitrate" | "min-bitrate" => self.change_bitrate(obj),
            "max-framerate" => self.change_rate(obj),
            "gop-size" => self.change_gop(obj),
            _ => {}
        }
    }

    /// The property `stats`.
    pub fn stats(&self) -> gst::Structure {
        lock(&self.stats).structure(self.kind.stats)
    }

    /// Before the base class hears of it.
    pub fn before(&self, transition: gst::StateChange) {
        // Whoever waits for the device holds a lock that stopping needs.
        if transition == gst::StateChange::PausedToReady
            && let Some(worker) = self.worker()
        {
            worker.interrupt();
        }
    }

    pub fn pad_templates(kind: &Kind) -> Vec<gst::PadTemplate> {
        let always = gst::PadPresence::Always;
        [
            ("sink", gst::PadDirection::Sink, caps::sink_template(kind)),
            ("src", gst::PadDirection::Src, caps::src_template(kind)),
        ]
        .into_iter()
        .filter_map(|(name, direction, caps)| gst::PadTemplate::new(name, direction, always, &caps).ok())
        .collect()
    }

    pub fn open(self: &Arc<Self>, obj: &gst_video::VideoEncoder) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let ops = (self.kind.ops)(&settings)?;
        let worker = Worker::open(&ops, settings.path(), settings.device_timeout)
            .map_err(|error| (self.kind.refused)(&settings, &error))?;
        let info = worker.info();
        gst::info!(self.cat(), obj = obj, "using {} ({}, {})", info.path.display(), info.driver, info.card);
        *lock(&self.stats) = Stats {
            device: info.path.display().to_string(),
            driver: info.driver.clone(),
            ..Stats::default()
        };
        let worker = Arc::new(worker);
        let pusher = {
            let (worker, core, weak) = (Arc::clone(&worker), Arc::clone(self), obj.downgrade());
            move || {
                while worker.wait_coded() {
                    let Some(obj) = weak.upgrade() else { return };
                    core.push_coded(&obj, &worker);
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("{}:src", self.kind.element)).spawn(pusher);
        let thread = thread.map_err(|error| {
            gst::error_msg!(gst::ResourceError::Failed, ("Cannot start a thread: {error}"))
        })?;
        *lock(&self.pusher) = Some(thread);
        *lock(&self.worker) = Some(worker);
        *lock(&self.ops) = Some(ops);
        Ok(())
    }

    pub fn close(&self, obj: &gst_video::VideoEncoder) -> Result<(), gst::ErrorMessage> {
        let worker = lock(&self.worker).take();
        if let Some(worker) = worker {
            let patience = lock(&self.settings).device_timeout;
            if !worker.quit(patience) {
                gst::warning!(self.cat(), obj = obj, "the device does not let go; it is left behind");
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

    pub fn start(&self) -> Result<(), gst::ErrorMessage> {
        let worker = self
            .worker()
            .ok_or_else(|| gst::error_msg!(gst::ResourceError::NotFound, ("The device is not open")))?;
        worker.resume();
        *lock(&self.state) = State::default();
        Ok(())
    }

    pub fn stop(&self, obj: &gst_video::VideoEncoder) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::default();
        if let Some(worker) = self.worker() {
            let patience = lock(&self.settings).device_timeout;
            if let Err(error) = worker.stop(patience) {
                // Stopping goes on all the same; the thread is left behind when the element is closed.
                gst::warning!(self.cat(), obj = obj, "stopping: {error}");
            }
        }
        Ok(())
    }

    pub fn set_format(
        &self,
        obj: &gst_video::VideoEncoder,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        let info = state.caps().and_then(drm::info).unwrap_or_else(|| state.info().clone());
        let worker =
            self.worker().ok_or_else(|| gst::loggable_error!(self.cat(), "the device is not open"))?;
        let allowed = obj.src_pad().allowed_caps().unwrap_or_else(|| caps::src_template(self.kind));
        let raw = caps::raw_format(info.format())
            .ok_or_else(|| gst::loggable_error!(self.cat(), "no V4L2 format for {}", info.format()))?;
        let wanted = caps::choose(&allowed, &worker.info().codecs, raw).ok_or_else(|| {
            gst::loggable_error!(self.cat(), "the device makes none of {allowed} from {}", info.format())
        })?;
        let memory = self.expected(state.caps().map_or(Memory::System, Memory::of));
        let only_rate = {
            let streaming = lock(&self.state);
            streaming.setup.is_some()
                && streaming.memory == memory
                && !streaming.restart
                && streaming.wanted.as_ref() == Some(&wanted)
                && streaming.info.as_ref().is_some_and(|old| same_but_rate(old, &info))
        };
        if !only_rate {
            // No frame is lost: what is in the device comes out first.
            self.drain(obj, &worker, None)
                .map_err(|error| gst::loggable_error!(self.cat(), "draining: {error:?}"))?;
        }
        {
            let mut streaming = lock(&self.state);
            streaming.info = Some(info);
            streaming.wanted = Some(wanted);
            if !only_rate {
                (streaming.memory, streaming.copying, streaming.stride) = (memory, false, None);
            }
        }
        if only_rate {
            self.change_rate(obj);
        } else {
            self.set_up(obj, &worker).map_err(|()| gst::loggable_error!(self.cat(), "the device refuses"))?;
        }
        self.negotiate_output(obj, state)
    }

    pub fn finish(&self, obj: &gst_video::VideoEncoder) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(worker) = self.worker() else { return Ok(gst::FlowSuccess::Ok) };
        self.drain(obj, &worker, None)
    }

    pub fn flush(&self) -> bool {
        let Some(worker) = self.worker() else { return true };
        worker.resume();
        let patience = lock(&self.settings).device_timeout;
        {
            let mut state = lock(&self.state);
            state.flow = None;
            if let Some(packaging) = state.packaging.as_mut() {
                packaging.lost.clear();
            }
            if state.setup.is_none() {
                return true;
            }
        }
        worker.flush(patience).is_ok()
    }

    pub fn caps(&self, obj: &gst_video::VideoEncoder, filter: Option<&gst::Caps>) -> gst::Caps {
        let caps = self.worker().map(|worker| {
            let downstream = obj.src_pad().allowed_caps();
            caps::sink_caps(self.kind, &worker.info().codecs, downstream.as_ref())
        });
        obj.proxy_getcaps(caps.as_ref(), filter)
    }

    /// A look at an event, before the base class has it.
    pub fn sink_event(&self, event: &gst::Event) {
        match event.view() {
            gst::EventView::Caps(event) => lock(&self.state).announced = Memory::of(event.caps()),
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
    }

    /// Whether the event was meant for the encoder alone.
    pub fn src_event(&self, obj: &gst_video::VideoEncoder, event: &gst::Event) -> bool {
        let structure = event.structure().filter(|structure| structure.name() == EVENT);
        let Some(structure) = structure.filter(|_| event.type_() == gst::EventType::CustomUpstream) else {
            return false;
        };
        let result = lock(&self.state).targets.update(structure);
        match result {
            Ok(()) => {
                self.change_bitrate(obj);
                self.change_rate(obj);
            }
            Err(why) => gst::warning!(self.cat(), obj = obj, "ignoring {structure:?}: {why}"),
        }
        true
    }

    /// Whether pictures of these caps can be read, now that the base class had them: to it all formats of DMA_DRM caps are the
    /// same one, and no reason to tell us.
    pub fn reads(&self, obj: &gst_video::VideoEncoder, drm: Option<gst_video::VideoInfo>) -> bool {
        let known = lock(&self.state).info.as_ref().map(gst_video::VideoInfo::format);
        let (Some(info), Some(worker)) = (drm, self.worker()) else { return true };
        let new = info.format();
        if known.is_none_or(|known| known == new) {
            return true;
        }
        let mut state = lock(&self.state);
        let able = state.wanted.as_ref().zip(caps::raw_format(new)).is_some_and(|(wanted, raw)| {
            worker.info().codecs.iter().any(|support| {
                support.codec == wanted.codec && support.raws.iter().any(|(format, _)| *format == raw)
            })
        });
        if able {
            // What is in the device comes out first, when the next frame comes.
            state.info = Some(info);
            (state.copying, state.stride) = (false, None);
            state.restart |= state.setup.is_some();
        } else {
            drop(state);
            gst::element_error!(
                obj,
                gst::StreamError::Format,
                ("The device cannot make the same codec of {} as of the format before", new.to_str())
            );
        }
        able
    }

    /// What upstream is told of memory. `false`: the base class has nothing to add.
    pub fn propose_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let (caps, need_pool) = query.get();
        // It would not know the size of such pictures.
        let plain = caps.is_none_or(|caps| drm::plain(caps).is_none());
        if need_pool && self.fills_dmabufs() {
            if let Some((pool, size)) = self.pool() {
                gst::debug!(self.cat(), "offering a pool of DMABufs");
                query.add_allocation_pool(Some(&pool), size, 2, 0);
            }
        } else if need_pool && let Some((pool, size)) = self.loan_pool() {
            gst::debug!(self.cat(), "offering a pool of the device's own buffers");
            query.add_allocation_pool(Some(&pool), size, 2, 0);
        }
        // Any strides and offsets are taken.
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        plain
    }

    /// Whether upstream is to write where the device reads.
    fn fills_dmabufs(&self) -> bool {
        lock(&self.settings).io_mode == IoMode::DmaBuf && !self.binds()
    }

    /// Buffers that are laid out as the device was set up for.
    fn pool(&self) -> Option<(HeapPool, u32)> {
        let state = lock(&self.state);
        let (info, setup) = state.info.as_ref().zip(state.setup.as_ref())?;
        if state.copying {
            return None;
        }
        HeapPool::new(info, &setup.layout)
    }

    /// The device's own buffers, where pictures are in memory of the system's.
    fn loan_pool(&self) -> Option<(LoanPool, u32)> {
        let lender = self.worker()?.lender();
        let state = lock(&self.state);
        let (info, setup) = state.info.as_ref().zip(state.setup.as_ref())?;
        // Where the device does not crop, the edge has to be repeated: in a copy.
        let cropped = setup.visible == (info.width(), info.height());
        if state.announced != Memory::System || setup.loans == 0 || !cropped {
            return None;
        }
        LoanPool::new(info, &setup.layout, lender, &self.loans)
    }

    fn worker(&self) -> Option<Arc<Worker>> {
        lock(&self.worker).clone()
    }

    /// The bitrate that is to hold now, and the peak.
    fn bitrate(&self) -> (u32, u32) {
        let (own, peak, least) = {
            let settings = lock(&self.settings);
            (settings.bitrate, settings.peak_bitrate, settings.min_bitrate)
        };
        let (own, bitrate) = {
            let state = lock(&self.state);
            let own = if own == 0 { state.info.as_ref().map_or(1_000_000, default_bitrate) } else { own };
            let wanted = state.targets.wish().bitrate.map_or(own, |wanted| wanted.min(own));
            (own, wanted.max(least.min(own)))
        };
        // A target below the property takes the peak along.
        let peak = u64::from(peak) * u64::from(bitrate) / u64::from(own.max(1));
        (bitrate, u32::try_from(peak).unwrap_or(u32::MAX))
    }

    fn change_bitrate(&self, obj: &gst_video::VideoEncoder) {
        let _in_order = lock(&self.changes);
        let (bitrate, peak) = self.bitrate();
        {
            let mut stats = lock(&self.stats);
            if stats.bitrate == 0 {
                return;
            }
            stats.bitrate = bitrate;
        }
        self.change(obj, Change::Bitrate(bitrate, peak));
    }

    /// The frame rate that the device is to count with; `None` where nobody says one.
    fn rate(&self) -> Option<(u32, u32)> {
        let own = lock(&self.settings).max_framerate;
        let state = lock(&self.state);
        let fps = state.info.as_ref().map(|info| info.fps()).filter(|fps| fps.numer() > 0 && fps.denom() > 0);
        let rate = fps.into_iter().chain(state.max_framerate(own)).min()?;
        u32::try_from(rate.numer()).ok().zip(u32::try_from(rate.denom()).ok())
    }

    fn change_gop(&self, obj: &gst_video::VideoEncoder) {
        let _in_order = lock(&self.changes);
        let frames = lock(&self.settings).gop();
        self.change(obj, Change::Gop(frames));
    }

    fn change_rate(&self, obj: &gst_video::VideoEncoder) {
        let _in_order = lock(&self.changes);
        let Some(rate) = self.rate() else { return };
        if lock(&self.state).rate.replace(rate) != Some(rate) {
            self.change(obj, Change::Rate(rate));
        }
    }

    /// Changes a stream that is set up.
    fn change(&self, obj: &gst_video::VideoEncoder, change: Change) {
        if lock(&self.state).setup.is_none() {
            return;
        }
        if let Some(worker) = self.worker() {
            gst::debug!(self.cat(), obj = obj, "{change:?}");
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
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What the two elements' classes have in common. The object has a field `core`, its module `KIND` and `settings`.
macro_rules! encoder_impl {
    ($element:ident, $name:literal, $description:literal) => {
        impl ObjectImpl for $element {
            fn properties() -> &'static [glib::ParamSpec] {
                settings::properties()
            }

            fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
                settings::set(&mut lock(&self.core.settings), pspec.name(), value);
                self.core.changed(self.obj().upcast_ref(), pspec.name());
            }

            fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
                if pspec.name() == "stats" {
                    return self.core.stats().to_value();
                }
                let settings = lock(&self.core.settings).clone();
                settings::get(&settings, pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
            }
        }

        impl GstObjectImpl for $element {}
        impl PresetImpl for $element {}

        impl ElementImpl for $element {
            fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                    gst::subclass::ElementMetadata::new(
                        $name,
                        "Codec/Encoder/Video/Hardware",
                        $description,
                        "The gst-livekit-boards developers",
                    )
                });
                Some(&METADATA)
            }

            fn pad_templates() -> &'static [gst::PadTemplate] {
                static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
                    LazyLock::new(|| Core::pad_templates(&KIND));
                &TEMPLATES
            }

            fn change_state(
                &self,
                transition: gst::StateChange,
            ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                self.core.before(transition);
                self.parent_change_state(transition)
            }
        }

        impl VideoEncoderImpl for $element {
            fn open(&self) -> Result<(), gst::ErrorMessage> {
                self.core.open(self.obj().upcast_ref())
            }

            fn close(&self) -> Result<(), gst::ErrorMessage> {
                self.core.close(self.obj().upcast_ref())
            }

            fn start(&self) -> Result<(), gst::ErrorMessage> {
                self.core.start()
            }

            fn stop(&self) -> Result<(), gst::ErrorMessage> {
                self.core.stop(self.obj().upcast_ref())
            }

            fn set_format(
                &self,
                state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
            ) -> Result<(), gst::LoggableError> {
                self.core.set_format(self.obj().upcast_ref(), state)
            }

            fn handle_frame(
                &self,
                frame: gst_video::VideoCodecFrame,
            ) -> Result<gst::FlowSuccess, gst::FlowError> {
                self.core.encode(self.obj().upcast_ref(), frame)
            }

            fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
                self.core.finish(self.obj().upcast_ref())
            }

            fn flush(&self) -> bool {
                self.core.flush()
            }

            fn caps(&self, filter: Option<&gst::Caps>) -> gst::Caps {
                self.core.caps(self.obj().upcast_ref(), filter)
            }

            fn sink_event(&self, event: gst::Event) -> bool {
                self.core.sink_event(&event);
                let drm = match event.view() {
                    gst::EventView::Caps(caps) => drm::info(caps.caps()),
                    _ => None,
                };
                self.parent_sink_event(event) && self.core.reads(self.obj().upcast_ref(), drm)
            }

            fn src_event(&self, event: gst::Event) -> bool {
                self.core.src_event(self.obj().upcast_ref(), &event) || self.parent_src_event(event)
            }

            fn propose_allocation(
                &self,
                query: &mut gst::query::Allocation,
            ) -> Result<(), gst::LoggableError> {
                if self.core.propose_allocation(query) {
                    return self.parent_propose_allocation(query);
                }
                Ok(())
            }
        }
    };
}
pub(crate) use encoder_impl;
