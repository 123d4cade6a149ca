# SPDX-License-Identifier: MIT OR Apache-2.0
"""wss:// through a TLS proxy with a private certificate authority."""

import pytest
from harness.tls import Authority, TlsProxy


@pytest.fixture(scope="module")
def tls(server, tmp_path_factory, needs):
    needs("openssl")
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory / "ca")
    good = authority.issue("good", "DNS:localhost", "IP:127.0.0.1")
    wrong_name = authority.issue("wrong-name", "DNS:elsewhere.example")
    with TlsProxy(directory, good, server.port) as right, TlsProxy(directory, wrong_name, server.port) as wrong:
        yield {"ca": authority.certificate, "good": right.port, "wrong-name": wrong.port, "other-ca": Authority(directory / "other", "Other CA").certificate}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_private_authority(stage, tls, host):
    viewer = stage.view()
    publisher = stage.live(sink=f"identity=camera url=wss://{host}:{tls['good']} tls-ca-file={tls['ca']}")
    publisher.wait_published()
    viewer.wait_video(frames=15)


@pytest.mark.parametrize(
    ("port", "ca"),
    [("good", None), ("good", "other-ca"), ("wrong-name", "ca")],
    ids=["unknown-authority", "other-authority", "wrong-name"],
)
def test_wrong_certificate(stage, tls, port, ca):
    """Refused in plain words, and never a connection in the clear or without the check."""
    option = f"tls-ca-file={tls[ca]}" if ca else ""
    publisher = stage.live(sink=f"identity=camera url=wss://localhost:{tls[port]} {option} reconnect-attempts=0")
    error = publisher.wait_for("error")
    text = f"{error['text']} {error['debug']}".lower()
    assert "certificate" in text, text
    assert not publisher.messages("livekit-joined")
    assert stage.server.participants(stage.room) == []


def test_wrong_certificate_is_tried_again(stage, tls):
    """A board without a clock of its own takes every certificate for one that is not valid yet, until it has the time."""
    publisher = stage.live(sink=f"identity=camera url=wss://localhost:{tls['wrong-name']} tls-ca-file={tls['ca']}")
    publisher.wait_for("element", "livekit-offline", count=2)
    assert all("certificate" in m["reason"] for m in publisher.messages("livekit-offline")), publisher.summary()
    assert not publisher.select("error")


@pytest.mark.parametrize("content", [None, "this is no certificate\n"], ids=["missing", "garbage"])
def test_authority_file_that_can_not_be_used(stage, tls, tmp_path, content):
    path = tmp_path / "authority.pem"
    if content:
        path.write_text(content)
    publisher = stage.live(sink=f"url=wss://localhost:{tls['good']} tls-ca-file={path}")
    error = publisher.wait_for("error")
    assert str(path) in f"{error['text']} {error['debug']}", error
