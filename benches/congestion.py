# SPDX-License-Identifier: MIT OR Apache-2.0
"""A live encoder whose uplink is cut (tbf, 300 ms queue, network namespaces; needs root): what a viewer sees, and what the encoder is told.

Scenarios: cut (2.5 -> 1 Mbit/s for 30 s, then free), loss1 and loss5 (50 ms round trip, 1 % and 5 % random loss), free (no limit), fixed (an encoder
that does not adapt, a keyframe a second). Server, viewer and publisher run at `nice -n -10`.
Peer: LiveKit's Python SDK with its pre-encoded source, whose bitrate callback sets the encoder (sdk_peer.py --adapt).
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import common
from common import BENCHES, OURS, PEER, say
from harness.proc import Child, wait_until
from harness.uplink import Rates, Uplink, encoder

NICE = ["nice", "-n", "-10"]
SIZE, KBIT, CUT = (1280, 720), 2500, 1000
SCENARIOS = {
    "cut": dict(limit=CUT),
    "loss1": dict(delay_ms=25, loss=0.01),
    "loss5": dict(delay_ms=25, loss=0.05),
    "free": dict(),
    "fixed": dict(limit=CUT, fixed=True),
}


class Ours:
    def __init__(self, link, args, fixed):
        line = f"appsrc name=stamp ! {encoder(kbit=KBIT, gop=30 if fixed else 300)} ! livekitsink name=sink video_0::max-bitrate={KBIT * 1000}"
        line += " bitrate-feedback=off" * fixed
        source = {"width": SIZE[0], "height": SIZE[1], "noise": 24}
        self.publisher = link.start(line, sources={"stamp": source}, meter="enc", GST_PLUGIN_PATH=args.plugin_dir.resolve(), GST_DEBUG="0")
        self.publisher.wait_published()

    def rates(self):
        return Rates.of(self.publisher)


class Theirs:
    def __init__(self, link, args, fixed):
        self.meter = Path(link.directory) / "meter.json"
        line = f"appsrc name=stamp ! {encoder(kbit=KBIT, gop=30 if fixed else 300)}"
        argv = [*link.prefix, sys.executable, "-u", BENCHES / "sdk_peer.py", "--live", "--size", "{}x{}".format(*SIZE), "--bitrate", KBIT * 1000]
        argv += ["--encoder", "enc", "--stamp", "stamp", "--meter", self.meter] + ["--adapt"] * (not fixed) + [line]
        self.child = link._keep(Child(argv, Path(link.directory) / "peer.log", env=link.env(GST_DEBUG="0")))
        wait_until(lambda: '"published"' in self.child.log() or self.child.returncode is not None, 30, lambda: f"the peer:\n{self.child.tail()}")

    def rates(self):
        self.child.interrupt()
        self.child.process.wait(20)
        return Rates(json.loads(self.meter.read_text()))


def one(args, name, scenario, during, after):
    options = dict(SCENARIOS[scenario])
    limit, fixed = options.pop("limit", None), options.pop("fixed", False)
    with tempfile.TemporaryDirectory(prefix="livekit-bench-") as folder, Uplink(Path(folder), "room", nice=NICE, **options) as link:
        publisher = (Ours if name == OURS else Theirs)(link, args, fixed)
        link.viewer.wait_pictures(60)
        time.sleep(6)
        (track,) = {a["track"] for a in link.viewer.arrivals}
        before, begin = link.viewer.report()[track], time.monotonic()
        if limit:
            link.limit(limit)
        time.sleep(during)
        after_limit, opened = link.viewer.report()[track], time.monotonic()
        if limit:
            link.limit(None)
            time.sleep(after)
        end = time.monotonic()
        rates = publisher.rates()
        first, last = link.viewer.figures(begin, begin + 10), link.viewer.figures(max(begin, opened - 20), opened)
        return {
            "first_gap": first["gap_ms"], "first_worst": first["worst_ms"], "first_fps": first["fps"],
            "last_fps": last["fps"], "p50": last["p50_ms"], "p95": last["p95_ms"], "decoded": 100 * (after_limit["frames_decoded"] - before["frames_decoded"]) / max(1, link.viewer.figures(begin, opened)["painted"]),
            "made_2s": rates.kbit(begin + 2, begin + 4), "made": rates.kbit(max(begin + 2, opened - 20), opened),
            "back": rates.back(opened, end, 0.7 * KBIT) if limit else None,
        }  # fmt: skip


FIGURES = [
    ("first 10 s: longest time without a picture, ms", "first_gap", 0),
    ("first 10 s: worst delay from painting to showing, ms", "first_worst", 0),
    ("first 10 s: pictures a second", "first_fps", 1),
    ("last 20 s: pictures a second", "last_fps", 1),
    ("last 20 s: median delay, ms", "p50", 0),
    ("last 20 s: 95th percentile of the delay, ms", "p95", 0),
    ("pictures decoded, % of those painted", "decoded", 1),
    ("encoder, kbit/s, third and fourth second", "made_2s", 0),
    ("encoder, kbit/s, last 20 s", "made", 0),
    ("seconds until it makes 70 % of 2.5 Mbit/s again", "back", 1),
]


def main():
    parser = common.options(__doc__, rounds=5)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one (may be given again; default: all)")
    parser.add_argument("--during", type=float, default=30, help="seconds of the limit (default 30)")
    parser.add_argument("--after", type=float, default=12, help="seconds after it (default 12)")
    args = parser.parse_args()
    publishers = (OURS,) if args.no_peer else (OURS, PEER)
    for scenario in args.scenario or SCENARIOS:
        results = {p: {} for p in publishers}
        for n in range(args.rounds):
            for name in publishers:
                values = one(args, name, scenario, args.during, args.after)
                say(f"{scenario}, round {n + 1} of {args.rounds}, load average {common.load():.2f}: {name}: {values}")
                for key, value in values.items():
                    results[name].setdefault(key, []).append(value)
        print(f"Scenario {scenario}, {args.during:g} s; min / **median** / max of {args.rounds}\n")
        rows = [[title, *(common.spread(results[p][key], digits) for p in publishers)] for title, key, digits in FIGURES]
        common.table(["figure", *publishers], [row for row in rows if any(cell != "no value" for cell in row[1:])])


if __name__ == "__main__":
    sys.exit(main())
