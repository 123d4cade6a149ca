// SPDX-License-Identifier: MPL-2.0

//! `jetsonv4l2enc` on the stand-in for NVIDIA's library, which has a real codec behind it and notes each rule of the real
//! library's that is broken: every test ends with a look at those notes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod jetson;

use std::time::{Duration, Instant};

use common::{PATIENCE, force_key, nanos, target};
use gst::prelude::*;
use gst_video::VideoFormat;
use jetson::*;
use sim_codec::Codec;

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

fn good(config: &str) -> Bench {
    bench(config, H264, |_| ())
}

/// A device that is known to hang, and is not waited for long.
fn hanging(config: &str, seconds: u64) -> Bench {
    let timeout = nanos(Duration::from_secs(seconds));
    bench(config, H264, |element| element.set_property("device-timeout", timeout))
}

#[test]
fn pictures_survive_in_each_codec_and_format() {
    let cases = [
        (H264, Codec::H264, VideoFormat::Nv12),
        (H264, Codec::H264, VideoFormat::I420),
        (H265, Codec::H265, VideoFormat::Nv12),
        (H265, Codec::H265, VideoFormat::P01010le),
        (AV1, Codec::Av1, VideoFormat::I420),
    ];
    for (caps, codec, format) in cases {
        let mut bench = bench("", caps, |element| element.set_property("bitrate", 4_000_000_u32));
        bench.format(format, 322, 242, 30);
        bench.push(12);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(numbers(&buffers), all(12), "{caps} {format:?}");
        assert_eq!(keys(&buffers), [0], "{caps} {format:?}");
        bench.check_pictures(codec, &buffers, 28.0);
        assert_eq!(bench.count("synced"), 12, "caches are written back before the hardware reads");
    }
}

#[test]
fn pictures_survive_lengths_and_codec_data() {
    for (caps, parser, plain, codec, format) in [
        ("video/x-h264,stream-format=avc", "h264parse", H264, Codec::H264, VideoFormat::Nv12),
        ("video/x-h265,stream-format=hvc1", "h265parse", H265, Codec::H265, VideoFormat::Nv12),
        ("video/x-h265,stream-format=hvc1", "h265parse", H265, Codec::H265, VideoFormat::P01010le),
    ] {
        let mut bench = bench("", caps, |element| {
            element.set_property("bitrate", 4_000_000_u32);
            element.set_property("gop-size", 5_i32);
        });
        bench.format(format, 322, 242, 30);
        bench.push(12);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(keys(&buffers), [0, 5, 10], "{caps}");
        let mut parser = gst_check::Harness::new(parser);
        parser.set_sink_caps_str(plain);
        parser.set_src_caps(bench.harness.sinkpad().unwrap().current_caps().unwrap());
        for buffer in buffers {
            assert_eq!(parser.push(buffer), Ok(gst::FlowSuccess::Ok), "{caps}");
        }
        parser.push_event(gst::event::Eos::new());
        let parsed: Vec<_> = std::iter::from_fn(|| parser.try_pull()).collect();
        assert_eq!(numbers(&parsed), all(12), "{caps}");
        bench.check_pictures(codec, &parsed, 28.0);
    }
}

#[test]
fn the_element_registers_everywhere_and_is_preferred_only_with_a_node() {
    common::init();
    let factory = gst::ElementFactory::find("jetsonv4l2enc").unwrap();
    let node = v4l2_m2m::ops::NODES.iter().any(|node| std::path::Path::new(node).exists());
    assert_eq!(factory.rank(), if node { gst::Rank::PRIMARY + 1 } else { gst::Rank::NONE });
}

fn ready_error(element: &gst::Element) -> String {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    element.set_state(gst::State::Null).unwrap();
    let gst::MessageView::Error(error) = message.view() else { panic!() };
    assert!(error.error().matches(gst::ResourceError::NotFound));
    error.error().to_string()
}

