// SPDX-License-Identifier: MPL-2.0

//! Properties of the payloader and their defaults.

use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use rtp_jpeg::{MIN_PAYLOAD, QuantPolicy};

use super::{OnUnsupported, QuantMode, RestartMode};

/// Length of an RTP header without contributing sources and extensions (RFC 3550 §5.1).
pub(crate) const RTP_HEADER_LEN: usize = 12;
/// The smallest packet that holds the longest headers and a byte of the picture.
pub(crate) const MIN_MTU: usize = RTP_HEADER_LEN + MIN_PAYLOAD;
/// No IP packet is longer, so nothing is gained by a longer one.
const MAX_MTU: u32 = 65535;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub mtu: u32,
    pub quant_mode: QuantMode,
    pub quant_interval: Duration,
    pub restart_mode: RestartMode,
    pub on_unsupported: OnUnsupported,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // The base class's.
            mtu: 1400,
            quant_mode: QuantMode::default(),
            quant_interval: Duration::from_secs(2),
            restart_mode: RestartMode::default(),
            on_unsupported: OnUnsupported::default(),
        }
    }
}

impl Settings {
    pub fn mtu(&self) -> usize {
        self.mtu.min(MAX_MTU) as usize
    }

    pub fn quant_policy(&self) -> QuantPolicy {
        match self.quant_mode {
            QuantMode::Auto => QuantPolicy::Auto,
            QuantMode::Static => QuantPolicy::Static,
            QuantMode::InbandOnce => QuantPolicy::InbandOnce { resend: self.quant_interval },
            QuantMode::InbandEveryFrame => QuantPolicy::InbandEveryFrame,
        }
    }

    pub fn restart_mode(&self) -> rtp_jpeg::RestartMode {
        match self.restart_mode {
            RestartMode::Auto => rtp_jpeg::RestartMode::Auto,
            RestartMode::WholeFrame => rtp_jpeg::RestartMode::WholeFrame,
            RestartMode::Aligned => rtp_jpeg::RestartMode::Aligned,
        }
    }

    /// Sets a property.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "mtu" => self.mtu = value.get().unwrap_or(self.mtu),
            "quant-mode" => self.quant_mode = value.get().unwrap_or_default(),
            "quant-interval" => {
                self.quant_interval = value.get().map_or(self.quant_interval, Duration::from_nanos);
            }
            "restart-mode" => self.restart_mode = value.get().unwrap_or_default(),
            "on-unsupported" => self.on_unsupported = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "mtu" => self.mtu.to_value(),
            "quant-mode" => self.quant_mode.to_value(),
            "quant-interval" => nanos(self.quant_interval).to_value(),
            "restart-mode" => self.restart_mode.to_value(),
            "on-unsupported" => self.on_unsupported.to_value(),
            _ => return None,
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The properties, for registration.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        vec![
            // In place of the base class's property, which allows sizes that no frame can be sent with.
            glib::ParamSpecUInt::builder("mtu")
                .nick("MTU")
                .blurb("Most bytes of one packet from its RTP header on, header extensions included")
                .minimum(MIN_MTU as u32)
                .default_value(default.mtu)
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("quant-mode", default.quant_mode)
                .nick("Quantisation table mode")
                .blurb("How receivers learn the quantisation tables")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt64::builder("quant-interval")
                .nick("Quantisation table interval")
                .blurb("Time between two frames that carry their tables with quant-mode=inband-once (ns)")
                .default_value(nanos(default.quant_interval))
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("restart-mode", default.restart_mode)
                .nick("Restart mode")
                .blurb("Whether packets hold whole restart intervals of pictures that have them")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("on-unsupported", default.on_unsupported)
                .nick("On unsupported")
                .blurb("What becomes of a picture that RFC 2435 cannot carry")
                .mutable_playing()
                .build(),
            // In place of the base class's property: its fields and those about pictures.
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Statistics: those of every RTP payloader, and frames, packets, bytes, drops by reason",
                )
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
