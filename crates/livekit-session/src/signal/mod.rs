// SPDX-License-Identifier: MIT OR Apache-2.0

//! LiveKit signalling: everything that touches the `livekit-signaling` crate is in this module, because
//! that crate calls itself internal and may change.

mod connect;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod inbound;
pub(crate) mod proxy;
pub(crate) mod regions;
pub(crate) mod tls;
pub(crate) mod token;
mod transport;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use livekit_signaling::{
    SignalClient, SignalError, SignalEvent, SignalEvents, SignalOptions, SignalSdkOptions,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Secret, SessionConfig};
use crate::error::{Error, LeaveReason, redact};
use inbound::Refused;
pub(crate) use inbound::RefusedCounters;
use transport::{ATTEMPT, Attempt};

/// The signalling protocol we speak. 18 implies data channels negotiated out of band.
const PROTOCOL_VERSION: u32 = 17;
/// A close that takes longer is abandoned: the socket goes away with the task.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A joined room's signalling connection.
pub(crate) struct Signal {
    client: Arc<SignalClient>,
    outgoing: mpsc::UnboundedSender<proto::signal_request::Message>,
    sender: JoinHandle<()>,
    events: SignalEvents,
    config: SessionConfig,
    /// Connections made so far, and how many of them are known to have closed: each says so once, the one that a
    /// resumption replaces too.
    connections: u32,
    closed: u32,
    /// The local address that the connection uses.
    pub(crate) local_ip: Option<IpAddr>,
    /// Last, so that the socket goes when everything else has.
    guard: CancelOnDrop,
}

/// Closes an attempt's connections when it is dropped.
struct CancelOnDrop(Arc<Attempt>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An attempt to resume; see [`Signal::resume`].
pub(crate) type Resuming = Pin<Box<dyn Future<Output = Result<Resumed, Refusal>> + Send>>;

/// A signalling connection that the server took for the continuation of the one before.
pub(crate) struct Resumed {
    guard: CancelOnDrop,
}

/// Why a stay could not be resumed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server was not reached, or did not answer: another attempt may succeed.
    Unreached(Error),
    /// The server knows nothing of the stay, or takes the token no more: the room has to be joined anew.
    Gone,
    /// The server sends us away for good.
    Left(LeaveReason),
}

/// What the server says.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Box<proto::signal_response::Message>),
    Closed(String),
}

impl Signal {
    /// Joins the room that `token` names.
    pub(crate) async fn join(
        config: &SessionConfig,
        token: &Secret,
    ) -> Result<(Self, proto::JoinResponse), Error> {
        transport::register();
        let mut sdk = SignalSdkOptions::default();
        sdk.sdk_version = Some(env!("CARGO_PKG_VERSION").into());
        sdk.other_sdks = config.user_agent.clone();
        let mut options = SignalOptions::default();
        options.auto_subscribe = false;
        options.adaptive_stream = false;
        options.single_peer_connection = true;
        options.protocol_version = PROTOCOL_VERSION;
        // Nothing: we neither send packet trailers nor receive anything.
        options.client_capabilities = Vec::new();
        options.client_protocol = livekit_signaling::CLIENT_PROTOCOL_DEFAULT;
        options.connect_timeout = config.connect_timeout;
        // Ours, because theirs begins when the time for an attempt is over.
        options.region_failover = false;
        options.sdk_options = sdk;

        let attempt = Attempt::new(config);
        let connect = SignalClient::connect(&config.url, token.expose(), options, None);
        // The signalling crate's tasks and socket outlive a future that is dropped, and its errors.
        let guard = CancelOnDrop(attempt.clone());
        let (client, join, events) = ATTEMPT
            .scope(attempt.clone(), connect)
            .await
            .map_err(|e| translate(e, &attempt, config, token))?;
        if join.ping_interval <= 0 || join.ping_timeout <= 0 {
            return Err(Error::Server("its join response has no ping interval".into()));
        }
        // Resuming needs its id, and the signalling crate takes it for granted.
        if join.participant.is_none() {
            return Err(Error::Server("its join response has no participant".into()));
        }
        if !client.is_single_pc_mode_active() {
            client.close().await;
            let version = join.server_info.map(|i| i.version).unwrap_or_default();
            return Err(Error::ServerTooOld { version });
        }
        let client = Arc::new(client);
        let (outgoing, mut queue) = mpsc::unbounded_channel();
        let sending = client.clone();
        // Sending waits for the socket; a task of its own lets the media go on meanwhile.
        let sender = tokio::spawn(async move {
            while let Some(message) = queue.recv().await {
                sending.send(message).await;
            }
        });
        let local_ip = attempt.local_addr().map(|a| a.ip());
        let config = config.clone();
        let signal =
            Self { client, outgoing, sender, events, config, connections: 1, closed: 0, local_ip, guard };
        Ok((signal, join))
    }

