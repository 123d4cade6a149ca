// SPDX-License-Identifier: MIT OR Apache-2.0

//! NVIDIA's V4L2 library of Jetson boards, found at run time. Its encoder's node is no V4L2 device of the kernel's but a
//! twin of /dev/null: only this library makes an encoder of it.

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libloading::os::unix::Library;

use super::{Dialect, Interest, Ready, SystemCalls, V4l2Ops, Waker};

/// Environment variable that names the V4L2 library.
pub const LIBRARY_VARIABLE: &str = "JETSON_V4L2_LIBRARY";
/// Environment variable that names the buffer library.
pub const SURFACE_VARIABLE: &str = "JETSON_NVBUFSURFACE_LIBRARY";
/// Environment variable that names the encoder's node.
pub const DEVICE_VARIABLE: &str = "JETSON_V4L2_DEVICE";

/// The encoder's node: from Jetson Linux R36 on, and up to R35.
pub const NODES: [&str; 2] = ["/dev/v4l2-nvenc", "/dev/nvhost-msenc"];

/// The folder is called `nvidia` since R34, `tegra` before. By name only last: Debian's own `libv4l2.so.0` is another
/// library, which on Jetson images is replaced by a link.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/aarch64-linux-gnu/nvidia/libnvv4l2.so",
    "/usr/lib/aarch64-linux-gnu/tegra/libnvv4l2.so",
    "libnvv4l2.so",
    "libv4l2.so.0",
];
const SURFACE_LIBRARIES: [&str; 3] = [
    "/usr/lib/aarch64-linux-gnu/nvidia/libnvbufsurface.so",
    "/usr/lib/aarch64-linux-gnu/tegra/libnvbufsurface.so",
    "libnvbufsurface.so",
];

/// The device has no descriptor that could be waited for, so it is asked this often while it has pictures that may be done.
const STEP: Duration = Duration::from_micros(500);

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int;
type FromFd = unsafe extern "C" fn(c_int, *mut *mut c_void) -> c_int;
type Sync = unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int;

/// The files that were tried, and why each was not it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(path, reason)| format!("{}: {reason}", path.display())).collect::<Vec<_>>().join("; "))]
pub struct LoadError(pub Vec<(PathBuf, String)>);

#[derive(Clone, Copy, Debug)]
struct Functions {
    open: Open,
    close: Close,
    ioctl: Ioctl,
    surface: Option<Surface>,
}

#[derive(Clone, Copy, Debug)]
struct Surface {
    from_fd: FromFd,
    sync_for_device: Sync,
}

/// The library. Loaded once for each file, and never closed: its threads' data outlive it.
#[derive(Clone, Debug)]
pub struct NvidiaLibrary {
    path: PathBuf,
    functions: Functions,
}

/// What was loaded, and one at a time.
static LOADED: Mutex<Vec<NvidiaLibrary>> = Mutex::new(Vec::new());
/// NVIDIA's library must not open two devices at once.
static OPEN: Mutex<()> = Mutex::new(());

/// What the dynamic linker said; `libloading` has it only as the source of its own error.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Surface {
    fn of(library: &Library) -> Option<Self> {
        // SAFETY: the functions have these signatures in every release.
        unsafe {
            Some(Self {
                from_fd: *library.get(b"NvBufSurfaceFromFd").ok()?,
                sync_for_device: *library.get(b"NvBufSurfaceSyncForDevice").ok()?,
            })
        }
    }

    fn find(v4l2: &Library) -> Option<Self> {
        let named = variable(SURFACE_VARIABLE);
        if named.is_none()
            && let Some(surface) = Self::of(v4l2)
        {
            return Some(surface);
        }
        let names: Vec<PathBuf> =
            named.map_or_else(|| SURFACE_LIBRARIES.iter().map(PathBuf::from).collect(), |path| vec![path]);
        names.iter().find_map(|name| {
            // SAFETY: a library of the board's, which applications load the same way.
            let library = unsafe { Library::new(name) }.ok()?;
            let surface = Self::of(&library);
            std::mem::forget(library);
            surface
        })
    }
}

impl NvidiaLibrary {
    /// Loads the library: the file `path`, else the one that the environment names ([`LIBRARY_VARIABLE`]), else from
    /// where Jetson Linux has it.
    ///
    /// # Errors
    /// The files that were tried, and why each was refused.
    pub fn load(path: Option<&Path>) -> Result<Self, LoadError> {
        let named = path.map(Path::to_owned).or_else(|| variable(LIBRARY_VARIABLE));
        let names: Vec<PathBuf> =
            named.map_or_else(|| LIBRARIES.iter().map(PathBuf::from).collect(), |path| vec![path]);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = Vec::new();
        for name in names {
            if let Some(library) = loaded.iter().find(|library| library.path == name) {
                return Ok(library.clone());
            }
            match Self::load_file(&name) {
                Ok(library) => {
                    loaded.push(library.clone());
                    return Ok(library);
                }
                Err(reason) => tried.push((name, reason)),
            }
        }
        Err(LoadError(tried))
    }

