# SPDX-License-Identifier: MIT OR Apache-2.0
"""A TCP forwarder on loopback that can be cut: what a signalling connection goes through when it is lost."""

import socket
import threading


class TcpProxy:
    def __init__(self, port, address="127.0.0.1"):
        self._to = (address, port)
        self._pairs, self._lock, self._blocked = [], threading.Lock(), False
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = None if self._blocked else socket.create_connection(self._to, 5)
            except OSError:
                far = None
            if far is None:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """Ends every connection; new ones are refused until `mend`."""
        self._blocked = True
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()

    def mend(self):
        self._blocked = False

    def close(self):
        self._listener.close()
        self.cut()
