// SPDX-License-Identifier: MIT OR Apache-2.0

//! Going on with a stay in the room whose connections were interrupted, instead of joining anew: the server keeps the
//! participant and its tracks for a while, so viewers keep what they have.
//!
//! Signalling is connected again first; media goes on meanwhile if its path still carries it. Then ICE restarts (RFC 8445
//! §2.4) on that signalling: over other addresses, TCP or relays if need be. A server that knows nothing of us any more
//! says so, and the stay is over; whoever owns us joins anew then.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_protocol::signal_request;
use str0m::stats::CandidatePairStats;
use tracing::debug;

use super::WebRtcEngine;
use crate::backoff::Backoff;
use crate::engine::EngineEvent;
use crate::error::Error;
use crate::signal::{Refusal, Resumed, Resuming, leave_reason};

/// Without an answer to a connectivity check for this long the path is taken to be dead. Checks are repeated every
/// second, and four times a second once one stays without an answer, so that chance losses are no silence. Longer than
/// the two seconds for which a radio may be gone while it changes cells.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// A server gives up a participant of which it hears nothing for 20 s; with some more for its clock to run slow.
const WINDOW: Duration = Duration::from_secs(30);
/// From the offer that restarts ICE to a path.
const ICE_WAIT: Duration = Duration::from_secs(5);
/// Bounds of one attempt to reach signalling. In between: four times as long as joining took.
const MIN_ATTEMPT: Duration = Duration::from_secs(3);
/// A timer that fires this much late says that this process stood still, and nothing of the network.
const STALL: Duration = Duration::from_secs(1);

/// What the engine remembers of the path's health.
#[derive(Debug)]
pub(super) struct Health {
    /// When a connectivity check was answered last.
    answered: Instant,
    /// How many answers there were on the present path.
    answers: u64,
    /// Since when the path is taken to be dead.
    pub(super) lost: Option<Instant>,
    /// How long joining took.
    joined_in: Duration,
    /// Attempts to resume that may fail in a row.
    attempts: Option<u32>,
    /// The stay can't be resumed, whatever happens.
    lost_for_good: bool,
}

impl Health {
    pub(super) fn new(now: Instant, attempts: Option<u32>) -> Self {
        Self {
            answered: now,
            answers: 0,
            lost: None,
            joined_in: Duration::ZERO,
            attempts,
            lost_for_good: false,
        }
    }

    pub(super) fn set_joined_in(&mut self, joined_in: Duration) {
        self.joined_in = joined_in;
    }

    /// From now on an interruption ends the stay.
    pub(super) fn forbid_resuming(&mut self) {
        self.lost_for_good = true;
    }

    /// When the path is to be looked at; `None` = it is known to be dead.
    fn due(&self) -> Option<Instant> {
        self.lost.is_none().then(|| self.answered + SILENCE)
    }

    /// So many checks were answered on the present path. True = it had been dead, and is not any more.
    fn answers(&mut self, now: Instant, answers: u64) -> bool {
        if answers == 0 || std::mem::replace(&mut self.answers, answers) == answers {
            return false;
        }
        self.answered = now;
        self.lost.take().is_some()
    }

    /// The timer for [`Self::due`] fired. True = the path is dead from now on.
    fn is_silent(&mut self, now: Instant) -> bool {
        let Some(due) = self.due().filter(|due| now >= *due) else { return false };
        if now.saturating_duration_since(due) > STALL {
            // Answers may lie in the sockets unread.
            self.answered = now.checked_sub(SILENCE).unwrap_or(now) + STALL;
            return false;
        }
        self.lost = Some(now);
        true
    }

    /// The first path was found.
    pub(super) fn begin(&mut self, now: Instant) {
        self.answered = now;
    }

    /// A path was found again.
    fn restored(&mut self, now: Instant) {
        (self.answered, self.answers, self.lost) = (now, 0, None);
    }
}

/// An interruption that is being mended.
pub(super) struct Resume {
    /// What it began with.
    cause: Error,
    reason: proto::ReconnectReason,
    began: Instant,
    backoff: Backoff,
    step: Step,
}

enum Step {
    /// Signalling is being connected.
    Signalling(Resuming),
    /// The next attempt to do so begins then.
    Pause(Instant),
    /// Signalling is there, and ICE restarts: by then there has to be a path.
    Ice { until: Instant, answered: bool },
}

/// Waits for the attempt to connect signalling; for ever if there is none.
pub(super) fn poll_signalling(
    resume: &mut Option<Resume>,
    cx: &mut Context<'_>,
) -> Poll<Result<Resumed, Refusal>> {
    match resume.as_mut().map(|resume| &mut resume.step) {
        Some(Step::Signalling(attempt)) => attempt.as_mut().poll(cx),
        _ => Poll::Pending,
    }
}

