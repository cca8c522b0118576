"""Part `model`: the journal paper's Figs 10-13 from its Markov chain, and Fig. 14's tables by two reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fmcc.policy.models import ctmc, disruption, fig14
from lispfmc.experiment.paper.printed import NO_VALUES, Printed, printed
from lispfmc.experiment.paper.result import Cell, Chart, Compared, Figure, Grid, Line, Result, Table
from lispfmc.experiment.paper.work import Work

MOST_RINGS = 10
FULL_RINGS, QUICK_RINGS = 10, 7
"""Up to where the chain over classes is held against the one over single cells."""
NO_FMC = 7
"""The paper's k that stands for no Follow-Me Cloud."""
SHARES = (1.0, 0.5, 0.1)
TWO_HOPS = 2.0
AGREES = 0.2
RINGS = "k, the ring at which the service moves"
MODEL = "a model, nothing is measured"


def make(work: Work) -> Result:
    work.tell.steps(2)
    positions = ctmc.by_rings(MOST_RINGS)
    checked = QUICK_RINGS if work.quick else FULL_RINGS
    apart = max(_apart(positions[k - 1], ctmc.full(k)) for k in range(1, checked + 1))
    work.tell.step("Figs 10-13")
    figures = [_pi0(positions, apart, checked), _distance(positions), _latency(positions), _cost(positions), _sdt()]
    tables = [_table(positions)]
    for name in fig14.PAPER:
        for reconstruction in fig14.MODELS:
            found = fig14.table(reconstruction, name)
            figures.append(_policy(found))
            rows: list[tuple[Cell, ...]] = [(p, *row) for p, row in zip(fig14.ROWS, found.cells, strict=True)]
            columns = ("p", *(f"d{d}" for d in fig14.COLUMNS))
            tables.append(Table(f"fig14-{name}-{reconstruction}", columns, rows))
    work.tell.step("Fig. 14")
    return Result(
        part="model",
        title="Model and policy tables (B, Figs 10-14)",
        made_by=(
            "Computed from the paper's equations, nothing is measured. Fig. 14's tables are reconstructions: the text "
            "of the paper gives no model that yields them.",
        ),
        figures=figures,
        tables=tables,
    )


def _apart(one: ctmc.Position, other: ctmc.Position) -> float:
    """The largest difference between two ways to compute the same."""
    return max(abs(one.probability[state] - other.probability[state]) for state in one.probability)


def _pi0(positions: Sequence[ctmc.Position], apart: float, checked: int) -> Figure:
    values = [each.pi0 for each in positions]
    row = _statement(printed("pi0"), "its probability", _trend(values, rising=False))
    check = (
        f"The chain over classes of cells and the chain over single cells differ by at most {apart:.1e} "
        f"for k = 1 to {checked}."
    )
    sentence = f"The probability is {values[1]:.3f} at k = 2 and {values[NO_FMC - 1]:.3f} at k = {NO_FMC}."
    return _figure("model-pi0", "Probability of the optimal data centre", "pi0", values, "pi_0", [row], sentence, check)


def _distance(positions: Sequence[ctmc.Position]) -> Figure:
    values = [each.mean_distance for each in positions]
    beyond = next(each.rings for each in positions if each.mean_distance > TWO_HOPS)
    stated = printed("distance")
    why = "both hold: the text's bound is loose" if beyond < NO_FMC else "they agree"
    passes = f"{_trend(values, rising=True)}; exceeds two hops from k = {beyond} on"
    row = Compared("mean distance", stated.stated, passes, why)
    sentence = f"The mean distance passes two hops at k = {beyond}, and is {values[NO_FMC - 1]:.2f} at k = {NO_FMC}."
    return _figure("model-distance", "Mean distance to the service", "distance", values, "hops", [row], sentence)


def _latency(positions: Sequence[ctmc.Position]) -> Figure:
    values = [each.mean_delay_s for each in positions]
    stated, difference = printed("latency"), values[NO_FMC - 1] - values[1]
    about = stated["difference_s"]
    close = abs(difference - about) <= AGREES * about
    row = Compared(
        f"latency at k = {NO_FMC} less that at k = 2",
        f"about {about * 1000:.0f} ms (read off by the authors; {NO_VALUES} of the curve)",
        f"{difference * 1000:.1f} ms",
        "the text says 'about'" if close else "not explained by the text's rounding",
    )
    sentence = f"Between k = 2 and k = {NO_FMC} the mean latency grows by {difference * 1000:.1f} ms."
    return _figure("model-latency", "Mean latency, .02 i^2 s", "latency", values, "seconds", [row], sentence)


