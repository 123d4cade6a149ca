# SPDX-License-Identifier: MIT OR Apache-2.0
"""A relay of its own: coturn (Debian package `coturn`), beside the server in its network namespace."""

import os

from .netns import Namespaces
from .proc import PATIENCE, Child, free_port, wait_until
from .tls import Authority

CONFIG = """\
listening-ip={address}
relay-ip={address}
listening-port={port}
tls-listening-port={tls}
min-port=51000
max-port=51100
lt-cred-mech
realm=test
user={user}:{password}
cert={certificate}
pkey={certificate}
no-cli
no-multicast-peers
log-file=stdout
pidfile={directory}/turnserver.pid
userdb={directory}/turndb
"""


class Coturn:
    user, password = "camera", "wide-open"

    def __init__(self, directory, namespaces):
        self.address, self.port, self.tls = namespaces.server_address, free_port(), free_port()
        authority = Authority(directory / "relay-ca", "Relay CA")
        self.authority = authority.certificate
        config = directory / "turnserver.conf"
        config.write_text(
            CONFIG.format(
                address=self.address, port=self.port, tls=self.tls, user=self.user, password=self.password, directory=directory,
                certificate=authority.issue("relay", f"IP:{self.address}"),
            )
        )  # fmt: skip
        words = [*Namespaces.inside(namespaces.server), "turnserver", "-c", config]
        self.child = Child(words, directory / "coturn.log", env=dict(os.environ))
        wait_until(lambda: self._up(namespaces), PATIENCE, lambda: f"coturn to listen:\n{self.child.tail()}")

    def _up(self, namespaces):
        if self.child.returncode is not None:
            raise AssertionError(f"coturn ended with {self.child.returncode}:\n{self.child.tail()}")
        return all(f":{port}" in namespaces.listening() for port in (self.port, self.tls))

    def announce(self, protocol):
        """Lines for the part `rtc` of the server's configuration: this relay, by `udp`, `tcp` or `tls`."""
        port = self.tls if protocol == "tls" else self.port
        host = f'"[{self.address}]"' if ":" in self.address else self.address
        return (
            f"  turn_servers:\n    - host: {host}\n      port: {port}\n      protocol: {protocol}\n"
            f"      username: {self.user}\n      credential: {self.password}\n"
        )

    def stop(self):
        self.child.stop(grace=1.0)
