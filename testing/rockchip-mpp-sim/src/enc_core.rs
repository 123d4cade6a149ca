// SPDX-License-Identifier: MIT OR Apache-2.0

//! One encoder's codec: what a configuration means, when a frame is an IDR frame, where parameter sets go.

use crate::cfg::Cfg;
use crate::frame::Frame;
use crate::options::{Release, options};
use rockchip_mpp_sys::consts::*;
use sim_codec::{
    Afbc, Codec, Colour, Encoder, EncoderConfig, HeaderPolicy, Picture, Profile, RateControl, RateMode,
    RawFormat, RawImage,
};
use std::sync::Arc;

/// The codec of an MppCodingType that this chip encodes.
pub const fn codec_of(coding: i32) -> Option<Codec> {
    Some(match coding {
        MPP_VIDEO_CODING_AVC => Codec::H264,
        MPP_VIDEO_CODING_HEVC => Codec::H265,
        MPP_VIDEO_CODING_VP8 => Codec::Vp8,
        MPP_VIDEO_CODING_MJPEG => Codec::Mjpeg,
        _ => return None,
    })
}

/// How the samples of an MppFrameFormat lie, if this codec's hardware reads it.
fn format_of(coding: i32, format: i64) -> Option<RawFormat> {
    let format = i32::try_from(format).ok()? & !MPP_FRAME_FMT_LE_MASK;
    if format & MPP_FRAME_FBC_MASK != 0 {
        let h26x = matches!(coding, MPP_VIDEO_CODING_AVC | MPP_VIDEO_CODING_HEVC);
        return match (format & MPP_FRAME_FBC_MASK, format & !MPP_FRAME_FBC_MASK) {
            (MPP_FRAME_FBC_AFBC_V2, MPP_FMT_YUV420SP) if h26x => Some(RawFormat::Nv12),
            (MPP_FRAME_FBC_AFBC_V2, MPP_FMT_YUV422SP) if h26x => Some(RawFormat::Nv16),
            _ => None,
        };
    }
    let everywhere = match format {
        MPP_FMT_YUV420SP => RawFormat::Nv12,
        MPP_FMT_YUV420P => RawFormat::I420,
        MPP_FMT_YUV422_YUYV => RawFormat::Yuyv,
        MPP_FMT_YUV422_UYVY => RawFormat::Uyvy,
        MPP_FMT_RGB888 => RawFormat::Rgb24,
        MPP_FMT_BGR888 => RawFormat::Bgr24,
        MPP_FMT_ARGB8888 => RawFormat::Argb,
        MPP_FMT_ABGR8888 => RawFormat::Abgr,
        MPP_FMT_BGRA8888 => RawFormat::Bgra,
        MPP_FMT_RGBA8888 => RawFormat::Rgba,
        _ if coding == MPP_VIDEO_CODING_MJPEG || coding == MPP_VIDEO_CODING_VP8 => return None,
        MPP_FMT_YUV420SP_VU => RawFormat::Nv21,
        MPP_FMT_YUV422SP => RawFormat::Nv16,
        MPP_FMT_YUV422SP_VU => RawFormat::Nv61,
        MPP_FMT_YUV422P => RawFormat::I422,
        MPP_FMT_YUV422_YVYU => RawFormat::Yvyu,
        MPP_FMT_YUV422_VYUY => RawFormat::Vyuy,
        MPP_FMT_YUV400 => RawFormat::Gray8,
        MPP_FMT_YUV444SP => RawFormat::Nv24,
        MPP_FMT_YUV444P => RawFormat::I444,
        _ => return None,
    };
    Some(everywhere)
}

