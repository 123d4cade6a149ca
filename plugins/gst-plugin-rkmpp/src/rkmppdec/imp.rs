// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the decoder element.

use std::sync::atomic::{AtomicBool, Ordering};
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
use rockchip_mpp::{Decoder, Error, Fields, Mpp, Picture, Put};

use super::codec;
use super::flow::{Flow, HANG, OWN_BUFFERS, lock};
use super::format::{self, Description, Pixels};
use super::output::{self, Allocation, Layout};
use super::session::{Disagreement, Session};
use super::settings::{self, Settings};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rkmppdec", gst::DebugColorFlags::empty(), Some("Rockchip MPP decoder"))
});

/// Frames whose packets were put, at most: garbage gives no picture at all.
const MAX_PENDING: usize = 64;
/// The behaviour of the element.
#[derive(Default)]
pub struct RkMppDec {
    pub(super) settings: Mutex<Settings>,
    pub(super) mpp: Mutex<Option<Mpp>>,
    pub(super) session: Mutex<Option<Session>>,
    pub(super) allocation: Mutex<Allocation>,
    /// Downstream wants to agree anew. The pad has a flag for that, which the base class takes for itself when it allocates.
    reconfigure: AtomicBool,
    pub(super) flow: Arc<Flow>,
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
        if self.flow.is_switching() {
            lock(&self.flow.stats).frames_in += 1;
            // It is among those that are put again.
            self.switch()?;
            return self.flow.result();
        }
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

    fn src_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Reconfigure {
            self.reconfigure.store(true, Ordering::Release);
        }
        self.parent_src_event(event)
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        *lock(&self.allocation) = Allocation::of(query);
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
pub(super) enum PutFailure {
    /// Flushing, or what downstream said.
    Flow(gst::FlowError),
    /// The packet is of no use.
    Packet(Error),
    /// The decoder is of no use.
    Decoder(String),
    /// Its pictures are of no use to downstream.
    Switch,
}

impl RkMppDec {
    /// Puts a packet, whatever has to be done for room.
    fn decode(&self, number: u32, data: &[u8]) -> Result<gst::FlowSuccess, gst::FlowError> {
        lock(&self.flow.stats).frames_in += 1;
        match self.feed(number, data) {
            Ok(()) => {
                while let Some(oldest) = self.flow.too_many(MAX_PENDING) {
                    self.lose(oldest);
                }
                self.flow.result()
            }
            Err(PutFailure::Switch) => {
                self.switch()?;
                self.flow.result()
            }
            Err(failure) => {
                self.flow.remove(number);
                self.lose(number);
                match failure {
                    PutFailure::Switch => self.flow.result(),
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

    /// Puts a frame's packet, behind what has to come first.
    pub(super) fn feed(&self, number: u32, data: &[u8]) -> Result<(), PutFailure> {
        let (decoder, codec_data) = {
            let mut session = lock(&self.session);
            let Some(session) = session.as_mut() else {
                return Err(PutFailure::Flow(gst::FlowError::NotNegotiated));
            };
            session.dirty = true;
            let wanted = std::mem::take(&mut session.wants_codec_data);
            (session.decoder.clone(), session.codec_data.clone().filter(|_| wanted))
        };
        if let Some(codec_data) = codec_data {
            self.put(&decoder, Input::CodecData(&codec_data))?;
        }
        let pts = self.flow.add(number);
        self.put(&decoder, Input::Packet(data, pts))?;
        self.flow.wake();
        Ok(())
    }

    /// Nothing came of a frame.
    pub(super) fn lose(&self, number: u32) {
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
            if self.flow.is_switching() {
                return Err(PutFailure::Switch);
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
            if self.flow.is_switching() {
                result = Err(PutFailure::Switch);
                break;
            }
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
        if matches!(result, Err(PutFailure::Switch)) {
            // All that waits is put into the next one, which has to run empty in its turn.
            self.switch()?;
            return self.run_empty();
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
            Err(PutFailure::Switch) => self.flow.result(),
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
        if self.flow.is_switching() {
            // Its frame waits for the next decoder.
            return Ok(gst::FlowSuccess::Ok);
        }
        let (overdue, waiting) = self.flow.overdue(number, session.codec.reorders);
        for old in overdue {
            self.lose(old);
        }
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

        let flag = obj.src_pad().check_reconfigure();
        let reconfigure = self.reconfigure.swap(false, Ordering::AcqRel) || flag;
        let agreed = session.agreement.as_ref().is_some_and(|agreement| {
            // Damaged pictures may lack what others say of their colours.
            agreement.description == description || bad && agreement.description.format == description.format
        });
        if !agreed || reconfigure {
            match self.agree(session, &description, layout) {
                Ok(()) => {}
                Err(Disagreement::Flow(error)) => return Err(error),
                Err(Disagreement::Switch) => {
                    self.flow.ask_to_switch();
                    return Ok(gst::FlowSuccess::Ok);
                }
            }
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
