// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the integration tests share: synthetic pictures, packets, and a receiver that collects.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use rtp_jpeg::*;

pub fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn quant(jpeg: &Jpeg<'_>) -> QuantChoice {
    QuantSelector::new(QuantPolicy::Auto).choose(jpeg.tables(), Duration::ZERO).unwrap()
}

/// A packet as it would come from the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub ssrc: u32,
    pub timestamp: u32,
    pub sequence: u16,
    pub marker: bool,
    pub payload: Vec<u8>,
}

impl Sent {
    pub fn as_packet(&self) -> RtpPacket<'_> {
        RtpPacket {
            ssrc: self.ssrc,
            timestamp: self.timestamp,
            sequence: self.sequence,
            marker: self.marker,
            payload: &self.payload,
        }
    }
}

pub fn send(jpeg: &Jpeg<'_>, options: &PacketizeOptions, timestamp: u32, sequence: u16) -> Vec<Sent> {
    let packets = Packets::new(jpeg, options).unwrap();
    packets
        .enumerate()
        .map(|(index, packet)| {
            let mut payload = vec![0; packet.len()];
            assert_eq!(packet.write(&mut payload), Some(packet.len()));
            assert_eq!(packet.write_header(&mut [0; MAX_PACKET_HEADER_LEN]), Some(packet.header_len()));
            assert_eq!(&jpeg.data()[packet.range()], packet.scan());
            assert!(payload.len() <= options.max_payload);
            let sequence = sequence.wrapping_add(index as u16);
            Sent { ssrc: 7, timestamp, sequence, marker: packet.is_last(), payload }
        })
        .collect()
}

#[derive(Default, Debug)]
pub struct Received {
    pub frames: Vec<(Vec<u8>, FrameInfo)>,
    pub lost: Vec<Loss>,
    pub refused: Vec<PacketError>,
}

impl Received {
    pub fn take(&mut self, events: Events<'_>) {
        for event in events {
            match event {
                Event::Frame(frame) => self.frames.push((frame.data().to_vec(), *frame.info())),
                Event::Lost(loss) => self.lost.push(loss),
            }
        }
    }

    pub fn push(&mut self, receiver: &mut Reassembler, packet: &Sent) {
        match receiver.push(&packet.as_packet()) {
            Ok(events) => self.take(events),
            Err(error) => self.refused.push(error),
        }
    }
}

pub fn config(dimensions: Option<(u16, u16)>, conceal: bool) -> ReassemblerConfig {
    let mut config = ReassemblerConfig::default();
    (config.dimensions, config.conceal) = (dimensions, conceal);
    config
}

pub fn receive<'a>(config: ReassemblerConfig, packets: impl IntoIterator<Item = &'a Sent>) -> Received {
    let mut receiver = Reassembler::new(config);
    let mut received = Received::default();
    for packet in packets {
        received.push(&mut receiver, packet);
    }
    received.take(receiver.flush());
    received
}

/// A picture with arbitrary scan bytes: `fill` gives the bytes of each restart interval.
pub fn synthetic(
    (width, height): (u16, u16),
    sampling: Sampling,
    tables: &Tables,
    interval: u16,
    mut fill: impl FnMut(u32) -> Vec<u8>,
) -> Vec<u8> {
    let mut data = vec![0xff, 0xd8];
    let wire = tables.to_wire().unwrap();
    for (id, table) in wire.chunks(64).enumerate() {
        data.extend([0xff, 0xdb, 0, 67, id as u8]);
        data.extend(table);
    }
    if interval != 0 {
        data.extend([0xff, 0xdd, 0, 4]);
        data.extend(interval.to_be_bytes());
    }
    let luma = if sampling == Sampling::Yuv420 { 0x22 } else { 0x21 };
    data.extend([0xff, 0xc0, 0, 17, 8]);
    data.extend(height.to_be_bytes());
    data.extend(width.to_be_bytes());
    data.extend([3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1]);
    data.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]);
    let mcus = sampling.mcus(width, height);
    let count = if interval == 0 { 1 } else { mcus.div_ceil(interval.into()) };
    for index in 0..count {
        for byte in fill(index) {
            data.push(byte);
            if byte == 0xff {
                data.push(0);
            }
        }
        if index + 1 < count {
            data.extend([0xff, 0xd0 + (index % 8) as u8]);
        }
    }
    data.extend([0xff, 0xd9]);
    data
}

/// Same picture: size, subsampling, tables, restart interval and scan.
pub fn assert_same(one: &Jpeg<'_>, other: &Jpeg<'_>) {
    assert_eq!(
        (one.width(), one.height(), one.sampling()),
        (other.width(), other.height(), other.sampling())
    );
    assert_eq!(one.tables(), other.tables());
    assert_eq!(one.restart_interval(), other.restart_interval());
    assert!(one.scan() == other.scan(), "the scans differ");
}

/// Decodes to RGB with a decoder that has nothing to do with this crate.
pub fn decode(data: &[u8]) -> ((usize, usize), Vec<u8>) {
    let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(data));
    let pixels = decoder.decode().unwrap();
    (decoder.dimensions().unwrap(), pixels)
}
