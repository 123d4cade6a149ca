# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the benches share: options, the machine's facts, tables, a file to play, publishers (ours and the peer), process figures."""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

BENCHES = Path(__file__).resolve().parent
REPO = BENCHES.parent
sys.path.insert(0, str(REPO / "testing" / "e2e"))

from harness import publisher  # noqa: E402
from harness.proc import Child, wait_until  # noqa: E402
from harness.server import LiveKitServer  # noqa: E402
from harness.stamp import Painter  # noqa: E402
from harness.subscriber import Subscriber  # noqa: E402

OURS, PEER, WEBRTCSINK = "livekitsink", "LiveKit SDK", "livekitwebrtcsink"
FILE_SIZE, FILE_FPS, FILE_BITRATE = (1920, 1080), 30, 4_000_000


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def options(description, rounds=3):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each publisher takes its turn (default {rounds})")
    parser.add_argument("--plugin-dir", type=Path, default=target / "release", help="folder of libgstlivekit.so (default: the release build)")
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out")
    return parser


def cache_dir():
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gst-livekit-boards" / "benches"
    path.mkdir(parents=True, exist_ok=True)
    return path


def webrtcsink_dir():
    """Where `benches/run peers --build` put livekitwebrtcsink, or None."""
    manifest = (BENCHES / "livekitwebrtcsink" / "Cargo.toml").read_text()
    version = re.search(r'^gst-plugin-webrtc = \{ version = "=([\d.]+)"', manifest, re.M)[1]
    path = cache_dir() / f"livekitwebrtcsink-{version}"
    return path if (path / "libgstrswebrtc.so").exists() else None


# ---- machine ----


def _first(path, pattern):
    try:
        found = re.search(pattern, Path(path).read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else "unknown"


def load():
    return os.getloadavg()[0]


def machine_facts(inspected):
    """`inspected`: what gst-inspect-1.0 says of the element, for the plugin's own version."""
    gst = subprocess.run(["gst-launch-1.0", "--version"], capture_output=True, text=True).stdout
    from livekit.rtc.version import __version__ as sdk

    server = subprocess.run([os.environ["LIVEKIT_SERVER"], "--version"], capture_output=True, text=True).stdout.strip()
    cpu = _first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$")
    system = _first("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)')
    version = re.search(r"GStreamer ([\d.]+)", gst)
    plugin = re.search(r"^\s+Version\s+(\S+)", inspected, re.M)
    return (
        f"Machine: {os.cpu_count()} cores ({cpu}, {platform.machine()}), kernel {platform.release()}, {system}, GStreamer {version[1] if version else 'unknown'}; "
        f"{server or 'livekit-server'}, LiveKit Python SDK {sdk}; "
        f"plugin {plugin[1] if plugin else 'unknown'}; load average at the start {load():.2f}"
    )


# ---- figures and tables ----


def spread(values, digits=2, unit=""):
    """min / **median** / max, and how often there was none"""
    missing = sum(v is None for v in values)
    values = [v for v in values if v is not None]
    if not values:
        return "no value"
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} / **{mid:.{digits}f}** / {high:.{digits}f}{unit}" + f" (none in {missing})" * bool(missing)


def ratio(ours, theirs):
    """Median of ours over median of theirs."""
    ours, theirs = [v for v in ours if v is not None], [v for v in theirs if v is not None]
    if not ours or not theirs or not statistics.median(theirs):
        return "–"
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join("--" for _ in head) + "|")
    for row in rows:
        print("| " + " | ".join(str(c) for c in row) + " |")
    print(flush=True)


# ---- the file ----


