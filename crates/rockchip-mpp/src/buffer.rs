// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the hardware can reach.

use std::ffi::CStr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use rockchip_mpp_sys::{MppBuffer, MppBufferGroup, MppBufferInfo, consts};

use crate::context::Mpp;
use crate::error::{Error, check};

/// Who asks; appears in the library's log.
const TAG: &CStr = c"rockchip-mpp";

#[derive(Debug)]
struct GroupHandle {
    mpp: Mpp,
    raw: MppBufferGroup,
    cachable: bool,
}

// SAFETY: groups are guarded by locks of the library.
unsafe impl Send for GroupHandle {}
// SAFETY: as above.
unsafe impl Sync for GroupHandle {}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        // SAFETY: put once; every buffer of the group holds an Arc of this, so none is left.
        unsafe { (self.mpp.symbols().mpp_buffer_group_put)(self.raw) };
    }
}

/// A pool of buffers that the library allocates. It lives on until its last buffer is dropped.
#[derive(Clone, Debug)]
pub struct Group(Arc<GroupHandle>);

impl Group {
    /// Makes a group of the first kind of memory that works: DRM, dma-heap, ION. It is cached by the CPU if the
    /// release can synchronise caches.
    ///
    /// # Errors
    /// What was tried, and how each failed.
    pub fn internal(mpp: Mpp) -> Result<Self, Error> {
        Self::first_that_works(mpp, mpp.can_sync())
    }

    /// The same without the CPU's cache: for memory that others write to, who do not tell it of that. Reading such memory is
    /// slow.
    ///
    /// # Errors
    /// What was tried, and how each failed.
    pub fn uncached(mpp: Mpp) -> Result<Self, Error> {
        Self::first_that_works(mpp, false)
    }

    fn first_that_works(mpp: Mpp, cachable: bool) -> Result<Self, Error> {
        let flags = if cachable { consts::MPP_BUFFER_FLAGS_CACHABLE } else { 0 };
        let mut tried = Vec::new();
        for (name, kind) in [
            ("DRM", consts::MPP_BUFFER_TYPE_DRM),
            ("DMA_HEAP", consts::MPP_BUFFER_TYPE_DMA_HEAP),
            ("ION", consts::MPP_BUFFER_TYPE_ION),
        ] {
            // A group is made even when its allocator does not exist: only a buffer tells.
            match Self::of_kind(mpp, kind | flags, cachable)
                .and_then(|group| group.allocate(4096).map(|_| group))
            {
                Ok(group) => return Ok(group),
                Err(error) => tried.push(format!("{name}: {error}")),
            }
        }
        Err(Error::NoAllocator(tried.join("; ")))
    }

    fn of_kind(mpp: Mpp, kind: i32, cachable: bool) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing, the strings are static.
        check("mpp_buffer_group_get", unsafe {
            (mpp.symbols().mpp_buffer_group_get)(
                &mut raw,
                kind,
                consts::MPP_BUFFER_INTERNAL,
                TAG.as_ptr(),
                TAG.as_ptr(),
            )
        })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_buffer_group_get" });
        }
        Ok(Self(Arc::new(GroupHandle { mpp, raw, cachable })))
    }

    /// Takes a buffer of at least `size` bytes, a used one if there is any.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn allocate(&self, size: usize) -> Result<Buffer, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the group is alive, the pointer valid for writing, the strings static.
        check("mpp_buffer_get", unsafe {
            (self.0.mpp.symbols().mpp_buffer_get_with_tag)(
                self.0.raw,
                &mut raw,
                size,
                TAG.as_ptr(),
                TAG.as_ptr(),
            )
        })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_buffer_get" });
        }
        Ok(Buffer { mpp: self.0.mpp, raw, cachable: self.0.cachable, group: Some(self.clone()), fd: None })
    }

    /// Allows `count` buffers of `size` bytes, and no others.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn limit(&self, size: usize, count: u32) -> Result<(), Error> {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        // SAFETY: the group is alive.
        check("mpp_buffer_group_limit_config", unsafe {
            (self.0.mpp.symbols().mpp_buffer_group_limit_config)(self.0.raw, size, count)
        })
    }

    /// Frees the buffers that nobody uses; those in use are freed instead of coming back.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn clear(&self) -> Result<(), Error> {
        // SAFETY: the group is alive.
        check("mpp_buffer_group_clear", unsafe { (self.0.mpp.symbols().mpp_buffer_group_clear)(self.0.raw) })
    }

    /// Whether the CPU's cache has to be told of the hardware's doings.
    pub(crate) fn is_cachable(&self) -> bool {
        self.0.cachable
    }

    pub(crate) fn raw(&self) -> MppBufferGroup {
        self.0.raw
    }

    /// Bytes that the group has allocated.
    pub fn usage(&self) -> usize {
        // SAFETY: the group is alive.
        unsafe { (self.0.mpp.symbols().mpp_buffer_group_usage)(self.0.raw) }
    }
}

