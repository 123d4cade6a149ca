# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every codec goes through the real sink and server to a receiver that is not ours; streams may change on the way."""

import pytest
from conftest import ENCODER
from harness.checks import sfu_received
from harness.media import HEIGHT, WIDTH
from harness.proc import PATIENCE, wait_until
from harness.server import LiveKitServer
from test_browser import play

X264 = ENCODER.format(gop=60)
VP8 = "vp8enc name=enc deadline=1 cpu-used=8 target-bitrate=800000 keyframe-max-dist=60 lag-in-frames=0"
VP9 = VP8.replace("vp8enc", "vp9enc")
# Not end-usage=cbr: with that, libaom of Debian 12 ends the process on live input (an assertion of its rate control).
AV1 = "av1enc name=enc usage-profile=realtime cpu-used=10 target-bitrate=800 keyframe-max-dist=30 lag-in-frames=0"
X265 = "x265enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max=30"
SIZE = (320, 192)
SMALL = {"fps": 15, "width": SIZE[0], "height": SIZE[1]}
# The gap in the viewer's picture when a stream changes; measured 0.15 to 0.35 s, asserted four times that.
CHANGE_LIMIT = 0.35 * 4


def publish(stage, encoder, source=SMALL, sink="identity=camera", **kw):
    # I420: VP9 in 4:4:4 is what the encoder makes of other input, and no viewer takes it.
    return stage.publish(
        f"appsrc name=stamp ! video/x-raw,format=I420 ! {encoder} ! livekitsink name=sink {sink}",
        sources={"stamp": source},
        keyunit=["enc"],
        **kw,
    )


def assert_moving(feed, size=SIZE):
    """The pictures are ours: stamps read, in order, in the right size."""
    numbers = feed.numbers()
    assert numbers == sorted(numbers) and numbers[-1] > numbers[0], numbers
    report = feed.report()
    assert report["unreadable"] == 0, report
    assert (feed.arrivals[-1].width, feed.arrivals[-1].height) == size


@pytest.mark.parametrize("name, encoder", [("h264", X264), ("vp8", VP8), ("vp9", VP9), ("av1", AV1)], ids=["h264", "vp8", "vp9", "av1"])
def test_codec_is_shown(stage, name, encoder):
    viewer = stage.view()
    publisher = publish(stage, encoder)
    published = publisher.wait_published()["fields"]
    assert published["mime-type"].lower() == f"video/{name}"
    feed = viewer.wait_video(frames=30)
    assert feed.mime.lower() == f"video/{name}"
    assert_moving(feed)
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert track["mime_type"].lower() == f"video/{name}" and (track["width"], track["height"]) == SIZE
    assert not publisher.select("warning"), publisher.select("warning")
    publisher.send_eos()
    publisher.wait_for("eos")
    # By the server's own statistics: nothing on the way made another codec of it.
    assert sfu_received(stage.server, stage.room, "camera", mime=f"video/{name}")[0]["packetsLost"] == 0


@pytest.mark.parametrize("name, encoder", [("vp8", VP8), ("vp9", VP9), ("av1", AV1)], ids=["vp8", "vp9", "av1"])
@pytest.mark.slow
def test_codec_is_shown_by_a_browser(stage, name, encoder):
    publisher = publish(stage, encoder, source={**SMALL, "fps": 30})
    publisher.wait_published()
    report = play(stage, frames=30)
    assert report["ok"], report
    assert report["stats"]["codec"].lower() == f"video/{name}", report["stats"]
    assert report["numbers"] and report["numbers"] == sorted(report["numbers"])


def received(stage, encoder, codec, frames=40):
    """Publishes, and gives what testing/subscriber has and FFmpeg makes of it."""
    receiver = stage.receive(frames=frames)
    publisher = publish(stage, encoder)
    assert publisher.wait_published()["fields"]["mime-type"].lower() == f"video/{codec}"
    assert receiver.wait_first()["codec"] == codec
    end = receiver.finish()
    assert end["gaps"] == 0, end
    numbers, complaints = receiver.pictures(*SIZE)
    # The last frame or two may still be in FFmpeg's parser.
    assert len(numbers) >= frames - 2 and None not in numbers, (numbers, complaints)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    return publisher, receiver


