// SPDX-License-Identifier: MPL-2.0

//! Properties of both elements and their defaults. Those that only one of them has, or that differ, are in its own file.

use std::path::PathBuf;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use v4l2_m2m::config;

use super::{HeaderMode, IoMode, LatencyMode};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub device: Option<String>,
    pub bitrate: u32,
    pub peak_bitrate: u32,
    pub min_bitrate: u32,
    pub max_framerate: gst::Fraction,
    pub rate_control: config::RateControl,
    pub quality: u32,
    pub gop_size: i32,
    pub idr_interval: u32,
    pub qp_min: u32,
    pub qp_max: u32,
    pub b_frames: u32,
    pub vbv_size: u32,
    pub intra_refresh: u32,
    pub header_mode: HeaderMode,
    pub au_delimiter: bool,
    pub slice_size: u32,
    pub max_pending: u32,
    pub output_buffers: u32,
    pub latency_mode: LatencyMode,
    pub io_mode: IoMode,
    pub device_timeout: Duration,
    pub extra_controls: Option<gst::Structure>,
    pub library_path: Option<String>,
    pub qp_init: u32,
    pub qp_min_i: u32,
    pub qp_max_i: u32,
    pub nvidia: config::Nvidia,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            device: None,
            bitrate: 0,
            peak_bitrate: 0,
            min_bitrate: 0,
            max_framerate: gst::Fraction::new(0, 1),
            rate_control: config::RateControl::default(),
            quality: 50,
            gop_size: -1,
            idr_interval: 0,
            qp_min: 0,
            qp_max: 0,
            b_frames: 0,
            vbv_size: 0,
            intra_refresh: 0,
            header_mode: HeaderMode::default(),
            au_delimiter: false,
            slice_size: 0,
            max_pending: 4,
            output_buffers: 0,
            latency_mode: LatencyMode::default(),
            io_mode: IoMode::default(),
            device_timeout: Duration::from_secs(5),
            extra_controls: None,
            library_path: None,
            qp_init: 0,
            qp_min_i: 0,
            qp_max_i: 0,
            nvidia: config::Nvidia::default(),
        }
    }
}

impl Settings {
    pub fn path(&self) -> Option<PathBuf> {
        self.device.as_ref().filter(|device| !device.is_empty()).map(PathBuf::from)
    }

    /// The GOP size as the engine counts it.
    pub fn gop(&self) -> u32 {
        match self.gop_size {
            0 => config::ENDLESS_GOP,
            frames => u32::try_from(frames).unwrap_or(0),
        }
    }

