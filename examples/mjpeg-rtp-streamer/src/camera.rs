// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera's thread: starts its pipeline, watches it, and starts it again after a failure, whatever the other cameras do.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::backoff::Backoff;
use crate::clock::{SharedClock, rtp_ticks};
use crate::config::Camera;
use crate::counters::{Counters, Run, State};
use crate::pipeline::{self, CameraPipeline, Continuation};
use crate::rtcp::{RtcpSocket, SenderReport};

/// Between two looks at counters and RTCP.
const TICK: Duration = Duration::from_millis(200);
/// A camera that gives nothing for so long hangs.
const STALLED: Duration = Duration::from_secs(5);
/// Cameras, and pipelines that connect to something, may take a while to begin.
const FIRST_PICTURE: Duration = Duration::from_secs(15);
/// Between two sender reports, on the average. A stream this wide could afford many more (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The same failure is told again after this time.
const REPEAT: Duration = Duration::from_secs(60);
const RTP_HEADER_LEN: u64 = 12;

enum Event {
    Stop,
    /// Of the pipeline with this number.
    Message(u64, gst::Message),
}

/// A running camera.
#[derive(Debug)]
pub struct CameraHandle {
    /// What it was started with.
    pub camera: Camera,
    /// What it has done.
    pub counters: Arc<Counters>,
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl CameraHandle {
    /// Starts a camera's thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(key: &str, camera: Camera, clock: Arc<SharedClock>, cname: &str) -> std::io::Result<Self> {
        let counters = Arc::new(Counters::default());
        counters.alive_ns.store(clock.now(), Relaxed);
        let (events, inbox) = mpsc::channel();
        let worker = Worker {
            key: key.to_owned(),
            camera: camera.clone(),
            cname: cname.to_owned(),
            origin: clock.now(),
            clock,
            counters: Arc::clone(&counters),
            events: events.clone(),
            inbox,
            rtp_origin: random(),
            sequence: u16::try_from(random() & 0xffff).unwrap_or_default(),
            generation: 0,
            said: HashSet::new(),
            avoid: Vec::new(),
            failure: None,
        };
        let thread = std::thread::Builder::new().name(key.to_owned()).spawn(move || worker.run())?;
        Ok(Self { camera, counters, events, thread: Some(thread) })
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        // It may have ended already.
        let _ = self.events.send(Event::Stop);
    }

    /// Waits for its end, which a driver that hangs can hold up for ever.
    pub fn join(mut self, deadline: Instant) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().is_ok()
    }
}

/// Why a pipeline came to its end.
enum End {
    Stopped,
    Failed(String),
}

struct Worker {
    key: String,
    camera: Camera,
    cname: String,
    clock: Arc<SharedClock>,
    counters: Arc<Counters>,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    /// RTP timestamp at the monotonic time `origin`. All of the camera's pipelines count from there.
    rtp_origin: u32,
    origin: u64,
    /// Of the next packet.
    sequence: u16,
    /// Number of the pipeline.
    generation: u64,
    /// Notes that were told.
    said: HashSet<String>,
    /// Encoders that failed.
    avoid: Vec<String>,
    /// The last failure told, and when.
    failure: Option<(String, Instant)>,
}

