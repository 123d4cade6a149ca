// SPDX-License-Identifier: MPL-2.0

//! The properties that only `v4l2m2menc` has.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use v4l2_m2m::config;

use super::RateControl;
use crate::encoder::settings::{Settings, common, uint};

impl From<RateControl> for config::RateControl {
    fn from(mode: RateControl) -> Self {
        match mode {
            RateControl::Cbr => Self::Cbr,
            RateControl::Vbr => Self::Vbr,
            RateControl::Cq => Self::Cq,
            RateControl::FixQp => Self::FixQp,
        }
    }
}

impl From<config::RateControl> for RateControl {
    fn from(mode: config::RateControl) -> Self {
        match mode {
            config::RateControl::Cbr => Self::Cbr,
            config::RateControl::Vbr => Self::Vbr,
            config::RateControl::Cq => Self::Cq,
            config::RateControl::FixQp => Self::FixQp,
        }
    }
}

pub(super) fn set(settings: &mut Settings, name: &str, value: &glib::Value) {
    match name {
        "rate-control" => settings.rate_control = value.get::<RateControl>().unwrap_or_default().into(),
        _ => settings.set(name, value),
    }
}

pub(super) fn get(settings: &Settings, name: &str) -> Option<glib::Value> {
    match name {
        "rate-control" => Some(RateControl::from(settings.rate_control).to_value()),
        _ => settings.get(name),
    }
}

/// The properties, for registration.
pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        let any = (0, u32::MAX);
        let mut all = vec![
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb("Node of the encoder (for example /dev/video11); empty: the first that encodes")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default(
                "rate-control",
                RateControl::from(default.rate_control),
            )
            .nick("Rate control")
            .blurb("How bits are distributed")
            .mutable_ready()
            .build(),
            uint(
                "quality",
                "Quality",
                "Quality with rate-control=cq (1 = worst, 100 = best)",
                (1, 100),
                default.quality,
                false,
            ),
            uint(
                "b-frames",
                "B-frames",
                "B-frames between P-frames (frames)",
                (0, 4),
                default.b_frames,
                false,
            ),
            uint(
                "vbv-size",
                "VBV size",
                "Size of the coded picture buffer (bit); 0: a fifth of a second of bitrate",
                any,
                default.vbv_size,
                false,
            ),
            uint(
                "intra-refresh",
                "Intra refresh",
                "Frames in which the whole picture is refreshed bit by bit; 0: off",
                any,
                default.intra_refresh,
                false,
            ),
            glib::ParamSpecEnum::builder_with_default("io-mode", default.io_mode)
                .nick("I/O mode")
                .blurb("Whose memory the device reads")
                .mutable_ready()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("extra-controls")
                .nick("Extra controls")
                .blurb("Any controls of the device by the names that v4l2-ctl -L shows, set last")
                .mutable_ready()
                .build(),
        ];
        all.extend(common());
        all
    });
    &PROPERTIES
}
