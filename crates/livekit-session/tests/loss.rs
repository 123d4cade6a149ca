// SPDX-License-Identifier: MIT OR Apache-2.0

//! A session against a peer over a link that loses packets: what is sent again; and one that sends nonsense.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is the report")]

mod common;

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{WAIT, serve};
use livekit_session::{Codec, Credentials, Event, Frame, Session, SessionConfig, TrackConfig, TrackStats};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc, RtcConfig};

/// Every so manieth packet is lost.
const LOSS: u64 = 10;

/// What came to the peer.
#[derive(Default)]
struct Came {
    /// The peer sends nonsense from now on, and has sent so much.
    nonsense: AtomicBool,
    sent: AtomicU64,
    /// Packets are lost from now on.
    lossy: AtomicBool,
    lost: AtomicU64,
    media: AtomicU64,
    /// Of the streams for retransmissions.
    rtx: AtomicU64,
    rtx_bytes: AtomicU64,
    /// … of these, with nothing in them but padding.
    empty: AtomicU64,
}

type Offers = mpsc::Receiver<(String, mpsc::Sender<String>)>;

/// The payload types of retransmissions.
fn rtx_types(sdp: &str) -> Vec<u8> {
    let types = sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")?.strip_suffix(" rtx/90000"));
    types.map(|number| number.parse().unwrap()).collect()
}

impl Came {
    /// Whether a datagram arrives.
    fn take(&self, datagram: &[u8], rtx: &[u8]) -> bool {
        let kind = datagram[1] & 127;
        if !(128..192).contains(&datagram[0]) || (192..224).contains(&datagram[1]) {
            return true;
        }
        if rtx.contains(&kind) {
            self.rtx.fetch_add(1, SeqCst);
            self.rtx_bytes.fetch_add(datagram.len() as u64, SeqCst);
            self.empty.fetch_add(u64::from(datagram[0] & 32 != 0), SeqCst);
            return true;
        }
        let number = self.media.fetch_add(1, SeqCst);
        let lost = self.lossy.load(SeqCst) && number.is_multiple_of(LOSS);
        self.lost.fetch_add(u64::from(lost), SeqCst);
        !lost
    }
}

/// The server's end of the peer connection, until nobody can send it an offer any more.
fn peer(offers: &Offers, came: &Came) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let _ = socket.set_recv_buffer_size(4 << 20);
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let socket = UdpSocket::from(socket);
    let local = socket.local_addr().unwrap();
    let mut rtc: Rtc = RtcConfig::new().build(Instant::now());
    rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
    let (mut rtx, mut buffer, mut other) = (Vec::new(), [0; 2048], None);
    while rtc.is_alive() {
        match offers.try_recv() {
            Ok((offer, reply)) => {
                rtx = rtx_types(&offer);
                let offer = SdpOffer::from_sdp_string(&offer).unwrap();
                let answer = rtc.sdp_api().accept_offer(offer).unwrap();
                let _ = reply.send(answer.to_sdp_string());
            }
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
        let until = loop {
            match rtc.poll_output().unwrap() {
                Output::Timeout(until) => break until,
                Output::Transmit(transmit) => {
                    if let Some(other) = other.filter(|_| came.nonsense.load(SeqCst)) {
                        for datagram in nonsense(&transmit.contents, came.sent.fetch_add(1, SeqCst)) {
                            let _ = socket.send_to(&datagram, other);
                        }
                    }
                    let _ = socket.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(_) => {}
            }
        };
        let wait = until.saturating_duration_since(Instant::now());
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(5));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) if other.insert(source) == &source && came.take(&buffer[..length], &rtx) => {
                let datagram = Receive::new(Protocol::Udp, source, local, &buffer[..length]).unwrap();
                rtc.handle_input(Input::Receive(Instant::now(), datagram)).unwrap();
            }
            _ => {}
        }
        rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
    }
}

/// What looks like the beginning of each protocol on the socket and goes on wrong, and what is true but for some byte. The
/// original follows: what is said twice, or is older, is none.
fn nonsense(datagram: &[u8], number: u64) -> Vec<Vec<u8>> {
    // STUN, DTLS, RTP, sender and receiver reports, feedback for the transport and for payloads, reports by extension.
    let kinds = [
        [0, 1],
        [1, 1],
        [20, 254],
        [22, 254],
        [23, 254],
        [128, 96],
        [128, 200],
        [129, 201],
        [143, 205],
        [129, 206],
        [128, 207],
    ];
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    let mut all = vec![vec![], vec![byte()], datagram[..datagram.len() / 2].to_vec()];
    for kind in kinds {
        let length = 2 + usize::from(byte());
        let mut made: Vec<u8> = (0..length).map(|_| byte()).collect();
        made[..2].copy_from_slice(&kind);
        all.push(made);
    }
    let mut changed = datagram.to_vec();
    let at = usize::from(byte()) % changed.len();
    changed[at] ^= byte() | 1;
    all.push(changed);
    all
}

