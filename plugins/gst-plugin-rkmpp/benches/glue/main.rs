// SPDX-License-Identifier: MPL-2.0

//! What the element itself costs: time, copies and latency of a frame, with an encoder that takes no time or 13 ms (a
//! 4K frame on one core of an RK3588). Prints a table. `cargo bench -p gst-plugin-rkmpp --bench glue`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)] // A program of its own.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::{Simulator, simulator};
use gst::prelude::*;
use gst_allocators::prelude::*;
use gst_check::Harness;

const ROUNDS: usize = 7;

/// A frame of grey, in a memory file that stands in for a dma-buf, or in ordinary memory.
fn frame(width: usize, height: usize, dmabuf: bool) -> gst::Buffer {
    let size = width * height * 3 / 2;
    if !dmabuf {
        return gst::Buffer::from_mut_slice(vec![0x80_u8; size]);
    }
    let fd = rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size as u64).unwrap();
    // SAFETY: the descriptor is this memory's from now on.
    let memory = unsafe { gst_allocators::DmaBufAllocator::new().alloc_dmabuf(fd, size) }.unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    buffer
}

struct Run {
    /// Of each frame.
    nanoseconds: f64,
    copied: u64,
    /// Median from push to packet, one frame after the other, ms.
    latency: f64,
}

fn run(width: usize, height: usize, dmabuf: bool, properties: &[(&str, &str)], frames: usize) -> Run {
    let library = simulator();
    let mut builder =
        gst::ElementFactory::make("rkmppenc").property("library-path", library.to_str().unwrap());
    for (name, value) in properties {
        builder = builder.property_from_str(name, value);
    }
    let element = builder.build().unwrap();
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    let features = if dmabuf { "(memory:DMABuf)" } else { "" };
    harness.set_src_caps_str(&format!(
        "video/x-raw{features},format=NV12,width={width},height={height},framerate=60/1"
    ));
    let input = frame(width, height, dmabuf);
    let mut latencies = Vec::new();
    let push = |harness: &mut Harness| harness.push(input.copy()).unwrap();
    for _ in 0..10 {
        let begin = Instant::now();
        push(&mut harness);
        drop(harness.pull().unwrap());
        latencies.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    latencies.sort_by(f64::total_cmp);
    let copies = || element.property::<gst::Structure>("stats").get::<u64>("frames-copied").unwrap();
    let before = copies();
    let begin = Instant::now();
    let mut got = 0;
    for _ in 0..frames {
        push(&mut harness);
        while harness.try_pull().is_some() {
            got += 1;
            if harness.buffers_in_queue() == 0 {
                break;
            }
        }
    }
    while got < frames {
        drop(harness.pull().unwrap());
        got += 1;
    }
    let nanoseconds = begin.elapsed().as_nanos() as f64 / frames as f64;
    let copied = (copies() - before) * (width * height * 3 / 2) as u64 / frames as u64;
    drop(harness);
    element.set_state(gst::State::Null).unwrap();
    Run { nanoseconds, copied, latency: latencies[latencies.len() / 2] }
}

/// The run with the median time of several.
fn median(run: impl Fn() -> Run) -> Run {
    let mut runs: Vec<_> = (0..ROUNDS).map(|_| run()).collect();
    runs.sort_by(|a, b| a.nanoseconds.total_cmp(&b.nanoseconds));
    runs.swap_remove(ROUNDS / 2)
}

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let simulator = Simulator::new("codec=instant");
    println!("| input | size | µs per frame | bytes copied per frame |\n|---|---|---|---|");
    for (width, height) in [(1280, 720), (1920, 1080), (3840, 2160)] {
        for (name, dmabuf) in [("dma-buf", true), ("system memory", false)] {
            let run = median(|| run(width, height, dmabuf, &[], 200));
            println!("| {name} | {width}x{height} | {:.1} | {} |", run.nanoseconds / 1000.0, run.copied);
        }
    }
    simulator.configure("latency-us=13000");
    println!("\n| encoder of 13 ms, 1080p dma-bufs | frames/s | latency, ms |\n|---|---|---|");
    for properties in
        [[("low-latency", "true")], [("max-pending", "1")], [("max-pending", "2")], [("max-pending", "4")]]
    {
        let run = median(|| run(1920, 1080, true, &properties, 60));
        let (name, value) = properties[0];
        println!("| {name}={value} | {:.1} | {:.1} |", 1e9 / run.nanoseconds, run.latency);
    }
    simulator.configure("default");
}
