# SPDX-License-Identifier: MIT OR Apache-2.0
"""A private certificate authority and a TLS proxy (stunnel) in front of a plain-text server."""

import os
import shutil
import socket
import subprocess

from .proc import PATIENCE, Child, free_port, wait_until


def _openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


class Authority:
    def __init__(self, directory, name="Test CA"):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.certificate, self.key = directory / "ca.pem", directory / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", self.key, "-out", self.certificate,
        )  # fmt: skip

    def issue(self, name, *alternatives):
        """Certificate file (chain and key in one) for a server with these subjectAltName entries."""
        key, request, certificate, both, extensions = (self.directory / f"{name}.{e}" for e in ("key", "csr", "crt", "pem", "ext"))
        extensions.write_text("subjectAltName=" + ",".join(alternatives) + "\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate)
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        both.chmod(0o600)
        return both


class TlsProxy:
    def __init__(self, directory, certificate, target_port):
        self.port = free_port()
        config = directory / f"stunnel-{self.port}.conf"
        log = directory / f"stunnel-{self.port}.log"
        config.write_text(
            f"foreground = yes\npid =\nsyslog = no\ndebug = info\n[wss]\naccept = 127.0.0.1:{self.port}\n"
            f"connect = 127.0.0.1:{target_port}\ncert = {certificate}\n"
        )
        binary = next((b for b in ("stunnel4", "stunnel") if shutil.which(b)), None)
        if not binary:
            raise RuntimeError("stunnel is not installed; scripts/test installs it (Debian package stunnel4)")
        self.child = Child([binary, config], log, env=dict(os.environ))
        wait_until(self._up, PATIENCE, lambda: f"stunnel to listen:\n{self.child.tail()}")

    def _up(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stop()
