// SPDX-License-Identifier: MPL-2.0

//! Whether the bin still holds the pipeline in PAUSED.
//!
//! A pipeline that is not live waits until what it has to show so far is published, so that nothing of a
//! file is lost while the room is joined. Tracks that turn up later don't hold anything.

use std::collections::HashSet;
use std::hash::Hash;

/// Decides when the bin's asynchronous change to PAUSED is done. Every method that returns a bool returns
/// true exactly when it is done by this very call, and the caller must say so to GStreamer.
#[derive(Debug)]
pub(crate) struct Preroll<T> {
    pending: bool,
    waiting: HashSet<T>,
}

impl<T> Default for Preroll<T> {
    fn default() -> Self {
        Self { pending: false, waiting: HashSet::new() }
    }
}

impl<T: Hash + Eq> Preroll<T> {
    /// The change to PAUSED begins.
    pub fn start(&mut self) {
        self.pending = true;
        self.waiting.clear();
    }

    /// A track was added that is to be published first.
    pub fn added(&mut self, track: T) {
        if self.pending {
            self.waiting.insert(track);
        }
    }

    /// The track is published, or never will be.
    pub fn settled(&mut self, track: &T) -> bool {
        self.waiting.remove(track) && self.waiting.is_empty() && self.finish()
    }

    /// There is nothing to wait for: live input, PLAYING asked for, or shutting down.
    pub fn finish(&mut self) -> bool {
        std::mem::take(&mut self.pending)
    }

    /// Whether the change is still going on.
    pub fn is_pending(&self) -> bool {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_once_when_all_tracks_are_published() {
        let mut preroll = Preroll::default();
        preroll.start();
        preroll.added(1);
        preroll.added(2);
        assert!(!preroll.settled(&1));
        assert!(!preroll.settled(&1), "the same track again");
        assert!(preroll.settled(&2));
        assert!(!preroll.settled(&2));
        assert!(!preroll.finish());
    }

    #[test]
    fn a_track_nobody_waits_for_ends_nothing() {
        let mut preroll = Preroll::default();
        preroll.start();
        assert!(!preroll.settled(&7));
        assert!(preroll.is_pending());
    }

    #[test]
    fn finish_ends_it_once_and_later_tracks_hold_nothing() {
        let mut preroll = Preroll::default();
        preroll.start();
        preroll.added(1);
        assert!(preroll.finish());
        assert!(!preroll.settled(&1));
        preroll.added(2);
        assert!(!preroll.settled(&2));
    }

    #[test]
    fn a_second_start_waits_again() {
        let mut preroll = Preroll::default();
        preroll.start();
        assert!(preroll.finish());
        preroll.start();
        preroll.added(3);
        assert!(preroll.settled(&3));
    }
}
