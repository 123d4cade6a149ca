// SPDX-License-Identifier: MIT OR Apache-2.0

//! The current group of pictures of a source that can't be asked for a keyframe, and when it is sent again.
//! Takes time as an argument.
//!
//! Somebody who begins to watch needs a keyframe and everything since. Where no encoder makes one on request (a
//! file, an IP camera), the last one and the frames since are sent again between two live frames: with
//! times squeezed in between, so that the new viewer's decoder runs through them at once and is at the live
//! edge. A decoder that has seen them before starts anew at the keyframe and ends in the state that it was in.

use std::time::{Duration, Instant, SystemTime};

use crate::config::Codec;
use crate::frame::Frame;

/// Whether requests are answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GopCacheMode {
    /// Once the encoder has ignored two requests.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The cache's setting, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GopCacheConfig {
    /// Whether requests are answered from the cache.
    pub mode: GopCacheMode,
    /// The longest group of pictures that is kept, in media time. Default 2 s.
    pub max_duration: Duration,
    /// The most memory that it may take, bookkeeping included. Default 2 MB.
    pub max_bytes: usize,
}

impl Default for GopCacheConfig {
    fn default() -> Self {
        Self { mode: GopCacheMode::default(), max_duration: Duration::from_secs(2), max_bytes: 2_000_000 }
    }
}

/// Which bound a group of pictures does not fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GopTooLong {
    /// [`GopCacheConfig::max_duration`].
    Duration,
    /// [`GopCacheConfig::max_bytes`].
    Bytes,
}

/// Frames of less time than this say nothing about the stream's rate.
const RATE_WINDOW: Duration = Duration::from_millis(100);
/// What a frame takes beside its payload: its place in the list, which may have twice the room that it needs, and the
/// counters of the shared payload.
const OVERHEAD: usize = 2 * size_of::<Frame>() + 2 * size_of::<usize>();

/// The frames since the last keyframe. They share their payloads with whoever else has them.
#[derive(Debug)]
pub(crate) struct GopCache {
    max_duration: Duration,
    max_bytes: usize,
    frames: Vec<Frame>,
    bytes: usize,
}

impl GopCache {
    pub(crate) fn new(config: &GopCacheConfig) -> Self {
        let (max_duration, max_bytes) = (config.max_duration, config.max_bytes);
        Self { max_duration, max_bytes, frames: Vec::new(), bytes: 0 }
    }

    /// Other bounds; what is held but does not fit into them any more is let go.
    pub(crate) fn set_limits(&mut self, config: &GopCacheConfig) {
        (self.max_duration, self.max_bytes) = (config.max_duration, config.max_bytes);
        let too_long = match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => last.media_time.saturating_sub(first.media_time) > self.max_duration,
            _ => false,
        };
        if too_long || self.bytes > self.max_bytes {
            self.clear();
        }
    }

    /// A frame was sent. Must see every frame; after one that was not sent [`Self::clear`] is called.
    ///
    /// # Errors
    /// The group of pictures has just become too long. Nothing is kept until the next keyframe.
    pub(crate) fn push(&mut self, frame: &Frame, keyframe: bool) -> Result<(), GopTooLong> {
        if keyframe {
            // The new group may be much smaller; its memory is not held by the memory of the last one.
            self.clear();
        }
        let begin = match self.frames.first() {
            Some(first) => first.media_time,
            None if keyframe => frame.media_time,
            None => return Ok(()),
        };
        let over = if frame.media_time.saturating_sub(begin) > self.max_duration {
            GopTooLong::Duration
        } else {
            let bytes = self.bytes.saturating_add(frame.data.len()).saturating_add(OVERHEAD);
            if bytes <= self.max_bytes {
                self.bytes = bytes;
                self.frames.push(frame.clone());
                return Ok(());
            }
            GopTooLong::Bytes
        };
        self.clear();
        Err(over)
    }

    /// A frame is missing, so the rest can't be decoded; or the cache is not needed any more.
    pub(crate) fn clear(&mut self) {
        self.frames = Vec::new();
        self.bytes = 0;
    }

    /// What is held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many frames are held.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// How long it takes to send the frames again at `rate` bit/s, with the live stream going on beside.
    fn takes(&self, rate: u64) -> Duration {
        let payload = self.bytes.saturating_sub(self.frames.len() * OVERHEAD);
        let bits = payload as f64 * 8.0;
        let lasts = match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => last.media_time.saturating_sub(first.media_time),
            _ => Duration::ZERO,
        };
        if rate == 0 || bits == 0.0 {
            return Duration::ZERO;
        }
        // Of one or two frames no rate can be told, nor does it matter.
        let live = if lasts < RATE_WINDOW { 0.0 } else { bits / lasts.as_secs_f64() };
        let left = rate as f64 - live;
        if left <= 0.0 {
            return Duration::MAX;
        }
        Duration::try_from_secs_f64(bits / left).unwrap_or(Duration::MAX)
    }

    /// The frames to be sent again after what was sent last, with times from `last` (exclusive) to about `last +
    /// span`: each at least one tick of the codec's clock after the one before, so that they stay apart as
    /// RTP times. Their moments on the monotonic clock keep the distance that sender reports know.
    ///
    /// `clock` is the monotonic and the wall clock, read together: who measures delay is told when these frames were
    /// really captured.
    pub(crate) fn replay(
        &self,
        codec: Codec,
        last: &LastSent,
        span: Duration,
        clock: (Instant, SystemTime),
    ) -> Vec<Frame> {
        let rate = u128::from(codec.clock_rate());
        let base = ticks(last.media_time, rate);
        let step = (ticks(span, rate) / (self.frames.len() as u128 + 1)).max(1);
        let squeeze = |(index, frame): (usize, &Frame)| {
            let media_time = from_ticks(base + step * (index as u128 + 1), rate);
            let captured_at = last.captured_at + media_time.saturating_sub(last.media_time);
            let age = clock.0.saturating_duration_since(frame.captured_at);
            let capture_time = frame.capture_time.or_else(|| clock.1.checked_sub(age));
            Frame { media_time, captured_at, capture_time, ..frame.clone() }
        };
        self.frames.iter().enumerate().map(squeeze).collect()
    }
}

