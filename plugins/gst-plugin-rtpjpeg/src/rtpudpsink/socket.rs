// SPDX-License-Identifier: MPL-2.0

//! Opens the sink's socket as the properties say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use nix::sys::socket::sockopt::UdpGsoSegment;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::SocketFamily;
use super::settings::Settings;

/// How long a send may wait for room in the kernel's buffer before the packet is dropped.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The host's name is not known.
    #[error("cannot find the address of host \"{host}\": {error}")]
    Resolve { host: String, error: io::Error },
    /// The host has no address of the wanted family.
    #[error("host \"{host}\" has no {family} address (property socket-family)")]
    NoAddress { host: String, family: &'static str },
    /// Not an IP address.
    #[error("bind-address \"{0}\" is no IP address")]
    BindAddress(String),
    /// IPv4 and IPv6 do not mix.
    #[error("bind-address {bind} and the receiver's address {to} are of different IP versions")]
    Family { bind: IpAddr, to: IpAddr },
    /// No interface of that name, or none with a fitting address.
    #[error("multicast-iface \"{name}\" cannot be used: {error}")]
    Interface { name: String, error: io::Error },
    /// The system refused.
    #[error("cannot {what}: {error}")]
    System { what: String, error: io::Error },
}

/// A socket, ready to send.
#[derive(Debug)]
pub(crate) struct Opened {
    pub socket: Socket,
    pub to: SocketAddr,
    /// Connected, so that ICMP errors are reported; otherwise every send names the receiver.
    pub connected: bool,
    /// The kernel knows UDP segmentation offload.
    pub gso: bool,
    /// What had no effect, in words.
    pub complaints: Vec<String>,
}

pub(crate) fn open(settings: &Settings) -> Result<Opened, OpenError> {
    let to = resolve(settings)?;
    let bind = bind_address(settings, to)?;
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| OpenError::System { what, error }
    };
    let domain = Domain::for_address(to);
    let socket =
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(system("make a UDP socket"))?;
    socket.set_write_timeout(Some(SEND_TIMEOUT)).map_err(system("set a time limit for sending"))?;
    let mut complaints = Vec::new();
    if settings.buffer_size > 0 {
        let wanted = settings.buffer_size as usize;
        socket.set_send_buffer_size(wanted).map_err(system("set buffer-size"))?;
        // Linux counts its own needs, too, and doubles what it was asked for.
        let got = socket.send_buffer_size().unwrap_or(wanted * 2) / 2;
        if got < wanted {
            complaints.push(format!("buffer-size is {got} bytes, not {wanted}: net.core.wmem_max limits it"));
        }
    }
    if let Ok(dscp) = u32::try_from(settings.qos_dscp) {
        // RFC 2474 §3: the upper six bits.
        let done = if to.is_ipv4() { socket.set_tos_v4(dscp << 2) } else { socket.set_tclass_v6(dscp << 2) };
        done.map_err(system("set qos-dscp"))?;
    }
    if to.is_ipv4() {
        socket.set_ttl_v4(settings.ttl).map_err(system("set ttl"))?;
    } else {
        socket.set_unicast_hops_v6(settings.ttl).map_err(system("set ttl"))?;
    }
    let multicast = to.ip().is_multicast();
    if multicast {
        set_multicast(&socket, to, settings)?;
    } else if to.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        socket.set_broadcast(true).map_err(system("send to everybody"))?;
    }
    socket.bind(&bind.into()).map_err(system(&format!("bind to {bind}")))?;
    // Without a route yet, every send tries anew.
    let connected = !multicast && socket.connect(&to.into()).is_ok();
    // Old kernels would send all segments as one datagram; setting the option fails there.
    let gso = settings.gso && setsockopt(&socket, UdpGsoSegment, &0).is_ok();
    Ok(Opened { socket, to, connected, gso, complaints })
}

fn resolve(settings: &Settings) -> Result<SocketAddr, OpenError> {
    let host = settings.host.trim_start_matches('[').trim_end_matches(']');
    let all = (host, settings.port)
        .to_socket_addrs()
        .map_err(|error| OpenError::Resolve { host: settings.host.clone(), error })?;
    let (fits, family): (fn(&SocketAddr) -> bool, _) = match settings.socket_family {
        SocketFamily::Auto => (|_| true, "IP"),
        SocketFamily::Ipv4 => (SocketAddr::is_ipv4, "IPv4"),
        SocketFamily::Ipv6 => (SocketAddr::is_ipv6, "IPv6"),
    };
    let bind: Option<IpAddr> = settings.bind_address.as_ref().and_then(|bind| bind.parse().ok());
    let all: Vec<_> = all.filter(fits).collect();
    // Of several addresses, one that can be reached from bind-address.
    let near = all.iter().find(|to| bind.is_none_or(|bind| bind.is_ipv4() == to.is_ipv4()));
    near.or(all.first()).copied().ok_or_else(|| OpenError::NoAddress { host: settings.host.clone(), family })
}

