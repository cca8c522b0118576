"""The folder of an experiment: its design, and one file a run. An experiment that was interrupted goes on there.

Nothing half-written is taken for a result. The design is written first; a folder that holds another one is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lispfmc.experiment.design import Design, Planned
from lispfmc.experiment.files import alone, written
from lispfmc.lab.analysis import Figures, MoveFigures
from lispfmc.wire.errors import LocalError

T = TypeVar("T")


class OtherDesign(LocalError):  # noqa: N818 - reads as the answer that it is
    """The folder belongs to another experiment."""


class Lateness(msgspec.Struct, frozen=True):
    """How well the probes of one direction kept their schedule, apart from the time in which the service stood still:
    `worst_ms` the latest packet, `late` those later than an interval, whose slots were then not sent."""

    worst_ms: float
    late: int


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run as it is kept. `outcome`: "committed", "null", or why nothing was measured."""

    planned: Planned
    block: int
    outcome: str
    began: float
    load_1m: float
    attempt: int = 1
    origin: str = ""
    target: str = ""
    figures: MoveFigures | None = None
    lateness: dict[str, Lateness] = {}
    phases_ms: dict[str, float] = {}
    realtime: bool = True
    resets: int = 0
    flowing_ms: dict[str, float | None] = {}
    """Of a user's move: from her announcement until packets flow, `inbound` to her and `outbound` from her router."""

    services: dict[str, MoveFigures] = {}
    """Of many that moved at once."""
    dropped: dict[str, int] = {}
    """Packets that the routers dropped while it lasted, by reason: why those that are lost are."""

    cut_short: bool = False
    """Packets still came when the receivers had waited as long as they may: some of the lost were only late."""
    overflowed: int = 0
    """Packets that found no room in a receiver's socket: of the lost, those that the instrument lost."""


class Folder:
    """`with Folder(path).held(): ...` while it is written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs = path / "runs"

    def held(self) -> AbstractContextManager[None]:
        """No second experiment writes here meanwhile. Raises LocalError."""
        return alone(self.path, "another experiment writes there; wait, or choose another --out")

    def claim(self, design: Design, environment: dict[str, Any]) -> None:
        """Make it the folder of this design, or see that it is. Raises OtherDesign."""
        path = self.path / "design.json"
        if path.exists():
            there = _read(path, Design)
            if there != design:
                raise OtherDesign(
                    f"{self.path}: holds another experiment, {_difference(there, design)}; "
                    "choose another --out, or repeat the command that began it"
                )
            return
        written(self.path / "environment.json", msgspec.json.encode(environment))
        written(path, msgspec.json.encode(design))

    def environment(self) -> dict[str, Any]:
        return _read(self.path / "environment.json", dict[str, Any])

    def keep(self, record: Record) -> None:
        written(self._runs / f"{record.planned.number:05d}.json", msgspec.json.encode(record))

    def records(self) -> list[Record]:
        """Every run that is whole, by number."""
        return [_read(path, Record) for path in sorted(self._runs.glob("*.json"))]

    def write(self, name: str, data: bytes) -> None:
        written(self.path / name, data)

    def write_table(self, name: str, records: list[Record]) -> None:
        """All runs as CSV, a line for each direction of each run."""
        out = io.StringIO(newline="")
        table = csv.writer(out)
        table.writerow(COLUMNS)
        for record in records:
            table.writerows(_lines(record))
        self.write(name, out.getvalue().encode())


_FIGURES = Figures.__struct_fields__
COLUMNS = (
    "run", "block", "kind", "scheme", "fmcc_rtt_ms", "control_loss", "fmcc_dc1_ms", "fmcc_dc2_ms", "seed", "outcome",
    "attempt", "began", "load_1m", "from", "to", "blackout_events_ms", "direction", *_FIGURES,
    "probe_worst_late_ms", "probes_late", "resets", "flowing_ms", "cut_short", "overflowed", "at_once",
)  # fmt: skip


def _lines(record: Record) -> Iterator[list[object]]:
    point = record.planned.point
    one, other = point.datacenters_ms or (point.fmcc_rtt_ms, point.fmcc_rtt_ms)
    head: list[object] = [
        record.planned.number, record.block, point.kind.value, point.scheme, point.fmcc_rtt_ms, point.control_loss,
        one, other,
        record.planned.seed, record.outcome, record.attempt, f"{record.began:.3f}", record.load_1m,
        record.origin, record.target,
    ]  # fmt: skip
    moves = [record.figures] if record.figures is not None else list(record.services.values())
    if not moves:
        yield [*head, *([""] * (len(COLUMNS) - len(head) - 1)), point.at_once or ""]
    for move in moves:
        yield from ([*head, *line, point.at_once or ""] for line in _directions(record, move))


def _directions(record: Record, move: MoveFigures) -> Iterator[list[object]]:
    for direction, figures in move.directions.items():
        late = record.lateness.get(direction, Lateness(0.0, 0))
        values = [getattr(figures, name) for name in _FIGURES]
        flowing = record.flowing_ms.get("inbound" if direction == "to_user" else "outbound")
        yield [
            move.blackout_events_ms, direction, *values, late.worst_ms, late.late, record.resets, flowing,
            int(record.cut_short), record.overflowed,
        ]  # fmt: skip


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise LocalError(f"{path}: cannot be read, {error}; it was not written by this version, remove it") from error


def _difference(there: Design, wanted: Design) -> str:
    """The first field in which two designs differ, in words."""
    for name in Design.__struct_fields__:
        one, other = getattr(there, name), getattr(wanted, name)
        if one != other:
            return f"its {name} is {_shown(one)}, yours {_shown(other)}"
    return "as it seems the same"


def _shown(value: object) -> str:
    return ",".join(map(_shown, value)) if isinstance(value, tuple) else str(value)
