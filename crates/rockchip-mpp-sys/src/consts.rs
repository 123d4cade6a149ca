// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values of the library's enums and macros, by their C names where they are unambiguous.
#![allow(missing_docs)] // The names are the documentation; each group has a heading.

// Return codes (`MPP_RET`).
pub const MPP_OK: i32 = 0;
pub const MPP_NOK: i32 = -1;
pub const MPP_ERR_UNKNOW: i32 = -2;
pub const MPP_ERR_NULL_PTR: i32 = -3;
pub const MPP_ERR_MALLOC: i32 = -4;
pub const MPP_ERR_VALUE: i32 = -6;
pub const MPP_ERR_TIMEOUT: i32 = -8;
pub const MPP_ERR_PERM: i32 = -9;
pub const MPP_ERR_LIST_STREAM: i32 = -1001;
pub const MPP_ERR_INIT: i32 = -1002;
pub const MPP_ERR_STREAM: i32 = -1004;
pub const MPP_ERR_NOMEM: i32 = -1006;
pub const MPP_EOS_STREAM_REACHED: i32 = -1011;
pub const MPP_ERR_BUFFER_FULL: i32 = -1012;
pub const MPP_ERR_DISPLAY_FULL: i32 = -1013;

// Direction of a context (`MppCtxType`).
pub const MPP_CTX_DEC: i32 = 0;
pub const MPP_CTX_ENC: i32 = 1;

// Codecs (`MppCodingType`).
/// Also MPEG-1.
pub const MPP_VIDEO_CODING_MPEG2: i32 = 2;
pub const MPP_VIDEO_CODING_H263: i32 = 3;
pub const MPP_VIDEO_CODING_MPEG4: i32 = 4;
pub const MPP_VIDEO_CODING_AVC: i32 = 7;
pub const MPP_VIDEO_CODING_MJPEG: i32 = 8;
pub const MPP_VIDEO_CODING_VP8: i32 = 9;
pub const MPP_VIDEO_CODING_VP9: i32 = 10;
pub const MPP_VIDEO_CODING_HEVC: i32 = 0x100_0004;
pub const MPP_VIDEO_CODING_AVSPLUS: i32 = 0x100_0005;
pub const MPP_VIDEO_CODING_AVS: i32 = 0x100_0006;
pub const MPP_VIDEO_CODING_AVS2: i32 = 0x100_0007;
pub const MPP_VIDEO_CODING_AV1: i32 = 0x100_0008;

// Time-outs (`MppPollType`); a positive value is milliseconds. The library reads four bytes although a header
// says eight: pass a little-endian i64.
pub const MPP_POLL_BLOCK: i64 = -1;
pub const MPP_POLL_NON_BLOCK: i64 = 0;
/// Longest time-out, ms.
pub const MPP_POLL_MAX: i64 = 8000;

// Ports.
pub const MPP_PORT_INPUT: i32 = 0;
pub const MPP_PORT_OUTPUT: i32 = 1;

// Memory (`MppBufferType`), with flags, and who allocates (`MppBufferMode`).
pub const MPP_BUFFER_TYPE_NORMAL: i32 = 0;
pub const MPP_BUFFER_TYPE_ION: i32 = 1;
pub const MPP_BUFFER_TYPE_EXT_DMA: i32 = 2;
pub const MPP_BUFFER_TYPE_DRM: i32 = 3;
pub const MPP_BUFFER_TYPE_DMA_HEAP: i32 = 4;
/// The type without flags.
pub const MPP_BUFFER_TYPE_MASK: i32 = 0xffff;
pub const MPP_BUFFER_FLAGS_CONTIG: i32 = 0x1_0000;
pub const MPP_BUFFER_FLAGS_CACHABLE: i32 = 0x2_0000;
pub const MPP_BUFFER_FLAGS_WC: i32 = 0x4_0000;
pub const MPP_BUFFER_FLAGS_SECURE: i32 = 0x8_0000;
pub const MPP_BUFFER_FLAGS_ALLOC_KMAP: i32 = 0x10_0000;
pub const MPP_BUFFER_FLAGS_DMA32: i32 = 0x20_0000;
pub const MPP_BUFFER_INTERNAL: i32 = 0;
pub const MPP_BUFFER_EXTERNAL: i32 = 1;

