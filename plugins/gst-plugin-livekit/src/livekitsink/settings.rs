// SPDX-License-Identifier: MPL-2.0

//! Properties of the element and of its pads, and their defaults.

use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::{
    AllowProfiles, BitrateFeedback, ConnectionState, GopCache, IceTransportPolicy, OnRemoved, TrackSource,
};

/// Default of `gop-cache-time`.
const GOP_CACHE_TIME: Duration = Duration::from_secs(2);

/// What a pad's properties say; `None` = unset, the element's property of the same name counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PadSettings {
    pub track_name: Option<String>,
    pub source: Option<TrackSource>,
    pub min_bitrate: Option<u32>,
    pub start_bitrate: Option<u32>,
    pub max_bitrate: Option<u32>,
    /// Name of the encoder, if it is not to be looked for.
    pub encoder: Option<String>,
    pub allow_profiles: Option<AllowProfiles>,
    pub dtx: Option<bool>,
    pub red: Option<bool>,
    pub capture_trailer: Option<bool>,
    pub gop_cache: Option<GopCache>,
    pub gop_cache_time: Option<Duration>,
    pub priority: Option<u32>,
    pub muted: Option<bool>,
    /// Which track this is a layer of; a pad's only.
    pub track: Option<String>,
}

impl PadSettings {
    /// These settings, with what is unset taken from `defaults`.
    pub fn or(self, defaults: &PadSettings) -> Self {
        Self {
            track_name: self.track_name.or_else(|| defaults.track_name.clone()),
            source: self.source.or(defaults.source),
            min_bitrate: self.min_bitrate.or(defaults.min_bitrate),
            start_bitrate: self.start_bitrate.or(defaults.start_bitrate),
            max_bitrate: self.max_bitrate.or(defaults.max_bitrate),
            encoder: self.encoder.or_else(|| defaults.encoder.clone()),
            allow_profiles: self.allow_profiles.or(defaults.allow_profiles),
            dtx: self.dtx.or(defaults.dtx),
            red: self.red.or(defaults.red),
            capture_trailer: self.capture_trailer.or(defaults.capture_trailer),
            gop_cache: self.gop_cache.or(defaults.gop_cache),
            gop_cache_time: self.gop_cache_time.or(defaults.gop_cache_time),
            priority: self.priority.or(defaults.priority),
            muted: self.muted.or(defaults.muted),
            track: self.track,
        }
    }

    /// Sets a property; a value that means "unset" makes it fall back to the element's.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        match name {
            "track-name" => self.track_name = string(value),
            "source" => self.source = value.get().ok().filter(|s| *s != TrackSource::Auto),
            "min-bitrate" => self.min_bitrate = value.get().ok().filter(|b| *b != 0),
            "start-bitrate" => self.start_bitrate = value.get().ok().filter(|b| *b != 0),
            "max-bitrate" => self.max_bitrate = value.get().ok().filter(|b| *b != 0),
            "encoder" => self.encoder = string(value),
            "allow-profiles" => self.allow_profiles = value.get().ok(),
            "dtx" => self.dtx = value.get().ok(),
            "red" => self.red = value.get().ok(),
            "capture-trailer" => self.capture_trailer = value.get().ok(),
            "gop-cache" => self.gop_cache = value.get().ok(),
            "gop-cache-time" => self.gop_cache_time = value.get().ok().map(Duration::from_nanos),
            "priority" => self.priority = value.get().ok().filter(|p| *p != 1),
            "muted" => self.muted = value.get().ok(),
            "track" => self.track = string(value),
            _ => return false,
        }
        true
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "track-name" => self.track_name.to_value(),
            "source" => self.source.unwrap_or_default().to_value(),
            "min-bitrate" => self.min_bitrate.unwrap_or_default().to_value(),
            "start-bitrate" => self.start_bitrate.unwrap_or_default().to_value(),
            "max-bitrate" => self.max_bitrate.unwrap_or_default().to_value(),
            "encoder" => self.encoder.to_value(),
            "allow-profiles" => self.allow_profiles.unwrap_or_default().to_value(),
            "dtx" => self.dtx.unwrap_or_default().to_value(),
            "red" => self.red.unwrap_or_default().to_value(),
            "capture-trailer" => self.capture_trailer.unwrap_or_default().to_value(),
            "gop-cache" => self.gop_cache.unwrap_or_default().to_value(),
            "gop-cache-time" => nanos(self.gop_cache_time.unwrap_or(GOP_CACHE_TIME)).to_value(),
            "priority" => self.priority.unwrap_or(1).to_value(),
            "muted" => self.muted.unwrap_or_default().to_value(),
            "track" => self.track.to_value(),
            _ => return None,
        })
    }
}

