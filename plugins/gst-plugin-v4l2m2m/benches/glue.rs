// SPDX-License-Identifier: MPL-2.0

//! What `jetsonv4l2enc` itself costs, with a stand-in for NVIDIA's library that codes nothing: processor time, copies and
//! allocations of a frame, and the load of 30 frames/s. Prints tables, and draws the load with `--svg FILE`.
//! `cargo bench -p gst-plugin-v4l2m2m --bench glue`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/jetson/mod.rs"]
mod jetson;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use jetson::surface::Surface;
use jetson::{Bench, H264, bench};
use nv_v4l2_sim::format::Raw;

/// Counts what the element and this program allocate. (The stand-in is a library with an allocator of its own.)
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(address, layout, size) }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Input {
    Nvmm,
    DmaBuf,
    /// Pictures that upstream has written to the pool which it was offered.
    Own,
    System,
}

impl Input {
    const ALL: [Self; 4] = [Self::Nvmm, Self::DmaBuf, Self::Own, Self::System];

    fn name(self) -> &'static str {
        match self {
            Self::Nvmm => "`memory:NVMM`",
            Self::DmaBuf => "DMABuf",
            Self::Own => "own buffers",
            Self::System => "system memory",
        }
    }
}

/// Processor time of each kind of thread so far, ns.
fn threads() -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let time = read("schedstat").split(' ').next().and_then(|time| time.parse::<u64>().ok());
        *times.entry(read("comm").trim().to_owned()).or_default() += time.unwrap_or(0);
    }
    times
}

/// Of the element: all threads but the stand-in's own.
fn used(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    after
        .iter()
        .filter(|(name, _)| *name != "nv-v4l2-sim")
        .map(|(name, time)| time - before.get(name).copied().unwrap_or(0))
        .sum()
}

/// An element that streams pictures from this memory, and such pictures, in turn.
struct Stream {
    bench: Bench,
    pictures: Vec<gst::Buffer>,
    pool: Option<gst::BufferPool>,
    next: usize,
    // After the element, which reads them.
    _surfaces: Vec<Surface>,
}

