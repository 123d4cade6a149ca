// SPDX-License-Identifier: MPL-2.0

//! The element on an emulated driver that fails in every way that drivers are known to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use gst::prelude::*;
use v4l2_m2m::codec::Codec;
use v4l2_m2m::emulator::{EmulatedControl, Emulator, Faults, Node};
use v4l2_m2m::ioctl::Api;
use v4l2_m2m::uapi::*;

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

fn good() -> Bench {
    bench(node(), H264, |element| element.set_property("gop-size", 1000_i32))
}

fn faulty(faults: Faults) -> Bench {
    bench(node().with(faults), H264, |element| element.set_property("gop-size", 1000_i32))
}

/// A device that is known to hang, and is not waited for long.
fn hanging() -> Bench {
    bench(node().with(Faults { hang: true, ..Faults::default() }), H264, |element| {
        element.set_property("device-timeout", nanos(Duration::from_secs(2)));
    })
}

#[test]
fn frames_come_out_once_with_their_times() {
    for api in [Api::SinglePlane, Api::MultiPlane] {
        let mut bench = bench(Node::encoder("/dev/video0", api), H264, |_| ());
        bench.push(100);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(Bench::numbers(&buffers), all(100));
        assert!(buffers.iter().all(|buffer| buffer.duration() == Some(gst::ClockTime::from_mseconds(33))));
        // Two seconds of 30 frames.
        assert_eq!(Bench::keys(&buffers), [0, 60]);
        for buffer in [&buffers[0], &buffers[60]] {
            let contents = Codec::H264.inspect(&buffer.map_readable().unwrap());
            assert!(contents.keyframe && contents.complete);
        }
        let caps = bench.harness.sinkpad().unwrap().current_caps().unwrap();
        let caps = caps.structure(0).unwrap();
        assert_eq!(caps.get::<&str>("profile"), Ok("constrained-baseline"));
        assert_eq!(caps.get::<&str>("level"), Ok("2"), "for 2 Mbit/s");
        assert_eq!(caps.get::<i32>("width"), Ok(64));
        let seen = bench.emulator.seen();
        assert!(seen.corners.iter().zip(0..).all(|(corner, n)| *corner == (n, n)), "the pictures themselves");
        assert_eq!(seen.colorspace, V4L2_COLORSPACE_REC709);
        assert_eq!(
            (bench.stat("frames-in"), bench.stat("frames-out"), bench.stat("keyframes")),
            (100, 100, 2)
        );
    }
}

#[test]
fn times_are_those_of_the_raw_frames_whatever_they_are() {
    let mut bench = good();
    let seconds = |seconds| Some(gst::ClockTime::from_seconds(seconds));
    // Backwards, twice the same, more seconds than 31 bits hold, none at all.
    let beyond = gst::ClockTime::from_nseconds((1 << 31) * 1_000_000_000 + 1);
    let times = [seconds(5), seconds(3), seconds(3), Some(beyond), seconds(0), None, seconds(7)];
    for (number, time) in (0_u8..).zip(times) {
        let mut buffer = gst::Buffer::from_mut_slice(vec![number; 64 * 96]);
        buffer.get_mut().unwrap().set_pts(time);
        assert_eq!(bench.harness.push(buffer), Ok(gst::FlowSuccess::Ok));
    }
    bench.eos();
    assert_eq!(bench.pull().iter().map(|buffer| buffer.pts()).collect::<Vec<_>>(), times);
    let seen = bench.emulator.seen().corners;
    assert_eq!(seen, (0..7).map(|n| (n, n)).collect::<Vec<_>>(), "each with its own picture");
}