/// The frame that was sent last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastSent {
    pub(crate) media_time: Duration,
    pub(crate) captured_at: Instant,
}

impl LastSent {
    /// `frame`, moved behind this one if it does not lie there: a replay may reach a little into the future
    /// of a source whose frame rate rises, and RTP times of a stream must not go back.
    pub(crate) fn before(&self, codec: Codec, frame: Frame) -> Frame {
        let rate = u128::from(codec.clock_rate());
        let (last, own) = (ticks(self.media_time, rate), ticks(frame.media_time, rate));
        if own > last {
            return frame;
        }
        Frame { media_time: from_ticks(last + 1, rate), ..frame }
    }
}

fn ticks(time: Duration, rate: u128) -> u128 {
    time.as_nanos() * rate / NANOS
}

/// The earliest time that is this many ticks, so that [`ticks`] gives them back.
fn from_ticks(ticks: u128, rate: u128) -> Duration {
    let nanos = (ticks * NANOS).div_ceil(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const NANOS: u128 = 1_000_000_000;

/// Longer than this the way to the server must not be busy with a replay: what comes live waits behind it, and
/// viewers are to be back at their usual delay within a second.
const LONGEST_REPLAY: Duration = Duration::from_secs(1);
/// With frames waiting for longer than this the link takes no more, however much it is estimated to carry.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);
/// From one replay to the next passes at least this many times what the first one took: the live stream keeps the
/// larger part of the link in a storm of requests.
const PAUSE_FACTOR: u32 = 2;

/// What the way to the server looks like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// How fast frames leave, bit/s; 0 = not known yet, so no limit.
    pub(crate) rate: u64,
    /// How long the oldest frame has been waiting to be sent.
    pub(crate) queue_age: Duration,
}

/// Whether a request is answered with a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it now; until it has left, live frames wait for up to this long.
    Replay(Duration),
    /// The last one is too recent: when [`ReplayThrottle::poll_at`] says.
    Later,
    /// The link can't take it.
    Congested,
}

/// Throttles replays like requests: not more often than the interval, and none that harms the live stream.
#[derive(Debug)]
pub(crate) struct ReplayThrottle {
    min_interval: Duration,
    /// When the next one may come.
    not_before: Option<Instant>,
    /// One was asked for too early.
    pending: bool,
}

impl ReplayThrottle {
    pub(crate) fn new(min_interval: Duration) -> Self {
        Self { min_interval, not_before: None, pending: false }
    }

    pub(crate) fn min_interval(&self) -> Duration {
        self.min_interval
    }

    /// Somebody wants what `cache` holds, or it is time to do what was put off.
    pub(crate) fn request(&mut self, now: Instant, cache: &GopCache, link: &Link) -> Verdict {
        self.pending = self.not_before.is_some_and(|at| now < at);
        if self.pending {
            return Verdict::Later;
        }
        if link.queue_age > QUEUE_LIMIT {
            return Verdict::Congested;
        }
        let takes = cache.takes(link.rate);
        if takes > LONGEST_REPLAY {
            return Verdict::Congested;
        }
        self.not_before = Some(now + self.min_interval.max(takes * PAUSE_FACTOR));
        Verdict::Replay(takes)
    }

    /// Somebody wants one who is not ready for it before `at`.
    pub(crate) fn put_off(&mut self, at: Instant) {
        self.not_before = Some(at);
        self.pending = true;
    }

