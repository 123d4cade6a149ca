# SPDX-License-Identifier: MIT OR Apache-2.0
"""mjpeg-rtp-streamer as a process: what receivers get, failures of one camera, signals, figures."""

import json
import re
import socket
import struct
import time
import urllib.request

import pytest
from harness.proc import Child, free_port, wait_until
from rtpjpeg_harness import pictures
from rtpjpeg_harness.receivers import waiting
from rtpjpeg_harness.streamer import CameraServer, Listener, Streamer, ask, binary, camera, even_port

CLOCK_RATE = 90000


@pytest.fixture
def ports():
    first = even_port()
    return first, next(port for port in iter(even_port, None) if port != first)


def ffmpeg(sdp, seconds, log, cwd):
    argv = ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-protocol_whitelist", "file,udp,rtp", "-buffer_size", "2000000"]
    return Child([*argv, "-i", sdp, "-t", seconds, "-f", "framemd5", "-"], log, cwd=cwd)


def decoded(log):
    """(size, hash) of each picture in a framemd5 listing."""
    rows = (line.split(",") for line in log.splitlines() if line.startswith("0,"))
    return [(int(row[4]), row[5].strip()) for row in rows]


def test_without_a_configuration_two_test_pictures_are_sent(tmp_path):
    """The default, on fixed ports: they may be taken on a developer's machine."""
    try:
        first, second = Listener(5000), Listener(5002)
    except OSError as error:
        pytest.skip(f"ports 5000 to 5003 are in use: {error}")
    with first, second, Child([binary()], tmp_path / "streamer.log", cwd=tmp_path) as streamer:
        wait_until(lambda: first.frames() > 20 and second.frames() > 20, 60, lambda: streamer.tail())
        assert not first.gaps() and not second.gaps()
        assert {packet.ssrc for packet in first.packets} != {packet.ssrc for packet in second.packets}
        assert sorted(path.name for path in tmp_path.glob("*.sdp")) == ["camera1.sdp", "camera2.sdp"]