// Pixel formats (`MppFrameFormat`).
pub const MPP_FMT_YUV420SP: i32 = 0; // NV12
pub const MPP_FMT_YUV420SP_10BIT: i32 = 1; // NV15
pub const MPP_FMT_YUV422SP: i32 = 2; // NV16
pub const MPP_FMT_YUV422SP_10BIT: i32 = 3; // NV20
pub const MPP_FMT_YUV420P: i32 = 4; // I420
pub const MPP_FMT_YUV420SP_VU: i32 = 5; // NV21
pub const MPP_FMT_YUV422P: i32 = 6; // Y42B
pub const MPP_FMT_YUV422SP_VU: i32 = 7; // NV61
pub const MPP_FMT_YUV422_YUYV: i32 = 8;
pub const MPP_FMT_YUV422_YVYU: i32 = 9;
pub const MPP_FMT_YUV422_UYVY: i32 = 10;
pub const MPP_FMT_YUV422_VYUY: i32 = 11;
pub const MPP_FMT_YUV400: i32 = 12;
pub const MPP_FMT_YUV440SP: i32 = 13;
pub const MPP_FMT_YUV411SP: i32 = 14;
pub const MPP_FMT_YUV444SP: i32 = 15; // NV24
pub const MPP_FMT_YUV444P: i32 = 16;
pub const MPP_FMT_YUV444SP_10BIT: i32 = 17;
pub const MPP_FMT_RGB565: i32 = 0x1_0000;
pub const MPP_FMT_BGR565: i32 = 0x1_0001;
pub const MPP_FMT_RGB555: i32 = 0x1_0002;
pub const MPP_FMT_BGR555: i32 = 0x1_0003;
pub const MPP_FMT_RGB444: i32 = 0x1_0004;
pub const MPP_FMT_BGR444: i32 = 0x1_0005;
pub const MPP_FMT_RGB888: i32 = 0x1_0006;
pub const MPP_FMT_BGR888: i32 = 0x1_0007;
pub const MPP_FMT_RGB101010: i32 = 0x1_0008;
pub const MPP_FMT_BGR101010: i32 = 0x1_0009;
pub const MPP_FMT_ARGB8888: i32 = 0x1_000a;
pub const MPP_FMT_ABGR8888: i32 = 0x1_000b;
pub const MPP_FMT_BGRA8888: i32 = 0x1_000c;
pub const MPP_FMT_RGBA8888: i32 = 0x1_000d;
pub const MPP_FRAME_FMT_MASK: i32 = 0xf_ffff;
pub const MPP_FRAME_FBC_MASK: i32 = 0xf0_0000;
pub const MPP_FRAME_FBC_AFBC_V1: i32 = 0x10_0000;
pub const MPP_FRAME_FBC_AFBC_V2: i32 = 0x20_0000;
pub const MPP_FRAME_FBC_RKFBC: i32 = 0x40_0000;
pub const MPP_FRAME_FMT_LE_MASK: i32 = 0x100_0000;
pub const MPP_FRAME_TILE_FLAG: i32 = 0x200_0000;
pub const MPP_FRAME_HDR_MASK: i32 = 0xc00_0000;

// Colour. Primaries, transfer and matrix are the code points of H.26x; 2 is "unspecified".
pub const MPP_FRAME_RANGE_UNSPECIFIED: i32 = 0;
pub const MPP_FRAME_RANGE_MPEG: i32 = 1; // limited
pub const MPP_FRAME_RANGE_JPEG: i32 = 2; // full
pub const MPP_FRAME_COLOR_UNSPECIFIED: i32 = 2;

// Fields of a frame (`mpp_frame_get_mode`).
pub const MPP_FRAME_FLAG_TOP_FIELD: u32 = 1;
pub const MPP_FRAME_FLAG_BOT_FIELD: u32 = 2;
pub const MPP_FRAME_FLAG_TOP_FIRST: u32 = 4;
pub const MPP_FRAME_FLAG_BOT_FIRST: u32 = 8;
pub const MPP_FRAME_FLAG_FIELD_ORDER_MASK: u32 = 0xc;
pub const MPP_FRAME_FLAG_IEP_MASK: u32 = 0xf00;

// Errors of a frame (`mpp_frame_get_errinfo`).
pub const MPP_FRAME_ERR_UNKNOW: u32 = 1;
pub const MPP_FRAME_ERR_UNSUPPORT: u32 = 2;
pub const MPP_FRAME_ERR_DEC_INVALID: u32 = 0x10;
pub const MPP_FRAME_ERR_DEC_HW_ERR: u32 = 0x100;
pub const MPP_FRAME_ERR_DEC_MISS_REF: u32 = 0x200;

