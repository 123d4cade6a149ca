# SPDX-License-Identifier: MIT OR Apache-2.0
"""What can go wrong on the way into the room: said plainly, in bounded time, and only fatal when waiting is no use."""

import socket
import threading
import time

import pytest
from harness.checks import assert_all_received, sfu_received
from harness.proc import PATIENCE, free_port, wait_until
from harness.server import LiveKitServer
from harness.subscriber import Subscriber
from harness.token import make_token

RESOURCE = "gst-resource-error-quark"
BUSY, SETTINGS, NOT_AUTHORIZED = 4, 13, 15
# "At once" for what needs no network, and for an answer from loopback.
AT_ONCE = 4.0
# The goal is a picture 2 s after a server is up.
SERVER_BACK = 4 * 2.0


def after_start(publisher, event):
    """Seconds from when the pipeline was told to play."""
    return event["t"] - publisher.wait_for("started", may_end=True)["begin"]


def at_once(publisher, later=0.0):
    """The pipeline's error, which comes that much after the start."""
    error = publisher.wait_for("error")
    waited = after_start(publisher, error)
    assert waited < later + AT_ONCE, f"{waited:.2f} s: {error}"
    return error


def tokens(stage):
    server, room = stage.server, stage.room
    return {
        "garbage": "this.is.not-a-token",
        "wrong-secret": make_token(server.key, "x" * 40, "camera", room),
        "unknown-key": make_token("keynobody", server.secret, "camera", room),
        "expired": server.token(room, "camera", ttl=-3600),
        "no-join-grant": server.token(room, "camera", roomJoin=False),
    }


@pytest.mark.parametrize(
    "kind, hint",
    [
        ("garbage", "canPublish"),
        ("wrong-secret", "check api-secret"),
        ("unknown-key", "api-key is one of this server's"),
        ("expired", "give a new token"),
        ("no-join-grant", "must grant roomJoin"),
    ],
)
def test_bad_token_is_fatal_at_once(stage, kind, hint):
    env = stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=tokens(stage)[kind])
    publisher = stage.live(env=env)
    error = at_once(publisher)
    assert (error["domain"], error["code"]) == (RESOURCE, NOT_AUTHORIZED), error
    assert hint in error["text"], error
    assert len(publisher.messages("livekit-connecting")) <= 1, "refused credentials must not be tried again"
    assert publisher.wait_exit() == 1
    assert stage.server.participants(stage.room) == []


def test_wrong_secret_is_fatal_at_once(stage):
    publisher = stage.live(env=stage.env(LIVEKIT_API_SECRET="y" * 40))
    error = at_once(publisher)
    assert (error["domain"], error["code"]) == (RESOURCE, NOT_AUTHORIZED), error


def test_token_without_publish_grant(stage):
    env = stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=stage.server.token(stage.room, "camera", canPublish=False))
    publisher = stage.live(env=env)
    error = publisher.wait_for("error")
    assert "canpublish" in f"{error['text']} {error['debug']}".lower(), error


def test_key_without_room(stage):
    publisher = stage.live(env=stage.env(LIVEKIT_ROOM=None))
    error = at_once(publisher)
    assert "LIVEKIT_ROOM" in error["text"] and error["domain"] == RESOURCE, error
    assert publisher.select("started")[0]["result"] == "failure", "told at READY, before anything runs"


def test_no_credentials(stage):
    publisher = stage.live(env=stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None))
    error = at_once(publisher)
    text = error["text"]
    assert "token" in text and "api-key" in text, "says what was looked for"


def test_no_url(stage):
    publisher = stage.live(env=stage.env(LIVEKIT_URL=None))
    error = at_once(publisher)
    assert "LIVEKIT_URL" in error["text"], error


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "ws://", "ws://127.0.0.1:99999"])
def test_wrong_url(stage, url):
    publisher = stage.live(sink=f'url="{url}"')
    error = at_once(publisher)
    assert (error["domain"], error["code"]) == (RESOURCE, SETTINGS), error
    assert publisher.wait_exit() == 1


def no_server(_stage):
    return f"ws://127.0.0.1:{free_port()}"


def metrics_port(stage):
    """A web server, but not LiveKit."""
    return f"ws://127.0.0.1:{stage.server.metrics_port}"


def no_such_host(_stage):
    return "ws://no-such-host.invalid:7880"


@pytest.mark.parametrize("where", [no_server, metrics_port, no_such_host], ids=["no-server", "wrong-port", "no-such-host"])
def test_unreachable_without_retries_is_an_error(stage, where):
    publisher = stage.live(sink=f"url={where(stage)} reconnect-attempts=0 connect-timeout=2000000000")
    error = at_once(publisher, 2)
    assert error["domain"] == RESOURCE and error["code"] != NOT_AUTHORIZED, error
    assert publisher.wait_exit() == 1


def test_mute_server_without_retries_is_an_error_after_the_timeout(stage):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        publisher = stage.live(sink=f"url=ws://127.0.0.1:{mute.getsockname()[1]} reconnect-attempts=0 connect-timeout=1500000000")
        error = publisher.wait_for("error")
        waited = after_start(publisher, error)
        assert 1.4 < waited < 1.5 * 4, f"{waited:.2f} s"


