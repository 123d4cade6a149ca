# SPDX-License-Identifier: MIT OR Apache-2.0
"""Between a publisher and a real server: passes signalling on, keeps what the publisher said, and can say what one open-source
server never does. Messages are those of livekit_rtc.proto, by their field numbers."""

import contextlib
import json
import socket
import struct
import threading

from .tcpproxy import Listener, shut

DISCONNECT, RESUME, RECONNECT = range(3)
MIGRATION = 8


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """One field of a message: an int, or text, bytes or a message that is made already."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def fields(data):
    """A message as {field number: [values]}; strings and messages are bytes."""
    found, at = {}, 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value, at = data[at : at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def participant(sid, identity, state=2):
    return field(1, sid) + field(2, identity) + field(3, state)


def room_moved(token, name, sid, own, others=()):
    """SignalResponse: the participant is in another room now."""
    moved = field(1, field(1, sid) + field(2, name)) + field(2, token) + field(3, own) + b"".join(field(4, p) for p in others)
    return field(24, moved)


def leave(action, reason=MIGRATION, regions=()):
    """SignalResponse: go away, and how."""
    listed = b"".join(field(1, field(1, f"r{i}") + field(2, url)) for i, url in enumerate(regions))
    return field(8, field(2, reason) + field(3, action) + (field(4, listed) if regions else b""))


def refresh_token(token):
    return field(16, token)


class SignalProxy(Listener):
    """`asked`: (path, token) of every request. `said`: the publisher's messages, as `fields`. `regions`: what the server says
    its regions are, None = the server itself answers. `status`: refuses to be signalled to like this, 0 = does not."""

    def __init__(self, port):
        self._to = ("127.0.0.1", port)
        self.asked, self.said, self.regions, self.status = [], [], None, 0
        self._open = []
        super().__init__()
        self.url = f"ws://127.0.0.1:{self.port}"

    def _taken(self, near):
        threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with near, contextlib.suppress(OSError, EOFError):
            stream = near.makefile("rb")
            head = self._head(stream)
            path = head.split(b" ", 2)[1].decode().partition("?")[0]
            token = next((line[22:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: bearer ")), None)
            self.asked.append((path, token))
            if path == "/settings/regions" and self.regions is not None:
                listed = [{"region": f"r{i}", "url": url, "distance": str(i)} for i, url in enumerate(self.regions)]
                body = json.dumps({"regions": listed}).encode()
                near.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            elif self.status:
                near.sendall(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            else:
                self._forward(near, stream, head)

    def _forward(self, near, stream, head):
        with socket.create_connection(self._to, 5) as far:
            far.settimeout(None)
            far.sendall(head)
            back = far.makefile("rb")
            answer = self._head(back)
            near.sendall(answer)
            connection = (near, far, threading.Lock())
            with self._lock:
                self._open.append(connection)
            up = threading.Thread(target=self._up, args=(stream, near, far), daemon=True)
            up.start()
            try:
                if answer.startswith(b"HTTP/1.1 101"):
                    while True:
                        frame, _, _ = self._frame(back)
                        with connection[2]:
                            near.sendall(frame)
                while data := back.read1(65536):
                    near.sendall(data)
            finally:
                self._end(connection)
                up.join()

    def _up(self, stream, near, far):
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame, opcode, payload = self._frame(stream)
                if opcode == 2:
                    self.said.append(fields(payload))
                far.sendall(frame)
        shut(near, far)

    @staticmethod
    def _head(stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                raise EOFError
            head += line
        return head

    @staticmethod
    def _frame(stream):
        """A WebSocket frame (RFC 6455 §5.2) as it came, its opcode and payload."""

        def read(count):
            data = stream.read(count)
            if len(data) < count:
                raise EOFError
            return data

        head = read(2)
        size, extended = head[1] & 0x7F, b""
        if size > 125:
            extended = read(2 if size == 126 else 8)
            size = int.from_bytes(extended, "big")
        mask = read(4) if head[1] & 0x80 else b""
        payload = read(size)
        plain = bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if mask else payload
        return head + extended + mask + payload, head[0] & 0x0F, plain

    def _end(self, connection):
        with self._lock:
            if connection in self._open:
                self._open.remove(connection)
        shut(*connection[:2])

    def say(self, *messages):
        """Says this to the publisher as if the server had."""
        with self._lock:
            near, _, lock = self._open[-1]
        for message in messages:
            size = bytes([len(message)]) if len(message) < 126 else b"\x7e" + struct.pack(">H", len(message)) if len(message) < 1 << 16 else b"\x7f" + struct.pack(">Q", len(message))
            with lock:
                near.sendall(b"\x82" + size + message)

    def heard(self, number):
        """What the publisher said of this kind (field of SignalRequest), as `fields`."""
        return [fields(value) for message in list(self.said) for value in message.get(number, [])]

    def cut(self):
        """Ends every connection; new ones are made as before."""
        for connection in list(self._open):
            self._end(connection)
