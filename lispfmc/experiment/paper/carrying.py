"""Makes the parts that were asked for, one after the other, and the page anew after each: what is there is whole.

A part that cannot be made says why and the others go on. What an earlier start has made with the same settings and the
same version is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from lispfmc.experiment.design import BadDesign
from lispfmc.experiment.files import pretty
from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.drawing import draw
from lispfmc.experiment.paper.page import page
from lispfmc.experiment.paper.parts import PARTS
from lispfmc.experiment.paper.result import Kept
from lispfmc.experiment.paper.work import Part, Settings, Telling, Work, pictures
from lispfmc.experiment.running import environment
from lispfmc.wire.errors import LocalError

PAGE = "page"
"""What is not made when the page itself cannot be written."""


class Progress(Telling, Protocol):
    """Who is told how far it is."""

    def part(self, part: Part, at: int, parts: int) -> None: ...


def chosen(only: str | None) -> list[Part]:
    """The parts by their names, in the order of the registry. Raises BadDesign."""
    if only is None:
        return list(PARTS.values())
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in PARTS:
            raise BadDesign(f"--only {only}: no part {name!r}; known are {', '.join(PARTS)}")
    return [part for name, part in PARTS.items() if name in names]


def carry_out(parts: Sequence[Part], settings: Settings, archive: Archive, progress: Progress) -> dict[str, str]:
    """Which parts were not made, and why. Raises LocalError when the folder cannot be used."""
    cannot: dict[str, str] = {}
    if (why := pictures()) is not None:
        progress.say(why)
    if expected := sum(part.quick_s if settings.quick else part.full_s for part in parts):
        progress.say(
            f"about {max(1, round(expected / 60))} min on two quiet cores; what is there already is not made again"
        )
    with archive.held():
        for at, part in enumerate(parts):
            progress.part(part, at, len(parts))
            try:
                _make(part, settings, archive, progress)
            except (LocalError, OSError) as error:
                cannot[part.name] = _why(error)
                progress.say(f"{part.name}: not made: {cannot[part.name]}")
            with suppress(OSError):  # a disk that is full: the last page that was written stays
                _publish(archive, cannot)
        try:
            _publish(archive, cannot)
        except OSError as error:
            cannot[PAGE] = _why(error)
            progress.say(f"the page: not written: {cannot[PAGE]}")
    return cannot


def _make(part: Part, settings: Settings, archive: Archive, progress: Progress) -> None:
    machine = environment()
    asked = msgspec.to_builtins(settings)
    there = archive.kept(part.name)
    if there is not None and there.settings == asked and there.environment.get("commit") == machine["commit"]:
        progress.say(f"{part.name}: is there already")
        return
    if (why := part.why_not()) is not None:
        raise LocalError(why)
    began = time.monotonic()
    result = part.make(Work(settings, archive.raw(part.name, asked, machine["commit"]), progress))
    if pictures() is None:
        for figure in result.figures:
            draw(figure, archive)
    archive.keep(Kept(result, asked, machine, round(time.monotonic() - began, 1)))


def _publish(archive: Archive, cannot: dict[str, str]) -> None:
    kept = [each for each in map(archive.kept, PARTS) if each is not None]
    archive.write("report.json", pretty({"cannot": cannot, "parts": kept}))
    archive.write("index.html", page(kept, cannot, archive.path).encode())


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def outline(archive: Archive) -> list[dict[str, Any]]:
    """What there is now, in short."""
    kept = [each for each in map(archive.kept, PARTS) if each is not None]
    return [
        {"part": each.result.part, "quick": each.settings["quick"], "figures": len(each.result.figures)}
        for each in kept
    ]
