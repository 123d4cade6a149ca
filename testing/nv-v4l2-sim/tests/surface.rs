// SPDX-License-Identifier: MIT OR Apache-2.0

//! NvBufSurface: descriptions, and pictures that come by descriptor.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use libc::EINVAL;
use nv_v4l2_sim::format::Raw;
use sim_codec::{Codec, Decoder, Picture, psnr};
use std::ffi::c_void;
use v4l2_m2m::uapi::*;

/// The fields that an application reads, at the offsets of NVIDIA's header for 64-bit machines.
struct Surface(*mut c_void);

impl Surface {
    fn new(size: (u32, u32), raw: Raw) -> Self {
        // SAFETY: no pointer is passed.
        let surface = unsafe { (library().surface)(size.0, size.1, raw.pixels(), 0) };
        assert!(!surface.is_null());
        Self(surface)
    }

    fn u32_at(pointer: *const c_void, offset: usize) -> u32 {
        // SAFETY: the description is larger than every offset used here.
        unsafe { pointer.byte_add(offset).cast::<u32>().read_unaligned() }
    }

    fn params(&self) -> *const c_void {
        // SAFETY: the list's pointer stands there.
        unsafe { self.0.byte_add(24).cast::<*const c_void>().read() }
    }

    fn fd(&self) -> i32 {
        Self::u32_at(self.params(), 24) as i32
    }

    fn draw(&self, picture: &Picture, raw: Raw) {
        let layout = raw.layout(picture.width as u32, picture.height as u32);
        let map = Map::new(self.fd(), layout.size, 0);
        layout.write(picture, map.bytes());
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: it came from the library, and is given back once.
        unsafe { (library().surface_free)(self.0) };
    }
}

fn dmabuf_device() -> Device {
    let device = Device::open("").unwrap();
    device.set_coded(b"H264", 320, 240).unwrap();
    device.set_raw(b"NM12", 320, 240).unwrap();
    device.request(OUTPUT, V4L2_MEMORY_DMABUF, 4).unwrap();
    device.request(CAPTURE, V4L2_MEMORY_MMAP, 4).unwrap();
    device.start();
    device
}

fn queue(device: &Device, index: u32, fds: [i32; 2]) -> Result<(), i32> {
    let layout = Raw::Nv12.layout(320, 240);
    let buffer = v4l2_buffer { type_: OUTPUT, index, memory: V4L2_MEMORY_DMABUF, ..Default::default() };
    let mut planes = [v4l2_plane::default(); 2];
    for ((plane, fd), layout) in planes.iter_mut().zip(fds).zip(&layout.planes) {
        plane.bytesused = layout.size as u32;
        plane.m.fd = fd;
    }
    device.buffer(VIDIOC_QBUF, buffer, &mut planes).map(drop)
}

#[test]
fn descriptions_have_the_layout_of_the_header() {
    let surface = Surface::new((1920, 1080), Raw::Nv12);
    let at = |offset| Surface::u32_at(surface.0, offset);
    // batchSize, numFilled, memType.
    assert_eq!((at(4), at(8), at(16)), (1, 1, 4));
    let params = surface.params();
    let at = |offset| Surface::u32_at(params, offset);
    // width, height, pitch, colorFormat, layout.
    assert_eq!([at(0), at(4), at(8), at(12), at(16)], [1920, 1080, 2048, 6, 0]);
    // dataSize after the 64-bit descriptor; planeParams after dataPtr.
    assert_eq!(at(32), 2048 * 1080 + 2048 * 540);
    let planes = 48;
    assert_eq!(at(planes), 2);
    assert_eq!([at(planes + 4), at(planes + 8)], [1920, 960]);
    assert_eq!([at(planes + 20), at(planes + 24)], [1080, 540]);
    assert_eq!([at(planes + 36), at(planes + 40)], [2048, 2048]);
    assert_eq!([at(planes + 52), at(planes + 56)], [0, 2048 * 1080]);
    assert_eq!([at(planes + 68), at(planes + 72)], [2048 * 1080, 2048 * 540]);
    assert_eq!([at(planes + 84), at(planes + 88)], [1, 2]);
}

