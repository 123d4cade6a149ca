// SPDX-License-Identifier: MIT OR Apache-2.0

//! The media side: answers the server's offers and takes the frames apart again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_protocol::{signal_request, signal_response};
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaData, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::signal::Signal;
use crate::{Codec, Error};

/// One frame of a track.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The media section that it came in.
    pub mid: String,
    /// The codec of the packets, by their payload type.
    pub codec: Codec,
    /// RTP time, in ticks of the codec's clock.
    pub time: u64,
    /// Annex B for H.264 and H.265, else the codec's own frame.
    pub data: Vec<u8>,
    /// No packet is missing between this frame and the one before it.
    pub contiguous: bool,
}

/// What a [`Subscriber`] reports.
#[derive(Clone, Debug)]
pub enum Event {
    /// The media connection is up.
    Connected,
    /// The server offers a section; the payload types that it lists, as `number codec fmtp`.
    Section {
        /// Its id.
        mid: String,
        /// Its media description.
        formats: Vec<String>,
    },
    /// A frame.
    Frame(Frame),
}

/// A participant that subscribes to everything in its room.
pub struct Subscriber {
    signal: Signal,
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    buffer: Vec<u8>,
    timeout: Instant,
    next_ping: Instant,
    events: VecDeque<Event>,
    early: Vec<Candidate>,
    answered: bool,
    /// When a keyframe was last asked for.
    asked: HashMap<Mid, Instant>,
}

