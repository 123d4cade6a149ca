// SPDX-License-Identifier: MIT OR Apache-2.0

//! An encoder driver inside the process. It keeps the interface's rules (order of calls, states of queues, timestamps,
//! draining) and answers wrong calls with the kernel's errno; its [`Faults`] make it fail in the ways that drivers do.
//!
//! What it "encodes" are NAL units with the right types around a checksum of the picture, no video.

mod calls;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ioctl::Api;
use crate::ops::{Interest, Ready, SystemCalls, V4l2Ops, Waker};
use crate::uapi::*;

/// How an emulated driver fails.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// `open(2)` answers this errno.
    pub open: Option<i32>,
    /// Every ioctl answers ENODEV.
    pub gone: bool,
    /// QBUF of CAPTURE answers ENODEV: the device vanishes between two calls.
    pub gone_requeueing: bool,
    /// DQBUF answers EIO once this many pictures were encoded.
    pub eio_after: Option<u64>,
    /// Pictures go in and nothing comes out.
    pub hang: bool,
    /// Every ioctl takes this long.
    pub slow: Duration,
    /// Nothing is made of every n-th picture.
    pub drop_every: Option<u64>,
    /// The n-th picture (from 0) comes with FLAG_ERROR and no bytes.
    pub error_at: Option<u64>,
    /// Parameter sets come in a buffer of their own.
    pub header_buffer: bool,
    /// Parameter sets come only with the first keyframe, and no control changes it.
    pub headers_once: bool,
    /// FLAG_KEYFRAME is never set.
    pub no_key_flag: bool,
    /// FORCE_KEY_FRAME is accepted and ignored.
    pub ignore_force_key: bool,
    /// These controls answer EBUSY while streaming.
    pub busy: Vec<u32>,
    /// There is no ENCODER_CMD.
    pub no_command: bool,
    /// The last picture has FLAG_LAST itself; else an empty buffer follows it.
    pub last_with_picture: bool,
    /// No LAST, no EPIPE at the end of a stream.
    pub silent_end: bool,
    /// S_SELECTION answers EINVAL.
    pub no_crop: bool,
    /// S_PARM answers this.
    pub parm: Option<i32>,
    /// STREAMON answers ESRCH if the level is below this item of its menu.
    pub least_level: i64,
    /// What G_FMT says of bytesperline.
    pub bytesperline: Option<u32>,
    /// Timestamps are not copied.
    pub no_timestamps: bool,
    /// REQBUFS grants at least this many.
    pub least_buffers: u32,
    /// REQBUFS grants at most this many; 0: any.
    pub most_buffers: u32,
    /// As before Linux 5.0: a queue is not freed while its buffers are mapped.
    pub no_orphans: bool,
    /// REQBUFS refuses DMABuf.
    pub no_dmabuf: bool,
    /// QBUF of a DMABuf answers this once so many were queued.
    pub refuse_dmabuf: Option<(u64, i32)>,
    /// Lines are as long as the driver wants, not as S_FMT asks for.
    pub fixed_stride: bool,
    /// S_FMT of the raw format answers this.
    pub format: Option<i32>,
}

/// A control of an emulated driver.
#[derive(Clone, Debug, PartialEq)]
pub struct EmulatedControl {
    /// Number.
    pub id: u32,
    /// Name.
    pub name: &'static str,
    /// `enum v4l2_ctrl_type`
    pub kind: u32,
    /// Least, greatest, step, default.
    pub range: (i64, i64, u64, i64),
}

/// An emulated node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its path; no such file need exist.
    pub path: PathBuf,
    /// Driver name.
    pub driver: String,
    /// `device_caps`
    pub capabilities: u32,
    /// Coded formats.
    pub coded: Vec<FourCc>,
    /// Raw formats.
    pub raw: Vec<FourCc>,
    /// Least, greatest, step of width and height.
    pub sizes: v4l2_frmsize_stepwise,
    /// Controls.
    pub controls: Vec<EmulatedControl>,
    /// How long a picture takes.
    pub latency: Duration,
    /// How it fails.
    pub faults: Faults,
}

fn control(id: u32, name: &'static str, kind: u32, range: (i64, i64, u64, i64)) -> EmulatedControl {
    EmulatedControl { id, name, kind, range }
}

