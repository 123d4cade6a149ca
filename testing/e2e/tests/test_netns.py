# SPDX-License-Identifier: MIT OR Apache-2.0
"""A server on an address that is not loopback, in network namespaces of the test's own."""

import json
import sys
from pathlib import Path

import pytest
from harness.netns import Namespaces, NotPermitted
from harness.proc import PATIENCE, Child
from harness.publisher import Publisher, plugin_env
from harness.server import LiveKitServer

E2E = Path(__file__).resolve().parent.parent


def test_server_on_another_host(tmp_path, room):
    try:
        namespaces = Namespaces()
    except NotPermitted as e:
        pytest.skip(f"needs root: {e}")
    with namespaces:
        with LiveKitServer(tmp_path, address=namespaces.server_address, prefix=namespaces.inside(namespaces.server)) as server:
            env = plugin_env(LIVEKIT_URL=server.url, LIVEKIT_TOKEN=server.token(room, "camera"))
            inside = namespaces.inside(namespaces.client)
            pipeline = "appsrc name=stamp ! x264enc name=enc tune=zerolatency speed-preset=ultrafast key-int-max=300 ! livekitsink name=sink"
            with Publisher(pipeline, tmp_path / "publisher.log", sources={"stamp": {}}, keyunit=["enc"], env=env, prefix=inside) as publisher:
                publisher.wait_published()
                options = {"url": server.url, "token": server.token(room, "viewer"), "room": room, "frames": 45}
                command = [*inside, sys.executable, "-m", "harness.subscriber", json.dumps(options)]
                with Child(command, tmp_path / "viewer.log", cwd=E2E) as viewer:
                    assert viewer.wait(2 * PATIENCE) == 0, viewer.tail()
                    report = json.loads(viewer.log().splitlines()[-1])
                assert report["whole"] and report["received"] >= 45, report
                assert not publisher.select("error")
