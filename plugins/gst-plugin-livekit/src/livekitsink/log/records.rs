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
        let level = level(record.level());
        let missed = match level {
            // Who asks for everything gets it.
            gst::DebugLevel::Trace => 0,
            _ => {
                let place = (record.file_static(), record.line());
                let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(missed) = limits.ask(place, Instant::now()) else { return };
                missed
            }
        };
        let mut text = String::new();
        // What is too long is cut.
        let _ = write!(Bounded(&mut text), "{}", record.args());
        let place = (record.file(), record.module_path(), record.line());
        show(&SIGNALLING, current_sink().as_ref(), level, &text, missed, place);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_said_at_the_lowest_level_is_not_limited() {
        gst::init().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let lines = heard.clone();
        let function = gst::log::add_log_function(move |_, level, _, _, _, _, message| {
            let text = message.get().map(|text| text.to_string()).unwrap_or_default();
            if text.contains("no limit here") {
                lines.lock().unwrap().push(level);
            }
        });
        let before = SIGNALLING.threshold();
        SIGNALLING.set_threshold(gst::DebugLevel::Trace);
        for level in [Level::Debug, Level::Trace] {
            for n in 0..100 {
                let words = format_args!("line {n}, no limit here");
                let mut record = Record::builder();
                record.target("livekit_signaling::signal_stream").level(level).line(Some(1));
                Records.log(&record.args(words).build());
            }
        }
        SIGNALLING.set_threshold(before);
        gst::log::remove_log_function(function);
        let heard = heard.lock().unwrap();
        let count = |wanted| heard.iter().filter(|level| **level == wanted).count();
        assert_eq!(count(gst::DebugLevel::Trace), 100);
        // More than the limit if the machine stood still meanwhile.
        assert!((20..100).contains(&count(gst::DebugLevel::Log)), "{}", count(gst::DebugLevel::Log));
    }
}
