// SPDX-License-Identifier: MPL-2.0

//! dma-bufs inside of GStreamer's buffers.
#![allow(unsafe_code)] // GStreamer tells descriptors as plain numbers.

use std::os::fd::BorrowedFd;

/// A buffer's only memory, if it is a dma-buf from its first byte on.
pub(crate) struct DmaBuf<'a> {
    pub fd: BorrowedFd<'a>,
    /// Bytes of the whole dma-buf.
    pub size: usize,
}

/// Looks into a buffer.
///
/// # Errors
/// Why it is no single dma-buf: `None` if it has nothing to do with one.
pub(crate) fn of(buffer: &gst::BufferRef) -> Result<DmaBuf<'_>, Option<&'static str>> {
    if buffer.n_memory() == 0 {
        return Err(None);
    }
    let Some(memory) = buffer.peek_memory(0).downcast_memory_ref::<gst_allocators::DmaBufMemory>() else {
        return Err(None);
    };
    if buffer.n_memory() != 1 {
        return Err(Some("its planes are separate memories"));
    }
    if memory.offset() != 0 {
        return Err(Some("its picture does not begin with the dma-buf"));
    }
    // SAFETY: the memory keeps its descriptor open while it lives, and is borrowed for as long as this.
    let fd = unsafe { BorrowedFd::borrow_raw(memory.fd()) };
    Ok(DmaBuf { fd, size: memory.maxsize() })
}
