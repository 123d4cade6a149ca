// SPDX-License-Identifier: MPL-2.0

//! Targets and what they do to the encoders of pipelines, without a room: the session's words are put into the
//! element's mouth.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{Target, TargetReason};

use super::{LiveKitSinkPad, encoders};

/// A pipeline that ends in a `livekitsink` named `room` of a server that is not there.
pub(crate) struct Line {
    pub pipeline: gst::Pipeline,
    warnings: Mutex<Vec<String>>,
}

impl Line {
    /// `line` has `ROOM` where the sink and its properties are to be.
    pub fn new(line: &str) -> Self {
        gst::init().unwrap();
        crate::plugin_register_static().unwrap();
        let room = "livekitsink name=room url=ws://127.0.0.1:1 api-key=k api-secret=s room=r";
        let pipeline = gst::parse::launch(&line.replace("ROOM", room)).unwrap();
        Self { pipeline: pipeline.downcast().unwrap(), warnings: Mutex::default() }
    }

    pub fn sink(&self) -> super::LiveKitSink {
        self.pipeline.by_name("room").unwrap().downcast().unwrap()
    }

    pub fn pad(&self) -> LiveKitSinkPad {
        self.sink().static_pad("video_0").unwrap().downcast().unwrap()
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.pipeline.by_name(name).unwrap()
    }

    /// Plays, and waits until the caps have come through: before that there is no way from the pad to its encoder that
    /// an event could take.
    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
        let pad = self.pad();
        wait_until("caps", || pad.imp().chain().is_some());
    }

    pub fn target(&self, bitrate: u32, active: bool) {
        let reason = if active { TargetReason::Estimate } else { TargetReason::Unwatched };
        self.sink().imp().target(&self.pad(), Target { bitrate, active, reason });
    }

    /// The next message about a target.
    pub fn told(&self) -> gst::Structure {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if let Some(told) = self.hear(gst::ClockTime::from_mseconds(100)) {
                return told;
            }
        }
        panic!("no message about a target");
    }

    /// Hears what the bus says, up to a message about a target.
    fn hear(&self, wait: gst::ClockTime) -> Option<gst::Structure> {
        let kinds = [gst::MessageType::Element, gst::MessageType::Warning, gst::MessageType::Error];
        let bus = self.pipeline.bus().unwrap();
        while let Some(message) = bus.timed_pop_filtered(wait, &kinds) {
            match message.view() {
                gst::MessageView::Error(error) => panic!("{error:?}"),
                gst::MessageView::Warning(warning) => {
                    let text = warning.error().to_string();
                    // Of the server that is not there, which is not what these tests are about.
                    if !text.starts_with("Not in the room") {
                        self.warnings.lock().unwrap().push(text);
                    }
                }
                _ => {}
            }
            let told = message.structure().filter(|s| s.name() == "livekit-target-bitrate");
            if let Some(told) = told {
                return Some(told.to_owned());
            }
        }
        None
    }

    /// A target, and what was told about it.
    pub fn tell(&self, bitrate: u32, active: bool) -> gst::Structure {
        self.target(bitrate, active);
        self.told()
    }

    /// The warnings so far that say `text`.
    pub fn warnings(&self, text: &str) -> usize {
        while self.hear(gst::ClockTime::ZERO).is_some() {}
        self.warnings.lock().unwrap().iter().filter(|warning| warning.contains(text)).count()
    }

    /// Counts the buffers that leave `element`.
    pub fn count(&self, element: &str) -> Counter {
        let counter = Counter::default();
        let seen = counter.clone();
        let pad = self.element(element).static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            *seen.0.lock().unwrap() += 1;
            gst::PadProbeReturn::Ok
        });
        counter
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What went through a pad.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<Mutex<usize>>);

