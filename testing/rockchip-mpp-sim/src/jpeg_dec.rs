// SPDX-License-Identifier: MIT OR Apache-2.0

//! The JPEG decoder: no announcement of the format, the application brings the output frame. Packets come through
//! tasks, or in later releases through `decode_put_packet` with the frame in the packet's meta.

use crate::abi::{Id, handle, id, store};
use crate::buffer;
use crate::cfg::{self, Cfg, Side};
use crate::control::{COUNTERS, leaked, log, misuse};
use crate::dec_core::Info;
use crate::frame::{self, FRAMES};
use crate::meta::{self, Kind, METAS};
use crate::options::{Release, held, hits, options, refuse_put, wedges};
use crate::packet::{self, PACKETS};
use crate::registry::lock;
use crate::task::{TASKS, Task};
use crate::timing::{LOOK_AGAIN, Wait, deadline, wait_until};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::Codec;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tasks that exist.
const TASK_COUNT: usize = 4;

struct Job {
    packet: Id,
    frame: Id,
    /// The task to come out with; none with `decode_put_packet`.
    task: Option<Id>,
}

struct Shared {
    cfg: Cfg,
    input: Wait,
    output: Wait,
    /// Tasks with the application or on the way, by port.
    outside: Vec<Id>,
    queue: VecDeque<Job>,
    done: VecDeque<Id>,
    ready: VecDeque<Id>,
    tasks: u64,
    working: bool,
    wedged: bool,
    quit: bool,
}

