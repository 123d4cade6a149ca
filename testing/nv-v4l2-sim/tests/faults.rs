// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end of a stream in its kinds, and what goes wrong on request.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use libc::{EAGAIN, EBUSY, EINVAL, EIO, ENODEV, ENOENT};
use nv_v4l2_sim::format::Raw;
use std::time::{Duration, Instant};
use v4l2_m2m::uapi::*;

#[test]
fn the_end_is_an_empty_packet() {
    let mut encoder = Encoder::h264("");
    let mut event = v4l2_event::default();
    for number in 0..3 {
        encoder.put(number).unwrap();
    }
    encoder.end();
    for _ in 0..3 {
        assert!(!encoder.get().unwrap().data.is_empty());
    }
    let end = encoder.get().unwrap();
    assert!(end.data.is_empty() && end.flags == 0);
    assert_eq!(encoder.device.dequeue(CAPTURE, 1).err(), Some(EAGAIN));
    assert_eq!(encoder.device.ioctl(VIDIOC_DQEVENT, &mut event), Ok(()));
    assert_eq!(event.type_, V4L2_EVENT_EOS);
    assert_eq!(encoder.device.ioctl(VIDIOC_DQEVENT, &mut event), Err(ENOENT));
}

#[test]
fn the_end_with_the_last_flag() {
    let mut encoder = Encoder::h264("eos=last");
    encoder.end();
    let packet = encoder.get().unwrap();
    assert!(packet.data.is_empty());
    assert_eq!(packet.flags, V4L2_BUF_FLAG_LAST);
}

