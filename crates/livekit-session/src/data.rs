// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data packets between participants, and the queue in which they wait for the transport.
//!
//! The queue is pure: no I/O, no time. Both its lanes are bounded in bytes and in packets.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest payload of one packet: what LiveKit recommends as the upper limit, 15 KiB. A lossy packet that
/// is to arrive whole over a bad network had better stay below 1300 bytes, which is one datagram.
pub const MAX_DATA_BYTES: usize = 15 * 1024;
/// Topic and destinations together. The server reads at most 64 KiB in one piece, payload included.
const MAX_ADDRESS_BYTES: usize = 16 * 1024;
/// What a reliable packet may find waiting before it; beyond it the packet is refused.
const RELIABLE: Limit = Limit { packets: 1024, bytes: 1024 * 1024 };
/// What lossy packets may be waiting; beyond it the oldest goes.
const LOSSY: Limit = Limit { packets: 256, bytes: 256 * 1024 };

/// A packet of bytes for other participants in the room.
#[derive(Clone, PartialEq, Eq)]
pub struct DataPacket {
    /// The bytes, 1 to [`MAX_DATA_BYTES`].
    pub payload: Arc<[u8]>,
    /// What it is about, for receivers to choose by; empty = not said.
    pub topic: String,
    /// True = sent again until it arrives, and in order. False = sent once, and may overtake others.
    pub reliable: bool,
    /// Identities of those who are to get it; empty = everybody.
    pub destinations: Vec<String>,
}

impl fmt::Debug for DataPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPacket")
            .field("bytes", &self.payload.len())
            .field("topic", &self.topic)
            .field("reliable", &self.reliable)
            .field("destinations", &self.destinations)
            .finish()
    }
}

/// A packet of bytes that another participant sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedData {
    /// The bytes.
    pub payload: Arc<[u8]>,
    /// What it is about; empty = not said.
    pub topic: String,
    /// Identity of the participant that sent it; empty if the server sent it, or somebody hidden.
    pub sender: String,
    /// It came in order and would have been sent again.
    pub reliable: bool,
}

impl fmt::Debug for ReceivedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedData")
            .field("bytes", &self.payload.len())
            .field("topic", &self.topic)
            .field("sender", &self.sender)
            .field("reliable", &self.reliable)
            .finish()
    }
}

/// Why a packet is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// There is nothing in it.
    #[error("it has no bytes")]
    Empty,
    /// The payload is too large; a receiver has to put larger things together itself.
    #[error("it has {bytes} bytes, and a packet holds {MAX_DATA_BYTES} at most; send it in parts")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// Topic and destinations together are too large.
    #[error("its topic and destinations have more than {MAX_ADDRESS_BYTES} bytes; name fewer")]
    AddressTooLarge,
    /// Reliable packets come faster than the network takes them.
    #[error("{} reliable packets or {} KiB wait to be sent already; send less, or lossy", RELIABLE.packets, RELIABLE.bytes / 1024)]
    QueueFull,
    /// A lossy packet while the room is not (or no longer) joined.
    #[error("the room is not joined, and a lossy packet does not wait for it")]
    NotConnected,
    /// The token does not allow it.
    #[error("the server lets this participant send no data; its token needs the grant canPublishData")]
    NotAllowed,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// Counters of a session's data packets, over its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataStats {
    /// Packets handed to the transport.
    pub sent: u64,
    /// Payload bytes of those packets.
    pub bytes_sent: u64,
    /// Packets refused by [`crate::Session::send_data`].
    pub refused: u64,
    /// Packets that were taken and then not sent: lossy ones that gave way to newer ones or to the loss of the
    /// connection, and what waited when the session ended or the server took the permission away.
    pub dropped: u64,
    /// Packets received.
    pub received: u64,
    /// Payload bytes of those packets.
    pub bytes_received: u64,
    /// Packets that wait to be sent.
    pub queued: u64,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    packets: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Lane {
    packets: VecDeque<DataPacket>,
    bytes: usize,
}

impl Lane {
    /// Whether `more` bytes are too much. A lane that is empty takes any packet.
    fn is_full(&self, limit: Limit, more: usize) -> bool {
        self.packets.len() >= limit.packets || (self.bytes > 0 && self.bytes + more > limit.bytes)
    }

    fn push(&mut self, packet: DataPacket) {
        self.bytes += packet.weight();
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<DataPacket> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.weight();
        Some(packet)
    }

