// SPDX-License-Identifier: MPL-2.0

//! The README's tables say what the element has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is the failure report.

mod common;

use std::collections::BTreeSet;

use common::{closed_port, element_messages, init, live_pipeline, make_sink, push_all, stop, wait_until};
use gst::prelude::*;

const README: &str = include_str!("../README.md");

/// The names in the first column of the table whose head begins with `| head |`.
fn table(head: &str) -> BTreeSet<String> {
    let start = format!("| {head} |");
    let names: BTreeSet<String> = README
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('`').nth(1).filter(|_| line.starts_with("| `")))
        .map(String::from)
        .collect();
    assert!(!names.is_empty(), "no table with the head '{head}'");
    names
}

fn own_properties(object: &impl IsA<gst::glib::Object>) -> BTreeSet<String> {
    let own = object.type_();
    let all = object.list_properties();
    all.iter().filter(|p| p.owner_type() == own).map(|p| p.name().to_string()).collect()
}

#[test]
fn the_tables_list_exactly_the_properties_and_signals() {
    init();
    let sink = make_sink("ws://127.0.0.1:1");
    assert_eq!(table("property"), own_properties(&sink));
    let pad = sink.request_pad_simple("video_%u").unwrap();
    assert_eq!(table("pad property"), own_properties(&pad));
    let data = sink.request_pad_simple("data_%u").unwrap();
    assert_eq!(table("data pad property"), own_properties(&data));
    for signal in table("signal") {
        assert!(gst::glib::subclass::SignalId::lookup(&signal, sink.type_()).is_some(), "{signal}");
    }
}

#[test]
fn defaults_in_the_table_are_those_of_the_element() {
    init();
    let sink = gst::ElementFactory::make("livekitsink").build().unwrap();
    for (name, expected) in [
        ("connect-timeout", "10000000000"),
        ("reconnect-attempts", "-1"),
        ("sync", "true"),
        ("keyframe-min-interval", "500000000"),
        ("max-queue-time", "300000000"),
        ("gop-cache-time", "2000000000"),
    ] {
        let line = README.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        assert_eq!(line.split('|').nth(3).unwrap().trim(), expected, "{name}");
        let value = sink.property_value(name).transform::<String>().unwrap().get::<String>().unwrap();
        assert_eq!(value.to_lowercase(), expected, "{name}");
    }
}

#[test]
fn statistics_have_no_field_that_the_tables_lack() {
    init();
    let (pipeline, sink, source) = live_pipeline(&closed_port());
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    element_messages(&pipeline, "livekit-connecting", 1);
    let track = || sink.property::<gst::Structure>("stats").get::<gst::Structure>("video_0").ok();
    wait_until("the track's statistics", || track().is_some());
    let all = sink.property::<gst::Structure>("stats");
    let (fields, track_fields) = (table("field"), table("track field"));
    let data = all.get::<gst::Structure>("data").unwrap();
    let known: BTreeSet<String> = README.split('`').map(String::from).collect();
    assert!(data.fields().all(|field| known.contains(field.as_str())), "{data}");
    for field in all.fields().filter(|field| *field != "video_0") {
        assert!(fields.contains(field.as_str()), "{field}");
    }
    for field in track().unwrap().fields() {
        assert!(track_fields.contains(field.as_str()), "{field}");
    }
    stop(&pipeline);
}