/// Puts `new` over `old` and checks the result as the library does.
///
/// # Errors
/// The code that `control` returns; nothing changes then.
pub fn merge(coding: i32, release: Release, old: &Cfg, new: &Cfg) -> Result<Cfg, i32> {
    let mut cfg = old.clone();
    cfg.merge(new);
    let size = (cfg.get("prep:width"), cfg.get("prep:height"));
    if size != (0, 0) {
        let format = format_of(coding, cfg.get("prep:format")).ok_or(MPP_ERR_VALUE)?;
        let stride = usize::try_from(cfg.get("prep:hor_stride")).map_err(|_| MPP_ERR_VALUE)?;
        let even = size.0 % 2 == 0 && size.1 % 2 == 0;
        let width = usize::try_from(size.0).map_err(|_| MPP_ERR_VALUE)?;
        let fits = stride >= format.min_stride(width) && cfg.get("prep:ver_stride") >= size.1;
        if !even || !fits || !(16..=8192).contains(&size.0) || !(16..=8192).contains(&size.1) {
            return Err(MPP_ERR_VALUE);
        }
    }
    // Some VP8 encoders of the first release kept the size that they began with.
    if release == Release::V1_0_0 && coding == MPP_VIDEO_CODING_VP8 && old.get("prep:width") != 0 {
        for key in ["prep:width", "prep:height", "prep:hor_stride", "prep:ver_stride"] {
            cfg.put(key, old.get(key));
        }
    }
    if cfg.get("rc:mode") != i64::from(MPP_ENC_RC_MODE_FIXQP) {
        for key in ["rc:bps_target", "rc:bps_max", "rc:bps_min"] {
            if !(1000..=200_000_000).contains(&cfg.get(key)) {
                return Err(MPP_ERR_VALUE);
            }
        }
    }
    if !(0..=3).contains(&cfg.get("rc:max_reenc_times")) || cfg.get("rc:gop") < 0 {
        return Err(MPP_ERR_VALUE);
    }
    if cfg.get("rc:fps_out_num") <= 0 || cfg.get("rc:fps_out_denorm") <= 0 {
        return Err(MPP_ERR_VALUE);
    }
    if coding == MPP_VIDEO_CODING_MJPEG && !(1..=99).contains(&cfg.get("jpeg:q_factor")) {
        return Err(MPP_ERR_VALUE);
    }
    let (init, low, high) = (cfg.get("rc:qp_init"), cfg.get("rc:qp_min_i"), cfg.get("rc:qp_max_i"));
    if coding != MPP_VIDEO_CODING_MJPEG && init >= 0 && !(low..=high).contains(&init) {
        for key in ["rc:qp_init", "rc:qp_min", "rc:qp_max", "rc:qp_min_i", "rc:qp_max_i"] {
            cfg.put(key, old.get(key));
        }
    }
    Ok(cfg)
}

/// The picture of a buffer, as the encoder sees it: rotated and mirrored.
pub fn picture(coding: i32, cfg: &Cfg, frame: &Frame, data: &[u8]) -> Option<Picture> {
    let size = |key| usize::try_from(cfg.get(key)).unwrap_or(0);
    let format = format_of(coding, cfg.get("prep:format"))?;
    let (width, height) = (size("prep:width"), size("prep:height"));
    let picture = if cfg.get("prep:format") & i64::from(MPP_FRAME_FBC_MASK) == 0 {
        let (stride, rows) = (size("prep:hor_stride"), size("prep:ver_stride"));
        Picture::from_raw(&RawImage { format, width, height, stride, rows, data }).ok()?
    } else {
        // Where the headers are and where the picture begins, only the frame says.
        let offset = (usize::try_from(frame.offset_x).ok()?, usize::try_from(frame.offset_y).ok()?);
        let afbc = Afbc {
            stride: usize::try_from(frame.fbc_hdr_stride).ok()?,
            rows: (offset.1 + height).div_ceil(16) * 16,
            chroma: format.chroma(),
            depth: format.depth(),
            offset,
        };
        afbc.read((width, height), data).ok()?
    };
    let turned = u8::try_from(cfg.get("prep:rotation") & 3).unwrap_or(0);
    let picture = if turned > 0 { picture.rotated(turned) } else { picture };
    Some(picture.mirrored(cfg.get("prep:mirroring") != 0, cfg.get("prep:flip") != 0))
}

fn config(codec: Codec, cfg: &Cfg, instant: bool) -> EncoderConfig {
    let size = |key| usize::try_from(cfg.get(key)).unwrap_or(0);
    let byte = |key| u8::try_from(cfg.get(key)).unwrap_or(0);
    let (mut width, mut height) = (size("prep:width"), size("prep:height"));
    if cfg.get("prep:rotation") & 1 == 1 {
        std::mem::swap(&mut width, &mut height);
    }
    // VP8's quantisers are 0–127 here and 0–63 there.
    let qp = |key| if codec == Codec::Vp8 { byte(key) / 2 } else { byte(key) };
    let mode = match i32::try_from(cfg.get("rc:mode")) {
        Ok(MPP_ENC_RC_MODE_CBR) => RateMode::Constant,
        Ok(MPP_ENC_RC_MODE_FIXQP) => RateMode::FixedQp,
        _ => RateMode::Variable,
    };
    let limit = |key| if qp(key) == 0 { codec.qp_range().1 } else { qp(key) };
    let rate = if codec == Codec::Mjpeg && mode == RateMode::FixedQp {
        RateControl::jpeg_quality(byte("jpeg:q_factor"))
    } else if codec == Codec::Mjpeg {
        RateControl { mode, ..RateControl::new(codec, cfg.u32("rc:bps_target")) }
    } else {
        RateControl {
            mode,
            bitrate: cfg.u32("rc:bps_target"),
            qp_init: qp("rc:qp_init"),
            qp_min: qp("rc:qp_min"),
            qp_max: limit("rc:qp_max"),
            qp_min_key: qp("rc:qp_min_i"),
            qp_max_key: limit("rc:qp_max_i"),
        }
    };
    let level = match codec {
        Codec::H264 => cfg.u32("h264:level"),
        Codec::H265 => cfg.u32("h265:level") / 3,
        _ => 0,
    };
    EncoderConfig {
        framerate: (cfg.u32("rc:fps_out_num").max(1), cfg.u32("rc:fps_out_denorm").max(1)),
        rate,
        gop: cfg.u32("rc:gop"),
        headers: HeaderPolicy::Never,
        profile: match cfg.get("h264:profile") {
            66 => Profile::Baseline,
            77 => Profile::Main,
            _ => Profile::High,
        },
        level,
        colour: Colour {
            range: byte("prep:colorrange"),
            primaries: byte("prep:colorprim"),
            transfer: byte("prep:colortrc"),
            matrix: byte("prep:colorspace"),
        },
        instant,
        ..EncoderConfig::new(codec, width, height)
    }
}

