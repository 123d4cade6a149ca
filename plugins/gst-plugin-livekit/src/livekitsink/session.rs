// SPDX-License-Identifier: MPL-2.0

//! The bin's session: starting it, publishing into it, leaving it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{
    Credentials, Description, Event, Secret, Session, SessionConfig, TrackConfig, TrackId,
};

use super::imp::LiveKitSink;
use super::log::{CAT, SIGNALLING, dispatch};
use super::messages::Throttle;
use super::preroll::Preroll;
use super::timeline::Timeline;
use super::tracks::{Feed, Feeders};
use super::{ConnectionState, LiveKitSinkPad, credentials, errors};

/// How long leaving may take; the session promises this much.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the session was asked to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It was not.
    #[default]
    No,
    /// All pads are at their end. Data after that (a seek) joins anew.
    AfterEos,
    /// A pad has such data and is at it; the others wait for it.
    Rejoining,
    /// The element stops; frames that still come are for nobody.
    Stopping,
}

/// What a pipeline can be held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    /// The publication of a track.
    Track(TrackId),
    /// The data channels.
    Data,
}

/// Tracks that ended keep their pad for this many later ones: events may still name them.
const RETIRED_TRACKS: usize = 32;

/// What exists from READY on.
#[derive(Default)]
pub(crate) struct State {
    /// Resolved at NULL→READY.
    pub config: Option<SessionConfig>,
    /// From READY→PAUSED on: the session and its generation.
    pub session: Option<(u64, Arc<Session>)>,
    pub leaving: Leaving,
    pub timeline: Timeline,
    pub preroll: Preroll<Held>,
    /// The session was started with data channels; and they are open.
    pub data_wanted: bool,
    pub data_ready: bool,
    /// The pads of each track of the session.
    pub tracks: HashMap<TrackId, Feeders>,
    /// Of these, the ones that ended; the oldest first.
    pub retired: VecDeque<TrackId>,
    /// Tracks that are wanted, and not refused by the server.
    pub usable: HashSet<TrackId>,
    pub connection_state: ConnectionState,
    pub offline_warning: Throttle,
}

impl State {
    /// No session's tracks.
    fn forget_tracks(&mut self) {
        self.tracks.clear();
        self.retired.clear();
        self.usable.clear();
    }

    /// A track ended.
    pub(crate) fn retire(&mut self, track: TrackId) {
        self.usable.remove(&track);
        self.retired.push_back(track);
        while self.retired.len() > RETIRED_TRACKS {
            if let Some(oldest) = self.retired.pop_front() {
                self.tracks.remove(&oldest);
            }
        }
    }
}

impl LiveKitSink {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts sessions: what belongs to an earlier one is stale.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// NULL→READY: everything that can be known to be wrong without the network.
    pub(crate) fn configure(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings().clone();
        let resolved = credentials::resolve(&settings, &self.identity(), self.token_provider(), |name| {
            std::env::var(name).ok()
        });
        let (mut config, origin) = resolved.map_err(|missing| {
            let code = match missing {
                credentials::Missing::Credentials | credentials::Missing::Half { .. } => {
                    gst::ResourceError::NotAuthorized
                }
                _ => gst::ResourceError::Settings,
            };
            gst::element_imp_error!(self, code, ("{missing}"));
            gst::StateChangeError
        })?;
        config.validate().map_err(|error| {
            errors::post(&self.obj(), &error);
            gst::StateChangeError
        })?;
        if let Credentials::TokenFile(path) = &config.credentials
            && let Err(error) = std::fs::metadata(path)
        {
            gst::element_imp_error!(
                self,
                gst::ResourceError::OpenRead,
                (
                    "Cannot use token-file {}: {error}: set it to a readable file that holds a token, or unset it",
                    path.display()
                )
            );
            return Err(gst::StateChangeError);
        }
        config.e2ee = self.end_to_end()?;
        gst::info!(SIGNALLING, imp = self, "credentials from {origin}");
        self.state().config = Some(config);
        Ok(())
    }

