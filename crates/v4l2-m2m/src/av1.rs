// SPDX-License-Identifier: MIT OR Apache-2.0

//! AV1, as much of it as an encoder's output has to be looked at: OBUs (AV1 specification, §5.3, §5.9.2), and the IVF
//! that one release of NVIDIA's library wraps it in.

/// `OBU_SEQUENCE_HEADER` and its neighbours, §6.2.2.
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

/// An OBU of a stream where each tells its size.
pub(crate) struct Obu<'a> {
    pub start: usize,
    pub end: usize,
    kind: u8,
    payload: &'a [u8],
}

/// What an OBU means to an encoder's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SequenceHeader,
    Delimiter,
    /// A frame that can be decoded by itself.
    Key,
    Frame,
    Other,
}

impl Obu<'_> {
    pub fn kind(&self) -> Kind {
        match self.kind {
            SEQUENCE_HEADER => Kind::SequenceHeader,
            TEMPORAL_DELIMITER => Kind::Delimiter,
            // §5.9.2: show_existing_frame, then frame_type, of which 0 is KEY_FRAME.
            FRAME | FRAME_HEADER => match self.payload.first() {
                Some(first) if first & 0b1110_0000 == 0 => Kind::Key,
                _ => Kind::Frame,
            },
            _ => Kind::Other,
        }
    }
}

/// §4.10.5; the value, and how many bytes it takes.
fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

/// The OBUs; ends at the first that makes no sense. One without a size goes to the end.
pub(crate) fn obus(data: &[u8]) -> impl Iterator<Item = Obu<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let first = *data.get(start)?;
        if first & 0x80 != 0 {
            return None;
        }
        let mut body = start + 1 + usize::from(first & 0b100 != 0);
        let end = if first & 0b10 != 0 {
            let (size, length) = leb128(data.get(body..)?)?;
            body += length;
            body.checked_add(size).filter(|end| *end <= data.len())?
        } else {
            data.len()
        };
        at = end;
        Some(Obu { start, end, kind: first >> 3 & 0b1111, payload: data.get(body..end)? })
    })
}

/// Takes off the headers of IVF: 32 bytes before the first frame, 12 before each. What has none comes back as it is.
pub(crate) fn without_ivf(mut data: Vec<u8>) -> Vec<u8> {
    let mut skip = 0;
    if data.starts_with(b"DKIF")
        && let Some(&[low, high]) = data.get(6..8)
    {
        skip = usize::from(u16::from_le_bytes([low, high]));
    }
    let frame = data.get(skip..).unwrap_or_default();
    if let (Some(size), Some(rest)) = (frame.first_chunk().map(|size| u32::from_le_bytes(*size)), frame.get(12..))
        && size as usize == rest.len()
        // A temporal unit begins with a delimiter, which is empty.
        && (skip > 0 || rest.starts_with(&[TEMPORAL_DELIMITER << 3 | 0b10, 0]))
    {
        skip += 12;
    }
    data.drain(..skip.min(data.len()));
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delimiter, sequence header, key frame.
    const KEY: &[u8] = &[0x12, 0, 0x0a, 2, 0xaa, 0xbb, 0x32, 3, 0x10, 1, 2];

    #[test]
    fn obus_and_their_kinds() {
        let kinds: Vec<_> = obus(KEY).map(|obu| obu.kind()).collect();
        assert_eq!(kinds, [Kind::Delimiter, Kind::SequenceHeader, Kind::Key]);
        let inter = [0x12, 0, 0x32, 2, 0x30, 1];
        assert_eq!(obus(&inter).last().unwrap().kind(), Kind::Frame);
        let shown_again = [0x1a, 1, 0x80];
        assert_eq!(obus(&shown_again).last().unwrap().kind(), Kind::Frame, "show_existing_frame");
    }

    #[test]
    fn any_bytes_are_taken() {
        for data in
            [&[][..], &[0x80], &[0x12], &[0x12, 0x80], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x32, 9, 1]]
        {
            assert_eq!(obus(data).count(), 0, "{data:?}");
            assert_eq!(without_ivf(data.to_vec()), data);
        }
        // Without a size, to the end.
        assert_eq!(obus(&[0x30, 1, 2]).map(|obu| obu.end).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn ivf_is_taken_off() {
        let length = (KEY.len() as u32).to_le_bytes();
        let frame = [&length[..], &[0; 8], KEY].concat();
        let mut file = b"DKIF\0\0\x20\0AV01".to_vec();
        file.resize(32, 0);
        assert_eq!(without_ivf([&file[..], &frame].concat()), KEY);
        assert_eq!(without_ivf(frame.clone()), KEY);
        assert_eq!(without_ivf(KEY.to_vec()), KEY);
        assert_eq!(without_ivf(frame[..20].to_vec()), frame[..20], "a size that is not true");
        assert_eq!(without_ivf(b"DKIF\0\0\xff\xff".to_vec()), b"", "a header that is longer than the file");
    }
}
