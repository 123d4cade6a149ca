// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opens frames that a LiveKit client encrypted end to end. Written from the format, apart from what encrypts them.
//!
//! `clear part, ciphertext, tag (16), vector (12), 12, key index`; of H.264 and H.265 all behind the clear part has
//! emulation prevention, except that vector, 12 and index never need it. Key: PBKDF2-HMAC-SHA256.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;

use crate::{Codec, Error};

const SALT: &[u8] = b"LKFrameEncryptionKey";
const ITERATIONS: u32 = 100_000;
/// Vector, its length, key index.
const TRAILER: usize = 12 + 2;

/// Opens frames with one key.
pub struct Decryptor {
    key: LessSafeKey,
    index: u8,
}

impl Decryptor {
    /// With the key that people share, at this place.
    ///
    /// # Errors
    /// The cryptographic library refused.
    pub fn new(secret: &str, index: u8) -> Result<Self, Error> {
        let refused = |_| Error::Media("no key can be made".into());
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        let mut bytes = [0; 16];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, SALT, secret.as_bytes(), &mut bytes);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &bytes).map_err(refused)?);
        Ok(Self { key, index })
    }

    /// The frame as it was before it was encrypted; `None` = another key, or spoilt.
    pub fn open(&self, codec: Codec, frame: &[u8]) -> Option<Vec<u8>> {
        let clear = clear_bytes(codec, frame)?;
        let (head, sealed) = frame.split_at_checked(clear)?;
        let (rest, trailer) = sealed.split_at_checked(sealed.len().checked_sub(TRAILER)?)?;
        let (iv, [12, index]) = trailer.split_at_checked(12)? else { return None };
        let nonce = Nonce::try_assume_unique_for_key(iv).ok().filter(|_| *index == self.index)?;
        let mut body = match codec {
            Codec::H264 | Codec::H265 => unescaped(rest),
            _ => rest.to_vec(),
        };
        let plain = self.key.open_in_place(nonce, Aad::from(head), &mut body).ok()?;
        Some([head, plain].concat())
    }
}

fn clear_bytes(codec: Codec, frame: &[u8]) -> Option<usize> {
    let first = *frame.first()?;
    match codec {
        Codec::Opus => Some(1),
        Codec::Vp8 => Some(if first & 1 == 0 { 10 } else { 3 }),
        Codec::Vp9 => Some(0),
        Codec::H264 => slice(frame, |byte| matches!(byte & 31, 1 | 5)),
        Codec::H265 => slice(frame, |byte| matches!(byte >> 1 & 63, 0..=9 | 16..=21)),
        Codec::Av1 => None,
    }
}

/// Two bytes behind the start code of the first slice.
fn slice(frame: &[u8], is_slice: impl Fn(u8) -> bool) -> Option<usize> {
    let codes = frame.windows(4).enumerate();
    let mut units = codes.filter_map(|(at, four)| match four {
        [0, 0, 1, kind] => Some((at + 3, *kind)),
        _ => None,
    });
    units.find(|(_, kind)| is_slice(*kind)).map(|(at, _)| at + 2)
}

fn unescaped(data: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(data.len());
    let mut zeros = 0;
    for byte in data {
        match (zeros, *byte) {
            (2.., 3) => zeros = 0,
            (_, byte) => {
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                out.push(byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: PBKDF2 of hashlib, AESGCM of `cryptography`.
    const SEALED: &str = "fc13c459a6de8d038073a0adde0112ab0f2b4754a957be28200102030405060708090a0c0c03";

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn another_implementations_frame_is_opened_with_its_key_only() {
        let right = Decryptor::new("correct horse battery staple", 3).unwrap();
        assert_eq!(right.open(Codec::Opus, &bytes(SEALED)), Some(vec![0xfc, 1, 2, 3, 4, 5, 6, 7]));
        for wrong in [Decryptor::new("x", 3), Decryptor::new("correct horse battery staple", 4)] {
            assert_eq!(wrong.unwrap().open(Codec::Opus, &bytes(SEALED)), None);
        }
        for length in 0..bytes(SEALED).len() {
            assert_eq!(right.open(Codec::Opus, &bytes(SEALED)[..length]), None);
        }
    }

    #[test]
    fn slices_are_found_behind_parameter_sets() {
        let h265 = [0, 0, 0, 1, 0x40, 1, 0, 0, 0, 1, 0x42, 1, 0, 0, 1, 0x26, 1, 0xaf];
        assert_eq!(clear_bytes(Codec::H265, &h265), Some(17));
        assert_eq!(clear_bytes(Codec::H264, &[0, 0, 0, 1, 0x67, 0, 0, 1, 0x65, 0x88]), Some(10));
        assert_eq!(clear_bytes(Codec::H264, &[0, 0, 0, 1, 0x67]), None);
        assert_eq!(unescaped(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0]);
    }
}
