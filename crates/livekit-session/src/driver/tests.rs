// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's policy against an engine that follows a script.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

mod activity;
mod congestion;
mod elsewhere;
mod interruption;
mod replays;
mod stats;

use super::*;
use crate::config::{Codec, Description, Secret};
use crate::data::DataPacket;
use crate::engine::EngineEvent;
use crate::event::{ConnectionState, KeyframeReason, Participant, RoomInfo};
use crate::frame::{DropReason, Frame, Outcome};
use crate::keyframe::SUBSCRIBER_SETUP;
use crate::session::Session;

mod data;

/// What the next joins do, and what was seen. One per test, found by the URL's host.
#[derive(Default)]
struct Script {
    joins: Mutex<VecDeque<Join>>,
    joined: AtomicUsize,
    written: AtomicUsize,
    /// When the frames were written, and their times.
    written_at: Mutex<Vec<Instant>>,
    times: Mutex<Vec<Duration>>,
    /// Lets a [`Join::Held`] go on; kept if it comes first.
    release: tokio::sync::Notify,
    left: AtomicUsize,
    /// The engine takes no frames.
    stuck: AtomicBool,
    data: Mutex<Vec<String>>,
    described: Mutex<Vec<Description>>,
    /// What the engine is to say next, and that there is something.
    says: Mutex<VecDeque<EngineEvent>>,
    said: tokio::sync::Notify,
    /// What the engine was told: tracks published as muted (or not), and muted later.
    mutes: Mutex<Vec<bool>>,
    /// The layers of the frames written.
    layers: Mutex<Vec<usize>>,
    /// The tokens of the attempts to join, and what the server replaces them by.
    tokens: Mutex<Vec<String>>,
    refreshed: Mutex<Option<String>>,
    /// Where else there is a server, who asked for that, and where the engine was sent.
    regions: Mutex<Vec<String>>,
    asked: AtomicUsize,
    /// The answer to that does not come while this is set.
    slow: AtomicBool,
    suggested: Mutex<Vec<String>>,
}

impl Script {
    fn say(&self, event: EngineEvent) {
        self.says.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.said.notify_one();
    }

