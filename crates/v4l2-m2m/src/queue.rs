// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two queues of a device. Which calls are possible follows from the type: formats are set while a queue has no
//! buffers, buffers are queued while it has, and only a queue that streams gives any back.
//!
//! ```compile_fail
//! # fn f(queue: v4l2_m2m::queue::Queue<v4l2_m2m::queue::Output, v4l2_m2m::queue::Allocated>, format: &v4l2_m2m::ioctl::Format) {
//! queue.set_format(format); // The queue has buffers.
//! # }
//! ```
//! ```compile_fail
//! # fn f(mut queue: v4l2_m2m::queue::Queue<v4l2_m2m::queue::Output, v4l2_m2m::queue::Allocated>) {
//! queue.dequeue(); // The queue does not stream.
//! # }
//! ```

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::{DmaBufPlane, Keep, Mapping, Slot};
use crate::ioctl::{self, *};
use crate::loan::Claim;
use crate::ops::{Dialect, Handle};
use crate::uapi::*;

/// A side of the device. V4L2 names them as the program sees them: it gives to OUTPUT, and takes from CAPTURE.
pub trait Direction: Send + 'static {
    /// Raw pictures, not coded ones.
    const RAW: bool;
    /// `enum v4l2_buf_type`
    fn buffer_type(api: Api) -> u32;
}

/// Raw pictures, to the device.
#[derive(Debug)]
pub struct Output;
/// Coded pictures, from the device.
#[derive(Debug)]
pub struct Capture;

impl Direction for Output {
    const RAW: bool = true;
    fn buffer_type(api: Api) -> u32 {
        match api {
            Api::SinglePlane => V4L2_BUF_TYPE_VIDEO_OUTPUT,
            Api::MultiPlane => V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
        }
    }
}

