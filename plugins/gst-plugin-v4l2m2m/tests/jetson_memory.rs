// SPDX-License-Identifier: MPL-2.0

//! Pictures that are in memory of the hardware: `memory:NVMM` and DMABufs of NVIDIA's own without a copy, others by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod jetson;

use std::os::fd::{FromRawFd, OwnedFd};

use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use jetson::surface::{Surface, dmabuf};
use jetson::*;
use nv_v4l2_sim::format::Raw;
use sim_codec::Codec;

fn caps(bench: &mut Bench, format: VideoFormat, feature: &str) {
    bench.info = VideoInfo::builder(format, 322, 242).fps((30, 1)).build().unwrap();
    let mut caps = bench.info.to_caps().unwrap();
    caps.make_mut().set_features(0, Some(gst::CapsFeatures::new([feature])));
    bench.harness.set_src_caps(caps);
}

/// A frame of a surface, and then its coded picture, so that the surface can be drawn to again.
fn push(bench: &mut Bench, surface: &Surface, nvmm: bool) {
    surface.draw(&bench.picture(bench.next));
    let mut buffer = if nvmm { surface.nvmm() } else { surface.shared() };
    bench.stamp(&mut buffer);
    assert_eq!(bench.harness.push(buffer), Ok(gst::FlowSuccess::Ok), "{:?}", bench.error());
    let wanted = u64::from(bench.next);
    bench.until("the frame", |bench| bench.stat("frames-out") == wanted);
}

#[test]
fn surfaces_go_in_without_a_copy() {
    for (nvmm, feature) in [(true, "memory:NVMM"), (false, "memory:DMABuf")] {
        for (raw, format) in [(Raw::Nv12, VideoFormat::Nv12), (Raw::Yuv420, VideoFormat::I420)] {
            let surfaces: Vec<_> = (0..5).map(|_| Surface::new(raw, 322, 242)).collect();
            let mut bench = bench("", H264, |element| element.set_property("bitrate", 4_000_000_u32));
            caps(&mut bench, format, feature);
            // In an order that is no circle: a descriptor keeps the buffer that it came with first.
            for number in [0, 1, 2, 3, 4, 4, 2, 0, 3, 1, 0, 0] {
                push(&mut bench, &surfaces[number], nvmm);
            }
            bench.eos();
            let buffers = bench.pull();
            assert_eq!(numbers(&buffers), (0..12).collect::<Vec<_>>(), "{feature} {format:?}");
            bench.check_pictures(Codec::H264, &buffers, 28.0);
            assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (12, 0), "{feature}");
        }
    }
}

#[test]
fn other_dmabufs_are_copied_once() {
    let mut bench = bench("", H264, |_| ());
    caps(&mut bench, VideoFormat::Nv12, "memory:DMABuf");
    for _ in 0..6 {
        let picture = bench.picture(bench.next);
        let plain = buffer(&picture, &bench.info);
        let data = plain.map_readable().unwrap();
        // SAFETY: a string with a terminating zero, and a new descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"foreign".as_ptr(), 0)) };
        std::os::unix::fs::FileExt::write_all_at(&std::fs::File::from(fd.try_clone().unwrap()), &data, 0)
            .unwrap();
        let mut shared = gst::Buffer::new();
        shared.get_mut().unwrap().append_memory(dmabuf(fd, data.len()));
        bench.stamp(&mut shared);
        assert_eq!(bench.harness.push(shared), Ok(gst::FlowSuccess::Ok), "{:?}", bench.error());
    }
    bench.eos();
    let buffers = bench.pull();
    assert_eq!(numbers(&buffers), (0..6).collect::<Vec<_>>());
    bench.check_pictures(Codec::H264, &buffers, 28.0);
    assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (0, 6));
}

#[test]
fn more_surfaces_than_the_device_has_buffers() {
    let surfaces: Vec<_> = (0..40).map(|_| Surface::new(Raw::Nv12, 322, 242)).collect();
    let mut bench = bench("latency=0", H264, |_| ());
    caps(&mut bench, VideoFormat::Nv12, "memory:NVMM");
    for surface in &surfaces {
        push(&mut bench, surface, true);
    }
    bench.eos();
    assert_eq!(numbers(&bench.pull()), (0..40).collect::<Vec<_>>());
    // One for the other memory, one for want of buffers.
    assert_eq!((bench.stat("restarts"), bench.stat("frames-imported")), (2, 40));
}