def test_ffmpeg_receives_both_streams_for_five_seconds(tmp_path, ports, needs):
    needs("ffmpeg")
    cameras = [camera(1, ports[0], width=640, height=480), camera(2, ports[1], device="test:smpte", quality=50)]
    with Streamer(tmp_path, cameras) as streamer:
        wait_until(lambda: len(list(tmp_path.glob("*.sdp"))) == 2, 60, lambda: streamer.tail())
        with ffmpeg("camera1.sdp", 5, tmp_path / "1.log", tmp_path) as one, ffmpeg("camera2.sdp", 5, tmp_path / "2.log", tmp_path) as two:
            assert one.wait(60) == 0, one.tail()
            assert two.wait(60) == 0, two.tail()
            shown = [decoded(one.log()), decoded(two.log())]
        for pictures_shown, size in zip(shown, (640 * 480, 320 * 240)):
            # 125 in 5 s, but less on a busy machine; all of the wanted size, and moving.
            assert len(pictures_shown) > 60, len(pictures_shown)
            assert {bytes_ for bytes_, _ in pictures_shown} == {size * 3 // 2}
            assert len({hash_ for _, hash_ in pictures_shown}) > 30
        # A session description with a wrong SSRC or format would have made FFmpeg complain.
        assert "Missing" not in one.log() and "not supported" not in one.log()


def test_a_camera_fails_and_comes_back_while_the_other_goes_on(tmp_path, ports):
    """With the camera's own JPEG, which arrives byte by byte as it was."""
    picture = pictures.load("base420")
    with CameraServer(picture) as server, Listener(ports[0]) as bad, Listener(ports[1]) as good:
        with Streamer(tmp_path, [camera(1, ports[0], device=server.device), camera(2, ports[1])]) as streamer:
            wait_until(lambda: bad.frames() > 10 and good.frames() > 10, 60, lambda: streamer.tail())
            scan = picture[picture.rindex(b"\xff\xda") + 14 : picture.rindex(b"\xff\xd9")]
            assert set(scans(bad)) == {scan}, "not passed through untouched"
            server.serving = False
            streamer.wait_log("camera1: the stream ended; trying again in 0.5 s")
            silent_from = time.time()
            # It is tried again and again, and fails: the server hangs up at once.
            wait_until(lambda: streamer.log().count("trying again") >= 3, 60, lambda: streamer.tail())
            during = [packet for packet in good.packets if packet.at > silent_from]
            before = len(bad.packets)
            server.serving = True
            wait_until(lambda: len(bad.packets) > before + 20, 60, lambda: streamer.tail())
            streamer.wait_log("camera1: sending", count=2)
            outage = time.time() - silent_from
            # The same stream goes on: SSRC, sequence numbers, and time that has passed meanwhile.
            assert {packet.ssrc for packet in bad.packets} == {1}
            assert not bad.gaps(), bad.gaps()
            times = [packet.timestamp for packet in bad.packets]
            longest = max((b - a) % 2**32 for a, b in zip(times, times[1:])) / CLOCK_RATE
            assert 0.5 < longest < outage + 5, (longest, outage)
            # The other one noticed nothing.
            assert not good.gaps()
            assert len([packet for packet in during if packet.marker]) > 10
            # By their own time: when they are seen here also depends on what else the machine does.
            pictures_of_good = [packet.timestamp for packet in good.packets if packet.marker]
            assert max((b - a) % 2**32 for a, b in zip(pictures_of_good, pictures_of_good[1:])) < 1.0 * CLOCK_RATE
            arrivals = [packet.at for packet in good.packets if packet.marker]
            assert max(b - a for a, b in zip(arrivals, arrivals[1:])) < outage / 2
            assert "camera2: the stream" not in streamer.log()


def scans(listener):
    """The scan data of each whole picture, without RTP/JPEG's headers (RFC 2435 §3.1)."""
    found, data = [], b""
    for packet in list(listener.packets):
        body = packet.data[12:]
        offset, kind, q = int.from_bytes(body[1:4], "big"), body[4], body[5]
        rest = body[8 + (4 if kind >= 64 else 0) :]
        if q >= 128 and offset == 0:
            rest = rest[4 + int.from_bytes(rest[2:4], "big") :]
        data = rest if offset == 0 else data + rest
        if packet.marker:
            found.append(data)
    return found


def test_a_camera_that_is_not_there_does_not_hinder_the_other(tmp_path, ports):
    with Listener(ports[1]) as good:
        with Streamer(tmp_path, [camera(1, ports[0], device="/dev/video-none"), camera(2, ports[1])]) as streamer:
            wait_until(lambda: good.frames() > 20, 60, lambda: streamer.tail())
            streamer.wait_log("trying again in 1.0 s")
            warnings = [line for line in streamer.log().splitlines() if " WARN camera1" in line]
            # The same failure is told once, the rest is for --verbose.
            assert len(warnings) == 1 and "/dev/video-none" in warnings[0], warnings


def test_a_camera_that_hangs_is_started_again(tmp_path, ports):
    """A source that gives 20 pictures and then nothing, without an end or an error."""
    device = (
        "pipeline:videotestsrc is-live=true num-buffers=20 ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! funnel name=f "
        "udpsrc address=127.0.0.1 port=0 caps=video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! f. f. ! video/x-raw,format=I420"
    )
    with Listener(ports[0]) as listener, Streamer(tmp_path, [camera(1, ports[0], device=device)]) as streamer:
        wait_until(lambda: listener.frames() >= 20, 60, lambda: streamer.tail())
        streamer.wait_log("camera1: no picture for 5 s", 60)
        wait_until(lambda: listener.frames() >= 40, 60, lambda: streamer.tail())
        assert not listener.gaps()


def test_reload(tmp_path, ports):
    third = even_port()
    one, two = camera(1, ports[0]), camera(2, ports[1])
    with Listener(ports[0]) as unchanged, Listener(ports[1]) as changed, Listener(third) as added:
        with Streamer(tmp_path, [one, two]) as streamer:
            wait_until(lambda: unchanged.frames() > 10 and changed.frames() > 10, 60, lambda: streamer.tail())
            # A mistake changes nothing.
            streamer.write([one, two, "fps = 0"])
            streamer.reload()
            streamer.wait_log("the configuration stays as it was")
            assert re.search(r"cameras\.toml:\d+: not TOML: duplicate key", streamer.log()), streamer.tail()
            seen = changed.frames()
            wait_until(lambda: changed.frames() > seen + 10, 60, lambda: streamer.tail())
            # Another size for the second one, and a third one.
            streamer.write([one, camera(2, ports[1], width=640), camera(3, third)])
            streamer.reload()
            streamer.wait_log("configuration read again: 3 cameras")
            wait_until(lambda: added.frames() > 10 and changed.packets[-1].data[12 + 6] == 640 // 8, 60, lambda: streamer.tail())
            # The stream of the other size is another one's start; the old one said goodbye.
            wait_until(lambda: any(report.bye for report in changed.reports), 60, "the goodbye")
            assert sorted(path.name for path in tmp_path.glob("*.sdp")) == ["camera1.sdp", "camera2.sdp", "camera3.sdp"]
            # The second one is gone.
            streamer.write([one, camera(3, third)])
            streamer.reload()
            streamer.wait_log("configuration read again: 2 cameras")
            assert sorted(path.name for path in tmp_path.glob("*.sdp")) == ["camera1.sdp", "camera3.sdp"]
            wait_until(lambda: changed.reports[-1].bye and not waiting(ports[1]), 60, "the end of the second one")
            seen = unchanged.frames()
            wait_until(lambda: unchanged.frames() > seen + 5, 60, lambda: streamer.tail())
            quiet = len(changed.packets)
            seen = unchanged.frames()
            wait_until(lambda: unchanged.frames() > seen + 10, 60, lambda: streamer.tail())
            assert len(changed.packets) == quiet
            # The first one went on as if nothing had happened.
            assert not unchanged.gaps() and not any(report.bye for report in unchanged.reports)
            assert streamer.log().count("camera1: sending") == 1


def test_reports_put_both_views_on_one_clock(tmp_path, ports):
    """RTCP of two cameras: the wall time of a stamp is right, and the same for both."""
    with Listener(ports[0]) as one, Listener(ports[1]) as two:
        with Streamer(tmp_path, [camera(1, ports[0]), camera(2, ports[1])]) as streamer:
            wait_until(lambda: min(len(one.reports), len(two.reports)) >= 4, 60, lambda: streamer.tail())
            wait_until(lambda: min(one.frames(), two.frames()) >= 60, 60, lambda: streamer.tail())
        assert len({report.cname for report in one.reports + two.reports}) == 1
        for number, listener in ((1, one), (2, two)):
            reports = [report for report in listener.reports if not report.bye]
            assert {report.ssrc for report in reports} == {number}
            # All reports of a camera give the same line through (wall time, RTP time), to a tick or two.
            origins = [report.ntp - report.rtp / CLOCK_RATE for report in reports]
            assert max(origins) - min(origins) < 0.0015, origins
            # What they count is what came.
            last = reports[-1]
            until = [packet for packet in listener.packets if packet.at <= last.at]
            assert abs(last.packets - len(until)) < 400
            # The listener's threads may be a little behind the end of the service.
            wait_until(lambda: listener.reports[-1].bye and listener.is_complete(), 60, lambda: f"the goodbye: {listener.reports[-1]}")
            octets = sum(len(packet.data) - 12 for packet in listener.packets)
            assert 0 < last.octets <= octets and listener.reports[-1].octets == octets
            # The wall time of a picture is just before it came.
            delays = [packet.at - wall(packet.timestamp, reports[-1]) for packet in listener.packets if packet.marker]
            # Encoding and sending takes a few ms at best; stamps are rounded down to a tick.
            assert -0.001 < min(delays) < 0.2, sorted(delays)[:5]
            assert abs(min(report.at - report.ntp for report in reports)) < 0.5


def wall(timestamp, report):
    """Wall time of an RTP time by a sender report."""
    ticks = (timestamp - report.rtp + 2**31) % 2**32 - 2**31
    return report.ntp + ticks / CLOCK_RATE


def test_receivers_reports_become_figures(tmp_path, ports):
    web = free_port()
    main = f"[mjpeg-rtp.stats]\ninterval = 1\njson = 'stats.json'\nprometheus = '127.0.0.1:{web}'"
    with Listener(ports[0]) as one, Listener(ports[1]) as two, Streamer(tmp_path, [camera(1, ports[0], name="front"), camera(2, ports[1])], main) as streamer:
        wait_until(lambda: one.reports and one.frames() > 30 and two.frames() > 30, 60, lambda: streamer.tail())
        middle = struct.unpack(">I", struct.pack(">Q", int((one.reports[-1].ntp + 2208988800) * 2**32) & (2**64 - 1))[2:6])[0]
        # A quarter lost since the last report, 900 ticks of jitter, answered at once.
        one.say(struct.pack(">BBHIIIIIII", 0x81, 201, 7, 99, 1, 64 << 24 | 5, 0, 900, middle, 0))
        wait_until(lambda: "receiver lost 25 %" in streamer.log(), 60, lambda: streamer.tail())
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=10) as answer:
            assert answer.headers["content-type"].startswith("application/openmetrics-text")
            text = answer.read().decode()
        figure = {name: float(value) for name, value in re.findall(r'^mjpeg_rtp_(\w+)\{camera="camera1",name="front"\} (\S+)$', text, re.M)}
        assert figure["up"] == 1 and figure["frames_total"] > 25 and figure["restarts_total"] == 0
        assert figure["receiver_reports_total"] == 1 and figure["receiver_lost_ratios"] == 0.25
        assert figure["receiver_jitter_seconds"] == 0.01 and 0 <= figure["round_trip_seconds"] < 5
        sent = sum(len(packet.data) for packet in one.packets)
        assert figure["sent_bytes_total"] <= sent and figure["sent_bytes_total"] > sent / 4
        assert text.endswith("# EOF\n") and 'camera="camera2"' in text
        wait_until(lambda: (tmp_path / "stats.json").exists(), 60, lambda: streamer.tail())
        cameras = json.loads((tmp_path / "stats.json").read_text())["cameras"]
        assert cameras["camera1"]["name"] == "front" and cameras["camera2"]["frames"] > 0
        # The figures of a second: 25 pictures, loosely. It began in the middle of the first one.
        def rates():
            return [float(rate) for rate in re.findall(r"camera1: streaming, ([\d.]+) pictures/s", streamer.log())]

        wait_until(lambda: any(6 < rate < 100 for rate in rates()), 60, lambda: f"25 pictures in a second: {rates()}")


def test_termination_leaves_nothing_behind(tmp_path, ports):
    main = "[mjpeg-rtp.stats]\ninterval = 1\njson = 'stats.json'"
    with Listener(ports[0]) as one, Streamer(tmp_path, [camera(1, ports[0]), camera(2, ports[1], device="/dev/video-none")], main) as streamer:
        wait_until(lambda: one.reports and (tmp_path / "stats.json").exists(), 60, lambda: streamer.tail())
        begin = time.monotonic()
        assert streamer.terminate() == 0, streamer.tail()
        assert time.monotonic() - begin < 8
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cameras.toml", "streamer.log"]
        wait_until(lambda: one.reports[-1].bye, 60, "goodbye")
        assert "panicked" not in streamer.log() and " ERROR" not in streamer.log(), streamer.tail()


def test_systemd_is_told(tmp_path, ports):
    address = str(tmp_path / "notify")
    said = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(0.2)

        def heard(text, timeout=90):
            def look():
                try:
                    said.append(systemd.recv(4096).decode())
                except TimeoutError:
                    pass
                return any(text in one for one in said)

            wait_until(look, timeout, lambda: f"{text}: {said}")

        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
        with Streamer(tmp_path / "run", [camera(1, ports[0]), camera(2, ports[1], device="/dev/video-none")], env=env) as streamer:
            heard("READY=1")
            heard("STATUS=1 of 2 cameras are sending")
            heard("WATCHDOG=1")
            del said[:]
            streamer.reload()
            heard("RELOADING=1")
            heard("MONOTONIC_USEC=")
            heard("READY=1")
            assert streamer.terminate() == 0
            heard("STOPPING=1")


def test_quality_is_applied_and_size_matters(tmp_path, ports):
    with Listener(ports[0]) as low, Listener(ports[1]) as high:
        with Streamer(tmp_path, [camera(1, ports[0], quality=10), camera(2, ports[1], quality=95)]) as streamer:
            wait_until(lambda: min(low.frames(), high.frames()) > 10, 60, lambda: streamer.tail())
    # In RTP/JPEG the encoder's quality is the Q of the header, where the tables are the standard's.
    assert {packet.data[12 + 5] for packet in low.packets} == {10}
    assert {packet.data[12 + 5] for packet in high.packets} == {95}
    assert {tuple(packet.data[18:20]) for packet in low.packets} == {(320 // 8, 240 // 8)}


def test_raw_pictures_of_another_size_are_scaled(tmp_path, ports):
    device = "pipeline:videotestsrc is-live=true ! video/x-raw,format=YUY2,width=640,height=360,framerate=25/1"
    with Listener(ports[0]) as listener, Streamer(tmp_path, [camera(1, ports[0], device=device, pt=96, quality=70)]) as streamer:
        wait_until(lambda: listener.frames() > 10, 60, lambda: streamer.tail())
        assert {tuple(packet.data[18:20]) for packet in listener.packets} == {(40, 30)}
        assert {packet.data[1] & 0x7F for packet in listener.packets} == {96}
        # Type 1: 4:2:0, though the source is 4:2:2.
        assert {packet.data[16] for packet in listener.packets} == {1}


@pytest.mark.parametrize(
    "main,keys,expected",
    [
        ("mtu = 100", {}, ":2: [mjpeg-rtp] mtu = 100: must be a whole number, 200 to 65000"),
        ("dscp = 64", {}, ":2: [mjpeg-rtp] dscp = 64: must be a whole number, 0 to 63"),
        ("colour = 1", {}, ":2: [mjpeg-rtp] unknown key 'colour'; known are "),
        ("", {"fps": 0}, ":7: [mjpeg-rtp.camera1] fps = 0: must be a whole number, 1 to 240"),
        ("", {"quality": 101}, ":11: [mjpeg-rtp.camera1] quality = 101: must be a whole number, 1 to 100"),
        ("", {"device": "usb"}, ":4: [mjpeg-rtp.camera1] device = 'usb': must be "),
        ("", {"dest_port": 65535}, ":9: [mjpeg-rtp.camera1] dest_port = 65535: must be a whole number, 1 to 65534"),
        ("", {"dest_host": "a b"}, ":8: [mjpeg-rtp.camera1] dest_host = 'a b': must be a host name or an IP address"),
        ("", {"ssrc": 2**32}, ":10: [mjpeg-rtp.camera1] ssrc = 4294967296: must be a whole number, 0 to 4294967295"),
        ("", {"pt": 35}, ":11: [mjpeg-rtp.camera1] pt = 35: must be 26, or 96 to 127"),
        ("= 3", {}, ":2: not TOML: "),
    ],
)
def test_bad_configurations(main, keys, expected, tmp_path):
    file = tmp_path / "cameras.toml"
    file.write_text("\n".join(["[mjpeg-rtp]", main, camera(1, 5000, **keys)]))
    for arguments in (["--check-config"], ["--print-sdp"], []):
        done = ask("--config", file, *arguments)
        assert done.returncode == 1 and not done.stdout
        assert f"{file}{expected}" in done.stderr, done.stderr
    # Right, it is accepted.
    file.write_text("\n".join(["[mjpeg-rtp]", camera(1, 5000)]))
    assert ask("--config", file, "--check-config").stdout == "the configuration is right: 1 camera is enabled\n"


def test_what_else_cannot_be_started(tmp_path):
    done = ask("--config", tmp_path / "none.toml")
    assert done.returncode == 1 and "none.toml: cannot be read: No such file" in done.stderr
    assert ask("--nonsense").returncode == 2
    done = ask("--print-sdp", "camera9")
    assert done.returncode == 1 and "no camera is called 'camera9'; there are camera1, camera2" in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "cameras.toml"
        file.write_text("\n".join(["[mjpeg-rtp]", f"[mjpeg-rtp.stats]\nprometheus = '127.0.0.1:{port}'", camera(1, even_port())]))
        done = ask("--config", file)
        assert done.returncode == 1 and f"127.0.0.1:{port}\": cannot listen there" in done.stderr


@pytest.mark.parametrize("width,height,told", [(640, 480, False), (642, 478, True), (3280, 1000, True)])
def test_printed_session_descriptions_work(width, height, told, tmp_path, ports, needs):
    """In GStreamer with the right size, in FFmpeg where RFC 2435 can tell it."""
    needs("ffmpeg")
    cameras = [camera(1, ports[0], width=width, height=height, fps=10, pt=26), camera(2, ports[1], width=width, height=height, fps=10, pt=100)]
    with Streamer(tmp_path, cameras) as streamer:
        streamer.wait_log("sending", count=2)
        for number, port in ((1, ports[0]), (2, ports[1])):
            text = ask("--config", streamer.config, "--print-sdp", f"camera{number}").stdout
            assert text == (tmp_path / f"camera{number}.sdp").read_text()
            assert (f"a=x-dimensions:{width},{height}\n" in text) == told
            sdp = tmp_path / f"printed{number}.sdp"
            sdp.write_text(text)
            line = f"filesrc location={sdp} ! sdpdemux ! rtpjpegdepay-rs ! jpegparse ! fakesink silent=false num-buffers=10"
            with Child(["gst-launch-1.0", "-v", *line.split()], tmp_path / f"gst{number}.log") as receiver:
                assert receiver.wait(60) == 0, f"{receiver.tail()}\n{streamer.tail()}"
                assert f"width=(int){width}" in receiver.log() and f"height=(int){height}" in receiver.log(), receiver.tail()
            if max(width, height) <= 2040:
                with ffmpeg(sdp, 1, tmp_path / f"ffmpeg{number}.log", tmp_path) as receiver:
                    assert receiver.wait(60) == 0, receiver.tail()
                    sizes = {size for size, _ in decoded(receiver.log())}
                    assert sizes == {(width + 7) // 8 * 8 * ((height + 7) // 8 * 8) * 3 // 2}, receiver.tail()


def test_idle_without_cameras(tmp_path, ports):
    """A configuration may turn everything off; a later one turns it on."""
    with Listener(ports[0]) as listener, Streamer(tmp_path, [camera(1, ports[0])], "enabled = false") as streamer:
        streamer.wait_log("no camera is enabled")
        assert streamer.returncode is None
        streamer.write([camera(1, ports[0])], "enabled = true")
        streamer.reload()
        wait_until(lambda: listener.frames() > 5, 60, lambda: streamer.tail())


def test_nobody_listening_is_no_error(tmp_path, ports):
    with Streamer(tmp_path, [camera(1, ports[0])], "[mjpeg-rtp.stats]\ninterval = 1") as streamer:
        streamer.wait_log("times nobody was listening")
        assert "trying again" not in streamer.log()
        with Listener(ports[0]) as listener:
            wait_until(lambda: listener.frames() > 5, 60, lambda: streamer.tail())
