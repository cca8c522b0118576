"""Wireshark reads whatever the Map-Server sends: acknowledgements, moves, publications, answers, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.core.effects import Send
from lispfmc.wire import encode
from lispfmc.wire.auth import sign
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapRegister
from tests.integration.wireshark import assert_read_whole, visible
from tests.scenarios.mapserver_world import ALICE, Controller, World, Xtr

pytestmark = pytest.mark.tshark


def story() -> Iterator[Send]:
    """A move with subscribers, and every kind of answer."""
    world = World()
    home, away, controller = Xtr(world, "access1"), Xtr(world, "access2"), Controller(world)
    home.registers(home.home, home.home6, ALICE, "[7]100.64.1.0/24")
    controller.subscribes("100.64.0.0/10", 1)  # refused
    controller.subscribes(home.home, 1)
    controller.acknowledges(controller.notifies()[0])
    away.registers(ALICE, version=3)
    world.run(0.5)  # repetitions
    home.registers(ALICE)  # an objection
    controller.unsubscribes(home.home, 100)
    yield from world.sent
    for eid in (ALICE, "100.64.1.9/32", "fd00:0:0:1::5/128", "[7]100.64.1.9/32", "10.0.0.1/32", "fd00:0:0:2::9/128"):
        world.ask(eid)
        yield from world.sent
    passive = Xtr(world, "dc1")
    passive.registers("100.64.101.0/24", proxy_reply=False)
    world.forget()
    world.hears(world.request("100.64.101.9/32"), away.endpoint)
    yield from world.sent


def as_sent(send: Send) -> bytes:
    message = send.message
    if send.key is None or not isinstance(message, MapRegister | MapNotify | MapNotifyAck):
        return encode(message)
    return sign(message, send.key)


def test_wireshark_reads_everything_that_a_map_server_sends(tmp_path: Path) -> None:
    datagrams = [as_sent(send) for send in story()]
    assert {datagram[0] >> 4 for datagram in datagrams} == {2, 4, 8}
    assert assert_read_whole(map(visible, datagrams), tmp_path / "mapserver.pcap") > 15
