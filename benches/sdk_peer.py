# SPDX-License-Identifier: MIT OR Apache-2.0
"""The peer: LiveKit's own Python SDK and its pre-encoded video source, fed by an appsink.

Its pipeline is followed by `h264parse ! appsink`. A file waits in PAUSED until the track is published, as a careful
application would do; live input starts at once and what comes before the track is published is dropped.
Tells what happens as JSON lines. Address and token come from LIVEKIT_URL and LIVEKIT_TOKEN.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import gi
from livekit import rtc

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

TAIL = " ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=out emit-signals=true sync=true max-buffers=30"


def emit(type_, **fields):
    print(json.dumps({"t": time.monotonic(), "type": type_, **fields}), flush=True)


def force_key_unit():
    structure = Gst.Structure.new_empty("GstForceKeyUnit")
    structure.set_value("all-headers", True)
    return Gst.Event.new_custom(Gst.EventType.CUSTOM_UPSTREAM, structure)


class Feeder:
    def __init__(self, pipeline, source, size):
        self.source, self.size = source, size
        self.published = False
        self.rejected = 0
        self.adapt = None
        self.sink = pipeline.get_by_name("out")
        self.offset = time.monotonic_ns() // 1000
        self.sink.connect("new-sample", self.sample)

    def sample(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        if not self.published:
            return Gst.FlowReturn.OK
        delta = buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
        accepted = self.source.capture_frame(
            rtc.EncodedVideoFrame(
                data=buffer.extract_dup(0, buffer.get_size()),
                width=self.size[0],
                height=self.size[1],
                codec=rtc.VideoCodec.H264,
                frame_type=rtc.EncodedFrameType.ENCODED_FRAME_DELTA if delta else rtc.EncodedFrameType.ENCODED_FRAME_KEY,
                timestamp_us=self.offset + buffer.pts // 1000,
            )
        )
        self.rejected += not accepted
        feedback = self.source.take_feedback()
        if feedback.keyframe_requested:
            self.sink.get_static_pad("sink").push_event(force_key_unit())
        if self.adapt and feedback.rate_control:
            self.adapt.set_property("bitrate", max(1, feedback.rate_control.target_bitrate_bps // 1000))
        return Gst.FlowReturn.OK


def count_key_units(encoder):
    def probe(_pad, info):
        structure = info.get_event().get_structure()
        if structure and structure.get_name() == "GstForceKeyUnit":
            emit("key-unit")
        return Gst.PadProbeReturn.OK

    encoder.get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_UPSTREAM, probe)


async def main(args):
    emit("imported")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    Gst.init(None)
    pipeline = Gst.parse_launch(args.pipeline + TAIL)
    if args.encoder:
        count_key_units(pipeline.get_by_name(args.encoder))
    size = tuple(int(x) for x in args.size.split("x"))
    source = rtc.EncodedVideoSource(*size)
    feeder = Feeder(pipeline, source, size)
    meter = []
    if args.adapt:
        feeder.adapt = pipeline.get_by_name(args.encoder)
    if args.meter:

        def weigh(_pad, info):
            meter.append((time.monotonic(), info.get_buffer().get_size()))
            return Gst.PadProbeReturn.OK

        pipeline.get_by_name(args.encoder).get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, weigh)
    stamps = None
    if args.stamp:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "testing" / "e2e"))
        from harness.feeder import Feeder as Stamps

        stamps = Stamps(pipeline.get_by_name(args.stamp), width=size[0], height=size[1], noise=24)
    pipeline.set_state(Gst.State.PLAYING if args.live else Gst.State.PAUSED)
    if stamps:
        stamps.go()

    def watch():
        wanted = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, wanted)
        if message.type == Gst.MessageType.ERROR:
            emit("error", text=message.parse_error()[0].message)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, daemon=True).start()

    room = rtc.Room()
    await room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    emit("connected")
    track = rtc.LocalVideoTrack.create_video_track("video", source)
    await room.local_participant.publish_track(
        track,
        rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            video_codec=rtc.VideoCodec.H264,
            video_encoder=rtc.VideoEncoderBackend.ENCODER_BACKEND_PRE_ENCODED,
            simulcast=False,
            # Half as much again as the stream has, so that the SDK's own cap is no matter.
            video_encoding=rtc.VideoEncoding(max_bitrate=args.bitrate * 3 // 2, max_framerate=30),
        ),
    )
    emit("published")
    feeder.published = True
    pipeline.set_state(Gst.State.PLAYING)
    await stop.wait()
    if args.meter:
        Path(args.meter).write_text(json.dumps(meter))
    emit("end", rejected=feeder.rejected)
    pipeline.set_state(Gst.State.NULL)
    await room.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080", help="WIDTHxHEIGHT of the pictures")
    parser.add_argument("--bitrate", type=int, default=4_000_000, help="bit/s of the stream")
    parser.add_argument("--live", action="store_true", help="the pipeline is live")
    parser.add_argument("--encoder", help="name of the encoder at which keyframe requests are counted")
    parser.add_argument("--adapt", action="store_true", help="the encoder's property bitrate (kbit/s) follows the SDK's rate control")
    parser.add_argument("--stamp", help="name of an appsrc that is fed with stamped pictures")
    parser.add_argument("--meter", help="file for the times and sizes of what leaves the encoder, as JSON")
    parser.add_argument("pipeline", help="gst-launch description that ends in H.264")
    asyncio.run(main(parser.parse_args()))
