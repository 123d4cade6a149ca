// SPDX-License-Identifier: MIT OR Apache-2.0

//! LiveKit's two data channels, and its packets on them.
//!
//! With one peer connection the channels are ours to open, and data of others comes back on them. Their
//! labels are LiveKit's: `_reliable` (ordered) and `_lossy` (unordered, never sent again).

use std::sync::Arc;

use livekit_protocol as proto;
use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::encrypted_packet_payload::Value as Inner;
use prost::Message;
use str0m::change::SdpApi;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::{Event as RtcEvent, Rtc};
use tracing::{debug, warn};

use super::WebRtcEngine;
use crate::data::{DataPacket, ReceivedData};
use crate::e2ee::E2ee;
use crate::engine::EngineEvent;

const RELIABLE_LABEL: &str = "_reliable";
const LOSSY_LABEL: &str = "_lossy";
/// A channel that holds this much takes nothing more until half of it has left. Together with a packet each
/// they stay below the 128 KiB that all channels of a connection share.
const RELIABLE_BUFFER: usize = 64 * 1024;
/// Little, so that what waits here is not too old when it leaves.
const LOSSY_BUFFER: usize = 16 * 1024;

/// The data channels of one connection.
#[derive(Debug, Default)]
pub(crate) struct DataChannels {
    wanted: bool,
    reliable: Option<Channel>,
    lossy: Option<Channel>,
    /// Number of the last reliable packet: the server drops what it has seen before.
    sequence: u32,
}

#[derive(Debug)]
struct Channel {
    id: ChannelId,
    open: bool,
}

impl DataChannels {
    /// From now on the next offer has to bring the channels.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether an offer for them is due.
    pub(crate) fn to_be_offered(&self) -> bool {
        self.wanted && self.reliable.is_none()
    }

    /// Puts them into an offer.
    pub(crate) fn offer(&mut self, changes: &mut SdpApi<'_>) {
        let reliable = ChannelConfig { label: RELIABLE_LABEL.into(), ..Default::default() };
        let lossy = ChannelConfig {
            label: LOSSY_LABEL.into(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..Default::default()
        };
        let mut add = |config| Some(Channel { id: changes.add_channel_with_config(config), open: false });
        self.reliable = add(reliable);
        self.lossy = add(lossy);
    }

    /// A channel opened or closed. True = both are open now that were not, or the other way round.
    pub(crate) fn set_open(&mut self, rtc: &mut Rtc, id: ChannelId, open: bool) -> bool {
        let before = self.is_open();
        for (channel, buffer) in [(&mut self.reliable, RELIABLE_BUFFER), (&mut self.lossy, LOSSY_BUFFER)] {
            let Some(channel) = channel.as_mut().filter(|c| c.id == id) else { continue };
            channel.open = open;
            if open && let Some(mut channel) = rtc.channel(id) {
                channel.set_buffered_amount_low_threshold(buffer / 2);
            }
        }
        before != self.is_open()
    }

    pub(crate) fn is_open(&self) -> bool {
        [&self.reliable, &self.lossy].into_iter().all(|c| c.as_ref().is_some_and(|c| c.open))
    }

    /// Writes a packet; false = there is no room for it yet.
    pub(crate) fn write(&mut self, rtc: &mut Rtc, packet: &DataPacket, e2ee: Option<&E2ee>) -> bool {
        let (channel, buffer) = match packet.reliable {
            true => (&self.reliable, RELIABLE_BUFFER),
            false => (&self.lossy, LOSSY_BUFFER),
        };
        let Some(id) = channel.as_ref().filter(|c| c.open).map(|c| c.id) else { return false };
        let Some(mut channel) = rtc.channel(id) else { return false };
        if channel.buffered_amount() >= buffer {
            return false;
        }
        let sequence = if packet.reliable { self.sequence.wrapping_add(1).max(1) } else { 0 };
        let Some(bytes) = encode(packet, sequence, e2ee) else {
            warn!("a data packet can't be encrypted, so it is not sent");
            return true;
        };
        // An error is a channel that is on its way down, of which we hear otherwise.
        let written = channel.write(true, &bytes).unwrap_or(false);
        if written && packet.reliable {
            self.sequence = sequence;
        }
        written
    }

    /// The open channels, as the server is told of them when a stay is resumed.
    pub(crate) fn known_to_server(&self, rtc: &mut Rtc) -> Vec<proto::DataChannelInfo> {
        let channels = [(&self.reliable, RELIABLE_LABEL), (&self.lossy, LOSSY_LABEL)];
        let open = channels.into_iter().filter_map(|(channel, label)| {
            let id = channel.as_ref().filter(|c| c.open)?.id;
            let id = rtc.direct_api().sctp_stream_id_by_channel_id(id)?;
            let target = proto::SignalTarget::Publisher as i32;
            Some(proto::DataChannelInfo { label: label.into(), id: u32::from(id), target })
        });
        open.collect()
    }

    /// Whether everything written has arrived, or was given up.
    pub(crate) fn is_drained(&self, rtc: &mut Rtc) -> bool {
        let ids = [&self.reliable, &self.lossy].into_iter().flatten().map(|c| c.id);
        ids.into_iter().all(|id| rtc.channel(id).is_none_or(|mut c| c.buffered_amount() == 0))
    }

    /// What came in on a channel; `None` = nothing for the application.
    pub(crate) fn read(&self, id: ChannelId, data: &[u8], e2ee: Option<&E2ee>) -> Option<ReceivedData> {
        let reliable = self.lossy.as_ref().is_none_or(|lossy| lossy.id != id);
        decode(data, reliable, e2ee)
    }
}

impl WebRtcEngine {
    pub(super) fn open_data_channels(&mut self) {
        self.data.want();
        // Tracks on their way bring an offer with them.
        if self.data.to_be_offered() && !self.publications.unanswered() {
            self.negotiate();
            self.watch_server();
        }
    }

