"""The data plane's rules, a test for each line, with inner and outer packets of all four combinations of families.

On every plane. What the network does to a packet is done by hand: outer packets are put on the core as they would come.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum
from lispfmc.wire.encap import header
from tests.integration.planes import (
    EID,
    KINDS,
    NEW_RLOC,
    RLOC,
    Site,
    inside,
    ipv4,
    ipv6,
    network,
    outer_of,
    receive,
    sites,
    tunnelled,
    udp,
    until,
    watch,
)

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


class Families:
    """The families inside and outside: 0 is IPv4, 1 is IPv6."""

    def __init__(self, within: int, outside: int) -> None:
        self.within = within
        self.outside = outside
        self.service = EID["service"][within]
        self.rloc = RLOC["cloud"][outside]

    def packet(self, payload: bytes, *, ttl: int = 20, tos: int = 0) -> bytes:
        """From the user to the service."""
        return (ipv6 if self.within else ipv4)(EID["user"][self.within], self.service, payload, ttl=ttl, tos=tos)

    def arrives(self, packet: bytes, *, ttl: int = 64, tos: int = 0, lisp: bytes = header(0)) -> None:
        tunnelled("access", self.rloc, packet, ttl=ttl, tos=tos, lisp=lisp)


@pytest.fixture(params=[(0, 0), (1, 1), (1, 0), (0, 1)], ids=["v4", "v6", "v6-over-v4", "v4-over-v6"])
def net(request: pytest.FixtureRequest) -> Families:
    return Families(*request.param)


async def delivered(lan: socket.socket, payload: bytes) -> tuple[int, int]:
    """TTL and TOS of the packet with that payload, as the host gets it; its IPv4 checksum is right."""
    while payload not in (frame := await receive(lan)):
        pass
    if frame[14] >> 4 == 6:
        return frame[21], (frame[14] << 4 | frame[15] >> 4) & 0xFF
    assert internet_checksum(frame[14:34]) == 0
    return frame[22], frame[15]


def test_a_udp_checksum_may_be_zero_or_right(plane: str, net: Families) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", net.service) as service:
            net.arrives(net.packet(b"with a checksum"))
            assert await receive(service) == b"with a checksum"
            without_checksum(net, net.packet(b"without"))
            assert await receive(service) == b"without"
            assert cloud.count("decapsulated") == 2

    asyncio.run(story())


def without_checksum(net: Families, packet: bytes) -> None:
    level, option = (17, 101) if net.outside else (socket.SOL_SOCKET, 11)  # UDP_NO_CHECK6_TX, SO_NO_CHECK
    family = socket.AF_INET6 if net.outside else socket.AF_INET
    with inside("access"), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, option, 1)
        sock.bind((NEW_RLOC[net.outside], 0))
        sock.sendto(header(0) + packet, (net.rloc, 4341))


def test_ttl_and_tos_go_into_the_tunnel_and_come_out_of_it(plane: str, net: Families) -> None:
    async def story() -> None:
        with (
            sites(plane) as (access, _cloud),
            watch("cloud", "wan0") as wire,
            udp("user", EID["user"][net.within]) as user,
            udp("service", net.service) as service,
            watch("service", "eth0") as lan,
        ):
            access.forward(net.service, net.rloc)
            level = socket.IPPROTO_IPV6 if net.within else socket.IPPROTO_IP
            user.setsockopt(level, socket.IPV6_UNICAST_HOPS if net.within else socket.IP_TTL, 33)
            user.setsockopt(level, socket.IPV6_TCLASS if net.within else socket.IP_TOS, 0xBA)
            user.sendto(b"out", (net.service, 4000))
            outer = await outer_of(wire, RLOC["access"][net.outside])
            tos = (outer[0] << 4 | outer[1] >> 4) & 0xFF if net.outside else outer[1]
            assert (outer[7] if net.outside else outer[8], tos) == (32, 0xBA)
            assert await receive(service) == b"out"
            net.arrives(net.packet(b"less outside", ttl=60, tos=0xBA), ttl=9, tos=0xBA)
            assert await delivered(lan, b"less outside") == (8, 0xBA)
            net.arrives(net.packet(b"less inside", ttl=9, tos=0xBA), ttl=60, tos=0x28 | 2)
            assert await delivered(lan, b"less inside") == (8, 0x2A)

    asyncio.run(story())


def test_congestion_marks_come_out_as_rfc_6040_says(plane: str, net: Families) -> None:
    merged = [(0, 0, 0, None), (1, 1, 1, 3), (2, 1, 2, 3), (3, 3, 3, 3)]  # Figure 4: by inner, then by outer

    async def story() -> None:
        with sites(plane) as (_access, cloud), watch("service", "eth0") as lan:
            for inner, row in enumerate(merged):
                for outer, out in enumerate(row):
                    said = b"%d in %d" % (inner, outer)
                    net.arrives(net.packet(said, tos=inner), tos=outer)
                    if out is None:
                        await until(lambda: cloud.count("dropped.congestion") == 1, "CE on Not-ECT is dropped")
                    else:
                        assert (await delivered(lan, said))[1] == out, said

    asyncio.run(story())


def test_who_has_left_is_followed_with_one_hop_less(plane: str, net: Families) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), watch("access", "wan0") as wire:
            gone(cloud, net)
            net.arrives(net.packet(b"follows", ttl=50), ttl=17)
            outer = await outer_of(wire, net.rloc)
            inner = outer[56 if net.outside else 36 :]
            assert (outer[7] if net.outside else outer[8]) == 16
            assert (inner[7] if net.within else inner[8]) == 17
            net.arrives(net.packet(b"ends", ttl=50), ttl=1)
            await until(lambda: cloud.count("dropped.ttl") == 1, "a loop ends")

    asyncio.run(story())


def gone(cloud: Site, net: Families) -> None:
    cloud.plane.undeliver(Prefix.host(ip_of(net.service)))
    cloud.forward(net.service, RLOC["access"][net.outside], away=True)


def test_another_instance_an_unknown_one_and_n_with_v(plane: str, net: Families) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", net.service) as service:
            net.arrives(net.packet(b"of nobody's instance"), lisp=header(7))
            await until(lambda: cloud.count("dropped.instance") == 1, "an unknown Instance-ID")
            net.arrives(net.packet(b"N and V"), lisp=b"\xf0\x12\x34\x56\0\0\0\1")
            assert await receive(service) == b"N and V", "read as a nonce"
            net.arrives(net.packet(b"in zero"), lisp=b"\x08" + bytes(7))
            assert await receive(service) == b"in zero"
            assert cloud.count("decapsulated") == 2

    asyncio.run(story())


def test_an_inner_packet_that_is_not_as_long_as_it_says_is_refused(plane: str, net: Families) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud):
            net.arrives(net.packet(b"cut off")[:-1])
            await until(lambda: cloud.count("dropped.inner-length") == 1, "a byte is missing")
            net.arrives(b"\x70" + net.packet(b"no such version")[1:])
            await until(lambda: cloud.count("dropped.inner-version") == 1, "IP version 7")

    asyncio.run(story())
