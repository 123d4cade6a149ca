// SPDX-License-Identifier: MIT OR Apache-2.0

//! JPEG decoding: tasks, packets in buffers, an output frame that the application brings.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::dec::*;
use common::*;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Chroma, Codec, Picture, RateControl, psnr};
use std::ptr::null_mut;
use std::time::Duration;

struct Jpeg<'a> {
    c: Ctx<'a>,
    group: MppBufferGroup,
}

impl<'a> Jpeg<'a> {
    fn open(sim: &'a Sim) -> Self {
        let c = Ctx::create(sim);
        assert_eq!(c.init(MPP_CTX_DEC, MPP_VIDEO_CODING_MJPEG), 0);
        Self { c, group: sim.internal_group() }
    }

    /// A packet whose bytes are in a buffer.
    fn packet(&self, data: &[u8], pts: i64) -> MppPacket {
        let sim = self.c.sim;
        let buffer = sim.buffer(self.group, data.len()).unwrap();
        sim.memory(buffer)[..data.len()].copy_from_slice(data);
        let mut packet = null_mut();
        // SAFETY: variables and a buffer.
        unsafe {
            assert_eq!((sim.s.mpp_packet_init_with_buffer)(&mut packet, buffer), 0);
            (sim.s.mpp_packet_set_length)(packet, data.len());
            (sim.s.mpp_packet_set_pts)(packet, pts);
        }
        sim.put_buffer(buffer);
        packet
    }

    /// A frame with room.
    fn frame(&self, room: usize) -> MppFrame {
        let sim = self.c.sim;
        let frame = sim.frame();
        let buffer = sim.buffer(self.group, room).unwrap();
        // SAFETY: a frame and a buffer.
        unsafe { (sim.s.mpp_frame_set_buffer)(frame, buffer) };
        sim.put_buffer(buffer);
        frame
    }

    fn poll(&self, port: i32, ms: i32) -> i32 {
        // SAFETY: a context.
        unsafe { self.c.api.poll.unwrap()(self.c.ctx, port, ms) }
    }

    fn task(&self, port: i32) -> MppTask {
        let mut task = null_mut();
        // SAFETY: a context and a variable.
        unsafe { assert_eq!(self.c.api.dequeue.unwrap()(self.c.ctx, port, &mut task), 0) };
        task
    }

    fn enqueue(&self, port: i32, task: MppTask) -> i32 {
        // SAFETY: a context and a task.
        unsafe { self.c.api.enqueue.unwrap()(self.c.ctx, port, task) }
    }

    fn start(&self, packet: MppPacket, frame: Option<MppFrame>) {
        assert_eq!(self.poll(MPP_PORT_INPUT, 8000), 0);
        let task = self.task(MPP_PORT_INPUT);
        let s = self.c.sim.s;
        // SAFETY: a task and its objects.
        unsafe {
            assert_eq!((s.mpp_task_meta_set_packet)(task, KEY_INPUT_PACKET, packet), 0);
            if let Some(frame) = frame {
                assert_eq!((s.mpp_task_meta_set_frame)(task, KEY_OUTPUT_FRAME, frame), 0);
            }
        }
        assert_eq!(self.enqueue(MPP_PORT_INPUT, task), 0);
    }

    /// The frame that comes out; frees its packet.
    fn finish(&self, packet: MppPacket) -> MppFrame {
        // The longest that the library waits, and again.
        assert!((0..4).any(|_| self.poll(MPP_PORT_OUTPUT, 8000) == 0));
        let task = self.task(MPP_PORT_OUTPUT);
        let s = self.c.sim.s;
        let (mut frame, mut back) = (null_mut(), null_mut());
        // SAFETY: a task and variables.
        unsafe {
            assert_eq!((s.mpp_task_meta_get_frame)(task, KEY_OUTPUT_FRAME, &mut frame), 0);
            assert_eq!(
                (s.mpp_meta_get_packet)((s.mpp_frame_get_meta)(frame), KEY_INPUT_PACKET, &mut back),
                0
            );
        }
        assert_eq!(back, packet);
        assert_eq!(self.c.sim.free_packet(back), 0);
        assert_eq!(self.enqueue(MPP_PORT_OUTPUT, task), 0);
        frame
    }

