# SPDX-License-Identifier: MIT OR Apache-2.0
"""Nobody watching, and muted: nothing is sent, the encoder knows, and the picture is back at once."""

import time
import urllib.error

import pytest
from conftest import ENCODER, Stage
from harness.checks import DELAY_LIMIT_MS
from harness.proc import PATIENCE, wait_until
from harness.server import LiveKitServer

# Goals: told to idle within 7 s, the viewer's first picture 0.5 s after that at most; tests use four times a goal.
IDLE_LIMIT = 7 * 4
AWAKE_LIMIT = 0.5 * 4


def sent(publisher, pad="video_0"):
    return publisher.get("sink", "stats")["fields"][pad]["fields"]


def track(server, room):
    return server.wait_participant(room, "camera", tracks=1)["tracks"][0]


def target(publisher, active, reason, count=1):
    return publisher.wait_for("element", "livekit-target-bitrate", active=active, reason=reason, count=count, timeout=IDLE_LIMIT)


def mute(publisher, muted):
    publisher.run(f"pipeline.get_by_name('sink').get_static_pad('video_0').set_property('muted', {muted})")


def is_muted(publisher):
    return publisher.run("result = pipeline.get_by_name('sink').get_static_pad('video_0').get_property('muted')")


def assert_stands_still(publisher, seconds=0.5):
    before = sent(publisher)["frames-sent"]
    made = publisher.run("result = feeders['stamp'].number")
    wait_until(lambda: publisher.run("result = feeders['stamp'].number") >= made + 30 * seconds, PATIENCE, "the source to go on")
    assert sent(publisher)["frames-sent"] == before


def test_the_encoder_idles_until_somebody_watches(stage):
    publisher = stage.live(gop=300)
    published = publisher.wait_published()["t"]
    idle = target(publisher, False, "unwatched")
    assert idle["t"] - published < IDLE_LIMIT, f"{idle['t'] - published:.1f} s"
    assert_stands_still(publisher)
    wait_until(lambda: sent(publisher)["dropped-unwatched"] >= 15, PATIENCE, publisher.summary)
    requests = len(publisher.select("key-unit"))
    viewer = stage.view()
    feed = viewer.wait_video(frames=30)
    first = feed.arrivals[0].at - viewer.connected_at
    assert first < AWAKE_LIMIT, f"{first:.2f} s from joining to the first picture"
    assert len(publisher.select("key-unit")) > requests, "the first picture is a key frame that was asked for"
    assert target(publisher, True, "resumed")
    assert not [a for a in feed.arrivals[10:] if a.number is None], feed.report()
    assert feed.report()["median_delay_ms"] < DELAY_LIMIT_MS, feed.report()
    left = time.monotonic()
    viewer.close()
    again = target(publisher, False, "unwatched", count=2)
    assert again["t"] - left < IDLE_LIMIT, f"{again['t'] - left:.1f} s after the last viewer left"
    # What the requests of somebody who left would cost: none reaches the encoder now.
    requests = len(publisher.select("key-unit"))
    assert_stands_still(publisher)
    assert len(publisher.select("key-unit")) == requests


def test_who_is_there_first_is_never_kept_waiting(stage):
    """A viewer in the room from the start: the encoder is never told to idle."""
    viewer = stage.view()
    publisher = stage.live()
    feed = viewer.wait_video(frames=30)
    # Well beyond the time after which silence means nobody.
    viewer.wait_number(feed, feed.numbers()[-1] + 180)
    assert not [m for m in publisher.messages("livekit-target-bitrate") if not m["active"]]
    assert sent(publisher)["dropped-unwatched"] == 0
    assert not feed.report()["unreadable"]


