// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the decoder element.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;
use gst_video::{VideoBufferFlags, VideoCodecFrame};
use rockchip_mpp::sys::consts;
use rockchip_mpp::{Context, Decoder, Error, Fields, Mpp, Picture, Put, Timeout};

use super::codec::{self, CODECS, Codec};
use super::flow::{Flow, HANG, OWN_BUFFERS, lock};
use super::format::{self, Description, Pixels};
use super::output::{self, Agreement, Allocation, Layout};
use super::settings::{self, Settings};
use crate::{device, drm};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rkmppdec", gst::DebugColorFlags::empty(), Some("Rockchip MPP decoder"))
});

/// How long the library waits for a picture, ms. Under 20, old releases don't wait at all.
const OUTPUT_TIMEOUT: Timeout = Timeout::Millis(20);
/// A failed decoder is opened again so many times …
const MAX_RESTARTS: u32 = 3;
/// … until so many pictures came out of it.
const RECOVERED: u32 = 300;
/// Frames whose packets were put, at most: garbage gives no picture at all.
const MAX_PENDING: usize = 64;
/// Least number of buffers.
const BUFFERS: u32 = 24;

/// A decoder and what belongs to it. Used with the stream lock only.
struct Session {
    mpp: Mpp,
    decoder: Arc<Decoder>,
    codec: Codec,
    input: gst::Structure,
    /// To be sent before the next packet.
    codec_data: Option<Vec<u8>>,
    wants_codec_data: bool,
    /// Packets were put since the last reset.
    dirty: bool,
    agreement: Option<Agreement>,
    allocator: gst_allocators::DmaBufAllocator,
    /// Most pictures that wait for one that was decoded later.
    reorder: u32,
    restarts: u32,
    since_restart: u32,
    warned_unsupported: bool,
}

/// The behaviour of the element.
#[derive(Default)]
pub struct RkMppDec {
    settings: Mutex<Settings>,
    mpp: Mutex<Option<Mpp>>,
    session: Mutex<Option<Session>>,
    allocation: Mutex<Allocation>,
    flow: Arc<Flow>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for RkMppDec {
    const NAME: &'static str = "GstRkMppDec";
    type Type = super::RkMppDec;
    type ParentType = gst_video::VideoDecoder;
}

impl ObjectImpl for RkMppDec {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            let held = self.flow.held.load(Ordering::Acquire);
            let pending = self.flow.pending();
            return lock(&self.flow.stats).structure(pending, held).to_value();
        }
        let settings = lock(&self.settings).clone();
        settings.get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_packetized(true);
        obj.set_needs_format(true);
        // By the template: parsers may leave the size open, which downstream's caps would ask for.
        obj.set_use_default_pad_acceptcaps(true);
        obj.sink_pad().set_pad_flags(gst::PadFlags::ACCEPT_TEMPLATE);
    }
}

impl GstObjectImpl for RkMppDec {}

