# SPDX-License-Identifier: MIT OR Apache-2.0
"""How soon somebody who joins later sees a picture: live encoder, keyframe every 10 s, honours keyframe requests.

One after another: connect -> first decoded picture, and the SDK's own share of it (its connect call).
Five at once: keyframe requests that reach the encoder, and when the last of the five sees its first picture.
Peer: LiveKit's Python SDK with its pre-encoded source, fed by an appsink (sdk_peer.py).
--unasked: a source that can't be asked instead (a 720p30 file, 2 Mbit/s, keyframe every 2 s), with and without the GOP cache; no peer.
--idle: each joiner comes when the encoder has been told that nobody watches; no peer, none tells its encoder.
"""

import random
import sys
import time

import common
from common import OURS, PEER, Bench, Subscriber, finish, publisher, say, wait_until
from first_picture import LIVE, LIVE_BITRATE, LIVE_SIZE


class Ours:
    def __init__(self, bench, room):
        self.publisher = publisher.Publisher(LIVE + " ! livekitsink", bench.log(room), keyunit=["enc"], env=bench.publisher_env(room))

    def wait_published(self):
        self.publisher.wait_published()

    def key_units(self):
        return [e["t"] for e in self.publisher.select("key-unit")]

    def end(self):
        self.publisher.quit()


class Theirs:
    def __init__(self, bench, room):
        self.peer = bench.peer(room, LIVE, LIVE_SIZE, LIVE_BITRATE, live=True, encoder="enc")

    def wait_published(self):
        self.peer.wait_for("published")

    def key_units(self):
        return [e["t"] for e in self.peer.events if e["type"] == "key-unit"]

    def end(self):
        finish(self.peer)


class Unasked(Ours):
    def __init__(self, bench, room, cache):
        path = common.test_file(60, 2, LIVE_SIZE, LIVE_BITRATE)
        self.publisher = publisher.Publisher(
            f"filesrc location={path} ! qtdemux ! livekitsink gop-cache={cache}", bench.log(room), env=bench.publisher_env(room)
        )

    def replays(self):
        return [m["frames"] for m in self.publisher.messages("livekit-gop-replayed")]


def unasked(bench, cache, joiners, rng):
    """Connect -> first decoded picture, of joiners one after another."""
    room = bench.room(f"unasked {cache}")
    source = Unasked(bench, room, cache)
    firsts = []
    try:
        source.wait_published()
        with Subscriber(bench.server, room, identity="first") as first:
            # The file lasts a minute.
            first.wait_video()
            time.sleep(4)
            for _ in range(joiners):
                time.sleep(1.5 + rng.random() * 2)
                _, [(_, took)] = join(bench, room, 1)
                firsts.append(took)
        say(f"  gop-cache={cache}: {common.spread(firsts, 3)} s; frames sent again: {source.replays()}")
    finally:
        source.end()
    return firsts


def from_idle(bench, joiners, rng):
    """(first frame -> told to idle, last viewer left -> told to idle, connect -> first decoded picture), a list of each."""
    room = bench.room("idle")
    ours = Ours(bench, room)
    told, left, firsts = [], [], []

    def idle(since, count):
        event = ours.publisher.wait_for("element", "livekit-target-bitrate", active=False, reason="unwatched", count=count, timeout=30)
        return event["t"] - since

    try:
        ours.wait_published()
        told.append(idle(ours.publisher.select("element", "livekit-published")[0]["t"], 1))
        for n in range(joiners):
            time.sleep(1.0 + rng.random())
            _, [(_, first)] = join(bench, room, 1)
            gone = time.monotonic()
            firsts.append(first)
            left.append(idle(gone, n + 2))
    finally:
        ours.end()
    say(f"  from idle: {common.spread(firsts, 3)} s")
    return told, left, firsts


def join(bench, room, count):
    """(connect, first picture) seconds of `count` viewers that start together; None where there was no picture."""
    viewers = [Subscriber(bench.server, room, identity=f"viewer-{i}", wait=False) for i in range(count)]
    try:
        wait_until(lambda: all(any(f.arrivals for f in v.video) for v in viewers), 20, f"a picture at {count} viewers", interval=0.005)
    except AssertionError as e:
        say(str(e))
    result = []
    for v in viewers:
        first = min((f.arrivals[0].at for f in v.video if f.arrivals), default=None)
        connected = v.connected_at - v.started if v.connected_at else None
        result.append((connected, first and first - v.started))
    begun = min(v.started for v in viewers)
    # Requests that come after the picture belong to the figure too.
    time.sleep(1.0)
    for v in viewers:
        v.close()
    return begun, result


