// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each rule of RULES.md: the wrong way is refused, with the errno that stands there, and the right way works.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use libc::{EAGAIN, EBUSY, EFAULT, EINVAL, ENOENT, ENOTTY, ERANGE};
use nv_v4l2_sim::format::Raw;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use v4l2_m2m::uapi::*;

fn open() -> Device {
    Device::open("").unwrap()
}

/// A refusal that is also in the report.
#[track_caller]
fn refused<T>(device: &Device, rule: &str, errno: i32, got: Result<T, i32>) {
    assert_eq!(got.err(), Some(errno), "{rule}");
    assert!(device.broke(rule), "{rule} is not in the report:\n{}", device.report());
}

#[test]
fn node_is_that_of_the_release() {
    assert!(Device::open_with("/dev/v4l2-nvenc", "release=36.2", libc::O_RDWR).is_ok());
    assert!(Device::open_with("/dev/nvhost-msenc", "release=35.4", libc::O_RDWR).is_ok());
    assert!(Device::open_with("/dev/nvhost-msenc", "release=32.7", libc::O_RDWR).is_ok());
    for (node, config) in [
        ("/dev/nvhost-msenc", "release=36.2"),
        ("/dev/v4l2-nvenc", "release=35.4"),
        ("/dev/v4l2-nvenc", "node=no"),
        ("/dev/video0", ""),
    ] {
        assert_eq!(Device::open_with(node, config, libc::O_RDWR).err(), Some(ENOENT), "{node} {config}");
    }
    assert_eq!(Device::open("open=13").err(), Some(13));
}

#[test]
fn open_is_serialised() {
    let _guard = OPEN.lock();
    let path = |n: u32| format!("/dev/v4l2-nvenc?tag=open-race-{n}");
    // Until two have met.
    let (refused, deadline) = (AtomicBool::new(false), Instant::now() + PATIENCE);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (path, refused) = (path(n), &refused);
            scope.spawn(move || {
                while !refused.load(Ordering::SeqCst) && Instant::now() < deadline {
                    match raw_open(&path, libc::O_RDWR) {
                        // SAFETY: no pointer is passed.
                        Ok(fd) => _ = unsafe { (library().close)(fd) },
                        Err(errno) => refused.store(errno == EBUSY, Ordering::SeqCst),
                    }
                }
            });
        }
    });
    assert!(refused.into_inner());
    let reports: String = (0..8).map(|n| report(&format!("open-race-{n}"))).collect();
    assert!(reports.contains("violation open-is-serialised"));
    let fd = raw_open(&path(9), libc::O_RDWR).unwrap();
    // SAFETY: no pointer is passed.
    assert_eq!(unsafe { (library().close)(fd) }, 0);
}

#[test]
fn node_is_a_twin_of_dev_null() {
    let mut encoder = Encoder::h264("");
    let fd = encoder.device.fd;
    let mut capability = v4l2_capability::default();
    // SAFETY: a structure that lives through the call.
    assert_eq!(unsafe { libc::ioctl(fd, VIDIOC_QUERYCAP, &raw mut capability) }, -1);
    assert_eq!(errno(), ENOTTY);
    // poll(2) says "ready" with nothing to fetch.
    let mut poll = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    // SAFETY: a structure that lives through the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1);
    assert_ne!(poll.revents & libc::POLLIN, 0);
    assert_eq!(encoder.device.dequeue(CAPTURE, 1).err(), Some(EAGAIN));
    encoder.encode(0);
}

#[test]
fn mplane_only() {
    let device = open();
    let got = device.format(VIDIOC_S_FMT, V4L2_BUF_TYPE_VIDEO_CAPTURE, b"H264", (320, 240), 1 << 20);
    refused(&device, "mplane-only", EINVAL, got);
}

#[test]
fn capture_format_has_size() {
    let device = open();
    refused(&device, "capture-format-has-size", EINVAL, device.set_coded(b"H264", 0, 0));
    let got = device.format(VIDIOC_S_FMT, CAPTURE, b"H264", (320, 240), 0);
    assert_eq!(got.err(), Some(EINVAL));
    assert!(device.set_coded(b"H264", 320, 240).is_ok());
}

