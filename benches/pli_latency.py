# SPDX-License-Identifier: MIT OR Apache-2.0
"""From a viewer's request (PLI) in the kernel to the GstForceKeyUnit event upstream of livekitsink, with a 1080p30 4 Mbit/s stream running.

The request's time is the kernel's own (SO_TIMESTAMPNS) when the datagram reaches the loopback device, from where it goes into
the receive queue at once; a packet socket beside the publisher reads it. RTCP's header is not encrypted, so a PLI can be told.
The event's time is taken by a probe in front of livekitsink, in Python: its part is in the figure. Viewers leave and
subscribe again all the time, the server passes on requests every 20 ms, and the sink folds none for being too early
(keyframe-min-interval=0). The viewers decode on the same cores as the publisher works on, and keep them busy; so that the figure
is the publisher's and not the scheduler's, it runs in the real-time class (SCHED_RR; a board that publishes has no viewers on it).
`--nice 0` shows the difference. Needs root (packet socket, scheduling class).
"""

import asyncio
import random
import socket
import statistics
import struct
import sys
import threading
import time

import common
from common import OURS, Bench, Subscriber, publisher, say

SO_TIMESTAMPNS = 35  # also the type of its control message
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_HOST = 0
# RFC 4585 §6.3.1: payload-specific feedback (206), format 1; version 2, no padding.
PLI = bytes([0x81, 206])


class Requests:
    """PLIs from the server's UDP port, by the kernel's time on the clock of time.monotonic()."""

    def __init__(self, port):
        self.times = []
        self.port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # All of the loopback's traffic passes here, and a request that is missed makes the one before it look late.
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                data, control, _, address = self._socket.recvmsg(128, 64)
            except TimeoutError:
                continue
            # Each datagram passes the loopback device twice: out, and in again.
            if address[2] != PACKET_HOST or len(data) < 42:
                continue
            # Internet header: where it ends, and what follows.
            header, protocol = (40, data[6]) if data[0] >> 4 == 6 else ((data[0] & 15) * 4, data[9])
            if protocol != socket.IPPROTO_UDP:
                continue
            source = struct.unpack_from("!H", data, header)[0]
            # Of SRTCP (RFC 3711 §3.4) header and sender are in the clear.
            if source != self.port or data[header + 8 : header + 10] != PLI:
                continue
            stamp = next((c for level, kind, c in control if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS), None)
            if stamp:
                seconds, nanos = struct.unpack("qq", stamp[:16])
                self.times.append(seconds + nanos / 1e9 - (time.time() - time.monotonic()))

    def close(self):
        self._stop.set()
        self._thread.join()
        _, missed = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        if missed:
            say(f"  {missed} packets were not looked at: some figures are too long")
        self._socket.close()


def resubscribe(viewer, subscribed):
    """Unsubscribes from all video of the room, or subscribes again."""

    async def do():
        for participant in viewer.room.remote_participants.values():
            for publication in participant.track_publications.values():
                publication.set_subscribed(subscribed)

    asyncio.run_coroutine_threadsafe(do(), viewer._loop).result(5)


def one(bench, path, seconds, rng, scheduling):
    room = bench.room("pli")
    pipeline = f"filesrc location={path} ! qtdemux ! identity name=enc ! livekitsink name=sink gop-cache=off keyframe-min-interval=0"
    ours = publisher.Publisher(pipeline, bench.log(room), keyunit=["enc"], env=bench.publisher_env(room), prefix=scheduling)
    viewers = [Subscriber(bench.server, room, identity=f"viewer-{n}") for n in range(3)]
    requests = Requests(bench.server.udp)
    try:
        ours.wait_published()
        viewers[0].wait_video(frames=30)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # One always stays, so that the stream goes on.
            viewer = viewers[1 + rng.randrange(2)]
            resubscribe(viewer, False)
            time.sleep(0.1 + rng.random() / 10)
            resubscribe(viewer, True)
            time.sleep(0.2 + rng.random() / 10)
        events = [e["t"] for e in ours.select("key-unit")]
        asked = [m["kind"] for m in ours.messages("livekit-keyframe-request") if m["forwarded"]]
    finally:
        requests.close()
        for viewer in viewers:
            viewer.close()
        ours.stop()
    found = []
    # Requests go upstream in the order in which they are told. Our own (start, repeat) answer no PLI.
    for at, kind in zip(events, asked):
        before = max((t for t in requests.times if t <= at), default=None)
        if kind == "pli" and before is not None:
            found.append((at - before) * 1000)
    say(f"  {len(requests.times)} requests in the kernel, {len(events)} events upstream, {len(found)} of them for one")
    return found


def main():
    parser = common.options(__doc__, rounds=2)
    parser.add_argument("--seconds", type=int, default=55, help="how long each round takes, 55 at most (default 55)")
    parser.add_argument("--nice", type=int, help="the publisher runs as an ordinary process of this niceness (default: real-time class)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    # A keyframe each 0.2 s, so that a request is answered soon and the next one is not folded into it.
    path = common.test_file(60, 0.2)
    scheduling = ["chrt", "--rr", "10"] if args.nice is None else ["nice", "-n", str(args.nice)]
    found = []
    Bench.server_options = {"pli_throttle": "20ms"}
    with Bench(args) as bench:
        for n in range(args.rounds):
            say(f"round {n + 1} of {args.rounds}, load average {common.load():.2f}")
            found += one(bench, path, min(args.seconds, 55), random.Random(args.seed + n), scheduling)
    if len(found) < 10:
        say(f"only {len(found)} requests: no figure")
        return True
    found.sort()
    print(f"PLI in the kernel → GstForceKeyUnit upstream, {OURS}, {len(found)} requests\n")
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    common.table(["median ms", "p99 ms", "max ms"], [[f"{statistics.median(found):.2f}", f"{p99:.2f}", f"{found[-1]:.2f}"]])
    return False


if __name__ == "__main__":
    sys.exit(main())
