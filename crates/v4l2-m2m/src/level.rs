// SPDX-License-Identifier: MIT OR Apache-2.0

//! The least level that a stream fits into. A level that is too low makes drivers refuse to stream, or decoders to
//! play; the kernel's default is the first of its menu.

/// What decides about the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Frames per second, as a fraction.
    pub rate: (u32, u32),
    /// Peak, bit/s.
    pub bitrate: u32,
}

/// A level: its name in caps and its number in the kernel's menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// As in GStreamer's caps.
    pub name: &'static str,
    /// Index in the menu of the control.
    pub menu: i64,
    /// `level_idc` in the stream (H.264: ten times the level; H.265: thirty times).
    pub idc: u8,
}

/// H.264, Table A-1: MaxMBPS, MaxFS (macroblocks), MaxBR (1000 bit/s for VCL in Baseline and Main).
const H264: [(Level, u64, u64, u64); 20] = [
    (level("1", 0, 10), 1_485, 99, 64),
    (level("1b", 1, 9), 1_485, 99, 128),
    (level("1.1", 2, 11), 3_000, 396, 192),
    (level("1.2", 3, 12), 6_000, 396, 384),
    (level("1.3", 4, 13), 11_880, 396, 768),
    (level("2", 5, 20), 11_880, 396, 2_000),
    (level("2.1", 6, 21), 19_800, 792, 4_000),
    (level("2.2", 7, 22), 20_250, 1_620, 4_000),
    (level("3", 8, 30), 40_500, 1_620, 10_000),
    (level("3.1", 9, 31), 108_000, 3_600, 14_000),
    (level("3.2", 10, 32), 216_000, 5_120, 20_000),
    (level("4", 11, 40), 245_760, 8_192, 20_000),
    (level("4.1", 12, 41), 245_760, 8_192, 50_000),
    (level("4.2", 13, 42), 522_240, 8_704, 50_000),
    (level("5", 14, 50), 589_824, 22_080, 135_000),
    (level("5.1", 15, 51), 983_040, 36_864, 240_000),
    (level("5.2", 16, 52), 2_073_600, 36_864, 240_000),
    (level("6", 17, 60), 4_177_920, 139_264, 240_000),
    (level("6.1", 18, 61), 8_355_840, 139_264, 480_000),
    (level("6.2", 19, 62), 16_711_680, 139_264, 800_000),
];

/// H.265, Tables A.8 and A.9: MaxLumaPs, MaxLumaSr, MaxBR (1000 bit/s) of the main tier.
const H265: [(Level, u64, u64, u64); 13] = [
    (level("1", 0, 30), 36_864, 552_960, 128),
    (level("2", 1, 60), 122_880, 3_686_400, 1_500),
    (level("2.1", 2, 63), 245_760, 7_372_800, 3_000),
    (level("3", 3, 90), 552_960, 16_588_800, 6_000),
    (level("3.1", 4, 93), 983_040, 33_177_600, 10_000),
    (level("4", 5, 120), 2_228_224, 66_846_720, 12_000),
    (level("4.1", 6, 123), 2_228_224, 133_693_440, 20_000),
    (level("5", 7, 150), 8_912_896, 267_386_880, 25_000),
    (level("5.1", 8, 153), 8_912_896, 534_773_760, 40_000),
    (level("5.2", 9, 156), 8_912_896, 1_069_547_520, 60_000),
    (level("6", 10, 180), 35_651_584, 1_069_547_520, 60_000),
    (level("6.1", 11, 183), 35_651_584, 2_139_095_040, 120_000),
    (level("6.2", 12, 186), 35_651_584, 4_278_190_080, 240_000),
];

const fn level(name: &'static str, menu: i64, idc: u8) -> Level {
    Level { name, menu, idc }
}

/// `per_frame` times the frame rate, rounded up.
fn per_second(per_frame: u64, rate: (u32, u32)) -> u64 {
    per_frame.saturating_mul(rate.0.into()).div_ceil(u64::from(rate.1.max(1)))
}

/// The least level of H.264 (Table A-1), or the greatest if none is enough. `high`: High profile, whose bitrates are a
/// quarter greater (Table A-2).
#[must_use]
pub fn h264(stream: &Stream, high: bool) -> Level {
    let (columns, rows) = (u64::from(stream.width.div_ceil(16)), u64::from(stream.height.div_ceil(16)));
    let frame = columns * rows;
    let rate = per_second(frame, stream.rate);
    let factor = if high { 1_250 } else { 1_000 };
    least(&H264, |&(level, max_rate, max_frame, max_bitrate)| {
        // 1b needs a flag of its own in old profiles, which not every driver sets; nobody misses it.
        level.name != "1b"
            && frame <= max_frame
            && rate <= max_rate
            && columns * columns <= 8 * max_frame
            && rows * rows <= 8 * max_frame
            && u64::from(stream.bitrate) <= max_bitrate * factor
    })
}

