// SPDX-License-Identifier: MIT OR Apache-2.0

//! A relay: the connection to a TURN server, by UDP, TCP or TLS, with an [`Allocation`] on it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::allocation::{Allocation, Standing};
use super::framing::Deframer;
use super::servers::{RelayProtocol, RelayServer};
use super::stream::{self, Connection, Outgoing};
use super::udp;
use crate::engine::SendCounters;

/// What the relay's header adds to a datagram, at most (RFC 8656 §11, an indication for an IPv6 peer).
const OVERHEAD: usize = 64;
/// Reads from one relay before others get their turn.
const MAX_READS: usize = 8;
/// Addresses of a relay's name that are tried.
const MAX_ADDRESSES: usize = 3;
/// How long the resolver may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

type Opening = Pin<Box<dyn Future<Output = Result<Opened, String>> + Send>>;

struct Opened {
    link: Link,
    local: SocketAddr,
    server: SocketAddr,
}

enum Link {
    Datagrams(AsyncFd<UdpSocket>),
    Stream { connection: Connection, outgoing: Outgoing, deframer: Deframer },
}

enum State {
    Opening(Opening),
    Open { link: Link, local: SocketAddr, allocation: Box<Allocation> },
    Over(String),
}

/// What a relay has for the engine.
pub(super) enum FromRelay {
    /// It gave us an address: a candidate, reached from this local address.
    Ready {
        relayed: SocketAddr,
        local: SocketAddr,
    },
    Datagram {
        length: usize,
        peer: SocketAddr,
        relayed: SocketAddr,
    },
}

/// See the module's documentation.
pub(super) struct Relay {
    server: RelayServer,
    family: IpAddr,
    state: State,
    reported: bool,
    /// When the allocation wants to be looked after next.
    pub(super) wait: Option<Instant>,
    message: Vec<u8>,
}

impl Relay {
    /// Begins to connect. `family`: of the address that is asked for.
    pub(super) fn open(server: RelayServer, family: IpAddr, ca_file: Option<PathBuf>) -> Self {
        debug!(%server, "asking for a relay");
        let state = State::Opening(Box::pin(open(server.clone(), ca_file)));
        Self { server, family, state, reported: false, wait: None, message: Vec::new() }
    }

    pub(super) fn protocol(&self) -> RelayProtocol {
        self.server.protocol
    }

    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Open { allocation, .. } => allocation.relayed(),
            _ => None,
        }
    }

    /// Takes a datagram for a peer; it leaves with the next [`Relay::flush`] at the latest.
    pub(super) fn queue(
        &mut self,
        peer: SocketAddr,
        datagram: &[u8],
        now: Instant,
        counters: &mut SendCounters,
    ) {
        let State::Open { link, allocation, .. } = &mut self.state else {
            counters.errors += 1;
            return;
        };
        if allocation.wrap(peer, datagram, now, &mut self.message) {
            link.send(&self.message, counters);
        }
        // It may have asked for a permission.
        self.look_after(now, counters);
    }

    pub(super) fn flush(&mut self, counters: &mut SendCounters) {
        let State::Open { link: Link::Stream { connection, outgoing, .. }, .. } = &mut self.state else {
            return;
        };
        if outgoing.is_empty() {
            return;
        }
        match outgoing.write(connection) {
            Ok(calls) => counters.calls += calls,
            Err(error) => self.end(error.to_string()),
        }
    }

    /// Sends what the allocation has to send, at its time.
    pub(super) fn look_after(&mut self, now: Instant, counters: &mut SendCounters) {
        let State::Open { link, allocation, .. } = &mut self.state else { return };
        match allocation.poll(now, |message| link.send(message, counters)) {
            Standing::Until(at) => self.wait = Some(at),
            Standing::Over if self.reported => self.end("it ended the relay".into()),
            Standing::Over => self.end("no answer, or it refused (credentials, quota)".into()),
        }
        self.flush(counters);
    }

    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        counters: &mut SendCounters,
    ) -> Poll<FromRelay> {
        if let State::Opening(opening) = &mut self.state {
            match opening.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(opened)) => self.begin(opened, counters),
                Poll::Ready(Err(reason)) => self.end(reason),
            }
        }
        for _ in 0..MAX_READS {
            let now = Instant::now();
            let State::Open { link, local, allocation } = &mut self.state else { return Poll::Pending };
            let read = match link.poll_read(cx, &mut self.message, counters) {
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(reason)) => {
                    self.end(reason);
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            };
            let message = self.message.get(..read).unwrap_or_default();
            let datagram = allocation.unwrap(message, now, buffer);
            let (relayed, local) = (allocation.relayed(), *local);
            if let (Some((length, peer)), Some(relayed)) = (datagram, relayed) {
                return Poll::Ready(FromRelay::Datagram { length, peer, relayed });
            }
            self.look_after(now, counters);
            if let Some(relayed) = self.relayed().filter(|_| !self.reported) {
                self.reported = true;
                debug!(server = %self.server, %relayed, "relay ready");
                return Poll::Ready(FromRelay::Ready { relayed, local });
            }
        }
        // There may be more.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&mut self, opened: Opened, counters: &mut SendCounters) {
        let now = Instant::now();
        let reliable = matches!(opened.link, Link::Stream { .. });
        let credentials = (self.server.username.expose(), self.server.credential.expose());
        let allocation =
            Allocation::new((opened.local, opened.server), credentials, self.family, reliable, now);
        self.state = State::Open { link: opened.link, local: opened.local, allocation: Box::new(allocation) };
        self.look_after(now, counters);
    }

    /// Gives the address back.
    pub(super) fn close(&mut self, now: Instant, counters: &mut SendCounters) {
        if let State::Open { allocation, .. } = &mut self.state {
            allocation.delete(now);
            self.look_after(now, counters);
        }
    }

    fn end(&mut self, reason: String) {
        debug!(server = %self.server, reason, "relay ended");
        self.state = State::Over(reason);
        self.wait = None;
    }

    /// What became of it, for an error message.
    pub(super) fn tried(&self) -> String {
        let what = match &self.state {
            State::Opening(_) => "no answer yet",
            State::Open { allocation, .. } if allocation.relayed().is_some() => {
                "ready, but ICE got no answer through it"
            }
            State::Open { .. } => "no answer yet",
            State::Over(reason) => reason,
        };
        format!("TURN {}: {what}", self.server)
    }
}