#[test]
fn even_sizes() {
    let device = open();
    refused(&device, "even-sizes", EINVAL, device.set_coded(b"H264", 321, 240));
    device.set_coded(b"H264", 322, 242).unwrap();
    refused(&device, "even-sizes", EINVAL, device.set_raw(b"YM12", 322, 241));
    assert!(device.set_raw(b"YM12", 322, 242).is_ok());
}

#[test]
fn largest_size_is_read_back() {
    let device = Device::open("max=1920x1088").unwrap();
    let got = device.set_coded(b"H264", 3840, 2160).unwrap();
    assert_eq!((got.width, got.height), (1920, 1088));
    let got = device.set_raw(b"NM12", 3840, 2160).unwrap();
    assert_eq!((got.width, got.height), (1920, 1088));
}

#[test]
fn formats_are_nvidias() {
    let device = open();
    for pixels in [b"H264", b"H265", b"AV10"] {
        assert!(device.format(VIDIOC_TRY_FMT, CAPTURE, pixels, (64, 64), 1 << 20).is_ok());
    }
    assert_eq!(device.set_coded(b"HEVC", 320, 240).err(), Some(EINVAL));
    device.set_coded(b"H264", 320, 240).unwrap();
    // One piece of memory is not taken, and ten bits only by H.265.
    for pixels in [b"YU12", b"NV12", b"PM10"] {
        assert_eq!(device.set_raw(pixels, 320, 240).err(), Some(EINVAL));
    }
    device.set_coded(b"H265", 320, 240).unwrap();
    assert!(device.set_raw(b"PM10", 320, 240).is_ok());
    let old = Device::open("av1=no").unwrap();
    assert_eq!(old.set_coded(b"AV10", 320, 240).err(), Some(EINVAL));
}

#[test]
fn capture_format_first() {
    let device = open();
    refused(&device, "capture-format-first", EINVAL, device.set_raw(b"YM12", 320, 240));
    device.formats();
    // CAPTURE is the master: OUTPUT has to be set again.
    device.set_coded(b"H264", 640, 480).unwrap();
    assert_eq!(device.request(OUTPUT, V4L2_MEMORY_MMAP, 4), Err(EINVAL));
    device.set_raw(b"YM12", 640, 480).unwrap();
    device.buffers();
}

#[test]
fn no_format_with_buffers() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "no-format-with-buffers", EBUSY, device.set_coded(b"H264", 640, 480));
    assert_eq!(device.set_raw(b"YM12", 640, 480).err(), Some(EBUSY));
    device.request(OUTPUT, V4L2_MEMORY_MMAP, 0).unwrap();
    device.request(CAPTURE, V4L2_MEMORY_MMAP, 0).unwrap();
    device.formats();
}

#[test]
fn bytesperline_is_zero() {
    let device = open();
    device.set_coded(b"H264", 320, 240).unwrap();
    let got = device.set_raw(b"YM12", 320, 240).unwrap();
    assert_eq!(got.num_planes, 3);
    assert!(got.plane_fmt[..3].iter().all(|plane| plane.bytesperline == 0));
    // The truth: length ÷ height.
    assert_eq!(got.plane_fmt[0].sizeimage / 240, 512);
    let honest = Device::open("bytesperline=real").unwrap();
    honest.set_coded(b"H264", 320, 240).unwrap();
    assert_eq!(honest.set_raw(b"YM12", 320, 240).unwrap().plane_fmt[0].bytesperline, 512);
}

#[test]
fn av1_headers_between_formats() {
    let device = open();
    refused(&device, "av1-headers-between-formats", EINVAL, device.control(OWN + 569, 1));
    device.set_coded(b"AV10", 320, 240).unwrap();
    assert!(device.control(OWN + 569, 1).is_ok());
    device.set_raw(b"NM12", 320, 240).unwrap();
    assert_eq!(device.control(OWN + 569, 1), Err(EINVAL));
}

