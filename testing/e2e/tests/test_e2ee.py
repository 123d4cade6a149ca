# SPDX-License-Identifier: MIT OR Apache-2.0
"""End-to-end encryption: LiveKit's own SDK opens what livekitsink encrypts, with the right key and with no other."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from conftest import ENCODER
from harness.proc import PATIENCE, Child, wait_until
from livekit import rtc
from test_codecs import AV1, SIZE, SMALL, VP8, VP9, X265, publish
from test_keyframes import deaf_encoder

KEY, OTHER = "correct horse battery staple", "Tr0ub4dor&3"
X264 = ENCODER.format(gop=30)
OPENH264 = "openh264enc name=enc bitrate=800000 gop-size=30 ! video/x-h264,profile=constrained-baseline"
OPUS = "audiotestsrc is-live=true wave=sine freq=440 volume=0.5 ! audio/x-raw,rate=48000,channels=1 ! opusenc"


def options(shared=KEY, window=0):
    """`window`: how far the SDK follows a ratcheted key. Each step costs it a tenth of a second for each frame that it can't open."""
    provider = rtc.KeyProviderOptions(ratchet_window_size=window)
    provider.shared_key = shared.encode() if shared else None
    return rtc.E2EEOptions(key_provider_options=provider)


def sink(key=KEY, more=""):
    return f'identity=camera e2ee-key="{key}" {more}'


def stats(publisher):
    return publisher.get("sink", "stats")["fields"]["e2ee"]["fields"]


def set_key(publisher, key, index):
    publisher.run(f"s = pipeline.get_by_name('sink'); s.set_property('e2ee-key-index', {index}); s.set_property('e2ee-key', {key!r})")


def readable(feed, since, frames):
    """The newest pictures are ours and in order."""
    numbers = [a.number for a in feed.arrivals[since:]][-frames:]
    return len(numbers) == frames and None not in numbers and numbers == sorted(set(numbers))


def moves_on(feed, frames=12, timeout=PATIENCE):
    """New pictures, from now on, that are ours."""
    have = len(feed.arrivals)
    wait_until(lambda: readable(feed, have, frames), timeout, lambda: f"{frames} readable pictures; have {[a.number for a in feed.arrivals[have:]]}")


def shown(viewer, frames=12, timeout=PATIENCE):
    """Its picture. The SDK begins to decrypt a moment after it begins to receive, and shows what came before as if it were not
    encrypted: what it makes of the first keyframe may be garbage, up to the next one."""
    feed = viewer.wait_video(frames=1)
    wait_until(lambda: readable(feed, 0, frames), timeout, lambda: f"{frames} readable pictures; have {[a.number for a in feed.arrivals]}")
    return feed


@pytest.mark.parametrize("encoder", [X264, OPENH264, VP8, VP9], ids=["h264", "openh264", "vp8", "vp9"])
def test_pictures_are_seen_with_the_right_key_only(stage, encoder):
    right = stage.view("right", encryption=options())
    wrong = stage.view("wrong", encryption=options(OTHER))
    without = stage.view("without")
    publisher = publish(stage, encoder, sink=sink())
    publisher.wait_published()
    feed = shown(right)
    assert (feed.arrivals[-1].width, feed.arrivals[-1].height) == SIZE
    track = stage.server.wait_participant(stage.room, "camera", tracks=1)["tracks"][0]
    assert track["encryption"] == "GCM", track
    # They are subscribed by now, and were sent what the first one was sent.
    for blind in (wrong, without):
        blind.wait_event("track_subscribed")
        assert not [f for f in blind.video if f.numbers()], blind.video
    before = stats(publisher)
    moves_on(feed)
    after = stats(publisher)
    assert after["frames-encrypted"] > before["frames-encrypted"] and after["frames-refused"] == 0, (before, after)
    assert not publisher.select("warning") and not publisher.select("error"), publisher.summary()


def test_sound_is_heard_with_the_right_key_only(stage):
    """An SDK without the key plays silence, so only a tone proves anything. Redundancy is left out, and said to be."""
    right = stage.view("right", encryption=options())
    wrong = stage.view("wrong", encryption=options(OTHER))
    publisher = stage.publish(f"{OPUS} ! livekitsink name=sink {sink(more='audio_0::red=true')}")
    publisher.wait_published()
    feed = right.wait_sound(seconds=2)
    wait_until(lambda: wrong.audio and wrong.audio[0].samples > 0, PATIENCE, "silence at the other viewer")
    # What is heard of a frame that can't be opened is what conceals a loss, and soon nothing.
    loud = wrong.audio[0].loud_samples
    assert loud <= feed.loud_samples // 4, (loud, feed.loud_samples)
    assert [w for w in publisher.select("warning") if "red does not go together" in w["text"]], publisher.summary()


