# SPDX-License-Identifier: MIT OR Apache-2.0
"""The service mjpeg-rtp-streamer as a process, and sockets that see what it sends."""

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from harness.proc import Child, free_udp_port, wait_until

NTP_EPOCH = 2208988800


def binary():
    path = os.environ.get("MJPEG_RTP_STREAMER")
    assert path and os.access(path, os.X_OK), f"MJPEG_RTP_STREAMER={path} is not the service's binary"
    return path


def ask(*arguments, **options):
    """Runs the service to its end."""
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=30, **options)


def even_port():
    """A free port whose successor is free, too."""
    while True:
        port = free_udp_port() & ~1
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            return port
        except OSError:
            continue


def camera(number, port, device="test", **keys):
    lines = {"device": device, "width": 320, "height": 240, "fps": 25, "dest_host": "127.0.0.1", "dest_port": port, "ssrc": number, **keys}
    text = (f"{key} = {toml(value)}" for key, value in lines.items())
    return "\n".join([f"[mjpeg-rtp.camera{number}]", *text, ""])


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


class Streamer(Child):
    """The service with a configuration, in a directory of its own."""

    def __init__(self, directory, cameras, main="", env=None, verbose=True):
        directory.mkdir(exist_ok=True)
        self.directory, self.main = directory, main
        self.config = directory / "cameras.toml"
        self.write(cameras)
        more = ["--verbose"] if verbose else []
        super().__init__([binary(), "--config", self.config, *more], directory / "streamer.log", env={**os.environ, **(env or {})}, cwd=directory)

    def write(self, cameras, main=None):
        self.config.write_text("\n".join(["[mjpeg-rtp]", self.main if main is None else main, *cameras]))

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def wait_log(self, text, timeout=60, count=1):
        wait_until(lambda: self.log().count(text) >= count, timeout, lambda: f"'{text}':\n{self.tail()}")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait(60)


@dataclass
class Packet:
    at: float
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool
    data: bytes


@dataclass
class SenderReport:
    at: float
    ssrc: int
    ntp: float
    """Seconds since 1970."""
    rtp: int
    packets: int
    octets: int
    cname: str
    bye: bool


class Listener:
    """Takes all that comes to a camera's two ports."""

    def __init__(self, port):
        self.packets, self.reports, self._end = [], [], False
        self._sockets = []
        for number, take in ((port, self._rtp), (port + 1, self._rtcp)):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000000)
            one.bind(("127.0.0.1", number))
            one.settimeout(0.1)
            self._sockets.append(one)
            threading.Thread(target=self._run, args=(one, take), daemon=True).start()
        self.answer_to = None

    def _run(self, one, take):
        while not self._end:
            try:
                data, sender = one.recvfrom(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            take(data, sender, time.time())

    def _rtp(self, data, _sender, now):
        _, second, sequence, timestamp, ssrc = struct.unpack(">BBHII", data[:12])
        self.packets.append(Packet(now, sequence, timestamp, ssrc, bool(second & 0x80), data))

    def _rtcp(self, data, sender, now):
        first, kind, length, ssrc, seconds, fraction, rtp, packets, octets = struct.unpack(">BBHIIIIII", data[:28])
        assert (first, kind, length) == (0x80, 200, 6), data
        items = data[28:]
        assert items[:2] == bytes([0x81, 202]) and items[8] == 1, items
        cname = items[10 : 10 + items[9]].decode()
        rest = items[4 * (struct.unpack(">H", items[2:4])[0] + 1) :]
        self.answer_to = sender
        report = SenderReport(now, ssrc, seconds - NTP_EPOCH + fraction / 2**32, rtp, packets, octets, cname, rest[:2] == b"\x81\xcb")
        self.reports.append(report)

    def say(self, data):
        """Answers a report from the RTCP port."""
        self._sockets[1].sendto(data, self.answer_to)

    def frames(self):
        return sum(packet.marker for packet in list(self.packets))

    def is_complete(self):
        """Whether all that the last report counts has been seen, and nothing waits to be."""
        packets = list(self.packets)
        counted = self.reports[-1].packets if self.reports else None
        return counted == sum(packet.ssrc == self.reports[-1].ssrc for packet in packets) if counted is not None else False

    def gaps(self):
        """Packets whose sequence number does not follow the one before."""
        packets = list(self.packets)
        return [(a.sequence, b.sequence) for a, b in zip(packets, packets[1:]) if (a.sequence + 1) % 65536 != b.sequence]

    def close(self):
        self._end = True
        for one in self._sockets:
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class CameraServer:
    """A camera that is killed and comes back on command: serves JPEG pictures by TCP, one stream at a time."""

    def __init__(self, picture, fps=25):
        self.picture, self.fps, self.serving = picture, fps, True
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self._socket.settimeout(0.05)
        self.port, self._end = self._socket.getsockname()[1], False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def device(self):
        return (
            f"pipeline:tcpclientsrc host=127.0.0.1 port={self.port} do-timestamp=true "
            "! multipartdemux boundary=frame single-stream=true ! image/jpeg"
        )

    def _run(self):
        while not self._end:
            try:
                connection, _ = self._socket.accept()
            except (TimeoutError, OSError):
                continue
            with connection:
                try:
                    while self.serving and not self._end:
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n"
                        connection.sendall(head.encode() + self.picture + b"\r\n")
                        time.sleep(1 / self.fps)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end = True
        self.thread.join(5)
        self._socket.close()
