# SPDX-License-Identifier: MIT OR Apache-2.0
"""What README and docs show is what works: pipelines and programs run as they stand there, quotes and links are true."""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.media import remux
from harness.proc import PATIENCE, Child, free_port, wait_until
from harness.publisher import EOS_LIMIT, plugin_env

REPO = Path(__file__).resolve().parents[3]
README = (REPO / "README.md").read_text()
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (run|from): (\S+) -->\n)?```(\w+)\n(.*?)```", re.S)
# (mark, its value, language, text) of each fenced block.
BLOCKS = [m.groups() for m in BLOCK.finditer(README)]
PIPELINES = [(value, text.strip()) for mark, value, _, text in BLOCKS if mark == "run"]
SNIPPETS = [(value, text) for mark, value, _, text in BLOCKS if mark == "from"]
# Encoders that need hardware, and what belongs to them: an encoder for every machine takes their place.
HARDWARE = [
    (r"(?:v4l2h264enc|rkmppenc|nvv4l2h264enc|vah264enc) [^!]*", "x264enc tune=zerolatency speed-preset=ultrafast "),
    (r"nvvidconv ! 'video/x-raw\(memory:NVMM\),format=NV12' ", "videoconvert "),
    (r"! 'video/x-h264,level=\(string\)4' ", ""),
]


def runnable(kind, text, url):
    """The line with what this machine lacks (camera, microphone, hardware) replaced, everything else as it stands."""
    text = re.sub(r"v4l2src device=\S+", "videotestsrc is-live=true pattern=ball", text)
    text = text.replace("alsasrc", "audiotestsrc is-live=true")
    text = text.replace("rtsp://camera.local/stream", url)
    if kind == "hardware":
        replaced = text
        for pattern, other in HARDWARE:
            replaced = re.sub(pattern, other, replaced)
        assert replaced != text, f"marked as hardware, but has none that is known here: {text}"
        text = replaced
    return text


def test_every_pipeline_is_marked():
    """A gst-launch line that nobody runs is one that stops working."""
    unmarked = [text for mark, _, language, text in BLOCKS if language == "sh" and "gst-launch-1.0" in text and mark != "run"]
    assert not unmarked
    assert len(PIPELINES) >= 12 and {kind for kind, _ in PIPELINES} == {"live", "hardware", "file", "rtsp"}


@pytest.fixture(scope="session")
def film(media, tmp_path_factory):
    """A film as they are found: H.264 and AAC."""
    directory = tmp_path_factory.mktemp("film")
    sound = directory / "sound.m4a"
    ffmpeg = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]
    subprocess.run([*ffmpeg, "-f", "lavfi", "-i", "sine=frequency=440:duration=4", "-c:a", "aac", str(sound)], check=True, timeout=60)
    silent, film = remux(media.main_h264(), directory / "silent.mp4"), directory / "film.mp4"
    subprocess.run([*ffmpeg, "-i", str(silent), "-i", str(sound), "-c", "copy", str(film)], check=True, timeout=60)
    return film


@pytest.fixture
def rtsp(tmp_path):
    """The address of a camera that can be asked for key frames; started only when it is asked for."""
    started = []

    def start():
        port = free_port()
        env = plugin_env(PYTHONPATH=str(REPO / "testing" / "e2e"), PYTHONUNBUFFERED="1")
        camera = Child([sys.executable, "-m", "harness.rtspserver", port, "avpf", "2"], tmp_path / "rtsp.log", env=env)
        started.append(camera)
        wait_until(lambda: '"ready"' in camera.log(), PATIENCE, lambda: f"the RTSP server:\n{camera.tail()}")
        return f"rtsp://127.0.0.1:{port}/camera"

    yield start
    for camera in started:
        camera.stop()


