// SPDX-License-Identifier: MIT OR Apache-2.0

//! The real library's SONAME, so that it is found by that name in a folder of LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librockchip_mpp.so.1");
}
