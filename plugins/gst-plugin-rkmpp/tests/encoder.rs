// SPDX-License-Identifier: MPL-2.0

//! `rkmppenc` over the simulated library, through the ordinary way of loading.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use common::{Resources, Running, Simulator, cycles, enc, is_key, psnr, run, slow_once, source};
use gst::prelude::*;

/// H.264 NAL unit types of a byte stream.
fn h264_types(buffer: &gst::Buffer) -> Vec<u8> {
    let map = buffer.map_readable().unwrap();
    map.windows(4).filter(|w| w[..3] == [0, 0, 1]).map(|w| w[3] & 0x1f).collect()
}

/// Encodes and decodes; compares with what went in.
fn round_trip(format: &str, caps: &str, decoder: &str, least: f64) {
    let (width, height) = (320, 240);
    let out = "videoconvert ! video/x-raw,format=I420 ! fakesink name=out sync=false";
    let source = source(12, format, width, height);
    let coded = run(&format!("{source} ! {} ! {caps} ! {decoder} ! {out}", enc("bitrate=4000000")));
    assert!(coded.errors.is_empty(), "{format} {caps}: {:?}", coded.errors);
    let plain = run(&format!("{source} ! {out}"));
    assert_eq!(coded.buffers.len(), 12, "{format} {caps}");
    for (index, (coded, plain)) in coded.buffers.iter().zip(&plain.buffers).enumerate() {
        let psnr = psnr(coded, plain, (width * height) as usize);
        assert!(psnr > least, "{format} {caps}: frame {index} has {psnr:.1} dB");
        assert_eq!(coded.pts(), plain.pts(), "{format} {caps}");
    }
}

#[test]
fn all_codecs_show_the_picture() {
    let simulator = Simulator::new("");
    for (caps, decoder) in [
        ("video/x-h264", "h264parse ! avdec_h264"),
        ("video/x-h264,stream-format=avc", "h264parse ! avdec_h264"),
        ("video/x-h264,profile=constrained-baseline", "h264parse ! avdec_h264"),
        ("video/x-h265", "h265parse ! avdec_h265"),
        ("video/x-h265,stream-format=hvc1", "h265parse ! avdec_h265"),
        ("video/x-vp8", "vp8dec"),
        ("image/jpeg", "jpegdec"),
    ] {
        round_trip("NV12", caps, decoder, 30.0);
    }
    simulator.assert_clean();
}

#[test]
fn all_formats_show_the_picture() {
    let simulator = Simulator::new("");
    for format in [
        "I420", "NV21", "NV16", "NV61", "Y42B", "YUY2", "UYVY", "YVYU", "VYUY", "GRAY8", "NV24", "Y444",
        "BGRA", "RGBA", "ARGB", "ABGR", "RGB", "BGR",
    ] {
        round_trip(format, "video/x-h264", "h264parse ! avdec_h264", 28.0);
    }
    for format in ["I420", "YUY2", "UYVY", "BGRA"] {
        round_trip(format, "image/jpeg", "jpegdec", 28.0);
    }
    simulator.assert_clean();
}

#[test]
fn every_keyframe_has_its_headers_and_frames_keep_their_times() {
    for release in ["1.0.0", "1.0.4", "1.0.8", "1.0.9", "1.0.10", "1.0.11"] {
        let simulator = Simulator::new(&format!("release={release}"));
        let made = run(&format!(
            "{} ! {} ! fakesink name=out sync=false",
            source(25, "NV12", 320, 240),
            enc("gop-size=10")
        ));
        assert!(made.errors.is_empty(), "{release}: {:?}", made.errors);
        assert_eq!(made.buffers.len(), 25, "{release}");
        for (index, buffer) in made.buffers.iter().enumerate() {
            let types = h264_types(buffer);
            assert_eq!(is_key(buffer), index % 10 == 0, "{release}: frame {index}");
            assert_eq!(types.contains(&7) && types.contains(&8), index % 10 == 0, "{release}: frame {index}");
            assert_eq!(buffer.pts().unwrap().mseconds(), (index as u64 * 1000) / 30, "{release}");
            assert_eq!(buffer.dts(), buffer.pts());
        }
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        assert_eq!(caps.get::<&str>("stream-format"), Ok("byte-stream"));
        assert_eq!(caps.get::<&str>("alignment"), Ok("au"));
        assert_eq!(caps.get::<&str>("profile"), Ok("high"));
        simulator.assert_clean();
    }
}

