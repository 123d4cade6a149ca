#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes the JPEG files of this folder and SHA256SUMS. Needs ffmpeg, and cjpeg and jpegtran of libjpeg-turbo.

The picture is FFmpeg's synthetic testsrc2. Files that encoders cannot make are the base picture with its
segments rearranged. Plain `cargo test` needs none of this: the files are checked in.
"""
import hashlib
import pathlib
import struct
import subprocess

HERE = pathlib.Path(__file__).parent


def run(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def source(size):
    return run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=1", "-frames:v", "1",
                "-pix_fmt", "rgb24", "-f", "image2pipe", "-c:v", "ppm", "-"], b"")


def cjpeg(ppm, *options):
    return run(["cjpeg", "-quality", "60", *options], ppm)


def jpegtran(data, *options):
    return run(["jpegtran", "-copy", "none", *options], data)


def split(data):
    """Segments before the scan as (marker, content), then the scan with EOI."""
    segments, at = [], 2
    while True:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2:at + 4])[0]
        segments.append((marker, data[at + 4:at + 2 + length]))
        at += 2 + length
        if marker == 0xDA:
            return segments, data[at:]


def join(segments, scan):
    out = b"\xff\xd8"
    for marker, content in segments:
        out += bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    return out + scan


def only(segments, marker):
    return [content for kind, content in segments if kind == marker]


def replace(segments, marker, contents):
    """All segments of one marker replaced, at the place of the first."""
    out, done = [], False
    for kind, content in segments:
        if kind != marker:
            out.append((kind, content))
        elif not done:
            out += [(marker, new) for new in contents]
            done = True
    return out


files = {}
ppm = source("40x24")
base420 = cjpeg(ppm, "-sample", "2x2")
base422 = cjpeg(ppm, "-sample", "2x1")
files["base420"], files["base422"] = base420, base422
segments, scan = split(base420)
dqt, dht = only(segments, 0xDB), only(segments, 0xC4)
(sof,), (sos,) = only(segments, 0xC0), only(segments, 0xDA)
app = [(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]


def edit(marker, contents):
    return join(replace(segments, marker, contents), scan)


# What works.
files["ok_merged_dqt"] = edit(0xDB, [b"".join(dqt)])
files["ok_merged_dht"] = edit(0xC4, [b"".join(dht)])
files["ok_three_dqt"] = edit(0xDB, [b"\2" + b"\x07" * 64, *dqt])
files["ok_four_dqt"] = edit(0xDB, [b"\3" + b"\x07" * 64, dqt[1], b"\2" + b"\x09" * 64, dqt[0]])
files["ok_wide_dqt"] = edit(0xDB, [bytes([0x10 | t[0]]) + b"".join(b"\0" + bytes([b]) for b in t[1:]) for t in dqt])
files["ok_missing_dht"] = edit(0xC4, [])
swapped = [bytes([t[0] ^ 1]) + t[1:] for t in dht]
swap_sos = sos[:2] + b"\x11" + sos[3:4] + b"\x00" + sos[5:6] + b"\x00" + sos[7:]
files["ok_swapped_dht"] = join(replace(replace(segments, 0xC4, swapped), 0xDA, [swap_sos]), scan)
swapped = [bytes([t[0] ^ 1]) + t[1:] for t in dqt]
swap_sof = sof[:8] + b"\1" + sof[9:11] + b"\0" + sof[12:14] + b"\0"
files["ok_swapped_dqt"] = join(replace(replace(segments, 0xDB, swapped), 0xC0, [swap_sof]), scan)
files["ok_avi1"] = join([(0xE0, b"AVI1\0\0" + b"\0" * 8), *segments], scan)
exif = b"Exif\0\0" + base422 + b"\0" * (65533 - 6 - len(base422))
files["ok_exif_64k"] = join([(0xE1, exif), *segments], scan)
files["ok_app4_h264"] = join([*segments[:1], (0xE4, b"\0\0\0\1\x67\x42" + b"\xff\xd9" * 40), *segments[1:]], scan)
files["ok_comment"] = join([(0xFE, b"\xff\xda a comment \xff\xd9"), *segments], scan)
files["ok_dri_0"] = join([(0xDD, b"\0\0"), *segments], scan)
filled = join(segments, scan[:-2] + b"\xff\xff\xff\xd9")
files["ok_fill_bytes"] = filled.replace(b"\xff\xdb", b"\xff\xff\xff\xdb").replace(b"\xff\xda", b"\xff\xff\xda")
files["ok_no_eoi"] = base420[:-2]
files["ok_padding"] = base420 + b"\0" * 64
files["ok_no_eoi_padding"] = base420[:-2] + b"\0" * 64
files["ok_two_pictures"] = base420 + base422
files["ok_restart_row"] = jpegtran(base420, "-restart", "1")
files["ok_restart_2"] = jpegtran(base420, "-restart", "2B")
files["ok_restart_1"] = jpegtran(base420, "-restart", "1B")
files["ok_restart_at_end"] = files["ok_restart_1"][:-2] + b"\xff\xd5\xff\xd9"
files["ok_restart_no_eoi"] = files["ok_restart_1"][:-2]
# One table for all components: another picture, so only compared with itself.
one_sof = sof[:8] + b"\0" + sof[9:11] + b"\0" + sof[12:14] + b"\0"
files["self_one_dqt"] = join(replace(replace(segments, 0xDB, dqt[:1]), 0xC0, [one_sof]), scan)
files["self_odd_size"] = cjpeg(source("27x19"), "-sample", "2x2")
files["self_422"] = base422
files["self_422_restart"] = jpegtran(base422, "-restart", "2B")
files["self_large"] = cjpeg(source("352x288"), "-quality", "85", "-sample", "2x2", "-restart", "1")
files["self_ffmpeg"] = run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=1", "-frames:v",
                            "1", "-pix_fmt", "yuvj420p", "-huffman", "default", "-force_duplicated_matrix", "1",
                            "-f", "mjpeg", "-bitexact", "-"], b"")
# What is refused.
files["no_optimised_dht"] = jpegtran(base420, "-optimize")
files["no_progressive"] = jpegtran(base420, "-progressive")
files["no_arithmetic"] = jpegtran(base420, "-arithmetic")
files["no_sof1"] = base420.replace(b"\xff\xc0", b"\xff\xc1", 1)
files["no_grey"] = cjpeg(ppm, "-grayscale")
files["no_444"] = cjpeg(ppm, "-sample", "1x1")
files["no_440"] = cjpeg(ppm, "-sample", "1x2")
files["no_411"] = cjpeg(ppm, "-sample", "4x1")
files["no_cmyk"] = edit(0xC0, [sof[:5] + b"\4" + sof[6:] + b"\4\x11\1"])
files["no_12_bit"] = edit(0xC0, [b"\x0c" + sof[1:]])
files["no_dnl"] = edit(0xC0, [sof[:1] + b"\0\0" + sof[3:]])[:-2] + b"\xff\xdc\0\4\0\x18\xff\xd9"
files["no_uv_tables"] = join(replace(replace(segments, 0xDB, [*dqt, b"\2" + b"\x07" * 64]),
                                     0xC0, [sof[:14] + b"\2"]), scan)
files["no_wide_values"] = edit(0xDB, [b"\x10" + b"\1\0" * 64, dqt[1]])
files["no_missing_dqt"] = edit(0xDB, dqt[:1])
scans = HERE / "scans.txt"
scans.write_text("0;\n1;\n2;\n")
files["no_three_scans"] = jpegtran(base420, "-scans", str(scans))
scans.unlink()
files["no_restart_misnumbered"] = files["ok_restart_1"].replace(b"\xff\xd2", b"\xff\xd4")
files["no_restart_without_dri"] = join([s for s in split(files["ok_restart_1"])[0] if s[0] != 0xDD],
                                       split(files["ok_restart_1"])[1])
cut = files["ok_restart_1"]
files["no_restart_missing"] = cut[:cut.index(b"\xff\xd3")] + b"\xff\xd9"

for old in HERE.glob("*.jpg"):
    old.unlink()
sums = []
for name, data in sorted(files.items()):
    (HERE / f"{name}.jpg").write_bytes(data)
    sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}.jpg\n")
(HERE / "SHA256SUMS").write_text("".join(sums))
