// SPDX-License-Identifier: MIT OR Apache-2.0

//! VP9 frames and superframes (VP9 bitstream specification §6.2, §7.2, Annex B).

use super::{BitReader, FrameInfo, VideoFormat};

/// `color_space` of RGB (§7.2.2).
const CS_RGB: u32 = 7;

/// Reads the header of a frame, or of the first frame of a superframe: its index stands at the end.
pub fn inspect(frame: &[u8]) -> FrameInfo {
    header(frame).unwrap_or_default()
}

/// §6.2 `uncompressed_header`, up to the size.
fn header(frame: &[u8]) -> Option<FrameInfo> {
    let mut r = BitReader::plain(frame);
    if r.bits(2)? != 2 {
        return None;
    }
    let profile = r.bit()? | r.bit()? << 1;
    if profile == 3 {
        r.bit()?;
    }
    let delta = FrameInfo { picture: true, ..FrameInfo::default() };
    let show_existing_frame = r.flag()?;
    if show_existing_frame || r.flag()? {
        return Some(delta);
    }
    r.skip(2)?; // show_frame, error_resilient_mode
    if r.bits(24)? != 0x49_83_42 {
        return None;
    }
    let bit_depth = match (profile >= 2).then(|| r.flag()) {
        None => 8,
        Some(twelve) => 10 + 2 * u8::from(twelve?),
    };
    let chroma_format_idc = if r.bits(3)? != CS_RGB {
        r.bit()?; // color_range
        match profile & 1 {
            0 => 1,
            _ => {
                let subsampling = (r.bit()?, r.bit()?);
                r.bit()?;
                match subsampling {
                    (1, 1) => 1,
                    (1, 0) => 2,
                    _ => 3,
                }
            }
        }
    } else {
        if profile & 1 == 1 {
            r.bit()?;
        }
        3
    };
    let format = VideoFormat {
        profile: u8::try_from(profile).ok()?,
        chroma_format_idc,
        bit_depth,
        width: r.bits(16)? + 1,
        height: r.bits(16)? + 1,
    };
    Some(FrameInfo { keyframe: true, parameter_sets: true, format: Some(format), ..delta })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bits, number};
    use super::*;

    /// marker, profile low and high bit, no existing frame, key, shown, not resilient, sync code.
    fn key(profile: &str, color: &str, width: u32, height: u32) -> Vec<u8> {
        let size = number(width - 1, 16) + &number(height - 1, 16);
        bits(&format!("10 {profile} 0 0 1 0 {} {color} {size}", number(0x49_83_42, 24)))
    }

    #[test]
    fn a_key_frame_tells_profile_and_size() {
        // Profile 0: color_space, color_range.
        let info = inspect(&key("00", "001 0", 1280, 720));
        assert!(info.keyframe && info.picture);
        let format = info.format.unwrap();
        assert_eq!((format.width, format.height, format.profile, format.bit_depth), (1280, 720, 0, 8));
        assert_eq!(format.chroma_format_idc, 1);
        // Profile 1: subsampling 4:4:4. Profile 2: ten bit. The low bit comes first.
        let wide = inspect(&key("10", "001 0 000", 640, 360)).format.unwrap();
        assert_eq!((wide.profile, wide.chroma_format_idc, wide.width), (1, 3, 640));
        let ten = inspect(&key("01", "0 001 0", 640, 360)).format.unwrap();
        assert_eq!((ten.profile, ten.bit_depth, ten.height), (2, 10, 360));
        // RGB of profile 1 is 4:4:4; it has no range.
        assert_eq!(inspect(&key("10", "111 0", 64, 64)).format.unwrap().chroma_format_idc, 3);
    }

    #[test]
    fn delta_repeated_and_foreign_frames_are_no_keys() {
        let delta = inspect(&bits("10 00 0 1 1 0"));
        assert!(delta.picture && !delta.keyframe);
        let repeated = inspect(&bits("10 00 1 000"));
        assert!(repeated.picture && !repeated.keyframe);
        assert_eq!(inspect(&bits("00 00 0 0 1 0")), FrameInfo::default());
        let whole = key("00", "001 0", 1280, 720);
        for len in 0..whole.len() - 1 {
            assert!(!inspect(&whole[..len]).keyframe, "length {len}");
        }
    }
}
