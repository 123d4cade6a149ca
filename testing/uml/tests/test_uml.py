# SPDX-License-Identifier: MIT OR Apache-2.0
"""The test kernel itself: how commands run in it, and that its V4L2 encoder and dma-buf heap work."""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import time

import pytest

UML = pathlib.Path(__file__).resolve().parents[1]
RUN = UML / "run"


def run(*words, check=True, **options):
    """Runs `run WORDS`, which has two minutes of its own."""
    done = subprocess.run([RUN, *words], capture_output=True, timeout=240, **options)
    if check:
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done


def processes_with(text):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            pass
    return found


def fwht_frames(data):
    """Splits what v4l2fwhtenc wrote: a frame is a header (linux/v4l2-controls.h, struct fwht_cframe_hdr) and its size."""
    frames, at = [], 0
    while at < len(data):
        magic1, magic2, _version, width, height = struct.unpack_from(">IIIII", data, at)
        assert (magic1, magic2) == (0x4F4F4F4F, 0xFFFFFFFF), f"no frame begins at byte {at} of {len(data)}"
        (size,) = struct.unpack_from(">I", data, at + 40)
        assert size > 0
        frames.append((width, height))
        at += 44 + size
    assert at == len(data), "the last frame is cut short"
    return frames


def test_status_and_both_outputs_are_the_commands_own():
    done = run("sh", "-c", "echo to stdout; echo to stderr >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"to stdout\n", b"to stderr\n")


def test_long_output_is_whole():
    wanted = b"".join(b"%d\n" % number for number in range(1, 200001))
    assert run("seq", "1", "200000").stdout == wanted


def test_words_folder_and_environment_arrive():
    words = ["a b", "'", '"$HOME"', "ä\n", ""]
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['UML_TEST_WORD']]))"
    done = run("/usr/bin/python3", "-c", code, *words, cwd=UML / "tests", env=os.environ | {"UML_TEST_WORD": "x 'y' $z\n"})
    assert json.loads(done.stdout) == [words, str(UML / "tests"), "x 'y' $z\n"]


def test_only_the_results_folder_keeps_what_is_written(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    beside = tmp_path / "beside"
    script = f'echo lost >{beside} && cat {beside} && echo kept >"$UML_RESULTS/kept" && rm -f {UML / "run"} && ! test -e {UML / "run"}'
    done = run("--results", results, "sh", "-c", script)
    assert done.stdout == b"lost\n"
    assert (results / "kept").read_text() == "kept\n"
    assert not beside.exists()
    assert RUN.exists()


def test_a_command_that_hangs_is_ended_and_leaves_no_process(tmp_path):
    start = time.monotonic()
    # Long enough to boot on a machine that is busy.
    done = run("--timeout", "20", "--kernel-arg", f"UML_TEST_MARK={tmp_path}", "sh", "-c", "echo began; sleep 600", check=False)
    assert done.returncode == 124
    assert done.stdout == b"began\n"
    assert b"not done after 20 s: sh -c" in done.stderr
    assert time.monotonic() - start < 80
    assert processes_with(str(tmp_path)) == []


def test_a_signal_ends_the_kernel_too(tmp_path):
    words = [RUN, "--kernel-arg", f"UML_TEST_MARK={tmp_path}", "sh", "-c", "echo began; sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"began\n"
        assert processes_with(str(tmp_path)) != []
        process.terminate()
        assert process.wait(60) == 143
    deadline = time.monotonic() + 60
    while processes_with(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(str(tmp_path)) == []


def test_a_kernel_that_does_not_boot_is_an_error(tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_text("#!/bin/sh\necho this is no kernel\nexit 0\n")
    kernel.chmod(0o755)
    done = run("true", check=False, env=os.environ | {"UML_KERNEL": str(kernel)})
    assert done.returncode == 125
    assert b"this is no kernel" in done.stderr
    assert b"ended before the command did" in done.stderr


def test_an_init_that_dies_is_an_error():
    done = run("--kernel-arg", "init=/bin/false", "true", check=False)
    assert done.returncode == 125
    assert b"ended before the command did" in done.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        ([], b"no command"),
        (["--timeout", "soon", "true"], b"want a number"),
        (["--cameras", "9", "true"], b"from 0 to 4"),
        (["--results", "/nowhere/at/all", "true"], b"no such folder"),
        (["--colour", "true"], b"no option is called --colour"),
    ],
)
def test_wrong_options_are_refused(words, message):
    done = run(*words, check=False)
    assert done.returncode == 125
    assert message in done.stderr


def test_the_kernel_is_built_once():
    first = subprocess.run([UML / "build"], capture_output=True, text=True, check=True)
    again = subprocess.run([UML / "build"], capture_output=True, text=True, check=True)
    assert first.stdout == again.stdout
    assert "building" not in again.stderr
    assert os.access(again.stdout.strip(), os.X_OK)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run without privileges already")
def test_no_privilege_is_needed():
    kernel = subprocess.run([UML / "build"], capture_output=True, text=True, check=True).stdout.strip()
    # Another user may not look into this checkout, nor into root's cache folder.
    home = pathlib.Path(tempfile.mkdtemp(prefix="uml-user.", dir="/tmp"))
    try:
        for part in ("testing/uml", "scripts/lib"):
            shutil.copytree(UML.parents[1] / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(kernel, home / "linux")
        (home / "cache").mkdir()
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        (home / "cache").chmod(0o777)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "UML_KERNEL": str(home / "linux"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", home / "testing/uml/run"]
        script = 'id -u; /usr/bin/python3 testing/uml/guest/dmabuf.py && echo kept >"$UML_RESULTS/kept" && echo done'
        done = subprocess.run(
            [*words, "sh", "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("0\n{") and done.stdout.endswith("done\n")
    finally:
        shutil.rmtree(home)


def test_the_encoder_and_only_it_is_there():
    names = run("sh", "-c", "cat /sys/class/video4linux/*/name").stdout.split()
    assert names == [b"stateful-encoder", b"stateful-decoder", b"stateless-decoder", b"vim2m"]
    single = run("v4l2-ctl", "-d", "/dev/video0", "--info").stdout.decode()
    assert re.search(r"Video Memory-to-Memory$", single, re.M) and "Multiplanar" not in single
    multi = run("--multiplanar", "v4l2-ctl", "-d", "/dev/video0", "--info").stdout.decode()
    assert "Video Memory-to-Memory Multiplanar" in multi


def test_cameras_on_demand():
    listed = run("--cameras", "2", "v4l2-ctl", "--list-devices").stdout.decode()
    assert listed.count("vivid (") == 2


def test_gstreamer_encodes_every_frame(tmp_path):
    pipeline = (
        "videotestsrc num-buffers=30 pattern=ball ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1"
        f" ! v4l2fwhtenc ! filesink location={tmp_path}/out.fwht"
    )
    run("--results", tmp_path, "gst-launch-1.0", "-q", *pipeline.split())
    assert fwht_frames((tmp_path / "out.fwht").read_bytes()) == [(640, 480)] * 30


def test_a_dma_buf_from_the_heap_is_encoded_like_a_mapped_buffer():
    got = json.loads(run("/usr/bin/python3", UML / "guest" / "dmabuf.py").stdout)
    assert got["times"] == got["sent"]
    assert got["magic"] == "4f4f4f4fffffffff"
    assert got["same"] is True
    assert got["different_pictures"] == len(got["sent"]) == 6
