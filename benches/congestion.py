# SPDX-License-Identifier: MIT OR Apache-2.0
"""A live encoder whose uplink is cut (tbf, 300 ms queue, network namespaces; needs root): what a viewer sees, and what the encoder is told.

Scenarios: cut (2.5 -> 1 Mbit/s for 30 s, then free), event (the same with an encoder that only understands the GstTargetBitrate event), two (the same
with two tracks of 1.25 Mbit/s and sound), loss1 and loss5 (50 ms round trip, 1 % and 5 % random loss), free (no limit), fixed (an encoder that does not
adapt, a keyframe a second). Server, viewer and publisher run at `nice -n -10`.
Peer: LiveKit's Python SDK with its pre-encoded source, whose bitrate callback sets the encoder (sdk_peer.py --adapt); not in "event" and "two".
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import common
from common import BENCHES, OURS, PEER, say
from harness.proc import Child, wait_until
from harness.uplink import Rates, Uplink, encoder, hear_events

NICE = ["nice", "-n", "-10"]
SIZE, KBIT, CUT = (1280, 720), 2500, 1000
SCENARIOS = {
    "cut": dict(limit=CUT),
    "event": dict(limit=CUT, how="event"),
    "two": dict(limit=CUT, how="two"),
    "loss1": dict(delay_ms=25, loss=0.01),
    "loss5": dict(delay_ms=25, loss=0.05),
    "free": dict(),
    "fixed": dict(limit=CUT, how="fixed"),
}
# Only ours knows these.
OWN = ("event", "two")


def each(how):
    """kbit/s of each encoder."""
    return KBIT // 2 if how == "two" else KBIT


def made(args, how, name="enc"):
    return encoder(name, each(how), gop=30 if how == "fixed" else 300, extra=args.encoder_options)


class Ours:
    def __init__(self, link, args, how):
        line = f"appsrc name=stamp ! {made(args, how)} ! sink.video_0 livekitsink name=sink max-bitrate={each(how) * 1000}"
        line += {"fixed": " bitrate-feedback=off", "event": " bitrate-feedback=event"}.get(how, "")
        source = {"width": SIZE[0], "height": SIZE[1], "noise": 24}
        sources = {"stamp": source}
        if how == "two":
            line += f" appsrc name=second ! {made(args, how, 'enc2')} ! sink.video_1 audiotestsrc is-live=true ! opusenc ! sink.audio_0"
            sources["second"] = source
        self.publisher = link.start(line, sources=sources, meter="enc", GST_PLUGIN_PATH=args.plugin_dir.resolve(), GST_DEBUG="0")
        if how == "event":
            hear_events(self.publisher, "enc")
        self.publisher.wait_published(3 if how == "two" else 1)

    def rates(self):
        return Rates.of(self.publisher)


class Theirs:
    def __init__(self, link, args, how):
        self.meter = Path(link.directory) / "meter.json"
        line = f"appsrc name=stamp ! {made(args, how)}"
        argv = [*link.prefix, sys.executable, "-u", BENCHES / "sdk_peer.py", "--live", "--size", "{}x{}".format(*SIZE), "--bitrate", KBIT * 1000]
        argv += ["--encoder", "enc", "--stamp", "stamp", "--meter", self.meter] + ["--adapt"] * (how != "fixed") + [line]
        self.child = link._keep(Child(argv, Path(link.directory) / "peer.log", env=link.env(GST_DEBUG="0")))
        wait_until(lambda: '"published"' in self.child.log() or self.child.returncode is not None, 30, lambda: f"the peer:\n{self.child.tail()}")

    def rates(self):
        self.child.interrupt()
        self.child.process.wait(20)
        return Rates(json.loads(self.meter.read_text()))


def recovered(viewer, opened, end, track):
    """Seconds after the limit until a second began in which every picture came; the second included."""
    at = opened
    while at + 1 <= end:
        if viewer.figures(at, at + 1, track)["fps"] >= 29:
            return at + 1 - opened
        at += 0.1
    return None


def sound_lost(before, after, tracks):
    """Packets of the tracks that are no video, in % of those sent."""
    (name,) = set(after) - tracks
    lost, came = (after[name][key] - before[name][key] for key in ("packets_lost", "packets_received"))
    return 100 * lost / max(1, lost + came)


def one(args, name, scenario, during, after):
    options = dict(SCENARIOS[scenario])
    limit, how = options.pop("limit", None), options.pop("how", None)
    with tempfile.TemporaryDirectory(prefix="livekit-bench-") as folder, Uplink(Path(folder), "room", nice=NICE, **options) as link:
        publisher = (Ours if name == OURS else Theirs)(link, args, how)
        link.viewer.wait_pictures(60)
        time.sleep(6)
        tracks = {a["track"] for a in link.viewer.arrivals}
        assert len(tracks) == (2 if how == "two" else 1), tracks
        # The first track's; the encoder that is metered is its own.
        track = min(tracks)
        before, begin = link.viewer.report(), time.monotonic()
        if limit:
            link.limit(limit)
        time.sleep(1)
        a_second_later = link.viewer.report()
        time.sleep(max(0, begin + during - time.monotonic()))
        after_limit, opened = link.viewer.report(), time.monotonic()
        if limit:
            link.limit(None)
            time.sleep(after)
        end = time.monotonic()
        rates = publisher.rates()
        first, last = link.viewer.figures(begin, begin + 10, track), link.viewer.figures(max(begin, opened - 20), opened, track)
        decoded, waited, emitted = (after_limit[track][key] - before[track][key] for key in ("frames_decoded", "jitter_buffer_delay", "jitter_buffer_emitted_count"))
        return {
            "first_gap": first["gap_ms"], "first_worst": first["worst_ms"], "first_fps": first["fps"],
            "last_fps": last["fps"], "p50": last["p50_ms"], "p95": last["p95_ms"], "last_worst": last["worst_ms"],
            "decoded": 100 * decoded / max(1, link.viewer.figures(begin, opened, track)["painted"]),
            "buffered": 1000 * waited / max(1, emitted),
            "sound": sound_lost(a_second_later, after_limit, tracks) if how == "two" else None,
            "made_2s": rates.kbit(begin + 2, begin + 4), "made": rates.kbit(max(begin + 2, opened - 20), opened),
            "back": rates.back(opened, end, 0.7 * each(how)) if limit and how != "fixed" else None,
            "recovered": recovered(link.viewer, opened, end, track) if limit else None,
        }  # fmt: skip


FIGURES = [
    ("first 10 s: longest time without a picture, ms", "first_gap", 0),
    ("first 10 s: worst delay from painting to showing, ms", "first_worst", 0),
    ("first 10 s: pictures a second", "first_fps", 1),
    ("last 20 s: pictures a second", "last_fps", 1),
    ("last 20 s: median delay, ms", "p50", 0),
    ("last 20 s: 95th percentile of the delay, ms", "p95", 0),
    ("last 20 s: worst delay, ms", "last_worst", 0),
    ("of the delay: in the viewer's own jitter buffer, mean, ms", "buffered", 0),
    ("pictures decoded, % of those painted", "decoded", 1),
    ("encoder, kbit/s, third and fourth second", "made_2s", 0),
    ("encoder, kbit/s, last 20 s", "made", 0),
    ("sound lost after the first second, % of its packets", "sound", 2),
    ("after the limit: seconds until the encoder makes 70 % of its full rate", "back", 1),
    ("after the limit: seconds until a second has all its pictures", "recovered", 1),
]


def main():
    parser = common.options(__doc__, rounds=5)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one (may be given again; default: all)")
    parser.add_argument("--during", type=float, default=30, help="seconds of the limit (default 30)")
    parser.add_argument("--after", type=float, default=12, help="seconds after it (default 12)")
    parser.add_argument("--encoder-options", default="vbv-buf-capacity=150", help="further x264enc properties (default: %(default)s; \"\" = its own 600 ms)")
    args = parser.parse_args()
    for scenario in args.scenario or SCENARIOS:
        publishers = (OURS,) if args.no_peer or scenario in OWN else (OURS, PEER)
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
