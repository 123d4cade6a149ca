// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the simulator imitates and what goes wrong in it, from the environment or by `mpp_sim_configure`.

use crate::registry::lock;
use rockchip_mpp_sys::consts::{
    MPP_FRAME_FLAG_BOT_FIRST, MPP_FRAME_FLAG_FIELD_ORDER_MASK, MPP_FRAME_FLAG_TOP_FIRST,
};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

/// Environment variable with the options at the start.
pub const ENV: &str = "MPP_SIM";

/// A release whose behaviour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.0.0, July 2023.
    V1_0_0,
    /// 1.0.4, February 2024.
    V1_0_4,
    /// 1.0.8, December 2024.
    V1_0_8,
    /// A snapshot of February 2025.
    Snapshot2025_02,
    /// 1.0.9, April 2025.
    V1_0_9,
    /// 1.0.10, June 2025.
    V1_0_10,
    /// 1.0.11, September 2025.
    V1_0_11,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V1_0_0,
        Self::V1_0_4,
        Self::V1_0_8,
        Self::Snapshot2025_02,
        Self::V1_0_9,
        Self::V1_0_10,
        Self::V1_0_11,
    ];

    /// As written in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_0_0 => "1.0.0",
            Self::V1_0_4 => "1.0.4",
            Self::V1_0_8 => "1.0.8",
            Self::Snapshot2025_02 => "2025-02",
            Self::V1_0_9 => "1.0.9",
            Self::V1_0_10 => "1.0.10",
            Self::V1_0_11 => "1.0.11",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == text)
    }
}

/// What can be told to the simulator. Counts of tasks (frames to encode, packets to decode) begin at 1 with each context.
#[derive(Clone, Debug)]
pub struct Options {
    /// `release`: which one is imitated.
    pub release: Release,
    /// `codec=instant`: no real coding.
    pub instant: bool,
    /// `latency-us`: how long the hardware takes for a task.
    pub latency: Duration,
    /// `cores`: tasks at a time for H.264, H.265 and decoding; 2 as on RK3588.
    pub cores: usize,
    /// `init-error`: what `mpp_init` returns; 0 = it works.
    pub init_error: i32,
    /// `without`: codecs that this chip lacks, numbers of MppCodingType separated by `+`.
    pub without: Vec<i32>,
    /// `hw-error-at`, `hw-error-count`: tasks that fail in hardware.
    pub hw_error: (u64, u64),
    /// `empty-at`, `empty-count`: frames that the rate control drops.
    pub empty: (u64, u64),
    /// `busy-input`: so many puts are refused as if the queue were full; counts down.
    pub busy_input: u64,
    /// `memory-limit`: bytes that all internal groups together may allocate.
    pub memory_limit: usize,
    /// `wedge-at`: this task and those after it never end; 0 = none.
    pub wedge_at: u64,
    /// `wedge-times`: so many contexts wedge, those after them do not; counts down.
    pub wedge_times: u64,
    /// `hold-at`: this task and those after it are not begun until the option is changed; 0 = none.
    pub hold_at: u64,
    /// `hold-out-at`: this task and those after it are begun and not finished until the option is changed; 0 = none.
    pub hold_out_at: u64,
    /// `wedge-ms`: when the kernel gives a blocking caller back.
    pub wedge: Duration,
    /// `borders`: columns to the left and rows above that decoded pictures have and do not show, as `16+8`. The columns must
    /// be a multiple of 4, the rows even; not for JPEG.
    pub borders: (u32, u32),
    /// `fields`: what decoded pictures say of their fields, `MPP_FRAME_FLAG_*`.
    pub fields: u32,
    /// `log=1`: messages on standard error, as with `mpp_syslog_perror=1`.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            release: Release::V1_0_11,
            instant: false,
            latency: Duration::ZERO,
            cores: 2,
            init_error: 0,
            without: Vec::new(),
            hw_error: (0, 0),
            empty: (0, 0),
            busy_input: 0,
            memory_limit: usize::MAX,
            wedge_at: 0,
            wedge_times: u64::MAX,
            hold_at: 0,
            hold_out_at: 0,
            wedge: Duration::from_millis(500),
            borders: (0, 0),
            fields: 0,
            log: std::env::var_os("mpp_syslog_perror").is_some_and(|v| v == "1"),
        }
    }
}

/// Whether a task is one of those from `first` on.
pub const fn hits((first, count): (u64, u64), task: u64) -> bool {
    first > 0 && task >= first && task - first < count
}

