// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cuts a parsed picture into RTP payloads: header bytes to write, and slices of the input to follow them.

use core::ops::Range;

use memchr::memchr_iter;

use crate::header::{
    Field, MAIN_HEADER_LEN, MAX_HEADER_DIMENSION, MainHeader, QUANT_HEADER_LEN, QuantHeader,
    RESTART_HEADER_LEN, RestartHeader, Sampling, WHOLE_FRAME_COUNT,
};
use crate::parse::Jpeg;
use crate::quant::{QuantChoice, Tables};

/// Bytes of both quantisation tables.
const TABLES_LEN: usize = 128;
/// The longest headers that a packet can have: room to give to [`Packet::write_header`].
pub const MAX_PACKET_HEADER_LEN: usize = MAIN_HEADER_LEN + RESTART_HEADER_LEN + QUANT_HEADER_LEN + TABLES_LEN;
/// The smallest payload size that always works: the longest headers and one byte of scan.
pub const MIN_PAYLOAD: usize = MAX_PACKET_HEADER_LEN + 1;

/// How restart intervals relate to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestartMode {
    /// [`Aligned`](Self::Aligned) when every interval fits in one packet, else [`WholeFrame`](Self::WholeFrame).
    #[default]
    Auto,
    /// Packets are cut without regard to intervals: all but the last are equally long, and the loss of one is
    /// the loss of the frame.
    WholeFrame,
    /// Packets hold whole intervals, so that a receiver can show the ones that arrived. An interval too long
    /// for a packet is cut into several. Pictures of more than 16383 intervals go out as whole frames.
    Aligned,
}

/// How to packetise one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketizeOptions {
    /// Most bytes of RTP payload per packet: the MTU less IP, UDP and RTP headers and header extensions. At
    /// least [`MIN_PAYLOAD`].
    pub max_payload: usize,
    /// The Q value, from a [`QuantSelector`](crate::QuantSelector).
    pub quant: QuantChoice,
    /// How restart intervals relate to packets.
    pub restart_mode: RestartMode,
    /// Progressive, or which field of an interlaced frame the picture is.
    pub field: Field,
}

impl PacketizeOptions {
    /// Progressive frames and [`RestartMode::Auto`].
    pub const fn new(max_payload: usize, quant: QuantChoice) -> Self {
        Self { max_payload, quant, restart_mode: RestartMode::Auto, field: Field::Progressive }
    }
}

/// Why a picture cannot be packetised with these options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketizeError {
    /// The payload size has no room for the headers and a byte of scan.
    #[error("{0} bytes of payload per packet are too few; at least {MIN_PAYLOAD} are needed")]
    PayloadTooSmall(usize),
    /// The Q value is reserved, does not stand for the picture's tables, or is 255 without tables.
    #[error("Q {0} cannot be used for this picture")]
    InvalidQ(u8),
}

/// The packets of one picture, made one by one without allocating. See [`Packets::new`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    scan: &'a [u8],
    scan_start: usize,
    at: usize,
    max_payload: usize,
    main: MainHeader,
    /// Restart interval; 0 = type without restart header.
    interval: u16,
    aligned: Option<Aligned>,
    /// Precomputed, because only the first packet carries it and that one may be asked for later.
    tables: Option<[u8; TABLES_LEN]>,
    field_of_view: (u16, u16),
}

/// Where an aligned packetiser stands.
#[derive(Clone, Copy, Debug, Default)]
struct Aligned {
    /// Index of the next interval.
    index: u16,
    /// End of the interval that was cut, while its pieces go out.
    open: Option<usize>,
    /// End of the next interval, if it was looked up already.
    next_end: Option<usize>,
}

