// SPDX-License-Identifier: MIT OR Apache-2.0

//! The relays that a server names: TURN URIs (RFC 7065) and their credentials. Pure.

use std::fmt;

use livekit_protocol as proto;

use crate::config::Secret;
use crate::stats::TransportPath;

/// Of the relays in a join response, the first so many are used.
const MAX_SERVERS: usize = 8;

/// How a relay is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum RelayProtocol {
    Udp,
    Tcp,
    Tls,
}

impl RelayProtocol {
    pub(in super::super) fn path(self) -> TransportPath {
        match self {
            Self::Udp => TransportPath::RelayUdp,
            Self::Tcp => TransportPath::RelayTcp,
            Self::Tls => TransportPath::RelayTls,
        }
    }
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct RelayServer {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: RelayProtocol,
    pub(super) username: Secret,
    pub(super) credential: Secret,
}

impl fmt::Display for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, transport) = match self.protocol {
            RelayProtocol::Udp => ("turn", "udp"),
            RelayProtocol::Tcp => ("turn", "tcp"),
            RelayProtocol::Tls => ("turns", "tcp"),
        };
        if self.host.contains(':') {
            write!(f, "{scheme}:[{}]:{}?transport={transport}", self.host, self.port)
        } else {
            write!(f, "{scheme}:{}:{}?transport={transport}", self.host, self.port)
        }
    }
}

/// The relays among a join response's ICE servers. What is no TURN URI, or one that can't be used (TURN over DTLS), is
/// left out.
pub(in super::super) fn relays(servers: &[proto::IceServer]) -> Vec<RelayServer> {
    let all = servers.iter().flat_map(|server| {
        server.urls.iter().filter_map(|url| {
            let (protocol, host, port) = parse(url)?;
            let (username, credential) =
                (Secret::new(server.username.as_str()), Secret::new(server.credential.as_str()));
            Some(RelayServer { host, port, protocol, username, credential })
        })
    });
    let mut found: Vec<RelayServer> = Vec::new();
    for server in all {
        if found.len() < MAX_SERVERS && !found.contains(&server) {
            found.push(server);
        }
    }
    found
}

fn parse(uri: &str) -> Option<(RelayProtocol, String, u16)> {
    let (scheme, rest) = uri.split_once(':')?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "turn" => false,
        "turns" => true,
        _ => return None,
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let transport = query.split('&').find_map(|pair| pair.strip_prefix("transport="));
    let protocol = match (secure, transport.map(str::to_ascii_lowercase).as_deref()) {
        (false, None | Some("udp")) => RelayProtocol::Udp,
        (false, Some("tcp")) => RelayProtocol::Tcp,
        (true, None | Some("tcp")) => RelayProtocol::Tls,
        _ => return None,
    };
    let (host, port) = match address.strip_prefix('[') {
        Some(literal) => {
            let (host, port) = literal.split_once(']')?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, Some("")),
        },
    };
    let port = match port? {
        "" if secure => 5349,
        "" => 3478,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.len() <= 253 && host.chars().all(allowed))
        .then(|| (protocol, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_as_their_rfc_says() {
        use RelayProtocol as P;
        let good = [
            ("turn:example.org", P::Udp, "example.org", 3478),
            ("turn:example.org?transport=udp", P::Udp, "example.org", 3478),
            ("TURN:10.0.0.1:3479?transport=TCP", P::Tcp, "10.0.0.1", 3479),
            ("turns:example.org", P::Tls, "example.org", 5349),
            ("turns:example.org:443?transport=tcp", P::Tls, "example.org", 443),
            ("turn:[2001:db8::1]:3478?transport=udp", P::Udp, "2001:db8::1", 3478),
            ("turns:[2001:db8::1]", P::Tls, "2001:db8::1", 5349),
        ];
        for (uri, protocol, host, port) in good {
            assert_eq!(parse(uri), Some((protocol, host.to_owned(), port)), "{uri}");
        }
        for bad in [
            "",
            "turn",
            "turn:",
            "stun:example.org",
            "turns:example.org?transport=udp",
            "turn:h:0",
            "turn:h:65536",
            "turn:h:x",
            "turn:[::1",
            "turn:[::1]x",
            "turn:a b",
            "turn:h?transport=sctp",
            "turn:user@host",
            "https://h",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn relays_are_taken_once_each_and_not_without_end() {
        let server = |urls: &[&str]| proto::IceServer {
            urls: urls.iter().map(|u| (*u).to_owned()).collect(),
            username: "user".into(),
            credential: "topsecret".into(),
        };
        let found = relays(&[server(&["stun:a", "turn:a", "turn:a"]), server(&["turns:[::1]:443"])]);
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["turn:a:3478?transport=udp", "turns:[::1]:443?transport=tcp"]);
        assert!(!format!("{found:?}").contains("topsecret") && !format!("{found:?}").contains("user\""));
        let many: Vec<String> = (1..100).map(|n| format!("turn:h{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(relays(&[server(&many)]).len(), MAX_SERVERS);
    }
}
