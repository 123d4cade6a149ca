// SPDX-License-Identifier: MIT OR Apache-2.0

//! The dialect of NVIDIA's library: which controls there are and what kind each is, which stands for which wish, and what
//! a device encodes. Controls cannot be asked for, so each is tried, and what is refused is no failure.

use std::sync::Arc;

use crate::codec::Codec;
use crate::config::{Config, RateControl};
use crate::controls::{Chosen, Effect, Refused, Wishes};
use crate::error::NodeError;
use crate::ioctl::{self, Api, ControlError, Format, FormatError, FrameSizes, PlaneFormat};
use crate::keyframe::Method;
use crate::level::{self, Stream};
use crate::ops::Handle;
use crate::picture::RawFormat;
use crate::probe::CodecSupport;
use crate::queue::Capture;
use crate::uapi::*;

/// What a control's union holds. The library follows a pointer without looking, so this must be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A value of 32 bits.
    Value,
    /// A pointer to so many words of 32 bits.
    Words(usize),
}

use Kind::{Value, Words};

#[derive(Clone, Copy, Debug)]
struct Control {
    id: u32,
    /// As in `extra-controls`.
    name: &'static str,
    kind: Kind,
}

/// NVIDIA's own controls count from here.
const OWN: u32 = 0x0099_0900;

const fn control(id: u32, name: &'static str, kind: Kind) -> Control {
    Control { id, name, kind }
}

macro_rules! controls {
    ($($constant:ident $id:expr, $name:literal $kind:expr;)*) => {
        $(const $constant: Control = control($id, $name, $kind);)*
        /// All that are known, for those who name one.
        const CONTROLS: &[Control] = &[$($constant),*];
    };
}

controls! {
    BITRATE V4L2_CID_MPEG_VIDEO_BITRATE, "bitrate" Value;
    BITRATE_PEAK V4L2_CID_MPEG_VIDEO_BITRATE_PEAK, "bitrate_peak" Value;
    BITRATE_MODE V4L2_CID_MPEG_VIDEO_BITRATE_MODE, "bitrate_mode" Value;
    FRAME_RC_ENABLE V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, "frame_rc_enable" Value;
    GOP_SIZE V4L2_CID_MPEG_VIDEO_GOP_SIZE, "gop_size" Value;
    H264_PROFILE V4L2_CID_MPEG_VIDEO_H264_PROFILE, "h264_profile" Value;
    H264_LEVEL V4L2_CID_MPEG_VIDEO_H264_LEVEL, "h264_level" Value;
    H264_ENTROPY_MODE V4L2_CID_MPEG_VIDEO_H264_ENTROPY_MODE, "h264_entropy_mode" Value;
    FORCE_KEY_FRAME V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "force_key_frame" Value;
    FORCE_FRAME_TYPE V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE, "force_frame_type" Value;
    H265_PROFILE OWN + 513, "h265_profile" Value;
    IDR_INTERVAL OWN + 514, "idr_interval" Value;
    TEMPORAL_TRADEOFF_LEVEL OWN + 528, "temporal_tradeoff_level" Value;
    SLICE_LENGTH_PARAM OWN + 529, "slice_length_param" Words(2);
    VIRTUALBUFFER_SIZE OWN + 531, "virtualbuffer_size" Words(1);
    NUM_REFERENCE_FRAMES OWN + 532, "num_reference_frames" Words(1);
    SLICE_INTRAREFRESH_PARAM OWN + 533, "slice_intrarefresh_param" Words(1);
    NUM_BFRAMES OWN + 534, "num_bframes" Value;
    INSERT_SPS_PPS_AT_IDR OWN + 535, "insert_sps_pps_at_idr" Value;
    QP_RANGE OWN + 539, "qp_range" Words(6);
    HW_PRESET_TYPE OWN + 540, "hw_preset_type" Value;
    INSERT_VUI OWN + 546, "insert_vui" Value;
    INSERT_AUD OWN + 547, "insert_aud" Value;
    EXTENDED_COLORFORMAT OWN + 548, "extended_colorformat" Value;
    TWO_PASS_CBR OWN + 552, "two_pass_cbr" Value;
    MAX_PERFORMANCE OWN + 554, "max_performance" Value;
    H265_LEVEL OWN + 561, "h265_level" Value;
    SLICE_LEVEL_ENCODE OWN + 562, "slice_level_encode" Value;
    POC_TYPE OWN + 563, "poc_type" Value;
    FORCE_IDR_FRAME OWN + 567, "force_idr_frame" Value;
    AV1_HEADERS_WITH_FRAME OWN + 569, "av1_headers_with_frame" Value;
    AV1_TILE_CONFIGURATION OWN + 570, "av1_tile_configuration" Words(3);
    AV1_ENABLE_SSIMRDO OWN + 571, "av1_enable_ssimrdo" Value;
    AV1_DISABLE_CDF_UPDATE OWN + 572, "av1_disable_cdf_update" Value;
    INIT_FRAME_QP OWN + 574, "init_frame_qp" Words(3);
    ENABLE_LOSSLESS OWN + 575, "enable_lossless" Value;
}

