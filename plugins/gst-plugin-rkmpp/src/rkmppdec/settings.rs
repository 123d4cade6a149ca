// SPDX-License-Identifier: MPL-2.0

//! Properties of the decoder and their defaults.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub discard_corrupted: bool,
    pub low_latency: bool,
    pub arm_afbc: bool,
    pub library_path: Option<String>,
    pub extra_config: Option<gst::Structure>,
}

impl Settings {
    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "discard-corrupted" => self.discard_corrupted = value.get().unwrap_or(self.discard_corrupted),
            "low-latency" => self.low_latency = value.get().unwrap_or(self.low_latency),
            "arm-afbc" => self.arm_afbc = value.get().unwrap_or(self.arm_afbc),
            "library-path" => self.library_path = value.get().unwrap_or_default(),
            "extra-config" => self.extra_config = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "discard-corrupted" => self.discard_corrupted.to_value(),
            "low-latency" => self.low_latency.to_value(),
            "arm-afbc" => self.arm_afbc.to_value(),
            "library-path" => self.library_path.to_value(),
            "extra-config" => self.extra_config.to_value(),
            _ => return None,
        })
    }
}

/// The element's properties.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        vec![
            glib::ParamSpecBoolean::builder("discard-corrupted").nick("Discard corrupted pictures").blurb("Leave out pictures with errors instead of marking their buffers as corrupted").default_value(default.discard_corrupted).mutable_playing().build(),
            glib::ParamSpecBoolean::builder("low-latency").nick("Low latency").blurb("Pictures come in the order of decoding, at once: only for streams without B-frames").default_value(default.low_latency).mutable_ready().build(),
            glib::ParamSpecBoolean::builder("arm-afbc").nick("Compressed pixels").blurb("Write compressed pixels (AFBC) if downstream's caps take them (DMA_DRM, GStreamer 1.24): less memory bandwidth. H.264, H.265 and VP9 only").default_value(default.arm_afbc).mutable_ready().build(),
            glib::ParamSpecString::builder("library-path").nick("Library").blurb("File of librockchip_mpp; default: the environment variable ROCKCHIP_MPP_LIBRARY, then the usual names").mutable_ready().build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("extra-config").nick("Further configuration").blurb("Keys of MPP's decoder configuration and their numbers, like extra-config=\"mpp,base:disable_error=1\"").mutable_ready().build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Counters and the state of the decoder")
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