#[test]
fn the_codec_is_downstreams() {
    let mut h265 = bench(node(), "video/x-h265,stream-format=byte-stream,alignment=au", |_| ());
    h265.push(3);
    h265.eos();
    let buffers = h265.pull();
    assert_eq!(buffers.len(), 3);
    assert!(Codec::H265.inspect(&buffers[0].map_readable().unwrap()).complete);
    // Both would do: H.264 first.
    let mut any = bench(node(), "ANY", |_| ());
    any.push(1);
    any.eos();
    assert!(Codec::H264.inspect(&any.pull()[0].map_readable().unwrap()).keyframe);
    // What the device does not make.
    let vp8 = bench(node(), "video/x-vp8", |_| ());
    let caps = vp8.element.static_pad("sink").unwrap().query_caps(None);
    assert!(caps.is_empty(), "{caps}");
}

/// The caps that are in force where a buffer comes out.
fn caps_now(bench: &Bench) -> gst::Structure {
    let caps = bench.harness.sinkpad().unwrap().current_caps().unwrap();
    caps.structure(0).unwrap().to_owned()
}

#[test]
fn lengths_and_codec_data_where_downstream_wants_them() {
    for (codec, media, format) in
        [(Codec::H264, "video/x-h264", "avc"), (Codec::H265, "video/x-h265", "hvc1")]
    {
        let mut plain = bench(node(), media, |element| element.set_property("gop-size", 3_i32));
        plain.push(7);
        plain.eos();
        assert_eq!(caps_now(&plain).get::<&str>("stream-format"), Ok("byte-stream"), "both would do");
        let plain = plain.pull();
        let wanted = format!("{media},stream-format={format},alignment=au");
        let mut bench = bench(node(), &wanted, |element| element.set_property("gop-size", 3_i32));
        bench.push(7);
        bench.eos();
        let caps = caps_now(&bench);
        assert_eq!(caps.get::<&str>("stream-format"), Ok(format));
        assert_eq!(caps.get::<i32>("width"), Ok(64));
        let buffers = bench.pull();
        assert_eq!((Bench::numbers(&buffers), Bench::keys(&buffers)), (all(7), vec![0, 3, 6]));
        let first = plain[0].map_readable().unwrap();
        let record = v4l2_m2m::packaged::record(codec, &first, 8).unwrap();
        let data = caps.get::<gst::Buffer>("codec_data").unwrap();
        assert_eq!(data.map_readable().unwrap().as_slice(), record);
        for (packed, plain) in buffers.iter().zip(&plain) {
            let expected = v4l2_m2m::packaged::picture(codec, &plain.map_readable().unwrap());
            assert_eq!(packed.map_readable().unwrap().as_slice(), expected);
        }
        let events = std::iter::from_fn(|| bench.harness.try_pull_event());
        assert_eq!(events.filter(|event| event.type_() == gst::EventType::Caps).count(), 1);
    }
}

#[test]
fn codec_data_needs_a_picture_first() {
    let avc = "video/x-h264,stream-format=avc,alignment=au";
    // Nobody needs frames yet, and the device makes nothing of each second one.
    let faults = Faults { drop_every: Some(2), ..Faults::default() };
    let mut bench = bench(node().with(faults), avc, |_| ());
    assert!(bench.harness.push_upstream_event(target(300_000, false)));
    bench.push(1);
    bench.until("the first picture", |bench| bench.stat("frames-out") == 1);
    bench.push(3);
    bench.harness.push_upstream_event(target(300_000, true));
    bench.push(4);
    bench.size(128, 96);
    bench.push(4);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!((buffers.len(), bench.stat("frames-out")), (5, 5));
    assert_eq!((bench.stat("frames-paused"), bench.stat("frames-dropped")), (3, 4));
    assert_eq!(caps_now(&bench).get::<i32>("width"), Ok(128));
    assert!(caps_now(&bench).has_field("codec_data"));
    assert_eq!(bench.error_now(), None);
    // A device that makes nothing at all ends in words, not in memory.
    let faults = Faults { drop_every: Some(1), ..Faults::default() };
    let mut bench = self::bench(node().with(faults), avc, |_| ());
    for _ in 0..200 {
        bench.harness.push_event(gst::event::CustomDownstream::new(gst::Structure::new_empty("none")));
        if bench.try_push().is_err() {
            break;
        }
        bench.size(if bench.next % 2 == 0 { 64 } else { 128 }, 64);
    }
    assert!(bench.error().unwrap().contains("nothing of the first"));
}

