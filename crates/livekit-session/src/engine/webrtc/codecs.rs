// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which payload types are offered, and which of them carries a codec.

use std::time::Duration;

use str0m::RtcConfig;
use str0m::bwe::Bitrate;
use str0m::format::PayloadParams;
use str0m::media::Pt;
use str0m::rtp::{Extension, ExtensionMap};

use crate::config::Codec;

/// Where the bandwidth estimate starts. A publisher that starts too low sends its first picture late; the
/// estimator takes a start that is too high back within its first feedback rounds.
const START_BITRATE: u64 = 6_000_000;
/// How often the engine reports its figures.
pub(crate) const STATS_INTERVAL: Duration = Duration::from_millis(500);
/// Sender reports tie RTP time to wall time; the first ones decide how soon sound and picture are in step.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// H.264 with packetization-mode 1 (RFC 6184 §6.3) and its retransmission type (RFC 4588).
///
/// One payload type for all profiles, the one that every subscriber knows: the server makes its tracks for the
/// first H.264 of a media section and takes packets of another for a change of codec, after which it forwards
/// nothing. Decoders go by the parameter sets in the stream.
const H264: (u8, u8, u32) = (108, 109, 0x42e01f);

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
    let (pt, rtx, profile_level_id) = H264;
    codecs.add_h264(pt.into(), Some(rtx.into()), true, profile_level_id);
    config
}

/// The payload type, among those the server accepted, for a codec.
pub(crate) fn choose_payload<'a>(
    codec: Codec,
    mut accepted: impl Iterator<Item = &'a PayloadParams>,
) -> Option<Pt> {
    let wanted = match codec {
        Codec::H264 => str0m::format::Codec::H264,
        Codec::Opus => str0m::format::Codec::Opus,
    };
    accepted.find(|params| params.spec().codec == wanted).map(PayloadParams::pt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_codec_has_exactly_one_payload_type() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        assert_eq!(choose_payload(Codec::H264, params.iter()).map(|pt| *pt), Some(108));
        assert!(choose_payload(Codec::Opus, params.iter()).is_some());
        assert_eq!(params.iter().filter(|p| p.spec().codec.is_video()).count(), 1);
    }

    #[test]
    fn a_codec_that_the_server_refused_has_none() {
        let mut config = rtc_config();
        let params = config.codec_config().params().to_vec();
        let audio_only = params.iter().filter(|p| p.spec().codec.is_audio());
        assert_eq!(choose_payload(Codec::H264, audio_only), None);
    }
}
