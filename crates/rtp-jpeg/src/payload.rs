// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads the headers of one received RTP payload, with the checks that need no other packet.

use crate::header::{MAX_SCAN_LEN, MainHeader, QuantHeader, RestartHeader, Sampling};
use crate::quant::Tables;

/// Why a packet was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The payload ends inside its headers.
    #[error("the payload is too short for its headers")]
    TooShort,
    /// A type that the RFC reserves, or (from 128 on) leaves to an agreement this receiver does not have.
    #[error("RTP/JPEG type {0} is unknown; 0, 1, 64 and 65 are known")]
    UnknownType(u8),
    /// Q 0 or 100 to 127.
    #[error("Q {0} is reserved")]
    ReservedQ(u8),
    /// A restart interval of 0.
    #[error("the restart interval is 0")]
    ZeroRestartInterval,
    /// The quantisation table header is longer than the packet, or no whole number of tables.
    #[error("the quantisation table header of {0} bytes is invalid")]
    QuantLength(u16),
    /// Q 255 without tables.
    #[error("Q 255 without quantisation tables")]
    NoTables,
    /// Fragment offset and length exceed the frame limit.
    #[error("the frame is larger than {0} bytes")]
    TooLarge(usize),
    /// The header says 0 for width or height, and no size was given by other means.
    #[error("the packet does not tell the picture's size, and neither does the session description")]
    UnknownSize,
    /// The packet was received before.
    #[error("the packet is a duplicate")]
    Duplicate,
    /// The packet belongs to a frame that is already done.
    #[error("the packet came too late")]
    Late,
}

/// The headers of a payload, understood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    pub main: MainHeader,
    pub sampling: Sampling,
    pub restart: Option<RestartHeader>,
    /// Present in first packets with Q ≥ 128; then `None` inside means "as sent before".
    pub tables: Option<Option<WireTables<'a>>>,
    pub scan: &'a [u8],
}

/// Quantisation tables as they came, known to be valid. Most packets have none, so room for them would be a waste.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireTables<'a> {
    precision: u8,
    data: &'a [u8],
}

impl<'a> WireTables<'a> {
    fn check(precision: u8, data: &'a [u8]) -> Option<Self> {
        Tables::from_wire(precision, data).map(|_| Self { precision, data })
    }

    pub(crate) fn read(self) -> Option<Tables> {
        Tables::from_wire(self.precision, self.data)
    }
}

impl<'a> Payload<'a> {
    pub(crate) fn parse(payload: &'a [u8], max_frame: usize) -> Result<Self, PacketError> {
        let (main, mut rest) = MainHeader::split_from(payload).ok_or(PacketError::TooShort)?;
        let sampling = match main.kind {
            0 | 64 => Sampling::Yuv422,
            1 | 65 => Sampling::Yuv420,
            kind => return Err(PacketError::UnknownType(kind)),
        };
        // RFC 2435 §4.2: 0 and 100 to 127 are reserved.
        if matches!(main.q, 0 | 100..=127) {
            return Err(PacketError::ReservedQ(main.q));
        }
        let mut restart = None;
        if main.has_restart() {
            let (header, after) = RestartHeader::split_from(rest).ok_or(PacketError::TooShort)?;
            if header.interval == 0 {
                return Err(PacketError::ZeroRestartInterval);
            }
            (restart, rest) = (Some(header), after);
        }
        let mut tables = None;
        if main.has_quant() {
            let (header, after) = QuantHeader::split_from(rest).ok_or(PacketError::TooShort)?;
            let invalid = PacketError::QuantLength(header.length);
            // RFC 2435 §3.1.8: a length over the packet's end MUST discard it.
            let (data, after) = after.split_at_checked(header.length.into()).ok_or(invalid)?;
            tables = Some(match (header.length, main.q) {
                (0, 255) => return Err(PacketError::NoTables),
                (0, _) => None,
                _ => Some(WireTables::check(header.precision, data).ok_or(invalid)?),
            });
            rest = after;
        }
        let max_frame = max_frame.min(MAX_SCAN_LEN);
        if usize::try_from(main.offset).unwrap_or(usize::MAX).saturating_add(rest.len()) > max_frame {
            return Err(PacketError::TooLarge(max_frame));
        }
        Ok(Self { main, sampling, restart, tables, scan: rest })
    }

    pub(crate) fn interval(&self) -> u16 {
        self.restart.map_or(0, |restart| restart.interval)
    }
}