#[test]
fn controls_after_formats() {
    let device = open();
    refused(
        &device,
        "controls-after-formats",
        EINVAL,
        device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000),
    );
    device.set_coded(b"H264", 320, 240).unwrap();
    assert_eq!(device.control(OWN + 540, 1), Err(EINVAL));
    assert_eq!(device.parm(30), Err(EINVAL));
    device.set_raw(b"YM12", 320, 240).unwrap();
    assert!(device.control(OWN + 540, 1).is_ok());
    assert!(device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000).is_ok());
    assert!(device.parm(30).is_ok());
}

#[test]
fn controls_before_reqbufs() {
    let device = open();
    device.formats();
    // Either queue's buffers are too late.
    device.request(OUTPUT, V4L2_MEMORY_MMAP, 4).unwrap();
    refused(&device, "controls-before-reqbufs", EBUSY, device.control(OWN + 540, 1));
}

#[test]
fn only_some_controls_while_streaming() {
    let encoder = Encoder::h264("");
    let device = &encoder.device;
    for id in [V4L2_CID_MPEG_VIDEO_BITRATE, V4L2_CID_MPEG_VIDEO_BITRATE_PEAK] {
        assert!(device.control(id, 2_000_000).is_ok());
    }
    for id in [V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, OWN + 567] {
        assert!(device.control(id, 1).is_ok());
    }
    assert!(device.parm(15).is_ok());
    for (id, value) in [
        (V4L2_CID_MPEG_VIDEO_GOP_SIZE, 30),
        (OWN + 514, 30),
        (V4L2_CID_MPEG_VIDEO_H264_PROFILE, 4),
        (V4L2_CID_MPEG_VIDEO_H264_LEVEL, 11),
        (V4L2_CID_MPEG_VIDEO_BITRATE_MODE, 1),
        (OWN + 540, 1),
    ] {
        assert_eq!(device.control(id, value), Err(EBUSY), "{id:#x}");
    }
    assert_eq!(device.pointer(OWN + 539, 0, &mut [20, 40, 20, 40, 20, 40]), Err(EBUSY));
    assert_eq!(device.pointer(OWN + 531, 0, &mut [100_000]), Err(EBUSY));
}

#[test]
fn per_frame_after_reqbufs() {
    let device = open();
    device.formats();
    refused(&device, "per-frame-after-reqbufs", EINVAL, device.pointer(OWN + 541, 0, &mut [0; 64]));
    device.buffers();
    assert!(device.pointer(OWN + 541, 0, &mut [0; 64]).is_ok());
    // Their switches come before the buffers.
    assert_eq!(device.pointer(OWN + 544, 0, &mut [1; 4]), Err(EBUSY));
}

#[test]
fn control_class_is_codec() {
    let device = open();
    device.formats();
    let got = device.control_in(0, V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000);
    refused(&device, "control-class-is-codec", EINVAL, got);
}

#[test]
fn control_size_is_zero() {
    let device = open();
    device.formats();
    refused(&device, "control-size-is-zero", EINVAL, device.pointer(OWN + 531, 4, &mut [100_000]));
    assert!(device.pointer(OWN + 531, 0, &mut [100_000]).is_ok());
    assert!(device.report().contains("control VIRTUALBUFFER_SIZE 100000\n"));
}

#[test]
fn value_or_pointer() {
    let device = open();
    device.formats();
    // A value where a pointer belongs: NVIDIA's library would read address 100000.
    refused(&device, "value-or-pointer", EFAULT, device.control(OWN + 531, 100_000));
    let device = open();
    device.formats();
    // A pointer where a value belongs.
    refused(&device, "value-or-pointer", EINVAL, device.pointer(OWN + 540, 0, &mut [1]));
    // All of the table, the right way.
    let device = open();
    device.formats();
    for n in [529, 531, 532, 533, 539, 542, 543, 544, 545, 574] {
        assert!(device.pointer(OWN + n, 0, &mut [1; 8]).is_ok(), "{n}");
        assert_eq!(device.control(OWN + n, 1), Err(EFAULT), "{n}");
    }
    for n in [514, 528, 534, 535, 540, 546, 547, 548, 552, 554, 555, 562, 575] {
        assert!(device.control(OWN + n, 1).is_ok(), "{n}");
        assert_eq!(device.pointer(OWN + n, 0, &mut [1; 8]), Err(EINVAL), "{n}");
    }
}

