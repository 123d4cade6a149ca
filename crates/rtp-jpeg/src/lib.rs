// SPDX-License-Identifier: MIT OR Apache-2.0

//! JPEG over RTP (RFC 2435) without touching the pixels: parse a picture, cut it into RTP payloads, put
//! received payloads together again. No I/O, no clock, no media framework: bytes in, bytes out.
//!
//! A sender parses each picture with [`Jpeg::parse`], lets a [`QuantSelector`] choose how the quantisation
//! tables travel, and takes the payloads from [`Packets`]. Headers are written into the caller's buffer; the
//! scan stays where it is, so it can be copied, or gathered by the kernel. A receiver gives each packet to a
//! [`Reassembler`] and gets whole JPEG pictures, or is told of their loss.
//!
//! ```
//! use std::time::Duration;
//! use rtp_jpeg::{
//!     Event, Jpeg, PacketizeOptions, Packets, QuantPolicy, QuantSelector, Reassembler, ReassemblerConfig,
//!     RtpPacket,
//! };
//!
//! # const PICTURE: &[u8] = include_bytes!("../tests/data/base420.jpg");
//! // The sender: PICTURE is one frame of a camera.
//! let mut selector = QuantSelector::new(QuantPolicy::Auto);
//! let jpeg = Jpeg::parse(PICTURE)?;
//! let quant = selector.choose(jpeg.tables(), Duration::ZERO).ok_or("no such Q")?;
//! // 1400 bytes of IP payload, less the headers of UDP (8) and RTP (12).
//! let packets = Packets::new(&jpeg, &PacketizeOptions::new(1400 - 8 - 12, quant))?;
//!
//! let mut receiver = Reassembler::new(ReassemblerConfig::default());
//! let mut pictures = 0;
//! let mut payload = [0; 1400];
//! for (sequence, packet) in (0_u16..).zip(packets) {
//!     let length = packet.write(&mut payload).ok_or("buffer too small")?;
//!     // Here an RTP header would go in front, and the datagram over the network.
//!     let received = RtpPacket {
//!         ssrc: 0x1234,
//!         timestamp: 90_000,
//!         sequence,
//!         marker: packet.is_last(),
//!         payload: payload.get(..length).unwrap_or_default(),
//!     };
//!     // The receiver.
//!     for event in receiver.push(&received)? {
//!         match event {
//!             Event::Frame(frame) => {
//!                 assert_eq!(Jpeg::parse(frame.data())?.scan(), jpeg.scan());
//!                 pictures += 1;
//!             }
//!             Event::Lost(loss) => eprintln!("frame {} lost: {}", loss.timestamp, loss.reason),
//!         }
//!     }
//! }
//! assert_eq!(pictures, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can be carried
//! Baseline JPEG with 8 bits per sample, three components, 4:2:0 or 4:2:2, one interleaved scan, and the standard
//! Huffman tables, up to 16 MiB. Everything else is refused with a [`ParseError`] that names the reason, because
//! a receiver would rebuild a wrong picture from it. Pictures over 2040 pixels need their size signalled by other
//! means: see [`Packets::out_of_band_dimensions`] and [`ReassemblerConfig::dimensions`].
#![forbid(unsafe_code)]

mod conceal;
mod header;
mod huffman;
mod packetize;
mod parse;
mod payload;
mod quant;
mod reassemble;
mod rebuild;

pub use header::{
    Field, MAIN_HEADER_LEN, MAX_HEADER_DIMENSION, MAX_SCAN_LEN, MainHeader, QUANT_HEADER_LEN, QuantHeader,
    RESTART_HEADER_LEN, RestartHeader, Sampling, WHOLE_FRAME_COUNT,
};
pub use packetize::{
    MAX_PACKET_HEADER_LEN, MIN_PAYLOAD, Packet, PacketizeError, PacketizeOptions, Packets, RestartMode,
};
pub use parse::{Jpeg, ParseError};
pub use payload::PacketError;
pub use quant::{QuantChoice, QuantPolicy, QuantSelector, Table, Tables};
pub use reassemble::{
    Event, Events, Frame, FrameInfo, Loss, LossReason, Reassembler, ReassemblerConfig, RtpPacket,
};
