# SPDX-License-Identifier: MIT OR Apache-2.0
"""Pictures through GStreamer's payloaders and depayloaders, in this process."""

import os
from dataclasses import dataclass, field

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401

Gst.init(None)

PAYLOADERS = {"ours": "rtpjpegpay-rs", "C": "rtpjpegpay"}
DEPAYLOADERS = {"ours": "rtpjpegdepay-rs", "C": "rtpjpegdepay"}
# Small, so that even small pictures take several packets.
MTU = 300
INTERVAL = Gst.SECOND // 25


@dataclass
class Outcome:
    pictures: list = field(default_factory=list)
    corrupt: list = field(default_factory=list)
    times: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    error: str = ""


def buffer(data, number):
    made = Gst.Buffer.new_wrapped(data)
    made.pts, made.duration = number * INTERVAL, INTERVAL
    return made


def jpeg_caps(size):
    return f"image/jpeg,framerate=25/1,width={size[0]},height={size[1]}"


def run(line, feeds, timeout=30):
    """Pushes buffers (with caps, when they are a pair) into the appsrc `in`; tells what came out of the appsink `out`."""
    pipeline = Gst.parse_launch(line)
    source, sink = pipeline.get_by_name("in"), pipeline.get_by_name("out")
    outcome = Outcome()
    pipeline.set_state(Gst.State.PLAYING)
    try:
        for feed in feeds:
            if isinstance(feed, tuple):
                source.set_property("caps", Gst.Caps.from_string(feed[0]))
                feed = feed[1]
            source.emit("push-buffer", feed)
        source.emit("end-of-stream")
        while True:
            sample = sink.emit("try-pull-sample", timeout * Gst.SECOND)
            if sample is None:
                assert sink.get_property("eos") or error_of(pipeline, outcome), f"{line}: hangs"
                break
            got = sample.get_buffer()
            outcome.pictures.append(got.extract_dup(0, got.get_size()))
            outcome.corrupt.append(got.has_flags(Gst.BufferFlags.CORRUPTED))
            outcome.times.append(got.pts)
        error_of(pipeline, outcome)
    finally:
        pipeline.set_state(Gst.State.NULL)
    return outcome


def error_of(pipeline, outcome):
    bus = pipeline.get_bus()
    while message := bus.pop_filtered(Gst.MessageType.WARNING | Gst.MessageType.ERROR):
        if message.type == Gst.MessageType.WARNING:
            outcome.warnings.append(message.parse_warning()[1])
        else:
            outcome.error = message.parse_error()[1]
    return outcome.error


def carry(pay, depay, data, size, count=2, mtu=MTU):
    """`count` times the same picture through a payloader and a depayloader."""
    line = f"appsrc name=in format=time ! {PAYLOADERS[pay]} mtu={mtu} ! {DEPAYLOADERS[depay]} ! appsink name=out sync=false"
    feeds = [buffer(data, number) for number in range(count)]
    return run(line, [(jpeg_caps(size), feeds[0]), *feeds[1:]])


def packetize(pay, pictures, size, mtu=1400):
    """The caps, and the packets of each picture, as lists of bytes."""
    line = f"appsrc name=in format=time ! {pay} mtu={mtu} ssrc=1 ! appsink name=out sync=false"
    pipeline = Gst.parse_launch(line)
    source, sink = pipeline.get_by_name("in"), pipeline.get_by_name("out")
    source.set_property("caps", Gst.Caps.from_string(jpeg_caps(size)))
    pipeline.set_state(Gst.State.PLAYING)
    frames, caps = [[]], None
    try:
        for number, picture in enumerate(pictures):
            source.emit("push-buffer", buffer(picture, number))
        source.emit("end-of-stream")
        while sample := sink.emit("try-pull-sample", 30 * Gst.SECOND):
            caps = sample.get_caps().to_string()
            got = sample.get_buffer()
            frames[-1].append((got.extract_dup(0, got.get_size()), got.pts))
            if frames[-1][-1][0][1] & 0x80:
                frames.append([])
    finally:
        pipeline.set_state(Gst.State.NULL)
    return caps, frames[:-1]


def assert_plugin():
    assert Gst.ElementFactory.find("rtpjpegpay-rs"), f"no rtpjpegpay-rs in GST_PLUGIN_PATH={os.environ.get('GST_PLUGIN_PATH')}"
