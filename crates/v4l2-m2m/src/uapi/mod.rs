// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of `linux/videodev2.h` that a stateful encoder needs.
//!
//! Layouts and numbers are facts of the kernel's interface. They follow the target (pointer size and `timeval`), are
//! asserted at compile time for 64-bit targets, and compared with the system's C headers by a test.

mod controls;
mod fourcc;
mod types;

use std::ffi::{c_int, c_ulong};
use std::mem::size_of;

pub use controls::*;
pub use fourcc::*;
pub use types::*;

const fn request(direction: u32, number: u32, size: usize) -> c_ulong {
    // asm-generic/ioctl.h: number, type ('V'), size, direction.
    ((direction << 30) | ((size as u32) << 16) | ((b'V' as u32) << 8) | number) as c_ulong
}

const fn read<T>(number: u32) -> c_ulong {
    request(2, number, size_of::<T>())
}

const fn write<T>(number: u32) -> c_ulong {
    request(1, number, size_of::<T>())
}

const fn read_write<T>(number: u32) -> c_ulong {
    request(3, number, size_of::<T>())
}

/// `VIDIOC_QUERYCAP`
pub const VIDIOC_QUERYCAP: c_ulong = read::<v4l2_capability>(0);
/// `VIDIOC_ENUM_FMT`
pub const VIDIOC_ENUM_FMT: c_ulong = read_write::<v4l2_fmtdesc>(2);
/// `VIDIOC_G_FMT`
pub const VIDIOC_G_FMT: c_ulong = read_write::<v4l2_format>(4);
/// `VIDIOC_S_FMT`
pub const VIDIOC_S_FMT: c_ulong = read_write::<v4l2_format>(5);
/// `VIDIOC_REQBUFS`
pub const VIDIOC_REQBUFS: c_ulong = read_write::<v4l2_requestbuffers>(8);
/// `VIDIOC_QUERYBUF`
pub const VIDIOC_QUERYBUF: c_ulong = read_write::<v4l2_buffer>(9);
/// `VIDIOC_QBUF`
pub const VIDIOC_QBUF: c_ulong = read_write::<v4l2_buffer>(15);
/// `VIDIOC_EXPBUF`
pub const VIDIOC_EXPBUF: c_ulong = read_write::<v4l2_exportbuffer>(16);
/// `VIDIOC_DQBUF`
pub const VIDIOC_DQBUF: c_ulong = read_write::<v4l2_buffer>(17);
/// `VIDIOC_STREAMON`
pub const VIDIOC_STREAMON: c_ulong = write::<c_int>(18);
/// `VIDIOC_STREAMOFF`
pub const VIDIOC_STREAMOFF: c_ulong = write::<c_int>(19);
/// `VIDIOC_S_PARM`
pub const VIDIOC_S_PARM: c_ulong = read_write::<v4l2_streamparm>(22);
/// `VIDIOC_G_CTRL`
pub const VIDIOC_G_CTRL: c_ulong = read_write::<v4l2_control>(27);
/// `VIDIOC_QUERYMENU`
pub const VIDIOC_QUERYMENU: c_ulong = read_write::<v4l2_querymenu>(37);
/// `VIDIOC_TRY_FMT`
pub const VIDIOC_TRY_FMT: c_ulong = read_write::<v4l2_format>(64);
/// `VIDIOC_G_EXT_CTRLS`
pub const VIDIOC_G_EXT_CTRLS: c_ulong = read_write::<v4l2_ext_controls>(71);
/// `VIDIOC_S_EXT_CTRLS`
pub const VIDIOC_S_EXT_CTRLS: c_ulong = read_write::<v4l2_ext_controls>(72);
/// `VIDIOC_ENUM_FRAMESIZES`
pub const VIDIOC_ENUM_FRAMESIZES: c_ulong = read_write::<v4l2_frmsizeenum>(74);
/// `VIDIOC_ENCODER_CMD`
pub const VIDIOC_ENCODER_CMD: c_ulong = read_write::<v4l2_encoder_cmd>(77);
/// `VIDIOC_TRY_ENCODER_CMD`
pub const VIDIOC_TRY_ENCODER_CMD: c_ulong = read_write::<v4l2_encoder_cmd>(78);
/// `VIDIOC_DQEVENT`
pub const VIDIOC_DQEVENT: c_ulong = read::<v4l2_event>(89);
/// `VIDIOC_SUBSCRIBE_EVENT`
pub const VIDIOC_SUBSCRIBE_EVENT: c_ulong = write::<v4l2_event_subscription>(90);
/// `VIDIOC_S_SELECTION`
pub const VIDIOC_S_SELECTION: c_ulong = read_write::<v4l2_selection>(95);
/// `VIDIOC_QUERY_EXT_CTRL`
pub const VIDIOC_QUERY_EXT_CTRL: c_ulong = read_write::<v4l2_query_ext_ctrl>(103);

