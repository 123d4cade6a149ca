// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a camera has done, counted without a lock: its thread writes, anybody reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// How a camera is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The pipeline is being built, or the first picture has not come yet.
    Starting = 0,
    /// Pictures are being sent.
    Streaming = 1,
    /// It failed, and is tried again in a while.
    Waiting = 2,
    /// It was told to stop.
    Stopped = 3,
}

impl State {
    /// The name in logs and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one camera.
        #[derive(Debug, Default)]
        pub struct Counters {
            state: AtomicU8,
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// All counters at one moment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Snapshot {
            /// How the camera is.
            pub state: State,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All counters.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { state: self.state(), $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Pictures sent.
    frames,
    /// Pictures that cannot be sent as RTP/JPEG.
    frames_dropped,
    /// RTP packets sent.
    packets,
    /// UDP payload sent, bytes.
    bytes,
    /// Packets that could not be sent.
    packets_dropped,
    /// What the network reported: nobody listens, no route.
    icmp_errors,
    /// Failed system calls.
    send_errors,
    /// System calls that the packets took.
    system_calls,
    /// Packets of the longest picture.
    max_packets_per_frame,
    /// Time spent on making packets, ns.
    prepare_time_ns,
    /// Starts after the first one.
    restarts,
    /// Sender reports sent.
    sender_reports,
    /// Receivers' reports that came.
    receiver_reports,
    /// Of the last of them: packets lost since the one before, in 256ths.
    receiver_fraction_lost,
    /// Of the last of them: packets lost since the beginning.
    receiver_lost,
    /// Of the last of them: jitter, µs.
    receiver_jitter_us,
    /// Of the last of them: round trip, µs.
    round_trip_us,
    /// When the camera's thread was last seen alive: monotonic time, ns.
    alive_ns,
}

impl Counters {
    /// How the camera is.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::Starting,
            1 => State::Streaming,
            2 => State::Waiting,
            _ => State::Stopped,
        }
    }

    /// Says how the camera is.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }
}

/// The counters of one pipeline, added to those of the pipelines before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub frames: u64,
    pub frames_dropped: u64,
    pub packets: u64,
    pub bytes: u64,
    pub packets_dropped: u64,
    pub icmp_errors: u64,
    pub send_errors: u64,
    pub system_calls: u64,
    pub max_packets_per_frame: u64,
    pub prepare_time_ns: u64,
}

impl Run {
    /// Adds what has come since `before` to the counters.
    pub fn add_to(&self, counters: &Counters, before: &Self) {
        for (counter, now, before) in [
            (&counters.frames, self.frames, before.frames),
            (&counters.frames_dropped, self.frames_dropped, before.frames_dropped),
            (&counters.packets, self.packets, before.packets),
            (&counters.bytes, self.bytes, before.bytes),
            (&counters.packets_dropped, self.packets_dropped, before.packets_dropped),
            (&counters.icmp_errors, self.icmp_errors, before.icmp_errors),
            (&counters.send_errors, self.send_errors, before.send_errors),
            (&counters.system_calls, self.system_calls, before.system_calls),
            (&counters.prepare_time_ns, self.prepare_time_ns, before.prepare_time_ns),
        ] {
            counter.fetch_add(now.saturating_sub(before), Relaxed);
        }
        counters.max_packets_per_frame.fetch_max(self.max_packets_per_frame, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up() {
        let counters = Counters::default();
        let first = Run { frames: 10, packets: 100, max_packets_per_frame: 12, ..Run::default() };
        first.add_to(&counters, &Run::default());
        let later = Run { frames: 15, packets: 150, max_packets_per_frame: 12, ..Run::default() };
        later.add_to(&counters, &first);
        // Another pipeline counts from nothing.
        Run { frames: 2, packets: 20, max_packets_per_frame: 9, ..Run::default() }
            .add_to(&counters, &Run::default());
        let all = counters.snapshot();
        assert_eq!((all.frames, all.packets, all.max_packets_per_frame), (17, 170, 12));
    }

    #[test]
    fn states() {
        let counters = Counters::default();
        for state in [State::Starting, State::Streaming, State::Waiting, State::Stopped] {
            counters.set_state(state);
            assert_eq!(counters.snapshot().state, state);
        }
    }
}