fn bind_address(settings: &Settings, to: SocketAddr) -> Result<SocketAddr, OpenError> {
    let unspecified: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let bind = match &settings.bind_address {
        None => unspecified,
        Some(text) => text.parse().map_err(|_| OpenError::BindAddress(text.clone()))?,
    };
    if bind.is_ipv4() != to.is_ipv4() {
        return Err(OpenError::Family { bind, to: to.ip() });
    }
    Ok(SocketAddr::new(bind, settings.bind_port))
}

fn set_multicast(socket: &Socket, to: SocketAddr, settings: &Settings) -> Result<(), OpenError> {
    let system = |what: &'static str| move |error| OpenError::System { what: what.into(), error };
    if to.is_ipv4() {
        socket.set_multicast_ttl_v4(settings.ttl_mc).map_err(system("set ttl-mc"))?;
        socket.set_multicast_loop_v4(settings.multicast_loop).map_err(system("set loop"))?;
    } else {
        socket.set_multicast_hops_v6(settings.ttl_mc).map_err(system("set ttl-mc"))?;
        socket.set_multicast_loop_v6(settings.multicast_loop).map_err(system("set loop"))?;
    }
    let Some(name) = &settings.multicast_iface else { return Ok(()) };
    let failed = |error| OpenError::Interface { name: name.clone(), error };
    let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| failed(error.into()))?;
    if to.is_ipv4() {
        let address = interface_address(name).map_err(failed)?;
        socket.set_multicast_if_v4(&address).map_err(failed)
    } else {
        socket.set_multicast_if_v6(index).map_err(failed)
    }
}

/// The first IPv4 address of an interface, by which the kernel knows it.
fn interface_address(name: &str) -> io::Result<Ipv4Addr> {
    nix::ifaddrs::getifaddrs()?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no IPv4 address"))
}

/// The receiver's address as the send calls want it.
pub(crate) fn storage(to: SocketAddr) -> SockaddrStorage {
    debug_assert!(SockaddrStorage::from(to).len() > 0);
    SockaddrStorage::from(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: &str) -> Settings {
        Settings { host: host.into(), port: 9, ..Settings::default() }
    }

    #[test]
    fn options_reach_the_socket() {
        let wanted = Settings { qos_dscp: 34, ttl: 7, buffer_size: 50_000, ..settings("127.0.0.1") };
        let opened = open(&wanted).unwrap();
        assert_eq!(opened.socket.tos_v4().unwrap(), 34 << 2);
        assert_eq!(opened.socket.ttl_v4().unwrap(), 7);
        assert_eq!(opened.socket.send_buffer_size().unwrap(), 100_000);
        assert!(opened.connected && opened.complaints.is_empty());
        let opened = open(&Settings { qos_dscp: 46, ttl: 9, ..settings("::1") }).unwrap();
        assert_eq!(opened.socket.tclass_v6().unwrap(), 46 << 2);
        assert_eq!(opened.socket.unicast_hops_v6().unwrap(), 9);
    }

    #[test]
    fn multicast_options_reach_the_socket() {
        let iface = Some("lo".to_owned());
        let wanted = Settings {
            ttl_mc: 3,
            multicast_loop: false,
            multicast_iface: iface.clone(),
            ..settings("239.1.2.3")
        };
        let opened = open(&wanted).unwrap();
        assert_eq!(opened.socket.multicast_ttl_v4().unwrap(), 3);
        assert!(!opened.socket.multicast_loop_v4().unwrap() && !opened.connected);
        assert_eq!(opened.socket.multicast_if_v4().unwrap(), Ipv4Addr::LOCALHOST);
        let wanted = Settings { ttl_mc: 4, multicast_iface: iface, ..settings("ff15::1") };
        let opened = open(&wanted).unwrap();
        assert_eq!(opened.socket.multicast_hops_v6().unwrap(), 4);
        assert!(opened.socket.multicast_loop_v6().unwrap());
        assert!(opened.socket.multicast_if_v6().unwrap() > 0);
    }

    #[test]
    fn family_and_bind_address() {
        let bound = Settings { bind_address: Some("127.0.0.2".into()), ..settings("127.0.0.1") };
        let from = open(&bound).unwrap().socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.2");
        let words = |settings: &Settings| open(settings).unwrap_err().to_string();
        let six = Settings { socket_family: SocketFamily::Ipv6, ..settings("127.0.0.1") };
        assert!(words(&six).contains("no IPv6 address"));
        let mixed = Settings { bind_address: Some("::1".into()), ..settings("127.0.0.1") };
        assert!(words(&mixed).contains("different IP versions"));
        let garbage = Settings { bind_address: Some("eth0".into()), ..settings("127.0.0.1") };
        assert!(words(&garbage).contains("no IP address"));
        let iface = Settings { multicast_iface: Some("nosuch0".into()), ..settings("239.1.2.3") };
        assert!(words(&iface).contains("nosuch0"));
        assert!(words(&settings("no such host")).contains("no such host"));
        assert!(open(&settings("[::1]")).unwrap().to.is_ipv6());
    }
}
