// SPDX-License-Identifier: MIT OR Apache-2.0

//! Properties over random pictures, sizes and networks.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use rtp_jpeg::*;

#[derive(Clone, Debug)]
struct Input {
    size: (u16, u16),
    interval: u16,
    seed: u8,
    length: usize,
    options: PacketizeOptions,
    sampling: Sampling,
    tables: Tables,
}

impl Input {
    /// The scan tells frame, interval and place, so that mixing two frames is seen.
    fn picture(&self, frame: u8) -> Vec<u8> {
        synthetic(self.size, self.sampling, &self.tables, self.interval, |index| {
            let length = 1 + (self.length * (index as usize + 7)) % (2 * self.length);
            (0..length)
                .map(|at| self.seed ^ frame ^ (index as u8).wrapping_mul(31) ^ (at / 3) as u8)
                .collect()
        })
    }
}

prop_compose! {
    fn input()(
        size in (1_u16..3000, 1_u16..200),
        interval in prop_oneof![Just(0_u16), 1_u16..200],
        seed: u8,
        length in 1_usize..300,
        max_payload in MIN_PAYLOAD..1600,
        q in 1_u8..100,
        inband in 0..4,
        entries in vec(1_u16..=255, 128),
        mode in 0_usize..3,
        yuv420: bool,
    ) -> Input {
        let own = || Tables {
            luma: Table::new(entries[..64].try_into().unwrap()).unwrap(),
            chroma: Table::new(entries[64..].try_into().unwrap()).unwrap(),
        };
        let (tables, quant) = match inband {
            0 => (Tables::for_q(q).unwrap(), QuantChoice { q, send_tables: false }),
            1 => (own(), QuantChoice { q: 127 + q, send_tables: true }),
            _ => (own(), QuantChoice { q: 255, send_tables: true }),
        };
        let restart_mode = [RestartMode::Auto, RestartMode::WholeFrame, RestartMode::Aligned][mode];
        Input {
            size, interval, seed, tables,
            // Without restart markers the one interval is the whole scan.
            length: if interval == 0 { length * 20 } else { length },
            options: PacketizeOptions { restart_mode, ..PacketizeOptions::new(max_payload, quant) },
            sampling: if yuv420 { Sampling::Yuv420 } else { Sampling::Yuv422 },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_picture_arrives_as_it_was_sent(input in input(), sequence: u16) {
        let data = input.picture(0);
        let jpeg = Jpeg::parse(&data).unwrap();
        let sent = send(&jpeg, &input.options, 1, sequence);
        let received = receive(config(Some(input.size), false), &sent);
        prop_assert!(received.refused.is_empty() && received.lost.is_empty());
        prop_assert_eq!(received.frames.len(), 1);
        assert_same(&jpeg, &Jpeg::parse(&received.frames[0].0).unwrap());
    }

    #[test]
    fn packets_cover_the_scan_once_and_all_but_the_last_are_equal_unless_aligned(input in input()) {
        let data = input.picture(0);
        let jpeg = Jpeg::parse(&data).unwrap();
        let packets = Packets::new(&jpeg, &input.options).unwrap();
        let (aligned, (least, most)) = (packets.is_aligned(), packets.size_hint());
        let packets: Vec<_> = packets.collect();
        let scan: Vec<u8> = packets.iter().flat_map(|packet| packet.scan()).copied().collect();
        prop_assert!(scan == jpeg.scan());
        prop_assert!(packets.len() >= least && most.is_none_or(|most| packets.len() == most));
        let (last, others) = packets.split_last().unwrap();
        prop_assert!(last.is_last() && !others.iter().any(Packet::is_last));
        if !aligned {
            prop_assert!(others.iter().all(|packet| packet.len() == input.options.max_payload));
        }
    }

    /// Whatever the network does, a frame given out as whole is a frame that was sent.
    #[test]
    fn loss_disorder_and_copies_never_make_a_wrong_picture(
        input in input(),
        sequence: u16,
        one_timestamp: bool,
        conceal: bool,
        losses in 1_u8..12,
        fate in vec((0_u8..20, 0_usize..6), 400),
    ) {
        let frames: Vec<_> = (1..=4).map(|frame| input.picture(frame * 16)).collect();
        let jpegs: Vec<_> = frames.iter().map(|data| Jpeg::parse(data).unwrap()).collect();
        let mut sent = Vec::new();
        for (number, jpeg) in (0..).zip(&jpegs) {
            let timestamp = if one_timestamp { 9 } else { number };
            let next = sequence.wrapping_add(sent.len() as u16);
            sent.extend(send(jpeg, &input.options, timestamp, next));
        }
        let mut order: Vec<_> = sent
            .iter()
            .zip(fate.iter().cycle())
            .enumerate()
            .flat_map(|(at, (packet, &(fate, delay)))| {
                let copies = match fate { 19 => 2, _ => usize::from(fate >= losses) };
                let delay = if fate > 15 { delay } else { 0 };
                (0..copies).map(move |copy| (at + delay * (copy + 1), packet))
            })
            .collect();
        order.sort_by_key(|entry| entry.0);
        let received = receive(config(Some(input.size), conceal), order.into_iter().map(|entry| entry.1));
        for (picture, info) in &received.frames {
            let picture = Jpeg::parse(picture).unwrap();
            prop_assert_eq!(picture.tables(), &input.tables);
            if info.concealed == 0 {
                let known = jpegs.iter().any(|jpeg| jpeg.scan() == picture.scan());
                prop_assert!(known, "a picture that nobody sent");
            }
        }
    }

    #[test]
    fn random_bytes_are_refused_and_nothing_else(data in vec(any::<u8>(), 0..400)) {
        let _ = Jpeg::parse(&data);
        let mut jpeg = vec![0xff, 0xd8, 0xff];
        jpeg.extend(data);
        let _ = Jpeg::parse(&jpeg);
    }

    /// A real file with some bytes changed: if it still parses, it goes through.
    #[test]
    fn damaged_files_are_refused_or_arrive(
        file in 0_usize..4,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut data = data(["base420.jpg", "ok_restart_1.jpg", "ok_merged_dqt.jpg", "ok_no_eoi.jpg"][file]);
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Ok(jpeg) = Jpeg::parse(&data) {
            let sent = send(&jpeg, &PacketizeOptions::new(200, quant(&jpeg)), 1, 1);
            let received = receive(config(Some((jpeg.width(), jpeg.height())), true), &sent);
            prop_assert_eq!(received.frames.len(), 1);
            assert_same(&jpeg, &Jpeg::parse(&received.frames[0].0).unwrap());
        }
    }

    /// Packets of rubbish, biased towards valid headers.
    #[test]
    fn rubbish_packets_are_survived(
        packets in vec((0_u32..2, 0_u32..2, 0_u16..40, any::<bool>(), vec(any::<u8>(), 0..40), 0_usize..4), 1..200),
        conceal: bool,
    ) {
        let sent: Vec<_> = packets
            .into_iter()
            .map(|(ssrc, timestamp, sequence, marker, rest, kind)| {
                let offset = u32::from(rest.first().copied().unwrap_or(0)) * 3;
                let head = MainHeader {
                    type_specific: 0, offset, kind: [0, 1, 64, 65][kind], q: if kind == 3 { 128 } else { 50 },
                    width8: 4, height8: 4,
                };
                let payload = if rest.len() % 7 == 0 { rest } else { [&head.to_bytes()[..], &rest].concat() };
                Sent { ssrc, timestamp, sequence, marker, payload }
            })
            .collect();
        let mut config = config(None, conceal);
        config.max_frame = 1 << 16;
        for (picture, info) in receive(config, &sent).frames {
            prop_assert!(picture.starts_with(&[0xff, 0xd8]) && picture.ends_with(&[0xff, 0xd9]));
            prop_assert!(info.width == 32 && info.height == 32);
        }
    }
}
