// SPDX-License-Identifier: MIT OR Apache-2.0

//! H.264 access units in Annex B byte-stream format (ITU-T H.264 Annex B, §7.3, §7.4).

pub use super::annexb::nal_units;
use super::annexb::start_code;
use super::{BitReader, FrameInfo, VideoFormat};

/// What the head of an access unit tells: everything up to and including its first slice header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessUnit {
    /// The first slice belongs to an IDR picture.
    pub idr: bool,
    /// A sequence parameter set stands before the first slice.
    pub sps: Option<Sps>,
    /// A picture parameter set stands before the first slice.
    pub pps: bool,
    /// The first slice is a B slice.
    pub b_slice: bool,
    /// There is a slice at all.
    pub has_slice: bool,
}

/// The parts of a sequence parameter set that decide who can show the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `profile_idc`: 66 baseline, 77 main, 88 extended, 100 high, 110 high 10, 122 high 4:2:2, 244 high 4:4:4.
    pub profile_idc: u8,
    /// `constraint_set0_flag` (most significant bit) to `constraint_set5_flag`, two zero bits.
    pub constraints: u8,
    /// `level_idc`, ten times the level.
    pub level_idc: u8,
    /// `chroma_format_idc`: 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u32,
    /// Bits per luma sample.
    pub bit_depth: u32,
    /// Cropped picture width in pixels.
    pub width: u32,
    /// Cropped picture height in pixels.
    pub height: u32,
}

impl Sps {
    /// `profile-level-id` of RFC 6184 §8.1, e.g. `0x42e01f`.
    pub fn profile_level_id(&self) -> u32 {
        u32::from(self.profile_idc) << 16 | u32::from(self.constraints) << 8 | u32::from(self.level_idc)
    }

    /// Whether browsers can be expected to show it: 8 bit 4:2:0 in baseline, main, extended or high profile.
    pub fn is_browser_profile(&self) -> bool {
        matches!(self.profile_idc, 66 | 77 | 88 | 100) && self.chroma_format_idc == 1 && self.bit_depth == 8
    }

