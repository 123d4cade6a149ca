// SPDX-License-Identifier: MPL-2.0

//! An open decoder: how it is set up, opened again when it fails, and what is agreed with downstream.

use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::VideoCodecFrameFlags;
use gst_video::prelude::*;
use rockchip_mpp::sys::consts;
use rockchip_mpp::{Context, Decoder, Error, Format, Mpp, Timeout};

use super::codec::{CODECS, Codec};
use super::flow::{OWN_BUFFERS, lock};
use super::format::{self, Description, Pixels};
use super::imp::{CAT, PutFailure, RkMppDec};
use super::output::{self, Agreement, Allocation, Layout};
use super::settings::Settings;
use crate::restarts::{self, Restarts};
use crate::{device, drm};

/// How long the library waits for a picture, ms. Under 20, old releases don't wait at all.
const OUTPUT_TIMEOUT: Timeout = Timeout::Millis(20);
/// Least number of buffers.
const BUFFERS: u32 = 24;

/// A decoder and what belongs to it. Used with the stream lock only.
pub(super) struct Session {
    pub mpp: Mpp,
    pub decoder: Arc<Decoder>,
    pub codec: Codec,
    pub input: gst::Structure,
    /// To be sent before the next packet.
    pub codec_data: Option<Vec<u8>>,
    pub wants_codec_data: bool,
    /// Packets were put since the last reset.
    pub dirty: bool,
    /// Compressed pictures were asked for.
    pub compressed: bool,
    /// That was changed, and no picture was passed on since.
    pub switched: bool,
    pub agreement: Option<Agreement>,
    pub allocator: gst_allocators::DmaBufAllocator,
    /// Most pictures that wait for one that was decoded later.
    pub reorder: u32,
    pub restarts: Restarts,
    pub warned_unsupported: bool,
}

/// Why nothing was agreed with downstream.
pub(super) enum Disagreement {
    /// An error that was posted, or a flush.
    Flow(gst::FlowError),
    /// It takes the other kind of pictures: compressed, or not.
    Switch,
}

