// SPDX-License-Identifier: MPL-2.0

//! The `v4l2m2menc` element.
//!
//! SECTION:element-v4l2m2menc
//!
//! `v4l2m2menc` encodes with the hardware behind any stateful V4L2 mem2mem encoder of the kernel (Raspberry Pi up to 4,
//! Qualcomm, TI, …): H.264, H.265, VP8, or FWHT (the kernel's virtual codec), as downstream wants and the device has, H.264
//! first. Without `device`, the first node that encodes is taken.
//!
//! Keyframes asked for are looked for in what comes out, and asked for in another way when they do not come; every keyframe
//! carries its parameter sets; profile and level are chosen when downstream leaves them open; sizes that the device does
//! not take are padded and cropped.
//!
//! ## Example pipelines
//! Camera to a file:
//! ```console
//! gst-launch-1.0 -e v4l2src ! videoconvert ! v4l2m2menc bitrate=2000000 ! h264parse ! matroskamux ! filesink location=camera.mkv
//! ```
//! The kernel's virtual codec, which needs no hardware (`modprobe vicodec`):
//! ```console
//! gst-launch-1.0 videotestsrc num-buffers=100 ! video/x-raw,width=1280,height=720 ! v4l2m2menc ! video/x-fwht ! fakesink
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod imp;
mod settings;

/// How bits are distributed.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstV4l2M2mEncRateControl")]
#[non_exhaustive]
pub enum RateControl {
    /// Constant bitrate.
    #[default]
    #[enum_value(name = "Constant bitrate", nick = "cbr")]
    Cbr,
    /// Variable bitrate below `peak-bitrate`.
    #[enum_value(name = "Variable bitrate below peak-bitrate", nick = "vbr")]
    Vbr,
    /// Constant quality (`quality`).
    #[enum_value(name = "Constant quality", nick = "cq")]
    Cq,
    /// No rate control.
    #[enum_value(name = "No rate control: fixed quantisers", nick = "fixqp")]
    FixQp,
}

pub use crate::encoder::{HeaderMode, IoMode, LatencyMode};

glib::wrapper! {
    /// Encodes video with a stateful V4L2 mem2mem device.
    pub struct V4l2M2mEnc(ObjectSubclass<imp::V4l2M2mEnc>)
        @extends gst_video::VideoEncoder, gst::Element, gst::Object,
        @implements gst::Preset;
}

/// Registers `v4l2m2menc`.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    for enumeration in [
        RateControl::static_type(),
        HeaderMode::static_type(),
        IoMode::static_type(),
        LatencyMode::static_type(),
    ] {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    // Whether there is a device is known only when one is opened, so nobody gets this one without asking for it.
    gst::Element::register(Some(plugin), "v4l2m2menc", gst::Rank::NONE, V4l2M2mEnc::static_type())
}
