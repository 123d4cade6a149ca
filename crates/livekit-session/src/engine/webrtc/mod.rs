// SPDX-License-Identifier: MIT OR Apache-2.0

//! The engine on str0m, a WebRTC implementation without I/O of its own, with LiveKit's signalling.
//!
//! One peer connection, offers only from our side. str0m's rule is one mutation, then `poll_output` until
//! it says `Timeout`: [`WebRtcEngine::pump`] is called after each.

mod bandwidth;
mod codecs;
mod data;
mod encryption;
mod figures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod offer;
mod paths;
mod publications;
mod resume;
mod room;
mod room_feedback;
mod trailer;
mod transport;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use livekit_protocol as proto;
use livekit_protocol::{signal_request, signal_response};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, MediaTime};
use str0m::net::Receive;
use str0m::rtp::AbsCaptureTime;
use str0m::{Candidate, Event as RtcEvent, IceConnectionState, Input, Output, Reason, Rtc};
use tracing::{debug, trace};

use super::{EngineEvent, MediaEngine};
use crate::config::{Credentials, Description, Secret, SessionConfig, TrackConfig};
use crate::data::DataPacket;
use crate::e2ee::E2ee;
use crate::error::{Error, PublishError};
use crate::event::{ConnectionQuality, KeyframeReason, Participant, RoomInfo, TrackId};
use crate::frame::Frame;
use crate::signal::{Incoming, Refusal, Resumed, Signal};
use bandwidth::Bandwidth;
use codecs::VideoOffer;
use data::DataChannels;
use figures::Figures;
use paths::Paths;
use publications::{MAX_LAYERS, Publications};
use resume::{Health, Resume};
use room::room_info;
use transport::{Arrival, Transport};

/// Datagrams taken from the sockets before outgoing work gets its turn.
const RECEIVE_BATCH: usize = 32;
/// The estimator wants to be looked after every 25 ms; feedback from the network and frames do it too. With this much more
/// of a pause it costs no wake-up of its own between two frames.
const ESTIMATOR_PATIENCE: Duration = Duration::from_millis(10);
/// Calls that str0m may ask for at once before others get their turn.
const MAX_CALLS_IN_A_ROW: usize = 256;
/// ICE candidates kept until the answer is there.
const MAX_EARLY_CANDIDATES: usize = 64;
/// The request that sets our own name, metadata and attributes.
const DESCRIBE_SELF: u32 = 1;
/// A server that sends us away closes the media transport and says so in its signalling; which of the two
/// comes first is chance, and only the second tells whether we may come back.
const LEAVE_GRACE: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(crate) struct WebRtcEngine {
    signal: Signal,
    rtc: Rtc,
    transport: Transport,
    paths: Paths,
    receive_buffer: Box<[u8]>,
    /// When str0m wants to be called next.
    timeout: Instant,
    publications: Publications,
    data: DataChannels,
    data_allowed: bool,
    e2ee: Option<E2ee>,
    offer: Option<(SdpPendingOffer, u32)>,
    /// The offer that was sent last, and the last one that was answered with its answer: all of them SDP.
    sent: String,
    agreed: Option<(String, String)>,
    next_offer: u32,
    early_candidates: Vec<Candidate>,
    answered: bool,
    connected: bool,
    /// The server closed the media transport; why, its signalling says until then.
    closed_by_server: Option<Instant>,
    /// What is known of the media path, and what is done about its loss or that of signalling.
    health: Health,
    resume: Option<Resume>,
    /// Set while the first connection is awaited.
    connect_deadline: Option<Instant>,
    /// Until when the server has to answer what it was asked.
    answer_deadline: Option<Instant>,
    connect_timeout: Duration,
    participants: HashMap<String, Participant>,
    /// What the video sections offer, from the first one on.
    video: Option<VideoOffer>,
    /// What the room takes.
    allowed: codecs::Allowed,
    own_sid: String,
    room: RoomInfo,
    /// Where the server sent us, when it sent us away.
    regions: Vec<String>,
    own_quality: Option<ConnectionQuality>,
    refreshed_token: Option<Secret>,
    bandwidth: Bandwidth,
    figures: Figures,
    /// Monotonic and wall clock, read together.
    clock: (Instant, SystemTime),
    events: VecDeque<EngineEvent>,
    failure: Option<Error>,
}

