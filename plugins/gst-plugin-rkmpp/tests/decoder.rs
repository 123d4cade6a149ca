// SPDX-License-Identifier: MPL-2.0

//! `rkmppdec` over the simulated library, through the ordinary way of loading.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use common::{PATIENCE, Resources, Running, Simulator, cycles, dec, enc, run};
use gst::prelude::*;
use gst_video::VideoMeta;
use sim_codec::{Codec, EncoderConfig};
use streams::*;

const RELEASES: [&str; 7] = ["1.0.0", "1.0.4", "1.0.8", "2025-02", "1.0.9", "1.0.10", "1.0.11"];

#[test]
fn all_codecs_show_the_picture() {
    let simulator = Simulator::new("");
    for codec in Codec::ALL {
        let config = good(codec, 352, 288);
        let made = decode(codec, &stream(config, 12), "", "");
        compare(&made, &config, 12, 30.0);
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        assert_eq!(caps.get("framerate"), Ok(gst::Fraction::new(30, 1)), "{codec:?}");
    }
    simulator.assert_clean();
}

#[test]
fn all_releases_show_the_picture() {
    for release in RELEASES {
        let simulator = Simulator::new(&format!("release={release}"));
        for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Mjpeg] {
            // 640x480: strides and sizes of memory differ from release to release.
            let config = good(codec, 640, 480);
            compare(&decode(codec, &stream(config, 5), "", ""), &config, 5, 30.0);
        }
        simulator.assert_clean();
    }
}

#[test]
fn pictures_come_in_the_order_of_display() {
    let simulator = Simulator::new("latency-us=1000");
    for codec in [Codec::H264, Codec::H265] {
        let config = EncoderConfig { b_frames: 2, ..good(codec, 320, 240) };
        compare(&decode(codec, &stream(config, 20), "", ""), &config, 20, 30.0);
    }
    simulator.assert_clean();
}

#[test]
fn pictures_are_not_copied_if_downstream_reads_strides() {
    let simulator = Simulator::new("release=1.0.4");
    for codec in [Codec::H265, Codec::Vp9, Codec::Mjpeg] {
        let config = good(codec, 640, 480);
        let running = pipeline(codec, "", "");
        reads_strides(&running);
        running.play();
        feed(&running, &stream(config, 5));
        end(&running);
        let element = running.element("dec");
        let mut made = running.finish();
        compare(&made, &config, 5, 30.0);
        let stats: gst::Structure = element.property("stats");
        assert_eq!(stats.get::<u64>("frames-copied"), Ok(0), "{codec:?} {stats}");
        for buffer in &made.buffers {
            let memory = buffer.peek_memory(0);
            assert!(memory.is_memory_type::<gst_allocators::DmaBufMemory>(), "{codec:?}");
            assert!(memory.flags().contains(gst::MemoryFlags::READONLY), "{codec:?}");
            let stride = buffer.meta::<VideoMeta>().unwrap().stride()[0];
            assert_eq!(stride, if codec == Codec::Mjpeg { 640 } else { 768 }, "{codec:?}");
        }
        // The decoder still refers to them: who writes gets a copy, and the decoder's memory stays as it is.
        let mut copy = made.buffers[0].clone();
        let before = made.buffers[0].map_readable().unwrap().to_vec();
        copy.make_mut().map_writable().unwrap().fill(0);
        assert_eq!(made.buffers[0].map_readable().unwrap().as_slice(), before, "{codec:?}");
        drop(copy);
        assert_eq!(stats_of(&element, "buffers-held"), 5, "{codec:?}");
        made.buffers.clear();
        assert_eq!(stats_of(&element, "buffers-held"), 0, "{codec:?}");
    }
    simulator.assert_clean();
}

fn stats_of(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
}

