// SPDX-License-Identifier: MIT OR Apache-2.0

//! Just enough reading of codec bitstreams to know what a frame is.

pub mod h264;

/// Reads bits, most significant first, with the emulation prevention bytes of H.264 §7.3.1 left out.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    pos: usize,
    bit: u8,
    zeros: u8,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0, bit: 0, zeros: 0 }
    }

    pub(crate) fn bit(&mut self) -> Option<u32> {
        if self.bit == 0 && self.zeros >= 2 && self.data.get(self.pos) == Some(&3) {
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