#[test]
fn ready_fails_with_what_was_tried() {
    let tag = fresh_tag();
    let element = element(&tag, "");
    element.set_property("library-path", "/nonexistent/libnvv4l2.so");
    let text = ready_error(&element);
    for part in [
        "/nonexistent/libnvv4l2.so: ",
        "/dev/v4l2-nvenc",
        "/dev/nvhost-msenc",
        "library-path",
        "JETSON_V4L2_LIBRARY",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A library, and no NVENC behind it: both nodes are named. (A board with the node is not asked in a test.)
    element.set_property("library-path", library_path().to_str().unwrap());
    for (config, reason) in
        [("node=no", "there is no such node"), ("open=13", "no permission"), ("open=16", "busy")]
    {
        element.set_property("device", format!("/dev/v4l2-nvenc?{config}"));
        let text = ready_error(&element);
        assert!(text.contains(&format!("/dev/v4l2-nvenc?{config}: {reason}")), "{text}");
        assert!(text.contains("libnv_v4l2_sim.so"), "{text}");
    }
    // The distribution's own library opens /dev/null, and finds no device there.
    element.set_property("device", "/dev/null");
    assert!(ready_error(&element).contains("/dev/null: "));
}

#[test]
fn the_node_of_older_releases() {
    let mut bench = good("release=35.4");
    bench.push(3);
    bench.eos();
    assert_eq!(numbers(&bench.pull()), all(3));
}

#[test]
fn a_chip_without_av1_says_so_in_its_caps() {
    let mut bench = good("av1=no");
    bench.harness.set_sink_caps_str(AV1);
    let caps = bench.element.static_pad("sink").unwrap().query_caps(None);
    assert!(caps.is_empty(), "{caps}");
    bench.harness.set_sink_caps_str(H264);
}

#[test]
fn defaults_are_for_low_latency() {
    let mut bench = good("");
    bench.push(2);
    bench.eos();
    let expected = [
        ("BITRATE", "2000000"),
        ("BITRATE_MODE", "1"),
        ("FRAME_RC_ENABLE", "1"),
        ("HW_PRESET_TYPE", "1"),
        ("MAX_PERFORMANCE", "1"),
        ("NUM_REFERENCE_FRAMES", "1"),
        ("POC_TYPE", "2"),
        ("INSERT_SPS_PPS_AT_IDR", "1"),
        // Four frames at 30 frames/s.
        ("VIRTUALBUFFER_SIZE", "266664"),
        ("IDR_INTERVAL", "1000"),
        ("GOP_SIZE", "1000"),
        ("H264_PROFILE", "0"),
        ("S_PARM", "30/1"),
    ];
    for (name, value) in expected {
        assert_eq!(bench.control(name).as_deref(), Some(value), "{name}");
    }
    let caps = bench.harness.sinkpad().unwrap().current_caps().unwrap();
    let caps = caps.structure(0).unwrap();
    assert_eq!(caps.get::<&str>("profile"), Ok("constrained-baseline"));
    assert_eq!(caps.get::<&str>("level"), Ok("2"));
}

#[test]
fn every_property_reaches_its_control() {
    let mut one = bench(
        "",
        "video/x-h264,stream-format=byte-stream,alignment=au,profile=high,level=(string)4.1",
        |element| {
            for (name, value) in [
                ("rate-control", "vbr"),
                ("peak-bitrate", "3000000"),
                ("qp-min", "10"),
                ("qp-max", "40"),
                ("qp-min-i", "5"),
                ("qp-init", "20"),
                ("b-frames", "1"),
                ("vbv-size", "123456"),
                ("idr-interval", "1500"),
                ("intra-refresh", "60"),
                ("header-mode", "first-frame"),
                ("au-delimiter", "true"),
                ("slice-size", "1200"),
                ("preset-level", "slow"),
                ("max-performance", "false"),
                ("poc-type", "0"),
                ("insert-vui", "true"),
                ("num-ref-frames", "2"),
                ("two-pass-cbr", "true"),
                ("extra-controls", "controls,temporal_tradeoff_level=0,h264-entropy-mode=1"),
            ] {
                element.set_property_from_str(name, value);
            }
        },
    );
    one.push(2);
    one.eos();
    for (name, value) in [
        ("BITRATE_MODE", "0"),
        ("BITRATE_PEAK", "3000000"),
        // Least and greatest of I, P, B; −1 keeps.
        ("QP_RANGE", "5 40 10 40 10 40"),
        ("INIT_FRAME_QP", "20 20 20"),
        ("NUM_BFRAMES", "1"),
        ("VIRTUALBUFFER_SIZE", "123456"),
        // A multiple of the distance of I-frames.
        ("IDR_INTERVAL", "2000"),
        ("GOP_SIZE", "1000"),
        ("SLICE_INTRAREFRESH_PARAM", "60"),
        ("INSERT_SPS_PPS_AT_IDR", "0"),
        ("INSERT_AUD", "1"),
        // In bits.
        ("SLICE_LENGTH_PARAM", "0 9600"),
        ("HW_PRESET_TYPE", "4"),
        ("MAX_PERFORMANCE", "0"),
        ("POC_TYPE", "0"),
        ("INSERT_VUI", "1"),
        ("NUM_REFERENCE_FRAMES", "2"),
        ("TWO_PASS_CBR", "1"),
        ("TEMPORAL_TRADEOFF_LEVEL", "0"),
        ("H264_ENTROPY_MODE", "1"),
        ("H264_PROFILE", "4"),
        ("H264_LEVEL", "12"),
    ] {
        assert_eq!(one.control(name).as_deref(), Some(value), "{name}");
    }
    let mut two = bench("", AV1, |element| {
        element.set_property_from_str("tile-rows", "1");
        element.set_property_from_str("tile-columns", "2");
        element.set_property_from_str("rate-control", "fixqp");
        element.set_property_from_str("latency-mode", "normal");
        element.set_property("output-buffers", 8_u32);
    });
    two.push(1);
    two.eos();
    assert_eq!(two.control("AV1_TILE_CONFIGURATION").as_deref(), Some("1 1 2"));
    assert_eq!(two.control("AV1_HEADERS_WITH_FRAME").as_deref(), Some("1"));
    assert_eq!(two.control("FRAME_RC_ENABLE").as_deref(), Some("0"));
    assert_eq!(two.control("VIRTUALBUFFER_SIZE").as_deref(), Some("2000000"));
}

#[test]
fn releases_may_lack_controls() {
    let refused = "refuse=HW_PRESET_TYPE+MAX_PERFORMANCE+POC_TYPE+NUM_REFERENCE_FRAMES+VIRTUALBUFFER_SIZE+H264_PROFILE+\
                   H264_LEVEL+INSERT_SPS_PPS_AT_IDR+IDR_INTERVAL+GOP_SIZE";
    let mut bench = good(refused);
    bench.push(5);
    bench.harness.push_upstream_event(force_key());
    bench.push(5);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), all(10));
    // The parameter sets that the device puts only at the start are put in here.
    for number in keys(&buffers) {
        let data = buffers[number as usize].map_readable().unwrap();
        assert!(v4l2_m2m::codec::Codec::H264.inspect(&data).complete, "{number}");
    }
    assert_eq!(keys(&buffers).len(), 2);
}

