# SPDX-License-Identifier: MIT OR Apache-2.0
"""A live picture that flashes white at each full second of the running time, as `audiotestsrc wave=ticks` beeps.

Runs in the publisher's process. `meta_ms` says with each picture that it was captured so much earlier than its
running time tells (GstReferenceTimestampMeta, timestamp/x-unix)."""

import threading
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


class Flasher:
    def __init__(self, appsrc, width=320, height=180, fps=30, meta_ms=None):
        self.appsrc, self.fps, self.meta_ms = appsrc, fps, meta_ms
        size = width * height
        self.pictures = [bytes([luma]) * size + b"\x80" * (size // 2) for luma in (16, 235)]
        self.unix = Gst.Caps.from_string("timestamp/x-unix")
        for name, value in (
            ("caps", Gst.Caps.from_string(f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1")),
            ("format", Gst.Format.TIME),
            ("is-live", True),
            ("min-latency", Gst.SECOND // fps),
        ):
            appsrc.set_property(name, value)
        threading.Thread(target=self._run, daemon=True).start()

    def _running(self):
        clock = self.appsrc.get_clock()
        if clock is None or self.appsrc.get_state(0)[1] != Gst.State.PLAYING:
            return None
        return clock.get_time() - self.appsrc.get_base_time()

    def _run(self):
        while (running := self._running()) is None:
            time.sleep(0.01)
        number = running * self.fps // Gst.SECOND + 1
        while (running := self._running()) is not None:
            due = number * Gst.SECOND // self.fps
            if due > running:
                time.sleep((due - running) / Gst.SECOND)
                continue
            # White for a tenth of a second.
            buffer = Gst.Buffer.new_wrapped(self.pictures[due % Gst.SECOND < Gst.SECOND // 10])
            buffer.pts, buffer.duration = due, Gst.SECOND // self.fps
            if self.meta_ms is not None:
                age = running - due + self.meta_ms * Gst.MSECOND
                buffer.add_reference_timestamp_meta(self.unix, time.time_ns() - age, Gst.CLOCK_TIME_NONE)
            if self.appsrc.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            number += 1
