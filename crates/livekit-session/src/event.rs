// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a session tells its observer.

use std::time::Duration;

use crate::data::ReceivedData;
use crate::error::{Error, PublishError};
use crate::gop_cache::GopTooLong;

/// Identifies a track within its session; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub(crate) u64);

/// Where a session's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConnectionState {
    /// Not started, or ended by [`crate::Session::leave`].
    #[default]
    Disconnected,
    /// Joining for the first time, or waiting to try again.
    Connecting,
    /// In the room; the frames of a track go out from its [`Event::Published`] on.
    Connected,
    /// Was in the room, lost it, and is coming back.
    Reconnecting,
    /// Ended by an error.
    Failed,
}

/// The room as it was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomInfo {
    /// The room's name.
    pub name: String,
    /// The room's id.
    pub sid: String,
    /// This participant's identity.
    pub identity: String,
    /// This participant's id.
    pub participant_sid: String,
    /// The server's version.
    pub server_version: String,
}

/// Another participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its identity.
    pub identity: String,
    /// Its id.
    pub sid: String,
    /// Its display name.
    pub name: String,
}

/// The server's opinion of this participant's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionQuality {
    /// Loss or delay that viewers notice.
    Poor,
    /// Usable.
    Good,
    /// No trouble.
    Excellent,
    /// The server hears nothing.
    Lost,
}

/// How a keyframe was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframeReason {
    /// RTCP picture loss indication (RFC 4585 §6.3.1).
    Pli,
    /// RTCP full intra request (RFC 5104 §4.3.1).
    Fir,
    /// The session's own: first frame after (re)connecting.
    Start,
    /// The session's own: frames had to be dropped.
    Dropped,
    /// The session's own: an earlier request was not answered in time.
    Repeat,
    /// The session's own: frames are needed again, after nobody watched or the track was muted.
    Resumed,
}

/// A quality level of the server's subscription feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Lowest layer.
    Low,
    /// Middle layer.
    Medium,
    /// Highest layer.
    High,
}

impl Quality {
    /// What a layer is called of a track with so many, from low to high: LiveKit's servers expect a single
    /// stream to be HIGH, and two to be LOW and MEDIUM.
    pub(crate) fn of_layer(layer: usize, layers: usize) -> Self {
        match (layer, layers) {
            (_, 0 | 1) => Self::High,
            (0, _) => Self::Low,
            (1, _) => Self::Medium,
            _ => Self::High,
        }
    }
}

/// What an encoder should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it should make, in bit/s.
    pub bitrate: u32,
    /// False = nobody needs frames now, and none are sent.
    pub active: bool,
    /// What brought the change about.
    pub reason: TargetReason,
}

/// Why an encoder's [`Target`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetReason {
    /// Nothing is known of the network yet.
    Start,
    /// The network carries more or less than before.
    Estimate,
    /// The network does not carry even the lowest bitrate of this layer beside the others.
    Congestion,
    /// Nobody subscribes.
    Unwatched,
    /// The track is muted.
    Muted,
    /// Frames are needed again.
    Resumed,
}