#[test]
fn profile_and_level_of_downstream_hold() {
    let wanted = format!("{H264},profile=high,level=(string)4.2");
    let mut bench = bench(node(), &wanted, |_| ());
    bench.push(1);
    bench.eos();
    assert_eq!(bench.emulator.control(V4L2_CID_MPEG_VIDEO_H264_PROFILE), Some(4));
    assert_eq!(bench.emulator.control(V4L2_CID_MPEG_VIDEO_H264_LEVEL), Some(13));
    assert_eq!(bench.pull().len(), 1);
}

#[test]
fn ready_fails_with_what_was_tried() {
    init();
    let emulator = Emulator::new(vec![
        Node::camera("/dev/video0"),
        Node { path: "/dev/video1".into(), ..node().with(Faults { open: Some(13), ..Faults::default() }) },
    ]);
    let element = gst::ElementFactory::make("v4l2m2menc").build().unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(with_devices(&emulator, || element.set_state(gst::State::Ready)).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { panic!() };
    let text = error.error().to_string();
    assert!(text.contains("/dev/video0: camera") && text.contains("/dev/video1: no permission"), "{text}");
    assert!(error.error().matches(gst::ResourceError::NotFound));
    element.set_state(gst::State::Null).unwrap();
    assert_eq!(emulator.seen().open, 0);
}

#[test]
fn forced_keyframes() {
    let mut bench = good();
    bench.push(10);
    bench.until("the first frame", |bench| bench.stat("frames-out") >= 6);
    bench.harness.push_upstream_event(force_key());
    bench.push(10);
    bench.eos();
    let keys = Bench::keys(&bench.pull());
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!((6..=10).contains(&keys[1]), "{keys:?}");
    assert_eq!((bench.stat("keyframes-requested"), bench.stat("restarts")), (1, 0));
    // The answer goes downstream.
    let answered = std::iter::from_fn(|| bench.harness.try_pull_event())
        .any(|event| gst_video::DownstreamForceKeyUnitEvent::parse(&event).is_ok());
    assert!(answered);
}

/// `all-headers` of the request counts where not every keyframe has them.
#[test]
fn forced_keyframes_with_and_without_headers() {
    for (mode, all_headers, expected) in
        [("first-frame", true, true), ("first-frame", false, false), ("each-idr", false, true)]
    {
        let device = node().with(Faults { headers_once: true, ..Faults::default() });
        let mut bench = bench(device, H264, |element| element.set_property_from_str("header-mode", mode));
        bench.push(10);
        bench.until("the first frame", |bench| bench.stat("frames-out") >= 6);
        let request = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(all_headers).build();
        bench.harness.push_upstream_event(request);
        bench.push(10);
        bench.eos();
        let buffers = bench.pull();
        let keys = Bench::keys(&buffers);
        assert_eq!(keys.len(), 2, "{keys:?}");
        let contents = Codec::H264.inspect(&buffers[keys[1] as usize].map_readable().unwrap());
        assert_eq!(contents.complete, expected, "{mode} {all_headers}");
        assert_eq!(bench.stat("restarts"), 0);
    }
}

#[test]
fn forced_keyframes_of_a_device_that_ignores_requests() {
    for node in [
        node().with(Faults { ignore_force_key: true, no_key_flag: true, ..Faults::default() }),
        node().without(V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME),
    ] {
        let mut bench = bench(node, H264, |element| element.set_property("gop-size", 1000_i32));
        bench.push(10);
        bench.until("the first frame", |bench| bench.stat("frames-out") >= 6);
        bench.harness.push_upstream_event(force_key());
        bench.push(20);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(Bench::numbers(&buffers), all(30), "nothing is lost by the restart");
        let keys = Bench::keys(&buffers);
        assert_eq!(keys.len(), 2, "{keys:?}");
        assert!(keys[1] <= 22, "{keys:?}");
        assert_eq!(bench.stat("restarts"), 1);
    }
}

#[test]
fn live_bitrate_gop_and_rate() {
    let mut bench = good();
    bench.push(5);
    bench.element.set_property("bitrate", 750_000_u32);
    bench.until("the bitrate", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(750_000));
    bench.element.set_property("gop-size", 7_i32);
    bench.until("the GOP size", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_GOP_SIZE) == Some(7));
    bench.harness.set_src_caps_str(&caps(64, 64, 15));
    bench.until("the frame rate", |b| b.emulator.seen().rates == [(30, 1), (15, 1)]);
    bench.push(5);
    bench.eos();
    assert_eq!(Bench::numbers(&bench.pull()), all(10));
    assert_eq!((bench.stat("restarts"), bench.emulator.seen().streams), (0, 1), "all of it live");
}

