// SPDX-License-Identifier: MIT OR Apache-2.0

//! Byte streams of H.264 and H.265 (annex B of both): units, and which of them are parameter sets.

use crate::Codec;

/// The units of a byte stream, each without its start code.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = skip_start_code(stream);
    std::iter::from_fn(move || {
        let unit = rest?;
        let end = find_start_code(unit);
        rest = end.and_then(|e| skip_start_code(unit.get(e..)?));
        let unit = unit.get(..end.unwrap_or(unit.len()))?;
        // Zero bytes before a start code belong to that (B.2.1: leading_zero_8bits, trailing_zero_8bits).
        let trailing = unit.iter().rev().take_while(|b| **b == 0).count();
        unit.get(..unit.len() - trailing)
    })
    .filter(|unit| !unit.is_empty())
}

fn find_start_code(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|w| w == [0, 0, 1])
}

fn skip_start_code(data: &[u8]) -> Option<&[u8]> {
    data.get(find_start_code(data)? + 3..)
}

fn is_parameter_set(codec: Codec, unit: &[u8]) -> bool {
    let first = unit.first().copied().unwrap_or(0);
    match codec {
        Codec::H264 => matches!(first & 0x1f, 7 | 8 | 13 | 15),
        Codec::H265 => matches!((first >> 1) & 0x3f, 32..=34),
        _ => false,
    }
}

fn is_message_or_delimiter(codec: Codec, unit: &[u8]) -> bool {
    let first = unit.first().copied().unwrap_or(0);
    match codec {
        Codec::H264 => matches!(first & 0x1f, 6 | 9),
        Codec::H265 => matches!((first >> 1) & 0x3f, 35 | 39 | 40),
        _ => false,
    }
}

/// Takes a byte stream apart: parameter sets, and slices. Messages and delimiters are left out: they tell of the
/// software encoder. Other codecs' data is all picture.
pub fn split_parameter_sets(codec: Codec, stream: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if !codec.has_parameter_sets() {
        return (Vec::new(), stream.to_vec());
    }
    let (mut sets, mut slices) = (Vec::new(), Vec::with_capacity(stream.len()));
    for unit in nal_units(stream) {
        if is_message_or_delimiter(codec, unit) {
            continue;
        }
        let target = if is_parameter_set(codec, unit) { &mut sets } else { &mut slices };
        target.extend_from_slice(&[0, 0, 0, 1]);
        target.extend_from_slice(unit);
    }
    (sets, slices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_stream() {
        let stream = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 0, 4, 0, 0];
        let units: Vec<_> = nal_units(&stream).collect();
        assert_eq!(units, [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 0, 4]]);
        assert_eq!(nal_units(&[1, 2, 3]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).count(), 0);
        assert_eq!(nal_units(&[]).count(), 0);
    }

    #[test]
    fn parameter_sets_are_taken_apart() {
        let stream = [0, 0, 1, 0x67, 1, 0, 0, 1, 6, 9, 9, 0, 0, 1, 0x65, 7];
        let (sets, slices) = split_parameter_sets(Codec::H264, &stream);
        assert_eq!(sets, [0, 0, 0, 1, 0x67, 1]);
        assert_eq!(slices, [0, 0, 0, 1, 0x65, 7]);
        let stream = [0, 0, 1, 0x40, 1, 0, 0, 1, 0x26, 7];
        let (sets, slices) = split_parameter_sets(Codec::H265, &stream);
        assert_eq!(sets, [0, 0, 0, 1, 0x40, 1]);
        assert_eq!(slices, [0, 0, 0, 1, 0x26, 7]);
    }
}
