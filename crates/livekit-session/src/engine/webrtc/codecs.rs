// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which payload types there are, which of them a track offers, and which codecs a room takes.

use std::time::Duration;

use livekit_protocol as proto;
use str0m::RtcConfig;
use str0m::bwe::Bitrate;
use str0m::format::{Codec as RtcCodec, FormatParams, PayloadParams};
use str0m::media::{Frequency, Pt};
use str0m::rtp::{Extension, ExtensionMap};

use crate::config::{Codec, H264Profile, TrackConfig};
use crate::congestion::SAMPLE_INTERVAL;

/// Where the bandwidth estimate starts. A publisher that starts too low sends its first picture late; the
/// estimator takes a start that is too high back within its first feedback rounds.
const START_BITRATE: u64 = 6_000_000;
/// Sender reports tie RTP time to wall time; the first ones decide how soon sound and picture are in step.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// From one connectivity check to the next on a path that is in use: how soon it is known that it has died.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Payload type, and that of its retransmissions (RFC 4588).
type Pair = (u8, u8);

/// H.264 with packetization-mode 1 (RFC 6184 §6.3), a pair and a `profile-level-id` for each profile. The level
/// is no promise: `level-asymmetry-allowed` stands beside it, and decoders go by the parameter sets.
const H264: [(H264Profile, Pair, u32); 4] = [
    (H264Profile::ConstrainedBaseline, (108, 109), 0x42e01f),
    (H264Profile::Baseline, (127, 121), 0x42001f),
    (H264Profile::Main, (125, 107), 0x4d001f),
    (H264Profile::High, (123, 119), 0x640032),
];
const H265: Pair = (116, 117);
const VP8: Pair = (96, 97);
const VP9: Pair = (98, 99);
const AV1: Pair = (45, 46);
const OPUS: u8 = 111;
/// RFC 2198 around Opus; the number is str0m's.
const RED: u8 = 63;

/// The engine's configuration: everything that the session can publish, nothing else.
pub(crate) fn rtc_config() -> RtcConfig {
    let mut extensions = ExtensionMap::empty();
    // What survives the server's answer; the others would cost bytes in every offer for nothing.
    extensions.set(1, Extension::RtpMid);
    extensions.set(2, Extension::TransportSequenceNumber);
    extensions.set(3, Extension::AbsoluteCaptureTime);
    extensions.set(10, Extension::RtpStreamId);
    extensions.set(11, Extension::RepairedRtpStreamId);
    let mut config = RtcConfig::new()
        .clear_codecs()
        .set_extension_map(extensions)
        .set_stats_interval(Some(SAMPLE_INTERVAL))
        .set_rtcp_report_interval_video(REPORT_INTERVAL)
        .set_rtcp_report_interval_audio(REPORT_INTERVAL)
        .enable_bwe(Some(Bitrate::bps(START_BITRATE)));
    config.set_max_stun_rto(CHECK_INTERVAL);
    let codecs = config.codec_config();
    codecs.enable_opus(true, true);
    for (_, (pt, rtx), profile_level_id) in H264 {
        codecs.add_h264(pt.into(), Some(rtx.into()), true, profile_level_id);
    }
    // Main profile, main tier, level 6: a limit, not what a stream has.
    codecs.add_h265(H265.0.into(), Some(H265.1.into()), 1, 0, 180);
    let vp9 = FormatParams { profile_id: Some(0), ..FormatParams::default() };
    for ((pt, rtx), codec, format) in [
        (VP8, RtcCodec::Vp8, FormatParams::default()),
        (VP9, RtcCodec::Vp9, vp9),
        (AV1, RtcCodec::Av1, FormatParams::default()),
    ] {
        codecs.add_config(pt.into(), Some(rtx.into()), codec, Frequency::NINETY_KHZ, None, format);
    }
    config
}

/// What the video sections of a connection offer. The server settles its video codecs for the connection's whole
/// life with the first section: by name and parameters if it knows some of them so, and only if it knows none, by
/// name alone. Of H.264 it knows constrained baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VideoOffer {
    /// All codecs, so that any may follow. H.264 of whatever profile goes by the name of constrained baseline;
    /// decoders go by the parameter sets.
    AnyCodec,
    /// H.264 alone, by the profile that each stream has.
    H264Profiles,
}

