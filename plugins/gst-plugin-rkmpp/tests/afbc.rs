// SPDX-License-Identifier: MPL-2.0

//! Compressed pixels (AFBC): out of the decoder where downstream takes them, and into the encoder.
//!
//! Their caps are of GStreamer 1.24; what has to do with them is tried there only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use std::time::{Duration, Instant};

use common::{Outcome, PATIENCE, Running, Simulator, enc};
use gst::prelude::*;
use gst_allocators::prelude::*;
use sim_codec::{Afbc, Chroma, Codec, EncoderConfig, Picture, psnr};
use streams::*;

fn known() -> bool {
    common::init();
    gst::version() >= (1, 24, 0, 0)
}

/// A filter for dma-bufs with these of the kernel's formats.
fn dma(formats: &str) -> String {
    format!("video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string){formats}")
}

const YU08: &str = "YU08:0x0800000000000041";
const YU10: &str = "YU10:0x0800000000000041";

/// Downstream reads strides, and cuts borders off if told so.
fn reads(running: &Running, crops: bool) {
    let sink = running.element("out").static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        if let Some(gst::QueryViewMut::Allocation(query)) = info.query_mut().map(|query| query.view_mut()) {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
            if crops {
                query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
            }
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// Decodes with `arm-afbc` for this downstream. Made of `counts`: pictures out, copied; whether they were compressed.
fn decoded(config: &EncoderConfig, count: u32, filter: &str, crops: bool) -> (Outcome, (u64, u64, bool)) {
    let running = pipeline(config.codec, "arm-afbc=true", &format!("{filter} !"));
    reads(&running, crops);
    running.play();
    feed(&running, &stream(*config, count));
    end(&running);
    let element = running.element("dec");
    let made = running.finish();
    let stats: gst::Structure = element.property("stats");
    let counts = (
        stats.get("frames-out").unwrap(),
        stats.get("frames-copied").unwrap(),
        stats.get("compressed").unwrap(),
    );
    assert_eq!(stats.get("restarts"), Ok(0_u64));
    (made, counts)
}

/// The picture in a compressed buffer.
fn compressed_picture(buffer: &gst::Buffer, caps: &gst::Caps) -> Picture {
    let structure = caps.structure(0).unwrap();
    assert_eq!(structure.get("format"), Ok("DMA_DRM"));
    let (depth, bits) = match structure.get::<&str>("drm-format").unwrap() {
        YU08 => (8, 12),
        YU10 => (10, 15),
        other => panic!("{other}"),
    };
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!((meta.n_planes(), meta.offset()), (1, &[0][..]));
    let offset = buffer.meta::<gst_video::VideoCropMeta>().map_or((0, 0), |meta| {
        let (x, y, width, height) = meta.rect();
        assert_eq!((Ok(width as i32), Ok(height as i32)), (structure.get("width"), structure.get("height")));
        (x as usize, y as usize)
    });
    let afbc = Afbc {
        stride: meta.stride()[0] as usize * 8 / bits,
        rows: (meta.height() as usize).next_multiple_of(16),
        chroma: Chroma::Yuv420,
        depth,
        offset,
    };
    let size = |field| structure.get::<i32>(field).unwrap() as usize;
    afbc.read((size("width"), size("height")), &buffer.map_readable().unwrap()).unwrap()
}

/// Each picture is compressed, and looks like the one that was encoded.
fn compare_compressed(outcome: &Outcome, config: &EncoderConfig, count: u32) {
    assert!(outcome.errors.is_empty() && outcome.warnings.is_empty(), "{outcome:?}");
    assert_eq!(outcome.buffers.len(), count as usize);
    for (number, buffer) in (0..).zip(&outcome.buffers) {
        assert_eq!(buffer.pts(), Some(time(number.into())));
        let made = compressed_picture(buffer, outcome.caps.last().unwrap());
        let worst = psnr(&pattern(config, number), &made).unwrap();
        assert!(worst.into_iter().all(|psnr| psnr > 30.0), "{config:?} {number}: {worst:?}");
        assert!(!buffer.peek_memory(0).flags().contains(gst::MemoryFlags::NOT_MAPPABLE));
        assert!(buffer.peek_memory(0).flags().contains(gst::MemoryFlags::READONLY));
    }
}

#[test]
fn they_come_where_downstream_takes_them() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let both = format!("{{ {YU08}, {YU10} }}");
    for config in [
        good(Codec::H264, 328, 248),
        good(Codec::H265, 320, 240),
        EncoderConfig { depth: 10, ..good(Codec::H265, 320, 240) },
        good(Codec::Vp9, 320, 240),
    ] {
        let (made, counts) = decoded(&config, 8, &dma(&both), true);
        assert_eq!(counts, (8, 0, true), "{made:?}");
        compare_compressed(&made, &config, 8);
    }
    // Who takes both gets what was asked for.
    let config = good(Codec::H264, 320, 240);
    let (made, counts) = decoded(&config, 8, &dma(&format!("{{ NV12, {YU08} }}")), true);
    assert_eq!(counts, (8, 0, true));
    compare_compressed(&made, &config, 8);
    drop(made);
    simulator.assert_clean();
}

#[test]
fn whoever_takes_others_gets_others() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let config = good(Codec::H264, 320, 240);
    // In lines under both names of the format; anything at all; codecs that are never compressed.
    for (config, filter) in [
        (config, "video/x-raw(memory:DMABuf),format=NV12"),
        (config, "video/x-raw,format=NV12"),
        (config, "identity"),
        (good(Codec::Av1, 336, 240), "video/x-raw"),
        (good(Codec::Vp8, 320, 240), "video/x-raw"),
    ] {
        let (made, counts) = decoded(&config, 4, filter, true);
        assert_eq!(counts, (4, 0, false), "{filter}");
        compare(&made, &config, 4, 30.0);
    }
    let (made, counts) = decoded(&config, 4, &dma("NV12"), true);
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(counts, (4, 0, false));
    drop(made);
    let both = format!("{}; video/x-raw", dma(&format!("{{ NV12, {YU08} }}")));
    let (made, counts) = decoded(&good(Codec::Av1, 336, 240), 4, &both, true);
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!(counts, (4, 0, false));
    drop(made);
    simulator.assert_clean();
}

