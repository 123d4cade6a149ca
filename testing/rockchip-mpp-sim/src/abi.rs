// SPDX-License-Identifier: MIT OR Apache-2.0

//! What crosses the C ABI: handles that are numbers, never dereferenced, and pointers of the caller.
//!
//! The functions here are not `unsafe` to their callers, all in this crate: what they need is what the C ABI
//! demands of the application, and nobody here could check it. NULL is always checked.

use std::ffi::{CStr, c_char};

/// Defines functions of the C ABI and compares their types with those of `rockchip-mpp-sys`.
macro_rules! export {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $ty),*) $(-> $ret)? $body
        const _: rockchip_mpp_sys::signatures::$name = $name;
    )*};
}
pub(crate) use export;

/// Number of an object; 0 is NULL.
pub type Id = usize;

/// The number behind a handle.
pub fn id<H>(handle: *mut H) -> Id {
    handle.addr()
}

/// The handle of a number.
pub fn handle<H>(id: Id) -> *mut H {
    std::ptr::without_provenance_mut(id)
}

/// Writes to where the caller said; false for NULL.
pub fn store<T>(to: *mut T, value: T) -> bool {
    if to.is_null() {
        return false;
    }
    // SAFETY: not NULL; by the ABI the caller's pointer is one to a variable of this type, aligned or not.
    unsafe { to.write_unaligned(value) };
    true
}

/// Reads from where the caller said.
pub fn load<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: not NULL; by the ABI the caller's pointer is one to a variable of this type, aligned or not.
    (!from.is_null()).then(|| unsafe { from.read_unaligned() })
}

/// The caller's memory.
pub fn bytes<'a>(from: *const u8, length: usize) -> &'a [u8] {
    if from.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: not NULL; by the ABI so many bytes are there, until the call returns.
    unsafe { std::slice::from_raw_parts(from, length) }
}

/// Copies into the caller's memory.
pub fn copy_to(to: *mut u8, from: &[u8]) {
    if !to.is_null() && !from.is_empty() {
        // SAFETY: not NULL; by the ABI so many bytes are there. The memory may be the same as `from`.
        unsafe { std::ptr::copy(from.as_ptr(), to, from.len()) };
    }
}

/// The caller's text.
pub fn text(from: *const c_char) -> Option<String> {
    if from.is_null() {
        return None;
    }
    // SAFETY: not NULL; by the ABI a zero byte ends it.
    Some(unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned())
}
