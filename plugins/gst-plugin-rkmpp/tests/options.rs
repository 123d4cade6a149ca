// SPDX-License-Identifier: MPL-2.0

//! What the properties and the caps do to the stream.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use common::{Outcome, Running, Simulator, enc, is_key, psnr, run, source};
use gst::prelude::*;

fn encode(frames: i32, properties: &str, rest: &str) -> Outcome {
    run(&format!(
        "{} ! {} ! {rest} fakesink name=out sync=false",
        source(frames, "NV12", 320, 240),
        enc(properties)
    ))
}

fn bytes(outcome: &Outcome) -> usize {
    outcome.buffers.iter().map(|buffer| buffer.size()).sum()
}

#[test]
fn colorimetry_gets_into_the_stream() {
    let simulator = Simulator::new("");
    for (codec, parser) in [("video/x-h264", "h264parse"), ("video/x-h265", "h265parse")] {
        for colorimetry in ["bt709", "bt601", "1:3:5:1", "2:4:7:1"] {
            // The parser reads it out of the bitstream: ours is taken out of the caps before.
            let made = run(&format!(
                "{},colorimetry=(string){colorimetry} ! {} ! {codec} ! capssetter replace=true \
                 caps=\"{codec},stream-format=byte-stream,alignment=au\" ! {parser} ! fakesink name=out sync=false",
                source(3, "NV12", 320, 240),
                enc("")
            ));
            assert!(made.errors.is_empty(), "{:?}", made.errors);
            let caps = made.caps.last().unwrap().structure(0).unwrap().to_owned();
            let found = caps.get::<String>("colorimetry").unwrap_or_default();
            let parsed = |text: &str| text.parse::<gst_video::VideoColorimetry>().unwrap();
            assert_eq!(parsed(&found), parsed(colorimetry), "{codec} {caps}");
        }
    }
    simulator.assert_clean();
}

#[test]
fn rotation_turns_the_picture_and_the_caps() {
    let simulator = Simulator::new("");
    for (rotation, width, height) in [(0, 320, 240), (90, 240, 320), (180, 320, 240), (270, 240, 320)] {
        let made = run(&format!(
            "{} ! {} ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=I420,width={width},height={height} \
             ! fakesink name=out sync=false",
            source(3, "NV12", 320, 240),
            enc(&format!("rotation={rotation} bitrate=4000000"))
        ));
        let caps = made.caps.last().unwrap().structure(0).unwrap().to_owned();
        assert_eq!((caps.get("width"), caps.get("height")), (Ok(width), Ok(height)), "{rotation}");
        let turned = run(&format!(
            "{} ! videoflip video-direction={} ! video/x-raw,format=NV12 ! videoconvert ! video/x-raw,format=I420 \
             ! fakesink name=out sync=false",
            source(3, "NV12", 320, 240),
            ["identity", "90r", "180", "90l"][rotation / 90]
        ));
        let psnr = psnr(&made.buffers[2], &turned.buffers[2], 320 * 240);
        assert!(psnr > 28.0, "{rotation}: {psnr:.1} dB");
    }
    simulator.assert_clean();
}

#[test]
fn gop_and_quality_do_what_they_say() {
    let simulator = Simulator::new("");
    let keys = |made: &Outcome| made.buffers.iter().filter(|buffer| is_key(buffer)).count();
    assert_eq!(keys(&encode(20, "gop-size=1", "")), 20);
    assert_eq!(keys(&encode(20, "gop-size=0", "")), 1);
    // Two seconds of 30 frames.
    assert_eq!(keys(&encode(70, "", "")), 2);

    let fine = encode(10, "rate-control=fixqp qp-init=20", "");
    let coarse = encode(10, "rate-control=fixqp qp-init=45", "");
    assert!(bytes(&fine) > 2 * bytes(&coarse), "{} and {}", bytes(&fine), bytes(&coarse));
    let fine = encode(5, "quality=95", "image/jpeg !");
    let coarse = encode(5, "quality=20", "image/jpeg !");
    assert!(bytes(&fine) > bytes(&coarse) * 5 / 4, "{} and {}", bytes(&fine), bytes(&coarse));
    simulator.assert_clean();
}

/// Noise, which takes as many bits as it may; the mean QP of the last frame, and bits a second.
fn noise(properties: &str) -> (i32, usize) {
    let running = Running::new(&format!(
        "videotestsrc num-buffers=45 pattern=snow ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! video/x-h264 ! fakesink name=out sync=false",
        enc(properties)
    ));
    running.play();
    let element = running.element("enc");
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty() && made.buffers.len() == 45, "{made:?}");
    let qp = element.property::<gst::Structure>("stats").get("average-qp").unwrap();
    (qp, bytes(&made) * 8 * 30 / 45)
}

