// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a caller says before a session starts: where to, as whom, and which tracks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::e2ee::E2ee;
use crate::error::Error;
use crate::signal::RefusedCounters;
pub use crate::signal::proxy::Proxies;

/// A string that must not be seen: prints as `***`, in `Debug` too.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. For the wire only, never for a log or an error text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

/// Gives a token for one connection attempt; called again for every later one. May block: it runs on a
/// thread of its own.
pub type TokenProvider = Arc<dyn Fn() -> Result<Secret, String> + Send + Sync>;

/// How the session proves who it is. Every attempt to join asks anew.
#[derive(Clone)]
pub enum Credentials {
    /// A ready access token (JWT). Identity, name and room are what the token says.
    Token(Secret),
    /// A file whose trimmed content is the token; read at every attempt, so that it can be replaced.
    TokenFile(PathBuf),
    /// Asks the application for a token.
    Provider(TokenProvider),
    /// An API key pair, from which a token for [`SessionConfig::room`] and [`SessionConfig::identity`] is
    /// made, valid for six hours.
    ApiKey {
        /// The key's name (`iss` of the token).
        key: Secret,
        /// The key's secret, which signs the token.
        secret: Secret,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(***)",
            Self::TokenFile(_) => "TokenFile(..)",
            Self::Provider(_) => "Provider(..)",
            Self::ApiKey { .. } => "ApiKey { *** }",
        })
    }
}

/// Which ways media may take to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IceTransportPolicy {
    /// Every way: UDP, and where that does not pass TCP and relays.
    #[default]
    All,
    /// Relays (TURN) only: the server's media ports never see this machine's addresses.
    Relay,
}

/// Everything about a session but its tracks.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The server: `ws://`, `wss://`, `http://` or `https://`.
    pub url: String,
    /// Token, token file, token callback, or API key pair.
    pub credentials: Credentials,
    /// The room; needed with [`Credentials::ApiKey`] only, a token carries its own.
    pub room: Option<String>,
    /// The participant's identity, put into a token made from an API key.
    pub identity: Option<String>,
    /// The participant's display name: part of a token made from an API key; with a ready token set after joining,
    /// which needs its grant `canUpdateOwnMetadata`.
    pub name: Option<String>,
    /// The participant's metadata: part of a token made from an API key; with a ready token set after joining,
    /// which needs its grant `canUpdateOwnMetadata`.
    pub metadata: Option<String>,
    /// The participant's attributes: part of a token made from an API key; with a ready token set after joining,
    /// which needs its grant `canUpdateOwnMetadata`.
    pub attributes: BTreeMap<String, String>,
    /// Be ready for data of other participants from the start. Without it [`crate::Event::DataReceived`] comes
    /// only after something was sent by [`crate::Session::send_data`]. Default false.
    pub receive_data: bool,
    /// A PEM file with certificate authorities trusted in addition to the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The HTTP proxies through which signalling goes. Default: [`Proxies::from_env`]; `Proxies::default()` = none.
    pub proxies: Proxies,
    /// Which ways media may take to the server. Default all; the server may narrow it down to relays.
    pub ice_transport_policy: IceTransportPolicy,
    /// How long one attempt to connect may take, join and transport together. Default 10 s.
    pub connect_timeout: Duration,
    /// How many attempts to connect may fail in a row before the session gives up; `None` (default) = for
    /// ever. `Some(0)` = the first failure is final.
    pub reconnect_attempts: Option<u32>,
    /// Join again when somebody with the right to do so takes this participant out of the room. Default false: that
    /// ends the session.
    pub rejoin_when_removed: bool,
    /// Shortest time between two keyframe requests to the encoder of one track. Default 500 ms.
    pub keyframe_min_interval: Duration,
    /// How long the start of a track is put off for somebody to subscribe, after its first keyframe was sent
    /// ahead (see [`crate::Track::prime`]). Default 500 ms.
    pub prime_hold: Duration,
    /// How long a frame may wait to be sent. Beyond it the rest of its group of pictures is dropped, up to the
    /// next keyframe that fits. Default 300 ms.
    pub max_queue_time: Duration,
    /// Encrypts all frames and data packets end to end with this key; `None` (default) = only on the way to the server
    /// and from it. Whether a session encrypts is settled when it starts; its key can be changed at any time.
    pub e2ee: Option<E2ee>,
    /// What the session calls itself towards the server, e.g. an application's name and version.
    pub user_agent: Option<String>,
    /// Where the session and the crates below it say what they do, while the session's task runs; `None` = to the
    /// subscriber that the process has, if it has one. With URLs and messages of the server come tokens and passwords: who
    /// shows it to anybody takes them out.
    pub log: Option<tracing::Dispatch>,
    /// Where it is counted what the server said and was not taken; each session has its own.
    pub(crate) refused: Arc<RefusedCounters>,
}

