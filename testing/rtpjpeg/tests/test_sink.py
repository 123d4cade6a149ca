# SPDX-License-Identifier: MIT OR Apache-2.0
"""rtpudpsink-rs on a network that is narrower than its packets, in a network namespace of its own."""

import json
import os
import subprocess
import sys

import pytest

INSIDE = """
import json, socket, sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000000)
receiver.bind(("127.0.0.1", 0)); receiver.settimeout(10)
sink = Gst.ElementFactory.make("rtpudpsink-rs")
for name, value in (("host", "127.0.0.1"), ("port", receiver.getsockname()[1]), ("sync", False), ("async", False)):
    sink.set_property(name, value)
pad = Gst.Pad.new("src", Gst.PadDirection.SRC); pad.set_active(True)
sink.set_state(Gst.State.PLAYING); pad.link(sink.get_static_pad("sink"))
segment = Gst.Segment(); segment.init(Gst.Format.TIME)
pad.push_event(Gst.Event.new_stream_start("test")); pad.push_event(Gst.Event.new_segment(segment))
got = []
for frame in range(3):
    packets = Gst.BufferList.new()
    for number in range(40):
        packets.insert(-1, Gst.Buffer.new_wrapped(bytes([number]) * 1400))
    pad.push_list(packets)
    got += [receiver.recv(65536) for _ in range(40)]
right = all(data == bytes([number % 40]) * 1400 for number, data in enumerate(got))
stats = sink.get_property("stats")
print(json.dumps({"right": right, **{name: stats.get_value(name) for name in ("packets", "gso-packets", "packets-dropped", "send-errors")}}))
sink.set_state(Gst.State.NULL)
"""


@pytest.mark.parametrize("mtu,by_gso", [(1500, 120), (1000, 0)])
def test_packets_longer_than_the_mtu_go_without_segmentation_offload(mtu, by_gso):
    """The kernel refuses to offload them; they still have to arrive, in fragments."""
    space = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    if subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("this user may make no network namespace")
    command = f"ip link set lo mtu {mtu} && ip link set lo up && exec {sys.executable} -c '{INSIDE}'"
    done = subprocess.run([*space, "sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout.splitlines()[-1])
    assert stats == {"right": True, "packets": 120, "gso-packets": by_gso, "packets-dropped": 0, "send-errors": 0}
