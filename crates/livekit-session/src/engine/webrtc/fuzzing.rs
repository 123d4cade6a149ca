// SPDX-License-Identifier: MIT OR Apache-2.0

//! See [`crate::fuzzing`].

use super::data;
pub use super::transport::fuzzing::{deframer, turn_uri};
use crate::fuzzing::key;

/// What comes on a data channel, to a session that encrypts and to one that does not.
pub fn data_packet(input: &[u8]) {
    if let Some(data) = data::decode(input, true, None) {
        assert!(data.payload.len() + data.topic.len() + data.sender.len() <= input.len());
    }
    // Who has the key is believed, and nobody else.
    if let Some(key) = key() {
        let _ = data::decode(input, false, Some(key));
    }
}
