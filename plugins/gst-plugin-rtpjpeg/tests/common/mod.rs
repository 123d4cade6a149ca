// SPDX-License-Identifier: MPL-2.0

//! Pictures, harnesses, and ways to read packets.
#![allow(dead_code)] // Each test program uses a part of it.

use std::sync::Once;

use gst::prelude::*;
use gst_check::Harness;

pub const RTP_CAPS: &str = "application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG,payload=26";

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstrtpjpeg::plugin_register_static().unwrap();
    });
}

/// A file of the crate's test vectors.
pub fn vector(name: &str) -> Vec<u8> {
    let path = format!("{}/../../crates/rtp-jpeg/tests/data/{name}.jpg", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of all test vectors that begin with `prefix`.
pub fn vectors(prefix: &str) -> Vec<String> {
    let folder = format!("{}/../../crates/rtp-jpeg/tests/data", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".jpg").map(String::from)
        })
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// A baseline picture of grey units of any size, with restart markers every `interval` units (0 = none) and
/// quantisation tables full of `table`.
pub fn grey(width: u16, height: u16, interval: u16, table: u8) -> Vec<u8> {
    let base = vector("base420");
    let sof = base.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let sos = base.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let mut out = base[..sos].to_vec();
    out[sof + 5..sof + 7].copy_from_slice(&height.to_be_bytes());
    out[sof + 7..sof + 9].copy_from_slice(&width.to_be_bytes());
    if table != 0 {
        let at: Vec<_> = (0..sof).filter(|&at| out[at..].starts_with(&[0xff, 0xdb])).collect();
        for at in at {
            out[at + 5..at + 69].fill(table);
        }
    }
    if interval != 0 {
        out.extend([0xff, 0xdd, 0, 4]);
        out.extend(interval.to_be_bytes());
    }
    out.extend(&base[sos..sos + 14]);
    let units = u32::from(width).div_ceil(16) * u32::from(height).div_ceil(16);
    for unit in 0..units {
        if interval != 0 && unit != 0 && unit % u32::from(interval) == 0 {
            out.extend([0xff, 0xd0 + ((unit / u32::from(interval) - 1) % 8) as u8]);
        }
        // Four luma blocks and two chroma blocks, all zero.
        out.extend(0x28a2_8a00_u32.to_be_bytes());
    }
    out.extend([0xff, 0xd9]);
    out
}

pub fn buffer(data: Vec<u8>, ms: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(data);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
    buffer
}

/// A payloader that takes pictures without any caps fields.
pub fn payloader() -> Harness {
    payloader_for("image/jpeg")
}

pub fn payloader_for(caps: &str) -> Harness {
    payloader_with(caps, |_| ())
}

/// A payloader that is prepared before it starts.
pub fn payloader_with(caps: &str, prepare: impl FnOnce(&gst::Element)) -> Harness {
    init();
    let element = gst::ElementFactory::make("rtpjpegpay-rs").build().unwrap();
    prepare(&element);
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness.play();
    harness.set_src_caps_str(caps);
    harness
}

/// All packets that are there.
pub fn drain(harness: &mut Harness) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| harness.try_pull()).map(|buffer| bytes(&buffer)).collect()
}

pub fn bytes(buffer: &gst::Buffer) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

/// The packets of one picture.
pub fn packetize(harness: &mut Harness, data: Vec<u8>, ms: u64) -> Vec<Vec<u8>> {
    assert_eq!(harness.push(buffer(data, ms)), Ok(gst::FlowSuccess::Ok));
    drain(harness)
}

pub fn marker(packet: &[u8]) -> bool {
    packet[1] & 0x80 != 0
}

/// The RTP/JPEG payload of a packet without contributing sources.
pub fn payload(packet: &[u8]) -> &[u8] {
    assert_eq!(packet[0] & 0x0f, 0);
    let extension = if packet[0] & 0x10 != 0 { 4 + 4 * usize::from(packet[15]) } else { 0 };
    &packet[12 + extension..]
}

pub fn q(packet: &[u8]) -> u8 {
    payload(packet)[5]
}

pub fn kind(packet: &[u8]) -> u8 {
    payload(packet)[4]
}

/// Gives the element a bus of its own to read.
pub fn bus_of(harness: &Harness) -> gst::Bus {
    let bus = gst::Bus::new();
    harness.element().unwrap().set_bus(Some(&bus));
    bus
}

/// Texts of all warnings or errors that are on the bus.
pub fn texts(bus: &gst::Bus) -> Vec<String> {
    std::iter::from_fn(|| bus.pop())
        .filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => warning.debug().map(|text| text.to_string()),
            gst::MessageView::Error(error) => error.debug().map(|text| text.to_string()),
            _ => None,
        })
        .collect()
}

pub fn stats(harness: &Harness) -> gst::Structure {
    harness.element().unwrap().property("stats")
}

pub fn count(structure: &gst::StructureRef, field: &str) -> u64 {
    structure.get::<u64>(field).unwrap_or_else(|error| panic!("{field}: {error} in {structure:?}"))
}

/// The scan of a picture, for comparison.
pub fn scan(data: &[u8]) -> Vec<u8> {
    rtp_jpeg::Jpeg::parse(data).unwrap().scan().to_vec()
}
