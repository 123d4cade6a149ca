// SPDX-License-Identifier: MIT OR Apache-2.0

//! LiveKit's packet trailer: what its SDKs tell about a frame, behind the frame's last byte.
//!
//! Fields (tag, length, value), then the length of everything and the letters `LKTS`. All but the letters are
//! stored inverted. The server takes the trailer off for viewers that have not said that they understand it.

use std::time::{Duration, SystemTime};

use crate::config::Codec;

/// When the frame was captured, in microseconds since the Unix epoch.
const TIMESTAMP: u8 = 1;
const MAGIC: [u8; 4] = *b"LKTS";
/// Tag, length and value of the timestamp; length of the whole, and the letters.
const LENGTH: u8 = 2 + 8 + 1 + 4;

/// Whether frames of a codec can have a trailer. An AV1 temporal unit would need it in an OBU of its own.
pub(crate) fn carries(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9)
}

/// The frame with its trailer; `None` = better without.
pub(crate) fn append(codec: Codec, frame: &[u8], captured: SystemTime) -> Option<Vec<u8>> {
    if !carries(codec) || frame.is_empty() {
        return None;
    }
    let since = captured.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let micros = u64::try_from(since.as_micros()).ok().filter(|micros| *micros > 0)?;
    let mut trailer = Vec::with_capacity(usize::from(LENGTH));
    trailer.extend([TIMESTAMP, 8]);
    trailer.extend(micros.to_be_bytes());
    trailer.push(LENGTH);
    trailer.iter_mut().for_each(|byte| *byte = !*byte);
    trailer.extend(MAGIC);
    // What looks like the start of a NAL unit would cut the frame in two (ISO 14496-10 §7.4.1.1).
    if trailer.windows(3).any(|bytes| matches!(bytes, [0, 0, 0..=3])) {
        return None;
    }
    Some([frame, &trailer].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn a_trailer_is_what_the_sdks_read() {
        let frame = [0, 0, 0, 1, 0x65, 0x88];
        let with = append(Codec::H264, &frame, at(0x0006_0102_0304_0506)).unwrap();
        let (head, trailer) = with.split_at(frame.len());
        assert_eq!(head, frame);
        let inverted: Vec<u8> = trailer[..11].iter().map(|byte| byte ^ 0xff).collect();
        assert_eq!(inverted, [1, 8, 0, 6, 1, 2, 3, 4, 5, 6, 15]);
        assert_eq!(&trailer[11..], b"LKTS");
    }

    #[test]
    fn a_time_that_would_look_like_a_start_code_is_left_out() {
        assert_eq!(append(Codec::H264, &[1], at(0x0006_01ff_fffe_0000)), None);
        assert!(append(Codec::H264, &[1], at(0x0006_01ff_fef0_0000)).is_some());
    }

    #[test]
    fn no_trailer_without_a_time_or_for_other_codecs() {
        assert_eq!(append(Codec::H264, &[1], SystemTime::UNIX_EPOCH), None);
        assert_eq!(append(Codec::H264, &[1], SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(append(Codec::H264, &[], at(5)), None);
        for codec in [Codec::Opus, Codec::Av1] {
            assert_eq!(append(codec, &[1], at(5)), None);
        }
    }
}
