// SPDX-License-Identifier: MPL-2.0

//! What comes out of the encoder: is it a keyframe, and how does it look as avc or hvc1.

use super::codec::Codec;

/// Most bytes of a length-prefixed NAL unit's length.
const LENGTH_SIZE: u8 = 4;

/// The NAL units of a byte stream, without start codes and trailing zeros.
pub(crate) fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(data);
    std::iter::from_fn(move || {
        let current = rest?;
        let end =
            current.windows(3).position(|three| matches!(three, [0, 0, 0 | 1])).unwrap_or(current.len());
        let (unit, tail) = current.split_at_checked(end)?;
        rest = after_start_code(tail);
        Some(unit)
    })
    .filter(|unit| !unit.is_empty())
}

fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    let at = data.windows(3).position(|three| three == [0, 0, 1])?;
    data.get(at + 3..)
}

fn h264_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |first| first & 0x1f)
}

fn h265_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |first| first >> 1 & 0x3f)
}

fn is_parameter_set(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(h264_type(unit), 7 | 8),
        Codec::H265 => matches!(h265_type(unit), 32..=34),
        _ => false,
    }
}

/// Whether decoding can begin here: looked up in the bitstream, because releases differ in what they tell.
pub(crate) fn is_keyframe(codec: Codec, data: &[u8]) -> bool {
    match codec {
        Codec::H264 => nal_units(data).any(|unit| h264_type(unit) == 5),
        Codec::H265 => nal_units(data).any(|unit| matches!(h265_type(unit), 16..=21)),
        // RFC 6386 §9.1: bit 0 of the frame tag.
        Codec::Vp8 => data.first().is_some_and(|first| first & 1 == 0),
        Codec::Jpeg => true,
    }
}

/// Writes the NAL units with their lengths in front, without parameter sets, which are in the caps.
pub(crate) fn length_prefixed(codec: Codec, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    for unit in nal_units(data).filter(|unit| !is_parameter_set(codec, unit)) {
        let Ok(length) = u32::try_from(unit.len()) else { continue };
        out.extend(length.to_be_bytes());
        out.extend(unit);
    }
    out
}

/// The codec's configuration record of a byte stream of parameter sets; `None` if some are missing.
pub(crate) fn codec_data(codec: Codec, parameter_sets: &[u8]) -> Option<Vec<u8>> {
    match codec {
        Codec::H264 => avc_record(parameter_sets),
        Codec::H265 => hevc_record(parameter_sets),
        _ => None,
    }
}

fn with_length(out: &mut Vec<u8>, unit: &[u8]) -> Option<()> {
    out.extend(u16::try_from(unit.len()).ok()?.to_be_bytes());
    out.extend(unit);
    Some(())
}

/// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1).
fn avc_record(parameter_sets: &[u8]) -> Option<Vec<u8>> {
    let sps = nal_units(parameter_sets).find(|unit| h264_type(unit) == 7)?;
    let pps = nal_units(parameter_sets).find(|unit| h264_type(unit) == 8)?;
    let &[_, profile, constraints, level, ..] = sps else { return None };
    let mut out = vec![1, profile, constraints, level, 0xfc | (LENGTH_SIZE - 1), 0xe0 | 1];
    with_length(&mut out, sps)?;
    out.push(1);
    with_length(&mut out, pps)?;
    if matches!(profile, 100 | 110 | 122 | 144) {
        // 4:2:0, 8 bit, no extensions: all that the hardware makes.
        out.extend([0xfc | 1, 0xf8, 0xf8, 0]);
    }
    Some(out)
}

