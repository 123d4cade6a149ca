// SPDX-License-Identifier: MPL-2.0

//! Ten bits a sample, as the hardware packs them: four samples in five bytes, lowest bits first (NV15, NV20).

/// The samples of a row, 0 to 1023.
pub(crate) fn samples(packed: &[u8]) -> impl Iterator<Item = u16> {
    packed.chunks_exact(5).flat_map(|group| {
        let bits = group.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        (0..4).map(move |index| (bits >> (10 * index)) as u16 & 0x3ff)
    })
}

/// Bytes of a row of `count` samples, in whole groups.
pub(crate) fn row_size(count: usize) -> usize {
    count.div_ceil(4) * 5
}

/// Writes samples into a row of 16-bit words, each times 2^`shift`.
pub(crate) fn write(samples: impl Iterator<Item = u16>, shift: u32, row: &mut [u8]) {
    for (word, sample) in row.chunks_exact_mut(2).zip(samples) {
        word.copy_from_slice(&(sample << shift).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_samples_lie_in_five_bytes() {
        // 0x3ff, 0, 0x155, 0x2aa: bits from the lowest on.
        let packed = [0xff, 0x03, 0x50, 0x95, 0xaa];
        assert_eq!(samples(&packed).collect::<Vec<_>>(), [0x3ff, 0, 0x155, 0x2aa]);
        // An incomplete group is none.
        assert_eq!(samples(&packed[..4]).count(), 0);
        assert_eq!([row_size(1), row_size(4), row_size(5), row_size(640)], [5, 5, 10, 800]);
    }

    #[test]
    fn words_are_shifted_and_bounded() {
        let mut row = [0xee; 7];
        write([1, 0x3ff, 5, 5].into_iter(), 6, &mut row);
        assert_eq!(row, [0x40, 0, 0xc0, 0xff, 0x40, 0x01, 0xee]);
        let mut row = [0xee; 4];
        write([0x3ff].into_iter(), 0, &mut row);
        assert_eq!(row, [0xff, 0x03, 0xee, 0xee]);
    }
}
