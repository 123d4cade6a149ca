# SPDX-License-Identifier: MIT OR Apache-2.0
"""`rtspsrc ! rtph264depay ! livekitsink` from a real RTSP server, with and without key requests."""

import sys
from pathlib import Path

import pytest
from harness.checks import assert_decoded
from harness.proc import PATIENCE, Child, free_port, wait_until

E2E = Path(__file__).resolve().parent.parent


@pytest.fixture
def camera(tmp_path):
    """camera(kind, gop) -> (child, URL)"""
    children = []

    def start(kind, gop):
        port = free_port()
        child = Child([sys.executable, "-m", "harness.rtspserver", port, kind, gop], tmp_path / f"rtsp-{kind}.log", cwd=E2E)
        children.append(child)
        wait_until(lambda: '"ready"' in child.log(), PATIENCE, lambda: f"the RTSP server:\n{child.tail()}")
        return child, f"rtsp://127.0.0.1:{port}/camera"

    yield start
    for child in children:
        child.stop()


def from_rtsp(stage, url, protocols):
    return stage.publish(f"rtspsrc location={url} protocols={protocols} latency=100 ! rtph264depay ! livekitsink name=sink identity=ipcam")


@pytest.mark.parametrize("protocols", ["tcp", "udp"])
def test_camera_that_answers_key_requests(stage, camera, protocols):
    server, url = camera("avpf", 20)
    publisher = from_rtsp(stage, url, protocols)
    publisher.wait_published()
    first = stage.view("first")
    first.wait_video(frames=15)
    requests = lambda: len(publisher.messages("livekit-keyframe-request"))
    before = requests()
    late = stage.view("late")
    feed = late.wait_video(frames=15)
    # The GOP is 20 s.
    assert feed.arrivals[0].at - late.connected_at < 8, feed.arrivals[0]
    wait_until(lambda: requests() > before, PATIENCE, lambda: f"a request for the late viewer; {publisher.summary()}")
    # Not each of them reaches the camera: rtspsrc gives up those for which RTCP's share of the bandwidth leaves no room in time.
    wait_until(lambda: '"key-unit"' in server.log(), PATIENCE, server.tail)
    assert_live(late, feed)


def assert_live(viewer, feed):
    """Nothing is missing from the live edge on. (Of what is sent again before it, the SDK's own short queue shows a part.)"""
    edge = max(feed.numbers())
    viewer.wait_number(feed, edge + 15)
    assert_decoded(viewer, feed, first=edge)


def test_camera_that_can_not_be_asked(stage, camera):
    """With a key frame every 2 s a viewer would wait 1 s on average; the GOP cache makes that a moment."""
    server, url = camera("avp", 2)
    publisher = from_rtsp(stage, url, "tcp")
    publisher.wait_published()
    stage.view("first").wait_video(frames=45)
    late = stage.view("late")
    feed = late.wait_video(frames=20)
    assert '"key-unit"' not in server.log()
    assert publisher.messages("livekit-gop-replayed")
    assert_live(late, feed)
    assert not publisher.select("error")
