// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration: what it may say, and what holds where it says nothing.

mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use reader::Problem;
use reader::{Problems, Table};
use toml::de::{DeTable, DeValue};

/// Payload type of JPEG (RFC 3551 §6).
pub const STATIC_PT: u8 = 26;
/// Least that rtpjpegpay-rs can work with, rounded up.
const MTU: std::ops::RangeInclusive<u64> = 200..=65_000;
/// 1 Mbit/s to 100 Gbit/s, or 0.
const MAX_PACING: u64 = 100_000_000_000;

/// All of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the session descriptions go.
    pub sdp_dir: PathBuf,
    /// What is told of the streams, and where.
    pub stats: StatsConfig,
    /// The enabled cameras by their keys (`camera1`, …).
    pub cameras: BTreeMap<String, Camera>,
}

/// `[mjpeg-rtp.stats]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsConfig {
    /// Between two log lines, and two writings of the JSON file. `None` = never.
    pub interval: Option<Duration>,
    /// File to write, or `-` for lines on standard output.
    pub json: Option<PathBuf>,
    /// Address to answer Prometheus at.
    pub prometheus: Option<SocketAddr>,
}

/// `[mjpeg-rtp.camera<N>]`, with what it takes over from `[mjpeg-rtp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// Shown to receivers.
    pub name: String,
    /// Where the pictures come from.
    pub source: Source,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Pictures a second.
    pub fps: u16,
    /// 1 to 100, as JPEG encoders count.
    pub quality: u8,
    /// Name or address of the receiver, or a multicast group.
    pub dest_host: String,
    /// RTP goes there, RTCP to the next one.
    pub dest_port: u16,
    /// Identifies the stream; the same after each restart.
    pub ssrc: u32,
    /// RTP payload type.
    pub pt: u8,
    /// Blocks (MCUs) between two restart markers; 0 = none.
    pub restart_interval: u16,
    /// Hops that packets to a multicast group may take.
    pub multicast_ttl: u8,
    /// Bit/s at which a picture's packets leave; 0 = at once.
    pub pacing: u64,
    /// Most bytes of an RTP packet.
    pub mtu: u16,
    /// DSCP of the packets; `None` = the system's.
    pub dscp: Option<u8>,
}

impl Camera {
    /// Port for RTCP.
    pub fn rtcp_port(&self) -> u16 {
        self.dest_port.saturating_add(1)
    }

    /// The destination as an address, if it is one.
    pub fn dest_address(&self) -> Option<IpAddr> {
        self.dest_host.parse().ok()
    }
}

/// `device`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A moving test picture; with one of videotestsrc's patterns if given.
    Test(Option<String>),
    /// A V4L2 device.
    V4l2(PathBuf),
    /// A camera of libcamera, the first one if no name is given.
    Libcamera(Option<String>),
    /// The first part of a pipeline, as gst-launch-1.0 reads it.
    Pipeline(String),
}

impl Source {
    /// What the key `device` may say.
    const ALLOWED: &str = "\"/dev/video0\" or another device, \"test\", \"libcamera\", \"libcamera:NAME\" or \"pipeline:ELEMENT ! ELEMENT …\"";

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) =
            text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest.trim())));
        if rest == Some("") {
            return None;
        }
        match kind {
            "test" => Some(Self::Test(rest.map(str::to_owned))),
            "libcamera" => Some(Self::Libcamera(rest.map(str::to_owned))),
            "pipeline" => rest.map(|rest| Self::Pipeline(rest.to_owned())),
            _ if text.starts_with("/dev/") => Some(Self::V4l2(PathBuf::from(text))),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(None) => f.write_str("test"),
            Self::Test(Some(pattern)) => write!(f, "test:{pattern}"),
            Self::V4l2(device) => write!(f, "{}", device.display()),
            Self::Libcamera(None) => f.write_str("libcamera"),
            Self::Libcamera(Some(name)) => write!(f, "libcamera:{name}"),
            Self::Pipeline(text) => write!(f, "pipeline:{text}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says what it must not say.
    #[error("{}", problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All mistakes, by line.
        problems: Vec<Problem>,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with all mistakes that the file has.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// What runs without a configuration: two test pictures to this machine.
    pub fn demo() -> Self {
        let cameras = [("camera1", 5000), ("camera2", 5002)].into_iter().map(|(key, port)| {
            let pattern = if key == "camera1" { None } else { Some("smpte".to_owned()) };
            let camera = Camera {
                name: key.to_owned(),
                source: Source::Test(pattern),
                width: 1280,
                height: 720,
                fps: 30,
                quality: 85,
                dest_host: "127.0.0.1".to_owned(),
                dest_port: port,
                ssrc: stable_ssrc(key),
                pt: STATIC_PT,
                restart_interval: 0,
                multicast_ttl: 1,
                pacing: DEFAULT_PACING,
                mtu: DEFAULT_MTU,
                dscp: None,
            };
            (key.to_owned(), camera)
        });
        Self { sdp_dir: default_sdp_dir(), stats: StatsConfig::default(), cameras: cameras.collect() }
    }

    /// Reads a text.
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                problems.add(error.span().unwrap_or_default(), format!("not TOML: {}", error.message()));
            }
            return Err(problems.into_sorted());
        }
        let mut root = Table::new("", root.get_ref());
        let main = root.table("mjpeg-rtp", &mut problems);
        root.finish(&mut problems, |_| false);
        let config = main.map(|main| read_main(main, &mut problems));
        if config.is_none() {
            problems.add(
                0..0,
                "the table [mjpeg-rtp] is missing, with [mjpeg-rtp.camera1] and more cameras in it",
            );
        }
        let problems = problems.into_sorted();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

