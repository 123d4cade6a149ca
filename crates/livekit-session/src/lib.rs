// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes already-encoded video and audio into LiveKit rooms.
//!
//! A [`Session`] is one participant: it joins a room in the background, keeps coming back when the
//! connection is lost, and tells an [`Observer`] what happens. A [`Track`] takes encoded frames and answers
//! each with an [`Outcome`], without ever blocking. Nothing is decoded or encoded; what subscribers and the
//! network want of the encoder (a keyframe, another bitrate) comes out as [`Event`]s.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//! use livekit_session::{Codec, Credentials, Event, Frame, Session, SessionConfig, TrackConfig};
//!
//! let mut config = SessionConfig::new(
//!     "ws://127.0.0.1:7880",
//!     Credentials::ApiKey { key: "devkey".into(), secret: "secret".into() },
//! );
//! config.room = Some("workshop".into());
//! config.identity = Some("camera-1".into());
//! let session = Session::start(config, Arc::new(|event: Event| println!("{event:?}")))?;
//! let track = session.add_track(TrackConfig::new(Codec::H264, "front"));
//! // For every access unit that an encoder makes:
//! # let (access_unit, pts) = (vec![0u8; 4], Duration::ZERO);
//! let outcome = track.write(Frame {
//!     data: access_unit.into(),
//!     media_time: pts,
//!     captured_at: Instant::now(),
//!     capture_time: None,
//! });
//! println!("{outcome:?}");
//! # Ok::<(), livekit_session::Error>(())
//! ```
//!
//! All sessions of a process share one networking thread, which is started by the first of them.
#![forbid(unsafe_code)]

mod addresses;
pub mod backoff;
pub mod bitstream;
mod config;
mod congestion;
mod data;
mod driver;
mod e2ee;
mod engine;
mod error;
mod event;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gop_cache;
pub mod keyframe;
mod runtime;
mod session;
mod signal;
mod stats;

pub use config::{
    Codec, Credentials, Description, H264Profile, IceTransportPolicy, LayerConfig, Proxies, Secret,
    SessionConfig, TokenProvider, TrackConfig, TrackSource,
};
pub use data::{DataError, DataPacket, DataStats, MAX_DATA_BYTES, ReceivedData};
pub use e2ee::{E2ee, E2eeError, E2eeStats};
pub use error::{Error, LeaveReason, PublishError};
pub use event::{
    ConnectionQuality, ConnectionState, Event, KeyframeReason, Observer, Participant, Quality, RoomInfo,
    Target, TargetReason, TrackId,
};
pub use frame::{DropReason, Frame, MAX_FRAME_BYTES, Outcome};
pub use gop_cache::{GopCacheConfig, GopCacheMode, GopTooLong};
pub use keyframe::KeyframeStats;
pub use session::{Session, Track};
pub use stats::{SessionStats, TrackStats, TransportPath};
/// What [`SessionConfig::log`] is of, in the version that it has to be.
pub use tracing;