#[test]
fn nothing_is_lost_when_they_turn_out_to_be_of_no_use() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    // Ten bits, which the caps did not say, and of which downstream takes only unpacked ones.
    let config = EncoderConfig { depth: 10, ..good(Codec::H265, 320, 240) };
    let filter = format!("{}; video/x-raw,format=P010_10LE", dma(YU08));
    let (made, counts) = decoded(&config, 12, &filter, true);
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    assert_eq!((made.buffers.len(), counts), (12, (12, 12, false)));
    drop(made);
    // Four lines above the picture that downstream does not cut off.
    for (codec, count) in [(Codec::H264, 6), (Codec::H265, 1)] {
        let config = good(codec, 320, 240);
        let filter = format!("{}; video/x-raw,format=NV12", dma(YU08));
        let (made, counts) = decoded(&config, count, &filter, false);
        assert_eq!(counts, (count.into(), 0, false));
        compare(&made, &config, count, 30.0);
    }
    // VP9 has no such lines.
    let config = good(Codec::Vp9, 320, 240);
    let (made, counts) = decoded(&config, 4, &dma(YU08), false);
    assert_eq!(counts, (4, 0, true));
    compare_compressed(&made, &config, 4);
    drop(made);
    simulator.assert_clean();
}

#[test]
fn what_cannot_be_agreed_on_is_told() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let packets = stream(good(Codec::H264, 320, 240), 4);
    let errors = decode(Codec::H264, &packets, "", &format!("{} !", dma(YU08))).errors;
    assert!(errors[0].contains("Set arm-afbc=true"), "{errors:?}");
    let errors = decoded(&good(Codec::H264, 320, 240), 4, &dma(YU08), false).0.errors;
    assert!(errors[0].contains("GstVideoCropMeta"), "{errors:?}");
    let errors = decoded(&good(Codec::Av1, 320, 240), 4, &dma(YU08), true).0.errors;
    assert!(errors[0].contains("takes no NV12 pictures"), "{errors:?}");
    simulator.assert_clean();
}