#[test]
fn gop_and_headers_at_each_keyframe() {
    for (config, headers) in [("", true), ("header-only=yes", true), ("key-flag=no", true)] {
        let mut bench = bench(config, H264, |element| element.set_property("gop-size", 5_i32));
        bench.push(12);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(numbers(&buffers), all(12), "{config}");
        assert_eq!(keys(&buffers), [0, 5, 10], "{config}");
        for key in [0, 5, 10] {
            let contents = v4l2_m2m::codec::Codec::H264.inspect(&buffers[key].map_readable().unwrap());
            assert_eq!(contents.complete, headers, "{config} {key}");
        }
    }
}

fn is_marked(buffer: &gst::Buffer) -> bool {
    buffer.flags().contains(gst::BufferFlags::MARKER)
}

#[test]
fn slices_come_before_their_picture_is_whole() {
    let caps = H264.replace("alignment=au", "alignment=nal");
    let mut bench = bench("hold=slices", &caps, |_| ());
    hold(&bench.tag, true);
    bench.push(1);
    bench.until("the first slice", |bench| bench.stat("frames-out") == 1);
    // The count comes a little before the buffer.
    let first = bench.harness.pull().unwrap();
    assert!(!is_marked(&first) && !first.flags().contains(gst::BufferFlags::DELTA_UNIT));
    assert!(v4l2_m2m::codec::Codec::H264.inspect(&first.map_readable().unwrap()).complete);
    hold(&bench.tag, false);
    // Nothing goes in, and still the rest comes out.
    let mut rest = Vec::new();
    while rest.last().is_none_or(|buffer| !is_marked(buffer)) {
        rest.push(bench.harness.pull().unwrap());
    }
    assert_eq!(rest.len(), 3);
    assert!(rest.iter().all(|buffer| buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)));
    assert!(rest.iter().all(|buffer| buffer.pts() == first.pts()));
    assert_eq!(bench.control("SLICE_LEVEL_ENCODE").as_deref(), Some("1"));
    // A quarter of what a frame has.
    assert_eq!(bench.control("SLICE_LENGTH_PARAM").as_deref(), Some("0 16666"));
    bench.eos();
}