    /// The participant's name, metadata or attributes were set: the room hears of it, now or on joining.
    pub(crate) fn describe(&self) {
        let description = credentials::description(&self.settings());
        let shown = match description {
            Ok(shown) => shown,
            Err(wrong) => {
                gst::element_imp_warning!(self, gst::ResourceError::Settings, ("Not changed: {wrong}"));
                return;
            }
        };
        let session = {
            let mut state = self.state();
            // In READY nothing is resolved yet, and nobody is there to be told.
            let Some(config) = &mut state.config else { return };
            let Description { name, metadata, attributes } = shown.clone();
            (config.name, config.metadata, config.attributes) = (name, metadata, attributes);
            state.session.clone()
        };
        if let Some((_, session)) = session {
            session.describe(shown);
        }
    }

    /// Starts joining in the background.
    pub(crate) fn start_session(&self) -> Result<(), gst::StateChangeError> {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let data = self.wants_data();
        let config = {
            let mut state = self.state();
            state.timeline = Timeline::default();
            state.forget_tracks();
            state.offline_warning.reset();
            (state.data_wanted, state.data_ready) = (data, false);
            let mut config = state.config.clone().ok_or(gst::StateChangeError)?;
            config.receive_data = data;
            config.log = dispatch(&self.obj());
            config
        };
        self.set_connection_state(ConnectionState::Connecting);
        let sink = self.obj().downgrade();
        let observer = move |event: Event| {
            if let Some(sink) = sink.upgrade() {
                sink.imp().heard(generation, event);
            }
        };
        let session = Session::start(config, Arc::new(observer)).map_err(|error| {
            self.set_connection_state(ConnectionState::Failed);
            errors::post(&self.obj(), &error);
            gst::StateChangeError
        })?;
        let mut session = Some((generation, Arc::new(session)));
        {
            let mut state = self.state();
            // A stop in the meantime has seen the old one only; this one leaves by being dropped.
            if state.leaving != Leaving::Stopping {
                std::mem::swap(&mut state.session, &mut session);
            }
        }
        drop(session);
        Ok(())
    }

    /// The session to publish into, and its generation. After an EOS one pad joins again for all of them:
    /// two sessions of one identity would throw each other out of the room.
    pub(crate) fn session_for_data(&self, hold: bool) -> Option<(u64, Arc<Session>)> {
        {
            let state = self.state();
            let mut state = self
                .rejoined
                .wait_while(state, |state| state.leaving == Leaving::Rejoining)
                .unwrap_or_else(PoisonError::into_inner);
            match state.leaving {
                Leaving::No => return state.session.clone(),
                Leaving::Stopping | Leaving::Rejoining => return None,
                Leaving::AfterEos => {}
            }
            state.leaving = Leaving::Rejoining;
            if hold {
                state.preroll.start();
            }
        }
        gst::info!(SIGNALLING, imp = self, "data after EOS: joining again");
        if hold {
            self.post_async_start();
        }
        let started = self.start_session();
        let (session, failed) = {
            let mut state = self.state();
            let failed = if started.is_err() { state.session.take() } else { None };
            if state.leaving == Leaving::Rejoining {
                state.leaving = Leaving::No;
            }
            (state.session.clone().filter(|_| state.leaving == Leaving::No), failed)
        };
        self.rejoined.notify_all();
        drop(failed);
        if started.is_err() {
            self.end_preroll("no session");
        }
        session
    }

    /// Adds a track for `pad` in the place of `old`, in the session that is (or, after an EOS, becomes) the
    /// current one; `hold` = the pipeline is to wait for it then. Returns the session's generation with it.
    pub(crate) fn publish(
        &self,
        pad: &LiveKitSinkPad,
        config: TrackConfig,
        old: Option<Feed>,
        hold: bool,
    ) -> Option<Feed> {
        let (generation, session) = self.session_for_data(hold)?;
        gst::info!(CAT, imp = self, "adding {config:?} for {}", pad.name());
        let track = self.add_track(generation, &session, config, Feeders::of([pad]))?;
        let replaced = old.filter(|old| old.generation == generation);
        self.replaced(generation, replaced.iter().map(|old| old.track.id()).collect());
        Some(Feed { generation, track, layer: 0 })
    }

