// SPDX-License-Identifier: MIT OR Apache-2.0

//! The service: starts the cameras, follows the configuration, tells systemd and the log how things are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::camera::CameraHandle;
use crate::clock::SharedClock;
use crate::config::{Config, host_name};
use crate::counters::{Snapshot, State};
use crate::metrics::Exporter;
use crate::report::{self, Board, Entry};
use crate::sdp;

/// For all cameras to end.
const GRACE: Duration = Duration::from_secs(5);
/// A camera's thread that has not been seen for so long hangs in a driver; only a restart of the process helps.
const HANGING: Duration = Duration::from_secs(60);
/// Between two looks at what changed, for systemd's status line.
const LOOK: Duration = Duration::from_secs(1);

/// What the outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Service {
    path: Option<PathBuf>,
    config: Config,
    clock: Arc<SharedClock>,
    cname: String,
    cameras: BTreeMap<String, CameraHandle>,
    board: Board,
    exporter: Option<Exporter>,
    written: BTreeSet<PathBuf>,
    before: BTreeMap<String, Snapshot>,
    status: String,
}

/// Who we are to receivers: the same for all cameras, because they share a clock (RFC 3550 §6.5.1).
pub fn cname() -> String {
    format!("mjpeg-rtp@{}", host_name())
}

impl Service {
    /// Starts all cameras. `path` is where the configuration came from.
    ///
    /// # Errors
    /// The address for Prometheus cannot be had.
    pub fn start(path: Option<PathBuf>, config: Config) -> Result<Self, String> {
        let mut service = Self {
            path,
            clock: Arc::default(),
            cname: cname(),
            cameras: BTreeMap::new(),
            board: Board::default(),
            exporter: None,
            written: BTreeSet::new(),
            before: BTreeMap::new(),
            status: String::new(),
            config: Config { cameras: BTreeMap::new(), ..config.clone() },
        };
        service.listen(config.stats.prometheus)?;
        service.apply(config);
        if service.cameras.is_empty() {
            tracing::warn!(
                "no camera is enabled: nothing to do until the configuration changes and SIGHUP comes"
            );
        }
        Ok(service)
    }

