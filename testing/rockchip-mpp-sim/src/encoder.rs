// SPDX-License-Identifier: MIT OR Apache-2.0

//! An encoder: queues, time-outs, ownership, what the hardware does and what it fails at.

use crate::abi::{Id, handle, id, store};
use crate::cfg::{self, Cfg, Side};
use crate::control::{COUNTERS, leaked, log, misuse};
use crate::enc_core::{Core, codec_of, merge, picture};
use crate::meta::{self, Kind, METAS};
use crate::options::{Options, Release, held, held_out, hits, options, refuse_put, wedges};
use crate::packet::{self, PACKETS, Packet, in_buffer};
use crate::refcfg::{REF_CFGS, RefCfg};
use crate::registry::lock;
use crate::timing::{LOOK_AGAIN, Wait, deadline, wait_until};
use crate::{buffer, frame};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that wait for the hardware, at most.
const QUEUE: usize = 2;

struct Shared {
    cfg: Cfg,
    refs: RefCfg,
    each_idr: bool,
    idr: bool,
    input: Wait,
    output: Wait,
    queue: VecDeque<Id>,
    /// Coded, when the hardware will have finished, and the number of the task; oldest first.
    flying: VecDeque<(Instant, Id, u64)>,
    ready: VecDeque<Id>,
    cores: Vec<Instant>,
    /// A task is between queue and `flying`.
    working: bool,
    tasks: u64,
    wedged: bool,
    quit: bool,
}

