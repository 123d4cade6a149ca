// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong with an encoder as a whole.

use std::path::PathBuf;

use crate::codec::Codec;
use crate::ioctl::*;
use crate::picture::LayoutError;

/// Why a node is no encoder for us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It cannot be opened.
    #[error("{}", open_text(.0))]
    Open(#[source] std::io::Error),
    /// It says nothing of itself.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// It is no memory-to-memory device: a camera, for example.
    #[error("{0} is no memory-to-memory device")]
    NotM2m(String),
    /// Its formats cannot be listed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is a decoder, a scaler, or an encoder for something else.
    #[error("{driver} encodes {}, nothing of H.264, H.265, VP8 and FWHT", list(.codecs))]
    NoCodec {
        /// Its driver.
        driver: String,
        /// The coded formats that it has.
        codecs: Vec<String>,
    },
    /// NVIDIA's library has no encoder behind it, or none that is free.
    #[error(
        "{driver} makes none of H.264, H.265 and AV1 ({reason}); other programs may use all sessions of the encoder"
    )]
    NoNvidiaCodec {
        /// Its driver.
        driver: String,
        /// What the last format was refused with.
        reason: String,
    },
    /// It takes no raw format that we know.
    #[error("{driver} takes no raw format that is known here (it has {})", list(.formats))]
    NoRawFormat {
        /// Its driver.
        driver: String,
        /// The raw formats that it has.
        formats: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn open_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "no permission: add this user to the group of the node (mostly \
             'video'), log out and in again"
            .into(),
        Some(libc::EBUSY) => "busy: another program uses it".into(),
        Some(libc::ENOENT) => "there is no such node".into(),
        Some(libc::ENODEV | libc::ENXIO) => "there is no device behind the node".into(),
        _ => error.to_string(),
    }
}

/// No encoder was found.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect::<Vec<_>>().join("; "))]
pub struct ProbeError(pub Vec<(PathBuf, NodeError)>);

/// Why a stream cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The device cannot be opened anew.
    #[error("the device cannot be opened again: {0}")]
    Reopen(#[source] NodeError),
    /// The device does not encode this.
    #[error("the device does not encode {}", .0.name())]
    Codec(Codec),
    /// The device does not take pictures of this format.
    #[error("the device does not take this raw format for {}", .0.name())]
    RawFormat(Codec),
    /// A format cannot be set.
    #[error("setting the {queue} format: {error}")]
    Format {
        /// Which.
        queue: &'static str,
        /// Why.
        error: FormatError,
    },
    /// The device's memory does not fit the picture.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There are no buffers.
    #[error("allocating {queue} buffers: {error}")]
    Buffers {
        /// Which.
        queue: &'static str,
        /// Why.
        error: BuffersError,
    },
    /// The device does not start or stop.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// A buffer cannot be queued.
    #[error("queueing a buffer: {0}")]
    Queue(#[from] QueueError),
    /// A buffer cannot be dequeued.
    #[error("dequeueing a buffer: {0}")]
    Dequeue(#[from] DequeueError),
    /// Waiting for the device fails.
    #[error("waiting for the device: {0}")]
    Wait(#[source] std::io::Error),
    /// The device has had pictures for too long without giving any back.
    #[error("the device has not answered for {0:?}")]
    Hung(std::time::Duration),
    /// Nothing is configured.
    #[error("no stream is set up")]
    NotConfigured,
}

impl EncoderError {
    /// The device is not there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Format { error: FormatError::Gone, .. }
                | Self::Buffers { error: BuffersError::Gone, .. }
                | Self::Stream(StreamError::Gone)
                | Self::Queue(QueueError::Gone)
                | Self::Dequeue(DequeueError::Gone)
        )
    }
}