def test_h265_is_forwarded_and_decoded_by_ffmpeg(stage):
    """Neither the SDK nor Chromium on Linux decodes it."""
    publisher, _ = received(stage, X265, "h265")
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert track["mime_type"].lower() == "video/h265" and (track["width"], track["height"]) == SIZE
    assert not publisher.select("warning"), publisher.select("warning")
    publisher.send_eos()
    publisher.wait_for("eos")
    stats = sfu_received(stage.server, stage.room, "camera", mime="video/H265")[0]
    assert stats["packetsLost"] == 0, stats


@pytest.mark.parametrize("name, encoder", [("vp8", VP8), ("vp9", VP9), ("av1", AV1)], ids=["vp8", "vp9", "av1"])
def test_frames_arrive_as_they_were_sent(stage, name, encoder):
    received(stage, encoder, name)


def test_h265_viewer_who_comes_late_gets_a_keyframe(stage):
    publisher = publish(stage, X265.replace("key-int-max=30", "key-int-max=6000"))
    publisher.wait_published()
    first = stage.receive(frames=200, identity="first")
    first.wait_first()
    late = stage.receive(frames=10, identity="late")
    late.finish()
    numbers, complaints = late.pictures(*SIZE)
    assert len(numbers) >= 8 and None not in numbers, (numbers, complaints)


def test_h265_of_a_file(stage, media):
    """hvc1: the parameter sets are beside the stream and have to be put into it."""
    receiver = stage.receive(frames=60)
    stage.launch(f"filesrc location={media.hvc1_mp4()} ! qtdemux ! livekitsink identity=file")
    assert receiver.wait_first()["codec"] == "h265"
    assert receiver.finish()["gaps"] == 0
    numbers, complaints = receiver.pictures(WIDTH, HEIGHT)
    assert len(numbers) >= 58 and numbers == list(range(numbers[0], numbers[0] + len(numbers))), (numbers, complaints)


PROFILES = {"constrained-baseline": "42e01f", "main": "4d001f", "high": "640032"}


def track_formats(stage):
    """What the server made of the offers: profile-level-id of each H.264 track."""
    entries = stage.server.log_entries(msg="onMediaTrack", room=stage.room, participant="camera")
    return [e["codec"]["SDPFmtpLine"].split("profile-level-id=")[1] for e in entries if e["codec"]["MimeType"] == "video/H264"]


# x264enc's baseline is the constrained one.
@pytest.mark.parametrize("profile", PROFILES)
def test_h264_profile_is_named_in_the_sdp_and_shown(stage, profile):
    viewer = stage.view()
    publish(stage, f"{X264.replace('ultrafast', 'veryfast')} ! video/x-h264,profile={profile}")
    feed = viewer.wait_video(frames=30)
    assert_moving(feed)
    assert track_formats(stage) == [PROFILES[profile]]


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["main", "high"])
def test_h264_profile_is_shown_by_a_browser(stage, profile):
    """A viewer that does not know the profile by name must not be worse off for it."""
    publisher = publish(stage, f"{X264.replace('ultrafast', 'veryfast')} ! video/x-h264,profile={profile}", source={**SMALL, "fps": 30})
    publisher.wait_published()
    report = play(stage, frames=30)
    assert report["ok"], report
    assert report["numbers"], report


# --- sound


def sound(stage, pipeline, sink="identity=camera", **kw):
    return stage.publish(f"audiotestsrc is-live=true volume=0.3 ! {pipeline} ! livekitsink name=sink {sink}", **kw)


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_mono_and_stereo(stage, channels):
    viewer = stage.view()
    sound(stage, f"audio/x-raw,channels={channels},rate=48000 ! opusenc")
    feed = viewer.wait_sound()
    assert feed.mime.lower() == "audio/opus"
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert track.get("stereo", False) == (channels == 2), track
    assert ("TF_STEREO" in track.get("audio_features", [])) == (channels == 2), track
    assert "TF_NO_DTX" in track.get("audio_features", []), track


