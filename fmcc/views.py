"""What the controller's HTTP API shows, as plain JSON values."""

from __future__ import annotations

from typing import Any, TypeAlias

from fmcc.controller import Controller
from fmcc.deliberation import Considered
from fmcc.moves import Move, MoveRecord, Placement
from fmcc.policy import Go

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
        "distance_ms": controller.deliberation.rtt_ms(here.site, at, now) if here.site and at else None,
    }


def placements(controller: Controller) -> Json:
    ping_pongs = controller.deliberation.ping_pongs
    return {
        "items": [
            {**_placement(placement), "ping_pongs": ping_pongs.get(name, 0)}
            for name, placement in controller.placements.items()
        ]
    }


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


def decisions(controller: Controller, now: float) -> Json:
    """The last decision of each service that had one: the rule that won, the runner-up, and what was weighed."""
    return {"items": [_considered(controller, each, now) for each in controller.deliberation.latest.values()]}


def _considered(controller: Controller, considered: Considered, now: float) -> Json:
    view, decision = considered.view, considered.decision
    return {
        "service": view.service,
        "user": view.user,
        "site": view.site,
        "service_class": view.service_class,
        "decision": "move" if isinstance(decision, Go) else "stay",
        "from": view.datacenter,
        "to": decision.datacenter if isinstance(decision, Go) else view.datacenter,
        "rule": decision.rule or controller.policy.name,
        "reason": decision.reason,
        "runner_up": decision.runner_up,
        "policy": controller.policy_of(view.service_class),
        "mode": "act" if considered.acts else "observe",
        "age_s": round(now - considered.at, 3),
        "ping_pongs": controller.deliberation.ping_pongs.get(view.service, 0),
        "settled_s": view.settled_s,
        "remaining_s": view.remaining_s,
        "candidates": [
            {
                "datacenter": each.datacenter,
                "rtt_ms": each.rtt_ms,
                "free": each.free,
                "load": round(each.load, 4),
                "transfer_s": each.transfer_s,
            }
            for each in view.candidates
        ],
    }


def moves(controller: Controller) -> Json:
    return {"items": [move(record) for record in controller.moves]}


def move(record: MoveRecord) -> Json:
    """One move. `at_ms` counts from the first phase, which was at `started_monotonic_ns` (CLOCK_MONOTONIC)."""
    moved = record.move
    started = moved.phases[0].at if moved.phases else 0.0
    return {
        "id": moved.id,
        "service": record.service,
        "from": moved.source,
        "to": moved.target,
        "version": moved.version,
        "driver": moved.driver,
        "emulated": moved.emulated,
        "scheme": moved.scheme,
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
