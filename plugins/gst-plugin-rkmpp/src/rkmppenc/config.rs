// SPDX-License-Identifier: MPL-2.0

//! From properties and caps to MPP's configuration.

use gst_encoder_glue::targets::Wish;
use gst_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoInfo, VideoTransferFunction};
use rockchip_mpp::sys::consts;
use rockchip_mpp::{Colour, EncoderConfig, Error};

use super::codec::{Choice, Codec};
use super::layout::{Format, Layout};
use super::level::{self, Demand, Level};
use super::settings::{MAX_BITRATE, MIN_BITRATE, Settings};
use super::{RateControl, Rotation};

/// Bit rates, bit/s. All three must fit together, or the library refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    pub target: u32,
    pub max: u32,
    pub min: u32,
}

/// Frames per second; 30 if the caps leave it open.
pub(crate) fn frame_rate(info: &VideoInfo) -> gst::Fraction {
    let fps = info.fps();
    if fps.numer() > 0 && fps.denom() > 0 { fps } else { gst::Fraction::new(30, 1) }
}

impl Rates {
    /// From the properties and what downstream wishes.
    pub fn new(settings: &Settings, wish: &Wish, info: &VideoInfo) -> Self {
        let fps = frame_rate(info);
        let pixels = u64::from(info.width()) * u64::from(info.height());
        let automatic = pixels * fps.numer() as u64 / fps.denom() as u64 / 8;
        let bounded = |rate: u64| rate.clamp(MIN_BITRATE.into(), MAX_BITRATE.into()) as u32;
        let own = bounded(if settings.bitrate > 0 { settings.bitrate.into() } else { automatic });
        let target = wish.bitrate.map_or(own, |wish| own.min(bounded(wish.into())));
        let or = |set: u32, default: u64| bounded(if set > 0 { set.into() } else { default });
        let wide = u64::from(target);
        // A peak above the wish would overrun the network.
        let peak = if target < own { 0 } else { settings.peak_bitrate };
        let least = match settings.rate_control {
            RateControl::Cbr => wide * 15 / 16,
            _ => wide / 16,
        };
        Self {
            target,
            max: or(peak, wide * 17 / 16).max(target),
            min: or(settings.min_bitrate, least).min(target),
        }
    }

    pub fn apply(&self, config: &mut EncoderConfig) -> Result<(), Error> {
        for (key, value) in
            [(c"rc:bps_target", self.target), (c"rc:bps_max", self.max), (c"rc:bps_min", self.min)]
        {
            config.set(key, value as i32)?;
        }
        Ok(())
    }
}

/// Frames from keyframe to keyframe.
pub(crate) fn gop(settings: &Settings, info: &VideoInfo) -> i32 {
    if settings.gop_size >= 0 {
        return settings.gop_size;
    }
    let fps = frame_rate(info);
    (2 * i64::from(fps.numer()) / i64::from(fps.denom())).clamp(1, i32::MAX.into()) as i32
}

fn greatest_qp(codec: Codec) -> u32 {
    if codec == Codec::Vp8 { 127 } else { 51 }
}

/// Properties that are out of range, or do not fit together: what they are, the range, and what is used instead.
pub(crate) fn clamped(settings: &Settings, info: &VideoInfo, codec: Codec) -> Vec<String> {
    let mut texts = Vec::new();
    let mut check = |name: &str, set: u32, unit: &str, (least, greatest): (u32, u32), used: u32| {
        if set > 0 && set != used {
            texts.push(format!("{name}={set}{unit} is out of range ({least} to {greatest}): using {used}"));
        }
    };
    // Without what downstream wishes, which lowers them all.
    let rates = Rates::new(settings, &Wish { active: true, bitrate: None, max_framerate: None }, info);
    check("bitrate", settings.bitrate, " bit/s", (MIN_BITRATE, MAX_BITRATE), rates.target);
    check("peak-bitrate", settings.peak_bitrate, " bit/s", (rates.target, MAX_BITRATE), rates.max);
    check("min-bitrate", settings.min_bitrate, " bit/s", (MIN_BITRATE, rates.target), rates.min);
    if codec != Codec::Jpeg {
        let limit = greatest_qp(codec);
        let [init, min, max, min_i, max_i] = qps(settings, codec).map(|qp| qp.unsigned_abs());
        check("qp-min", settings.qp_min, "", (0, limit), min);
        check("qp-max", settings.qp_max, "", (min, limit), max);
        check("qp-min-i", settings.qp_min_i, "", (0, limit), min_i);
        check("qp-max-i", settings.qp_max_i, "", (min_i, limit), max_i);
        check("qp-init", settings.qp_init, "", (min_i, max_i), init);
    }
    texts
}

