// SPDX-License-Identifier: MIT OR Apache-2.0

//! TCP connections to a host that may have several addresses, over a network that may just be coming back.
//!
//! The kernel repeats the first packet of a connection after 1, 3, 7 … seconds (RFC 6298 §2, §5.5): an attempt that
//! began while there was no network sleeps on when there is one again. So while nothing answers, another connection
//! is tried every second beside the earlier ones, which a slow network may still need; the first that is made counts.
//!
//! The kernel chooses the interface by its routes, and those may lead into a network that carries nothing any more. So from
//! the second round on each interface gets its turn, by its address: with routes for each source address (`ip rule`) a
//! connection leaves by the interface whose address it has; without, it goes the way of the others.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream};

use crate::addresses;

/// When the next connection is tried beside those that are.
struct Pace {
    /// From one address to the next.
    address: Duration,
    /// From one round over all addresses to the next.
    round: Duration,
}

/// The first as in RFC 8305 §5.
const PACE: Pace = Pace { address: Duration::from_millis(250), round: Duration::from_secs(1) };
/// Connections that are tried at once, at most.
const MAX_RUNNING: usize = 40;
/// Addresses of a host that are used.
const MAX_ADDRESSES: usize = 6;

/// Connects to the first of the host's addresses that answers.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect();
    race(&addresses, &addresses::sources(), PACE, connect_from).await
}

async fn connect_from(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// Whether another source may have a way to an address.
fn has_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable)
}

