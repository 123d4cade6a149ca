# SPDX-License-Identifier: MIT OR Apache-2.0
"""Process start -> first decoded picture at a viewer that already waits in the room.

file: 1080p30 mp4 with a keyframe every second (or --gop). live: a live encoder with a keyframe every 10 s that honours requests.
Peer: LiveKit's Python SDK with its pre-encoded source, fed by an appsink (sdk_peer.py).
"""

import sys

import common
from common import OURS, PEER, Bench, Subscriber, finish, say

LIVE_SIZE, LIVE_BITRATE = (1280, 720), 2_000_000
LIVE = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={},height={},framerate=30/1 "
    "! x264enc name=enc tune=zerolatency speed-preset=ultrafast key-int-max=300 bitrate={} ! video/x-h264,profile=constrained-baseline"
).format(*LIVE_SIZE, LIVE_BITRATE // 1000)


def one(bench, publisher, kind, path):
    room = bench.room(f"{publisher} {kind}")
    pipeline = f"filesrc location={path} ! qtdemux" if kind == "file" else LIVE
    result = {"first": None, "number": None, "imports": None, "published": None}
    with Subscriber(bench.server, room) as viewer:
        if publisher == OURS:
            child = bench.launch(room, pipeline + " ! livekitsink")
        else:
            size, bitrate = (common.FILE_SIZE, common.FILE_BITRATE) if kind == "file" else (LIVE_SIZE, LIVE_BITRATE)
            child = bench.peer(room, pipeline, size, bitrate, live=kind == "live")
        with child:
            try:
                arrival = viewer.wait_video(timeout=30).arrivals[0]
                result["first"] = arrival.at - child.started
                result["number"] = arrival.number
            except AssertionError as e:
                say(f"no picture: {e}\n{child.tail(10)}")
            if publisher == PEER:
                for event in child.events:
                    if event["type"] in ("imported", "published"):
                        result["imports" if event["type"] == "imported" else "published"] = event["t"] - child.started
            finish(child)
    say(f"  {publisher}, {kind}: {result['first'] or float('nan'):.3f} s" + (f", picture {result['number']} of the file" if kind == "file" else ""))
    return result


def main():
    parser = common.options(__doc__)
    parser.add_argument("--kind", choices=("file", "live", "both"), default="both")
    parser.add_argument("--gop", type=int, default=1, help="seconds between the file's keyframes (default 1)")
    args = parser.parse_args()
    path = common.test_file(30, args.gop)
    kinds = ("file", "live") if args.kind == "both" else (args.kind,)
    publishers = (OURS,) if args.no_peer else (OURS, PEER)
    results = {}
    with Bench(args) as bench:
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            for kind in kinds:
                for publisher in publishers:
                    results.setdefault((publisher, kind), []).append(one(bench, publisher, kind, path))
    print(f"Process start → first decoded picture at a waiting viewer, s, min / **median** / max of {args.rounds}\n")
    rows = []
    for kind in kinds:
        firsts = {p: [r["first"] for r in results[p, kind]] for p in publishers}
        row = [f"file, {args.gop} s GOP" if kind == "file" else "live encoder, 10 s GOP", common.spread(firsts[OURS])]
        if PEER in publishers:
            row += [common.spread(firsts[PEER]), common.ratio(firsts[OURS], firsts[PEER]), common.spread([r["imports"] for r in results[PEER, kind]])]
            # What is left when the interpreter's start is not held against the peer.
            row.append(common.spread([r["first"] - r["imports"] if r["first"] else None for r in results[PEER, kind]]))
        rows.append(row)
    head = ["input", OURS]
    if PEER in publishers:
        head += [PEER, "ours / peer", "of the peer's: Python and imports", "the peer without those"]
    common.table(head, rows)
    if "file" in kinds:
        seen = {p: ", ".join(str(r["number"]) for r in results[p, "file"]) for p in publishers}
        print("First picture of the file that the viewer saw (0 = nothing lost): " + "; ".join(f"{p}: {s}" for p, s in seen.items()))
    return any(r["first"] is None for r in sum(results.values(), []))


if __name__ == "__main__":
    sys.exit(main())
