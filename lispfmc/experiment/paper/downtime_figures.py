"""The pictures of part `fig16`: a figure for each case, one that compares the cases, and the sentences beside them.

What they say is reckoned from the points of the emulated machine and the moves of the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lispfmc.experiment.design import Point
from lispfmc.experiment.paper.downtime_real import RealMove
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Cell, Chart, Compared, Figure, Line, Table
from lispfmc.experiment.records import Record
from lispfmc.experiment.statistics import median
from lispfmc.experiment.ways import Ways

PAPERS, OURS = "fig9", "lossless"
CONTROLLER = "round-trip time controller - target data centre (ms)"
FEW = 3
"""Moves of a point: with less nothing is said of how a curve runs."""
SIMILAR = 0.2, 3.0
"""A share and milliseconds within which two downtimes are taken for the same."""


class Group(msgspec.Struct, frozen=True):
    """What the moves of one curve's point came to: medians, in milliseconds."""

    case: str
    scheme: str
    far_ms: float
    n: int
    added: float
    blackout: float
    gap: float
    low: float
    high: float
    lost: int
    formula: float
    """The papers' sequence of steps, each waiting for the one before (`lispfmc.experiment.prediction`)."""
    ways: Ways


def pictures(groups: Sequence[Group], real: Sequence[RealMove], null: Sequence[float]) -> list[Figure]:
    """A figure for each case, and one beside them when the papers' scheme was measured in both of the papers'."""
    cases = dict.fromkeys(group.case for group in groups)
    figures = [
        _figure(
            case, [each for each in groups if each.case == case], [each for each in real if each.case == case], null
        )
        for case in cases
    ]
    theirs = {each.case for each in groups if each.scheme == PAPERS}
    if theirs >= set(printed("fig16").cases):
        figures.append(_all_cases(groups))
    return figures


def tables(moves: Iterable[Record], groups: Sequence[Group], real: Sequence[RealMove]) -> list[Table]:
    """Every run, the points, and every move of the real machine."""
    found = [Table("fig16-runs", _COLUMNS, list(_rows(moves))), _summary(groups)]
    if real:
        rows: list[list[Cell]] = [list(msgspec.structs.astuple(each)) for each in real]
        found.append(Table("fig16-real", RealMove.__struct_fields__, rows))
    return found


def case_of(point: Point) -> str:
    """The controller's round-trip times to the routers of source and target, in this order."""
    return "{:g}-{:g}".format(*(point.datacenters_ms or (0.0, 0.0)))


def _all_cases(groups: Sequence[Group]) -> Figure:
    """In which case the papers' scheme is slowest."""
    stated, far = printed("fig16"), max(each.far_ms for each in groups)
    theirs = {each.case: each for each in groups if each.scheme == PAPERS and each.far_ms == far}
    mine = {case: each for case, each in theirs.items() if case in stated.cases}
    worst = max(mine.values(), key=lambda each: each.added)
    where = stated["largest_case"]
    same = worst.case == where
    by_delays = max(mine.values(), key=lambda each: each.ways.shortest)
    why = "; ".join(
        f"{case}: the delays alone give {each.ways.shortest:g} ms, the source's router hears {each.ways.name}"
        for case, each in mine.items()
    )
    if worst.case != by_delays.case:
        why += f"; what is measured is not in the order of the delays (n = {worst.n} and {by_delays.n})"
    row = Compared(
        f"the slower case at {far:g} ms (FMCC-xTR1, FMCC-xTR2)",
        f"{where}, {stated['largest_ms']:g} ms",
        f"{worst.case}, A {worst.added:.1f} ms",
        why,
    )
    chart = Chart(y_label="added downtime A (ms), median", bars={case: each.added for case, each in theirs.items()})
    sentence = f"The papers' largest downtime is in case {where}; here it is {'too' if same else f'in {worst.case}'}."
    return Figure("fig16-cases", f"{PAPERS} by case, at {far:g} ms", stated.source, chart, (row,), (sentence,))


