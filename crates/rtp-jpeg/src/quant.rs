// SPDX-License-Identifier: MIT OR Apache-2.0

//! Quantisation tables: the scaled ones behind Q 1 to 99 and the choice of Q for a frame.

use std::time::Duration;

/// Zig-zag order: position in the stream → position in the 8x8 block (T.81 figure A.6).
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// T.81 table K.1 (luma), in raster order.
#[rustfmt::skip]
const LUMA: [u8; 64] = [
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
];

/// T.81 table K.2 (chroma), in raster order.
#[rustfmt::skip]
const CHROMA: [u8; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
];

/// One quantisation table, entries in zig-zag order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    entries: [u16; 64],
}

impl Table {
    /// A table of these entries (zig-zag order); `None` when one is 0, which JPEG forbids (T.81 B.2.4.1).
    pub fn new(entries: [u16; 64]) -> Option<Self> {
        entries.iter().all(|&entry| entry != 0).then_some(Self { entries })
    }

    /// A table from bytes, 8 bits per entry; `None` when there are not 64 bytes or one is 0.
    pub fn from_u8(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 64] = bytes.try_into().ok()?;
        Self::new(bytes.map(u16::from))
    }

    /// A table from bytes, 16 bits per entry; `None` when there are not 128 bytes or an entry is 0.
    pub fn from_u16(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 128] = bytes.try_into().ok()?;
        let mut entries = [0; 64];
        for (entry, pair) in entries.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *entry = u16::from_be_bytes(*pair);
        }
        Self::new(entries)
    }

    /// The entries in zig-zag order.
    pub const fn entries(&self) -> &[u16; 64] {
        &self.entries
    }

    /// Whether every entry fits in 8 bits, as baseline JPEG asks.
    pub fn fits_u8(&self) -> bool {
        self.entries.iter().all(|&entry| entry <= 255)
    }

    fn scaled(base: &[u8; 64], scale: u32) -> Self {
        let mut entries = [1; 64];
        for (entry, &place) in entries.iter_mut().zip(&ZIGZAG) {
            let value = base.get(usize::from(place)).copied().unwrap_or(1);
            *entry = scale_entry(value, scale);
        }
        Self { entries }
    }
}

/// RFC 2435 appendix A: the factor in per cent behind a Q of 1 to 99.
const fn scale_of(q: u8) -> u32 {
    if q < 50 { 5000 / q as u32 } else { 200 - 2 * q as u32 }
}

fn scale_entry(base: u8, scale: u32) -> u16 {
    let value = (u32::from(base) * scale + 50) / 100;
    // Clamped first, so the conversion cannot fail.
    u16::try_from(value.clamp(1, 255)).unwrap_or(255)
}

/// The two tables of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Table of the luma component.
    pub luma: Table,
    /// Table of both chroma components.
    pub chroma: Table,
}

impl Tables {
    /// The tables that a Q of 1 to 99 stands for (RFC 2435 §4.2, appendix A); `None` for any other Q.
    pub fn for_q(q: u8) -> Option<Self> {
        (1..=99).contains(&q).then(|| {
            let scale = scale_of(q);
            Self { luma: Table::scaled(&LUMA, scale), chroma: Table::scaled(&CHROMA, scale) }
        })
    }

    /// The Q of 1 to 99 that stands for exactly these tables, if there is one.
    pub fn exact_q(&self) -> Option<u8> {
        // The first luma entry alone rules out nearly every Q.
        let [first, ..] = self.luma.entries;
        (1..=99).find(|&q| scale_entry(16, scale_of(q)) == first && Self::for_q(q).as_ref() == Some(self))
    }

    /// Reads the table data of a quantisation table header (RFC 2435 §3.1.8). One table serves luma and
    /// chroma; those after the second are ignored, because senders exist that send three.
    /// `None` when the length fits no whole tables or an entry is 0.
    pub fn from_wire(precision: u8, data: &[u8]) -> Option<Self> {
        let (luma, rest) = Self::split_table(precision & 1 != 0, data)?;
        if rest.is_empty() {
            return Some(Self { luma, chroma: luma });
        }
        let (chroma, rest) = Self::split_table(precision & 2 != 0, rest)?;
        rest.len().is_multiple_of(64).then_some(Self { luma, chroma })
    }

    fn split_table(wide: bool, data: &[u8]) -> Option<(Table, &[u8])> {
        let (table, rest) = data.split_at_checked(if wide { 128 } else { 64 })?;
        let table = if wide { Table::from_u16(table) } else { Table::from_u8(table) };
        Some((table?, rest))
    }