def test_the_key_changes_while_it_plays(stage):
    """To another key at another place, to the next one by the ratchet, which the SDK follows by itself, and to one that nobody has."""
    viewer = stage.view(encryption=options(window=2))
    publisher = stage.live(sink=sink(), gop=30)
    publisher.wait_published()
    feed = shown(viewer)
    viewer.room.e2ee_manager.key_provider.set_shared_key(OTHER.encode(), 5)
    set_key(publisher, OTHER, 5)
    assert stats(publisher)["key-index"] == 5
    moves_on(feed)
    assert publisher.run("result = pipeline.get_by_name('sink').emit('ratchet-e2ee-key')") is True
    moves_on(feed)
    assert not publisher.select("warning"), publisher.summary()
    set_key(publisher, "nobody's", 6)
    painted = "result = feeders['stamp'].number"
    last = publisher.run(painted)
    wait_until(lambda: publisher.run(painted) > last + 45, PATIENCE, "the source to go on")
    time.sleep(0.5)
    # What was painted later was encrypted later.
    assert not [n for n in feed.numbers() if n > last], "pictures without the key"
    # Back, and a new one is refused that is none.
    set_key(publisher, KEY, 0)
    moves_on(feed)
    set_key(publisher, "", 0)
    moves_on(feed)
    assert [w for w in publisher.select("warning") if "the old one stays in use" in w["text"]], publisher.summary()


def test_a_late_joiner_sees_pictures_soon(stage):
    """A keyframe is asked for and opened at once, although the next regular one is more than a minute away."""
    publisher = stage.live(sink=sink(), gop=3000)
    publisher.wait_published()
    stage.view("first", encryption=options()).wait_video(frames=1)
    for attempt in range(4):
        late = stage.view(f"late-{attempt}", encryption=options())
        try:
            shown(late, timeout=10)
            break
        except AssertionError:
            # See `shown`: it would see garbage up to the next keyframe.
            assert attempt < 3, "four late joiners saw nothing"


def test_pictures_that_are_sent_again_are_opened_too(stage):
    """Who comes late to an encoder that makes no keyframe gets the group of pictures again, each encrypted anew (the crate's
    tests show that no vector comes twice)."""
    publisher = deaf_encoder(stage, gop=45, sink=f'gop-cache=on gop-cache-time=4000000000 e2ee-key="{KEY}"')
    publisher.wait_published()
    stage.view("first", encryption=options()).wait_video(frames=1)
    before = len(publisher.messages("livekit-gop-replayed"))
    shown(stage.view("late", encryption=options()))
    publisher.wait_for("element", "livekit-gop-replayed", count=before + 1)


def test_each_layer_of_simulcast_is_encrypted(stage):
    viewer = stage.view(encryption=options())
    publisher = stage.publish(
        f"appsrc name=stamp ! tee name=t livekitsink name=sink video_0::track=front video_1::track=front {sink()} "
        f"t. ! queue ! {X264} ! sink.video_0 t. ! queue ! videoscale ! video/x-raw,width=160,height=96 ! {X264.replace('name=enc ', '')} ! sink.video_1",
        sources={"stamp": SMALL},
    )
    publisher.wait_published()
    feed = shown(viewer)
    assert feed.arrivals[-1].width in (SIZE[0], 160)
    assert stats(publisher)["frames-refused"] == 0


def test_h265_is_opened_by_a_decryptor_of_our_own(stage):
    """No SDK here decodes it. FFmpeg decodes what the decryptor writes; with another key it writes nothing."""
    receiver = stage.receive(frames=40, key=KEY)
    blind = stage.receive(frames=1, key=OTHER, identity="blind")
    publisher = publish(stage, X265, sink=sink())
    publisher.wait_published()
    end = receiver.finish()
    assert end["gaps"] == 0 and end["sealed"] == 0, end
    numbers, complaints = receiver.pictures(*SIZE)
    assert len(numbers) >= 38 and None not in numbers, (numbers, complaints)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    wait_until(lambda: blind.lines()[-1].get("sealed", 0) > 10, PATIENCE, "frames that can't be opened")
    assert blind.lines()[-1]["frames"] == 0, blind.lines()[-1]


def test_av1_is_refused_with_the_reason(stage):
    publisher = publish(stage, AV1, sink=sink())
    error = publisher.wait_for("error")
    assert "AV1 cannot be encrypted end to end" in error["text"] and "use H.264" in error["text"], error


