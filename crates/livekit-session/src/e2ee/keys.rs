// SPDX-License-Identifier: MIT OR Apache-2.0

//! From what people share to what encrypts, as LiveKit's SDKs derive it.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

use super::E2eeError;

/// The SDKs' default salt, for keys and for ratcheting.
const SALT: &[u8] = b"LKFrameEncryptionKey";
/// The SDKs' iterations of PBKDF2 (RFC 8018 §5.2) with HMAC-SHA256.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
/// Bytes of an AES-128 key.
const KEY_LEN: usize = 16;
/// Bytes of the material after a ratchet.
const RATCHETED_LEN: usize = 32;

/// What encrypts, and what the next key can be made of. Wiped when dropped; there is no way to print it.
pub(super) struct KeySet {
    material: Zeroizing<Vec<u8>>,
    pub(super) key: LessSafeKey,
    /// Which of a receiver's keys it is.
    pub(super) index: u8,
}

impl KeySet {
    /// Takes some ten milliseconds, on purpose: PBKDF2 is meant to be slow.
    pub(super) fn derive(material: &[u8], index: u8) -> Result<Self, E2eeError> {
        if material.is_empty() {
            return Err(E2eeError::EmptyKey);
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        stretch(material, &mut *bytes);
        let key = UnboundKey::new(&AES_128_GCM, &*bytes).map_err(|_| E2eeError::Cipher)?;
        Ok(Self { material: Zeroizing::new(material.to_vec()), key: LessSafeKey::new(key), index })
    }

    /// The key that follows this one.
    #[cfg(test)]
    pub(super) fn ratcheted(&self) -> Result<Self, E2eeError> {
        Self::derive(&*ratchet(&self.material), self.index)
    }

    /// The material, to be worked on while nobody waits for it.
    pub(super) fn material(&self) -> Zeroizing<Vec<u8>> {
        self.material.clone()
    }
}

/// The material that follows `material`: who has the one can make the other, and there is no way back.
pub(super) fn ratchet(material: &[u8]) -> Zeroizing<[u8; RATCHETED_LEN]> {
    let mut next = Zeroizing::new([0; RATCHETED_LEN]);
    stretch(material, &mut *next);
    next
}

fn stretch(secret: &[u8], out: &mut [u8]) {
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, SALT, secret, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Made with Python: `hashlib.pbkdf2_hmac('sha256', secret, b'LKFrameEncryptionKey', 100000, length)`.
    #[test]
    fn keys_and_ratcheted_material_are_what_the_sdks_derive() {
        let mut key = [0; KEY_LEN];
        stretch(b"a shared secret", &mut key);
        assert_eq!(hex(&key), "bd4914eface15784f590069467ffeeaf");
        let next = ratchet(b"a shared secret");
        assert_eq!(hex(&*next), "bd4914eface15784f590069467ffeeaf88887412ec04e9ed03b5f1ab4f7cf2a5");
        let mut key = [0; KEY_LEN];
        stretch(&*next, &mut key);
        assert_eq!(hex(&key), "f95939d3136a8bee8381be34f2b2b493");
    }

    #[test]
    fn a_ratcheted_set_keeps_its_place_and_nothing_makes_no_key() {
        let set = KeySet::derive(b"x", 7).unwrap();
        let next = set.ratcheted().unwrap();
        assert_eq!(next.index, 7);
        assert_eq!(next.material().as_slice(), ratchet(b"x").as_slice());
        assert_eq!(KeySet::derive(b"", 0).err(), Some(E2eeError::EmptyKey));
    }
}
