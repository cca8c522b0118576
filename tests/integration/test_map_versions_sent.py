"""Map-versions in data packets (RFC 9302): sent by one xTR where they are wanted, held against its own by the other.

The portable plane alone sends them; what a receiver of either plane does is in test_dataplane_instances.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.encap import header, versioned_header
from tests.integration.planes import EID, PORT, RLOC, Site, network, outer_of, receive, sites, udp, until, watch

pytestmark = pytest.mark.namespaces

VERSIONED: dict[str, Any] = {"dataplane": {"eid_ranges": ["100.64.0.0/10", "fd00::/8"], "map_versioning": True}}


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


async def seen(wire: socket.socket) -> bytes:
    """The data header of the next packet from the access router."""
    return (await outer_of(wire, RLOC["access"][0]))[28:36]


def knows(site: Site, family: int, *, user: int, service: int) -> None:
    """What the site's core says of the two mappings."""
    for host, version in (("user", user), ("service", service)):
        site.evidence.versions[Prefix.host(ip_of(EID[host][family]))] = version


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
def test_packets_carry_the_versions_of_both_mappings_as_they_are_now(family: int) -> None:
    async def story() -> None:
        with (
            sites("tun", **VERSIONED) as (access, cloud),
            udp("user", EID["user"][family]) as user,
            udp("service", EID["service"][family]) as service,
            watch("cloud", "wan0") as wire,
        ):
            access.forward(EID["service"][family], RLOC["cloud"][0])
            knows(access, family, user=5, service=9)
            knows(cloud, family, user=5, service=9)
            user.sendto(b"both", (EID["service"][family], PORT))
            assert await receive(service) == b"both"
            assert await seen(wire) == versioned_header(0, 5, 9)
            knows(access, family, user=6, service=9)  # nothing else changes: the same flow goes on
            user.sendto(b"newer", (EID["service"][family], PORT))
            assert await receive(service) == b"newer"
            assert await seen(wire) == versioned_header(0, 6, 9)
            assert cloud.evidence.newer_sources == [access.eid(family)], "it asks for the mapping"
            knows(cloud, family, user=6, service=10)
            user.sendto(b"outdated", (EID["service"][family], PORT))
            assert await receive(service) == b"outdated"
            await until(lambda: cloud.evidence.outdated_senders, "the sender is told")
            knows(access, family, user=0, service=10)
            user.sendto(b"without one's own", (EID["service"][family], PORT))
            assert await receive(service) == b"without one's own"
            assert [await seen(wire) for _ in range(2)] == [versioned_header(0, 6, 9), versioned_header(0, 0, 10)]
            knows(access, family, user=6, service=0)
            user.sendto(b"plain", (EID["service"][family], PORT))
            assert await receive(service) == b"plain"
            assert await seen(wire) == header(0), "RFC 9302 §7.1: never to a mapping without a version"

    asyncio.run(story())


def test_what_is_passed_on_carries_none_of_the_router_that_passes_it_on() -> None:
    """It came from elsewhere: of its source's mapping the sender may know more."""

    async def story() -> None:
        with (
            sites("tun", **VERSIONED) as (access, cloud),
            udp("user", EID["user"][0]) as user,
            watch("access", "wan0") as wire,
        ):
            access.forward(EID["service"][0], RLOC["cloud"][0])
            cloud.plane.undeliver(Prefix.host(ip_of(EID["service"][0])))
            cloud.forward(EID["service"][0], RLOC["access"][0], away=True)
            knows(cloud, 0, user=5, service=9)
            user.sendto(b"elsewhere", (EID["service"][0], PORT))
            passed_on = await outer_of(wire, RLOC["cloud"][0])
            assert passed_on[28:36] == header(0)

    asyncio.run(story())


def test_unless_they_are_wanted_there_are_none() -> None:
    async def story() -> None:
        with (
            sites("tun") as (access, _cloud),
            udp("user", EID["user"][0]) as user,
            watch("cloud", "wan0") as wire,
        ):
            access.forward(EID["service"][0], RLOC["cloud"][0])
            knows(access, 0, user=5, service=9)
            user.sendto(b"plain", (EID["service"][0], PORT))
            assert await seen(wire) == header(0)

    asyncio.run(story())