/// QPs: first, least, greatest, least and greatest of keyframes. The first lies within the keyframes' range, or the
/// library would silently forget the range.
pub(crate) fn qps(settings: &Settings, codec: Codec) -> [i32; 5] {
    let (first, least, greatest) = if codec == Codec::Vp8 { (40, 0, 127) } else { (26, 10, 51) };
    let limit = greatest_qp(codec);
    let or = |set: u32, default: i32| if set == 0 { default } else { set.min(limit) as i32 };
    let min = or(settings.qp_min, least);
    let max = or(settings.qp_max, greatest).max(min);
    let min_i = or(settings.qp_min_i, min);
    let max_i = or(settings.qp_max_i, max).max(min_i);
    [or(settings.qp_init, first).clamp(min_i, max_i), min, max, min_i, max_i]
}

/// What may change while frames are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// `MPP_ENC_RC_MODE_*`.
    pub mode: i32,
    pub rates: Rates,
    pub gop: i32,
    pub qps: [i32; 5],
    pub quality: u32,
}

impl Live {
    pub fn new(settings: &Settings, wish: &Wish, info: &VideoInfo, codec: Codec) -> Self {
        let mode = match settings.rate_control {
            // Quality counts, unless somebody wants a bit rate.
            _ if codec == Codec::Jpeg && settings.bitrate == 0 && wish.bitrate.is_none() => {
                consts::MPP_ENC_RC_MODE_FIXQP
            }
            RateControl::Cbr => consts::MPP_ENC_RC_MODE_CBR,
            RateControl::Vbr => consts::MPP_ENC_RC_MODE_VBR,
            RateControl::Avbr => consts::MPP_ENC_RC_MODE_AVBR,
            RateControl::FixQp => consts::MPP_ENC_RC_MODE_FIXQP,
        };
        Self {
            mode,
            rates: Rates::new(settings, wish, info),
            gop: gop(settings, info),
            qps: qps(settings, codec),
            quality: settings.quality,
        }
    }

    pub fn apply(&self, config: &mut EncoderConfig, codec: Codec) -> Result<(), Error> {
        config.set(c"rc:mode", self.mode)?;
        self.rates.apply(config)?;
        if codec == Codec::Jpeg {
            config.set(c"jpeg:q_factor", self.quality as i32)?;
            config.set_optional(c"jpeg:qf_min", 1);
            config.set_optional(c"jpeg:qf_max", 99);
            return Ok(());
        }
        config.set(c"rc:gop", self.gop)?;
        let [init, min, max, min_i, max_i] = self.qps;
        for (key, value) in [
            (c"rc:qp_init", init),
            (c"rc:qp_min", min),
            (c"rc:qp_max", max),
            (c"rc:qp_min_i", min_i),
            (c"rc:qp_max_i", max_i),
        ] {
            config.set(key, value)?;
        }
        Ok(())
    }
}

