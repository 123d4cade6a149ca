// SPDX-License-Identifier: MIT OR Apache-2.0

//! The UDP sockets of one connection: one for each local address, because ICE wants to know which of them
//! a datagram came in on and has to go out from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// A board with more addresses than this uses the first ones.
const MAX_SOCKETS: usize = 16;
/// Errors taken from a socket in a row before the next one gets its turn; the engine's next timer comes back
/// to it.
const MAX_ERRORS: usize = 16;
/// Room for a keyframe that leaves in one burst.
const SEND_BUFFER: usize = 1 << 20;
const RECEIVE_BUFFER: usize = 512 << 10;

#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<(SocketAddr, UdpSocket)>,
    /// Where the next poll starts, so that a busy socket does not starve the others.
    first: usize,
    pub(crate) bytes_sent: u64,
    pub(crate) send_errors: u64,
}

impl Sockets {
    /// One socket on every usable local address. `signalling` = the local address that already reached the
    /// server; loopback is used only if that is one, as no other server could be reached from it.
    pub(crate) fn bind(signalling: Option<IpAddr>) -> io::Result<Self> {
        let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?.into_iter().map(|i| i.ip()).collect();
        addresses.extend(signalling);
        let loopback = signalling.is_none_or(|ip| ip.is_loopback());
        addresses.retain(|ip| is_usable(*ip) && (loopback || !ip.is_loopback()));
        // The address that is known to work comes first.
        addresses.sort_by_key(|ip| (Some(*ip) != signalling, *ip));
        addresses.dedup();
        if addresses.is_empty() {
            addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let mut sockets = Vec::new();
        let mut failure = None;
        for ip in addresses.into_iter().take(MAX_SOCKETS) {
            match open(ip) {
                Ok(socket) => sockets.push(socket),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if sockets.is_empty() => Err(error),
            _ => Ok(Self { sockets, first: 0, bytes_sent: 0, send_errors: 0 }),
        }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(address, _)| *address)
    }

    /// Sends a datagram. What the kernel does not take is counted: RTP treats it like loss on the way.
    pub(crate) fn send(&mut self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        let socket = self.sockets.iter().find(|(address, _)| *address == source).map(|(_, socket)| socket);
        // Straight to the socket: tokio's own try_send_to fails until its reactor has seen the socket once.
        match socket.map(|s| socket2::SockRef::from(s).send_to(data, &destination.into())) {
            Some(Ok(bytes)) => self.bytes_sent += bytes as u64,
            _ => self.send_errors += 1,
        }
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
            let Some((address, socket)) = self.sockets.get(index) else { continue };
            for _ in 0..MAX_ERRORS {
                let mut read = ReadBuf::new(buffer);
                match socket.poll_recv_from(cx, &mut read) {
                    Poll::Ready(Ok(source)) => {
                        let length = read.filled().len();
                        self.first = index + 1;
                        return Poll::Ready((length, source, *address));
                    }
                    // An ICMP error of an earlier datagram: it says nothing about the others.
                    Poll::Ready(Err(_)) => continue,
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }
}

fn open(ip: IpAddr) -> io::Result<(SocketAddr, UdpSocket)> {
    let domain = if ip.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Best effort: the kernel caps both at its own limits.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&SocketAddr::new(ip, 0).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    Ok((socket.local_addr()?, socket))
}

/// Not unspecified, not multicast, and not link-local IPv6, which needs a scope that candidates can't say.
fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && (v6.segments()[0] & 0xffc0) != 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn sends_from_and_receives_on_the_named_address() {
        let local = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (mut a, mut b) = (Sockets::bind(local).unwrap(), Sockets::bind(local).unwrap());
        let (from, to) = (a.addresses().next().unwrap(), b.addresses().next().unwrap());
        assert!(from.ip().is_loopback(), "the address that signalling uses comes first");
        a.send(from, to, b"hello");
        let mut buffer = [0; 100];
        let received = poll_fn(|cx| b.poll_recv(cx, &mut buffer));
        let received = tokio::time::timeout(Duration::from_secs(5), received).await.unwrap();
        assert_eq!(received, (5, from, to));
        assert_eq!((a.bytes_sent, a.send_errors), (5, 0));
        a.send(to, from, b"from a socket that is not ours");
        assert_eq!(a.send_errors, 1);
    }

    #[tokio::test]
    async fn loopback_is_left_out_when_the_server_is_elsewhere() {
        let outside =
            if_addrs::get_if_addrs().unwrap().into_iter().map(|i| i.ip()).find(|ip| !ip.is_loopback());
        let Some(outside) = outside.filter(|ip| is_usable(*ip)) else { return };
        let sockets = Sockets::bind(Some(outside)).unwrap();
        assert!(sockets.addresses().all(|a| !a.ip().is_loopback()));
    }
}
