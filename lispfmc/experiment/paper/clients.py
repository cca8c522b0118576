"""Many corresponding clients of a service that moves: what one of them feels, and what all of them lose.

A client is an EID of an access network with a flow of its own to the service. A router tells routers of a move and not
clients: so both are varied, the clients, and the access networks that they are behind. One client is watched in both
directions, a packet each millisecond; the others share a rate of packets.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.experiment.design import Design
from lispfmc.experiment.moving import AFTER_S, BEFORE_S, WARM_UP_S, Moves, here_and_there
from lispfmc.experiment.network import topology_of
from lispfmc.experiment.paper.echoes import read
from lispfmc.experiment.paper.networks import lab_on
from lispfmc.experiment.paper.work import Work
from lispfmc.experiment.statistics import median
from lispfmc.lab.analysis import Window, longest_gap_ms, move_figures
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.probes import Probes
from lispfmc.runtime.node_client import call
from lispfmc.wire.errors import LocalError

PORT = 7103
SHARED_US, WARM_S = 1000, 1.5
"""Between packets of the other clients, all together."""
WATCHED = "alice"
A_NODE = 125
"""Clients of one host at most: the kernel takes no more addresses of an interface at once."""


class Crowd(msgspec.Struct, frozen=True):
    """The moves with so many clients behind so many access networks, the watched one included. Milliseconds; `lost` and
    `others_lost` in packets, of all moves."""

    clients: int
    networks: int
    n: int
    added_p50: float
    added_max: float
    lost: int
    others_sent: int
    others_lost: int


class _Move(msgspec.Struct, frozen=True):
    added_ms: float
    lost: int
    others_sent: int
    others_lost: int


def with_clients(work: Work, scheme: str, clients: int, networks: int, moves: int, fmcc_rtt_ms: float) -> Crowd:
    """A lab of its own. Raises LocalError."""
    design = Design(schemes=(scheme,), fmcc_rtts_ms=(fmcc_rtt_ms,), interval_us=1000)
    values = crowded(topology_of(design, scheme), clients - 1, networks)
    folder = work.folder / f"clients-{clients}-{networks}"
    folder.mkdir(exist_ok=True)
    with lab_on(values, folder, work.tell.say) as lab:
        found = asyncio.run(_all(lab, design, moves))
    return Crowd(
        clients,
        networks,
        len(found),
        round(median([each.added_ms for each in found]), 3),
        round(max(each.added_ms for each in found), 3),
        sum(each.lost for each in found),
        sum(each.others_sent for each in found),
        sum(each.others_lost for each in found),
    )


def crowded(values: dict[str, Any], others: int, networks: int) -> dict[str, Any]:
    """The topology with `others` more clients, spread over access networks of their own, which are as far from
    everybody as the first one is."""
    sites, users, pairs = list(values["sites"]), list(values["users"]), list(values["wan"]["pairs"])
    pattern = users[0]["start"]
    near = next(pair["rtt_ms"] for pair in pairs if pattern in pair["between"] and "mapserver" in pair["between"])
    distance = {frozenset(pair["between"]): pair["rtt_ms"] for pair in pairs}
    for at in range(networks if others else 0):
        name = f"crowd{at}"
        members = [*(each["name"] for each in sites), "mapserver", "fmcc"]
        pairs += [
            {"between": [name, each], "rtt_ms": distance.get(frozenset((pattern, each)), near)} for each in members
        ]
        prefixes = [f"100.{80 + at}.0.0/16", f"fd00:0:0:{0x200 + at:x}::/64"]
        rlocs = [f"198.18.0.{100 + at}", f"2001:2::{0x100 + at:x}"]
        sites.append({"name": name, "kind": "access", "rlocs": rlocs, "prefixes": prefixes})
        mine = others * (at + 1) // networks - others * at // networks
        eids = [f"100.{80 + at}.{number // 250}.{number % 250 + 1}" for number in range(mine)]
        for first in range(0, mine, A_NODE):
            node = {"name": f"clients-{len(users)}", "home": name, "start": name}
            users.append({**node, "eids": eids[first : first + A_NODE]})
    wan = {**values["wan"], "pairs": pairs}
    return {**values, "sites": sites, "users": users, "wan": wan}


async def _all(lab: Installation, design: Design, times: int) -> list[_Move]:
    service = next(node for node in lab.nodes if node.role == "service")
    watched = next(node for node in lab.users() if node.name == WATCHED)
    others = [node for node in lab.users() if node.name != WATCHED]
    if others:  # each of them once, so that the first packets' way to the Map-Server is not counted
        folder = lab.folder / "measurement"
        folder.mkdir(exist_ok=True)
        await _begin(others, service, folder)
        await asyncio.sleep(WARM_S)
        await _end(others, service, folder)
    async with Moves(lab) as moves:
        return [await _move(lab, moves, design, watched, others, service) for _ in range(times)]


async def _move(
    lab: Installation, moves: Moves, design: Design, watched: NodeEntry, others: Sequence[NodeEntry], service: NodeEntry
) -> _Move:
    folder = lab.folder / "measurement"
    probes = Probes(watched, service, folder, interval_us=design.interval_us, round_trips=False, quiet=True)
    _, there = await here_and_there(service)
    try:
        await probes.start()
        await _begin(others, service, folder)
        await asyncio.sleep(WARM_UP_S)
        begin = time.monotonic_ns()
        await asyncio.sleep(BEFORE_S)
        said = await moves.over(await moves.request(service.name, there))
        await asyncio.sleep(AFTER_S)
        window = Window(begin, time.monotonic_ns())
        sent, lost = await _end(others, service, folder)
        logs = await probes.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if said == "migration.failed":
        raise LocalError(f"the move of {service.name} to {there} failed; see the controller's log")
    blackout = longest_gap_ms(logs.gaps, logs.heartbeat_interval_ns, window)
    figures = move_figures(logs.flows, window, blackout, None)
    return _Move(figures.added_ms, sum(each.lost for each in figures.directions.values()), sent, lost)


async def _begin(others: Sequence[NodeEntry], service: NodeEntry, folder: Path) -> None:
    """All of the others together send a packet each `SHARED_US`, each in its turn."""
    if not others:
        return
    log = {"log": str(folder / "crowd")}
    await call(service.socket, {"do": "probe.receive", "id": "crowd", "port": PORT, "quiet": True, **log})
    shared = {"from_all": True, "peer": service.eid(), "port": PORT, "interval_us": SHARED_US * len(others)}
    for node in others:
        log = {"log": str(folder / f"crowd-{node.name}")}
        await call(node.socket, {"do": "probe.start", "id": "crowd", **shared, **log})


async def _end(others: Sequence[NodeEntry], service: NodeEntry, folder: Path) -> tuple[int, int]:
    """How many packets the others sent, and how many of them did not arrive."""
    if not others:
        return 0, 0
    sent = 0
    for node in others:
        summary = (await call(node.socket, {"do": "probe.stop", "id": "crowd"}))["summary"]
        sent += int(summary["sent"]) - int(summary["send_errors"])
    await call(service.socket, {"do": "probe.stop", "id": "crowd"})
    got = {(each.number, each.sent_ns) for each in read(folder / "crowd")}  # each sender counts from 0; some come twice
    return sent, sent - len(got)
