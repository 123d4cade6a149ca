// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory of buffers.

use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::ops::{Handle, V4l2Ops};

/// A piece of a device's memory in this process. Unmapped when dropped. It outlives the device's descriptor, as mappings do.
pub struct Mapping {
    ops: Arc<dyn V4l2Ops>,
    address: NonNull<u8>,
    length: usize,
    /// What was mapped, if it is not the device itself.
    exported: Option<RawFd>,
}

// SAFETY: the memory is shared between the process and the device only; the process reaches it through the one owner
// of this value, whichever thread that is on.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives read access only.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(
        handle: &Arc<Handle>,
        exported: Option<RawFd>,
        length: usize,
        offset: u64,
    ) -> std::io::Result<Self> {
        if length == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let address = handle.mmap(exported, length, offset)?;
        Ok(Self { ops: Arc::clone(handle.ops()), address, length, exported })
    }

    /// The bytes. While the buffer is queued the device may change them; so slots are with their owner, or queued.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `address` and `length` are those of a mapping that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }

    /// Makes what was written visible to the device; `plane` is its number in the buffer.
    pub(crate) fn sync_for_device(&self, plane: usize) {
        if let Some(fd) = self.exported {
            self.ops.sync_for_device(fd, plane);
        }
    }

    /// The descriptor that was mapped, if it is not the device's.
    pub(crate) fn exported(&self) -> Option<RawFd> {
        self.exported
    }

    /// The bytes, to write.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, undone once; no reference outlives `self`.
        unsafe { self.ops.munmap(self.address, self.length) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Somebody else's memory, while the device reads it.
pub type Keep = Arc<dyn std::any::Any + Send + Sync>;

/// Right to fill one OUTPUT buffer and queue it. There is one for each buffer, so a buffer can't be queued twice, nor
/// written to while the device reads it. Or the right to queue one that a producer has filled ([`crate::loan`]).
#[derive(Debug)]
pub struct Slot {
    /// [`Slot::NO_BUFFER`] for a right without a buffer.
    pub(crate) index: u32,
    /// Which allocation it belongs to; after another one it is worthless.
    pub(crate) generation: u64,
    /// Empty for DMABuf.
    pub(crate) planes: Vec<Mapping>,
}

impl Slot {
    const NO_BUFFER: u32 = u32::MAX;

    /// The right to queue a lent buffer.
    pub(crate) fn permit(generation: u64) -> Self {
        Self { index: Self::NO_BUFFER, generation, planes: Vec::new() }
    }

    pub(crate) fn is_permit(&self) -> bool {
        self.index == Self::NO_BUFFER
    }

    /// Its memory, a mapping for each plane of the format. Empty if the queue takes DMABufs.
    pub fn planes_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.planes.iter_mut().map(Mapping::bytes_mut)
    }

    /// Number of the buffer; without meaning if the slot is for a lent one.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// A plane that somebody else owns.
pub struct DmaBufPlane {
    /// The DMABuf, by its owner's own descriptor: NVIDIA's library knows buffers by these numbers.
    pub fd: RawFd,
    /// Keeps the descriptor open, and its owner from writing; dropped when the device is done with it.
    pub keep: Keep,
    /// Bytes of the whole DMABuf.
    pub length: u32,
    /// Where the plane begins.
    pub offset: u32,
}

impl fmt::Debug for DmaBufPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fd, length, offset, .. } = self;
        f.debug_struct("DmaBufPlane")
            .field("fd", fd)
            .field("length", length)
            .field("offset", offset)
            .finish_non_exhaustive()
    }
}
