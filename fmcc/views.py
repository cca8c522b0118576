"""What the controller's HTTP API shows, as plain JSON values."""

from __future__ import annotations

from typing import Any, TypeAlias

from fmcc.controller import Controller, MoveRecord
from fmcc.moves import Move, Placement

Json: TypeAlias = dict[str, Any]


def users(controller: Controller, now: float) -> Json:
    return {"items": [_user(controller, name, now) for name in controller.world.users]}


def _user(controller: Controller, name: str, now: float) -> Json:
    here = controller.whereabouts(name)
    services = controller.world.services_of(name)
    at = controller.placements[services[0].name].datacenter if services else None
    return {
        "name": name,
        "eids": [str(eid) for eid in controller.world.users[name].eids],
        "site": here.site,
        "since_s": None if here.since is None else round(now - here.since, 3),
        "distance_ms": controller.world.rtt_ms(here.site, at) if here.site and at else None,
    }


def placements(controller: Controller) -> Json:
    return {"items": [_placement(placement) for placement in controller.placements.values()]}


def _placement(placement: Placement) -> Json:
    service = placement.service
    return {
        "service": service.name,
        "user": service.user,
        "eids": [str(eid) for eid in service.eids],
        "datacenter": placement.datacenter,
        "version": placement.version,
        "state": str(placement.state),
        "move": placement.move.id if placement.move else None,
    }


def moves(controller: Controller) -> Json:
    return {"items": [move(record, controller.steering.scheme) for record in controller.moves]}


def move(record: MoveRecord, scheme: str) -> Json:
    """One move. `at_ms` counts from the first phase, which was at `started_monotonic_ns` (CLOCK_MONOTONIC)."""
    moved = record.move
    started = moved.phases[0].at
    return {
        "id": moved.id,
        "service": record.service,
        "from": moved.source,
        "to": moved.target,
        "version": moved.version,
        "driver": moved.driver,
        "emulated": moved.emulated,
        "scheme": scheme,
        "state": str(moved.state),
        "started_monotonic_ns": int(started * 1e9),
        "phases": [{"name": phase.name, "at_ms": round((phase.at - started) * 1000, 3)} for phase in moved.phases],
        "stopped_monotonic_ns": moved.stopped_ns,
        "resumed_monotonic_ns": moved.resumed_ns,
        "blackout_events_ms": _blackout(moved),
        "reason": moved.reason,
    }


def _blackout(moved: Move) -> float | None:
    """STOP to RESUME by the hypervisors' clocks: meaningful where both share one, as in the lab."""
    if moved.stopped_ns is None or moved.resumed_ns is None:
        return None
    return round((moved.resumed_ns - moved.stopped_ns) / 1e6, 3)
