// SPDX-License-Identifier: MIT OR Apache-2.0

//! A LiveKit subscriber for tests: hands out the frames of one track as they were sent, without decoding them.
//!
//! LiveKit's SDKs and the browsers of Linux decode no H.265; this receives it, and FFmpeg decodes what it wrote.
#![forbid(unsafe_code)]

mod container;
mod decrypt;
mod receiver;
mod signal;

pub use container::{Codec, Container};
pub use decrypt::Decryptor;
pub use receiver::{Event, Frame, Subscriber};

/// What can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The signalling connection.
    #[error("signalling: {0}")]
    Signal(String),
    /// The media connection.
    #[error("media: {0}")]
    Media(String),
}
