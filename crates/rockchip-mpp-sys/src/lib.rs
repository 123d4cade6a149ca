// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rockchip MPP (`librockchip_mpp`), as its C ABI has it: types, constants, and a table of its functions that
//! is filled at run time. Nothing of MPP is needed to build this.
//!
//! [`Library::load`] looks for the library and resolves every function of [`Symbols`]. The library is never
//! unloaded: it starts threads and registers exit handlers. Loading has side effects (it opens
//! `/dev/dma_heap/*` and logs to syslog), so load when a device is needed, not before.
//!
//! Facts hold for releases 1.0.0 to 1.0.11 on 64-bit systems. Releases are told apart by what they do, never by
//! a version string: distributions label arbitrary snapshots with one.
//!
//! `rockchip-mpp` is the safe layer above.

mod api;
pub mod consts;
mod load;
mod symbols;
mod types;

pub use api::MppApi;
pub use load::{Attempt, DEFAULT_NAMES, LIBRARY_ENV, Library, LoadError};
pub use symbols::{Symbols, signatures};
pub use types::*;
