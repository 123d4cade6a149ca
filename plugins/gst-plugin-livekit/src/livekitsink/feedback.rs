// SPDX-License-Identifier: MPL-2.0

//! What the session says goes upstream as events, to the application as messages, and into properties.
//!
//! The session speaks from its network thread, which must never wait. Its events are queued and handled in
//! order on one of our [`workers`]; no lock is held meanwhile.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{Event, PublishError, TrackId};

use super::imp::LiveKitSink;
use super::log::{CAT, about_event};
use super::session::Held;
use super::{ConnectionState, LiveKitSinkPad, errors, messages, workers};

/// A handler of the application's that takes longer than this is not waited for.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(500);

/// Data packets of others that may wait for the application's handler …
const MAX_DATA_PACKETS: usize = 1024;
/// … and their bytes.
const MAX_DATA_BYTES: usize = 4 * 1024 * 1024;

/// Beyond so many events that wait, one that says the same as another, only newer, takes its place …
const MAX_EVENTS: usize = 256;
/// … and beyond so many, what nothing can take the place of is dropped.
const MAX_OTHERS: usize = 4096;

/// What an event is about: its kind, the track and the layer.
type Topic = (std::mem::Discriminant<Event>, Option<TrackId>, Option<usize>);

/// Events of one topic say what is so now; of those that wait the newest will do. `None` = each one counts.
fn topic(event: &Event) -> Option<Topic> {
    if matches!(event, Event::ParticipantJoined(_) | Event::ParticipantLeft(_) | Event::DataReceived(_)) {
        return None;
    }
    let about = messages::about(event);
    Some((std::mem::discriminant(event), about.map(|(track, _)| *track), about.and_then(|(_, layer)| layer)))
}

/// Events on their way from the session to a worker.
#[derive(Default)]
pub(crate) struct Inbox {
    events: VecDeque<(u64, Event)>,
    /// Somebody is handling them.
    busy: bool,
    /// Of these, data packets of others, and their bytes.
    data: (usize, usize),
    /// Data packets, and comings and goings of others, that came faster than the application takes them.
    pub(crate) unheard: u64,
}

impl Inbox {
    /// Others must not be able to fill our memory: what of their data is too much is dropped, and counted.
    fn take(&mut self, generation: u64, event: Event) {
        if let Event::DataReceived(data) = &event {
            let (packets, bytes) = self.data;
            if packets >= MAX_DATA_PACKETS || bytes + data.payload.len() > MAX_DATA_BYTES {
                self.unheard += 1;
                return;
            }
            self.data = (packets + 1, bytes + data.payload.len());
        } else if self.events.len() >= MAX_EVENTS {
            // The application's handler hangs.
            match topic(&event) {
                Some(new) => {
                    let same = |(of, old): &(u64, Event)| *of == generation && topic(old) == Some(new);
                    if let Some(at) = self.events.iter().position(same) {
                        self.events.remove(at);
                    }
                }
                None if self.events.len() >= MAX_OTHERS => {
                    self.unheard += 1;
                    return;
                }
                None => {}
            }
        }
        self.events.push_back((generation, event));
    }

    fn next(&mut self) -> Option<(u64, Event)> {
        let next = self.events.pop_front()?;
        if let (_, Event::DataReceived(data)) = &next {
            self.data = (self.data.0 - 1, self.data.1 - data.payload.len());
        }
        Some(next)
    }
}

