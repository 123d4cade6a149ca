// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_S_PARM`

use super::{Api, errno_enum};
use crate::ops::Handle;
use crate::queue::{Direction, Output};
use crate::uapi::*;

errno_enum! {
    /// Why the frame rate cannot be set.
    ParmError {
        EINVAL => Unsupported "the device does not take this frame rate",
        ENOTTY => NoIoctl "the device does not take frame rates",
        EBUSY => Busy "the device does not take another frame rate while it streams",
    }
}

/// Sets the time of a raw frame, `numerator / denominator` seconds, from which rate control reckons. Answers what the
/// device made of it.
///
/// # Errors
/// See [`ParmError`].
pub fn set_interval(handle: &Handle, api: Api, interval: v4l2_fract) -> Result<v4l2_fract, ParmError> {
    let mut parm = v4l2_streamparm { type_: Output::buffer_type(api), ..Default::default() };
    parm.parm.output = v4l2_outputparm {
        capability: 0,
        outputmode: 0,
        timeperframe: interval,
        extendedmode: 0,
        writebuffers: 0,
        reserved: [0; 4],
    };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_S_PARM, &mut parm) }?;
    // SAFETY: the member for this buffer type; any bits are integers.
    Ok(unsafe { parm.parm.output }.timeperframe)
}
