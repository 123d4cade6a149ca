// SPDX-License-Identifier: MPL-2.0

//! The element on the stand-in for NVIDIA's library, with pictures that can be told from each other.
#![allow(dead_code)] // Each test program uses a part of it.

pub mod surface;

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use sim_codec::{Codec, Decoder, Picture, psnr};

use crate::common::{PATIENCE, init, nanos};

pub const H264: &str = "video/x-h264,stream-format=byte-stream,alignment=au";
pub const H265: &str = "video/x-h265,stream-format=byte-stream,alignment=au";
pub const AV1: &str = "video/x-av1,stream-format=obu-stream,alignment=tu";

/// Where the library is: beside the tests, where cargo puts what they depend on.
pub fn library_path() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libnv_v4l2_sim.so")
}

pub fn library() -> &'static libloading::Library {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    // SAFETY: the library has no constructors.
    LIBRARY.get_or_init(|| unsafe { libloading::Library::new(library_path()) }.unwrap())
}

/// What the library noted of devices with this tag.
pub fn report(tag: &str) -> String {
    type Report = unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> usize;
    let tag = CString::new(tag).unwrap();
    let mut text = vec![0_u8; 65536];
    // SAFETY: the function's signature; a string with a terminating zero, and a buffer with its length.
    let length = unsafe {
        let report: libloading::Symbol<'_, Report> = library().get(b"nv_v4l2_sim_report").unwrap();
        report(tag.as_ptr(), text.as_mut_ptr().cast(), text.len())
    };
    assert!(length < text.len());
    CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned()
}

/// Lets the devices of a tag code nothing, or go on.
pub fn hold(tag: &str, on: bool) {
    type Hold = unsafe extern "C" fn(*const c_char, c_int);
    let tag = CString::new(tag).unwrap();
    // SAFETY: the function's signature, and a string with a terminating zero.
    unsafe { library().get::<Hold>(b"nv_v4l2_sim_hold").unwrap()(tag.as_ptr(), on.into()) };
}

pub fn fresh_tag() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("element-{}", COUNT.fetch_add(1, Ordering::SeqCst))
}

/// The element, on a board as `config` says.
pub fn element(tag: &str, config: &str) -> gst::Element {
    init();
    let node = if config.contains("release=35") { "/dev/nvhost-msenc" } else { "/dev/v4l2-nvenc" };
    gst::ElementFactory::make("jetsonv4l2enc")
        .property("library-path", library_path().to_str().unwrap())
        .property("device", format!("{node}?tag={tag},{config}"))
        .property("bitrate", 2_000_000_u32)
        .property("gop-size", 1000_i32)
        // A busy machine is no device that hangs.
        .property("device-timeout", nanos(PATIENCE))
        .build()
        .unwrap()
}

pub struct Bench {
    pub tag: String,
    pub element: gst::Element,
    pub harness: Harness,
    pub bus: gst::Bus,
    pub info: VideoInfo,
    pub next: u32,
    /// Nothing that the library notes as wrong is expected.
    pub clean: bool,
}

pub fn bench(config: &str, downstream: &str, prepare: impl FnOnce(&gst::Element)) -> Bench {
    let tag = fresh_tag();
    let element = element(&tag, config);
    prepare(&element);
    let bus = gst::Bus::new();
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    element.set_bus(Some(&bus));
    harness.set_sink_caps_str(downstream);
    harness.play();
    let info = VideoInfo::builder(VideoFormat::Nv12, 322, 242).fps((30, 1)).build().unwrap();
    let mut bench = Bench { tag, element, harness, bus, info, next: 0, clean: true };
    bench.format(VideoFormat::Nv12, 322, 242, 30);
    bench
}

/// A picture in a buffer of GStreamer's, with its default strides.
pub fn buffer(picture: &Picture, info: &VideoInfo) -> gst::Buffer {
    let [y, u, v] = &picture.planes;
    let both: Vec<u8> = u.data.iter().zip(&v.data).flat_map(|(u, v)| [*u, *v]).collect();
    let (luma, chroma) = ((y.width, &y.data), (u.width * 2, &both));
    let planes: Vec<(usize, &Vec<u8>)> = match info.format() {
        VideoFormat::I420 => vec![luma, (u.width, &u.data), (v.width, &v.data)],
        _ => vec![luma, chroma],
    };
    let sample = if info.format() == VideoFormat::P01010le { 2 } else { 1 };
    let mut data = vec![0_u8; info.size()];
    for (index, (width, plane)) in planes.into_iter().enumerate() {
        let (offset, stride) = (info.offset()[index], info.stride()[index] as usize);
        for (row, from) in plane.chunks_exact(width).enumerate() {
            for (column, value) in from.iter().enumerate() {
                // Of 16 bits, the upper ones.
                data[offset + row * stride + column * sample + sample - 1] = *value;
            }
        }
    }
    gst::Buffer::from_mut_slice(data)
}

