// SPDX-License-Identifier: MIT OR Apache-2.0

//! Streams go in, pictures come out that look like what was encoded; and what the decoder insists on.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::dec::*;
use common::*;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Codec, Colour, EncoderConfig, Picture, psnr};
use std::ptr::null_mut;
use std::time::Duration;

const CODECS: [(i32, Codec); 9] = [
    (MPP_VIDEO_CODING_AVC, Codec::H264),
    (MPP_VIDEO_CODING_HEVC, Codec::H265),
    (MPP_VIDEO_CODING_VP8, Codec::Vp8),
    (MPP_VIDEO_CODING_VP9, Codec::Vp9),
    (MPP_VIDEO_CODING_AV1, Codec::Av1),
    (MPP_VIDEO_CODING_MPEG2, Codec::Mpeg1),
    (MPP_VIDEO_CODING_MPEG2, Codec::Mpeg2),
    (MPP_VIDEO_CODING_MPEG4, Codec::Mpeg4),
    (MPP_VIDEO_CODING_H263, Codec::H263),
];

fn check(decoded: &[(Told, Option<Picture>)], config: EncoderConfig, count: usize) {
    let codec = config.codec;
    let pictures: Vec<_> = decoded.iter().filter_map(|(t, p)| Some((t, p.as_ref()?))).collect();
    assert_eq!(pictures.len(), count, "{codec:?}");
    for (n, (told, picture)) in (0..).zip(pictures) {
        assert_eq!((told.pts, told.errinfo), (i64::from(n), 0), "{codec:?}");
        assert_eq!((told.width as usize, told.height as usize), (config.width, config.height));
        let want = Picture::test_pattern(config.width, config.height, n).with_depth(config.depth);
        let least = psnr(&want, picture).unwrap().into_iter().fold(f64::INFINITY, f64::min);
        assert!(least > 30.0, "{codec:?} {n}: {least:.1} dB");
    }
    assert!(decoded.last().unwrap().0.eos);
    assert_eq!(decoded.iter().filter(|(t, _)| t.eos).count(), 1);
}

