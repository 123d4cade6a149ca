// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tracks of one connection on their way from "wanted" to "published". No I/O: the engine asks what is
//! to be done next and reports what the server answered.

use std::collections::BTreeMap;

use livekit_protocol as proto;
use str0m::media::{Mid, Pt, Rid, Simulcast, SimulcastLayer};

use super::trailer;
use crate::config::{Codec, TrackConfig, TrackSource};
use crate::event::{Quality, TrackId};

/// How LiveKit's servers want the RTP streams of a simulcast track to be called (RFC 8852), from low to high.
const RIDS: [&str; 3] = ["q", "h", "f"];
/// The most layers that a track can have.
pub(crate) const MAX_LAYERS: usize = RIDS.len();

/// One track.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) config: TrackConfig,
    /// Our id for it: `cid` in the signalling, track id in the SDP.
    pub(crate) cid: String,
    /// The server's id, once it has agreed.
    pub(crate) sid: Option<String>,
    /// What the server was told last.
    muted: bool,
    /// The media section, once it has been offered.
    pub(crate) mid: Option<Mid>,
    /// The server has answered the offer that contains it.
    pub(crate) negotiated: bool,
    /// Reported as published.
    pub(crate) reported: bool,
    /// The payload type in use, chosen with the first frame.
    pub(crate) pt: Option<Pt>,
}

impl Publication {
    /// What a layer's RTP stream is called; `None` = a track of one layer, whose stream needs no name.
    pub(crate) fn rid(&self, layer: usize) -> Option<Rid> {
        rid(layer, self.config.layers.len())
    }

    /// The layers to be offered; `None` = no simulcast.
    pub(crate) fn simulcast(&self) -> Option<Simulcast> {
        let count = self.config.layers.len();
        let mut simulcast = Simulcast::new();
        for rid in (0..count).filter_map(|layer| rid_name(layer, count)) {
            simulcast.add_send_layer(SimulcastLayer::new(rid));
        }
        (!simulcast.send.is_empty()).then_some(simulcast)
    }
}

fn rid_name(layer: usize, layers: usize) -> Option<&'static str> {
    RIDS.get(layer).copied().filter(|_| layers > 1 && layer < layers)
}

fn rid(layer: usize, layers: usize) -> Option<Rid> {
    rid_name(layer, layers).map(Rid::from)
}

/// All tracks of a connection.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    tracks: BTreeMap<TrackId, Publication>,
    /// Media sections of closed tracks, to be switched off in the next offer.
    to_stop: Vec<Mid>,
}

/// What the next offer has to contain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OfferPlan {
    pub(crate) add: Vec<TrackId>,
    pub(crate) stop: Vec<Mid>,
}

impl OfferPlan {
    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.stop.is_empty()
    }
}

impl Publications {
    /// A new track: gives the request that announces it to the server.
    pub(crate) fn add(&mut self, id: TrackId, config: &TrackConfig, cid: String) -> proto::AddTrackRequest {
        let request = add_track_request(config, &cid);
        let publication = Publication {
            config: config.clone(),
            cid,
            sid: None,
            muted: config.muted,
            mid: None,
            negotiated: false,
            reported: false,
            pt: None,
        };
        self.tracks.insert(id, publication);
        request
    }

    /// Forgets a track: gives its server id if it had been reported as published.
    pub(crate) fn remove(&mut self, id: TrackId) -> Option<String> {
        let track = self.tracks.remove(&id)?;
        self.to_stop.extend(track.mid);
        track.sid.filter(|_| track.reported)
    }

    /// The server agreed to the track with this `cid`.
    pub(crate) fn announced(&mut self, cid: &str, sid: String) -> Option<TrackId> {
        let (id, track) = self.tracks.iter_mut().find(|(_, t)| t.cid == cid)?;
        track.sid = Some(sid);
        Some(*id)
    }

    /// Mutes or unmutes a track: gives the server's id of the track if the server is to be told now.
    pub(crate) fn set_muted(&mut self, id: TrackId, muted: bool) -> Option<String> {
        let track = self.tracks.get_mut(&id)?;
        track.config.muted = muted;
        self.untold_mute(id)
    }

