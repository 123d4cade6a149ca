// SPDX-License-Identifier: MPL-2.0

//! Pictures of `v4l2m2menc` that are DMABufs: read where they are when the driver can, else copied once, and never lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use common::*;
use gst::prelude::*;
use gst_allocators::prelude::*;
use v4l2_m2m::emulator::{Faults, Node};
use v4l2_m2m::ioctl::Api;
use v4l2_m2m::uapi::*;

/// Whose pictures are in one piece of memory. (That of the other interface wants them in two.)
fn single() -> Node {
    Node::encoder("/dev/video0", Api::SinglePlane)
}

/// As GStreamer has DMABufs; a memfd does for the emulated driver.
fn memory(data: &[u8]) -> gst::Memory {
    // SAFETY: a string with a terminating zero, and a new descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"picture".as_ptr(), 0)) };
    let file = std::fs::File::from(fd);
    file.write_all_at(data, 0).unwrap();
    // SAFETY: the descriptor is the allocator's from now on.
    unsafe { gst_allocators::DmaBufAllocator::new().alloc_dmabuf(OwnedFd::from(file), data.len()) }.unwrap()
}

/// A frame in DMABufs of these sizes, each filled with the frame's number.
fn frame(number: u64, sizes: &[usize]) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    let writable = buffer.get_mut().unwrap();
    for size in sizes {
        writable.append_memory(memory(&vec![number as u8; *size]));
    }
    writable.set_pts(gst::ClockTime::from_mseconds(number * 33));
    buffer
}

fn push(bench: &mut Bench, buffer: gst::Buffer) {
    assert_eq!(bench.harness.push(buffer), Ok(gst::FlowSuccess::Ok), "{:?}", bench.error_now());
}

/// So many frames of 64 x 64, DMABufs; what came out, and how often a picture was imported and copied.
fn run(bench: &mut Bench, count: u64) -> (Vec<u64>, u64, u64) {
    for number in 0..count {
        push(bench, frame(number, &[64 * 96]));
    }
    outcome(bench, count)
}

fn outcome(bench: &mut Bench, count: u64) -> (Vec<u64>, u64, u64) {
    bench.eos();
    let numbers = Bench::numbers(&bench.pull());
    let seen: Vec<_> = bench.emulator.seen().corners.iter().map(|corner| u64::from(corner.0)).collect();
    assert_eq!(seen, (0..count).collect::<Vec<_>>(), "the pictures themselves, each once");
    assert_eq!(bench.error_now(), None);
    (numbers, bench.stat("frames-imported"), bench.stat("frames-copied"))
}

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

fn announced(bench: &mut Bench) {
    let mut caps: gst::Caps = caps(64, 64, 30).parse().unwrap();
    caps.get_mut().unwrap().set_features(0, Some(gst::CapsFeatures::new(["memory:DMABuf"])));
    bench.harness.set_src_caps(caps);
}

#[test]
fn dmabufs_go_in_without_a_copy() {
    for (node, sizes) in [(single(), &[64 * 96][..]), (node(), &[64 * 64, 64 * 32])] {
        for announce in [true, false] {
            let mut bench = bench(node.clone(), H264, |_| ());
            if announce {
                announced(&mut bench);
            }
            for number in 0..50 {
                push(&mut bench, frame(number, sizes));
            }
            assert_eq!(outcome(&mut bench, 50), (all(50), 50, 0), "{sizes:?} {announce}");
            // At the first of them, as the stream was set up for others.
            assert_eq!(bench.stat("restarts"), 1, "{sizes:?}");
        }
    }
    // Set up for them from the start.
    let mut bench = bench(single(), H264, |element| element.set_property_from_str("io-mode", "dmabuf"));
    assert_eq!(run(&mut bench, 10), (all(10), 10, 0));
    assert_eq!(bench.stat("restarts"), 0);
}

/// Caps with the kernel's name of a format, which GStreamer has from 1.24 on.
fn drm_caps(format: &str) -> String {
    format!(
        "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string){format},width=64,height=64,framerate=30/1,\
         colorimetry=bt709"
    )
}

