# SPDX-License-Identifier: MIT OR Apache-2.0
"""A live encoder: the picture arrives whole and fresh; late viewers, several viewers, pads that come and go."""

import re
import socket

import pytest
from conftest import ENCODER
from harness.checks import DELAY_LIMIT_MS, assert_decoded, assert_whole, sfu_received, too_old
from harness.proc import PATIENCE, free_port, wait_until
from test_leave import TO_NULL

# Late joiner: the goal is 0.24 s from connecting to the first picture, most of it the viewer's own time, which a busy machine
# stretches; of its own accord the encoder makes a keyframe in more than a minute.
LATE_JOINER_LIMIT = 3.0
FIVE_JOINERS_LIMIT = 1.5 * 4
# A live pipeline plays at once; four times a second is at once.
PLAYS_AT_ONCE = 1.0 * 4
# "Five joiners at once: at most 3 requests at the encoder", loosely bounded by the same factor.
FIVE_JOINERS_REQUESTS = 3 * 4


def test_live_encoder(stage):
    viewer = stage.view()
    publisher = stage.live()
    joined = publisher.wait_joined()["fields"]
    assert joined["identity"] == "camera" and joined["room"] == stage.room
    assert joined["participant-sid"].startswith("PA_") and joined["room-sid"].startswith("RM_")
    published = publisher.wait_published()["fields"]
    assert published["track-sid"].startswith("TR_") and published["mime-type"].lower() == "video/h264"
    feed = viewer.wait_video(frames=90)
    assert feed.sid == published["track-sid"]
    assert publisher.get("sink", "connection-state") == "connected"
    last = feed.numbers()[-1]
    report = feed.report()
    assert report["median_delay_ms"] < DELAY_LIMIT_MS, report
    dropped = too_old(publisher)
    publisher.send_eos()
    publisher.wait_for("eos")
    assert publisher.wait_exit() == 0
    stats = sfu_received(stage.server, stage.room, "camera")[0]
    assert stats["packetsLost"] == 0, stats
    assert_whole(feed, last, stats, latest_start=last, dropped=dropped)
    # A live pipeline never waits for the network: PLAYING at once, not after the join.
    playing = publisher.wait_for("state", state="playing", may_end=True)["t"]
    started = publisher.select("started")[0]["t"]
    assert playing - started < PLAYS_AT_ONCE, f"PLAYING after {playing - started:.2f} s"


def test_live_pipeline_plays_without_a_server(stage):
    """…and so it does when nobody answers."""
    publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{free_port()}")
    playing = publisher.wait_for("state", state="playing")["t"]
    assert playing - publisher.select("started")[0]["t"] < PLAYS_AT_ONCE


def test_gap_is_noticed(stage):
    """The measure measures: frames taken out before the encoder are reported missing, with their numbers."""
    viewer = stage.view()
    publisher = stage.live()
    feed = viewer.wait_video(frames=30)
    gap = 70
    publisher.run(f"feeders['stamp'].number += {gap}")
    seen = feed.numbers()[-1]
    viewer.wait_number(feed, seen + gap + 30)
    # The SDK may have passed over a few others, too.
    missing = set(feed.report()["missing"])
    assert any(missing.issuperset(range(n, n + gap)) for n in missing), sorted(missing)
    with pytest.raises(AssertionError):
        assert_whole(feed, feed.numbers()[-1], {"packetsLost": 0, "frames": len(feed.arrivals)}, latest_start=10**6)


def test_late_joiner_gets_a_key_frame(stage):
    """Of three, the quickest counts: of its own accord the encoder makes one in more than a minute."""
    publisher = stage.live(gop=3000)
    publisher.wait_published()
    stage.view("first").wait_video(frames=45)
    took = []
    for n in range(3):
        late = stage.view(f"late-{n}")
        took.append(late.wait_video().arrivals[0].at - late.started)
    assert min(took) < LATE_JOINER_LIMIT, f"{took} s from connecting to the first picture"
    units = publisher.select("key-unit")
    assert units and all(u["all-headers"] for u in units), units
    assert any(m["forwarded"] for m in publisher.messages("livekit-keyframe-request"))