impl Link {
    fn send(&mut self, message: &[u8], counters: &mut SendCounters) {
        let sent = match self {
            Self::Datagrams(socket) => {
                counters.calls += 1;
                socket.get_ref().send(message).is_ok()
            }
            Self::Stream { outgoing, .. } => {
                // Channel data is padded to four bytes there (RFC 8656 §12.5); STUN messages are that long by themselves.
                let padding = message.len().next_multiple_of(4) - message.len();
                outgoing.append(message.len() + padding, |out| {
                    out.extend_from_slice(message);
                    out.resize(out.len() + padding, 0);
                    true
                })
            }
        };
        if sent {
            counters.datagrams += 1;
            counters.bytes += message.len() as u64;
        } else {
            counters.errors += 1;
        }
    }

    /// Puts the next message of the relay into `message`; its length.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
        counters: &mut SendCounters,
    ) -> Poll<Result<usize, String>> {
        match self {
            Self::Datagrams(socket) => {
                message.resize(super::framing::MAX_DATAGRAM + OVERHEAD, 0);
                for _ in 0..MAX_READS {
                    let Poll::Ready(Ok(mut ready)) = socket.poll_read_ready(cx) else { return Poll::Pending };
                    // An ICMP error is passed over: the allocation's requests are repeated, and end by themselves.
                    if let Ok(Ok(length)) = ready.try_io(|socket| socket.get_ref().recv(message)) {
                        return Poll::Ready(Ok(length));
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Stream { connection, outgoing, deframer } => {
                if !outgoing.is_empty() {
                    match outgoing.poll_write(connection, cx) {
                        Ok(calls) => counters.calls += calls,
                        Err(error) => return Poll::Ready(Err(error.to_string())),
                    }
                }
                for _ in 0..MAX_READS {
                    if let Some(found) = deframer.next() {
                        message.clear();
                        message.extend_from_slice(found);
                        return Poll::Ready(Ok(message.len()));
                    }
                    if deframer.is_lost() {
                        return Poll::Ready(Err("what it sends is not TURN".into()));
                    }
                    match connection.poll_read(cx, deframer.space()) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err("it closed the connection".into())),
                        Poll::Ready(Ok(count)) => deframer.filled(count),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

async fn open(server: RelayServer, ca_file: Option<PathBuf>) -> Result<Opened, String> {
    let resolving = tokio::net::lookup_host((server.host.as_str(), server.port));
    let mut addresses: Vec<SocketAddr> = match tokio::time::timeout(RESOLVE_TIMEOUT, resolving).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("its name is not resolved: {error}")),
        Err(_) => return Err(format!("its name is not resolved within {RESOLVE_TIMEOUT:?}")),
    };
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = "its name has no address".to_owned();
    for to in addresses.into_iter().take(MAX_ADDRESSES) {
        let opened = match server.protocol {
            RelayProtocol::Udp => open_udp(to).map_err(|e| e.to_string()),
            RelayProtocol::Tcp => stream::connect(None, to).await.and_then(|c| opened_stream(c, to)),
            RelayProtocol::Tls => stream::connect_tls(&server.host, to, ca_file.clone())
                .await
                .and_then(|c| opened_stream(c, to)),
        };
        match opened {
            Ok(opened) => return Ok(opened),
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

fn open_udp(to: SocketAddr) -> io::Result<Opened> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (_, socket) = udp::open(any)?;
    socket.get_ref().connect(to)?;
    let local = socket.get_ref().local_addr()?;
    Ok(Opened { link: Link::Datagrams(socket), local, server: to })
}

fn opened_stream(connection: Connection, to: SocketAddr) -> Result<Opened, String> {
    let local = connection.local;
    let link = Link::Stream { connection, outgoing: Outgoing::default(), deframer: Deframer::turn() };
    Ok(Opened { link, local, server: to })
}