#[test]
fn caps_with_the_kernels_names_of_formats() {
    init();
    let known = gst::version() >= (1, 24, 0, 0);
    for element in ["v4l2m2menc", "jetsonv4l2enc"] {
        let templates = gst::ElementFactory::find(element).unwrap().static_pad_templates();
        let template = templates.iter().find(|template| template.name_template() == "sink").unwrap();
        let caps = template.caps().to_string();
        assert_eq!(caps.contains("DMA_DRM") && caps.contains("drm-format"), known, "{caps}");
    }
    if !known {
        return;
    }
    let mut bench = bench(single(), H264, |_| ());
    bench.harness.set_src_caps_str(&drm_caps("NV12"));
    for number in 0..10 {
        push(&mut bench, frame(number, &[64 * 96]));
    }
    // Nothing but the name of the format changes, which the base class does not see.
    assert!(bench.harness.push_event(gst::event::Caps::new(&drm_caps("YU12").parse().unwrap())));
    for number in 10..20 {
        push(&mut bench, frame(number, &[64 * 96]));
    }
    // One that this device does not have.
    let sink = bench.element.static_pad("sink").unwrap();
    assert!(!sink.send_event(gst::event::Caps::new(&drm_caps("NV21").parse().unwrap())));
    let error = bench.error_now();
    assert!(error.as_ref().is_none_or(|error| error.contains("NV21")), "{error:?}");
    assert_eq!(outcome(&mut bench, 20), (all(20), 20, 0));
    assert_eq!(bench.emulator.seen().raws, [V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_YUV420]);
    // A pool of such memory, for who wants one.
    let mut query = gst::query::Allocation::new(Some(&drm_caps("NV12").parse().unwrap()), true);
    assert!(bench.harness.srcpad().unwrap().peer_query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
}

#[test]
fn the_producers_strides_are_asked_for() {
    for (fixed_stride, imported) in [(false, 5), (true, 0)] {
        let node = single().with(Faults { fixed_stride, ..Faults::default() });
        let mut bench = bench(node, H264, |_| ());
        bench.size(80, 64);
        for number in 0..5 {
            push(&mut bench, frame(number, &[80 * 96]));
        }
        assert_eq!(outcome(&mut bench, 5), (all(5), imported, 5 - imported), "{fixed_stride}");
    }
}

#[test]
fn what_the_driver_refuses_is_copied_and_not_lost() {
    for faults in [
        Faults { no_dmabuf: true, ..Faults::default() },
        // From the first one on; all at once in the middle.
        Faults { refuse_dmabuf: Some((0, libc::EFAULT)), ..Faults::default() },
        Faults { refuse_dmabuf: Some((7, libc::EINVAL)), ..Faults::default() },
    ] {
        let imported = faults.refuse_dmabuf.map_or(0, |refuse| refuse.0);
        let mut bench = bench(single().with(faults.clone()), H264, |_| ());
        announced(&mut bench);
        assert_eq!(run(&mut bench, 20), (all(20), imported, 20 - imported), "{faults:?}");
        assert_eq!(bench.stat("frames-dropped"), 0);
    }
    // A device that is gone is no reason to copy.
    let mut bench = bench(single(), H264, |_| ());
    push(&mut bench, frame(0, &[64 * 96]));
    bench.emulator.fault(|faults| faults.gone = true);
    while bench.harness.push(frame(1, &[64 * 96])).is_ok() {}
    assert!(bench.error().unwrap().contains("vanished"));
}

#[test]
fn dmabufs_that_cannot_be_read_in_place_are_copied() {
    // In two pieces for a device that wants one, and the other way round; in the middle of a DMABuf.
    let sizes: [&[usize]; 2] = [&[64 * 64, 64 * 32], &[64 * 96 + 1]];
    let middle = |number: u64| {
        let mut buffer = frame(number, &[64 * 97]);
        buffer.get_mut().unwrap().resize(64..64 * 97).unwrap();
        buffer
    };
    let mut two = bench(single(), H264, |_| ());
    for number in 0..5 {
        push(&mut two, frame(number, sizes[0]));
    }
    assert_eq!(outcome(&mut two, 5), (all(5), 0, 5));
    let mut one = bench(node(), H264, |_| ());
    assert_eq!(run(&mut one, 5), (all(5), 0, 5));
    let mut inside = bench(single(), H264, |_| ());
    for number in 0..5 {
        push(&mut inside, middle(number));
    }
    assert_eq!(outcome(&mut inside, 5), (all(5), 0, 5));
    // Larger ones do no harm.
    let mut larger = bench(single(), H264, |_| ());
    for number in 0..5 {
        push(&mut larger, frame(number, sizes[1]));
    }
    assert_eq!(outcome(&mut larger, 5), (all(5), 5, 0));
    // Nobody wants it.
    let mut mmap = bench(single(), H264, |element| element.set_property_from_str("io-mode", "mmap"));
    announced(&mut mmap);
    assert_eq!(run(&mut mmap, 5), (all(5), 0, 5));
    assert_eq!(mmap.stat("restarts"), 0);
}

#[test]
fn from_one_memory_to_another() {
    let mut bench = bench(single(), H264, |element| element.set_property("gop-size", 1000_i32));
    bench.push(3);
    for number in 3..6 {
        push(&mut bench, frame(number, &[64 * 96]));
    }
    bench.next = 6;
    bench.push(3);
    // Once copied, always copied, or each frame would cost a new stream.
    for number in 9..12 {
        push(&mut bench, frame(number, &[64 * 96]));
    }
    assert_eq!(outcome(&mut bench, 12), (all(12), 3, 9));
    assert_eq!(bench.stat("restarts"), 1);
}

/// A buffer of a pool's, written to as producers do it: by the strides and offsets of its meta.
fn drawn(pool: &gst::BufferPool, number: u64) -> gst::Buffer {
    let mut buffer = pool.acquire_buffer(None).unwrap();
    draw(&mut buffer, number);
    buffer
}

fn draw(buffer: &mut gst::Buffer, number: u64) {
    let buffer = buffer.get_mut().expect("nobody reads it any more");
    buffer.set_pts(gst::ClockTime::from_mseconds(number * 33));
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    let info = gst_video::VideoInfo::builder(meta.format(), meta.width(), meta.height()).build().unwrap();
    let mut picture = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info).unwrap();
    for plane in 0..2 {
        picture.plane_data_mut(plane).unwrap().fill(number as u8);
    }
}

