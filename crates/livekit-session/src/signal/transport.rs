// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network below LiveKit's signalling crate: WebSocket and HTTP over our own dialling.
//!
//! `livekit-net` takes one transport for the whole process, but certificate authorities are a session's
//! own. They travel beside the call, in a task-local [`Attempt`], which also brings back what the crate's
//! string errors lose: the kind of failure and the peer's address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use livekit_net::{
    Header, HttpClient, HttpMethod, HttpResponse, TransportError, WsClient, WsConnectResult, WsConnection,
};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::warn;

use crate::config::SessionConfig;
use crate::error::{Error, redact};
use crate::signal::inbound::{self, Backlog, Refused, RefusedCounters};
use crate::signal::proxy::Proxies;
use crate::signal::{connect, tls};

/// The largest signalling message taken from a server: a join response lists every participant.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
const MAX_HTTP_BODY: usize = 64 * 1024;
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection that is closed may take to send what it still has.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

tokio::task_local! {
    /// Set around every call into the signalling crate that may dial.
    pub(crate) static ATTEMPT: Arc<Attempt>;
}

/// One attempt to connect: what it needs, and what became known on the way.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) ca_file: Option<PathBuf>,
    proxies: Proxies,
    refused: Arc<RefusedCounters>,
    found: Mutex<Found>,
    /// Messages of its connection that wait to be acted on.
    backlog: Arc<Backlog>,
    /// True = given up: connections made for it close, whoever holds them.
    cancelled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Found {
    error: Option<Error>,
    local: Option<SocketAddr>,
}

impl Attempt {
    pub(crate) fn new(config: &SessionConfig) -> Arc<Self> {
        let (ca_file, proxies) = (config.tls_ca_file.clone(), config.proxies.clone());
        Arc::new(Self { ca_file, proxies, refused: config.refused.clone(), ..Self::default() })
    }

    /// Why dialling failed, if it did.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).error.take()
    }

    /// The local address of the connection that was made.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).local
    }

    /// Closes the connections that were made for this attempt.
    pub(crate) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// A message of its connection was taken to be acted on.
    pub(crate) fn taken(&self) {
        self.backlog.take();
    }

    fn note_error(&self, error: Error) {
        // The first one is the cause: after it the signalling crate may dial again, to ask why.
        self.found.lock().unwrap_or_else(PoisonError::into_inner).error.get_or_insert(error);
    }
}

/// Makes this transport the process's. Later registrations by others would win; ours is only ever used
/// with an [`Attempt`] around it or with the system's certificate authorities.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        livekit_net::set_ws_client(Arc::new(Transport));
        livekit_net::set_http_client(Arc::new(Transport));
    });
}

struct Transport;

/// A TCP connection, with TLS or without, straight or through a proxy.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn dial(url: &url::Url) -> Result<Box<dyn Stream>, Error> {
    let attempt = ATTEMPT.try_with(Arc::clone).unwrap_or_default();
    let result = dial_with(url, &attempt).await;
    if let Err(error) = &result {
        attempt.note_error(error.clone());
    }
    result
}

async fn dial_with(url: &url::Url, attempt: &Attempt) -> Result<Box<dyn Stream>, Error> {
    let unreachable = |reason: String| Error::Unreachable { url: origin(url), reason };
    let bracketed = url.host_str().ok_or_else(|| unreachable("the URL has no host".into()))?;
    // `host_str` keeps the brackets of an IPv6 literal, the resolver wants none.
    let host = bracketed.trim_start_matches('[').trim_end_matches(']');
    let secure = matches!(url.scheme(), "wss" | "https");
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    let stream = match attempt.proxies.for_url(url)? {
        None => Box::new(connect_tcp(host, port, attempt).await.map_err(|e| unreachable(e.to_string()))?),
        Some(proxy) => {
            let tcp = connect_tcp(proxy.host(), proxy.port, attempt).await;
            let tcp = tcp.map_err(|e| proxy.error(format!("it cannot be reached: {e}")))?;
            let stream: Box<dyn Stream> = match proxy.secure {
                true => secured(Box::new(tcp), proxy.host(), attempt).await.map_err(|e| match e {
                    NotSecured::Refused(Error::Certificate(reason)) => {
                        proxy.error(format!("its TLS certificate was refused: {reason}"))
                    }
                    NotSecured::Refused(other) => other,
                    NotSecured::Failed(reason) => proxy.error(reason),
                })?,
                false => Box::new(tcp),
            };
            proxy.tunnel(stream, bracketed, port).await?
        }
    };
    if !secure {
        return Ok(stream);
    }
    secured(stream, host, attempt).await.map_err(|e| match e {
        NotSecured::Refused(error) => error,
        NotSecured::Failed(reason) => unreachable(reason),
    })
}

async fn connect_tcp(host: &str, port: u16, attempt: &Attempt) -> std::io::Result<TcpStream> {
    let tcp = connect::connect(host, port).await?;
    let _ = tcp.set_nodelay(true);
    attempt.found.lock().unwrap_or_else(PoisonError::into_inner).local = tcp.local_addr().ok();
    Ok(tcp)
}

