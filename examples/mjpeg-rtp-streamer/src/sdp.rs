// SPDX-License-Identifier: MIT OR Apache-2.0

//! Session descriptions (RFC 8866), which tell receivers such as ffplay and VLC what comes where.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};

use crate::config::{Camera, STATIC_PT};

/// A longest width or height that an RTP/JPEG header can tell (RFC 2435 §3.1.5).
const LONGEST_IN_HEADER: u16 = 2040;

/// The description of a camera's stream. Looks up the receiver's name, if it is one.
pub fn describe(camera: &Camera, cname: &str) -> String {
    let to = camera.dest_address().or_else(|| {
        (camera.dest_host.as_str(), camera.dest_port)
            .to_socket_addrs()
            .ok()?
            .next()
            .map(|address| address.ip())
    });
    write(camera, cname, to, to.and_then(own_address).unwrap_or(Ipv4Addr::LOCALHOST.into()))
}

fn write(camera: &Camera, cname: &str, to: Option<IpAddr>, own: IpAddr) -> String {
    let kind = |address: IpAddr| if address.is_ipv4() { "IP4" } else { "IP6" };
    let connection = match to {
        // Only IPv4 has the hops behind the group.
        Some(IpAddr::V4(group)) if group.is_multicast() => format!("IP4 {group}/{}", camera.multicast_ttl),
        Some(address) => format!("{} {address}", kind(address)),
        None => format!("IP4 {}", camera.dest_host),
    };
    let Camera { name, dest_port, fps, ssrc, pt, width, height, .. } = camera;
    let mut text = format!(
        "v=0\r\no=- {ssrc} 1 IN {} {own}\r\ns={name}\r\nc=IN {connection}\r\nt=0 0\r\n\
         m=video {dest_port} RTP/AVP {pt}\r\na=rtpmap:{pt} JPEG/90000\r\na=framerate:{fps}\r\na=sendonly\r\n\
         a=ssrc:{ssrc} cname:{cname}\r\n",
        kind(own)
    );
    let inexact = |size: u16| size > LONGEST_IN_HEADER || !size.is_multiple_of(8);
    if inexact(*width) || inexact(*height) {
        // Writing to a String cannot fail.
        let _ = write!(text, "a=x-dimensions:{width},{height}\r\n");
    }
    debug_assert!(*pt == STATIC_PT || *pt >= 96);
    text
}

/// The address from which packets to `to` leave. Sends nothing.
fn own_address(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn camera() -> Camera {
        Config::demo().cameras.remove("camera1").unwrap()
    }

    #[test]
    fn a_description() {
        let camera = Camera { ssrc: 5, name: "front".into(), ..camera() };
        assert_eq!(
            describe(&camera, "me@here"),
            "v=0\r\no=- 5 1 IN IP4 127.0.0.1\r\ns=front\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5000 RTP/AVP 26\r\n\
             a=rtpmap:26 JPEG/90000\r\na=framerate:30\r\na=sendonly\r\na=ssrc:5 cname:me@here\r\n"
        );
    }

    #[test]
    fn sizes_that_packets_cannot_tell() {
        for (width, height, told) in
            [(2040, 1080, false), (1366, 768, true), (3280, 1000, true), (640, 478, true)]
        {
            let camera = Camera { width, height, ..camera() };
            let line = format!("a=x-dimensions:{width},{height}\r\n");
            assert_eq!(describe(&camera, "x").contains(&line), told);
        }
    }

    #[test]
    fn addresses() {
        let own = IpAddr::from([192, 0, 2, 1]);
        let line = |to: Option<&str>| {
            let camera = Camera { multicast_ttl: 4, dest_host: "host.example".into(), ..camera() };
            let text = write(&camera, "x", to.map(|to| to.parse().unwrap()), own);
            text.lines().find(|line| line.starts_with("c=")).unwrap().to_owned()
        };
        assert_eq!(line(Some("239.1.2.3")), "c=IN IP4 239.1.2.3/4");
        assert_eq!(line(Some("ff15::1")), "c=IN IP6 ff15::1");
        assert_eq!(line(Some("2001:db8::1")), "c=IN IP6 2001:db8::1");
        assert_eq!(line(None), "c=IN IP4 host.example");
    }
}
