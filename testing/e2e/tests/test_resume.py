# SPDX-License-Identifier: MIT OR Apache-2.0
"""Interruptions that the stay in the room survives, and those that it does not: what viewers and applications notice."""

import os
import re
import signal
import time

import pytest
from conftest import ENCODER
from harness.checks import assert_none_lost_on_our_way
from harness.netns import _ip
from harness.proc import PATIENCE, free_port, wait_until
from harness.server import LiveKitServer
from harness.subscriber import Subscriber
from harness.tcpproxy import TcpProxy
from harness.uplink import encoder
from test_e2ee import KEY, moves_on, options, shown

# Goals of the design: a picture 2 s after a server is back, 3 s after a network is; tests assert loosely.
SERVER_BACK = 2.0 * 4
NETWORK_BACK = 3.0 * 4


def stats(publisher):
    fields = publisher.get("sink", "stats")["fields"]
    return {name: fields.get(name) for name in ("reconnects", "resumes", "offline-time")}


def dropped(publisher):
    """Frames that there was no path for."""
    text = publisher.run("result = pipeline.get_by_name('sink').get_property('stats').to_string()")
    return int(re.search(r"dropped-not-connected\W+guint64\W+(\d+)", text)[1])


def assert_same_stay(publisher, resumes=1):
    """Neither joined nor published anew."""
    wait_until(lambda: len(publisher.messages("livekit-resumed")) >= resumes, PATIENCE, publisher.summary)
    assert len(publisher.messages("livekit-joined")) == 1, publisher.summary()
    assert len(publisher.messages("livekit-published")) == 1 and not publisher.messages("livekit-unpublished")
    assert not publisher.messages("livekit-offline"), publisher.summary()
    figures = stats(publisher)
    assert figures["resumes"] >= resumes and figures["reconnects"] == 0, figures
    wait_until(lambda: publisher.get("sink", "connection-state") == "connected", PATIENCE, "the state to be connected")


@pytest.fixture
def proxy(stage):
    p = TcpProxy(stage.server.port)
    yield p
    p.close()


def test_signalling_alone_is_lost(stage, proxy):
    """Pictures go on all the while: same track, not one frame missing."""
    viewer = stage.view()
    publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{proxy.port}")
    feed = viewer.wait_video(frames=30)
    sid = publisher.wait_published()["fields"]["track-sid"]
    before_cut = dropped(publisher)
    for number in (1, 2):
        before = len(publisher.messages("livekit-resuming"))
        proxy.cut()
        publisher.wait_for("element", "livekit-resuming", count=before + 2)
        assert publisher.get("sink", "connection-state") == "reconnecting"
        time.sleep(0.5)
        proxy.mend()
        assert_same_stay(publisher, resumes=number)
    assert stats(publisher)["offline-time"] == 0 and not publisher.messages("livekit-resumed")[-1]["interrupted"]
    viewer.wait_number(feed, publisher.run("result = feeders['stamp'].number") + 30)
    assert feed.sid == sid and not feed.ended and len(viewer.video) == 1, viewer.events
    assert dropped(publisher) == before_cut, "frames found no path"
    report = feed.report()
    assert not report["unreadable"], report
    # What a starved machine does not encode or show in time is missing too, but not for want of a path.
    assert len(report["missing"]) <= report["received"], report
    assert_none_lost_on_our_way(stage, publisher)


def test_pictures_stay_encrypted(stage, proxy):
    """In the same stay, and in another one: a viewer with the key sees them, and one without sees none."""
    viewer, blind = stage.view(encryption=options()), stage.view("blind")
    publisher = stage.live(sink=f'identity=camera url=ws://127.0.0.1:{proxy.port} on-removed=rejoin e2ee-key="{KEY}"')
    publisher.wait_published()
    feed = shown(viewer)
    proxy.cut()
    publisher.wait_for("element", "livekit-resuming", count=2)
    proxy.mend()
    assert_same_stay(publisher)
    moves_on(feed)
    assert not feed.ended
    stage.server.api("RemoveParticipant", room=stage.room, identity="camera")
    sid = publisher.wait_published(count=2)["fields"]["track-sid"]
    again = wait_until(lambda: next((f for f in viewer.video if f.sid == sid), None), PATIENCE, "the new track")
    moves_on(again)
    fields = publisher.get("sink", "stats")["fields"]["e2ee"]["fields"]
    assert fields["frames-encrypted"] > 0 and fields["frames-refused"] == 0, fields
    wait_until(lambda: any(f.sid == sid for f in blind.video), PATIENCE, "the new track at the other viewer")
    assert not [f for f in blind.video if f.numbers()], blind.video


