"""Packets that do not fit the core's path, and runs of packets that cross it together, on every plane."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lispfmc.wire.address import ip_of
from tests.integration.planes import EID, KINDS, PORT, RLOC, inside, named, network, receive, run, sites, udp, until

pytestmark = pytest.mark.namespaces

_IP_MTU, _IPV6_MTU, _IP_MTU_DISCOVER, _DONT, _DO = 14, 24, 10, 0, 2
BULK = 6 << 20


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@contextmanager
def core_of(mtu: int) -> Iterator[None]:
    for name in ("access", "cloud"):
        run(f"ip -n {named(name)} link set wan0 mtu {mtu}")
    try:
        yield
    finally:
        for name in ("access", "cloud"):
            run(f"ip -n {named(name)} link set wan0 mtu 1600")
        for family in ("-4", "-6"):  # what the sender has learned
            run(f"ip -n {named('user')} {family} route flush cache")


def test_an_ipv4_packet_that_may_be_split_arrives_whole(plane: str) -> None:
    async def story() -> None:
        with (
            core_of(1500),
            sites(plane) as (access, _cloud),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
        ):
            access.forward(EID["service"][0], RLOC["cloud"][0])
            user.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT)
            sent = os.urandom(1472)  # 1500 bytes; 36 too many for the tunnel
            user.sendto(sent, (EID["service"][0], PORT))
            assert await receive(service) == sent
            assert access.count("split") == 1
            user.sendto(sent[:1436], (EID["service"][0], PORT))
            assert await receive(service) == sent[:1436], "this one just fits"
            assert access.count("split") == 1

    asyncio.run(story())


@pytest.mark.parametrize("within", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
@pytest.mark.parametrize("outside", [0, 1], ids=["IPv4 outside", "IPv6 outside"])
def test_the_sender_of_any_other_learns_what_would_fit(plane: str, within: int, outside: int) -> None:
    async def story() -> None:
        with core_of(1500), sites(plane) as (access, _cloud), udp("user", EID["user"][within]) as user:
            access.forward(EID["service"][within], RLOC["cloud"][outside])
            if not within:
                user.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO)
            user.connect((EID["service"][within], PORT))
            user.send(bytes(1472 - 20 * within))
            level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if within else (socket.IPPROTO_IP, _IP_MTU)
            fits = 1500 - (56 if outside else 36)
            await until(lambda: user.getsockopt(level, option) == fits, f"the path MTU is known to be {fits}")
            assert access.count("dropped.too-big") >= 1

    asyncio.run(story())


@pytest.mark.parametrize("within", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
@pytest.mark.parametrize("outside", [0, 1], ids=["IPv4 outside", "IPv6 outside"])
def test_a_transfer_arrives_as_it_was_sent(plane: str, within: int, outside: int) -> None:
    """Runs of segments are put together and taken apart on the way; every checksum is the kernel's to check."""

    async def story() -> None:
        with sites(plane) as (access, cloud):
            access.forward(EID["service"][within], RLOC["cloud"][outside])
            cloud.forward(EID["user"][within], RLOC["access"][outside])
            family = socket.AF_INET6 if within else socket.AF_INET
            with inside("service"):
                listening = socket.create_server((EID["service"][within], PORT), family=family)
                listening.setblocking(False)
            with inside("user"):
                sending = socket.socket(family, socket.SOCK_STREAM)
                sending.setblocking(False)
                sending.bind((EID["user"][within], 0))
            loop = asyncio.get_running_loop()
            data = os.urandom(1 << 20) * (BULK >> 20)
            try:
                connecting = asyncio.ensure_future(loop.sock_connect(sending, (EID["service"][within], PORT)))
                receiving, _ = await asyncio.wait_for(loop.sock_accept(listening), 5)
                await connecting
                told = asyncio.ensure_future(loop.sock_sendall(sending, data))
                got = hashlib.sha256()
                left = BULK
                while left:
                    part = await asyncio.wait_for(loop.sock_recv(receiving, 1 << 18), 20)
                    got.update(part)
                    left -= len(part)
                await told
                assert got.digest() == hashlib.sha256(data).digest()
                dropped = {name: n for name, n in cloud.plane.counters().items() if name.startswith("dropped")}
                assert dropped.keys() <= {"dropped.not-unicast"}
                assert ip_of(RLOC["access"][outside]) in cloud.plane.peers(cloud.eid(within))
            finally:
                for each in (listening, sending):
                    each.close()

    asyncio.run(story())
