// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the encoder takes: a memfd for each buffer, described by an `NvBufSurface` (layout: reference §2.7), and the
//! table by file descriptor number that NVIDIA's libraries keep (§2.6).

use crate::format::{Layout, Raw};
use std::collections::HashMap;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Locks; what a thread that failed has left is used as it is.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The errno of the last call.
pub fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// A memfd and this library's own mapping of it.
#[derive(Debug)]
pub struct Memory {
    fd: OwnedFd,
    address: NonNull<u8>,
    length: usize,
    inode: u64,
}

// SAFETY: the mapping belongs to this object and is reached through its methods only, which copy.
unsafe impl Send for Memory {}
// SAFETY: as above. Bytes may change while they are copied, by other mappings too, as with real hardware; they are plain
// bytes that are never referenced.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeroed memory.
    ///
    /// # Errors
    /// The errno of what failed.
    pub fn new(length: usize) -> Result<Self, i32> {
        let length = length.max(1);
        let size = libc::off_t::try_from(length).map_err(|_| libc::ENOMEM)?;
        // SAFETY: a string with a terminating zero.
        let fd = unsafe { libc::memfd_create(c"nv-v4l2-sim".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: no pointer is passed.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } < 0 {
            return Err(last_errno());
        }
        let inode = inode(fd.as_raw_fd()).ok_or(libc::EIO)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no other mapping is touched.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let address = NonNull::new(address.cast()).ok_or(libc::ENOMEM)?;
        Ok(Self { fd, address, length, inode })
    }

    /// Another descriptor of the same memory.
    ///
    /// # Errors
    /// The errno of `fcntl(2)`.
    pub fn export(&self, close_on_exec: bool) -> Result<RawFd, i32> {
        let command = if close_on_exec { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::fcntl(self.fd.as_raw_fd(), command, 0) };
        if fd < 0 { Err(last_errno()) } else { Ok(fd) }
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// A copy of what is there now.
    pub fn read(&self) -> Vec<u8> {
        let mut copy = vec![0_u8; self.length];
        // SAFETY: the mapping has `length` bytes, as has the copy.
        unsafe { std::ptr::copy_nonoverlapping(self.address.as_ptr(), copy.as_mut_ptr(), self.length) };
        copy
    }

    /// Writes from the beginning, as much as there is room for; how much that was.
    pub fn write(&self, data: &[u8]) -> usize {
        let length = data.len().min(self.length);
        // SAFETY: both have at least `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.address.as_ptr(), length) };
        length
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and nobody else has the address.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// What an open descriptor stands for.
pub fn inode(fd: RawFd) -> Option<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a structure that lives through the call.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } < 0 {
        return None;
    }
    // SAFETY: zero bytes are a value of it, and the call has filled it in.
    Some(unsafe { stat.assume_init() }.st_ino)
}

/// `NvBufSurface`. Fields as NVIDIA's header has them.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs)]
pub struct NvBufSurface {
    pub gpu_id: u32,
    pub batch_size: u32,
    pub num_filled: u32,
    pub is_contiguous: bool,
    pub mem_type: i32,
    pub surface_list: *mut NvBufSurfaceParams,
    pub reserved: [*mut c_void; 4],
}

/// `NvBufSurfacePlaneParams`.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs)]
pub struct NvBufSurfacePlaneParams {
    pub num_planes: u32,
    pub width: [u32; 4],
    pub height: [u32; 4],
    pub pitch: [u32; 4],
    pub offset: [u32; 4],
    pub psize: [u32; 4],
    pub bytes_per_pix: [u32; 4],
    pub reserved: [*mut c_void; 16],
}

/// `NvBufSurfaceParams`.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs)]
pub struct NvBufSurfaceParams {
    pub width: u32,
    pub height: u32,
    pub pitch: u32,
    pub color_format: i32,
    pub layout: i32,
    pub buffer_desc: u64,
    pub data_size: u32,
    pub data_ptr: *mut c_void,
    pub plane_params: NvBufSurfacePlaneParams,
    pub mapped_addr: [*mut c_void; 4],
    pub egl_image: *mut c_void,
    pub mapped_reserved: [*mut c_void; 4],
    pub reserved: [*mut c_void; 4],
}

/// The kind of memory that Jetson's hardware takes (`NVBUF_MEM_SURFACE_ARRAY`).
const SURFACE_ARRAY: i32 = 4;

/// Memory with its description.
#[derive(Debug)]
pub struct Surface {
    /// The bytes.
    pub memory: Memory,
    /// How a picture lies there.
    pub layout: Layout,
    header: Box<NvBufSurface>,
    /// Planes whose caches were written back; a bit for each.
    synced: AtomicU32,
    // Pointed to by the header.
    _params: Box<NvBufSurfaceParams>,
}

// SAFETY: the pointers of the description lead to the boxed parameters of the same object; nothing here changes them.
unsafe impl Send for Surface {}
// SAFETY: as above.
unsafe impl Sync for Surface {}

impl Surface {
    /// Memory for one picture, known to the table from now on.
    ///
    /// # Errors
    /// The errno of what failed.
    pub fn new(layout: Layout, block_linear: bool) -> Result<Arc<Self>, i32> {
        let memory = Memory::new(layout.size)?;
        let number = |v: usize| u32::try_from(v).unwrap_or(0);
        let mut planes = NvBufSurfacePlaneParams {
            num_planes: number(layout.planes.len()),
            width: [0; 4],
            height: [0; 4],
            pitch: [0; 4],
            offset: [0; 4],
            psize: [0; 4],
            bytes_per_pix: [0; 4],
            reserved: [std::ptr::null_mut(); 16],
        };
        let sample = if layout.raw == Raw::P010 { 2 } else { 1 };
        let both = if layout.raw == Raw::Yuv420 { 1 } else { 2 };
        for (index, plane) in layout.planes.iter().enumerate().take(4) {
            let bytes = if index == 0 { sample } else { sample * both };
            let set = |to: &mut [u32; 4], value: usize| {
                if let Some(to) = to.get_mut(index) {
                    *to = number(value);
                }
            };
            set(&mut planes.width, plane.row / bytes);
            set(&mut planes.height, plane.rows);
            set(&mut planes.pitch, plane.pitch);
            set(&mut planes.offset, plane.at);
            set(&mut planes.psize, plane.size);
            set(&mut planes.bytes_per_pix, bytes);
        }
        let mut params = Box::new(NvBufSurfaceParams {
            width: layout.width,
            height: layout.height,
            pitch: layout.planes.first().map_or(0, |plane| number(plane.pitch)),
            // NVBUF_COLOR_FORMAT_YUV420, _NV12; the one of 10 bits is not known here.
            color_format: match layout.raw {
                Raw::Yuv420 => 2,
                Raw::Nv12 => 6,
                Raw::P010 => 0,
            },
            layout: i32::from(block_linear),
            buffer_desc: u64::try_from(memory.fd.as_raw_fd()).unwrap_or(0),
            data_size: number(layout.size),
            data_ptr: std::ptr::null_mut(),
            plane_params: planes,
            mapped_addr: [std::ptr::null_mut(); 4],
            egl_image: std::ptr::null_mut(),
            mapped_reserved: [std::ptr::null_mut(); 4],
            reserved: [std::ptr::null_mut(); 4],
        });
        let header = Box::new(NvBufSurface {
            gpu_id: 0,
            batch_size: 1,
            num_filled: 1,
            is_contiguous: true,
            mem_type: SURFACE_ARRAY,
            surface_list: &raw mut *params,
            reserved: [std::ptr::null_mut(); 4],
        });
        let surface = Arc::new(Self { memory, layout, header, synced: AtomicU32::new(0), _params: params });
        lock(&TABLE).by_inode.insert(surface.memory.inode, Arc::clone(&surface));
        Ok(surface)
    }

    /// The description; as stable as the surface.
    pub fn header(&self) -> *mut NvBufSurface {
        (&raw const *self.header).cast_mut()
    }

    /// A cache was written back; −1: of all planes.
    pub fn sync(&self, plane: i32) {
        let bits = u32::try_from(plane).map_or(u32::MAX, |plane| 1 << plane.min(31));
        self.synced.fetch_or(bits, Ordering::Relaxed);
    }

    /// Whether the caches of all planes were written back since the last call.
    pub fn take_synced(&self) -> bool {
        let all = (1 << self.layout.planes.len().min(31)) - 1;
        self.synced.swap(0, Ordering::Relaxed) & all == all
    }

    /// What its descriptors stand for.
    pub const fn inode(&self) -> u64 {
        self.memory.inode
    }
}

/// Why a descriptor is not a surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No surface: a file, a heap's DMABuf, a closed descriptor.
    Foreign,
    /// The number belonged to a surface, was closed, and is something else now: the tables still have the old one.
    Recycled,
}

