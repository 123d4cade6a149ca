// SPDX-License-Identifier: MIT OR Apache-2.0

//! VP8 frames (RFC 6386 §9.1).

use super::{FrameInfo, VideoFormat};

/// Reads a frame's header.
pub fn inspect(frame: &[u8]) -> FrameInfo {
    let Some([tag, _, _]) = frame.first_chunk() else { return FrameInfo::default() };
    if tag & 1 == 1 {
        return FrameInfo { picture: true, ..FrameInfo::default() };
    }
    // A key frame goes on with a start code and the size; without them no decoder takes it.
    let Some([_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1]) = frame.first_chunk() else {
        return FrameInfo::default();
    };
    // The upper two bits of each are a scale for the display.
    let size = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let format = VideoFormat {
        profile: tag >> 1 & 7,
        chroma_format_idc: 1,
        bit_depth: 8,
        width: size(*w0, *w1),
        height: size(*h0, *h1),
    };
    FrameInfo { keyframe: true, picture: true, parameter_sets: true, reordered: false, format: Some(format) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First bytes that `vp8enc` made of 320x240.
    const KEY: [u8; 10] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];

    #[test]
    fn a_key_frame_tells_its_size() {
        let info = inspect(&KEY);
        assert!(info.keyframe && info.picture && info.parameter_sets);
        let format = info.format.unwrap();
        assert_eq!((format.width, format.height, format.profile), (320, 240, 0));
        let mut scaled = KEY;
        scaled[7] |= 0xc0;
        assert_eq!(inspect(&scaled).format.unwrap().width, 320, "the scale is no part of the size");
    }

    #[test]
    fn a_delta_frame_is_a_picture_and_no_key() {
        let info = inspect(&[0x31, 0x02, 0x00]);
        assert!(info.picture && !info.keyframe && info.format.is_none());
    }

    #[test]
    fn a_key_frame_without_its_start_code_is_none() {
        for len in 0..KEY.len() {
            assert!(!inspect(&KEY[..len]).keyframe, "length {len}");
        }
        let mut broken = KEY;
        broken[4] = 0;
        assert!(!inspect(&broken).keyframe);
    }
}
