// SPDX-License-Identifier: MPL-2.0

//! `livekitsink` without a room: what it does before, without and instead of a server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is the failure report.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use gst::glib;
use gst::prelude::*;

#[test]
fn pads_are_named_in_order_and_can_be_asked_for_by_name() {
    init();
    let sink = make_sink("ws://127.0.0.1:1");
    let request = |name: &str| sink.request_pad_simple(name).map(|pad| pad.name().to_string());
    assert_eq!(request("video_%u").as_deref(), Some("video_0"));
    assert_eq!(request("video_5").as_deref(), Some("video_5"));
    assert_eq!(request("video_%u").as_deref(), Some("video_1"));
    assert_eq!(request("audio_%u").as_deref(), Some("audio_0"));
    assert_eq!(sink.num_sink_pads(), 4);
    assert!(sink.element_flags().contains(gst::ElementFlags::SINK));
}

#[test]
fn a_released_pad_leaves_nothing_behind() {
    init();
    let sink = make_sink("ws://127.0.0.1:1");
    let bin = sink.downcast_ref::<gst::Bin>().unwrap();
    let pad = sink.request_pad_simple("video_%u").unwrap();
    assert_eq!(bin.children().len(), 1);
    sink.release_request_pad(&pad);
    assert_eq!((sink.num_sink_pads(), bin.children().len()), (0, 0));
    assert!(sink.element_flags().contains(gst::ElementFlags::SINK), "still a sink without pads");
    assert_eq!(sink.request_pad_simple("video_%u").unwrap().name(), "video_0");
}

#[test]
fn pads_come_and_go_while_playing() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 3);
    wait_for_state(&pipeline, gst::State::Playing);
    for _ in 0..3 {
        let extra = live_source();
        pipeline.add(&extra).unwrap();
        let pad = sink.request_pad_simple("video_%u").unwrap();
        let src = extra.static_pad("src").unwrap();
        src.link(&pad).unwrap();
        extra.sync_state_with_parent().unwrap();
        push_all(&extra, 2);
        wait_until("the parser of the new pad", || {
            sink.downcast_ref::<gst::Bin>().unwrap().by_name(&format!("{}-parser", pad.name())).is_some()
        });
        // A source that still ran would complain that nobody takes its data.
        extra.set_state(gst::State::Null).unwrap();
        src.unlink(&pad).unwrap();
        sink.release_request_pad(&pad);
        pipeline.remove(&extra).unwrap();
    }
    push_all(&source, 3);
    assert_eq!(pipeline.current_state(), gst::State::Playing);
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn secrets_can_be_written_but_are_nowhere_to_be_read() {
    init();
    let (pipeline, sink, _) = live_pipeline("ws://127.0.0.1:1");
    for name in ["token", "api-key", "api-secret"] {
        sink.set_property(name, format!("hush-{name}"));
        assert!(!sink.find_property(name).unwrap().flags().contains(glib::ParamFlags::READABLE), "{name}");
    }
    sink.set_property("room", "visible");
    let dot = pipeline.debug_to_dot_data(gst::DebugGraphDetails::all());
    assert!(dot.contains("visible"), "the graph shows properties at all");
    assert!(!dot.contains("hush-"), "{dot}");
}

#[test]
fn the_identity_is_made_once() {
    init();
    let (a, b) = (make_sink("ws://127.0.0.1:1"), make_sink("ws://127.0.0.1:1"));
    let of = |sink: &gst::Element| sink.property::<String>("identity");
    assert!(of(&a).starts_with("gst-"), "{}", of(&a));
    assert_eq!(of(&a), of(&a));
    assert_ne!(of(&a), of(&b));
    a.set_property("identity", "front-door");
    assert_eq!(of(&a), "front-door");
}

