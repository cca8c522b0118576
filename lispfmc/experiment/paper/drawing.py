"""Charts as SVG and PNG, by matplotlib (an optional extra). The same data gives the same file."""

from __future__ import annotations

import io
from typing import Any

from lispfmc.experiment.figures import INCHES, KINDS
from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.result import Chart, Figure, Line

STYLES = {"measured": "-", "computed": "--", "paper": ":", "real": ""}
BESIDE = 4
"""Curves at most whose names are inside the picture."""
MARKERS = {"real": "s"}
COLOURS = {"paper": "black"}
"""Of kinds of curves that must not be taken for one of those measured here."""


def draw(figure: Figure, archive: Archive) -> None:
    """Nothing when there is no chart. Raises OSError."""
    if figure.chart is None:
        return
    import matplotlib as mpl

    mpl.use("agg")  # files, never a window
    from matplotlib import pyplot

    with mpl.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none"}):
        drawn, axes = pyplot.subplots(figsize=INCHES, layout="constrained")
        _fill(axes, figure.chart)
        for kind in KINDS:
            out = io.BytesIO()
            drawn.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
            archive.write(f"figures/{figure.name}.{kind}", out.getvalue())
        pyplot.close(drawn)


def _fill(axes: Any, chart: Chart) -> None:
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_title(chart.note, loc="right", fontsize="small", color="grey")
    if chart.grid is not None:
        _map(axes, chart)
        return
    axes.grid(visible=True, alpha=0.3)
    if chart.bars:
        axes.bar(list(chart.bars), list(chart.bars.values()))
        axes.tick_params(axis="x", rotation=25)
    for line in chart.lines:
        _curve(axes, line, points=chart.points)
    if chart.log_y:
        axes.set_yscale("log")
    if chart.y_most is not None:
        axes.set_ylim(0, chart.y_most)
    for name, at in chart.marks.items():
        axes.axvline(at, color="grey", linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (at, 1), xycoords=("data", "axes fraction"), xytext=(2, -2), textcoords="offset points",
            rotation=90, va="top", fontsize="x-small", color="grey",
        )  # fmt: skip
    if len(chart.lines) > BESIDE:
        axes.figure.set_size_inches(INCHES[0] + 2.2, INCHES[1])
        axes.figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    elif chart.lines:
        axes.legend(fontsize="small")


def _curve(axes: Any, line: Line, *, points: bool) -> None:
    marker, style = MARKERS.get(line.kind, "o" if points else ""), STYLES[line.kind]
    hollow = "none" if line.kind == "real" else None
    if line.low:
        bars = [
            [max(0.0, y - low) for y, low in zip(line.y, line.low, strict=True)],
            [max(0.0, high - y) for y, high in zip(line.y, line.high, strict=True)],
        ]
        axes.errorbar(
            line.x, line.y, yerr=bars, marker=marker, markersize=4, capsize=3, linestyle=style, label=line.label
        )
        return
    axes.plot(
        line.x,
        line.y,
        marker=marker,
        markersize=4,
        linestyle=style,
        linewidth=1,
        label=line.label,
        mfc=hollow,
        color=COLOURS.get(line.kind),
    )


def _map(axes: Any, chart: Chart) -> None:
    grid = chart.grid
    assert grid is not None
    axes.imshow([[cell == "M" for cell in row] for row in grid.cells], cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for y, row in enumerate(grid.cells):
        for x, cell in enumerate(row):
            axes.text(x, y, cell, ha="center", va="center")
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.set_xlabel(grid.column_label)
    axes.set_ylabel(grid.row_label)
