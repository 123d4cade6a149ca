// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads what RFC 2435 needs out of a JPEG picture, and says why a picture cannot be carried.

use core::ops::Range;

use crate::header::{MAX_SCAN_LEN, Sampling};
use crate::huffman::{Slot, scan_length};
use crate::quant::{Table, Tables};

/// Why a picture cannot be sent as RTP/JPEG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The data does not begin with an SOI marker.
    #[error("not a JPEG picture: it does not begin with FF D8")]
    NotJpeg,
    /// The data ends inside a header segment or inside the scan.
    #[error("the picture is cut short")]
    Truncated,
    /// Something that is no marker segment stands before the scan.
    #[error("no marker segment at byte {offset}")]
    BadSegment {
        /// Place in the data.
        offset: usize,
    },
    /// A segment's length or content contradicts itself.
    #[error("the content of marker segment FF {marker:02X} is invalid")]
    InvalidSegment {
        /// Second byte of the marker.
        marker: u8,
    },
    /// Not baseline (SOF0): extended, progressive, lossless, hierarchical or arithmetic-coded.
    #[error("only baseline JPEG (SOF0) can be sent; this is SOF{}", marker & 0x0f)]
    NotBaseline {
        /// Second byte of the frame header's marker.
        marker: u8,
    },
    /// Sample precision other than 8 bits.
    #[error("only 8 bits per sample can be sent, not {0}")]
    Precision(u8),
    /// Not three components: grey, CMYK, or an unknown layout.
    #[error("only pictures of three components (YUV) can be sent; this has {0}")]
    Components(u8),
    /// Chroma subsampling other than 4:2:2 and 4:2:0.
    #[error("only 4:2:0 and 4:2:2 can be sent; the components' sampling factors are {0:02X?}")]
    Subsampling([u8; 3]),
    /// Width or height is 0 (the height may follow in a DNL segment, which RTP/JPEG cannot carry).
    #[error("width or height is 0, or given after the scan (DNL)")]
    NoDimensions,
    /// The two chroma components use different quantisation tables.
    #[error("the chroma components use different quantisation tables; RTP/JPEG has one for both")]
    ChromaTables,
    /// A component uses a quantisation table that no DQT segment defines.
    #[error("quantisation table {0} is used but not defined")]
    NoQuantTable(u8),
    /// A quantisation table has an entry over 255, which baseline JPEG forbids and other receivers misread.
    #[error("quantisation table {0} has an entry over 255")]
    WideQuantTable(u8),
    /// A component uses Huffman tables other than the standard ones, such as optimised ones.
    #[error(
        "the picture uses optimised Huffman tables; set the encoder to the standard ones (T.81 annex K.3)"
    )]
    HuffmanTables,
    /// The picture is not one interleaved scan of all components.
    #[error("only pictures with one interleaved scan can be sent")]
    Scans,
    /// A marker that does not belong inside a scan.
    #[error("marker FF {marker:02X} at byte {offset} inside the scan")]
    MarkerInScan {
        /// Second byte of the marker.
        marker: u8,
        /// Place in the data.
        offset: usize,
    },
    /// Restart markers are missing, too many, misnumbered, or used without a restart interval.
    #[error("the restart markers do not match the restart interval: parts of the picture are missing")]
    RestartMarkers,
    /// The scan does not fit the 24-bit fragment offset.
    #[error("the scan has {0} bytes; RTP/JPEG carries less than 16 MiB")]
    TooLarge(usize),
}

/// A picture that RTP/JPEG can carry, borrowed from the data it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jpeg<'a> {
    data: &'a [u8],
    scan: Range<usize>,
    end: usize,
    width: u16,
    height: u16,
    sampling: Sampling,
    tables: Tables,
    restart_interval: u16,
}

impl<'a> Jpeg<'a> {
    /// Reads the first picture in `data`. Allocates nothing.
    ///
    /// The cost is one search through the scan for markers. Where the EOI marker is missing, the scan's codes
    /// are walked as well, so that a picture cut short is not taken for one without EOI.
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        Parser::default().run(data)
    }

    /// The data that was parsed, whole.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The entropy-coded scan: after the SOS header, before EOI.
    pub fn scan(&self) -> &'a [u8] {
        self.data.get(self.scan.clone()).unwrap_or_default()
    }

    /// Where the scan stands in the data.
    pub fn scan_range(&self) -> Range<usize> {
        self.scan.clone()
    }

    /// First byte after the picture: where a second field in the same buffer would begin.
    pub const fn end(&self) -> usize {
        self.end
    }

    /// Width in pixels.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    pub const fn height(&self) -> u16 {
        self.height
    }

    /// Chroma subsampling.
    pub const fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// The quantisation tables that the components use.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Minimum coded units between restart markers; 0 = none.
    pub const fn restart_interval(&self) -> u16 {
        self.restart_interval
    }

    /// Restart intervals in the scan; 1 without restart markers.
    pub fn intervals(&self) -> u32 {
        intervals(self.sampling.mcus(self.width, self.height), self.restart_interval)
    }
}

