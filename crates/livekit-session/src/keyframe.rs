// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which keyframe requests reach the encoder. Takes time as an argument.

use std::time::{Duration, Instant};

/// How long an encoder may take to answer before it is asked again.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Folds keyframe requests of one track into as few as will do.
///
/// A request is forwarded if none is open and the last keyframe or request is old enough; while one is open,
/// further ones are folded into it until the keyframe passes or [`ANSWER_DEADLINE`] is over. One that comes
/// too early is remembered and forwarded as soon as the interval allows, unless a keyframe that was made
/// after it passes before.
#[derive(Debug, Clone)]
pub struct KeyframeGate {
    min_interval: Duration,
    last_forwarded: Option<Instant>,
    /// A request was forwarded and no keyframe has passed since.
    open: bool,
    /// A frame has passed since then: the encoder is at work.
    flowing: bool,
    /// A request came that was not forwarded and that no keyframe has answered yet.
    pending: bool,
    /// Forwarded requests in a row that no keyframe answered in time.
    unanswered: u32,
}

impl KeyframeGate {
    /// A gate that lets requests pass at most once in `min_interval`.
    pub fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            last_forwarded: None,
            open: false,
            flowing: false,
            pending: false,
            unanswered: 0,
        }
    }

    /// Somebody wants a keyframe. True = ask the encoder now.
    pub fn request(&mut self, now: Instant) -> bool {
        if self.may_forward(now) {
            self.forward(now);
            return true;
        }
        // While a request is open, its keyframe serves this one too.
        self.pending |= !self.open;
        false
    }

    /// A frame that is no keyframe passed. Without any, an open request is not repeated: the source stands
    /// still, and will find the request when it goes on.
    pub fn frame(&mut self) {
        self.flowing = true;
    }

    /// A keyframe passed.
    pub fn keyframe(&mut self, _now: Instant) {
        self.open = false;
        self.pending = false;
        self.unanswered = 0;
    }

    /// When [`Self::poll`] has something to do.
    pub fn poll_at(&self) -> Option<Instant> {
        let last = self.last_forwarded?;
        if self.open {
            self.flowing.then(|| last + ANSWER_DEADLINE.max(self.min_interval))
        } else if self.pending {
            Some(last + self.min_interval)
        } else {
            None
        }
    }

    /// Time passed. True = ask the encoder now: because a request had come too early, or (again) because
    /// the last one was not answered.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.poll_at().is_none_or(|at| now < at) {
            return false;
        }
        if self.open {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.forward(now);
        true
    }

    /// How many requests in a row the encoder left unanswered beyond their deadline.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    fn may_forward(&self, now: Instant) -> bool {
        !self.open && self.last_forwarded.is_none_or(|last| now.duration_since(last) >= self.min_interval)
    }

    fn forward(&mut self, now: Instant) {
        self.last_forwarded = Some(now);
        self.open = true;
        self.flowing = false;
        self.pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn five_requests_at_once_reach_the_encoder_once() {
        let t = Instant::now();
        let mut gate = KeyframeGate::new(500 * MS);
        assert!(gate.request(t));
        for i in 1..5 {
            assert!(!gate.request(t + i * MS));
        }
        gate.keyframe(t + 20 * MS);
        assert_eq!(gate.poll_at(), None, "the keyframe answers all of them");
    }

    #[test]
    fn a_request_after_the_keyframe_waits_for_the_interval() {
        let t = Instant::now();
        let mut gate = KeyframeGate::new(500 * MS);
        assert!(gate.request(t));
        gate.keyframe(t + 20 * MS);
        assert!(!gate.request(t + 100 * MS));
        assert!(!gate.poll(t + 499 * MS));
        assert!(gate.poll(t + 500 * MS));
        gate.keyframe(t + 520 * MS);
        assert!(gate.request(t + 1000 * MS));
    }

    #[test]
    fn a_keyframe_that_comes_by_itself_answers_a_waiting_request() {
        let t = Instant::now();
        let mut gate = KeyframeGate::new(500 * MS);
        assert!(gate.request(t));
        gate.keyframe(t + 20 * MS);
        assert!(!gate.request(t + 100 * MS));
        gate.keyframe(t + 200 * MS);
        assert!(!gate.poll(t + 600 * MS));
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_counted() {
        let t = Instant::now();
        let mut gate = KeyframeGate::new(500 * MS);
        assert!(gate.request(t));
        assert!(!gate.poll(t + 10 * ANSWER_DEADLINE), "nothing flows");
        gate.frame();
        assert!(!gate.poll(t + 999 * MS));
        assert!(gate.poll(t + ANSWER_DEADLINE));
        assert_eq!(gate.unanswered(), 1);
        gate.frame();
        assert!(gate.poll(t + 2 * ANSWER_DEADLINE));
        assert_eq!(gate.unanswered(), 2);
        gate.keyframe(t + 2100 * MS);
        assert_eq!(gate.unanswered(), 0);
    }
}