impl ElementImpl for RkMppDec {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rockchip MPP decoder",
                "Codec/Decoder/Video/Image/Hardware",
                "Decodes H.264, H.265, VP8, VP9, AV1, MPEG-1/2/4, H.263 and JPEG with the hardware of Rockchip SoCs",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [
                ("sink", gst::PadDirection::Sink, codec::sink_caps()),
                ("src", gst::PadDirection::Src, format::src_caps()),
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

impl VideoDecoderImpl for RkMppDec {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.flow.start();
        let weak = self.obj().downgrade();
        let flow = self.flow.clone();
        let thread = std::thread::Builder::new()
            .name("rkmppdec-output".into())
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
        self.flow.set_decoder(None);
        Ok(())
    }

    fn set_format(
        &self,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        let caps = state.caps_owned();
        let structure = caps.as_ref().and_then(|caps| caps.structure(0));
        let Some((input, codec)) =
            structure.and_then(|structure| Some((structure.to_owned(), codec::of(structure)?)))
        else {
            return Err(gst::loggable_error!(CAT, "no codec of ours: {caps:?}"));
        };
        let codec_data = input
            .get::<gst::Buffer>("codec_data")
            .ok()
            // The other codecs carry everything in their packets.
            .filter(|_| codec.coding == rockchip_mpp::Coding::Mpeg4)
            .and_then(|buffer| buffer.map_readable().ok().map(|map| map.to_vec()))
            .filter(|data| !data.is_empty());

        let same = lock(&self.session).as_ref().is_some_and(|session| session.codec == codec);
        if same && self.flow.failure().is_none() {
            if let Some(session) = lock(&self.session).as_mut() {
                session.wants_codec_data = session.codec_data != codec_data;
                session.codec_data = codec_data;
                session.input = input;
                // Other things than the size may have changed. The decoder itself tells sizes.
                session.agreement = None;
            }
            return Ok(());
        }
        // What came before is of another codec.
        let _ = self.run_empty();
        let old = lock(&self.session).take();
        self.flow.set_decoder(None);
        drop(old);
        match self.open(codec, input, codec_data) {
            Ok(session) => {
                *lock(&self.session) = Some(session);
                Ok(())
            }
            Err(error) => {
                let text = format!(
                    "{} cannot be decoded: {error}. Does this SoC have a decoder for it?",
                    codec.name
                );
                self.post_error_message(gst::error_msg!(gst::LibraryError::Settings, ("{text}")));
                Err(gst::loggable_error!(CAT, "{text}"))
            }
        }
    }

    fn handle_frame(&self, frame: VideoCodecFrame) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.flow.result()?;
        if let Some(reason) = self.flow.failure() {
            self.restart(&reason)?;
        }
        let number = frame.system_frame_number();
        let Some(buffer) = frame.input_buffer_owned() else { return Err(gst::FlowError::Error) };
        // The base class keeps it until its picture comes.
        drop(frame);
        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        self.decode(number, &map)
    }

    fn drain(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.run_empty()
    }

    fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.run_empty()
    }

    fn flush(&self) -> bool {
        if let Some(session) = lock(&self.session).as_mut() {
            session.dirty = false;
            session.wants_codec_data = true;
        }
        if let Err(error) = self.flow.reset() {
            self.flow.fail(error.to_string());
        }
        // Only here, with the stream lock: a push from before the flush may have failed until now.
        self.flow.clear_result();
        true
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::FlushStart => self.flow.set_flushing(true),
            gst::EventType::FlushStop => self.flow.set_flushing(false),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let min = query.allocation_pools().map(|(_, _, min, _)| min).max().unwrap_or(0);
        *lock(&self.allocation) = Allocation {
            video_meta: query.find_allocation_meta::<gst_video::VideoMeta>().is_some(),
            crop_meta: query.find_allocation_meta::<gst_video::VideoCropMeta>().is_some(),
            min,
        };
        // Pictures lie in the decoder's own memory: a pool of downstream's would only cost memory. The base class wants one
        // all the same, for those that are copied.
        while query.allocation_pools().next().is_some() {
            query.remove_nth_allocation_pool(0);
        }
        self.parent_decide_allocation(query)
    }
}

/// What goes into the decoder.
#[derive(Clone, Copy)]
enum Input<'a> {
    CodecData(&'a [u8]),
    Packet(&'a [u8], i64),
    End,
}

impl Input<'_> {
    fn put(self, decoder: &Decoder) -> Result<Put, Error> {
        match self {
            Self::CodecData(data) => decoder.put_codec_data(data),
            Self::Packet(data, pts) => decoder.put(data, pts),
            Self::End => decoder.put_end(),
        }
    }
}

/// Why something could not be put.
enum PutFailure {
    /// Flushing, or what downstream said.
    Flow(gst::FlowError),
    /// The packet is of no use.
    Packet(Error),
    /// The decoder is of no use.
    Decoder(String),
}