#[test]
fn pictures_survive_slices() {
    // Once the device tells which slice is the last, once not.
    for (codec, caps, config, count, marked) in [
        (Codec::H264, H264, "", 80, 20),
        (Codec::H265, H265, "", 20, 20),
        (Codec::H264, H264, "refuse=METADATA", 80, 0),
        (Codec::H264, H264, "header-only=yes,key-flag=no", 80, 20),
    ] {
        let mut bench = bench(config, &caps.replace("alignment=au", "alignment=nal"), |element| {
            element.set_property("gop-size", 5_i32);
        });
        bench.push(19);
        bench.harness.push_upstream_event(force_key());
        bench.push(1);
        bench.eos();
        let slices = bench.pull();
        assert_eq!(slices.len(), count, "{config}");
        assert_eq!(slices.iter().filter(|slice| is_marked(slice)).count(), marked, "{config}");
        let current = bench.harness.sinkpad().unwrap().current_caps().unwrap();
        assert_eq!(current.structure(0).unwrap().get::<&str>("alignment"), Ok("nal"));
        let mut pictures: Vec<gst::Buffer> = Vec::new();
        for slice in slices {
            match pictures.last_mut() {
                Some(picture) if picture.pts() == slice.pts() => picture.append(slice),
                _ => pictures.push(slice),
            }
        }
        assert_eq!(numbers(&pictures), all(20), "{config}");
        assert_eq!(keys(&pictures)[..4], [0, 5, 10, 15], "{config}");
        bench.check_pictures(codec, &pictures, 26.0);
        // Parameter sets once for a picture, not for each of its slices.
        assert_eq!(bench.stat("headers-inserted"), 0, "{config}");
        assert_eq!((bench.stat("frames-out"), bench.stat("frames-dropped")), (20, 0));
    }
}

#[test]
fn forced_keyframes_by_each_way_that_works() {
    let methods = [
        (H264, ""),
        (H264, "ignore=FORCE_KEY_FRAME"),
        (H264, "refuse=FORCE_KEY_FRAME"),
        (H264, "ignore=FORCE_KEY_FRAME+MFC51_FORCE_FRAME_TYPE"),
        (H265, ""),
        (AV1, ""),
    ];
    for (caps, config) in methods {
        let mut bench = bench(config, caps, |_| ());
        bench.push(10);
        bench.until("the first frames", |bench| bench.stat("frames-out") >= 6);
        bench.harness.push_upstream_event(force_key());
        bench.push(60);
        bench.eos();
        let buffers = bench.pull();
        assert_eq!(numbers(&buffers), all(70), "{caps} {config}");
        let keys = keys(&buffers);
        assert_eq!(keys.len(), 2, "{caps} {config} {keys:?}");
        assert!((6..60).contains(&keys[1]), "{caps} {config} {keys:?}");
        if config.is_empty() {
            assert!(keys[1] <= 10, "at once: {keys:?}");
        }
        assert_eq!((bench.stat("keyframes-requested"), bench.stat("restarts")), (1, 0), "{caps} {config}");
    }
}

#[test]
fn a_keyframe_where_no_request_works_comes_by_a_new_stream() {
    let mut bench = good("ignore=FORCE_KEY_FRAME+MFC51_FORCE_FRAME_TYPE+FORCE_IDR_FRAME");
    bench.push(10);
    bench.until("the first frames", |bench| bench.stat("frames-out") >= 6);
    bench.harness.push_upstream_event(force_key());
    bench.push(60);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), all(70));
    assert_eq!(keys(&buffers).len(), 2);
    assert_eq!(bench.stat("restarts"), 1);
}