#[test]
fn every_codec() {
    for (coding, codec) in CODECS {
        let sim = Sim::new("");
        let config = good(codec, 352, 288);
        let mut dec = Dec::open(&sim, coding);
        let decoded = dec.all(&stream(config, 8));
        check(&decoded, config, 8);
        assert_eq!(dec.changes.len(), 1, "{codec:?}");
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn ten_bits_come_packed() {
    for (coding, codec) in [(MPP_VIDEO_CODING_HEVC, Codec::H265), (MPP_VIDEO_CODING_VP9, Codec::Vp9)] {
        let sim = Sim::new("");
        let config = EncoderConfig { depth: 10, ..good(codec, 320, 240) };
        let mut dec = Dec::open(&sim, coding);
        check(&dec.all(&stream(config, 3)), config, 3);
        assert_eq!(dec.changes[0].fmt, MPP_FMT_YUV420SP_10BIT);
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn pictures_come_in_the_order_of_display() {
    let sim = Sim::new("");
    let config = EncoderConfig { b_frames: 2, ..good(Codec::H264, 320, 240) };
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    check(&dec.all(&stream(config, 10)), config, 10);
    dec.close();
    sim.is_clean();
}

#[test]
fn any_time_stamp_passes() {
    let sim = Sim::new("");
    let mut coded = stream(good(Codec::H264, 320, 240), 5);
    let stamps = [i64::MIN, -1, 0, i64::MAX, 7];
    coded.iter_mut().zip(stamps).for_each(|(c, pts)| c.pts = pts);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let decoded = dec.all(&coded);
    let seen: Vec<_> = decoded.iter().filter(|(t, _)| t.buffer).map(|(t, _)| t.pts).collect();
    assert_eq!(seen, stamps);
    dec.close();
    sim.is_clean();
}

/// Puts until the queue is full or `most` are in; how many were taken.
fn fill(dec: &Dec, data: &[u8], most: usize) -> usize {
    let (mut taken, mut refused) = (0, 0);
    // The worker takes some out at first: only a full queue that stays full counts. Counted and not timed, as the worker
    // may have to wait for a core like this thread.
    while taken < most && refused < 100 {
        match dec.put(data, 0, false) {
            0 => (taken, refused) = (taken + 1, 0),
            code => {
                assert_eq!(code, MPP_ERR_BUFFER_FULL);
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    taken
}

#[test]
fn nothing_moves_until_a_change_of_format_is_answered() {
    let sim = Sim::new("");
    let coded = stream(good(Codec::H264, 320, 240), 1);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let taken = fill(&dec, &coded[0].data, 20);
    assert!((1..=6).contains(&taken), "{taken} packets were taken");
    let (code, frame) = dec.get_frame();
    assert_eq!(code, 0);
    let told = dec.told(frame);
    assert!(told.info_change && !told.buffer && told.buf_size > 320 * 240 * 3 / 2);
    assert_eq!(dec.get_frame(), (0, null_mut()));
    assert_eq!(dec.put(&coded[0].data, 0, false), MPP_ERR_BUFFER_FULL);
    dec.answer(told);
    assert_eq!(sim.free_frame(frame), 0);
    for _ in 0..taken {
        assert!(dec.next(PATIENCE).unwrap().1.is_some());
    }
    assert_eq!(dec.put(&coded[0].data, 0, false), 0);
    dec.close();
    sim.is_clean();
}

#[test]
fn an_answer_without_a_question_is_noticed() {
    let sim = Sim::new("");
    let dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    sim.is_misuse("no change was announced", || dec.c.control(MPP_DEC_SET_INFO_CHANGE_READY, null_mut()));
    dec.close();
}

#[test]
fn a_change_of_size_is_announced_and_the_group_serves_again() {
    for (coding, codec) in [
        (MPP_VIDEO_CODING_AVC, Codec::H264),
        (MPP_VIDEO_CODING_HEVC, Codec::H265),
        (MPP_VIDEO_CODING_VP8, Codec::Vp8),
    ] {
        let sim = Sim::new("");
        let mut dec = Dec::open(&sim, coding);
        let mut coded = stream(good(codec, 320, 240), 3);
        coded.extend(stream(good(codec, 640, 360), 3));
        let decoded = dec.all(&coded);
        let sizes: Vec<_> =
            decoded.iter().filter(|(t, _)| t.buffer).map(|(t, _)| (t.width, t.height)).collect();
        assert_eq!(sizes, [[(320, 240); 3], [(640, 360); 3]].concat(), "{codec:?}");
        assert_eq!(dec.changes.len(), 2);
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn a_smaller_limit_left_on_the_group_wedges_the_decoder() {
    let sim = Sim::new("");
    let coded = stream(good(Codec::H264, 640, 360), 1);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    assert_eq!(dec.put(&coded[0].data, 0, false), 0);
    let told = loop {
        let (_, frame) = dec.get_frame();
        if !frame.is_null() {
            let told = dec.told(frame);
            assert_eq!(sim.free_frame(frame), 0);
            break told;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    dec.answer(Told { buf_size: told.buf_size / 2, ..told.clone() });
    assert!(dec.next(200).is_none());
    // SAFETY: a group.
    assert_eq!(unsafe { (sim.s.mpp_buffer_group_limit_config)(dec.group, told.buf_size, 12) }, 0);
    assert!(dec.next(PATIENCE).is_some());
    dec.close();
    sim.is_clean();
}

#[test]
fn too_few_buffers_stop_the_decoder() {
    let coded = stream(good(Codec::H264, 320, 240), 8);
    for (count, flows) in [(3, false), (8, true)] {
        let sim = Sim::new("");
        let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
        dec.count = count;
        let mut seen = 0;
        // Those that come are waited for as long as it takes.
        let patience = if flows { PATIENCE } else { 100 };
        for packet in &coded {
            for _ in 0..patience {
                if dec.put(&packet.data, packet.pts, false) == 0 {
                    break;
                }
                seen += usize::from(dec.next(2).is_some());
            }
        }
        while seen < 8 && dec.next(2 * patience).is_some() {
            seen += 1;
        }
        assert_eq!(seen == 8, flows, "{count} buffers: {seen} pictures");
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn buffers_of_the_application_are_used() {
    let sim = Sim::new("");
    let config = good(Codec::H264, 320, 240);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    sim.put_group(dec.group);
    dec.group = sim.group(MPP_BUFFER_TYPE_EXT_DMA, MPP_BUFFER_EXTERNAL);
    let fds: Vec<_> = (0..8).map(|_| memfd(1 << 19)).collect();
    for fd in &fds {
        let info = MppBufferInfo {
            buffer_type: MPP_BUFFER_TYPE_EXT_DMA,
            size: 1 << 19,
            fd: std::os::fd::AsRawFd::as_raw_fd(fd),
            ..MppBufferInfo::default()
        };
        sim.import(dec.group, info, true).unwrap();
    }
    // SAFETY: a group.
    unsafe {
        assert_eq!((sim.s.mpp_buffer_group_unused)(dec.group), 8);
        assert_eq!((sim.s.mpp_buffer_group_usage)(dec.group), 8 << 19);
    }
    let coded = stream(config, 6);
    let mut pictures = 0;
    for packet in &coded {
        while dec.put(&packet.data, packet.pts, false) != 0 {}
        for _ in 0..PATIENCE {
            let (_, frame) = dec.get_frame();
            if frame.is_null() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let told = dec.told(frame);
            if told.info_change {
                // No clear: the committed buffers are to stay.
                assert_eq!(dec.c.control(MPP_DEC_SET_EXT_BUF_GROUP, dec.group.cast()), 0);
                assert_eq!(dec.c.control(MPP_DEC_SET_INFO_CHANGE_READY, null_mut()), 0);
                assert_eq!(sim.free_frame(frame), 0);
                continue;
            }
            let want = Picture::test_pattern(320, 240, pictures);
            assert!(psnr(&want, &dec.picture(frame)).unwrap()[0] > 30.0);
            assert_eq!(sim.free_frame(frame), 0);
            pictures += 1;
            break;
        }
    }
    assert_eq!(pictures, 6);
    assert_eq!(sim.count("allocated"), 0);
    dec.close();
    sim.is_clean();
}

#[test]
fn the_context_goes_on_after_a_reset_without_a_new_announcement() {
    let sim = Sim::new("");
    let config = good(Codec::H264, 320, 240);
    let coded = stream(EncoderConfig { gop: 3, ..config }, 6);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    check(&dec.all(&coded), config, 6);
    assert_eq!(dec.c.reset(), 0);
    // A delta picture is no beginning: nothing comes until the next key frame.
    let decoded = dec.all(&coded[1..]);
    let stamps: Vec<_> = decoded.iter().filter(|(t, _)| t.buffer).map(|(t, _)| (t.pts, t.errinfo)).collect();
    assert_eq!(stamps.last(), Some(&(5, 0)));
    assert!(!stamps.iter().any(|(pts, _)| *pts < 3), "{stamps:?}");
    assert_eq!(dec.changes.len(), 1);
    dec.close();
    sim.is_clean();
}

#[test]
fn a_reset_while_an_announcement_waits_makes_it_come_again() {
    let sim = Sim::new("");
    let config = good(Codec::H264, 320, 240);
    let coded = stream(config, 2);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    fill(&dec, &coded[0].data, 3);
    assert_eq!(dec.c.reset(), 0);
    check(&dec.all(&coded), config, 2);
    dec.close();
    sim.is_clean();
}

#[test]
fn an_empty_packet_is_only_for_the_end() {
    let sim = Sim::new("");
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    sim.is_misuse("only for the end", || assert_eq!(dec.put(&[], 0, false), MPP_NOK));
    assert_eq!(dec.put(&[], 0, true), 0);
    let (told, picture) = dec.next(PATIENCE).unwrap();
    assert!(told.eos && picture.is_none() && told.width == 0);
    dec.close();
}

#[test]
fn nothing_ready_is_told_by_the_release() {
    for (release, timed) in
        [("1.0.0", MPP_ERR_TIMEOUT), ("1.0.9", MPP_ERR_TIMEOUT), ("1.0.10", MPP_NOK), ("1.0.11", MPP_NOK)]
    {
        let sim = Sim::new(&format!("release={release}"));
        let dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
        assert_eq!(dec.get_frame(), (0, null_mut()), "{release}");
        assert_eq!(dec.c.control_with(MPP_SET_OUTPUT_TIMEOUT, 20_i64), 0);
        assert_eq!(dec.get_frame(), (timed, null_mut()), "{release}");
        dec.close();
    }
}

#[test]
fn the_group_is_set_after_init() {
    let sim = Sim::new("");
    let c = Ctx::create(&sim);
    let group = sim.internal_group();
    sim.is_misuse("mpp_init comes first", || {
        assert_eq!(c.control(MPP_DEC_SET_EXT_BUF_GROUP, group.cast()), MPP_ERR_INIT);
    });
    assert_eq!(c.init(MPP_CTX_DEC, MPP_VIDEO_CODING_AVC), 0);
    assert_eq!(c.control(MPP_DEC_SET_EXT_BUF_GROUP, group.cast()), 0);
    c.reset();
    c.destroy();
    sim.put_group(group);
}

#[test]
fn strides_are_those_of_the_release() {
    for (release, stride, rows) in [("1.0.4", 768, 480), ("2025-02", 640, 512), ("1.0.9", 640, 480)] {
        let sim = Sim::new(&format!("release={release}"));
        let config = good(Codec::H265, 640, 480);
        let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_HEVC);
        check(&dec.all(&stream(config, 2)), config, 2);
        assert_eq!((dec.changes[0].hor_stride, dec.changes[0].ver_stride), (stride, rows), "{release}");
        dec.close();
        sim.is_clean();
    }
}

#[test]
fn colours_are_on_the_frames() {
    let sim = Sim::new("");
    let colour = Colour { range: 1, primaries: 9, transfer: 16, matrix: 9 };
    let coded = stream(EncoderConfig { colour, ..good(Codec::H265, 320, 240) }, 1);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_HEVC);
    assert_eq!(dec.put(&coded[0].data, 0, false), 0);
    let frame = loop {
        let (_, frame) = dec.get_frame();
        if frame.is_null() {
            std::thread::sleep(Duration::from_millis(1));
        } else if dec.told(frame).info_change {
            let told = dec.told(frame);
            dec.answer(told);
            sim.free_frame(frame);
        } else {
            break frame;
        }
    };
    // SAFETY: a frame.
    unsafe {
        assert_eq!((sim.s.mpp_frame_get_color_range)(frame), 1);
        assert_eq!((sim.s.mpp_frame_get_color_primaries)(frame), 9);
        assert_eq!((sim.s.mpp_frame_get_color_trc)(frame), 16);
        assert_eq!((sim.s.mpp_frame_get_colorspace)(frame), 9);
    }
    sim.free_frame(frame);
    dec.close();
    sim.is_clean();
}

#[test]
fn broken_input_is_marked_and_the_next_key_frame_heals() {
    let sim = Sim::new("");
    let config = EncoderConfig { gop: 6, ..good(Codec::H264, 320, 240) };
    let mut coded = stream(config, 18);
    coded[8].data.iter_mut().skip(12).for_each(|b| *b ^= 0x55);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let decoded = dec.all(&coded);
    assert!(decoded.iter().any(|(t, _)| (8..12).contains(&t.pts) && t.errinfo != 0));
    assert!(
        decoded.iter().filter(|(t, _)| t.buffer && (t.pts < 8 || t.pts >= 12)).all(|(t, _)| t.errinfo == 0)
    );
    assert_eq!(decoded.iter().filter(|(t, _)| t.pts >= 12 && t.buffer).count(), 6);
    dec.close();
    sim.is_clean();
}

#[test]
fn a_hardware_error_marks_the_frame() {
    let sim = Sim::new("hw-error-at=3");
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let decoded = dec.all(&stream(good(Codec::H264, 320, 240), 5));
    let bad: Vec<_> = decoded
        .iter()
        .filter(|(t, _)| t.errinfo & MPP_FRAME_ERR_DEC_HW_ERR != 0)
        .map(|(t, _)| t.pts)
        .collect();
    assert_eq!(bad, [2]);
    dec.close();
    sim.is_clean();
}

#[test]
fn a_wedged_decoder_fills_up_and_can_still_be_ended() {
    let sim = Sim::new("wedge-at=1");
    let dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let coded = stream(good(Codec::H264, 320, 240), 1);
    assert!(fill(&dec, &coded[0].data, 20) <= 4);
    assert_eq!(dec.get_frame(), (0, null_mut()));
    dec.close();
    sim.is_clean();
}

#[test]
fn the_first_release_wants_a_reset_before_the_end() {
    for (coding, codec, bad) in
        [(MPP_VIDEO_CODING_HEVC, Codec::H265, true), (MPP_VIDEO_CODING_AVC, Codec::H264, false)]
    {
        let sim = Sim::new("release=1.0.0");
        let mut dec = Dec::open(&sim, coding);
        dec.all(&stream(good(codec, 320, 240), 2));
        let group = dec.group;
        assert_eq!(dec.c.destroy(), 0);
        sim.put_group(group);
        assert_eq!(sim.count("misuse"), i64::from(bad), "{codec:?}");
    }
}

#[test]
fn codec_data_is_understood_in_both_forms() {
    let sim = Sim::new("");
    let config = EncoderConfig { headers: sim_codec::HeaderPolicy::Never, ..good(Codec::H264, 320, 240) };
    let headers = sim_codec::Encoder::new(config).unwrap().headers().to_vec();
    let coded = stream(config, 2);
    let mut dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
    let mut packet = null_mut();
    // SAFETY: variables; the headers live until the packet was put.
    unsafe {
        (sim.s.mpp_packet_init)(&mut packet, headers.as_ptr().cast_mut().cast(), headers.len());
        assert_eq!((sim.s.mpp_packet_set_extra_data)(packet), 0);
        assert_eq!(dec.c.api.decode_put_packet.unwrap()(dec.c.ctx, packet), 0);
        (sim.s.mpp_packet_deinit)(&mut packet);
    }
    check(&dec.all(&coded), config, 2);
    dec.close();
    sim.is_clean();
}

#[test]
fn a_fast_application_sees_no_thread_left() {
    let sim = Sim::new("");
    let coded = stream(good(Codec::H264, 320, 240), 1);
    for _ in 0..100 {
        let dec = Dec::open(&sim, MPP_VIDEO_CODING_AVC);
        assert_eq!(dec.put(&coded[0].data, 0, false), 0);
        dec.close();
    }
    sim.is_clean();
}