/// A picture of three packets.
fn picture(number: u32) -> Frame {
    let mut data = vec![0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 1, 0x65];
    data.resize(3000, 0x55);
    Frame {
        data: data.into(),
        media_time: Duration::from_millis(33) * number,
        captured_at: Instant::now(),
        capture_time: None,
    }
}

#[test]
fn what_is_sent_again_is_counted_and_nonsense_is_survived() {
    let came = Arc::new(Came::default());
    let (offer, offers) = mpsc::channel();
    let counts = came.clone();
    let peer = thread::spawn(move || peer(&offers, &counts));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        serve(listener.accept().unwrap().0, |sdp| {
            let (reply, answer) = mpsc::channel();
            offer.send((sdp.to_owned(), reply)).unwrap();
            answer.recv_timeout(WAIT).unwrap()
        });
    });
    let mut config = SessionConfig::new(&url, Credentials::Token("a.b.c".into()));
    (config.connect_timeout, config.max_queue_time, config.reconnect_attempts) = (WAIT, WAIT, Some(0));
    let (tell, news) = mpsc::channel();
    let ends = Arc::new(AtomicU64::new(0));
    let ended = ends.clone();
    let session = Session::start(
        config,
        Arc::new(move |event: Event| match event {
            Event::Published { .. } => drop(tell.send(())),
            Event::Resuming { .. } | Event::Offline { .. } => drop(ended.fetch_add(1, SeqCst)),
            _ => {}
        }),
    )
    .unwrap();
    let track = session.add_track(TrackConfig::new(Codec::H264, "front"));
    news.recv_timeout(WAIT).unwrap();
    let mut number = 0;
    // Goes on sending pictures until the track's figures are such.
    let mut send_until = |what: &str, is_so: &dyn Fn(&TrackStats) -> bool| {
        let deadline = Instant::now() + WAIT;
        loop {
            let stats = session.stats().tracks[0].clone();
            if is_so(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "no {what}: {stats:?}");
            number += 1;
            let _ = track.write(picture(number));
            thread::sleep(Duration::from_millis(33));
        }
    };
    let whole = send_until("first packets", &|stats| stats.packets_sent >= 60);
    assert_eq!((whole.retransmits, whole.nack), (0, 0), "nothing was lost so far");
    came.lossy.store(true, SeqCst);
    // Most of it is asked for.
    let sent = send_until("retransmissions", &|stats| stats.retransmits >= 10);
    let arrived = |counter: &AtomicU64| counter.load(SeqCst);
    assert!(sent.nack > 0 && sent.retransmits <= sent.rtx_packets, "{sent:?}");
    assert!(sent.retransmits < 4 * (arrived(&came.lost) + 1), "{sent:?}: {} lost", arrived(&came.lost));
    // With what is not asked for, as many as arrive: the figures come a little later.
    let (packets, bytes, empty) = (arrived(&came.rtx), arrived(&came.rtx_bytes), arrived(&came.empty));
    let all = send_until("figures", &|stats| stats.rtx_packets >= packets && stats.rtx_bytes >= bytes);
    let most = || (arrived(&came.rtx) * 5 / 4 + 10, arrived(&came.rtx_bytes) * 5 / 4 + 15_000);
    send_until("arrivals", &|_| most() >= (all.rtx_packets, 0) && most().1 >= all.rtx_bytes);
    assert!(all.retransmits <= all.rtx_packets - empty.min(all.rtx_packets), "{all:?}");
    // Nonsense in between changes nothing: retransmissions are still asked for and sent.
    came.nonsense.store(true, SeqCst);
    let again = all.retransmits + 10;
    send_until("life amid nonsense", &|stats| {
        stats.retransmits >= again && stats.nack > all.nack && arrived(&came.sent) >= 50
    });
    assert_eq!(arrived(&ends), 0, "nothing was lost");
    drop(track);
    session.leave();
    assert!(session.wait_ended(WAIT), "leaving never ends");
    server.join().unwrap();
    peer.join().unwrap();
}
