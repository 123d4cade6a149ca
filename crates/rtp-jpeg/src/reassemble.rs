// SPDX-License-Identifier: MIT OR Apache-2.0

//! Puts received packets together to JPEG pictures, and notices every loss.

use core::ops::Range;

use crate::conceal::{Concealer, Part};
use crate::header::{Field, MAX_SCAN_LEN, MainHeader, RestartHeader, Sampling};
use crate::payload::{PacketError, Payload, dimensions};
use crate::quant::Tables;
use crate::rebuild::{MAX_HEADER, Picture, header};

/// Tables remembered for Q 128 to 254, over all senders; the one unused for longest goes first.
const MAX_CACHED_TABLES: usize = 256;
/// Packets older than the last frame by up to this many are late; by more, the sender started anew.
const LATE_WINDOW: u16 = 1000;
/// Sequence numbers are compared by halves of their range.
const MAX_PACKETS: usize = 1 << 15;

/// One received RTP packet, as far as reassembly needs it.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// RTP timestamp: the same in all packets of a frame.
    pub timestamp: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Marker bit: set in a frame's last packet.
    pub marker: bool,
    /// The payload, without RTP header, extensions and padding.
    pub payload: &'a [u8],
}

/// How a [`Reassembler`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReassemblerConfig {
    /// Picture size from the session description or caps (`x-dimensions`). Needed over 2040 pixels; below, it
    /// gives the exact size where the header rounds up to 8.
    pub dimensions: Option<(u16, u16)>,
    /// Most bytes of scan in a frame; at most (and by default) 16 MiB.
    pub max_frame: usize,
    /// Give out frames with losses, too, where aligned restart intervals allow it: lost intervals are patched
    /// from the frame before, or with grey. Such frames say so in [`FrameInfo::concealed`].
    pub conceal: bool,
}

impl Default for ReassemblerConfig {
    fn default() -> Self {
        Self { dimensions: None, max_frame: MAX_SCAN_LEN, conceal: false }
    }
}

/// Why a frame was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossReason {
    /// Packets are missing.
    #[error("packets are missing")]
    Incomplete,
    /// The sender refers to quantisation tables that have not been received.
    #[error("the quantisation tables of Q {0} were sent before reception began; they should come again soon")]
    UnknownTables(u8),
    /// Packets of the frame contradict each other.
    #[error("the packets of the frame contradict each other")]
    Inconsistent,
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameInfo {
    /// Sender.
    pub ssrc: u32,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Packets used.
    pub packets: usize,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels; of the field, if this is one.
    pub height: u16,
    /// Chroma subsampling.
    pub sampling: Sampling,
    /// Progressive, or which field.
    pub field: Field,
    /// Q value.
    pub q: u8,
    /// Minimum coded units between restart markers; 0 = none.
    pub restart_interval: u16,
    /// Restart intervals that were lost and patched; 0 = the frame is as sent.
    pub concealed: u32,
}

/// A frame that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Sender.
    pub ssrc: u32,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Packets received of it.
    pub packets: usize,
    /// Why.
    pub reason: LossReason,
}

/// A whole JPEG picture in the reassembler's buffer.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut Vec<u8>,
    range: Range<usize>,
    info: FrameInfo,
}

impl Frame<'_> {
    /// The picture, SOI to EOI.
    pub fn data(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }

    /// What is known of it.
    pub const fn info(&self) -> &FrameInfo {
        &self.info
    }

    /// Exchanges the buffer that holds the picture for `other`, so that the picture need not be copied, and
    /// tells where in the buffer it stands. What `other` held is lost; its capacity serves the next frames.
    pub fn swap(self, other: &mut Vec<u8>) -> Range<usize> {
        core::mem::swap(self.buffer, other);
        other.truncate(self.range.end);
        self.range
    }
}

/// A frame that is done, one way or the other.
#[derive(Debug)]
pub enum Event<'a> {
    /// A picture.
    Frame(Frame<'a>),
    /// A frame of which no picture could be made.
    Lost(Loss),
}

