// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_QUERY_EXT_CTRL`, `VIDIOC_QUERYMENU`, `VIDIOC_G_CTRL`, `VIDIOC_S_EXT_CTRLS`

use std::ffi::c_void;

use super::{errno_enum, text};
use crate::ops::Handle;
use crate::uapi::*;

/// What values a control has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// Numbers of 32 bits, booleans, bit masks.
    Integer,
    /// Numbers of 64 bits.
    Integer64,
    /// Numbers, not all of which need be allowed.
    Menu,
    /// Setting it does something.
    Button,
    /// Strings and compound values, which nothing here sets.
    Other,
}

/// A control that the device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlInfo {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What values it has.
    pub kind: ControlKind,
    /// Least value.
    pub minimum: i64,
    /// Greatest value.
    pub maximum: i64,
    /// Values are `minimum` and multiples of this above it.
    pub step: u64,
    /// Value after opening.
    pub default: i64,
    /// It cannot be set: read-only or disabled.
    pub fixed: bool,
}

impl ControlInfo {
    /// The nearest value that the control can have, not above `value` where there is a choice.
    #[must_use]
    pub fn clamp(&self, value: i64) -> i64 {
        if self.maximum < self.minimum {
            return value;
        }
        let value = value.clamp(self.minimum, self.maximum);
        match i64::try_from(self.step) {
            Ok(step) if step > 1 && self.kind != ControlKind::Menu => {
                value - value.saturating_sub(self.minimum) % step
            }
            _ => value,
        }
    }

    /// The name as `v4l2-ctl` writes it: lower case, words joined by `_`.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = String::new();
        for c in self.name.chars() {
            if c.is_alphanumeric() {
                key.extend(c.to_lowercase());
            } else if !key.is_empty() && !key.ends_with('_') {
                key.push('_');
            }
        }
        key.trim_end_matches('_').to_owned()
    }
}

errno_enum! {
    /// Why a control cannot be set.
    ControlError {
        EINVAL => Unsupported "the device has no such control, or does not take this value",
        ERANGE => OutOfRange "the value is out of range",
        EBUSY => Busy "the device does not take this while it streams",
        EACCES => ReadOnly "the control cannot be set",
        ENOTTY => NoIoctl "the device has no controls",
    }
}

fn info(raw: &v4l2_query_ext_ctrl) -> ControlInfo {
    ControlInfo {
        id: raw.id,
        name: text(&raw.name),
        kind: match raw.type_ {
            // Integer, boolean, bit mask.
            1 | 2 | 8 => ControlKind::Integer,
            V4L2_CTRL_TYPE_INTEGER64 => ControlKind::Integer64,
            // Menu, menu of integers.
            V4L2_CTRL_TYPE_MENU | 9 => ControlKind::Menu,
            V4L2_CTRL_TYPE_BUTTON => ControlKind::Button,
            _ => ControlKind::Other,
        },
        minimum: raw.minimum,
        maximum: raw.maximum,
        step: raw.step,
        default: raw.default_value,
        fixed: raw.flags & (V4L2_CTRL_FLAG_READ_ONLY | V4L2_CTRL_FLAG_DISABLED) != 0,
    }
}

/// Asks for a control.
///
/// # Errors
/// See [`ControlError`].
pub fn query_control(handle: &Handle, id: u32) -> Result<ControlInfo, ControlError> {
    let mut raw = v4l2_query_ext_ctrl { id, ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_QUERY_EXT_CTRL, &mut raw) }?;
    Ok(info(&raw))
}

/// Lists all controls. Empty if the device cannot list them.
#[must_use]
pub fn query_all_controls(handle: &Handle) -> Vec<ControlInfo> {
    let mut list: Vec<ControlInfo> = Vec::new();
    let mut id = 0;
    // A driver that never ends its list would keep us here for ever.
    while list.len() < 1024 {
        let mut raw = v4l2_query_ext_ctrl { id: id | V4L2_CTRL_FLAG_NEXT_CTRL, ..Default::default() };
        // SAFETY: the structure of this request.
        if unsafe { handle.ioctl(VIDIOC_QUERY_EXT_CTRL, &mut raw) }.is_err() || raw.id <= id {
            break;
        }
        id = raw.id;
        list.push(info(&raw));
    }
    list
}