    pub(super) fn send_data_packet(&mut self, packet: &DataPacket) -> bool {
        if self.closed_by_server.is_some() {
            return false;
        }
        let written = self.data.write(&mut self.rtc, packet, self.e2ee.as_ref());
        self.pump();
        written
    }

    pub(super) fn data_is_drained(&mut self) -> bool {
        self.data.is_drained(&mut self.rtc)
    }

    pub(super) fn on_data_event(&mut self, event: RtcEvent) {
        match event {
            RtcEvent::ChannelOpen(id, label) => {
                debug!(label, "data channel open");
                self.data_channel(id, true);
            }
            RtcEvent::ChannelClose(id) => self.data_channel(id, false),
            RtcEvent::ChannelBufferedAmountLow(_) => self.events.push_back(EngineEvent::DataRoom),
            RtcEvent::ChannelData(data) => {
                let received = self.data.read(data.id, &data.data, self.e2ee.as_ref());
                self.events.extend(received.map(EngineEvent::DataReceived));
            }
            _ => {}
        }
    }

    fn data_channel(&mut self, id: ChannelId, open: bool) {
        if self.data.set_open(&mut self.rtc, id, open) {
            self.events.push_back(EngineEvent::DataOpen(open));
        }
    }

    /// What we may do, as far as the server does not say so when we do it.
    pub(super) fn permissions(&mut self, own: &proto::ParticipantInfo) {
        let Some(allowed) = own.permission.as_ref().map(|p| p.can_publish_data) else { return };
        if std::mem::replace(&mut self.data_allowed, allowed) != allowed {
            self.events.push_back(EngineEvent::DataAllowed(allowed));
        }
    }
}

/// `None` = it is to be encrypted, and can't be.
fn encode(packet: &DataPacket, sequence: u32, e2ee: Option<&E2ee>) -> Option<Vec<u8>> {
    let kind = if packet.reliable { Kind::Reliable } else { Kind::Lossy };
    let user = proto::UserPacket {
        payload: packet.payload.to_vec(),
        topic: Some(packet.topic.clone()).filter(|t| !t.is_empty()),
        ..Default::default()
    };
    let value = match e2ee {
        None => Value::User(user),
        Some(e2ee) => Value::EncryptedPacket(encrypt(user, e2ee)?),
    };
    // The server puts in who sent it.
    #[allow(deprecated, reason = "clients of today still read `kind`")]
    let packet = proto::DataPacket {
        kind: kind as i32,
        destination_identities: packet.destinations.clone(),
        sequence,
        value: Some(value),
        ..Default::default()
    };
    Some(packet.encode_to_vec())
}

/// Topic and payload, for those who have the key.
fn encrypt(user: proto::UserPacket, e2ee: &E2ee) -> Option<proto::EncryptedPacket> {
    let mut content = proto::EncryptedPacketPayload { value: Some(Inner::User(user)) }.encode_to_vec();
    let (iv, index) = e2ee.encrypt_data(&mut content)?;
    Some(proto::EncryptedPacket {
        encryption_type: proto::encryption::Type::Gcm as i32,
        iv: iv.to_vec(),
        key_index: index.into(),
        encrypted_value: content,
    })
}

fn decrypt(mut packet: proto::EncryptedPacket, e2ee: &E2ee) -> Option<proto::UserPacket> {
    let length = e2ee.decrypt_data(&mut packet.encrypted_value, &packet.iv, packet.key_index)?;
    let content = packet.encrypted_value.get(..length)?;
    match proto::EncryptedPacketPayload::decode(content).ok()?.value? {
        Inner::User(user) => Some(user),
        _ => None,
    }
}

/// Other kinds (chat, remote calls, data streams, transcriptions) are not for us; garbage is nothing either. A session
/// that encrypts believes nothing that did not come encrypted: the server could have made it.
pub(super) fn decode(data: &[u8], reliable: bool, e2ee: Option<&E2ee>) -> Option<ReceivedData> {
    let packet = proto::DataPacket::decode(data).ok()?;
    let user = match (packet.value?, e2ee) {
        (Value::User(user), None) => user,
        (Value::EncryptedPacket(sealed), Some(e2ee)) => decrypt(sealed, e2ee)?,
        _ => return None,
    };
    #[allow(deprecated, reason = "older servers name the sender only there")]
    let sender = match packet.participant_identity.is_empty() {
        true => user.participant_identity,
        false => packet.participant_identity,
    };
    Some(ReceivedData {
        payload: Arc::from(user.payload),
        topic: user.topic.unwrap_or_default(),
        sender,
        reliable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_carries_topic_destinations_and_a_number() {
        let packet = DataPacket {
            payload: Arc::from(*b"abc"),
            topic: "telemetry".into(),
            reliable: true,
            destinations: vec!["robot".into()],
        };
        let sent = proto::DataPacket::decode(encode(&packet, 7, None).unwrap().as_slice()).unwrap();
        assert_eq!(
            (sent.sequence, sent.destination_identities.as_slice()),
            (7, ["robot".to_string()].as_slice())
        );
        let Some(Value::User(user)) = sent.value else { panic!("no user packet") };
        assert_eq!((user.payload.as_slice(), user.topic.as_deref()), (b"abc".as_slice(), Some("telemetry")));
    }

    #[test]
    fn what_comes_in_names_its_sender() {
        let mut wire = proto::DataPacket {
            participant_identity: "viewer".into(),
            value: Some(Value::User(proto::UserPacket {
                payload: b"go".to_vec(),
                topic: Some("control".into()),
                ..Default::default()
            })),
            ..Default::default()
        };
        let seen = decode(&wire.encode_to_vec(), false, None).unwrap();
        assert_eq!((seen.sender.as_str(), seen.topic.as_str(), seen.reliable), ("viewer", "control", false));
        assert_eq!(&*seen.payload, b"go");
        wire.value = Some(Value::ChatMessage(proto::ChatMessage::default()));
        assert_eq!(decode(&wire.encode_to_vec(), true, None), None, "no data of the application's");
        assert_eq!(decode(&[0xff; 40], true, None), None, "garbage");
    }

    #[test]
    fn with_a_key_packets_are_sealed_and_only_sealed_ones_are_believed() {
        let (e2ee, other) = (E2ee::new(&"k".into(), 2).unwrap(), E2ee::new(&"x".into(), 2).unwrap());
        let packet = DataPacket {
            payload: Arc::from(*b"secret"),
            topic: "telemetry".into(),
            reliable: true,
            destinations: vec!["robot".into()],
        };
        let wire = encode(&packet, 7, Some(&e2ee)).unwrap();
        for hidden in [&b"secret"[..], b"telemetry"] {
            assert!(!wire.windows(hidden.len()).any(|w| w == hidden), "the server could read it");
        }
        let seen = proto::DataPacket::decode(wire.as_slice()).unwrap();
        assert_eq!((seen.sequence, seen.destination_identities.len()), (7, 1), "what the server needs");
        let got = decode(&wire, true, Some(&e2ee)).unwrap();
        assert_eq!((&*got.payload, got.topic.as_str()), (&b"secret"[..], "telemetry"));
        assert_eq!(decode(&wire, true, Some(&other)), None, "another key");
        assert_eq!(decode(&wire, true, None), None, "no key");
        let plain = encode(&packet, 8, None).unwrap();
        assert_eq!(decode(&plain, true, Some(&e2ee)), None, "anybody could have made it");
    }

    #[test]
    fn both_channels_are_in_one_offer_and_only_once() {
        let mut rtc = Rtc::new(std::time::Instant::now());
        let mut channels = DataChannels::default();
        assert!(!channels.to_be_offered(), "nobody wants them");
        channels.want();
        assert!(channels.to_be_offered());
        let mut changes = rtc.sdp_api();
        channels.offer(&mut changes);
        let (offer, _pending) = changes.apply().unwrap();
        assert_eq!(offer.to_sdp_string().matches("m=application").count(), 1);
        assert!(!channels.to_be_offered() && !channels.is_open());
    }
}