/// Names and numbers of H.264 profiles. Baseline without what only Baseline has is the constrained one.
const H264_PROFILES: [(&str, u32); 4] =
    [("constrained-baseline", 0), ("baseline", 0), ("main", 2), ("high", 4)];
/// The highest H.264 level that every release's menu has: 5.1.
const H264_LEVELS: i64 = 15;

/// Tells of a packet; read, never set.
pub(crate) const METADATA: u32 = OWN + 536;

/// Controls of an open device of NVIDIA's.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    refused: Vec<Refused>,
    reported: Vec<&'static str>,
}

/// As a control's words: −1, which keeps what is.
const KEEP: u32 = u32::MAX;

fn try_set(handle: &Handle, control: Control, words: &[u32]) -> Result<(), ControlError> {
    match control.kind {
        Value => {
            let value = words.first().copied().and_then(|value| i32::try_from(value).ok());
            ioctl::set_codec_value(handle, control.id, value.ok_or(ControlError::OutOfRange)?)
        }
        Words(count) => {
            // Never fewer than the library will read.
            let mut copy = vec![0; count.max(words.len())];
            for (to, from) in copy.iter_mut().zip(words) {
                *to = *from;
            }
            ioctl::set_codec_words(handle, control.id, &mut copy)
        }
    }
}

impl Controls {
    /// Sets what somebody asked for: a refusal is told, once.
    fn wish(&mut self, handle: &Handle, control: Control, words: &[u32]) -> bool {
        let Err(error) = try_set(handle, control, words) else { return true };
        if !self.reported.contains(&control.name) {
            self.reported.push(control.name);
            self.refused.push(Refused {
                control: control.name.to_owned(),
                value: words.first().map_or(0, |word| i64::from(*word)),
                reason: error.to_string(),
            });
        }
        false
    }

    /// Sets what is only our own choice; not every release and chip has all of it.
    fn hint(handle: &Handle, control: Control, words: &[u32]) -> bool {
        let result = try_set(handle, control, words);
        if let Err(error) = &result {
            tracing::debug!(control = control.name, ?words, %error, "refused");
        }
        result.is_ok()
    }

    fn rate_control(&mut self, handle: &Handle, config: &Config) {
        let fixed = config.rate_control == RateControl::FixQp;
        self.wish(handle, BITRATE, &[config.bitrate]);
        if config.rate_control == RateControl::Vbr {
            self.wish(handle, BITRATE_PEAK, &[config.peak()]);
        }
        Self::hint(handle, FRAME_RC_ENABLE, &[u32::from(!fixed)]);
        let mode = u32::from(config.rate_control != RateControl::Vbr);
        Self::hint(handle, BITRATE_MODE, &[mode]);
        if let Some(qp) = config.qp_init {
            self.wish(handle, INIT_FRAME_QP, &[qp; 3]);
        }
        let either = [config.qp_min, config.qp_max, config.qp_min_key, config.qp_max_key];
        if either.iter().any(Option::is_some) {
            let (least, most) = (config.qp_min.unwrap_or(KEEP), config.qp_max.unwrap_or(KEEP));
            let key = (config.qp_min_key.unwrap_or(least), config.qp_max_key.unwrap_or(most));
            self.wish(handle, QP_RANGE, &[key.0, key.1, least, most, least, most]);
        }
    }

