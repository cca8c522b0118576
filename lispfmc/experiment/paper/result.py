"""What a part of the report comes to, as values: figures with their comparison, raw tables, and what was not possible.

A chart is data, drawn later or not at all. `kind` of a line: "measured" here, "computed" by a model or a formula of
ours, "paper": a value that a paper prints, or "real": single moves of a real machine beside emulated ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

Cell = str | float | int | bool | None


class Line(msgspec.Struct, frozen=True):
    """One curve. `low` and `high` are the ends of its error bars, if it has any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["measured", "computed", "paper", "real"] = "measured"
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Grid(msgspec.Struct, frozen=True):
    """A table of C and M as a map."""

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    row_label: str = ""
    column_label: str = ""


class Chart(msgspec.Struct, frozen=True):
    """What is drawn: curves over one axis, bars (each line one point) or a map."""

    x_label: str = ""
    y_label: str = ""
    lines: Sequence[Line] = ()
    bars: Mapping[str, float] = {}
    grid: Grid | None = None
    points: bool = True
    """Marked, each; without, the line alone."""
    log_y: bool = False
    y_most: float | None = None
    """What lies above is cut; a sentence of the figure says what."""
    marks: Mapping[str, float] = {}
    """Instants on the x axis."""
    note: str = ""
    """In the corner: what a reader of the picture alone has to know."""


class Compared(msgspec.Struct, frozen=True):
    """One row of a figure's table: what the paper reports, what we measured, why they differ."""

    quantity: str
    paper: str
    measured: str
    why: str


class Figure(msgspec.Struct, frozen=True):
    """One figure of a paper or of ours. `sentences` are made from the data."""

    name: str
    title: str
    source: str
    chart: Chart | None
    compared: Sequence[Compared]
    sentences: Sequence[str]


class Table(msgspec.Struct, frozen=True):
    """Raw values: a CSV file."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Result(msgspec.Struct, frozen=True):
    """A whole part. `made_by` says first what is emulated or simulated; `cannot` what was left out, and why."""

    part: str
    title: str
    made_by: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    cannot: Sequence[str] = ()


class Kept(msgspec.Struct, frozen=True):
    """A result as it is kept: with the settings it was asked for, and the environment it was made in."""

    result: Result
    settings: dict[str, Any]
    environment: dict[str, Any]
    took_s: float
