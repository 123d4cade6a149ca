// SPDX-License-Identifier: MIT OR Apache-2.0

//! A decoder's application.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use sim_codec::{Chroma, Codec, Coded, Encoder, EncoderConfig, Plane, RateControl};

/// Tries, a millisecond each, for what has to come.
pub const PATIENCE: u32 = 30_000;

/// A coded stream of the test pattern.
pub fn stream(config: EncoderConfig, count: u32) -> Vec<Coded> {
    let mut encoder = Encoder::new(config).unwrap();
    let picture = |n| Picture::test_pattern(config.width, config.height, n);
    let mut coded: Vec<_> =
        (0..count).flat_map(|n| encoder.encode(&picture(n), n.into(), false).unwrap()).collect();
    coded.extend(encoder.finish().unwrap());
    coded
}

/// A configuration of good quality.
pub fn good(codec: Codec, width: usize, height: usize) -> EncoderConfig {
    let qp = match codec {
        Codec::H264 | Codec::H265 => 20,
        Codec::Vp8 => 10,
        _ => 2,
    };
    EncoderConfig { rate: RateControl::fixed(codec, qp), ..EncoderConfig::new(codec, width, height) }
}

/// What a frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub width: u32,
    pub height: u32,
    pub hor_stride: u32,
    pub ver_stride: u32,
    pub fmt: i32,
    pub buf_size: usize,
    pub info_change: bool,
    pub eos: bool,
    pub errinfo: u32,
    pub pts: i64,
    pub buffer: bool,
}

/// A decoder and its buffers.
pub struct Dec<'a> {
    pub c: Ctx<'a>,
    pub group: MppBufferGroup,
    /// Buffers in the group.
    pub count: i32,
    /// Changes of format that were answered.
    pub changes: Vec<Told>,
}

impl<'a> Dec<'a> {
    pub fn open(sim: &'a Sim, coding: i32) -> Self {
        let c = Ctx::create(sim);
        assert_eq!(c.init(MPP_CTX_DEC, coding), 0);
        Self { c, group: sim.internal_group(), count: 12, changes: Vec::new() }
    }

    /// Puts a packet; the code.
    pub fn put(&self, data: &[u8], pts: i64, eos: bool) -> i32 {
        let s = self.c.sim.s;
        let mut packet = null_mut();
        // SAFETY: variables; the data lives until the packet was put, which copies it.
        unsafe {
            assert_eq!((s.mpp_packet_init)(&mut packet, data.as_ptr().cast_mut().cast(), data.len()), 0);
            (s.mpp_packet_set_pts)(packet, pts);
            if eos {
                (s.mpp_packet_set_eos)(packet);
            }
            let code = self.c.api.decode_put_packet.unwrap()(self.c.ctx, packet);
            assert_eq!((s.mpp_packet_get_length)(packet), if code == 0 { 0 } else { data.len() });
            assert_eq!((s.mpp_packet_deinit)(&mut packet), 0);
            code
        }
    }

    pub fn get_frame(&self) -> (i32, MppFrame) {
        let mut frame = null_mut();
        // SAFETY: a context and a variable.
        let code = unsafe { self.c.api.decode_get_frame.unwrap()(self.c.ctx, &mut frame) };
        (code, frame)
    }

    pub fn told(&self, frame: MppFrame) -> Told {
        let s = self.c.sim.s;
        // SAFETY: a frame.
        unsafe {
            Told {
                width: (s.mpp_frame_get_width)(frame),
                height: (s.mpp_frame_get_height)(frame),
                hor_stride: (s.mpp_frame_get_hor_stride)(frame),
                ver_stride: (s.mpp_frame_get_ver_stride)(frame),
                fmt: (s.mpp_frame_get_fmt)(frame),
                buf_size: (s.mpp_frame_get_buf_size)(frame),
                info_change: (s.mpp_frame_get_info_change)(frame) != 0,
                eos: (s.mpp_frame_get_eos)(frame) != 0,
                errinfo: (s.mpp_frame_get_errinfo)(frame),
                pts: (s.mpp_frame_get_pts)(frame),
                buffer: !(s.mpp_frame_get_buffer)(frame).is_null(),
            }
        }
    }

