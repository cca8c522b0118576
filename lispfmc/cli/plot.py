"""`--plot FILE`: curves and maps by matplotlib, which is an optional extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lispfmc.cli.failure import CONDITION, USAGE, Failure

INCHES = (6.4, 4.0)


def curves(path: Path, x: Sequence[float], lines: Mapping[str, Sequence[float]], labels: tuple[str, str]) -> None:
    """One line for each name over the same x axis."""
    figure, axes = _axes()
    for name, values in lines.items():
        axes.plot(x, values, marker="o", markersize=3, label=name)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(visible=True, alpha=0.3)
    if len(lines) > 1:
        axes.legend()
    _save(figure, path)


def grid(
    path: Path, cells: Sequence[Sequence[str]], rows: Sequence[object], columns: Sequence[object], title: str
) -> None:
    """A table of C and M as a map."""
    figure, axes = _axes()
    axes.imshow([[cell == "M" for cell in row] for row in cells], cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            axes.text(x, y, cell, ha="center", va="center")
    axes.set_xticks(range(len(columns)), [str(each) for each in columns])
    axes.set_yticks(range(len(rows)), [str(each) for each in rows])
    axes.set_xlabel("d")
    axes.set_ylabel("p")
    axes.set_title(title)
    _save(figure, path)


def bars(path: Path, values: Mapping[str, float], label: str) -> None:
    """One bar for each name."""
    figure, axes = _axes()
    axes.bar(list(values), list(values.values()))
    axes.set_ylabel(label)
    axes.tick_params(axis="x", rotation=30)
    _save(figure, path)


def _axes() -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
    except ImportError as error:
        do = "install it: pip install 'lispfmc[plot]'"
        raise Failure(CONDITION, "--plot", "matplotlib is not installed", do) from error
    mpl.use("agg")  # a file, never a window
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=INCHES, layout="constrained")
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise Failure(
            USAGE, f"--plot {path}", str(error), "give a file that can be written, .svg, .png or .pdf"
        ) from error
