// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receives a track of a LiveKit room into a file, still encoded, and prints JSON lines about it.
//!
//! ```console
//! LIVEKIT_TOKEN=… livekit-test-subscriber --url ws://127.0.0.1:7880 --output out.h265 [--frames 60] [--timeout 20]
//! ```
//! The file begins with the first video frame (an `.h265`, `.h264` or `.ivf` as the codec wants it). Lines:
//! `connected`, `section` (what the server offers), `first` (codec), `stats` (each second), `end`. Exit code 0 =
//! that many frames came in time. With `LIVEKIT_E2EE_KEY` in the environment (and `--key-index`) frames are opened with that
//! key; those that can't be are counted as `sealed`, and nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use livekit_test_subscriber::{Codec, Container, Decryptor, Event, Frame, Subscriber};
use serde_json::{Value, json};

struct Options {
    url: String,
    token: String,
    output: String,
    frames: u64,
    timeout: Duration,
    decryptor: Option<Decryptor>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut given = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} wants a value"))?;
            given.insert(name, value);
        }
        let mut take = |name: &str| given.remove(name);
        let number = |value: Option<String>, or: u64| value.map_or(Ok(or), |v| v.parse().map_err(|_| v));
        let index = u8::try_from(number(take("--key-index"), 0)?).map_err(|_| "--key-index is above 255")?;
        let key = std::env::var("LIVEKIT_E2EE_KEY").ok();
        let decryptor = key.map(|key| Decryptor::new(&key, index)).transpose().map_err(|e| e.to_string())?;
        let options = Self {
            url: take("--url").ok_or("--url is missing")?,
            token: std::env::var("LIVEKIT_TOKEN").map_err(|_| "LIVEKIT_TOKEN is not set")?,
            output: take("--output").ok_or("--output is missing")?,
            frames: number(take("--frames"), 60)?,
            timeout: Duration::from_secs(number(take("--timeout"), 20)?),
            decryptor,
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("there is no {unknown}")),
            None => Ok(options),
        }
    }
}

/// What came so far.
#[derive(Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    gaps: u64,
    sealed: u64,
    audio: u64,
    largest_gap: Duration,
    last: Option<Instant>,
}

impl Counts {
    fn add(&mut self, frame: &Frame) {
        if frame.codec == Codec::Opus {
            self.audio += 1;
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.largest_gap = self.largest_gap.max(now.duration_since(last));
        }
        self.gaps += u64::from(!frame.contiguous && self.frames > 0);
        self.frames += 1;
        self.bytes += frame.data.len() as u64;
    }

    fn json(&self, event: &str) -> Value {
        json!({
            "event": event, "frames": self.frames, "bytes": self.bytes, "gaps": self.gaps, "audio": self.audio,
            "sealed": self.sealed,
            "largest_gap_s": self.largest_gap.as_secs_f64(),
        })
    }
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Once a second.
fn tell(counts: &Counts, told: &mut Instant) {
    if told.elapsed() >= Duration::from_secs(1) {
        *told = Instant::now();
        say(&counts.json("stats"));
    }
}

async fn run(options: &Options, counts: &mut Counts) -> Result<(), Box<dyn std::error::Error>> {
    let mut subscriber = Subscriber::join(&options.url, &options.token).await?;
    let mut container: Option<(Codec, Container<BufWriter<File>>)> = None;
    let mut told = Instant::now();
    while counts.frames < options.frames {
        match subscriber.next().await? {
            Event::Connected => say(&json!({ "event": "connected" })),
            Event::Section { mid, formats } => {
                say(&json!({ "event": "section", "mid": mid, "formats": formats }));
            }
            Event::Frame(mut frame) => {
                if let Some(decryptor) = &options.decryptor {
                    match decryptor.open(frame.codec, &frame.data) {
                        Some(plain) => frame.data = plain,
                        None => {
                            counts.sealed += 1;
                            tell(counts, &mut told);
                            continue;
                        }
                    }
                }
                counts.add(&frame);
                if frame.codec != Codec::Opus {
                    if container.is_none() {
                        say(&json!({ "event": "first", "codec": frame.codec.name(), "mid": frame.mid }));
                        let file = BufWriter::new(File::create(&options.output)?);
                        container = Some((frame.codec, Container::new(file, frame.codec)));
                    }
                    // A stream that changes its codec would make a file that nobody reads.
                    if let Some((codec, container)) = &mut container
                        && *codec == frame.codec
                    {
                        container.frame(frame.time, &frame.data)?;
                    }
                }
            }
        }
        tell(counts, &mut told);
    }
    if let Some((_, container)) = &mut container {
        container.flush()?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(reason) => {
            say(&json!({ "event": "usage", "reason": reason }));
            return ExitCode::from(2);
        }
    };
    let mut counts = Counts::default();
    let outcome = tokio::time::timeout(options.timeout, run(&options, &mut counts)).await;
    let reason = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("not {} frames within {:?}", options.frames, options.timeout)),
    };
    let mut end = counts.json("end");
    if let Some(end) = end.as_object_mut() {
        end.insert("error".into(), reason.clone().into());
    }
    say(&end);
    if reason.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