impl Node {
    /// A good encoder for H.264 and H.265 with all controls.
    #[must_use]
    pub fn encoder(path: &str, api: Api) -> Self {
        let (kind, raw) = match api {
            Api::SinglePlane => (V4L2_CAP_VIDEO_M2M, vec![V4L2_PIX_FMT_YUV420, V4L2_PIX_FMT_NV12]),
            Api::MultiPlane => (V4L2_CAP_VIDEO_M2M_MPLANE, vec![V4L2_PIX_FMT_NV12M, V4L2_PIX_FMT_YUV420M]),
        };
        let (int, boolean, menu, button) = (1, 2, V4L2_CTRL_TYPE_MENU, V4L2_CTRL_TYPE_BUTTON);
        Self {
            path: path.into(),
            driver: "emulator".into(),
            capabilities: kind | V4L2_CAP_STREAMING,
            coded: vec![V4L2_PIX_FMT_H264, V4L2_PIX_FMT_HEVC],
            raw,
            sizes: v4l2_frmsize_stepwise {
                min_width: 32,
                max_width: 4096,
                step_width: 16,
                min_height: 32,
                max_height: 4096,
                step_height: 16,
            },
            controls: vec![
                control(V4L2_CID_MPEG_VIDEO_B_FRAMES, "Video B Frames", int, (0, 2, 1, 2)),
                control(V4L2_CID_MPEG_VIDEO_GOP_SIZE, "Video GOP Size", int, (1, 10_000, 1, 12)),
                control(V4L2_CID_MPEG_VIDEO_BITRATE_MODE, "Video Bitrate Mode", menu, (0, 1, 1, 0)),
                control(
                    V4L2_CID_MPEG_VIDEO_BITRATE,
                    "Video Bitrate",
                    int,
                    (25_000, 25_000_000, 25_000, 10_000_000),
                ),
                control(
                    V4L2_CID_MPEG_VIDEO_BITRATE_PEAK,
                    "Video Peak Bitrate",
                    int,
                    (25_000, 25_000_000, 25_000, 10_000_000),
                ),
                control(
                    V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE,
                    "Frame Level Rate Control Enable",
                    boolean,
                    (0, 1, 1, 1),
                ),
                control(V4L2_CID_MPEG_VIDEO_HEADER_MODE, "Sequence Header Mode", menu, (0, 1, 1, 0)),
                control(
                    V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER,
                    "Repeat Sequence Header",
                    boolean,
                    (0, 1, 1, 0),
                ),
                control(V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "Force Key Frame", button, (0, 0, 0, 0)),
                control(V4L2_CID_MPEG_VIDEO_H264_MIN_QP, "H264 Minimum QP Value", int, (0, 51, 1, 20)),
                control(V4L2_CID_MPEG_VIDEO_H264_MAX_QP, "H264 Maximum QP Value", int, (0, 51, 1, 51)),
                control(V4L2_CID_MPEG_VIDEO_H264_LEVEL, "H264 Level", menu, (0, 15, 1, 0)),
                control(V4L2_CID_MPEG_VIDEO_H264_PROFILE, "H264 Profile", menu, (0, 4, 1, 4)),
                control(V4L2_CID_MPEG_VIDEO_HEVC_LEVEL, "HEVC Level", menu, (0, 12, 1, 0)),
                control(V4L2_CID_MPEG_VIDEO_HEVC_PROFILE, "HEVC Profile", menu, (0, 0, 1, 0)),
            ],
            latency: Duration::ZERO,
            faults: Faults::default(),
        }
    }

    /// A camera.
    #[must_use]
    pub fn camera(path: &str) -> Self {
        Self {
            capabilities: 1 | V4L2_CAP_STREAMING,
            driver: "camera".into(),
            ..Self::encoder(path, Api::SinglePlane)
        }
    }

    /// An encoder for JPEG only.
    #[must_use]
    pub fn jpeg(path: &str) -> Self {
        Self {
            coded: vec![V4L2_PIX_FMT_JPEG],
            driver: "jpeg".into(),
            ..Self::encoder(path, Api::SinglePlane)
        }
    }

