// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory behind descriptors: memfds stand in for what `/dev/dma_heap` gives, and any mmap-able descriptor for a
//! foreign dma-buf.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

/// A mapping of a descriptor, shared with whoever else has mapped it.
pub struct Mapping {
    address: NonNull<c_void>,
    length: usize,
}

// SAFETY: a mapping is memory; who may touch it when is the application's business, as with hardware.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes. Fails if the descriptor has fewer, for touching those would kill the process.
    pub fn new(fd: BorrowedFd, length: usize) -> Option<Self> {
        if length == 0 || bytes_behind(fd)? < length {
            return None;
        }
        // SAFETY: a new mapping at an address that the kernel chooses; its length was checked.
        let address = unsafe {
            rustix::mm::mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        };
        Some(Self { address: NonNull::new(address.ok()?)?, length })
    }

    pub fn pointer(&self) -> *mut u8 {
        self.address.as_ptr().cast()
    }

    /// The bytes. The application may write to them at the same time: hardware would read a mixture as well.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long and lives as long as self. Bytes have no invalid value; that others may write
        // them meanwhile is inherent to memory shared with hardware.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.length) }
    }

    /// The bytes, to write.
    #[expect(clippy::mut_from_ref, reason = "shared memory, like hardware's")]
    pub fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: as for `bytes`; one worker thread writes a buffer at a time.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing borrows it any more.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.length) };
    }
}

/// How long the file of a descriptor is. dma-bufs tell it by seeking to the end.
fn bytes_behind(fd: BorrowedFd) -> Option<usize> {
    match rustix::fs::fstat(fd) {
        Ok(stat) if stat.st_size > 0 => usize::try_from(stat.st_size).ok(),
        Ok(_) => rustix::fs::seek(fd, SeekFrom::End(0)).ok().and_then(|n| usize::try_from(n).ok()),
        Err(_) => None,
    }
}

/// New memory of `length` bytes.
pub fn allocate(length: usize) -> Option<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"mpp-sim", MemfdFlags::CLOEXEC).ok()?;
    rustix::fs::ftruncate(&fd, length as u64).ok()?;
    Some(fd)
}

/// A descriptor of the application, which keeps it open.
pub fn borrow<'a>(fd: i32) -> Option<BorrowedFd<'a>> {
    // SAFETY: by the ABI the application keeps the descriptor open while the buffer lives. One that was closed is an
    // error of the system calls made with it here, no more.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A duplicate of a descriptor of the application.
pub fn duplicate(fd: i32) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(borrow(fd)?.as_fd(), 0).ok()
}
