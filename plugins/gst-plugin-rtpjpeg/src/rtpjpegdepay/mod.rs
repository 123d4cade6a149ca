// SPDX-License-Identifier: MPL-2.0

//! The `rtpjpegdepay-rs` element.
//!
//! SECTION:element-rtpjpegdepay-rs
//!
//! `rtpjpegdepay-rs` puts the packets of JPEG over RTP (RFC 2435) together to whole pictures, and takes what real
//! senders make: one, two or three quantisation tables, tables sent once, no EOI marker, sizes signalled in the
//! session description. Frames with lost packets are dropped, or, with `output-corrupt=true` and restart
//! intervals aligned to packets, patched from the frame before and flagged `CORRUPTED`.
//!
//! Put an `rtpjitterbuffer` in front where the network reorders packets.
//!
//! ## Example pipeline
//! ```console
//! gst-launch-1.0 udpsrc port=5000 caps="application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG,payload=26" \
//!     ! rtpjitterbuffer latency=50 ! rtpjpegdepay-rs output-corrupt=true ! jpegdec ! autovideosink
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod frames;
mod imp;
mod settings;

glib::wrapper! {
    /// Makes JPEG pictures of RTP packets.
    pub struct RtpJpegDepay(ObjectSubclass<imp::RtpJpegDepay>)
        @extends gst_rtp::RTPBaseDepayload, gst::Element, gst::Object;
}

/// Registers `rtpjpegdepay-rs`.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // Below GStreamer's own depayloader, so that nobody gets this one without asking for it.
    gst::Element::register(Some(plugin), "rtpjpegdepay-rs", gst::Rank::MARGINAL, RtpJpegDepay::static_type())
}
