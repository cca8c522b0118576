"""Part `fig16`: downtime against the controller's distance to the target data centre, by the harness of moves.

The papers fix the distances of the controller to both tunnel routers (two cases) and sweep the one to the target data
centre. Here the agents' HTTP gets that delay of its own, the routers keep the case's. A service goes there and back;
the moves back have source and target swapped, and count as a case of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lispfmc.experiment.design import SCHEMES, Design, Kind, Session
from lispfmc.experiment.network import Delays, rtts_at, rtts_ms, topology_of
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Cell, Chart, Compared, Figure, Line, Result, Table
from lispfmc.experiment.paper.work import Telling, Work
from lispfmc.experiment.prediction import fig9
from lispfmc.experiment.records import Folder, Record
from lispfmc.experiment.report import EMULATED
from lispfmc.experiment.running import carry_out
from lispfmc.experiment.statistics import interval, median
from lispfmc.lab.topology import FMCC, MAPSERVER

PAPERS, OURS = "fig9", "lossless"
CASES = tuple(printed("fig16").cases.values())
RUNS, QUICK_RUNS = 20, 2
FAR_MS, QUICK_FAR_MS = (1.0, 10.0, 25.0, 50.0, 75.0, 100.0), (10.0, 100.0)
CONTROLLER = "round-trip time controller - target data centre (ms)"
SIMILAR = 0.2, 3.0
"""A share and milliseconds within which two downtimes are taken for the same."""


class Ways(msgspec.Struct, frozen=True):
    """One-way delays of the papers' scheme, milliseconds. The source's router is told by the controller; or by the
    Map-Server, when the target's router has been told and has registered: what comes first counts."""

    heard: float
    direct: float
    registered: float
    onward: float
    target: float

    @property
    def told(self) -> float:
        return min(self.direct, self.registered)

    @property
    def name(self) -> str:
        return "by the controller" if self.direct <= self.registered else "by the target's registration"

    @property
    def shortest(self) -> float:
        """What the delays alone make of it."""
        return round(self.heard + self.told + self.onward, 3)


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


class Bar:
    """The harness's progress, told on."""

    def __init__(self, tell: Telling) -> None:
        self._tell = tell

    def begin(self, there: int, total: int) -> None:
        self._tell.steps(total)
        for _ in range(there):
            self._tell.step()

    def session(self, session: Session, blocks: int) -> None:
        self._tell.say(f"block {session.block + 1} of {blocks}, {session.scheme}: {len(session.runs)} runs")

    def done(self, record: Record) -> None:
        self._tell.step(record.planned.point.scheme)

    def say(self, text: str) -> None:
        self._tell.say(text)


def design(*, quick: bool, seed: int) -> Design:
    """Both cases, at each distance of the hypervisors, by every scheme."""
    return Design(
        schemes=SCHEMES,
        fmcc_rtts_ms=(10.0,),
        losses=(),
        runs=QUICK_RUNS if quick else RUNS,
        null_runs=len(SCHEMES) if quick else 40,
        cases_ms=CASES,
        case_runs=QUICK_RUNS if quick else RUNS,
        case_hypervisors_ms=QUICK_FAR_MS if quick else FAR_MS,
        seed=seed,
    ).checked()


def make(work: Work) -> Result:
    return measured(work, design(quick=work.quick, seed=work.settings.seed))


def measured(work: Work, asked: Design) -> Result:
    """The part with a design of its own."""
    records = carry_out(asked, Folder(work.folder / "moves"), Bar(work.tell))
    moves = [each for each in records if each.figures is not None and each.planned.point.hypervisors_ms is not None]
    groups = _groups(asked, moves)
    failed = [f"Run {each.planned.number}: {each.outcome}" for each in records if each.figures is None]
    null = [each.figures.added_ms for each in records if each.planned.point.kind is Kind.NULL and each.figures]
    cases = dict.fromkeys(group.case for group in groups)
    figures = [_figure(case, [each for each in groups if each.case == case], asked, null) for case in cases]
    if any(each.scheme == PAPERS and each.case in printed("fig16").cases for each in groups):
        figures.append(_all_cases(groups))
    return Result(
        part="fig16",
        title="Downtime against the controller's distance to the target data centre (A Fig. 6, B Fig. 16)",
        made_by=(
            EMULATED,
            "B is how long the machine did not run, D the longest silence at a receiver, A = D - B what the network "
            "added. The papers do not say whether their downtime holds the hypervisor's pause: A is what "
            "compares with it.",
        ),
        figures=figures,
        tables=[Table("fig16-runs", _COLUMNS, list(_rows(moves))), _summary(groups)],
        cannot=failed,
    )


def _groups(asked: Design, moves: Iterable[Record]) -> list[Group]:
    values = topology_of(asked, asked.schemes[0])
    base, access = rtts_ms(values), values["users"][0]["start"]
    found: dict[tuple[str, str, float], list[Record]] = {}
    for record in moves:
        far = record.planned.point.hypervisors_ms
        assert far is not None
        found.setdefault((_case(record), record.planned.point.scheme, far), []).append(record)
    return [
        _group(case, scheme, far, mine, rtts_at(base, mine[0].planned.point), access, asked.seed)
        for (case, scheme, far), mine in sorted(found.items())
    ]