#[test]
fn live_bitrate_changes_what_comes_out() {
    let mut bench = bench("", H264, |element| element.set_property("bitrate", 3_000_000_u32));
    bench.push(40);
    bench.until("the frames", |bench| bench.stat("frames-out") >= 36);
    bench.element.set_property("bitrate", 300_000_u32);
    bench.until("the bitrate", |bench| bench.control("BITRATE").as_deref() == Some("300000"));
    bench.push(80);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), all(120));
    assert_eq!(keys(&buffers), [0], "without a keyframe");
    let bytes =
        |range: std::ops::Range<usize>| buffers[range].iter().map(|buffer| buffer.size()).sum::<usize>();
    let (before, after) = (bytes(10..40), bytes(90..120));
    assert!(after * 2 < before, "{before} {after}");
    assert_eq!(bench.stat("restarts"), 0);
}

#[test]
fn a_bitrate_that_is_busy_needs_a_new_stream() {
    let mut bench = good("busy=BITRATE");
    bench.push(5);
    bench.element.set_property("bitrate", 700_000_u32);
    bench.push_until("the new stream", |bench| bench.stat("restarts") == 1);
    bench.push(5);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), all(bench.next.into()));
    assert_eq!(bench.control("BITRATE").as_deref(), Some("700000"));
    assert_eq!(bench.stat("restarts"), 1);
}

#[test]
fn live_frame_rate_and_gop() {
    let mut bench = good("");
    bench.push(5);
    bench.format(VideoFormat::Nv12, 322, 242, 15);
    bench.until("the frame rate", |bench| bench.control("S_PARM").as_deref() == Some("15/1"));
    bench.push(5);
    // Shorter than the device's: kept by requests, without a new stream.
    bench.element.set_property("gop-size", 10_i32);
    bench.push(40);
    bench.until("the frames", |bench| bench.stat("frames-out") >= 46);
    assert_eq!(bench.stat("restarts"), 0);
    let keyframes = bench.stat("keyframes");
    assert!((4..=6).contains(&keyframes), "{keyframes}");
    // Longer: the device has to be told.
    bench.element.set_property("gop-size", 2000_i32);
    bench.push_until("the new stream", |bench| bench.stat("restarts") == 1);
    bench.push(20);
    bench.eos();
    assert_eq!(numbers(&bench.pull()), all(bench.next.into()));
    assert_eq!(bench.stat("restarts"), 1);
    assert_eq!(bench.control("IDR_INTERVAL").as_deref(), Some("2000"));
    assert_eq!(bench.stat("keyframes"), keyframes + 1);
}

#[test]
fn target_bitrate_and_pause() {
    let mut bench = good("");
    bench.push(5);
    assert!(bench.harness.push_upstream_event(target(300_000, true)));
    bench.until("the target", |bench| bench.control("BITRATE").as_deref() == Some("300000"));
    bench.until("the frames", |bench| bench.stat("frames-out") == 5);
    bench.harness.push_upstream_event(target(300_000, false));
    bench.push(5);
    bench.harness.push_upstream_event(target(400_000, true));
    bench.push(5);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    assert_eq!(keys(&buffers), [0, 10]);
    assert_eq!(bench.stat("frames-paused"), 5);
}

#[test]
fn another_size_loses_no_frame() {
    let mut bench = good("latency=10");
    bench.push(8);
    bench.format(VideoFormat::I420, 640, 360, 30);
    bench.push(8);
    bench.format(VideoFormat::Nv12, 322, 242, 30);
    bench.push(8);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), all(24));
    assert_eq!(keys(&buffers), [0, 8, 16]);
    assert_eq!(bench.stat("frames-dropped"), 0);
    assert_eq!(bench.count("opens"), 3, "each stream on a device opened anew");
    bench.check_pictures(Codec::H264, &buffers[16..], 28.0);
}

#[test]
fn odd_sizes_are_padded_with_the_edge() {
    let mut bench = good("");
    bench.format(VideoFormat::I420, 321, 241, 30);
    bench.push(3);
    bench.eos();
    assert_eq!(numbers(&bench.pull()), all(3));
}