/// The level of the stream: what the caps ask for, else the lowest that holds it.
pub(crate) fn level_of(choice: &Choice, info: &VideoInfo, live: &Live) -> Option<Level> {
    let fps = frame_rate(info);
    let demand = Demand {
        width: info.width().into(),
        height: info.height().into(),
        rate: (fps.numer() as u64).div_ceil(fps.denom() as u64),
        bitrate: live.rates.max.into(),
    };
    match choice.codec {
        Codec::H264 => choice
            .level
            .or_else(|| level::h264(demand, choice.profile.is_some_and(|profile| profile.1 == 100))),
        Codec::H265 => choice.level.or_else(|| level::h265(demand)),
        _ => None,
    }
}

/// All of it, for a new encoder or a new format.
pub(crate) fn configure(
    config: &mut EncoderConfig,
    settings: &Settings,
    choice: &Choice,
    level: Option<Level>,
    live: &Live,
    info: &VideoInfo,
) -> Result<(), Error> {
    let fps = frame_rate(info);
    for (key, value) in [
        (c"rc:fps_in_flex", 0),
        (c"rc:fps_in_num", fps.numer()),
        (c"rc:fps_in_denorm", fps.denom()),
        (c"rc:fps_out_flex", 0),
        (c"rc:fps_out_num", fps.numer()),
        (c"rc:fps_out_denorm", fps.denom()),
    ] {
        config.set(key, value)?;
    }
    live.apply(config, choice.codec)?;
    config.set_optional(c"rc:drop_mode", consts::MPP_ENC_RC_DROP_FRM_DISABLED);
    config.set_optional(c"rc:max_reenc_times", settings.max_reencode);
    config.set_optional(c"base:low_delay", i32::from(settings.low_latency));
    if settings.intra_refresh > 0 {
        config.set_optional(c"rc:refresh_en", 1);
        config.set_optional(c"rc:refresh_mode", consts::MPP_ENC_RC_INTRA_REFRESH_ROW);
        config.set_optional(c"rc:refresh_num", settings.intra_refresh as i32);
    }

    let colour = colour(info);
    let range = if colour.full_range { consts::MPP_FRAME_RANGE_JPEG } else { consts::MPP_FRAME_RANGE_MPEG };
    let rotation = match settings.rotation {
        Rotation::None => consts::MPP_ENC_ROT_0,
        Rotation::Clockwise => consts::MPP_ENC_ROT_90,
        Rotation::Half => consts::MPP_ENC_ROT_180,
        Rotation::Counterclockwise => consts::MPP_ENC_ROT_270,
    };
    for (key, value) in [
        (c"prep:width", info.width() as i32),
        (c"prep:height", info.height() as i32),
        (c"prep:colorspace", colour.matrix),
        (c"prep:colorprim", colour.primaries),
        (c"prep:colortrc", colour.transfer),
        (c"prep:colorrange", range),
        (c"prep:rotation", rotation),
    ] {
        config.set(key, value)?;
    }

    let level = level.map(|level| level.mpp);
    match (choice.codec, choice.profile) {
        (Codec::H264, Some((_, profile))) => {
            let high = i32::from(profile == 100);
            config.set(c"h264:profile", profile)?;
            config.set(c"h264:level", level.unwrap_or(40))?;
            config.set(c"h264:cabac_en", i32::from(profile > 66))?;
            config.set_optional(c"h264:cabac_idc", 0);
            config.set(c"h264:trans8x8", high)?;
            config.set_optional(c"h264:vui_en", 1_u32);
        }
        (Codec::H265, Some((_, profile))) => {
            config.set_optional(c"h265:profile", profile);
            config.set_optional(c"h265:tier", 0);
            config.set(c"h265:level", level.unwrap_or(120))?;
            config.set_optional(c"h265:vui_en", 1_u32);
        }
        (Codec::Vp8, _) => {
            config.set_optional(c"vp8:disable_ivf", 1);
        }
        _ => {}
    }
    Ok(())
}

/// Where the planes are; changes make a keyframe.
pub(crate) fn set_layout(
    config: &mut EncoderConfig,
    format: &Format,
    compressed: bool,
    layout: &Layout,
) -> Result<(), Error> {
    config.set(c"prep:format", format.number(compressed))?;
    config.set(c"prep:hor_stride", layout.hor_stride as i32)?;
    config.set(c"prep:ver_stride", layout.ver_stride as i32)
}