impl Counter {
    pub fn buffers(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=50/1 ! ";

#[test]
fn a_target_reaches_the_encoders_property_and_the_bus() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 ! queue ! h264parse ! ROOM"));
    line.play();
    let told = line.tell(1_500_000, true);
    assert_eq!(told.get::<&str>("pad"), Ok("video_0"));
    assert_eq!(told.get::<&str>("encoder"), Ok("e"));
    assert_eq!(told.get::<&str>("reason"), Ok("estimate"));
    assert_eq!(told.get::<&str>("result"), Ok("set"));
    assert_eq!((told.get::<u32>("bitrate"), told.get::<u32>("applied")), (Ok(1_500_000), Ok(1_500_000)));
    assert_eq!(told.get::<bool>("active"), Ok(true));
    assert_eq!(line.element("e").property::<u32>("bitrate"), 1500);
    assert_eq!(line.tell(9_000_000, true).get::<u32>("applied"), Ok(2_000_000), "the encoder's own setting");
    assert_eq!(line.tell(0, false).get::<u32>("applied"), Ok(500_000), "nobody needs it");
    assert_eq!(line.tell(0, true).get::<u32>("applied"), Ok(2_000_000), "no number: as the user set it");
    line.tell(500_000, true);
    line.pipeline.set_state(gst::State::Ready).unwrap();
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000, "as the user set it");
    // What was wanted in an earlier run is not wanted any more.
    let frames = line.count("e");
    line.play();
    wait_until("frames", || frames.buffers() > 70);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000, "a new run");
}

#[test]
fn the_start_bitrate_is_there_before_the_first_frame_and_the_ceiling_before_the_track() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 ! ROOM video_0::start-bitrate=700000"));
    let encoder = line.element("e");
    let first = Arc::new(Mutex::new(None));
    let seen = first.clone();
    let weak = encoder.downgrade();
    encoder.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        seen.lock().unwrap().get_or_insert(weak.upgrade().unwrap().property::<u32>("bitrate"));
        gst::PadProbeReturn::Ok
    });
    line.play();
    wait_until("a frame", || first.lock().unwrap().is_some());
    assert_eq!(*first.lock().unwrap(), Some(700));
    assert_eq!(line.sink().imp().ceiling(&line.pad()), 2_000_000);
    assert_eq!(line.tell(5_000_000, true).get::<u32>("applied"), Ok(2_000_000));
}

#[test]
fn limits_of_the_pad_hold() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=1000 ! ROOM video_0::min-bitrate=200000 video_0::max-bitrate=3000000"
    ));
    line.play();
    assert_eq!(line.tell(9_000_000, true).get::<u32>("applied"), Ok(3_000_000));
    assert_eq!(line.tell(100_000, true).get::<u32>("applied"), Ok(200_000));
    assert_eq!(line.tell(0, false).get::<u32>("applied"), Ok(750_000), "idle");
}

/// The target events that come to an element's source pad.
fn events(line: &Line, element: &str) -> Arc<Mutex<Vec<gst::Structure>>> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let pad = line.element(element).static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let structure = info.event().and_then(|event| event.structure()).map(|s| s.to_owned());
        if let Some(structure) = structure.filter(|s| s.name() == "GstTargetBitrate") {
            seen.lock().unwrap().push(structure);
        }
        gst::PadProbeReturn::Ok
    });
    events
}

#[test]
fn the_event_has_the_fields_of_the_contract_and_passes_what_only_passes_on() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e ! queue ! video/x-h264 ! h264parse ! ROOM bitrate-feedback=event \
         video_0::max-bitrate=800000"
    ));
    let events = events(&line, "e");
    line.play();
    let told = line.tell(1_000_000, true);
    assert_eq!(told.get::<&str>("result"), Ok("event"));
    line.tell(0, false);
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0].get::<u32>("bitrate"), Ok(800_000));
    assert_eq!((events[0].get::<bool>("active"), events[1].get::<bool>("active")), (Ok(true), Ok(false)));
    assert!(events[0].get::<&str>("source").unwrap().contains("room"), "{events:?}");
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2048, "by event only");
}