    fn close(self) {
        let sim = self.c.sim;
        assert_eq!(self.c.reset(), 0);
        assert_eq!(self.c.destroy(), 0);
        sim.put_group(self.group);
    }

    fn picture(&self, frame: MppFrame) -> (Told, Option<Picture>) {
        let helper = |f: &dyn Fn(MppFrame) -> u32| f(frame);
        let s = self.c.sim.s;
        // SAFETY: a frame.
        unsafe {
            let told = Told {
                width: helper(&|f| (s.mpp_frame_get_width)(f)),
                height: helper(&|f| (s.mpp_frame_get_height)(f)),
                hor_stride: helper(&|f| (s.mpp_frame_get_hor_stride)(f)),
                ver_stride: helper(&|f| (s.mpp_frame_get_ver_stride)(f)),
                fmt: (s.mpp_frame_get_fmt)(frame),
                errinfo: (s.mpp_frame_get_errinfo)(frame),
                pts: (s.mpp_frame_get_pts)(frame),
                ..Told::default()
            };
            let memory = self.c.sim.memory((s.mpp_frame_get_buffer)(frame));
            let picture = (told.errinfo == 0).then(|| read_picture(&told, memory));
            (told, picture)
        }
    }
}

fn jpegs(count: u32, chroma: Chroma) -> Vec<sim_codec::Coded> {
    let config = sim_codec::EncoderConfig {
        rate: RateControl::jpeg_quality(95),
        chroma,
        ..sim_codec::EncoderConfig::new(Codec::Mjpeg, 328, 248)
    };
    stream(config, count)
}

#[test]
fn pictures_through_tasks_in_every_release() {
    for release in rockchip_mpp_sim::Release::ALL {
        let sim = Sim::new(&format!("release={}", release.name()));
        let jpeg = Jpeg::open(&sim);
        for (n, coded) in (0..).zip(jpegs(3, Chroma::Yuv420)) {
            let packet = jpeg.packet(&coded.data, coded.pts);
            jpeg.start(packet, Some(jpeg.frame(336 * 256 * 2)));
            let frame = jpeg.finish(packet);
            let (told, picture) = jpeg.picture(frame);
            assert_eq!((told.width, told.height, told.pts, told.errinfo), (328, 248, coded.pts, 0));
            assert_eq!((told.hor_stride, told.ver_stride), (336, 256));
            let want = Picture::test_pattern(328, 248, n);
            assert!(psnr(&want, &picture.unwrap()).unwrap()[0] > 35.0);
            sim.free_frame(frame);
        }
        jpeg.close();
        sim.is_clean();
    }
}

#[test]
fn other_sampling_is_kept() {
    let sim = Sim::new("");
    let jpeg = Jpeg::open(&sim);
    let packet = jpeg.packet(&jpegs(1, Chroma::Yuv422)[0].data, 0);
    jpeg.start(packet, Some(jpeg.frame(336 * 256 * 2)));
    let frame = jpeg.finish(packet);
    assert_eq!(jpeg.picture(frame).0.fmt, MPP_FMT_YUV422SP);
    sim.free_frame(frame);
    jpeg.close();
    sim.is_clean();
}

#[test]
fn a_packet_outside_of_a_buffer_gives_an_errored_frame() {
    let sim = Sim::new("");
    let jpeg = Jpeg::open(&sim);
    let data = &jpegs(1, Chroma::Yuv420)[0].data;
    let mut packet = null_mut();
    // SAFETY: variables; the data lives until the picture is out.
    unsafe {
        assert_eq!((sim.s.mpp_packet_init)(&mut packet, data.as_ptr().cast_mut().cast(), data.len()), 0)
    };
    jpeg.start(packet, Some(jpeg.frame(336 * 256 * 2)));
    let frame = jpeg.finish(packet);
    assert_ne!(jpeg.picture(frame).0.errinfo, 0);
    sim.free_frame(frame);
    jpeg.close();
    sim.is_clean();
}

