# SPDX-License-Identifier: MIT OR Apache-2.0
"""Feeds stamped pictures into an appsrc, live or as fast as it takes them. Runs in the publisher's process."""

import threading
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

from .stamp import Painter  # noqa: E402


class Feeder:
    def __init__(self, appsrc, width=640, height=360, fps=30, frames=0, live=True, start=0, noise=0, on_done=None, **_):
        """frames=0: until stopped."""
        self.appsrc, self.fps, self.frames, self.live, self.number = appsrc, fps, frames, live, start
        self._rate = fps
        self.painter = Painter(width, height, noise)
        self.on_done = on_done
        self._stop, self._go = threading.Event(), threading.Event()
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
        for name, value in (
            ("caps", Gst.Caps.from_string(caps)),
            ("format", Gst.Format.TIME),
            ("is-live", live),
            ("do-timestamp", live),
            ("block", not live),
            ("max-bytes", width * height * 6),
        ):
            appsrc.set_property(name, value)
        if live:
            # Told, because appsrc can't know that a picture may wait one frame period.
            appsrc.set_property("min-latency", Gst.SECOND // fps)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go(self):
        """A live source makes pictures only while PLAYING, as a camera does."""
        self._go.set()

    def set_rate(self, fps):
        """From now on so many pictures a second (live only); the caps go on saying what they said."""
        self._rate = fps

    def stop(self):
        self._stop.set()
        self._go.set()

    def end(self):
        self.stop()
        self._thread.join(2)
        self.appsrc.emit("end-of-stream")

    def _run(self):
        if self.live:
            self._go.wait()
        begin, count, rate, since = time.monotonic(), 0, self.fps, 0
        while not self._stop.is_set():
            if self.live:
                if rate != self._rate:
                    begin, rate, since = time.monotonic(), self._rate, count
                pause = begin + (count - since) / rate - time.monotonic()
                if pause > 0 and self._stop.wait(pause):
                    return
            buffer = Gst.Buffer.new_wrapped(self.painter.frame(self.number).tobytes())
            buffer.duration = Gst.SECOND // self.fps
            if not self.live:
                buffer.pts = count * Gst.SECOND // self.fps
            if self.appsrc.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            self.number += 1
            count += 1
            if self.frames and count >= self.frames:
                self.appsrc.emit("end-of-stream")
                if self.on_done:
                    self.on_done(count)
                return