    fn unpop(&mut self, packet: DataPacket) {
        self.bytes += packet.weight();
        self.packets.push_front(packet);
    }
}

impl DataPacket {
    fn address_bytes(&self) -> usize {
        // With what the encoding adds to each.
        self.topic.len() + self.destinations.iter().map(|d| d.len() + 4).sum::<usize>()
    }

    /// What it counts for in a lane: also a packet of one byte takes memory.
    fn weight(&self) -> usize {
        self.payload.len() + self.address_bytes()
    }
}

/// Packets on their way from [`crate::Session::send_data`] to the transport.
#[derive(Debug, Default)]
pub(crate) struct DataQueue {
    reliable: Lane,
    lossy: Lane,
    /// The channels are there.
    open: bool,
    /// The server said that we may not.
    forbidden: bool,
    /// The session has ended.
    ended: bool,
    /// The driver has been told that there is something.
    woken: bool,
    stats: DataStats,
}

impl DataQueue {
    /// Takes a packet. `Ok(true)` = the driver is to be told.
    pub(crate) fn push(&mut self, packet: DataPacket) -> Result<bool, DataError> {
        self.admit(&packet).inspect_err(|_| self.stats.refused += 1)?;
        let lane = if packet.reliable { &mut self.reliable } else { &mut self.lossy };
        let limit = if packet.reliable { RELIABLE } else { LOSSY };
        let weight = packet.weight();
        while lane.is_full(limit, weight) && lane.pop().is_some() {
            self.stats.dropped += 1;
        }
        lane.push(packet);
        Ok(!std::mem::replace(&mut self.woken, true))
    }

    fn admit(&self, packet: &DataPacket) -> Result<(), DataError> {
        let bytes = packet.payload.len();
        if self.ended {
            Err(DataError::Ended)
        } else if bytes == 0 {
            Err(DataError::Empty)
        } else if bytes > MAX_DATA_BYTES {
            Err(DataError::TooLarge { bytes })
        } else if packet.address_bytes() > MAX_ADDRESS_BYTES {
            Err(DataError::AddressTooLarge)
        } else if self.forbidden {
            Err(DataError::NotAllowed)
        } else if packet.reliable && self.reliable.is_full(RELIABLE, packet.weight()) {
            Err(DataError::QueueFull)
        } else if !packet.reliable && !self.open {
            Err(DataError::NotConnected)
        } else {
            Ok(())
        }
    }

    /// The next packet of one kind; what becomes of it is to be told by [`Self::sent`] or [`Self::put_back`].
    pub(crate) fn pop(&mut self, reliable: bool) -> Option<DataPacket> {
        // What comes from here on needs another wake-up.
        self.woken = false;
        if reliable { self.reliable.pop() } else { self.lossy.pop() }
    }

    /// The packet was handed to the transport.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.stats.sent += 1;
        self.stats.bytes_sent += bytes as u64;
    }

    /// The transport has no room for it yet.
    pub(crate) fn put_back(&mut self, packet: DataPacket) {
        if packet.reliable { self.reliable.unpop(packet) } else { self.lossy.unpop(packet) }
    }

    /// The channels opened, or are gone. Reliable packets wait for the next ones; lossy ones are of the past.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
        if !open {
            while self.lossy.pop().is_some() {
                self.stats.dropped += 1;
            }
        }
    }

    /// Whether the server refuses data of ours. If so, it would not say: what waits is dropped here.
    pub(crate) fn set_forbidden(&mut self, forbidden: bool) {
        self.forbidden = forbidden;
        if forbidden {
            self.drop_all();
        }
    }

    fn drop_all(&mut self) {
        while self.reliable.pop().or_else(|| self.lossy.pop()).is_some() {
            self.stats.dropped += 1;
        }
    }

    /// Nothing is sent any more.
    pub(crate) fn end(&mut self) {
        (self.open, self.ended) = (false, true);
        self.drop_all();
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.stats.received += 1;
        self.stats.bytes_received += bytes as u64;
    }

    /// Nothing waits to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.reliable.packets.is_empty() && self.lossy.packets.is_empty()
    }

    pub(crate) fn stats(&self) -> DataStats {
        let queued = (self.reliable.packets.len() + self.lossy.packets.len()) as u64;
        DataStats { queued, ..self.stats }
    }
}