#[test]
fn frames_are_coded_two_at_a_time() {
    let most = |properties: &str, pending: u64, hold: &str| {
        let simulator = Simulator::new(&format!("codec=instant,{hold}=1"));
        let running = Running::new(&format!(
            "{} ! {} ! fakesink name=out sync=false",
            source(12, "NV12", 320, 240),
            enc(properties)
        ));
        running.play();
        // The hardware finishes none: all are put that may be.
        running.wait_for_stat("pending", pending);
        let begin = std::time::Instant::now();
        while pending > 1 && simulator.count("side-by-side") < 2 {
            assert!(begin.elapsed() < common::PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        simulator.configure(&format!("{hold}=0"));
        running.wait_for(12);
        let most: u64 = running.stats().get("most-pending").unwrap();
        assert_eq!(running.finish().buffers.len(), 12);
        simulator.assert_clean();
        (most, simulator.count("side-by-side"))
    };
    // How much faster that is, the bench tells.
    assert_eq!(most("max-pending=4", 4, "hold-out-at"), (4, 2));
    assert_eq!(most("max-pending=2", 2, "hold-out-at"), (2, 2));
    // These put and wait.
    assert_eq!(most("max-pending=1", 1, "hold-at"), (1, 1));
    assert_eq!(most("low-latency=true", 1, "hold-at"), (1, 1));
}

#[test]
fn a_forced_keyframe_is_the_frame_that_was_asked_for() {
    let simulator = Simulator::new("latency-us=3000");
    let running = Running::new(&format!(
        "{} ! {} ! fakesink name=out sync=false",
        source(40, "NV12", 320, 240),
        enc("gop-size=1000")
    ));
    // With the frame number 17, which then is the one.
    let pad = running.element("enc").static_pad("sink").unwrap();
    let source = running.element("enc").static_pad("src").unwrap();
    let mut count = 0;
    let forced = std::sync::Mutex::new(move || {
        count += 1;
        count == 18
    });
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if forced.lock().unwrap()() {
            let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
            assert!(source.send_event(event));
        }
        gst::PadProbeReturn::Ok
    });
    running.play();
    let made = running.finish();
    let keys: Vec<_> = made
        .buffers
        .iter()
        .enumerate()
        .filter(|(_, buffer)| is_key(buffer))
        .map(|(index, _)| index)
        .collect();
    assert_eq!((made.buffers.len(), keys), (40, vec![0, 17]));
    simulator.assert_clean();
}

fn target(bitrate: u32, active: bool) -> gst::Event {
    gst::event::CustomUpstream::new(
        gst::Structure::builder("GstTargetBitrate")
            .field("bitrate", bitrate)
            .field("active", active)
            .field("source", "test")
            .build(),
    )
}

#[test]
fn downstream_lowers_the_bitrate_and_pauses() {
    let simulator = Simulator::new("");
    let running = Running::new(&format!(
        "videotestsrc is-live=true pattern=snow ! video/x-raw,format=NV12,width=320,height=240,framerate=60/1 ! {} \
         ! fakesink name=out sync=false",
        enc("bitrate=3000000")
    ));
    running.play();
    running.wait_for(20);
    let enc = running.element("enc");
    let bitrate = || running.stats().get::<u32>("bitrate").unwrap();
    assert_eq!(bitrate(), 3_000_000);
    let source = enc.static_pad("src").unwrap();

    assert!(source.send_event(target(400_000, true)));
    running.wait_for(running.buffers() + 10);
    assert_eq!(bitrate(), 400_000);
    // A wish cannot raise it over the property.
    assert!(source.send_event(target(9_000_000, true)));
    running.wait_for(running.buffers() + 10);
    assert_eq!(bitrate(), 3_000_000);
    enc.set_property("bitrate", 1_000_000_u32);
    running.wait_for(running.buffers() + 10);
    assert_eq!(bitrate(), 1_000_000);

    assert!(source.send_event(target(400_000, false)));
    running.wait_for_stat("frames-skipped", 10);
    let paused = running.buffers();
    assert!(source.send_event(target(400_000, true)));
    running.wait_for(paused + 10);
    running.pipeline.send_event(gst::event::Eos::new());
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    simulator.assert_clean();
}

