# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two network namespaces joined by a veth pair: a server on an address that is not loopback."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

E2E = Path(__file__).resolve().parent.parent


class NotPermitted(Exception):
    """This user may make no network namespace."""


def _ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=20)


class Namespaces:
    """Names `server` and `client` with addresses `server_address` and `client_address`."""

    server_address, client_address = "10.213.7.1", "10.213.7.2"
    other_server_address, other_client_address = "10.213.8.1", "10.213.8.2"

    def __init__(self, delay_ms=0, loss=0.0, seed=1, emulated=False):
        """With a delay (each way), a loss (0..1, from the client on) or `emulated` the link is a relay between TUN devices,
        which can be `change`d."""
        if os.geteuid() != 0:
            raise NotPermitted("only root may make named network namespaces")
        tag = secrets.token_hex(3)
        self.server, self.client = f"lks{tag}", f"lkc{tag}"
        self._made, self._relay, self._etc = [], None, None
        try:
            for name in (self.server, self.client):
                _ip("netns", "add", name)
                self._made.append(name)
            if delay_ms or loss or emulated:
                self._start_relay({"delay_ms": delay_ms, "loss": loss, "seed": seed})
            else:
                _ip("link", "add", "eth0", "netns", self.server, "type", "veth", "peer", "name", "eth0", "netns", self.client)
            for name, address in ((self.server, self.server_address), (self.client, self.client_address)):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "lo", "up")
                # A pair hands on what the kernel has yet to cut into datagrams (segmentation offload); a link to elsewhere
                # carries, drops and delays each of them.
                _ip("-n", name, "link", "set", "dev", "eth0", "gso_max_segs", "1")
                _ip("-n", name, "link", "set", "eth0", "up")
        except (subprocess.CalledProcessError, FileNotFoundError) as e:
            self.remove()
            raise NotPermitted(f"ip netns: {getattr(e, 'stderr', e)}") from None

    def add_interface(self):
        """Another network: `eth1` on both sides, with `other_server_address` and `other_client_address`."""
        _ip("link", "add", "eth1", "netns", self.server, "type", "veth", "peer", "name", "eth1", "netns", self.client)
        for name, address in ((self.server, self.other_server_address), (self.client, self.other_client_address)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth1")
            _ip("-n", name, "link", "set", "dev", "eth1", "gso_max_segs", "1")
            _ip("-n", name, "link", "set", "eth1", "up")

    def set_mtu(self, size):
        """Of the link, on both sides."""
        for name in (self.server, self.client):
            _ip("-n", name, "link", "set", "dev", "eth0", "mtu", str(size))

    def _start_relay(self, options):
        command = [*self.inside(self.client), sys.executable, "-m", "harness.relay", json.dumps(options)]
        self._relay = subprocess.Popen(command, cwd=E2E, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if not self._relay.stdout.readline():
            raise NotPermitted(f"no TUN devices: {self._relay.stderr.read().decode(errors='replace')[-200:]}")
        _ip("-n", self.client, "link", "set", "peer0", "netns", self.server)
        _ip("-n", self.server, "link", "set", "peer0", "name", "eth0")

    def change(self, **options):
        """From now on the relay is like this; its options are those of relay.py."""
        self._relay.stdin.write(json.dumps(options).encode() + b"\n")
        self._relay.stdin.flush()
        if not self._relay.stdout.readline():
            raise RuntimeError(f"the relay ended: {self._relay.stderr.read().decode(errors='replace')[-400:]}")

    def limit(self, kbit, queue_ms=300, burst=4000, down=False):
        """From now on the client can send this much (`down`: the server), behind a queue of that length; `None` = as much as
        it wants."""
        qdisc = ["qdisc", "replace" if kbit else "delete", "dev", "eth0", "root"]
        if kbit:
            qdisc += ["tbf", "rate", f"{kbit}kbit", "burst", str(burst), "latency", f"{queue_ms}ms"]
        command = [*self.inside(self.server if down else self.client), "tc", *qdisc]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)

    def name_server(self, host):
        """What starts at the client's end from now on knows the server's address by this name."""
        self._etc = Path("/etc/netns") / self.client
        self._etc.mkdir(parents=True)
        (self._etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.server_address} {host}\n")

    def listening(self):
        """TCP sockets that listen at the server's end, as `ss` shows them."""
        command = [*self.inside(self.server), "ss", "-Htln"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout

    def refuse(self, *rules):
        """From now on the server's end of the link refuses this: nftables rules such as "meta l4proto udp drop", without a
        rule nothing."""
        text = "add table inet refused\ndelete table inet refused\n"
        if rules:
            lines = "\n".join(f'iifname "eth0" {rule}' for rule in rules)
            text += f"table inet refused {{\nchain incoming {{\ntype filter hook input priority 0;\n{lines}\n}}\n}}\n"
        command = [*self.inside(self.server), "nft", "-f", "-"]
        subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=20)

    @staticmethod
    def inside(name):
        """Words that run a command in a namespace."""
        return ["ip", "netns", "exec", name]

    def remove(self):
        if self._relay:
            self._relay.kill()
            self._relay.wait()
            for pipe in (self._relay.stdin, self._relay.stdout, self._relay.stderr):
                pipe.close()
            self._relay = None
        if self._etc:
            shutil.rmtree(self._etc)
            self._etc = None
        for name in self._made:
            _ip("netns", "delete", name, check=False)
        self._made = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def without_network():
    """Words that run a command with no network at all, or None when this user may not."""
    for words in (["unshare", "-n"], ["unshare", "-Urn"]):
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    return None
