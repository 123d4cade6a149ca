// SPDX-License-Identifier: MIT OR Apache-2.0

//! Figures of single RTP streams: what the server's receiver reports say of them, and how long their packets wait.
//!
//! str0m gives its statistics every [`crate::congestion::SAMPLE_INTERVAL`] and forgets a loss once it has told it, while receiver
//! reports come about once a second and we report twice a second. So what was said last is kept here.

use std::collections::HashMap;
use std::time::Duration;

use str0m::media::{Mid, Rid};
use str0m::stats::MediaEgressStats;

use super::WebRtcEngine;
use crate::engine::{EngineEvent, EngineTrackStats};
use crate::event::TrackId;

/// A receiver report counts lost packets in 24 bits with a sign (RFC 3550 §6.4.1); more came than were sent if it is set.
const LOST_SIGN: u64 = 1 << 23;

/// What is known of the streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Figures {
    streams: HashMap<(TrackId, usize), Stream>,
    /// What left by the SSRCs of these streams, and of their retransmissions. str0m tells both as one sum only.
    sent: HashMap<u32, Sent>,
}

/// Datagrams of one SSRC, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
}

/// One stream's.
#[derive(Debug, Default)]
struct Stream {
    /// Its SSRC, and that of its retransmissions (RFC 4588 §4).
    ssrc: Option<u32>,
    rtx: Option<u32>,
    rtt: Option<Duration>,
    jitter: Option<Duration>,
    loss: Option<f32>,
    lost: u64,
    /// The longest that a packet was seen to wait since the last report.
    waited: Duration,
}

impl Figures {
    /// A track is gone.
    pub(super) fn forget(&mut self, track: TrackId) {
        for (_, stream) in self.streams.extract_if(|(of, _), _| *of == track) {
            for ssrc in stream.ssrc.into_iter().chain(stream.rtx) {
                self.sent.remove(&ssrc);
            }
        }
    }

    /// What leaves by these SSRCs belongs to this stream from now on.
    fn know(&mut self, track: TrackId, layer: usize, ssrc: u32, rtx: Option<u32>) {
        let stream = self.streams.entry((track, layer)).or_default();
        (stream.ssrc, stream.rtx) = (Some(ssrc), rtx);
        for ssrc in [ssrc].into_iter().chain(rtx) {
            self.sent.entry(ssrc).or_default();
        }
    }

    /// A datagram leaves. The header of an RTP packet can be read though its payload is encrypted (RFC 3711 §3.1).
    pub(super) fn leaves(&mut self, datagram: &[u8]) {
        if let Some(sent) = ssrc(datagram).and_then(|ssrc| self.sent.get_mut(&ssrc)) {
            sent.packets += 1;
            sent.bytes += datagram.len() as u64;
        }
    }

    fn sent(&self, ssrc: Option<u32>) -> Sent {
        ssrc.and_then(|ssrc| self.sent.get(&ssrc)).copied().unwrap_or_default()
    }
}

/// The SSRC of an RTP packet (RFC 3550 §5.1); `None` = it is something else (RFC 7983 §7, RFC 5761 §4).
fn ssrc(datagram: &[u8]) -> Option<u32> {
    let header = datagram.first_chunk::<12>()?;
    let [first, second, .., a, b, c, d] = *header;
    let is_rtp = (128..192).contains(&first) && !(192..224).contains(&second);
    is_rtp.then(|| u32::from_be_bytes([a, b, c, d]))
}

impl Stream {
    /// Takes what str0m says now. Jitter is counted in the ticks of a clock of this rate, in Hz.
    fn note(&mut self, stats: &MediaEgressStats, waits: Duration, clock_rate: u32) {
        self.rtt = stats.rtt.or(self.rtt);
        self.loss = stats.loss.or(self.loss);
        if let Some(remote) = &stats.remote {
            let nanos = u64::from(remote.jitter) * 1_000_000_000 / u64::from(clock_rate.max(1));
            self.jitter = Some(Duration::from_nanos(nanos));
            self.lost = if remote.packets_lost & LOST_SIGN == 0 { remote.packets_lost } else { 0 };
        }
        self.waited = self.waited.max(waits);
    }