@pytest.mark.slow
def test_five_joiners_at_once(stage):
    # One viewer keeps the server forwarding, so that what is counted are the five.
    publisher = stage.live(gop=3000)
    stage.view("first").wait_video(frames=45)
    before = len(publisher.select("key-unit"))
    joiners = [stage.view(f"viewer-{n}", wait=False) for n in range(5)]
    for joiner in joiners:
        joiner.wait_connected()
    slowest = max(j.wait_video().arrivals[0].at - j.connected_at for j in joiners)
    assert slowest < FIVE_JOINERS_LIMIT, f"the last picture came after {slowest:.2f} s"
    requests = len(publisher.select("key-unit")) - before
    assert 1 <= requests <= FIVE_JOINERS_REQUESTS, f"{requests} key frame requests reached the encoder"


def test_pads_come_and_go_while_playing(stage):
    viewer = stage.view()
    publisher = stage.live()
    one = viewer.wait_video(frames=15)
    publisher.run(f"""
branch = Gst.parse_bin_from_description("appsrc name=stamp2 ! {ENCODER.format(gop=30).replace("name=enc", "name=enc2")}", True)
branch.set_name("branch")
pipeline.add(branch)
sink = pipeline.get_by_name("sink")
pad = sink.get_request_pad("video_%u")
branch.get_static_pad("src").link(pad)
add_feeder(branch.get_by_name("stamp2"), width=320, height=192)
branch.sync_state_with_parent()
result = pad.get_name()
""")
    second = publisher.wait_published(count=2)["fields"]
    two = viewer.wait_video(second["track-name"], frames=30)
    assert (two.arrivals[-1].width, two.arrivals[-1].height) == (320, 192)
    publisher.run(f"""
branch = pipeline.get_by_name("branch")
sink = pipeline.get_by_name("sink")
pad = sink.get_static_pad({second["pad"]!r})
source = pad.get_peer()
source.add_probe(Gst.PadProbeType.IDLE, lambda *_: Gst.PadProbeReturn.REMOVE)
feeders["stamp2"].stop()
branch.set_state(Gst.State.NULL)
source.unlink(pad)
sink.release_request_pad(pad)
pipeline.remove(branch)
""")
    gone = publisher.wait_for("element", "livekit-unpublished")["fields"]
    assert gone["track-sid"] == two.sid
    wait_until(lambda: two.ended, PATIENCE, "the viewer to lose the second track")
    seen = one.numbers()[-1]
    viewer.wait_number(one, seen + 30)
    assert_decoded(viewer, one)


def test_two_video_tracks_from_one_bin(stage):
    viewer = stage.view()
    second = ENCODER.format(gop=30).replace("name=enc", "name=enc2")
    publisher = stage.publish(
        f"appsrc name=stamp ! {ENCODER.format(gop=30)} ! sink.video_0 appsrc name=stamp2 ! {second} ! sink.video_1 "
        "livekitsink name=sink identity=two video_0::track-name=front video_1::track-name=back video_1::source=screen-share",
        sources={"stamp": {"fps": 15}, "stamp2": {"fps": 15, "width": 320, "height": 192, "start": 5000}},
    )
    publisher.wait_published(count=2)
    front, back = viewer.wait_video("front", frames=30), viewer.wait_video("back", frames=30)
    assert front.numbers()[-1] < 5000 <= back.numbers()[0], "the tracks are mixed up"
    assert (front.arrivals[-1].width, back.arrivals[-1].width) == (640, 320)
    tracks = {t["name"]: t for t in stage.server.wait_participant(stage.room, "two", tracks=2)["tracks"]}
    assert tracks["front"]["source"] == "CAMERA" and tracks["back"]["source"] == "SCREEN_SHARE"
    assert (tracks["front"]["width"], tracks["front"]["height"]) == (640, 360)
    assert_decoded(viewer, front)
    assert_decoded(viewer, back)