impl WebRtcEngine {
    fn new(signal: Signal, join: &proto::JoinResponse, config: &SessionConfig) -> Result<Self, Error> {
        let transport = Transport::open(signal.local_ip)
            .map_err(|e| Error::MediaTransport(format!("cannot open a UDP socket: {e}")))?;
        let now = Instant::now();
        let rtc = codecs::rtc_config().build(now);
        let mut engine = Self {
            signal,
            rtc,
            transport,
            paths: Paths::new(join, config),
            receive_buffer: vec![0; 2048].into_boxed_slice(),
            timeout: now,
            publications: Publications::default(),
            data: DataChannels::default(),
            data_allowed: true,
            e2ee: config.e2ee.clone(),
            offer: None,
            sent: String::new(),
            agreed: None,
            next_offer: 1,
            early_candidates: Vec::new(),
            answered: false,
            connected: false,
            closed_by_server: None,
            health: Health::new(now, config.reconnect_attempts),
            resume: None,
            connect_deadline: None,
            answer_deadline: None,
            connect_timeout: config.connect_timeout,
            participants: HashMap::new(),
            video: None,
            allowed: codecs::Allowed::new(join),
            own_sid: join.participant.as_ref().map(|p| p.sid.clone()).unwrap_or_default(),
            room: room_info(join),
            regions: Vec::new(),
            own_quality: None,
            refreshed_token: None,
            bandwidth: Bandwidth::default(),
            figures: Figures::default(),
            clock: (now, SystemTime::now()),
            events: VecDeque::new(),
            failure: None,
        };
        // ICE has no timers before its first input: without this, nothing would ever start them.
        engine.input(Input::Timeout(now));
        engine.open_paths()?;
        // An earlier connection may have heard otherwise.
        engine.events.push_back(EngineEvent::DataAllowed(true));
        for participant in join.participant.iter().chain(&join.other_participants) {
            engine.participant(participant);
        }
        Ok(engine)
    }

    /// Name, metadata and attributes that a ready token could not be made to carry.
    fn describe_self(&mut self, config: &SessionConfig) {
        let in_token = matches!(config.credentials, Credentials::ApiKey { .. });
        let description = config.description();
        if !in_token && !description.is_empty() {
            self.describe(&description);
        }
    }

    /// One input to str0m, then everything that it has to say about it.
    fn input(&mut self, input: Input<'_>) {
        if self.closed_by_server.is_some() {
            return;
        }
        if let Err(error) = self.rtc.handle_input(input) {
            self.fail(Error::MediaTransport(error.to_string()));
        }
        self.pump();
    }

    /// Polls str0m until it waits: sends what it wants sent, notes what it reports.
    ///
    /// The pacer asks to be called again at once after every packet that may leave now. That is done here: by
    /// way of the timer each packet would cost a wake-up, and be a millisecond late. What it wants sent leaves
    /// together when it waits again.
    fn pump(&mut self) {
        self.poll();
        self.transport.flush();
    }

