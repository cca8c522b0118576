"""Lossless moves on real packets: what a user's and a service's packets suffer when a daemon is killed on the way.

One lab is up for the whole file, and its service moves back and forth. Probes run both ways through each move.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle, processes
from lispfmc.lab.analysis import Window, move_figures
from lispfmc.lab.installation import Installation
from lispfmc.lab.namespaces import namespace_of
from lispfmc.lab.probes import Probes
from lispfmc.lab.topology import SHIPPED
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.wire.errors import LocalError
from tests.integration.circling import Circling
from xtr.memory import Memory
from xtr.roles.state import IN_HAND

pytestmark = [pytest.mark.namespaces, pytest.mark.asyncio]

LAB = "elossless"
SERVICE = "alice-app"
ENOUGH_S = 20.0  # for what happens at once on an idle machine
EIDS = {"100.64.101.10/32", "fd00:0:0:101::10/128"}
MODULES = {"fmcc": "fmcc", "mapserver": "mapserver", "dc1": "xtr", "dc2": "xtr"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("run")
    text = (SHIPPED / "metro.toml").read_text()
    # the moves are this file's, and nobody else's; long enough that a fault can be put between STOP and RESUME
    for old, new in (("copy_s = 5.0", "copy_s = 0.4"), ("pause_ms = 60", "pause_ms = 150"), ("nearest", "never")):
        assert old in text
        text = text.replace(old, new)
    topology = folder / "near.toml"
    topology.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", str(folder))
        try:
            yield lifecycle.up(str(topology), LAB)
        finally:
            lifecycle.down(LAB)


# --- the lab's daemons ------------------------------------------------------------------------------------------------


def kill(lab: Installation, name: str) -> None:
    """As the kernel does when memory is short: no word to anybody."""
    (process,) = [each for each in processes.recorded(lab.folder) if each.name == name]
    os.kill(process.pid, signal.SIGKILL)
    while process.alive:
        time.sleep(0.001)


def start(lab: Installation, name: str) -> None:
    namespace = next(daemon.namespace for daemon in lab.daemons if daemon.name == name)
    assert namespace is not None
    socket = lab.folder / f"{name}.sock"
    socket.unlink(missing_ok=True)
    config = ["--config", str(lab.folder / f"{name}.toml")]
    processes.start(name, MODULES[name], config, namespace, lab.folder)


@asynccontextmanager
async def api_of(lab: Installation, name: str) -> AsyncIterator[ApiClient]:
    async with ApiClient(next(daemon.api for daemon in lab.daemons if daemon.name == name)) as api:
        yield api


async def until(told: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return when `told` is true; a daemon that is away at the moment is asked again."""
    give_up = time.monotonic() + ENOUGH_S
    while time.monotonic() < give_up:
        try:
            if await told():
                return
        except (Unreachable, ApiError, LocalError):
            pass
        await asyncio.sleep(0.05)
    pytest.fail(f"not in {ENOUGH_S:g} s: {what}")


async def placement(lab: Installation) -> dict[str, Any]:
    async with api_of(lab, "fmcc") as api:
        placements = (await api.get("/v1/placements"))["items"]
    found: dict[str, Any] = next(each for each in placements if each["service"] == SERVICE)
    return found


async def at_rest(lab: Installation) -> str:
    """Where the service is, when nothing of it is under way."""

    async def rests() -> bool:
        return (await placement(lab))["state"] in {"settled", "committed"}

    await until(rests, "the service is at rest")
    found: str = (await placement(lab))["datacenter"]
    return found


async def registered_at(lab: Installation) -> set[str]:
    async with api_of(lab, "mapserver") as api:
        registrations = (await api.get("/v1/registrations"))["items"]
    return {each["site"] for each in registrations if each["eid"] in EIDS}


async def parts(lab: Installation, site: str) -> set[str]:
    """What the router of a site does with the service's EIDs."""
    async with api_of(lab, site) as api:
        moves = (await api.get("/v1/moves"))["items"]
    return {move["state"] for move in moves if EIDS & set(move["eids"])}


async def happened(lab: Installation, event: str, ask: Callable[[ApiClient], Awaitable[Any]]) -> None:
    """Return when the controller has told `event` of what is asked for."""
    async with api_of(lab, "fmcc") as api:
        last = int((await api.get("/v1/status"))["last_event"])
        await ask(api)
        async with asyncio.timeout(ENOUGH_S):
            async for each in api.events(last):
                if each["name"] == event:
                    return


# --- one move ---------------------------------------------------------------------------------------------------------


async def moved(
    lab: Installation, tmp_path: Path, event: str = "placement.changed", fault: Callable[[], None] = lambda: None
) -> tuple[str, dict[str, int]]:
    """Move the service; `fault` strikes when the controller tells `event`. Where it is then, and what was lost."""
    source = await at_rest(lab)
    target = "dc2" if source == "dc1" else "dc1"
    user, service = lab.node("alice"), lab.node(SERVICE)
    assert user is not None
    assert service is not None
    probes = Probes(user, service, tmp_path, interval_us=2000, round_trips=False)
    await probes.start()
    try:
        await asyncio.sleep(0.3)
        begin = time.monotonic_ns()
        await happened(lab, event, lambda api: api.post("/v1/moves", {"service": SERVICE, "to": target}))
        fault()

        async def owned() -> bool:
            return await registered_at(lab) == {target} and "here" in await parts(lab, target)

        await until(owned, f"{target} has it")
        end = time.monotonic_ns()
        await asyncio.sleep(0.3)
        logs = await probes.stop()
    finally:
        await probes.abandon()
    figures = move_figures(logs.flows, Window(begin, end), 0.0)
    return target, {name: direction.lost for name, direction in figures.directions.items()}


