// SPDX-License-Identifier: MIT OR Apache-2.0

//! H.265 access units in Annex B byte-stream format (ITU-T H.265 Annex B, §7.3, §7.4).

use super::annexb::start_code;
use super::{BitReader, FrameInfo, VideoFormat};

/// Intra random access points, table 7-1: BLA (16 to 18), IDR (19, 20), CRA (21). 22 and 23 are reserved.
///
/// Decoding can start at each. The leading pictures of a CRA that refer to what was before it (RASL) are left
/// out by a decoder that starts there; an encoder without reordering makes none.
const IRAP: std::ops::RangeInclusive<u8> = 16..=21;
/// RADL and RASL pictures: shown before the random access point that they follow.
const LEADING: std::ops::RangeInclusive<u8> = 6..=9;
/// All kinds of slices.
const SLICES: std::ops::RangeInclusive<u8> = 0..=31;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;

/// Reads the head of an access unit, up to its first slice.
pub fn inspect(access_unit: &[u8]) -> FrameInfo {
    let mut info = FrameInfo::default();
    let (mut vps, mut sps, mut pps) = (false, false, false);
    let mut next = start_code(access_unit, 0);
    while let Some((_, begin)) = next {
        let Some(header) = access_unit.get(begin) else { break };
        let kind = header >> 1 & 0x3f;
        if SLICES.contains(&kind) {
            info.picture = true;
            info.keyframe = IRAP.contains(&kind);
            info.reordered = LEADING.contains(&kind);
            break;
        }
        next = start_code(access_unit, begin);
        let end = next.map_or(access_unit.len(), |(start, _)| start);
        match kind {
            VPS => vps = true,
            SPS => {
                sps = true;
                info.format = access_unit.get(begin..end).and_then(parse_sps);
            }
            PPS => pps = true,
            _ => {}
        }
    }
    info.parameter_sets = vps && sps && pps;
    info
}