#[test]
fn a_recording_is_not_touched_unless_asked_for() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=2000 ! tee name=t ! queue ! ROOM  t. ! queue ! fakesink"
    ));
    let events = events(&line, "e");
    line.play();
    let told = line.tell(500_000, true);
    assert_eq!((told.get::<&str>("result"), told.get::<u32>("applied")), (Ok("shared"), Ok(0)));
    line.tell(0, false);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
    assert!(events.lock().unwrap().is_empty());
    assert_eq!(line.warnings("share-encoder=true"), 1, "one warning");
    line.sink().set_property("share-encoder", true);
    assert_eq!(line.told().get::<&str>("result"), Ok("set"));
    line.tell(500_000, true);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 500);
    line.sink().set_property("share-encoder", false);
    assert_eq!(line.told().get::<&str>("result"), Ok("shared"));
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000, "as the user set it");
}

#[test]
fn who_begins_to_record_gets_the_full_bitrate_soon() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=2000 tune=zerolatency ! tee name=t ! queue ! ROOM"
    ));
    line.play();
    assert_eq!(line.tell(500_000, true).get::<&str>("result"), Ok("set"));
    let recorder = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
    line.pipeline.add(&recorder).unwrap();
    // Running before it is linked: what is not refuses buffers, which ends the stream.
    recorder.sync_state_with_parent().unwrap();
    line.element("t").link(&recorder).unwrap();
    let told = line.told();
    assert_eq!(told.get::<&str>("result"), Ok("shared"));
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
    let branch = recorder.static_pad("sink").unwrap().peer().unwrap();
    branch.unlink(&recorder.static_pad("sink").unwrap()).unwrap();
    assert_eq!(line.told().get::<u32>("applied"), Ok(500_000), "and back");
    recorder.set_state(gst::State::Null).unwrap();
}

#[test]
fn off_leaves_everything_as_it_is() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=2000 ! ROOM bitrate-feedback=off start-bitrate=100000"
    ));
    let events = events(&line, "e");
    line.play();
    line.target(500_000, true);
    std::thread::sleep(Duration::from_millis(300));
    assert!(events.lock().unwrap().is_empty());
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
    line.sink().set_property_from_str("bitrate-feedback", "auto");
    assert_eq!(line.told().get::<u32>("applied"), Ok(500_000), "what was wanted meanwhile");
}

#[test]
fn the_encoder_can_be_named_and_a_wrong_name_is_told() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=2000 ! ROOM video_0::encoder=other  {LIVE} x264enc name=other bitrate=3000 ! \
         fakesink"
    ));
    line.play();
    let told = line.tell(500_000, true);
    assert_eq!(told.get::<&str>("encoder"), Ok("other"));
    assert_eq!(line.element("other").property::<u32>("bitrate"), 500);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
    line.pad().set_property("encoder", "nobody");
    assert_eq!(line.tell(600_000, true).get::<&str>("encoder"), Ok(""));
    assert_eq!(line.warnings("no element named nobody"), 1);
    assert_eq!(line.element("other").property::<u32>("bitrate"), 3000);
}

#[test]
fn a_file_has_no_encoder_and_no_warning() {
    let line = Line::new(
        "ROOM  appsrc caps=video/x-h264,stream-format=byte-stream,alignment=au ! tee name=t ! room.video_0  t. ! fakesink",
    );
    line.pipeline.set_state(gst::State::Paused).unwrap();
    let told = line.tell(500_000, true);
    assert_eq!(told.get::<&str>("result"), Ok("shared"));
    assert_eq!(line.warnings(""), 0);
    let line = Line::new(
        "appsrc caps=video/x-h264,stream-format=byte-stream,alignment=au ! ROOM  fakesrc ! fakesink",
    );
    line.pipeline.set_state(gst::State::Paused).unwrap();
    assert_eq!(line.tell(500_000, true).get::<&str>("encoder"), Ok(""));
}