#[test]
fn descriptors_lead_to_descriptions() {
    let surface = Surface::new((320, 240), Raw::Yuv420);
    let mut found = std::ptr::null_mut();
    // SAFETY: a pointer that can be written.
    assert_eq!(unsafe { (library().from_fd)(surface.fd(), &raw mut found) }, 0);
    assert_eq!(found, surface.0);
    // SAFETY: a surface of the library.
    assert_eq!(unsafe { (library().sync)(found, 0, -1) }, 0);
    // A copy with a high number, as one should have it.
    // SAFETY: no pointer is passed.
    let high = unsafe { libc::fcntl(surface.fd(), libc::F_DUPFD_CLOEXEC, 512) };
    assert!(high >= 512);
    // SAFETY: a pointer that can be written.
    assert_eq!(unsafe { (library().from_fd)(high, &raw mut found) }, 0);
    // A buffer of the device's own has one, too: that is where its pitch stands.
    let encoder = Encoder::h264("");
    // SAFETY: a pointer that can be written.
    assert_eq!(unsafe { (library().from_fd)(encoder.fds[0], &raw mut found) }, 0);
    let params = Surface(found);
    assert_eq!(Surface::u32_at(params.params(), 8), 512);
    std::mem::forget(params);
}

#[test]
fn only_nvbufsurface() {
    let device = dmabuf_device();
    // SAFETY: a string with a terminating zero.
    let foreign = unsafe { libc::memfd_create(c"foreign".as_ptr(), 0) };
    assert_eq!(queue(&device, 0, [foreign; 2]), Err(EINVAL));
    assert!(device.broke("only-nvbufsurface"));
    let mut found = std::ptr::null_mut();
    // SAFETY: a pointer that can be written.
    assert_eq!(unsafe { (library().from_fd)(foreign, &raw mut found) }, -1);
    // SAFETY: no pointer is passed.
    unsafe { libc::close(foreign) };
}

#[test]
fn one_fd_for_all_planes() {
    let device = dmabuf_device();
    let (a, b) = (Surface::new((320, 240), Raw::Nv12), Surface::new((320, 240), Raw::Nv12));
    assert_eq!(queue(&device, 0, [a.fd(), b.fd()]), Err(EINVAL));
    assert!(device.broke("one-fd-for-all-planes"));
    assert!(queue(&device, 0, [a.fd(); 2]).is_ok());
}

#[test]
fn stable_imported_fds() {
    let device = dmabuf_device();
    let surface = Surface::new((320, 240), Raw::Nv12);
    queue(&device, 0, [surface.fd(); 2]).unwrap();
    assert_eq!(queue(&device, 1, [surface.fd(); 2]), Err(EINVAL));
    assert!(device.broke("stable-imported-fds"));
}

#[test]
fn surface_matches_format() {
    let device = dmabuf_device();
    let surface = Surface::new((640, 480), Raw::Nv12);
    assert_eq!(queue(&device, 0, [surface.fd(); 2]), Err(EINVAL));
    assert!(device.broke("surface-matches-format"));
}

#[test]
fn imported_pictures_are_coded() {
    let device = dmabuf_device();
    let picture = Picture::test_pattern(320, 240, 5);
    let surface = Surface::new((320, 240), Raw::Nv12);
    surface.draw(&picture, Raw::Nv12);
    let plane = device.query(CAPTURE, 0, 1).unwrap()[0];
    let fd = device.export(CAPTURE, 0, 0).unwrap();
    let map = Map::new(fd, plane.length as usize, 0);
    device.queue_capture(0).unwrap();
    queue(&device, 2, [surface.fd(); 2]).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let used = loop {
        match device.dequeue(CAPTURE, 1) {
            Ok((_, used)) => break used,
            Err(errno) => assert!(errno == libc::EAGAIN && std::time::Instant::now() < deadline),
        }
    };
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    let mut decoded = decoder.decode(&map.bytes()[..used as usize], 0).unwrap();
    decoded.extend(decoder.finish().unwrap());
    let quality = psnr(&picture, &decoded[0].picture).unwrap();
    assert!(quality.iter().all(|value| *value > 28.0), "{quality:?}");
    drop(device);
    // SAFETY: no pointer is passed.
    unsafe { libc::close(fd) };
}