/// Writes a picture to a buffer by the strides and offsets of its meta.
fn draw(buffer: &mut gst::Buffer, picture: gst::Buffer, info: &VideoInfo) {
    let picture = gst_video::VideoFrameRef::from_buffer_ref_readable(&picture, info).unwrap();
    let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.get_mut().unwrap(), info).unwrap();
    picture.copy(&mut to).unwrap();
}

#[test]
fn a_producer_writes_to_the_devices_own_buffers() {
    for (format, codec, to) in [
        (VideoFormat::Nv12, Codec::H264, H264),
        (VideoFormat::I420, Codec::H264, H264),
        (VideoFormat::P01010le, Codec::H265, H265),
    ] {
        let mut bench = bench("", to, |element| element.set_property("bitrate", 4_000_000_u32));
        bench.format(format, 322, 242, 30);
        let caps = bench.info.to_caps().unwrap();
        let pool = common::offered_pool(&bench.harness, &caps).expect("a pool");
        let write = |bench: &mut Bench| {
            let mut buffer = pool.acquire_buffer(None).unwrap();
            draw(&mut buffer, buffer_of(bench), &bench.info);
            bench.stamp(&mut buffer);
            assert_eq!(bench.harness.push(buffer), Ok(gst::FlowSuccess::Ok), "{:?}", bench.bus.pop());
        };
        for _ in 0..12 {
            write(&mut bench);
        }
        bench.until("the frames", |bench| bench.stat("frames-out") == 12);
        assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (12, 0), "{format:?}");
        assert_eq!(bench.count("synced"), 12, "caches are written back before the hardware reads");
        // The device is opened anew for another size and back: what the pool has of before is copied, then given up.
        bench.format(format, 160, 120, 30);
        bench.push(1);
        bench.format(format, 322, 242, 30);
        for number in 14..=30 {
            write(&mut bench);
            bench.until("the frame", |bench| bench.stat("frames-out") == number);
        }
        let copied = bench.stat("frames-copied");
        for _ in 0..5 {
            write(&mut bench);
        }
        bench.eos();
        assert_eq!(bench.stat("frames-copied"), copied, "{format:?}");
        let buffers = bench.pull();
        assert_eq!(numbers(&buffers), (0..35).collect::<Vec<_>>(), "{format:?}");
        bench.check_pictures(codec, &buffers[..12], 28.0);
        bench.check_pictures(codec, &buffers[13..], 28.0);
    }
}

fn buffer_of(bench: &Bench) -> gst::Buffer {
    buffer(&bench.picture(bench.next), &bench.info)
}

#[test]
fn what_is_no_surface_is_an_error() {
    let small = Surface::new(Raw::Nv12, 160, 120);
    for (mut buffer, words) in [
        (gst::Buffer::from_slice([0_u8; 8]), "no NvBufSurface"),
        (gst::Buffer::from_slice([0_u8; 64]), "holds no picture"),
        (small.nvmm(), "160x120"),
    ] {
        let mut bench = bench("", H264, |_| ());
        caps(&mut bench, VideoFormat::Nv12, "memory:NVMM");
        bench.stamp(&mut buffer);
        assert!(bench.harness.push(buffer).is_err());
        let error = bench.error().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn from_one_memory_to_another() {
    let surface = Surface::new(Raw::Nv12, 322, 242);
    let mut bench = bench("", H264, |_| ());
    bench.push(3);
    caps(&mut bench, VideoFormat::Nv12, "memory:NVMM");
    for _ in 0..3 {
        push(&mut bench, &surface, true);
    }
    bench.format(VideoFormat::Nv12, 322, 242, 30);
    bench.push(3);
    bench.eos();
    let buffers = bench.pull();
    assert_eq!((numbers(&buffers), keys(&buffers)), ((0..9).collect(), vec![0, 3, 6]));
    assert_eq!((bench.stat("frames-imported"), bench.stat("frames-copied")), (3, 6));
}
