# SPDX-License-Identifier: MIT OR Apache-2.0
"""An RTSP camera (gst-rtsp-server) that sends stamped pictures; prints JSON lines. Runs as its own process.

    python3 -m harness.rtspserver PORT avpf|avp

`avpf` answers requests for key frames (the request then reaches its encoder, printed as `key-unit`); `avp` is the
plain camera that can't be asked. Both send a key frame only every GOP seconds of their own accord.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

from .feeder import Feeder  # noqa: E402
from .gstrun import emit  # noqa: E402

FPS = 15


class Camera(GstRtspServer.RTSPMediaFactory):
    def __init__(self, avpf, gop):
        super().__init__()
        # rtpsession passes a request on only when the payloader's caps say that both kinds are understood.
        caps = "application/x-rtp,rtcp-fb-nack-pli=(boolean)true,rtcp-fb-ccm-fir=(boolean)true" if avpf else "application/x-rtp"
        self.set_launch(
            f"( appsrc name=stamp ! x264enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=600 key-int-max={gop * FPS} "
            f"! video/x-h264,profile=constrained-baseline ! rtph264pay pt=96 ! capssetter name=pay0 caps={caps} )"
        )
        if avpf:
            self.set_profiles(GstRtsp.RTSPProfile.AVPF)
        self.set_shared(True)
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media):
        element = media.get_element()

        def probe(_pad, info):
            structure = info.get_event().get_structure()
            if structure and structure.get_name() == "GstForceKeyUnit":
                emit("key-unit")
            return Gst.PadProbeReturn.OK

        element.get_by_name("enc").get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_UPSTREAM, probe)
        feeder = Feeder(element.get_by_name("stamp"), fps=FPS)
        feeder.go()
        media.connect("unprepared", lambda _media: feeder.stop())


def main():
    Gst.init(None)
    avpf, gop = sys.argv[2] == "avpf", int(sys.argv[3])
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    server.get_mount_points().add_factory("/camera", Camera(avpf, gop))
    if not server.attach(None):
        emit("error", text="the port is taken")
        return 1
    emit("ready", url=f"rtsp://127.0.0.1:{sys.argv[1]}/camera")
    GLib.MainLoop().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
