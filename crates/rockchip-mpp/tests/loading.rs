// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which library is taken, and libraries that lack functions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

use std::ffi::{OsStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;

use rockchip_mpp::sys::{LIBRARY_ENV, Symbols};
use rockchip_mpp::{Coding, Context, Decoded, Frame, Group, Mpp, Put, Timeout};
use rockchip_mpp_sim::Release;
use sim_codec::{Codec, EncoderConfig, Picture};

/// A folder of its own for each test.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rockchip-mpp-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Loads as the environment says, and prints what came of it.
const CHILD: &str = "ROCKCHIP_MPP_TEST_PATH";

#[test]
fn the_library_is_found_by_path_by_environment_and_by_name() {
    if let Some(path) = std::env::var_os(CHILD) {
        match Mpp::load(Some(&path)) {
            Ok(mpp) => println!("loaded <{}>", mpp.name().display()),
            Err(error) => println!("failed <{error}>"),
        }
        return;
    }
    let simulator = rockchip_mpp_sim::library().unwrap();
    let names = folder("names");
    // The environment can only be set for another process.
    let load = |path: &Path, environment: &Path| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_library_is_found_by_path_by_environment_and_by_name", "--nocapture"])
            .env(CHILD, path)
            .env(LIBRARY_ENV, environment)
            .env("LD_LIBRARY_PATH", &names)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let begin = text.find("loaded <").or_else(|| text.find("failed <")).unwrap();
        text[begin..].split('>').next().unwrap().to_owned()
    };
    let none = Path::new("");
    let nowhere = Path::new("/nonexistent/libmpp.so");
    let loaded = |path: &Path| format!("loaded <{}", path.display());

    assert_eq!(load(&simulator, none), loaded(&simulator));
    assert_eq!(load(none, &simulator), loaded(&simulator));
    // The path of the program, or of a property, goes first, and alone.
    assert_eq!(load(&simulator, nowhere), loaded(&simulator));
    assert!(load(nowhere, &simulator).starts_with("failed </nonexistent/libmpp.so: "));
    let text = load(none, nowhere);
    assert!(text.starts_with("failed <ROCKCHIP_MPP_LIBRARY is set, but /nonexistent/libmpp.so: "), "{text}");

    // By name: the best that there is.
    let text = load(none, none);
    assert!(text.contains("librockchip_mpp.so.1: ") && text.contains("librockchip_mpp.so: "), "{text}");
    for name in ["librockchip_mpp.so", "librockchip_mpp.so.0", "librockchip_mpp.so.1"] {
        std::os::unix::fs::symlink(&simulator, names.join(name)).unwrap();
        assert_eq!(load(none, none), loaded(Path::new(name)));
    }
    std::fs::remove_dir_all(names).unwrap();
}

/// Encodes and decodes a few pictures with a library.
fn works(mpp: Mpp) {
    const COUNT: i64 = 4;
    let context = || {
        Context::new(mpp)
            .unwrap()
            .with_input_timeout(Timeout::Blocking)
            .unwrap()
            .with_output_timeout(Timeout::Millis(50))
            .unwrap()
    };
    let encoder = context().into_encoder(Coding::Avc).unwrap();
    let mut config = encoder.config().unwrap();
    for (key, value) in [
        (c"prep:width", 128),
        (c"prep:height", 96),
        (c"prep:hor_stride", 128),
        (c"prep:ver_stride", 96),
        (c"prep:format", 0),
    ] {
        config.set(key, value).unwrap();
    }
    encoder.apply(&config).unwrap();
    let group = Group::internal(mpp).unwrap();
    let mut sizes = Vec::new();
    for token in 0..COUNT as u64 {
        let mut buffer = group.allocate(128 * 96 * 3 / 2).unwrap();
        buffer.map_mut().unwrap().fill(0x70);
        let mut frame = Frame::new(mpp).unwrap();
        frame.set_size(128, 96, 128, 96);
        frame.set_format(0);
        frame.set_buffer(buffer);
        encoder.put(frame, token).unwrap();
        let encoded = (0..1200).find_map(|_| encoder.get().unwrap()).unwrap();
        sizes.push(encoded.packet.data().len());
    }
    assert!(sizes.iter().all(|&size| size > 0), "{sizes:?}");

    let mut source = sim_codec::Encoder::new(EncoderConfig::new(Codec::H264, 128, 96)).unwrap();
    let decoder =
        context().with_input_timeout(Timeout::NonBlocking).unwrap().into_decoder(Coding::Avc).unwrap();
    let mut times = Vec::new();
    let mut get = || {
        if let Some(Decoded::Picture(picture)) = decoder.get().unwrap() {
            assert!(picture.buffer().unwrap().read(|bytes| bytes.iter().any(|&byte| byte != 0)).unwrap());
            times.push(picture.pts());
        }
        times.len()
    };
    for number in 0..COUNT {
        let picture = Picture::test_pattern(128, 96, number as u32);
        for packet in source.encode(&picture, number, false).unwrap() {
            while decoder.put(&packet.data, packet.pts).unwrap() == Put::Full {
                get();
            }
        }
    }
    while decoder.put_end().unwrap() == Put::Full {
        get();
    }
    assert!((0..1200).any(|_| get() == COUNT as usize));
    assert_eq!(times, (0..COUNT).collect::<Vec<_>>());
}

/// Tells a copy of the simulator what to imitate.
fn configure(path: &Path, options: &std::ffi::CStr) {
    // SAFETY: the simulator's constructors do nothing, and this is the function's signature.
    let code = unsafe {
        let library = libloading::Library::new(path).unwrap();
        library.get::<unsafe extern "C" fn(*const c_char) -> i32>(b"mpp_sim_configure").unwrap()(
            options.as_ptr(),
        )
    };
    assert_eq!(code, 0);
}

#[test]
fn a_library_without_any_optional_function_works() {
    let folder = folder("optional");
    let path = folder.join("lacks-optional.so");
    rockchip_mpp_sim::variant(&path, Symbols::OPTIONAL).unwrap();
    let mpp = Mpp::load(Some(path.as_os_str())).unwrap();
    assert!(!mpp.can_sync());
    works(mpp);
    // The whole one has them.
    assert!(Mpp::load(Some(rockchip_mpp_sim::library().unwrap().as_os_str())).unwrap().can_sync());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_release_works_with_the_functions_that_it_has() {
    let folder = folder("releases");
    for release in Release::ALL {
        let path = folder.join(format!("mpp-{}.so", release.name()));
        rockchip_mpp_sim::variant(&path, &rockchip_mpp_sim::missing_in(release)).unwrap();
        let mpp = Mpp::load(Some(path.as_os_str())).unwrap();
        let options = std::ffi::CString::new(format!("release={}", release.name())).unwrap();
        configure(&path, &options);
        assert_eq!(mpp.can_sync(), release > Release::V1_0_0, "{release:?}");
        works(mpp);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_library_that_lacks_a_mandatory_function_is_refused_by_its_name() {
    let folder = folder("mandatory");
    let path = folder.join("lacks-mandatory.so");
    rockchip_mpp_sim::variant(&path, &["mpp_init", "mpp_packet_get_pos"]).unwrap();
    let error = Mpp::load(Some(path.as_os_str())).unwrap_err().to_string();
    assert!(error.contains("it lacks 2 function(s) of MPP: mpp_init, mpp_packet_get_pos"), "{error}");
    let error = Mpp::load(Some(OsStr::new("libc.so.6"))).unwrap_err().to_string();
    assert!(error.contains("libc.so.6: it lacks"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