    /// A keyframe passed by itself: it serves who waited.
    pub(crate) fn keyframe(&mut self) {
        self.pending = false;
    }

    /// When a request that came too early is due.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MS: Duration = Duration::from_millis(1);
    const H264: Codec = Codec::H264;

    fn frame(at: u32, bytes: usize) -> Frame {
        Frame {
            data: vec![7; bytes].into(),
            media_time: at * MS,
            captured_at: Instant::now(),
            capture_time: None,
        }
    }

    fn config(max_duration: Duration, max_bytes: usize) -> GopCacheConfig {
        GopCacheConfig { max_duration, max_bytes, ..GopCacheConfig::default() }
    }

    /// A keyframe and `deltas` frames, 40 ms apart, of 1000 bytes each.
    fn filled(deltas: u32) -> GopCache {
        let mut cache = GopCache::new(&config(3600 * 1000 * MS, usize::MAX));
        for n in 0..=deltas {
            cache.push(&frame(1000 + n * 40, 1000), n == 0).unwrap();
        }
        cache
    }

    fn last(at: Duration) -> LastSent {
        LastSent { media_time: at, captured_at: Instant::now() }
    }

    fn clock() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    #[test]
    fn who_measures_delay_is_told_when_frames_were_really_captured() {
        let mut cache = GopCache::new(&GopCacheConfig::default());
        let (now, wall) = clock();
        let known = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        let key = Frame { captured_at: now - 1500 * MS, ..frame(0, 1) };
        let stamped = Frame { capture_time: Some(known), ..frame(40, 1) };
        cache.push(&key, true).unwrap();
        cache.push(&stamped, false).unwrap();
        let replayed = cache.replay(H264, &last(40 * MS), Duration::ZERO, (now, wall));
        assert_eq!(replayed[0].capture_time, Some(wall - 1500 * MS));
        assert_eq!(replayed[1].capture_time, Some(known));
    }

    /// What the engine makes of a media time.
    fn rtp(frame: &Frame) -> u128 {
        frame.media_time.as_nanos() * 90_000 / NANOS
    }

    #[test]
    fn it_holds_the_current_group_and_shares_the_payloads() {
        let mut cache = GopCache::new(&GopCacheConfig::default());
        let (key, delta, next) = (frame(0, 100), frame(40, 10), frame(80, 200));
        cache.push(&delta, false).unwrap();
        assert_eq!(cache.len(), 0, "nothing to begin with");
        cache.push(&key, true).unwrap();
        cache.push(&delta, false).unwrap();
        let replayed = cache.replay(H264, &last(40 * MS), 10 * MS, clock());
        assert_eq!(replayed.len(), 2);
        assert!(Arc::ptr_eq(&replayed[0].data, &key.data) && Arc::ptr_eq(&replayed[1].data, &delta.data));
        assert_eq!(Arc::strong_count(&key.data), 3, "ours, the cache's and the replay's");
        cache.push(&next, true).unwrap();
        assert_eq!(cache.len(), 1, "a new group replaces the old one");
        assert_eq!(cache.bytes(), 200 + OVERHEAD);
        drop(replayed);
        assert_eq!(Arc::strong_count(&key.data), 1);
    }