/// Why there is no TLS on a connection.
enum NotSecured {
    /// Certificates: the peer's, or those that are trusted.
    Refused(Error),
    /// Anything else.
    Failed(String),
}

/// TLS with `host` on a connection to it.
async fn secured(
    stream: Box<dyn Stream>,
    host: &str,
    attempt: &Attempt,
) -> Result<Box<dyn Stream>, NotSecured> {
    let config = tls::shared_config(attempt.ca_file.clone()).await.map_err(NotSecured::Refused)?;
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())
        .map_err(|e| NotSecured::Failed(format!("'{host}' is not a valid TLS server name: {e}")))?;
    match tokio_rustls::TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => match tls::classify(&error) {
            Some(refused) => {
                // Somebody may be mending just that.
                tls::forget().await;
                Err(NotSecured::Refused(refused))
            }
            None => Err(NotSecured::Failed(format!("TLS: {error}"))),
        },
    }
}

/// Scheme, host and port: all of a URL that a message may show.
fn origin(url: &url::Url) -> String {
    let mut origin = url.clone();
    origin.set_path("");
    redact(origin.as_str())
}

fn connection(error: impl std::fmt::Display) -> TransportError {
    TransportError::Connection(error.to_string())
}

#[async_trait::async_trait]
impl WsClient for Transport {
    async fn connect(
        &self,
        url: String,
        headers: Vec<Header>,
        timeout_ms: u64,
    ) -> Result<WsConnectResult, TransportError> {
        let parsed = url::Url::parse(&url).map_err(connection)?;
        let mut request = parsed.as_str().into_client_request().map_err(connection)?;
        for header in headers {
            let name = header.name.parse::<hyper::header::HeaderName>().map_err(connection)?;
            let mut value = hyper::header::HeaderValue::from_str(&header.value).map_err(connection)?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let open = async {
            let stream = dial(&parsed).await.map_err(connection)?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE));
            match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(WsError::Http(response)) => {
                    Err(TransportError::Http { status: response.status().as_u16() })
                }
                Err(error) => Err(connection(error)),
            }
        };
        let socket = tokio::time::timeout(Duration::from_millis(timeout_ms), open)
            .await
            .map_err(|_| TransportError::Timeout)??;
        let (sink, stream) = socket.split();
        Ok(WsConnectResult {
            connection: Arc::new(Connection {
                sink: tokio::sync::Mutex::new(sink),
                reader: tokio::sync::Mutex::new(Reader {
                    stream,
                    next: None,
                    first: true,
                    told: false,
                    refused: ATTEMPT.try_with(|attempt| attempt.refused.clone()).unwrap_or_default(),
                }),
                backlog: ATTEMPT.try_with(|attempt| attempt.backlog.clone()).unwrap_or_default(),
                cancelled: ATTEMPT.try_with(|attempt| attempt.cancelled.subscribe()).ok(),
            }),
        })
    }
}

struct Connection {
    sink: tokio::sync::Mutex<SplitSink<WebSocketStream<Box<dyn Stream>>, Message>>,
    reader: tokio::sync::Mutex<Reader>,
    backlog: Arc<Backlog>,
    cancelled: Option<watch::Receiver<bool>>,
}

struct Reader {
    stream: SplitStream<WebSocketStream<Box<dyn Stream>>>,
    /// What comes before the next message.
    next: Option<Vec<u8>>,
    /// No message has come yet.
    first: bool,
    /// A message was refused, and that was said.
    told: bool,
    refused: Arc<RefusedCounters>,
}

impl Reader {
    /// A message came: what of it goes on.
    fn take(&mut self, bytes: Vec<u8>, backlog: &Backlog) -> Option<Vec<u8>> {
        let message = match inbound::check(&bytes, self.first) {
            Ok(message) => message,
            Err(refused) => {
                self.refuse(&refused);
                return None;
            }
        };
        // The first one answers who connects, and waits for nobody.
        if !std::mem::replace(&mut self.first, false) {
            backlog.add(bytes.len());
        }
        self.next = moved_token(message);
        if let Some(next) = &self.next {
            backlog.add(next.len());
        }
        Some(bytes)
    }

    fn refuse(&mut self, refused: &Refused) {
        self.refused.count(refused);
        if !std::mem::replace(&mut self.told, true) {
            warn!(%refused, "a message of the server is not taken, and others like it neither");
        }
    }
}

