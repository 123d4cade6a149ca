// SPDX-License-Identifier: MPL-2.0

//! The `rtpudpsink-rs` element.
//!
//! SECTION:element-rtpudpsink-rs
//!
//! `rtpudpsink-rs` sends RTP packets, and takes whole buffer lists: equally long packets leave in one system call
//! by UDP generic segmentation offload where the kernel has it, all others by `sendmmsg`. With
//! `max-pacing-rate`, a frame's packets leave in trains of at most 16, spread over at most half a frame interval.
//!
//! Errors of the network (nobody listens, no route) are counted in `stats` and do not stop the pipeline.
//!
//! ## Example pipeline
//! ```console
//! gst-launch-1.0 v4l2src ! image/jpeg,width=1280,height=720 ! rtpjpegpay-rs \
//!     ! rtpudpsink-rs host=192.0.2.10 port=5000 qos-dscp=34 max-pacing-rate=400000000 sync=false
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod imp;
mod pacing;
mod sender;
mod settings;
mod socket;
mod stats;

/// Which version of IP is used.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRtpUdpSinkRsSocketFamily")]
#[non_exhaustive]
pub enum SocketFamily {
    /// That of the first address of `host`.
    #[default]
    #[enum_value(name = "That of the first address that host has", nick = "auto")]
    Auto,
    /// IPv4.
    #[enum_value(name = "IPv4", nick = "ipv4")]
    Ipv4,
    /// IPv6.
    #[enum_value(name = "IPv6", nick = "ipv6")]
    Ipv6,
}

glib::wrapper! {
    /// Sends RTP packets by UDP.
    pub struct RtpUdpSink(ObjectSubclass<imp::RtpUdpSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// Registers `rtpudpsink-rs`.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    SocketFamily::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    // No rank: nothing but a user's choice should send media into a network.
    gst::Element::register(Some(plugin), "rtpudpsink-rs", gst::Rank::NONE, RtpUdpSink::static_type())
}
