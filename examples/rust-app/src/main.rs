// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes a test picture into a LiveKit room from a Rust program, and says what happens there.
//!
//! ```text
//! LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… LIVEKIT_ROOM=workshop cargo run -p rust-app
//! ```
//! The plugin is found through `GST_PLUGIN_PATH`. Ctrl-C ends it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::cell::Cell;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use gst::glib;
use gst::prelude::*;

const PIPELINE: &str = "videotestsrc is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1 \
    ! x264enc tune=zerolatency speed-preset=veryfast bitrate=2000 key-int-max=60 \
    ! livekitsink name=room participant-name=Rust video_0::track-name=front";
const SIGINT: i32 = 2;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Publishes until Ctrl-C; false = the pipeline had an error.
fn run() -> Result<bool, Box<dyn Error>> {
    gst::init()?;
    let pipeline = gst::parse::launch(PIPELINE)?.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    let room = pipeline.by_name("room").ok_or("no element is called room")?;
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    let main_loop = glib::MainLoop::new(None, false);
    let good = Rc::new(Cell::new(true));

    let _watch = bus.add_watch_local({
        let (main_loop, good, room) = (main_loop.clone(), good.clone(), room.clone());
        move |_, message| {
            use gst::MessageView as M;
            match message.view() {
                // livekit-joined, livekit-published, livekit-offline, …
                M::Element(m) if m.src() == Some(room.upcast_ref()) => {
                    println!("{}", m.structure().map(ToString::to_string).unwrap_or_default());
                }
                M::Warning(m) => eprintln!("warning: {}", m.error()),
                M::Error(m) => {
                    eprintln!("error: {}", m.error());
                    good.set(false);
                    main_loop.quit();
                }
                // Comes only after the room is left.
                M::Eos(_) => main_loop.quit(),
                _ => {}
            }
            glib::ControlFlow::Continue
        }
    })?;
    glib_unix::unix_signal_add_local(SIGINT, {
        let (pipeline, room) = (pipeline.clone(), room.clone());
        move || {
            println!("{}", room.property::<gst::Structure>("stats"));
            pipeline.send_event(gst::event::Eos::new());
            glib::ControlFlow::Continue
        }
    });

    // Should this fail, the reason is on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    main_loop.run();
    pipeline.set_state(gst::State::Null)?;
    Ok(good.get())
}
