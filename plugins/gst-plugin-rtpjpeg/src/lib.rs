// SPDX-License-Identifier: MPL-2.0
//
// This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.
// If a copy of the MPL was not distributed with this file, You can obtain one at
// <https://mozilla.org/MPL/2.0/>.

//! GStreamer elements for JPEG over RTP (RFC 2435): [`rtpjpegpay`] and [`rtpjpegdepay`], and [`rtpudpsink`],
//! which sends the packets of a frame in few system calls.
#![forbid(unsafe_code)]

mod limiter;
pub mod rtpjpegdepay;
pub mod rtpjpegpay;
pub mod rtpudpsink;

pub use plugin::plugin_register_static;

/// What GStreamer looks for in the library.
#[allow(missing_docs)] // The macro's items have none.
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::rtpjpegpay::register(plugin)?;
        crate::rtpjpegdepay::register(plugin)?;
        crate::rtpudpsink::register(plugin)
    }

    gst::plugin_define!(
        rtpjpeg,
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
