// SPDX-License-Identifier: MPL-2.0

//! `rtpjpegdepay-rs` in a harness: packets in, pictures out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use common::*;
use gst::prelude::*;
use gst_check::Harness;
use gst_video::VideoBufferFlags;
use gst_video::prelude::*;

fn depayloader(caps: &str) -> Harness {
    init();
    let mut harness = Harness::new("rtpjpegdepay-rs");
    harness.play();
    harness.set_src_caps_str(caps);
    harness
}

fn corrupting() -> Harness {
    let harness = depayloader(RTP_CAPS);
    harness.element().unwrap().set_property("output-corrupt", true);
    harness
}

/// An RTP packet around a payload.
fn rtp(sequence: u16, timestamp: u32, marker: bool, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 26 | if marker { 0x80 } else { 0 }];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// The pictures of these packets, all that came at `ms`.
fn feed(harness: &mut Harness, packets: &[Vec<u8>], ms: u64) -> Vec<gst::Buffer> {
    for packet in packets {
        harness.push(buffer(packet.clone(), ms)).unwrap();
    }
    std::iter::from_fn(|| harness.try_pull()).collect()
}

fn frame_stats(harness: &Harness) -> gst::Structure {
    harness.element().unwrap().property("frame-stats")
}

/// How many of one kind, of those that `group` counts.
fn by_reason(harness: &Harness, group: &str, reason: &str) -> u64 {
    let group: gst::Structure = frame_stats(harness).get(group).unwrap();
    group.get(reason).unwrap_or(0)
}

/// Restart intervals of 20 units, three rows in a packet of 257 bytes.
fn aligned(payloader: &mut Harness, table: u8, ms: u64) -> Vec<Vec<u8>> {
    payloader.element().unwrap().set_property("mtu", 300_u32);
    packetize(payloader, grey(320, 240, 20, table), ms)
}

#[test]
fn every_vector_comes_back_with_its_size_in_the_caps() {
    for name in ["base", "ok_", "self_"].into_iter().flat_map(vectors) {
        let mut payloader = payloader();
        let picture = vector(&name);
        let packets = packetize(&mut payloader, picture.clone(), 0);
        let caps = payloader.element().unwrap().static_pad("src").unwrap().current_caps().unwrap();
        let mut harness = depayloader(&caps.to_string());
        let pictures = feed(&mut harness, &packets, 0);
        assert_eq!(pictures.len(), 1, "{name}");
        assert_eq!(scan(&bytes(&pictures[0])), scan(&picture), "{name}");
        let sent = rtp_jpeg::Jpeg::parse(&picture).unwrap();
        let caps = harness.element().unwrap().static_pad("src").unwrap().current_caps().unwrap();
        let caps = caps.structure(0).unwrap();
        assert_eq!(caps.get::<i32>("width").unwrap(), i32::from(sent.width()), "{name}");
        assert_eq!(caps.get::<i32>("height").unwrap(), i32::from(sent.height()), "{name}");
        let sampling = match sent.sampling() {
            rtp_jpeg::Sampling::Yuv420 => "YCbCr-4:2:0",
            rtp_jpeg::Sampling::Yuv422 => "YCbCr-4:2:2",
        };
        assert_eq!(caps.get::<&str>("sampling").unwrap(), sampling);
        assert_eq!(caps.get::<&str>("colorspace").unwrap(), "sYUV");
        assert_eq!(caps.get::<i32>("sof-marker").unwrap(), 0);
        assert!(caps.get::<bool>("parsed").unwrap());
        assert!(!pictures[0].flags().contains(gst::BufferFlags::CORRUPTED));
        assert_eq!(count(&frame_stats(&harness), "frames"), 1);
        assert_eq!(count(&frame_stats(&harness), "bytes"), pictures[0].size() as u64);
        assert_eq!(count(&frame_stats(&harness), "packets"), packets.len() as u64);
    }
}

