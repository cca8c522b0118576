"""The batched endpoint: one call takes what is there, one call answers all of it, and no datagram spoils the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from lispfmc.runtime.sockets import DRAIN, KERNEL_BUFFER
from lispfmc.runtime.udp import open_batched
from lispfmc.wire.address import Endpoint, ip_of

LOCAL = Endpoint(ip_of("127.0.0.1"), 0)
pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[..., Any]


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        yield sock


def said(client: socket.socket, to: Endpoint, *datagrams: bytes) -> None:
    for each in datagrams:
        client.sendto(each, ("127.0.0.1", to.port))


async def heard(client: socket.socket, number: int) -> list[bytes]:
    async with asyncio.timeout(5):
        return [await asyncio.get_running_loop().sock_recv(client, 65535) for _ in range(number)]


def numbered(number: int) -> list[bytes]:
    return [each.to_bytes(2, "big") for each in range(number)]


def test_what_one_wake_up_answers_leaves_by_one_call(run: Run, client: socket.socket) -> None:
    async def story() -> None:
        calls: list[tuple[int, int]] = []
        one = await open_batched(LOCAL, lambda data, source: one.send(data, source))
        send = one._outgoing.send

        def counted(descriptor: int, first: int, last: int) -> int:
            calls.append((first, last))
            return send(descriptor, first, last)

        one._outgoing.send = counted  # type: ignore[method-assign]
        said(client, one.local, *numbered(50))
        assert await heard(client, 50) == numbered(50)
        assert calls == [(0, 50)]
        one.close()

    run(story())


def test_more_answers_than_a_batch_holds_all_leave_in_order(run: Run, client: socket.socket) -> None:
    async def story() -> None:
        def twice_and_once_more(data: bytes, source: Endpoint) -> None:
            for suffix in (b"a", b"b", b"c"):
                one.send(data + suffix, source)

        one = await open_batched(LOCAL, twice_and_once_more)
        said(client, one.local, *numbered(DRAIN + 10))
        expected = [data + suffix for data in numbered(DRAIN + 10) for suffix in (b"a", b"b", b"c")]
        assert await heard(client, len(expected)) == expected
        one.close()

    run(story())


def test_answers_that_cannot_leave_are_counted_and_the_others_do(run: Run, client: socket.socket) -> None:
    async def story() -> None:
        def answer(data: bytes, source: Endpoint) -> None:
            one.send(b"x" * 65530, source)  # fits no IPv4 packet: the kernel refuses it in the middle of the batch
            one.send(b"x" * 70000, source)
            one.send(b"x", Endpoint(ip_of("::1"), source.port))
            one.send(b"x", Endpoint(ip_of("255.255.255.255"), 9))  # not allowed without SO_BROADCAST
            one.send(data, source)

        one = await open_batched(LOCAL, answer)
        said(client, one.local, *numbered(8))
        assert await heard(client, 8) == numbered(8)
        assert one.drops == 4 * 8
        one.close()

    run(story())


def test_a_datagram_that_makes_the_program_fail_does_not_take_its_batch_with_it(
    run: Run, client: socket.socket
) -> None:
    async def story() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context["exception"]))

        def answer(data: bytes, source: Endpoint) -> None:
            if data == numbered(3)[2]:
                raise RuntimeError("a bug")
            one.send(data, source)

        one = await open_batched(LOCAL, answer)
        said(client, one.local, *numbered(6))
        assert await heard(client, 5) == [each for each in numbered(6) if each != numbered(3)[2]]
        assert [str(each) for each in problems] == ["a bug"]
        one.close()

    run(story())


def test_closed_from_within_it_answers_what_it_had_and_takes_no_more(run: Run, client: socket.socket) -> None:
    async def story() -> None:
        taken: list[bytes] = []

        def answer(data: bytes, source: Endpoint) -> None:
            taken.append(data)
            one.send(data, source)
            if len(taken) == 3:
                one.close()
                one.send(b"late", source)

        one = await open_batched(LOCAL, answer)
        said(client, one.local, *numbered(6))
        assert await heard(client, 3) == numbered(3) == taken
        assert one.drops == 1

    run(story())
