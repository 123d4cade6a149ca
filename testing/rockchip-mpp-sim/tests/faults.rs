// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong when it is told to, wrong orders of calls, and what is left behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use rockchip_mpp_sim::{Release, missing_in};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

const AVC: i32 = MPP_VIDEO_CODING_AVC;
const BLOCK: i64 = MPP_POLL_BLOCK;
const NOW: i64 = MPP_POLL_NON_BLOCK;

#[test]
fn nothing_works_before_init() {
    let sim = Sim::new("");
    let c = Ctx::create(&sim);
    let frame = sim.frame();
    let (mut out_frame, mut packet) = (null_mut(), null_mut());
    // SAFETY: a context and variables.
    unsafe {
        sim.is_misuse("mpp_init comes first", || {
            assert_eq!(c.api.encode_put_frame.unwrap()(c.ctx, frame), MPP_ERR_INIT)
        });
        sim.is_misuse("mpp_init comes first", || {
            assert_eq!(c.api.encode_get_packet.unwrap()(c.ctx, &mut packet), MPP_ERR_INIT)
        });
        sim.is_misuse("mpp_init comes first", || {
            assert_eq!(c.api.decode_get_frame.unwrap()(c.ctx, &mut out_frame), MPP_ERR_INIT)
        });
        sim.is_misuse("mpp_init comes first", || assert_eq!(c.reset(), MPP_ERR_INIT));
    }
    sim.is_misuse("mpp_init comes first", || {
        assert_eq!(c.control(MPP_ENC_SET_IDR_FRAME, null_mut()), MPP_ERR_INIT)
    });
    assert_eq!(c.control_with(MPP_SET_INPUT_TIMEOUT, NOW), 0);
    assert_eq!(c.init(MPP_CTX_ENC, AVC), 0);
    sim.is_misuse("in use already", || assert_eq!(c.init(MPP_CTX_ENC, AVC), MPP_ERR_INIT));
    sim.is_misuse("not what this context is for", || {
        // SAFETY: a context and a variable.
        assert_eq!(unsafe { c.api.decode_get_frame.unwrap()(c.ctx, &mut out_frame) }, MPP_NOK);
    });
    sim.free_frame(frame);
    c.reset();
    c.destroy();
}

#[test]
fn a_frame_before_its_configuration_is_refused() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    let c = Ctx::create(&sim);
    assert_eq!(c.init(MPP_CTX_ENC, AVC), 0);
    let frame = enc.pattern(0);
    sim.is_misuse("never configured", || {
        // SAFETY: a context and a frame.
        assert_eq!(unsafe { c.api.encode_put_frame.unwrap()(c.ctx, frame) }, MPP_NOK);
    });
    sim.free_frame(frame);
    c.destroy();
    enc.close();
}

#[test]
fn init_fails_as_told() {
    let sim = Sim::new("init-error=-1006");
    let c = Ctx::create(&sim);
    assert_eq!(c.init(MPP_CTX_ENC, AVC), MPP_ERR_NOMEM);
    sim.set("default,without=9");
    assert_eq!(c.init(MPP_CTX_ENC, MPP_VIDEO_CODING_VP8), MPP_NOK);
    assert_eq!(c.init(MPP_CTX_ENC, AVC), 0);
    c.reset();
    c.destroy();
    sim.is_clean();
}

#[test]
fn failures_and_drops_are_empty_packets() {
    for options in ["hw-error-at=2,hw-error-count=2", "empty-at=2,empty-count=2"] {
        for input in [BLOCK, NOW] {
            let sim = Sim::new(options);
            let enc = Enc::open(&sim, AVC, input, NOW);
            let lengths: Vec<_> = (0..5).map(|n| enc.one(n).len()).collect();
            assert_eq!(
                lengths.iter().map(|l| *l == 0).collect::<Vec<_>>(),
                [false, true, true, false, false],
                "{options}"
            );
            enc.close();
            sim.is_clean();
        }
    }
}

