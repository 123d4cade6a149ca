// SPDX-License-Identifier: MPL-2.0

//! `rtpjpegpay-rs` in a harness: what goes in, what packets come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use gst::prelude::*;
use gst_check::Harness;
use gst_rtp::prelude::*;
use gst_video::VideoBufferFlags;
use gst_video::prelude::*;

const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const NTP64: &str = "urn:ietf:params:rtp-hdrext:ntp-64";

fn set(harness: &Harness, name: &str, value: &str) {
    harness.element().unwrap().set_property_from_str(name, value);
}

#[test]
fn every_sendable_vector_is_sent_and_its_scan_comes_out_whole() {
    for name in ["base", "ok_", "self_"].into_iter().flat_map(vectors) {
        let mut harness = payloader();
        let picture = vector(&name);
        let packets = packetize(&mut harness, picture.clone(), 0);
        assert!(!packets.is_empty(), "{name}");
        let mut reassembler = rtp_jpeg::Reassembler::new(rtp_jpeg::ReassemblerConfig::default());
        let mut pictures = Vec::new();
        for (sequence, packet) in (0..).zip(&packets) {
            let packet = rtp_jpeg::RtpPacket {
                ssrc: 1,
                timestamp: 1,
                sequence,
                marker: marker(packet),
                payload: payload(packet),
            };
            for event in reassembler.push(&packet).unwrap() {
                let rtp_jpeg::Event::Frame(frame) = event else { panic!("{name}: lost") };
                pictures.push(frame.data().to_vec());
            }
        }
        assert_eq!(pictures.len(), 1, "{name}");
        assert_eq!(scan(&pictures[0]), scan(&picture), "{name}");
        let stats = stats(&harness);
        assert_eq!(count(&stats, "frames"), 1, "{name}");
        assert_eq!(count(&stats, "packets"), packets.len() as u64, "{name}");
        assert_eq!(count(&stats, "bytes"), packets.iter().map(|packet| packet.len() as u64).sum::<u64>());
        assert_eq!(count(&stats, "frames-dropped"), 0, "{name}");
    }
}

#[test]
fn every_unsendable_vector_is_a_counted_drop_with_one_warning_that_names_the_reason() {
    let reasons = [
        ("no_12_bit", "precision"),
        ("no_411", "subsampling"),
        ("no_440", "subsampling"),
        ("no_444", "subsampling"),
        ("no_arithmetic", "not-baseline"),
        ("no_cmyk", "components"),
        ("no_dnl", "no-dimensions"),
        ("no_grey", "components"),
        ("no_missing_dqt", "no-quant-table"),
        ("no_optimised_dht", "huffman-tables"),
        ("no_progressive", "not-baseline"),
        ("no_restart_misnumbered", "restart-markers"),
        ("no_restart_missing", "restart-markers"),
        ("no_restart_without_dri", "restart-markers"),
        ("no_sof1", "not-baseline"),
        ("no_three_scans", "scans"),
        ("no_uv_tables", "chroma-tables"),
        ("no_wide_values", "wide-quant-table"),
    ];
    assert_eq!(vectors("no_"), reasons.map(|(name, _)| name.to_owned()), "a vector has no row here");
    for (name, reason) in reasons {
        let mut harness = payloader();
        let bus = bus_of(&harness);
        for ms in 0..3 {
            assert!(packetize(&mut harness, vector(name), ms).is_empty(), "{name}");
        }
        let stats = stats(&harness);
        assert_eq!(count(&stats, "frames-dropped"), 3, "{name}");
        assert_eq!(count(&stats.get::<gst::Structure>("dropped").unwrap(), reason), 3, "{name}");
        let texts = texts(&bus);
        assert_eq!(texts.len(), 1, "{name}: {texts:?}");
        assert!(texts[0].contains(reason), "{name}: {texts:?}");
        // The stream goes on.
        assert!(!packetize(&mut harness, vector("base420"), 40).is_empty());
    }
}

#[test]
fn rubbish_and_pictures_cut_anywhere_are_drops() {
    let mut harness = payloader();
    let picture = vector("ok_restart_row");
    for end in 0..picture.len() - 2 {
        assert!(packetize(&mut harness, picture[..end].to_vec(), 0).is_empty(), "{end}");
    }
    for byte in 0..=255 {
        assert!(packetize(&mut harness, vec![byte; 300], 0).is_empty());
    }
    assert_eq!(count(&stats(&harness), "frames-dropped"), picture.len() as u64 - 2 + 256);
}

