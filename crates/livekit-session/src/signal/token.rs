// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the token of one attempt comes from.

use std::time::Duration;

use livekit_token::{AccessToken, VideoGrants};

use crate::config::{Credentials, Secret, SessionConfig};
use crate::error::Error;

/// Validity of a token made from an API key; a reconnect makes a new one.
const TTL: Duration = Duration::from_secs(6 * 3600);
/// A token file larger than this is not a token file.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Whether [`obtain`] answers at once.
pub(crate) fn is_at_hand(config: &SessionConfig) -> bool {
    matches!(config.credentials, Credentials::Token(_) | Credentials::ApiKey { .. })
}

/// The token for the next attempt. A token file and a callback may block: call from a thread
/// that may, unless it [is at hand](is_at_hand).
pub(crate) fn obtain(config: &SessionConfig) -> Result<Secret, Error> {
    let token = match &config.credentials {
        Credentials::Token(token) => token.clone(),
        Credentials::TokenFile(path) => {
            let fail = |e: std::io::Error| {
                Error::TokenSource(format!("cannot read the token file {}: {e}", path.display()))
            };
            if std::fs::metadata(path).map_err(fail)?.len() > MAX_TOKEN_FILE {
                return Err(Error::TokenSource(format!("{} is too large for a token", path.display())));
            }
            Secret::new(std::fs::read_to_string(path).map_err(fail)?.trim())
        }
        Credentials::Provider(provider) => provider().map_err(Error::TokenSource)?,
        Credentials::ApiKey { key, secret } => make(config, key, secret)?,
    };
    if token.expose().trim().is_empty() {
        return Err(Error::TokenSource("the token is empty".into()));
    }
    Ok(token)
}

fn make(config: &SessionConfig, key: &Secret, secret: &Secret) -> Result<Secret, Error> {
    let room = config.room.clone().filter(|r| !r.trim().is_empty()).ok_or(Error::NoRoom)?;
    let mut token = AccessToken::with_api_key(key.expose(), secret.expose())
        .with_ttl(TTL)
        .with_identity(config.identity.as_deref().unwrap_or("publisher"))
        .with_grants(VideoGrants {
            room_join: true,
            room,
            can_publish: Some(true),
            can_subscribe: Some(false),
            can_update_own_metadata: Some(true),
            ..Default::default()
        });
    if let Some(name) = &config.name {
        token = token.with_name(name);
    }
    if let Some(metadata) = &config.metadata {
        token = token.with_metadata(metadata);
    }
    if !config.attributes.is_empty() {
        token = token.with_attributes(&config.attributes);
    }
    // The error text of the token crate names no value, but ours to say is only which input is at fault.
    token
        .to_jwt()
        .map(Secret::new)
        .map_err(|_| Error::TokenSource("no token can be made from this API key and secret".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(credentials: Credentials) -> SessionConfig {
        let mut config = SessionConfig::new("ws://127.0.0.1:1", credentials);
        config.room = Some("room".into());
        config.identity = Some("me".into());
        config
    }

    #[test]
    fn api_key_gives_a_token_for_the_room_that_can_be_verified() {
        let credentials = Credentials::ApiKey { key: "key".into(), secret: "s".repeat(32).into() };
        let mut config = config(credentials);
        config.name = Some("Camera".into());
        config.attributes.insert("place".into(), "roof".into());
        let token = obtain(&config).unwrap();
        let verifier = livekit_token::TokenVerifier::with_api_key("key", &"s".repeat(32));
        let claims = verifier.verify(token.expose()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.name.as_str()), ("me", "Camera"));
        assert_eq!((claims.video.room.as_str(), claims.video.room_join), ("room", true));
        assert_eq!(claims.attributes.get("place").map(String::as_str), Some("roof"));
    }

    #[test]
    fn token_file_is_trimmed_and_its_absence_named() {
        let path = std::env::temp_dir().join(format!("livekit-session-token-{}", std::process::id()));
        std::fs::write(&path, " abc\n").unwrap();
        assert_eq!(obtain(&config(Credentials::TokenFile(path.clone()))).unwrap().expose(), "abc");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(obtain(&config(Credentials::TokenFile(path.clone()))), Err(Error::TokenSource(_))));
        std::fs::remove_file(&path).unwrap();
        let error = obtain(&config(Credentials::TokenFile(path.clone()))).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_secret_shows_in_no_debug_output() {
        let config = config(Credentials::ApiKey { key: "the-key".into(), secret: "the-secret".into() });
        let text = format!("{config:?}");
        assert!(!text.contains("the-key") && !text.contains("the-secret"), "{text}");
    }
}
