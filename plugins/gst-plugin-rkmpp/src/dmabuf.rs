// SPDX-License-Identifier: MPL-2.0

//! dma-bufs inside of GStreamer's buffers.
#![allow(unsafe_code)] // GStreamer tells descriptors as plain numbers.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst_allocators::prelude::*;
use rockchip_mpp::{Buffer, PictureBuffer};

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

/// Counts pictures that are in somebody's hands.
pub(crate) type Held = Arc<AtomicUsize>;

/// What a memory keeps alive: without it the decoder would write the next picture there.
struct Keeper {
    _picture: PictureBuffer,
    held: Held,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

unsafe extern "C" fn drop_keeper(keeper: gst::glib::ffi::gpointer) {
    // SAFETY: GStreamer hands back what `adopt` gave it, once.
    drop(unsafe { Box::from_raw(keeper.cast::<Box<dyn Send>>()) });
}

/// The first `size` bytes of a decoded picture as a dma-buf's memory, without a copy. It is read-only: the hardware still
/// refers to it. The picture goes back to the decoder with the memory.
///
/// # Errors
/// What failed.
pub(crate) fn wrap(
    allocator: &gst_allocators::DmaBufAllocator,
    picture: PictureBuffer,
    size: usize,
    held: &Held,
) -> Result<gst::Memory, String> {
    let fd = picture.export().map_err(|error| error.to_string())?;
    let whole = picture.size();
    if size > whole {
        return Err(format!("a picture of {size} bytes in a buffer of {whole}"));
    }
    held.fetch_add(1, Ordering::AcqRel);
    let keeper = Box::new(Keeper { _picture: picture, held: held.clone() });
    let memory = adopt(allocator, fd, whole, size, keeper)?;
    let object: *mut gst::ffi::GstMemory = memory.as_mut_ptr();
    // SAFETY: the memory is new and nobody else's.
    unsafe { (*object).mini_object.flags |= gst::ffi::GST_MEMORY_FLAG_READONLY };
    Ok(memory)
}

/// Tells where compressed pixels lie: `stride` bytes from row to row of blocks, as the kernel reckons, for a picture of so many
/// pixels, borders and all. The format is `DMA_DRM`, for which the binding's function has no layout.
pub(crate) fn add_compressed_meta(buffer: &mut gst::BufferRef, (width, height): (u32, u32), stride: usize) {
    let format = gst_video::VideoFormat::from_string("DMA_DRM");
    let offsets = [0_usize; 4];
    let strides = [i32::try_from(stride).unwrap_or(i32::MAX), 0, 0, 0];
    // SAFETY: the buffer is writable, which its reference says; both arrays have four elements, and are copied.
    unsafe {
        gst_video::ffi::gst_buffer_add_video_meta_full(
            buffer.as_mut_ptr(),
            gst_video::ffi::GST_VIDEO_FRAME_FLAG_NONE,
            gst::glib::translate::IntoGlib::into_glib(format),
            width,
            height,
            1,
            &raw const offsets,
            &raw const strides,
        );
    }
}

/// The first `size` bytes of a buffer of MPP's as a dma-buf's memory, to be written to. It is MPP's again when the memory
/// goes.
///
/// # Errors
/// What failed.
pub(crate) fn wrap_writable(
    allocator: &gst_allocators::DmaBufAllocator,
    buffer: Buffer,
    size: usize,
) -> Result<gst::Memory, String> {
    let fd = buffer.export().map_err(|error| error.to_string())?;
    let whole = buffer.size();
    if size > whole {
        return Err(format!("a frame of {size} bytes in a buffer of {whole}"));
    }
    adopt(allocator, fd, whole, size, Box::new(buffer))
}

/// A memory of `size` of a descriptor's `whole` bytes, and what it keeps alive.
fn adopt(
    allocator: &gst_allocators::DmaBufAllocator,
    fd: OwnedFd,
    whole: usize,
    size: usize,
    keeper: Box<dyn Send>,
) -> Result<gst::Memory, String> {
    // SAFETY: the descriptor is the memory's from now on, and refers to as many bytes.
    let mut memory = unsafe { allocator.alloc_dmabuf(fd, whole) }.map_err(|error| error.to_string())?;
    memory.get_mut().ok_or("the new memory is somebody else's")?.resize(..size);
    let object: *mut gst::ffi::GstMemory = memory.as_mut_ptr();
    // SAFETY: the memory is new and nobody else's. The keeper is its own from now on, and dropped with it, by whichever
    // thread: it is Send. The outer box makes a thin pointer of it.
    unsafe {
        gst::ffi::gst_mini_object_set_qdata(
            object.cast(),
            gst::glib::translate::IntoGlib::into_glib(gst::glib::Quark::from_str("rkmpp-keeper")),
            Box::into_raw(Box::new(keeper)).cast(),
            Some(drop_keeper),
        );
    }
    Ok(memory)
}
