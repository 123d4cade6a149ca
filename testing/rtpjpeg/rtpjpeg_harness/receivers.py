# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that receive what we send: one session for all pictures, told apart by their timestamps."""

import os
import struct
import time

from harness.proc import Child, free_udp_port, wait_until

from .carry import PAYLOADERS, Gst, Outcome, buffer, error_of, jpeg_caps
from .pictures import differs, load, size, size_or

# Longer than anything takes, however busy the machine: waited for only when something is wrong.
LONG = 60

CLOCK_RATE = 90000
# Time between two pictures; every one has a second of its own, so that frames are told apart by whole seconds.
STEP = Gst.SECOND


def session_description(port, fields=""):
    return (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=pictures\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 26\n{fields}"
    )


def waiting(port):
    """Bytes that wait to be taken by whoever has a UDP socket at this port; None without one."""
    wanted = f":{port:04X}"
    for file in ("/proc/net/udp", "/proc/net/udp6"):
        with open(file) as table:
            rows = [line.split() for line in table.readlines()[1:]]
        if found := [int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(wanted)]:
            return max(found)
    return None


def listening(port):
    """Whether a UDP socket is bound to this port."""
    return waiting(port) is not None


def taken(port):
    """Waits until the receiver has taken all that was sent: what it is too busy for now must not run over its buffer."""
    wait_until(lambda: not waiting(port), LONG, "the receiver to take what was sent", interval=0.002)


def send(pay, port, pictures, sink=None, mtu=300):
    """Sends (picture, size) pairs, a few at a time, so that no receive buffer runs over."""
    sink = sink or ("rtpudpsink-rs" if pay == "ours" else "udpsink")
    line = (
        f"appsrc name=in format=time ! {PAYLOADERS[pay]} mtu={mtu} timestamp-offset=0 "
        f"! {sink} name=out host=127.0.0.1 port={port} sync=false"
    )
    pipeline = Gst.parse_launch(line)
    source = pipeline.get_by_name("in")
    pipeline.set_state(Gst.State.PLAYING)
    outcome = Outcome()
    try:
        for number, (picture, size) in enumerate(pictures):
            made = buffer(picture, 0)
            made.pts = number * STEP
            source.set_property("caps", Gst.Caps.from_string(jpeg_caps(size)))
            source.emit("push-buffer", made)
            time.sleep(0.03)
            taken(port)
        source.emit("end-of-stream")
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        assert pipeline.get_bus().timed_pop_filtered(LONG * Gst.SECOND, ends), "no end"
        error_of(pipeline, outcome)
    finally:
        pipeline.set_state(Gst.State.NULL)
    assert not outcome.error, outcome.error


# Sent first: receivers may miss the first picture, and this one, unlike all others in size, tells where they began.
LEAD = ["base420", "self_large"]
# Sent last: when it is there, all are. The one behind it pushes it out of receivers that wait for the next.
TAIL = ["base420", "base420"]


def pictures_in(directory, unit=1):
    """The pictures that a receiver has written so far, by seconds."""
    return {int(path.stem) // unit: path.read_bytes() for path in directory.glob("*.jpg")}


def begin_of(got):
    """How many seconds later the lead-in was sent than its file says; None = it is not there."""
    marks = [number for number, data in got.items() if is_mark(data)]
    return LEAD.index(LEAD[1]) - min(marks) if marks else None


def is_mark(data):
    try:
        return size(data) == size(load(LEAD[1])) and not differs(data, LEAD[1])
    except (AssertionError, IndexError, struct.error):
        # It is just being written.
        return False


def all_there(directory, sent, unit=1):
    """Whether the first of the pictures at the end has been written."""
    got = pictures_in(directory, unit)
    shift = begin_of(got)
    return shift is not None and len(sent) - len(TAIL) - shift in got


def receive_with_ffmpeg(pay, names, directory, fields=""):
    """What FFmpeg makes of the vectors: name -> JPEG, as its RTP receiver put it together; and its log."""
    port = free_udp_port()
    sdp = directory / "ffmpeg.sdp"
    sdp.write_text(session_description(port, fields))
    argv = ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-protocol_whitelist", "file,udp,rtp"]
    argv += ["-analyzeduration", "0", "-probesize", "32", "-buffer_size", "2000000", "-copyts", "-i", sdp]
    argv += ["-c", "copy", "-f", "image2", "-frame_pts", "1", "-enc_time_base", "1:1", directory / "%d.jpg"]
    sent = [*LEAD, *names, *TAIL]
    with Child(argv, directory / "ffmpeg.log") as child:
        wait_until(lambda: listening(port) or child.returncode is not None, LONG, lambda: f"FFmpeg:\n{child.tail()}")
        send(pay, port, [(load(name), size_or(name)) for name in sent])
        wait_until(lambda: all_there(directory, sent, CLOCK_RATE), LONG, lambda: f"the last picture:\n{child.tail()}", interval=0.2)
        child.interrupt()
        child.wait(LONG)
        log = child.log()
    return named(pictures_in(directory, CLOCK_RATE), sent, log), log


def receive_with_live555(pay, names, directory):
    """The same with live555, as VLC does it."""
    port = free_udp_port()
    sent = [*LEAD, *names, *TAIL]
    with Child([os.environ["LIVE555_RECEIVER"], port, directory], directory / "live555.log") as child:
        wait_until(lambda: "ready" in child.log() or child.returncode is not None, LONG, lambda: child.tail())
        send(pay, port, [(load(name), size_or(name)) for name in sent])
        wait_until(lambda: all_there(directory, sent), LONG, lambda: f"the last picture:\n{child.tail()}", interval=0.2)
        assert child.returncode is None, child.tail()
    return named(pictures_in(directory), sent, child.log())


def named(got, sent, log):
    """Pictures by name instead of by seconds."""
    shift = begin_of(got)
    assert shift is not None, f"the lead-in did not arrive:\n{log}"
    return {name: got[number - shift] for number, name in enumerate(sent) if number >= len(LEAD) and number - shift in got}