impl Subscriber {
    /// Joins the room that `token` names.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn join(url: &str, token: &str) -> Result<Self, Error> {
        let media = |e: std::io::Error| Error::Media(e.to_string());
        let signal = Signal::join(url, token).await?;
        let socket = UdpSocket::bind((signal.local_ip, 0)).await.map_err(media)?;
        let local = socket.local_addr().map_err(media)?;
        let now = Instant::now();
        let mut rtc = Rtc::builder().build(now);
        let candidate = Candidate::host(local, Protocol::Udp).map_err(|e| Error::Media(e.to_string()))?;
        rtc.add_local_candidate(candidate);
        let next_ping = now + signal.ping_interval;
        let mut subscriber = Self {
            signal,
            rtc,
            socket,
            local,
            buffer: vec![0; 2048],
            timeout: now,
            next_ping,
            events: VecDeque::new(),
            early: Vec::new(),
            answered: false,
            asked: HashMap::new(),
        };
        subscriber.input(Input::Timeout(now)).await?;
        Ok(subscriber)
    }

    /// What happens next. Not to be dropped half-way.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<Event, Error> {
        enum Wake {
            Signal(Box<signal_response::Message>),
            Datagram(usize, SocketAddr),
            Timer,
        }
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let due = TokioInstant::from_std(self.timeout.min(self.next_ping));
            let wake = tokio::select! {
                message = self.signal.receive() => Wake::Signal(Box::new(message?)),
                received = self.socket.recv_from(&mut self.buffer) => {
                    let (length, from) = received.map_err(|e| Error::Media(e.to_string()))?;
                    Wake::Datagram(length, from)
                }
                () = sleep_until(due) => Wake::Timer,
            };
            match wake {
                Wake::Signal(message) => self.on_message(*message).await?,
                Wake::Datagram(length, from) => {
                    let data = std::mem::take(&mut self.buffer);
                    let slice = data.get(..length).unwrap_or_default();
                    if let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, slice) {
                        self.input(Input::Receive(Instant::now(), receive)).await?;
                    }
                    self.buffer = data;
                }
                Wake::Timer => {
                    let now = Instant::now();
                    if now >= self.next_ping {
                        self.next_ping = now + self.signal.ping_interval;
                        let ping = proto::Ping { timestamp: 1, rtt: 0 };
                        self.signal.send(signal_request::Message::PingReq(ping)).await?;
                    }
                    self.input(Input::Timeout(now)).await?;
                }
            }
        }
    }

    async fn input(&mut self, input: Input<'_>) -> Result<(), Error> {
        self.rtc.handle_input(input).map_err(|e| Error::Media(e.to_string()))?;
        self.pump().await
    }

    async fn pump(&mut self) -> Result<(), Error> {
        loop {
            match self.rtc.poll_output().map_err(|e| Error::Media(e.to_string()))? {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    // Lost datagrams are what the protocols above are made for.
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination).await;
                }
                Output::Event(RtcEvent::Connected) => self.events.push_back(Event::Connected),
                Output::Event(RtcEvent::MediaData(data)) => self.on_media(data),
                Output::Event(_) => {}
            }
        }
    }

    fn on_media(&mut self, data: MediaData) {
        let Some(codec) = Codec::of(data.params.spec().codec) else { return };
        if !data.contiguous && codec != Codec::Opus {
            self.ask_for_keyframe(data.mid);
        }
        self.events.push_back(Event::Frame(Frame {
            mid: data.mid.to_string(),
            codec,
            time: data.time.numer(),
            data: data.data.to_vec(),
            contiguous: data.contiguous,
        }));
    }

    /// A picture is missing: asks for a new start, once a second at most.
    fn ask_for_keyframe(&mut self, mid: Mid) {
        let now = Instant::now();
        let recent = |at: &Instant| now.duration_since(*at) < Duration::from_secs(1);
        if self.asked.get(&mid).is_some_and(recent) {
            return;
        }
        if let Some(mut writer) = self.rtc.writer(mid)
            && writer.request_keyframe(None, KeyframeRequestKind::Pli).is_ok()
        {
            self.asked.insert(mid, now);
        }
    }

    async fn on_message(&mut self, message: signal_response::Message) -> Result<(), Error> {
        use signal_response::Message as M;
        match message {
            M::Offer(offer) => self.on_offer(offer).await,
            M::Trickle(trickle) if trickle.target == proto::SignalTarget::Subscriber as i32 => {
                let init: serde_json::Value =
                    serde_json::from_str(&trickle.candidate_init).unwrap_or_default();
                let text = init.get("candidate").and_then(serde_json::Value::as_str).unwrap_or_default();
                let Ok(candidate) = Candidate::from_sdp_string(text) else { return Ok(()) };
                if candidate.proto() == Protocol::Udp {
                    match self.answered {
                        true => self.rtc.add_remote_candidate(candidate),
                        false => self.early.push(candidate),
                    }
                }
                self.pump().await
            }
            M::Leave(_) => Err(Error::Signal("the server sent us away".into())),
            _ => Ok(()),
        }
    }

    async fn on_offer(&mut self, offer: proto::SessionDescription) -> Result<(), Error> {
        self.events.extend(sections(&offer.sdp));
        let parsed = SdpOffer::from_sdp_string(&offer.sdp).map_err(|e| Error::Media(e.to_string()))?;
        let answer = self.rtc.sdp_api().accept_offer(parsed).map_err(|e| Error::Media(e.to_string()))?;
        self.answered = true;
        for candidate in std::mem::take(&mut self.early) {
            self.rtc.add_remote_candidate(candidate);
        }
        self.pump().await?;
        let answer = proto::SessionDescription {
            r#type: "answer".into(),
            sdp: answer.to_sdp_string(),
            id: offer.id,
            ..Default::default()
        };
        self.signal.send(signal_request::Message::Answer(answer)).await
    }
}

/// The media sections of an offer, with the codecs they list.
fn sections(sdp: &str) -> Vec<Event> {
    let mut found = Vec::new();
    for section in sdp.split("\nm=").skip(1) {
        let value = |name: &str| section.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let Some(mid) = value("a=mid:") else { continue };
        let formats = section.lines().filter_map(|line| {
            let (number, codec) = line.trim().strip_prefix("a=rtpmap:")?.split_once(' ')?;
            let fmtp = value(&format!("a=fmtp:{number} ")).unwrap_or_default();
            Some(format!("{number} {codec} {fmtp}").trim_end().to_owned())
        });
        found.push(Event::Section { mid: mid.to_owned(), formats: formats.collect() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_tells_its_sections() {
        let sdp = "v=0\r\na=x\r\nm=video 9 UDP/TLS/RTP/SAVPF 108\r\na=mid:1\r\na=rtpmap:108 H264/90000\r\n\
            a=fmtp:108 profile-level-id=640032\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\na=rtpmap:111 opus/48000/2\r\n";
        let found: Vec<_> = sections(sdp)
            .into_iter()
            .map(|event| match event {
                Event::Section { mid, formats } => (mid, formats),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found[0], ("1".into(), vec!["108 H264/90000 profile-level-id=640032".into()]));
        assert_eq!(found[1], ("2".into(), vec!["111 opus/48000/2".into()]));
        assert!(sections("").is_empty());
    }
}
