// SPDX-License-Identifier: MIT OR Apache-2.0

//! What carries the datagrams of one connection: UDP, and where UDP does not pass TCP and relays.
//!
//! UDP is the path that counts: it is tried first and alone, and nothing of the others exists until it has failed to
//! connect (see `paths.rs`).

mod allocation;
mod batch;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod relay;
mod servers;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Instant;

use str0m::Candidate;
use str0m::net::{Protocol, TcpType, Transmit};

use crate::engine::SendCounters;
use crate::stats::TransportPath;
use relay::{FromRelay, Relay};
pub(super) use servers::{RelayServer, relays};
use tcp::TcpLinks;
use udp::Sockets;

/// What came in.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A datagram lies in the buffer.
    Datagram { protocol: Protocol, length: usize, source: SocketAddr, destination: SocketAddr },
    /// A relay gave us an address.
    Candidate(Candidate),
}

/// See the module's documentation.
pub(super) struct Transport {
    udp: Sockets,
    tcp: TcpLinks,
    relays: Vec<Relay>,
    /// The local address that already reached the server.
    signalling: Option<IpAddr>,
}

impl Transport {
    /// `signalling` = the local address that already reached the server.
    pub(super) fn open(signalling: Option<IpAddr>) -> io::Result<Self> {
        let udp = Sockets::bind(signalling)?;
        Ok(Self { udp, tcp: TcpLinks::default(), relays: Vec::new(), signalling })
    }

    /// Looks for local addresses that were not there before; a candidate for each.
    pub(super) fn refresh(&mut self, signalling: Option<IpAddr>) -> Vec<Candidate> {
        self.signalling = signalling.or(self.signalling);
        let added = self.udp.refresh(self.signalling);
        added.into_iter().filter_map(|address| Candidate::host(address, Protocol::Udp).ok()).collect()
    }

    pub(super) fn udp_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.udp.addresses()
    }

    pub(super) fn udp_candidates(&self) -> Vec<Candidate> {
        self.udp.addresses().filter_map(|address| Candidate::host(address, Protocol::Udp).ok()).collect()
    }

    /// One for each address that UDP has; a connection is made when ICE uses it.
    pub(super) fn tcp_candidates(&self) -> Vec<Candidate> {
        let addresses = self.udp.addresses().map(|address| SocketAddr::new(address.ip(), tcp::ACTIVE_PORT));
        addresses
            .filter_map(|a| Candidate::builder().tcp().host(a).tcptype(TcpType::Active).build().ok())
            .collect()
    }

    /// Begins to ask relays for addresses; [`Arrival::Candidate`] follows for each that gives one.
    pub(super) fn open_relays(&mut self, servers: Vec<RelayServer>, ca_file: Option<&PathBuf>) {
        // What reached the server once is what its media can be reached by too.
        let family = self.signalling.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let opened = servers.into_iter().map(|server| Relay::open(server, family, ca_file.cloned()));
        self.relays.extend(opened);
    }

    pub(super) fn counters(&self) -> SendCounters {
        self.udp.counters
    }

    /// What a datagram from this local candidate goes by.
    pub(super) fn path(&self, protocol: Protocol, local: SocketAddr) -> TransportPath {
        if protocol != Protocol::Udp {
            return TransportPath::Tcp;
        }
        let relay = self.relays.iter().find(|relay| relay.relayed() == Some(local));
        relay.map_or(TransportPath::Udp, |relay| relay.protocol().path())
    }

    /// Takes a datagram; it leaves with the next [`Transport::flush`].
    pub(super) fn queue(&mut self, transmit: Transmit) {
        if transmit.proto != Protocol::Udp {
            self.tcp.queue(&transmit, Instant::now(), &mut self.udp.counters);
            return;
        }
        let relay = self.relays.iter_mut().find(|relay| relay.relayed() == Some(transmit.source));
        match relay {
            None => self.udp.queue(transmit),
            Some(relay) => {
                let (peer, now) = (transmit.destination, Instant::now());
                relay.queue(peer, &transmit.contents, now, &mut self.udp.counters);
            }
        }
    }

    /// Sends what waits. To be called before anything else is waited for.
    pub(super) fn flush(&mut self) {
        self.udp.flush();
        self.tcp.flush(&mut self.udp.counters);
        for relay in &mut self.relays {
            relay.flush(&mut self.udp.counters);
        }
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Arrival> {
        let arrived = |protocol, (length, source, destination)| {
            Poll::Ready(Arrival::Datagram { protocol, length, source, destination })
        };
        if let Poll::Ready(datagram) = self.udp.poll_recv(cx, buffer) {
            return arrived(Protocol::Udp, datagram);
        }
        if let Poll::Ready(datagram) = self.tcp.poll_recv(cx, buffer, &mut self.udp.counters) {
            return arrived(Protocol::Tcp, datagram);
        }
        for relay in &mut self.relays {
            match relay.poll_recv(cx, buffer, &mut self.udp.counters) {
                Poll::Ready(FromRelay::Datagram { length, peer, relayed }) => {
                    return arrived(Protocol::Udp, (length, peer, relayed));
                }
                Poll::Ready(FromRelay::Ready { relayed, local }) => {
                    if let Ok(candidate) = Candidate::relayed(relayed, local, Protocol::Udp) {
                        return Poll::Ready(Arrival::Candidate(candidate));
                    }
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// When [`Transport::look_after`] is to be called; never without relays.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.relays.iter().filter_map(|relay| relay.wait).min()
    }

    /// Requests of relays that are to be sent, again or anew.
    pub(super) fn look_after(&mut self, now: Instant) {
        for relay in self.relays.iter_mut().filter(|relay| relay.wait.is_some_and(|at| at <= now)) {
            relay.look_after(now, &mut self.udp.counters);
        }
    }

    /// Gives back what relays gave us.
    pub(super) fn close(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.close(now, &mut self.udp.counters);
        }
    }

    /// What was tried apart from UDP, and what became of it.
    pub(super) fn tried(&self) -> Vec<String> {
        self.tcp.tried().chain(self.relays.iter().map(Relay::tried)).collect()
    }
}
