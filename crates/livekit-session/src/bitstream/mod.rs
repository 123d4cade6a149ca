// SPDX-License-Identifier: MIT OR Apache-2.0

//! Just enough reading of codec bitstreams to know what a frame is.
//!
//! Everything here takes any bytes: what can't be parsed is left unknown.

pub(crate) mod annexb;
pub mod av1;
pub mod h264;
pub mod h265;
pub mod vp8;
pub mod vp9;

use crate::config::Codec;

/// What one frame tells about itself and about its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// Decoding can start here.
    pub keyframe: bool,
    /// There is a picture in it at all.
    pub picture: bool,
    /// It carries what a decoder must know before its first picture: SPS and PPS (H.265: VPS too), or the
    /// sequence header of AV1. A keyframe of VP8 or VP9 always does.
    pub parameter_sets: bool,
    /// Its picture is one of a stream whose pictures are not in the order of display: a B slice of H.264, a
    /// leading picture of H.265. (A B slice of H.265 says nothing: encoders make P pictures of them.)
    pub reordered: bool,
    /// What the parameter sets or the keyframe say of the pictures.
    pub format: Option<VideoFormat>,
}

/// The pictures of a stream, as its own headers describe them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// `profile_idc` of H.264, `general_profile_idc` of H.265, `version` of VP8, the profile of VP9,
    /// `seq_profile` of AV1.
    pub profile: u8,
    /// Chroma subsampling as H.264 and H.265 count it: 0 = 4:0:0, 1 = 4:2:0, 2 = 4:2:2, 3 = 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits per sample.
    pub bit_depth: u8,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl VideoFormat {
    /// Whether viewers can be expected to decode it: 8 bit 4:2:0, in a profile that browsers have.
    pub fn is_browser_format(&self, codec: Codec) -> bool {
        let profile = match codec {
            Codec::H264 => matches!(self.profile, 66 | 77 | 88 | 100),
            // Main (1); 3 is Main Still Picture, a subset of it.
            Codec::H265 => matches!(self.profile, 1 | 3),
            Codec::Vp8 => self.profile <= 3,
            Codec::Vp9 | Codec::Av1 => self.profile == 0,
            Codec::Opus => true,
        };
        profile && self.chroma_format_idc == 1 && self.bit_depth == 8
    }
}

/// Reads the head of a frame in the form that [`crate::Frame::data`] has. Any packet of audio is a keyframe.
pub fn inspect(codec: Codec, data: &[u8]) -> FrameInfo {
    match codec {
        Codec::H264 => FrameInfo::from(&h264::inspect(data)),
        Codec::H265 => h265::inspect(data),
        Codec::Vp8 => vp8::inspect(data),
        Codec::Vp9 => vp9::inspect(data),
        Codec::Av1 => av1::inspect(data),
        Codec::Opus => FrameInfo { keyframe: true, ..FrameInfo::default() },
    }
}

/// Reads bits, most significant first.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    pos: usize,
    bit: u8,
    zeros: u8,
    /// Emulation prevention bytes are left out.
    emulation: bool,
}

impl<'a> BitReader<'a> {
    /// Reads a NAL unit: the emulation prevention bytes of H.264 §7.3.1 (H.265 §7.3.1.1) are left out.
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0, bit: 0, zeros: 0, emulation: true }
    }

    /// Reads plain bits.
    pub(crate) fn plain(data: &'a [u8]) -> Self {
        Self { emulation: false, ..Self::new(data) }
    }

    pub(crate) fn bit(&mut self) -> Option<u32> {
        if self.emulation && self.bit == 0 && self.zeros >= 2 && self.data.get(self.pos) == Some(&3) {
            self.pos += 1;
            self.zeros = 0;
        }
        let byte = *self.data.get(self.pos)?;
        let value = (byte >> (7 - self.bit)) & 1;
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.pos += 1;
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        }
        Some(u32::from(value))
    }

    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value.checked_shl(1)? | self.bit()?;
        }
        Some(value)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.bit().map(|bit| bit == 1)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.bit()?;
        }
        Some(())
    }

    /// Unsigned Exp-Golomb, H.264 §9.1.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        Some(((1u64 << zeros) - 1 + u64::from(rest)).try_into().unwrap_or(u32::MAX))
    }

    /// Signed Exp-Golomb, H.264 §9.1.1.
    pub(crate) fn se(&mut self) -> Option<i32> {
        let value = i64::from(self.ue()?);
        let magnitude = (value + 1) / 2;
        i32::try_from(if value % 2 == 0 { -magnitude } else { magnitude }).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const VIDEO: [Codec; 5] = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1];

    /// Bits as text, blanks ignored, to bytes; filled up with zeros.
    pub(crate) fn bits(text: &str) -> Vec<u8> {
        let bits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect();
        bits.chunks(8).map(|c| c.iter().enumerate().fold(0, |byte, (n, bit)| byte | bit << (7 - n))).collect()
    }

    /// A number as `count` bits of text.
    pub(crate) fn number(value: u32, count: usize) -> String {
        format!("{value:0count$b}")
    }

    /// Unsigned Exp-Golomb as text.
    pub(crate) fn ue(value: u32) -> String {
        let binary = format!("{:b}", value + 1);
        format!("{}{binary}", "0".repeat(binary.len() - 1))
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x1234_5678_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for len in 0..600 {
            // Many zeros, ones and 0x80s, so that start codes, long Exp-Golomb and leb128 codes appear.
            let data: Vec<u8> = (0..len)
                .map(|_| match next() % 8 {
                    0..=2 => 0,
                    3 => 1,
                    4 => 0x80,
                    5 => 0x42 + (next() % 2) as u8 * 0x25,
                    _ => next() as u8,
                })
                .collect();
            for codec in VIDEO {
                let _ = inspect(codec, &data);
            }
        }
    }

    #[test]
    fn every_first_bytes_are_survived() {
        for codec in VIDEO {
            for a in 0..=255u8 {
                for b in 0..=255u8 {
                    let _ = inspect(codec, &[a, b]);
                    let _ = inspect(codec, &[a, b, 0x49, 0x83, 0x42, 0xff, 0xff, 0xff]);
                    let _ = inspect(codec, &[0, 0, 1, a, b, 0xff, 0xff, 0xff, 0xff]);
                }
            }
        }
    }

    #[test]
    fn nothing_is_no_keyframe_of_video() {
        for codec in VIDEO {
            assert_eq!(inspect(codec, &[]), FrameInfo::default(), "{codec:?}");
        }
        assert!(inspect(Codec::Opus, &[]).keyframe);
    }

    #[test]
    fn plain_bits_keep_what_looks_like_an_escape() {
        let data = [0, 0, 3, 0xff];
        assert_eq!(BitReader::plain(&data).bits(32), Some(0x3ff));
        assert_eq!(BitReader::new(&data).bits(24), Some(0xff));
    }
}
