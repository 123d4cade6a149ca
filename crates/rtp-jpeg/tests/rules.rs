// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets look like on the wire, and what the receiver makes of loss, disorder and strange senders.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rtp_jpeg::*;

const EVERY: QuantChoice = QuantChoice { q: 255, send_tables: true };

fn tables() -> Tables {
    Tables::for_q(70).unwrap()
}

/// Intervals of `length` bytes that tell frame and index.
fn numbered(size: (u16, u16), interval: u16, frame: u8, length: usize) -> Vec<u8> {
    synthetic(size, Sampling::Yuv420, &tables(), interval, |index| {
        (0..length).map(|at| frame ^ index as u8 ^ (at as u8) << 4).collect()
    })
}

#[test]
fn wire_format_of_a_frame_with_tables() {
    let input = numbered((642, 480), 0, 1, 2000);
    let jpeg = Jpeg::parse(&input).unwrap();
    let packets = send(&jpeg, &PacketizeOptions::new(1000, EVERY), 1, 1);
    assert_eq!(packets[0].payload[..12], [0, 0, 0, 0, 1, 255, 81, 60, 0, 0, 0, 128]);
    assert_eq!(packets[0].payload[12..140], tables().to_wire().unwrap());
    assert_eq!(
        packets[1].payload[..8],
        [0, 0, 860u16.to_be_bytes()[0], 860u16.to_be_bytes()[1], 1, 255, 81, 60]
    );
    let lengths: Vec<_> = packets.iter().map(|packet| packet.payload.len()).collect();
    assert_eq!(lengths[..lengths.len() - 1], vec![1000; lengths.len() - 1], "all but the last are equal");
    let markers: Vec<_> =
        packets.iter().filter(|packet| packet.marker).map(|packet| packet.sequence).collect();
    assert_eq!(markers, [packets.last().unwrap().sequence]);
    assert_eq!(
        Packets::new(&jpeg, &PacketizeOptions::new(1000, EVERY)).unwrap().size_hint().1,
        Some(packets.len())
    );
}

#[test]
fn q_of_each_policy_on_the_wire() {
    let input = numbered((64, 64), 0, 1, 100);
    let jpeg = Jpeg::parse(&input).unwrap();
    let first = |q, send_tables| {
        let options = PacketizeOptions::new(1400, QuantChoice { q, send_tables });
        Packets::new(&jpeg, &options).map(|mut packets| packets.next().unwrap().header_len())
    };
    assert_eq!(first(70, false), Ok(8), "Q 1 to 99: no tables");
    assert_eq!(first(128, true), Ok(8 + 4 + 128));
    assert_eq!(first(254, false), Ok(8 + 4), "as sent before");
    assert_eq!(first(255, true), Ok(8 + 4 + 128));
    for (q, tables) in [(0, false), (71, false), (100, false), (127, true), (255, false)] {
        assert_eq!(first(q, tables), Err(PacketizeError::InvalidQ(q)));
    }
}

#[test]
fn payload_size_below_the_minimum_is_refused_and_the_minimum_works() {
    let input = numbered((64, 64), 1, 1, 50);
    let jpeg = Jpeg::parse(&input).unwrap();
    for size in [0, 1, 28, MIN_PAYLOAD - 1] {
        let result = Packets::new(&jpeg, &PacketizeOptions::new(size, EVERY)).err();
        assert_eq!(result, Some(PacketizeError::PayloadTooSmall(size)));
    }
    let packets = send(&jpeg, &PacketizeOptions::new(MIN_PAYLOAD, EVERY), 1, 1);
    assert_eq!(packets[0].payload.len(), MIN_PAYLOAD);
}

