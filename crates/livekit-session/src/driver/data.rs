// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data packets and the participant's description on their way through the driver.

use super::Driver;
use crate::config::Description;
use crate::engine::MediaEngine;

impl Driver {
    /// Whether the data channels are needed from the start of a stay.
    pub(super) fn wants_data(&self) -> bool {
        self.config.receive_data || !self.shared.data.lock().is_empty()
    }

    /// Hands over what waits, as far as there is room. The lock is never held while the engine works.
    pub(super) fn send_data<E: MediaEngine>(&mut self, engine: &mut E) {
        engine.want_data();
        for reliable in [true, false] {
            while let Some(packet) = self.next_data(reliable) {
                let bytes = packet.payload.len();
                if !engine.write_data(&packet) {
                    self.shared.data.lock().put_back(packet);
                    break;
                }
                self.data_sent = true;
                self.shared.data.lock().sent(bytes);
            }
        }
    }

    fn next_data(&self, reliable: bool) -> Option<crate::data::DataPacket> {
        self.shared.data.lock().pop(reliable)
    }

    /// Everything that was written has left.
    pub(super) fn is_drained<E: MediaEngine>(&self, engine: &mut E) -> bool {
        !self.is_waiting() && self.shared.data.lock().is_empty() && engine.is_drained()
    }

    /// Notes it for the next join; gives what differs from before.
    pub(super) fn take_description(&mut self, description: Description) -> Description {
        let change = description.since(&self.config.description());
        self.config.name = description.name;
        self.config.metadata = description.metadata;
        self.config.attributes = description.attributes;
        change
    }
}
