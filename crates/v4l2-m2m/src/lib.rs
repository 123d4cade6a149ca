// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stateful V4L2 memory-to-memory video encoders.
//!
//! From the bottom up: [`uapi`] (the kernel's structures and numbers), [`ops`] (ways to reach a device), [`ioctl`] (a safe
//! function for each call, with errors that say what an errno means there), [`queue`] (queues whose illegal orders do not
//! compile), and on top what an encoder needs that the interface does not give: where the planes of a picture lie
//! ([`picture`]), keyframes and parameter sets as the bytes tell them ([`codec`]), levels ([`level`]), forced keyframes
//! that are believed when they are seen ([`keyframe`]), which control stands for which wish ([`controls`]), and what single
//! drivers do otherwise ([`quirks`]). [`encoder`] puts them together, and [`worker`] is a thread that owns an encoder, so
//! that a driver that hangs costs nobody more than a bounded time.
//!
//! With the feature `emulator` there is a driver inside the process, for tests.

mod av1;
pub mod buffer;
pub mod codec;
pub mod config;
pub mod controls;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod encoder;
pub mod error;
mod expect;
pub mod heap;
pub mod ioctl;
pub mod keyframe;
pub mod level;
pub mod loan;
mod nvidia;
pub mod ops;
pub mod packaged;
mod patience;
pub mod picture;
pub mod probe;
pub mod queue;
pub mod quirks;
pub mod surface;
pub mod uapi;
pub mod worker;
