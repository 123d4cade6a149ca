// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether anybody needs the frames of a track's layers. Takes time as an argument.
//!
//! Three things are known: whether the track is muted, which qualities the server says are subscribed to
//! (dynacast), and, for servers that don't, that somebody subscribed or asked for a keyframe. A server that has not said anything yet is the hard
//! case: it tells at once of the first subscriber, but of there being none only after ten seconds
//! (livekit-server's `initialQualityUpdateWait`), counted from the first packet. So its silence is taken for
//! "nobody" after [`SILENCE`]. Before a layer's first frame nothing is concluded: without a packet the server
//! shows the layer to nobody.

use std::time::{Duration, Instant};

use crate::event::Quality;

/// A layer of which the server says nothing for this long after its first frame has no subscriber.
pub(crate) const SILENCE: Duration = Duration::from_secs(4);
/// A server asks each layer of a simulcast track for a keyframe a second after its first packet (seen with
/// livekit-server 1.13). Requests within this time say nothing of subscribers.
const OWN_REQUESTS: Duration = Duration::from_secs(2);

/// Why the frames of a layer are for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Nobody subscribes to the layer.
    Unwatched,
    /// The track is muted.
    Muted,
}

/// What is known of one track.
#[derive(Debug)]
pub(crate) struct Activity {
    muted: bool,
    layers: Vec<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    /// The server's word; `None` = it has not said.
    subscribed: Option<bool>,
    /// Somebody is there, and a server without dynacast does not tell when that ends.
    asked: bool,
    /// When the first frame went out since the track was published or unmuted.
    first_frame: Option<Instant>,
    /// What [`Activity::changes`] gave last.
    told: Option<Idle>,
}

impl Activity {
    /// A track with so many layers.
    pub(crate) fn new(layers: usize, muted: bool) -> Self {
        Self { muted, layers: (0..layers).map(|_| Layer::default()).collect() }
    }

    /// The track was published (again): what an earlier server said does not count any more.
    pub(crate) fn published(&mut self) {
        self.forget();
    }

    /// Mutes or unmutes. True = that is a change.
    pub(crate) fn set_muted(&mut self, muted: bool) -> bool {
        let changed = std::mem::replace(&mut self.muted, muted) != muted;
        if changed {
            // Of a muted track the server says nothing about subscriptions, and everything again when it is
            // unmuted. Until then there may be somebody.
            self.forget();
        }
        changed
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.muted
    }

    /// The server said which qualities are subscribed to.
    pub(crate) fn subscribed(&mut self, qualities: &[(Quality, bool)]) {
        if qualities.is_empty() {
            return;
        }
        let count = self.layers.len();
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let own = Quality::of_layer(index, count);
            // A viewer who wants more than there is gets the best there is.
            let top = index + 1 == count;
            let wants = |(quality, wanted): &(Quality, bool)| {
                *wanted && (*quality == own || (top && (*quality > own || count == 1)))
            };
            layer.subscribed = Some(qualities.iter().any(wants));
        }
    }

    /// The server asked for a keyframe of a layer.
    pub(crate) fn keyframe_requested(&mut self, layer: usize, now: Instant) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.asked |= layer.first_frame.is_some_and(|first| now >= first + OWN_REQUESTS);
        }
    }

    /// The server said that the track has got its first subscriber.
    pub(crate) fn first_subscriber(&mut self) {
        for layer in &mut self.layers {
            layer.asked = true;
        }
    }

    /// A frame of a layer went out.
    pub(crate) fn frame(&mut self, layer: usize, now: Instant) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.first_frame.get_or_insert(now);
        }
    }

    /// Why a layer's frames are not needed, as of the last [`Self::changes`]; `None` = they are.
    pub(crate) fn idle(&self, layer: usize) -> Option<Idle> {
        self.layers.get(layer)?.told
    }

    /// When [`Self::changes`] has something to say if nothing else happens.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        if self.muted {
            return None;
        }
        let waiting = self.layers.iter().filter(|l| l.told.is_none()).filter_map(Layer::silent_at);
        waiting.min()
    }

    /// The layers for which it is different now from what was said last, with what it is.
    pub(crate) fn changes(&mut self, now: Instant) -> Vec<(usize, Option<Idle>)> {
        let muted = self.muted;
        let mut changes = Vec::new();
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let idle = match muted {
                true => Some(Idle::Muted),
                false if layer.is_watched(now) => None,
                false => Some(Idle::Unwatched),
            };
            if std::mem::replace(&mut layer.told, idle) != idle {
                changes.push((index, idle));
            }
        }
        changes
    }

    fn forget(&mut self) {
        for layer in &mut self.layers {
            *layer = Layer { told: layer.told, ..Layer::default() };
        }
    }
}

