// SPDX-License-Identifier: MIT OR Apache-2.0

//! A real video codec behind the simulators of hardware encoders and decoders, over the system's libavcodec.
//!
//! What comes out of a simulated encoder can be decoded by anybody, and what a simulated decoder gives can be
//! compared sample by sample. The controls are those of hardware: a quantiser chosen for each picture by a rate
//! control that is changed at any time without a key frame, key frames exactly where they are asked for, no
//! picture held back, parameter sets apart from the pictures.
//!
//! ```
//! use sim_codec::{Codec, Decoder, Encoder, EncoderConfig, Picture, psnr};
//!
//! let mut encoder = Encoder::new(EncoderConfig::new(Codec::H264, 320, 240))?;
//! let mut decoder = Decoder::new(Codec::H264)?;
//! for number in 0..5 {
//!     let picture = Picture::test_pattern(320, 240, number);
//!     for coded in encoder.encode(&picture, i64::from(number), false)? {
//!         assert_eq!(coded.key, number == 0);
//!         for decoded in decoder.decode(&coded.data, coded.pts)? {
//!             assert!(psnr(&picture, &decoded.picture)?[0] > 30.0);
//!         }
//!     }
//! }
//! # Ok::<(), sim_codec::Error>(())
//! ```

#![deny(unsafe_code)]

mod afbc;
mod annexb;
mod decoder;
mod encoder;
#[allow(unsafe_code)]
mod ffi;
mod picture;
mod rate;
mod raw;

pub use afbc::Afbc;
pub use annexb::{nal_units, split_parameter_sets};
pub use decoder::{ContentLight, Decoded, Decoder, MasteringDisplay};
pub use encoder::{Change, Coded, Encoder, EncoderConfig, HeaderPolicy, Profile};
pub use picture::{Chroma, Picture, Plane, psnr};
pub use rate::{RateControl, RateMode};
pub use raw::{RawFormat, RawImage};

/// A codec that libavcodec encodes and decodes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Codec {
    /// H.264, byte stream.
    H264,
    /// H.265, byte stream.
    H265,
    /// VP8, bare frames.
    Vp8,
    /// VP9, bare frames.
    Vp9,
    /// AV1, temporal units of OBUs.
    Av1,
    /// MPEG-1 video.
    Mpeg1,
    /// MPEG-2 video.
    Mpeg2,
    /// MPEG-4 part 2.
    Mpeg4,
    /// H.263 baseline; only its five picture sizes exist (128x96, 176x144, 352x288, 704x576, 1408x1152).
    H263,
    /// JPEG pictures.
    Mjpeg,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::H264,
        Self::H265,
        Self::Vp8,
        Self::Vp9,
        Self::Av1,
        Self::Mpeg1,
        Self::Mpeg2,
        Self::Mpeg4,
        Self::H263,
        Self::Mjpeg,
    ];

    /// Best and worst quantiser of this codec in its own unit: QP of H.264 and H.265 (0–51), index of VP8 and VP9
    /// (0–63), scale of the MPEGs, H.263 and JPEG (1–31).
    pub const fn qp_range(self) -> (u8, u8) {
        match self {
            Self::H264 | Self::H265 => (0, 51),
            Self::Vp8 | Self::Vp9 | Self::Av1 => (0, 63),
            _ => (1, 31),
        }
    }

    /// Whether parameter sets stand apart from the pictures.
    pub const fn has_parameter_sets(self) -> bool {
        matches!(self, Self::H264 | Self::H265)
    }
}

/// Colour description, code points of ITU-T H.273; 2 is "unspecified".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// 0 unspecified, 1 limited, 2 full.
    pub range: u8,
    /// Colour primaries.
    pub primaries: u8,
    /// Transfer characteristics.
    pub transfer: u8,
    /// Matrix coefficients.
    pub matrix: u8,
}

impl Default for Colour {
    fn default() -> Self {
        Self { range: 0, primaries: 2, transfer: 2, matrix: 2 }
    }
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libavcodec refused to open the codec with these settings.
    #[error("libavcodec can't open {codec:?} with these settings: {reason}")]
    Open {
        /// The codec.
        codec: Codec,
        /// libavcodec's words.
        reason: String,
    },
    /// libavcodec failed on a picture or a packet; damaged input is the usual cause.
    #[error("libavcodec failed on {codec:?}: {reason}")]
    Codec {
        /// The codec.
        codec: Codec,
        /// libavcodec's words.
        reason: String,
    },
    /// A setting is outside of what is possible.
    #[error("{0}")]
    Setting(&'static str),
    /// A buffer is too small for the picture that its layout describes.
    #[error("a picture of this layout needs {needed} bytes, the buffer has {have}")]
    Buffer {
        /// Bytes that the layout needs.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Two pictures, or a picture and an encoder, differ in size or sampling.
    #[error("the picture is {have}, wanted is {wanted}")]
    Mismatch {
        /// What was given.
        have: String,
        /// What was wanted.
        wanted: String,
    },
}
