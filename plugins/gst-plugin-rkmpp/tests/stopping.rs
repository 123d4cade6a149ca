// SPDX-License-Identifier: MPL-2.0

//! A pipeline that is stopped before it has come far: whatever the element is at, that is no error.
//!
//! Only sources and sinks stand beside the element: an element of GStreamer's base class for filters, as a capsfilter,
//! refuses events when its own source pad is closed already, and then the source tells of an "Internal data stream error"
//! ("error (-5)" or "not-negotiated (-4)"), with our element or without it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Running, Simulator, cycles, enc};
use gst::prelude::*;
use sim_codec::Codec;
use streams::*;

/// The errors that are told from now on, also while the pipeline stops: the bus forgets those.
fn errors(running: &Running) -> Arc<Mutex<Vec<String>>> {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let inner = errors.clone();
    running.pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            inner.lock().unwrap().push(format!("{} {:?}", error.error(), error.debug()));
        }
        gst::BusSyncReply::Drop
    });
    errors
}

/// Starts, gives it buffers, and stops it `cycle` moments later.
fn start_and_stop(running: &Running, buffers: &[gst::Buffer], cycle: usize) {
    let errors = errors(running);
    running.play();
    let source = running.element("src");
    for buffer in buffers {
        let _ = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[buffer]);
    }
    // From before the first buffer has come to after the last.
    std::thread::sleep(Duration::from_micros(cycle as u64 * 150));
    running.pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(*errors.lock().unwrap(), Vec::<String>::new(), "{cycle}");
}

#[test]
fn an_encoder() {
    let simulator = Simulator::new("codec=instant");
    let frames: Vec<_> = (0..20)
        .map(|number| {
            let mut frame = gst::Buffer::from_mut_slice(vec![0x80; 320 * 240 * 3 / 2]);
            frame.get_mut().unwrap().set_pts(time(number));
            frame
        })
        .collect();
    for cycle in 0..cycles() {
        let running = Running::new(&format!(
            "appsrc name=src format=time caps=video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! {} \
             ! fakesink name=out sync=false",
            enc("")
        ));
        start_and_stop(&running, &frames, cycle);
    }
    simulator.assert_clean();
}

#[test]
fn a_decoder() {
    let simulator = Simulator::new("");
    let packets = [Codec::H264, Codec::Mjpeg]
        .map(|codec| (codec, stream(good(codec, 320, 240), 20).iter().map(buffer).collect::<Vec<_>>()));
    for cycle in 0..cycles() {
        let (codec, packets) = &packets[cycle % 2];
        start_and_stop(&pipeline(*codec, "", ""), packets, cycle);
    }
    simulator.assert_clean();
}
