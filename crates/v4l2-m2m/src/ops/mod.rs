// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ways to reach a device: the kernel's system calls, or something that stands in for them.

mod nvidia;
mod syscall;
mod waker;

use std::ffi::{c_ulong, c_void};
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use nvidia::{DEVICE_VARIABLE, LIBRARY_VARIABLE, LoadError, NODES, NvidiaLibrary, SURFACE_VARIABLE};
pub use syscall::SystemCalls;
pub use waker::Waker;

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A buffer can be dequeued, an event is there, or the device has something to say by an errno.
    Device,
    /// [`Waker::wake`] was called.
    Woken,
    /// Neither, in the time given.
    TimedOut,
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// A coded buffer is expected.
    pub capture: bool,
    /// A raw buffer is expected back.
    pub output: bool,
    /// Nothing is expected for so long; of use to who can only ask a device again and again.
    pub pause: Duration,
}

/// Which rules a device keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The kernel's interface for stateful encoders.
    Kernel,
    /// NVIDIA's library: another order of calls, controls that cannot be asked for, buffers that are mapped by exported
    /// descriptors.
    Nvidia,
}

/// How to reach a device. One object serves any number of devices.
///
/// `fd` is whatever [`V4l2Ops::open`] gave; it means something to the same object only.
pub trait V4l2Ops: Send + Sync + Debug {
    /// Opens a node for reading and writing, non-blocking, closed on exec.
    ///
    /// # Errors
    /// Those of `open(2)`.
    fn open(&self, path: &Path) -> io::Result<RawFd>;

    /// Closes what `open` gave.
    fn close(&self, fd: RawFd);

    /// `ioctl(2)`, repeated while interrupted.
    ///
    /// # Errors
    /// The errno that the device answers.
    ///
    /// # Safety
    /// `argument` points to the structure that `request` is defined with, valid for reading and writing; pointers
    /// inside it are valid as the request demands.
    unsafe fn ioctl(&self, fd: RawFd, request: c_ulong, argument: *mut c_void) -> io::Result<()>;

    /// Maps `length` bytes of a buffer for reading and writing.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    fn mmap(&self, fd: RawFd, length: usize, offset: u64) -> io::Result<NonNull<u8>>;

    /// Undoes a mapping.
    ///
    /// # Safety
    /// `address` and `length` are those of an [`V4l2Ops::mmap`] not undone yet, and nothing uses the memory any more.
    unsafe fn munmap(&self, address: NonNull<u8>, length: usize);

    /// Waits until the device is ready, `waker` is woken, or the time is up.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    fn wait(&self, fd: RawFd, interest: Interest, waker: &Waker, timeout: Duration) -> io::Result<Ready>;

    /// Which rules its devices keep.
    fn dialect(&self) -> Dialect {
        Dialect::Kernel
    }

    /// Whether the device can read this DMABuf where it is, as far as can be told before it is tried.
    fn can_import(&self, fd: RawFd) -> bool {
        let _ = fd;
        true
    }

    /// The processor has written to a plane of an exported buffer, and the device is to read it.
    fn sync_for_device(&self, fd: RawFd, plane: usize) {
        let _ = (fd, plane);
    }

    /// Takes ownership of a DMABuf file descriptor that the device exported.
    fn adopt(&self, fd: RawFd) -> OwnedFd;

    /// Nodes that may be encoders, in the order in which to try them.
    fn nodes(&self) -> Vec<PathBuf>;

    /// What the system calls the node, for messages (`/sys/class/video4linux/…/name`).
    fn name(&self, path: &Path) -> Option<String> {
        let _ = path;
        None
    }
}

/// An open device. Closed when dropped.
#[derive(Debug)]
pub struct Handle {
    ops: Arc<dyn V4l2Ops>,
    fd: RawFd,
    path: PathBuf,
    /// Exported descriptors of mapped buffers. Closed after the device: NVIDIA's libraries remember buffers by these
    /// numbers, which must not come again before.
    kept: Mutex<Vec<OwnedFd>>,
}

impl Handle {
    /// Opens a node.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(ops: &Arc<dyn V4l2Ops>, path: &Path) -> io::Result<Self> {
        let fd = ops.open(path)?;
        Ok(Self { ops: Arc::clone(ops), fd, path: path.to_owned(), kept: Mutex::default() })
    }

    /// The node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One ioctl.
    ///
    /// # Errors
    /// The errno that the device answers.
    ///
    /// # Safety
    /// `T` is the structure that `request` is defined with, and pointers inside it are valid as the request demands.
    pub(crate) unsafe fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: a unique reference is valid for reading and writing; the rest is the caller's promise.
        unsafe { self.ops.ioctl(self.fd, request, std::ptr::from_mut(argument).cast()) }
    }

    /// Maps memory of the device, or of the descriptor that it exported.
    pub(crate) fn mmap(
        &self,
        exported: Option<RawFd>,
        length: usize,
        offset: u64,
    ) -> io::Result<NonNull<u8>> {
        self.ops.mmap(exported.unwrap_or(self.fd), length, offset)
    }

    /// Which rules the device keeps.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.ops.dialect()
    }

    pub(crate) fn sync_for_device(&self, fd: RawFd, plane: usize) {
        self.ops.sync_for_device(fd, plane);
    }

    /// Keeps a descriptor open until after the device is closed.
    pub(crate) fn keep(&self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(fd);
        number
    }

    /// The way to the device.
    pub(crate) fn ops(&self) -> &Arc<dyn V4l2Ops> {
        &self.ops
    }

    pub(crate) fn adopt(&self, fd: RawFd) -> OwnedFd {
        self.ops.adopt(fd)
    }

    /// Waits until the device is ready, `waker` is woken, or the time is up.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn wait(&self, interest: Interest, waker: &Waker, timeout: Duration) -> io::Result<Ready> {
        self.ops.wait(self.fd, interest, waker, timeout)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ops.close(self.fd);
    }
}