def _cost(positions: Sequence[ctmc.Position]) -> Figure:
    rings = [each.rings for each in positions]
    lines = [
        Line(
            f"{share:.0%} of 1 Gb", rings, [each.cost(ctmc.OBJECT_BITS * share) / 1e6 for each in positions], "computed"
        )
        for share in SHARES
    ]
    falling = all(_falls(line.y) for line in lines)
    stated = printed("cost")
    row = _statement(stated, "cost", "it falls with k at each share" if falling else "it does not fall at each share")
    one = Compared(
        "k = 1",
        "eq. (10) would give 0.5 migrations a handover",
        f"{positions[0].migrations_per_handover:g} migrations a handover",
        "a service that moves at ring 1 moves at every handover",
    )
    half, tenth = (lines[0].y[1] / lines[at].y[1] for at in (1, 2))
    sentence = f"The cost is proportional to what is copied: half of it costs 1/{half:g}, a tenth 1/{tenth:g}."
    chart = Chart(RINGS, "Mb copied for each handover", lines, note=MODEL)
    return Figure("model-cost", "Cost of migrations", stated.source, chart, (row, one), (sentence,))


def _sdt() -> Figure:
    rings = list(range(1, MOST_RINGS + 1))
    lines = [
        Line(f"{share:.0%} of 1 Gb", rings, [_disruption(share, k) for k in rings], "computed") for share in SHARES
    ]
    rising = all(_falls(line.y[::-1]) for line in lines)
    stated = printed("sdt")
    row = _statement(stated, "disruption", "it rises with k" if rising else "it does not always rise with k")
    sentence = (
        f"Copying all of 1 Gb disturbs for {lines[0].y[1]:.2f} s at k = 2 and {lines[0].y[4]:.2f} s at k = 5. "
        f"Segment size ({disruption.MSS_BYTES} B) and window ({disruption.WINDOW_SEGMENTS} segments) are ours: the "
        "paper gives neither."
    )
    chart = Chart(RINGS, "seconds", lines, log_y=True, note=MODEL)
    return Figure("model-sdt", "Service disruption time, eq. (11)", stated.source, chart, (row,), (sentence,))


def _disruption(share: float, rings: int) -> float:
    return disruption.disruption_s(ctmc.OBJECT_BITS * share, disruption.rtt_s(rings))


def _policy(found: fig14.Table) -> Figure:
    cells = sum(map(len, found.cells))
    wrong = len(found.differences)
    where = ", ".join(f"p {p:g} d {d}" for p, d in found.differences) or "none"
    title = f"Policy table ({found.table}), tau = {fig14.TAU[found.table]:g}, reconstruction {found.reconstruction}"
    row = Compared(
        "first d that says M, p = .1 to 1 (11: never)",
        " ".join(map(str, fig14.PAPER[found.table])),
        " ".join(map(str, found.first_migration)),
        "every cell agrees; the model is a reconstruction" if not wrong else f"a reconstruction; other cells: {where}",
    )
    grid = Grid([f"{p:g}" for p in fig14.ROWS], [str(d) for d in fig14.COLUMNS], found.cells, "p", "d")
    sentence = f"Reconstruction {found.reconstruction} gives {cells - wrong} of {cells} cells as printed."
    return Figure(
        f"fig14-{found.table}-{found.reconstruction}",
        title,
        printed("fig14").source,
        Chart(grid=grid, note="a reconstruction"),
        (row,),
        (sentence,),
    )


def _figure(
    name: str, title: str, key: str, values: list[float], label: str, rows: list[Compared], *sentences: str
) -> Figure:
    chart = Chart(RINGS, label, [Line(title, list(range(1, MOST_RINGS + 1)), values, "computed")], note=MODEL)
    return Figure(name, title, printed(key).source, chart, rows, sentences)


def _statement(stated: Printed, quantity: str, found: str) -> Compared:
    return Compared(quantity, stated.stated, found, "only the statement can be compared: the figure has no values")


def _trend(values: Sequence[float], *, rising: bool) -> str:
    monotonous = _falls(list(values)[::-1] if rising else values)
    return f"{'rises' if rising else 'falls'} with k" if monotonous else "is not monotonous in k"


def _falls(values: Sequence[float]) -> bool:
    return all(one > other for one, other in pairwise(values))


def _table(positions: Sequence[ctmc.Position]) -> Table:
    columns = ("k", "pi0", "mean_distance", "mean_delay_s", "migrations_per_handover")
    costs = tuple(f"{name}_{share:.0%}" for name in ("cost_bits", "sdt_s") for share in SHARES)
    rows = [
        (
            each.rings,
            each.pi0,
            each.mean_distance,
            each.mean_delay_s,
            each.migrations_per_handover,
            *(each.cost(ctmc.OBJECT_BITS * share) for share in SHARES),
            *(_disruption(share, each.rings) for share in SHARES),
        )
        for each in positions
    ]
    return Table("model", columns + costs, rows)