/// A frame, and then its coded picture.
fn push_one(bench: &mut Bench, buffer: gst::Buffer) {
    let before = bench.stat("frames-out");
    push(bench, buffer);
    bench.until("the frame", |bench| bench.stat("frames-out") > before);
}

/// Whether it is the device's own.
fn lent(buffer: &gst::BufferRef) -> bool {
    buffer.peek_memory(0).is_type("RustGlobalAllocatorMemory")
}

fn pool(bench: &Bench) -> gst::BufferPool {
    let caps = caps(bench.width, bench.height, 30).parse().unwrap();
    offered_pool(&bench.harness, &caps).expect("a pool")
}

#[test]
fn a_producer_writes_to_the_devices_own_buffers() {
    for (node, mode) in [(single(), "auto"), (node(), "auto"), (single(), "mmap"), (node(), "mmap")] {
        let mut bench = bench(node, H264, |element| element.set_property_from_str("io-mode", mode));
        // Lines are padded, and at this height so are the planes.
        bench.size(70, 50);
        let pool = pool(&bench);
        for number in 0..50 {
            push(&mut bench, drawn(&pool, number));
        }
        assert_eq!(outcome(&mut bench, 50), (all(50), 50, 0), "{mode}");
        assert_eq!(bench.stat("restarts"), 0);
        pool.set_active(false).unwrap();
    }
}

#[test]
fn a_producer_has_its_buffer_again_when_the_device_has_read_it() {
    // Long before the coded picture.
    let slow = Node { latency: std::time::Duration::from_millis(200), ..node() };
    let mut bench = bench(slow, H264, |_| ());
    let pool = pool(&bench);
    let caps: gst::Caps = "timestamp/x-unix".parse().unwrap();
    for number in 0..20 {
        let mut buffer = drawn(&pool, number);
        let time = gst::ClockTime::from_seconds(1000 + number);
        gst::ReferenceTimestampMeta::add(buffer.get_mut().unwrap(), &caps, time, None);
        push(&mut bench, buffer);
    }
    bench.eos();
    let buffers = bench.pull();
    assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (20, 0));
    assert_eq!(Bench::numbers(&buffers), all(20));
    // What is said of a picture goes on.
    for (buffer, second) in buffers.iter().zip(1000..) {
        let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
        assert_eq!(meta.timestamp(), gst::ClockTime::from_seconds(second));
    }
}