#[test]
fn without_an_output_frame_nothing_comes_for_ever() {
    let sim = Sim::new("");
    let jpeg = Jpeg::open(&sim);
    let packet = jpeg.packet(&jpegs(1, Chroma::Yuv420)[0].data, 0);
    jpeg.start(packet, None);
    assert_eq!(jpeg.poll(MPP_PORT_OUTPUT, 200), MPP_NOK);
    sim.free_packet(packet);
    jpeg.close();
}

#[test]
fn a_small_output_buffer_gives_an_errored_frame() {
    let sim = Sim::new("");
    let jpeg = Jpeg::open(&sim);
    let packet = jpeg.packet(&jpegs(1, Chroma::Yuv420)[0].data, 0);
    jpeg.start(packet, Some(jpeg.frame(328 * 248 * 3 / 2)));
    let frame = jpeg.finish(packet);
    assert_ne!(jpeg.picture(frame).0.errinfo, 0);
    sim.free_frame(frame);
    jpeg.close();
    sim.is_clean();
}

#[test]
fn broken_data_and_hardware_give_errored_frames() {
    let sim = Sim::new("hw-error-at=2");
    let jpeg = Jpeg::open(&sim);
    let good = &jpegs(1, Chroma::Yuv420)[0].data;
    let seen: Vec<_> = [&[0x5a; 500][..], good, good]
        .into_iter()
        .map(|data| {
            let packet = jpeg.packet(data, 0);
            jpeg.start(packet, Some(jpeg.frame(336 * 256 * 2)));
            let frame = jpeg.finish(packet);
            let bad = jpeg.picture(frame).0.errinfo != 0;
            sim.free_frame(frame);
            bad
        })
        .collect();
    assert_eq!(seen, [true, true, false]);
    jpeg.close();
    sim.is_clean();
}

#[test]
fn put_and_get_work_from_1_0_8_on() {
    for (release, works) in [("1.0.0", false), ("1.0.4", false), ("1.0.8", true), ("1.0.11", true)] {
        let sim = Sim::new(&format!("release={release}"));
        let jpeg = Jpeg::open(&sim);
        let packet = jpeg.packet(&jpegs(1, Chroma::Yuv420)[0].data, 5);
        let frame = jpeg.frame(336 * 256 * 2);
        let mut out = null_mut();
        // SAFETY: objects of this library.
        unsafe {
            let meta = (sim.s.mpp_packet_get_meta)(packet);
            assert_eq!((sim.s.mpp_meta_set_frame)(meta, KEY_OUTPUT_FRAME, frame), 0);
            let put = jpeg.c.api.decode_put_packet.unwrap();
            for _ in 0..3 {
                let code = put(jpeg.c.ctx, packet);
                assert_eq!(code, if works { 0 } else { MPP_ERR_BUFFER_FULL }, "{release}");
                if works {
                    break;
                }
            }
            for _ in 0..if works { PATIENCE } else { 0 } {
                assert_eq!(jpeg.c.api.decode_get_frame.unwrap()(jpeg.c.ctx, &mut out), 0);
                if !out.is_null() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if works {
            assert_eq!(out, frame);
            assert!(jpeg.picture(frame).1.is_some());
        }
        sim.free_packet(packet);
        sim.free_frame(frame);
        jpeg.close();
        sim.is_clean();
    }
}

#[test]
fn tasks_are_few_and_have_to_come_back() {
    let sim = Sim::new("");
    let jpeg = Jpeg::open(&sim);
    let tasks: Vec<_> = (0..4).map(|_| jpeg.task(MPP_PORT_INPUT)).collect();
    assert_eq!(jpeg.poll(MPP_PORT_INPUT, 0), MPP_NOK);
    // Given back undone, to the port where done ones go.
    for task in &tasks[1..] {
        assert_eq!(jpeg.enqueue(MPP_PORT_OUTPUT, *task), 0);
    }
    sim.is_misuse("no task", || assert_eq!(jpeg.enqueue(MPP_PORT_OUTPUT, tasks[1]), MPP_ERR_NULL_PTR));
    let group = jpeg.group;
    jpeg.c.destroy();
    assert_eq!(sim.count("leaked"), 1);
    sim.put_group(group);
}