impl Worker {
    fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut streamed = Duration::ZERO;
        loop {
            self.counters.set_state(State::Starting);
            let end = self.stream(&mut streamed);
            let End::Failed(reason) = end else { break };
            let wait = backoff.after(streamed);
            self.counters.set_state(State::Waiting);
            self.tell_failure(&reason, wait);
            if self.wait(wait) {
                break;
            }
            self.counters.restarts.fetch_add(1, Relaxed);
        }
        self.counters.set_state(State::Stopped);
        tracing::info!("{}: stopped", self.key);
    }

    /// Waits; true when told to stop.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            self.counters.alive_ns.store(self.clock.now(), Relaxed);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self.inbox.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                // Of a pipeline that is gone.
                Ok(Event::Message(..)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn tell_failure(&mut self, reason: &str, wait: Duration) {
        let told =
            self.failure.as_ref().is_some_and(|(text, when)| text == reason && when.elapsed() < REPEAT);
        let text = format!("{}: {reason}; trying again in {:.1} s", self.key, wait.as_secs_f32());
        if told {
            tracing::debug!("{text}");
        } else {
            tracing::warn!("{text}");
            self.failure = Some((reason.to_owned(), Instant::now()));
        }
    }

    /// Runs one pipeline to its end; tells how long pictures came.
    fn stream(&mut self, streamed: &mut Duration) -> End {
        *streamed = Duration::ZERO;
        self.generation += 1;
        let base_time = self.clock.now();
        let continuation = Continuation {
            timestamp_offset: self.rtp_origin.wrapping_add(rtp_ticks(base_time.saturating_sub(self.origin))),
            sequence: self.sequence,
        };
        let (events, generation) = (self.events.clone(), self.generation);
        let watch = |bus: &gst::Bus| {
            bus.set_sync_handler(move |_, message| {
                use gst::MessageView::{Eos, Error, Warning};
                if matches!(message.view(), Eos(_) | Error(_) | Warning(_)) {
                    let _ = events.send(Event::Message(generation, message.clone()));
                }
                gst::BusSyncReply::Drop
            });
        };
        let made = match pipeline::build(&self.camera, continuation, &self.avoid, watch) {
            Ok(made) => made,
            Err(text) => return End::Failed(self.explain(text)),
        };
        for note in &made.notes {
            if self.said.insert(note.clone()) {
                tracing::info!("{}: {note}", self.key);
            }
        }
        let end = match self.play(&made, base_time) {
            Ok(()) => self.watch(&made, continuation, base_time, streamed),
            Err(text) => End::Failed(self.explain(text)),
        };
        // NULL always succeeds.
        let _ = made.pipeline.set_state(gst::State::Null);
        if let End::Failed(_) = end {
            self.sequence = next_sequence(&made, self.sequence);
        }
        end
    }

    fn play(&self, made: &CameraPipeline, base_time: u64) -> Result<(), String> {
        let failed = |_| "the pipeline cannot be started".to_owned();
        // One clock and known base times: that of RTCP's sender reports is the pictures' own.
        made.pipeline.use_clock(Some(self.clock.clock()));
        made.pipeline.set_start_time(gst::ClockTime::NONE);
        made.pipeline.set_base_time(gst::ClockTime::from_nseconds(base_time));
        let change = made.pipeline.set_state(gst::State::Paused).map_err(failed)?;
        if change == gst::StateChangeSuccess::NoPreroll {
            // A live picture leaves when it is there. One of a file, or of a recording, waits for its time.
            made.sink.set_property("sync", false);
        }
        made.pipeline.set_state(gst::State::Playing).map_err(failed).map(|_| ())
    }

    /// What the pipeline said before it could not be started.
    fn explain(&self, text: String) -> String {
        let (mut told, mut stop) = (None, false);
        while let Ok(event) = self.inbox.try_recv() {
            match event {
                Event::Message(generation, message) if generation == self.generation => {
                    told = told.or_else(|| failure(&message));
                }
                Event::Message(..) => {}
                Event::Stop => stop = true,
            }
        }
        if stop {
            // The next wait must see it.
            let _ = self.events.send(Event::Stop);
        }
        told.unwrap_or(text)
    }

    fn watch(
        &mut self,
        made: &CameraPipeline,
        continuation: Continuation,
        base_time: u64,
        streamed: &mut Duration,
    ) -> End {
        let rtcp = RtcpSocket::open(&self.camera)
            .inspect_err(|error| tracing::debug!("{}: no RTCP: {error}", self.key))
            .ok();
        let mut before = Run::default();
        let mut first_picture = None;
        let mut last_picture = Instant::now();
        let mut next_report = Instant::now();
        let mut next_look = Instant::now() + TICK;
        loop {
            let event = self.inbox.recv_timeout(next_look.saturating_duration_since(Instant::now()));
            let stopped = matches!(event, Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected));
            if let Ok(Event::Message(generation, message)) = event {
                if generation != self.generation {
                    continue;
                }
                if let gst::MessageView::Warning(warning) = message.view() {
                    tracing::warn!("{}: {}", self.key, warning.error());
                    continue;
                }
                if let Some(reason) = failure(&message) {
                    self.look(made, &mut before);
                    self.blame(made, &message);
                    return End::Failed(reason);
                }
            }
            if !stopped && Instant::now() < next_look {
                continue;
            }
            next_look = Instant::now() + TICK;
            self.counters.alive_ns.store(self.clock.now(), Relaxed);

            let seen = before.frames + before.frames_dropped;
            self.look(made, &mut before);
            let now = Instant::now();
            if before.frames + before.frames_dropped > seen {
                last_picture = now;
                let first = *first_picture.get_or_insert_with(|| {
                    tracing::info!(
                        "{}: sending {} to {}:{}",
                        self.key,
                        self.camera.source,
                        self.camera.dest_host,
                        self.camera.dest_port
                    );
                    self.failure = None;
                    now
                });
                *streamed = now - first;
                self.counters.set_state(State::Streaming);
            }
            if let Some(rtcp) = &rtcp {
                let due = before.packets > 0 && now >= next_report;
                if due || (stopped && before.packets > 0) {
                    self.report(rtcp, continuation, base_time, stopped);
                    // 0.5 to 1.5 times, so that nobody's reports keep step (RFC 3550 §6.2).
                    next_report = now + REPORT_INTERVAL * (32_768 + (random() & 0xffff)) / 65_536;
                }
                self.listen(rtcp);
            }
            if stopped {
                return End::Stopped;
            }
            let patience = if first_picture.is_some() { STALLED } else { FIRST_PICTURE };
            if now - last_picture > patience {
                return End::Failed(format!("no picture for {} s", patience.as_secs()));
            }
        }
    }

    /// Takes over the elements' counters.
    fn look(&self, made: &CameraPipeline, before: &mut Run) {
        let pay: gst::Structure = made.pay.property("stats");
        let sink: gst::Structure = made.sink.property("stats");
        let of = |structure: &gst::Structure, name: &str| structure.get::<u64>(name).unwrap_or_default();
        let now = Run {
            frames: of(&pay, "frames"),
            frames_dropped: of(&pay, "frames-dropped"),
            max_packets_per_frame: of(&pay, "max-packets-per-frame"),
            prepare_time_ns: of(&pay, "prepare-time"),
            packets: of(&sink, "packets"),
            bytes: of(&sink, "bytes"),
            packets_dropped: of(&sink, "packets-dropped"),
            icmp_errors: of(&sink, "icmp-errors"),
            send_errors: of(&sink, "send-errors"),
            system_calls: of(&sink, "system-calls"),
        };
        now.add_to(&self.counters, before);
        *before = now;
    }

    fn report(&self, rtcp: &RtcpSocket, continuation: Continuation, base_time: u64, goodbye: bool) {
        let now = self.clock.now();
        let rtp = continuation.timestamp_offset.wrapping_add(rtp_ticks(now.saturating_sub(base_time)));
        let (packets, bytes) = (self.counters.packets.load(Relaxed), self.counters.bytes.load(Relaxed));
        // RTCP's counters are 32 bits wide and wrap.
        let word = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        let report = SenderReport {
            ssrc: self.camera.ssrc,
            wall: self.clock.wall(now),
            rtp,
            packets: word(packets),
            octets: word(bytes.saturating_sub(packets * RTP_HEADER_LEN)),
        };
        rtcp.send(&report.packet(&self.cname, goodbye));
        self.counters.sender_reports.fetch_add(1, Relaxed);
    }

    fn listen(&self, rtcp: &RtcpSocket) {
        for reception in rtcp.receive(self.camera.ssrc, self.clock.wall(self.clock.now())) {
            let counters = &self.counters;
            counters.receiver_reports.fetch_add(1, Relaxed);
            counters.receiver_fraction_lost.store(reception.fraction_lost.into(), Relaxed);
            counters.receiver_lost.store(u64::try_from(reception.lost).unwrap_or_default(), Relaxed);
            counters.receiver_jitter_us.store(u64::from(reception.jitter) * 1000 / 90, Relaxed);
            if let Some(time) = reception.round_trip {
                counters.round_trip_us.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
            }
        }
    }

    /// An encoder that fails is avoided: the next one may do.
    fn blame(&mut self, made: &CameraPipeline, message: &gst::Message) {
        let Some(encoder) = &made.encoder else { return };
        if message.src() == Some(encoder.upcast_ref())
            && let Some(factory) = encoder.factory()
        {
            self.avoid.push(factory.name().to_string());
        }
    }
}

