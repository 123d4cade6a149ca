// SPDX-License-Identifier: MIT OR Apache-2.0

//! CPU time per packet of our elements beside GStreamer's own, in one process, round by round in turn.
//!
//! ```console
//! cargo bench -p gst-plugin-rtpjpeg --bench speed [-- --rounds 25] [-- --svg speed.svg]
//! ```
//!
//! On a busy machine, instructions are a fairer measure than time: `--drive ELEMENT --picture 0|1|2 --frames N` only pushes N
//! frames through one payloader or depayloader, to be run twice under `valgrind --tool=callgrind` with different N.
//!
//! Element pads are driven from one thread with pictures encoded before. What counts is the process's CPU time,
//! in the kernel, too. The figure of a row is the median over all rounds, the ratio the median of the rounds'
//! ratios. `pay + send` goes to a socket on loopback that nobody reads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use nix::time::{ClockId, clock_gettime};

/// Width, height, quality of jpegenc: small, medium and large pictures in the reference's sense.
const PICTURES: [(u32, u32, u32); 3] = [(640, 480, 85), (1920, 1080, 85), (3840, 2160, 85)];
/// Packets that one candidate makes in one round.
const PACKETS_PER_ROUND: u64 = 6000;
const CAPS: &str = "application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG,payload=26";

