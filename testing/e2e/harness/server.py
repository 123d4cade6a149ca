# SPDX-License-Identifier: MIT OR Apache-2.0
"""A real livekit-server with keys and ports of its own."""

import json
import os
import re
import secrets
import urllib.error
import urllib.request

from .proc import PATIENCE, Child, free_port, free_udp_port, wait_until
from .token import make_token

CONFIG = """\
port: {port}
bind_addresses: ["{address}"]
prometheus:
  port: {metrics}
rtc:
  udp_port: {udp}
  tcp_port: {tcp}
  node_ip: {address}
  use_external_ip: false
  enable_loopback_candidate: {loopback}
  stun_servers: []
{rtc}logging:
  level: debug
  json: true
keys:
  {key}: {secret}
"""

THROTTLE = """\
  pli_throttle:
    low_quality: {0}
    mid_quality: {0}
    high_quality: {0}
"""


class LiveKitServer:
    def __init__(self, directory, address="127.0.0.1", binary=None, prefix=(), port=None, keys=None, pli_throttle=None, rtc="", more=""):
        """`prefix`: words before the command, such as `ip netns exec NAME`. `pli_throttle`: e.g. "20ms", the shortest time
        between two requests for a key frame that the server sends (its default: 500 ms and more). `rtc`, `more`: lines for
        that part of the configuration (indented), and for the whole."""
        self.address = address
        # A free port of the host is free in a fresh namespace too, hence the check on loopback only.
        self.port, self.tcp, self.metrics_port = port or free_port(), free_port(), free_port()
        self.udp = free_udp_port()
        self.key, self.secret = keys or ("key" + secrets.token_hex(4), secrets.token_hex(20))
        self.url = f"ws://{address}:{self.port}"
        self.prefix = list(prefix)
        self._read = {}  # message -> (how far the log is read, its records)
        config = directory / "livekit.yaml"
        config.write_text(
            CONFIG.format(
                # Elsewhere it would be announced under the node's address too, and answer from the wrong one.
                loopback=str(address.startswith("127.")).lower(),
                port=self.port, address=address, metrics=self.metrics_port, udp=self.udp, tcp=self.tcp, key=self.key, secret=self.secret,
                rtc=rtc + (THROTTLE.format(pli_throttle) if pli_throttle else ""),
            )
            + more
        )
        config.chmod(0o600)
        binary = binary or os.environ.get("LIVEKIT_SERVER")
        if not binary:
            raise RuntimeError("LIVEKIT_SERVER names no livekit-server binary; start the tests with scripts/test --only e2e")
        env = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
        self.child = Child([*self.prefix, binary, "--config", config], directory / "livekit-server.log", env=env)
        try:
            wait_until(self._up, PATIENCE, lambda: f"livekit-server to listen; its log ends:\n{self.child.tail()}")
        except BaseException:
            self.stop()
            raise

    def _up(self):
        if self.child.returncode is not None:
            raise AssertionError(f"livekit-server ended with {self.child.returncode}:\n{self.child.tail()}")
        if self.prefix:
            return "starting LiveKit server" in self.child.log()
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.port}/", timeout=5) as r:
                return r.status == 200
        except OSError:
            return False

    def token(self, room, identity, **kw):
        return make_token(self.key, self.secret, identity, room, **kw)

    def api(self, method, **body):
        """Calls RoomService/`method` and returns its answer."""
        token = make_token(self.key, self.secret, roomAdmin=True, roomList=True, roomCreate=True, room=body.get("room", ""))
        request = urllib.request.Request(
            f"http://{self.address}:{self.port}/twirp/livekit.RoomService/{method}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as r:
            return json.loads(r.read() or b"{}")

    def participants(self, room):
        try:
            return self.api("ListParticipants", room=room).get("participants", [])
        except urllib.error.HTTPError as e:
            if e.code == 404:
                return []
            raise

    def wait_participant(self, room, identity, timeout=PATIENCE, tracks=0):
        def there():
            for p in self.participants(room):
                if p["identity"] == identity and len(p.get("tracks", [])) >= tracks:
                    return p
            return None

        return wait_until(there, timeout, f"{identity} in {room} with {tracks} tracks", interval=0.05)

    def wait_gone(self, room, identity, timeout=PATIENCE):
        wait_until(lambda: all(p["identity"] != identity for p in self.participants(room)), timeout, f"{identity} to leave {room}", interval=0.05)

    def log_entries(self, msg, **match):
        """Log records (JSON) with that message whose fields equal `match`. What was read once is kept: the log of a long session
        has many megabytes, and whoever waits asks often."""
        begin, found = self._read.get(msg, (0, []))
        with open(self.child.log_path, "rb") as f:
            f.seek(begin)
            # A line that is still being written is for the next time.
            text = f.read()
            text = text[: text.rfind(b"\n") + 1]
        for line in text.splitlines():
            if line.startswith(b"{") and msg.encode() in line:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry.get("msg") == msg:
                    found.append(entry)
        self._read[msg] = (begin + len(text), found)
        return [entry for entry in found if all(entry.get(k) == v for k, v in match.items())]

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.address}:{self.metrics_port}/metrics", timeout=PATIENCE) as r:
            return r.read().decode()

    def metric(self, name, **labels):
        """Sum of a Prometheus counter over all label sets that contain `labels`."""
        total = 0.0
        for line in self.metrics().splitlines():
            m = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
            if m and all(f'{k}="{v}"' in (m[1] or "") for k, v in labels.items()):
                total += float(m[2])
        return total

    def stop(self):
        # Asked politely it would wait for its participants to leave.
        self.child.stop(grace=0.3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
