// SPDX-License-Identifier: MIT OR Apache-2.0

//! The controls: numbers, kinds and times (reference §2.4, §2.5).

use v4l2_m2m::uapi;

/// What a control's union holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A 32-bit value.
    Value,
    /// A pointer to so many bytes, which NVIDIA's library reads without looking.
    Pointer(usize),
    /// A pointer to so many bytes that the library writes to.
    Poll,
}

/// When a control may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After S_FMT of both queues, before REQBUFS of either.
    Setup,
    /// After S_FMT of CAPTURE, before that of OUTPUT.
    BetweenFormats,
    /// After REQBUFS; for one OUTPUT buffer.
    PerFrame,
    /// As `Setup`, and at any time later.
    Runtime,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Number.
    pub id: u32,
    /// Name without the prefix.
    pub name: &'static str,
    /// What its union holds.
    pub kind: Kind,
    /// When it may be set.
    pub when: When,
}

/// NVIDIA's own controls count from here (`V4L2_CID_MPEG_BASE`).
pub const BASE: u32 = 0x0099_0900;

const fn own(n: u32, name: &'static str, kind: Kind, when: When) -> Control {
    Control { id: BASE + n, name, kind, when }
}

const fn kernel(id: u32, name: &'static str, when: When) -> Control {
    Control { id, name, kind: Kind::Value, when }
}

use Kind::{Pointer, Poll, Value};
use When::{BetweenFormats, PerFrame, Runtime, Setup};

/// Number of FORCE_IDR_FRAME.
pub const FORCE_IDR_FRAME: u32 = BASE + 567;
/// Number of SET_POLL_INTERRUPT.
pub const SET_POLL_INTERRUPT: u32 = BASE + 551;

/// Number of METADATA, which is read and never set.
pub const METADATA: u32 = BASE + 536;

/// All of them.
pub const CONTROLS: &[Control] = &[
    kernel(uapi::V4L2_CID_MPEG_VIDEO_BITRATE, "BITRATE", Runtime),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_BITRATE_PEAK, "BITRATE_PEAK", Runtime),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_BITRATE_MODE, "BITRATE_MODE", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, "FRAME_RC_ENABLE", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_GOP_SIZE, "GOP_SIZE", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_H264_PROFILE, "H264_PROFILE", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_H264_LEVEL, "H264_LEVEL", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, "H264_I_PERIOD", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_H264_ENTROPY_MODE, "H264_ENTROPY_MODE", Setup),
    kernel(uapi::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "FORCE_KEY_FRAME", Runtime),
    kernel(uapi::V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE, "MFC51_FORCE_FRAME_TYPE", Runtime),
    own(513, "H265_PROFILE", Value, Setup),
    own(514, "IDR_INTERVAL", Value, Setup),
    own(528, "TEMPORAL_TRADEOFF_LEVEL", Value, Setup),
    own(529, "SLICE_LENGTH_PARAM", Pointer(8), Setup),
    own(530, "ROI_PARAMS", Pointer(4), PerFrame),
    own(531, "VIRTUALBUFFER_SIZE", Pointer(4), Setup),
    own(532, "NUM_REFERENCE_FRAMES", Pointer(4), Setup),
    own(533, "SLICE_INTRAREFRESH_PARAM", Pointer(4), Setup),
    own(534, "NUM_BFRAMES", Value, Setup),
    own(535, "INSERT_SPS_PPS_AT_IDR", Value, Setup),
    own(537, "ENABLE_METADATA_MV", Value, Setup),
    own(539, "QP_RANGE", Pointer(24), Setup),
    own(540, "HW_PRESET_TYPE", Value, Setup),
    own(541, "INPUT_METADATA", Pointer(4), PerFrame),
    own(542, "ENABLE_EXTERNAL_RPS", Pointer(4), Setup),
    own(543, "ENABLE_EXTERNAL_RATE_CONTROL", Pointer(4), Setup),
    own(544, "ENABLE_ROI", Pointer(4), Setup),
    own(545, "ENABLE_RECONCRC", Pointer(4), Setup),
    own(546, "INSERT_VUI", Value, Setup),
    own(547, "INSERT_AUD", Value, Setup),
    own(548, "EXTENDED_COLORFORMAT", Value, Setup),
    own(550, "DEVICE_POLL", Poll, Runtime),
    own(551, "SET_POLL_INTERRUPT", Value, Runtime),
    own(552, "TWO_PASS_CBR", Value, Setup),
    own(554, "MAX_PERFORMANCE", Value, Setup),
    own(555, "ALLIFRAME_ENCODE", Value, Setup),
    own(561, "H265_LEVEL", Value, Setup),
    own(562, "SLICE_LEVEL_ENCODE", Value, Setup),
    own(563, "POC_TYPE", Value, Setup),
    own(566, "FORCE_INTRA_FRAME", Value, Runtime),
    own(567, "FORCE_IDR_FRAME", Value, Runtime),
    own(569, "AV1_HEADERS_WITH_FRAME", Value, BetweenFormats),
    own(570, "AV1_TILE_CONFIGURATION", Pointer(12), Setup),
    own(571, "AV1_ENABLE_SSIMRDO", Value, Setup),
    own(572, "AV1_DISABLE_CDF_UPDATE", Value, Setup),
    own(574, "INIT_FRAME_QP", Pointer(12), Setup),
    own(575, "ENABLE_LOSSLESS", Value, Setup),
];

/// The row of a number.
pub fn find(id: u32) -> Option<&'static Control> {
    CONTROLS.iter().find(|control| control.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_kinds_are_those_of_the_reference() {
        let pointers: Vec<u32> = CONTROLS
            .iter()
            .filter(|control| control.kind != Value)
            .map(|control| control.id - BASE)
            .collect();
        // §2.5, without METADATA (536) and MV (538), which are read, not set.
        assert_eq!(pointers, [529, 530, 531, 532, 533, 539, 541, 542, 543, 544, 545, 550, 570, 574]);
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for (index, control) in CONTROLS.iter().enumerate() {
            assert!(CONTROLS.iter().take(index).all(|c| c.id != control.id && c.name != control.name));
        }
    }

    #[test]
    fn what_may_change_while_streaming_is_what_the_reference_lists() {
        let runtime: Vec<&str> =
            CONTROLS.iter().filter(|control| control.when == Runtime).map(|control| control.name).collect();
        assert_eq!(
            runtime,
            [
                "BITRATE",
                "BITRATE_PEAK",
                "FORCE_KEY_FRAME",
                "MFC51_FORCE_FRAME_TYPE",
                "DEVICE_POLL",
                "SET_POLL_INTERRUPT",
                "FORCE_INTRA_FRAME",
                "FORCE_IDR_FRAME"
            ]
        );
    }
}