    fn layers(&self) -> Vec<usize> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn mutes(&self) -> Vec<bool> {
        self.mutes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Join {
    Fail(Error),
    /// Stays until the session leaves.
    Stay,
    /// Publishes, then fails like this after so many frames.
    LoseAfter(usize, Error),
    /// Fails like this as soon as a track is to be published.
    NoMedia(Error),
    /// Stays, and takes nothing while the script says so.
    Congested,
    /// Publishes, then panics at the first frame.
    Panic,
    /// Has somebody in the room, who asks for a keyframe (or not) when the first frame comes.
    Viewer {
        asks: bool,
    },
    /// Never answers.
    Hang,
    /// Answers like this, but not before the test releases it.
    Held(Box<Join>),
}

fn held(join: Join) -> Join {
    Join::Held(Box::new(join))
}

static SCRIPTS: Mutex<BTreeMap<String, Arc<Script>>> = Mutex::new(BTreeMap::new());

fn script(url: &str) -> Arc<Script> {
    SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner).entry(url.into()).or_default().clone()
}

/// The script of a session that begins. Tests run at the same time: two of one name would take each other's lines.
fn only_script(url: &str) -> Arc<Script> {
    static BEGUN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let new = BEGUN.lock().unwrap_or_else(PoisonError::into_inner).insert(url.into());
    assert!(new, "another test has {url} already");
    script(url)
}

struct FakeEngine {
    script: Arc<Script>,
    how: Join,
    frames: usize,
    events: VecDeque<EngineEvent>,
    failure: Option<Error>,
    data: bool,
    /// This many packets are taken.
    data_room: usize,
}

impl MediaEngine for FakeEngine {
    async fn join(config: &SessionConfig, token: &Secret) -> Result<(Self, RoomInfo), Error> {
        let script = script(&config.url);
        script.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token.expose().into());
        let mut how =
            script.joins.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Join::Stay);
        while let Join::Held(then) = how {
            script.release.notified().await;
            how = *then;
        }
        match how {
            Join::Fail(error) => return Err(error),
            Join::Hang => std::future::pending().await,
            _ => {}
        }
        script.joined.fetch_add(1, Ordering::SeqCst);
        let room = RoomInfo {
            name: "room".into(),
            sid: "RM".into(),
            identity: "me".into(),
            participant_sid: "PA".into(),
            server_version: "1".into(),
        };
        let mut events = VecDeque::new();
        if matches!(how, Join::Viewer { .. }) {
            let viewer = Participant { identity: "viewer".into(), sid: "PA2".into(), name: String::new() };
            events.push_back(EngineEvent::ParticipantJoined(viewer));
        }
        Ok((Self { script, how, frames: 0, events, failure: None, data: false, data_room: 3 }, room))
    }

    fn publish(&mut self, track: TrackId, config: &TrackConfig) {
        if let Join::NoMedia(error) = &self.how {
            self.failure = Some(error.clone());
            return;
        }
        self.events.extend([1000, 1000, 1020, 1100, 900].map(EngineEvent::BandwidthEstimate));
        self.set_muted(track, config.muted);
        let (name, mime_type) = (config.name.clone(), config.codec.mime_type().to_owned());
        self.events.push_back(EngineEvent::Published { track, sid: "TR".into(), name, mime_type });
    }

    fn unpublish(&mut self, track: TrackId) {
        self.events.push_back(EngineEvent::Unpublished { track, sid: "TR".into() });
    }

    fn write(&mut self, track: TrackId, layer: usize, frame: &Frame) -> Result<(), Error> {
        self.script.layers.lock().unwrap_or_else(PoisonError::into_inner).push(layer);
        self.frames += 1;
        self.script.times.lock().unwrap_or_else(PoisonError::into_inner).push(frame.media_time);
        self.script.written_at.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        if matches!(self.how, Join::Viewer { asks: true }) {
            self.events.push_back(EngineEvent::KeyframeRequest { track, layer, reason: KeyframeReason::Pli });
        }
        self.script.written.fetch_add(1, Ordering::SeqCst);
        match &self.how {
            Join::Panic => panic!("scripted"),
            Join::LoseAfter(frames, error) if self.frames >= *frames => self.failure = Some(error.clone()),
            _ => {}
        }
        Ok(())
    }

    fn want_data(&mut self) {
        if !std::mem::replace(&mut self.data, true) {
            self.events.push_back(EngineEvent::DataOpen(true));
        }
    }

    fn write_data(&mut self, packet: &DataPacket) -> bool {
        let open = self.data && self.data_room > 0;
        if open {
            self.data_room -= 1;
            let text = String::from_utf8_lossy(&packet.payload).into_owned();
            self.script.data.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        open
    }

    fn describe(&mut self, change: &Description) {
        self.script.described.lock().unwrap_or_else(PoisonError::into_inner).push(change.clone());
    }

    async fn next(&mut self) -> Result<EngineEvent, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        loop {
            let next = self.script.says.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(event) = next {
                return Ok(event);
            }
            self.script.said.notified().await;
        }
    }

    fn set_muted(&mut self, _track: TrackId, muted: bool) {
        self.script.mutes.lock().unwrap_or_else(PoisonError::into_inner).push(muted);
    }

    fn queue_age(&mut self, _track: TrackId, _layer: usize) -> Duration {
        Duration::ZERO
    }

    fn queued_bytes(&mut self) -> usize {
        if self.script.stuck.load(Ordering::SeqCst) { 1_000_000_000 } else { 0 }
    }

    fn set_desired_bitrate(&mut self, _bitrate: u64) {}

    fn reset_estimate(&mut self, _bitrate: u64) {}

    fn drop_retransmissions(&mut self) {}

    fn is_drained(&mut self) -> bool {
        true
    }

    fn refreshed_token(&self) -> Option<Secret> {
        self.script.refreshed.lock().unwrap_or_else(PoisonError::into_inner).clone().map(Secret::from)
    }

    async fn regions(config: &SessionConfig, _token: &Secret) -> Vec<String> {
        let script = script(&config.url);
        script.asked.fetch_add(1, Ordering::SeqCst);
        while script.slow.load(Ordering::SeqCst) {
            script.release.notified().await;
        }
        script.regions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn suggested_regions(&self) -> Vec<String> {
        self.script.suggested.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn leave(self, _deadline: Instant) {
        self.script.left.fetch_add(1, Ordering::SeqCst);
    }
}

/// Longer than anything takes, however busy the machine: waited for only when something is wrong.
const WAIT: Duration = Duration::from_secs(60);
/// Never over while a test runs.
const NEVER: Duration = Duration::from_secs(600);

struct Bench {
    session: Session,
    script: Arc<Script>,
    events: Arc<Mutex<Vec<Event>>>,
    /// When each of the events came, by the driver's thread.
    stamps: Arc<Mutex<Vec<Instant>>>,
}

/// A session in which no time is ever over, so that a test whose threads get no processor for a while ends as any
/// other. What a test is about it sets itself, by [`bench_with`].
fn bench(name: &str, attempts: Option<u32>, joins: Vec<Join>) -> Bench {
    bench_with(name, attempts, joins, |_| ())
}

fn bench_with(
    name: &str,
    attempts: Option<u32>,
    joins: Vec<Join>,
    set: impl FnOnce(&mut SessionConfig),
) -> Bench {
    let url = format!("ws://{name}.invalid");
    let script = only_script(&url);
    *script.joins.lock().unwrap_or_else(PoisonError::into_inner) = joins.into();
    let mut config = SessionConfig::new(url, Credentials::Token("t".into()));
    config.reconnect_attempts = attempts;
    (config.connect_timeout, config.prime_hold, config.max_queue_time) = (NEVER, NEVER, NEVER);
    set(&mut config);
    let (events, stamps) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (sink, clock) = (events.clone(), stamps.clone());
    let observer = move |event: Event| {
        clock.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        sink.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    };
    let session = Session::start_with::<FakeEngine>(config, Arc::new(observer)).unwrap();
    Bench { session, script, events, stamps }
}

impl Bench {
    fn wait_for(&self, what: &str, pred: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + WAIT;
        loop {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if pred(&events) {
                return;
            }
            assert!(Instant::now() < deadline, "no {what} in {events:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the driver has taken all commands that it was given so far. Not in a room.
    fn settle(&self) {
        let probe = self.session.add_track(TrackConfig::new(Codec::Opus, "probe"));
        let id = Some(probe.id());
        let known = || self.session.stats().tracks.iter().any(|track| track.track == id);
        self.wait_for("the probe", |_| known());
        drop(probe);
        self.wait_for("the end of the probe", |_| !known());
    }

    /// Lets a [`Join::Held`] go on, once everything before it has been taken.
    fn release(&self) {
        self.settle();
        self.script.release.notify_one();
    }

    /// When the first event of this kind came.
    fn when(&self, pred: impl Fn(&Event) -> bool) -> Instant {
        let at = self.events().iter().position(pred).unwrap();
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)[at]
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for_writes(&self, count: usize) {
        self.wait_for("the frames", |_| self.script.written.load(Ordering::SeqCst) >= count);
    }

    fn count(&self, pred: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|e| pred(e)).count()
    }

    fn ended(&self) -> Option<Error> {
        assert!(self.session.wait_ended(WAIT), "the session goes on");
        match self.events.lock().unwrap_or_else(PoisonError::into_inner).last() {
            Some(Event::Disconnected(error)) => error.clone(),
            other => panic!("the last event is {other:?}"),
        }
    }
}

fn unreachable() -> Error {
    Error::Unreachable { url: "ws://x".into(), reason: "refused".into() }
}

fn idr() -> Frame {
    frame(&[0, 0, 0, 1, 0x65, 0x88])
}

fn delta() -> Frame {
    frame(&[0, 0, 0, 1, 0x41, 0x9a])
}

fn frame(data: &[u8]) -> Frame {
    Frame { data: data.into(), media_time: Duration::ZERO, captured_at: Instant::now(), capture_time: None }
}

fn published(n: usize) -> impl Fn(&[Event]) -> bool {
    move |events| events.iter().filter(|e| matches!(e, Event::Published { .. })).count() >= n
}

#[test]
fn an_unreachable_server_is_tried_again_until_it_answers() {
    let b = bench("retry", None, vec![Join::Fail(unreachable()), Join::Fail(unreachable()), Join::Stay]);
    b.wait_for("join", |e| e.iter().any(|e| matches!(e, Event::Joined(_))));
    assert_eq!(b.count(|e| matches!(e, Event::Offline { .. })), 2);
    assert_eq!(b.session.state(), ConnectionState::Connected);
    b.session.leave();
    assert!(b.ended().is_none());
    assert_eq!(b.script.left.load(Ordering::SeqCst), 1);
}

#[test]
fn bad_credentials_end_the_session_at_once() {
    let refused = Error::Unauthorized { status: 401, detail: String::new() };
    let b = bench("unauthorized", None, vec![Join::Fail(refused)]);
    assert!(matches!(b.ended(), Some(Error::Unauthorized { .. })));
    assert_eq!(b.count(|e| matches!(e, Event::Connecting { .. })), 1);
    assert_eq!(b.session.state(), ConnectionState::Failed);
}

#[test]
fn attempts_are_limited_when_asked_for() {
    for (limit, tries) in [(0, 1), (2, 3)] {
        let joins = (0..9).map(|_| Join::Fail(unreachable())).collect();
        let b = bench(&format!("limit{limit}"), Some(limit), joins);
        assert!(matches!(b.ended(), Some(Error::Unreachable { .. })));
        assert_eq!(b.count(|e| matches!(e, Event::Connecting { .. })), tries, "limit {limit}");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_after_the_connect_timeout() {
    let timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let b = bench_with("hang", Some(0), vec![Join::Hang], |config| config.connect_timeout = timeout);
    assert!(matches!(b.ended(), Some(Error::ConnectTimeout(t)) if t == timeout));
    assert!(begin.elapsed() >= timeout);
}

#[test]
fn leaving_while_joining_ends_at_once() {
    let b = bench("leave-joining", None, vec![Join::Hang]);
    b.wait_for("attempt", |e| e.iter().any(|e| matches!(e, Event::Connecting { .. })));
    b.session.leave();
    assert!(b.ended().is_none());
}

#[test]
fn nothing_but_a_keyframe_starts_a_track() {
    let b = bench("start", None, vec![Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    assert_eq!(track.write(frame(&[])), Outcome::Dropped(DropReason::Empty));
    assert!(matches!(track.write(idr()), Outcome::Sent | Outcome::Queued));
    assert!(matches!(track.write(delta()), Outcome::Sent | Outcome::Queued));
    let start =
        |e: &Event| matches!(e, Event::KeyframeRequest { reason: KeyframeReason::Start, forward: true, .. });
    b.wait_for("the first request", |e| e.iter().any(start));
    assert_eq!(b.count(start), 1);
    let stats = track.stats();
    assert_eq!((stats.frames_sent, stats.keyframes_sent, stats.frames_dropped_total()), (2, 1, 2));
}

#[test]
fn a_lost_room_is_joined_again_and_the_tracks_are_published_again() {
    let b = bench("lost", None, vec![Join::LoseAfter(2, Error::SignalClosed("test".into())), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    for f in [idr(), delta()] {
        let _ = track.write(f);
    }
    b.wait_for("second publication", published(2));
    assert_eq!(b.count(|e| matches!(e, Event::Unpublished { .. })), 1);
    assert_eq!(b.session.stats().reconnects, 1);
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe), "an IDR comes first");
    assert!(matches!(track.write(idr()), Outcome::Sent | Outcome::Queued));
}

#[test]
fn being_removed_is_final() {
    use crate::error::LeaveReason::{DuplicateIdentity, ServerShutdown};
    let removed = Error::Left { reason: DuplicateIdentity, can_reconnect: false };
    let b = bench("removed", None, vec![Join::LoseAfter(1, removed)]);
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    let _ = track.write(frame(&[1]));
    assert!(matches!(b.ended(), Some(Error::Left { reason: DuplicateIdentity, .. })));

    let shutdown = Error::Left { reason: ServerShutdown, can_reconnect: true };
    let b = bench("sent-off", None, vec![Join::LoseAfter(1, shutdown), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    let _ = track.write(frame(&[1]));
    b.wait_for("second publication", published(2));
}

#[test]
fn a_panic_in_the_engine_is_a_reconnect_and_the_third_is_an_error() {
    let b = bench("panic", None, vec![Join::Panic, Join::Panic, Join::Panic, Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    for n in 1..=3 {
        b.wait_for("publication", published(n));
        let _ = track.write(frame(&[1]));
    }
    assert!(matches!(b.ended(), Some(Error::Internal(_))));
    assert_eq!(b.script.joined.load(Ordering::SeqCst), 3);
}

#[test]
fn a_closed_track_takes_no_frames_and_is_unpublished() {
    let b = bench("close", None, vec![Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    drop(track);
    b.wait_for("unpublication", |e| e.iter().any(|e| matches!(e, Event::Unpublished { .. })));
    assert!(b.session.stats().tracks.is_empty());
}

#[test]
fn the_observer_hears_of_estimates_that_differ() {
    let b = bench("estimate", None, vec![Join::Stay]);
    let _track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    let events = b.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told = events.iter().filter_map(|e| match e {
        Event::BandwidthEstimate(bitrate) => Some(*bitrate),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [1000, 1100, 900]);
    assert_eq!(b.count(|e| matches!(e, Event::KeyframeRequest { .. })), 0, "of audio there are none");
}

#[test]
fn a_primed_track_starts_when_a_viewer_is_ready() {
    for (name, asks, hold) in
        [("prime-ready", true, NEVER), ("prime-nobody-asks", false, SUBSCRIBER_SETUP * 3)]
    {
        let joins = vec![held(Join::Viewer { asks })];
        let b = bench_with(name, None, joins, |config| config.prime_hold = hold);
        let track = b.session.add_track(TrackConfig::new(Codec::H264, "file"));
        track.prime(idr());
        b.release();
        b.wait_for("keyframe sent ahead", |_| b.script.written.load(Ordering::SeqCst) == 1);
        b.wait_for("publication", published(1));
        let sent = b.script.written_at.lock().unwrap_or_else(PoisonError::into_inner)[0];
        let told = b.when(|e| matches!(e, Event::Published { .. }));
        let joined = b.when(|e| matches!(e, Event::Joined(_)));
        assert!(told >= if asks { sent + SUBSCRIBER_SETUP } else { joined + hold }, "{name}");
        let requests = |e: &Event| matches!(e, Event::KeyframeRequest { .. });
        assert_eq!(b.count(requests), 0, "the stream starts with a keyframe anyway");
        assert!(matches!(track.write(idr()), Outcome::Sent | Outcome::Queued));
        b.wait_for("frame", |_| b.script.written.load(Ordering::SeqCst) == 2);
        let times = b.script.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(times[0] < times[1], "time goes forward: {times:?}");
    }
}

#[test]
fn a_primed_track_goes_live_with_its_publication() {
    let b = bench("prime-live", None, vec![held(Join::Viewer { asks: false })]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "file"));
    track.prime(idr());
    b.release();
    b.wait_for("keyframe sent ahead", |_| b.script.written.load(Ordering::SeqCst) == 1);
    assert!(!track.is_live(), "nobody has asked");
    let reason = KeyframeReason::Pli;
    b.script.say(EngineEvent::KeyframeRequest { track: track.id(), layer: 0, reason });
    b.wait_for("publication", published(1));
    assert!(track.is_live());
}

#[test]
fn nobody_in_the_room_means_no_waiting() {
    let b = bench("prime-empty", None, vec![held(Join::Stay)]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "file"));
    track.prime(idr());
    b.release();
    b.wait_for("publication", published(1));
    assert_eq!(b.script.written.load(Ordering::SeqCst), 0);
}

#[test]
fn frames_dropped_while_joining_are_seen_in_the_statistics() {
    let b = bench("stats-joining", None, vec![Join::Hang]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("track in the statistics", |_| b.session.stats().tracks.len() == 1);
    assert_eq!(track.write(idr()), Outcome::Dropped(DropReason::NotConnected));
    assert_eq!(b.session.stats().tracks[0].frames_dropped_total(), 1);
    drop(track);
    b.wait_for("no track in the statistics", |_| b.session.stats().tracks.is_empty());
}

#[test]
fn a_room_that_is_lost_at_once_is_a_failed_attempt() {
    let lose = || Join::LoseAfter(1, Error::MediaTransport("blocked".into()));
    let b = bench("flapping", Some(2), (0..9).map(|_| lose()).collect());
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    for n in 1..=3 {
        b.wait_for("publication", published(n));
        let _ = track.write(frame(&[1]));
    }
    assert!(matches!(b.ended(), Some(Error::MediaTransport(_))));
    assert_eq!(b.count(|e| matches!(e, Event::Connecting { .. })), 3);
}

#[test]
fn a_primed_track_that_goes_on_without_a_keyframe_asks_for_one() {
    let b = bench("prime-moved-on", None, vec![held(Join::Viewer { asks: true })]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    track.prime(idr());
    b.release();
    b.wait_for("publication", published(1));
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    let asked = |e: &Event| matches!(e, Event::KeyframeRequest { forward: true, .. });
    b.wait_for("request", |e| e.iter().any(asked));
}

#[test]
fn a_picture_kept_for_the_start_is_not_shown_when_the_start_was_missed() {
    let b = bench("prime-stale", None, vec![held(Join::Viewer { asks: true })]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    track.prime(idr());
    assert_eq!(track.write(idr()), Outcome::Dropped(DropReason::NotConnected));
    b.release();
    b.wait_for("publication", published(1));
    assert_eq!(b.script.written.load(Ordering::SeqCst), 0);
}

#[test]
fn congestion_drops_up_to_the_next_keyframe() {
    let max = Duration::from_millis(300);
    let b = bench_with("congested", None, vec![Join::Congested], |config| config.max_queue_time = max);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    b.script.stuck.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    for f in [idr(), delta(), delta()] {
        assert!(matches!(track.write(f), Outcome::Sent | Outcome::Queued));
    }
    b.wait_for("drop", |_| track.stats().frames_dropped_total() == 2);
    assert!(begin.elapsed() >= max);
    assert_eq!(b.script.written.load(Ordering::SeqCst), 0);
    let asked = |e: &Event| matches!(e, Event::KeyframeRequest { reason: KeyframeReason::Dropped, .. });
    b.wait_for("request", |e| e.iter().any(asked));
    let _ = track.write(delta());
    b.wait_for("drop", |_| track.stats().frames_dropped_total() == 3);
    b.script.stuck.store(false, Ordering::SeqCst);
    assert!(matches!(track.write(idr()), Outcome::Sent | Outcome::Queued));
    b.wait_for("keyframe", |_| b.script.written.load(Ordering::SeqCst) == 2);
    let slot = DropReason::ALL.iter().position(|r| *r == DropReason::QueueFull).unwrap();
    assert_eq!(track.stats().frames_dropped[slot], 3);
    assert_eq!((track.stats().frames_sent, track.stats().keyframes_sent), (2, 2));
}

#[test]
fn what_waits_is_sent_when_a_track_is_closed() {
    let b = bench("congested-close", None, vec![Join::Congested]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    b.script.stuck.store(true, Ordering::SeqCst);
    let _ = (track.write(idr()), track.write(delta()));
    drop(track);
    b.wait_for("frames", |_| b.script.written.load(Ordering::SeqCst) == 2);
}

#[test]
fn a_hanging_token_callback_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let provider: crate::TokenProvider = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1200));
        Ok("t".into())
    });
    let mut config = SessionConfig::new("ws://slow-token.invalid", Credentials::Provider(provider));
    config.connect_timeout = Duration::from_millis(200);
    let (joined, wait) = std::sync::mpsc::channel();
    let observer = move |event: Event| {
        if matches!(event, Event::Joined(_)) {
            let _ = joined.send(());
        }
    };
    let _session = Session::start_with::<FakeEngine>(config, Arc::new(observer)).unwrap();
    wait.recv_timeout(WAIT).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