def _figure(case: str, groups: Sequence[Group], real: Sequence[RealMove], null: Sequence[float]) -> Figure:
    stated = printed("fig16")
    curves = {
        scheme: [each for each in groups if each.scheme == scheme] for scheme in dict.fromkeys(g.scheme for g in groups)
    }
    lines = [_line(f"{scheme}: A, n = {_ns(mine)}", mine) for scheme, mine in _ours_first(curves).items()]
    if theirs := curves.get(PAPERS):
        lines.append(_computed("delays alone", theirs, [each.ways.shortest for each in theirs]))
        lines.append(_computed("each step after the other", theirs, [each.formula for each in theirs]))
    lines += _real_lines(real)
    papers = case in stated.cases
    if papers:
        ends = [min(each.far_ms for each in groups), max(each.far_ms for each in groups)]
        lines.append(Line("the papers' largest, of both cases", ends, [stated["largest_ms"]] * 2, "paper"))
    compared = [_largest(case, curves[PAPERS], papers=papers)] if PAPERS in curves else []
    compared += [_row(mine) for scheme, mine in curves.items() if scheme != PAPERS]
    compared += [_real_row(mine) for mine in _points_of(real)]
    sentences = _dominating(curves[PAPERS]) if PAPERS in curves else []
    sentences += [_flatness(mine) for mine in curves.values()]
    if null:
        sentences.append(f"The same pause without a move adds {median(null):.2f} ms (median of {len(null)}).")
    title = "Downtime, FMCC-xTR1 {} ms and FMCC-xTR2 {} ms".format(*case.split("-"))
    note = 'emulated "VM"' + ("; squares: real VM" if real else "")
    chart = Chart(CONTROLLER, "added downtime A (ms), median, 95 % interval", lines, note=note)
    return Figure(f"fig16-{case}", title, stated.source if papers else "ours", chart, compared, sentences)


def _ours_first(curves: Mapping[str, Sequence[Group]]) -> Mapping[str, Sequence[Group]]:
    return dict(sorted(curves.items(), key=lambda item: (item[0] != PAPERS, item[0] != OURS, item[0])))


def _ns(mine: Sequence[Group]) -> str:
    few, most = min(each.n for each in mine), max(each.n for each in mine)
    return f"{few}" if few == most else f"{few} to {most}"


def _points_of(real: Sequence[RealMove]) -> list[list[RealMove]]:
    found: dict[tuple[str, float], list[RealMove]] = {}
    for each in sorted(real, key=lambda each: (each.scheme, each.far_ms)):
        found.setdefault((each.scheme, each.far_ms), []).append(each)
    return list(found.values())


def _real_lines(real: Sequence[RealMove]) -> list[Line]:
    """Every move a square of its own: they are too few for an interval."""
    return [
        Line(f"{scheme}: A, real VM", [each.far_ms for each in mine], [each.added_ms for each in mine], "real")
        for scheme in dict.fromkeys(each.scheme for each in real)
        if (mine := [each for each in real if each.scheme == scheme])
    ]


def _real_row(mine: Sequence[RealMove]) -> Compared:
    added, blackout, gap, still = (
        median([getattr(each, name) for each in mine]) for name in ("added_ms", "blackout_ms", "gap_ms", "still_ms")
    )
    lost = sum(each.unanswered for each in mine)
    return Compared(
        f"{mine[0].scheme}, real VM, at {mine[0].far_ms:g} ms",
        "no printed values",
        f"A {added:.1f}, B {blackout:.1f}, D {gap:.1f} ms (median of {len(mine)}), {lost} echoes not answered",
        "B is QEMU's own pause; D is seen by echoes, so that it holds what the guest's processor takes to answer: "
        f"before it was stopped, it was silent for {still:.1f} ms at the longest (median)",
    )


def _line(label: str, mine: Sequence[Group]) -> Line:
    x, y = [each.far_ms for each in mine], [each.added for each in mine]
    return Line(label, x, y, low=[each.low for each in mine], high=[each.high for each in mine])


def _computed(label: str, mine: Sequence[Group], values: Sequence[float]) -> Line:
    return Line(f"{PAPERS}, {label}", [each.far_ms for each in mine], values, "computed")


def _largest(case: str, mine: Sequence[Group], *, papers: bool) -> Compared:
    stated, worst = printed("fig16"), max(mine, key=lambda each: each.added)
    explained = (
        f"the delays alone give {worst.ways.shortest:g} ms here; {worst.formula:g} ms if each step waited for the one "
        "before, as the papers' sequence can be read"
    )
    paper = "not in the papers"
    if papers:
        most, where = stated["largest_ms"], stated["largest_case"]
        paper = f"at most {most:g} ms in both cases, reached in case {where}; no values else"
        explained += "; the papers give neither their users' distances nor whether the pause is included"
    what = f"A {worst.added:.1f}, B {worst.blackout:.1f}, D {worst.gap:.1f} ms at {worst.far_ms:g} ms, n = {worst.n}"
    return Compared(f"{PAPERS}, the papers' scheme, largest, case {case}", paper, what, explained)


