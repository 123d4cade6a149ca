// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_ENCODER_CMD`, `VIDIOC_TRY_ENCODER_CMD`

use super::errno_enum;
use crate::ops::Handle;
use crate::uapi::*;

errno_enum! {
    /// Why a command is not taken.
    CommandError {
        ENOTTY => NoIoctl "the device has no such command",
        EINVAL => Unsupported "the device has no such command",
        EBUSY => Busy "the device is still ending the stream",
    }
}

/// `V4L2_ENC_CMD_STOP` or `V4L2_ENC_CMD_START`, with its flags.
///
/// # Errors
/// See [`CommandError`].
pub fn encoder_command(handle: &Handle, cmd: u32, flags: u32) -> Result<(), CommandError> {
    let mut command = v4l2_encoder_cmd { cmd, flags, ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_ENCODER_CMD, &mut command) }?;
    Ok(())
}

/// Whether the device can be told to end a stream.
#[must_use]
pub fn has_encoder_command(handle: &Handle) -> bool {
    let mut command = v4l2_encoder_cmd { cmd: V4L2_ENC_CMD_STOP, ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_TRY_ENCODER_CMD, &mut command) }.is_ok()
}
