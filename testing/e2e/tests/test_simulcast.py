# SPDX-License-Identifier: MIT OR Apache-2.0
"""Layers of one track from encoders of their own: each viewer gets the size asked for, and what nobody is sent stands still."""

import pytest
from conftest import ENCODER
from harness.proc import PATIENCE, wait_until

LOW, MEDIUM, HIGH = 0, 1, 2
# Not in the order of their sizes.
SIZES = {"video_0": (640, 360), "video_1": (160, 90), "video_2": (320, 180)}
BY_QUALITY = {LOW: "video_1", MEDIUM: "video_2", HIGH: "video_0"}
# Told to idle: the goal is 7 s; a change of layers within a second. Tests use four times a goal.
IDLE_LIMIT = 7 * 4
CHANGE_LIMIT = 1.0 * 4


def branch(n, size, gop=300, keeps=0):
    """`keeps`: its encoder keeps so many frames before it gives out the first."""
    encoder = ENCODER.format(gop=gop).replace("name=enc", f"name=enc{n}")
    if keeps:
        encoder = encoder.replace("tune=zerolatency", f"bframes=0 rc-lookahead={keeps} sync-lookahead=0 sliced-threads=true")
    return f"source. ! queue name=queue{n} ! videoscale ! video/x-raw,width={size[0]},height={size[1]} ! {encoder} ! sink.video_{n}"


def simulcast(stage, sizes, properties="", keeps={}, **kw):
    tracks = " ".join(f"{pad}::track=front" for pad in sizes)
    branches = " ".join(branch(n, size, keeps=keeps.get(n, 0)) for n, size in enumerate(sizes.values()))
    pipeline = f"appsrc name=stamp ! tee name=source livekitsink name=sink identity=camera {tracks} {properties} {branches}"
    return stage.publish(pipeline, sources={"stamp": {"fps": 20}}, keyunit=[f"enc{n}" for n in range(len(sizes))], **kw)


def ask(viewer, feed, quality):
    viewer.room.remote_participants[feed.publisher].track_publications[feed.sid].set_video_quality(quality)


def width(feed):
    return feed.arrivals[-1].width if feed.arrivals else None


def stats(publisher, pad):
    return publisher.get("sink", "stats")["fields"][pad]["fields"]


def is_active(publisher, pad):
    """What the pad's encoder was told last; it starts active."""
    told = [m["active"] for m in publisher.messages("livekit-target-bitrate") if m["pad"] == pad]
    return told[-1] if told else True


def why(publisher, feed):
    """Whether a layer is missing because nothing of it is sent, or because the server does not pass it on."""
    layers = {pad: (is_active(publisher, pad), stats(publisher, pad)["frames-sent"]) for pad in BY_QUALITY.values()}
    return f"the picture is {width(feed)} wide; active and frames sent: {layers}; {publisher.summary()}"


def announced(stage):
    layers = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]["layers"]
    return [(layer.get("rid", ""), layer.get("quality", "LOW"), layer["width"], layer["height"]) for layer in layers]


@pytest.mark.slow
def test_each_viewer_gets_the_layer_asked_for(stage):
    viewer = stage.view()
    publisher = simulcast(stage, SIZES)
    publisher.wait_published(count=3)
    feed = viewer.wait_video(frames=20)
    assert announced(stage) == [("q", "LOW", 160, 90), ("h", "MEDIUM", 320, 180), ("f", "HIGH", 640, 360)]
    assert {m["track-sid"] for m in publisher.messages("livekit-published")} == {feed.sid}, "one track"
    assert {m["pad"] for m in publisher.messages("livekit-published")} == set(SIZES), "each pad is told"
    assert [stats(publisher, BY_QUALITY[q])["layer"] for q in (LOW, MEDIUM, HIGH)] == [0, 1, 2]
    wait_until(lambda: width(feed) == 640, PATIENCE, lambda: f"the largest layer; {why(publisher, feed)}")

    ask(viewer, feed, LOW)
    wait_until(lambda: width(feed) == 160, CHANGE_LIMIT, lambda: f"the smallest layer; {why(publisher, feed)}")
    for pad in ("video_2", "video_0"):
        wait_until(lambda: not is_active(publisher, pad), IDLE_LIMIT, f"{pad} to be told that nobody needs it")
    assert is_active(publisher, "video_1")
    idle = {pad: stats(publisher, pad) for pad in SIZES}
    requests = len(publisher.select("key-unit", element="enc0"))
    wait_until(lambda: stats(publisher, "video_1")["frames-sent"] > idle["video_1"]["frames-sent"] + 20, PATIENCE, "the watched layer to go on")
    for pad in ("video_2", "video_0"):
        now = stats(publisher, pad)
        assert now["frames-sent"] == idle[pad]["frames-sent"], f"{pad} is sent to nobody"
        assert now["dropped-unwatched"] > idle[pad]["dropped-unwatched"]

    for quality, others in ((MEDIUM, {"video_1": True, "video_0": False}), (HIGH, {"video_1": True, "video_2": True})):
        pad = BY_QUALITY[quality]
        assert not is_active(publisher, pad)
        before = stats(publisher, pad)
        ask(viewer, feed, quality)
        wait_until(lambda: width(feed) == SIZES[pad][0], CHANGE_LIMIT, lambda: f"{pad}; {why(publisher, feed)}")
        # The message may be behind the picture.
        wait_until(lambda: is_active(publisher, pad), PATIENCE, f"{pad} to be told that it is needed")
        after = stats(publisher, pad)
        assert after["keyframes-sent"] > before["keyframes-sent"], "it begins with a key frame"
        asked = publisher.wait_for("element", "livekit-keyframe-request", pad=pad, kind="resumed")["fields"]
        assert asked["forwarded"], asked
        for other, active in others.items():
            assert is_active(publisher, other) == active, f"{other} while {pad} is asked for"
        if quality == MEDIUM:
            assert len(publisher.select("key-unit", element="enc0")) == requests, "a layer that nobody watches is asked for nothing"
    report = feed.report()
    # Each change may begin with a coarse picture of an encoder that has just been woken.
    assert report["unreadable"] <= 10 and not report["out_of_order"], report
    assert report["largest_gap_s"] < CHANGE_LIMIT, report