impl SessionConfig {
    /// A configuration with defaults for everything but these two.
    pub fn new(url: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            url: url.into(),
            credentials,
            room: None,
            identity: None,
            name: None,
            metadata: None,
            attributes: BTreeMap::new(),
            receive_data: false,
            tls_ca_file: None,
            proxies: Proxies::from_env(),
            ice_transport_policy: IceTransportPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            reconnect_attempts: None,
            rejoin_when_removed: false,
            keyframe_min_interval: Duration::from_millis(500),
            prime_hold: Duration::from_millis(500),
            max_queue_time: Duration::from_millis(300),
            e2ee: None,
            user_agent: None,
            log: None,
            refused: Arc::default(),
        }
    }

    /// Checks what can be checked without the network.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::NoRoom`], [`Error::TlsCaFile`] and [`Error::ProxySetting`].
    pub fn validate(&self) -> Result<(), Error> {
        let url = url::Url::parse(&self.url)
            .map_err(|e| Error::InvalidUrl { url: crate::error::redact(&self.url), reason: e.to_string() })?;
        if !matches!(url.scheme(), "ws" | "wss" | "http" | "https")
            || url.host_str().is_none_or(str::is_empty)
        {
            return Err(Error::InvalidUrl {
                url: crate::error::redact(&self.url),
                reason: "expected ws://host[:port], wss://host, http://host or https://host".into(),
            });
        }
        if matches!(self.credentials, Credentials::ApiKey { .. })
            && self.room.as_deref().is_none_or(|r| r.trim().is_empty())
        {
            return Err(Error::NoRoom);
        }
        if let Some(path) = &self.tls_ca_file {
            crate::signal::tls::load_ca_file(path)?;
        }
        self.proxies.for_url(&url)?;
        Ok(())
    }
}

/// What a participant shows of itself, apart from its tracks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its display name.
    pub name: Option<String>,
    /// Its metadata.
    pub metadata: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Description {
    /// What is to be sent to turn `before` into `self`; an attribute that is gone is sent as an empty one, which
    /// is how the server takes it away. It does not take a name or metadata away: these stay then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let changed = |new: &Option<String>, old: &Option<String>| new.clone().filter(|_| new != old);
        let gone = before.attributes.keys().filter(|key| !self.attributes.contains_key(*key));
        let set = self.attributes.iter().filter(|(key, value)| before.attributes.get(*key) != Some(value));
        Self {
            name: changed(&self.name, &before.name),
            metadata: changed(&self.metadata, &before.metadata),
            attributes: gone
                .map(|key| (key.clone(), String::new()))
                .chain(set.map(|(key, value)| (key.clone(), value.clone())))
                .collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

impl SessionConfig {
    pub(crate) fn description(&self) -> Description {
        Description {
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

/// The kind of picture or sound a track carries, as LiveKit names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrackSource {
    /// Not said.
    #[default]
    Unknown,
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
}

/// A codec that the session carries, and the form of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// H.264/AVC (RTP: RFC 6184); one Annex B access unit per frame, SPS and PPS with every IDR picture.
    H264,
    /// H.265/HEVC (RTP: RFC 7798); one Annex B access unit per frame, VPS, SPS and PPS with every random access
    /// point. Few viewers decode it; no browser on Linux does.
    H265,
    /// VP8 (RTP: RFC 7741); one frame (RFC 6386) per frame.
    Vp8,
    /// VP9 (RTP: RFC 9628), profile 0; one superframe per frame.
    Vp9,
    /// AV1 (RTP: the Alliance for Open Media's "RTP Payload Format For AV1"); one temporal unit of the
    /// low-overhead bitstream format per frame, the sequence header with every key frame.
    Av1,
    /// Opus (RTP: RFC 7587); one packet per frame.
    Opus,
}

impl Codec {
    /// Every codec, in the order in which this enum lists them.
    pub const ALL: [Self; 6] = [Self::H264, Self::H265, Self::Vp8, Self::Vp9, Self::Av1, Self::Opus];

    /// Whether this is a video codec.
    pub fn is_video(self) -> bool {
        self != Self::Opus
    }

    /// The media type that LiveKit's signalling uses, e.g. `video/h264`.
    pub fn mime_type(self) -> &'static str {
        match self {
            Self::H264 => "video/h264",
            Self::H265 => "video/h265",
            Self::Vp8 => "video/vp8",
            Self::Vp9 => "video/vp9",
            Self::Av1 => "video/av1",
            Self::Opus => "audio/opus",
        }
    }

    /// Ticks a second of the codec's RTP clock.
    pub fn clock_rate(self) -> u32 {
        if self.is_video() { 90_000 } else { 48_000 }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::Opus => "Opus",
        })
    }
}

/// What a stream of H.264 says it is, as far as its RTP description has a name for it (RFC 6184 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum H264Profile {
    /// Constrained Baseline: what every viewer can decode.
    #[default]
    ConstrainedBaseline,
    /// Baseline.
    Baseline,
    /// Main.
    Main,
    /// High and its constrained and progressive forms, and everything beyond.
    High,
}

