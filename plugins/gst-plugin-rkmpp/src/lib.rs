// SPDX-License-Identifier: MPL-2.0
//
// This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.
// If a copy of the MPL was not distributed with this file, You can obtain one at
// <https://mozilla.org/MPL/2.0/>.

//! GStreamer elements for the video hardware of Rockchip SoCs: [`rkmppenc`], [`rkmppdec`].
#![deny(unsafe_code)] // But for `dmabuf`.

mod device;
mod dmabuf;
mod drm;
mod extra;
mod restarts;
pub mod rkmppdec;
pub mod rkmppenc;

pub use plugin::plugin_register_static;

/// What GStreamer looks for in the library.
#[allow(missing_docs, unsafe_code)] // The macro's items.
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::rkmppenc::register(plugin)?;
        crate::rkmppdec::register(plugin)
    }

    gst::plugin_define!(
        rkmpp,
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
