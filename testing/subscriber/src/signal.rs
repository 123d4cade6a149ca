// SPDX-License-Identifier: MIT OR Apache-2.0

//! LiveKit signalling for a participant that only subscribes: protobuf messages over a WebSocket.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_protocol::{signal_request, signal_response};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Error;

/// Two peer connections: the server offers what we subscribe to, we answer.
const PROTOCOL_VERSION: u32 = 15;

pub(crate) struct Signal {
    socket: WebSocketStream<TcpStream>,
    /// Our address on the way to the server.
    pub(crate) local_ip: IpAddr,
    /// How often the server wants to hear from us.
    pub(crate) ping_interval: Duration,
}

impl Signal {
    /// Joins the room that `token` names. `ws://` only.
    pub(crate) async fn join(url: &str, token: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::Signal(reason);
        let mut url = url::Url::parse(url).map_err(|e| bad(e.to_string()))?;
        let address = url.socket_addrs(|| Some(80)).map_err(|e| bad(e.to_string()))?;
        url.set_path("rtc");
        url.query_pairs_mut()
            .append_pair("access_token", token)
            .append_pair("auto_subscribe", "1")
            .append_pair("protocol", &PROTOCOL_VERSION.to_string())
            .append_pair("sdk", "rust");
        let stream = TcpStream::connect(address.as_slice()).await.map_err(|e| bad(e.to_string()))?;
        let local_ip = stream.local_addr().map_err(|e| bad(e.to_string()))?.ip();
        let (socket, _) = tokio_tungstenite::client_async(url.as_str(), stream)
            .await
            .map_err(|e| bad(format!("the server refused the connection: {e}")))?;
        let mut signal = Self { socket, local_ip, ping_interval: Duration::from_secs(5) };
        match signal.receive().await? {
            signal_response::Message::Join(join) => {
                if let Ok(seconds @ 1..) = u64::try_from(join.ping_interval) {
                    signal.ping_interval = Duration::from_secs(seconds);
                }
                Ok(signal)
            }
            other => Err(bad(format!("instead of a join response: {other:?}"))),
        }
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<signal_response::Message, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let response = proto::SignalResponse::decode(bytes.as_ref())
                        .map_err(|e| Error::Signal(e.to_string()))?;
                    if let Some(message) = response.message {
                        return Ok(message);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(Error::Signal(e.to_string())),
                None => return Err(Error::Signal("the server closed the connection".into())),
            }
        }
    }

    pub(crate) async fn send(&mut self, message: signal_request::Message) -> Result<(), Error> {
        let request = proto::SignalRequest { message: Some(message) };
        let bytes = Message::Binary(request.encode_to_vec().into());
        self.socket.send(bytes).await.map_err(|e| Error::Signal(e.to_string()))
    }
}
