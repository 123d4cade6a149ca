# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many sinks in one process, and what a frame costs in system calls."""

import re
import time
from pathlib import Path

import pytest
from harness.netns import Namespaces, NotPermitted
from harness.proc import PATIENCE, wait_until
from harness.publisher import Publisher, plugin_env
from harness.server import LiveKitServer

SINKS = 20
# All sinks of a process together may have that many threads more than the same pipelines without them: a thread for
# each sink would be twenty. (Helpers of a moment are in it, and what a look every hundredth of a second passes over.)
MORE_THREADS = 8
# Goals of the issue, times four: 3 MB more for each sink, no more CPU time than as many single ones.
MORE_MB_EACH = 3 * 4
CPU_FACTOR = 4


class Watched:
    """A gst-launch whose threads and memory are watched from its start on."""

    def __init__(self, child):
        self.child, self.most, self.names = child, 0, {}

    def look(self):
        names = {}
        for task in Path(f"/proc/{self.child.pid}/task").glob("*"):
            try:
                name = re.sub(r"\d*:.*", "", (task / "comm").read_text().strip())
            except OSError:
                continue
            names[name] = names.get(name, 0) + 1
        if sum(names.values()) > self.most:
            self.most, self.names = sum(names.values()), names
        return False

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.01)

    def settle(self):
        """Watches until two seconds have brought no further thread."""
        most, since = -1, 0.0

        def still():
            nonlocal most, since
            if self.most > most:
                most, since = self.most, time.monotonic()
            return time.monotonic() > since + 2

        self.until(still, PATIENCE, lambda: f"the number of threads to stay, it is {self.most}: {self.names}")

    def until(self, condition, timeout, what):
        """Waits and keeps looking meanwhile."""
        wait_until(lambda: condition() or self.look(), timeout, what, interval=0.01)

    def peak_mb(self):
        return int(re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{self.child.pid}/status").read_text(), re.M)[1]) / 1024

    def cpu_seconds(self):
        return time.clock_gettime(~self.child.pid << 3 | 2)


def pipelines(path, sinks):
    return " ".join(f"filesrc location={path} ! qtdemux ! {sink}" for sink in sinks)


@pytest.mark.slow
def test_twenty_publishers_in_one_process(stage, media):
    path = media.long_run_mp4()
    plain = Watched(stage.launch(pipelines(path, ["h264parse ! fakesink sync=true"] * SINKS), flags=("-q",)))
    plain.until(lambda: plain.most > SINKS, PATIENCE, lambda: f"a thread of each of {SINKS} pipelines; threads {plain.names}, {plain.child.tail()}")
    plain.settle()
    plain_mb = plain.peak_mb()
    plain.child.stop()

    viewer = stage.view()

    def play(count, tag):
        names = [f"{tag}{n}" for n in range(count)]
        ours = Watched(stage.launch(pipelines(path, [f"livekitsink identity={name}" for name in names]), flags=("-q",)))

        def seen():
            return {f.publisher for f in list(viewer.video) if len(f.arrivals) > 15} >= set(names)

        ours.until(seen, PATIENCE, lambda: f"pictures of all {count}; have {[(f.publisher, len(f.arrivals)) for f in viewer.video]}")
        before, begin = ours.cpu_seconds(), time.monotonic()
        ours.watch(4)
        rate = (ours.cpu_seconds() - before) / (time.monotonic() - begin)
        assert ours.child.returncode is None, ours.child.tail()
        peak = ours.peak_mb()
        ours.child.stop()
        return ours, rate, peak

    one, one_rate, _ = play(1, "single")
    many, many_rate, many_mb = play(SINKS, "many")
    assert many.most <= plain.most + MORE_THREADS, f"{many.names}, without the sinks {plain.names}"
    # The same threads for one as for many: what is left are those of the pipelines.
    assert many.most - plain.most <= one.most - (plain.most - SINKS + 1) + MORE_THREADS, f"{many.names}; one sink {one.names}"
    assert (many_mb - plain_mb) / SINKS <= MORE_MB_EACH, f"{many_mb:.1f} MB, without the sinks {plain_mb:.1f} MB"
    assert many_rate <= CPU_FACTOR * SINKS * one_rate, f"{many_rate:.3f} CPU seconds a second, one alone {one_rate:.3f}"


def snow(fps=30):
    """A stream of many packets: noise fills any bitrate."""
    return f"videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=360,framerate={fps}/1 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=60"


def sent(publisher, frames, timeout=PATIENCE):
    """The `stats` of a sink once so many frames of its first pad went out."""

    def enough():
        stats = publisher.get("sink", "stats")["fields"]
        track = stats.get("video_0")
        # Counters of the connection come once a second, the track's at once.
        return stats if track and track["fields"]["frames-sent"] >= frames and stats["datagrams-sent"] >= frames else None

    return wait_until(enough, timeout, f"{frames} frames to be sent", interval=0.2)


def test_a_frame_takes_few_system_calls(stage):
    viewer = stage.view()
    publisher = stage.publish(f"{snow()} ! livekitsink name=sink identity=snow")
    viewer.wait_video(frames=90)
    stats = sent(publisher, 120)
    frames = stats["video_0"]["fields"]["frames-sent"]
    assert stats["datagrams-sent"] > 8 * frames, "a frame must have many packets for this to say something"
    # One call for a frame, some for what else there is; four times that.
    assert stats["send-calls"] <= 4 * 2 * frames, stats
    assert stats["datagrams-sent"] > 2 * stats["send-calls"], stats
    assert stats["send-errors"] == 0 and stats["segmentation-refused"] == 0, stats


def test_a_path_that_takes_no_segments(tmp_path, room):
    """A link with a smaller MTU than our packets: segmentation is refused, the packets go all the same."""
    try:
        namespaces = Namespaces()
    except NotPermitted as e:
        pytest.skip(f"needs root: {e}")
    with namespaces:
        namespaces.set_mtu(900)
        with LiveKitServer(tmp_path, address=namespaces.server_address, prefix=namespaces.inside(namespaces.server)) as server:
            env = plugin_env(LIVEKIT_URL=server.url, LIVEKIT_TOKEN=server.token(room, "camera"))
            with Publisher(f"{snow()} ! livekitsink name=sink", tmp_path / "publisher.log", env=env, prefix=namespaces.inside(namespaces.client)) as publisher:
                publisher.wait_published()
                stats = sent(publisher, 90)
                publisher.send_eos()
                publisher.wait_for("eos")
                assert publisher.wait_exit() == 0
            assert stats["segmentation-refused"] == 1 and stats["send-errors"] == 0, stats
            received = wait_until(
                lambda: next((e["stats"] for e in server.log_entries(msg="rtp stats", room=room, participant="camera", direction="upstream")), None),
                PATIENCE,
                "the server's receive statistics",
            )
            assert received["packetsLost"] == 0 and received["frames"] >= 90, received


def test_a_hundred_pads(stage):
    """Ten times as many as anybody needs: tracks like others."""
    count = 100
    branches = " ".join(f"tee. ! queue max-size-buffers=5 leaky=downstream ! sink.audio_{n}" for n in range(count))
    publisher = stage.publish(f"audiotestsrc is-live=true ! opusenc ! tee name=tee livekitsink name=sink identity=camera {branches}")
    publisher.wait_published(count)
    assert len(stage.server.wait_participant(stage.room, "camera", tracks=count)["tracks"]) == count
    assert len(publisher.messages("livekit-joined")) == 1 and not publisher.select("warning"), publisher.summary()
    publisher.send_eos()
    publisher.wait_for("eos")
