# SPDX-License-Identifier: MIT OR Apache-2.0
"""Memory allocations for each frame and each datagram of a 1080p30 stream of 4 Mbit/s; the engine's, as our own code makes none for a packet."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import REPO, LiveKitServer, Subscriber, say


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    say("building the example for release")
    what = ["--locked", "--release", "-p", "livekit-session", "--example", "allocations"]
    subprocess.run(["cargo", "build", *what], cwd=REPO, check=True)
    with tempfile.TemporaryDirectory(prefix="livekit-bench-") as folder, LiveKitServer(Path(folder)) as server:
        env = dict(os.environ, LIVEKIT_URL=server.url, LIVEKIT_API_KEY=server.key, LIVEKIT_API_SECRET=server.secret, LIVEKIT_ROOM="allocations")
        # Nothing is sent to an empty room.
        with Subscriber(server, "allocations"):
            return subprocess.run(["cargo", "run", "-q", *what], cwd=REPO, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