#[derive(Default)]
struct Table {
    by_inode: HashMap<u64, Arc<Surface>>,
    by_fd: HashMap<RawFd, u64>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// The surface of a descriptor. The number is remembered.
///
/// # Errors
/// See [`Unknown`].
pub fn lookup(fd: RawFd) -> Result<Arc<Surface>, Unknown> {
    let mut table = lock(&TABLE);
    let now = inode(fd);
    if let Some(old) = table.by_fd.get(&fd)
        && Some(*old) != now
    {
        return Err(Unknown::Recycled);
    }
    let surface = now.and_then(|now| table.by_inode.get(&now)).cloned().ok_or(Unknown::Foreign)?;
    table.by_fd.insert(fd, surface.inode());
    Ok(surface)
}

/// Remembers an exported number.
///
/// # Errors
/// If the table has that number for other memory.
pub fn remember(fd: RawFd, inode: u64) -> Result<(), Unknown> {
    match lock(&TABLE).by_fd.insert(fd, inode) {
        Some(old) if old != inode => Err(Unknown::Recycled),
        _ => Ok(()),
    }
}

/// Forgets memory, but not its numbers: those stay until the device is closed.
pub fn retire(inode: u64) {
    lock(&TABLE).by_inode.remove(&inode);
}

/// Forgets memory and all its numbers.
pub fn forget(inode: u64) {
    let mut table = lock(&TABLE);
    table.by_inode.remove(&inode);
    table.by_fd.retain(|_, of| *of != inode);
}

/// The surface that a description belongs to.
pub fn by_header(header: *const NvBufSurface) -> Option<Arc<Surface>> {
    let table = lock(&TABLE);
    table.by_inode.values().find(|surface| std::ptr::eq(surface.header(), header)).cloned()
}