def test_stereo_stays_stereo(stage):
    """Left and right are told apart: only the left channel has sound."""
    viewer = stage.view(channels=2)
    stage.publish(
        "audiotestsrc is-live=true volume=0.5 ! audio/x-raw,channels=1,rate=48000 ! audiopanorama panorama=-1.0 ! audio/x-raw,channels=2 ! "
        "opusenc ! livekitsink name=sink identity=camera"
    )
    left, right = viewer.wait_sound().peaks
    assert left > 3000 and right < left / 4, (left, right)


def test_dtx_is_announced(stage):
    sound(stage, "opusenc dtx=true", sink="identity=camera dtx=true").wait_published()
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert "TF_NO_DTX" not in track.get("audio_features", []), track


def test_redundancy_reaches_the_server_and_any_viewer(stage):
    viewer = stage.view()
    publisher = sound(stage, "opusenc", sink="identity=camera red=true")
    viewer.wait_sound()
    publisher.send_eos()
    publisher.wait_for("eos")
    assert sfu_received(stage.server, stage.room, "camera", mime="audio/red")[0]["packetsLost"] == 0


def test_redundant_and_plain_sound_in_one_session(stage):
    """The first of them must not decide for the second."""
    viewer = stage.view()
    publisher = stage.publish(
        "audiotestsrc is-live=true volume=0.3 ! opusenc ! sink.audio_0 audiotestsrc is-live=true volume=0.3 ! opusenc ! sink.audio_1 "
        "livekitsink name=sink identity=camera audio_1::red=true audio_1::track-name=red audio_0::track-name=plain"
    )
    publisher.wait_published(count=2)
    wait_until(lambda: {f.name for f in viewer.audio if f.first_sound_at} == {"plain", "red"}, PATIENCE, lambda: f"both: {viewer.audio}")
    publisher.send_eos()
    publisher.wait_for("eos")
    for mime in ("audio/red", "audio/opus"):
        assert sfu_received(stage.server, stage.room, "camera", mime=mime)[0]["packetsLost"] == 0


@pytest.mark.parametrize("caps", ["audio/x-raw", "audio/x-raw,rate=44100,channels=2", "audio/x-raw,rate=48000,channels=6,format=F32LE,channel-mask=(bitmask)0x3f"])
def test_raw_sound_is_encoded(stage, caps):
    viewer = stage.view()
    publisher = sound(stage, caps, sink="identity=camera max-bitrate=32000")
    feed = viewer.wait_sound()
    assert feed.mime.lower() == "audio/opus"
    assert publisher.run("result = pipeline.get_by_name('sink').get_by_name('opusenc0').get_property('bitrate')") == 32000
    assert not publisher.select("warning")


# --- what the room takes


def test_codec_that_the_room_does_not_allow(tmp_path, stage):
    directory = tmp_path / "restricted"
    directory.mkdir()
    with LiveKitServer(directory, more="room:\n  enabled_codecs:\n    - mime: audio/opus\n    - mime: video/h264\n    - mime: video/vp8\n") as server:
        env = stage.env(LIVEKIT_URL=server.url, LIVEKIT_API_KEY=server.key, LIVEKIT_API_SECRET=server.secret)
        publisher = publish(stage, AV1, env=env)
        error = publisher.wait_for("error")["text"]
        assert "AV1" in error and "H.264, VP8" in error and "room.enabled_codecs" in error, error


# --- streams that change


def switch(publisher, encoder, width, height):
    """Another encoder and another size, on the same pad."""
    publisher.run(f"""
old, src, sink = pipeline.get_by_name("enc"), pipeline.get_by_name("stamp"), pipeline.get_by_name("sink")
filter = old.get_static_pad("sink").get_peer().get_parent_element()
filter.set_property("caps", Gst.Caps.from_string("video/x-raw,format=I420"))
feeders["stamp"].stop()
number = feeders["stamp"].number
pad = sink.get_static_pad("video_0")
old.unlink(sink)
filter.unlink(old)
old.set_state(Gst.State.NULL)
pipeline.remove(old)
new = Gst.parse_bin_from_description({encoder!r}, True)
pipeline.add(new)
filter.link(new)
new.get_static_pad("src").link(pad)
new.sync_state_with_parent()
add_feeder(src, fps=15, width={width}, height={height}, start=number).go()
""")


