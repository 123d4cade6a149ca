# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sound and picture stay together, capture times arrive, and a rate that changes freezes nothing."""

import json
import os
import statistics
import subprocess
import time

import pytest
from conftest import ENCODER
from harness.checks import assert_decoded, assert_none_lost_on_our_way
from harness.proc import PATIENCE, wait_until
from test_browser import BROWSER

FLASH = "from harness.flasher import Flasher\nrunner.flasher = Flasher(pipeline.get_by_name('flash'){})"
X264 = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=500 key-int-max=300"
BEEP = "audiotestsrc is-live=true wave=ticks freq=1000 sine-periods-per-tick=100 volume=0.8 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! sink."


def watch(stage, timeout=90, **options):
    """Flashes, beeps and delays as Chromium has them; the report of browser/sync.mjs."""
    options = {"url": stage.server.url, "token": stage.server.token(stage.room, "chromium"), **options}
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
    done = subprocess.run(["node", "sync.mjs", json.dumps(options)], cwd=BROWSER, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.stdout.startswith("{"), f"no report:\n{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    print(report)
    return report


@pytest.mark.slow
def test_sound_and_picture_are_in_step_though_the_picture_comes_late(stage):
    """400 ms between encoder and pad: receivers know from the sender reports what belongs together. The goal is 40 ms."""
    # Only in such a room does the server tell browsers that the tracks belong together.
    stage.server.api("CreateRoom", name=stage.room, sync_streams=True)
    publisher = stage.publish(
        f"appsrc name=flash ! {X264} ! queue min-threshold-time=400000000 max-size-buffers=0 ! livekitsink name=sink identity=camera {BEEP}",
        start=FLASH.format(""),
    )
    publisher.wait_published(count=2)
    # Chromium gets there by steps of 80 ms at most, a second apart and smaller towards the end.
    report = watch(stage, seconds=40, settle=30)
    assert report["ok"], f"{report}\n{publisher.summary()}"
    offset = statistics.median(report["offsets"])
    print(f"lip sync: picture {offset:.1f} ms after sound, {report['offsets']}")
    assert len(report["offsets"]) >= 5 and abs(offset) < 4 * 40, report


@pytest.mark.slow
@pytest.mark.parametrize("meta_ms", [None, 2000])
def test_the_viewer_page_knows_the_age_of_a_picture(stage, meta_ms):
    """By the running time; or by the time that the source says, if it says one."""
    publisher = stage.publish(f"appsrc name=flash ! {X264} ! livekitsink name=sink identity=camera", start=FLASH.format(f", meta_ms={meta_ms}"))
    publisher.wait_published()
    report = watch(stage, seconds=12, settle=0, audio=False)
    assert report["ok"] and report["delays"], f"{report}\n{publisher.summary()}"
    delay = statistics.median(report["delays"])
    print(f"glass to glass: {delay:.0f} ms")
    assert (meta_ms or 0) < delay < (meta_ms or 0) + 4 * 150, report


@pytest.mark.slow
@pytest.mark.parametrize("understood", [True, False], ids=["understood", "not-understood"])
def test_the_capture_time_behind_the_frame(stage, understood):
    """LiveKit's JavaScript client reads it; from one that does not know it, the server keeps it away."""
    publisher = stage.publish(
        f"appsrc name=flash ! {X264} ! livekitsink name=sink identity=camera capture-trailer=true", start=FLASH.format(", meta_ms=3000")
    )
    publisher.wait_published()
    report = watch(stage, seconds=10, settle=0, audio=False, trailer=understood)
    assert report["ok"], f"{report}\n{publisher.summary()}"
    if understood:
        assert len(report["trailers"]) == 20 and 3000 < statistics.median(report["trailers"]) < 3000 + 4 * 150, report
    else:
        assert report["trailers"] == [] and report["flashes"] >= 5, report


def test_a_rate_that_falls_and_rises_freezes_nothing(stage):
    """A camera in the dark: 30, 5, 1 and again 30 pictures a second. Each comes when it is made."""
    viewer = stage.view()
    publisher = stage.live(gop=300)
    publisher.wait_published()
    feed = viewer.wait_video(frames=30)
    first = feed.numbers()[-1]
    for fps, seconds in ((5, 4), (1, 5), (30, 4)):
        publisher.run(f"feeders['stamp'].set_rate({fps})")
        begin = time.monotonic()
        time.sleep(seconds)
        recent = [a for a in feed.arrivals if a.at > begin + 1.2]
        assert len(recent) >= (seconds - 1.2) * fps / 4, f"{len(recent)} pictures at {fps} fps"
        assert statistics.median(a.delay_ms for a in recent) < 4 * 150
    last = publisher.run("result = feeders['stamp'].number - 1")
    viewer.wait_number(feed, last)
    report = feed.report(first, last)
    assert report["unreadable"] == 0 and report["out_of_order"] == 0, report
    assert_decoded(viewer, feed, first, last)
    # Nobody took a gap for a loss.
    assert publisher.get("sink", "stats")["fields"]["video_0"]["fields"]["frames-dropped"] < 60


def test_pictures_dropped_before_the_encoder_freeze_nothing(stage):
    viewer = stage.view()
    publisher = stage.live(f"appsrc name=stamp ! identity name=lossy drop-probability=0.4 ! {ENCODER.format(gop=300)} ! livekitsink name=sink identity=camera")
    publisher.wait_published()
    feed = viewer.wait_video(frames=150)
    report = feed.report()
    assert report["unreadable"] == 0 and report["out_of_order"] == 0, report
    assert report["largest_gap_s"] < 2, report
    track = lambda: publisher.get("sink", "stats")["fields"]["video_0"]["fields"]
    decoded = lambda: viewer.inbound(feed)["frames_decoded"]
    begin, sent = decoded(), track()["frames-sent"]
    wait_until(lambda: track()["frames-sent"] >= sent + 60, PATIENCE, "the source to go on")
    sent = track()["frames-sent"] - sent
    # All of them, but for those that were on their way at the beginning.
    wait_until(lambda: decoded() >= begin + sent, 5, lambda: f"{sent} pictures; decoded were {decoded() - begin}")
    wait_until(lambda: track()["keyframe-requests"] < 10, 1, f"few requests; {track()}")


def test_another_clock_in_mid_stream(stage):
    """What an application does when its clock is lost (a microphone is unplugged): PAUSED, another clock, PLAYING."""
    viewer = stage.view()
    publisher = stage.live(gop=300)
    publisher.wait_published()
    feed = viewer.wait_video(frames=30)
    publisher.run(
        "from gi.repository import GObject\n"
        "runner.clock = GObject.new(Gst.SystemClock, clock_type=Gst.ClockType.REALTIME)\n"
        "pipeline.set_state(Gst.State.PAUSED)\n"
        "pipeline.use_clock(runner.clock)\n"
        "pipeline.set_state(Gst.State.PLAYING)\n"
    )
    begin = time.monotonic()
    after = lambda: [a for a in feed.arrivals if a.at > begin + 1]
    wait_until(lambda: len(after()) >= 60, PATIENCE, lambda: f"pictures after the change; have {len(after())}\n{publisher.summary()}")
    report = feed.report()
    assert report["unreadable"] == 0 and report["out_of_order"] == 0 and report["largest_gap_s"] < 2, report
    assert statistics.median(a.delay_ms for a in after()) < 4 * 150
    assert_none_lost_on_our_way(stage, publisher)


def test_left_and_right_arrive_apart(stage):
    viewer = stage.view(channels=2)
    stage.publish(
        "audiotestsrc is-live=true volume=0.5 ! audio/x-raw,rate=48000,channels=2 ! audiopanorama panorama=-1 ! audioconvert ! opusenc ! livekitsink name=sink identity=camera"
    ).wait_published()
    sound = viewer.wait_sound(seconds=1)
    assert sound.channels == 2 and sound.peaks[0] > 4000 and sound.peaks[1] < sound.peaks[0] / 10, sound.peaks
