// SPDX-License-Identifier: MIT OR Apache-2.0

//! AV1 temporal units in the low-overhead bitstream format (AV1 specification §5.2 to §5.9).

use super::{BitReader, FrameInfo, VideoFormat};

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;

/// The OBUs of a temporal unit: type and payload. Ends at the first one that is cut short.
pub fn obus(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (kind, payload, after) = split_obu(rest)?;
        rest = after;
        Some((kind, payload))
    })
}

/// §5.3: the first OBU's type, its payload, and what comes after it.
fn split_obu(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, mut rest) = data.split_first()?;
    // obu_forbidden_bit
    if header & 0x80 != 0 {
        return None;
    }
    if header & 0x04 != 0 {
        rest = rest.get(1..)?;
    }
    let size = match header & 0x02 {
        0 => rest.len(),
        _ => {
            let (size, length) = leb128(rest)?;
            rest = rest.get(length..)?;
            usize::try_from(size).ok()?
        }
    };
    let (payload, after) = rest.split_at_checked(size)?;
    Some((header >> 3 & 15, payload, after))
}

/// §4.10.5: the value and how many bytes it takes.
fn leb128(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (n, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

/// Reads the head of a temporal unit: its sequence header and its first frame header.
///
/// A keyframe is a shown key frame together with a sequence header: a decoder can start there (§7.6.2).
pub fn inspect(temporal_unit: &[u8]) -> FrameInfo {
    let mut info = FrameInfo::default();
    let mut still = false;
    for (kind, payload) in obus(temporal_unit) {
        match kind {
            OBU_SEQUENCE_HEADER => {
                info.parameter_sets = true;
                // reduced_still_picture_header: every frame is a shown key frame.
                still = payload.first().is_some_and(|byte| byte & 0x08 != 0);
                info.format = sequence_header(payload);
            }
            OBU_FRAME_HEADER | OBU_FRAME => {
                info.picture = true;
                let shown_key = still || shown_key_frame(payload).unwrap_or_default();
                info.keyframe = shown_key && info.parameter_sets;
                break;
            }
            _ => {}
        }
    }
    info
}

/// §5.9.2 `uncompressed_header`: a key frame (0) that is shown.
fn shown_key_frame(payload: &[u8]) -> Option<bool> {
    let mut r = BitReader::plain(payload);
    let show_existing_frame = r.flag()?;
    Some(!show_existing_frame && r.bits(2)? == 0 && r.flag()?)
}

/// §5.5: profile, size and colour format.
fn sequence_header(payload: &[u8]) -> Option<VideoFormat> {
    let mut r = BitReader::plain(payload);
    let profile = r.bits(3)?;
    r.bit()?; // still_picture
    let reduced = r.flag()?;
    if reduced {
        r.skip(5)?;
    } else {
        operating_points(&mut r)?;
    }
    let width_bits = r.bits(4)? + 1;
    let height_bits = r.bits(4)? + 1;
    let width = r.bits(width_bits)? + 1;
    let height = r.bits(height_bits)? + 1;
    if !reduced && r.flag()? {
        r.skip(7)?; // frame ids
    }
    r.skip(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if !reduced {
        r.skip(4)?; // interintra, masked, warped, dual filter
        let order_hint = r.flag()?;
        if order_hint {
            r.skip(2)?;
        }
        let choose_tools = r.flag()?;
        if (choose_tools || r.flag()?) && !r.flag()? {
            r.bit()?; // seq_force_integer_mv
        }
        if order_hint {
            r.skip(3)?;
        }
    }
    r.skip(3)?; // superres, cdef, restoration
    let (chroma_format_idc, bit_depth) = color_config(&mut r, profile)?;
    Some(VideoFormat { profile: u8::try_from(profile).ok()?, chroma_format_idc, bit_depth, width, height })
}

fn operating_points(r: &mut BitReader<'_>) -> Option<()> {
    let mut delay_bits = None;
    if r.flag()? {
        r.skip(64)?; // num_units_in_display_tick, time_scale
        if r.flag()? {
            r.ue()?; // num_ticks_per_picture_minus_1
        }
        if r.flag()? {
            delay_bits = Some(r.bits(5)? + 1);
            r.skip(42)?;
        }
    }
    let initial_display_delay = r.flag()?;
    for _ in 0..=r.bits(5)? {
        r.skip(12)?;
        if r.bits(5)? > 7 {
            r.bit()?; // seq_tier
        }
        if let Some(bits) = delay_bits
            && r.flag()?
        {
            r.skip(2 * bits + 1)?;
        }
        if initial_display_delay && r.flag()? {
            r.skip(4)?;
        }
    }
    Some(())
}

/// §5.5.2: chroma subsampling and bit depth.
fn color_config(r: &mut BitReader<'_>, profile: u32) -> Option<(u8, u8)> {
    let high = r.flag()?;
    let bit_depth = match (profile, high) {
        (2, true) if r.flag()? => 12,
        (_, true) => 10,
        _ => 8,
    };
    if profile != 1 && r.flag()? {
        return Some((0, bit_depth));
    }
    let mut srgb = false;
    if r.flag()? {
        // BT.709 primaries, sRGB transfer, identity matrix: 4:4:4 without saying so.
        srgb = (r.bits(8)?, r.bits(8)?, r.bits(8)?) == (1, 13, 0);
    }
    let chroma = match (profile, srgb) {
        (_, true) | (1, _) => 3,
        (0, _) => 1,
        (_, _) if bit_depth < 12 => 2,
        (_, _) => {
            r.bit()?; // color_range
            match r.flag()? {
                false => 3,
                true if r.flag()? => 1,
                true => 2,
            }
        }
    };
    Some((chroma, bit_depth))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bits, number};
    use super::*;

    /// Sequence header: profile, not still, not reduced, no timing, no delay, one operating point.
    fn sequence(profile: u32, color: &str, width: u32, height: u32) -> Vec<u8> {
        let size = number(width - 1, 16) + &number(height - 1, 16);
        let points = format!("0 0 00000 {} 00101", number(0, 12));
        // No frame ids; three tools; four more; order hint with its two; chosen tools and mv; three bits; three.
        let tools = "0 000 0000 1 00 1 1 110 000";
        let text = format!("{} 0 0 {points} 1111 1111 {size} {tools} {color} 00000000", number(profile, 3));
        obu(OBU_SEQUENCE_HEADER, &bits(&text))
    }

    fn obu(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind << 3 | 2, u8::try_from(payload.len()).unwrap()], payload].concat()
    }

    const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0];
    /// `color_config` of profile 0: 8 bit, not monochrome, no description.
    const PLAIN: &str = "0 0 0";

    #[test]
    fn a_key_frame_with_its_sequence_header_is_a_keyframe() {
        // show_existing 0, frame_type 00, show_frame 1.
        let frame = obu(OBU_FRAME, &bits("0 00 1 0000"));
        let unit = [&TEMPORAL_DELIMITER[..], &sequence(0, PLAIN, 640, 360), &frame].concat();
        let info = inspect(&unit);
        assert!(info.keyframe && info.picture && info.parameter_sets);
        let format = info.format.unwrap();
        assert_eq!((format.width, format.height, format.profile, format.bit_depth), (640, 360, 0, 8));
        assert_eq!(format.chroma_format_idc, 1);
        let bare = [&TEMPORAL_DELIMITER[..], &frame].concat();
        assert!(inspect(&bare).picture && !inspect(&bare).keyframe, "no decoder can start without it");
    }

    #[test]
    fn delta_hidden_and_repeated_frames_are_none() {
        // An inter frame; a key frame that is not shown; a repeated frame.
        for header in ["0 01 1 0000", "0 00 0 0000", "1 000 0000"] {
            let unit = [sequence(0, PLAIN, 640, 360), obu(OBU_FRAME, &bits(header))].concat();
            let info = inspect(&unit);
            assert!(info.picture && !info.keyframe, "{header}");
        }
    }

    #[test]
    fn wide_formats_are_told() {
        let of = |profile, color: &str| inspect(&sequence(profile, color, 64, 32)).format.unwrap();
        assert_eq!(of(0, "1 0 0").bit_depth, 10);
        assert_eq!(of(0, "0 1 0").chroma_format_idc, 0);
        assert_eq!(of(1, "0 0").chroma_format_idc, 3);
        assert_eq!(of(2, "0 0 0").chroma_format_idc, 2);
        // Twelve bit says its subsampling: x, then y.
        let twelve = |subsampling: &str| of(2, &format!("1 1 0 0 0 {subsampling}")).chroma_format_idc;
        assert_eq!([twelve("0"), twelve("10"), twelve("11")], [3, 2, 1]);
    }

    #[test]
    fn a_cut_unit_is_no_keyframe() {
        let frame = obu(OBU_FRAME, &bits("0 00 1 0000"));
        let unit = [&TEMPORAL_DELIMITER[..], &sequence(0, PLAIN, 640, 360), &frame].concat();
        for len in 0..unit.len() {
            assert!(!inspect(&unit[..len]).keyframe, "length {len}");
        }
    }
}
