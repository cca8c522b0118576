"""Every kind of UDP endpoint, on asyncio and on uvloop: bounded, counted, deaf to nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from lispfmc.runtime.sockets import Sources
from lispfmc.runtime.udp import Sockets, UdpSocket, open_batched, open_dgram, open_drained
from lispfmc.wire.address import Endpoint, ip_of
from lispfmc.wire.errors import LocalError

V4, V6 = Endpoint(ip_of("127.0.0.1"), 0), Endpoint(ip_of("::1"), 0)
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
KINDS = pytest.mark.parametrize("open_", [open_dgram, open_drained, open_batched], ids=["dgram", "drained", "batched"])
Run = Callable[..., Any]
Open = Callable[..., Any]


class Inbox:
    def __init__(self) -> None:
        self.received: list[tuple[bytes, Endpoint]] = []
        self._more = asyncio.Event()

    def __call__(self, data: bytes, source: Endpoint) -> None:
        self.received.append((data, source))
        self._more.set()

    async def wait_for(self, number: int) -> list[bytes]:
        async with asyncio.timeout(5):
            while len(self.received) < number:
                self._more.clear()
                await self._more.wait()
        return [data for data, _ in self.received]


@LOOPS
@KINDS
@pytest.mark.parametrize("local", [V4, V6], ids=["IPv4", "IPv6"])
def test_datagrams_go_both_ways_whole_and_in_order(run: Run, open_: Open, local: Endpoint) -> None:
    async def story() -> None:
        left, right = Inbox(), Inbox()
        one: UdpSocket = await open_(local, left)
        other: UdpSocket = await open_(local, right)
        sent = [bytes([number]) * (number * 90) for number in range(100)]  # 0 to 8910 bytes
        for data in sent:
            one.send(data, other.local)
        assert await right.wait_for(100) == sent
        assert right.received[0][1] == one.local
        other.send(b"back", one.local)
        assert await left.wait_for(1) == [b"back"]
        assert one.drops == other.drops == 0
        one.close()
        other.close()
        await asyncio.sleep(0)

    run(story())


@LOOPS
@KINDS
def test_the_largest_datagrams_come_whole_and_leave_nothing_in_the_next(run: Run, open_: Open) -> None:
    async def story() -> None:
        inbox = Inbox()
        one: UdpSocket = await open_(V4, inbox)
        sent = [b"\xff" * 65507, b"", b"short", b"\0" * 65507, b"\0" * 100]
        for number, data in enumerate(sent, start=1):
            one.send(data, one.local)
            assert (await inbox.wait_for(number))[-1] == data
        one.close()
        await asyncio.sleep(0)

    run(story())


@LOOPS
@KINDS
def test_a_dead_peer_and_a_closed_socket_do_no_harm(run: Run, open_: Open) -> None:
    async def story() -> None:
        inbox = Inbox()
        one: UdpSocket = await open_(V4, inbox)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            nobody = Endpoint(ip_of("127.0.0.1"), gone.getsockname()[1])
        for _ in range(3):
            one.send(b"x", nobody)
        one.send(b"x" * 70000, one.local)  # longer than any datagram
        assert one.drops == 1
        one.send(b"still here", one.local)
        assert await inbox.wait_for(1) == [b"still here"]
        one.close()
        await asyncio.sleep(0)
        one.send(b"late", nobody)

    run(story())


@LOOPS
def test_a_full_queue_drops_and_counts(run: Run) -> None:
    async def story() -> None:
        inbox = Inbox()
        bounded = await open_dgram(V4, inbox, queue=4)
        loop = asyncio.get_running_loop()
        held = asyncio.Event()
        task = next(task for task in asyncio.all_tasks() if task.get_name() == f"udp {bounded.local}")
        for _ in range(20):  # as the transport would: faster than the task gets its turn
            bounded._server._recvq.put_nowait((b"x", ("127.0.0.1", 9)))  # type: ignore[attr-defined]
        assert bounded.drops == 16
        loop.call_soon(held.set)
        await held.wait()
        assert await inbox.wait_for(4) == [b"x"] * 4
        bounded.close()
        await asyncio.wait({task})

    run(story())


@LOOPS
def test_an_address_that_is_not_here_is_said_clearly(run: Run) -> None:
    async def story() -> None:
        with pytest.raises(LocalError, match=r"UDP 198\.18\.255\.1:4342: cannot listen"):
            await open_drained(Endpoint(ip_of("198.18.255.1"), 4342), Inbox())

    run(story())


@LOOPS
def test_the_destination_picks_the_family(run: Run) -> None:
    async def story() -> None:
        inbox4, inbox6 = Inbox(), Inbox()
        sockets = Sockets([await open_drained(V4, inbox4), await open_drained(V6, inbox6)])
        four, six = sockets.all
        sockets.send(b"4", four.local)
        sockets.send(b"6", six.local)
        assert (await inbox4.wait_for(1), await inbox6.wait_for(1)) == ([b"4"], [b"6"])
        only = Sockets([four])
        only.send(b"6", six.local)
        assert (only.drops, sockets.drops) == (1, 0)
        sockets.close()

    run(story())


def test_senders_are_remembered_up_to_a_bound() -> None:
    built: list[int] = []

    def build(number: int) -> Endpoint:
        built.append(number)
        return Endpoint(ip_of("192.0.2.1"), number)

    sources = Sources(build, limit=10)
    for number in (1, 1, 1, *range(2, 500)):
        assert sources[number].port == number
        assert len(sources) <= 10
    assert built == list(range(1, 500))
