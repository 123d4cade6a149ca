# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ways to the server where its UDP port can't be reached. Publisher and server are in network namespaces of their own."""

import subprocess
import time

import pytest
from harness.netns import Namespaces
from harness.proc import PATIENCE, wait_until
from harness.tls import Authority
from harness.turn import Coturn
from harness.uplink import encoder

# From the publisher's start to a picture where UDP is blocked: the goal is 5 s, tests assert loosely.
LIMIT = 4 * 5.0
UDP = "meta l4proto udp"


def live(uplink, sink="", start=True):
    return uplink.start(f"appsrc name=stamp ! {encoder(kbit=800)} ! livekitsink name=sink {sink}", sources={"stamp": {"width": 320, "height": 240}})


def first_picture(uplink, since):
    uplink.viewer.wait_pictures(1, timeout=LIMIT)
    elapsed = uplink.viewer.arrivals[0]["at"] - since
    assert elapsed < LIMIT, elapsed
    return elapsed


def transport(publisher):
    return publisher.run("s = pipeline.get_by_name('sink').get_property('stats'); result = s.get_value('transport') if s.has_field('transport') else None")


def wait_transport(publisher, expected):
    wait_until(lambda: transport(publisher) == expected, PATIENCE, lambda: f"the path to be {expected}, it is {transport(publisher)}", interval=0.1)


def assert_flows(uplink, seconds=2.0, fps=30):
    """Pictures come: at least a quarter of those sent, over that many seconds."""
    seen = lambda: len(uplink.viewer.between(time.monotonic() - seconds))
    wait_until(lambda: seen() >= seconds * fps / 4, PATIENCE, lambda: f"enough pictures; {seen()} in {seconds} s")


def connections_to(uplink, port):
    """TCP connections of the publisher's end to this port, as `ss` shows them."""
    command = [*Namespaces.inside(uplink.namespaces.client), "ss", "-Htn", "dport", "=", f":{port}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()


def test_udp_is_used_where_it_works(make_uplink):
    uplink = make_uplink()
    publisher = live(uplink)
    first_picture(uplink, publisher.started)
    wait_transport(publisher, "udp")
    assert connections_to(uplink, uplink.server.tcp) == [], "TCP is not tried without need"


@pytest.mark.parametrize("verdict", ["drop", "reject"])
def test_tcp_where_udp_is_blocked(make_uplink, verdict):
    uplink = make_uplink()
    uplink.namespaces.refuse(f"{UDP} {verdict}")
    publisher = live(uplink)
    elapsed = first_picture(uplink, publisher.started)
    print(f"first picture {elapsed:.2f} s after the publisher's start")
    wait_transport(publisher, "tcp")
    assert_flows(uplink)
    assert len(connections_to(uplink, uplink.server.tcp)) == 1
    # One attempt was enough.
    assert len(publisher.messages("livekit-joined")) == 1


def test_udp_that_ends_later_is_left_for_tcp(make_uplink):
    """In the same stay: ICE restarts."""
    uplink = make_uplink()
    publisher = live(uplink)
    first_picture(uplink, publisher.started)
    wait_transport(publisher, "udp")
    uplink.namespaces.refuse(f"{UDP} drop")
    begin = time.monotonic()
    wait_until(lambda: transport(publisher) == "tcp", 4 * 5, "the path to be tcp", interval=0.2)
    print(f"TCP {time.monotonic() - begin:.1f} s after UDP ended")
    assert len(publisher.messages("livekit-joined")) == 1, publisher.summary()
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)


def test_no_way_is_an_error_that_names_them(make_uplink):
    uplink = make_uplink()
    uplink.namespaces.refuse(f"{UDP} drop", f"tcp dport {uplink.server.tcp} reject with tcp reset")
    publisher = live(uplink, sink="reconnect-attempts=0 connect-timeout=4000000000")
    error = publisher.wait_for("error")
    text = f"{error['text']} {error['debug']}"
    for word in ("UDP from", uplink.namespaces.client_address, "TCP to", "refused", f"{uplink.namespaces.server_address}:{uplink.server.tcp}"):
        assert word in text, text


PRIVATE = """\
turn:
  enabled: true
  udp_port: 3478
  relay_range_start: 50000
  relay_range_end: 50100
  allow_restricted_peer_cidrs: ["10.0.0.0/8"]
"""
RELAY = "ice-transport-policy=relay"