#[test]
fn values_in_range() {
    let device = open();
    device.formats();
    refused(&device, "values-in-range", ERANGE, device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 0));
    assert_eq!(device.control(OWN + 540, 9), Err(ERANGE));
    assert_eq!(device.control(OWN + 563, 1), Err(ERANGE));
    assert_eq!(device.control(OWN + 563, 2), Ok(()));
}

#[test]
fn controls_belong_to_codecs() {
    let device = open();
    device.set_coded(b"H265", 320, 240).unwrap();
    device.set_raw(b"NM12", 320, 240).unwrap();
    for id in [V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_CID_MPEG_VIDEO_H264_LEVEL, OWN + 563, OWN + 571] {
        assert_eq!(device.control(id, 0), Err(EINVAL), "{id:#x}");
    }
    assert!(device.control(OWN + 513, 0).is_ok());
}

#[test]
fn releases_refuse_what_they_do_not_know() {
    let device = Device::open("refuse=POC_TYPE+MAX_PERFORMANCE").unwrap();
    device.formats();
    assert_eq!(device.control(OWN + 563, 2), Err(EINVAL));
    assert_eq!(device.control(OWN + 554, 1), Err(EINVAL));
    assert_eq!(device.control(OWN + 700, 1), Err(EINVAL));
    assert!(device.control(OWN + 540, 1).is_ok());
}

#[test]
fn no_queries() {
    let device = open();
    assert_eq!(device.ioctl(VIDIOC_QUERY_EXT_CTRL, &mut v4l2_query_ext_ctrl::default()), Err(ENOTTY));
    assert_eq!(device.ioctl(VIDIOC_S_SELECTION, &mut v4l2_selection::default()), Err(ENOTTY));
    assert_eq!(device.ioctl(VIDIOC_TRY_ENCODER_CMD, &mut v4l2_encoder_cmd::default()), Err(ENOTTY));
}

#[test]
fn reqbufs_after_formats() {
    let device = open();
    refused(&device, "reqbufs-after-formats", EINVAL, device.request(CAPTURE, V4L2_MEMORY_MMAP, 4));
    device.set_coded(b"H264", 320, 240).unwrap();
    assert_eq!(device.request(CAPTURE, V4L2_MEMORY_MMAP, 4), Err(EINVAL));
}

#[test]
fn capture_mmap_only() {
    let device = open();
    device.formats();
    refused(&device, "capture-mmap-only", EINVAL, device.request(CAPTURE, V4L2_MEMORY_DMABUF, 4));
}

#[test]
fn output_mmap_or_dmabuf() {
    let device = open();
    device.formats();
    // USERPTR is 2.
    refused(&device, "output-mmap-or-dmabuf", EINVAL, device.request(OUTPUT, 2, 4));
    assert_eq!(device.request(OUTPUT, V4L2_MEMORY_DMABUF, 4), Ok(4));
}

#[test]
fn reqbufs_after_streamoff() {
    let encoder = Encoder::h264("");
    let got = encoder.device.request(OUTPUT, V4L2_MEMORY_MMAP, 0);
    refused(&encoder.device, "reqbufs-after-streamoff", EBUSY, got);
}

#[test]
fn reqbufs_zero_first() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "reqbufs-zero-first", EBUSY, device.request(OUTPUT, V4L2_MEMORY_MMAP, 4));
    assert_eq!(device.request(OUTPUT, V4L2_MEMORY_MMAP, 0), Ok(0));
    assert_eq!(device.request(OUTPUT, V4L2_MEMORY_MMAP, 40), Ok(32));
}