// Rate control (`rc:mode`).
pub const MPP_ENC_RC_MODE_VBR: i32 = 0;
pub const MPP_ENC_RC_MODE_CBR: i32 = 1;
pub const MPP_ENC_RC_MODE_FIXQP: i32 = 2;
pub const MPP_ENC_RC_MODE_AVBR: i32 = 3;
pub const MPP_ENC_RC_MODE_SMTRC: i32 = 4;
pub const MPP_ENC_RC_DROP_FRM_DISABLED: i32 = 0;
pub const MPP_ENC_RC_DROP_FRM_NORMAL: i32 = 1;
pub const MPP_ENC_RC_DROP_FRM_PSKIP: i32 = 2;
pub const MPP_ENC_RC_SUPER_FRM_NONE: i32 = 0;
pub const MPP_ENC_RC_SUPER_FRM_DROP: i32 = 1;
pub const MPP_ENC_RC_SUPER_FRM_REENC: i32 = 2;
pub const MPP_ENC_RC_INTRA_REFRESH_ROW: i32 = 0;
pub const MPP_ENC_RC_INTRA_REFRESH_COL: i32 = 1;

// Where parameter sets stand (`MPP_ENC_SET_HEADER_MODE`), SEI (`MPP_ENC_SET_SEI_CFG`), slices, rotation.
pub const MPP_ENC_HEADER_MODE_DEFAULT: i32 = 0;
pub const MPP_ENC_HEADER_MODE_EACH_IDR: i32 = 1;
pub const MPP_ENC_SEI_MODE_DISABLE: i32 = 0;
pub const MPP_ENC_SEI_MODE_ONE_SEQ: i32 = 1;
pub const MPP_ENC_SEI_MODE_ONE_FRAME: i32 = 2;
pub const MPP_ENC_SPLIT_NONE: u32 = 0;
pub const MPP_ENC_SPLIT_BY_BYTE: u32 = 1;
pub const MPP_ENC_SPLIT_BY_CTU: u32 = 2;
pub const MPP_ENC_SPLIT_OUT_LOWDELAY: u32 = 1;
pub const MPP_ENC_SPLIT_OUT_SEGMENT: u32 = 2;
pub const MPP_ENC_ROT_0: i32 = 0;
pub const MPP_ENC_ROT_90: i32 = 1;
pub const MPP_ENC_ROT_180: i32 = 2;
pub const MPP_ENC_ROT_270: i32 = 3;

// Commands of `MppApi::control` (`MpiCmd`).
pub const MPP_SET_INPUT_TIMEOUT: i32 = 0x20_0006;
pub const MPP_SET_OUTPUT_TIMEOUT: i32 = 0x20_0007;
pub const MPP_SET_DISABLE_THREAD: i32 = 0x20_0008;
pub const MPP_DEC_SET_FRAME_INFO: i32 = 0x31_0001;
pub const MPP_DEC_SET_EXT_BUF_GROUP: i32 = 0x31_0002;
pub const MPP_DEC_SET_INFO_CHANGE_READY: i32 = 0x31_0003;
pub const MPP_DEC_SET_PARSER_SPLIT_MODE: i32 = 0x31_0005;
pub const MPP_DEC_SET_PARSER_FAST_MODE: i32 = 0x31_0006;
pub const MPP_DEC_GET_STREAM_COUNT: i32 = 0x31_0007;
pub const MPP_DEC_SET_OUTPUT_FORMAT: i32 = 0x31_000a;
pub const MPP_DEC_SET_DISABLE_ERROR: i32 = 0x31_000b;
pub const MPP_DEC_SET_IMMEDIATE_OUT: i32 = 0x31_000c;
pub const MPP_DEC_SET_ENABLE_DEINTERLACE: i32 = 0x31_000d;
pub const MPP_DEC_SET_ENABLE_FAST_PLAY: i32 = 0x31_000e;
pub const MPP_DEC_QUERY: i32 = 0x31_0101;
pub const MPP_DEC_SET_CFG: i32 = 0x31_0201;
pub const MPP_DEC_GET_CFG: i32 = 0x31_0202;
pub const MPP_ENC_SET_CFG: i32 = 0x32_0001;
pub const MPP_ENC_GET_CFG: i32 = 0x32_0002;
pub const MPP_ENC_SET_IDR_FRAME: i32 = 0x32_0009;
pub const MPP_ENC_GET_HDR_SYNC: i32 = 0x32_000d;
pub const MPP_ENC_SET_SEI_CFG: i32 = 0x32_000f;
/// Not honoured by current hardware layers: put the regions into the frame's meta.
pub const MPP_ENC_SET_ROI_CFG: i32 = 0x32_0013;
pub const MPP_ENC_QUERY: i32 = 0x32_0101;
pub const MPP_ENC_SET_HEADER_MODE: i32 = 0x32_8001;
pub const MPP_ENC_GET_HEADER_MODE: i32 = 0x32_8002;
pub const MPP_ENC_SET_REF_CFG: i32 = 0x32_8201;
pub const MPP_ENC_SET_OSD_PLT_CFG: i32 = 0x32_8401;
pub const MPP_ENC_SET_OSD_DATA_CFG: i32 = 0x32_8403;
pub const MPP_ENC_SET_USERDATA: i32 = 0x32_8501;