@pytest.mark.parametrize("kind,text", PIPELINES, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(PIPELINES)])
def test_pipeline(kind, text, stage, tmp_path, film, rtsp):
    (tmp_path / "film.mp4").symlink_to(film)
    line = runnable(kind, text, rtsp() if kind == "rtsp" else "")
    videos = max(1, len(set(re.findall(r"\.(video_\d+)", text.replace("demux.", "demux_")))))
    viewer = stage.view()
    # As a user would: the shell splits the words. `exec`, so that a signal reaches gst-launch itself.
    child = Child(["bash", "-c", f"exec {line}"], tmp_path / "pipeline.log", env=stage.env(), cwd=tmp_path)
    try:
        wanted = 60 if kind == "file" else 20
        try:
            wait_until(lambda: sum(len(f.arrivals) >= wanted for f in list(viewer.video)) >= videos, PATIENCE, "pictures")
            if "opusenc" in line:
                viewer.wait_sound()
        except AssertionError as e:
            raise AssertionError(f"{e}\n{line}\n{child.tail()}") from None
        assert len(viewer.video) == videos and all(f.arrivals[-1].spread > 100 for f in viewer.video), "a blank picture"
        for name in re.findall(r"track-name=(\w+)", text):
            assert name in [f.name for f in viewer.video]
        if kind != "file":
            child.interrupt()
        assert child.wait(EOS_LIMIT + PATIENCE) == 0, child.tail()
        complaints = [x for x in child.log().splitlines() if x.startswith(("WARNING", "ERROR")) and "livekitsink" in x]
        if "recording.mp4" in text:
            # The one that the page announces.
            assert complaints and "also feeds another branch" in complaints.pop(), child.log()
        assert not complaints, child.log()
        wait_until(lambda: not [p for p in stage.server.participants(stage.room) if p["identity"] != "viewer"], EOS_LIMIT, "the publisher to leave")
        if "recording.mp4" in text:
            probe = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", "recording.mp4"]
            assert int(subprocess.run(probe, cwd=tmp_path, check=True, capture_output=True, timeout=30).stdout) >= 20
    finally:
        child.stop()


@pytest.mark.parametrize("path,text", SNIPPETS, ids=[f"{n}-{Path(p).name}" for n, (p, _) in enumerate(SNIPPETS)])
def test_snippet_is_from_the_file(path, text):
    assert text in (REPO / path).read_text(), f"README shows other lines than {path} has"


def watch_program(stage, argv, directory, track, env=None, identity=None):
    """The program's picture arrives; Ctrl-C makes it leave and end well."""
    viewer = stage.view()
    program = Child(argv, directory / "program.log", env=env or stage.env(), cwd=REPO)
    try:
        try:
            feed = viewer.wait_video(track, frames=30)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{program.tail()}") from None
        assert feed.arrivals[-1].spread > 100 and identity in (None, feed.publisher)
        program.interrupt()
        assert program.wait(EOS_LIMIT + PATIENCE) == 0, program.tail()
        log = program.log()
        for said in ("livekit-joined", "livekit-published", "frames-sent"):
            assert said in log, f"{said} is missing:\n{log}"
        assert stage.server.secret not in log
        stage.server.wait_gone(stage.room, feed.publisher)
    finally:
        program.stop()


def refused_program(stage, argv, directory):
    """With a wrong secret the program says why and ends with an error."""
    program = Child(argv, directory / "refused.log", env=stage.env(LIVEKIT_API_SECRET="wrong" * 8), cwd=REPO)
    try:
        assert program.wait(PATIENCE) == 1, program.tail()
        assert "error: The server refused the credentials (HTTP 401)" in program.log(), program.log()
    finally:
        program.stop()


PYTHON = [sys.executable, REPO / "examples" / "embed" / "publish.py"]


def test_python_program(stage, tmp_path):
    watch_program(stage, PYTHON, tmp_path, "front")
    refused_program(stage, PYTHON, tmp_path)


def test_python_program_with_tokens_from_a_command(stage, tmp_path):
    token = tmp_path / "token"
    token.write_text(stage.server.token(stage.room, "from-command"))
    env = stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_ROOM=None)
    watch_program(stage, [*PYTHON, "--token-command", f"cat {shlex.quote(str(token))}"], tmp_path, "front", env=env, identity="from-command")


def cargo_build(*what):
    """Builds and gives the folder of the results. What it needs is built already when scripts/test runs."""
    subprocess.run(["cargo", "build", "--locked", "--quiet", *what], cwd=REPO, check=True, timeout=900)
    return Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target") / "debug"


