"""Two controllers, each a daemon with a memory and a subscription of its own, that move one service in turn.

The first is reached by IPv4, the second by IPv6. Either has the keys of both data centres, as a domain gives them to
another that may take its services over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle, processes
from lispfmc.lab.analysis import Window, move_figures
from lispfmc.lab.installation import Installation
from lispfmc.lab.probes import Probes
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.wire.errors import LocalError

pytestmark = [pytest.mark.namespaces, pytest.mark.asyncio]

LAB = "ftwo"
SERVICE = "alice-app"
OTHER = "fmcc2"
EIDS = {"100.64.101.10/32", "100.64.1.10/32"}
ENOUGH_S = 30.0


def rewritten(path: Path, **changes: Any) -> dict[str, Any]:
    values = tomllib.loads(path.read_text()) | changes
    path.write_text(toml_text(values))
    return values


def restarted(lab: Installation, name: str, module: str) -> None:
    """Stop a daemon of the lab, if it runs, and start it with what its file says now."""
    namespace = "fmcc" if name == OTHER else name
    processes.end([each for each in processes.recorded(lab.folder) if each.name == name])
    (lab.folder / f"{name}.sock").unlink(missing_ok=True)
    inside = next(daemon.namespace for daemon in lab.daemons if daemon.name == namespace)
    assert inside is not None
    processes.start(name, module, ["--config", str(lab.folder / f"{name}.toml")], inside, lab.folder)


def by_version(rlocs: list[str], *, ipv6: bool) -> list[str]:
    """Those of one IP version first: the daemon that has no other speaks to these."""
    return sorted(rlocs, key=lambda rloc: (":" in rloc) is not ipv6)


def split(lab: Installation) -> None:
    """Give the second controller the IPv6 address, a name, a key and a memory."""
    first = tomllib.loads((lab.folder / "fmcc.toml").read_text())
    secret = "of the second domain"
    second = first | {
        "name": OTHER,
        "rlocs": [rloc for rloc in first["rlocs"] if ":" in rloc],
        "state_dir": str(lab.folder / "state" / OTHER),
        "api": {"listen": f"unix:{lab.folder / OTHER}.sock"},
        "sites": [each | {"rlocs": by_version(each["rlocs"], ipv6=True)} for each in first["sites"]],
    }
    server = tomllib.loads((lab.folder / "mapserver.toml").read_text())
    address = next(rloc for rloc in server["listen"] if ":" in rloc)
    second["map_server"] = first["map_server"] | {"address": address, "secret": secret}
    (lab.folder / f"{OTHER}.toml").write_text(toml_text(second))
    rewritten(lab.folder / "fmcc.toml", rlocs=[rloc for rloc in first["rlocs"] if ":" not in rloc])
    subscribers = []
    for each in server["subscribers"]:
        if each["name"] == "fmcc":
            subscribers.append(each | {"address": [one for one in each["address"] if ":" not in one]})
            there = [one for one in each["address"] if ":" in one]
            subscribers.append(each | {"name": OTHER, "secret": secret, "address": there})
        else:
            subscribers.append(each)
    rewritten(lab.folder / "mapserver.toml", subscribers=subscribers)
    restarted(lab, "mapserver", "mapserver")
    restarted(lab, "fmcc", "fmcc")
    restarted(lab, OTHER, "fmcc")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("run")
    text = (SHIPPED / "metro.toml").read_text()
    for old, new in (("copy_s = 5.0", "copy_s = 0.4"), ("nearest", "never")):
        assert old in text
        text = text.replace(old, new)
    topology = folder / "near.toml"
    topology.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", str(folder))
        try:
            made = lifecycle.up(str(topology), LAB)
            split(made)
            yield made
        finally:
            lifecycle.down(LAB)


@asynccontextmanager
async def api_of(lab: Installation, name: str) -> AsyncIterator[ApiClient]:
    async with ApiClient(f"unix:{lab.folder / name}.sock") as api:
        yield api


async def rests_at(lab: Installation, controller: str, datacenter: str) -> None:
    """Return when this controller has the service at `datacenter`, and nothing of it under way."""
    give_up = time.monotonic() + ENOUGH_S
    seen: dict[str, Any] = {}
    while time.monotonic() < give_up:
        try:
            async with api_of(lab, controller) as api:
                seen = next(each for each in (await api.get("/v1/placements"))["items"] if each["service"] == SERVICE)
        except (Unreachable, ApiError, LocalError):
            seen = {}
        if (seen.get("datacenter"), seen.get("state") in {"settled", "committed"}) == (datacenter, True):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{controller} does not have it at {datacenter} within {ENOUGH_S:g} s: {seen}")


async def known(lab: Installation) -> None:
    """The Map-Server, which has started anew, has heard of the user and of the service again."""
    give_up = time.monotonic() + 90.0  # routers register every minute
    wanted = {"access1", "dc1"}
    while time.monotonic() < give_up:
        hosts: list[dict[str, Any]] = []
        with contextlib.suppress(Unreachable, ApiError):
            async with api_of(lab, "mapserver") as api:
                hosts = [each for each in (await api.get("/v1/registrations"))["items"] if each["eid"] in EIDS]
        if {each["eid"] for each in hosts} == EIDS and {each["site"] for each in hosts} == wanted:
            return
        await asyncio.sleep(0.2)
    pytest.fail("the user and the service are not registered anew")


async def moves(lab: Installation, controller: str, target: str) -> None:
    """It may be told to wait for the mapping system's first word."""
    give_up = time.monotonic() + ENOUGH_S
    while True:
        try:
            async with api_of(lab, controller) as api:
                await api.post("/v1/moves", {"service": SERVICE, "to": target})
        except ApiError:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def test_a_service_that_one_controller_has_moved_is_moved_on_by_the_other_and_nothing_is_lost(
    lab: Installation, tmp_path: Path
) -> None:
    await known(lab)
    for controller in ("fmcc", OTHER):
        await rests_at(lab, controller, "dc1")
    user, service = lab.node("alice"), lab.node(SERVICE)
    assert user is not None
    assert service is not None
    probes = Probes(user, service, tmp_path, interval_us=2000, round_trips=False)
    await probes.start()
    try:
        await asyncio.sleep(2.0)  # until the first packets have resolved where the other is
        begin = time.monotonic_ns()
        for controller, target in (("fmcc", "dc2"), (OTHER, "dc1")):
            await moves(lab, controller, target)
            for each in ("fmcc", OTHER):  # the one that has moved it, and the one that reads of it
                await rests_at(lab, each, target)
        end = time.monotonic_ns()
        await asyncio.sleep(0.3)
        logs = await probes.stop()
    finally:
        await probes.abandon()
    figures = move_figures(logs.flows, Window(begin, end), 0.0)
    assert {name: each.lost for name, each in figures.directions.items()} == {"to_service": 0, "to_user": 0}
    async with api_of(lab, OTHER) as api:
        (mine,) = [each for each in (await api.get("/v1/placements"))["items"] if each["service"] == SERVICE]
    assert mine["datacenter"] == "dc1"
