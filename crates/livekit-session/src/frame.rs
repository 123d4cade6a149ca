// SPDX-License-Identifier: MIT OR Apache-2.0

//! One encoded frame, and what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::bitstream;
use crate::config::Codec;

/// One encoded frame: a whole access unit of video, or one packet of audio.
#[derive(Clone)]
pub struct Frame {
    /// The payload, in the form that [`Codec`] describes.
    pub data: Arc<[u8]>,
    /// Time on the media's own timeline, common to all tracks of a session; becomes the RTP timestamp.
    pub media_time: Duration,
    /// When the frame was captured, on the monotonic clock; goes into the RTCP sender reports, from which a
    /// receiver synchronises sound and picture.
    pub captured_at: Instant,
    /// When the frame was captured by the wall clock, if the source said so; else it follows from `captured_at`.
    /// Sent with the frame (absolute-capture-time), for viewers who measure the delay.
    pub capture_time: Option<SystemTime>,
}

impl Frame {
    /// Whether decoding can start here: a keyframe (H.264: IDR; H.265: any random access point; AV1: with its
    /// sequence header), or any packet of audio.
    pub fn is_keyframe(&self, codec: Codec) -> bool {
        bitstream::inspect(codec, &self.data).keyframe
    }
}

impl Frame {
    /// The same frame, later on the timeline.
    pub(crate) fn later(self, by: Duration) -> Self {
        Self { media_time: self.media_time.saturating_add(by), ..self }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.data.len())
            .field("media_time", &self.media_time)
            .finish()
    }
}

/// What [`crate::Track::write`] did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Handed to the transport.
    Sent,
    /// Held until the transport takes it; it goes out unless the track is closed before.
    Queued,
    /// Not sent, and never will be.
    Dropped(DropReason),
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The room is not (or no longer) joined, or the track is not published yet.
    NotConnected,
    /// A frame before it is missing, so this one can't be decoded; a keyframe has been asked for.
    WaitingForKeyframe,
    /// The network takes less than the encoder makes, and the queue is full.
    QueueFull,
    /// The track was closed.
    Closed,
    /// The frame has no bytes.
    Empty,
    /// The frame is larger than [`MAX_FRAME_BYTES`].
    TooLarge,
    /// Nobody subscribes to the track, or to this layer of it.
    Unwatched,
    /// The track is muted.
    Muted,
}

/// The largest frame that is sent: 8 MiB, several times a 4K keyframe.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

impl DropReason {
    /// All reasons, in the order in which statistics list them.
    pub const ALL: [DropReason; 8] = [
        Self::NotConnected,
        Self::WaitingForKeyframe,
        Self::QueueFull,
        Self::Closed,
        Self::Empty,
        Self::TooLarge,
        Self::Unwatched,
        Self::Muted,
    ];

    /// A short name in lower case with dashes, for statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::WaitingForKeyframe => "waiting-for-keyframe",
            Self::QueueFull => "queue-full",
            Self::Closed => "closed",
            Self::Empty => "empty",
            Self::TooLarge => "too-large",
            Self::Unwatched => "unwatched",
            Self::Muted => "muted",
        }
    }
}