fn cpu_nanos() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// A frame that compresses as badly as a real one.
fn picture((width, height, quality): (u32, u32, u32)) -> gst::Buffer {
    let line = format!(
        "videotestsrc num-buffers=1 pattern=zone-plate kx2=20 ky2=20 kt=1 ! video/x-raw,format=I420,width={width},height={height},framerate=30/1 \
         ! jpegenc quality={quality} ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = pipeline
        .by_name("out")
        .unwrap()
        .emit_by_name::<Option<gst::Sample>>("pull-sample", &[])
        .expect("no picture; is jpegenc there?");
    pipeline.set_state(gst::State::Null).unwrap();
    let data = sample.buffer().unwrap().map_readable().unwrap().to_vec();
    gst::Buffer::from_slice(data)
}

/// An element, or several in a row, between a pad that pushes and maybe one that counts.
struct Chain {
    elements: Vec<gst::Element>,
    source: gst::Pad,
    buffers: Arc<AtomicU64>,
    _end: Option<gst::Pad>,
    caps: gst::Caps,
    time: u64,
}

impl Chain {
    fn new(line: &str, caps: &str) -> Self {
        let elements: Vec<gst::Element> =
            line.split('!').map(|one| gst::parse::launch(one.trim()).unwrap()).collect();
        for pair in elements.windows(2) {
            pair[0].link(&pair[1]).unwrap();
        }
        let buffers = Arc::new(AtomicU64::new(0));
        let last = elements.last().unwrap();
        let end = last.static_pad("src").map(|src| {
            let (one, many) = (buffers.clone(), buffers.clone());
            let pad = gst::Pad::builder(gst::PadDirection::Sink)
                .name("count")
                .chain_function(move |_, _, _| {
                    one.fetch_add(1, Ordering::Relaxed);
                    Ok(gst::FlowSuccess::Ok)
                })
                .chain_list_function(move |_, _, list| {
                    many.fetch_add(list.len() as u64, Ordering::Relaxed);
                    Ok(gst::FlowSuccess::Ok)
                })
                .event_function(|_, _, _| true)
                .build();
            pad.set_active(true).unwrap();
            src.link(&pad).unwrap();
            pad
        });
        for element in elements.iter().rev() {
            element.set_state(gst::State::Playing).unwrap();
        }
        let source = gst::Pad::builder(gst::PadDirection::Src).name("push").build();
        source.set_active(true).unwrap();
        source.link(&elements[0].static_pad("sink").unwrap()).unwrap();
        let caps: gst::Caps = caps.parse().unwrap();
        source.push_event(gst::event::StreamStart::new("bench"));
        source.push_event(gst::event::Caps::new(&caps));
        source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self { elements, source, buffers, _end: end, caps, time: 0 }
    }

    /// Pushes the picture once, as a new frame.
    fn push(&mut self, picture: &gst::Buffer) {
        let mut frame = picture.copy();
        frame.get_mut().unwrap().set_pts(gst::ClockTime::from_nseconds(self.time));
        self.time += 33_333_333;
        self.source.push(frame).unwrap();
    }

    fn counted(&self) -> u64 {
        self.buffers.load(Ordering::Relaxed)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for element in &self.elements {
            element.set_state(gst::State::Null).unwrap();
        }
    }
}

/// The packets of a picture, by GStreamer's own payloader.
fn packets(picture: &gst::Buffer, caps: &str) -> Vec<Vec<u8>> {
    let all = Arc::new(std::sync::Mutex::new(Vec::new()));
    let element = gst::ElementFactory::make("rtpjpegpay").property("mtu", 1400_u32).build().unwrap();
    let mut chain = Chain {
        buffers: Arc::default(),
        _end: None,
        source: gst::Pad::builder(gst::PadDirection::Src).name("push").build(),
        caps: caps.parse().unwrap(),
        time: 0,
        elements: vec![element.clone()],
    };
    let seen = all.clone();
    let pad = gst::Pad::builder(gst::PadDirection::Sink)
        .name("keep")
        .chain_function(move |_, _, buffer| {
            seen.lock().unwrap().push(buffer.map_readable().unwrap().to_vec());
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(|_, _, _| true)
        .build();
    pad.set_active(true).unwrap();
    element.static_pad("src").unwrap().link(&pad).unwrap();
    element.set_state(gst::State::Playing).unwrap();
    chain.source.set_active(true).unwrap();
    chain.source.link(&element.static_pad("sink").unwrap()).unwrap();
    chain.source.push_event(gst::event::StreamStart::new("bench"));
    chain.source.push_event(gst::event::Caps::new(&chain.caps));
    chain.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    chain.push(picture);
    std::mem::take(&mut *all.lock().unwrap())
}

/// Packets of `frames` frames, numbered from where the last call ended.
fn stream(packets: &[Vec<u8>], frames: u64, sequence: &mut u16, timestamp: &mut u32) -> Vec<gst::Buffer> {
    let mut out = Vec::new();
    for _ in 0..frames {
        for packet in packets {
            let mut packet = packet.clone();
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            packet[8..12].copy_from_slice(&1_u32.to_be_bytes());
            *sequence = sequence.wrapping_add(1);
            out.push(gst::Buffer::from_mut_slice(packet));
        }
        *timestamp = timestamp.wrapping_add(3000);
    }
    out
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Row {
    what: &'static str,
    packets: u64,
    theirs: f64,
    ours: f64,
    ratio: f64,
    goal: f64,
}

/// Two candidates in turn, each in both places; each call gives CPU ns per packet.
fn race(rounds: usize, mut theirs: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) -> (f64, f64, f64) {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    theirs();
    ours();
    for round in 0..rounds {
        let (one, other) = if round % 2 == 0 {
            let one = theirs();
            (one, ours())
        } else {
            let other = ours();
            (theirs(), other)
        };
        a.push(one);
        b.push(other);
        ratios.push(other / one);
    }
    (median(a), median(b), median(ratios))
}

fn pay_row(rounds: usize, size: (u32, u32, u32)) -> Row {
    let picture = picture(size);
    let caps = format!("image/jpeg,framerate=30/1,width={},height={}", size.0, size.1);
    let mut per_frame = 0;
    let mut run = |line: &str| {
        let mut chain = Chain::new(line, &caps);
        chain.push(&picture);
        let packets = chain.counted();
        per_frame = packets;
        let picture = picture.clone();
        move || {
            let frames = PACKETS_PER_ROUND.div_ceil(packets);
            let begin = cpu_nanos();
            for _ in 0..frames {
                chain.push(&picture);
            }
            (cpu_nanos() - begin) / (frames * packets) as f64
        }
    };
    let (theirs, ours) = (run("rtpjpegpay mtu=1400"), run("rtpjpegpay-rs mtu=1400"));
    let (theirs, ours, ratio) = race(rounds, theirs, ours);
    Row { what: "pay", packets: per_frame, theirs, ours, ratio, goal: 0.65 }
}

fn send_row(rounds: usize, size: (u32, u32, u32)) -> Row {
    let picture = picture(size);
    let caps = format!("image/jpeg,framerate=30/1,width={},height={}", size.0, size.1);
    let count = packets(&picture, &caps).len() as u64;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let run = |line: String| {
        let mut chain = Chain::new(&line, &caps);
        let picture = picture.clone();
        move || {
            let frames = PACKETS_PER_ROUND.div_ceil(count);
            let begin = cpu_nanos();
            for _ in 0..frames {
                chain.push(&picture);
            }
            (cpu_nanos() - begin) / (frames * count) as f64
        }
    };
    let options = format!("host=127.0.0.1 port={port} sync=false async=false");
    let theirs = run(format!("rtpjpegpay mtu=1400 ! udpsink {options}"));
    let ours = run(format!("rtpjpegpay-rs mtu=1400 ! rtpudpsink-rs {options}"));
    let (theirs, ours, ratio) = race(rounds, theirs, ours);
    Row { what: "pay + send", packets: count, theirs, ours, ratio, goal: 0.35 }
}

fn depay_row(rounds: usize, size: (u32, u32, u32)) -> Row {
    let picture = picture(size);
    let caps = format!("image/jpeg,framerate=30/1,width={},height={}", size.0, size.1);
    let packets = packets(&picture, &caps);
    let rtp_caps = format!("{CAPS},x-dimensions=(string)\"{},{}\"", size.0, size.1);
    let run = |line: &str| {
        let chain = Chain::new(line, &rtp_caps);
        let packets = packets.clone();
        let (mut sequence, mut timestamp) = (0, 0);
        move || {
            let frames = PACKETS_PER_ROUND.div_ceil(packets.len() as u64);
            let stream = stream(&packets, frames, &mut sequence, &mut timestamp);
            let (before, count) = (chain.counted(), stream.len());
            let begin = cpu_nanos();
            for packet in stream {
                chain.source.push(packet).unwrap();
            }
            let taken = cpu_nanos() - begin;
            assert_eq!(chain.counted() - before, frames, "frames were lost");
            taken / count as f64
        }
    };
    let (theirs, ours, ratio) = race(rounds, run("rtpjpegdepay"), run("rtpjpegdepay-rs"));
    Row { what: "depay", packets: packets.len() as u64, theirs, ours, ratio, goal: 0.7 }
}

/// Pushes frames through one element, for tools that count what it does.
fn drive(element: &str, size: (u32, u32, u32), frames: u64) {
    let picture = picture(size);
    let caps = format!("image/jpeg,framerate=30/1,width={},height={}", size.0, size.1);
    if element.contains("depay") {
        let packets = packets(&picture, &caps);
        let chain = Chain::new(element, &format!("{CAPS},x-dimensions=(string)\"{},{}\"", size.0, size.1));
        let (mut sequence, mut timestamp) = (0, 0);
        for _ in 0..frames {
            for packet in stream(&packets, 1, &mut sequence, &mut timestamp) {
                chain.source.push(packet).unwrap();
            }
        }
        println!("{frames} frames of {} packets, {} put out", packets.len(), chain.counted());
    } else {
        let mut chain = Chain::new(&format!("{element} mtu=1400"), &caps);
        for _ in 0..frames {
            chain.push(&picture);
        }
        println!("{frames} frames, {} packets", chain.counted());
    }
}

/// Bars: theirs and ours, CPU ns per packet.
fn svg(rows: &[Row]) -> String {
    let most = rows.iter().map(|row| row.theirs.max(row.ours)).fold(1.0, f64::max);
    let height = 40 + rows.len() * 46;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"10\" y=\"20\">CPU time per packet, ns (grey: GStreamer's elements; blue: ours)</text>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        let y = 36 + index * 46;
        let _ = writeln!(
            out,
            "<text x=\"10\" y=\"{}\">{}, {} packets a frame</text>",
            y + 18,
            row.what,
            row.packets
        );
        for (offset, value, colour) in [(0, row.theirs, "#999999"), (17, row.ours, "#2266cc")] {
            let width = value / most * 430.0;
            let _ = writeln!(
                out,
                "<rect x=\"230\" y=\"{}\" width=\"{width:.0}\" height=\"15\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{value:.0}</text>",
                y + offset,
                236.0 + width,
                y + offset + 12
            );
        }
    }
    out + "</svg>\n"
}

fn main() {
    gst::init().unwrap();
    gstrtpjpeg::plugin_register_static().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    let option =
        |name: &str| arguments.iter().position(|one| one == name).and_then(|at| arguments.get(at + 1));
    if let Some(element) = option("--drive") {
        let number = |name, otherwise: usize| {
            option(name).map_or(otherwise, |text| text.parse().expect("a number is wanted"))
        };
        drive(element, PICTURES[number("--picture", 0)], number("--frames", 10) as u64);
        return;
    }
    let rounds = option("--rounds").map_or(25, |rounds| rounds.parse().expect("--rounds wants a number"));
    let mut rows = Vec::new();
    for row in [pay_row, send_row, depay_row] {
        rows.extend(PICTURES.map(|size| row(rounds, size)));
    }
    println!(
        "| | packets per frame | GStreamer {}.{}, ns | ours, ns | ratio | goal |",
        gst::version().0,
        gst::version().1
    );
    println!("|---|---|---|---|---|---|");
    for row in &rows {
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.2} | {} |",
            row.what, row.packets, row.theirs, row.ours, row.ratio, row.goal
        );
    }
    if let Some(file) = option("--svg") {
        std::fs::write(file, svg(&rows)).unwrap();
    }
}
