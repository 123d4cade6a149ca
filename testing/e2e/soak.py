# SPDX-License-Identifier: MIT OR Apache-2.0
"""The long repetitions; started by scripts/soak, which sets everything up. See its --help."""

import argparse
import faulthandler
import secrets
import sys
import tempfile
import time
from pathlib import Path

from conftest import Stage
from harness import badlink, endurance
from harness.server import LiveKitServer
from harness.subscriber import leave

# part -> (what it does with `full` and `short`, those two, unit)
PARTS = {
    "cycles": (1000, 100, "start/stop cycles of one pipeline in one process"),
    "reconnects": (200, 20, "times the server is killed and started again at once"),
    "outages": (20, 3, "times the server is away for 5 s while a viewer retries every 100 ms"),
    "tracks": (20 * 60, 2 * 60, "seconds of 10 tracks of one sink, watched"),
    "link": (30 * 60, 2 * 60, "seconds of a link whose rate, delay and loss change every few seconds (as root)"),
}
# Goals: the picture 2 s after the server is up; no standstill above 2 s whatever a link does.
GOALS = {"picture after the server was up": 2.0, badlink.STANDSTILL: 2.0}


def run(part, amount, stage, directory):
    """The course of one part."""

    def progress(course):
        done, footprint = course.footprints[-1]
        print(f"  {time.strftime('%H:%M:%S')} {done}: {footprint.fds} descriptors, {footprint.threads} threads, {footprint.rss_kb / 1024:.1f} MB, {footprint.allocated_kb / 1024:.2f} MB allocated", flush=True)

    if part == "cycles":
        return endurance.cycles(stage, amount, warm=amount // 10, progress=progress)
    if part == "reconnects":
        return endurance.restarts(stage, directory, amount, down=0.0, pictures=False, warm=amount // 10, progress=progress)
    if part == "outages":
        return endurance.restarts(stage, directory, amount, down=5.0, progress=progress)
    if part == "link":
        return badlink.random_steps(directory, stage.room, amount, progress=progress)
    return endurance.tracks(stage, amount, progress=progress)


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Long repetitions against a livekit-server of its own: descriptors, threads and memory must stay.")
    parser.add_argument("--short", action="store_true", help="a tenth of everything, and 2 minutes of tracks")
    parser.add_argument("--growth", type=float, default=5.0, metavar="PERCENT", help="memory may grow by that much (default: 5)")
    for name, (full, short, what) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (default: {full}, with --short {short}; 0 = none)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be given several times")
    options = parser.parse_args()
    faulthandler.enable()
    failed = False
    reports = []
    with tempfile.TemporaryDirectory(prefix="soak.") as name:
        directory = Path(name)
        with LiveKitServer(directory) as server:
            for part, (full, short, what) in PARTS.items():
                amount = getattr(options, part)
                amount = (short if options.short else full) if amount is None else amount
                if amount <= 0 or (options.only and part not in options.only):
                    continue
                print(f"==> {part}: {amount} {what}", flush=True)
                place = directory / part
                place.mkdir()
                stage = Stage(server, "soak-" + secrets.token_hex(4), place)
                begin = time.monotonic()
                try:
                    course = run(part, amount, stage, place)
                    problems = course.problems(options.growth / 100)
                    for what, goal in GOALS.items():
                        late = [round(seconds, 2) for seconds in course.times.get(what, []) if seconds > goal]
                        if late:
                            problems.append(f"{part}: {what}: {len(late)} times above {goal:g} s: {late}")
                    reports.append(course.report())
                except AssertionError as e:
                    problems = [f"{part}: {e}"]
                finally:
                    stage.close()
                for problem in problems:
                    print(f"FAILED {problem}", flush=True)
                failed |= bool(problems)
                print(f"    {part}: {'FAILED' if problems else 'ok'}, {time.monotonic() - begin:.0f} s", flush=True)
    print("\n" + "\n".join(reports))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as e:
        code = e.code or 0
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    leave(code)