/// `connect` is told where from, if that is not for the kernel to choose, and where to.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    sources: &[IpAddr],
    pace: Pace,
    connect: impl Fn(Option<IpAddr>, SocketAddr) -> F,
) -> io::Result<T> {
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut no_way = false;
    for (number, address) in addresses.iter().cycle().enumerate() {
        let alike = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4() && !address.ip().is_loopback();
        let sources = || sources.iter().filter(alike);
        let others = sources().filter(|_| number >= addresses.len()).copied().map(Some);
        for source in [None].into_iter().chain(others) {
            if running.len() < MAX_RUNNING {
                running.push(connect(source, *address));
            }
        }
        let first_round = number + 1 < addresses.len();
        let second_round = !first_round && number + 1 < 2 * addresses.len();
        let pause = tokio::time::sleep(if first_round { pace.address } else { pace.round });
        tokio::pin!(pause);
        loop {
            tokio::select! {
                Some(made) = running.next() => match made {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        no_way |= has_no_way(&error) && sources().count() > 0;
                        last = error;
                        // The next address at once; after the last one, what is still under way.
                        if first_round {
                            break;
                        }
                        if running.is_empty() {
                            // There may be a way from elsewhere to one of them.
                            if no_way && second_round {
                                break;
                            }
                            return Err(last);
                        }
                    }
                },
                () = &mut pause => break,
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    const FAST: Pace = Pace { address: Duration::from_millis(5), round: Duration::from_millis(20) };

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[tokio::test]
    async fn a_connection_that_began_without_a_network_does_not_hold_up_the_next() {
        let tries = AtomicUsize::new(0);
        let connect = |_, _| {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0..4 => std::future::pending().await,
                    number => Ok(number),
                }
            }
        };
        let begin = Instant::now();
        assert_eq!(race(&[address(1)], &[], FAST, connect).await.unwrap(), 4);
        assert!(begin.elapsed() >= FAST.round * 4);
    }

    #[tokio::test]
    async fn a_slow_connection_is_still_good() {
        let tries = AtomicUsize::new(0);
        let connect = |_, _| {
            let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if !first {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(FAST.round * 5).await;
                Ok(())
            }
        };
        race(&[address(1)], &[], FAST, connect).await.unwrap();
        assert!(tries.load(Ordering::Relaxed) > 1);
    }

    #[tokio::test]
    async fn never_more_than_so_many_at_once() {
        let tries = AtomicUsize::new(0);
        let connect = |_, _| {
            tries.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<io::Result<()>>()
        };
        let addresses = [address(1), address(2)];
        let rounds = async {
            while tries.load(Ordering::Relaxed) < MAX_RUNNING {
                tokio::time::sleep(FAST.address).await;
            }
            // Time for more, which must not come.
            tokio::time::sleep(FAST.round * 10).await;
        };
        tokio::select! {
            _ = race(&addresses, &[], FAST, connect) => unreachable!("nobody answers"),
            () = rounds => {}
        }
        assert_eq!(tries.load(Ordering::Relaxed), MAX_RUNNING);
    }

    #[tokio::test]
    async fn other_addresses_are_tried_when_one_refuses_or_is_silent() {
        let connect = |_, to: SocketAddr| async move {
            match to {
                to if to == address(1) => Err(refused()),
                to if to == address(2) => std::future::pending().await,
                to => Ok(to),
            }
        };
        let all = [address(1), address(2), address(3)];
        assert_eq!(race(&all, &[], PACE, connect).await.unwrap(), address(3));
    }

    #[tokio::test]
    async fn when_all_refuse_that_is_the_answer_at_once() {
        // Whoever waited for the next try would not be done in time.
        const SLOW: Pace = Pace { address: Duration::from_secs(600), round: Duration::from_secs(600) };
        let all = [address(1), address(2)];
        let answer = race(&all, &[], SLOW, |_, _| async { Err::<(), _>(refused()) });
        let error = tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(&[], &[], PACE, |_, _| async { Ok(()) }).await.is_err());
    }

    #[tokio::test]
    async fn one_that_refuses_does_not_end_the_wait_for_another() {
        let connect = |_, to: SocketAddr| async move {
            if to == address(2) {
                return Err(refused());
            }
            tokio::time::sleep(FAST.round * 4).await;
            Ok(to)
        };
        assert_eq!(race(&[address(1), address(2)], &[], FAST, connect).await.unwrap(), address(1));
    }

    fn source(last: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, last])
    }

    #[tokio::test]
    async fn where_the_kernel_s_way_leads_nowhere_the_other_interfaces_are_tried() {
        let tried = Mutex::new(Vec::new());
        let connect = |from: Option<IpAddr>, to: SocketAddr| {
            tried.lock().unwrap().push(from);
            async move {
                match from {
                    Some(from) if from == source(2) => Ok(to),
                    Some(from) if from == source(1) => Err(refused()),
                    _ => std::future::pending().await,
                }
            }
        };
        let sources = [source(1), "2001:db8::1".parse().unwrap(), source(2)];
        let begin = Instant::now();
        let to = [address(1)];
        let answer = race(&to, &sources, FAST, connect);
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap().unwrap(), address(1));
        assert!(begin.elapsed() >= FAST.round, "the kernel's choice has a round of its own");
        let tried = tried.into_inner().unwrap();
        assert_eq!(tried[0], None);
        assert!(!tried.contains(&Some(sources[1])), "of another family: {tried:?}");
    }

    #[tokio::test]
    async fn without_a_route_the_other_interfaces_are_tried_at_once() {
        const SLOW: Pace = Pace { address: Duration::from_secs(600), round: Duration::from_secs(600) };
        let connect = |from: Option<IpAddr>, to: SocketAddr| async move {
            from.map(|_| to).ok_or(io::Error::from(io::ErrorKind::NetworkUnreachable))
        };
        let (to, from) = ([address(1)], [source(1)]);
        let answer = race(&to, &from, SLOW, connect);
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap().unwrap(), address(1));
        // Who refuses does so whichever way it is asked, and no server on this machine is reached from elsewhere.
        for (to, kind) in
            [(address(1), io::ErrorKind::ConnectionRefused), (loopback(), io::ErrorKind::NetworkUnreachable)]
        {
            let tries = AtomicUsize::new(0);
            let to = [to];
            let answer = race(&to, &from, SLOW, |_, _| {
                tries.fetch_add(1, Ordering::Relaxed);
                async move { Err::<(), _>(io::Error::from(kind)) }
            });
            let error = tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap().unwrap_err();
            assert_eq!((error.kind(), tries.load(Ordering::Relaxed)), (kind, 1));
        }
    }

    #[tokio::test]
    async fn without_a_route_each_of_several_addresses_is_tried_from_the_other_interfaces() {
        const SLOW: Pace = Pace { address: Duration::from_secs(600), round: Duration::from_secs(600) };
        let connect = |from: Option<IpAddr>, to: SocketAddr| async move {
            from.map(|_| to).ok_or(io::Error::from(io::ErrorKind::NetworkUnreachable))
        };
        let other = SocketAddr::from((std::net::Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), 80));
        // The only other interface has no address of the other family.
        for to in [[other, address(1)], [address(1), other]] {
            let from = [source(1)];
            let answer = race(&to, &from, SLOW, connect);
            let made = tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap();
            assert_eq!(made.unwrap(), address(1), "{to:?}");
        }
        let tries = AtomicUsize::new(0);
        let (to, from) = ([other, address(1)], [source(1)]);
        let answer = race(&to, &from, SLOW, |_, _| {
            tries.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>(io::Error::from(io::ErrorKind::NetworkUnreachable)) }
        });
        tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap().unwrap_err();
        assert_eq!(tries.load(Ordering::Relaxed), 5, "both, both again, and one from elsewhere");
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
    }
}