/// Intervals that `mcus` units make.
pub(crate) fn intervals(mcus: u32, interval: u16) -> u32 {
    if interval == 0 { 1 } else { mcus.div_ceil(u32::from(interval)) }
}

#[derive(Clone, Copy, Default)]
struct Component {
    id: u8,
    sampling: u8,
    quant: u8,
}

struct Frame {
    width: u16,
    height: u16,
    components: [Component; 3],
}

#[derive(Clone, Copy, Default)]
enum Quant {
    #[default]
    Missing,
    Invalid,
    Present(Table),
}

#[derive(Default)]
struct Parser {
    quant: [Quant; 4],
    dc: [Slot; 4],
    ac: [Slot; 4],
    frame: Option<Frame>,
    restart_interval: u16,
}

impl Parser {
    fn run(mut self, data: &[u8]) -> Result<Jpeg<'_>, ParseError> {
        let (first, mut rest) = data.split_at_checked(2).ok_or(ParseError::NotJpeg)?;
        if first != [0xff, 0xd8] {
            return Err(ParseError::NotJpeg);
        }
        loop {
            let (marker, body, after) = segment(rest, data.len() - rest.len())?;
            rest = after;
            match marker {
                0xda => {
                    let sampling_and_tables = self.scan_header(body)?;
                    return self.finish(data, data.len() - rest.len(), sampling_and_tables);
                }
                0xdb => self.quant_tables(body)?,
                0xc4 => self.huffman_tables(body)?,
                0xc0 => self.frame_header(body)?,
                0xdd => {
                    let interval = body.try_into().map_err(|_| ParseError::InvalidSegment { marker })?;
                    self.restart_interval = u16::from_be_bytes(interval);
                }
                // SOF1 to SOF15 and DAC (0xcc, arithmetic coding).
                0xc1..=0xcf => return Err(ParseError::NotBaseline { marker }),
                // The picture ends, or the height comes later, before there was a scan.
                0xd9 => return Err(ParseError::Truncated),
                0xdc => return Err(ParseError::NoDimensions),
                // APPn, COM and others say nothing about the scan.
                _ => {}
            }
        }
    }

    /// DQT (T.81 B.2.4.1): one or several tables.
    fn quant_tables(&mut self, mut body: &[u8]) -> Result<(), ParseError> {
        let invalid = ParseError::InvalidSegment { marker: 0xdb };
        while let Some((&head, rest)) = body.split_first() {
            let (wide, id) = (head >> 4, head & 15);
            let length = match wide {
                0 => 64,
                1 => 128,
                _ => return Err(invalid),
            };
            let (entries, rest) = rest.split_at_checked(length).ok_or(invalid)?;
            let table = if wide == 0 { Table::from_u8(entries) } else { Table::from_u16(entries) };
            // A table with a zero in it matters only if a component uses it.
            *self.quant.get_mut(usize::from(id)).ok_or(invalid)? =
                table.map_or(Quant::Invalid, Quant::Present);
            body = rest;
        }
        Ok(())
    }

    /// DHT (T.81 B.2.4.2): one or several tables.
    fn huffman_tables(&mut self, mut body: &[u8]) -> Result<(), ParseError> {
        let invalid = ParseError::InvalidSegment { marker: 0xc4 };
        while let Some((&head, rest)) = body.split_first() {
            let (class, id) = (head >> 4, head & 15);
            let counts = rest.get(..16).ok_or(invalid)?;
            let length = 16 + counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let (table, rest) = rest.split_at_checked(length).ok_or(invalid)?;
            let slots = match class {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(invalid),
            };
            *slots.get_mut(usize::from(id)).ok_or(invalid)? = Slot::classify(class == 1, table);
            body = rest;
        }
        Ok(())
    }

    /// SOF0 (T.81 B.2.2).
    fn frame_header(&mut self, body: &[u8]) -> Result<(), ParseError> {
        let invalid = ParseError::InvalidSegment { marker: 0xc0 };
        let (&[precision, h1, h0, w1, w0, count], list) = body.split_first_chunk().ok_or(invalid)?;
        if self.frame.is_some() {
            return Err(ParseError::Scans);
        }
        if precision != 8 {
            return Err(ParseError::Precision(precision));
        }
        if count != 3 {
            return Err(ParseError::Components(count));
        }
        let list: &[u8; 9] = list.try_into().map_err(|_| invalid)?;
        let mut components = [Component::default(); 3];
        for (component, &[id, sampling, quant]) in components.iter_mut().zip(list.as_chunks::<3>().0) {
            *component = Component { id, sampling, quant };
        }
        let [y, u, v] = components;
        if y.id == u.id || y.id == v.id || u.id == v.id {
            return Err(invalid);
        }
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 {
            return Err(ParseError::NoDimensions);
        }
        self.frame = Some(Frame { width, height, components });
        Ok(())
    }

    /// SOS (T.81 B.2.3), checked against the frame header and the tables seen so far.
    fn scan_header(&self, body: &[u8]) -> Result<(Sampling, Tables), ParseError> {
        let frame = self.frame.as_ref().ok_or(ParseError::InvalidSegment { marker: 0xda })?;
        let (&count, rest) = body.split_first().ok_or(ParseError::InvalidSegment { marker: 0xda })?;
        if count != 3 {
            return Err(ParseError::Scans);
        }
        let &[y_id, y_tables, u_id, u_tables, v_id, v_tables, start, end, approximation] =
            <&[u8; 9]>::try_from(rest).map_err(|_| ParseError::InvalidSegment { marker: 0xda })?;
        let [y, u, v] = frame.components;
        if [y_id, u_id, v_id] != [y.id, u.id, v.id] || (start, end, approximation) != (0, 63, 0) {
            return Err(ParseError::Scans);
        }
        // RFC 2435 §4.1: luma 2x1 or 2x2, both chroma 1x1.
        let sampling = match (y.sampling, u.sampling, v.sampling) {
            (0x21, 0x11, 0x11) => Sampling::Yuv422,
            (0x22, 0x11, 0x11) => Sampling::Yuv420,
            (y, u, v) => return Err(ParseError::Subsampling([y, u, v])),
        };
        for (selector, luma) in [(y_tables, true), (u_tables, false), (v_tables, false)] {
            let (dc, ac) = (selector >> 4, selector & 15);
            let serves = |slots: &[Slot; 4], id: u8| {
                slots.get(usize::from(id)).is_some_and(|slot| slot.serves(id, luma))
            };
            if !serves(&self.dc, dc) || !serves(&self.ac, ac) {
                return Err(ParseError::HuffmanTables);
            }
        }
        // By component selector, not by order of appearance: files have tables nobody uses.
        let (luma, chroma) = (self.quant_table(y.quant)?, self.quant_table(u.quant)?);
        if chroma != self.quant_table(v.quant)? {
            return Err(ParseError::ChromaTables);
        }
        Ok((sampling, Tables { luma, chroma }))
    }

    fn quant_table(&self, id: u8) -> Result<Table, ParseError> {
        match self.quant.get(usize::from(id)).copied().unwrap_or_default() {
            Quant::Missing => Err(ParseError::NoQuantTable(id)),
            Quant::Invalid => Err(ParseError::InvalidSegment { marker: 0xdb }),
            Quant::Present(table) if table.fits_u8() => Ok(table),
            Quant::Present(_) => Err(ParseError::WideQuantTable(id)),
        }
    }

    fn finish(
        self,
        data: &[u8],
        start: usize,
        (sampling, tables): (Sampling, Tables),
    ) -> Result<Jpeg<'_>, ParseError> {
        let Frame { width, height, .. } = self.frame.ok_or(ParseError::Scans)?;
        let mcus = sampling.mcus(width, height);
        let scan = data.get(start..).unwrap_or_default();
        let (length, after) = match find_end(scan, start, self.restart_interval)? {
            Some(end) => {
                let wanted = intervals(mcus, self.restart_interval) - 1;
                // Some encoders end the last interval with a restart marker, too; it is left out.
                let extra = end.last_restart.filter(|_| end.restarts == wanted + 1);
                if end.restarts != wanted && extra.is_none() {
                    return Err(ParseError::RestartMarkers);
                }
                (extra.unwrap_or(end.scan), end.after)
            }
            None => {
                let luma_blocks = if sampling == Sampling::Yuv420 { 4 } else { 2 };
                let length = scan_length(scan, luma_blocks, mcus, self.restart_interval)
                    .ok_or(ParseError::Truncated)?;
                (length, length)
            }
        };
        if length == 0 {
            return Err(ParseError::Truncated);
        }
        if length > MAX_SCAN_LEN {
            return Err(ParseError::TooLarge(length));
        }
        let restart_interval = self.restart_interval;
        let (scan, end) = (start..start + length, start + after);
        Ok(Jpeg { data, scan, end, width, height, sampling, tables, restart_interval })
    }
}