def one(bench, name, args, rng):
    room = bench.room(name)
    ours = (Ours if name == OURS else Theirs)(bench, room)
    result = {"connect": [], "first": [], "requests": [], "last": [], "single_requests": []}
    try:
        ours.wait_published()
        # Past the start, so that its first keyframe and its first bandwidth estimates are over.
        time.sleep(4)
        for n in range(args.joiners):
            # Not in step with the 10 s of the GOP, nor with the server's throttle of one request a second.
            time.sleep(1.0 + rng.random())
            begun, [(connected, first)] = join(bench, room, 1)
            result["connect"].append(connected)
            result["first"].append(first)
            result["single_requests"].append(sum(t >= begun for t in ours.key_units()))
        say(f"  {name}: {args.joiners} one after another: {common.spread(result['first'], 3)} s")
        for _ in range(args.bursts):
            time.sleep(2.0 + rng.random())
            begun, five = join(bench, room, args.at_once)
            result["last"].append(max(f for _, f in five) if all(f for _, f in five) else None)
            result["requests"].append(sum(t >= begun for t in ours.key_units()))
        say(f"  {name}: {args.at_once} at once: last picture after {common.spread(result['last'], 3)} s, {result['requests']} keyframe requests at the encoder")
    finally:
        ours.end()
    return result


def main():
    parser = common.options(__doc__)
    parser.add_argument("--joiners", type=int, default=10, help="joiners one after another, each round (default 10)")
    parser.add_argument("--at-once", type=int, default=5, help="joiners in a burst (default 5)")
    parser.add_argument("--bursts", type=int, default=3, help="bursts each round (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="of the pauses between joiners; both publishers get the same")
    parser.add_argument("--unasked", action="store_true", help="a source that can't be asked for a keyframe, with and without the GOP cache")
    parser.add_argument("--idle", action="store_true", help="joiners who find an encoder that was told that nobody watches")
    args = parser.parse_args()
    if args.idle:
        args.no_peer = True
        figures = [], [], []
        with Bench(args) as bench:
            for n in range(args.rounds):
                say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
                for all_of_it, found in zip(figures, from_idle(bench, args.joiners, random.Random(args.seed + n))):
                    all_of_it += found
        print(f"An encoder that nobody watches, min / **median** / max of {args.rounds} starts and {len(figures[2])} joiners\n")
        titles = ("published → told to idle, s", "last viewer left → told to idle, s", "idle: connect → first decoded picture, s")
        common.table(["figure", OURS], [[title, common.spread(found, 3)] for title, found in zip(titles, figures)])
        return any(v is None for v in figures[2])
    if args.unasked:
        results = {cache: [] for cache in ("auto", "off")}
        args.no_peer = True
        with Bench(args) as bench:
            for n in range(args.rounds):
                say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
                for cache, found in results.items():
                    found += unasked(bench, cache, min(args.joiners, 10), random.Random(args.seed + n))
        count = args.rounds * min(args.joiners, 10)
        print(f"Late joiners of a file with a keyframe every 2 s: connect → first decoded picture, s, min / **median** / max of {count}\n")
        common.table([f"gop-cache={cache}" for cache in results], [[common.spread(found, 3) for found in results.values()]])
        return any(v is None for found in results.values() for v in found)
    publishers = (OURS,) if args.no_peer else (OURS, PEER)
    results = {p: {} for p in publishers}
    with Bench(args) as bench:
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            for name in publishers:
                for key, values in one(bench, name, args, random.Random(args.seed + n)).items():
                    results[name].setdefault(key, []).extend(values)
    singles, bursts = args.rounds * args.joiners, args.rounds * args.bursts
    print(f"Late joiners, live 720p30 encoder, 10 s GOP; min / **median** / max of {singles} single joiners and {bursts} bursts of {args.at_once}\n")
    figures = [
        ("connect → first decoded picture, s", "first", 3),
        ("of that: the viewer SDK's own connect call, s", "connect", 3),
        ("keyframe requests at the encoder, one joiner", "single_requests", 0),
        (f"{args.at_once} at once: last one's first picture, s", "last", 3),
        (f"{args.at_once} at once: keyframe requests at the encoder", "requests", 0),
    ]
    rows = []
    for title, key, digits in figures:
        row = [title] + [common.spread(results[p][key], digits) for p in publishers]
        if PEER in publishers:
            row.append(common.ratio(results[OURS][key], results[PEER][key]))
        rows.append(row)
    common.table(["figure", *publishers] + ["ours / peer"] * (PEER in publishers), rows)
    return any(v is None for r in results.values() for key in ("first", "last") for v in r[key])


if __name__ == "__main__":
    sys.exit(main())
