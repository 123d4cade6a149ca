// SPDX-License-Identifier: MIT OR Apache-2.0

//! The engine's side of congestion control: what str0m's estimator shows, and the handles by which it is steered.
//!
//! str0m averages the estimate that it reports over three seconds; its statistics carry the raw value. So they are
//! taken at the controller's pace, and most of what else they contain is looked at only every so often.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::stats::PeerStats;

use super::WebRtcEngine;
use crate::congestion::Sample;
use crate::engine::{EngineEvent, TransportStats};

/// How often what changes slowly is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// What is kept for retransmission, packets and age: str0m's own measures.
const RTX_PACKETS: usize = 2000;
const RTX_AGE: Duration = Duration::from_secs(3);
/// The part of a second's bytes that retransmissions may be, once the path has been congested. With str0m's own 0.15 a
/// stream that had to become small forgets what is missing of its keyframe, and the viewer waits for three seconds.
const RTX_RATIO: f32 = 0.5;
/// Before the driver says what is wanted: a track without a known limit has the estimator look for this.
const DEFAULT_DESIRED: u64 = 2_500_000;
const AUDIO_DESIRED: u64 = 64_000;

/// What the engine remembers for it.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    /// Bitrate that the estimator is told to look for.
    desired: u64,
    reported: Option<Instant>,
    /// The statistics of tracks that str0m gives now are to be reported.
    pub(super) report_tracks: bool,
}

impl WebRtcEngine {
    pub(super) fn on_peer_stats(&mut self, stats: PeerStats) {
        let estimate = stats.bwe_tx.map(|b| b.as_u64());
        self.events.push_back(EngineEvent::Network(Sample {
            estimate,
            loss: stats.egress_loss_fraction,
            rtt: stats.rtt,
            bytes_sent: stats.bytes_tx,
        }));
        if let Some(pair) = &stats.selected_candidate_pair {
            self.on_path_stats(pair);
        }
        let now = Instant::now();
        let due = |at: Instant| {
            now.saturating_duration_since(at) + crate::congestion::SAMPLE_INTERVAL / 2 >= REPORT_INTERVAL
        };
        self.bandwidth.report_tracks = self.bandwidth.reported.is_none_or(due);
        if !self.bandwidth.report_tracks {
            return;
        }
        self.bandwidth.reported = Some(now);
        self.events.extend(estimate.map(EngineEvent::BandwidthEstimate));
        let pair = stats.selected_candidate_pair.as_ref();
        self.events.push_back(EngineEvent::TransportStats(TransportStats {
            rtt: stats.rtt.or_else(|| pair?.current_round_trip_time),
            path: pair.map(|pair| self.path(pair)),
            estimate,
            sent: self.transport.counters(),
        }));
    }

    /// What to look for before anything is sent: the first probes go out as soon as there is a connection.
    pub(super) fn initial_desired_bitrate(&mut self) {
        let wanted: u64 = self
            .publications
            .configs()
            .map(|config| {
                let max: u64 = config.layers.iter().map(|l| u64::from(l.max_bitrate)).sum();
                match (config.codec.is_video(), max) {
                    (true, 0) => DEFAULT_DESIRED,
                    (true, max) => max,
                    (false, _) => AUDIO_DESIRED,
                }
            })
            .sum();
        self.desire(crate::congestion::desired(wanted));
    }

    pub(super) fn desire(&mut self, bitrate: u64) {
        if bitrate != self.bandwidth.desired && self.closed_by_server.is_none() {
            self.bandwidth.desired = bitrate;
            self.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(bitrate));
            self.pump();
        }
    }

    pub(super) fn reset_estimator(&mut self, bitrate: u64) {
        if self.closed_by_server.is_none() {
            self.rtc.bwe().reset(Bitrate::bps(bitrate));
            self.pump();
        }
    }

    /// Forgets what could be sent again, and with it what is waiting to be.
    pub(super) fn forget_retransmissions(&mut self) {
        let streams: Vec<_> = self.publications.streams().collect();
        for (mid, rid) in streams {
            if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, rid) {
                stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, Some(RTX_RATIO));
            }
        }
        if self.closed_by_server.is_none() {
            self.pump();
        }
    }

    /// Bytes that the pacer holds back, as of its last turn.
    pub(super) fn paced_bytes(&mut self) -> usize {
        let streams: Vec<_> = self.publications.streams().collect();
        streams.into_iter().map(|(mid, rid)| self.stream_bytes(mid, rid) as usize).sum()
    }
}
