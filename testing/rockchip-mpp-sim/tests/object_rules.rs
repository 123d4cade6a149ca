// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames, packets, metas, configurations, buffers: what they insist on, and how releases differ.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

#[test]
fn a_get_consumes_the_value() {
    let sim = Sim::new("");
    let s = sim.s;
    let frame = sim.frame();
    let mut value = 0;
    // SAFETY: a frame, its meta and variables.
    unsafe {
        assert_eq!((s.mpp_frame_has_meta)(frame), 0);
        let meta = (s.mpp_frame_get_meta)(frame);
        assert_eq!((s.mpp_frame_has_meta)(frame), 1);
        assert_eq!((s.mpp_meta_set_s32)(meta, KEY_OUTPUT_INTRA, 5), 0);
        assert_eq!((s.mpp_meta_size)(meta), 1);
        assert_eq!(((s.mpp_meta_get_s32)(meta, KEY_OUTPUT_INTRA, &mut value), value), (0, 5));
        assert_eq!((s.mpp_meta_get_s32)(meta, KEY_OUTPUT_INTRA, &mut value), MPP_NOK);
        assert_eq!(((s.mpp_meta_get_s32_d.unwrap())(meta, KEY_OUTPUT_INTRA, &mut value, 9), value), (0, 9));
    }
    sim.free_frame(frame);
    sim.is_clean();
}

#[test]
fn a_value_of_the_wrong_kind_depends_on_the_release() {
    for (release, code) in
        [("1.0.0", MPP_NOK), ("1.0.8", MPP_NOK), ("1.0.9", 0), ("1.0.10", 0), ("1.0.11", MPP_NOK)]
    {
        let sim = Sim::new(&format!("release={release}"));
        let frame = sim.frame();
        // SAFETY: a frame and its meta.
        unsafe {
            let meta = (sim.s.mpp_frame_get_meta)(frame);
            assert_eq!((sim.s.mpp_meta_set_s64)(meta, KEY_OUTPUT_INTRA, 1), code, "{release}");
        }
        sim.free_frame(frame);
    }
}

#[test]
fn keys_that_a_release_does_not_know() {
    for (key, before) in [
        (KEY_INPUT_IDR_REQ, "1.0.4"),
        (KEY_ENC_BPS_RT, "1.0.4"),
        (KEY_ENC_START_QP, "1.0.0"),
        (KEY_OUTPUT_INTRA, "none"),
    ] {
        for release in ["1.0.0", "1.0.4", "1.0.8", "1.0.11"] {
            let sim = Sim::new(&format!("release={release}"));
            let frame = sim.frame();
            // SAFETY: a frame and its meta.
            let code = unsafe { (sim.s.mpp_meta_set_s32)((sim.s.mpp_frame_get_meta)(frame), key, 1) };
            let number = |v: &str| v.rsplit('.').next().unwrap().parse::<u32>().ok();
            let unknown = number(before).is_some_and(|last| number(release).unwrap() <= last);
            assert_eq!(code == MPP_NOK, unknown, "{key:#x} in {release}");
            sim.free_frame(frame);
        }
    }
    let sim = Sim::new("");
    let frame = sim.frame();
    // SAFETY: a frame and its meta.
    unsafe {
        assert_eq!((sim.s.mpp_meta_set_s32)((sim.s.mpp_frame_get_meta)(frame), 0x7878_7878, 1), MPP_NOK)
    };
    sim.free_frame(frame);
}

#[test]
fn user_data_is_read_when_it_is_set() {
    let sim = Sim::new("");
    let frame = sim.frame();
    let mut text = *b"hello";
    let mut uuid = [7_u8; 16];
    let mut data = MppEncUserDataFull { len: 5, uuid: uuid.as_mut_ptr(), pdata: text.as_mut_ptr().cast() };
    let mut set = MppEncUserDataSet { count: 1, datas: &mut data };
    // SAFETY: a frame, its meta, and structs that live long enough.
    unsafe {
        let meta = (sim.s.mpp_frame_get_meta)(frame);
        assert_eq!((sim.s.mpp_meta_set_ptr)(meta, KEY_USER_DATAS, (&raw mut set).cast()), 0);
    }
    sim.free_frame(frame);
    sim.is_clean();
}