#[test]
fn on_unsupported_error_stops_the_stream() {
    let mut harness = payloader();
    let bus = bus_of(&harness);
    set(&harness, "on-unsupported", "error");
    assert_eq!(harness.push(buffer(vector("no_progressive"), 0)), Err(gst::FlowError::Error));
    assert!(texts(&bus)[0].contains("baseline"));
}

#[test]
fn packets_fill_the_mtu_exactly_and_leave_as_one_list() {
    init();
    for mtu in [157, 500, 1400] {
        let mut harness = payloader();
        set(&harness, "mtu", &mtu.to_string());
        let lists = Arc::new(AtomicUsize::new(0));
        let seen = lists.clone();
        let pad = harness.element().unwrap().static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER_LIST, move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        let packets = packetize(&mut harness, grey(640, 480, 0, 7), 0);
        let (last, others) = packets.split_last().unwrap();
        assert!(others.len() > 2 && others.iter().all(|packet| packet.len() == mtu), "{mtu}");
        assert!(last.len() <= mtu && marker(last) && !others.iter().any(|packet| marker(packet)));
        assert_eq!(lists.load(Ordering::Relaxed), 1);
        for (one, next) in packets.iter().zip(&packets[1..]) {
            let sequence = |packet: &[u8]| u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!(sequence(one).wrapping_add(1), sequence(next));
            assert_eq!(one[4..12], next[4..12], "timestamp and SSRC");
        }
    }
}

#[test]
fn impossible_mtu_is_refused_when_set() {
    init();
    for (mtu, result) in [(157, 157), (156, 1400), (28, 1400), (0, 1400)] {
        // As on a command line: GLib warns, and the value stays.
        let element = gst::parse::launch(&format!("rtpjpegpay-rs mtu={mtu}")).unwrap();
        assert_eq!(element.property::<u32>("mtu"), result, "{mtu}");
    }
}

/// Packets of a payloader whose downstream wants these extensions.
fn with_extensions(extmap: &str, mtu: u32, added: &[(&str, u32)]) -> (Vec<Vec<u8>>, Vec<String>) {
    init();
    let mut harness = Harness::new("rtpjpegpay-rs");
    let element = harness.element().unwrap();
    element.set_property("mtu", mtu);
    harness.set_caps_str("image/jpeg", &format!("application/x-rtp{extmap}"));
    let bus = bus_of(&harness);
    for &(uri, id) in added {
        let extension = gst_rtp::RTPHeaderExtension::create_from_uri(uri).expect("gstreamer1.0-plugins-good");
        extension.set_id(id);
        element.emit_by_name::<()>("add-extension", &[&extension]);
    }
    harness.play();
    let _ = harness.push(buffer(grey(640, 480, 0, 7), 0));
    (drain(&mut harness), texts(&bus))
}

#[test]
fn header_extensions_count_for_the_mtu() {
    let twcc = format!(",extmap-3=(string){TWCC}");
    for (extmap, added) in [(twcc.as_str(), &[][..]), ("", &[(TWCC, 5)])] {
        let (packets, _) = with_extensions(extmap, 1200, added);
        let (last, others) = packets.split_last().expect("no packets");
        assert!(others.len() > 2 && others.iter().all(|packet| packet.len() == 1200), "{extmap} {added:?}");
        assert!(last.len() <= 1200);
        assert!(packets.iter().all(|packet| packet[0] & 0x10 != 0), "{extmap} {added:?}: no extension");
    }
}

#[test]
fn extensions_with_two_byte_headers_count_for_the_mtu() {
    let (packets, _) = with_extensions("", 1200, &[(NTP64, 200), (NTP64, 201), (NTP64, 202)]);
    // Not every packet carries this one.
    let with: Vec<_> = packets.iter().filter(|packet| packet[0] & 0x10 != 0).collect();
    assert!(with.iter().all(|packet| packet[12..14] == [0x10, 0]), "not the two-byte form");
    assert!(with.iter().any(|packet| packet.len() == 1200));
    assert!(packets.len() > 2 && packets.iter().all(|packet| packet.len() <= 1200));
}