def test_what_is_changed_meanwhile_is_done_afterwards(stage, proxy):
    """A pad that is added and one that is muted while there is no signalling."""
    viewer = stage.view()
    publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{proxy.port} video_0::track-name=front")
    viewer.wait_video("front", frames=15)
    proxy.cut()
    publisher.wait_for("element", "livekit-resuming", count=2)
    publisher.run(f"""
branch = Gst.parse_bin_from_description("appsrc name=stamp2 ! {ENCODER.format(gop=30).replace("name=enc", "name=enc2")}", True)
pipeline.add(branch)
sink = pipeline.get_by_name("sink")
pad = sink.get_request_pad("video_%u")
pad.set_property("track-name", "back")
branch.get_static_pad("src").link(pad)
add_feeder(branch.get_by_name("stamp2"), width=320, height=192)
branch.sync_state_with_parent()
sink.get_static_pad("video_0").set_property("muted", True)
""")
    time.sleep(0.5)
    proxy.mend()
    publisher.wait_for("element", "livekit-resumed")
    viewer.wait_video("back", frames=15)
    viewer.wait_event("track_muted", detail="front")
    assert len(publisher.messages("livekit-joined")) == 1, publisher.summary()


def test_server_dies_and_comes_back(stage, tmp_path):
    """It knows nothing of before: joined anew, and the track has the name it had."""
    port, keys = free_port(), (stage.server.key, stage.server.secret)

    def start(name):
        directory = tmp_path / name
        directory.mkdir()
        return LiveKitServer(directory, port=port, keys=keys)

    with start("first") as first:
        publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{port} track-name=front")
        publisher.wait_published()
        os.kill(first.child.pid, signal.SIGKILL)
        publisher.wait_for("element", "livekit-resuming", count=3)
    with start("second") as second:
        up = time.monotonic()
        with Subscriber(second, stage.room) as viewer:
            feed = viewer.wait_video("front", frames=1, timeout=SERVER_BACK)
            elapsed = feed.arrivals[0].at - up
            assert elapsed < SERVER_BACK, elapsed
            print(f"picture {elapsed:.2f} s after the server")
            viewer.wait_video("front", frames=30)
        figures = stats(publisher)
        assert figures["reconnects"] == 1 and figures["offline-time"] > 0, figures
        assert len(publisher.warnings("interrupted")) + len(publisher.warnings("Not in the room")) == 1, publisher.select("warning")
        publisher.stop()


def test_server_stands_still(stage, tmp_path):
    """Stopped for longer than silence takes to notice; then it goes on as if nothing had been."""
    directory = tmp_path / "server"
    directory.mkdir()
    with LiveKitServer(directory, keys=(stage.server.key, stage.server.secret)) as server:
        publisher = stage.live(sink=f"identity=camera url={server.url}")
        with Subscriber(server, stage.room) as viewer:
            feed = viewer.wait_video(frames=15)
            os.kill(server.child.pid, signal.SIGSTOP)
            try:
                publisher.wait_for("element", "livekit-resuming")
                wait_until(lambda: dropped(publisher) > 0, PATIENCE, "frames that count as dropped")
            finally:
                os.kill(server.child.pid, signal.SIGCONT)
            again = time.monotonic()
            wait_until(lambda: viewer.video[-1].arrivals and viewer.video[-1].arrivals[-1].at > again + 0.5, NETWORK_BACK, publisher.summary)
            assert feed.publisher == "camera"
        assert stats(publisher)["offline-time"] > 0
        publisher.stop()


def live(uplink, sink=""):
    publisher = uplink.start(f"appsrc name=stamp ! {encoder(kbit=800)} ! livekitsink name=sink {sink}", sources={"stamp": {"width": 320, "height": 240}})
    uplink.viewer.wait_pictures(15)
    return publisher


def first_after(uplink, moment, timeout=NETWORK_BACK):
    wait_until(lambda: uplink.viewer.between(moment), timeout, "a picture")
    return uplink.viewer.between(moment)[0]["at"] - moment


@pytest.mark.parametrize("how", ["cable", "silence"])
def test_network_is_away_for_a_while(make_uplink, how):
    """Cable: the kernel knows, and says so to who sends. Silence: nobody says anything."""
    uplink = make_uplink()
    publisher = live(uplink)
    client = uplink.namespaces.client
    lost = time.monotonic()
    if how == "cable":
        _ip("-n", client, "link", "set", "eth0", "down")
    else:
        uplink.namespaces.refuse("drop")
    noticed = publisher.wait_for("element", "livekit-resuming")["t"] - lost
    time.sleep(max(0, lost + 5 - time.monotonic()))
    if how == "cable":
        _ip("-n", client, "link", "set", "eth0", "up")
    else:
        uplink.namespaces.refuse()
    elapsed = first_after(uplink, time.monotonic())
    print(f"noticed after {noticed:.2f} s, picture {elapsed:.2f} s after the network")
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)
    assert_same_stay(publisher)
    # Counted from when it is noticed, after three seconds of five.
    assert 0.5 < stats(publisher)["offline-time"] / 1e9 < 4 * 5


