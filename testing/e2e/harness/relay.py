# SPDX-License-Identifier: MIT OR Apache-2.0
"""A link with delay and loss for kernels without netem: two TUN devices, and this program between them.

    ip netns exec CLIENT python3 -m harness.relay '{"delay_ms": 25, "loss": 0.05, "seed": 1}'

Makes `eth0` and `peer0` in the namespace it runs in and says "ready"; whoever started it moves `peer0` to the other
namespace. `loss` is random and only on the way from eth0 to peer0; the delay is there in both directions.
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
QUEUE = 2000  # packets on their way; more than any test has


def open_tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def main():
    options = json.loads(sys.argv[1])
    delay, loss = options.get("delay_ms", 0) / 1000, options.get("loss", 0.0)
    chance = random.Random(options.get("seed", 1))
    here, there = open_tun("eth0"), open_tun("peer0")
    other = {here: there, there: here}
    print("ready", flush=True)
    waiting = []
    count = 0
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([here, there], [], [], pause)
        now = time.monotonic()
        for device in readable:
            while True:
                try:
                    packet = os.read(device, 65536)
                except BlockingIOError:
                    break
                if (device == here and chance.random() < loss) or len(waiting) >= QUEUE:
                    continue
                count += 1
                heapq.heappush(waiting, (now + delay, count, other[device], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(waiting)
            try:
                os.write(device, packet)
            except OSError:  # the device is not up (yet)
                pass


if __name__ == "__main__":
    main()
