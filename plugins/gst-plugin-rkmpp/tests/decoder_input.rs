// SPDX-License-Identifier: MPL-2.0

//! What `rkmppdec` makes of formats with more than eight bits, of colours, and of streams and hardware that are broken.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use common::{Outcome, Simulator};
use gst::prelude::*;
use sim_codec::{Codec, Colour, EncoderConfig, Picture, Plane, psnr};
use streams::*;

fn stats_of(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
}

/// P010_10LE without padding: ten bits at the upper end of each word.
fn p010(buffer: &gst::Buffer, width: usize, height: usize) -> Picture {
    let map = buffer.map_readable().unwrap();
    let word = |at: usize| (u16::from_le_bytes([map[2 * at], map[2 * at + 1]]) >> 6).to_le_bytes();
    let (w, h) = (width / 2, height / 2);
    let plane = |width: usize, height: usize, at: &dyn Fn(usize) -> usize| Plane {
        width,
        height,
        sample: 2,
        data: (0..width * height).flat_map(|index| word(at(index))).collect(),
    };
    let planes = [
        plane(width, height, &|index| index),
        plane(w, h, &|index| width * height + 2 * index),
        plane(w, h, &|index| width * height + 2 * index + 1),
    ];
    Picture { width, height, chroma: sim_codec::Chroma::Yuv420, depth: 10, planes }
}

#[test]
fn ten_bits_come_packed_and_are_unpacked_on_request() {
    let simulator = Simulator::new("");
    for codec in [Codec::H265, Codec::Vp9] {
        let config = EncoderConfig { depth: 10, ..good(codec, 320, 240) };
        let packets = stream(config, 4);
        let made = decode(codec, &packets, "", "");
        compare(&made, &config, 4, 30.0);
        assert_eq!(made.caps.last().unwrap().structure(0).unwrap().get::<&str>("format"), Ok("NV12_10LE40"));

        let made = decode(codec, &packets, "", "video/x-raw,format=P010_10LE !");
        assert!(made.errors.is_empty(), "{made:?}");
        assert_eq!(made.buffers.len(), 4);
        for (number, buffer) in (0..).zip(&made.buffers) {
            let psnr = psnr(&pattern(&config, number), &p010(buffer, 320, 240)).unwrap();
            assert!(psnr.into_iter().all(|psnr| psnr > 30.0), "{codec:?} {number}: {psnr:?}");
        }
        drop(made);
    }
    simulator.assert_clean();
}

#[test]
fn colours_of_the_stream_are_in_the_caps() {
    let simulator = Simulator::new("");
    for (colour, text) in [
        (Colour { range: 1, primaries: 1, transfer: 1, matrix: 1 }, "bt709"),
        (Colour { range: 1, primaries: 9, transfer: 16, matrix: 9 }, "bt2100-pq"),
        (Colour { range: 2, primaries: 6, transfer: 6, matrix: 6 }, "1:4:16:4"),
    ] {
        let config = EncoderConfig { colour, ..good(Codec::H265, 320, 240) };
        let made = decode(Codec::H265, &stream(config, 2), "", "");
        assert!(made.errors.is_empty(), "{made:?}");
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        assert_eq!(caps.get::<&str>("colorimetry"), Ok(text));
    }
    simulator.assert_clean();
}

#[test]
fn damaged_pictures_are_marked_or_left_out() {
    let simulator = Simulator::new("");
    let config = EncoderConfig { gop: 6, ..good(Codec::H264, 320, 240) };
    let mut packets = stream(config, 18);
    packets[8].data.iter_mut().skip(12).for_each(|byte| *byte ^= 0x55);
    let is_corrupted = |buffer: &gst::Buffer| buffer.flags().contains(gst::BufferFlags::CORRUPTED);

    let made = decode(Codec::H264, &packets, "", "");
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    for buffer in &made.buffers {
        let damaged = (time(8)..time(12)).contains(&buffer.pts().unwrap());
        assert!(damaged || !is_corrupted(buffer), "{buffer:?}");
    }
    assert!(made.buffers.iter().any(is_corrupted));
    drop(made);

    let made = decode(Codec::H264, &packets, "discard-corrupted=true", "");
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert!(!made.buffers.iter().any(is_corrupted));
    // All before the damage, and all from the next keyframe on.
    let times: Vec<_> = made.buffers.iter().map(|buffer| buffer.pts().unwrap()).collect();
    for number in (0..8).chain(12..18) {
        assert!(times.contains(&time(number)), "{number} of {times:?}");
    }
    drop(made);
    simulator.assert_clean();
}

