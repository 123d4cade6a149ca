// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which ways to the server are tried, and when.
//!
//! UDP goes first and alone. What costs connections of its own (TCP, relays) begins when UDP has not connected for a
//! while; ICE's priorities then still prefer UDP, should it come after all, then TCP, then relays. When a path is
//! lost and ICE restarts (`resume.rs`), it begins like this again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use str0m::Candidate;
use str0m::net::{Protocol, TcpType};
use str0m::stats::CandidatePairStats;

use super::WebRtcEngine;
use super::transport::{RelayServer, relays};
use crate::config::{IceTransportPolicy, SessionConfig};
use crate::error::Error;
use crate::stats::TransportPath;

/// How long UDP is tried alone once both sides' candidates are known: some round trips of a slow network.
const HEAD_START: Duration = Duration::from_millis(500);
/// Of a server's addresses in an error message.
const MAX_SHOWN: usize = 6;

/// Addresses of the server's that are tried; one has a few for each of its networks.
const MAX_REMOTE: usize = 64;

/// What the engine remembers for it.
#[derive(Debug)]
pub(super) struct Paths {
    /// When other ways than UDP are tried, if there is no connection by then.
    pub(super) fallback_at: Option<Instant>,
    fallback: bool,
    policy: IceTransportPolicy,
    relays: Vec<RelayServer>,
    ca_file: Option<PathBuf>,
    /// Addresses of the server's that were taken since ICE began.
    taken: usize,
    /// The server's addresses, for messages.
    server: Vec<String>,
    /// ICE has a path.
    found: bool,
}

impl Paths {
    pub(super) fn new(join: &proto::JoinResponse, config: &SessionConfig) -> Self {
        let forced = join
            .client_configuration
            .as_ref()
            .is_some_and(|client| client.force_relay == proto::ClientConfigSetting::Enabled as i32);
        Self {
            fallback_at: None,
            fallback: false,
            policy: if forced { IceTransportPolicy::Relay } else { config.ice_transport_policy },
            relays: relays(&join.ice_servers),
            ca_file: config.tls_ca_file.clone(),
            taken: 0,
            server: Vec::new(),
            found: false,
        }
    }
}

/// Whether a candidate of the server's is one that we can use. It may not be connected to if it is itself the one that
/// connects (RFC 6544 §4.5).
pub(super) fn is_usable(candidate: &Candidate) -> bool {
    match candidate.proto() {
        Protocol::Udp => true,
        Protocol::Tcp => candidate.tcptype() == Some(TcpType::Passive),
        _ => false,
    }
}

impl WebRtcEngine {
    /// What is tried from the start.
    pub(super) fn open_paths(&mut self) -> Result<(), Error> {
        if self.paths.policy == IceTransportPolicy::All {
            for candidate in self.transport.udp_candidates() {
                self.add_local_candidate(candidate);
            }
            return Ok(());
        }
        if self.paths.relays.is_empty() {
            let reason = "only relays are to be used (ice-transport-policy), and the server names none (TURN) that can be";
            return Err(Error::MediaTransport(reason.into()));
        }
        self.open_relays();
        Ok(())
    }

    pub(super) fn add_local_candidate(&mut self, candidate: Candidate) {
        self.rtc.add_local_candidate(candidate);
        self.pump();
    }

    pub(super) fn add_remote_candidate(&mut self, candidate: Candidate) {
        // Each is tried from each of ours.
        if self.paths.taken >= MAX_REMOTE {
            return;
        }
        self.paths.taken += 1;
        if self.paths.server.len() < MAX_SHOWN {
            let protocol = if candidate.proto() == Protocol::Udp { "UDP" } else { "TCP" };
            self.paths.server.push(format!("{protocol} {}", candidate.addr()));
        }
        self.rtc.add_remote_candidate(candidate);
        self.pump();
    }

    /// ICE has begun.
    pub(super) fn give_udp_a_head_start(&mut self) {
        let looking = !self.connected || self.is_resuming();
        if !self.paths.fallback && looking && self.paths.policy == IceTransportPolicy::All {
            self.paths.fallback_at.get_or_insert(Instant::now() + HEAD_START);
        }
    }

    pub(super) fn on_ice_connected(&mut self) {
        self.paths.fallback_at = None;
        self.paths.found = true;
    }

    /// ICE begins once more, with all that is there already; what was not tried so far gets its turn again.
    pub(super) fn start_paths_anew(&mut self) {
        self.paths.server.clear();
        self.paths.taken = 0;
        self.paths.fallback_at = None;
        self.paths.fallback = false;
        self.paths.found = false;
    }

    /// UDP has had its time.
    pub(super) fn try_other_paths(&mut self, now: Instant) {
        if self.paths.fallback_at.is_none_or(|at| now < at) {
            return;
        }
        self.paths.fallback_at = None;
        self.paths.fallback = true;
        tracing::debug!("no connection by UDP so far; trying TCP and relays as well");
        for candidate in self.transport.tcp_candidates() {
            self.add_local_candidate(candidate);
        }
        self.open_relays();
    }

    fn open_relays(&mut self) {
        let servers = std::mem::take(&mut self.paths.relays);
        self.transport.open_relays(servers, self.paths.ca_file.as_ref());
    }

    pub(super) fn path(&self, pair: &CandidatePairStats) -> TransportPath {
        self.transport.path(pair.protocol, pair.local.addr)
    }

    /// Why there is no connection.
    pub(super) fn no_connection(&self) -> String {
        if self.connected && !self.is_resuming() {
            return "the network path to the server is gone".into();
        }
        if !self.connected && self.paths.found {
            return format!(
                "a path to the server was found, but no key was agreed on within {:?}: the DTLS handshake is not answered; \
                 does something on the way let STUN pass, but not DTLS?",
                self.connect_timeout,
            );
        }
        let server = match self.paths.server.as_slice() {
            [] => "the server named no address of its own".to_owned(),
            addresses => format!("the server's are {}", addresses.join(", ")),
        };
        let mut tried = Vec::new();
        if self.paths.policy == IceTransportPolicy::All {
            let from: Vec<_> = self.transport.udp_addresses().map(|a| a.ip().to_string()).collect();
            tried.push(format!("UDP from {}: no answer", from.join(", ")));
        }
        tried.extend(self.transport.tried());
        format!(
            "no path to the server within {:?}; tried {} ({server}); is its media port open and its node address \
             reachable?",
            self.connect_timeout,
            tried.join("; "),
        )
    }
}