#[test]
fn what_of_a_pools_buffers_cannot_be_read_in_place_is_copied() {
    let mut bench = bench(single(), H264, |_| ());
    let pool = pool(&bench);
    // Nothing is coded, so that what is in the device stays there.
    bench.emulator.fault(|faults| faults.hang = true);
    let first = drawn(&pool, 0);
    push(&mut bench, first.clone());
    // The same once more, while the device has it.
    let mut again = first;
    again.make_mut().set_pts(gst::ClockTime::from_mseconds(33));
    push(&mut bench, again);
    bench.emulator.fault(|faults| faults.hang = false);
    bench.until("both", |bench| bench.stat("frames-out") == 2);
    assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (1, 1));
    // More than the device has: ordinary memory, and none waits for another.
    // One more than may be in the device, once the first is back.
    let mut many = Vec::new();
    bench.until("five of the device's", |_| {
        many.clear();
        many.extend((2..22).map(|number| drawn(&pool, number)));
        many.iter().filter(|buffer| lent(buffer)).count() == 5
    });
    for buffer in many {
        push(&mut bench, buffer);
    }
    bench.until("all of them", |bench| bench.stat("frames-out") == 22);
    let imported = bench.stat("frames-imported");
    assert_eq!((imported, bench.stat("frames-copied")), (1 + 5, 1 + 15));
    // A part, and one whose lines are said to be elsewhere.
    let mut part = drawn(&pool, 22);
    part.get_mut().unwrap().peek_memory_mut(0).unwrap().resize(64..64 * 96);
    let _ = bench.harness.push(part);
    let plain = drawn(&pool, 23);
    let mut meta = gst::Buffer::new();
    let writable = meta.get_mut().unwrap();
    writable.append_memory(plain.memory(0).unwrap());
    writable.set_pts(plain.pts());
    gst_video::VideoMeta::add_full(
        writable,
        gst_video::VideoFrameFlags::empty(),
        gst_video::VideoFormat::Nv12,
        64,
        64,
        &[0, 64 * 63],
        &[64, 64],
    )
    .unwrap();
    push(&mut bench, meta);
    bench.eos();
    assert_eq!(bench.stat("frames-imported"), imported);
    assert_eq!(Bench::numbers(&bench.pull()).last(), Some(&23));
}

#[test]
fn a_pool_outlives_streams() {
    let node =
        node().with(Faults { busy: vec![v4l2_m2m::uapi::V4L2_CID_MPEG_VIDEO_BITRATE], ..Faults::default() });
    let mut bench = bench(node, H264, |_| ());
    let pool = pool(&bench);
    let mut held = drawn(&pool, 0);
    for number in 1..10 {
        push(&mut bench, drawn(&pool, number));
    }
    bench.until("the frames", |bench| bench.stat("frames-out") == 9);
    // The device is set up anew for this, once the next frame comes.
    bench.element.set_property("bitrate", 700_000_u32);
    let mut number = 10;
    let end = std::time::Instant::now() + PATIENCE;
    while bench.stat("restarts") == 0 {
        assert!(std::time::Instant::now() < end);
        push(&mut bench, drawn(&pool, number));
        number += 1;
    }
    bench.until("the frames", |bench| bench.stat("frames-out") + 1 == number);
    // One of the stream before: copied. Then those of the new stream.
    draw(&mut held, number);
    push(&mut bench, held);
    let copied = bench.stat("frames-copied");
    assert!(copied >= 1);
    // Those of before that lie in the pool are given up one by one.
    for _ in 0..20 {
        number += 1;
        push_one(&mut bench, drawn(&pool, number));
    }
    let copied = bench.stat("frames-copied");
    for _ in 0..20 {
        number += 1;
        push(&mut bench, drawn(&pool, number));
    }
    // The count comes a little before the frame.
    let mut buffers = Vec::new();
    let end = std::time::Instant::now() + PATIENCE;
    while (buffers.len() as u64) < number {
        assert!(std::time::Instant::now() < end);
        buffers.extend(bench.pull());
    }
    assert_eq!(bench.stat("frames-copied"), copied);
    assert_eq!(Bench::numbers(&buffers), (1..=number).collect::<Vec<_>>());
    let last = bench.emulator.seen().corners.last().copied();
    assert_eq!(last, Some((number as u8, number as u8)));
    // Another size: pictures lie elsewhere, and what the old pool has is copied or refused, but no one's memory is lost.
    bench.size(128, 96);
    let other = self::pool(&bench);
    assert!(other.acquire_buffer(None).unwrap().size() > 64 * 96);
    let old = drawn(&pool, 0);
    assert_eq!(old.size(), 64 * 96);
    bench.element.set_state(gst::State::Null).unwrap();
    assert_eq!(bench.emulator.seen().open, 0, "upstream's memory does not keep the device open");
    assert_eq!(drawn(&pool, 1).size(), 64 * 96);
}

#[test]
fn no_pool_where_its_buffers_could_not_be_read() {
    init();
    let caps: gst::Caps = caps(64, 64, 30).parse().unwrap();
    for faults in
        [Faults { no_orphans: true, ..Faults::default() }, Faults { most_buffers: 1, ..Faults::default() }]
    {
        let bench = bench(single().with(faults), H264, |_| ());
        assert!(offered_pool(&bench.harness, &caps).is_none());
    }
    let mut dmabuf = bench(single(), H264, |_| ());
    announced(&mut dmabuf);
    assert!(offered_pool(&dmabuf.harness, &caps).is_none());
    let mut uncropped = bench(single().with(Faults { no_crop: true, ..Faults::default() }), H264, |_| ());
    uncropped.size(70, 50);
    assert!(offered_pool(&uncropped.harness, &common::caps(70, 50, 30).parse().unwrap()).is_none());
}
