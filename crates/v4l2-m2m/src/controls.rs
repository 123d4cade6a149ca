// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which controls stand for which wish, in which order: asked for first, set one by one, and what is refused is told once
//! and is no failure.

use crate::codec::Codec;
use crate::config::{Config, ENDLESS_GOP, RateControl};
use crate::ioctl::{self, ControlError, ControlInfo, ControlKind};
use crate::keyframe::Method;
use crate::level::{self, Level, Stream};
use crate::ops::Handle;
use crate::uapi::*;

/// A wish that the device did not fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The control.
    pub control: String,
    /// The value that was wanted.
    pub value: i64,
    /// Why, or what the device uses instead.
    pub reason: String,
}

/// What a live change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It works from the next frame on.
    Live,
    /// The device takes it only between streams.
    Restart,
    /// The device cannot do it at all.
    Unsupported,
}

/// What an encoder asks of a device's controls, in the device's dialect.
pub(crate) trait Wishes: std::fmt::Debug + Send {
    /// What has its place between the formats of CAPTURE and OUTPUT.
    fn between_formats(&mut self, handle: &Handle, config: &Config) {
        let _ = (handle, config);
    }
    /// Sets everything that a stream begins with. `level_up` is how many levels above the computed one to use.
    fn apply(&mut self, handle: &Handle, config: &Config, level_up: usize) -> Chosen;
    /// What was refused since the last call, each only once.
    fn take_refused(&mut self) -> Vec<Refused>;
    /// How keyframes can be asked for here.
    fn key_methods(&mut self, handle: &Handle, codec: Codec) -> Vec<Method>;
    /// Asks for a keyframe. `false` if the device refuses.
    fn force_key(&mut self, handle: &Handle, method: Method) -> bool;
    /// Another bitrate while streaming.
    fn live_bitrate(&mut self, handle: &Handle, old: &Config, new: &Config) -> Effect;
    /// Another GOP size while streaming.
    fn live_gop(&mut self, handle: &Handle, codec: Codec, frames: u32) -> Effect;
}

/// The controls of an open device.
#[derive(Debug, Default)]
pub struct Controls {
    known: Vec<ControlInfo>,
    refused: Vec<Refused>,
    reported: Vec<String>,
}

impl Controls {
    /// Asks the device for all of them.
    #[must_use]
    pub fn new(handle: &Handle) -> Self {
        Self { known: ioctl::query_all_controls(handle), ..Self::default() }
    }

    /// A control, if the device has it and it can be set.
    pub fn get(&mut self, handle: &Handle, id: u32) -> Option<ControlInfo> {
        let known = self.known.iter().find(|info| info.id == id).cloned();
        // Drivers that cannot list may still answer for a number.
        let info = known.or_else(|| {
            let info = ioctl::query_control(handle, id).ok().filter(|info| info.id == id)?;
            self.known.push(info.clone());
            Some(info)
        })?;
        (!info.fixed && info.kind != ControlKind::Other).then_some(info)
    }

    fn refuse(&mut self, info: &ControlInfo, value: i64, reason: String) {
        self.refused.push(Refused { control: info.key(), value, reason });
    }

    /// Sets a control that is nice to have: what is out of range is brought into it, and what is refused is noted.
    /// Answers whether the device took it.
    fn set(&mut self, handle: &Handle, id: u32, value: i64) -> bool {
        self.try_set(handle, id, value).is_some_and(|result| result.is_ok())
    }

    /// `None`: there is no such control.
    fn try_set(&mut self, handle: &Handle, id: u32, value: i64) -> Option<Result<(), ControlError>> {
        let info = self.get(handle, id)?;
        let mut used = info.clamp(value);
        if info.kind == ControlKind::Menu && !ioctl::menu_has(handle, id, used) {
            self.refuse(&info, value, "the device does not have this item".into());
            return Some(Err(ControlError::OutOfRange));
        }
        if info.kind == ControlKind::Button {
            used = value;
        }
        let result = ioctl::set_control(handle, id, info.kind, used);
        match &result {
            Ok(()) if used != value => self.refuse(
                &info,
                value,
                format!(
                    "the device takes {} to {} in steps of {}, so {used} is used",
                    info.minimum,
                    info.maximum,
                    info.step.max(1)
                ),
            ),
            Ok(()) | Err(ControlError::Busy) => {}
            Err(error) => self.refuse(&info, value, error.to_string()),
        }
        Some(result)
    }

