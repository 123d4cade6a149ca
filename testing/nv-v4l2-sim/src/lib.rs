// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stands in for NVIDIA's `libv4l2.so.0` (`libnvv4l2.so`) and `libnvbufsurface.so` of Jetson boards: the same exported functions, the
//! encoder node's order of calls, its controls and its departures from the kernel's rules, and a real codec behind them.
//! What is enforced, and which test shows it, is in `RULES.md`; how to use it in `README.md`.

mod config;
mod controls;
mod device;
mod exports;
pub mod format;
mod queue;
mod report;
mod surface;
mod worker;
