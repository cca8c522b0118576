"""From records to the experiment's document: runs, summaries, controls, predictions and what is to be reached. Pure.

The keys of the document are an API; they are only added to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lispfmc.experiment.design import Design, Kind, Point
from lispfmc.experiment.network import DATACENTERS, Delays, rtts_at, rtts_ms, topology_of
from lispfmc.experiment.prediction import agrees, fig9
from lispfmc.experiment.records import Record
from lispfmc.experiment.statistics import Outcome, median, quantile, summary
from lispfmc.experiment.ways import ways
from lispfmc.lab.topology import MAPSERVER

EMULATED = (
    'The "VM" is emulated: a process in a network namespace that is stopped and continued, its link taken down and up; '
    "copying is waiting."
)
MEDIAN_MS, ABOVE_NULL_MS = 1.0, 2.0
"""What a lossless move may add: the median, and the pooled 95th percentile above the null move's."""
CROWDS = ("services", "services_at_once")
STALL_MS, USER_MS, CROWD_MS = 5.0, 5.0, 10.0
"""How long a TCP connection may stall beyond B; how long after the least time a user's packets flow (95 %); what
is added to many services that move at once (95 %)."""


def document(design: Design, records: Sequence[Record], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result as one JSON object."""
    measured = [record for record in records if record.figures is not None]
    by_kind = {kind: [record for record in measured if record.planned.point.kind is kind] for kind in Kind}
    moves, nulls = by_kind[Kind.MOVE], by_kind[Kind.NULL]
    swept = [record for record in moves if _swept(record.planned.point)]
    at_loss = [
        record
        for record in moves
        if record.planned.point.datacenters_ms is None and record.planned.point.fmcc_rtt_ms == design.loss_rtt_ms
    ]
    null, bridge = (_summed_up(design, each) if each else None for each in (nulls, by_kind[Kind.BRIDGE]))
    found: dict[str, Any] = {
        "vm": EMULATED,
        "design": {**msgspec.to_builtins(design), "loss_rtt_ms": design.loss_rtt_ms},
        "environment": dict(environment),
        "complete": len(records) == sum(len(session.runs) for session in design.sessions()),
        "summary": _nested(design, swept, lambda point: (point.scheme, f"{point.fmcc_rtt_ms:g}")),
        "summary_loss": _nested(design, at_loss, lambda point: (f"{point.control_loss:g}", point.scheme)),
        "pooled": _pooled(design, swept, null),
        "control": {"null_move": null, "same_bridge": bridge},
        "predictions": _predictions(design, moves),
        "tcp": _tcp(design, by_kind[Kind.TCP]),
        "user_moves": user_moves(design, by_kind[Kind.USER]),
        "probes": probes(records),
        "services": _crowds(design, records),
        "services_at_once": _crowds(design, records, design.at_once) if design.at_once else {},
        "failed": [
            {"run": record.planned.number, "why": record.outcome}
            for record in records
            if record.figures is None and not record.services
        ],
    }
    found["checks"] = checks(found)
    found["runs"] = [_run(record) for record in moves]
    for key, kinds in (("control", (Kind.NULL, Kind.BRIDGE)), ("tcp", (Kind.TCP,)), ("user_moves", (Kind.USER,))):
        found[key]["runs"] = [_run(record) for kind in kinds for record in by_kind[kind]]
    return found


def _run(record: Record) -> dict[str, Any]:
    point = record.planned.point
    figures = msgspec.to_builtins(record.figures)
    return {
        "run": record.planned.number,
        "kind": point.kind,
        "scheme": point.scheme,
        "fmcc_rtt_ms": point.fmcc_rtt_ms,
        "control_loss": point.control_loss,
        "datacenters_ms": point.datacenters_ms,
        "from": record.origin,
        "to": record.target,
        **figures,
        "probes": msgspec.to_builtins(record.lateness),
        "cut_short": record.cut_short,
        "overflowed": record.overflowed,
        "resets": record.resets,
        "flowing_ms": record.flowing_ms,
        "attempt": record.attempt,
        "load_1m": record.load_1m,
        "phases_ms": record.phases_ms,
    }


def _swept(point: Point) -> bool:
    return point.control_loss == 0 and point.datacenters_ms is None


def _outcomes(records: Iterable[Record]) -> list[Outcome]:
    outcomes = []
    for record in records:
        figures = record.figures
        assert figures is not None, "only measured runs are summed up"
        outcomes.append(
            Outcome(
                figures.added_ms,
                _total(record, "lost"),
                _total(record, "duplicated"),
                _total(record, "reordered"),
                figures.added_new_ms,
            )
        )
    return outcomes


def _summed_up(design: Design, records: Sequence[Record]) -> dict[str, Any]:
    return {**msgspec.to_builtins(summary(_outcomes(records), design.seed)), "overflowed": _overflowed(records)}


def _overflowed(records: Iterable[Record]) -> int:
    """Packets that the receivers' sockets had no room for: no network lost them."""
    return sum(record.overflowed for record in records)


def _total(record: Record, name: str) -> int:
    """Of both directions: in a run's own line stands the worse one."""
    assert record.figures is not None
    return sum(getattr(direction, name) for direction in record.figures.directions.values())


def _nested(
    design: Design, records: Iterable[Record], keys: Callable[[Point], tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(keys(record.planned.point), []).append(record)
    nested: dict[str, dict[str, Any]] = {}
    for (outer, inner), group in sorted(groups.items(), key=lambda item: _order(item[0])):
        nested.setdefault(outer, {})[inner] = _summed_up(design, group)
    return nested


def _order(keys: tuple[str, str]) -> tuple[tuple[int, float, str], ...]:
    """Numbers by their size, names by the alphabet."""
    return tuple((0, float(key), "") if key.replace(".", "").isdigit() else (1, 0.0, key) for key in keys)


def _pooled(design: Design, swept: Sequence[Record], null: Mapping[str, Any] | None) -> dict[str, Any]:
    """All points of the sweep together, for each scheme; beside it how far above the null move's it is."""
    pooled = {}
    for scheme in design.schemes:
        mine = [record for record in swept if record.planned.point.scheme == scheme]
        if mine:
            figures = _summed_up(design, mine)
            above = None if null is None else round(figures["added_p95"] - null["added_p95"], 3)
            pooled[scheme] = {**figures, "p95_above_null_move": above}
    return pooled


def _predictions(design: Design, moves: Sequence[Record]) -> list[dict[str, Any]]:
    """What Fig. 9's formula says beside what was measured, for each point and each direction of the move."""
    values = topology_of(design, design.case_scheme)
    base, access = rtts_ms(values), values["users"][0]["start"]
    groups: dict[tuple[Point, str, str], list[float]] = {}
    for record in moves:
        point = record.planned.point
        if point.scheme == design.case_scheme and point.control_loss == 0 and record.figures is not None:
            place = (point, record.origin, record.target)
            groups.setdefault(place, []).append(record.figures.added_ms)
    found = []
    for (point, source, target), added in groups.items():
        rtts = rtts_at(base, point)
        delays = ways(rtts, source, target, access, point.hypervisors_ms)
        predicted, by_messages = fig9(delays), delays.shortest
        found.append(
            {
                "case": "sweep" if point.datacenters_ms is None else "-".join(f"{ms:g}" for ms in point.datacenters_ms),
                "from": source,
                "to": target,
                "fmcc_source_rtt_ms": rtts[frozenset(("fmcc", source))],
                "fmcc_target_rtt_ms": rtts[frozenset(("fmcc", target))],
                "n": len(added),
                "predicted_ms": predicted,
                "measured_p50": round(median(added), 3),
                "within": agrees(median(added), predicted),
                "predicted_by_messages_ms": by_messages,
                "within_by_messages": agrees(median(added), by_messages),
            }
        )
    return sorted(found, key=lambda one: (one["case"], one["fmcc_target_rtt_ms"], one["from"]))


def _tcp(design: Design, records: Sequence[Record]) -> dict[str, Any]:
    """Through TCP connections: the longest stall beyond B, and the connections that broke."""
    found: dict[str, Any] = {}
    for scheme in design.schemes:
        mine = [record for record in records if record.planned.point.scheme == scheme]
        if mine:
            figures = summary(_outcomes(mine), design.seed)
            found[scheme] = {
                "n": figures.n,
                **{f"stall_{name}": getattr(figures, f"added_{name}") for name in ("p50", "p95", "p99", "max")},
                "resets": sum(record.resets for record in mine),
            }
    return found


def _crowds(design: Design, records: Sequence[Record], at_once: int = 0) -> dict[str, Any]:
    """Many services that were asked to move at once: each service's move in each round is one of `n`. `at_once`: so
    many of them the controller had under way; 0: all."""
    found: dict[str, Any] = {}
    for scheme in design.schemes:
        point = Point(scheme, design.loss_rtt_ms, kind=Kind.CROWD, at_once=at_once)
        rounds = [record for record in records if record.services and record.planned.point == point]
        moves = [figures for record in rounds for figures in record.services.values()]
        if moves:
            outcomes = [
                Outcome(each.added_ms, each.lost, each.duplicated, each.reordered, each.added_new_ms) for each in moves
            ]
            figures = msgspec.to_builtins(summary(outcomes, design.seed))
            figures["dropped"] = dict(sum((Counter(record.dropped) for record in rounds), Counter()))
            figures["overflowed"] = _overflowed(rounds)
            # what so many stops and resumptions cost their hypervisors; it is none of the network's
            blackouts = sorted(each.blackout_ms for each in moves)
            figures |= {"blackout_p50": median(blackouts), "blackout_max": blackouts[-1]}
            found[scheme] = {"services": design.services, "at_once": at_once or None, "rounds": len(rounds), **figures}
    return found


def crowd_of(crowd: Mapping[str, Any]) -> str:
    """A crowd in words."""
    limit = crowd.get("at_once")  # results that are older have none
    return f"{crowd['services']} services at once" + (f", {limit} under way at a time" if limit else "")


def user_moves(design: Design, records: Sequence[Record]) -> dict[str, Any]:
    """How long after her announcement a user's packets flow, beside what the delays alone make of it."""
    if not records:
        return {}
    d = Delays(rtts_at(rtts_ms(topology_of(design, design.schemes[0])), records[0].planned.point)).between
    beyond: dict[str, list[float]] = {"inbound": [], "outbound": []}
    lost = 0
    for record in records:
        new, router = record.target, DATACENTERS[0]  # either: they are equally far from both accesses
        least = {
            "inbound": d(new, MAPSERVER) + d(MAPSERVER, router) + d(router, new),
            "outbound": 2 * d(new, MAPSERVER) + d(new, router),
        }
        lost += _total(record, "lost")
        for name, flowing in record.flowing_ms.items():
            if flowing is not None:
                beyond[name].append(round(flowing - least[name], 3))
    found: dict[str, Any] = {"n": len(records), "lost": lost}
    for name, values in beyond.items():
        never = sum(record.flowing_ms.get(name) is None for record in records)
        shares = {"p50": median(values), "p95": quantile(values, 0.95), "max": max(values)} if values else {}
        found[name] = {**{f"beyond_{key}": round(value, 3) for key, value in shares.items()}, "never": never}
    return found


def probes(records: Sequence[Record]) -> dict[str, Any]:
    """How well the instruments kept time: a late probe can look like a silence of the network. `overflowed` counts
    crowds, too; all else is of single flows."""
    measured = [record for record in records if record.figures is not None]
    late = [each for record in measured for each in record.lateness.values()]
    if not late:
        return {}
    worst = [each.worst_ms for each in late]
    return {
        "worst_late_p50_ms": round(median(worst), 3),
        "worst_late_max_ms": max(worst),
        "missed_slots": sum(each.late for each in late),
        "runs_with_missed_slots": sum(any(each.late for each in record.lateness.values()) for record in measured),
        "runs": len(measured),
        "realtime": all(record.realtime for record in measured),
        "runs_cut_short": sum(record.cut_short for record in measured),
        "overflowed": _overflowed(records),
    }


def checks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a lossless move promises, and whether it was kept."""
    rows: list[dict[str, Any]] = []
    for rtt, figures in found["summary"].get("lossless", {}).items():
        rows.append(_check(f"lossless, controller at {rtt} ms: median added", figures["added_p50"], MEDIAN_MS, "ms"))
        rows.append(_check(f"lossless, controller at {rtt} ms: packets lost", figures["lost"], 0, "packets"))
    pooled = found["pooled"].get("lossless")
    if pooled and pooled["p95_above_null_move"] is not None:
        what = "lossless, all together: 95th percentile above the null move's"
        rows.append(_check(what, pooled["p95_above_null_move"], ABOVE_NULL_MS, "ms"))
    for loss, schemes in found["summary_loss"].items():
        if loss != "0" and (figures := schemes.get("lossless")):
            rows.append(_check(f"lossless, {loss} % control loss: median added", figures["added_p50"], MEDIAN_MS, "ms"))
            rows.append(_check(f"lossless, {loss} % control loss: packets lost", figures["lost"], 0, "packets"))
    if tcp := found["tcp"].get("lossless"):
        rows.append(_check("lossless, TCP: longest stall beyond B", tcp["stall_max"], STALL_MS, "ms"))
        rows.append(_check("lossless, TCP: connections reset", tcp["resets"], 0, "connections"))
    for part in CROWDS:
        if crowd := found[part].get("lossless"):
            what = f"lossless, {crowd_of(crowd)}"
            rows.append(_check(f"{what}: 95th percentile added", crowd["added_p95"], CROWD_MS, "ms"))
            rows.append(_check(f"{what}: packets lost", crowd["lost"], 0, "packets"))
    for name in ("inbound", "outbound"):
        if "beyond_p95" in (flowing := found["user_moves"].get(name, {})):
            what = f"a user's move, {name}: 95th percentile beyond the least time"
            rows.append(_check(what, flowing["beyond_p95"], USER_MS, "ms"))
    return rows


def _check(what: str, value: float, bound: float, unit: str) -> dict[str, Any]:
    return {"what": what, "value": value, "bound": bound, "unit": unit, "kept": value <= bound}