#[test]
fn size_and_format_change_without_a_lost_frame() {
    let simulator = Simulator::new("latency-us=2000");
    let made = run(&format!(
        "concat name=c ! {} ! fakesink name=out sync=false  {} ! c.  {} ! c.  {} ! c.",
        enc(""),
        source(10, "NV12", 320, 240),
        source(10, "NV12", 640, 480),
        source(10, "I420", 320, 240)
    ));
    assert!(made.errors.is_empty(), "{:?}", made.errors);
    assert_eq!(made.buffers.len(), 30);
    let keys: Vec<_> =
        made.buffers.iter().map(is_key).enumerate().filter(|key| key.1).map(|key| key.0).collect();
    assert_eq!(keys, [0, 10, 20]);
    assert_eq!(made.caps.len(), 3);
    assert_eq!(made.caps[1].structure(0).unwrap().get::<i32>("width"), Ok(640));
    // One encoder did it all (besides the one that looked for hardware).
    simulator.assert_clean();
}

#[test]
fn a_seek_flushes_and_goes_on_with_a_keyframe() {
    let simulator = Simulator::new("latency-us=1000");
    // Not `async`: a flush while the pipeline is still on its way from preroll to PLAYING may leave a sink waiting.
    let running = Running::new(&format!(
        "videotestsrc ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! fakesink name=out sync=false async=false",
        enc("gop-size=100000")
    ));
    running.play();
    for _ in 0..20 {
        let before = running.buffers();
        running.wait_for(before + 10);
        let sent = running.pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(2));
        assert!(sent.is_ok());
    }
    running.wait_for(running.buffers() + 10);
    running.pipeline.send_event(gst::event::Eos::new());
    let made = running.finish();
    assert!(made.errors.is_empty(), "{:?}", made.errors);
    // After each jump back the first frame is a keyframe. The first jump may be one ahead.
    let mut jumps = 0;
    for pair in made.buffers.windows(2) {
        if pair[1].pts() < pair[0].pts() {
            jumps += 1;
            assert!(is_key(&pair[1]), "{:?} after {:?}", pair[1].pts(), pair[0].pts());
        }
    }
    assert!(jumps >= 19, "{jumps}");
    simulator.assert_clean();
}

#[test]
fn starting_and_stopping_leaves_nothing_behind() {
    let simulator = Simulator::new("codec=instant");
    let cycle = || {
        let running = Running::new(&format!(
            "{} ! {} ! fakesink name=out sync=false",
            source(20, "NV12", 320, 240),
            enc("")
        ));
        running.play();
        running.wait_for(3);
        // In the middle, with frames in flight.
        running.pipeline.set_state(gst::State::Null).unwrap();
    };
    cycle();
    let before = Resources::now();
    for _ in 0..cycles() {
        cycle();
    }
    before.assert_same_after(cycles());
    simulator.assert_clean();
}

#[test]
fn a_broken_encoder_is_restarted_and_then_given_up() {
    let simulator = Simulator::new("hw-error-at=5,hw-error-count=8");
    // Each encoder takes up to 15 of them until its failure is noticed.
    let made =
        run(&format!("{} ! {} ! fakesink name=out sync=false", source(120, "NV12", 320, 240), enc("")));
    // Counting begins anew with each context, so it fails again each time.
    assert_eq!(made.errors.len(), 1, "{made:?}");
    assert!(made.errors[0].contains("after 3 restarts"), "{:?}", made.errors);
    assert_eq!(made.warnings.len(), 3, "{:?}", made.warnings);
    drop(simulator);

    // Few empty packets are the rate control's.
    let simulator = Simulator::new("empty-at=5,empty-count=3");
    let made = run(&format!("{} ! {} ! fakesink name=out sync=false", source(30, "NV12", 320, 240), enc("")));
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), 27);
    simulator.assert_clean();
}

#[test]
fn an_encoder_that_hangs_is_restarted() {
    let simulator = Simulator::new("wedge-at=5,wedge-times=1");
    let running = Running::new(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! fakesink name=out sync=false",
        enc("gop-size=0")
    ));
    running.play();
    running.wait_for(4);
    running.wait_for_stat("restarts", 1);
    running.wait_for(30);
    running.pipeline.send_event(gst::event::Eos::new());
    let made = running.finish();
    assert!(made.errors.is_empty(), "{:?}", made.errors);
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
    // The new encoder begins with a keyframe.
    let keys: Vec<_> = made.buffers.iter().map(is_key).collect();
    assert_eq!(keys.iter().filter(|&&key| key).count(), 2, "{keys:?}");
    assert!(keys[0] && keys[4], "{keys:?}");
    drop(simulator);
}

