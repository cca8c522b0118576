"""The network of an experiment: a shipped topology made fit for comparing, and its delays at a point. Pure.

Three things are changed, and the report says so. Access networks are equally far from both data centres: else the
longer way of the new place would count as added to one direction, and be a gain in the other. The controller moves
nothing on its own. The copy is short, since nothing that is measured depends on it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lispfmc.experiment.design import ABLATIONS, BadDesign, Design, Point
from lispfmc.lab.topology import FMCC, MAPSERVER, SHIPPED

DATACENTERS = ("dc1", "dc2")
CROWD_COPY_S = 1.0  # all are prepared before the first one stops


class Delays:
    """One-way delays in seconds' thousandths (ms) between members, by the names of moves.md's formulas."""

    def __init__(self, rtts_ms: Mapping[frozenset[str], float]) -> None:
        self._rtts_ms = rtts_ms

    def between(self, one: str, other: str) -> float:
        return 0.0 if one == other else self._rtts_ms[frozenset((one, other))] / 2


def topology_of(design: Design, scheme: str, services: int = 1, at_once: int = 0) -> dict[str, Any]:
    """The topology file of a lab of one scheme, as its values. Raises BadDesign."""
    path = SHIPPED / f"{design.topology}.toml"
    if "/" in design.topology or design.topology.endswith(".toml"):
        path = Path(design.topology)
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadDesign(f"--topology {design.topology}: {error}; name metro, fig5 or a TOML file") from error
    user = _user(values, design.user)
    steering, values["without"] = steering_of(scheme)
    values["dataplane"] = design.plane
    values["emulation"] = {"copy_s": design.copy_s, "pause_ms": design.pause_ms}
    values["fmcc"] = {**values["fmcc"], "mode": "act", "policy": "never"} | steering
    if at_once:
        values["fmcc"]["moves_at_once"] = at_once
    service = next((each for each in values["services"] if each["user"] == design.user), None)
    if service is None:
        raise BadDesign(f"{design.user} has no service in {design.topology}; choose another user")
    values["users"], values["services"] = [user], [service]
    if services > 1:
        values["services"] = [_one_of_many(service, at) for at in range(1, services + 1)]
        if not at_once:
            values["emulation"]["copy_s"] = CROWD_COPY_S
    rtts = rtts_ms(values) | _equidistant(values)
    values["wan"]["pairs"] = [{"between": sorted(pair), "rtt_ms": rtt} for pair, rtt in rtts.items()]
    return values


def steering_of(scheme: str) -> tuple[dict[str, str], list[str]]:
    """What the topology file says of a scheme, and of what an ablation does without."""
    if scheme in ABLATIONS:
        return {"scheme": "lossless"}, [scheme.removeprefix("lossless-no-")]
    return {"scheme": scheme}, []


def rtts_ms(values: Mapping[str, Any]) -> dict[frozenset[str], float]:
    """The matrix of a topology file."""
    return {frozenset(pair["between"]): float(pair["rtt_ms"]) for pair in values["wan"]["pairs"]}


def rtts_at(
    base: Mapping[frozenset[str], float], point: Point, source: str = DATACENTERS[0]
) -> dict[frozenset[str], float]:
    """The matrix at a point: the controller is as far from everybody as the point says. `source`: where the service is,
    when the point's data centres are those of source and target."""
    changed = {pair: point.fmcc_rtt_ms if FMCC in pair else rtt for pair, rtt in base.items()}
    if point.datacenters_ms is not None:
        changed[frozenset((FMCC, MAPSERVER))] = base[frozenset((FMCC, MAPSERVER))]
        order = DATACENTERS if source == DATACENTERS[0] else reversed(DATACENTERS)
        for datacenter, rtt in zip(order, point.datacenters_ms, strict=True):
            changed[frozenset((FMCC, datacenter))] = rtt
    return changed


def streams_at(point: Point) -> dict[frozenset[str], float]:
    """What of the matrix is otherwise for the hypervisors' HTTP."""
    if point.hypervisors_ms is None:
        return {}
    return {frozenset((FMCC, datacenter)): point.hypervisors_ms for datacenter in DATACENTERS}


def _equidistant(values: Mapping[str, Any]) -> dict[frozenset[str], float]:
    rtts = rtts_ms(values)
    access = [site["name"] for site in values["sites"] if site["kind"] == "access"]
    pairs = [frozenset((one, datacenter)) for one in access for datacenter in DATACENTERS]
    return dict.fromkeys(pairs, sum(rtts[pair] for pair in pairs) / len(pairs))


def _one_of_many(service: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The service again, with a name and with addresses of its own in the same prefixes."""
    eids = []
    for eid in service["eids"]:
        network, separator, _ = eid.rpartition(":" if ":" in eid else ".")
        eids.append(f"{network}{separator}{number + 20:{'x' if separator == ':' else 'd'}}")
    return {**service, "name": f"service-{number}", "eids": eids}


def _user(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for user in values["users"]:
        if user["name"] == name:
            found: Mapping[str, Any] = user
            return found
    known = ", ".join(user["name"] for user in values["users"])
    raise BadDesign(f"no user {name!r} in the topology; known are {known}")