impl Bench {
    pub fn format(&mut self, format: VideoFormat, width: u32, height: u32, fps: i32) {
        self.info = VideoInfo::builder(format, width, height).fps((fps, 1)).build().unwrap();
        self.harness.set_src_caps(self.info.to_caps().unwrap());
    }

    pub fn picture(&self, number: u32) -> Picture {
        Picture::test_pattern(self.info.width() as usize, self.info.height() as usize, number)
    }

    pub fn try_push(&mut self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut buffer = buffer(&self.picture(self.next), &self.info);
        self.stamp(&mut buffer);
        self.harness.push(buffer)
    }

    /// Gives a buffer the next time.
    pub fn stamp(&mut self, buffer: &mut gst::Buffer) {
        let buffer = buffer.make_mut();
        buffer.set_pts(gst::ClockTime::from_mseconds(u64::from(self.next) * 33));
        buffer.set_duration(gst::ClockTime::from_mseconds(33));
        self.next += 1;
    }

    pub fn push(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.try_push(), Ok(gst::FlowSuccess::Ok), "{:?}", self.bus.pop());
        }
    }

    pub fn eos(&mut self) {
        assert!(self.harness.push_event(gst::event::Eos::new()));
    }

    pub fn pull(&mut self) -> Vec<gst::Buffer> {
        std::iter::from_fn(|| self.harness.try_pull()).collect()
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }

    pub fn error(&self) -> Option<String> {
        let message = self
            .bus
            .timed_pop_filtered(gst::ClockTime::from_nseconds(nanos(PATIENCE)), &[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }

    /// Pushes frame after frame until something is so, which takes one more frame to show.
    pub fn push_until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < end, "{what}\n{}", self.report());
            self.push(1);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < end, "{what}\n{}", self.report());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn report(&self) -> String {
        report(&self.tag)
    }

    /// The value that a control was set to last.
    pub fn control(&self, name: &str) -> Option<String> {
        let prefix = format!("control {name} ");
        self.report().lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    pub fn count(&self, name: &str) -> i64 {
        count(&self.report(), name)
    }

    /// Decodes, and compares with what went in: all pictures are there, once, and look alike.
    pub fn check_pictures(&self, codec: Codec, buffers: &[gst::Buffer], least: f64) {
        let mut decoder = Decoder::new(codec).unwrap();
        let mut decoded = Vec::new();
        for buffer in buffers {
            let number = buffer.pts().unwrap().mseconds() / 33;
            let map = buffer.map_readable().unwrap();
            decoded.extend(decoder.decode(&map, i64::try_from(number).unwrap()).unwrap());
        }
        decoded.extend(decoder.finish().unwrap());
        let mut seen: Vec<i64> = decoded.iter().map(|decoded| decoded.pts).collect();
        seen.sort_unstable();
        let expected: Vec<i64> =
            buffers.iter().map(|buffer| (buffer.pts().unwrap().mseconds() / 33) as i64).collect();
        assert_eq!(seen, expected);
        for decoded in decoded {
            assert!(!decoded.corrupt);
            let original = self.picture(u32::try_from(decoded.pts).unwrap());
            let quality = psnr(&original, &decoded.picture.with_depth(8)).unwrap();
            assert!(quality.iter().all(|value| *value > least), "{}: {quality:?}", decoded.pts);
        }
    }
}

pub fn count(report: &str, name: &str) -> i64 {
    let prefix = format!("count {name} ");
    report.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}

pub fn numbers(buffers: &[gst::Buffer]) -> Vec<u64> {
    buffers.iter().map(|buffer| buffer.pts().unwrap().mseconds() / 33).collect()
}

pub fn keys(buffers: &[gst::Buffer]) -> Vec<u64> {
    let keys = buffers.iter().filter(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
    numbers(&keys.cloned().collect::<Vec<_>>())
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = self.element.set_state(gst::State::Null);
        // Messages that nobody took hold the element, which holds the bus.
        self.bus.set_flushing(true);
        // A device that hung lets go when it can.
        self.until("devices are left open", |bench| bench.count("open") == 0);
        let report = self.report();
        if self.clean {
            assert!(!report.contains("violation"), "{report}");
        }
    }
}