#[test]
fn i_frames_that_are_no_keyframes() {
    let period = EmulatedControl {
        id: V4L2_CID_MPEG_VIDEO_H264_I_PERIOD,
        name: "H264 I-Frame Period",
        kind: 1,
        range: (0, 1000, 1, 0),
    };
    let refresh = EmulatedControl {
        id: V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD,
        name: "HEVC Refresh Period",
        ..period.clone()
    };
    let mut able = node();
    able.controls.extend([period, refresh]);
    let (gop, i_period, refresh) = (
        V4L2_CID_MPEG_VIDEO_GOP_SIZE,
        V4L2_CID_MPEG_VIDEO_H264_I_PERIOD,
        V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD,
    );
    // A distance that the other does not go into is made longer.
    for (device, caps, gop_size, expected) in [
        (able.clone(), H264, 10, [(gop, Some(30)), (i_period, Some(10))]),
        (able.clone(), H264, 30, [(gop, Some(30)), (i_period, Some(0))]),
        (able.clone(), H265, 8, [(gop, Some(8)), (refresh, Some(4))]),
        (able, H265, 30, [(gop, Some(30)), (refresh, Some(1))]),
        // A device that has no others: each is a keyframe.
        (node(), H264, 10, [(gop, Some(10)), (i_period, None)]),
    ] {
        let mut bench = bench(device, caps, |element| {
            element.set_property("gop-size", gop_size);
            element.set_property("idr-interval", 30_u32);
        });
        bench.push(2);
        for (control, value) in expected {
            assert_eq!(bench.emulator.control(control), value, "{caps} {gop_size} {control:#x}");
        }
        // Both distances hang together, so another one is no live change.
        bench.element.set_property("gop-size", 3_i32);
        bench.push_until("the new stream", |bench| bench.stat("restarts") == 1);
        bench.eos();
        assert_eq!(Bench::numbers(&bench.pull()), all(bench.next));
    }
}

