# SPDX-License-Identifier: MIT OR Apache-2.0
"""A download by TCP that takes all that a link gives.

    python3 -m harness.bulk serve ADDRESS PORT
    python3 -m harness.bulk fetch ADDRESS PORT

`serve` says "ready" and sends zeros to whoever connects; `fetch` says every tenth of a second how many bytes it has.
"""

import socket
import sys
import time


def serve(listener):
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while True:
                    connection.sendall(bytes(65536))
            except OSError:
                pass


def fetch(connection):
    have, told = 0, 0.0
    while data := connection.recv(65536):
        have += len(data)
        if time.monotonic() >= told + 0.1:
            told = time.monotonic()
            print(have, flush=True)


def main():
    what, address = sys.argv[1], (sys.argv[2], int(sys.argv[3]))
    if what == "serve":
        serve(socket.create_server(address))
    else:
        fetch(socket.create_connection(address))


if __name__ == "__main__":
    main()
