# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many publishers in one process: CPU time, peak memory and threads, against the same pipelines into fakesinks and against one publisher.

Each is 640x360 at 30 fps, 1 Mbit/s H.264 from a file, with a participant of its own in one room; one viewer subscribes to all and
decodes them, without looking at the pictures. CPU is the slope while all play.
"""

import sys
import time

import common
from common import OURS, WEBRTCSINK, Bench, Child, Subscriber, Watch, cpu_seconds, finish, say
from harness.media import encode
from harness.proc import wait_until

ONE, FAKESINK = "one livekitsink", "fakesink"
FPS = 30


class Counter(Subscriber):
    """Subscribes and lets the SDK decode; reading that many pictures here would cost more than all the rest."""

    async def _watch(self, feed):
        pass

    def decoded(self):
        """Pictures decoded, of each track that still is there."""
        return [self.inbound(feed).get("frames_decoded", 0) for feed in list(self.video) if not feed.ended]


def small_file(seconds):
    path = common.cache_dir() / f"stamped-360p30-1M-{seconds}s-v1.mp4"
    if not path.exists():
        say(f"encoding {path.name} (once)")
        part = path.with_suffix(".part.mp4")
        encode(part, seconds * FPS, "-profile:v", "high", "-g", str(FPS), "-b:v", "1M", "-minrate", "1M", "-maxrate", "1M", "-bufsize", "500k")
        part.rename(path)
    return path


def one(bench, name, count, path, seconds):
    room = bench.room(f"{name}-{count}")
    env = bench.webrtcsink_env if name == WEBRTCSINK else bench.publisher_env(room)
    sinks = []
    for n in range(count):
        identity = f"publisher-{n}"
        if name == FAKESINK:
            sinks.append("h264parse ! fakesink sync=true")
        elif name == WEBRTCSINK:
            sinks.append(bench.webrtcsink(identity, room))
        else:
            sinks.append(f"livekitsink identity={identity}")
    if name in (OURS, ONE):
        # Of a token only one could be in the room.
        env = dict(env, LIVEKIT_API_KEY=bench.server.key, LIVEKIT_API_SECRET=bench.server.secret, LIVEKIT_ROOM=room)
        del env["LIVEKIT_TOKEN"]
    viewer = Counter(bench.server, room) if name != FAKESINK else None
    words = " ".join(f"filesrc location={path} ! qtdemux ! {sink}" for sink in sinks).split()
    try:
        with Child(["gst-launch-1.0", "-q", *words], bench.log(room), env=env) as child:
            watch = Watch(child.pid, interval=0.02)
            if viewer:
                wait_until(lambda: sum(n > FPS for n in viewer.decoded()) == count, 40, lambda: f"pictures of all {count}; decoded so far {viewer.decoded()}\n{child.tail()}", interval=0.5)
            else:
                time.sleep(3)
            before = viewer.decoded() if viewer else []
            begin = (time.monotonic(), cpu_seconds(child.pid))
            time.sleep(seconds)
            end = (time.monotonic(), cpu_seconds(child.pid))
            pictures = [b - a for a, b in zip(before, viewer.decoded())] if viewer else None
            watch.stop()
            finish(child)
    finally:
        if viewer:
            viewer.close()
    took = end[0] - begin[0]
    result = {"cpu": (end[1] - begin[1]) / took, "rss": watch.peak_rss_mb, "threads": watch.threads, "fps": min(pictures) / took if pictures else None}
    say(f"  {count} × {name}: {result['cpu']:.4f} CPU s/s, {result['rss']:.1f} MB, {result['threads']} threads" + (f", the slowest {result['fps']:.1f} fps" if pictures else ""))
    return result


def main():
    parser = common.options(__doc__)
    parser.add_argument("--count", type=int, default=20, help="publishers in the process (default 20)")
    parser.add_argument("--seconds", type=int, default=10, help="how long the slope is taken over (default 10)")
    args = parser.parse_args()
    path = small_file(120)
    with Bench(args) as bench:
        runs = [(ONE, 1), (FAKESINK, args.count), (OURS, args.count)] + [(WEBRTCSINK, args.count)] * bool(bench.webrtcsink_env)
        results = {name: [] for name, _ in runs}
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            for name, count in runs:
                results[name].append(one(bench, name, count, path, args.seconds))
    print(f"Publishers in one process, 360p30 1 Mbit/s H.264 from file, all seen by one viewer; min / **median** / max of {args.rounds}\n")
    rows = []
    for title, key, digits in (("CPU s/s", "cpu", 4), ("peak RSS, MB", "rss", 1), ("threads, most", "threads", 0), ("slowest one at the viewer, fps", "fps", 1)):
        values = {name: [r[key] for r in results[name]] for name in results}
        rows.append([title, *(common.spread(values[name], digits) if values[name][0] is not None else "–" for name in results)])
    common.table(["figure", *(f"{count} × {name}" if name != ONE else ONE for name, count in runs)], rows)
    middle = {name: {key: sorted(r[key] for r in results[name])[args.rounds // 2] for key in ("cpu", "rss", "threads")} for name in results}
    more = {key: middle[OURS][key] - middle[FAKESINK][key] for key in ("rss", "threads")}
    print(
        f"{args.count} livekitsinks against {args.count} fakesinks: {more['threads']} threads more in all, {more['rss'] / args.count:.2f} MB more each; "
        f"CPU {middle[OURS]['cpu'] / middle[ONE]['cpu']:.1f} × that of one."
    )


if __name__ == "__main__":
    sys.exit(main())
