// SPDX-License-Identifier: MIT OR Apache-2.0

//! See [`crate::fuzzing`].

use livekit_protocol as proto;

use super::framing::{Deframer, MAX_MESSAGE};
use super::servers::relays;

/// URIs of relays, one a line: what is taken says the same when it is written again.
pub fn turn_uri(input: &[u8]) {
    let server = |urls| proto::IceServer { urls, username: "u".into(), credential: "c".into() };
    let text = String::from_utf8_lossy(input);
    let found = relays(&[server(text.lines().map(str::to_owned).collect())]);
    let again = relays(&[server(found.iter().map(ToString::to_string).collect())]);
    assert_eq!(found, again);
}

/// A stream in pieces: the first byte says how long these are. The pieces make no difference, nothing longer than a
/// message comes out, and nothing that was not put in.
pub fn deframer(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else { return };
    for make in [Deframer::rfc4571, Deframer::turn] {
        let in_pieces = messages(make(), stream, usize::from(size).max(1));
        assert_eq!(in_pieces, messages(make(), stream, usize::MAX));
        assert!(in_pieces.iter().all(|message| (1..=MAX_MESSAGE).contains(&message.len())));
        assert!(in_pieces.iter().map(Vec::len).sum::<usize>() <= stream.len());
    }
}

fn messages(mut deframer: Deframer, mut stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !stream.is_empty() && !deframer.is_lost() {
        let space = deframer.space();
        let length = space.len().min(size).min(stream.len());
        assert!(length > 0, "there is room for what comes next");
        let (piece, rest) = stream.split_at(length);
        space.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        stream = rest;
        deframer.filled(length);
        while let Some(message) = deframer.next() {
            found.push(message.to_vec());
        }
    }
    found
}