impl H264Profile {
    /// The profile of a stream with this `profile_idc` and these constraint flags (H.264 §7.4.2.1.1;
    /// `constraint_set0_flag` is the most significant bit).
    pub fn of(profile_idc: u8, constraints: u8) -> Self {
        match (profile_idc, constraints & 0x40 != 0) {
            (66 | 77 | 88, true) if profile_idc == 66 || constraints & 0x80 != 0 => Self::ConstrainedBaseline,
            (66, _) => Self::Baseline,
            (77 | 88, _) => Self::Main,
            _ => Self::High,
        }
    }
}

/// One encoding of a track's picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerConfig {
    /// Picture width in pixels; 0 for audio or if unknown.
    pub width: u32,
    /// Picture height in pixels; 0 for audio or if unknown.
    pub height: u32,
    /// The lowest bitrate worth sending, in bit/s; 0 if unset. A layer that gets less is paused, not starved.
    pub min_bitrate: u32,
    /// What the encoder is told before anything is known of the network, in bit/s; 0 if unset.
    pub start_bitrate: u32,
    /// The highest bitrate, in bit/s, announced to the server and never exceeded by a target; 0 if unset.
    pub max_bitrate: u32,
}

/// One track to publish.
#[derive(Clone, Debug)]
pub struct TrackConfig {
    /// The codec of the frames.
    pub codec: Codec,
    /// The track's name, shown to subscribers.
    pub name: String,
    /// What the track shows.
    pub source: TrackSource,
    /// The encodings of one picture (simulcast), from the smallest to the largest; exactly one for audio and for
    /// video without simulcast.
    pub layers: Vec<LayerConfig>,
    /// The track's part when bandwidth is short, as a weight against that of the other tracks; from 1.
    pub priority: u32,
    /// Published, but muted: viewers are told that there is nothing to see for now.
    pub muted: bool,
    /// H.264: the profile that the stream has, for its description in the SDP.
    pub h264_profile: H264Profile,
    /// Opus with two channels.
    pub stereo: bool,
    /// Opus with discontinuous transmission: the encoder sends next to nothing in silence.
    pub dtx: bool,
    /// Opus with redundancy (RFC 2198): each packet repeats the one before it, so that a single lost packet is
    /// not heard. Costs the bitrate once more. The server takes it apart for viewers that can't.
    pub red: bool,
    /// Send the capture time behind each frame as LiveKit's SDKs do (packet trailer), for viewers made with them;
    /// browsers have it without, by the absolute-capture-time extension. Not for AV1.
    pub capture_trailer: bool,
}

impl TrackConfig {
    /// A track of one layer with a name and defaults for the rest.
    pub fn new(codec: Codec, name: impl Into<String>) -> Self {
        Self {
            codec,
            name: name.into(),
            source: if codec.is_video() { TrackSource::Camera } else { TrackSource::Microphone },
            layers: vec![LayerConfig::default()],
            priority: 1,
            muted: false,
            h264_profile: H264Profile::default(),
            stereo: false,
            dtx: false,
            red: false,
            capture_trailer: false,
        }
    }

    /// The largest layer.
    pub fn top_layer(&self) -> LayerConfig {
        self.layers.last().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_of_a_description_is_sent_and_gone_attributes_as_empty_ones() {
        let of = |name: Option<&str>, attributes: &[(&str, &str)]| Description {
            name: name.map(Into::into),
            metadata: Some("m".into()),
            attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        };
        let before = of(Some("a"), &[("stays", "1"), ("changes", "1"), ("goes", "1")]);
        let change = of(Some("b"), &[("stays", "1"), ("changes", "2"), ("comes", "1")]).since(&before);
        assert_eq!((change.name.as_deref(), change.metadata), (Some("b"), None));
        let sent: Vec<_> = change.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(sent, [("changes", "2"), ("comes", "1"), ("goes", "")]);
        assert!(before.since(&before).is_empty());
        assert_eq!(of(None, &[]).since(&before).name, None, "a name cannot be taken away");
    }

    #[test]
    fn h264_profiles_by_their_flags() {
        use H264Profile as P;
        let cases = [
            (66, 0xc0, P::ConstrainedBaseline),
            (66, 0x40, P::ConstrainedBaseline),
            (66, 0x00, P::Baseline),
            (66, 0x80, P::Baseline),
            // Main that obeys baseline's rules as well.
            (77, 0xc0, P::ConstrainedBaseline),
            (77, 0x40, P::Main),
            (77, 0x00, P::Main),
            (88, 0xc0, P::ConstrainedBaseline),
            (88, 0x00, P::Main),
            (100, 0x00, P::High),
            (100, 0x0c, P::High),
            (110, 0x00, P::High),
            (244, 0x00, P::High),
        ];
        for (profile_idc, constraints, expected) in cases {
            assert_eq!(H264Profile::of(profile_idc, constraints), expected, "{profile_idc} {constraints:#x}");
        }
    }
}
