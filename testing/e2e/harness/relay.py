# SPDX-License-Identifier: MIT OR Apache-2.0
"""A bad link for kernels without netem: two TUN devices, and this program between them.

    ip netns exec CLIENT python3 -m harness.relay '{"delay_ms": 25, "loss": 0.05, "seed": 1}'

Makes `eth0` and `peer0` in the namespace it runs in and says "ready"; whoever started it moves `peer0` to the other
namespace. A line of options on its standard input changes them from then on, and is answered by "done":

- `delay_ms`: on the way, in both directions. Packets keep their order: what waits longer than what follows holds it up.
- `loss`: 0..1, at random, only on the way from eth0 to peer0.
- `nat`: "all" = ports of eth0's side are translated from now on, as a home router does; once more, or "udp" = the router has
  forgotten what it translated, or of that UDP: whatever goes on comes from another port, and nothing comes back to the old one.
- `dtls`: "drop" = no DTLS record passes, in either direction; "alert" = the same, and instead of each eth0's side gets a fatal
  alert; "pass" = they pass.
"""

import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
QUEUE = 2000  # packets on their way; more than any test has
TCP, UDP = 6, 17
CHECKSUM = {TCP: 16, UDP: 6}  # where in the header
# A DTLS 1.2 record: alert, epoch 0, sequence number 0; fatal, handshake_failure (RFC 6347 §4.1, RFC 5246 §7.2).
ALERT = bytes.fromhex("15fefd" "0000" "000000000000" "0002" "0228")


def open_tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def transport(packet):
    """Protocol and where its header begins, of a whole IPv4 packet of TCP or UDP; else None."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] not in CHECKSUM or (packet[6] & 0x3F or packet[7]):
        return None
    at = (packet[0] & 0x0F) * 4
    return (packet[9], at) if len(packet) >= at + CHECKSUM[packet[9]] + 2 else None


def sum16(data):
    """One's complement sum of 16-bit words (RFC 1071)."""
    data = data + b"\0" if len(data) % 2 else data
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def set_port(packet, at, protocol, port):
    """The packet with another port at this place of its header, and its checksum made right (RFC 1624)."""
    packet = bytearray(packet)
    start = transport(packet)[1]
    (old,) = struct.unpack_from(">H", packet, at)
    struct.pack_into(">H", packet, at, port)
    where = start + CHECKSUM[protocol]
    (have,) = struct.unpack_from(">H", packet, where)
    if have:  # 0 = UDP without one
        struct.pack_into(">H", packet, where, ~sum16(struct.pack(">HHH", ~have & 0xFFFF, ~old & 0xFFFF, port)) & 0xFFFF)
    return bytes(packet)


class Nat:
    """Ports of one side as the other one sees them."""

    def __init__(self, chance):
        self._chance, self._out, self._back = chance, {}, {}

    def forget(self, protocols):
        self._out = {key: port for key, port in self._out.items() if key[0] not in protocols}
        self._back = {key: port for key, port in self._back.items() if key[0] not in protocols}

    def outward(self, packet):
        found = transport(packet)
        if not found:
            return packet
        protocol, at = found
        (port,) = struct.unpack_from(">H", packet, at)
        key = (protocol, port)
        if key not in self._out:
            while (protocol, mapped := self._chance.randrange(20_000, 60_000)) in self._back:
                pass
            self._out[key], self._back[protocol, mapped] = mapped, port
        return set_port(packet, at, protocol, self._out[key])

    def inward(self, packet):
        """None = nobody behind it knows of this."""
        found = transport(packet)
        if not found:
            return packet
        protocol, at = found
        (mapped,) = struct.unpack_from(">H", packet, at + 2)
        port = self._back.get((protocol, mapped))
        return None if port is None else set_port(packet, at + 2, protocol, port)


def is_dtls(packet):
    """By the first byte, as RFC 7983 §7 tells protocols on one port apart."""
    found = transport(packet)
    return bool(found) and found[0] == UDP and len(packet) > found[1] + 8 and 20 <= packet[found[1] + 8] <= 63


def datagram(source, destination, ports, payload):
    """An IPv4 datagram of UDP without a checksum; addresses and ports as they are in the headers."""
    header = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, UDP, 0, source, destination))
    struct.pack_into(">H", header, 10, ~sum16(bytes(header)) & 0xFFFF)
    return bytes(header) + ports + struct.pack(">HH", 8 + len(payload), 0) + payload


def alert(packet, outward):
    """To the inner side, as if from the outer one, in answer to this packet or instead of it."""
    at, source, destination = transport(packet)[1], packet[12:16], packet[16:20]
    ports = packet[at : at + 4]
    if outward:
        source, destination, ports = destination, source, ports[2:] + ports[:2]
    return datagram(source, destination, ports, ALERT)


class Link:
    """What happens to packets, without the devices: `send` them at one end, and `due` are those to be handed on."""

    def __init__(self, here, there, seed=1, **options):
        self.here, self.there = here, there
        self._chance = random.Random(seed)
        self._delay, self._loss, self._dtls, self._nat = 0.0, 0.0, "pass", None
        self._ways = {here: deque(), there: deque()}  # by where packets go: (when, packet)
        self.set(**options)

    def set(self, delay_ms=None, loss=None, nat=None, dtls=None):
        if delay_ms is not None:
            self._delay = delay_ms / 1000
        if loss is not None:
            self._loss = loss
        if nat is not None:
            self._nat = self._nat or Nat(self._chance)
            self._nat.forget([UDP] if nat == "udp" else [TCP, UDP])
        if dtls is not None:
            self._dtls = dtls

    def send(self, device, packet, now):
        outward, translated = device == self.here, False
        if outward and self._chance.random() < self._loss:
            return
        if self._dtls != "pass" and is_dtls(packet):
            if self._dtls == "drop":
                return
            packet, translated, outward = alert(packet, outward), outward, False
        if self._nat and not translated:
            packet = self._nat.outward(packet) if outward else self._nat.inward(packet)
        way = self._ways[self.there if outward else self.here]
        if packet is not None and len(way) < QUEUE:
            way.append((max(now + self._delay, way[-1][0] if way else 0), packet))

    def due(self, now):
        for device, way in self._ways.items():
            while way and way[0][0] <= now:
                yield device, way.popleft()[1]

    def pause(self, now):
        """Seconds until something is due; None = nothing is on its way."""
        first = [way[0][0] for way in self._ways.values() if way]
        return max(0.0, min(first) - now) if first else None


def main():
    here, there = open_tun("eth0"), open_tun("peer0")
    link = Link(here, there, **json.loads(sys.argv[1]))
    print("ready", flush=True)
    lines, sources = b"", [here, there, 0]
    while True:
        readable, _, _ = select.select(sources, [], [], link.pause(time.monotonic()))
        now = time.monotonic()
        if 0 in readable:
            read = os.read(0, 65536)
            if not read:
                sources.remove(0)
            *whole, lines = (lines + read).split(b"\n")
            for line in whole:
                link.set(**json.loads(line))
                print("done", flush=True)
        for device in (here, there):
            while device in readable:
                try:
                    link.send(device, os.read(device, 65536), now)
                except BlockingIOError:
                    break
        for device, packet in link.due(time.monotonic()):
            try:
                os.write(device, packet)
            except OSError:  # the device is not up (yet)
                pass


if __name__ == "__main__":
    main()
