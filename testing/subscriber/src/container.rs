// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files that FFmpeg reads: Annex B for H.264 and H.265, IVF for VP8, VP9 and AV1.

use std::io::{self, Write};

/// A video codec, as LiveKit names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264.
    H264,
    /// H.265.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
    /// Opus; nothing is written.
    Opus,
}

impl Codec {
    /// From str0m's; `None` = not one of ours.
    pub fn of(codec: str0m::format::Codec) -> Option<Self> {
        use str0m::format::Codec as C;
        Some(match codec {
            C::H264 => Self::H264,
            C::H265 => Self::H265,
            C::Vp8 => Self::Vp8,
            C::Vp9 => Self::Vp9,
            C::Av1 => Self::Av1,
            C::Opus => Self::Opus,
            _ => return None,
        })
    }

    /// A short name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Opus => "opus",
        }
    }

    /// The four bytes of an IVF header; `None` = the codec has a byte stream of its own.
    fn ivf(self) -> Option<&'static [u8; 4]> {
        match self {
            Self::Vp8 => Some(b"VP80"),
            Self::Vp9 => Some(b"VP90"),
            Self::Av1 => Some(b"AV01"),
            Self::H264 | Self::H265 | Self::Opus => None,
        }
    }
}

/// Writes frames of one codec.
pub struct Container<W> {
    out: W,
    codec: Codec,
    begun: bool,
}

impl<W: Write> Container<W> {
    /// Nothing is written before the first frame.
    pub fn new(out: W, codec: Codec) -> Self {
        Self { out, codec, begun: false }
    }

    /// Writes a frame; `time` in ticks of 1/90000 s.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn frame(&mut self, time: u64, data: &[u8]) -> io::Result<()> {
        if self.codec == Codec::Opus {
            return Ok(());
        }
        if let Some(four) = self.codec.ivf() {
            if !self.begun {
                self.header(four)?;
            }
            // Frame header: size, time; little endian.
            self.out.write_all(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes())?;
            self.out.write_all(&time.to_le_bytes())?;
        }
        self.begun = true;
        self.out.write_all(data)
    }

    /// What is written is safe.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Signature, version, header size, codec, a size that decoders take from the stream, 90 kHz, no count.
    fn header(&mut self, four: &[u8; 4]) -> io::Result<()> {
        self.out.write_all(b"DKIF")?;
        for number in [0u16, 32] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        self.out.write_all(four)?;
        for number in [0u16, 0] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        for number in [90_000u32, 1, 0, 0] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        let mut container = Container::new(&mut out, codec);
        container.frame(0, &[1, 2]).unwrap();
        container.frame(3000, &[3]).unwrap();
        out
    }

    #[test]
    fn annex_b_is_the_frames_alone() {
        assert_eq!(written(Codec::H265), [1, 2, 3]);
        assert!(written(Codec::Opus).is_empty());
    }

    #[test]
    fn ivf_has_one_header_and_one_for_each_frame() {
        let out = written(Codec::Av1);
        assert_eq!(out.len(), 32 + 12 + 2 + 12 + 1);
        assert_eq!((&out[..4], &out[8..12]), (&b"DKIF"[..], &b"AV01"[..]));
        assert_eq!(out[32..36], [2, 0, 0, 0]);
        assert_eq!(out[46..50], [1, 0, 0, 0]);
        assert_eq!(out[50..58], 3000u64.to_le_bytes());
    }
}