/// What the element's properties say; `None` = unset, the environment may stand in.
#[derive(Clone)]
pub(crate) struct Settings {
    pub url: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<String>,
    pub api_key: Option<String>,
    pub api_secret: Option<String>,
    pub tls_ca_file: Option<String>,
    /// `Some("")` was set, and is wrong: it must not be taken for "no encryption".
    pub e2ee_key: Option<String>,
    pub e2ee_key_index: u8,
    pub room: Option<String>,
    pub identity: Option<String>,
    pub participant_name: Option<String>,
    pub metadata: Option<String>,
    pub attributes: Option<gst::Structure>,
    pub ice_transport_policy: IceTransportPolicy,
    pub connect_timeout: Duration,
    /// −1 = for ever.
    pub reconnect_attempts: i32,
    pub on_removed: OnRemoved,
    pub keyframe_min_interval: Duration,
    pub max_queue_time: Duration,
    pub sync: bool,
    pub bitrate_feedback: BitrateFeedback,
    pub share_encoder: bool,
    pub pause_upstream: bool,
    /// Defaults of the pads.
    pub pads: PadSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            token: None,
            token_file: None,
            api_key: None,
            api_secret: None,
            tls_ca_file: None,
            e2ee_key: None,
            e2ee_key_index: 0,
            room: None,
            identity: None,
            participant_name: None,
            metadata: None,
            attributes: None,
            ice_transport_policy: IceTransportPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            reconnect_attempts: -1,
            on_removed: OnRemoved::default(),
            keyframe_min_interval: Duration::from_millis(500),
            max_queue_time: Duration::from_millis(300),
            sync: true,
            bitrate_feedback: BitrateFeedback::default(),
            share_encoder: false,
            pause_upstream: false,
            pads: PadSettings::default(),
        }
    }
}

impl Settings {
    /// Sets a property of the element.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        match name {
            "url" => self.url = string(value),
            "token" => self.token = string(value),
            "token-file" => self.token_file = string(value),
            "api-key" => self.api_key = string(value),
            "api-secret" => self.api_secret = string(value),
            "tls-ca-file" => self.tls_ca_file = string(value),
            "e2ee-key" => self.e2ee_key = value.get().ok().flatten(),
            "e2ee-key-index" => {
                let index = value.get::<u32>().ok().and_then(|index| u8::try_from(index).ok());
                self.e2ee_key_index = index.unwrap_or(self.e2ee_key_index);
            }
            "room" => self.room = string(value),
            "identity" => self.identity = string(value),
            "participant-name" => self.participant_name = string(value),
            "metadata" => self.metadata = string(value),
            "attributes" => self.attributes = value.get().ok().flatten(),
            "on-removed" => self.on_removed = value.get().unwrap_or(self.on_removed),
            "ice-transport-policy" => {
                self.ice_transport_policy = value.get().unwrap_or(self.ice_transport_policy);
            }
            "connect-timeout" => {
                self.connect_timeout = value.get().map_or(self.connect_timeout, Duration::from_nanos);
            }
            "reconnect-attempts" => {
                self.reconnect_attempts = value.get().unwrap_or(self.reconnect_attempts);
            }
            "keyframe-min-interval" => {
                self.keyframe_min_interval =
                    value.get().map_or(self.keyframe_min_interval, Duration::from_nanos);
            }
            "max-queue-time" => {
                self.max_queue_time = value.get().map_or(self.max_queue_time, Duration::from_nanos);
            }
            "sync" => self.sync = value.get().unwrap_or(self.sync),
            "bitrate-feedback" => self.bitrate_feedback = value.get().unwrap_or(self.bitrate_feedback),
            "share-encoder" => self.share_encoder = value.get().unwrap_or(self.share_encoder),
            "pause-upstream" => self.pause_upstream = value.get().unwrap_or(self.pause_upstream),
            _ => return self.pads.set(name, value),
        }
        true
    }

    /// Reads a property of the element. Secrets can't be read.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "url" => self.url.to_value(),
            "token-file" => self.token_file.to_value(),
            "tls-ca-file" => self.tls_ca_file.to_value(),
            "e2ee-key-index" => u32::from(self.e2ee_key_index).to_value(),
            "room" => self.room.to_value(),
            "identity" => self.identity.to_value(),
            "participant-name" => self.participant_name.to_value(),
            "metadata" => self.metadata.to_value(),
            "attributes" => self.attributes.to_value(),
            "on-removed" => self.on_removed.to_value(),
            "ice-transport-policy" => self.ice_transport_policy.to_value(),
            "connect-timeout" => nanos(self.connect_timeout).to_value(),
            "reconnect-attempts" => self.reconnect_attempts.to_value(),
            "keyframe-min-interval" => nanos(self.keyframe_min_interval).to_value(),
            "max-queue-time" => nanos(self.max_queue_time).to_value(),
            "sync" => self.sync.to_value(),
            "bitrate-feedback" => self.bitrate_feedback.to_value(),
            "share-encoder" => self.share_encoder.to_value(),
            "pause-upstream" => self.pause_upstream.to_value(),
            _ => return self.pads.get(name),
        })
    }
}