#[test]
fn rate_control_and_its_limits_do_what_they_say() {
    let simulator = Simulator::new("");
    for mode in ["cbr", "vbr", "avbr"] {
        let rate = |bitrate: u32| noise(&format!("rate-control={mode} bitrate={bitrate}")).1;
        let (low, high) = (rate(600_000), rate(4_000_000));
        assert!(
            low < 4 * 600_000 && high < 4 * 4_000_000 && high > 2 * low,
            "{mode}: {low} and {high} bit/s"
        );
    }
    assert_eq!(noise("rate-control=fixqp qp-init=33").0, 33);
    // Few bits and many: the limits hold.
    assert!(noise("bitrate=100000 qp-max=30").0 <= 30);
    assert!(noise("bitrate=50000000 qp-min=40").0 >= 40);
    // All are keyframes here.
    assert!(noise("bitrate=100000 gop-size=1 qp-max-i=28").0 <= 28);
    assert!(noise("bitrate=50000000 gop-size=1 qp-min-i=42").0 >= 42);
    simulator.assert_clean();
}

#[test]
fn a_value_out_of_range_is_told_once_however_often_others_change() {
    let simulator = Simulator::new("");
    let running = Running::new(&format!(
        "{} ! {} ! fakesink name=out sync=false",
        source(60, "NV12", 320, 240),
        enc("bitrate=2000000 min-bitrate=1000000")
    ));
    // Each frame finds another bit rate, as the network would have it.
    let sink = running.element("enc").static_pad("sink").unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    let element = running.element("enc").downgrade();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        element.upgrade().unwrap().set_property("bitrate", 500_000 + 30_000 * number);
        gst::PadProbeReturn::Ok
    });
    running.play();
    let made = running.finish();
    assert_eq!(made.buffers.len(), 60);
    assert!(
        made.warnings.len() == 1 && made.warnings[0].contains("min-bitrate=1000000"),
        "{:?}",
        made.warnings
    );
    drop(made);
    simulator.assert_clean();
}

#[test]
fn headers_come_where_the_mode_says() {
    let simulator = Simulator::new("");
    let headers = |mode: &str| {
        let made = encode(9, &format!("gop-size=3 header-mode={mode}"), "");
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
        let has = |buffer: &gst::Buffer| {
            let map = buffer.map_readable().unwrap();
            map.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7)
        };
        made.buffers.iter().map(has).collect::<Vec<_>>()
    };
    let at = |places: &[usize]| (0..9).map(|index| places.contains(&index)).collect::<Vec<_>>();
    assert_eq!(headers("each-idr"), at(&[0, 3, 6]));
    assert_eq!(headers("first-frame"), at(&[0]));
    simulator.assert_clean();
}

#[test]
fn profile_and_level_are_those_of_the_caps() {
    let simulator = Simulator::new("");
    let sps = |caps: &str| {
        let made = encode(2, "", &format!("{caps} !"));
        assert!(made.errors.is_empty(), "{caps}: {:?}", made.errors);
        let map = made.buffers[0].map_readable().unwrap();
        let at = map.windows(4).position(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7).unwrap();
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        (map[at + 4], caps.get::<String>("profile").unwrap(), caps.get::<String>("level").unwrap())
    };
    let own = |profile: u8, name: &str| (profile, name.to_owned());
    for (caps, expected) in [
        ("video/x-h264", own(100, "high")),
        ("video/x-h264,profile=main", own(77, "main")),
        ("video/x-h264,profile=constrained-baseline", own(66, "constrained-baseline")),
    ] {
        let (profile, name, level) = sps(caps);
        assert_eq!((profile, name), expected);
        // 320x240 with 30 frames a second.
        assert_eq!(level, "1.3");
    }
    assert_eq!(sps("video/x-h264,level=(string)4").2, "4");
    simulator.assert_clean();
}

#[test]
fn keys_of_mpp_can_be_set_and_what_is_refused_is_told() {
    let simulator = Simulator::new("");
    let made = encode(10, "extra-config=\"mpp,rc:gop=3\"", "");
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.iter().filter(|buffer| is_key(buffer)).count(), 4);
    let made = encode(3, "extra-config=\"mpp,rc:drop_threshold=3\"", "");
    assert_eq!(made.buffers.len(), 3);
    assert!(
        made.warnings.len() == 1 && made.warnings[0].contains("rc:drop_threshold=3"),
        "{:?}",
        made.warnings
    );
    let made = encode(3, "bitrate=7", "");
    assert!(
        made.warnings.len() == 1 && made.warnings[0].contains("1000 to 200000000"),
        "{:?}",
        made.warnings
    );
    let made = encode(3, "qp-max=99 bitrate=2000000 peak-bitrate=1000", "");
    assert!(
        made.warnings.len() == 2 && made.warnings[0].contains("2000000 to 200000000"),
        "{:?}",
        made.warnings
    );
    assert!(
        made.warnings[1].contains("qp-max=99 is out of range (10 to 51): using 51"),
        "{:?}",
        made.warnings
    );
    drop(simulator);

    // Old releases know fewer keys, and that is no warning.
    let simulator = Simulator::new("release=1.0.0");
    let made = encode(10, "temporal-layers=2 intra-refresh=2 low-latency=true max-reencode=2", "");
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), 10);
    simulator.assert_clean();
}

