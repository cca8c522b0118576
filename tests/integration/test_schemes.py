"""A move by every scheme on real packets: it ends, both ways are open after it, and nobody uses the old place.

Each service of the lab moves by a scheme of its own, all at the same time, while it and its user send all the time: in
some schemes that is what makes others hear of the move. "pubsub" has a lab to itself: there all routers subscribe.
"""

from __future__ import annotations

import asyncio
import struct
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.node_client import call

pytestmark = [pytest.mark.namespaces, pytest.mark.asyncio]

ENOUGH_S = 20.0  # for what happens at once on an idle machine
WINDOWS = 3  # of traffic after the moves; the last one that was needed has no loss
ALONE, TOGETHER = ("pubsub",), ("lossless", "bicast", "fig9", "cp", "dataplane", "garp", "smr")
TO_SERVICE, FIRST_TO_USER = 7101, 7110
RECORD = struct.Struct("<QQQ")


def topology(schemes: tuple[str, ...], folder: Path) -> Path:
    """The metropolitan network with one service of alice's for each scheme, near enough to move in a moment."""
    values = tomllib.loads((SHIPPED / "metro.toml").read_text())
    values["emulation"] = {"copy_s": 0.3, "pause_ms": 60}
    values["fmcc"] |= {"policy": "never"}
    values["users"] = values["users"][:1]
    first = values["services"][0]
    values["services"] = [
        first | {"name": scheme, "scheme": scheme, "eids": [f"100.64.101.{at}", f"fd00:0:0:101::{at}"]}
        for at, scheme in enumerate(schemes, 10)
    ]
    path = folder / "schemes.toml"
    path.write_text(toml_text(values))
    return path


@pytest.fixture(scope="module", params=[TOGETHER, ALONE], ids=["together", "pubsub"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("run")
    name = f"ischemes{len(request.param)}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", str(folder))
        try:
            yield lifecycle.up(str(topology(request.param, folder)), name)
        finally:
            lifecycle.down(name)


class Traffic:
    """A user and all of its services, each sending to the other all the time."""

    def __init__(self, user: NodeEntry, services: list[NodeEntry], folder: Path) -> None:
        self._user, self._services, self._folder = user, services, folder

    async def start(self) -> None:
        self._folder.mkdir()
        for at, service in enumerate(self._services):
            await self._receive(service, "in", TO_SERVICE, f"{service.name}.to-service")
            await self._receive(self._user, f"in-{at}", FIRST_TO_USER + at, f"{service.name}.to-user")
            await self._send(service, f"{service.name}.sent", FIRST_TO_USER + at, peer=self._user.eid())
        await self._send(self._user, "sent", TO_SERVICE, peers=[service.eid() for service in self._services])

    async def stop(self) -> dict[str, int]:
        """How many packets of each flow were lost."""
        senders = [(self._user, "sent"), *((service, f"{service.name}.sent") for service in self._services)]
        sent = {name: await _end(node, "out") for node, name in senders}
        await asyncio.sleep(0.3)  # what is on its way arrives
        for at, service in enumerate(self._services):
            await _end(service, "in")
            await _end(self._user, f"in-{at}")
        lost = {}
        for service in self._services:
            lost[f"to {service.name}"] = sent["sent"] - self._arrived(f"{service.name}.to-service")
            lost[f"from {service.name}"] = sent[f"{service.name}.sent"] - self._arrived(f"{service.name}.to-user")
        return lost

    def _arrived(self, log: str) -> int:
        return len({each[0] for each in RECORD.iter_unpack((self._folder / log).read_bytes())})

    async def _send(self, node: NodeEntry, log: str, port: int, **to: object) -> None:
        request = {"do": "probe.start", "id": "out", "log": str(self._folder / log), "port": port, "interval_us": 5000}
        await call(node.socket, request | to)

    async def _receive(self, node: NodeEntry, name: str, port: int, log: str) -> None:
        await call(node.socket, {"do": "probe.receive", "id": name, "port": port, "log": str(self._folder / log)})


async def _end(node: NodeEntry, worker: str) -> int:
    """What a sender has sent."""
    reply = await call(node.socket, {"do": "probe.stop", "id": worker})
    return int(reply["summary"].get("sent", 0))


async def items(lab: Installation, daemon: str, what: str) -> list[dict[str, Any]]:
    async with ApiClient(next(each.api for each in lab.daemons if each.name == daemon)) as api:
        found: list[dict[str, Any]] = (await api.get(f"/v1/{what}"))["items"]
    return found


async def wrong(lab: Installation, services: list[NodeEntry]) -> list[str]:
    """What is not yet as it should be after the moves."""
    placements = {each["service"]: each for each in await items(lab, "fmcc", "placements")}
    registered = {each["eid"]: each["site"] for each in await items(lab, "mapserver", "registrations")}
    here = {site: {each["eid"] for each in await items(lab, site, "hosts")} for site in ("dc1", "dc2")}
    cache = {each["eid"]: each for each in await items(lab, "access1", "map-cache")}
    found = []
    for service in services:
        placement, eid = placements[service.name], f"{service.eid()}/32"
        if (placement["datacenter"], placement["state"]) != ("dc2", "committed"):
            found.append(f"{service.name} is {placement['state']} at {placement['datacenter']}")
        if registered.get(eid) != "dc2" or eid in here["dc1"] or eid not in here["dc2"]:
            found.append(f"{service.name} is registered at {registered.get(eid)}")
        locators = cache[eid]["locators"] if eid in cache else []
        best = min((each["priority"] for each in locators), default=None)
        if [each["rloc"] for each in locators if each["priority"] == best] != ["198.18.0.22"]:
            found.append(f"the user's router sends to {service.name} at {locators}")
    return found


async def still_wrong(lab: Installation, services: list[NodeEntry]) -> list[str]:
    """The same when there is nothing more to wait for."""
    give_up = time.monotonic() + ENOUGH_S
    while True:
        found = await wrong(lab, services)
        if not found or time.monotonic() > give_up:
            return found
        await asyncio.sleep(0.1)


async def last_losses(user: NodeEntry, services: list[NodeEntry], folder: Path) -> dict[str, int]:
    """What is lost when all of them talk again: what a scheme has left undone may still take the first packets."""
    lost: dict[str, int] = {}
    for number in range(WINDOWS):
        after = Traffic(user, services, folder / f"after-{number}")
        await after.start()
        await asyncio.sleep(0.3)
        lost = {flow: packets for flow, packets in (await after.stop()).items() if packets}
        if not lost:
            break
    return lost


async def test_a_service_moves_by_each_scheme(lab: Installation, tmp_path: Path) -> None:
    user = lab.node("alice")
    assert user is not None
    services = [node for node in lab.nodes if node.role == "service"]
    traffic = Traffic(user, services, tmp_path / "during")
    await traffic.start()
    async with ApiClient(next(each.api for each in lab.daemons if each.name == "fmcc")) as api:
        await asyncio.gather(*(api.post("/v1/moves", {"service": each.name, "to": "dc2"}) for each in services))
    assert await still_wrong(lab, services) == []
    lost = await traffic.stop()
    kept = [each.name for each in services if lost[f"to {each.name}"] == 0]
    assert kept == [each.name for each in services if each.name in {"lossless", "bicast"}]
    assert await last_losses(user, services, tmp_path) == {}
