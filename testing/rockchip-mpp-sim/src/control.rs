// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a test asks of the simulator, beside MPP's own functions: `mpp_sim_configure`, `mpp_sim_count`,
//! `mpp_sim_message`.

use crate::abi::{copy_to, text};
use crate::registry::lock;
use crate::{buffer, cfg, context, frame, meta, options, packet, refcfg};
use std::ffi::c_char;
use std::fmt::Arguments;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Things that happened, since the library was loaded.
pub struct Counters {
    /// Calls that no correct program makes.
    pub misuse: AtomicI64,
    /// Objects that were still held when their context was destroyed or their group was put.
    pub leaked: AtomicI64,
    /// Frames encoded.
    pub encoded: AtomicI64,
    /// Frames decoded.
    pub decoded: AtomicI64,
    /// Threads running.
    pub threads: AtomicI64,
    /// Buffers allocated anew by internal groups.
    pub allocated: AtomicI64,
    /// Bytes that the caller's CPU moved by `mpp_buffer_write`, `mpp_packet_write` and packets that are copied.
    pub copied: AtomicI64,
    /// Cache synchronisations.
    pub synced: AtomicI64,
    /// Most frames that the cores of an encoder worked on at a time, since the options were taken back.
    pub side_by_side: AtomicI64,
}

/// The counters.
pub static COUNTERS: Counters = Counters {
    misuse: AtomicI64::new(0),
    leaked: AtomicI64::new(0),
    encoded: AtomicI64::new(0),
    decoded: AtomicI64::new(0),
    threads: AtomicI64::new(0),
    allocated: AtomicI64::new(0),
    copied: AtomicI64::new(0),
    synced: AtomicI64::new(0),
    side_by_side: AtomicI64::new(0),
};

static MESSAGE: Mutex<String> = Mutex::new(String::new());

/// Logs a line, as the real library does to syslog.
pub fn say(message: Arguments) {
    let _ = writeln!(std::io::stderr(), "mpp-sim: {message}");
}

/// As `say`, if messages are wanted.
pub fn log(message: Arguments) {
    if options::wants_log() {
        say(message);
    }
}

/// Notes a call that no correct program makes.
pub fn misuse(message: Arguments) {
    COUNTERS.misuse.fetch_add(1, Relaxed);
    *lock(&MESSAGE) = message.to_string();
    log(message);
}

/// Notes objects that were left behind.
pub fn leaked(count: usize, message: Arguments) {
    if count > 0 {
        COUNTERS.leaked.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Relaxed);
        *lock(&MESSAGE) = message.to_string();
        log(message);
    }
}

/// Puts options in force: `key=value` pairs as in the environment variable `MPP_SIM`. 0, or −1 if something was not
/// understood.
#[unsafe(no_mangle)]
pub extern "C" fn mpp_sim_configure(pairs: *const c_char) -> i32 {
    match text(pairs).map(|t| options::configure(&t)) {
        Some(Ok(())) => 0,
        Some(Err(pair)) => {
            say(format_args!("{pair} is not understood"));
            -1
        }
        None => -1,
    }
}

/// A number by its name: living objects (`contexts frames packets buffers groups metas enc_cfgs dec_cfgs ref_cfgs`),
/// `bytes` that internal groups hold, or one of the counters. −1 for an unknown name.
#[unsafe(no_mangle)]
pub extern "C" fn mpp_sim_count(name: *const c_char) -> i64 {
    let living = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    match text(name).as_deref() {
        Some("contexts") => living(context::CONTEXTS.len()),
        Some("frames") => living(frame::FRAMES.len()),
        Some("packets") => living(packet::PACKETS.len()),
        Some("buffers") => living(buffer::BUFFERS.len()),
        Some("groups") => living(buffer::GROUPS.len()),
        Some("metas") => living(meta::METAS.len()),
        Some("enc_cfgs") => living(cfg::ENC_CFGS.len()),
        Some("dec_cfgs") => living(cfg::DEC_CFGS.len()),
        Some("ref_cfgs") => living(refcfg::REF_CFGS.len()),
        Some("bytes") => living(buffer::allocated_bytes()),
        Some("misuse") => COUNTERS.misuse.load(Relaxed),
        Some("leaked") => COUNTERS.leaked.load(Relaxed),
        Some("encoded") => COUNTERS.encoded.load(Relaxed),
        Some("decoded") => COUNTERS.decoded.load(Relaxed),
        Some("threads") => COUNTERS.threads.load(Relaxed),
        Some("allocated") => COUNTERS.allocated.load(Relaxed),
        Some("copied") => COUNTERS.copied.load(Relaxed),
        Some("synced") => COUNTERS.synced.load(Relaxed),
        Some("side-by-side") => COUNTERS.side_by_side.load(Relaxed),
        _ => -1,
    }
}

/// The last misuse or leak in words; returns its length, writes at most `size` bytes with a zero at the end.
#[unsafe(no_mangle)]
pub extern "C" fn mpp_sim_message(to: *mut c_char, size: usize) -> usize {
    let message = lock(&MESSAGE);
    let part = message.as_bytes().get(..size.saturating_sub(1)).unwrap_or(message.as_bytes());
    if size > 0 {
        copy_to(to.cast(), part);
        copy_to(to.wrapping_add(part.len()).cast(), &[0]);
    }
    message.len()
}