    /// The generation of the session that data goes to; 0 = one is to be joined first.
    pub(crate) fn data_generation(&self) -> u64 {
        let state = self.state();
        match state.leaving {
            Leaving::AfterEos | Leaving::Rejoining => 0,
            Leaving::No | Leaving::Stopping => state.session.as_ref().map_or(0, |(of, _)| *of),
        }
    }

    /// Whether the pipeline waits for what is to be published.
    pub(crate) fn holds(&self) -> bool {
        self.state().preroll.is_pending()
    }

    /// A pad's stream ended by itself: end of stream, or the pad was released. With the last one of its pads a
    /// track ends.
    pub(crate) fn unpublish(&self, feed: Feed) {
        let (generation, id) = (feed.generation, feed.track.id());
        drop(feed);
        let done = {
            let mut state = self.state();
            if state.session.as_ref().is_none_or(|(of, _)| *of != generation) {
                return;
            }
            if let Some(feeders) = state.tracks.get_mut(&id) {
                feeders.open = feeders.open.saturating_sub(1);
                if feeders.open > 0 {
                    return;
                }
            }
            state.retire(id);
            state.preroll.settled(&Held::Track(id))
        };
        if done {
            self.post_async_done();
        }
    }

    /// Nothing holds the pipeline in PAUSED any longer.
    pub(crate) fn end_preroll(&self, why: &str) {
        let done = self.state().preroll.finish();
        if done {
            gst::debug!(CAT, imp = self, "async-done: {why}");
            self.post_async_done();
        }
    }

    pub(crate) fn post_async_start(&self) {
        // GstBin takes its own messages for those of a child, which gives it the state handling.
        self.parent_handle_message(gst::message::AsyncStart::builder().src(&*self.obj()).build());
    }

    pub(crate) fn post_async_done(&self) {
        self.parent_handle_message(gst::message::AsyncDone::builder().src(&*self.obj()).build());
        self.keep_parents_in_the_know();
    }

    /// What ends a preroll makes our parents post that they are PAUSED. A bin first posts such a message and then
    /// notes what it posted; if the application is faster and has set PLAYING in between, the older note
    /// overwrites the newer one, and the bin swallows every EOS from then on. Happens in every second run
    /// on a machine with two cores. Saying PLAYING once more sets the note right.
    fn keep_parents_in_the_know(&self) {
        let mut parent = self.obj().parent();
        while let Some(bin) = parent.and_downcast::<gst::Bin>() {
            let (_, current, pending) = bin.state(Some(gst::ClockTime::ZERO));
            if current == gst::State::Playing && pending == gst::State::VoidPending {
                gst::debug!(CAT, imp = self, "{} went to PLAYING meanwhile", bin.name());
                let message =
                    gst::message::StateChanged::builder(current, current, pending).src(&bin).build();
                let _ = bin.post_message(message);
            }
            parent = bin.parent();
        }
    }

    /// All pads are at their end: leave, and only then say so.
    pub(crate) fn leave_then_post(&self, eos: gst::Message) {
        let (session, generation) = {
            let mut state = self.state();
            // Joining anew already, or stopping: this end of stream is one of the past.
            if !matches!(state.leaving, Leaving::No | Leaving::AfterEos) {
                return;
            }
            state.leaving = Leaving::AfterEos;
            state.session.clone().map_or((None, 0), |(generation, session)| (Some(session), generation))
        };
        if let Some(session) = &session {
            session.leave();
        }
        self.obj().call_async(move |sink| {
            let imp = sink.imp();
            if let Some(session) = session
                && !session.wait_ended(LEAVE_TIMEOUT)
            {
                gst::warning!(SIGNALLING, imp = imp, "the session did not end in time");
            }
            imp.deliver_all();
            // A seek or a stop in the meantime makes this end of stream one of the past.
            let current = {
                let state = imp.state();
                let same = state.session.as_ref().map_or(0, |(of, _)| *of) == generation;
                same && state.leaving == Leaving::AfterEos
            };
            if current && sink.current_state() >= gst::State::Paused {
                // The race is everybody's whose preroll ends last, a decodebin's for instance, and here it costs the end.
                imp.keep_parents_in_the_know();
                imp.parent_post_message(eos);
            }
        });
    }