/// The colour description, always complete: with some fields unspecified H.265 loses the range.
pub(crate) fn colour(info: &VideoInfo) -> Colour {
    let colorimetry = info.colorimetry();
    let full_range = colorimetry.range() == VideoColorRange::Range0_255;
    let by_size = || {
        // What decoders assume when nothing is said.
        if info.height() >= 720 { 1 } else { 6 }
    };
    Colour {
        // RGB is converted to limited range by the hardware.
        full_range: full_range && !info.is_rgb(),
        primaries: match colorimetry.primaries() {
            VideoColorPrimaries::Bt709 => 1,
            VideoColorPrimaries::Bt470m => 4,
            VideoColorPrimaries::Bt470bg => 5,
            VideoColorPrimaries::Smpte170m => 6,
            VideoColorPrimaries::Smpte240m => 7,
            VideoColorPrimaries::Film => 8,
            VideoColorPrimaries::Bt2020 => 9,
            _ => by_size(),
        },
        transfer: match colorimetry.transfer() {
            VideoTransferFunction::Bt709 => 1,
            VideoTransferFunction::Gamma22 => 4,
            VideoTransferFunction::Gamma28 => 5,
            VideoTransferFunction::Smpte240m => 7,
            VideoTransferFunction::Gamma10 => 8,
            VideoTransferFunction::Log100 => 9,
            VideoTransferFunction::Log316 => 10,
            VideoTransferFunction::Srgb => 13,
            VideoTransferFunction::Bt202012 => 15,
            _ => by_size(),
        },
        matrix: match colorimetry.matrix() {
            VideoColorMatrix::Bt709 => 1,
            VideoColorMatrix::Fcc => 4,
            VideoColorMatrix::Bt601 => 6,
            VideoColorMatrix::Smpte240m => 7,
            VideoColorMatrix::Bt2020 => 9,
            _ => by_size(),
        },
    }
}

