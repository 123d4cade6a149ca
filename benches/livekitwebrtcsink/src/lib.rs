// SPDX-License-Identifier: MIT OR Apache-2.0

//! Nothing but the published plugin: its entry point is exported from here.

#![forbid(unsafe_code)]

pub use gstrswebrtc::*;