    /// Gives the decoder buffers for a new format.
    pub fn answer(&mut self, told: Told) {
        let s = self.c.sim.s;
        // SAFETY: a group and a context.
        unsafe {
            assert_eq!((s.mpp_buffer_group_clear)(self.group), 0);
            assert_eq!((s.mpp_buffer_group_limit_config)(self.group, told.buf_size, self.count), 0);
        }
        assert_eq!(self.c.control(MPP_DEC_SET_EXT_BUF_GROUP, self.group.cast()), 0);
        assert_eq!(self.c.control(MPP_DEC_SET_INFO_CHANGE_READY, null_mut()), 0);
        self.changes.push(told);
    }

    /// The picture of a frame.
    pub fn picture(&self, frame: MppFrame) -> Picture {
        let told = self.told(frame);
        // SAFETY: a frame.
        let buffer = unsafe { (self.c.sim.s.mpp_frame_get_buffer)(frame) };
        read_picture(&told, self.c.sim.memory(buffer))
    }

    /// The next picture or mark of the end, with changes of format answered; none if there is none within a while.
    pub fn next(&mut self, patience: u32) -> Option<(Told, Option<Picture>)> {
        for _ in 0..patience {
            let (code, frame) = self.get_frame();
            if frame.is_null() {
                assert_eq!(code, 0);
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            let told = self.told(frame);
            if told.info_change {
                assert!(!told.buffer);
                self.answer(told);
                assert_eq!(self.c.sim.free_frame(frame), 0);
                continue;
            }
            let picture = (told.buffer).then(|| self.picture(frame));
            assert_eq!(self.c.sim.free_frame(frame), 0);
            return Some((told, picture));
        }
        None
    }

    /// Decodes a whole stream to its end.
    pub fn all(&mut self, stream: &[Coded]) -> Vec<(Told, Option<Picture>)> {
        let mut out = Vec::new();
        let packets = stream.iter().map(|c| (&c.data[..], c.pts, false)).chain([(&[][..], -1, true)]);
        for (data, pts, eos) in packets {
            let mut tries = 0;
            while self.put(data, pts, eos) != 0 {
                out.extend(self.next(2));
                tries += 1;
                assert!(tries < 15_000, "the decoder takes no more");
            }
            while let Some(one) = self.next(1) {
                out.push(one);
            }
        }
        while !out.last().is_some_and(|(told, _)| told.eos) {
            out.push(self.next(PATIENCE).expect("an end"));
        }
        out
    }

    pub fn close(self) {
        let sim = self.c.sim;
        assert_eq!(self.c.reset(), 0);
        assert_eq!(self.c.destroy(), 0);
        sim.put_group(self.group);
    }
}

/// Reads NV12, NV16 or NV15 as a frame describes it.
pub fn read_picture(told: &Told, data: &[u8]) -> Picture {
    let (width, height) = (told.width as usize, told.height as usize);
    let (stride, rows) = (told.hor_stride as usize, told.ver_stride as usize);
    let format = match told.fmt {
        MPP_FMT_YUV420SP => RawFormat::Nv12,
        MPP_FMT_YUV422SP => RawFormat::Nv16,
        MPP_FMT_YUV420SP_10BIT => return read_nv15(width, height, stride, rows, data),
        other => panic!("format {other}"),
    };
    Picture::from_raw(&sim_codec::RawImage { format, width, height, stride, rows, data }).unwrap()
}

fn read_nv15(width: usize, height: usize, stride: usize, rows: usize, data: &[u8]) -> Picture {
    let sample = |offset: usize, row: usize, index: usize| {
        let bit = index * 10;
        let at = offset + row * stride + bit / 8;
        (u16::from_le_bytes([data[at], data[at + 1]]) >> (bit % 8)) & 0x3ff
    };
    let plane = |width: usize, height: usize, f: &dyn Fn(usize, usize) -> u16| {
        let mut bytes = Vec::new();
        for y in 0..height {
            for x in 0..width {
                bytes.extend(f(x, y).to_le_bytes());
            }
        }
        Plane { width, height, sample: 2, data: bytes }
    };
    let (w, h) = Chroma::Yuv420.plane_size(width, height);
    let chroma = stride * rows;
    let planes = [
        plane(width, height, &|x, y| sample(0, y, x)),
        plane(w, h, &|x, y| sample(chroma, y, 2 * x)),
        plane(w, h, &|x, y| sample(chroma, y, 2 * x + 1)),
    ];
    Picture { width, height, chroma: Chroma::Yuv420, depth: 10, planes }
}