/// A meta key: a FourCC, first character in the highest byte.
const fn key(name: &[u8; 4]) -> i32 {
    i32::from_be_bytes(*name)
}

// Meta keys (`MppMetaKey`). A get consumes the value.
pub const KEY_INPUT_FRAME: i32 = key(b"ifrm");
pub const KEY_INPUT_PACKET: i32 = key(b"ipkt");
pub const KEY_OUTPUT_FRAME: i32 = key(b"ofrm");
pub const KEY_OUTPUT_PACKET: i32 = key(b"opkt");
pub const KEY_MOTION_INFO: i32 = key(b"mvif");
pub const KEY_HDR_INFO: i32 = key(b"hdr ");
/// No effect before 1.0.12; use `MPP_ENC_SET_IDR_FRAME`.
pub const KEY_INPUT_IDR_REQ: i32 = key(b"iidr");
pub const KEY_OUTPUT_INTRA: i32 = key(b"oidr");
pub const KEY_TEMPORAL_ID: i32 = key(b"tlid");
pub const KEY_LONG_REF_IDX: i32 = key(b"ltid");
pub const KEY_ENC_AVERAGE_QP: i32 = key(b"avgq");
pub const KEY_ENC_START_QP: i32 = key(b"strq");
pub const KEY_ENC_BPS_RT: i32 = key(b"rtbr");
pub const KEY_ROI_DATA: i32 = key(b"roi ");
pub const KEY_ROI_DATA2: i32 = key(b"roi2");
pub const KEY_OSD_DATA: i32 = key(b"osd ");
pub const KEY_OSD_DATA2: i32 = key(b"osd2");
pub const KEY_USER_DATA: i32 = key(b"usrd");
pub const KEY_USER_DATAS: i32 = key(b"urds");
pub const KEY_QPMAP0: i32 = key(b"eqm0");
pub const KEY_ENC_MARK_LTR: i32 = key(b"mltr");
pub const KEY_ENC_USE_LTR: i32 = key(b"ultr");
pub const KEY_ENC_FRAME_QP: i32 = key(b"frmq");
pub const KEY_ENC_BASE_LAYER_PID: i32 = key(b"bpid");
pub const KEY_ENC_SSE: i32 = key(b"esse");

// Reference structures.
/// Each frame refers to the one before it that is a reference.
pub const REF_TO_PREV_REF_FRM: i32 = 0;

#[cfg(test)]
mod tests {
    #[test]
    fn meta_keys_are_big_endian_fourccs() {
        for (key, value) in [
            (super::KEY_INPUT_FRAME, 0x6966_726d),
            (super::KEY_INPUT_PACKET, 0x6970_6b74),
            (super::KEY_OUTPUT_FRAME, 0x6f66_726d),
            (super::KEY_OUTPUT_PACKET, 0x6f70_6b74),
            (super::KEY_INPUT_IDR_REQ, 0x6969_6472),
            (super::KEY_OUTPUT_INTRA, 0x6f69_6472),
            (super::KEY_TEMPORAL_ID, 0x746c_6964),
            (super::KEY_ENC_AVERAGE_QP, 0x6176_6771),
            (super::KEY_ROI_DATA, 0x726f_6920),
            (super::KEY_USER_DATAS, 0x7572_6473),
        ] {
            assert_eq!(key, value, "{key:#x}");
        }
    }
}
