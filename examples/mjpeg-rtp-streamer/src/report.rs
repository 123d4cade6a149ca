// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cameras' counters as a log line and as JSON.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::counters::{Counters, Snapshot};

/// One camera's counters under its names.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `camera1`, …
    pub key: String,
    /// What the configuration calls it.
    pub name: String,
    /// Its counters.
    pub counters: Arc<Counters>,
}

/// All cameras, for whoever wants to read their counters. Cameras come and go only with the configuration.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<RwLock<Vec<Entry>>>);

impl Board {
    /// Takes the place of what was there.
    pub fn set(&self, entries: Vec<Entry>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    /// What is there now.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A log line for a camera: what it did since the last line.
pub fn line(key: &str, now: &Snapshot, before: Option<&Snapshot>, elapsed: Duration) -> String {
    let since = |pick: fn(&Snapshot) -> u64| pick(now).saturating_sub(before.map_or(0, pick));
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let rate = |count: u64| count as f64 / seconds;
    let mut text = format!(
        "{key}: {}, {:.1} pictures/s, {:.1} Mbit/s, {:.0} packets/s, longest picture {} packets",
        now.state.name(),
        rate(since(|s| s.frames)),
        rate(since(|s| s.bytes) * 8) / 1e6,
        rate(since(|s| s.packets)),
        now.max_packets_per_frame
    );
    for (count, what) in [
        (since(|s| s.frames_dropped), "pictures could not be sent"),
        (since(|s| s.packets_dropped), "packets dropped"),
        (since(|s| s.icmp_errors), "times nobody was listening"),
        (since(|s| s.send_errors), "send errors"),
        (since(|s| s.restarts), "restarts"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    if since(|s| s.receiver_reports) > 0 {
        text += &format!(", receiver lost {} %", now.receiver_fraction_lost * 100 / 256);
    }
    text
}

/// All counters.
pub fn json(entries: &[Entry]) -> Value {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let cameras: serde_json::Map<_, _> = entries
        .iter()
        .map(|entry| {
            let s = entry.counters.snapshot();
            let value = json!({
                "name": entry.name,
                "state": s.state.name(),
                "frames": s.frames,
                "frames_dropped": s.frames_dropped,
                "packets": s.packets,
                "bytes": s.bytes,
                "packets_dropped": s.packets_dropped,
                "icmp_errors": s.icmp_errors,
                "send_errors": s.send_errors,
                "system_calls": s.system_calls,
                "max_packets_per_frame": s.max_packets_per_frame,
                "prepare_time_ns": s.prepare_time_ns,
                "restarts": s.restarts,
                "sender_reports": s.sender_reports,
                "receiver": {
                    "reports": s.receiver_reports,
                    "fraction_lost_256": s.receiver_fraction_lost,
                    "lost": s.receiver_lost,
                    "jitter_us": s.receiver_jitter_us,
                    "round_trip_us": s.round_trip_us,
                },
            });
            (entry.key.clone(), value)
        })
        .collect();
    json!({ "time": time.as_secs_f64(), "cameras": cameras })
}

/// Writes a file so that readers see the old one or the new one, nothing between; `-` is a line on standard output.
///
/// # Errors
/// The system's.
pub fn publish(path: &Path, text: &str) -> std::io::Result<()> {
    if path == Path::new("-") {
        return writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    std::fs::write(temporary, text)?;
    std::fs::rename(temporary, path).inspect_err(|_| {
        let _ = std::fs::remove_file(temporary);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn counters() -> Arc<Counters> {
        let counters = Counters::default();
        counters.set_state(crate::counters::State::Streaming);
        counters.frames.store(300, Relaxed);
        counters.bytes.store(12_500_000, Relaxed);
        counters.packets.store(9000, Relaxed);
        Arc::new(counters)
    }

    #[test]
    fn a_line_tells_what_happened_since_the_last_one() {
        let counters = counters();
        let before = counters.snapshot();
        counters.frames.store(600, Relaxed);
        counters.bytes.store(25_000_000, Relaxed);
        counters.packets.store(18_000, Relaxed);
        counters.restarts.store(2, Relaxed);
        assert_eq!(
            line("camera1", &counters.snapshot(), Some(&before), Duration::from_secs(10)),
            "camera1: streaming, 30.0 pictures/s, 10.0 Mbit/s, 900 packets/s, longest picture 0 packets, 2 restarts"
        );
    }

    #[test]
    fn json_has_all_cameras() {
        let entry = Entry { key: "camera1".into(), name: "front \"door\"".into(), counters: counters() };
        let text = json(&[entry]).to_string();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["cameras"]["camera1"]["frames"], 300);
        assert_eq!(value["cameras"]["camera1"]["name"], "front \"door\"");
    }

    #[test]
    fn a_file_is_replaced() {
        let folder = std::env::temp_dir().join(format!("mjpeg-rtp-streamer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("stats.json");
        publish(&file, "old").unwrap();
        publish(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(publish(&folder.join("none/stats.json"), "x").is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
