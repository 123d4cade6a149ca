# SPDX-License-Identifier: MIT OR Apache-2.0
"""`v4l2m2menc` on a real V4L2 core: the kernel's virtual codec (FWHT), beside GStreamer's own element."""

import json
import subprocess

import pytest

from test_uml import UML, fwht_frames, run

def launch(tmp_path, *encoders, format="NV12", options=()):
    """Encodes a test picture with each; the bytes."""
    pictures = f"videotestsrc pattern=ball num-buffers=20 ! video/x-raw,format={format},width=640,height=480,framerate=30/1"
    lines = (
        f'gst-launch-1.0 -q {pictures} ! {encoder} ! video/x-fwht ! filesink location="$UML_RESULTS/{number}"'
        for number, encoder in enumerate(encoders)
    )
    run(*options, "--results", tmp_path, "sh", "-ec", "\n".join(lines))
    return [(tmp_path / str(number)).read_bytes() for number in range(len(encoders))]


def encode(element, steps):
    done = run("/usr/bin/python3", UML / "guest" / "encode.py", element, json.dumps(steps))
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("options", [(), ("--multiplanar",)], ids=["single-planar", "multi-planar"])
@pytest.mark.parametrize("format", ["NV12", "I420", "YUY2"])
def test_the_same_bytes_as_gstreamers_own_element(tmp_path, options, format):
    # The GOP size that the driver begins with, which the other element leaves alone.
    ours, peer = launch(tmp_path, "v4l2m2menc gop-size=10", "v4l2fwhtenc", format=format, options=options)
    assert len(fwht_frames(ours)) == 20
    assert ours == peer


def test_the_same_count_and_timestamps_as_gstreamers_own_element():
    steps = [{"push": 25, "width": 1280, "height": 720}]
    ours, peer = encode("v4l2m2menc", steps), encode("v4l2fwhtenc", steps)
    assert [frame["pts"] for frame in ours["frames"]] == [frame["pts"] for frame in peer["frames"]]
    assert len(ours["frames"]) == ours["pushed"] == 25
    assert ours["error"] is None
    # The driver flags no keyframe: told by the bytes.
    assert [frame["key"] for frame in ours["frames"]] == [frame["intra"] for frame in ours["frames"]]
    assert any(frame["key"] for frame in ours["frames"])


def test_a_keyframe_from_a_driver_without_the_control():
    steps = [{"push": 5, "width": 640, "height": 480}, {"key": True}, {"push": 5, "width": 640, "height": 480}]
    out = encode("v4l2m2menc gop-size=16", steps)
    assert len(out["frames"]) == 10
    keys = [number for number, frame in enumerate(out["frames"]) if frame["key"]]
    assert keys[0] == 0 and len(keys) == 2 and 5 <= keys[1] <= 7, keys
    assert out["restarts"] == 1


