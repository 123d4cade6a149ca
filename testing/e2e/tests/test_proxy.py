# SPDX-License-Identifier: MIT OR Apache-2.0
"""Signalling through an HTTP proxy that the environment names; media goes its own way."""

import base64

import pytest
from harness.connectproxy import ConnectProxy
from harness.proc import PATIENCE, wait_until
from harness.tls import Authority, TlsProxy

# A name that nobody can look up: the proxy does.
HOST = "room.invalid"
LOGIN, PASSWORD = "camera:so%40hush", "so@hush"


@pytest.fixture
def proxy():
    with ConnectProxy(login=f"camera:{PASSWORD}") as p:
        yield p


def env(stage, scheme="ws", port=None, **more):
    return stage.env(LIVEKIT_URL=f"{scheme}://{HOST}:{port or stage.server.port}", **more)


def assert_hushed(publisher):
    text = publisher.child.log() + str(publisher.events)
    for spelling in (PASSWORD, LOGIN, base64.b64encode(f"camera:{PASSWORD}".encode()).decode()):
        assert spelling not in text, "the log or a message shows the proxy's password"


def test_signalling_goes_through_the_proxy_and_comes_back_through_it(stage, proxy):
    viewer = stage.view()
    publisher = stage.live(env=env(stage, HTTP_PROXY=f"http://{LOGIN}@127.0.0.1:{proxy.port}", GST_DEBUG="*:6"))
    publisher.wait_published()
    feed = viewer.wait_video(frames=15)
    tunnel = (f"{HOST}:{stage.server.port}", 200)
    assert set(proxy.asked) == {tunnel}
    before = len(proxy.asked)
    proxy.cut()
    publisher.wait_for("element", "livekit-resumed")
    assert set(proxy.asked) == {tunnel} and len(proxy.asked) > before
    assert len(publisher.messages("livekit-joined")) == 1 and not feed.ended
    publisher.quit()
    assert_hushed(publisher)


def test_wrong_login_is_an_error_that_says_so(stage, proxy):
    proxy.login = "camera:another"
    publisher = stage.live(env=env(stage, http_proxy=f"http://{LOGIN}@127.0.0.1:{proxy.port}", GST_DEBUG="*:6"))
    error = publisher.wait_for("error")
    for word in (f"http://127.0.0.1:{proxy.port}", "407", "refuses the user and password", "http_proxy"):
        assert word in error["text"], error
    # Of one attempt: the connection, and the request what was wrong with it.
    assert len(publisher.messages("livekit-connecting")) == 1 and {status for _, status in proxy.asked} == {407}
    publisher.wait_exit()
    assert_hushed(publisher)


def test_proxy_that_does_not_let_through_is_told_from_a_network_that_is_away(stage, proxy):
    proxy.status = 403
    publisher = stage.live(env=env(stage, all_proxy=f"camera:so%40hush@127.0.0.1:{proxy.port}"))
    reason = publisher.wait_for("element", "livekit-offline")["fields"]["reason"]
    assert f"does not allow a tunnel to {HOST}:{stage.server.port} (HTTP 403)" in reason and "proxy" in reason, reason
    wait_until(lambda: publisher.warnings("proxy", "no_proxy"), PATIENCE, publisher.summary)
    # Nothing of this is final.
    proxy.status = 200
    publisher.wait_published()


def test_wss_through_a_proxy_that_speaks_tls(stage, proxy, tmp_path, needs):
    """TLS to the proxy, and in its tunnel TLS to the server: each is asked for its own name."""
    needs("openssl")
    authority = Authority(tmp_path / "ca")
    certificates = [authority.issue("server", f"DNS:{HOST}"), authority.issue("proxy", "DNS:localhost")]
    with TlsProxy(tmp_path, certificates[0], stage.server.port) as server, TlsProxy(tmp_path, certificates[1], proxy.port) as outer:
        through = env(stage, "wss", server.port, HTTPS_PROXY=f"https://{LOGIN}@localhost:{outer.port}")
        publisher = stage.live(sink=f"identity=camera tls-ca-file={authority.certificate}", env=through)
        publisher.wait_published()
        assert set(proxy.asked) == {(f"{HOST}:{server.port}", 200)}
        other = stage.live(sink="identity=other reconnect-attempts=0", env=through)
        text = other.wait_for("error")["text"]
        assert f"proxy https://localhost:{outer.port}" in text and "its TLS certificate was refused" in text, text
