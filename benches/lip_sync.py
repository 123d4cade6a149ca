# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sound and picture in Chromium: a flash and a beep of one moment, without a delay and with 400 ms between encoder and video pad.

What is told is how much later than its beep a flash is seen, over the last 20 of 60 s: Chromium moves one towards the other by small
steps. The room has sync_streams, without which the server does not tell browsers what belongs together.
"""

import json
import os
import subprocess
import sys

import common
from common import Bench, say
from harness.publisher import Publisher

BROWSER = common.REPO / "testing" / "e2e" / "browser"
FLASH = "from harness.flasher import Flasher\nrunner.flasher = Flasher(pipeline.get_by_name('flash'))"
VIDEO = "appsrc name=flash ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=500 key-int-max=300"
AUDIO = "audiotestsrc is-live=true wave=ticks freq=1000 sine-periods-per-tick=100 volume=0.8 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! sink."


def one(bench, delay_ms, seconds, settle):
    room = bench.room(f"sync-{delay_ms}")
    bench.server.api("CreateRoom", name=room, sync_streams=True)
    late = f"queue min-threshold-time={delay_ms * 1_000_000} max-size-buffers=0 !" if delay_ms else ""
    options = {"url": bench.server.url, "token": bench.server.token(room, "chromium"), "seconds": seconds, "settle": settle}
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
    with Publisher(f"{VIDEO} ! {late} livekitsink name=sink {AUDIO}", bench.log(room), env=bench.publisher_env(room), start=FLASH) as publisher:
        publisher.wait_published(count=2)
        done = subprocess.run(["node", "sync.mjs", json.dumps(options)], cwd=BROWSER, env=env, capture_output=True, text=True, timeout=seconds + 60)
    report = json.loads(done.stdout)
    if not report["ok"]:
        raise SystemExit(f"no flashes or no beeps: {report}\n{done.stderr}")
    say(f"  {delay_ms} ms: {[round(offset) for offset in report['offsets']]}")
    return report["offsets"]


def main():
    parser = common.options(__doc__, rounds=1)
    parser.add_argument("--seconds", type=int, default=60, help="how long Chromium watches (default 60)")
    args = parser.parse_args()
    args.no_peer = True
    results = {0: [], 400: []}
    with Bench(args) as bench:
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            for delay_ms, offsets in results.items():
                offsets += one(bench, delay_ms, args.seconds, args.seconds - 20)
    print("Flash seen after its beep is heard, ms; min / **median** / max\n")
    common.table(["delay before the video pad", "Chromium"], [[f"{delay} ms", common.spread(offsets, 0)] for delay, offsets in results.items()])


if __name__ == "__main__":
    sys.exit(main())
