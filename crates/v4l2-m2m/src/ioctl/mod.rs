// SPDX-License-Identifier: MIT OR Apache-2.0

//! Safe functions for the ioctls, a file for each group, with an error enum that says what an errno means there.

mod buffers;
mod capability;
mod controls;
mod encoder_cmd;
mod event;
mod format;
mod parm;
mod queue;
mod selection;
mod stream;

pub use buffers::{BuffersError, Memory};
pub(crate) use buffers::{export_buffer, query_buffer, request_buffers};
pub use capability::{Api, Capability, CapabilityError, query_capability};
pub use controls::{
    ControlError, ControlInfo, ControlKind, menu_has, query_all_controls, query_control, read_control,
    set_control,
};
pub(crate) use controls::{ends_picture, set_codec_value, set_codec_words};
pub use encoder_cmd::{CommandError, encoder_command, has_encoder_command};
pub use event::{Event, EventError, dequeue_event, subscribe_end_of_stream};
pub use format::{
    Colorimetry, Format, FormatDescription, FormatError, FrameSizes, PlaneFormat, enumerate_formats,
    frame_sizes, set_format, try_format,
};
pub use parm::{ParmError, set_interval};
pub use queue::{DequeueError, QueueError};
pub(crate) use queue::{Dequeued, PlaneUse, dequeue_buffer, queue_buffer};
pub use selection::{SelectionError, set_crop};
pub use stream::StreamError;
pub(crate) use stream::{stream_off, stream_on};

use std::ffi::CStr;

/// Defines an error enum: a variant for each errno that means something in this place, `Gone` for a device that is
/// not there any more, and `Other`.
macro_rules! errno_enum {
    ($(#[$meta:meta])* $name:ident { $($errno:ident => $variant:ident $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name {
            $(
                #[doc = concat!($text, " (", stringify!($errno), ").")]
                #[error($text)]
                $variant,
            )*
            /// The device has vanished (ENODEV).
            #[error("the device is gone")]
            Gone,
            /// An errno without a meaning of its own here.
            #[error("{0}")]
            Other(#[source] std::io::Error),
        }

        impl From<std::io::Error> for $name {
            fn from(error: std::io::Error) -> Self {
                match error.raw_os_error() {
                    $(Some(libc::$errno) => Self::$variant,)*
                    Some(libc::ENODEV) => Self::Gone,
                    _ => Self::Other(error),
                }
            }
        }
    };
}
pub(crate) use errno_enum;

/// A string in a fixed array of the kernel's.
fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).map_or_else(
        |_| String::from_utf8_lossy(bytes).into_owned(),
        |string| string.to_string_lossy().into_owned(),
    )
}
