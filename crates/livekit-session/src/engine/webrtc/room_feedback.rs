// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the server says of our tracks' subscribers (dynacast), and muting in both directions.

use livekit_protocol as proto;
use livekit_protocol::signal_request;

use super::WebRtcEngine;
use crate::engine::EngineEvent;
use crate::event::{Quality, TrackId};

impl WebRtcEngine {
    pub(super) fn on_subscribed_quality(&mut self, update: &proto::SubscribedQualityUpdate) {
        let Some(track) = self.publications.by_sid(&update.track_sid) else { return };
        self.events.push_back(EngineEvent::SubscribedQuality { track, qualities: qualities(update) });
    }

    pub(super) fn on_mute(&mut self, mute: &proto::MuteTrackRequest) {
        if let Some(track) = self.publications.by_sid(&mute.sid) {
            self.publications.muted_by_server(track, mute.muted);
            self.events.push_back(EngineEvent::Muted { track, muted: mute.muted });
        }
    }

    /// Tells the server whether a track that it calls `sid` is muted.
    pub(super) fn send_muted(&mut self, track: TrackId, sid: String) {
        if let Some(publication) = self.publications.get_mut(track) {
            let muted = publication.config.muted;
            self.signal.send(signal_request::Message::Mute(proto::MuteTrackRequest { sid, muted }));
        }
    }
}

/// The qualities that an update speaks of, and whether anybody subscribes to them.
fn qualities(update: &proto::SubscribedQualityUpdate) -> Vec<(Quality, bool)> {
    #[allow(deprecated, reason = "servers before codec-wise updates fill in only this")]
    let plain = update.subscribed_qualities.iter().filter(|_| update.subscribed_codecs.is_empty());
    let listed = update.subscribed_codecs.iter().flat_map(|codec| codec.qualities.iter());
    listed
        .chain(plain)
        .filter_map(|listed| {
            let quality = match listed.quality() {
                proto::VideoQuality::Low => Quality::Low,
                proto::VideoQuality::Medium => Quality::Medium,
                proto::VideoQuality::High => Quality::High,
                proto::VideoQuality::Off => return None,
            };
            Some((quality, listed.enabled))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(deprecated)]
    fn updates_are_read_in_their_old_and_new_form() {
        let listed = |quality: proto::VideoQuality, enabled| proto::SubscribedQuality {
            quality: quality as i32,
            enabled,
        };
        let (low, high) = (listed(proto::VideoQuality::Low, true), listed(proto::VideoQuality::High, false));
        let codec = proto::SubscribedCodec { codec: "h264".into(), qualities: vec![low, high] };
        let new = proto::SubscribedQualityUpdate {
            subscribed_codecs: vec![codec],
            // Filled in for old clients too; not to be counted twice.
            subscribed_qualities: vec![low],
            ..Default::default()
        };
        assert_eq!(qualities(&new), [(Quality::Low, true), (Quality::High, false)]);
        let off = listed(proto::VideoQuality::Off, true);
        let old =
            proto::SubscribedQualityUpdate { subscribed_qualities: vec![high, off], ..Default::default() };
        assert_eq!(qualities(&old), [(Quality::High, false)]);
    }
}