#[test]
fn launch_lines_set_pads_that_are_made_later_and_the_rest_falls_back_to_the_element() {
    init();
    let pipeline = gst::parse::launch(
        "fakesrc ! video/x-h264,stream-format=byte-stream ! livekitsink name=room max-bitrate=1000000 \
         video_0::max-bitrate=2000000 video_0::track-name=front video_1::source=screen-share \
         fakesrc ! video/x-h264,stream-format=avc ! room.",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let room = pipeline.by_name("room").unwrap();
    let (first, second) = (room.static_pad("video_0").unwrap(), room.static_pad("video_1").unwrap());
    assert_eq!(first.property::<u32>("max-bitrate"), 2_000_000);
    assert_eq!(first.property::<Option<String>>("track-name").as_deref(), Some("front"));
    assert_eq!(second.property::<u32>("max-bitrate"), 1_000_000);
    assert_eq!(nick(&second, "source"), "screen-share");
    let proxy = room.dynamic_cast_ref::<gst::ChildProxy>().unwrap();
    assert_eq!(proxy.children_count(), 2);
    assert!(proxy.child_by_name("video_1").is_some());
}

#[test]
fn encoders_are_offered_the_most_compatible_profile_first() {
    init();
    let sink = make_sink("ws://127.0.0.1:1");
    let pad = sink.request_pad_simple("video_%u").unwrap();
    // As an encoder asks.
    let any: gst::Caps = "video/x-h264".parse().unwrap();
    let first = |caps: &gst::Caps| caps.structure(0).unwrap().get::<String>("profile").unwrap();
    let caps = pad.query_caps(Some(&any));
    assert_eq!(first(&caps), "constrained-baseline");
    let wide: gst::Caps = "video/x-h264,profile=high-4:4:4".parse().unwrap();
    assert!(!caps.can_intersect(&wide));
    sink.set_property_from_str("allow-profiles", "any");
    let caps = pad.query_caps(Some(&any));
    assert_eq!(first(&caps), "constrained-baseline");
    assert!(caps.can_intersect(&wide));
    for form in ["byte-stream", "avc", "avc3"] {
        let caps: gst::Caps = format!("video/x-h264,stream-format={form},alignment=nal").parse().unwrap();
        assert!(pad.query_accept_caps(&caps), "{form}, no profile");
    }
    // Caps that come all the same are refused in words (tests/badinput.rs), not by this query.
    assert!(!pad.query_caps(None).can_intersect(&"video/x-raw".parse::<gst::Caps>().unwrap()));
}

#[test]
fn a_bare_encoder_makes_what_browsers_show() {
    init();
    let (_silent, url) = silent_server();
    let line = format!(
        "videotestsrc num-buffers=60 is-live=true ! x264enc name=enc ! \
         livekitsink url={url} api-key=k api-secret=s room=r"
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let src = pipeline.by_name("enc").unwrap().static_pad("src").unwrap();
    wait_until("the encoder's caps", || src.current_caps().is_some());
    let caps = src.current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<&str>("profile"), Ok("constrained-baseline"), "{caps}");
    stop(&pipeline);
}

#[test]
fn ready_tells_what_is_missing() {
    let Some(()) = in_child("ready_tells_what_is_missing", &[]) else { return };
    init();
    let fails_with = |properties: &[(&str, &str)]| {
        let pipeline = gst::Pipeline::new();
        let sink = gst::ElementFactory::make("livekitsink").build().unwrap();
        for (name, value) in properties {
            sink.set_property(name, value);
        }
        pipeline.add(&sink).unwrap();
        assert!(pipeline.set_state(gst::State::Ready).is_err(), "{properties:?}");
        let mut errors = errors(&pipeline);
        assert_eq!(errors.len(), 1, "{properties:?}: {errors:?}");
        assert_eq!(sink.current_state(), gst::State::Null);
        errors.remove(0)
    };
    let url = ("url", "ws://127.0.0.1:1");
    for (properties, expected) in [
        (vec![], vec!["url", "LIVEKIT_URL"]),
        (vec![url], vec!["token", "LIVEKIT_TOKEN", "LIVEKIT_API_SECRET"]),
        (vec![url, ("api-key", "k"), ("api-secret", "s")], vec!["room", "LIVEKIT_ROOM"]),
        (vec![url, ("api-key", "k")], vec!["api-secret", "LIVEKIT_API_SECRET"]),
        (vec![("url", "nonsense"), ("token", "t")], vec!["nonsense", "ws://"]),
        (vec![("url", "rtsp://host"), ("token", "t")], vec!["rtsp://host"]),
        (vec![url, ("token-file", "/does/not/exist")], vec!["/does/not/exist"]),
        (vec![url, ("token", "t"), ("tls-ca-file", "/does/not/exist")], vec!["/does/not/exist"]),
    ] {
        let text = fails_with(&properties);
        for word in expected {
            assert!(text.contains(word), "'{word}' is missing in: {text}");
        }
    }
}

#[test]
fn the_environment_stands_in_for_unset_properties_at_ready() {
    let variables = [
        ("LIVEKIT_URL", "ws://127.0.0.1:1"),
        ("LIVEKIT_API_KEY", "hush-key"),
        ("LIVEKIT_API_SECRET", "hush-secret"),
        ("LIVEKIT_ROOM", "r"),
    ];
    let Some(()) = in_child("the_environment_stands_in_for_unset_properties_at_ready", &variables) else {
        return;
    };
    init();
    let sink = gst::ElementFactory::make("livekitsink").build().unwrap();
    sink.set_state(gst::State::Ready).unwrap();
    assert_eq!(sink.property::<Option<String>>("url"), None, "the environment is no property");
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_missing_parser_is_named_with_its_package() {
    let Some(()) = in_child("a_missing_parser_is_named_with_its_package", &[]) else { return };
    init();
    let registry = gst::Registry::get();
    registry.remove_feature(&gst::ElementFactory::find("h264parse").unwrap());
    let (pipeline, _, source) = live_pipeline("ws://127.0.0.1:1");
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    let message = wait_for(&pipeline, gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().matches(gst::CoreError::MissingPlugin));
    assert!(error.error().to_string().contains("gstreamer1.0-plugins-bad"), "{error:?}");
    stop(&pipeline);
}

#[test]
fn a_live_pipeline_plays_without_a_server() {
    init();
    let url = closed_port();
    let (pipeline, sink, source) = live_pipeline(&url);
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 5);
    wait_for_state(&pipeline, gst::State::Playing);
    assert_eq!(nick(&sink, "connection-state"), "connecting");
    wait_until("frames dropped for want of a connection", || {
        let stats = sink.property::<gst::Structure>("stats");
        stats
            .get::<gst::Structure>("video_0")
            .is_ok_and(|video| video.get::<u64>("dropped-not-connected").is_ok_and(|n| n >= 5))
    });
    assert_eq!(errors(&pipeline), Vec::<String>::new());
    stop(&pipeline);
}

#[test]
fn a_pipeline_with_a_live_source_plays_before_any_data_comes() {
    init();
    let (_silent, url) = silent_server();
    // Without caps it sends no event either, from which one could tell that it is live.
    let source = gst::ElementFactory::make("appsrc").property("is-live", true).build().unwrap();
    let (pipeline, sink) = (gst::Pipeline::new(), make_sink(&url));
    pipeline.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_state(&pipeline, gst::State::Playing);
    stop(&pipeline);
}

#[test]
fn an_element_put_into_a_playing_pipeline_does_not_stop_it() {
    init();
    let (_silent, url) = silent_server();
    let pipeline = gst::parse::launch("fakesrc is-live=true ! fakesink async=false").unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_state(&pipeline, gst::State::Playing);
    let sink = make_sink(&url);
    pipeline.add(&sink).unwrap();
    sink.sync_state_with_parent().unwrap();
    let (result, state, _) = pipeline.state(gst::ClockTime::ZERO);
    assert_eq!((result, state), (Ok(gst::StateChangeSuccess::Success), gst::State::Playing));
    assert_eq!(sink.current_state(), gst::State::Playing);
    stop(&pipeline);
}

#[test]
fn a_file_waits_in_paused_until_there_is_a_room() {
    init();
    let url = closed_port();
    let (pipeline, sink, source) = file_pipeline(&url);
    assert_eq!(pipeline.set_state(gst::State::Playing), Ok(gst::StateChangeSuccess::Async));
    push_all(&source, 20);
    // Several attempts fail meanwhile.
    let offline = |n: usize| element_messages(&pipeline, "livekit-offline", n);
    let told = offline(3);
    let fields = told.first().unwrap();
    assert!(fields.get::<u64>("retry-in").is_ok() && fields.get::<String>("reason").is_ok(), "{fields:?}");
    let (result, current, pending) = pipeline.state(gst::ClockTime::ZERO);
    assert_eq!((result, current), (Ok(gst::StateChangeSuccess::Async), gst::State::Ready));
    assert_eq!(pending, gst::State::Playing);
    // The session is started before the file's first caps have come.
    let video = || sink.property::<gst::Structure>("stats").get::<gst::Structure>("video_0");
    wait_until("the track", || video().is_ok());
    assert_eq!(video().unwrap().get::<u64>("frames-dropped"), Ok(0), "nothing of the file is lost");
    let began = Instant::now();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn offline_is_warned_of_once_and_told_every_time() {
    init();
    let (pipeline, _, source) = live_pipeline(&closed_port());
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    let (mut warnings, mut told) = (0, 0);
    let bus = pipeline.bus().unwrap();
    while told < 3 {
        let message = bus.timed_pop(WAIT).expect("livekit-offline three times");
        match message.view() {
            gst::MessageView::Warning(warning) => {
                let text = warning.error().to_string();
                assert!(text.contains("Not in the room") && text.contains("check url"), "{text}");
                warnings += 1;
            }
            gst::MessageView::Element(e) if e.has_name("livekit-offline") => told += 1,
            _ => (),
        }
    }
    assert_eq!(warnings, 1);
    stop(&pipeline);
}

#[test]
fn null_while_joining_does_not_wait_for_the_network() {
    init();
    let (_silent, url) = silent_server();
    for make in [live_pipeline, file_pipeline] {
        let (pipeline, _, source) = make(&url);
        pipeline.set_state(gst::State::Playing).unwrap();
        push_all(&source, 2);
        element_messages(&pipeline, "livekit-connecting", 1);
        let began = Instant::now();
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

#[test]
fn it_can_be_started_again() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    for _ in 0..3 {
        pipeline.set_state(gst::State::Playing).unwrap();
        push_all(&source, 2);
        wait_for_state(&pipeline, gst::State::Playing);
        element_messages(&pipeline, "livekit-connecting", 1);
        pipeline.set_state(gst::State::Ready).unwrap();
        assert_eq!(nick(&sink, "connection-state"), "disconnected");
    }
    stop(&pipeline);
}

#[test]
fn eos_without_a_server_comes_once_and_in_time() {
    init();
    for url in [closed_port(), silent_server().1] {
        let (pipeline, _, source) = live_pipeline(&url);
        pipeline.set_state(gst::State::Playing).unwrap();
        push_all(&source, 3);
        wait_for_state(&pipeline, gst::State::Playing);
        let began = Instant::now();
        end(&source);
        wait_for(&pipeline, gst::MessageType::Eos);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let more = pipeline.bus().unwrap().timed_pop_filtered(
            Some(gst::ClockTime::from_mseconds(300)),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        );
        assert!(more.is_none(), "{more:?}");
        stop(&pipeline);
    }
}

#[test]
fn eos_waits_for_every_pad() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    let other = live_source();
    pipeline.add(&other).unwrap();
    other.link(&sink).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 2);
    push_all(&other, 2);
    wait_for_state(&pipeline, gst::State::Playing);
    end(&source);
    let bus = pipeline.bus().unwrap();
    let early = bus.timed_pop_filtered(Some(gst::ClockTime::from_mseconds(500)), &[gst::MessageType::Eos]);
    assert!(early.is_none(), "one pad still runs");
    end(&other);
    wait_for(&pipeline, gst::MessageType::Eos);
    stop(&pipeline);
}

#[test]
fn a_stream_that_ends_before_it_began_does_not_hold_the_pipeline() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, _, source) = file_pipeline(&url);
    pipeline.set_state(gst::State::Playing).unwrap();
    end(&source);
    wait_for(&pipeline, gst::MessageType::Eos);
    stop(&pipeline);
}

