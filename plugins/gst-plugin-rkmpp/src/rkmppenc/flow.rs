// SPDX-License-Identifier: MPL-2.0

//! Frames in flight: what the streaming thread puts, and the thread that takes packets out.
//!
//! The base class holds its stream lock while a frame is handled, and finishing a frame needs that lock. So nothing
//! waits for a frame to be finished while it has the lock: the limit of frames in flight is kept by a probe in front
//! of the base class, the drain at the end of the stream by the event's handler, and an encoder that has to run empty
//! (before a forced keyframe) is emptied into a queue.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst_video::VideoCodecFrameFlags;
use gst_video::prelude::*;
use rockchip_mpp::{Buffer, Encoded, Encoder, InputMode};

use super::bitstream;
use super::codec::Codec;
use super::imp::CAT;
use super::input::Source;
use super::stats::Stats;

/// How long the encoder may be busy with one frame. The slowest known takes 60 ms.
pub(crate) const HANG: Duration = Duration::from_secs(3);
/// How long to wait for a packet before looking whether the encoder hangs.
const LOOK: Duration = Duration::from_millis(100);
/// Empty packets in a row that are a failure. Fewer may be the rate control.
const EMPTY_LIMIT: u32 = 8;
/// Buffers of ours that wait to be used again.
const SPARES: usize = 20;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    pub codec: Option<Codec>,
    pub length_prefixed: bool,
}

#[derive(Debug)]
struct Inner {
    encoder: Option<Arc<Encoder>>,
    /// Got by the streaming thread, older than all that the encoder still has.
    queue: VecDeque<Encoded>,
    /// Put and not finished, by token. Without a source: a thread is finishing it.
    pending: HashMap<u64, Option<Source>>,
    /// Packets that a synchronous encoder has ready.
    coded: usize,
    generation: u32,
    flushing: bool,
    stopping: bool,
    failure: Option<&'static str>,
    result: Result<gst::FlowSuccess, gst::FlowError>,
    output: Output,
    empty: u32,
    progress: Instant,
    spares: Vec<Buffer>,
}