    /// Fills in what does not depend on the caps.
    pub fn apply(&self, config: &mut config::Config) {
        config.bitrate = self.bitrate;
        config.peak_bitrate = self.peak_bitrate;
        config.rate_control = self.rate_control;
        config.quality = self.quality;
        config.gop_size = self.gop();
        config.idr_interval = self.idr_interval;
        config.qp_min = Some(self.qp_min).filter(|qp| *qp != 0);
        config.qp_max = Some(self.qp_max).filter(|qp| *qp != 0);
        config.qp_init = Some(self.qp_init).filter(|qp| *qp != 0);
        config.qp_min_key = Some(self.qp_min_i).filter(|qp| *qp != 0);
        config.qp_max_key = Some(self.qp_max_i).filter(|qp| *qp != 0);
        config.b_frames = self.b_frames;
        config.vbv_size = self.vbv_size;
        config.low_latency = self.latency_mode == LatencyMode::Low;
        config.intra_refresh = self.intra_refresh;
        config.repeat_headers = self.header_mode == HeaderMode::EachIdr;
        config.au_delimiter = self.au_delimiter;
        config.slice_size = self.slice_size;
        config.inputs = self.max_pending;
        config.outputs = if self.output_buffers == 0 { self.max_pending.max(2) } else { self.output_buffers };
        config.nvidia = self.nvidia.clone();
        config.extra_controls = self.extra_controls.as_ref().map(controls).unwrap_or_default();
    }

    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "device" => self.device = value.get().unwrap_or_default(),
            "bitrate" => self.bitrate = value.get().unwrap_or(self.bitrate),
            "peak-bitrate" => self.peak_bitrate = value.get().unwrap_or(self.peak_bitrate),
            "min-bitrate" => self.min_bitrate = value.get().unwrap_or(self.min_bitrate),
            "max-framerate" => self.max_framerate = value.get().unwrap_or(self.max_framerate),
            "quality" => self.quality = value.get().unwrap_or(self.quality),
            "gop-size" => self.gop_size = value.get().unwrap_or(self.gop_size),
            "idr-interval" => self.idr_interval = value.get().unwrap_or(self.idr_interval),
            "output-buffers" => self.output_buffers = value.get().unwrap_or(self.output_buffers),
            "latency-mode" => self.latency_mode = value.get().unwrap_or_default(),
            "qp-min" => self.qp_min = value.get().unwrap_or(self.qp_min),
            "qp-max" => self.qp_max = value.get().unwrap_or(self.qp_max),
            "qp-min-i" => self.qp_min_i = value.get().unwrap_or(self.qp_min_i),
            "qp-max-i" => self.qp_max_i = value.get().unwrap_or(self.qp_max_i),
            "qp-init" => self.qp_init = value.get().unwrap_or(self.qp_init),
            "library-path" => self.library_path = value.get().unwrap_or_default(),
            "b-frames" => self.b_frames = value.get().unwrap_or(self.b_frames),
            "vbv-size" => self.vbv_size = value.get().unwrap_or(self.vbv_size),
            "intra-refresh" => self.intra_refresh = value.get().unwrap_or(self.intra_refresh),
            "header-mode" => self.header_mode = value.get().unwrap_or_default(),
            "au-delimiter" => self.au_delimiter = value.get().unwrap_or_default(),
            "slice-size" => self.slice_size = value.get().unwrap_or(self.slice_size),
            "io-mode" => self.io_mode = value.get().unwrap_or_default(),
            "max-pending" => self.max_pending = value.get().unwrap_or(self.max_pending),
            "device-timeout" => {
                self.device_timeout = value.get().map_or(self.device_timeout, Duration::from_nanos);
            }
            "extra-controls" => self.extra_controls = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "device" => self.device.to_value(),
            "bitrate" => self.bitrate.to_value(),
            "peak-bitrate" => self.peak_bitrate.to_value(),
            "min-bitrate" => self.min_bitrate.to_value(),
            "max-framerate" => self.max_framerate.to_value(),
            "quality" => self.quality.to_value(),
            "gop-size" => self.gop_size.to_value(),
            "idr-interval" => self.idr_interval.to_value(),
            "output-buffers" => self.output_buffers.to_value(),
            "latency-mode" => self.latency_mode.to_value(),
            "qp-min" => self.qp_min.to_value(),
            "qp-max" => self.qp_max.to_value(),
            "qp-min-i" => self.qp_min_i.to_value(),
            "qp-max-i" => self.qp_max_i.to_value(),
            "qp-init" => self.qp_init.to_value(),
            "library-path" => self.library_path.to_value(),
            "b-frames" => self.b_frames.to_value(),
            "vbv-size" => self.vbv_size.to_value(),
            "intra-refresh" => self.intra_refresh.to_value(),
            "header-mode" => self.header_mode.to_value(),
            "au-delimiter" => self.au_delimiter.to_value(),
            "slice-size" => self.slice_size.to_value(),
            "io-mode" => self.io_mode.to_value(),
            "max-pending" => self.max_pending.to_value(),
            "device-timeout" => nanos(self.device_timeout).to_value(),
            "extra-controls" => self.extra_controls.to_value(),
            _ => return None,
        })
    }
}

