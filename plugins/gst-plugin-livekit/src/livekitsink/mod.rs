// SPDX-License-Identifier: MPL-2.0

//! The `livekitsink` element.
//!
//! SECTION:element-livekitsink
//!
//! `livekitsink` joins a LiveKit room and publishes what its pads are fed with, without decoding or encoding
//! it: H.264, H.265, VP8, VP9 or AV1 on `video_%u` pads, Opus on `audio_%u` pads. Raw sound is taken, too, and
//! becomes Opus inside. Whatever the room and the network want of the
//! encoder goes back upstream: a viewer who needs a picture becomes a `GstForceKeyUnit` event, what the network carries
//! a `GstTargetBitrate` event and the bitrate of the encoder, if it is a known one that feeds nobody else. While nobody
//! watches, or the pad is `muted`, nothing is sent, and the encoder is told so.
//!
//! What is no track goes to `data_%u` pads: each buffer (KLV, JSON, text) becomes a data packet for other
//! participants. Applications send such packets by the action signal `send-data` and hear those of others by
//! `data-received`.
//!
//! Server and credentials come from properties or, for those that are unset, from `LIVEKIT_URL`,
//! `LIVEKIT_TOKEN`, `LIVEKIT_API_KEY`, `LIVEKIT_API_SECRET` and `LIVEKIT_ROOM`. Prefer the environment: what
//! stands on a command line can be seen by every user of the machine.
//!
//! ## Example pipelines
//! Publish a moving test picture, with everything about the room in the environment:
//! ```console
//! gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency key-int-max=300 ! livekitsink
//! ```
//! A file's video and sound, still as they are in the file:
//! ```console
//! gst-launch-1.0 filesrc location=film.mkv ! matroskademux name=d \
//!     livekitsink name=room  d.video_0 ! queue ! room.video_0  d.audio_0 ! queue ! room.audio_0
//! ```
//! A picture, and the machine's load once a second as a data packet:
//! ```console
//! gst-launch-1.0 livekitsink name=room data_0::topic=load \
//!     videotestsrc is-live=true ! x264enc tune=zerolatency ! room.video_0 \
//!     multifilesrc location=/proc/loadavg caps=text/x-raw,format=utf8 ! identity sleep-time=1000000 ! room.data_0
//! ```
//! One track in two sizes, of which each viewer is sent what fits (simulcast): pads with the same `track` are its
//! layers.
//! ```console
//! gst-launch-1.0 videotestsrc is-live=true ! video/x-raw,width=1280,height=720 ! tee name=t \
//!     livekitsink name=room video_0::track=front video_1::track=front \
//!     t. ! queue ! x264enc tune=zerolatency bitrate=2000 ! room.video_0 \
//!     t. ! queue ! videoscale ! video/x-raw,width=320,height=180 ! x264enc tune=zerolatency bitrate=200 ! room.video_1
//! ```
//! Settings of one track:
//! ```console
//! gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency bitrate=1500 ! \
//!     livekitsink url=ws://127.0.0.1:7880 room=workshop video_0::track-name=front video_0::max-bitrate=2000000
//! ```
//!
//! Since: 0.1

use gst::glib;
use gst::prelude::*;

mod chain;
mod changes;
mod checks;
mod clockmap;
mod codecs;
mod credentials;
mod data;
mod encoders;
mod encryption;
mod errors;
mod feedback;
mod imp;
mod keyframes;
mod leaf;
mod log;
mod messages;
mod pad;
mod preroll;
mod session;
mod settings;
mod stats;
mod targets;
#[cfg(test)]
mod targets_tests;
mod timeline;
mod tracks;
mod watch;
mod workers;

/// What a track shows, as LiveKit names it.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitTrackSource")]
#[non_exhaustive]
pub enum TrackSource {
    /// Camera for video, microphone for audio.
    #[default]
    #[enum_value(name = "Camera for video, microphone for audio", nick = "auto")]
    Auto,
    /// A camera.
    #[enum_value(name = "Camera", nick = "camera")]
    Camera,
    /// A microphone.
    #[enum_value(name = "Microphone", nick = "microphone")]
    Microphone,
    /// A shared screen.
    #[enum_value(name = "Shared screen", nick = "screen-share")]
    ScreenShare,
    /// The sound of a shared screen.
    #[enum_value(name = "Sound of a shared screen", nick = "screen-share-audio")]
    ScreenShareAudio,
    /// Not said.
    #[enum_value(name = "Unknown", nick = "unknown")]
    Unknown,
}