impl WebRtcEngine {
    /// The signalling connection closed.
    pub(super) fn signalling_lost(&mut self, why: String) {
        match &self.resume {
            // Of an attempt that is given up, or that waits for the next one.
            Some(Resume { step: Step::Signalling(_) | Step::Pause(_), .. }) => {}
            _ => {
                self.interrupted(proto::ReconnectReason::RrSignalDisconnected, Error::SignalClosed(why));
            }
        }
    }

    /// ICE has no path any more, or has not had one for a while.
    pub(super) fn path_lost(&mut self, now: Instant) {
        if self.connected && self.health.lost.is_none() {
            self.health.lost = Some(now);
            self.tell_path_lost();
        }
    }

    fn tell_path_lost(&mut self) {
        debug!("the media path is dead");
        self.events.push_back(EngineEvent::PathLost);
        if self.resume.is_none() {
            let cause = Error::MediaTransport(self.no_connection());
            self.interrupted(proto::ReconnectReason::RrPublisherFailed, cause);
        }
    }

    /// Begins to mend an interruption, or ends the stay if that can't be.
    pub(super) fn interrupted(&mut self, reason: proto::ReconnectReason, cause: Error) {
        // What the server has not answered yet it may never have heard: joining anew is simpler, and certain.
        let settled = self.resume.is_some() || (self.offer.is_none() && !self.publications.unanswered());
        let settled = settled && !self.health.lost_for_good;
        if !self.connected || self.closed_by_server.is_some() || !settled {
            self.fail(cause);
            return;
        }
        self.offer = None;
        let (began, backoff) = match self.resume.take() {
            Some(resume) => (resume.began, resume.backoff),
            None => (Instant::now(), Backoff::default()),
        };
        let step = Step::Pause(Instant::now());
        self.resume = Some(Resume { cause, reason, began, backoff, step });
        self.connect_signalling();
    }

    fn connect_signalling(&mut self) {
        let timeout = (self.health.joined_in * 4).max(MIN_ATTEMPT).min(self.connect_timeout);
        let Some(resume) = &mut self.resume else { return };
        let attempt = resume.backoff.attempts().saturating_add(1);
        self.events.push_back(EngineEvent::Resuming { reason: resume.cause.clone(), attempt });
        resume.step = Step::Signalling(self.signal.resume(resume.reason, timeout));
    }

    /// What became of an attempt to connect signalling.
    pub(super) fn on_signalling(&mut self, outcome: Result<Resumed, Refusal>) {
        let Some(resume) = &mut self.resume else { return };
        let now = Instant::now();
        match outcome {
            Ok(resumed) => {
                debug!(elapsed = ?resume.began.elapsed(), "signalling is back");
                self.signal.take_over(resumed);
                // Closed meanwhile: the end of that is near.
                if self.closed_by_server.is_none() {
                    self.restart_ice();
                }
            }
            Err(Refusal::Left(reason)) => self.fail(Error::Left { reason, can_reconnect: false }),
            Err(Refusal::Gone) => {
                debug!("the server does not know us any more");
                let cause = resume.cause.clone();
                self.fail(cause);
            }
            Err(Refusal::Unreached(error)) => {
                debug!(%error, "signalling is not back yet");
                let (attempt, pause) = resume.backoff.failed(resume.began.elapsed(), rand::random());
                let given_up = self.health.attempts.is_some_and(|limit| limit == 0 || attempt > limit);
                let too_late =
                    self.health.lost.is_some_and(|lost| now.saturating_duration_since(lost) >= WINDOW);
                if given_up || too_late {
                    self.fail(error);
                } else {
                    resume.step = Step::Pause(now + pause);
                }
            }
        }
    }

    /// Has both sides look for a path again.
    fn restart_ice(&mut self) {
        let state = self.sync_state();
        self.signal.send(signal_request::Message::SyncState(state));
        // Where we are now we may have other addresses.
        let added = self.transport.refresh(self.signal.local_ip);
        self.start_paths_anew();
        for candidate in added {
            self.add_local_candidate(candidate);
        }
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let Some((offer, pending)) = changes.apply() else { return };
        // Candidates that come before the answer belong to what follows it.
        self.answered = false;
        self.early_candidates.clear();
        self.send_offer(&offer, &[], pending);
        self.pump();
        if let Some(resume) = &mut self.resume {
            let until = Instant::now() + ICE_WAIT.min(self.connect_timeout);
            resume.step = Step::Ice { until, answered: false };
        }
    }

    /// The answer to an offer is in use.
    pub(super) fn on_ice_restarted(&mut self) {
        if let Some(Resume { step: Step::Ice { answered, .. }, .. }) = &mut self.resume {
            *answered = true;
        }
    }

    /// ICE has a path.
    pub(super) fn on_path(&mut self) {
        if !matches!(&self.resume, Some(Resume { step: Step::Ice { answered: true, .. }, .. })) {
            return;
        }
        let Some(resume) = self.resume.take() else { return };
        debug!(elapsed = ?resume.began.elapsed(), "resumed");
        let lost = self.health.lost.is_some();
        self.health.restored(Instant::now());
        self.signal.set_resumed();
        if lost {
            self.events.push_back(EngineEvent::PathBack);
        }
        self.events.push_back(EngineEvent::Resumed);
        self.negotiate();
        self.watch_server();
    }

