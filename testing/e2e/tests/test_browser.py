# SPDX-License-Identifier: MIT OR Apache-2.0
"""Chromium, with LiveKit's JavaScript client, shows what livekitsink sends."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ENCODER

BROWSER = Path(__file__).resolve().parent.parent / "browser"


def play(stage, frames=45, timeout=90, **options):
    """Starts Chromium on the room; the report of browser/play.mjs."""
    options = {"url": stage.server.url, "token": stage.server.token(stage.room, "chromium"), "frames": frames, "timeout": timeout, **options}
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIVEKIT_")}
    done = subprocess.run(["node", "play.mjs", json.dumps(options)], cwd=BROWSER, env=env, capture_output=True, text=True, timeout=timeout + 40)
    assert done.stdout.startswith("{"), f"no report:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.slow
def test_bare_test_source_plays(stage):
    """x264enc left alone makes 4:4:4 of what videotestsrc offers; the sink's caps must steer it to what browsers show."""
    launch = stage.launch("videotestsrc ! x264enc ! livekitsink")
    launch.wait_text("livekit-published")
    report = play(stage)
    assert report["ok"], f"{report}\n{launch.tail(15)}"
    assert report["stats"]["codec"].lower() == "video/h264", report["stats"]
    assert launch.returncode is None, launch.tail()


@pytest.mark.slow
def test_numbers_arrive_in_order_with_sound(stage):
    publisher = stage.publish(
        f"appsrc name=stamp ! {ENCODER.format(gop=300)} ! livekitsink name=sink identity=camera "
        "audiotestsrc is-live=true volume=0.2 ! audioconvert ! opusenc ! sink.",
        sources={"stamp": {}},
        keyunit=["enc"],
    )
    publisher.wait_published(count=2)
    report = play(stage, frames=60, audio=True)
    assert report["ok"], report
    numbers = report["numbers"]
    assert len(numbers) >= 50 and numbers == sorted(numbers), numbers
    assert report["stats"]["lost"] == 0, report["stats"]
    assert {t["mime"].lower() for t in report["tracks"]} == {"video/h264", "audio/opus"}


@pytest.mark.slow
def test_high_profile_file_plays(stage, media):
    """multifilesrc repeats the file, so that there is a picture whenever the browser is ready."""
    launch = stage.launch(f"multifilesrc location={media.high_h264()} loop=true ! h264parse ! livekitsink identity=high")
    launch.wait_text("livekit-published")
    report = play(stage)
    assert report["ok"], f"{report}\n{launch.tail(15)}"
