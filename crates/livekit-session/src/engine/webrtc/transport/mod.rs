// SPDX-License-Identifier: MIT OR Apache-2.0

//! What carries the datagrams of one connection: UDP, and TCP where UDP does not pass.
//!
//! UDP is the path that counts: it is tried first and alone, and nothing of the others exists until it has failed to
//! connect (see `paths.rs`).

mod batch;
mod framing;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Instant;

use str0m::Candidate;
use str0m::net::{Protocol, TcpType, Transmit};

use crate::engine::SendCounters;
use tcp::TcpLinks;
use udp::Sockets;

/// Where a datagram that was received lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) protocol: Protocol,
    pub(super) length: usize,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// See the module's documentation.
pub(super) struct Transport {
    udp: Sockets,
    tcp: TcpLinks,
}

impl Transport {
    /// `signalling` = the local address that already reached the server.
    pub(super) fn open(signalling: Option<IpAddr>) -> io::Result<Self> {
        Ok(Self { udp: Sockets::bind(signalling)?, tcp: TcpLinks::default() })
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

    pub(super) fn counters(&self) -> SendCounters {
        self.udp.counters
    }

    /// Takes a datagram; it leaves with the next [`Transport::flush`].
    pub(super) fn queue(&mut self, transmit: Transmit) {
        match transmit.proto {
            Protocol::Udp => self.udp.queue(transmit),
            _ => self.tcp.queue(&transmit, Instant::now(), &mut self.udp.counters),
        }
    }

    /// Sends what waits. To be called before anything else is waited for.
    pub(super) fn flush(&mut self) {
        self.udp.flush();
        self.tcp.flush(&mut self.udp.counters);
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Received> {
        let received = |protocol, (length, source, destination)| {
            Poll::Ready(Received { protocol, length, source, destination })
        };
        if let Poll::Ready(datagram) = self.udp.poll_recv(cx, buffer) {
            return received(Protocol::Udp, datagram);
        }
        if let Poll::Ready(datagram) = self.tcp.poll_recv(cx, buffer, &mut self.udp.counters) {
            return received(Protocol::Tcp, datagram);
        }
        Poll::Pending
    }

    /// What was tried apart from UDP, and what became of it.
    pub(super) fn tried(&self) -> Vec<String> {
        self.tcp.tried().collect()
    }
}
