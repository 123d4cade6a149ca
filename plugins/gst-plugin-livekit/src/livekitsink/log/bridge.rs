// SPDX-License-Identifier: MPL-2.0

//! What the session and the crates below it say by `tracing` becomes lines of GStreamer's debug log, with the element they
//! are about.
//!
//! The subscriber is the session's own: it is in force while the session's task runs, and nowhere else. So it takes no
//! other's place, neither another element's nor one that an application has for itself.

use std::fmt::{self, Write as _};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use livekit_session::tracing;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use super::limit::Limits;
use super::scrub::scrub;
use super::{ALL, about, records};
use crate::livekitsink::LiveKitSink;

/// Longer lines are cut.
const MAX_LINE: usize = 4096;

/// An application has a global subscriber of its own: it gets what sessions say. Known before the first session.
static TAKEN: LazyLock<bool> = LazyLock::new(tracing::dispatcher::has_been_set);

/// Where a session of this element says what it does; `None` = where the application wants it.
pub(crate) fn dispatch(sink: &LiveKitSink) -> Option<Dispatch> {
    if *TAKEN {
        return None;
    }
    records::listen();
    Some(Dispatch::new(Bridge { sink: sink.downgrade(), limits: Mutex::default() }))
}

/// The element whose session is at work on this thread; `None` = something else is.
pub(super) fn current_sink() -> Option<LiveKitSink> {
    tracing::dispatcher::get_default(|dispatch| dispatch.downcast_ref::<Bridge>()?.sink.upgrade())
}

struct Bridge {
    sink: glib::WeakRef<LiveKitSink>,
    limits: Mutex<Limits<Identifier>>,
}

/// The session's own crate says at `debug` what a support person reads; others say at that level what they do all the
/// time.
fn level(metadata: &Metadata<'_>) -> gst::DebugLevel {
    let own = metadata.target().starts_with("livekit_session");
    match (*metadata.level(), own) {
        (Level::ERROR | Level::WARN, _) => gst::DebugLevel::Warning,
        (Level::INFO, _) => gst::DebugLevel::Info,
        (Level::DEBUG, true) => gst::DebugLevel::Debug,
        (Level::DEBUG, false) | (Level::TRACE, true) => gst::DebugLevel::Log,
        (Level::TRACE, false) => gst::DebugLevel::Trace,
    }
}

/// The most that anybody wants to see: what is above costs nothing, not even a look at the categories.
fn most() -> LevelFilter {
    let above = |level| ALL.iter().any(|category| category.above_threshold(level));
    match () {
        () if above(gst::DebugLevel::Log) => LevelFilter::TRACE,
        () if above(gst::DebugLevel::Debug) => LevelFilter::DEBUG,
        () if above(gst::DebugLevel::Info) => LevelFilter::INFO,
        () if above(gst::DebugLevel::Warning) => LevelFilter::WARN,
        () => LevelFilter::OFF,
    }
}

/// A line of somebody else's, without its secrets, and how many like it were not shown; with its file, module and line.
pub(super) fn show(
    category: &gst::DebugCategory,
    sink: Option<&super::super::LiveKitSink>,
    level: gst::DebugLevel,
    text: &str,
    missed: u32,
    (file, module, line): (Option<&str>, Option<&str>, Option<u32>),
) {
    let mut text = scrub(text);
    if missed > 0 {
        let _ = write!(text, " (and {missed} more like this, not shown)");
    }
    let file = file.unwrap_or("?");
    category.log(
        sink,
        level,
        glib::GString::from(file.rsplit('/').next().unwrap_or(file)).as_gstr(),
        module.unwrap_or("?"),
        line.unwrap_or_default(),
        format_args!("{text}"),
    );
}

impl Subscriber for Bridge {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(most())
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && about(metadata.target()).above_threshold(level(metadata))
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = level(metadata);
        let missed = match level {
            // Who asks for everything gets it.
            gst::DebugLevel::Trace => 0,
            _ => {
                let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(missed) = limits.ask(metadata.callsite(), Instant::now()) else { return };
                missed
            }
        };
        let mut line = Line::default();
        event.record(&mut line);
        let place = (metadata.file(), metadata.module_path(), metadata.line());
        show(about(metadata.target()), self.sink.upgrade().as_ref(), level, &line.text(), missed, place);
    }

    // Spans are not shown.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A message and its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.fields)
    }
}

/// Takes no more than fits.
pub(super) struct Bounded<'a>(pub(super) &'a mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = MAX_LINE.saturating_sub(self.0.len());
        let end = (0..=left.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        self.0.push_str(text.get(..end).unwrap_or_default());
        // The rest of what is to be printed need not be made.
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(Bounded(&mut self.message), "{value:?}"),
            // What the crate `log` hands on.
            name if name.starts_with("log.") => Ok(()),
            name => write!(Bounded(&mut self.fields), " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn lines_are_filtered_by_concern_limited_and_scrubbed() {
        gst::init().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let lines = heard.clone();
        gst::log::remove_default_log_function();
        gst::log::add_log_function(move |category, level, _, _, _, object, message| {
            let text = message.get().map(|text| text.to_string()).unwrap_or_default();
            if text.contains("this test") {
                let element = object.map(|object| object.to_string()).unwrap_or_default();
                lines.lock().unwrap().push((category.name().to_string(), level, element, text));
            }
        });
        super::super::BITRATE.set_threshold(gst::DebugLevel::Debug);
        super::super::MEDIA.set_threshold(gst::DebugLevel::Warning);
        let sink: LiveKitSink = glib::Object::builder().property("name", "heard").build();
        let bridge = Bridge { sink: sink.downgrade(), limits: Mutex::default() };
        tracing::dispatcher::with_default(&Dispatch::new(bridge), || {
            tracing::warn!(target: "str0m::dtls", token = "hush", "this test warns");
            tracing::debug!(target: "str0m::dtls", "this test says too much of the media");
            tracing::debug!(target: "str0m::bwe", "this test says too much of the estimator");
            for n in 0..1000 {
                tracing::debug!(target: "livekit_session::congestion", n, "this test goes on and on");
            }
        });
        let heard = heard.lock().unwrap();
        let warning =
            ("livekitsink-media", gst::DebugLevel::Warning, "heard", r#"this test warns token="***""#);
        let first = heard.first().unwrap();
        assert_eq!((first.0.as_str(), first.1, first.2.as_str(), first.3.as_str()), warning);
        assert!(heard.iter().all(|(.., text)| !text.contains("too much")), "{heard:?}");
        let storm: Vec<_> = heard.iter().filter(|(.., text)| text.contains("goes on")).collect();
        // More than the limit if the machine stood still meanwhile.
        assert!((20..500).contains(&storm.len()), "{}", storm.len());
        let (category, level, _, text) = storm[0];
        assert_eq!((category.as_str(), *level), ("livekitsink-bitrate", gst::DebugLevel::Debug));
        assert_eq!(text, "this test goes on and on n=0");
    }

    #[test]
    fn a_line_is_bounded_and_cut_between_characters() {
        let mut text = String::new();
        let written = write!(Bounded(&mut text), "{}", "ä".repeat(MAX_LINE));
        assert!(written.is_err() && text.len() == MAX_LINE);
        let mut text = "x".to_owned();
        assert!(write!(Bounded(&mut text), "{}", "ä".repeat(MAX_LINE)).is_err());
        assert_eq!(text.len(), MAX_LINE - 1);
        assert!(write!(Bounded(&mut String::new()), "short").is_ok());
    }
}