/// A JPEG decoder's engine.
pub struct JpegDecoder {
    release: Release,
    latency: Duration,
    shared: Mutex<Shared>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl JpegDecoder {
    /// Starts a decoder.
    pub fn start(input: Wait, output: Wait) -> Arc<Self> {
        let options = options();
        let decoder = Arc::new(Self {
            release: options.release,
            latency: options.latency,
            shared: Mutex::new(Shared {
                cfg: cfg::decoder_defaults(MPP_VIDEO_CODING_MJPEG),
                input,
                output,
                outside: Vec::new(),
                queue: VecDeque::new(),
                done: VecDeque::new(),
                ready: VecDeque::new(),
                tasks: 0,
                working: false,
                wedged: false,
                quit: false,
            }),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let worker = decoder.clone();
        COUNTERS.threads.fetch_add(1, Relaxed);
        let run = move || {
            worker.work();
            COUNTERS.threads.fetch_sub(1, Relaxed);
        };
        *lock(&decoder.thread) = std::thread::Builder::new().name("mpp-sim-jpeg".into()).spawn(run).ok();
        decoder
    }

    /// `poll`: whether a task is there.
    pub fn poll(&self, port: i32, timeout: i32) -> i32 {
        let until = deadline(Wait::from_ms(timeout.into()), self.release);
        let mut shared = lock(&self.shared);
        loop {
            let there = match port {
                MPP_PORT_INPUT => shared.outside.len() + shared.queue.len() + shared.done.len() < TASK_COUNT,
                MPP_PORT_OUTPUT => !shared.done.is_empty(),
                _ => return MPP_ERR_VALUE,
            };
            if there {
                return MPP_OK;
            }
            match wait_until(&self.changed, shared, until) {
                Ok(woken) => shared = woken,
                Err(_) => return MPP_NOK,
            }
        }
    }

    /// `dequeue`.
    pub fn dequeue(&self, port: i32, out: *mut MppTask) -> i32 {
        if !store(out, std::ptr::null_mut()) {
            misuse(format_args!("dequeue: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        let mut shared = lock(&self.shared);
        let task = match port {
            MPP_PORT_INPUT if shared.outside.len() + shared.queue.len() + shared.done.len() < TASK_COUNT => {
                Some(TASKS.insert(Task::default()))
            }
            MPP_PORT_OUTPUT => shared.done.pop_front(),
            _ => None,
        };
        match task {
            Some(task) => {
                shared.outside.push(task);
                store(out, handle(task));
                MPP_OK
            }
            None => MPP_NOK,
        }
    }

    /// `enqueue`: a filled task to the input, an emptied one back to the output.
    pub fn enqueue(&self, port: i32, task: MppTask) -> i32 {
        let task_id = id(task);
        let Some(task) = TASKS.get(task_id, "enqueue") else { return MPP_ERR_NULL_PTR };
        let mut shared = lock(&self.shared);
        let Some(place) = shared.outside.iter().position(|t| *t == task_id) else {
            misuse(format_args!("enqueue: the task was not dequeued"));
            return MPP_NOK;
        };
        shared.outside.swap_remove(place);
        if port == MPP_PORT_OUTPUT {
            TASKS.remove(task_id, "enqueue");
            drop(shared);
            self.changed.notify_all();
            return MPP_OK;
        }
        let mut values = lock(&task.values);
        let mut part = |key, kind| values.take(key, kind).and_then(|v| usize::try_from(v).ok()).unwrap_or(0);
        let job = Job {
            packet: part(KEY_INPUT_PACKET, Kind::Packet),
            frame: part(KEY_OUTPUT_FRAME, Kind::Frame),
            task: Some(task_id),
        };
        shared.queue.push_back(job);
        drop(shared);
        self.changed.notify_all();
        MPP_OK
    }

    /// `decode_put_packet`: the frame is in the packet's meta.
    pub fn put(&self, packet: MppPacket) -> i32 {
        let packet_id = id(packet);
        if PACKETS.get(packet_id, "decode_put_packet").is_none() {
            return MPP_ERR_NULL_PTR;
        }
        // Before 1.0.8 this way was closed, and refuse_put is a busy queue.
        if self.release < Release::V1_0_8 || refuse_put() {
            return MPP_ERR_BUFFER_FULL;
        }
        let frame = packet::take_meta(packet_id, KEY_OUTPUT_FRAME, Kind::Frame);
        let frame = frame.and_then(|v| usize::try_from(v).ok()).unwrap_or(0);
        lock(&self.shared).queue.push_back(Job { packet: packet_id, frame, task: None });
        self.changed.notify_all();
        MPP_OK
    }

    /// `decode_get_frame`.
    pub fn get(&self, out: *mut MppFrame) -> i32 {
        if !store(out, std::ptr::null_mut()) {
            misuse(format_args!("decode_get_frame: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        let mut shared = lock(&self.shared);
        let until = deadline(shared.output, self.release);
        loop {
            if let Some(frame) = shared.ready.pop_front() {
                store(out, handle(frame));
                return MPP_OK;
            }
            let timed = matches!(shared.output, Wait::For(_));
            match wait_until(&self.changed, shared, until) {
                Ok(woken) => shared = woken,
                Err(_) if timed && self.release < Release::V1_0_10 => return MPP_ERR_TIMEOUT,
                Err(_) if timed => return MPP_NOK,
                Err(_) => return MPP_OK,
            }
        }
    }

    fn work(&self) {
        let mut shared = lock(&self.shared);
        while !shared.quit {
            let waiting = shared.queue.front().is_some_and(|j| j.frame != 0) && !shared.wedged;
            if !waiting {
                // A job without an output frame stays there for ever, and so does all behind it.
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if held(shared.tasks + 1) {
                let waited = self.changed.wait_timeout(shared, LOOK_AGAIN);
                shared = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(job) = shared.queue.pop_front() else { continue };
            shared.tasks += 1;
            let (task, options) = (shared.tasks, options());
            if wedges(task) {
                shared.wedged = true;
                shared.queue.push_front(job);
                continue;
            }
            shared.working = true;
            drop(shared);
            let started = Instant::now();
            self.decode(&job, hits(options.hw_error, task));
            std::thread::sleep(self.latency.saturating_sub(started.elapsed()));
            shared = lock(&self.shared);
            shared.working = false;
            match job.task {
                Some(task_id) => {
                    if let Some(task) = TASKS.find(task_id) {
                        lock(&task.values).set(
                            KEY_OUTPUT_FRAME,
                            Kind::Frame,
                            meta::from_handle::<u8>(handle(job.frame)),
                        );
                    }
                    shared.done.push_back(task_id);
                }
                None => shared.ready.push_back(job.frame),
            }
            self.changed.notify_all();
        }
    }

    /// Decodes into the application's frame, whose meta then has the packet.
    fn decode(&self, job: &Job, broken: bool) {
        let Some(frame) = FRAMES.get(job.frame, "decode") else { return };
        let (pts, eos, result) = match PACKETS.get(job.packet, "decode") {
            Some(packet) => {
                let packet = lock(&packet);
                let result = if packet.buffer == 0 {
                    // The hardware reads dma-bufs, not the caller's memory.
                    log(format_args!("decode: the packet of a JPEG has to be in a buffer"));
                    None
                } else if broken {
                    None
                } else {
                    picture(packet.payload(), lock(&frame).buffer)
                };
                (packet.pts, packet.eos, result)
            }
            None => (0, false, None),
        };
        {
            let mut f = lock(&frame);
            f.pts = pts;
            f.eos = eos.into();
            match result {
                Some(info) => {
                    let shape = info.frame();
                    (f.width, f.height, f.fmt) = (shape.width, shape.height, shape.fmt);
                    (f.hor_stride, f.ver_stride, f.buf_size) =
                        (shape.hor_stride, shape.ver_stride, shape.buf_size);
                    f.errinfo = 0;
                    COUNTERS.decoded.fetch_add(1, Relaxed);
                }
                None => f.errinfo = MPP_FRAME_ERR_DEC_HW_ERR,
            }
        }
        if let Some(meta) = frame::meta_of(job.frame, "decode").and_then(|m| METAS.find(m)) {
            lock(&meta.values).set(
                KEY_INPUT_PACKET,
                Kind::Packet,
                meta::from_handle::<u8>(handle(job.packet)),
            );
        }
    }

    /// `reset`: what waits comes out again, undone.
    pub fn reset(&self) -> i32 {
        let mut shared = lock(&self.shared);
        while shared.working {
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared.wedged = false;
        let waiting = std::mem::take(&mut shared.queue);
        for task in waiting.into_iter().filter_map(|j| j.task).chain(std::mem::take(&mut shared.done)) {
            TASKS.remove(task, "reset");
        }
        // Frames and packets are the application's, which knows them.
        shared.ready.clear();
        drop(shared);
        self.changed.notify_all();
        MPP_OK
    }

    /// `control`.
    pub fn control(&self, command: i32, param: *mut c_void) -> i32 {
        match command {
            MPP_SET_INPUT_TIMEOUT | MPP_SET_OUTPUT_TIMEOUT => {
                let Some(wait) = Wait::read(param) else { return MPP_ERR_NULL_PTR };
                let mut shared = lock(&self.shared);
                *(if command == MPP_SET_INPUT_TIMEOUT { &mut shared.input } else { &mut shared.output }) =
                    wait;
                MPP_OK
            }
            MPP_DEC_GET_CFG => {
                let cfg = lock(&self.shared).cfg.clone();
                cfg::fill(Side::Decoder, param, &cfg, "MPP_DEC_GET_CFG")
            }
            MPP_DEC_SET_CFG => match cfg::of(Side::Decoder, param, "MPP_DEC_SET_CFG") {
                Some(new) => {
                    lock(&self.shared).cfg.merge(&new);
                    MPP_OK
                }
                None => MPP_ERR_NULL_PTR,
            },
            MPP_DEC_SET_EXT_BUF_GROUP | MPP_DEC_SET_INFO_CHANGE_READY | MPP_DEC_SET_FRAME_INFO => MPP_OK,
            MPP_DEC_SET_PARSER_SPLIT_MODE..=MPP_DEC_SET_ENABLE_FAST_PLAY => MPP_OK,
            _ => {
                log(format_args!("control: {command:#x} is not known to a JPEG decoder"));
                MPP_NOK
            }
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        lock(&self.shared).quit = true;
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        let outside = std::mem::take(&mut lock(&self.shared).outside);
        leaked(outside.len(), format_args!("mpp_destroy: {} task(s) were not enqueued again", outside.len()));
        for task in outside {
            TASKS.remove(task, "mpp_destroy");
        }
        self.reset();
    }
}

/// Decodes a picture into a buffer; none if it is broken or does not fit.
fn picture(data: &[u8], buffer_id: Id) -> Option<Info> {
    let buffer = buffer::BUFFERS.find(buffer_id)?;
    let mut decoder = sim_codec::Decoder::new(Codec::Mjpeg).ok()?;
    let mut decoded = decoder.decode(data, 0).ok()?;
    decoded.extend(decoder.finish().ok()?);
    let decoded = decoded.into_iter().next()?;
    let info = Info::new(Codec::Mjpeg, Release::V1_0_11, &decoded.picture, false)?;
    // The hardware wants room for two bytes of each sample.
    let room = info.hor_stride * info.ver_stride * 2;
    if buffer.size < room {
        log(format_args!("decode: the output buffer has {} bytes, {room} are needed", buffer.size));
        return None;
    }
    let mapping = buffer.mapping()?;
    (info.write(Codec::Mjpeg, &decoded.picture, mapping.bytes_mut()) && !decoded.corrupt).then_some(info)
}