def test_two_layers(stage):
    viewer = stage.view()
    sizes = {"video_0": (160, 90), "video_1": (640, 360)}
    publisher = simulcast(stage, sizes, "video_0::track-name=door video_1::track-name=gate")
    feed = viewer.wait_video("door", frames=20)
    assert announced(stage) == [("q", "LOW", 160, 90), ("h", "MEDIUM", 640, 360)]
    assert publisher.warnings("video_1", "track-name", "video_0"), "the first pad's name counts, and that is told"
    wait_until(lambda: width(feed) == 640, PATIENCE, lambda: f"the larger layer; it is {width(feed)}")
    ask(viewer, feed, LOW)
    wait_until(lambda: width(feed) == 160, CHANGE_LIMIT, lambda: f"the smaller layer; it is {width(feed)}")


def test_a_layer_whose_encoder_is_slower_is_changed_to(stage):
    """The server begins with a keyframe only if that is less than 50 ms older than what the viewer got last."""
    viewer = stage.view()
    publisher = simulcast(stage, {"video_0": (160, 90), "video_1": (640, 360)}, keeps={1: 3})
    feed = viewer.wait_video(frames=20)
    wait_until(lambda: width(feed) == 640, PATIENCE, lambda: f"the larger layer; it is {width(feed)}; {publisher.summary()}")
    for quality, wanted in ((LOW, 160), (HIGH, 640)):
        ask(viewer, feed, quality)
        wait_until(lambda: width(feed) == wanted, PATIENCE, lambda: f"the layer of {wanted}; it is {width(feed)}; {publisher.summary()}")


def test_a_group_of_one_is_a_plain_track(stage):
    viewer = stage.view()
    simulcast(stage, {"video_0": (640, 360)})
    feed = viewer.wait_video("front", frames=20)
    assert width(feed) == 640
    assert announced(stage) == [("", "HIGH", 640, 360)]


def test_a_layer_that_leaves(stage):
    viewer = stage.view()
    publisher = simulcast(stage, SIZES)
    publisher.wait_published(count=3)
    viewer.wait_video("front", frames=10)
    publisher.run("""
sink, source, queue = (pipeline.get_by_name(name) for name in ("sink", "source", "queue0"))
entry = queue.get_static_pad("sink")
branch = entry.get_peer()

def cut(*_):
    branch.unlink(entry)
    return Gst.PadProbeReturn.REMOVE

branch.add_probe(Gst.PadProbeType.IDLE, cut)
source.release_request_pad(branch)
pad = sink.get_static_pad("video_0")
encoder = pad.get_peer()
queue.set_state(Gst.State.NULL)
encoder.unlink(pad)
sink.release_request_pad(pad)
""")
    publisher.wait_published(count=5)
    two = wait_until(lambda: next((f for f in viewer.video if f.sid == publisher.messages("livekit-published")[-1]["track-sid"]), None), PATIENCE, "the track of two layers")
    wait_until(lambda: width(two) == 320, PATIENCE, lambda: f"the larger one of the two; it is {width(two)}")
    wait_until(lambda: announced(stage) == [("q", "LOW", 160, 90), ("h", "MEDIUM", 320, 180)], PATIENCE, lambda: f"the announcement; it is {announced(stage)}")
    assert two.name == "front"


@pytest.mark.parametrize(
    "pads, words",
    [
        ({"video_0": "x264enc tune=zerolatency", "video_1": "vp8enc deadline=1"}, ("video_1", "same codec")),
        ({f"video_{n}": "x264enc tune=zerolatency" for n in range(4)}, ("video_3", "3 pads already")),
    ],
    ids=["codecs", "four"],
)
def test_pads_that_are_no_layers_of_one_track(stage, pads, words):
    branches = " ".join(f"source. ! queue ! videoscale ! video/x-raw,width={160 + 32 * n},height=90 ! {encoder} ! sink.video_{n}" for n, encoder in enumerate(pads.values()))
    tracks = " ".join(f"{pad}::track=front" for pad in pads)
    publisher = stage.publish(f"videotestsrc is-live=true ! tee name=source livekitsink name=sink {tracks} {branches}")
    error = publisher.wait_for("error")["text"]
    assert all(word in error for word in words), error