/// The controls that properties stand for; `v4l2-ctl` and drivers' own names are no part of it.
#[test]
fn every_property_reaches_its_control() {
    let control = |id, kind| EmulatedControl { id, name: "Control", kind, range: (0, 1_000_000, 1, 0) };
    let (int, menu) = (1, V4L2_CTRL_TYPE_MENU);
    let mut device = node();
    device.controls.extend([
        control(V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE, int),
        control(V4L2_CID_MPEG_VIDEO_INTRA_REFRESH_PERIOD, int),
        control(V4L2_CID_MPEG_VIDEO_AU_DELIMITER, int),
        control(V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE, menu),
        control(V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MAX_BYTES, int),
    ]);
    let mut all = bench(device, H264, |element| {
        for (name, value) in [
            ("rate-control", "vbr"),
            ("peak-bitrate", "3000000"),
            ("gop-size", "25"),
            ("qp-min", "10"),
            ("qp-max", "40"),
            ("b-frames", "1"),
            ("vbv-size", "819200"),
            ("intra-refresh", "60"),
            ("au-delimiter", "true"),
            ("slice-size", "1200"),
        ] {
            element.set_property_from_str(name, value);
        }
    });
    all.push(2);
    for (id, value) in [
        (V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, 1),
        (V4L2_CID_MPEG_VIDEO_BITRATE_MODE, 0),
        (V4L2_CID_MPEG_VIDEO_BITRATE, 2_000_000),
        (V4L2_CID_MPEG_VIDEO_BITRATE_PEAK, 3_000_000),
        (V4L2_CID_MPEG_VIDEO_GOP_SIZE, 25),
        (V4L2_CID_MPEG_VIDEO_H264_MIN_QP, 10),
        (V4L2_CID_MPEG_VIDEO_H264_MAX_QP, 40),
        (V4L2_CID_MPEG_VIDEO_B_FRAMES, 1),
        // KiB
        (V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE, 100),
        (V4L2_CID_MPEG_VIDEO_INTRA_REFRESH_PERIOD, 60),
        (V4L2_CID_MPEG_VIDEO_AU_DELIMITER, 1),
        // By bytes.
        (V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE, 2),
        (V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MAX_BYTES, 1200),
    ] {
        assert_eq!(all.emulator.control(id), Some(value), "{id:#x}");
    }
    all.eos();
    // Without rate control no bitrate is set.
    let mut fixed = bench(node(), H264, |element| element.set_property_from_str("rate-control", "fixqp"));
    fixed.push(1);
    assert_eq!(fixed.emulator.control(V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE), Some(0));
    assert!(fixed.emulator.seen().controls.iter().all(|(id, _)| *id != V4L2_CID_MPEG_VIDEO_BITRATE));
    fixed.eos();
}

/// The bytes are none of VP8's: only what is asked of the device, and what is said of what comes out.
#[test]
fn vp8_where_the_device_has_it() {
    let mut device = node();
    device.coded = vec![V4L2_PIX_FMT_VP8];
    device.controls.push(EmulatedControl {
        id: V4L2_CID_MPEG_VIDEO_VPX_MAX_QP,
        name: "VPX Maximum QP Value",
        kind: 1,
        range: (0, 127, 1, 127),
    });
    let mut bench = bench(device, "video/x-vp8", |element| element.set_property("qp-max", 90_u32));
    bench.push(5);
    bench.eos();
    assert_eq!(Bench::numbers(&bench.pull()), all(5));
    assert_eq!(bench.emulator.control(V4L2_CID_MPEG_VIDEO_VPX_MAX_QP), Some(90));
    let caps = caps_now(&bench);
    assert_eq!((caps.name().as_str(), caps.has_field("profile")), ("video/x-vp8", false));
    assert_eq!(bench.stat("headers-inserted"), 0);
}

#[test]
fn buffers_and_latency_are_as_asked() {
    let vbv = EmulatedControl {
        id: V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE,
        name: "H264 CPB Buffer Size",
        kind: 1,
        range: (0, 100_000, 1, 0),
    };
    let mut device = node();
    device.controls.push(vbv);
    for (properties, buffers, kib) in [
        (&[][..], (6, 4), 49),
        (&[("max-pending", "1"), ("latency-mode", "normal")], (3, 2), 245),
        (&[("output-buffers", "9"), ("vbv-size", "81920"), ("latency-mode", "normal")], (6, 9), 10),
    ] {
        let mut bench = bench(device.clone(), H264, |element| {
            for (name, value) in properties {
                element.set_property_from_str(name, value);
            }
        });
        bench.push(5);
        bench.eos();
        assert_eq!(Bench::numbers(&bench.pull()), all(5));
        let seen = bench.emulator.seen();
        assert_eq!((seen.raw_buffers, seen.coded_buffers), buffers, "{properties:?}");
        assert_eq!(bench.emulator.control(V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE), Some(kib), "{properties:?}");
    }
}

