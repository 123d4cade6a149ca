# SPDX-License-Identifier: MIT OR Apache-2.0
"""Secrets come out nowhere: logs at the highest level, DOT files, gst-launch -v, gst-inspect, error texts, panics."""

import base64
import re
import subprocess

import pytest
from conftest import ENCODER
from harness.publisher import plugin_env


def spellings(secret):
    """A secret as it is, and as a hasty hand might have written it."""
    raw = secret.encode()
    return {secret, base64.b64encode(raw).decode(), raw.hex(), base64.urlsafe_b64encode(raw).decode().rstrip("=")}


def assert_clean(text, where, *secrets):
    for secret in secrets:
        for spelling in spellings(secret):
            at = text.find(spelling)
            assert at < 0, f"{where} shows a secret: …{text[max(0, at - 200) : at]}<SECRET>"


@pytest.mark.parametrize("way", ["environment", "properties", "token", "token-file"])
def test_nothing_shows_them(stage, tmp_path, way):
    server = stage.server
    token = server.token(stage.room, "camera")
    # The signature is the part that makes a token worth stealing; header and claims are public knowledge.
    secrets = [server.secret, server.key, token, token.rpartition(".")[2]]
    dots = tmp_path / "dots"
    dots.mkdir()
    env = {"GST_DEBUG": "*:6", "GST_DEBUG_DUMP_DOT_DIR": dots, "RUST_LOG": "trace", "RUST_BACKTRACE": "1"}
    sink = ["livekitsink", "name=sink"]
    if way == "environment":
        env = stage.env(**env)
    else:
        env = stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=None, **env)
        if way == "properties":
            sink += [f"api-key={server.key}", f"api-secret={server.secret}", f"room={stage.room}"]
        elif way == "token":
            sink += [f"token={token}"]
        else:
            path = tmp_path / "token"
            path.write_text(token)
            sink += [f"token-file={path}"]
    source = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 !".split()
    encoder = [*ENCODER.format(gop=30).split(), "!"]
    launch = stage.launch([*source, *encoder, *sink], env=env, flags=("-v", "-m", "-e"))
    launch.wait_text("livekit-published", interval=0.3)
    launch.interrupt()
    assert launch.wait(60) == 0, launch.tail()
    # gst-launch's own parser writes the command line to the log; the element can't help that.
    log = "\n".join(line for line in launch.log().splitlines() if not re.search(r" (gstparse\.c|grammar\.y|parse\.l|types\.h):", line))
    assert "livekit-published" in log, "the run proves nothing without a join"
    # Every concern has its say, and so have the crates below.
    for said in (r"livekitsink-signalling .*joined room=RM_", r"livekitsink-media .*media transport connected", r"livekitsink-media .*\bstr0m::"):
        assert re.search(said, log), said
    # A leading part is as bad for a short secret: the first 24 characters must not be there either.
    assert_clean(log, "GST_DEBUG=*:6 with -v -m", *secrets, *[s[:24] for s in secrets if not s.startswith("ey")])
    files = list(dots.glob("*.dot"))
    assert files, "no DOT file was written"
    for file in files:
        assert_clean(file.read_text(errors="replace"), file.name, *secrets)


def test_inspect_does_not_show_the_environment(stage):
    server = stage.server
    token = server.token(stage.room, "camera")
    env = stage.env(LIVEKIT_TOKEN=token)
    done = subprocess.run(["gst-inspect-1.0", "livekitsink"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert_clean(done.stdout + done.stderr, "gst-inspect-1.0", server.secret, server.key, token)


@pytest.mark.parametrize("prop", ["token", "api-key", "api-secret"])
def test_secret_properties_can_not_be_read(prop):
    done = subprocess.run(["gst-inspect-1.0", "livekitsink"], env=plugin_env(), capture_output=True, text=True, timeout=30)
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"  {prop} "))
    flags = next(line for line in lines[at:] if "flags:" in line)
    assert "writable" in flags and "readable" not in flags, flags


def test_refusal_does_not_show_the_token(stage):
    token = stage.server.token(stage.room, "camera", ttl=-100)
    env = stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=token, GST_DEBUG="*:6")
    publisher = stage.live(env=env)
    publisher.wait_for("error")
    publisher.wait_exit()
    assert_clean(publisher.child.log() + str(publisher.events), "log or messages of a refusal", token, token.rpartition(".")[2])
