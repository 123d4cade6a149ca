// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong with a session.

use std::path::PathBuf;

use crate::config::Codec;

/// Why a session could not start, could not join, or ended. No text contains a credential.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL can't be used.
    #[error("'{url}' is not a LiveKit server URL: {reason}")]
    InvalidUrl {
        /// The URL as given, without user information and query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// API key and secret were given, but no room.
    #[error("an API key and secret need a room: name the room to join")]
    NoRoom,
    /// The CA file can't be used.
    #[error("cannot use the CA file {path}: {reason}")]
    TlsCaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The token file or the token callback gave no token.
    #[error("no access token: {0}")]
    TokenSource(String),
    /// The server refused the credentials (HTTP 401 or 403).
    #[error("the server refused the credentials (HTTP {status}): {detail}")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
        /// The server's words.
        detail: String,
    },
    /// The server has no single-peer-connection signalling.
    #[error("the LiveKit server is too old: 1.9.2 is the oldest version that will do{}", found(.version))]
    ServerTooOld {
        /// The version it says it is; empty if it did not say.
        version: String,
    },
    /// The server's certificate was refused.
    #[error("the server's TLS certificate was refused: {0}")]
    Certificate(String),
    /// No connection to the server.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The server, without credentials.
        url: String,
        /// Resolver, TCP or TLS error.
        reason: String,
    },
    /// The environment names a proxy that can't be used.
    #[error("the proxy that the environment variable {variable} names cannot be used: {reason}")]
    ProxySetting {
        /// The variable. Its value may hold a password.
        variable: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The proxy in between does not let us through, or is not there.
    #[error("no way through the proxy {proxy}: {reason}")]
    Proxy {
        /// Scheme, host and port.
        proxy: String,
        /// Its answer (HTTP), if it gave one.
        status: Option<u16>,
        /// What it said, or why it said nothing.
        reason: String,
    },
    /// The server answered, but not as a LiveKit server would.
    #[error("unexpected answer from the server: {0}")]
    Server(String),
    /// An attempt took longer than the connect timeout.
    #[error("no connection within {0:?}")]
    ConnectTimeout(std::time::Duration),
    /// The signalling connection closed.
    #[error("the signalling connection closed: {0}")]
    SignalClosed(String),
    /// The media transport failed (ICE or DTLS).
    #[error("the media connection failed: {0}")]
    MediaTransport(String),
    /// The server settled this connection's video codecs before a track of another one came. The next connection
    /// has both.
    #[error("the connection is made anew, because it cannot carry {0} beside what it was made for")]
    AnotherCodec(Codec),
    /// The server sent us away.
    #[error("the server ended the session: {}", .reason.as_str())]
    Left {
        /// The server's reason.
        reason: LeaveReason,
        /// Whether the server wants us back.
        can_reconnect: bool,
    },
    /// A defect in this library or the media engine.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why one track can't be published. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The room takes other codecs only (`room.enabled_codecs` of the server's configuration).
    #[error("this room does not take {codec}; it takes {}", names(.allowed))]
    CodecNotAllowed {
        /// The track's codec.
        codec: Codec,
        /// Codecs of the same kind that the room takes and this library can send.
        allowed: Vec<Codec>,
    },
    /// The track has more layers than servers take.
    #[error("it has {layers} layers, but LiveKit takes at most {most}")]
    TooManyLayers {
        /// The track's layers.
        layers: usize,
        /// The most that there may be.
        most: usize,
    },
    /// The server refused the track.
    #[error("the server refuses it: {0}")]
    Refused(String),
    /// The session encrypts end to end, which LiveKit's format can't do with this codec.
    #[error(
        "{0} cannot be encrypted end to end: LiveKit's format leaves nothing of it readable, not even what packets and \
         servers need; use H.264, H.265, VP8 or VP9, or do without encryption"
    )]
    NotEncryptable(Codec),
    /// The media engine could not send the track's frames.
    #[error("its frames cannot be sent: {0}")]
    Engine(String),
}

