# SPDX-License-Identifier: MIT OR Apache-2.0
"""Data packets both ways, by pads and by signals, and what a participant shows of itself while it plays."""

import pytest

from conftest import ENCODER
from harness.checks import assert_decoded
from harness.proc import PATIENCE, wait_until
from harness.tcpproxy import TcpProxy

LIVE = f"appsrc name=stamp ! {ENCODER.format(gop=60)} ! livekitsink name=sink identity=camera "
DATA = "appsrc name={name} is-live=true do-timestamp=true format=time caps={caps} ! sink.{pad} "
# Collects what the element hears; `heard` lives as long as the publisher.
HEAR = """
heard = runner.heard = []
def on_data(sink, payload, topic, sender, reliable):
    heard.append([payload.get_data().decode(), topic, sender, reliable])
pipeline.get_by_name("sink").connect("data-received", on_data)
"""


def push(publisher, source, payloads):
    """Buffers into an appsrc of the publisher, each stamped by it."""
    publisher.run(
        f"src = pipeline.get_by_name({source!r})\n"
        f"for p in {payloads!r}:\n"
        "    src.emit('push-buffer', Gst.Buffer.new_wrapped(p.encode()))\n"
    )


def send(publisher, payload, topic="control", reliable=True, to=()):
    return publisher.run(f"result = pipeline.get_by_name('sink').emit('send-data', GLib.Bytes.new({payload!r}), {topic!r}, {reliable}, {list(to)!r})")


def wait_channels(publisher):
    """A lossy packet is taken once the channels are open."""
    wait_until(lambda: send(publisher, b"probe", "probe", False), PATIENCE, lambda: f"the data channels:\n{publisher.summary()}")


def stats(publisher, part):
    return publisher.get("sink", "stats")["fields"][part]["fields"]


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "lossy"])
def test_buffers_of_a_pad_arrive_in_the_room(stage, reliable):
    viewer = stage.view()
    publisher = stage.live(
        LIVE
        + f"data_0::reliable={reliable} data_1::reliable={reliable} data_1::topic=position "
        + DATA.format(name="klv", caps="meta/x-klv,parsed=true", pad="data_0")
        + DATA.format(name="json", caps="application/json", pad="data_1")
    )
    publisher.wait_published()
    wait_channels(publisher)
    viewer.wait_video(frames=5)
    sent = [f"packet {n}" for n in range(50)]
    push(publisher, "klv", sent)
    push(publisher, "json", ['{"x": 1}'])
    wanted = lambda topic: [d for d in viewer.data if d.topic == topic]
    wait_until(lambda: len(wanted("data_0")) == 50 and wanted("position"), PATIENCE, lambda: f"data; have {viewer.data}\n{publisher.summary()}")
    got = [d.payload.decode() for d in wanted("data_0")]
    assert got == sent if reliable else sorted(got) == sorted(sent)
    assert {(d.sender, d.reliable) for d in viewer.data if d.topic != "probe"} == {("camera", reliable)}
    assert wanted("position")[0].payload == b'{"x": 1}'
    pad = stats(publisher, "data_0")
    assert (pad["packets"], pad["packets-dropped"]) == (50, 0)
    # It costs the pictures nothing.
    assert_decoded(viewer, viewer.wait_video(frames=30))


def test_the_action_signal_reaches_those_it_names(stage):
    viewer, other = stage.view(), stage.view("other")
    publisher = stage.live(LIVE)
    publisher.wait_published()
    assert send(publisher, b"first", "greeting"), "a reliable packet opens the channels by itself"
    assert send(publisher, b"for one", "secret", True, ["other"])
    assert send(publisher, b"x" * 15360, "large")
    assert not send(publisher, b"x" * 15361, "too large")
    for who, topics in ((viewer, ["greeting", "large"]), (other, ["greeting", "secret", "large"])):
        wait_until(lambda: [d.topic for d in who.data] == topics, PATIENCE, lambda: f"{topics} at {who.identity}; have {who.data}")
    assert len(viewer.data[-1].payload) == 15360


def test_data_of_others_comes_by_signal(stage):
    viewer = stage.view()
    publisher = stage.live(LIVE)
    publisher.wait_published()
    publisher.run(HEAR)
    wait_until(lambda: send(publisher, b"here", "hello"), PATIENCE, "a first packet, which opens the channels")
    wait_until(lambda: viewer.data, PATIENCE, "the packet")
    # What comes by a channel that is not open yet, and may be lost, is.
    wait_channels(publisher)
    viewer.send(b"faster", "control", reliable=True)
    viewer.send(b"slower", "control", reliable=False)
    viewer.send(b"not for us", "control", reliable=True, to=["somebody else"])
    viewer.send(b"only for us", "control", reliable=True, to=["camera"])
    heard = lambda: publisher.run("result = runner.heard")
    wait_until(lambda: len(heard()) >= 3, PATIENCE, lambda: f"three packets; have {heard()}")
    assert sorted(heard()) == sorted(
        [["faster", "control", "viewer", True], ["slower", "control", "viewer", False], ["only for us", "control", "viewer", True]]
    )
    assert stats(publisher, "data")["packets-received"] == 3