#[test]
fn too_large_is_an_error_that_says_how_large() {
    let mut bench = good("max=640x480");
    bench.format(VideoFormat::Nv12, 1280, 720, 30);
    assert!(bench.try_push().is_err());
    let error = bench.error().unwrap();
    assert!(error.contains("at most 640x480"), "{error}");
}

#[test]
fn each_way_in_which_the_end_shows() {
    for config in ["eos=empty", "eos=last", "eos=again", "latency=30"] {
        let mut bench = good(config);
        bench.push(7);
        let begin = Instant::now();
        bench.eos();
        assert_eq!(numbers(&bench.pull()), all(7), "{config}");
        assert!(begin.elapsed() < PATIENCE / 2, "{config}: not by waiting until it counts as hung");
    }
    // Nothing in the device.
    let mut bench = good("");
    bench.eos();
    assert!(bench.pull().is_empty());
}

#[test]
fn lost_frames_are_booked() {
    let mut bench = good("drop=3");
    bench.push(9);
    bench.until("the losses", |bench| bench.stat("frames-dropped") == 2);
    bench.eos();
    assert_eq!(numbers(&bench.pull()), [0, 1, 3, 4, 6, 7]);
    assert_eq!((bench.stat("frames-out"), bench.stat("frames-dropped")), (6, 3));
}

#[test]
fn packets_that_do_not_fit_are_booked() {
    let mut bench = good("capture-size=2000");
    bench.push(10);
    bench.eos();
    let out = bench.pull().len() as u64;
    assert!(bench.stat("frames-dropped") >= 1, "a keyframe is larger than that");
    assert_eq!(out + bench.stat("frames-dropped"), 10);
}

#[test]
fn av1_in_ivf_is_unwrapped() {
    let mut bench = bench("release=36.4", AV1, |_| ());
    bench.push(8);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!((numbers(&buffers), keys(&buffers)), (all(8), vec![0]));
    bench.check_pictures(Codec::Av1, &buffers, 28.0);
}

#[test]
fn flushing() {
    let mut bench = good("");
    hold(&bench.tag, true);
    bench.push(3);
    bench.harness.push_event(gst::event::FlushStart::new());
    bench.harness.push_event(gst::event::FlushStop::new(true));
    hold(&bench.tag, false);
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    bench.harness.push_event(gst::event::Segment::new(&segment));
    bench.push(2);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!((numbers(&buffers), keys(&buffers)), (vec![3, 4], vec![3]));
}

#[test]
fn a_device_that_fails_or_vanishes_is_an_error() {
    for (config, word) in [("eio=3", "failed"), ("enodev=3", "vanished")] {
        let mut bench = good(config);
        let end = Instant::now() + PATIENCE;
        while bench.try_push().is_ok() {
            assert!(Instant::now() < end);
        }
        let error = bench.error().unwrap();
        assert!(error.contains(word), "{config}: {error}");
        // And works again on the next start, as if plugged in anew.
        bench.element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_device_that_hangs_is_an_error_and_stops() {
    let begin = Instant::now();
    let mut bench = hanging("hang=1", 2);
    bench.push(3);
    assert!(bench.error().unwrap().contains("hangs"));
    drop(bench);
    // Inside of a call.
    let mut bench = hanging("stop-hangs=yes", 1);
    bench.push(2);
    bench.clean = false;
    bench.element.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    bench.until("the device is let go", |bench| bench.count("open") == 0);
}

#[test]
fn stopping_while_blocked() {
    let mut bench = good("hang=0");
    let element = bench.element.clone();
    let pushing = std::thread::spawn(move || {
        while bench.try_push().is_ok() {}
        bench
    });
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    element.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    drop(pushing.join().unwrap());
}

#[test]
fn latency_is_measured() {
    let mut bench = good("latency=60");
    bench.push(3);
    bench.eos();
    let mut query = gst::query::Latency::new();
    assert!(bench.element.static_pad("src").unwrap().query(&mut query));
    let (_, least, _) = query.result();
    assert!(least >= gst::ClockTime::from_mseconds(60), "{least}");
    assert_eq!(bench.stat("latency"), least.nseconds());
}

#[test]
fn several_at_once_open_one_after_the_other() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let mut bench = good("");
                bench.push(5);
                bench.eos();
                assert_eq!(numbers(&bench.pull()), all(5));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