/// The queue as handles and driver share it. The lock is held for a push or a pop only.
#[derive(Debug, Default)]
pub(crate) struct DataShared(Mutex<DataQueue>);

impl DataShared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, DataQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: usize, reliable: bool) -> DataPacket {
        DataPacket { payload: vec![7; bytes].into(), topic: "t".into(), reliable, destinations: vec![] }
    }

    fn open() -> DataQueue {
        let mut queue = DataQueue::default();
        queue.set_open(true);
        queue
    }

    #[test]
    fn packets_leave_in_order_and_the_driver_is_woken_once() {
        let mut queue = open();
        assert_eq!(queue.push(packet(1, true)), Ok(true));
        assert_eq!(queue.push(packet(2, true)), Ok(false), "it knows already");
        let first = queue.pop(true).unwrap();
        assert_eq!(first.payload.len(), 1);
        assert_eq!(queue.push(packet(3, true)), Ok(true), "it may have looked before this came");
        queue.put_back(first);
        let sizes: Vec<_> = std::iter::from_fn(|| queue.pop(true)).map(|p| p.payload.len()).collect();
        assert_eq!(sizes, [1, 2, 3]);
        assert!(queue.is_empty() && queue.reliable.bytes == 0);
    }

    #[test]
    fn a_full_lane_refuses_reliable_packets_and_drops_the_oldest_lossy_one() {
        let mut queue = open();
        let mut taken = 0;
        while queue.push(packet(MAX_DATA_BYTES, true)).is_ok() {
            taken += 1;
        }
        assert!(taken * MAX_DATA_BYTES <= RELIABLE.bytes && (taken + 2) * MAX_DATA_BYTES > RELIABLE.bytes);
        assert_eq!(queue.push(packet(MAX_DATA_BYTES, true)), Err(DataError::QueueFull));
        assert_eq!(queue.stats().refused, 2);
        // The other kind has a lane of its own.
        for size in 1..=LOSSY.packets + 3 {
            queue.push(packet(size, false)).unwrap();
        }
        assert_eq!((queue.stats().dropped, queue.lossy.packets.len()), (3, LOSSY.packets));
        assert_eq!(queue.pop(false).unwrap().payload.len(), 4, "the oldest went");
        for _ in 0..40 {
            queue.push(packet(MAX_DATA_BYTES, false)).unwrap();
        }
        assert!(queue.lossy.bytes <= LOSSY.bytes, "{}", queue.lossy.bytes);
    }

    #[test]
    fn many_small_reliable_packets_are_bounded_too() {
        let mut queue = open();
        let taken = (0..5000).filter(|_| queue.push(packet(1, true)).is_ok()).count();
        assert_eq!(taken, RELIABLE.packets);
    }

    #[test]
    fn before_the_room_and_after_its_loss_only_reliable_packets_wait() {
        let mut queue = DataQueue::default();
        assert_eq!(queue.push(packet(1, false)), Err(DataError::NotConnected));
        assert!(queue.push(packet(1, true)).is_ok());
        queue.set_open(true);
        assert!(queue.push(packet(2, false)).is_ok());
        queue.set_open(false);
        assert_eq!((queue.stats().queued, queue.stats().dropped), (1, 1));
        assert!(queue.pop(false).is_none() && queue.pop(true).is_some());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_the_reason() {
        let mut queue = open();
        assert_eq!(queue.push(packet(0, true)), Err(DataError::Empty));
        let bytes = MAX_DATA_BYTES + 1;
        assert_eq!(queue.push(packet(bytes, true)), Err(DataError::TooLarge { bytes }));
        let mut many = packet(1, false);
        many.destinations = vec!["somebody".into(); 2000];
        assert_eq!(queue.push(many), Err(DataError::AddressTooLarge));
        queue.set_forbidden(true);
        assert_eq!(queue.push(packet(1, true)), Err(DataError::NotAllowed));
        queue.set_forbidden(false);
        assert!(queue.push(packet(1, true)).is_ok());
        queue.end();
        assert_eq!(queue.push(packet(1, true)), Err(DataError::Ended));
        assert_eq!((queue.stats().refused, queue.stats().dropped), (5, 1));
        let text = DataError::TooLarge { bytes }.to_string();
        assert!(text.contains("15361") && text.contains("15360"), "{text}");
    }
}
