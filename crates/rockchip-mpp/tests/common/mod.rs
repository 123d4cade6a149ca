// SPDX-License-Identifier: MIT OR Apache-2.0

//! The simulator, for one test at a time.
#![allow(dead_code)] // Each test program uses a part of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rockchip_mpp::Mpp;

const OBJECTS: [&str; 8] =
    ["contexts", "frames", "packets", "buffers", "groups", "enc_cfgs", "dec_cfgs", "ref_cfgs"];

/// The simulator, for one test at a time.
pub struct Simulator {
    library: libloading::Library,
    /// As it was: the test of a device that hangs leaves things behind.
    before: Vec<i64>,
    pub misuse: i64,
    _one: MutexGuard<'static, ()>,
}

impl Simulator {
    pub fn new(options: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the simulator's constructors do nothing.
        let library = unsafe { libloading::Library::new(rockchip_mpp_sim::library().unwrap()) }.unwrap();
        let mut simulator = Self { library, before: Vec::new(), misuse: 0, _one: one };
        simulator.configure("default");
        simulator.configure(options);
        simulator.misuse = simulator.count("misuse");
        simulator.before = OBJECTS.map(|name| simulator.count(name)).to_vec();
        simulator
    }

    pub fn configure(&self, options: &str) {
        let options = CString::new(options).unwrap();
        // SAFETY: this is the function's signature.
        let code = unsafe {
            self.library.get::<unsafe extern "C" fn(*const c_char) -> i32>(b"mpp_sim_configure").unwrap()(
                options.as_ptr(),
            )
        };
        assert_eq!(code, 0, "{options:?}");
    }

    pub fn count(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: this is the function's signature.
        unsafe {
            self.library.get::<unsafe extern "C" fn(*const c_char) -> i64>(b"mpp_sim_count").unwrap()(
                name.as_ptr(),
            )
        }
    }

    pub fn assert_clean(&self) {
        assert_eq!(OBJECTS.map(|name| self.count(name)).to_vec(), self.before, "{OBJECTS:?}");
        assert_eq!(self.count("misuse"), self.misuse);
    }
}

pub fn mpp() -> Mpp {
    Mpp::load(Some(rockchip_mpp_sim::library().unwrap().as_os_str())).unwrap()
}
