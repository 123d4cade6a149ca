// SPDX-License-Identifier: MIT OR Apache-2.0

//! RTCP (RFC 3550 §6): sender reports out, receivers' reports in.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use socket2::SockRef;

use crate::clock::ntp;
use crate::config::Camera;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// SDES item.
const CNAME: u8 = 1;
/// Bytes of a report block.
const BLOCK_LEN: usize = 24;
const LONGEST: usize = 1500;
/// Packets read in one go, so that nobody can keep the thread busy.
const AT_ONCE: usize = 64;

/// What a sender report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream.
    pub ssrc: u32,
    /// Wall time since 1970, ns.
    pub wall: u64,
    /// RTP timestamp of the same moment.
    pub rtp: u32,
    /// Sent so far.
    pub packets: u32,
    /// Payload sent so far, bytes.
    pub octets: u32,
}

/// What a receiver says of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Lost since the report before, in 256ths.
    pub fraction_lost: u8,
    /// Lost since the beginning; duplicates make it smaller, even negative.
    pub lost: i32,
    /// Of the arrival times, in RTP ticks.
    pub jitter: u32,
    /// There and back again, if the receiver has seen a sender report.
    pub round_trip: Option<Duration>,
}

impl SenderReport {
    /// A compound packet: the report, who we are, and goodbye if the stream is over.
    pub fn packet(&self, cname: &str, goodbye: bool) -> Vec<u8> {
        let mut out = vec![0x80, SENDER_REPORT, 0, 6];
        out.extend(self.ssrc.to_be_bytes());
        out.extend(ntp(self.wall).to_be_bytes());
        for word in [self.rtp, self.packets, self.octets] {
            out.extend(word.to_be_bytes());
        }
        let cname: Vec<u8> = cname.bytes().take(255).collect();
        let mut item = self.ssrc.to_be_bytes().to_vec();
        item.extend([CNAME, u8::try_from(cname.len()).unwrap_or(u8::MAX)]);
        item.extend(cname);
        // The list of items ends with one to four zeros.
        item.resize((item.len() / 4 + 1) * 4, 0);
        out.extend([0x81, SOURCE_DESCRIPTION]);
        out.extend(u16::try_from(item.len() / 4).unwrap_or_default().to_be_bytes());
        out.extend(item);
        if goodbye {
            out.extend([0x81, GOODBYE, 0, 1]);
            out.extend(self.ssrc.to_be_bytes());
        }
        out
    }
}

/// What receivers say of a stream, in a compound packet that came at `wall` (ns since 1970).
pub fn receptions(mut packet: &[u8], ssrc: u32, wall: u64) -> Vec<Reception> {
    let mut found = Vec::new();
    while let Some((&[first, kind, high, low], _)) = packet.split_first_chunk::<4>() {
        let len = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let (Some(body), true) = (packet.get(4..len), first >> 6 == 2) else { break };
        // Behind the reporter's SSRC, and what a sender reports of itself.
        let skip = match kind {
            SENDER_REPORT => 24,
            RECEIVER_REPORT => 4,
            _ => usize::MAX,
        };
        let blocks = body.get(skip..).unwrap_or_default();
        let count = usize::from(first & 0x1f);
        found.extend(
            blocks.chunks_exact(BLOCK_LEN).take(count).filter_map(|block| reception(block, ssrc, wall)),
        );
        packet = packet.get(len..).unwrap_or_default();
    }
    found
}

