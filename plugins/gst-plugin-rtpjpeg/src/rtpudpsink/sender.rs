// SPDX-License-Identifier: MPL-2.0

//! Sends packets in as few system calls as they and the kernel allow.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};

use super::socket::{Opened, storage};
use super::stats::Stats;

/// Packets in one call: the kernel's own limit for segmentation offload.
const MAX_BATCH: usize = 64;
/// Most bytes in one call with segmentation offload, with room for an IPv6 header.
const MAX_GSO_BYTES: usize = 65535 - 40 - 8;
/// Parts that one call may have in all.
const MAX_PARTS: usize = 1024;
/// Time between two attempts to find a route anew.
const RECONNECT: Duration = Duration::from_secs(1);

/// A packet as parts that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub parts: &'a [IoSlice<'a>],
    pub len: usize,
}

impl<'a> AsRef<[IoSlice<'a>]> for Packet<'a> {
    fn as_ref(&self) -> &[IoSlice<'a>] {
        self.parts
    }
}

/// The sending end.
pub(crate) struct Sender {
    opened: Opened,
    gso: bool,
    /// Segments of this length or more are refused, because the path's MTU is smaller.
    gso_limit: usize,
    addresses: Vec<Option<SockaddrStorage>>,
    reconnected: Option<Instant>,
}

/// What a failed call means for its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// An earlier packet's fate, or an interruption: this one was not tried.
    Again,
    /// Not this way: without segmentation offload.
    NotWithGso,
    /// This packet cannot be sent.
    Drop,
}

impl Sender {
    pub fn new(opened: Opened) -> Self {
        let to = (!opened.connected).then(|| storage(opened.to));
        Self {
            gso: opened.gso,
            gso_limit: usize::MAX,
            addresses: vec![to; MAX_BATCH],
            opened,
            reconnected: None,
        }
    }