impl RkMppDec {
    /// NULL to READY: is there a library, and hardware that it may use?
    fn open_library(&self) -> Result<(), gst::StateChangeError> {
        let path = lock(&self.settings).library_path.clone();
        let opened = Mpp::load(path.as_ref().map(AsRef::as_ref)).map_err(Into::into).and_then(|mpp| {
            // A codec may be missing, but not all of them.
            let mut first = None;
            for codec in CODECS {
                match Context::new(mpp).and_then(|context| context.into_decoder(codec.coding)) {
                    Ok(_) => return Ok(mpp),
                    Err(error) => first = first.or(Some(error)),
                }
            }
            Err(first.unwrap_or(Error::Nothing { call: "mpp_init" }))
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

    fn open_decoder(&self, mpp: Mpp, codec: Codec, input: &gst::StructureRef) -> Result<Arc<Decoder>, Error> {
        let settings = lock(&self.settings).clone();
        let decoder = Context::new(mpp)?
            .with_input_timeout(Timeout::NonBlocking)?
            .with_output_timeout(OUTPUT_TIMEOUT)?
            .into_decoder(codec.coding)?;
        let mut config = decoder.config()?;
        // Whole access units come in; fields are the business of those downstream.
        config.set(c"base:split_parse", 0_u32)?;
        config.set(c"base:enable_vproc", 0_u32)?;
        let interlaced = input.get::<&str>("interlace-mode").is_ok_and(|mode| mode != "progressive");
        config.set_optional(c"base:fast_parse", u32::from(!interlaced));
        config.set(c"base:fast_out", u32::from(settings.low_latency))?;
        config.set_optional(c"base:enable_hdr_meta", 1_u32);
        if let Some(extra) = &settings.extra_config {
            for refused in crate::extra::set(extra, |key, value| config.set(key, value)) {
                gst::element_imp_warning!(
                    self,
                    gst::LibraryError::Settings,
                    ("extra-config: {refused}. Names and ranges of keys depend on the release of MPP")
                );
            }
        }
        decoder.apply(&config)?;
        decoder.set_buffers(BUFFERS)?;
        Ok(Arc::new(decoder))
    }

    fn open(
        &self,
        codec: Codec,
        input: gst::Structure,
        codec_data: Option<Vec<u8>>,
    ) -> Result<Session, Error> {
        let mpp = lock(&self.mpp).ok_or(Error::Nothing { call: "mpp_create" })?;
        let decoder = self.open_decoder(mpp, codec, &input)?;
        self.flow.set_decoder(Some(decoder.clone()));
        gst::info!(CAT, imp = self, "decoding {}", codec.name);
        Ok(Session {
            mpp,
            decoder,
            codec,
            input,
            codec_data,
            wants_codec_data: true,
            dirty: false,
            agreement: None,
            allocator: gst_allocators::DmaBufAllocator::new(),
            reorder: 0,
            restarts: 0,
            since_restart: 0,
            warned_unsupported: false,
        })
    }

    /// Puts a packet, whatever has to be done for room.
    fn decode(&self, number: u32, data: &[u8]) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (decoder, codec_data) = {
            let mut session = lock(&self.session);
            let Some(session) = session.as_mut() else { return Err(gst::FlowError::NotNegotiated) };
            session.dirty = true;
            let wanted = std::mem::take(&mut session.wants_codec_data);
            (session.decoder.clone(), session.codec_data.clone().filter(|_| wanted))
        };
        lock(&self.flow.stats).frames_in += 1;
        let result = match codec_data {
            Some(codec_data) => self.put(&decoder, Input::CodecData(&codec_data)),
            None => Ok(()),
        };
        let result = result.and_then(|()| {
            let pts = self.flow.add(number);
            self.put(&decoder, Input::Packet(data, pts))
        });
        match result {
            Ok(()) => {
                self.flow.wake();
                while let Some(oldest) = self.flow.too_many(MAX_PENDING) {
                    self.lose(oldest);
                }
                self.flow.result()
            }
            Err(failure) => {
                self.flow.remove(number);
                self.lose(number);
                match failure {
                    PutFailure::Flow(error) => Err(error),
                    PutFailure::Packet(error) => {
                        gst::debug!(CAT, imp = self, "left out a packet: {error}");
                        self.flow.result()
                    }
                    PutFailure::Decoder(reason) => {
                        self.restart(&reason)?;
                        self.flow.result()
                    }
                }
            }
        }
    }

    /// Nothing came of a frame.
    fn lose(&self, number: u32) {
        let obj = self.obj();
        if let Some(frame) = i32::try_from(number).ok().and_then(|number| obj.frame(number)) {
            lock(&self.flow.stats).lost += 1;
            obj.release_frame(frame);
        }
    }

    fn put(&self, decoder: &Decoder, input: Input) -> Result<(), PutFailure> {
        let begin = Instant::now();
        loop {
            self.deliver(true);
            if self.flow.is_over() {
                return Err(PutFailure::Flow(gst::FlowError::Flushing));
            }
            self.flow.result().map_err(PutFailure::Flow)?;
            if let Some(reason) = self.flow.failure() {
                return Err(PutFailure::Decoder(reason));
            }
            match input.put(decoder) {
                Ok(Put::Taken) => return Ok(()),
                Ok(Put::Full) => {}
                Err(error @ (Error::Empty | Error::NoPicture)) => return Err(PutFailure::Packet(error)),
                Err(error) => return Err(PutFailure::Decoder(error.to_string())),
            }
            if begin.elapsed() > HANG && self.flow.hangs(decoder) {
                return Err(PutFailure::Decoder("it takes no more packets".into()));
            }
            self.flow.collect(decoder);
        }
    }

    /// Lets the decoder finish all that it has. With the stream lock.
    fn run_empty(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let decoder = {
            let mut session = lock(&self.session);
            let Some(session) = session.as_mut().filter(|session| session.dirty) else {
                return self.flow.result();
            };
            session.dirty = false;
            session.wants_codec_data = true;
            session.decoder.clone()
        };
        let begin = Instant::now();
        let mut result = self.put(&decoder, Input::End);
        while result.is_ok() {
            self.deliver(true);
            if self.flow.has_ended() {
                break;
            }
            result = if self.flow.is_over() {
                Err(PutFailure::Flow(gst::FlowError::Flushing))
            } else if let Err(error) = self.flow.result() {
                Err(PutFailure::Flow(error))
            } else if let Some(reason) = self.flow.failure() {
                Err(PutFailure::Decoder(reason))
            } else if begin.elapsed() > HANG && self.flow.hangs(&decoder) {
                Err(PutFailure::Decoder("it does not come to the end".into()))
            } else {
                self.flow.collect(&decoder);
                Ok(())
            };
        }
        for number in self.flow.abandon() {
            self.lose(number);
        }
        match result {
            Ok(()) => match self.flow.reset() {
                Ok(()) => self.flow.result(),
                Err(error) => {
                    self.restart(&error.to_string())?;
                    self.flow.result()
                }
            },
            Err(PutFailure::Flow(error)) => Err(error),
            Err(PutFailure::Packet(error)) => {
                self.restart(&error.to_string())?;
                self.flow.result()
            }
            Err(PutFailure::Decoder(reason)) => {
                self.restart(&reason)?;
                self.flow.result()
            }
        }
    }

    /// A failed decoder is closed and opened again, a few times. With the stream lock.
    fn restart(&self, reason: &str) -> Result<(), gst::FlowError> {
        for number in self.flow.abandon() {
            self.lose(number);
        }
        let Some(mut session) = lock(&self.session).take() else { return Err(gst::FlowError::NotNegotiated) };
        if session.since_restart >= RECOVERED {
            session.restarts = 0;
        }
        session.since_restart = 0;
        session.restarts += 1;
        lock(&self.flow.stats).restarts += 1;
        if session.restarts > MAX_RESTARTS {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Failed,
                ("The hardware decoder failed ({reason}), also after {MAX_RESTARTS} restarts; the kernel's log (dmesg) may tell why")
            );
            return Err(gst::FlowError::Error);
        }
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Failed,
            (
                "The hardware decoder failed ({reason}); restarting it ({} of {MAX_RESTARTS})",
                session.restarts
            )
        );
        match self.open_decoder(session.mpp, session.codec, &session.input) {
            Ok(decoder) => {
                self.flow.set_decoder(Some(decoder.clone()));
                session.decoder = decoder;
                session.wants_codec_data = true;
                session.dirty = false;
                *lock(&self.session) = Some(session);
                // It can only begin with one.
                let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
                self.obj().sink_pad().push_event(event);
                Ok(())
            }
            Err(error) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Failed,
                    ("The hardware decoder failed ({reason}) and cannot be opened again: {error}")
                );
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Finishes the pictures that came out. `inside`: the caller has the stream lock.
    pub(super) fn deliver(&self, inside: bool) {
        let obj = self.obj();
        while let Some(newest) = self.flow.awaited() {
            let number = i32::try_from(newest).ok();
            // A frame comes with the stream lock, and that is what keeps the order. The newest, because that is rarely
            // the one that is finished: while two have it, its buffer cannot be written to.
            let guard = if inside { None } else { number.and_then(|number| obj.frame(number)) };
            if !inside && guard.is_none() {
                self.flow.remove(newest);
                continue;
            }
            let Some((picture, number)) = self.flow.next() else { continue };
            let Some(mut session) = lock(&self.session).take() else {
                drop(picture);
                self.lose(number);
                continue;
            };
            let result = self.finish_picture(&mut session, picture, number);
            *lock(&self.session) = Some(session);
            self.flow.set_result(result);
        }
    }

    fn finish_picture(
        &self,
        session: &mut Session,
        picture: Picture,
        number: u32,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        let (overdue, waiting) = self.flow.overdue(number, session.codec.reorders);
        for old in overdue {
            self.lose(old);
        }
        session.since_restart = session.since_restart.saturating_add(1);
        let Some(mut frame) = i32::try_from(number).ok().and_then(|number| obj.frame(number)) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let description = Description::of(&picture);
        let buffer = picture.buffer();
        if picture.errors() & consts::MPP_FRAME_ERR_UNSUPPORT != 0 && !session.warned_unsupported {
            session.warned_unsupported = true;
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("The hardware cannot decode these pictures: their chroma subsampling or bit depth is none of its own")
            );
        }
        let bad = picture.errors() != 0 || picture.should_be_discarded();
        let layout =
            Pixels::of(&description.format).and_then(|pixels| Layout::new(description.format, pixels));
        let discard = bad && lock(&self.settings).discard_corrupted;
        let (Some(buffer), Some(layout), false) = (buffer, layout, discard) else {
            gst::debug!(CAT, imp = self, "left out frame {number}, errors {:#x}", picture.errors());
            lock(&self.flow.stats).discarded += 1;
            return obj.drop_frame(frame);
        };

        let reconfigure = obj.src_pad().check_reconfigure();
        let agreed = session.agreement.as_ref().is_some_and(|agreement| {
            // Damaged pictures may lack what others say of their colours.
            agreement.description == description || bad && agreement.description.format == description.format
        });
        if !agreed || reconfigure {
            self.agree(session, &description, layout)?;
        }
        let Some(agreement) = &session.agreement else { return Err(gst::FlowError::NotNegotiated) };
        self.note_latency(&mut session.reorder, waiting, agreement.info.fps());

        // With all buffers in downstream's hands the decoder would stand still.
        let hoarded = || {
            let held = self.flow.held.load(Ordering::Acquire) as u32;
            (!agreement.choice.dmabuf && held + OWN_BUFFERS >= session.decoder.buffers())
                .then_some("downstream holds on to many pictures")
        };
        let made = match agreement.copy_reason.or_else(hoarded) {
            None => output::wrapped(&session.allocator, buffer, &self.flow.held, agreement)
                .map(|buffer| frame.set_output_buffer(buffer)),
            Some(reason) => {
                let mut stats = lock(&self.flow.stats);
                stats.copied += 1;
                stats.copy_reason = Some(reason);
                drop(stats);
                obj.allocate_output_frame(&mut frame, None)?;
                let to = frame.output_buffer_mut().ok_or(gst::FlowError::Error)?;
                output::copy(&buffer, to, agreement)
            }
        };
        if let Err(error) = made {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Failed,
                ("A picture could not be passed on: {error}")
            );
            return Err(gst::FlowError::Error);
        }
        if let Some(buffer) = frame.output_buffer_mut() {
            if bad {
                buffer.set_flags(gst::BufferFlags::CORRUPTED);
            }
            match picture.fields() {
                Fields::Progressive => {}
                Fields::TopFirst => {
                    buffer.set_video_flags(VideoBufferFlags::INTERLACED | VideoBufferFlags::TFF)
                }
                Fields::BottomFirst => buffer.set_video_flags(VideoBufferFlags::INTERLACED),
            }
        }
        {
            let mut stats = lock(&self.flow.stats);
            stats.frames_out += 1;
            stats.corrupted += u64::from(bad);
        }
        // Its memory has a reference of its own.
        drop(picture);
        obj.finish_frame(frame)
    }

    /// Agrees with downstream on a format.
    fn agree(
        &self,
        session: &mut Session,
        description: &Description,
        layout: Layout,
    ) -> Result<(), gst::FlowError> {
        let obj = self.obj();
        let peer = obj.src_pad().peer_query_caps(None);
        let mut dmabuf = true;
        loop {
            let Some(choice) = format::choose(&peer, &layout.pixels, &description.format, dmabuf) else {
                gst::element_imp_error!(
                    self,
                    gst::CoreError::Negotiation,
                    (
                        "Downstream takes no {} pictures of {}x{}, but {peer}. Put videoconvert behind the decoder",
                        layout.pixels.name,
                        description.format.width,
                        description.format.height
                    )
                );
                return Err(gst::FlowError::NotNegotiated);
            };
            let (caps, info) = format::caps(&choice, description, &session.input).map_err(|error| {
                gst::element_imp_error!(
                    self,
                    gst::CoreError::Negotiation,
                    ("No caps for {description:?}: {error}")
                );
                gst::FlowError::NotNegotiated
            })?;
            *lock(&self.allocation) = Allocation::default();
            let mut state = obj.set_output_state(choice.format, info.width(), info.height(), None)?;
            state.set_info(info.clone());
            state.set_caps(&caps);
            if let Some(plain) = drm::plain(&caps) {
                // For the pool that the base class wants, which needs a size.
                state.set_allocation_caps(&plain);
            }
            if let Err(error) = obj.negotiate(state) {
                // While flushing that is nobody's fault.
                let flushing = obj.src_pad().pad_flags().contains(gst::PadFlags::FLUSHING);
                return Err(if flushing { gst::FlowError::Flushing } else { error });
            }
            let allocation = *lock(&self.allocation);
            let copy_reason = output::copy_reason(&layout, &choice, &allocation, &info);
            if choice.dmabuf && copy_reason.is_some() {
                // Then plain memory is the better choice.
                dmabuf = false;
                continue;
            }
            let buffers = BUFFERS.max(OWN_BUFFERS + 3 + allocation.min);
            if let Err(error) = session.decoder.set_buffers(buffers) {
                gst::warning!(CAT, imp = self, "{error}");
            }
            gst::info!(CAT, imp = self, "{caps}, copied: {copy_reason:?}");
            let description = description.clone();
            session.agreement =
                Some(Agreement { description, layout, choice, info, allocation, copy_reason });
            return Ok(());
        }
    }

    /// Tells how long pictures wait for others, when they wait longer than before.
    fn note_latency(&self, reorder: &mut u32, waiting: u32, fps: gst::Fraction) {
        let known = *reorder;
        *reorder = known.max(waiting).max(1);
        if *reorder == known || fps.numer() <= 0 || fps.denom() <= 0 {
            return;
        }
        let duration = gst::ClockTime::SECOND.mul_div_floor(fps.denom() as u64, fps.numer() as u64);
        if let Some(latency) = duration.and_then(|duration| duration.checked_mul(u64::from(*reorder))) {
            self.obj().set_latency(latency, latency);
        }
    }
}
