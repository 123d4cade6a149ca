// SPDX-License-Identifier: MIT OR Apache-2.0

//! One open encoder: its state, and the calls that are no buffers' (formats, controls, streaming).

use crate::config::Config;
use crate::controls::{self, Control, Kind, When};
use crate::format::{self, Layout, Raw};
use crate::queue::Queue;
use crate::report;
use crate::surface::{self, lock};
use sim_codec::Codec;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use v4l2_m2m::uapi::{self, v4l2_format, v4l2_streamparm};

/// What a call answers: an errno.
pub type Answer = Result<(), i32>;

/// Devices with a CAPTURE format: NVENC sessions.
static SESSIONS: AtomicUsize = AtomicUsize::new(0);

/// Fields that change.
#[derive(Default)]
pub struct State {
    /// CAPTURE's format.
    pub coded: Option<Coded>,
    /// OUTPUT's format.
    pub raw: Option<Layout>,
    /// Frames per second, numerator and denominator.
    pub rate: (u32, u32),
    /// Plain values by name.
    pub values: BTreeMap<&'static str, i32>,
    /// What pointers led to, by name.
    pub blobs: BTreeMap<&'static str, Vec<u8>>,
    /// Pictures.
    pub output: Queue,
    /// Packets.
    pub capture: Queue,
    /// EOS events wanted.
    pub subscribed: bool,
    /// EOS events not fetched.
    pub events: usize,
    /// The next picture becomes an IDR.
    pub force: bool,
    /// The end has been told; nothing more is coded before a new start.
    pub ended: bool,
    /// SET_POLL_INTERRUPT.
    pub interrupt: bool,
    /// Pictures taken since the device was opened.
    pub pictures: u64,
    /// Every call answers this.
    pub gone: Option<i32>,
    /// QBUF and DQBUF answer this.
    pub broken: Option<i32>,
    /// Nothing is coded: `nv_v4l2_sim_hold`.
    pub held: bool,
    /// Being closed.
    pub closing: bool,
    /// Counts STREAMOFF; what was begun before one is thrown away.
    pub generation: u64,
    /// Which OUTPUT index an imported descriptor was first used with.
    pub slots: HashMap<RawFd, u32>,
    /// Descriptors given out, with what they stood for.
    pub exported: Vec<(RawFd, u64)>,
    /// All memory that was ever given out.
    pub inodes: Vec<u64>,
}

/// CAPTURE's format.
#[derive(Clone, Copy, Debug)]
pub struct Coded {
    /// The codec.
    pub codec: Codec,
    /// Its number.
    pub pixels: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes of a buffer.
    pub size: u32,
}

/// One open encoder.
pub struct Device {
    /// What board this is.
    pub config: Config,
    /// Opened without O_NONBLOCK.
    pub blocking: bool,
    state: Mutex<State>,
    /// Told after each change that somebody may wait for.
    pub changed: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Device {
    /// A device as it is after open.
    pub fn new(config: Config, blocking: bool) -> Arc<Self> {
        report::count(&config.tag, "opens", 1);
        report::count(&config.tag, "open", 1);
        let state = State { rate: (30, 1), ..State::default() };
        Arc::new(Self {
            config,
            blocking,
            state: Mutex::new(state),
            changed: Condvar::new(),
            worker: Mutex::default(),
        })
    }

    /// The state, if the device is still there.
    pub fn state(&self) -> Result<MutexGuard<'_, State>, i32> {
        let state = lock(&self.state);
        match state.gone {
            Some(errno) => Err(errno),
            None => Ok(state),
        }
    }

    /// The state in any case; for the worker.
    pub fn any_state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for a change.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a rule that was broken, and gives the errno back.
    pub fn broke(&self, rule: &str, text: &str, errno: i32) -> i32 {
        report::violation(&self.config.tag, rule, text);
        errno
    }

