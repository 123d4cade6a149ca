// SPDX-License-Identifier: MIT OR Apache-2.0

//! Other regions of the server, and other rooms.

use super::*;

fn set(list: &Mutex<Vec<String>>, urls: &[&str]) {
    *list.lock().unwrap() = urls.iter().map(ToString::to_string).collect();
}

fn left(reason: LeaveReason) -> Error {
    Error::Left { reason, can_reconnect: true }
}

fn addresses(b: &Bench) -> Vec<String> {
    let url = |e: Event| match e {
        Event::Connecting { url, .. } => Some(url),
        _ => None,
    };
    b.events().into_iter().filter_map(url).collect()
}

fn joined(n: usize) -> impl Fn(&[Event]) -> bool {
    move |events| events.iter().filter(|e| matches!(e, Event::Joined(_))).count() >= n
}

#[test]
fn when_the_address_fails_its_regions_are_tried_in_their_order() {
    let [given, dead, good] = ["ws://cloud.invalid", "ws://dead-region.invalid", "ws://good-region.invalid"];
    set(&script(given).regions, &[dead, good]);
    // What regions say of regions does not count: there would be no end of them.
    set(&script(dead).regions, &[dead]);
    script(dead).joins.lock().unwrap().push_back(Join::Fail(unreachable()));
    script(good).joins.lock().unwrap().push_back(Join::LoseAfter(1, Error::SignalClosed("eof".into())));
    let b = bench("cloud", None, vec![Join::Fail(unreachable()), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(addresses(&b), [given, dead, good]);
    assert_eq!(
        (script(given).asked.load(Ordering::SeqCst), script(dead).asked.load(Ordering::SeqCst)),
        (1, 0)
    );
    // After a stay the way begins anew.
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.wait_for("the second join", joined(2));
    assert_eq!(addresses(&b).last().unwrap(), given);
}

fn no_media() -> Join {
    Join::NoMedia(Error::MediaTransport("no path to the server".into()))
}

#[test]
fn a_region_without_media_is_left_for_the_next_one() {
    let [given, blocked, good] =
        ["ws://no-media.invalid", "ws://no-media-either.invalid", "ws://with-media.invalid"];
    set(&script(given).regions, &[blocked, good]);
    script(blocked).joins.lock().unwrap().push_back(no_media());
    let lost = Error::MediaTransport("the network path to the server is gone".into());
    script(good).joins.lock().unwrap().push_back(Join::LoseAfter(1, lost));
    let b = bench("no-media", None, vec![no_media(), Join::Stay]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(addresses(&b), [given, blocked, good]);
    let asked = |url| script(url).asked.load(Ordering::SeqCst);
    assert_eq!((asked(given), asked(blocked)), (1, 0));
    // Where media was there once, its loss says nothing of the place.
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.wait_for("the second publication", published(2));
    assert_eq!(addresses(&b)[3..], [given]);
    assert_eq!((asked(given), asked(good)), (1, 0));
}

#[test]
fn leaving_does_not_wait_for_the_answer_about_regions() {
    let url = "ws://no-media-no-answer.invalid";
    script(url).slow.store(true, Ordering::SeqCst);
    let b = bench("no-media-no-answer", None, vec![no_media()]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("the question", |_| script(url).asked.load(Ordering::SeqCst) == 1);
    b.session.leave();
    assert!(b.ended().is_none());
    drop(track);
}

#[test]
fn regions_are_not_asked_for_what_they_would_refuse_as_well() {
    let refused = Error::Unauthorized { status: 401, detail: "no".into() };
    let b = bench("cloud-refuses", None, vec![Join::Fail(refused)]);
    assert!(matches!(b.ended(), Some(Error::Unauthorized { .. })));
    assert_eq!(b.script.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn who_is_sent_to_another_region_goes_there_first() {
    let other = "ws://other-region.invalid";
    set(&script("ws://sent-away.invalid").suggested, &[other]);
    let b = bench("sent-away", None, vec![Join::LoseAfter(1, left(LeaveReason::Migration))]);
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.wait_for("the second publication", published(2));
    assert_eq!(addresses(&b), ["ws://sent-away.invalid", other]);
}

/// A session in `name` with these credentials that is moved into the room `hall` and then loses the connection.
fn moved(name: &str, credentials: Credentials, after: Vec<Join>) -> Bench {
    let mut joins = vec![Join::LoseAfter(1, Error::SignalClosed("eof".into()))];
    joins.extend(after);
    *script(&format!("ws://{name}.invalid")).refreshed.lock().unwrap() = Some("for-the-hall".into());
    let b = bench_with(name, None, joins, |config| {
        config.credentials = credentials;
        config.room = Some("room".into());
    });
    let track = b.session.add_track(TrackConfig::new(Codec::H264, "v"));
    b.wait_for("publication", published(1));
    assert_eq!(b.session.stats().room.as_deref(), Some("room"));
    b.script.say(EngineEvent::Moved(RoomInfo {
        name: "hall".into(),
        sid: "RM2".into(),
        identity: "me".into(),
        participant_sid: "PA".into(),
        server_version: "1".into(),
    }));
    b.wait_for("the move", |e| e.iter().any(|e| matches!(e, Event::Moved(room) if room.name == "hall")));
    assert_eq!(b.session.stats().room.as_deref(), Some("hall"));
    assert_eq!(b.count(|e| matches!(e, Event::Unpublished { .. })), 0, "tracks stay");
    assert_eq!(track.write(idr()), Outcome::Sent);
    b.wait_for("the second join", joined(2));
    b
}

fn tokens(b: &Bench) -> Vec<String> {
    b.script.tokens.lock().unwrap().clone()
}

#[test]
fn who_was_moved_comes_back_to_the_new_room_by_the_servers_token() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let provider = move || Ok(Secret::new(format!("asked-{}", counter.fetch_add(1, Ordering::SeqCst) + 1)));
    let refused = Error::Unauthorized { status: 401, detail: "expired".into() };
    let provider = Credentials::Provider(Arc::new(provider));
    // The token that is refused at last is one that the application can replace.
    let b = moved("moved-provider", provider, vec![Join::Fail(refused), Join::Stay]);
    assert_eq!(tokens(&b), ["asked-1", "for-the-hall", "asked-2"]);
    let fixed = moved("moved-token", Credentials::Token("first".into()), vec![Join::Stay]);
    assert_eq!(tokens(&fixed), ["first", "for-the-hall"]);
}

#[test]
fn an_api_key_makes_a_token_for_the_room_that_we_were_moved_into() {
    let secret = "s".repeat(32);
    let credentials = Credentials::ApiKey { key: "key".into(), secret: secret.as_str().into() };
    let b = moved("moved-key", credentials, vec![Join::Stay]);
    let verifier = livekit_token::TokenVerifier::with_api_key("key", &secret);
    let rooms: Vec<_> = tokens(&b).iter().map(|token| verifier.verify(token).unwrap().video.room).collect();
    assert_eq!(rooms, ["room", "hall"]);
}
