// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames go in, streams come out that anybody can decode.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rockchip_mpp_sys::consts::*;
use sim_codec::{Chroma, Codec, Decoder, Picture, RawFormat, psnr};

const CODECS: [(i32, Codec); 4] = [
    (MPP_VIDEO_CODING_AVC, Codec::H264),
    (MPP_VIDEO_CODING_HEVC, Codec::H265),
    (MPP_VIDEO_CODING_VP8, Codec::Vp8),
    (MPP_VIDEO_CODING_MJPEG, Codec::Mjpeg),
];

/// Decodes what the encoder makes of some patterns and compares; the least PSNR of luma.
fn worst(enc: &Enc, codec: Codec, count: u32) -> f64 {
    let mut decoder = Decoder::new(codec).unwrap();
    let mut pictures = Vec::new();
    for n in 0..count {
        pictures.extend(decoder.decode(&enc.one(n), n.into()).unwrap());
    }
    pictures.extend(decoder.finish().unwrap());
    assert_eq!(pictures.len(), count as usize, "{codec:?}");
    let compare = |d: &sim_codec::Decoded| {
        assert!(!d.corrupt);
        let want = Picture::test_pattern(enc.width, enc.height, d.pts.try_into().unwrap());
        psnr(&want, &d.picture.with_chroma(Chroma::Yuv420)).unwrap()[0]
    };
    pictures.iter().map(compare).fold(f64::INFINITY, f64::min)
}

#[test]
fn every_codec_in_both_modes() {
    for (coding, codec) in CODECS {
        for input in [MPP_POLL_BLOCK, MPP_POLL_NON_BLOCK] {
            let sim = Sim::new("");
            let enc = Enc::open(&sim, coding, input, MPP_POLL_NON_BLOCK);
            let least = worst(&enc, codec, 5);
            assert!(least > 30.0, "{codec:?} {input}: {least:.1} dB");
            enc.close();
            sim.is_clean();
        }
    }
}

#[test]
fn every_format() {
    let formats = [
        (MPP_FMT_YUV420SP, RawFormat::Nv12, 1),
        (MPP_FMT_YUV420SP_VU, RawFormat::Nv21, 1),
        (MPP_FMT_YUV422SP, RawFormat::Nv16, 1),
        (MPP_FMT_YUV422SP_VU, RawFormat::Nv61, 1),
        (MPP_FMT_YUV420P, RawFormat::I420, 1),
        (MPP_FMT_YUV422P, RawFormat::I422, 1),
        (MPP_FMT_YUV400, RawFormat::Gray8, 1),
        (MPP_FMT_YUV444SP, RawFormat::Nv24, 1),
        (MPP_FMT_YUV444P, RawFormat::I444, 1),
    ];
    let sim = Sim::new("");
    let mut enc = Enc::open(&sim, MPP_VIDEO_CODING_AVC, MPP_POLL_BLOCK, MPP_POLL_NON_BLOCK);
    for (number, format, bytes) in formats {
        // Strides that are no picture's, so that a wrong one shows.
        enc.shape(number, format, 336, 208, 336 * bytes + 32, 224);
        assert_eq!(enc.apply(), 0, "{format:?}");
        let least = worst(&enc, Codec::H264, 2);
        assert!(least > 30.0, "{format:?}: {least:.1} dB");
    }
    enc.close();
    sim.is_clean();
}
