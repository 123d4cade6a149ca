// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which keyframe requests reach the encoder. Takes time as an argument.

use std::time::{Duration, Instant};

use crate::event::KeyframeReason;

/// How long an encoder may take to answer before it is asked again.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// An encoder that leaves this many requests in a row unanswered is taken for one that can't be asked.
pub const IGNORED_REQUESTS: u32 = 2;
/// One that can't be asked is still asked, ever more seldom; this is the longest pause.
const LONGEST_DEADLINE: Duration = Duration::from_secs(8);
/// The first request for a keyframe after the start says that the server has a subscriber; that one still has
/// to agree on the transport, and drops what comes before it has.
pub(crate) const SUBSCRIBER_SETUP: Duration = Duration::from_millis(250);
/// So many of the last answers make the median.
const ANSWERS: usize = 32;

/// Counters of one layer's keyframe requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyframeStats {
    /// Requests from the network, and the session's own.
    pub received: u64,
    /// Requests passed on to the encoder, repeats included.
    pub forwarded: u64,
    /// Requests that were answered together with another one.
    pub folded: u64,
    /// Requests passed on again because the encoder had not answered in time.
    pub repeated: u64,
    /// Requests passed on that a keyframe answered.
    pub answered: u64,
    /// How often the current group of pictures was sent again.
    pub replays: u64,
    /// Frames that were sent again so.
    pub replayed_frames: u64,
    /// Bytes that are kept for sending again.
    pub cached_bytes: u64,
    /// Median time from a request to its keyframe, over the last 32 answers.
    pub answer_median: Option<Duration>,
    /// The longest of all these times.
    pub answer_max: Option<Duration>,
}

/// A request that is to be forwarded later.
#[derive(Debug, Clone)]
struct Pending {
    reason: KeyframeReason,
    at: Instant,
    /// A keyframe before `at` would be too early for whoever asked.
    not_ready: bool,
    count: u64,
}

/// Folds keyframe requests of one stream into as few as will do.
///
/// A request is forwarded if none is open and the last one is old enough; while one is open, further ones are folded
/// into it until the keyframe passes or [`ANSWER_DEADLINE`] is over. One that comes too early is remembered
/// and forwarded as soon as the interval allows, unless a keyframe that was made after it passes before.
#[derive(Debug, Clone)]
pub struct KeyframeGate {
    min_interval: Duration,
    last_forwarded: Option<Instant>,
    /// When the request was first forwarded that no keyframe has answered yet.
    open: Option<Instant>,
    /// A frame has passed since the last forwarding: the encoder is at work.
    flowing: bool,
    pending: Option<Pending>,
    /// Forwarded requests in a row that no keyframe answered in time.
    unanswered: u32,
    /// The encoder was found not to answer; it stays so.
    ignores: bool,
    /// The last request was our own at the start, and no viewer has asked since.
    starting: bool,
    /// The last request was our own after a pause, and no viewer has asked since its keyframe. That one often
    /// only shows the server that the stream goes on, and the viewer asks for another.
    resuming: bool,
    stats: KeyframeStats,
    answers: [Duration; ANSWERS],
}

