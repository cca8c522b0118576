"""Control traffic is marked as such: every datagram of the Map-Server carries DSCP CS6 (RFC 4594 §3.1)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_mapserver_loopback import ACCESS1, ACCESS2, ALICE, FMCC, HOME, Peer, Running

pytestmark = pytest.mark.asyncio
CS6 = 0b110000 << 2


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    mapserver = Running(tmp_path)
    yield mapserver
    mapserver.close()


async def heard(peer: Peer) -> tuple[int, int]:
    """The type of the next message, and how it is marked."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(peer.socket, ready.set)
    await asyncio.wait_for(ready.wait(), 5)
    loop.remove_reader(peer.socket)
    datagram, [(_, _, tos)], _, _ = peer.socket.recvmsg(65535, 64)
    return datagram[0] >> 4, tos[0]


async def test_answers_notifications_and_publications_are_marked_as_network_control(running: Running) -> None:
    await running.start()
    home, away, fmcc = running.peer(ACCESS1), running.peer(ACCESS2), running.peer(FMCC)
    for each in (home, away, fmcc):
        each.socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    home.registers(HOME, ALICE)
    assert await heard(home) == (4, CS6)
    fmcc.asks(HOME, subscribe=True)
    assert await heard(fmcc) == (4, CS6)
    away.registers(ALICE)
    assert await heard(home) == (4, CS6)
    assert await heard(fmcc) == (4, CS6)
    assert await heard(away) == (4, CS6)
    away.asks("100.64.1.9/32")
    assert await heard(away) == (2, CS6)
