// SPDX-License-Identifier: MPL-2.0

//! Pictures that are in memory of the hardware already.
// What NVIDIA's elements map is a structure with a pointer; an allocator is given a descriptor; a frame's buffer has no setter.
#![allow(unsafe_code)]

use std::os::fd::{OwnedFd, RawFd};

use gst::glib;
use gst::glib::translate::{IntoGlibPtr, ToGlibPtr};
use gst_allocators::prelude::*;
use v4l2_m2m::surface::{self, Surface, SurfaceError};

/// Caps feature of NVIDIA's elements.
pub(crate) const NVMM: &str = "memory:NVMM";
/// Caps feature of DMABufs.
pub(crate) const DMABUF: &str = "memory:DMABuf";

/// What a buffer with `memory:NVMM` describes.
///
/// # Errors
/// Why it describes no picture of the hardware.
pub(crate) fn nvmm(buffer: &gst::BufferRef) -> Result<Surface, SurfaceError> {
    let map = buffer.map_readable().map_err(|_| SurfaceError::TooSmall(0))?;
    // SAFETY: the caps say `memory:NVMM`, by which NVIDIA's elements promise that a mapped buffer is an NvBufSurface,
    // which lives as long as the buffer.
    unsafe { surface::describe(&map) }
}

/// The descriptor and size of a buffer that is one DMABuf from its first byte on.
pub(crate) fn dmabuf(buffer: &gst::BufferRef) -> Option<(RawFd, u32)> {
    if buffer.n_memory() != 1 {
        return None;
    }
    whole(buffer.peek_memory(0))
}

/// The descriptor and size of memory that is one DMABuf from its first byte on.
pub(crate) fn whole(memory: &gst::MemoryRef) -> Option<(RawFd, u32)> {
    let memory = memory.downcast_memory_ref::<gst_allocators::DmaBufMemory>()?;
    (memory.offset() == 0).then(|| (memory.fd(), u32::try_from(memory.maxsize()).unwrap_or(u32::MAX)))
}

/// Leaves of a frame's picture what its buffer says beside it: times, flags, metas (which the base class hands on). The
/// memory goes back to its owner once nobody else has it.
pub(crate) fn forget_picture(frame: &mut gst_video::VideoCodecFrame<'_>) {
    let what = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
    let Some(Ok(rest)) = frame.input_buffer().map(|buffer| buffer.copy_region(what, ..)) else { return };
    // SAFETY: the frame is valid, and changed under the stream lock, which whoever has it holds. The pointer in it is a
    // reference of its own: it gets another one, and the old is released.
    unsafe {
        let raw = frame.to_glib_none().0;
        let old = std::mem::replace(&mut (*raw).input_buffer, rest.into_glib_ptr());
        drop(gst::Buffer::from_glib_full(old));
    }
}

/// GStreamer's memory of a DMABuf of `size` bytes.
///
/// # Errors
/// If the allocator refuses.
pub(crate) fn share(
    allocator: &gst_allocators::DmaBufAllocator,
    fd: OwnedFd,
    size: usize,
) -> Result<gst::Memory, glib::BoolError> {
    // SAFETY: the descriptor is the allocator's from now on, and nobody else's.
    unsafe { allocator.alloc_dmabuf(fd, size) }
}
