#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes tests/corpus, the seeds of the fuzz targets, from the files of tests/data."""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
OUT = HERE / "corpus"
OUT.mkdir(exist_ok=True)
seeds = {}
for name in ["base420", "ok_restart_1", "ok_merged_dqt", "ok_no_eoi", "self_422_restart", "ok_missing_dht"]:
    picture = (HERE / "data" / f"{name}.jpg").read_bytes()
    seeds[f"jpeg_{name}"] = picture
    for mode in range(3):
        seeds[f"trip_{name}_{mode}"] = bytes([10, mode]) + picture


def packet(flags, sequence, offset, kind, q, body):
    payload = struct.pack(">BBHBBBB", 0, 0, offset, kind, q, 8, 6) + body
    return bytes([flags, sequence, len(payload)]) + payload


def restart(first, last, count):
    return struct.pack(">HH", 4, first << 15 | last << 14 | count)


tables = b"\0\0\0\x80" + b"\x10" * 128
grey = b"\x28\xa2\x8a\0" * 4
plain = [packet(0, 1, 0, 1, 50, grey), packet(1, 2, 16, 1, 50, grey)]
seeds["rtp_plain"] = b"\0" + b"".join(plain)
seeds["rtp_reordered"] = b"\0" + b"".join(reversed(plain))
seeds["rtp_inband"] = b"\0" + packet(1, 1, 0, 1, 200, tables + grey) + packet(5, 2, 0, 1, 200, b"\0\0\0\0" + grey)
aligned = [packet(0, 1, 0, 65, 50, restart(1, 1, 0) + grey + b"\xff\xd0"),
           packet(0, 2, 18, 65, 50, restart(1, 0, 1) + grey),
           packet(0, 3, 34, 65, 50, restart(0, 1, 1) + b"\xff\xd1"), packet(1, 4, 36, 65, 50, restart(1, 1, 2) + grey)]
seeds["rtp_aligned"] = b"\1" + b"".join(aligned)
seeds["rtp_aligned_lost_first"] = b"\1" + b"".join(aligned[1:])
seeds["rtp_aligned_lost_piece"] = b"\1" + b"".join(aligned[:2] + aligned[3:])
seeds["rtp_no_size"] = b"\2" + bytes([1, 1, 10]) + struct.pack(">BBHBBBB", 0, 0, 0, 1, 50, 0, 0) + b"ab"
for name, seed in seeds.items():
    (OUT / name).write_bytes(seed)