#[test]
fn aligned_packets_hold_whole_intervals() {
    let input = numbered((64, 64), 1, 1, 50);
    let jpeg = Jpeg::parse(&input).unwrap();
    let mut options = PacketizeOptions::new(200, QuantChoice { q: 70, send_tables: false });
    let heads = |options: &PacketizeOptions| -> Vec<_> {
        Packets::new(&jpeg, options)
            .unwrap()
            .map(|packet| packet.restart_header().unwrap())
            .map(|head| (head.count, head.first, head.last, head.interval))
            .collect()
    };
    // 52 bytes with marker: three fit in 188.
    let expected = [(0, true, true, 1), (3, true, true, 1), (6, true, true, 1)];
    assert_eq!(heads(&options)[..3], expected);
    options.restart_mode = RestartMode::WholeFrame;
    assert!(heads(&options).iter().all(|&head| head == (0x3fff, true, true, 1)));
    // Intervals of 252 bytes are cut in two.
    let input = numbered((64, 64), 1, 1, 250);
    let jpeg = Jpeg::parse(&input).unwrap();
    options.restart_mode = RestartMode::Aligned;
    let packets = Packets::new(&jpeg, &options).unwrap();
    let heads: Vec<_> = packets.map(|packet| packet.restart_header().unwrap()).collect();
    let expected = [(0, true, false), (0, false, true), (1, true, false), (1, false, true)];
    assert_eq!(heads.iter().take(4).map(|h| (h.count, h.first, h.last)).collect::<Vec<_>>(), expected);
    options.restart_mode = RestartMode::Auto;
    assert!(!Packets::new(&jpeg, &options).unwrap().is_aligned(), "auto does not cut intervals");
}

#[test]
fn too_many_intervals_to_count_go_out_as_whole_frame() {
    let input = numbered((2040, 2048), 1, 1, 1);
    let jpeg = Jpeg::parse(&input).unwrap();
    assert_eq!(jpeg.intervals(), 0x4000);
    let options =
        PacketizeOptions { restart_mode: RestartMode::Aligned, ..PacketizeOptions::new(1400, EVERY) };
    assert!(!Packets::new(&jpeg, &options).unwrap().is_aligned());
}

#[test]
fn sizes_over_2040_are_signalled_elsewhere() {
    for (size, header) in
        [((2040, 8), (255, 1)), ((2041, 8), (0, 0)), ((3280, 1000), (0, 0)), ((8, 2592), (0, 0))]
    {
        let input = numbered(size, 0, 1, 50);
        let jpeg = Jpeg::parse(&input).unwrap();
        let options = PacketizeOptions::new(1400, EVERY);
        let packets = Packets::new(&jpeg, &options).unwrap();
        let large = header == (0, 0);
        assert_eq!(packets.out_of_band_dimensions(), large.then_some(size));
        let sent = send(&jpeg, &options, 1, 1);
        assert_eq!((sent[0].payload[6], sent[0].payload[7]), header);
        let received = receive(config(Some(size), false), &sent);
        assert_eq!((received.frames[0].1.width, received.frames[0].1.height), size);
        let received = receive(config(None, false), &sent);
        assert_eq!(received.refused == [PacketError::UnknownSize], large);
    }
}

#[test]
fn fields_keep_their_kind_even_with_one_timestamp() {
    let input = numbered((64, 64), 0, 1, 500);
    let jpeg = Jpeg::parse(&input).unwrap();
    let mut sent = Vec::new();
    for field in [Field::Odd, Field::Even, Field::Single] {
        let options = PacketizeOptions { field, ..PacketizeOptions::new(300, EVERY) };
        let next = sent.len() as u16;
        sent.extend(send(&jpeg, &options, 5, next));
    }
    let received = receive(config(None, false), &sent);
    let fields: Vec<_> = received.frames.iter().map(|frame| frame.1.field).collect();
    assert_eq!(fields, [Field::Odd, Field::Even, Field::Single]);
    // The end of one field and the begin of the next are lost: what is left fits together, but is no picture.
    let half = sent.len() / 3;
    let mixed: Vec<_> = sent.iter().take(1).chain(&sent[half + 1..2 * half]).cloned().collect();
    let received = receive(config(None, false), &mixed);
    assert!(received.frames.is_empty() && !received.lost.is_empty(), "{received:?}");
}

