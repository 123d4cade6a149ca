// SPDX-License-Identifier: MIT OR Apache-2.0

//! The signalling side of a scripted server.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::TcpStream;
use std::time::Duration;

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Q;
use proto::signal_response::Message as M;
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

/// Longer than anything takes, however busy the machine: waited for only when something is wrong.
pub const WAIT: Duration = Duration::from_secs(60);

/// A message of the server's as it goes over the socket.
pub fn response(message: M) -> Message {
    Message::binary(proto::SignalResponse { message: Some(message) }.encode_to_vec())
}

/// The one participant, `PA_1`, is in the room.
pub fn join(version: &str) -> Message {
    response(M::Join(proto::JoinResponse {
        room: Some(proto::Room { name: "room".into(), sid: "RM_1".into(), ..Default::default() }),
        participant: Some(proto::ParticipantInfo {
            sid: "PA_1".into(),
            identity: "me".into(),
            ..Default::default()
        }),
        server_info: Some(proto::ServerInfo { version: version.into(), ..Default::default() }),
        ping_interval: 5,
        // Not over while a test runs.
        ping_timeout: 600,
        ..Default::default()
    }))
}

/// What the server thinks of the participant's connection: said last, it is read after all that was said before.
pub fn quality() -> Message {
    let update = proto::ConnectionQualityInfo { participant_sid: "PA_1".into(), quality: 2, score: 5.0 };
    response(M::ConnectionQuality(proto::ConnectionQualityUpdate { updates: vec![update] }))
}

/// Lets the participant join, publishes what it asks for, and answers its offers with what `answer` makes of them. Each
/// track has a subscriber then, and the end is [`quality`].
pub fn serve(stream: TcpStream, answer: impl Fn(&str) -> String) {
    let Ok(mut socket) = accept(stream) else { return };
    let say = |socket: &mut WebSocket<TcpStream>, message| drop(socket.send(message));
    say(&mut socket, join("1.13.3"));
    let mut sids = Vec::new();
    while let Ok(message) = socket.read() {
        let request = proto::SignalRequest::decode(message.into_data());
        match request.ok().and_then(|request| request.message) {
            Some(Q::AddTrack(request)) => {
                let sid = format!("TR_{}", request.cid);
                sids.push(sid.clone());
                let track = Some(proto::TrackInfo { sid, ..Default::default() });
                let published = proto::TrackPublishedResponse { cid: request.cid, track };
                say(&mut socket, response(M::TrackPublished(published)));
            }
            Some(Q::Offer(offer)) => {
                let sdp = answer(&offer.sdp);
                let r#type = "answer".into();
                let answer = proto::SessionDescription { r#type, sdp, id: offer.id, ..Default::default() };
                say(&mut socket, response(M::Answer(answer)));
                for track_sid in sids.drain(..) {
                    say(&mut socket, response(M::TrackSubscribed(proto::TrackSubscribed { track_sid })));
                }
                say(&mut socket, quality());
            }
            _ => {}
        }
    }
}