#[test]
fn dma_bufs_go_from_decoder_to_encoder_without_a_copy() {
    let simulator = Simulator::new("");
    let config = good(Codec::H264, 640, 480);
    let copied = simulator.count("copied");
    let running = pipeline(Codec::H264, "", &format!("{} ! video/x-h265 !", enc("bitrate=8000000")));
    running.play();
    let packets = stream(config, 20);
    feed(&running, &packets);
    end(&running);
    let (decoder, encoder) = (running.element("dec"), running.element("enc"));
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), 20);
    assert_eq!((stats_of(&encoder, "frames-imported"), stats_of(&encoder, "frames-copied")), (20, 0));
    assert_eq!((stats_of(&decoder, "frames-out"), stats_of(&decoder, "frames-copied")), (20, 0));
    assert_eq!(simulator.count("copied"), copied);
    let caps = decoder.static_pad("src").unwrap().pad_template_caps();
    assert!(caps.features(0).unwrap().contains("memory:DMABuf"), "{caps}");
    simulator.assert_clean();
}

#[test]
fn a_new_size_in_the_stream_is_a_new_size_in_the_caps() {
    for release in ["1.0.0", "1.0.9", "1.0.11"] {
        let simulator = Simulator::new(&format!("release={release},latency-us=1000"));
        for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Mjpeg] {
            let mut packets = stream(good(codec, 320, 240), 6);
            packets.extend(stream(good(codec, 640, 360), 6));
            packets.extend(stream(good(codec, 320, 240), 6));
            for (packet, number) in packets.iter_mut().zip(0..) {
                packet.pts = number;
            }
            let running = pipeline(codec, "", "");
            reads_strides(&running);
            running.play();
            feed(&running, &packets);
            end(&running);
            let made = running.finish();
            assert!(made.errors.is_empty() && made.warnings.is_empty(), "{codec:?} {made:?}");
            assert_eq!(made.buffers.len(), 18, "{codec:?}");
            let widths: Vec<_> = made
                .caps
                .iter()
                .map(|caps| caps.structure(0).unwrap().get::<i32>("width").unwrap())
                .collect();
            assert_eq!(widths, [320, 640, 320], "{codec:?}");
            for (number, buffer) in (0_usize..).zip(&made.buffers) {
                let (caps, config) = (
                    &made.caps[number / 6],
                    good(codec, [320, 640, 320][number / 6], [240, 360, 240][number / 6]),
                );
                let wanted = pattern(&config, number as u32 % 6);
                let psnr = sim_codec::psnr(&wanted, &picture(buffer, caps)).unwrap();
                assert!(psnr[0] > 30.0, "{codec:?} {number}: {psnr:?}");
            }
        }
        simulator.assert_clean();
    }
}

#[test]
fn a_flush_forgets_and_goes_on_at_a_keyframe() {
    let simulator = Simulator::new("latency-us=3000");
    for codec in [Codec::H264, Codec::Vp9, Codec::Mjpeg] {
        let config = EncoderConfig { gop: 10, ..good(codec, 320, 240) };
        let packets = stream(config, 40);
        let running = pipeline(codec, "", "");
        // A flush while the pipeline is still on its way from preroll to PLAYING may leave a sink waiting in preroll.
        running.element("out").set_property("async", false);
        running.play();
        for round in 0..4 {
            feed(&running, &packets);
            running.wait_for(round * 3 + 3);
            let source = running.element("src");
            assert!(source.send_event(gst::event::FlushStart::new()));
            assert!(source.send_event(gst::event::FlushStop::new(true)));
        }
        let before = running.buffers();
        // In the middle of a group: what comes before the next keyframe has nothing to refer to.
        feed(&running, &packets[5..]);
        end(&running);
        let made = running.finish();
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{codec:?} {made:?}");
        let caps = made.caps.last().unwrap();
        let after = &made.buffers[before..];
        let good_ones: Vec<_> =
            after.iter().filter(|buffer| !buffer.flags().contains(gst::BufferFlags::CORRUPTED)).collect();
        let expected = if codec == Codec::Mjpeg { 35 } else { 30 };
        assert_eq!(good_ones.len(), expected, "{codec:?}");
        for (number, buffer) in (40 - expected..).zip(good_ones) {
            assert_eq!(buffer.pts(), Some(time(number as i64)), "{codec:?}");
            let psnr = sim_codec::psnr(&pattern(&config, number as u32), &picture(buffer, caps)).unwrap();
            assert!(psnr[0] > 30.0, "{codec:?} {number}: {psnr:?}");
        }
    }
    simulator.assert_clean();
}