def test_mute_and_unmute_from_the_pipeline(stage):
    viewer = stage.view()
    publisher = stage.live(gop=300)
    feed = viewer.wait_video(frames=30)
    mute(publisher, True)
    assert target(publisher, False, "muted")
    viewer.wait_event("track_muted")
    assert publisher.wait_for("element", "livekit-muted", muted=True)["fields"] == {"pad": "video_0", "muted": True, "by-server": False}
    assert track(stage.server, stage.room)["muted"]
    assert_stands_still(publisher)
    wait_until(lambda: sent(publisher)["dropped-muted"] >= 15, PATIENCE, publisher.summary)
    seen = len(feed.arrivals)
    requests = len(publisher.select("key-unit"))
    mute(publisher, False)
    viewer.wait_event("track_unmuted")
    assert target(publisher, True, "resumed")
    wait_until(lambda: len(feed.arrivals) >= seen + 30, PATIENCE, "pictures after unmuting")
    assert len(publisher.select("key-unit")) > requests
    # Of a muted track the server itself sends a few pictures that are not ours; our first one may be as coarse as an
    # encoder makes it that has just been woken.
    assert not [a for a in feed.arrivals[seen + 10 :] if a.number is None], feed.report()
    assert not track(stage.server, stage.room).get("muted")


def test_muted_from_the_start(stage):
    viewer = stage.view()
    publisher = stage.live(sink="identity=camera muted=true", gop=300)
    publisher.wait_published()
    assert target(publisher, False, "muted")
    assert track(stage.server, stage.room)["muted"]
    assert_stands_still(publisher)
    assert sent(publisher)["frames-sent"] == 0 and not any(feed.arrivals for feed in viewer.video)
    publisher.run("pipeline.get_by_name('sink').set_property('muted', False)")
    feed = viewer.wait_video(frames=30)
    assert not [a for a in feed.arrivals[10:] if a.number is None], feed.report()
    assert not is_muted(publisher)


def test_sound_is_muted_too(stage):
    viewer = stage.view()
    publisher = stage.publish("audiotestsrc is-live=true ! opusenc ! livekitsink name=sink identity=camera")
    feed = viewer.wait_sound()
    pad = "pipeline.get_by_name('sink').get_static_pad('audio_0')"
    publisher.run(f"{pad}.set_property('muted', True)")
    viewer.wait_event("track_muted")
    wait_until(lambda: sent(publisher, "audio_0")["dropped-muted"] >= 25, PATIENCE, "half a second without sound")
    loud = feed.loud_samples
    publisher.run(f"{pad}.set_property('muted', False)")
    viewer.wait_event("track_unmuted")
    wait_until(lambda: feed.loud_samples > loud + feed.rate // 2, PATIENCE, "the sound to be back")


def server_mutes(server, room, muted):
    server.api("MutePublishedTrack", room=room, identity="camera", trackSid=track(server, room)["sid"], muted=muted)


def test_the_room_mutes(stage):
    viewer = stage.view()
    publisher = stage.live(gop=300)
    feed = viewer.wait_video(frames=30)
    server_mutes(stage.server, stage.room, True)
    assert publisher.wait_for("element", "livekit-muted")["fields"] == {"pad": "video_0", "muted": True, "by-server": True}
    assert target(publisher, False, "muted")
    wait_until(lambda: is_muted(publisher), PATIENCE, "the pad to know that it is muted")
    assert_stands_still(publisher)
    # This server lets nobody unmute others; the pipeline itself may.
    with pytest.raises(urllib.error.HTTPError):
        server_mutes(stage.server, stage.room, False)
    assert is_muted(publisher)
    seen = len(feed.arrivals)
    mute(publisher, False)
    wait_until(lambda: len(feed.arrivals) >= seen + 30, PATIENCE, "pictures after unmuting")
    assert not track(stage.server, stage.room).get("muted")


def test_the_room_unmutes_where_the_server_lets_it(tmp_path, room):
    with LiveKitServer(tmp_path, more="room:\n  enable_remote_unmute: true\n") as server:
        stage = Stage(server, room, tmp_path)
        try:
            viewer = stage.view()
            publisher = stage.live(pipeline=f"appsrc name=stamp ! {ENCODER.format(gop=300)} ! livekitsink name=sink identity=camera muted=true")
            publisher.wait_published()
            target(publisher, False, "muted")
            assert not any(feed.arrivals for feed in viewer.video)
            server_mutes(server, room, False)
            assert publisher.wait_for("element", "livekit-muted", muted=False)["fields"]["by-server"]
            viewer.wait_video(frames=30)
            wait_until(lambda: not is_muted(publisher), PATIENCE, "the pad to know that it is no longer muted")
        finally:
            stage.close()