#[test]
fn temporal_layers_can_be_decoded() {
    let simulator = Simulator::new("");
    for layers in 1..=4 {
        let made = encode(20, &format!("temporal-layers={layers}"), "h264parse ! avdec_h264 !");
        assert!(made.errors.is_empty(), "{layers}: {:?}", made.errors);
        assert_eq!(made.buffers.len(), 20, "{layers}");
    }
    simulator.assert_clean();
}

#[test]
fn max_framerate_leaves_frames_out() {
    let simulator = Simulator::new("");
    for rate in [10, 25, 30] {
        let running = Running::new(&format!(
            "{} ! {} ! fakesink name=out sync=false",
            source(64, "NV12", 320, 240),
            enc("max-pending=4")
        ));
        running.pipeline.set_state(gst::State::Paused).unwrap();
        // No more are taken until the sink goes on.
        running.wait_for_stat("pending", 4);
        let event = gst::event::CustomUpstream::new(
            gst::Structure::builder("GstTargetBitrate")
                .field("bitrate", 1_000_000_u32)
                .field("max-framerate", gst::Fraction::new(rate, 1))
                .field("active", true)
                .field("source", "test")
                .build(),
        );
        assert!(running.element("enc").static_pad("src").unwrap().send_event(event));
        running.play();
        let made = running.finish();
        assert!(made.errors.is_empty(), "{:?}", made.errors);
        let expected = 4 + 60 * rate as usize / 30;
        assert!(made.buffers.len().abs_diff(expected) <= 1, "{} of {expected}", made.buffers.len());
    }
    simulator.assert_clean();
}

#[test]
fn regions_of_interest_reach_the_library_and_leave_nothing() {
    let simulator = Simulator::new("");
    let running = Running::new(&format!(
        "{} ! {} ! fakesink name=out sync=false",
        source(20, "NV12", 320, 240),
        enc("")
    ));
    running.element("enc").static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        for region in 0..12 {
            gst_video::VideoRegionOfInterestMeta::add(buffer, "face", (region * 30, 7, 5000, u32::MAX));
        }
        gst::PadProbeReturn::Ok
    });
    running.play();
    let made = running.finish();
    assert!(made.errors.is_empty(), "{:?}", made.errors);
    assert_eq!(made.buffers.len(), 20);
    simulator.assert_clean();
}

#[test]
fn the_gop_changes_while_frames_are_in_flight() {
    let simulator = Simulator::new("latency-us=1000");
    let running = Running::new(&format!(
        "{} ! {} ! fakesink name=out sync=false",
        source(-1, "NV12", 320, 240),
        enc("gop-size=0 max-pending=4")
    ));
    running.play();
    running.wait_for(12);
    running.element("enc").set_property("gop-size", 5);
    running.wait_for(running.buffers() + 40);
    running.pipeline.send_event(gst::event::Eos::new());
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{:?} {:?}", made.errors, made.warnings);
    let keys: Vec<_> = (0..made.buffers.len()).filter(|&index| is_key(&made.buffers[index])).collect();
    // The change itself makes one, after those that had come by then.
    assert!(keys.len() > 5 && keys[0] == 0 && keys[1] >= 12, "{keys:?}");
    assert!(keys[1..].windows(2).all(|pair| pair[1] - pair[0] == 5), "{keys:?}");
    // None was lost.
    for (number, buffer) in (0..).zip(&made.buffers) {
        assert_eq!(buffer.pts().unwrap().mseconds(), number * 1000 / 30);
    }
    simulator.assert_clean();
}

#[test]
fn the_frame_rate_changes_without_a_lost_frame() {
    let simulator = Simulator::new("latency-us=1000");
    let made = run(&format!(
        "concat name=c ! {} ! fakesink name=out sync=false  {} ! c.  {} ! capssetter caps=video/x-raw,framerate=15/1 ! c.",
        enc("gop-size=0"),
        source(10, "NV12", 320, 240),
        source(10, "NV12", 320, 240)
    ));
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{:?} {:?}", made.errors, made.warnings);
    assert_eq!(made.buffers.len(), 20);
    let rates: Vec<_> = made
        .caps
        .iter()
        .map(|caps| caps.structure(0).unwrap().get::<gst::Fraction>("framerate").unwrap())
        .collect();
    assert_eq!(rates, [gst::Fraction::new(30, 1), gst::Fraction::new(15, 1)]);
    simulator.assert_clean();
}

#[test]
fn times_that_jump_are_kept() {
    let simulator = Simulator::new("");
    let times = [0, 40, 20, 20, 3_600_000, 10];
    let running = Running::new(&format!(
        "appsrc name=src format=time caps=video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! fakesink name=out sync=false",
        enc("")
    ));
    running.play();
    let source = running.element("src");
    for time in times {
        let mut frame = gst::Buffer::from_mut_slice(vec![0x80; 320 * 240 * 3 / 2]);
        frame.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(time));
        let _ = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&frame]);
    }
    let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{:?} {:?}", made.errors, made.warnings);
    let out: Vec<_> = made.buffers.iter().map(|buffer| buffer.pts().unwrap().mseconds()).collect();
    assert_eq!(out, times);
    drop((made, source));
    simulator.assert_clean();
}