impl LiveKitSink {
    /// The session said something. Called on its thread.
    pub(crate) fn heard(&self, generation: u64, event: Event) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.take(generation, event);
        let idle = !inbox.busy;
        drop(inbox);
        if idle {
            let sink = self.obj().clone();
            workers::run(move || sink.imp().deliver());
        }
    }

    /// Handles what is queued, unless another thread is at it.
    pub(crate) fn deliver(&self) {
        let mut mine = false;
        loop {
            let (generation, event) = {
                let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.busy && !mine {
                    return;
                }
                let next = inbox.next();
                inbox.busy = next.is_some();
                mine = true;
                match next {
                    Some(next) => next,
                    None => {
                        self.inbox_empty.notify_all();
                        return;
                    }
                }
            };
            if generation == self.generation() {
                self.handle(&event);
            } else {
                gst::debug!(about_event(&event), imp = self, "stale: {event:?}");
            }
        }
    }

    /// Handles what is queued, and waits for another thread that is at it already: what comes next must not
    /// overtake it.
    pub(crate) fn deliver_all(&self) {
        self.deliver();
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let _unused = self
            .inbox_empty
            .wait_timeout_while(inbox, DELIVERY_TIMEOUT, |inbox| inbox.busy || !inbox.events.is_empty());
    }

    fn handle(&self, event: &Event) {
        gst::debug!(about_event(event), imp = self, "{event:?}");
        // The one thing that is urgent: a viewer waits.
        if let Event::KeyframeRequest { track, layer, forward: true, .. } = event {
            self.request_keyframe(track, *layer);
        }
        for pad in self.pads_of_event(event) {
            if let Some(message) = messages::structure(event, &pad) {
                self.post_element_message(message);
            }
        }
        match event {
            Event::DataReady => self.data_is_ready(),
            Event::DataReceived(data) => self.data_received(data),
            Event::StateChanged(state) => self.set_connection_state(ConnectionState::from(*state)),
            Event::Published { track, .. } => {
                // Not at Joined: a room without a way for the media is no success.
                self.state().offline_warning.reset();
                self.settled(track, "published");
            }
            Event::MetadataRefused { reason } => gst::element_imp_warning!(
                self,
                gst::ResourceError::NotAuthorized,
                ("The server did not take participant-name, metadata or attributes: {reason}. A ready token \
                     needs the grant canUpdateOwnMetadata for that")
            ),
            Event::PublishFailed { track, reason } => self.publish_failed(track, reason),
            Event::Muted { track, muted, .. } => {
                for pad in self.pads_of(track) {
                    pad.imp().muted(*muted);
                }
            }
            Event::Target { track, layer, target } => {
                if let Some(pad) = self.pad_of(track, *layer) {
                    self.target(&pad, *target);
                }
            }
            Event::KeyframesIgnored { track, layer, .. } => self.keyframes_ignored(track, *layer),
            Event::GopTooLong { track, layer, bound } => self.gop_too_long(track, *layer, *bound),
            Event::Resumed { .. } => self.state().offline_warning.reset(),
            // The first attempt comes at once, and mostly nobody notices anything.
            Event::Resuming { reason, attempt } if *attempt > 1 => {
                let warn = self.state().offline_warning.allow(Instant::now());
                if warn {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::OpenReadWrite,
                        (
                            "The connection to the room is interrupted, trying to go on: {}",
                            errors::advice(reason)
                        )
                    );
                }
            }
            Event::Offline { reason, retry_in, .. } => {
                let warn = self.state().offline_warning.allow(Instant::now());
                if warn {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::OpenReadWrite,
                        ("Not in the room, trying again in {retry_in:.1?}: {}", errors::advice(reason))
                    );
                }
            }
            Event::Disconnected(Some(error)) => errors::post(&self.obj(), error),
            _ => {}
        }
    }

    fn settled(&self, track: &TrackId, why: &str) {
        let done = self.state().preroll.settled(&Held::Track(*track));
        if done {
            gst::debug!(CAT, imp = self, "async-done: {why}");
            self.post_async_done();
        }
    }

    /// A track that can't be: an error if none is left, or if no retry will ever help.
    fn publish_failed(&self, track: &TrackId, reason: &PublishError) {
        let none_left = {
            let mut state = self.state();
            state.usable.remove(track) && state.usable.is_empty()
        };
        let pads: Vec<_> = self.pads_of(track).iter().map(|pad| pad.name().to_string()).collect();
        let pad = pads.join(", ");
        match reason {
            PublishError::CodecNotAllowed { .. } => gst::element_imp_error!(
                self,
                gst::StreamError::WrongType,
                ("The track of {pad} cannot be published: {reason}. Use an encoder for one of these, or allow \
                     the codec in the server's room.enabled_codecs")
            ),
            // Nor will this one's, and the user wants to hear why before anything goes out.
            PublishError::NotEncryptable(_) => gst::element_imp_error!(
                self,
                gst::StreamError::WrongType,
                ("The track of {pad} cannot be published: {reason}")
            ),
            _ if none_left => gst::element_imp_error!(
                self,
                gst::ResourceError::Write,
                ("The track of {pad} cannot be published: {reason}. Check that the token grants canPublish")
            ),
            _ => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Write,
                    ("The track of {pad} cannot be published, the others go on: {reason}")
                );
                self.settled(track, "publishing failed");
            }
        }
    }

    /// The pad of a layer of a track.
    pub(crate) fn pad_of(&self, track: &TrackId, layer: usize) -> Option<LiveKitSinkPad> {
        self.state().tracks.get(track)?.pad(layer)
    }

    /// The pads of all layers of a track.
    pub(crate) fn pads_of(&self, track: &TrackId) -> Vec<LiveKitSinkPad> {
        let state = self.state();
        let pads = state.tracks.get(track).map(|feeders| feeders.pads.as_slice()).unwrap_or_default();
        pads.iter().filter_map(glib::WeakRef::upgrade).collect()
    }

    /// The names of the pads that an event is about; a single empty name if it is about none.
    fn pads_of_event(&self, event: &Event) -> Vec<String> {
        let pads = match messages::about(event) {
            Some((track, Some(layer))) => self.pad_of(track, layer).into_iter().collect(),
            Some((track, None)) => self.pads_of(track),
            None => Vec::new(),
        };
        match pads.is_empty() {
            true => vec![String::new()],
            false => pads.iter().map(|pad| pad.name().to_string()).collect(),
        }
    }

    pub(crate) fn set_connection_state(&self, connection_state: ConnectionState) {
        let changed =
            std::mem::replace(&mut self.state().connection_state, connection_state) != connection_state;
        if changed {
            self.obj().notify("connection-state");
        }
    }

    pub(crate) fn post_element_message(&self, structure: gst::Structure) {
        let sink = self.obj();
        let message = gst::message::Element::builder(structure).src(&*sink).build();
        // Without a bus there is nobody to tell.
        let _ = sink.post_message(message);
    }
}

