// SPDX-License-Identifier: MIT OR Apache-2.0

//! Structures, with the kernel's names and field names (`type_` for `type`).
#![allow(non_camel_case_types)]
#![allow(missing_docs)] // The kernel's documentation is the reference for each field.

use std::ffi::c_ulong;
use std::mem::size_of;

/// Most planes of a buffer.
pub const VIDEO_MAX_PLANES: usize = 8;

macro_rules! zeroed {
    ($($name:ident)*) => {$(
        impl Default for $name {
            fn default() -> Self {
                // SAFETY: the structure consists of integers, arrays and unions of them, and pointers held as
                // integers or raw pointers; all bits zero is a value of each.
                unsafe { std::mem::zeroed() }
            }
        }
    )*};
}

zeroed! {
    v4l2_capability v4l2_fmtdesc v4l2_format v4l2_requestbuffers v4l2_plane v4l2_buffer v4l2_exportbuffer
    v4l2_streamparm v4l2_control v4l2_querymenu v4l2_ext_control v4l2_ext_controls v4l2_query_ext_ctrl
    v4l2_frmsizeenum v4l2_encoder_cmd v4l2_event v4l2_event_subscription v4l2_selection v4l2_pix_format
    v4l2_pix_format_mplane
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_capability {
    pub driver: [u8; 16],
    pub card: [u8; 32],
    pub bus_info: [u8; 32],
    pub version: u32,
    pub capabilities: u32,
    pub device_caps: u32,
    pub reserved: [u32; 3],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_fmtdesc {
    pub index: u32,
    pub type_: u32,
    pub flags: u32,
    pub description: [u8; 32],
    pub pixelformat: u32,
    pub mbus_code: u32,
    pub reserved: [u32; 3],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_pix_format {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub field: u32,
    pub bytesperline: u32,
    pub sizeimage: u32,
    pub colorspace: u32,
    pub priv_: u32,
    pub flags: u32,
    pub ycbcr_enc: u32,
    pub quantization: u32,
    pub xfer_func: u32,
}

/// Tells the kernel that the fields after `priv` are filled in (`V4L2_PIX_FMT_PRIV_MAGIC`).
pub const V4L2_PIX_FMT_PRIV_MAGIC: u32 = 0xfeed_cafe;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_plane_pix_format {
    pub sizeimage: u32,
    pub bytesperline: u32,
    pub reserved: [u16; 6],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_pix_format_mplane {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub field: u32,
    pub colorspace: u32,
    pub plane_fmt: [v4l2_plane_pix_format; VIDEO_MAX_PLANES],
    pub num_planes: u8,
    pub flags: u8,
    pub ycbcr_enc: u8,
    pub quantization: u8,
    pub xfer_func: u8,
    pub reserved: [u8; 7],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union v4l2_format_union {
    pub pix: v4l2_pix_format,
    pub pix_mp: v4l2_pix_format_mplane,
    pub raw_data: [u8; 200],
    /// The kernel's union has a member with pointers.
    pub align: [c_ulong; 2],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_format {
    pub type_: u32,
    pub fmt: v4l2_format_union,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_requestbuffers {
    pub count: u32,
    pub type_: u32,
    pub memory: u32,
    pub capabilities: u32,
    pub flags: u8,
    pub reserved: [u8; 3],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union v4l2_plane_union {
    pub mem_offset: u32,
    pub userptr: c_ulong,
    pub fd: i32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_plane {
    pub bytesused: u32,
    pub length: u32,
    pub m: v4l2_plane_union,
    pub data_offset: u32,
    pub reserved: [u32; 11],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_timecode {
    pub type_: u32,
    pub flags: u32,
    pub frames: u8,
    pub seconds: u8,
    pub minutes: u8,
    pub hours: u8,
    pub userbits: [u8; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union v4l2_buffer_union {
    pub offset: u32,
    pub userptr: c_ulong,
    pub planes: *mut v4l2_plane,
    pub fd: i32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_buffer {
    pub index: u32,
    pub type_: u32,
    pub bytesused: u32,
    pub flags: u32,
    pub field: u32,
    pub timestamp: libc::timeval,
    pub timecode: v4l2_timecode,
    pub sequence: u32,
    pub memory: u32,
    pub m: v4l2_buffer_union,
    pub length: u32,
    pub reserved2: u32,
    pub request_fd: i32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_exportbuffer {
    pub type_: u32,
    pub index: u32,
    pub plane: u32,
    pub flags: u32,
    pub fd: i32,
    pub reserved: [u32; 11],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct v4l2_fract {
    pub numerator: u32,
    pub denominator: u32,
}

/// `v4l2_outputparm`; `v4l2_captureparm` has the same layout up to `timeperframe`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_outputparm {
    pub capability: u32,
    pub outputmode: u32,
    pub timeperframe: v4l2_fract,
    pub extendedmode: u32,
    pub writebuffers: u32,
    pub reserved: [u32; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union v4l2_streamparm_union {
    pub output: v4l2_outputparm,
    pub raw_data: [u8; 200],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_streamparm {
    pub type_: u32,
    pub parm: v4l2_streamparm_union,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_control {
    pub id: u32,
    pub value: i32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub struct v4l2_querymenu {
    pub id: u32,
    pub index: u32,
    pub name: [u8; 32],
    pub reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C, packed)]
pub union v4l2_ext_control_union {
    pub value: i32,
    pub value64: i64,
    pub ptr: *mut std::ffi::c_void,
}

#[derive(Clone, Copy)]
#[repr(C, packed)]
pub struct v4l2_ext_control {
    pub id: u32,
    pub size: u32,
    pub reserved2: [u32; 1],
    pub value: v4l2_ext_control_union,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_ext_controls {
    pub which: u32,
    pub count: u32,
    pub error_idx: u32,
    pub request_fd: i32,
    pub reserved: [u32; 1],
    pub controls: *mut v4l2_ext_control,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_query_ext_ctrl {
    pub id: u32,
    pub type_: u32,
    pub name: [u8; 32],
    pub minimum: i64,
    pub maximum: i64,
    pub step: u64,
    pub default_value: i64,
    pub flags: u32,
    pub elem_size: u32,
    pub elems: u32,
    pub nr_of_dims: u32,
    pub dims: [u32; 4],
    pub reserved: [u32; 32],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct v4l2_frmsize_stepwise {
    pub min_width: u32,
    pub max_width: u32,
    pub step_width: u32,
    pub min_height: u32,
    pub max_height: u32,
    pub step_height: u32,
}

/// `discrete` sizes use the first two fields of `stepwise`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_frmsizeenum {
    pub index: u32,
    pub pixel_format: u32,
    pub type_: u32,
    pub stepwise: v4l2_frmsize_stepwise,
    pub reserved: [u32; 2],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_encoder_cmd {
    pub cmd: u32,
    pub flags: u32,
    pub raw: [u32; 8],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_event_subscription {
    pub type_: u32,
    pub id: u32,
    pub flags: u32,
    pub reserved: [u32; 5],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union v4l2_event_union {
    pub data: [u8; 64],
    /// The kernel's union has a member with a 64-bit value.
    pub align: [u64; 8],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct v4l2_event {
    pub type_: u32,
    pub u: v4l2_event_union,
    pub pending: u32,
    pub sequence: u32,
    pub timestamp: libc::timespec,
    pub id: u32,
    pub reserved: [u32; 8],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct v4l2_rect {
    pub left: i32,
    pub top: i32,
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct v4l2_selection {
    pub type_: u32,
    pub target: u32,
    pub flags: u32,
    pub r: v4l2_rect,
    pub reserved: [u32; 9],
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<v4l2_capability>() == 104);
    assert!(size_of::<v4l2_fmtdesc>() == 64);
    assert!(size_of::<v4l2_pix_format>() == 48);
    assert!(size_of::<v4l2_pix_format_mplane>() == 192);
    assert!(size_of::<v4l2_format>() == 208);
    assert!(size_of::<v4l2_requestbuffers>() == 20);
    assert!(size_of::<v4l2_plane>() == 64);
    assert!(size_of::<v4l2_buffer>() == 88);
    assert!(size_of::<v4l2_exportbuffer>() == 64);
    assert!(size_of::<v4l2_ext_controls>() == 32);
    assert!(size_of::<v4l2_event>() == 136);
    assert!(size_of::<v4l2_query_ext_ctrl>() == 232);
};
// The same on every target.
const _: () = {
    assert!(size_of::<v4l2_ext_control>() == 20);
    assert!(size_of::<v4l2_streamparm>() == 204);
    assert!(size_of::<v4l2_encoder_cmd>() == 40);
    assert!(size_of::<v4l2_querymenu>() == 44);
    assert!(size_of::<v4l2_frmsizeenum>() == 44);
    assert!(size_of::<v4l2_selection>() == 64);
    assert!(size_of::<v4l2_event_subscription>() == 32);
};
