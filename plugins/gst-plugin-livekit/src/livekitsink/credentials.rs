// SPDX-License-Identifier: MPL-2.0

//! From properties and environment to a session's configuration. Pure: the environment is an argument.

use std::collections::BTreeMap;
use std::path::PathBuf;

use livekit_session::{Credentials, Description, Secret, SessionConfig, TokenProvider};

use super::settings::Settings;
use super::{IceTransportPolicy, OnRemoved};

/// What is missing or contradictory; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No server.
    Url,
    /// Nothing to prove who we are.
    Credentials,
    /// One half of an API key pair.
    Half {
        /// The property that is set.
        given: &'static str,
        /// The one that is missing.
        missing: &'static str,
        /// The variable that can stand in.
        variable: &'static str,
    },
    /// An API key pair but no room.
    Room,
    /// A participant attribute that is not a string, number or boolean.
    Attribute(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url => f.write_str(
                "No LiveKit server given: set the property url (for example ws://127.0.0.1:7880) or the \
                 environment variable LIVEKIT_URL",
            ),
            Self::Credentials => f.write_str(
                "No credentials given: set token-file, token or both api-key and api-secret, connect to the \
                 signal request-token, or set the environment variables LIVEKIT_TOKEN, or LIVEKIT_API_KEY \
                 and LIVEKIT_API_SECRET",
            ),
            Self::Half { given, missing, variable } => write!(
                f,
                "{given} is given but {missing} is not: set the property {missing} or the environment \
                 variable {variable}"
            ),
            Self::Room => f.write_str(
                "An API key and secret are given but no room: set the property room or the environment \
                 variable LIVEKIT_ROOM (only a token carries its own room)",
            ),
            Self::Attribute(name) => {
                write!(f, "The participant attribute '{name}' is not a text: write {name}=(string)…")
            }
        }
    }
}

