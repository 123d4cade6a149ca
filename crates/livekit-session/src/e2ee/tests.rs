// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::HashSet;

use aws_lc_rs::aead::{AES_128_GCM, LessSafeKey, UnboundKey};

use super::*;
use crate::bitstream::h264::nal_units;

const KEY: &str = "correct horse battery staple";

fn e2ee() -> E2ee {
    let ivs = IvSource::at([0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    E2ee::with(KeySet::derive(KEY.as_bytes(), 3).unwrap(), ivs)
}

/// A receiver's work, written from the format: clear part, and what was encrypted.
fn open(key: &KeySet, sealed: &[u8], clear: usize, escaped: bool) -> Option<(Vec<u8>, Vec<u8>)> {
    // As LiveKit's native SDKs do: the vector is read before emulation prevention is taken out.
    let (rest, trailer) = sealed.split_at_checked(sealed.len().checked_sub(2)?)?;
    assert_eq!(trailer, [12, key.index]);
    let iv = &rest[rest.len() - 12..];
    let mut body = Vec::new();
    match escaped {
        true => escape::unescape_into(&sealed[clear..], &mut body),
        false => body.extend_from_slice(&sealed[clear..]),
    }
    body.truncate(body.len() - 14);
    let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
    let plain = key.key.open_in_place(nonce, Aad::from(&sealed[..clear]), &mut body).ok()?;
    Some((sealed[..clear].to_vec(), plain.to_vec()))
}

fn keys(key: &str) -> KeySet {
    KeySet::derive(key.as_bytes(), 3).unwrap()
}

fn idr(size: usize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07, 0xe8, 0x80];
    frame.extend([
        0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 1, 6, 5, 1, 0xaa, 0x80, 0, 0, 1, 0x65, 0x88, 0x84,
    ]);
    frame.extend((0..size).map(|n| (n % 251) as u8));
    frame
}

/// Made with another implementation of AES-GCM (Python's `cryptography`) from the same key and vector.
#[test]
fn a_frame_is_what_another_implementation_makes_of_it() {
    let sealed = e2ee().encrypt(Codec::Opus, &[0xfc, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    let hex: String = sealed.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "fc13c459a6de8d038073a0adde0112ab0f2b4754a957be28200102030405060708090a0c0c03");
}

#[test]
fn every_codec_is_opened_by_who_has_the_key_and_by_nobody_else() {
    let key_frame = [0x10, 2, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xf0, 0, 7, 7];
    let h265 = [0, 0, 0, 1, 0x40, 1, 0x0c, 0, 0, 0, 1, 0x26, 1, 0xaf, 9, 9, 9];
    let cases: [(Codec, &[u8], usize, &[u8]); 6] = [
        (Codec::Opus, &[0xfc, 1, 2, 3], 1, &[1, 2, 3]),
        (Codec::Opus, &[0xfc], 1, &[]),
        (Codec::Vp8, &key_frame, 10, &[7, 7]),
        (Codec::Vp9, &[0x82, 0x49, 0x83, 0x42], 0, &[0x82, 0x49, 0x83, 0x42]),
        (Codec::H264, &idr(3), 27, &[0x84, 0, 1, 2]),
        (Codec::H265, &h265, 13, &[0xaf, 9, 9, 9]),
    ];
    let (e2ee, right, wrong) = (e2ee(), keys(KEY), keys("wrong"));
    for (codec, frame, clear, body) in cases {
        let escaped = matches!(codec, Codec::H264 | Codec::H265);
        let sealed = e2ee.encrypt(codec, frame).unwrap();
        let (_, plain) = open(&right, &sealed, clear, escaped).unwrap();
        assert_eq!(plain, body, "{codec}");
        assert_eq!(open(&wrong, &sealed, clear, escaped), None, "{codec}");
        for spoilt in 0..clear {
            let mut sealed = sealed.to_vec();
            sealed[spoilt] ^= 1;
            assert_eq!(open(&right, &sealed, clear, escaped), None, "{codec}: byte {spoilt} is not covered");
        }
    }
    let expected = E2eeStats { frames_encrypted: 6, frames_refused: 0, key_index: 3 };
    assert_eq!(e2ee.stats(), expected);
}

#[test]
fn no_vector_is_used_twice_by_tracks_layers_and_replays() {
    let e2ee = e2ee();
    let mut seen = HashSet::new();
    let frames: [(Codec, Vec<u8>); 3] =
        [(Codec::Opus, vec![0xfc, 1]), (Codec::H264, idr(60)), (Codec::Vp9, vec![0x82, 1, 2])];
    for _replay in 0..200 {
        for (codec, frame) in &frames {
            let clone = e2ee.clone();
            let sealed = clone.encrypt(*codec, frame).unwrap();
            let iv: [u8; 12] = sealed[sealed.len() - 14..sealed.len() - 2].try_into().unwrap();
            assert!(seen.insert(iv), "{codec}: {iv:?} again");
        }
    }
    assert_eq!(seen.len(), 600);
}

#[test]
fn an_encrypted_picture_is_three_units_whose_set_and_end_are_readable() {
    let (e2ee, right) = (e2ee(), keys(KEY));
    for size in 0..600 {
        let sealed = e2ee.encrypt(Codec::H264, &idr(size)).unwrap();
        let units: Vec<_> = nal_units(&sealed).collect();
        assert_eq!(units.len(), 3, "no start code in the ciphertext");
        // What a receiver reads of the slice: set 0, which is the one that the frame brings.
        let mut reader = crate::bitstream::BitReader::new(&units[2][1..]);
        assert_eq!((reader.ue(), reader.ue(), reader.ue()), (Some(0), Some(7), Some(0)), "size {size}");
        let (clear, plain) = open(&right, &sealed, 27, true).unwrap();
        assert_eq!((clear.len(), plain.len()), (27, size + 1));
    }
}

/// Of random bytes one in four million needs an escape.
#[test]
fn ciphertext_that_looks_like_a_start_code_is_escaped() {
    let (e2ee, right, frame) = (e2ee(), keys(KEY), idr(8_000_000));
    let sizes: Vec<_> = (0..2)
        .map(|_| {
            let sealed = e2ee.encrypt(Codec::H264, &frame).unwrap();
            assert_eq!(nal_units(&sealed).count(), 3, "a start code in the ciphertext");
            assert!(!sealed[27..].windows(3).any(|w| matches!(w, [0, 0, 0..=2])));
            let (_, plain) = open(&right, &sealed, 27, true).unwrap();
            assert!(plain == frame[frame.len() - plain.len()..], "what was encrypted");
            sealed.len()
        })
        .collect();
    // Start codes of four bytes, no SEI, tag and trailer: the rest is escapes.
    let without = 27 + 8_000_001 + 16 + 14;
    assert!(sizes.iter().any(|size| *size > without), "no escape was needed: {sizes:?}");
}

#[test]
fn frames_of_vp9_keep_the_kind_that_packetisers_read() {
    let e2ee = e2ee();
    for (first, key) in [(0x82, true), (0x86, false), (0x8a, false)] {
        for _ in 0..100 {
            let sealed = e2ee.encrypt(Codec::Vp9, &[first, 0x49, 0x83, 0x42]).unwrap();
            assert_eq!((Shape::Vp9 { key: true }).fits(&sealed), key, "{first:#x}");
        }
    }
}

#[test]
fn slices_of_h265_keep_their_place_in_the_picture() {
    let e2ee = e2ee();
    for (byte, first) in [(0xaf, true), (0x2f, false)] {
        for _ in 0..50 {
            let sealed = e2ee.encrypt(Codec::H265, &[0, 0, 1, 0x26, 1, byte, 9, 9]).unwrap();
            assert_eq!(sealed[6] & 0x80 != 0, first);
        }
    }
}

#[test]
fn what_cannot_be_encrypted_is_refused_and_counted_and_never_sent_as_it_is() {
    let e2ee = e2ee();
    let long = [&idr(9)[..13], &[0x55; 240], &idr(9)[13..]].concat();
    assert!(matches!(e2ee.encrypt(Codec::H264, &long), Err(Refusal::ClearPartTooLong(267))));
    for (codec, frame) in [(Codec::H264, &b"no picture"[..]), (Codec::Av1, &[0x12, 0]), (Codec::Opus, &[])] {
        assert_eq!(e2ee.encrypt(codec, frame), Err(Refusal::NoPicture), "{codec}");
    }
    assert!(!E2ee::can_encrypt(Codec::Av1));
    assert_eq!(e2ee.stats().frames_refused, 4);
    // The longest that receivers can count.
    let most = [&idr(9)[..13], &[0x55; 228], &idr(9)[13..]].concat();
    let sealed = e2ee.encrypt(Codec::H264, &most).unwrap();
    assert!(open(&keys(KEY), &sealed, 255, true).is_some());
}

#[test]
fn another_key_counts_from_the_next_frame_on_and_an_empty_one_never() {
    let e2ee = e2ee();
    let open_with = |key: &KeySet| {
        let sealed = e2ee.encrypt(Codec::Opus, &[0xfc, 1, 2]).unwrap();
        (*sealed.last().unwrap() == key.index).then(|| open(key, &sealed, 1, false)).flatten().is_some()
    };
    assert!(open_with(&keys(KEY)));
    let other = KeySet::derive(b"other", 5).unwrap();
    assert!(!open_with(&other));
    e2ee.set_key(&Secret::new("other"), 5).unwrap();
    assert!(open_with(&other) && !open_with(&keys(KEY)));
    assert_eq!(e2ee.set_key(&Secret::new(""), 1), Err(E2eeError::EmptyKey));
    assert!(open_with(&other), "the old one stays");
    e2ee.ratchet().unwrap();
    assert!(!open_with(&other) && open_with(&other.ratcheted().unwrap()));
    e2ee.ratchet().unwrap();
    assert!(open_with(&other.ratcheted().unwrap().ratcheted().unwrap()));
    assert_eq!(e2ee.stats().key_index, 5);
    assert_eq!(E2ee::new(&Secret::new(""), 0).err(), Some(E2eeError::EmptyKey));
}

#[test]
fn data_packets_are_opened_by_who_has_the_key_at_that_index() {
    let (sender, receiver) = (e2ee(), e2ee());
    let mut content = b"telemetry".to_vec();
    let (iv, index) = sender.encrypt_data(&mut content).unwrap();
    assert_eq!(content.len(), 9 + 16);
    for wrong in [[&iv[..], &[1]].concat(), vec![], vec![1; 12]] {
        assert_eq!(receiver.decrypt_data(&mut content.clone(), &wrong, 3), None);
    }
    assert_eq!(receiver.decrypt_data(&mut content.clone(), &iv, 4), None);
    assert_eq!(receiver.decrypt_data(&mut [], &iv, 3), None);
    let length = receiver.decrypt_data(&mut content, &iv, u32::from(index)).unwrap();
    assert_eq!(&content[..length], b"telemetry");
}

#[test]
fn nothing_of_a_key_is_printed() {
    let e2ee = e2ee();
    let mut config = crate::SessionConfig::new("ws://x", crate::Credentials::Token("t".into()));
    config.e2ee = Some(e2ee.clone());
    let derived = {
        let mut bytes = [0; 16];
        let salt = b"LKFrameEncryptionKey";
        let rounds = std::num::NonZeroU32::new(100_000).unwrap();
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            KEY.as_bytes(),
            &mut bytes,
        );
        bytes
    };
    // It is the key in use.
    let mut key = keys("another");
    key.key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &derived).unwrap());
    assert!(open(&key, &e2ee.encrypt(Codec::Opus, &[0xfc, 1]).unwrap(), 1, false).is_some());
    let _ = e2ee.encrypt(Codec::Av1, &[]);
    let errors: String =
        [E2eeError::EmptyKey, E2eeError::Cipher].iter().map(|e| format!("{e} {e:?}")).collect();
    let refusals = [Refusal::NoPicture, Refusal::ClearPartTooLong(300), Refusal::Cipher];
    let refusals: String = refusals.iter().map(|e| format!("{e} {e:?}")).collect();
    let said = format!("{e2ee:?} {e2ee:#?} {config:?} {:?} {errors} {refusals}", e2ee.stats());
    let decimal = format!("{derived:?}");
    let hex: String = derived.iter().map(|b| format!("{b:02x}")).collect();
    for secret in [KEY, &hex, &decimal, decimal.trim_matches(['[', ']'])] {
        assert!(!said.to_lowercase().contains(&secret.to_lowercase()), "{said}");
    }
    assert!(said.contains("***"));
}

#[test]
fn a_frame_costs_one_allocation() {
    let e2ee = e2ee();
    let frames = [
        (Codec::H264, idr(20_000)),
        (Codec::Vp8, [&[0x31, 2, 0][..], &[7; 9_000]].concat()),
        (Codec::Opus, vec![0xfc; 160]),
    ];
    // The memory to work in grows with the first.
    for (codec, frame) in &frames {
        let _ = e2ee.encrypt(*codec, frame);
    }
    for (codec, frame) in &frames {
        let counted = allocation_counter::measure(|| drop(e2ee.encrypt(*codec, frame)));
        assert_eq!(counted.count_total, 1, "{codec}");
    }
}

#[test]
fn any_bytes_are_survived() {
    let e2ee = e2ee();
    let mut state = 0x1234_5678_u32;
    for len in 0..400 {
        let data: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match state >> 29 {
                    0..=2 => 0,
                    3 => 1,
                    4 => 0x67,
                    5 => 0x65,
                    6 => 0x42,
                    _ => (state >> 16) as u8,
                }
            })
            .collect();
        for codec in Codec::ALL {
            let _ = e2ee.encrypt(codec, &data);
        }
    }
}
