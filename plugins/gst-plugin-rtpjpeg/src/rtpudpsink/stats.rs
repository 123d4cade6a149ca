// SPDX-License-Identifier: MPL-2.0

//! Counters of the sink. Written without a lock by the streaming thread, read by anybody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub system_calls: AtomicU64,
    pub gso_packets: AtomicU64,
    pub dropped: AtomicU64,
    pub icmp_errors: AtomicU64,
    pub send_errors: AtomicU64,
    pub paced_frames: AtomicU64,
    pub gso: AtomicBool,
}

impl Stats {
    pub fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Relaxed);
    }

    pub fn reset(&self) {
        for counter in self.counters() {
            counter.1.store(0, Relaxed);
        }
    }

    fn counters(&self) -> [(&'static str, &AtomicU64); 8] {
        [
            ("packets", &self.packets),
            ("bytes", &self.bytes),
            ("system-calls", &self.system_calls),
            ("gso-packets", &self.gso_packets),
            ("packets-dropped", &self.dropped),
            ("icmp-errors", &self.icmp_errors),
            ("send-errors", &self.send_errors),
            ("paced-frames", &self.paced_frames),
        ]
    }

    pub fn structure(&self) -> gst::Structure {
        let mut structure = gst::Structure::new_empty("application/x-rtp-udp-sink-stats");
        for (name, counter) in self.counters() {
            structure.set(name, counter.load(Relaxed));
        }
        structure.set("gso", self.gso.load(Relaxed));
        structure
    }
}
