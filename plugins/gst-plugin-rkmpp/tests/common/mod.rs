// SPDX-License-Identifier: MPL-2.0

//! The simulator, pipelines that collect what comes out, and pictures.
#![allow(dead_code)] // Each test program uses a part of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstrkmpp::plugin_register_static().unwrap();
    });
}

/// Where the simulator is: named by the environment, or beside the tests, where cargo puts what they depend on.
pub fn simulator() -> PathBuf {
    std::env::var_os("ROCKCHIP_MPP_SIM").map_or_else(|| rockchip_mpp_sim::library().unwrap(), Into::into)
}

/// What the simulator counts.
const OBJECTS: [&str; 8] =
    ["contexts", "frames", "packets", "buffers", "groups", "enc_cfgs", "dec_cfgs", "ref_cfgs"];

/// The simulator, for one test at a time: its options hold for the whole process.
pub struct Simulator {
    library: libloading::Library,
    /// As it was: what a device that hangs had is given up on purpose.
    before: Vec<i64>,
    misuse: i64,
    leaked: i64,
    _one: MutexGuard<'static, ()>,
}

impl Simulator {
    pub fn new(options: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        init();
        // SAFETY: the simulator's constructors do nothing.
        let library = unsafe { libloading::Library::new(simulator()) }.unwrap();
        let mut simulator = Self { library, before: Vec::new(), misuse: 0, leaked: 0, _one: one };
        simulator.configure("default");
        simulator.configure(options);
        simulator.misuse = simulator.count("misuse");
        simulator.leaked = simulator.count("leaked");
        simulator.before = OBJECTS.map(|name| simulator.count(name)).to_vec();
        simulator
    }

    pub fn configure(&self, options: &str) {
        let options = CString::new(options).unwrap();
        // SAFETY: this is the function's signature.
        let code = unsafe {
            self.library.get::<unsafe extern "C" fn(*const c_char) -> i32>(b"mpp_sim_configure").unwrap()(
                options.as_ptr(),
            )
        };
        assert_eq!(code, 0, "{options:?}");
    }

    pub fn count(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: this is the function's signature.
        let count = unsafe {
            self.library.get::<unsafe extern "C" fn(*const c_char) -> i64>(b"mpp_sim_count").unwrap()(
                name.as_ptr(),
            )
        };
        assert!(count >= 0, "{name:?}");
        count
    }

    /// Nothing is left over, and nothing was done that real MPP would punish. What a stopped pipeline has goes with its last
    /// reference, which may be that of a thread of GStreamer's: that is waited for.
    pub fn assert_clean(&self) {
        let counts = || OBJECTS.map(|name| self.count(name));
        let more = |now: &[i64]| now.iter().zip(&self.before).any(|(now, before)| now > before);
        let begin = Instant::now();
        while more(&counts()) && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!more(&counts()), "{OBJECTS:?}: {:?} then {:?}", self.before, counts());
        assert_eq!(self.count("misuse"), self.misuse);
        assert_eq!(self.count("leaked"), self.leaked);
    }
}

/// What a pipeline made.
#[derive(Debug, Default)]
pub struct Outcome {
    pub buffers: Vec<gst::Buffer>,
    pub caps: Vec<gst::Caps>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

/// For what has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running pipeline. Its sink is `fakesink name=out`.
pub struct Running {
    pub pipeline: gst::Pipeline,
    collected: Arc<Mutex<(Vec<gst::Buffer>, Vec<gst::Caps>)>>,
}

/// `rkmppenc` with the simulator.
pub fn enc(properties: &str) -> String {
    format!("rkmppenc name=enc library-path={} {properties}", simulator().display())
}

/// `rkmppdec` with the simulator.
pub fn dec(properties: &str) -> String {
    format!("rkmppdec name=dec library-path={} {properties}", simulator().display())
}

impl Running {
    pub fn new(launch: &str) -> Self {
        let pipeline = gst::parse::launch(launch).unwrap().downcast::<gst::Pipeline>().unwrap();
        let collected = Arc::new(Mutex::new((Vec::new(), Vec::<gst::Caps>::new())));
        let sink = pipeline.by_name("out").unwrap();
        let inner = collected.clone();
        sink.static_pad("sink").unwrap().add_probe(
            gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
            move |_, info| {
                let mut inner = inner.lock().unwrap();
                if let Some(buffer) = info.buffer() {
                    inner.0.push(buffer.clone());
                } else if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
                    inner.1.push(caps.caps_owned());
                }
                gst::PadProbeReturn::Ok
            },
        );
        Self { pipeline, collected }
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.pipeline.by_name(name).unwrap()
    }

    pub fn stats(&self) -> gst::Structure {
        self.pipeline.by_name("dec").unwrap_or_else(|| self.element("enc")).property("stats")
    }

    pub fn play(&self) {
        let _ = self.pipeline.set_state(gst::State::Playing);
    }

    pub fn buffers(&self) -> usize {
        self.collected.lock().unwrap().0.len()
    }

