// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the fuzz targets do with an input. Also compiled into the crate's tests, which run the corpus.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use rtp_jpeg::*;

/// Parses; what is found must lie inside the input.
pub fn parse(input: &[u8]) {
    if let Ok(jpeg) = Jpeg::parse(input) {
        assert_eq!(&input[jpeg.scan_range()], jpeg.scan());
        assert!(jpeg.scan_range().end <= jpeg.end() && jpeg.end() <= input.len());
        assert!(jpeg.width() > 0 && jpeg.height() > 0 && !jpeg.scan().is_empty());
    }
}

/// Takes the input as a row of packets: flags, sequence number, length, payload.
pub fn reassemble(mut input: &[u8]) {
    let Some((&options, rest)) = input.split_first() else { return };
    input = rest;
    let mut config = ReassemblerConfig::default();
    config.conceal = options & 1 != 0;
    config.dimensions = (options & 2 != 0).then_some((64, 48));
    config.max_frame = 1 << 16;
    let mut receiver = Reassembler::new(config);
    let check = |events: Events<'_>| {
        for event in events {
            if let Event::Frame(frame) = event {
                assert!(frame.data().starts_with(&[0xff, 0xd8]) && frame.data().ends_with(&[0xff, 0xd9]));
            }
        }
    };
    while let Some((&[flags, sequence, length], rest)) = input.split_first_chunk() {
        let (payload, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        let packet = RtpPacket {
            ssrc: (flags >> 1 & 1).into(),
            timestamp: (flags >> 2 & 3).into(),
            sequence: sequence.into(),
            marker: flags & 1 != 0,
            payload,
        };
        if let Ok(events) = receiver.push(&packet) {
            check(events);
        }
        if flags & 0x80 != 0 {
            check(receiver.flush());
        }
    }
    check(receiver.flush());
}

/// A picture that parses arrives as it is, with any options.
pub fn round_trip(input: &[u8]) {
    let Some((&[size, mode], input)) = input.split_first_chunk() else { return };
    let Ok(jpeg) = Jpeg::parse(input) else { return };
    let mut options =
        PacketizeOptions::new(MIN_PAYLOAD + usize::from(size) * 4, QuantChoice { q: 255, send_tables: true });
    options.restart_mode =
        [RestartMode::Auto, RestartMode::WholeFrame, RestartMode::Aligned][usize::from(mode % 3)];
    let mut config = ReassemblerConfig::default();
    config.dimensions = Some((jpeg.width(), jpeg.height()));
    let mut receiver = Reassembler::new(config);
    let mut frames = 0;
    for (sequence, packet) in Packets::new(&jpeg, &options).unwrap().enumerate() {
        let mut payload = vec![0; packet.len()];
        packet.write(&mut payload).unwrap();
        assert!(payload.len() <= options.max_payload);
        let (sequence, marker) = (sequence as u16, packet.is_last());
        let packet = RtpPacket { ssrc: 1, timestamp: 1, sequence, marker, payload: &payload };
        for event in receiver.push(&packet).unwrap() {
            let Event::Frame(frame) = event else { unreachable!("{event:?}") };
            let again = Jpeg::parse(frame.data()).unwrap();
            assert_eq!((again.tables(), again.scan()), (jpeg.tables(), jpeg.scan()));
            frames += 1;
        }
    }
    assert_eq!(frames, 1);
}
