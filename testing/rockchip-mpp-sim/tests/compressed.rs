// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compressed pixels (AFBC): out of decoders that were asked for them in time, into encoders that are told all of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::dec::*;
use common::*;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Afbc, Chroma, Codec, Coded, Decoder, EncoderConfig, Picture, psnr};
use std::ptr::null_mut;

const AFBC: i32 = MPP_FRAME_FBC_AFBC_V2;

/// Asks for compressed output.
fn ask(c: &Ctx) {
    assert_eq!(c.control_with(MPP_DEC_SET_OUTPUT_FORMAT, AFBC), 0);
}

/// What a frame says of its compression: stride of headers, offsets.
fn headers(sim: &Sim, frame: MppFrame) -> (usize, (usize, usize)) {
    // SAFETY: a frame.
    let (stride, x, y) = unsafe {
        (
            (sim.s.mpp_frame_get_fbc_hdr_stride)(frame),
            (sim.s.mpp_frame_get_offset_x)(frame),
            (sim.s.mpp_frame_get_offset_y)(frame),
        )
    };
    (stride as usize, (x as usize, y as usize))
}

/// What a frame says, its stride of headers, its offsets, and the bytes of its buffer.
type Seen = (Told, usize, (usize, usize), Vec<u8>);

/// Pictures as they come, the first `count`.
fn frames(dec: &mut Dec, packets: &[Coded], count: usize) -> Vec<Seen> {
    let sim = dec.c.sim;
    let mut out = Vec::new();
    let mut packets = packets.iter();
    let mut next = packets.next();
    for _ in 0..PATIENCE {
        if let Some(packet) = next
            && dec.put(&packet.data, packet.pts, false) == 0
        {
            next = packets.next();
        }
        let (_, frame) = dec.get_frame();
        if frame.is_null() {
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        }
        let told = dec.told(frame);
        if told.info_change {
            dec.answer(told);
        } else {
            let (stride, offset) = headers(sim, frame);
            // SAFETY: a frame.
            let buffer = unsafe { (sim.s.mpp_frame_get_buffer)(frame) };
            let data = if buffer.is_null() { Vec::new() } else { sim.memory(buffer).to_vec() };
            out.push((told, stride, offset, data));
        }
        assert_eq!(sim.free_frame(frame), 0);
        if out.len() == count {
            return out;
        }
    }
    panic!("only {} of {count} pictures", out.len());
}

fn read(chroma: Chroma, depth: u8, of: &Seen) -> Picture {
    let (told, stride, offset, data) = of;
    let rows = (told.height as usize + offset.1).div_ceil(16) * 16;
    let afbc = Afbc { stride: *stride, rows, chroma, depth, offset: *offset };
    afbc.read((told.width as usize, told.height as usize), data).unwrap()
}

