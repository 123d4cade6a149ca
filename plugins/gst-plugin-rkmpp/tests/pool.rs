// SPDX-License-Identifier: MPL-2.0

//! Memory that `rkmppenc` offers to who makes frames: what is written there is not copied.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use common::{Running, Simulator, enc, is_key, simulator, source};
use gst::prelude::*;

fn count(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
}

/// Runs to the end without errors; frames that were read in place, and copied ones.
fn imported_and_copied(launch: &str, frames: usize) -> (u64, u64) {
    let running = Running::new(launch);
    let element = running.element("enc");
    running.play();
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), frames, "{launch}");
    assert!(is_key(&made.buffers[0]));
    (count(&element, "frames-imported"), count(&element, "frames-copied"))
}

#[test]
fn a_producer_that_reads_strides_writes_in_place() {
    let simulator = Simulator::new("");
    let copied = simulator.count("copied");
    // Of odd sizes, for which our strides are not GStreamer's; of one, two and three planes.
    for format in ["NV12", "I420", "YUY2", "BGRA", "NV16"] {
        for (width, height) in [(320, 240), (326, 242), (1366, 102)] {
            let launch = format!(
                "{} ! {} ! fakesink name=out",
                source(12, format, width, height),
                enc("max-pending=3")
            );
            assert_eq!(imported_and_copied(&launch, 12), (12, 0), "{format} {width}x{height}");
        }
    }
    // By a converter, too.
    let launch = format!(
        "{} ! videoconvert ! video/x-raw,format=NV12 ! {} ! fakesink name=out",
        source(12, "BGRA", 326, 242),
        enc("")
    );
    assert_eq!(imported_and_copied(&launch, 12), (12, 0));
    assert_eq!(simulator.count("copied"), copied);
    simulator.assert_clean();
}

#[test]
fn pictures_written_in_place_are_the_same() {
    let simulator = Simulator::new("");
    for (format, width, height) in [("NV12", 326, 242), ("I420", 330, 246), ("BGRA", 326, 242)] {
        let encoded = |between: &str, expected: (u64, u64)| {
            let running = Running::new(&format!(
                "{} ! {between} {} ! fakesink name=out",
                source(8, format, width, height),
                enc("rate-control=fixqp qp-init=20")
            ));
            let element = running.element("enc");
            running.play();
            let made = running.finish();
            assert!(made.errors.is_empty(), "{made:?}");
            let counts = (count(&element, "frames-imported"), count(&element, "frames-copied"));
            assert_eq!(counts, expected, "{format} {between}");
            let bytes = |buffer: &gst::Buffer| buffer.map_readable().unwrap().to_vec();
            made.buffers.iter().map(bytes).collect::<Vec<_>>()
        };
        // A tee hands no memory through: these are copied.
        let in_place = encoded("", (8, 0));
        assert_eq!(in_place.len(), 8);
        assert!(in_place == encoded("tee ! queue !", (0, 8)), "{format}");
    }
    simulator.assert_clean();
}

/// What the encoder offers for these caps.
fn offered(caps: &str) -> (gst::Element, Option<gst::BufferPool>, u32) {
    let element = gst::ElementFactory::make("rkmppenc")
        .property("library-path", simulator().to_str().unwrap())
        .build()
        .unwrap();
    element.set_state(gst::State::Ready).unwrap();
    let caps: gst::Caps = caps.parse().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    let sink = element.static_pad("sink").unwrap();
    sink.set_active(true).unwrap();
    assert!(sink.query(&mut query));
    // The base class offers plain memory if there is nothing better.
    let ours = |pool: &gst::BufferPool| pool.type_().name() == "GstRkMppEncPool";
    let first = query.allocation_pools().next();
    let (pool, size) = first.map_or((None, 0), |(pool, size, ..)| (pool.filter(ours), size));
    (element, pool, size)
}

const ODD: &str = "video/x-raw,format=I420,width=330,height=242,framerate=30/1";