def test_a_key_of_each_participant_comes_from_the_signal(stage):
    """The viewer has keys by identity. The signal is asked for ours, and again for the next place."""
    viewer = stage.view(encryption=options(None))
    keys = viewer.room.e2ee_manager.key_provider
    keys.set_key("camera", b"of camera 0", 0)
    keys.set_key("camera", b"of camera 1", 1)
    keys.set_key("somebody", b"another", 0)
    start = "pipeline.get_by_name('sink').connect('request-e2ee-key', lambda s, identity, index: f'of {identity} {index}')"
    publisher = stage.live(start=start)
    publisher.wait_published()
    feed = shown(viewer)
    publisher.run("pipeline.get_by_name('sink').set_property('e2ee-key-index', 1)")
    moves_on(feed)
    assert stats(publisher)["key-index"] == 1


@pytest.mark.parametrize("env", [{"LIVEKIT_E2EE_KEY": ""}, {}], ids=["variable", "signal"])
def test_a_key_that_is_missing_is_an_error_and_not_clear_text(stage, env):
    start = "" if env else "pipeline.get_by_name('sink').connect('request-e2ee-key', lambda *a: None)"
    publisher = stage.live(start=start, env=stage.env(**env))
    error = publisher.wait_for("error")
    assert "would not be encrypted end to end" in error["text"], error


def test_data_packets_are_encrypted_both_ways(stage):
    viewer = stage.view(encryption=options())
    outsider = stage.view("outsider")
    hear = "runner.heard = heard = []; pipeline.get_by_name('sink').connect('data-received', lambda s, payload, *a: heard.append(payload.get_data().decode()))"
    publisher = stage.live(sink=sink(), start=hear)
    publisher.wait_published()
    viewer.wait_video(frames=1)
    send = lambda text: publisher.run(f"result = pipeline.get_by_name('sink').emit('send-data', GLib.Bytes.new({text!r}), 'topic', True, [])")
    assert send(b"from the board")
    wait_until(lambda: viewer.data, PATIENCE, lambda: f"a data packet\n{publisher.summary()}")
    assert [(d.payload, d.topic) for d in viewer.data] == [(b"from the board", "topic")]
    outsider.send(b"forged")
    viewer.send(b"to the board")
    wait_until(lambda: publisher.run("result = runner.heard"), PATIENCE, "a data packet at the sink")
    assert publisher.run("result = runner.heard") == ["to the board"], "what is not encrypted is not believed"
    assert not outsider.data, "the server's side sees no content"


def test_the_key_is_shown_nowhere(stage, tmp_path):
    secret = "a-key-that-is-seen-nowhere"
    env = stage.env(GST_DEBUG="*:6", GST_DEBUG_DUMP_DOT_DIR=str(tmp_path), LIVEKIT_E2EE_KEY=secret)
    child = stage.launch(f"videotestsrc num-buffers=40 is-live=true ! video/x-raw,width=320,height=192 ! {X264} ! livekitsink identity=camera", env=env, flags=("-v", "-m"))
    assert child.wait(PATIENCE) == 0, child.tail()
    log = child.log()
    assert "encrypting end to end, key 0 from LIVEKIT_E2EE_KEY" in log
    for text in [log, *(f.read_text(errors="replace") for f in tmp_path.glob("*.dot"))]:
        for shown in (secret, secret.encode().hex(), "a-key-that-is-seen"):
            assert shown not in text


def test_the_readme_shows_what_works(stage, tmp_path):
    """Its pipeline and its viewer run as they stand there."""
    page = (Path(__file__).resolve().parents[3] / "plugins/gst-plugin-livekit/README.md").read_text()
    part = page.partition("## End-to-end encryption\n")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(console|python)\n(.*?)```", part, re.S))
    snippet = tmp_path / "viewer.py"
    snippet.write_text(blocks["python"])
    publisher = Child(["bash", "-c", blocks["console"].replace("gst-launch-1.0", "exec gst-launch-1.0")], tmp_path / "pipeline.log", env=stage.env())
    token = stage.server.token(stage.room, "reader")
    env = {**os.environ, "LIVEKIT_URL": stage.server.url, "LIVEKIT_TOKEN": token, "LIVEKIT_E2EE_KEY": KEY}
    viewer = Child([sys.executable, str(snippet)], tmp_path / "viewer.log", env=env)
    try:
        assert viewer.wait(PATIENCE) == 0, viewer.tail() + publisher.tail()
        assert "320 x 240" in viewer.log(), viewer.tail()
    finally:
        viewer.stop()
        publisher.stop()
