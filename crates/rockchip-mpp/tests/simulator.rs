// SPDX-License-Identifier: MIT OR Apache-2.0

//! The safe layer over the simulated library: nothing leaks, nothing is freed twice, whoever drops what when.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{Simulator, mpp};
use rockchip_mpp::{
    Buffer, Code, Coding, Context, Encoded, Encoder, EncoderConfig, Error, Frame, Group, HeaderMode,
    InputMode, RoiRegion, SeiMode, Timeout,
};

const WIDTH: u32 = 128;
const HEIGHT: u32 = 96;
const SIZE: usize = (WIDTH * HEIGHT * 3 / 2) as usize;

fn encoder(coding: Coding, input: Timeout) -> (Encoder, EncoderConfig) {
    let encoder = Context::new(mpp())
        .unwrap()
        .with_input_timeout(input)
        .unwrap()
        .with_output_timeout(Timeout::Millis(50))
        .unwrap()
        .into_encoder(coding)
        .unwrap();
    let mut config = encoder.config().unwrap();
    for (key, value) in [
        (c"prep:width", WIDTH as i32),
        (c"prep:height", HEIGHT as i32),
        (c"prep:hor_stride", WIDTH as i32),
        (c"prep:ver_stride", HEIGHT as i32),
        (c"prep:format", 0),
    ] {
        config.set(key, value).unwrap();
    }
    encoder.apply(&config).unwrap();
    (encoder, config)
}

fn frame(group: &Group) -> Frame {
    let mut buffer = group.allocate(SIZE).unwrap();
    buffer.map_mut().unwrap().fill(0x70);
    let mut frame = Frame::new(mpp()).unwrap();
    frame.set_size(WIDTH, HEIGHT, WIDTH, HEIGHT);
    frame.set_format(0);
    frame.set_buffer(buffer);
    frame
}

/// Puts, whatever it takes.
fn put(encoder: &Encoder, mut frame: Frame, token: u64, done: &mut Vec<Encoded>) {
    while let Err(error) = encoder.put(frame, token) {
        assert!(error.is_full(), "{error}");
        frame = error.frame;
        done.extend(encoder.get().unwrap());
    }
}

