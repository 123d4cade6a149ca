// SPDX-License-Identifier: MIT OR Apache-2.0

//! The addresses of this machine from which a server may be reached.

use std::io;
use std::net::IpAddr;

/// Sources of connections, at most, for each family: more interfaces than that are for other things.
const MAX_SOURCES: usize = 3;

/// All of them, the best first. `signalling` = the one that already reached the server; loopback is among them only if that
/// is one, as no other server could be reached from it.
pub(crate) fn usable(signalling: Option<IpAddr>) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?.into_iter().map(|i| i.ip()).collect();
    addresses.extend(signalling);
    let loopback = signalling.is_none_or(|ip| ip.is_loopback());
    addresses.retain(|ip| is_usable(*ip) && (loopback || !ip.is_loopback()));
    // The address that is known to work comes first.
    addresses.sort_by_key(|ip| (Some(*ip) != signalling, *ip));
    addresses.dedup();
    Ok(addresses)
}

/// One of each interface and family, for connections that are to leave by another interface than the one which the kernel
/// prefers. None where there is no choice.
pub(crate) fn sources() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    choose(interfaces.into_iter().map(|interface| (interface.name.clone(), interface.ip())))
}

fn choose(addresses: impl Iterator<Item = (String, IpAddr)>) -> Vec<IpAddr> {
    let mut chosen: Vec<(String, IpAddr)> = Vec::new();
    for (name, ip) in addresses.filter(|(_, ip)| is_usable(*ip) && !ip.is_loopback()) {
        let of_family = chosen.iter().filter(|(_, known)| known.is_ipv4() == ip.is_ipv4());
        let (mut count, mut known) = (0, false);
        for (other, _) in of_family {
            count += 1;
            known |= *other == name;
        }
        if !known && count < MAX_SOURCES {
            chosen.push((name, ip));
        }
    }
    let alone = |ip: IpAddr| chosen.iter().filter(|(_, other)| other.is_ipv4() == ip.is_ipv4()).count() < 2;
    chosen.iter().map(|(_, ip)| *ip).filter(|ip| !alone(*ip)).collect()
}

/// Not unspecified, not multicast, and not link-local IPv6, which needs a scope that candidates can't say.
pub(crate) fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && (v6.segments()[0] & 0xffc0) != 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &[(&str, &str)]) -> Vec<String> {
        let list = list.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()));
        choose(list).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn one_source_of_each_interface_where_there_is_a_choice() {
        let none: [String; 0] = [];
        let lo = [("lo", "127.0.0.1"), ("lo", "::1")];
        assert_eq!(chosen(&lo), none);
        let one = [
            lo[0],
            ("eth0", "192.0.2.1"),
            ("eth0", "192.0.2.2"),
            ("eth0", "2001:db8::1"),
            ("eth0", "fe80::1"),
        ];
        assert_eq!(chosen(&one), none, "nothing to choose from");
        let two = [&one[..], &[("wwan0", "198.51.100.1"), ("wwan0", "fe80::2")]].concat();
        assert_eq!(chosen(&two), ["192.0.2.1", "198.51.100.1"], "only one of them has IPv6");
        let both = [&two[..], &[("wwan0", "2001:db8:1::1"), ("wwan0", "2001:db8:1::2")]].concat();
        assert_eq!(chosen(&both), ["192.0.2.1", "2001:db8::1", "198.51.100.1", "2001:db8:1::1"]);
    }

    #[test]
    fn a_machine_with_many_interfaces_uses_some() {
        let many: Vec<_> = (0..50).map(|n| (format!("br{n}"), format!("192.0.2.{n}"))).collect();
        let many: Vec<_> = many.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
        assert_eq!(chosen(&many).len(), MAX_SOURCES);
    }
}
