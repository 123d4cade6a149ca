// SPDX-License-Identifier: MIT OR Apache-2.0

//! scripts/check-jetson.sh on made-up boards, and scripts/verify-jetson.sh with a software encoder in the place of the board's.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

const LIB: &str = "usr/lib/aarch64-linux-gnu";

/// Files of a board; gone when dropped.
struct Board(PathBuf);

impl Board {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("check-jetson-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        Self(std::env::temp_dir().join(name))
    }

    /// An AGX Orin with JetPack 6.
    fn orin() -> Self {
        let board = Self::new();
        board.put("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0");
        board.put("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n");
        board.put("dev/v4l2-nvenc", "");
        board.put(&format!("{LIB}/nvidia/libnvv4l2.so"), "");
        board.put(&format!("{LIB}/nvidia/libnvbufsurface.so"), "");
        board.put(&format!("{LIB}/libv4l/plugins/nv/libv4l2_nvvideocodec.so"), "");
        board
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.0.join(path)).unwrap();
    }

    /// What the script says, and its exit status.
    fn check(&self) -> (String, i32) {
        let done = script("check-jetson.sh", &["--root", self.0.to_str().unwrap()]);
        (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn script(name: &str, arguments: &[&str]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name);
    Command::new(path).args(arguments).output().unwrap()
}

#[test]
fn a_board_that_has_everything() {
    let board = Board::orin();
    let (text, status) = board.check();
    assert_eq!(status, 0, "{text}");
    for line in [
        "ok       board: NVIDIA Jetson AGX Orin Developer Kit",
        "ok       Jetson Linux R36.4.3 (JetPack 6)",
        "note     R36.4 wraps AV1 in IVF",
        "ok       encoder node: /dev/v4l2-nvenc",
        "ok       NVIDIA's V4L2 library: /usr/lib/aarch64-linux-gnu/nvidia/libnvv4l2.so",
        "nothing is missing",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn an_old_board() {
    let board = Board::new();
    board.put("etc/nv_tegra_release", "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref\n");
    board.put("dev/nvhost-msenc", "");
    board.put(&format!("{LIB}/tegra/libnvv4l2.so"), "");
    board.put(&format!("{LIB}/tegra/libnvbufsurface.so.1.0.0"), "");
    board.put(&format!("{LIB}/libv4l/plugins/libv4l2_nvvideocodec.so"), "");
    let (text, status) = board.check();
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("R32.7.4 (JetPack 4)") && text.contains("encoder node: /dev/nvhost-msenc"),
        "{text}"
    );
}

#[test]
fn each_missing_part_is_named_with_a_remedy() {
    for (path, what, remedy) in [
        ("etc/nv_tegra_release".to_owned(), "MISSING  Jetson Linux", "flash Jetson Linux"),
        ("dev/v4l2-nvenc".to_owned(), "MISSING  an encoder node", "dmesg"),
        (format!("{LIB}/nvidia/libnvv4l2.so"), "MISSING  NVIDIA's V4L2 library", "apt install"),
        (format!("{LIB}/nvidia/libnvbufsurface.so"), "MISSING  NVIDIA's buffer library", "apt install"),
        (
            format!("{LIB}/libv4l/plugins/nv/libv4l2_nvvideocodec.so"),
            "MISSING  its codec plugin",
            "LIBV4L2_PLUGIN_DIR",
        ),
    ] {
        let board = Board::orin();
        board.remove(&path);
        let (text, status) = board.check();
        assert_eq!(status, 1, "{path}: {text}");
        let at = text.find(what).unwrap_or(text.len());
        assert!(text[at..].contains(remedy), "{path}: {text}");
        assert!(text.ends_with("1 missing\n"), "{path}: {text}");
    }
}

#[test]
fn the_distributions_library_is_not_nvidias() {
    let board = Board::orin();
    board.remove(&format!("{LIB}/nvidia/libnvv4l2.so"));
    board.put(&format!("{LIB}/libv4l2.so.0"), "");
    let (text, status) = board.check();
    assert_eq!(status, 1);
    assert!(text.contains("libv4l2.so.0 is the distribution's"), "{text}");
}

#[test]
fn special_boards_get_their_notes() {
    let board = Board::orin();
    board.put("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0");
    board.put(".dockerenv", "");
    board.remove("dev/v4l2-nvenc");
    board.put(&format!("{LIB}/libv4l/plugins/nv/libv4l2_nvcuvidvideocodec.so"), "");
    let (text, status) = board.check();
    assert_eq!(status, 1);
    for part in ["Orin Nano has no NVENC", "--runtime nvidia", "CUDA_GPU_ID"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn wrong_use_is_told() {
    assert_eq!(script("check-jetson.sh", &["--root", "/nowhere/at/all"]).status.code(), Some(2));
    assert_eq!(script("check-jetson.sh", &["--colour"]).status.code(), Some(2));
    for arguments in [
        ["--fps", "0"],
        ["--limit", "soon"],
        ["--codecs", "vp8"],
        ["--sizes", "big"],
        ["--element", "noelement a=b"],
    ] {
        let mut all = vec!["--element", "identity", "--seconds", "1"];
        all.extend(arguments);
        let done = script("verify-jetson.sh", &all);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains("error: "), "{arguments:?}");
    }
}

fn verify(element: &str, codec: &str) -> (String, Option<i32>) {
    verify_for(element, codec, "60")
}

fn verify_for(element: &str, codec: &str, limit: &str) -> (String, Option<i32>) {
    let size = ["--sizes", "320x240", "--seconds", "1", "--limit", limit];
    let done = script("verify-jetson.sh", &[&["--element", element, "--codecs", codec][..], &size].concat());
    (String::from_utf8(done.stdout).unwrap(), done.status.code())
}

#[test]
fn a_good_encoder_is_verified() {
    let (text, status) = verify("x264enc tune=zerolatency", "h264");
    let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["h264", "320x240", "30", "30", "30"], "{text}");
    assert_eq!(row[10], "ok");
    // Median, 95th percentile and maximum of latency.
    let latency: Vec<f64> = row[6..9].iter().map(|cell| cell.parse().unwrap()).collect();
    assert!(latency[0] > 0.0 && latency[0] <= latency[1] && latency[1] <= latency[2], "{text}");
    assert_eq!(status, Some(0));
}

#[test]
fn an_encoder_that_loses_pictures_fails() {
    let (text, status) = verify("identity drop-probability=0.5 ! x264enc tune=zerolatency", "h264");
    assert!(text.ends_with("FAILED\n"), "{text}");
    assert_eq!(status, Some(1));
}

#[test]
fn an_encoder_that_does_not_end_is_stopped_and_told() {
    // Every frame sleeps for two seconds.
    let (text, status) = verify_for("identity sleep-time=2000000 ! x264enc tune=zerolatency", "h264", "2");
    for part in ["FAILED: no end after 2 s (--limit)", "dmesg"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("ended with an error"), "{text}");
    assert_eq!(status, Some(1));
}

#[test]
fn a_codec_that_the_encoder_lacks_fails() {
    let (text, status) = verify("x264enc tune=zerolatency", "h265");
    assert!(
        text.contains("FAILED: the pipeline ended with an error") && text.contains("erroneous pipeline"),
        "{text}"
    );
    assert_eq!(status, Some(1));
}