#[test]
fn extensions_that_leave_no_room_are_an_error_that_says_what_would_do() {
    let twcc = format!(",extmap-3=(string){TWCC}");
    let (packets, texts) = with_extensions(&twcc, 160, &[]);
    assert!(packets.is_empty());
    assert!(texts[0].contains("165 or more"), "{texts:?}");
    let (packets, _) = with_extensions(&twcc, 165, &[]);
    assert!(!packets.is_empty());
}

#[test]
fn contributing_sources_count_for_the_mtu() {
    let mut harness = payloader();
    set(&harness, "source-info", "true");
    let mut picture = buffer(grey(640, 480, 0, 7), 0);
    gst_rtp::RTPSourceMeta::add(picture.get_mut().unwrap(), Some(0x1111), &[0x2222, 0x3333]);
    harness.push(picture).unwrap();
    let packets = drain(&mut harness);
    let (_, others) = packets.split_last().unwrap();
    assert!(others.len() > 2 && others.iter().all(|packet| packet.len() == 1400 && packet[0] & 15 == 3));
    assert_eq!(packets[0][12..16], 0x2222_u32.to_be_bytes());
    assert_eq!(packets[0][24..28], [0, 0, 0, 0], "main header after three sources");
}

#[test]
fn quant_modes() {
    let standard = vector("base420");
    let q_of = |mode: &str, picture: &[u8]| {
        let mut harness = payloader();
        set(&harness, "quant-mode", mode);
        packetize(&mut harness, picture.to_vec(), 0).first().map(|packet| q(packet))
    };
    assert_eq!(q_of("auto", &standard), Some(60));
    assert_eq!(q_of("auto", &grey(64, 64, 0, 7)), Some(255));
    assert_eq!(q_of("static", &standard), Some(60));
    assert_eq!(q_of("static", &grey(64, 64, 0, 7)), None);
    assert_eq!(q_of("inband-once", &standard), Some(128));
    assert_eq!(q_of("inband-every-frame", &standard), Some(255));
}

#[test]
fn inband_once_sends_tables_again_after_the_interval_and_on_request() {
    let mut harness = payloader();
    set(&harness, "quant-mode", "inband-once");
    set(&harness, "quant-interval", "1000000000");
    let has_tables = |harness: &mut Harness, ms| {
        let packets = packetize(harness, grey(64, 64, 0, 7), ms);
        // Length of the quantisation table header.
        u16::from_be_bytes([payload(&packets[0])[10], payload(&packets[0])[11]]) == 128
    };
    assert!(has_tables(&mut harness, 0));
    assert!(!has_tables(&mut harness, 999));
    assert!(has_tables(&mut harness, 1000));
    assert!(!has_tables(&mut harness, 1040));
    let request = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
    harness.push_upstream_event(request);
    assert!(has_tables(&mut harness, 1080));
    assert!(!has_tables(&mut harness, 1120));
}

#[test]
fn restart_modes() {
    let counts = |mode: &str, interval| {
        let mut harness = payloader();
        set(&harness, "mtu", "200");
        set(&harness, "restart-mode", mode);
        let packets = packetize(&mut harness, grey(640, 64, interval, 0), 0);
        assert!(packets.iter().all(|packet| kind(packet) == 65));
        packets.iter().map(|packet| u16::from_be_bytes([payload(packet)[10], payload(packet)[11]])).collect()
    };
    let whole = |counts: Vec<u16>| counts.iter().all(|&count| count == 0xffff);
    // 20 units have 80 bytes, 100 have 400.
    assert!(!whole(counts("auto", 20)) && whole(counts("auto", 100)));
    assert!(!whole(counts("aligned", 20)) && !whole(counts("aligned", 100)));
    assert!(whole(counts("whole-frame", 20)));
}

#[test]
fn caps_tell_frame_rate_and_sizes_that_packets_cannot() {
    let caps_for = |caps: &str, picture: Vec<u8>| {
        let mut harness = payloader_for(caps);
        packetize(&mut harness, picture, 0);
        let caps = harness.element().unwrap().static_pad("src").unwrap().current_caps().unwrap();
        caps.structure(0).unwrap().to_owned()
    };
    let plain = caps_for("image/jpeg,framerate=30000/1001", grey(640, 480, 0, 0));
    assert_eq!(plain.get::<&str>("a-framerate").unwrap(), "29.970030");
    assert!(!plain.has_field("x-dimensions"));
    assert_eq!(plain.get::<i32>("payload").unwrap(), 26);
    assert_eq!(plain.get::<&str>("encoding-name").unwrap(), "JPEG");
    for (width, height) in [(3280, 1000), (1000, 3280), (642, 480)] {
        let big = caps_for("image/jpeg", grey(width, height, 0, 0));
        assert_eq!(big.get::<&str>("x-dimensions").unwrap(), format!("{width},{height}"));
        assert!(!big.has_field("a-framerate"));
    }
    // The picture is right, not the caps.
    let lie = caps_for("image/jpeg,width=3280,height=2000", grey(640, 480, 0, 0));
    assert!(!lie.has_field("x-dimensions"));
}