impl Direction for Capture {
    const RAW: bool = false;
    fn buffer_type(api: Api) -> u32 {
        match api {
            Api::SinglePlane => V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Api::MultiPlane => V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

/// No buffers.
#[derive(Debug)]
pub struct Idle;
/// Buffers, but they stay where they are.
#[derive(Debug)]
pub struct Allocated;
/// Buffers travel.
#[derive(Debug)]
pub struct Streaming;

/// States with buffers.
pub trait HasBuffers {}
impl HasBuffers for Allocated {}
impl HasBuffers for Streaming {}

/// Where a buffer is.
enum Place {
    /// With the program (OUTPUT: its slot was given away).
    Away,
    /// In the device; somebody else's memory is held until it comes back.
    Queued(Vec<Mapping>, #[allow(dead_code)] Vec<Keep>),
    /// In the device; its memory is a producer's, who has it again when the claim is dropped. The slot, without a buffer,
    /// allowed it.
    Lent(Slot, #[allow(dead_code)] Arc<Claim>),
    /// Here.
    Here(Vec<Mapping>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Away => "Away",
            Self::Queued(..) => "Queued",
            Self::Lent(..) => "Lent",
            Self::Here(_) => "Here",
        })
    }
}

#[derive(Debug)]
struct Inner<D: Direction> {
    handle: Arc<Handle>,
    api: Api,
    memory: Memory,
    generation: u64,
    /// Buffers may stay mapped when the queue is freed.
    orphans: bool,
    /// Several buffers make a picture: the control that says which is its last.
    parts: Option<u32>,
    places: Vec<Place>,
    /// Rights to queue lent buffers that came back when the queue stopped.
    permits: Vec<Slot>,
    allocated: bool,
    streaming: bool,
    direction: PhantomData<D>,
}

impl<D: Direction> Inner<D> {
    fn stop(&mut self) -> Result<(), StreamError> {
        if self.streaming {
            self.streaming = false;
            stream_off::<D>(&self.handle, self.api)?;
        }
        Ok(())
    }

    /// What was in the device is here again; lent buffers are with those who filled them.
    fn recall(&mut self) {
        for place in &mut self.places {
            *place = match std::mem::replace(place, Place::Away) {
                Place::Queued(mappings, _) => Place::Here(mappings),
                Place::Lent(permit, _) => {
                    self.permits.push(permit);
                    Place::Away
                }
                other => other,
            };
        }
    }

    fn free(&mut self) -> Result<(), BuffersError> {
        self.places.clear();
        if self.allocated {
            self.allocated = false;
            request_buffers::<D>(&self.handle, self.api, self.memory, 0)?;
        }
        Ok(())
    }
}

impl<D: Direction> Drop for Inner<D> {
    fn drop(&mut self) {
        // Closing the device would do it too, but it may be kept open for another stream.
        if let Err(error) = self.stop() {
            tracing::debug!(%error, "stopping a queue");
        }
        if let Err(error) = self.free() {
            tracing::debug!(%error, "freeing a queue's buffers");
        }
    }
}

/// A queue of direction `D` in state `S`.
#[derive(Debug)]
pub struct Queue<D: Direction, S> {
    inner: Inner<D>,
    state: PhantomData<S>,
}

impl<D: Direction, S> Queue<D, S> {
    fn into_state<T>(self) -> Queue<D, T> {
        Queue { inner: self.inner, state: PhantomData }
    }

    /// The device.
    #[must_use]
    pub fn handle(&self) -> &Arc<Handle> {
        &self.inner.handle
    }
}

impl<D: Direction> Queue<D, Idle> {
    /// A queue of a device.
    #[must_use]
    pub fn new(handle: &Arc<Handle>, api: Api) -> Self {
        let inner = Inner {
            handle: Arc::clone(handle),
            api,
            memory: Memory::Mmap,
            generation: 0,
            orphans: false,
            parts: None,
            places: Vec::new(),
            permits: Vec::new(),
            allocated: false,
            streaming: false,
            direction: PhantomData,
        };
        Self { inner, state: PhantomData }
    }

    /// Sets the format; answers what the device made of it.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn set_format(&mut self, format: &Format) -> Result<Format, FormatError> {
        ioctl::set_format::<D>(&self.inner.handle, self.inner.api, format)
    }

    /// Allocates buffers, and maps them if the memory is the device's. There may be more or fewer than `count`.
    ///
    /// # Errors
    /// See [`BuffersError`].
    pub fn request(mut self, memory: Memory, count: u32) -> Result<Queue<D, Allocated>, BuffersError> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let inner = &mut self.inner;
        let (count, can) = request_buffers::<D>(&inner.handle, inner.api, memory, count)?;
        // NVIDIA's devices are closed in place of being freed.
        inner.orphans =
            can & V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS != 0 || inner.handle.dialect() == Dialect::Nvidia;
        inner.memory = memory;
        inner.allocated = true;
        inner.generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            return Err(BuffersError::NoMemory);
        }
        for index in 0..count {
            let mut mappings = Vec::new();
            if memory == Memory::Mmap {
                let planes = query_buffer::<D>(&inner.handle, inner.api, index)?;
                for (plane, (length, offset)) in (0..).zip(planes) {
                    let exported = match inner.handle.dialect() {
                        Dialect::Kernel => None,
                        Dialect::Nvidia => {
                            let fd = export_buffer::<D>(&inner.handle, inner.api, index, plane)?;
                            Some(inner.handle.keep(fd))
                        }
                    };
                    let mapping = Mapping::new(&inner.handle, exported, length, offset);
                    mappings.push(mapping.map_err(BuffersError::Other)?);
                }
            }
            inner.places.push(Place::Here(mappings));
        }
        Ok(self.into_state())
    }
}

impl<D: Direction> Queue<D, Allocated> {
    /// Starts the queue.
    ///
    /// # Errors
    /// See [`StreamError`]. The queue is freed then.
    pub fn stream_on(mut self) -> Result<Queue<D, Streaming>, StreamError> {
        stream_on::<D>(&self.inner.handle, self.inner.api)?;
        self.inner.streaming = true;
        Ok(self.into_state())
    }

