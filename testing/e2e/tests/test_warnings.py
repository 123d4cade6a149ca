# SPDX-License-Identifier: MIT OR Apache-2.0
"""What will hurt the viewer is said in plain words, once per run; a sound stream is not complained about."""

import time

import pytest
from conftest import ENCODER
from harness.proc import PATIENCE, wait_until


def once(publisher, *words, timeout=PATIENCE):
    """The warning with these words has come; it comes once."""
    wait_until(lambda: publisher.warnings(*words), timeout, lambda: f"a warning about {words}: have {[w['text'] for w in publisher.select('warning')]}")


def assert_only(publisher, *words):
    texts = [w["text"] for w in publisher.select("warning")]
    assert len(texts) == 1 and len(publisher.warnings(*words)) == 1, texts


def run_file(stage, path, demuxer, sink=""):
    publisher = stage.publish(f"filesrc location={path} {demuxer} ! livekitsink name=sink identity=file {sink}")
    return publisher


def test_sound_streams_get_no_warning(stage, media):
    stage.view()
    publisher = run_file(stage, media.high_mp4(), "! qtdemux")
    live = stage.live()
    publisher.wait_for("eos")
    live.wait_published()
    for p in (publisher, live):
        assert not p.select("warning"), [w["text"] for w in p.select("warning")]


def test_b_frames(stage, media):
    """A viewer would see a picture that jumps back and forth: the stream is refused, with the way out."""
    publisher = run_file(stage, media.bframes_mp4(), "! qtdemux")
    error = publisher.wait_for("error")
    assert "B-frames" in error["text"] and "bframes=0" in error["text"], error


def test_parameter_sets_missing(stage, media):
    """A raw stream that never has any: the viewer would wait for ever, and the parser inside the sink says nothing."""
    publisher = stage.publish(
        f"filesrc location={media.no_parameter_sets_h264()} blocksize=1024 ! queue max-size-buffers=2 ! identity sleep-time=30000 ! "
        "video/x-h264,stream-format=byte-stream,alignment=nal,framerate=30/1,width=640,height=360,profile=main ! livekitsink name=sink identity=file",
        keep_open=True,
    )
    once(publisher, "sps")
    assert_only(publisher, "sps")
    publisher.quit()


def test_encoder_that_ignores_key_requests(stage, media):
    """A file can't answer; with a GOP of 20 s whoever joins waits long."""
    publisher = run_file(stage, media.long_gop_mp4(), "! qtdemux", "gop-cache=off")
    publisher.wait_published()
    stage.view("one")
    once(publisher, "keyframe request")
    stage.view("two")
    time.sleep(1.5)  # time for a second one, which must not come
    assert len(publisher.warnings("keyframe request")) == 1


def test_bitrate_far_above_the_limit(stage):
    encoder = ENCODER.format(gop=30).replace("bitrate=800", "bitrate=3000")
    publisher = stage.publish(
        f"videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=360,framerate=30/1 ! {encoder} ! "
        "livekitsink name=sink video_0::max-bitrate=300000"
    )
    once(publisher, "max-bitrate")
    assert_only(publisher, "max-bitrate")


def test_timestamps_that_go_back(stage):
    publisher = stage.live(keep_open=True)
    publisher.wait_published()
    publisher.run("""
state = {"count": 0, "saved": None}
def probe(pad, info):
    state["count"] += 1
    # Every 40th picture is followed by a copy whose time is two seconds earlier.
    if state["count"] % 40 == 0:
        old = info.get_buffer().copy_deep()
        old.pts = max(0, old.pts - 2 * Gst.SECOND)
        old.dts = old.pts
        GLib.idle_add(lambda: pad.push(old) and False)
    return Gst.PadProbeReturn.OK
pipeline.get_by_name("enc").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, probe)
""")
    once(publisher, "timestamps")
    assert_only(publisher, "timestamps")


@pytest.mark.parametrize("allow", ["any", "browser"])
def test_profile_browsers_can_not_show(stage, media, allow):
    publisher = run_file(stage, media.profile_422_h264(), "! h264parse", sink=f"allow-profiles={allow}")
    if allow == "any":
        once(publisher, "browsers")
        publisher.wait_for("eos")
        assert_only(publisher, "browsers")
    else:
        # Refused by the caps, which is told by whoever stands before the sink.
        publisher.wait_for("error")


def ready_token(stage, **grants):
    return stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=stage.server.token(stage.room, "camera", **grants))


def test_metadata_with_a_token_that_does_not_allow_it(stage):
    publisher = stage.live(sink="metadata=hello", env=ready_token(stage))
    once(publisher, "canupdateownmetadata")
    publisher.wait_published()
    assert_only(publisher, "canupdateownmetadata")


def test_metadata_with_a_token_that_allows_it(stage):
    publisher = stage.live(sink="metadata=hello", env=ready_token(stage, canUpdateOwnMetadata=True))
    publisher.wait_published()
    camera = lambda: next((p for p in stage.server.participants(stage.room) if p["identity"] == "camera"), {})
    wait_until(lambda: camera().get("metadata") == "hello", PATIENCE, lambda: f"metadata: {camera()}")
    assert publisher.select("warning") == []
