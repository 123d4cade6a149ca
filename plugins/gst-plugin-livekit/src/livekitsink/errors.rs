// SPDX-License-Identifier: MPL-2.0

//! A session's errors as GStreamer's: the right domain and code, and what to do about it.

use livekit_session::{Error, LeaveReason};

/// The text for the user: what happened, and what to do.
pub(crate) fn advice(error: &Error) -> String {
    let hint = match error {
        Error::InvalidUrl { .. } => "set url to something like ws://127.0.0.1:7880 or wss://host",
        Error::NoRoom => "set the property room or the environment variable LIVEKIT_ROOM",
        Error::TlsCaFile { .. } => "set tls-ca-file to a readable PEM file with certificates",
        Error::TokenSource(_) => "check token-file, or what the request-token handler returns",
        Error::Unauthorized { detail, .. } => refusal_hint(detail),
        Error::ServerTooOld { .. } => "update the server",
        Error::Certificate(_) => {
            "if the server's certificate comes from a private authority, name its certificate in tls-ca-file"
        }
        // rustls: the answer is no TLS record.
        Error::Unreachable { url, reason }
            if url.starts_with("wss") && reason.contains("InvalidContentType") =>
        {
            "the server speaks no TLS there: use ws:// instead of wss://, or the port of its TLS proxy"
        }
        Error::Unreachable { .. } | Error::ConnectTimeout(_) => {
            "check url, that the server runs, and that no firewall is in between"
        }
        Error::ProxySetting { .. } => "set it to http://host:port, or name the server in NO_PROXY",
        Error::Proxy { status: Some(407), .. } => {
            "put them into the variable (http_proxy, https_proxy or all_proxy) as http://user:password@host:port"
        }
        Error::Proxy { .. } => {
            "check http_proxy, https_proxy and all_proxy in the environment, or name the server in NO_PROXY"
        }
        Error::MediaTransport(_) => "check that the server's UDP media ports can be reached",
        Error::Left { reason: LeaveReason::DuplicateIdentity, .. } => {
            "give each participant an identity of its own"
        }
        Error::Left { reason: LeaveReason::ParticipantRemoved, .. } => {
            "somebody with the right to do so took it out; with on-removed=rejoin it comes back by itself"
        }
        Error::Left { reason: LeaveReason::RoomDeleted | LeaveReason::RoomClosed, .. } => {
            "start the pipeline again to make the room anew, if the server makes rooms by itself"
        }
        _ => return sentence(&error.to_string()),
    };
    format!("{}: {hint}", sentence(&error.to_string()))
}

/// What to do about refused credentials, by the server's words (livekit-server 1.13).
fn refusal_hint(detail: &str) -> &'static str {
    let says = |words: &str| detail.contains(words);
    if says("API key") {
        "check that api-key is one of this server's"
    } else if says("signature") {
        "the secret that signed the token is not the one that this server has for the key: check api-secret, or where \
         the token comes from"
    } else if says("expired") {
        "give a new token (token-file and the signal request-token are asked anew each time), and check this \
         machine's clock"
    } else if says("not valid yet") {
        "check this machine's clock: the token's time has not come"
    } else if says("permission") {
        "the token must grant roomJoin for this room, and canPublish"
    } else {
        "check the token's lifetime, room and grants (roomJoin, canPublish), or that api-key and api-secret are \
         those of this server"
    }
}

/// Posts `error` as an element error.
pub(crate) fn post(element: &super::LiveKitSink, error: &Error) {
    let text = advice(error);
    match error {
        Error::InvalidUrl { .. } | Error::NoRoom | Error::TlsCaFile { .. } | Error::ProxySetting { .. } => {
            gst::element_error!(element, gst::ResourceError::Settings, ("{text}"));
        }
        Error::TokenSource(_) | Error::Unauthorized { .. } | Error::Proxy { status: Some(407), .. } => {
            gst::element_error!(element, gst::ResourceError::NotAuthorized, ("{text}"));
        }
        Error::ServerTooOld { .. }
        | Error::Certificate(_)
        | Error::Unreachable { .. }
        | Error::Proxy { .. }
        | Error::ConnectTimeout(_)
        | Error::Server(_) => {
            gst::element_error!(element, gst::ResourceError::OpenReadWrite, ("{text}"));
        }
        Error::SignalClosed(_) | Error::MediaTransport(_) => {
            gst::element_error!(element, gst::ResourceError::Write, ("{text}"));
        }
        Error::Left { reason: LeaveReason::DuplicateIdentity, .. } => {
            gst::element_error!(element, gst::ResourceError::Busy, ("{text}"));
        }
        Error::Left { .. } => gst::element_error!(element, gst::ResourceError::Close, ("{text}")),
        _ => gst::element_error!(element, gst::LibraryError::Failed, ("{text}")),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_happened_and_what_to_do() {
        let text = advice(&Error::Unreachable { url: "ws://h".into(), reason: "refused".into() });
        assert!(text.starts_with("Cannot reach ws://h: refused: check url"), "{text}");
        let reason = "TLS: received corrupt message of type InvalidContentType".to_string();
        let text = advice(&Error::Unreachable { url: "wss://h".into(), reason });
        assert!(text.ends_with("or the port of its TLS proxy"), "{text}");
        assert!(advice(&Error::NoRoom).contains("LIVEKIT_ROOM"));
    }
    #[test]
    fn refused_credentials_get_advice_by_the_servers_words() {
        for (detail, hint) in [
            ("it does not know this API key", "api-key is one of this server's"),
            ("invalid token: ***, error: token signature is invalid", "check api-secret"),
            ("invalid token: ***, error: token has invalid claims: token is expired", "give a new token"),
            ("invalid token: ***, error: token has invalid claims: token is not valid yet", "clock"),
            ("permissions denied", "must grant roomJoin"),
            ("", "canPublish"),
        ] {
            let text = advice(&Error::Unauthorized { status: 401, detail: detail.into() });
            assert!(text.contains("401") && text.contains(detail) && text.contains(hint), "{text}");
        }
    }
}