impl Options {
    /// Applies `key=value` pairs, separated by commas or white space; `default` on its own takes all back.
    ///
    /// # Errors
    /// The first pair that makes no sense; those before it are in force.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        for pair in text.split([',', ' ', '\n', '\t']).filter(|p| !p.is_empty()) {
            if pair == "default" {
                *self = Self::default();
                continue;
            }
            self.set(pair).ok_or_else(|| pair.to_owned())?;
        }
        Ok(())
    }

    fn set(&mut self, pair: &str) -> Option<()> {
        let (key, value) = pair.split_once('=')?;
        let number = || value.parse::<u64>().ok();
        match key {
            "release" => self.release = Release::parse(value)?,
            "codec" => {
                self.instant = match value {
                    "instant" => true,
                    "real" => false,
                    _ => return None,
                }
            }
            "latency-us" => self.latency = Duration::from_micros(number()?),
            "cores" => self.cores = usize::try_from(number()?).ok()?.clamp(1, 16),
            "init-error" => self.init_error = value.parse().ok()?,
            "without" => {
                self.without = value
                    .split('+')
                    .filter(|v| !v.is_empty())
                    .map(|v| v.parse().ok())
                    .collect::<Option<_>>()?;
            }
            "hw-error-at" => self.hw_error = (number()?, self.hw_error.1.max(1)),
            "hw-error-count" => self.hw_error.1 = number()?,
            "empty-at" => self.empty = (number()?, self.empty.1.max(1)),
            "empty-count" => self.empty.1 = number()?,
            "busy-input" => self.busy_input = number()?,
            "memory-limit" => self.memory_limit = usize::try_from(number()?).ok()?,
            "wedge-at" => self.wedge_at = number()?,
            "wedge-times" => self.wedge_times = number()?,
            "hold-at" => self.hold_at = number()?,
            "hold-out-at" => self.hold_out_at = number()?,
            "wedge-ms" => self.wedge = Duration::from_millis(number()?),
            "borders" => {
                let (x, y) = value.split_once('+')?;
                let (x, y) = (x.parse().ok()?, y.parse().ok()?);
                self.borders = (x % 4 == 0 && x <= 64 && y % 2 == 0 && y <= 64).then_some((x, y))?;
            }
            "fields" => {
                self.fields = match value {
                    "none" => 0,
                    "top-first" => MPP_FRAME_FLAG_TOP_FIRST,
                    "bottom-first" => MPP_FRAME_FLAG_BOT_FIRST,
                    "deinterlaced" => MPP_FRAME_FLAG_FIELD_ORDER_MASK,
                    _ => return None,
                }
            }
            "log" => self.log = number()? != 0,
            _ => return None,
        }
        Some(())
    }
}

static OPTIONS: LazyLock<Mutex<Options>> = LazyLock::new(|| {
    let mut options = Options::default();
    if let Some(text) = std::env::var_os(ENV) {
        let text = text.to_string_lossy().into_owned();
        if let Err(pair) = options.apply(&text) {
            options.log = true;
            crate::control::say(format_args!("{ENV}: {pair} is not understood"));
        }
    }
    Mutex::new(options)
});

/// Options in force.
pub fn options() -> Options {
    lock(&OPTIONS).clone()
}

/// The release that is imitated.
pub fn release() -> Release {
    lock(&OPTIONS).release
}

/// Whether messages are wanted.
pub fn wants_log() -> bool {
    lock(&OPTIONS).log
}

/// Changes the options.
pub fn configure(text: &str) -> Result<(), String> {
    if text.contains("default") {
        crate::control::COUNTERS.side_by_side.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    lock(&OPTIONS).apply(text)
}

/// Whether this task of a context that works wedges it; counts down.
pub fn wedges(task: u64) -> bool {
    let mut options = lock(&OPTIONS);
    let hit = options.wedge_at > 0 && task >= options.wedge_at && options.wedge_times > 0;
    options.wedge_times = options.wedge_times.saturating_sub(u64::from(hit));
    hit
}

/// Whether this task may not begin until the option is changed. Nobody tells when that happens: look again.
pub fn held(task: u64) -> bool {
    let first = lock(&OPTIONS).hold_at;
    first > 0 && task >= first
}

/// Whether this task may not be finished until the option is changed. Nobody tells, either.
pub fn held_out(task: u64) -> bool {
    let first = lock(&OPTIONS).hold_out_at;
    first > 0 && task >= first
}

/// Whether this put is to be refused; counts down.
pub fn refuse_put() -> bool {
    let mut options = lock(&OPTIONS);
    let refuse = options.busy_input > 0;
    options.busy_input = options.busy_input.saturating_sub(1);
    refuse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        let mut o = Options::default();
        o.apply("release=1.0.4, latency-us=13000\nhw-error-at=5,without=9+10").unwrap();
        assert_eq!((o.release, o.latency, o.hw_error), (Release::V1_0_4, Duration::from_millis(13), (5, 1)));
        assert_eq!(o.without, [9, 10]);
        assert_eq!(o.apply("cores=4,release=2.0"), Err("release=2.0".into()));
        assert_eq!(o.cores, 4);
        for bad in [
            "x",
            "latency-us=-1",
            "codec=fast",
            "nothing=1",
            "without=a",
            "borders=2+0",
            "borders=8",
            "fields=left",
        ] {
            assert_eq!(o.apply(bad), Err(bad.into()));
        }
        o.apply("default").unwrap();
        assert_eq!(o.hw_error, (0, 0));
    }

    #[test]
    fn counted_tasks() {
        let hit = |range| (1..=6).filter(|t| hits(range, *t)).collect::<Vec<_>>();
        assert_eq!(hit((3, 2)), [3, 4]);
        assert!(hit((0, 9)).is_empty());
        assert_eq!(hit((5, u64::MAX)), [5, 6]);
    }
}
