// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comes out can be decoded, and the controls have their effect.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use nv_v4l2_sim::format::Raw;
use sim_codec::{Codec, Decoder, Picture, nal_units, psnr};
use v4l2_m2m::uapi::*;

/// Types of the NAL units of H.264.
fn types(data: &[u8]) -> Vec<u8> {
    nal_units(data)
        .map(|unit| unit.iter().copied().find(|byte| *byte > 1).map_or(0, |byte| byte & 31))
        .collect()
}

fn check_quality(config: &str, coded: &[u8; 4], codec: Codec, raw: Raw) {
    let mut encoder = Encoder::new(config, coded, raw, (322, 242), |device| {
        device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 4_000_000).unwrap();
    });
    let mut decoder = Decoder::new(codec).unwrap();
    let mut pictures = 0;
    for number in 0..10 {
        let packet = encoder.encode(number);
        assert_eq!(packet.time, (number.into(), 7));
        assert_eq!(packet.flags & V4L2_BUF_FLAG_KEYFRAME != 0, number == 0);
        for decoded in decoder.decode(&packet.data, number.into()).unwrap() {
            let original = Picture::test_pattern(322, 242, u32::try_from(decoded.pts).unwrap());
            let quality = psnr(&original, &decoded.picture.with_depth(8)).unwrap();
            assert!(quality.iter().all(|value| *value > 28.0), "{quality:?}");
            pictures += 1;
        }
    }
    pictures += decoder.finish().unwrap().len();
    assert_eq!(pictures, 10);
}

#[test]
fn h264_of_three_planes() {
    check_quality("", b"H264", Codec::H264, Raw::Yuv420);
}

#[test]
fn h264_of_two_planes() {
    check_quality("", b"H264", Codec::H264, Raw::Nv12);
}

#[test]
fn h265_of_both() {
    check_quality("", b"H265", Codec::H265, Raw::Nv12);
    check_quality("", b"H265", Codec::H265, Raw::Yuv420);
}

#[test]
fn h265_of_ten_bits() {
    check_quality("", b"H265", Codec::H265, Raw::P010);
}

#[test]
fn av1() {
    check_quality("", b"AV10", Codec::Av1, Raw::Nv12);
}

/// `v4l2_ctrl_video_metadata`: what a packet is, by its buffer.
fn metadata(device: &Device, index: u32) -> Result<[u8; 2], i32> {
    let mut about = [0_u8; 1024];
    let mut words = [0_u64, 0, about.as_mut_ptr() as u64, 0, index.into()];
    let mut control = v4l2_ext_control { id: OWN + 536, ..Default::default() };
    control.value.ptr = words.as_mut_ptr().cast();
    let mut controls = v4l2_ext_controls {
        which: V4L2_CTRL_CLASS_CODEC,
        count: 1,
        controls: &raw mut control,
        ..Default::default()
    };
    device.ioctl(VIDIOC_G_EXT_CTRLS, &mut controls).map(|()| [about[0], about[1]])
}