/// Gets all that is in flight.
fn drain(encoder: &Encoder, done: &mut Vec<Encoded>) {
    let begin = Instant::now();
    while encoder.in_flight() > 0 {
        done.extend(encoder.get().unwrap());
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn each_frame_comes_back_with_its_packet() {
    for release in ["1.0.0", "1.0.4", "1.0.9", "1.0.10", "1.0.11"] {
        for (coding, input) in [
            (Coding::Avc, Timeout::Blocking),
            (Coding::Avc, Timeout::NonBlocking),
            (Coding::Hevc, Timeout::NonBlocking),
            (Coding::Mjpeg, Timeout::NonBlocking),
            (Coding::Vp8, Timeout::NonBlocking),
            (Coding::Vp8, Timeout::Blocking),
        ] {
            let simulator = Simulator::new(&format!("release={release},codec=instant,latency-us=500"));
            {
                let (encoder, _config) = encoder(coding, input);
                let expected =
                    if input == Timeout::Blocking { InputMode::Synchronous } else { InputMode::Asynchronous };
                assert_eq!(encoder.mode(), expected);
                let group = Group::internal(mpp()).unwrap();
                let mut done = Vec::new();
                for token in 0..12 {
                    let mut frame = frame(&group);
                    frame.set_pts(1000 + token as i64);
                    put(&encoder, frame, token, &mut done);
                }
                drain(&encoder, &mut done);
                let tokens: Vec<_> = done.iter().map(|encoded| encoded.token.unwrap()).collect();
                assert_eq!(tokens, (0..12).collect::<Vec<_>>(), "{release} {coding:?} {input:?}");
                for encoded in &mut done {
                    assert_eq!(encoded.packet.pts(), 1000 + encoded.token.unwrap() as i64);
                    assert!(!encoded.packet.data().is_empty());
                    assert!(encoded.frame.as_mut().unwrap().take_buffer().is_some());
                }
                // The end: an empty packet with its own token.
                encoder.put_eos(99).unwrap();
                let mut last = Vec::new();
                drain(&encoder, &mut last);
                assert!(last[0].packet.eos() && last[0].packet.data().is_empty());
                assert_eq!(last[0].token, Some(99));
            }
            simulator.assert_clean();
        }
    }
}

#[test]
fn everything_may_be_dropped_at_any_time() {
    let simulator = Simulator::new("latency-us=3000");
    for input in [Timeout::Blocking, Timeout::NonBlocking] {
        for frames in 0..6 {
            let (encoder, config) = encoder(Coding::Avc, input);
            let group = Group::internal(mpp()).unwrap();
            let mut done = Vec::new();
            for token in 0..frames {
                put(&encoder, frame(&group), token, &mut done);
            }
            // The group first, then the encoder with frames in flight, then packets and frames.
            drop(group);
            drop(encoder);
            drop(config);
            drop(done);
            simulator.assert_clean();
        }
    }
}

#[test]
fn a_refused_frame_is_still_the_callers() {
    let simulator = Simulator::new("hold-at=1");
    {
        let (encoder, _config) = encoder(Coding::Avc, Timeout::NonBlocking);
        let group = Group::internal(mpp()).unwrap();
        for token in 0..12 {
            if let Err(mut error) = encoder.put(frame(&group), token) {
                assert!(token >= 2, "{token}");
                assert!(error.is_full());
                assert!(error.frame.take_buffer().is_some());
            }
        }
        // The library's queue has room for two.
        assert_eq!(encoder.in_flight(), 2);
        simulator.configure("hold-at=0");
        let mut done = Vec::new();
        drain(&encoder, &mut done);
        let tokens: Vec<_> = done.iter().map(|encoded| encoded.token).collect();
        assert_eq!(tokens, [Some(0), Some(1)]);
    }
    simulator.assert_clean();
}

#[test]
fn one_thread_puts_and_another_gets() {
    let simulator = Simulator::new("codec=instant");
    for input in [Timeout::Blocking, Timeout::NonBlocking] {
        let (encoder, config) = encoder(Coding::Avc, input);
        let group = Group::internal(mpp()).unwrap();
        std::thread::scope(|scope| {
            let getter = scope.spawn(|| {
                let mut tokens = Vec::new();
                let begin = Instant::now();
                while tokens.len() < 300 {
                    tokens.extend(encoder.get().unwrap().map(|encoded| encoded.token.unwrap()));
                    assert!(begin.elapsed() < Duration::from_secs(60));
                }
                tokens
            });
            for token in 0..300 {
                let mut frame = frame(&group);
                while let Err(error) = encoder.put(frame, token) {
                    assert!(error.is_full());
                    frame = error.frame;
                    std::thread::yield_now();
                }
            }
            assert_eq!(getter.join().unwrap(), (0..300).collect::<Vec<_>>());
        });
        drop((encoder, config, group));
        simulator.assert_clean();
    }
}

#[test]
fn keyframes_and_headers() {
    let simulator = Simulator::new("");
    {
        let (encoder, mut config) = encoder(Coding::Avc, Timeout::Blocking);
        encoder.set_sei_mode(SeiMode::Disabled).unwrap();
        encoder.set_header_mode(HeaderMode::EachIdr).unwrap();
        config.set(c"rc:gop", 1000).unwrap();
        encoder.apply(&config).unwrap();
        let group = Group::internal(mpp()).unwrap();
        let mut done = Vec::new();
        for token in 0..8 {
            if token == 5 {
                encoder.request_idr().unwrap();
            }
            put(&encoder, frame(&group), token, &mut done);
        }
        drain(&encoder, &mut done);
        let intra: Vec<_> = done.iter_mut().map(|encoded| encoded.packet.take_intra().unwrap()).collect();
        assert_eq!(intra, [true, false, false, false, false, true, false, false]);
        // A get consumes it.
        assert_eq!(done[0].packet.take_intra(), None);
        assert!(done[0].packet.take_average_qp().is_some());
        let has_sps = |data: &[u8]| data.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7);
        assert!(has_sps(done[0].packet.data()) && has_sps(done[5].packet.data()));
        assert!(has_sps(&encoder.parameter_sets().unwrap()));
    }
    simulator.assert_clean();
}

#[test]
fn configurations_remember_what_a_release_does_not_know() {
    let simulator = Simulator::new("release=1.0.4");
    {
        let (encoder, mut config) = encoder(Coding::Hevc, Timeout::Blocking);
        assert!(!config.set_optional(c"h265:tier", 0));
        assert!(config.set_optional(c"rc:max_reenc_times", 1_u32));
        assert_eq!(config.unsupported().collect::<Vec<_>>(), [c"h265:tier"]);
        let error = config.set(c"rc:drop_threshold", 5).unwrap_err();
        assert_eq!(
            error,
            Error::Config { key: "rc:drop_threshold".into(), value: "5".into(), code: Code(-1) }
        );
        config.set(c"rc:gop", 17).unwrap();
        assert_eq!(config.get(c"rc:gop"), Some(17));
        assert_eq!(config.get(c"rc:nonsense"), None);
        config.set_temporal_layers(3).unwrap();
        encoder.apply(&config).unwrap();
        // Rates that do not fit together are refused as a whole.
        config.set(c"rc:bps_target", 5_000_000).unwrap();
        config.set(c"rc:bps_max", 10).unwrap();
        assert!(encoder.apply(&config).is_err());
    }
    simulator.assert_clean();
}

#[test]
fn memory_is_imported_and_exported() {
    let simulator = Simulator::new("");
    {
        let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, SIZE as u64).unwrap();
        let mut imported = Buffer::import(mpp(), file.as_fd(), SIZE).unwrap();
        // The library has a descriptor of its own.
        drop(file);
        imported.map_mut().unwrap().fill(7);
        assert_eq!(imported.size(), SIZE);
        let exported = imported.export().unwrap();
        let mut byte = [0];
        rustix::io::pread(&exported, &mut byte, SIZE as u64 - 1).unwrap();
        assert_eq!(byte, [7]);

        let (encoder, _config) = encoder(Coding::Avc, Timeout::NonBlocking);
        let mut frame = Frame::new(mpp()).unwrap();
        frame.set_size(WIDTH, HEIGHT, WIDTH, HEIGHT);
        frame.set_buffer(imported);
        let region = RoiRegion { x: 0, y: 0, width: 32, height: 32, delta_qp: -5 };
        frame.set_regions(&[region; 11]).unwrap();
        let mut done = Vec::new();
        put(&encoder, frame, 1, &mut done);
        drain(&encoder, &mut done);
        assert!(!done[0].packet.data().is_empty());
    }
    simulator.assert_clean();

    let held = simulator.count("bytes");
    simulator.configure(&format!("memory-limit={}", held + 5000));
    let group = Group::internal(mpp()).unwrap();
    assert!(group.allocate(1 << 20).is_err());
    drop(group);
    simulator.configure(&format!("memory-limit={}", held + 1000));
    let error = Group::internal(mpp()).unwrap_err().to_string();
    assert!(error.contains("DRM: ") && error.contains("DMA_HEAP: ") && error.contains("ION: "), "{error}");
    simulator.assert_clean();
}

#[test]
fn missing_hardware_shows_when_it_is_initialised() {
    let simulator = Simulator::new("init-error=-1");
    let error = Context::new(mpp()).unwrap().into_encoder(Coding::Avc).unwrap_err();
    assert_eq!(error, Error::Call { call: "mpp_init", code: Code(-1) });
    // An untouched context is destroyed, too.
    drop(Context::new(mpp()).unwrap());
    simulator.configure("init-error=0");
    simulator.assert_clean();
}

#[test]
fn a_device_that_hangs_does_not_hang_the_program() {
    let simulator = Simulator::new("wedge-at=2,wedge-ms=200");
    let (encoder, _config) = encoder(Coding::Avc, Timeout::NonBlocking);
    let group = Group::internal(mpp()).unwrap();
    for token in 0..3 {
        let _ = encoder.put(frame(&group), token);
    }
    let begin = Instant::now();
    drop(encoder);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    drop(group);
    assert_eq!(simulator.count("misuse"), simulator.misuse);
}