#[test]
fn sizes_over_2040_and_frame_rate_come_from_the_caps() {
    let mut payloader = payloader();
    let packets = packetize(&mut payloader, grey(3280, 1000, 0, 0), 0);
    let mut harness =
        depayloader(&format!("{RTP_CAPS},x-dimensions=(string)\"3280,1000\",a-framerate=(string)29.97"));
    assert_eq!(feed(&mut harness, &packets, 0).len(), 1);
    let caps = harness.element().unwrap().static_pad("src").unwrap().current_caps().unwrap();
    let caps = caps.structure(0).unwrap();
    assert_eq!((caps.get::<i32>("width").unwrap(), caps.get::<i32>("height").unwrap()), (3280, 1000));
    let rate = caps.get::<gst::Fraction>("framerate").unwrap();
    assert!((f64::from(rate.numer()) / f64::from(rate.denom()) - 29.97).abs() < 0.01, "{rate}");
    // Without them nobody knows the size.
    let mut harness = depayloader(RTP_CAPS);
    let bus = bus_of(&harness);
    assert!(feed(&mut harness, &packets, 0).is_empty());
    assert_eq!(by_reason(&harness, "refused", "unknown-size"), packets.len() as u64);
    let texts = texts(&bus);
    assert!(texts.len() == 1 && texts[0].contains("unknown-size"), "{texts:?}");
}

#[test]
fn caps_change_with_the_picture() {
    let mut payloader = payloader();
    let mut harness = depayloader(RTP_CAPS);
    for (name, ms) in [("base420", 0), ("base422", 40), ("base422", 80), ("base420", 120)] {
        let packets = packetize(&mut payloader, vector(name), ms);
        assert_eq!(feed(&mut harness, &packets, ms).len(), 1, "{name}");
    }
    let events = std::iter::from_fn(|| harness.try_pull_event());
    assert_eq!(events.filter(|event| event.type_() == gst::EventType::Caps).count(), 3);
}

#[test]
fn rejections_of_the_rfc_are_counted_and_named() {
    let main = |kind, q| vec![0, 0, 0, 0, kind, q, 4, 4];
    let cases: [(Vec<u8>, &str); 9] = [
        (vec![0; 7], "too-short"),
        (main(2, 50), "unknown-type"),
        (main(130, 50), "unknown-type"),
        (main(1, 0), "reserved-q"),
        (main(1, 100), "reserved-q"),
        (main(1, 127), "reserved-q"),
        ([main(65, 50), vec![0, 0, 0xff, 0xff, 9]].concat(), "zero-restart-interval"),
        ([main(1, 255), vec![0, 0, 1, 0], vec![1; 200]].concat(), "table-length"),
        ([main(1, 255), vec![0, 0, 0, 0], vec![1; 200]].concat(), "no-tables"),
    ];
    for (payload, reason) in cases {
        let mut harness = depayloader(RTP_CAPS);
        let bus = bus_of(&harness);
        assert!(feed(&mut harness, &[rtp(1, 0, true, 7, &payload)], 0).is_empty(), "{reason}");
        assert_eq!(by_reason(&harness, "refused", reason), 1, "{:?}", frame_stats(&harness));
        let texts = texts(&bus);
        assert!(texts.len() == 1 && texts[0].contains(reason), "{texts:?}");
    }
}

#[test]
fn any_bytes_are_survived() {
    let mut harness = depayloader(RTP_CAPS);
    let mut state = 1_u32;
    for sequence in 0..20_000 {
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let length = usize::from(random()) / 4;
        let mut payload: Vec<u8> = (0..length).map(|_| random()).collect();
        if random() < 200 && payload.len() > 8 {
            // Often enough something that looks right.
            payload[..8].copy_from_slice(&[
                0,
                0,
                0,
                random() % 3,
                random() % 2 * 64 + 1,
                255 - random() % 130,
                9,
                9,
            ]);
        }
        let _ = harness.push(buffer(rtp(sequence, u32::from(sequence / 3), random() < 60, 7, &payload), 0));
        while harness.try_pull().is_some() {}
    }
}