    /// PAUSED→READY, after the pads have stopped.
    pub(crate) fn stop_session(&self) {
        let session = self.state().session.take();
        if let Some((_, session)) = session {
            session.leave();
            if !session.wait_ended(LEAVE_TIMEOUT) {
                gst::warning!(SIGNALLING, imp = self, "the session did not end in time");
            }
            self.deliver_all();
        }
        // Whatever of it is still under way is stale from here on.
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut state = self.state();
        state.forget_tracks();
        state.leaving = Leaving::No;
        drop(state);
        self.set_connection_state(ConnectionState::Disconnected);
    }

    /// The `request-token` signal as a callback for the session, if anybody is connected to it.
    fn token_provider(&self) -> Option<livekit_session::TokenProvider> {
        let sink = self.obj();
        let (signal, _) = glib::subclass::SignalId::parse_name("request-token", sink.type_(), false)?;
        if !glib::signal::signal_has_handler_pending(&*sink, signal, None, true) {
            return None;
        }
        let sink = sink.downgrade();
        Some(Arc::new(move || {
            let sink = sink.upgrade().ok_or("the element is gone")?;
            sink.emit_by_name::<Option<String>>("request-token", &[])
                .filter(|token| !token.trim().is_empty())
                .map(|token| Secret::new(token.trim()))
                .ok_or_else(|| "no handler of the signal request-token returned one".into())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_session::Codec;
    use std::sync::Barrier;

    fn playing_sink() -> super::super::LiveKitSink {
        gst::init().unwrap();
        let sink: super::super::LiveKitSink = glib::Object::builder()
            .property("url", "ws://127.0.0.1:1")
            .property("api-key", "k")
            .property("api-secret", "s")
            .property("room", "r")
            .build();
        let _ = sink.set_state(gst::State::Playing);
        sink
    }

    fn pad(sink: &super::super::LiveKitSink) -> LiveKitSinkPad {
        sink.request_pad_simple("audio_%u").and_downcast().unwrap()
    }

    fn track() -> TrackConfig {
        TrackConfig::new(Codec::Opus, "a")
    }

    #[test]
    fn pads_that_come_back_together_after_eos_join_once() {
        let sink = playing_sink();
        let imp = sink.imp();
        let pads = [pad(&sink), pad(&sink), pad(&sink)];
        for _ in 0..50 {
            imp.state().leaving = Leaving::AfterEos;
            let before = imp.generation();
            let barrier = Barrier::new(pads.len());
            let publish = |pad| {
                barrier.wait();
                imp.publish(pad, track(), None, true)
            };
            let publish = &publish;
            let tracks: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = pads.iter().map(|pad| scope.spawn(move || publish(pad))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
            });
            assert_eq!(imp.generation(), before + 1, "one session");
            let state = imp.state();
            assert_eq!(state.session.as_ref().unwrap().0, before + 1);
            for feed in &tracks {
                assert_eq!(feed.generation, before + 1);
                assert!(state.usable.contains(&feed.track.id()));
            }
            assert_eq!(state.tracks.len(), pads.len(), "all in the new session");
        }
        sink.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn tracks_that_ended_are_forgotten_in_the_end() {
        let sink = playing_sink();
        let pad = pad(&sink);
        let mut old = None;
        for _ in 0..100 {
            old = sink.imp().publish(&pad, track(), old, true);
        }
        let last = old.as_ref().unwrap().track.id();
        assert_eq!(sink.imp().state().tracks.len(), RETIRED_TRACKS + 1);
        assert!(sink.imp().state().tracks.contains_key(&last));
        for _ in 0..100 {
            let other = sink.imp().publish(&pad, track(), None, true).unwrap();
            sink.imp().unpublish(other);
        }
        assert_eq!(sink.imp().state().tracks.len(), RETIRED_TRACKS + 1);
        assert_eq!(sink.imp().state().usable.len(), 1);
        sink.set_state(gst::State::Null).unwrap();
    }
}