/// A piece of memory. There is one owner; the frame that it is put into, while it is there.
#[derive(Debug)]
pub struct Buffer {
    mpp: Mpp,
    raw: MppBuffer,
    cachable: bool,
    /// Keeps the group until the buffer has gone.
    #[allow(dead_code)]
    group: Option<Group>,
    /// What was imported: the library only borrows it.
    #[allow(dead_code)]
    fd: Option<OwnedFd>,
}

// SAFETY: reference counts and mappings are guarded by locks of the library; the memory has one owner.
unsafe impl Send for Buffer {}
// SAFETY: through a shared reference nothing but constants can be read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Imports the first `size` bytes of a dma-buf. The descriptor is duplicated, so the memory lives at least as long
    /// as this; the caller sees to it that nobody writes to it while the hardware reads.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated or the library refuses it.
    pub fn import(mpp: Mpp, fd: BorrowedFd<'_>, size: usize) -> Result<Self, Error> {
        let fd = fd.try_clone_to_owned().map_err(|error| Error::Descriptor(error.kind()))?;
        let mut info = MppBufferInfo {
            buffer_type: consts::MPP_BUFFER_TYPE_EXT_DMA,
            size,
            fd: fd.as_raw_fd(),
            ..MppBufferInfo::default()
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the pointers are valid, the strings static; no group is a documented choice.
        check("mpp_buffer_import", unsafe {
            (mpp.symbols().mpp_buffer_import_with_tag)(
                ptr::null_mut(),
                &mut info,
                &mut raw,
                TAG.as_ptr(),
                TAG.as_ptr(),
            )
        })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_buffer_import" });
        }
        Ok(Self { mpp, raw, cachable: false, group: None, fd: Some(fd) })
    }

    /// A descriptor of its own of the same memory, for others.
    ///
    /// # Errors
    /// If the memory has none, or it cannot be duplicated.
    pub fn export(&self) -> Result<OwnedFd, Error> {
        // SAFETY: the buffer is alive.
        let fd = unsafe { (self.mpp.symbols().mpp_buffer_get_fd_with_caller)(self.raw, TAG.as_ptr()) };
        if fd < 0 {
            return Err(Error::Nothing { call: "mpp_buffer_get_fd" });
        }
        // SAFETY: the library keeps the descriptor open while the buffer lives, which is longer than this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fd.as_fd().try_clone_to_owned().map_err(|error| Error::Descriptor(error.kind()))
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        // SAFETY: the buffer is alive.
        unsafe { (self.mpp.symbols().mpp_buffer_get_size_with_caller)(self.raw, TAG.as_ptr()) }
    }

    /// Maps it for writing by the CPU. The cache is written back when the mapping is dropped.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn map_mut(&mut self) -> Result<MapMut<'_>, Error> {
        let symbols = self.mpp.symbols();
        // SAFETY: the buffer is alive.
        let data = unsafe { (symbols.mpp_buffer_get_ptr_with_caller)(self.raw, TAG.as_ptr()) };
        let len = self.size();
        if data.is_null() || len > isize::MAX as usize {
            return Err(Error::Unmappable);
        }
        if let Some(begin) = symbols.mpp_buffer_sync_begin_f.filter(|_| self.cachable) {
            // SAFETY: the buffer is alive.
            check("mpp_buffer_sync_begin", unsafe { begin(self.raw, 0, TAG.as_ptr()) })?;
        }
        Ok(MapMut { data: data.cast(), len, buffer: self })
    }

    pub(crate) fn raw(&self) -> MppBuffer {
        self.raw
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: this is the reference that came with the handle; given back once.
        unsafe { (self.mpp.symbols().mpp_buffer_put_with_caller)(self.raw, TAG.as_ptr()) };
    }
}

/// A buffer's bytes.
#[derive(Debug)]
pub struct MapMut<'a> {
    data: *mut u8,
    len: usize,
    buffer: &'a mut Buffer,
}

impl Deref for MapMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the library mapped `len` bytes here and keeps them while the buffer lives, which is borrowed.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl DerefMut for MapMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the only buffer with this memory is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for MapMut<'_> {
    fn drop(&mut self) {
        if let Some(end) = self.buffer.mpp.symbols().mpp_buffer_sync_end_f.filter(|_| self.buffer.cachable) {
            // SAFETY: the buffer is alive, and sync_begin was called.
            unsafe { end(self.buffer.raw, 0, TAG.as_ptr()) };
        }
    }
}
