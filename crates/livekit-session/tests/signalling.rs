// SPDX-License-Identifier: MIT OR Apache-2.0

//! A session against servers that misbehave or refuse: scripted ones, on loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{WAIT, join, quality, response};
use livekit_protocol as proto;
use livekit_session::{Credentials, Error, Event, LeaveReason, Session, SessionConfig};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Message, accept_hdr};

/// Not over while a test runs that is not about it.
const PATIENT: Duration = Duration::from_secs(600);
/// For tests of what happens when it is over.
const IMPATIENT: Duration = Duration::from_millis(500);

const TOKEN: &str = "header.payload-of-the-token.signature";

/// What a scripted server does with the first kind of request that matches.
#[derive(Clone)]
enum Reply {
    /// An HTTP status and a body, to WebSocket upgrades and plain requests alike.
    Http(u16, String),
    /// 404 for the single-peer-connection path, a join for the old one.
    OldServer,
    /// Upgrades, then sends these messages, then waits for the client to go away.
    Messages(Vec<Message>),
    /// Takes the connection and says nothing.
    Silent,
}

/// A server on a free port; answers until the test ends.
fn serve(reply: Reply) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = reply.clone();
            thread::spawn(move || answer(stream, &reply));
        }
    });
    url
}

fn answer(mut stream: TcpStream, reply: &Reply) {
    match reply {
        Reply::Silent => {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Reply::Http(status, body) => {
            let mut head = [0; 8192];
            let _ = stream.read(&mut head);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
        Reply::OldServer => {
            #[allow(clippy::result_large_err, reason = "the library's own signature")]
            let upgrade = |request: &Request, response: Response| match request.uri().path() {
                "/rtc" => Ok(response),
                _ => Err(ErrorResponse::new(None)).map_err(|mut e: ErrorResponse| {
                    *e.status_mut() = hyper::StatusCode::NOT_FOUND;
                    e
                }),
            };
            if let Ok(mut socket) = accept_hdr(stream, upgrade) {
                let _ = socket.send(join("1.8.0"));
                let _ = socket.read();
            }
        }
        Reply::Messages(messages) => {
            #[allow(clippy::result_large_err, reason = "the library's own signature")]
            let upgrade = |_: &Request, response: Response| Ok(response);
            if let Ok(mut socket) = accept_hdr(stream, upgrade) {
                for message in messages {
                    let _ = socket.send(message.clone());
                }
                while socket.read().is_ok() {}
            }
        }
    }
}

struct Run {
    session: Session,
    events: Arc<Mutex<Vec<Event>>>,
    news: mpsc::Receiver<()>,
}

fn start(url: &str, attempts: Option<u32>) -> Run {
    start_with(url, attempts, PATIENT)
}

fn start_with(url: &str, attempts: Option<u32>, connect_timeout: Duration) -> Run {
    let mut config = SessionConfig::new(url, Credentials::Token(TOKEN.into()));
    config.reconnect_attempts = attempts;
    config.connect_timeout = connect_timeout;
    let events = Arc::new(Mutex::new(Vec::new()));
    let (tell, news) = mpsc::channel();
    let seen = events.clone();
    let observer = move |event: Event| {
        seen.lock().unwrap().push(event);
        let _ = tell.send(());
    };
    let session = Session::start(config, Arc::new(observer)).unwrap();
    Run { session, events, news }
}

impl Run {
    fn wait<T>(&self, what: &str, find: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(found) = self.events.lock().unwrap().iter().find_map(&find) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.news.recv_timeout(left).is_ok(), "no {what} in {:#?}", self.events.lock().unwrap());
        }
    }

    fn end(&self) -> Error {
        self.wait("end", |event| match event {
            Event::Disconnected(Some(error)) => Some(error.clone()),
            _ => None,
        })
    }
}

#[test]
fn a_refused_token_is_final_and_is_not_repeated() {
    let body = format!("invalid token: {TOKEN}, error: signature is invalid");
    let error = start(&serve(Reply::Http(401, body)), None).end();
    assert!(matches!(error, Error::Unauthorized { status: 401, .. }), "{error:?}");
    assert!(error.to_string().contains("signature is invalid"), "{error}");
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
}

#[test]
fn an_unknown_api_key_is_not_repeated() {
    let error = start(&serve(Reply::Http(401, "invalid API key: APIsecretname".into())), None).end();
    assert!(!format!("{error} {error:?}").contains("APIsecretname"), "{error:?}");
}

