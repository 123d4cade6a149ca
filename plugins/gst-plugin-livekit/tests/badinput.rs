// SPDX-License-Identifier: MPL-2.0

//! Input that no stream should have: each kind is told in plain words, and nothing hangs or falls over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is the failure report.

mod common;

use std::time::Duration;

use common::*;
use gst::prelude::*;

/// A playing pipeline whose caps are set once it is linked, as those of a stream are that nobody knew before.
fn with_caps(url: &str, caps: &str) -> (gst::Pipeline, gst::Element) {
    init();
    let (pipeline, _, source) = live_pipeline(url);
    pipeline.set_state(gst::State::Playing).unwrap();
    set_caps(&source, caps);
    (pipeline, source)
}

fn set_caps(source: &gst::Element, caps: &str) {
    source.set_property("caps", caps.parse::<gst::Caps>().unwrap());
}

#[track_caller]
fn first_error(pipeline: &gst::Pipeline) -> String {
    let message = wait_for(pipeline, gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let from = message.src().unwrap().name();
    format!("{from}: {}", error.error())
}

#[track_caller]
fn wait_warning(pipeline: &gst::Pipeline, text: &str) -> Vec<String> {
    let mut texts = Vec::new();
    wait_until(text, || {
        texts.extend(warnings(pipeline));
        texts.iter().any(|found| found.contains(text))
    });
    // Time for a second one, which must not come.
    std::thread::sleep(Duration::from_millis(200));
    texts.extend(warnings(pipeline));
    assert_eq!(texts.iter().filter(|found| found.contains(text)).count(), 1, "{texts:?}");
    texts
}

const VP8: &str = "video/x-vp8,width=64,height=64,framerate=30/1";
const VP8_KEY: [u8; 10] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x00, 0x40, 0x00];

#[test]
fn caps_of_another_kind_are_named_together_with_what_is_taken() {
    let (pipeline, source) = with_caps("ws://127.0.0.1:1", "image/jpeg,width=64,height=64");
    push(&source, vec![0xff, 0xd8], Some(0));
    let error = first_error(&pipeline);
    assert!(error.starts_with("livekitsink"), "{error}");
    assert!(error.contains("video_0") && error.contains("image/jpeg"), "{error}");
    assert!(error.contains("video/x-h264") && error.contains("put an encoder"), "{error}");
    stop(&pipeline);
}

#[test]
fn a_form_of_a_codec_that_does_not_exist_is_named() {
    let (pipeline, source) =
        with_caps("ws://127.0.0.1:1", "video/x-h264,stream-format=(string)strange,alignment=(string)au");
    push(&source, access_unit(BASELINE), Some(0));
    let error = first_error(&pipeline);
    assert!(error.contains("video_0") && error.contains("strange"), "{error}");
    stop(&pipeline);
}

#[test]
fn codec_data_that_lies_is_told() {
    for caps in [
        "video/x-h264,stream-format=(string)avc,alignment=(string)au,codec_data=(buffer)ff",
        "video/x-h264,stream-format=(string)avc,alignment=(string)au,codec_data=(buffer)0142c00dffe1ffff67",
        "video/x-h265,stream-format=(string)hvc1,alignment=(string)au,codec_data=(buffer)00",
    ] {
        let (pipeline, source) = with_caps("ws://127.0.0.1:1", caps);
        push(&source, vec![0, 0, 0, 2, 0x65, 0x88], Some(0));
        let error = first_error(&pipeline);
        assert!(error.starts_with("livekitsink") && error.contains("codec_data"), "{caps}: {error}");
        stop(&pipeline);
    }
}

#[test]
fn a_gigantic_frame_is_told_and_dropped() {
    let (_silent, url) = silent_server();
    let (pipeline, source) = with_caps(&url, VP8);
    let mut huge = VP8_KEY.to_vec();
    huge.resize(9 * 1024 * 1024, 0);
    for time in [0, 40, 80] {
        push(&source, huge.clone(), Some(time));
    }
    let texts = wait_warning(&pipeline, "9437184 bytes");
    assert!(texts.iter().all(|text| text.starts_with("video_0: ")), "{texts:?}");
    push(&source, VP8_KEY.to_vec(), Some(120));
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn empty_buffers_and_missing_times_are_told_once() {
    let (_silent, url) = silent_server();
    let (pipeline, source) = with_caps(&url, VP8);
    for _ in 0..3 {
        push(&source, Vec::new(), Some(0));
    }
    wait_warning(&pipeline, "without data");
    for _ in 0..3 {
        push(&source, VP8_KEY.to_vec(), None);
    }
    wait_warning(&pipeline, "no timestamp");
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn a_storm_of_changes_is_told_and_followed_slowly() {
    let (_silent, url) = silent_server();
    let (pipeline, source) = with_caps(&url, VP8);
    for change in 0..100u64 {
        let size = 64 + change % 7 * 16;
        set_caps(&source, &format!("video/x-vp8,width={size},height=64,framerate=30/1"));
        push(&source, VP8_KEY.to_vec(), Some(change * 5));
    }
    wait_warning(&pipeline, "all the time");
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn a_codec_that_changes_back_and_forth_swaps_the_parser() {
    let (_silent, url) = silent_server();
    let (pipeline, source) = with_caps(&url, VP8);
    let bin = pipeline.iterate_sinks().into_iter().flatten().next().unwrap();
    let parser = || bin.downcast_ref::<gst::Bin>().unwrap().by_name("video_0-parser");
    let factory = || parser().and_then(|parser| parser.factory()).map(|factory| factory.name().to_string());
    let h264 = "video/x-h264,stream-format=byte-stream,alignment=au";
    for round in 0..2u64 {
        set_caps(&source, VP8);
        push(&source, VP8_KEY.to_vec(), Some(round * 1000));
        wait_until("no parser", || parser().is_none());
        set_caps(&source, h264);
        push(&source, access_unit(BASELINE), Some(round * 1000 + 500));
        wait_until("the parser", || factory().as_deref() == Some("h264parse"));
    }
    set_caps(&source, "video/x-h265,stream-format=byte-stream,alignment=au");
    push(&source, vec![0, 0, 0, 1, 0x40, 1], Some(3000));
    wait_until("the other parser", || factory().as_deref() == Some("h265parse"));
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn a_pad_that_is_added_after_the_end_joins_anew() {
    let (_silent, url) = silent_server();
    let (pipeline, source) = with_caps(&url, VP8);
    push(&source, VP8_KEY.to_vec(), Some(0));
    end(&source);
    wait_for(&pipeline, gst::MessageType::Eos);
    let sink = pipeline.iterate_sinks().into_iter().flatten().next().unwrap();
    let late = live_source();
    set_caps(&late, VP8);
    pipeline.add(&late).unwrap();
    let pad = sink.request_pad_simple("video_%u").unwrap();
    late.static_pad("src").unwrap().link(&pad).unwrap();
    late.sync_state_with_parent().unwrap();
    push(&late, VP8_KEY.to_vec(), Some(0));
    element_messages(&pipeline, "livekit-connecting", 1);
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}
