// SPDX-License-Identifier: MIT OR Apache-2.0

//! The standard Huffman tables (T.81 annex K.3): RFC 2435 §3.1.3 allows no others, and none are sent.

/// T.81 table K.3: DC codes for luma. Sixteen counts, then the values.
#[rustfmt::skip]
pub(crate) const DC_LUMA: [u8; 28] = [
    0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
];

/// T.81 table K.4: DC codes for chroma.
#[rustfmt::skip]
pub(crate) const DC_CHROMA: [u8; 28] = [
    0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
];

/// T.81 table K.5: AC codes for luma.
#[rustfmt::skip]
pub(crate) const AC_LUMA: [u8; 178] = [
    0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

/// T.81 table K.6: AC codes for chroma.
#[rustfmt::skip]
pub(crate) const AC_CHROMA: [u8; 178] = [
    0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

/// What a DHT segment put into one table slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Slot {
    /// No DHT filled it: motion JPEG then means the standard table of that number.
    #[default]
    Missing,
    /// The standard luma table.
    Luma,
    /// The standard chroma table.
    Chroma,
    /// Any other table, such as one optimised for the picture.
    Other,
}

impl Slot {
    /// Classifies table data (counts and values) of class `ac`.
    pub(crate) fn classify(ac: bool, data: &[u8]) -> Self {
        let (luma, chroma): (&[u8], &[u8]) = if ac { (&AC_LUMA, &AC_CHROMA) } else { (&DC_LUMA, &DC_CHROMA) };
        if data == luma {
            Self::Luma
        } else if data == chroma {
            Self::Chroma
        } else {
            Self::Other
        }
    }

    /// Whether a component may use this slot, which has number `id`, as luma or as chroma table.
    pub(crate) fn serves(self, id: u8, luma: bool) -> bool {
        match self {
            Self::Missing => id == u8::from(!luma),
            Self::Luma => luma,
            Self::Chroma => !luma,
            Self::Other => false,
        }
    }
}

/// Decoding table: next 8 bits → code length and value for short codes, and the canonical bounds for all.
struct Decoder {
    fast: [(u8, u8); 256],
    /// For code lengths 1 to 16: one past the largest code, left-aligned to 16 bits; and value index − code.
    limit: [u32; 16],
    base: [i32; 16],
    values: &'static [u8],
}

impl Decoder {
    #[allow(clippy::indexing_slicing)] // Evaluated by the compiler: a wrong index fails the build.
    const fn new(table: &'static [u8]) -> Self {
        let (counts, values) = table.split_at(16);
        let mut decoder = Self { fast: [(0, 0); 256], limit: [0; 16], base: [0; 16], values };
        let (mut code, mut index, mut length) = (0_u32, 0, 1);
        while length <= 16 {
            decoder.base[length - 1] = index as i32 - code as i32;
            let mut left = counts[length - 1];
            while left > 0 {
                if length <= 8 {
                    let first = code << (8 - length);
                    let mut place = first;
                    while place < first + (1 << (8 - length)) {
                        decoder.fast[place as usize] = (length as u8, values[index]);
                        place += 1;
                    }
                }
                code += 1;
                index += 1;
                left -= 1;
            }
            decoder.limit[length - 1] = code << (16 - length);
            code <<= 1;
            length += 1;
        }
        decoder
    }

    /// Code length and value at the head of 16 bits.
    fn decode(&self, bits: u16) -> Option<(u8, u8)> {
        if let Some(&(length @ 1.., value)) = self.fast.get(usize::from(bits >> 8)) {
            return Some((length, value));
        }
        let (length, _) = (1_u8..=16).zip(&self.limit).find(|&(_, &limit)| u32::from(bits) < limit)?;
        let code = i32::from(bits >> (16 - length));
        let index = code + self.base.get(usize::from(length) - 1)?;
        Some((length, *self.values.get(usize::try_from(index).ok()?)?))
    }
}

static DECODERS: [[Decoder; 2]; 2] =
    [[Decoder::new(&DC_LUMA), Decoder::new(&AC_LUMA)], [Decoder::new(&DC_CHROMA), Decoder::new(&AC_CHROMA)]];

/// Bits of a scan with byte stuffing removed; stops at any marker.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    fn refill(&mut self) {
        while self.count <= 56 {
            let (byte, step) = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xff), Some(0)) => (0xff, 2),
                (Some(0xff), _) | (None, _) => return,
                (Some(&byte), _) => (byte, 1),
            };
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.at += step;
        }
    }

    fn peek(&self) -> u16 {
        // The upper 16 of 64 bits.
        (self.held >> 48) as u16
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.count = self.count.checked_sub(bits)?;
        self.held <<= bits;
        Some(())
    }

    /// Skips one 8x8 block (T.81 F.2.2); `None` when the bits end or are no valid block.
    fn block(&mut self, [dc, ac]: &[Decoder; 2]) -> Option<()> {
        self.refill();
        let (length, size) = dc.decode(self.peek())?;
        self.skip(u32::from(length) + u32::from(size))?;
        let mut place = 1;
        while place < 64 {
            self.refill();
            let (length, symbol) = ac.decode(self.peek())?;
            let (run, size) = (symbol >> 4, symbol & 15);
            self.skip(u32::from(length) + u32::from(size))?;
            match (run, size) {
                (15, 0) => place += 16,
                (_, 0) => return Some(()),
                _ => place += usize::from(run) + 1,
            }
        }
        (place == 64).then_some(())
    }

    /// Gives back whole bytes that were read ahead, and drops the padding bits: afterwards `at` is the first
    /// byte after the last one that was used.
    fn align(&mut self) {
        for _ in 0..self.count / 8 {
            let stuffed = self.at >= 2 && self.data.get(self.at - 2..self.at) == Some(&[0xff, 0]);
            self.at = self.at.saturating_sub(if stuffed { 2 } else { 1 });
        }
        (self.held, self.count) = (0, 0);
    }
}