impl Stream {
    fn new(input: Input, (width, height): (u32, u32), config: &str) -> Self {
        let mut bench = bench(config, H264, |_| ());
        bench.info = VideoInfo::builder(VideoFormat::Nv12, width, height).fps((30, 1)).build().unwrap();
        let mut caps = bench.info.to_caps().unwrap();
        let feature = match input {
            Input::Nvmm => Some("memory:NVMM"),
            Input::DmaBuf => Some("memory:DMABuf"),
            Input::Own | Input::System => None,
        };
        if let Some(feature) = feature {
            caps.make_mut().set_features(0, Some(gst::CapsFeatures::new([feature])));
        }
        bench.harness.set_src_caps(caps.clone());
        let pool = (input == Input::Own)
            .then(|| common::offered_pool(&bench.harness, &caps).expect("upstream is offered buffers"));
        let (mut surfaces, mut pictures) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            pictures.push(match input {
                Input::Own | Input::System => gst::Buffer::from_mut_slice(vec![0x80_u8; bench.info.size()]),
                _ => {
                    let surface = Surface::new(Raw::Nv12, width, height);
                    let picture = if input == Input::Nvmm { surface.nvmm() } else { surface.shared() };
                    surfaces.push(surface);
                    picture
                }
            });
        }
        let mut stream = Self { bench, pictures, pool, next: 0, _surfaces: surfaces };
        // Not counted: the stream is set up, and all descriptors are known.
        stream.run(20, Duration::ZERO);
        stream
    }

    /// So many frames, at a distance.
    fn run(&mut self, frames: usize, distance: Duration) {
        let (begin, mut got) = (Instant::now(), 0);
        for number in 0..frames {
            let due = distance * u32::try_from(number).unwrap();
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let mut picture = match &self.pool {
                Some(pool) => pool.acquire_buffer(None).unwrap(),
                None => self.pictures[self.next % self.pictures.len()].copy(),
            };
            self.next += 1;
            self.bench.stamp(&mut picture);
            self.bench.harness.push(picture).unwrap();
            while self.bench.harness.try_pull().is_some() {
                got += 1;
            }
        }
        while got < frames {
            drop(self.bench.harness.pull().unwrap());
            got += 1;
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A row of the first table.
fn glue(input: Input, size: (u32, u32), rounds: usize, frames: usize) {
    let mut stream = Stream::new(input, size, "instant=yes,latency=0");
    let (mut times, mut allocations) = (Vec::new(), Vec::new());
    let copies = stream.bench.stat("frames-copied");
    for _ in 0..rounds {
        let (before, allocated) = (threads(), ALLOCATIONS.load(Ordering::Relaxed));
        stream.run(frames, Duration::ZERO);
        allocations.push((ALLOCATIONS.load(Ordering::Relaxed) - allocated) as f64 / frames as f64);
        times.push(used(&before, &threads()) as f64 / frames as f64);
    }
    let copied = (stream.bench.stat("frames-copied") - copies) as f64 / (rounds * frames) as f64;
    println!(
        "| {} | {}x{} | {:.1} | {copied} | {:.0} | {:.1} |",
        input.name(),
        size.0,
        size.1,
        median(times) / 1000.0,
        copied * stream.bench.info.size() as f64,
        median(allocations)
    );
}

struct Load {
    name: String,
    /// Percent of a core.
    parts: [f64; 3],
}

/// Of 30 frames/s, 1080p, with an encoder that takes so many ms.
fn load(input: Input, latency: u32, seconds: usize) -> Load {
    let mut stream = Stream::new(input, (1920, 1080), &format!("instant=yes,latency={latency}"));
    let (before, begin) = (threads(), Instant::now());
    stream.run(seconds * 30, Duration::from_secs(1) / 30);
    let (after, elapsed) = (threads(), begin.elapsed().as_nanos() as f64);
    let of = |wanted: fn(&str) -> bool| {
        let all = after.iter().filter(|(name, _)| *name != "nv-v4l2-sim" && wanted(name));
        let sum: u64 = all.map(|(name, time)| time - before.get(name).copied().unwrap_or(0)).sum();
        sum as f64 * 100.0 / elapsed
    };
    let parts = [
        of(|name| name != "v4l2-m2m" && !name.starts_with("jetsonv4l2enc:")),
        of(|name| name == "v4l2-m2m"),
        of(|name| name.starts_with("jetsonv4l2enc:")),
    ];
    Load { name: format!("{}, {latency} ms", input.name().replace('`', "")), parts }
}

/// Bars, each of three parts, and the goal.
fn svg(loads: &[Load]) -> String {
    let scale = 420.0 / loads.iter().map(|load| load.parts.iter().sum::<f64>()).fold(2.2, f64::max);
    let height = 66 + loads.len() * 26;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"10\" y=\"20\">Load of 1080p30 without the encoder's own work, percent of a core</text>\n\
         <text x=\"10\" y=\"40\" fill=\"#999999\">streaming thread</text>\
         <text x=\"140\" y=\"40\" fill=\"#2266cc\">device's thread</text>\
         <text x=\"260\" y=\"40\" fill=\"#66aadd\">pushing thread</text>\n"
    );
    for (index, load) in loads.iter().enumerate() {
        let (y, mut x) = (54 + index * 26, 230.0);
        let _ = writeln!(out, "<text x=\"10\" y=\"{}\">{}</text>", y + 13, load.name);
        for (part, colour) in load.parts.iter().zip(["#999999", "#2266cc", "#66aadd"]) {
            let width = part * scale;
            let _ = writeln!(
                out,
                "<rect x=\"{x:.0}\" y=\"{y}\" width=\"{width:.0}\" height=\"17\" fill=\"{colour}\"/>"
            );
            x += width;
        }
        let sum: f64 = load.parts.iter().sum();
        let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{}\">{sum:.2}</text>", x + 6.0, y + 13);
    }
    let goal = 230.0 + 2.0 * scale;
    let _ = writeln!(
        out,
        "<line x1=\"{goal:.0}\" y1=\"46\" x2=\"{goal:.0}\" y2=\"{}\" stroke=\"#cc3333\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{:.0}\" y=\"40\" fill=\"#cc3333\">goal: 2</text>",
        height - 8,
        goal - 20.0
    );
    out + "</svg>\n"
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to know that it builds.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let option =
        |name: &str| arguments.iter().position(|one| one == name).and_then(|at| arguments.get(at + 1));
    let number = |name, otherwise: usize| {
        option(name).map_or(otherwise, |text| text.parse().expect("a number is wanted"))
    };
    let (rounds, frames, seconds) = (number("--rounds", 9), number("--frames", 300), number("--seconds", 10));
    println!("| input | size | µs of a core per frame | copies | bytes copied | allocations |");
    println!("|---|---|---|---|---|---|");
    for size in [(1280, 720), (1920, 1080), (3840, 2160)] {
        for input in Input::ALL {
            glue(input, size, rounds, frames);
        }
    }
    println!(
        "\n| 1080p30, encoder's time | % of a core | streaming | device | pushing |\n|---|---|---|---|---|"
    );
    let mut loads = Vec::new();
    for (input, latency) in [
        (Input::DmaBuf, 0),
        (Input::DmaBuf, 7),
        (Input::DmaBuf, 20),
        (Input::Nvmm, 20),
        (Input::Own, 20),
        (Input::System, 20),
    ] {
        let load = load(input, latency, seconds);
        let [streaming, device, pushing] = load.parts;
        println!(
            "| {} | {:.2} | {streaming:.2} | {device:.2} | {pushing:.2} |",
            load.name,
            streaming + device + pushing
        );
        loads.push(load);
    }
    if let Some(file) = option("--svg") {
        std::fs::write(file, svg(&loads)).unwrap();
    }
}
