// SPDX-License-Identifier: MIT OR Apache-2.0

//! DMABufs from the kernel's heaps (`linux/dma-heap.h`): memory that a program can write and a device can read.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libc::c_ulong;

/// The heap of ordinary memory, which every kernel with heaps has.
pub const SYSTEM: &str = "/dev/dma_heap/system";

/// `DMA_HEAP_IOCTL_ALLOC`: `_IOWR('H', 0, struct dma_heap_allocation_data)`
const ALLOC: c_ulong = 0xc018_4800;

/// `struct dma_heap_allocation_data`
#[repr(C)]
struct Allocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// An open heap.
#[derive(Debug)]
pub struct Heap(File);

impl Heap {
    /// Opens a heap.
    ///
    /// # Errors
    /// Those of `open(2)`: mostly that there is none, or no permission.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// A new DMABuf of at least `length` bytes, all zero.
    ///
    /// # Errors
    /// That of the call: `ENOTTY` if the file is no heap, `ENOMEM`.
    pub fn allocate(&self, length: usize) -> io::Result<OwnedFd> {
        let mut request = Allocation {
            len: length as u64,
            fd: 0,
            fd_flags: (libc::O_CLOEXEC | libc::O_RDWR) as u32,
            heap_flags: 0,
        };
        // SAFETY: the structure of this request, valid for reading and writing.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), ALLOC as _, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(request.fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_heap_is_an_error() {
        assert_eq!(std::mem::size_of::<Allocation>(), 24);
        assert!(Heap::open(Path::new("/nonexistent")).is_err());
        let null = Heap::open(Path::new("/dev/null")).unwrap();
        assert_eq!(null.allocate(4096).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