/// The controls of a structure: its numbers and booleans.
fn controls(structure: &gst::Structure) -> Vec<(String, i64)> {
    let number = |value: &glib::SendValue| {
        let int = value.get::<i32>().map(i64::from).or_else(|_| value.get::<u32>().map(i64::from));
        int.or_else(|_| value.get::<i64>()).or_else(|_| value.get::<bool>().map(i64::from)).ok()
    };
    structure.iter().filter_map(|(name, value)| Some((name.to_string(), number(value)?))).collect()
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn uint(
    name: &str,
    nick: &str,
    blurb: &str,
    range: (u32, u32),
    default: u32,
    live: bool,
) -> glib::ParamSpec {
    let builder = glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(range.0)
        .maximum(range.1)
        .default_value(default);
    if live { builder.mutable_playing().build() } else { builder.mutable_ready().build() }
}

/// Those that are the same in both elements.
pub(crate) fn common() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    let any = (0, u32::MAX);
    vec![
        uint(
            "bitrate",
            "Bitrate",
            "Target bitrate (bit/s); 0: width x height x frame rate / 8",
            any,
            default.bitrate,
            true,
        ),
        uint(
            "peak-bitrate",
            "Peak bitrate",
            "Greatest bitrate with rate-control=vbr (bit/s); 0: 1.5 times bitrate",
            any,
            default.peak_bitrate,
            true,
        ),
        uint(
            "min-bitrate",
            "Least bitrate",
            "What receivers wish (GstTargetBitrate) does not bring the bitrate below this (bit/s)",
            any,
            default.min_bitrate,
            true,
        ),
        gst::ParamSpecFraction::builder("max-framerate")
            .nick("Greatest frame rate")
            .blurb("Frames that come faster are left out (frames/s); 0/1: none")
            .minimum(gst::Fraction::new(0, 1))
            .maximum(gst::Fraction::new(i32::MAX, 1))
            .default_value(default.max_framerate)
            .mutable_playing()
            .build(),
        glib::ParamSpecInt::builder("gop-size")
            .nick("GOP size")
            .blurb("Frames from one keyframe to the next; -1: those of two seconds, 0: only the first is one")
            .minimum(-1)
            .default_value(default.gop_size)
            .mutable_playing()
            .build(),
        uint(
            "idr-interval",
            "IDR interval",
            "Frames from one keyframe to the next where not each I-frame (gop-size) is one; 0: each is",
            (0, i32::MAX.unsigned_abs()),
            default.idr_interval,
            false,
        ),
        uint(
            "qp-min",
            "Least quantiser",
            "Least quantiser; 0: the device's",
            (0, 255),
            default.qp_min,
            false,
        ),
        uint(
            "qp-max",
            "Greatest quantiser",
            "Greatest quantiser (FWHT: the quantiser); 0: the device's",
            (0, 255),
            default.qp_max,
            false,
        ),
        glib::ParamSpecEnum::builder_with_default("header-mode", default.header_mode)
            .nick("Header mode")
            .blurb("Which keyframes carry parameter sets")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("au-delimiter")
            .nick("Access unit delimiters")
            .blurb("Begin each frame with an access unit delimiter, if the device can")
            .default_value(default.au_delimiter)
            .mutable_ready()
            .build(),
        uint(
            "slice-size",
            "Slice size",
            "Most bytes of a slice; 0: one slice a frame",
            any,
            default.slice_size,
            false,
        ),
        uint(
            "max-pending",
            "Frames in flight",
            "Raw frames in the device at once (frames)",
            (1, 16),
            default.max_pending,
            false,
        ),
        uint(
            "output-buffers",
            "Coded buffers",
            "Coded frames for which the device has room at once (frames); 0: as many as max-pending, 2 at least",
            (0, 32),
            default.output_buffers,
            false,
        ),
        glib::ParamSpecEnum::builder_with_default("latency-mode", default.latency_mode)
            .nick("Latency mode")
            .blurb("What the size of the coded picture buffer is made for, where vbv-size is 0")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("device-timeout")
            .nick("Device time-out")
            .blurb("A device that does not answer for this long has failed (ns)")
            .minimum(10_000_000)
            .maximum(60_000_000_000)
            .default_value(nanos(default.device_timeout))
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Frames, keyframes, losses, times, and what the device is")
            .read_only()
            .build(),
    ]
}