/// An encoder's engine.
pub struct Encoder {
    coding: i32,
    release: Release,
    /// The library owns the frames until their packets are out.
    owns: bool,
    /// Frames wait in a queue for a thread.
    queued: bool,
    latency: Duration,
    group: Id,
    shared: Mutex<Shared>,
    changed: Condvar,
    core: Mutex<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Encoder {
    /// Starts an encoder; the input time-out decides its mode for good.
    pub fn start(coding: i32, input: Wait, output: Wait) -> Option<Arc<Self>> {
        let codec = codec_of(coding)?;
        let options = options();
        let owns = input != Wait::Forever;
        let cores = if coding == MPP_VIDEO_CODING_MJPEG { options.cores * 2 } else { options.cores };
        let encoder = Arc::new(Self {
            coding,
            release: options.release,
            owns,
            queued: owns && coding != MPP_VIDEO_CODING_VP8,
            latency: options.latency,
            group: buffer::new_group(MPP_BUFFER_TYPE_DMA_HEAP, MPP_BUFFER_INTERNAL),
            shared: Mutex::new(Shared {
                cfg: cfg::encoder_defaults(coding),
                refs: RefCfg::default(),
                each_idr: false,
                idr: false,
                input,
                output,
                queue: VecDeque::new(),
                flying: VecDeque::new(),
                ready: VecDeque::new(),
                cores: vec![Instant::now(); cores],
                working: false,
                tasks: 0,
                wedged: false,
                quit: false,
            }),
            changed: Condvar::new(),
            core: Mutex::new(Core::new(codec)),
            thread: Mutex::new(None),
        });
        if encoder.queued {
            let worker = encoder.clone();
            COUNTERS.threads.fetch_add(1, Relaxed);
            let run = move || {
                worker.work();
                COUNTERS.threads.fetch_sub(1, Relaxed);
            };
            *lock(&encoder.thread) = std::thread::Builder::new().name("mpp-sim-enc".into()).spawn(run).ok();
        }
        Some(encoder)
    }

    /// `encode_put_frame`.
    pub fn put(&self, frame: MppFrame) -> i32 {
        let frame_id = id(frame);
        let Some(fields) = frame::read(frame_id, "encode_put_frame") else { return MPP_ERR_NULL_PTR };
        if fields.owned {
            misuse(format_args!("encode_put_frame: the frame {frame_id:#x} is the library's already"));
            return MPP_NOK;
        }
        if lock(&self.shared).cfg.get("prep:width") == 0 && fields.buffer != 0 {
            misuse(format_args!("encode_put_frame: width and height were never configured"));
            return MPP_NOK;
        }
        if refuse_put() {
            return MPP_NOK;
        }
        if !self.queued {
            while held(lock(&self.shared).tasks + 1) {
                std::thread::sleep(LOOK_AGAIN);
            }
            COUNTERS.side_by_side.fetch_max(1, Relaxed);
            let options = options();
            let started = Instant::now();
            let packet = self.code(frame_id, &options);
            let wedged = lock(&self.shared).wedged;
            let takes = if wedged { options.wedge } else { self.latency };
            std::thread::sleep(takes.saturating_sub(started.elapsed()));
            lock(&self.shared).ready.push_back(packet);
            self.changed.notify_all();
            return MPP_OK;
        }
        let mut shared = lock(&self.shared);
        let until = deadline(shared.input, self.release);
        while shared.queue.len() >= QUEUE {
            match wait_until(&self.changed, shared, until) {
                Ok(woken) => shared = woken,
                Err(_) => return MPP_NOK,
            }
        }
        frame::own(frame_id, true);
        shared.queue.push_back(frame_id);
        drop(shared);
        self.changed.notify_all();
        MPP_OK
    }

    /// `encode_get_packet`.
    pub fn get(&self, out: *mut MppPacket) -> i32 {
        if !store(out, std::ptr::null_mut()) {
            misuse(format_args!("encode_get_packet: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        let mut shared = lock(&self.shared);
        let until = deadline(shared.output, self.release);
        loop {
            if let Some(packet) = shared.ready.pop_front() {
                // From here on the frame is the application's again.
                if let Some(frame) = packet::peek_meta(packet, KEY_INPUT_FRAME) {
                    frame::own(frame, false);
                }
                store(out, handle(packet));
                return MPP_OK;
            }
            if !self.owns {
                return MPP_OK;
            }
            let timed = matches!(shared.output, Wait::For(_));
            match wait_until(&self.changed, shared, until) {
                Ok(woken) => shared = woken,
                Err(_) if timed && self.release < Release::V1_0_10 => return MPP_ERR_TIMEOUT,
                Err(_) => return MPP_NOK,
            }
        }
    }

    /// The worker thread: gives frames to free cores, and their packets out when the hardware has finished.
    fn work(&self) {
        let mut shared = lock(&self.shared);
        while !shared.quit {
            let now = Instant::now();
            let is_done = |(at, _, task): &&(Instant, Id, u64)| *at <= now && !held_out(*task);
            let done = shared.flying.iter().take_while(is_done).count();
            if done > 0 {
                let out: Vec<_> = shared.flying.drain(..done).map(|(_, packet, _)| packet).collect();
                shared.ready.extend(out);
                self.changed.notify_all();
            }
            // All cores have a task that is kept from its end.
            let stuck = shared.flying.len() >= shared.cores.len() && held_out(shared.tasks);
            if stuck || !shared.queue.is_empty() && held(shared.tasks + 1) {
                shared = match wait_until(&self.changed, shared, Wait::For(LOOK_AGAIN)) {
                    Ok(woken) | Err(woken) => woken,
                };
                continue;
            }
            let free = shared.cores.iter().position(|c| *c <= now);
            if let Some(core) = free
                && !shared.wedged
                && let Some(frame) = shared.queue.pop_front()
            {
                shared.working = true;
                drop(shared);
                self.changed.notify_all();
                let packet = self.code(frame, &options());
                shared = lock(&self.shared);
                shared.working = false;
                let at = (now + self.latency).max(shared.flying.back().map_or(now, |(at, ..)| *at));
                let task = shared.tasks;
                if let Some(core) = shared.cores.get_mut(core) {
                    *core = at;
                }
                // A wedged one stays in the hardware for ever; so does its frame.
                let end = if shared.wedged { now + Duration::from_secs(1 << 30) } else { at };
                shared.flying.push_back((end, packet, task));
                let busy = i64::try_from(shared.flying.len()).unwrap_or(i64::MAX);
                COUNTERS.side_by_side.fetch_max(busy, Relaxed);
                self.changed.notify_all();
                continue;
            }
            let core = if shared.queue.is_empty() || shared.wedged {
                None
            } else {
                shared.cores.iter().min().copied()
            };
            let first = shared.flying.front();
            let end = first.map(|(at, _, task)| if held_out(*task) { now + LOOK_AGAIN } else { *at });
            let next = end.into_iter().chain(core).min();
            shared = match wait_until(&self.changed, shared, next.map_or(Wait::Forever, Wait::Until)) {
                Ok(woken) | Err(woken) => woken,
            };
        }
    }

    /// Codes a frame into a packet. A failure of the hardware is an empty packet.
    fn code(&self, frame_id: Id, options: &Options) -> Id {
        let (cfg, refs, each_idr, idr, task) = {
            let mut shared = lock(&self.shared);
            shared.tasks += 1;
            shared.wedged |= !shared.wedged && wedges(shared.tasks);
            let idr = std::mem::take(&mut shared.idr);
            (shared.cfg.clone(), shared.refs.clone(), shared.each_idr, idr, shared.tasks)
        };
        let fields = frame::read(frame_id, "encode").unwrap_or_default();
        let failed = hits(options.hw_error, task) || hits(options.empty, task) || lock(&self.shared).wedged;
        let output =
            if fields.buffer == 0 || failed { None } else { self.hardware(&cfg, &fields, idr, each_idr) };
        let mut values = meta::Values::default();
        let mut out = Packet::default();
        if let Some(output) = &output
            && let Some(place) = self.place(&output.data)
        {
            out = in_buffer(place, output.data.len());
            let intra = output.key && self.coding != MPP_VIDEO_CODING_MJPEG;
            if self.coding != MPP_VIDEO_CODING_VP8 || self.release > Release::V1_0_4 {
                values.set(KEY_OUTPUT_INTRA, Kind::S32, intra.into());
            }
            values.set(KEY_ENC_AVERAGE_QP, Kind::S32, output.qp.into());
            values.set(KEY_TEMPORAL_ID, Kind::S32, refs.temporal_id(output.since_idr).into());
            COUNTERS.encoded.fetch_add(1, Relaxed);
        }
        out.pts = fields.pts;
        out.eos = fields.eos != 0;
        if self.owns {
            values.set(KEY_INPUT_FRAME, Kind::Frame, meta::from_handle::<u8>(handle(frame_id)));
            frame::own(frame_id, true);
        }
        let meta = meta::create();
        if let Some(meta) = METAS.find(meta) {
            *lock(&meta.values) = values;
        }
        out.meta = meta;
        PACKETS.insert(Mutex::new(out))
    }

    /// What the hardware does with the memory that the configuration describes.
    fn hardware(
        &self,
        cfg: &Cfg,
        frame: &frame::Frame,
        idr: bool,
        each_idr: bool,
    ) -> Option<crate::enc_core::Output> {
        let buffer_id = frame.buffer;
        let buffer = buffer::BUFFERS.get(buffer_id, "encode")?;
        let mut core = lock(&self.core);
        if let Some(blank) = core.instant_picture(cfg) {
            return core.encode(cfg, &blank, idr, each_idr);
        }
        drop(core);
        let data = buffer.mapping().map(|m| m.bytes()).or_else(|| {
            log(format_args!("encode: the memory of buffer {buffer_id:#x} can't be reached"));
            None
        })?;
        let picture = picture(self.coding, cfg, frame, data).or_else(|| {
            log(format_args!("encode: the buffer's {} bytes are too few, or no such picture", data.len()));
            None
        })?;
        lock(&self.core).encode(cfg, &picture, idr, each_idr)
    }

    /// A buffer with these bytes.
    fn place(&self, data: &[u8]) -> Option<Id> {
        let place = buffer::take(self.group, data.len().max(1 << 16).next_power_of_two())?;
        let filled = buffer::BUFFERS.find(place).and_then(|b| {
            b.mapping().and_then(|m| m.bytes_mut().get_mut(..data.len())).map(|to| to.copy_from_slice(data))
        });
        if filled.is_none() {
            buffer::drop_ref(place, "encode");
            return None;
        }
        Some(place)
    }

    /// `reset`: drops what is queued and what is finished. The frames among it go with it.
    pub fn reset(&self) -> i32 {
        let mut shared = lock(&self.shared);
        let queued = std::mem::take(&mut shared.queue);
        while shared.working {
            shared = self.changed.wait(shared).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let flying = std::mem::take(&mut shared.flying);
        let ready = std::mem::take(&mut shared.ready);
        shared.wedged = false;
        drop(shared);
        for frame in queued {
            frame::own(frame, false);
            frame::deinit(frame, "reset");
        }
        for packet in flying.into_iter().map(|(_, packet, _)| packet).chain(ready) {
            if let Some(frame) = packet::take_meta(packet, KEY_INPUT_FRAME, Kind::Frame) {
                let frame = usize::try_from(frame).unwrap_or(0);
                frame::own(frame, false);
                frame::deinit(frame, "reset");
            }
            packet::deinit(packet, "reset");
        }
        self.changed.notify_all();
        MPP_OK
    }

    /// `control`.
    pub fn control(&self, command: i32, param: *mut c_void) -> i32 {
        match command {
            MPP_SET_INPUT_TIMEOUT | MPP_SET_OUTPUT_TIMEOUT => {
                let Some(wait) = Wait::read(param) else { return MPP_ERR_NULL_PTR };
                let mut shared = lock(&self.shared);
                if command == MPP_SET_OUTPUT_TIMEOUT {
                    shared.output = wait;
                } else {
                    if (wait == Wait::Forever) == self.owns {
                        misuse(format_args!(
                            "the input time-out decides the mode before mpp_init, not after"
                        ));
                    }
                    shared.input = wait;
                }
                MPP_OK
            }
            MPP_ENC_GET_CFG => {
                let cfg = lock(&self.shared).cfg.clone();
                cfg::fill(Side::Encoder, param, &cfg, "MPP_ENC_GET_CFG")
            }
            MPP_ENC_SET_CFG => self.set_cfg(param),
            MPP_ENC_SET_IDR_FRAME => {
                if self.release > Release::V1_0_0 || self.coding != MPP_VIDEO_CODING_VP8 {
                    lock(&self.shared).idr = true;
                }
                MPP_OK
            }
            MPP_ENC_GET_HDR_SYNC => self.headers(param),
            MPP_ENC_SET_HEADER_MODE => match cfg::timeout(param) {
                Some(mode @ 0..=1) => {
                    lock(&self.shared).each_idr = mode == i64::from(MPP_ENC_HEADER_MODE_EACH_IDR);
                    MPP_OK
                }
                Some(_) => MPP_ERR_VALUE,
                None => MPP_ERR_NULL_PTR,
            },
            MPP_ENC_GET_HEADER_MODE => {
                let mode = i32::from(lock(&self.shared).each_idr);
                if store(param.cast(), mode) { MPP_OK } else { MPP_ERR_NULL_PTR }
            }
            MPP_ENC_SET_REF_CFG => self.set_refs(id(param)),
            MPP_ENC_SET_SEI_CFG
            | MPP_ENC_SET_ROI_CFG
            | MPP_ENC_SET_OSD_PLT_CFG
            | MPP_ENC_SET_OSD_DATA_CFG => {
                if param.is_null() {
                    MPP_ERR_NULL_PTR
                } else {
                    MPP_OK
                }
            }
            _ => {
                log(format_args!("control: {command:#x} is not known to an encoder"));
                MPP_NOK
            }
        }
    }

    fn set_refs(&self, refs: Id) -> i32 {
        let mut shared = lock(&self.shared);
        if refs == 0 {
            shared.refs = RefCfg::default();
            return MPP_OK;
        }
        match REF_CFGS.get(refs, "MPP_ENC_SET_REF_CFG") {
            Some(refs) => {
                shared.refs = lock(&refs).clone();
                shared.idr = true;
                MPP_OK
            }
            None => MPP_ERR_NULL_PTR,
        }
    }

    fn set_cfg(&self, param: *mut c_void) -> i32 {
        let Some(new) = cfg::of(Side::Encoder, param, "MPP_ENC_SET_CFG") else { return MPP_ERR_NULL_PTR };
        let refs = new.get("rc:ref_cfg");
        if refs != 0 && refs != lock(&self.shared).cfg.get("rc:ref_cfg") {
            let code = self.set_refs(usize::try_from(refs).unwrap_or(0));
            if code != MPP_OK {
                return code;
            }
        }
        let mut shared = lock(&self.shared);
        match merge(self.coding, self.release, &shared.cfg, &new) {
            Ok(merged) => {
                shared.cfg = merged;
                MPP_OK
            }
            Err(code) => {
                log(format_args!("MPP_ENC_SET_CFG: refused, the old configuration stays"));
                code
            }
        }
    }

    fn headers(&self, param: *mut c_void) -> i32 {
        let cfg = lock(&self.shared).cfg.clone();
        if cfg.get("prep:width") == 0 {
            misuse(format_args!("MPP_ENC_GET_HDR_SYNC: width and height were never configured"));
            return MPP_NOK;
        }
        let Some(packet) = PACKETS.of(param, "MPP_ENC_GET_HDR_SYNC") else { return MPP_ERR_NULL_PTR };
        let Some(headers) = lock(&self.core).headers(&cfg) else { return MPP_NOK };
        let mut packet = lock(&packet);
        // They go behind what is there: a packet over a buffer is full unless its length was set to 0.
        if packet.length + headers.len() > packet.size || packet.pos.0.is_null() {
            misuse(format_args!(
                "MPP_ENC_GET_HDR_SYNC: {} bytes don't fit behind {}",
                headers.len(),
                packet.length
            ));
            return MPP_NOK;
        }
        crate::abi::copy_to(packet.pos.0.wrapping_add(packet.length), &headers);
        packet.length += headers.len();
        MPP_OK
    }

    /// Ends the thread and frees what the library owns. Packets that were never fetched go as well.
    pub fn stop(&self) {
        {
            let mut shared = lock(&self.shared);
            shared.quit = true;
        }
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        let held = {
            let shared = lock(&self.shared);
            shared.queue.len() + shared.flying.len() + shared.ready.len()
        };
        leaked(held, format_args!("mpp_destroy: {held} frame(s) were still queued; reset first"));
        self.reset();
        // Packets that the application still holds keep their buffers, and are its leak.
        buffer::put_group(self.group, "mpp_destroy");
    }
}
