// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interruptions, and tokens that outlive them.

use super::*;

fn publishing(name: &str) -> (Bench, crate::session::Track) {
    let b = bench(name, None, vec![Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.wait_for_writes(1);
    (b, track)
}

fn resuming() -> EngineEvent {
    EngineEvent::Resuming { reason: Error::SignalClosed("cut".into()), attempt: 1 }
}

fn requests(b: &Bench) -> usize {
    b.count(|e| matches!(e, Event::KeyframeRequest { forward: true, .. }))
}

#[test]
fn while_only_signalling_is_gone_frames_go_out() {
    let (b, track) = publishing("signalling-gone");
    b.script.say(resuming());
    b.wait_for("the attempt", |e| e.iter().any(|e| matches!(e, Event::Resuming { attempt: 1, .. })));
    assert_eq!(b.session.state(), ConnectionState::Reconnecting);
    let before = requests(&b);
    assert_eq!(track.write(delta()), Outcome::Sent);
    b.wait_for_writes(2);
    b.script.say(EngineEvent::Resumed);
    b.wait_for("resumption", |e| {
        e.iter().any(|e| matches!(e, Event::Resumed { interrupted } if interrupted.is_zero()))
    });
    assert_eq!(b.session.state(), ConnectionState::Connected);
    let stats = b.session.stats();
    assert_eq!((stats.resumes, stats.reconnects, stats.offline), (1, 0, Duration::ZERO));
    assert_eq!(requests(&b), before, "nothing was lost");
    assert_eq!(b.count(|e| matches!(e, Event::Unpublished { .. } | Event::Offline { .. })), 0);
}

#[test]
fn what_no_path_carries_is_dropped_and_a_keyframe_begins_what_follows() {
    let (b, track) = publishing("path-lost");
    b.script.say(EngineEvent::PathLost);
    b.wait_for("the loss", |_| !track.is_live());
    assert_eq!(b.session.state(), ConnectionState::Reconnecting);
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::NotConnected));
    let before = requests(&b);
    b.script.say(EngineEvent::KeyframeRequest { track: track.id(), layer: 0, reason: KeyframeReason::Pli });
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(requests(&b), before, "what it asks for would be dropped");
    b.script.say(EngineEvent::PathBack);
    b.wait_for("the request", |_| requests(&b) == before + 1);
    assert!(track.is_live());
    assert_eq!(track.write(delta()), Outcome::Dropped(DropReason::WaitingForKeyframe));
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.script.say(EngineEvent::Resumed);
    b.wait_for("resumption", |e| {
        e.iter().any(|e| matches!(e, Event::Resumed { interrupted } if !interrupted.is_zero()))
    });
    assert!(b.session.stats().offline >= Duration::from_millis(20));
    assert!(!published(2)(&b.events()), "it was never gone");
}

#[test]
fn a_track_added_meanwhile_starts_when_the_path_is_back() {
    let (b, _track) = publishing("added-meanwhile");
    b.script.say(EngineEvent::PathLost);
    b.wait_for("the loss", |_| b.session.state() == ConnectionState::Reconnecting);
    let second = b.session.add_track(TrackConfig::new(Codec::H264, "w"));
    b.wait_for("publication", published(2));
    assert!(!second.is_live());
    b.script.say(EngineEvent::PathBack);
    b.wait_for("the start", |_| second.is_live());
}

#[test]
fn the_server_s_token_is_kept_through_attempts_that_fail() {
    let lost = Error::SignalClosed("eof".into());
    let joins =
        vec![Join::LoseAfter(1, lost), Join::Fail(unreachable()), Join::Fail(unreachable()), Join::Stay];
    let b = bench("refreshed", None, joins);
    *b.script.refreshed.lock().unwrap() = Some("fresh".into());
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    let _ = track.write(idr());
    b.wait_for("the return", published(2));
    assert_eq!(*b.script.tokens.lock().unwrap(), ["t", "fresh", "fresh", "fresh"]);
}

#[test]
fn a_server_that_shuts_down_is_come_back_to() {
    let left = Error::Left { reason: crate::error::LeaveReason::ServerShutdown, can_reconnect: false };
    let b = bench("shutdown", None, vec![Join::LoseAfter(1, left), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    let _ = track.write(idr());
    b.wait_for("the return", published(2));
}

fn refused() -> Error {
    Error::Unauthorized { status: 401, detail: "token is expired".into() }
}

/// A session with these credentials that joins, loses the room, is refused, and would be let in again.
fn refused_later(name: &str, credentials: Credentials) -> Bench {
    let url = format!("ws://{name}.invalid");
    let script = only_script(&url);
    let lost = Error::SignalClosed("eof".into());
    *script.joins.lock().unwrap() =
        vec![Join::LoseAfter(1, lost), Join::Fail(refused()), Join::Fail(refused()), Join::Stay].into();
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let observer = move |event: Event| sink.lock().unwrap().push(event);
    let session =
        Session::start_with::<FakeEngine>(SessionConfig::new(url, credentials), Arc::new(observer)).unwrap();
    let b = Bench { session, script, events, stamps: Arc::default() };
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    let _ = track.write(idr());
    // A dropped track would not be published again.
    std::mem::forget(track);
    b
}

#[test]
fn an_expired_token_ends_the_session_only_where_there_is_no_other() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let provider = move || Ok(Secret::from(format!("token {}", count.fetch_add(1, Ordering::SeqCst))));
    let b = refused_later("renewable", Credentials::Provider(Arc::new(provider)));
    b.wait_for("the return", published(2));
    let tokens = b.script.tokens.lock().unwrap().clone();
    assert_eq!(tokens, ["token 0", "token 1", "token 2", "token 3"], "a new one for each attempt");

    let b = refused_later("fixed", Credentials::Token("t".into()));
    assert!(matches!(b.ended(), Some(Error::Unauthorized { .. })));
}