impl Inner {
    /// Whether the encoder is this one.
    fn has(&self, encoder: Option<&Arc<Encoder>>) -> bool {
        match (&self.encoder, encoder) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// Whether a frame was put after the last flush and restart.
    fn is_current(&self, token: u64) -> bool {
        (token >> 32) as u32 == self.generation
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Who takes a packet out has this until it has its place in the order.
    getter: Mutex<()>,
    /// Who gives a frame downstream has this, and who takes the segment away.
    pushing: Mutex<()>,
    pub stats: Mutex<Stats>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                encoder: None,
                queue: VecDeque::new(),
                pending: HashMap::new(),
                coded: 0,
                generation: 0,
                flushing: false,
                stopping: true,
                failure: None,
                result: Ok(gst::FlowSuccess::Ok),
                output: Output::default(),
                empty: 0,
                progress: Instant::now(),
                spares: Vec::new(),
            }),
            changed: Condvar::new(),
            getter: Mutex::new(()),
            pushing: Mutex::new(()),
            stats: Mutex::default(),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flow {
    /// Begins anew.
    pub fn start(&self) {
        let mut inner = lock(&self.inner);
        inner.stopping = false;
        inner.flushing = false;
        inner.failure = None;
        inner.result = Ok(gst::FlowSuccess::Ok);
        drop(inner);
        *lock(&self.stats) = Stats::default();
    }

    /// Wakes everybody; the threads end.
    pub fn stop(&self) {
        lock(&self.inner).stopping = true;
        self.changed.notify_all();
    }

    /// Forgets everything. The threads must have ended.
    pub fn clear(&self) {
        let mut inner = lock(&self.inner);
        let encoder = inner.encoder.take();
        let queue = std::mem::take(&mut inner.queue);
        let pending = std::mem::take(&mut inner.pending);
        let spares = std::mem::take(&mut inner.spares);
        inner.generation = inner.generation.wrapping_add(1);
        drop(inner);
        // Packets and frames first, then the context, then what its frames were made of.
        drop(queue);
        drop(encoder);
        drop(pending);
        drop(spares);
    }

    pub fn set_flushing(&self, flushing: bool) {
        let mut inner = lock(&self.inner);
        inner.flushing = flushing;
        if !flushing {
            inner.result = Ok(gst::FlowSuccess::Ok);
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// While the caller has this, no frame is given downstream, and afterwards none from before a flush. Not to be called
    /// with the stream lock, nor before downstream has been told that a flush begins.
    pub fn without_pushes(&self) -> MutexGuard<'_, ()> {
        lock(&self.pushing)
    }

    /// Whether nobody wants frames any more.
    pub fn is_over(&self) -> bool {
        let inner = lock(&self.inner);
        inner.flushing || inner.stopping
    }

    /// What is in flight is of no use any more.
    pub fn discard(&self) {
        let mut inner = lock(&self.inner);
        inner.generation = inner.generation.wrapping_add(1);
        inner.result = Ok(gst::FlowSuccess::Ok);
    }

    pub fn set_encoder(&self, encoder: Option<Arc<Encoder>>) {
        let mut inner = lock(&self.inner);
        inner.progress = Instant::now();
        inner.empty = 0;
        inner.failure = None;
        if !inner.has(encoder.as_ref()) {
            inner.coded = 0;
        }
        let old = std::mem::replace(&mut inner.encoder, encoder);
        drop(inner);
        drop(old);
        self.changed.notify_all();
    }

    pub fn set_output(&self, output: Output) {
        lock(&self.inner).output = output;
    }

    /// What the encoder is accused of.
    pub fn failure(&self) -> Option<&'static str> {
        lock(&self.inner).failure
    }

    pub fn result(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        lock(&self.inner).result
    }

    pub fn pending(&self) -> usize {
        lock(&self.inner).pending.len()
    }

    fn wait_while(&self, busy: impl Fn(&Inner) -> bool) {
        let inner = lock(&self.inner);
        let free = |inner: &mut Inner| {
            busy(inner)
                && !inner.flushing
                && !inner.stopping
                && inner.failure.is_none()
                && inner.result.is_ok()
        };
        drop(self.changed.wait_while(inner, free).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for a place for a frame. Not to be called with the stream lock.
    pub fn admit(&self, limit: usize) {
        self.wait_while(|inner| inner.pending.len() >= limit);
    }

    /// Waits until everything is finished. Not to be called with the stream lock.
    pub fn drain(&self) {
        self.wait_while(|inner| !inner.pending.is_empty());
    }

    /// A buffer of ours that is not in use.
    pub fn spare(&self, size: usize) -> Option<Buffer> {
        let mut inner = lock(&self.inner);
        let buffer = inner.spares.pop()?;
        drop(inner);
        // Too small after a change of format: freed, here.
        (buffer.size() >= size).then_some(buffer)
    }

    pub fn put_back(&self, buffer: Buffer) {
        let mut inner = lock(&self.inner);
        if inner.spares.len() < SPARES {
            inner.spares.push(buffer);
        }
    }

    /// Takes a frame into account; its token.
    pub fn add(&self, number: u32, source: Source) -> u64 {
        let mut inner = lock(&self.inner);
        let token = u64::from(inner.generation) << 32 | u64::from(number);
        if inner.pending.is_empty() {
            inner.progress = Instant::now();
        }
        inner.pending.insert(token, Some(source));
        let pending = inner.pending.len() as u64;
        drop(inner);
        let mut stats = lock(&self.stats);
        stats.frames_in += 1;
        stats.max_pending = stats.max_pending.max(pending);
        drop(stats);
        self.changed.notify_all();
        token
    }

    /// Takes it back: it was not put.
    pub fn remove(&self, token: u64) {
        let source = lock(&self.inner).pending.remove(&token);
        drop(source);
        self.changed.notify_all();
    }

    /// A frame was put.
    pub fn was_put(&self) {
        lock(&self.inner).coded += 1;
        self.changed.notify_all();
    }

    /// Waits until there may be a packet. A synchronous encoder has none until `put` has returned, and does not wait for it.
    fn wait_for_packet(&self, encoder: &Arc<Encoder>) {
        if encoder.mode() == InputMode::Asynchronous {
            return;
        }
        let none = |inner: &mut Inner| {
            inner.coded == 0 && inner.queue.is_empty() && !inner.stopping && inner.has(Some(encoder))
        };
        let waited = self.changed.wait_timeout_while(lock(&self.inner), LOOK, none);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a packet out for the other thread to finish.
    pub fn collect(&self, encoder: &Encoder) {
        let _getter = lock(&self.getter);
        if let Ok(Some(encoded)) = encoder.get() {
            let mut inner = lock(&self.inner);
            inner.progress = Instant::now();
            inner.coded = inner.coded.saturating_sub(1);
            inner.queue.push_back(encoded);
        }
    }

    /// Frame numbers that a failed encoder keeps for itself. From now on they are of an old generation.
    pub fn abandon(&self) -> Vec<u32> {
        let mut inner = lock(&self.inner);
        let generation = inner.generation;
        inner.generation = inner.generation.wrapping_add(1);
        let mut lost: Vec<u32> = inner
            .pending
            .keys()
            .filter(|&&token| (token >> 32) as u32 == generation)
            .map(|&token| token as u32)
            .collect();
        lost.sort_unstable();
        let pending = std::mem::take(&mut inner.pending);
        let queue = std::mem::take(&mut inner.queue);
        drop(inner);
        drop((pending, queue));
        lost
    }

    /// What the output thread does.
    pub fn run(&self, element: &gst::glib::WeakRef<super::RkMppEnc>) {
        loop {
            let mut inner = lock(&self.inner);
            let encoder = loop {
                if inner.stopping {
                    return;
                }
                if let Some(encoder) = &inner.encoder
                    && !inner.pending.is_empty()
                    && inner.failure.is_none()
                {
                    break encoder.clone();
                }
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            };
            drop(inner);

            self.wait_for_packet(&encoder);
            let next = {
                let _getter = lock(&self.getter);
                let queued = lock(&self.inner).queue.pop_front();
                match queued {
                    Some(encoded) => Ok(Some(encoded)),
                    None => {
                        let next = encoder.get();
                        if matches!(next, Ok(Some(_))) {
                            let mut inner = lock(&self.inner);
                            inner.coded = inner.coded.saturating_sub(1);
                        }
                        next
                    }
                }
            };
            let Some(element) = element.upgrade() else { return };
            match next {
                Ok(Some(encoded)) => self.finish(&element, encoded),
                Ok(None) => {
                    let mut inner = lock(&self.inner);
                    // Nothing came of a frame. (Or it came in between: then it is seen a little later.)
                    inner.coded = 0;
                    if !inner.pending.is_empty() && inner.progress.elapsed() > HANG {
                        inner.failure = Some("it does not finish a frame");
                        drop(inner);
                        self.changed.notify_all();
                    }
                }
                Err(error) => {
                    gst::warning!(CAT, obj = element, "{error}");
                    lock(&self.inner).failure = Some("its packets are damaged");
                    self.changed.notify_all();
                }
            }
        }
    }

    /// Gives a packet to its frame, and the frame downstream.
    fn finish(&self, element: &super::RkMppEnc, encoded: Encoded) {
        let Encoded { mut packet, frame, token } = encoded;
        // The frame's own number, as a second way to find it.
        let token = token.unwrap_or(packet.pts() as u64);
        let buffer = frame.and_then(|mut frame| frame.take_buffer());
        let mut inner = lock(&self.inner);
        inner.progress = Instant::now();
        let Some(source) = inner.pending.get_mut(&token).and_then(Option::take) else {
            drop(inner);
            gst::warning!(CAT, obj = element, "a packet came that belongs to no frame");
            return;
        };
        let output = inner.output;
        if packet.data().is_empty() {
            inner.empty += 1;
            if inner.empty >= EMPTY_LIMIT {
                inner.failure = Some("it makes nothing of its frames");
            }
        } else {
            inner.empty = 0;
        }
        drop(inner);
        if let (Source::Pooled, Some(buffer)) = (source, buffer) {
            self.put_back(buffer);
        }
        if let Some(qp) = packet.take_average_qp() {
            lock(&self.stats).average_qp = qp;
        }

        let result = self.push(element, token, packet.data(), output);
        let mut inner = lock(&self.inner);
        // What downstream said of a frame from before a flush that has ended meanwhile means nothing.
        if result.is_err() && inner.is_current(token) && inner.result.is_ok() {
            inner.result = result;
        }
        // Not there any more if it was abandoned meanwhile.
        inner.pending.remove(&token);
        // Downstream may have taken its time, as in PAUSED: that was not the encoder's.
        inner.progress = Instant::now();
        drop(inner);
        self.changed.notify_all();
    }

    fn push(
        &self,
        element: &super::RkMppEnc,
        token: u64,
        data: &[u8],
        output: Output,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (Some(codec), Ok(number)) = (output.codec, i32::try_from(token as u32)) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        // A frame comes with the stream lock, but gives it back before `finish_frame` takes it once more: a flush that came
        // in between would leave downstream without a segment.
        let _pushing = lock(&self.pushing);
        // A flush took it meanwhile.
        let Some(mut frame) = element.frame(number) else { return Ok(gst::FlowSuccess::Ok) };
        // A flush or a restart may have had the stream lock until now: after a flush downstream has not even a segment.
        if !lock(&self.inner).is_current(token) {
            return Ok(gst::FlowSuccess::Ok);
        }
        if data.is_empty() {
            lock(&self.stats).dropped += 1;
            gst::debug!(CAT, obj = element, "frame {number} was dropped by the encoder");
            return element.finish_frame(frame);
        }
        let key = bitstream::is_keyframe(codec, data);
        let buffer = if output.length_prefixed {
            gst::Buffer::from_mut_slice(bitstream::length_prefixed(codec, data))
        } else {
            gst::Buffer::from_mut_slice(data.to_vec())
        };
        {
            let mut stats = lock(&self.stats);
            stats.frames_out += 1;
            stats.bytes_out += buffer.size() as u64;
            stats.keyframes += u64::from(key);
        }
        frame.set_output_buffer(buffer);
        if key {
            frame.set_flags(VideoCodecFrameFlags::SYNC_POINT);
        } else {
            frame.unset_flags(VideoCodecFrameFlags::SYNC_POINT);
        }
        // No B-frames: the order of decoding is that of showing.
        let pts = frame.pts();
        frame.set_dts(pts);
        element.finish_frame(frame)
    }
}