/// What the encoder makes of decoded pictures, and how many of them it imported and copied.
fn transcoded(properties: &str, rest: &str) -> (Vec<Vec<u8>>, (u64, u64), bool) {
    let running =
        pipeline(Codec::H265, properties, &format!("{} ! {rest} !", enc("rate-control=fixqp qp-init=24")));
    running.play();
    feed(&running, &stream(good(Codec::H265, 640, 480), 20));
    end(&running);
    let (decoder, encoder) = (running.element("dec"), running.element("enc"));
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    let stats: gst::Structure = encoder.property("stats");
    let counts = (stats.get("frames-imported").unwrap(), stats.get("frames-copied").unwrap());
    let compressed = decoder.property::<gst::Structure>("stats").get("compressed").unwrap();
    let data = made.buffers.iter().map(|buffer| buffer.map_readable().unwrap().to_vec()).collect();
    (data, counts, compressed)
}

#[test]
fn the_encoder_reads_them_where_they_lie() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let (plain, counts, compressed) = transcoded("", "video/x-h264");
    assert_eq!((plain.len(), counts, compressed), (20, (20, 0), false));
    // The same pictures: compression loses nothing.
    let (same, counts, compressed) = transcoded("arm-afbc=true", "video/x-h264");
    assert_eq!((counts, compressed), ((20, 0), true));
    assert!(same == plain);
    let (turned, counts, compressed) = transcoded("arm-afbc=true", "video/x-h265");
    assert_eq!((turned.len(), counts, compressed), (20, (20, 0), true));
    // Encoders that do not read them get others.
    for other in ["image/jpeg", "video/x-vp8"] {
        let (made, counts, compressed) = transcoded("arm-afbc=true", other);
        assert_eq!((made.len(), counts, compressed), (20, (20, 0), false), "{other}");
    }
    simulator.assert_clean();
}

#[test]
fn downstream_may_change_its_mind() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let config = EncoderConfig { gop: 5, ..good(Codec::H264, 320, 240) };
    let packets = stream(config, 40);
    let running = pipeline(Codec::H264, "arm-afbc=true", "capsfilter name=filter !");
    reads(&running, true);
    let filter = running.element("filter");
    let set = |caps: &str| filter.set_property("caps", caps.parse::<gst::Caps>().unwrap());
    set(&dma(YU08));
    running.play();
    let is_compressed = |wanted: bool| {
        let begin = Instant::now();
        while running.stats().get::<bool>("compressed") != Ok(wanted) {
            assert!(begin.elapsed() < PATIENCE, "{:?}", running.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    feed(&running, &packets[..10]);
    running.wait_for(4);
    is_compressed(true);
    set("video/x-raw,format=NV12");
    feed(&running, &packets[10..30]);
    is_compressed(false);
    // The sink keeps what it gets, of compressed pictures no more than a decoder has buffers. At most five frames are lost.
    running.wait_for(25);
    set(&dma(YU08));
    feed(&running, &packets[30..]);
    // The decoder changes with the next packet, or the end.
    end(&running);
    let made = running.finish();
    assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
    // Between two keyframes, what waited for its picture is lost.
    assert_eq!(made.buffers.last().unwrap().pts(), Some(time(39)));
    let last = compressed_picture(made.buffers.last().unwrap(), made.caps.last().unwrap());
    assert!(psnr(&pattern(&config, 39), &last).unwrap()[0] > 30.0);
    drop((made, filter));
    simulator.assert_clean();
}

/// A dma-buf of a compressed picture; `stride` in bytes as the kernel reckons it.
fn frame(index: u64, size: usize, stride: i32) -> gst::Buffer {
    let afbc = Afbc { stride: 320, rows: 240, chroma: Chroma::Yuv420, depth: 8, offset: (0, 0) };
    let mut data = vec![0; afbc.size()];
    afbc.write(&Picture::test_pattern(320, 240, index as u32), &mut data).unwrap();
    let fd = rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&fd, &data[..size.min(data.len())]).unwrap(), size.min(data.len()));
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: the descriptor is this memory's from now on.
    let memory = unsafe { allocator.alloc_dmabuf(fd, size.min(data.len())) }.unwrap();
    let mut buffer = gst::Buffer::new();
    let inner = buffer.get_mut().unwrap();
    inner.append_memory(memory);
    inner.set_pts(gst::ClockTime::from_mseconds(33 * index));
    // SAFETY: the buffer is writable, the arrays have four elements each.
    unsafe {
        gst_video::ffi::gst_buffer_add_video_meta_full(
            inner.as_mut_ptr(),
            0,
            gst_video::ffi::GST_VIDEO_FORMAT_ENCODED,
            320,
            240,
            1,
            &[0; 4],
            &[stride, 0, 0, 0],
        );
    }
    buffer
}