    /// Frees the buffers.
    ///
    /// # Errors
    /// See [`BuffersError`].
    pub fn release(mut self) -> Result<Queue<D, Idle>, BuffersError> {
        self.inner.free()?;
        Ok(self.into_state())
    }
}

impl<D: Direction> Queue<D, Streaming> {
    /// Stops the queue; the device gives all buffers back.
    ///
    /// # Errors
    /// See [`StreamError`]. The queue is freed then.
    pub fn stream_off(mut self) -> Result<Queue<D, Allocated>, StreamError> {
        self.inner.stop()?;
        self.inner.recall();
        Ok(self.into_state())
    }
}

impl<D: Direction, S: HasBuffers> Queue<D, S> {
    /// How many buffers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.places.len()
    }

    /// Never true: a queue without buffers is [`Idle`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.places.is_empty()
    }

    /// How many buffers the device has.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.inner.places.iter().filter(|place| matches!(place, Place::Queued(..) | Place::Lent(..))).count()
    }

    /// Whether buffers may stay mapped when the queue is freed.
    #[must_use]
    pub fn orphans(&self) -> bool {
        self.inner.orphans
    }

    /// Makes a DMABuf of a plane of a buffer of the device's own memory.
    ///
    /// # Errors
    /// See [`BuffersError`].
    pub fn export(&self, index: u32, plane: u32) -> Result<OwnedFd, BuffersError> {
        export_buffer::<D>(&self.inner.handle, self.inner.api, index, plane)
    }
}

/// What a dequeue gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Dequeue<T> {
    /// Nothing yet.
    Nothing,
    /// The last buffer was dequeued before.
    Ended,
    /// A buffer.
    Buffer(T),
}

/// What of a raw picture is queued.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes used of each of the slot's mappings. A single 0 says that the stream ends (drivers without commands).
    Mapped(&'a [u32]),
    /// Planes of somebody else's memory, and the bytes of each.
    DmaBuf(&'a [DmaBufPlane], &'a [u32]),
}

impl<S: HasBuffers> Queue<Output, S> {
    /// The rights to fill those buffers that are here, and those to queue lent ones that are back.
    pub fn take_slots(&mut self) -> Vec<Slot> {
        let generation = self.inner.generation;
        let mut slots = std::mem::take(&mut self.inner.permits);
        for (index, place) in (0..).zip(&mut self.inner.places) {
            if let Place::Here(mappings) = place {
                slots.push(Slot { index, generation, planes: std::mem::take(mappings) });
                *place = Place::Away;
            }
        }
        slots
    }

    /// Queues a picture. `timestamp` is in microseconds and comes back with what is made of it.
    ///
    /// # Errors
    /// See [`QueueError`]; the slot comes back with it. A slot of an earlier allocation is [`QueueError::Invalid`].
    pub fn queue(&mut self, slot: Slot, input: &Input<'_>, timestamp: u64) -> Result<(), (QueueError, Slot)> {
        let inner = &mut self.inner;
        let place = usize::try_from(slot.index).ok().and_then(|index| inner.places.get_mut(index));
        let Some(place) = place.filter(|place| {
            matches!(place, Place::Away) && slot.generation == inner.generation && input.fits(inner.memory)
        }) else {
            return Err((QueueError::Invalid, slot));
        };
        let (uses, keep): (Vec<PlaneUse>, _) = match input {
            Input::Mapped(used) => {
                for (plane, mapping) in slot.planes.iter().enumerate() {
                    mapping.sync_for_device(plane);
                }
                let uses = used.iter().zip(&slot.planes).map(|(&used, mapping)| PlaneUse {
                    used,
                    length: u32::try_from(mapping.bytes().len()).unwrap_or(u32::MAX),
                    ..PlaneUse::default()
                });
                (uses.collect(), Vec::new())
            }
            Input::DmaBuf(planes, used) => {
                let uses = planes.iter().zip(*used).map(|(plane, &used)| PlaneUse {
                    used,
                    offset: plane.offset,
                    length: plane.length,
                    fd: Some(plane.fd),
                });
                (uses.collect(), planes.iter().map(|plane| Arc::clone(&plane.keep)).collect())
            }
        };
        let (handle, api) = (&inner.handle, inner.api);
        match queue_buffer::<Output>(handle, api, inner.memory, slot.index, &uses, timestamp) {
            Ok(()) => {
                *place = Place::Queued(slot.planes, keep);
                Ok(())
            }
            Err(error) => Err((error, slot)),
        }
    }
}

