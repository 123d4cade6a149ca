# SPDX-License-Identifier: MIT OR Apache-2.0
"""A publisher on a bad link: what tests and scripts/soak do to it, and what they expect all the same."""

import random
import time

from .endurance import Course, Footprint
from .netns import E2E, Namespaces
from .proc import PATIENCE, Child, free_port, wait_until
from .uplink import Uplink, encoder

SOURCE = {"width": 640, "height": 360, "noise": 24}
FULL = 2500  # kbit/s, of the encoder when nothing holds it up
STANDSTILL = "longest time without a picture"


def publish(link, meter="enc"):
    """A live encoder that can be adapted, and a viewer who sees it."""
    line = f"appsrc name=stamp ! {encoder(kbit=FULL)} ! livekitsink name=sink video_0::max-bitrate={FULL * 1000}"
    publisher = link.start(line, sources={"stamp": SOURCE}, meter=meter)
    publisher.wait_published()
    link.viewer.wait_pictures(30)
    return publisher


def assert_same_stay(publisher):
    """Nothing of it was taken for the end of a connection."""
    assert not publisher.select("error"), publisher.summary()
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-offline"), publisher.summary()


class Download:
    """Takes all that the way from server to publisher gives; a context."""

    def __init__(self, link):
        names, port = link.namespaces, free_port()
        command = ["python3", "-m", "harness.bulk"]
        place = [names.server_address, port]
        self._server = Child([*Namespaces.inside(names.server), *command, "serve", *place], link.directory / "bulk-server.log", cwd=E2E)
        try:
            wait_until(lambda: "ready" in self._server.log(), PATIENCE, self._server.tail)
            self._client = Child([*link.prefix, *command, "fetch", *place], link.directory / "bulk-client.log", cwd=E2E)
        except BaseException:
            self._server.stop()
            raise

    def bytes(self):
        whole = self._client.log().rpartition("\n")[0].split()
        return int(whole[-1]) if whole else 0

    def wait(self, count):
        wait_until(lambda: self.bytes() >= count, PATIENCE, lambda: f"{count} bytes; {self.bytes()} came: {self._client.tail()}", interval=0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.stop()
        self._server.stop()


def spike(link, delay_ms, seconds, usual_ms=10):
    """Everything takes that much longer for a moment."""
    link.namespaces.change(delay_ms=usual_ms + delay_ms)
    time.sleep(seconds)
    link.namespaces.change(delay_ms=usual_ms)


def random_steps(directory, room, seconds, seed=1, progress=None):
    """A link that is another one every few seconds: its rate, delay and loss, and now and then a delay that goes again.

    The times of the course are, for each such link, the longest one without a picture."""
    course, chance = Course("random steps of a link", slack=8), random.Random(seed)
    with Uplink(directory, room, delay_ms=10) as link:
        publisher = publish(link, meter=None)
        begin, last = time.monotonic(), link.viewer.arrivals[-1]["at"]
        while (now := time.monotonic()) < begin + seconds:
            kbit, delay_ms, loss = chance.choice([500, 700, 1000, 1500, 2500, 4000]), chance.choice([5, 10, 25, 50]), chance.choice([0.0, 0.0, 0.01, 0.03])
            link.limit(kbit)
            link.namespaces.change(delay_ms=delay_ms, loss=loss)
            if chance.random() < 0.3:
                spike(link, 200, 0.3, delay_ms)
            time.sleep(chance.uniform(2, 8))
            times = [last, *(a["at"] for a in link.viewer.between(now))]
            course.time(STANDSTILL, max(b - a for a, b in zip(times, [*times[1:], time.monotonic()])))
            last = times[-1]
            # What was looked at is needed no more.
            del link.viewer.arrivals[:-60]
            course.note(f"{time.monotonic() - begin:.0f} s, {kbit} kbit/s, {delay_ms} ms, {loss:.0%} lost, {course.times[STANDSTILL][-1]:.2f} s without a picture", Footprint.of(publisher))
            if progress:
                progress(course)
        assert_same_stay(publisher)
    return course
