// SPDX-License-Identifier: MPL-2.0

//! An open encoder: how it is set up, changed while it runs, and opened again when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gst::subclass::prelude::*;
use gst_video::VideoInfo;
use rockchip_mpp::{Context, Encoder, EncoderConfig, Group, Mpp, SeiMode, Timeout};

use super::HeaderMode;
use super::codec::{self, Choice};
use super::config::{self, Live};
use super::flow::lock;
use super::imp::{CAT, OUTPUT_TIMEOUT, RkMppEnc};
use super::layout::{Format, Layout};
use super::settings::Settings;
use crate::drm::Compressed;
use crate::restarts::{self, Restarts};

/// So many warnings of properties that are out of range are enough.
const MOST_CLAMPED: usize = 32;

/// An encoder with its configuration. Used by the streaming thread only.
pub(super) struct Session {
    pub mpp: Mpp,
    pub encoder: Arc<Encoder>,
    pub config: EncoderConfig,
    pub group: Option<Group>,
    pub info: VideoInfo,
    pub format: &'static Format,
    /// Frames come compressed.
    pub compressed: Option<&'static Compressed>,
    pub choice: Choice,
    /// As the encoder knows it.
    pub layout: Layout,
    pub live: Live,
    pub want_keyframe: bool,
    pub warned_copy: bool,
    pub warned_regions: bool,
    pub restarts: Restarts,
    /// Values of properties that were said to be out of range.
    pub clamped: Vec<String>,
}

impl RkMppEnc {
    pub(super) fn open_encoder(
        mpp: Mpp,
        settings: &Settings,
        choice: &Choice,
    ) -> Result<(Arc<Encoder>, EncoderConfig), rockchip_mpp::Error> {
        // The input time-out decides whether the library works on several frames at once.
        let parallel = settings.max_pending > 1 && !settings.low_latency && choice.codec.parallel();
        let input = if parallel { Timeout::NonBlocking } else { Timeout::Blocking };
        let encoder = Context::new(mpp)?
            .with_input_timeout(input)?
            .with_output_timeout(OUTPUT_TIMEOUT)?
            .into_encoder(choice.codec.coding())?;
        let mut config = encoder.config()?;
        // Only now: a change on a running encoder aborts some releases.
        if settings.temporal_layers > 1 {
            config.set_temporal_layers(settings.temporal_layers)?;
        }
        Ok((Arc::new(encoder), config))
    }

    /// Sets everything that follows from the format and the properties.
    pub(super) fn set_up(
        &self,
        session: &mut Session,
        settings: &Settings,
        level: Option<super::level::Level>,
    ) -> Result<(), rockchip_mpp::Error> {
        let Session { config, choice, live, info, format, compressed, layout, .. } = session;
        config::configure(config, settings, choice, level, live, info)?;
        config::set_layout(config, format, compressed.is_some(), layout)?;
        let obj = self.obj();
        crate::extra::apply(&*obj, settings.extra_config.as_ref(), |key, value| config.set(key, value));
        session.encoder.apply(&session.config)?;
        lock(&self.flow.stats).bitrate = session.live.rates.target;
        self.tell_clamped(session, settings);
        for key in session.config.unsupported() {
            gst::info!(CAT, imp = self, "this release of MPP does not know {}", key.to_string_lossy());
        }
        if session.choice.codec != codec::Codec::Jpeg {
            let mode = match settings.header_mode {
                HeaderMode::EachIdr => rockchip_mpp::HeaderMode::EachIdr,
                HeaderMode::FirstFrame => rockchip_mpp::HeaderMode::First,
            };
            let encoder = &session.encoder;
            // Not all codecs have either.
            for result in [encoder.set_sei_mode(SeiMode::Disabled), encoder.set_header_mode(mode)] {
                if let Err(error) = result {
                    gst::debug!(CAT, imp = self, "{error}");
                }
            }
        }
        Ok(())
    }

    /// A failed encoder is closed and opened again, a few times.
    pub(super) fn restart(&self, session: &mut Session, reason: &'static str) -> Result<(), gst::FlowError> {
        let made = {
            let mut stats = lock(&self.flow.stats);
            stats.restarts += 1;
            stats.frames_out
        };
        self.give_up_frames();
        let obj = self.obj();
        session.restarts.again(&*obj, "encoder", reason, made)?;
        let settings = lock(&self.settings).clone();
        let level = config::level_of(&session.choice, &session.info, &session.live);
        let reopened =
            Self::open_encoder(session.mpp, &settings, &session.choice).and_then(|(encoder, config)| {
                session.encoder = encoder;
                session.config = config;
                self.set_up(session, &settings, level)
            });
        reopened.map_err(|error| restarts::closed(&*obj, "encoder", reason, &error))?;
        self.flow.set_encoder(Some(session.encoder.clone()));
        Ok(())
    }

    /// Warns of properties that are not taken as they are: once of each value, however often the bit rate changes around it.
    fn tell_clamped(&self, session: &mut Session, settings: &Settings) {
        for text in config::clamped(settings, &session.info, session.choice.codec) {
            let value = text.split(" is ").next().unwrap_or_default().to_owned();
            if session.clamped.len() < MOST_CLAMPED && !session.clamped.contains(&value) {
                gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{text}"));
                session.clamped.push(value);
            }
        }
    }

    /// Properties and wishes that may change while frames are in flight.
    pub(super) fn apply_changes(&self, session: &mut Session) {
        if !self.changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let settings = lock(&self.settings).clone();
        let live = Live::new(&settings, &self.wish(), &session.info, session.choice.codec);
        if live == session.live {
            return;
        }
        let applied = live
            .apply(&mut session.config, session.choice.codec)
            .and_then(|()| session.encoder.apply(&session.config));
        match applied {
            Ok(()) => {
                gst::debug!(CAT, imp = self, "now {live:?}");
                session.live = live;
                lock(&self.flow.stats).bitrate = live.rates.target;
                self.tell_clamped(session, &settings);
            }
            Err(error) => {
                gst::element_imp_warning!(
                    self,
                    gst::LibraryError::Settings,
                    ("The encoder refused a change and stays as it is: {error}")
                );
                let _ = session.live.apply(&mut session.config, session.choice.codec);
            }
        }
    }
}
