# SPDX-License-Identifier: MIT OR Apache-2.0
"""What many repetitions and a long time leave behind in a publisher: descriptors, threads and memory."""

import json
import os
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from .proc import PATIENCE, free_port, wait_until
from .server import LiveKitServer
from .subscriber import Subscriber

# Small pictures: the tests are about the sink.
SIZE = {"width": 320, "height": 192, "fps": 15}
VIDEO = "x264enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=60"
LINE = f"appsrc name=stamp ! {VIDEO} ! sink.video_0 audiotestsrc is-live=true volume=0.2 ! opusenc ! sink.audio_0 livekitsink name=sink identity=camera"


# In the publisher: the C library gives back what it keeps for later (how much that is differs from moment to moment by
# more than what is looked for), and says what is allocated.
TRIM = """
import ctypes, gc, json
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
info = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields.split()]})
libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = info
gc.collect()
libc.malloc_trim(0)
held = libc.mallinfo2()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
result = json.dumps([(held.uordblks + held.hblkhd) // 1024, int(status["VmRSS"].split()[0])])
"""


@dataclass
class Footprint:
    """What a publisher's process holds at one moment."""

    fds: int
    threads: int
    allocated_kb: int
    rss_kb: int

    @classmethod
    def of(cls, publisher, stopped=False):
        allocated, rss = json.loads(publisher.run(TRIM))
        return cls(*counts(publisher.child.pid, stopped), allocated, rss)

    @classmethod
    def at_rest(cls, publisher, still=1.5, like=None):
        """Once descriptors and threads have stayed the same for that many seconds: helper threads live on for one. Those that
        networking and GStreamer keep for more to do live on for ten seconds and more: with `like` (a footprint) they are waited
        for, until there are no more than in that one, or for a minute."""
        last, since, begin = None, 0.0, time.monotonic()

        def settled():
            nonlocal last, since
            now = counts(publisher.child.pid, stopped=True)
            if now != last:
                last, since = now, time.monotonic()
            more = like and (now[0] > like.fds or now[1] > like.threads) and time.monotonic() < begin + 60
            return not more and time.monotonic() >= since + still

        wait_until(settled, PATIENCE + 60, lambda: f"a process at rest; it holds {last} descriptors and threads", interval=0.1)
        return cls.of(publisher, stopped=True)


def counts(pid, stopped=False):
    """Descriptors and threads of a process, without the threads that GLib's pools keep for a quarter of a minute. Such a thread
    may have the name of the pad that it worked for last; where nothing plays, those are left out too."""
    threads = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text()
            threads += not name.startswith("pool-") and not (stopped and ":" in name)
        except OSError:  # just gone
            pass
    return len(os.listdir(f"/proc/{pid}/fd")), threads