#[test]
fn giving_up_is_one_error_of_the_right_kind() {
    init();
    let (pipeline, sink, source) = file_pipeline(&closed_port());
    sink.set_property("reconnect-attempts", 0);
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 3);
    let message = wait_for(&pipeline, gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().matches(gst::ResourceError::OpenReadWrite), "{error:?}");
    assert!(error.error().to_string().contains("check url"), "{error:?}");
    wait_until("the state", || nick(&sink, "connection-state") == "failed");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(errors(&pipeline), Vec::<String>::new(), "one is enough");
    stop(&pipeline);
}

#[test]
fn a_server_that_says_nothing_is_an_error_after_connect_timeout() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    sink.set_property("reconnect-attempts", 0);
    sink.set_property("connect-timeout", 300_000_000u64);
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    let began = Instant::now();
    wait_for(&pipeline, gst::MessageType::Error);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    stop(&pipeline);
}

#[test]
fn the_token_comes_from_the_first_handler_that_gives_one() {
    init();
    let (server, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    let main_thread = std::thread::current().id();
    sink.connect("request-token", false, |_| Some(None::<String>.to_value()));
    sink.connect("request-token", false, move |_| {
        assert_ne!(std::thread::current().id(), main_thread);
        Some("second.handlers.token".to_value())
    });
    sink.connect("request-token", false, |_| Some("third.handlers.token".to_value()));
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    let request = read_request(&server);
    assert!(request.contains("second.handlers.token"), "{request}");
    stop(&pipeline);
}

#[test]
fn a_token_that_nobody_gives_is_told_and_asked_for_again() {
    init();
    let (pipeline, sink, source) = live_pipeline("ws://127.0.0.1:1");
    sink.connect("request-token", false, |_| Some(None::<String>.to_value()));
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 1);
    let told = element_messages(&pipeline, "livekit-offline", 1).remove(0);
    assert!(told.get::<String>("reason").unwrap().contains("request-token"), "{told:?}");
    stop(&pipeline);
}

