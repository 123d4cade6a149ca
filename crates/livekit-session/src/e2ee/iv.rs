// SPDX-License-Identifier: MIT OR Apache-2.0

//! Initialisation vectors that never repeat.
//!
//! AES-GCM is broken by two frames under one key and one vector (NIST SP 800-38D §8). A key is shared by all tracks
//! and layers of a session, by its later sessions, and often by everybody in the room. So a vector is a number of
//! twelve digits, begun at random and counted up for every use, by all tracks together: within a session none comes
//! twice, and two sessions meet only if their random beginnings lie closer than the frames they send. Of a million
//! sessions of a million frames each that is one chance in 10^11 (with a random vector for each frame: one in 10^5).
//!
//! A digit is a byte from 1 to 255, so that no vector has a zero byte: in H.264 and H.265 it must not need emulation
//! prevention, because receivers look for it before they have taken that out.

/// Bytes of a vector.
pub(super) const IV_LEN: usize = 12;
/// The first digit is larger than 3, so that zeros at the end of the tag before it do no harm either.
const FIRST_LOWEST: u8 = 4;

/// Counts vectors.
pub(super) struct IvSource([u8; IV_LEN]);

impl IvSource {
    /// Begins somewhere.
    pub(super) fn new() -> Self {
        Self::at(rand::random())
    }

    /// Begins at these bytes, with those lifted that are no digits.
    pub(super) fn at(mut begin: [u8; IV_LEN]) -> Self {
        for byte in &mut begin {
            // A generator of random bytes makes 255 digits of 256 values; one of them a little more often.
            *byte = (*byte).max(1);
        }
        if let Some(first) = begin.first_mut() {
            *first = (*first).max(FIRST_LOWEST);
        }
        Self(begin)
    }

    /// The next vector.
    pub(super) fn next(&mut self) -> [u8; IV_LEN] {
        for (place, digit) in self.0.iter_mut().enumerate().rev() {
            if let Some(more) = digit.checked_add(1) {
                *digit = more;
                break;
            }
            *digit = if place == 0 { FIRST_LOWEST } else { 1 };
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn vectors_count_up_and_carry() {
        let mut ivs = IvSource::at([9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 254, 254]);
        assert_eq!(ivs.next(), [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 254, 255]);
        assert_eq!(ivs.next(), [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255, 1]);
        let mut last = IvSource::at([255; IV_LEN]);
        assert_eq!(last.next(), [4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn none_has_a_zero_and_none_comes_twice() {
        let mut ivs = IvSource::at([0; IV_LEN]);
        let mut seen = HashSet::new();
        for _ in 0..200_000 {
            let iv = ivs.next();
            assert!(iv[0] > 3 && !iv.contains(&0), "{iv:?}");
            assert!(seen.insert(iv), "{iv:?} came twice");
        }
    }

    #[test]
    fn two_sources_begin_apart() {
        assert_ne!(IvSource::new().next(), IvSource::new().next());
    }
}
