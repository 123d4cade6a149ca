// SPDX-License-Identifier: MIT OR Apache-2.0

//! What stays readable of an encrypted frame, and what the unreadable part has to look like.
//!
//! The packetiser, the server and the receiver's transport read the beginning of a frame without the key, so LiveKit's
//! format leaves some bytes clear, by codec. The tag covers them as the receiver puts them together again, byte for
//! byte. Of H.264 and H.265 that is everything before the first slice, each unit behind a start code of four bytes, so
//! units that a packetiser drops or moves would make the frame undecipherable: they are left out here.
//!
//! Some readers look further than the clear bytes, and find ciphertext. What they must find there is a [`Shape`]; the
//! initialisation vector is chosen so that they do.

use super::sps::{Settled, settle};
use crate::bitstream::BitReader;
use crate::bitstream::annexb::start_code;
use crate::config::Codec;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Bytes of a slice that stay clear. Of H.265 they are the header of its NAL unit; of H.264 the header and what tells
/// (in most streams all of) the picture parameter set.
const SLICE_CLEAR: usize = 2;

/// How the ciphertext has to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// In any way.
    Any,
    /// Behind this clear byte, as a slice of H.264 that starts at this macroblock and uses this picture parameter set.
    /// Receivers ask for keyframes without end if they know no such set.
    H264 {
        /// The last clear byte.
        clear: u8,
        /// `first_mb_in_slice`.
        first_mb: u32,
        /// `pic_parameter_set_id`.
        pps: u32,
    },
    /// With this bit, `first_slice_segment_in_pic_flag` of H.265, from which receivers know where a picture begins.
    H265 {
        /// The flag.
        first: bool,
    },
    /// As a keyframe of VP9, or not: its packetiser asks the frame, and receivers believe the packets.
    Vp9 {
        /// What the frame is.
        key: bool,
    },
}

impl Shape {
    /// Whether ciphertext that begins with `bytes` will do.
    pub(super) fn fits(self, bytes: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::H264 { clear, first_mb, pps } => {
                // A zero before the first escaped byte is one that the escape does not see.
                let seam = clear == 0 && matches!(bytes, [0, 0..=3, ..]);
                !seam && slice_head(clear, bytes) == Some((first_mb, pps))
            }
            Self::H265 { first } => bytes.first().is_none_or(|byte| (byte & 0x80 != 0) == first),
            Self::Vp9 { key } => vp9_key(bytes) == key,
        }
    }

    /// Whether the encrypted part is inside a NAL unit.
    pub(super) fn is_escaped(codec: Codec) -> bool {
        matches!(codec, Codec::H264 | Codec::H265)
    }
}

/// What is clear is in the buffer; what is to be encrypted begins here in the frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where the rest of the frame begins.
    pub(super) body: usize,
    /// How its ciphertext has to begin.
    pub(super) shape: Shape,
}

/// Writes the clear part of a frame to `out`; `None` = there is nothing to see or hear in it.
pub(super) fn begin(codec: Codec, frame: &[u8], out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Option<Plan> {
    match codec {
        Codec::H264 => h264(frame, out, scratch),
        Codec::H265 => h265(frame, out),
        Codec::Vp8 => plain(frame, if frame.first()? & 1 == 0 { 10 } else { 3 }, Shape::Any, out),
        Codec::Vp9 => plain(frame, 0, Shape::Vp9 { key: vp9_key(frame) }, out).filter(|_| !frame.is_empty()),
        Codec::Opus => plain(frame, 1, Shape::Any, out),
        // Never published; see `super::can_encrypt`.
        Codec::Av1 => None,
    }
}

fn plain(frame: &[u8], clear: usize, shape: Shape, out: &mut Vec<u8>) -> Option<Plan> {
    out.extend_from_slice(frame.get(..clear)?);
    Some(Plan { body: clear, shape })
}

/// The units before the first slice, and where that begins.
struct Head<'a> {
    units: [Option<&'a [u8]>; 3],
    slice: usize,
}

/// Looks at the units before the first slice and keeps the last of each kind of parameter set. `kind` tells of the first
/// byte of a unit which set it is (`Some(Some(place))`), that it is a slice (`Some(None)`), or anything else (`None`).
fn head(frame: &[u8], kind: impl Fn(u8) -> Option<Option<usize>>) -> Option<Head<'_>> {
    let mut units = [None; 3];
    let mut next = start_code(frame, 0);
    while let Some((_, begin)) = next {
        match kind(*frame.get(begin)?) {
            Some(None) => return Some(Head { units, slice: begin }),
            // Its end is looked for only now: a slice's is far away.
            what => {
                next = start_code(frame, begin);
                let end = next.map_or(frame.len(), |(start, _)| start);
                if let Some(place) = what.flatten()
                    && let Some(unit) = units.get_mut(place)
                {
                    *unit = frame.get(begin..end).map(without_trailing_zeros);
                }
            }
        }
    }
    None
}

