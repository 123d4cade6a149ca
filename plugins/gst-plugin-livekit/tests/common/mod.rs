// SPDX-License-Identifier: MPL-2.0

//! Pipelines, servers that are none, and ways to wait for what the bus says.
#![allow(dead_code)] // Each test program uses a part of it.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Longer than anything should take.
pub const WAIT: gst::ClockTime = gst::ClockTime::from_seconds(60);

/// SPS, PPS and an IDR slice of a 64x64 picture: constrained baseline.
pub const BASELINE: [&str; 3] = [
    "6742c015da109b016a0c0c0d4a000003000200000300791e2c5d4000",
    "68ce3c80",
    "65888406a8930a0003fbf24f27275d75d75d75d75d75d780",
];
/// The same in the high 4:4:4 predictive profile.
pub const HIGH_444: [&str; 3] = [
    "67f4000d91968426c05a83030320000003002000000791e2855400",
    "68ce3192",
    "65888406a89140002645e4f2793d7af5ebd7af5ebd7af5ebe0",
];

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstlivekit::plugin_register_static().unwrap();
    });
}

/// Runs the test `name` again in a process of its own with no `LIVEKIT_…` variables but `variables`. `Some` in
/// that process, where the test goes on; `None` in this one, where it is over.
pub fn in_child(name: &str, variables: &[(&str, &str)]) -> Option<()> {
    const CHILD: &str = "LIVEKITSINK_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return Some(());
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(CHILD, "1");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("LIVEKIT_") {
            child.env_remove(variable);
        }
    }
    child.envs(variables.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

/// A URL where nobody listens: a port below 1024, which no test is given by chance.
pub fn closed_port() -> String {
    "ws://127.0.0.1:1".into()
}

/// A server that takes connections and never answers.
pub fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// The head of the first HTTP request that a server gets.
pub fn read_request(server: &TcpListener) -> String {
    server.set_nonblocking(true).unwrap();
    let mut accepted = None;
    wait_until("a connection", || {
        accepted = server.accept().ok();
        accepted.is_some()
    });
    let (mut connection, _) = accepted.unwrap();
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(WAIT.into())).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

pub fn make_sink(url: &str) -> gst::Element {
    gst::ElementFactory::make("livekitsink")
        .property("url", url)
        .property("api-key", "devkey")
        .property("api-secret", "a secret of at least thirty-two letters")
        .property("room", "test")
        .build()
        .unwrap()
}

fn source(live: bool) -> gst::Element {
    gst::ElementFactory::make("appsrc")
        .property("is-live", live)
        .property("format", gst::Format::Time)
        .property("caps", "video/x-h264,stream-format=byte-stream,alignment=au".parse::<gst::Caps>().unwrap())
        .build()
        .unwrap()
}

pub fn live_source() -> gst::Element {
    source(true)
}

fn pipeline(url: &str, live: bool) -> (gst::Pipeline, gst::Element, gst::Element) {
    let (pipeline, source, sink) = (gst::Pipeline::new(), source(live), make_sink(url));
    pipeline.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    (pipeline, sink, source)
}

/// A pipeline whose source is live, its sink and its source.
pub fn live_pipeline(url: &str) -> (gst::Pipeline, gst::Element, gst::Element) {
    pipeline(url, true)
}

/// The same with a source that waits, as a file does.
pub fn file_pipeline(url: &str) -> (gst::Pipeline, gst::Element, gst::Element) {
    pipeline(url, false)
}

/// The bytes of an access unit.
pub fn access_unit(nal_units: [&str; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for nal in nal_units {
        bytes.extend([0, 0, 0, 1]);
        let pairs = (0..nal.len()).step_by(2);
        bytes.extend(pairs.map(|i| u8::from_str_radix(&nal[i..i + 2], 16).unwrap()));
    }
    bytes
}

pub fn push(source: &gst::Element, bytes: Vec<u8>, milliseconds: Option<u64>) {
    let mut buffer = gst::Buffer::from_slice(bytes);
    buffer.get_mut().unwrap().set_pts(milliseconds.map(gst::ClockTime::from_mseconds));
    let _ = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
}

/// Pushes `count` keyframes, 40 ms apart.
pub fn push_all(source: &gst::Element, count: u64) {
    for frame in 0..count {
        push(source, access_unit(BASELINE), Some(frame * 40));
    }
}

#[track_caller]
pub fn wait_for(pipeline: &gst::Pipeline, kind: gst::MessageType) -> gst::Message {
    match pipeline.bus().unwrap().timed_pop_filtered(WAIT, &[kind, gst::MessageType::Error]) {
        Some(message) if message.type_() == kind => message,
        other => panic!("instead of {kind:?}: {other:?}"),
    }
}

/// The next `count` element messages of this name.
#[track_caller]
pub fn element_messages(pipeline: &gst::Pipeline, name: &str, count: usize) -> Vec<gst::Structure> {
    let mut found = Vec::new();
    while found.len() < count {
        let message = wait_for(pipeline, gst::MessageType::Element);
        found.extend(message.structure().filter(|s| s.name() == name).map(|s| s.to_owned()));
    }
    found
}

#[track_caller]
pub fn wait_for_state(pipeline: &gst::Pipeline, state: gst::State) {
    let (result, current, pending) = pipeline.state(WAIT);
    assert!(result.is_ok() && current == state, "{result:?}, {current:?}, {pending:?}");
}

#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from(WAIT);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The nick of an enumeration property's value.
pub fn nick(object: &impl IsA<gst::Object>, property: &str) -> String {
    let value = object.property_value(property);
    gst::glib::EnumValue::from_value(&value).unwrap().1.nick().to_string()
}

fn texts(pipeline: &gst::Pipeline, kind: gst::MessageType) -> Vec<String> {
    let bus = pipeline.bus().unwrap();
    std::iter::from_fn(|| bus.pop_filtered(&[kind]))
        .map(|message| match message.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            _ => unreachable!(),
        })
        .collect()
}

/// What errors the bus has by now.
pub fn errors(pipeline: &gst::Pipeline) -> Vec<String> {
    texts(pipeline, gst::MessageType::Error)
}

/// What warnings the bus has by now.
pub fn warnings(pipeline: &gst::Pipeline) -> Vec<String> {
    texts(pipeline, gst::MessageType::Warning)
}

pub fn stop(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Ends the stream of an `appsrc`.
pub fn end(source: &gst::Element) {
    let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
}
