// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong.

use std::fmt;

use rockchip_mpp_sys::{LoadError, MppApi, MppRet, consts};

/// A return code of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub MppRet);

impl Code {
    /// Its C name, if it is one of the documented codes.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            consts::MPP_OK => "MPP_OK",
            consts::MPP_NOK => "MPP_NOK",
            consts::MPP_ERR_UNKNOW => "MPP_ERR_UNKNOW",
            consts::MPP_ERR_NULL_PTR => "MPP_ERR_NULL_PTR",
            consts::MPP_ERR_MALLOC => "MPP_ERR_MALLOC",
            consts::MPP_ERR_VALUE => "MPP_ERR_VALUE",
            consts::MPP_ERR_TIMEOUT => "MPP_ERR_TIMEOUT",
            consts::MPP_ERR_PERM => "MPP_ERR_PERM",
            consts::MPP_ERR_LIST_STREAM => "MPP_ERR_LIST_STREAM",
            consts::MPP_ERR_INIT => "MPP_ERR_INIT",
            consts::MPP_ERR_STREAM => "MPP_ERR_STREAM",
            consts::MPP_ERR_NOMEM => "MPP_ERR_NOMEM",
            consts::MPP_EOS_STREAM_REACHED => "MPP_EOS_STREAM_REACHED",
            consts::MPP_ERR_BUFFER_FULL => "MPP_ERR_BUFFER_FULL",
            consts::MPP_ERR_DISPLAY_FULL => "MPP_ERR_DISPLAY_FULL",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no usable library.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A function of the library failed.
    #[error("{call} failed with {code}")]
    Call {
        /// The function, or the command of `control`.
        call: &'static str,
        /// What it returned.
        code: Code,
    },
    /// A function said that it succeeded but gave nothing.
    #[error("{call} returned success but no object")]
    Nothing {
        /// The function.
        call: &'static str,
    },
    /// The table of functions is not the one this was written for.
    #[error(
        "the library's table of functions has {size} bytes, or lacks functions; expected {}",
        MppApi::USED_SIZE
    )]
    Api {
        /// Its size, bytes.
        size: u32,
    },
    /// A key was refused: unknown to this release, of another type, or its value is out of range.
    #[error("the library refused {key}={value}: {code}")]
    Config {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it returned.
        code: Code,
    },
    /// A descriptor could not be duplicated.
    #[error("duplicating a dma-buf's descriptor: {0}")]
    Descriptor(std::io::ErrorKind),
    /// No kind of memory that the hardware can reach is to be had.
    #[error("no memory allocator works: {0}")]
    NoAllocator(String),
    /// The buffer cannot be mapped.
    #[error("the buffer cannot be mapped for the CPU")]
    Unmappable,
    /// A packet without bytes, which to the library means the end of the stream.
    #[error("an empty packet is only for the end of the stream")]
    Empty,
    /// A JPEG packet without a picture that can be decoded.
    #[error("there is no JPEG picture in the packet, or one of no reasonable size (up to 8192x8192)")]
    NoPicture,
    /// The hardware still works on what was given up.
    #[error("the hardware does not finish a picture")]
    Stuck,
    /// The packet's bytes do not lie inside its memory.
    #[error("the library returned a packet of {length} bytes without memory")]
    Packet {
        /// Bytes it claims to have.
        length: usize,
    },
}

/// Turns a return code into a result.
pub(crate) fn check(call: &'static str, code: MppRet) -> Result<(), Error> {
    if code == consts::MPP_OK { Ok(()) } else { Err(Error::Call { call, code: Code(code) }) }
}
