# SPDX-License-Identifier: MIT OR Apache-2.0
"""The plugin as a file, and its README: described completely, loads on the promised GStreamer, pipelines run as they stand there."""

import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from harness.proc import Child, wait_until
from rtpjpeg_harness.receivers import listening
from rtpjpeg_harness.streamer import even_port

REPO = Path(__file__).resolve().parents[3]
README = (REPO / "plugins" / "gst-plugin-rtpjpeg" / "README.md").read_text()
BLOCK = re.compile(r"(?:<!-- run: (\S+) -->\n)?```(\w+)\n(.*?)```", re.S)
BLOCKS = [match.groups() for match in BLOCK.finditer(README)]
OLDEST = (1, 20)
C_NAME = "{http://www.gtk.org/introspection/c/1.0}identifier"


def library():
    for folder in os.environ.get("GST_PLUGIN_PATH", "").split(":"):
        path = Path(folder) / "libgstrtpjpeg.so"
        if folder and path.exists():
            return path
    raise AssertionError("GST_PLUGIN_PATH has no libgstrtpjpeg.so")


def test_no_symbol_newer_than_the_oldest_gstreamer():
    versions = {}
    for file in Path("/usr/share/gir-1.0").glob("Gst*-1.0.gir"):
        for node in ET.parse(file).getroot().iter():
            since = node.get("version") or ""
            if node.get(C_NAME) and re.fullmatch(r"\d+\.\d+(\.\d+)?", since):
                versions[node.get(C_NAME)] = tuple(map(int, since.split(".")))[:2]
    assert versions["gst_rtp_base_payload_set_outcaps_structure"] == (1, 20), "the GIR files are not what this test thinks"
    out = subprocess.run(["nm", "-D", "--undefined-only", library()], capture_output=True, text=True, check=True).stdout
    ours = {name for line in out.splitlines() if (name := line.split()[-1].split("@")[0]).startswith("gst_")}
    assert len(ours) > 30, sorted(ours)
    newer = {name: versions[name] for name in ours if versions.get(name, (1, 0)) > OLDEST}
    assert not newer, f"newer than GStreamer {OLDEST}: {newer}"


@pytest.mark.parametrize("element", ["rtpjpegpay-rs", "rtpjpegdepay-rs", "rtpudpsink-rs"])
def test_inspect_describes_everything(element):
    out = subprocess.run(["gst-inspect-1.0", element], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Long-name" in out and "Pad Templates" in out
    # A property without a blurb shows nothing behind its colon.
    assert not re.findall(r"^  (\S+)\s*:\s*$", out, re.M)


def test_every_pipeline_is_marked():
    """A gst-launch line that nobody runs is one that stops working."""
    assert not [text for mark, language, text in BLOCKS if language == "sh" and "gst-launch-1.0" in text and not mark]
    assert sorted({mark for mark, *_ in BLOCKS if mark}) == ["receive", "sdp", "send"]


def runnable(text, port):
    """The line with what this machine lacks replaced, everything else as it stands."""
    text = re.sub(
        r"v4l2src device=\S+ ! image/jpeg,width=(\d+),height=(\d+)",
        r"videotestsrc is-live=true ! video/x-raw,format=I420,width=\1,height=\2 ! jpegenc",
        text,
    )
    text = text.replace("192.0.2.10", "127.0.0.1").replace("autovideosink", "fakesink name=screen")
    return re.sub(r"port=5001\b", f"port={port + 1}", re.sub(r"port=5000\b", f"port={port}", text))


RECEIVER = next(text for mark, _, text in BLOCKS if mark == "receive")
SENDERS = [text for mark, _, text in BLOCKS if mark == "send"]


@pytest.mark.parametrize("text", SENDERS, ids=range(len(SENDERS)))
def test_readme_sender_and_receiver(text, tmp_path):
    """The receiver's line shows the picture of each sender's line."""
    port = even_port()
    shown = runnable(RECEIVER, port).replace("gst-launch-1.0", "exec gst-launch-1.0 -v").replace("name=screen", "name=screen silent=false")
    with Child(["sh", "-c", shown], tmp_path / "receiver.log") as receiver:
        wait_until(lambda: listening(port), 60, lambda: receiver.tail())
        with Child(["sh", "-c", runnable(text, port).replace("gst-launch-1.0", "exec gst-launch-1.0")], tmp_path / "sender.log") as sender:
            wait_until(lambda: receiver.log().count("chain") > 20, 60, lambda: f"{sender.tail()}\n{receiver.tail()}")
            assert sender.returncode is None
            sender.process.send_signal(signal.SIGINT)
            assert sender.wait(60) == 0, sender.tail()
            assert "WARNING" not in sender.log() and "ERROR" not in sender.log(), sender.tail()


def test_readme_session_description(tmp_path, needs):
    """What `ffplay` gets in the README, FFmpeg decodes."""
    needs("ffmpeg")
    text = next(text for mark, _, text in BLOCKS if mark == "sdp")
    port = even_port()
    printf = text.splitlines()[0].replace("video 5000", f"video {port}")
    subprocess.run(["sh", "-c", printf], cwd=tmp_path, check=True)
    argv = ["ffmpeg", "-v", "warning", "-protocol_whitelist", "file,udp,rtp", "-fflags", "nobuffer", "-i", "camera.sdp"]
    argv += ["-frames:v", "15", "-f", "framemd5", "-"]
    with Child(argv, tmp_path / "ffmpeg.log", cwd=tmp_path) as ffmpeg:
        wait_until(lambda: listening(port), 60, lambda: ffmpeg.tail())
        sender = runnable(SENDERS[0], port).replace("gst-launch-1.0", "exec gst-launch-1.0")
        with Child(["sh", "-c", sender], tmp_path / "sender.log"):
            assert ffmpeg.wait(60) == 0, ffmpeg.tail()
    frames = [line.split(",") for line in ffmpeg.log().splitlines() if line.startswith("0,")]
    assert len(frames) == 15 and {int(frame[4]) for frame in frames} == {1280 * 720 * 3 // 2}
    # The ball moves: not one picture again and again.
    assert len({frame[5] for frame in frames}) > 10
