// SPDX-License-Identifier: MPL-2.0

//! What the payloader has done, as a structure.

use std::time::Duration;

use gst::prelude::*;
use gst_rtp::prelude::*;

use crate::limiter::Limiter;

/// Counters since the element was started.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub frames: u64,
    pub packets: u64,
    pub bytes: u64,
    pub dropped: Limiter,
    pub last: Option<Last>,
    pub prepare_time: Duration,
    pub max_packets_per_frame: u64,
    pub running_time: Option<gst::ClockTime>,
}

/// The last picture sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub q: u8,
    pub kind: u8,
    pub width: u16,
    pub height: u16,
}

impl Stats {
    /// The structure, with the fields that the base class would give: gst-rtsp-server answers PLAY with them.
    pub fn structure(&self, element: &super::RtpJpegPay) -> gst::Structure {
        let caps = element.src_pad().current_caps();
        let negotiated = |name: &str| {
            caps.as_ref().and_then(|caps| caps.structure(0)?.get::<u32>(name).ok()).unwrap_or_default()
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let clock_rate = caps.as_ref().and_then(|caps| caps.structure(0)?.get::<i32>("clock-rate").ok());
        let mut dropped = gst::Structure::new_empty("dropped");
        for (reason, count) in self.dropped.totals() {
            dropped.set(reason, count);
        }
        let last = self.last.unwrap_or(Last { q: 0, kind: 0, width: 0, height: 0 });
        gst::Structure::builder("application/x-rtp-payload-stats")
            .field("clock-rate", clock_rate.and_then(|rate| u32::try_from(rate).ok()).unwrap_or_default())
            .field("running-time", self.running_time.map_or(u64::MAX, gst::ClockTime::nseconds))
            .field("seqnum", element.seqnum())
            .field("timestamp", element.timestamp())
            .field("ssrc", negotiated("ssrc"))
            .field("pt", element.pt())
            .field("seqnum-offset", negotiated("seqnum-offset"))
            .field("timestamp-offset", negotiated("timestamp-offset"))
            .field("frames", self.frames)
            .field("packets", self.packets)
            .field("bytes", self.bytes)
            .field("frames-dropped", self.dropped.total())
            .field("dropped", dropped)
            .field("last-q", u32::from(last.q))
            .field("last-type", u32::from(last.kind))
            .field("last-width", u32::from(last.width))
            .field("last-height", u32::from(last.height))
            .field("prepare-time", nanos(self.prepare_time))
            .field("max-packets-per-frame", self.max_packets_per_frame)
            .build()
    }
}
