# SPDX-License-Identifier: MIT OR Apache-2.0
"""Files made at the start of the session: stamped pictures, encoded once per profile, wrapped in several containers."""

import subprocess

from .stamp import Painter

WIDTH, HEIGHT, FPS = 640, 360, 30


def encode(path, frames, *options, pixels="yuv420p", fps=FPS):
    """Stamped frames through libx264 into `path`; its suffix chooses the container."""
    painter = Painter(WIDTH, HEIGHT)
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(fps), "-i", "-"]
    command += ["-pix_fmt", pixels, "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-bf", "0", *options, str(path)]
    encoder = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for n in range(frames):
            encoder.stdin.write(painter.frame(n, 0).tobytes())
    except BrokenPipeError:
        pass  # its error text says why
    _, error = encoder.communicate(timeout=120)
    if encoder.returncode:
        raise RuntimeError(f"ffmpeg: {error.decode()}")
    return path


def remux(source, path):
    subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-i", str(source), "-c", "copy", str(path)], check=True, timeout=60)
    return path


def nal_units(data):
    """(type, bytes without start code) of each NAL unit of an Annex-B stream."""
    at = data.find(b"\x00\x00\x01")
    while at >= 0:
        begin = at + 3
        at = data.find(b"\x00\x00\x01", begin)
        unit = data[begin : at if at >= 0 else len(data)].rstrip(b"\x00")
        if unit:
            yield unit[0] & 0x1F, unit


def without(data, *types):
    return b"".join(b"\x00\x00\x00\x01" + unit for kind, unit in nal_units(data) if kind not in types)


class Media:
    """Lazily made files; `frames` pictures each, numbered from 0."""

    frames = 120

    def __init__(self, directory):
        self.directory = directory
        self._made = {}

    def _file(self, name, make):
        if name not in self._made:
            self._made[name] = make(self.directory / name)
        return self._made[name]

    def main_h264(self):
        return self._file("main.h264", lambda p: encode(p, self.frames, "-profile:v", "main", "-g", "30", "-b:v", "800k"))

    def main_mp4(self):
        return self._file("main.mp4", lambda p: remux(self.main_h264(), p))

    def high_h264(self):
        """Annex B with the parameter sets only at the very start: the sink must repeat them."""

        def make(path):
            encode(path, self.frames, "-profile:v", "high", "-g", "30", "-b:v", "800k")
            data = path.read_bytes()
            sets = {kind: b"\x00\x00\x00\x01" + unit for kind, unit in nal_units(data) if kind in (7, 8)}
            path.write_bytes(sets[7] + sets[8] + without(data, 7, 8))
            return path

        return self._file("high.h264", make)

    def high_mp4(self):
        return self._file("high.mp4", lambda p: encode(p, self.frames, "-profile:v", "high", "-g", "30", "-b:v", "800k"))

    def high_mkv(self):
        return self._file("high.mkv", lambda p: remux(self.high_mp4(), p))

    def baseline_h264(self):
        return self._file("baseline.h264", lambda p: encode(p, self.frames, "-profile:v", "baseline", "-g", "30", "-b:v", "800k"))

    def sliced_h264(self):
        return self._file("sliced.h264", lambda p: encode(p, self.frames, "-profile:v", "high", "-g", "30", "-b:v", "800k", "-x264-params", "slices=4"))

    def bframes_mp4(self):
        return self._file("bframes.mp4", lambda p: encode(p, self.frames, "-profile:v", "high", "-g", "30", "-bf", "2", "-b:v", "800k", "-x264-params", "b-adapt=0"))

    def long_gop_mp4(self):
        return self._file("longgop.mp4", lambda p: encode(p, 600, "-profile:v", "main", "-g", "600", "-keyint_min", "600", "-sc_threshold", "0", "-b:v", "300k"))

    def hvc1_mp4(self):
        """H.265 with its parameter sets beside the stream, as files have it."""
        options = ["-c:v", "libx265", "-tag:v", "hvc1", "-b:v", "800k", "-x265-params", "keyint=30:min-keyint=30:scenecut=0:bframes=0:log-level=error"]
        return self._file("hvc1.mp4", lambda p: encode(p, self.frames, *options))

    def long_run_mp4(self):
        """A minute of small pictures."""
        return self._file("longrun.mp4", lambda p: encode(p, 1800, "-profile:v", "main", "-preset", "ultrafast", "-g", "30", "-b:v", "200k"))

    def profile_422_h264(self):
        return self._file("high422.h264", lambda p: encode(p, 60, "-profile:v", "high422", "-g", "30", pixels="yuv422p"))

    def no_parameter_sets_h264(self):
        def make(path):
            path.write_bytes(without(self.main_h264().read_bytes(), 7, 8))
            return path

        return self._file("noparams.h264", make)
