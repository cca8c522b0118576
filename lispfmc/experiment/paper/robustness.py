"""Part `robustness`: what the papers do not show. Control loss, a killed controller, crowds, IPv6, both data planes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from lispfmc.experiment.design import Design
from lispfmc.experiment.paper.clients import Crowd, with_clients
from lispfmc.experiment.paper.downtime_figures import OURS, PAPERS
from lispfmc.experiment.paper.killing import PHASES, Killed, killed_at
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Cell, Chart, Compared, Figure, Line, Result, Table
from lispfmc.experiment.paper.work import Work
from lispfmc.experiment.records import Folder, Record
from lispfmc.experiment.report import EMULATED
from lispfmc.experiment.running import carry_out
from lispfmc.experiment.statistics import median, quantile
from lispfmc.lab.analysis import MoveFigures
from lispfmc.lab.topology import FMCC
from lispfmc.wire.errors import LocalError

LOSSES, QUICK_LOSSES = (0.0, 1.0, 5.0, 20.0), (0.0, 20.0)
CROWDS, QUICK_CROWDS = ((10, 0), (100, 0), (100, 8), (200, 8)), ((20, 0), (20, 8))
"""Services that are asked to move at once, and how many are under way at a time. 0: all; 200 are more than
two cores can stop and resume at once, their hypervisors do not answer one another in time."""
RTT_MS = 50.0
RUNS, QUICK_RUNS = 10, 2
NOT_SHOWN = "the papers show nothing of this"
CLIENTS, QUICK_CLIENTS = ((1, 1), (10, 1), (100, 1), (1000, 1), (1000, 4)), ((1, 1), (100, 1))
"""Clients, and the access networks that all but the first of them are behind."""
CLIENT_MOVES, QUICK_CLIENT_MOVES = 6, 2


class Row(msgspec.Struct, frozen=True):
    """The moves of one setting, together. Milliseconds; `n` counts moves."""

    what: str
    setting: str
    scheme: str
    n: int
    added_p50: float
    added_p95: float
    lost: int


class _Quiet:
    """The harness's progress: the part counts its own steps."""

    def begin(self, there: int, total: int) -> None: ...

    def session(self, session: object, blocks: int) -> None: ...

    def done(self, record: Record) -> None: ...

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say


def make(work: Work) -> Result:
    runs = QUICK_RUNS if work.quick else RUNS
    base = Design(
        schemes=(OURS,), fmcc_rtts_ms=(RTT_MS,), runs=runs, null_runs=0, seed=work.settings.seed, interval_us=500
    )
    crowds = QUICK_CROWDS if work.quick else CROWDS
    clients = QUICK_CLIENTS if work.quick else CLIENTS
    phases = PHASES[2:3] if work.quick else PHASES
    work.tell.steps(4 + len(crowds) + len(clients) + len(phases))
    cannot: list[str] = []
    lossy = _tried(
        work,
        cannot,
        "loss",
        msgspec.structs.replace(base, schemes=(OURS, PAPERS), losses=QUICK_LOSSES if work.quick else LOSSES),
    )
    other = [
        *_tried(work, cannot, "plane tun", msgspec.structs.replace(base, plane="tun")),
        *_tried(work, cannot, "plane ebpf", msgspec.structs.replace(base, plane="ebpf")),
        *_tried(work, cannot, "IPv6", msgspec.structs.replace(base, ip=6)),
    ]
    many: list[Row] = []
    for services, at_once in crowds:
        rounds = 1 if work.quick else 3
        crowd = msgspec.structs.replace(
            base, losses=(), services=services, service_rounds=rounds, at_once=at_once, all_at_once=not at_once
        )
        what = f"{services} at once" + (f", {at_once} under way at a time" if at_once else "")
        many += _tried(work, cannot, what, crowd)
    crowded = _crowded(work, cannot, clients)
    killed = _killed(work, cannot, phases)
    figures = [_losses(lossy), _others("robustness-planes", "Data planes and IPv6", other)]
    figures += [_others("robustness-crowds", "Simultaneous moves", many), _clients(crowded), _deaths(killed)]
    return Result(
        part="robustness",
        title="Robustness: figures that the papers do not have",
        made_by=(
            EMULATED,
            f"The controller is {RTT_MS:g} ms away. Losses hit the control plane alone, so that a lost probe is one "
            "that the move lost. A is what the network added to the machine's pause.",
        ),
        figures=[each for each in figures if each.compared],
        tables=[_table([*lossy, *other, *many]), _killed_table(killed), _clients_table(crowded)],
        cannot=cannot,
    )


def _tried(work: Work, cannot: list[str], what: str, design: Design) -> list[Row]:
    """Nothing, and why in `cannot`, when this machine cannot do it."""
    try:
        folder = Folder(work.folder / what.replace(",", "").replace(" ", "-"))
        records = carry_out(design.checked(), folder, _Quiet(work.tell.say))
    except LocalError as error:
        cannot.append(f"{what}: {error}")
        return []
    finally:
        work.tell.step(what)
    cannot += [f"{what}, run {each.planned.number}: {each.outcome}" for each in records if not _moves([each])]
    return _rows(what, records)


def _rows(what: str, records: Iterable[Record]) -> list[Row]:
    groups: dict[tuple[str, float], list[Record]] = {}
    for record in records:
        point = record.planned.point
        groups.setdefault((point.scheme, point.control_loss), []).append(record)
    rows = []
    for (scheme, loss), mine in sorted(groups.items()):
        moves = _moves(mine)
        if moves:
            added = [each.added_ms for each in moves]
            lost = sum(each.lost for move in moves for each in move.directions.values())
            median_ms, high = round(median(added), 3), quantile(added, 0.95)
            rows.append(Row(what, f"{loss:g} %", scheme, len(moves), median_ms, high, lost))
    return rows