    /// Sets a control to a value that nobody asked for, or the nearest that the device has.
    fn set_near(&mut self, handle: &Handle, id: u32, value: i64) -> bool {
        let value = self.get(handle, id).map_or(value, |info| info.clamp(value));
        self.set(handle, id, value)
    }

    fn first(&mut self, handle: &Handle, ids: &[u32], value: i64) -> bool {
        ids.iter().any(|&id| self.set(handle, id, value))
    }

    /// Sets a control that somebody asked for by name, so that its absence is worth a word.
    fn wish(&mut self, handle: &Handle, id: u32, value: i64, name: &str) {
        if self.try_set(handle, id, value).is_none() {
            self.refused.push(Refused {
                control: name.to_owned(),
                value,
                reason: "the device has no such control".into(),
            });
        }
    }

    fn extra(&mut self, handle: &Handle, name: &str, value: i64) {
        let number = match name.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => name.parse().ok(),
        };
        let key = name.replace('-', "_");
        let id = number.or_else(|| self.known.iter().find(|info| info.key() == key).map(|info| info.id));
        self.wish(handle, id.unwrap_or(0), value, name);
    }

    fn rate_control(&mut self, handle: &Handle, config: &Config) {
        let fixed = config.rate_control == RateControl::FixQp;
        self.set(handle, V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, i64::from(!fixed));
        if fixed {
            return;
        }
        let mode = match config.rate_control {
            RateControl::Vbr => 0,
            RateControl::Cq => 2,
            RateControl::Cbr | RateControl::FixQp => 1,
        };
        self.set(handle, V4L2_CID_MPEG_VIDEO_BITRATE_MODE, mode);
        if config.rate_control == RateControl::Cq {
            self.wish(handle, V4L2_CID_MPEG_VIDEO_CONSTANT_QUALITY, config.quality.into(), "quality");
        }
        // The peak first where it grows and last where it shrinks; refused either way, the second try counts.
        let peak = i64::from(config.peak());
        if config.rate_control == RateControl::Vbr {
            self.set_near(handle, V4L2_CID_MPEG_VIDEO_BITRATE_PEAK, peak);
        }
        self.set(handle, V4L2_CID_MPEG_VIDEO_BITRATE, config.bitrate.into());
        let bits = match (config.vbv_size, config.low_latency) {
            (0, true) => config.bitrate / 5,
            (0, false) => config.bitrate,
            (bits, _) => bits,
        };
        // Both are in KiB.
        let kib = i64::from(bits.div_ceil(8 * 1024).max(1));
        let control = match config.codec {
            Codec::H264 => V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE,
            _ => V4L2_CID_MPEG_VIDEO_VBV_SIZE,
        };
        if config.vbv_size != 0 {
            self.wish(handle, control, kib, "vbv-size");
        } else {
            self.set_near(handle, control, kib);
        }
    }

    fn gop(&mut self, handle: &Handle, config: &Config) {
        let (gop, idr) = (config.gop(), config.idr());
        let set = if matches!(config.gop_size, 0 | ENDLESS_GOP) { Self::set_near } else { Self::set };
        // For H.264 the GOP is what lies between keyframes, and the other period that of all I-frames.
        let open = idr != gop
            && config.codec == Codec::H264
            && self.get(handle, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD).is_some();
        let frames = i64::from(if open { idr } else { gop });
        let taken = set(self, handle, V4L2_CID_MPEG_VIDEO_GOP_SIZE, frames);
        if open || (!taken && config.codec == Codec::H264) {
            set(self, handle, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, gop.into());
        }
        let refresh = i64::from(idr / gop.max(1));
        match config.codec {
            Codec::H265 if idr != gop => {
                self.wish(handle, V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD, refresh, "idr-interval");
            }
            // Every I-frame is a keyframe.
            Codec::H265 => {
                self.set_near(handle, V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD, 1);
            }
            _ if idr != gop && !open => self.refused.push(Refused {
                control: "idr-interval".into(),
                value: config.idr_interval.into(),
                reason: "every I-frame of this device is a keyframe".into(),
            }),
            _ => {}
        }
    }

    fn profile_and_level(&mut self, handle: &Handle, config: &Config, level_up: usize) -> Chosen {
        let (profile, level_control) = match config.codec {
            Codec::H264 => (V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_CID_MPEG_VIDEO_H264_LEVEL),
            Codec::H265 => (V4L2_CID_MPEG_VIDEO_HEVC_PROFILE, V4L2_CID_MPEG_VIDEO_HEVC_LEVEL),
            Codec::Vp8 | Codec::Fwht | Codec::Av1 => return Chosen::default(),
        };
        let mut chosen = Chosen::default();
        if let Some(info) = self.get(handle, profile) {
            let wanted = config.profiles.iter().filter_map(|name| profile_menu(config.codec, name));
            for (name, menu) in wanted.chain(default_profiles(config.codec).iter().copied()) {
                let allowed = config.profiles.is_empty() || config.profiles.iter().any(|one| one == name);
                if allowed
                    && ioctl::menu_has(handle, profile, menu)
                    && ioctl::set_control(handle, profile, info.kind, menu).is_ok()
                {
                    chosen.profile = Some(name);
                    break;
                }
            }
            if chosen.profile.is_none() {
                self.refuse(&info, -1, format!("the device has none of the profiles {:?}", config.profiles));
            }
        }
        let stream =
            Stream { width: config.width, height: config.height, rate: config.rate, bitrate: config.peak() };
        let levels: Vec<Level> = match config.codec {
            Codec::H264 => level::h264_levels().collect(),
            _ => level::h265_levels().collect(),
        };
        let computed = match config.codec {
            Codec::H264 => level::h264(&stream, matches!(chosen.profile, Some("high" | "constrained-high"))),
            _ => level::h265(&stream),
        };
        let wanted = config.level.as_ref().and_then(|name| levels.iter().find(|level| level.name == *name));
        let start = wanted.unwrap_or(&computed).menu;
        if self.get(handle, level_control).is_some() {
            // The least that the device's menu has, from there on.
            let mut above = levels.iter().filter(|level| {
                level.menu >= start
                    && level.name != "1b"
                    && ioctl::menu_has(handle, level_control, level.menu)
            });
            let level = above.nth(level_up);
            chosen.levels_left = above.next().is_some() && wanted.is_none();
            let level = level.or_else(|| {
                levels.iter().rev().find(|level| ioctl::menu_has(handle, level_control, level.menu))
            });
            if let Some(level) = level
                && self.set(handle, level_control, level.menu)
            {
                chosen.level = Some(level.name);
            }
        }
        chosen
    }
}

