// SPDX-License-Identifier: MPL-2.0

//! Memory of the hardware's, as the stand-in has it.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use gst_allocators::prelude::*;
use nv_v4l2_sim::format::Raw;
use sim_codec::Picture;

use super::library;
use crate::common::init;

/// A surface of the stand-in's, as a camera would hand it on.
pub struct Surface {
    address: usize,
    fd: RawFd,
    raw: Raw,
    size: (u32, u32),
    /// The same memory as GStreamer has DMABufs.
    dmabuf: gst::Memory,
}

impl Surface {
    pub fn new(raw: Raw, width: u32, height: u32) -> Self {
        type New = unsafe extern "C" fn(u32, u32, u32, i32) -> *mut u8;
        // SAFETY: the function's signature.
        let address =
            unsafe { library().get::<New>(b"nv_v4l2_sim_surface").unwrap()(width, height, raw.pixels(), 0) };
        assert!(!address.is_null());
        // SAFETY: the surface lives until it is dropped here.
        let surface =
            unsafe { v4l2_m2m::surface::describe(std::slice::from_raw_parts(address, 64)) }.unwrap();
        // SAFETY: the surface has it open.
        let fd = unsafe { BorrowedFd::borrow_raw(surface.fd) }.try_clone_to_owned().unwrap();
        let dmabuf = dmabuf(fd, raw.layout(width, height).size);
        Self { address: address as usize, fd: surface.fd, raw, size: (width, height), dmabuf }
    }

    pub fn draw(&self, picture: &Picture) {
        let layout = self.raw.layout(self.size.0, self.size.1);
        let mut memory = vec![0; layout.size];
        layout.write(picture, &mut memory);
        // SAFETY: the surface has it open.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) }.try_clone_to_owned().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&std::fs::File::from(fd), &memory, 0).unwrap();
    }

    /// What NVIDIA's elements hand on: a buffer that maps to the description.
    pub fn nvmm(&self) -> gst::Buffer {
        // SAFETY: the surface lives, and has so many bytes.
        let header = unsafe { std::slice::from_raw_parts(self.address as *const u8, 64) };
        gst::Buffer::from_slice(header.to_vec())
    }

    pub fn shared(&self) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(self.dmabuf.clone());
        buffer
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        type Free = unsafe extern "C" fn(*mut u8);
        // SAFETY: the function's signature, and a surface that nobody uses any more.
        unsafe { library().get::<Free>(b"nv_v4l2_sim_surface_free").unwrap()(self.address as *mut u8) };
    }
}

pub fn dmabuf(fd: OwnedFd, size: usize) -> gst::Memory {
    init();
    let allocator = gst_allocators::DmaBufAllocator::new();
    // SAFETY: the descriptor is the allocator's from now on.
    unsafe { allocator.alloc_dmabuf(fd, size) }.unwrap()
}