impl Default for StatsConfig {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(10)), json: None, prometheus: None }
    }
}

const DEFAULT_MTU: u16 = 1400;
/// A picture of 500 kB takes 10 ms: receivers with the usual socket buffer of 208 kB keep up.
const DEFAULT_PACING: u64 = 400_000_000;

/// What cameras take over from `[mjpeg-rtp]`.
struct Shared {
    mtu: u16,
    dscp: Option<u8>,
    pacing: u64,
}

fn read_main(mut table: Table<'_, '_>, problems: &mut Problems<'_>) -> Config {
    let enabled = table.boolean("enabled", problems).unwrap_or(true);
    let shared = Shared {
        mtu: table.integer("mtu", MTU, problems).map_or(DEFAULT_MTU, |found| narrow(found.value)),
        dscp: table.integer("dscp", 0..=63, problems).map(|found| narrow(found.value)),
        pacing: pacing(&mut table, problems).unwrap_or(DEFAULT_PACING),
    };
    let sdp_dir = table.text("sdp_dir", "the path of a directory", problems, |text| !text.is_empty());
    let stats = table.table("stats", problems).map(|stats| read_stats(stats, problems)).unwrap_or_default();
    let mut all = BTreeMap::new();
    for (key, span, value) in table.entries().filter(|(key, ..)| is_camera(key)) {
        let name = format!("mjpeg-rtp.{key}");
        match value.get_ref() {
            DeValue::Table(camera) => {
                if let Some(camera) = read_camera(key, Table::new(name, camera), &shared, span, problems) {
                    all.insert(key.to_owned(), camera);
                }
            }
            _ => problems.add(span, format!("{key} must be a table: [{name}]")),
        }
    }
    table.finish(problems, is_camera);
    check_together(&all, problems);
    let cameras = all.into_iter().filter(|(_, read)| enabled && read.enabled);
    Config {
        sdp_dir: sdp_dir.map_or_else(default_sdp_dir, |found| PathBuf::from(found.value)),
        stats,
        cameras: cameras.map(|(key, read)| (key, read.camera)).collect(),
    }
}