impl VideoOffer {
    /// For a connection that has these tracks.
    pub(crate) fn choose<'a>(tracks: impl Iterator<Item = &'a TrackConfig>) -> Self {
        let (mut h264_only, mut named) = (true, false);
        for track in tracks.filter(|track| track.codec.is_video()) {
            h264_only &= track.codec == Codec::H264;
            named |= track.h264_profile != H264Profile::ConstrainedBaseline;
        }
        if h264_only && named { Self::H264Profiles } else { Self::AnyCodec }
    }

    /// Whether a track of this codec can be added.
    pub(crate) fn carries(self, codec: Codec) -> bool {
        self == Self::AnyCodec || codec == Codec::H264 || !codec.is_video()
    }
}

/// The payload types that the media section of a track offers, best first.
///
/// The server makes its track for the first codec of a section and takes packets of another one for a change of
/// codec, after which it forwards nothing. Hence the track's own come first; RED stands behind Opus where it is not
/// used, because str0m would else forget it for the tracks to come.
pub(crate) fn payload_types(config: &TrackConfig, video: VideoOffer) -> Vec<u8> {
    let own = own_payload_types(config, video);
    if !config.codec.is_video() || video == VideoOffer::H264Profiles {
        return own;
    }
    let others = Codec::ALL.into_iter().filter(|codec| codec.is_video() && *codec != config.codec);
    let others = others.flat_map(|codec| own_payload_types(&TrackConfig::new(codec, ""), video));
    own.iter().copied().chain(others).collect()
}

fn own_payload_types(config: &TrackConfig, video: VideoOffer) -> Vec<u8> {
    let (pt, rtx) = match config.codec {
        Codec::H264 if video == VideoOffer::AnyCodec => h264_pair(H264Profile::ConstrainedBaseline),
        Codec::H264 => h264_pair(config.h264_profile),
        Codec::H265 => H265,
        Codec::Vp8 => VP8,
        Codec::Vp9 => VP9,
        Codec::Av1 => AV1,
        Codec::Opus if config.red => return vec![RED, OPUS],
        Codec::Opus => return vec![OPUS, RED],
    };
    vec![pt, rtx]
}

fn h264_pair(profile: H264Profile) -> Pair {
    let known = H264.iter().find(|(of, ..)| *of == profile);
    known.map_or((0, 0), |(_, pair, _)| *pair)
}

/// The payload type, among those the server accepted, for a codec.
pub(crate) fn choose_payload<'a>(
    codec: Codec,
    mut accepted: impl Iterator<Item = &'a PayloadParams>,
) -> Option<Pt> {
    let wanted = match codec {
        Codec::H264 => RtcCodec::H264,
        Codec::H265 => RtcCodec::H265,
        Codec::Vp8 => RtcCodec::Vp8,
        Codec::Vp9 => RtcCodec::Vp9,
        Codec::Av1 => RtcCodec::Av1,
        Codec::Opus => RtcCodec::Opus,
    };
    accepted.find(|params| params.spec().codec == wanted).map(PayloadParams::pt)
}

/// The codecs that a room takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Media types in lower case; empty = the server did not say.
    mime_types: Vec<String>,
}

impl Allowed {
    pub(crate) fn new(join: &proto::JoinResponse) -> Self {
        let mut mime_types: Vec<String> = Vec::new();
        for codec in &join.enabled_publish_codecs {
            let mime_type = codec.mime.to_ascii_lowercase();
            if !mime_types.contains(&mime_type) {
                mime_types.push(mime_type);
            }
        }
        Self { mime_types }
    }

