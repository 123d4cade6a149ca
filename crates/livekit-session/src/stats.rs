// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counters of a session and its tracks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::data::DataStats;
use crate::event::{ConnectionQuality, ConnectionState, TrackId};
use crate::frame::{DropReason, Outcome};
use crate::keyframe::KeyframeStats;

/// How media reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportPath {
    /// UDP, straight to the server.
    Udp,
    /// TCP, straight to the server, where UDP does not pass.
    Tcp,
    /// A relay (TURN) that is spoken to by UDP.
    RelayUdp,
    /// A relay that is spoken to by TCP.
    RelayTcp,
    /// A relay that is spoken to by TLS.
    RelayTls,
}

impl TransportPath {
    /// A short name: `udp`, `tcp`, `relay-udp`, `relay-tcp` or `relay-tls`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::RelayUdp => "relay-udp",
            Self::RelayTcp => "relay-tcp",
            Self::RelayTls => "relay-tls",
        }
    }
}

/// A snapshot of a session.
#[derive(Clone, Debug, Default)]
pub struct SessionStats {
    /// Where the connection stands.
    pub state: ConnectionState,
    /// The room that was joined last, or that the participant was moved into since.
    pub room: Option<String>,
    /// How media reaches the server; `None` until that is known.
    pub transport: Option<TransportPath>,
    /// Round-trip time of the media path.
    pub rtt: Option<Duration>,
    /// Estimate of what the network carries, in bit/s.
    pub bandwidth_estimate: Option<u64>,
    /// Bytes of all datagrams sent.
    pub bytes_sent: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// System calls that sent them.
    pub send_calls: u64,
    /// Datagrams that the kernel did not take.
    pub send_errors: u64,
    /// Sockets on which the kernel or the network card refused to cut a message into datagrams (UDP generic
    /// segmentation offload): there a frame's packets cost more CPU time.
    pub segmentation_refused: u64,
    /// How often the room was joined again after it had been lost.
    pub reconnects: u32,
    /// How often a connection that was interrupted went on as before.
    pub resumes: u32,
    /// How long altogether no frame could be sent, since the room was joined first.
    pub offline: Duration,
    /// Signalling messages that were not taken because they are none of the protocol, or hold what cannot be read.
    pub signalling_malformed: u64,
    /// … because they are larger, or have more parts, than any that a server has cause to send.
    pub signalling_too_large: u64,
    /// … because they are of a kind that is not known here; a newer server may send such.
    pub signalling_unknown: u64,
    /// The server's opinion of our connection, since it has one.
    pub quality: Option<ConnectionQuality>,
    /// From the start of the session to the first join.
    pub time_to_join: Option<Duration>,
    /// Counters of data packets.
    pub data: DataStats,
    /// One entry for each layer of each track, in that order.
    pub tracks: Vec<TrackStats>,
}

/// A snapshot of one layer of a track. Counters run over the track's whole life, reconnects included.
#[derive(Clone, Debug, Default)]
pub struct TrackStats {
    /// The track; `None` in a default value only.
    pub track: Option<TrackId>,
    /// Which of the track's layers, from 0.
    pub layer: usize,
    /// The id that the server gave it, while it is published.
    pub sid: Option<String>,
    /// Frames handed to the transport.
    pub frames_sent: u64,
    /// Payload bytes of those frames.
    pub bytes_sent: u64,
    /// Keyframes among them.
    pub keyframes_sent: u64,
    /// Frames dropped, one entry a reason, in the order of [`DropReason::ALL`].
    pub frames_dropped: [u64; DropReason::ALL.len()],
    /// RTP packets sent, retransmissions included, since the last (re)connect.
    pub packets_sent: u64,
    /// Packets sent again because the server asked for them.
    pub retransmits: u64,
    /// Datagrams of the stream that carries retransmissions (RFC 4588): with what is asked for go packets that are repeated,
    /// or empty, to see how much the network carries.
    pub rtx_packets: u64,
    /// Their bytes.
    pub rtx_bytes: u64,
    /// Picture loss indications received.
    pub pli: u64,
    /// Full intra requests received.
    pub fir: u64,
    /// Negative acknowledgements received.
    pub nack: u64,
    /// Keyframe requests, and what became of them.
    pub keyframes: KeyframeStats,
    /// Round-trip time of the stream's packets, from the server's last receiver report of this stay; `None` before it.
    pub rtt: Option<Duration>,
    /// How unevenly packets arrive at the server, from its last receiver report of this stay (RFC 3550 §6.4.1).
    pub jitter: Option<Duration>,
    /// Share of packets lost between us and the server, 0..1, from its last receiver report of this stay.
    pub loss: Option<f32>,
    /// Packets that the server has not got at first, by its receiver reports.
    pub packets_lost: u64,
    /// Payload bytes waiting to be sent.
    pub queued_bytes: u64,
    /// The longest that something waited for the network within the last half second: frames in the queue, and
    /// packets in the pacer behind it.
    pub queue_time: Duration,
    /// What the encoder was told last to make, in bit/s, if it was told a number; 0 = nothing.
    pub target_bitrate: Option<u32>,
    /// From the session's start to the first frame handed to the transport.
    pub time_to_first_frame: Option<Duration>,
}

impl TrackStats {
    /// All dropped frames together.
    pub fn frames_dropped_total(&self) -> u64 {
        self.frames_dropped.iter().sum()
    }
}

/// The counters that the writing thread keeps.
#[derive(Debug, Default)]
pub(crate) struct TrackCounters {
    frames: AtomicU64,
    bytes: AtomicU64,
    keyframes: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl TrackCounters {
    pub(crate) fn count(&self, outcome: Outcome, bytes: usize, keyframe: bool) {
        match outcome {
            Outcome::Sent | Outcome::Queued => {
                self.frames.fetch_add(1, Relaxed);
                self.bytes.fetch_add(bytes as u64, Relaxed);
                if keyframe {
                    self.keyframes.fetch_add(1, Relaxed);
                }
            }
            Outcome::Dropped(reason) => {
                let slot = DropReason::ALL.iter().position(|r| *r == reason);
                if let Some(counter) = slot.and_then(|i| self.dropped.get(i)) {
                    counter.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Frames, some of them keyframes, that were counted as sent did not go out after all.
    pub(crate) fn retract(&self, frames: u64, keyframes: u64, bytes: u64, reason: DropReason) {
        self.frames.fetch_sub(frames, Relaxed);
        self.keyframes.fetch_sub(keyframes, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
        let slot = DropReason::ALL.iter().position(|r| *r == reason);
        if let Some(counter) = slot.and_then(|i| self.dropped.get(i)) {
            counter.fetch_add(frames, Relaxed);
        }
    }

    pub(crate) fn fill(&self, stats: &mut TrackStats) {
        stats.frames_sent = self.frames.load(Relaxed);
        stats.bytes_sent = self.bytes.load(Relaxed);
        stats.keyframes_sent = self.keyframes.load(Relaxed);
        for (to, from) in stats.frames_dropped.iter_mut().zip(&self.dropped) {
            *to = from.load(Relaxed);
        }
    }
}