/// `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1).
fn hevc_record(parameter_sets: &[u8]) -> Option<Vec<u8>> {
    let find = |kind| nal_units(parameter_sets).find(|unit| h265_type(unit) == kind);
    let sets = [(32_u8, find(32)?), (33, find(33)?), (34, find(34)?)];
    // SPS: header (2 bytes), ids and layers (1), general profile, tier and level (12).
    let payload = without_emulation(sets.get(1)?.1.get(2..)?);
    let layers = payload.first()?;
    let mut out = vec![1];
    out.extend(payload.get(1..13)?);
    let temporal_layers = (layers >> 1 & 7) + 1;
    let nested = layers & 1;
    // No minimum of spatial segmentation, any parallelism, no average frame rate. 4:2:0 and 8 bit: the hardware makes the Main
    // profile only, which has nothing else (H.265 §A.3.2).
    out.extend([0xf0, 0, 0xfc, 0xfc | 1, 0xf8, 0xf8, 0, 0]);
    out.push(temporal_layers << 3 | nested << 2 | (LENGTH_SIZE - 1));
    out.push(3);
    for (kind, unit) in sets {
        out.extend([0x80 | kind, 0, 1]);
        with_length(&mut out, unit)?;
    }
    Some(out)
}

/// Takes the emulation prevention bytes out (H.265 §7.3.1.1).
fn without_emulation(unit: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(unit.len());
    for &byte in unit {
        if byte != 3 || !out.ends_with(&[0, 0]) {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 6] = [0x67, 100, 0, 31, 0xac, 0xd9];
    const STREAM: [u8; 27] = [
        0, 0, 0, 1, 0x67, 100, 0, 31, 0xac, 0xd9, 0, 0, 0, 1, 0x68, 0xeb, 0, 0, 1, 0x65, 0x88, 0, 3, 0, 0, 0,
        0,
    ];

    #[test]
    fn byte_streams_fall_into_nal_units() {
        let units: Vec<_> = nal_units(&STREAM).collect();
        assert_eq!(units, [&SPS[..], &[0x68, 0xeb], &[0x65, 0x88, 0, 3]]);
        assert_eq!(nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).count(), 0);
        assert_eq!(nal_units(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn keyframes_are_seen_in_the_bitstream() {
        assert!(is_keyframe(Codec::H264, &STREAM));
        assert!(!is_keyframe(Codec::H264, &[0, 0, 1, 0x41, 0x9a]));
        assert!(is_keyframe(Codec::H265, &[0, 0, 1, 0x26, 1]));
        assert!(!is_keyframe(Codec::H265, &[0, 0, 1, 2, 1]));
        assert!(is_keyframe(Codec::Vp8, &[0x10, 2, 0]));
        assert!(!is_keyframe(Codec::Vp8, &[0x11, 2, 0]));
        assert!(!is_keyframe(Codec::Vp8, &[]));
    }

    #[test]
    fn avc_has_lengths_and_a_record() {
        assert_eq!(length_prefixed(Codec::H264, &STREAM), [0, 0, 0, 4, 0x65, 0x88, 0, 3]);
        let record = codec_data(Codec::H264, &STREAM).unwrap();
        assert_eq!(
            record,
            [
                1, 100, 0, 31, 0xff, 0xe1, 0, 6, 0x67, 100, 0, 31, 0xac, 0xd9, 1, 0, 2, 0x68, 0xeb, 0xfd,
                0xf8, 0xf8, 0
            ]
        );
        assert_eq!(codec_data(Codec::H264, &[0, 0, 1, 0x67, 66, 0, 10]), None);
        assert_eq!(codec_data(Codec::H264, &[0, 0, 1, 0x67, 0, 0, 1, 0x68]), None);
    }

    #[test]
    fn hvc1_takes_profile_and_level_from_the_sps() {
        // Main profile, level 93, with an emulation prevention byte in the constraint flags.
        let sps = [0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0];
        let mut stream = vec![0, 0, 1, 0x40, 1, 0xc, 0, 0, 1];
        stream.extend(sps);
        stream.extend([0, 0, 1, 0x44, 1, 0xc1]);
        let record = codec_data(Codec::H265, &stream).unwrap();
        assert_eq!(record[..13], [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]);
        assert_eq!(record[21], 1 << 3 | 1 << 2 | 3);
        assert_eq!(record[22], 3);
        assert_eq!(record[23..31], [0x80 | 32, 0, 1, 0, 3, 0x40, 1, 0xc]);
        assert_eq!(codec_data(Codec::H265, &stream[..8]), None);
    }
}