#[test]
fn buffers_exist() {
    let device = open();
    device.formats();
    refused(&device, "buffers-exist", EINVAL, device.query(OUTPUT, 0, 3));
    assert_eq!(device.export(CAPTURE, 0, 0), Err(EINVAL));
    device.buffers();
    assert_eq!(device.query(OUTPUT, 4, 3).err(), Some(EINVAL));
    assert_eq!(device.export(OUTPUT, 0, 3), Err(EINVAL));
    device.start();
    assert_eq!(device.queue_capture(4), Err(EINVAL));
}

#[test]
fn plane_counts_match() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "plane-counts-match", EINVAL, device.query(OUTPUT, 0, 2));
    device.start();
    assert_eq!(device.queue_output(0, &[1, 1]), Err(EINVAL));
    assert_eq!(device.dequeue(OUTPUT, 1).err(), Some(EINVAL));
}

#[test]
fn plain_mmap_of_exported_fd() {
    let device = open();
    device.formats();
    device.buffers();
    // SAFETY: it maps nothing.
    let got = unsafe {
        (library().mmap)(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, device.fd, 0)
    };
    assert_eq!(got, libc::MAP_FAILED);
    assert!(device.broke("plain-mmap-of-exported-fd"));
    let planes = device.query(OUTPUT, 1, 3).unwrap();
    // SAFETY: MMAP memory has this member.
    let offsets: Vec<u32> = planes.iter().map(|plane| unsafe { plane.m.mem_offset }).collect();
    assert!(offsets[0] == 0 && offsets[1] > 0 && offsets[2] > offsets[1]);
    let fd = device.export(OUTPUT, 1, 2).unwrap();
    drop(Map::new(fd, planes[2].length as usize, offsets[2]));
    // Not before: the number is another test's next.
    drop(device);
    // SAFETY: no pointer is passed.
    unsafe { libc::close(fd) };
}

#[test]
fn streamon_after_reqbufs() {
    let device = open();
    device.formats();
    refused(&device, "streamon-after-reqbufs", EINVAL, device.stream(true, OUTPUT));
    device.request(OUTPUT, V4L2_MEMORY_MMAP, 4).unwrap();
    assert_eq!(device.stream(true, OUTPUT), Err(EINVAL));
    device.request(CAPTURE, V4L2_MEMORY_MMAP, 4).unwrap();
    device.start();
}

#[test]
fn streamon_output_first() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "streamon-output-first", EINVAL, device.stream(true, CAPTURE));
    device.start();
}

#[test]
fn qbuf_after_streamon() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "qbuf-after-streamon", EINVAL, device.queue_capture(0));
    device.start();
    assert!(device.queue_capture(0).is_ok());
}

#[test]
fn dqbuf_while_streaming() {
    let device = open();
    device.formats();
    device.buffers();
    refused(&device, "dqbuf-while-streaming", EINVAL, device.dequeue(CAPTURE, 1).map(|got| got.1));
}

#[test]
fn memory_kind_matches() {
    let device = open();
    device.formats();
    device.request(OUTPUT, V4L2_MEMORY_DMABUF, 4).unwrap();
    device.request(CAPTURE, V4L2_MEMORY_MMAP, 4).unwrap();
    device.start();
    refused(&device, "memory-kind-matches", EINVAL, device.queue_output(0, &[1, 1, 1]));
}

#[test]
fn no_buffer_twice() {
    let encoder = Encoder::h264("");
    refused(&encoder.device, "no-buffer-twice", EINVAL, encoder.device.queue_capture(0));
}

#[test]
fn bytesused_of_each_plane() {
    let encoder = Encoder::h264("");
    let sizes: Vec<u32> = encoder.layout.planes.iter().map(|plane| plane.size as u32).collect();
    let device = &encoder.device;
    refused(device, "bytesused-of-each-plane", EINVAL, device.queue_output(0, &[sizes[0], 0, sizes[2]]));
    assert_eq!(device.queue_output(0, &[sizes[0] + 1, sizes[1], sizes[2]]), Err(EINVAL));
    assert!(device.queue_output(0, &sizes).is_ok());
}

