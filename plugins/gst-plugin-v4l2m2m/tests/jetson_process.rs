// SPDX-License-Identifier: MPL-2.0

//! What concerns the whole process, one test at a time: descriptors left behind, NVENC's sessions used up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod jetson;

use std::sync::{Mutex, PoisonError};

use gst::prelude::*;
use jetson::*;

/// Tests here count what belongs to the process.
static ONE: Mutex<()> = Mutex::new(());

/// What is open.
fn descriptors() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    all.sort();
    all
}

/// How often: `JETSON_CYCLES`, else 100.
fn cycles() -> usize {
    std::env::var("JETSON_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(100)
}

#[test]
fn cycles_leave_no_descriptor_open() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (tag, mut before) = (fresh_tag(), Vec::new());
    let element = element(&tag, "latency=0");
    for cycle in 0..cycles() {
        element.set_state(gst::State::Ready).unwrap();
        element.set_state(gst::State::Null).unwrap();
        // Streams are set up, and ended with pictures in the device.
        if cycle % 10 == 0 {
            let mut bench = bench("", H264, |_| ());
            bench.push(3);
        }
        if cycle == 10 {
            before = descriptors();
        }
    }
    assert_eq!(count(&report(&tag), "opens"), cycles() as i64);
    assert_eq!(count(&report(&tag), "open"), 0);
    let after = descriptors();
    assert!(after.len() <= before.len(), "{before:?} became {after:?}");
}

#[test]
fn sessions_that_are_used_up_are_told() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bench = bench("sessions=1", H264, |_| ());
    let second = element(&fresh_tag(), "sessions=1");
    let bus = gst::Bus::new();
    let mut harness = gst_check::Harness::with_element(&second, Some("sink"), Some("src"));
    second.set_bus(Some(&bus));
    harness.set_sink_caps_str(H264);
    harness.play();
    harness.set_src_caps(bench.info.to_caps().unwrap());
    let message =
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { panic!() };
    assert!(error.error().to_string().contains("session"), "{}", error.error());
    second.set_state(gst::State::Null).unwrap();
}
