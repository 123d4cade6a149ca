// SPDX-License-Identifier: MIT OR Apache-2.0

//! A stand-in for `librockchip_mpp.so` on machines without Rockchip's hardware: the same C ABI, the rules that the
//! real library was seen to keep in seven releases (`RULES.md`), and a real codec behind it, so that streams can be
//! decoded and pictures compared.
//!
//! It is loaded like the real one, by path or by name. A program that depends on this crate (a test) has the
//! library built beside itself and finds it with [`library`]; [`variant`] makes one that lacks functions, or that
//! shares no state with others in the process.
//!
//! What it does is set by the environment variable `MPP_SIM` or the extra function `mpp_sim_configure`, both
//! `key=value` pairs; `mpp_sim_count` tells of living objects, leaks and misuse. See the README.

mod abi;
mod buffer;
mod cfg;
mod context;
mod control;
mod dec_core;
mod decoder;
mod enc_core;
mod encoder;
mod frame;
mod jpeg_dec;
mod memory;
mod meta;
mod options;
mod packet;
mod refcfg;
mod registry;
mod task;
mod timing;
mod variant;

pub use options::Release;
pub use variant::{Missing, VariantError, library, missing_in, variant};
