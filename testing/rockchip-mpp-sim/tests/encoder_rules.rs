// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the encoder insists on, and how releases differ.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Codec, Decoder, RawFormat};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

const AVC: i32 = MPP_VIDEO_CODING_AVC;
const HEVC: i32 = MPP_VIDEO_CODING_HEVC;
const VP8: i32 = MPP_VIDEO_CODING_VP8;
const BLOCK: i64 = MPP_POLL_BLOCK;
const NOW: i64 = MPP_POLL_NON_BLOCK;

/// Which of the frames come out as key frames: H.264 by its slices.
fn keys(enc: &Enc, from: u32, count: u32) -> Vec<u32> {
    (from..from + count).filter(|n| h264_types(&enc.one(*n)).contains(&5)).collect()
}

#[test]
fn the_input_time_out_decides_the_mode_before_init() {
    let sim = Sim::new("");
    let sync = Enc::open(&sim, AVC, BLOCK, NOW);
    let frame = sync.pattern(0);
    assert_eq!(sync.put(frame), 0);
    // Coded when put returns; the frame is the caller's.
    let (code, packet) = sync.get_packet();
    assert!(code == 0 && !packet.is_null());
    assert_eq!(sim.input_frame(packet), None);
    assert_eq!(sim.free_frame(frame), 0);
    sim.free_packet(packet);
    // Too late: the mode stays.
    sim.is_misuse("before mpp_init", || sync.c.control_with(MPP_SET_INPUT_TIMEOUT, NOW));
    let frame = sync.pattern(1);
    assert_eq!(sync.put(frame), 0);
    let packet = sync.wait();
    assert_eq!(sim.input_frame(packet), None);
    sim.free_frame(frame);
    sim.free_packet(packet);
    sync.close();
}

#[test]
fn the_frame_is_the_librarys_until_its_packet_is_out() {
    // VP8 blocks in put, and gives frames back through packets all the same.
    for coding in [AVC, HEVC, VP8, MPP_VIDEO_CODING_MJPEG] {
        let sim = Sim::new("");
        let enc = Enc::open(&sim, coding, NOW, NOW);
        let frame = enc.pattern(0);
        assert_eq!(enc.put(frame), 0);
        sim.is_misuse("the library's until", || assert_eq!(sim.free_frame(frame), MPP_NOK));
        sim.is_misuse("the library's already", || assert_eq!(enc.put(frame), MPP_NOK));
        let packet = enc.wait();
        assert_eq!(sim.input_frame(packet), Some(frame));
        assert_eq!(sim.free_frame(frame), 0);
        assert_eq!(sim.free_packet(packet), 0);
        enc.close();
    }
}

#[test]
fn a_full_queue_leaves_the_frame_with_the_caller() {
    let sim = Sim::new("hold-at=1");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    // Two that wait.
    for number in 0..2 {
        assert_eq!(enc.put(enc.pattern(number)), 0);
    }
    let refused = enc.pattern(2);
    for _ in 0..3 {
        assert_eq!(enc.put(refused), MPP_NOK);
    }
    assert_eq!(sim.free_frame(refused), 0);
    sim.set("hold-at=0");
    for _ in 0..2 {
        let packet = enc.wait();
        assert_eq!(sim.free_frame(sim.input_frame(packet).unwrap()), 0);
        assert_eq!(sim.free_packet(packet), 0);
    }
    enc.close();
    sim.is_clean();
}