def test_relay_of_the_server_by_udp(make_uplink):
    """Its own media port takes nothing from outside: whatever arrives came by the relay."""
    uplink = make_uplink(config=lambda _: {"more": PRIVATE})
    uplink.namespaces.refuse(f"udp dport {uplink.server.udp} drop")
    publisher = live(uplink, RELAY)
    elapsed = first_picture(uplink, publisher.started)
    print(f"first picture {elapsed:.2f} s after the publisher's start")
    wait_transport(publisher, "relay-udp")
    assert_flows(uplink)
    assert len(publisher.messages("livekit-joined")) == 1


def test_relay_of_the_server_by_tls(make_uplink, tmp_path, needs):
    """All that passes is what looks like HTTPS, and signalling."""
    needs("openssl")
    authority = Authority(tmp_path / "ca")
    certificate = authority.issue("relay", "DNS:relay.example.net")

    def config(uplink):
        uplink.namespaces.name_server("relay.example.net")
        # The server announces port 443 whatever it listens on.
        tls = f"  domain: relay.example.net\n  tls_port: 443\n  cert_file: {certificate}\n  key_file: {certificate}\n"
        return {"more": PRIVATE.replace("  udp_port: 3478\n", tls)}

    uplink = make_uplink(config=config)
    uplink.namespaces.refuse(f"{UDP} drop", f"tcp dport {uplink.server.tcp} drop")
    publisher = live(uplink, f"tls-ca-file={authority.certificate}")
    elapsed = first_picture(uplink, publisher.started)
    print(f"first picture {elapsed:.2f} s after the publisher's start")
    wait_transport(publisher, "relay-tls")
    assert_flows(uplink)


def test_no_relay_is_an_error(make_uplink):
    uplink = make_uplink()
    publisher = live(uplink, f"{RELAY} reconnect-attempts=0")
    error = publisher.wait_for("error")
    assert "ice-transport-policy" in f"{error['text']} {error['debug']}", error


@pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("policy", ["relay", "all"])
def test_coturn(make_uplink, tmp_path, needs, protocol, policy):
    """With `all` every other way is blocked."""
    needs("turnserver")
    relays = []

    def config(uplink):
        relays.append(Coturn(tmp_path, uplink.namespaces))
        uplink.keep(relays[0].stop)
        return {"rtc": relays[0].announce(protocol)}

    uplink = make_uplink(config=config)
    uplink.namespaces.refuse(f"udp dport {uplink.server.udp} drop", f"tcp dport {uplink.server.tcp} drop")
    publisher = live(uplink, f"ice-transport-policy={policy} tls-ca-file={relays[0].authority}")
    elapsed = first_picture(uplink, publisher.started)
    print(f"{protocol}: first picture {elapsed:.2f} s after the publisher's start")
    wait_transport(publisher, f"relay-{protocol}")
    assert_flows(uplink)
    assert len(publisher.messages("livekit-joined")) == 1


def test_relay_with_a_foreign_certificate_is_refused(make_uplink, tmp_path, needs):
    needs("turnserver")
    relays = []

    def config(uplink):
        relays.append(Coturn(tmp_path, uplink.namespaces))
        uplink.keep(relays[0].stop)
        return {"rtc": relays[0].announce("tls")}

    uplink = make_uplink(config=config)
    publisher = live(uplink, f"{RELAY} reconnect-attempts=0 connect-timeout=4000000000")
    error = publisher.wait_for("error")
    text = f"{error['text']} {error['debug']}"
    assert "turns:" in text and "certificate" in text.lower(), text


@pytest.mark.parametrize("fault", ["drop", "alert"])
def test_a_dtls_handshake_that_comes_to_nothing(make_uplink, fault):
    """There is a path, but no key is agreed on: said so, and the room is joined anew until it works."""
    uplink = make_uplink(emulated=True)
    uplink.namespaces.change(dtls=fault)
    publisher = live(uplink, "connect-timeout=3000000000")
    # A machine that is busy may not get as far as that within one attempt.
    told = lambda: [m["reason"] for m in publisher.messages("livekit-offline")]
    wait_until(lambda: any("DTLS" in reason for reason in told()), PATIENCE, lambda: f"DTLS to be named; it says {told()}")
    uplink.namespaces.change(dtls="pass")
    uplink.viewer.wait_pictures(15)
    assert len(publisher.messages("livekit-joined")) > 1 and not publisher.select("error"), publisher.summary()
