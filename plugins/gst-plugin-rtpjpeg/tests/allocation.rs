// SPDX-License-Identifier: MPL-2.0

//! Counts what our code allocates for each packet: the payloader's packets are pooled buffers. GStreamer's own
//! allocations, in C, are not counted here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches a constant-initialised thread local.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

/// An element between a pad to push into and one that counts what comes; `caps` are what is pushed.
fn between(element: &gst::Element, caps: &str) -> (gst::Pad, gst::Pad, Arc<AtomicUsize>) {
    let buffers = Arc::new(AtomicUsize::new(0));
    let (one, many) = (buffers.clone(), buffers.clone());
    let end = gst::Pad::builder(gst::PadDirection::Sink)
        .name("end")
        .chain_function(move |_, _, _| {
            one.fetch_add(1, Ordering::Relaxed);
            Ok(gst::FlowSuccess::Ok)
        })
        .chain_list_function(move |_, _, list| {
            many.fetch_add(list.len(), Ordering::Relaxed);
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(|_, _, _| true)
        .build();
    end.set_active(true).unwrap();
    element.static_pad("src").unwrap().link(&end).unwrap();
    element.set_state(gst::State::Playing).unwrap();
    let begin = gst::Pad::builder(gst::PadDirection::Src).name("begin").build();
    begin.set_active(true).unwrap();
    begin.link(&element.static_pad("sink").unwrap()).unwrap();
    begin.push_event(gst::event::StreamStart::new("test"));
    begin.push_event(gst::event::Caps::new(&caps.parse().unwrap()));
    begin.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    (begin, end, buffers)
}

#[test]
fn the_counter_counts() {
    assert_eq!(count(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1);
}

#[test]
fn payloader() {
    gst::init().unwrap();
    gstrtpjpeg::plugin_register_static().unwrap();
    for mode in ["whole-frame", "aligned"] {
        let element = gst::ElementFactory::make("rtpjpegpay-rs")
            .property("mtu", 200_u32)
            .property_from_str("restart-mode", mode)
            .build()
            .unwrap();
        let (begin, _end, packets) = between(&element, "image/jpeg");
        let picture = std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../crates/rtp-jpeg/tests/data/self_large.jpg"
        ));
        let picture = gst::Buffer::from_slice(picture.unwrap());
        let push = |number: u64| {
            let mut frame = picture.copy();
            frame.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(40 * number));
            begin.push(frame).unwrap();
        };
        // Pool, caps and the like are made for the first pictures.
        (0..3).for_each(push);
        let before = packets.load(Ordering::Relaxed);
        let allocations = count(|| (3..23).for_each(push));
        let packets = packets.load(Ordering::Relaxed) - before;
        assert!(packets > 1000, "{packets}");
        assert!(allocations * 20 <= packets, "{mode}: {allocations} allocations for {packets} packets");
        println!("{mode}: {allocations} allocations for {packets} packets");
        element.set_state(gst::State::Null).unwrap();
    }
}
