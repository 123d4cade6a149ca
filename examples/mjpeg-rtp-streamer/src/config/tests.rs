// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

/// The configuration as the README shows it.
const README: &str = include_str!("../../README.md");

fn shown() -> &'static str {
    README.split("<!-- config -->\n```toml\n").nth(1).unwrap().split("```").next().unwrap()
}

/// A configuration with one camera and more keys in it.
fn camera(keys: &str) -> String {
    format!(
        "[mjpeg-rtp]\n[mjpeg-rtp.camera1]\ndevice = \"test\"\ndest_host = \"192.0.2.10\"\ndest_port = 5000\n{keys}\n"
    )
}

fn problems(text: &str) -> Vec<String> {
    Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_is_right() {
    let config = Config::parse(shown()).unwrap();
    assert_eq!(config.cameras.keys().collect::<Vec<_>>(), ["camera1", "camera2"]);
    let first = &config.cameras["camera1"];
    assert_eq!((first.width, first.height, first.fps, first.quality), (1920, 1080, 30, 95));
    assert_eq!((first.dest_host.as_str(), first.dest_port), ("192.0.2.10", 5000));
    assert_eq!((first.ssrc, first.mtu, first.dscp), (0xDEAD_BEEF, 1400, Some(34)));
    assert_eq!(first.source, Source::V4l2("/dev/video0".into()));
}

#[test]
fn defaults() {
    let config = Config::parse(&camera("")).unwrap();
    let one = &config.cameras["camera1"];
    assert_eq!((one.width, one.height, one.fps, one.quality, one.pt), (1280, 720, 30, 85, 26));
    assert_eq!((one.mtu, one.dscp, one.pacing, one.multicast_ttl), (1400, None, 400_000_000, 1));
    assert_eq!(config.stats, StatsConfig::default());
    // Stable, and different for each camera.
    let demo = Config::demo();
    assert_eq!(demo.cameras["camera1"].ssrc, one.ssrc);
    assert_ne!(demo.cameras["camera1"].ssrc, demo.cameras["camera2"].ssrc);
}

#[test]
fn a_camera_overrides_what_it_takes_over() {
    let text = camera("pacing = 0").replace("[mjpeg-rtp]\n", "[mjpeg-rtp]\npacing = 5_000_000\nmtu = 9000\n");
    let config = Config::parse(&text).unwrap();
    assert_eq!((config.cameras["camera1"].pacing, config.cameras["camera1"].mtu), (0, 9000));
}

#[test]
fn what_is_not_enabled_is_left_out_but_still_checked() {
    assert!(Config::parse(&camera("enabled = false")).unwrap().cameras.is_empty());
    let off = camera("").replace("[mjpeg-rtp]\n", "[mjpeg-rtp]\nenabled = false\n");
    assert!(Config::parse(&off).unwrap().cameras.is_empty());
    assert_eq!(problems(&camera("enabled = false\nfps = 0")).len(), 1);
}

#[test]
fn devices() {
    for (text, source) in [
        ("test", Source::Test(None)),
        ("test:smpte", Source::Test(Some("smpte".into()))),
        ("/dev/v4l/by-id/usb-x:y-index0", Source::V4l2("/dev/v4l/by-id/usb-x:y-index0".into())),
        ("libcamera", Source::Libcamera(None)),
        ("libcamera:/base/soc/i2c0mux", Source::Libcamera(Some("/base/soc/i2c0mux".into()))),
        ("pipeline: videotestsrc ! a:b", Source::Pipeline("videotestsrc ! a:b".into())),
    ] {
        assert_eq!(Source::parse(text), Some(source), "{text}");
    }
    for text in ["", "video0", "pipeline:", "pipeline", "libcamera:", "/home/x", "usb:1"] {
        assert_eq!(Source::parse(text), None, "{text}");
    }
}

#[test]
fn mistakes_are_told_with_line_and_range() {
    for (keys, expected) in [
        ("width = 8", "6: [mjpeg-rtp.camera1] width = 8: must be a whole number, 16 to 16384"),
        (
            "height = \"1080\"",
            "6: [mjpeg-rtp.camera1] height = \"1080\": must be a whole number, 16 to 16384",
        ),
        ("fps = 0", "6: [mjpeg-rtp.camera1] fps = 0: must be a whole number, 1 to 240"),
        ("fps = 29.97", "6: [mjpeg-rtp.camera1] fps = 29.97: must be a whole number, 1 to 240"),
        ("quality = 101", "6: [mjpeg-rtp.camera1] quality = 101: must be a whole number, 1 to 100"),
        (
            "ssrc = 0x1_0000_0000",
            "6: [mjpeg-rtp.camera1] ssrc = 0x1_0000_0000: must be a whole number, 0 to 4294967295",
        ),
        ("ssrc = -1", "6: [mjpeg-rtp.camera1] ssrc = -1: must be a whole number, 0 to 4294967295"),
        ("pt = 95", "6: [mjpeg-rtp.camera1] pt = 95: must be 26, or 96 to 127"),
        (
            "pacing = 1000",
            "6: [mjpeg-rtp.camera1] pacing = 1000: must be 0 (none), or bit/s from 1000000 to 100000000000",
        ),
        (
            "multicast_ttl = 256",
            "6: [mjpeg-rtp.camera1] multicast_ttl = 256: must be a whole number, 1 to 255",
        ),
        (
            "restart_interval = 65536",
            "6: [mjpeg-rtp.camera1] restart_interval = 65536: must be a whole number, 0 to 65535",
        ),
        (
            "name = \"\"",
            "6: [mjpeg-rtp.camera1] name = \"\": must be a text of 1 to 64 bytes without control characters",
        ),
        ("enabled = 1", "6: [mjpeg-rtp.camera1] enabled = 1: must be true or false"),
    ] {
        assert_eq!(problems(&camera(keys)), [expected], "{keys}");
    }
    let main = |key: &str| problems(&camera("").replace("[mjpeg-rtp]\n", &format!("[mjpeg-rtp]\n{key}\n")));
    assert_eq!(main("mtu = 100"), ["2: [mjpeg-rtp] mtu = 100: must be a whole number, 200 to 65000"]);
    assert_eq!(main("dscp = 64"), ["2: [mjpeg-rtp] dscp = 64: must be a whole number, 0 to 63"]);
    assert_eq!(main("camera2 = 1"), ["2: camera2 must be a table: [mjpeg-rtp.camera2]"]);
    let stats = |key: &str| problems(&camera(&format!("[mjpeg-rtp.stats]\n{key}")));
    assert_eq!(
        stats("prometheus = 9464"),
        ["7: [mjpeg-rtp.stats] prometheus = 9464: must be an address with a port, like \"127.0.0.1:9464\""]
    );
}

#[test]
fn unknown_and_missing_keys() {
    let found = problems(&camera("colour = 1"));
    assert!(
        found[0].starts_with("6: [mjpeg-rtp.camera1] unknown key 'colour'; known are dest_host, "),
        "{found:?}"
    );
    assert_eq!(problems("[other]\n[mjpeg-rtp]"), ["1: unknown key 'other'; known are mjpeg-rtp"]);
    assert!(problems("")[0].starts_with("1: the table [mjpeg-rtp] is missing"));
    assert_eq!(
        problems("[mjpeg-rtp]\n[mjpeg-rtp.camera7]\ndevice = \"test\""),
        [
            "2: [mjpeg-rtp.camera7] needs the key 'dest_host'",
            "2: [mjpeg-rtp.camera7] needs the key 'dest_port'"
        ]
    );
    let found = problems("[mjpeg-rtp]\n[mjpeg-rtp.cameraA]");
    assert!(found[0].starts_with("2: [mjpeg-rtp] unknown key 'cameraA'"), "{found:?}");
}

#[test]
fn what_is_not_toml_has_a_line_too() {
    let found = problems("[mjpeg-rtp]\nmtu = = 3");
    assert!(found[0].starts_with("2: not TOML: "), "{found:?}");
    let found = problems(&camera("fps = 30\nfps = 25"));
    assert!(found[0].starts_with("7: not TOML: duplicate key"), "{found:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = problems(&camera("fps = 0\nquality = 0\nnonsense = 1"));
    assert_eq!(found.iter().map(|text| text.split(':').next().unwrap()).collect::<Vec<_>>(), ["6", "7", "8"]);
}

#[test]
fn two_cameras_must_not_meet() {
    let two = |port: u16, more: &str| {
        camera("ssrc = 7")
            + &format!(
                "[mjpeg-rtp.camera2]\ndevice = \"test\"\ndest_host = \"192.0.2.10\"\ndest_port = {port}\n{more}"
            )
    };
    assert!(Config::parse(&two(5002, "ssrc = 8")).is_ok());
    let found = problems(&two(5001, "ssrc = 8"));
    assert!(
        found[0].starts_with("10: [mjpeg-rtp.camera2] dest_port = 5001: must be 2 or more away from 5000"),
        "{found:?}"
    );
    assert_eq!(
        problems(&two(5002, "ssrc = 7")),
        ["11: [mjpeg-rtp.camera2] ssrc = 0x7: must differ from that of camera1"]
    );
    assert!(Config::parse(&two(5001, "enabled = false")).is_ok());
}
