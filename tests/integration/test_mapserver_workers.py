"""Several workers at one port: whichever the kernel chooses gives the right answer, and one that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.wire import decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.messages import Ecm, MapReply
from lispfmc.wire.messages import MapRequest as Request
from lispfmc.wire.messages import RequestRecord as Record
from tests.integration.test_mapserver_loopback import ACCESS1, ACCESS2, ALICE, FMCC, HOME, SERVER, Running

pytestmark = pytest.mark.asyncio
ASKERS = 24


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    mapserver = Running(tmp_path)
    text = mapserver.config.read_text()
    text = text.replace("[[sites]]", "workers = 2\n[[sites]]", 1)
    mapserver.config.write_text(text + "\n[limits]\nreply_burst = 1000\n")
    yield mapserver
    mapserver.close()


async def both(running: Running) -> None:
    async with asyncio.timeout(20):
        while (await running.get("/v1/status"))["workers"] < 2:  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.05)


async def answers(running: Running, eid: str) -> list[bytes]:
    """What as many askers as the kernel spreads over both workers are told: the first locator."""
    loop = asyncio.get_running_loop()
    told = []
    for number in range(ASKERS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.setblocking(False)
            asker.bind(("127.0.0.1", 0))
            me, port = asker.getsockname()
            request = Request.of(Record.of(Prefix.parse(eid)), nonce=number, itr_rlocs=[ip_of(me)])
            inner = ip_of(eid.partition("/")[0])
            asker.sendto(
                encode(Ecm.of(request, source=inner, destination=inner, source_port=port)), (SERVER, running.port)
            )
            reply = decode(await asyncio.wait_for(loop.sock_recv(asker, 4096), 5))
        assert isinstance(reply, MapReply)
        address = reply.records[0].locators[0].address
        assert isinstance(address, bytes)
        told.append(address)
    return told


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie has none
    except FileNotFoundError:
        return False


async def test_both_workers_answer_and_follow_every_change(running: Running) -> None:
    await running.start()
    home, away, fmcc = running.peer(ACCESS1), running.peer(ACCESS2), running.peer(FMCC)
    home.registers(HOME, ALICE)
    await home.is_notified()
    await both(running)
    assert set(await answers(running, ALICE)) == {home.address}
    asked = 2 * ASKERS
    fmcc.asks(HOME, subscribe=True)  # whichever worker hears it, the one that writes publishes
    fmcc.acknowledges(await fmcc.is_notified())
    away.registers(ALICE)
    await away.is_notified()
    await fmcc.is_notified()
    home.acknowledges(await home.is_notified())
    async with asyncio.timeout(10):
        while set(await answers(running, ALICE)) != {away.address}:  # a change takes its time through a socket
            asked += ASKERS
    async with asyncio.timeout(10):
        while f'{{answer="positive"}} {asked}.0' not in await running.get("/metrics"):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.1)
    assert await running.stop() == 0


async def test_a_worker_that_dies_is_replaced_and_all_end_together(running: Running) -> None:
    await running.start()
    home = running.peer(ACCESS1)
    home.registers(HOME)
    await home.is_notified()
    await both(running)
    assert running.process is not None
    running.config.write_text("what an operator has half written")  # and has nobody apply
    [worker] = children(running.process.pid)
    os.kill(worker, signal.SIGKILL)
    async with asyncio.timeout(20):
        while children(running.process.pid) in ([], [worker]):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.05)
    await both(running)
    [worker] = children(running.process.pid)
    assert set(await answers(running, "100.64.1.9/32")) == {home.address}
    running.process.kill()
    await running.process.wait()
    async with asyncio.timeout(10):
        while is_alive(worker):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.05)
