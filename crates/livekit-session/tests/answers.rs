// SPDX-License-Identifier: MIT OR Apache-2.0

//! A session against a server whose SDP answers lack something, or say something absurd.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is the report")]

mod common;

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use common::{WAIT, serve};
use livekit_session::{Codec, Credentials, Error, Event, Session, SessionConfig, TrackConfig};

/// Makes another answer of a good one.
type Change = Box<dyn Fn(&str) -> String + Send + Sync>;

/// What a receiver would answer.
fn answer_to(offer: &str) -> String {
    let mut answer = String::new();
    for line in offer.lines() {
        match line.split([':', '=']).nth(1).unwrap_or_default() {
            "sendonly" | "sendrecv" => answer.push_str("a=recvonly"),
            "setup" => answer.push_str("a=setup:passive"),
            "ice-ufrag" => answer.push_str("a=ice-ufrag:server01"),
            "ice-pwd" => answer.push_str("a=ice-pwd:password0password0password0"),
            "msid" | "ssrc" | "ssrc-group" | "candidate" | "end-of-candidates" => continue,
            "simulcast" => answer.push_str(&line.replace("send", "recv")),
            "rid" => answer.push_str(&line.replace(" send", " recv")),
            _ => answer.push_str(line),
        }
        answer.push_str("\r\n");
    }
    answer
}

/// Every line left out, said twice, cut short, with its numbers absurd or its text doubled; and the whole cut short there.
fn changes(lines: usize) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for at in 0..lines {
        let mut line = |change: fn(&str) -> String| {
            changes.push(Box::new(move |sdp| {
                let line = |(number, line): (usize, &str)| match number == at {
                    true => change(line),
                    false => format!("{line}\r\n"),
                };
                sdp.lines().enumerate().map(line).collect()
            }));
        };
        line(|_| String::new());
        line(|line| format!("{line}\r\n{line}\r\n"));
        line(|line| format!("{}\r\n", &line[..line.len() / 2]));
        line(|line| line.replace(|c: char| c.is_ascii_digit(), "99999999999") + "\r\n");
        line(|line| line.replace(|c: char| c.is_ascii_digit(), "0") + "\r\n");
        line(|line| format!("{line}{}\r\n", line.repeat(200)));
        changes.push(Box::new(move |sdp| sdp.lines().take(at).map(|line| format!("{line}\r\n")).collect()));
    }
    changes
}

/// Publishes a track to a server with such answers; the error that ends the session, if one does. There is an end, or an
/// answer that was read.
fn publish(change: Arc<Change>) -> Option<Error> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server =
        thread::spawn(move || serve(listener.accept().unwrap().0, |offer| change(&answer_to(offer))));
    let mut config = SessionConfig::new(&url, Credentials::Token("a.b.c".into()));
    config.reconnect_attempts = Some(0);
    config.connect_timeout = WAIT;
    let (tell, news) = mpsc::channel();
    let session = Session::start(
        config,
        Arc::new(move |event: Event| {
            let _ = tell.send(match event {
                Event::ConnectionQuality { .. } => None,
                Event::Disconnected(error) => error,
                _ => return,
            });
        }),
    )
    .unwrap();
    let track = session.add_track(TrackConfig::new(Codec::H264, "front"));
    let end = news.recv_timeout(WAIT).unwrap();
    drop(track);
    session.leave();
    assert!(session.wait_ended(WAIT), "leaving never ends");
    let _ = server.join();
    end
}

#[test]
fn an_answer_that_cannot_be_used_is_an_error_that_says_so() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let lines = Arc::new(AtomicUsize::new(0));
    let count = lines.clone();
    let good = publish(Arc::new(Box::new(move |sdp: &str| {
        count.store(sdp.lines().count(), Ordering::Relaxed);
        sdp.to_owned()
    })));
    assert!(good.is_none(), "{good:?}");
    let changes: Vec<_> = changes(lines.load(Ordering::Relaxed)).into_iter().map(Arc::new).collect();
    let refused = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(change) = changes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match publish(change.clone()) {
                        None => {}
                        Some(Error::Server(_) | Error::MediaTransport(_)) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let refused = refused.load(Ordering::Relaxed);
    assert!(changes.len() > 200 && refused > 50, "{refused} of {}", changes.len());
}