/// `V4L2_CAP_VIDEO_M2M_MPLANE`
pub const V4L2_CAP_VIDEO_M2M_MPLANE: u32 = 0x4000;
/// `V4L2_CAP_VIDEO_M2M`
pub const V4L2_CAP_VIDEO_M2M: u32 = 0x8000;
/// `V4L2_CAP_STREAMING`
pub const V4L2_CAP_STREAMING: u32 = 0x0400_0000;
/// `V4L2_CAP_DEVICE_CAPS`
pub const V4L2_CAP_DEVICE_CAPS: u32 = 0x8000_0000;

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`
pub const V4L2_BUF_TYPE_VIDEO_CAPTURE: u32 = 1;
/// `V4L2_BUF_TYPE_VIDEO_OUTPUT`
pub const V4L2_BUF_TYPE_VIDEO_OUTPUT: u32 = 2;
/// `V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE`
pub const V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE: u32 = 9;
/// `V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE`
pub const V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE: u32 = 10;

/// `V4L2_MEMORY_MMAP`
pub const V4L2_MEMORY_MMAP: u32 = 1;
/// `V4L2_MEMORY_DMABUF`
pub const V4L2_MEMORY_DMABUF: u32 = 4;

/// `V4L2_FIELD_ANY`
pub const V4L2_FIELD_ANY: u32 = 0;
/// `V4L2_FIELD_NONE`: progressive.
pub const V4L2_FIELD_NONE: u32 = 1;

/// `V4L2_BUF_FLAG_KEYFRAME`
pub const V4L2_BUF_FLAG_KEYFRAME: u32 = 0x8;
/// `V4L2_BUF_FLAG_ERROR`
pub const V4L2_BUF_FLAG_ERROR: u32 = 0x40;
/// `V4L2_BUF_FLAG_TIMESTAMP_COPY`
pub const V4L2_BUF_FLAG_TIMESTAMP_COPY: u32 = 0x4000;
/// `V4L2_BUF_FLAG_LAST`
pub const V4L2_BUF_FLAG_LAST: u32 = 0x0010_0000;

/// `V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS`: buffers that are mapped do not keep a queue from being freed (Linux 5.0).
pub const V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS: u32 = 0x10;

/// `V4L2_FMT_FLAG_COMPRESSED`
pub const V4L2_FMT_FLAG_COMPRESSED: u32 = 1;

/// `V4L2_FRMSIZE_TYPE_DISCRETE`
pub const V4L2_FRMSIZE_TYPE_DISCRETE: u32 = 1;

/// `V4L2_ENC_CMD_START`
pub const V4L2_ENC_CMD_START: u32 = 0;
/// `V4L2_ENC_CMD_STOP`
pub const V4L2_ENC_CMD_STOP: u32 = 1;

/// `V4L2_EVENT_EOS`
pub const V4L2_EVENT_EOS: u32 = 2;

/// `V4L2_SEL_TGT_CROP`
pub const V4L2_SEL_TGT_CROP: u32 = 0;

/// `V4L2_COLORSPACE_SMPTE170M` (SD)
pub const V4L2_COLORSPACE_SMPTE170M: u32 = 1;
/// `V4L2_COLORSPACE_REC709`
pub const V4L2_COLORSPACE_REC709: u32 = 3;
/// `V4L2_COLORSPACE_BT2020`
pub const V4L2_COLORSPACE_BT2020: u32 = 10;
/// `V4L2_QUANTIZATION_FULL_RANGE`
pub const V4L2_QUANTIZATION_FULL_RANGE: u32 = 1;
/// `V4L2_QUANTIZATION_LIM_RANGE`
pub const V4L2_QUANTIZATION_LIM_RANGE: u32 = 2;
