# SPDX-License-Identifier: MIT OR Apache-2.0
"""`rkmppenc ! livekitsink`, over the simulated MPP library: the room sees the picture, and what it wants reaches the encoder."""

import os
from pathlib import Path

import pytest
from harness.proc import PATIENCE, wait_until

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def library():
    """The simulator, where cargo puts it."""
    debug = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "debug"
    found = [p for p in (debug / "librockchip_mpp_sim.so", debug / "deps" / "librockchip_mpp_sim.so") if p.exists()]
    assert found, f"no librockchip_mpp_sim.so in {debug}: cargo build -p rockchip-mpp-sim"
    return found[0]


def publish(stage, library, caps, sink=""):
    # A key frame only when somebody asks.
    return stage.publish(
        "appsrc name=stamp ! videoconvert ! video/x-raw,format=NV12 ! rkmppenc name=enc bitrate=2000000 gop-size=100000"
        f" ! {caps} ! livekitsink name=sink identity=camera {sink}",
        sources={"stamp": {"fps": 30, "frames": 0}},
        keyunit=["enc"],
        env=stage.env(ROCKCHIP_MPP_LIBRARY=library),
    )


@pytest.mark.parametrize("caps", ["video/x-h264", "video/x-vp8"])
def test_the_room_sees_the_picture(stage, library, caps):
    publisher = publish(stage, library, caps)
    publisher.wait_published()
    # Comes late: shown only if a key frame comes for it.
    viewer = stage.view()
    feed = viewer.wait_video(publisher="camera", frames=60)
    report = feed.report()
    assert report["unreadable"] == 0, report
    assert not publisher.select("error") and not publisher.warnings("rkmppenc")
    log = publisher.child.log()
    assert "CRITICAL" not in log, log[-2000:]


def test_what_the_room_carries_reaches_the_encoder(stage, library):
    publisher = publish(stage, library, "video/x-h264", sink="max-bitrate=400000")
    stage.view().wait_video(publisher="camera", frames=60)
    stats = "result = pipeline.get_by_name('enc').get_property('stats').get_value('bitrate')"
    wait_until(lambda: publisher.run(stats) <= 400_000, PATIENCE, lambda: f"the encoder still makes {publisher.run(stats)} bit/s")
    # The property is the ceiling that the user chose; the wish does not overwrite it.
    assert publisher.get("enc", "bitrate") == 2_000_000
