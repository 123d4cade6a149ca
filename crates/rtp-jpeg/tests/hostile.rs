// SPDX-License-Identifier: MIT OR Apache-2.0

//! Input made to hurt: lengths that lie, limits of 24 bits, floods.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rtp_jpeg::*;

#[test]
fn segment_lengths_that_lie_are_refused() {
    for length in [0_u16, 1, 0xffff] {
        for marker in [0xdb, 0xc4, 0xc0, 0xda, 0xdd, 0xe0, 0xfe] {
            let mut data = vec![0xff, 0xd8, 0xff, marker];
            data.extend(length.to_be_bytes());
            data.extend([0; 40]);
            let expected =
                if length < 2 { ParseError::InvalidSegment { marker } } else { ParseError::Truncated };
            assert_eq!(Jpeg::parse(&data), Err(expected));
        }
    }
    // Counts of Huffman codes and of components that exceed the segment.
    for segment in [&[0xff, 0xc4, 0, 19, 0][..], &[0xff, 0xdb, 0, 4, 0, 1], &[0xff, 0xdb, 0, 3, 0x20]] {
        let mut data = vec![0xff, 0xd8];
        data.extend(segment);
        data.extend([0xff; 64]);
        assert!(matches!(Jpeg::parse(&data), Err(ParseError::InvalidSegment { .. })), "{segment:?}");
    }
}

#[test]
fn a_scan_of_16_mib_is_refused_and_one_byte_less_arrives() {
    let tables = Tables::for_q(50).unwrap();
    for (length, fits) in [(MAX_SCAN_LEN, true), (MAX_SCAN_LEN + 1, false)] {
        let input = synthetic((64, 64), Sampling::Yuv420, &tables, 0, |_| vec![0x55; length]);
        let result = Jpeg::parse(&input);
        assert_eq!(result.as_ref().err(), (!fits).then_some(&ParseError::TooLarge(length)));
        let Ok(jpeg) = result else { continue };
        let options = PacketizeOptions::new(60_000, QuantChoice { q: 50, send_tables: false });
        let received = receive(config(None, false), &send(&jpeg, &options, 1, 1));
        assert_eq!(Jpeg::parse(&received.frames[0].0).unwrap().scan().len(), MAX_SCAN_LEN);
    }
}

#[test]
fn every_byte_of_every_packet_header_may_be_cut_or_changed() {
    let input = data("ok_restart_1.jpg");
    let jpeg = Jpeg::parse(&input).unwrap();
    let agreed = Some((40, 24));
    let sent =
        send(&jpeg, &PacketizeOptions::new(MIN_PAYLOAD, QuantChoice { q: 255, send_tables: true }), 1, 1);
    for at in 0..sent.len() {
        for length in 0..sent[at].payload.len() {
            let mut cut = sent.clone();
            cut[at].payload.truncate(length);
            let received = receive(config(agreed, false), &cut);
            let last = at + 1 == sent.len();
            // A last packet cut short cannot be told from a shorter scan; any other can.
            assert!(received.frames.is_empty() || last, "packet {at} cut to {length}");
        }
        for byte in 0..16 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = sent.clone();
                changed[at].payload[byte] = value;
                for conceal in [false, true] {
                    for (picture, _) in receive(config(agreed, conceal), &changed).frames {
                        assert!(picture.ends_with(&[0xff, 0xd9]));
                    }
                }
            }
        }
    }
}

#[test]
fn a_flood_of_tiny_packets_of_one_frame_ends() {
    let head = |offset| MainHeader { type_specific: 0, offset, kind: 1, q: 50, width8: 4, height8: 4 };
    let mut receiver = Reassembler::new(config(None, true));
    let mut received = Received::default();
    // Backwards and all of the 16-bit sequence range: the worst order for sorting and for the record of packets.
    for number in (0..=u16::MAX).rev() {
        let payload = [&head(u32::from(number)).to_bytes()[..], &[1]].concat();
        received
            .push(&mut receiver, &Sent { ssrc: 1, timestamp: 1, sequence: number, marker: false, payload });
    }
    received.take(receiver.flush());
    assert!(received.frames.is_empty());
    assert_eq!(received.lost.len(), 1);
    // The receiver is as good as new.
    let input = data("base420.jpg");
    let jpeg = Jpeg::parse(&input).unwrap();
    for packet in send(&jpeg, &PacketizeOptions::new(300, quant(&jpeg)), 2, 0x9000) {
        received.push(&mut receiver, &packet);
    }
    assert_eq!(received.frames.len(), 1, "{:?}", received.refused);
}

#[test]
fn a_change_of_sender_ends_the_frame() {
    let input = data("base420.jpg");
    let jpeg = Jpeg::parse(&input).unwrap();
    let mut sent = send(&jpeg, &PacketizeOptions::new(200, quant(&jpeg)), 1, 1);
    sent[1].ssrc = 99;
    let received = receive(config(None, false), &sent);
    assert!(received.frames.is_empty());
    assert_eq!(received.lost.len(), 3, "{:?}", received.lost);
}

#[test]
fn corpus_of_the_fuzz_targets() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        rtp_jpeg_fuzz::parse(&input);
        rtp_jpeg_fuzz::reassemble(&input);
        rtp_jpeg_fuzz::round_trip(&input);
        inputs += 1;
    }
    assert!(inputs >= 10);
}

#[path = "../fuzz/src/lib.rs"]
mod rtp_jpeg_fuzz;
