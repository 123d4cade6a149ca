// SPDX-License-Identifier: MIT OR Apache-2.0

//! Narrows media sections of an offer: str0m offers every codec of a kind in each of them. Text in, text out.

/// What one media section is to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// `a=mid` of the section (RFC 8843 §15.1).
    pub(crate) mid: String,
    /// Payload types to keep, in the order of preference (RFC 8866 §5.14).
    pub(crate) payload_types: Vec<u8>,
}

/// The offer with each of `sections` narrowed to its payload types; the other sections stay as they are. A
/// section of which nothing would be left stays as it is, too: the answer will tell.
pub(crate) fn narrow(sdp: &str, sections: &[Section]) -> String {
    let mut out = String::with_capacity(sdp.len());
    for part in split_sections(sdp) {
        let mid = lines(part).find_map(|line| content(line).strip_prefix("a=mid:"));
        let section = sections.iter().find(|section| Some(section.mid.as_str()) == mid);
        match section {
            Some(section) => narrow_section(part, &section.payload_types, &mut out),
            None => out.push_str(part),
        }
    }
    out
}

/// The session part, then each media section, line ends included.
fn split_sections(sdp: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut at) = (0, 0);
    for line in lines(sdp) {
        if line.starts_with("m=") {
            parts.extend(sdp.get(begin..at));
            begin = at;
        }
        at += line.len();
    }
    parts.extend(sdp.get(begin..));
    parts
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

fn content(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn narrow_section(section: &str, payload_types: &[u8], out: &mut String) {
    let offered: Vec<&str> =
        lines(section).next().map(|m| content(m).split(' ').skip(3).collect()).unwrap_or_default();
    let kept: Vec<String> = payload_types
        .iter()
        .map(u8::to_string)
        .filter(|payload_type| offered.contains(&payload_type.as_str()))
        .collect();
    if kept.is_empty() {
        out.push_str(section);
        return;
    }
    for line in lines(section) {
        let text = content(line);
        if text.starts_with("m=") {
            let head: Vec<&str> = text.split(' ').take(3).collect();
            out.push_str(&head.join(" "));
            for payload_type in &kept {
                out.push(' ');
                out.push_str(payload_type);
            }
            out.push_str(line.get(text.len()..).unwrap_or_default());
        } else if payload_type_of(text).is_none_or(|of| kept.iter().any(|kept| kept == of)) {
            out.push_str(line);
        }
    }
}

/// The payload type that an attribute is about (RFC 8866 §6.6, §6.15; RFC 4585 §4.2). `*` means all.
fn payload_type_of(line: &str) -> Option<&str> {
    let value = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().find_map(|name| line.strip_prefix(name))?;
    value.split(' ').next().filter(|payload_type| *payload_type != "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\n\
        a=group:BUNDLE a b\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 108 109 123 119\r\n\
        c=IN IP4 0.0.0.0\r\n\
        a=rtpmap:108 H264/90000\r\n\
        a=rtcp-fb:108 nack pli\r\n\
        a=rtcp-fb:* transport-cc\r\n\
        a=fmtp:108 profile-level-id=42e01f\r\n\
        a=rtpmap:109 rtx/90000\r\n\
        a=fmtp:109 apt=108\r\n\
        a=rtpmap:123 H264/90000\r\n\
        a=fmtp:123 profile-level-id=640032\r\n\
        a=rtpmap:119 rtx/90000\r\n\
        a=fmtp:119 apt=123\r\n\
        a=mid:a\r\n\
        a=ssrc:108 cname:x\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n\
        a=mid:b\r\n\
        a=rtpmap:63 red/48000/2\r\n\
        a=rtpmap:111 opus/48000/2\r\n";

    fn section(mid: &str, payload_types: &[u8]) -> Section {
        Section { mid: mid.into(), payload_types: payload_types.into() }
    }

    #[test]
    fn a_section_keeps_its_payload_types_and_all_that_is_not_about_one() {
        let narrowed = narrow(OFFER, &[section("a", &[123, 119])]);
        let expected = "v=0\r\n\
            a=group:BUNDLE a b\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 123 119\r\n\
            c=IN IP4 0.0.0.0\r\n\
            a=rtcp-fb:* transport-cc\r\n\
            a=rtpmap:123 H264/90000\r\n\
            a=fmtp:123 profile-level-id=640032\r\n\
            a=rtpmap:119 rtx/90000\r\n\
            a=fmtp:119 apt=123\r\n\
            a=mid:a\r\n\
            a=ssrc:108 cname:x\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n\
            a=mid:b\r\n\
            a=rtpmap:63 red/48000/2\r\n\
            a=rtpmap:111 opus/48000/2\r\n";
        assert_eq!(narrowed, expected);
    }

    #[test]
    fn the_order_is_the_wanted_one() {
        let narrowed = narrow(OFFER, &[section("b", &[111, 63])]);
        assert!(narrowed.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"), "{narrowed}");
        assert_eq!(narrowed.len(), OFFER.len());
    }

    #[test]
    fn what_is_not_there_is_not_invented() {
        assert_eq!(narrow(OFFER, &[section("a", &[123, 99])]).matches("99").count(), 0);
        assert_eq!(narrow(OFFER, &[section("a", &[99])]), OFFER, "a section is never left empty");
        assert_eq!(narrow(OFFER, &[section("c", &[123])]), OFFER);
        assert_eq!(narrow("", &[section("a", &[1])]), "");
    }

    #[test]
    fn line_ends_stay_what_they_are() {
        let unix = OFFER.replace("\r\n", "\n");
        let narrowed = narrow(&unix, &[section("a", &[123, 119])]);
        assert_eq!(narrowed, narrow(OFFER, &[section("a", &[123, 119])]).replace("\r\n", "\n"));
    }

    /// What str0m writes is what this reads.
    #[test]
    fn an_offer_of_str0m_is_narrowed_and_still_parses() {
        use super::super::codecs::{VideoOffer, payload_types, rtc_config};
        use crate::config::{Codec, TrackConfig};
        use str0m::media::{Direction, MediaKind};
        for codec in Codec::ALL {
            let mut rtc = rtc_config().build(std::time::Instant::now());
            let mut changes = rtc.sdp_api();
            let kind = if codec.is_video() { MediaKind::Video } else { MediaKind::Audio };
            let mid = changes.add_media(kind, Direction::SendOnly, None, None, None);
            let (offer, _) = changes.apply().unwrap();
            let config = TrackConfig::new(codec, "t");
            let all = payload_types(&config, VideoOffer::AnyCodec);
            let wanted = &all[..2];
            let whole = offer.to_sdp_string();
            let narrowed = narrow(&whole, &[section(&mid.to_string(), wanted)]);
            let list = wanted.iter().map(|pt| format!(" {pt}")).collect::<String>();
            let media_line = narrowed.lines().find(|line| line.starts_with("m=")).unwrap();
            assert!(media_line.ends_with(&format!("UDP/TLS/RTP/SAVPF{list}")), "{media_line}");
            assert_eq!(narrowed.matches("a=rtpmap:").count(), 2, "{narrowed}");
            str0m::change::SdpOffer::from_sdp_string(&narrowed).unwrap();
        }
    }
}