#[test]
fn a_server_without_single_peer_connection_is_named_too_old() {
    let error = start(&serve(Reply::OldServer), None).end();
    assert!(matches!(&error, Error::ServerTooOld { version } if version == "1.8.0"), "{error:?}");
    assert!(error.to_string().contains("1.9.2"), "{error}");
}

#[test]
fn an_address_without_livekit_says_so_and_is_tried_again() {
    let run = start(&serve(Reply::Http(404, "404 page not found".into())), Some(1));
    let error = run.end();
    assert!(error.to_string().contains("no LiveKit signalling at this address"), "{error}");
    let attempts = |e: &&Event| matches!(e, Event::Connecting { .. });
    assert_eq!(run.events.lock().unwrap().iter().filter(attempts).count(), 2);
}

#[test]
fn an_overloaded_server_is_tried_again() {
    let run = start(&serve(Reply::Http(503, "busy".into())), None);
    let reason = run.wait("second failure", |event| match event {
        Event::Offline { reason, attempt: 2, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(&reason, Error::Server(text) if text.contains("503")), "{reason:?}");
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let begin = Instant::now();
    let error = start_with(&serve(Reply::Silent), Some(0), IMPATIENT).end();
    assert!(matches!(error, Error::ConnectTimeout(t) if t == IMPATIENT), "{error:?}");
    assert!(begin.elapsed() >= IMPATIENT);
}

#[test]
fn a_closed_port_is_unreachable_and_named() {
    // Bound, so that nobody else gets it meanwhile, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let url = format!("ws://{}", socket.local_addr().unwrap().as_socket().unwrap());
    let error = start(&url, Some(0)).end();
    assert!(matches!(&error, Error::Unreachable { url: named, .. } if *named == url), "{error:?}");
}

#[test]
fn being_sent_away_for_a_second_participant_of_the_name_is_final() {
    let leave = response(proto::signal_response::Message::Leave(proto::LeaveRequest {
        reason: proto::DisconnectReason::DuplicateIdentity as i32,
        action: proto::leave_request::Action::Disconnect as i32,
        ..Default::default()
    }));
    let error = start(&serve(Reply::Messages(vec![join("1.13.3"), leave])), None).end();
    assert!(matches!(error, Error::Left { reason: LeaveReason::DuplicateIdentity, .. }), "{error:?}");
}

#[test]
fn nonsense_from_the_server_is_survived() {
    use proto::signal_response::Message as M;
    let description = |sdp: &str| proto::SessionDescription {
        r#type: "answer".into(),
        sdp: sdp.into(),
        id: 9,
        ..Default::default()
    };
    let messages = vec![
        Message::binary(vec![0xff; 40]),
        join("1.13.3"),
        Message::binary(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        Message::text("text is not part of the protocol"),
        // A kind with the number 1000.
        Message::binary(vec![0xc2, 0x3e, 1, 0]),
        response(M::Answer(description("not an SDP"))),
        response(M::Offer(description("v=0"))),
        response(M::Trickle(proto::TrickleRequest { candidate_init: "{".into(), ..Default::default() })),
        response(M::Trickle(proto::TrickleRequest {
            candidate_init: r#"{"candidate":"candidate:1 1 udp 1 host.invalid 9 typ host"}"#.into(),
            ..Default::default()
        })),
        response(M::TrackPublished(proto::TrackPublishedResponse { cid: "?".into(), track: None })),
        response(M::SubscribedQualityUpdate(proto::SubscribedQualityUpdate::default())),
        response(M::ConnectionQuality(proto::ConnectionQualityUpdate {
            updates: vec![proto::ConnectionQualityInfo {
                participant_sid: "PA_1".into(),
                quality: 77,
                score: f32::NAN,
            }],
        })),
    ];
    let run = start(&serve(Reply::Messages(messages)), None);
    run.wait("the last message", |e| matches!(e, Event::ConnectionQuality { .. }).then_some(()));
    let losses = |e: &&Event| matches!(e, Event::Offline { .. } | Event::Disconnected(_));
    assert_eq!(run.events.lock().unwrap().iter().find(losses).map(|e| format!("{e:?}")), None);
    let stats = run.session.stats();
    let counted = (stats.signalling_malformed, stats.signalling_too_large, stats.signalling_unknown);
    assert_eq!(counted, (3, 0, 2), "the candidate that is no JSON is one of the first kind");
    run.session.leave();
    assert!(run.session.wait_ended(WAIT), "leaving never ends");
}

#[test]
fn refused_metadata_is_reported_and_the_session_goes_on() {
    let refusal = response(proto::signal_response::Message::RequestResponse(proto::RequestResponse {
        request_id: 1,
        reason: proto::request_response::Reason::NotAllowed as i32,
        message: "does not have permission to update own metadata".into(),
        ..Default::default()
    }));
    let run = start(&serve(Reply::Messages(vec![join("1.13.3"), refusal])), None);
    let reason = run.wait("refusal", |event| match event {
        Event::MetadataRefused { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("permission"), "{reason}");
    assert_eq!(run.session.state(), livekit_session::ConnectionState::Connected);
}

#[test]
fn an_attempt_that_is_given_up_leaves_no_socket_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let (closed, wait) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let closed = closed.clone();
            count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                #[allow(clippy::result_large_err, reason = "the library's own signature")]
                let upgrade = |_: &Request, response: Response| Ok(response);
                // Upgrades and then says nothing; a plain request (what is wrong?) is not upgraded.
                if let Ok(mut socket) = accept_hdr(stream, upgrade) {
                    while socket.read().is_ok() {}
                }
                let _ = closed.send(());
            });
        }
    });
    let run = start_with(&url, Some(0), IMPATIENT);
    let error = run.end();
    assert!(matches!(error, Error::ConnectTimeout(_)), "{error:?}");
    wait.recv_timeout(WAIT).unwrap();
    for _ in 1..opened.load(Ordering::SeqCst) {
        wait.recv_timeout(WAIT).unwrap();
    }
}

