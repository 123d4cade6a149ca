# SPDX-License-Identifier: MIT OR Apache-2.0
"""Links that change under one's feet: steps with delay and loss, a download beside, delays that come and go. Bounds are four
times the goals; `scripts/soak --only link` does it for long."""

import time

from harness import badlink
from harness.badlink import FULL
from harness.proc import PATIENCE, wait_until
from harness.uplink import Rates

# Goals: no freeze above 1 s at a step, no stall above 2 s whatever the link does. kbit/s: of the link, before and after a step.
FREEZE, STALL = 4 * 1000, 4 * 2000
WIDE, NARROW = 4000, 1000


def test_steps_of_a_link_with_delay_and_loss(make_uplink):
    """4, 1, 4 Mbit/s with 50 ms both ways together, and 1 % lost. Goals: the encoder follows within 2 s down and 10 s up."""
    link = make_uplink(delay_ms=25, loss=0.01)
    link.limit(WIDE)
    publisher = badlink.publish(link)
    wait_until(lambda: Rates.of(publisher).kbit(time.monotonic() - 2, time.monotonic()) > 0.7 * FULL, PATIENCE, publisher.summary, interval=0.5)
    cut = time.monotonic()
    link.limit(NARROW)
    down = lambda: Rates.of(publisher).down(cut, time.monotonic(), NARROW)
    wait_until(lambda: down() is not None, 4 * 2, lambda: f"less than {NARROW} kbit/s; {publisher.summary()}", interval=0.5)
    time.sleep(max(0.0, cut + 8 - time.monotonic()))
    opened = time.monotonic()
    targets = publisher.select("element", "livekit-target-bitrate")
    told = next((e["t"] - cut for e in targets if e["t"] > cut and e["fields"]["bitrate"] < NARROW * 1000), float("nan"))
    print(f"told to make less than the link carries after {told:.2f} s, makes less from {down():.2f} s on")
    made = Rates.of(publisher).kbit(opened - 4, opened)
    shown = link.viewer.figures(cut, opened)
    print(f"narrow: {made:.0f} kbit/s made, {shown}")
    assert 0.2 * NARROW < made < 1.05 * NARROW, made
    assert shown["gap_ms"] <= FREEZE, shown
    link.limit(WIDE)
    back = lambda: Rates.of(publisher).back(opened, time.monotonic(), 0.7 * FULL)
    print(f"back after {wait_until(back, 4 * 10, publisher.summary, interval=0.5):.1f} s")
    assert link.viewer.figures(opened, time.monotonic())["gap_ms"] <= FREEZE
    badlink.assert_same_stay(publisher)


def test_a_download_beside_and_delays_that_come_and_go(make_uplink):
    """First TCP fills the way back, whose queue holds up all feedback; then the link stands still for a moment, as radios do."""
    link = make_uplink(delay_ms=10, emulated=True)
    link.limit(WIDE)
    link.limit(WIDE, down=True)
    publisher = badlink.publish(link)
    with badlink.Download(link) as download:
        download.wait(500_000)
        had, begin = download.bytes(), time.monotonic()
        time.sleep(5)
        end = time.monotonic()
        assert (download.bytes() - had) * 8 / 1000 > 0.2 * WIDE * (end - begin), "the download takes little of the link"
    shown, made = link.viewer.figures(begin, end), Rates.of(publisher).kbit(begin, end)
    print(f"beside a download: {made:.0f} kbit/s made, {shown}")
    assert shown["gap_ms"] <= STALL and made > 0.2 * FULL, (shown, made)
    begin = time.monotonic()
    for _ in range(2):
        badlink.spike(link, 200, 0.3)
        time.sleep(3)
    end = time.monotonic()
    shown, made = link.viewer.figures(begin, end), Rates.of(publisher).kbit(begin, end)
    print(f"delays that come and go: {made:.0f} kbit/s made, {shown}")
    # Each spike looks like a queue that grows, and costs some of the rate.
    assert shown["gap_ms"] <= STALL and made > 0.1 * FULL, (shown, made)
    badlink.assert_same_stay(publisher)