/// Reads a sequence parameter set NAL unit, its two header bytes included (§7.3.2.2.1).
fn parse_sps(nal: &[u8]) -> Option<VideoFormat> {
    let mut r = BitReader::new(nal.get(2..)?);
    r.skip(4)?; // sps_video_parameter_set_id
    let max_sub_layers_minus1 = r.bits(3)?;
    r.bit()?; // sps_temporal_id_nesting_flag
    let profile = profile_tier_level(&mut r, max_sub_layers_minus1)?;
    r.ue()?; // sps_seq_parameter_set_id
    let chroma_format_idc = r.ue()?;
    let separate_planes = chroma_format_idc == 3 && r.flag()?;
    let (width, height) = (r.ue()?, r.ue()?);
    let mut window = [0u32; 4];
    if r.flag()? {
        for side in &mut window {
            *side = r.ue()?;
        }
    }
    let bit_depth = r.ue()?.checked_add(8)?;
    let [left, right, top, bottom] = window;
    // Table 6-1.
    let unit_x = if matches!(chroma_format_idc, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_format_idc == 1 { 2 } else { 1 };
    let cropped = |full: u32, a: u32, b: u32, unit: u32| {
        full.checked_sub(a.checked_add(b)?.checked_mul(unit)?).filter(|v| *v > 0)
    };
    Some(VideoFormat {
        profile,
        chroma_format_idc: if separate_planes { 0 } else { u8::try_from(chroma_format_idc).ok()? },
        bit_depth: u8::try_from(bit_depth).ok()?,
        width: cropped(width, left, right, unit_x)?,
        height: cropped(height, top, bottom, unit_y)?,
    })
}

/// §7.3.3: gives `general_profile_idc`.
fn profile_tier_level(r: &mut BitReader<'_>, max_sub_layers_minus1: u32) -> Option<u8> {
    r.skip(3)?; // general_profile_space, general_tier_flag
    let profile = u8::try_from(r.bits(5)?).ok()?;
    r.skip(32 + 48 + 8)?; // compatibility flags, constraint flags, general_level_idc
    let mut present = [(false, false); 8];
    for sub_layer in present.iter_mut().take(usize::try_from(max_sub_layers_minus1).ok()?) {
        *sub_layer = (r.flag()?, r.flag()?);
    }
    if max_sub_layers_minus1 > 0 {
        r.skip(2 * (8 - max_sub_layers_minus1))?;
    }
    for (has_profile, has_level) in present {
        r.skip(88 * u32::from(has_profile) + 8 * u32::from(has_level))?;
    }
    Some(profile)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bits, number, ue};
    use super::*;

    fn nal(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 1, kind << 1, 1], payload].concat()
    }

    /// An SPS with its emulation prevention bytes; `sub_layers` with profile and level each.
    fn sps(profile: u32, chroma: u32, depth: u32, size: (u32, u32), crop: &str, sub_layers: u32) -> Vec<u8> {
        let mut text = format!("0000 {} 1 000 {} ", number(sub_layers, 3), number(profile, 5));
        text += &"0".repeat(88);
        text += &"11".repeat(sub_layers as usize);
        if sub_layers > 0 {
            text += &"00".repeat(8 - sub_layers as usize);
        }
        text += &"0".repeat(96 * sub_layers as usize);
        text += &ue(0);
        text += &ue(chroma);
        if chroma == 3 {
            text += "0";
        }
        text += &(ue(size.0) + &ue(size.1) + crop + &ue(depth - 8) + "1");
        let mut escaped = Vec::new();
        for byte in bits(&text) {
            if byte <= 3 && escaped.ends_with(&[0, 0]) {
                escaped.push(3);
            }
            escaped.push(byte);
        }
        nal(SPS, &escaped)
    }

    const SLICE: &[u8] = &[0x80, 0x40];

    #[test]
    fn every_random_access_point_is_a_keyframe_and_nothing_else() {
        for kind in 0..64 {
            let info = inspect(&nal(kind, SLICE));
            assert_eq!(info.keyframe, (16..=21).contains(&kind), "type {kind}");
            assert_eq!(info.picture, kind < 32, "type {kind}");
            assert_eq!(info.reordered, (6..=9).contains(&kind), "type {kind}");
        }
    }

    #[test]
    fn the_first_slice_decides_and_all_three_sets_are_needed() {
        let sets = [nal(VPS, &[0]), sps(1, 1, 8, (640, 360), "0", 0), nal(PPS, &[0x80])].concat();
        let unit = [&nal(35, &[0x50])[..], &sets, &nal(20, SLICE), &nal(1, SLICE)].concat();
        let info = inspect(&unit);
        assert!(info.keyframe && info.parameter_sets);
        assert!(!inspect(&[sets, nal(1, SLICE), nal(20, SLICE)].concat()).keyframe);
        assert!(!inspect(&[nal(VPS, &[0]), nal(PPS, &[0x80]), nal(20, SLICE)].concat()).parameter_sets);
    }

    #[test]
    fn an_sps_gives_profile_and_cropped_size() {
        let crop = format!("1{}{}{}{}", ue(0), ue(0), ue(0), ue(4));
        let format = inspect(&sps(1, 1, 8, (1920, 1088), &crop, 0)).format.unwrap();
        assert_eq!((format.width, format.height), (1920, 1080));
        assert_eq!((format.profile, format.bit_depth, format.chroma_format_idc), (1, 8, 1));
        let wide = inspect(&sps(4, 3, 10, (64, 64), "0", 2)).format.unwrap();
        assert_eq!((wide.profile, wide.bit_depth, wide.chroma_format_idc, wide.width), (4, 10, 3, 64));
    }

    #[test]
    fn a_cut_sps_gives_nothing() {
        let whole = sps(1, 1, 8, (640, 360), "0", 0);
        for len in 0..whole.len() - 1 {
            assert_eq!(inspect(&whole[..len]).format, None, "length {len}");
        }
    }
}
