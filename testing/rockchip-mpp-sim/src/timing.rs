// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time-outs as the library has them.

use crate::cfg::timeout;
use crate::options::Release;
use std::ffi::c_void;
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at something that nobody tells of.
pub const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until there is something.
    Forever,
    /// Not at all.
    No,
    /// So long.
    For(Duration),
    /// Until then.
    Until(Instant),
}

impl Wait {
    /// The argument of the time-out commands: −1 for ever, 0 not at all, else milliseconds up to 8000.
    pub fn read(param: *mut c_void) -> Option<Self> {
        Some(Self::from_ms(timeout(param)?))
    }

    /// As `read`.
    pub fn from_ms(ms: i64) -> Self {
        match u64::try_from(ms) {
            Err(_) => Self::Forever,
            Ok(0) => Self::No,
            Ok(ms) => Self::For(Duration::from_millis(ms.min(8000))),
        }
    }
}

/// When a call that begins now ends. A coarse clock made waits end 4–5 ms early before 1.0.10.
pub fn deadline(wait: Wait, release: Release) -> Wait {
    match wait {
        Wait::For(time) if release < Release::V1_0_10 => {
            Wait::Until(Instant::now() + time.saturating_sub(Duration::from_millis(5)))
        }
        Wait::For(time) => Wait::Until(Instant::now() + time),
        other => other,
    }
}

/// Waits for a change until the deadline; `Err` when that has passed.
pub fn wait_until<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    until: Wait,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let time = match until {
        Wait::No => return Err(guard),
        Wait::Forever => return Ok(condition.wait(guard).unwrap_or_else(PoisonError::into_inner)),
        Wait::For(time) => time,
        Wait::Until(at) => at.saturating_duration_since(Instant::now()),
    };
    if time.is_zero() {
        return Err(guard);
    }
    Ok(condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0)
}
