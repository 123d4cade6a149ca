// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the fuzz targets in `fuzz/` do with an input, for all that is not public; the crate's tests run the corpus through
//! it. No part of the API.
#![allow(missing_docs, reason = "named after the targets")]

use std::sync::OnceLock;

use crate::bitstream;
use crate::config::Codec;
use crate::e2ee::E2ee;
pub use crate::engine::webrtc::fuzzing::{data_packet, deframer, turn_uri};
pub use crate::signal::fuzzing::{regions, signal_message};

const CODECS: [Codec; 6] = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus];

/// One key for all inputs: making one takes ten milliseconds.
pub(crate) fn key() -> Option<&'static E2ee> {
    static KEY: OnceLock<Option<E2ee>> = OnceLock::new();
    KEY.get_or_init(|| E2ee::new(&"key".into(), 3).ok()).as_ref()
}

/// The codec that the first byte says, and the rest.
fn frame(input: &[u8]) -> Option<(Codec, &[u8])> {
    let (first, frame) = input.split_first()?;
    Some((*CODECS.get(usize::from(*first) % CODECS.len())?, frame))
}

/// A frame of a camera's: what is found in it lies inside it.
pub fn bitstream(input: &[u8]) {
    let Some((codec, frame)) = frame(input) else { return };
    let found = bitstream::inspect(codec, frame);
    if let Some(format) = found.format {
        let _ = format.is_browser_format(codec);
    }
    if let Some(sps) = bitstream::h264::Sps::parse(frame) {
        let _ = (sps.profile_level_id(), sps.is_browser_profile());
    }
    assert!(bitstream::h264::nal_units(frame).map(<[u8]>::len).sum::<usize>() <= frame.len());
    assert!(bitstream::av1::obus(frame).map(|(_, payload)| payload.len()).sum::<usize>() <= frame.len());
}

/// A frame that is encrypted: it is refused, or whole and marked with the key.
pub fn encryption(input: &[u8]) {
    let (Some((codec, frame)), Some(key)) = (frame(input), key()) else { return };
    if let Ok(sealed) = key.encrypt(codec, frame) {
        assert!(sealed.len() >= 16 + 12 + 2 && sealed.ends_with(&[12, 3]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input of the corpus, and each of them cut short and with a byte changed.
    fn run(target: &str, check: fn(&[u8])) {
        let folder = format!("{}/tests/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let mut input = std::fs::read(file.unwrap().path()).unwrap();
            check(&input);
            for end in 0..input.len().min(200) {
                check(&input[..end]);
            }
            for at in 0..input.len().min(200) {
                let byte = input[at];
                for other in [0, 0xff, byte ^ 0x80, byte.wrapping_add(1)] {
                    input[at] = other;
                    check(&input);
                }
                input[at] = byte;
            }
            inputs += 1;
        }
        assert!(inputs >= 4, "{inputs} inputs for {target}");
    }

    #[test]
    fn the_corpus_of_the_fuzz_targets_is_survived() {
        run("bitstream", bitstream);
        run("data_packet", data_packet);
        run("deframer", deframer);
        run("encryption", encryption);
        run("regions", regions);
        run("signal_message", signal_message);
        run("turn_uri", turn_uri);
    }
}