    #[test]
    fn the_memory_bound_is_exact() {
        let bound = 3 * (100 + OVERHEAD);
        let mut cache = GopCache::new(&config(3600 * 1000 * MS, bound));
        for n in 0..3 {
            assert_eq!(cache.push(&frame(n * 40, 100), n == 0), Ok(()));
        }
        assert_eq!(cache.bytes(), bound);
        let held = frame(40, 1);
        assert_eq!(cache.push(&held, false), Err(GopTooLong::Bytes));
        assert_eq!((cache.bytes(), cache.len(), Arc::strong_count(&held.data)), (0, 0, 1));
        assert_eq!(cache.push(&frame(160, 1), false), Ok(()), "told once a group");
        assert_eq!(cache.len(), 0);
        assert_eq!(cache.push(&frame(200, 1), true), Ok(()));
        assert_eq!(cache.push(&frame(240, bound), true), Err(GopTooLong::Bytes), "a single frame");
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_time_bound_includes_its_end() {
        let mut cache = GopCache::new(&config(2000 * MS, usize::MAX));
        cache.push(&frame(500, 1), true).unwrap();
        assert_eq!(cache.push(&frame(2500, 1), false), Ok(()));
        assert_eq!(cache.push(&frame(2501, 1), false), Err(GopTooLong::Duration));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn new_limits_hold_at_once() {
        let mut cache = filled(10);
        cache.set_limits(&config(400 * MS, usize::MAX));
        assert_eq!(cache.len(), 11, "it just fits");
        cache.set_limits(&config(399 * MS, usize::MAX));
        assert_eq!(cache.len(), 0);
        let mut cache = filled(10);
        cache.set_limits(&config(3600 * 1000 * MS, 11 * (1000 + OVERHEAD) - 1));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn times_rise_from_the_last_sent_to_the_live_edge() {
        let cache = filled(59);
        let last = last(3360 * MS);
        let replayed = cache.replay(H264, &last, 33 * MS, clock());
        let live = frame(3393, 1);
        assert!(rtp(&replayed[0]) > 3360 * 90);
        assert!(replayed.windows(2).all(|w| rtp(&w[0]) < rtp(&w[1])), "strictly");
        assert!(rtp(&replayed[59]) < rtp(&live));
        // 2970 ticks between the two live frames, shared out evenly.
        assert!(replayed.windows(2).all(|w| rtp(&w[1]) - rtp(&w[0]) == 2970 / 61));
        let shift = replayed[59].captured_at - last.captured_at;
        assert_eq!(shift, replayed[59].media_time - last.media_time, "what sender reports say holds");
    }

    #[test]
    fn without_room_frames_are_a_tick_apart_and_the_next_one_follows_them() {
        let cache = filled(59);
        for start in [Duration::ZERO, 3333 * MS + Duration::from_nanos(11_112)] {
            let before = last(start);
            let replayed = cache.replay(H264, &before, Duration::ZERO, clock());
            assert!(replayed.windows(2).all(|w| rtp(&w[1]) == rtp(&w[0]) + 1));
            let end = LastSent { media_time: replayed[59].media_time, captured_at: before.captured_at };
            let early = end.before(H264, Frame { media_time: start, ..frame(0, 1) });
            assert_eq!(rtp(&early), rtp(&replayed[59]) + 1);
            let live = frame(9000, 1);
            assert_eq!(end.before(H264, live.clone()).media_time, live.media_time, "in time: as it is");
        }
    }

    #[test]
    fn how_long_a_replay_takes() {
        // 2 s of 25 frames a second with 1000 bytes: a little more than 200 kbit/s.
        let cache = filled(50);
        let bits = 51_000.0 * 8.0;
        let takes = cache.takes(1_000_000).as_secs_f64();
        assert!((takes - bits / (1e6 - bits / 2.0)).abs() < 0.001, "{takes}");
        assert_eq!(cache.takes(0), Duration::ZERO, "not known");
        assert_eq!(cache.takes(100_000), Duration::MAX, "not even the live stream fits");
        assert!(filled(0).takes(100_000) < 100 * MS, "a keyframe alone");
        assert_eq!(GopCache::new(&GopCacheConfig::default()).takes(1), Duration::ZERO);
    }

    #[test]
    fn replays_are_throttled_and_the_last_request_is_not_forgotten() {
        let (t, cache) = (Instant::now(), filled(50));
        let mut throttle = ReplayThrottle::new(500 * MS);
        let free = Link::default();
        assert_eq!(throttle.poll_at(), None);
        assert_eq!(throttle.request(t, &cache, &free), Verdict::Replay(Duration::ZERO));
        assert_eq!(throttle.poll_at(), None);
        for n in [1, 499] {
            assert_eq!(throttle.request(t + n * MS, &cache, &free), Verdict::Later);
        }
        assert_eq!(throttle.poll_at(), Some(t + 500 * MS));
        assert_eq!(throttle.request(t + 500 * MS, &cache, &free), Verdict::Replay(Duration::ZERO));
        assert_eq!(throttle.poll_at(), None);
        assert_eq!(throttle.request(t + 600 * MS, &cache, &free), Verdict::Later);
        throttle.keyframe();
        assert_eq!(throttle.poll_at(), None, "served by the keyframe");
    }

    #[test]
    fn a_replay_that_the_link_cannot_take_is_refused() {
        let (t, cache) = (Instant::now(), filled(50));
        let mut throttle = ReplayThrottle::new(500 * MS);
        let bits = 51_000 * 8;
        // The live stream takes half of the replay's bits each second, the replay the rest.
        let slow = Link { rate: bits * 3 / 2 - 10_000, ..Link::default() };
        assert_eq!(throttle.request(t, &cache, &slow), Verdict::Congested);
        let busy = Link { queue_age: 101 * MS, ..Link::default() };
        assert_eq!(throttle.request(t, &cache, &busy), Verdict::Congested);
        let enough = Link { rate: bits * 3 / 2 + 10_000, ..Link::default() };
        let Verdict::Replay(takes) = throttle.request(t, &cache, &enough) else { panic!("refused") };
        assert!(takes > 900 * MS && takes < 1000 * MS, "{takes:?}");
        assert_eq!(throttle.request(t + 600 * MS, &cache, &enough), Verdict::Later);
        assert_eq!(throttle.poll_at(), Some(t + takes * 2), "a slow link has a longer pause");
    }
}
