// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of functions that `mpp_create` hands out.

use std::ffi::c_void;

use crate::types::{MppCtx, MppFrame, MppPacket, MppRet, MppTask};

/// Functions of a codec instance. One static table serves all instances; it never changed in size from 2021 on.
///
/// A user checks [`size`](Self::size) against [`USED_SIZE`](Self::USED_SIZE) first, and each function for `None`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppApi {
    /// Bytes of the table: 184.
    pub size: u32,
    /// Zero.
    pub version: u32,
    /// Packet in, frame out.
    pub decode: Option<unsafe extern "C" fn(MppCtx, MppPacket, *mut MppFrame) -> MppRet>,
    /// Queues a packet; the payload is copied.
    pub decode_put_packet: Option<unsafe extern "C" fn(MppCtx, MppPacket) -> MppRet>,
    /// Takes a frame.
    pub decode_get_frame: Option<unsafe extern "C" fn(MppCtx, *mut MppFrame) -> MppRet>,
    /// A placeholder; does nothing.
    pub encode: Option<unsafe extern "C" fn(MppCtx, MppFrame, *mut MppPacket) -> MppRet>,
    /// Queues a frame. Who owns it then depends on the input time-out.
    pub encode_put_frame: Option<unsafe extern "C" fn(MppCtx, MppFrame) -> MppRet>,
    /// Takes a packet.
    pub encode_get_packet: Option<unsafe extern "C" fn(MppCtx, *mut MppPacket) -> MppRet>,
    /// Unused.
    pub isp: Option<unsafe extern "C" fn(MppCtx, MppFrame, MppFrame) -> MppRet>,
    /// Unused.
    pub isp_put_frame: Option<unsafe extern "C" fn(MppCtx, MppFrame) -> MppRet>,
    /// Unused.
    pub isp_get_frame: Option<unsafe extern "C" fn(MppCtx, *mut MppFrame) -> MppRet>,
    /// Waits for a port: `MPP_PORT_*`, then `MPP_POLL_*` or milliseconds.
    pub poll: Option<unsafe extern "C" fn(MppCtx, i32, i32) -> MppRet>,
    /// Takes a task from a port.
    pub dequeue: Option<unsafe extern "C" fn(MppCtx, i32, *mut MppTask) -> MppRet>,
    /// Gives a task to a port.
    pub enqueue: Option<unsafe extern "C" fn(MppCtx, i32, MppTask) -> MppRet>,
    /// Drops all that is queued.
    pub reset: Option<unsafe extern "C" fn(MppCtx) -> MppRet>,
    /// `MPP_SET_*`, `MPP_DEC_*`, `MPP_ENC_*` with their argument.
    pub control: Option<unsafe extern "C" fn(MppCtx, i32, *mut c_void) -> MppRet>,
    /// Zero.
    pub reserv: [u32; 16],
}

impl MppApi {
    /// Bytes up to and including [`control`](Self::control), the last function in use.
    pub const USED_SIZE: u32 = 120;
}