    /// The 128 bytes of both tables with 8 bits per entry; `None` when an entry needs more.
    pub fn to_wire(&self) -> Option<[u8; 128]> {
        let mut wire = [0; 128];
        let entries = self.luma.entries.iter().chain(&self.chroma.entries);
        for (byte, &entry) in wire.iter_mut().zip(entries) {
            *byte = u8::try_from(entry).ok()?;
        }
        Some(wire)
    }
}

/// How a sender tells receivers the quantisation tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantPolicy {
    /// Q 1 to 99 when it stands for exactly the frame's tables, else Q 255 with the tables in every frame.
    /// Every receiver understands this.
    #[default]
    Auto,
    /// Q 1 to 99 only; frames with other tables are refused.
    Static,
    /// Q 128 to 254 with the tables in the first frame and again after `resend` (for late joiners).
    /// Fewer bytes, but some receivers do not keep the tables.
    InbandOnce {
        /// Time between two frames that carry the tables.
        resend: Duration,
    },
    /// Q 255 with the tables in every frame.
    InbandEveryFrame,
}

/// The Q of one frame, and whether the frame carries its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantChoice {
    /// Q value of the main header.
    pub q: u8,
    /// Whether the first packet carries the tables; otherwise, with Q ≥ 128, it says "as sent before".
    pub send_tables: bool,
}

/// Chooses the Q of each frame of a stream after a [`QuantPolicy`].
#[derive(Clone, Debug, Default)]
pub struct QuantSelector {
    policy: QuantPolicy,
    /// Tables given a Q from 128 on, and when they were last sent; `None` = they go with the next frame.
    known: Vec<(Tables, Option<Duration>)>,
}

impl QuantSelector {
    /// A selector that has sent nothing yet.
    pub const fn new(policy: QuantPolicy) -> Self {
        Self { policy, known: Vec::new() }
    }

    /// Forgets what was sent: the next frame carries its tables again.
    pub fn reset(&mut self) {
        self.known.clear();
    }

    /// Sends tables with the next frame that uses them, for a receiver that has just joined. The Q of each
    /// stays what it was.
    pub fn resend(&mut self) {
        for (_, sent) in &mut self.known {
            *sent = None;
        }
    }

    /// The Q for a frame with these tables at the time `now` (any clock that does not run backwards).
    /// `None` when the policy is [`QuantPolicy::Static`] and no Q of 1 to 99 stands for them.
    pub fn choose(&mut self, tables: &Tables, now: Duration) -> Option<QuantChoice> {
        let every_frame = QuantChoice { q: 255, send_tables: true };
        let fixed = |q| QuantChoice { q, send_tables: false };
        match self.policy {
            QuantPolicy::Auto => Some(tables.exact_q().map_or(every_frame, fixed)),
            QuantPolicy::Static => tables.exact_q().map(fixed),
            QuantPolicy::InbandEveryFrame => Some(every_frame),
            QuantPolicy::InbandOnce { resend } => Some(self.inband(tables, now, resend)),
        }
    }

