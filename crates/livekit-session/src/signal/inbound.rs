// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bounds for what a server says: the size of a message, what it becomes in memory, and how much waits for us.
//!
//! The signalling crate decodes each message and queues it without a bound. What comes through here first is decodable, not
//! too large, and not more than we have room for: beyond that nothing is read, and the network holds the server back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use livekit_protocol as proto;
use prost::Message as _;
use tokio::sync::Notify;

use crate::stats::SessionStats;

/// Messages that wait for us, at most …
pub(super) const MAX_WAITING: usize = 512;
/// … and their bytes. One that is larger waits alone.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// The largest message but the first, which lists every participant.
const MAX_LATER: usize = 1024 * 1024;
/// Parts of a message that may be tiny. Each costs some hundred bytes of memory; a real list has none that say nothing.
const MAX_TINY: usize = 20_000;
const TINY: usize = 4;
/// How deep parts are looked for: participants of an update, their tracks, and what these consist of.
const DEPTH: usize = 4;

/// Why a message is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Larger than any that a server has cause to send.
    #[error("it has {0} bytes")]
    TooLarge(usize),
    /// Small on the wire, gigantic in memory.
    #[error("it has more parts than there can be")]
    TooManyParts,
    /// No message of the protocol.
    #[error("it is no message of the protocol")]
    Malformed,
    /// None of the kinds that we know.
    #[error("it says nothing that is known here")]
    Unknown,
}

/// How many messages of a session's server were not taken, for each reason.
#[derive(Debug, Default)]
pub(crate) struct RefusedCounters {
    malformed: AtomicU64,
    too_large: AtomicU64,
    unknown: AtomicU64,
}

