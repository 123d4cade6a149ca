// SPDX-License-Identifier: MPL-2.0

//! The `jetsonv4l2enc` element.
//!
//! SECTION:element-jetsonv4l2enc
//!
//! `jetsonv4l2enc` encodes with NVENC of NVIDIA's Jetson boards (those that have it: Orin Nano has none): H.264, H.265 or
//! AV1 (Orin), as downstream wants, H.264 first. NVIDIA's V4L2 library is looked for when the element goes to READY, so no
//! header of NVIDIA's is needed to build it, and no Jetson to install it.
//!
//! The defaults are those for live video: highest clocks, fastest preset, no B-frames, one reference, no reordering, a
//! buffer of four frames. Keyframes asked for are looked for in what comes out, and asked for in another way when they do
//! not come; every keyframe carries its parameter sets.
//!
//! ## Example pipelines
//! Camera to a file:
//! ```console
//! gst-launch-1.0 -e v4l2src ! videoconvert ! jetsonv4l2enc bitrate=4000000 ! h264parse ! matroskamux ! filesink location=camera.mkv
//! ```
//! The same in AV1:
//! ```console
//! gst-launch-1.0 -e v4l2src ! videoconvert ! jetsonv4l2enc bitrate=2000000 ! av1parse ! matroskamux ! filesink location=camera.mkv
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;
use v4l2_m2m::ops::NODES;

mod imp;
mod settings;

pub use crate::encoder::{HeaderMode, LatencyMode};

/// How bits are distributed.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstJetsonV4l2EncRateControl")]
#[non_exhaustive]
pub enum RateControl {
    /// Constant bitrate.
    #[default]
    #[enum_value(name = "Constant bitrate", nick = "cbr")]
    Cbr,
    /// Variable bitrate below `peak-bitrate`.
    #[enum_value(name = "Variable bitrate below peak-bitrate", nick = "vbr")]
    Vbr,
    /// No rate control.
    #[enum_value(name = "No rate control: fixed quantisers", nick = "fixqp")]
    FixQp,
}

/// Speed against quality.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstJetsonV4l2EncPreset")]
#[non_exhaustive]
#[repr(i32)]
pub enum Preset {
    /// Least latency.
    #[default]
    #[enum_value(name = "Least latency", nick = "ultrafast")]
    UltraFast = 1,
    /// Fast.
    #[enum_value(name = "Fast", nick = "fast")]
    Fast = 2,
    /// Between.
    #[enum_value(name = "Between", nick = "medium")]
    Medium = 3,
    /// Best quality.
    #[enum_value(name = "Best quality", nick = "slow")]
    Slow = 4,
}

glib::wrapper! {
    /// Encodes video with NVENC of Jetson boards.
    pub struct JetsonV4l2Enc(ObjectSubclass<imp::JetsonV4l2Enc>)
        @extends gst_video::VideoEncoder, gst::Element, gst::Object,
        @implements gst::Preset;
}

/// Registers `jetsonv4l2enc`. It is preferred to other encoders where NVENC has a node.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    for enumeration in [RateControl::static_type(), Preset::static_type()] {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    // So that the registry is made anew when a node comes or goes.
    plugin.add_dependency_simple(
        None,
        Some("/dev"),
        Some("v4l2-nvenc,nvhost-msenc"),
        gst::PluginDependencyFlags::empty(),
    );
    let found = NODES.iter().any(|node| std::path::Path::new(node).exists());
    let rank = if found { gst::Rank::PRIMARY + 1 } else { gst::Rank::NONE };
    gst::Element::register(Some(plugin), "jetsonv4l2enc", rank, JetsonV4l2Enc::static_type())
}
