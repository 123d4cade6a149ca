// SPDX-License-Identifier: MPL-2.0

//! What the encoder element itself costs: CPU time, allocations and copies of a frame, with hardware that takes no time;
//! frames per second and latency with hardware that takes 13 ms for a frame on each of two cores (4K H.264 on RK3588).
//!
//! ```console
//! cargo bench -p gst-plugin-rkmpp --bench glue [-- --rounds 7] [-- --svg FILE]
//! ```
//!
//! The simulated library takes time and memory, too. So the same frames go through it without GStreamer, round by round in
//! turn: what the element adds is the difference. CPU time is that of the whole process, in the kernel, too; allocations
//! are all calls of `malloc` and its kin in the process, GStreamer's own among them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)] // A program of its own.

#[path = "../../tests/common/mod.rs"]
mod common;
mod malloc;

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{Simulator, simulator};
use gst::prelude::*;
use gst_allocators::prelude::*;
use gst_check::Harness;
use rockchip_mpp::{Buffer, Coding, Context, Encoder, Frame, Group, Mpp, Timeout};

const SIZES: [(u32, u32); 3] = [(1280, 720), (1920, 1080), (3840, 2160)];
/// Frames before anything is measured: memory is allocated, caches are filled.
const WARM_UP: usize = 20;
/// Frames of one round.
const FRAMES: usize = 200;
/// Of the hardware, for a frame.
const ENCODE: Duration = Duration::from_millis(13);

fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Bytes of an NV12 picture.
fn bytes((width, height): (u32, u32)) -> usize {
    (width * height * 3 / 2) as usize
}

/// Stands in for a dma-buf.
fn memory_file(size: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size as u64).unwrap();
    fd
}

/// A frame in memory of this kind.
fn frame(size: (u32, u32), dmabuf: bool) -> gst::Buffer {
    if !dmabuf {
        return gst::Buffer::from_mut_slice(vec![0x80_u8; bytes(size)]);
    }
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: the descriptor is this memory's from now on.
    let memory = unsafe { allocator.alloc_dmabuf(memory_file(bytes(size)), bytes(size)) }.unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    buffer
}

/// The element between two pads.
struct Element {
    harness: Harness,
    element: gst::Element,
    input: gst::Buffer,
    number: u64,
}

impl Element {
    fn new(size: (u32, u32), dmabuf: bool, properties: &[(&str, &str)]) -> Self {
        let library = simulator();
        let mut builder =
            gst::ElementFactory::make("rkmppenc").property("library-path", library.to_str().unwrap());
        for (name, value) in properties {
            builder = builder.property_from_str(name, value);
        }
        let element = builder.build().unwrap();
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        let features = if dmabuf { "(memory:DMABuf)" } else { "" };
        harness.set_src_caps_str(&format!(
            "video/x-raw{features},format=NV12,width={},height={},framerate=60/1",
            size.0, size.1
        ));
        let mut this = Self { harness, element, input: frame(size, dmabuf), number: 0 };
        for _ in 0..WARM_UP {
            let next = this.next();
            this.harness.push(next).unwrap();
            drop(this.harness.pull().unwrap());
        }
        this
    }

    /// The frame once more, at a later time.
    fn next(&mut self) -> gst::Buffer {
        let mut next = self.input.copy();
        next.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(self.number * 17));
        self.number += 1;
        next
    }

    fn count(&self, field: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(field).unwrap()
    }

    /// Pushes frames as fast as they are taken.
    fn run(&mut self, count: usize) -> Cost {
        // What makes the frames does not count.
        let frames: Vec<_> = (0..count).map(|_| self.next()).collect();
        let copied = self.count("frames-copied");
        let harness = &mut self.harness;
        let mut cost = Cost::of(count, || {
            let mut got = 0;
            for frame in frames {
                harness.push(frame).unwrap();
                while harness.buffers_in_queue() > 0 {
                    drop(harness.pull().unwrap());
                    got += 1;
                }
            }
            while got < count {
                drop(harness.pull().unwrap());
                got += 1;
            }
        });
        cost.copied = (self.count("frames-copied") - copied) as f64 / count as f64;
        cost
    }
}

