// SPDX-License-Identifier: MPL-2.0

//! The properties that only `jetsonv4l2enc` has.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use v4l2_m2m::config;

use super::{Preset, RateControl};
use crate::encoder::settings::{Settings, common, uint};

impl From<RateControl> for config::RateControl {
    fn from(mode: RateControl) -> Self {
        match mode {
            RateControl::Cbr => Self::Cbr,
            RateControl::Vbr => Self::Vbr,
            RateControl::FixQp => Self::FixQp,
        }
    }
}

impl From<config::RateControl> for RateControl {
    fn from(mode: config::RateControl) -> Self {
        match mode {
            config::RateControl::Vbr => Self::Vbr,
            config::RateControl::FixQp => Self::FixQp,
            _ => Self::Cbr,
        }
    }
}

impl From<u32> for Preset {
    fn from(number: u32) -> Self {
        match number {
            2 => Self::Fast,
            3 => Self::Medium,
            4 => Self::Slow,
            _ => Self::UltraFast,
        }
    }
}

pub(super) fn set(settings: &mut Settings, name: &str, value: &glib::Value) {
    let own = &mut settings.nvidia;
    match name {
        "rate-control" => settings.rate_control = value.get::<RateControl>().unwrap_or_default().into(),
        "preset-level" => own.preset = value.get::<Preset>().map_or(own.preset, |preset| preset as u32),
        "max-performance" => own.max_performance = value.get().unwrap_or(own.max_performance),
        "poc-type" => own.poc_type = value.get().unwrap_or(own.poc_type),
        "insert-vui" => own.insert_vui = value.get().unwrap_or(own.insert_vui),
        "num-ref-frames" => own.references = value.get().unwrap_or(own.references),
        "two-pass-cbr" => own.two_pass = value.get().unwrap_or(own.two_pass),
        "tile-rows" => own.tiles.0 = value.get().unwrap_or(own.tiles.0),
        "tile-columns" => own.tiles.1 = value.get().unwrap_or(own.tiles.1),
        _ => settings.set(name, value),
    }
}

pub(super) fn get(settings: &Settings, name: &str) -> Option<glib::Value> {
    let own = &settings.nvidia;
    Some(match name {
        "rate-control" => RateControl::from(settings.rate_control).to_value(),
        "preset-level" => Preset::from(own.preset).to_value(),
        "max-performance" => own.max_performance.to_value(),
        "poc-type" => own.poc_type.to_value(),
        "insert-vui" => own.insert_vui.to_value(),
        "num-ref-frames" => own.references.to_value(),
        "two-pass-cbr" => own.two_pass.to_value(),
        "tile-rows" => own.tiles.0.to_value(),
        "tile-columns" => own.tiles.1.to_value(),
        _ => return settings.get(name),
    })
}

fn boolean(name: &str, nick: &str, blurb: &str, default: bool) -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_ready()
        .build()
}

/// The properties, for registration.
pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        let own = &default.nvidia;
        let any = (0, u32::MAX);
        let mut all = vec![
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb("Node of NVENC; default: the environment variable JETSON_V4L2_DEVICE, then /dev/v4l2-nvenc, then /dev/nvhost-msenc")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("library-path")
                .nick("Library")
                .blurb("File of NVIDIA's V4L2 library; default: the environment variable JETSON_V4L2_LIBRARY, then where Jetson Linux has it")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("rate-control", RateControl::from(default.rate_control))
                .nick("Rate control")
                .blurb("How bits are distributed")
                .mutable_ready()
                .build(),
            uint(
                "qp-init",
                "First quantiser",
                "Quantiser of the first frame, and of all with rate-control=fixqp; 0: the library's",
                (0, 255),
                default.qp_init,
                false,
            ),
            uint(
                "qp-min-i",
                "Least quantiser of keyframes",
                "Least quantiser of keyframes; 0: qp-min",
                (0, 255),
                default.qp_min_i,
                false,
            ),
            uint(
                "qp-max-i",
                "Greatest quantiser of keyframes",
                "Greatest quantiser of keyframes; 0: qp-max",
                (0, 255),
                default.qp_max_i,
                false,
            ),
            uint("b-frames", "B-frames", "B-frames between P-frames (frames)", (0, 2), default.b_frames, false),
            uint(
                "vbv-size",
                "VBV size",
                "Size of the coded picture buffer (bit); 0: four frames of bitrate",
                any,
                default.vbv_size,
                false,
            ),
            uint(
                "intra-refresh",
                "Intra refresh",
                "Distance of intra refreshes without a keyframe (slices); 0: off",
                any,
                default.intra_refresh,
                false,
            ),
            glib::ParamSpecEnum::builder_with_default("preset-level", Preset::from(own.preset))
                .nick("Preset")
                .blurb("Speed against quality")
                .mutable_ready()
                .build(),
            boolean(
                "max-performance",
                "Highest clocks",
                "Run the encoder at its highest clocks; without, latency at low frame rates is longer",
                own.max_performance,
            ),
            uint(
                "poc-type",
                "Picture order count",
                "H.264: type of the picture order count; 2: no picture is reordered, and decoders need not wait",
                (0, 2),
                own.poc_type,
                false,
            ),
            boolean(
                "insert-vui",
                "Video usability information",
                "Write video usability information into the parameter sets (always done for full-range colour)",
                own.insert_vui,
            ),
            uint(
                "num-ref-frames",
                "Reference frames",
                "Reference frames (frames); 0: the library's choice",
                (0, 16),
                own.references,
                false,
            ),
            boolean("two-pass-cbr", "Two passes", "Two passes for each frame with constant bitrate", own.two_pass),
            uint(
                "tile-rows",
                "Tile rows",
                "AV1: binary logarithm of the number of rows of tiles",
                (0, 6),
                own.tiles.0,
                false,
            ),
            uint(
                "tile-columns",
                "Tile columns",
                "AV1: binary logarithm of the number of columns of tiles",
                (0, 6),
                own.tiles.1,
                false,
            ),
            glib::ParamSpecBoxed::builder::<gst::Structure>("extra-controls")
                .nick("Extra controls")
                .blurb("Any of NVIDIA's controls that are numbers, by their names in lower case, set last")
                .mutable_ready()
                .build(),
        ];
        all.extend(common());
        all
    });
    &PROPERTIES
}
