// SPDX-License-Identifier: MIT OR Apache-2.0

//! ICE over TCP (RFC 6544), the active side: a connection is made when the first check for its pair of candidates is to
//! be sent.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use str0m::net::Transmit;
use tracing::debug;

use super::framing::{self, Deframer};
use super::stream::{Connecting, Connection, Outgoing, connect};
use crate::engine::SendCounters;

/// The port of an active candidate: it is never connected to (RFC 6544 §4.5).
pub(super) const ACTIVE_PORT: u16 = 9;
/// A server offers one or two passive candidates; more connections than this are not made.
const MAX_LINKS: usize = 8;
/// After a failure, before the next attempt. ICE goes on asking meanwhile.
const RETRY: Duration = Duration::from_secs(1);
/// Reads from one connection before others get their turn.
const MAX_READS: usize = 8;

#[derive(Default)]
pub(super) struct TcpLinks {
    links: Vec<Link>,
    /// Where the next poll starts.
    first: usize,
}

/// The connection of a pair of candidates.
struct Link {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    outgoing: Outgoing,
    /// Whether a STUN message is on its way. A server tells by the first one whose connection this is.
    introduced: bool,
}

enum State {
    Connecting(Connecting),
    Open(Connection, Deframer),
    Closed { at: Instant, reason: String },
}

impl TcpLinks {
    /// Takes a datagram; it leaves with the next [`TcpLinks::flush`], or when there is a connection.
    pub(super) fn queue(&mut self, transmit: &Transmit, now: Instant, counters: &mut SendCounters) {
        let (local, remote) = (transmit.source, transmit.destination);
        let found = self.links.iter().position(|link| link.local == local && link.remote == remote);
        if found.is_none() && self.links.len() < MAX_LINKS {
            debug!(%remote, "connecting by TCP");
            let state = State::Connecting(connect(Some(local.ip()), remote));
            let link = Link { local, remote, state, outgoing: Outgoing::default(), introduced: false };
            self.links.push(link);
        }
        let link = match found {
            Some(index) => self.links.get_mut(index),
            None => self.links.iter_mut().find(|link| link.local == local && link.remote == remote),
        };
        if !link.is_some_and(|link| link.queue(&transmit.contents, now, counters)) {
            counters.errors += 1;
        }
    }

    pub(super) fn flush(&mut self, counters: &mut SendCounters) {
        for link in &mut self.links {
            let State::Open(connection, _) = &mut link.state else { continue };
            if link.outgoing.is_empty() {
                continue;
            }
            match link.outgoing.write(connection) {
                Ok(calls) => counters.calls += calls,
                Err(error) => link.close(&error.to_string()),
            }
        }
    }

    /// Receives one datagram: its length, where it came from, where to.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        counters: &mut SendCounters,
    ) -> Poll<(usize, SocketAddr, SocketAddr)> {
        let count = self.links.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let Some(link) = self.links.get_mut(index) else { continue };
            if let Poll::Ready(length) = link.poll_recv(cx, buffer, counters) {
                self.first = index + 1;
                return Poll::Ready((length, link.remote, link.local));
            }
        }
        Poll::Pending
    }

    /// What became of each connection, for an error message.
    pub(super) fn tried(&self) -> impl Iterator<Item = String> + '_ {
        self.links.iter().map(|link| match &link.state {
            State::Connecting(_) => format!("TCP to {}: no answer yet", link.remote),
            State::Open(..) => format!("TCP to {}: connected, but ICE got no answer", link.remote),
            State::Closed { reason, .. } => format!("TCP to {}: {reason}", link.remote),
        })
    }
}

impl Link {
    fn queue(&mut self, datagram: &[u8], now: Instant, counters: &mut SendCounters) -> bool {
        if let State::Closed { at, .. } = self.state {
            if now.saturating_duration_since(at) < RETRY {
                return false;
            }
            self.state = State::Connecting(connect(Some(self.local.ip()), self.remote));
        }
        if !self.introduced && !is_stun(datagram) {
            return false;
        }
        let taken = self.outgoing.append(datagram.len() + 2, |out| framing::frame(out, datagram));
        if taken {
            self.introduced = true;
            counters.datagrams += 1;
            counters.bytes += datagram.len() as u64;
        }
        taken
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        counters: &mut SendCounters,
    ) -> Poll<usize> {
        if let State::Connecting(connecting) = &mut self.state {
            match connecting.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(connection)) => self.state = State::Open(connection, Deframer::rfc4571()),
                Poll::Ready(Err(reason)) => self.close(&reason),
            }
        }
        let State::Open(connection, deframer) = &mut self.state else { return Poll::Pending };
        if !self.outgoing.is_empty() {
            match self.outgoing.poll_write(connection, cx) {
                Ok(calls) => counters.calls += calls,
                Err(error) => {
                    self.close(&error.to_string());
                    return Poll::Pending;
                }
            }
        }
        for _ in 0..MAX_READS {
            if let Some(datagram) = deframer.next() {
                let Some(to) = buffer.get_mut(..datagram.len()) else { continue };
                to.copy_from_slice(datagram);
                return Poll::Ready(datagram.len());
            }
            match connection.poll_read(cx, deframer.space()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    self.close("the server closed the connection");
                    return Poll::Pending;
                }
                Poll::Ready(Ok(count)) => deframer.filled(count),
                Poll::Ready(Err(error)) => {
                    self.close(&error.to_string());
                    return Poll::Pending;
                }
            }
        }
        // There may be more.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn close(&mut self, reason: &str) {
        debug!(remote = %self.remote, reason, "TCP connection ended");
        self.state = State::Closed { at: Instant::now(), reason: reason.to_owned() };
        // The next one begins anew, not in the middle of a datagram.
        self.outgoing.clear();
        self.introduced = false;
    }
}