#[test]
fn a_profile_that_browsers_cannot_show_is_refused_with_advice_or_taken_with_a_warning() {
    init();
    for any in [false, true] {
        let (pipeline, sink, source) = live_pipeline(&closed_port());
        if any {
            sink.set_property_from_str("allow-profiles", "any");
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        for frame in 0..3 {
            push(&source, access_unit(HIGH_444), Some(frame * 40));
        }
        let texts = || if any { warnings(&pipeline) } else { errors(&pipeline) };
        let words: &[&str] = if any { &["4:4:4"] } else { &["high-4:4:4", "allow-profiles=any"] };
        wait_until("the word on the profile", || {
            texts().iter().any(|text| words.iter().all(|word| text.contains(word)))
        });
        stop(&pipeline);
    }
}

#[test]
fn data_without_caps_is_an_error_and_no_endless_wait() {
    init();
    let line =
        "fakesrc num-buffers=5 sizetype=fixed filltype=zero ! livekitsink url=ws://127.0.0.1:1 token=t";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = wait_for(&pipeline, gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().to_string().contains("h264parse"), "{error:?}");
    stop(&pipeline);
}

#[test]
fn trouble_in_the_stream_is_told_once_for_each_pad() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, _, source) = live_pipeline(&url);
    pipeline.set_state(gst::State::Playing).unwrap();
    for time in [1000, 1040, 200, 1080, 240, 1120] {
        push(&source, access_unit(BASELINE), Some(time));
    }
    let back = |text: &String| text.contains("Timestamps go back");
    let mut texts = Vec::new();
    wait_until("the warning", || {
        texts.extend(warnings(&pipeline));
        texts.iter().any(back)
    });
    std::thread::sleep(Duration::from_millis(200));
    texts.extend(warnings(&pipeline));
    assert_eq!(texts.iter().filter(|t| back(t)).count(), 1, "{texts:?}");
    assert!(texts.iter().find(|t| back(t)).unwrap().starts_with("video_0: "), "{texts:?}");
    stop(&pipeline);
}

