// SPDX-License-Identifier: MIT OR Apache-2.0

//! `NvBufSurface`: how NVIDIA's elements and libraries describe a picture in memory of the hardware.

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::RawFd;

/// The beginning of `NvBufSurface`, as in JetPack 5 and 6.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    gpu_id: u32,
    batch_size: u32,
    num_filled: u32,
    is_contiguous: u8,
    mem_type: i32,
    surface_list: *const Params,
    reserved: [*const c_void; 4],
}

/// The beginning of `NvBufSurfaceParams`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Params {
    width: u32,
    height: u32,
    pitch: u32,
    color_format: i32,
    layout: i32,
    buffer_desc: u64,
    data_size: u32,
}

/// Memory of Jetson's hardware (`NVBUF_MEM_SURFACE_ARRAY`), and what means the same there (`NVBUF_MEM_DEFAULT`).
const HARDWARE: [i32; 2] = [4, 0];

/// A picture in memory of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// Its descriptor; as long as its owner keeps it.
    pub fd: RawFd,
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes of the whole.
    pub size: u32,
}

/// Why memory is no such picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SurfaceError {
    /// The memory is too small to describe one.
    #[error("{0} bytes are no NvBufSurface")]
    TooSmall(usize),
    /// There is no picture in it.
    #[error("the NvBufSurface holds no picture")]
    Empty,
    /// It is memory of another kind, like that of a graphics card.
    #[error("the NvBufSurface has memory of kind {0}; the encoder takes that of Jetson's hardware (4)")]
    Memory(i32),
    /// Its descriptor is none.
    #[error("the NvBufSurface has no open descriptor")]
    Descriptor,
}

/// Reads what a buffer with `memory:NVMM` maps to. Of a batch the first picture.
///
/// # Errors
/// See [`SurfaceError`].
///
/// # Safety
/// If `bytes` are long enough, they are an `NvBufSurface`, whose list of surfaces is not freed meanwhile.
pub unsafe fn describe(bytes: &[u8]) -> Result<Surface, SurfaceError> {
    if bytes.len() < size_of::<Header>() {
        return Err(SurfaceError::TooSmall(bytes.len()));
    }
    // SAFETY: there are enough bytes, and any bits are a value of the structure.
    let header: Header = unsafe { bytes.as_ptr().cast::<Header>().read_unaligned() };
    if header.num_filled == 0 || header.surface_list.is_null() || !header.surface_list.is_aligned() {
        return Err(SurfaceError::Empty);
    }
    if !HARDWARE.contains(&header.mem_type) {
        return Err(SurfaceError::Memory(header.mem_type));
    }
    // SAFETY: the caller's promise; a surface that is filled has its parameters.
    let params: Params = unsafe { header.surface_list.read() };
    let fd = RawFd::try_from(params.buffer_desc).map_err(|_| SurfaceError::Descriptor)?;
    // SAFETY: no pointer is passed.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(SurfaceError::Descriptor);
    }
    Ok(Surface { fd, width: params.width, height: params.height, size: params.data_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(header: &Header) -> &[u8] {
        // SAFETY: the structure's own bytes; padding is never looked at.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(header).cast(), size_of::<Header>()) }
    }

    #[test]
    fn what_is_no_surface_is_refused() {
        let params = Params {
            width: 64,
            height: 32,
            pitch: 256,
            color_format: 6,
            layout: 0,
            buffer_desc: 0,
            data_size: 4096,
        };
        let good = Header {
            gpu_id: 0,
            batch_size: 1,
            num_filled: 1,
            is_contiguous: 1,
            mem_type: 4,
            surface_list: &raw const params,
            reserved: [std::ptr::null(); 4],
        };
        // SAFETY: they are such structures.
        let read = |header: &Header| unsafe { describe(bytes(header)) };
        assert_eq!(read(&good), Ok(Surface { fd: 0, width: 64, height: 32, size: 4096 }));
        assert_eq!(read(&Header { num_filled: 0, ..good }), Err(SurfaceError::Empty));
        assert_eq!(read(&Header { surface_list: std::ptr::null(), ..good }), Err(SurfaceError::Empty));
        assert_eq!(read(&Header { mem_type: 2, ..good }), Err(SurfaceError::Memory(2)));
        for number in [1 << 40, 999_999] {
            let params = Params { buffer_desc: number, ..params };
            let bad = Header { surface_list: &raw const params, ..good };
            assert_eq!(read(&bad), Err(SurfaceError::Descriptor), "{number}");
        }
        // SAFETY: too few bytes.
        assert_eq!(unsafe { describe(&[0; 8]) }, Err(SurfaceError::TooSmall(8)));
    }
}