impl Drop for Element {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
    }
}

/// The library alone, used as the element uses it.
struct Library {
    mpp: Mpp,
    encoder: Encoder,
    size: (u32, u32),
    /// A dma-buf that is imported for each frame.
    file: Option<OwnedFd>,
    group: Group,
    spare: Vec<Buffer>,
    in_flight: usize,
}

impl Library {
    fn new(size: (u32, u32), dmabuf: bool) -> Self {
        let mpp = Mpp::load(Some(simulator().as_os_str())).unwrap();
        let context = Context::new(mpp).unwrap();
        let context = context.with_input_timeout(Timeout::NonBlocking).unwrap();
        let context = context.with_output_timeout(Timeout::Millis(100)).unwrap();
        let encoder = context.into_encoder(Coding::Avc).unwrap();
        let mut config = encoder.config().unwrap();
        for (key, value) in [
            (c"prep:width", size.0),
            (c"prep:height", size.1),
            (c"prep:hor_stride", size.0),
            (c"prep:ver_stride", size.1),
            (c"prep:format", 0),
            (c"rc:gop", 120),
        ] {
            config.set(key, value).unwrap();
        }
        encoder.apply(&config).unwrap();
        let file = dmabuf.then(|| memory_file(bytes(size)));
        let group = Group::internal(mpp).unwrap();
        let mut this = Self { mpp, encoder, size, file, group, spare: Vec::new(), in_flight: 0 };
        this.run(WARM_UP);
        this
    }

    fn get(&mut self) {
        if let Some(mut encoded) = self.encoder.get().unwrap() {
            self.in_flight -= 1;
            let _ = encoded.packet.take_average_qp();
            let buffer = encoded.frame.as_mut().and_then(Frame::take_buffer);
            if self.file.is_none() {
                self.spare.extend(buffer);
            }
        }
    }

    fn run(&mut self, count: usize) -> Cost {
        let (width, height) = self.size;
        Cost::of(count, || {
            for token in 0..count as u64 {
                while self.in_flight >= 4 {
                    self.get();
                }
                let buffer = match &self.file {
                    Some(file) => Buffer::import(self.mpp, file.as_fd(), bytes(self.size)).unwrap(),
                    None => {
                        self.spare.pop().unwrap_or_else(|| self.group.allocate(bytes(self.size)).unwrap())
                    }
                };
                let mut frame = Frame::new(self.mpp).unwrap();
                frame.set_size(width, height, width, height);
                frame.set_format(0);
                frame.set_buffer(buffer);
                while let Err(refused) = self.encoder.put(frame, token) {
                    assert!(refused.is_full());
                    frame = refused.frame;
                    self.get();
                }
                self.in_flight += 1;
            }
            while self.in_flight > 0 {
                self.get();
            }
        })
    }
}

/// Of one frame.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// CPU time, µs.
    time: f64,
    /// Time on the clock, µs.
    elapsed: f64,
    allocations: f64,
    copied: f64,
}