    fn profile_and_level(&mut self, handle: &Handle, config: &Config) -> Chosen {
        let mut chosen = Chosen::default();
        match config.codec {
            Codec::H264 => {
                let wanted = |name: &str| config.profiles.iter().position(|wanted| wanted == name);
                let mut profiles: Vec<_> = H264_PROFILES
                    .into_iter()
                    .filter(|(name, _)| config.profiles.is_empty() || wanted(name).is_some())
                    .collect();
                profiles.sort_by_key(|(name, _)| wanted(name));
                for (name, number) in profiles {
                    if self.wish(handle, H264_PROFILE, &[number]) {
                        chosen.profile = Some(name);
                        break;
                    }
                }
                let stream = Stream {
                    width: config.width,
                    height: config.height,
                    rate: config.rate,
                    bitrate: config.peak(),
                };
                let computed = level::h264(&stream, chosen.profile == Some("high"));
                let named = config
                    .level
                    .as_ref()
                    .and_then(|name| level::h264_levels().find(|level| level.name == *name));
                let level = named.unwrap_or(computed);
                if let Ok(menu) = u32::try_from(level.menu)
                    && level.menu <= H264_LEVELS
                    && self.wish(handle, H264_LEVEL, &[menu])
                {
                    chosen.level = Some(level.name);
                }
            }
            Codec::H265 => {
                let ten = config.format == RawFormat::P010;
                if self.wish(handle, H265_PROFILE, &[u32::from(ten)]) {
                    chosen.profile = Some(if ten { "main-10" } else { "main" });
                }
                // The numbers of H.265 levels are NVIDIA's own and not the same in all releases: the library's choice.
            }
            _ => {}
        }
        chosen
    }

    fn extra(&mut self, handle: &Handle, name: &str, value: i64) {
        let key = name.replace('-', "_");
        let number = match name.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => name.parse().ok(),
        };
        let known =
            CONTROLS.iter().find(|control| control.name == key || Some(control.id) == number).copied();
        let mut refuse = |reason: String| {
            self.refused.push(Refused { control: name.to_owned(), value, reason });
        };
        let Ok(word) = u32::try_from(value) else { return refuse("the value is out of range".into()) };
        let result = match known {
            Some(Control { kind: Words(2..), .. }) => {
                return refuse("this control is more than a number".into());
            }
            Some(control) => try_set(handle, control, &[word]),
            // A number that nobody knows could be a pointer to the library.
            None => return refuse("no control of this name is known".into()),
        };
        if let Err(error) = result {
            refuse(error.to_string());
        }
    }
}

impl Wishes for Controls {
    fn between_formats(&mut self, handle: &Handle, config: &Config) {
        if config.codec == Codec::Av1 {
            Self::hint(handle, AV1_HEADERS_WITH_FRAME, &[1]);
        }
    }