impl RkMppDec {
    /// NULL to READY: is there a library, and hardware that it may use?
    pub(super) fn open_library(&self) -> Result<(), gst::StateChangeError> {
        let path = lock(&self.settings).library_path.clone();
        let opened = device::open(path.as_ref().map(AsRef::as_ref), CODECS, |mpp, codec| {
            Context::new(mpp)?.into_decoder(codec.coding).map(drop)
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

    fn open_decoder(
        &self,
        mpp: Mpp,
        codec: Codec,
        input: &gst::StructureRef,
        compressed: bool,
    ) -> Result<Arc<Decoder>, Error> {
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
        // Only now: with packets inside it is too late.
        if compressed && !config.set_optional(c"base:out_fmt", consts::MPP_FRAME_FBC_AFBC_V2 as u32) {
            gst::warning!(CAT, imp = self, "this release of MPP does not compress pictures");
        }
        let obj = self.obj();
        crate::extra::apply(&*obj, settings.extra_config.as_ref(), |key, value| config.set(key, value));
        decoder.apply(&config)?;
        decoder.set_buffers(BUFFERS)?;
        Ok(Arc::new(decoder))
    }

    pub(super) fn open(
        &self,
        codec: Codec,
        input: gst::Structure,
        codec_data: Option<Vec<u8>>,
    ) -> Result<Session, Error> {
        let mpp = lock(&self.mpp).ok_or(Error::Nothing { call: "mpp_create" })?;
        let compressed = self.wants_compressed(codec, &input);
        let decoder = self.open_decoder(mpp, codec, &input, compressed)?;
        self.flow.set_decoder(Some(decoder.clone()));
        gst::info!(CAT, imp = self, "decoding {}, compressed: {compressed}", codec.name);
        Ok(Session {
            mpp,
            decoder,
            codec,
            input,
            codec_data,
            wants_codec_data: true,
            dirty: false,
            compressed,
            switched: false,
            agreement: None,
            allocator: gst_allocators::DmaBufAllocator::new(),
            reorder: 0,
            restarts: Restarts::default(),
            warned_unsupported: false,
        })
    }

    /// Whether pictures are to come compressed: if the user wants it, and downstream takes them.
    fn wants_compressed(&self, codec: Codec, input: &gst::StructureRef) -> bool {
        let Settings { arm_afbc, .. } = *lock(&self.settings);
        if !arm_afbc {
            return false;
        }
        if !drm::known() {
            gst::element_imp_warning!(
                self,
                gst::CoreError::Negotiation,
                (
                    "arm-afbc has no effect: the caps of compressed pictures need GStreamer 1.24, and this is {}",
                    gst::version_string()
                )
            );
            return false;
        }
        if !codec.compresses() {
            gst::info!(CAT, imp = self, "pictures of {} are never compressed", codec.name);
            return false;
        }
        let peer = self.obj().src_pad().peer_query_caps(None);
        Pixels::expected(input).is_some_and(|pixels| format::takes_compressed(&peer, &pixels, None))
    }

    /// A failed decoder is closed and opened again, a few times. With the stream lock.
    pub(super) fn restart(&self, reason: &str) -> Result<(), gst::FlowError> {
        for number in self.flow.abandon() {
            self.lose(number);
        }
        let Some(mut session) = lock(&self.session).take() else { return Err(gst::FlowError::NotNegotiated) };
        let made = {
            let mut stats = lock(&self.flow.stats);
            stats.restarts += 1;
            stats.frames_out + stats.discarded
        };
        let obj = self.obj();
        session.restarts.again(&*obj, "decoder", reason, made)?;
        self.open_again(&mut session).map_err(|error| restarts::closed(&*obj, "decoder", reason, &error))?;
        *lock(&self.session) = Some(session);
        self.ask_for_keyframe();
        Ok(())
    }

    fn open_again(&self, session: &mut Session) -> Result<(), Error> {
        let decoder = self.open_decoder(session.mpp, session.codec, &session.input, session.compressed)?;
        self.flow.set_decoder(Some(decoder.clone()));
        session.decoder = decoder;
        session.wants_codec_data = true;
        session.dirty = false;
        Ok(())
    }

    /// A decoder that was just opened can only begin with one.
    fn ask_for_keyframe(&self) {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
        self.obj().sink_pad().push_event(event);
    }

    /// Opens the decoder again for compressed pictures, or for others, whichever it does not give now; what it had is put
    /// again. So at the beginning of a stream nothing is lost. With the stream lock, by the streaming thread.
    pub(super) fn switch(&self) -> Result<(), gst::FlowError> {
        let obj = self.obj();
        while self.flow.is_switching() {
            let Some(mut session) = lock(&self.session).take() else {
                return Err(gst::FlowError::NotNegotiated);
            };
            gst::info!(CAT, imp = self, "opening the decoder again, compressed: {}", session.compressed);
            self.open_again(&mut session)
                .map_err(|error| restarts::closed(&*obj, "decoder", "for other caps", &error))?;
            // What was agreed on, downstream has just refused: also where the decoder gives the same again.
            session.agreement = None;
            *lock(&self.session) = Some(session);
            // Only numbers and packets: who has a frame keeps its buffer from being written to.
            let pending: Vec<_> = obj
                .frames()
                .iter()
                .map(|frame| {
                    let key = frame.flags().contains(VideoCodecFrameFlags::SYNC_POINT);
                    (frame.system_frame_number(), frame.input_buffer_owned(), key)
                })
                .collect();
            if pending.first().is_some_and(|(_, _, key)| !key) {
                self.ask_for_keyframe();
            }
            for (number, buffer, _) in pending {
                let map = buffer.as_ref().and_then(|buffer| buffer.map_readable().ok());
                match map.map(|map| self.feed(number, &map)) {
                    Some(Ok(())) => {}
                    Some(Err(PutFailure::Flow(error))) => return Err(error),
                    Some(Err(PutFailure::Switch)) => break,
                    Some(Err(PutFailure::Decoder(reason))) => return self.restart(&reason),
                    Some(Err(PutFailure::Packet(_))) | None => {
                        self.flow.remove(number);
                        self.lose(number);
                    }
                }
            }
        }
        Ok(())
    }

    /// Agrees with downstream on a format.
    pub(super) fn agree(
        &self,
        session: &mut Session,
        description: &Description,
        layout: Layout,
    ) -> Result<(), Disagreement> {
        let obj = self.obj();
        let peer = obj.src_pad().peer_query_caps(None);
        let mut dmabuf = true;
        loop {
            let Some(choice) = format::choose(&peer, &layout.pixels, &description.format, dmabuf) else {
                return Err(self.disagree(session, &layout, &peer, ""));
            };
            let (caps, info) = format::caps(&choice, description, &session.input).map_err(|error| {
                gst::element_imp_error!(
                    self,
                    gst::CoreError::Negotiation,
                    ("No caps for {description:?}: {error}")
                );
                Disagreement::Flow(gst::FlowError::NotNegotiated)
            })?;
            *lock(&self.allocation) = Allocation::default();
            let mut state = obj
                .set_output_state(choice.format, info.width(), info.height(), None)
                .map_err(Disagreement::Flow)?;
            state.set_info(info.clone());
            state.set_caps(&caps);
            if let Some(plain) = drm::plain(&caps) {
                // For the pool that the base class wants, which needs a size.
                state.set_allocation_caps(&plain);
            }
            if let Err(error) = obj.negotiate(state) {
                // While flushing that is nobody's fault.
                let flushing = obj.src_pad().pad_flags().contains(gst::PadFlags::FLUSHING);
                return Err(Disagreement::Flow(if flushing { gst::FlowError::Flushing } else { error }));
            }
            let allocation = if choice.compressed.is_some() {
                // The base class has asked for pictures in lines, for the size of its pool.
                let mut query = gst::query::Allocation::new(Some(&caps), false);
                let answered = obj.src_pad().peer_query(&mut query);
                if answered { Allocation::of(&query) } else { Allocation::default() }
            } else {
                *lock(&self.allocation)
            };
            if output::is_hidden(&layout, &choice, &allocation) {
                const LAYOUT: &str =
                    " It does not read where compressed pictures lie (GstVideoMeta, GstVideoCropMeta).";
                return Err(self.disagree(session, &layout, &peer, LAYOUT));
            }
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
            session.switched = false;
            lock(&self.flow.stats).compressed = choice.compressed.is_some();
            session.agreement =
                Some(Agreement { description, layout, choice, info, allocation, copy_reason });
            return Ok(());
        }
    }

    /// Downstream cannot use these pictures: can it use the others?
    fn disagree(
        &self,
        session: &mut Session,
        layout: &Layout,
        peer: &gst::Caps,
        more: &'static str,
    ) -> Disagreement {
        let Format { width, height, .. } = layout.format;
        let compressed = layout.format.is_compressed();
        let possible = session.codec.compresses()
            && format::takes_compressed(peer, &layout.pixels, Some((width, height)));
        let wanted = lock(&self.settings).arm_afbc;
        let other = if compressed {
            let plain = Format { format: layout.format.pixels(), ..layout.format };
            format::choose(peer, &layout.pixels, &plain, true).is_some()
        } else {
            possible && wanted
        };
        if other && !session.switched {
            gst::warning!(
                CAT,
                imp = self,
                "downstream cannot use {} pictures, so they will be {}.{more}",
                if compressed { "compressed" } else { "uncompressed" },
                if compressed { "uncompressed" } else { "compressed" }
            );
            session.switched = true;
            session.compressed = !compressed;
            return Disagreement::Switch;
        }
        let advice = if possible && !wanted {
            "Set arm-afbc=true: it takes compressed pictures"
        } else {
            "Put videoconvert behind the decoder"
        };
        gst::element_imp_error!(
            self,
            gst::CoreError::Negotiation,
            (
                "Downstream takes no {}{} pictures of {width}x{height}, but {peer}.{more} {advice}",
                if compressed { "compressed " } else { "" },
                layout.pixels.name,
            )
        );
        Disagreement::Flow(gst::FlowError::NotNegotiated)
    }
}