#[test]
fn two_frames_with_one_timestamp_are_not_mixed() {
    let one = numbered((64, 64), 0, 1, 500);
    let two = numbered((64, 64), 0, 2, 500);
    let options = PacketizeOptions::new(300, QuantChoice { q: 70, send_tables: false });
    let a = send(&Jpeg::parse(&one).unwrap(), &options, 5, 0);
    let b = send(&Jpeg::parse(&two).unwrap(), &options, 5, a.len() as u16);
    assert_eq!(a.len(), 2);
    let received = receive(config(None, false), [&a[0], &b[1]]);
    assert!(received.frames.is_empty(), "the parts fit by offset, but packets are missing between them");
    assert_eq!(received.lost.len(), 1);
}

#[test]
fn tables_sent_once_are_kept_per_sender_and_q() {
    let input = numbered((64, 64), 0, 1, 100);
    let jpeg = Jpeg::parse(&input).unwrap();
    let frame = |q, send_tables, ssrc, number: u16| {
        let options = PacketizeOptions::new(1400, QuantChoice { q, send_tables });
        let mut sent = send(&jpeg, &options, u32::from(number), number);
        sent[0].ssrc = ssrc;
        sent.remove(0)
    };
    let mut receiver = Reassembler::new(config(None, false));
    let mut received = Received::default();
    received.push(&mut receiver, &frame(200, false, 1, 1));
    assert_eq!(received.frames.len(), 0, "late joiner");
    received.push(&mut receiver, &frame(200, true, 1, 2));
    assert_eq!(received.lost[0].reason, LossReason::UnknownTables(200));
    received.push(&mut receiver, &frame(200, false, 1, 3));
    assert_eq!(received.frames.len(), 2);
    assert_same(&jpeg, &Jpeg::parse(&received.frames[1].0).unwrap());
    received.push(&mut receiver, &frame(201, false, 1, 4));
    received.push(&mut receiver, &frame(200, false, 2, 5));
    received.take(receiver.flush());
    let reasons: Vec<_> = received.lost.iter().map(|loss| loss.reason).collect();
    assert_eq!(reasons[1..], [LossReason::UnknownTables(201), LossReason::UnknownTables(200)]);
    // Very many senders do not use memory without bound, and the latest is remembered.
    for number in 0..2000 {
        received.push(&mut receiver, &frame(128, true, 1000 + u32::from(number), 10 + number));
    }
    received.push(&mut receiver, &frame(128, false, 2999, 3000));
    assert_eq!(received.frames.len(), 2 + 2001);
    receiver.reset();
    received.push(&mut receiver, &frame(128, false, 2999, 3001));
    assert_eq!(received.frames.len(), 2 + 2001, "forgotten");
}

#[test]
fn any_lost_packet_loses_the_whole_frame_and_only_that() {
    let frames: Vec<_> = (0..3).map(|frame| numbered((64, 64), 0, frame, 1000)).collect();
    let options = PacketizeOptions::new(200, EVERY);
    let mut sent = Vec::new();
    for (timestamp, frame) in (0..).zip(&frames) {
        let next = sent.len() as u16;
        sent.extend(send(&Jpeg::parse(frame).unwrap(), &options, timestamp, next));
    }
    for lost in 0..sent.len() {
        let rest: Vec<_> = sent.iter().enumerate().filter(|&(at, _)| at != lost).map(|(_, p)| p).collect();
        let received = receive(config(None, true), rest);
        assert_eq!((received.frames.len(), received.lost.len()), (2, 1), "packet {lost}");
        assert_eq!(received.lost[0].timestamp, sent[lost].timestamp);
        assert_eq!(received.lost[0].reason, LossReason::Incomplete);
        for (picture, info) in &received.frames {
            let original = Jpeg::parse(&frames[info.timestamp as usize]).unwrap();
            assert_same(&original, &Jpeg::parse(picture).unwrap());
        }
    }
}