def test_another_size_in_the_middle_loses_no_frame():
    steps = [{"push": 7, "width": 640, "height": 480}, {"push": 7, "width": 1280, "height": 720}]
    out = encode("v4l2m2menc", steps)
    assert [frame["pts"] for frame in out["frames"]] == [number * 10**9 // 30 for number in range(14)]
    assert [frame["caps"] for frame in out["frames"]] == [[640, 480]] * 7 + [[1280, 720]] * 7
    assert out["frames"][7]["key"]


@pytest.mark.parametrize("size", [(650, 482), (320, 240), (641, 361)])
def test_sizes_that_the_device_does_not_take(size):
    out = encode("v4l2m2menc", [{"push": 5, "width": size[0], "height": size[1]}])
    assert len(out["frames"]) == 5
    assert out["error"] is None


def test_dmabufs_are_read_where_they_are():
    plain = {"push": 12, "width": 640, "height": 480}
    mapped = encode("v4l2m2menc", [plain])
    assert (mapped["imported"], mapped["copied"]) == (0, 12)
    for mode, counts in [("auto", (12, 0)), ("dmabuf", (12, 0)), ("mmap", (0, 12))]:
        out = encode(f"v4l2m2menc io-mode={mode}", [plain | {"dmabuf": True}])
        assert (out["error"], out["imported"], out["copied"]) == (None, *counts), mode
        assert [(frame["pts"], frame["sha256"]) for frame in out["frames"]] == [
            (frame["pts"], frame["sha256"]) for frame in mapped["frames"]
        ], mode


def test_dmabufs_that_the_device_cannot_read_are_copied_and_none_is_lost():
    # The device pads this size, so that its planes are elsewhere; the next is one that it takes.
    steps = [{"push": 6, "width": 642, "height": 482, "dmabuf": True}, {"push": 6, "width": 640, "height": 480, "dmabuf": True}]
    out = encode("v4l2m2menc", steps)
    assert [frame["pts"] for frame in out["frames"]] == [number * 10**9 // 30 for number in range(12)]
    assert (out["error"], out["imported"], out["copied"]) == (None, 6, 6)


def test_a_camera_that_exports_its_buffers():
    code = """
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
caps = "video/x-raw,format=NV12,width=640,height=480"
pipeline = Gst.parse_launch(
    f"v4l2src device=/dev/video4 io-mode=dmabuf num-buffers=20 ! {caps} ! v4l2m2menc name=enc ! video/x-fwht ! fakesink")
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
print(message.type, message.parse_error() if message.type == Gst.MessageType.ERROR else "")
stats = pipeline.get_by_name("enc").get_property("stats")
print(*(stats.get_value(name) for name in ("frames-out", "frames-imported", "frames-copied")))
pipeline.set_state(Gst.State.NULL)
"""
    done = run("--cameras", "1", "/usr/bin/python3", "-c", code)
    assert done.stdout.split()[-3:] == [b"20", b"20", b"0"], done.stdout + done.stderr


@pytest.mark.parametrize("size", [(640, 480), (648, 488)], ids=["as it is", "padded"])
def test_upstream_writes_where_the_device_reads(tmp_path, size):
    code = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
mode, width, height, path = sys.argv[1:]
path += "/" + mode
# Who is offered nothing has memory of its own.
between = "identity drop-allocation=true !" if mode == "copied" else ""
mode = "auto" if mode == "copied" else mode
pipeline = Gst.parse_launch(
    f"videotestsrc pattern=ball num-buffers=20 ! video/x-raw,format=NV12,width={width},height={height}"
    f" ! {between} v4l2m2menc name=enc io-mode={mode} ! video/x-fwht ! filesink location={path}")
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
assert message.type == Gst.MessageType.EOS, message.parse_error()
stats = pipeline.get_by_name("enc").get_property("stats")
print(*(stats.get_value(name) for name in ("frames-out", "frames-imported", "frames-copied", "restarts")))
pipeline.set_state(Gst.State.NULL)
"""
    script = 'for mode in copied auto mmap dmabuf; do /usr/bin/python3 -c "$1" "$mode" "$2" "$3" "$UML_RESULTS" || exit; done'
    done = run("--results", tmp_path, "sh", "-c", script, "sh", code, *map(str, size))
    # Coded, read where they were written, copied, new streams. Two pools: the device's own buffers, and a heap's.
    in_place = [20, 20, 0, 0]
    assert [int(word) for word in done.stdout.split()[-16:]] == [20, 0, 20, 0] + 3 * in_place
    if size == (640, 480):
        # Elsewhere the edge is repeated in a copy only.
        copied = (tmp_path / "copied").read_bytes()
        for mode in ("auto", "mmap", "dmabuf"):
            assert (tmp_path / mode).read_bytes() == copied, mode


@pytest.mark.parametrize("options", [(), ("--multiplanar",)], ids=["single-planar", "multi-planar"])
def test_upstreams_buffers_outlive_a_stream(options):
    code = """
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
caps = "video/x-raw,format=NV12,width={},height={}"
pipeline = Gst.parse_launch(
    f"videotestsrc num-buffers=60 ! capsfilter name=size caps={caps.format(640, 480)} ! v4l2m2menc name=enc gop-size=16"
    " ! video/x-fwht ! fakesink name=sink signal-handoffs=true")
size, encoder, sink = (pipeline.get_by_name(name) for name in ("size", "enc", "sink"))
seen = []
def seen_one(sink, buffer, pad):
    seen.append(buffer.pts)
    if len(seen) == 20:
        # A new stream for a keyframe, as the driver takes no requests: what upstream has is of the stream before.
        structure = Gst.Structure.new_from_string("GstForceKeyUnit, all-headers=(boolean)true, count=(uint)1;")
        pad.push_event(Gst.Event.new_custom(Gst.EventType.CUSTOM_UPSTREAM, structure))
    if len(seen) == 40:
        size.set_property("caps", Gst.Caps.from_string(caps.format(1280, 720)))
sink.connect("handoff", seen_one)
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
assert message and message.type == Gst.MessageType.EOS, message and message.parse_error()
stats = encoder.get_property("stats")
print(len(set(seen)), sink.get_static_pad("sink").get_current_caps().get_structure(0).get_value("width"),
      *(stats.get_value(name) for name in ("frames-imported", "frames-copied", "restarts")))
pipeline.set_state(Gst.State.NULL)
"""
    done = run(*options, "/usr/bin/python3", "-c", code)
    frames, width, imported, copied, restarts = (int(word) for word in done.stdout.split()[-5:])
    assert (frames, width, imported + copied, restarts) == (60, 1280, 60, 1), done.stdout
    # Of those that upstream had when the stream began anew.
    assert copied <= 8, done.stdout


def test_nodes_that_are_no_encoder_are_named():
    for device, reason in [("/dev/video1", "nothing of H.264"), ("/dev/video3", "vim2m"), ("/dev/null", "no V4L2 device")]:
        done = run("gst-launch-1.0", "videotestsrc", "!", "v4l2m2menc", f"device={device}", "!", "fakesink", check=False)
        text = (done.stdout + done.stderr).decode()
        assert done.returncode not in (0, 124, 125), text
        assert device in text and reason in text, text


def test_open_and_close_many_times():
    code = """
import os, sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
element = Gst.ElementFactory.make("v4l2m2menc")
counts = []
for _ in range(100):
    assert element.set_state(Gst.State.READY) == Gst.StateChangeReturn.SUCCESS
    assert element.set_state(Gst.State.NULL) == Gst.StateChangeReturn.SUCCESS
    counts.append(len(os.listdir("/proc/self/fd")))
print(counts[4], counts[-1])
"""
    first, last = run("/usr/bin/python3", "-c", code).stdout.split()[-2:]
    assert first == last


def test_the_bench_prints_its_table():
    words = [UML / "bench", "--rounds", "1", "--frames", "5", "--size", "640x480"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| 640x480")]
    assert [row[1].strip() for row in rows[:2]] == ["latency p50", "latency p95"] and len(rows) == 4
    assert all(float(cell) > 0 for row in rows[:2] for cell in row[2:])
    done = subprocess.run([*words[:-1], "1x1"], capture_output=True, text=True, timeout=240)
    assert done.returncode != 0 and "ended with status" in done.stderr
