// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames of one layer that wait for the engine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{KEYFRAME_INTERVAL, MAX_QUEUE_BYTES};

/// What a queue threw away, to be counted by whoever owns the frames' counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Of those, frames at which decoding could have begun.
    pub(crate) keyframes: u64,
    /// What comes can't be decoded before the next keyframe.
    pub(crate) open: bool,
    /// Nothing can be shown until the next keyframe, and none was asked for lately: ask now.
    pub(crate) want_keyframe: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    frame: T,
    since: Instant,
    bytes: usize,
    keyframe: bool,
}

/// Keeps frames until the engine can take them, in order.
///
/// Once a frame has waited longer than the queue may be old, it is dropped with all that follow up to the next
/// keyframe: they could not be decoded. A keyframe itself is never dropped for its age, only for a newer one: a link
/// that takes long for it would otherwise show nothing, and each loss would ask for the next.
#[derive(Debug)]
pub(crate) struct SendQueue<T> {
    frames: VecDeque<Waiting<T>>,
    bytes: usize,
    max_age: Duration,
    /// Frames are dropped until a keyframe comes.
    dropping: bool,
    asked: Option<Instant>,
    /// Nothing is dropped for its age before then.
    patience: Option<Instant>,
}

impl<T> SendQueue<T> {
    /// An empty queue whose frames may wait `max_age`.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, max_age, dropping: false, asked: None, patience: None }
    }

    /// Takes a frame of `bytes`; says what had to go for it, the frame itself included.
    #[cfg(test)]
    pub(crate) fn push(&mut self, now: Instant, frame: T, bytes: usize, keyframe: bool) -> Dropped {
        self.push_due(now, now, frame, bytes, keyframe)
    }

    /// Takes a frame of `bytes` that is not to leave before `due`, from when on its age counts.
    pub(crate) fn push_due(
        &mut self,
        now: Instant,
        due: Instant,
        frame: T,
        bytes: usize,
        keyframe: bool,
    ) -> Dropped {
        let mut dropped = self.expire(now);
        if keyframe {
            if self.bytes.saturating_add(bytes) > MAX_QUEUE_BYTES {
                dropped.add(self.drop_range(0, self.frames.len()));
            }
            self.dropping = false;
        } else if !self.dropping && self.bytes.saturating_add(bytes) > MAX_QUEUE_BYTES {
            self.dropping = true;
        }
        if self.dropping {
            dropped.frames += 1;
            dropped.bytes += bytes as u64;
            dropped.open = true;
            dropped.want_keyframe |= self.ask(now);
            return dropped;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.frames.push_back(Waiting { frame, since: due, bytes, keyframe });
        dropped
    }

    /// Drops what has become too old.
    pub(crate) fn expire(&mut self, now: Instant) -> Dropped {
        let mut dropped = Dropped::default();
        if self.patience.is_some_and(|until| now < until) {
            return dropped;
        }
        let old = |w: &Waiting<T>| !w.keyframe && now.saturating_duration_since(w.since) > self.max_age;
        let Some(first) = self.frames.iter().position(old) else { return dropped };
        let next = self.frames.iter().skip(first).position(|w| w.keyframe).map(|n| first + n);
        match next {
            // What stands before a keyframe that is already here has lost its use.
            Some(next) => dropped.add(self.drop_range(0, next)),
            None => {
                dropped.add(self.drop_range(first, self.frames.len()));
                self.dropping = true;
                dropped.open = true;
                dropped.want_keyframe = self.ask(now);
            }
        }
        dropped
    }

    /// The frame that is next, if there is one.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let next = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(next.bytes);
        Some(next.frame)
    }

    /// Drops everything, up to the next keyframe to come. No keyframe is asked for: the caller knows why.
    pub(crate) fn clear(&mut self, now: Instant) -> Dropped {
        let dropped = Dropped { open: true, ..self.drop_range(0, self.frames.len()) };
        self.dropping = true;
        self.asked = Some(now);
        dropped
    }

    /// Something else is sent first, by our own wish: what waits for it is not too old before `until`.
    pub(crate) fn wait_until(&mut self, until: Instant) {
        self.patience = Some(until);
    }

    /// Drops everything and begins anew; what comes next can be decoded without it.
    pub(crate) fn reset(&mut self) -> Dropped {
        self.dropping = false;
        self.drop_range(0, self.frames.len())
    }

    /// Since when the next frame waits, or when it is due.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.frames.front().map(|w| w.since)
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let oldest = self.frames.iter().find(|w| !w.keyframe)?;
        let at = oldest.since + self.max_age + Duration::from_millis(1);
        Some(self.patience.map_or(at, |until| at.max(until)))
    }

    /// Bytes of the waiting frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether nothing but a keyframe would be taken.
    pub(crate) fn is_dropping(&self) -> bool {
        self.dropping
    }

    fn drop_range(&mut self, from: usize, to: usize) -> Dropped {
        let mut dropped = Dropped::default();
        for waiting in self.frames.drain(from..to) {
            dropped.frames += 1;
            dropped.bytes += waiting.bytes as u64;
            dropped.keyframes += u64::from(waiting.keyframe);
            self.bytes = self.bytes.saturating_sub(waiting.bytes);
        }
        dropped
    }

    fn ask(&mut self, now: Instant) -> bool {
        let may = self.asked.is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_INTERVAL);
        if may {
            self.asked = Some(now);
        }
        may
    }
}