/// What a task gave.
pub struct Output {
    pub data: Vec<u8>,
    pub key: bool,
    pub qp: u8,
    /// Frames since the last IDR frame.
    pub since_idr: u64,
}

/// An encoder's codec.
pub struct Core {
    codec: Codec,
    encoder: Option<Encoder>,
    cfg: Cfg,
    instant: bool,
    /// What stands for all pictures of an instant encoder.
    blank: Option<Arc<Picture>>,
    /// Parameter sets go in front of the next frame, whatever it is.
    headers_due: bool,
    /// The application has fetched them: the next IDR frame goes without.
    fetched: bool,
    since_idr: u64,
}

impl Core {
    pub fn new(codec: Codec) -> Self {
        let instant = options().instant;
        Self {
            codec,
            encoder: None,
            cfg: Cfg::default(),
            instant,
            blank: None,
            headers_due: true,
            fetched: false,
            since_idr: 0,
        }
    }

    /// Opens the codec, or takes over a new configuration; tells whether it makes the next frame an IDR frame.
    fn update(&mut self, cfg: &Cfg) -> Option<bool> {
        let wanted = config(self.codec, cfg, self.instant);
        let Some(encoder) = &mut self.encoder else {
            self.encoder = Some(Encoder::new(wanted).ok()?);
            self.cfg = cfg.clone();
            return Some(true);
        };
        if self.cfg == *cfg {
            return Some(false);
        }
        let differs = |keys: &[&str]| keys.iter().any(|k| self.cfg.get(k) != cfg.get(k));
        let rates = differs(&["rc:fps_out_num", "rc:fps_out_denorm", "rc:fps_out_flex"]);
        let others = differs(&[
            "rc:gop",
            "rc:mode",
            "prep:width",
            "prep:height",
            "prep:hor_stride",
            "prep:ver_stride",
            "prep:format",
            "prep:rotation",
            "prep:mirroring",
            "prep:flip",
            "prep:colorspace",
            "prep:colorprim",
            "prep:colortrc",
            "prep:colorrange",
            "h264:profile",
            "h264:level",
            "h265:level",
        ]);
        encoder.reconfigure(wanted).ok()?;
        self.headers_due |= rates || others;
        let idr = others || rates && cfg.get("rc:fps_chg_no_idr") == 0;
        self.cfg = cfg.clone();
        Some(idr)
    }

    /// Of an instant encoder: a picture of the size that it makes. It does not read the application's.
    pub fn instant_picture(&mut self, cfg: &Cfg) -> Option<Arc<Picture>> {
        if !self.instant {
            return None;
        }
        let wanted = config(self.codec, cfg, true);
        let fits = |blank: &&Arc<Picture>| (blank.width, blank.height) == (wanted.width, wanted.height);
        if let Some(blank) = self.blank.as_ref().filter(fits) {
            return Some(blank.clone());
        }
        let blank = Arc::new(Picture::grey(wanted.width, wanted.height));
        self.blank = Some(blank.clone());
        Some(blank)
    }

    /// The parameter sets, for `MPP_ENC_GET_HDR_SYNC`.
    pub fn headers(&mut self, cfg: &Cfg) -> Option<Vec<u8>> {
        self.update(cfg)?;
        self.fetched = true;
        self.encoder.as_ref().map(|e| e.headers().to_vec())
    }

    /// Encodes a picture.
    pub fn encode(&mut self, cfg: &Cfg, picture: &Picture, idr: bool, each_idr: bool) -> Option<Output> {
        let changed = self.update(cfg)?;
        let coded = self.encoder.as_mut()?.encode(picture, 0, idr || changed).ok()?.pop()?;
        let wanted = self.headers_due || each_idr && coded.key;
        let mut data = Vec::new();
        if wanted && !(self.fetched && coded.key) {
            data.extend_from_slice(self.encoder.as_ref().map_or(&[], |e| e.headers()));
        }
        self.headers_due = false;
        if coded.key {
            self.fetched = false;
        }
        data.extend_from_slice(&coded.data);
        self.since_idr = if coded.key { 0 } else { self.since_idr + 1 };
        let qp = if self.codec == Codec::Vp8 { coded.qp * 2 } else { coded.qp };
        Some(Output { data, key: coded.key, qp, since_idr: self.since_idr })
    }
}
