// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_QBUF`, `VIDIOC_DQBUF`

use std::os::fd::RawFd;

use super::{Api, Memory, errno_enum};
use crate::ops::Handle;
use crate::queue::Direction;
use crate::uapi::*;

errno_enum! {
    /// Why a buffer cannot be queued.
    QueueError {
        EINVAL => Invalid "the device does not take this buffer (kind of memory, size, or number)",
        EIO => Failed "the device has failed; it must be opened anew",
        EPIPE => Ended "the stream has ended",
        EFAULT => Unreachable "the device cannot reach this memory",
        ENOMEM => NoMemory "there is no memory for it",
    }
}

errno_enum! {
    /// Why no buffer can be dequeued.
    DequeueError {
        EINVAL => NotStreaming "the queue does not stream",
        EIO => Failed "the device has failed; it must be opened anew",
    }
}

/// What is queued of a plane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlaneUse {
    /// Bytes in it; 0 for CAPTURE.
    pub used: u32,
    /// Where they begin; a DMABuf may hold several planes, and MPLANE's `data_offset` says where.
    pub offset: u32,
    /// Bytes of memory; the device looks at it for DMABuf.
    pub length: u32,
    /// The DMABuf, if it is one.
    pub fd: Option<RawFd>,
}

/// A dequeued buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub index: u32,
    /// Bytes of the first plane, and where they begin.
    pub used: usize,
    pub offset: usize,
    pub flags: u32,
    /// Microseconds, as they were queued with.
    pub timestamp: u64,
}

pub(crate) enum Dequeued {
    /// Not yet.
    Nothing,
    /// The last buffer was dequeued before.
    Ended,
    Buffer(Queued),
}

fn timeval(microseconds: u64) -> libc::timeval {
    libc::timeval {
        tv_sec: (microseconds / 1_000_000) as libc::time_t,
        tv_usec: (microseconds % 1_000_000) as libc::suseconds_t,
    }
}

/// Queues a buffer. `timestamp` is in microseconds.
pub(crate) fn queue_buffer<D: Direction>(
    handle: &Handle,
    api: Api,
    memory: Memory,
    index: u32,
    uses: &[PlaneUse],
    timestamp: u64,
) -> Result<(), QueueError> {
    let mut planes = [v4l2_plane::default(); VIDEO_MAX_PLANES];
    let mut buffer = v4l2_buffer {
        index,
        type_: D::buffer_type(api),
        field: V4L2_FIELD_NONE,
        memory: memory.raw(),
        timestamp: timeval(timestamp),
        ..Default::default()
    };
    if D::RAW {
        buffer.flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
    }
    match api {
        Api::SinglePlane => {
            let first = uses.first().copied().unwrap_or_default();
            // There is no data_offset here: the caller has made sure that it is 0.
            buffer.bytesused = first.used;
            buffer.length = first.length;
            if let Some(fd) = first.fd {
                buffer.m.fd = fd;
            }
        }
        Api::MultiPlane => {
            for (plane, planned) in planes.iter_mut().zip(uses) {
                // The kernel counts from the start of the memory, the offset included.
                plane.bytesused =
                    if planned.used == 0 { 0 } else { planned.used.saturating_add(planned.offset) };
                plane.data_offset = planned.offset;
                plane.length = planned.length;
                if let Some(fd) = planned.fd {
                    plane.m.fd = fd;
                }
            }
            buffer.m.planes = planes.as_mut_ptr();
            buffer.length = uses.len().min(VIDEO_MAX_PLANES) as u32;
        }
    }
    // SAFETY: the structure of this request; it points to at least as many planes as it says, which live through the
    // call.
    unsafe { handle.ioctl(VIDIOC_QBUF, &mut buffer) }?;
    Ok(())
}

/// Dequeues a buffer if one is ready.
pub(crate) fn dequeue_buffer<D: Direction>(
    handle: &Handle,
    api: Api,
    memory: Memory,
) -> Result<Dequeued, DequeueError> {
    let mut planes = [v4l2_plane::default(); VIDEO_MAX_PLANES];
    let mut buffer = v4l2_buffer { type_: D::buffer_type(api), memory: memory.raw(), ..Default::default() };
    if api == Api::MultiPlane {
        buffer.m.planes = planes.as_mut_ptr();
        buffer.length = VIDEO_MAX_PLANES as u32;
    }
    // SAFETY: the structure of this request; it points to as many planes as it says, which live through the call.
    if let Err(error) = unsafe { handle.ioctl(VIDIOC_DQBUF, &mut buffer) } {
        return match error.raw_os_error() {
            // NVIDIA's library can tell of the end like this.
            Some(libc::EAGAIN) if buffer.flags & V4L2_BUF_FLAG_LAST != 0 => Ok(Dequeued::Ended),
            Some(libc::EAGAIN) => Ok(Dequeued::Nothing),
            Some(libc::EPIPE) => Ok(Dequeued::Ended),
            _ => Err(error.into()),
        };
    }
    let (end, offset) = match api {
        Api::SinglePlane => (buffer.bytesused, 0),
        Api::MultiPlane => planes.first().map_or((0, 0), |plane| (plane.bytesused, plane.data_offset)),
    };
    let seconds = u64::try_from(buffer.timestamp.tv_sec).unwrap_or_default();
    let microseconds = u64::try_from(buffer.timestamp.tv_usec).unwrap_or_default();
    Ok(Dequeued::Buffer(Queued {
        index: buffer.index,
        used: end.saturating_sub(offset) as usize,
        offset: offset as usize,
        flags: buffer.flags,
        timestamp: seconds.saturating_mul(1_000_000).saturating_add(microseconds),
    }))
}
