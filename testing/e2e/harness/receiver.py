# SPDX-License-Identifier: MIT OR Apache-2.0
"""testing/subscriber, which writes what it receives as it was sent, and FFmpeg, which decodes that: for codecs that the SDK has not."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from . import stamp
from .proc import PATIENCE, Child, wait_until

NAME = "livekit-test-subscriber"


def binary():
    """It is built beside the plugin."""
    for directory in os.environ.get("GST_PLUGIN_PATH", "").split(":"):
        path = Path(directory) / NAME
        if directory and path.is_file():
            return path
    raise RuntimeError(f"{NAME} is not built; run: cargo build -p {NAME}")


class Receiver:
    """Receives until it has `frames` frames."""

    def __init__(self, server, room, directory, frames=60, timeout=PATIENCE, identity="receiver", key=None):
        # FFmpeg goes by the content, not by the name.
        self.output = directory / f"{identity}.received"
        words = [str(binary()), "--url", server.url, "--output", str(self.output), "--frames", str(frames), "--timeout", str(int(timeout))]
        env = {**os.environ, "LIVEKIT_TOKEN": server.token(room, identity)}
        if key:
            env["LIVEKIT_E2EE_KEY"] = key
        self.timeout = timeout
        self.child = Child(words, directory / f"{identity}.log", env=env)

    def lines(self):
        found = []
        for line in self.child.log().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                pass
        return found

    def wait_first(self, timeout=PATIENCE):
        return wait_until(lambda: next((x for x in self.lines() if x["event"] == "first"), None), timeout, lambda: f"a frame at the receiver:\n{self.child.tail()}")

    def finish(self):
        """Its last line, once it has all its frames."""
        code = self.child.wait(self.timeout + 5)
        end = self.lines()[-1]
        assert code == 0 and end["event"] == "end", self.child.tail()
        return end

    def formats(self):
        """What the server offered for each media section: `number codec fmtp`."""
        return [f for line in self.lines() if line["event"] == "section" for f in line["formats"]]

    def pictures(self, width, height):
        """Stamp numbers (None = unreadable) of the pictures that FFmpeg makes of the file."""
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-i", str(self.output), "-f", "rawvideo", "-pix_fmt", "gray", "-fps_mode", "passthrough", "-"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        size = width * height
        luma = np.frombuffer(done.stdout[: len(done.stdout) // size * size], np.uint8).reshape(-1, height, width)
        read = [stamp.read(picture) for picture in luma]
        return [seen[0] if seen else None for seen in read], done.stderr.decode()

    def stop(self):
        self.child.stop()