impl Cost {
    fn of(count: usize, run: impl FnOnce()) -> Self {
        let (begin, cpu, allocations) = (Instant::now(), cpu_time(), malloc::count());
        run();
        let per = |total: f64| total / count as f64;
        Self {
            allocations: per((malloc::count() - allocations) as f64),
            time: per(cpu_time() - cpu),
            elapsed: per(begin.elapsed().as_secs_f64() * 1e6),
            copied: 0.0,
        }
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A line of the first table.
struct Row {
    what: String,
    element: f64,
    library: f64,
    copied: f64,
    allocations: f64,
}

fn cost_row(rounds: usize, size: (u32, u32), dmabuf: bool) -> Row {
    let mut element = Element::new(size, dmabuf, &[]);
    let mut library = Library::new(size, dmabuf);
    let pairs: Vec<_> = (0..rounds).map(|_| (element.run(FRAMES), library.run(FRAMES))).collect();
    let of = |value: &dyn Fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(value));
    Row {
        what: format!("{}x{}, {}", size.0, size.1, if dmabuf { "dma-buf" } else { "system memory" }),
        element: of(&|(element, library)| element.time - library.time),
        library: of(&|(_, library)| library.time),
        copied: of(&|(element, _)| element.copied) * bytes(size) as f64,
        allocations: of(&|(element, library)| element.allocations - library.allocations),
    }
}

/// Frames per second as fast as they are taken.
fn rate(rounds: usize, properties: &[(&str, &str)]) -> f64 {
    let mut element = Element::new((1920, 1080), true, properties);
    median((0..rounds).map(|_| 1e6 / element.run(60).elapsed))
}

/// Median time from a frame's push to its packet, ms, with so many frames a second coming.
fn latency(properties: &[(&str, &str)], frames_per_second: u32) -> f64 {
    const COUNT: usize = 120;
    let mut element = Element::new((1920, 1080), true, properties);
    let sink = element.element.static_pad("src").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = sender.send(Instant::now());
        gst::PadProbeReturn::Ok
    });
    let begin = Instant::now();
    let interval = Duration::from_secs(1) / frames_per_second;
    let mut pushed = Vec::new();
    for number in 0..COUNT {
        let due = begin + interval * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What waits in front of the element waits, too.
        pushed.push(due);
        let next = element.next();
        element.harness.push(next).unwrap();
        while element.harness.buffers_in_queue() > 0 {
            drop(element.harness.pull().unwrap());
        }
    }
    let came: Vec<_> = (0..COUNT).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    median(came.iter().zip(&pushed).map(|(came, pushed)| (*came - *pushed).as_secs_f64() * 1e3))
}

/// Bars of both tables.
fn svg(rows: &[Row], rates: &[(String, f64)]) -> String {
    let height = 60 + 26 * (rows.len() + rates.len()) + 40;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = 20;
    let mut bars = |title: &str, values: &mut dyn Iterator<Item = (&str, f64)>| {
        let values: Vec<_> = values.collect();
        let largest = values.iter().map(|value| value.1).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(out, "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{title}</text>");
        y += 14;
        for (what, value) in values {
            let width = value / largest * 400.0;
            let _ = writeln!(
                out,
                "<text x=\"10\" y=\"{}\">{what}</text><rect x=\"230\" y=\"{y}\" width=\"{width:.0}\" height=\"17\" fill=\"#2266cc\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{value:.0}</text>",
                y + 13,
                236.0 + width,
                y + 13
            );
            y += 26;
        }
        y += 24;
    };
    bars("CPU time of the element for a frame, µs", &mut rows.iter().map(|row| (&row.what[..], row.element)));
    bars(
        "frames a second, hardware of 13 ms on two cores",
        &mut rates.iter().map(|(what, rate)| (&what[..], *rate)),
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
    let rounds = option("--rounds").map_or(7, |rounds| rounds.parse().expect("--rounds wants a number"));
    let simulator = Simulator::new("codec=instant");
    malloc::check();
    println!(
        "| input | element, µs of CPU | simulated library, µs of CPU | bytes copied | allocations of the element |\n\
         |---|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for size in SIZES {
        for dmabuf in [true, false] {
            let row = cost_row(rounds, size, dmabuf);
            println!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.1} |",
                row.what, row.element, row.library, row.copied, row.allocations
            );
            rows.push(row);
        }
    }
    simulator.configure(&format!("latency-us={}", ENCODE.as_micros()));
    println!(
        "\n| hardware of 13 ms, 1080p dma-bufs | frames/s | latency at 60 frames/s, ms | at 120 |\n|---|---|---|---|"
    );
    let mut rates = Vec::new();
    for (name, value) in [("low-latency", "true"), ("max-pending", "2"), ("max-pending", "4")] {
        let properties = [(name, value)];
        let what = format!("{name}={value}");
        let rate = rate(rounds, &properties);
        // More than one core can do there is nothing but a queue that grows.
        let at_120 =
            if name == "low-latency" { "–".into() } else { format!("{:.1}", latency(&properties, 120)) };
        println!("| `{what}` | {rate:.1} | {:.1} | {at_120} |", latency(&properties, 60));
        rates.push((what, rate));
    }
    if let Some(file) = option("--svg") {
        std::fs::write(file, svg(&rows, &rates)).unwrap();
    }
    simulator.configure("default");
}