impl<'a> Packets<'a> {
    /// Prepares the packets of a picture.
    pub fn new(jpeg: &Jpeg<'a>, options: &PacketizeOptions) -> Result<Self, PacketizeError> {
        if options.max_payload < MIN_PAYLOAD {
            return Err(PacketizeError::PayloadTooSmall(options.max_payload));
        }
        let QuantChoice { q, send_tables } = options.quant;
        let invalid = PacketizeError::InvalidQ(q);
        let tables = match q {
            1..=99 if Tables::for_q(q).as_ref() == Some(jpeg.tables()) => None,
            128..=254 if !send_tables => None,
            // 16-bit tables do not pass the parser.
            128..=255 if send_tables => Some(jpeg.tables().to_wire().ok_or(invalid)?),
            _ => return Err(invalid),
        };
        let interval = jpeg.restart_interval();
        let countable = interval != 0 && jpeg.intervals() <= u32::from(WHOLE_FRAME_COUNT);
        let aligned = match options.restart_mode {
            RestartMode::WholeFrame => false,
            RestartMode::Aligned => countable,
            RestartMode::Auto => {
                let room = options.max_payload - MAIN_HEADER_LEN - RESTART_HEADER_LEN;
                countable && intervals_fit(jpeg.scan(), room)
            }
        };
        // RFC 2435 §3.1.3 and §4.1: types 0 and 1, plus 64 with restart markers.
        let kind = match jpeg.sampling() {
            Sampling::Yuv422 => 0,
            Sampling::Yuv420 => 1,
        } + if interval == 0 { 0 } else { 64 };
        let (width8, height8) = header_dimensions(jpeg.width(), jpeg.height());
        let type_specific = options.field.to_byte();
        Ok(Self {
            scan: jpeg.scan(),
            scan_start: jpeg.scan_range().start,
            at: 0,
            max_payload: options.max_payload,
            main: MainHeader { type_specific, offset: 0, kind, q, width8, height8 },
            interval,
            aligned: aligned.then(Aligned::default),
            tables,
            field_of_view: (jpeg.width(), jpeg.height()),
        })
    }

    /// Width and height that a receiver must learn by other means (`x-dimensions` in caps or SDP), because the
    /// main header has no room for them; `None` when it has.
    pub fn out_of_band_dimensions(&self) -> Option<(u16, u16)> {
        (self.main.width8 == 0).then_some(self.field_of_view)
    }

    /// Whether packets hold whole restart intervals. If not, all packets but the last are equally long.
    pub const fn is_aligned(&self) -> bool {
        self.aligned.is_some()
    }

    /// Header length of the packet that begins at the current place.
    fn header_len(&self) -> usize {
        let restart = if self.interval == 0 { 0 } else { RESTART_HEADER_LEN };
        let quant = match (self.at == 0 && self.main.q >= 128, &self.tables) {
            (false, _) => 0,
            (true, None) => QUANT_HEADER_LEN,
            (true, Some(_)) => QUANT_HEADER_LEN + TABLES_LEN,
        };
        MAIN_HEADER_LEN + restart + quant
    }

    /// End of the interval that begins at `from`, its restart marker included.
    fn interval_end(&self, from: usize) -> usize {
        let rest = self.scan.get(from..).unwrap_or_default();
        interval_end(rest).map_or(self.scan.len(), |end| from + end)
    }

    /// Cuts whole intervals, or the next piece of a long one (RFC 2435 §3.1.7).
    fn cut_aligned(&self, state: &mut Aligned, room: usize) -> (usize, RestartHeader) {
        let count = state.index;
        let limit = self.at + room;
        let (first, end, chunk_end) = if let Some(chunk_end) = state.open {
            (false, chunk_end.min(limit), chunk_end)
        } else {
            let mut end = state.next_end.take().unwrap_or_else(|| self.interval_end(self.at));
            if end <= limit {
                state.index += 1;
                while end < self.scan.len() {
                    let next = self.interval_end(end);
                    if next > limit {
                        state.next_end = Some(next);
                        break;
                    }
                    end = next;
                    state.index += 1;
                }
                (true, end, end)
            } else {
                state.open = Some(end);
                (true, limit, end)
            }
        };
        let last = end == chunk_end;
        if last && state.open.take().is_some() {
            state.index += 1;
        }
        (end, RestartHeader { interval: self.interval, first, last, count })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        if self.at >= self.scan.len() {
            return None;
        }
        // The constructor left room for at least one byte, so this ends.
        let room = self.max_payload - self.header_len();
        let (end, restart) = match self.aligned {
            Some(mut state) => {
                let (end, restart) = self.cut_aligned(&mut state, room);
                self.aligned = Some(state);
                (end, Some(restart))
            }
            None => {
                let restart = (self.interval != 0).then(|| RestartHeader::whole_frame(self.interval));
                (self.scan.len().min(self.at + room), restart)
            }
        };
        let main = MainHeader { offset: u32::try_from(self.at).unwrap_or(u32::MAX), ..self.main };
        let packet = Packet {
            main,
            restart,
            tables: if self.at == 0 { self.tables } else { None },
            scan: self.scan.get(self.at..end).unwrap_or_default(),
            start: self.scan_start + self.at,
            last: end == self.scan.len(),
        };
        self.at = end;
        Some(packet)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.scan.len() - self.at;
        if left == 0 {
            return (0, Some(0));
        }
        let room = self.max_payload - self.header_len();
        let later =
            self.max_payload - MAIN_HEADER_LEN - if self.interval == 0 { 0 } else { RESTART_HEADER_LEN };
        let least = 1 + left.saturating_sub(room).div_ceil(later);
        (least, self.aligned.is_none().then_some(least))
    }
}