/// At most two events: the frame before, which a packet of the next one ends, and the packet's own.
#[derive(Debug, Default)]
pub struct Events<'a> {
    before: Option<Event<'a>>,
    own: Option<Event<'a>>,
}

impl Events<'_> {
    /// Whether no frame is done, which is so for nearly every packet.
    pub const fn is_empty(&self) -> bool {
        self.before.is_none() && self.own.is_none()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        self.before.take().or_else(|| self.own.take())
    }
}

/// A frame of which packets have come in.
#[derive(Clone, Copy, Debug)]
struct Current {
    ssrc: u32,
    timestamp: u32,
    main: MainHeader,
    sampling: Sampling,
    interval: u16,
    size: (u16, u16),
    oldest: u16,
    newest: u16,
    first: Option<u16>,
    marker: Option<u16>,
    failed: Option<LossReason>,
}

struct Cached {
    ssrc: u32,
    q: u8,
    tables: Tables,
    used: u64,
}

/// What became of a frame, with the place of the picture in its buffer.
enum Done {
    Frame(Range<usize>, FrameInfo),
    Lost(Loss),
}

/// Reassembles the packets of one RTP session.
///
/// Packets of a frame may come in any order. Packets of different frames should not: put a jitter buffer in
/// front where the network reorders. Allocates only while its buffers grow to the size of the stream's frames.
pub struct Reassembler {
    config: ReassemblerConfig,
    current: Option<Current>,
    /// Tables of the frame under way; apart from it, because it is moved for each packet.
    tables: Option<Tables>,
    /// Sender and newest sequence number of the last frame that is done.
    done: Option<(u32, u16)>,
    /// The scan at `MAX_HEADER`; the header segments are put right before it in the end.
    buffer: Vec<u8>,
    parts: Vec<Part>,
    /// One bit per sequence number: received for the current frame.
    seen: Vec<u64>,
    cache: Vec<Cached>,
    clock: u64,
    concealer: Concealer,
}

impl Reassembler {
    /// A reassembler that has received nothing yet.
    pub fn new(config: ReassemblerConfig) -> Self {
        Self {
            config,
            current: None,
            tables: None,
            done: None,
            buffer: vec![0; MAX_HEADER],
            parts: Vec::new(),
            seen: vec![0; (1 << 16) / 64],
            cache: Vec::new(),
            clock: 0,
            concealer: Concealer::default(),
        }
    }

    /// Changes the configuration from the next frame on.
    pub fn set_config(&mut self, config: ReassemblerConfig) {
        self.config = config;
    }

    /// Forgets the frame under way and all that was received before, tables included.
    pub fn reset(&mut self) {
        self.clear_parts();
        (self.current, self.tables, self.done) = (None, None, None);
        self.cache.clear();
        self.concealer.forget();
    }

    /// Takes one packet. A packet that is refused changes nothing.
    pub fn push(&mut self, packet: &RtpPacket<'_>) -> Result<Events<'_>, PacketError> {
        let payload = Payload::parse(packet.payload, self.config.max_frame)?;
        let size = dimensions(&payload.main, self.config.dimensions).ok_or(PacketError::UnknownSize)?;
        let ends_current = self.place(packet)?;
        let before = if ends_current { self.close(false) } else { None };
        let mut current = self.current.take().unwrap_or_else(|| new_frame(packet, &payload, size));
        let complete = self.accept(&mut current, packet, &payload);
        self.current = Some(current);
        let own = if complete { self.close(true) } else { None };
        // A frame that the next one cuts off is patched or lost, a complete one is whole or lost: the two
        // events never share a buffer.
        Ok(Events {
            before: before.map(|done| event(done, &mut self.concealer.output)),
            own: own.map(|done| event(done, &mut self.buffer)),
        })
    }

    /// Ends the frame under way, for instance at the end of the stream, or after a packet with the marker when
    /// a jitter buffer guarantees that nothing late can follow.
    pub fn flush(&mut self) -> Events<'_> {
        let own = self.close(false);
        Events { before: None, own: own.map(|done| event(done, &mut self.concealer.output)) }
    }

