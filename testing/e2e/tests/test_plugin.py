# SPDX-License-Identifier: MIT OR Apache-2.0
"""The plugin as a file: loads anywhere, is described completely, asks no newer GStreamer than promised."""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import ENCODER
from harness.netns import without_network
from harness.publisher import plugin_env

REPO = Path(__file__).resolve().parents[3]
OLDEST = (1, 16)
NAMESPACES = {"core": "http://www.gtk.org/introspection/core/1.0", "c": "http://www.gtk.org/introspection/c/1.0"}


def library():
    for folder in os.environ.get("GST_PLUGIN_PATH", "").split(":"):
        path = Path(folder) / "libgstlivekit.so"
        if folder and path.exists():
            return path
    raise AssertionError("GST_PLUGIN_PATH has no libgstlivekit.so")


def inspect(*words, env=None, prefix=()):
    done = subprocess.run([*prefix, "gst-inspect-1.0", *words], env=env or plugin_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_loads_without_network_and_variables(tmp_path):
    prefix = without_network()
    if prefix is None:
        pytest.skip("this user may make no network namespace")
    # A registry of its own, so that the file is really loaded.
    env = plugin_env(GST_REGISTRY=tmp_path / "registry.bin", HOME=tmp_path)
    out = inspect("livekitsink", env=env, prefix=prefix)
    assert "GstLiveKitSink" in out


def test_loading_starts_nothing(tmp_path):
    """No thread and no socket at plugin load or when the element is made."""
    code = (
        "import gi, os; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
        "n = len(os.listdir('/proc/self/task')); f = len(os.listdir('/proc/self/fd'))\n"
        "Gst.Registry.get().find_plugin('livekit').load(); e = Gst.ElementFactory.make('livekitsink'); assert e\n"
        "print(len(os.listdir('/proc/self/task')) - n, len([x for x in os.listdir('/proc/self/fd') if 'socket' in (os.readlink('/proc/self/fd/' + x) if os.path.lexists('/proc/self/fd/' + x) else '')]))"
    )
    done = subprocess.run(["/usr/bin/python3", "-c", code], env=plugin_env(), capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["0", "0"], done.stdout + done.stderr


def introduced():
    """C name -> GStreamer version, of every function and variable that GIR files know."""
    folder = Path("/usr/share/gir-1.0")
    versions = {}
    for file in folder.glob("Gst*-1.0.gir"):
        for parent in ET.parse(file).getroot().iter():
            newest = parent.get("version")
            for node in parent:
                name = node.get(f"{{{NAMESPACES['c']}}}identifier") or node.get("{http://www.gtk.org/introspection/glib/1.0}get-type")
                if name and (node.get("version") or newest):
                    since = node.get("version") or newest
                    if re.fullmatch(r"\d+\.\d+(\.\d+)?", since):
                        versions[name] = tuple(map(int, since.split(".")))[:2]
    return versions


def test_no_symbol_newer_than_the_oldest_gstreamer():
    versions = introduced()
    assert len(versions) > 500 and versions["gst_element_request_pad_simple"] == (1, 20), "the GIR files are not what this test thinks"
    out = subprocess.run(["nm", "-D", "--undefined-only", library()], capture_output=True, text=True, check=True).stdout
    used = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    ours = {s for s in used if s.startswith("gst_")}
    assert len(ours) > 30, sorted(ours)
    newer = {s: versions[s] for s in ours if versions.get(s, (1, 0)) > OLDEST}
    assert not newer, f"newer than GStreamer {OLDEST}: {newer}"


def properties(text):
    """name -> description line of each property in gst-inspect-1.0's output; those every bin has left out."""
    found = dict(re.findall(r"^  ([a-z][a-z0-9-]+) *: (.*)$", text.partition("Element Properties:")[2].partition("Element Signals:")[0], re.M))
    return {k: v for k, v in found.items() if k not in ("name", "parent", "async-handling", "message-forward")}


def test_readme_lists_the_properties():
    readme = (REPO / "plugins/gst-plugin-livekit/README.md").read_text()
    listed = set(re.findall(r"^\| `([a-z][a-z0-9-]+)` \|", readme.partition("## Element properties")[2].partition("\n## ")[0], re.M))
    there = set(properties(inspect("livekitsink")))
    assert listed == there, f"only in the README: {listed - there}; only in the element: {there - listed}"


def test_every_property_is_described():
    for name, blurb in properties(inspect("livekitsink")).items():
        assert len(blurb) > 15, f"{name}: {blurb!r}"


def test_messages_in_the_readme():
    readme = (REPO / "plugins/gst-plugin-livekit/README.md").read_text()
    for name in ("connecting", "joined", "published", "unpublished", "keyframe-request", "bandwidth-estimate", "subscribed-quality", "participant-joined",
                 "participant-left", "connection-quality", "offline", "disconnected"):  # fmt: skip
        assert f"`livekit-{name}`" in readme, name


def test_clean_with_fatal_warnings(stage):
    """Neither GLib nor GStreamer has a critical or a warning to say in a whole run."""
    viewer = stage.view()
    launch = stage.launch(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240 ! " + ENCODER.format(gop=30) + " ! livekitsink name=sink "
        "audiotestsrc is-live=true ! opusenc ! sink.",
        flags=("-m", "-e"),
        env=stage.env(G_DEBUG="fatal-warnings", G_ENABLE_DIAGNOSTIC="1"),
    )
    viewer.wait_video(frames=10)
    launch.interrupt()
    assert launch.wait(60) == 0, launch.tail()
    assert "CRITICAL" not in launch.log()


def test_inspect_with_fatal_warnings(tmp_path):
    inspect("livekitsink", env=plugin_env(G_DEBUG="fatal-warnings", GST_REGISTRY=tmp_path / "registry.bin"))
