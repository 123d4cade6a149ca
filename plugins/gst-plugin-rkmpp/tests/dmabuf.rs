// SPDX-License-Identifier: MPL-2.0

//! Frames in dma-bufs: read where they are, or copied, with the reason told. (A memory file stands in for a dma-buf.)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use std::os::fd::OwnedFd;

use common::{Simulator, simulator};
use gst::prelude::*;
use gst_allocators::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoFrameFlags, VideoMeta};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

fn memory_file(size: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let grey = vec![0x80; size];
    assert_eq!(rustix::io::write(&fd, &grey).unwrap(), size);
    fd
}

/// A frame in a dma-buf of `size` bytes with these strides and offsets.
fn frame(index: u64, size: usize, strides: &[i32], offsets: &[usize]) -> gst::Buffer {
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: the descriptor is this memory's from now on.
    let memory = unsafe { allocator.alloc_dmabuf(memory_file(size), size) }.unwrap();
    let mut buffer = gst::Buffer::new();
    let inner = buffer.get_mut().unwrap();
    inner.append_memory(memory);
    inner.set_pts(gst::ClockTime::from_mseconds(33 * index));
    VideoMeta::add_full(inner, VideoFrameFlags::empty(), VideoFormat::Nv12, WIDTH, HEIGHT, offsets, strides)
        .unwrap();
    buffer
}

fn harness() -> (Harness, gst::Element) {
    let element = gst::ElementFactory::make("rkmppenc")
        .property("library-path", simulator().to_str().unwrap())
        .build()
        .unwrap();
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps_str(
        "video/x-raw(memory:DMABuf),format=NV12,width=320,height=240,framerate=30/1,colorimetry=bt709",
    );
    (harness, element)
}

fn count(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
}

#[test]
fn frames_in_dma_bufs_are_not_copied() {
    let simulator = Simulator::new("");
    let (mut harness, element) = harness();
    let copied = simulator.count("copied");
    // Strides other than those of our own buffers; the second half with other ones again.
    for index in 0..20 {
        let (stride, lines) = if index < 10 { (384, 256) } else { (512, 240) };
        let plane = stride as usize * lines;
        harness.push(frame(index, plane * 3 / 2, &[stride, stride], &[0, plane])).unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    for index in 0..20 {
        let buffer = harness.pull().unwrap();
        assert_eq!(buffer.pts().unwrap().mseconds(), 33 * index);
        assert!(buffer.size() > 0);
    }
    assert_eq!((count(&element, "frames-imported"), count(&element, "frames-copied")), (20, 0));
    assert_eq!(simulator.count("copied"), copied);
    drop(harness);
    element.set_state(gst::State::Null).unwrap();
    simulator.assert_clean();
}

#[test]
fn dma_bufs_that_do_not_fit_are_copied_and_the_reason_is_told() {
    let simulator = Simulator::new("");
    let (mut harness, element) = harness();
    let plane = 320 * 240;
    for (index, (strides, offsets, size, reason)) in [
        ([320, 320], [0, plane], plane * 3 / 2, ""),
        ([320, 320], [0, plane + 64], plane * 2, "its second plane does not begin with a line"),
        ([320, 384], [0, plane], plane * 2, "the strides of its planes do not fit together"),
        ([320, 320], [64, 320 + plane], plane * 2, "its first plane does not begin with the dma-buf"),
    ]
    .into_iter()
    .enumerate()
    {
        harness.push(frame(index as u64, size, &strides, &offsets)).unwrap();
        harness.pull().unwrap();
        let stats: gst::Structure = element.property("stats");
        assert_eq!(stats.get::<&str>("copy-reason"), Ok(reason));
        assert_eq!(count(&element, "frames-copied"), index as u64);
    }
    // Too small for a picture: left out, not read past its end.
    let small = frame(9, 1000, &[320, 320], &[0, plane]);
    harness.push(small).unwrap();
    harness.push(gst::Buffer::new()).unwrap();
    harness.push(frame(11, plane * 3 / 2, &[320, 320], &[0, plane])).unwrap();
    assert_eq!(harness.pull().unwrap().pts().unwrap().mseconds(), 33 * 11);
    assert_eq!(count(&element, "frames-skipped"), 2);
    drop(harness);
    element.set_state(gst::State::Null).unwrap();
    simulator.assert_clean();
}

#[test]
fn a_refused_dma_buf_is_not_written_to() {
    let simulator = Simulator::new("hold-at=1");
    let (mut harness, element) = harness();
    let plane = 320 * 240;
    let frames: Vec<_> = (0..3).map(|index| frame(index, plane * 3 / 2, &[320, 320], &[0, plane])).collect();
    // Two wait in the library's queue, and the third is refused until the encoder is given up.
    for frame in &frames {
        harness.push(frame.clone()).unwrap();
    }
    assert_eq!(count(&element, "restarts"), 1);
    simulator.configure("hold-at=0");
    for index in 3..9 {
        let mut black = gst::Buffer::from_mut_slice(vec![0x10; plane * 3 / 2]);
        black.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(33 * index));
        harness.push(black).unwrap();
        assert_eq!(harness.pull().unwrap().pts().unwrap().mseconds(), 33 * index);
    }
    assert_eq!((count(&element, "frames-imported"), count(&element, "frames-copied")), (3, 6));
    for frame in &frames {
        assert!(frame.map_readable().unwrap().iter().all(|&byte| byte == 0x80));
    }
    drop(harness);
    element.set_state(gst::State::Null).unwrap();
    drop(simulator);
}
