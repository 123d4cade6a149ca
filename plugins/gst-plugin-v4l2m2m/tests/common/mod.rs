// SPDX-License-Identifier: MPL-2.0

//! The element on an emulated driver.
#![allow(dead_code)] // Each test program uses a part of it.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_check::Harness;
use v4l2_m2m::emulator::{Emulator, Node};
use v4l2_m2m::ioctl::Api;

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstv4l2m2m::plugin_register_static().unwrap();
    });
}

/// Runs something that opens devices, on these.
pub fn with_devices<T>(emulator: &Emulator, open: impl FnOnce() -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    gstv4l2m2m::testing::set_ops(Some(emulator.ops()));
    let result = open();
    gstv4l2m2m::testing::set_ops(None);
    result
}

pub fn node() -> Node {
    Node::encoder("/dev/video11", Api::MultiPlane)
}

/// No wait is for a time: this is only when to give up.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

pub struct Bench {
    pub emulator: Emulator,
    pub element: gst::Element,
    pub harness: Harness,
    pub bus: gst::Bus,
    pub width: usize,
    pub height: usize,
    pub next: u64,
}

pub fn caps(width: usize, height: usize, fps: i32) -> String {
    format!("video/x-raw,format=NV12,width={width},height={height},framerate={fps}/1,colorimetry=bt709")
}

/// A pipeline of the element alone, with pictures of 64 x 64 pixels.
pub fn bench(node: Node, downstream: &str, prepare: impl FnOnce(&gst::Element)) -> Bench {
    init();
    let emulator = Emulator::new(vec![node]);
    let element = gst::ElementFactory::make("v4l2m2menc").build().unwrap();
    element.set_property("bitrate", 2_000_000_u32);
    // A busy machine is no device that hangs.
    element.set_property("device-timeout", nanos(PATIENCE));
    prepare(&element);
    let bus = gst::Bus::new();
    let mut harness = with_devices(&emulator, || {
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        element.set_bus(Some(&bus));
        harness.set_sink_caps_str(downstream);
        harness.play();
        harness
    });
    harness.set_src_caps_str(&caps(64, 64, 30));
    Bench { emulator, element, harness, bus, width: 64, height: 64, next: 0 }
}

pub const H264: &str = "video/x-h264,stream-format=byte-stream,alignment=au";
pub const H265: &str = "video/x-h265,stream-format=byte-stream,alignment=au";

impl Bench {
    pub fn size(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.harness.set_src_caps_str(&caps(width, height, 30));
    }

    pub fn try_push(&mut self) -> Result<gst::FlowSuccess, gst::FlowError> {
        // What GStreamer's default strides make of it.
        let stride = self.width.next_multiple_of(4);
        let rows = self.height.next_multiple_of(2);
        let mut data = vec![self.next as u8; stride * rows];
        data.resize(stride * rows * 3 / 2, 128);
        let mut buffer = gst::Buffer::from_mut_slice(data);
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_mseconds(self.next * 33));
            buffer.set_duration(gst::ClockTime::from_mseconds(33));
        }
        self.next += 1;
        self.harness.push(buffer)
    }

    pub fn push(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.try_push(), Ok(gst::FlowSuccess::Ok));
        }
    }

    pub fn eos(&mut self) {
        assert!(self.harness.push_event(gst::event::Eos::new()));
    }

    /// All buffers that are there.
    pub fn pull(&mut self) -> Vec<gst::Buffer> {
        std::iter::from_fn(|| self.harness.try_pull()).collect()
    }

    /// Numbers of frames by their time.
    pub fn numbers(buffers: &[gst::Buffer]) -> Vec<u64> {
        buffers.iter().map(|buffer| buffer.pts().unwrap().mseconds() / 33).collect()
    }

    pub fn keys(buffers: &[gst::Buffer]) -> Vec<u64> {
        let keys: Vec<_> = buffers
            .iter()
            .filter(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT))
            .cloned()
            .collect();
        Self::numbers(&keys)
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

    /// Without waiting.
    pub fn error_now(&self) -> Option<String> {
        let message = self.bus.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }

    /// Pushes frame after frame until something is so, which takes one more frame to show.
    pub fn push_until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < end, "{what}");
            self.push(1);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Messages that nobody took hold the element, which holds the bus.
        self.bus.set_flushing(true);
    }
}

pub fn force_key() -> gst::Event {
    gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build()
}

pub fn target(bitrate: u32, active: bool) -> gst::Event {
    gst::event::CustomUpstream::new(
        gst::Structure::builder("GstTargetBitrate")
            .field("bitrate", bitrate)
            .field("active", active)
            .field("source", "test")
            .build(),
    )
}

/// Asks the element for a pool as a producer does, and starts it; `None`: it offers none.
pub fn offered_pool(harness: &Harness, caps: &gst::Caps) -> Option<gst::BufferPool> {
    let mut query = gst::query::Allocation::new(Some(caps), true);
    assert!(harness.srcpad().unwrap().peer_query(&mut query));
    let (pool, size, least, most) = query.allocation_pools().next()?;
    // The base class has one of ordinary memory for whoever offers none.
    let pool = pool.filter(|pool| pool.type_().name() == "GstV4l2M2mLoanPool")?;
    let mut config = pool.config();
    config.set_params(Some(caps), size, least, most);
    // Without it the producer's strides would be others.
    let with_meta = "GstBufferPoolOptionVideoMeta";
    assert!(pool.has_option(with_meta) && pool.set_config(config.clone()).is_err());
    config.add_option(with_meta);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    Some(pool)
}
