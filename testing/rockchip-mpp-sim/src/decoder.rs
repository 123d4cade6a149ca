// SPDX-License-Identifier: MIT OR Apache-2.0

//! A decoder: input queue, the stall at a change of format, buffers from the application's group, the end.

use crate::abi::{Id, handle, id, store};
use crate::buffer;
use crate::cfg::{self, Cfg, Side};
use crate::control::{COUNTERS, leaked, log, misuse};
use crate::dec_core::{Info, codec_of, describe};
use crate::frame::{self, FRAMES, Frame};
use crate::options::{Options, Release, held, hits, options, refuse_put, wedges};
use crate::packet::PACKETS;
use crate::registry::lock;
use crate::timing::{Wait, deadline, wait_until};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Codec, Decoded};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets that wait, at most.
const QUEUE: usize = 3;
/// Pictures that the hardware still refers to after they were given out.
const REFERENCES: usize = 4;
/// How often a worker without a free buffer looks for one.
const RETRY: Duration = Duration::from_millis(1);

struct Input {
    data: Vec<u8>,
    pts: i64,
    eos: bool,
    extra: bool,
}

/// A picture on its way out, or the mark of the end.
enum Output {
    Picture(Box<Decoded>),
    /// Nothing could be decoded of what came with this time stamp.
    Failed(i64),
    End,
}

struct Shared {
    cfg: Cfg,
    input: Wait,
    output: Wait,
    queue: VecDeque<Input>,
    pending: VecDeque<Output>,
    ready: VecDeque<Id>,
    info: Option<Info>,
    /// A change was announced and not answered.
    stalled: bool,
    group: Option<Id>,
    own_group: Option<Id>,
    references: VecDeque<Id>,
    tasks: u64,
    working: bool,
    /// Compressed output, as it was configured when the first packet came.
    fbc: Option<bool>,
    /// No key frame came since the start or the last reset.
    blind: bool,
    ended: bool,
    wedged: bool,
    quit: bool,
    resets: u64,
}

struct Core {
    decoder: Option<sim_codec::Decoder>,
    /// Parameter sets that came on their own.
    prefix: Vec<u8>,
    stamps: BTreeMap<i64, i64>,
    count: i64,
}

