// SPDX-License-Identifier: MPL-2.0

//! The encoders that are installed, measured: what they make of three bitrates in a row while they run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::*;

/// Frames for an encoder to settle after a change, and frames that are measured then.
const SETTLE: usize = 75;
const MEASURED: usize = 125;
/// A rate at which a frame lasts a whole number of nanoseconds.
const FRAMES_PER_SECOND: usize = 25;

/// Runs `launch`, an encoder with its settings, and checks its output at three bitrates.
fn follows(launch: &str) {
    gst::init().unwrap();
    let name = launch.split(' ').next().unwrap();
    if gst::ElementFactory::find(name).is_none() {
        // Debian's packages have it; other systems may not.
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed");
        println!("{name} is not installed: not measured");
        return;
    }
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc ! video/x-raw,format=I420,width=640,height=360,framerate={FRAMES_PER_SECOND}/1 ! \
         {launch} name=e ! fakesink name=s sync=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let end = pipeline.by_name("s").unwrap().static_pad("sink").unwrap();
    end.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        seen.lock().unwrap().extend(info.buffer().map(|buffer| buffer.size()));
        gst::PadProbeReturn::Ok
    });
    let hold = Hold::new(&encoder_of(&end).unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut measured = Vec::new();
    for target in [700_000u32, 1_400_000, 900_000] {
        let wish = Wish { bitrate: Some(target), active: true, max: u32::MAX, ..Wish::default() };
        assert_eq!(hold.wish(wish), Applied::Set(target.into()), "{name}");
        let begin = sizes.lock().unwrap().len() + SETTLE;
        let deadline = Instant::now() + Duration::from_secs(120);
        while sizes.lock().unwrap().len() < begin + MEASURED {
            let error = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
            assert!(error.is_none() && Instant::now() < deadline, "{name}: {error:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        let bytes: usize = sizes.lock().unwrap()[begin..begin + MEASURED].iter().sum();
        measured.push((f64::from(target), (bytes * 8 * FRAMES_PER_SECOND / MEASURED) as f64));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    // With --nocapture: the figures of docs/supported-encoders.md.
    println!("{name} makes of (target, made): {measured:?}");
    for (target, made) in &measured {
        assert!((made / target - 1.0).abs() < 0.2, "{name} makes of (target, made): {measured:?}");
    }
}

#[test]
fn x264enc_follows() {
    follows("x264enc tune=zerolatency speed-preset=ultrafast key-int-max=300");
}

#[test]
fn x265enc_follows() {
    follows("x265enc tune=zerolatency speed-preset=ultrafast key-int-max=300");
}

#[test]
fn openh264enc_follows() {
    follows("openh264enc rate-control=bitrate gop-size=300");
}

#[test]
fn vp8enc_follows() {
    follows(
        "vp8enc deadline=1 cpu-used=8 end-usage=cbr keyframe-max-dist=300 buffer-initial-size=400 \
         buffer-optimal-size=500 buffer-size=600",
    );
}

#[test]
fn vp9enc_follows() {
    follows("vp9enc deadline=1 cpu-used=8 end-usage=cbr lag-in-frames=0 keyframe-max-dist=300");
}

#[test]
fn av1enc_follows() {
    follows(
        "av1enc usage-profile=realtime cpu-used=8 end-usage=cbr lag-in-frames=0 max-quantizer=63 \
         keyframe-max-dist=300",
    );
}
