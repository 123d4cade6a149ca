// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one runtime that all sessions of a process share.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::Error;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The shared runtime, started by the first session: one thread for all networking. It lives as long as
/// the process; an idle one costs a sleeping thread.
pub(crate) fn handle() -> Result<Handle, Error> {
    let mut slot = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = slot.as_ref() {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(32)
        .thread_name("livekit-session")
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| Error::Internal(format!("cannot start the networking thread: {e}")))?;
    let handle = runtime.handle().clone();
    *slot = Some(runtime);
    Ok(handle)
}