/// The configuration that `settings` and the environment amount to. `provider` is the `request-token` signal,
/// if anybody is connected to it. Returns also where the credentials came from, for the log.
pub(crate) fn resolve(
    settings: &Settings,
    identity: &str,
    provider: Option<TokenProvider>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(SessionConfig, &'static str), Missing> {
    let env = |name: &str| env(name).filter(|v| !v.trim().is_empty());
    let url = settings.url.clone().or_else(|| env("LIVEKIT_URL")).ok_or(Missing::Url)?;
    let room = settings.room.clone().or_else(|| env("LIVEKIT_ROOM"));

    let (credentials, origin) = if let Some(provider) = provider {
        (Credentials::Provider(provider), "signal request-token")
    } else if let Some(path) = &settings.token_file {
        (Credentials::TokenFile(PathBuf::from(path)), "token-file")
    } else if let Some(token) = settings.token.clone().or_else(|| env("LIVEKIT_TOKEN")) {
        let origin = if settings.token.is_some() { "token" } else { "LIVEKIT_TOKEN" };
        (Credentials::Token(Secret::new(token.trim())), origin)
    } else {
        let key = settings.api_key.clone().or_else(|| env("LIVEKIT_API_KEY"));
        let secret = settings.api_secret.clone().or_else(|| env("LIVEKIT_API_SECRET"));
        match (key, secret) {
            (Some(key), Some(secret)) => {
                if room.is_none() {
                    return Err(Missing::Room);
                }
                let credentials =
                    Credentials::ApiKey { key: Secret::new(key.trim()), secret: Secret::new(secret.trim()) };
                (credentials, "api-key and api-secret")
            }
            (Some(_), None) => {
                return Err(Missing::Half {
                    given: "api-key",
                    missing: "api-secret",
                    variable: "LIVEKIT_API_SECRET",
                });
            }
            (None, Some(_)) => {
                return Err(Missing::Half {
                    given: "api-secret",
                    missing: "api-key",
                    variable: "LIVEKIT_API_KEY",
                });
            }
            (None, None) => return Err(Missing::Credentials),
        }
    };

    let mut config = SessionConfig::new(url.trim(), credentials);
    config.room = room;
    config.identity = Some(identity.to_string());
    let shown = description(settings)?;
    (config.name, config.metadata, config.attributes) = (shown.name, shown.metadata, shown.attributes);
    config.tls_ca_file = settings.tls_ca_file.as_ref().map(PathBuf::from);
    config.ice_transport_policy = match settings.ice_transport_policy {
        IceTransportPolicy::All => livekit_session::IceTransportPolicy::All,
        IceTransportPolicy::Relay => livekit_session::IceTransportPolicy::Relay,
    };
    config.connect_timeout = settings.connect_timeout;
    config.keyframe_min_interval = settings.keyframe_min_interval;
    config.max_queue_time = settings.max_queue_time;
    config.reconnect_attempts = u32::try_from(settings.reconnect_attempts).ok();
    config.rejoin_when_removed = settings.on_removed == OnRemoved::Rejoin;
    config.user_agent = Some(concat!("livekitsink/", env!("CARGO_PKG_VERSION")).into());
    Ok((config, origin))
}

/// What the participant shows of itself.
pub(crate) fn description(settings: &Settings) -> Result<Description, Missing> {
    Ok(Description {
        name: settings.participant_name.clone(),
        metadata: settings.metadata.clone(),
        attributes: attributes(settings.attributes.as_ref())?,
    })
}

/// Attributes are texts; gst-launch makes a number of `floor=3`, which is taken as it was written.
fn attributes(structure: Option<&gst::Structure>) -> Result<BTreeMap<String, String>, Missing> {
    let mut attributes = BTreeMap::new();
    for (name, value) in structure.iter().flat_map(|s| s.iter()) {
        let text = value
            .get::<String>()
            .or_else(|_| value.get::<i32>().map(|v| v.to_string()))
            .or_else(|_| value.get::<bool>().map(|v| v.to_string()))
            .or_else(|_| value.get::<f64>().map(|v| v.to_string()))
            .map_err(|_| Missing::Attribute(name.to_string()))?;
        attributes.insert(name.to_string(), text);
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn settings() -> Settings {
        Settings { url: Some("ws://host".into()), ..Settings::default() }
    }

    fn missing(settings: &Settings, env: impl Fn(&str) -> Option<String>) -> Missing {
        resolve(settings, "me", None, env).unwrap_err()
    }

    #[test]
    fn each_missing_part_has_its_own_error_that_names_property_and_variable() {
        let all = |name: &str| Some(name.to_lowercase());
        let without = |left_out: &'static str| move |name: &str| (name != left_out).then(|| "x".to_string());
        let empty = Settings::default();
        assert_eq!(missing(&empty, without("LIVEKIT_URL")), Missing::Url);
        assert_eq!(missing(&settings(), none), Missing::Credentials);
        let key_pair = |name: &str| (name != "LIVEKIT_TOKEN" && name != "LIVEKIT_ROOM").then(|| "x".into());
        assert_eq!(missing(&empty, key_pair), Missing::Room);
        let key = Settings { api_key: Some("k".into()), ..settings() };
        assert!(matches!(missing(&key, none), Missing::Half { missing: "api-secret", .. }));
        let secret = Settings { api_secret: Some("s".into()), ..settings() };
        assert!(matches!(missing(&secret, none), Missing::Half { missing: "api-key", .. }));
        assert!(resolve(&empty, "me", None, all).is_ok());
        for (error, names) in [
            (Missing::Url, ["url", "LIVEKIT_URL"]),
            (Missing::Room, ["room", "LIVEKIT_ROOM"]),
            (Missing::Credentials, ["request-token", "LIVEKIT_API_SECRET"]),
        ] {
            assert!(names.iter().all(|n| error.to_string().contains(n)), "{error}");
        }
    }

    #[test]
    fn credentials_are_taken_in_the_documented_order() {
        let mut settings = Settings {
            token: Some("t".into()),
            token_file: Some("f".into()),
            api_key: Some("k".into()),
            api_secret: Some("s".into()),
            room: Some("r".into()),
            ..settings()
        };
        let provider: TokenProvider = Arc::new(|| Err(String::new()));
        let kind =
            |settings: &Settings, provider| resolve(settings, "me", provider, none).unwrap().0.credentials;
        assert!(matches!(kind(&settings, Some(provider)), Credentials::Provider(_)));
        assert!(matches!(kind(&settings, None), Credentials::TokenFile(_)));
        settings.token_file = None;
        assert!(matches!(kind(&settings, None), Credentials::Token(_)));
        settings.token = None;
        assert!(matches!(kind(&settings, None), Credentials::ApiKey { .. }));
    }

    #[test]
    fn a_property_beats_its_variable_and_blank_variables_do_not_count() {
        let env = |name: &str| {
            Some(match name {
                "LIVEKIT_URL" => "ws://env".to_string(),
                "LIVEKIT_TOKEN" => " ".into(),
                other => other.to_string(),
            })
        };
        let own = Settings { room: Some("own".into()), ..settings() };
        let (config, origin) = resolve(&own, "me", None, env).unwrap();
        assert_eq!((config.url.as_str(), config.room.as_deref()), ("ws://host", Some("own")));
        assert_eq!(origin, "api-key and api-secret");
        let (config, _) = resolve(&Settings::default(), "me", None, env).unwrap();
        assert_eq!((config.url.as_str(), config.room.as_deref()), ("ws://env", Some("LIVEKIT_ROOM")));
    }

    #[test]
    fn participant_and_reconnect_settings_arrive() {
        gst::init().unwrap();
        let mut settings = Settings { token: Some("t".into()), ..settings() };
        settings.participant_name = Some("Front door".into());
        settings.attributes = "a, floor=3, side=left, on=true".parse().ok();
        settings.reconnect_attempts = 0;
        let config = resolve(&settings, "me", None, none).unwrap().0;
        assert_eq!(config.identity.as_deref(), Some("me"));
        assert_eq!(config.name.as_deref(), Some("Front door"));
        let expected = [("floor", "3"), ("on", "true"), ("side", "left")];
        let found: Vec<_> = config.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(config.reconnect_attempts, Some(0));
        assert!(!config.rejoin_when_removed);
        settings.on_removed = OnRemoved::Rejoin;
        settings.reconnect_attempts = -1;
        assert!(resolve(&settings, "me", None, none).unwrap().0.rejoin_when_removed);
        assert_eq!(resolve(&settings, "me", None, none).unwrap().0.reconnect_attempts, None);
        settings.attributes = "a, list=<1,2>".parse().ok();
        assert_eq!(missing(&settings, none), Missing::Attribute("list".into()));
    }

    #[test]
    fn no_secret_is_printed() {
        let settings = Settings { token: Some("SECRET".into()), ..settings() };
        let config = resolve(&settings, "me", None, none).unwrap().0;
        assert!(!format!("{config:?}").contains("SECRET"));
    }
}
