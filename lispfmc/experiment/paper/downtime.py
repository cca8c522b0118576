"""Part `fig16`: downtime against the controller's distance to the target data centre, by the harness of moves.

The papers fix the distances of the controller to both tunnel routers (two cases) and sweep the one to the target data
centre. Here the agents' HTTP gets that delay of its own, the routers keep the case's, whichever way the service goes.
The curves are an emulated machine's, many moves a point; a few points of two curves are a real one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lispfmc.experiment.design import SCHEMES, Design, Kind, Session
from lispfmc.experiment.network import rtts_at, rtts_ms, topology_of
from lispfmc.experiment.paper.downtime_figures import OURS, PAPERS, Group, case_of, pictures, tables
from lispfmc.experiment.paper.downtime_real import RealMove, real_moves
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Result
from lispfmc.experiment.paper.work import Telling, Work, machines
from lispfmc.experiment.prediction import fig9
from lispfmc.experiment.records import Folder, Record
from lispfmc.experiment.report import EMULATED
from lispfmc.experiment.running import carry_out
from lispfmc.experiment.statistics import interval, median
from lispfmc.experiment.ways import ways
from lispfmc.wire.errors import LocalError

CASES = tuple(printed("fig16").cases.values())
RUNS, OTHER_RUNS, QUICK_RUNS, QUICK_OTHER_RUNS = 10, 3, 2, 1
FAR_MS, OTHER_FAR_MS, QUICK_FAR_MS = (1.0, 25.0, 50.0, 75.0, 100.0), (1.0, 100.0), (10.0, 100.0)
REAL_FAR_MS, REAL_RUNS = (10.0, 100.0), 3
RUN_S, OTHER_RUN_S, REAL_RUN_S, LAB_S, REAL_LAB_S = 1.9, 4.1, 8.5, 7.0, 25.0
"""What a run, and a lab, takes on two quiet cores."""


class Bar:
    """The harness's progress, told on; `steps` counts all designs."""

    def __init__(self, tell: Telling) -> None:
        self._tell = tell

    def begin(self, there: int, total: int) -> None:
        for _ in range(there):
            self._tell.step()

    def session(self, session: Session, blocks: int) -> None:
        self._tell.say(f"block {session.block + 1} of {blocks}, {session.scheme}: {len(session.runs)} runs")

    def done(self, record: Record) -> None:
        self._tell.step(record.planned.point.scheme)

    def say(self, text: str) -> None:
        self._tell.say(text)


def designs(*, quick: bool, seed: int) -> tuple[Design, ...]:
    """Both cases at each distance: the papers' scheme and ours often, the others a few times."""
    ours = Design(
        schemes=(PAPERS, OURS),
        fmcc_rtts_ms=(10.0,),
        losses=(),
        runs=QUICK_RUNS if quick else RUNS,
        null_runs=4 if quick else 20,
        cases_ms=CASES,
        case_hypervisors_ms=QUICK_FAR_MS if quick else FAR_MS,
        seed=seed,
    )
    others = Design(
        schemes=tuple(scheme for scheme in SCHEMES if scheme not in (PAPERS, OURS)),
        fmcc_rtts_ms=(10.0,),
        losses=(),
        runs=QUICK_OTHER_RUNS if quick else OTHER_RUNS,
        null_runs=0,
        cases_ms=CASES,
        case_hypervisors_ms=QUICK_FAR_MS if quick else OTHER_FAR_MS,
        seed=seed,
    )
    return ours.checked(), others.checked()


def seconds(*, quick: bool) -> float:
    """How long the part takes on two quiet cores."""
    ours, others = (each.sessions() for each in designs(quick=quick, seed=1))
    runs = RUN_S * sum(len(each.runs) for each in ours) + OTHER_RUN_S * sum(len(each.runs) for each in others)
    real = 0.0 if quick else 2 * REAL_LAB_S + 2 * len(CASES) * len(REAL_FAR_MS) * REAL_RUNS * REAL_RUN_S
    return runs + LAB_S * (len(ours) + len(others)) + real


def make(work: Work) -> Result:
    return measured(work, designs(quick=work.quick, seed=work.settings.seed))


def measured(work: Work, asked: Sequence[Design]) -> Result:
    """The part with designs of its own."""
    runs = sum(len(session.runs) for design in asked for session in design.sessions())
    work.tell.steps(runs + (0 if work.quick else 2 * len(CASES) * len(REAL_FAR_MS) * REAL_RUNS))
    records, groups = [], []
    for at, design in enumerate(asked):
        mine = carry_out(design, Folder(work.folder / f"moves-{at + 1}"), Bar(work.tell))
        groups += _groups(design, _moves(mine))
        records += mine
    cannot = [f"Run of {each.planned.point.scheme}: {each.outcome}" for each in records if each.figures is None]
    real = _real(work, cannot)
    null = [each.figures.added_ms for each in records if each.planned.point.kind is Kind.NULL and each.figures]
    return Result(
        part="fig16",
        title="Downtime against the controller's distance to the target data centre (A Fig. 6, B Fig. 16)",
        made_by=(
            EMULATED,
            "B is how long the machine did not run, D the longest silence at a receiver, A = D - B what the network "
            "added. The papers do not say whether their downtime holds the hypervisor's pause: A is what "
            "compares with it.",
        ),
        figures=pictures(groups, real, null),
        tables=tables(_moves(records), groups, real),
        cannot=cannot,
    )


def _real(work: Work, cannot: list[str]) -> list[RealMove]:
    """A real machine's moves; none in a quick run, or where there is no QEMU."""
    if work.quick:
        cannot.append("The quick run has no real machine here: its points need the full run.")
        return []
    if (why := machines()) is not None:
        cannot.append(f"No real machine: {why}")
        return []
    try:
        return real_moves(work, (PAPERS, OURS), CASES, REAL_FAR_MS, REAL_RUNS)
    except LocalError as error:
        cannot.append(f"The real machine: {error}")
        return []


def _moves(records: Iterable[Record]) -> list[Record]:
    return [each for each in records if each.figures is not None and each.planned.point.hypervisors_ms is not None]


def _groups(asked: Design, moves: Iterable[Record]) -> list[Group]:
    values = topology_of(asked, asked.schemes[0])
    base, access = rtts_ms(values), values["users"][0]["start"]
    found: dict[tuple[str, str, float], list[Record]] = {}
    for record in moves:
        far = record.planned.point.hypervisors_ms
        assert far is not None
        found.setdefault((case_of(record.planned.point), record.planned.point.scheme, far), []).append(record)
    return [
        _group(case, scheme, far, mine, rtts_at(base, mine[0].planned.point, mine[0].origin), access, asked.seed)
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
    delays = ways(rtts, mine[0].origin, mine[0].target, access, far)
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
        formula=fig9(delays),
        ways=delays,
    )