    /// What is reported. The next report begins anew with how long packets wait.
    fn report(&mut self, stats: &MediaEgressStats, queued_bytes: u64) -> EngineTrackStats {
        EngineTrackStats {
            packets: stats.packets,
            pli: stats.plis,
            fir: stats.firs,
            nack: stats.nacks,
            rtt: self.rtt,
            jitter: self.jitter,
            loss: self.loss,
            lost: self.lost,
            queued_bytes,
            queue_time: std::mem::take(&mut self.waited),
            ..EngineTrackStats::default()
        }
    }
}

impl WebRtcEngine {
    /// str0m's statistics of one stream.
    pub(super) fn on_stream_stats(&mut self, stats: &MediaEgressStats) {
        let Some((track, layer)) = self.publications.by_stream(stats.mid, stats.rid) else { return };
        let Some(publication) = self.publications.get_mut(track) else { return };
        let clock_rate = publication.config.codec.clock_rate();
        let waits = self.stream_age(stats.mid, stats.rid);
        let queued_bytes = self.stream_bytes(stats.mid, stats.rid);
        let stream = self.figures.streams.entry((track, layer)).or_default();
        stream.note(stats, waits, clock_rate);
        if self.bandwidth.report_tracks {
            let (ssrc, rtx) = (stream.ssrc, stream.rtx);
            let mut stats = stream.report(stats, queued_bytes);
            let (media, again) = (self.figures.sent(ssrc), self.figures.sent(rtx));
            if ssrc.is_some() {
                // str0m counts what was asked for, but not what it repeats to see what the network carries.
                stats.retransmits = stats.packets.saturating_sub(media.packets);
            }
            (stats.rtx_packets, stats.rtx_bytes) = (again.packets, again.bytes);
            self.events.push_back(EngineEvent::TrackStats { track, layer, stats });
        }
    }

    /// The streams that an answer agreed to: their packets are counted from now on.
    pub(super) fn count_streams(&mut self) {
        let streams: Vec<_> = self.publications.streams().collect();
        for (mid, rid) in streams {
            let Some((track, layer)) = self.publications.by_stream(mid, rid) else { continue };
            let mut direct = self.rtc.direct_api();
            let Some(stream) = direct.stream_tx_by_mid(mid, rid) else { continue };
            let (ssrc, rtx) = (*stream.ssrc(), stream.rtx().map(|rtx| *rtx));
            self.figures.know(track, layer, ssrc, rtx);
        }
    }

    /// Bytes of a stream that wait to be sent.
    pub(super) fn stream_bytes(&mut self, mid: Mid, rid: Option<Rid>) -> u64 {
        let mut direct = self.rtc.direct_api();
        let queue = direct.stream_tx_by_mid(mid, rid).and_then(|s| s.queue_info());
        queue.map_or(0, |q| q.byte_size() as u64)
    }

