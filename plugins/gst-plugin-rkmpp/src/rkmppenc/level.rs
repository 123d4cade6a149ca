// SPDX-License-Identifier: MPL-2.0

//! Levels: the lowest that holds the stream, if the caps don't say which.

/// A level of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// As MPP has it: H.264 level × 10, H.265 level × 30.
    pub mpp: i32,
    /// As caps have it.
    pub name: &'static str,
}

/// What a stream demands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub width: u64,
    pub height: u64,
    /// Frames per second, rounded up.
    pub rate: u64,
    /// Bit/s, the peak.
    pub bitrate: u64,
}

/// H.264 (ITU-T H.264 table A-1): level, macroblocks per second, macroblocks per frame, kbit/s of baseline and main.
const H264: [(i32, &str, u64, u64, u64); 16] = [
    (10, "1", 1_485, 99, 64),
    (11, "1.1", 3_000, 396, 192),
    (12, "1.2", 6_000, 396, 384),
    (13, "1.3", 11_880, 396, 768),
    (20, "2", 11_880, 396, 2_000),
    (21, "2.1", 19_800, 792, 4_000),
    (22, "2.2", 20_250, 1_620, 4_000),
    (30, "3", 40_500, 1_620, 10_000),
    (31, "3.1", 108_000, 3_600, 14_000),
    (32, "3.2", 216_000, 5_120, 20_000),
    (40, "4", 245_760, 8_192, 20_000),
    (41, "4.1", 245_760, 8_192, 50_000),
    (42, "4.2", 522_240, 8_704, 50_000),
    (50, "5", 589_824, 22_080, 135_000),
    (51, "5.1", 983_040, 36_864, 240_000),
    (52, "5.2", 2_073_600, 36_864, 240_000),
];

/// H.265 (ITU-T H.265 tables A.8 and A.9), main tier: level, luma samples per second and per picture, kbit/s.
const H265: [(i32, &str, u64, u64, u64); 13] = [
    (30, "1", 552_960, 36_864, 128),
    (60, "2", 3_686_400, 122_880, 1_500),
    (63, "2.1", 7_372_800, 245_760, 3_000),
    (90, "3", 16_588_800, 552_960, 6_000),
    (93, "3.1", 33_177_600, 983_040, 10_000),
    (120, "4", 66_846_720, 2_228_224, 12_000),
    (123, "4.1", 133_693_440, 2_228_224, 20_000),
    (150, "5", 267_386_880, 8_912_896, 25_000),
    (153, "5.1", 534_773_760, 8_912_896, 40_000),
    (156, "5.2", 1_069_547_520, 8_912_896, 60_000),
    (180, "6", 1_069_547_520, 35_651_584, 60_000),
    (183, "6.1", 2_139_095_040, 35_651_584, 120_000),
    (186, "6.2", 4_278_190_080, 35_651_584, 240_000),
];

fn lowest(table: &[(i32, &'static str, u64, u64, u64)], rate: u64, size: u64, bitrate: u64) -> Option<Level> {
    table
        .iter()
        .find(|level| rate <= level.2 && size <= level.3 && bitrate <= level.4 * 1000)
        .or(table.last())
        .map(|level| Level { mpp: level.0, name: level.1 })
}

/// The lowest level of H.264 that holds the stream; the highest if none does.
pub(crate) fn h264(demand: Demand, high: bool) -> Option<Level> {
    let size = demand.width.div_ceil(16) * demand.height.div_ceil(16);
    // High profile may use a quarter more bits (table A-2).
    let bitrate = if high { demand.bitrate * 4 / 5 } else { demand.bitrate };
    lowest(&H264, size * demand.rate, size, bitrate)
}

/// The lowest level of H.265, main tier.
pub(crate) fn h265(demand: Demand) -> Option<Level> {
    let size = demand.width * demand.height;
    lowest(&H265, size * demand.rate, size, demand.bitrate)
}

/// The level of a name in caps.
pub(crate) fn h264_named(name: &str) -> Option<Level> {
    H264.iter().find(|level| level.1 == name).map(|level| Level { mpp: level.0, name: level.1 })
}

/// The level of a name in caps.
pub(crate) fn h265_named(name: &str) -> Option<Level> {
    H265.iter().find(|level| level.1 == name).map(|level| Level { mpp: level.0, name: level.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(width: u64, height: u64, rate: u64, bitrate: u64) -> Demand {
        Demand { width, height, rate, bitrate }
    }

    #[test]
    fn levels_hold_size_rate_and_bits() {
        let name = |demand, high| h264(demand, high).unwrap().name;
        assert_eq!(name(demand(1280, 720, 30, 4_000_000), true), "3.1");
        assert_eq!(name(demand(1920, 1080, 30, 8_000_000), true), "4");
        assert_eq!(name(demand(1920, 1080, 60, 8_000_000), true), "4.2");
        assert_eq!(name(demand(3840, 2160, 30, 20_000_000), true), "5.1");
        // 24 Mbit/s fit level 4 in high profile, not in main.
        assert_eq!(name(demand(1920, 1080, 30, 24_000_000), true), "4");
        assert_eq!(name(demand(1920, 1080, 30, 24_000_000), false), "4.1");
        assert_eq!(h264(demand(7680, 4320, 60, 1), true).unwrap().mpp, 52);

        assert_eq!(h265(demand(1920, 1080, 30, 8_000_000)).unwrap(), Level { mpp: 120, name: "4" });
        assert_eq!(h265(demand(3840, 2160, 60, 20_000_000)).unwrap().name, "5.1");
        assert_eq!(h264_named("4.1").unwrap().mpp, 41);
        assert_eq!(h265_named("4").unwrap().mpp, 120);
        assert_eq!(h264_named("9"), None);
    }
}