/// The code of setting an encoder's key.
fn set(sim: &Sim, name: &str) -> [i32; 3] {
    let mut cfg = null_mut();
    // SAFETY: variables and texts that end with zero.
    unsafe {
        assert_eq!((sim.s.mpp_enc_cfg_init)(&mut cfg), 0);
        let name = key(name);
        let codes = [
            (sim.s.mpp_enc_cfg_set_s32)(cfg, name.as_ptr(), 1),
            (sim.s.mpp_enc_cfg_set_u32)(cfg, name.as_ptr(), 1),
            (sim.s.mpp_enc_cfg_set_s64)(cfg, name.as_ptr(), 1),
        ];
        assert_eq!((sim.s.mpp_enc_cfg_deinit)(cfg), 0);
        codes
    }
}

#[test]
fn keys_have_a_type() {
    let sim = Sim::new("");
    assert_eq!(set(&sim, "rc:bps_target"), [0, 0, MPP_NOK]);
    assert_eq!(set(&sim, "rc:max_reenc_times"), [0, 0, MPP_NOK]);
    assert_eq!(set(&sim, "rc:ref_cfg"), [MPP_NOK; 3]);
    sim.is_clean();
}

#[test]
fn unknown_keys_are_refused() {
    let sim = Sim::new("");
    for name in ["rc:drop_threshold", "rc:nothing", "", "prep", "base:type"] {
        assert_eq!(set(&sim, name), [MPP_NOK; 3], "{name}");
    }
    sim.is_clean();
}

#[test]
fn keys_come_with_releases() {
    for (name, first) in [
        ("h265:tier", "1.0.8"),
        ("prep:format_out", "1.0.8"),
        ("prep:chroma_ds_mode", "1.0.8"),
        ("rc:fps_chg_no_idr", "1.0.8"),
        ("rc:fps_in_denom", "1.0.8"),
        ("hw:qbias_en", "1.0.4"),
        ("h264:vui_en", "1.0.11"),
        ("tune:se_mode", "1.0.11"),
        ("rc:fps_in_denorm", "1.0.0"),
        ("rc:fps_out_denorm", "1.0.0"),
    ] {
        for release in ["1.0.0", "1.0.4", "1.0.8", "1.0.9", "1.0.10", "1.0.11"] {
            let sim = Sim::new(&format!("release={release}"));
            let number = |v: &str| v.rsplit('.').next().unwrap().parse::<u32>().unwrap();
            assert_eq!(set(&sim, name)[0] == 0, number(release) >= number(first), "{name} in {release}");
        }
    }
}

#[test]
fn decoder_keys_come_with_releases() {
    for (name, release, known) in [
        ("base:disable_dpb_chk", "1.0.4", false),
        ("base:disable_dpb_chk", "1.0.8", true),
        ("base:dis_err_clr_mark", "1.0.8", false),
        ("base:dis_err_clr_mark", "1.0.9", true),
        ("base:split_parse", "1.0.0", true),
        ("base:nothing", "1.0.11", false),
    ] {
        let sim = Sim::new(&format!("release={release}"));
        let mut cfg = null_mut();
        // SAFETY: variables and a text that ends with zero.
        unsafe {
            assert_eq!((sim.s.mpp_dec_cfg_init)(&mut cfg), 0);
            assert_eq!(
                (sim.s.mpp_dec_cfg_set_u32)(cfg, key(name).as_ptr(), 1) == 0,
                known,
                "{name} in {release}"
            );
            assert_eq!((sim.s.mpp_dec_cfg_deinit)(cfg), 0);
        }
        sim.is_clean();
    }
}

#[test]
fn decoder_defaults_are_the_librarys() {
    let sim = Sim::new("");
    let c = Ctx::create(&sim);
    assert_eq!(c.init(MPP_CTX_DEC, MPP_VIDEO_CODING_AVC), 0);
    let mut cfg = null_mut();
    // SAFETY: variables and texts that end with zero.
    unsafe {
        assert_eq!((sim.s.mpp_dec_cfg_init)(&mut cfg), 0);
        assert_eq!(c.control(MPP_DEC_GET_CFG, cfg.cast()), 0);
        for (name, expect) in [
            ("split_parse", 0),
            ("fast_parse", 1),
            ("enable_vproc", 1),
            ("enable_fast_play", 1),
            ("disable_error", 0),
            ("fast_out", 0),
            ("enable_hdr_meta", 0),
        ] {
            let mut value = 77;
            assert_eq!(
                (sim.s.mpp_dec_cfg_get_u32)(cfg, key(&format!("base:{name}")).as_ptr(), &mut value),
                0
            );
            assert_eq!(value, expect, "{name}");
        }
        assert_eq!((sim.s.mpp_dec_cfg_deinit)(cfg), 0);
    }
    c.destroy();
    sim.is_clean();
}

