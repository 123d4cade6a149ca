// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams that leave in few system calls.
//!
//! A frame's packets are equally long but for the last. A stretch of them to one destination becomes one message that
//! the kernel (or the network card) cuts up again: UDP generic segmentation offload, Linux 4.18. Several messages leave
//! in one `sendmmsg`. Where segmentation is refused (a card without checksum offload before Linux 6.11: EIO; a path
//! whose MTU is smaller than a segment: EMSGSIZE or EINVAL) each datagram is a message of its own.

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use str0m::net::DatagramSend;

use crate::engine::SendCounters;

/// Datagrams in a batch: also what the kernel allows in one segmented message (`UDP_MAX_SEGMENTS`).
pub(super) const MAX_DATAGRAMS: usize = 64;
/// Bytes in a segmented message: it is one UDP datagram until it is cut, so it has to fit into one.
const MAX_MESSAGE: usize = 65_000;

/// A datagram that waits for the end of its batch.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Which of our sockets it leaves from.
    pub(super) socket: usize,
    pub(super) destination: SocketAddr,
    pub(super) data: DatagramSend,
}

/// Sends the datagrams of one socket, in their order. Clears `segmentation` when it turns out not to work there.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    datagrams: &[Datagram],
    segmentation: &mut bool,
    counters: &mut SendCounters,
) {
    send_with(datagrams, segmentation, counters, |messages, to, segment| {
        system_call(socket, messages, to, segment)
    });
}

