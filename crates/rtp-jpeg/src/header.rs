// SPDX-License-Identifier: MIT OR Apache-2.0

//! The three headers that RFC 2435 §3.1 puts between the RTP header and the scan bytes.

/// Length of the main header (RFC 2435 §3.1).
pub const MAIN_HEADER_LEN: usize = 8;
/// Length of the restart marker header (RFC 2435 §3.1.7).
pub const RESTART_HEADER_LEN: usize = 4;
/// Length of the quantisation table header without its tables (RFC 2435 §3.1.8).
pub const QUANT_HEADER_LEN: usize = 4;
/// Fragment offsets have 24 bits, and offset plus length stays below this (RFC 2435 §3.1.2).
pub const MAX_SCAN_LEN: usize = (1 << 24) - 1;
/// Largest width and height that the main header can carry (RFC 2435 §3.1.5, §3.1.6).
pub const MAX_HEADER_DIMENSION: u16 = 2040;
/// Restart count that says "not aligned to packets: rebuild the whole frame" (RFC 2435 §3.1.7).
pub const WHOLE_FRAME_COUNT: u16 = 0x3fff;

/// Chroma subsampling of a picture; RFC 2435 §4.1 knows these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// 4:2:2, luma sampled 2x1 (RTP/JPEG types 0 and 64).
    Yuv422,
    /// 4:2:0, luma sampled 2x2 (RTP/JPEG types 1 and 65).
    Yuv420,
}

impl Sampling {
    /// Lines of a minimum coded unit; all are 16 pixels wide.
    pub const fn mcu_height(self) -> u32 {
        match self {
            Self::Yuv422 => 8,
            Self::Yuv420 => 16,
        }
    }

    /// Minimum coded units in a picture of this size.
    pub fn mcus(self, width: u16, height: u16) -> u32 {
        u32::from(width).div_ceil(16) * u32::from(height).div_ceil(self.mcu_height())
    }
}

/// What the type-specific byte says about interlacing (RFC 2435 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Field {
    /// A progressive frame.
    #[default]
    Progressive,
    /// The odd field of an interlaced frame.
    Odd,
    /// The even field; its lines go directly above those of the odd field.
    Even,
    /// One field alone, whose lines the receiver doubles.
    Single,
}

impl Field {
    /// The type-specific byte.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Progressive => 0,
            Self::Odd => 1,
            Self::Even => 2,
            Self::Single => 3,
        }
    }

    /// The meaning of a type-specific byte. Values the RFC does not define count as progressive, because
    /// senders are known to leave rubbish there and other receivers ignore it.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Odd,
            2 => Self::Even,
            3 => Self::Single,
            _ => Self::Progressive,
        }
    }
}

/// Main header (RFC 2435 §3.1), present in every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MainHeader {
    /// Type-specific byte, see [`Field`].
    pub type_specific: u8,
    /// Place of this packet's first byte in the scan, 24 bits.
    pub offset: u32,
    /// RTP/JPEG type.
    pub kind: u8,
    /// Q value.
    pub q: u8,
    /// Width in units of 8 pixels; 0 = signalled elsewhere.
    pub width8: u8,
    /// Height in units of 8 pixels; 0 = signalled elsewhere.
    pub height8: u8,
}

impl MainHeader {
    /// The header as bytes.
    pub const fn to_bytes(self) -> [u8; MAIN_HEADER_LEN] {
        let [_, a, b, c] = self.offset.to_be_bytes();
        [self.type_specific, a, b, c, self.kind, self.q, self.width8, self.height8]
    }

    /// Splits the header off the front of an RTP payload; `None` when that is too short.
    pub fn split_from(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[type_specific, a, b, c, kind, q, width8, height8], rest) = payload.split_first_chunk()?;
        let offset = u32::from_be_bytes([0, a, b, c]);
        Some((Self { type_specific, offset, kind, q, width8, height8 }, rest))
    }

    /// Whether a restart marker header follows (types 64 to 127, RFC 2435 §3.1.3).
    pub const fn has_restart(&self) -> bool {
        self.kind >= 64 && self.kind < 128
    }

    /// Whether a quantisation table header follows (RFC 2435 §3.1.8).
    pub const fn has_quant(&self) -> bool {
        self.q >= 128 && self.offset == 0
    }
}

/// Restart marker header (RFC 2435 §3.1.7), in every packet of types 64 to 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartHeader {
    /// Restart interval in minimum coded units; never 0 on the wire.
    pub interval: u16,
    /// F: this packet begins a chunk of whole restart intervals.
    pub first: bool,
    /// L: this packet ends such a chunk.
    pub last: bool,
    /// Index of the chunk's first interval in the frame, or [`WHOLE_FRAME_COUNT`]; 14 bits.
    pub count: u16,
}

