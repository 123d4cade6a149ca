// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the encoder element.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_encoder_glue::pace::Pace;
use gst_encoder_glue::targets::{EVENT, Targets, Wish};
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;
use gst_video::{VideoCodecFrame, VideoCodecFrameFlags, VideoInfo};
use rockchip_mpp::{Context, Frame, InputMode, Mpp, Timeout};

use super::codec::{self, CODECS};
use super::config::{self, Live};
use super::flow::{Flow, HANG, Output, lock};
use super::input::{self, InputError};
use super::layout::{self, Layout};
use super::pool::Pool;
use super::session::Session;
use super::settings::{self, Settings};
use super::{Rotation, bitstream};
use crate::{device, drm};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rkmppenc", gst::DebugColorFlags::empty(), Some("Rockchip MPP encoder"))
});

/// How long the library waits for a packet, ms. Under 20, old releases spin.
pub(super) const OUTPUT_TIMEOUT: Timeout = Timeout::Millis(100);
/// Between two tries to put a frame into a full queue.
const RETRY: Duration = Duration::from_millis(1);

/// The behaviour of the element.
#[derive(Default)]
pub struct RkMppEnc {
    pub(super) settings: Mutex<Settings>,
    /// Properties or wishes changed.
    pub(super) changed: AtomicBool,
    targets: Mutex<Targets>,
    pace: Mutex<Pace>,
    mpp: Mutex<Option<Mpp>>,
    session: Mutex<Option<Session>>,
    pub(super) flow: Arc<Flow>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for RkMppEnc {
    const NAME: &'static str = "GstRkMppEnc";
    type Type = super::RkMppEnc;
    type ParentType = gst_video::VideoEncoder;
    type Interfaces = (gst::Preset,);
}

impl ObjectImpl for RkMppEnc {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        self.changed.store(true, Ordering::Release);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return lock(&self.flow.stats).structure(self.flow.pending()).to_value();
        }
        let settings = lock(&self.settings).clone();
        settings.get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        let weak = obj.downgrade();
        let kinds = gst::PadProbeType::BUFFER;
        obj.sink_pad().add_probe(kinds, move |_, info| match (weak.upgrade(), info.buffer()) {
            (Some(obj), Some(buffer)) => obj.imp().admit(buffer),
            _ => gst::PadProbeReturn::Ok,
        });
    }
}

impl GstObjectImpl for RkMppEnc {}
impl PresetImpl for RkMppEnc {}

impl ElementImpl for RkMppEnc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rockchip MPP encoder",
                "Codec/Encoder/Video/Image/Hardware",
                "Encodes H.264, H.265, VP8 and JPEG with the hardware of Rockchip SoCs",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [
                ("sink", gst::PadDirection::Sink, codec::sink_caps()),
                ("src", gst::PadDirection::Src, codec::src_caps()),
            ]
            .into_iter()
            .filter_map(|(name, direction, caps)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            })
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            // Here and not in `open`, whose failure the base class reports once more.
            gst::StateChange::NullToReady => self.open_library()?,
            // Before the pads wait for their threads.
            gst::StateChange::PausedToReady => self.flow.stop(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::ReadyToNull {
            *lock(&self.mpp) = None;
        }
        Ok(success)
    }
}

