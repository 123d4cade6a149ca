# SPDX-License-Identifier: MIT OR Apache-2.0
"""Packets lost, reordered and doubled between payloader and depayloader. Nothing wrong may be shown as good."""

import random
import socket
import subprocess
import time

import pytest
from harness.proc import Child, free_udp_port, wait_until
from rtpjpeg_harness import carry as c
from rtpjpeg_harness.pictures import decode, encode, psnr
from rtpjpeg_harness.receivers import LONG, listening, session_description, taken

SIZE = (640, 480)
FRAMES = 60


@pytest.fixture(scope="module")
def pictures():
    return [encode("640x480", number, 6) for number in range(4)]


@pytest.fixture(scope="module")
def restarting(pictures, needs):
    """The same with restart markers four units apart, as cameras have them."""
    needs("jpegtran")
    command = ["jpegtran", "-copy", "none", "-restart", "4B"]
    return [subprocess.run(command, input=one, capture_output=True, check=True).stdout for one in pictures]


def sent(pay, source):
    return c.packetize(pay, [source[number % len(source)] for number in range(FRAMES)], SIZE)


def random_loss(rate):
    def lose(rng, packets):
        kept = [packet for packet in packets if rng.random() >= rate]
        # So few may be lost that it is none.
        return kept if len(kept) < len(packets) else packets[:50] + packets[51:]

    return lose


def bursts(rate, length=8):
    """Runs of lost packets; `rate` of all packets in the end."""

    def lose(rng, packets):
        kept, left = [], 0
        for packet in packets:
            if left == 0 and rng.random() < rate / length:
                left = length
            if left:
                left -= 1
            else:
                kept.append(packet)
        return kept

    return lose


def reordered(rng, packets):
    out = list(packets)
    for at in range(len(out) - 3):
        if rng.random() < 0.05:
            out.insert(at + rng.randint(1, 3), out.pop(at))
    return out


def doubled(rng, packets):
    return [packet for packet in packets for _ in range(1 + (rng.random() < 0.1))]


def received(depay, caps, packets):
    line = f"appsrc name=in format=time ! {depay} ! appsink name=out sync=false"
    feeds = []
    for number, (data, pts) in enumerate(packets):
        made = c.buffer(data, 0)
        made.pts = pts
        feeds.append((caps, made) if number == 0 else made)
    return c.run(line, feeds)


def tally(outcome, source):
    """(whole, wrong, patched, worst PSNR of a patched one); wrong = shown as good, but not what was sent."""
    whole = wrong = patched = 0
    worst = 99.0
    for picture, corrupt, pts in zip(outcome.pictures, outcome.corrupt, outcome.times):
        want = decode(source[round(pts / c.INTERVAL) % len(source)])
        got = decode(picture)
        same = got is not None and got.shape == want.shape and psnr(got, want) == 99.0
        if corrupt:
            patched += 1
            worst = min(worst, 0.0 if got is None or got.shape != want.shape else psnr(got, want))
        elif same:
            whole += 1
        else:
            wrong += 1
    return whole, wrong, patched, worst


@pytest.mark.parametrize("model,rate", [("random", 0.001), ("random", 0.01), ("random", 0.05), ("bursts", 0.01), ("bursts", 0.05)])
def test_losses(model, rate, pictures, restarting):
    rows = []
    for label, pay, depay, source in [
        ("C, C", "rtpjpegpay", "rtpjpegdepay", pictures),
        ("ours whole-frame, ours", "rtpjpegpay-rs", "rtpjpegdepay-rs", pictures),
        ("ours aligned, ours", "rtpjpegpay-rs restart-mode=aligned", "rtpjpegdepay-rs", restarting),
        ("ours aligned, ours output-corrupt", "rtpjpegpay-rs restart-mode=aligned", "rtpjpegdepay-rs output-corrupt=true", restarting),
    ]:
        caps, frames = sent(pay, source)
        assert len(frames) == FRAMES
        rng = random.Random(f"{model} {rate}")
        lose = (random_loss if model == "random" else bursts)(rate)
        arrived = lose(rng, [packet for frame in frames for packet in frame])
        lost = sum(map(len, frames)) - len(arrived)
        intact = frames_intact(frames, arrived)
        outcome = received(depay, caps, arrived)
        whole, wrong, patched, worst = tally(outcome, source)
        rows.append(f"{label}: {lost} packets lost, {whole} of {FRAMES} whole, {patched} patched (worst {worst:.1f} dB), {wrong} wrong")
        if "ours" in label:
            assert wrong == 0, rows
            assert whole == intact, rows
            if "output-corrupt" in label:
                # Without a frame's first packet, which has the tables, or without all of it, nothing can be made of it.
                there = {packet[0] for packet in arrived}
                assert whole + patched == sum(frame[0][0] in there for frame in frames), rows
                assert worst > 12, rows
            else:
                assert patched == 0, rows
    print("\n".join(rows))


