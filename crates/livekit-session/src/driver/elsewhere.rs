// SPDX-License-Identifier: MIT OR Apache-2.0

//! Another room than the one that we were told to join, and other places where the server can be reached.

use super::Driver;
use crate::config::Credentials;
use crate::error::Error;
use crate::event::{Event, RoomInfo};

/// Whether another region of the server may do what this one did not.
pub(super) fn may_help(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::ConnectTimeout(_) | Error::Server(_) | Error::SignalClosed(_)
    )
}

impl Driver {
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