#[test]
fn duplicates_and_late_packets_are_refused() {
    let input = numbered((64, 64), 0, 1, 1000);
    let jpeg = Jpeg::parse(&input).unwrap();
    let sent = send(&jpeg, &PacketizeOptions::new(200, EVERY), 1, 100);
    let doubled: Vec<_> = sent.iter().flat_map(|packet| [packet, packet]).collect();
    let received = receive(config(None, false), doubled);
    assert_eq!((received.frames.len(), received.lost.len()), (1, 0));
    assert_eq!(
        received.refused.iter().filter(|&&error| error == PacketError::Duplicate).count(),
        sent.len() - 1
    );
    assert_eq!(received.refused.last(), Some(&PacketError::Late), "a copy of the last packet");
}

#[test]
fn headers_that_change_within_a_frame_lose_it() {
    let input = numbered((64, 64), 0, 1, 300);
    let jpeg = Jpeg::parse(&input).unwrap();
    let sent = send(&jpeg, &PacketizeOptions::new(200, QuantChoice { q: 70, send_tables: false }), 1, 1);
    assert_eq!(receive(config(None, false), &sent).frames.len(), 1);
    for (byte, value) in [(0, 1), (4, 0), (5, 71), (6, 9), (7, 9)] {
        let mut changed = sent.clone();
        changed[1].payload[byte] = value;
        let received = receive(config(None, false), &changed);
        assert_eq!(received.lost.len(), 1);
        assert_eq!(received.lost[0].reason, LossReason::Inconsistent, "byte {byte}");
    }
    let mut overlapping = sent.clone();
    overlapping[1].payload[3] -= 1;
    let received = receive(config(None, false), &overlapping);
    assert_eq!(received.lost[0].reason, LossReason::Inconsistent);
}

#[test]
fn eoi_and_padding_of_other_senders_are_tolerated() {
    let base = data("base420.jpg");
    let jpeg = Jpeg::parse(&base).unwrap();
    let sent = send(&jpeg, &PacketizeOptions::new(4000, quant(&jpeg)), 1, 1);
    for tail in [&[0xff, 0xd9][..], &[0xff, 0xd9, 0, 0, 0, 0]] {
        let mut changed = sent.clone();
        changed[0].payload.extend(tail);
        let received = receive(config(Some((40, 24)), false), &changed);
        assert_same(&jpeg, &Jpeg::parse(&received.frames[0].0).unwrap());
        assert_eq!(
            received.frames[0].0.len(),
            receive(config(Some((40, 24)), false), &sent).frames[0].0.len()
        );
    }
}

#[test]
fn a_frame_can_be_taken_without_copying() {
    let input = numbered((64, 64), 0, 1, 500);
    let jpeg = Jpeg::parse(&input).unwrap();
    let mut receiver = Reassembler::new(config(None, false));
    let mut buffer = Vec::new();
    for number in 0..4 {
        for packet in send(&jpeg, &PacketizeOptions::new(200, EVERY), number, number as u16 * 50) {
            for event in receiver.push(&packet.as_packet()).unwrap() {
                let Event::Frame(frame) = event else { panic!("{event:?}") };
                let expected = frame.data().to_vec();
                let range = frame.swap(&mut buffer);
                assert_eq!((range.end, &buffer[range]), (buffer.len(), &expected[..]));
                assert_same(&jpeg, &Jpeg::parse(&expected).unwrap());
            }
        }
    }
    assert!(!buffer.is_empty());
}