#[test]
fn pause_upstream_stops_frames_before_the_encoder_of_a_live_source_only() {
    let line = Line::new(&format!(
        "{LIVE} identity name=i ! x264enc name=e bitrate=2000 tune=zerolatency ! ROOM pause-upstream=true"
    ));
    let (before, after) = (line.count("i"), line.count("e"));
    line.play();
    wait_until("frames", || after.buffers() > 10);
    line.tell(1_000_000, false);
    let (came, went) = (before.buffers(), after.buffers());
    wait_until("the source goes on", || before.buffers() > came + 20);
    assert!(after.buffers() <= went + 1);
    // Events pass, so that the first frame afterwards is a keyframe.
    let event = gst::event::CustomUpstream::new(
        gst::Structure::builder("GstForceKeyUnit").field("all-headers", true).field("count", 1u32).build(),
    );
    let keyframe = Arc::new(Mutex::new(None));
    let seen = keyframe.clone();
    line.element("e").static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let delta = info.buffer().is_some_and(|b| b.flags().contains(gst::BufferFlags::DELTA_UNIT));
        seen.lock().unwrap().get_or_insert(!delta);
        gst::PadProbeReturn::Ok
    });
    assert!(line.element("e").static_pad("src").unwrap().send_event(event));
    line.tell(1_000_000, true);
    wait_until("frames again", || keyframe.lock().unwrap().is_some());
    assert_eq!(*keyframe.lock().unwrap(), Some(true));

    let file = Line::new(
        "videotestsrc num-buffers=1000 ! video/x-raw,width=64,height=64 ! x264enc name=e tune=zerolatency ! ROOM \
         pause-upstream=true",
    );
    let after = file.count("e");
    file.pipeline.set_state(gst::State::Paused).unwrap();
    wait_until("a frame", || after.buffers() > 0);
    file.tell(1_000_000, false);
    file.sink().imp().end_preroll("this is a test");
    file.play();
    wait_until("frames", || after.buffers() > 3);
}

#[test]
fn a_pad_that_goes_lets_its_encoder_go() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 ! ROOM  fakesrc ! fakesink"));
    line.play();
    line.tell(500_000, true);
    let (sink, pad) = (line.sink(), line.pad());
    line.element("e").static_pad("src").unwrap().unlink(&pad).unwrap();
    sink.release_request_pad(&pad);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
}

