# SPDX-License-Identifier: MIT OR Apache-2.0
import os
import secrets
import shutil

import pytest

from harness.media import Media
from harness.netns import NotPermitted
from harness.publisher import GstLaunch, Publisher, plugin_env
from harness.receiver import Receiver
from harness.server import LiveKitServer
from harness.subscriber import Subscriber, leave
from harness.uplink import Uplink

# A small picture and a quick preset: the tests are about the way, not the picture.
ENCODER = "x264enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max={gop}"


# Tests of what goes back from the network to the encoder; the part `loop` of scripts/test. They take their time.
LOOP = {
    "test_bad_link",
    "test_congestion",
    "test_encoders",
    "test_idle",
    "test_keyframes",
    "test_recording",
    "test_scale",
    "test_simulcast",
}


EXIT_STATUS = pytest.StashKey[int]()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.module.__name__.rpartition(".")[2] in LOOP:
            item.add_marker(pytest.mark.loop)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    if EXIT_STATUS in config.stash:
        leave(config.stash[EXIT_STATUS])


@pytest.fixture(scope="session", autouse=True)
def clean_environment():
    """The caller's LIVEKIT_* variables and proxies must not leak into what is tested."""
    for name in [n for n in os.environ if n.startswith("LIVEKIT_") and n != "LIVEKIT_SERVER" or n.lower().endswith("_proxy")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with LiveKitServer(tmp_path_factory.mktemp("server")) as s:
        yield s


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def room():
    return "room-" + secrets.token_hex(4)


class Stage:
    """One test's room: starts publishers and viewers in it and ends them all."""

    def __init__(self, server, room, directory):
        self.server, self.room, self.directory = server, room, directory
        self._open = []
        self._count = 0

    def _log(self, kind):
        self._count += 1
        return self.directory / f"{kind}-{self._count}.log"

    def env(self, **more):
        return plugin_env(
            **{
                "LIVEKIT_URL": self.server.url,
                "LIVEKIT_API_KEY": self.server.key,
                "LIVEKIT_API_SECRET": self.server.secret,
                "LIVEKIT_ROOM": self.room,
                **more,
            }
        )

    def publish(self, pipeline, env=None, **kw):
        publisher = Publisher(pipeline, self._log("publisher"), env=env or self.env(), **kw)
        self._open.append(publisher.stop)
        return publisher

    def live(self, pipeline=None, gop=30, sink="identity=camera", fps=30, frames=0, **kw):
        """A live encoder in front of `livekitsink`."""
        pipeline = pipeline or f"appsrc name=stamp ! {ENCODER.format(gop=gop)} ! livekitsink name=sink {sink}"
        return self.publish(pipeline, sources={"stamp": {"fps": fps, "frames": frames}}, keyunit=["enc"], **kw)

    def launch(self, pipeline, env=None, **kw):
        child = GstLaunch(pipeline, self._log("gst-launch"), env=env or self.env(), **kw)
        self._open.append(child.stop)
        return child

    def view(self, identity="viewer", **kw):
        viewer = Subscriber(self.server, self.room, identity, **kw)
        self._open.append(viewer.close)
        return viewer

    def receive(self, **kw):
        """A receiver that keeps the frames as they were sent."""
        receiver = Receiver(self.server, self.room, self.directory, **kw)
        self._open.append(receiver.stop)
        return receiver

    def close(self):
        for end in reversed(self._open):
            end()


@pytest.fixture
def stage(server, room, tmp_path):
    s = Stage(server, room, tmp_path)
    yield s
    s.close()


@pytest.fixture
def make_uplink(tmp_path, room):
    """make_uplink(…) gives an `Uplink` (a publisher's link of its own) that ends with the test."""
    made = []

    def make(**kw):
        try:
            made.append(Uplink(tmp_path, room, **kw))
        except NotPermitted as e:
            pytest.skip(f"needs root: {e}")
        return made[-1]

    yield make
    for uplink in made:
        uplink.close()


@pytest.fixture(scope="session")
def needs(request):
    """needs('program') skips, and so counts, a test whose program is missing."""

    def check(program):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")

    return check
