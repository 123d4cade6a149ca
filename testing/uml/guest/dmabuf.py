# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs in the test kernel: the same pictures through vicodec's encoder from MMAP buffers and from a dma-buf heap.

Prints one JSON object. Numbers and layouts: linux/videodev2.h and linux/dma-heap.h for 64-bit machines.
"""

import fcntl
import glob
import json
import mmap
import os
import select
import struct

WIDTH, HEIGHT, FRAMES = 640, 480, 6
SIZE = WIDTH * HEIGHT * 3 // 2
CAPTURE, OUTPUT = 1, 2
MMAP, DMABUF = 1, 4
TIMESTAMP_COPY = 0x4000
S_FMT, REQBUFS, QUERYBUF = 0xC0D05605, 0xC0145608, 0xC0585609
QBUF, DQBUF, STREAMON, STREAMOFF = 0xC058560F, 0xC0585611, 0x40045612, 0x40045613
DMA_HEAP_ALLOC = 0xC0184800
BUFFER = "IIIIIxxxxqq16sIIQIIi4x"
# Microseconds are exact; the third is earlier than the second, as an application's may be; one needs 33 bits.
TIMES = [(0, 0), (7, 123456), (3, 1), (2**32 + 5, 999999), (8, 5), (9, 6)]


def fourcc(name):
    return struct.unpack("<I", name.encode())[0]


def ioctl(fd, request, layout, *values):
    memory = bytearray(struct.pack(layout, *values))
    fcntl.ioctl(fd, request, memory)
    return struct.unpack(layout, memory)


def find_encoder():
    for name in sorted(glob.glob("/sys/class/video4linux/*/name")):
        with open(name) as file:
            if "stateful-encoder" in file.read():
                node = "/dev/" + os.path.basename(os.path.dirname(name))
                return node, os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    raise SystemExit("no encoder node")


def set_format(fd, kind, pixels):
    memory = bytearray(208)
    struct.pack_into("=I4xIIIIII", memory, 0, kind, WIDTH, HEIGHT, fourcc(pixels), 1, 0, 0)
    fcntl.ioctl(fd, S_FMT, memory)
    got = struct.unpack_from("=I4xIIIIII", memory)
    assert got[3] == fourcc(pixels) and got[1:3] == (WIDTH, HEIGHT), got
    return got[6]


def buffer(index, kind, memory, used=0, flags=0, time=(0, 0), place=0, length=0):
    return struct.pack(BUFFER, index, kind, used, flags, 1, *time, b"", 0, memory, place, length, 0, 0)


def call(fd, request, packed):
    packed = bytearray(packed)
    fcntl.ioctl(fd, request, packed)
    return struct.unpack(BUFFER, packed)


def dequeue(fd, event, packed):
    # Not for whatever comes first: the two queues' buffers come back one after the other.
    poll = select.poll()
    poll.register(fd, event)
    assert poll.poll(60_000), "no buffer comes back"
    return call(fd, DQBUF, packed)


def map_buffers(fd, kind, count):
    ioctl(fd, REQBUFS, "IIIIB3x", count, kind, MMAP, 0, 0)
    maps = []
    for index in range(count):
        got = call(fd, QUERYBUF, buffer(index, kind, MMAP))
        maps.append(mmap.mmap(fd, got[-3], offset=got[-4]))
    return maps


def heap_buffers(count):
    with open("/dev/dma_heap/system", "rb") as heap:
        fds = [ioctl(heap.fileno(), DMA_HEAP_ALLOC, "QIIQ", SIZE, 0, os.O_RDWR | os.O_CLOEXEC, 0)[1] for _ in range(count)]
    return fds, [mmap.mmap(fd, SIZE) for fd in fds]


def picture(number):
    """A ramp that moves, so that no two pictures code the same."""
    line = bytes((x * 2 + number * 31) & 0xFF for x in range(WIDTH))
    return (line * (HEIGHT * 3 // 2))[:SIZE]


def encode(memory):
    node, fd = find_encoder()
    set_format(fd, CAPTURE, "FWHT")
    assert set_format(fd, OUTPUT, "NV12") == SIZE
    coded = map_buffers(fd, CAPTURE, 2)
    fds = [0]
    if memory == DMABUF:
        ioctl(fd, REQBUFS, "IIIIB3x", 1, OUTPUT, DMABUF, 0, 0)
        fds, raw = heap_buffers(1)
    else:
        raw = map_buffers(fd, OUTPUT, 1)
    for kind in (CAPTURE, OUTPUT):
        fcntl.ioctl(fd, STREAMON, struct.pack("I", kind))
    for index in range(len(coded)):
        call(fd, QBUF, buffer(index, CAPTURE, MMAP))
    frames = []
    for number, moment in enumerate(TIMES):
        raw[0][:SIZE] = picture(number)
        call(fd, QBUF, buffer(0, OUTPUT, memory, SIZE, TIMESTAMP_COPY, moment, fds[0], SIZE))
        got = dequeue(fd, select.POLLIN, buffer(0, CAPTURE, MMAP))
        frames.append((list(got[5:7]), bytes(coded[got[0]][: got[2]]).hex()))
        call(fd, QBUF, buffer(got[0], CAPTURE, MMAP))
        dequeue(fd, select.POLLOUT, buffer(0, OUTPUT, memory))
    for kind in (CAPTURE, OUTPUT):
        fcntl.ioctl(fd, STREAMOFF, struct.pack("I", kind))
    os.close(fd)
    return node, frames


node, from_mmap = encode(MMAP)
_, from_heap = encode(DMABUF)
print(
    json.dumps(
        {
            "node": node,
            "sent": [list(time) for time in TIMES],
            "times": [time for time, _ in from_heap],
            "same": from_heap == from_mmap,
            "different_pictures": len({data for _, data in from_heap}),
            "bytes": [len(data) // 2 for _, data in from_heap],
            "magic": from_heap[0][1][:16],
        }
    )
)
