# SPDX-License-Identifier: MIT OR Apache-2.0
"""A publisher behind a link of its own: server and viewer in one network namespace, publisher in another."""

import json

from .netns import Namespaces
from .publisher import Publisher, plugin_env
from .remote import RemoteViewer
from .server import LiveKitServer

# Counts what leaves an encoder: CLOCK_MONOTONIC and bytes.
METER = """
import time
meter = runner.meter = []
def probe(pad, info):
    meter.append((time.monotonic(), info.get_buffer().get_size()))
    return Gst.PadProbeReturn.OK
pipeline.get_by_name({name!r}).get_static_pad('src').add_probe(Gst.PadProbeType.BUFFER, probe)
"""

# Makes an encoder one that understands nothing but the event (design: GstTargetBitrate, bit/s; active = somebody needs frames).
EVENTS = """
target = pipeline.get_by_name({name!r})
def heard(pad, info):
    structure = info.get_event().get_structure()
    if structure is not None and structure.get_name() == 'GstTargetBitrate':
        target.set_property('bitrate', max(1, structure.get_value('bitrate') // 1000))
    return Gst.PadProbeReturn.OK
target.get_static_pad('src').add_probe(Gst.PadProbeType.EVENT_UPSTREAM, heard)
"""


def hear_events(publisher, name):
    """To be used with `bitrate-feedback=event`: the encoder of that name follows the events from now on."""
    publisher.run(EVENTS.format(name=name))


def encoder(name="enc", kbit=2500, gop=300, extra="vbv-buf-capacity=150"):
    """A live encoder; its small buffer keeps keyframes at a size that a narrow link carries in time."""
    return f"x264enc name={name} tune=zerolatency speed-preset=ultrafast bitrate={kbit} key-int-max={gop} {extra}"


class Uplink:
    """Use as a context; then `start` a publisher, and `limit` the link."""

    def __init__(self, directory, room, delay_ms=0, loss=0.0, emulated=False, nice=(), binary=None, config=None):
        """`emulated`: see `Namespaces`. `config`: makes the keywords of the server's configuration, given this."""
        self.directory, self.room, self.nice = directory, room, list(nice)
        self.namespaces = Namespaces(delay_ms=delay_ms, loss=loss, emulated=emulated)
        self._open = []
        try:
            inside = [*Namespaces.inside(self.namespaces.server), *self.nice]
            self.server = self._keep(LiveKitServer(directory, address=self.namespaces.server_address, binary=binary, prefix=inside, **(config(self) if config else {})))
            self.viewer = self._keep(RemoteViewer(self.server.url, self.server.token(room, "viewer"), room, directory / "viewer.log", prefix=inside))
        except BaseException:
            self.close()
            raise

    def _keep(self, thing):
        self._open.append(thing.stop)
        return thing

    def keep(self, end):
        """To be called when this ends."""
        self._open.append(end)

    @property
    def prefix(self):
        """Words before the command of something that is to run at the publisher's end."""
        return [*Namespaces.inside(self.namespaces.client), *self.nice]

    def env(self, **more):
        return plugin_env(LIVEKIT_URL=self.server.url, LIVEKIT_TOKEN=self.server.token(self.room, "camera", ttl=3600), **more)

    def start(self, pipeline, sources=None, meter=None, **env):
        publisher = Publisher(pipeline, self.directory / "publisher.log", sources=sources, env=self.env(**env), prefix=self.prefix)
        self._keep(publisher)
        if meter:
            publisher.run(METER.format(name=meter))
        return publisher

    def limit(self, kbit, **kw):
        self.namespaces.limit(kbit, **kw)

    def close(self):
        for end in reversed(self._open):
            end()
        self._open = []
        self.namespaces.remove()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Rates:
    """Bitrates of an encoder that was metered."""

    def __init__(self, samples):
        self.samples = samples

    @classmethod
    def of(cls, publisher):
        return cls(json.loads(publisher.run("import json; result = json.dumps(runner.meter)")))

    def kbit(self, begin, end):
        return sum(size for at, size in self.samples if begin <= at < end) * 8 / 1000 / (end - begin)

    def back(self, begin, end, kbit, window=1.0):
        """Seconds from `begin` until a second began in which this much was made, that second included; None = never."""
        at = begin
        while at + window <= end:
            if self.kbit(at, at + window) >= kbit:
                return at + window - begin
            at += 0.25
        return None

    def down(self, begin, end, kbit, window=0.5):
        """Seconds from `begin` until a time began in which less than this was made; None = never."""
        at = begin
        while at + window <= end:
            if self.kbit(at, at + window) < kbit:
                return at - begin
            at += 0.05
        return None
