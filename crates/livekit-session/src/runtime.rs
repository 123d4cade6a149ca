// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one runtime that all sessions of a process share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Error;

static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

/// Threads that look up host names and read certificates, for all sessions. Few, however many sessions start at once;
/// more than one, because one that finds no name server is busy for long.
const MAX_HELPERS: usize = 3;
/// How long a helper waits for more to do.
const HELPER_IDLE: Duration = Duration::from_secs(1);

/// The shared runtime, started by the first session: one thread for all networking. It lives as long as
/// the process; an idle one costs a sleeping thread.
pub(crate) fn handle() -> Result<Handle, Error> {
    let mut slot = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = slot.as_ref() {
        return Ok(handle.clone());
    }
    let failed = |e: std::io::Error| Error::Internal(format!("cannot start the networking thread: {e}"));
    // Not a multi-threaded one with one worker: that wakes itself up once more after every timer.
    let runtime = Builder::new_current_thread()
        .max_blocking_threads(MAX_HELPERS)
        .thread_keep_alive(HELPER_IDLE)
        .thread_name("livekit-helper")
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("livekit-session".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .map_err(failed)?;
    *slot = Some(handle.clone());
    Ok(handle)
}

/// Runs what may block for as long as it likes on a thread of its own: the application's code, or a file on a network
/// share. The receiver fails when it panics, or when there is no thread to be had.
pub(crate) fn run_apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, answer) = oneshot::channel();
    let work = move || {
        // Nobody may wait any more.
        let _ = done.send(work());
    };
    // A thread that can't be started drops `done`, and that is the answer.
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    answer
}
