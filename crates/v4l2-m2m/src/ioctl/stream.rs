// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_STREAMON`, `VIDIOC_STREAMOFF`

use std::ffi::c_int;

use super::{Api, errno_enum};
use crate::ops::Handle;
use crate::queue::Direction;
use crate::uapi::*;

errno_enum! {
    /// Why a queue does not start or stop.
    StreamError {
        // bcm2835-codec says so when the level is too low for size, rate and bitrate.
        ESRCH => Refused "the device refuses these settings, probably the level",
        EINVAL => NoBuffers "the queue has no buffers, or the settings do not fit together",
        EPIPE => Pipeline "the device's parts do not fit together",
        EIO => Failed "the device has failed; it must be opened anew",
        ENOMEM => NoMemory "the device has no memory left",
        EBUSY => Busy "the device is busy with another stream",
    }
}

fn stream<D: Direction>(handle: &Handle, api: Api, on: bool) -> Result<(), StreamError> {
    let mut kind: c_int = D::buffer_type(api) as c_int;
    // SAFETY: these requests are defined with an int.
    unsafe { handle.ioctl(if on { VIDIOC_STREAMON } else { VIDIOC_STREAMOFF }, &mut kind) }?;
    Ok(())
}

/// Starts a queue.
pub(crate) fn stream_on<D: Direction>(handle: &Handle, api: Api) -> Result<(), StreamError> {
    stream::<D>(handle, api, true)
}

/// Stops a queue; the device gives all its buffers back.
pub(crate) fn stream_off<D: Direction>(handle: &Handle, api: Api) -> Result<(), StreamError> {
    stream::<D>(handle, api, false)
}