#[test]
fn a_new_size_is_announced_before_its_packets() {
    let mut harness = payloader();
    packetize(&mut harness, grey(640, 480, 0, 0), 0);
    let packets = packetize(&mut harness, grey(2592, 1944, 0, 0), 40);
    assert_eq!(payload(&packets[0])[6..8], [0, 0]);
    let events = std::iter::from_fn(|| harness.try_pull_event());
    let caps: Vec<_> = events
        .filter_map(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps().structure(0)?.get::<String>("x-dimensions").ok()),
            _ => None,
        })
        .collect();
    assert_eq!(caps, [None, Some("2592,1944".into())]);
}

#[test]
fn dynamic_payload_type() {
    let mut harness = payloader_with("image/jpeg", |element| element.set_property("pt", 97_u32));
    let packets = packetize(&mut harness, vector("base420"), 0);
    assert_eq!(packets[0][1] & 0x7f, 97);
    let mut harness = payloader();
    assert_eq!(packetize(&mut harness, vector("base420"), 0)[0][1] & 0x7f, 26);
}

#[test]
fn base_class_properties_have_their_effect() {
    let mut harness = payloader_with("image/jpeg", |element| {
        element.set_property("ssrc", 0xdead_beef_u32);
        element.set_property("seqnum-offset", 1000_i32);
        element.set_property("timestamp-offset", 5000_u32);
    });
    let packets = packetize(&mut harness, vector("base420"), 100);
    assert_eq!(packets[0][2..4], 1000_u16.to_be_bytes());
    assert_eq!(packets[0][4..8], (5000 + 9000_u32).to_be_bytes());
    assert_eq!(packets[0][8..12], 0xdead_beef_u32.to_be_bytes());
}

#[test]
fn statistics_have_what_an_rtsp_server_reads() {
    let mut harness = payloader_with("image/jpeg", |element| {
        element.set_property("ssrc", 77_u32);
        element.set_property("seqnum-offset", 1000_i32);
        element.set_property("timestamp-offset", 5000_u32);
    });
    // The names and types of the base class's statistics, as any other payloader has them.
    let model = gst::ElementFactory::make("rtpgstpay").build().unwrap().property::<gst::Structure>("stats");
    let sent = packetize(&mut harness, grey(640, 480, 0, 7), 100).len() as u32;
    let stats = stats(&harness);
    assert_eq!(stats.name(), model.name());
    for (name, value) in model.iter() {
        assert_eq!(stats.value(name).expect(name).type_(), value.type_(), "{name}");
    }
    assert_eq!(stats.get::<u32>("clock-rate").unwrap(), 90_000);
    assert_eq!(stats.get::<u32>("seqnum").unwrap(), 1000 + sent - 1);
    assert_eq!(stats.get::<u32>("timestamp").unwrap(), 5000 + 9000);
    assert_eq!(stats.get::<u64>("running-time").unwrap(), 100_000_000);
    assert_eq!(stats.get::<u32>("ssrc").unwrap(), 77);
    assert_eq!(stats.get::<u32>("pt").unwrap(), 26);
    assert_eq!(stats.get::<u32>("seqnum-offset").unwrap(), 1000);
    assert_eq!(stats.get::<u32>("timestamp-offset").unwrap(), 5000);
    assert_eq!(stats.get::<u32>("last-q").unwrap(), 255);
    assert_eq!(stats.get::<u32>("last-type").unwrap(), 1);
    assert_eq!(stats.get::<u32>("last-width").unwrap(), 640);
    assert_eq!(stats.get::<u32>("last-height").unwrap(), 480);
    assert_eq!(stats.get::<u64>("max-packets-per-frame").unwrap(), u64::from(sent));
    assert!(stats.get::<u64>("prepare-time").unwrap() > 0);
}

