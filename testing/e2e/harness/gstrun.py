# SPDX-License-Identifier: MIT OR Apache-2.0
"""A gst-launch that can be watched and steered: messages go out and commands come in as JSON lines.

    python3 -m harness.gstrun '{"pipeline": "appsrc name=stamp ! …", "sources": {"stamp": {"fps": 30}}, "keyunit": ["enc"]}'

`sources` names the appsrc elements to feed with stamped pictures; `keyunit` the encoders at whose source pad
GstForceKeyUnit events from downstream are counted. Commands: {"id": 1, "code": "python"} runs with `pipeline`, `Gst`,
`feeders`, `add_feeder` and `emit` at hand and answers what the code left in `result`.
"""

import json
import os
import sys
import threading
import time
import traceback

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

from .feeder import Feeder  # noqa: E402

_out_lock = threading.Lock()


def emit(type_, **fields):
    with _out_lock:
        sys.stdout.write(json.dumps({"t": time.monotonic(), "type": type_, **fields}) + "\n")
        sys.stdout.flush()


def plain(value):
    """A GObject value as JSON can carry it."""
    if hasattr(value, "value_nick"):  # an enum is an int as well
        return value.value_nick
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Gst.Structure):
        return {"name": value.get_name(), "text": value.to_string(), "fields": fields_of(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value)


def fields_of(structure):
    fields = {}
    for i in range(structure.n_fields()):
        name = structure.nth_field_name(i)
        try:
            fields[name] = plain(structure.get_value(name))
        except TypeError:  # a type Python has no binding for
            fields[name] = None
    return fields


class Runner:
    def __init__(self, options):
        self.loop = GLib.MainLoop()
        self.failed = False
        self.keep_open = options.get("keep_open", False)
        self.pipeline = Gst.parse_launch(options["pipeline"])
        if not isinstance(self.pipeline, Gst.Pipeline):
            inner, self.pipeline = self.pipeline, Gst.Pipeline.new("pipeline0")
            self.pipeline.add(inner)
        self.feeders = {}
        for name, config in options.get("sources", {}).items():
            self.add_feeder(self.pipeline.get_by_name(name), **config)
        for name in options.get("keyunit", []):
            self.count_key_units(self.pipeline.get_by_name(name))
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.message)
        self.names = {
            "Gst": Gst, "GLib": GLib, "pipeline": self.pipeline, "feeders": self.feeders, "add_feeder": self.add_feeder,
            "emit": emit, "count_key_units": self.count_key_units, "runner": self,
        }  # fmt: skip
        exec(options.get("start") or "", dict(self.names))
        threading.Thread(target=self.commands, daemon=True).start()

    def add_feeder(self, appsrc, **config):
        name = appsrc.get_name()
        feeder = self.feeders[name] = Feeder(appsrc, on_done=lambda n: emit("fed", source=name, frames=n), **config)
        return feeder

    def count_key_units(self, encoder):
        def probe(_pad, info):
            structure = info.get_event().get_structure()
            if structure and structure.get_name() == "GstForceKeyUnit":
                emit("key-unit", element=encoder.get_name(), **{"all-headers": fields_of(structure).get("all-headers")})
            return Gst.PadProbeReturn.OK

        encoder.get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_UPSTREAM, probe)

    def message(self, _bus, message):
        kind = message.type
        source = message.src.get_path_string() if message.src else None
        if kind in (Gst.MessageType.ERROR, Gst.MessageType.WARNING, Gst.MessageType.INFO):
            error, debug = {
                Gst.MessageType.ERROR: message.parse_error,
                Gst.MessageType.WARNING: message.parse_warning,
                Gst.MessageType.INFO: message.parse_info,
            }[kind]()
            emit(kind.first_value_nick, src=source, text=error.message, domain=error.domain, code=error.code, debug=debug)
            if kind == Gst.MessageType.ERROR:
                self.failed = True
                if not self.keep_open:
                    self.quit()
        elif kind == Gst.MessageType.EOS:
            emit("eos", src=source)
            if not self.keep_open:
                self.quit()
        elif kind == Gst.MessageType.STATE_CHANGED:
            _old, new, _pending = message.parse_state_changed()
            if message.src == self.pipeline:
                emit("state", state=new.value_nick)
            # The source's own state, not the pipeline's: that one waits for a sink that waits for a picture.
            feeder = self.feeders.get(message.src.get_name())
            if feeder and new == Gst.State.PLAYING and message.src == feeder.appsrc:
                feeder.go()
        elif kind == Gst.MessageType.ASYNC_DONE:
            emit("async-done", src=source)
        elif kind == Gst.MessageType.LATENCY:
            self.pipeline.recalculate_latency()
        elif kind == Gst.MessageType.ELEMENT:
            structure = message.get_structure()
            emit("element", src=source, name=structure.get_name(), fields=fields_of(structure), text=structure.to_string())

    def commands(self):
        for line in sys.stdin:
            GLib.idle_add(self.command, json.loads(line))
        GLib.idle_add(self.quit)  # the test is gone

    def command(self, command):
        names = dict(self.names, result=None)
        try:
            exec(command["code"], names)
            emit("reply", id=command["id"], result=plain(names["result"]))
        except Exception:
            emit("reply", id=command["id"], error=traceback.format_exc())
        return False

    def quit(self):
        self.loop.quit()
        return False

    def run(self):
        begin = time.monotonic()
        change = self.pipeline.set_state(Gst.State.PLAYING)
        emit("started", result=change.value_nick, begin=begin)
        if change == Gst.StateChangeReturn.FAILURE:
            # The reason is on the bus: when nothing is left to show, that has been shown.
            GLib.timeout_add(200, lambda: GLib.idle_add(self.quit, priority=GLib.PRIORITY_LOW) and False)
            self.failed = True
        self.loop.run()
        for feeder in self.feeders.values():
            feeder.stop()
        begin = time.monotonic()
        self.pipeline.set_state(Gst.State.NULL)
        emit("null", seconds=time.monotonic() - begin)
        return 1 if self.failed else 0


if __name__ == "__main__":
    Gst.init(None)
    code = Runner(json.loads(sys.argv[1])).run()
    sys.stdout.flush()
    os._exit(code)  # Feeder threads may sit in appsrc; nothing is left to tidy.