#[test]
fn compressed_pictures_lie_under_their_headers() {
    for (coding, codec, depth, offset) in [
        (MPP_VIDEO_CODING_AVC, Codec::H264, 8, 4),
        (MPP_VIDEO_CODING_HEVC, Codec::H265, 8, 4),
        (MPP_VIDEO_CODING_HEVC, Codec::H265, 10, 4),
        (MPP_VIDEO_CODING_VP9, Codec::Vp9, 8, 0),
    ] {
        let sim = Sim::new("");
        let config = EncoderConfig { depth, ..good(codec, 328, 248) };
        let pattern = |n| Picture::test_pattern(328, 248, n).with_depth(depth);
        let mut encoder = sim_codec::Encoder::new(config).unwrap();
        let packets: Vec<_> =
            (0..3).flat_map(|n| encoder.encode(&pattern(n), n.into(), false).unwrap()).collect();
        let mut dec = Dec::open(&sim, coding);
        ask(&dec.c);
        let made = frames(&mut dec, &packets, 3);
        let format = if depth > 8 { MPP_FMT_YUV420SP_10BIT } else { MPP_FMT_YUV420SP };
        for (n, one) in (0..).zip(&made) {
            assert_eq!((one.0.fmt, one.1, one.2), (format | AFBC, 384, (0, offset)), "{codec:?}");
            let worst = psnr(&pattern(n), &read(Chroma::Yuv420, depth, one)).unwrap();
            assert!(worst.into_iter().all(|psnr| psnr > 30.0), "{codec:?} {depth}: {worst:?}");
        }
        // Announced as they come.
        assert_eq!((dec.changes[0].fmt, dec.changes[0].hor_stride % 64), (format | AFBC, 0));
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn other_codecs_ignore_the_wish_for_compression() {
    for (coding, codec) in [(MPP_VIDEO_CODING_VP8, Codec::Vp8), (MPP_VIDEO_CODING_MPEG2, Codec::Mpeg2)] {
        let sim = Sim::new("");
        let mut dec = Dec::open(&sim, coding);
        ask(&dec.c);
        let made = dec.all(&stream(good(codec, 352, 288), 2));
        assert!(made.iter().filter(|(told, _)| told.buffer).all(|(told, _)| told.fmt == MPP_FMT_YUV420SP));
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn compression_is_asked_for_before_the_first_packet() {
    let sim = Sim::new("");
    let packets = stream(good(Codec::H264, 320, 240), 4);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    assert_eq!(dec.put(&packets[0].data, 0, false), 0);
    ask(&dec.c);
    let made = frames(&mut dec, &packets[1..], 4);
    assert!(made.iter().all(|(told, stride, ..)| told.fmt == MPP_FMT_YUV420SP && *stride == 0));
    dec.close();
    sim.is_clean();
}

#[test]
fn compressed_av1_is_of_no_use_unless_64_columns_wide() {
    for (width, good_one) in [(320, true), (336, false)] {
        let sim = Sim::new("");
        let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AV1);
        ask(&dec.c);
        let made = frames(&mut dec, &stream(good(Codec::Av1, width, 240), 1), 1);
        let (told, stride, offset, data) = &made[0];
        let afbc = Afbc { stride: *stride, rows: 240, chroma: Chroma::Yuv420, depth: 8, offset: *offset };
        assert_eq!((told.fmt, afbc.read((width, 240), data).is_ok()), (AFBC, good_one));
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn encoders_of_h264_and_h265_read_two_compressed_formats() {
    let sim = Sim::new("");
    for (coding, format, good) in [
        (MPP_VIDEO_CODING_AVC, MPP_FMT_YUV420SP | AFBC, true),
        (MPP_VIDEO_CODING_HEVC, MPP_FMT_YUV422SP | AFBC, true),
        (MPP_VIDEO_CODING_AVC, MPP_FMT_YUV420P | AFBC, false),
        (MPP_VIDEO_CODING_AVC, MPP_FMT_YUV420SP | MPP_FRAME_FBC_RKFBC, false),
        (MPP_VIDEO_CODING_VP8, MPP_FMT_YUV420SP | AFBC, false),
        (MPP_VIDEO_CODING_MJPEG, MPP_FMT_YUV420SP | AFBC, false),
    ] {
        let enc = Enc::open(&sim, coding, MPP_POLL_BLOCK, MPP_POLL_NON_BLOCK);
        enc.set("prep:format", format);
        assert_eq!(enc.apply() == 0, good, "{coding:#x} {format:#x}");
        enc.close();
    }
    sim.is_clean();
}

/// Puts a compressed picture with this stride of headers and row of the first line; what came of it.
fn encode(enc: &Enc, number: u32, stride: u32, top: u32) -> Vec<u8> {
    let sim = enc.c.sim;
    let afbc = Afbc { stride: 384, rows: 256, chroma: Chroma::Yuv420, depth: 8, offset: (0, 4) };
    let buffer = sim.buffer(enc.group, afbc.size()).unwrap();
    afbc.write(&Picture::test_pattern(320, 240, number), sim.memory(buffer)).unwrap();
    let mut frame = null_mut();
    // SAFETY: variables, a frame and a buffer.
    unsafe {
        assert_eq!((sim.s.mpp_frame_init)(&mut frame), 0);
        (sim.s.mpp_frame_set_fmt)(frame, AFBC);
        (sim.s.mpp_frame_set_width)(frame, 320);
        (sim.s.mpp_frame_set_height)(frame, 240);
        (sim.s.mpp_frame_set_fbc_hdr_stride)(frame, stride);
        (sim.s.mpp_frame_set_offset_y)(frame, top);
        (sim.s.mpp_frame_set_buffer)(frame, buffer);
    }
    assert_eq!(sim.put_buffer(buffer), 0);
    assert_eq!(enc.put(frame), 0);
    let packet = enc.wait();
    let data = sim.bytes(packet);
    assert_eq!((sim.free_packet(packet), sim.free_frame(frame)), (0, 0));
    data
}

#[test]
fn compressed_input_needs_the_stride_of_headers_and_the_offset() {
    let sim = Sim::new("");
    let mut enc = Enc::open(&sim, MPP_VIDEO_CODING_AVC, MPP_POLL_BLOCK, MPP_POLL_NON_BLOCK);
    enc.shape(AFBC, sim_codec::RawFormat::Nv12, 320, 240, 384, 256);
    assert_eq!(enc.apply(), 0);
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    let mut worst = |data: &[u8], number| {
        let picture = decoder.decode(data, 0).unwrap().remove(0).picture;
        psnr(&Picture::test_pattern(320, 240, number), &picture).unwrap()[0]
    };
    assert!(worst(&encode(&enc, 0, 384, 4), 0) > 30.0);
    // Another offset is another picture, another stride is none.
    assert!(worst(&encode(&enc, 1, 384, 0), 1) < 30.0);
    assert!(encode(&enc, 2, 0, 4).is_empty());
    enc.close();
    sim.is_clean();
}
