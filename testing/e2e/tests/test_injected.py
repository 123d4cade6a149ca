# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the server may say and a single open-source one never does: moves, regions, nonsense. A proxy says it in its place."""

import random

import pytest
from harness.connectproxy import ConnectProxy
from harness.proc import PATIENCE, free_port, wait_until
from harness.server import LiveKitServer
from harness.signalproxy import RECONNECT, RESUME, SignalProxy, field, fields, leave, participant, refresh_token, room_moved
from harness.subscriber import Subscriber

ADD_TRACK, SYNC_STATE = 4, 12


@pytest.fixture
def proxy(stage):
    with SignalProxy(stage.server.port) as p:
        yield p


def live(stage, proxy, **env):
    publisher = stage.live(sink="identity=camera track-name=front", env=stage.env(LIVEKIT_URL=proxy.url, **env))
    publisher.wait_published()
    return publisher


def goes_on(viewer, feed, publisher):
    """Pictures that are made from now on arrive, in the same track."""
    viewer.wait_number(feed, publisher.run("result = feeders['stamp'].number") + 15)
    assert not feed.ended and not publisher.messages("livekit-unpublished"), publisher.summary()


def addresses(publisher):
    return [m["url"] for m in publisher.messages("livekit-connecting")]


def test_moved_into_another_room(stage, proxy):
    """Where a token was given, the server's leads back to that room."""
    hall, viewer = f"{stage.room}-hall", stage.view()
    given = stage.server.token(stage.room, "camera")
    publisher = live(stage, proxy, LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=given)
    feed = viewer.wait_video("front", frames=15)
    joined = publisher.messages("livekit-joined")[0]
    token = stage.server.token(hall, "camera")
    proxy.say(room_moved(token, hall, "RM_hall", participant(joined["participant-sid"], "camera"), [participant("PA_guest", "guest")]))
    moved = publisher.wait_for("element", "livekit-moved")["fields"]
    assert moved == {**joined, "room": hall, "room-sid": "RM_hall"}
    publisher.wait_for("element", "livekit-participant-left", identity="viewer")
    publisher.wait_for("element", "livekit-participant-joined", identity="guest")
    assert publisher.get("sink", "stats")["fields"]["room"] == hall
    goes_on(viewer, feed, publisher)
    assert publisher.get("sink", "connection-state") == "connected" and addresses(publisher) == [proxy.url]
    # The server here knows nothing of the move, and so of nobody to resume: the room is joined.
    with Subscriber(stage.server, hall) as other:
        before = len(proxy.asked)
        proxy.cut()
        other.wait_video("front", frames=15)
    assert {token for _, token in proxy.asked[before:]} == {token}
    assert publisher.messages("livekit-joined")[-1]["room"] == hall


def test_sent_to_another_region(stage, proxy, tmp_path):
    """The first of two is not there."""
    publisher = live(stage, proxy)
    with LiveKitServer(tmp_path, keys=(stage.server.key, stage.server.secret)) as region, Subscriber(region, stage.room) as viewer:
        dead = f"ws://127.0.0.1:{free_port()}"
        proxy.say(leave(RECONNECT, regions=[dead, region.url]))
        viewer.wait_video("front", frames=15)
        assert addresses(publisher)[:3] == [proxy.url, dead, region.url]
        assert "moves to another server" in publisher.messages("livekit-offline")[0]["reason"]
        publisher.stop()


def test_told_to_resume(stage, proxy):
    """Another node takes over: it is told all that it needs for its end of the peer connection."""
    viewer, publisher = stage.view(), live(stage, proxy)
    feed = viewer.wait_video("front", frames=15)
    proxy.say(leave(RESUME))
    publisher.wait_for("element", "livekit-resumed")
    goes_on(viewer, feed, publisher)
    assert len(publisher.messages("livekit-joined")) == 1
    state = proxy.heard(SYNC_STATE)[-1]
    cid = proxy.heard(ADD_TRACK)[0][1][0]
    for number, kind in ((5, b"offer"), (1, b"answer")):
        description = fields(state[number][0])
        assert description[1] == [kind] and description[2][0].startswith(b"v=0"), description
    assert cid in fields(state[5][0])[2][0], "the offer has the track's section"
    track = fields(state[3][0])
    sid = publisher.messages("livekit-published")[0]["track-sid"].encode()
    assert track[1] == [cid] and fields(track[2][0])[1] == [sid], track


def test_refreshed_token_is_used_to_come_back(stage, proxy):
    publisher = live(stage, proxy)
    token = stage.server.token(stage.room, "camera", ttl=1234)
    proxy.say(refresh_token(token))
    # What comes in order after it has been read.
    proxy.say(room_moved("", "", "", b""), field(5, field(1, participant("PA_guest", "guest"))))
    publisher.wait_for("element", "livekit-participant-joined", identity="guest")
    proxy.cut()
    publisher.wait_for("element", "livekit-resumed")
    assert proxy.asked[-1] == ("/rtc/v1", token)


def test_another_region_when_the_first_is_away(stage, proxy):
    """LiveKit Cloud, played by what an HTTP proxy leads its names to."""
    proxy.status = 503
    dead, good = f"ws://dead.livekit.cloud:{free_port()}", f"ws://good.livekit.cloud:{stage.server.port}"
    proxy.regions = [dead, good]
    given = f"ws://project.livekit.cloud:{proxy.port}"
    with ConnectProxy() as way:
        publisher = stage.live(env=stage.env(LIVEKIT_URL=given, HTTP_PROXY=f"http://127.0.0.1:{way.port}"))
        publisher.wait_published()
        assert addresses(publisher)[:3] == [given, dead, good], publisher.summary()
        asked = [token for path, token in proxy.asked if path == "/settings/regions"]
        assert len(asked) == 1 and asked[0], "asked once, by somebody with a token"
        publisher.stop()


def resident(publisher):
    with open(f"/proc/{publisher.child.pid}/status") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmRSS"))


def test_nonsense_is_survived(stage, proxy):
    """Garbage of every kind, and more of everything than there can be: pictures go on, and memory stays."""
    viewer, publisher = stage.view(), live(stage, proxy)
    feed = viewer.wait_video("front", frames=15)
    before, dice = resident(publisher), random.Random(5)
    # Without Leave (8) and tokens (16), which are believed.
    kinds = [number for number in range(1, 40) if number not in (8, 16)]
    for _ in range(30):
        proxy.say(*(field(number, dice.randbytes(dice.randrange(40))) for number in kinds))
    proxy.say(*(dice.randbytes(dice.randrange(1, 40)).replace(b"\x42", b"").replace(b"\x82", b"") or b"\xff" for _ in range(500)), b"")
    proxy.say(b"\xff" * 1_000_000, field(16, "x" * 1_500_000), field(5, field(1, b"") * 400_000))
    for start in range(0, 40_000, 5000):
        proxy.say(field(5, b"".join(field(1, participant(f"PA_{i}", f"guest {i}")) for i in range(start, start + 5000))))
    goes_on(viewer, feed, publisher)
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-offline"), publisher.summary()
    grown = resident(publisher) - before
    assert grown < 200, f"{grown} MB more"
    wait_until(lambda: publisher.get("sink", "connection-state") == "connected", PATIENCE, publisher.summary)
    # And nothing of it was believed that hurts later.
    proxy.cut()
    publisher.wait_for("element", "livekit-resumed")
    goes_on(viewer, feed, publisher)
