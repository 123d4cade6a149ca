// SPDX-License-Identifier: MPL-2.0

//! Statistics.

use std::time::Duration;

use super::settings::nanos;

/// Counted since READY.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    pub frames_in: u64,
    pub frames_out: u64,
    /// The device made nothing of them.
    pub frames_dropped: u64,
    /// Nobody needed them.
    pub frames_paused: u64,
    /// Read where they were.
    pub frames_imported: u64,
    /// Copied once.
    pub frames_copied: u64,
    pub bytes_out: u64,
    pub keyframes: u64,
    pub keyframes_requested: u64,
    pub restarts: u64,
    pub headers_inserted: u64,
    pub encode_time: Duration,
    pub encode_time_last: Duration,
    pub encode_time_max: Duration,
    pub latency: Duration,
    pub device: String,
    pub driver: String,
    pub codec: String,
    pub profile: String,
    pub level: String,
    pub bitrate: u32,
}

impl Stats {
    /// `name` is that of the structure.
    pub fn structure(&self, name: &str) -> gst::Structure {
        let mean = self.encode_time.checked_div(u32::try_from(self.frames_out).unwrap_or(u32::MAX));
        gst::Structure::builder(name)
            .field("frames-in", self.frames_in)
            .field("frames-out", self.frames_out)
            .field("frames-dropped", self.frames_dropped)
            .field("frames-paused", self.frames_paused)
            .field("frames-imported", self.frames_imported)
            .field("frames-copied", self.frames_copied)
            .field("bytes-out", self.bytes_out)
            .field("keyframes", self.keyframes)
            .field("keyframes-requested", self.keyframes_requested)
            .field("restarts", self.restarts)
            .field("headers-inserted", self.headers_inserted)
            .field("encode-time-mean", nanos(mean.unwrap_or_default()))
            .field("encode-time-last", nanos(self.encode_time_last))
            .field("encode-time-max", nanos(self.encode_time_max))
            .field("latency", nanos(self.latency))
            .field("device", &self.device)
            .field("driver", &self.driver)
            .field("codec", &self.codec)
            .field("profile", &self.profile)
            .field("level", &self.level)
            .field("bitrate", self.bitrate)
            .build()
    }
}