fn reception(block: &[u8], ssrc: u32, wall: u64) -> Option<Reception> {
    let word =
        |index: usize| block.get(index * 4..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    if word(0)? != ssrc {
        return None;
    }
    let losses = word(1)?;
    let (last_report, delay) = (word(4)?, word(5)?);
    // In 65536ths of a second; the middle half of an NTP timestamp is counted so, too.
    let now = u32::try_from((ntp(wall) >> 16) & u64::from(u32::MAX)).ok()?;
    let round_trip = now.wrapping_sub(last_report).wrapping_sub(delay);
    // A clock that was set, or nonsense, gives hours.
    let sane = last_report != 0 && round_trip < 60 << 16;
    Some(Reception {
        fraction_lost: u8::try_from(losses >> 24).ok()?,
        // 24 bits with sign.
        lost: (losses << 8).cast_signed() >> 8,
        jitter: word(3)?,
        round_trip: sane.then(|| Duration::from_nanos((u64::from(round_trip) * 1_000_000_000) >> 16)),
    })
}

/// Where RTCP goes out, and receivers' reports come in.
#[derive(Debug)]
pub struct RtcpSocket {
    socket: UdpSocket,
    to: SocketAddr,
}

impl RtcpSocket {
    /// A socket to the port behind the camera's.
    ///
    /// # Errors
    /// The host is unknown, or the system has no socket.
    pub fn open(camera: &Camera) -> io::Result<Self> {
        let to = (camera.dest_host.as_str(), camera.rtcp_port())
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the host has no address"))?;
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        let options = SockRef::from(&socket);
        let hops = u32::from(camera.multicast_ttl);
        let tos = camera.dscp.map(|dscp| u32::from(dscp) << 2);
        if to.is_ipv4() {
            options.set_multicast_ttl_v4(hops)?;
            tos.map_or(Ok(()), |tos| options.set_tos_v4(tos))?;
        } else {
            options.set_multicast_hops_v6(hops)?;
            tos.map_or(Ok(()), |tos| options.set_tclass_v6(tos))?;
        }
        Ok(Self { socket, to })
    }

    /// Sends a packet; what the network says of it is of no interest.
    pub fn send(&self, packet: &[u8]) {
        if let Err(error) = self.socket.send_to(packet, self.to) {
            tracing::debug!("RTCP to {}: {error}", self.to);
        }
    }

    /// What has come in of receivers' reports.
    pub fn receive(&self, ssrc: u32, wall: u64) -> Vec<Reception> {
        let mut buffer = [0; LONGEST];
        let mut found = Vec::new();
        for _ in 0..AT_ONCE {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, _)) => found.extend(receptions(buffer.get(..len).unwrap_or_default(), ssrc, wall)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP message of what was sent before.
                Err(_) => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: SenderReport =
        SenderReport { ssrc: 0xDEAD_BEEF, wall: 1_500_000_000, rtp: 7, packets: 3, octets: 4000 };

    #[test]
    fn a_sender_report_as_the_rfc_draws_it() {
        let packet = REPORT.packet("abc@d", false);
        assert_eq!(packet[..4], [0x80, 200, 0, 6]);
        assert_eq!(packet[4..8], [0xDE, 0xAD, 0xBE, 0xEF]);
        assert_eq!(packet[8..12], (2_208_988_801u32).to_be_bytes());
        assert_eq!(packet[12..16], [0x80, 0, 0, 0]);
        assert_eq!(packet[16..28], [0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0x0f, 0xa0]);
        assert_eq!(packet[28..], *b"\x81\xca\0\x03\xde\xad\xbe\xef\x01\x05abc@d\0");
        for len in 0..9 {
            assert_eq!(REPORT.packet(&"x".repeat(len), true).len() % 4, 0);
        }
        assert!(REPORT.packet("x", true).ends_with(&[0x81, 203, 0, 1, 0xDE, 0xAD, 0xBE, 0xEF]));
        assert!(REPORT.packet(&"x".repeat(1000), false).len() < 400);
    }

    fn block(ssrc: u32, losses: u32, last_report: u32, delay: u32) -> Vec<u8> {
        [ssrc, losses, 0, 90, last_report, delay].iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn receivers_reports() {
        // What we said at 10 s, answered half a second later, comes back another quarter later.
        let said = u32::try_from(ntp(10_000_000_000) >> 16 & 0xffff_ffff).unwrap();
        let mut packet = vec![0x82, 201, 0, 13, 0, 0, 0, 9];
        packet.extend(block(1, 0, 0, 0));
        packet.extend(block(0xDEAD_BEEF, 0x40ff_ffff, said, 32768));
        packet.extend(*b"\x81\xca\0\x02\0\0\0\x09\x01\x01x\0");
        let found = receptions(&packet, 0xDEAD_BEEF, 10_750_000_000);
        let expected = Reception {
            fraction_lost: 64,
            lost: -1,
            jitter: 90,
            round_trip: Some(Duration::from_millis(250)),
        };
        assert_eq!(found, [expected]);
        // In a sender's report, too.
        let mut packet = vec![0x81, 200, 0, 12];
        packet.extend([0; 24]);
        packet.extend(block(5, 3, 0, 0));
        assert_eq!(receptions(&packet, 5, 0), [Reception { lost: 3, jitter: 90, ..Default::default() }]);
    }

    #[test]
    fn nonsense_is_no_report() {
        let mut packet = vec![0x82, 201, 0, 13, 0, 0, 0, 9];
        packet.extend(block(5, 0, 0, 0));
        packet.extend(block(5, 0, 1, 0));
        assert_eq!(receptions(&packet, 5, 0).len(), 2);
        assert!(receptions(&packet, 5, 0).iter().all(|reception| reception.round_trip.is_none()));
        for len in 0..packet.len() {
            assert!(receptions(&packet[..len], 5, 0).is_empty(), "{len}");
        }
        assert!(receptions(&[0xff; 200], u32::MAX, 0).is_empty());
        // A length of 0 words is a header alone; it must not be read for ever.
        assert!(receptions(&[0x80, 204, 0, 0, 0x80, 204, 0, 0], 5, 0).is_empty());
    }
}