#[test]
fn a_bitrate_that_the_device_takes_only_between_streams() {
    let busy = vec![V4L2_CID_MPEG_VIDEO_BITRATE];
    for node in
        [node().with(Faults { busy, ..Faults::default() }), Node { driver: "wave5-enc".into(), ..node() }]
    {
        let mut bench = bench(node, H264, |_| ());
        bench.push(5);
        bench.element.set_property("bitrate", 750_000_u32);
        bench.push_until("the new stream", |bench| bench.stat("restarts") == 1);
        bench.push(5);
        bench.eos();
        assert_eq!(Bench::numbers(&bench.pull()), all(bench.next));
        assert_eq!(bench.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE), Some(750_000));
        assert_eq!(bench.stat("restarts"), 1);
    }
}

#[test]
fn target_bitrate_and_pause() {
    let mut bench = good();
    bench.push(5);
    assert!(bench.harness.push_upstream_event(target(300_000, true)));
    bench.until("the target", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(300_000));
    assert_eq!(bench.element.property::<u32>("bitrate"), 2_000_000, "the property stays");
    bench.until("the frames", |bench| bench.stat("frames-out") == 5);
    bench.harness.push_upstream_event(target(300_000, false));
    bench.push(5);
    bench.harness.push_upstream_event(target(400_000, true));
    bench.push(5);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(Bench::numbers(&buffers), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    assert_eq!(Bench::keys(&buffers), [0, 10], "who watches again gets a keyframe");
    assert_eq!(bench.stat("frames-paused"), 5);
}

/// Setting up takes its time, and who wishes for something then is heard.
#[test]
fn changes_while_a_stream_is_set_up_hold() {
    let mut bench = good();
    bench.push(1);
    bench.emulator.fault(|faults| faults.slow = Duration::from_millis(10));
    let (element, emulator) = (bench.element.clone(), bench.emulator.clone());
    let set = move || {
        let seen = emulator.seen();
        seen.controls.iter().filter(|control| control.0 == V4L2_CID_MPEG_VIDEO_BITRATE).count()
    };
    let before = set();
    let pushing = std::thread::spawn(move || {
        bench.size(128, 96);
        bench.push(1);
        bench
    });
    let end = Instant::now() + PATIENCE;
    while set() == before {
        assert!(Instant::now() < end, "the bitrate of the new stream");
        std::thread::sleep(Duration::from_millis(1));
    }
    element.set_property("gop-size", 77_i32);
    element.set_property("max-framerate", gst::Fraction::new(10, 1));
    element.set_property("bitrate", 750_000_u32);
    let bench = pushing.join().unwrap();
    bench.emulator.fault(|faults| faults.slow = Duration::ZERO);
    bench.until("the bitrate", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(750_000));
    bench.until("the GOP size", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_GOP_SIZE) == Some(77));
    bench.until("the frame rate", |b| b.emulator.seen().rates.last() == Some(&(10, 1)));
    assert_eq!(bench.stat("restarts"), 0);
}

#[test]
fn targets_have_a_floor() {
    let mut bench = good();
    bench.element.set_property("min-bitrate", 500_000_u32);
    bench.push(2);
    bench.harness.push_upstream_event(target(300_000, true));
    bench.until("the floor", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(500_000));
    bench.element.set_property("min-bitrate", 0_u32);
    bench.until("no floor", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(300_000));
    bench.element.set_property("min-bitrate", 9_000_000_u32);
    bench.until("bitrate", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(2_000_000));
    // No wish of its own.
    bench.element.set_property("bitrate", 1_000_000_u32);
    bench.harness.push_upstream_event(target(3_000_000, true));
    bench.until("bitrate", |b| b.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE) == Some(1_000_000));
}