#[test]
fn slices_come_one_by_one_on_request() {
    for (coded, codec, slices) in [(b"H264", Codec::H264, 4), (b"H265", Codec::H265, 1)] {
        let mut encoder = Encoder::new("latency=8", coded, Raw::Nv12, (320, 240), |device| {
            device.control(OWN + 562, 1).unwrap();
            device.pointer(OWN + 529, 0, &mut [0, 8000]).unwrap();
        });
        let mut decoder = Decoder::new(codec).unwrap();
        let mut pictures = 0;
        for number in 0..5_u32 {
            encoder.put(number).unwrap();
            let (mut picture, mut parts) = (Vec::new(), Vec::new());
            while parts.last().is_none_or(|about: &[u8; 2]| about[1] == 0) {
                let (buffer, used) = loop {
                    match encoder.device.dequeue(CAPTURE, 1) {
                        Ok(done) => break done,
                        Err(errno) => {
                            assert_eq!(errno, libc::EAGAIN, "{codec:?} {}", encoder.device.report())
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                };
                assert_eq!(buffer.timestamp.tv_sec, i64::from(number));
                parts.push(metadata(&encoder.device, buffer.index).unwrap());
                picture.extend_from_slice(&encoder.packets[buffer.index as usize].bytes()[..used as usize]);
                encoder.device.queue_capture(buffer.index).unwrap();
            }
            let expected =
                (0..slices).map(|part| [u8::from(number == 0 && part == 0), u8::from(part + 1 == slices)]);
            assert_eq!(parts, expected.collect::<Vec<_>>(), "{codec:?}");
            while encoder.reclaim() == Err(libc::EAGAIN) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            pictures += decoder.decode(&picture, number.into()).unwrap().len();
        }
        pictures += decoder.finish().unwrap().len();
        assert_eq!(pictures, 5);
    }
}

#[test]
fn metadata_of_dequeued() {
    let mut encoder = Encoder::h264("");
    assert_eq!(metadata(&encoder.device, 0), Err(libc::EINVAL), "the device has it");
    assert!(encoder.device.broke("metadata-of-dequeued"));
    encoder.put(0).unwrap();
    let (buffer, _) = loop {
        match encoder.device.dequeue(CAPTURE, 1) {
            Ok(done) => break done,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    };
    assert_eq!(metadata(&encoder.device, buffer.index), Ok([1, 1]));
}

#[test]
fn av1_is_wrapped_by_one_release() {
    let mut encoder = Encoder::new("release=36.4", b"AV10", Raw::Nv12, (320, 240), |_| ());
    let first = encoder.encode(0).data;
    assert_eq!(&first[..12], b"DKIF\0\0\x20\0AV01");
    let size = |at: usize, data: &[u8]| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(first.len(), 32 + 12 + size(32, &first));
    let second = encoder.encode(1).data;
    assert_eq!(second.len(), 12 + size(0, &second));
    let mut decoder = Decoder::new(Codec::Av1).unwrap();
    let mut pictures = decoder.decode(&first[44..], 0).unwrap().len();
    pictures += decoder.decode(&second[12..], 1).unwrap().len();
    pictures += decoder.finish().unwrap().len();
    assert_eq!(pictures, 2);
}

#[test]
fn headers_come_with_each_idr_only_on_request() {
    let go = |each: i32| {
        let mut encoder = Encoder::new("", b"H264", Raw::Yuv420, (320, 240), |device| {
            device.control(OWN + 514, 3).unwrap();
            device.control(OWN + 535, each).unwrap();
        });
        (0..7).map(|number| types(&encoder.encode(number).data).contains(&7)).collect::<Vec<_>>()
    };
    assert_eq!(go(1), [true, false, false, true, false, false, true]);
    assert_eq!(go(0), [true, false, false, false, false, false, false]);
}

#[test]
fn idr_by_each_of_the_ways() {
    for (id, value, coded, works) in [
        (V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1, b"H264", true),
        (V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE, 0, b"H264", true),
        (OWN + 567, 1, b"H265", true),
        (OWN + 566, 1, b"H264", false),
        (V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1, b"AV10", false),
        (OWN + 567, 1, b"AV10", false),
        (V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE, 0, b"AV10", true),
    ] {
        let mut encoder = Encoder::new("", coded, Raw::Nv12, (320, 240), |_| ());
        assert_ne!(encoder.encode(0).flags & V4L2_BUF_FLAG_KEYFRAME, 0);
        assert_eq!(encoder.encode(1).flags & V4L2_BUF_FLAG_KEYFRAME, 0);
        encoder.device.control(id, value).unwrap();
        assert_eq!(encoder.encode(2).flags & V4L2_BUF_FLAG_KEYFRAME != 0, works, "{id:#x} {coded:?}");
        assert_eq!(encoder.encode(3).flags & V4L2_BUF_FLAG_KEYFRAME, 0);
    }
    let mut encoder = Encoder::h264("ignore=FORCE_KEY_FRAME");
    encoder.encode(0);
    encoder.device.control(V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1).unwrap();
    assert_eq!(encoder.encode(1).flags & V4L2_BUF_FLAG_KEYFRAME, 0);
}

#[test]
fn bitrate_changes_while_streaming() {
    let mut encoder = Encoder::new("latency=0", b"H264", Raw::Yuv420, (320, 240), |device| {
        device.control(V4L2_CID_MPEG_VIDEO_BITRATE_MODE, 1).unwrap();
        device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 2_000_000).unwrap();
    });
    let bytes = |encoder: &mut Encoder, from: u32| -> usize {
        (from..from + 40).map(|number| encoder.encode(number).data.len()).sum()
    };
    bytes(&mut encoder, 0);
    let many = bytes(&mut encoder, 40);
    encoder.device.control(V4L2_CID_MPEG_VIDEO_BITRATE, 200_000).unwrap();
    bytes(&mut encoder, 80);
    let few = bytes(&mut encoder, 120);
    assert!(many > few * 3, "{many} and {few} bytes");
}

#[test]
fn qp_range_and_profile_have_their_effect() {
    let first = |range: [u32; 6], profile| {
        let mut encoder = Encoder::new("", b"H264", Raw::Yuv420, (320, 240), |device| {
            device.pointer(OWN + 539, 0, &mut range.clone()).unwrap();
            device.control(V4L2_CID_MPEG_VIDEO_H264_PROFILE, profile).unwrap();
            device.control(V4L2_CID_MPEG_VIDEO_H264_LEVEL, 11).unwrap();
        });
        encoder.encode(0).data
    };
    let keep = u32::MAX;
    let (good, bad) = (first([5, 10, keep, keep, keep, keep], 4), first([45, 50, keep, keep, keep, keep], 0));
    assert!(good.len() > bad.len() * 3, "{} and {} bytes", good.len(), bad.len());
    let sps = |data: &[u8]| {
        let at = data.windows(4).position(|bytes| bytes[..3] == [0, 0, 1] && bytes[3] & 31 == 7).unwrap() + 4;
        (data[at], data[at + 2])
    };
    assert_eq!(sps(&good), (100, 40));
    assert_eq!(sps(&bad).0, 66);
}

#[test]
fn delimiters_on_request() {
    let mut encoder = Encoder::new("", b"H264", Raw::Yuv420, (320, 240), |device| {
        device.control(OWN + 547, 1).unwrap();
    });
    assert_eq!(types(&encoder.encode(0).data)[0], 9);
    assert_eq!(types(&encoder.encode(1).data)[0], 9);
}

#[test]
fn temporal_tradeoff_drops_pictures() {
    let mut encoder = Encoder::new("latency=0", b"H264", Raw::Yuv420, (320, 240), |device| {
        device.control(OWN + 528, 1).unwrap();
    });
    let mut times = Vec::new();
    for number in 0..10 {
        encoder.put(number).unwrap();
        if number % 5 == 4 {
            while encoder.free.len() < 4 {
                let _ = encoder.reclaim();
            }
        } else {
            times.push(encoder.get().unwrap().time.0);
        }
    }
    assert_eq!(times, [0, 1, 2, 3, 5, 6, 7, 8]);
    assert_eq!(encoder.device.count("dropped"), 2);
}

#[test]
fn pictures_are_read_when_they_are_coded() {
    // Who overwrites a buffer that the device has, overwrites the picture.
    let mut encoder = Encoder::h264("");
    hold(&encoder.device.tag, true);
    encoder.put_with(&Picture::test_pattern(320, 240, 0), (0, 0), 0).unwrap();
    for map in &encoder.pictures[0] {
        map.bytes().fill(128);
    }
    hold(&encoder.device.tag, false);
    let packet = encoder.get().unwrap();
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    let mut decoded = decoder.decode(&packet.data, 0).unwrap();
    decoded.extend(decoder.finish().unwrap());
    assert!(decoded[0].picture.planes[0].data.iter().all(|value| value.abs_diff(128) < 8));
}

#[test]
fn latency_is_that_of_each_picture_not_their_sum() {
    let mut encoder = Encoder::h264("latency=1000,instant=yes");
    let start = std::time::Instant::now();
    for number in 0..4 {
        encoder.put(number).unwrap();
    }
    for _ in 0..4 {
        encoder.get().unwrap();
    }
    let took = start.elapsed().as_millis();
    // Seconds of room for a machine that is busy.
    assert!((1000..4000).contains(&took), "{took} ms");
}

#[test]
fn many_sizes() {
    for size in [(64, 64), (178, 146), (640, 360), (1280, 720)] {
        let mut encoder = Encoder::new("", b"H264", Raw::Nv12, size, |_| ());
        let packet = encoder.encode(0);
        let mut decoder = Decoder::new(Codec::H264).unwrap();
        let mut decoded = decoder.decode(&packet.data, 0).unwrap();
        decoded.extend(decoder.finish().unwrap());
        let picture = &decoded[0].picture;
        assert_eq!((picture.width, picture.height), (size.0 as usize, size.1 as usize));
    }
}
