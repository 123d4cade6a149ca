// SPDX-License-Identifier: MPL-2.0

//! `rtpudpsink-rs` against sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::*;
use gst::prelude::*;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

/// Longer than anything takes, however busy the machine.
const WAIT: Duration = Duration::from_secs(60);

fn receiver(address: &str) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A port at this address that nobody has, and that nobody is given who asks for any: those lie above (ip_local_port_range).
fn unused_port(address: &str) -> u16 {
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    (first..30_000).find(|port| UdpSocket::bind((address, *port)).is_ok()).unwrap()
}

/// A sink behind a pad that pushes; PLAYING.
struct Stage {
    sink: gst::Element,
    pad: gst::Pad,
    frames: u64,
}

impl Stage {
    fn try_new(properties: &[(&str, &str)]) -> Result<Self, (String, gst::Bus)> {
        init();
        let sink = gst::ElementFactory::make("rtpudpsink-rs").property("sync", false).build().unwrap();
        sink.set_property("async", false);
        for (name, value) in properties {
            sink.set_property_from_str(name, value);
        }
        let bus = gst::Bus::new();
        sink.set_bus(Some(&bus));
        if sink.set_state(gst::State::Playing).is_err() {
            let text = texts(&bus).concat();
            let _ = sink.set_state(gst::State::Null);
            return Err((text, bus));
        }
        let pad = gst::Pad::builder(gst::PadDirection::Src).name("src").build();
        pad.set_active(true).unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        pad.push_event(gst::event::StreamStart::new("test"));
        pad.push_event(gst::event::Caps::new(&RTP_CAPS.parse().unwrap()));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Ok(Self { sink, pad, frames: 0 })
    }

    fn new(port: u16, properties: &[(&str, &str)]) -> Self {
        let port = port.to_string();
        let all = [&[("host", "127.0.0.1"), ("port", port.as_str())], properties].concat();
        Self::try_new(&all).map_err(|(text, _)| text).unwrap()
    }

    /// Pushes packets of these lengths as one list; packet n is full of n.
    fn push(&mut self, lengths: &[usize]) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut list = gst::BufferList::new();
        for (number, &length) in lengths.iter().enumerate() {
            list.get_mut().unwrap().add(buffer(vec![number as u8; length], 40 * self.frames));
        }
        self.frames += 1;
        self.pad.push_list(list)
    }

    fn count(&self, field: &str) -> u64 {
        count(&self.sink.property::<gst::Structure>("stats"), field)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.sink.set_state(gst::State::Null);
    }
}

/// Receives as many packets as there are lengths, and compares.
fn expect(receiver: &UdpSocket, lengths: &[usize]) {
    let mut data = [0; 65536];
    for (number, &length) in lengths.iter().enumerate() {
        let (got, _) =
            receiver.recv_from(&mut data).unwrap_or_else(|error| panic!("packet {number}: {error}"));
        assert_eq!(got, length, "packet {number}");
        assert!(data[..got].iter().all(|&byte| byte == number as u8), "packet {number}");
    }
}

#[test]
fn a_list_arrives_in_order_in_few_system_calls() {
    for (gso, calls) in [("true", 2), ("false", 2)] {
        let (socket, port) = receiver("127.0.0.1");
        let mut stage = Stage::new(port, &[("gso", gso)]);
        let lengths = [vec![500; 69], vec![300]].concat();
        stage.push(&lengths).unwrap();
        expect(&socket, &lengths);
        assert_eq!(stage.count("packets"), 70);
        assert_eq!(stage.count("bytes"), 69 * 500 + 300);
        assert_eq!(stage.count("system-calls"), calls, "gso={gso}");
        let offered = stage.sink.property::<gst::Structure>("stats").get::<bool>("gso").unwrap();
        assert_eq!(stage.count("gso-packets"), if offered { 70 } else { 0 });
        assert!(offered == (gso == "true") || gso == "true", "an old kernel may have none");
    }
}

#[test]
fn unequal_packets_arrive_as_they_are() {
    let (socket, port) = receiver("127.0.0.1");
    let mut stage = Stage::new(port, &[]);
    let lengths = [20, 500, 400, 401, 402, 900, 900, 900, 900, 900, 20, 30, 1, 1400];
    stage.push(&lengths).unwrap();
    expect(&socket, &lengths);
    assert!(stage.count("system-calls") < lengths.len() as u64);
}

#[test]
fn buffers_of_several_memories_and_single_buffers() {
    let (socket, port) = receiver("127.0.0.1");
    let stage = Stage::new(port, &[]);
    let mut picture = buffer(vec![0; 12], 0);
    picture.get_mut().unwrap().append_memory(gst::Memory::from_slice(vec![0; 100]));
    stage.pad.push(picture).unwrap();
    expect(&socket, &[112]);
    stage.pad.push(gst::Buffer::new()).unwrap();
    expect(&socket, &[0]);
}

