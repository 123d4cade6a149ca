# SPDX-License-Identifier: MIT OR Apache-2.0
"""The README of mjpeg-rtp-streamer, as a newcomer pastes it; and its systemd unit."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from harness.proc import Child, wait_until
from rtpjpeg_harness.receivers import listening
from rtpjpeg_harness.streamer import ask, binary, even_port

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "mjpeg-rtp-streamer"
README = (FOLDER / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- run: (\S+) -->\n```sh\n(.*?)```", README, re.S))
CONFIG = re.search(r"<!-- config -->\n```toml\n(.*?)```", README, re.S).group(1)
PORTS = (5000, 5001, 5002, 5003)


@pytest.fixture
def demo(tmp_path):
    """The service without a configuration; its ports are fixed, so they may be taken on a developer's machine."""
    if any(listening(port) for port in PORTS):
        pytest.skip("one of the ports 5000 to 5003 is in use")
    assert BLOCKS["demo"] == "cargo run -p mjpeg-rtp-streamer\n"
    with Child([binary()], tmp_path / "streamer.log", cwd=tmp_path) as streamer:
        wait_until(lambda: len(list(tmp_path.glob("camera?.sdp"))) == 2, 60, lambda: streamer.tail())
        yield streamer


def paste(text, log, cwd, env=None):
    # The first word after any assignments is replaced by the shell, so that a signal reaches the program.
    return Child(["sh", "-c", "exec " + text.strip()], log, cwd=cwd, env={**os.environ, **(env or {})})


def test_every_block_runs_here():
    assert sorted(BLOCKS) == ["both", "config", "demo", "ffplay", "gstreamer"]
    lines = re.sub(r"<!-- run: (\S+) -->\n```sh\n(.*?)```", "", README, flags=re.S)
    assert "gst-launch" not in lines and "ffplay -" not in lines and "cargo run" not in lines


def test_ffplay(demo, tmp_path, needs):
    needs("ffplay")
    text = BLOCKS["ffplay"].replace("ffplay ", "ffplay -loglevel debug ")
    with paste(text, tmp_path / "ffplay.log", tmp_path, {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}) as player:
        # Before the first picture is shown, its clock is "nan".
        wait_until(lambda: "1280x720" in player.log() and re.search(r"\d\.\d+ +M-V:", player.log()), 60, lambda: player.tail())
        assert "Error" not in player.log(), player.tail()


@pytest.mark.parametrize("block,screens", [("gstreamer", 1), ("both", 2)])
def test_gstreamer(demo, block, screens, tmp_path):
    text, number = BLOCKS[block], iter("ab")
    assert text.count("autovideosink") == screens
    text = re.sub("autovideosink", lambda _: f"fakesink name=screen-{next(number)} silent=false sync=true", text).replace("gst-launch-1.0", "gst-launch-1.0 -v")
    with paste(text, tmp_path / "receiver.log", tmp_path) as receiver:
        for name in "ab"[:screens]:
            chains = f"screen-{name}: last-message = chain"
            wait_until(lambda: receiver.log().count(chains) > 20, 60, lambda: f"{receiver.tail(5)}\n{demo.tail()}")
        assert "WARNING" not in receiver.log() and "width=(int)1280, height=(int)720" in receiver.log()


def test_configuration(tmp_path):
    """With test pictures in the place of the cameras, and this machine in that of the receiver."""
    port, web = even_port(), even_port()
    text = CONFIG.replace('"/dev/video0"', '"test"').replace('"/dev/video2"', '"test"').replace("192.0.2.10", "127.0.0.1").replace("9464", str(web))
    (tmp_path / "cameras.toml").write_text(text.replace("dest_port = 5000", f"dest_port = {port}").replace("dest_port = 5002", f"dest_port = {port + 2}"))
    check, run = (line.replace("cargo run -p mjpeg-rtp-streamer --", binary()) for line in BLOCKS["config"].strip().splitlines())
    assert "2 cameras" in subprocess.run(["sh", "-c", check], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=90).stdout
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, paste(run, tmp_path / "streamer.log", tmp_path) as streamer:
        receiver.bind(("127.0.0.1", port))
        receiver.settimeout(20)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        data, extra, *_ = receiver.recvmsg(2000, 100)
        assert data[8:12] == bytes.fromhex("DEADBEEF") and data[18:20] == bytes([1920 // 8, 1080 // 8]) and len(data) <= 1400
        assert extra[0][2][0] >> 2 == 34, streamer.tail()


def test_tables_name_every_key():
    """Each key that the service knows stands in the README, with its default."""
    for table, names in (("", "enabled mtu dscp pacing sdp_dir stats"), (".stats", "interval json prometheus")):
        assert_known(table, names)
    assert_known(".camera1", "enabled name device width height fps quality dest_host dest_port ssrc pt restart_interval multicast_ttl pacing")


def assert_known(table, names):
    listing = known(table)
    assert listing == set(names.split()), listing
    missing = [name for name in listing - {"stats"} if f"`{name}`" not in README]
    assert not missing, missing


def known(table):
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"mjpeg-rtp-streamer-{os.getpid()}.toml"
    try:
        path.write_text(f"[mjpeg-rtp]\n[mjpeg-rtp{table}]\nnonsense = 1\n" if table else "[mjpeg-rtp]\nnonsense = 1\n")
        return set(re.search(r"unknown key 'nonsense'; known are (.*)", ask("--config", path, "--check-config").stderr).group(1).split(", "))
    finally:
        path.unlink(missing_ok=True)


def test_systemd_accepts_the_unit(tmp_path, needs):
    needs("systemd-analyze")
    text = (FOLDER / "mjpeg-rtp-streamer.service").read_text()
    unit = tmp_path / "mjpeg-rtp-streamer.service"
    unit.write_text(text.replace("/usr/local/bin/mjpeg-rtp-streamer", binary()))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("mjpeg-rtp-streamer.service") or str(unit) in line]
    assert not complaints, done.stderr
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=25", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:]