/// Splits the next marker segment off: marker, content, what follows. Fill bytes (T.81 B.1.1.2) are skipped.
fn segment(data: &[u8], offset: usize) -> Result<(u8, &[u8], &[u8]), ParseError> {
    let mut rest = data;
    let (&prefix, after) = rest.split_first().ok_or(ParseError::Truncated)?;
    if prefix != 0xff {
        return Err(ParseError::BadSegment { offset });
    }
    rest = after;
    let marker = loop {
        let (&byte, after) = rest.split_first().ok_or(ParseError::Truncated)?;
        rest = after;
        if byte != 0xff {
            break byte;
        }
    };
    match marker {
        // Markers without a segment do not belong before the scan, but for the end of the picture.
        0xd9 => return Ok((marker, &[], rest)),
        0x00..=0x01 | 0xd0..=0xd8 => return Err(ParseError::BadSegment { offset }),
        _ => {}
    }
    let (&length, _) = rest.split_first_chunk().ok_or(ParseError::Truncated)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length < 2 {
        return Err(ParseError::InvalidSegment { marker });
    }
    let (segment, after) = rest.split_at_checked(length).ok_or(ParseError::Truncated)?;
    Ok((marker, segment.get(2..).unwrap_or_default(), after))
}

struct ScanEnd {
    /// Length of the scan.
    scan: usize,
    /// First byte after EOI.
    after: usize,
    /// Number of restart markers.
    restarts: u32,
    /// Length of the scan before a restart marker that directly precedes EOI.
    last_restart: Option<usize>,
}