    /// Figures of the path in use.
    pub(super) fn on_path_stats(&mut self, pair: &CandidatePairStats) {
        // While ICE restarts, the end of that tells.
        if matches!(&self.resume, Some(Resume { step: Step::Ice { answered: true, .. }, .. })) {
            return;
        }
        if self.health.answers(Instant::now(), pair.responses_received) {
            debug!("the media path is back");
            self.events.push_back(EngineEvent::PathBack);
        }
    }

    /// Whether an interruption is being mended.
    pub(super) fn is_resuming(&self) -> bool {
        self.resume.is_some()
    }

    /// When [`Self::look_after_path`] is to be called.
    pub(super) fn path_due(&self) -> Option<Instant> {
        let watched = self.connected && self.closed_by_server.is_none();
        let silence = self.health.due().filter(|_| watched);
        let step = match self.resume.as_ref().map(|resume| &resume.step) {
            Some(Step::Pause(until) | Step::Ice { until, .. }) => Some(*until),
            Some(Step::Signalling(_)) | None => None,
        };
        silence.into_iter().chain(step).min()
    }

    pub(super) fn look_after_path(&mut self, now: Instant) {
        if self.connected && self.closed_by_server.is_none() && self.health.is_silent(now) {
            self.tell_path_lost();
        }
        match self.resume.as_ref().map(|resume| &resume.step) {
            Some(Step::Pause(until)) if now >= *until => self.connect_signalling(),
            Some(Step::Ice { until, .. }) if now >= *until => {
                let error = Error::MediaTransport(self.no_connection());
                self.fail(error);
            }
            _ => {}
        }
    }

    /// The server sends us away, for a moment or for good.
    pub(super) fn on_leave(&mut self, leave: &proto::LeaveRequest) {
        use proto::leave_request::Action;
        let reason = leave_reason(leave.reason());
        let regions = leave.regions.iter().flat_map(|settings| &settings.regions);
        self.regions = self.signal.usable(regions.map(|region| region.url.clone()));
        match leave.action() {
            Action::Resume => {
                let cause = Error::Left { reason, can_reconnect: true };
                self.interrupted(proto::ReconnectReason::RrSignalDisconnected, cause);
            }
            action => {
                let can_reconnect = action == Action::Reconnect;
                self.fail(Error::Left { reason, can_reconnect });
            }
        }
    }

    /// What the server compares with what it knows of us, and from which another one that it moved us to builds its end
    /// of the peer connection.
    fn sync_state(&mut self) -> proto::SyncState {
        let (offer, answer) = self.agreed.clone().unzip();
        proto::SyncState {
            offer: offer.map(|sdp| description("offer", sdp)),
            answer: answer.map(|sdp| description("answer", sdp)),
            publish_tracks: self.publications.published().collect(),
            data_channels: self.data.known_to_server(&mut self.rtc),
            subscription: Some(proto::UpdateSubscription::default()),
            ..Default::default()
        }
    }
}

/// A session description as signalling carries it, without a number.
pub(super) fn description(kind: &str, sdp: String) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.into(), sdp, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_path_is_dead_after_silence_and_alive_with_the_next_answer() {
        let start = Instant::now();
        let mut health = Health::new(start, None);
        assert!(!health.answers(start, 0), "no path yet");
        assert!(!health.answers(start + at(1000), 1));
        assert!(!health.is_silent(start + at(3900)));
        assert!(!health.answers(start + at(3900), 1), "not answered anew");
        assert!(health.is_silent(start + at(4000)));
        assert!(!health.is_silent(start + at(9000)), "said once");
        assert_eq!(health.due(), None);
        assert!(health.answers(start + at(9500), 2));
        assert!(!health.answers(start + at(9600), 3), "said once");
        assert_eq!(health.due(), Some(start + at(9600) + SILENCE));
        assert!(!health.answers(start + at(9700), 1), "another path, whose count is its own");
        assert_eq!(health.due(), Some(start + at(9700) + SILENCE));
    }

    #[test]
    fn a_process_that_stood_still_looks_once_more() {
        let start = Instant::now();
        let mut health = Health::new(start, None);
        let woken = start + at(60_000);
        assert!(!health.is_silent(woken), "answers may lie unread");
        let due = health.due().unwrap();
        assert!(due > woken && due <= woken + STALL, "{:?}", due - woken);
        assert!(health.is_silent(due));
    }

    #[test]
    fn a_restored_path_starts_from_nothing() {
        let start = Instant::now();
        let mut health = Health::new(start, None);
        health.answers(start, 7);
        assert!(health.is_silent(start + SILENCE));
        health.restored(start + at(5000));
        assert_eq!((health.lost, health.due()), (None, Some(start + at(5000) + SILENCE)));
        assert!(!health.answers(start + at(5500), 7));
        assert_eq!(health.due(), Some(start + at(5500) + SILENCE), "seven on the new path are answers too");
    }
}