fn names(codecs: &[Codec]) -> String {
    match codecs {
        [] => "none of this kind".into(),
        codecs => codecs.iter().map(Codec::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn found(version: &str) -> String {
    if version.is_empty() { String::new() } else { format!(" (this one is {version})") }
}

/// Why the server ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveReason {
    /// Not said.
    Unknown,
    /// Another participant joined with the same identity.
    DuplicateIdentity,
    /// The server is shutting down.
    ServerShutdown,
    /// This participant was removed.
    ParticipantRemoved,
    /// The room was deleted.
    RoomDeleted,
    /// The room was closed.
    RoomClosed,
    /// Client and server disagree about the session's state.
    StateMismatch,
    /// The server could not complete the join.
    JoinFailure,
    /// The room moves to another node.
    Migration,
    /// The server saw our signalling connection close.
    SignalClose,
    /// The media connection was not made in time.
    ConnectionTimeout,
    /// The server could not handle our media.
    MediaFailure,
}

impl LeaveReason {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "no reason given",
            Self::DuplicateIdentity => "another participant joined with the same identity",
            Self::ServerShutdown => "the server is shutting down",
            Self::ParticipantRemoved => "this participant was removed from the room",
            Self::RoomDeleted => "the room was deleted",
            Self::RoomClosed => "the room was closed",
            Self::StateMismatch => "client and server disagree about the session",
            Self::JoinFailure => "the server could not complete the join",
            Self::Migration => "the room moves to another server",
            Self::SignalClose => "the server saw the signalling connection close",
            Self::ConnectionTimeout => "the media connection was not made in time",
            Self::MediaFailure => "the server could not handle the media",
        }
    }
}

impl Error {
    /// Whether trying again with the same configuration is pointless.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::InvalidUrl { .. }
            | Self::NoRoom
            | Self::TlsCaFile { .. }
            | Self::ProxySetting { .. }
            | Self::Proxy { status: Some(407), .. }
            | Self::Unauthorized { .. }
            | Self::ServerTooOld { .. } => true,
            Self::Left { reason, can_reconnect } => match reason {
                LeaveReason::DuplicateIdentity
                | LeaveReason::ParticipantRemoved
                | LeaveReason::RoomDeleted
                | LeaveReason::RoomClosed => true,
                LeaveReason::Unknown => !can_reconnect,
                // Nobody wants us gone: something broke, or goes on elsewhere. A server that shuts down says that we
                // are to stay away, and is there again after its restart.
                LeaveReason::ServerShutdown
                | LeaveReason::StateMismatch
                | LeaveReason::JoinFailure
                | LeaveReason::Migration
                | LeaveReason::SignalClose
                | LeaveReason::ConnectionTimeout
                | LeaveReason::MediaFailure => false,
            },
            _ => false,
        }
    }
}

/// `url` without user information, query and fragment, for messages.
pub(crate) fn redact(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) => {
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string().trim_end_matches('/').to_string()
        }
        // What can't be parsed can't be redacted with certainty; a secret in it would sit behind '@' or '?'.
        Err(_) => {
            let end = url.find('?').unwrap_or(url.len());
            let visible = url.get(..end).unwrap_or_default();
            match visible.rfind('@') {
                Some(_) => "(unparsable URL with user information)".into(),
                None => visible.chars().take(200).collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_not_wanted_stays_away() {
        use LeaveReason as R;
        for can_reconnect in [false, true] {
            let fatal = |reason| Error::Left { reason, can_reconnect }.is_fatal();
            for wanted_gone in [R::DuplicateIdentity, R::ParticipantRemoved, R::RoomDeleted, R::RoomClosed] {
                assert!(fatal(wanted_gone), "{wanted_gone:?}");
            }
            for broken in [
                R::ServerShutdown,
                R::StateMismatch,
                R::JoinFailure,
                R::Migration,
                R::SignalClose,
                R::ConnectionTimeout,
                R::MediaFailure,
            ] {
                assert!(!fatal(broken), "{broken:?}");
            }
            assert_eq!(fatal(R::Unknown), !can_reconnect);
        }
    }
}