impl<S: HasBuffers> Queue<Output, S> {
    /// Queues a buffer that a producer has filled. The permit comes back in place of the buffer.
    ///
    /// # Errors
    /// As [`Queue::queue`].
    pub fn queue_lent(
        &mut self,
        permit: Slot,
        claim: &Arc<Claim>,
        used: &[u32],
        timestamp: u64,
    ) -> Result<(), (QueueError, Slot)> {
        let inner = &mut self.inner;
        let loan = claim.loan();
        let place = usize::try_from(loan.index()).ok().and_then(|index| inner.places.get_mut(index));
        let Some(place) = place.filter(|place| {
            matches!(place, Place::Away)
                && permit.is_permit()
                && (loan.generation(), permit.generation) == (inner.generation, inner.generation)
                && inner.memory == Memory::Mmap
        }) else {
            return Err((QueueError::Invalid, permit));
        };
        let mut uses = Vec::with_capacity(used.len());
        for (plane, (&used, memory)) in used.iter().zip(loan.memories()).enumerate() {
            if let Some(fd) = memory.exported {
                inner.handle.sync_for_device(fd, plane);
            }
            let length = u32::try_from(memory.length).unwrap_or(u32::MAX);
            uses.push(PlaneUse { used, length, ..PlaneUse::default() });
        }
        match queue_buffer::<Output>(&inner.handle, inner.api, inner.memory, loan.index(), &uses, timestamp) {
            Ok(()) => {
                *place = Place::Lent(permit, Arc::clone(claim));
                Ok(())
            }
            Err(error) => Err((error, permit)),
        }
    }
}

impl Input<'_> {
    fn fits(&self, memory: Memory) -> bool {
        match self {
            Self::Mapped(_) => memory == Memory::Mmap,
            Self::DmaBuf(planes, used) => memory == Memory::DmaBuf && planes.len() == used.len(),
        }
    }
}

impl Queue<Output, Streaming> {
    /// A buffer that the device has read.
    ///
    /// # Errors
    /// See [`DequeueError`].
    pub fn dequeue(&mut self) -> Result<Dequeue<Slot>, DequeueError> {
        let inner = &mut self.inner;
        let queued = match dequeue_buffer::<Output>(&inner.handle, inner.api, inner.memory)? {
            Dequeued::Nothing => return Ok(Dequeue::Nothing),
            Dequeued::Ended => return Ok(Dequeue::Ended),
            Dequeued::Buffer(queued) => queued,
        };
        let place = usize::try_from(queued.index).ok().and_then(|index| inner.places.get_mut(index));
        match place {
            Some(place @ (Place::Queued(..) | Place::Lent(..))) => {
                Ok(Dequeue::Buffer(match std::mem::replace(place, Place::Away) {
                    Place::Queued(planes, _) => {
                        Slot { index: queued.index, generation: inner.generation, planes }
                    }
                    Place::Lent(permit, _) => permit,
                    Place::Away | Place::Here(_) => return Err(DequeueError::Failed),
                }))
            }
            // A driver that gives back what it does not have.
            _ => Err(DequeueError::Failed),
        }
    }
}