impl KeyframeGate {
    /// A gate that lets requests pass at most once in `min_interval`.
    pub fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            last_forwarded: None,
            open: None,
            flowing: false,
            pending: None,
            unanswered: 0,
            ignores: false,
            starting: false,
            resuming: false,
            stats: KeyframeStats::default(),
            answers: [Duration::ZERO; ANSWERS],
        }
    }

    /// The connection is gone, and with it whoever asked. What is known of the encoder stays known.
    pub fn reset(&mut self) {
        self.last_forwarded = None;
        self.open = None;
        self.flowing = false;
        self.fold_pending();
        self.unanswered = 0;
        self.starting = false;
        self.resuming = false;
    }

    /// Somebody wants a keyframe. True = ask the encoder now.
    pub fn request(&mut self, now: Instant, reason: KeyframeReason) -> bool {
        self.stats.received += 1;
        let from_viewer = matches!(reason, KeyframeReason::Pli | KeyframeReason::Fir);
        let too_early = self.last_forwarded.map(|last| last + self.min_interval).filter(|at| now < *at);
        // The keyframe that we asked for at the start comes before the first viewer is ready for one.
        if from_viewer
            && std::mem::take(&mut self.starting)
            && let Some(at) = too_early
        {
            self.pend(reason, at.min(now + SUBSCRIBER_SETUP), true);
            return false;
        }
        // While a request is open, its keyframe serves this one too.
        if self.open.is_some() {
            match &mut self.pending {
                Some(pending) => pending.count += 1,
                None => self.stats.folded += 1,
            }
            return false;
        }
        let waiting = from_viewer && std::mem::take(&mut self.resuming);
        if let Some(at) = too_early.filter(|_| !waiting) {
            self.pend(reason, at, false);
            return false;
        }
        self.fold_pending();
        self.starting = reason == KeyframeReason::Start;
        self.resuming = reason == KeyframeReason::Resumed;
        self.open = Some(now);
        self.forward(now);
        true
    }

    /// A frame that is no keyframe passed. Without any, an open request is not repeated: the source stands
    /// still, and will find the request when it goes on.
    pub fn frame(&mut self) {
        self.flowing = true;
    }

    /// A keyframe passed.
    pub fn keyframe(&mut self, now: Instant) {
        self.unanswered = 0;
        if let Some(since) = self.open.take() {
            self.note_answer(now.saturating_duration_since(since));
        }
        if self.pending.as_ref().is_some_and(|p| !p.not_ready || now >= p.at) {
            self.fold_pending();
        }
    }

    /// Whoever asked was given a keyframe by other means, so the encoder's is not waited for.
    pub fn served(&mut self) {
        self.open = None;
        self.unanswered = 0;
        self.fold_pending();
    }

    /// When [`Self::poll`] has something to do.
    pub fn poll_at(&self) -> Option<Instant> {
        let repeat = self.last_forwarded.filter(|_| self.open.is_some() && self.flowing);
        let repeat = repeat.map(|last| last + self.deadline());
        let pending = self.pending.as_ref().map(|p| p.at);
        repeat.into_iter().chain(pending).min()
    }

    /// Time passed. Something = ask the encoder now: because a request had come too early, or (again) because
    /// the last one was not answered.
    pub fn poll(&mut self, now: Instant) -> Option<KeyframeReason> {
        if self.poll_at().is_none_or(|at| now < at) {
            return None;
        }
        if let Some(pending) = self.pending.take_if(|p| now >= p.at) {
            if self.open.is_none() {
                self.stats.folded += pending.count - 1;
                self.open = Some(now);
                self.forward(now);
                return Some(pending.reason);
            }
            self.stats.folded += pending.count;
        }
        let last = self.last_forwarded.filter(|_| self.open.is_some() && self.flowing)?;
        if now < last + self.deadline() {
            return None;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.ignores |= self.unanswered >= IGNORED_REQUESTS;
        self.stats.repeated += 1;
        self.forward(now);
        Some(KeyframeReason::Repeat)
    }

    /// How many requests in a row the encoder left unanswered beyond their deadline.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether the encoder has ever left [`IGNORED_REQUESTS`] in a row unanswered.
    pub fn ignores(&self) -> bool {
        self.ignores
    }

    /// The counters.
    pub fn stats(&self) -> KeyframeStats {
        let mut stats = self.stats;
        let known = usize::try_from(stats.answered).unwrap_or(ANSWERS).min(ANSWERS);
        let mut answers = self.answers;
        if let Some(known) = answers.get_mut(..known) {
            known.sort_unstable();
            stats.answer_median = known.get(known.len() / 2).copied();
        }
        stats
    }

    /// When the first viewer after the start is ready for a keyframe, if that is still to come.
    pub(crate) fn first_viewer(&self) -> Option<Instant> {
        self.pending.as_ref().filter(|p| p.not_ready).map(|p| p.at)
    }

    /// The group of pictures was sent again.
    pub(crate) fn replayed(&mut self, frames: usize) {
        self.stats.replays += 1;
        self.stats.replayed_frames += frames as u64;
        self.served();
    }

    fn deadline(&self) -> Duration {
        let doublings = self.unanswered.saturating_sub(1).min(3);
        (ANSWER_DEADLINE * 2u32.pow(doublings)).min(LONGEST_DEADLINE).max(self.min_interval)
    }

    fn pend(&mut self, reason: KeyframeReason, at: Instant, not_ready: bool) {
        match &mut self.pending {
            Some(pending) => pending.count += 1,
            None => self.pending = Some(Pending { reason, at, not_ready, count: 1 }),
        }
    }

    fn fold_pending(&mut self) {
        self.stats.folded += self.pending.take().map_or(0, |p| p.count);
    }

    fn note_answer(&mut self, took: Duration) {
        let slot = usize::try_from(self.stats.answered).unwrap_or_default() % ANSWERS;
        if let Some(answer) = self.answers.get_mut(slot) {
            *answer = took;
        }
        self.stats.answered += 1;
        self.stats.answer_max = self.stats.answer_max.max(Some(took));
    }

    fn forward(&mut self, now: Instant) {
        self.stats.forwarded += 1;
        self.last_forwarded = Some(now);
        self.flowing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeyframeReason::{Dropped, Pli, Repeat, Start};

    const MS: Duration = Duration::from_millis(1);

    fn gate() -> (Instant, KeyframeGate) {
        (Instant::now(), KeyframeGate::new(500 * MS))
    }

    #[test]
    fn the_viewer_for_whom_a_stream_goes_on_does_not_wait_for_the_interval() {
        let t = Instant::now();
        let mut gate = KeyframeGate::new(500 * MS);
        assert!(gate.request(t, KeyframeReason::Resumed));
        assert!(!gate.request(t + 10 * MS, KeyframeReason::Pli), "its keyframe is still to come");
        gate.keyframe(t + 30 * MS);
        assert!(gate.request(t + 70 * MS, KeyframeReason::Pli));
        gate.keyframe(t + 90 * MS);
        assert!(!gate.request(t + 100 * MS, KeyframeReason::Pli), "once");
        assert_eq!(gate.poll_at(), Some(t + 570 * MS));
    }

    #[test]
    fn five_requests_at_once_reach_the_encoder_once() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Pli));
        for i in 1..5 {
            assert!(!gate.request(t + i * MS, Pli));
        }
        gate.keyframe(t + 20 * MS);
        assert_eq!(gate.poll_at(), None, "the keyframe answers all of them");
        let stats = gate.stats();
        assert_eq!((stats.received, stats.forwarded, stats.folded, stats.answered), (5, 1, 4, 1));
        assert_eq!((stats.answer_median, stats.answer_max), (Some(20 * MS), Some(20 * MS)));
    }

    #[test]
    fn a_request_after_the_keyframe_waits_for_the_interval() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Pli));
        gate.keyframe(t + 20 * MS);
        assert!(!gate.request(t + 100 * MS, Pli));
        assert!(!gate.request(t + 200 * MS, Pli));
        assert_eq!(gate.poll(t + 499 * MS), None);
        assert_eq!(gate.poll(t + 500 * MS), Some(Pli), "not a repeat");
        gate.keyframe(t + 520 * MS);
        assert!(gate.request(t + 1000 * MS, Dropped));
        let stats = gate.stats();
        assert_eq!((stats.received, stats.forwarded, stats.folded, stats.repeated), (4, 3, 1, 0));
    }

    #[test]
    fn a_keyframe_that_comes_by_itself_answers_a_waiting_request() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Pli));
        gate.keyframe(t + 20 * MS);
        assert!(!gate.request(t + 100 * MS, Pli));
        gate.keyframe(t + 200 * MS);
        assert_eq!(gate.poll(t + 600 * MS), None);
        assert_eq!((gate.stats().folded, gate.stats().answered), (1, 1));
    }

    #[test]
    fn an_unanswered_request_is_repeated_counted_and_at_last_seldom() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Pli));
        assert_eq!(gate.poll(t + 10 * ANSWER_DEADLINE), None, "nothing flows");
        gate.frame();
        assert_eq!(gate.poll(t + 999 * MS), None);
        assert_eq!(gate.poll(t + ANSWER_DEADLINE), Some(Repeat));
        assert_eq!((gate.unanswered(), gate.ignores()), (1, false));
        gate.frame();
        assert_eq!(gate.poll(t + 2 * ANSWER_DEADLINE), Some(Repeat));
        assert_eq!((gate.unanswered(), gate.ignores()), (2, true));
        let mut last = t + 2 * ANSWER_DEADLINE;
        for seconds in [2, 4, 8, 8] {
            gate.frame();
            let due = gate.poll_at().unwrap();
            assert_eq!(due - last, Duration::from_secs(seconds));
            assert_eq!(gate.poll(due), Some(Repeat));
            last = due;
        }
        gate.keyframe(last + 100 * MS);
        assert_eq!((gate.unanswered(), gate.ignores()), (0, true), "known once and for all");
        let stats = gate.stats();
        assert_eq!((stats.forwarded, stats.repeated, stats.answered), (7, 6, 1));
        assert_eq!(stats.answer_max, Some(24_100 * MS), "from the first time it was asked");
    }

    #[test]
    fn the_first_viewer_after_the_start_is_given_time_to_get_ready() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Start));
        assert!(!gate.request(t + 20 * MS, Pli));
        assert!(!gate.request(t + 25 * MS, Pli));
        gate.keyframe(t + 40 * MS);
        assert_eq!(gate.poll_at(), Some(t + 20 * MS + SUBSCRIBER_SETUP), "the start's is too early for it");
        assert_eq!(gate.poll(t + 20 * MS + SUBSCRIBER_SETUP), Some(Pli));
        gate.keyframe(t + 300 * MS);
        // From then on the interval holds.
        assert!(!gate.request(t + 400 * MS, Pli));
        assert_eq!(gate.poll_at(), Some(t + 20 * MS + SUBSCRIBER_SETUP + 500 * MS));
        assert_eq!(gate.stats().folded, 1);
    }

    #[test]
    fn the_first_viewer_does_not_wait_longer_than_any_other() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Start));
        gate.keyframe(t + 40 * MS);
        assert!(!gate.request(t + 400 * MS, Pli));
        assert_eq!(gate.poll_at(), Some(t + 500 * MS));
        gate.reset();
        assert!(gate.request(t, Start));
        gate.keyframe(t + 40 * MS);
        assert!(gate.request(t + 5000 * MS, Pli), "a late one is served at once");
    }

    #[test]
    fn a_start_that_is_answered_late_serves_the_first_viewer_too() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Start));
        gate.frame();
        assert!(!gate.request(t + 20 * MS, Pli));
        assert_eq!(gate.poll(t + 300 * MS), None, "still open");
        assert_eq!(gate.poll_at(), Some(t + ANSWER_DEADLINE));
        gate.keyframe(t + 400 * MS);
        assert_eq!(gate.poll_at(), None);
        assert_eq!((gate.stats().forwarded, gate.stats().folded), (1, 1));
    }

    #[test]
    fn what_was_served_otherwise_is_not_repeated() {
        let (t, mut gate) = gate();
        assert!(gate.request(t, Pli));
        gate.frame();
        gate.replayed(30);
        assert_eq!(gate.poll_at(), None);
        assert!(gate.request(t + 600 * MS, Pli), "the encoder is asked all the same");
        gate.replayed(40);
        let stats = gate.stats();
        assert_eq!((stats.replays, stats.replayed_frames, stats.answered, stats.forwarded), (2, 70, 0, 2));
        assert!(!gate.ignores());
    }

    #[test]
    fn a_storm_reaches_the_encoder_once_an_interval() {
        let (t, mut gate) = gate();
        let mut forwarded = Vec::new();
        for ms in 0..10_000u32 {
            let now = t + ms * MS;
            if gate.poll(now).is_some() || gate.request(now, Pli) {
                forwarded.push(ms);
            }
            // The encoder answers after 30 ms.
            if forwarded.last().is_some_and(|at| at + 30 == ms) {
                gate.keyframe(now);
            }
        }
        assert!(forwarded.windows(2).all(|w| w[1] - w[0] >= 500), "{forwarded:?}");
        assert_eq!(forwarded.len(), 20);
        let stats = gate.stats();
        assert_eq!(stats.received, stats.forwarded + stats.folded + gate.pending.map_or(0, |p| p.count));
    }

    #[test]
    fn the_median_is_of_the_last_answers() {
        let (mut t, mut gate) = gate();
        for n in 0..(ANSWERS as u32 + 8) {
            t += ANSWER_DEADLINE;
            assert!(gate.request(t, Pli));
            gate.keyframe(t + if n < 24 { 900 * MS } else { 10 * MS });
        }
        // The last 32: 16 of each; of the first 24 eight have been overwritten.
        assert_eq!(gate.stats().answer_median, Some(900 * MS));
        t += ANSWER_DEADLINE;
        assert!(gate.request(t, Pli));
        gate.keyframe(t + 10 * MS);
        assert_eq!(gate.stats().answer_median, Some(10 * MS));
        assert_eq!(gate.stats().answer_max, Some(900 * MS));
    }
}
