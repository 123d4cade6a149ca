# SPDX-License-Identifier: MIT OR Apache-2.0
"""A viewer made of LiveKit's Python SDK: decodes, reads the stamps, keeps every arrival."""

import asyncio
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from livekit import rtc
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc._proto import ffi_pb2, video_frame_pb2

from . import stamp
from .checks import assert_decoded
from .proc import PATIENCE, wait_until


@dataclass
class Arrival:
    at: float  # time.monotonic() when the decoded picture reached us
    number: int | None  # None: the stamp could not be read
    delay_ms: int | None  # painted -> here; means nothing for a file painted beforehand
    width: int
    height: int
    spread: int  # difference between brightest and darkest pixel: 0 is a blank picture


@dataclass
class VideoFeed:
    name: str
    sid: str
    mime: str
    track: object
    publisher: str
    source: int = 0
    arrivals: list = field(default_factory=list)
    ended: bool = False

    def numbers(self):
        return [a.number for a in self.arrivals if a.number is not None]

    def report(self, first=None, last=None):
        """Loss, order, unreadable pictures, delay and the largest gap, over the numbers first..last (default: those seen)."""
        numbers = self.numbers()
        first = min(numbers, default=0) if first is None else first
        last = max(numbers, default=-1) if last is None else last
        wanted = set(range(first, last + 1))
        # When a track ends the server itself sends a few empty pictures after the last one.
        shown = list(self.arrivals)
        while shown and shown[-1].number is None and shown[-1].spread < 16:
            shown.pop()
        delays = sorted(a.delay_ms for a in self.arrivals if a.delay_ms is not None)
        gaps = [b.at - a.at for a, b in zip(shown, shown[1:])]
        return {
            "received": len(self.arrivals),
            "missing": sorted(wanted - set(numbers)),
            "unreadable": sum(a.number is None for a in shown),
            "out_of_order": sum(b < a for a, b in zip(numbers, numbers[1:])),
            "repeated": len(numbers) - len(set(numbers)),
            "median_delay_ms": delays[len(delays) // 2] if delays else None,
            "largest_gap_s": round(max(gaps, default=0.0), 3),
        }


@dataclass
class AudioFeed:
    name: str
    sid: str
    mime: str
    track: object
    publisher: str
    first_at: float | None = None
    first_sound_at: float | None = None
    samples: int = 0
    loud_samples: int = 0
    rate: int = 0
    channels: int = 0
    peaks: list = field(default_factory=list)  # loudest sample of each channel
    ended: bool = False


@dataclass
class Packet:
    payload: bytes
    topic: str
    sender: str | None
    reliable: bool


class EveryPicture(rtc.VideoStream):
    """The SDK keeps one decoded picture for whoever is slow to take it, and drops it when the next one comes; a test wants
    to see them all. Its native side knows how to keep more, but this version's Python has no argument for it."""

    def _create_owned_stream(self):
        request = ffi_pb2.FfiRequest()
        new = request.new_video_stream
        new.track_handle = self._track._ffi_handle.handle
        new.type = video_frame_pb2.VideoStreamType.VIDEO_STREAM_NATIVE
        new.format = self._format
        new.normalize_stride = True
        new.queue_size_frames = 120
        return FfiClient.instance.request(request).new_video_stream.stream


class Subscriber:
    """Synchronous face of an SDK room that lives on an event loop in a thread of its own."""

    def __init__(self, server, room, identity="viewer", url=None, token=None, wait=True, connect_timeout=PATIENCE, channels=1, encryption=None):
        """`channels`: of the sound that is asked of the SDK; `encryption`: its options for end-to-end encryption."""
        self.room_name, self.identity = room, identity
        self.url = url or server.url
        self.channels = channels
        self.encryption = encryption
        self.token = token or server.token(room, identity)
        self.video, self.audio = [], []
        self.events = []  # (monotonic time, name, detail)
        self.data = []  # packets of others
        self.started = time.monotonic()
        self.connected_at = None
        self.error = None
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"subscriber-{identity}", daemon=True)
        self._thread.start()
        if wait:
            self.wait_connected(connect_timeout)

    def wait_connected(self, timeout=PATIENCE):
        try:
            wait_until(lambda: self.connected_at or self.error, timeout, f"{self.identity} to join {self.room_name}")
            if self.error:
                raise AssertionError(f"the SDK could not join: {self.error!r}")
        except BaseException:
            self.close()
            raise

    def _run(self):
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except Exception as e:  # shown by whoever waits
            self.error = e
        finally:
            self._loop.close()

    async def _main(self):
        self.room = rtc.Room(loop=self._loop)
        self.room.on("track_subscribed", self._subscribed)
        self.room.on("track_unsubscribed", self._unsubscribed)
        self.room.on("data_received", self._data)
        for name in ("participant_connected", "participant_disconnected", "track_published", "track_unpublished", "track_muted", "track_unmuted", "disconnected", "reconnecting", "reconnected"):
            self.room.on(name, self._note(name))
        await asyncio.wait_for(self.room.connect(self.url, self.token, rtc.RoomOptions(auto_subscribe=True, encryption=self.encryption)), PATIENCE)
        self.connected_at = time.monotonic()
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.room.disconnect()

    def _note(self, name):
        def handler(*args):
            detail = next((a for x in reversed(args) for a in [getattr(x, "identity", None) or getattr(x, "name", None)] if a), None)
            self.events.append((time.monotonic(), name, detail))

        return handler

    def _subscribed(self, track, publication, participant):
        self.events.append((time.monotonic(), "track_subscribed", publication.name))
        args = (publication.name, publication.sid, publication.mime_type, track, participant.identity)
        if track.kind == rtc.TrackKind.KIND_VIDEO:
            feed = VideoFeed(*args, source=publication.source)
            self.video.append(feed)
            task = self._loop.create_task(self._watch(feed))
        else:
            feed = AudioFeed(*args)
            self.audio.append(feed)
            task = self._loop.create_task(self._listen(feed))
        self._tasks.add(task)

    def _unsubscribed(self, track, publication, _participant):
        self.events.append((time.monotonic(), "track_unsubscribed", publication.name))
        for feed in self.video + self.audio:
            if feed.sid == publication.sid:
                feed.ended = True

    def _data(self, packet):
        sender = packet.participant.identity if packet.participant else None
        reliable = packet.kind == rtc.DataPacketKind.KIND_RELIABLE
        self.data.append(Packet(packet.data, packet.topic, sender, reliable))

    def send(self, payload, topic="", reliable=True, to=()):
        """Sends a data packet into the room."""
        sending = self.room.local_participant.publish_data(payload, reliable=reliable, topic=topic, destination_identities=list(to))
        asyncio.run_coroutine_threadsafe(sending, self._loop).result(PATIENCE)

    async def _watch(self, feed):
        # I420 is what the decoder makes; asking for it saves a conversion.
        stream = EveryPicture(feed.track, format=rtc.VideoBufferType.I420)
        try:
            async for event in stream:
                at, ms = time.monotonic(), stamp.now_ms()
                frame = event.frame
                luma = np.frombuffer(frame.data, np.uint8, frame.width * frame.height).reshape(frame.height, frame.width)
                seen = stamp.read(luma)
                number, delay = (seen[0], (ms - seen[1]) & 0xFFFFFFFF) if seen else (None, None)
                feed.arrivals.append(Arrival(at, number, delay, frame.width, frame.height, int(luma.max()) - int(luma.min())))
        finally:
            await stream.aclose()

    async def _listen(self, feed):
        stream = rtc.AudioStream(feed.track, num_channels=self.channels)
        try:
            async for event in stream:
                frame = event.frame
                data = np.frombuffer(frame.data, np.int16)
                feed.first_at = feed.first_at or time.monotonic()
                feed.samples += frame.samples_per_channel
                feed.rate, feed.channels = frame.sample_rate, frame.num_channels
                peaks = np.abs(data.reshape(-1, frame.num_channels).astype(int)).max(axis=0, initial=0).tolist()
                feed.peaks = [max(pair) for pair in zip(peaks, feed.peaks or peaks)]
                if data.size and np.abs(data).max() > 300:
                    feed.first_sound_at = feed.first_sound_at or time.monotonic()
                    feed.loud_samples += frame.samples_per_channel
        finally:
            await stream.aclose()

    def wait_video(self, name=None, frames=1, timeout=PATIENCE, publisher=None):
        """The feed of that name (or the first) once it has shown `frames` pictures."""

        def ready():
            for feed in list(self.video):
                if (name is None or feed.name == name) and (publisher is None or feed.publisher == publisher):
                    if len(feed.arrivals) >= frames:
                        return feed
            return None

        def missing():
            have = {f.name: len(f.arrivals) for f in self.video}
            return f"{frames} pictures of {name or 'any track'} in {self.room_name}; have {have}; events {self.events[-12:]}"

        return wait_until(ready, timeout, missing)

    def wait_number(self, feed, number, timeout=PATIENCE):
        """Until this picture or one after it is shown: of pictures that come due together the SDK shows the last only."""
        wait_until(lambda: any(n >= number for n in feed.numbers()[-120:]), timeout, lambda: f"frame {number}; the newest is {feed.numbers()[-1:]}")

    def wait_sound(self, seconds=0.5, timeout=PATIENCE):
        return wait_until(
            lambda: next((f for f in self.audio if f.rate and f.loud_samples >= seconds * f.rate), None),
            timeout,
            lambda: f"{seconds} s of sound; have {[(f.name, f.samples, f.loud_samples) for f in self.audio]}",
        )

    def wait_event(self, name, timeout=PATIENCE, detail=None):
        return wait_until(
            lambda: next((e for e in self.events if e[1] == name and detail in (None, e[2])), None), timeout, lambda: f"{name}; events {self.events[-12:]}"
        )

    def inbound(self, feed):
        """The SDK's inbound RTP statistics of a feed: packets_lost, frames_decoded, key_frames_decoded, …"""
        stats = asyncio.run_coroutine_threadsafe(feed.track.get_stats(), self._loop).result(PATIENCE)
        flat = {}
        for s in stats:
            kind = s.WhichOneof("stats")
            if kind == "inbound_rtp":
                for part in (s.inbound_rtp.received, s.inbound_rtp.inbound):
                    flat.update({f.name: getattr(part, f.name) for f in part.DESCRIPTOR.fields})
        return flat

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def leave(code=0):
    """Ends a process in which the SDK was used. Its native threads call into Python to the end; one that does so while the interpreter
    shuts down is ended by that in the midst of code that cannot be unwound, and aborts the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    """Viewers as a program, for places this process is not in (a network namespace): prints one report as JSON, or with
    `tokens` in the options a list of them."""
    options = json.loads(sys.argv[1])
    if "tokens" in options:
        viewers = []
        try:
            for n, token in enumerate(options["tokens"]):
                viewers.append(Subscriber(None, options["room"], f"viewer-{n}", options["url"], token))
            print(json.dumps([v.wait_video(frames=options["frames"], timeout=2 * PATIENCE).report() for v in list(viewers)]), flush=True)
        finally:
            for viewer in viewers:
                viewer.close()
        return
    with Subscriber(None, options["room"], url=options["url"], token=options["token"]) as viewer:
        feed = viewer.wait_video(frames=options["frames"])
        report = {**feed.report(), "whole": False}
        try:
            assert_decoded(viewer, feed)
            report["whole"] = True
        except AssertionError as e:
            report["why"] = str(e)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
    leave()
