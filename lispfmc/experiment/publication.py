"""The form in which a result is kept beside the documents: a page made from the data, tables and pictures.

In: the experiment's document and its records. Out: README.md, results.json (all but the single runs), runs.csv (those),
environment.json and the SVG pictures. No figure on the page is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lispfmc.experiment.files import pretty
from lispfmc.experiment.records import Folder, Record
from lispfmc.experiment.report import CROWDS, crowd_of

PICTURES = {
    "added-over-distance": "Added downtime over the controller's distance",
    "added-distribution": "Added downtime, distribution",
    "fig9-predicted-and-measured": "The papers' scheme, predicted and measured",
}
_QUANTILES = ("added_p50", "added_p95", "added_p99", "added_max")


def publish(found: Mapping[str, Any], records: list[Record], measured: Path, out: Path) -> list[Path]:
    """Write the page and what it shows into `out`; `measured` is the experiment's folder, where the pictures are."""
    folder, pictures = Folder(out), []
    for picture in (measured / f"{name}.svg" for name in PICTURES):
        if picture.exists():
            folder.write(picture.name, picture.read_bytes())
            pictures.append(picture.name)
    folder.write("README.md", page(found, pictures).encode())
    folder.write("results.json", pretty(without_runs(found)))
    folder.write("environment.json", pretty(found["environment"]))
    folder.write_table("runs.csv", records)
    return [out / name for name in (*pictures, "README.md", "results.json", "environment.json", "runs.csv")]


def without_runs(found: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the single runs, which are in the table."""
    kept = {name: value for name, value in found.items() if name != "runs"}
    for part in ("control", "tcp", "user_moves"):
        kept[part] = {name: value for name, value in found[part].items() if name != "runs"}
    return kept


def page(found: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """README.md, from the document alone."""
    return "\n".join([*_head(found), *_figures(found), *_further(found), *_pictures(pictures)]) + "\n"


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    design, environment, probes = found["design"], found["environment"], found["probes"]
    yield "# Measured moves\n"
    yield f"**{found['vm']}**\n"
    yield (
        f"Topology `{design['topology']}`, data plane `{design['plane']}`, B = {design['pause_ms']:g} ms, a probe "
        f"every {design['interval_us']} us each way, {design['runs']} runs a point, seed {design['seed']}. "
        f"{environment.get('cpus', '?')} cores ({environment.get('cpu') or 'unknown'}), Linux "
        f"{environment.get('kernel', '?')}, commit `{environment.get('commit') or 'not known'}`, begun "
        f"{environment.get('started', '?')}. What the words mean: [measuring](../../measuring.md).\n"
    )
    if not found["complete"]:
        yield "**Not complete**: runs are missing.\n"
    for failed in found["failed"]:
        yield f"* Run {failed['run']} was not measured: {failed['why']}"
    if probes:
        yield (
            f"Of {probes['runs']} runs {probes['runs_with_missed_slots']} had probes that left too late "
            f"({probes['missed_slots']} slots), {probes['runs_cut_short']} ended while packets still came.\n"
        )
    yield "## What is promised\n"
    rows = [
        [
            check["what"],
            f"{check['value']:g}",
            f"{check['bound']:g}",
            check["unit"],
            "yes" if check["kept"] else "**no**",
        ]
        for check in found["checks"]
    ]
    yield from _table(("", "measured", "at most", "", "kept"), rows)


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Added downtime A (ms) and packets\n"
    points: list[tuple[str, str, str, Mapping[str, Any]]] = [
        (scheme, rtt, "0", figures) for scheme, each in found["summary"].items() for rtt, figures in each.items()
    ]
    points += [
        (scheme, f"{found['design']['loss_rtt_ms']:g}", loss, figures)
        for loss, schemes in found["summary_loss"].items()
        if loss != "0"
        for scheme, figures in schemes.items()
    ]
    for name, words in (("null_move", "control: null move"), ("same_bridge", "control: same bridge")):
        if figures := found["control"][name]:
            points.append((words, "-", "-", figures))
    columns = ("scheme", "controller ms", "loss %", "n", "median", "95 % interval of the median", "p95", "p99", "max")
    yield from _table((*columns, "lost", "duplicated", "reordered"), [_row(*point) for point in points])
    yield "What the controls lose is sent to a machine that stands still, and nobody holds it.\n"
    overflowed = [
        f"{count} ({scheme if rtt == '-' else f'{scheme} at {rtt} ms, {loss} % loss'})"
        for scheme, rtt, loss, figures in points
        if (count := _overflowed(figures))
    ]
    if overflowed:
        yield f"Packets that a receiver's socket had no room for, and no network lost: {', '.join(overflowed)}.\n"


def _further(found: Mapping[str, Any]) -> Iterator[str]:
    if found["predictions"]:
        yield "## `fig9`, predicted and measured (ms)\n"
        columns = (
            "case", "from", "to", "fmcc_target_rtt_ms", "n", "predicted_ms", "within",
            "predicted_by_messages_ms", "within_by_messages", "measured_p50",
        )  # fmt: skip
        yield from _table(columns, [[one[name] for name in columns] for one in found["predictions"]])
    rows: list[Sequence[object]] = []
    for scheme, tcp in found["tcp"].items():
        if scheme != "runs":
            rows.append(
                [f"TCP, `{scheme}`: longest stall beyond B", f"{tcp['stall_max']:.2f} ms", f"{tcp['resets']} resets"]
            )
    for scheme, crowd in (each for part in CROWDS for each in found.get(part, {}).items()):
        what = f"{crowd_of(crowd)}, `{scheme}`: A, 95th percentile"
        no_room = f", a receiver's socket had no room for {count}" if (count := _overflowed(crowd)) else ""
        rows.append([what, f"{crowd['added_p95']:.2f} ms", f"{crowd['lost']} packets lost{no_room}"])
    rows += [
        [f"a user's move, {name}: beyond the least time, p95", f"{flowing['beyond_p95']:.2f} ms", ""]
        for name in ("inbound", "outbound")
        if "beyond_p95" in (flowing := found["user_moves"].get(name, {}))
    ]
    if rows:
        yield "## More than one flow of probes\n"
        yield from _table(("", "measured", ""), rows)


def _overflowed(figures: Mapping[str, Any]) -> int:
    """Results that are older have no such count."""
    return int(figures.get("overflowed", 0))


def _pictures(pictures: Sequence[str]) -> Iterator[str]:
    for picture in pictures:
        title = PICTURES[picture.removesuffix(".svg")]
        yield f"## {title}\n\n![{title}]({picture})\n"


def _row(scheme: str, rtt: str, loss: str, figures: Mapping[str, Any]) -> list[object]:
    median, *others = (f"{figures[name]:.2f}" for name in _QUANTILES)
    interval = f"{figures['added_p50_ci']['low']:.2f} to {figures['added_p50_ci']['high']:.2f}"
    packets = [figures[name] for name in ("lost", "duplicated", "reordered")]
    return [scheme, rtt, loss, figures["n"], median, interval, *others, *packets]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""