fn info(kind: i32, size: usize, fd: i32) -> MppBufferInfo {
    MppBufferInfo { buffer_type: kind, size, fd, ..MppBufferInfo::default() }
}

#[test]
fn an_import_takes_an_fd_and_no_pointer() {
    let sim = Sim::new("");
    let fd = memfd(4096);
    let mut byte = 0_u8;
    let good = info(MPP_BUFFER_TYPE_EXT_DMA, 4096, fd.as_raw_fd());
    for bad in [
        MppBufferInfo { ptr: (&raw mut byte).cast(), ..good },
        MppBufferInfo { size: 0, ..good },
        MppBufferInfo { fd: -1, ..good },
    ] {
        sim.is_misuse("wants a size, an fd and no pointer", || {
            assert_eq!(sim.import(null_mut(), bad, false), Err(MPP_NOK))
        });
    }
    assert_eq!(
        sim.import(null_mut(), info(MPP_BUFFER_TYPE_NORMAL, 4096, fd.as_raw_fd()), false),
        Err(MPP_NOK)
    );
    let buffer = sim.import(null_mut(), good, false).unwrap();
    sim.memory(buffer)[17] = 42;
    let mut told = MppBufferInfo::default();
    let mut read = [0_u8; 2];
    // SAFETY: a buffer and variables.
    unsafe {
        assert_eq!((sim.s.mpp_buffer_info_get_with_caller)(buffer, &mut told, TAG), 0);
        assert_eq!((sim.s.mpp_buffer_read_with_caller)(buffer, 16, read.as_mut_ptr().cast(), 2, TAG), 0);
        assert_ne!((sim.s.mpp_buffer_read_with_caller)(buffer, 4095, read.as_mut_ptr().cast(), 2, TAG), 0);
    }
    assert_eq!((told.size, told.fd, read), (4096, fd.as_raw_fd(), [0, 42]));
    sim.put_buffer(buffer);
}

#[test]
fn a_foreign_fd_is_borrowed_and_others_are_duplicated() {
    let sim = Sim::new("");
    for (kind, survives) in
        [(MPP_BUFFER_TYPE_EXT_DMA, false), (MPP_BUFFER_TYPE_DRM, true), (MPP_BUFFER_TYPE_DMA_HEAP, true)]
    {
        let fd = memfd(4096);
        let buffer = sim.import(null_mut(), info(kind, 4096, fd.as_raw_fd()), false).unwrap();
        // SAFETY: a buffer.
        let own = unsafe { (sim.s.mpp_buffer_get_fd_with_caller)(buffer, TAG) };
        assert_eq!(own == fd.as_raw_fd(), !survives);
        if survives {
            drop(fd);
            sim.memory(buffer)[0] = 1;
        }
        sim.put_buffer(buffer);
    }
    sim.is_clean();
}

#[test]
fn memory_that_was_closed_or_is_too_short_fails_in_the_hardware() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, MPP_VIDEO_CODING_AVC, MPP_POLL_BLOCK, MPP_POLL_NON_BLOCK);
    for length in [320 * 240, 320 * 240 * 2] {
        let fd = memfd(length);
        let size = if length == 320 * 240 { 320 * 240 } else { 320 * 240 * 3 };
        let buffer =
            sim.import(null_mut(), info(MPP_BUFFER_TYPE_EXT_DMA, size, fd.as_raw_fd()), false).unwrap();
        let frame = sim.frame();
        // SAFETY: a frame and a buffer.
        unsafe { (sim.s.mpp_frame_set_buffer)(frame, buffer) };
        sim.put_buffer(buffer);
        assert_eq!(enc.put(frame), 0);
        let packet = enc.wait();
        // SAFETY: a packet.
        let told = unsafe { ((sim.s.mpp_packet_get_length)(packet), (sim.s.mpp_packet_get_eos)(packet)) };
        assert_eq!(told, (0, 0));
        sim.free_frame(frame);
        sim.free_packet(packet);
    }
    enc.one(5);
    enc.close();
    sim.is_clean();
}

