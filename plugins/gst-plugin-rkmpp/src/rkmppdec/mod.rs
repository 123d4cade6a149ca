// SPDX-License-Identifier: MPL-2.0

//! The `rkmppdec` element.
//!
//! SECTION:element-rkmppdec
//!
//! `rkmppdec` decodes H.264, H.265, VP8, VP9, AV1, MPEG-1, MPEG-2, MPEG-4, H.263 and JPEG with the hardware of Rockchip
//! SoCs (RK3588, RK3576, RK356x, RK3399 …), through Rockchip's MPP library, which it looks for when the element goes to
//! READY. Pictures lie in dma-bufs that are not copied unless downstream cannot use them. They are read-only, because
//! the hardware still refers to them.
//!
//! ## Example pipelines
//! Show a file:
//! ```console
//! gst-launch-1.0 filesrc location=camera.mp4 ! qtdemux ! h264parse ! rkmppdec ! videoconvert ! autovideosink
//! ```
//! Transcode it, without a copy of a picture:
//! ```console
//! gst-launch-1.0 filesrc location=camera.mp4 ! qtdemux ! h264parse ! rkmppdec ! rkmppenc ! video/x-h265 \
//!     ! h265parse ! matroskamux ! filesink location=camera.mkv
//! ```
//! The same with pixels that stay compressed (AFBC) in between, for which GStreamer 1.24 is needed:
//! ```console
//! gst-launch-1.0 filesrc location=camera.mp4 ! qtdemux ! h264parse ! rkmppdec arm-afbc=true ! rkmppenc ! video/x-h265 \
//!     ! h265parse ! matroskamux ! filesink location=camera.mkv
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod codec;
mod flow;
mod format;
mod imp;
mod output;
mod session;
mod settings;
mod stats;
mod unpack;

glib::wrapper! {
    /// Decodes video with Rockchip's hardware.
    pub struct RkMppDec(ObjectSubclass<imp::RkMppDec>)
        @extends gst_video::VideoDecoder, gst::Element, gst::Object;
}

/// Registers `rkmppdec`. It is preferred to other decoders where the kernel has the hardware's driver.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let rank = if crate::device::node_exists() { gst::Rank::PRIMARY + 1 } else { gst::Rank::NONE };
    gst::Element::register(Some(plugin), "rkmppdec", rank, RkMppDec::static_type())
}