def test_file(seconds, gop_seconds=1, size=FILE_SIZE, bitrate=FILE_BITRATE):
    """CBR at 30 frames a second (default: 1080p, 4 Mbit/s), no B-frames, every picture stamped with its number; made once and kept in the cache."""
    path = cache_dir() / f"stamped-{size[1]}p{FILE_FPS}-{bitrate // 1_000_000}M-{seconds}s-gop{gop_seconds}-v1.mp4"
    if path.exists():
        return path
    width, height = size
    say(f"encoding {path.name} ({seconds} s; once, about as long as it plays)")
    painter = Painter(width, height)
    # Noise, because the gradient alone would leave most of the 4 Mbit/s unused.
    noise = np.random.default_rng(1).integers(0, 24, (height * 2, width), dtype=np.uint8)
    kbit = bitrate // 1000
    part = path.with_suffix(".part.mp4")
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", str(FILE_FPS), "-i", "-"]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-bf", "0", "-g", str(round(FILE_FPS * gop_seconds)), "-sc_threshold", "0"]
    command += ["-b:v", f"{kbit}k", "-minrate", f"{kbit}k", "-maxrate", f"{kbit}k", "-bufsize", f"{kbit // 2}k", "-x264-params", "nal-hrd=cbr", "-movflags", "+faststart", str(part)]
    encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
    for n in range(seconds * FILE_FPS):
        frame = painter.frame(n, 0)
        luma = frame[: width * height].reshape(height, width)
        # Below the stamp only.
        rows = height - 3 * (width // 20)
        shift = n * 397 % height
        luma[-rows:] += noise[shift : shift + rows]
        encoder.stdin.write(frame.tobytes())
        if n and n % (FILE_FPS * 10) == 0:
            say(f"  {n // FILE_FPS} s encoded")
    encoder.stdin.close()
    if encoder.wait():
        raise SystemExit("ffmpeg could not encode the test file; its message is above")
    part.rename(path)
    return path


# ---- set-up ----


class Bench:
    """Server, folders and environment of one run of a bench."""

    # What the server is started with beyond the usual.
    server_options = {}

    def __init__(self, args):
        self.args = args
        self.plugin_dir = args.plugin_dir.resolve()
        if not (self.plugin_dir / "libgstlivekit.so").exists():
            raise SystemExit(
                f"no libgstlivekit.so in {self.plugin_dir}; build it with: cargo build --release -p gst-plugin-livekit, or name its folder with --plugin-dir"
            )
        if not os.environ.get("LIVEKIT_SERVER"):
            raise SystemExit("LIVEKIT_SERVER names no livekit-server binary; start the benches with benches/run, which finds or builds one")
        self._folder = tempfile.TemporaryDirectory(prefix="livekit-bench-")
        self.folder = Path(self._folder.name)
        self._count = 0

    def __enter__(self):
        # A registry of our own, filled beforehand: a first start must not count plugins being scanned.
        self.env = publisher.plugin_env(GST_PLUGIN_PATH=self.plugin_dir, GST_REGISTRY=self.folder / "registry.bin", GST_DEBUG="0")
        seen = subprocess.run(["gst-inspect-1.0", "livekitsink"], env=self.env, capture_output=True, text=True)
        if seen.returncode or str(self.plugin_dir) not in seen.stdout:
            raise SystemExit(f"gst-inspect-1.0 does not find livekitsink in {self.plugin_dir}:\n{seen.stdout[:500]}{seen.stderr}")
        self.webrtcsink_env = self._find_webrtcsink()
        say("starting livekit-server")
        self.server = LiveKitServer(self.folder, **self.server_options)
        say("one join to warm up (it loads the SDK's native library)")
        Subscriber(self.server, "warm-up").close()
        print(machine_facts(seen.stdout) + "\n", flush=True)
        return self

    def __exit__(self, *_):
        self.server.stop()
        self._folder.cleanup()

    def _find_webrtcsink(self):
        """The environment in which gst-launch finds livekitwebrtcsink, or None."""
        path = None if self.args.no_peer else webrtcsink_dir()
        if not path:
            if not self.args.no_peer:
                say("livekitwebrtcsink is not built and left out; benches/run peers --build does that")
            return None
        env = dict(self.env, GST_PLUGIN_PATH=str(path), GST_REGISTRY=str(self.folder / "webrtcsink-registry.bin"))
        seen = subprocess.run(["gst-inspect-1.0", WEBRTCSINK], env=env, capture_output=True, text=True)
        if seen.returncode:
            raise SystemExit(f"{path} holds a plugin that cannot be loaded; remove that folder and build it anew:\n{seen.stdout[:500]}{seen.stderr}")
        return env

    def room(self, label):
        self._count += 1
        return f"{re.sub('[^a-z0-9]+', '-', label.lower())}-{self._count}"

    def log(self, label):
        return self.folder / f"{label}.log"

    def publisher_env(self, room, identity="publisher", **more):
        return dict(self.env, LIVEKIT_URL=self.server.url, LIVEKIT_TOKEN=self.server.token(room, identity, ttl=3600), **more)

    def launch(self, room, pipeline):
        """gst-launch-1.0 with livekitsink in it."""
        return Child(["gst-launch-1.0", "-q", "-e", *pipeline.split()], self.log(room), env=self.publisher_env(room))

    def webrtcsink(self, identity="publisher", room=""):
        """The element with its properties. It has to be forbidden to subscribe: it answers no offer, and is thrown out for that."""
        token = self.server.token(room, identity, ttl=3600, canSubscribe=False)
        return f"{WEBRTCSINK} signaller::ws-url={self.server.url} signaller::auth-token={token} signaller::room-name={room} signaller::identity={identity}"

    def peer(self, room, pipeline, size, bitrate, live=False, encoder=None):
        return Peer(self, room, pipeline, size, bitrate, live, encoder)


class Peer(Child):
    """sdk_peer.py, with what it tells as `events`."""

    def __init__(self, bench, room, pipeline, size, bitrate, live, encoder):
        argv = [sys.executable, "-u", BENCHES / "sdk_peer.py", "--size", "{}x{}".format(*size), "--bitrate", bitrate]
        argv += ["--live"] * live + (["--encoder", encoder] if encoder else []) + [pipeline]
        super().__init__(argv, bench.log(room), env=bench.publisher_env(room))

    @property
    def events(self):
        found = []
        for line in self.log().splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def wait_for(self, type_, timeout=30):
        def there():
            found = next((e for e in self.events if e["type"] == type_), None)
            if not found and self.returncode is not None:
                raise AssertionError(f"the peer ended with {self.returncode} before {type_}:\n{self.tail()}")
            return found

        return wait_until(there, timeout, lambda: f"{type_} from the peer; its output ends:\n{self.tail()}")


def finish(child, timeout=10):
    """Ctrl-C, then patience; an end by force is told."""
    child.interrupt()
    try:
        child.process.wait(timeout)
    except subprocess.TimeoutExpired:
        say(f"{Path(child.argv[0]).name} did not end within {timeout} s of Ctrl-C and is killed")
    child.stop()


# ---- process figures ----


def cpu_seconds(pid):
    """User + system time of a running process, ended threads included, in nanosecond steps (/proc/PID/stat has 10 ms)."""
    return time.clock_gettime(~pid << 3 | 2)


class Watch:
    """Peak RSS, most threads, and CPU time by thread name of a running process."""

    def __init__(self, pid, interval=0.2):
        self.pid, self.interval = pid, interval
        self.peak_rss_mb, self.threads = 0.0, 0
        self._tasks = {}  # (thread id, name) -> CPU seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(self.interval):
            try:
                status = Path(f"/proc/{self.pid}/status").read_text()
            except OSError:
                return
            # VmHWM and not ru_maxrss: that one also counts the parent's memory between fork and exec.
            peak = re.search(r"^VmHWM:\s*(\d+) kB", status, re.M)
            if peak:
                self.peak_rss_mb = max(self.peak_rss_mb, int(peak[1]) / 1024)
                self.threads = max(self.threads, int(re.search(r"^Threads:\s*(\d+)", status, re.M)[1]))
            for task in Path(f"/proc/{self.pid}/task").glob("*"):
                try:
                    name = (task / "comm").read_text().strip()
                    self._tasks[task.name, name] = int((task / "schedstat").read_text().split()[0]) / 1e9
                except (OSError, IndexError):
                    continue

    def by_name(self):
        total = {}
        for (_, name), seconds in self._tasks.items():
            total[name] = total.get(name, 0.0) + seconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def stop(self):
        self._stop.set()
        self._thread.join()


def wait_with_usage(child, timeout):
    """(exit code, CPU seconds of the whole life)"""

    def ended():
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        return (status, usage) if pid else None

    status, usage = wait_until(ended, timeout, lambda: f"{child.argv[0]} to end; its output ends:\n{child.tail()}")
    child.process.returncode = os.waitstatus_to_exitcode(status)  # Popen can't collect it any more
    return child.process.returncode, usage.ru_utime + usage.ru_stime