/// Width and height in units of 8 pixels, rounded up; 0 and 0 when either has no room in the header.
fn header_dimensions(width: u16, height: u16) -> (u8, u8) {
    if width > MAX_HEADER_DIMENSION || height > MAX_HEADER_DIMENSION {
        return (0, 0);
    }
    let units = |pixels: u16| u8::try_from(pixels.div_ceil(8)).unwrap_or(0);
    (units(width), units(height))
}

/// End of the first interval in these scan bytes, its restart marker included; `None` if it is the last one.
fn interval_end(scan: &[u8]) -> Option<usize> {
    memchr_iter(0xff, scan)
        .find(|&at| scan.get(at + 1).is_some_and(|byte| (0xd0..=0xd7).contains(byte)))
        .map(|at| at + 2)
}

fn intervals_fit(scan: &[u8], room: usize) -> bool {
    let mut rest = scan;
    while let Some((interval, after)) = interval_end(rest).and_then(|end| rest.split_at_checked(end)) {
        if interval.len() > room {
            return false;
        }
        rest = after;
    }
    rest.len() <= room
}

/// One RTP payload: headers, then a slice of the picture's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    main: MainHeader,
    restart: Option<RestartHeader>,
    tables: Option<[u8; TABLES_LEN]>,
    scan: &'a [u8],
    start: usize,
    last: bool,
}

impl<'a> Packet<'a> {
    /// The main header.
    pub const fn main_header(&self) -> MainHeader {
        self.main
    }

    /// The restart marker header, of types 64 and 65.
    pub const fn restart_header(&self) -> Option<RestartHeader> {
        self.restart
    }

    /// Length of all headers.
    pub const fn header_len(&self) -> usize {
        let restart = if self.restart.is_some() { RESTART_HEADER_LEN } else { 0 };
        let quant = if self.main.has_quant() { QUANT_HEADER_LEN } else { 0 };
        let tables = if self.tables.is_some() { TABLES_LEN } else { 0 };
        MAIN_HEADER_LEN + restart + quant + tables
    }

    /// Length of the whole payload.
    pub const fn len(&self) -> usize {
        self.header_len() + self.scan.len()
    }

    /// Never: a packet holds at least its headers.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The scan bytes after the headers, borrowed from the picture's data.
    pub const fn scan(&self) -> &'a [u8] {
        self.scan
    }

    /// Where [`scan`](Self::scan) stands in the data given to [`Jpeg::parse`].
    pub const fn range(&self) -> Range<usize> {
        self.start..self.start + self.scan.len()
    }

    /// Whether this is the frame's last packet, which sets the RTP marker bit.
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// Writes the headers to the front of `out` and tells their length; `None` when `out` is too short.
    pub fn write_header(&self, out: &mut [u8]) -> Option<usize> {
        let mut rest = out.get_mut(..self.header_len())?;
        put(&mut rest, &self.main.to_bytes())?;
        if let Some(restart) = self.restart {
            put(&mut rest, &restart.to_bytes())?;
        }
        if self.main.has_quant() {
            // RFC 2435 §3.1.8: length 0 = as sent before.
            let length = if self.tables.is_some() { TABLES_LEN as u16 } else { 0 };
            put(&mut rest, &QuantHeader { precision: 0, length }.to_bytes())?;
        }
        if let Some(tables) = &self.tables {
            put(&mut rest, tables)?;
        }
        Some(self.header_len())
    }

    /// Writes headers and scan bytes to the front of `out` and tells their length; `None` when `out` is too short.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (head, rest) = out.split_at_mut_checked(self.header_len())?;
        rest.get_mut(..self.scan.len())?.copy_from_slice(self.scan);
        self.write_header(head)?;
        Some(self.len())
    }
}

fn put(out: &mut &mut [u8], bytes: &[u8]) -> Option<()> {
    let (head, rest) = core::mem::take(out).split_at_mut_checked(bytes.len())?;
    head.copy_from_slice(bytes);
    *out = rest;
    Some(())
}