def gap(before, after):
    """Seconds without a picture between two tracks of one viewer."""
    # When a track ends the server itself sends a few empty pictures.
    stamped = [a.at for a in before.arrivals if a.number is not None]
    return after.arrivals[0].at - stamped[-1]


@pytest.mark.parametrize(
    "first, second, name, size",
    [(X264, X264, "h264", (640, 384)), (X264, VP8, "vp8", SIZE), (VP8, X264, "h264", SIZE), (VP9, VP8, "vp8", (640, 384)), (VP8, VP9, "vp9", SIZE)],
    ids=["size", "h264-vp8", "vp8-h264", "vp9-vp8-size", "vp8-vp9"],
)
def test_stream_that_changes_goes_on_under_the_same_name(stage, first, second, name, size, record_property):
    viewer = stage.view()
    publisher = publish(stage, first, sink="identity=camera video_0::track-name=front")
    before = viewer.wait_video("front", frames=20)
    last = before.numbers()[-1]
    switch(publisher, second, *size)
    publisher.wait_published(count=2)
    after = wait_until(lambda: next((f for f in viewer.video if f.sid != before.sid and len(f.arrivals) >= 20), None), PATIENCE, lambda: f"pictures of the new track; {publisher.summary()}")
    assert after.name == "front" and after.mime.lower() == f"video/{name}"
    assert_moving(after, size)
    assert after.numbers()[0] > last
    wait_until(lambda: before.ended, PATIENCE, "the old track to end")
    seconds = gap(before, after)
    record_property("gap_s", round(seconds, 3))
    print(f"gap {seconds:.3f} s")
    assert seconds < CHANGE_LIMIT, f"{seconds:.2f} s without a picture"
    tracks = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"]
    assert [(t["name"], t["width"], t["height"]) for t in tracks] == [("front", *size)], tracks


def test_h264_by_its_own_profile_makes_room_for_another_codec(stage):
    """The server settles the codecs of a connection with its first picture: high profile alone, so the room is joined again."""
    viewer = stage.view()
    publisher = publish(stage, X264.replace("ultrafast", "veryfast") + " ! video/x-h264,profile=high ! identity name=last", sink="identity=camera reconnect-attempts=0")
    viewer.wait_video(frames=10)
    assert track_formats(stage) == [PROFILES["high"]]
    publisher.run(f"""
last, src, sink = pipeline.get_by_name("last"), pipeline.get_by_name("stamp"), pipeline.get_by_name("sink")
pad = sink.get_request_pad("video_%u")
new = Gst.parse_bin_from_description("appsrc name=stamp2 ! video/x-raw,format=I420 ! {VP8.replace("name=enc", "name=enc2")}", True)
pipeline.add(new)
new.get_static_pad("src").link(pad)
add_feeder(new.get_by_name("stamp2"), fps=15, width=320, height=192, start=5000)
new.sync_state_with_parent()
""")
    both = lambda: {f.mime.lower() for f in viewer.video if not f.ended and len(f.arrivals) >= 10}
    wait_until(lambda: both() == {"video/h264", "video/vp8"}, PATIENCE, lambda: f"both tracks; {publisher.summary()}")


def test_h264_profile_that_changes(stage):
    viewer = stage.view()
    publisher = publish(stage, X264)
    before = viewer.wait_video(frames=10)
    # The sink asks for constrained baseline where it has the choice.
    switch(publisher, X264.replace("ultrafast", "veryfast") + " ! capsfilter caps=video/x-h264,profile=high", *SIZE)
    after = wait_until(lambda: next((f for f in viewer.video if f.sid != before.sid and len(f.arrivals) >= 10), None), PATIENCE, lambda: publisher.summary())
    assert_moving(after)
    # The server's codecs are those of the connection's first picture; a decoder goes by the parameter sets.
    assert track_formats(stage) == [PROFILES["constrained-baseline"]] * 2
