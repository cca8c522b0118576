"""`lispfmc model ctmc|sdt|policy|fig14`: the papers' analytic models, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmcc.policy.models import ctmc, disruption, fig14, plane, walk
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.decisions import policy_iteration, value_iteration
from lispfmc.cli import plot
from lispfmc.cli.failure import DONE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_table, print_text

PLOTTED_RINGS = 10
SHARES = tuple(tenth / 10 for tenth in range(1, 11))
CLOSED, BY_POLICY, BY_VALUE = "closed-form", "policy-iteration", "value-iteration"


def position(
    rings: int, *, object_bits: float, fraction: float, signal_bits: float, whole: bool, output: Format, to: Path | None
) -> int:
    """Where users are when services move at ring `rings`."""
    found = ctmc.full(rings) if whole else ctmc.aggregated(rings)
    document: dict[str, Any] = {
        "rings": rings,
        "chain": "full" if whole else "aggregated",
        "pi0": found.pi0,
        "mean_distance": found.mean_distance,
        "mean_delay_s": found.mean_delay_s,
        "migrations_per_handover": found.migrations_per_handover,
        "cost": found.cost(object_bits * fraction, signal_bits),
        "ring_probability": found.ring_probability,
    }
    if to is not None:
        every = ctmc.by_rings(max(rings, PLOTTED_RINGS))
        lines = {
            "pi0": [each.pi0 for each in every],
            "migrations per handover": [each.migrations_per_handover for each in every],
        }
        plot.curves(
            to, [each.rings for each in every], lines, ("k, the ring at which the service moves", "probability")
        )
    return _print(document, output, lists="RING")


def sdt(
    rings: int | None, *, rtt_s: float | None, object_bits: float, fraction: float, loss: float, mss: int, window: int,
    output: Format, to: Path | None,
) -> int:  # fmt: skip
    """How long copying disturbs a service; the distance in rings (the paper's law) or as a round-trip time."""
    if (rings is None) == (rtt_s is None):
        raise Failure(USAGE, "model sdt", "the distance is needed once", "give --rings or --rtt")
    rtt = disruption.rtt_s(rings) if rings is not None else rtt_s
    assert rtt is not None, "one of the two is given"
    bits = object_bits * fraction

    def of(seconds: float) -> float:
        return disruption.disruption_s(bits, seconds, loss=loss, mss_bytes=mss, window=window)

    document = {
        "rings": rings,
        "rtt_s": rtt,
        "object_bits": bits,
        "segments": disruption.segments(bits, mss),
        "sdt_s": of(rtt),
    }
    if to is not None:
        every = range(1, max(rings or 0, PLOTTED_RINGS) + 1)
        lines = {"SDT": [of(disruption.rtt_s(each)) for each in every]}
        plot.curves(to, list(every), lines, ("k, rings between the data centres", "seconds"))
    return _print(document, output)


def policy(
    *, p: float, stay: float, cost: float, gamma: float, thr: int, quality: float, dimension: int, method: str,
    output: Format, to: Path | None,
) -> int:  # fmt: skip
    """The distance from which on a service should follow."""
    document = (
        _on_a_line(walk.Walk(p, stay, cost, gamma, thr, quality), method)
        if dimension == 1
        else _on_hexagons(plane.Plane(cost, gamma, thr, quality), method)
    )
    if to is not None:
        found = walk.thresholds(
            [each * (1 - stay) for each in SHARES], stay, cost, gamma=gamma, thr=thr, quality=quality
        )
        plot.curves(to, SHARES, {"threshold": found.tolist()}, ("outward share of the handovers", "distance"))
    return _print(document, output)


def _on_a_line(asked: walk.Walk, method: str) -> dict[str, Any]:
    if method == CLOSED:
        threshold = walk.threshold(asked)
    else:
        _solvable(asked.thr, MOST_ITERATED)
        solve = policy_iteration if method == BY_POLICY else value_iteration
        threshold = solve(walk.problem(asked)).threshold
    return {
        "dimension": 1,
        "method": method,
        "threshold": threshold,
        "p": asked.p,
        "stay": asked.stay,
        "cost": asked.cost,
        "gamma": asked.gamma,
        "thr": asked.thr,
        "quality": asked.quality,
    }


MOST_ITERATED = 2_000
"""Distances for which an iteration's matrices, thr x thr, fit into memory."""


def _solvable(thr: int, most: int) -> None:
    if thr > most:
        raise BadParameter(f"thr is {thr}: iterations take up to {most}; use the closed form")


def _on_hexagons(asked: plane.Plane, method: str) -> dict[str, Any]:
    method = BY_POLICY if method == CLOSED else method  # there is none on hexagons
    solve = policy_iteration if method == BY_POLICY else value_iteration
    found = plane.named(asked, solve(plane.problem(asked)))
    return {
        "dimension": 2,
        "method": method,
        "threshold": found.threshold,
        "corner_threshold": found.corner_threshold,
        "edge_threshold": found.edge_threshold,
        "cost": asked.cost,
        "gamma": asked.gamma,
        "thr": asked.thr,
        "quality": asked.quality,
    }


def tables(reconstruction: str, table: str, *, output: Format, to: Path | None) -> int:
    """One of the paper's tables by one of the reconstructions."""
    reconstruction, table = reconstruction.upper(), table.lower()
    found = fig14.table(reconstruction, table)
    differences = [{"p": p, "d": d} for p, d in found.differences]
    if to is not None:
        title = f"Fig. 14 ({table}), reconstruction {reconstruction}"
        plot.grid(to, found.cells, fig14.ROWS, fig14.COLUMNS, title)
    if output is Format.json:
        print_json(
            {
                "reconstruction": reconstruction,
                "table": table,
                "note": "a reconstruction: the paper's text gives no model that yields its tables",
                "first_migration": found.first_migration,
                "paper": list(fig14.PAPER[table]),
                "cells": found.cells,
                "equal_cells": sum(map(len, found.cells)) - len(differences),
                "differences": differences,
            }
        )
        return DONE
    rows = [[f"{p:g}", *row] for p, row in zip(fig14.ROWS, found.cells, strict=True)]
    print_table(["p", *(str(d) for d in fig14.COLUMNS)], rows)
    wrong = ", ".join(f"p {each['p']:g} d {each['d']}" for each in differences) or "none"
    print_text(f"reconstruction {reconstruction} of Fig. 14 ({table}); cells unlike the paper's: {wrong}")
    return DONE


def _print(document: dict[str, Any], output: Format, *, lists: str = "") -> int:
    if output is Format.json:
        print_json(document)
        return DONE
    print_table(["", "VALUE"], [[key, _shown(value)] for key, value in document.items() if not isinstance(value, list)])
    for key, values in document.items():
        if isinstance(values, list):
            print_text("")
            print_table([lists, key.upper()], [[str(index), _shown(value)] for index, value in enumerate(values)])
    return DONE


def _shown(value: object) -> str:
    """Tables show more digits than a page of status does."""
    return f"{value:.9g}" if isinstance(value, float) else "-" if value is None else str(value)
