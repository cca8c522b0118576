"""`lispfmc experiment paper`: the report's parts one after the other, a bar meanwhile, and where the page is."""

from __future__ import annotations

import sys
from pathlib import Path

from lispfmc.cli.failure import CONDITION, DONE
from lispfmc.cli.output import Format, print_json, print_table, print_text, say
from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.carrying import carry_out, chosen, outline
from lispfmc.experiment.paper.publishing import publish
from lispfmc.experiment.paper.work import Part, Settings
from lispfmc.lab.interruption import interruptible

DEFAULT = Path("build/report")


def paper(only: str | None, settings: Settings, out: Path | None, *, output: Format) -> int:
    """Exit 0 when every part that was asked for is there, else 1."""
    parts, archive = chosen(only), Archive(out or DEFAULT)
    say(f"report in {archive.path}; what is interrupted goes on when it is started again")
    with _Bar() as bar, interruptible():
        cannot = carry_out(parts, settings, archive, bar)
    there, page = outline(archive), archive.path / "index.html"
    if output is Format.json:
        print_json({"page": str(page), "parts": there, "cannot": cannot})
    else:
        print_table(("part", "quick", "figures"), [[each["part"], each["quick"], each["figures"]] for each in there])
        for name, why in cannot.items():
            print_text(f"not made: {name}: {why}")
        print_text(f"page: {page}")
    return CONDITION if cannot else DONE


def published(out: Path | None, to: Path, *, output: Format) -> int:
    """The report that is there, in the form that is committed. Exit 0."""
    parts = publish(Archive(out or DEFAULT), to)
    if output is Format.json:
        print_json({"published": str(to), "parts": parts})
    else:
        print_text(f"published: {', '.join(parts)} in {to}")
    return DONE


class _Bar:
    """How far it is, on stderr; where nobody watches, a line for each part."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False)
        self._quiet = not sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, disable=self._quiet)
        self._task = self._progress.add_task("report", total=None)
        self._part = ""

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def part(self, part: Part, at: int, parts: int) -> None:
        self._part = f"{at + 1} of {parts}, {part.name}"
        self._progress.update(self._task, description=self._part, total=None, completed=0)
        if self._quiet:
            say(f"part {self._part}: {part.title}")

    def steps(self, total: int) -> None:
        self._progress.update(self._task, total=total, completed=0)

    def step(self, what: str = "") -> None:
        self._progress.update(self._task, advance=1, description=f"{self._part} {what}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)
