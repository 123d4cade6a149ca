// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes a picture of a frame with losses: restart intervals that arrived stay, lost ones are patched.

use core::ops::Range;

use memchr::memchr;

use crate::header::{RestartHeader, Sampling, WHOLE_FRAME_COUNT};
use crate::parse::intervals;
use crate::quant::Tables;
use crate::rebuild::{MAX_HEADER, Picture, put_grey};

/// One received packet of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub sequence: u16,
    pub offset: usize,
    pub length: usize,
    pub restart: Option<RestartHeader>,
}

/// Intervals may be taken from the frame before only if all of this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    size: (u16, u16),
    sampling: Sampling,
    tables: Tables,
    restart_interval: u16,
}

impl Key {
    fn new(picture: &Picture<'_>) -> Self {
        Self {
            size: (picture.width, picture.height),
            sampling: picture.sampling,
            tables: *picture.tables,
            restart_interval: picture.restart_interval,
        }
    }
}

/// Keeps the last frame's scan and patches with it.
#[derive(Debug, Default)]
pub(crate) struct Concealer {
    /// The patched picture, scan at `MAX_HEADER`.
    pub output: Vec<u8>,
    kept: Option<Key>,
    scan: Vec<u8>,
    kept_intervals: Vec<Option<Range<usize>>>,
    received: Vec<Option<Range<usize>>>,
}

impl Concealer {
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    /// Keeps the scan of a good frame.
    pub(crate) fn keep(&mut self, picture: &Picture<'_>, scan: &[u8]) {
        self.kept = Some(Key::new(picture));
        self.scan.clear();
        self.scan.extend_from_slice(scan);
    }

    /// Builds `output` from received packets, sorted by sequence number and free of overlaps; tells how many
    /// intervals were patched. `None` when the intervals are not aligned to packets, none arrived whole, or
    /// they contradict each other.
    pub(crate) fn patch(&mut self, picture: &Picture<'_>, parts: &[Part], data: &[u8]) -> Option<u32> {
        let interval = u32::from(picture.restart_interval);
        let mcus = picture.sampling.mcus(picture.width, picture.height);
        let total = intervals(mcus, picture.restart_interval);
        // The count has 14 bits, and its highest value means something else.
        if total > u32::from(WHOLE_FRAME_COUNT) {
            return None;
        }
        let total_len = total as usize;
        self.received.clear();
        self.received.resize(total_len, None);
        for (count, range) in (Chunks { parts }) {
            split_intervals(data, range, usize::from(count), &mut self.received);
        }
        // All there, although packets are missing: these are parts of two frames with one timestamp.
        if self.received.iter().all(Option::is_none) || self.received.iter().all(Option::is_some) {
            return None;
        }
        self.kept_intervals.clear();
        self.kept_intervals.resize(total_len, None);
        if self.kept == Some(Key::new(picture)) {
            split_intervals(&self.scan, 0..self.scan.len(), 0, &mut self.kept_intervals);
        }
        self.output.clear();
        self.output.resize(MAX_HEADER, 0);
        let mut patched = 0;
        for (index, (received, kept)) in (0..total).zip(self.received.iter().zip(&self.kept_intervals)) {
            if index > 0 {
                // T.81 E.1.4: numbered modulo 8.
                self.output.extend_from_slice(&[0xff, 0xd0 | ((index - 1) % 8) as u8]);
            }
            let received = received.clone().and_then(|range| data.get(range));
            patched += u32::from(received.is_none());
            match received.or_else(|| self.scan.get(kept.clone()?)) {
                Some(bytes) => self.output.extend_from_slice(bytes),
                None => put_grey(&mut self.output, picture.sampling, interval.min(mcus - index * interval)),
            }
        }
        // The next frame is patched from what is shown now.
        self.kept = Some(Key::new(picture));
        self.scan.clear();
        self.scan.extend_from_slice(self.output.get(MAX_HEADER..).unwrap_or_default());
        Some(patched)
    }
}

/// The chunks that arrived whole, from F to L (RFC 2435 §3.1.7): index of the first interval, place in the scan.
struct Chunks<'a> {
    parts: &'a [Part],
}

impl Iterator for Chunks<'_> {
    type Item = (u16, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((first, mut rest)) = self.parts.split_first() {
            self.parts = rest;
            let Some(head) = first.aligned().filter(|head| head.first) else { continue };
            let (mut at, mut restart) = (first, head);
            while !restart.last {
                let Some((next, after)) = rest.split_first() else { break };
                match next.aligned() {
                    Some(piece) if !piece.first && piece.count == head.count && at.is_followed_by(next) => {
                        (at, restart, rest) = (next, piece, after);
                    }
                    _ => break,
                }
            }
            if restart.last {
                self.parts = rest;
                return Some((head.count, first.offset..at.offset + at.length));
            }
        }
        None
    }
}

/// Notes the places of the intervals in a chunk, the first of which has this index. Stops at the first marker
/// that is not the expected one: what follows cannot be trusted.
fn split_intervals(data: &[u8], chunk: Range<usize>, index: usize, places: &mut [Option<Range<usize>>]) {
    let mut start = chunk.start;
    let Some(bytes) = data.get(..chunk.end) else { return };
    // The marker between two chunks may stand at the end of one or at the start of the next.
    let leading = [0xff, 0xd0 | (index.wrapping_sub(1) % 8) as u8];
    if index > 0 && bytes.get(start..start + 2) == Some(&leading) {
        start += 2;
    }
    let total = places.len();
    for (index, place) in places.iter_mut().enumerate().skip(index) {
        let mut at = start;
        let marker = loop {
            let Some(found) = bytes.get(at..).and_then(|rest| memchr(0xff, rest)) else { break None };
            at += found;
            match bytes.get(at + 1) {
                Some(0) => at += 2,
                Some(0xff) => at += 1,
                marker => break Some(marker.copied().unwrap_or(0)),
            }
        };
        let (end, more) = match marker {
            Some(marker) if usize::from(marker) == 0xd0 + index % 8 && index + 1 < total => (at, true),
            // EOI ends the last interval.
            Some(0xd9) if index + 1 == total => (at, false),
            Some(_) => return,
            None => (bytes.len(), false),
        };
        if end > start {
            *place = Some(start..end);
        }
        start = at + 2;
        if !more || start >= bytes.len() {
            return;
        }
    }
}
