# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs pipelines with the plugin under test: `Publisher` can be watched and steered, `GstLaunch` is the plain tool."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from .proc import PATIENCE, Child, wait_until

E2E = Path(__file__).resolve().parent.parent
# Goal for leaving a room at EOS (design §3); tests assert loosely, four times the goal.
EOS_LIMIT = 2.0 * 4


def plugin_env(env=None, **more):
    """The caller's environment without its LIVEKIT_* variables, plus `more` (None removes)."""
    result = {k: v for k, v in (env or os.environ).items() if not k.startswith("LIVEKIT_")}
    result.setdefault("GST_DEBUG", "livekit*:4,2")
    result["GST_DEBUG_NO_COLOR"] = "1"
    for key, value in more.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = str(value)
    return result


def quote(value):
    """A value for gst-launch syntax."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


class GstLaunch(Child):
    """gst-launch-1.0 -m PIPELINE (words split at blanks unless a list is given)."""

    def __init__(self, pipeline, log, env=None, flags=("-m",), prefix=(), stdin=subprocess.DEVNULL):
        words = pipeline.split() if isinstance(pipeline, str) else list(pipeline)
        super().__init__([*prefix, "gst-launch-1.0", *flags, *words], log, env=env, stdin=stdin)

    def wait_text(self, text, timeout=PATIENCE, interval=0.02):
        def there():
            log = self.log()
            if text in log:
                return True
            if self.returncode is not None:
                raise AssertionError(f"gst-launch-1.0 ended with {self.returncode} before it said {text!r}:\n{self.tail()}")
            return False

        wait_until(there, timeout, lambda: f"gst-launch-1.0 to say {text!r}; its output ends:\n{self.tail()}", interval)


class Publisher:
    def __init__(self, pipeline, log, sources=None, keyunit=(), env=None, prefix=(), keep_open=False, start=""):
        """`start`: Python code for the publisher to run before it plays."""
        options = {"pipeline": pipeline, "sources": sources or {}, "keyunit": list(keyunit), "keep_open": keep_open, "start": start}
        env = dict(env if env is not None else plugin_env())
        env["PYTHONPATH"] = str(E2E)
        env["PYTHONUNBUFFERED"] = "1"
        self.events = []
        self._changed = threading.Condition()
        self._id = 0
        self.child = Child(
            [*prefix, sys.executable, "-m", "harness.gstrun", json.dumps(options)],
            log,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for raw in self.child.process.stdout:
            try:
                event = json.loads(raw)
            except ValueError:
                event = {"type": "noise", "text": raw.decode("utf-8", "replace")}
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def started(self):
        return self.child.started

    def select(self, type_, name=None, **fields):
        return [
            e
            for e in list(self.events)
            if e["type"] == type_ and name in (None, e.get("name")) and all((e.get("fields") or e).get(k) == v for k, v in fields.items())
        ]

    def messages(self, name):
        """Element messages called livekit-…, as lists of their fields."""
        return [e["fields"] for e in self.select("element", name)]

    def warnings(self, *words):
        """Warning texts that contain all words, in any case."""
        found = []
        for e in self.select("warning"):
            text = f"{e['text']} {e.get('debug') or ''}".lower()
            if all(w.lower() in text for w in words):
                found.append(e)
        return found

    def summary(self):
        lines = [json.dumps({k: v for k, v in e.items() if k != "text" or e["type"] != "element"})[:400] for e in self.events[-25:]]
        return "\n".join(lines) + "\n--- log ---\n" + self.child.tail(25)

    def wait_for(self, type_, name=None, timeout=PATIENCE, count=1, may_end=False, **fields):
        """The count-th such event. Fails when the process ends first, and with a pipeline error unless that is wanted."""

        def look():
            found = self.select(type_, name, **fields)
            if len(found) >= count:
                return found[count - 1]
            if type_ != "error" and not may_end:
                errors = self.select("error")
                if errors:
                    raise AssertionError(f"pipeline error while waiting for {type_} {name or ''}: {errors[0]}\n{self.summary()}")
            if not self._reader.is_alive():
                raise AssertionError(f"publisher ended ({self.child.returncode}) before {type_} {name or ''} {fields}\n{self.summary()}")
            return None

        return wait_until(look, timeout, lambda: f"{type_} {name or ''} {fields} (number {count}) from the publisher:\n{self.summary()}")

    def wait_joined(self, timeout=PATIENCE):
        return self.wait_for("element", "livekit-joined", timeout)

    def wait_published(self, count=1, timeout=PATIENCE):
        return self.wait_for("element", "livekit-published", timeout, count)

    def run(self, code, timeout=PATIENCE):
        """Runs Python code in the publisher's main loop; answers what it left in `result`."""
        self._id += 1
        number = self._id
        self.child.process.stdin.write((json.dumps({"id": number, "code": code}) + "\n").encode())
        self.child.process.stdin.flush()
        reply = self.wait_for("reply", timeout=timeout, may_end=True, id=number)
        if reply.get("error"):
            raise AssertionError(f"in the publisher: {reply['error']}")
        return reply["result"]

    def get(self, element, prop):
        return self.run(f"result = pipeline.get_by_name({element!r}).get_property({prop!r})")

    def send_eos(self):
        """EOS from the sources, as Ctrl-C with gst-launch -e."""
        self.run("pipeline.send_event(Gst.Event.new_eos())")

    def quit(self, timeout=PATIENCE):
        """To NULL and out; seconds the state change took."""
        if self.child.returncode is None:
            try:
                self.child.process.stdin.write((json.dumps({"id": 0, "code": "runner.quit()"}) + "\n").encode())
                self.child.process.stdin.flush()
            except BrokenPipeError:
                pass
        self.wait_exit(timeout)
        return self.select("null")[0]["seconds"]

    def wait_exit(self, timeout=PATIENCE):
        try:
            code = self.child.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the publisher still ran after {timeout} s:\n{self.summary()}") from None
        self._reader.join(5)
        return code

    def stop(self):
        self.child.stop()
        self._reader.join(5)
        for pipe in (self.child.process.stdin, self.child.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
