// SPDX-License-Identifier: MPL-2.0

//! Packets and pictures between the threads: the streaming thread puts, and a thread of ours takes out what the decoder
//! makes when no packet comes.
//!
//! Pictures are finished under the base class's stream lock, by whoever has it, in the order in which they came out: each
//! is queued before the next one may be taken out of the decoder. So the streaming thread can wait for room in the
//! decoder while it has that lock: it finishes pictures itself meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use gst::subclass::prelude::*;
use rockchip_mpp::{Decoded, Decoder, Error, Picture};

use super::imp::CAT;
use super::stats::Stats;
use crate::dmabuf::Held;

/// How long the decoder may make nothing of what it has. The slowest known takes 60 ms for a picture.
pub(crate) const HANG: Duration = Duration::from_secs(3);
/// Between two looks at a decoder that has nothing.
const REST: Duration = Duration::from_millis(2);
/// Buffers that the decoder needs for itself at most: 16 to refer to, one to write to.
pub(crate) const OWN_BUFFERS: u32 = 17;

#[derive(Debug)]
struct Inner {
    decoder: Option<Arc<Decoder>>,
    /// Came out, to be finished.
    ready: VecDeque<Picture>,
    /// Numbers of frames whose packets were put.
    pending: BTreeSet<u32>,
    generation: u32,
    flushing: bool,
    stopping: bool,
    /// The decoder gave its mark of the end.
    ended: bool,
    failure: Option<String>,
    /// Downstream cannot use the pictures as they come, compressed or not.
    switching: bool,
    result: Result<gst::FlowSuccess, gst::FlowError>,
    progress: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Who takes a picture out has this until it has its place in the order.
    getter: Mutex<()>,
    pub stats: Mutex<Stats>,
    /// Pictures that downstream has.
    pub held: Held,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                decoder: None,
                ready: VecDeque::new(),
                pending: BTreeSet::new(),
                generation: 0,
                flushing: false,
                stopping: true,
                ended: false,
                failure: None,
                switching: false,
                result: Ok(gst::FlowSuccess::Ok),
                progress: Instant::now(),
            }),
            changed: Condvar::new(),
            getter: Mutex::new(()),
            stats: Mutex::default(),
            held: Arc::new(AtomicUsize::new(0)),
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
        inner.ended = false;
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

    pub fn set_flushing(&self, flushing: bool) {
        let mut inner = lock(&self.inner);
        inner.flushing = flushing;
        drop(inner);
        self.changed.notify_all();
    }

    pub fn set_decoder(&self, decoder: Option<Arc<Decoder>>) {
        // Nobody takes pictures out of the old one any more.
        let _getter = lock(&self.getter);
        let mut inner = lock(&self.inner);
        inner.progress = Instant::now();
        inner.failure = None;
        inner.switching = false;
        inner.ended = false;
        inner.generation = inner.generation.wrapping_add(1);
        inner.pending.clear();
        let ready = std::mem::take(&mut inner.ready);
        let old = std::mem::replace(&mut inner.decoder, decoder);
        drop(inner);
        // Pictures before their context.
        drop(ready);
        drop(old);
        self.changed.notify_all();
    }

    /// Forgets all that is inside of the decoder and behind it.
    ///
    /// # Errors
    /// If the decoder is of no use any more.
    pub fn reset(&self) -> Result<(), Error> {
        let _getter = lock(&self.getter);
        let mut inner = lock(&self.inner);
        inner.generation = inner.generation.wrapping_add(1);
        inner.pending.clear();
        inner.ended = false;
        inner.progress = Instant::now();
        let ready = std::mem::take(&mut inner.ready);
        let decoder = inner.decoder.clone();
        drop(inner);
        drop(ready);
        decoder.map_or(Ok(()), |decoder| decoder.reset())
    }

    /// Whether nobody wants pictures any more.
    pub fn is_over(&self) -> bool {
        let inner = lock(&self.inner);
        inner.flushing || inner.stopping
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.inner).failure.clone()
    }

    pub fn fail(&self, reason: String) {
        lock(&self.inner).failure = Some(reason);
    }

    /// The decoder has to be opened again, for the other kind of pictures.
    pub fn ask_to_switch(&self) {
        lock(&self.inner).switching = true;
    }

    pub fn is_switching(&self) -> bool {
        lock(&self.inner).switching
    }

    pub fn set_result(&self, result: Result<gst::FlowSuccess, gst::FlowError>) {
        let mut inner = lock(&self.inner);
        if inner.result.is_ok() {
            inner.result = result;
        }
        // Downstream may have taken its time, as in PAUSED: that was not the decoder's.
        inner.progress = Instant::now();
    }

    /// What downstream said is over.
    pub fn clear_result(&self) {
        lock(&self.inner).result = Ok(gst::FlowSuccess::Ok);
    }

    pub fn result(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        lock(&self.inner).result
    }

    pub fn pending(&self) -> usize {
        lock(&self.inner).pending.len()
    }

    pub fn has_ended(&self) -> bool {
        let inner = lock(&self.inner);
        inner.ended && inner.ready.is_empty()
    }

    /// Takes a frame into account, before its packet is put; the packet's time stamp.
    pub fn add(&self, number: u32) -> i64 {
        let mut inner = lock(&self.inner);
        if inner.pending.is_empty() {
            inner.progress = Instant::now();
        }
        inner.pending.insert(number);
        (u64::from(inner.generation) << 32 | u64::from(number)) as i64
    }

    pub fn remove(&self, number: u32) {
        lock(&self.inner).pending.remove(&number);
    }

    /// The thread may look for pictures.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// The number of a frame that is pending, if there are pictures to be finished. Pictures that no frame waits for go.
    pub fn awaited(&self) -> Option<u32> {
        let mut inner = lock(&self.inner);
        if inner.ready.is_empty() {
            return None;
        }
        let newest = inner.pending.last().copied();
        let stale = if newest.is_none() { std::mem::take(&mut inner.ready) } else { VecDeque::new() };
        drop(inner);
        drop(stale);
        newest
    }

    /// The next picture, with the number of its frame; with the stream lock only.
    pub fn next(&self) -> Option<(Picture, u32)> {
        let mut inner = lock(&self.inner);
        loop {
            let picture = inner.ready.pop_front()?;
            let token = picture.pts() as u64;
            let number = token as u32;
            if (token >> 32) as u32 == inner.generation && inner.pending.remove(&number) {
                return Some((picture, number));
            }
            // A time stamp that is none of ours (generations begin with 1): the library made it up.
            if matches!(token >> 32, 0 | 0xffff_ffff)
                && let Some(oldest) = inner.pending.pop_first()
            {
                return Some((picture, oldest));
            }
        }
    }

    /// Frames that no picture will come for, when the one with this number has come; and how many wait that were put
    /// before it.
    pub fn overdue(&self, number: u32, reorders: bool) -> (Vec<u32>, u32) {
        // No codec has more pictures that wait for others.
        let distance = if reorders { 32 } else { 0 };
        let mut inner = lock(&self.inner);
        let first_alive = number.saturating_sub(distance);
        let alive = inner.pending.split_off(&first_alive);
        let waiting = alive.range(..number).count().min(16) as u32;
        (std::mem::replace(&mut inner.pending, alive).into_iter().collect(), waiting)
    }

    /// The oldest frame, if more than `limit` are pending.
    pub fn too_many(&self, limit: usize) -> Option<u32> {
        let mut inner = lock(&self.inner);
        if inner.pending.len() > limit { inner.pending.pop_first() } else { None }
    }

    /// All that are pending; they are given up.
    pub fn abandon(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.inner).pending).into_iter().collect()
    }

    /// Waits for what another thread takes out, or takes something out itself.
    pub fn collect(&self, decoder: &Decoder) {
        match self.getter.try_lock() {
            Ok(_getter) if self.take(decoder) => {}
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => self.rest(),
        }
    }

    /// Sleeps a little, unless there is something to be finished.
    fn rest(&self) {
        let inner = lock(&self.inner);
        if inner.ready.is_empty() {
            drop(self.changed.wait_timeout(inner, REST).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Takes something out; whether there was something. The caller has `getter`.
    fn take(&self, decoder: &Decoder) -> bool {
        let decoded = decoder.get();
        if let Ok(Some(Decoded::Format(format))) = &decoded {
            lock(&self.stats).formats += 1;
            gst::debug!(CAT, "the decoder announces {format:?}");
        }
        let mut inner = lock(&self.inner);
        match decoded {
            Ok(None) => return false,
            Ok(Some(Decoded::Picture(picture))) => {
                inner.ended |= picture.eos();
                inner.ready.push_back(picture);
            }
            Ok(Some(Decoded::Format(_))) => {}
            Ok(Some(Decoded::End)) => inner.ended = true,
            Err(error) => inner.failure = Some(error.to_string()),
        }
        inner.progress = Instant::now();
        drop(inner);
        self.changed.notify_all();
        true
    }

    /// Whether the decoder has stopped, and not because downstream has all its buffers.
    pub fn hangs(&self, decoder: &Decoder) -> bool {
        let starved = self.held.load(Ordering::Acquire) as u32 + OWN_BUFFERS >= decoder.buffers();
        let mut inner = lock(&self.inner);
        if starved {
            inner.progress = Instant::now();
        }
        inner.progress.elapsed() > HANG
    }

    /// What the output thread does.
    pub fn run(&self, element: &gst::glib::WeakRef<super::RkMppDec>) {
        loop {
            let mut inner = lock(&self.inner);
            let decoder = loop {
                if inner.stopping {
                    return;
                }
                if let Some(decoder) = &inner.decoder
                    && !inner.pending.is_empty()
                    && inner.failure.is_none()
                {
                    break decoder.clone();
                }
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            };
            drop(inner);
            let took = {
                let _getter = lock(&self.getter);
                self.take(&decoder)
            };
            drop(decoder);
            if !took {
                // The time-out may be over at once.
                self.rest();
            }
            let Some(element) = element.upgrade() else { return };
            element.imp().deliver(false);
        }
    }
}