async def only_owner(lab: Installation, target: str) -> None:
    """Exactly one router has the service in the end, and the controller knows it."""
    other = "dc2" if target == "dc1" else "dc1"

    async def let_go() -> bool:
        return not {"here", "mirroring", "holding"} & await parts(lab, other)

    await until(let_go, f"{other} has let go")
    assert await at_rest(lab) == target


NOTHING = {"to_service": 0, "to_user": 0}


async def test_a_move_loses_nothing(lab: Installation, tmp_path: Path) -> None:
    target, lost = await moved(lab, tmp_path)
    assert lost == NOTHING
    await only_owner(lab, target)


@pytest.mark.parametrize(
    "event",
    ["migration.requested", "migration.started", "migration.stopped", "migration.resumed"],
    ids=["preparing", "copying", "stopped", "activating"],
)
async def test_a_controller_that_is_killed_costs_no_packet_and_goes_on(
    lab: Installation, tmp_path: Path, event: str
) -> None:
    def fault() -> None:
        kill(lab, "fmcc")
        start(lab, "fmcc")

    target, lost = await moved(lab, tmp_path, event, fault)
    assert lost == NOTHING
    await only_owner(lab, target)


@pytest.mark.parametrize(
    ("part", "event"),
    [
        ("source", "migration.started"),
        ("target", "migration.started"),
        ("source", "migration.stopped"),
        ("target", "migration.stopped"),
        ("source", "migration.resumed"),
        ("target", "migration.resumed"),
    ],
)
async def test_a_router_that_is_killed_costs_packets_and_the_move_ends(
    lab: Installation, tmp_path: Path, part: str, event: str
) -> None:
    """Before FREEZE, between FREEZE and ACTIVATE, and after; it comes back with what it promised."""
    source = await at_rest(lab)
    struck = source if part == "source" else ("dc2" if source == "dc1" else "dc1")
    in_hand: list[str] = []

    def fault() -> None:
        kill(lab, struck)
        in_hand.extend(promised(lab, struck))
        start(lab, struck)

    with Circling(namespace_of(LAB, "core")) as circling:
        target, _ = await moved(lab, tmp_path, event, fault)
        await only_owner(lab, target)
        await reachable_again(lab, tmp_path)
    assert circling.data > 0, "it has seen the user's packets"
    assert circling.worn == [], "a packet went in a circle"
    assert circling.exceeded == 0
    if in_hand:
        told = await event_of(lab, struck, "move.interrupted")
        assert (told["state"], told["lost"]) == (in_hand[0], "held" if in_hand[0] == "holding" else "copies")
    report = await report_of(lab, target)
    assert {"held", "forwarded", "replayed", "lost"} <= set(report)
    assert report["lost"] == sum(count for name, count in report.items() if name.startswith("lost."))
    assert {"held", "lost"} <= set(await event_of(lab, target, "move.packets"))


def promised(lab: Installation, site: str) -> list[str]:
    """What a killed router will go on with: the moves in hand, as it wrote them down."""
    settings = tomllib.loads((lab.folder / f"{site}.toml").read_text())
    states = [str(role.state) for role in Memory(Path(settings["state_dir"])).roles()]
    return [state for state in states if state in IN_HAND]


async def reachable_again(lab: Installation, tmp_path: Path) -> None:
    """Packets flow both ways, and none is lost any more."""
    user, service = lab.node("alice"), lab.node(SERVICE)
    assert user is not None
    assert service is not None
    probes = Probes(user, service, tmp_path, interval_us=2000, round_trips=False)
    await probes.start()
    try:
        await asyncio.sleep(0.2)
        begin = time.monotonic_ns()
        await asyncio.sleep(0.4)
        end = time.monotonic_ns()
        await asyncio.sleep(0.2)
        logs = await probes.stop()
    finally:
        await probes.abandon()
    figures = move_figures(logs.flows, Window(begin, end), 0.0)
    assert {name: each.lost for name, each in figures.directions.items()} == NOTHING
    assert all(each.sent > 0 for each in figures.directions.values())


async def report_of(lab: Installation, site: str) -> dict[str, int]:
    async with api_of(lab, site) as api:
        moves = (await api.get("/v1/moves"))["items"]
    packets: dict[str, int] = next(move["packets"] for move in moves if EIDS & set(move["eids"]))
    return packets


async def event_of(lab: Installation, site: str, name: str) -> dict[str, Any]:
    """The newest event of this name that a router has told since it was started."""
    found: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0), api_of(lab, site) as api:
            async for each in api.events(0):
                if each["name"] == name:
                    found = each["fields"]
    return found


async def test_a_map_server_that_is_away_for_the_whole_move_costs_no_packet(lab: Installation, tmp_path: Path) -> None:
    """Last: the controller hears of the new mapping when it subscribes anew, which may take a minute."""
    await at_rest(lab)
    kill(lab, "mapserver")

    def back() -> None:
        time.sleep(0.5)  # the routers' first tries are lost as well
        start(lab, "mapserver")

    _, lost = await moved(lab, tmp_path, "steering.active", back)
    assert lost == NOTHING
