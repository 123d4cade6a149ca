// SPDX-License-Identifier: MIT OR Apache-2.0

//! See [`crate::fuzzing`].

use prost::Message as _;

use super::inbound;
use super::regions::usable;

/// A message of the server's: what is taken is one that can be said again in about as many bytes.
pub fn signal_message(input: &[u8]) {
    let later = inbound::check(input, false);
    let first = inbound::check(input, true);
    if let Ok(message) = &later {
        assert_eq!(first.as_ref(), Ok(message), "the first one may be larger, nothing else");
    }
    if let Ok(message) = first {
        let again = livekit_protocol::SignalResponse { message: Some(message) };
        // Beside what is unknown, which is left out, an empty part that is given twice becomes one.
        assert!(again.encoded_len() <= input.len() + 16);
    }
}

/// Addresses of regions, one a line; the first is the server's own.
pub fn regions(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines().map(str::to_owned);
    let own = lines.next().unwrap_or_default();
    let secure = ["wss:", "https:"].iter().any(|scheme| own.to_ascii_lowercase().starts_with(scheme));
    for url in usable(lines, &own) {
        let parsed = url::Url::parse(&url);
        assert!(parsed.as_ref().is_ok_and(url::Url::has_host), "{url}");
        let in_clear = parsed.is_ok_and(|url| matches!(url.scheme(), "ws" | "http"));
        assert!(!(secure && in_clear), "{url} for {own}");
    }
}