    /// A track that was muted or unmuted since it was announced: its id at the server, given once.
    pub(crate) fn untold_mute(&mut self, id: TrackId) -> Option<String> {
        let track = self.tracks.get_mut(&id)?;
        let sid = track.sid.clone()?;
        (std::mem::replace(&mut track.muted, track.config.muted) != track.config.muted).then_some(sid)
    }

    /// The server muted or unmuted a track.
    pub(crate) fn muted_by_server(&mut self, id: TrackId, muted: bool) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.config.muted = muted;
            track.muted = muted;
        }
    }

    /// What to put into an offer now.
    pub(crate) fn plan(&mut self) -> OfferPlan {
        OfferPlan {
            add: self
                .tracks
                .iter()
                .filter(|(_, t)| t.sid.is_some() && t.mid.is_none())
                .map(|(id, _)| *id)
                .collect(),
            stop: std::mem::take(&mut self.to_stop),
        }
    }

    /// An offer with this media section was sent.
    pub(crate) fn offered(&mut self, id: TrackId, mid: Mid) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.mid = Some(mid);
        }
    }

    /// The answer to everything offered so far has come.
    pub(crate) fn answered(&mut self) {
        for track in self.tracks.values_mut().filter(|t| t.mid.is_some()) {
            track.negotiated = true;
        }
    }

    /// Tracks that can be reported as published now that the transport is up: each is given once.
    pub(crate) fn newly_published(&mut self) -> Vec<(TrackId, String, String, Codec)> {
        let mut list = Vec::new();
        for (id, track) in &mut self.tracks {
            if track.negotiated
                && !track.reported
                && let Some(sid) = &track.sid
            {
                track.reported = true;
                list.push((*id, sid.clone(), track.config.name.clone(), track.config.codec));
            }
        }
        list
    }

    pub(crate) fn get_mut(&mut self, id: TrackId) -> Option<&mut Publication> {
        self.tracks.get_mut(&id)
    }

    /// The track and layer of an RTP stream.
    pub(crate) fn by_stream(&self, mid: Mid, stream: Option<Rid>) -> Option<(TrackId, usize)> {
        let (id, track) = self.tracks.iter().find(|(_, t)| t.mid == Some(mid))?;
        let count = track.config.layers.len();
        let layer = match count {
            1 => 0,
            _ => (0..count).find(|layer| rid(*layer, count) == stream)?,
        };
        Some((*id, layer))
    }

    pub(crate) fn by_sid(&self, sid: &str) -> Option<TrackId> {
        self.tracks.iter().find(|(_, t)| t.sid.as_deref() == Some(sid)).map(|(id, _)| *id)
    }

    pub(crate) fn by_cid(&self, cid: &str) -> Option<TrackId> {
        self.tracks.iter().find(|(_, t)| t.cid == cid).map(|(id, _)| *id)
    }

    /// Tracks that the server knows, as it is told of them when a stay is resumed.
    pub(crate) fn published(&self) -> impl Iterator<Item = proto::TrackPublishedResponse> + '_ {
        self.tracks.values().filter_map(|track| {
            let info = proto::TrackInfo {
                sid: track.sid.clone()?,
                name: track.config.name.clone(),
                r#type: track_type(&track.config) as i32,
                muted: track.muted,
                ..Default::default()
            };
            Some(proto::TrackPublishedResponse { cid: track.cid.clone(), track: Some(info) })
        })
    }

    /// Tracks that the server has answered, with their media sections.
    pub(crate) fn negotiated(&self) -> impl Iterator<Item = (TrackId, Mid, Codec)> + '_ {
        let answered = self.tracks.iter().filter(|(_, t)| t.negotiated);
        answered.filter_map(|(id, t)| Some((*id, t.mid?, t.config.codec)))
    }

    /// Whether a track waits for the server.
    pub(crate) fn unanswered(&self) -> bool {
        self.tracks.values().any(|t| !t.negotiated)
    }

    /// RTP streams that may carry something.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (Mid, Option<Rid>)> + '_ {
        self.tracks.values().filter(|t| t.negotiated).flat_map(|track| {
            let layers = 0..track.config.layers.len();
            layers.filter_map(|layer| Some((track.mid?, track.rid(layer))))
        })
    }

    /// Media sections of audio that is sent without redundancy.
    pub(crate) fn without_red(&self) -> impl Iterator<Item = Mid> + '_ {
        let plain = self.tracks.values().filter(|t| t.config.codec == Codec::Opus && !t.config.red);
        plain.filter_map(|t| t.mid)
    }

    pub(crate) fn configs(&self) -> impl Iterator<Item = &TrackConfig> {
        self.tracks.values().map(|t| &t.config)
    }
}

