// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes the JPEG header segments that RTP/JPEG leaves out (RFC 2435 §4.2 and appendix B).

use crate::header::Sampling;
use crate::huffman::{AC_CHROMA, AC_LUMA, DC_CHROMA, DC_LUMA};
use crate::quant::{Table, Tables};

/// Room for the longest header segments: SOI, two 16-bit DQT, DRI, SOF0, four DHT, SOS.
pub(crate) const MAX_HEADER: usize = 2 + 2 * (5 + 128) + 6 + 19 + 4 * 5 + 2 * 28 + 2 * 178 + 14;

/// What the header segments say.
pub(crate) struct Picture<'a> {
    pub width: u16,
    pub height: u16,
    pub sampling: Sampling,
    pub tables: &'a Tables,
    pub restart_interval: u16,
}

/// Bytes in a fixed array; longer input is cut, which the size of the array rules out.
pub(crate) struct HeaderBytes {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl HeaderBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn put_table(&mut self, id: u8, table: &Table) {
        // Pq, the upper half of the byte, says how wide the entries are (T.81 B.2.4.1).
        if table.fits_u8() {
            self.put(&[0xff, 0xdb, 0, 67, id]);
            for &entry in table.entries() {
                self.put(&[entry.to_be_bytes()[1]]);
            }
        } else {
            self.put(&[0xff, 0xdb, 0, 131, 0x10 | id]);
            for &entry in table.entries() {
                self.put(&entry.to_be_bytes());
            }
        }
    }

    fn put_huffman(&mut self, class_and_id: u8, table: &[u8]) {
        let [high, low] = u16::try_from(table.len() + 3).unwrap_or(0).to_be_bytes();
        self.put(&[0xff, 0xc4, high, low, class_and_id]);
        self.put(table);
    }
}

/// SOI to SOS, everything that precedes the scan.
pub(crate) fn header(picture: &Picture<'_>) -> HeaderBytes {
    let mut out = HeaderBytes { bytes: [0; MAX_HEADER], len: 0 };
    out.put(&[0xff, 0xd8]);
    out.put_table(0, &picture.tables.luma);
    out.put_table(1, &picture.tables.chroma);
    if picture.restart_interval != 0 {
        let [high, low] = picture.restart_interval.to_be_bytes();
        out.put(&[0xff, 0xdd, 0, 4, high, low]);
    }
    let ([w1, w0], [h1, h0]) = (picture.width.to_be_bytes(), picture.height.to_be_bytes());
    let luma = match picture.sampling {
        Sampling::Yuv422 => 0x21,
        Sampling::Yuv420 => 0x22,
    };
    out.put(&[0xff, 0xc0, 0, 17, 8, h1, h0, w1, w0, 3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1]);
    out.put_huffman(0x00, &DC_LUMA);
    out.put_huffman(0x10, &AC_LUMA);
    out.put_huffman(0x01, &DC_CHROMA);
    out.put_huffman(0x11, &AC_CHROMA);
    out.put(&[0xff, 0xda, 0, 12, 3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
    out
}

/// Appends one restart interval of `mcus` grey units.
pub(crate) fn put_grey(out: &mut Vec<u8>, sampling: Sampling, mcus: u32) {
    // Luma: DC 0 is 00 and end of block 1010; chroma: 00 and 00. After a restart marker DC 0 is mid-grey.
    let (bits, length) = match sampling {
        Sampling::Yuv422 => (0x28a00_u32, 20),
        Sampling::Yuv420 => (0x28a2_8a00, 32),
    };
    let (mut held, mut count) = (0_u64, 0_u32);
    for _ in 0..mcus {
        held = held << length | u64::from(bits);
        count += length;
        while count >= 8 {
            count -= 8;
            out.push((held >> count) as u8);
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        // T.81 F.1.2.3: the last byte is padded with ones. Its codes begin with zeros, so it is not FF.
        out.push((held << (8 - count)) as u8 | (0xff >> count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::huffman::scan_length;
    use crate::parse::Jpeg;

    #[test]
    fn header_segments_parse_back_to_the_same_picture() {
        for (sampling, restart_interval, blocks) in [(Sampling::Yuv420, 0, 4), (Sampling::Yuv422, 3, 2)] {
            let tables = Tables::for_q(60).unwrap();
            let picture = Picture { width: 33, height: 20, sampling, tables: &tables, restart_interval };
            let mut data = header(&picture).as_slice().to_vec();
            let mcus = sampling.mcus(33, 20);
            let start = data.len();
            if restart_interval == 0 {
                put_grey(&mut data, sampling, mcus);
            } else {
                for interval in 0..mcus.div_ceil(3) {
                    put_grey(&mut data, sampling, 3.min(mcus - 3 * interval));
                    data.extend([0xff, 0xd0 + interval as u8 % 8]);
                }
                data.truncate(data.len() - 2);
            }
            assert_eq!(scan_length(&data[start..], blocks, mcus, restart_interval), Some(data.len() - start));
            data.extend([0xff, 0xd9]);
            let jpeg = Jpeg::parse(&data).unwrap();
            assert_eq!((jpeg.width(), jpeg.height(), jpeg.sampling()), (33, 20, sampling));
            assert_eq!((jpeg.tables(), jpeg.restart_interval()), (&tables, restart_interval));
        }
    }

    #[test]
    fn the_longest_header_fits() {
        let wide = Table::new([256; 64]).unwrap();
        let tables = Tables { luma: wide, chroma: wide };
        let picture =
            Picture { width: 8, height: 8, sampling: Sampling::Yuv420, tables: &tables, restart_interval: 1 };
        let header = header(&picture);
        assert_eq!(header.as_slice().len(), MAX_HEADER);
        assert_eq!(header.as_slice()[2..7], [0xff, 0xdb, 0, 131, 0x10]);
        assert!(header.as_slice().ends_with(&[0, 63, 0]));
    }
}