#[test]
fn data_of_which_nothing_can_be_made_is_told_in_every_run() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, mut source) = live_pipeline(&url);
    for run in 0..2 {
        pipeline.set_state(gst::State::Playing).unwrap();
        for frame in 0..4 {
            // No SPS, no PPS.
            push(&source, access_unit([BASELINE[2]; 3]), Some(frame * 40));
        }
        end(&source);
        let message = wait_for(&pipeline, gst::MessageType::Warning);
        let gst::MessageView::Warning(warning) = message.view() else { unreachable!() };
        assert!(warning.error().to_string().contains("no picture"), "run {run}: {warning:?}");
        pipeline.set_state(gst::State::Ready).unwrap();
        // The parser has its own word on a stream without a frame.
        errors(&pipeline);
        // One that was at its end takes no more data.
        source.set_state(gst::State::Null).unwrap();
        pipeline.remove(&source).unwrap();
        source = live_source();
        pipeline.add(&source).unwrap();
        source.static_pad("src").unwrap().link(&sink.static_pad("video_0").unwrap()).unwrap();
    }
    stop(&pipeline);
}

#[test]
fn sync_takes_effect_while_playing() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, _) = file_pipeline(&url);
    let leaf = sink.downcast_ref::<gst::Bin>().unwrap().by_name("video_0-leaf").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for sync in [false, true] {
        sink.set_property("sync", sync);
        assert_eq!(leaf.property::<bool>("sync"), sync);
    }
    stop(&pipeline);
}

