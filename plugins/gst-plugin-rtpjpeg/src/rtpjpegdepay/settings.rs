// SPDX-License-Identifier: MPL-2.0

//! Properties of the depayloader and their defaults.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use rtp_jpeg::MAX_SCAN_LEN;

/// Below this no picture of use is left.
const MIN_MAX_FRAME: u32 = 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub output_corrupt: bool,
    pub max_frame_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { output_corrupt: false, max_frame_size: MAX_SCAN_LEN as u32 }
    }
}

impl Settings {
    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "output-corrupt" => self.output_corrupt = value.get().unwrap_or(self.output_corrupt),
            "max-frame-size" => self.max_frame_size = value.get().unwrap_or(self.max_frame_size),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "output-corrupt" => self.output_corrupt.to_value(),
            "max-frame-size" => self.max_frame_size.to_value(),
            _ => return None,
        })
    }
}

/// The properties, for registration.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        vec![
            glib::ParamSpecBoolean::builder("output-corrupt")
                .nick("Output corrupt frames")
                .blurb(
                    "Whether frames with losses go on, patched and flagged CORRUPTED, where restart intervals aligned \
                     to packets allow it",
                )
                .default_value(default.output_corrupt)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("max-frame-size")
                .nick("Maximum frame size")
                .blurb("Most bytes of entropy-coded data in a frame; packets beyond it are dropped")
                .minimum(MIN_MAX_FRAME)
                .maximum(MAX_SCAN_LEN as u32)
                .default_value(default.max_frame_size)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("frame-stats")
                .nick("Frame statistics")
                .blurb("Frames put out, patched, and lost by reason; packets refused by reason")
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
