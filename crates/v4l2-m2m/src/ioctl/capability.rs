// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_QUERYCAP`

use super::{errno_enum, text};
use crate::ops::Handle;
use crate::uapi::*;

/// Whether buffers have one piece of memory or several: two variants of the same interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `V4L2_BUF_TYPE_VIDEO_…`
    SinglePlane,
    /// `V4L2_BUF_TYPE_VIDEO_…_MPLANE`
    MultiPlane,
}

/// What a device says of itself.
#[derive(Clone, Debug)]
pub struct Capability {
    /// Name of the driver, on which quirks depend.
    pub driver: String,
    /// Name of the device.
    pub card: String,
    /// Capabilities of this node.
    pub capabilities: u32,
    /// The kernel's version, as `KERNEL_VERSION`.
    pub version: u32,
}

impl Capability {
    /// The variant of the memory-to-memory interface, if it has any and can stream.
    #[must_use]
    pub fn m2m(&self) -> Option<Api> {
        if self.capabilities & V4L2_CAP_STREAMING == 0 {
            None
        } else if self.capabilities & V4L2_CAP_VIDEO_M2M_MPLANE != 0 {
            Some(Api::MultiPlane)
        } else if self.capabilities & V4L2_CAP_VIDEO_M2M != 0 {
            Some(Api::SinglePlane)
        } else {
            None
        }
    }
}

errno_enum! {
    /// Why a node says nothing of itself.
    CapabilityError {
        ENOTTY => NotVideo "this is no V4L2 device",
    }
}

/// Asks what the device is.
///
/// # Errors
/// See [`CapabilityError`].
pub fn query_capability(handle: &Handle) -> Result<Capability, CapabilityError> {
    let mut caps = v4l2_capability::default();
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_QUERYCAP, &mut caps) }?;
    let capabilities =
        if caps.capabilities & V4L2_CAP_DEVICE_CAPS != 0 { caps.device_caps } else { caps.capabilities };
    Ok(Capability { driver: text(&caps.driver), card: text(&caps.card), capabilities, version: caps.version })
}