/// [`send`] with the system call as an argument: it takes messages, their destinations and the length of a segment, and
/// answers how many messages it took.
fn send_with(
    mut rest: &[Datagram],
    segmentation: &mut bool,
    counters: &mut SendCounters,
    mut call: impl FnMut(&[&[IoSlice<'_>]], &[Option<SockaddrStorage>], Option<u16>) -> Result<usize, Errno>,
) {
    while !rest.is_empty() {
        let (count, segment) = next_call(rest, *segmentation);
        let now = rest.get(..count).unwrap_or(rest);
        let mut parts = [IoSlice::new(&[]); MAX_DATAGRAMS];
        for (part, datagram) in parts.iter_mut().zip(now) {
            *part = IoSlice::new(&datagram.data);
        }
        let mut messages: [&[IoSlice<'_>]; MAX_DATAGRAMS] = [&[]; MAX_DATAGRAMS];
        let mut to = [const { None }; MAX_DATAGRAMS];
        let (mut left, mut parts, mut used) = (now, parts.as_slice(), 0);
        for (message, to) in messages.iter_mut().zip(&mut to) {
            let Some(first) = left.first() else { break };
            let length = next_message(left, segment);
            (*message, parts) = parts.split_at_checked(length).unwrap_or_default();
            *to = Some(SockaddrStorage::from(first.destination));
            left = left.get(length..).unwrap_or_default();
            used += 1;
        }
        let messages = messages.get(..used).unwrap_or_default();
        // The kernel says why it refused a message only if that is the first one.
        let (gone, taken) = match call(messages, to.get(..used).unwrap_or_default(), segment) {
            Ok(sent) if sent > 0 => (messages.iter().take(sent).map(|m| m.len()).sum(), true),
            Err(Errno::EINTR) => continue,
            Err(Errno::EIO | Errno::EMSGSIZE | Errno::EINVAL) if segment.is_some() => {
                *segmentation = false;
                counters.segmentation_refused += 1;
                continue;
            }
            // The socket's buffer is full: what comes later would not fit either.
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => (rest.len(), false),
            Err(_) => (messages.first().map_or(1, |m| m.len()), false),
        };
        let (done, later) = rest.split_at_checked(gone).unwrap_or((rest, &[]));
        if taken {
            counters.calls += 1;
            counters.datagrams += done.len() as u64;
            counters.bytes += done.iter().map(|d| d.data.len() as u64).sum::<u64>();
        } else {
            counters.errors += done.len() as u64;
        }
        rest = later;
    }
}

/// How many datagrams the next call takes, and the length of a segment if some of them are to share a message.
fn next_call(datagrams: &[Datagram], segmentation: bool) -> (usize, Option<u16>) {
    let datagrams = datagrams.get(..MAX_DATAGRAMS).unwrap_or(datagrams);
    let all = datagrams.len();
    let Some(segment) = segmentation.then(|| common_length(datagrams)).flatten() else { return (all, None) };
    // A segment length holds for a whole call. What is shorter may be alone in its message; what is longer may not.
    let is_longer = |d: &Datagram| d.data.len() > usize::from(segment);
    let longer = datagrams.first().is_some_and(is_longer);
    let count = datagrams.iter().take_while(|d| is_longer(d) == longer).count();
    let candidates = datagrams.get(..count).unwrap_or_default();
    let shares = !longer && next_message_of_many(candidates, segment);
    (count, shares.then_some(segment))
}

/// Whether any two of them would share a message.
fn next_message_of_many(datagrams: &[Datagram], segment: u16) -> bool {
    datagrams.windows(2).any(|pair| next_message(pair, Some(segment)) == 2)
}

/// The length that most datagrams have, if there are two or more of it.
fn common_length(datagrams: &[Datagram]) -> Option<u16> {
    let mut lengths = [0u16; MAX_DATAGRAMS];
    let used = lengths.iter_mut().zip(datagrams).map(|(length, datagram)| {
        // Nothing that str0m makes is longer than 65,535 bytes; 0 stands for none.
        *length = u16::try_from(datagram.data.len()).unwrap_or(0);
    });
    let used = used.count();
    let lengths = lengths.get_mut(..used)?;
    lengths.sort_unstable();
    let runs = lengths.chunk_by(|a, b| a == b).filter(|run| run.len() > 1);
    runs.max_by_key(|run| run.len())?.first().copied().filter(|length| *length > 0)
}

/// How many datagrams the next message takes: to one destination, all as long as a segment, the last maybe shorter.
fn next_message(datagrams: &[Datagram], segment: Option<u16>) -> usize {
    let (Some(first), Some(segment)) = (datagrams.first(), segment) else { return 1 };
    let (mut count, mut bytes) = (0, 0);
    for datagram in datagrams {
        let length = datagram.data.len();
        if count > 0 && (datagram.destination != first.destination || bytes + length > MAX_MESSAGE) {
            break;
        }
        count += 1;
        bytes += length;
        if length != usize::from(segment) {
            break;
        }
    }
    count
}

thread_local! {
    // Kept, because making them allocates. Those with room for a control message always send one.
    static PLAIN: RefCell<MultiHeaders<SockaddrStorage>> =
        RefCell::new(MultiHeaders::preallocate(MAX_DATAGRAMS, None));
    static SEGMENTED: RefCell<MultiHeaders<SockaddrStorage>> =
        RefCell::new(MultiHeaders::preallocate(MAX_DATAGRAMS, Some(nix::cmsg_space!(u16))));
}

fn system_call(
    socket: BorrowedFd<'_>,
    messages: &[&[IoSlice<'_>]],
    to: &[Option<SockaddrStorage>],
    segment: Option<u16>,
) -> Result<usize, Errno> {
    let headers = if segment.is_some() { &SEGMENTED } else { &PLAIN };
    headers.with_borrow_mut(|headers| {
        let control = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let sent = sendmmsg(
            socket.as_raw_fd(),
            headers,
            messages,
            to,
            control.as_slice(),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        )?;
        Ok(sent.count())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u16 = 1;
    const B: u16 = 2;

    /// Datagrams as (destination's port, length).
    fn datagrams(list: &[(u16, usize)]) -> Vec<Datagram> {
        let datagram = |(n, (port, length)): (usize, &(u16, usize))| Datagram {
            socket: 0,
            destination: SocketAddr::from(([127, 0, 0, 1], *port)),
            data: vec![n as u8; *length].into(),
        };
        list.iter().enumerate().map(datagram).collect()
    }

    type Call = (Vec<Vec<usize>>, Option<u16>);

    /// What the kernel is asked for, as the lengths in each message of each call; `kernel` answers the n-th call.
    fn calls(
        list: &[(u16, usize)],
        segmentation: bool,
        kernel: impl Fn(usize, &[&[IoSlice<'_>]], Option<u16>) -> Result<usize, Errno>,
    ) -> (Vec<Call>, bool, SendCounters) {
        let (mut seen, mut counters, mut works) = (Vec::new(), SendCounters::default(), segmentation);
        send_with(&datagrams(list), &mut works, &mut counters, |messages, to, segment| {
            assert_eq!(messages.len(), to.len());
            seen.push((
                messages.iter().map(|m| m.iter().map(|part| part.len()).collect()).collect(),
                segment,
            ));
            assert!(seen.len() < 200, "no end of it");
            kernel(seen.len() - 1, messages, segment)
        });
        (seen, works, counters)
    }

    fn all(_: usize, messages: &[&[IoSlice<'_>]], _: Option<u16>) -> Result<usize, Errno> {
        Ok(messages.len())
    }

    #[test]
    fn a_frame_is_one_call() {
        let (seen, works, counters) = calls(&[(A, 60), (A, 1200), (A, 1200), (A, 1200), (A, 700)], true, all);
        assert_eq!(seen, [(vec![vec![60], vec![1200, 1200, 1200, 700]], Some(1200))]);
        assert!(works);
        assert_eq!(
            counters,
            SendCounters { bytes: 4360, datagrams: 5, calls: 1, errors: 0, segmentation_refused: 0 }
        );
    }

    #[test]
    fn destinations_are_not_mixed_in_a_message() {
        let (seen, ..) = calls(&[(A, 100), (A, 100), (B, 100), (B, 50), (A, 100)], true, all);
        assert_eq!(seen, [(vec![vec![100, 100], vec![100, 50], vec![100]], Some(100))]);
    }

    #[test]
    fn a_longer_one_between_the_equal_ones_goes_by_itself_and_in_order() {
        let (seen, ..) = calls(&[(A, 100), (A, 100), (A, 102), (A, 100), (A, 100), (A, 30)], true, all);
        let first: Call = (vec![vec![100, 100]], Some(100));
        assert_eq!(seen, [first, (vec![vec![102]], None), (vec![vec![100, 100, 30]], Some(100))]);
    }

    #[test]
    fn nothing_is_segmented_that_need_not_be() {
        for list in [&[(A, 100)][..], &[(A, 100), (B, 100)], &[(A, 90), (A, 100)], &[(A, 0), (A, 0)]] {
            let (seen, ..) = calls(list, true, all);
            let one_each = list.iter().map(|(_, length)| vec![*length]).collect();
            assert_eq!(seen, [(one_each, None)], "{list:?}");
        }
        // 100, 90, 100: two are equal, but none can share a message with another of its length.
        let (seen, ..) = calls(&[(A, 100), (B, 90), (A, 100)], true, all);
        assert_eq!(seen, [(vec![vec![100], vec![90], vec![100]], None)]);
    }

    #[test]
    fn a_message_stays_below_a_datagrams_limit() {
        let (seen, _, counters) = calls(&[(A, 1200); 64], true, all);
        assert_eq!(seen, [(vec![vec![1200; 54], vec![1200; 10]], Some(1200))]);
        assert_eq!(counters.datagrams, 64);
        let (seen, ..) = calls(&[(A, 100); 130], true, all);
        assert_eq!(seen.iter().map(|(m, _)| m[0].len()).collect::<Vec<_>>(), [64, 64, 2]);
    }

    #[test]
    fn refused_segmentation_is_not_tried_again() {
        let refuse = |_: usize, messages: &[&[IoSlice<'_>]], segment: Option<u16>| match segment {
            Some(_) => Err(Errno::EIO),
            None => Ok(messages.len()),
        };
        let (seen, works, counters) = calls(&[(A, 100), (A, 100), (A, 50)], true, refuse);
        let plain: Call = (vec![vec![100], vec![100], vec![50]], None);
        assert_eq!(seen, [(vec![vec![100, 100, 50]], Some(100)), plain.clone()]);
        assert!(!works);
        assert_eq!((counters.datagrams, counters.errors, counters.segmentation_refused), (3, 0, 1));
        let (seen, works, _) = calls(&[(A, 100), (A, 100), (A, 50)], false, all);
        assert_eq!(seen, [plain]);
        assert!(!works);
    }

    #[test]
    fn a_partly_taken_batch_goes_on_where_it_stopped() {
        let one = |_: usize, _: &[&[IoSlice<'_>]], _: Option<u16>| Ok(1);
        let (seen, _, counters) = calls(&[(A, 60), (A, 100), (A, 100), (A, 70), (A, 60)], true, one);
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.last(), Some(&(vec![vec![60]], None)));
        assert_eq!((counters.datagrams, counters.calls), (5, 3));
    }

    #[test]
    fn a_full_buffer_ends_the_batch_and_another_error_only_its_message() {
        let full = |n: usize, _: &[&[IoSlice<'_>]], _: Option<u16>| {
            if n == 0 { Ok(1) } else { Err(Errno::EAGAIN) }
        };
        let (seen, _, counters) = calls(&[(A, 10), (A, 20), (A, 30)], true, full);
        assert_eq!((seen.len(), counters.datagrams, counters.errors), (2, 1, 2));

        let unreachable = |n: usize, messages: &[&[IoSlice<'_>]], _: Option<u16>| {
            if n == 0 { Err(Errno::ENETUNREACH) } else { Ok(messages.len()) }
        };
        let (seen, works, counters) = calls(&[(A, 100), (A, 100), (B, 100), (B, 100)], true, unreachable);
        assert_eq!((seen.len(), counters.datagrams, counters.errors), (2, 2, 2));
        assert!(works);

        let interrupted = |n: usize, messages: &[&[IoSlice<'_>]], _: Option<u16>| {
            if n == 0 { Err(Errno::EINTR) } else { Ok(messages.len()) }
        };
        let (_, _, counters) = calls(&[(A, 100), (A, 100)], true, interrupted);
        assert_eq!((counters.datagrams, counters.errors), (2, 0));
        let (_, _, counters) = calls(&[(A, 100), (A, 100)], true, |_, _, _| Ok(0));
        assert_eq!(
            (counters.datagrams, counters.errors),
            (0, 2),
            "a call that takes nothing ends the batch too"
        );
    }
}