/// Frame after frame with aligned intervals; some packets of the second are lost.
#[test]
fn concealment_keeps_what_arrived_and_patches_the_rest_from_the_frame_before() {
    let (old, new) = (numbered((64, 64), 1, 3, 60), numbered((64, 64), 1, 200, 60));
    let options = PacketizeOptions::new(200, QuantChoice { q: 70, send_tables: false });
    let first = send(&Jpeg::parse(&old).unwrap(), &options, 1, 0);
    let second = send(&Jpeg::parse(&new).unwrap(), &options, 2, first.len() as u16);
    let third = send(&Jpeg::parse(&new).unwrap(), &options, 3, 2 * first.len() as u16);
    let scan_of = |picture: &[u8]| Jpeg::parse(picture).unwrap().scan().to_vec();
    // First interval of each packet, from the restart headers; the last packet ends with the frame.
    let mut starts: Vec<usize> = second.iter().map(|packet| packet.payload[11].into()).collect();
    starts.push(16);
    for lost in 0..second.len() {
        let mut sent = [first.clone(), second.clone(), third.clone()].concat();
        sent.remove(first.len() + lost);
        let received = receive(config(None, true), &sent);
        assert_eq!((received.frames.len(), received.lost.len()), (3, 0), "{received:?}");
        let (picture, info) = &received.frames[1];
        let gone = starts[lost]..starts[lost + 1];
        assert_eq!(info.concealed as usize, gone.len());
        let expected = synthetic((64, 64), Sampling::Yuv420, &tables(), 1, |index| {
            let frame = if gone.contains(&(index as usize)) { 3 } else { 200 };
            (0..60).map(|at| frame ^ index as u8 ^ (at as u8) << 4).collect()
        });
        assert_eq!(scan_of(picture), scan_of(&expected), "packet {lost}");
        assert_eq!(received.frames[2].1.concealed, 0);
        assert_eq!(scan_of(&received.frames[2].0), scan_of(&new));
        assert_eq!(receive(config(None, false), &sent).lost.len(), 1, "without concealment it is lost");
    }
}

#[test]
fn concealment_without_a_frame_before_patches_with_grey_that_decodes() {
    let input = data("self_large.jpg");
    let jpeg = Jpeg::parse(&input).unwrap();
    let options =
        PacketizeOptions { restart_mode: RestartMode::Aligned, ..PacketizeOptions::new(1400, quant(&jpeg)) };
    let sent = send(&jpeg, &options, 1, 0);
    let (size, good) = decode(&input);
    assert!(sent.len() > 4);
    let kept: Vec<_> = sent.iter().enumerate().filter(|&(at, _)| at != 2).map(|(_, packet)| packet).collect();
    let received = receive(config(None, true), kept);
    let (picture, info) = &received.frames[0];
    let (patched_size, patched) = decode(picture);
    assert_eq!(patched_size, size);
    let row = size.0 * 3;
    // The fancy upsampling of chroma reaches into the neighbouring line, so whole intervals are compared by
    // their inner lines.
    let same = |line: usize| good[line * row..(line + 1) * row] == patched[line * row..(line + 1) * row];
    let damaged = (0..size.1 / 16).filter(|interval| !(1..15).all(|line| same(interval * 16 + line))).count();
    assert_eq!(damaged, info.concealed as usize);
    assert!(damaged > 0 && damaged < size.1 / 16);
}

#[test]
fn concealment_does_not_guess_where_intervals_are_not_aligned_or_tables_unknown() {
    let input = numbered((64, 64), 1, 3, 60);
    let jpeg = Jpeg::parse(&input).unwrap();
    let mut options = PacketizeOptions::new(200, EVERY);
    let aligned = send(&jpeg, &options, 1, 0);
    let received = receive(config(None, true), &aligned[1..]);
    assert_eq!((received.frames.len(), received.lost.len()), (0, 1), "the tables were in the first packet");
    options.restart_mode = RestartMode::WholeFrame;
    let whole = send(&jpeg, &options, 1, 0);
    let received = receive(config(None, true), &whole[..whole.len() - 1]);
    assert_eq!((received.frames.len(), received.lost.len()), (0, 1));
}

#[test]
fn concealment_does_not_pass_two_frames_with_one_timestamp_as_one() {
    let options = PacketizeOptions::new(600, QuantChoice { q: 70, send_tables: false });
    let [one, two] = [3, 5].map(|frame| numbered((64, 64), 1, frame, 60));
    let a = send(&Jpeg::parse(&one).unwrap(), &options, 5, 0);
    let b = send(&Jpeg::parse(&two).unwrap(), &options, 5, a.len() as u16);
    assert_eq!((a.len(), b.len()), (2, 2));
    let received = receive(config(None, true), [&a[0], &b[1]]);
    assert_eq!((received.frames.len(), received.lost.len()), (0, 1), "all intervals, but of two frames");
}
