# SPDX-License-Identifier: MIT OR Apache-2.0
"""An HTTP proxy on loopback that makes tunnels (CONNECT), and nothing else: to one server, for whoever has the login."""

import base64
import re
import socket
import threading

from .tcpproxy import Listener, copy, shut


class ConnectProxy(Listener):
    """`asked`: what tunnels were asked for, as (host:port, status). Every name leads to 127.0.0.1, which is what tells that
    the proxy looks names up, and not who uses it. `status`: what is answered to everybody with the login."""

    def __init__(self, login=None, status=200):
        self.login, self.status, self.asked = login, status, []
        self._open = []
        super().__init__()

    def _taken(self, near):
        with self._lock:
            self._open.append(near)
        threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        try:
            with near:
                self._answer(near)
        except OSError:
            pass

    def _answer(self, near):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = near.recv(1)
            if not byte:
                return
            head += byte
        to = re.match(rb"CONNECT (\S+:(\d+)) HTTP/1\.1\r\n", head)
        login = re.search(rb"\r\nproxy-authorization: basic (\S+)\r\n", head, re.I)
        login = base64.b64decode(login[1]).decode() if login else None
        status = 405 if not to else 407 if login != self.login else self.status
        self.asked.append((to[1].decode() if to else None, status))
        if status != 200:
            near.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with socket.create_connection(("127.0.0.1", int(to[2])), 5) as far:
            far.settimeout(None)
            with self._lock:
                self._open.append(far)
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)
            back.join()

    def cut(self):
        """Ends every tunnel; new ones are made as before."""
        with self._lock:
            connections, self._open = self._open, []
        shut(*connections)
