// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's own devices.

use std::ffi::{CString, c_ulong, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use super::{Interest, Ready, V4l2Ops, Waker};

/// System calls of the C library.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemCalls;

impl V4l2Ops for SystemCalls {
    fn open(&self, path: &Path) -> io::Result<RawFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a string with a terminating zero that lives through the call.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
    }

    fn close(&self, fd: RawFd) {
        // SAFETY: the descriptor came from `open` and is closed once, by the handle that owns it.
        unsafe { libc::close(fd) };
    }

    unsafe fn ioctl(&self, fd: RawFd, request: c_ulong, argument: *mut c_void) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise about `argument`. The request's type differs between C libraries.
            if unsafe { libc::ioctl(fd, request as _, argument) } != -1 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn mmap(&self, fd: RawFd, length: usize, offset: u64) -> io::Result<NonNull<u8>> {
        let offset =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no other mapping is touched.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }

    unsafe fn munmap(&self, address: NonNull<u8>, length: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(address.as_ptr().cast(), length) };
    }

    fn wait(&self, fd: RawFd, interest: Interest, waker: &Waker, timeout: Duration) -> io::Result<Ready> {
        let mut events = libc::POLLPRI;
        if interest.capture {
            events |= libc::POLLIN;
        }
        if interest.output {
            events |= libc::POLLOUT;
        }
        // Without buffers in the device poll(2) would answer POLLERR at once, again and again.
        let device = if interest.capture || interest.output { fd } else { -1 };
        let mut fds = [
            libc::pollfd { fd: device, events, revents: 0 },
            libc::pollfd { fd: waker.fd(), events: libc::POLLIN, revents: 0 },
        ];
        let timeout = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // SAFETY: two structures that live through the call.
        let count = unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(Ready::Woken) } else { Err(error) };
        }
        let [device, woken] = fds;
        if woken.revents != 0 {
            waker.clear();
        }
        Ok(match (device.revents, woken.revents) {
            (0, 0) => Ready::TimedOut,
            (0, _) => Ready::Woken,
            _ => Ready::Device,
        })
    }

    fn adopt(&self, fd: RawFd) -> OwnedFd {
        // SAFETY: the device has just made this descriptor for the caller.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn nodes(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
        let mut nodes: Vec<(u32, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        nodes.sort();
        nodes.into_iter().map(|(_, path)| path).collect()
    }

    fn name(&self, path: &Path) -> Option<String> {
        let path = std::fs::canonicalize(path).ok()?;
        let name = Path::new("/sys/class/video4linux").join(path.file_name()?).join("name");
        Some(std::fs::read_to_string(name).ok()?.trim_end().to_owned())
    }
}