#[test]
fn a_join_without_a_ping_interval_is_refused() {
    let bad = response(proto::signal_response::Message::Join(proto::JoinResponse {
        ping_timeout: 15,
        ..Default::default()
    }));
    let error = start(&serve(Reply::Messages(vec![bad])), Some(0)).end();
    assert!(matches!(&error, Error::Server(text) if text.contains("ping interval")), "{error:?}");
}

#[test]
fn a_server_that_never_answers_a_publication_is_left() {
    let run = start_with(&serve(Reply::Messages(vec![join("1.13.3")])), None, IMPATIENT);
    run.session.add_track(livekit_session::TrackConfig::new(livekit_session::Codec::H264, "v"));
    let track = run.session.add_track(livekit_session::TrackConfig::new(livekit_session::Codec::H264, "w"));
    // On a busy machine an attempt to join may take too long; another one follows.
    run.wait("the room being left for it", |event| match event {
        Event::Offline { reason: Error::Server(text), .. } => text.contains("publish").then_some(()),
        _ => None,
    });
    drop(track);
}

#[test]
fn messages_that_would_fill_memory_are_not_taken() {
    use proto::signal_response::Message as M;
    let update = |participants| response(M::Update(proto::ParticipantUpdate { participants }));
    let guest =
        |number: usize| proto::ParticipantInfo { sid: format!("PA_guest_{number}"), ..Default::default() };
    let large = proto::ParticipantInfo { metadata: "x".repeat(2 << 20), ..guest(1) };
    let mut messages = vec![join("1.13.3"), update(vec![large]), update(vec![Default::default(); 100_000])];
    // More guests than there can be in a room.
    for start in (0..30_000).step_by(1000) {
        messages.push(update((start..start + 1000).map(guest).collect()));
    }
    messages.push(quality());
    let run = start(&serve(Reply::Messages(messages)), None);
    run.wait("the last message", |e| matches!(e, Event::ConnectionQuality { .. }).then_some(()));
    let stats = run.session.stats();
    assert_eq!((stats.signalling_malformed, stats.signalling_too_large), (0, 2));
    let events = run.events.lock().unwrap();
    let sid = |e: &Event| match e {
        Event::ParticipantJoined(p) => Some(p.sid.clone()),
        _ => None,
    };
    let guests: Vec<String> = events.iter().filter_map(sid).collect();
    assert!(!guests.iter().any(String::is_empty), "what says nothing is not read");
    assert_eq!((guests.first().map(String::as_str), guests.len()), (Some("PA_guest_0"), 10_000));
    assert!(!events.iter().any(|e| matches!(e, Event::Offline { .. } | Event::Disconnected(_))));
}