impl Connection {
    /// Waits until the attempt that made this connection is given up.
    async fn cancelled(&self) {
        match self.cancelled.clone() {
            Some(mut cancelled) => {
                if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
                    // The attempt is over and was not given up.
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// The signalling crate takes another token only from a message of its own, but the one of a move into another room is
/// what leads back there: says it so, too.
fn moved_token(message: proto::signal_response::Message) -> Option<Vec<u8>> {
    use proto::signal_response::Message as M;
    let M::RoomMoved(moved) = message else { return None };
    if moved.token.is_empty() {
        return None;
    }
    let refresh = M::RefreshToken(moved.token).into();
    Some(proto::SignalResponse { message: refresh }.encode_to_vec())
}

#[async_trait::async_trait]
impl WsConnection for Connection {
    async fn send(&self, frame: Vec<u8>) -> Result<(), TransportError> {
        let send = async { self.sink.lock().await.send(Message::binary(frame)).await.map_err(connection) };
        tokio::select! {
            sent = send => sent,
            () = self.cancelled() => Err(connection("given up")),
        }
    }

    async fn recv(&self) -> Result<Option<Vec<u8>>, TransportError> {
        let mut reader = self.reader.lock().await;
        if let Some(next) = reader.next.take() {
            return Ok(Some(next));
        }
        loop {
            let received = async {
                self.backlog.room().await;
                reader.stream.next().await
            };
            let message = tokio::select! {
                message = received => message,
                () = self.cancelled() => return Ok(None),
            };
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some(message) = reader.take(bytes.into(), &self.backlog) {
                        return Ok(Some(message));
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                // Text is not part of the protocol.
                Some(Ok(Message::Text(_))) => reader.refuse(&Refused::Unknown),
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => return Ok(None),
                Some(Err(error)) => {
                    // What is lost in the middle of a stream cannot be found again: the connection is over.
                    match &error {
                        WsError::Capacity(_) => reader.refuse(&Refused::TooLarge(MAX_MESSAGE)),
                        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {}
                        WsError::Protocol(_) => reader.refuse(&Refused::Malformed),
                        _ => {}
                    }
                    return Err(connection(error));
                }
            }
        }
    }

    async fn close(&self) {
        let close = async { self.sink.lock().await.close().await };
        // Some last words, if there is still somebody to take them.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    }
}

#[async_trait::async_trait]
impl HttpClient for Transport {
    async fn request(
        &self,
        method: HttpMethod,
        url: String,
        headers: Vec<Header>,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        tokio::time::timeout(HTTP_TIMEOUT, http_request(method, &url, headers, body.unwrap_or_default()))
            .await
            .map_err(|_| TransportError::Timeout)?
    }
}

async fn http_request(
    method: HttpMethod,
    url: &str,
    headers: Vec<Header>,
    body: Vec<u8>,
) -> Result<HttpResponse, TransportError> {
    let parsed = url::Url::parse(url).map_err(connection)?;
    let stream = dial(&parsed).await.map_err(connection)?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(connection)?;
    let driver = tokio::spawn(driver);
    let mut target = parsed.path().to_owned();
    if let Some(query) = parsed.query() {
        target.push('?');
        target.push_str(query);
    }
    let authority = parsed.authority().rsplit('@').next().unwrap_or_default().to_owned();
    let mut request = hyper::Request::builder()
        .method(match method {
            HttpMethod::Get => hyper::Method::GET,
            HttpMethod::Post => hyper::Method::POST,
        })
        .uri(target)
        .header(hyper::header::HOST, authority);
    for header in headers {
        request = request.header(header.name, header.value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(connection)?;
    let response = sender.send_request(request).await.map_err(connection)?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| {
            Some(Header { name: name.as_str().into(), value: value.to_str().ok()?.into() })
        })
        .collect();
    let body = Limited::new(response.into_body(), MAX_HTTP_BODY).collect().await.map_err(connection)?;
    driver.abort();
    Ok(HttpResponse { status, headers, body: body.to_bytes().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A server that says as much as it can, and how much of it got rid.
    async fn talker() -> (String, Arc<std::sync::atomic::AtomicUsize>) {
        use std::sync::atomic::Ordering::Relaxed;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let said = Arc::<std::sync::atomic::AtomicUsize>::default();
        let count = said.clone();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
            let token = proto::signal_response::Message::RefreshToken("x".repeat(1000));
            let message = proto::SignalResponse { message: Some(token) }.encode_to_vec();
            while socket.send(Message::binary(message.clone())).await.is_ok() {
                count.fetch_add(1, Relaxed);
            }
        });
        (url, said)
    }

    #[tokio::test]
    async fn a_server_that_never_stops_is_held_back() {
        let (url, said) = talker().await;
        let attempt = Arc::new(Attempt::default());
        let made = ATTEMPT.scope(attempt.clone(), Transport.connect(url, Vec::new(), 30_000)).await.unwrap();
        let connection = made.connection;
        let next = async || {
            let next = tokio::time::timeout(Duration::from_secs(60), connection.recv()).await;
            assert!(next.unwrap().unwrap().is_some());
        };
        // Nobody takes anything: the first, which nobody has to take, and so much more is read ahead.
        for _ in 0..=inbound::MAX_WAITING {
            next().await;
        }
        assert!(tokio::time::timeout(Duration::from_millis(100), connection.recv()).await.is_err());
        let before = said.load(std::sync::atomic::Ordering::Relaxed);
        attempt.taken();
        next().await;
        assert!(before < 100_000, "the network holds it back: {before}");
        attempt.cancel();
        assert!(connection.recv().await.unwrap().is_none());
    }
}
