# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every vector through our payloader and GStreamer's, into our depayloader, GStreamer's, FFmpeg and live555 (VLC)."""

import os

import pytest
from rtpjpeg_harness import carry as c
from rtpjpeg_harness.carry import carry
from rtpjpeg_harness.pictures import LARGE, SENDABLE, UNSENDABLE, differs, load, size_or
from rtpjpeg_harness.receivers import receive_with_ffmpeg, receive_with_live555

# What GStreamer's C payloader sends wrong: it copies fill bytes into the headers.
C_SENDS_WRONG = {"ok_fill_bytes"}
# 16-bit tables, which it sends as they are; its own depayloader and FFmpeg cannot read them, ours can.
C_SENDS_WIDE = {"ok_wide_dqt"}
# Pictures that the format cannot carry, which it sends all the same: receivers show a wrong picture.
C_SENDS_UNSENDABLE = {
    "no_optimised_dht",
    "no_restart_misnumbered",
    "no_restart_missing",
    "no_restart_without_dri",
    "no_three_scans",
    "no_uv_tables",
    "no_wide_values",
}

# What FFmpeg and live555 learn of a size is in the packets' headers, which end at 2040.
IN_HEADER = [name for name in LARGE if max(map(int, name.split("x"))) <= 2040]


def able(pay, depay, name):
    """Whether this pair can carry this vector; where ours is at the sending end, every receiver can."""
    if pay == "C" and name in C_SENDS_WRONG:
        return False
    return not (pay == "C" and depay != "ours" and name in C_SENDS_WIDE)


@pytest.mark.parametrize("name", SENDABLE + LARGE)
@pytest.mark.parametrize("depay", ["ours", "C"])
@pytest.mark.parametrize("pay", ["ours", "C"])
def test_picture_through_gstreamer(pay, depay, name):
    outcome = carry(pay, depay, load(name), size_or(name))
    assert not outcome.error
    if able(pay, depay, name):
        assert len(outcome.pictures) == 2
        assert [differs(picture, name) for picture in outcome.pictures] == [None, None]
        assert not any(outcome.corrupt) and not outcome.warnings


@pytest.mark.parametrize("name", UNSENDABLE)
@pytest.mark.parametrize("depay", ["ours", "C"])
def test_picture_that_cannot_be_sent(depay, name):
    """Ours refuses them all by name; nothing wrong is ever shown."""
    outcome = carry("ours", depay, load(name), size_or(name))
    assert not outcome.pictures and not outcome.error
    assert len(outcome.warnings) == 1 and "cannot be sent as RTP/JPEG" in outcome.warnings[0]


@pytest.mark.parametrize("name", UNSENDABLE)
def test_picture_that_cannot_be_sent_from_c_payloader(name):
    """What GStreamer's payloader does with them, so that a change there is noticed; ours must only survive it."""
    outcome = carry("C", "ours", load(name), size_or(name))
    assert bool(outcome.pictures) == (name in C_SENDS_UNSENDABLE)


@pytest.fixture(scope="module", params=["ours", "C"])
def through_ffmpeg(request, needs, tmp_path_factory):
    needs("ffmpeg")
    names = SENDABLE + IN_HEADER + (UNSENDABLE if request.param == "ours" else [])
    return request.param, *receive_with_ffmpeg(request.param, names, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", SENDABLE + IN_HEADER)
def test_picture_through_ffmpeg(through_ffmpeg, name):
    pay, pictures, log = through_ffmpeg
    if able(pay, "FFmpeg", name):
        assert name in pictures, log
        assert differs(pictures[name], name) is None


def test_ffmpeg_gets_nothing_that_cannot_be_sent(through_ffmpeg):
    _, pictures, _ = through_ffmpeg
    assert not pictures.keys() & set(UNSENDABLE)


@pytest.fixture(scope="module", params=["ours", "C"])
def through_live555(request, tmp_path_factory):
    if "LIVE555_RECEIVER" not in os.environ:
        pytest.skip("LIVE555_RECEIVER is not set; scripts/test builds it")
    names = SENDABLE + IN_HEADER + (UNSENDABLE if request.param == "ours" else [])
    return request.param, receive_with_live555(request.param, names, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", SENDABLE + IN_HEADER)
def test_picture_through_live555(through_live555, name):
    pay, pictures = through_live555
    if able(pay, "live555", name):
        assert name in pictures
        assert differs(pictures[name], name) is None


def test_live555_gets_nothing_that_cannot_be_sent(through_live555):
    assert not through_live555[1].keys() & set(UNSENDABLE)


@pytest.mark.parametrize("mode,shown", [("auto", True), ("static", True), ("inband-every-frame", True), ("inband-once", False)])
def test_quant_modes_that_the_c_depayloader_understands(mode, shown):
    """README: it cannot read tables that are sent once."""
    line = f"appsrc name=in format=time ! rtpjpegpay-rs quant-mode={mode} ! {{}} ! appsink name=out sync=false"
    for depay, pictures in [("rtpjpegdepay-rs", 4), ("rtpjpegdepay", 4 if shown else 1)]:
        feeds = [c.buffer(load("base420"), number) for number in range(4)]
        outcome = c.run(line.format(depay), [(c.jpeg_caps((40, 24)), feeds[0]), *feeds[1:]])
        assert len(outcome.pictures) == pictures, depay
        assert not any(differs(picture, "base420") for picture in outcome.pictures)