    /// Where a packet belongs: whether it ends the frame under way, or is late or a duplicate.
    fn place(&self, packet: &RtpPacket<'_>) -> Result<bool, PacketError> {
        if let Some((ssrc, newest)) = self.done
            && ssrc == packet.ssrc
            && newest.wrapping_sub(packet.sequence) < LATE_WINDOW
        {
            return Err(PacketError::Late);
        }
        let Some(current) = &self.current else { return Ok(false) };
        if current.ssrc != packet.ssrc {
            return Ok(true);
        }
        let behind = current.newest.wrapping_sub(packet.sequence) < LATE_WINDOW;
        if current.timestamp != packet.timestamp {
            return if behind { Err(PacketError::Late) } else { Ok(true) };
        }
        if self.is_seen(packet.sequence) {
            return Err(PacketError::Duplicate);
        }
        // Two fields may share a timestamp: what follows the marker is another frame.
        Ok(current.marker.is_some_and(|marker| is_newer(packet.sequence, marker)))
    }

    /// Adds a packet to the frame; true when the frame has all its packets.
    fn accept(&mut self, current: &mut Current, packet: &RtpPacket<'_>, payload: &Payload<'_>) -> bool {
        let sequence = packet.sequence;
        if is_newer(sequence, current.newest) {
            current.newest = sequence;
        }
        if is_newer(current.oldest, sequence) {
            current.oldest = sequence;
        }
        if packet.marker {
            if current.marker.is_some() {
                current.failed = Some(LossReason::Inconsistent);
            }
            current.marker = Some(sequence);
        }
        let same = MainHeader { offset: current.main.offset, ..payload.main } == current.main
            && payload.interval() == current.interval;
        if !same || self.parts.len() >= MAX_PACKETS {
            current.failed = Some(LossReason::Inconsistent);
        }
        if payload.main.offset == 0 {
            if current.first.is_none_or(|first| is_newer(first, sequence)) {
                current.first = Some(sequence);
            }
            self.take_tables(current, payload);
        }
        self.mark_seen(sequence);
        self.parts.push(Part {
            sequence,
            offset: payload.main.offset as usize,
            length: payload.scan.len(),
            restart: payload.restart,
        });
        if current.failed.is_none() {
            self.store(payload);
        }
        match (current.first, current.marker) {
            (Some(first), Some(marker)) => self.parts.len() == usize::from(marker.wrapping_sub(first)) + 1,
            _ => false,
        }
    }

    fn store(&mut self, payload: &Payload<'_>) {
        let start = MAX_HEADER + payload.main.offset as usize;
        let end = start + payload.scan.len();
        if self.buffer.len() == start {
            // The usual case, and the one that need not fill with zeros first.
            self.buffer.extend_from_slice(payload.scan);
            return;
        }
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        if let Some(room) = self.buffer.get_mut(start..end) {
            room.copy_from_slice(payload.scan);
        }
    }

    /// Tables of Q 128 to 254 hold for the session (RFC 2435 §3.1.8); those of 255 for their frame.
    fn take_tables(&mut self, current: &mut Current, payload: &Payload<'_>) {
        let q = payload.main.q;
        match payload.tables {
            Some(Some(wire)) => {
                self.tables = wire.read();
                if let Some(tables) = self.tables.filter(|_| q != 255) {
                    self.remember(current.ssrc, q, tables);
                }
            }
            Some(None) => match self.recall(current.ssrc, q) {
                Some(tables) => self.tables = Some(tables),
                None => current.failed = Some(LossReason::UnknownTables(q)),
            },
            None => {}
        }
    }

