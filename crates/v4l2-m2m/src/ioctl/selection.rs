// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_S_SELECTION`

use super::errno_enum;
use crate::ops::Handle;
use crate::uapi::*;

errno_enum! {
    /// Why the visible part cannot be set.
    SelectionError {
        EINVAL => Unsupported "the device cannot crop",
        ENOTTY => NoIoctl "the device does not offer this call",
        EBUSY => Busy "the device is streaming",
        ERANGE => OutOfRange "the device cannot show this rectangle",
    }
}

/// Sets which part of the raw picture is visible; answers what the device made of it.
///
/// The plain buffer type is used for multi-planar queues too: the kernel translates it, and older drivers know no other.
///
/// # Errors
/// See [`SelectionError`].
pub fn set_crop(handle: &Handle, width: u32, height: u32) -> Result<v4l2_rect, SelectionError> {
    let mut selection = v4l2_selection {
        type_: V4L2_BUF_TYPE_VIDEO_OUTPUT,
        target: V4L2_SEL_TGT_CROP,
        r: v4l2_rect { left: 0, top: 0, width, height },
        ..Default::default()
    };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_S_SELECTION, &mut selection) }?;
    Ok(selection.r)
}
