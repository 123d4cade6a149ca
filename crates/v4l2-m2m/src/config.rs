// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an encoder is asked for.

use crate::codec::Codec;
use crate::ioctl::{Colorimetry, Memory};
use crate::picture::RawFormat;

/// How bits are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RateControl {
    /// Constant bitrate.
    #[default]
    Cbr,
    /// Variable bitrate below a peak.
    Vbr,
    /// Constant quality.
    Cq,
    /// No rate control: fixed quantisers.
    FixQp,
}

/// What only NVIDIA's library has. The defaults are those for low latency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvidia {
    /// 1 ultrafast, 2 fast, 3 medium, 4 slow.
    pub preset: u32,
    /// Highest clocks.
    pub max_performance: bool,
    /// H.264: order of pictures; 2 says that none is reordered, so that decoders need not wait.
    pub poc_type: u32,
    /// Video usability information in the parameter sets.
    pub insert_vui: bool,
    /// Reference frames; 0: the library's choice.
    pub references: u32,
    /// Two passes for each frame with constant bitrate.
    pub two_pass: bool,
    /// AV1: binary logarithms of the rows and columns of tiles.
    pub tiles: (u32, u32),
}

impl Default for Nvidia {
    fn default() -> Self {
        Self {
            preset: 1,
            max_performance: true,
            poc_type: 2,
            insert_vui: false,
            references: 1,
            two_pass: false,
            tiles: (0, 0),
        }
    }
}

/// As a GOP size: only the first frame is a keyframe, or as few as the device lets.
pub const ENDLESS_GOP: u32 = i32::MAX as u32;

/// What an encoder is asked for. The device's own value holds wherever there is a `None` or 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Coded format.
    pub codec: Codec,
    /// Raw format.
    pub format: RawFormat,
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Frames per second, as a fraction.
    pub rate: (u32, u32),
    /// Colour of the raw pictures.
    pub colorimetry: Colorimetry,
    /// bit/s
    pub bitrate: u32,
    /// bit/s, for [`RateControl::Vbr`]; 0: 1.5 times the bitrate.
    pub peak_bitrate: u32,
    /// How bits are distributed.
    pub rate_control: RateControl,
    /// 1 to 100, for [`RateControl::Cq`].
    pub quality: u32,
    /// Frames from one I-frame to the next; 0: two seconds.
    pub gop_size: u32,
    /// Frames from one keyframe (IDR) to the next, if not each I-frame is one; 0: each is.
    pub idr_interval: u32,
    /// Least quantiser.
    pub qp_min: Option<u32>,
    /// Greatest quantiser.
    pub qp_max: Option<u32>,
    /// Least quantiser of keyframes, where it can differ.
    pub qp_min_key: Option<u32>,
    /// Greatest quantiser of keyframes, where it can differ.
    pub qp_max_key: Option<u32>,
    /// Quantiser of the first frame, and of all with [`RateControl::FixQp`], where it can be set.
    pub qp_init: Option<u32>,
    /// B-frames between P-frames.
    pub b_frames: u32,
    /// Coded picture buffer, bits; 0: by `low_latency`.
    pub vbv_size: u32,
    /// A small coded picture buffer, so that no picture takes long to send; else one of a second.
    pub low_latency: bool,
    /// Frames of a whole intra refresh; 0: off.
    pub intra_refresh: u32,
    /// Parameter sets with every keyframe.
    pub repeat_headers: bool,
    /// Access unit delimiters.
    pub au_delimiter: bool,
    /// Most bytes of a slice; 0: one slice a frame.
    pub slice_size: u32,
    /// Slices come out one by one, before their picture is coded whole, where the device can.
    pub slices_apart: bool,
    /// Profiles that may be used, as in GStreamer's caps, the most wanted first; empty: any.
    pub profiles: Vec<String>,
    /// Level, as in GStreamer's caps; `None`: the least that fits.
    pub level: Option<String>,
    /// Raw pictures in the device at once.
    pub inputs: u32,
    /// Buffers that a producer may have at once, to fill them (see [`crate::loan`]); with [`Memory::Mmap`] only. There is one
    /// more of the device's own then, for copies.
    pub loans: u32,
    /// Coded buffers.
    pub outputs: u32,
    /// Whose memory raw pictures have.
    pub memory: Memory,
    /// Bytes of a line of the first plane, when the memory is somebody else's.
    pub stride: Option<u32>,
    /// Any controls, by `v4l2-ctl`'s name or by number (decimal or 0x…).
    pub extra_controls: Vec<(String, i64)>,
    /// What only NVIDIA's library has.
    pub nvidia: Nvidia,
}

impl Config {
    /// With defaults for low latency.
    #[must_use]
    pub fn new(codec: Codec, format: RawFormat, width: u32, height: u32) -> Self {
        Self {
            codec,
            format,
            width,
            height,
            rate: (30, 1),
            colorimetry: Colorimetry::default(),
            bitrate: 2_000_000,
            peak_bitrate: 0,
            rate_control: RateControl::default(),
            quality: 50,
            gop_size: 0,
            idr_interval: 0,
            qp_min: None,
            qp_max: None,
            qp_min_key: None,
            qp_max_key: None,
            qp_init: None,
            b_frames: 0,
            vbv_size: 0,
            low_latency: true,
            intra_refresh: 0,
            repeat_headers: true,
            au_delimiter: false,
            slice_size: 0,
            slices_apart: false,
            profiles: Vec::new(),
            level: None,
            inputs: 4,
            loans: 0,
            outputs: 4,
            memory: Memory::Mmap,
            stride: None,
            extra_controls: Vec::new(),
            nvidia: Nvidia::default(),
        }
    }

    pub(crate) fn peak(&self) -> u32 {
        match (self.rate_control, self.peak_bitrate) {
            (RateControl::Vbr, 0) => self.bitrate.saturating_add(self.bitrate / 2),
            (RateControl::Vbr, peak) => peak.max(self.bitrate),
            _ => self.bitrate,
        }
    }

    pub(crate) fn gop(&self) -> u32 {
        if self.gop_size != 0 {
            return self.gop_size;
        }
        (self.rate.0.saturating_mul(2) / self.rate.1.max(1)).max(1)
    }

    /// Frames from one keyframe to the next: so many that the I-frames before the next one come out even.
    pub(crate) fn idr(&self) -> u32 {
        let gop = self.gop();
        self.idr_interval.checked_next_multiple_of(gop).unwrap_or(gop).max(gop)
    }

    /// Microseconds of a frame, at least 1.
    pub(crate) fn frame_time(&self) -> u64 {
        (u64::from(self.rate.1) * 1_000_000 / u64::from(self.rate.0.max(1))).max(1)
    }
}