/// A decoder's engine.
pub struct Decoder {
    codec: Codec,
    release: Release,
    instant: bool,
    latency: Duration,
    borders: (u32, u32),
    fields: u32,
    shared: Mutex<Shared>,
    changed: Condvar,
    core: Mutex<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Decoder {
    /// Starts a decoder.
    pub fn start(coding: i32, input: Wait, output: Wait) -> Option<Arc<Self>> {
        let codec = codec_of(coding)?;
        let Options { release, instant, latency, borders, fields, .. } = options();
        let core = Core { decoder: None, prefix: Vec::new(), stamps: BTreeMap::new(), count: 0 };
        let decoder = Arc::new(Self {
            codec,
            release,
            instant,
            latency,
            borders,
            fields,
            shared: Mutex::new(Shared {
                cfg: cfg::decoder_defaults(coding),
                input,
                output,
                queue: VecDeque::new(),
                pending: VecDeque::new(),
                ready: VecDeque::new(),
                info: None,
                stalled: false,
                group: None,
                own_group: None,
                references: VecDeque::new(),
                tasks: 0,
                working: false,
                fbc: None,
                blind: true,
                ended: false,
                wedged: false,
                quit: false,
                resets: 0,
            }),
            changed: Condvar::new(),
            core: Mutex::new(core),
            thread: Mutex::new(None),
        });
        let worker = decoder.clone();
        COUNTERS.threads.fetch_add(1, Relaxed);
        let run = move || {
            worker.work();
            COUNTERS.threads.fetch_sub(1, Relaxed);
        };
        *lock(&decoder.thread) = std::thread::Builder::new().name("mpp-sim-dec".into()).spawn(run).ok();
        Some(decoder)
    }

    /// `decode_put_packet`: copies the payload.
    pub fn put(&self, packet: MppPacket) -> i32 {
        let Some(packet) = PACKETS.of(packet, "decode_put_packet") else { return MPP_ERR_NULL_PTR };
        let mut packet = lock(&packet);
        if packet.length == 0 && !packet.eos {
            misuse(format_args!("decode_put_packet: an empty packet is only for the end"));
            return MPP_NOK;
        }
        if refuse_put() {
            return MPP_ERR_BUFFER_FULL;
        }
        let mut shared = lock(&self.shared);
        let until = deadline(shared.input, self.release);
        while shared.queue.len() >= QUEUE {
            match wait_until(&self.changed, shared, until) {
                Ok(woken) => shared = woken,
                Err(_) => return MPP_ERR_BUFFER_FULL,
            }
        }
        let fbc = shared.cfg.get("base:out_fmt") & i64::from(MPP_FRAME_FBC_MASK) != 0;
        shared.fbc.get_or_insert(fbc);
        let data = packet.payload().to_vec();
        shared.queue.push_back(Input { data, pts: packet.pts, eos: packet.eos, extra: packet.extra });
        packet.length = 0;
        drop(shared);
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
            if shared.stalled || shared.wedged {
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if !shared.pending.is_empty() {
                shared = match self.give_out(shared) {
                    Ok(shared) => shared,
                    // No buffer is free: who puts one does not tell us.
                    Err(shared) => {
                        self.changed.wait_timeout(shared, RETRY).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                continue;
            }
            if !shared.queue.is_empty() && held(shared.tasks + 1) {
                shared = self.changed.wait_timeout(shared, RETRY).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(input) = shared.queue.pop_front() else {
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            shared.tasks += 1;
            let task = shared.tasks;
            let options = options();
            if wedges(task) {
                shared.wedged = true;
                continue;
            }
            let resets = shared.resets;
            shared.working = true;
            drop(shared);
            self.changed.notify_all();
            let started = Instant::now();
            let outputs = self.decode(input, hits(options.hw_error, task));
            shared = lock(&self.shared);
            // The hardware's time; a reset or the end cuts it short.
            let until = Wait::Until(started + self.latency);
            while !shared.quit && shared.resets == resets {
                match wait_until(&self.changed, shared, until) {
                    Ok(woken) => shared = woken,
                    Err(over) => {
                        shared = over;
                        break;
                    }
                }
            }
            shared.working = false;
            if shared.resets == resets {
                shared.pending.extend(outputs);
            }
            self.changed.notify_all();
        }
    }

    /// Decodes a packet.
    fn decode(&self, input: Input, broken: bool) -> Vec<Output> {
        let mut core = lock(&self.core);
        let core = &mut *core;
        if input.extra {
            // avcC and hvcC begin with their version, 1; a byte stream with a start code.
            if input.data.first() == Some(&1) {
                core.decoder = sim_codec::Decoder::with_codec_data(self.codec, &input.data).ok();
            } else {
                core.prefix.extend_from_slice(&input.data);
            }
            return Vec::new();
        }
        if core.decoder.is_none() {
            core.decoder = sim_codec::Decoder::new(self.codec).ok();
            if self.instant
                && let Some(decoder) = &mut core.decoder
            {
                decoder.set_instant();
            }
        }
        let Some(decoder) = &mut core.decoder else { return Vec::new() };
        let mut outputs = Vec::new();
        let mut take = |decoded: Vec<Decoded>, stamps: &mut BTreeMap<i64, i64>| {
            for mut one in decoded {
                if let Some(pts) = stamps.remove(&one.pts) {
                    one.pts = pts;
                }
                // What was sent long ago will not come any more.
                while stamps.len() > 256 {
                    stamps.pop_first();
                }
                one.corrupt |= broken;
                COUNTERS.decoded.fetch_add(1, Relaxed);
                outputs.push(Output::Picture(Box::new(one)));
            }
        };
        let mut failed = false;
        if !input.data.is_empty() {
            let data = if core.prefix.is_empty() {
                input.data
            } else {
                let mut data = std::mem::take(&mut core.prefix);
                data.extend_from_slice(&input.data);
                data
            };
            core.count += 1;
            core.stamps.insert(core.count, input.pts);
            match decoder.decode(&data, core.count) {
                Ok(decoded) => take(decoded, &mut core.stamps),
                Err(error) => {
                    log(format_args!("decode: {error}"));
                    failed = true;
                }
            }
        }
        if input.eos {
            if let Ok(decoded) = decoder.finish() {
                take(decoded, &mut core.stamps);
            }
            core.stamps.clear();
            if failed {
                outputs.push(Output::Failed(input.pts));
            }
            outputs.push(Output::End);
        } else if failed {
            outputs.push(Output::Failed(input.pts));
        }
        outputs
    }

    /// Gives the first pending picture out; `Err` if that has to wait for a buffer.
    fn give_out<'a>(
        &self,
        mut shared: std::sync::MutexGuard<'a, Shared>,
    ) -> Result<std::sync::MutexGuard<'a, Shared>, std::sync::MutexGuard<'a, Shared>> {
        let fbc = shared.fbc == Some(true);
        let forced = shared.cfg.get("base:disable_error") != 0;
        // The last picture bears the mark of the end.
        let last = matches!(shared.pending.get(1), Some(Output::End));
        let Some(output) = shared.pending.pop_front() else { return Ok(shared) };
        let frame = match &output {
            Output::End => Some(Frame { eos: 1, ..Frame::default() }),
            Output::Failed(pts) => match shared.info {
                // Before the first picture there is nothing to show.
                Some(info) if !shared.blind || forced => match self.place(&mut shared, &info) {
                    Some(place) => Some(Frame {
                        buffer: place,
                        pts: *pts,
                        errinfo: if forced { 0 } else { MPP_FRAME_ERR_DEC_HW_ERR },
                        eos: last.into(),
                        ..info.frame()
                    }),
                    None => {
                        shared.pending.push_front(output);
                        return Err(shared);
                    }
                },
                _ => None,
            },
            Output::Picture(decoded) => {
                match Info::with_borders(self.codec, self.release, &decoded.picture, fbc, self.borders) {
                    None => Some(Frame {
                        pts: decoded.pts,
                        errinfo: MPP_FRAME_ERR_UNSUPPORT,
                        eos: last.into(),
                        ..Frame::default()
                    }),
                    Some(info) if shared.info != Some(info) => {
                        shared.info = Some(info);
                        shared.stalled = true;
                        // Pictures of another format are no references.
                        for old in std::mem::take(&mut shared.references) {
                            buffer::drop_ref(old, "decode");
                        }
                        let announcement = Frame { info_change: 1, ..info.frame() };
                        shared.ready.push_back(FRAMES.insert(Mutex::new(announcement)));
                        shared.pending.push_front(output);
                        self.changed.notify_all();
                        return Ok(shared);
                    }
                    Some(_) if decoded.corrupt && shared.blind && !forced => None,
                    Some(info) => match self.place(&mut shared, &info) {
                        Some(place) => {
                            shared.blind &= decoded.corrupt;
                            Some(self.fill(decoded, &info, place, last, forced))
                        }
                        None => {
                            shared.pending.push_front(output);
                            return Err(shared);
                        }
                    },
                }
            }
        };
        let end = matches!(output, Output::End) || last && frame.is_some();
        if let Some(frame) = frame {
            shared.ready.push_back(FRAMES.insert(Mutex::new(frame)));
        }
        if end {
            // The mark that stood behind the last picture is used up.
            if last {
                shared.pending.pop_front();
            }
            shared.ended = true;
        }
        self.changed.notify_all();
        Ok(shared)
    }

    fn fill(&self, decoded: &Decoded, info: &Info, place: Id, last: bool, forced: bool) -> Frame {
        let written = buffer::BUFFERS.find(place).is_some_and(|b| {
            b.mapping().is_some_and(|m| info.write(self.codec, &decoded.picture, m.bytes_mut()))
        });
        let errinfo = match (written, decoded.corrupt && !forced) {
            (false, _) => MPP_FRAME_ERR_DEC_HW_ERR,
            (true, true) if decoded.key => MPP_FRAME_ERR_DEC_HW_ERR,
            (true, true) => MPP_FRAME_ERR_DEC_HW_ERR | MPP_FRAME_ERR_DEC_MISS_REF,
            (true, false) => 0,
        };
        let mut frame = Frame { buffer: place, pts: decoded.pts, errinfo, eos: last.into(), ..info.frame() };
        describe(&mut frame, decoded);
        frame.mode = self.fields;
        frame
    }

    /// A buffer for a picture, held by the frame and, for a while, by the hardware.
    fn place(&self, shared: &mut Shared, info: &Info) -> Option<Id> {
        let group = match shared.group {
            Some(group) => group,
            None => *shared
                .own_group
                .get_or_insert_with(|| buffer::new_group(MPP_BUFFER_TYPE_DMA_HEAP, MPP_BUFFER_INTERNAL)),
        };
        if !buffer::available(group, info.buf_size) {
            return None;
        }
        let place = buffer::take(group, info.buf_size)?;
        if self.codec != Codec::Mjpeg {
            buffer::hold(place, "decode");
            shared.references.push_back(place);
            while shared.references.len() > REFERENCES {
                if let Some(old) = shared.references.pop_front() {
                    buffer::drop_ref(old, "decode");
                }
            }
        }
        Some(place)
    }

    /// `reset`: forgets everything but the format.
    pub fn reset(&self) -> i32 {
        let (ready, references) = {
            let mut shared = lock(&self.shared);
            shared.resets += 1;
            shared.queue.clear();
            self.changed.notify_all();
            while shared.working {
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
            }
            shared.pending.clear();
            if shared.stalled {
                // The announcement is lost as well: it has to come again.
                shared.info = None;
                shared.stalled = false;
            }
            shared.blind = true;
            shared.ended = false;
            shared.wedged = false;
            (std::mem::take(&mut shared.ready), std::mem::take(&mut shared.references))
        };
        {
            let mut core = lock(&self.core);
            core.stamps.clear();
            core.prefix.clear();
            if let Some(decoder) = &mut core.decoder {
                decoder.flush();
            }
        }
        for frame in ready {
            frame::deinit(frame, "reset");
        }
        for place in references {
            buffer::drop_ref(place, "reset");
        }
        self.changed.notify_all();
        MPP_OK
    }

    /// `control`.
    pub fn control(&self, command: i32, param: *mut c_void) -> i32 {
        let number = |key: &'static str| match cfg::timeout(param) {
            Some(value) => {
                lock(&self.shared).cfg.put(key, value);
                MPP_OK
            }
            None => MPP_ERR_NULL_PTR,
        };
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
            MPP_DEC_SET_EXT_BUF_GROUP => {
                let group = id(param);
                if group != 0 && buffer::GROUPS.get(group, "MPP_DEC_SET_EXT_BUF_GROUP").is_none() {
                    return MPP_NOK;
                }
                lock(&self.shared).group = (group != 0).then_some(group);
                self.changed.notify_all();
                MPP_OK
            }
            MPP_DEC_SET_INFO_CHANGE_READY => {
                let mut shared = lock(&self.shared);
                if !shared.stalled {
                    misuse(format_args!("MPP_DEC_SET_INFO_CHANGE_READY: no change was announced"));
                }
                shared.stalled = false;
                drop(shared);
                self.changed.notify_all();
                MPP_OK
            }
            MPP_DEC_GET_STREAM_COUNT => {
                let count = i32::try_from(lock(&self.shared).queue.len()).unwrap_or(i32::MAX);
                if store(param.cast(), count) { MPP_OK } else { MPP_ERR_NULL_PTR }
            }
            MPP_DEC_SET_FRAME_INFO => {
                frame::read(id(param), "MPP_DEC_SET_FRAME_INFO").map_or(MPP_ERR_NULL_PTR, |_| MPP_OK)
            }
            MPP_DEC_SET_PARSER_SPLIT_MODE => number("base:split_parse"),
            MPP_DEC_SET_PARSER_FAST_MODE => number("base:fast_parse"),
            MPP_DEC_SET_OUTPUT_FORMAT => number("base:out_fmt"),
            MPP_DEC_SET_DISABLE_ERROR => number("base:disable_error"),
            MPP_DEC_SET_IMMEDIATE_OUT => number("base:fast_out"),
            MPP_DEC_SET_ENABLE_DEINTERLACE => number("base:enable_vproc"),
            MPP_DEC_SET_ENABLE_FAST_PLAY => number("base:enable_fast_play"),
            _ => {
                log(format_args!("control: {command:#x} is not known to a decoder"));
                MPP_NOK
            }
        }
    }

    /// Ends the thread and frees what the library owns.
    pub fn stop(&self) {
        {
            let mut shared = lock(&self.shared);
            if shared.ended
                && self.release == Release::V1_0_0
                && matches!(self.codec, Codec::Vp8 | Codec::H265 | Codec::Vp9 | Codec::Av1)
            {
                misuse(format_args!("mpp_destroy: 1.0.0 crashes here, for reset did not come first"));
            }
            shared.quit = true;
        }
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        let held = lock(&self.shared).ready.len();
        leaked(held, format_args!("mpp_destroy: {held} frame(s) were never fetched; reset first"));
        self.reset();
        if let Some(group) = lock(&self.shared).own_group.take() {
            buffer::put_group(group, "mpp_destroy");
        }
    }
}