#[test]
fn frames_are_left_out_for_max_framerate() {
    let mut bench = good();
    bench.element.set_property("max-framerate", gst::Fraction::new(15, 1));
    bench.push(30);
    bench.until("the rate", |bench| bench.emulator.seen().rates.last() == Some(&(15, 1)));
    // Receivers want still less, and then nothing special.
    let mut wish = target(2_000_000, true);
    wish.make_mut().structure_mut().set("max-framerate", gst::Fraction::new(10, 1));
    assert!(bench.harness.push_upstream_event(wish));
    bench.until("the wish", |bench| bench.emulator.seen().rates.last() == Some(&(10, 1)));
    bench.push(30);
    bench.harness.push_upstream_event(target(2_000_000, true));
    bench.element.set_property("max-framerate", gst::Fraction::new(0, 1));
    bench.until("all of them", |bench| bench.emulator.seen().rates.last() == Some(&(30, 1)));
    bench.push(30);
    bench.eos();
    let numbers = Bench::numbers(&bench.pull());
    let between = |from: u64| numbers.iter().filter(|n| (from..from + 30).contains(*n)).count();
    assert_eq!((between(0), between(60)), (15, 30));
    assert!((9..=11).contains(&between(30)), "{numbers:?}");
    assert_eq!(bench.stat("frames-paused") + numbers.len() as u64, 90);
    assert_eq!((bench.stat("keyframes"), bench.stat("restarts")), (1, 0), "no new stream, no extra keyframe");
    // What is asked for as a keyframe is not left out.
    bench.element.set_property("max-framerate", gst::Fraction::new(1, 1));
    let mut bench = good();
    bench.element.set_property("max-framerate", gst::Fraction::new(1, 1));
    bench.push(2);
    bench.harness.push_upstream_event(force_key());
    bench.push(2);
    bench.eos();
    assert_eq!(Bench::numbers(&bench.pull()), [0, 2]);
}

#[test]
fn another_size_loses_no_frame() {
    let node = Node { latency: Duration::from_millis(5), ..node() };
    let mut bench = bench(node, H264, |_| ());
    bench.push(10);
    bench.size(128, 96);
    bench.push(10);
    bench.size(64, 64);
    bench.push(10);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(Bench::numbers(&buffers), all(30));
    assert_eq!(Bench::keys(&buffers), [0, 10, 20]);
    assert_eq!(bench.stat("frames-dropped"), 0);
}

#[test]
fn odd_sizes() {
    let mut bench = good();
    bench.size(650, 482);
    bench.push(3);
    bench.eos();
    assert_eq!(bench.pull().len(), 3);
    assert_eq!(bench.emulator.seen().crop, Some((650, 482)));
    let caps = bench.harness.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<i32>("width"), Ok(650));
}

#[test]
fn lost_frames_are_booked() {
    let mut bench = faulty(Faults { drop_every: Some(3), ..Faults::default() });
    bench.push(9);
    // When a later one comes, not only at the end.
    bench.until("the losses", |bench| bench.stat("frames-dropped") == 2);
    bench.eos();
    assert_eq!(Bench::numbers(&bench.pull()), [0, 1, 3, 4, 6, 7]);
    assert_eq!((bench.stat("frames-out"), bench.stat("frames-dropped")), (6, 3));
}

#[test]
fn headers_are_inserted_where_the_device_has_them_once() {
    let mut bench = bench(
        node().with(Faults { headers_once: true, header_buffer: true, ..Faults::default() }),
        H264,
        |element| element.set_property("gop-size", 5_i32),
    );
    bench.push(12);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(Bench::keys(&buffers), [0, 5, 10]);
    for key in [0, 5, 10] {
        assert!(Codec::H264.inspect(&buffers[key].map_readable().unwrap()).complete, "{key}");
    }
}