/// `trailing_zero_8bits` belong to no unit (H.264 annex B.1.1).
fn without_trailing_zeros(unit: &[u8]) -> &[u8] {
    let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    unit.get(..end).unwrap_or_default()
}

fn h264(frame: &[u8], out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Option<Plan> {
    let head = head(frame, |byte| match byte & 0x1f {
        1 | 5 => Some(None),
        7 => Some(Some(0)),
        8 => Some(Some(1)),
        _ => None,
    })?;
    // Sent together or not at all.
    if let [Some(sps), Some(pps), _] = head.units {
        out.extend_from_slice(&START_CODE);
        if settle(sps, scratch, out) == Settled::AsItIs {
            out.extend_from_slice(sps);
        }
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(pps);
    }
    let slice = frame.get(head.slice..)?;
    let [header, clear, ..] = slice else { return None };
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(&[*header, *clear]);
    // 64 bits at most in a legal stream.
    let mut reader = BitReader::new(slice.get(1..slice.len().min(32))?);
    let shape = match head_of(&mut reader) {
        Some((first_mb, pps)) => Shape::H264 { clear: *clear, first_mb, pps },
        None => Shape::Any,
    };
    Some(Plan { body: head.slice + SLICE_CLEAR, shape })
}

fn h265(frame: &[u8], out: &mut Vec<u8>) -> Option<Plan> {
    let head = head(frame, |byte| match byte >> 1 & 0x3f {
        // The kinds of slices that are not reserved, as receivers know them (table 7-1).
        0..=9 | 16..=21 => Some(None),
        32 => Some(Some(0)),
        33 => Some(Some(1)),
        34 => Some(Some(2)),
        _ => None,
    })?;
    for unit in head.units.into_iter().flatten() {
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(unit);
    }
    let (clear, rest) = frame.get(head.slice..)?.split_at_checked(SLICE_CLEAR)?;
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(clear);
    let shape = Shape::H265 { first: rest.first()? & 0x80 != 0 };
    Some(Plan { body: head.slice + SLICE_CLEAR, shape })
}

/// `first_mb_in_slice` and `pic_parameter_set_id` (H.264 §7.3.3).
fn head_of(reader: &mut BitReader<'_>) -> Option<(u32, u32)> {
    let first_mb = reader.ue()?;
    // Table 7-6.
    let slice_type = reader.ue()?;
    let pps = reader.ue()?;
    (slice_type <= 9).then_some((first_mb, pps))
}

/// What a receiver reads of a slice whose first byte is clear.
fn slice_head(clear: u8, ciphertext: &[u8]) -> Option<(u32, u32)> {
    let mut bytes = [0; 16];
    let (first, rest) = bytes.split_first_mut()?;
    *first = clear;
    rest.iter_mut().zip(ciphertext).for_each(|(to, from)| *to = *from);
    let end = ciphertext.len().saturating_add(1).min(bytes.len());
    head_of(&mut BitReader::plain(bytes.get(..end)?))
}

/// Whether a packetiser takes what begins so for a keyframe of VP9 (§6.2): its marker, no repetition of a frame that
/// was shown, and then the type. Profiles 2 and 3 do not occur: their bit 4 moves the others.
fn vp9_key(frame: &[u8]) -> bool {
    let Some(first) = frame.first() else { return false };
    match first & 0x10 {
        0 => first & 0b1100_1100 == 0b1000_0000,
        _ => first & 0b1100_0110 == 0b1000_0000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitstream::tests::bits;

    fn clear(codec: Codec, frame: &[u8]) -> Option<(Vec<u8>, Plan)> {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let plan = begin(codec, frame, &mut out, &mut scratch)?;
        Some((out, plan))
    }

    const SPS: [u8; 9] = [0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07, 0xe8, 0x80];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
    const SEI: [u8; 5] = [0x06, 5, 1, 0xaa, 0x80];
    const AUD: [u8; 2] = [0x09, 0xf0];
    const IDR: [u8; 6] = [0x65, 0x88, 0x84, 1, 2, 3];

    fn annex_b(units: &[&[u8]], long: bool) -> Vec<u8> {
        let code: &[u8] = if long { &[0, 0, 0, 1] } else { &[0, 0, 1] };
        units.iter().flat_map(|unit| code.iter().chain(*unit)).copied().collect()
    }

    #[test]
    fn as_many_bytes_stay_clear_as_the_sdks_leave() {
        let (out, plan) = clear(Codec::Opus, &[0xfc, 1, 2]).unwrap();
        assert_eq!((out.as_slice(), plan.body), (&[0xfc][..], 1));
        let key = [0x10, 2, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xf0, 0, 7, 7];
        assert_eq!(clear(Codec::Vp8, &key).unwrap().0, key[..10]);
        assert_eq!(clear(Codec::Vp8, &[0x31, 2, 0, 7, 7]).unwrap().0, [0x31, 2, 0]);
        let (out, plan) = clear(Codec::Vp9, &[0x82, 0x49, 0x83]).unwrap();
        assert_eq!((out.len(), plan.body, plan.shape), (0, 0, Shape::Vp9 { key: true }));
        assert_eq!(clear(Codec::Vp9, &[0x86, 0]).unwrap().1.shape, Shape::Vp9 { key: false });
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
            assert_eq!(clear(codec, &[]), None, "{codec}");
        }
        assert_eq!(clear(Codec::Vp8, &key[..9]), None, "shorter than what stays clear");
    }

    #[test]
    fn of_h264_receivers_see_what_is_sent_whatever_the_encoder_writes() {
        let wanted = [annex_b(&[&SPS, &PPS], true), vec![0, 0, 0, 1, 0x65, 0x88]].concat();
        for long in [false, true] {
            for units in [
                &[&SPS[..], &PPS, &IDR][..],
                &[&AUD, &SPS, &PPS, &SEI, &IDR],
                &[&PPS, &SPS, &SEI, &IDR, &IDR],
                &[&SPS[..4], &PPS[..2], &SPS, &PPS, &IDR],
            ] {
                let frame = annex_b(units, long);
                let (out, plan) = clear(Codec::H264, &frame).unwrap();
                assert_eq!(out, wanted, "{units:?}");
                assert!(frame[plan.body..].starts_with(&IDR[2..]));
            }
        }
        let delta = [0x41, 0x9a, 1, 2];
        assert_eq!(clear(Codec::H264, &annex_b(&[&AUD, &delta], false)).unwrap().0, [0, 0, 0, 1, 0x41, 0x9a]);
        // A lone set would not be sent with its frame.
        assert_eq!(clear(Codec::H264, &annex_b(&[&PPS, &delta], true)).unwrap().0, [0, 0, 0, 1, 0x41, 0x9a]);
        for nothing in [annex_b(&[&SPS, &PPS], true), annex_b(&[&IDR[..1]], true), vec![1, 2, 3]] {
            assert_eq!(clear(Codec::H264, &nothing), None);
        }
        // Zeros between units are no part of them.
        let padded = annex_b(&[&[&SPS[..], &[0, 0]].concat(), &PPS, &IDR], true);
        assert_eq!(clear(Codec::H264, &padded).unwrap().0, wanted);
    }

    #[test]
    fn of_h265_too() {
        let (vps, sps, pps) = ([0x40, 1, 0x0c], [0x42, 1, 1, 2], [0x44, 1, 0xc1]);
        let (aud, sei, idr) = ([0x46, 1, 0x50], [0x4e, 1, 5, 0x80], [0x26, 1, 0xaf, 9, 9]);
        let wanted = [annex_b(&[&vps, &sps, &pps], true), vec![0, 0, 0, 1, 0x26, 1]].concat();
        for long in [false, true] {
            let frame = annex_b(&[&aud, &vps, &sps, &pps, &sei, &idr, &idr], long);
            let (out, plan) = clear(Codec::H265, &frame).unwrap();
            assert_eq!((out, plan.shape), (wanted.clone(), Shape::H265 { first: true }));
            assert!(frame[plan.body..].starts_with(&idr[2..]));
        }
        assert_eq!(clear(Codec::H265, &annex_b(&[&vps, &sps, &pps, &sei], true)), None);
        assert_eq!(clear(Codec::H265, &annex_b(&[&idr[..2]], true)), None);
    }

    #[test]
    fn an_idr_whose_set_is_told_behind_the_clear_byte_wants_ciphertext_that_tells_the_same() {
        // first_mb 0, slice_type 7, both in the clear byte; then set 0, which is a single one.
        let (_, plan) = clear(Codec::H264, &annex_b(&[&SPS, &PPS, &IDR], true)).unwrap();
        assert_eq!(plan.shape, Shape::H264 { clear: 0x88, first_mb: 0, pps: 0 });
        assert!(plan.shape.fits(&[0x80, 0, 0]) && plan.shape.fits(&[0xff]));
        assert!(!plan.shape.fits(&[0x7f, 0xff]), "another set");
        assert!(!plan.shape.fits(&[0; 15]), "no set at all");
        // Set 2: 011.
        let other = bits("0110 0101 1000 1000 0110 0000");
        let (_, plan) = clear(Codec::H264, &annex_b(&[&other], true)).unwrap();
        assert_eq!(plan.shape, Shape::H264 { clear: 0x88, first_mb: 0, pps: 2 });
        assert!(plan.shape.fits(&[0x7f]) && !plan.shape.fits(&[0x5f]) && !plan.shape.fits(&[0x80]));
        // slice_type 5: everything is in the clear byte.
        let (_, plan) = clear(Codec::H264, &annex_b(&[&[0x41, 0x9a, 1, 2]], true)).unwrap();
        assert!((0..=255).all(|byte| plan.shape.fits(&[byte])));
    }

    #[test]
    fn zeros_at_the_seam_never_make_a_start_code() {
        // A slice far down the picture: first_mb 299 begins with eight zeros.
        let far = bits("0110 0101 0000 0000 1001 0110 0 1 1 1111111111111");
        let (_, plan) = clear(Codec::H264, &annex_b(&[&far], true)).unwrap();
        let Shape::H264 { clear: 0, .. } = plan.shape else { panic!("{plan:?}") };
        assert!(!plan.shape.fits(&[0, 1, 0xff, 0xff]) && !plan.shape.fits(&[0, 0, 0xff, 0xff]));
        assert!(plan.shape.fits(&far[2..]));
    }

    #[test]
    fn the_first_slice_of_a_picture_stays_one_and_frames_of_vp9_keep_their_kind() {
        let first = Shape::H265 { first: true };
        assert!(first.fits(&[0x80]) && !first.fits(&[0x7f]));
        for byte in 0..=255u8 {
            // Marker 10, profile below 2, not repeated, key.
            let key = byte & 0xc0 == 0x80 && if byte & 0x10 == 0 { byte & 0x0c == 0 } else { byte & 6 == 0 };
            assert_eq!(Shape::Vp9 { key: true }.fits(&[byte]), key, "{byte:#x}");
            assert_eq!(Shape::Vp9 { key: false }.fits(&[byte]), !key, "{byte:#x}");
        }
    }
}