#[test]
fn a_pad_that_goes_while_its_encoder_is_told_leaves_it_as_it_was() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 ! ROOM  fakesrc ! fakesink"));
    line.play();
    let (telling, told) = std::sync::mpsc::channel();
    line.element("e").connect_notify(Some("bitrate"), move |encoder, _| {
        if encoder.property::<u32>("bitrate") == 500 {
            let _ = telling.send(());
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    line.target(500_000, true);
    told.recv_timeout(Duration::from_secs(60)).unwrap();
    let (sink, pad) = (line.sink(), line.pad());
    line.element("e").static_pad("src").unwrap().unlink(&pad).unwrap();
    sink.release_request_pad(&pad);
    assert_eq!(line.element("e").property::<u32>("bitrate"), 2000);
}

#[test]
fn a_handler_that_hears_of_the_change_may_ask_the_element() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 ! ROOM"));
    let (sink, pad) = (line.sink().downgrade(), line.pad().downgrade());
    let heard = Arc::new(Mutex::new(0));
    let count = heard.clone();
    line.element("e").connect_notify(Some("bitrate"), move |_, _| {
        if let (Some(sink), Some(pad)) = (glib::WeakRef::upgrade(&sink), glib::WeakRef::upgrade(&pad)) {
            let _ = sink.property::<gst::Structure>("stats");
            sink.imp()
                .target(&pad, Target { bitrate: 700_000, active: true, reason: TargetReason::Estimate });
        }
        *count.lock().unwrap() += 1;
    });
    line.play();
    line.tell(500_000, true);
    wait_until("both", || line.element("e").property::<u32>("bitrate") == 700);
    wait_until("both notifications", || *heard.lock().unwrap() >= 2);
}

#[test]
fn encoders_that_cannot_follow_are_told_of_once_and_get_the_event_all_the_same() {
    encoders::stub_tests::register();
    for (factory, result, warning) in [
        ("svtav1enc", "not-live", "keeps its bitrate"),
        ("vah264renamedenc", "no-property", "no number property bitrate"),
        ("queue", "unknown-encoder", ""),
        ("rkmppenc", "event", ""),
    ] {
        let line =
            Line::new(&format!("{LIVE} x264enc name=e ! ROOM video_0::encoder=other  {factory} name=other"));
        let events = events(&line, "e");
        line.play();
        line.element("other").set_state(gst::State::Playing).unwrap();
        for bitrate in [500_000, 600_000] {
            let told = line.tell(bitrate, true);
            assert_eq!(told.get::<&str>("result"), Ok(result), "{factory}");
            assert_eq!(told.get::<&str>("encoder"), Ok("other"), "{factory}");
        }
        assert_eq!(events.lock().unwrap().len(), 2, "{factory}");
        assert_eq!(
            line.warnings(warning),
            usize::from(!warning.is_empty()),
            "{factory}: {:?}",
            line.warnings
        );
    }
}

#[test]
fn targets_and_relinked_pads_get_along() {
    let line = Line::new(&format!(
        "{LIVE} x264enc name=e bitrate=2000 tune=zerolatency ! tee name=t allow-not-linked=true ! queue ! ROOM"
    ));
    line.play();
    line.tell(500_000, true);
    let recorder = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
    line.pipeline.add(&recorder).unwrap();
    recorder.sync_state_with_parent().unwrap();
    let (branch, entry) =
        (line.element("t").request_pad_simple("src_%u").unwrap(), recorder.static_pad("sink").unwrap());
    let targets = std::thread::scope(|scope| {
        let relinking = scope.spawn(|| {
            for _ in 0..500 {
                branch.link(&entry).unwrap();
                std::thread::yield_now();
                branch.unlink(&entry).unwrap();
            }
        });
        let mut targets = 0u32;
        while !relinking.is_finished() {
            line.target(500_000 + targets % 100 * 1000, true);
            targets += 1;
            std::thread::yield_now();
        }
        relinking.join().unwrap();
        targets
    });
    assert!(targets > 0);
    line.target(400_000, true);
    wait_until("the last target", || line.element("e").property::<u32>("bitrate") == 400);
    branch.link(&entry).unwrap();
    wait_until("the recording's bitrate", || line.element("e").property::<u32>("bitrate") == 2000);
}

#[test]
fn a_keyframe_that_is_asked_for_after_a_target_has_its_bitrate() {
    let line = Line::new(&format!("{LIVE} x264enc name=e bitrate=2000 tune=zerolatency ! ROOM"));
    let at_request = Arc::new(Mutex::new(Vec::new()));
    let seen = at_request.clone();
    let weak = line.element("e").downgrade();
    let pad = line.element("e").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let name = info.event().and_then(|event| event.structure()).map(|s| s.name().to_string());
        if name.as_deref() == Some("GstForceKeyUnit") {
            seen.lock().unwrap().push(weak.upgrade().unwrap().property::<u32>("bitrate"));
        }
        gst::PadProbeReturn::Ok
    });
    line.play();
    let (sink, pad) = (line.sink(), line.pad());
    let leaf = sink.imp().leaf_of(&pad).unwrap();
    for round in 0..50u32 {
        line.target(0, false);
        line.target(1_000_000 + round * 1000, true);
        super::keyframes::ask_upstream(&pad, &leaf);
    }
    let expected: Vec<u32> = (0..50).map(|round| 1000 + round).collect();
    assert_eq!(*at_request.lock().unwrap(), expected);
}