    /// A Q of 128 to 254 means the same tables for the whole session (RFC 2435 §3.1.8), so other tables
    /// get the next Q, and 255 when all are taken.
    fn inband(&mut self, tables: &Tables, now: Duration, resend: Duration) -> QuantChoice {
        if let Some((q, (_, sent))) = (128..=254).zip(&mut self.known).find(|(_, (known, _))| known == tables)
        {
            let send_tables = sent.is_none_or(|sent| now.saturating_sub(sent) >= resend);
            if send_tables {
                *sent = Some(now);
            }
            return QuantChoice { q, send_tables };
        }
        match u8::try_from(128 + self.known.len()) {
            Ok(q) if q < 255 => {
                self.known.push((*tables, Some(now)));
                QuantChoice { q, send_tables: true }
            }
            _ => QuantChoice { q: 255, send_tables: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: u16) -> Tables {
        let table = Table::new([value; 64]).unwrap();
        Tables { luma: table, chroma: table }
    }

    #[test]
    fn q50_is_annex_k_in_zigzag_order() {
        let tables = Tables::for_q(50).unwrap();
        assert_eq!(tables.luma.entries()[..8], [16, 11, 12, 14, 12, 10, 16, 14]);
        assert_eq!(tables.chroma.entries()[..8], [17, 18, 18, 24, 21, 24, 47, 26]);
        assert_eq!(tables.luma.entries()[63], 99);
    }

    #[test]
    fn scaling_follows_the_formula_at_its_ends() {
        assert_eq!(Tables::for_q(1).unwrap(), flat(255));
        let best = Tables::for_q(99).unwrap();
        assert_eq!((best.luma.entries()[0], best.luma.entries()[63]), (1, 2));
        assert_eq!(Tables::for_q(25).unwrap().luma.entries()[0], 32);
        for q in [0, 100, 127, 128, 255] {
            assert_eq!(Tables::for_q(q), None);
        }
    }

    #[test]
    fn every_q_is_found_again_and_a_changed_table_is_not() {
        for q in 1..=99 {
            let mut tables = Tables::for_q(q).unwrap();
            assert_eq!(tables.exact_q(), Some(q));
            let last = &mut tables.chroma.entries[63];
            *last = if *last == 255 { 254 } else { *last + 1 };
            assert_eq!(tables.exact_q(), None);
        }
    }

    #[test]
    fn wire_tables_of_one_two_three_and_wide() {
        let tables = Tables::for_q(75).unwrap();
        let wire = tables.to_wire().unwrap();
        assert_eq!(Tables::from_wire(0, &wire), Some(tables));
        assert_eq!(Tables::from_wire(0xfc, &wire), Some(tables), "bits beyond the tables are ignored");
        let one = Tables::from_wire(0, &wire[..64]).unwrap();
        assert_eq!((one.luma, one.chroma), (tables.luma, tables.luma));
        let three = [&wire[..], &[7; 64]].concat();
        assert_eq!(Tables::from_wire(0, &three), Some(tables));
        let wide: Vec<u8> = wire.iter().flat_map(|&byte| [1, byte]).collect();
        assert_eq!(Tables::from_wire(3, &wide).unwrap().luma.entries()[0], 256 + u16::from(wire[0]));
        assert!(Tables::from_wire(3, &wide).unwrap().to_wire().is_none());
        assert_eq!(
            Tables::from_wire(1, &wide[..128]).unwrap().chroma,
            Table::from_u16(&wide[..128]).unwrap()
        );
        let mixed = [&wide[..128], &wire[64..]].concat();
        assert_eq!(Tables::from_wire(1, &mixed).unwrap().chroma, tables.chroma);
    }

    #[test]
    fn wire_tables_of_wrong_length_or_with_a_zero_are_refused() {
        for length in [0, 1, 63, 65, 127, 129, 191] {
            assert_eq!(Tables::from_wire(0, &vec![1; length]), None, "{length}");
        }
        assert_eq!(Tables::from_wire(1, &[1; 64]), None);
        assert_eq!(Tables::from_wire(0, &[0; 64]), None);
    }

    #[test]
    fn auto_prefers_an_exact_q_and_static_refuses_others() {
        let now = Duration::ZERO;
        let known = Tables::for_q(80).unwrap();
        let fixed = Some(QuantChoice { q: 80, send_tables: false });
        let every = Some(QuantChoice { q: 255, send_tables: true });
        assert_eq!(QuantSelector::new(QuantPolicy::Auto).choose(&known, now), fixed);
        assert_eq!(QuantSelector::new(QuantPolicy::Auto).choose(&flat(3), now), every);
        assert_eq!(QuantSelector::new(QuantPolicy::Static).choose(&known, now), fixed);
        assert_eq!(QuantSelector::new(QuantPolicy::Static).choose(&flat(3), now), None);
        assert_eq!(QuantSelector::new(QuantPolicy::InbandEveryFrame).choose(&known, now), every);
    }

    #[test]
    fn inband_once_sends_again_after_the_interval_and_gives_other_tables_another_q() {
        let mut selector = QuantSelector::new(QuantPolicy::InbandOnce { resend: Duration::from_secs(2) });
        let mut at = |tables, ms| {
            let choice = selector.choose(&tables, Duration::from_millis(ms)).unwrap();
            (choice.q, choice.send_tables)
        };
        assert_eq!(at(flat(3), 0), (128, true));
        assert_eq!(at(flat(3), 1999), (128, false));
        assert_eq!(at(flat(4), 1999), (129, true));
        assert_eq!(at(flat(3), 2000), (128, true));
        assert_eq!(at(flat(3), 2001), (128, false));
        for value in 5..=129 {
            at(flat(value), 3000);
        }
        assert_eq!(at(flat(200), 3000), (255, true), "all of 128 to 254 are taken");
        assert_eq!(at(flat(129), 3001), (254, false));
        selector.resend();
        let choice = selector.choose(&flat(4), Duration::from_millis(3002));
        assert_eq!(choice, Some(QuantChoice { q: 129, send_tables: true }), "same Q, sent again");
        selector.reset();
        assert_eq!(
            selector.choose(&flat(9), Duration::ZERO),
            Some(QuantChoice { q: 128, send_tables: true })
        );
    }
}