/// Length of a scan, found by walking its codes: `data` begins with the scan and may hold anything after it.
/// `None` when it ends before its last unit or is damaged.
///
/// Needed only where no EOI tells the end, to tell a picture without one from a picture cut short.
pub(crate) fn scan_length(data: &[u8], luma_blocks: u32, mcus: u32, interval: u16) -> Option<usize> {
    let [luma, chroma] = &DECODERS;
    let mut bits = Bits { data, at: 0, held: 0, count: 0 };
    for mcu in 0..mcus {
        if interval != 0 && mcu != 0 && mcu % u32::from(interval) == 0 {
            bits.align();
            while data.get(bits.at..bits.at + 2) == Some(&[0xff, 0xff]) {
                bits.at += 1;
            }
            let number = (mcu / u32::from(interval) - 1) % 8;
            let expected = 0xd0 + u8::try_from(number).ok()?;
            if data.get(bits.at..bits.at + 2)? != [0xff, expected] {
                return None;
            }
            bits.at += 2;
        }
        for _ in 0..luma_blocks {
            bits.block(luma)?;
        }
        bits.block(chroma)?;
        bits.block(chroma)?;
    }
    bits.align();
    Some(bits.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_tables_are_told_from_others() {
        assert_eq!(Slot::classify(true, &AC_LUMA), Slot::Luma);
        assert_eq!(Slot::classify(false, &DC_CHROMA), Slot::Chroma);
        assert_eq!(Slot::classify(false, &AC_CHROMA), Slot::Other);
        let mut changed = AC_LUMA;
        changed[177] ^= 1;
        assert_eq!(Slot::classify(true, &changed), Slot::Other);
    }

    #[test]
    fn missing_tables_serve_by_their_number_and_present_ones_by_content() {
        assert!(Slot::Missing.serves(0, true) && Slot::Missing.serves(1, false));
        assert!(!Slot::Missing.serves(1, true) && !Slot::Missing.serves(2, false));
        assert!(Slot::Luma.serves(3, true) && !Slot::Luma.serves(0, false));
        assert!(!Slot::Other.serves(0, true));
    }

    #[test]
    fn decoder_knows_short_and_long_codes() {
        let [dc, ac] = &DECODERS[0];
        assert_eq!(dc.decode(0), Some((2, 0)));
        assert_eq!(dc.decode(0b0101_0000_0000_0000), Some((3, 1)));
        assert_eq!(ac.decode(0b1010 << 12), Some((4, 0)), "end of block");
        assert_eq!(ac.decode(0b111_1111_1001 << 5), Some((11, 0xf0)));
        assert_eq!(ac.decode(0xfffe), Some((16, 0xfa)), "longest code");
        assert_eq!(ac.decode(0xffff), None);
    }

    #[test]
    fn scan_length_finds_the_end_and_refuses_a_short_scan() {
        // One grey 4:2:0 unit is 32 bits: four times DC 0 (00) + end of block (1010), twice 00 00.
        let grey = [0x28, 0xa2, 0x8a, 0x00];
        assert_eq!(scan_length(&grey, 4, 1, 0), Some(4));
        assert_eq!(scan_length(&grey[..3], 4, 1, 0), None);
        let padded = [grey, [0; 4]].concat();
        assert_eq!(scan_length(&padded, 4, 1, 0), Some(4), "zero padding does not count");
        let two = [&grey[..], &[0xff, 0xd0], &grey].concat();
        assert_eq!(scan_length(&two, 4, 2, 1), Some(10));
        assert_eq!(scan_length(&two, 4, 2, 0), None, "a marker where none belongs");
        let wrong = [&grey[..], &[0xff, 0xd1], &grey].concat();
        assert_eq!(scan_length(&wrong, 4, 2, 1), None);
    }
}