#[test]
fn garbage_and_cut_packets_are_no_panic_and_no_hang() {
    let simulator = Simulator::new("");
    // Of AV1 the simulator's decoder shows nothing more after such a beginning.
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::Av1) {
        let config = EncoderConfig { gop: 5, ..good(codec, 352, 288) };
        let mut packets = stream(config, 20);
        // A cheap generator: the same noise each time.
        let mut seed = 0x1234_5678_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for (number, packet) in packets.iter_mut().enumerate().take(15) {
            match number % 5 {
                0 => packet.data.truncate(number * 7 + 1),
                1 => packet.data.iter_mut().for_each(|byte| *byte = noise()),
                2 => packet.data = vec![0; 3000],
                3 => packet.data = vec![0xff],
                _ => packet.data.iter_mut().skip(20).step_by(13).for_each(|byte| *byte ^= noise()),
            }
        }
        let running = pipeline(codec, "", "");
        running.play();
        feed(&running, &packets);
        // Nothing at all in it.
        let _ = running.element("src").emit_by_name::<gst::FlowReturn>("push-buffer", &[&gst::Buffer::new()]);
        end(&running);
        let element = running.element("dec");
        let made: Outcome = running.finish();
        assert!(made.errors.is_empty(), "{codec:?}: {made:?}");
        let out = stats_of(&element, "frames-out");
        assert!(out <= 20 && stats_of(&element, "pending") == 0, "{codec:?}: {out}");
        assert_eq!(stats_of(&element, "restarts"), 0, "{codec:?}");
        // The last group is whole.
        let last = made.buffers.last().unwrap_or_else(|| panic!("{codec:?}: nothing came"));
        assert_eq!(last.pts(), Some(time(19)), "{codec:?}");
    }
    simulator.assert_clean();
}

#[test]
fn a_decoder_that_hangs_is_restarted() {
    let simulator = Simulator::new("wedge-at=6");
    let config = EncoderConfig { gop: 4, ..good(Codec::H264, 320, 240) };
    let running = pipeline(Codec::H264, "", "");
    running.play();
    feed(&running, &stream(config, 40));
    running.wait_for(4);
    let begin = std::time::Instant::now();
    while stats_of(&running.element("dec"), "restarts") == 0 {
        assert!(begin.elapsed().as_secs() < 12, "{:?}", running.stats());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    simulator.configure("wedge-at=0");
    end(&running);
    let made = running.finish();
    assert!(made.errors.is_empty(), "{made:?}");
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
    assert!(made.warnings[0].contains("restarting it (1 of 3)"), "{:?}", made.warnings);
    assert_eq!(made.buffers.last().unwrap().pts(), Some(time(39)));
    drop(made);
    simulator.assert_clean();
}

#[test]
fn no_memory_and_a_full_queue_are_no_panic() {
    let simulator = Simulator::new("busy-input=30");
    let config = good(Codec::H264, 320, 240);
    compare(&decode(Codec::H264, &stream(config, 10), "", ""), &config, 10, 30.0);
    // Two buffers' worth: an error, no hang.
    simulator.configure("memory-limit=10000");
    let made = decode(Codec::H264, &stream(config, 10), "", "");
    assert_eq!(made.errors.len(), 1, "{made:?}");
    simulator.configure("memory-limit=1000000000");
    simulator.assert_clean();
}

#[test]
fn keys_of_mpp_can_be_set_and_what_is_refused_is_told() {
    let simulator = Simulator::new("");
    let packets = stream(good(Codec::H264, 320, 240), 3);
    let made = decode(Codec::H264, &packets, "extra-config=\"mpp,base:sort_pts=1\"", "");
    assert!(made.warnings.is_empty() && made.buffers.len() == 3, "{made:?}");
    drop(made);
    let made = decode(Codec::H264, &packets, "extra-config=\"mpp,base:nothing=1\"", "");
    assert!(made.warnings.len() == 1 && made.warnings[0].contains("base:nothing=1"), "{made:?}");
    drop(made);
    simulator.assert_clean();
}
