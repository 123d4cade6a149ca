// SPDX-License-Identifier: MIT OR Apache-2.0

//! A TCP connection, with TLS or without, written to without ever waiting.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::signal::tls;

/// Bytes that may wait for a connection that does not drain: at 2 Mbit/s half a second. What comes on top is dropped, and
/// congestion control sees it as loss.
const MAX_WAITING: usize = 128 * 1024;
/// Bytes that the kernel may hold without having sent them. What waits there can't be dropped, and delays all that follows.
const UNSENT_IN_KERNEL: u32 = 16 * 1024;
/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being made: the answer is in it, or why there is none.
pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Connection, String>> + Send>>;

/// Begins to connect, from a local address if it matters.
pub(super) fn connect(from: Option<IpAddr>, to: SocketAddr) -> Connecting {
    Box::pin(in_time(async move {
        let (stream, local) = dial(from, to).await.map_err(|e| e.to_string())?;
        Ok(Connection { stream: Box::new(stream), local })
    }))
}

/// The same with TLS, as signalling does it: the system's certificate authorities and those in `ca_file`.
pub(super) fn connect_tls(host: &str, to: SocketAddr, ca_file: Option<PathBuf>) -> Connecting {
    let name = ServerName::try_from(host.to_owned());
    Box::pin(in_time(async move {
        let name = name.map_err(|e| format!("not a valid TLS server name: {e}"))?;
        let config = tls::shared_config(ca_file).await.map_err(|e| e.to_string())?;
        let (stream, local) = dial(None, to).await.map_err(|e| e.to_string())?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Connection { stream: Box::new(stream), local }),
            Err(error) => Err(match tls::classify(&error) {
                Some(refused) => {
                    // Somebody may be mending just that.
                    tls::forget().await;
                    refused.to_string()
                }
                None => format!("TLS: {error}"),
            }),
        }
    }))
}

async fn dial(from: Option<IpAddr>, to: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let _ = socket.set_nodelay(true);
    // Best effort: without it the kernel holds more back.
    let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
    let stream = socket.connect(to).await?;
    let local = stream.local_addr()?;
    Ok((stream, local))
}

async fn in_time(connect: impl Future<Output = Result<Connection, String>>) -> Result<Connection, String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no answer within {CONNECT_TIMEOUT:?}")),
    }
}

/// See the module's documentation.
pub(super) struct Connection {
    pub(super) local: SocketAddr,
    stream: Box<dyn Stream>,
}

impl Connection {
    /// Reads what is there; 0 = the peer closed it.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }
}

/// What waits to be written to a connection.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// How much of it is written already.
    written: usize,
    /// TLS holds what was written until it is flushed.
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Lets `write` append so many bytes, if there is room for them.
    pub(super) fn append(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        self.bytes.len() - self.written + length <= MAX_WAITING && write(&mut self.bytes)
    }

    /// Writes what the connection takes now and answers in how many calls; the rest waits until it takes more, which `cx`
    /// is told of.
    pub(super) fn poll_write(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> io::Result<u64> {
        let mut stream = Pin::new(&mut connection.stream);
        let mut calls = 0;
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match stream.as_mut().poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.unflushed = true;
                    calls += 1;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        // What is written is given up in halves, so that each byte is moved once at most.
        if self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.unflushed
            && let Poll::Ready(flushed) = stream.poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(calls)
    }

    /// The same from where nobody waits: the next `poll_write` with a context that does has to follow.
    pub(super) fn write(&mut self, connection: &mut Connection) -> io::Result<u64> {
        self.poll_write(connection, &mut Context::from_waker(Waker::noop()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_a_slow_peer_does_not_take_is_bounded_and_arrives_in_order() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let connecting = connect(Some(Ipv4Addr::LOCALHOST.into()), listener.local_addr().unwrap());
        let (connection, accepted) = tokio::join!(connecting, listener.accept());
        let (mut connection, mut peer) = (connection.unwrap(), accepted.unwrap().0);
        let (mut outgoing, mut expected, mut refused) = (Outgoing::default(), Vec::new(), 0);
        // More than the kernel and we hold together.
        for n in 0..20_000_u32 {
            let chunk: Vec<u8> = n.to_be_bytes().repeat(250);
            if outgoing.append(chunk.len(), |out| {
                out.extend_from_slice(&chunk);
                true
            }) {
                expected.extend_from_slice(&chunk);
            } else {
                refused += 1;
            }
            outgoing.write(&mut connection).unwrap();
            assert!(outgoing.bytes.len() <= 2 * MAX_WAITING && !outgoing.append(MAX_WAITING + 1, |_| true));
        }
        assert!(refused > 0, "the kernel took 20 MB");
        let mut received = vec![0; expected.len()];
        let write = poll_fn(|cx| {
            outgoing.poll_write(&mut connection, cx).unwrap();
            if outgoing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        let (_, read) = tokio::join!(write, peer.read_exact(&mut received));
        read.unwrap();
        assert!(received == expected, "whole chunks in order");
    }

    #[tokio::test]
    async fn a_refused_connection_says_why() {
        // Bound, so that nobody else gets it meanwhile, but not listening.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let closed = socket.local_addr().unwrap().as_socket().unwrap();
        let reason = connect(None, closed).await.err().unwrap();
        assert!(reason.contains("refused"), "{reason}");
    }
}