fn track_type(config: &TrackConfig) -> proto::TrackType {
    if config.codec.is_video() { proto::TrackType::Video } else { proto::TrackType::Audio }
}

fn add_track_request(config: &TrackConfig, cid: &str) -> proto::AddTrackRequest {
    let is_video = config.codec.is_video();
    let top = config.top_layer();
    // Each layer with its real size, so that the server can tell what it forwards. A single one is called HIGH.
    let count = config.layers.len();
    let layer = |(index, layer): (usize, &crate::config::LayerConfig)| proto::VideoLayer {
        quality: match Quality::of_layer(index, count) {
            Quality::Low => proto::VideoQuality::Low,
            Quality::Medium => proto::VideoQuality::Medium,
            Quality::High => proto::VideoQuality::High,
        } as i32,
        width: layer.width,
        height: layer.height,
        bitrate: layer.max_bitrate,
        spatial_layer: i32::try_from(index).unwrap_or_default(),
        rid: rid_name(index, count).unwrap_or_default().into(),
        ..Default::default()
    };
    let layers: Vec<_> = match is_video {
        true => config.layers.iter().enumerate().map(layer).collect(),
        false => Vec::new(),
    };
    let source = match config.source {
        TrackSource::Unknown => proto::TrackSource::Unknown,
        TrackSource::Camera => proto::TrackSource::Camera,
        TrackSource::Microphone => proto::TrackSource::Microphone,
        TrackSource::ScreenShare => proto::TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio => proto::TrackSource::ScreenShareAudio,
    };
    // Without the codec's mime type here, the server guesses when several codecs are offered, and may
    // forward nothing.
    let codec = proto::SimulcastCodec {
        codec: config.codec.mime_type().split('/').next_back().unwrap_or_default().into(),
        cid: cid.into(),
        layers: layers.clone(),
        video_layer_mode: proto::video_layer::Mode::OneSpatialLayerPerStream as i32,
    };
    let mut audio_features = Vec::new();
    if !is_video {
        if config.stereo {
            audio_features.push(proto::AudioTrackFeature::TfStereo as i32);
        }
        if !config.dtx {
            audio_features.push(proto::AudioTrackFeature::TfNoDtx as i32);
        }
    }
    #[allow(deprecated, reason = "servers of today still read `stereo` and `disable_dtx`")]
    proto::AddTrackRequest {
        cid: cid.into(),
        name: config.name.clone(),
        r#type: track_type(config) as i32,
        width: top.width,
        height: top.height,
        muted: config.muted,
        source: source as i32,
        layers,
        simulcast_codecs: if is_video { vec![codec] } else { Vec::new() },
        stereo: config.stereo,
        disable_dtx: !config.dtx,
        disable_red: !config.red,
        audio_features,
        packet_trailer_features: match config.capture_trailer && trailer::carries(config.codec) {
            true => vec![proto::PacketTrailerFeature::PtfUserTimestamp as i32],
            false => Vec::new(),
        },
        stream: "media".into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LayerConfig;

    #[test]
    fn a_trailer_is_announced_only_where_it_is_sent() {
        for (codec, wanted, announced) in
            [(Codec::H264, true, 1), (Codec::H264, false, 0), (Codec::Av1, true, 0), (Codec::Opus, true, 0)]
        {
            let mut config = TrackConfig::new(codec, "v");
            config.capture_trailer = wanted;
            let request = Publications::default().add(TrackId(1), &config, "c".into());
            assert_eq!(request.packet_trailer_features.len(), announced, "{codec:?}");
        }
    }

    fn config() -> TrackConfig {
        let mut config = TrackConfig::new(Codec::H264, "front");
        let layer = &mut config.layers[0];
        (layer.width, layer.height, layer.max_bitrate) = (1280, 720, 2_000_000);
        config
    }

    #[test]
    fn the_request_names_codec_and_size() {
        let request = Publications::default().add(TrackId(1), &config(), "cid1".into());
        assert_eq!(request.simulcast_codecs[0].codec, "h264");
        assert_eq!((request.width, request.height), (1280, 720));
        let layer = &request.simulcast_codecs[0].layers[0];
        assert_eq!((layer.width, layer.height, layer.bitrate), (1280, 720, 2_000_000));
    }

    #[test]
    fn every_codec_is_named_as_the_server_knows_it() {
        for (codec, name) in [
            (Codec::H264, "h264"),
            (Codec::H265, "h265"),
            (Codec::Vp8, "vp8"),
            (Codec::Vp9, "vp9"),
            (Codec::Av1, "av1"),
        ] {
            let request = add_track_request(&TrackConfig::new(codec, "v"), "c");
            assert_eq!(request.simulcast_codecs[0].codec, name);
            // Unset, the server would expect spatial layers within one stream of VP9 and AV1.
            let mode = request.simulcast_codecs[0].video_layer_mode();
            assert_eq!(mode, proto::video_layer::Mode::OneSpatialLayerPerStream);
        }
    }

    #[test]
    #[allow(deprecated, reason = "servers of today still read them")]
    fn audio_says_what_it_has() {
        use proto::AudioTrackFeature::{TfNoDtx, TfStereo};
        let plain = TrackConfig::new(Codec::Opus, "a");
        let request = add_track_request(&plain, "c");
        assert_eq!((request.stereo, request.disable_dtx, request.disable_red), (false, true, true));
        assert_eq!(request.audio_features, [TfNoDtx as i32]);
        let all = TrackConfig { stereo: true, dtx: true, red: true, ..plain };
        let request = add_track_request(&all, "c");
        assert_eq!((request.stereo, request.disable_dtx, request.disable_red), (true, false, false));
        assert_eq!(request.audio_features, [TfStereo as i32]);
    }

    #[test]
    fn a_track_is_offered_once_agreed_and_reported_once_answered() {
        let mut p = Publications::default();
        p.add(TrackId(1), &config(), "a".into());
        p.add(TrackId(2), &config(), "b".into());
        assert!(p.plan().is_empty());
        assert_eq!(p.announced("b", "TR_b".into()), Some(TrackId(2)));
        assert_eq!(p.announced("x", "TR_x".into()), None);
        assert_eq!(p.plan().add, [TrackId(2)]);
        let mid = Mid::from("0");
        p.offered(TrackId(2), mid);
        assert!(p.plan().is_empty() && p.newly_published().is_empty());
        p.answered();
        assert_eq!(p.newly_published().len(), 1);
        assert!(p.newly_published().is_empty(), "each is reported once");
        assert_eq!((p.by_stream(mid, None), p.by_sid("TR_b")), (Some((TrackId(2), 0)), Some(TrackId(2))));
    }

    #[test]
    fn a_removed_track_is_stopped_in_the_next_offer() {
        let mut p = Publications::default();
        p.add(TrackId(1), &config(), "a".into());
        assert_eq!(p.remove(TrackId(1)), None, "was never published");
        p.add(TrackId(2), &config(), "b".into());
        p.announced("b", "TR_b".into());
        p.offered(TrackId(2), Mid::from("0"));
        p.answered();
        p.newly_published();
        assert_eq!(p.remove(TrackId(2)), Some("TR_b".into()));
        assert_eq!(p.plan(), OfferPlan { add: vec![], stop: vec![Mid::from("0")] });
        assert!(p.plan().is_empty());
    }

    fn layers(sizes: &[(u32, u32)]) -> TrackConfig {
        let mut config = config();
        config.layers = sizes
            .iter()
            .map(|(width, height)| LayerConfig {
                width: *width,
                height: *height,
                max_bitrate: width * 1000,
                ..LayerConfig::default()
            })
            .collect();
        config
    }

    /// (rid, quality, width) of each layer announced, and the rids offered.
    fn announced(config: &TrackConfig) -> (Vec<(String, i32, u32)>, Vec<String>) {
        let mut p = Publications::default();
        let request = p.add(TrackId(1), config, "c".into());
        let codec = &request.simulcast_codecs[0];
        assert_eq!(request.layers, codec.layers, "the same in both places");
        assert_eq!(codec.video_layer_mode, proto::video_layer::Mode::OneSpatialLayerPerStream as i32);
        assert_eq!(request.width, config.top_layer().width);
        let offered = p.get_mut(TrackId(1)).unwrap().simulcast();
        let offered = offered.map(|s| s.send.iter().map(|l| l.rid.to_string()).collect()).unwrap_or_default();
        (request.layers.into_iter().map(|l| (l.rid, l.quality, l.width)).collect(), offered)
    }

    #[test]
    fn layers_are_announced_and_offered_as_servers_expect_them() {
        let (low, medium, high) = (
            proto::VideoQuality::Low as i32,
            proto::VideoQuality::Medium as i32,
            proto::VideoQuality::High as i32,
        );
        let (all, rids) = announced(&layers(&[(320, 180), (640, 360), (1280, 720)]));
        assert_eq!(all, [("q".into(), low, 320), ("h".into(), medium, 640), ("f".into(), high, 1280)]);
        assert_eq!(rids, ["q", "h", "f"]);
        let (two, rids) = announced(&layers(&[(320, 180), (640, 360)]));
        assert_eq!(two, [("q".into(), low, 320), ("h".into(), medium, 640)]);
        assert_eq!(rids, ["q", "h"]);
        let (one, rids) = announced(&layers(&[(640, 360)]));
        assert_eq!(one, [(String::new(), high, 640)]);
        assert!(rids.is_empty());
    }

    #[test]
    fn streams_are_told_apart_by_their_rid() {
        let mut p = Publications::default();
        p.add(TrackId(1), &layers(&[(320, 180), (640, 360)]), "a".into());
        p.add(TrackId(2), &config(), "b".into());
        let (first, second) = (Mid::from("0"), Mid::from("1"));
        p.offered(TrackId(1), first);
        p.offered(TrackId(2), second);
        p.answered();
        assert_eq!(p.by_stream(first, Some(Rid::from("h"))), Some((TrackId(1), 1)));
        assert_eq!(p.by_stream(first, Some(Rid::from("q"))), Some((TrackId(1), 0)));
        assert_eq!(p.by_stream(first, Some(Rid::from("f"))), None, "no such layer");
        assert_eq!(p.by_stream(first, None), None);
        assert_eq!(p.by_stream(second, None), Some((TrackId(2), 0)));
        let streams: Vec<_> = p.streams().collect();
        assert_eq!(streams, [(first, Some(Rid::from("q"))), (first, Some(Rid::from("h"))), (second, None)]);
    }

    #[test]
    fn the_server_is_told_of_muting_once_it_knows_the_track() {
        let mut p = Publications::default();
        let mut muted = config();
        muted.muted = true;
        assert!(p.add(TrackId(1), &muted, "a".into()).muted);
        assert_eq!(p.set_muted(TrackId(1), false), None, "not agreed to yet");
        p.announced("a", "TR".into());
        assert_eq!(p.untold_mute(TrackId(1)), Some("TR".into()));
        assert_eq!(p.untold_mute(TrackId(1)), None, "told once");
        assert_eq!(p.set_muted(TrackId(1), true), Some("TR".into()));
        assert_eq!(p.set_muted(TrackId(1), true), None, "no change");
        p.muted_by_server(TrackId(1), false);
        assert_eq!(p.set_muted(TrackId(1), false), None, "the server knows");
        assert_eq!(p.set_muted(TrackId(1), true), Some("TR".into()));
    }
}
