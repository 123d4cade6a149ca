// SPDX-License-Identifier: MPL-2.0
//
// This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.
// If a copy of the MPL was not distributed with this file, You can obtain one at
// <https://mozilla.org/MPL/2.0/>.

//! GStreamer elements for video encoders that speak V4L2 mem2mem: [`v4l2m2menc`] for those of the kernel,
//! [`jetsonv4l2enc`] for NVIDIA's Jetson boards.
#![deny(unsafe_code)] // But for the calls in `nvmm`.

mod encoder;
pub mod jetsonv4l2enc;
mod loans;
mod nvmm;
mod pool;
pub mod v4l2m2menc;

pub use plugin::plugin_register_static;

/// For tests: another way to reach devices than the kernel's.
#[doc(hidden)]
pub mod testing {
    use std::sync::{Arc, Mutex, PoisonError};

    use v4l2_m2m::ops::{SystemCalls, V4l2Ops};

    static OPS: Mutex<Option<Arc<dyn V4l2Ops>>> = Mutex::new(None);

    /// Elements that go to READY from now on reach their devices through `ops`; `None`: through the kernel.
    pub fn set_ops(ops: Option<Arc<dyn V4l2Ops>>) {
        *OPS.lock().unwrap_or_else(PoisonError::into_inner) = ops;
    }

    pub(crate) fn ops() -> Arc<dyn V4l2Ops> {
        let ops = OPS.lock().unwrap_or_else(PoisonError::into_inner);
        ops.clone().unwrap_or_else(|| Arc::new(SystemCalls))
    }
}

/// What GStreamer looks for in the library.
#[allow(missing_docs, unsafe_code)] // The macro's items have none.
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::v4l2m2menc::register(plugin)?;
        crate::jetsonv4l2enc::register(plugin)
    }

    gst::plugin_define!(
        v4l2m2m,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY"),
        env!("BUILD_REL_DATE")
    );
}
