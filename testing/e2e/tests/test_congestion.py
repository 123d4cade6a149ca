# SPDX-License-Identifier: MIT OR Apache-2.0
"""Links that are too small, lossy or just fine. Bounds are loose; the figures are `benches/congestion`'s."""

import time

import pytest
from harness.proc import PATIENCE, wait_until
from harness.uplink import Rates, encoder, hear_events

SOURCE = {"width": 640, "height": 360, "noise": 24}
FULL = 1500  # kbit/s
CUT = 600


def decoded(link):
    """Pictures of its one track that the viewer has decoded. Of those that come due together it shows only the last."""
    (name,) = {a["track"] for a in link.viewer.arrivals}
    return link.viewer.report()[name]["frames_decoded"]


def sent(publisher):
    """Pictures of its one track that went out."""
    return publisher.get("sink", "stats")["fields"]["video_0"]["fields"]["frames-sent"]


def assert_smooth(pictures, seconds, fps=30):
    """Nearly all: goal 29.5 a second. (What a machine that stands still for half a second makes or decodes late is later.)"""
    assert pictures >= (fps - 4 * 0.5) * seconds - fps / 2, f"{pictures} in {seconds:.1f} s"


def queue_full(publisher):
    stats = publisher.run("result = pipeline.get_by_name('sink').get_property('stats')")
    return stats["text"]


def test_an_encoder_follows_a_link_that_shrinks_and_opens(make_uplink):
    link = make_uplink()
    publisher = link.start(
        f"appsrc name=stamp ! {encoder(kbit=FULL)} ! livekitsink name=sink video_0::max-bitrate={FULL * 1000}", sources={"stamp": SOURCE}, meter="enc"
    )
    publisher.wait_published()
    link.viewer.wait_pictures(60)
    time.sleep(2)
    cut = time.monotonic()
    link.limit(CUT)
    time.sleep(8)
    settled = time.monotonic()
    before = decoded(link)
    time.sleep(4)
    after, opened = decoded(link), time.monotonic()
    rates = Rates.of(publisher)
    assert not publisher.select("error"), publisher.summary()
    targets = [e["fields"]["bitrate"] for e in publisher.select("element", "livekit-target-bitrate")]
    assert min(targets) < CUT * 1000, targets
    first = link.viewer.figures(cut, cut + 8)
    # Goals: 0.9 s without a picture, 0.5 s from painting to showing, 29.5 a second later on.
    assert first["gap_ms"] <= 4 * 900 and first["worst_ms"] <= 4 * 500, first
    assert_smooth(after - before, opened - settled)
    made = rates.kbit(opened - 6, opened)
    assert 0.2 * CUT < made < CUT * 1.05, made
    link.limit(None)
    # The goal is 10 s.
    back = lambda: Rates.of(publisher).back(opened, time.monotonic(), 0.7 * FULL)
    wait_until(back, 4 * 10, lambda: f"most of {FULL} kbit/s; {publisher.summary()}", interval=0.5)


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_random_loss_is_not_taken_for_congestion(make_uplink, loss):
    link = make_uplink(delay_ms=25, loss=loss)
    publisher = link.start(
        f"appsrc name=stamp ! {encoder(kbit=FULL)} ! livekitsink name=sink video_0::max-bitrate={FULL * 1000}", sources={"stamp": SOURCE}, meter="enc"
    )
    publisher.wait_published()
    link.viewer.wait_pictures(60)
    before, out, begin = decoded(link), sent(publisher), time.monotonic()
    time.sleep(15)
    after, out, end = decoded(link), sent(publisher) - out, time.monotonic()
    assert Rates.of(publisher).kbit(begin, end) > 0.5 * FULL, "no collapse"
    # Goal: 99 % of the frames. Decoded, not shown: of the frames behind a retransmission the SDK shows the last.
    came, painted = after - before, link.viewer.figures(begin, end)["painted"]
    # A link that stands still for a moment, because the machine does, costs frames that are too old afterwards.
    assert painted > 300 and out >= 0.8 * painted, (out, painted)
    assert came >= 0.96 * out, (came, out)
    # What the server's receiver reports say of it.
    figures = publisher.get("sink", "stats")["fields"]["video_0"]["fields"]
    assert 0.04e9 < figures["rtt"] < 5e9 and figures["jitter"] < 1e9 and figures["queue-time"] < 5e9, figures
    assert 0 <= figures["loss"] < 0.5 and figures["nack"] > 0 and figures["target-bitrate"] > 0, figures


def test_a_free_link_is_left_alone(make_uplink):
    link = make_uplink()
    publisher = link.start(
        f"appsrc name=stamp ! {encoder(kbit=FULL)} ! livekitsink name=sink video_0::max-bitrate={FULL * 1000}", sources={"stamp": SOURCE}, meter="enc"
    )
    publisher.wait_published()
    link.viewer.wait_pictures(60)
    before, begin = decoded(link), time.monotonic()
    time.sleep(15)
    after, end = decoded(link), time.monotonic()
    assert Rates.of(publisher).kbit(begin, end) > 0.9 * FULL
    assert_smooth(after - before, end - begin)