impl From<livekit_session::ConnectionState> for ConnectionState {
    fn from(state: livekit_session::ConnectionState) -> Self {
        match state {
            livekit_session::ConnectionState::Disconnected => Self::Disconnected,
            livekit_session::ConnectionState::Connecting => Self::Connecting,
            livekit_session::ConnectionState::Connected => Self::Connected,
            livekit_session::ConnectionState::Reconnecting => Self::Reconnecting,
            livekit_session::ConnectionState::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_session::ReceivedData;

    #[test]
    fn data_of_others_is_bounded_while_everything_else_is_kept() {
        let packet = |bytes: usize| {
            let payload = vec![0; bytes].into();
            Event::DataReceived(ReceivedData {
                payload,
                topic: String::new(),
                sender: "flood".into(),
                reliable: false,
            })
        };
        let mut inbox = Inbox::default();
        (0..MAX_DATA_PACKETS + 5).for_each(|_| inbox.take(1, packet(1)));
        assert_eq!((inbox.events.len(), inbox.unheard), (MAX_DATA_PACKETS, 5));
        inbox.take(1, Event::DataReady);
        assert_eq!(inbox.events.len(), MAX_DATA_PACKETS + 1);
        while inbox.next().is_some() {}
        assert_eq!(inbox.data, (0, 0));
        (0..600).for_each(|_| inbox.take(1, packet(15_000)));
        assert!(inbox.events.len() * 15_000 <= MAX_DATA_BYTES && inbox.unheard > 300);
    }

    #[test]
    fn a_handler_that_hangs_costs_bounded_memory_and_no_last_word() {
        let mut inbox = Inbox::default();
        let who =
            || livekit_session::Participant { identity: "i".into(), sid: "s".into(), name: String::new() };
        for n in 0..20_000u64 {
            inbox.take(1, Event::BandwidthEstimate(n));
            inbox.take(1, Event::StateChanged(livekit_session::ConnectionState::Reconnecting));
            inbox.take(1, Event::ParticipantJoined(who()));
        }
        inbox.take(1, Event::StateChanged(livekit_session::ConnectionState::Failed));
        inbox.take(1, Event::Disconnected(None));
        assert!(inbox.events.len() <= MAX_OTHERS + 8, "{}", inbox.events.len());
        assert!(inbox.unheard > 15_000);
        let tail: Vec<_> = inbox.events.iter().rev().take(2).map(|(_, event)| event).collect();
        assert!(matches!(
            tail[..],
            [Event::Disconnected(None), Event::StateChanged(livekit_session::ConnectionState::Failed)]
        ));
        let mut estimates = inbox.events.iter().filter_map(|(_, event)| match event {
            Event::BandwidthEstimate(n) => Some(*n),
            _ => None,
        });
        assert_eq!(estimates.next_back(), Some(19_999), "the newest is there");
        inbox.take(2, Event::BandwidthEstimate(7));
        assert!(inbox.events.iter().any(|(of, e)| *of == 1 && matches!(e, Event::BandwidthEstimate(19_999))));
    }
}
