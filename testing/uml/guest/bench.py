# SPDX-License-Identifier: MIT OR Apache-2.0
"""bench.py ROUNDS FRAMES WIDTH HEIGHT ELEMENT…: latency and CPU time of encoders, in turn, in one process. Prints JSON.

Latency: from the call that gives a frame in to the callback that has the coded one, one frame at a time. CPU time: of the
whole process and, as the virtual codec's work is the kernel's, of the kernel's threads too; both for a whole round.
"""

import json
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

Gst.init(None)
rounds, frames, width, height = (int(word) for word in sys.argv[1:5])
elements = sys.argv[5:]
CAPS = (
    f"video/x-raw,format=NV12,width={width},height={height},framerate=30/1,interlace-mode=progressive,"
    "pixel-aspect-ratio=1/1,colorimetry=bt709"
)


def machine():
    """CPU time that the one processor was not idle, in seconds: ticks of 1/100 s."""
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:]]
    # user, nice, system, idle, iowait, irq, softirq, steal
    return (sum(fields[:3]) + sum(fields[5:7])) / 100


class Encoder:
    def __init__(self, name):
        self.name = name
        self.pipeline = Gst.parse_launch(
            f"appsrc name=in format=time is-live=true max-bytes=0 ! {name} name=enc ! video/x-fwht"
            " ! appsink name=out sync=false max-buffers=0"
        )
        self.source, self.sink = (self.pipeline.get_by_name(end) for end in ("in", "out"))
        self.source.set_property("caps", Gst.Caps.from_string(CAPS))
        self.encoder = self.pipeline.get_by_name("enc")
        self.number = 0
        self.latency, self.process, self.machine, self.sizes = [], [], [], []
        self.pipeline.set_state(Gst.State.PLAYING)

    def one(self, picture):
        buffer = Gst.Buffer.new_wrapped(picture)
        buffer.pts, buffer.duration = self.number * Gst.SECOND // 30, Gst.SECOND // 30
        self.number += 1
        begin = time.perf_counter()
        assert self.source.emit("push-buffer", buffer) == Gst.FlowReturn.OK
        sample = self.sink.emit("try-pull-sample", 60 * Gst.SECOND)
        end = time.perf_counter()
        assert sample, f"{self.name}: no frame {self.number}"
        self.sizes.append(sample.get_buffer().get_size())
        return end - begin

    def round(self, pictures):
        process, busy = time.process_time(), machine()
        for picture in pictures:
            self.latency.append(self.one(picture))
        self.process.append((time.process_time() - process) / len(pictures))
        self.machine.append((machine() - busy) / len(pictures))


stride, rows = (width + 3) // 4 * 4, (height + 1) // 2 * 2
line = bytes(range(256)) * (stride // 256 + 2)
pictures = [
    b"".join(line[(row + shift) % 256 :][:stride] for row in range(rows * 3 // 2)) for shift in range(0, frames * 3, 3)
]
encoders = [Encoder(name) for name in elements]
for encoder in encoders:
    # Not counted: the first frames set everything up.
    for picture in pictures[:10]:
        encoder.one(picture)
    encoder.sizes.clear()
for number in range(rounds):
    # Who is first changes.
    for place in range(len(encoders)):
        encoders[(number + place) % len(encoders)].round(pictures)
result = []
for encoder in encoders:
    result.append(
        {
            "element": encoder.name,
            "latency": encoder.latency,
            "process": encoder.process,
            "machine": encoder.machine,
            "bytes": sum(encoder.sizes),
        }
    )
    encoder.pipeline.set_state(Gst.State.NULL)
print(json.dumps(result))