    /// Ends everything that waits, and the worker.
    pub fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_all();
        if let Some(worker) = lock(&self.worker).take() {
            let _ = worker.join();
        }
        let mut state = lock(&self.state);
        for (fd, inode) in std::mem::take(&mut state.exported) {
            if surface::inode(fd) != Some(inode) {
                self.broke("exported-fds-stay-open", &format!("{fd} was closed before v4l2_close"), 0);
            }
        }
        for inode in std::mem::take(&mut state.inodes) {
            surface::forget(inode);
        }
        if state.coded.take().is_some() {
            SESSIONS.fetch_sub(1, Ordering::SeqCst);
        }
        report::count(&self.config.tag, "open", -1);
    }

    /// VIDIOC_S_FMT (`keep`) and VIDIOC_TRY_FMT.
    pub fn set_format(&self, wanted: &mut v4l2_format, keep: bool) -> Answer {
        let mut state = self.state()?;
        match wanted.type_ {
            uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => self.set_coded(&mut state, wanted, keep),
            uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => self.set_raw(&mut state, wanted, keep),
            _ => Err(self.broke("mplane-only", "a single-planar buffer type", libc::EINVAL)),
        }
    }

    fn size(&self, width: u32, height: u32) -> Result<(u32, u32), i32> {
        if width == 0 || height == 0 {
            return Err(self.broke("capture-format-has-size", "S_FMT without a size", libc::EINVAL));
        }
        if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
            return Err(self.broke("even-sizes", &format!("{width}x{height}"), libc::EINVAL));
        }
        Ok((width.min(self.config.max.0), height.min(self.config.max.1)))
    }

    fn set_coded(&self, state: &mut State, wanted: &mut v4l2_format, keep: bool) -> Answer {
        if keep && (state.capture.has_buffers() || state.output.has_buffers()) {
            return Err(self.broke("no-format-with-buffers", "S_FMT CAPTURE", libc::EBUSY));
        }
        // SAFETY: every bit pattern is a value of the multi-planar member, whose type the caller's `type_` names.
        let pix = unsafe { &mut wanted.fmt.pix_mp };
        let codec = format::codec_of(pix.pixelformat, self.config.av1).ok_or(libc::EINVAL)?;
        let (width, height) = self.size(pix.width, pix.height)?;
        let [plane, ..] = &mut pix.plane_fmt;
        if plane.sizeimage == 0 {
            return Err(self.broke("capture-format-has-size", "S_FMT without sizeimage", libc::EINVAL));
        }
        if self.config.capture_size > 0 {
            plane.sizeimage = self.config.capture_size;
        }
        plane.sizeimage = plane.sizeimage.min(64 << 20);
        plane.bytesperline = 0;
        let size = plane.sizeimage;
        (pix.width, pix.height, pix.num_planes, pix.field) = (width, height, 1, uapi::V4L2_FIELD_NONE);
        if keep {
            if state.coded.is_none() {
                let limit = self.config.sessions;
                let taken = SESSIONS.fetch_add(1, Ordering::SeqCst);
                if limit > 0 && taken >= limit {
                    SESSIONS.fetch_sub(1, Ordering::SeqCst);
                    return Err(libc::EINVAL);
                }
            }
            state.coded = Some(Coded { codec, pixels: pix.pixelformat, width, height, size });
            // CAPTURE is the master: OUTPUT is to be chosen anew, and so are the controls.
            state.raw = None;
            state.values.clear();
            state.blobs.clear();
        }
        Ok(())
    }

    fn set_raw(&self, state: &mut State, wanted: &mut v4l2_format, keep: bool) -> Answer {
        if keep && (state.capture.has_buffers() || state.output.has_buffers()) {
            return Err(self.broke("no-format-with-buffers", "S_FMT OUTPUT", libc::EBUSY));
        }
        let Some(coded) = state.coded else {
            return Err(self.broke("capture-format-first", "S_FMT OUTPUT before CAPTURE", libc::EINVAL));
        };
        // SAFETY: every bit pattern is a value of the multi-planar member, whose type the caller's `type_` names.
        let pix = unsafe { &mut wanted.fmt.pix_mp };
        let raw = Raw::of(pix.pixelformat).ok_or(libc::EINVAL)?;
        if raw == Raw::P010 && coded.codec != Codec::H265 {
            return Err(libc::EINVAL);
        }
        let (width, height) = self.size(pix.width, pix.height)?;
        let layout = raw.layout(width, height);
        (pix.width, pix.height, pix.field) = (width, height, uapi::V4L2_FIELD_NONE);
        pix.num_planes = u8::try_from(layout.planes.len()).unwrap_or(0);
        for (to, from) in pix.plane_fmt.iter_mut().zip(&layout.planes) {
            to.sizeimage = u32::try_from(from.size).unwrap_or(0);
            to.bytesperline =
                if self.config.real_bytesperline { u32::try_from(from.pitch).unwrap_or(0) } else { 0 };
        }
        if keep {
            state.raw = Some(layout);
        }
        Ok(())
    }

    /// VIDIOC_G_FMT.
    pub fn get_format(&self, format: &mut v4l2_format) -> Answer {
        let state = self.state()?;
        // SAFETY: every bit pattern is a value of the multi-planar member.
        let pix = unsafe { &mut format.fmt.pix_mp };
        match format.type_ {
            uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => {
                let coded = state.coded.ok_or(libc::EINVAL)?;
                (pix.width, pix.height, pix.pixelformat) = (coded.width, coded.height, coded.pixels);
                let [plane, ..] = &mut pix.plane_fmt;
                (plane.sizeimage, plane.bytesperline, pix.num_planes) = (coded.size, 0, 1);
            }
            uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => {
                let layout = state.raw.as_ref().ok_or(libc::EINVAL)?;
                (pix.width, pix.height, pix.pixelformat) = (layout.width, layout.height, layout.raw.pixels());
                pix.num_planes = u8::try_from(layout.planes.len()).unwrap_or(0);
                for (to, from) in pix.plane_fmt.iter_mut().zip(&layout.planes) {
                    to.sizeimage = u32::try_from(from.size).unwrap_or(0);
                    to.bytesperline = if self.config.real_bytesperline {
                        u32::try_from(from.pitch).unwrap_or(0)
                    } else {
                        0
                    };
                }
            }
            _ => return Err(libc::EINVAL),
        }
        Ok(())
    }

    /// VIDIOC_S_PARM.
    pub fn set_parm(&self, parm: &v4l2_streamparm) -> Answer {
        let mut state = self.state()?;
        if parm.type_ != uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE {
            return Err(libc::EINVAL);
        }
        if state.raw.is_none() {
            return Err(self.broke("controls-after-formats", "S_PARM before both formats", libc::EINVAL));
        }
        // SAFETY: every bit pattern is a value of it.
        let time = unsafe { parm.parm.output }.timeperframe;
        if time.numerator == 0 || time.denominator == 0 {
            return Err(libc::EINVAL);
        }
        state.rate = (time.denominator, time.numerator);
        report::control(&self.config.tag, "S_PARM", format!("{}/{}", time.denominator, time.numerator));
        Ok(())
    }

    fn may_set(&self, state: &State, control: &Control) -> Answer {
        let name = control.name;
        let (have_buffers, streaming) = (
            state.output.has_buffers() || state.capture.has_buffers(),
            state.output.streaming || state.capture.streaming,
        );
        let ready = state.coded.is_some() && state.raw.is_some();
        match control.when {
            When::BetweenFormats if state.coded.is_none() || state.raw.is_some() => {
                return Err(self.broke("av1-headers-between-formats", name, libc::EINVAL));
            }
            When::Setup | When::Runtime if !ready => {
                return Err(self.broke("controls-after-formats", name, libc::EINVAL));
            }
            When::Setup if have_buffers => {
                return Err(self.broke("controls-before-reqbufs", name, libc::EBUSY));
            }
            When::PerFrame if !(state.output.has_buffers() && state.capture.has_buffers()) => {
                return Err(self.broke("per-frame-after-reqbufs", name, libc::EINVAL));
            }
            _ => {}
        }
        let codec = state.coded.map(|coded| coded.codec);
        let fits = match name.split_once('_').map_or(name, |(first, _)| first) {
            "H264" | "POC" => codec == Some(Codec::H264),
            "H265" => codec == Some(Codec::H265),
            "AV1" => codec == Some(Codec::Av1),
            _ => true,
        };
        if !fits {
            return Err(libc::EINVAL);
        }
        if streaming && self.config.busy.iter().any(|busy| busy == name) {
            return Err(libc::EBUSY);
        }
        Ok(())
    }

    /// One control of VIDIOC_S_EXT_CTRLS; `union` are its eight bytes.
    pub fn set_control(&self, id: u32, size: u32, union: u64) -> Answer {
        let control = controls::find(id).ok_or(libc::EINVAL)?;
        let name = control.name;
        if self.config.refuse.iter().any(|refused| refused == name) {
            return Err(libc::EINVAL);
        }
        let mut state = self.state()?;
        self.may_set(&state, control)?;
        if size != 0 {
            return Err(self.broke("control-size-is-zero", name, libc::EINVAL));
        }
        let ignored = self.config.ignore.iter().any(|ignored| ignored == name);
        match control.kind {
            Kind::Value => {
                if union >> 32 != 0 {
                    return Err(self.broke("value-or-pointer", &format!("{name} is a value"), libc::EINVAL));
                }
                let value = (union as u32).cast_signed();
                self.check_value(name, value)?;
                report::control(&self.config.tag, name, value.to_string());
                if ignored {
                    return Ok(());
                }
                self.act(&mut state, id, value);
                state.values.insert(name, value);
            }
            Kind::Pointer(length) => {
                let bytes = read_memory(union, length).map_err(|errno| {
                    self.broke("value-or-pointer", &format!("{name} is a pointer"), errno)
                })?;
                report::control(&self.config.tag, name, words(&bytes));
                if !ignored {
                    state.blobs.insert(name, bytes);
                }
            }
            Kind::Poll => {
                let bytes = read_memory(union, 4).map_err(|errno| {
                    self.broke("value-or-pointer", &format!("{name} is a pointer"), errno)
                })?;
                let wanted = bytes.first_chunk().map_or(0, |bytes: &[u8; 2]| u16::from_ne_bytes(*bytes));
                let answer = self.poll(state, wanted)?;
                let [low, high] = wanted.to_ne_bytes();
                let [first, second] = answer.to_ne_bytes();
                write_memory(union, &[low, high, first, second])?;
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    fn check_value(&self, name: &str, value: i32) -> Answer {
        let good = match name {
            "BITRATE" | "BITRATE_PEAK" => value > 0,
            "BITRATE_MODE" | "NUM_BFRAMES" => (0..=2).contains(&value),
            "HW_PRESET_TYPE" | "TEMPORAL_TRADEOFF_LEVEL" => (0..=4).contains(&value),
            "GOP_SIZE" | "IDR_INTERVAL" | "H264_I_PERIOD" => value >= 0,
            "H264_PROFILE" => (0..=16).contains(&value),
            "H264_LEVEL" => (0..=15).contains(&value),
            "POC_TYPE" => [0, 2].contains(&value),
            _ => true,
        };
        if good {
            Ok(())
        } else {
            Err(self.broke("values-in-range", &format!("{name}={value}"), libc::ERANGE))
        }
    }

    fn act(&self, state: &mut State, id: u32, value: i32) {
        let av1 = state.coded.is_some_and(|coded| coded.codec == Codec::Av1);
        match id {
            // AV1 listens to MFC51_FORCE_FRAME_TYPE only (reference §2.5).
            uapi::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME => state.force |= !av1,
            controls::FORCE_IDR_FRAME => state.force |= !av1 && value != 0,
            uapi::V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE => state.force |= (0..=1).contains(&value),
            controls::SET_POLL_INTERRUPT => state.interrupt = value != 0,
            _ => {}
        }
    }

    /// DEVICE_POLL: waits until what is wanted is there. After the end it waits for ever, unless interrupted.
    fn poll(&self, mut state: MutexGuard<'_, State>, wanted: u16) -> Result<u16, i32> {
        if self.blocking {
            return Err(self.broke("poll-is-for-nonblocking", "DEVICE_POLL", libc::EINVAL));
        }
        let (input, priority, output, error) = (
            libc::POLLIN.cast_unsigned(),
            libc::POLLPRI.cast_unsigned(),
            libc::POLLOUT.cast_unsigned(),
            libc::POLLERR.cast_unsigned(),
        );
        loop {
            if let Some(errno) = state.gone {
                return Err(errno);
            }
            let mut answer = 0;
            if !state.capture.done.is_empty() {
                answer |= wanted & input;
            }
            if !state.output.done.is_empty() {
                answer |= wanted & output;
            }
            if state.events > 0 {
                answer |= wanted & priority;
            }
            if state.broken.is_some() {
                answer |= error;
            }
            if answer != 0 || state.interrupt || state.closing {
                return Ok(answer);
            }
            report::count(&self.config.tag, "poll-waits", 1);
            state = self.wait(state);
        }
    }

    /// VIDIOC_STREAMON.
    pub fn stream_on(self: &Arc<Self>, kind: u32) -> Answer {
        let mut state = self.state()?;
        match kind {
            uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => {
                if !state.output.has_buffers() || !state.capture.has_buffers() {
                    return Err(self.broke("streamon-after-reqbufs", "STREAMON OUTPUT", libc::EINVAL));
                }
                state.output.streaming = true;
                // A new start of OUTPUT goes on after the end.
                state.ended = false;
            }
            uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => {
                if !state.capture.has_buffers() {
                    return Err(self.broke("streamon-after-reqbufs", "STREAMON CAPTURE", libc::EINVAL));
                }
                if !state.output.streaming {
                    return Err(self.broke("streamon-output-first", "STREAMON CAPTURE", libc::EINVAL));
                }
                state.capture.streaming = true;
            }
            _ => return Err(libc::EINVAL),
        }
        if state.output.streaming && state.capture.streaming {
            let mut worker = lock(&self.worker);
            if worker.is_none() {
                let device = Arc::clone(self);
                let thread = std::thread::Builder::new().name("nv-v4l2-sim".to_owned());
                *worker = Some(thread.spawn(move || crate::worker::run(&device)).map_err(|_| libc::EAGAIN)?);
            }
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// VIDIOC_STREAMOFF: forgets everything in flight.
    pub fn stream_off(&self, kind: u32) -> Answer {
        if self.config.slow_stop {
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        let mut state = self.state()?;
        let queue = match kind {
            uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => &mut state.output,
            uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => &mut state.capture,
            _ => return Err(libc::EINVAL),
        };
        queue.stop();
        state.generation += 1;
        state.ended = false;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// VIDIOC_ENCODER_CMD.
    pub fn encoder_cmd(&self, cmd: u32, flags: u32) -> Answer {
        let mut state = self.state()?;
        match cmd {
            uapi::V4L2_ENC_CMD_STOP => {
                if flags != 1 {
                    return Err(self.broke("stop-has-flag-one", &format!("flags {flags}"), libc::EINVAL));
                }
                if !(state.output.streaming && state.capture.streaming) {
                    return Err(libc::EINVAL);
                }
                state.output.queued.push_back(crate::queue::Queued::end());
            }
            uapi::V4L2_ENC_CMD_START => state.ended = false,
            _ => return Err(libc::EINVAL),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// VIDIOC_SUBSCRIBE_EVENT.
    pub fn subscribe(&self, kind: u32) -> Answer {
        if kind != uapi::V4L2_EVENT_EOS {
            return Err(libc::EINVAL);
        }
        self.state()?.subscribed = true;
        Ok(())
    }

    /// VIDIOC_DQEVENT: whether there was one.
    pub fn take_event(&self) -> Answer {
        let mut state = self.state()?;
        state.events = state.events.checked_sub(1).ok_or(libc::ENOENT)?;
        Ok(())
    }
}

fn words(bytes: &[u8]) -> String {
    let words: VecDeque<String> = bytes
        .chunks_exact(4)
        .map(|word| {
            word.iter().rev().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)).cast_signed().to_string()
        })
        .collect();
    Vec::from(words).join(" ")
}

/// What METADATA (reference §2.5) leads to: four pointers, the third to the description of a packet, and a buffer's number.
pub fn read_metadata(device: &Device, address: u64) -> Answer {
    let bytes = read_memory(address, 36)?;
    let number = |at: usize, length: usize| {
        let bytes = bytes.get(at..at + length).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let index = u32::try_from(number(32, 4)).map_err(|_| libc::EINVAL)?;
    let (key, end) = device.metadata(index)?;
    write_memory(number(16, 8), &[key.into(), end.into()])
}

/// Bytes at an address that may be none: the call answers EFAULT where NVIDIA's library would crash.
fn read_memory(address: u64, length: usize) -> Result<Vec<u8>, i32> {
    let mut copy = vec![0_u8; length];
    transfer(address, &mut copy, false)?;
    Ok(copy)
}

fn write_memory(address: u64, bytes: &[u8]) -> Answer {
    transfer(address, &mut bytes.to_vec(), true)
}

fn transfer(address: u64, bytes: &mut [u8], write: bool) -> Answer {
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: no pointer is passed.
    let process = unsafe { libc::getpid() };
    // SAFETY: `local` is a slice of ours; the kernel checks `remote`, and refuses what is not mapped.
    let done = unsafe {
        if write {
            libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0)
        } else {
            libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0)
        }
    };
    if usize::try_from(done) == Ok(bytes.len()) { Ok(()) } else { Err(libc::EFAULT) }
}
