"""The report's folder: what is there is whole.

index.html  report.json  figures/NAME.{svg,png}  tables/NAME.csv  parts/NAME.json  raw/PART/...
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.experiment.files import alone, pretty, written
from lispfmc.experiment.paper.result import Kept, Table


class Archive:
    """`with Archive(path).held() as archive: ...`"""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[Archive]:
        """No second report is written here meanwhile. Raises LocalError."""
        with alone(self.path, "another report is being written there; wait, or name another"):
            yield self

    def raw(self, part: str, settings: Any, commit: str | None) -> Path:
        """Where a part keeps what it goes on with: never what other settings or another version have measured."""
        named = "-".join(f"{name}={value}" for name, value in settings.items() if value not in (None, False))
        folder = self.path / "raw" / part / f"{(commit or 'installed')[:12]}-{named.replace('/', '_')}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kept(self, part: str) -> Kept | None:
        """The result of a part; None when there is none, or none that this version can read."""
        try:
            return msgspec.json.decode((self.path / "parts" / f"{part}.json").read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None

    def keep(self, kept: Kept) -> None:
        """The tables, then the result: when it is there, everything is."""
        for table in kept.result.tables:
            self.write(f"tables/{table.name}.csv", _csv(table))
        self.write(f"parts/{kept.result.part}.json", pretty(kept))

    def write(self, name: str, data: bytes) -> None:
        written(self.path / name, data)


def _csv(table: Table) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(map(_cells, table.rows))
    return out.getvalue().encode()


def _cells(row: Sequence[object]) -> list[object]:
    return ["" if cell is None else f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row]
