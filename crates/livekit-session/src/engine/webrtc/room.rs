// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the server says of the room and of who is in it: refusals, participants, and that we are in another room now.

use livekit_protocol as proto;
use tracing::{debug, warn};

use super::{DESCRIBE_SELF, WebRtcEngine};
use crate::config::Secret;
use crate::engine::EngineEvent;
use crate::error::PublishError;
use crate::event::{Participant, RoomInfo};

/// More participants than servers take into a room; those beyond it are not told of.
const MAX_PARTICIPANTS: usize = 10_000;

impl WebRtcEngine {
    /// The server refuses a request of ours; for a track that is the end of it.
    pub(super) fn on_request_response(&mut self, response: proto::RequestResponse) {
        use proto::request_response::{Reason, Request};
        if matches!(response.reason(), Reason::Ok | Reason::Queued) {
            return;
        }
        let code = response.reason().as_str_name();
        let reason = match response.message.as_str() {
            "" => code.to_owned(),
            message => format!("{message} ({code})"),
        };
        match response.request {
            Some(Request::AddTrack(request)) => {
                if let Some(track) = self.publications.by_cid(&request.cid) {
                    self.publish_failed(track, PublishError::Refused(reason));
                    // The data channels may have waited for this track's offer.
                    self.negotiate();
                    self.watch_server();
                }
            }
            _ if response.request_id == DESCRIBE_SELF => {
                self.events.push_back(EngineEvent::MetadataRefused { reason });
            }
            other => warn!(reason, ?other, "the server refused a request"),
        }
    }

    /// Something is known of a participant, who may be ourselves.
    pub(super) fn participant(&mut self, info: &proto::ParticipantInfo) {
        if info.sid == self.own_sid {
            self.permissions(info);
            return;
        }
        if info.state() == proto::participant_info::State::Disconnected {
            if let Some(left) = self.participants.remove(&info.sid) {
                self.events.push_back(EngineEvent::ParticipantLeft(left));
            }
            return;
        }
        let known = self.participants.contains_key(&info.sid);
        if !known && self.participants.len() >= MAX_PARTICIPANTS {
            return;
        }
        let participant =
            Participant { identity: info.identity.clone(), sid: info.sid.clone(), name: info.name.clone() };
        self.participants.insert(info.sid.clone(), participant.clone());
        if !known {
            self.events.push_back(EngineEvent::ParticipantJoined(participant));
        }
    }

    /// Somebody with the right to do so moved us into another room. Connections and tracks stay as they are; the token is
    /// for coming back to that room.
    pub(super) fn on_room_moved(&mut self, moved: proto::RoomMovedResponse) {
        let Some(room) = moved.room.filter(|room| !room.name.is_empty()) else {
            debug!("moved into a room without a name");
            return;
        };
        if !moved.token.is_empty() {
            self.refreshed_token = Some(Secret::new(moved.token));
        }
        self.events.extend(self.participants.drain().map(|(_, left)| EngineEvent::ParticipantLeft(left)));
        let own = moved.participant.unwrap_or_default();
        if !own.sid.is_empty() && own.sid != self.own_sid {
            // The old id does not lead back, and the signalling crate knows no other.
            self.health.forbid_resuming();
            self.own_sid.clone_from(&own.sid);
        }
        if !own.sid.is_empty() {
            self.permissions(&own);
        }
        (self.room.name, self.room.sid) = (room.name, room.sid);
        self.room.participant_sid.clone_from(&self.own_sid);
        self.events.push_back(EngineEvent::Moved(self.room.clone()));
        for other in &moved.other_participants {
            self.participant(other);
        }
    }
}

/// The room as it was joined.
pub(super) fn room_info(join: &proto::JoinResponse) -> RoomInfo {
    let participant = join.participant.clone().unwrap_or_default();
    let room = join.room.clone().unwrap_or_default();
    RoomInfo {
        name: room.name,
        sid: room.sid,
        identity: participant.identity,
        participant_sid: participant.sid,
        server_version: join.server_info.as_ref().map(|i| i.version.clone()).unwrap_or_default(),
    }
}