/// A coded buffer, copied out of the device's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coded {
    /// The bytes; may be none.
    pub data: Vec<u8>,
    /// The timestamp of the raw picture, µs.
    pub timestamp: u64,
    /// What the driver says of keyframes. Not to be trusted.
    pub key_flag: bool,
    /// The driver lost a picture, or the buffer was too small for it.
    pub error: bool,
    /// Nothing follows.
    pub last: bool,
    /// Whether the picture ends with these bytes, if it comes in parts and the device says so.
    pub ends_picture: Option<bool>,
}

impl<S: HasBuffers> Queue<Capture, S> {
    /// From now on the device is asked with each buffer whether it is the last of its picture, by this control of NVIDIA's.
    pub(crate) fn expect_parts(&mut self, control: u32) {
        self.inner.parts = Some(control);
    }

    /// Gives all buffers that are here to the device.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub fn queue_all(&mut self) -> Result<(), QueueError> {
        for index in 0..self.inner.places.len() {
            if matches!(self.inner.places.get(index), Some(Place::Here(_))) {
                self.requeue(index)?;
            }
        }
        Ok(())
    }

    fn requeue(&mut self, index: usize) -> Result<(), QueueError> {
        let inner = &mut self.inner;
        let Some(Place::Here(mappings)) = inner.places.get_mut(index) else {
            return Err(QueueError::Invalid);
        };
        let uses: Vec<PlaneUse> = mappings
            .iter()
            .map(|mapping| PlaneUse {
                length: u32::try_from(mapping.bytes().len()).unwrap_or(u32::MAX),
                ..PlaneUse::default()
            })
            .collect();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        queue_buffer::<Capture>(&inner.handle, inner.api, inner.memory, number, &uses, 0)?;
        if let Some(place) = inner.places.get_mut(index)
            && let Place::Here(mappings) = place
        {
            *place = Place::Queued(std::mem::take(mappings), Vec::new());
        }
        Ok(())
    }
}

impl Queue<Capture, Streaming> {
    /// A coded picture. The buffer goes back to the device at once, unless it was the last.
    ///
    /// # Errors
    /// See [`DequeueError`].
    pub fn dequeue(&mut self) -> Result<Dequeue<Coded>, DequeueError> {
        let inner = &mut self.inner;
        let queued = match dequeue_buffer::<Capture>(&inner.handle, inner.api, inner.memory)? {
            Dequeued::Nothing => return Ok(Dequeue::Nothing),
            Dequeued::Ended => return Ok(Dequeue::Ended),
            Dequeued::Buffer(queued) => queued,
        };
        let index = usize::try_from(queued.index).unwrap_or(usize::MAX);
        let Some(place) = inner.places.get_mut(index) else { return Err(DequeueError::Failed) };
        let Place::Queued(mappings, _) = place else { return Err(DequeueError::Failed) };
        let mappings = std::mem::take(mappings);
        // A driver that says more than fits gets what fits.
        let bytes = mappings.first().map(Mapping::bytes).unwrap_or_default();
        let start = queued.offset.min(bytes.len());
        let end = start.saturating_add(queued.used).min(bytes.len());
        let coded = Coded {
            data: bytes.get(start..end).unwrap_or_default().to_vec(),
            timestamp: queued.timestamp,
            key_flag: queued.flags & V4L2_BUF_FLAG_KEYFRAME != 0,
            error: queued.flags & V4L2_BUF_FLAG_ERROR != 0,
            last: queued.flags & V4L2_BUF_FLAG_LAST != 0,
            // It knows only as long as it does not have the buffer again.
            ends_picture: inner.parts.and_then(|id| ends_picture(&inner.handle, id, queued.index).ok()),
        };
        *place = Place::Here(mappings);
        if !coded.last
            && let Err(error) = self.requeue(index)
        {
            tracing::warn!(%error, "queueing a CAPTURE buffer again");
            return Err(match error {
                QueueError::Gone => DequeueError::Gone,
                _ => DequeueError::Failed,
            });
        }
        Ok(Dequeue::Buffer(coded))
    }
}
