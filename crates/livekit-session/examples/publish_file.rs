// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes an H.264 Annex B file (`.h264`) into a LiveKit room, in a loop or once, without GStreamer.
//!
//! ```text
//! LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… LIVEKIT_ROOM=workshop \
//!     cargo run -p livekit-session --example publish_file -- clip.h264 --fps 30 --loop
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_session::bitstream::h264;
use livekit_session::{Codec, Credentials, Event, Frame, Session, SessionConfig, TrackConfig};

const USAGE: &str = "usage: publish_file FILE.h264 [--fps N] [--loop]\n\
    LIVEKIT_URL and LIVEKIT_TOKEN, or LIVEKIT_API_KEY, LIVEKIT_API_SECRET and LIVEKIT_ROOM, say where to";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut file, mut fps, mut repeat) = (None, 30.0, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--loop" => repeat = true,
            "--fps" => {
                let value = args.next().and_then(|v| v.parse::<f64>().ok());
                fps = value
                    .filter(|v| (1.0..=240.0).contains(v))
                    .ok_or("--fps takes a number from 1 to 240")?;
            }
            _ => file = Some(arg),
        }
    }
    let file = file.ok_or(USAGE)?;
    let data = std::fs::read(&file).map_err(|e| format!("cannot read {file}: {e}"))?;
    let units = access_units(&data);
    if units.is_empty() {
        return Err(format!("{file} has no H.264 byte stream in it"));
    }
    println!("{file}: {} access units", units.len());

    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let credentials = match (env("LIVEKIT_TOKEN"), env("LIVEKIT_API_KEY"), env("LIVEKIT_API_SECRET")) {
        (Some(token), ..) => Credentials::Token(token.into()),
        (None, Some(key), Some(secret)) => Credentials::ApiKey { key: key.into(), secret: secret.into() },
        _ => return Err(USAGE.into()),
    };
    let mut config = SessionConfig::new(env("LIVEKIT_URL").ok_or(USAGE)?, credentials);
    config.room = env("LIVEKIT_ROOM");
    config.identity = Some("publish-file".into());
    let (ended, end) = std::sync::mpsc::channel();
    let observer = move |event: Event| {
        match &event {
            Event::BandwidthEstimate(_) => {}
            event => println!("{event:?}"),
        }
        if let Event::Disconnected(error) = event {
            let _ = ended.send(error);
        }
    };
    let session = Session::start(config, Arc::new(observer)).map_err(|e| e.to_string())?;
    let mut track_config = TrackConfig::new(Codec::H264, "file");
    if let Some(sps) = units.iter().find_map(|unit| h264::inspect(unit).sps) {
        for layer in &mut track_config.layers {
            (layer.width, layer.height) = (sps.width, sps.height);
        }
    }
    let track = session.add_track(track_config);
    while !track.is_live() {
        if let Ok(error) = end.recv_timeout(Duration::from_millis(5)) {
            return Err(error.map_or_else(String::new, |e| e.to_string()));
        }
    }

    let start = Instant::now();
    let mut number = 0u32;
    'file: loop {
        for unit in &units {
            let media_time = Duration::from_secs_f64(f64::from(number) / fps);
            let due = start + media_time;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let frame =
                Frame { data: unit.as_slice().into(), media_time, captured_at: due, capture_time: None };
            let outcome = track.write(frame);
            if outcome != livekit_session::Outcome::Sent {
                println!("frame {number}: {outcome:?}");
            }
            number = number.wrapping_add(1);
            if let Ok(error) = end.try_recv() {
                return Err(error.map_or_else(String::new, |e| e.to_string()));
            }
        }
        if !repeat {
            break 'file;
        }
    }
    session.leave();
    session.wait_ended(Duration::from_secs(2));
    println!("{:?}", session.stats());
    Ok(())
}

/// Cuts a byte stream into access units: a new one begins at an access unit delimiter, at parameter sets
/// or SEI after a slice, and at a slice with `first_mb_in_slice` 0 (H.264 §7.4.1.2.3).
fn access_units(data: &[u8]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    let mut has_slice = true;
    for nal in h264::nal_units(data) {
        let Some(header) = nal.first() else { continue };
        let kind = header & 0x1f;
        let is_slice = matches!(kind, 1..=5);
        // first_mb_in_slice is the first Exp-Golomb code; 0 is a single 1 bit.
        let first_slice = is_slice && nal.get(1).is_some_and(|b| b & 0x80 != 0);
        if units.is_empty() || has_slice && (first_slice || matches!(kind, 6..=9)) {
            units.push(Vec::new());
            has_slice = false;
        }
        has_slice |= is_slice;
        if let Some(unit) = units.last_mut() {
            unit.extend_from_slice(&[0, 0, 0, 1]);
            unit.extend_from_slice(nal);
        }
    }
    units
}
