// SPDX-License-Identifier: MPL-2.0

//! The encoder upstream of a pad: which one it is, how its bitrate is set, how it takes keyframe requests.

mod apply;
mod control;
mod find;
#[cfg(test)]
mod measured_tests;
#[cfg(test)]
pub(crate) mod stub_tests;
mod table;

pub(crate) use apply::NoKnob;
pub(crate) use control::{Applied, Hold, IDLE_BITRATE, Wish};
pub(crate) use find::{FoundEncoder, encoder_of, named_encoder, split_before};
pub(crate) use table::Keyframes;
#[cfg(test)]
pub(crate) use table::family;