/// The least level of H.265 in the main tier (Tables A.8 and A.9), or the greatest if none is enough.
#[must_use]
pub fn h265(stream: &Stream) -> Level {
    let (width, height) = (u64::from(stream.width), u64::from(stream.height));
    let rate = per_second(width * height, stream.rate);
    least(&H265, |&(_, max_frame, max_rate, max_bitrate)| {
        width * height <= max_frame
            && rate <= max_rate
            && width * width <= 8 * max_frame
            && height * height <= 8 * max_frame
            && u64::from(stream.bitrate) <= max_bitrate * 1_000
    })
}

fn least<T>(table: &[(Level, T, T, T)], fits: impl Fn(&(Level, T, T, T)) -> bool) -> Level {
    let found = table.iter().find(|row| fits(row)).or(table.last());
    found.map_or(level("", 0, 0), |row| row.0)
}

/// Names and menu numbers of the H.264 levels, in order.
pub fn h264_levels() -> impl DoubleEndedIterator<Item = Level> {
    H264.iter().map(|row| row.0)
}

/// Names and menu numbers of the H.265 levels, in order.
pub fn h265_levels() -> impl DoubleEndedIterator<Item = Level> {
    H265.iter().map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(width: u32, height: u32, fps: u32, bitrate: u32) -> Stream {
        Stream { width, height, rate: (fps, 1), bitrate }
    }

    #[test]
    fn h264_by_size_rate_and_bitrate() {
        for (width, height, fps, bitrate, name) in [
            (176, 144, 15, 64_000, "1"),
            (640, 480, 30, 1_000_000, "3"),
            (1280, 720, 30, 2_000_000, "3.1"),
            (1280, 720, 60, 2_000_000, "3.2"),
            (1920, 1080, 30, 4_000_000, "4"),
            (1920, 1080, 30, 25_000_000, "4.1"),
            (1920, 1080, 60, 4_000_000, "4.2"),
            (3840, 2160, 30, 20_000_000, "5.1"),
            (3840, 2160, 60, 20_000_000, "5.2"),
            (7680, 4320, 30, 20_000_000, "6"),
            // Wide and flat: the frame fits into 3, the width does not.
            (4096, 64, 30, 1_000_000, "4"),
            (30_000, 30_000, 60, 1, "6.2"),
        ] {
            assert_eq!(
                h264(&stream(width, height, fps, bitrate), false).name,
                name,
                "{width}x{height}@{fps} {bitrate}"
            );
        }
    }

    #[test]
    fn h264_high_profile_allows_a_quarter_more() {
        let stream = stream(1920, 1080, 30, 24_000_000);
        assert_eq!(h264(&stream, false).name, "4.1");
        assert_eq!(h264(&stream, true).name, "4");
    }

    #[test]
    fn h265_by_size_rate_and_bitrate() {
        for (width, height, fps, bitrate, name) in [
            (640, 360, 30, 1_000_000, "2.1"),
            (1280, 720, 30, 2_000_000, "3.1"),
            (1920, 1080, 30, 4_000_000, "4"),
            (1920, 1080, 60, 4_000_000, "4.1"),
            (1920, 1080, 30, 15_000_000, "4.1"),
            (3840, 2160, 30, 20_000_000, "5"),
            (3840, 2160, 60, 20_000_000, "5.1"),
        ] {
            assert_eq!(
                h265(&stream(width, height, fps, bitrate)).name,
                name,
                "{width}x{height}@{fps} {bitrate}"
            );
        }
    }

    #[test]
    fn fractions_and_nonsense() {
        assert_eq!(h264(&Stream { rate: (30_000, 1_001), ..stream(1280, 720, 0, 1) }, false).name, "3.1");
        assert_eq!(h264(&Stream { rate: (30, 0), ..stream(1280, 720, 0, 1) }, false).name, "3.1");
        assert_eq!(h265(&Stream { rate: (u32::MAX, 1), ..stream(u32::MAX, u32::MAX, 0, 1) }).name, "6.2");
    }
}