def _group(
    case: str,
    scheme: str,
    far: float,
    mine: Sequence[Record],
    rtts: Mapping[frozenset[str], float],
    access: str,
    seed: int,
) -> Group:
    source, target = mine[0].origin, mine[0].target
    added, blackout, gap = (
        [getattr(each.figures, name) for each in mine] for name in ("added_ms", "blackout_ms", "gap_ms")
    )
    between = interval(added, 0.5, seed)
    lost = sum(each.lost for record in mine if record.figures for each in record.figures.directions.values())
    return Group(
        case=case,
        scheme=scheme,
        far_ms=far,
        n=len(mine),
        added=round(median(added), 3),
        blackout=round(median(blackout), 3),
        gap=round(median(gap), 3),
        low=between.low,
        high=between.high,
        lost=lost,
        formula=fig9(rtts, source, target, access, far),
        ways=_ways(rtts, source, target, access, far),
    )


def _ways(rtts: Mapping[frozenset[str], float], source: str, target: str, access: str, far: float) -> Ways:
    d = Delays(rtts).between
    return Ways(
        heard=far / 2,
        direct=d(FMCC, source),
        registered=d(FMCC, target) + d(target, MAPSERVER) + d(MAPSERVER, source),
        onward=d(source, access) + d(access, target),
        target=d(FMCC, target),
    )


def _case(record: Record) -> str:
    """The controller's round-trip times to the routers of source and target, in this order."""
    one, other = record.planned.point.datacenters_ms or (0.0, 0.0)
    source, target = (one, other) if record.origin == "dc1" else (other, one)
    return f"{source:g}-{target:g}"


def _all_cases(groups: Sequence[Group]) -> Figure:
    """In which case the papers' scheme is slowest."""
    stated, far = printed("fig16"), max(each.far_ms for each in groups)
    theirs = {each.case: each for each in groups if each.scheme == PAPERS and each.far_ms == far}
    mine = {case: each for case, each in theirs.items() if case in stated.cases}
    worst = max(mine.values(), key=lambda each: each.added)
    where = stated["largest_case"]
    same = worst.case == where
    by_delays = max(mine.values(), key=lambda each: each.ways.shortest)
    why = (
        f"by the delays alone it is {by_delays.case} ({by_delays.ways.shortest:g} ms): in the other, the registration "
        "passes a controller's word that has a long way"
    )
    if not same:
        why += "; medians of few runs on a busy machine may be out of order"
    row = Compared(
        f"the slower case at {far:g} ms (FMCC-xTR1, FMCC-xTR2)",
        f"{where}, {stated['largest_ms']:g} ms",
        f"{worst.case}, A {worst.added:.1f} ms",
        why,
    )
    chart = Chart(y_label="added downtime A (ms), median", bars={case: each.added for case, each in theirs.items()})
    sentence = f"The papers' largest downtime is in case {where}; here it is {'too' if same else f'in {worst.case}'}."
    return Figure("fig16-cases", f"{PAPERS} by case, at {far:g} ms", stated.source, chart, (row,), (sentence,))


def _figure(case: str, groups: Sequence[Group], asked: Design, null: Sequence[float]) -> Figure:
    stated = printed("fig16")
    schemes = [scheme for scheme in asked.schemes if any(each.scheme == scheme for each in groups)]
    curves = {scheme: [each for each in groups if each.scheme == scheme] for scheme in schemes}
    lines = [_line(f"{scheme}: A", mine) for scheme, mine in curves.items()]
    if theirs := curves.get(PAPERS):
        lines.append(_computed("delays alone", theirs, [each.ways.shortest for each in theirs]))
        lines.append(_computed("each step after the other", theirs, [each.formula for each in theirs]))
    papers = case in stated.cases
    compared = [_largest(case, curves[PAPERS], papers=papers)] if PAPERS in curves else []
    compared += [_row(mine) for scheme, mine in curves.items() if scheme != PAPERS]
    sentences = _dominating(curves[PAPERS]) if PAPERS in curves else []
    sentences += [_flatness(mine) for mine in curves.values()]
    if null:
        sentences.append(f"The same pause without a move adds {median(null):.2f} ms (median of {len(null)}).")
    origin = stated.source if papers else f"ours: the way back of {'-'.join(reversed(case.split('-')))}"
    title = "Downtime, FMCC-xTR1 {} ms and FMCC-xTR2 {} ms".format(*case.split("-"))
    chart = Chart(CONTROLLER, "added downtime A (ms), median", lines, note='emulated "VM"')
    return Figure(f"fig16-{case}", title, origin, chart, compared, sentences)


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
        f"A {worst.added:.1f}, B {worst.blackout:.1f}, D {worst.gap:.1f} ms at {worst.far_ms:g} ms, "
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
    few, most = min(each.n for each in mine), max(each.n for each in mine)
    lost = f"{sum(each.lost for each in mine)} packets lost; n = {few if few == most else f'{few} to {most}'} a point"
    if far.far_ms == near.far_ms:
        return f"{near.scheme}: A {near.added:.1f} ms at {near.far_ms:g} ms, {lost}."
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
        figures, point, case = record.figures, record.planned.point, _case(record)
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
