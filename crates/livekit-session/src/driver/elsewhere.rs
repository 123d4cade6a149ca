// SPDX-License-Identifier: MIT OR Apache-2.0

//! Another room than the one that we were told to join, and other places where the server can be reached.

use std::collections::VecDeque;

use tracing::debug;

use super::Driver;
use crate::config::{Credentials, Secret, SessionConfig};
use crate::engine::MediaEngine;
use crate::error::Error;
use crate::event::{Event, RoomInfo};
use crate::session::Command;

/// Whether another region of the server may do what this one did not.
pub(super) fn may_help(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::ConnectTimeout(_) | Error::Server(_) | Error::SignalClosed(_)
    )
}

impl Driver {
    /// Where to try next after a stay: where the server sent us. Or else, if signalling was there and media was not, in its
    /// other regions; `begun` = with what the stay began, if that was at the address that we were given. True = the caller
    /// wants to leave.
    pub(super) async fn choose_regions<E: MediaEngine>(
        &mut self,
        error: &Error,
        suggested: Vec<String>,
        begun: Option<(&SessionConfig, &Secret)>,
    ) -> bool {
        let without_media = !self.media_up && matches!(error, Error::MediaTransport(_));
        if !suggested.is_empty() || !without_media {
            self.regions = suggested.into();
            return false;
        }
        // Those that are left of the ones that were told before.
        let Some((config, token)) = begun else { return false };
        self.regions = VecDeque::new();
        self.tracks_down();
        let asked = E::regions(config, token);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                regions = &mut asked => {
                    debug!(?regions, "media does not reach the server; its other regions");
                    self.regions = regions.into();
                    return false;
                }
                command = self.commands.recv() => match command {
                    Some(Command::Leave) | None => return true,
                    Some(command) => self.while_offline(command),
                },
            }
        }
    }

    /// We are in another room, and come back to that one after an interruption: with a token for it made of the API key,
    /// or else with the one that the server gave.
    pub(super) fn moved(&mut self, room: RoomInfo) {
        match self.config.credentials {
            Credentials::ApiKey { .. } => self.config.room = Some(room.name.clone()),
            Credentials::Token(_) | Credentials::TokenFile(_) | Credentials::Provider(_) => self.moved = true,
        }
        self.shared.status().stats.room = Some(room.name.clone());
        self.emit(Event::Moved(room));
    }

    /// The token for the room that we were moved into may be refused, since it does not last: then what we were given at
    /// first counts again, if that can give another. True = it is worth a try.
    pub(super) fn give_up_moved_token(&mut self, error: &Error) -> bool {
        let refused = self.moved && matches!(error, Error::Unauthorized { .. }) && !self.token_is_fixed();
        if refused {
            (self.server_token, self.moved) = (None, false);
        }
        refused
    }
}