def test_two_tracks_share_and_sound_is_heard(make_uplink):
    link = make_uplink()
    pipeline = (
        f"appsrc name=one ! {encoder('enc1', FULL)} ! sink.video_0 appsrc name=two ! {encoder('enc2', FULL)} ! sink.video_1 "
        f"audiotestsrc is-live=true ! opusenc ! sink.audio_0 livekitsink name=sink max-bitrate={FULL * 1000}"
    )
    publisher = link.start(pipeline, sources={"one": SOURCE, "two": SOURCE}, meter="enc1")
    publisher.wait_published(3)
    link.viewer.wait_pictures(120)
    seen = lambda: {a["track"] for a in link.viewer.arrivals}
    wait_until(lambda: len(seen()) == 2, PATIENCE, lambda: f"pictures of both; {seen()}")
    names = seen()
    time.sleep(2)
    link.limit(CUT)
    time.sleep(2)
    begin, before = time.monotonic(), link.viewer.report()
    time.sleep(10)
    end, after = time.monotonic(), link.viewer.report()
    for name in names:
        pictures = after[name]["frames_decoded"] - before[name]["frames_decoded"]
        assert pictures > 15 * (end - begin), f"{pictures} of {name} in {end - begin:.1f} s; {publisher.summary()}"
    sound = [(before[n], after[n]) for n in after if n not in names]
    assert sound
    for a, b in sound:
        lost, received = b["packets_lost"] - a["packets_lost"], b["packets_received"] - a["packets_received"]
        assert received > 300 and lost <= 0.04 * received, (lost, received)


def test_a_source_that_cannot_adapt_moves_on_at_every_keyframe(make_uplink):
    link = make_uplink()
    # The event reaches nobody, the encoder stays as it is: as good as a file.
    line = f"appsrc name=stamp ! {encoder(kbit=FULL, gop=30)} ! livekitsink name=sink bitrate-feedback=off"
    publisher = link.start(line, sources={"stamp": SOURCE}, meter="enc")
    publisher.wait_published()
    link.viewer.wait_pictures(60)
    time.sleep(2)
    link.limit(CUT)
    time.sleep(2)
    begin = time.monotonic()
    time.sleep(8)
    opened = time.monotonic()
    shown = link.viewer.figures(begin, opened)
    link.limit(None)
    now = time.monotonic
    wait_until(lambda: now() > opened + 3 and link.viewer.figures(now() - 3, now())["fps"] > 20, 4 * 8, lambda: f"all pictures again; {publisher.summary()}")
    assert Rates.of(publisher).kbit(begin, opened) > 0.9 * FULL, "it does not adapt"
    # A keyframe a second; goal: half a second of queueing at most.
    assert shown["gap_ms"] <= 4000 and shown["fps"] >= 0.5, shown
    assert shown["worst_ms"] <= 4 * 500, shown
    assert "queue-full" in queue_full(publisher)


def test_an_encoder_that_only_hears_the_event_follows_too(make_uplink):
    link = make_uplink()
    line = f"appsrc name=stamp ! {encoder(kbit=FULL)} ! livekitsink name=sink bitrate-feedback=event video_0::max-bitrate={FULL * 1000}"
    publisher = link.start(line, sources={"stamp": SOURCE}, meter="enc")
    hear_events(publisher, "enc")
    publisher.wait_published()
    link.viewer.wait_pictures(60)
    time.sleep(2)
    link.limit(CUT)
    time.sleep(6)
    before, begin = decoded(link), time.monotonic()
    time.sleep(4)
    after, end = decoded(link), time.monotonic()
    made = Rates.of(publisher).kbit(end - 6, end)
    assert 0.2 * CUT < made < CUT * 1.05, made
    assert_smooth(after - before, end - begin)


def test_whole_layers_go_before_pictures_do(make_uplink):
    """Three layers of 150 + 400 + 1200 kbit/s into 600: the largest has to go; the others have their pictures, and it comes back."""
    link = make_uplink()
    sizes = {"video_0": (160, 90, 150), "video_1": (320, 180, 400), "video_2": (640, 360, 1200)}
    branches = " ".join(
        f"source. ! queue ! videoscale ! video/x-raw,width={w},height={h} ! {encoder(f'enc{n}', kbit)} ! sink.video_{n}"
        for n, (w, h, kbit) in enumerate(sizes.values())
    )
    layers = " ".join(f"{pad}::track=front {pad}::max-bitrate={kbit * 1000}" for pad, (_, _, kbit) in sizes.items())
    # The largest is not worth having below half its rate.
    line = f"appsrc name=stamp ! tee name=source livekitsink name=sink share-encoder=true {layers} video_2::min-bitrate=600000 {branches}"
    publisher = link.start(line, sources={"stamp": SOURCE}, meter="enc2")
    publisher.wait_published(3)
    link.viewer.wait_pictures(60)

    def width():
        shown = link.viewer.between(time.monotonic() - 0.5)
        return shown[-1]["width"] if shown else None

    def paused():
        told = {}
        for m in publisher.messages("livekit-target-bitrate"):
            told[m["pad"]] = m["active"]
        return {pad for pad, active in told.items() if not active}

    wait_until(lambda: width() == 640, PATIENCE, lambda: f"the largest layer; it is {width()}")
    link.limit(CUT)
    wait_until(lambda: "video_2" in paused(), PATIENCE, "the largest layer to be dropped")
    wait_until(lambda: width() in (160, 320), PATIENCE, lambda: f"a smaller picture; it is {width()}")
    time.sleep(4)
    end = time.monotonic()
    assert link.viewer.figures(end - 3, end)["fps"] >= 15, "the pictures of a smaller layer go on"
    assert "video_0" not in paused() and "video_2" in paused(), paused()
    assert link.viewer.between(end - 3)[-1]["width"] in (160, 320)
    reasons = {m["reason"] for m in publisher.messages("livekit-target-bitrate") if not m["active"]}
    assert reasons <= {"congestion", "unwatched"} and "congestion" in reasons, reasons
    link.limit(None)
    wait_until(lambda: "video_2" not in paused() and width() == 640, PATIENCE, lambda: f"the largest layer again; {width()}, {paused()}")