/// What a message says of the pipeline's end, if it is that.
fn failure(message: &gst::Message) -> Option<String> {
    match message.view() {
        gst::MessageView::Eos(_) => Some("the stream ended".into()),
        gst::MessageView::Error(error) => {
            // Each new pipeline's elements have higher numbers.
            let name = |source: &gst::Object| {
                source.name().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
            };
            let element = message.src().map_or_else(String::new, |source| format!("{}: ", name(source)));
            // Behind the place in the source there is often the better half of it.
            let debug = error.debug().unwrap_or_default();
            let more = debug.lines().skip(1).find(|line| !line.trim().is_empty());
            let more = more.map_or_else(String::new, |line| format!(" ({})", line.trim()));
            Some(format!("{element}{}{more}", error.error()))
        }
        _ => None,
    }
}

/// Continues behind the last packet, if there was one.
fn next_sequence(made: &CameraPipeline, otherwise: u16) -> u16 {
    let stats: gst::Structure = made.pay.property("stats");
    if stats.get::<u64>("packets").unwrap_or_default() == 0 {
        return otherwise;
    }
    let last = made.pay.property::<u32>("seqnum");
    u16::try_from(last.wrapping_add(1) & 0xffff).unwrap_or_default()
}

/// Not predictable from outside, which is what RTP asks for (RFC 3550 §5.1).
fn random() -> u32 {
    let number = RandomState::new().build_hasher().finish();
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}
