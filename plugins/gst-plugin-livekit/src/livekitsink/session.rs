// SPDX-License-Identifier: MPL-2.0

//! The bin's session: starting it, publishing into it, leaving it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{Credentials, Event, Secret, Session, SessionConfig, Track, TrackConfig, TrackId};

use super::imp::{CAT, LiveKitSink};
use super::messages::Throttle;
use super::preroll::Preroll;
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
    /// The element stops; frames that still come are for nobody.
    Stopping,
}

/// What exists from READY on.
#[derive(Default)]
pub(crate) struct State {
    /// Resolved at NULL→READY.
    pub config: Option<SessionConfig>,
    /// From READY→PAUSED on.
    pub session: Option<Arc<Session>>,
    pub leaving: Leaving,
    /// The base time of the session's first frame: where its timeline begins.
    pub origin: Option<gst::ClockTime>,
    pub preroll: Preroll<TrackId>,
    /// The pad of each track of the session.
    pub tracks: HashMap<TrackId, glib::WeakRef<LiveKitSinkPad>>,
    /// Tracks that are wanted, and not refused by the server.
    pub usable: HashSet<TrackId>,
    pub connection_state: ConnectionState,
    pub offline_warning: Throttle,
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
        let (config, origin) = resolved.map_err(|missing| {
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
                ("Cannot use token-file {}: {error}", path.display())
            );
            return Err(gst::StateChangeError);
        }
        gst::info!(CAT, imp = self, "credentials from {origin}");
        self.state().config = Some(config);
        Ok(())
    }

    /// Starts joining in the background.
    pub(crate) fn start_session(&self) -> Result<(), gst::StateChangeError> {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let config = {
            let mut state = self.state();
            state.leaving = Leaving::No;
            state.origin = None;
            state.tracks.clear();
            state.usable.clear();
            state.offline_warning.reset();
            state.config.clone().ok_or(gst::StateChangeError)?
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
        let old = self.state().session.replace(Arc::new(session));
        drop(old);
        Ok(())
    }

    /// Adds a track for `pad` in the place of `old`, in the session that is (or, after an EOS, becomes) the
    /// current one; `hold` = the pipeline is to wait for it then. Returns the session's generation with it.
    pub(crate) fn publish(
        &self,
        pad: &LiveKitSinkPad,
        config: TrackConfig,
        old: Option<(u64, Track)>,
        hold: bool,
    ) -> Option<(u64, Track)> {
        let leaving = self.state().leaving;
        match leaving {
            Leaving::No => (),
            Leaving::Stopping => return None,
            Leaving::AfterEos => {
                gst::info!(CAT, imp = self, "data after EOS: joining again");
                if hold {
                    self.state().preroll.start();
                    self.post_async_start();
                }
                self.start_session().ok()?;
            }
        }
        // Ids count anew in each session.
        let old = old.and_then(|(of, old)| (of == self.generation()).then(|| old.id()));
        let mut state = self.state();
        let session = state.session.clone()?;
        gst::info!(CAT, imp = self, "adding {config:?} for {}", pad.name());
        // Under the lock, so that the track's pad is known before the first event names the track;
        // adding a track only puts it into a queue.
        let track = session.add_track(config);
        let id = track.id();
        state.tracks.insert(id, pad.downgrade());
        state.usable.insert(id);
        state.preroll.added(id);
        if let Some(old) = old {
            // Now that another one is waited for, this ends nothing.
            state.usable.remove(&old);
            state.preroll.settled(&old);
        }
        Some((self.generation(), track))
    }

    /// Where a running time with this base time lies on the session's timeline, apart from the running time
    /// itself: it goes on when a seek or a pause makes the running time begin anew.
    pub(crate) fn timeline_offset(&self, base_time: gst::ClockTime) -> gst::ClockTime {
        base_time.saturating_sub(*self.state().origin.get_or_insert(base_time))
    }

    /// A pad's track ended by itself: end of stream, new caps, or the pad was released.
    pub(crate) fn unpublish(&self, (generation, track): (u64, Track)) {
        let id = track.id();
        drop(track);
        if generation != self.generation() {
            return;
        }
        let done = {
            let mut state = self.state();
            state.usable.remove(&id);
            state.preroll.settled(&id)
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

    /// The message above made our parents post that they are PAUSED. A bin first posts such a message and then
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
            state.leaving = Leaving::AfterEos;
            (state.session.clone(), self.generation())
        };
        if let Some(session) = &session {
            session.leave();
        }
        self.obj().call_async(move |sink| {
            let imp = sink.imp();
            if let Some(session) = session
                && !session.wait_ended(LEAVE_TIMEOUT)
            {
                gst::warning!(CAT, imp = imp, "the session did not end in time");
            }
            imp.deliver_all();
            // A seek or a stop in the meantime makes this end of stream one of the past.
            let current = imp.generation() == generation && imp.state().leaving == Leaving::AfterEos;
            if current && sink.current_state() >= gst::State::Paused {
                imp.parent_post_message(eos);
            }
        });
    }

    /// PAUSED→READY, after the pads have stopped.
    pub(crate) fn stop_session(&self) {
        let session = self.state().session.take();
        if let Some(session) = session {
            session.leave();
            if !session.wait_ended(LEAVE_TIMEOUT) {
                gst::warning!(CAT, imp = self, "the session did not end in time");
            }
            self.deliver_all();
        }
        // Whatever of it is still under way is stale from here on.
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut state = self.state();
        state.tracks.clear();
        state.usable.clear();
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
