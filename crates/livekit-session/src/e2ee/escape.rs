// SPDX-License-Identifier: MIT OR Apache-2.0

//! Emulation prevention (ITU-T H.264 §7.4.1, H.265 §7.4.2): what is in a NAL unit must not look like a start code.

/// The first place at or after `from` where a byte of value 3 has to go in: before a byte of 0 to 3 behind two zeros,
/// of which none lies before `floor`.
fn gap(data: &[u8], floor: usize, from: usize) -> Option<usize> {
    let mut zeros = 0;
    for (at, byte) in data.iter().enumerate().skip(floor.max(from)) {
        if zeros >= 2 && *byte <= 3 {
            return Some(at);
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
    }
    None
}

/// Escapes everything behind the first `floor` bytes, as if nothing were before it.
///
/// Meant for what is as good as random, like a ciphertext, where one byte in four million is put in: each one moves the
/// rest of the buffer.
pub(super) fn escape(data: &mut Vec<u8>, floor: usize) {
    let mut from = floor;
    while let Some(at) = gap(data, floor, from) {
        data.insert(at, 3);
        // The byte that was pushed back is looked at again, with no zeros before it.
        from = at + 1;
    }
}

/// Appends a NAL unit's payload without its emulation prevention bytes.
pub(super) fn unescape_into(nal: &[u8], out: &mut Vec<u8>) {
    let mut zeros = 0;
    for byte in nal {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        escape(&mut data, 0);
        data
    }

    #[test]
    fn what_looks_like_a_start_code_gets_a_three() {
        assert_eq!(escaped(&[0, 0, 1]), [0, 0, 3, 1]);
        assert_eq!(escaped(&[0, 0, 0, 0, 0, 0]), [0, 0, 3, 0, 0, 3, 0, 0]);
        assert_eq!(escaped(&[0, 0, 3]), [0, 0, 3, 3]);
        assert_eq!(escaped(&[0, 0, 4, 0, 1, 0, 0]), [0, 0, 4, 0, 1, 0, 0]);
        assert!(escaped(&[]).is_empty());
    }

    #[test]
    fn the_clear_part_is_left_alone_and_does_not_count() {
        let mut data = vec![0, 0, 0, 1, 0, 0, 1, 2];
        escape(&mut data, 5);
        assert_eq!(data, [0, 0, 0, 1, 0, 0, 1, 2]);
        escape(&mut data, 4);
        assert_eq!(data, [0, 0, 0, 1, 0, 0, 3, 1, 2]);
    }

    #[test]
    fn everything_comes_back() {
        let mut state = 7_u32;
        for len in 0..300 {
            let data: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8 % 5
                })
                .collect();
            let there = escaped(&data);
            assert!(!there.windows(3).any(|w| matches!(w, [0, 0, 0..=2])), "{data:?}");
            let mut back = Vec::new();
            unescape_into(&there, &mut back);
            assert_eq!(back, data);
        }
    }
}
