// SPDX-License-Identifier: MIT OR Apache-2.0

//! What kind of board is played, and what goes wrong on it.

use std::time::Duration;

/// One board. Read anew at each `v4l2_open`: from the environment variable `NV_V4L2_SIM`, then from what follows a
/// `?` in the node's name; both are `key=value` separated by commas. Unknown keys make the open fail with `EINVAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `release=36.2`: major and minor number of Jetson Linux. Decides the node's name (reference §2.2) and whether AV1 comes
    /// wrapped in IVF (36.4, §2.6).
    pub release: (u32, u32),
    /// `node=no`: a board without NVENC, such as Orin Nano; `v4l2_open` answers `ENOENT`.
    pub node: bool,
    /// `open=16`: errno of `v4l2_open`.
    pub open_errno: i32,
    /// `av1=no`: a chip before Orin.
    pub av1: bool,
    /// `max=4096x4096`: S_FMT comes back with no more than that.
    pub max: (u32, u32),
    /// `sessions=2`: with that many devices set up, S_FMT of the next CAPTURE fails. 0 = no limit.
    pub sessions: usize,
    /// `bytesperline=real`: S_FMT tells the pitch; else it says 0.
    pub real_bytesperline: bool,
    /// `latency=7`: milliseconds from picture to packet.
    pub latency: Duration,
    /// `instant=yes`: nothing is coded after the first two pictures, for measuring what is around.
    pub instant: bool,
    /// `eos=empty|last|again`: how the end shows on CAPTURE: an empty buffer; an empty buffer with the LAST flag; `EAGAIN` with the
    /// LAST flag.
    pub eos: Eos,
    /// `key-flag=no`: packets don't carry the KEYFRAME flag.
    pub key_flag: bool,
    /// `header-only=yes`: parameter sets come in a buffer of their own before the first picture.
    pub header_only: bool,
    /// `capture-size=1000`: bytes of a CAPTURE buffer, whatever was asked for.
    pub capture_size: u32,
    /// `drop=5`: each fifth picture has no packet.
    pub drop: u64,
    /// `eio=10`: after ten pictures QBUF and DQBUF answer EIO.
    pub eio: Option<u64>,
    /// `enodev=10`: after ten pictures every call answers ENODEV.
    pub enodev: Option<u64>,
    /// `hang=10`: after ten pictures nothing comes back.
    pub hang: Option<u64>,
    /// `stop-hangs=no|yes`: whether STREAMOFF takes two seconds.
    pub slow_stop: bool,
    /// `hold=slices`: `nv_v4l2_sim_hold` holds only the slices of a picture behind its first, with which its buffer is back.
    pub hold_slices: bool,
    /// `busy=BITRATE+…` (names of the control table): these answer EBUSY while streaming.
    pub busy: Vec<String>,
    /// `refuse=…`: these answer EINVAL, as on a release that doesn't know them.
    pub refuse: Vec<String>,
    /// `ignore=…`: these are accepted and have no effect.
    pub ignore: Vec<String>,
    /// `tag=name`: reports of devices with this tag are kept apart.
    pub tag: String,
}

/// How the end of the stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eos {
    /// An empty buffer.
    Empty,
    /// An empty buffer with the LAST flag.
    Last,
    /// `EAGAIN`, with the LAST flag in the structure.
    Again,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            release: (36, 2),
            node: true,
            open_errno: 0,
            av1: true,
            max: (4096, 4096),
            sessions: 0,
            real_bytesperline: false,
            latency: Duration::from_millis(2),
            instant: false,
            eos: Eos::Empty,
            key_flag: true,
            header_only: false,
            capture_size: 0,
            drop: 0,
            eio: None,
            enodev: None,
            hang: None,
            slow_stop: false,
            hold_slices: false,
            busy: Vec::new(),
            refuse: Vec::new(),
            ignore: Vec::new(),
            tag: String::new(),
        }
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

impl Config {
    /// Puts `key=value,…` over this.
    ///
    /// # Errors
    /// The part that makes no sense.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            self.apply_one(part).ok_or_else(|| part.to_owned())?;
        }
        Ok(())
    }

    fn apply_one(&mut self, part: &str) -> Option<()> {
        let (key, value) = part.split_once('=')?;
        let names = || value.split('+').map(str::to_owned).collect();
        match key {
            "release" => {
                let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
                self.release = (major.parse().ok()?, minor.parse().ok()?);
            }
            "node" => self.node = flag(value)?,
            "open" => self.open_errno = value.parse().ok()?,
            "av1" => self.av1 = flag(value)?,
            "max" => {
                let (width, height) = value.split_once('x')?;
                self.max = (width.parse().ok()?, height.parse().ok()?);
            }
            "sessions" => self.sessions = value.parse().ok()?,
            "bytesperline" => self.real_bytesperline = value == "real",
            "latency" => self.latency = Duration::from_millis(value.parse().ok()?),
            "instant" => self.instant = flag(value)?,
            "eos" => {
                self.eos = match value {
                    "empty" => Eos::Empty,
                    "last" => Eos::Last,
                    "again" => Eos::Again,
                    _ => return None,
                }
            }
            "key-flag" => self.key_flag = flag(value)?,
            "header-only" => self.header_only = flag(value)?,
            "capture-size" => self.capture_size = value.parse().ok()?,
            "drop" => self.drop = value.parse().ok()?,
            "eio" => self.eio = Some(value.parse().ok()?),
            "enodev" => self.enodev = Some(value.parse().ok()?),
            "hang" => self.hang = Some(value.parse().ok()?),
            "stop-hangs" => self.slow_stop = flag(value)?,
            "hold" => self.hold_slices = value == "slices",
            "busy" => self.busy = names(),
            "refuse" => self.refuse = names(),
            "ignore" => self.ignore = names(),
            "tag" => value.clone_into(&mut self.tag),
            _ => return None,
        }
        Some(())
    }

    /// The encoder's node on this board.
    pub fn node_name(&self) -> &'static str {
        if self.release.0 >= 36 { "/dev/v4l2-nvenc" } else { "/dev/nvhost-msenc" }
    }

    /// Whether AV1 comes wrapped in IVF whatever the control says.
    pub fn ivf(&self) -> bool {
        self.release == (36, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_unknown_ones_refused() {
        let mut config = Config::default();
        config.apply("release=35.4, latency=20,eio=3,busy=BITRATE+GOP_SIZE,max=1920x1080,eos=again").unwrap();
        assert_eq!(config.release, (35, 4));
        assert_eq!(config.node_name(), "/dev/nvhost-msenc");
        assert_eq!(config.latency, Duration::from_millis(20));
        assert_eq!(config.eio, Some(3));
        assert_eq!(config.busy, ["BITRATE", "GOP_SIZE"]);
        assert_eq!(config.max, (1920, 1080));
        assert_eq!(config.eos, Eos::Again);
        assert_eq!(Config::default().apply("colour=blue"), Err("colour=blue".to_owned()));
        assert_eq!(Config::default().apply("eio=soon"), Err("eio=soon".to_owned()));
    }

    #[test]
    fn only_one_release_wraps_av1() {
        let mut config = Config::default();
        assert!(!config.ivf());
        config.apply("release=36.4").unwrap();
        assert!(config.ivf());
    }
}
