// SPDX-License-Identifier: MPL-2.0

//! Threads that do for all elements of the process what must not be done on the network's thread: upstream events,
//! messages, signal handlers.
//!
//! GStreamer's own `call_async` starts a thread for each call that finds none idle: with 20 elements that hear something at
//! the same time these are 60. Here two threads do it in turn. One that seems to be stuck in somebody's handler does not count:
//! another one is started in its place, so that a handler that hangs holds up nobody else.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::log::CAT;

/// Threads that are started without need.
const USUAL: usize = 2;
/// Threads at most: with that many stuck handlers nothing is left to save.
const MOST: usize = 64;
/// A call that takes longer is stuck.
const PATIENCE: Duration = Duration::from_millis(250);
/// A thread without work ends after this.
const IDLE: Duration = Duration::from_secs(10);

type Call = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    calls: VecDeque<Call>,
    threads: usize,
    idle: usize,
    /// When each of the calls under way began.
    running: Vec<Instant>,
}

pub(crate) struct Workers {
    queue: Mutex<Queue>,
    more: Condvar,
    /// A call that takes longer is stuck.
    patience: Duration,
}

static WORKERS: Workers = Workers::new(PATIENCE);

/// Runs `call` soon, on another thread. Calls begin in their order, but two may run at the same time.
pub(crate) fn run(call: impl FnOnce() + Send + 'static) {
    WORKERS.run(Box::new(call));
}

impl Workers {
    const fn new(patience: Duration) -> Self {
        let queue = Queue { calls: VecDeque::new(), threads: 0, idle: 0, running: Vec::new() };
        Self { queue: Mutex::new(queue), more: Condvar::new(), patience }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, call: Call) {
        let mut queue = self.queue();
        queue.calls.push_back(call);
        self.start_if_needed(&mut queue);
        drop(queue);
        self.more.notify_one();
    }

    fn start_if_needed(&'static self, queue: &mut Queue) {
        if queue.idle >= queue.calls.len() || queue.threads >= MOST {
            return;
        }
        let stuck = queue.running.iter().filter(|since| since.elapsed() > self.patience).count();
        if queue.threads < USUAL + stuck {
            let thread = std::thread::Builder::new().name("livekitsink".into());
            // If there is none to be had, those that run come to it; if none runs, the next call tries again.
            if thread.spawn(|| self.work()).is_ok() {
                queue.threads += 1;
            }
        }
    }

    fn work(&'static self) {
        let mut queue = self.queue();
        loop {
            while let Some(call) = queue.calls.pop_front() {
                let began = Instant::now();
                queue.running.push(began);
                drop(queue);
                // A panic in a handler of the application's must not take the thread of all others with it.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err() {
                    gst::error!(CAT, "a handler of an event panicked");
                }
                queue = self.queue();
                if let Some(at) = queue.running.iter().position(|other| *other == began) {
                    queue.running.swap_remove(at);
                }
            }
            queue.idle += 1;
            let (waited, timeout) =
                self.more.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = waited;
            queue.idle -= 1;
            // One that took the place of a stuck one goes when that is free again.
            if (timeout.timed_out() || queue.threads > USUAL + queue.running.len()) && queue.calls.is_empty()
            {
                queue.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Longer than anything takes, however busy the machine.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[track_caller]
    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < LONG, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn many_calls_need_two_threads() {
        static WORKERS: Workers = Workers::new(LONG);
        let (done, ends) = mpsc::channel();
        for n in 0..200 {
            let done = done.clone();
            WORKERS.run(Box::new(move || done.send(n).unwrap()));
        }
        let mut seen: Vec<i32> = (0..200).map(|_| ends.recv_timeout(LONG).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert!(WORKERS.queue().threads <= USUAL, "{}", WORKERS.queue().threads);
    }

    #[test]
    fn calls_that_hang_hold_up_nobody_for_long() {
        static WORKERS: Workers = Workers::new(SHORT);
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Arc::new(Mutex::new(gate));
        for _ in 0..USUAL {
            let gate = gate.clone();
            WORKERS.run(Box::new(move || {
                let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
            }));
        }
        let (done, ends) = mpsc::channel();
        let call = |n: i32| {
            let done = done.clone();
            WORKERS.run(Box::new(move || done.send(n).unwrap()));
        };
        call(0);
        wait_until("two calls that hang", || {
            let queue = WORKERS.queue();
            queue.running.len() == USUAL && queue.running.iter().all(|since| since.elapsed() > SHORT)
        });
        // Not noticed before somebody calls; sessions do so every second.
        call(1);
        let mut seen = [ends.recv_timeout(LONG).unwrap(), ends.recv_timeout(LONG).unwrap()];
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
        assert!(WORKERS.queue().threads > USUAL);
        drop(release);
    }

    #[test]
    fn a_panic_ends_no_thread() {
        static WORKERS: Workers = Workers::new(LONG);
        let (done, ends) = mpsc::channel();
        for n in 0..10 {
            let done = done.clone();
            WORKERS.run(Box::new(move || {
                done.send(n).unwrap();
                std::panic::resume_unwind(Box::new("wanted"));
            }));
        }
        for _ in 0..10 {
            ends.recv_timeout(LONG).unwrap();
        }
        assert!(WORKERS.queue().threads <= USUAL);
    }
}