    /// Reads a sequence parameter set NAL unit, its header byte included (H.264 §7.3.2.1.1).
    pub fn parse(nal: &[u8]) -> Option<Self> {
        let mut r = BitReader::new(nal.get(1..)?);
        let profile_idc = r.bits(8)? as u8;
        let constraints = r.bits(8)? as u8;
        let level_idc = r.bits(8)? as u8;
        r.ue()?; // seq_parameter_set_id
        let mut chroma_format_idc = 1;
        let mut bit_depth = 8;
        let mut separate_planes = 0;
        if matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            chroma_format_idc = r.ue()?;
            if chroma_format_idc == 3 {
                separate_planes = r.bit()?;
            }
            bit_depth = r.ue()?.checked_add(8)?;
            r.ue()?; // bit_depth_chroma_minus8
            r.bit()?; // qpprime_y_zero_transform_bypass_flag
            if r.bit()? == 1 {
                for list in 0..if chroma_format_idc == 3 { 12 } else { 8 } {
                    if r.bit()? == 1 {
                        skip_scaling_list(&mut r, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        r.ue()?; // log2_max_frame_num_minus4
        match r.ue()? {
            0 => {
                r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
            }
            1 => {
                r.bit()?; // delta_pic_order_always_zero_flag
                r.se()?; // offset_for_non_ref_pic
                r.se()?; // offset_for_top_to_bottom_field
                let count = r.ue()?;
                if count > 255 {
                    return None;
                }
                for _ in 0..count {
                    r.se()?;
                }
            }
            _ => {}
        }
        r.ue()?; // max_num_ref_frames
        r.bit()?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = r.ue()?.checked_add(1)?;
        let height_units = r.ue()?.checked_add(1)?;
        let frame_mbs_only = r.bit()?;
        if frame_mbs_only == 0 {
            r.bit()?; // mb_adaptive_frame_field_flag
        }
        r.bit()?; // direct_8x8_inference_flag
        let mut crop = [0u32; 4];
        if r.bit()? == 1 {
            for side in &mut crop {
                *side = r.ue()?;
            }
        }
        let [left, right, top, bottom] = crop;
        // Table 6-1: chroma subsampling decides the unit of the crop rectangle.
        let array_type = if separate_planes == 1 { 0 } else { chroma_format_idc };
        let unit_x = if matches!(array_type, 1 | 2) { 2 } else { 1 };
        let unit_y = if array_type == 1 { 2 } else { 1 } * (2 - frame_mbs_only);
        let cropped = |full: u32, a: u32, b: u32, unit: u32| {
            full.checked_sub(a.checked_add(b)?.checked_mul(unit)?).filter(|v| *v > 0)
        };
        let height_full = height_units.checked_mul(16)?.checked_mul(2 - frame_mbs_only)?;
        Some(Self {
            profile_idc,
            constraints,
            level_idc,
            chroma_format_idc,
            bit_depth,
            width: cropped(width_mbs.checked_mul(16)?, left, right, unit_x)?,
            height: cropped(height_full, top, bottom, unit_y)?,
        })
    }
}

fn skip_scaling_list(r: &mut BitReader<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(r.se()?)).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

impl From<&AccessUnit> for FrameInfo {
    fn from(au: &AccessUnit) -> Self {
        Self {
            keyframe: au.idr,
            picture: au.has_slice,
            parameter_sets: au.sps.is_some() && au.pps,
            reordered: au.b_slice,
            format: au.sps.as_ref().map(|sps| VideoFormat {
                profile: sps.profile_idc,
                chroma_format_idc: u8::try_from(sps.chroma_format_idc).unwrap_or(u8::MAX),
                bit_depth: u8::try_from(sps.bit_depth).unwrap_or(u8::MAX),
                width: sps.width,
                height: sps.height,
            }),
        }
    }
}

/// Reads the head of an access unit. What can't be parsed is left at its default.
pub fn inspect(access_unit: &[u8]) -> AccessUnit {
    let mut au = AccessUnit::default();
    let mut next = start_code(access_unit, 0);
    while let Some((_, begin)) = next {
        let Some(header) = access_unit.get(begin) else { break };
        let is_slice = matches!(header & 0x1f, 1 | 2 | 5);
        // A slice is the last thing looked at, so its end, far away, is not searched for.
        next = if is_slice { None } else { start_code(access_unit, begin) };
        let end = next.map_or(access_unit.len(), |(start, _)| start);
        let nal = access_unit.get(begin..end).unwrap_or_default();
        match header & 0x1f {
            kind @ (1 | 2 | 5) => {
                au.has_slice = true;
                au.idr = kind == 5;
                au.b_slice = slice_type(nal).is_some_and(|t| t % 5 == 1);
            }
            7 => au.sps = Sps::parse(nal),
            8 => au.pps = true,
            _ => {}
        }
    }
    au
}

/// `slice_type` of a slice NAL unit (H.264 §7.3.3, table 7-6).
fn slice_type(nal: &[u8]) -> Option<u32> {
    // first_mb_in_slice and slice_type: 64 bits at most in a legal stream.
    let mut r = BitReader::new(nal.get(1..nal.len().min(24))?);
    r.ue()?;
    r.ue()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPS of `x264enc` at 320x240, constrained baseline.
    const SPS_BASELINE: &[u8] = &[
        0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07, 0xe8, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f,
        0x03, 0xc5, 0x0a, 0xa8,
    ];

    fn annex_b(nals: &[&[u8]], long: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for nal in nals {
            out.extend_from_slice(if long { &[0, 0, 0, 1] } else { &[0, 0, 1] });
            out.extend_from_slice(nal);
        }
        out
    }

    #[test]
    fn sps_gives_profile_and_cropped_size() {
        let sps = Sps::parse(SPS_BASELINE).unwrap();
        assert_eq!((sps.profile_idc, sps.constraints, sps.level_idc), (66, 0xc0, 13));
        assert_eq!((sps.width, sps.height), (320, 240));
        assert_eq!(sps.profile_level_id(), 0x42c00d);
        assert!(sps.is_browser_profile());
    }

    #[test]
    fn a_truncated_sps_is_refused() {
        for len in 0..8 {
            assert_eq!(Sps::parse(&SPS_BASELINE[..len]), None, "length {len}");
        }
    }

    #[test]
    fn splits_nal_units_with_short_and_long_start_codes() {
        for long in [false, true] {
            let data = annex_b(&[&[0x67, 1, 2], &[0x68, 3], &[0x65, 0x88]], long);
            let nals: Vec<_> = nal_units(&data).collect();
            assert_eq!(nals, [&[0x67u8, 1, 2][..], &[0x68, 3], &[0x65, 0x88]]);
        }
        assert_eq!(nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[1, 2, 3]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).collect::<Vec<_>>(), [&[] as &[u8]]);
    }

    #[test]
    fn tells_idr_parameter_sets_and_b_slices() {
        // 0x88: first_mb 0 (1), slice_type 7 (0001000) = I.
        let au = inspect(&annex_b(&[&[0x09, 0x10], SPS_BASELINE, &[0x68, 0xce], &[0x65, 0x88, 0x80]], true));
        assert!(au.idr && au.pps && au.sps.is_some() && au.has_slice && !au.b_slice);
        // 0x9a: first_mb 0, slice_type 5 (00110) = P; 0x9e: slice_type 6 (00111) = B.
        assert!(!inspect(&annex_b(&[&[0x41, 0x9a, 0x00]], true)).b_slice);
        assert!(inspect(&annex_b(&[&[0x01, 0x9e, 0x00]], true)).b_slice);
        assert!(!inspect(&annex_b(&[SPS_BASELINE], false)).has_slice);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x1234_5678_u32;
        for len in 0..400 {
            let data: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Many zeros and ones, so that start codes and long Exp-Golomb codes appear.
                    match state >> 30 {
                        0 | 1 => 0,
                        2 => 1,
                        _ => (state >> 16) as u8,
                    }
                })
                .collect();
            let _ = inspect(&data);
            let _ = Sps::parse(&data);
        }
    }
}
