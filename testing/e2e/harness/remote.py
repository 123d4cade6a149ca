# SPDX-License-Identifier: MIT OR Apache-2.0
"""The SDK's viewer as a program of its own, for places the test's process is not in (a network namespace).

    python3 -m harness.remote '{"url": …, "token": …, "room": …}'

Prints a JSON line for each picture, a "report" line for each line on its standard input, and ends with that.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from .proc import PATIENCE, Child, wait_until

E2E = Path(__file__).resolve().parent.parent


class RemoteViewer:
    """Starts it, and keeps what it sees: `arrivals` are dicts with track, at, number, delay_ms."""

    def __init__(self, url, token, room, log, prefix=()):
        options = json.dumps({"url": url, "token": token, "room": room})
        command = [*prefix, sys.executable, "-u", "-m", "harness.remote", options]
        self.arrivals, self.reports, self.connected = [], [], False
        self.child = Child(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=E2E)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self.connected or self.child.returncode is not None, PATIENCE, lambda: f"the viewer to join; it said:\n{self.child.tail()}")

    def _read(self):
        for line in self.child.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            kind = event.pop("type", None)
            if kind == "picture":
                self.arrivals.append(event)
            elif kind == "report":
                self.reports.append(event)
            elif kind == "connected":
                self.connected = True

    def wait_pictures(self, count=1, timeout=PATIENCE, track=None):
        wait_until(lambda: len(self.between(0, track=track)) >= count, timeout, lambda: f"{count} pictures, has {len(self.arrivals)}; it said:\n{self.child.tail()}")

    def between(self, begin, end=None, track=None):
        """Pictures shown in that time (CLOCK_MONOTONIC)."""
        end = time.monotonic() if end is None else end
        return [a for a in list(self.arrivals) if begin <= a["at"] < end and track in (None, a["track"])]

    def figures(self, begin, end, track=None):
        """fps, longest gap and delays (ms) of the pictures in that time; the gap counts from `begin` and to `end`.

        Of pictures that come in a bunch the SDK shows only the last; `missing` of `painted` counts those too. What was
        decoded is in `report`.
        """
        shown = self.between(begin, end, track)
        times = [begin, *(a["at"] for a in shown), end]
        delays = sorted(a["delay_ms"] for a in shown if a["delay_ms"] is not None)
        numbers = {a["number"] for a in shown if a["number"] is not None}
        return {
            "fps": round(len(shown) / (end - begin), 2),
            "gap_ms": round(max(b - a for a, b in zip(times, times[1:])) * 1000),
            "worst_ms": delays[-1] if delays else None,
            "p50_ms": delays[len(delays) // 2] if delays else None,
            "p95_ms": delays[int(len(delays) * 0.95)] if delays else None,
            "painted": max(numbers) - min(numbers) + 1 if numbers else 0,
            "missing": max(numbers) - min(numbers) + 1 - len(numbers) if numbers else None,
        }

    def report(self):
        """The SDK's inbound RTP statistics, one entry a track."""
        count = len(self.reports)
        self.child.process.stdin.write(b"\n")
        self.child.process.stdin.flush()
        wait_until(lambda: len(self.reports) > count, PATIENCE, "the viewer's statistics")
        return self.reports[-1]["tracks"]

    def stop(self):
        self.child.stop()
        self._reader.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def main():
    from .subscriber import Subscriber

    def emit(**event):
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    options = json.loads(sys.argv[1])
    with Subscriber(None, options["room"], url=options["url"], token=options["token"]) as viewer:
        emit(type="connected")
        asked, ended = threading.Event(), threading.Event()

        def commands():
            for _ in sys.stdin:
                asked.set()
            ended.set()

        threading.Thread(target=commands, daemon=True).start()
        seen = {}
        while not ended.wait(0.02):
            for feed in list(viewer.video):
                done = seen.get(feed.sid, 0)
                for a in feed.arrivals[done:]:
                    emit(type="picture", track=feed.name, at=a.at, number=a.number, delay_ms=a.delay_ms, width=a.width)
                    done += 1
                seen[feed.sid] = done
            if asked.is_set():
                asked.clear()
                emit(type="report", tracks={f.name: viewer.inbound(f) for f in viewer.video + viewer.audio})


if __name__ == "__main__":
    from .subscriber import leave

    main()
    leave()