#[test]
fn the_end_as_eagain_with_the_last_flag() {
    let mut encoder = Encoder::h264("eos=again");
    encoder.encode(0);
    encoder.end();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut planes = [v4l2_plane::default()];
        let mut buffer =
            v4l2_buffer { type_: CAPTURE, memory: V4L2_MEMORY_MMAP, length: 1, ..Default::default() };
        buffer.m.planes = planes.as_mut_ptr();
        assert_eq!(encoder.device.ioctl(VIDIOC_DQBUF, &mut buffer), Err(EAGAIN));
        if buffer.flags & V4L2_BUF_FLAG_LAST != 0 {
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_coded_after_the_end_before_a_new_start() {
    for command in [true, false] {
        let mut encoder = Encoder::h264("");
        encoder.encode(0);
        encoder.end();
        assert!(encoder.get().unwrap().data.is_empty());
        while encoder.reclaim().is_ok() {}
        encoder.put(1).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(encoder.device.dequeue(CAPTURE, 1).err(), Some(EAGAIN));
        if command {
            let mut start = v4l2_encoder_cmd { cmd: V4L2_ENC_CMD_START, ..Default::default() };
            encoder.device.ioctl(VIDIOC_ENCODER_CMD, &mut start).unwrap();
        } else {
            encoder.device.stream(false, OUTPUT).unwrap();
            encoder.device.stream(true, OUTPUT).unwrap();
            encoder.free = vec![0];
            encoder.put(1).unwrap();
        }
        assert_eq!(encoder.get().unwrap().time.0, 1);
    }
}

#[test]
fn streamoff_forgets_what_is_in_flight() {
    let mut encoder = Encoder::h264("latency=100");
    for number in 0..3 {
        encoder.put(number).unwrap();
    }
    encoder.device.stream(false, OUTPUT).unwrap();
    encoder.device.stream(false, CAPTURE).unwrap();
    encoder.device.start();
    for index in 0..4 {
        encoder.device.queue_capture(index).unwrap();
    }
    encoder.free = vec![0, 1, 2, 3];
    let packet = encoder.encode(9);
    assert_eq!(packet.time.0, 9);
    // A new start is a stream of its own.
    assert_ne!(packet.flags & V4L2_BUF_FLAG_KEYFRAME, 0);
}

#[test]
fn eio_in_the_middle() {
    let mut encoder = Encoder::h264("eio=3");
    let mut packets = 0;
    let errno = loop {
        match encoder.put(packets).and_then(|()| encoder.get()) {
            Ok(_) => packets += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, EIO);
    assert!(packets <= 3);
    assert_eq!(encoder.device.queue_output(0, &[1, 1, 1]), Err(EIO));
    assert_eq!(encoder.device.dequeue(OUTPUT, 3).err(), Some(EIO));
    assert!(encoder.device.stream(false, OUTPUT).is_ok());
}

#[test]
fn a_device_that_vanishes() {
    let mut encoder = Encoder::h264("enodev=2");
    let errno = (0..4).find_map(|number| encoder.put(number).and_then(|()| encoder.get()).err());
    assert_eq!(errno, Some(ENODEV));
    assert_eq!(encoder.device.stream(false, OUTPUT), Err(ENODEV));
    assert_eq!(encoder.device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000), Err(ENODEV));
    assert_eq!(encoder.device.ioctl(VIDIOC_QUERYCAP, &mut v4l2_capability::default()), Err(ENODEV));
}

#[test]
fn a_device_that_hangs_can_be_closed() {
    let mut encoder = Encoder::h264("hang=2");
    encoder.encode(0);
    encoder.encode(1);
    encoder.put(2).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(encoder.device.dequeue(CAPTURE, 1).err(), Some(EAGAIN));
    let start = Instant::now();
    drop(encoder);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn close_wakes_who_waits() {
    let mut encoder = Encoder::h264("hang=0");
    encoder.put(0).unwrap();
    std::thread::scope(|scope| {
        let device = &encoder.device;
        let waiting = scope.spawn(move || device.pointer(OWN + 550, 0, &mut [1]));
        let deadline = Instant::now() + PATIENCE;
        while device.count("poll-waits") == 0 {
            assert!(Instant::now() < deadline && !waiting.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: no pointer is passed.
        unsafe { (library().close)(device.fd) };
        assert!(waiting.join().unwrap().is_ok());
    });
    encoder.device.fd = -1;
}

#[test]
fn dropped_pictures_give_their_buffers_back() {
    let mut encoder = Encoder::h264("drop=3,latency=0");
    let mut times = Vec::new();
    for number in 0..9 {
        encoder.put(number).unwrap();
        if number % 3 == 2 {
            let deadline = Instant::now() + PATIENCE;
            while encoder.free.len() < 4 && Instant::now() < deadline {
                let _ = encoder.reclaim();
            }
            assert_eq!(encoder.free.len(), 4);
        } else {
            times.push(encoder.get().unwrap().time.0);
        }
    }
    assert_eq!(times, [0, 1, 3, 4, 6, 7]);
    assert_eq!(encoder.device.count("dropped"), 3);
}

#[test]
fn packets_that_do_not_fit_are_flagged() {
    let mut encoder = Encoder::h264("capture-size=100");
    let packet = encoder.encode(0);
    assert_eq!(packet.flags & V4L2_BUF_FLAG_ERROR, V4L2_BUF_FLAG_ERROR);
    assert!(packet.data.is_empty());
    assert_eq!(packet.time.0, 0);
}

#[test]
fn headers_alone_come_first() {
    let mut encoder = Encoder::h264("header-only=yes");
    let headers = encoder.encode(0);
    let picture = encoder.get().unwrap();
    let has = |data: &[u8], kind: u8| {
        sim_codec::nal_units(data)
            .any(|unit| unit.iter().find(|byte| **byte > 1).is_some_and(|byte| byte & 31 == kind))
    };
    assert!(has(&headers.data, 7) && !has(&headers.data, 5));
    assert!(has(&picture.data, 5) && !has(&picture.data, 7));
    assert!(!has(&encoder.encode(1).data, 7));
}

#[test]
fn key_flags_can_be_missing() {
    let mut encoder = Encoder::h264("key-flag=no");
    assert_eq!(encoder.encode(0).flags, 0);
    assert_eq!(encoder.device.count("keys"), 1);
}

#[test]
fn controls_can_be_busy() {
    let mut encoder = Encoder::new("busy=BITRATE", b"H264", Raw::Yuv420, (320, 240), |device| {
        device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 1_000_000).unwrap();
    });
    encoder.encode(0);
    assert_eq!(encoder.device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 500_000), Err(EBUSY));
    assert!(encoder.device.control(V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1).is_ok());
}

#[test]
fn streamoff_can_take_long() {
    let encoder = Encoder::h264("stop-hangs=yes");
    let start = Instant::now();
    encoder.device.stream(false, OUTPUT).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn instant_mode_repeats_packets() {
    let mut encoder = Encoder::h264("instant=yes,latency=0");
    let first = encoder.encode(0);
    let second = encoder.encode(1);
    assert_ne!(first.flags & V4L2_BUF_FLAG_KEYFRAME, 0);
    assert_eq!(encoder.encode(2).data, second.data);
    assert!(!second.data.is_empty());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    assert_eq!(Device::open("colour=blue").err(), Some(EINVAL));
}
