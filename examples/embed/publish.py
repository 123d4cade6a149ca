#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Publishes a test picture into a LiveKit room from a Python program, and says what happens there.

    LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… LIVEKIT_ROOM=workshop python3 examples/embed/publish.py
    LIVEKIT_URL=… python3 examples/embed/publish.py --token-command 'print-a-token --for camera-1'

Needs python3-gi and gir1.2-gstreamer-1.0 (Debian, Ubuntu) and the plugin in GST_PLUGIN_PATH. Ctrl-C ends it.
"""

import shlex
import signal
import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)
loop = GLib.MainLoop()
pipeline = Gst.parse_launch(
    "videotestsrc is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=veryfast bitrate=2000 key-int-max=60 "
    "! livekitsink name=room participant-name=Python video_0::track-name=front"
)
room = pipeline.get_by_name("room")
failed = False

if sys.argv[1:2] == ["--token-command"] and len(sys.argv) == 3:
    # Asked before every attempt to connect, on a thread of its own: an expired token is no problem.
    command = shlex.split(sys.argv[2])
    room.connect("request-token", lambda _sink: subprocess.check_output(command, text=True).strip())
elif len(sys.argv) > 1:
    sys.exit(__doc__)


def on_message(_bus, message):
    global failed
    if message.type == Gst.MessageType.ELEMENT and message.src == room:
        print(message.get_structure().to_string(), flush=True)  # livekit-joined, livekit-published, …
    elif message.type == Gst.MessageType.WARNING:
        print("warning:", message.parse_warning()[0].message, file=sys.stderr)
    elif message.type == Gst.MessageType.ERROR:
        print("error:", message.parse_error()[0].message, file=sys.stderr)
        failed = True
        loop.quit()
    elif message.type == Gst.MessageType.EOS:
        loop.quit()  # comes only after the room is left


def on_ctrl_c():
    print(room.get_property("stats").to_string(), flush=True)
    pipeline.send_event(Gst.Event.new_eos())
    return GLib.SOURCE_CONTINUE


bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", on_message)
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, on_ctrl_c)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit(1 if failed else 0)