#[test]
fn groups_keep_their_limits() {
    let sim = Sim::new("");
    let group = sim.internal_group();
    // SAFETY: a group.
    unsafe { assert_eq!((sim.s.mpp_buffer_group_limit_config)(group, 8192, 2), 0) };
    let (a, b) = (sim.buffer(group, 8192).unwrap(), sim.buffer(group, 100).unwrap());
    assert_eq!(sim.buffer(group, 100), Err(MPP_NOK));
    sim.put_buffer(a);
    assert_eq!(sim.buffer(group, 9000), Err(MPP_NOK));
    let again = sim.buffer(group, 8192).unwrap();
    assert_eq!(again, a, "buffers are used again");
    assert_eq!(sim.count("allocated"), 2);
    sim.put_buffer(again);
    // SAFETY: a group.
    unsafe {
        assert_eq!(
            ((sim.s.mpp_buffer_group_unused)(group), (sim.s.mpp_buffer_group_usage)(group)),
            (1, 16384)
        );
        assert_eq!((sim.s.mpp_buffer_group_mode)(group), MPP_BUFFER_INTERNAL);
        assert_eq!((sim.s.mpp_buffer_group_type)(group), MPP_BUFFER_TYPE_DMA_HEAP);
        assert_eq!((sim.s.mpp_buffer_group_clear)(group), 0);
        assert_eq!(((sim.s.mpp_buffer_group_unused)(group), (sim.s.mpp_buffer_group_usage)(group)), (0, 0));
    }
    // It was in use when the group was cleared: it does not come back.
    sim.put_buffer(b);
    assert_eq!(sim.count("buffers"), 0);
    sim.put_group(group);
    let fd = memfd(4096);
    let group = sim.internal_group();
    sim.is_misuse("the group is internal", || {
        sim.import(group, info(MPP_BUFFER_TYPE_EXT_DMA, 4096, fd.as_raw_fd()), true).unwrap_err()
    });
    sim.put_group(group);
}

#[test]
fn plain_memory_is_not_for_the_hardware() {
    let sim = Sim::new("");
    let group = sim.group(MPP_BUFFER_TYPE_NORMAL, MPP_BUFFER_INTERNAL);
    assert_eq!(sim.buffer(group, 4096), Err(MPP_NOK));
    assert_eq!(sim.buffer(null_mut(), 4096), Err(MPP_NOK));
    sim.put_group(group);
    let group = sim.group(MPP_BUFFER_TYPE_EXT_DMA, MPP_BUFFER_EXTERNAL);
    assert_eq!(sim.buffer(group, 4096), Err(MPP_NOK));
    sim.put_group(group);
    sim.is_clean();
}

#[test]
fn holders_of_a_buffer_are_counted() {
    let sim = Sim::new("");
    let s = sim.s;
    let group = sim.internal_group();
    let buffer = sim.buffer(group, 4096).unwrap();
    let frame = sim.frame();
    let mut packet = null_mut();
    // SAFETY: objects of this library and variables.
    unsafe {
        (s.mpp_frame_set_buffer)(frame, buffer);
        assert_eq!((s.mpp_frame_get_buffer)(frame), buffer);
        assert_eq!((s.mpp_packet_init_with_buffer)(&mut packet, buffer), 0);
        assert_eq!((s.mpp_packet_get_length)(packet), 4096);
        assert_eq!((s.mpp_buffer_inc_ref_with_caller)(buffer, TAG), 0);
    }
    assert_eq!(sim.put_buffer(buffer), 0);
    sim.free_frame(frame);
    sim.free_packet(packet);
    // SAFETY: a group.
    unsafe { assert_eq!((s.mpp_buffer_group_unused)(group), 0) };
    assert_eq!(sim.put_buffer(buffer), 0);
    // SAFETY: a group.
    unsafe { assert_eq!((s.mpp_buffer_group_unused)(group), 1) };
    sim.is_misuse("no holder", || assert_eq!(sim.put_buffer(buffer), MPP_NOK));
    sim.put_group(group);
}