    /// Connects anew and asks the server to take that for the continuation of this stay. What is given to
    /// [`Self::send`] meanwhile is kept until [`Self::set_resumed`], except what belongs to the peer connection.
    pub(crate) fn resume(&self, reason: proto::ReconnectReason, timeout: Duration) -> Resuming {
        // A writer that is stuck in a dead connection would hold up what follows.
        self.guard.0.cancel();
        let (client, config) = (self.client.clone(), self.config.clone());
        Box::pin(async move {
            let attempt = Attempt::new(&config);
            let guard = CancelOnDrop(attempt.clone());
            let restart = ATTEMPT.scope(attempt.clone(), client.restart(reason));
            match tokio::time::timeout(timeout, restart).await {
                Ok(Ok(_)) => Ok(Resumed { guard }),
                Ok(Err(error)) => {
                    let token = Secret::new(client.token());
                    Err(refusal(error, &attempt, &config, &token))
                }
                Err(_) => {
                    Err(Refusal::Unreached(attempt.take_error().unwrap_or(Error::ConnectTimeout(timeout))))
                }
            }
        })
    }

    /// Takes over the connection that [`Self::resume`] made.
    pub(crate) fn take_over(&mut self, resumed: Resumed) {
        self.connections += 1;
        self.local_ip = resumed.guard.0.local_addr().map(|a| a.ip()).or(self.local_ip);
        self.guard = resumed.guard;
    }

    /// The peer connection is back as well: what was kept is sent.
    pub(crate) fn set_resumed(&self) {
        let client = self.client.clone();
        tokio::spawn(async move { client.set_reconnected().await });
    }

    /// Of these addresses, the ones that are worth a try in place of this one.
    pub(crate) fn usable(&self, urls: impl IntoIterator<Item = String>) -> Vec<String> {
        regions::usable(urls, &self.config.url)
    }

    /// A message has something in it that cannot be read.
    pub(crate) fn is_malformed(&self) {
        self.config.refused.count(&Refused::Malformed);
    }

    /// Queues a message; order is kept.
    pub(crate) fn send(&self, message: proto::signal_request::Message) {
        let _ = self.outgoing.send(message);
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Incoming {
        loop {
            match self.events.recv().await {
                Some(SignalEvent::Message(message)) => {
                    self.guard.0.taken();
                    return Incoming::Message(message);
                }
                Some(SignalEvent::Close(reason)) => {
                    self.closed += 1;
                    if self.closed == self.connections {
                        return Incoming::Closed(reason.into_owned());
                    }
                }
                None => return Incoming::Closed("the signalling task ended".into()),
            }
        }
    }

    /// Says goodbye and closes the socket.
    pub(crate) async fn leave(self) {
        let Self { client, outgoing, mut sender, guard: _guard, .. } = self;
        let _ = outgoing.send(proto::signal_request::Message::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            action: proto::leave_request::Action::Disconnect as i32,
            ..Default::default()
        }));
        drop(outgoing);
        let close = async {
            let _ = (&mut sender).await;
            client.close().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
        sender.abort();
    }
}

