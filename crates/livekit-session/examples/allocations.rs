// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts memory allocations while a 1080p30 stream of 4 Mbit/s is published: for each frame, and for each datagram.
//!
//! Our own code makes none for a packet (a unit test holds it to that): what is counted for packets is the engine's, str0m's.
//! `benches/run allocations` starts a server and a viewer (without one nothing is sent) and runs it.
//! ```text
//! LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… LIVEKIT_ROOM=workshop \
//!     cargo run --release -p livekit-session --example allocations
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_session::{Codec, Credentials, Frame, Outcome, Session, SessionConfig, Track, TrackConfig};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const FPS: u32 = 30;
const BITRATE: u32 = 4_000_000;
const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);

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
    let _profiler = dhat::Profiler::builder().testing().build();
    let env = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let credentials = Credentials::ApiKey {
        key: env("LIVEKIT_API_KEY")?.into(),
        secret: env("LIVEKIT_API_SECRET")?.into(),
    };
    let mut config = SessionConfig::new(env("LIVEKIT_URL")?, credentials);
    config.room = Some(env("LIVEKIT_ROOM")?);
    config.identity = Some("allocations".into());
    let session = Session::start(config, Arc::new(|_| {})).map_err(|e| e.to_string())?;
    let mut config = TrackConfig::new(Codec::H264, "pattern");
    for layer in &mut config.layers {
        (layer.width, layer.height, layer.max_bitrate) = (1920, 1080, BITRATE);
    }
    let track = session.add_track(config);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !track.is_live() {
        if Instant::now() > deadline {
            return Err("not published within 20 s; is the server there?".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    let (key, delta) = (access_unit(true), access_unit(false));
    let mut number = 0;
    let start = Instant::now();
    play(&track, &key, &delta, &mut number, start, start + WARM_UP)?;
    let before = (dhat::HeapStats::get(), session.stats(), number);
    play(&track, &key, &delta, &mut number, start, start + WARM_UP + MEASURED)?;
    let after = (dhat::HeapStats::get(), session.stats(), number);

    let blocks = after.0.total_blocks - before.0.total_blocks;
    let bytes = after.0.total_bytes - before.0.total_bytes;
    let frames = u64::from(after.2 - before.2);
    let datagrams = after.1.datagrams_sent - before.1.datagrams_sent;
    let calls = after.1.send_calls - before.1.send_calls;
    if datagrams < frames {
        return Err(format!("{frames} frames, but only {datagrams} datagrams were sent"));
    }
    let each = |count: u64, of: u64| count as f64 / of as f64;
    println!("{frames} frames of {} bytes in {datagrams} datagrams by {calls} system calls", delta.len());
    println!(
        "allocations: {:.1} a frame, {:.2} a datagram; {:.0} bytes a frame; {:.1} datagrams a system call",
        each(blocks, frames),
        each(blocks, datagrams),
        each(bytes, frames),
        each(datagrams, calls)
    );
    session.leave();
    session.wait_ended(Duration::from_secs(2));
    Ok(())
}

fn play(
    track: &Track,
    key: &Arc<[u8]>,
    delta: &Arc<[u8]>,
    number: &mut u32,
    start: Instant,
    end: Instant,
) -> Result<(), String> {
    loop {
        let media_time = Duration::from_secs(1) * *number / FPS;
        let due = start + media_time;
        if due >= end {
            return Ok(());
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A keyframe a second, so that whoever asks for one gets it.
        let data = if number.is_multiple_of(FPS) { key } else { delta };
        let outcome =
            track.write(Frame { data: data.clone(), media_time, captured_at: due, capture_time: None });
        if !matches!(outcome, Outcome::Sent | Outcome::Queued) && due > start + WARM_UP {
            return Err(format!("frame {number}: {outcome:?}"));
        }
        *number += 1;
    }
}

/// As many bytes as a frame of that bitrate has, which look like H.264 but decode to nothing.
fn access_unit(key: bool) -> Arc<[u8]> {
    let mut unit = Vec::new();
    if key {
        // Baseline, 1920x1088.
        unit.extend([0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x28, 0xd9, 0x00, 0x78, 0x02, 0x27, 0xe5, 0x84, 0, 0, 3]);
        unit.extend([
            0, 4, 0, 0, 3, 0, 0xf0, 0x3c, 0x60, 0xc9, 0x20, 0, 0, 0, 1, 0x68, 0xcb, 0x83, 0xcb, 0x20,
        ]);
    }
    unit.extend([0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x9a]);
    unit.resize((BITRATE / 8 / FPS) as usize, 0x55);
    unit.into()
}