#[test]
fn flushing() {
    // What is in the device when it is flushed stays there until then.
    let mut bench = faulty(Faults { hang: true, ..Faults::default() });
    bench.push(3);
    bench.harness.push_event(gst::event::FlushStart::new());
    bench.harness.push_event(gst::event::FlushStop::new(true));
    bench.emulator.fault(|faults| faults.hang = false);
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    bench.harness.push_event(gst::event::Segment::new(&segment));
    bench.push(2);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(Bench::numbers(&buffers), [3, 4]);
    assert_eq!(Bench::keys(&buffers), [3]);
}

#[test]
fn a_device_that_fails_is_an_error() {
    let mut bench = faulty(Faults { eio_after: Some(3), ..Faults::default() });
    let end = Instant::now() + PATIENCE;
    while bench.try_push().is_ok() {
        assert!(Instant::now() < end);
    }
    assert!(bench.error().unwrap().contains("/dev/video11 failed"));
    // Vanished, while nothing goes in.
    let mut bench = faulty(Faults::default());
    bench.push(3);
    bench.emulator.fault(|faults| faults.gone = true);
    let end = Instant::now() + PATIENCE;
    while bench.try_push().is_ok() {
        assert!(Instant::now() < end);
    }
    let error = bench.error().unwrap();
    assert!(error.contains("vanished"), "{error}");
    // … between taking a coded buffer and giving it back.
    let mut bench = faulty(Faults::default());
    bench.push(1);
    bench.emulator.fault(|faults| faults.gone_requeueing = true);
    while bench.try_push().is_ok() {
        assert!(Instant::now() < end);
    }
    let error = bench.error().unwrap();
    assert!(error.contains("vanished"), "{error}");
}

#[test]
fn a_device_that_hangs_is_an_error_and_stops() {
    let begin = Instant::now();
    // Noticed without anything more going in.
    let mut bench = hanging();
    bench.push(2);
    assert!(bench.error().unwrap().contains("hangs"));
    drop(bench);
    // Blocked for want of buffers, in time and before.
    let mut bench = hanging();
    while bench.try_push().is_ok() {}
    assert!(bench.error().unwrap().contains("hangs"));
    drop(bench);
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn stopping_while_blocked() {
    let mut bench = faulty(Faults { hang: true, ..Faults::default() });
    let element = bench.element.clone();
    let emulator = bench.emulator.clone();
    let pushing = std::thread::spawn(move || {
        while bench.try_push().is_ok() {}
        bench
    });
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    element.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    drop(pushing.join().unwrap());
    assert_eq!(emulator.seen().open, 0);
}

#[test]
fn a_frame_that_is_too_small_is_dropped() {
    let mut bench = good();
    bench.push(1);
    let mut buffer = gst::Buffer::from_mut_slice(vec![0_u8; 100]);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(33));
    let _ = bench.harness.push(buffer);
    bench.next += 1;
    bench.push(1);
    bench.eos();
    assert_eq!(Bench::numbers(&bench.pull()), [0, 2]);
}

#[test]
fn latency_is_measured() {
    let node = Node { latency: Duration::from_millis(60), ..node() };
    let mut bench = bench(node, H264, |_| ());
    bench.push(3);
    bench.eos();
    let mut query = gst::query::Latency::new();
    // The harness answers for upstream.
    assert!(bench.element.static_pad("src").unwrap().query(&mut query));
    let (_, least, _) = query.result();
    assert!(least >= gst::ClockTime::from_mseconds(60), "{least}");
    assert_eq!(bench.stat("latency"), least.nseconds());
}

#[test]
fn nothing_leaks() {
    init();
    let emulator = Emulator::new(vec![node()]);
    let element = gst::ElementFactory::make("v4l2m2menc").build().unwrap();
    // `scripts/soak` wants more.
    let cycles = std::env::var("V4L2M2M_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(100);
    for _ in 0..cycles {
        with_devices(&emulator, || element.set_state(gst::State::Ready)).unwrap();
        element.set_state(gst::State::Null).unwrap();
    }
    assert_eq!((emulator.seen().opened, emulator.seen().open), (cycles, 0));
}