    fn poll(&mut self) {
        let mut calls = 0;
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    let is_patient = self.rtc.last_timeout_reason() == Reason::BweDelayControl;
                    self.timeout = if is_patient { at + ESTIMATOR_PATIENCE } else { at };
                    let now = Instant::now();
                    if at > now || calls == MAX_CALLS_IN_A_ROW || self.closed_by_server.is_some() {
                        return;
                    }
                    calls += 1;
                    if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                        self.fail(Error::MediaTransport(error.to_string()));
                        return;
                    }
                }
                Ok(Output::Transmit(transmit)) => {
                    self.figures.leaves(&transmit.contents);
                    self.transport.queue(transmit);
                }
                Ok(Output::Event(event)) => self.on_rtc_event(event),
                Err(error) => {
                    self.fail(Error::MediaTransport(error.to_string()));
                    return;
                }
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    fn on_rtc_event(&mut self, event: RtcEvent) {
        match event {
            RtcEvent::Connected => {
                debug!("media transport connected");
                self.connected = true;
                self.connect_deadline = None;
                self.health.begin(Instant::now());
                self.report_published();
            }
            RtcEvent::IceConnectionStateChange(state) => {
                debug!(?state, "ICE");
                if state == IceConnectionState::Disconnected {
                    self.path_lost(Instant::now());
                } else if state.is_connected() {
                    self.on_ice_connected();
                    self.on_path();
                }
            }
            RtcEvent::Closed => {
                debug!("the server closed the media transport");
                self.closed_by_server.get_or_insert(Instant::now() + LEAVE_GRACE);
            }
            event @ (RtcEvent::ChannelOpen(..)
            | RtcEvent::ChannelClose(_)
            | RtcEvent::ChannelBufferedAmountLow(_)
            | RtcEvent::ChannelData(_)) => self.on_data_event(event),
            RtcEvent::KeyframeRequest(request) => {
                if let Some((track, layer)) = self.publications.by_stream(request.mid, request.rid) {
                    let reason = match request.kind {
                        KeyframeRequestKind::Pli => KeyframeReason::Pli,
                        KeyframeRequestKind::Fir => KeyframeReason::Fir,
                    };
                    self.events.push_back(EngineEvent::KeyframeRequest { track, layer, reason });
                }
            }
            RtcEvent::PeerStats(stats) => self.on_peer_stats(stats),
            RtcEvent::MediaEgressStats(stats) => self.on_stream_stats(&stats),
            other => trace!(?other, "unused"),
        }
    }

    fn report_published(&mut self) {
        if !self.connected {
            return;
        }
        for (track, sid, name, codec) in self.publications.newly_published() {
            let mime_type = codec.mime_type().to_owned();
            self.events.push_back(EngineEvent::Published { track, sid, name, mime_type });
        }
    }

    /// Sends an offer for what has changed, unless the answer to an earlier one is still missing.
    fn negotiate(&mut self) {
        if self.offer.is_some() || self.closed_by_server.is_some() || self.resume.is_some() {
            return;
        }
        let plan = self.publications.plan();
        if plan.is_empty() && !self.data.to_be_offered() {
            return;
        }
        let video = self.video.unwrap_or_else(|| VideoOffer::choose(self.publications.configs()));
        let mut changes = self.rtc.sdp_api();
        if self.data.to_be_offered() {
            self.data.offer(&mut changes);
        }
        let (mut offered, mut narrowed) = (Vec::new(), Vec::new());
        for track in plan.add {
            let Some(publication) = self.publications.get_mut(track) else { continue };
            let kind = if publication.config.codec.is_video() { MediaKind::Video } else { MediaKind::Audio };
            if kind.is_video() {
                self.video = Some(video);
            }
            let (stream, cid) = ("media".to_owned(), publication.cid.clone());
            let simulcast = publication.simulcast();
            let mid = changes.add_media(kind, Direction::SendOnly, Some(stream), Some(cid), simulcast);
            let payload_types = codecs::payload_types(&publication.config, video);
            narrowed.push(offer::Section { mid: mid.to_string(), payload_types });
            offered.push((track, mid));
        }
        for mid in plan.stop {
            changes.set_direction(mid, Direction::Inactive);
        }
        let Some((offer, pending)) = changes.apply() else {
            self.pump();
            return;
        };
        for (track, mid) in offered {
            self.publications.offered(track, mid);
        }
        self.send_offer(&offer, &narrowed, pending);
        self.pump();
        self.initial_desired_bitrate();
        if !self.connected {
            self.connect_deadline.get_or_insert(Instant::now() + self.connect_timeout);
        }
    }

    fn send_offer(&mut self, offer: &SdpOffer, new: &[offer::Section], pending: SdpPendingOffer) {
        let id = self.next_offer;
        self.next_offer = self.next_offer.wrapping_add(1);
        self.offer = Some((pending, id));
        self.sent = offer::narrow(&offer.to_sdp_string(), new);
        let offer = resume::description("offer", self.sent.clone());
        self.signal.send(signal_request::Message::Offer(proto::SessionDescription { id, ..offer }));
    }

    fn on_answer(&mut self, answer: proto::SessionDescription) {
        let Some((pending, id)) = self.offer.take() else {
            debug!("an answer to no offer of ours");
            return;
        };
        // 0: a server that does not number its answers.
        if answer.id != 0 && answer.id != id {
            debug!(answer.id, id, "an answer to an older offer");
            self.offer = Some((pending, id));
            return;
        }
        let accepted = SdpAnswer::from_sdp_string(&answer.sdp)
            .map_err(|e| e.to_string())
            .and_then(|sdp| self.rtc.sdp_api().accept_answer(pending, sdp).map_err(|e| e.to_string()));
        if let Err(reason) = accepted {
            self.fail(Error::Server(format!("its SDP answer cannot be used: {reason}")));
            return;
        }
        self.agreed = Some((std::mem::take(&mut self.sent), answer.sdp));
        self.on_ice_restarted();
        self.pump();
        self.answered = true;
        for candidate in std::mem::take(&mut self.early_candidates) {
            self.add_remote_candidate(candidate);
        }
        self.give_udp_a_head_start();
        self.publications.answered();
        self.count_streams();
        for mid in self.publications.without_red().collect::<Vec<_>>() {
            self.rtc.direct_api().set_red_send(mid, false);
            self.pump();
        }
        self.refuse_unsendable();
        self.report_published();
        self.negotiate();
        self.watch_server();
    }

    /// Tracks whose codec the answer left out.
    fn refuse_unsendable(&mut self) {
        let negotiated: Vec<_> = self.publications.negotiated().collect();
        for (track, mid, codec) in negotiated {
            let params = self.rtc.writer(mid).map(|w| codecs::choose_payload(codec, w.payload_params()));
            if params.flatten().is_none() {
                let reason = format!("its answer takes no {}", codec.mime_type());
                self.publish_failed(track, PublishError::Refused(reason));
            }
        }
    }

    fn publish_failed(&mut self, track: TrackId, reason: PublishError) {
        self.publications.remove(track);
        self.events.push_back(EngineEvent::PublishFailed { track, reason });
    }

    /// Something that the server owes us an answer to must not be waited for without end.
    fn watch_server(&mut self) {
        let owed = self.offer.is_some() || self.publications.unanswered();
        // An interruption has its own deadlines; what it holds up is owed from its end on.
        self.answer_deadline = match owed && self.resume.is_none() {
            true => self.answer_deadline.or_else(|| Some(Instant::now() + self.connect_timeout)),
            false => None,
        };
    }

    fn on_trickle(&mut self, trickle: &proto::TrickleRequest) {
        if trickle.target != proto::SignalTarget::Publisher as i32 {
            return;
        }
        let init = serde_json::from_str::<serde_json::Value>(&trickle.candidate_init).ok();
        let text = init.as_ref().and_then(|init| init.get("candidate")?.as_str());
        let Some(text) = text else { return self.signal.is_malformed() };
        // An empty string ends the list; host names (mDNS) and unknown protocols don't parse.
        let Ok(candidate) = Candidate::from_sdp_string(text) else { return };
        if !paths::is_usable(&candidate) {
            return;
        }
        if self.answered {
            self.add_remote_candidate(candidate);
        } else if self.early_candidates.len() < MAX_EARLY_CANDIDATES {
            self.early_candidates.push(candidate);
        }
    }

    fn on_message(&mut self, message: signal_response::Message) {
        use signal_response::Message as M;
        match message {
            M::Answer(answer) => self.on_answer(answer),
            M::Trickle(trickle) => self.on_trickle(&trickle),
            M::TrackPublished(published) => {
                let sid = published.track.map(|t| t.sid).unwrap_or_default();
                if let Some(track) = self.publications.announced(&published.cid, sid) {
                    if let Some(sid) = self.publications.untold_mute(track) {
                        self.send_muted(track, sid);
                    }
                    self.negotiate();
                }
            }
            M::RequestResponse(response) => self.on_request_response(response),
            M::Update(update) => {
                for participant in &update.participants {
                    self.participant(participant);
                }
            }
            M::ConnectionQuality(update) => {
                for info in update.updates.iter().filter(|u| u.participant_sid == self.own_sid) {
                    let quality = match info.quality() {
                        proto::ConnectionQuality::Poor => ConnectionQuality::Poor,
                        proto::ConnectionQuality::Good => ConnectionQuality::Good,
                        proto::ConnectionQuality::Excellent => ConnectionQuality::Excellent,
                        proto::ConnectionQuality::Lost => ConnectionQuality::Lost,
                    };
                    if self.own_quality.replace(quality) != Some(quality) {
                        self.events.push_back(EngineEvent::ConnectionQuality { quality, score: info.score });
                    }
                }
            }
            M::SubscribedQualityUpdate(update) => self.on_subscribed_quality(&update),
            M::TrackSubscribed(first) => {
                let track = self.publications.by_sid(&first.track_sid);
                self.events.extend(track.map(|track| EngineEvent::FirstSubscriber { track }));
            }
            M::Mute(mute) => self.on_mute(&mute),
            M::RoomMoved(moved) => self.on_room_moved(moved),
            M::RefreshToken(token) => self.refreshed_token = Some(Secret::new(token)),
            M::Leave(leave) => self.on_leave(&leave),
            // Media sections for tracks that others publish: we subscribe to nothing.
            other => trace!(?other, "unused"),
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        let (protocol, length, source, destination) = match arrival {
            Arrival::Datagram { protocol, length, source, destination } => {
                (protocol, length, source, destination)
            }
            Arrival::Candidate(candidate) => return self.add_local_candidate(candidate),
        };
        // Taken out so that str0m can be handed a slice of it while the rest of us is borrowed.
        let buffer = std::mem::take(&mut self.receive_buffer);
        let data = buffer.get(..length).unwrap_or_default();
        match Receive::new(protocol, source, destination, data) {
            Ok(receive) => self.input(Input::Receive(Instant::now(), receive)),
            Err(error) => trace!(%error, %source, "not a WebRTC datagram"),
        }
        self.receive_buffer = buffer;
    }

    /// One round of waiting and reacting. Cancel-safe: nothing is lost at any await.
    async fn turn(&mut self) {
        enum Wake {
            Signal(Incoming),
            Arrival(Arrival),
            Resumed(Result<Resumed, Refusal>),
            Timer,
        }
        let media = self.closed_by_server.unwrap_or(self.timeout);
        let deadlines =
            self.connect_deadline.into_iter().chain(self.answer_deadline).chain(self.paths.fallback_at);
        let deadlines = deadlines.chain(self.transport.timeout()).chain(self.path_due());
        let due = deadlines.fold(media, Instant::min);
        let wake = {
            let (transport, buffer) = (&mut self.transport, &mut self.receive_buffer);
            let resume = &mut self.resume;
            tokio::select! {
                incoming = self.signal.recv() => Wake::Signal(incoming),
                arrival = poll_fn(|cx| transport.poll_recv(cx, buffer)) => Wake::Arrival(arrival),
                outcome = poll_fn(|cx| resume::poll_signalling(resume, cx)) => Wake::Resumed(outcome),
                () = tokio::time::sleep_until(due.into()) => Wake::Timer,
            }
        };
        match wake {
            Wake::Signal(Incoming::Message(message)) => self.on_message(*message),
            Wake::Signal(Incoming::Closed(reason)) => self.signalling_lost(reason),
            Wake::Resumed(outcome) => self.on_signalling(outcome),
            Wake::Arrival(arrival) => {
                self.on_arrival(arrival);
                self.receive_more().await;
            }
            Wake::Timer => {
                let now = Instant::now();
                if self.connect_deadline.is_some_and(|deadline| now >= deadline) {
                    self.fail(Error::MediaTransport(self.no_connection()));
                }
                if self.answer_deadline.is_some_and(|deadline| now >= deadline) {
                    let timeout = self.connect_timeout;
                    self.fail(Error::Server(format!("no answer to a request to publish within {timeout:?}")));
                }
                if self.closed_by_server.is_some_and(|deadline| now >= deadline) {
                    self.fail(Error::MediaTransport("the server closed it".into()));
                }
                self.look_after_path(now);
                self.try_other_paths(now);
                self.transport.look_after(now);
                self.input(Input::Timeout(now));
            }
        }
    }

    /// What else is there already, so that a burst costs one wake-up.
    async fn receive_more(&mut self) {
        for _ in 1..RECEIVE_BATCH {
            let (transport, buffer) = (&mut self.transport, &mut self.receive_buffer);
            let more = poll_fn(|cx| {
                std::task::Poll::Ready(match transport.poll_recv(cx, buffer) {
                    std::task::Poll::Ready(datagram) => Some(datagram),
                    std::task::Poll::Pending => None,
                })
            });
            let Some(arrival) = more.await else { break };
            self.on_arrival(arrival);
        }
    }

    /// The wall-clock time of a moment on the monotonic clock.
    fn wall_clock(&mut self, at: Instant) -> SystemTime {
        let now = Instant::now();
        // Read anew now and then: the system's time may be set while we run.
        if now.duration_since(self.clock.0) > Duration::from_secs(1) {
            self.clock = (now, SystemTime::now());
        }
        let (instant, wall) = self.clock;
        match at.checked_duration_since(instant) {
            Some(ahead) => wall + ahead,
            None => wall.checked_sub(instant.duration_since(at)).unwrap_or(wall),
        }
    }
}