#[test]
fn a_busy_input_refuses_so_many_puts() {
    let sim = Sim::new("busy-input=2");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let frame = enc.pattern(0);
    assert_eq!([enc.put(frame), enc.put(frame), enc.put(frame)], [MPP_NOK, MPP_NOK, 0]);
    let packet = enc.wait();
    sim.free_frame(sim.input_frame(packet).unwrap());
    sim.free_packet(packet);
    enc.close();
    sim.is_clean();
}

#[test]
fn memory_runs_out() {
    let sim = Sim::new("memory-limit=100000");
    let group = sim.internal_group();
    let buffer = sim.buffer(group, 60_000).unwrap();
    assert_eq!(sim.buffer(group, 60_000), Err(MPP_NOK));
    sim.put_buffer(buffer);
    sim.put_group(group);
    // An encoder without room for its output gives empty packets, and recovers.
    sim.set("memory-limit=1000000");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    let frame = enc.pattern(0);
    sim.set("memory-limit=0");
    assert_eq!(enc.put(frame), 0);
    let packet = enc.wait();
    assert!(sim.bytes(packet).is_empty());
    sim.free_packet(packet);
    sim.free_frame(frame);
    sim.set("default");
    assert!(!enc.one(1).is_empty());
    enc.close();
    sim.is_clean();
}

#[test]
fn a_wedged_encoder_takes_no_more_and_can_still_be_ended() {
    let sim = Sim::new("wedge-at=2");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    enc.one(0);
    let mut refused = None;
    for n in 1..10 {
        let frame = enc.pattern(n);
        let mut taken = false;
        for _ in 0..50 {
            taken = enc.put(frame) == 0;
            if taken {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if !taken {
            refused = Some(frame);
            break;
        }
    }
    assert_eq!(sim.free_frame(refused.expect("a full queue")), 0);
    assert!(enc.get_packet().1.is_null());
    enc.close();
    sim.is_clean();
}

#[test]
fn the_kernel_gives_a_blocking_caller_of_a_wedged_encoder_back() {
    let sim = Sim::new("wedge-at=1,wedge-ms=60");
    let enc = Enc::open(&sim, AVC, BLOCK, NOW);
    let start = Instant::now();
    assert!(enc.one(0).is_empty());
    assert!(start.elapsed() >= Duration::from_millis(60));
    enc.close();
    sim.is_clean();
}

#[test]
fn functions_that_a_release_lacks_are_not_found() {
    for release in Release::ALL {
        let missing = missing_in(release);
        let sim = Sim::without(&format!("release={}", release.name()), &missing);
        assert_eq!(sim.s.mpp_buffer_sync_end_f.is_none(), release == Release::V1_0_0, "{release:?}");
        assert_eq!(sim.s.mpp_dec_cfg_set_st.is_none(), release < Release::V1_0_10, "{release:?}");
        // The rest works.
        let enc = Enc::open(&sim, AVC, BLOCK, NOW);
        assert!(!enc.one(0).is_empty());
        enc.close();
        sim.is_clean();
    }
}

#[test]
fn a_library_without_a_mandatory_function_does_not_load() {
    let path =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lacking-{}.so", std::process::id()));
    rockchip_mpp_sim::variant(&path, &["mpp_enc_cfg_init"]).unwrap();
    let error = Library::load(Some(path.as_os_str())).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("mpp_enc_cfg_init"), "{error}");
    assert!(rockchip_mpp_sim::variant(&path, &["mpp_nothing"]).is_err());
}

#[test]
fn what_is_left_behind_is_counted() {
    let sim = Sim::new("");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    let frame = enc.pattern(0);
    assert_eq!(enc.put(frame), 0);
    let packet = enc.wait();
    // The packet is not freed, its frame is not fetched.
    let (cfg, group) = (enc.cfg, enc.group);
    enc.c.reset();
    enc.c.destroy();
    assert!(sim.count("leaked") >= 2, "the packet's buffer and the frame: {}", sim.count("leaked"));
    assert_eq!((sim.count("frames"), sim.count("packets"), sim.count("enc_cfgs")), (1, 1, 1));
    sim.free_packet(packet);
    sim.free_frame(frame);
    // SAFETY: a configuration.
    unsafe { (sim.s.mpp_enc_cfg_deinit)(cfg) };
    let buffer = sim.buffer(group, 4096).unwrap();
    let before = sim.count("leaked");
    sim.put_group(group);
    assert_eq!(sim.count("leaked"), before + 1);
    assert!(sim.message().contains("still in use"), "{}", sim.message());
    sim.put_buffer(buffer);
    assert_eq!(sim.count("buffers"), 0);
}

#[test]
fn frames_that_wait_when_the_context_ends_are_a_leak() {
    let sim = Sim::new("latency-us=100000");
    let enc = Enc::open(&sim, AVC, NOW, NOW);
    assert_eq!(enc.put(enc.pattern(0)), 0);
    let (cfg, group) = (enc.cfg, enc.group);
    enc.c.destroy();
    assert_eq!(sim.count("leaked"), 1);
    assert!(sim.message().contains("reset first"), "{}", sim.message());
    assert_eq!(sim.count("frames"), 0);
    // SAFETY: a configuration.
    unsafe { (sim.s.mpp_enc_cfg_deinit)(cfg) };
    sim.put_group(group);
}

/// Open descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn starting_and_stopping_leaves_nothing() {
    let sim = Sim::new("codec=instant");
    let rounds = std::env::var("SOAK").map_or(100, |_| 1000);
    let mut after_first = None;
    for n in 0..rounds {
        let enc = Enc::open(&sim, AVC, if n % 2 == 0 { NOW } else { BLOCK }, NOW);
        enc.one(0);
        enc.close();
        sim.is_clean();
        after_first.get_or_insert_with(resources);
    }
    // Other tests of this process run at the same time, with few of their own.
    let (fds, threads) = resources();
    let (fds_before, threads_before) = after_first.unwrap();
    assert!(fds < fds_before + 60 && threads < threads_before + 60, "{fds} {threads}");
}

