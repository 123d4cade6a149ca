// SPDX-License-Identifier: MPL-2.0

//! The `rtpjpegpay-rs` element.
//!
//! SECTION:element-rtpjpegpay-rs
//!
//! `rtpjpegpay-rs` cuts JPEG pictures into RTP packets (RFC 2435) without touching their pixels. It takes any
//! `image/jpeg`, straight from a camera or an encoder; no `jpegparse` is needed. Pictures that RFC 2435 cannot
//! carry (progressive, 4:4:4, optimised Huffman tables, …) are dropped, counted, and named in a warning.
//!
//! ## Example pipelines
//! Send a camera's own motion JPEG:
//! ```console
//! gst-launch-1.0 v4l2src ! image/jpeg,width=1280,height=720 ! rtpjpegpay-rs ! rtpudpsink-rs host=127.0.0.1 port=5000
//! ```
//! Show it:
//! ```console
//! gst-launch-1.0 udpsrc port=5000 caps="application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG,payload=26" \
//!     ! rtpjitterbuffer latency=50 ! rtpjpegdepay-rs ! jpegdec ! autovideosink
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod extensions;
mod imp;
mod settings;
mod stats;

/// How quantisation tables travel.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtpJpegPayRsQuantMode")]
#[non_exhaustive]
pub enum QuantMode {
    /// By number (Q 1 to 99) when a number stands for exactly the picture's tables, else in every frame.
    #[default]
    #[enum_value(name = "By number when there is one for the tables, else in every frame", nick = "auto")]
    Auto,
    /// By number only; pictures with other tables are dropped.
    #[enum_value(name = "By number only; pictures with other tables are dropped", nick = "static")]
    Static,
    /// In band once, and again every `quant-interval` (Q 128 to 254).
    #[enum_value(name = "In band once, and again every quant-interval", nick = "inband-once")]
    InbandOnce,
    /// In band in every frame (Q 255).
    #[enum_value(name = "In band in every frame", nick = "inband-every-frame")]
    InbandEveryFrame,
}

/// How restart intervals relate to packets.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtpJpegPayRsRestartMode")]
#[non_exhaustive]
pub enum RestartMode {
    /// Aligned when every interval fits into a packet, else whole frame.
    #[default]
    #[enum_value(name = "Aligned when every interval fits into a packet, else whole-frame", nick = "auto")]
    Auto,
    /// Packets are cut without regard to intervals, all but the last equally long.
    #[enum_value(name = "Packets are cut without regard to restart intervals", nick = "whole-frame")]
    WholeFrame,
    /// Packets hold whole intervals, so that a receiver can show those that arrived.
    #[enum_value(name = "Packets hold whole restart intervals", nick = "aligned")]
    Aligned,
}

/// What becomes of a picture that RFC 2435 cannot carry.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtpJpegPayRsOnUnsupported")]
#[non_exhaustive]
pub enum OnUnsupported {
    /// Dropped, counted, and warned of at most every ten seconds for each reason.
    #[default]
    #[enum_value(name = "Drop the picture, count it and warn", nick = "drop")]
    Drop,
    /// An error that ends the stream.
    #[enum_value(name = "Post an error and stop", nick = "error")]
    Error,
}

glib::wrapper! {
    /// Payloads JPEG pictures as RTP packets.
    pub struct RtpJpegPay(ObjectSubclass<imp::RtpJpegPay>)
        @extends gst_rtp::RTPBasePayload, gst::Element, gst::Object;
}

/// Registers `rtpjpegpay-rs`.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    for enumeration in [QuantMode::static_type(), RestartMode::static_type(), OnUnsupported::static_type()] {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    // Below GStreamer's own payloader, so that nobody gets this one without asking for it.
    gst::Element::register(Some(plugin), "rtpjpegpay-rs", gst::Rank::MARGINAL, RtpJpegPay::static_type())
}