    fn recall(&mut self, ssrc: u32, q: u8) -> Option<Tables> {
        self.clock += 1;
        let found = self.cache.iter_mut().find(|cached| (cached.ssrc, cached.q) == (ssrc, q))?;
        found.used = self.clock;
        Some(found.tables)
    }

    fn remember(&mut self, ssrc: u32, q: u8, tables: Tables) {
        self.clock += 1;
        let used = self.clock;
        if let Some(found) = self.cache.iter_mut().find(|cached| (cached.ssrc, cached.q) == (ssrc, q)) {
            (found.tables, found.used) = (tables, used);
            return;
        }
        if self.cache.len() >= MAX_CACHED_TABLES
            && let Some(oldest) = (0..self.cache.len()).min_by_key(|&at| self.cache.get(at).map(|c| c.used))
        {
            self.cache.swap_remove(oldest);
        }
        self.cache.push(Cached { ssrc, q, tables, used });
    }

    /// Ends the frame under way: it is made whole if it is complete, else patched.
    fn close(&mut self, complete: bool) -> Option<Done> {
        let current = self.current.take()?;
        self.done = Some((current.ssrc, current.newest));
        let packets = self.parts.len();
        // Without the first packet: by Q alone, or as sent before.
        let tables = self.tables.take().or_else(|| match current.main.q {
            q @ ..128 => Tables::for_q(q),
            255 => None,
            q => self.recall(current.ssrc, q),
        });
        let ordered = self.sort_parts(&current);
        let done = match (current.failed, tables) {
            (Some(reason), _) => Err(reason),
            (None, _) if !ordered => Err(LossReason::Inconsistent),
            (None, None) => Err(LossReason::Incomplete),
            (None, Some(tables)) if complete && self.is_whole(&current) => {
                Ok(self.finish(&current, &tables, packets))
            }
            (None, Some(_)) if complete => Err(LossReason::Inconsistent),
            (None, Some(tables)) => self.patch(&current, &tables, packets).ok_or(LossReason::Incomplete),
        };
        self.clear_parts();
        let (ssrc, timestamp) = (current.ssrc, current.timestamp);
        Some(done.unwrap_or_else(|reason| Done::Lost(Loss { ssrc, timestamp, packets, reason })))
    }

    /// Sorts the packets by sequence number; false when their offsets overlap or do not rise with it.
    fn sort_parts(&mut self, current: &Current) -> bool {
        let oldest = current.oldest;
        if !self.parts.is_sorted_by_key(|part| part.sequence.wrapping_sub(oldest)) {
            self.parts.sort_unstable_by_key(|part| part.sequence.wrapping_sub(oldest));
        }
        self.parts.is_sorted_by(|one, next| one.offset + one.length <= next.offset)
    }

    /// Whether the sorted packets are the frame from its first byte to the marker, without a gap in sequence
    /// numbers or in offsets. Either alone could be fooled by parts of two frames with one timestamp.
    fn is_whole(&self, current: &Current) -> bool {
        let empty = self.parts.last().is_none_or(|part| part.offset + part.length == 0);
        let ends = self.parts.first().map(|part| (part.offset, Some(part.sequence)))
            == Some((0, current.first))
            && self.parts.last().map(|part| part.sequence) == current.marker;
        !empty && ends && self.parts.is_sorted_by(|one, next| one.is_followed_by(next))
    }

    fn info(current: &Current, packets: usize, concealed: u32) -> FrameInfo {
        FrameInfo {
            ssrc: current.ssrc,
            timestamp: current.timestamp,
            packets,
            width: current.size.0,
            height: current.size.1,
            sampling: current.sampling,
            field: Field::from_byte(current.main.type_specific),
            q: current.main.q,
            restart_interval: current.interval,
            concealed,
        }
    }

