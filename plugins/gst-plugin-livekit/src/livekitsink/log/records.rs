// SPDX-License-Identifier: MPL-2.0

//! What LiveKit's signalling crates say by the crate `log` becomes lines of GStreamer's debug log, too.
//!
//! Their logger is the whole process's, and there can be only one. So it is ours only where somebody wants to see these lines
//! when a session starts, and no application came first; one that is linked with the plugin and has a logger hears them itself.

use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use gst::prelude::*;

use super::SIGNALLING;
use super::bridge::{Bounded, current_sink, show};
use super::limit::Limits;

/// The crates that we listen to. Others (the WebSocket's) print what they send byte for byte, tokens included.
const CRATES: [&str; 2] = ["livekit_signaling", "livekit_net"];

static LISTENING: LazyLock<bool> = LazyLock::new(|| ::log::set_logger(&Records).is_ok());

/// Begins to listen, if anybody wants to see it.
pub(super) fn listen() {
    let most = most();
    if most != LevelFilter::Off && *LISTENING {
        ::log::set_max_level(most);
    }
}

/// As with `tracing`: what others say at `debug` they say all the time.
fn level(level: Level) -> gst::DebugLevel {
    match level {
        Level::Error | Level::Warn => gst::DebugLevel::Warning,
        Level::Info => gst::DebugLevel::Info,
        Level::Debug => gst::DebugLevel::Log,
        Level::Trace => gst::DebugLevel::Trace,
    }
}

fn most() -> LevelFilter {
    let wanted = |wanted: &Level| SIGNALLING.above_threshold(level(*wanted));
    Level::iter().filter(wanted).last().map_or(LevelFilter::Off, |level| level.to_level_filter())
}

type Place = (Option<&'static str>, Option<u32>);

struct Records;

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let of = metadata.target().split("::").next().unwrap_or_default();
        CRATES.contains(&of) && SIGNALLING.above_threshold(level(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        static LIMITS: LazyLock<Mutex<Limits<Place>>> = LazyLock::new(Mutex::default);
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = (record.file_static(), record.line());
        let allowed = LIMITS.lock().unwrap_or_else(PoisonError::into_inner).ask(place, Instant::now());
        let Some(missed) = allowed else { return };
        let mut text = String::new();
        // What is too long is cut.
        let _ = write!(Bounded(&mut text), "{}", record.args());
        let place = (record.file(), record.module_path(), record.line());
        show(&SIGNALLING, current_sink().as_ref(), level(record.level()), &text, missed, place);
    }

    fn flush(&self) {}
}
