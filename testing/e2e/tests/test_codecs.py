# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every codec goes through the real sink and server to a receiver that is not ours; streams may change on the way."""

import pytest
from conftest import ENCODER
from harness.checks import sfu_received
from harness.proc import wait_until

X264 = ENCODER.format(gop=60)
VP8 = "vp8enc name=enc deadline=1 cpu-used=8 target-bitrate=800000 keyframe-max-dist=60 lag-in-frames=0"
VP9 = VP8.replace("vp8enc", "vp9enc")
AV1 = "av1enc name=enc usage-profile=realtime cpu-used=10 target-bitrate=800 keyframe-max-dist=30 lag-in-frames=0"
SMALL = {"fps": 15, "width": 320, "height": 192}


def publish(stage, encoder, source=SMALL, sink="identity=camera", **kw):
    # I420: VP9 in 4:4:4 is what the encoder makes of other input, and no viewer takes it.
    return stage.publish(
        f"appsrc name=stamp ! video/x-raw,format=I420 ! {encoder} ! livekitsink name=sink {sink}",
        sources={"stamp": source},
        keyunit=["enc"],
        **kw,
    )


def assert_moving(feed, size=(320, 192)):
    """The pictures are ours: stamps read, in order, in the right size."""
    numbers = feed.numbers()
    assert numbers == sorted(numbers) and numbers[-1] > numbers[0], numbers
    report = feed.report()
    assert report["unreadable"] == 0, report
    assert (feed.arrivals[-1].width, feed.arrivals[-1].height) == size


@pytest.mark.parametrize(
    "name, encoder",
    [("h264", X264), ("vp8", VP8), ("vp9", VP9), ("av1", AV1)],
)
def test_codec_is_shown(stage, name, encoder):
    viewer = stage.view()
    publisher = publish(stage, encoder)
    published = publisher.wait_published()["fields"]
    assert published["mime-type"].lower() == f"video/{name}"
    feed = viewer.wait_video(frames=30)
    assert feed.mime.lower() == f"video/{name}"
    assert_moving(feed)
    # What the viewer decoded, by its own statistics: nothing on the way made another codec of it.
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert track["mime_type"].lower() == f"video/{name}" and (track["width"], track["height"]) == (320, 192)
    publisher.send_eos()
    publisher.wait_for("eos")
    assert sfu_received(stage.server, stage.room, "camera", mime=f"video/{name}")[0]["packetsLost"] == 0


@pytest.mark.parametrize("profile", ["constrained-baseline", "baseline", "main", "high"])
def test_h264_profile_is_named_in_the_sdp_and_shown(stage, profile):
    viewer = stage.view()
    publish(stage, f"{X264.replace('ultrafast', 'veryfast')} ! video/x-h264,profile={profile}")
    feed = viewer.wait_video(frames=30)
    assert_moving(feed)