#[test]
fn the_encoder_leaves_out_what_is_none() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let element = gst::ElementFactory::make("rkmppenc")
        .property("library-path", common::simulator().to_str().unwrap())
        .build()
        .unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps_str(&format!("{},width=320,height=240,framerate=30/1", dma(YU08)));
    let whole = usize::MAX;
    let mut cropped = frame(1, whole, 480);
    gst_video::VideoCropMeta::add(cropped.get_mut().unwrap(), (0, 4, 320, 200));
    let mut shifted = frame(2, whole, 480);
    gst_video::VideoCropMeta::add(shifted.get_mut().unwrap(), (16, 0, 320, 240));
    let mut plain = gst::Buffer::from_slice(vec![0x80; 320 * 240 * 3 / 2]);
    plain.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(99));
    for (bad, reason) in [
        (frame(0, whole, 500), "the stride of its headers makes no sense"),
        (cropped, "another part of it is to be seen than the caps say"),
        (shifted, "its rows of headers are too short"),
        (plain, "it is no dma-buf"),
        (frame(4, 1000, 480), "it is too small"),
    ] {
        harness.push(bad).unwrap();
        let warning = bus.pop_filtered(&[gst::MessageType::Warning]).unwrap();
        let gst::MessageView::Warning(warning) = warning.view() else { panic!() };
        assert!(warning.error().to_string().contains(reason), "{reason}: {}", warning.error());
    }
    harness.push(frame(7, whole, 480)).unwrap();
    assert_eq!(harness.pull().unwrap().pts().unwrap().mseconds(), 33 * 7);
    let stats: gst::Structure = element.property("stats");
    assert_eq!((stats.get("frames-skipped"), stats.get("frames-imported")), (Ok(5_u64), Ok(1_u64)));
    drop(harness);
    element.set_state(gst::State::Null).unwrap();
    simulator.assert_clean();
}

#[test]
fn an_older_gstreamer_is_told_of() {
    if known() {
        return;
    }
    let simulator = Simulator::new("");
    let config = good(Codec::H264, 320, 240);
    let mut made = decode(Codec::H264, &stream(config, 4), "arm-afbc=true", "");
    let warnings = std::mem::take(&mut made.warnings);
    assert!(warnings.len() == 1 && warnings[0].contains("need GStreamer 1.24"), "{warnings:?}");
    compare(&made, &config, 4, 30.0);
    drop(made);
    simulator.assert_clean();
}