    /// Sends packets in their order. Those that cannot be sent are counted and skipped.
    pub fn send(&mut self, packets: &[Packet<'_>], stats: &Stats) {
        let mut rest = packets;
        let mut tries = 0;
        while !rest.is_empty() {
            let run = if self.gso { gso_run(rest, self.gso_limit) } else { 1 };
            let (result, count) = if run > 1 {
                (self.send_segments(rest.get(..run).unwrap_or_default()), run)
            } else {
                let batch = plain_batch(rest, self.gso, self.gso_limit);
                (self.send_batch(rest.get(..batch).unwrap_or_default()), batch)
            };
            Stats::add(&stats.system_calls, 1);
            let done = match result {
                Ok(sent) => {
                    let sent = sent.clamp(1, count);
                    let bytes: usize = rest.iter().take(sent).map(|packet| packet.len).sum();
                    Stats::add(&stats.packets, sent as u64);
                    Stats::add(&stats.bytes, bytes as u64);
                    if run > 1 {
                        Stats::add(&stats.gso_packets, sent as u64);
                    }
                    sent
                }
                Err(error) => {
                    let verdict = self.judge(error, run > 1, rest, stats);
                    tries += 1;
                    match verdict {
                        Verdict::NotWithGso => 0,
                        Verdict::Again if tries <= 2 => 0,
                        _ => {
                            Stats::add(&stats.dropped, 1);
                            1
                        }
                    }
                }
            };
            if done > 0 {
                tries = 0;
            }
            rest = rest.get(done..).unwrap_or_default();
        }
        stats.gso.store(self.gso, Relaxed);
    }

    /// All packets as the segments of one; tells how many were sent.
    fn send_segments(&self, packets: &[Packet<'_>]) -> Result<usize, Errno> {
        let parts: Vec<IoSlice<'_>> = packets.iter().flat_map(|packet| packet.parts).copied().collect();
        let segment = packets.first().and_then(|packet| u16::try_from(packet.len).ok()).unwrap_or(0);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let to = self.addresses.first().and_then(Option::as_ref);
        sendmsg(self.opened.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), to)?;
        Ok(packets.len())
    }

    /// Packets of any length; tells how many were sent.
    fn send_batch(&self, packets: &[Packet<'_>]) -> Result<usize, Errno> {
        let fd = self.opened.socket.as_raw_fd();
        if let [only] = packets {
            let to = self.addresses.first().and_then(Option::as_ref);
            return sendmsg(fd, only.parts, &[], MsgFlags::empty(), to).map(|_| 1);
        }
        // Made anew each time, because it holds pointers and so may not stay with the element.
        let mut headers = MultiHeaders::preallocate(packets.len(), None);
        let results = sendmmsg(fd, &mut headers, packets, &self.addresses, [], MsgFlags::empty())?;
        Ok(results.count())
    }

    fn judge(&mut self, error: Errno, with_gso: bool, rest: &[Packet<'_>], stats: &Stats) -> Verdict {
        match error {
            Errno::EINTR => Verdict::Again,
            // What ICMP said of an earlier packet; reported once, and this call did nothing.
            Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN
                if self.opened.connected =>
            {
                Stats::add(&stats.icmp_errors, 1);
                if error != Errno::ECONNREFUSED {
                    self.reconnect();
                }
                Verdict::Again
            }
            // The segments are longer than the path's MTU; whole, they may be sent in fragments.
            Errno::EINVAL | Errno::EMSGSIZE if with_gso => {
                self.gso_limit = rest.first().map_or(self.gso_limit, |packet| packet.len);
                Verdict::NotWithGso
            }
            // The network card, or its driver, cannot.
            Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT if with_gso => {
                self.gso = false;
                Verdict::NotWithGso
            }
            _ => {
                Stats::add(&stats.send_errors, 1);
                self.reconnect();
                Verdict::Drop
            }
        }
    }

    /// Lets the kernel choose route and source address anew: this machine's own address may have changed.
    fn reconnect(&mut self) {
        let now = Instant::now();
        if self.opened.connected && self.reconnected.is_none_or(|last| now - last >= RECONNECT) {
            self.reconnected = Some(now);
            // If there is no route, the next send says so.
            let _ = self.opened.socket.connect(&self.opened.to.into());
        }
    }
}

/// How many packets from the first on can be segments of one: all equally long, the last one maybe shorter.
fn gso_run(packets: &[Packet<'_>], limit: usize) -> usize {
    let Some(first) = packets.first().filter(|packet| packet.len > 0 && packet.len < limit) else { return 1 };
    let (mut count, mut bytes, mut parts) = (0, 0, 0);
    for packet in packets.iter().take(MAX_BATCH) {
        bytes += packet.len;
        parts += packet.parts.len();
        if packet.len > first.len || packet.len == 0 || bytes > MAX_GSO_BYTES || parts > MAX_PARTS {
            break;
        }
        count += 1;
        if packet.len < first.len {
            break;
        }
    }
    count.max(1)
}

/// How many packets from the first on are better sent one by one in one call: until a run begins that is worth a
/// call of its own.
fn plain_batch(packets: &[Packet<'_>], gso: bool, limit: usize) -> usize {
    let most = packets.len().min(MAX_BATCH);
    if !gso {
        return most;
    }
    let worth = |at: usize| packets.get(at..).is_some_and(|rest| gso_run(rest, limit) > 3);
    (1..most).find(|&at| worth(at)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lengths: &[usize], limit: usize) -> usize {
        let data = vec![0; 70_000];
        let parts: Vec<_> = lengths.iter().map(|&len| [IoSlice::new(&data[..len])]).collect();
        let packets: Vec<_> = parts.iter().zip(lengths).map(|(parts, &len)| Packet { parts, len }).collect();
        gso_run(&packets, limit)
    }

    #[test]
    fn runs_of_equal_length_with_a_shorter_end() {
        assert_eq!(run(&[100, 100, 100], 1000), 3);
        assert_eq!(run(&[100, 100, 40, 40], 1000), 3);
        assert_eq!(run(&[100, 101], 1000), 1);
        assert_eq!(run(&[100, 100, 0], 1000), 2);
        assert_eq!(run(&[0, 0], 1000), 1);
        assert_eq!(run(&[100, 100], 100), 1, "refused before");
        assert_eq!(run(&[], 100), 1);
    }

    #[test]
    fn runs_end_at_the_limits_of_the_kernel() {
        assert_eq!(run(&[100; 200], 1000), 64);
        assert_eq!(run(&[1400; 64], 9000), 46, "65487 bytes at most");
        assert_eq!(run(&[65_000; 2], usize::MAX), 1);
    }

    #[test]
    fn unequal_packets_share_a_call_until_a_run_begins() {
        let data = vec![0; 2000];
        let lengths = [9, 10, 11, 50, 50, 50, 50, 50];
        let parts: Vec<_> = lengths.iter().map(|&len| [IoSlice::new(&data[..len])]).collect();
        let packets: Vec<_> = parts.iter().zip(lengths).map(|(parts, len)| Packet { parts, len }).collect();
        assert_eq!(plain_batch(&packets, true, 1000), 3);
        assert_eq!(plain_batch(&packets, false, 1000), 8);
    }
}
