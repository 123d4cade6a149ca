# SPDX-License-Identifier: MIT OR Apache-2.0
"""The crate's JPEG test vectors, larger pictures made here, and decoding with FFmpeg to compare them."""

import functools
import struct
import subprocess
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[3] / "crates" / "rtp-jpeg" / "tests" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jpg"))
SENDABLE = [name for name in NAMES if not name.startswith("no_")]
UNSENDABLE = [name for name in NAMES if name.startswith("no_")]
# Names with the size in them, encoded here.
LARGE = ["642x480", "1366x768", "2592x1944", "3280x1000"]


@functools.cache
def load(name):
    if name in LARGE:
        return encode(name)
    return (FOLDER / f"{name}.jpg").read_bytes()


def encode(size, picture=0, quality=3):
    """A test picture that only jpeg's standard tables are used for."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25", "-vf", f"select=eq(n\\,{picture})"]
        + ["-frames:v", "1", "-pix_fmt", "yuvj420p", "-huffman", "default", "-force_duplicated_matrix", "1", "-q:v", str(quality)]
        + ["-c:v", "mjpeg", "-f", "image2pipe", "-"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def shown_by(name):
    """The vector whose picture this one shows."""
    return "base420" if name.startswith("ok_") else name


@functools.cache
def decode(data):
    """Luma and both chroma planes, or None when FFmpeg cannot decode it."""
    width, height = size(data)
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "mjpeg", "-i", "-", "-frames:v", "1", "-pix_fmt", "yuvj444p", "-f", "rawvideo", "-"],
        input=data,
        capture_output=True,
        timeout=60,
    )
    planes = np.frombuffer(done.stdout, np.uint8)
    return planes.reshape(3, height, width) if planes.size == 3 * width * height else None


def size(data):
    """Width and height in the frame header."""
    at = 2
    while at + 9 < len(data):
        while data[at + 1] == 0xFF:
            at += 1
        if data[at + 1] in range(0xC0, 0xC4):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise AssertionError("no frame header")


def size_or(name, otherwise=(40, 24)):
    """A vector's size for the caps; some hide theirs."""
    try:
        found = size(load(name))
    except AssertionError:
        return otherwise
    return found if found[1] else otherwise


def psnr(one, other):
    error = np.mean((one.astype(np.int32) - other.astype(np.int32)) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def differs(received, name):
    """What is wrong with a received picture of this vector; None if nothing is."""
    return differs_from(received, load(shown_by(name)))


def differs_from(received, sent):
    got, want = decode(received), decode(sent)
    if got is None:
        return "it cannot be decoded"
    height, width = want.shape[1:]
    if got.shape == want.shape:
        return None if np.array_equal(got, want) else f"other pixels, PSNR {psnr(got, want):.1f} dB"
    # A receiver that knows the size only in units of 8.
    if got.shape[1:] != ((height + 7) // 8 * 8, (width + 7) // 8 * 8):
        return f"{got.shape[2]} x {got.shape[1]} pixels instead of {width} x {height}"
    # The last columns' chroma is interpolated differently.
    cut = slice(0, height - 2), slice(0, width - 2)
    return None if psnr(got[0][cut], want[0][cut]) > 60 else "other pixels"