@pytest.mark.slow
def test_rust_program(stage, tmp_path):
    program = [cargo_build("-p", "rust-app") / "rust-app"]
    watch_program(stage, program, tmp_path, "front")
    refused_program(stage, program, tmp_path)


@pytest.mark.slow
def test_rust_program_without_gstreamer(stage, tmp_path, media):
    program = cargo_build("-p", "livekit-session", "--example", "publish_file") / "examples" / "publish_file"
    viewer = stage.view()
    with Child([program, media.main_h264()], tmp_path / "program.log", env=stage.env()) as child:
        feed = viewer.wait_video("file", frames=60)
        assert child.wait(PATIENCE) == 0, child.tail()
    assert feed.publisher == "publish-file" and feed.report()["unreadable"] == 0


@pytest.mark.parametrize("grants", [{"canSubscribe": False}, {"canSubscribe": True}, {"canPublish": True, "canPublishSources": ["camera"]}], ids=str)
def test_grants_that_the_table_promises(stage, grants):
    token = stage.server.token(stage.room, "camera", **grants)
    publisher = stage.live(sink="", env=stage.env(LIVEKIT_TOKEN=token, LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_ROOM=None))
    publisher.wait_published()
    stage.view().wait_video(frames=10)


def rust_texts():
    """All Rust sources in one text: string continuations joined, lower case, because the element capitalises."""
    sources = [p for d in ("plugins", "crates") for p in sorted((REPO / d).rglob("*.rs"))]
    text = "\n".join(p.read_text() for p in sources)
    return re.sub(r"\\\n\s*", "", text).replace('\\"', '"').lower()


def test_quoted_messages_exist():
    """Troubleshooting quotes what the element says, word by word."""
    page = (REPO / "docs" / "troubleshooting.md").read_text()
    quotes = re.findall(r"^> (.*)$", page, re.M)
    assert len(quotes) > 15
    quotes += [row[0] for row in re.findall(r"^\| (it [^|]*|no certificate[^|]*?) \|(.*)$", page, re.M) if "goes on with" not in row[0]]
    texts = rust_texts()
    # Parts of a message can come from several places in the source, joined by ": ".
    parts = [part for quote in quotes for piece in quote.split("…") for part in ([piece] if piece.lower().strip(" :.") in texts else piece.split(": "))]
    missing = [part for part in parts if len(part.strip(" :.,()")) > 3 and part.lower().strip(" :.,()") not in texts]
    assert not missing, missing


def anchors(path):
    """Anchors of a page as GitHub makes them of its headings, and those set by hand."""
    text = path.read_text()
    made = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@functools.cache
def sources():
    return [p for place in ("testing", "plugins", "crates") for p in (REPO / place).rglob("*") if p.suffix in (".py", ".rs")]


def exists(test):
    """Whether there is a test that a page calls file::name."""
    file, name = test.split("::")
    found = [p for p in sources() if p.as_posix().endswith("/" + file)]
    return any(re.search(rf"^\s*(?:async )?(?:def|fn) {name}\(", p.read_text(), re.M) for p in found)


def test_feature_table_names_tests_that_exist():
    """Each of our claims in the plugin's feature table names at least one test, and each of those is there."""
    readme = (REPO / "plugins" / "gst-plugin-livekit" / "README.md").read_text()
    section = readme.split("\n## Beside other publishers\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 40
    for feature, claim, proof, *_ in rows:
        named = re.findall(r"`([^`]+)`", proof)
        if claim.startswith("no"):
            assert not named, f"{feature}: claims nothing, but names {named}"
            continue
        assert named or "not tested" in claim, f"{feature}: no test proves it"
        for test in named:
            assert exists(test), f"{feature}: {test} does not exist"


def test_fault_table_names_tests_that_exist():
    readme = (REPO / "plugins" / "gst-plugin-livekit" / "README.md").read_text()
    section = readme.split("\n## What happens when …\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 15
    for fault, *_, proof in rows:
        named = re.findall(r"`([^`]+::[^`]+)`", proof)
        assert named and all(exists(test) for test in named), f"{fault}: {proof}"