    fn apply(&mut self, handle: &Handle, config: &Config, _level_up: usize) -> Chosen {
        let own = &config.nvidia;
        self.rate_control(handle, config);
        let chosen = self.profile_and_level(handle, config);
        let frames = |frames: u32| frames.min(i32::MAX as u32);
        self.wish(handle, GOP_SIZE, &[frames(config.gop())]);
        self.wish(handle, IDR_INTERVAL, &[frames(config.idr())]);
        self.wish(handle, HW_PRESET_TYPE, &[own.preset]);
        self.wish(handle, MAX_PERFORMANCE, &[u32::from(own.max_performance)]);
        if config.codec != Codec::Av1 {
            // Without it the first picture has them; what lacks then is put in by `Headers`.
            Self::hint(handle, INSERT_SPS_PPS_AT_IDR, &[u32::from(config.repeat_headers)]);
            let full = config.colorimetry.quantization == V4L2_QUANTIZATION_FULL_RANGE;
            if own.insert_vui || full {
                self.wish(handle, INSERT_VUI, &[1]);
            }
            if full {
                self.wish(handle, EXTENDED_COLORFORMAT, &[1]);
            }
            if config.au_delimiter {
                self.wish(handle, INSERT_AUD, &[1]);
            }
        }
        if own.references != 0 {
            self.wish(handle, NUM_REFERENCE_FRAMES, &[own.references]);
        }
        if config.b_frames != 0 {
            self.wish(handle, NUM_BFRAMES, &[config.b_frames]);
        }
        if config.vbv_size != 0 {
            self.wish(handle, VIRTUALBUFFER_SIZE, &[config.vbv_size]);
        } else {
            // Four frames' worth: a keyframe fits, and the queue of a network stays short.
            let time = if config.low_latency { 4 * config.frame_time() } else { 1_000_000 };
            let bits = u64::from(config.bitrate) * time / 1_000_000;
            Self::hint(handle, VIRTUALBUFFER_SIZE, &[u32::try_from(bits.max(1)).unwrap_or(u32::MAX)]);
        }
        if config.codec == Codec::H264 {
            self.wish(handle, POC_TYPE, &[own.poc_type]);
        }
        if own.two_pass {
            self.wish(handle, TWO_PASS_CBR, &[1]);
        }
        if config.slices_apart {
            self.wish(handle, SLICE_LEVEL_ENCODE, &[1]);
        }
        if config.slice_size != 0 {
            // Type 0: in bits.
            self.wish(handle, SLICE_LENGTH_PARAM, &[0, config.slice_size.saturating_mul(8)]);
        } else if config.slices_apart {
            // A quarter of what a frame has.
            let bits = u64::from(config.bitrate) * config.frame_time() / 4_000_000;
            self.wish(handle, SLICE_LENGTH_PARAM, &[0, u32::try_from(bits.max(1)).unwrap_or(u32::MAX)]);
        }
        if config.intra_refresh != 0 {
            self.wish(handle, SLICE_INTRAREFRESH_PARAM, &[config.intra_refresh]);
        }
        if config.codec == Codec::Av1 && own.tiles != (0, 0) {
            self.wish(handle, AV1_TILE_CONFIGURATION, &[1, own.tiles.0, own.tiles.1]);
        }
        for (name, value) in &config.extra_controls {
            self.extra(handle, name, *value);
        }
        chosen
    }

    fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    fn key_methods(&mut self, _handle: &Handle, codec: Codec) -> Vec<Method> {
        // All are accepted everywhere, but not all have an effect: AV1 listens to the frame type only.
        let first = (codec != Codec::Av1).then_some(Method::ForceKeyFrame);
        let others =
            [Method::ForceFrameType, Method::ForceFrameTypeI, Method::ForceIdrFrame, Method::Restart];
        first.into_iter().chain(others).collect()
    }

    fn force_key(&mut self, handle: &Handle, method: Method) -> bool {
        match method {
            Method::ForceKeyFrame => Self::hint(handle, FORCE_KEY_FRAME, &[1]),
            // 0 is what NVIDIA's own classes send.
            Method::ForceFrameType => Self::hint(handle, FORCE_FRAME_TYPE, &[0]),
            Method::ForceFrameTypeI => Self::hint(handle, FORCE_FRAME_TYPE, &[1]),
            Method::ForceIdrFrame => Self::hint(handle, FORCE_IDR_FRAME, &[1]),
            Method::Restart => false,
        }
    }