impl MediaEngine for WebRtcEngine {
    async fn join(config: &SessionConfig, token: &Secret) -> Result<(Self, RoomInfo), Error> {
        let began = Instant::now();
        let (signal, join) = Signal::join(config, token).await?;
        let joined_in = began.elapsed();
        let mut engine = Self::new(signal, &join, config)?;
        engine.health.set_joined_in(joined_in);
        engine.describe_self(config);
        let room = engine.room.clone();
        Ok((engine, room))
    }

    async fn regions(config: &SessionConfig, token: &Secret) -> Vec<String> {
        crate::signal::regions::fetch(config, token).await
    }

    fn publish(&mut self, track: TrackId, config: &TrackConfig) {
        if let Some(allowed) = self.allowed.refuses(config.codec) {
            let reason = PublishError::CodecNotAllowed { codec: config.codec, allowed };
            self.events.push_back(EngineEvent::PublishFailed { track, reason });
            return;
        }
        if config.layers.len() > MAX_LAYERS {
            let reason = PublishError::TooManyLayers { layers: config.layers.len(), most: MAX_LAYERS };
            self.events.push_back(EngineEvent::PublishFailed { track, reason });
            return;
        }
        if self.video.is_some_and(|video| !video.carries(config.codec)) {
            self.fail(Error::AnotherCodec(config.codec));
            return;
        }
        let config = match encryption::adapt(self.e2ee.as_ref(), config) {
            Ok(config) => config,
            Err(reason) => {
                self.events.push_back(EngineEvent::PublishFailed { track, reason });
                return;
            }
        };
        // Unique within the room: the participant's id is.
        let cid = format!("{}-{}", self.own_sid, track.0);
        let mut request = self.publications.add(track, &config, cid);
        request.encryption = encryption::announced(self.e2ee.as_ref());
        self.signal.send(signal_request::Message::AddTrack(request));
        self.watch_server();
    }