/// Searches the scan for its markers up to EOI; `None` when there is no EOI.
fn find_end(scan: &[u8], offset: usize, interval: u16) -> Result<Option<ScanEnd>, ParseError> {
    let (mut at, mut restarts, mut after_restart) = (0, 0_u32, (0, 0));
    loop {
        let Some(prefix) = next_marker(scan, at) else { return Ok(None) };
        at = prefix + 1;
        // FF may repeat before the marker's second byte.
        while scan.get(at) == Some(&0xff) {
            at += 1;
        }
        let Some(&marker) = scan.get(at) else { return Ok(None) };
        at += 1;
        match marker {
            0xd0..=0xd7 => {
                // T.81 E.1.4: numbered 0 to 7, over and over. A gap means that data was lost before it got here.
                if interval == 0 || u32::from(marker - 0xd0) != restarts % 8 {
                    return Err(ParseError::RestartMarkers);
                }
                restarts += 1;
                after_restart = (prefix, at);
            }
            0xd9 => {
                let last_restart = (after_restart.1 == prefix && restarts > 0).then_some(after_restart.0);
                return Ok(Some(ScanEnd { scan: prefix, after: at, restarts, last_restart }));
            }
            0xdc => return Err(ParseError::NoDimensions),
            0xda => return Err(ParseError::Scans),
            _ => return Err(ParseError::MarkerInScan { marker, offset: offset + prefix }),
        }
    }
}

/// The next FF in the scan, from `at` on, that is not the first byte of FF 00, which stands for a byte of data.
///
/// FF 00 comes every few hundred bytes, at places that no CPU can guess; so whole blocks are looked at without a branch,
/// in a form that compilers turn into vector instructions.
fn next_marker(scan: &[u8], mut at: usize) -> Option<usize> {
    const BLOCK: usize = 128;
    let block = |at: usize| scan.get(at..)?.first_chunk::<BLOCK>();
    while let (Some(first), Some(second)) = (block(at), block(at + 1)) {
        let found = first
            .iter()
            .zip(second)
            .fold(0, |found, (&first, &second)| found | (u8::from(first == 0xff) & u8::from(second != 0)));
        if found != 0 {
            break;
        }
        at += BLOCK;
    }
    let rest = scan.get(at..)?;
    rest.windows(2).position(|pair| matches!(pair, [0xff, second] if *second != 0)).map(|found| at + found)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::next_marker;

    #[test]
    fn a_marker_is_found_wherever_it_stands() {
        // Around the ends of blocks, with stuffed bytes before it, from any beginning.
        for at in (0..300).chain([511, 512, 513]) {
            for second in [1, 0xd0, 0xff] {
                let mut scan = vec![0x55; 600];
                scan[at] = 0xff;
                scan[at + 1] = second;
                for stuffed in (0..at.saturating_sub(1)).step_by(7) {
                    scan[stuffed] = 0xff;
                    scan[stuffed + 1] = 0;
                }
                for from in [0, at / 2, at] {
                    assert_eq!(next_marker(&scan, from), Some(at), "{at} {second:x} from {from}");
                }
                // Behind it, at most the second byte of FF FF begins another one.
                assert_eq!(next_marker(&scan, at + 1), (second == 0xff).then_some(at + 1));
            }
        }
    }

    #[test]
    fn where_there_is_no_marker_none_is_found() {
        for len in 0..300 {
            let mut scan = [0xff, 0].repeat(len);
            assert_eq!(next_marker(&scan, 0), None);
            // Its second byte is missing.
            scan.push(0xff);
            assert_eq!(next_marker(&scan, 0), None);
            assert_eq!(next_marker(&scan, scan.len() + 5), None);
        }
    }
}
