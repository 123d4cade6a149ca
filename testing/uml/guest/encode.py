# SPDX-License-Identifier: MIT OR Apache-2.0
"""encode.py ELEMENT STEPS: drives an encoder frame by frame, prints what came out as JSON.

STEPS is JSON, a list of {"push": N, "width": W, "height": H} and {"key": true}; with "dmabuf": true the frames are DMABufs
of the heap.
"""

import fcntl
import hashlib
import json
import mmap
import os
import random
import struct
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstAllocators", "1.0")
from gi.repository import Gst, GstAllocators  # noqa: E402

Gst.init(None)
element, steps = sys.argv[1], json.loads(sys.argv[2])
pipeline = Gst.parse_launch(
    f"appsrc name=in format=time max-bytes=0 ! {element} name=enc ! video/x-fwht ! appsink name=out sync=false max-buffers=0"
)
source, sink, encoder = (pipeline.get_by_name(name) for name in ("in", "out", "enc"))
pipeline.set_state(Gst.State.PLAYING)
frames = []


def pull(timeout):
    sample = sink.emit("try-pull-sample", timeout)
    if sample:
        buffer, caps = sample.get_buffer(), sample.get_caps().get_structure(0)
        ok, bytes_ = buffer.map(Gst.MapFlags.READ)
        assert ok
        data = bytes(bytes_.data)
        buffer.unmap(bytes_)
        frames.append(
            {
                "pts": buffer.pts,
                "key": not buffer.get_flags() & Gst.BufferFlags.DELTA_UNIT,
                # The I-frame flag of struct fwht_cframe_hdr.
                "intra": bool(int.from_bytes(data[20:24], "big") & 1 << 10),
                "sha256": hashlib.sha256(data).hexdigest(),
                "caps": [caps.get_value("width"), caps.get_value("height")],
            }
        )
    return sample


def shared(data):
    """A buffer that is a DMABuf with these bytes. Numbers: linux/dma-heap.h."""
    request = bytearray(struct.pack("QIIQ", len(data), 0, os.O_RDWR | os.O_CLOEXEC, 0))
    with open("/dev/dma_heap/system", "rb") as heap:
        fcntl.ioctl(heap, 0xC0184800, request)
    fd = struct.unpack("QIIQ", request)[1]
    with mmap.mmap(fd, len(data)) as memory:
        memory[:] = data
    buffer = Gst.Buffer.new()
    buffer.append_memory(GstAllocators.DmaBufAllocator.alloc(GstAllocators.DmaBufAllocator.new(), fd, len(data)))
    return buffer


pushed = 0
# The same in each frame, and nothing that is as cheap without the frame before: only keyframes are intra then. But no noise:
# of a plane that does not get smaller by coding, the driver leaves its reference unwritten (codec-fwht.c, encode_plane), and
# what it makes of the next frame hangs on what was in that memory.
texture = b"".join(bytes([value]) * 16 for value in random.Random(1).randbytes(1280 * 720 * 3 // 2 // 16))
for step in steps:
    if step.get("key"):
        structure = Gst.Structure.new_from_string("GstForceKeyUnit, all-headers=(boolean)true, count=(uint)1;")
        assert encoder.get_static_pad("src").send_event(Gst.Event.new_custom(Gst.EventType.CUSTOM_UPSTREAM, structure))
        continue
    width, height = step["width"], step["height"]
    caps = f"video/x-raw,format=NV12,width={width},height={height},framerate=30/1,interlace-mode=progressive,pixel-aspect-ratio=1/1,colorimetry=bt709"
    source.set_property("caps", Gst.Caps.from_string(caps))
    stride, rows = (width + 3) // 4 * 4, (height + 1) // 2 * 2
    for _ in range(step["push"]):
        data = texture[: stride * rows * 3 // 2]
        buffer = shared(data) if step.get("dmabuf") else Gst.Buffer.new_wrapped(data)
        buffer.pts, buffer.duration = pushed * Gst.SECOND // 30, Gst.SECOND // 30
        assert source.emit("push-buffer", buffer) == Gst.FlowReturn.OK
        pushed += 1
        # One at a time, so that it is known which frame a request meets.
        pull(60 * Gst.SECOND)
source.emit("end-of-stream")
while pull(60 * Gst.SECOND):
    pass
stats = encoder.get_property("stats") if encoder.find_property("stats") else None
message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
pipeline.set_state(Gst.State.NULL)
print(
    json.dumps(
        {
            "pushed": pushed,
            "frames": frames,
            "imported": stats.get_value("frames-imported") if stats else None,
            "copied": stats.get_value("frames-copied") if stats else None,
            "restarts": stats.get_value("restarts") if stats else None,
            "error": message.parse_error()[0].message if message else None,
        }
    )
)