#[test]
fn a_seek_in_a_file_goes_on_with_the_right_picture() {
    let simulator = Simulator::new("");
    let file = std::env::temp_dir().join(format!("rkmppdec-seek-{}.mkv", std::process::id()));
    let made = run(&format!(
        "videotestsrc num-buffers=90 pattern=ball ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
         ! h264parse ! matroskamux ! filesink name=out location={}",
        enc("gop-size=15"),
        file.display()
    ));
    assert!(made.errors.is_empty(), "{made:?}");
    let running = Running::new(&format!(
        "filesrc location={} ! matroskademux ! h264parse ! {} ! fakesink name=out sync=false",
        file.display(),
        dec("")
    ));
    running.pipeline.set_state(gst::State::Paused).unwrap();
    for _ in 0..5 {
        for position in [2000, 500, 1500] {
            let (result, ..) = running.pipeline.state(gst::ClockTime::from_seconds(PATIENCE.as_secs()));
            result.unwrap();
            let before = running.buffers();
            let position = gst::ClockTime::from_mseconds(position);
            running.pipeline.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, position).unwrap();
            running.wait_for(before + 1);
            assert_eq!(running.pts(before), Some(position));
        }
    }
    running.play();
    let made = running.finish();
    std::fs::remove_file(file).unwrap();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    let last = made.buffers.last().unwrap();
    assert!(last.pts().unwrap() > gst::ClockTime::from_mseconds(2900), "{last:?}");
    drop(made);
    simulator.assert_clean();
}

#[test]
fn starting_and_stopping_leaves_nothing_behind() {
    let simulator = Simulator::new("latency-us=2000");
    let packets = [Codec::H264, Codec::Mjpeg].map(|codec| (codec, stream(good(codec, 320, 240), 20)));
    let cycle = |number: usize| {
        let (codec, packets) = &packets[number % 2];
        let running = pipeline(*codec, "", "");
        reads_strides(&running);
        running.play();
        feed(&running, packets);
        running.wait_for(3);
        // In the middle, with pictures on their way.
        running.pipeline.set_state(gst::State::Null).unwrap();
    };
    cycle(0);
    cycle(1);
    let before = Resources::now();
    for number in 0..cycles() {
        cycle(number);
    }
    before.assert_same_after(cycles());
    simulator.assert_clean();
}

#[test]
fn a_picture_comes_without_a_packet_behind_it() {
    let simulator = Simulator::new("");
    for codec in [Codec::H264, Codec::Vp8, Codec::Mjpeg] {
        let packets = stream(good(codec, 320, 240), 4);
        let running = pipeline(codec, "low-latency=true", "");
        running.play();
        for number in 0..packets.len() {
            feed(&running, &packets[number..=number]);
            running.wait_for(number + 1);
        }
        end(&running);
        assert_eq!(running.finish().buffers.len(), 4, "{codec:?}");
    }
    simulator.assert_clean();
}

#[test]
fn what_is_missing_is_told_at_ready() {
    let simulator = Simulator::new("init-error=-1");
    let ready_error = |library: &str| {
        let element =
            gst::ElementFactory::make("rkmppdec").property("library-path", library).build().unwrap();
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
    assert!(text.contains("could not be loaded") && text.contains("library-path"), "{text}");
    simulator.configure("init-error=0,without=9");
    let made = decode(Codec::Vp8, &stream(good(Codec::Vp8, 320, 240), 2), "", "");
    assert!(
        made.errors.first().is_some_and(|error| error.contains("Does this SoC have a decoder for it?")),
        "{made:?}"
    );
    simulator.assert_clean();
}

#[test]
fn who_holds_on_to_pictures_does_not_stop_the_decoder() {
    let simulator = Simulator::new("");
    let config = good(Codec::H264, 320, 240);
    let running = pipeline(Codec::H264, "", "");
    reads_strides(&running);
    running.play();
    feed(&running, &stream(config, 60));
    end(&running);
    let element = running.element("dec");
    let made = running.finish();
    compare(&made, &config, 60, 30.0);
    let stats: gst::Structure = element.property("stats");
    let copied: u64 = stats.get("frames-copied").unwrap();
    assert!((40..60).contains(&copied), "{stats}");
    assert_eq!(stats.get::<&str>("copy-reason"), Ok("downstream holds on to many pictures"));
    drop(made);
    simulator.assert_clean();
}