impl RestartHeader {
    /// The header of a frame whose intervals are not aligned to packets.
    pub const fn whole_frame(interval: u16) -> Self {
        Self { interval, first: true, last: true, count: WHOLE_FRAME_COUNT }
    }

    /// Whether F, L and count say that intervals are not aligned to packets.
    pub const fn is_whole_frame(&self) -> bool {
        self.first && self.last && self.count == WHOLE_FRAME_COUNT
    }

    /// The header as bytes.
    pub const fn to_bytes(self) -> [u8; RESTART_HEADER_LEN] {
        let flags = (self.first as u16) << 15 | (self.last as u16) << 14;
        let [a, b] = self.interval.to_be_bytes();
        let [c, d] = (flags | (self.count & WHOLE_FRAME_COUNT)).to_be_bytes();
        [a, b, c, d]
    }

    /// Splits the header off the front; `None` when there are too few bytes.
    pub fn split_from(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[a, b, c, d], rest) = payload.split_first_chunk()?;
        let word = u16::from_be_bytes([c, d]);
        let header = Self {
            interval: u16::from_be_bytes([a, b]),
            first: word & 0x8000 != 0,
            last: word & 0x4000 != 0,
            count: word & WHOLE_FRAME_COUNT,
        };
        Some((header, rest))
    }
}

/// Quantisation table header (RFC 2435 §3.1.8), in the first packet of a frame with Q ≥ 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantHeader {
    /// Bit i set = table i has 16-bit entries.
    pub precision: u8,
    /// Bytes of table data; 0 = as sent before.
    pub length: u16,
}

impl QuantHeader {
    /// The header as bytes.
    pub const fn to_bytes(self) -> [u8; QUANT_HEADER_LEN] {
        let [a, b] = self.length.to_be_bytes();
        [0, self.precision, a, b]
    }

    /// Splits the header off the front; `None` when there are too few bytes.
    pub fn split_from(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[_, precision, a, b], rest) = payload.split_first_chunk()?;
        Some((Self { precision, length: u16::from_be_bytes([a, b]) }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_header_is_big_endian_with_a_24_bit_offset() {
        let header =
            MainHeader { type_specific: 2, offset: 0x12_3456, kind: 65, q: 255, width8: 80, height8: 60 };
        assert_eq!(header.to_bytes(), [2, 0x12, 0x34, 0x56, 65, 255, 80, 60]);
        assert_eq!(MainHeader::split_from(&header.to_bytes()), Some((header, &[][..])));
        assert_eq!(MainHeader::split_from(&[0; 7]), None);
    }

    #[test]
    fn restart_header_packs_f_l_and_count() {
        assert_eq!(RestartHeader::whole_frame(4).to_bytes(), [0, 4, 0xff, 0xff]);
        let header = RestartHeader { interval: 0x102, first: false, last: true, count: 5 };
        assert_eq!(header.to_bytes(), [1, 2, 0x40, 5]);
        assert_eq!(RestartHeader::split_from(&header.to_bytes()), Some((header, &[][..])));
        assert_eq!(RestartHeader::split_from(&[0; 3]), None);
    }

    #[test]
    fn quant_header_and_which_packets_have_it() {
        let header = QuantHeader { precision: 3, length: 256 };
        assert_eq!(header.to_bytes(), [0, 3, 1, 0]);
        assert_eq!(QuantHeader::split_from(&header.to_bytes()), Some((header, &[][..])));
        let main = |offset, kind, q| MainHeader { type_specific: 0, offset, kind, q, width8: 1, height8: 1 };
        assert!(main(0, 0, 128).has_quant() && !main(1, 0, 128).has_quant() && !main(0, 0, 127).has_quant());
        assert!(
            main(0, 64, 1).has_restart() && !main(0, 63, 1).has_restart() && !main(0, 128, 1).has_restart()
        );
    }

    #[test]
    fn units_of_a_picture_round_up() {
        assert_eq!(Sampling::Yuv420.mcus(642, 479), 41 * 30);
        assert_eq!(Sampling::Yuv422.mcus(16, 9), 2);
    }

    #[test]
    fn field_bytes() {
        for field in [Field::Progressive, Field::Odd, Field::Even, Field::Single] {
            assert_eq!(Field::from_byte(field.to_byte()), field);
        }
        assert_eq!(Field::from_byte(77), Field::Progressive);
    }
}