    /// The codecs of the same kind that are taken instead, if this one is not.
    pub(crate) fn refuses(&self, codec: Codec) -> Option<Vec<Codec>> {
        let takes = |codec: Codec| self.mime_types.iter().any(|mime_type| mime_type == codec.mime_type());
        if self.mime_types.is_empty() || takes(codec) {
            return None;
        }
        let others = Codec::ALL.into_iter().filter(|other| other.is_video() == codec.is_video());
        Some(others.filter(|other| takes(*other)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn track(codec: Codec) -> TrackConfig {
        TrackConfig::new(codec, "t")
    }

    #[test]
    fn every_codec_has_a_payload_type_that_it_offers() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        for codec in Codec::ALL {
            let offered = payload_types(&track(codec), VideoOffer::AnyCodec);
            let of_track = params.iter().filter(|p| offered.contains(&p.pt()));
            let chosen = choose_payload(codec, of_track).map(|pt| *pt);
            assert_eq!(chosen, offered.first().copied(), "{codec:?}");
        }
    }

    #[test]
    fn a_h264_section_offers_the_profile_of_its_stream_alone() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        for (profile, id) in [
            (H264Profile::ConstrainedBaseline, 0x42e01f),
            (H264Profile::Baseline, 0x42001f),
            (H264Profile::Main, 0x4d001f),
            (H264Profile::High, 0x640032),
        ] {
            let config = TrackConfig { h264_profile: profile, ..track(Codec::H264) };
            let offered = payload_types(&config, VideoOffer::H264Profiles);
            let named: Vec<_> = params.iter().filter(|p| offered.contains(&p.pt())).collect();
            assert_eq!(named.len(), 1, "{profile:?}");
            assert_eq!(named[0].spec().format.profile_level_id, Some(id));
            assert_eq!(named[0].resend().map(|pt| *pt), offered.get(1).copied());
        }
    }

    #[test]
    fn redundancy_comes_first_only_where_it_is_wanted() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        assert_eq!(params.iter().find_map(|p| p.red()).map(|pt| *pt), Some(RED));
        for video in [VideoOffer::AnyCodec, VideoOffer::H264Profiles] {
            assert_eq!(payload_types(&track(Codec::Opus), video), [OPUS, RED]);
            assert_eq!(payload_types(&TrackConfig { red: true, ..track(Codec::Opus) }, video), [RED, OPUS]);
        }
    }

    #[test]
    fn profiles_are_named_where_nothing_but_h264_is_sent() {
        let h264 = |h264_profile| TrackConfig { h264_profile, ..track(Codec::H264) };
        let choose = |tracks: &[TrackConfig]| VideoOffer::choose(tracks.iter());
        let (plain, high) = (h264(H264Profile::ConstrainedBaseline), h264(H264Profile::High));
        assert_eq!(choose(std::slice::from_ref(&high)), VideoOffer::H264Profiles);
        assert_eq!(choose(&[plain.clone(), high.clone(), track(Codec::Opus)]), VideoOffer::H264Profiles);
        // Its name is the one that the server knows: nothing is lost by leaving the others open.
        assert_eq!(choose(&[plain]), VideoOffer::AnyCodec);
        assert_eq!(choose(&[high.clone(), track(Codec::Vp8)]), VideoOffer::AnyCodec);
        assert_eq!(choose(&[]), VideoOffer::AnyCodec);
        assert!(!VideoOffer::H264Profiles.carries(Codec::Vp8) && VideoOffer::AnyCodec.carries(Codec::Vp8));
        assert!(VideoOffer::H264Profiles.carries(Codec::Opus));
    }

    #[test]
    fn with_any_codec_a_section_offers_its_own_first_and_each_other_once() {
        let vp8 = payload_types(&track(Codec::Vp8), VideoOffer::AnyCodec);
        assert_eq!(vp8, [96, 97, 108, 109, 116, 117, 98, 99, 45, 46]);
        let high = TrackConfig { h264_profile: H264Profile::High, ..track(Codec::H264) };
        assert_eq!(payload_types(&high, VideoOffer::AnyCodec)[..4], [108, 109, 116, 117]);
    }

    #[test]
    fn no_payload_type_is_used_twice() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        let all: Vec<Pt> =
            params.iter().flat_map(|p| [Some(p.pt()), p.resend(), p.red()]).flatten().collect();
        assert_eq!(all.iter().copied().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_codec_that_the_server_refused_has_none() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        let audio_only = params.iter().filter(|p| p.spec().codec.is_audio());
        assert_eq!(choose_payload(Codec::H264, audio_only), None);
    }

    #[test]
    fn a_room_names_what_it_takes_instead() {
        let allow = |mimes: &[&str]| {
            let codec = |mime: &&str| proto::Codec { mime: (*mime).into(), fmtp_line: String::new() };
            let enabled_publish_codecs = mimes.iter().map(codec).collect();
            Allowed::new(&proto::JoinResponse { enabled_publish_codecs, ..Default::default() })
        };
        let room = allow(&["audio/opus", "video/VP8", "video/H264", "video/h264", "audio/red", "video/rtx"]);
        assert_eq!(room.refuses(Codec::H264), None);
        assert_eq!(room.refuses(Codec::Opus), None);
        assert_eq!(room.refuses(Codec::H265), Some(vec![Codec::H264, Codec::Vp8]));
        assert_eq!(allow(&["video/vp8"]).refuses(Codec::Opus), Some(vec![]));
        assert_eq!(allow(&[]).refuses(Codec::Av1), None, "an old server that does not say");
    }
}
