# SPDX-License-Identifier: MIT OR Apache-2.0
"""Files: every container and profile plays, nothing is lost, EOS comes when the room has been left."""

import pytest
from conftest import ENCODER
from harness.checks import assert_whole, sfu_received, too_old
from harness.media import HEIGHT, WIDTH, nal_units
from harness.publisher import EOS_LIMIT

# name -> (file, demuxer or "")
FILES = {
    "mp4-main": ("main_mp4", "! qtdemux"),
    "mp4-high": ("high_mp4", "! qtdemux"),
    "mkv-high": ("high_mkv", "! matroskademux"),
    "bytestream-high": ("high_h264", "! h264parse"),
    "bytestream-baseline": ("baseline_h264", "! h264parse ! video/x-h264,stream-format=byte-stream,alignment=nal"),
    "bytestream-sliced": ("sliced_h264", "! h264parse"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_plays_whole(stage, media, name):
    attribute, demuxer = FILES[name]
    path = getattr(media, attribute)()
    viewer = stage.view()
    publisher = stage.publish(f"filesrc location={path} {demuxer} ! livekitsink name=sink identity=file", keep_open=True)
    feed = viewer.wait_video(publisher="file")
    publisher.wait_for("eos")
    viewer.wait_event("participant_disconnected", detail="file")
    stats = sfu_received(stage.server, stage.room, "file")[0]
    # The GOP is 30 frames: a viewer that is in the room must have caught the second key frame at the latest.
    assert_whole(feed, media.frames - 1, stats, latest_start=30, replays=len(publisher.messages("livekit-gop-replayed")), dropped=too_old(publisher))
    assert stats["packetsLost"] == 0, stats
    # Not the very last arrivals: the server ends a track with empty 2x2 pictures.
    assert {(a.width, a.height) for a in feed.arrivals if a.number is not None} == {(WIDTH, HEIGHT)}
    assert feed.mime.lower() == "video/h264"
    # sync=true: 120 frames at 30/s take as long as they last.
    seconds = [a.at for a in feed.arrivals if a.number is not None][-1] - feed.arrivals[0].at
    expected = (feed.numbers()[-1] - feed.numbers()[0]) / 30
    assert expected / 2 < seconds < expected * 2, f"{seconds:.2f} s instead of {expected:.2f} s"


def test_caps_that_lie_about_alignment(stage, media):
    """Blocks of a file are no NAL units: an error in time. The parser inside the sink must not try to pull once data
    flows either (filesrc could be pulled from): that ends in a thread that waits for itself."""
    path = media.baseline_h264()
    launch = stage.launch(
        f"filesrc location={path} ! video/x-h264,stream-format=byte-stream,alignment=nal,profile=constrained-baseline,framerate=30/1,"
        "width=640,height=360 ! livekitsink identity=file"
    )
    assert launch.wait(60) == 1, launch.tail()
    assert "No H.264 NAL unit found" in launch.log(), launch.tail()
    assert "CRITICAL" not in launch.log(), launch.tail()


def test_test_file_has_parameter_sets_only_once(media):
    """Guards the case above: were they repeated in the file, the sink would have nothing to do."""
    kinds = [kind for kind, _ in nal_units(media.high_h264().read_bytes())]
    assert kinds.count(5) == media.frames // 30 and kinds.count(7) == 1, kinds[:40]


def test_eos_after_the_room_is_left(stage):
    viewer = stage.view()
    publisher = stage.publish(
        f"appsrc name=stamp ! {ENCODER.format(gop=15)} ! livekitsink name=sink identity=file",
        sources={"stamp": {"live": False, "frames": 60}},
        keep_open=True,
    )
    fed = publisher.wait_for("fed")
    eos = publisher.wait_for("eos")
    # Left when EOS is posted: neither the server nor a viewer has the participant any more.
    assert all(p["identity"] != "file" for p in stage.server.participants(stage.room))
    assert publisher.get("sink", "connection-state") == "disconnected"
    gone = viewer.wait_event("participant_disconnected", detail="file")
    assert gone[0] <= eos["t"] + 4 * 1
    # Fed ahead of the clock by the encoder's and appsrc's few frames only.
    assert eos["t"] - fed["t"] < EOS_LIMIT
    feed = viewer.wait_video(publisher="file")
    assert_whole(feed, 59, sfu_received(stage.server, stage.room, "file")[0], latest_start=15, dropped=too_old(publisher))
    assert not publisher.select("error")
    publisher.quit()


def test_file_video_with_live_audio(stage, media):
    viewer = stage.view()
    publisher = stage.publish(
        f"filesrc location={media.main_mp4()} ! qtdemux ! livekitsink name=sink identity=both "
        "audiotestsrc is-live=true wave=sine volume=0.3 ! audioconvert ! opusenc ! sink."
    )
    publisher.wait_published(count=2)
    feed = viewer.wait_video(publisher="both")
    sound = viewer.wait_sound(seconds=1)
    assert sound.mime.lower() == "audio/opus"
    viewer.wait_number(feed, media.frames - 1)
    replays = len(publisher.messages("livekit-gop-replayed"))
    publisher.send_eos()
    publisher.wait_for("eos")
    assert publisher.wait_exit() == 0
    assert_whole(feed, media.frames - 1, sfu_received(stage.server, stage.room, "both")[0], latest_start=60, replays=replays)