/// Which video profiles are taken.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitAllowProfiles")]
#[non_exhaustive]
pub enum AllowProfiles {
    /// Profiles that browsers can show: 8 bit, 4:2:0.
    #[default]
    #[enum_value(name = "Profiles that browsers can show (8 bit, 4:2:0)", nick = "browser")]
    Browser,
    /// All profiles; a warning says if browsers can't show the stream.
    #[enum_value(name = "All profiles, with a warning if browsers can't show them", nick = "any")]
    Any,
}

/// Which ways media may take to the server.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitIceTransportPolicy")]
#[non_exhaustive]
pub enum IceTransportPolicy {
    /// UDP, and where that does not pass TCP and relays.
    #[default]
    #[enum_value(name = "UDP, and where that does not pass TCP and relays", nick = "all")]
    All,
    /// Relays only.
    #[enum_value(name = "Relays (TURN) only", nick = "relay")]
    Relay,
}

/// What happens when somebody takes the participant out of the room.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitOnRemoved")]
#[non_exhaustive]
pub enum OnRemoved {
    /// An error.
    #[default]
    #[enum_value(name = "Post an error", nick = "error")]
    Error,
    /// The room is joined again.
    #[enum_value(name = "Join the room again", nick = "rejoin")]
    Rejoin,
}

/// How encoders are told which bitrate the network carries.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitBitrateFeedback")]
#[non_exhaustive]
pub enum BitrateFeedback {
    /// By the event, by the property of a known encoder, and by a message.
    #[default]
    #[enum_value(name = "By event, by the property of a known encoder, and by message", nick = "auto")]
    Auto,
    /// By the event and by a message; no property is touched.
    #[enum_value(name = "By event and message only", nick = "event")]
    Event,
    /// Not at all.
    #[enum_value(name = "Not at all", nick = "off")]
    Off,
}

/// Whether requests for a keyframe are answered by sending the current group of pictures again.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitGopCache")]
#[non_exhaustive]
pub enum GopCache {
    /// Where nobody can be asked: no encoder is found upstream, or it has ignored two requests.
    #[default]
    #[enum_value(name = "If there is no encoder that answers requests", nick = "auto")]
    Auto,
    /// Always; the encoder is asked all the same.
    #[enum_value(name = "Always", nick = "on")]
    On,
    /// Never: who begins to watch waits for the next keyframe.
    #[enum_value(name = "Never", nick = "off")]
    Off,
}

/// Where the connection to the room stands.
///
/// Since: 0.1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLiveKitConnectionState")]
#[non_exhaustive]
pub enum ConnectionState {
    /// Not started, or left.
    #[default]
    #[enum_value(name = "Not in a room", nick = "disconnected")]
    Disconnected,
    /// Joining for the first time.
    #[enum_value(name = "Joining for the first time, or waiting to try again", nick = "connecting")]
    Connecting,
    /// In the room.
    #[enum_value(name = "In the room", nick = "connected")]
    Connected,
    /// Lost the room and is coming back.
    #[enum_value(name = "Lost the room and is coming back", nick = "reconnecting")]
    Reconnecting,
    /// Ended by an error.
    #[enum_value(name = "Ended by an error", nick = "failed")]
    Failed,
}

glib::wrapper! {
    /// Publishes encoded video and audio into a LiveKit room.
    pub struct LiveKitSink(ObjectSubclass<imp::LiveKitSink>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

glib::wrapper! {
    /// A request pad of [`LiveKitSink`]: one track, or one layer of a track.
    pub struct LiveKitSinkPad(ObjectSubclass<pad::LiveKitSinkPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

glib::wrapper! {
    /// A request pad of [`LiveKitSink`] for data packets.
    pub struct LiveKitSinkDataPad(ObjectSubclass<data::pad::LiveKitSinkDataPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

glib::wrapper! {
    /// The end of a data pad's chain, which hands packets to the session.
    pub struct DataLeaf(ObjectSubclass<data::leaf::DataLeaf>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

glib::wrapper! {
    /// The end of one pad's chain, which hands frames to the session.
    pub struct Leaf(ObjectSubclass<leaf::Leaf>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// Registers `livekitsink`.
///
/// # Errors
/// If the element cannot be registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    {
        LiveKitSinkPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
        LiveKitSinkDataPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
        for enumeration in [
            TrackSource::static_type(),
            AllowProfiles::static_type(),
            BitrateFeedback::static_type(),
            GopCache::static_type(),
            ConnectionState::static_type(),
        ] {
            enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
        }
    }
    // No rank: nothing but a user's choice should send media to a server.
    gst::Element::register(Some(plugin), "livekitsink", gst::Rank::NONE, LiveKitSink::static_type())
}