def _moves(records: Iterable[Record]) -> list[MoveFigures]:
    return [
        move
        for record in records
        for move in ([record.figures] if record.figures is not None else list(record.services.values()))
    ]


def _crowded(work: Work, cannot: list[str], settings: Sequence[tuple[int, int]]) -> list[Crowd]:
    found, moves = [], QUICK_CLIENT_MOVES if work.quick else CLIENT_MOVES
    for clients, networks in settings:
        try:
            found.append(with_clients(work, OURS, clients, networks, moves, RTT_MS))
        except LocalError as error:
            cannot.append(f"{clients} clients: {error}")
        work.tell.step(f"{clients} clients")
    return found


def _killed(work: Work, cannot: list[str], phases: Sequence[str]) -> list[Killed]:
    found = []
    for phase in phases:
        try:
            found.append(killed_at(work, OURS, phase))
        except LocalError as error:
            cannot.append(f"{FMCC} killed at {phase!r}: {error}")
        work.tell.step(f"killed at {phase}")
    return found


def _losses(rows: Sequence[Row]) -> Figure:
    lines, sentences = [], []
    for scheme in dict.fromkeys(row.scheme for row in rows):
        mine = sorted((row for row in rows if row.scheme == scheme), key=_share)
        lines.append(Line(scheme, [_share(row) for row in mine], [row.added_p50 for row in mine]))
        low, high = min(row.added_p50 for row in mine), max(row.added_p50 for row in mine)
        lost = sum(row.lost for row in mine)
        sentences.append(
            f"{scheme}: medians of A from {low:.1f} to {high:.1f} ms over all losses, {lost} packets lost."
        )
    chart = Chart("control packets lost (%)", "added downtime A (ms), median", lines, note='emulated "VM"')
    compared = [_compared(f"{row.scheme}, {row.setting} control loss", row) for row in rows]
    return Figure(
        "robustness-loss", "Control packets are lost", printed("robustness").source, chart, compared, sentences
    )


def _share(row: Row) -> float:
    return float(row.setting.split()[0])


def _others(name: str, title: str, rows: Sequence[Row]) -> Figure:
    sentences = [
        f"{row.what}: A {row.added_p50:.1f} ms (median), {row.added_p95:.1f} (95th percentile), {row.lost} packets "
        f"lost in {row.n} moves."
        for row in rows
    ]
    compared = [_compared(f"{row.what}, {row.scheme}", row) for row in rows]
    bars = {row.what: row.added_p50 for row in rows}
    chart = Chart(y_label="added downtime A (ms), median", bars=bars, note='emulated "VM"')
    return Figure(name, title, printed("robustness").source, chart, compared, sentences)


def _compared(what: str, row: Row) -> Compared:
    measured = f"A {row.added_p50:.1f} ms (p95 {row.added_p95:.1f}), {row.lost} lost, n = {row.n}"
    return Compared(what, "nothing", measured, NOT_SHOWN)


def _clients(rows: Sequence[Crowd]) -> Figure:
    compared = [
        Compared(
            f"{row.clients} clients behind {_networks(row)}",
            "nothing",
            f"the watched one: A {row.added_p50:.1f} ms (at most {row.added_max:.1f}), {row.lost} lost; the others: "
            f"{row.others_lost} of {row.others_sent} packets lost; n = {row.n}",
            NOT_SHOWN,
        )
        for row in rows
    ]
    sentences = []
    if rows:
        few, most = rows[0], max(rows, key=lambda row: (row.clients, row.networks))
        sentences.append(
            f"One client of {most.clients} behind {_networks(most)} sees A {most.added_p50:.1f} ms (median of "
            f"{most.n}); of {few.clients}, {few.added_p50:.1f} ms. All together lost "
            f"{sum(row.lost + row.others_lost for row in rows)} packets."
        )
    bars = {f"{row.clients} behind {_networks(row)}": row.added_p50 for row in rows}
    chart = Chart(y_label="added downtime A (ms), median", bars=bars, note='emulated "VM"')
    source = printed("robustness").source
    return Figure("robustness-clients", "Many corresponding clients", source, chart, compared, sentences)


def _networks(row: Crowd) -> str:
    return "1 network" if row.networks == 1 else f"{row.networks} networks"


def _deaths(killed: Sequence[Killed]) -> Figure:
    compared = [
        Compared(
            f"killed after {each.phase!r}",
            "nothing",
            f"the service is {'at the target' if each.arrived else 'not at the target'}; A {each.added_ms:.1f} ms, "
            f"{each.lost} lost",
            NOT_SHOWN,
        )
        for each in killed
    ]
    sentences = []
    if killed:
        arrived, lost = sum(each.arrived for each in killed), sum(each.lost for each in killed)
        worst = max(each.added_ms for each in killed)
        sentences.append(
            f"Killed at {len(killed)} points of a move by {OURS}, the controller left the service at the target "
            f"{arrived} times; at most {worst:.1f} ms were added, {lost} packets lost."
        )
    title = "The controller is killed in the middle of a move"
    return Figure("robustness-killed", title, printed("robustness").source, None, compared, sentences)


def _table(rows: Sequence[Row]) -> Table:
    columns = Row.__struct_fields__
    return Table("robustness", columns, [list(msgspec.structs.astuple(row)) for row in rows])


def _clients_table(rows: Sequence[Crowd]) -> Table:
    return Table("robustness-clients", Crowd.__struct_fields__, [list(msgspec.structs.astuple(row)) for row in rows])


def _killed_table(killed: Sequence[Killed]) -> Table:
    rows: list[list[Cell]] = [list(msgspec.structs.astuple(each)) for each in killed]
    return Table("robustness-killed", Killed.__struct_fields__, rows)
