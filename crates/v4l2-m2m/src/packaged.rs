// SPDX-License-Identifier: MIT OR Apache-2.0

//! H.264 and H.265 as files have them (ISO/IEC 14496-15): NAL units with their lengths in front, and the parameter sets in a
//! record of their own. GStreamer calls this `avc` and `hvc1`.

use crate::codec::{Codec, nals};

/// Bytes of a length.
const LENGTH_SIZE: u8 = 4;

/// NAL units without start codes, and without the zeros that may follow one (H.264 Annex B, `trailing_zero_8bits`).
fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    nals(data)
        .map(|nal| {
            let zeros = nal.bytes.iter().rev().take_while(|byte| **byte == 0).count();
            nal.bytes.get(..nal.bytes.len() - zeros).unwrap_or_default()
        })
        .filter(|unit| !unit.is_empty())
}

/// `nal_unit_type` (H.264 Table 7-1, H.265 Table 7-1).
fn kind(codec: Codec, unit: &[u8]) -> u8 {
    let first = unit.first().copied().unwrap_or_default();
    if codec == Codec::H264 { first & 0x1f } else { first >> 1 & 0x3f }
}

/// The kinds of parameter sets, in the order in which they are sent.
fn parameter_sets(codec: Codec) -> &'static [u8] {
    match codec {
        Codec::H264 => &[7, 8],
        Codec::H265 => &[32, 33, 34],
        _ => &[],
    }
}

/// Whether a codec has this form.
#[must_use]
pub fn is_possible(codec: Codec) -> bool {
    !parameter_sets(codec).is_empty()
}

/// A picture of a byte stream with lengths in place of start codes, and without parameter sets.
#[must_use]
pub fn picture(codec: Codec, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    for unit in units(data).filter(|unit| !parameter_sets(codec).contains(&kind(codec, unit))) {
        let Ok(length) = u32::try_from(unit.len()) else { continue };
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(unit);
    }
    out
}

/// The record (`codec_data`) of what a byte stream has of parameter sets, for 4:2:0 of `bits` bits a sample. `None` if some
/// are missing, or are none.
#[must_use]
pub fn record(codec: Codec, data: &[u8], bits: u8) -> Option<Vec<u8>> {
    let find = |wanted: u8| units(data).find(|unit| kind(codec, unit) == wanted);
    let depth = bits.checked_sub(8)?;
    match codec {
        // AVCDecoderConfigurationRecord, §5.3.3.1.
        Codec::H264 => {
            let (sps, pps) = (find(7)?, find(8)?);
            let &[_, profile, constraints, level, ..] = sps else { return None };
            let mut out = vec![1, profile, constraints, level, 0xfc | (LENGTH_SIZE - 1), 0xe0 | 1];
            append(&mut out, sps)?;
            out.push(1);
            append(&mut out, pps)?;
            if matches!(profile, 100 | 110 | 122 | 144) {
                // 4:2:0, and no extension of the SPS.
                out.extend([0xfc | 1, 0xf8 | depth, 0xf8 | depth, 0]);
            }
            Some(out)
        }
        // HEVCDecoderConfigurationRecord, §8.3.3.1.
        Codec::H265 => {
            let sets = [(32, find(32)?), (33, find(33)?), (34, find(34)?)];
            // After the header: ids and layers (1 byte), general profile, tier and level (12 bytes).
            let sps = without_emulation(find(33)?.get(2..)?);
            let layers = *sps.first()?;
            let mut out = vec![1];
            out.extend_from_slice(sps.get(1..13)?);
            // No least spatial segmentation, parallelism unknown, 4:2:0, depths, frame rate unknown.
            out.extend([0xf0, 0, 0xfc, 0xfc | 1, 0xf8 | depth, 0xf8 | depth, 0, 0]);
            let temporal_layers = (layers >> 1 & 7) + 1;
            out.push(temporal_layers << 3 | (layers & 1) << 2 | (LENGTH_SIZE - 1));
            out.push(3);
            for (kind, unit) in sets {
                // Complete: such sets are nowhere else. One of this kind.
                out.extend([0x80 | kind, 0, 1]);
                append(&mut out, unit)?;
            }
            Some(out)
        }
        _ => None,
    }
}

fn append(out: &mut Vec<u8>, unit: &[u8]) -> Option<()> {
    out.extend(u16::try_from(unit.len()).ok()?.to_be_bytes());
    out.extend_from_slice(unit);
    Some(())
}

/// Without emulation prevention bytes (H.265 §7.3.1.1).
fn without_emulation(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut out = Vec::with_capacity(unit.len());
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 100, 0, 31, 0xac];
    const PPS: &[u8] = &[0x68, 0xce];
    const IDR: &[u8] = &[0x65, 0x88, 0, 3, 1];

    fn stream(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1][..], unit].concat()).collect()
    }

    #[test]
    fn lengths_in_place_of_start_codes() {
        let delimiter = &[9, 0x10][..];
        let mut data = stream(&[delimiter, SPS, PPS, IDR]);
        data.extend([0, 0, 0]);
        let packed = [&[0, 0, 0, 2][..], delimiter, &[0, 0, 0, 5], IDR].concat();
        assert_eq!(picture(Codec::H264, &data), packed);
        assert_eq!(
            picture(Codec::H265, &stream(&[&[0x40, 1, 2], &[0x26, 1, 0xaf]])),
            [0, 0, 0, 3, 0x26, 1, 0xaf]
        );
        assert_eq!(picture(Codec::H264, &[]), []);
        assert_eq!(picture(Codec::H264, &[0, 0, 1, 0, 0, 1]), []);
    }

    #[test]
    fn avc_record() {
        let expected = [&[1, 100, 0, 31, 0xff, 0xe1, 0, 5][..], SPS, &[1, 0, 2], PPS, &[0xfd, 0xf8, 0xf8, 0]];
        assert_eq!(record(Codec::H264, &stream(&[SPS, PPS, IDR]), 8), Some(expected.concat()));
        let baseline = record(Codec::H264, &stream(&[&[0x67, 66, 0xc0, 31], PPS]), 8).unwrap();
        assert!(baseline.ends_with(PPS), "what follows is for High only");
        assert_eq!(record(Codec::H264, &stream(&[SPS, IDR]), 8), None);
        assert_eq!(record(Codec::H264, &stream(&[&[0x67, 100], PPS]), 8), None);
    }

    #[test]
    fn hvc1_record() {
        let (vps, pps) = (&[0x40, 1, 0x0c][..], &[0x44, 1, 0xc1][..]);
        // Main, level 3.1: emulation prevention within profile and level.
        let sps = &[0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0][..];
        let out = record(Codec::H265, &stream(&[vps, sps, pps]), 10).unwrap();
        assert_eq!(out[..13], [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]);
        assert_eq!(out[13..23], [0xf0, 0, 0xfc, 0xfd, 0xfa, 0xfa, 0, 0, 1 << 3 | 1 << 2 | 3, 3]);
        let sets = [&[0xa0, 0, 1, 0, 3][..], vps, &[0xa1, 0, 1, 0, 19], sps, &[0xa2, 0, 1, 0, 3], pps];
        assert_eq!(out[23..], sets.concat());
        assert_eq!(record(Codec::H265, &stream(&[vps, pps]), 8), None);
        assert_eq!(record(Codec::H265, &stream(&[vps, &[0x42, 1, 1], pps]), 8), None);
        assert_eq!(record(Codec::Vp8, &[], 8), None);
    }
}
