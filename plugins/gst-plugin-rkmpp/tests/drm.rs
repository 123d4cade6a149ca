// SPDX-License-Identifier: MPL-2.0

//! Caps with the kernel's names of formats (`DMA_DRM`), which GStreamer has from 1.24 on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;
#[path = "common/dec.rs"]
mod streams;

use common::{Running, Simulator, enc};
use gst::prelude::*;
use sim_codec::Codec;
use streams::*;

/// On older ones there is nothing to be tried: these caps mean nothing there.
fn known() -> bool {
    common::init();
    gst::version() >= (1, 24, 0, 0)
}

#[test]
fn they_are_offered_where_gstreamer_has_them() {
    let known = known();
    for (element, pad) in [("rkmppenc", "sink"), ("rkmppdec", "src")] {
        let factory = gst::ElementFactory::find(element).unwrap();
        let templates = factory.static_pad_templates();
        let template = templates.iter().find(|template| template.name_template() == pad).unwrap();
        let caps = template.caps().to_string();
        assert_eq!(caps.contains("DMA_DRM") && caps.contains("drm-format"), known, "{caps}");
    }
}

const DRM: &str = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string)NV12";

/// Decodes and encodes; with `between`, a filter for the pictures.
fn through(between: &str) -> (Running, gst::Element, gst::Element) {
    let rest = format!("{between} {} ! video/x-h264 !", enc("rate-control=fixqp qp-init=24"));
    let running = pipeline(Codec::H265, "", &rest);
    running.play();
    feed(&running, &stream(good(Codec::H265, 640, 480), 20));
    let (decoder, encoder) = (running.element("dec"), running.element("enc"));
    (running, decoder, encoder)
}

#[test]
fn pictures_go_from_decoder_to_encoder_under_them() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let coded = |between: &str| {
        let (running, decoder, encoder) = through(between);
        end(&running);
        let made = running.finish();
        assert!(made.errors.is_empty() && made.warnings.is_empty(), "{made:?}");
        let count = |element: &gst::Element, field: &str| {
            element.property::<gst::Structure>("stats").get::<u64>(field).unwrap()
        };
        assert_eq!((count(&decoder, "frames-out"), count(&decoder, "frames-copied")), (20, 0));
        assert_eq!((count(&encoder, "frames-imported"), count(&encoder, "frames-copied")), (20, 0));
        made.buffers.iter().map(|buffer| buffer.map_readable().unwrap().to_vec()).collect::<Vec<_>>()
    };
    let plain = coded("");
    assert_eq!(plain.len(), 20);
    assert!(coded(&format!("{DRM} !")) == plain);
    simulator.assert_clean();
}

#[test]
fn a_change_that_the_base_class_hides_is_an_error() {
    if !known() {
        return;
    }
    let simulator = Simulator::new("");
    let (running, _, encoder) = through(&format!("{DRM} !"));
    running.wait_for(5);
    let pad = encoder.static_pad("sink").unwrap();
    let mut caps = pad.current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<&str>("drm-format"), Ok("NV12"));
    caps.make_mut().set("drm-format", "NV21");
    assert!(!pad.send_event(gst::event::Caps::new(&caps)));
    let made = running.finish();
    assert!(made.errors.first().is_some_and(|error| error.contains("changes from NV12 to NV21")), "{made:?}");
    drop((made, encoder));
    simulator.assert_clean();
}