    /// Without a control.
    #[must_use]
    pub fn without(mut self, id: u32) -> Self {
        self.controls.retain(|control| control.id != id);
        self
    }

    /// With faults.
    #[must_use]
    pub fn with(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }
}

/// What happened to an emulated driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Nodes opened.
    pub opened: u64,
    /// Nodes open now.
    pub open: u64,
    /// Pictures that went in.
    pub pictures: u64,
    /// Raw formats that were set, in order; one after the other, if they are the same, once.
    pub raws: Vec<FourCc>,
    /// Raw buffers, as asked for last.
    pub raw_buffers: u32,
    /// Coded buffers, as asked for last.
    pub coded_buffers: u32,
    /// Controls that were set, in order.
    pub controls: Vec<(u32, i64)>,
    /// STREAMON of CAPTURE.
    pub streams: u64,
    /// S_PARM, in order: frames per second as a fraction.
    pub rates: Vec<(u32, u32)>,
    /// The rectangle of S_SELECTION.
    pub crop: Option<(u32, u32)>,
    /// Colour in S_FMT of OUTPUT.
    pub colorspace: u32,
    /// First byte and last byte of the visible first line of each picture.
    pub corners: Vec<(u8, u8)>,
    /// The longest time for which nothing was expected while there were pictures in the device.
    pub pause: Duration,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    files: BTreeMap<RawFd, File>,
    seen: Seen,
}

/// An open file of an emulated node.
#[derive(Debug)]
struct File {
    /// Keeps the number.
    _fd: OwnedFd,
    node: usize,
    api: Api,
    coded: FourCc,
    coded_size: u32,
    /// What S_FMT asked for.
    stride: u32,
    /// DMABufs that were queued.
    imported: u64,
    raw: FourCc,
    width: u32,
    height: u32,
    crop: (u32, u32),
    values: BTreeMap<u32, i64>,
    output: Side,
    capture: Side,
    /// Coded pictures on their way.
    work: VecDeque<Work>,
    encoded: u64,
    since_key: u64,
    force_key: bool,
    headers_sent: bool,
    stopping: bool,
    /// LAST was dequeued.
    ended: bool,
    last_queued: bool,
    events: u32,
    subscribed: bool,
}

#[derive(Debug, Default)]
struct Side {
    memory: u32,
    buffers: Vec<Buffer>,
    queued: VecDeque<usize>,
    done: VecDeque<Done>,
    streaming: bool,
}

#[derive(Debug)]
struct Buffer {
    /// A file in memory for each plane.
    planes: Vec<OwnedFd>,
    lengths: Vec<u32>,
    used: Vec<u32>,
    /// Somebody else's memory: descriptor and offset.
    foreign: Vec<(RawFd, u32)>,
    timestamp: (i64, i64),
    in_queue: bool,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    index: usize,
    used: u32,
    flags: u32,
    timestamp: (i64, i64),
}

#[derive(Debug)]
struct Work {
    due: Instant,
    data: Vec<u8>,
    flags: u32,
    timestamp: (i64, i64),
}