    fn unpublish(&mut self, track: TrackId) {
        self.figures.forget(track);
        if let Some(sid) = self.publications.remove(track) {
            self.events.push_back(EngineEvent::Unpublished { track, sid });
        }
        self.negotiate();
        self.watch_server();
    }

    fn write(&mut self, track: TrackId, layer: usize, frame: &Frame) -> Result<(), Error> {
        if self.closed_by_server.is_some() {
            return Ok(());
        }
        let capture_time = frame.capture_time.unwrap_or_else(|| self.wall_clock(frame.captured_at));
        let Some(publication) = self.publications.get_mut(track) else { return Ok(()) };
        let Some(mid) = publication.mid.filter(|_| publication.negotiated) else { return Ok(()) };
        let codec = publication.config.codec;
        let rid = publication.rid(layer);
        let Some(writer) = self.rtc.writer(mid) else { return Ok(()) };
        let writer = match rid {
            Some(rid) => writer.rid(rid),
            None => writer,
        };
        if publication.pt.is_none() {
            publication.pt = codecs::choose_payload(codec, writer.payload_params());
        }
        let Some(pt) = publication.pt else { return Ok(()) };
        let with_trailer = publication.config.capture_trailer;
        let with_trailer = with_trailer.then(|| trailer::append(codec, &frame.data, capture_time)).flatten();
        let data = with_trailer.map_or_else(|| frame.data.clone(), Into::into);
        let data = match encryption::seal(self.e2ee.as_ref(), codec, data) {
            Ok(Some(data)) => data,
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.publish_failed(track, reason);
                return Ok(());
            }
        };
        let ticks = frame.media_time.as_nanos() * u128::from(codec.clock_rate()) / 1_000_000_000;
        let frequency = if codec.is_video() { Frequency::NINETY_KHZ } else { Frequency::FORTY_EIGHT_KHZ };
        // RTP time wraps at 32 bits; the upper half of 64 is more than any stream lasts.
        let media_time = MediaTime::new(ticks as u64, frequency);
        let written = writer.abs_capture_time(AbsCaptureTime { capture_time, clock_offset: None }).write(
            pt,
            frame.captured_at,
            media_time,
            data,
        );
        self.pump();
        if let Err(error) = written {
            self.publish_failed(track, PublishError::Engine(error.to_string()));
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn want_data(&mut self) {
        self.open_data_channels();
    }

    fn write_data(&mut self, packet: &DataPacket) -> bool {
        self.send_data_packet(packet)
    }

    fn describe(&mut self, change: &Description) {
        self.signal.send(signal_request::Message::UpdateMetadata(proto::UpdateParticipantMetadata {
            name: change.name.clone().unwrap_or_default(),
            metadata: change.metadata.clone().unwrap_or_default(),
            attributes: change.attributes.clone().into_iter().collect(),
            request_id: DESCRIBE_SELF,
        }));
    }

    async fn next(&mut self) -> Result<EngineEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            self.turn().await;
        }
    }

    fn set_muted(&mut self, track: TrackId, muted: bool) {
        if let Some(sid) = self.publications.set_muted(track, muted) {
            self.send_muted(track, sid);
        }
    }

    fn queue_age(&mut self, track: TrackId, layer: usize) -> Duration {
        let Some(publication) = self.publications.get_mut(track) else { return Duration::ZERO };
        let (Some(mid), rid) = (publication.mid, publication.rid(layer)) else { return Duration::ZERO };
        self.stream_age(mid, rid)
    }

    fn queued_bytes(&mut self) -> usize {
        self.paced_bytes()
    }

    fn set_desired_bitrate(&mut self, bitrate: u64) {
        self.desire(bitrate);
    }

    fn reset_estimate(&mut self, bitrate: u64) {
        self.reset_estimator(bitrate);
    }

    fn drop_retransmissions(&mut self) {
        self.forget_retransmissions();
    }

    fn is_drained(&mut self) -> bool {
        let streams: Vec<_> = self.publications.streams().collect();
        streams.into_iter().all(|(mid, rid)| self.stream_bytes(mid, rid) == 0) && self.data_is_drained()
    }

    fn refreshed_token(&self) -> Option<Secret> {
        self.refreshed_token.clone()
    }

    fn suggested_regions(&self) -> Vec<String> {
        self.regions.clone()
    }

    async fn leave(mut self, deadline: Instant) {
        // It holds what closing needs.
        self.resume = None;
        self.rtc.disconnect();
        // The last words of DTLS; nobody waits for an answer to them.
        if self.rtc.is_alive() {
            self.pump();
        }
        self.transport.close(Instant::now());
        let _ = tokio::time::timeout_at(deadline.into(), self.signal.leave()).await;
    }
}
