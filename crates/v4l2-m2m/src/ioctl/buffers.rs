// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VIDIOC_REQBUFS`, `VIDIOC_QUERYBUF`, `VIDIOC_EXPBUF`

use std::os::fd::OwnedFd;

use super::{Api, errno_enum};
use crate::ops::Handle;
use crate::queue::Direction;
use crate::uapi::*;

/// Whose memory buffers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// The device's, mapped into the process.
    Mmap,
    /// Somebody else's, by DMABuf file descriptor.
    DmaBuf,
}

impl Memory {
    pub(crate) fn raw(self) -> u32 {
        match self {
            Self::Mmap => V4L2_MEMORY_MMAP,
            Self::DmaBuf => V4L2_MEMORY_DMABUF,
        }
    }
}

errno_enum! {
    /// Why there are no buffers.
    BuffersError {
        EBUSY => Busy "buffers are in use, or another program owns this queue",
        EINVAL => Unsupported "the device does not take this kind of memory",
        ENOMEM => NoMemory "there is no memory for the buffers",
        ENOTTY => NoIoctl "the device does not offer this call",
    }
}

/// Allocates buffers; answers how many there are, which can be more or fewer, and what the queue can
/// (`V4L2_BUF_CAP_…`; 0: nothing known). 0 frees them.
pub(crate) fn request_buffers<D: Direction>(
    handle: &Handle,
    api: Api,
    memory: Memory,
    count: u32,
) -> Result<(u32, u32), BuffersError> {
    let mut request =
        v4l2_requestbuffers { count, type_: D::buffer_type(api), memory: memory.raw(), ..Default::default() };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_REQBUFS, &mut request) }?;
    Ok((request.count, request.capabilities))
}

/// Length and offset of each piece of memory of a buffer.
pub(crate) fn query_buffer<D: Direction>(
    handle: &Handle,
    api: Api,
    index: u32,
) -> Result<Vec<(usize, u64)>, BuffersError> {
    let mut planes = [v4l2_plane::default(); VIDEO_MAX_PLANES];
    let mut buffer =
        v4l2_buffer { index, type_: D::buffer_type(api), memory: V4L2_MEMORY_MMAP, ..Default::default() };
    if api == Api::MultiPlane {
        buffer.m.planes = planes.as_mut_ptr();
        buffer.length = VIDEO_MAX_PLANES as u32;
    }
    // SAFETY: the structure of this request; it points to as many planes as it says, which live through the call.
    unsafe { handle.ioctl(VIDIOC_QUERYBUF, &mut buffer) }?;
    Ok(match api {
        // SAFETY: the device answers offsets for memory of its own; any bits are integers.
        Api::SinglePlane => vec![(buffer.length as usize, u64::from(unsafe { buffer.m.offset }))],
        Api::MultiPlane => planes
            .iter()
            .take(buffer.length as usize)
            // SAFETY: as above.
            .map(|plane| (plane.length as usize, u64::from(unsafe { plane.m.mem_offset })))
            .collect(),
    })
}

/// Makes a DMABuf of a piece of memory of a buffer.
pub(crate) fn export_buffer<D: Direction>(
    handle: &Handle,
    api: Api,
    index: u32,
    plane: u32,
) -> Result<OwnedFd, BuffersError> {
    let mut export = v4l2_exportbuffer {
        type_: D::buffer_type(api),
        index,
        plane,
        flags: (libc::O_CLOEXEC | libc::O_RDWR) as u32,
        ..Default::default()
    };
    // SAFETY: the structure of this request.
    unsafe { handle.ioctl(VIDIOC_EXPBUF, &mut export) }?;
    Ok(handle.adopt(export.fd))
}