#[test]
fn who_does_not_read_strides_gets_the_usual_layout_or_none() {
    let simulator = Simulator::new("");
    // I420 of 330: GStreamer's planes of colour have lines of 168 bytes, and the hardware would want 166.
    for (caps, usable) in
        [("video/x-raw,format=NV12,width=326,height=242,framerate=30/1", true), (ODD, false)]
    {
        let (element, pool, size) = offered(caps);
        let pool = pool.unwrap();
        let caps: gst::Caps = caps.parse().unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut config = pool.config();
        config.set_params(Some(&caps), size, 2, 0);
        assert_eq!(pool.set_config(config).is_ok(), usable, "{caps}");
        if usable {
            pool.set_active(true).unwrap();
            let buffer = pool.acquire_buffer(None).unwrap();
            let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
            assert_eq!((meta.stride(), meta.offset()), (info.stride(), info.offset()));
            drop(buffer);
            pool.set_active(false).unwrap();
        }
        drop(pool);
        element.set_state(gst::State::Null).unwrap();
    }
    simulator.assert_clean();
}

#[test]
fn memory_lives_as_long_as_its_buffers_and_is_used_again() {
    let simulator = Simulator::new("");
    let (element, pool, size) = offered(ODD);
    let pool = pool.unwrap();
    let mut config = pool.config();
    config.set_params(Some(&ODD.parse().unwrap()), size, 2, 0);
    config.add_option("GstBufferPoolOptionVideoMeta");
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let allocated = simulator.count("allocated");
    for round in 0..50 {
        let mut buffer = pool.acquire_buffer(None).unwrap();
        assert!(buffer.peek_memory(0).is_memory_type::<gst_allocators::DmaBufMemory>());
        assert_eq!(buffer.size(), size as usize);
        buffer.get_mut().unwrap().map_writable().unwrap().fill(round);
        assert!(buffer.map_readable().unwrap().iter().all(|&byte| byte == round));
    }
    assert_eq!(simulator.count("allocated"), allocated);
    // Element and pool go first.
    let mut kept = pool.acquire_buffer(None).unwrap();
    kept.get_mut().unwrap().map_writable().unwrap().fill(7);
    pool.set_active(false).unwrap();
    drop(pool);
    element.set_state(gst::State::Null).unwrap();
    drop(element);
    assert!(kept.map_readable().unwrap().iter().all(|&byte| byte == 7));
    drop(kept);
    simulator.assert_clean();
}

#[test]
fn without_memory_nothing_is_offered_and_strange_formats_are_ignored() {
    let simulator = Simulator::new("");
    let (element, pool, _) = offered("video/x-raw,format=v210,width=320,height=240,framerate=30/1");
    assert!(pool.is_none());
    element.set_state(gst::State::Null).unwrap();
    let held = simulator.count("bytes");
    simulator.configure(&format!("memory-limit={}", held + 1000));
    let (element, pool, _) = offered(ODD);
    assert!(pool.is_none());
    element.set_state(gst::State::Null).unwrap();
    simulator.assert_clean();
}

#[test]
fn a_seek_while_the_hardware_reads_the_pools_memory() {
    for _ in 0..3 {
        let simulator = Simulator::new("hold-out-at=11");
        let running = Running::new(&format!(
            "{} ! {} ! fakesink name=out sync=false async=false",
            source(-1, "NV12", 320, 240),
            enc("gop-size=0 max-pending=4")
        ));
        let element = running.element("enc");
        running.play();
        running.wait_for(10);
        running.wait_for_stat("frames-in", 14);
        let position = gst::ClockTime::from_seconds(7);
        running.pipeline.seek_simple(gst::SeekFlags::FLUSH, position).unwrap();
        // The hardware still has the frames from before: nobody may write to their memory, and they are not shown.
        assert_eq!(running.buffers(), 10);
        simulator.configure("hold-out-at=0");
        running.wait_for(40);
        running.pipeline.send_event(gst::event::Eos::new());
        let made = running.finish();
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{:?} {:?}", made.errors, made.warnings);
        let keys: Vec<_> = (0..made.buffers.len()).filter(|&index| is_key(&made.buffers[index])).collect();
        assert_eq!(keys, [0, 10]);
        for (number, buffer) in (0..).zip(&made.buffers[10..]) {
            let time = gst::ClockTime::SECOND.mul_div_round(number, 30).unwrap() + position;
            assert!(buffer.pts().unwrap().absdiff(time) <= gst::ClockTime::from_nseconds(1), "{buffer:?}");
        }
        assert_eq!(count(&element, "frames-copied"), 0);
        drop(element);
        simulator.assert_clean();
    }
}