impl Wishes for Controls {
    fn take_refused(&mut self) -> Vec<Refused> {
        let reported = &mut self.reported;
        let mut refused = std::mem::take(&mut self.refused);
        refused.retain(|refused| {
            let new = !reported.contains(&refused.control);
            if new {
                reported.push(refused.control.clone());
            }
            new
        });
        refused
    }

    fn apply(&mut self, handle: &Handle, config: &Config, level_up: usize) -> Chosen {
        let codec = config.codec;
        self.rate_control(handle, config);
        self.gop(handle, config);
        self.set(handle, V4L2_CID_MPEG_VIDEO_B_FRAMES, config.b_frames.into());
        if config.repeat_headers {
            let _ = self.first(
                handle,
                &[V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, V4L2_CID_MPEG_VIDEO_PREPEND_SPSPPS_TO_IDR],
                1,
            );
        }
        // Joined: parameter sets never come in a buffer of their own.
        self.set(handle, V4L2_CID_MPEG_VIDEO_HEADER_MODE, 1);
        let (min, max) = match codec {
            Codec::H264 => (V4L2_CID_MPEG_VIDEO_H264_MIN_QP, V4L2_CID_MPEG_VIDEO_H264_MAX_QP),
            Codec::H265 => (V4L2_CID_MPEG_VIDEO_HEVC_MIN_QP, V4L2_CID_MPEG_VIDEO_HEVC_MAX_QP),
            Codec::Vp8 => (V4L2_CID_MPEG_VIDEO_VPX_MIN_QP, V4L2_CID_MPEG_VIDEO_VPX_MAX_QP),
            Codec::Fwht | Codec::Av1 => (V4L2_CID_FWHT_I_FRAME_QP, V4L2_CID_FWHT_P_FRAME_QP),
        };
        if codec == Codec::Fwht {
            // There is no rate control: the greatest quantiser allowed is the quantiser.
            if let Some(qp) = config.qp_max {
                self.set(handle, min, qp.into());
                self.set(handle, max, qp.into());
            }
        } else {
            if let Some(qp) = config.qp_min {
                self.wish(handle, min, qp.into(), "qp-min");
            }
            if let Some(qp) = config.qp_max {
                self.wish(handle, max, qp.into(), "qp-max");
            }
        }
        if config.intra_refresh != 0 {
            self.wish(
                handle,
                V4L2_CID_MPEG_VIDEO_INTRA_REFRESH_PERIOD,
                config.intra_refresh.into(),
                "intra-refresh",
            );
        }
        if config.au_delimiter {
            self.wish(handle, V4L2_CID_MPEG_VIDEO_AU_DELIMITER, 1, "au-delimiter");
        }
        if config.slice_size != 0 {
            let size = i64::from(config.slice_size);
            self.wish(handle, V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE, 2, "slice-size");
            self.set(handle, V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MAX_BYTES, size);
        }
        let chosen = self.profile_and_level(handle, config, level_up);
        for (name, value) in &config.extra_controls {
            self.extra(handle, name, *value);
        }
        chosen
    }