/// Emulated devices.
#[derive(Clone, Debug, Default)]
pub struct Emulator {
    state: Arc<Mutex<State>>,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// A file in memory.
fn memory(length: u32) -> io::Result<OwnedFd> {
    // SAFETY: a string with a terminating zero that lives for ever.
    let fd = unsafe { libc::memfd_create(c"v4l2-emulator".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let file = std::fs::File::from(fd);
    file.set_len(length.into())?;
    Ok(file.into())
}

impl Emulator {
    /// Devices with these nodes.
    #[must_use]
    pub fn new(nodes: Vec<Node>) -> Self {
        Self { state: Arc::new(Mutex::new(State { nodes, ..State::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As what the engine takes.
    #[must_use]
    pub fn ops(&self) -> Arc<dyn V4l2Ops> {
        Arc::new(self.clone())
    }

    /// What happened so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Changes how the first node fails, from now on.
    pub fn fault(&self, change: impl FnOnce(&mut Faults)) {
        if let Some(node) = self.lock().nodes.first_mut() {
            change(&mut node.faults);
        }
    }

    /// Value of a control of the file opened last.
    #[must_use]
    pub fn control(&self, id: u32) -> Option<i64> {
        self.lock().files.values().next_back()?.values.get(&id).copied()
    }
}

impl V4l2Ops for Emulator {
    fn open(&self, path: &Path) -> io::Result<RawFd> {
        let mut state = self.lock();
        let found = state.nodes.iter().enumerate().find(|(_, node)| node.path == path);
        let (index, node) =
            found.map(|(index, node)| (index, node.clone())).ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(code) = node.faults.open {
            return Err(errno(code));
        }
        if node.faults.gone {
            return Err(errno(libc::ENODEV));
        }
        let fd = memory(0)?;
        let raw = fd.as_raw_fd();
        state.files.insert(raw, File::new(fd, index, &node));
        state.seen.opened += 1;
        state.seen.open += 1;
        Ok(raw)
    }

    fn close(&self, fd: RawFd) {
        let mut state = self.lock();
        if state.files.remove(&fd).is_some() {
            state.seen.open -= 1;
        }
    }

    unsafe fn ioctl(&self, fd: RawFd, request: c_ulong, argument: *mut c_void) -> io::Result<()> {
        let slow = {
            let state = self.lock();
            let node = state.files.get(&fd).and_then(|file| state.nodes.get(file.node));
            node.map_or(Duration::ZERO, |node| node.faults.slow)
        };
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
        let mut state = self.lock();
        let State { nodes, files, seen } = &mut *state;
        let file = files.get_mut(&fd).ok_or_else(|| errno(libc::EBADF))?;
        let node = nodes.get(file.node).ok_or_else(|| errno(libc::ENODEV))?;
        if node.faults.gone {
            return Err(errno(libc::ENODEV));
        }
        // SAFETY: the caller's promise about `argument`.
        unsafe { calls::ioctl(file, node, seen, request, argument) }
    }

    fn mmap(&self, fd: RawFd, length: usize, offset: u64) -> io::Result<NonNull<u8>> {
        let state = self.lock();
        let file = state.files.get(&fd).ok_or_else(|| errno(libc::EBADF))?;
        let plane = file.plane_at(offset).ok_or_else(|| errno(libc::EINVAL))?;
        SystemCalls.mmap(plane, length, 0)
    }

    unsafe fn munmap(&self, address: NonNull<u8>, length: usize) {
        // SAFETY: the caller's promise; it was mapped by a system call.
        unsafe { SystemCalls.munmap(address, length) }
    }

    fn wait(&self, fd: RawFd, interest: Interest, waker: &Waker, timeout: Duration) -> io::Result<Ready> {
        let deadline = Instant::now() + timeout;
        {
            let seen = &mut self.lock().seen;
            seen.pause = seen.pause.max(interest.pause);
        }
        loop {
            let due = {
                let mut state = self.lock();
                let State { nodes, files, seen } = &mut *state;
                let Some(file) = files.get_mut(&fd) else { return Ok(Ready::Device) };
                let Some(node) = nodes.get(file.node) else { return Ok(Ready::Device) };
                file.proceed(node, seen);
                let idle = file.output.done.is_empty() && file.capture.done.is_empty() && file.events == 0;
                let fails = node.faults.gone || node.faults.eio_after.is_some_and(|n| file.encoded >= n);
                if !idle || (fails && file.output.streaming) {
                    return Ok(Ready::Device);
                }
                file.work.front().map(|work| work.due)
            };
            let now = Instant::now();
            if now >= deadline {
                return Ok(Ready::TimedOut);
            }
            // A fault may be set by another thread.
            let until = due.unwrap_or(deadline).min(deadline).min(now + Duration::from_millis(20));
            let none = Interest { capture: false, output: false, pause: Duration::ZERO };
            let slice = until.saturating_duration_since(now).max(Duration::from_millis(1));
            if SystemCalls.wait(-1, none, waker, slice)? == Ready::Woken {
                return Ok(Ready::Woken);
            }
        }
    }

    fn adopt(&self, fd: RawFd) -> OwnedFd {
        SystemCalls.adopt(fd)
    }

    fn nodes(&self) -> Vec<PathBuf> {
        self.lock().nodes.iter().map(|node| node.path.clone()).collect()
    }
}
