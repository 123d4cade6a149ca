// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a session needs of a media engine, and the engine we have.
//!
//! An engine is one stay in a room: made by joining, gone when the connection is lost. Everything that
//! outlives a connection (retries, republishing, keyframe policy, counters) is the driver's.

pub(crate) mod webrtc;

use std::future::Future;
use std::time::{Duration, Instant};

use crate::config::{Description, Secret, SessionConfig, TrackConfig};
use crate::congestion::Sample;
use crate::data::{DataPacket, ReceivedData};
use crate::error::{Error, PublishError};
use crate::event::{ConnectionQuality, KeyframeReason, Participant, Quality, RoomInfo, TrackId};
use crate::frame::Frame;
use crate::stats::TransportPath;

/// What an engine reports.
#[derive(Debug)]
pub(crate) enum EngineEvent {
    Published {
        track: TrackId,
        sid: String,
        name: String,
        mime_type: String,
    },
    Unpublished {
        track: TrackId,
        sid: String,
    },
    PublishFailed {
        track: TrackId,
        reason: PublishError,
    },
    /// An attempt begins to go on with the stay, whose signalling or media path was lost.
    Resuming {
        reason: Error,
        attempt: u32,
    },
    /// The stay goes on as before.
    Resumed,
    /// Nothing of what is sent arrives any more.
    PathLost,
    /// What is sent arrives again.
    PathBack,
    /// We are in another room now, with all that is published.
    Moved(RoomInfo),
    /// The data channels opened, or closed.
    DataOpen(bool),
    /// A data channel that was full has room again.
    DataRoom,
    DataReceived(ReceivedData),
    /// Whether the server takes data from us.
    DataAllowed(bool),
    MetadataRefused {
        reason: String,
    },
    KeyframeRequest {
        track: TrackId,
        layer: usize,
        reason: KeyframeReason,
    },
    /// The server muted or unmuted a track of ours.
    Muted {
        track: TrackId,
        muted: bool,
    },
    /// What the network shows, every [`crate::congestion::SAMPLE_INTERVAL`].
    Network(Sample),
    BandwidthEstimate(u64),
    /// A track has got its first subscriber.
    FirstSubscriber {
        track: TrackId,
    },
    SubscribedQuality {
        track: TrackId,
        qualities: Vec<(Quality, bool)>,
    },
    ParticipantJoined(Participant),
    ParticipantLeft(Participant),
    ConnectionQuality {
        quality: ConnectionQuality,
        score: f32,
    },
    TransportStats(TransportStats),
    TrackStats {
        track: TrackId,
        layer: usize,
        stats: EngineTrackStats,
    },
}

/// Figures of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct TransportStats {
    pub(crate) rtt: Option<Duration>,
    pub(crate) path: Option<TransportPath>,
    pub(crate) estimate: Option<u64>,
    pub(crate) sent: SendCounters,
}

/// What became of the datagrams of one connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendCounters {
    /// Bytes that the kernel took.
    pub(crate) bytes: u64,
    /// Datagrams that the kernel took.
    pub(crate) datagrams: u64,
    /// System calls that took them.
    pub(crate) calls: u64,
    /// Datagrams that the kernel did not take. RTP treats them like loss on the way.
    pub(crate) errors: u64,
    /// Sockets on which segmentation was tried and refused.
    pub(crate) segmentation_refused: u64,
}

/// Figures of the RTP stream of one layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineTrackStats {
    pub(crate) packets: u64,
    pub(crate) retransmits: u64,
    pub(crate) rtx_packets: u64,
    pub(crate) rtx_bytes: u64,
    pub(crate) pli: u64,
    pub(crate) fir: u64,
    pub(crate) nack: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) jitter: Option<Duration>,
    pub(crate) loss: Option<f32>,
    pub(crate) lost: u64,
    pub(crate) queued_bytes: u64,
    /// The longest that a packet waited to be sent, since the last report.
    pub(crate) queue_time: Duration,
}

/// One stay in a room.
///
/// Calls come from one task, one after the other. `next` is cancel-safe and does all the networking, so it
/// must be polled whenever nothing else is going on.
pub(crate) trait MediaEngine: Sized + Send {
    /// Joins the room. Dropping the future gives up the attempt.
    fn join(
        config: &SessionConfig,
        token: &Secret,
    ) -> impl Future<Output = Result<(Self, RoomInfo), Error>> + Send;

    /// Where else the server can be reached, when `config` does not lead there.
    fn regions(config: &SessionConfig, token: &Secret) -> impl Future<Output = Vec<String>> + Send;

    /// Begins to publish; [`EngineEvent::Published`] or [`EngineEvent::PublishFailed`] follows.
    fn publish(&mut self, track: TrackId, config: &TrackConfig);

    /// Begins to unpublish; [`EngineEvent::Unpublished`] follows at once.
    fn unpublish(&mut self, track: TrackId);

    /// Sends a frame of a layer of a published track. An error is one of the connection; a track that can't be sent is
    /// reported by [`EngineEvent::PublishFailed`].
    fn write(&mut self, track: TrackId, layer: usize, frame: &Frame) -> Result<(), Error>;

    /// Opens the data channels, unless they are open or on their way; [`EngineEvent::DataOpen`] follows.
    fn want_data(&mut self);

    /// Sends a data packet; false = there is no room for it (or no channel) yet, and [`EngineEvent::DataRoom`] or
    /// [`EngineEvent::DataOpen`] follows.
    fn write_data(&mut self, packet: &DataPacket) -> bool;

    /// Changes what the participant shows of itself. A refusal is told by [`EngineEvent::MetadataRefused`].
    fn describe(&mut self, change: &Description);

    /// Waits for something to report. An error means that the connection is over.
    fn next(&mut self) -> impl Future<Output = Result<EngineEvent, Error>> + Send;

    /// Tells the server that a track is muted, or is no longer.
    fn set_muted(&mut self, track: TrackId, muted: bool);

    /// How long the oldest packet of a layer has been waiting to be sent.
    fn queue_age(&mut self, track: TrackId, layer: usize) -> Duration;

    /// Payload bytes that wait to be sent, all tracks together.
    fn queued_bytes(&mut self) -> usize;

    /// Tells the bandwidth estimator how much is worth looking for, in bit/s. Raising it above the estimate makes it
    /// probe.
    fn set_desired_bitrate(&mut self, bitrate: u64);

    /// Starts the bandwidth estimator anew from this, in bit/s.
    fn reset_estimate(&mut self, bitrate: u64);

    /// Sends nothing again of what was sent so far.
    fn drop_retransmissions(&mut self);

    /// Whether everything written has been sent.
    fn is_drained(&mut self) -> bool;

    /// A token that the server sent in place of the one we joined with.
    fn refreshed_token(&self) -> Option<Secret>;

    /// Where the server said to go when it sent us away, the best place first.
    fn suggested_regions(&self) -> Vec<String>;

    /// Leaves the room by `deadline`.
    fn leave(self, deadline: Instant) -> impl Future<Output = ()> + Send;
}