def test_participant_as_described(stage):
    publisher = stage.live(sink='identity=cam participant-name="Front door" metadata=roof attributes="a,site=(string)north,floor=(string)2"')
    publisher.wait_published()
    p = stage.server.wait_participant(stage.room, "cam", tracks=1)
    assert (p["name"], p["metadata"]) == ("Front door", "roof")
    assert p["attributes"] == {"site": "north", "floor": "2"}


def test_default_identity(stage):
    publisher = stage.live(sink="")
    identity = publisher.wait_joined()["fields"]["identity"]
    assert re.fullmatch(r"gst-.+-[0-9a-f]{8}", identity), identity


def test_others_are_reported(stage):
    publisher = stage.live()
    publisher.wait_published()
    viewer = stage.view("guest")
    assert publisher.wait_for("element", "livekit-participant-joined", identity="guest")
    viewer.close()
    assert publisher.wait_for("element", "livekit-participant-left", identity="guest")


def test_stats(stage):
    publisher = stage.live()
    viewer = stage.view()
    viewer.wait_video(frames=30)
    stats = publisher.get("sink", "stats")
    assert stats and stats["fields"], stats


def test_interrupted_with_e_flag_leaves_the_room(stage):
    """Ctrl-C on `gst-launch-1.0 -e`: EOS travels through and the room is left, not dropped."""
    launch = stage.launch(
        "videotestsrc is-live=true ! video/x-raw,width=640,height=360 ! x264enc tune=zerolatency speed-preset=ultrafast ! livekitsink identity=cli",
        flags=("-e", "-m"),
    )
    viewer = stage.view()
    viewer.wait_video(publisher="cli", frames=10)
    launch.interrupt()
    assert launch.wait(PATIENCE) == 0, launch.tail()
    # One that was dropped would stay for longer.
    viewer.wait_event("participant_disconnected", detail="cli", timeout=10)


def test_state_to_null_while_joining(stage):
    """A server that accepts the connection and never answers must not hold the application."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{mute.getsockname()[1]}")
        publisher.wait_for("state", state="playing")
        publisher.wait_for("element", "livekit-connecting")
        wait_until(lambda: publisher.run("result = feeders['stamp'].number") > 15, PATIENCE, "a few pictures")
        assert publisher.quit() < TO_NULL
        assert publisher.child.returncode == 0, publisher.summary()


def test_state_to_null_while_a_file_waits(stage, media):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        publisher = stage.publish(f"filesrc location={media.main_mp4()} ! qtdemux ! livekitsink name=sink url=ws://127.0.0.1:{mute.getsockname()[1]}")
        publisher.wait_for("element", "livekit-connecting")
        wait_until(lambda: publisher.run("result = pipeline.get_by_name('sink').get_static_pad('video_0') is not None"), PATIENCE, "the file's first data")
        # Nothing of a file is played while joining: the change of state stays under way.
        states = publisher.run("pipeline.get_state(Gst.SECOND); result = [x.value_nick for x in pipeline.get_state(0)]")
        assert states == ["async", "ready", "playing"] or states[:2] == ["async", "paused"], states
        assert publisher.quit() < TO_NULL
        assert publisher.child.returncode == 0, publisher.summary()


def test_restart_in_the_same_process(stage):
    viewer = stage.view()
    publisher = stage.live(keep_open=True)
    viewer.wait_video(frames=10)
    publisher.run("pipeline.set_state(Gst.State.NULL)")
    stage.server.wait_gone(stage.room, "camera")
    publisher.run("""
feeders["stamp"].stop()
pipeline.set_state(Gst.State.READY)
add_feeder(pipeline.get_by_name("stamp"), start=7000)
pipeline.set_state(Gst.State.PLAYING)
""")
    publisher.wait_published(count=2)
    wait_until(lambda: any(7000 <= n for f in viewer.video for n in f.numbers()), PATIENCE, "pictures of the second run")