def _row(mine: Sequence[Group]) -> Compared:
    worst = max(mine, key=lambda each: each.added)
    return Compared(
        f"{worst.scheme}, largest",
        "not in the papers",
        f"A {worst.added:.1f}, B {worst.blackout:.1f}, D {worst.gap:.1f} ms at {worst.far_ms:g} ms, n = {worst.n}; "
        f"{sum(each.lost for each in mine)} packets lost in {sum(each.n for each in mine)} moves",
        "another scheme on the same network",
    )


def _dominating(mine: Sequence[Group]) -> list[str]:
    """Which way the papers' scheme waits for longest."""
    far = max(mine, key=lambda each: each.far_ms)
    ways = far.ways
    terms: Mapping[str, float] = {
        "the target's hypervisor to the controller": ways.heard,
        f"from there to the source's router {ways.name}": ways.told,
        "on to the user's router and to the target": ways.onward,
    }
    told = ", ".join(f"{name} {ms:g} ms" for name, ms in terms.items())
    longest = max(terms, key=lambda name: terms[name])
    return [
        f"At {far.far_ms:g} ms {PAPERS} waits for: {told}; the longest is {longest}. "
        f"Together {ways.shortest:g} ms; measured {far.added:.1f} ms, {far.added - ways.shortest:+.1f} ms against the "
        "delays alone.",
        f"By the delays, the source's router hears of the move {ways.name} first: {ways.told:g} ms, "
        f"against {max(ways.direct, ways.registered):g} ms the other way.",
        _target_waits(far),
    ]


def _target_waits(group: Group) -> str:
    way = group.ways.heard + group.ways.target
    what = f"The target's router hears from the controller {way:g} ms after the machine runs again"
    if group.added < way:
        return f"{what}; A is shorter, so nothing waits for that: it delivers to a machine that has announced itself."
    return f"{what}; A is not shorter, so this case does not show whether that is waited for."


def _flatness(mine: Sequence[Group]) -> str:
    near, far = min(mine, key=lambda each: each.far_ms), max(mine, key=lambda each: each.far_ms)
    lost = f"{sum(each.lost for each in mine)} packets lost; n = {_ns(mine)} a point"
    if far.far_ms == near.far_ms:
        return f"{near.scheme}: A {near.added:.1f} ms at {near.far_ms:g} ms, {lost}."
    if min(each.n for each in mine) < FEW:
        return f"{near.scheme}: A {near.added:.1f} ms at {near.far_ms:g} ms, {far.added:.1f} at {far.far_ms:g}; {lost}."
    grows = far.added - near.added
    slope = grows / (far.far_ms - near.far_ms)
    if _similar(far.added, near.added):
        what = f"does not depend on it: A {near.added:.1f} ms at {near.far_ms:g} ms, {far.added:.1f} at {far.far_ms:g}"
    else:
        what = (
            f"{'rises' if grows > 0 else 'falls'} by {abs(slope):.2f} ms a millisecond, from {near.added:.1f} to "
            f"{far.added:.1f} ms"
        )
    return f"{near.scheme} {what}; {lost}."


def _similar(one: float, other: float) -> bool:
    share, absolute = SIMILAR
    return abs(one - other) <= share * min(abs(one), abs(other)) + absolute


_MEASURED = ("added_ms", "blackout_ms", "gap_ms", "lost", "duplicated", "reordered")
_CASE = ("case", "fmcc_source_router_ms", "fmcc_target_router_ms", "fmcc_target_datacenter_ms")
_COLUMNS = ("run", "scheme", *_CASE, "from", "to", *_MEASURED, "attempt", "load_1m")


def _rows(moves: Iterable[Record]) -> Iterable[list[Cell]]:
    for record in moves:
        figures, point, case = record.figures, record.planned.point, case_of(record.planned.point)
        assert figures is not None
        source, target = map(float, case.split("-"))
        moved = [getattr(figures, name) for name in _MEASURED]
        case_ms: list[Cell] = [case, source, target, point.hypervisors_ms]
        places: list[Cell] = [record.origin, record.target]
        yield [record.planned.number, point.scheme, *case_ms, *places, *moved, record.attempt, record.load_1m]


def _summary(groups: Sequence[Group]) -> Table:
    plain = [name for name in Group.__struct_fields__ if name != "ways"]
    columns = (*plain, *(f"way_{name}" for name in Ways.__struct_fields__))
    rows = [[*(getattr(each, name) for name in plain), *msgspec.structs.astuple(each.ways)] for each in groups]
    return Table("fig16", columns, rows)
