# SPDX-License-Identifier: MIT OR Apache-2.0
"""CPU time, peak memory and threads of the publishing process: 1080p30, 4 Mbit/s H.264 CBR from an mp4 file, one viewer.

`whole` divides the CPU time of the process's whole life (loading, joining, leaving) by the seconds of media; `steady`
is the slope while it plays, from 5 s after the start to 3 s before the end.
The same input into a fakesink shows what reading, demuxing and pacing cost by themselves.
Peers: LiveKit's Python SDK with its pre-encoded source, fed by an appsink (sdk_peer.py); livekitwebrtcsink of gst-plugins-rs, if
`benches/run peers --build` has built it (without its optional congestion control, which would cost more).
"""

import sys
import time

import common
from common import OURS, PEER, WEBRTCSINK, Bench, Child, Subscriber, Watch, cpu_seconds, say, wait_with_usage

FAKESINK, PARSED = "fakesink", "h264parse ! fakesink"
MB = "peak RSS, MB"


def one(bench, name, path, seconds):
    room = bench.room(name)
    viewer = Subscriber(bench.server, room) if name in (OURS, PEER, WEBRTCSINK) else None
    source = f"filesrc location={path} ! qtdemux"
    try:
        if name == OURS:
            child = bench.launch(room, source + " ! livekitsink")
        elif name == PEER:
            child = bench.peer(room, source, common.FILE_SIZE, common.FILE_BITRATE)
        elif name == WEBRTCSINK:
            child = Child(["gst-launch-1.0", "-q", "-e", *f"{source} ! {bench.webrtcsink(room=room)}".split()], bench.log(room), env=bench.webrtcsink_env)
        else:
            parse = " ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au" if name == PARSED else ""
            pipeline = source + parse + " ! fakesink sync=true"
            child = Child(["gst-launch-1.0", "-q", "-e", *pipeline.split()], bench.log(room), env=bench.env)
        with child:
            watch = Watch(child.pid)
            time.sleep(max(0.0, child.started + 5 - time.monotonic()))
            begin = (time.monotonic(), cpu_seconds(child.pid))
            time.sleep(seconds - 8)
            end = (time.monotonic(), cpu_seconds(child.pid))
            code, total = wait_with_usage(child, 30)
            watch.stop()
            if code:
                say(f"{name} ended with {code}:\n{child.tail()}")
        result = {
            "steady": (end[1] - begin[1]) / (end[0] - begin[0]),
            "whole": total / seconds,
            "rss": watch.peak_rss_mb,
            "threads": watch.threads,
            "split": watch.by_name(),
            "pictures": None,
            "failed": bool(code),
        }
        if viewer:
            feed = viewer.video[0] if viewer.video else None
            result["pictures"] = len(set(feed.numbers())) if feed else 0
            result["failed"] |= result["pictures"] < seconds * common.FILE_FPS // 2
    finally:
        if viewer:
            viewer.close()
    seen = "" if result["pictures"] is None else f", the viewer saw {result['pictures']} of {seconds * common.FILE_FPS} pictures"
    say(f"  {name}: steady {result['steady']:.4f}, whole {result['whole']:.4f} CPU s/s, {result['rss']:.1f} MB, {result['threads']} threads{seen}")
    return result


def main():
    parser = common.options(__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="length of the file (default 30)")
    parser.add_argument("--threads", action="store_true", help="also print CPU time by thread name")
    args = parser.parse_args()
    if args.seconds < 12:
        parser.error("--seconds must be 12 or more, or nothing is left between start and end")
    path = common.test_file(args.seconds)
    with Bench(args) as bench:
        peers = [] if args.no_peer else [WEBRTCSINK] * bool(bench.webrtcsink_env) + [PEER]
        names = [OURS, FAKESINK, PARSED, *peers]
        results = {name: [] for name in names}
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            for name in names:
                results[name].append(one(bench, name, path, args.seconds))
    print(f"Publisher process, 1080p30 4 Mbit/s H.264 from file, one viewer; {args.seconds} s of media, min / **median** / max of {args.rounds}\n")
    rows = []
    for title, key, digits in (("CPU s/s, steady", "steady", 4), ("CPU s/s, whole life", "whole", 4), (MB, "rss", 1), ("threads, most", "threads", 0)):
        values = {n: [r[key] for r in results[n]] for n in names}
        row = [title] + [common.spread(values[n], digits) for n in names]
        row += [common.ratio(values[OURS], values[peer]) for peer in peers]
        rows.append(row)
    pictures = [common.spread([r["pictures"] for r in results[n]], 0) if results[n][0]["pictures"] is not None else "–" for n in names]
    rows.append([f"pictures at the viewer, of {args.seconds * common.FILE_FPS}", *pictures] + ["–"] * len(peers))
    common.table(["figure", *names] + [f"ours / {peer}" for peer in peers], rows)
    if args.threads:
        for name in names:
            print(f"{name}, CPU ms per second of media by thread, last round: " + ", ".join(f"{t} {s / args.seconds * 1000:.1f}" for t, s in results[name][-1]["split"].items() if s > 0.005))
        print()
    return any(r["failed"] for n in names for r in results[n])


if __name__ == "__main__":
    sys.exit(main())
