// SPDX-License-Identifier: MPL-2.0

//! Counts allocations of the whole process, C libraries' too: the program's functions come before those of libc.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static COUNT: AtomicU64 = AtomicU64::new(0);

// glibc's own names for its functions.
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: what the caller asks for.
    unsafe { __libc_malloc(size) }
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: what the caller asks for.
    unsafe { __libc_calloc(count, size) }
}

#[unsafe(no_mangle)]
extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: what the caller asks for.
    unsafe { __libc_realloc(old, size) }
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: what the caller asks for.
    unsafe { __libc_memalign(alignment, size) }
}

#[unsafe(no_mangle)]
extern "C" fn posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    const ENOMEM: c_int = 12;
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: what the caller asks for; `out` is the caller's.
    unsafe {
        let memory = __libc_memalign(alignment, size);
        if memory.is_null() {
            return ENOMEM;
        }
        out.write(memory);
    }
    0
}

/// Allocations until now.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Rust's and GLib's allocations are seen.
pub fn check() {
    let before = count();
    drop(std::hint::black_box(Box::new(1_u8)));
    let rust = count();
    drop(std::hint::black_box(gst::glib::GString::from("a text too long to be kept in place".repeat(3))));
    drop(std::hint::black_box(gst::Structure::new_empty("a")));
    assert!(rust > before && count() > rust, "allocations are not seen: the linker did not export malloc");
}