#[test]
fn downstream_that_blocks_is_no_hang() {
    let simulator = Simulator::new("hold-out-at=21");
    let running = Running::new(&format!(
        "videotestsrc ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! fakesink name=out sync=false",
        enc("")
    ));
    let over = slow_once(&running, 20);
    running.play();
    over.recv_timeout(common::PATIENCE).unwrap();
    // The encoder has done nothing for seconds, because it was not asked; now it needs some time for a frame.
    std::thread::sleep(std::time::Duration::from_millis(250));
    simulator.configure("hold-out-at=0");
    running.wait_for(40);
    running.pipeline.send_event(gst::event::Eos::new());
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{:?} {:?}", made.errors, made.warnings);
    simulator.assert_clean();
}

/// CPU time that the threads of the element took, in ticks of 10 ms.
fn ticks() -> u64 {
    let of = |task: std::fs::DirEntry| -> Option<u64> {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once(") ")?;
        let mut fields = rest.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
        name.contains("rkmppenc").then(|| fields.next().unwrap() + fields.next().unwrap())
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| of(task.ok()?)).sum()
}

#[test]
fn an_encoder_that_blocks_costs_no_time_meanwhile() {
    for (properties, caps) in [("low-latency=true", "video/x-h264"), ("max-pending=4", "video/x-vp8")] {
        let simulator = Simulator::new("latency-us=60000,codec=instant");
        let running = Running::new(&format!(
            "videotestsrc ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} ! {caps} \
             ! fakesink name=out sync=false",
            enc(properties)
        ));
        running.play();
        running.wait_for(16);
        // Nearly a second, most of which a thread that asks again and again would have taken.
        let ticks = ticks();
        running.pipeline.send_event(gst::event::Eos::new());
        assert!(running.finish().errors.is_empty());
        assert!(ticks < 24, "{caps}: {ticks}0 ms");
        simulator.assert_clean();
    }
}

#[test]
fn a_full_queue_and_full_memory_are_no_panic() {
    let simulator = Simulator::new("busy-input=7");
    let made = run(&format!("{} ! {} ! fakesink name=out sync=false", source(20, "NV12", 320, 240), enc("")));
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), 20);
    simulator.assert_clean();
    drop(simulator);

    let simulator = Simulator::new("memory-limit=100000");
    let made = run(&format!("{} ! {} ! fakesink name=out sync=false", source(20, "NV12", 320, 240), enc("")));
    assert_eq!(made.errors.len(), 1, "{:?}", made.errors);
    assert!(made.errors[0].contains("no memory for frames"), "{:?}", made.errors);
    simulator.assert_clean();
}

#[test]
fn what_is_missing_is_told_at_ready_once() {
    let simulator = Simulator::new("init-error=-1");
    let ready_error = |library: &str| {
        let element =
            gst::ElementFactory::make("rkmppenc").property("library-path", library).build().unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        assert!(element.set_state(gst::State::Ready).is_err());
        let mut errors = Vec::new();
        while let Some(message) = bus.pop() {
            if let gst::MessageView::Error(error) = message.view() {
                errors.push(error.error().to_string());
            }
        }
        element.set_state(gst::State::Null).unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.remove(0)
    };
    let text = ready_error(common::simulator().to_str().unwrap());
    assert!(text.contains("MPP found no video hardware") && text.contains("/dev/mpp_service"), "{text}");
    let text = ready_error("/nonexistent/librockchip_mpp.so.1");
    assert!(
        text.contains("could not be loaded") && text.contains("/nonexistent/librockchip_mpp.so.1"),
        "{text}"
    );
    let text = ready_error("libc.so.6");
    assert!(text.contains("it lacks") && text.contains("mpp_create"), "{text}");
    simulator.configure("init-error=0");
    simulator.assert_clean();
}

#[test]
fn sizes_and_codecs_that_cannot_be_are_told() {
    let simulator = Simulator::new("without=9");
    for (source, caps, text) in [
        (source(3, "NV12", 321, 240), "video/x-h264", "must be even"),
        (source(3, "NV12", 64, 48), "video/x-h264", "too small"),
        (source(3, "NV12", 320, 240), "video/x-vp8", "Does this SoC have an encoder for it?"),
        (source(3, "NV24", 320, 240), "image/jpeg", "JPEG cannot be made of NV24"),
    ] {
        let made = run(&format!("{source} ! {} ! {caps} ! fakesink name=out sync=false", enc("")));
        assert!(made.errors.first().is_some_and(|error| error.contains(text)), "{caps}: {:?}", made.errors);
        assert!(made.buffers.is_empty());
    }
    simulator.assert_clean();
}