#[test]
fn tables_sent_once_are_kept_for_each_sender() {
    let mut payloader = payloader_with("image/jpeg", |element| {
        element.set_property_from_str("quant-mode", "inband-once");
        element.set_property("quant-interval", u64::MAX);
    });
    let first = packetize(&mut payloader, grey(64, 64, 0, 7), 0);
    let second = packetize(&mut payloader, grey(64, 64, 0, 7), 40);
    let mut harness = depayloader(RTP_CAPS);
    assert_eq!(feed(&mut harness, &first, 0).len(), 1);
    let pictures = feed(&mut harness, &second, 40);
    let tables = *rtp_jpeg::Jpeg::parse(&bytes(&pictures[0])).unwrap().tables();
    assert_eq!(tables.luma.entries(), &[7; 64]);
    // Another sender's tables are not ours.
    let mut harness = depayloader(RTP_CAPS);
    let bus = bus_of(&harness);
    assert_eq!(feed(&mut harness, &first, 0).len(), 1);
    let other: Vec<_> =
        second.iter().map(|packet| [&packet[..8], &[1, 2, 3, 4], &packet[12..]].concat()).collect();
    assert!(feed(&mut harness, &other, 40).is_empty());
    assert_eq!(by_reason(&harness, "lost", "unknown-tables"), 1);
    assert!(texts(&bus)[0].contains("unknown-tables"));
}

#[test]
fn a_frame_with_a_lost_packet_is_dropped_and_the_next_one_is_fine() {
    let mut payloader = payloader();
    let mut harness = depayloader(RTP_CAPS);
    for lost in [0, 1, usize::MAX] {
        let mut packets = packetize(&mut payloader, grey(640, 480, 0, 7), 0);
        let lost = lost.min(packets.len() - 1);
        packets.remove(lost);
        assert!(feed(&mut harness, &packets, 0).is_empty());
        let packets = packetize(&mut payloader, grey(640, 480, 0, 7), 40);
        assert_eq!(feed(&mut harness, &packets, 40).len(), 1);
    }
    assert_eq!(by_reason(&harness, "lost", "incomplete"), 3);
}

#[test]
fn losses_are_patched_at_once_and_flagged_if_wanted() {
    for output_corrupt in [false, true] {
        let mut payloader = payloader();
        let mut harness = if output_corrupt { corrupting() } else { depayloader(RTP_CAPS) };
        let whole = aligned(&mut payloader, 0, 0);
        assert!(whole.len() >= 4, "{}", whole.len());
        assert_eq!(feed(&mut harness, &whole, 0).len(), 1);
        let mut packets = aligned(&mut payloader, 0, 40);
        packets.remove(1);
        let pictures = feed(&mut harness, &packets, 40);
        assert_eq!(pictures.len(), usize::from(output_corrupt), "without waiting for the next frame");
        for picture in pictures {
            assert!(picture.flags().contains(gst::BufferFlags::CORRUPTED));
            assert_eq!(picture.pts(), Some(gst::ClockTime::from_mseconds(40)));
            assert_eq!(scan(&bytes(&picture)), scan(&grey(320, 240, 20, 0)), "patched from the frame before");
        }
        assert_eq!(count(&frame_stats(&harness), "frames-concealed"), u64::from(output_corrupt));
    }
}