/// RFC 8489 §5: two zero bits first, the magic cookie in bytes 4 to 7.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xc0 == 0)
        && datagram.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use str0m::net::Protocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const CHECK: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, ACTIVE_PORT).into()
    }

    fn transmit(to: SocketAddr, data: &[u8]) -> Transmit {
        Transmit { proto: Protocol::Tcp, source: local(), destination: to, contents: data.to_vec().into() }
    }

    async fn receive(
        links: &mut TcpLinks,
        buffer: &mut [u8],
        counters: &mut SendCounters,
    ) -> (usize, SocketAddr, SocketAddr) {
        let received = poll_fn(|cx| links.poll_recv(cx, buffer, counters));
        tokio::time::timeout(Duration::from_secs(60), received).await.unwrap()
    }

    #[tokio::test]
    async fn a_check_makes_the_connection_and_goes_first() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let (mut links, mut counters, mut buffer) = (TcpLinks::default(), SendCounters::default(), [0; 2048]);
        let now = Instant::now();
        // Media of a connection that was lost: the server would not know whose.
        links.queue(&transmit(server, &[0x80; 50]), now, &mut counters);
        assert_eq!((counters.errors, counters.datagrams), (1, 0));
        links.queue(&transmit(server, &CHECK), now, &mut counters);
        links.queue(&transmit(server, &[0x80; 30]), now, &mut counters);
        let serve = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut got = [0; 2 + 20 + 2 + 30];
            peer.read_exact(&mut got).await.unwrap();
            // In pieces, so that the datagram is not whole at the first read.
            for piece in [&[0][..], &[5, 1, 2], &[3, 4, 5]] {
                peer.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (got, peer)
        };
        let ((got, peer), received) = tokio::join!(serve, receive(&mut links, &mut buffer, &mut counters));
        assert_eq!(got[..22], [&[0, 20][..], &CHECK].concat());
        assert_eq!(got[22..24], [0, 30]);
        assert_eq!(received, (5, server, local()));
        assert_eq!(buffer[..5], [1, 2, 3, 4, 5]);
        assert_eq!((counters.datagrams, counters.bytes, counters.errors), (2, 50, 1));

        // The peer goes: the next attempt comes after a while, and begins with a check again.
        let soon = Instant::now();
        drop(peer);
        let gone = poll_fn(|cx| {
            let _ = links.poll_recv(cx, &mut buffer, &mut counters);
            if links.tried().any(|t| t.contains("closed")) { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
        let later = Instant::now() + RETRY * 2;
        links.queue(&transmit(server, &CHECK), soon, &mut counters);
        assert_eq!(counters.errors, 2);
        links.queue(&transmit(server, &[0x80; 30]), later, &mut counters);
        assert_eq!(counters.errors, 3);
        links.queue(&transmit(server, &CHECK), later, &mut counters);
        assert_eq!((counters.errors, counters.datagrams), (3, 3));
        assert!(links.tried().all(|t| t.contains("no answer yet")));
    }

    #[tokio::test]
    async fn connections_and_what_waits_for_them_are_bounded() {
        let (mut links, mut counters) = (TcpLinks::default(), SendCounters::default());
        for port in 1..=20 {
            links.queue(&transmit((Ipv4Addr::LOCALHOST, port).into(), &CHECK), Instant::now(), &mut counters);
        }
        assert_eq!((links.links.len(), counters.errors), (MAX_LINKS, 12));
        for _ in 0..1000 {
            links.queue(
                &transmit((Ipv4Addr::LOCALHOST, 1).into(), &[1; 1150]),
                Instant::now(),
                &mut counters,
            );
        }
        assert!(counters.errors > 800, "{counters:?}");
    }

    #[test]
    fn stun_is_told_from_media() {
        assert!(is_stun(&CHECK));
        for other in [&[][..], &[0x80; 20], &[0x16; 20], &[0, 1, 0, 0, 0x21, 0x12, 0xa4]] {
            assert!(!is_stun(other), "{other:?}");
        }
    }
}