def test_rude_server(stage):
    """One that answers nonsense is as good as none: tried again, nothing else."""
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen(8)
        rude.settimeout(PATIENCE)

        def answer():
            while True:
                try:
                    connection, _ = rude.accept()
                    connection.recv(4096)
                    connection.sendall(b"\x00\xff\xfe not http at all\r\n\r\n" * 50)
                    connection.close()
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        publisher = stage.live(sink=f"url=ws://127.0.0.1:{rude.getsockname()[1]}")
        publisher.wait_for("element", "livekit-offline", count=2)
        assert not publisher.select("error")


def test_server_comes_later(stage, tmp_path):
    """Offline is a state: a live pipeline plays on, tells every attempt, warns once, and is there when the server is."""
    directory = tmp_path / "late-server"
    directory.mkdir()
    port = free_port()
    publisher = stage.live(sink=f"identity=camera url=ws://127.0.0.1:{port}")
    publisher.wait_for("state", state="playing")
    publisher.wait_for("element", "livekit-offline", count=2)
    offline = publisher.messages("livekit-offline")
    assert all(m["retry-in"] > 0 and m["reason"] for m in offline), offline
    assert len(publisher.messages("livekit-connecting")) >= 2
    assert len(publisher.select("warning")) == 1, [w["text"] for w in publisher.select("warning")]
    assert publisher.get("sink", "connection-state") in ("connecting", "reconnecting")

    # A server that is slow to start.
    time.sleep(max(0, publisher.started + 10 - time.monotonic()))
    with LiveKitServer(directory, port=port, keys=(stage.server.key, stage.server.secret)) as late:
        up = time.monotonic()
        elapsed = publisher.wait_published()["t"] - up
        assert elapsed < SERVER_BACK, f"published {elapsed:.2f} s after the server was up"
        with Subscriber(late, stage.room) as viewer:
            viewer.wait_video(frames=15)
        publisher.stop()


def test_file_waits_for_the_server_and_stays_whole(stage, media, tmp_path):
    port = free_port()
    publisher = stage.publish(f"filesrc location={media.main_mp4()} ! qtdemux ! livekitsink name=sink identity=file url=ws://127.0.0.1:{port}", keep_open=True)
    publisher.wait_for("element", "livekit-offline")
    assert not publisher.select("state", state="playing")
    directory = tmp_path / "late-server"
    directory.mkdir()
    with LiveKitServer(directory, port=port, keys=(stage.server.key, stage.server.secret)) as late:
        publisher.wait_for("eos")
        track = publisher.get("sink", "stats")["fields"]["video_0"]["fields"]
        assert track["dropped-not-connected"] == 0, track
        # A machine that stands still for a moment costs frames that are too old afterwards.
        late_frames = sum(track[f"dropped-{why}"] for why in ("queue-full", "waiting-for-keyframe", "closed"))
        assert track["frames-sent"] + late_frames == media.frames and late_frames <= media.frames / 4, track
        # The server asks for a keyframe of its own accord now and then, and gets the pictures since the last one again.
        assert_all_received(sfu_received(late, stage.room, "file")[0], track["frames-sent"] + track["gop-replayed-frames"])


def test_token_file_and_signal_before_token(stage, tmp_path):
    """Order: request-token, token-file, token, key and secret."""
    good, bad = stage.server.token(stage.room, "camera"), "bad.bad.bad"
    path = tmp_path / "token"
    path.write_text(good + "\n")
    publisher = stage.live(sink=f"token-file={path}", env=stage.env(LIVEKIT_TOKEN=bad, LIVEKIT_API_SECRET="z" * 40))
    publisher.wait_published()
    publisher.quit()
    path.write_text(bad)
    publisher = stage.live(sink=f"token-file={path}", env=stage.env(LIVEKIT_TOKEN=bad), keep_open=True)
    at_once(publisher)
    publisher.run(f"""
pipeline.set_state(Gst.State.NULL)
pipeline.get_by_name("sink").connect("request-token", lambda sink: {good!r})
feeders["stamp"].stop()
add_feeder(pipeline.get_by_name("stamp"))
pipeline.set_state(Gst.State.PLAYING)
""")
    wait_until(lambda: publisher.messages("livekit-published"), PATIENCE, lambda: publisher.summary())


def test_missing_token_file(stage, tmp_path):
    path = tmp_path / "nothing-here"
    publisher = stage.live(sink=f"token-file={path}")
    error = at_once(publisher)
    assert str(path) in f"{error['text']} {error['debug']}", error


def test_the_same_identity_twice(stage):
    """The second one takes the place; the first must say so and not fight for it."""
    first = stage.live(keep_open=True)
    first.wait_published()
    second = stage.live()
    second.wait_published()
    error = first.wait_for("error")
    assert (error["domain"], error["code"]) == (RESOURCE, BUSY), error
    assert len(first.messages("livekit-joined")) == 1


def test_removed_from_the_room(stage):
    publisher = stage.live(keep_open=True)
    publisher.wait_published()
    stage.server.api("RemoveParticipant", room=stage.room, identity="camera")
    publisher.wait_for("element", "livekit-disconnected", may_end=True)
