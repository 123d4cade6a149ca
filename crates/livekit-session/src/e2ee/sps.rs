// SPDX-License-Identifier: MIT OR Apache-2.0

//! An H.264 sequence parameter set that WebRTC receivers leave as it is.
//!
//! Receivers made of libwebrtc (browsers, LiveKit's SDKs) rewrite a sequence parameter set that does not say that
//! pictures come in display order, so that decoders do not wait for more. They do it before they decrypt, and what they
//! changed is part of what the tag authenticates: no keyframe would ever be decrypted. Many hardware encoders write
//! such a set. So the same change is made here, before encryption (ITU-T H.264 §7.3.2.1.1, annex E.1).

use super::escape::{escape, unescape_into};
use crate::bitstream::BitReader;

/// What became of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Receivers take it as it is, or it can't be read.
    AsItIs,
    /// A changed one was written.
    Rewritten,
}

/// Appends to `out` the NAL unit that receivers make of `nal`, if they change it. `scratch` is memory to work in.
pub(super) fn settle(nal: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Settled {
    scratch.clear();
    unescape_into(nal, scratch);
    let begin = out.len();
    let mut copy = Copy { from: BitReader::plain(scratch), to: BitWriter { out, filled: 0 } };
    match rewrite(&mut copy) {
        Some(Settled::Rewritten) => {
            escape(out, begin);
            Settled::Rewritten
        }
        _ => {
            out.truncate(begin);
            Settled::AsItIs
        }
    }
}

/// `None` = can't be read.
fn rewrite(c: &mut Copy<'_, '_>) -> Option<Settled> {
    c.bits(8)?; // NAL unit header
    let profile_idc = c.bits(8)?;
    c.bits(8 + 8)?; // constraint flags, level_idc
    c.ue()?; // seq_parameter_set_id
    if matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        let chroma_format_idc = c.ue()?;
        if chroma_format_idc == 3 {
            c.bits(1)?; // separate_colour_plane_flag
        }
        c.ue()?; // bit_depth_luma_minus8
        c.ue()?; // bit_depth_chroma_minus8
        c.bits(1)?; // qpprime_y_zero_transform_bypass_flag
        if c.bits(1)? == 1 {
            for list in 0..if chroma_format_idc == 3 { 12 } else { 8 } {
                if c.bits(1)? == 1 {
                    scaling_list(c, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    c.ue()?; // log2_max_frame_num_minus4
    match c.ue()? {
        0 => {
            c.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            c.bits(1)?; // delta_pic_order_always_zero_flag
            c.ue()?; // offset_for_non_ref_pic
            c.ue()?; // offset_for_top_to_bottom_field
            let count = c.ue()?;
            if count > 255 {
                return None;
            }
            for _ in 0..count {
                c.ue()?;
            }
        }
        // Output order is decoding order: nothing more needs to be said.
        _ => return Some(Settled::AsItIs),
    }
    let max_num_ref_frames = c.ue()?;
    c.bits(1)?; // gaps_in_frame_num_value_allowed_flag
    c.ue()?; // pic_width_in_mbs_minus1
    c.ue()?; // pic_height_in_map_units_minus1
    if c.bits(1)? == 0 {
        c.bits(1)?; // mb_adaptive_frame_field_flag
    }
    c.bits(1)?; // direct_8x8_inference_flag
    if c.bits(1)? == 1 {
        for _side in 0..4 {
            c.ue()?;
        }
    }
    let vui_parameters_present = c.from.bit()?;
    c.to.bits(1, 1);
    if vui_parameters_present == 0 {
        // Aspect ratio, overscan, signal type, chroma location, timing, both HRDs, picture structure: absent.
        c.to.bits(0, 8);
        c.to.bits(1, 1);
        bitstream_restriction(&mut c.to, max_num_ref_frames);
    } else if !vui(c, max_num_ref_frames)? {
        return Some(Settled::AsItIs);
    }
    c.to.trailing_bits();
    Some(Settled::Rewritten)
}

/// Annex E.1.1 up to its end. False = nothing to be changed.
fn vui(c: &mut Copy<'_, '_>, max_num_ref_frames: u32) -> Option<bool> {
    const EXTENDED_SAR: u32 = 255;
    if c.bits(1)? == 1 && c.bits(8)? == EXTENDED_SAR {
        c.bits(32)?; // sar_width, sar_height
    }
    if c.bits(1)? == 1 {
        c.bits(1)?; // overscan_appropriate_flag
    }
    if c.bits(1)? == 1 {
        c.bits(3 + 1)?; // video_format, video_full_range_flag
        if c.bits(1)? == 1 {
            c.bits(24)?; // colour_primaries, transfer_characteristics, matrix_coefficients
        }
    }
    if c.bits(1)? == 1 {
        c.ue()?; // chroma_sample_loc_type_top_field
        c.ue()?; // chroma_sample_loc_type_bottom_field
    }
    if c.bits(1)? == 1 {
        c.bits(32)?; // num_units_in_tick
        c.bits(32)?; // time_scale
        c.bits(1)?; // fixed_frame_rate_flag
    }
    let nal_hrd = c.bits(1)? == 1;
    if nal_hrd {
        hrd_parameters(c)?;
    }
    let vcl_hrd = c.bits(1)? == 1;
    if vcl_hrd {
        hrd_parameters(c)?;
    }
    if nal_hrd || vcl_hrd {
        c.bits(1)?; // low_delay_hrd_flag
    }
    c.bits(1)?; // pic_struct_present_flag
    let restricted = c.from.bit()? == 1;
    c.to.bits(1, 1);
    if !restricted {
        bitstream_restriction(&mut c.to, max_num_ref_frames);
        return Some(true);
    }
    c.bits(1)?; // motion_vectors_over_pic_boundaries_flag
    for _limit in 0..4 {
        c.ue()?; // bytes per picture, bits per macroblock, lengths of motion vectors
    }
    let (max_num_reorder_frames, max_dec_frame_buffering) = (c.from.ue()?, c.from.ue()?);
    c.to.ue(0);
    c.to.ue(max_num_ref_frames);
    Some(max_num_reorder_frames != 0 || max_dec_frame_buffering > max_num_ref_frames)
}

/// Annex E.1.2.
fn hrd_parameters(c: &mut Copy<'_, '_>) -> Option<()> {
    let count = c.ue()?.checked_add(1)?;
    if count > 32 {
        return None;
    }
    c.bits(4 + 4)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        c.ue()?; // bit_rate_value_minus1
        c.ue()?; // cpb_size_value_minus1
        c.bits(1)?; // cbr_flag
    }
    c.bits(4 * 5)?; // three lengths of delays, time_offset_length
    Some(())
}

/// The values that libwebrtc writes: those that the standard infers, except that nothing is reordered.
fn bitstream_restriction(to: &mut BitWriter<'_>, max_num_ref_frames: u32) {
    to.bits(1, 1); // motion_vectors_over_pic_boundaries_flag
    for value in [2, 1, 16, 16, 0, max_num_ref_frames] {
        to.ue(value);
    }
}

fn scaling_list(c: &mut Copy<'_, '_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            let code = i64::from(c.ue()?);
            // §9.1.1: odd codes are positive.
            let delta = if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 };
            next = (last + delta).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Reads and writes the same.
struct Copy<'a, 'b> {
    from: BitReader<'a>,
    to: BitWriter<'b>,
}

impl Copy<'_, '_> {
    fn bits(&mut self, count: u32) -> Option<u32> {
        let value = self.from.bits(count)?;
        self.to.bits(value, count);
        Some(value)
    }

    fn ue(&mut self) -> Option<u32> {
        let value = self.from.ue()?;
        self.to.ue(value);
        Some(value)
    }
}

/// Writes bits, most significant first.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bits used of the last byte, 0 = all of it.
    filled: u32,
}

impl BitWriter<'_> {
    fn bits(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            if self.filled == 0 {
                self.out.push(0);
            }
            if let Some(last) = self.out.last_mut() {
                *last |= u8::from(value >> place & 1 == 1) << (7 - self.filled);
            }
            self.filled = (self.filled + 1) % 8;
        }
    }

    /// §9.1.
    fn ue(&mut self, value: u32) {
        let code = u64::from(value) + 1;
        let length = code.ilog2();
        self.bits(0, length);
        self.bits(1, 1);
        // The leading one is written; below it 32 bits suffice.
        self.bits((code & 0xffff_ffff) as u32, length);
    }

    /// §7.3.2.11.
    fn trailing_bits(&mut self) {
        self.bits(1, 1);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitstream::h264::Sps;
    use crate::bitstream::tests::{bits, number, ue};

    fn settled(nal: &[u8]) -> (Settled, Vec<u8>) {
        let (mut scratch, mut out) = (Vec::new(), vec![0xee]);
        let outcome = settle(nal, &mut scratch, &mut out);
        assert_eq!(out.remove(0), 0xee, "what was there stays");
        (outcome, out)
    }

    /// A set of 640x480 with this order of pictures and this VUI.
    fn sps(profile: u32, poc: &str, vui: &str) -> Vec<u8> {
        let high = format!("{}{}{}00", ue(1), ue(0), ue(0));
        let high = if profile >= 100 { high.as_str() } else { "" };
        let head = format!("{} {} {} {}", number(0x67, 8), number(profile, 8), number(0, 8), number(30, 8));
        let body = format!("{}{high}{}{poc}{}0{}{}1 1 0", ue(0), ue(0), ue(2), ue(39), ue(29));
        let mut nal = bits(&format!("{head} {body} {vui} 1"));
        escape(&mut nal, 0);
        nal
    }

    fn poc(kind: u32) -> String {
        match kind {
            0 => format!("{}{}", ue(0), ue(2)),
            1 => format!("{}0{}{}{}{}{}", ue(1), ue(0), ue(3), ue(2), ue(1), ue(1)),
            _ => ue(kind),
        }
    }

    fn restriction(reorder: u32, buffering: u32) -> String {
        format!("1 1 {}{}{}{}{}{}", ue(2), ue(1), ue(16), ue(16), ue(reorder), ue(buffering))
    }

    /// Aspect ratio, colours, timing, both HRDs, picture structure.
    fn rich() -> String {
        let hrd = format!("{}{}{}{}0{}", ue(0), number(0x11, 8), ue(999), ue(999), "10111101111011110000");
        let sar = format!("1 {} {}", number(255, 8), number(0x0001_0001, 32));
        let colours = format!("1 101 0 1 {}", number(0x01_0101, 24));
        let timing = format!("1 {} {} 1", number(1, 32), number(60, 32));
        format!("{sar} 1 0 {colours} 1 {}{} {timing} 1 {hrd} 1 {hrd} 0 1", ue(0), ue(0))
    }

    #[test]
    fn a_set_that_says_nothing_of_order_is_made_to_and_then_left_alone() {
        for (name, vui) in [("no VUI", "0".to_owned()), ("VUI", format!("1 {} 0", rich()))] {
            for profile in [66, 77, 100] {
                for kind in [0, 1] {
                    let nal = sps(profile, &poc(kind), &vui);
                    let (outcome, changed) = settled(&nal);
                    assert_eq!(outcome, Settled::Rewritten, "{name}, profile {profile}, order {kind}");
                    let (before, after) = (Sps::parse(&nal).unwrap(), Sps::parse(&changed).unwrap());
                    assert_eq!(before, after, "the picture is the same");
                    assert_eq!(settled(&changed), (Settled::AsItIs, vec![]), "receivers leave it alone");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_exactly_what_libwebrtc_writes() {
        let (_, changed) = settled(&sps(66, &poc(0), "0"));
        assert_eq!(changed, sps(66, &poc(0), &format!("1 0000 0000 {}", restriction(0, 2))));
        let (_, changed) = settled(&sps(66, &poc(0), &format!("1 {} 0", rich())));
        assert_eq!(changed, sps(66, &poc(0), &format!("1 {} {}", rich(), restriction(0, 2))));
    }

    #[test]
    fn order_that_is_wrong_for_live_pictures_is_put_right() {
        for (reorder, buffering) in [(1, 2), (0, 4)] {
            let vui = format!("1 {} {}", rich(), restriction(reorder, buffering));
            let (outcome, changed) = settled(&sps(100, &poc(0), &vui));
            assert_eq!(outcome, Settled::Rewritten);
            assert_eq!(changed, sps(100, &poc(0), &format!("1 {} {}", rich(), restriction(0, 2))));
        }
    }

    #[test]
    fn a_set_in_order_stays_as_it_is() {
        let in_order = format!("1 {} {}", rich(), restriction(0, 1));
        for nal in [sps(66, &poc(2), "0"), sps(100, &poc(0), &in_order)] {
            assert_eq!(settled(&nal), (Settled::AsItIs, vec![]));
        }
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_is() {
        let nal = sps(100, &poc(0), &format!("1 {} 0", rich()));
        // The bits of the end are not needed to read it.
        for len in 0..nal.len() - 2 {
            assert_eq!(settled(&nal[..len]).0, Settled::AsItIs, "length {len}");
        }
        let mut state = 1_u32;
        for len in 0..200 {
            let junk: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 31 == 0 { 0xff } else { (state >> 16) as u8 }
                })
                .collect();
            let _ = settled(&[&[0x67, 100, 0, 30], junk.as_slice()].concat());
        }
    }

    #[test]
    fn numbers_of_every_length_are_written_as_they_are_read() {
        for value in [0, 1, 2, 254, 255, 65_535, u32::MAX - 1] {
            let mut out = Vec::new();
            let mut to = BitWriter { out: &mut out, filled: 0 };
            to.ue(value);
            to.trailing_bits();
            assert_eq!(BitReader::plain(&out).ue(), Some(value));
        }
    }
}
