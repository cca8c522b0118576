"""A user's move and the service's that follows, with what the user felt of both: probes run through both moves."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import msgspec

from lispfmc.lab.analysis import NS_PER_MS
from lispfmc.lab.following import Follower, service_of, site_of
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.phases import Phase
from lispfmc.lab.probes import Logs, Probes, new_folder
from lispfmc.lab.report import Instants, MoveReport, figures_of
from lispfmc.wire.errors import LocalError

WARM_UP_S = 0.5  # caches fill and the interpreters warm; not part of any window
BEFORE_S = 1.5
AFTER_S = 2.0
ALREADY_THERE = "already-there"
TIMEOUT = "timeout"


class _Measured(msgspec.Struct, frozen=True):
    """What the probes saw between two instants."""

    logs: Logs
    begin_ns: int
    end_ns: int


async def move(
    lab: Installation,
    user: NodeEntry,
    site: str,
    *,
    wait: bool,
    measure: bool,
    timeout_s: float,
    scheme: str = "",
    on_phase: Callable[[Phase], None] = lambda _: None,
) -> MoveReport:
    """Move `user` to `site`; with `wait`, until the service has followed; with `measure`, under probes. From then on
    the service's moves are led by `scheme`, if there is one; the routers stay configured as they are."""
    placement = await service_of(lab, user.name)
    service = lab.node(placement["service"]) if placement else None
    if measure and service is None:
        raise LocalError(f"{user.name} has no service to measure to; measure another user, or leave out --measure")
    report = MoveReport(
        lab=lab.name,
        user=user.name,
        service=service.name if service else None,
        from_site=await site_of(user),
        to_site=site,
        outcome=ALREADY_THERE,
    )
    if report.from_site == site:
        return report
    if scheme and service is not None:
        async with lab.the("fmcc").client() as api:
            await api.post("/v1/schemes", {"service": service.name, "scheme": scheme})
    async with Follower(lab, user, site, report.service, on_phase) as follower:
        measured = None
        if measure and service is not None:
            folder = new_folder(lab.folder, user.name)
            outcome, measured = await _move_under_probes(follower, Probes(user, service, folder), timeout_s)
            report = msgspec.structs.replace(report, logs=str(folder))
        else:
            await follower.attach()
            outcome = await _followed(follower, timeout_s) if wait else "attached"
    phases = follower.phases
    report = msgspec.structs.replace(report, outcome=outcome, reason=phases.reason, phases=phases.list())
    report = await _with_service_move(lab, report, phases.move)
    return _with_figures(report, follower, measured) if measured else report


async def _move_under_probes(follower: Follower, probes: Probes, timeout_s: float) -> tuple[str, _Measured]:
    try:
        await probes.start()
        await asyncio.sleep(WARM_UP_S)
        begin = time.monotonic_ns()
        await asyncio.sleep(BEFORE_S)
        await follower.attach()
        outcome = await _followed(follower, timeout_s)
        await asyncio.sleep(AFTER_S)
        end = time.monotonic_ns()
        return outcome, _Measured(await probes.stop(), begin, end)
    except BaseException:
        await asyncio.shield(probes.abandon())
        raise


def _with_figures(report: MoveReport, follower: Follower, measured: _Measured) -> MoveReport:
    at = follower.phases.at_ns
    link_down, announced = at("link_down"), at("announced")
    assert link_down is not None
    assert announced is not None
    instants = Instants(
        measured.begin_ns, link_down, announced, at("stop"), at("resume"), at("committed"), measured.end_ns
    )
    return msgspec.structs.replace(
        report,
        figures=figures_of(measured.logs, instants),
        interval_ms=measured.logs.flows["to_service"].interval_ns / NS_PER_MS,
        environment=environment() | {"realtime_probes": measured.logs.realtime},
    )


def environment() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


async def _followed(follower: Follower, timeout_s: float) -> str:
    try:
        await follower.until_over(timeout_s)
    except TimeoutError:
        return TIMEOUT
    return follower.phases.outcome.value


async def _with_service_move(lab: Installation, report: MoveReport, move_id: str | None) -> MoveReport:
    """What the controller knows of the service's move: from where, to where, by which kind of hypervisor."""
    if move_id is None:
        return report
    async with lab.the("fmcc").client() as api:
        moves = (await api.get("/v1/moves"))["items"]
    one = next((one for one in moves if one["id"] == move_id), None)
    if one is None:
        return report
    return msgspec.structs.replace(
        report,
        service_from=one["from"],
        service_to=one["to"],
        scheme=one.get("scheme"),
        driver=one.get("driver"),
        emulated=one.get("emulated"),
    )