#[test]
fn a_frame_without_its_last_packet_keeps_its_own_time() {
    let mut payloader = payloader();
    let mut harness = corrupting();
    let mut packets = aligned(&mut payloader, 0, 0);
    packets.pop();
    assert!(feed(&mut harness, &packets, 0).is_empty());
    let next = aligned(&mut payloader, 0, 40);
    let pictures = feed(&mut harness, &next, 40);
    let times: Vec<_> = pictures.iter().map(|picture| picture.pts().unwrap().mseconds()).collect();
    assert_eq!(times, [0, 40]);
    let corrupt = pictures.iter().map(|picture| picture.flags().contains(gst::BufferFlags::CORRUPTED));
    assert_eq!(corrupt.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn end_of_stream_brings_out_what_is_left() {
    let mut payloader = payloader();
    let mut harness = corrupting();
    let mut packets = aligned(&mut payloader, 0, 0);
    packets.pop();
    assert!(feed(&mut harness, &packets, 0).is_empty());
    harness.push_event(gst::event::Eos::new());
    let picture = harness.try_pull().expect("nothing came");
    assert!(picture.flags().contains(gst::BufferFlags::CORRUPTED));
}

#[test]
fn a_flush_forgets_the_frame_under_way_but_not_the_tables() {
    let mut payloader = payloader_with("image/jpeg", |element| {
        element.set_property_from_str("quant-mode", "inband-once");
        element.set_property("quant-interval", u64::MAX);
    });
    let mut harness = depayloader(RTP_CAPS);
    let first = packetize(&mut payloader, grey(640, 480, 0, 7), 0);
    assert_eq!(feed(&mut harness, &first, 0).len(), 1);
    let half = packetize(&mut payloader, grey(640, 480, 0, 7), 40);
    assert!(feed(&mut harness, &half[..1], 40).is_empty());
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let third = packetize(&mut payloader, grey(640, 480, 0, 7), 80);
    assert_eq!(feed(&mut harness, &third, 80).len(), 1);
    assert_eq!(count(&frame_stats(&harness), "frames-lost"), 0, "nobody lost the frame that was flushed");
}

#[test]
fn fields_have_caps_and_flags() {
    let one = VideoBufferFlags::ONEFIELD;
    for (flags, type_specific) in [(VideoBufferFlags::TFF | one, 1), (one, 2), (VideoBufferFlags::empty(), 3)]
    {
        let mut payloader = payloader_for("image/jpeg,interlace-mode=alternate");
        let mut picture = buffer(grey(320, 120, 0, 0), 0);
        picture.get_mut().unwrap().set_video_flags(flags);
        payloader.push(picture).unwrap();
        let packets = drain(&mut payloader);
        assert_eq!(payload(&packets[0])[0], type_specific);
        let mut harness = depayloader(RTP_CAPS);
        let pictures = feed(&mut harness, &packets, 0);
        let mask = VideoBufferFlags::TFF | one;
        assert_eq!(pictures[0].video_flags() & mask, flags & mask);
        let caps = harness.element().unwrap().static_pad("src").unwrap().current_caps().unwrap();
        let caps = caps.structure(0).unwrap();
        if type_specific == 3 {
            assert_eq!(caps.get::<gst::Fraction>("pixel-aspect-ratio").unwrap(), gst::Fraction::new(1, 2));
            assert_eq!(caps.get::<i32>("height").unwrap(), 120);
        } else {
            assert_eq!(caps.get::<&str>("interlace-mode").unwrap(), "alternate");
            assert_eq!(caps.get::<i32>("height").unwrap(), 240);
        }
    }
}

#[test]
fn both_fields_of_a_frame_come_out_one_by_one() {
    let mut payloader = payloader_for("image/jpeg,interlace-mode=interleaved");
    let both = [grey(320, 120, 0, 0), grey(320, 120, 0, 0)].concat();
    let packets = packetize(&mut payloader, both, 0);
    let mut harness = depayloader(RTP_CAPS);
    let pictures = feed(&mut harness, &packets, 0);
    let top = pictures.iter().map(|picture| picture.video_flags().contains(VideoBufferFlags::TFF));
    assert_eq!(top.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn frames_over_the_limit_are_refused() {
    let mut payloader = payloader();
    let packets = packetize(&mut payloader, grey(640, 480, 0, 7), 0);
    let mut harness = depayloader(RTP_CAPS);
    harness.element().unwrap().set_property("max-frame-size", 4000_u32);
    assert!(feed(&mut harness, &packets, 0).is_empty());
    assert!(by_reason(&harness, "refused", "too-large") > 0);
}

#[test]
fn a_new_sender_takes_over() {
    let mut payloader = payloader();
    let mut harness = depayloader(RTP_CAPS);
    let packets = packetize(&mut payloader, grey(640, 480, 0, 7), 0);
    assert!(feed(&mut harness, &packets[..2], 0).is_empty());
    let other: Vec<_> =
        packets.iter().map(|packet| [&packet[..8], &[1, 2, 3, 4], &packet[12..]].concat()).collect();
    assert_eq!(feed(&mut harness, &other, 0).len(), 1);
}

#[test]
fn memory_is_used_again() {
    let mut payloader = payloader();
    let mut harness = depayloader(RTP_CAPS);
    let mut places = BTreeSet::new();
    for ms in 0..20 {
        let packets = packetize(&mut payloader, grey(640, 480, 0, 7), 40 * ms);
        for picture in feed(&mut harness, &packets, 40 * ms) {
            places.insert(picture.map_readable().unwrap().as_ptr() as usize);
        }
    }
    assert!((1..=4).contains(&places.len()), "{}", places.len());
}