#[test]
fn fields_of_interlaced_pictures() {
    let fields = |caps: &str, data: Vec<u8>, flags: VideoBufferFlags| {
        let mut harness = payloader_for(caps);
        let mut picture = buffer(data, 0);
        picture.get_mut().unwrap().set_video_flags(flags);
        harness.push(picture).unwrap();
        let packets = drain(&mut harness);
        packets.iter().filter(|packet| marker(packet)).map(|packet| payload(packet)[0]).collect::<Vec<_>>()
    };
    let none = VideoBufferFlags::empty();
    let (tff, one) = (VideoBufferFlags::TFF, VideoBufferFlags::ONEFIELD);
    let single = || grey(320, 120, 0, 0);
    let double = || [single(), vec![0; 9], single()].concat();
    assert_eq!(fields("image/jpeg,interlace-mode=alternate", single(), tff | one), [1]);
    assert_eq!(fields("image/jpeg,interlace-mode=alternate", single(), one), [2]);
    assert_eq!(fields("image/jpeg,interlace-mode=alternate", single(), none), [3]);
    assert_eq!(fields("image/jpeg,interlace-mode=interleaved", double(), none), [1, 2]);
    let bottom = "image/jpeg,interlace-mode=interleaved,field-order=bottom-field-first";
    assert_eq!(fields(bottom, double(), none), [2, 1]);
    assert_eq!(
        fields("image/jpeg,interlace-mode=interleaved", single(), none),
        [0],
        "both fields in one picture"
    );
    assert_eq!(fields("image/jpeg", double(), none), [0], "a second picture is not a field");
}

#[test]
fn buffers_come_from_a_pool() {
    let mut harness = payloader();
    let mut places = BTreeSet::new();
    let mut packets = 0;
    // Whoever gave memory back to the system would not get it again.
    let mut taken = Vec::new();
    for ms in 0..20 {
        taken.extend((0..40).map(|_| gst::Buffer::with_size(1400)));
        harness.push(buffer(grey(640, 480, 0, 7), ms)).unwrap();
        while let Some(packet) = harness.try_pull() {
            assert_eq!(packet.n_memory(), 1);
            places.insert(packet.map_readable().unwrap().as_ptr() as usize);
            packets += 1;
        }
    }
    assert!(places.len() * 5 < packets, "{} places for {packets} packets", places.len());
}

#[test]
fn capture_time_goes_with_every_packet() {
    let mut harness = payloader();
    let mut picture = buffer(grey(640, 480, 0, 7), 0);
    let reference = gst::Caps::new_empty_simple("timestamp/x-unix");
    let captured = gst::ClockTime::from_seconds(1_700_000_000);
    gst::ReferenceTimestampMeta::add(picture.get_mut().unwrap(), &reference, captured, None);
    harness.push(picture).unwrap();
    let mut packets = 0;
    while let Some(packet) = harness.try_pull() {
        assert_eq!(packet.meta::<gst::ReferenceTimestampMeta>().unwrap().timestamp(), captured);
        packets += 1;
    }
    assert!(packets > 2);
    harness.push(buffer(grey(640, 480, 0, 7), 40)).unwrap();
    assert!(harness.pull().unwrap().meta::<gst::ReferenceTimestampMeta>().is_none(), "left in the pool");
}

#[test]
fn a_discontinuity_is_passed_on_with_the_first_packet() {
    let mut harness = payloader();
    packetize(&mut harness, grey(640, 480, 0, 7), 0);
    let mut picture = buffer(grey(640, 480, 0, 7), 40);
    picture.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
    harness.push(picture).unwrap();
    let flags = std::iter::from_fn(|| harness.try_pull()).map(|packet| packet.flags());
    let marks: Vec<_> = flags.map(|flags| flags.contains(gst::BufferFlags::DISCONT)).collect();
    assert!(marks.len() > 2 && marks[0] && !marks[1..].contains(&true));
}

#[test]
fn restarted_element_starts_anew() {
    let mut harness = payloader();
    packetize(&mut harness, grey(64, 64, 0, 7), 0);
    let element = harness.element().unwrap();
    element.set_state(gst::State::Null).unwrap();
    assert_eq!(count(&stats(&harness), "frames"), 1, "kept to be read");
    element.set_state(gst::State::Playing).unwrap();
    assert_eq!(count(&stats(&harness), "frames"), 0);
}