/// Picture size: what the header says, or what was agreed by other means where the header says nothing or the
/// same rounded up to 8 (RFC 2435 §3.1.5).
pub(crate) fn dimensions(main: &MainHeader, agreed: Option<(u16, u16)>) -> Option<(u16, u16)> {
    let (width, height) = (u16::from(main.width8) * 8, u16::from(main.height8) * 8);
    let agreed = agreed.filter(|&(width, height)| width != 0 && height != 0);
    match agreed {
        Some((w, h)) if width == 0 || height == 0 => Some((w, h)),
        Some((w, h)) if w.div_ceil(8) * 8 == width && h.div_ceil(8) * 8 == height => Some((w, h)),
        _ => (width != 0 && height != 0).then_some((width, height)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Payload<'_>, PacketError> {
        Payload::parse(payload, MAX_SCAN_LEN)
    }

    #[test]
    fn only_the_four_types_pass() {
        for kind in 0..=255 {
            let payload = [0, 0, 0, 1, kind, 50, 1, 1, 0, 1, 0xff, 0xff, 9];
            let result = parse(&payload);
            match kind {
                0 | 1 | 64 | 65 => assert!(result.is_ok()),
                _ => assert_eq!(result.unwrap_err(), PacketError::UnknownType(kind)),
            }
        }
    }

    #[test]
    fn reserved_q_is_refused() {
        for q in 0..=255 {
            let payload = [0, 0, 0, 1, 1, q, 1, 1, 9];
            let result = parse(&payload);
            match q {
                0 | 100..=127 => assert_eq!(result.unwrap_err(), PacketError::ReservedQ(q)),
                _ => assert_eq!(result.unwrap().main.q, q),
            }
        }
    }

    #[test]
    fn restart_interval_zero_and_short_headers_are_refused() {
        assert_eq!(
            parse(&[0, 0, 0, 1, 65, 5, 1, 1, 0, 0, 0xff, 0xff]).unwrap_err(),
            PacketError::ZeroRestartInterval
        );
        let whole = [0, 0, 0, 0, 65, 200, 1, 1, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
        assert!(parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]).unwrap_err(), PacketError::TooShort, "{length}");
        }
    }

    #[test]
    fn table_lengths() {
        let with = |q, length: u16, data: usize| {
            let [a, b] = length.to_be_bytes();
            let payload = [&[0, 0, 0, 0, 1, q, 1, 1, 0, 0, a, b][..], &vec![1; data]].concat();
            let tables =
                |wire: Option<Option<WireTables<'_>>>| wire.map(|wire| wire.and_then(WireTables::read));
            parse(&payload).map(|payload| (tables(payload.tables), payload.scan.len()))
        };
        for length in [64, 128, 192, 256] {
            let (tables, scan) = with(255, length, usize::from(length) + 5).unwrap();
            assert!(tables.flatten().is_some());
            assert_eq!(scan, 5);
        }
        assert_eq!(with(255, 128, 127).unwrap_err(), PacketError::QuantLength(128), "longer than the packet");
        assert_eq!(
            with(255, 192, 128).unwrap_err(),
            PacketError::QuantLength(192),
            "though two tables are there"
        );
        assert_eq!(with(255, 65535, 9).unwrap_err(), PacketError::QuantLength(65535));
        assert_eq!(with(255, 100, 200).unwrap_err(), PacketError::QuantLength(100));
        assert_eq!(with(255, 0, 5).unwrap_err(), PacketError::NoTables);
        assert_eq!(with(254, 0, 5).unwrap(), (Some(None), 5));
    }

    #[test]
    fn frame_limit() {
        let payload = [0, 0xff, 0xff, 0xfe, 1, 50, 1, 1, 7];
        assert!(parse(&payload).is_ok());
        let over = [&payload[..], &[7]].concat();
        assert_eq!(parse(&over).unwrap_err(), PacketError::TooLarge(MAX_SCAN_LEN));
        let limited = Payload::parse(&[0, 0, 0, 99, 1, 50, 1, 1, 7, 7], 100);
        assert_eq!(limited.unwrap_err(), PacketError::TooLarge(100));
    }

    #[test]
    fn agreed_size_fills_in_and_refines_but_does_not_contradict() {
        let main =
            |width8, height8| MainHeader { type_specific: 0, offset: 0, kind: 1, q: 1, width8, height8 };
        assert_eq!(dimensions(&main(0, 0), None), None);
        assert_eq!(dimensions(&main(0, 0), Some((3280, 1000))), Some((3280, 1000)));
        assert_eq!(dimensions(&main(0, 0), Some((0, 1000))), None);
        assert_eq!(dimensions(&main(81, 60), None), Some((648, 480)));
        assert_eq!(dimensions(&main(81, 60), Some((642, 480))), Some((642, 480)));
        assert_eq!(dimensions(&main(80, 60), Some((1920, 1080))), Some((640, 480)));
    }
}
