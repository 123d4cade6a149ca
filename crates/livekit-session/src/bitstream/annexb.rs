// SPDX-License-Identifier: MIT OR Apache-2.0

//! The byte stream format of H.264 Annex B and H.265 Annex B: NAL units behind start codes.

/// The NAL units of a byte stream, without start codes.
pub fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut next = start_code(data, 0);
    std::iter::from_fn(move || {
        let (_, begin) = next?;
        next = start_code(data, begin);
        let end = next.map_or(data.len(), |(start, _)| start);
        data.get(begin..end)
    })
}

/// The next start code at or after `from`: where it (with its leading zero) starts, and where it ends.
pub(crate) fn start_code(data: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        // The only byte of the pattern 00 00 01 that is rare in coded data is worth searching for.
        at += data.get(at..)?.iter().position(|b| *b == 1)?;
        if at >= from + 2 && data.get(at - 2..at) == Some(&[0, 0]) {
            let begin = if at >= from + 3 && data.get(at - 3) == Some(&0) { at - 3 } else { at - 2 };
            return Some((begin, at + 1));
        }
        at += 1;
    }
}
