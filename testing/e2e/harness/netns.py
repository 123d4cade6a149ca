# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two network namespaces joined by a veth pair: a server on an address that is not loopback."""

import os
import secrets
import subprocess


class NotPermitted(Exception):
    """This user may make no network namespace."""


def _ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=20)


class Namespaces:
    """Names `server` and `client` with addresses `server_address` and `client_address`."""

    server_address, client_address = "10.213.7.1", "10.213.7.2"

    def __init__(self):
        if os.geteuid() != 0:
            raise NotPermitted("only root may make named network namespaces")
        tag = secrets.token_hex(3)
        self.server, self.client = f"lks{tag}", f"lkc{tag}"
        self._made = []
        try:
            for name in (self.server, self.client):
                _ip("netns", "add", name)
                self._made.append(name)
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

    def set_mtu(self, size):
        """Of the link, on both sides."""
        for name in (self.server, self.client):
            _ip("-n", name, "link", "set", "dev", "eth0", "mtu", str(size))

    @staticmethod
    def inside(name):
        """Words that run a command in a namespace."""
        return ["ip", "netns", "exec", name]

    def remove(self):
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