#[test]
fn null_and_freed_handles_are_refused() {
    let sim = Sim::new("");
    let s = sim.s;
    let frame = sim.frame();
    sim.free_frame(frame);
    sim.is_misuse("freed already", || assert_eq!(sim.free_frame(frame), MPP_ERR_NULL_PTR));
    // SAFETY: the library checks handles.
    unsafe {
        sim.is_misuse("freed already", || assert_eq!((s.mpp_frame_get_width)(frame), 0));
        sim.is_misuse("is NULL", || assert_eq!((s.mpp_frame_get_pts)(null_mut()), 0));
        sim.is_misuse("is NULL", || assert_eq!(sim.free_packet(null_mut()), MPP_ERR_NULL_PTR));
        sim.is_misuse("no place", || assert_eq!((s.mpp_frame_init)(null_mut()), MPP_ERR_NULL_PTR));
        sim.is_misuse("is NULL", || assert_eq!((s.mpp_meta_put)(null_mut()), MPP_ERR_NULL_PTR));
        sim.is_misuse("the buffer is NULL", || {
            let mut packet = null_mut();
            assert_eq!((s.mpp_packet_init_with_buffer)(&mut packet, null_mut()), MPP_ERR_NULL_PTR);
        });
        let group = sim.internal_group();
        sim.is_misuse("something else", || assert_eq!((s.mpp_frame_get_width)(group.cast()), 0));
        sim.put_group(group);
    }
}

#[test]
fn packets_read_and_write_within_their_memory() {
    let sim = Sim::new("");
    let s = sim.s;
    let mut memory = [1_u8, 2, 3, 4];
    let (mut packet, mut copy) = (null_mut(), null_mut());
    let mut two = [9_u8, 9];
    // SAFETY: objects of this library and variables.
    unsafe {
        assert_eq!((s.mpp_packet_init)(&mut packet, memory.as_mut_ptr().cast(), 4), 0);
        (s.mpp_packet_set_pts)(packet, 77);
        assert_eq!((s.mpp_packet_set_eos)(packet), 0);
        assert_eq!((s.mpp_packet_copy_init)(&mut copy, packet), 0);
        assert_eq!((s.mpp_packet_write)(packet, 2, two.as_mut_ptr().cast(), 2), 0);
        assert_ne!((s.mpp_packet_write)(packet, 3, two.as_mut_ptr().cast(), 2), 0);
        assert_eq!((s.mpp_packet_read)(packet, 1, two.as_mut_ptr().cast(), 2), 0);
        assert_eq!(two, [2, 9]);
        assert_eq!(((s.mpp_packet_get_pts)(copy), (s.mpp_packet_get_eos)(copy)), (77, 1));
    }
    assert_eq!(sim.bytes(copy), [1, 2, 3, 4]);
    assert_eq!(sim.bytes(packet), [1, 2, 9, 9]);
    sim.free_packet(copy);
    sim.free_packet(packet);
    sim.is_clean();
}

#[test]
fn support_is_no_probe_of_the_hardware() {
    let sim = Sim::new("init-error=-1");
    // SAFETY: numbers.
    unsafe {
        assert_eq!((sim.s.mpp_check_support_format)(MPP_CTX_ENC, MPP_VIDEO_CODING_AVC), 0);
        assert_eq!((sim.s.mpp_check_support_format)(MPP_CTX_DEC, MPP_VIDEO_CODING_AV1), 0);
        assert_ne!((sim.s.mpp_check_support_format)(MPP_CTX_ENC, MPP_VIDEO_CODING_AV1), 0);
    }
    let c = Ctx::create(&sim);
    assert_eq!(c.init(MPP_CTX_ENC, MPP_VIDEO_CODING_AVC), MPP_NOK);
    assert_eq!(c.destroy(), 0);
    sim.is_clean();
}

#[test]
fn the_table_of_functions_is_the_librarys() {
    let sim = Sim::new("");
    let (a, b) = (Ctx::create(&sim), Ctx::create(&sim));
    assert_eq!((a.api.size, a.api.version), (184, 0));
    assert!(std::ptr::eq(a.api, b.api), "one table serves all contexts");
    a.destroy();
    b.destroy();
    sim.is_clean();
}
