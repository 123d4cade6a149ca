// SPDX-License-Identifier: MPL-2.0

//! Data pads and signals without a room.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is the failure report.

mod common;

use common::*;
use gst::glib;
use gst::prelude::*;

fn data_source(caps: &str, live: bool) -> gst::Element {
    gst::ElementFactory::make("appsrc")
        .property("is-live", live)
        .property("format", gst::Format::Time)
        .property("caps", caps.parse::<gst::Caps>().unwrap())
        .build()
        .unwrap()
}

fn link(source: &gst::Element, sink: &gst::Element) {
    source.link_pads(Some("src"), sink, Some("data_%u")).unwrap();
}

#[test]
fn only_data_is_linked_to_a_data_pad_by_itself() {
    init();
    let templates = gst::ElementFactory::find("livekitsink").unwrap().static_pad_templates();
    let names: Vec<_> = templates.iter().map(|t| t.name_template().to_string()).collect();
    assert_eq!(names.last().map(String::as_str), Some("data_%u"), "{names:?}");
    let sink = make_sink("ws://127.0.0.1:1");
    let filter = |caps: &str| {
        let caps = caps.parse::<gst::Caps>().unwrap();
        gst::ElementFactory::make("capsfilter").property("caps", caps).build().unwrap()
    };
    let anything = gst::ElementFactory::make("filesrc").build().unwrap();
    for (source, pad) in &[
        (filter("meta/x-klv,parsed=(boolean)true"), "data_0"),
        (filter("application/json"), "data_1"),
        (filter("text/x-raw,format=utf8"), "data_2"),
        (filter("video/x-h264"), "video_0"),
        (anything, "video_1"),
    ] {
        source.link(&sink).unwrap();
        assert_eq!(source.static_pad("src").unwrap().peer().unwrap().name(), *pad);
    }
    assert!(filter("application/x-rtp").link(&sink).is_err());
}

#[test]
fn data_pads_are_children_with_properties_and_leave_nothing_behind() {
    init();
    let sink = make_sink("ws://127.0.0.1:1");
    let proxy = sink.dynamic_cast_ref::<gst::ChildProxy>().unwrap();
    let pad = sink.request_pad_simple("data_%u").unwrap();
    proxy.set_child_property("data_0::topic", "gps".to_value());
    proxy.set_child_property("data_0::reliable", false.to_value());
    assert_eq!((pad.property::<String>("topic").as_str(), pad.property::<bool>("reliable")), ("gps", false));
    assert_eq!(proxy.children_count(), 1);
    sink.release_request_pad(&pad);
    let bin = sink.downcast_ref::<gst::Bin>().unwrap();
    assert_eq!((sink.num_sink_pads(), bin.children().len()), (0, 0));
}

#[test]
fn a_packet_that_cannot_be_sent_is_refused_and_counted() {
    init();
    let sink = make_sink(&closed_port());
    let send = |bytes: &[u8], reliable: bool| {
        let payload = glib::Bytes::from(bytes);
        let to: Vec<String> = Vec::new();
        sink.emit_by_name::<bool>("send-data", &[&payload, &"topic", &reliable, &to])
    };
    assert!(!send(b"not started", true));
    let pipeline = gst::Pipeline::new();
    pipeline.add(&sink).unwrap();
    let source = data_source("application/json", true);
    pipeline.add(&source).unwrap();
    link(&source, &sink);
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(send(b"waits for the room", true));
    assert!(!send(b"does not", false) && !send(b"", true) && !send(&[0; 16_000], true));

    sink.static_pad("data_0").unwrap().set_property("reliable", false);
    push(&source, b"lossy, and nobody there".to_vec(), Some(0));
    push(&source, Vec::new(), Some(0));
    for _ in 0..3 {
        push(&source, vec![0; 15 * 1024 + 1], Some(0));
    }
    let pad = || sink.property::<gst::Structure>("stats").get::<gst::Structure>("data_0").unwrap();
    wait_until("five drops", || pad().get::<u64>("packets-dropped") == Ok(5));
    let count = |name: &str| pad().get::<u64>(name).unwrap();
    assert_eq!(
        (count("dropped-not-connected"), count("dropped-empty"), count("dropped-too-large")),
        (1, 1, 3)
    );
    let all = sink.property::<gst::Structure>("stats").get::<gst::Structure>("data").unwrap();
    assert_eq!(all.get::<u64>("packets-refused"), Ok(8));
    assert_eq!(all.get::<u64>("packets-queued"), Ok(1));
    // One of each kind a minute; that the room is not joined is said elsewhere.
    let mut texts: Vec<_> =
        warnings(&pipeline).into_iter().filter(|text| text.starts_with("data_0")).collect();
    texts.sort();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("15361 bytes") && texts[1].contains("no bytes"), "{texts:?}");
    stop(&pipeline);
}

#[test]
fn a_file_of_data_waits_in_paused_and_a_live_stream_does_not() {
    init();
    for live in [false, true] {
        let (_silent, url) = silent_server();
        let (pipeline, sink) = (gst::Pipeline::new(), make_sink(&url));
        let source = data_source("meta/x-klv", live);
        pipeline.add_many([&source, &sink]).unwrap();
        link(&source, &sink);
        pipeline.set_state(gst::State::Playing).unwrap();
        push(&source, b"klv".to_vec(), Some(0));
        if live {
            wait_for_state(&pipeline, gst::State::Playing);
        } else {
            let (result, current, _) = pipeline.state(gst::ClockTime::from_mseconds(300));
            assert_eq!(result, Ok(gst::StateChangeSuccess::Async));
            assert_ne!(current, gst::State::Playing);
        }
        stop(&pipeline);
    }
}
