# SPDX-License-Identifier: MIT OR Apache-2.0
"""What stands between a publisher and its server: takes connections, and can be cut."""

import contextlib
import socket
import threading


def shut(*sockets):
    """Ends connections; who waits on them sees it."""
    for s in sockets:
        with contextlib.suppress(OSError):
            s.shutdown(socket.SHUT_RDWR)


def copy(a, b):
    """Passes on what comes from `a`, until either ends; then both do."""
    with contextlib.suppress(OSError):
        while data := a.recv(65536):
            b.sendall(data)
    shut(a, b)


class Listener:
    """Takes connections on a free port, which go to `_taken`. `cut` ends them."""

    def __init__(self, address="127.0.0.1"):
        self._lock = threading.Lock()
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._taken(near)

    def close(self):
        self._listener.close()
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class TcpProxy(Listener):
    """A forwarder: what a signalling connection goes through when it is lost."""

    def __init__(self, port, address="127.0.0.1"):
        self._to = (address, port)
        self._pairs, self._blocked = [], False
        super().__init__(address)

    def _taken(self, near):
        try:
            far = None if self._blocked else socket.create_connection(self._to, 5)
        except OSError:
            far = None
        if far is None:
            near.close()
            return
        with self._lock:
            self._pairs.append((near, far))
        for a, b in ((near, far), (far, near)):
            threading.Thread(target=copy, args=(a, b), daemon=True).start()

    def cut(self):
        """Ends every connection; new ones are refused until `mend`."""
        self._blocked = True
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            shut(*pair)
            for s in pair:
                s.close()

    def mend(self):
        self._blocked = False