    /// Runs until a command says to stop.
    pub fn run(mut self, commands: &Receiver<Command>) {
        notify(&[NotifyState::Ready]);
        let watchdog = sd_notify::watchdog_enabled().map(|time| time / 3);
        let pause = watchdog.map_or(LOOK, |time| time.min(LOOK)).max(Duration::from_millis(10));
        let mut last_report = Instant::now();
        loop {
            match commands.recv_timeout(pause) {
                Ok(Command::Reload) => self.reload(),
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if watchdog.is_some() && self.is_alive() {
                notify(&[NotifyState::Watchdog]);
            }
            self.tell_status();
            if let Some(interval) = self.config.stats.interval
                && last_report.elapsed() >= interval
            {
                self.report(last_report.elapsed());
                last_report = Instant::now();
            }
        }
        self.end();
    }

    /// Makes everything as a configuration says. Cameras that it does not change go on undisturbed.
    fn apply(&mut self, config: Config) {
        let gone: Vec<_> = self
            .cameras
            .extract_if(.., |key, handle| config.cameras.get(key) != Some(&handle.camera))
            .collect();
        finish(gone);
        for (key, camera) in &config.cameras {
            if self.cameras.contains_key(key) {
                continue;
            }
            match CameraHandle::start(key, camera.clone(), Arc::clone(&self.clock), &self.cname) {
                Ok(handle) => {
                    self.before.remove(key);
                    self.cameras.insert(key.clone(), handle);
                }
                Err(error) => tracing::error!("{key}: no thread for it: {error}"),
            }
        }
        self.before.retain(|key, _| config.cameras.contains_key(key));
        self.config = config;
        let entries = self.cameras.iter().map(|(key, handle)| Entry {
            key: key.clone(),
            name: handle.camera.name.clone(),
            counters: Arc::clone(&handle.counters),
        });
        self.board.set(entries.collect());
        self.describe();
    }

    fn reload(&mut self) {
        let Some(path) = &self.path else {
            tracing::warn!("SIGHUP: there is no configuration file to read again (started without --config)");
            return;
        };
        let reloading = NotifyState::monotonic_usec_now();
        notify(&[NotifyState::Reloading]);
        if let Ok(time) = reloading {
            notify(&[time]);
        }
        match Config::load(path) {
            Ok(config) => {
                if config.stats.prometheus != self.config.stats.prometheus
                    && let Err(error) = self.listen(config.stats.prometheus)
                {
                    tracing::error!("{error}");
                }
                self.apply(config);
                tracing::info!("configuration read again: {} cameras", self.cameras.len());
            }
            Err(error) => {
                tracing::error!("the configuration stays as it was, because the new one is wrong:\n{error}")
            }
        }
        notify(&[NotifyState::Ready]);
    }

    fn listen(&mut self, address: Option<std::net::SocketAddr>) -> Result<(), String> {
        self.exporter = None;
        if let Some(address) = address {
            let exporter = Exporter::start(address, self.board.clone())
                .map_err(|error| format!("prometheus = \"{address}\": cannot listen there: {error}"))?;
            tracing::info!("figures for Prometheus: http://{}/metrics", exporter.address);
            self.exporter = Some(exporter);
        }
        Ok(())
    }

    /// Writes the session descriptions, and removes those of cameras that are gone.
    fn describe(&mut self) {
        let folder = &self.config.sdp_dir;
        let mut wanted = BTreeSet::new();
        for (key, handle) in &self.cameras {
            let file = folder.join(format!("{key}.sdp"));
            match report::publish(&file, &sdp::describe(&handle.camera, &self.cname)) {
                Ok(()) => {
                    tracing::info!("{key}: session description for receivers: {}", file.display());
                    wanted.insert(file);
                }
                Err(error) => tracing::warn!("{}: cannot be written: {error}", file.display()),
            }
        }
        for file in self.written.difference(&wanted) {
            remove(file);
        }
        self.written = wanted;
    }

    fn report(&mut self, elapsed: Duration) {
        let entries = self.board.entries();
        for entry in &entries {
            let now = entry.counters.snapshot();
            tracing::info!("{}", report::line(&entry.key, &now, self.before.get(&entry.key), elapsed));
            self.before.insert(entry.key.clone(), now);
        }
        if let Some(path) = &self.config.stats.json
            && let Err(error) = report::publish(path, &format!("{}\n", report::json(&entries)))
        {
            tracing::warn!("{}: cannot be written: {error}", path.display());
        }
    }

    /// Whether every camera's thread has been seen lately.
    fn is_alive(&self) -> bool {
        let now = Duration::from_nanos(self.clock.now());
        let hanging = self.cameras.iter().find(|(_, handle)| {
            now.saturating_sub(Duration::from_nanos(handle.counters.alive_ns.load(Relaxed))) > HANGING
        });
        if let Some((key, _)) = hanging {
            tracing::error!("{key}: its driver hangs; systemd's watchdog is to start us again");
        }
        hanging.is_none()
    }

    fn tell_status(&mut self) {
        let streaming = |handle: &&CameraHandle| handle.counters.state() == State::Streaming;
        let sending = self.cameras.values().filter(streaming).count();
        let status = format!("{sending} of {} cameras are sending", self.cameras.len());
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    fn end(self) {
        notify(&[NotifyState::Stopping]);
        finish(self.cameras.into_iter().collect());
        for file in &self.written {
            remove(file);
        }
        if let Some(path) = &self.config.stats.json
            && path != Path::new("-")
        {
            remove(path);
        }
    }
}

/// Ends cameras, all at the same time.
fn finish(cameras: Vec<(String, CameraHandle)>) {
    for (_, handle) in &cameras {
        handle.stop();
    }
    let deadline = Instant::now() + GRACE;
    for (key, handle) in cameras {
        if !handle.join(deadline) {
            tracing::error!("{key}: does not end within {} s; left behind", GRACE.as_secs());
        }
    }
}

fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("{}: cannot be removed: {error}", file.display());
    }
}

/// Tells systemd, if it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}