@dataclass
class Course:
    """Footprints over a run, and the times (s) that were measured in it."""

    name: str
    # How many descriptors and threads more or less there may be while it plays: TCP is tried beside UDP when that takes long.
    slack: int = 0
    footprints: list = field(default_factory=list)  # (how far, Footprint)
    rest: list = field(default_factory=list)  # Footprints of the stopped pipeline, first and last
    times: dict = field(default_factory=dict)  # what -> seconds

    def note(self, progress, footprint):
        self.footprints.append((progress, footprint))

    def time(self, what, seconds):
        self.times.setdefault(what, []).append(seconds)

    def growth(self, what):
        """Of memory, from the first quarter of the looks to the last one: medians, as a share of the former."""
        sizes = [getattr(f, what) for _, f in self.footprints]
        quarter = max(1, len(sizes) // 4)
        before, after = statistics.median(sizes[:quarter]), statistics.median(sizes[-quarter:])
        return after / before - 1

    def problems(self, growth=0.05):
        """What is not constant, in words."""
        found = []
        for what in ("fds", "threads"):
            numbers = [getattr(f, what) for _, f in self.footprints]
            half = len(numbers) // 2
            if half and min(numbers[half:]) > max(numbers[:half]) + self.slack:
                found.append(f"{what} grow: {numbers}")
            rest = [getattr(f, what) for f in self.rest]
            if rest and rest[-1] > rest[0]:
                found.append(f"{what} are left behind: {rest}")
        for what in ("allocated_kb", "rss_kb"):
            if self.growth(what) > growth:
                found.append(f"{what} grows by {100 * self.growth(what):.1f} %: {[getattr(f, what) for _, f in self.footprints]}")
        return [f"{self.name}: {text}" for text in found]

    def report(self):
        first, last = self.footprints[0][1], self.footprints[-1][1]
        lines = [
            f"{self.name}: {self.footprints[-1][0]}, {len(self.footprints)} looks: descriptors {first.fds} -> {last.fds}, "
            f"threads {first.threads} -> {last.threads}, memory {first.rss_kb / 1024:.1f} -> {last.rss_kb / 1024:.1f} MB ({100 * self.growth('rss_kb'):+.1f} %), "
            f"allocated {first.allocated_kb / 1024:.2f} -> {last.allocated_kb / 1024:.2f} MB ({100 * self.growth('allocated_kb'):+.1f} %)"
        ]
        if self.rest:
            lines.append(f"  stopped: descriptors {self.rest[0].fds} -> {self.rest[-1].fds}, threads {self.rest[0].threads} -> {self.rest[-1].threads}")
        for what, seconds in self.times.items():
            lines.append(f"  {what}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)}")
        return "\n".join(lines)


START = f"""
for feeder in feeders.values():
    feeder.stop()
add_feeder(pipeline.get_by_name("stamp"), **{SIZE!r})
pipeline.set_state(Gst.State.PLAYING)
"""
STOP = """
import time
begin = time.monotonic()
feeders["stamp"].stop()
pipeline.set_state(Gst.State.NULL)
result = time.monotonic() - begin
"""


def cycles(stage, count, warm=5, looks=20, progress=None):
    """A pipeline that is started, publishes, and is stopped, again and again."""
    course = Course("start and stop")
    publisher = stage.publish(LINE, sources={"stamp": SIZE}, keep_open=True)
    every = max(1, count // looks)
    for n in range(warm + count):
        if n:
            begin = time.monotonic()
            publisher.run(START)
        # Two tracks each time.
        publisher.wait_published(count=2 * (n + 1))
        if n:
            course.time("published", time.monotonic() - begin)
        course.time("stopped", publisher.run(STOP))
        done = n + 1 - warm
        if done >= 0 and (done % every == 0 or done == count):
            course.note(f"{done} cycles", Footprint.at_rest(publisher))
            if progress:
                progress(course)
    assert not publisher.select("error"), publisher.summary()
    return course


class Restarting:
    """A server that can be killed and started again, under the same address and keys."""

    def __init__(self, directory, keys):
        self.directory, self.keys, self.port = directory, keys, free_port()
        self.count, self.server = 0, None
        self.start()

    def start(self):
        self.count += 1
        directory = self.directory / f"server-{self.count}"
        directory.mkdir()
        self.server = LiveKitServer(directory, port=self.port, keys=self.keys)
        return self.server

    def kill(self):
        os.kill(self.server.child.pid, signal.SIGKILL)
        self.server.child.wait(PATIENCE)
        self.server.stop()

    def stop(self):
        self.server.stop()


def restarts(stage, directory, count, down=5.0, pictures=True, looks=20, warm=1, progress=None):
    """The server is killed and started again `down` seconds later, again and again. With `pictures` a viewer tries to join
    every 100 ms, and shows when the picture is back."""
    course = Course(f"server away for {down:g} s", slack=8)
    keys = (stage.server.key, stage.server.secret)
    server = Restarting(directory, keys)
    try:
        publisher = stage.publish(f"{LINE} url=ws://127.0.0.1:{server.port} video_0::track-name=front", sources={"stamp": SIZE}, keep_open=True)
        publisher.wait_published(count=2)
        publisher.run(STOP)
        course.rest.append(Footprint.at_rest(publisher))
        publisher.run(START)
        publisher.wait_published(count=4)
        every = max(1, count // looks)
        for n in range(warm + count):
            server.kill()
            time.sleep(down)
            joined = len(publisher.messages("livekit-joined"))
            server.start()
            up = time.monotonic()
            if pictures:
                feed, viewer = first_picture(server.server, stage.room)
                course.time("picture after the server was up", feed.arrivals[0].at - up)
                viewer.close()
            again = publisher.wait_for("element", "livekit-joined", count=joined + 1)
            course.time("joined after the server was up", max(0.0, again["t"] - up))
            publisher.wait_published(count=2 * (joined + 1))
            done = n + 1 - warm
            if done >= 0 and (done % every == 0 or done == count):
                course.note(f"{done} times", Footprint.of(publisher))
                if progress:
                    progress(course)
        publisher.run(STOP)
        course.rest.append(Footprint.at_rest(publisher, like=course.rest[0]))
        assert not publisher.select("error"), publisher.summary()
        assert {m["track-name"] for m in publisher.messages("livekit-published") if m["pad"] == "video_0"} == {"front"}, publisher.summary()
        publisher.stop()
    finally:
        server.stop()
    return course


def first_picture(server, room):
    """A viewer that tries every 100 ms, and its feed with the first picture."""

    def seen():
        try:
            viewer = Subscriber(server, room)
        except AssertionError:
            return None
        try:
            return viewer.wait_video("front", frames=1), viewer
        except BaseException:
            viewer.close()
            raise

    return wait_until(seen, PATIENCE, "a viewer to join", interval=0.1)


def tracks(stage, seconds, videos=8, sounds=2, every=10.0, progress=None):
    """Many tracks of one sink, watched for long. One encoder feeds all pictures; each pad has the whole way behind it."""
    course = Course(f"{videos + sounds} tracks", slack=8)
    branches = " ".join(f"t. ! queue ! sink.video_{n}" for n in range(videos))
    voices = " ".join(f"audiotestsrc is-live=true freq={300 + 100 * n} volume=0.2 ! opusenc ! sink.audio_{n}" for n in range(sounds))
    names = [f"front-{n}" for n in range(videos)]
    pads = " ".join(f"video_{n}::track-name={name}" for n, name in enumerate(names))
    publisher = stage.publish(
        f"appsrc name=stamp ! {VIDEO} ! tee name=t livekitsink name=sink identity=camera share-encoder=true {pads} {branches} {voices}", sources={"stamp": SIZE}
    )
    publisher.wait_published(count=videos + sounds)
    viewer = stage.view()
    for name in names:
        viewer.wait_video(name)
    # Memory settles while buffers and pools reach their size.
    time.sleep(min(60.0, seconds / 4))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = {f.name: len(f.arrivals) for f in viewer.video}
        time.sleep(min(every, max(0.0, end - time.monotonic())))
        course.note(f"{seconds - max(0.0, end - time.monotonic()):.0f} s", Footprint.of(publisher))
        standing = [f.name for f in viewer.video if len(f.arrivals) == before[f.name]]
        assert not standing, f"no picture for {every:g} s: {standing}; {publisher.summary()}"
        for feed in viewer.video:
            # Two numbers of each are enough; an hour of them would be our own growth.
            del feed.arrivals[:-2]
        if progress:
            progress(course)
    fields = publisher.get("sink", "stats")["fields"]
    sent = [fields[f"video_{n}"]["fields"] for n in range(videos)]
    assert all(s["frames-sent"] > 0 for s in sent), sent
    assert not publisher.select("error"), publisher.summary()
    publisher.stop()
    return course