def test_a_handler_that_was_there_first_needs_no_packet_of_ours(stage):
    viewer = stage.view()
    # The receiver has no pad at all: it listens.
    publisher = stage.publish("livekitsink name=sink identity=camera", start=HEAR)
    publisher.wait_joined()
    heard = lambda: publisher.run("result = runner.heard")

    def spoken():
        viewer.send(b"hello", "t", reliable=True)
        return heard()

    wait_until(spoken, PATIENCE, lambda: f"a packet:\n{publisher.summary()}", interval=0.2)
    assert heard()[0] == ["hello", "t", "viewer", True]


def test_a_token_without_the_grant_is_said(stage):
    publisher = stage.live(
        LIVE + DATA.format(name="klv", caps="meta/x-klv", pad="data_0"),
        env=ready_token(stage, canPublish=True, canPublishData=False),
    )
    publisher.wait_published()

    def warned():
        push(publisher, "klv", ["x"])
        return publisher.warnings("data_0", "canpublishdata")

    wait_until(warned, PATIENCE, lambda: f"the warning:\n{publisher.summary()}", interval=0.2)
    assert stats(publisher, "data_0")["dropped-not-allowed"] >= 1


def test_reliable_packets_given_offline_arrive_after_the_return(stage):
    """The signalling connection is cut, and the server ends the rest; what is given meanwhile comes, in order, when the publisher is back."""
    proxy = TcpProxy(stage.server.port)
    viewer = stage.view()
    try:
        publisher = stage.live(
            LIVE + DATA.format(name="klv", caps="meta/x-klv", pad="data_0"),
            env=stage.env(LIVEKIT_URL=f"ws://127.0.0.1:{proxy.port}"),
        )
        publisher.wait_published()
        push(publisher, "klv", ["before"])
        wait_until(lambda: viewer.data, PATIENCE, lambda: f"the first packet:\n{publisher.summary()}")
        proxy.cut()
        publisher.wait_for("element", "livekit-resuming")
        stage.server.api("RemoveParticipant", room=stage.room, identity="camera")
        publisher.wait_for("element", "livekit-offline")
        push(publisher, "klv", [f"off {n}" for n in range(20)])
        assert not send(publisher, b"lossy", "t", False), "a lossy packet does not wait"
        wait_until(lambda: stats(publisher, "data")["packets-queued"] == 20, PATIENCE, "20 packets in the queue")
        proxy.mend()
        wait_until(lambda: len(viewer.data) >= 21, PATIENCE, lambda: f"21 packets; have {[d.payload for d in viewer.data]}\n{publisher.summary()}")
        assert [d.payload.decode() for d in viewer.data] == ["before"] + [f"off {n}" for n in range(20)]
    finally:
        proxy.close()


def ready_token(stage, **grants):
    return stage.env(LIVEKIT_API_KEY=None, LIVEKIT_API_SECRET=None, LIVEKIT_TOKEN=stage.server.token(stage.room, "camera", **grants))


def test_metadata_name_and_attributes_change_while_playing(stage):
    viewer = stage.view()
    publisher = stage.live(LIVE + 'metadata=old participant-name=Cam attributes="a,side=(string)left,goes=(string)x"')
    publisher.wait_published()
    viewer.wait_video(frames=1)
    camera = lambda: viewer.room.remote_participants["camera"]
    assert (camera().metadata, camera().name, camera().attributes) == ("old", "Cam", {"side": "left", "goes": "x"})
    publisher.run("pipeline.get_by_name('sink').set_property('metadata', 'new')")
    publisher.run("pipeline.get_by_name('sink').set_property('participant-name', 'Front')")
    publisher.run("pipeline.get_by_name('sink').set_property('attributes', Gst.Structure.from_string('a,side=(string)right,floor=(string)2')[0])")
    wanted = ("new", "Front", {"side": "right", "floor": "2"})
    now = lambda: (camera().metadata, camera().name, camera().attributes)
    wait_until(lambda: now() == wanted, PATIENCE, lambda: f"{wanted}; is {now()}\n{publisher.summary()}")
    assert not publisher.warnings("metadata")


def test_a_refused_change_is_said(stage):
    publisher = stage.live(LIVE, env=ready_token(stage))
    publisher.wait_published()
    publisher.run("pipeline.get_by_name('sink').set_property('metadata', 'new')")
    wait_until(lambda: publisher.warnings("canupdateownmetadata"), PATIENCE, publisher.summary)


def test_a_file_of_data_arrives_whole(stage):
    """Nothing but data, and not live: the pipeline waits for the room, keeps the buffers' times, and ends well."""
    viewer = stage.view()
    publisher = stage.publish(
        "appsrc name=json format=time caps=application/json ! sink.data_0 livekitsink name=sink identity=camera data_0::reliable=false data_0::topic=track",
        start=(
            "src = pipeline.get_by_name('json')\n"
            "for n in range(20):\n"
            "    b = Gst.Buffer.new_wrapped(f'{n}'.encode())\n"
            "    b.pts = n * 50 * Gst.MSECOND\n"
            "    src.emit('push-buffer', b)\n"
            "src.emit('end-of-stream')\n"
        ),
    )
    publisher.wait_for("eos")
    wait_until(lambda: len(viewer.data) == 20, PATIENCE, lambda: f"20 packets; have {viewer.data}\n{publisher.summary()}")
    assert sorted(int(d.payload) for d in viewer.data) == list(range(20))
    playing = next(e["t"] for e in publisher.select("state") if e["state"] == "playing")
    assert publisher.select("eos")[0]["t"] - playing > 0.9, "at their times"