    /// How long the oldest packet of a stream has been waiting to be sent.
    pub(super) fn stream_age(&mut self, mid: Mid, rid: Option<Rid>) -> Duration {
        let mut direct = self.rtc.direct_api();
        let queue = direct.stream_tx_by_mid(mid, rid).and_then(|s| s.queue_info());
        queue.and_then(|q| q.first_unsent()).map(|since| since.elapsed()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use str0m::stats::RemoteIngressStats;

    const MS: Duration = Duration::from_millis(1);

    fn stats(loss: Option<f32>, report: Option<(u32, u64)>) -> MediaEgressStats {
        MediaEgressStats {
            mid: "0".into(),
            rid: None,
            bytes: 1000,
            packets: 10,
            firs: 1,
            plis: 2,
            nacks: 3,
            rtt: loss.map(|_| 30 * MS),
            loss,
            timestamp: Instant::now(),
            remote: report.map(|(jitter, packets_lost)| RemoteIngressStats {
                jitter,
                maximum_sequence_number: 9.into(),
                packets_lost,
            }),
        }
    }

    #[test]
    fn what_a_report_said_is_kept_until_the_next_one() {
        let mut stream = Stream::default();
        stream.note(&stats(None, None), Duration::ZERO, 90_000);
        let unknown = stream.report(&stats(None, None), 0);
        assert_eq!((unknown.rtt, unknown.jitter, unknown.loss, unknown.lost), (None, None, None, 0));
        // Told once by str0m, between two of our reports.
        stream.note(&stats(Some(0.25), Some((900, 4))), 3 * MS, 90_000);
        stream.note(&stats(None, Some((900, 4))), MS, 90_000);
        for waited in [3 * MS, Duration::ZERO] {
            let told = stream.report(&stats(None, Some((900, 4))), 77);
            assert_eq!((told.rtt, told.jitter), (Some(30 * MS), Some(10 * MS)));
            assert_eq!((told.loss, told.lost), (Some(0.25), 4));
            assert_eq!((told.packets, told.pli, told.fir, told.nack), (10, 2, 1, 3));
            assert_eq!((told.queued_bytes, told.queue_time), (77, waited), "the longest, and then anew");
        }
    }

    #[test]
    fn jitter_counts_in_the_codecs_clock_and_doubled_packets_are_none_lost() {
        let mut stream = Stream::default();
        stream.note(&stats(None, Some((480, (1 << 24) - 2))), Duration::ZERO, 48_000);
        let told = stream.report(&stats(None, None), 0);
        assert_eq!((told.jitter, told.lost), (Some(10 * MS), 0));
        stream.note(&stats(None, Some((u32::MAX, 5))), Duration::ZERO, 0);
        assert_eq!(stream.report(&stats(None, None), 0).lost, 5, "an absurd one is survived");
    }

    #[test]
    fn a_track_that_is_gone_leaves_nothing_behind() {
        let mut figures = Figures::default();
        for (track, layer) in [(1, 0), (1, 1), (2, 0)] {
            let ssrc = 10 * track as u32 + layer as u32;
            figures.know(TrackId(track), layer, ssrc, Some(1000 + ssrc));
        }
        figures.forget(TrackId(1));
        assert_eq!(figures.streams.keys().collect::<Vec<_>>(), [&(TrackId(2), 0)]);
        let mut left: Vec<_> = figures.sent.keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left, [20, 1020]);
    }

    #[test]
    fn packets_are_counted_by_the_stream_that_they_belong_to() {
        let mut figures = Figures::default();
        figures.know(TrackId(1), 0, 0x0102_0304, Some(0x0506_0708));
        let packet = |first: u8, second: u8, ssrc: u32, length: usize| {
            let mut packet = vec![0; length];
            (packet[0], packet[1]) = (first, second);
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            packet
        };
        let counts = |figures: &Figures| {
            let of = |ssrc| (figures.sent(Some(ssrc)).packets, figures.sent(Some(ssrc)).bytes);
            [of(0x0102_0304), of(0x0506_0708)]
        };
        figures.leaves(&packet(0x80, 96, 0x0102_0304, 100));
        figures.leaves(&packet(0x90, 0x80 | 96, 0x0102_0304, 50));
        figures.leaves(&packet(0xb0, 97, 0x0506_0708, 30));
        assert_eq!(counts(&figures), [(2, 150), (1, 30)]);
        // STUN, DTLS, a sender report, a stream of somebody else, and what is too short.
        for (first, second, ssrc) in
            [(0, 1, 0x0102_0304), (22, 254, 0x0102_0304), (0x80, 200, 0x0102_0304), (0x80, 96, 9)]
        {
            figures.leaves(&packet(first, second, ssrc, 100));
        }
        figures.leaves(&packet(0x80, 96, 0x0102_0304, 12)[..11]);
        figures.leaves(&[]);
        assert_eq!(counts(&figures), [(2, 150), (1, 30)]);
        assert_eq!(figures.sent(None).packets, 0, "a stream without retransmissions");
        // Another answer names the same streams.
        figures.know(TrackId(1), 0, 0x0102_0304, Some(0x0506_0708));
        assert_eq!(counts(&figures), [(2, 150), (1, 30)]);
    }
}