impl Dropped {
    fn add(&mut self, other: Dropped) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.keyframes += other.keyframes;
        self.open |= other.open;
        self.want_keyframe |= other.want_keyframe;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue() -> (SendQueue<u32>, Instant) {
        (SendQueue::new(300 * MS), Instant::now())
    }

    fn rest(q: &mut SendQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| q.pop()).collect()
    }

    #[test]
    fn frames_leave_in_order_and_are_counted_in_bytes() {
        let (mut q, t) = queue();
        assert_eq!(q.push(t, 1, 500, true), Dropped::default());
        assert_eq!(q.push(t + 33 * MS, 2, 100, false), Dropped::default());
        assert_eq!((q.bytes(), q.oldest()), (600, Some(t)));
        assert_eq!(q.pop(), Some(1));
        assert_eq!((q.bytes(), q.oldest()), (100, Some(t + 33 * MS)));
        assert_eq!(rest(&mut q), [2]);
        assert!(q.is_empty() && q.bytes() == 0);
    }

    #[test]
    fn the_rest_of_the_group_goes_up_to_the_next_keyframe() {
        let (mut q, t) = queue();
        for n in 0..9 {
            let _ = q.push(t + n * 33 * MS, n, 100, false);
        }
        assert_eq!(q.expires_at(), Some(t + 301 * MS));
        assert_eq!(q.expire(t + 300 * MS), Dropped::default(), "exactly as old as it may be");
        let dropped = q.expire(t + 301 * MS);
        assert_eq!((dropped.frames, dropped.bytes, dropped.want_keyframe), (9, 900, true));
        assert!(q.dropping && q.is_empty());
        assert_eq!(q.push(t + 333 * MS, 10, 100, false).frames, 1, "can't be decoded");
        assert_eq!(q.push(t + 366 * MS, 11, 900, true), Dropped::default());
        assert_eq!(q.push(t + 400 * MS, 12, 100, false), Dropped::default());
        assert_eq!(rest(&mut q), [11, 12]);
    }

    #[test]
    fn a_keyframe_that_waits_already_takes_over() {
        let (mut q, t) = queue();
        for (n, key) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
            let _ = q.push(t + n * 33 * MS, n, 100, key);
        }
        let dropped = q.expire(t + 350 * MS);
        assert_eq!((dropped.frames, dropped.keyframes, dropped.want_keyframe), (3, 1, false));
        assert!(!q.dropping);
        assert_eq!(rest(&mut q), [3, 4]);
    }

    #[test]
    fn a_keyframe_is_not_dropped_for_its_age() {
        let (mut q, t) = queue();
        let _ = q.push(t, 1, 100_000, true);
        let _ = q.push(t + 33 * MS, 2, 100, false);
        let dropped = q.expire(t + 5000 * MS);
        assert_eq!((dropped.frames, dropped.keyframes), (1, 0));
        assert_eq!(q.expires_at(), None);
        // A newer one may replace it only while it still waits, and only once its own followers are too old.
        let _ = q.push(t + 5100 * MS, 3, 100_000, true);
        assert_eq!(rest(&mut q), [1, 3]);
    }

    #[test]
    fn a_keyframe_is_asked_for_once_a_second() {
        let (mut q, t) = queue();
        let mut asked = Vec::new();
        for n in 0..100u32 {
            let now = t + n * 33 * MS;
            if q.push(now, n, 100, false).want_keyframe || q.expire(now).want_keyframe {
                asked.push(n * 33);
            }
        }
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked.windows(2).all(|w| w[1] - w[0] >= 1000), "{asked:?}");
    }

    #[test]
    fn clearing_waits_for_a_keyframe_without_asking_for_one() {
        let (mut q, t) = queue();
        let _ = q.push(t, 1, 100, true);
        let _ = q.push(t, 2, 100, false);
        assert_eq!(q.clear(t).frames, 2);
        let dropped = q.push(t + 33 * MS, 3, 100, false);
        assert_eq!((dropped.frames, dropped.want_keyframe), (1, false));
        assert!(q.push(t + 1033 * MS, 4, 100, false).want_keyframe, "it did not come");
        assert_eq!(q.push(t + 1066 * MS, 5, 100, true), Dropped::default());
        assert_eq!(rest(&mut q), [5]);
    }

    #[test]
    fn what_waits_for_a_replay_is_not_too_old() {
        let (mut q, t) = queue();
        q.wait_until(t + 800 * MS);
        let _ = q.push(t, 1, 100, false);
        assert_eq!(q.expires_at(), Some(t + 800 * MS));
        assert_eq!(q.expire(t + 799 * MS), Dropped::default());
        assert_eq!(q.expire(t + 800 * MS).frames, 1, "and then it is");
        let _ = q.push(t + 900 * MS, 2, 100, true);
        let _ = q.push(t + 900 * MS, 3, 100, false);
        assert_eq!(q.expires_at(), Some(t + 1201 * MS));
    }

    #[test]
    fn a_new_beginning_needs_no_keyframe() {
        let (mut q, t) = queue();
        let _ = q.push(t, 1, 100, true);
        q.clear(t);
        assert_eq!(q.reset(), Dropped::default());
        assert_eq!(q.push(t, 2, 100, false), Dropped::default());
        assert_eq!((q.reset().frames, q.bytes()), (1, 0));
    }

    #[test]
    fn memory_is_bounded_even_if_nothing_grows_old() {
        let (mut q, t) = queue();
        let big = MAX_QUEUE_BYTES / 3;
        for n in 0..3 {
            assert_eq!(q.push(t, n, big, n == 0), Dropped::default());
        }
        let dropped = q.push(t, 3, big, false);
        assert_eq!((dropped.frames, dropped.want_keyframe), (1, true));
        assert!(q.bytes() <= MAX_QUEUE_BYTES);
        let dropped = q.push(t, 4, big, true);
        assert_eq!((dropped.frames, dropped.keyframes), (3, 1), "a keyframe finds room");
        assert_eq!(rest(&mut q), [4]);
    }

    /// 4 Mbit/s, a keyframe a second, over 1 Mbit/s: each keyframe goes out with what fits, and nothing of it is old.
    #[test]
    fn a_source_that_cannot_adapt_moves_on_at_every_keyframe() {
        let (mut q, t) = queue();
        let bytes = |n: u32| if n.is_multiple_of(30) { 30_000 } else { 16_000 };
        let mut link_free = t;
        let (mut sent, mut worst) = (Vec::new(), Duration::ZERO);
        for ms in 0..10_000u32 {
            let now = t + ms * MS;
            if ms.is_multiple_of(33) {
                let n = ms / 33;
                let _ = q.push(now, (n, now), bytes(n), n.is_multiple_of(30));
            }
            let _ = q.expire(now);
            while now >= link_free {
                let Some((n, at)) = q.pop() else { break };
                worst = worst.max(now - at);
                link_free = now + Duration::from_micros(bytes(n) as u64 * 8);
                sent.push(n);
            }
        }
        let keyframes: Vec<u32> = sent.iter().copied().filter(|n| n.is_multiple_of(30)).collect();
        assert_eq!(keyframes, (0..10).map(|n| n * 30).chain([300]).collect::<Vec<_>>());
        assert!(sent.len() > 20, "{sent:?}");
        assert!(worst <= 301 * MS, "{worst:?}");

        fn queue() -> (SendQueue<(u32, Instant)>, Instant) {
            (SendQueue::new(300 * MS), Instant::now())
        }
    }
}