#[test]
fn an_instant_encoder_costs_nothing() {
    let sim = Sim::new("codec=instant");
    let mut enc = Enc::open(&sim, AVC, BLOCK, NOW);
    enc.shape(MPP_FMT_YUV420SP, sim_codec::RawFormat::Nv12, 1280, 720, 1280, 720);
    assert_eq!(enc.apply(), 0);
    let first = enc.one(0);
    let (second, third) = (enc.one(1), enc.one(2));
    assert!(first.len() > second.len() && second == third);
    enc.close();
    sim.is_clean();
}

#[test]
fn options_that_are_not_understood_are_refused() {
    let sim = Sim::new("");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.set("latency=5")));
    assert!(result.is_err());
}

/// Runs only as the child of the next test.
#[test]
fn by_name() {
    if std::env::var_os("BY_NAME").is_none() {
        return;
    }
    let library = Library::load(None).unwrap();
    assert_eq!(library.name(), "librockchip_mpp.so.1");
    // The options of the environment are in force: this release does not know the key, and there is no device.
    let (mut cfg, mut ctx, mut api) = (null_mut(), null_mut(), null_mut());
    let s = library.symbols();
    // SAFETY: variables and a text that ends with zero.
    unsafe {
        assert_eq!((s.mpp_enc_cfg_init)(&mut cfg), 0);
        assert_eq!((s.mpp_enc_cfg_set_s32)(cfg, c"h265:tier".as_ptr(), 1), MPP_NOK);
        assert_eq!((s.mpp_create)(&mut ctx, &mut api), 0);
        assert_eq!((s.mpp_init)(ctx, MPP_CTX_ENC, AVC), -1);
    }
    println!("loaded by name");
}

#[test]
fn it_is_found_by_name_and_reads_the_environment() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("by-name-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(rockchip_mpp_sim::library().unwrap(), folder.join("librockchip_mpp.so.1"))
        .unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "by_name", "--nocapture"])
        .env("BY_NAME", "1")
        .env("MPP_SIM", "release=1.0.4 init-error=-1")
        .env("LD_LIBRARY_PATH", &folder)
        .env_remove("ROCKCHIP_MPP_LIBRARY")
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("loaded by name"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
