// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data packets and descriptions across joins.

use super::*;
use crate::data::DataError;

fn packet(text: &str, reliable: bool) -> DataPacket {
    let payload = text.as_bytes().into();
    DataPacket { payload, topic: "t".into(), reliable, destinations: Vec::new() }
}

fn sent(b: &Bench) -> Vec<String> {
    b.script.data.lock().unwrap().clone()
}

/// An engine of these tests takes three packets, and more in the next room.
#[test]
fn reliable_packets_wait_for_the_room_and_for_the_next_one() {
    let lost = Error::SignalClosed("test".into());
    let b = bench("data", None, vec![Join::Fail(unreachable()), Join::LoseAfter(1, lost), Join::Stay]);
    assert_eq!(b.session.send_data(packet("lossy", false)), Err(DataError::NotConnected));
    for text in ["1", "2", "3", "4"] {
        b.session.send_data(packet(text, true)).unwrap();
    }
    b.wait_for("channels", |e| e.iter().any(|e| matches!(e, Event::DataReady)));
    b.wait_for("room for three", |_| sent(&b).len() == 3 && b.session.stats().data.sent == 3);
    b.wait_for("the fourth, put back", |_| b.session.stats().data.queued == 1);
    b.session.send_data(packet("too late", false)).unwrap();
    let track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    let _ = track.write(frame(&[1]));
    b.wait_for("the next room", |_| b.session.stats().data.sent == 4);
    assert_eq!(sent(&b), ["1", "2", "3", "4"]);
    let stats = b.session.stats().data;
    assert_eq!((stats.sent, stats.queued, stats.dropped, stats.refused), (4, 0, 1, 1));
}

#[test]
fn a_session_without_data_opens_no_channels_and_one_that_listens_does() {
    let b = bench("no-data", None, vec![Join::Stay]);
    let _track = b.session.add_track(TrackConfig::new(Codec::Opus, "a"));
    b.wait_for("publication", published(1));
    assert_eq!(b.count(|e| matches!(e, Event::DataReady)), 0);
    b.session.send_data(packet("now", false)).unwrap_err();
    b.session.send_data(packet("now", true)).unwrap();
    b.wait_for("channels", |e| e.iter().any(|e| matches!(e, Event::DataReady)));
}

#[test]
fn what_is_left_in_the_queue_at_the_end_is_counted_and_nothing_more_is_taken() {
    let b = bench("data-end", None, vec![Join::Hang]);
    b.session.send_data(packet("1", true)).unwrap();
    b.session.leave();
    assert!(b.ended().is_none());
    assert_eq!(b.session.send_data(packet("2", true)), Err(DataError::Ended));
    assert_eq!(b.session.stats().data.dropped, 1);
}

#[test]
fn packets_that_were_just_given_leave_before_the_session_does() {
    let b = bench("data-leave", None, vec![Join::Stay]);
    b.wait_for("join", |e| e.iter().any(|e| matches!(e, Event::Joined(_))));
    b.session.send_data(packet("last words", true)).unwrap();
    b.session.leave();
    assert!(b.ended().is_none());
    assert_eq!(sent(&b), ["last words"]);
}

#[test]
fn a_description_goes_out_at_once_in_the_room_and_as_a_change() {
    let b = bench("describe", None, vec![Join::Stay]);
    b.wait_for("join", |e| e.iter().any(|e| matches!(e, Event::Joined(_))));
    let mut description = Description { name: Some("Camera".into()), ..Description::default() };
    description.attributes.insert("place".into(), "roof".into());
    b.session.describe(description.clone());
    b.session.describe(description.clone());
    description.attributes.clear();
    b.session.describe(description);
    b.wait_for("two changes", |_| b.script.described.lock().unwrap().len() == 2);
    let described = b.script.described.lock().unwrap().clone();
    assert_eq!(described[0].name.as_deref(), Some("Camera"));
    assert_eq!(described[0].attributes["place"], "roof");
    assert_eq!((described[1].name.clone(), described[1].attributes["place"].as_str()), (None, ""));
}
