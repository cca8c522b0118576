"""From records to the experiment's document: runs, summaries, controls, predictions and what is to be reached. Pure.

The keys of the document are an API; they are only added to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lispfmc.experiment.design import NULL, Design, Point
from lispfmc.experiment.network import rtts_at, rtts_ms, topology_of
from lispfmc.experiment.prediction import fig9
from lispfmc.experiment.records import Record
from lispfmc.experiment.statistics import Outcome, Summary, median, summary

EMULATED = (
    'The "VM" is emulated: a process in a network namespace that is stopped and continued, its link taken down and up; '
    "copying is waiting."
)
MEDIAN_MS, ABOVE_NULL_MS = 1.0, 2.0
"""What a lossless move may add: the median, and the pooled 95th percentile above the null move's."""


def document(design: Design, records: Sequence[Record], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result as one JSON object."""
    measured = [record for record in records if record.figures is not None]
    moves = [record for record in measured if not record.planned.point.null]
    nulls = [record for record in measured if record.planned.point.null]
    swept = [record for record in moves if _swept(record.planned.point)]
    at_loss = [
        record
        for record in moves
        if record.planned.point.datacenters_ms is None and record.planned.point.fmcc_rtt_ms == design.loss_rtt_ms
    ]
    null = summary(_outcomes(nulls), design.seed) if nulls else None
    found: dict[str, Any] = {
        "vm": EMULATED,
        "design": {**msgspec.to_builtins(design), "loss_rtt_ms": design.loss_rtt_ms},
        "environment": dict(environment),
        "complete": len(records) == sum(len(session.runs) for session in design.sessions()),
        "summary": _nested(design, swept, lambda point: (point.scheme, f"{point.fmcc_rtt_ms:g}")),
        "summary_loss": _nested(design, at_loss, lambda point: (f"{point.control_loss:g}", point.scheme)),
        "pooled": _pooled(design, swept, null),
        "control": {"null_move": None if null is None else msgspec.to_builtins(null)},
        "predictions": _predictions(design, moves),
        "probes": probes(measured),
        "failed": [{"run": record.planned.number, "why": record.outcome} for record in records if not record.figures],
    }
    found["checks"] = checks(found)
    found["runs"] = [_run(record) for record in moves]
    found["control"]["runs"] = [_run(record) for record in nulls]
    return found


def _run(record: Record) -> dict[str, Any]:
    point = record.planned.point
    figures = msgspec.to_builtins(record.figures)
    return {
        "run": record.planned.number,
        "scheme": NULL if point.null else point.scheme,
        "fmcc_rtt_ms": point.fmcc_rtt_ms,
        "control_loss": point.control_loss,
        "datacenters_ms": point.datacenters_ms,
        "from": record.service_from,
        "to": record.service_to,
        **figures,
        "probes": msgspec.to_builtins(record.lateness),
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
            Outcome(figures.added_ms, _total(record, "lost"), _total(record, "duplicated"), _total(record, "reordered"))
        )
    return outcomes


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
        nested.setdefault(outer, {})[inner] = msgspec.to_builtins(summary(_outcomes(group), design.seed))
    return nested


def _order(keys: tuple[str, str]) -> tuple[tuple[int, float, str], ...]:
    """Numbers by their size, names by the alphabet."""
    return tuple((0, float(key), "") if key.replace(".", "").isdigit() else (1, 0.0, key) for key in keys)


def _pooled(design: Design, swept: Sequence[Record], null: Summary | None) -> dict[str, Any]:
    """All points of the sweep together, for each scheme; beside it how far above the null move's it is."""
    pooled = {}
    for scheme in design.schemes:
        mine = [record for record in swept if record.planned.point.scheme == scheme]
        if mine:
            figures = summary(_outcomes(mine), design.seed)
            above = None if null is None else round(figures.added_p95 - null.added_p95, 3)
            pooled[scheme] = {**msgspec.to_builtins(figures), "p95_above_null_move": above}
    return pooled


def _predictions(design: Design, moves: Sequence[Record]) -> list[dict[str, Any]]:
    """What Fig. 9's formula says beside what was measured, for each point and each direction of the move."""
    values = topology_of(design, design.case_scheme)
    base, access = rtts_ms(values), values["users"][0]["start"]
    groups: dict[tuple[Point, str, str], list[float]] = {}
    for record in moves:
        point = record.planned.point
        if point.scheme == design.case_scheme and point.control_loss == 0 and record.figures is not None:
            place = (point, record.service_from, record.service_to)
            groups.setdefault(place, []).append(record.figures.added_ms)
    found = []
    for (point, source, target), added in groups.items():
        rtts = rtts_at(base, point)
        predicted = fig9(rtts, source, target, access)
        found.append(
            {
                "case": "sweep" if point.datacenters_ms is None else "-".join(f"{ms:g}" for ms in point.datacenters_ms),
                "from": source,
                "to": target,
                "fmcc_source_rtt_ms": rtts[frozenset(("fmcc", source))],
                "fmcc_target_rtt_ms": rtts[frozenset(("fmcc", target))],
                "n": len(added),
                "predicted_ms": predicted.added_ms,
                "predicted_forwarding_ms": predicted.forwarding_ms,
                "measured_p50": round(median(added), 3),
                "within": predicted.holds(median(added)),
            }
        )
    return sorted(found, key=lambda one: (one["case"], one["fmcc_target_rtt_ms"], one["from"]))


def probes(measured: Sequence[Record]) -> dict[str, Any]:
    """How well the instruments kept time: a late probe can look like a silence of the network."""
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
    return rows


def _check(what: str, value: float, bound: float, unit: str) -> dict[str, Any]:
    return {"what": what, "value": value, "bound": bound, "unit": unit, "kept": value <= bound}