/// Refuses sizes that the hardware would make garbage of.
pub(crate) fn check_size(
    info: &VideoInfo,
    format: &Format,
    compressed: bool,
    choice: &Choice,
) -> Result<(), gst::ErrorMessage> {
    let (width, height) = (info.width(), info.height());
    let (least_width, least_height) = choice.codec.least_size();
    if width < least_width || height < least_height {
        return Err(gst::error_msg!(
            gst::StreamError::Format,
            (
                "{width}x{height} is too small: {} needs at least {least_width}x{least_height}. Put videoscale in front",
                choice.codec.name()
            )
        ));
    }
    if width % 2 != 0 || height % 2 != 0 {
        return Err(gst::error_msg!(
            gst::StreamError::Format,
            ("{width}x{height}: width and height must be even. Put videoscale or videocrop in front")
        ));
    }
    if compressed && !choice.codec.reads_compressed() {
        return Err(gst::error_msg!(
            gst::StreamError::Format,
            (
                "{} cannot be made of compressed pixels (AFBC). Set arm-afbc=false on the decoder",
                choice.codec.name()
            )
        ));
    }
    if choice.codec == Codec::Jpeg && !format.jpeg {
        return Err(gst::error_msg!(
            gst::StreamError::Format,
            ("JPEG cannot be made of {}. Put videoconvert in front", format.gst.to_str())
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst_video::VideoFormat;

    const NO_WISH: Wish = Wish { active: true, bitrate: None, max_framerate: None };

    fn info() -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(VideoFormat::Nv12, 1280, 720).fps(gst::Fraction::new(30, 1)).build().unwrap()
    }

    #[test]
    fn rates_fit_together() {
        let mut settings = Settings::default();
        let rates = Rates::new(&settings, &NO_WISH, &info());
        assert_eq!(rates.target, 1280 * 720 * 30 / 8);
        assert_eq!((rates.max, rates.min), (rates.target / 16 * 17, rates.target / 16 * 15));

        settings.bitrate = 2_000_000;
        settings.peak_bitrate = 1_000_000;
        settings.min_bitrate = 3_000_000;
        let rates = Rates::new(&settings, &NO_WISH, &info());
        assert_eq!((rates.target, rates.max, rates.min), (2_000_000, 2_000_000, 2_000_000));

        // A wish lowers the rate and the peak, and never raises them.
        settings.peak_bitrate = 4_000_000;
        settings.min_bitrate = 0;
        let wish = |bitrate| Wish { bitrate: Some(bitrate), ..NO_WISH };
        let rates = Rates::new(&settings, &wish(500_000), &info());
        assert_eq!((rates.target, rates.max), (500_000, 531_250));
        assert_eq!(Rates::new(&settings, &wish(9_000_000), &info()).target, 2_000_000);
        assert_eq!(Rates::new(&settings, &wish(1), &info()).target, MIN_BITRATE);
    }

    #[test]
    fn what_is_out_of_range_is_told_with_the_range() {
        let clamped = |settings: &Settings, codec| clamped(settings, &info(), codec);
        assert!(clamped(&Settings::default(), Codec::H264).is_empty());
        let settings = Settings {
            bitrate: 2_000_000,
            peak_bitrate: 1_000_000,
            min_bitrate: 3_000_000,
            qp_min: 20,
            qp_max: 100,
            qp_init: 10,
            ..Settings::default()
        };
        assert_eq!(
            clamped(&settings, Codec::H264),
            [
                "peak-bitrate=1000000 bit/s is out of range (2000000 to 200000000): using 2000000",
                "min-bitrate=3000000 bit/s is out of range (1000 to 2000000): using 2000000",
                "qp-max=100 is out of range (20 to 51): using 51",
                "qp-init=10 is out of range (20 to 51): using 20",
            ]
        );
        // VP8's go further.
        assert_eq!(clamped(&settings, Codec::Vp8).len(), 3);
        assert_eq!(clamped(&settings, Codec::Jpeg).len(), 2);
        let settings = Settings { bitrate: 7, ..Settings::default() };
        assert_eq!(
            clamped(&settings, Codec::H264),
            ["bitrate=7 bit/s is out of range (1000 to 200000000): using 1000"]
        );
    }

    #[test]
    fn the_first_qp_lies_in_the_keyframes_range() {
        let mut settings = Settings::default();
        assert_eq!(qps(&settings, Codec::H264), [26, 10, 51, 10, 51]);
        assert_eq!(qps(&settings, Codec::Vp8), [40, 0, 127, 0, 127]);
        settings.qp_min = 30;
        settings.qp_max = 20;
        settings.qp_max_i = 100;
        assert_eq!(qps(&settings, Codec::H264), [30, 30, 30, 30, 51]);
    }

    #[test]
    fn gop_is_two_seconds_unless_set() {
        let mut settings = Settings::default();
        assert_eq!(gop(&settings, &info()), 60);
        settings.gop_size = 0;
        assert_eq!(gop(&settings, &info()), 0);
    }

    #[test]
    fn colour_is_always_complete() {
        gst::init().unwrap();
        let colour_of = |colorimetry: &str, height| {
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "NV12")
                .field("width", 640)
                .field("height", height)
                .field("framerate", gst::Fraction::new(30, 1))
                .field("colorimetry", colorimetry)
                .build();
            let colour = colour(&VideoInfo::from_caps(&caps).unwrap());
            (colour.full_range, colour.primaries, colour.transfer, colour.matrix)
        };
        assert_eq!(colour_of("bt709", 480), (false, 1, 1, 1));
        assert_eq!(colour_of("1:4:0:0", 480), (true, 6, 6, 6));
        assert_eq!(colour_of("2:0:0:0", 1080), (false, 1, 1, 1));
        assert_eq!(colour_of("2:6:11:7", 1080), (false, 9, 15, 9));
    }
}
