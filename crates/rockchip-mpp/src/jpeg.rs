// SPDX-License-Identifier: MIT OR Apache-2.0

//! As much of a JPEG picture as has to be known to bring memory for it: its size (ITU-T T.81, B.2.2).

/// Most pixels of a picture: 8192x8192. The hardware's decoders end there or before.
const MAX_PIXELS: u32 = 8192 * 8192;

/// Width and height of a picture; none if it has none, or an unreasonable one.
pub(crate) fn size(data: &[u8]) -> Option<(u32, u32)> {
    let mut rest = data.strip_prefix(&[0xff, 0xd8])?;
    loop {
        // A marker, in front of which any number of fill bytes may stand.
        rest = rest.strip_prefix(&[0xff])?;
        let (&marker, after) = rest.split_first()?;
        match marker {
            0xff => continue,
            // Without a length: TEM, RST, SOI.
            0x01 | 0xd0..=0xd8 => {
                rest = after;
                continue;
            }
            // The entropy-coded data, or the end, come before any size.
            0xda | 0xd9 => return None,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(after.get(..2)?.try_into().ok()?));
        let segment = after.get(2..length)?;
        // SOF0 to SOF15 but DHT, JPG and DAC, which stand between them.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let [_, y1, y0, x1, x0, ..] = segment else { return None };
            let height = u32::from(u16::from_be_bytes([*y1, *y0]));
            let width = u32::from(u16::from_be_bytes([*x1, *x0]));
            // A height of 0 comes later, in a DNL marker; the hardware doesn't know that.
            let pixels = width.checked_mul(height)?;
            return (pixels > 0 && pixels <= MAX_PIXELS).then_some((width, height));
        }
        rest = after.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u16, height: u16) -> Vec<u8> {
        let mut data =
            vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xdb, 0, 3, 9, 0xff, 0xc0, 0, 8, 8];
        data.extend(height.to_be_bytes());
        data.extend(width.to_be_bytes());
        data.extend([3, 0xff, 0xda]);
        data
    }

    #[test]
    fn sizes_are_found_behind_other_segments() {
        assert_eq!(size(&picture(640, 480)), Some((640, 480)));
        assert_eq!(size(&picture(8192, 8192)), Some((8192, 8192)));
    }

    #[test]
    fn what_is_no_picture_has_no_size() {
        for bad in [picture(0, 480), picture(640, 0), picture(65535, 65535)] {
            assert_eq!(size(&bad), None);
        }
        let whole = picture(640, 480);
        // Cut anywhere before the width's end.
        for length in 0..whole.len() - 3 {
            assert_eq!(size(&whole[..length]), None, "{length}");
        }
        assert_eq!(size(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), None);
        assert_eq!(size(&[0xff, 0xd8, 0xff, 0xe0, 0, 0, 0xff, 0xc0]), None);
        assert_eq!(size(b"no picture"), None);
    }
}