#[test]
fn packets_longer_than_the_path_allows_are_counted() {
    let (_socket, port) = receiver("127.0.0.1");
    let mut stage = Stage::new(port, &[]);
    assert_eq!(stage.push(&[70_000, 100]), Ok(gst::FlowSuccess::Ok));
    assert_eq!((stage.count("send-errors"), stage.count("packets-dropped")), (1, 1));
    assert_eq!(stage.count("packets"), 1);
}

#[test]
fn nobody_listening_is_counted_and_costs_no_packets_later() {
    let port = unused_port("127.0.0.1");
    let mut stage = Stage::new(port, &[]);
    let deadline = Instant::now() + WAIT;
    while stage.count("icmp-errors") == 0 {
        assert!(Instant::now() < deadline, "no ICMP error was counted");
        stage.push(&[100; 20]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(stage.count("packets-dropped"), 0);
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    stage.push(&[300; 20]).unwrap();
    expect(&socket, &[300; 20]);
}

#[test]
fn ipv6() {
    let (socket, port) = receiver("::1");
    let stage = Stage::try_new(&[("host", "::1"), ("port", &port.to_string())]);
    let mut stage = stage.map_err(|(text, _)| text).unwrap();
    stage.push(&[500; 10]).unwrap();
    expect(&socket, &[500; 10]);
}

#[test]
fn socket_family_chooses_among_the_addresses_of_a_name() {
    let (socket, port) = receiver("127.0.0.1");
    let port = port.to_string();
    let v4 = Stage::try_new(&[("host", "localhost"), ("port", &port), ("socket-family", "ipv4")]);
    v4.map_err(|(text, _)| text).unwrap().push(&[9]).unwrap();
    expect(&socket, &[9]);
    let Err((text, _)) = Stage::try_new(&[("host", "127.0.0.1"), ("socket-family", "ipv6")]) else {
        panic!("an IPv6 address of 127.0.0.1")
    };
    assert!(text.contains("no IPv6 address"), "{text}");
}

#[test]
fn multicast_reaches_a_member_on_this_machine() {
    let group = Ipv4Addr::new(239, 255, 42, 7);
    let socket = UdpSocket::bind((group, 0)).unwrap();
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let host = group.to_string();
    let to = [("host", host.as_str()), ("port", port.as_str()), ("multicast-iface", "lo")];
    socket.set_read_timeout(Some(WAIT)).unwrap();
    Stage::try_new(&to).map_err(|(text, _)| text).unwrap().push(&[200; 5]).unwrap();
    expect(&socket, &[200; 5]);
}

#[test]
fn bind_address_and_port_are_where_packets_come_from() {
    let (socket, port) = receiver("127.0.0.1");
    let from = unused_port("127.0.0.2");
    let mut stage = Stage::new(port, &[("bind-address", "127.0.0.2"), ("bind-port", &from.to_string())]);
    stage.push(&[100]).unwrap();
    let (_, sender) = socket.recv_from(&mut [0; 200]).unwrap();
    assert_eq!(sender.to_string(), format!("127.0.0.2:{from}"));
}

#[test]
fn settings_that_cannot_be_are_errors_that_say_so() {
    for (properties, words) in [
        ([("host", "no such host"), ("port", "5004")], "no such host"),
        ([("host", "127.0.0.1"), ("bind-address", "192.0.2.1")], "bind to 192.0.2.1"),
        ([("host", "127.0.0.1"), ("bind-address", "::1")], "different IP versions"),
        ([("host", "239.1.2.3"), ("multicast-iface", "nosuch0")], "nosuch0"),
    ] {
        let Err((text, _)) = Stage::try_new(&properties) else { panic!("{properties:?} was accepted") };
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_send_buffer_that_the_system_does_not_give_is_a_warning() {
    let stage = Stage::new(9, &[("buffer-size", "2000000000")]);
    let bus = stage.sink.bus().unwrap();
    let texts = texts(&bus);
    assert!(texts.iter().any(|text| text.contains("wmem_max")), "{texts:?}");
}

/// When the kernel got the next packet.
fn arrival(socket: &UdpSocket) -> SystemTime {
    let mut data = [0; 2000];
    let mut parts = [IoSliceMut::new(&mut data)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
        .expect("no packet");
    let stamp = message.cmsgs().unwrap().find_map(|one| match one {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    UNIX_EPOCH + Duration::from(stamp.expect("no time stamp"))
}

#[test]
fn pacing_sends_trains_of_sixteen_with_gaps() {
    const TRAINS: u32 = 6;
    let (socket, port) = receiver("127.0.0.1");
    setsockopt(&socket, ReceiveTimestampns, &true).unwrap();
    // 96 packets of 500 bytes at 19.2 Mbit/s: 20 ms. Frames are 40 ms apart: 20 ms is the limit for any lower rate.
    for (rate, gap) in [("19200000", 20 / TRAINS), ("38400000", 10 / TRAINS), ("1000000", 20 / TRAINS)] {
        let gap = Duration::from_millis(gap.into());
        let mut stage = Stage::new(port, &[("max-pacing-rate", rate)]);
        stage.push(&[10]).unwrap();
        stage.push(&[10]).unwrap();
        let (_, _) = (arrival(&socket), arrival(&socket));
        let begin = SystemTime::now();
        stage.push(&[500; 96]).unwrap();
        let arrivals: Vec<_> = (0..96).map(|_| arrival(&socket)).collect();
        // On a busy machine a train may leave late, but never early. How late it is to leave at most is `pacing::plan`'s.
        for (index, train) in (0..).zip(arrivals.chunks(16)) {
            assert!(train[0] >= begin + gap * index, "{rate}: train {index}");
        }
        assert_eq!(stage.count("paced-frames"), 1);
    }
}

#[test]
fn without_pacing_all_leave_at_once() {
    let (_socket, port) = receiver("127.0.0.1");
    let mut stage = Stage::new(port, &[]);
    stage.push(&[1000; 96]).unwrap();
    assert_eq!(stage.count("paced-frames"), 0);
}

/// A sink whose frames of 32 packets leave in two trains, 250 ms apart: of the longest interval that counts, a second, half.
fn slow_stage(port: u16) -> Stage {
    let stage = Stage::new(port, &[("max-pacing-rate", "1")]);
    stage.pad.push_event(gst::event::Caps::new(
        &format!("{RTP_CAPS},a-framerate=(string)1.0").parse::<gst::Caps>().unwrap(),
    ));
    stage
}

/// Pushes frames of 32 packets one after the other until the flow ends.
fn push_until_the_end(mut stage: Stage) -> std::thread::JoinHandle<gst::FlowError> {
    std::thread::spawn(move || {
        loop {
            if let Err(error) = stage.push(&[1000; 32]) {
                return error;
            }
        }
    })
}

fn wait_for_packets(sink: &gst::Element, more_than: u64) {
    let deadline = Instant::now() + WAIT;
    while packets_of(sink) <= more_than {
        assert!(Instant::now() < deadline, "no packets");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn packets_of(sink: &gst::Element) -> u64 {
    count(&sink.property::<gst::Structure>("stats"), "packets")
}

#[test]
fn a_pause_between_trains_ends_when_the_element_stops() {
    // Almost always it is stopped between two trains, and then the second one is never sent. It may be that the time between
    // them ends at that very moment, but not again and again.
    let cut = (0..10).any(|_| {
        let (_socket, port) = receiver("127.0.0.1");
        let stage = slow_stage(port);
        let sink = stage.sink.clone();
        let pushing = push_until_the_end(stage);
        wait_for_packets(&sink, 0);
        sink.set_state(gst::State::Null).unwrap();
        assert_eq!(pushing.join().unwrap(), gst::FlowError::Flushing);
        packets_of(&sink) % 32 == 16
    });
    assert!(cut, "the second train was sent each time");
}

#[test]
fn a_pipeline_that_is_paused_between_trains_goes_on_when_it_plays() {
    let (_socket, port) = receiver("127.0.0.1");
    let stage = slow_stage(port);
    let sink = stage.sink.clone();
    let pushing = push_until_the_end(stage);
    for _ in 0..3 {
        wait_for_packets(&sink, packets_of(&sink));
        sink.set_state(gst::State::Paused).unwrap();
        sink.set_state(gst::State::Playing).unwrap();
        wait_for_packets(&sink, packets_of(&sink));
    }
    assert!(!pushing.is_finished(), "the flow ended");
    sink.set_state(gst::State::Null).unwrap();
    assert_eq!(pushing.join().unwrap(), gst::FlowError::Flushing);
}

#[test]
fn a_stopped_sink_can_start_again() {
    let (socket, port) = receiver("127.0.0.1");
    let mut stage = Stage::new(port, &[]);
    stage.push(&[100; 3]).unwrap();
    expect(&socket, &[100; 3]);
    stage.sink.set_state(gst::State::Null).unwrap();
    assert_eq!(stage.count("packets"), 3, "kept to be read");
    stage.sink.set_state(gst::State::Playing).unwrap();
    assert_eq!(stage.count("packets"), 0);
    stage.pad.push_event(gst::event::StreamStart::new("again"));
    stage.pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    stage.push(&[100; 2]).unwrap();
    expect(&socket, &[100; 2]);
}