#[test]
fn stop_has_flag_one() {
    let mut encoder = Encoder::h264("");
    let stop = |encoder: &Encoder, flags| {
        let mut command = v4l2_encoder_cmd { cmd: V4L2_ENC_CMD_STOP, flags, ..Default::default() };
        encoder.device.ioctl(VIDIOC_ENCODER_CMD, &mut command)
    };
    encoder.put(0).unwrap();
    refused(&encoder.device, "stop-has-flag-one", EINVAL, stop(&encoder, 0));
    stop(&encoder, 1).unwrap();
    assert!(!encoder.get().unwrap().data.is_empty());
    assert!(encoder.get().unwrap().data.is_empty());
}

#[test]
fn poll_is_for_nonblocking() {
    let device = Device::open_with("/dev/v4l2-nvenc", "", libc::O_RDWR).unwrap();
    device.formats();
    refused(&device, "poll-is-for-nonblocking", EINVAL, device.pointer(OWN + 550, 0, &mut [5]));
}

#[test]
fn device_poll_hangs_after_the_end_unless_interrupted() {
    let mut encoder = Encoder::h264("");
    encoder.put(0).unwrap();
    let mut wanted = [u32::from(libc::POLLIN as u16)];
    encoder.device.pointer(OWN + 550, 0, &mut wanted).unwrap();
    // The answer stands in the upper half.
    assert_eq!(wanted[0] >> 16, u32::from(libc::POLLIN as u16));
    assert!(!encoder.get().unwrap().data.is_empty());
    encoder.end();
    assert!(encoder.get().unwrap().data.is_empty());
    std::thread::scope(|scope| {
        let device = &encoder.device;
        let waiting = scope.spawn(move || {
            let mut wanted = [u32::from(libc::POLLIN as u16)];
            device.pointer(OWN + 550, 0, &mut wanted).map(|()| wanted[0] >> 16)
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!waiting.is_finished());
        device.control(OWN + 551, 1).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(0));
    });
}

#[test]
fn sessions_are_limited() {
    // The count is the process's: any limit of 1 is used up by the first.
    let first = open();
    first.formats();
    let second = Device::open("sessions=1").unwrap();
    assert_eq!(second.set_coded(b"H264", 320, 240).err(), Some(EINVAL));
    assert!(open().set_coded(b"H264", 320, 240).is_ok());
}

#[test]
fn timestamps_only_with_the_flag() {
    let mut encoder = Encoder::h264("");
    let picture = sim_codec::Picture::test_pattern(320, 240, 0);
    encoder.put_with(&picture, (7, 123_456), 0).unwrap();
    assert_eq!(encoder.get().unwrap().time, (0, 0));
    encoder.put_with(&picture, (7, 123_456), V4L2_BUF_FLAG_TIMESTAMP_COPY).unwrap();
    assert_eq!(encoder.get().unwrap().time, (7, 123_456));
}

#[test]
fn blocking_dqbuf_waits() {
    let device = Device::open_with("/dev/v4l2-nvenc", "", libc::O_RDWR).unwrap();
    device.formats();
    device.buffers();
    device.start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| device.dequeue(OUTPUT, 3).map(|got| got.1));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!waiting.is_finished());
        device.stream(false, OUTPUT).unwrap();
        assert_eq!(waiting.join().unwrap(), Err(EINVAL));
    });
}

#[test]
fn a_right_order_breaks_no_rule() {
    for (coded, raw) in [(b"H264", Raw::Yuv420), (b"H265", Raw::Nv12), (b"AV10", Raw::Nv12)] {
        let mut encoder = Encoder::new("", coded, raw, (320, 240), |device| {
            device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000).unwrap();
            device.pointer(OWN + 531, 0, &mut [33_000]).unwrap();
        });
        encoder.encode(0);
        encoder.end();
        assert!(encoder.get().unwrap().data.is_empty());
        let tag = encoder.device.tag.clone();
        drop(encoder);
        assert!(!report(&tag).contains("violation"), "{}", report(&tag));
    }
}
