// SPDX-License-Identifier: MIT OR Apache-2.0

//! The UDP sockets of one connection: one for each local address, because ICE wants to know which of them
//! a datagram came in on and has to go out from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use str0m::net::Transmit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::batch::{self, Datagram, MAX_DATAGRAMS};
use crate::addresses;
use crate::engine::SendCounters;

/// A board with more addresses than this uses the first ones.
const MAX_SOCKETS: usize = 16;
/// Errors taken from a socket in a row before the next one gets its turn; the engine's next timer comes back
/// to it.
const MAX_ERRORS: usize = 16;
/// Room for a keyframe that leaves in one burst.
const SEND_BUFFER: usize = 1 << 20;
const RECEIVE_BUFFER: usize = 512 << 10;

#[derive(Debug)]
struct Local {
    address: SocketAddr,
    /// Watched for what comes in only: nobody waits for room to send, and being told of it after every frame would cost
    /// a wake-up.
    socket: AsyncFd<UdpSocket>,
    /// Whether the kernel cuts messages into datagrams for us there; false once it refused to.
    segmentation: bool,
}

#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<Local>,
    /// Where the next poll starts, so that a busy socket does not starve the others.
    first: usize,
    /// What waits for [`Sockets::flush`]; its memory is kept.
    waiting: Vec<Datagram>,
    pub(crate) counters: SendCounters,
}

impl Sockets {
    /// One socket on every usable local address. `signalling` = the local address that already reached the
    /// server; loopback is used only if that is one, as no other server could be reached from it.
    pub(crate) fn bind(signalling: Option<IpAddr>) -> io::Result<Self> {
        let mut found = addresses::usable(signalling)?;
        if found.is_empty() {
            found.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let mut sockets = Vec::new();
        let mut failure = None;
        for ip in found.into_iter().take(MAX_SOCKETS) {
            match open(ip) {
                Ok((address, socket)) => sockets.push(Local { address, socket, segmentation: true }),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if sockets.is_empty() => Err(error),
            _ => Ok(Self {
                sockets,
                first: 0,
                waiting: Vec::with_capacity(MAX_DATAGRAMS),
                counters: SendCounters::default(),
            }),
        }
    }

    /// Opens a socket on every usable local address that has come since; gives what those are. Sockets of addresses that
    /// are gone stay: they may come back, and cost next to nothing.
    pub(crate) fn refresh(&mut self, signalling: Option<IpAddr>) -> Vec<SocketAddr> {
        let mut added = Vec::new();
        for ip in addresses::usable(signalling).unwrap_or_default() {
            if self.sockets.len() < MAX_SOCKETS
                && self.addresses().all(|known| known.ip() != ip)
                && let Ok((address, socket)) = open(ip)
            {
                self.sockets.push(Local { address, socket, segmentation: true });
                added.push(address);
            }
        }
        added
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|local| local.address)
    }

    /// Takes a datagram; it leaves with the next [`Sockets::flush`]. One from an address that is not ours is counted as
    /// an error, like what the kernel does not take.
    pub(crate) fn queue(&mut self, transmit: Transmit) {
        let Some(socket) = self.sockets.iter().position(|local| local.address == transmit.source) else {
            self.counters.errors += 1;
            return;
        };
        let (destination, data) = (transmit.destination, transmit.contents);
        self.waiting.push(Datagram { socket, destination, data });
        if self.waiting.len() >= MAX_DATAGRAMS {
            self.flush();
        }
    }

    /// Sends what waits. To be called before anything else is waited for.
    pub(crate) fn flush(&mut self) {
        for datagrams in self.waiting.chunk_by(|a, b| a.socket == b.socket) {
            let local = datagrams.first().and_then(|d| self.sockets.get_mut(d.socket));
            let Some(local) = local else { continue };
            batch::send(local.socket.as_fd(), datagrams, &mut local.segmentation, &mut self.counters);
        }
        self.waiting.clear();
    }

    /// Receives one datagram: its length, where it came from, where to.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<(usize, SocketAddr, SocketAddr)> {
        let count = self.sockets.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let Some(local) = self.sockets.get(index) else { continue };
            for _ in 0..MAX_ERRORS {
                let Poll::Ready(Ok(mut ready)) = local.socket.poll_read_ready(cx) else { break };
                // An error other than that there is nothing yet is an ICMP error of an earlier datagram: it says
                // nothing about the others.
                if let Ok(Ok((length, source))) = ready.try_io(|socket| socket.get_ref().recv_from(buffer)) {
                    self.first = index + 1;
                    return Poll::Ready((length, source, local.address));
                }
            }
        }
        Poll::Pending
    }
}

