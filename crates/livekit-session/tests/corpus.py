#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes tests/corpus, the seeds of the fuzz targets; what the fuzzers found beside them has other names there."""
import pathlib
import struct

OUT = pathlib.Path(__file__).parent / "corpus"


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """A field of a protobuf message: an integer, or something with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def seed(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# Numbers of livekit_rtc.proto: SignalResponse.
JOIN, ANSWER, TRICKLE, UPDATE, PUBLISHED, LEAVE, MUTE, QUALITY, REFRESH = 1, 2, 4, 5, 6, 8, 9, 14, 16
participant = field(1, "PA_1") + field(2, "me") + field(3, 2) + field(5, '{"a":1}') + field(9, "Me")
participant += field(4, field(1, "TR_1") + field(2, 1) + field(3, "front") + field(13, "video/H264"))
join = field(1, field(1, "RM_1") + field(2, "room")) + field(2, participant) + field(4, "1.13.3")
join += field(5, field(1, "turn:127.0.0.1:3478?transport=udp") + field(2, "u") + field(3, "c")) + field(10, 15) + field(11, 5)
candidate = '{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host","sdpMid":"0","sdpMLineIndex":0}'
sdp = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n"
for name, number, value in [
    ("join", JOIN, join),
    ("answer", ANSWER, field(1, "answer") + field(2, sdp) + field(3, 1)),
    ("trickle", TRICKLE, field(1, candidate)),
    ("update", UPDATE, field(1, participant) + field(1, participant)),
    ("published", PUBLISHED, field(1, "PA_1-1") + field(2, field(1, "TR_1"))),
    ("leave", LEAVE, field(1, 1) + field(2, 1) + field(3, 2)),
    ("mute", MUTE, field(1, "TR_1") + field(2, 1)),
    ("quality", QUALITY, field(1, field(1, "PA_1") + field(2, 2) + b"\x1d\0\0\x80?")),
    ("refresh", REFRESH, "header.payload.signature"),
]:
    seed("signal_message", name, field(number, value))
seed("signal_message", "many_empty", field(UPDATE, field(1, b"") * 300))

user = field(2, b"go") + field(4, "control")
seed("data_packet", "user", field(4, "viewer") + field(2, user))
seed("data_packet", "old_sender", field(2, field(5, "viewer") + user))
seed("data_packet", "chat", field(4, "viewer") + field(6, field(1, "id") + field(3, "hello")))
seed("data_packet", "sealed", field(4, "viewer") + field(18, field(1, 1) + field(2, b"i" * 12) + field(3, 3) + field(4, b"x" * 40)))
seed("data_packet", "short_vector", field(18, field(2, b"i" * 5) + field(3, 3) + field(4, b"x")))


def framed(*datagrams):
    return b"".join(struct.pack(">H", len(datagram)) + datagram for datagram in datagrams)


stun = struct.pack(">HHI", 1, 4, 0x2112A442) + b"t" * 12 + b"attr"
channel = struct.pack(">HH", 0x4000, 5) + b"media\0\0\0"
seed("deframer", "datagrams", b"\x07" + framed(b"a", b"", b"b" * 100, stun))
seed("deframer", "too_long", b"\x40" + framed(b"x" * 5000, b"after"))
seed("deframer", "turn", b"\x05" + stun + channel + stun + channel)
seed("deframer", "turn_too_long", b"\x80" + struct.pack(">HH", 0x4001, 9000) + b"y" * 9000 + stun)
seed("deframer", "foreign", b"\x03" + b"\xff" * 40)
seed("deframer", "cut_short", b"\x01" + framed(b"whole") + b"\x05\x00part")

seed("turn_uri", "usual", b"turn:example.org\nturn:10.0.0.1:3479?transport=tcp\nturns:example.org:443?transport=tcp")
seed("turn_uri", "v6", b"turn:[2001:db8::1]:3478?transport=udp\nturns:[2001:db8::1]")
seed("turn_uri", "odd", b"TURN:h?transport=UDP\nturn:h:\nturn:h:0\nturn:h:65536\nturn::1\nturn:[::1\nstun:h\nturn:h?x=y&transport=tcp")
seed("turn_uri", "broken", b"turn:\nturns:\xff\xfe\nturn:a b\nturn:[]:1\nturn:h?transport=")

seed("regions", "cloud", b"wss://p.example\nwss://a.example\nwss://b.example/x?y\nwss://a.example")
seed("regions", "in_clear", b"wss://p.example\nws://a.example\nhttp://b.example\nhttps://c.example")
seed("regions", "plain", b"ws://p\nws://p\nws://q:1\nwss://r")
seed("regions", "odd", b"wss://p\nwss:\nwss://\n//a\nfile:///etc\nwss://u:p@h\nwss://[::1]:1\nwss://" + b"a" * 1100)
seed("regions", "upper_case", b"WSS://P\nWS://a\nWsS://b")

h264 = bytes.fromhex("000000016742c00dda0507e880000000016848ce3c80000001658884")
h265 = bytes.fromhex("0000000140010c01ffff016000000300900000030000030078959809000001420101016000000300900000030000030078a00502016965959a4932bc05a80808082000000300200000030321000001440141c172b4620000012601af09")
vp8 = bytes([0x10, 2, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xF0, 0, 7, 7])
vp9 = bytes.fromhex("824983420013f00efb0a00000000")
av1 = bytes.fromhex("12000a0a00000024cf7f0dbfff303008") + bytes.fromhex("3206100000000000")
for index, (name, data) in enumerate([("h264", h264), ("h265", h265), ("vp8", vp8), ("vp9", vp9), ("av1", av1), ("opus", b"\xfc\1\2")]):
    for target in ["bitstream", "encryption"]:
        seed(target, name, bytes([index]) + data + bytes(range(60)))
sps = bytes.fromhex("6764001facd940500 5bb016a02020280000003008000001e478c18cb".replace(" ", ""))
seed("bitstream", "sps_alone", b"\0" + sps)