fn is_camera(key: &str) -> bool {
    key.strip_prefix("camera").is_some_and(|number| {
        (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn read_stats(mut table: Table<'_, '_>, problems: &mut Problems<'_>) -> StatsConfig {
    let interval = table.integer("interval", 0..=86_400, problems).map(|found| found.value);
    let json = table.text("json", "the path of a file, or \"-\"", problems, |text| !text.is_empty());
    let prometheus =
        table.parsed("prometheus", "an address with a port, like \"127.0.0.1:9464\"", problems, |text| {
            text.parse().ok()
        });
    table.finish(problems, |_| false);
    StatsConfig {
        interval: Some(Duration::from_secs(interval.unwrap_or(10))).filter(|interval| !interval.is_zero()),
        json: json.map(|found| PathBuf::from(found.value)),
        prometheus: prometheus.map(|found| found.value),
    }
}

/// A camera, and where the file says what two cameras must not share.
struct ReadCamera {
    enabled: bool,
    camera: Camera,
    port_at: std::ops::Range<usize>,
    ssrc_at: std::ops::Range<usize>,
}

fn read_camera(
    key: &str,
    mut table: Table<'_, '_>,
    shared: &Shared,
    span: std::ops::Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<ReadCamera> {
    let enabled = table.boolean("enabled", problems).unwrap_or(true);
    let printable = |text: &str| (1..=64).contains(&text.len()) && !text.chars().any(char::is_control);
    let name = table.text("name", "a text of 1 to 64 bytes without control characters", problems, printable);
    let device = table.parsed("device", Source::ALLOWED, problems, Source::parse);
    // RFC 2435 ends at 2040; beyond, GStreamer's receivers read the size from the session description.
    let width = table.integer("width", 16..=16_384, problems);
    let height = table.integer("height", 16..=16_384, problems);
    let fps = table.integer("fps", 1..=240, problems);
    let quality = table.integer("quality", 1..=100, problems);
    let host = |text: &str| {
        (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b))
    };
    let dest_host = table.text("dest_host", "a host name or an IP address", problems, host);
    // RTCP takes the port behind it.
    let dest_port = table.integer("dest_port", 1..=65_534, problems);
    let ssrc = table.integer("ssrc", 0..=u64::from(u32::MAX), problems);
    let pt = table.checked("pt", "26, or 96 to 127", problems, |value| {
        let pt: u8 = value.as_integer()?.as_str().parse().ok()?;
        (pt == STATIC_PT || (96..=127).contains(&pt)).then_some(pt)
    });
    let restart_interval = table.integer("restart_interval", 0..=65_535, problems);
    let multicast_ttl = table.integer("multicast_ttl", 1..=255, problems);
    let pacing = pacing(&mut table, problems);
    for key in ["device", "dest_host", "dest_port"] {
        if !table.entries().any(|(name, ..)| name == key) {
            problems.add(span.clone(), format!("[{}] needs the key '{key}'", table.name()));
        }
    }
    table.finish(problems, |_| false);
    let (device, dest_host, dest_port) = (device?, dest_host?, dest_port?);
    let camera = Camera {
        name: name.map_or_else(|| key.to_owned(), |found| found.value),
        source: device.value,
        width: width.map_or(1280, |found| narrow(found.value)),
        height: height.map_or(720, |found| narrow(found.value)),
        fps: fps.map_or(30, |found| narrow(found.value)),
        quality: quality.map_or(85, |found| narrow(found.value)),
        dest_host: dest_host.value,
        dest_port: narrow(dest_port.value),
        ssrc: ssrc.as_ref().map_or_else(|| stable_ssrc(key), |found| narrow(found.value)),
        pt: pt.map_or(STATIC_PT, |found| found.value),
        restart_interval: restart_interval.map_or(0, |found| narrow(found.value)),
        multicast_ttl: multicast_ttl.map_or(1, |found| narrow(found.value)),
        pacing: pacing.unwrap_or(shared.pacing),
        mtu: shared.mtu,
        dscp: shared.dscp,
    };
    let ssrc_at = ssrc.map_or(span, |found| found.span);
    Some(ReadCamera { enabled, camera, port_at: dest_port.span, ssrc_at })
}

/// What two cameras must not share.
fn check_together(cameras: &BTreeMap<String, ReadCamera>, problems: &mut Problems<'_>) {
    let enabled: Vec<_> = cameras.iter().filter(|(_, read)| read.enabled).collect();
    for (index, (key, read)) in enabled.iter().enumerate() {
        for (other_key, other) in enabled.iter().take(index) {
            let (camera, earlier) = (&read.camera, &other.camera);
            if camera.dest_host != earlier.dest_host {
                continue;
            }
            if camera.dest_port.abs_diff(earlier.dest_port) < 2 {
                problems.add(
                    read.port_at.clone(),
                    format!(
                        "[mjpeg-rtp.{key}] dest_port = {}: must be 2 or more away from {}, the port of {other_key} at \
                         the same host (RTCP takes the port behind each)",
                        camera.dest_port, earlier.dest_port
                    ),
                );
            }
            if camera.ssrc == earlier.ssrc {
                problems.add(
                    read.ssrc_at.clone(),
                    format!(
                        "[mjpeg-rtp.{key}] ssrc = {:#x}: must differ from that of {other_key}",
                        camera.ssrc
                    ),
                );
            }
        }
    }
}

fn pacing(table: &mut Table<'_, '_>, problems: &mut Problems<'_>) -> Option<u64> {
    let allowed = format!("0 (none), or bit/s from 1000000 to {MAX_PACING}");
    let found = table.checked("pacing", &allowed, problems, |value| {
        let number = value.as_integer()?;
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
        (number == 0 || (1_000_000..=MAX_PACING).contains(&number)).then_some(number)
    });
    found.map(|found| found.value)
}

/// A number that was checked to fit.
fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

/// Name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// The same for each start on this machine, and another one on others.
fn stable_ssrc(key: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    (host_name(), key).hash(&mut hasher);
    u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or_default()
}

/// What systemd made for us, else where we are.
fn default_sdp_dir() -> PathBuf {
    std::env::var_os("RUNTIME_DIRECTORY")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(test)]
mod tests;
