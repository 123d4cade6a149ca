// SPDX-License-Identifier: MPL-2.0

//! Properties of the encoder and their defaults.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::{HeaderMode, RateControl, Rotation};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Bit/s; 0 = from size and rate.
    pub bitrate: u32,
    /// Bit/s; 0 = from the bitrate.
    pub peak_bitrate: u32,
    pub min_bitrate: u32,
    pub rate_control: RateControl,
    /// Frames; −1 = two seconds, 0 = one keyframe only.
    pub gop_size: i32,
    /// 0 = the codec's default.
    pub qp_init: u32,
    pub qp_min: u32,
    pub qp_max: u32,
    pub qp_min_i: u32,
    pub qp_max_i: u32,
    pub header_mode: HeaderMode,
    /// Rows of blocks in each frame; 0 = off.
    pub intra_refresh: u32,
    pub temporal_layers: u32,
    pub max_reencode: u32,
    pub max_pending: u32,
    pub low_latency: bool,
    pub rotation: Rotation,
    /// 1 to 99.
    pub quality: u32,
    pub library_path: Option<String>,
    pub extra_config: Option<gst::Structure>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bitrate: 0,
            peak_bitrate: 0,
            min_bitrate: 0,
            rate_control: RateControl::default(),
            gop_size: -1,
            qp_init: 0,
            qp_min: 0,
            qp_max: 0,
            qp_min_i: 0,
            qp_max_i: 0,
            header_mode: HeaderMode::default(),
            intra_refresh: 0,
            temporal_layers: 1,
            max_reencode: 1,
            max_pending: 4,
            low_latency: false,
            rotation: Rotation::default(),
            quality: 80,
            library_path: None,
            extra_config: None,
        }
    }
}

impl Settings {
    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "bitrate" => self.bitrate = value.get().unwrap_or(self.bitrate),
            "peak-bitrate" => self.peak_bitrate = value.get().unwrap_or(self.peak_bitrate),
            "min-bitrate" => self.min_bitrate = value.get().unwrap_or(self.min_bitrate),
            "rate-control" => self.rate_control = value.get().unwrap_or(self.rate_control),
            "gop-size" => self.gop_size = value.get().unwrap_or(self.gop_size),
            "qp-init" => self.qp_init = value.get().unwrap_or(self.qp_init),
            "qp-min" => self.qp_min = value.get().unwrap_or(self.qp_min),
            "qp-max" => self.qp_max = value.get().unwrap_or(self.qp_max),
            "qp-min-i" => self.qp_min_i = value.get().unwrap_or(self.qp_min_i),
            "qp-max-i" => self.qp_max_i = value.get().unwrap_or(self.qp_max_i),
            "header-mode" => self.header_mode = value.get().unwrap_or(self.header_mode),
            "intra-refresh" => self.intra_refresh = value.get().unwrap_or(self.intra_refresh),
            "temporal-layers" => self.temporal_layers = value.get().unwrap_or(self.temporal_layers),
            "max-reencode" => self.max_reencode = value.get().unwrap_or(self.max_reencode),
            "max-pending" => self.max_pending = value.get().unwrap_or(self.max_pending),
            "low-latency" => self.low_latency = value.get().unwrap_or(self.low_latency),
            "rotation" => self.rotation = value.get().unwrap_or(self.rotation),
            "quality" => self.quality = value.get().unwrap_or(self.quality),
            "library-path" => self.library_path = value.get().unwrap_or_default(),
            "extra-config" => self.extra_config = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "bitrate" => self.bitrate.to_value(),
            "peak-bitrate" => self.peak_bitrate.to_value(),
            "min-bitrate" => self.min_bitrate.to_value(),
            "rate-control" => self.rate_control.to_value(),
            "gop-size" => self.gop_size.to_value(),
            "qp-init" => self.qp_init.to_value(),
            "qp-min" => self.qp_min.to_value(),
            "qp-max" => self.qp_max.to_value(),
            "qp-min-i" => self.qp_min_i.to_value(),
            "qp-max-i" => self.qp_max_i.to_value(),
            "header-mode" => self.header_mode.to_value(),
            "intra-refresh" => self.intra_refresh.to_value(),
            "temporal-layers" => self.temporal_layers.to_value(),
            "max-reencode" => self.max_reencode.to_value(),
            "max-pending" => self.max_pending.to_value(),
            "low-latency" => self.low_latency.to_value(),
            "rotation" => self.rotation.to_value(),
            "quality" => self.quality.to_value(),
            "library-path" => self.library_path.to_value(),
            "extra-config" => self.extra_config.to_value(),
            _ => return None,
        })
    }
}

/// The library's own limit, bit/s.
pub(crate) const MAX_BITRATE: u32 = 200_000_000;
/// The library's own limit, bit/s.
pub(crate) const MIN_BITRATE: u32 = 1_000;

