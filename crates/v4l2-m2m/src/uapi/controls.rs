// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control numbers (`linux/v4l2-controls.h`).

/// `V4L2_CTRL_CLASS_CODEC`
pub const V4L2_CTRL_CLASS_CODEC: u32 = 0x0099_0000;

macro_rules! controls {
    ($($name:ident $value:literal $doc:literal)*) => {$(
        #[doc = $doc]
        pub const $name: u32 = $value;
    )*};
}

controls! {
    V4L2_CID_MIN_BUFFERS_FOR_OUTPUT 0x0098_0928 "Fewest OUTPUT buffers"
    V4L2_CID_MPEG_VIDEO_B_FRAMES 0x0099_09ca "B-frames between P-frames"
    V4L2_CID_MPEG_VIDEO_GOP_SIZE 0x0099_09cb "Frames from one keyframe to the next"
    V4L2_CID_MPEG_VIDEO_BITRATE_MODE 0x0099_09ce "0 VBR, 1 CBR, 2 constant quality"
    V4L2_CID_MPEG_VIDEO_BITRATE 0x0099_09cf "bit/s"
    V4L2_CID_MPEG_VIDEO_BITRATE_PEAK 0x0099_09d0 "bit/s, VBR only"
    V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE 0x0099_09d7 "Rate control on frames"
    V4L2_CID_MPEG_VIDEO_HEADER_MODE 0x0099_09d8 "0 separate buffer, 1 joined with the first frame"
    V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE 0x0099_09dd "0 one slice, 1 by macroblocks, 2 by bytes"
    V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MAX_BYTES 0x0099_09db "Most bytes of a slice"
    V4L2_CID_MPEG_VIDEO_VBV_SIZE 0x0099_09de "KiB"
    V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER 0x0099_09e2 "Parameter sets with each keyframe"
    V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME 0x0099_09e5 "A button: the next frame becomes a keyframe"
    V4L2_CID_MPEG_VIDEO_AU_DELIMITER 0x0099_09e7 "Access unit delimiters"
    V4L2_CID_MPEG_VIDEO_INTRA_REFRESH_PERIOD 0x0099_09ec "Frames for a whole refresh; 0 = off"
    V4L2_CID_FWHT_I_FRAME_QP 0x0099_0a22 "FWHT: quantiser of keyframes"
    V4L2_CID_FWHT_P_FRAME_QP 0x0099_0a23 "FWHT: quantiser of other frames"
    V4L2_CID_MPEG_VIDEO_H264_I_FRAME_QP 0x0099_0a5e "H.264: quantiser of keyframes"
    V4L2_CID_MPEG_VIDEO_H264_P_FRAME_QP 0x0099_0a5f "H.264: quantiser of P-frames"
    V4L2_CID_MPEG_VIDEO_H264_MIN_QP 0x0099_0a61 "H.264: least quantiser"
    V4L2_CID_MPEG_VIDEO_H264_MAX_QP 0x0099_0a62 "H.264: greatest quantiser"
    V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE 0x0099_0a64 "H.264: coded picture buffer, KiB"
    V4L2_CID_MPEG_VIDEO_H264_ENTROPY_MODE 0x0099_0a65 "0 CAVLC, 1 CABAC"
    V4L2_CID_MPEG_VIDEO_H264_I_PERIOD 0x0099_0a66 "Frames from one I-frame to the next"
    V4L2_CID_MPEG_VIDEO_H264_LEVEL 0x0099_0a67 "H.264 level, a menu"
    V4L2_CID_MPEG_VIDEO_H264_PROFILE 0x0099_0a6b "H.264 profile, a menu"
    V4L2_CID_MPEG_VIDEO_VPX_MIN_QP 0x0099_0afb "VP8: least quantiser"
    V4L2_CID_MPEG_VIDEO_VPX_MAX_QP 0x0099_0afc "VP8: greatest quantiser"
    V4L2_CID_MPEG_VIDEO_HEVC_MIN_QP 0x0099_0b58 "H.265: least quantiser"
    V4L2_CID_MPEG_VIDEO_HEVC_MAX_QP 0x0099_0b59 "H.265: greatest quantiser"
    V4L2_CID_MPEG_VIDEO_HEVC_PROFILE 0x0099_0b67 "H.265 profile, a menu"
    V4L2_CID_MPEG_VIDEO_HEVC_LEVEL 0x0099_0b68 "H.265 level, a menu"
    V4L2_CID_MPEG_VIDEO_HEVC_TIER 0x0099_0b6a "0 main, 1 high"
    V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD 0x0099_0b70 "I-frames from one IDR to the next"
    V4L2_CID_MPEG_VIDEO_PREPEND_SPSPPS_TO_IDR 0x0099_0b84 "Parameter sets with each IDR"
    V4L2_CID_MPEG_VIDEO_CONSTANT_QUALITY 0x0099_0b85 "1 to 100, constant quality mode"
    V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE 0x0099_1103 "0 none, 1 I-frame (Samsung's numbering)"
}

/// `V4L2_CTRL_FLAG_DISABLED`
pub const V4L2_CTRL_FLAG_DISABLED: u32 = 0x1;
/// `V4L2_CTRL_FLAG_READ_ONLY`
pub const V4L2_CTRL_FLAG_READ_ONLY: u32 = 0x4;
/// `V4L2_CTRL_FLAG_INACTIVE`
pub const V4L2_CTRL_FLAG_INACTIVE: u32 = 0x10;
/// `V4L2_CTRL_FLAG_NEXT_CTRL`
pub const V4L2_CTRL_FLAG_NEXT_CTRL: u32 = 0x8000_0000;
/// `V4L2_CTRL_TYPE_MENU`
pub const V4L2_CTRL_TYPE_MENU: u32 = 3;
/// `V4L2_CTRL_TYPE_BUTTON`
pub const V4L2_CTRL_TYPE_BUTTON: u32 = 4;
/// `V4L2_CTRL_TYPE_INTEGER64`
pub const V4L2_CTRL_TYPE_INTEGER64: u32 = 5;
