# SPDX-License-Identifier: MIT OR Apache-2.0
"""Inside gst-rtsp-server, which reads the payloader's statistics to answer PLAY."""

import socket
import struct
import subprocess
import sys

import pytest
from harness.proc import Child, free_port, wait_until

SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=642,height=480,framerate=25/1 "
                   "! jpegenc ! rtpjpegpay-rs name=pay0 )")
server.get_mount_points().add_factory("/camera", factory); server.attach(None)
print("ready", flush=True); GLib.MainLoop().run()
"""


@pytest.fixture
def address(tmp_path):
    port = free_port()
    with Child([sys.executable, "-c", SERVER, port], tmp_path / "server.log") as server:
        wait_until(lambda: "ready" in server.log(), 60, lambda: server.tail())
        yield f"rtsp://127.0.0.1:{port}/camera"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ffmpeg_plays(address, transport, tmp_path, needs):
    needs("ffmpeg")
    argv = ["ffmpeg", "-v", "warning", "-rtsp_transport", transport, "-i", address, "-frames:v", "10", "-f", "framemd5", "-"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90)
    frames = [line.split(",") for line in done.stdout.splitlines() if line.startswith("0,")]
    assert len(frames) == 10, done.stderr[-2000:]


def test_rtp_info_tells_where_the_stream_begins(address):
    """The server takes sequence number and time of its PLAY answer from the payloader's statistics."""
    host, port = address.removeprefix("rtsp://").split("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=90) as connection:
        stream = connection.makefile("rb")

        def ask(number, method, url, *headers):
            lines = [f"{method} {url} RTSP/1.0", f"CSeq: {number}", *headers, "", ""]
            connection.sendall("\r\n".join(lines).encode())
            return answer(stream)

        headers, body = ask(1, "DESCRIBE", address, "Accept: application/sdp")
        assert b"a=x-dimensions:642,480" in body and b"a=framerate:25" in body, body
        control = [line for line in body.decode().splitlines() if line.startswith("a=control:stream")][0].split(":", 1)[1]
        headers, _ = ask(2, "SETUP", f"{address}/{control}", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        session = headers["session"].split(";")[0]
        headers, _ = ask(3, "PLAY", address, f"Session: {session}", "Range: npt=0-")
        info = dict(part.split("=", 1) for part in headers["rtp-info"].split(";")[1:])
        while True:
            magic, channel, length = struct.unpack(">cBH", stream.read(4))
            packet = stream.read(length)
            assert magic == b"$"
            if channel == 0:
                break
        sequence, timestamp = struct.unpack(">HI", packet[2:8])
        # Seconds of a busy machine, of 65536 packets and 13 hours.
        assert (sequence - int(info["seq"])) % 65536 < 2000, (sequence, info)
        assert (timestamp - int(info["rtptime"]) + 90000) % 2**32 < 30 * 90000, (timestamp, info)


def answer(stream):
    assert b" 200 " in stream.readline()
    headers = {}
    while line := stream.readline().strip():
        name, value = line.decode().split(":", 1)
        headers[name.lower()] = value.strip()
    return headers, stream.read(int(headers.get("content-length", 0)))


def test_rtspsrc_gets_the_exact_size(address):
    line = f"gst-launch-1.0 -v rtspsrc location={address} latency=50 ! rtpjpegdepay-rs ! identity eos-after=10 ! jpegdec ! fakesink"
    done = subprocess.run(line.split(), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    caps = [text for text in done.stdout.splitlines() if "RtpJpegDepayRs" in text and "src: caps" in text]
    assert caps and "width=(int)642" in caps[-1] and "height=(int)480" in caps[-1], done.stdout[-3000:]
    assert "framerate=(fraction)25/1" in caps[-1]