/// The element's properties.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        vec![
            glib::ParamSpecUInt::builder("bitrate").nick("Bit rate").blurb("Bit rate in bit/s, 0 = from size and frame rate. A GstTargetBitrate event can only lower it").minimum(0).maximum(MAX_BITRATE).default_value(default.bitrate).mutable_playing().build(),
            glib::ParamSpecUInt::builder("peak-bitrate").nick("Peak bit rate").blurb("Highest bit rate in bit/s, 0 = 17/16 of the bit rate").minimum(0).maximum(MAX_BITRATE).default_value(default.peak_bitrate).mutable_playing().build(),
            glib::ParamSpecUInt::builder("min-bitrate").nick("Least bit rate").blurb("Lowest bit rate in bit/s, 0 = 15/16 (cbr) or 1/16 of the bit rate").minimum(0).maximum(MAX_BITRATE).default_value(default.min_bitrate).mutable_playing().build(),
            glib::ParamSpecEnum::builder_with_default("rate-control", default.rate_control).nick("Rate control").blurb("How bits are shared out between frames").mutable_ready().build(),
            glib::ParamSpecInt::builder("gop-size").nick("GOP size").blurb("Frames from keyframe to keyframe, -1 = two seconds, 0 = only the first one, 1 = keyframes only").minimum(-1).maximum(i32::MAX).default_value(default.gop_size).mutable_playing().build(),
            glib::ParamSpecUInt::builder("qp-init").nick("First QP").blurb("QP of the first frame, and of all with rate-control=fixqp; 0 = 26 (H.264, H.265) or 40 (VP8)").minimum(0).maximum(127).default_value(default.qp_init).mutable_playing().build(),
            glib::ParamSpecUInt::builder("qp-min").nick("Least QP").blurb("Lowest QP, 0 = 10 (VP8: 0)").minimum(0).maximum(127).default_value(default.qp_min).mutable_playing().build(),
            glib::ParamSpecUInt::builder("qp-max").nick("Greatest QP").blurb("Highest QP, 0 = 51 (VP8: 127)").minimum(0).maximum(127).default_value(default.qp_max).mutable_playing().build(),
            glib::ParamSpecUInt::builder("qp-min-i").nick("Least QP of keyframes").blurb("Lowest QP of keyframes, 0 = qp-min").minimum(0).maximum(127).default_value(default.qp_min_i).mutable_playing().build(),
            glib::ParamSpecUInt::builder("qp-max-i").nick("Greatest QP of keyframes").blurb("Highest QP of keyframes, 0 = qp-max").minimum(0).maximum(127).default_value(default.qp_max_i).mutable_playing().build(),
            glib::ParamSpecEnum::builder_with_default("header-mode", default.header_mode).nick("Header mode").blurb("Where parameter sets stand in a byte stream").mutable_ready().build(),
            glib::ParamSpecUInt::builder("intra-refresh").nick("Intra refresh").blurb("Rows of blocks that each frame refreshes without a keyframe, 0 = off").minimum(0).maximum(1024).default_value(default.intra_refresh).mutable_ready().build(),
            glib::ParamSpecUInt::builder("temporal-layers").nick("Temporal layers").blurb("Number of temporal layers (H.264, H.265), 1 = none").minimum(1).maximum(4).default_value(default.temporal_layers).mutable_ready().build(),
            glib::ParamSpecUInt::builder("max-reencode").nick("Most repetitions").blurb("How often a frame that came out too large is coded again").minimum(0).maximum(3).default_value(default.max_reencode).mutable_ready().build(),
            glib::ParamSpecUInt::builder("max-pending").nick("Most frames in flight").blurb("Frames that may be in the encoder at once; 1 = one after the other").minimum(1).maximum(16).default_value(default.max_pending).mutable_ready().build(),
            glib::ParamSpecBoolean::builder("low-latency").nick("Low latency").blurb("One frame at a time, the library in its low delay mode").default_value(default.low_latency).mutable_ready().build(),
            glib::ParamSpecEnum::builder_with_default("rotation", default.rotation).nick("Rotation").blurb("Clockwise rotation before coding, degrees").mutable_ready().build(),
            glib::ParamSpecUInt::builder("quality").nick("JPEG quality").blurb("Quality of JPEG pictures, if there is no bit rate to keep").minimum(1).maximum(99).default_value(default.quality).mutable_playing().build(),
            glib::ParamSpecString::builder("library-path").nick("Library").blurb("File of librockchip_mpp; default: the environment variable ROCKCHIP_MPP_LIBRARY, then the usual names").mutable_ready().build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("extra-config").nick("Further configuration").blurb("Keys of MPP's encoder configuration and their numbers, like extra-config=\"mpp,rc:debreath_en=1,rc:debreath_strength=16\"").mutable_ready().build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Counters and the state of the encoder")
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