/// Something happened. Delivered in order, from the session's own thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An attempt to join begins; counts from 1 since the last time in the room.
    Connecting {
        /// The server, without credentials.
        url: String,
        /// Number of this attempt.
        attempt: u32,
    },
    /// The room is joined.
    Joined(RoomInfo),
    /// Somebody with the right to do so moved this participant into another room, with all its tracks.
    Moved(RoomInfo),
    /// A track can be subscribed to, and its frames are sent from now on.
    Published {
        /// The track.
        track: TrackId,
        /// The id that the server gave it.
        sid: String,
        /// Its name.
        name: String,
        /// Its media type.
        mime_type: String,
    },
    /// A track is no longer published.
    Unpublished {
        /// The track.
        track: TrackId,
        /// The id that it had.
        sid: String,
    },
    /// A track could not be published; the other tracks go on.
    PublishFailed {
        /// The track.
        track: TrackId,
        /// Why.
        reason: PublishError,
    },
    /// The server did not take our name, metadata or attributes: the token lacks the grant
    /// `canUpdateOwnMetadata`.
    MetadataRefused {
        /// What the server said.
        reason: String,
    },
    /// Data packets are taken by the network from now on, and come in. Told only if data is wanted; the packets
    /// that were given before wait for it.
    DataReady,
    /// Another participant sent a packet of bytes.
    DataReceived(ReceivedData),
    /// A keyframe is wanted.
    KeyframeRequest {
        /// The track.
        track: TrackId,
        /// Which of its layers, from 0.
        layer: usize,
        /// Who asks.
        reason: KeyframeReason,
        /// Whether the encoder is to be asked now. False = folded into a request that is still
        /// unanswered or too recent; of those only the first after a forwarded one is told.
        forward: bool,
    },
    /// The encoder of a layer leaves keyframe requests unanswered. Told once a track.
    KeyframesIgnored {
        /// The track.
        track: TrackId,
        /// Which of its layers, from 0.
        layer: usize,
    },
    /// A request was answered by sending the current group of pictures again.
    GopReplayed {
        /// The track.
        track: TrackId,
        /// Which of its layers, from 0.
        layer: usize,
        /// How many frames.
        frames: usize,
        /// How long live frames wait behind them at most, as far as the network is known.
        takes: Duration,
    },
    /// A group of pictures does not fit into the cache: who begins to watch may have to wait for the next
    /// keyframe. Told once a track.
    GopTooLong {
        /// The track.
        track: TrackId,
        /// Which of its layers, from 0.
        layer: usize,
        /// Which bound it does not fit into.
        bound: GopTooLong,
    },
    /// What the encoder of a layer should make changed.
    Target {
        /// The track.
        track: TrackId,
        /// Which of its layers, from 0.
        layer: usize,
        /// All that its encoder needs to know.
        target: Target,
    },
    /// A track was muted or unmuted.
    Muted {
        /// The track.
        track: TrackId,
        /// What it is now.
        muted: bool,
        /// By the server, for somebody with the right to; else by [`crate::Track::set_muted`].
        by_server: bool,
    },
    /// A new estimate of what the network carries for all tracks together, in bit/s.
    BandwidthEstimate(u64),
    /// Which qualities of a track anybody subscribes to.
    SubscribedQuality {
        /// The track.
        track: TrackId,
        /// Media type and the qualities that are wanted of it.
        qualities: Vec<(Quality, bool)>,
    },
    /// Somebody is in the room.
    ParticipantJoined(Participant),
    /// Somebody left.
    ParticipantLeft(Participant),
    /// The server's opinion of our connection changed.
    ConnectionQuality {
        /// In words.
        quality: ConnectionQuality,
        /// As a score from 0 to 5.
        score: f32,
    },
    /// The connection was interrupted, and an attempt begins to go on as before: same participant, same tracks. As
    /// long as only signalling is gone, frames go out as ever. Followed by [`Event::Resumed`], by the next attempt, or
    /// by [`Event::Offline`] (or [`Event::Disconnected`]) if the stay is over.
    Resuming {
        /// What was lost.
        reason: Error,
        /// Number of this attempt, from 1.
        attempt: u32,
    },
    /// The stay goes on as before.
    Resumed {
        /// How long no frame went out; zero if only signalling was gone.
        interrupted: Duration,
    },
    /// Not in the room; another attempt follows.
    Offline {
        /// Why.
        reason: Error,
        /// The failed attempt, from 1; 0 if a connection that had lasted was lost. Being in the room for
        /// less than five seconds, or without getting a track published, is a failed attempt.
        attempt: u32,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// The state changed.
    StateChanged(ConnectionState),
    /// The session ended and will not come back. `None` = by [`crate::Session::leave`].
    Disconnected(Option<Error>),
}

/// Receives a session's events.
pub trait Observer: Send + Sync + 'static {
    /// Called in order on the session's thread, which also drives the network: it must not block.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: Event) {
        self(event);
    }
}
