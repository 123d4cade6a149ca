// SPDX-License-Identifier: MPL-2.0

//! What `GST_DEBUG` shows of a session: lines of each concern in its own category, with their element, and no secrets. In a
//! program of its own: thresholds and log functions are the process's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is the failure report.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::*;
use gst::prelude::*;

const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg";

#[derive(Clone, Debug)]
struct Line {
    category: String,
    level: gst::DebugLevel,
    element: String,
    text: String,
}

/// Hears all lines of our categories at this level and below.
fn hear(level: gst::DebugLevel) -> Arc<Mutex<Vec<Line>>> {
    init();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = lines.clone();
    gst::log::remove_default_log_function();
    gst::log::add_log_function(move |category, level, _, _, _, object, message| {
        let category = category.name().to_string();
        if category.starts_with("livekitsink") {
            let element = object.map(|object| object.to_string()).unwrap_or_default();
            let text = message.get().map(|text| text.to_string()).unwrap_or_default();
            heard.lock().unwrap().push(Line { category, level, element, text });
        }
    });
    gst::log::set_threshold_for_name("livekitsink*", level);
    lines
}

/// A server that refuses whoever comes, and repeats what it was given.
fn refusing_server() -> String {
    let (server, url) = silent_server();
    std::thread::spawn(move || {
        for mut connection in server.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = std::io::Read::read(&mut connection, &mut head);
            let body = format!("no room for {TOKEN}");
            let _ = write!(connection, "HTTP/1.1 503 Busy\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

#[test]
fn the_session_s_lines_stand_under_their_concern_with_their_element_and_without_the_token() {
    let lines = hear(gst::DebugLevel::Trace);
    let url = refusing_server();
    let (pipelines, sinks): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (pipeline, sink, source) = live_pipeline(&url);
            sink.set_property("token", TOKEN);
            pipeline.set_state(gst::State::Playing).unwrap();
            push_all(&source, 2);
            (pipeline, sink)
        })
        .unzip();
    let said = |text: &str, element: &str| {
        let lines = lines.lock().unwrap();
        lines.iter().any(|line| line.text.contains(text) && line.element.contains(element))
    };
    for sink in &sinks {
        let name = sink.name();
        wait_until("the attempt of each element", || said("joining timeout=10s", &name));
        wait_until("its failure", || said("not joined error=", &name));
        wait_until("a word of the signalling crate", || said("connecting to ws://", &name));
    }
    pipelines.iter().for_each(stop);
    let lines = lines.lock().unwrap();
    let joining: Vec<_> = lines.iter().filter(|line| line.text.starts_with("joining ")).collect();
    assert!(joining.iter().all(|line| line.category == "livekitsink-signalling"), "{joining:?}");
    assert!(joining.iter().all(|line| line.level == gst::DebugLevel::Debug), "{joining:?}");
    let others: Vec<_> = lines.iter().filter(|line| line.text.starts_with("connecting to ")).collect();
    assert!(others.iter().all(|line| line.category == "livekitsink-signalling"), "{others:?}");
    assert!(others.iter().all(|line| line.level == gst::DebugLevel::Info), "{others:?}");
    let secrets: Vec<_> = lines.iter().filter(|line| line.text.contains(TOKEN)).collect();
    assert!(secrets.is_empty(), "{secrets:?}");
    assert!(lines.iter().any(|line| line.category == "livekitsink"));
}
