// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where end-to-end encryption meets the engine: what is announced, what is refused, and that no frame of an encrypted
//! session goes out as it is.

use std::borrow::Cow;
use std::sync::Arc;

use livekit_protocol as proto;

use crate::config::{Codec, TrackConfig};
use crate::e2ee::{E2ee, Refusal};
use crate::error::PublishError;

/// The track as it can be published.
///
/// Redundancy is made of packets, after encryption, whereas receivers decrypt what came in one packet; and a capture time
/// behind a frame would stand behind the trailer that receivers look for at its end. Both are left out.
pub(super) fn adapt<'a>(
    e2ee: Option<&E2ee>,
    config: &'a TrackConfig,
) -> Result<Cow<'a, TrackConfig>, PublishError> {
    if e2ee.is_none() {
        return Ok(Cow::Borrowed(config));
    }
    if !E2ee::can_encrypt(config.codec) {
        return Err(PublishError::NotEncryptable(config.codec));
    }
    Ok(Cow::Owned(TrackConfig { red: false, capture_trailer: false, ..config.clone() }))
}

/// What the server tells viewers, who would else take the frames as they are.
pub(super) fn announced(e2ee: Option<&E2ee>) -> i32 {
    let kind = if e2ee.is_some() { proto::encryption::Type::Gcm } else { proto::encryption::Type::None };
    kind as i32
}

/// What goes to the packetiser in place of a frame; `None` = nothing. An error ends the track.
pub(super) fn seal(
    e2ee: Option<&E2ee>,
    codec: Codec,
    data: Arc<[u8]>,
) -> Result<Option<Arc<[u8]>>, PublishError> {
    match e2ee.map(|e2ee| e2ee.encrypt(codec, &data)) {
        None => Ok(Some(data)),
        Some(Ok(sealed)) => Ok(Some(sealed)),
        // Without it a viewer misses nothing.
        Some(Err(Refusal::NoPicture)) => Ok(None),
        Some(Err(refusal)) => {
            Err(PublishError::Engine(format!("a frame can't be encrypted end to end: {refusal}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::publications::Publications;
    use super::*;
    use crate::event::TrackId;

    fn e2ee() -> E2ee {
        E2ee::new(&"k".into(), 0).unwrap()
    }

    #[test]
    fn an_encrypted_track_is_announced_without_redundancy_and_trailer() {
        let mut config = TrackConfig::new(Codec::Opus, "a");
        (config.red, config.capture_trailer) = (true, true);
        let e2ee = e2ee();
        let adapted = adapt(Some(&e2ee), &config).unwrap();
        assert!(!adapted.red && !adapted.capture_trailer);
        let request = Publications::default().add(TrackId(1), &adapted, "c".into());
        #[allow(deprecated, reason = "servers of today still read it")]
        let disabled = request.disable_red;
        assert!(disabled);
        assert_eq!(announced(Some(&e2ee)), proto::encryption::Type::Gcm as i32);
        let plain = adapt(None, &config).unwrap();
        assert!(plain.red && plain.capture_trailer);
        assert_eq!(announced(None), proto::encryption::Type::None as i32);
    }

    #[test]
    fn av1_is_refused_with_the_reason_and_only_if_it_is_to_be_encrypted() {
        let config = TrackConfig::new(Codec::Av1, "v");
        let refused = adapt(Some(&e2ee()), &config).unwrap_err();
        assert_eq!(refused, PublishError::NotEncryptable(Codec::Av1));
        assert!(refused.to_string().starts_with("AV1 cannot be encrypted end to end"), "{refused}");
        assert!(adapt(None, &config).is_ok());
    }

    #[test]
    fn no_frame_of_an_encrypted_session_goes_out_as_it_is() {
        let e2ee = e2ee();
        let frame: Arc<[u8]> = Arc::from(*b"\xfcsecret sound");
        let sealed = seal(Some(&e2ee), Codec::Opus, frame.clone()).unwrap().unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret") && sealed.len() > frame.len());
        assert_eq!(seal(Some(&e2ee), Codec::H264, frame.clone()), Ok(None));
        let sps = [0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07];
        let long = [&sps[..], &[0x55; 300], &[0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 0x88, 1]].concat();
        let refused = seal(Some(&e2ee), Codec::H264, Arc::from(long)).unwrap_err();
        assert!(refused.to_string().contains("parameter sets"), "{refused}");
        assert_eq!(seal(None, Codec::Opus, frame.clone()), Ok(Some(frame)));
    }
}