def frames_intact(frames, arrived):
    there = {packet[0] for packet in arrived}
    return sum(all(packet[0] in there for packet in frame) for frame in frames)


def seen_by_ffmpeg(packets, expected, directory):
    """The pictures that FFmpeg makes of these packets, sent by UDP: at least `expected`, if it works."""
    port, log = free_udp_port(), directory / "ffmpeg.log"
    (directory / "camera.sdp").write_text(session_description(port))
    argv = ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-protocol_whitelist", "file,udp,rtp", "-buffer_size", "4000000"]
    argv += ["-analyzeduration", "0", "-probesize", "32", "-i", "camera.sdp", "-c", "copy", "-f", "image2", "%d.jpg"]
    with Child(argv, log, cwd=directory) as child, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        wait_until(lambda: listening(port) or child.returncode is not None, LONG, lambda: child.tail())
        for data, _ in packets:
            sender.sendto(data, ("127.0.0.1", port))
            time.sleep(0.001)
            taken(port)
        wait_until(lambda: len(list(directory.glob("*.jpg"))) >= expected, LONG, lambda: f"{expected} pictures:\n{child.tail()}")
        # Time for more, which must not come.
        time.sleep(1)
        child.interrupt()
        child.wait(LONG)
    return [path.read_bytes() for path in directory.glob("*.jpg")]


@pytest.mark.parametrize("model,rate", [("random", 0.01), ("random", 0.05), ("bursts", 0.05)])
@pytest.mark.parametrize("pay,restarts", [("rtpjpegpay-rs", False), ("rtpjpegpay-rs restart-mode=aligned", True), ("rtpjpegpay", False)])
def test_losses_seen_by_ffmpeg(pay, restarts, model, rate, pictures, restarting, tmp_path, needs):
    """It drops what is not whole, whoever sent it."""
    needs("ffmpeg")
    source = restarting if restarts else pictures
    _, frames = sent(pay, source)
    # It may miss the first pictures, so nothing is lost of these.
    lead = 5
    lose = (random_loss if model == "random" else bursts)(rate)
    arrived = lose(random.Random(f"{model} {rate}"), [packet for frame in frames[lead:] for packet in frame])
    intact = frames_intact(frames[lead:], arrived)
    shown = seen_by_ffmpeg([packet for frame in frames[:lead] for packet in frame] + arrived, intact - 1, tmp_path)
    originals = [decode(picture) for picture in source]
    right = sum(any(psnr(decode(picture), original) == 99.0 for original in originals) for picture in shown)
    print(f"{pay}, FFmpeg, {model} {rate}: {right} of {FRAMES} whole, {len(shown) - right} wrong")
    # The last one has no successor that tells FFmpeg that it is over, if its marker is lost.
    assert right == len(shown) and intact - 1 <= right <= intact + lead, (right, len(shown), intact)
    assert intact < FRAMES - lead


@pytest.mark.parametrize("pay", ["rtpjpegpay-rs", "rtpjpegpay"])
def test_reordered_packets_behind_a_jitter_buffer(pay, pictures):
    caps, frames = sent(pay, pictures)
    arrived = reordered(random.Random(7), [packet for frame in frames for packet in frame])
    assert arrived != [packet for frame in frames for packet in frame]
    # It knows where the stream begins, so it waits for nothing but what is late; longer than a busy machine makes it.
    begin = int.from_bytes(frames[0][0][0][2:4], "big")
    caps += f", seqnum-base=(uint){begin}"
    outcome = received("rtpjitterbuffer latency=30000 ! rtpjpegdepay-rs", caps, arrived)
    assert tally(outcome, pictures) == (FRAMES, 0, 0, 99.0)


def test_reordered_packets_without_a_jitter_buffer_are_losses(pictures):
    caps, frames = sent("rtpjpegpay-rs", pictures)
    arrived = reordered(random.Random(7), [packet for frame in frames for packet in frame])
    whole, wrong, _, _ = tally(received("rtpjpegdepay-rs", caps, arrived), pictures)
    assert wrong == 0 and whole < FRAMES


def test_doubled_packets_change_nothing(pictures):
    caps, frames = sent("rtpjpegpay-rs", pictures)
    arrived = doubled(random.Random(7), [packet for frame in frames for packet in frame])
    assert len(arrived) > sum(map(len, frames))
    assert tally(received("rtpjpegdepay-rs", caps, arrived), pictures) == (FRAMES, 0, 0, 99.0)
