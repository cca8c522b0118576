"""A host with an ordinary subnet and a gateway inside it arrives from elsewhere: nothing on it is configured anew."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.planes import EID, MAC, named, network, run, until
from tests.integration.xtr_world import ping, world

pytestmark = pytest.mark.namespaces

GUEST, GUEST6 = "100.64.2.77", "fd00:0:0:2::77"  # an EID of another access site


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        at = f"ip -n {named('user')}"
        run(
            f"{at} addr flush dev eth0",
            f"{at} neigh flush dev eth0 nud permanent",
            f"{at} addr add {GUEST}/24 dev eth0",
            f"{at} addr add {GUEST6}/64 dev eth0 nodad",
            f"{at} addr add fe80::77/64 dev eth0 nodad",
            f"{at} route replace default via 100.64.2.1 dev eth0",
            f"{at} -6 route replace default via fd00:0:0:2::1 dev eth0",
        )
        yield


def neighbour(address: str) -> str:
    command = f"ip -n {named('user')} neigh show {address}"
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_guest_reaches_a_service_by_the_gateway_of_its_own_subnet(family: int, tmp_path: Path) -> None:
    guest, gateway = (GUEST, "100.64.2.1") if family == 0 else (GUEST6, "fd00:0:0:2::1")

    async def story() -> None:
        async with world(tmp_path) as xtrs:
            service = EID["service"][family]
            await ping("service", service, EID["user"][family])  # the service shows itself to its own site
            output = await ping("user", guest, service)
            assert " 0% packet loss" in output, output
            assert MAC["gateway"] in neighbour(gateway), "its gateway is ours"
            hosts = {item["eid"] for item in xtrs["access"]._router.hosts(0.0)}
            assert f"{guest}/{128 if family else 32}" in hosts
            # an EID of its own subnet, which is elsewhere: it looks for it on the link, and finds us
            absent = f"{guest[:-2]}88"
            await ping("user", guest, absent)
            assert MAC["gateway"] in neighbour(absent)

    asyncio.run(story())


def test_a_router_that_goes_takes_its_registrations_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as xtrs:
            await ping("user", GUEST, EID["service"][0])
            cloud = xtrs["cloud"]
            eid = f"{GUEST}/32"
            await until(lambda: eid in {item["eid"] for item in cloud._router.map_cache(0.0)}, "the mapping is known")
            assert "subscription.added" in cloud.events.counts
            await xtrs["access"].close()
            await until(lambda: cloud.events.counts.get("mapping.removed"), "withdrawn, published, forgotten")

    asyncio.run(story())
