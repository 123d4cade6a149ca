# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where there is no IPv4: publisher, server and viewer have IPv6 addresses only."""

import time

import pytest
from harness.netns import Namespaces, NotPermitted, _ip
from harness.proc import PATIENCE, wait_until
from harness.remote import RemoteViewer
from harness.server import LiveKitServer
from harness.turn import Coturn
from harness.uplink import Uplink
from test_reach import RELAY, UDP, live, wait_transport
from test_resume import assert_same_stay, first_after


class Namespaces6(Namespaces):
    server_address, client_address = "fd00:213::1", "fd00:213::2"

    def __init__(self):
        super().__init__()
        # Nobody can bind to an address that is still being looked for on the link (RFC 4862 §5.4).
        for name in (self.server, self.client):
            wait_until(lambda: not _ip("-n", name, "-6", "address", "show", "tentative").stdout.strip(), PATIENCE, "the addresses")


class Both(Namespaces6):
    """IPv4 too, by the same link."""

    addresses4 = Namespaces.server_address, Namespaces.client_address

    def __init__(self):
        super().__init__()
        for name, address in zip((self.server, self.client), self.addresses4):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")


class Link(Uplink):
    def __init__(self, directory, room, namespaces=Namespaces6, config=None):
        """`config`: as with `Uplink`."""
        self.directory, self.room, self.nice, self._open = directory, room, [], []
        self.namespaces = namespaces()
        try:
            inside = Namespaces.inside(self.namespaces.server)
            self.server = self._keep(LiveKitServer(directory, address=Namespaces6.server_address, prefix=inside, **(config(self) if config else {})))
            self.server.url = f"ws://[{Namespaces6.server_address}]:{self.server.port}"
            self.viewer = self._keep(RemoteViewer(self.server.url, self.server.token(room, "viewer"), room, directory / "viewer.log", prefix=inside))
        except BaseException:
            self.close()
            raise


@pytest.fixture
def make_link(tmp_path, room):
    made = []

    def make(**kw):
        try:
            made.append(Link(tmp_path, room, **kw))
        except NotPermitted as e:
            pytest.skip(f"needs root: {e}")
        return made[-1]

    yield make
    for link in made:
        link.close()


@pytest.fixture
def link(make_link):
    return make_link()


def test_pictures_flow_and_come_back(link):
    """By UDP; after the network was away for five seconds; and by TCP when UDP is blocked. One stay in the room."""
    publisher = live(link)
    link.viewer.wait_pictures(15)
    wait_transport(publisher, "udp")
    link.namespaces.refuse("drop")
    lost = time.monotonic()
    publisher.wait_for("element", "livekit-resuming")
    time.sleep(max(0, lost + 5 - time.monotonic()))
    link.namespaces.refuse()
    elapsed = first_after(link, time.monotonic(), timeout=PATIENCE)
    print(f"picture {elapsed:.2f} s after the network")
    assert_same_stay(publisher)
    link.namespaces.refuse(f"{UDP} drop")
    wait_transport(publisher, "tcp")
    assert_same_stay(publisher, resumes=2)
    link.viewer.wait_pictures(len(link.viewer.arrivals) + 30)


def test_what_was_tried_is_named(link):
    """The addresses of both sides, in an error that says that no way led to the server."""
    link.namespaces.refuse(f"{UDP} drop", f"tcp dport {link.server.tcp} reject with tcp reset")
    publisher = live(link, sink="reconnect-attempts=0 connect-timeout=4000000000")
    error = publisher.wait_for("error")
    text = f"{error['text']} {error['debug']}"
    for word in ("UDP from", Namespaces6.client_address, "TCP to", "refused", f"[{Namespaces6.server_address}]:{link.server.tcp}"):
        assert word in text, text


def test_relay(make_link, tmp_path, needs):
    """TURN, where both its way and its relayed address are IPv6."""
    needs("turnserver")
    relays = []

    def config(link):
        relays.append(Coturn(tmp_path, link.namespaces))
        link.keep(relays[0].stop)
        return {"rtc": relays[0].announce("udp")}

    link = make_link(config=config)
    link.namespaces.refuse(f"udp dport {link.server.udp} drop", f"tcp dport {link.server.tcp} drop")
    publisher = live(link, RELAY)
    link.viewer.wait_pictures(15)
    wait_transport(publisher, "relay-udp")
    assert len(publisher.messages("livekit-joined")) == 1


def test_one_of_two_families_ends(make_link):
    """Each in turn, while media may use the other one: the same stay, still by UDP."""
    link = make_link(namespaces=Both)
    publisher = live(link)
    link.viewer.wait_pictures(15)
    for family in ("ipv4", "ipv6"):
        link.namespaces.refuse(f"meta nfproto {family} {UDP} drop")
        elapsed = first_after(link, time.monotonic() + 0.5)
        print(f"picture {elapsed + 0.5:.2f} s after UDP over {family} ended")
        link.viewer.wait_pictures(len(link.viewer.arrivals) + 30)
        wait_transport(publisher, "udp")
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-offline"), publisher.summary()
