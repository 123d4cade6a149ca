// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends cameras as motion JPEG over RTP (RFC 2435): one pipeline and one thread for each, which fail and come back alone.
//!
//! ```text
//! cargo run -p mjpeg-rtp-streamer                          # two test pictures to 127.0.0.1:5000 and :5002
//! cargo run -p mjpeg-rtp-streamer -- --config cameras.toml
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod backoff;
mod camera;
mod clock;
mod config;
mod counters;
mod metrics;
mod pipeline;
mod report;
mod rtcp;
mod sdp;
mod service;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::LevelFilter;

use config::Config;
use service::{Command, Service, cname};

/// Sends cameras as motion JPEG over RTP.
///
/// Without a configuration: two test pictures to 127.0.0.1:5000 and 127.0.0.1:5002. SIGHUP reads the configuration
/// again, SIGTERM and Ctrl-C end.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tell more
    #[arg(short, long)]
    verbose: bool,
    /// Only check the configuration
    #[arg(long)]
    check_config: bool,
    /// Only print the session description of one camera, or of all
    #[arg(long, value_name = "CAMERA", num_args = 0..=1, conflicts_with = "check_config")]
    print_sdp: Option<Option<String>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed nobody is to be told.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(|error| error.to_string())?,
        None => Config::demo(),
    };
    if arguments.check_config {
        let enabled = match config.cameras.len() {
            1 => "1 camera is".into(),
            n => format!("{n} cameras are"),
        };
        return print(&format!("the configuration is right: {enabled} enabled\n"));
    }
    if let Some(camera) = arguments.print_sdp {
        return print_sdp(&config, camera.as_deref());
    }
    log_to_stderr(arguments.verbose);
    if arguments.config.is_none() {
        tracing::info!("no --config: two test pictures to this machine");
    }
    gst::init().map_err(|error| format!("GStreamer cannot be started: {error}"))?;
    gstrtpjpeg::plugin_register_static()
        .map_err(|error| format!("the RTP/JPEG elements cannot be used: {error}"))?;
    let commands = commands()?;
    Service::start(arguments.config, config)?.run(&commands);
    Ok(())
}

/// What signals mean.
fn commands() -> Result<mpsc::Receiver<Command>, String> {
    let failed = |error: std::io::Error| format!("signals cannot be handled: {error}");
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let (sender, receiver) = mpsc::channel();
    let watch = move || {
        for signal in signals.forever() {
            let command = if signal == SIGHUP { Command::Reload } else { Command::Stop };
            if sender.send(command).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
    Ok(receiver)
}

fn print_sdp(config: &Config, camera: Option<&str>) -> Result<(), String> {
    let keys = || config.cameras.keys().cloned().collect::<Vec<_>>().join(", ");
    let chosen: Vec<_> = match camera {
        Some(key) => {
            let camera = config.cameras.get(key);
            vec![camera.ok_or_else(|| format!("no camera is called '{key}'; there are {}", keys()))?]
        }
        None => config.cameras.values().collect(),
    };
    let texts: Vec<_> = chosen.into_iter().map(|camera| sdp::describe(camera, &cname())).collect();
    print(&texts.join("\n"))
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot print: {error}"))
}

fn log_to_stderr(verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    // The journal has times of its own.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
