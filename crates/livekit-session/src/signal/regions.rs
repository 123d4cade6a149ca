// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where else a server can be reached: LiveKit Cloud tells the addresses of its regions, when it is asked and when it
//! sends somebody away from one of them.

use livekit_signaling::RegionUrlProvider;
use tracing::debug;

use super::transport::{self, ATTEMPT, Attempt};
use crate::config::{Secret, SessionConfig};
use crate::error::redact;

/// Regions that are tried, at most.
const MAX_REGIONS: usize = 8;
const MAX_URL: usize = 1024;

/// The regions of the server, the best one first; asked of LiveKit Cloud only, as other servers have none. Empty also if
/// they are not to be had, within three seconds.
pub(crate) async fn fetch(config: &SessionConfig, token: &Secret) -> Vec<String> {
    transport::register();
    let attempt = Attempt::new(config);
    let asked = RegionUrlProvider::fetch_region_urls(&config.url, token.expose());
    match ATTEMPT.scope(attempt.clone(), asked).await {
        Ok(urls) => usable(urls, &config.url),
        Err(error) => {
            let error = super::translate(error, &attempt, config, token);
            debug!(%error, "the server's regions are not to be had");
            Vec::new()
        }
    }
}

/// What of `urls` is worth a try beside `url`. A token must not go anywhere in the clear that was not meant to.
pub(crate) fn usable(urls: impl IntoIterator<Item = String>, url: &str) -> Vec<String> {
    let is_secure = |url: &url::Url| matches!(url.scheme(), "wss" | "https");
    let is_plain = |url: &url::Url| matches!(url.scheme(), "ws" | "http");
    let needs_tls = !url::Url::parse(url).is_ok_and(|url| is_plain(&url));
    let mut found: Vec<String> = Vec::new();
    for candidate in urls {
        let Some(parsed) = url::Url::parse(&candidate).ok().filter(|_| candidate.len() <= MAX_URL) else {
            continue;
        };
        let fits = is_secure(&parsed) || (!needs_tls && is_plain(&parsed));
        let another = redact(&candidate) != redact(url) && !found.contains(&candidate);
        if fits && another && parsed.has_host() && found.len() < MAX_REGIONS {
            found.push(candidate);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(urls: &[&str], url: &str) -> Vec<String> {
        usable(urls.iter().map(ToString::to_string), url)
    }

    #[test]
    fn only_other_servers_that_are_no_less_safe_are_tried() {
        let urls = [
            "wss://p.livekit.cloud/",
            "ws://a.example",
            "https://b.example",
            "wss://b.example",
            "ftp://c",
            "",
            "x",
        ];
        assert_eq!(chosen(&urls, "wss://p.livekit.cloud"), ["https://b.example", "wss://b.example"]);
        assert_eq!(chosen(&urls[..2], "ws://p.example"), ["wss://p.livekit.cloud/", "ws://a.example"]);
        assert_eq!(chosen(&["ws://a", "ws://a"], "ws://p"), ["ws://a"]);
    }

    #[test]
    fn a_list_without_end_is_cut_off() {
        let many: Vec<String> = (0..10_000).map(|i| format!("wss://r{i}.example")).collect();
        assert_eq!(usable(many, "wss://p").len(), MAX_REGIONS);
        assert!(chosen(&[&format!("wss://{}.example", "a".repeat(MAX_URL))], "wss://p").is_empty());
    }
}