#[test]
fn a_pad_that_is_released_while_it_is_set_up_is_no_error() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = live_pipeline(&url);
    let releaser = Arc::new(Mutex::new(None));
    let (thread, element) = (releaser.clone(), sink.downgrade());
    sink.downcast_ref::<gst::Bin>().unwrap().connect_element_added(move |bin, added| {
        if added.name() != "video_0-parser" {
            return;
        }
        let sink = element.upgrade().unwrap();
        *thread.lock().unwrap() = Some(std::thread::spawn(move || {
            let pad = sink.static_pad("video_0").unwrap();
            sink.release_request_pad(&pad);
        }));
        wait_until("the end of what is behind the pad", || bin.by_name("video_0-leaf").is_none());
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    push_all(&source, 2);
    wait_until("the release", || releaser.lock().unwrap().is_some());
    releaser.lock().unwrap().take().unwrap().join().unwrap();
    assert_eq!(sink.downcast_ref::<gst::Bin>().unwrap().children().len(), 0);
    let bus = pipeline.bus().unwrap();
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
        assert_ne!(message.src(), Some(sink.upcast_ref()), "{message:?}");
    }
    stop(&pipeline);
}

#[test]
fn a_pad_that_is_released_before_any_data_holds_nothing() {
    init();
    let (_silent, url) = silent_server();
    let (pipeline, sink, source) = file_pipeline(&url);
    assert_eq!(pipeline.set_state(gst::State::Playing), Ok(gst::StateChangeSuccess::Async));
    source.set_state(gst::State::Null).unwrap();
    pipeline.remove(&source).unwrap();
    sink.release_request_pad(&sink.static_pad("video_0").unwrap());
    wait_for_state(&pipeline, gst::State::Playing);
    stop(&pipeline);
}