    fn live_bitrate(&mut self, handle: &Handle, old: &Config, new: &Config) -> Effect {
        let mut steps = vec![(BITRATE, new.bitrate)];
        if new.rate_control == RateControl::Vbr {
            // The peak may never be below the bitrate.
            let at = usize::from(new.peak() < old.peak());
            steps.insert(at, (BITRATE_PEAK, new.peak()));
        }
        let mut effect = Effect::Unsupported;
        for (control, value) in steps {
            match try_set(handle, control, &[value]) {
                Ok(()) if effect == Effect::Unsupported => effect = Effect::Live,
                Err(ControlError::Busy) => effect = Effect::Restart,
                Ok(()) => {}
                Err(error) => tracing::debug!(control = control.name, value, %error, "refused"),
            }
        }
        effect
    }

    /// The library takes it at the start only; a shorter distance is kept by asking for keyframes.
    fn live_gop(&mut self, _handle: &Handle, _codec: Codec, _frames: u32) -> Effect {
        Effect::Restart
    }
}

/// NVIDIA's numbers of a codec, the usual first.
fn fourccs(codec: Codec) -> &'static [FourCc] {
    match codec {
        Codec::H264 => &[V4L2_PIX_FMT_H264],
        Codec::H265 => &[V4L2_PIX_FMT_H265_NV, V4L2_PIX_FMT_HEVC],
        _ => &[V4L2_PIX_FMT_AV1_NV],
    }
}

/// The device's number of a raw format: planes are always apart.
fn raw(format: RawFormat) -> (RawFormat, FourCc) {
    let fourcc = match format {
        RawFormat::I420 => V4L2_PIX_FMT_YUV420M,
        RawFormat::P010 => V4L2_PIX_FMT_P010M,
        _ => V4L2_PIX_FMT_NV12M,
    };
    (format, fourcc)
}

/// What the device encodes, found by trying: formats cannot be relied on to be listed.
///
/// # Errors
/// If it encodes nothing.
pub(crate) fn codecs(handle: &Arc<Handle>, api: Api, driver: &str) -> Result<Vec<CodecSupport>, NodeError> {
    let mut codecs = Vec::new();
    let mut last = None;
    for codec in Codec::NVIDIA {
        for &fourcc in fourccs(codec) {
            let format = Format {
                fourcc,
                width: 640,
                height: 480,
                planes: vec![PlaneFormat { bytesperline: 0, sizeimage: 1 << 20 }],
                ..Format::default()
            };
            let result = match ioctl::try_format::<Capture>(handle, api, &format) {
                Err(FormatError::NoIoctl) => ioctl::set_format::<Capture>(handle, api, &format),
                result => result,
            };
            match result {
                Ok(answer) if answer.fourcc == fourcc => {
                    let formats = RawFormat::NVIDIA.into_iter();
                    let raws = formats.filter(|raw| *raw != RawFormat::P010 || codec == Codec::H265);
                    // Even sizes only; the greatest shows when a format is set.
                    let size = (2, MAX_SIZE);
                    let sizes = Some(FrameSizes { width: size, height: size, step: (2, 2) });
                    codecs.push(CodecSupport { codec, fourcc, raws: raws.map(raw).collect(), sizes });
                    break;
                }
                Ok(_) => {}
                Err(FormatError::Gone) => return Err(FormatError::Gone.into()),
                Err(error) => last = Some(error),
            }
        }
    }
    if codecs.is_empty() {
        return Err(NodeError::NoNvidiaCodec {
            driver: driver.to_owned(),
            reason: last.map_or_else(String::new, |error| error.to_string()),
        });
    }
    Ok(codecs)
}

/// Greater than any device's.
const MAX_SIZE: u32 = 32768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_those_of_nvidias_header() {
        let words: Vec<_> = CONTROLS
            .iter()
            .filter_map(|control| match control.kind {
                Words(count) => Some((control.id - OWN, count)),
                Value => None,
            })
            .collect();
        assert_eq!(words, [(529, 2), (531, 1), (532, 1), (533, 1), (539, 6), (570, 3), (574, 3)]);
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for (index, control) in CONTROLS.iter().enumerate() {
            assert!(CONTROLS.iter().take(index).all(|other| other.id != control.id), "{}", control.name);
            assert!(CONTROLS.iter().take(index).all(|other| other.name != control.name), "{}", control.name);
        }
    }
}
