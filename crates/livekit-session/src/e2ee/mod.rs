// SPDX-License-Identifier: MIT OR Apache-2.0

//! End-to-end encryption as LiveKit's SDKs do it: AES-128-GCM around each encoded frame, before it is packetised, with a
//! key that the server never sees.
//!
//! A frame becomes `clear part ‖ ciphertext ‖ tag (16) ‖ vector (12) ‖ 12 ‖ key index`. The clear part ([`clear`]) is
//! authenticated as well. Of H.264 and H.265 everything behind the clear part then gets emulation prevention
//! ([`escape`]). Each frame is encrypted once for each time that it is written: a group of pictures that is sent again, or
//! a keyframe that is sent ahead, gets vectors of its own ([`iv`]), while retransmissions are of packets and repeat the
//! ciphertext. Pure: no I/O, no time.
//!
//! What is not encrypted: everything that is no frame and no data packet: names, metadata, sizes, times, bitrates.

mod clear;
mod escape;
mod iv;
mod keys;
mod sps;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{Aad, Nonce};

use crate::config::{Codec, Secret};
use clear::Shape;
use iv::{IV_LEN, IvSource};
use keys::KeySet;

/// What LiveKit's SDKs written in C++ can count of the clear part.
const MAX_CLEAR: usize = u8::MAX as usize;
/// Bytes of ciphertext that tell a frame's shape.
const SHAPE_LEN: usize = 16;
/// Vectors tried for a ciphertext of the right shape. The rarest that occur are one in some hundred.
const MAX_TRIES: usize = 20_000;

/// Why a key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum E2eeError {
    /// The key has no bytes.
    #[error("the key for end-to-end encryption is empty")]
    EmptyKey,
    /// The cryptographic library refused.
    #[error("the cryptographic library refused to work")]
    Cipher,
}

/// Why a frame can't be encrypted. Such a frame is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It has neither picture nor sound: parameter sets alone, or garbage.
    #[error("there is no picture in it")]
    NoPicture,
    /// Its parameter sets are longer than receivers can count.
    #[error(
        "the {0} bytes before its picture can't stay readable: viewers take {MAX_CLEAR} at most; let the encoder write \
         shorter parameter sets, without scaling matrices"
    )]
    ClearPartTooLong(usize),
    /// The cryptographic library refused.
    #[error("the cryptographic library refused to encrypt it")]
    Cipher,
}

/// The counters of a session's encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct E2eeStats {
    /// Frames encrypted, of all tracks and layers, replays included.
    pub frames_encrypted: u64,
    /// Frames that could not be encrypted, and so were not sent.
    pub frames_refused: u64,
    /// Which of a receiver's keys is in use.
    pub key_index: u8,
}

/// The key of a session ([`crate::SessionConfig::e2ee`]), which can be changed at any time through any clone. From the
/// next frame on the new one is used.
///
/// The key is what people share, as bytes of any length: LiveKit's SDKs make the actual one of it with PBKDF2. So do
/// [`Self::new`], [`Self::set_key`] and [`Self::ratchet`], which take some ten milliseconds each for that.
/// To JavaScript clients it has to be given as a string: of an `ArrayBuffer` they derive another one.
///
/// The key can't be read back, and nothing prints it.
#[derive(Clone)]
pub struct E2ee(Arc<Inner>);

struct Inner {
    /// Held while a key is made, so that of two changes the later one wins.
    changing: Mutex<()>,
    state: Mutex<State>,
    encrypted: AtomicU64,
    refused: AtomicU64,
}

struct State {
    keys: KeySet,
    ivs: IvSource,
    /// Memory to work in, kept from frame to frame.
    frame: Vec<u8>,
    parameter_set: Vec<u8>,
}

