// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_SUBSCRIBE_EVENT`, `VIDIOC_DQEVENT`

use super::errno_enum;
use crate::ops::Handle;
use crate::uapi::*;

/// Something that a device tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The last buffer is there, or will be.
    EndOfStream,
    /// Any other, by its number.
    Other(u32),
}

errno_enum! {
    /// Why an event cannot be subscribed or read.
    EventError {
        EINVAL => Unsupported "the device has no such event",
        ENOTTY => NoIoctl "the device has no events",
        ENOENT => Nothing "there is no event",
    }
}

/// Asks for the event at the end of the stream. Old; some drivers have nothing else.
///
/// # Errors
/// See [`EventError`].
pub fn subscribe_end_of_stream(handle: &Handle) -> Result<(), EventError> {
    let mut subscription = v4l2_event_subscription { type_: V4L2_EVENT_EOS, ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_SUBSCRIBE_EVENT, &mut subscription) }?;
    Ok(())
}

/// The next event.
///
/// # Errors
/// See [`EventError`].
pub fn dequeue_event(handle: &Handle) -> Result<Event, EventError> {
    let mut event = v4l2_event::default();
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_DQEVENT, &mut event) }?;
    Ok(if event.type_ == V4L2_EVENT_EOS { Event::EndOfStream } else { Event::Other(event.type_) })
}