/// Turns the signalling crate's error into ours: the kind of failure first, never a credential.
fn translate(error: SignalError, attempt: &Attempt, config: &SessionConfig, token: &Secret) -> Error {
    let scrub = |text: String| {
        let text = if token.expose().is_empty() { text } else { text.replace(token.expose(), "***") };
        text.trim().chars().take(300).collect::<String>()
    };
    let by_status = |status: u16, detail: String| match status {
        // The server's text repeats the key's name, which is not ours to show.
        401 | 403 if detail.starts_with("invalid API key") => {
            Error::Unauthorized { status, detail: "it does not know this API key".into() }
        }
        401 | 403 => Error::Unauthorized { status, detail },
        404 => Error::Server(format!(
            "HTTP 404: {}",
            if detail.is_empty() || detail.contains("page not found") {
                "no LiveKit signalling at this address; check host, port and path of the URL"
            } else {
                &detail
            }
        )),
        _ => Error::Server(format!("HTTP {status}: {detail}")),
    };
    match error {
        SignalError::UrlParse(reason) => Error::InvalidUrl { url: redact(&config.url), reason },
        SignalError::TokenFormat => Error::Unauthorized {
            status: 401,
            detail: "the token has characters that no token has; was it pasted whole?".into(),
        },
        SignalError::Client(status, body) | SignalError::Server(status, body) => {
            by_status(status.as_u16(), scrub(body))
        }
        SignalError::Handshake { status } => by_status(status.as_u16(), String::new()),
        SignalError::Timeout(what) if what.starts_with("failed to receive") => {
            Error::Server("it took the connection and then did not answer the request to join".into())
        }
        SignalError::Timeout(_) => Error::ConnectTimeout(config.connect_timeout),
        SignalError::LeaveRequest { reason, .. } => {
            Error::Left { reason: leave_reason(reason), can_reconnect: true }
        }
        other => attempt.take_error().unwrap_or_else(|| Error::Unreachable {
            url: redact(&config.url),
            reason: scrub(other.to_string()),
        }),
    }
}

/// Why the server did not take the continuation of a stay.
fn refusal(error: SignalError, attempt: &Attempt, config: &SessionConfig, token: &Secret) -> Refusal {
    match error {
        SignalError::LeaveRequest { reason, action: proto::leave_request::Action::Disconnect } => {
            Refusal::Left(leave_reason(reason))
        }
        SignalError::LeaveRequest { .. } | SignalError::TokenFormat => Refusal::Gone,
        // Not told as refused credentials: joining anew begins with a new token, where there is one to be had.
        SignalError::Handshake { status } if status.is_client_error() => Refusal::Gone,
        other => Refusal::Unreached(translate(other, attempt, config, token)),
    }
}

/// The protocol's reason for a leave in our words.
pub(crate) fn leave_reason(reason: proto::DisconnectReason) -> LeaveReason {
    use proto::DisconnectReason as D;
    match reason {
        D::DuplicateIdentity => LeaveReason::DuplicateIdentity,
        D::ServerShutdown => LeaveReason::ServerShutdown,
        D::ParticipantRemoved => LeaveReason::ParticipantRemoved,
        D::RoomDeleted => LeaveReason::RoomDeleted,
        D::RoomClosed => LeaveReason::RoomClosed,
        D::StateMismatch => LeaveReason::StateMismatch,
        D::JoinFailure => LeaveReason::JoinFailure,
        D::Migration => LeaveReason::Migration,
        D::SignalClose => LeaveReason::SignalClose,
        D::ConnectionTimeout => LeaveReason::ConnectionTimeout,
        D::MediaFailure => LeaveReason::MediaFailure,
        _ => LeaveReason::Unknown,
    }
}
