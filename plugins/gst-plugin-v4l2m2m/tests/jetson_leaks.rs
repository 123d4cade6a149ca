// SPDX-License-Identifier: MPL-2.0

//! Opening and closing leaves nothing behind. A program of its own, since it counts the process's descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod jetson;

use gst::prelude::*;
use jetson::*;

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