impl RefusedCounters {
    pub(super) fn count(&self, refused: &Refused) {
        let counter = match refused {
            Refused::Malformed => &self.malformed,
            Refused::TooLarge(_) | Refused::TooManyParts => &self.too_large,
            Refused::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn fill(&self, stats: &mut SessionStats) {
        stats.signalling_malformed = self.malformed.load(Relaxed);
        stats.signalling_too_large = self.too_large.load(Relaxed);
        stats.signalling_unknown = self.unknown.load(Relaxed);
    }
}

/// The message in `bytes`, if it is one that may be taken. `first` = of its connection.
pub(super) fn check(bytes: &[u8], first: bool) -> Result<proto::signal_response::Message, Refused> {
    if !first && bytes.len() > MAX_LATER {
        return Err(Refused::TooLarge(bytes.len()));
    }
    let mut tiny = 0;
    count_tiny(bytes, DEPTH, &mut tiny);
    if tiny > MAX_TINY {
        return Err(Refused::TooManyParts);
    }
    let message = proto::SignalResponse::decode(bytes).map_err(|_| Refused::Malformed)?.message;
    message.ok_or(Refused::Unknown)
}

/// Counts the parts that hold next to nothing, down to `depth`, in what may be a message; false = it is none.
fn count_tiny(mut bytes: &[u8], depth: usize, tiny: &mut usize) -> bool {
    let before = *tiny;
    while !bytes.is_empty() && *tiny <= MAX_TINY {
        let Some(part) = next_part(&mut bytes) else {
            // Text, most likely.
            *tiny = before;
            return false;
        };
        let Some(part) = part else { continue };
        if part.len() <= TINY {
            *tiny += 1;
        } else if depth > 1 {
            count_tiny(part, depth - 1, tiny);
        }
    }
    true
}

/// Takes a field off (protobuf's wire format): what is in it, if that has a length of its own. `None` = there is none.
fn next_part<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let key = varint(bytes)?;
    if key >> 3 == 0 {
        return None;
    }
    let size = match key & 7 {
        0 => {
            varint(bytes)?;
            return Some(None);
        }
        1 => 8,
        2 => usize::try_from(varint(bytes)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (part, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some((key & 7 == 2).then_some(part))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The messages between the socket and whoever acts on them.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    sizes: Mutex<Sizes>,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Sizes {
    waiting: VecDeque<usize>,
    bytes: usize,
}

impl Backlog {
    fn sizes(&self) -> std::sync::MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for another message.
    pub(super) async fn room(&self) {
        loop {
            {
                let sizes = self.sizes();
                if sizes.waiting.len() < MAX_WAITING && sizes.bytes < MAX_WAITING_BYTES {
                    return;
                }
            }
            // One waits at a time, and a permit is kept for it.
            self.taken.notified().await;
        }
    }

    /// A message of so many bytes is on its way.
    pub(super) fn add(&self, bytes: usize) {
        let mut sizes = self.sizes();
        sizes.waiting.push_back(bytes);
        sizes.bytes += bytes;
    }

    /// The oldest one has arrived.
    pub(super) fn take(&self) {
        {
            let mut sizes = self.sizes();
            let bytes = sizes.waiting.pop_front().unwrap_or_default();
            sizes.bytes -= bytes;
        }
        self.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::signal_response::Message as M;

    fn encoded(message: M) -> Vec<u8> {
        proto::SignalResponse { message: Some(message) }.encode_to_vec()
    }

    fn update(participants: Vec<proto::ParticipantInfo>) -> Vec<u8> {
        encoded(M::Update(proto::ParticipantUpdate { participants }))
    }

    /// As large rooms have them.
    fn participant(number: usize) -> proto::ParticipantInfo {
        let tracks = (0..3).map(|i| proto::TrackInfo {
            sid: format!("TR_{number}-{i}-abcdefgh"),
            name: "a".into(),
            mime_type: "video/H264".into(),
            codecs: vec![
                proto::SimulcastCodecInfo { mime_type: "video/H264".into(), ..Default::default() };
                3
            ],
            ..Default::default()
        });
        proto::ParticipantInfo {
            sid: format!("PA_{number}-abcdefgh"),
            identity: format!("i{number}"),
            name: "n".into(),
            metadata: "{\"a\":1}".into(),
            tracks: tracks.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn what_servers_say_is_taken() {
        assert!(matches!(check(&encoded(M::RefreshToken("x".repeat(2000))), false), Ok(M::RefreshToken(_))));
        assert!(check(&update((0..1000).map(participant).collect()), false).is_ok());
        let other_participants: Vec<_> = (0..1000).map(participant).collect();
        let join = proto::JoinResponse { other_participants, ..Default::default() };
        assert!(matches!(check(&encoded(M::Join(join)), true), Ok(M::Join(_))));
    }

    #[test]
    fn what_would_fill_memory_is_not_decoded() {
        assert_eq!(check(&vec![0; MAX_LATER + 1], false), Err(Refused::TooLarge(MAX_LATER + 1)));
        let nobody = vec![proto::ParticipantInfo::default(); MAX_TINY + 2];
        assert_eq!(check(&update(nobody.clone()), false), Err(Refused::TooManyParts));
        assert!(check(&update(nobody[..1000].to_vec()), false).is_ok());
        // One participant with as many tracks, and tracks with as many codecs.
        let tracks = vec![proto::TrackInfo::default(); MAX_TINY + 2];
        let one = proto::ParticipantInfo { tracks, ..Default::default() };
        assert_eq!(check(&update(vec![one]), false), Err(Refused::TooManyParts));
        let codecs = vec![proto::SimulcastCodecInfo::default(); MAX_TINY + 2];
        let tracks = vec![proto::TrackInfo { codecs, ..Default::default() }];
        let one = proto::ParticipantInfo { tracks, ..Default::default() };
        assert_eq!(check(&update(vec![one]), false), Err(Refused::TooManyParts));
    }

    #[test]
    fn garbage_is_told_from_kinds_that_are_new() {
        assert_eq!(check(&[0xff; 40], true), Err(Refused::Malformed));
        assert_eq!(check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], true), Err(Refused::Malformed));
        // Field 1000, length 1.
        assert_eq!(check(&[0xc2, 0x3e, 1, 0], false), Err(Refused::Unknown));
        assert_eq!(check(&[], false), Err(Refused::Unknown));
        // Every beginning of a message, and every byte of one changed.
        let whole = update(vec![participant(1)]);
        for at in 0..whole.len() {
            let _ = check(&whole[..at], false);
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            let _ = check(&changed, false);
        }
    }

    #[tokio::test]
    async fn beyond_so_much_nothing_is_read_until_something_is_taken() {
        use std::time::Duration;
        let full = async |backlog: &Backlog| {
            tokio::time::timeout(Duration::from_millis(20), backlog.room()).await.is_err()
        };
        let backlog = Backlog::default();
        for _ in 0..MAX_WAITING {
            assert!(!full(&backlog).await);
            backlog.add(1);
        }
        assert!(full(&backlog).await);
        let (room, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(60), backlog.room()), async {
            backlog.take()
        });
        room.unwrap();
        let large = Backlog::default();
        large.add(MAX_WAITING_BYTES);
        assert!(full(&large).await);
        large.take();
        // More than there was: of a connection before.
        large.take();
        assert!(!full(&large).await);
    }
}