/// An unset, empty or blank string is no setting.
pub(crate) fn string(value: &glib::Value) -> Option<String> {
    value.get::<Option<String>>().ok().flatten().filter(|s| !s.trim().is_empty())
}

/// A duration in the unit of GStreamer's properties and messages.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `gst-<hostname>-<8 hex>`. The hash seed is drawn anew for every call, which is all the randomness that
/// telling two elements apart needs.
pub(crate) fn default_identity() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("gst-{}-{:08x}", glib::host_name(), random & 0xffff_ffff)
}

fn text(name: &'static str, nick: &str, blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name).nick(nick).blurb(blurb).mutable_ready().build()
}

fn live_text(name: &'static str, nick: &str, blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name).nick(nick).blurb(blurb).mutable_playing().build()
}

fn secret(name: &'static str, nick: &str, blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name).nick(nick).blurb(blurb).write_only().mutable_ready().build()
}

fn pad_properties() -> Vec<glib::ParamSpec> {
    vec![
        text("track-name", "Track name", "Name of the track; unset = the pad's name"),
        glib::ParamSpecEnum::builder_with_default("source", TrackSource::default())
            .nick("Source")
            .blurb("What the track shows")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("min-bitrate")
            .nick("Minimum bitrate")
            .blurb("Lowest bitrate that is worth sending, in bit/s: with less, the track is paused; 0 = not said")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("start-bitrate")
            .nick("Start bitrate")
            .blurb("What the encoder makes before anything is known of the network, in bit/s; 0 = as it is set")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-bitrate")
            .nick("Maximum bitrate")
            .blurb(
                "Highest bitrate of the track in bit/s, announced to the server; 0 = what the encoder is set to, \
                 if that is known",
            )
            .mutable_ready()
            .build(),
        text(
            "encoder",
            "Encoder",
            "Name of the element that encodes for this pad; unset = the first encoder upstream",
        ),
        glib::ParamSpecEnum::builder_with_default("allow-profiles", AllowProfiles::default())
            .nick("Allowed profiles")
            .blurb("Which video profiles are taken: those that browsers can show, or all")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("dtx")
            .nick("Opus DTX")
            .blurb(
                "Opus is sent with discontinuous transmission: announced to the server, and turned on in the \
                 encoder of raw audio; an encoder before the pad has to be told by itself",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("red")
            .nick("Opus RED")
            .blurb(
                "Opus is sent with redundancy (RFC 2198): each packet repeats the one before it, which doubles the \
                 bitrate of the sound",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("capture-trailer")
            .nick("Capture-time trailer")
            .blurb(
                "Send the capture time behind each picture too (LKTS packet trailer), for viewers made with LiveKit's \
                 SDKs; not for AV1",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("gop-cache", GopCache::default())
            .nick("GOP cache")
            .blurb("Answer keyframe requests by sending the current group of pictures again; auto = if nobody upstream answers them")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("gop-cache-time")
            .nick("GOP cache time")
            .blurb("The longest group of pictures that is kept for gop-cache, in nanoseconds (2 MB at most)")
            .maximum(60_000_000_000)
            .default_value(nanos(GOP_CACHE_TIME))
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("priority")
            .nick("Priority")
            .blurb("The track's weight against that of the other tracks when bandwidth is short")
            .minimum(1)
            .default_value(1)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("muted")
            .nick("Muted")
            .blurb("Viewers are told that there is nothing to see or hear, and no frame is sent; the room may set it, too")
            .mutable_playing()
            .build(),
    ]
}

/// Properties of a pad.
pub(crate) static PAD_PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let mut all = pad_properties();
    all.push(text(
        "track",
        "Track",
        "Pads with the same value are layers of one simulcast track, ordered by size; unset = a track of its own",
    ));
    all
});

/// Properties of the element.
pub(crate) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let mut all = vec![
        text("url", "Server URL", "LiveKit server: ws://, wss://, http:// or https://; unset = LIVEKIT_URL"),
        secret("token", "Access token", "Access token (JWT); unset = LIVEKIT_TOKEN"),
        text(
            "token-file",
            "Token file",
            "File that holds an access token; read at every attempt to connect, so that it can be replaced",
        ),
        secret("api-key", "API key", "API key from which a token is made; unset = LIVEKIT_API_KEY"),
        secret("api-secret", "API secret", "Secret of the API key; unset = LIVEKIT_API_SECRET"),
        text(
            "tls-ca-file",
            "CA file",
            "PEM file with certificate authorities that are trusted in addition to the system's",
        ),
        glib::ParamSpecString::builder("e2ee-key")
            .nick("End-to-end encryption key")
            .blurb(
                "What people share to see and hear this participant: frames and data packets are encrypted with a key \
                 made of it, and the server can't read them; unset = LIVEKIT_E2EE_KEY, else not encrypted. Can be changed \
                 while playing, for another key",
            )
            .write_only()
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("e2ee-key-index")
            .nick("End-to-end encryption key index")
            .blurb(
                "At which place viewers have the key (they keep 16 unless told otherwise); while playing it counts from \
                 the next key on",
            )
            .maximum(255)
            .default_value(defaults.e2ee_key_index.into())
            .mutable_playing()
            .build(),
        text("room", "Room", "Room to join with an API key (a token carries its own); unset = LIVEKIT_ROOM"),
        text(
            "identity",
            "Identity",
            "Identity of the participant, put into a token made from an API key (a ready token carries its own); \
             unset = gst-<hostname>-<8 hex digits>, the same for the element's whole life",
        ),
        live_text(
            "participant-name",
            "Participant name",
            "Display name of the participant; with a ready token its grant canUpdateOwnMetadata is needed",
        ),
        live_text(
            "metadata",
            "Metadata",
            "Metadata of the participant; with a ready token its grant canUpdateOwnMetadata is needed",
        ),
        glib::ParamSpecBoxed::builder::<gst::Structure>("attributes")
            .nick("Attributes")
            .blurb("Attributes of the participant (name=value); with a ready token its grant canUpdateOwnMetadata is needed")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("on-removed", defaults.on_removed)
            .nick("On removed")
            .blurb("What happens when somebody takes the participant out of the room")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("ice-transport-policy", defaults.ice_transport_policy)
            .nick("ICE transport policy")
            .blurb("Which ways media may take to the server")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("connect-timeout")
            .nick("Connect timeout")
            .blurb("How long one attempt to connect may take, in nanoseconds")
            .minimum(1_000_000)
            .default_value(nanos(defaults.connect_timeout))
            .mutable_ready()
            .build(),
        glib::ParamSpecInt::builder("reconnect-attempts")
            .nick("Reconnect attempts")
            .blurb("How many attempts to connect may fail in a row before it is an error; 0 = none may, -1 = for ever")
            .minimum(-1)
            .default_value(defaults.reconnect_attempts)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("keyframe-min-interval")
            .nick("Keyframe minimum interval")
            .blurb("Shortest time between two keyframe requests to the encoder of one pad, in nanoseconds")
            .maximum(3_600_000_000_000)
            .default_value(nanos(defaults.keyframe_min_interval))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-queue-time")
            .nick("Longest queue time")
            .blurb("How long a frame may wait to be sent, in nanoseconds; then the rest of its group of pictures is dropped, up to the next keyframe")
            .maximum(3_600_000_000_000)
            .default_value(nanos(defaults.max_queue_time))
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("sync")
            .nick("Sync")
            .blurb("Send frames at their time on the pipeline's clock; live input is never held back")
            .default_value(defaults.sync)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("bitrate-feedback", defaults.bitrate_feedback)
            .nick("Bitrate feedback")
            .blurb("How encoders are told which bitrate the network carries")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("share-encoder")
            .nick("Share encoder")
            .blurb(
                "Change the bitrate of an encoder, or pause it, even if it feeds others too (through a tee): a \
                 recording gets what the network carries then",
            )
            .default_value(defaults.share_encoder)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("pause-upstream")
            .nick("Pause upstream")
            .blurb("Let no frame of a live source into an encoder whose pictures nobody needs")
            .default_value(defaults.pause_upstream)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("connection-state", ConnectionState::default())
            .nick("Connection state")
            .blurb("Where the connection to the room stands")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters of the session and of every track; the fields are in the plugin's README")
            .read_only()
            .build(),
    ];
    all.extend(pad_properties());
    all
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pad_setting_beats_the_elements_and_unset_falls_back() {
        let mut element = PadSettings::default();
        element.set("max-bitrate", &1_000_000u32.to_value());
        element.set("source", &TrackSource::ScreenShare.to_value());
        let mut pad = PadSettings::default();
        pad.set("max-bitrate", &2_000_000u32.to_value());
        let both = pad.clone().or(&element);
        assert_eq!(both.max_bitrate, Some(2_000_000));
        assert_eq!(both.source, Some(TrackSource::ScreenShare));
        // The value that means "unset" goes back to the element's.
        pad.set("max-bitrate", &0u32.to_value());
        assert_eq!(pad.or(&element).max_bitrate, Some(1_000_000));
    }

    #[test]
    fn secrets_cannot_be_read() {
        let mut settings = Settings::default();
        for name in ["token", "api-key", "api-secret", "e2ee-key"] {
            assert!(settings.set(name, &"x".to_value()));
            assert!(settings.get(name).is_none());
            let pspec = PROPERTIES.iter().find(|p| p.name() == name).unwrap();
            assert!(!pspec.flags().contains(glib::ParamFlags::READABLE), "{name}");
        }
    }

    #[test]
    fn every_property_is_handled_and_reads_its_default() {
        let settings = Settings::default();
        for pspec in PROPERTIES.iter().filter(|p| p.flags().contains(glib::ParamFlags::WRITABLE)) {
            assert!(settings.clone().set(pspec.name(), pspec.default_value()), "{}", pspec.name());
            if pspec.flags().contains(glib::ParamFlags::READABLE) {
                let value = settings.get(pspec.name()).unwrap();
                if value.type_() == gst::Structure::static_type() {
                    // GStreamer complains about printing an absent structure.
                    assert!(value.get::<Option<gst::Structure>>().unwrap().is_none());
                    continue;
                }
                assert_eq!(format!("{value:?}"), format!("{:?}", pspec.default_value()), "{}", pspec.name());
            }
        }
    }

    #[test]
    fn blank_strings_are_no_setting() {
        let mut settings = Settings::default();
        settings.set("url", &"  ".to_value());
        assert!(settings.url.is_none());
    }

    #[test]
    fn identities_differ() {
        let (a, b) = (default_identity(), default_identity());
        assert_ne!(a, b);
        assert!(a.starts_with("gst-") && a.rsplit('-').next().unwrap().len() == 8, "{a}");
    }
}