/// Whether a menu has an item.
#[must_use]
pub fn menu_has(handle: &Handle, id: u32, index: i64) -> bool {
    let Ok(index) = u32::try_from(index) else { return false };
    let mut menu = v4l2_querymenu { id, index, ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_QUERYMENU, &mut menu) }.is_ok()
}

/// Reads a control of 32 bits.
///
/// # Errors
/// See [`ControlError`].
pub fn read_control(handle: &Handle, id: u32) -> Result<i32, ControlError> {
    let mut control = v4l2_control { id, value: 0 };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_G_CTRL, &mut control) }?;
    Ok(control.value)
}

/// Sets a control, in a call of its own so that an error is this control's.
///
/// # Errors
/// See [`ControlError`].
pub fn set_control(handle: &Handle, id: u32, kind: ControlKind, value: i64) -> Result<(), ControlError> {
    let mut control = v4l2_ext_control { id, ..Default::default() };
    if kind == ControlKind::Integer64 {
        control.value.value64 = value;
    } else {
        control.value.value = i32::try_from(value).map_err(|_| ControlError::OutOfRange)?;
    }
    let mut controls =
        v4l2_ext_controls { which: 0, count: 1, controls: &raw mut control, ..Default::default() };
    // SAFETY: the structure of this request; it points to one control that lives through the call.
    unsafe { handle.ioctl(VIDIOC_S_EXT_CTRLS, &mut controls) }?;
    Ok(())
}

fn set_codec_control(handle: &Handle, mut control: v4l2_ext_control) -> Result<(), ControlError> {
    let mut controls = v4l2_ext_controls {
        which: V4L2_CTRL_CLASS_CODEC,
        count: 1,
        controls: &raw mut control,
        ..Default::default()
    };
    // SAFETY: the structure of this request; it points to one control that lives through the call.
    unsafe { handle.ioctl(VIDIOC_S_EXT_CTRLS, &mut controls) }?;
    Ok(())
}

/// Sets a control of NVIDIA's library that is a value: by the class of codecs, where the kernel takes any.
///
/// # Errors
/// See [`ControlError`].
pub(crate) fn set_codec_value(handle: &Handle, id: u32, value: i32) -> Result<(), ControlError> {
    let mut control = v4l2_ext_control { id, ..Default::default() };
    control.value.value = value;
    set_codec_control(handle, control)
}

/// `v4l2_ctrl_video_metadata` of NVIDIA's header: pointers for a decoder's input and output, an encoder's packets and motion
/// vectors, and which buffer is meant.
#[repr(C)]
struct VideoMetadata {
    pointers: [*mut c_void; 4],
    index: u32,
}

/// Reads a control of NVIDIA's library that tells of a packet: whether its picture ends with it. For a CAPTURE buffer that
/// was dequeued and not queued again.
///
/// # Errors
/// See [`ControlError`].
pub(crate) fn ends_picture(handle: &Handle, id: u32, index: u32) -> Result<bool, ControlError> {
    // The structure begins with two bytes: keyframe, end of the frame. What follows grows with the releases, and nobody says
    // how long it is: far more than any has.
    let mut packet = [0_u32; 1024];
    let none = std::ptr::null_mut();
    let mut metadata = VideoMetadata { pointers: [none, none, packet.as_mut_ptr().cast(), none], index };
    let mut control = v4l2_ext_control { id, ..Default::default() };
    control.value.ptr = (&raw mut metadata).cast();
    let mut controls = v4l2_ext_controls {
        which: V4L2_CTRL_CLASS_CODEC,
        count: 1,
        controls: &raw mut control,
        ..Default::default()
    };
    // SAFETY: the structure of this request; what it points to, and what that points to, lives through the call.
    unsafe { handle.ioctl(VIDIOC_G_EXT_CTRLS, &mut controls) }?;
    let [first, ..] = packet;
    let [_, end, ..] = first.to_ne_bytes();
    Ok(end != 0)
}

/// Sets a control of NVIDIA's library that is a structure of 32-bit words. `size` stays 0, other than in the kernel.
/// Only for controls that are known to be structures of at most so many words: nobody checks.
///
/// # Errors
/// See [`ControlError`].
pub(crate) fn set_codec_words(handle: &Handle, id: u32, words: &mut [u32]) -> Result<(), ControlError> {
    let mut control = v4l2_ext_control { id, ..Default::default() };
    control.value.ptr = words.as_mut_ptr().cast();
    set_codec_control(handle, control)
}
