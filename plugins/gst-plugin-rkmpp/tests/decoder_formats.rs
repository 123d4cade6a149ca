// SPDX-License-Identifier: MPL-2.0

//! What `rkmppdec` makes of formats with more than eight bits or more colour, of colours and light, borders and fields.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use common::Simulator;
use gst::prelude::*;
use gst_video::prelude::*;
use sim_codec::{Codec, Colour, EncoderConfig, Picture, Plane, RawFormat, RawImage, psnr};
use streams::*;

fn stats_of(element: &gst::Element, field: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(field).unwrap()
}

/// P010_10LE without padding: ten bits at the upper end of each word.
fn p010(buffer: &gst::Buffer, width: usize, height: usize) -> Picture {
    let map = buffer.map_readable().unwrap();
    let word = |at: usize| (u16::from_le_bytes([map[2 * at], map[2 * at + 1]]) >> 6).to_le_bytes();
    let (w, h) = (width / 2, height / 2);
    let plane = |width: usize, height: usize, at: &dyn Fn(usize) -> usize| Plane {
        width,
        height,
        sample: 2,
        data: (0..width * height).flat_map(|index| word(at(index))).collect(),
    };
    let planes = [
        plane(width, height, &|index| index),
        plane(w, h, &|index| width * height + 2 * index),
        plane(w, h, &|index| width * height + 2 * index + 1),
    ];
    Picture { width, height, chroma: sim_codec::Chroma::Yuv420, depth: 10, planes }
}

#[test]
fn ten_bits_come_packed_and_are_unpacked_on_request() {
    let simulator = Simulator::new("");
    for codec in [Codec::H265, Codec::Vp9] {
        let config = EncoderConfig { depth: 10, ..good(codec, 320, 240) };
        let packets = stream(config, 4);
        let made = decode(codec, &packets, "", "");
        compare(&made, &config, 4, 30.0);
        assert_eq!(made.caps.last().unwrap().structure(0).unwrap().get::<&str>("format"), Ok("NV12_10LE40"));

        let made = decode(codec, &packets, "", "video/x-raw,format=P010_10LE !");
        assert!(made.errors.is_empty(), "{made:?}");
        assert_eq!(made.buffers.len(), 4);
        for (number, buffer) in (0..).zip(&made.buffers) {
            let psnr = psnr(&pattern(&config, number), &p010(buffer, 320, 240)).unwrap();
            assert!(psnr.into_iter().all(|psnr| psnr > 30.0), "{codec:?} {number}: {psnr:?}");
        }
        drop(made);
    }
    simulator.assert_clean();
}

#[test]
fn colours_of_the_stream_are_in_the_caps() {
    let simulator = Simulator::new("");
    for (colour, text) in [
        (Colour { range: 1, primaries: 1, transfer: 1, matrix: 1 }, "bt709"),
        (Colour { range: 1, primaries: 9, transfer: 16, matrix: 9 }, "bt2100-pq"),
        (Colour { range: 2, primaries: 6, transfer: 6, matrix: 6 }, "1:4:16:4"),
    ] {
        let config = EncoderConfig { colour, ..good(Codec::H265, 320, 240) };
        let made = decode(Codec::H265, &stream(config, 2), "", "");
        assert!(made.errors.is_empty(), "{made:?}");
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        assert_eq!(caps.get::<&str>("colorimetry"), Ok(text));
    }
    simulator.assert_clean();
}

/// What is to be seen in a buffer, read through GStreamer's own mapping, without the `crop`.
fn shown(buffer: &gst::Buffer, caps: &gst::Caps, crop: (usize, usize)) -> Picture {
    let info = gst_video::VideoInfo::from_caps(caps).unwrap();
    // Of the caps' size, or of a larger one that the meta tells.
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).unwrap();
    let (width, height) = (info.width() as usize, info.height() as usize);
    let mut data = Vec::new();
    for (plane, rows, top) in [(0, height, crop.1), (1, height / 2, crop.1 / 2)] {
        let stride = frame.plane_stride()[plane] as usize;
        let bytes = frame.plane_data(plane as u32).unwrap();
        for row in top..top + rows {
            data.extend_from_slice(&bytes[row * stride + crop.0..][..width]);
        }
    }
    let raw = RawImage { format: RawFormat::Nv12, width, height, stride: width, rows: height, data: &data };
    Picture::from_raw(&raw).unwrap()
}

