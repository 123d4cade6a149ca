// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which payload types are offered, and which of them carries a given stream.

use std::time::Duration;

use str0m::RtcConfig;
use str0m::bwe::Bitrate;
use str0m::format::PayloadParams;
use str0m::media::Pt;
use str0m::rtp::{Extension, ExtensionMap};

use crate::bitstream::h264;
use crate::config::Codec;

/// Where the bandwidth estimate starts. A publisher that starts too low sends its first picture late; the
/// estimator takes a start that is too high back within its first feedback rounds.
const START_BITRATE: u64 = 6_000_000;
/// How often the engine reports its figures.
pub(crate) const STATS_INTERVAL: Duration = Duration::from_millis(500);
/// Sender reports tie RTP time to wall time; the first ones decide how soon sound and picture are in step.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// One H.264 payload type: packetization-mode 1 (RFC 6184 §6.3), a retransmission type beside it
/// (RFC 4588), and the `profile-level-id`s that LiveKit's server knows.
struct H264Payload {
    pt: u8,
    rtx: u8,
    profile_level_id: u32,
}

const H264_PAYLOADS: [H264Payload; 4] = [
    H264Payload { pt: 108, rtx: 109, profile_level_id: 0x42e01f },
    H264Payload { pt: 110, rtx: 111, profile_level_id: 0x42001f },
    H264Payload { pt: 112, rtx: 113, profile_level_id: 0x4d001f },
    H264Payload { pt: 114, rtx: 115, profile_level_id: 0x640032 },
];

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
        .set_stats_interval(Some(STATS_INTERVAL))
        .set_rtcp_report_interval_video(REPORT_INTERVAL)
        .set_rtcp_report_interval_audio(REPORT_INTERVAL)
        .enable_bwe(Some(Bitrate::bps(START_BITRATE)));
    let codecs = config.codec_config();
    codecs.enable_opus(true, false);
    for payload in &H264_PAYLOADS {
        codecs.add_h264(payload.pt.into(), Some(payload.rtx.into()), true, payload.profile_level_id);
    }
    config
}

/// The payload type, among those the server accepted, that tells the truth about a stream best. For H.264
/// that is the one with the profile of `sps`, else constrained baseline: its bytes are the same, and
/// decoders go by the parameter sets.
pub(crate) fn choose_payload<'a>(
    codec: Codec,
    sps: Option<&h264::Sps>,
    accepted: impl Iterator<Item = &'a PayloadParams>,
) -> Option<Pt> {
    let wanted = wanted_h264_profile(sps);
    let mut fallback = None;
    for params in accepted {
        match (codec, params.spec().codec) {
            (Codec::Opus, str0m::format::Codec::Opus) => return Some(params.pt()),
            (Codec::H264, str0m::format::Codec::H264) => {
                if params.spec().format.profile_level_id.map(profile_class) == Some(wanted) {
                    return Some(params.pt());
                }
                fallback.get_or_insert(params.pt());
            }
            _ => {}
        }
    }
    fallback
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProfileClass {
    ConstrainedBaseline,
    Baseline,
    Main,
    High,
}

/// Table 5 of RFC 6184: `profile_idc` and the constraint flags that matter.
fn profile_class(profile_level_id: u32) -> ProfileClass {
    let constraints = profile_level_id >> 8 & 0xff;
    match profile_level_id >> 16 {
        66 if constraints & 0x40 != 0 => ProfileClass::ConstrainedBaseline,
        66 | 88 => ProfileClass::Baseline,
        77 if constraints & 0x80 != 0 => ProfileClass::ConstrainedBaseline,
        77 => ProfileClass::Main,
        _ => ProfileClass::High,
    }
}

fn wanted_h264_profile(sps: Option<&h264::Sps>) -> ProfileClass {
    sps.map_or(ProfileClass::ConstrainedBaseline, |sps| profile_class(sps.profile_level_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sps(profile_idc: u8, constraints: u8) -> h264::Sps {
        h264::Sps {
            profile_idc,
            constraints,
            level_idc: 31,
            chroma_format_idc: 1,
            bit_depth: 8,
            width: 1280,
            height: 720,
        }
    }

    #[test]
    fn the_payload_type_tells_the_streams_profile() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        let pt = |s: Option<&h264::Sps>| choose_payload(Codec::H264, s, params.iter()).map(|pt| *pt);
        assert_eq!(pt(None), Some(108));
        assert_eq!(pt(Some(&sps(66, 0xc0))), Some(108));
        assert_eq!(pt(Some(&sps(66, 0x00))), Some(110));
        assert_eq!(pt(Some(&sps(77, 0x40))), Some(112));
        assert_eq!(pt(Some(&sps(100, 0x00))), Some(114));
    }

    #[test]
    fn a_profile_the_server_refused_falls_back_to_one_it_took() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        let baseline_only = params.iter().filter(|p| *p.pt() == 108);
        assert_eq!(choose_payload(Codec::H264, Some(&sps(100, 0)), baseline_only).map(|pt| *pt), Some(108));
        let audio_only = params.iter().filter(|p| p.spec().codec.is_audio());
        assert_eq!(choose_payload(Codec::H264, None, audio_only), None);
    }
}
