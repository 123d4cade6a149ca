# SPDX-License-Identifier: MIT OR Apache-2.0
"""Being sent away, and going away: each reason is told apart, and what can be come back from is."""

import json
import os
import signal
import time

import pytest
from harness.netns import _ip
from harness.proc import PATIENCE, free_port, wait_until
from harness.server import LiveKitServer
from harness.token import make_token
from harness.uplink import encoder

RESOURCE, CLOSE, NOT_AUTHORIZED = "gst-resource-error-quark", 8, 15
# "Never longer than 2 s whatever the network does", with what a busy machine adds.
TO_NULL = 2.0 + 2.0


def gone(stage, method, word, **body):
    publisher = stage.live(keep_open=True)
    publisher.wait_published()
    stage.server.api(method, room=stage.room, **body)
    error = publisher.wait_for("error")
    assert error["domain"] == RESOURCE and error["code"] == CLOSE and word in error["text"], error
    assert publisher.get("sink", "connection-state") == "failed"
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.messages("livekit-offline"), "it does not fight for its place"


def test_removed_by_somebody(stage):
    gone(stage, "RemoveParticipant", "removed", identity="camera")


def test_removed_and_told_to_come_back(stage):
    publisher = stage.live(sink="identity=camera on-removed=rejoin")
    publisher.wait_published()
    stage.server.api("RemoveParticipant", room=stage.room, identity="camera")
    publisher.wait_published(count=2)
    assert len(publisher.messages("livekit-joined")) == 2


def test_room_deleted(stage):
    gone(stage, "DeleteRoom", "deleted")


def restarted(stage, tmp_path, publisher_of, stop):
    """A publisher whose server is stopped like this and starts again."""
    port, keys = free_port(), (stage.server.key, stage.server.secret)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with LiveKitServer(tmp_path / "first", port=port, keys=keys) as first:
        publisher = publisher_of(f"ws://127.0.0.1:{port}")
        publisher.wait_published()
        stop(first)
    return publisher, LiveKitServer(tmp_path / "second", port=port, keys=keys)


def test_server_shuts_down_and_comes_back(stage, tmp_path):
    """Told to stay away by a server that ends in order, and there again after its restart."""

    def stop(server):
        # The first asks it to wait for its participants to leave, the second to send them away.
        # Two that come before it has looked are one to it, hence again.
        def ended():
            os.kill(server.child.pid, signal.SIGINT)
            return server.child.returncode is not None

        wait_until(ended, PATIENCE, "the server to end", interval=0.3)

    publisher, server = restarted(stage, tmp_path, lambda url: stage.live(sink=f"identity=camera url={url}"), stop)
    with server:
        publisher.wait_published(count=2)
        publisher.stop()


def test_expired_token_of_a_file_is_read_again(stage, tmp_path):
    """While the server is away the token expires; that in the file is replaced later."""
    path = tmp_path / "token"

    def token(ttl):
        return make_token(stage.server.key, stage.server.secret, "camera", stage.room, ttl=ttl)

    path.write_text(token(3600))

    def publish(url):
        env = stage.env(LIVEKIT_URL=url, LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None)
        return stage.live(sink=f"token-file={path}", env=env)

    def stop(server):
        path.write_text(token(-3600))
        server.child.process.kill()

    publisher, server = restarted(stage, tmp_path, publish, stop)
    with server:
        wait_until(lambda: any("401" in m["reason"] for m in publisher.messages("livekit-offline")), PATIENCE, publisher.summary)
        path.write_text(token(3600))
        publisher.wait_published(count=2)
        publisher.stop()


def test_token_of_the_server_takes_over_when_the_first_has_expired(stage, tmp_path):
    """A server gives each participant a token with which it can come back."""
    # Servers allow for clocks that differ by a minute: good for so many seconds more.
    good = 8
    env, ends = {}, []

    def publish(url):
        ends.append(time.monotonic() + good)
        token = make_token(stage.server.key, stage.server.secret, "camera", stage.room, ttl=good - 60)
        env.update(stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=token))
        return stage.live(env={**env, "LIVEKIT_URL": url})

    def stop(server):
        server.child.process.kill()
        time.sleep(max(0, ends[0] + 1 - time.monotonic()))

    publisher, server = restarted(stage, tmp_path, publish, stop)
    with server:
        publisher.wait_published(count=2)
        other = stage.live(env={**env, "LIVEKIT_URL": server.url})
        error = other.wait_for("error")
        assert error["code"] == NOT_AUTHORIZED, "the first token is good no more"
        publisher.stop()


# What a process holds, and of it what belongs to sessions.
HOLDS = """
import os
tasks = sorted(open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task"))
links = []
for fd in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        pass
import json
result = json.dumps({"sockets": sum(l.startswith("socket:") for l in links), "threads": [t for t in tasks if t.startswith("livekit")]})
"""


def at_rest(publisher):
    """What it holds, once of all threads of sessions but the one that they share has gone; else None."""
    holds = json.loads(publisher.run(HOLDS))
    return holds if holds["threads"] == ["livekit-session"] else None


TO_NULL_CODE = """
import time
begin = time.monotonic()
feeders["stamp"].stop()
pipeline.set_state(Gst.State.NULL)
result = time.monotonic() - begin
"""
AGAIN = """
add_feeder(pipeline.get_by_name("stamp"), width=320, height=240)
pipeline.set_state(Gst.State.PLAYING)
"""


@pytest.mark.parametrize("fault", ["stopped", "cable", "silence"])
def test_stopping_takes_no_longer_and_leaves_nothing_behind(make_uplink, fault):
    uplink = make_uplink()
    publisher = uplink.start(f"appsrc name=stamp ! {encoder(kbit=800)} ! livekitsink name=sink", sources={"stamp": {"width": 320, "height": 240}})
    publisher.wait_published()
    assert publisher.run(TO_NULL_CODE) < TO_NULL
    # Helper threads wait for more to do, a second long; then one is left.
    before = wait_until(lambda: at_rest(publisher), PATIENCE, lambda: f"one thread, it holds {publisher.run(HOLDS)}", interval=0.3)
    publisher.run(AGAIN)
    publisher.wait_published(count=2)
    pid = uplink.server.child.pid
    # `ip netns exec` becomes the server: one process.
    if fault == "stopped":
        os.kill(pid, signal.SIGSTOP)
    elif fault == "cable":
        _ip("-n", uplink.namespaces.client, "link", "set", "eth0", "down")
    else:
        uplink.namespaces.refuse("drop")
    try:
        # In the middle of an attempt to resume.
        publisher.wait_for("element", "livekit-resuming")
        elapsed = publisher.run(TO_NULL_CODE)
        print(f"{fault}: NULL after {elapsed:.2f} s")
        assert elapsed < TO_NULL, elapsed
        wait_until(lambda: at_rest(publisher) == before, PATIENCE, lambda: f"{before}, it holds {publisher.run(HOLDS)}", interval=0.3)
    finally:
        if fault == "stopped":
            os.kill(pid, signal.SIGCONT)
