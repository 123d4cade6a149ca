// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the elements for hardware encoders have in common and GStreamer's base class does not have: receivers' wishes
//! ([`targets`]), frames left out for a lower rate ([`pace`]), and dma-bufs whose caps have the kernel's names of formats
//! ([`drm`]).
#![forbid(unsafe_code)]

pub mod drm;
pub mod pace;
pub mod targets;