impl VideoEncoderImpl for RkMppEnc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.flow.start();
        *lock(&self.targets) = Targets::default();
        *lock(&self.pace) = Pace::default();
        let weak = self.obj().downgrade();
        let flow = self.flow.clone();
        let thread = std::thread::Builder::new()
            .name("rkmppenc-output".into())
            .spawn(move || flow.run(&weak))
            .map_err(|error| gst::error_msg!(gst::CoreError::Thread, ("Cannot start a thread: {error}")))?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.flow.stop();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        let session = lock(&self.session).take();
        drop(session);
        self.flow.clear();
        Ok(())
    }

    fn set_format(
        &self,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        let old = lock(&self.session).take();
        match self.configure(state, old) {
            Ok(session) => {
                *lock(&self.session) = Some(session);
                Ok(())
            }
            Err(message) => {
                let text = message.to_string();
                self.post_error_message(message);
                Err(gst::loggable_error!(CAT, "{text}"))
            }
        }
    }

    fn handle_frame(&self, frame: VideoCodecFrame) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.flow.result()?;
        if self.flow.is_over() {
            // It waited for its place when the flush began.
            return Err(gst::FlowError::Flushing);
        }
        let Some(mut session) = lock(&self.session).take() else {
            return Err(gst::FlowError::NotNegotiated);
        };
        if let Some(reason) = self.flow.failure() {
            self.restart(&mut session, reason)?;
        }
        let result = self.encode(&mut session, frame);
        if result.is_ok() || self.flow.failure().is_none() {
            *lock(&self.session) = Some(session);
        }
        result
    }

    fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        // The event's handler has waited already.
        self.flow.result()?;
        if let Some(reason) = self.flow.failure() {
            if lock(&self.session).is_none() {
                // Told already.
                return Err(gst::FlowError::Error);
            }
            gst::element_imp_error!(
                self,
                gst::ResourceError::Failed,
                ("The hardware encoder failed at the end of the stream: {reason}")
            );
            return Err(gst::FlowError::Error);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn flush(&self) -> bool {
        self.flow.discard();
        if let Some(session) = lock(&self.session).as_mut() {
            session.want_keyframe = true;
        }
        true
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> gst::Caps {
        let rotation = lock(&self.settings).rotation;
        let mut caps = self.obj().proxy_getcaps(None, None);
        if matches!(rotation, Rotation::Clockwise | Rotation::Counterclockwise) {
            // What downstream wants of the width is wanted of our height.
            caps = codec::turned(caps);
        }
        if drm::known() {
            let choice = self.obj().src_pad().allowed_caps().and_then(|allowed| codec::choose(&allowed));
            if choice.is_some_and(|choice| !choice.codec.reads_compressed()) {
                caps = drm::without_compressed(caps);
            }
        }
        match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => self.flow.set_flushing(true),
            gst::EventView::FlushStop(_) => {
                let _pushing = self.flow.without_pushes();
                self.flow.set_flushing(false);
                *lock(&self.pace) = Pace::default();
                return self.parent_sink_event(event);
            }
            // What was put before them has to come out before them. The stream lock is not held here.
            gst::EventView::Caps(caps) => {
                self.flow.drain();
                let compressed = drm::compressed(caps.caps()).is_some();
                let drm = drm::info(caps.caps()).map(|info| (info.format(), compressed));
                return self.parent_sink_event(event) && self.reads(drm);
            }
            gst::EventView::Eos(_) | gst::EventView::SegmentDone(_) => self.flow.drain(),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        let structure = event.structure().filter(|structure| structure.name() == EVENT);
        let Some(structure) = structure.filter(|_| event.type_() == gst::EventType::CustomUpstream) else {
            return self.parent_src_event(event);
        };
        let update = lock(&self.targets).update(structure);
        match update {
            Ok(()) => {
                gst::debug!(CAT, imp = self, "wish from downstream: {structure}");
                self.changed.store(true, Ordering::Release);
            }
            Err(error) => gst::warning!(CAT, imp = self, "{EVENT} is of no use: {error}"),
        }
        true
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        if query.get().0.is_some_and(|caps| drm::compressed(caps).is_some()) {
            // Its rows cannot be cut off otherwise.
            query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
        }
        if query.get().0.is_some_and(|caps| drm::info(caps).is_some()) {
            // Who names dma-bufs like that has them, and the base class would not know their size.
            return Ok(());
        }
        self.offer_memory(query);
        self.parent_propose_allocation(query)
    }
}

impl RkMppEnc {
    /// Offers memory of the hardware's to who writes frames, so that they need not be copied.
    fn offer_memory(&self, query: &mut gst::query::Allocation) {
        let (caps, wanted) = query.get();
        let info = caps.and_then(|caps| VideoInfo::from_caps(caps).ok()).filter(|_| wanted);
        let format = info.as_ref().and_then(|info| layout::find(info.format()));
        let mpp = *lock(&self.mpp);
        let (Some(info), Some(format), Some(mpp)) = (info, format, mpp) else { return };
        let size =
            Layout::aligned(format, info.width() as usize, info.height() as usize).size.max(info.size());
        match (Pool::new(mpp), u32::try_from(size)) {
            // As many as may be in flight, and one to be written to.
            (Ok(pool), Ok(size)) => {
                let least = lock(&self.settings).max_pending + 1;
                query.add_allocation_pool(Some(&pool), size, least, 0);
            }
            (Err(error), _) => gst::debug!(CAT, imp = self, "no memory is offered: {error}"),
            (_, Err(_)) => {}
        }
    }

    /// Whether the encoder was set up for this format: to the base class all formats of DMA_DRM caps are the same one, and no
    /// reason to tell us.
    fn reads(&self, drm: Option<(gst_video::VideoFormat, bool)>) -> bool {
        let known =
            lock(&self.session).as_ref().map(|session| (session.format.gst, session.compressed.is_some()));
        let (Some(drm), Some(known)) = (drm, known) else { return true };
        if drm != known {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                (
                    "The dma-bufs' format changes from {} to {} alone: change the size with it, or stop in between",
                    dma_name(known),
                    dma_name(drm)
                )
            );
        }
        drm == known
    }

    pub(super) fn wish(&self) -> Wish {
        lock(&self.targets).wish()
    }

    /// In front of the base class: keeps the limit of frames in flight, and leaves out what nobody needs.
    fn admit(&self, buffer: &gst::Buffer) -> gst::PadProbeReturn {
        let wish = self.wish();
        if !wish.active || !lock(&self.pace).takes(buffer.pts(), wish.max_framerate) {
            lock(&self.flow.stats).skipped += 1;
            // And not `Drop`, with which the binding and GStreamer both free the buffer.
            return gst::PadProbeReturn::Handled;
        }
        let limit = {
            let settings = lock(&self.settings);
            if settings.low_latency { 1 } else { settings.max_pending as usize }
        };
        self.flow.admit(limit);
        gst::PadProbeReturn::Ok
    }

    /// NULL to READY: is there a library, and hardware that it may use?
    fn open_library(&self) -> Result<(), gst::StateChangeError> {
        let path = lock(&self.settings).library_path.clone();
        let opened = device::open(path.as_ref().map(AsRef::as_ref), CODECS, |mpp, codec| {
            Context::new(mpp)?.into_encoder(codec.coding()).map(drop)
        });
        match opened {
            Ok(mpp) => {
                gst::info!(CAT, imp = self, "using {}", mpp.name().display());
                *lock(&self.mpp) = Some(mpp);
                Ok(())
            }
            Err(error) => {
                self.post_error_message(device::message(&error));
                Err(gst::StateChangeError)
            }
        }
    }

    /// A new format: the same encoder if the codec stays, set up anew, without a restart.
    fn configure(
        &self,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
        old: Option<Session>,
    ) -> Result<Session, gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        self.changed.store(false, Ordering::Release);
        let info = state.caps().and_then(drm::info).unwrap_or_else(|| state.info().clone());
        let format = layout::find(info.format()).ok_or_else(|| {
            gst::error_msg!(gst::StreamError::Format, ("The encoder cannot read {}", info.format().to_str()))
        })?;
        let obj = self.obj();
        let allowed = obj.src_pad().allowed_caps().unwrap_or_else(codec::src_caps);
        let choice = codec::choose(&allowed).ok_or_else(|| {
            gst::error_msg!(
                gst::CoreError::Negotiation,
                ("Downstream takes none of H.264, H.265, VP8, JPEG: {allowed}")
            )
        })?;
        let compressed = state.caps().and_then(drm::compressed);
        config::check_size(&info, format, compressed.is_some(), &choice)?;

        let mpp =
            lock(&self.mpp).ok_or_else(|| gst::error_msg!(gst::CoreError::StateChange, ("not opened")))?;
        let live = Live::new(&settings, &self.wish(), &info, choice.codec);
        let level = config::level_of(&choice, &info, &live);
        let layout = Layout::aligned(format, info.width() as usize, info.height() as usize);
        let failed = |error: rockchip_mpp::Error| {
            gst::error_msg!(
                gst::LibraryError::Settings,
                (
                    "The encoder does not take {} {} {}x{}: {error}. Does this SoC have an encoder for it?",
                    choice.codec.name(),
                    format.gst.to_str(),
                    info.width(),
                    info.height()
                )
            )
        };
        let restarts = old.as_ref().map(|old| old.restarts).unwrap_or_default();
        let reusable = old.filter(|old| old.choice.codec == choice.codec && self.flow.failure().is_none());
        let mut session = match reusable {
            Some(old) => Session {
                info: info.clone(),
                format,
                compressed,
                choice,
                layout,
                live,
                want_keyframe: true,
                warned_copy: false,
                ..old
            },
            None => {
                self.give_up_frames();
                let (encoder, config) = Self::open_encoder(mpp, &settings, &choice).map_err(failed)?;
                Session {
                    mpp,
                    encoder,
                    config,
                    group: None,
                    info: info.clone(),
                    format,
                    compressed,
                    choice,
                    layout,
                    live,
                    want_keyframe: false,
                    warned_copy: false,
                    warned_regions: false,
                    restarts,
                    clamped: Vec::new(),
                }
            }
        };
        self.set_up(&mut session, &settings, level).map_err(failed)?;
        self.flow.set_encoder(Some(session.encoder.clone()));
        self.flow.set_output(Output { codec: Some(choice.codec), length_prefixed: choice.length_prefixed });

        let mut output = obj
            .set_output_state(choice.caps(level), Some(state))
            .map_err(|_| gst::error_msg!(gst::CoreError::Negotiation, ("Downstream refused the format")))?;
        if choice.length_prefixed {
            let sets = session.encoder.parameter_sets().map_err(failed)?;
            let record = bitstream::codec_data(choice.codec, &sets).ok_or_else(|| {
                gst::error_msg!(
                    gst::StreamError::Encode,
                    ("The library gave no parameter sets for codec_data")
                )
            })?;
            output.set_codec_data(&gst::Buffer::from_mut_slice(record));
        }
        if matches!(settings.rotation, Rotation::Clockwise | Rotation::Counterclockwise) {
            let turned = VideoInfo::builder(info.format(), info.height(), info.width())
                .fps(info.fps())
                .par(gst::Fraction::new(info.par().denom(), info.par().numer()))
                .colorimetry(&info.colorimetry())
                .build();
            if let Ok(turned) = turned {
                output.set_info(turned);
            }
        }
        // While flushing, or stopping, that is nobody's fault: the base class negotiates again with the next frame.
        if obj.negotiate(output).is_err() && !obj.src_pad().pad_flags().contains(gst::PadFlags::FLUSHING) {
            return Err(gst::error_msg!(gst::CoreError::Negotiation, ("Downstream refused the format")));
        }
        let fps = config::frame_rate(&info);
        let duration = gst::ClockTime::SECOND.mul_div_floor(fps.denom() as u64, fps.numer() as u64);
        if let Some(duration) = duration {
            let most =
                if session.encoder.mode() == InputMode::Synchronous { 1 } else { settings.max_pending };
            obj.set_latency(duration, duration * u64::from(most));
        }
        gst::info!(
            CAT,
            imp = self,
            "encoding {:?} at {:?}, {:?}",
            choice,
            live.rates,
            session.encoder.mode()
        );
        Ok(session)
    }

    /// What a failed encoder has will not come any more.
    pub(super) fn give_up_frames(&self) {
        let obj = self.obj();
        for number in self.flow.abandon() {
            if let Some(frame) = i32::try_from(number).ok().and_then(|number| obj.frame(number)) {
                let _ = obj.finish_frame(frame);
            }
        }
    }

    /// Lets the encoder run empty.
    fn run_empty(&self, session: &Session) {
        let begin = Instant::now();
        while session.encoder.in_flight() > 0 && begin.elapsed() < HANG && !self.flow.is_over() {
            self.flow.collect(&session.encoder);
        }
    }

    fn encode(
        &self,
        session: &mut Session,
        frame: VideoCodecFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.apply_changes(session);
        let Some(buffer) = frame.input_buffer_owned() else { return Err(gst::FlowError::Error) };
        let prepared = match session.compressed {
            Some(compressed) => input::prepare_compressed(session.mpp, compressed, &session.info, &buffer),
            None => input::prepare(
                session.mpp,
                session.format,
                &session.info,
                &buffer,
                |size| self.flow.spare(size),
                &mut session.group,
            ),
        };
        let input = match prepared {
            Ok(input) => input,
            Err(error @ (InputError::Unreadable { .. } | InputError::Compressed(_))) => {
                lock(&self.flow.stats).skipped += 1;
                gst::element_imp_warning!(self, gst::StreamError::Format, ("Dropped a frame: {error}"));
                return self.obj().finish_frame(frame);
            }
            Err(error) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::NoSpaceLeft,
                    ("{error}. Frames that are no dma-bufs are copied to memory of /dev/dma_heap or /dev/dri")
                );
                return Err(gst::FlowError::Error);
            }
        };
        {
            let mut stats = lock(&self.flow.stats);
            match input.source {
                input::Source::Pooled => stats.copied += 1,
                input::Source::Imported { .. } => stats.imported += 1,
            }
            stats.copy_reason = input.copy_reason.or(stats.copy_reason);
        }
        if let Some(reason) = input.copy_reason.filter(|_| !session.warned_copy) {
            session.warned_copy = true;
            gst::warning!(CAT, imp = self, "dma-bufs are copied, because of this one {reason}");
        }
        if (input.layout.hor_stride, input.layout.ver_stride)
            != (session.layout.hor_stride, session.layout.ver_stride)
        {
            self.run_empty(session);
            let compressed = session.compressed.is_some();
            config::set_layout(&mut session.config, session.format, compressed, &input.layout)
                .and_then(|()| session.encoder.apply(&session.config))
                .map_err(|error| self.failed("The encoder does not take the frame's strides", &error))?;
            session.layout = input.layout;
        }

        let mut picture =
            Frame::new(session.mpp).map_err(|error| self.failed("No memory for a frame", &error))?;
        picture.set_size(
            session.info.width(),
            session.info.height(),
            input.layout.hor_stride as u32,
            input.layout.ver_stride as u32,
        );
        picture.set_format(session.format.number(input.compression.is_some()));
        if let Some((header_stride, offset)) = input.compression {
            picture.set_compression(header_stride, offset);
        }
        picture.set_colour(config::colour(&session.info));
        picture.set_buffer(input.buffer);
        let regions = input::regions(&buffer, &session.info);
        if !regions.is_empty()
            && let Err(error) = picture.set_regions(&regions)
            && !session.warned_regions
        {
            session.warned_regions = true;
            gst::warning!(CAT, imp = self, "regions of interest are ignored: {error}");
        }

        if frame.flags().contains(VideoCodecFrameFlags::FORCE_KEYFRAME) || session.want_keyframe {
            // With others in flight, one of those could become the keyframe.
            self.run_empty(session);
            if let Err(error) = session.encoder.request_idr() {
                gst::warning!(CAT, imp = self, "a keyframe was refused: {error}");
            }
            session.want_keyframe = false;
        }

        let pooled = matches!(input.source, input::Source::Pooled);
        let token = self.flow.add(frame.system_frame_number(), input.source);
        picture.set_pts(token as i64);
        // The base class keeps the frame until its packet comes.
        drop(frame);
        let begin = Instant::now();
        while let Err(mut refused) = session.encoder.put(picture, token) {
            let full = refused.is_full();
            let over = full && self.flow.is_over();
            if full && !over && begin.elapsed() < HANG {
                picture = refused.frame;
                // The hardware makes room, whether its packets are taken out or not.
                std::thread::sleep(RETRY);
                continue;
            }
            // An imported one is upstream's, not ours to write to.
            if let Some(buffer) = refused.frame.take_buffer().filter(|_| pooled) {
                self.flow.put_back(buffer);
            }
            if over {
                self.flow.remove(token);
                return Err(gst::FlowError::Flushing);
            }
            if full {
                // Gives up this frame with those in flight.
                self.restart(session, "it takes no more frames")?;
                return Ok(gst::FlowSuccess::Ok);
            }
            self.flow.remove(token);
            gst::element_imp_error!(
                self,
                gst::StreamError::Encode,
                ("The encoder does not take a frame: {}", refused.code)
            );
            return Err(gst::FlowError::Error);
        }
        self.flow.was_put();
        Ok(gst::FlowSuccess::Ok)
    }

    fn failed(&self, what: &str, error: &rockchip_mpp::Error) -> gst::FlowError {
        gst::element_imp_error!(self, gst::LibraryError::Failed, ("{what}: {error}"));
        gst::FlowError::Error
    }
}

/// How a format of dma-bufs is called in messages.
fn dma_name((format, compressed): (gst_video::VideoFormat, bool)) -> String {
    format!("{}{}", format.to_str(), if compressed { " (AFBC)" } else { "" })
}
