// SPDX-License-Identifier: MPL-2.0

//! The `rkmppenc` element.
//!
//! SECTION:element-rkmppenc
//!
//! `rkmppenc` encodes video with the hardware of Rockchip SoCs (RK3588, RK3576, RK356x, RK3399 …), through Rockchip's
//! MPP library, which it looks for when the element goes to READY. What downstream wants decides the codec: H.264
//! (first choice), H.265, VP8 or JPEG. Frames in dma-bufs, or in memory that the element
//! offers upstream, are not copied, others once.
//!
//! ## Example pipelines
//! Record a camera:
//! ```console
//! gst-launch-1.0 -e v4l2src ! video/x-raw,format=NV12,width=1920,height=1080 ! rkmppenc bitrate=6000000 \
//!     ! h264parse ! mp4mux ! filesink location=camera.mp4
//! ```
//! The same in H.265:
//! ```console
//! gst-launch-1.0 -e v4l2src ! video/x-raw,format=NV12 ! rkmppenc ! h265parse ! mp4mux ! filesink location=camera.mp4
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod bitstream;
mod codec;
mod config;
mod flow;
mod imp;
mod input;
mod layout;
mod level;
mod pool;
mod session;
mod settings;
mod stats;

/// How bits are shared out between frames.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRkMppEncRateControl")]
#[non_exhaustive]
pub enum RateControl {
    /// The same bit rate all the time.
    #[default]
    #[enum_value(name = "Constant bit rate", nick = "cbr")]
    Cbr,
    /// Up to the peak, for constant quality.
    #[enum_value(name = "Variable bit rate", nick = "vbr")]
    Vbr,
    /// As variable, but less when nothing moves.
    #[enum_value(name = "Adaptive variable bit rate", nick = "avbr")]
    Avbr,
    /// All frames with `qp-init`.
    #[enum_value(name = "Fixed QP", nick = "fixqp")]
    FixQp,
}

/// Where parameter sets stand.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRkMppEncHeaderMode")]
#[non_exhaustive]
pub enum HeaderMode {
    /// In front of every keyframe, so that decoding can begin at any.
    #[default]
    #[enum_value(name = "In front of every keyframe", nick = "each-idr")]
    EachIdr,
    /// In front of the first.
    #[enum_value(name = "In front of the first keyframe", nick = "first-frame")]
    FirstFrame,
}

/// Clockwise rotation.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstRkMppEncRotation")]
#[non_exhaustive]
pub enum Rotation {
    /// None.
    #[default]
    #[enum_value(name = "Not rotated", nick = "0")]
    None,
    /// A quarter.
    #[enum_value(name = "90 degrees clockwise", nick = "90")]
    Clockwise,
    /// A half.
    #[enum_value(name = "180 degrees", nick = "180")]
    Half,
    /// Three quarters.
    #[enum_value(name = "270 degrees clockwise", nick = "270")]
    Counterclockwise,
}

glib::wrapper! {
    /// Encodes video with Rockchip's hardware.
    pub struct RkMppEnc(ObjectSubclass<imp::RkMppEnc>)
        @extends gst_video::VideoEncoder, gst::Element, gst::Object,
        @implements gst::Preset;
}

/// Registers `rkmppenc`. It is preferred to other encoders where the kernel has the hardware's driver.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    for enumeration in [RateControl::static_type(), HeaderMode::static_type(), Rotation::static_type()] {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    // So that the registry is made anew when the driver comes or goes.
    plugin.add_dependency_simple(
        None,
        Some("/dev"),
        Some("mpp_service"),
        gst::PluginDependencyFlags::empty(),
    );
    let rank = if crate::device::node_exists() { gst::Rank::PRIMARY + 1 } else { gst::Rank::NONE };
    gst::Element::register(Some(plugin), "rkmppenc", rank, RkMppEnc::static_type())
}