impl fmt::Debug for E2ee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E2ee").field("key", &"***").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl E2ee {
    /// Encrypts with `key`, which receivers have at place `index` of their keys (the SDKs keep 16 unless told
    /// otherwise; 0 is where they put a single one).
    ///
    /// # Errors
    /// The key is empty.
    pub fn new(key: &Secret, index: u8) -> Result<Self, E2eeError> {
        Ok(Self::with(KeySet::derive(key.expose().as_bytes(), index)?, IvSource::new()))
    }

    fn with(keys: KeySet, ivs: IvSource) -> Self {
        let state = State { keys, ivs, frame: Vec::new(), parameter_set: Vec::new() };
        Self(Arc::new(Inner {
            changing: Mutex::default(),
            state: Mutex::new(state),
            encrypted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Uses another key from the next frame on.
    ///
    /// # Errors
    /// The key is empty; the old one stays in use.
    pub fn set_key(&self, key: &Secret, index: u8) -> Result<(), E2eeError> {
        let _changing = lock(&self.0.changing);
        let keys = KeySet::derive(key.expose().as_bytes(), index)?;
        lock(&self.0.state).keys = keys;
        Ok(())
    }

    /// Goes on to the key that follows from the present one, at the same index. Receivers that have the present one
    /// find it by themselves (unless their ratchet window is 0); one who gets the new key can't make the old one
    /// of it.
    ///
    /// # Errors
    /// Those of the cryptographic library; the old key stays in use.
    pub fn ratchet(&self) -> Result<(), E2eeError> {
        let _changing = lock(&self.0.changing);
        let (material, index) = {
            let state = lock(&self.0.state);
            (state.keys.material(), state.keys.index)
        };
        let keys = KeySet::derive(&*keys::ratchet(&material), index)?;
        lock(&self.0.state).keys = keys;
        Ok(())
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> E2eeStats {
        E2eeStats {
            frames_encrypted: self.0.encrypted.load(Relaxed),
            frames_refused: self.0.refused.load(Relaxed),
            key_index: lock(&self.0.state).keys.index,
        }
    }

    /// Whether frames of this codec can be encrypted. Of AV1 LiveKit's format leaves nothing readable, not even what
    /// packetisers and servers need.
    pub fn can_encrypt(codec: Codec) -> bool {
        codec != Codec::Av1
    }

    /// The encrypted frame. Allocates that, and nothing else once its memory has grown to the largest frame.
    pub(crate) fn encrypt(&self, codec: Codec, frame: &[u8]) -> Result<Arc<[u8]>, Refusal> {
        let sealed = lock(&self.0.state).seal_frame(codec, frame);
        let counter = if sealed.is_ok() { &self.0.encrypted } else { &self.0.refused };
        counter.fetch_add(1, Relaxed);
        sealed
    }

    /// A data packet's content, encrypted; with its vector and the index of the key.
    pub(crate) fn encrypt_data(&self, content: &mut Vec<u8>) -> Option<([u8; IV_LEN], u8)> {
        let mut state = lock(&self.0.state);
        let iv = state.ivs.next();
        let nonce = Nonce::assume_unique_for_key(iv);
        state.keys.key.seal_in_place_append_tag(nonce, Aad::empty(), content).ok()?;
        Some((iv, state.keys.index))
    }

    /// The content of somebody's data packet, if it was encrypted with the key in use.
    pub(crate) fn decrypt_data(&self, sealed: &mut [u8], iv: &[u8], index: u32) -> Option<usize> {
        let state = lock(&self.0.state);
        if u32::from(state.keys.index) != index {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
        state.keys.key.open_in_place(nonce, Aad::empty(), sealed).ok().map(|content| content.len())
    }
}

impl State {
    fn seal_frame(&mut self, codec: Codec, frame: &[u8]) -> Result<Arc<[u8]>, Refusal> {
        let Self { keys, ivs, frame: out, parameter_set } = self;
        out.clear();
        let plan = clear::begin(codec, frame, out, parameter_set).ok_or(Refusal::NoPicture)?;
        let clear = out.len();
        if clear > MAX_CLEAR {
            return Err(Refusal::ClearPartTooLong(clear));
        }
        out.extend_from_slice(frame.get(plan.body..).unwrap_or_default());
        let iv = choose_iv(keys, ivs, plan.shape, out.get(clear..).unwrap_or_default())?;
        let (head, body) = out.split_at_mut_checked(clear).ok_or(Refusal::Cipher)?;
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = keys.key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body);
        let tag = tag.map_err(|_| Refusal::Cipher)?;
        out.extend_from_slice(tag.as_ref());
        out.extend_from_slice(&iv);
        out.extend_from_slice(&[IV_LEN as u8, keys.index]);
        if Shape::is_escaped(codec) {
            escape::escape(out, clear);
        }
        Ok(Arc::from(out.as_slice()))
    }
}

/// A vector with which the frame's ciphertext begins as it has to. Those passed over are never used.
fn choose_iv(keys: &KeySet, ivs: &mut IvSource, shape: Shape, plain: &[u8]) -> Result<[u8; IV_LEN], Refusal> {
    let plain = plain.get(..plain.len().min(SHAPE_LEN)).unwrap_or_default();
    let mut iv = ivs.next();
    if shape == Shape::Any {
        return Ok(iv);
    }
    for _try in 0..MAX_TRIES {
        let mut block = [0; SHAPE_LEN];
        let trial = block.get_mut(..plain.len()).unwrap_or_default();
        trial.copy_from_slice(plain);
        // Counter mode: the first bytes are the same however much follows.
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = keys.key.seal_in_place_separate_tag(nonce, Aad::empty(), trial);
        if tag.is_err() {
            return Err(Refusal::Cipher);
        }
        if shape.fits(trial) {
            return Ok(iv);
        }
        iv = ivs.next();
    }
    // It will be decrypted all the same; a viewer may have to ask for another keyframe.
    Ok(iv)
}

#[cfg(test)]
mod tests;
