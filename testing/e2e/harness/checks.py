# SPDX-License-Identifier: MIT OR Apache-2.0
"""What several tests assert about the pictures that arrived."""

import warnings

from .proc import PATIENCE, wait_until

# The median way from painting to the viewer's decoded picture, 4 x the 100 ms that a loopback should stay below.
DELAY_LIMIT_MS = 400


def sfu_received(server, room, identity, mime="video/H264", timeout=PATIENCE, count=1):
    """The server's own receive statistics of a finished track (written when the publisher has left)."""

    def entry():
        found = [
            e["stats"]
            for e in server.log_entries(msg="rtp stats", room=room, participant=identity, direction="upstream")
            if e.get("mime", "").lower() == mime.lower()
        ]
        return found if len(found) >= count else None

    return wait_until(entry, timeout, f"the server's receive statistics of {identity} in {room}", interval=0.1)


def assert_all_received(stats, frames):
    """The server got that many pictures; its own count is off by one now and then, packets are counted exactly."""
    assert stats["packetsLost"] == 0 and stats["packetsSeenPrimary"] == stats["packetsExpected"], stats
    assert frames - 1 <= stats["frames"] <= frames + 1, stats


def assert_none_lost_on_our_way(stage, publisher, identity="camera"):
    """Ends the publisher. All its packets came to the server; what a viewer that gets no time loses says nothing of us."""
    publisher.quit()
    stats = sfu_received(stage.server, stage.room, identity)[0]
    assert stats["packetsLost"] == 0 and stats["packetsSeenPrimary"] == stats["packetsExpected"], stats


def assert_decoded(viewer, feed, first=None, last=None):
    """Every picture from `first` to `last` (default: those seen) came to the viewer's decoder.

    Of pictures that come due together, as after a moment in which nothing ran, the SDK shows the last only; on a busy machine
    that is many moments. What is missing among those shown must be in the decoder's count.
    """
    report = feed.report(first, last)
    if not report["missing"]:
        return
    numbers = feed.numbers()
    wanted = max(numbers) - min(numbers) + 1
    # The statistics are a moment old.
    wait_until(lambda: viewer.inbound(feed)["frames_decoded"] >= wanted, 5, lambda: f"{wanted} decoded pictures: {viewer.inbound(feed)}, {report}")


def too_old(publisher, pad="video_0"):
    """Frames that the sink counts as too old to be sent: a machine that stands still for a moment costs some."""
    track = publisher.get("sink", "stats")["fields"][pad]["fields"]
    return track["dropped-queue-full"] + track["dropped-waiting-for-keyframe"]


def assert_whole(feed, last, stats, latest_start=0, replays=0, dropped=0):
    """Frames up to number `last` are here, in order, readable, none lost on our way to the server.

    The first numbers may be missing: a viewer starts at the first key frame after it subscribed, which must not be
    later than `latest_start`. Of those later on the viewer may not have shown all (see `assert_decoded`): what counts is
    what the server received. At each of the `replays` time goes back: servers ask for keyframes of their own accord, too.
    `dropped`: see `too_old`.
    """
    report = feed.report(last=last)
    numbers = feed.numbers()
    assert numbers, f"no picture could be read: {report}"
    assert numbers[0] <= latest_start, f"the first picture is number {numbers[0]}: {report}"
    assert report["unreadable"] == 0 and report["out_of_order"] <= replays, report
    assert report["repeated"] == 0 or report["out_of_order"] > 0, report
    if report["missing"]:
        assert not stats["packetsLost"], f"lost on the way to the server ({stats['packetsLost']} packets): {report}"
        # The server's own count is off by one now and then.
        assert stats["frames"] >= last - numbers[0] - dropped, f"of these the server received {stats['frames']} only: {report}"
        assert len(report["missing"]) <= report["received"], f"the viewer missed too many: {report}"
        warnings.warn(f"the viewer did not show frames that the server received: {report['missing']}", stacklevel=2)