#[test]
fn borders_are_cut_off_by_whoever_can() {
    let simulator = Simulator::new("borders=16+8");
    let config = good(Codec::H264, 320, 240);
    let packets = stream(config, 4);
    for (video_meta, crop_meta) in [(true, true), (true, false), (false, false)] {
        let running = pipeline(Codec::H264, "", "");
        let sink = running.element("out").static_pad("sink").unwrap();
        sink.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
            if let Some(gst::QueryViewMut::Allocation(query)) = info.query_mut().map(|query| query.view_mut())
            {
                if video_meta {
                    query.add_allocation_meta::<gst_video::VideoMeta>(None);
                }
                if crop_meta {
                    query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
                }
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
        running.play();
        feed(&running, &packets);
        end(&running);
        let element = running.element("dec");
        let made = running.finish();
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
        assert_eq!(made.buffers.len(), 4);
        assert_eq!(stats_of(&element, "frames-copied"), if video_meta { 0 } else { 4 });
        let caps = made.caps.last().unwrap();
        let size = caps.structure(0).unwrap();
        assert_eq!((size.get("width"), size.get("height")), (Ok(320), Ok(240)));
        for (number, buffer) in (0..).zip(&made.buffers) {
            let rect = buffer.meta::<gst_video::VideoCropMeta>().map(|meta| meta.rect());
            assert_eq!(rect, crop_meta.then_some((16, 8, 320, 240)));
            let crop = if crop_meta { (16, 8) } else { (0, 0) };
            let psnr = psnr(&pattern(&config, number), &shown(buffer, caps, crop)).unwrap();
            assert!(psnr.into_iter().all(|psnr| psnr > 30.0), "{video_meta} {crop_meta} {number}: {psnr:?}");
        }
        drop(made);
    }
    simulator.assert_clean();
}

#[test]
fn fields_are_told_on_buffers_and_in_the_caps() {
    use gst_video::VideoBufferFlags as Flags;
    let both = Flags::INTERLACED | Flags::TFF;
    for (fields, expected) in [
        ("none", Flags::empty()),
        ("top-first", both),
        ("bottom-first", Flags::INTERLACED),
        // By the decoder itself: it is no interlaced picture any more.
        ("deinterlaced", Flags::empty()),
    ] {
        let simulator = Simulator::new(&format!("fields={fields}"));
        let running = pipeline(Codec::H264, "", "");
        let caps: gst::Caps = format!("{},interlace-mode=mixed", caps(Codec::H264)).parse().unwrap();
        running.element("src").set_property("caps", caps);
        running.play();
        feed(&running, &stream(good(Codec::H264, 320, 240), 3));
        end(&running);
        let made = running.finish();
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
        let caps = made.caps.last().unwrap().structure(0).unwrap();
        assert_eq!(caps.get::<&str>("interlace-mode"), Ok("mixed"));
        assert_eq!(made.buffers.len(), 3);
        for buffer in &made.buffers {
            assert_eq!(buffer.video_flags() & both, expected, "{fields}");
        }
        drop(made);
        simulator.assert_clean();
    }
}

#[test]
fn four_to_two_to_two_comes_whole() {
    let simulator = Simulator::new("");
    let wide =
        |depth| EncoderConfig { chroma: sim_codec::Chroma::Yuv422, depth, ..good(Codec::H265, 320, 240) };
    let made = decode(Codec::H265, &stream(wide(8), 4), "", "");
    compare(&made, &wide(8), 4, 30.0);
    assert_eq!(made.caps.last().unwrap().structure(0).unwrap().get::<&str>("format"), Ok("NV16"));
    drop(made);

    // NV20, which this GStreamer may not know by name: the CPU unpacks it.
    let config = wide(10);
    let made = decode(Codec::H265, &stream(config, 4), "", "video/x-raw,format=I422_10LE !");
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(made.buffers.len(), 4);
    for (number, buffer) in (0..).zip(&made.buffers) {
        let map = buffer.map_readable().unwrap();
        let mut rest = map.as_slice();
        let planes = [320, 160, 160].map(|width| {
            let (data, after) = rest.split_at(2 * width * 240);
            rest = after;
            Plane { width, height: 240, sample: 2, data: data.to_vec() }
        });
        let unpacked = Picture { width: 320, height: 240, chroma: config.chroma, depth: 10, planes };
        let psnr = psnr(&pattern(&config, number), &unpacked).unwrap();
        assert!(psnr.into_iter().all(|psnr| psnr > 30.0), "{number}: {psnr:?}");
    }
    drop(made);
    simulator.assert_clean();
}

/// A message of H.265 (prefix SEI) with one payload.
fn sei(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut unit = vec![0, 0, 0, 1, 39 << 1, 1, kind, payload.len() as u8];
    let mut zeros = 0;
    for &byte in payload {
        if zeros == 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.push(byte);
    }
    unit.push(0x80);
    unit
}

#[test]
fn hdr10_is_on_the_caps() {
    let simulator = Simulator::new("");
    let colour = Colour { range: 1, primaries: 9, transfer: 16, matrix: 9 };
    let config = EncoderConfig { depth: 10, colour, ..good(Codec::H265, 320, 240) };
    let mut packets = stream(config, 3);
    // H.265 annex D: green, blue, red, white in 1/50000, most and least luminance in 1/10000 cd/m².
    let chromaticities: [u16; 8] = [8500, 39850, 6550, 2300, 35400, 14600, 15635, 16450];
    let mut mastering: Vec<u8> = chromaticities.iter().flat_map(|value| value.to_be_bytes()).collect();
    mastering.extend([10_000_000_u32, 50].iter().flat_map(|value| value.to_be_bytes()));
    let mut first = sei(137, &mastering);
    first.extend(sei(144, &[1000_u16, 400].map(u16::to_be_bytes).concat()));
    first.append(&mut packets[0].data);
    packets[0].data = first;
    let made = decode(Codec::H265, &packets, "", "");
    compare(&made, &config, 3, 30.0);
    let caps = made.caps.last().unwrap().structure(0).unwrap();
    assert_eq!(caps.get::<&str>("colorimetry"), Ok("bt2100-pq"));
    // GStreamer begins with red.
    assert_eq!(
        caps.get::<&str>("mastering-display-info"),
        Ok("35400:14600:8500:39850:6550:2300:15635:16450:10000000:50")
    );
    assert_eq!(caps.get::<&str>("content-light-level"), Ok("1000:400"));
    drop(made);

    // And none where the stream has none.
    let made = decode(Codec::H265, &stream(config, 2), "", "");
    let caps = made.caps.last().unwrap().structure(0).unwrap();
    assert!(!caps.has_field("mastering-display-info") && !caps.has_field("content-light-level"), "{caps}");
    drop(made);
    simulator.assert_clean();
}