    fn key_methods(&mut self, handle: &Handle, _codec: Codec) -> Vec<Method> {
        let mut methods = Vec::new();
        if self.get(handle, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME).is_some() {
            methods.push(Method::ForceKeyFrame);
        }
        if self.get(handle, V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE).is_some() {
            methods.push(Method::ForceFrameType);
        }
        methods.push(Method::Restart);
        methods
    }

    fn force_key(&mut self, handle: &Handle, method: Method) -> bool {
        match method {
            Method::ForceKeyFrame => self.set(handle, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1),
            Method::ForceFrameType => self.set(handle, V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE, 1),
            Method::ForceFrameTypeI | Method::ForceIdrFrame | Method::Restart => false,
        }
    }

    fn live_bitrate(&mut self, handle: &Handle, old: &Config, new: &Config) -> Effect {
        let mut ids = vec![(V4L2_CID_MPEG_VIDEO_BITRATE, new.bitrate)];
        if new.rate_control == RateControl::Vbr {
            // The peak may never be below the bitrate.
            let at = usize::from(new.peak() < old.peak());
            ids.insert(at, (V4L2_CID_MPEG_VIDEO_BITRATE_PEAK, new.peak()));
        }
        let mut effect = Effect::Unsupported;
        for (id, value) in ids {
            match self.try_set(handle, id, value.into()) {
                Some(Ok(())) if effect == Effect::Unsupported => effect = Effect::Live,
                Some(Err(ControlError::Busy)) => effect = Effect::Restart,
                _ => {}
            }
        }
        effect
    }

    fn live_gop(&mut self, handle: &Handle, codec: Codec, frames: u32) -> Effect {
        let ids = [V4L2_CID_MPEG_VIDEO_GOP_SIZE, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD];
        for id in ids.into_iter().take(if codec == Codec::H264 { 2 } else { 1 }) {
            match self.try_set(handle, id, frames.into()) {
                Some(Ok(())) => return Effect::Live,
                Some(Err(ControlError::Busy)) => return Effect::Restart,
                _ => {}
            }
        }
        Effect::Unsupported
    }
}

/// Profile and level in use, as in GStreamer's caps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// `None`: the device has no such control.
    pub profile: Option<&'static str>,
    /// `None`: the device has no such control.
    pub level: Option<&'static str>,
    /// The device has a higher level to try.
    pub(crate) levels_left: bool,
}

/// Names and menu numbers of profiles for 4:2:0 with 8 bits.
const H264_PROFILES: [(&str, i64); 5] =
    [("constrained-baseline", 1), ("baseline", 0), ("main", 2), ("constrained-high", 17), ("high", 4)];
const H265_PROFILES: [(&str, i64); 1] = [("main", 0)];

fn default_profiles(codec: Codec) -> &'static [(&'static str, i64)] {
    if codec == Codec::H264 { &H264_PROFILES } else { &H265_PROFILES }
}

fn profile_menu(codec: Codec, name: &str) -> Option<(&'static str, i64)> {
    default_profiles(codec).iter().copied().find(|(known, _)| *known == name)
}