impl Layer {
    /// When the server's silence means that there is nobody.
    fn silent_at(&self) -> Option<Instant> {
        match self.subscribed {
            None if !self.asked => self.first_frame.map(|first| first + SILENCE),
            _ => None,
        }
    }

    fn is_watched(&self, now: Instant) -> bool {
        self.subscribed.unwrap_or_else(|| self.silent_at().is_none_or(|at| now < at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Quality::{High, Low, Medium};

    const MS: Duration = Duration::from_millis(1);

    fn up_to(quality: Option<Quality>) -> [(Quality, bool); 3] {
        [Low, Medium, High].map(|q| (q, quality.is_some_and(|max| q <= max)))
    }

    fn watched(activity: &mut Activity, now: Instant) -> Vec<bool> {
        activity.changes(now);
        (0..activity.layers.len()).map(|layer| activity.idle(layer).is_none()).collect()
    }

    #[test]
    fn each_layer_follows_the_servers_word() {
        let now = Instant::now();
        let mut three = Activity::new(3, false);
        assert_eq!(three.changes(now), []);
        three.subscribed(&up_to(Some(Low)));
        assert_eq!(three.changes(now), [(1, Some(Idle::Unwatched)), (2, Some(Idle::Unwatched))]);
        assert_eq!(three.changes(now), [], "said once");
        three.subscribed(&up_to(Some(High)));
        assert_eq!(three.changes(now), [(1, None), (2, None)]);
        three.subscribed(&up_to(None));
        assert_eq!(watched(&mut three, now), [false, false, false]);
        three.subscribed(&[]);
        assert_eq!(watched(&mut three, now), [false, false, false], "nothing said, nothing changed");
    }

    #[test]
    fn who_wants_more_than_there_is_gets_the_best() {
        let now = Instant::now();
        let mut two = Activity::new(2, false);
        let mut seen = |quality| {
            two.subscribed(&up_to(quality));
            watched(&mut two, now)
        };
        assert_eq!(seen(Some(Low)), [true, false]);
        assert_eq!(seen(Some(Medium)), [true, true]);
        assert_eq!(seen(Some(High)), [true, true]);
        assert_eq!(seen(None), [false, false]);
        let mut one = Activity::new(1, false);
        for quality in [Low, Medium, High] {
            one.subscribed(&up_to(None));
            assert_eq!(watched(&mut one, now), [false]);
            one.subscribed(&up_to(Some(quality)));
            assert_eq!(watched(&mut one, now), [true], "{quality:?}");
        }
        // Listed alone, as a server that knows of one layer only might.
        two.subscribed(&[(High, true)]);
        assert_eq!(watched(&mut two, now), [false, true]);
    }

    #[test]
    fn a_silent_server_has_no_subscriber() {
        let start = Instant::now();
        let mut activity = Activity::new(2, false);
        activity.published();
        assert_eq!(activity.poll_at(), None, "no frame yet, so nobody could have subscribed");
        assert_eq!(watched(&mut activity, start + 100 * SILENCE), [true, true]);
        activity.frame(0, start);
        activity.frame(0, start + SILENCE);
        assert_eq!(activity.poll_at(), Some(start + SILENCE));
        assert_eq!(watched(&mut activity, start + SILENCE - MS), [true, true]);
        // The layer without a frame does not wait for the other one, nor the other way round.
        assert_eq!(watched(&mut activity, start + SILENCE), [false, true]);
        assert_eq!(activity.poll_at(), None);
        activity.frame(1, start + SILENCE);
        assert_eq!(watched(&mut activity, start + 2 * SILENCE), [false, false]);
    }

    #[test]
    fn silence_means_nothing_once_the_server_spoke_or_asked() {
        let start = Instant::now();
        let mut activity = Activity::new(1, false);
        activity.frame(0, start);
        activity.keyframe_requested(0, start + OWN_REQUESTS - MS);
        assert_eq!(activity.poll_at(), Some(start + SILENCE), "the server's own request");
        activity.keyframe_requested(0, start + OWN_REQUESTS);
        activity.keyframe_requested(7, start + OWN_REQUESTS);
        assert_eq!(activity.poll_at(), None);
        assert_eq!(watched(&mut activity, start + 2 * SILENCE), [true], "a server without dynacast");
        let mut activity = Activity::new(2, false);
        activity.frame(0, start);
        activity.first_subscriber();
        assert_eq!(watched(&mut activity, start + 2 * SILENCE), [true, true], "another one");
        activity.subscribed(&up_to(None));
        assert_eq!(watched(&mut activity, start + 2 * SILENCE), [false, false]);
        let mut activity = Activity::new(1, false);
        activity.frame(0, start);
        activity.subscribed(&up_to(Some(High)));
        assert_eq!(watched(&mut activity, start + 2 * SILENCE), [true]);
    }

    #[test]
    fn a_request_brings_back_what_only_silence_had_ended() {
        let start = Instant::now();
        let mut activity = Activity::new(1, false);
        activity.frame(0, start);
        assert_eq!(watched(&mut activity, start + SILENCE), [false]);
        activity.keyframe_requested(0, start + SILENCE);
        assert_eq!(watched(&mut activity, start + SILENCE), [true]);
        activity.subscribed(&up_to(None));
        activity.keyframe_requested(0, start + SILENCE);
        assert_eq!(watched(&mut activity, start + SILENCE), [false], "the server's word counts more");
    }

    #[test]
    fn muting_beats_everything_and_unmuting_starts_anew() {
        let start = Instant::now();
        let mut activity = Activity::new(1, false);
        activity.frame(0, start);
        activity.subscribed(&up_to(Some(High)));
        assert!(activity.set_muted(true) && !activity.set_muted(true));
        assert_eq!(activity.changes(start), [(0, Some(Idle::Muted))]);
        activity.subscribed(&up_to(None));
        assert_eq!(activity.changes(start), [], "still muted");
        assert!(activity.set_muted(false));
        let later = start + 10 * SILENCE;
        assert_eq!(activity.changes(later), [(0, None)], "there may be somebody by now");
        activity.frame(0, later);
        assert_eq!(activity.poll_at(), Some(later + SILENCE));
        assert_eq!(watched(&mut activity, later + SILENCE), [false]);
    }

    #[test]
    fn a_track_that_starts_muted_says_so_and_a_new_room_may_have_viewers() {
        let now = Instant::now();
        let mut activity = Activity::new(2, true);
        assert!(activity.is_muted());
        assert_eq!(activity.changes(now), [(0, Some(Idle::Muted)), (1, Some(Idle::Muted))]);
        activity.published();
        assert_eq!(activity.changes(now), [], "republished, still muted");
        let mut activity = Activity::new(1, false);
        activity.subscribed(&up_to(None));
        assert_eq!(watched(&mut activity, now), [false]);
        activity.published();
        assert_eq!(activity.changes(now), [(0, None)]);
    }
}
