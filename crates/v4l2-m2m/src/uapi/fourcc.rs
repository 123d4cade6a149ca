// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pixel formats.

use std::fmt;

/// A V4L2 pixel format: four characters, the first in the lowest byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct FourCc(pub u32);

impl FourCc {
    /// From its characters.
    #[must_use]
    pub const fn new(code: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*code))
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The top bit marks big-endian variants.
        for byte in (self.0 & 0x7fff_ffff).to_le_bytes() {
            let c = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' };
            write!(f, "{c}")?;
        }
        if self.0 & 0x8000_0000 != 0 {
            write!(f, "-BE")?;
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{self}'")
    }
}

macro_rules! formats {
    ($($name:ident $code:literal $doc:literal)*) => {$(
        #[doc = $doc]
        pub const $name: FourCc = FourCc::new($code);
    )*};
}

formats! {
    V4L2_PIX_FMT_H264 b"H264" "H.264 with start codes"
    V4L2_PIX_FMT_HEVC b"HEVC" "H.265 with start codes"
    V4L2_PIX_FMT_H265_NV b"H265" "H.265 as NVIDIA's library calls it"
    V4L2_PIX_FMT_VP8 b"VP80" "VP8"
    V4L2_PIX_FMT_AV1_NV b"AV10" "AV1 as NVIDIA's library calls it"
    V4L2_PIX_FMT_FWHT b"FWHT" "Fast Walsh Hadamard Transform, the codec of the kernel's virtual driver"
    V4L2_PIX_FMT_YUV420 b"YU12" "4:2:0, three planes in one piece of memory"
    V4L2_PIX_FMT_YVU420 b"YV12" "4:2:0, three planes in one piece of memory, Cr first"
    V4L2_PIX_FMT_NV12 b"NV12" "4:2:0, two planes in one piece of memory"
    V4L2_PIX_FMT_NV21 b"NV21" "4:2:0, two planes in one piece of memory, Cr first"
    V4L2_PIX_FMT_YUYV b"YUYV" "4:2:2, packed"
    V4L2_PIX_FMT_UYVY b"UYVY" "4:2:2, packed, chroma first"
    V4L2_PIX_FMT_YUV420M b"YM12" "4:2:0, three planes, each in a piece of memory"
    V4L2_PIX_FMT_YVU420M b"YM21" "4:2:0, three planes, each in a piece of memory, Cr first"
    V4L2_PIX_FMT_NV12M b"NM12" "4:2:0, two planes, each in a piece of memory"
    V4L2_PIX_FMT_NV21M b"NM21" "4:2:0, two planes, each in a piece of memory, Cr first"
    V4L2_PIX_FMT_P010M b"PM10" "4:2:0 of 10 bits, two planes, each in a piece of memory; as NVIDIA's library calls it"
    V4L2_PIX_FMT_JPEG b"JPEG" "JPEG"
}