    /// Puts the header segments before the scan and EOI after it.
    fn finish(&mut self, current: &Current, tables: &Tables, packets: usize) -> Done {
        let end = self.parts.last().map_or(0, |part| part.offset + part.length);
        let scan = self.buffer.get(MAX_HEADER..MAX_HEADER + end).unwrap_or_default();
        let length = without_eoi(scan).len();
        let picture = picture(current, tables);
        if self.config.conceal && current.interval != 0 {
            self.concealer.keep(&picture, scan.get(..length).unwrap_or_default());
        }
        self.buffer.truncate(MAX_HEADER + length);
        let range = complete(&mut self.buffer, &picture);
        Done::Frame(range, Self::info(current, packets, 0))
    }

    /// Makes a picture of the restart intervals that arrived, if the stream has them aligned to packets.
    fn patch(&mut self, current: &Current, tables: &Tables, packets: usize) -> Option<Done> {
        if !self.config.conceal || current.interval == 0 {
            return None;
        }
        let picture = picture(current, tables);
        let received = self.buffer.get(MAX_HEADER..).unwrap_or_default();
        let concealed = self.concealer.patch(&picture, &self.parts, received)?;
        let range = complete(&mut self.concealer.output, &picture);
        Some(Done::Frame(range, Self::info(current, packets, concealed)))
    }

    fn is_seen(&self, sequence: u16) -> bool {
        self.seen.get(usize::from(sequence / 64)).is_some_and(|word| word & 1 << (sequence % 64) != 0)
    }

    fn mark_seen(&mut self, sequence: u16) {
        if let Some(word) = self.seen.get_mut(usize::from(sequence / 64)) {
            *word |= 1 << (sequence % 64);
        }
    }

    fn clear_parts(&mut self) {
        for part in self.parts.drain(..) {
            if let Some(word) = self.seen.get_mut(usize::from(part.sequence / 64)) {
                *word = 0;
            }
        }
    }
}

fn new_frame(packet: &RtpPacket<'_>, payload: &Payload<'_>, size: (u16, u16)) -> Current {
    Current {
        ssrc: packet.ssrc,
        timestamp: packet.timestamp,
        main: payload.main,
        sampling: payload.sampling,
        interval: payload.interval(),
        size,
        oldest: packet.sequence,
        newest: packet.sequence,
        first: None,
        marker: None,
        failed: None,
    }
}

fn picture<'a>(current: &Current, tables: &'a Tables) -> Picture<'a> {
    let ((width, height), restart_interval) = (current.size, current.interval);
    Picture { width, height, sampling: current.sampling, tables, restart_interval }
}

/// Header segments in front of the scan that stands at `MAX_HEADER`, EOI at the end.
fn complete(buffer: &mut Vec<u8>, picture: &Picture<'_>) -> Range<usize> {
    let header = header(picture);
    let start = MAX_HEADER - header.as_slice().len();
    if let Some(room) = buffer.get_mut(start..MAX_HEADER) {
        room.copy_from_slice(header.as_slice());
    }
    buffer.extend_from_slice(&[0xff, 0xd9]);
    start..buffer.len()
}

/// The scan without EOI, and without zero padding after it, which some senders leave there.
fn without_eoi(scan: &[u8]) -> &[u8] {
    let padding = scan.iter().rev().take_while(|&&byte| byte == 0).count();
    let unpadded = scan.get(..scan.len() - padding).unwrap_or_default();
    unpadded.strip_suffix(&[0xff, 0xd9]).unwrap_or(scan)
}

fn event(done: Done, buffer: &mut Vec<u8>) -> Event<'_> {
    match done {
        Done::Frame(range, info) => Event::Frame(Frame { buffer, range, info }),
        Done::Lost(loss) => Event::Lost(loss),
    }
}

/// Whether `a` comes after `b`, with wrap-around.
fn is_newer(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 15
}

impl Part {
    /// Whether `next` continues this packet: next sequence number, next byte.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        self.sequence.wrapping_add(1) == next.sequence && self.offset + self.length == next.offset
    }

    /// Whether the packet is one of an aligned chunk.
    pub(crate) fn aligned(&self) -> Option<RestartHeader> {
        self.restart.filter(|restart| !restart.is_whole_frame())
    }
}
