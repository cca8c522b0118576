"""The experiment's pictures: added downtime over the controller's distance, its distribution, and the prediction.

matplotlib is an optional extra; `drawable` says before anything is measured whether it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lispfmc.wire.errors import LocalError

INCHES = (7.0, 4.2)
KINDS = ("png", "svg")


class NoPlots(LocalError):  # noqa: N818 - reads as the answer that it is
    """There is nothing to draw with."""


def drawable() -> None:
    """Raises NoPlots."""
    if find_spec("matplotlib") is None:
        raise NoPlots("figures: matplotlib is not installed; pip install 'lispfmc[plot]', or leave them out: --no-plot")


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every picture that the document has data for, as PNG and SVG. Raises NoPlots."""
    drawable()
    import matplotlib as mpl

    mpl.use("agg")  # files, never a window
    pictures = []
    if found["summary"]:
        pictures += _saved(_over_distance(found), folder / "added-over-distance")
        pictures += _saved(_distribution(found), folder / "added-distribution")
    if found["predictions"]:
        pictures += _saved(_prediction(found["predictions"]), folder / "fig9-predicted-and-measured")
    return pictures


def _over_distance(found: Mapping[str, Any]) -> Any:
    figure, axes = _axes("round-trip time of the controller (ms)", "added downtime A (ms), median and 95 % interval")
    for scheme, points in found["summary"].items():
        x = [float(rtt) for rtt in points]
        y = [each["added_p50"] for each in points.values()]
        low = [each["added_p50"] - each["added_p50_ci"]["low"] for each in points.values()]
        high = [each["added_p50_ci"]["high"] - each["added_p50"] for each in points.values()]
        axes.errorbar(x, y, yerr=[low, high], marker="o", markersize=4, capsize=3, label=f"{scheme}, median")
        p95 = [each["added_p95"] for each in points.values()]
        axes.plot(x, p95, linestyle=":", color=axes.lines[-1].get_color(), label=f"{scheme}, 95th percentile")
    for name, label, style in (("null_move", "null move", "--"), ("same_bridge", "same bridge", "-.")):
        if control := found["control"].get(name):
            label = f"{label}, 95th percentile"
            axes.axhline(control["added_p95"], color="grey", linewidth=1, linestyle=style, label=label)
    axes.legend()
    return figure


def _distribution(found: Mapping[str, Any]) -> Any:
    figure, axes = _axes("added downtime A (ms)", "share of the runs")
    groups: dict[str, list[float]] = {}
    for run in found["runs"]:
        if run["control_loss"] == 0 and run["datacenters_ms"] is None:
            groups.setdefault(run["scheme"], []).append(run["added_ms"])
    for name, kind in (("null move", "null"), ("same bridge", "bridge")):
        groups[name] = [run["added_ms"] for run in found["control"]["runs"] if run["kind"] == kind]
    for name, added in groups.items():
        if added:
            axes.step(sorted(added), _shares(len(added)), where="post", label=name)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.legend()
    return figure


def _prediction(predictions: Sequence[Mapping[str, Any]]) -> Any:
    figure, axes = _axes("predicted added downtime (ms)", "measured, median (ms)")
    for case in dict.fromkeys(one["case"] for one in predictions):
        mine = [one for one in predictions if one["case"] == case]
        label = "sweep" if case == "sweep" else f"controller to data centres {case} ms"
        axes.plot([one["predicted_ms"] for one in mine], [one["measured_p50"] for one in mine], "o", label=label)
    end = max(max(one["predicted_ms"], one["measured_p50"]) for one in predictions) * 1.05
    axes.plot([0, end], [0, end], color="grey", linewidth=1)
    axes.fill_between([0, end], [-2, end * 0.8 - 2], [2, end * 1.2 + 2], color="grey", alpha=0.15, label="20 % + 2 ms")
    axes.legend()
    return figure


def _shares(count: int) -> list[float]:
    return [(at + 1) / count for at in range(count)]


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=INCHES, layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)
    axes.set_title('emulated "VM"', loc="right", fontsize="small", color="grey")
    return figure, axes


def _saved(figure: Any, path: Path) -> list[Path]:
    from matplotlib import pyplot

    paths = [path.with_suffix(f".{kind}") for kind in KINDS]
    for each in paths:
        figure.savefig(each, dpi=150)
    pyplot.close(figure)
    return paths
