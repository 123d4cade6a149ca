// SPDX-License-Identifier: MPL-2.0

//! Streams for the decoder, and what it makes of them.
#![allow(dead_code)] // Each test program uses a part of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

use gst::prelude::*;
use sim_codec::{
    Codec, Coded, Encoder, EncoderConfig, Picture, Plane, RateControl, RawFormat, RawImage, psnr,
};

use crate::common::{Outcome, Running, dec};

/// A configuration of good quality.
pub fn good(codec: Codec, width: usize, height: usize) -> EncoderConfig {
    let rate = match codec {
        Codec::H264 | Codec::H265 => RateControl::fixed(codec, 20),
        Codec::Vp8 => RateControl::fixed(codec, 10),
        Codec::Mjpeg => RateControl::jpeg_quality(95),
        _ => RateControl::fixed(codec, 2),
    };
    EncoderConfig { rate, ..EncoderConfig::new(codec, width, height) }
}

/// A coded stream of the test pattern.
pub fn stream(config: EncoderConfig, count: u32) -> Vec<Coded> {
    let mut encoder = Encoder::new(config).unwrap();
    let mut coded = Vec::new();
    for number in 0..count {
        let picture = pattern(&config, number);
        coded.extend(encoder.encode(&picture, number.into(), false).unwrap());
    }
    coded.extend(encoder.finish().unwrap());
    coded
}

pub fn pattern(config: &EncoderConfig, number: u32) -> Picture {
    Picture::test_pattern(config.width, config.height, number)
        .with_chroma(config.chroma)
        .with_depth(config.depth)
}

/// Caps of a stream, as its parser would give them.
pub fn caps(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "video/x-h264,stream-format=byte-stream,alignment=au,framerate=30/1",
        Codec::H265 => "video/x-h265,stream-format=byte-stream,alignment=au,framerate=30/1",
        Codec::Vp8 => "video/x-vp8,framerate=30/1",
        Codec::Vp9 => "video/x-vp9,framerate=30/1",
        Codec::Av1 => "video/x-av1,stream-format=obu-stream,alignment=tu,framerate=30/1",
        Codec::Mpeg1 => "video/mpeg,mpegversion=1,systemstream=false,parsed=true,framerate=30/1",
        Codec::Mpeg2 => "video/mpeg,mpegversion=2,systemstream=false,parsed=true,framerate=30/1",
        Codec::Mpeg4 => "video/mpeg,mpegversion=4,systemstream=false,parsed=true,framerate=30/1",
        Codec::H263 => "video/x-h263,framerate=30/1",
        Codec::Mjpeg => "image/jpeg,framerate=30/1",
    }
}

pub fn time(number: i64) -> gst::ClockTime {
    gst::ClockTime::SECOND.mul_div_floor(number as u64, 30).unwrap()
}

pub fn buffer(coded: &Coded) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(coded.data.clone());
    let inner = buffer.get_mut().unwrap();
    inner.set_pts(time(coded.pts));
    if !coded.key {
        inner.set_flags(gst::BufferFlags::DELTA_UNIT);
    }
    buffer
}

/// A pipeline with a source that is fed by [`feed`].
pub fn pipeline(codec: Codec, properties: &str, rest: &str) -> Running {
    Running::new(&format!(
        "appsrc name=src format=time caps=\"{}\" ! {} ! {rest} fakesink name=out sync=false",
        caps(codec),
        dec(properties)
    ))
}

pub fn feed(running: &Running, packets: &[Coded]) {
    let source = running.element("src");
    for packet in packets {
        let _ = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer(packet)]);
    }
}

pub fn end(running: &Running) {
    let _ = running.element("src").emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
}

/// Decodes a stream to its end.
pub fn decode(codec: Codec, packets: &[Coded], properties: &str, rest: &str) -> Outcome {
    let running = pipeline(codec, properties, rest);
    running.play();
    feed(&running, packets);
    end(&running);
    running.finish()
}

/// Downstream of the decoder reads strides and offsets, so that nothing has to be copied.
pub fn reads_strides(running: &Running) {
    let sink = running.element("out").static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(gst::QueryViewMut::Allocation(query)) = info.query_mut().map(|query| query.view_mut()) {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// The picture in a buffer: NV12, NV16, NV24 by the meta's strides or those of the caps.
pub fn picture(buffer: &gst::BufferRef, caps: &gst::Caps) -> Picture {
    let info = gst_video::VideoInfo::from_caps(caps).unwrap();
    let format = match info.format().to_str().as_str() {
        "NV12" => RawFormat::Nv12,
        "NV16" => RawFormat::Nv16,
        "NV24" => RawFormat::Nv24,
        "NV12_10LE40" => return nv15(buffer, &info),
        other => panic!("format {other}"),
    };
    let (stride, offset) = buffer
        .meta::<gst_video::VideoMeta>()
        .map_or_else(|| (info.stride()[0], info.offset()[1]), |meta| (meta.stride()[0], meta.offset()[1]));
    let stride = stride as usize;
    let map = buffer.map_readable().unwrap();
    let (width, height) = (info.width() as usize, info.height() as usize);
    Picture::from_raw(&RawImage { format, width, height, stride, rows: offset / stride, data: &map }).unwrap()
}

/// Ten bits a sample, one after the other from the lowest bit on.
fn nv15(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Picture {
    let (strides, offsets) = buffer.meta::<gst_video::VideoMeta>().map_or_else(
        || (info.stride().to_vec(), info.offset().to_vec()),
        |meta| (meta.stride().to_vec(), meta.offset().to_vec()),
    );
    let map = buffer.map_readable().unwrap();
    let (width, height) = (info.width() as usize, info.height() as usize);
    let sample = |plane: usize, row: usize, index: usize| {
        let bit = index * 10;
        let at = offsets[plane] + row * strides[plane] as usize + bit / 8;
        ((u16::from_le_bytes([map[at], map[at + 1]]) >> (bit % 8)) & 0x3ff).to_le_bytes()
    };
    let plane = |width: usize, height: usize, at: &dyn Fn(usize, usize) -> [u8; 2]| Plane {
        width,
        height,
        sample: 2,
        data: (0..height).flat_map(|y| (0..width).flat_map(move |x| at(y, x))).collect(),
    };
    let planes = [
        plane(width, height, &|y, x| sample(0, y, x)),
        plane(width / 2, height / 2, &|y, x| sample(1, y, 2 * x)),
        plane(width / 2, height / 2, &|y, x| sample(1, y, 2 * x + 1)),
    ];
    Picture { width, height, chroma: sim_codec::Chroma::Yuv420, depth: 10, planes }
}

/// Each picture looks like the one that was encoded, and has its time.
pub fn compare(outcome: &Outcome, config: &EncoderConfig, count: u32, least: f64) {
    let codec = config.codec;
    assert!(outcome.errors.is_empty() && outcome.warnings.is_empty(), "{codec:?}: {outcome:?}");
    assert_eq!(outcome.buffers.len(), count as usize, "{codec:?}");
    let caps = outcome.caps.last().unwrap();
    for (number, buffer) in (0..).zip(&outcome.buffers) {
        assert_eq!(buffer.pts(), Some(time(number.into())), "{codec:?}");
        let worst = psnr(&pattern(config, number), &picture(buffer, caps)).unwrap();
        let worst = worst.into_iter().fold(f64::INFINITY, f64::min);
        assert!(worst > least, "{codec:?}: picture {number} has {worst:.1} dB");
        assert!(!buffer.flags().contains(gst::BufferFlags::CORRUPTED), "{codec:?}: picture {number}");
    }
}