    /// Time of a buffer that came.
    pub fn pts(&self, index: usize) -> Option<gst::ClockTime> {
        self.collected.lock().unwrap().0[index].pts()
    }

    pub fn wait_for(&self, buffers: usize) {
        let begin = Instant::now();
        while self.buffers() < buffers {
            assert!(begin.elapsed() < PATIENCE, "only {} of {buffers} came", self.buffers());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a counter of `stats` is at least this.
    pub fn wait_for_stat(&self, field: &str, least: u64) {
        let begin = Instant::now();
        while self.stats().get::<u64>(field).unwrap() < least {
            assert!(begin.elapsed() < PATIENCE, "{field}: {:?}", self.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of the stream or an error, and stops.
    pub fn finish(self) -> Outcome {
        let bus = self.pipeline.bus().unwrap();
        let mut outcome = Outcome::default();
        let limit = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        loop {
            let message =
                bus.timed_pop(limit).unwrap_or_else(|| panic!("the pipeline hangs: {:?}", self.stats()));
            match message.view() {
                gst::MessageView::Eos(_) => break,
                gst::MessageView::Error(error) => {
                    outcome.errors.push(format!("{} {:?}", error.error(), error.debug()));
                    break;
                }
                gst::MessageView::Warning(warning) => {
                    outcome.warnings.push(format!("{} {:?}", warning.error(), warning.debug()));
                }
                _ => {}
            }
        }
        self.pipeline.set_state(gst::State::Null).unwrap();
        while let Some(message) = bus.pop() {
            if let gst::MessageView::Error(error) = message.view() {
                outcome.errors.push(format!("{} {:?}", error.error(), error.debug()));
            }
        }
        let mut collected = self.collected.lock().unwrap();
        outcome.buffers = std::mem::take(&mut collected.0);
        outcome.caps = std::mem::take(&mut collected.1);
        outcome
    }
}

/// What starting and stopping may not leave behind. Of all threads of the process, and of a few descriptors, others are
/// the owners: GStreamer's pool of threads, the other tests.
pub struct Resources {
    descriptors: usize,
    memory_files: usize,
}

impl Resources {
    pub fn now() -> Self {
        let targets: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .collect();
        let memory = |target: &&PathBuf| target.to_string_lossy().contains("memfd:");
        Self { descriptors: targets.len(), memory_files: targets.iter().filter(memory).count() }
    }

    /// Threads of the elements and of the simulator.
    fn threads() -> Vec<String> {
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            // One that has ended meanwhile has no name.
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(name);
        tasks.filter(|name| name.starts_with("rkmpp") || name.starts_with("mpp-sim")).collect()
    }

    /// After so many cycles there is nothing more than at first.
    pub fn assert_same_after(&self, cycles: usize) {
        let begin = Instant::now();
        // A thread that was waited for is listed a little longer.
        while !Self::threads().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "{:?}", Self::threads());
            std::thread::sleep(Duration::from_millis(2));
        }
        let now = Self::now();
        assert!(now.memory_files <= self.memory_files, "{} then {}", self.memory_files, now.memory_files);
        // One for every other cycle would be a leak.
        let limit = self.descriptors + 10 + cycles / 2;
        assert!(now.descriptors < limit, "{} then {}", self.descriptors, now.descriptors);
    }
}

/// How often a test starts and stops.
pub fn cycles() -> usize {
    std::env::var("RKMPP_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

/// Downstream takes one of the buffers only after more than the 3 s that the hardware may hang. Tells when that is over.
pub fn slow_once(running: &Running, number: usize) -> std::sync::mpsc::Receiver<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let state = Mutex::new((0, sender));
    let sink = running.element("out").static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let mut state = state.lock().unwrap();
        state.0 += 1;
        if state.0 == number {
            std::thread::sleep(Duration::from_millis(3500));
            let _ = state.1.send(());
        }
        gst::PadProbeReturn::Ok
    });
    receiver
}

/// Runs a pipeline to its end.
pub fn run(launch: &str) -> Outcome {
    let running = Running::new(launch);
    running.play();
    running.finish()
}

/// A test picture that moves, `frames` times; −1: without end.
pub fn source(frames: i32, format: &str, width: u32, height: u32) -> String {
    format!(
        "videotestsrc num-buffers={frames} pattern=ball \
         ! video/x-raw,format={format},width={width},height={height},framerate=30/1"
    )
}

pub fn is_key(buffer: &gst::Buffer) -> bool {
    !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)
}

/// PSNR of the luma planes, dB.
pub fn psnr(a: &gst::Buffer, b: &gst::Buffer, pixels: usize) -> f64 {
    let (a, b) = (a.map_readable().unwrap(), b.map_readable().unwrap());
    let sum: u64 = a[..pixels].iter().zip(&b[..pixels]).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    if sum == 0 {
        return 99.0;
    }
    10.0 * (255.0 * 255.0 * pixels as f64 / sum as f64).log10()
}
