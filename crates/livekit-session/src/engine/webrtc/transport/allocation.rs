// SPDX-License-Identifier: MIT OR Apache-2.0

//! An address on a relay (TURN, RFC 8656), without I/O and with time as an argument.
//!
//! It asks for the address, for permission to talk to each peer that something is sent to, and then for a channel to it,
//! and keeps all of them alive. Over TCP and TLS whole messages are exchanged as over UDP (what frames them is
//! `framing.rs`), only that nothing has to be sent twice.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::{DelayedTransmitBuild, TurnClientApi};
use turn_client_proto::types::{AddressFamily, Instant as TurnInstant, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

/// Peers that are talked to: a media server has a handful of addresses.
const MAX_PEERS: usize = 16;
/// Datagrams that wait for the permission to send them; ICE's first checks.
const MAX_WAITING: usize = 16;
/// Requests over UDP are sent again after this, then after twice as long each.
const FIRST_RETRANSMIT: Duration = Duration::from_millis(300);
const MAX_RETRANSMIT: Duration = Duration::from_millis(1500);
const RETRANSMITS: u32 = 6;
/// How long the last one, or the only one over TCP, is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long the relay may take to give an address.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(12);
/// Of one [`Allocation::poll`].
const MAX_ROUNDS: usize = 16;
/// So that a client that wants to be called at once, always, does not keep the thread busy.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// See the module's documentation.
pub(super) struct Allocation {
    client: TurnClientUdp,
    local: SocketAddr,
    server: SocketAddr,
    begin: Instant,
    relayed: Option<SocketAddr>,
    failed: bool,
    peers: Vec<SocketAddr>,
    waiting: Vec<(SocketAddr, Vec<u8>)>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be called again then, if nothing happens before.
    Until(Instant),
    /// The relay refused, or is gone.
    Over,
}

impl Allocation {
    /// `reliable` = the way to the relay loses nothing. `family`: of the address that is asked for.
    pub(super) fn new(
        (local, server): (SocketAddr, SocketAddr),
        (username, credential): (&str, &str),
        family: IpAddr,
        reliable: bool,
        now: Instant,
    ) -> Self {
        let mut config = TurnConfig::new(TurnCredentials::new(username, credential));
        config.set_address_family(if family.is_ipv4() { AddressFamily::IPV4 } else { AddressFamily::IPV6 });
        if reliable {
            config.set_request_retransmits(PATIENCE, PATIENCE, 1, PATIENCE);
        } else {
            config.set_request_retransmits(FIRST_RETRANSMIT, MAX_RETRANSMIT, RETRANSMITS, PATIENCE);
        }
        Self {
            client: TurnClientUdp::allocate(local, server, config),
            local,
            server,
            begin: now,
            relayed: None,
            failed: false,
            peers: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The address on the relay, once there is one.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Sends what is due, and says when to come back. To be called after everything else.
    pub(super) fn poll(&mut self, now: Instant, mut send: impl FnMut(&[u8])) -> Standing {
        let at = self.turn_time(now);
        let mut until = now + PATIENCE;
        // What was sent or heard makes it want to be asked again at once, a few times.
        for _ in 0..MAX_ROUNDS {
            let standing = self.client.poll(at);
            let mut news = false;
            while let Some(transmit) = self.client.poll_transmit(at) {
                news = true;
                send(&transmit.data);
            }
            while let Some(event) = self.client.poll_event() {
                news = true;
                self.on_event(event, at, now, &mut send);
            }
            match standing {
                _ if self.failed => return Standing::Over,
                TurnPollRet::Closed => return Standing::Over,
                TurnPollRet::WaitUntil(at) => {
                    let nanos = u64::try_from(at.as_nanos()).unwrap_or(0);
                    until = self.begin + Duration::from_nanos(nanos);
                }
                // Of peers over TCP, which are never asked for.
                _ => {}
            }
            if !news {
                break;
            }
        }
        // The client has no end of its own where credentials are refused.
        let deadline = self.begin + ADDRESS_TIMEOUT;
        match self.relayed {
            None if now >= deadline => Standing::Over,
            None => Standing::Until(until.min(deadline).max(now + MIN_WAIT)),
            Some(_) => Standing::Until(until.max(now + MIN_WAIT)),
        }
    }

    fn on_event(&mut self, event: TurnEvent, at: TurnInstant, now: Instant, send: &mut impl FnMut(&[u8])) {
        match event {
            TurnEvent::AllocationCreated(TransportType::Udp, address) => self.relayed = Some(address),
            TurnEvent::AllocationCreateFailed(_) => self.failed = true,
            TurnEvent::PermissionCreated(_, ip) => {
                for peer in self.peers.clone().into_iter().filter(|peer| peer.ip() == ip) {
                    // Without a channel each datagram carries 36 bytes more.
                    let _ = self.client.bind_channel(TransportType::Udp, peer, at);
                }
                let (allowed, waiting) =
                    std::mem::take(&mut self.waiting).into_iter().partition(|(peer, _)| peer.ip() == ip);
                self.waiting = waiting;
                let mut message = Vec::new();
                for (peer, datagram) in allowed {
                    if self.wrap(peer, &datagram, now, &mut message) {
                        send(&message);
                    }
                }
            }
            TurnEvent::PermissionCreateFailed(_, ip) => {
                tracing::debug!(%ip, "the relay does not let us talk to this address");
                self.waiting.retain(|(peer, _)| peer.ip() != ip);
                self.peers.retain(|peer| peer.ip() != ip);
            }
            _ => {}
        }
    }

    /// Writes what the relay has to be sent for a peer to get this datagram. False = nothing, for now or at all.
    pub(super) fn wrap(
        &mut self,
        peer: SocketAddr,
        datagram: &[u8],
        now: Instant,
        message: &mut Vec<u8>,
    ) -> bool {
        let at = self.turn_time(now);
        if !self.peers.contains(&peer) && !self.add_peer(peer, at) {
            return false;
        }
        if let Ok(Some(built)) = self.client.send_to(TransportType::Udp, peer, datagram, at) {
            message.clear();
            message.resize(built.data.len(), 0);
            built.data.write_into(message);
            return true;
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push((peer, datagram.to_vec()));
        }
        false
    }

    fn add_peer(&mut self, peer: SocketAddr, at: TurnInstant) -> bool {
        let same_family = self.relayed.is_some_and(|relayed| relayed.is_ipv4() == peer.is_ipv4());
        if !same_family || self.peers.len() >= MAX_PEERS {
            return false;
        }
        if self.client.have_permission(TransportType::Udp, peer.ip()) {
            let _ = self.client.bind_channel(TransportType::Udp, peer, at);
        } else {
            let _ = self.client.create_permission(TransportType::Udp, peer.ip(), at);
        }
        self.peers.push(peer);
        true
    }

    /// Takes one message of the relay; if it carries a datagram of a peer, that is copied out: its length, and whose.
    pub(super) fn unwrap(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Option<(usize, SocketAddr)> {
        let at = self.turn_time(now);
        let transmit = Transmit::new(message, TransportType::Udp, self.server, self.local);
        let TurnRecvRet::PeerData(data) = self.client.recv(transmit, at) else { return None };
        let datagram = data.data();
        out.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some((datagram.len(), data.peer))
    }

    /// Gives the address back; [`Allocation::poll`] sends that.
    pub(super) fn delete(&mut self, now: Instant) {
        let _ = self.client.delete(self.turn_time(now));
    }

    fn turn_time(&self, now: Instant) -> TurnInstant {
        let elapsed = now.saturating_duration_since(self.begin).as_nanos();
        TurnInstant::from_nanos(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use turn_server_proto::api::{TurnServerApi, TurnServerPollRet};
    use turn_server_proto::server::TurnServer;

    const PEER: &str = "10.9.9.9:7882";
    const RELAYED: &str = "10.0.0.1:50000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A relay without I/O, with the time of the test.
    struct World {
        allocation: Allocation,
        server: TurnServer,
        begin: Instant,
        now: Instant,
        /// What the relay sent on: to whom, and what.
        relayed: Vec<(SocketAddr, Vec<u8>)>,
        /// What the allocation handed out.
        received: Vec<(SocketAddr, Vec<u8>)>,
        requests: usize,
        standing: Standing,
    }

    impl World {
        fn new(password: &str) -> Self {
            let (local, server) = (address("192.168.0.2:5000"), address("10.0.0.1:3478"));
            let begin = Instant::now();
            let mut relay = TurnServer::new(TransportType::Udp, server, "realm".into());
            relay.add_user("user".into(), "password".into());
            let family = local.ip();
            let allocation = Allocation::new((local, server), ("user", password), family, false, begin);
            let mut world = Self {
                allocation,
                server: relay,
                begin,
                now: begin,
                relayed: Vec::new(),
                received: Vec::new(),
                requests: 0,
                standing: Standing::Over,
            };
            world.settle();
            world
        }

        fn turn_time(&self) -> TurnInstant {
            TurnInstant::from_nanos((self.now - self.begin).as_nanos() as i64)
        }

        /// Lets both talk until they have nothing more to say for a while; requests are some milliseconds apart.
        fn settle(&mut self) {
            for _ in 0..100 {
                let mut sent = Vec::new();
                self.standing = self.allocation.poll(self.now, |message| sent.push(message.to_vec()));
                for message in &sent {
                    self.serve(message);
                }
                match self.standing {
                    _ if !sent.is_empty() => {}
                    Standing::Until(at) if at < self.now + Duration::from_millis(100) => self.now = at,
                    _ => return,
                }
            }
            panic!("they never end");
        }

        fn serve(&mut self, message: &[u8]) {
            self.requests += 1;
            let (at, from, to) = (self.turn_time(), self.allocation.local, self.allocation.server);
            let transmit = Transmit::new(message.to_vec(), TransportType::Udp, from, to);
            if let Some(out) = self.server.recv(transmit, at) {
                let out = out.build();
                self.deliver(out.to, out.data);
            }
            while let TurnServerPollRet::AllocateSocket {
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
            } = self.server.poll(at)
            {
                let socket = Ok(address(RELAYED));
                self.server.allocated_socket(
                    transport,
                    listen_addr,
                    client_addr,
                    allocation_transport,
                    family,
                    socket,
                    at,
                );
            }
            while let Some(out) = self.server.poll_transmit(at) {
                self.deliver(out.to, out.data);
            }
        }

        fn deliver(&mut self, to: SocketAddr, data: Vec<u8>) {
            if to != self.allocation.local {
                self.relayed.push((to, data));
                return;
            }
            let mut out = [0; 2048];
            if let Some((length, peer)) = self.allocation.unwrap(&data, self.now, &mut out) {
                self.received.push((peer, out[..length].to_vec()));
            }
        }

        /// Length of what the relay is sent, if anything is.
        fn send(&mut self, data: &[u8]) -> Option<usize> {
            let mut message = Vec::new();
            let wrapped = self.allocation.wrap(address(PEER), data, self.now, &mut message);
            if wrapped {
                self.serve(&message);
            }
            self.settle();
            wrapped.then_some(message.len())
        }

        fn answer(&mut self, data: &[u8]) {
            let transmit = Transmit::new(data.to_vec(), TransportType::Udp, address(PEER), address(RELAYED));
            let at = self.turn_time();
            if let Some(out) = self.server.recv(transmit, at) {
                let out = out.build();
                self.deliver(out.to, out.data);
            }
        }
    }

    #[test]
    fn an_address_is_given_and_carries_datagrams_both_ways() {
        let mut world = World::new("password");
        assert_eq!(world.allocation.relayed(), Some(address(RELAYED)));
        assert!(matches!(world.standing, Standing::Until(_)));
        assert_eq!(world.send(b"first"), None, "it waits for the permission");
        assert_eq!(world.relayed, [(address(PEER), b"first".to_vec())]);
        assert_eq!(world.send(b"second"), Some(4 + 6), "by a channel");
        assert_eq!(world.relayed[1..], [(address(PEER), b"second".to_vec())]);
        world.answer(b"answer");
        assert_eq!(world.received, [(address(PEER), b"answer".to_vec())]);
    }

    #[test]
    fn it_is_kept_alive_for_hours() {
        let mut world = World::new("password");
        world.send(b"first");
        let end = world.begin + Duration::from_secs(2 * 3600);
        let mut turns = 0;
        while world.now < end {
            let Standing::Until(at) = world.standing else {
                panic!("over after {:?}", world.now - world.begin)
            };
            world.now = at.max(world.now + Duration::from_millis(1));
            world.settle();
            turns += 1;
            assert!(turns < 10_000, "it spins");
        }
        assert!(world.send(b"later").is_some());
        world.answer(b"answer");
        assert_eq!(world.received, [(address(PEER), b"answer".to_vec())]);
        assert!(world.requests < 500, "{} requests", world.requests);
    }

    #[test]
    fn wrong_credentials_and_a_deleted_address_end_it() {
        let mut world = World::new("wrong");
        while let Standing::Until(at) = world.standing {
            world.now = at;
            world.settle();
            assert!(world.now - world.begin < Duration::from_secs(20), "it waits for ever");
        }
        assert_eq!(world.allocation.relayed(), None);
        assert!(world.requests < 20, "{} requests", world.requests);
        let mut world = World::new("password");
        world.allocation.delete(world.now);
        world.settle();
        assert_eq!(world.send(b"more"), None);
        assert!(world.relayed.is_empty());
    }

    #[test]
    fn a_relay_that_does_not_answer_is_given_up() {
        for (reliable, expected) in [(false, 2..=8), (true, 1..=1)] {
            let (begin, ends) = (Instant::now(), (address("192.168.0.2:5000"), address("10.0.0.1:3478")));
            let mut allocation = Allocation::new(ends, ("user", "password"), ends.0.ip(), reliable, begin);
            let (mut now, mut sent) = (begin, 0);
            while let Standing::Until(at) = allocation.poll(now, |_| sent += 1) {
                assert!(at > now, "it spins");
                now = at;
                assert!(now - begin < Duration::from_secs(20), "it waits for ever");
            }
            assert!(expected.contains(&sent), "{sent} requests, reliable: {reliable}");
        }
    }

    #[test]
    fn hostile_messages_are_ignored_and_peers_are_bounded() {
        let mut world = World::new("password");
        let mut out = [0; 64];
        for length in 0..200_usize {
            for first in [0_u8, 1, 0x40, 0x7f, 0x80, 0xff] {
                let message: Vec<u8> =
                    (0..length).map(|n| if n == 0 { first } else { (n * 37) as u8 }).collect();
                assert_eq!(world.allocation.unwrap(&message, world.now, &mut out), None);
            }
        }
        let mut message = Vec::new();
        for n in 0..200_u8 {
            let peer = SocketAddr::new(IpAddr::from([10, 1, 1, n]), 7882);
            world.allocation.wrap(peer, &[n; 100], world.now, &mut message);
        }
        assert_eq!((world.allocation.peers.len(), world.allocation.waiting.len()), (MAX_PEERS, MAX_WAITING));
        assert!(!world.allocation.wrap(address("[2001:db8::1]:7882"), b"x", world.now, &mut message));
    }
}
