// SPDX-License-Identifier: MPL-2.0
//
// This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.
// If a copy of the MPL was not distributed with this file, You can obtain one at
// <https://mozilla.org/MPL/2.0/>.

//! GStreamer elements for LiveKit: [`livekitsink`] publishes encoded video and audio into a room.
#![forbid(unsafe_code)]

pub mod livekitsink;

pub use plugin::plugin_register_static;

/// What GStreamer looks for in the library.
#[allow(missing_docs)] // The macro's items have none.
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::livekitsink::register(plugin)
    }

    gst::plugin_define!(
        livekit,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        // "MPL-2.0" is a known licence only since GStreamer 1.20.
        "MPL",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY"),
        env!("BUILD_REL_DATE")
    );
}
