# SPDX-License-Identifier: MIT OR Apache-2.0
"""Child processes, free ports and waiting with a deadline."""

import os
import random
import signal
import socket
import subprocess
import time


# Seconds that a test waits for what has to come. It says nothing about how soon that should be: a machine may be busy
# with other things for a while. Where the time matters it is measured between events.
PATIENCE = 60.0


def wait_until(condition, timeout, what, interval=0.02):
    """Polls `condition` until it returns something true and returns that; fails loudly after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        # Looked at before: if this process stood still beyond the deadline, what came meanwhile counts.
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"waited {timeout:g} s in vain for {what() if callable(what) else what}")
        time.sleep(interval)


_handed_out = set()


def free_port(kind=socket.SOCK_STREAM, address="127.0.0.1"):
    """A port nobody uses now, and that no outgoing connection gets until it is used: it lies below the range which those are given
    from (ip_local_port_range). No port is handed out twice by one process."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        end = int(f.read().split()[0])
    for _ in range(1000):
        port = random.SystemRandom().randrange(10_000, end) if end >= 20_000 else 0
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind((address, port))
            except OSError:
                continue
            port = s.getsockname()[1]
        if (kind, port) not in _handed_out:
            _handed_out.add((kind, port))
            return port
    raise RuntimeError(f"no free port on {address}")


def free_udp_port(address="127.0.0.1"):
    return free_port(socket.SOCK_DGRAM, address)


class Child:
    """A process with its output in a file, always ended by its own pid (it leads a process group of its own)."""

    def __init__(self, argv, log, env=None, stdin=subprocess.DEVNULL, stdout=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.log_path = str(log)
        self._log = open(self.log_path, "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.argv,
            stdin=stdin,
            stdout=self._log if stdout is None else stdout,
            stderr=self._log if stdout is None else self._log,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self):
        return self.process.pid

    @property
    def returncode(self):
        return self.process.poll()

    def log(self):
        with open(self.log_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def wait(self, timeout):
        """Exit code; fails with the end of the log when the process outlives the deadline."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"{self.argv[0]} still ran after {timeout:g} s; end of its output:\n{self.tail()}") from None

    def interrupt(self):
        if self.returncode is None:
            self.process.send_signal(signal.SIGINT)

    def stop(self, grace=3.0):
        if self.returncode is None:
            for sig, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
                try:
                    os.killpg(self.pid, sig)
                except ProcessLookupError:
                    break
                try:
                    self.process.wait(patience)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