    fn load_file(name: &Path) -> Result<Self, String> {
        // SAFETY: a library of the board's, which applications load the same way.
        let library = unsafe { Library::new(name) }.map_err(|error| reason(&error))?;
        // SAFETY: the functions have these signatures in every release, as in the V4L utilities' own library.
        let functions = unsafe {
            Functions {
                open: *library.get(b"v4l2_open").map_err(|error| reason(&error))?,
                close: *library.get(b"v4l2_close").map_err(|error| reason(&error))?,
                ioctl: *library.get(b"v4l2_ioctl").map_err(|error| reason(&error))?,
                surface: Surface::find(&library),
            }
        };
        std::mem::forget(library);
        Ok(Self { path: name.to_owned(), functions })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether NVIDIA's buffer library was found. Without it, caches are not told of what the processor wrote.
    #[must_use]
    pub fn has_surfaces(&self) -> bool {
        self.functions.surface.is_some()
    }
}

/// How long to sleep before the device is asked, at most.
fn step(interest: Interest, timeout: Duration) -> Duration {
    if interest.capture || interest.output { timeout.min(STEP.max(interest.pause)) } else { timeout }
}

impl V4l2Ops for NvidiaLibrary {
    fn open(&self, path: &Path) -> io::Result<RawFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let _one = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a string with a terminating zero that lives through the call.
        let fd = unsafe { (self.functions.open)(path.as_ptr(), flags, 0) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
    }

    fn close(&self, fd: RawFd) {
        // SAFETY: the descriptor came from `open` and is closed once, by the handle that owns it.
        unsafe { (self.functions.close)(fd) };
    }

    unsafe fn ioctl(&self, fd: RawFd, request: c_ulong, argument: *mut c_void) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise about `argument`.
            if unsafe { (self.functions.ioctl)(fd, request, argument) } >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// `fd` is an exported descriptor, and mapped by the kernel.
    fn mmap(&self, fd: RawFd, length: usize, offset: u64) -> io::Result<NonNull<u8>> {
        SystemCalls.mmap(fd, length, offset)
    }

    unsafe fn munmap(&self, address: NonNull<u8>, length: usize) {
        // SAFETY: the caller's promise.
        unsafe { SystemCalls.munmap(address, length) };
    }

    /// poll(2) on this device always says "ready", and the library's own way of waiting never returns after the end of
    /// the stream. So the device is asked in short steps, but only while it has something to give.
    fn wait(&self, _fd: RawFd, interest: Interest, waker: &Waker, timeout: Duration) -> io::Result<Ready> {
        let woken = waker.wait(step(interest, timeout))?;
        Ok(match (woken, interest.capture || interest.output) {
            (true, _) => Ready::Woken,
            (false, true) => Ready::Device,
            (false, false) => Ready::TimedOut,
        })
    }

    fn dialect(&self) -> Dialect {
        Dialect::Nvidia
    }

    /// Only buffers of NVIDIA's own have the description that the library needs.
    fn can_import(&self, fd: RawFd) -> bool {
        let Some(surface) = self.functions.surface else { return false };
        let mut buffer = std::ptr::null_mut();
        // SAFETY: a place for a pointer that lives through the call.
        (unsafe { (surface.from_fd)(fd, &raw mut buffer) }) == 0 && !buffer.is_null()
    }

    fn sync_for_device(&self, fd: RawFd, plane: usize) {
        let Some(surface) = self.functions.surface else { return };
        let Ok(plane) = c_int::try_from(plane) else { return };
        let mut buffer = std::ptr::null_mut();
        // SAFETY: a place for a pointer that lives through the call, and then the pointer that the library gave for a
        // descriptor which the caller holds open.
        let done = unsafe {
            (surface.from_fd)(fd, &raw mut buffer) == 0
                && !buffer.is_null()
                && (surface.sync_for_device)(buffer, 0, plane) == 0
        };
        if !done {
            tracing::debug!(fd, plane, "a buffer's cache cannot be written back");
        }
    }

    fn adopt(&self, fd: RawFd) -> OwnedFd {
        // SAFETY: the device has just made this descriptor for the caller.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn nodes(&self) -> Vec<PathBuf> {
        variable(DEVICE_VARIABLE).map_or_else(|| NODES.iter().map(PathBuf::from).collect(), |path| vec![path])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_asked_often_but_only_when_something_may_be_done() {
        let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let with = |capture, pause| Interest { capture, output: false, pause };
        assert_eq!(step(with(true, Duration::ZERO), second), STEP);
        assert_eq!(step(with(true, 15 * ms), second), 15 * ms);
        assert_eq!(step(with(true, 15 * ms), 2 * ms), 2 * ms);
        assert_eq!(step(with(false, Duration::ZERO), second), second);
    }

    #[test]
    fn what_was_tried_is_told() {
        let error = NvidiaLibrary::load(Some(Path::new("/nonexistent/libnvv4l2.so"))).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/libnvv4l2.so: "), "{error}");
        // A library, but none of V4L2.
        let error = NvidiaLibrary::load(Some(Path::new("libc.so.6"))).unwrap_err();
        assert!(error.to_string().contains("v4l2_open"), "{error}");
    }
}