#[test]
fn the_output_list_has_no_limit() {
    for input in [BLOCK, NOW] {
        let sim = Sim::new("");
        let enc = Enc::open(&sim, AVC, input, NOW);
        let mut frames = Vec::new();
        for n in 0..40 {
            let frame = enc.pattern(n);
            while enc.put(frame) != 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            frames.push(frame);
        }
        for (n, frame) in (0..).zip(frames) {
            let packet = enc.wait();
            // SAFETY: a packet.
            let stamps = unsafe { ((sim.s.mpp_packet_get_pts)(packet), (sim.s.mpp_packet_get_dts)(packet)) };
            assert_eq!(stamps, (n, 0));
            assert_eq!(sim.input_frame(packet), (input == NOW).then_some(frame));
            sim.free_frame(frame);
            sim.free_packet(packet);
        }
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn nothing_ready_is_told_by_mode_and_release() {
    for (release, timed) in
        [("1.0.0", MPP_ERR_TIMEOUT), ("1.0.9", MPP_ERR_TIMEOUT), ("1.0.10", MPP_NOK), ("1.0.11", MPP_NOK)]
    {
        let sim = Sim::new(&format!("release={release}"));
        for (input, output, code) in
            [(NOW, NOW, MPP_NOK), (NOW, 30, timed), (BLOCK, NOW, MPP_OK), (BLOCK, 30, MPP_OK)]
        {
            let enc = Enc::open(&sim, AVC, input, output);
            assert_eq!(enc.get_packet(), (code, null_mut()), "{release} {input} {output}");
            enc.close();
        }
        sim.is_clean();
    }
}

#[test]
fn short_waits_end_at_once_before_1_0_10() {
    for (release, at_once) in [("1.0.9", true), ("1.0.11", false)] {
        let sim = Sim::new(&format!("release={release}"));
        let enc = Enc::open(&sim, AVC, NOW, 4);
        let wait = || {
            let start = Instant::now();
            assert!(enc.get_packet().1.is_null());
            start.elapsed()
        };
        // The shortest: what else the machine has to do only makes them longer.
        let shortest = (0..25).map(|_| wait()).min().unwrap();
        assert_eq!(shortest < Duration::from_millis(4), at_once, "{release}: {shortest:?}");
        enc.close();
    }
}

#[test]
fn headers_stand_where_the_mode_says() {
    let sim = Sim::new("");
    for (mode, expect) in
        [(MPP_ENC_HEADER_MODE_DEFAULT, [true, false]), (MPP_ENC_HEADER_MODE_EACH_IDR, [true, true])]
    {
        for coding in [AVC, HEVC] {
            let enc = Enc::open(&sim, coding, NOW, NOW);
            assert_eq!(enc.c.control_with(MPP_ENC_SET_HEADER_MODE, mode), 0);
            for (n, expect) in (0..).zip(expect) {
                assert_eq!(enc.c.control(MPP_ENC_SET_IDR_FRAME, null_mut()), 0);
                let data = enc.one(n);
                let has = if coding == AVC {
                    h264_types(&data).contains(&7)
                } else {
                    h265_types(&data).contains(&32)
                };
                assert_eq!(has, expect, "{coding:#x} mode {mode} frame {n}");
            }
            enc.close();
        }
    }
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let mut mode = -1;
    assert_eq!(enc.c.control(MPP_ENC_GET_HEADER_MODE, (&raw mut mode).cast()), 0);
    assert_eq!(mode, MPP_ENC_HEADER_MODE_EACH_IDR);
    assert_eq!(enc.c.control_with(MPP_ENC_SET_HEADER_MODE, 9), MPP_ERR_VALUE);
    enc.close();
    sim.is_clean();
}

#[test]
fn fetching_headers_takes_them_from_the_first_idr_frame() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let buffer = sim.buffer(enc.group, 1024).unwrap();
    let mut packet = null_mut();
    // SAFETY: variables.
    unsafe { assert_eq!((sim.s.mpp_packet_init_with_buffer)(&mut packet, buffer), 0) };
    // A packet over a buffer is full until its length is set to 0.
    sim.is_misuse("don't fit", || assert_eq!(enc.c.control(MPP_ENC_GET_HDR_SYNC, packet.cast()), MPP_NOK));
    // SAFETY: a packet.
    unsafe { (sim.s.mpp_packet_set_length)(packet, 0) };
    assert_eq!(enc.c.control(MPP_ENC_GET_HDR_SYNC, packet.cast()), 0);
    let headers = sim.bytes(packet);
    assert_eq!(h264_types(&headers), [7, 8]);
    sim.free_packet(packet);
    sim.put_buffer(buffer);
    let first = enc.one(0);
    assert_eq!(h264_types(&first), [5]);
    enc.c.control(MPP_ENC_SET_IDR_FRAME, null_mut());
    assert_eq!(h264_types(&enc.one(1)), [7, 8, 5]);
    // Together they decode.
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    let mut pictures = decoder.decode(&[headers, first].concat(), 0).unwrap();
    pictures.extend(decoder.finish().unwrap());
    assert_eq!(pictures.len(), 1);
    enc.close();
}

#[test]
fn a_forced_idr_frame_is_the_next_one_taken() {
    for input in [BLOCK, NOW] {
        let sim = Sim::new("");
        let enc = Enc::open(&sim, AVC, input, NOW);
        assert_eq!(keys(&enc, 0, 4), [0]);
        assert_eq!(enc.c.control(MPP_ENC_SET_IDR_FRAME, null_mut()), 0);
        assert_eq!(keys(&enc, 4, 4), [4]);
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn a_forced_idr_frame_may_be_one_that_waits_already() {
    let sim = Sim::new("hold-at=2");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let mut frames = Vec::new();
    for n in 0..3 {
        let frame = enc.pattern(n);
        while enc.put(frame) != 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        frames.push(frame);
    }
    // Frame 0 is through, 1 and 2 wait.
    let mut first = Some(enc.wait());
    assert_eq!(enc.c.control(MPP_ENC_SET_IDR_FRAME, null_mut()), 0);
    sim.set("hold-at=0");
    let mut intra = Vec::new();
    for frame in frames {
        let packet = first.take().unwrap_or_else(|| enc.wait());
        intra.push(sim.packet_s32(packet, KEY_OUTPUT_INTRA).unwrap());
        assert_eq!(sim.input_frame(packet), Some(frame));
        sim.free_frame(frame);
        sim.free_packet(packet);
    }
    assert_eq!(intra, [1, 1, 0]);
    enc.close();
    sim.is_clean();
}

#[test]
fn vp8_of_the_first_releases() {
    for (release, forced, told) in [("1.0.0", false, false), ("1.0.4", true, false), ("1.0.8", true, true)] {
        let sim = Sim::new(&format!("release={release}"));
        let mut enc = Enc::open(&sim, VP8, BLOCK, NOW);
        let one = |enc: &Enc, n| {
            let frame = enc.pattern(n);
            assert_eq!(enc.put(frame), 0);
            let packet = enc.wait();
            let key = sim.bytes(packet)[0] & 1 == 0;
            let intra = sim.packet_s32(packet, KEY_OUTPUT_INTRA);
            assert_eq!(intra, told.then_some(i32::from(key)), "{release}");
            sim.free_frame(frame);
            sim.free_packet(packet);
            key
        };
        assert!(one(&enc, 0));
        enc.c.control(MPP_ENC_SET_IDR_FRAME, null_mut());
        assert_eq!(one(&enc, 1), forced, "{release}");
        if release == "1.0.0" {
            // A new size is ignored; the frames stay what they were.
            let old = (enc.width, enc.height);
            enc.shape(MPP_FMT_YUV420SP, RawFormat::Nv12, 256, 128, 256, 128);
            assert_eq!(enc.apply(), 0);
            (enc.width, enc.height, enc.stride, enc.rows) = (old.0, old.1, old.0, old.1);
            assert!(!one(&enc, 2));
        }
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn a_request_in_the_frames_meta_has_no_effect() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    enc.one(0);
    let frame = enc.pattern(1);
    // SAFETY: a frame and its meta.
    unsafe {
        assert_eq!((sim.s.mpp_meta_set_s32)((sim.s.mpp_frame_get_meta)(frame), KEY_INPUT_IDR_REQ, 1), 0)
    };
    assert_eq!(enc.put(frame), 0);
    let packet = enc.wait();
    assert_eq!(h264_types(&sim.bytes(packet)), [1]);
    sim.free_frame(frame);
    sim.free_packet(packet);
    enc.close();
    sim.is_clean();
}

#[test]
fn which_changes_make_an_idr_frame() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    enc.set("rc:mode", MPP_ENC_RC_MODE_CBR);
    assert_eq!(enc.apply(), 0);
    let mut n = 0;
    let mut next = |enc: &Enc| {
        n += 1;
        h264_types(&enc.one(n))
    };
    assert_eq!(next(&enc), [7, 8, 5]);
    enc.set("rc:bps_target", 500_000);
    assert_eq!(enc.apply(), 0);
    assert_eq!(next(&enc), [1], "bitrate");
    assert_eq!(enc.apply(), 0);
    assert_eq!(next(&enc), [1], "the same again");
    for (key, value) in [
        ("rc:gop", 100),
        ("rc:mode", MPP_ENC_RC_MODE_VBR),
        ("rc:fps_out_num", 25),
        ("prep:colorprim", 1),
        ("prep:rotation", 2),
        ("prep:mirroring", 1),
    ] {
        enc.set(key, value);
        assert_eq!(enc.apply(), 0);
        assert_eq!(next(&enc), [7, 8, 5], "{key}");
        assert_eq!(next(&enc), [1], "{key}");
    }
    enc.set("rc:fps_chg_no_idr", 1);
    enc.set("rc:fps_out_num", 15);
    assert_eq!(enc.apply(), 0);
    assert_eq!(next(&enc), [7, 8, 1], "headers only");
    enc.close();
    sim.is_clean();
}

#[test]
fn size_and_format_change_without_a_new_init() {
    for coding in [AVC, HEVC] {
        for input in [BLOCK, NOW] {
            let sim = Sim::new("");
            let codec = if coding == AVC { Codec::H264 } else { Codec::H265 };
            let mut enc = Enc::open(&sim, coding, input, NOW);
            let mut decoder = Decoder::new(codec).unwrap();
            let mut sizes = Vec::new();
            for (n, width, height, format, raw) in [
                (0, 320, 240, MPP_FMT_YUV420SP, RawFormat::Nv12),
                (1, 640, 360, MPP_FMT_YUV420P, RawFormat::I420),
                (2, 160, 128, MPP_FMT_YUV422SP, RawFormat::Nv16),
            ] {
                enc.shape(format, raw, width, height, width, height);
                assert_eq!(enc.apply(), 0);
                sizes.extend(decoder.decode(&enc.one(n), 0).unwrap());
            }
            sizes.extend(decoder.finish().unwrap());
            let sizes: Vec<_> = sizes.iter().map(|d| (d.picture.width, d.picture.height)).collect();
            assert_eq!(sizes, [(320, 240), (640, 360), (160, 128)], "{codec:?}");
            enc.close();
            sim.is_clean();
        }
    }
}

#[test]
fn the_bitrate_follows_its_setting() {
    for coding in [AVC, HEVC, VP8] {
        let sim = Sim::new("");
        let enc = Enc::open(&sim, coding, NOW, NOW);
        enc.set("rc:mode", MPP_ENC_RC_MODE_CBR);
        enc.set("rc:fps_out_num", 25);
        let second = |bps: i32, from: u32| {
            for (key, value) in [("bps_target", bps), ("bps_max", bps * 17 / 16), ("bps_min", bps * 15 / 16)]
            {
                enc.set(&format!("rc:{key}"), value);
            }
            assert_eq!(enc.apply(), 0);
            for n in from..from + 12 {
                enc.one(n);
            }
            (from + 12..from + 37).map(|n| enc.one(n).len() * 8).sum::<usize>()
        };
        let (high, low) = (second(2_000_000, 0), second(300_000, 37));
        assert!(
            (1_000_000..4_000_000).contains(&high) && (75_000..700_000).contains(&low),
            "{coding:#x}: {high} {low}"
        );
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn the_end_is_an_empty_packet_with_its_mark() {
    for (input, coding) in [(BLOCK, AVC), (NOW, AVC), (NOW, VP8)] {
        let sim = Sim::new("");
        let enc = Enc::open(&sim, coding, input, NOW);
        enc.one(0);
        let frame = sim.frame();
        // SAFETY: a frame.
        unsafe { (sim.s.mpp_frame_set_eos)(frame, 1) };
        assert_eq!(enc.put(frame), 0);
        let packet = enc.wait();
        // SAFETY: a packet.
        let (length, eos) =
            unsafe { ((sim.s.mpp_packet_get_length)(packet), (sim.s.mpp_packet_get_eos)(packet)) };
        assert_eq!((length, eos), (0, 1));
        assert_eq!(sim.input_frame(packet), (input == NOW).then_some(frame));
        sim.free_frame(frame);
        sim.free_packet(packet);
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn defaults_are_the_librarys() {
    let sim = Sim::new("");
    for (coding, expect) in [
        (
            AVC,
            &[
                ("rc:mode", 0),
                ("rc:bps_target", 2_000_000),
                ("rc:gop", 60),
                ("h264:profile", 66),
                ("h264:level", 31),
                ("rc:qp_min", 8),
                ("rc:qp_max", 48),
                ("rc:qp_init", 26),
            ][..],
        ),
        (
            HEVC,
            &[
                ("rc:mode", 0),
                ("rc:bps_target", 2_000_000),
                ("rc:gop", 60),
                ("h265:profile", 1),
                ("h265:level", 120),
                ("rc:qp_min", 10),
                ("rc:qp_max", 51),
            ],
        ),
        (VP8, &[("rc:mode", 1)]),
    ] {
        let enc = Enc::open(&sim, coding, BLOCK, NOW);
        let c = Ctx::create(&sim);
        assert_eq!(c.init(MPP_CTX_ENC, coding), 0);
        assert_eq!(c.control(MPP_ENC_GET_CFG, enc.cfg.cast()), 0);
        for (key, value) in expect {
            assert_eq!(enc.get(key), *value, "{key}");
        }
        c.destroy();
        enc.close();
    }
    sim.is_clean();
}

#[test]
fn settings_that_make_no_sense_change_nothing() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    for (key, bad, good) in [
        ("prep:width", 321, 320),
        ("prep:height", 8, 240),
        ("prep:hor_stride", 318, 320),
        ("prep:ver_stride", 200, 240),
        ("prep:format", MPP_FMT_YUV420SP_10BIT, MPP_FMT_YUV420SP),
        ("prep:format", MPP_FMT_RGB565, MPP_FMT_YUV420SP),
        ("rc:fps_out_num", 0, 30),
    ] {
        enc.set(key, bad);
        assert_ne!(enc.apply(), 0, "{key} = {bad}");
        enc.set(key, good);
        assert_eq!(enc.apply(), 0);
    }
    enc.set("rc:mode", MPP_ENC_RC_MODE_CBR);
    for key in ["rc:bps_target", "rc:bps_max", "rc:bps_min"] {
        for bad in [999, 200_000_001] {
            let good = enc.get(key);
            enc.set(key, bad);
            assert_ne!(enc.apply(), 0, "{key} = {bad}");
            enc.set(key, good);
        }
        assert_eq!(enc.apply(), 0);
    }
    enc.one(0);
    enc.close();
    sim.is_clean();
}

#[test]
fn an_initial_quantiser_out_of_range_restores_the_old_range() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    for (key, value) in
        [("rc:qp_init", 30), ("rc:qp_min_i", 35), ("rc:qp_max_i", 40), ("rc:qp_min", 33), ("rc:qp_max", 44)]
    {
        enc.set(key, value);
    }
    assert_eq!(enc.apply(), 0);
    assert_eq!(enc.c.control(MPP_ENC_GET_CFG, enc.cfg.cast()), 0);
    let now: Vec<_> = ["qp_init", "qp_min_i", "qp_max_i", "qp_min", "qp_max"]
        .iter()
        .map(|k| enc.get(&format!("rc:{k}")))
        .collect();
    assert_eq!(now, [20, 8, 48, 8, 48]);
    enc.close();
    sim.is_clean();
}

#[test]
fn formats_depend_on_the_codec() {
    let sim = Sim::new("");
    for (coding, good, bad) in [
        (MPP_VIDEO_CODING_MJPEG, MPP_FMT_YUV422_UYVY, MPP_FMT_YUV422SP),
        (VP8, MPP_FMT_YUV420P, MPP_FMT_YUV444SP),
    ] {
        let enc = Enc::open(&sim, coding, BLOCK, NOW);
        enc.set("prep:hor_stride", 640);
        enc.set("prep:format", good);
        assert_eq!(enc.apply(), 0);
        enc.set("prep:format", bad);
        assert_ne!(enc.apply(), 0);
        enc.close();
    }
    sim.is_clean();
}

#[test]
fn each_packet_tells_its_quantiser_and_layer() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let mut refs = null_mut();
    let layer = |temporal_id, is_non_ref| MppEncRefStFrmCfg {
        is_non_ref,
        temporal_id,
        ..MppEncRefStFrmCfg::default()
    };
    let mut pattern = [layer(0, 0), layer(1, 1), layer(0, 0)];
    // SAFETY: variables.
    unsafe {
        assert_eq!((sim.s.mpp_enc_ref_cfg_init)(&mut refs), 0);
        assert_ne!((sim.s.mpp_enc_ref_cfg_check)(refs), 0);
        assert_eq!((sim.s.mpp_enc_ref_cfg_set_cfg_cnt)(refs, 0, 3), 0);
        assert_eq!((sim.s.mpp_enc_ref_cfg_add_st_cfg)(refs, 3, pattern.as_mut_ptr()), 0);
        assert_ne!((sim.s.mpp_enc_ref_cfg_add_st_cfg)(refs, 1, pattern.as_mut_ptr()), 0);
        assert_eq!((sim.s.mpp_enc_ref_cfg_check)(refs), 0);
    }
    assert_eq!(enc.c.control(MPP_ENC_SET_REF_CFG, refs.cast()), 0);
    let mut layers = Vec::new();
    for n in 0..5 {
        let frame = enc.pattern(n);
        assert_eq!(enc.put(frame), 0);
        let packet = enc.wait();
        assert_eq!(sim.packet_s32(packet, KEY_ENC_AVERAGE_QP), Some(20));
        layers.push(sim.packet_s32(packet, KEY_TEMPORAL_ID).unwrap());
        sim.free_frame(frame);
        sim.free_packet(packet);
    }
    assert_eq!(layers, [0, 1, 0, 1, 0]);
    // SAFETY: a variable.
    unsafe { assert_eq!((sim.s.mpp_enc_ref_cfg_deinit)(&mut refs), 0) };
    enc.close();
    sim.is_clean();
}

#[test]
fn rotation_turns_the_picture() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    enc.set("prep:rotation", MPP_ENC_ROT_90);
    assert_eq!(enc.apply(), 0);
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    let mut pictures = decoder.decode(&enc.one(3), 0).unwrap();
    pictures.extend(decoder.finish().unwrap());
    let want = sim_codec::Picture::test_pattern(320, 240, 3).rotated(1);
    assert!(sim_codec::psnr(&want, &pictures[0].picture).unwrap()[0] > 30.0);
    enc.close();
    sim.is_clean();
}

#[test]
fn two_cores_work_side_by_side() {
    let most = |input, cores: u32| {
        let sim = Sim::new(&format!("latency-us=20000,codec=instant,hold-at=1,cores={cores}"));
        let enc = Enc::open(&sim, AVC, input, NOW);
        if input == BLOCK {
            sim.set("hold-at=0");
        }
        let frames: Vec<_> = (0..8).map(|n| enc.pattern(n)).collect();
        let start = Instant::now();
        let (mut put, mut got) = (0, 0);
        while got < frames.len() {
            if put < frames.len() && enc.put(frames[put]) == 0 {
                put += 1;
            } else {
                // The queue is full: there is work for all cores.
                sim.set("hold-at=0");
            }
            let (_, packet) = enc.get_packet();
            if packet.is_null() {
                std::thread::sleep(Duration::from_micros(200));
            } else {
                sim.free_packet(packet);
                got += 1;
            }
        }
        // No core is faster than it is.
        let least = Duration::from_millis(20 * 8 / u64::from(cores));
        assert!(start.elapsed() >= least, "{:?}", start.elapsed());
        frames.into_iter().for_each(|f| assert_eq!(sim.free_frame(f), 0));
        enc.close();
        sim.is_clean();
        sim.count("side-by-side")
    };
    assert_eq!([most(BLOCK, 2), most(NOW, 1), most(NOW, 2)], [1, 1, 2]);
}