def test_network_is_away_until_the_server_has_forgotten_us(make_uplink):
    """Half a minute. Nothing is left to resume: joined anew, and the track has the name it had."""
    uplink = make_uplink()
    publisher = live(uplink, "track-name=front")
    uplink.namespaces.refuse("drop")
    lost = time.monotonic()
    publisher.wait_for("element", "livekit-resuming")
    time.sleep(max(0, lost + 30 - time.monotonic()))
    back = time.monotonic()
    uplink.namespaces.refuse()
    elapsed = first_after(uplink, back)
    print(f"picture {elapsed:.2f} s after the network")
    publisher.wait_published(count=2)
    assert [m["track-name"] for m in publisher.messages("livekit-published")] == ["front", "front"]
    assert stats(publisher)["reconnects"] == 1, stats(publisher)
    assert stats(publisher)["offline-time"] / 1e9 > 20
    seen = len(uplink.viewer.between(back))
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)
    assert {a["track"] for a in uplink.viewer.arrivals} == {"front"} and seen, "it goes on"


def test_a_short_burst_of_loss_is_no_interruption(make_uplink):
    uplink = make_uplink()
    publisher = live(uplink)
    uplink.namespaces.refuse("meta l4proto udp drop")
    time.sleep(1.5)
    uplink.namespaces.refuse()
    elapsed = first_after(uplink, time.monotonic())
    print(f"picture {elapsed:.2f} s after the burst")
    assert elapsed < 4 * 1
    assert not publisher.messages("livekit-resuming")


def test_another_interface_and_back(make_uplink):
    """From Wi-Fi to LTE, which was not there before, and back, each without the old address: one stay."""
    uplink = make_uplink()
    names = uplink.namespaces
    client = names.client
    publisher = live(uplink)
    names.add_interface()
    _ip("-n", client, "address", "del", f"{names.client_address}/24", "dev", "eth0")
    _ip("-n", client, "link", "set", "eth0", "down")
    _ip("-n", client, "route", "add", names.server_address, "via", names.other_server_address)
    elapsed = first_after(uplink, time.monotonic() + 0.5, timeout=4 * 5)
    print(f"picture {elapsed + 0.5:.2f} s after the change")
    assert_same_stay(publisher)
    _ip("-n", client, "link", "set", "eth1", "down")
    _ip("-n", client, "address", "add", f"{names.client_address}/24", "dev", "eth0")
    _ip("-n", client, "link", "set", "eth0", "up")
    elapsed = first_after(uplink, time.monotonic() + 0.5, timeout=4 * 5)
    print(f"picture {elapsed + 0.5:.2f} s after the change back")
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)
    # Signalling finds out later.
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-unpublished"), publisher.summary()


def test_one_of_two_interfaces_falls_silent(make_uplink):
    """Both lead to the server. The one in use passes nothing any more, and nobody says so: pictures take the other one."""
    uplink = make_uplink()
    names = uplink.namespaces
    names.add_interface()
    # What is sent from an address leaves by its interface.
    _ip("-n", names.client, "route", "add", "default", "via", names.other_server_address, "dev", "eth1", "table", "8")
    _ip("-n", names.client, "rule", "add", "from", names.other_client_address, "table", "8")
    publisher = live(uplink)
    names.refuse("drop")
    elapsed = first_after(uplink, time.monotonic() + 0.5, timeout=4 * 5)
    print(f"picture {elapsed + 0.5:.2f} s after the silence began")
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)
    names.refuse()
    assert_same_stay(publisher)


@pytest.mark.parametrize("what", ["udp", "all"])
def test_a_router_forgets_what_it_translates(make_uplink, what):
    """Media, or media and signalling, come from other ports at once, and nothing comes back to the old ones."""
    uplink = make_uplink(emulated=True)
    uplink.namespaces.change(nat="all")
    publisher = live(uplink)
    uplink.namespaces.change(nat=what)
    elapsed = first_after(uplink, time.monotonic() + 0.5)
    print(f"picture {elapsed + 0.5:.2f} s after the router forgot")
    uplink.viewer.wait_pictures(len(uplink.viewer.arrivals) + 30)
    if what == "all":
        publisher.wait_for("element", "livekit-resumed")
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-unpublished"), publisher.summary()
