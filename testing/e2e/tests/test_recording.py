# SPDX-License-Identifier: MIT OR Apache-2.0
"""`encoder ! tee ! filesink / livekitsink`: the recording is the same whatever happens in the room."""

import subprocess
import sys
import time

import pytest
from harness.netns import Namespaces, NotPermitted
from harness.publisher import plugin_env
from harness.server import LiveKitServer

# Long enough for a room that is slow: what happens in it has to happen while this is recorded.
FRAMES = 390
ENCODER = "x264enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=600"
SOURCE = f"videotestsrc is-live=true num-buffers={FRAMES} ! video/x-raw,width=640,height=360,framerate=30/1"
# The recording's bitrate against the one that it has without the sink.
TOLERANCE = 0.02


def line(path, other):
    return f"{SOURCE} ! {ENCODER} ! tee name=t ! queue ! h264parse ! matroskamux ! filesink location={path}  t. ! queue ! {other}"


def recorded(path):
    """Size and whether it is a keyframe, of each frame of a recording."""
    command = ["ffprobe", "-v", "error", "-show_entries", "packet=size,flags", "-of", "csv=p=0", str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    return [(int(size), "K" in flags) for size, flags in (entry.split(",")[:2] for entry in lines)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The recording without `livekitsink`."""
    path = tmp_path_factory.mktemp("alone") / "alone.mkv"
    words = line(path, "fakesink").split()
    subprocess.run(["gst-launch-1.0", "-q", *words], check=True, timeout=60)
    frames = recorded(path)
    assert len(frames) == FRAMES and sum(key for _, key in frames) == 1, frames
    return frames


def assert_unharmed(path, alone, asked):
    """Every frame is there, at the same bitrate, with no keyframe that nobody asked for."""
    frames = recorded(path)
    assert len(frames) == len(alone), f"{len(frames)} of {len(alone)} frames"
    keyframes = sum(key for _, key in frames)
    assert keyframes <= 1 + asked, f"{keyframes} keyframes, {asked} were asked for"
    size, expected = (sum(size for size, _ in all_) for all_ in (frames, alone))
    # A keyframe that was asked for costs bits; how many of them the rate control takes from the other frames is its business.
    extra = sum(sorted((size for size, key in frames if key), reverse=True)[1:])
    print(f"{size} bytes, alone {expected} ({100 * size / expected - 100:+.2f} %), {keyframes} keyframes, {asked} asked for")
    assert expected * (1 - TOLERANCE) <= size <= expected * (1 + TOLERANCE) + extra, f"{size} bytes instead of {expected}, keyframes asked for {extra}"


def finish(publisher):
    publisher.wait_for("eos")
    assert publisher.wait_exit() == 0


def assert_left_alone(publisher):
    told = publisher.messages("livekit-target-bitrate")
    assert all(m["result"] == "shared" and m["applied"] == 0 for m in told), told
    assert len(publisher.warnings("share-encoder=true")) <= 1
    return told


def test_empty_room(stage, alone, tmp_path):
    """Nobody watches: the encoder goes on for the recording, and is asked for nothing but the track's first picture."""
    path = tmp_path / "empty.mkv"
    publisher = stage.publish(line(path, "livekitsink name=sink identity=camera"), keyunit=["enc"])
    publisher.wait_published()
    published = time.monotonic()
    finish(publisher)
    units = publisher.select("key-unit")
    late = [u for u in units if u["t"] > published + 2]
    # An encoder that takes more than a second to answer is asked again.
    assert len(units) <= 2 and not late, units
    assert_unharmed(path, alone, len(units))
    told = assert_left_alone(publisher)
    assert any(not m["active"] for m in told), f"the room has said that nobody watches: {told}"
    assert len(publisher.warnings("share-encoder=true")) == 1


def test_viewers(stage, alone, tmp_path):
    path = tmp_path / "viewers.mkv"
    first = stage.view("first")
    publisher = stage.publish(line(path, "livekitsink name=sink identity=camera"), keyunit=["enc"])
    publisher.wait_published()
    first.wait_video(frames=10)
    stage.view("second").wait_video(frames=10)
    finish(publisher)
    units = publisher.select("key-unit")
    # The start, two viewers, and the end of being unwatched; four times the two that are expected.
    assert 1 <= len(units) <= 8, units
    assert_unharmed(path, alone, len(units))
    assert_left_alone(publisher)


def test_share_encoder_is_the_way_to_have_it_otherwise(stage, alone, tmp_path):
    """The measure measures: with share-encoder=true an empty room costs the recording its bitrate."""
    path = tmp_path / "shared.mkv"
    publisher = stage.publish(line(path, "livekitsink name=sink identity=camera share-encoder=true"))
    publisher.wait_for("element", "livekit-target-bitrate", active=False, result="set")
    finish(publisher)
    with pytest.raises(AssertionError, match="bytes instead of"):
        assert_unharmed(path, alone, FRAMES)
    assert not publisher.warnings("share-encoder=true")


def test_bad_link(alone, tmp_path, room):
    """A link of a fifth of the bitrate, with a viewer who needs what comes through."""
    try:
        namespaces = Namespaces()
    except NotPermitted as e:
        pytest.skip(f"needs root: {e}")
    from harness.proc import Child
    from harness.publisher import Publisher

    with namespaces:
        inside = namespaces.inside(namespaces.client)
        shape = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "300kbit", "burst", "4kb", "latency", "300ms"]
        if subprocess.run([*inside, *shape], capture_output=True).returncode:
            pytest.skip("tc tbf is not there")
        with LiveKitServer(tmp_path, address=namespaces.server_address, prefix=namespaces.inside(namespaces.server)) as server:
            path = tmp_path / "bad-link.mkv"
            env = plugin_env(LIVEKIT_URL=server.url, LIVEKIT_TOKEN=server.token(room, "camera"))
            options = {"url": server.url, "token": server.token(room, "viewer"), "room": room, "frames": 1}
            viewer_command = [*namespaces.inside(namespaces.server), sys.executable, "-c", VIEWER, repr(options)]
            with (
                Child(viewer_command, tmp_path / "viewer.log"),
                Publisher(line(path, "livekitsink name=sink"), tmp_path / "publisher.log", keyunit=["enc"], env=env, prefix=inside) as publisher,
            ):
                publisher.wait_published()
                finish(publisher)
                units = publisher.select("key-unit")
                # Twice a second at most (keyframe-min-interval), for thirteen seconds.
                assert len(units) <= 30, units
                assert_unharmed(path, alone, len(units))
                assert_left_alone(publisher)


VIEWER = """
import sys, time
sys.path.insert(0, ".")
from harness.subscriber import Subscriber
o = eval(sys.argv[1])
with Subscriber(None, o["room"], url=o["url"], token=o["token"]):
    time.sleep(60)
"""
