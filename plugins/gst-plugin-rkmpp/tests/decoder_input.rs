// SPDX-License-Identifier: MPL-2.0

//! What `rkmppdec` makes of streams and hardware that are broken.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use common::{Outcome, PATIENCE, Simulator, slow_once};
use gst::prelude::*;
use sim_codec::{Codec, EncoderConfig};
use streams::*;

fn stats_of(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
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
    let simulator = Simulator::new("wedge-at=6,wedge-times=1");
    let config = EncoderConfig { gop: 4, ..good(Codec::H264, 320, 240) };
    let running = pipeline(Codec::H264, "", "");
    running.play();
    feed(&running, &stream(config, 40));
    running.wait_for(4);
    running.wait_for_stat("restarts", 1);
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
fn downstream_that_blocks_is_no_hang() {
    let simulator = Simulator::new("hold-at=20");
    let config = EncoderConfig { gop: 4, ..good(Codec::H264, 320, 240) };
    let running = pipeline(Codec::H264, "", "");
    let over = slow_once(&running, 10);
    running.play();
    feed(&running, &stream(config, 60));
    end(&running);
    over.recv_timeout(PATIENCE).unwrap();
    // The decoder has done nothing for seconds, and now its queue stays full for a while.
    std::thread::sleep(std::time::Duration::from_millis(250));
    simulator.configure("hold-at=0");
    let made = running.finish();
    compare(&made, &config, 60, 30.0);
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

#[test]
fn a_decoder_that_hangs_again_and_again_is_given_up() {
    let simulator = Simulator::new("wedge-at=1");
    let packets = stream(EncoderConfig { gop: 4, ..good(Codec::H264, 320, 240) }, 60);
    let running = pipeline(Codec::H264, "", "");
    running.play();
    let begin = std::time::Instant::now();
    feed(&running, &packets);
    end(&running);
    let element = running.element("dec");
    let made = running.finish();
    // Three seconds each, four times.
    assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(made.warnings.len(), 3, "{:?}", made.warnings);
    assert!(made.warnings[2].contains("restarting it (3 of 3)"), "{:?}", made.warnings);
    let text = made.errors.first().map_or("", String::as_str);
    assert!(text.contains("also after 3 restarts") && text.contains("dmesg"), "{text}");
    assert!(made.buffers.is_empty());
    assert_eq!(stats_of(&element, "pending"), 0);
    drop(made);
    simulator.configure("default");
    simulator.assert_clean();
}