/// A socket for datagrams, on a port that the kernel chooses.
pub(super) fn open(ip: IpAddr) -> io::Result<(SocketAddr, AsyncFd<UdpSocket>)> {
    let domain = if ip.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Best effort: the kernel caps both at its own limits.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&SocketAddr::new(ip, 0).into())?;
    let socket = UdpSocket::from(socket);
    let address = socket.local_addr()?;
    #[allow(deprecated, reason = "its successor is unsafe because of types that lie about their descriptor")]
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    Ok((address, socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    use str0m::net::Protocol;

    fn transmit(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Transmit {
        Transmit { proto: Protocol::Udp, source, destination, contents: data.to_vec().into() }
    }

    async fn receive(sockets: &mut Sockets, buffer: &mut [u8]) -> (usize, SocketAddr, SocketAddr) {
        let received = poll_fn(|cx| sockets.poll_recv(cx, buffer));
        tokio::time::timeout(Duration::from_secs(60), received).await.unwrap()
    }

    fn pair() -> (Sockets, Sockets, SocketAddr, SocketAddr) {
        let local = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (a, b) = (Sockets::bind(local).unwrap(), Sockets::bind(local).unwrap());
        let (from, to) = (a.addresses().next().unwrap(), b.addresses().next().unwrap());
        (a, b, from, to)
    }

    #[tokio::test]
    async fn sends_from_and_receives_on_the_named_address() {
        let (mut a, mut b, from, to) = pair();
        assert!(from.ip().is_loopback(), "the address that signalling uses comes first");
        a.queue(transmit(from, to, b"hello"));
        a.flush();
        let mut buffer = [0; 100];
        assert_eq!(receive(&mut b, &mut buffer).await, (5, from, to));
        assert_eq!((a.counters.bytes, a.counters.datagrams, a.counters.errors), (5, 1, 0));
        a.queue(transmit(to, from, b"from a socket that is not ours"));
        assert_eq!(a.counters.errors, 1);
    }

    /// A frame's packets arrive one by one, in order and unchanged, whether the kernel cuts them or not.
    #[tokio::test]
    async fn a_batch_arrives_as_it_was_queued() {
        for segmentation in [true, false] {
            let (mut a, mut b, from, to) = pair();
            a.sockets[0].segmentation = segmentation;
            let sent: Vec<Vec<u8>> = [60, 1150, 1150, 1150, 1150, 300, 40, 1152]
                .iter()
                .zip(1..)
                .map(|(l, n)| vec![n; *l])
                .collect();
            for data in &sent {
                a.queue(transmit(from, to, data));
            }
            assert_eq!(a.counters.calls, 0, "nothing leaves before the flush");
            a.flush();
            let mut buffer = [0; 2000];
            for data in &sent {
                let (length, ..) = receive(&mut b, &mut buffer).await;
                assert_eq!(&buffer[..length], data);
            }
            assert_eq!(a.counters.datagrams, 8);
            assert_eq!(a.counters.errors, 0);
            // A kernel before 4.18 refuses; then it has been one call more.
            let expected = if segmentation && a.counters.segmentation_refused == 0 { 2 } else { 1 };
            assert_eq!(a.counters.calls, expected, "segmentation: {segmentation}");
            assert_eq!(a.waiting.len(), 0);
        }
    }

    #[tokio::test]
    async fn a_full_batch_does_not_wait_for_the_flush() {
        let (mut a, mut b, from, to) = pair();
        for _ in 0..MAX_DATAGRAMS {
            a.queue(transmit(from, to, &[1; 100]));
        }
        assert_eq!((a.counters.datagrams, a.waiting.len()), (MAX_DATAGRAMS as u64, 0));
        let mut buffer = [0; 200];
        for _ in 0..MAX_DATAGRAMS {
            assert_eq!(receive(&mut b, &mut buffer).await.0, 100);
        }
    }

    #[tokio::test]
    async fn nothing_is_allocated_for_a_packet() {
        for segmentation in [true, false] {
            let (mut a, mut b, from, to) = pair();
            a.sockets[0].segmentation = segmentation;
            let mut buffer = [0; 2000];
            let frame = || -> Vec<Transmit> { (0..12).map(|_| transmit(from, to, &[1; 1150])).collect() };
            let mut send = |frame: Vec<Transmit>| {
                for packet in frame {
                    a.queue(packet);
                }
                a.flush();
            };
            // The first one makes what the thread keeps.
            send(frame());
            let frames = [frame(), frame(), frame()];
            let sent = allocation_counter::measure(|| frames.into_iter().for_each(&mut send));
            assert_eq!(sent.count_total, 0, "{sent:?}");
            for _ in 0..48 {
                assert_eq!(receive(&mut b, &mut buffer).await.0, 1150);
            }
        }
        let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 10])));
        assert_eq!(counted.count_total, 1, "the counter counts");
    }

    #[tokio::test]
    async fn loopback_is_left_out_when_the_server_is_elsewhere() {
        let outside =
            if_addrs::get_if_addrs().unwrap().into_iter().map(|i| i.ip()).find(|ip| !ip.is_loopback());
        let Some(outside) = outside.filter(|ip| addresses::is_usable(*ip)) else { return };
        let sockets = Sockets::bind(Some(outside)).unwrap();
        assert!(sockets.addresses().all(|a| !a.ip().is_loopback()));
    }
}
