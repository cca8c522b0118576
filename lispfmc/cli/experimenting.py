"""`lispfmc experiment moves`: the options as a design, a bar while it is carried out, the result as table or JSON."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.cli.failure import CONDITION, DONE
from lispfmc.cli.output import Format, print_json, print_table, print_text, say
from lispfmc.experiment.design import Design, Session, headline, numbers, swept
from lispfmc.experiment.figures import draw, drawable
from lispfmc.experiment.files import pretty
from lispfmc.experiment.publication import publish
from lispfmc.experiment.records import Folder, Record
from lispfmc.experiment.report import CROWDS, crowd_of, document
from lispfmc.experiment.running import carry_out

_PREDICTED = {
    "case": "Fig. 9",
    "from": "from",
    "to": "to",
    "fmcc_target_rtt_ms": "controller-target ms",
    "n": "n",
    "predicted_ms": "predicted ms",
    "predicted_by_messages_ms": "by messages ms",
    "measured_p50": "measured p50",
    "within": "as predicted",
    "within_by_messages": "as by messages",
}


def design_of(
    preset: str | None,
    *,
    schemes: str | None,
    sweep: str | None,
    runs: int | None,
    loss: str | None,
    plane: str | None,
    topology: str | None,
    interval_us: int | None,
    seed: int | None,
    tcp: bool,
    users: bool,
    services: int | None,
    at_once: int | None = None,
) -> Design:
    """What the options ask for; they change a preset where both speak. Raises BadDesign."""
    base = headline() if preset == "headline" else Design(("lossless", "fig9"), (50.0,), bridge_runs=50)
    changes: dict[str, Any] = {
        "schemes": None if schemes is None else tuple(schemes.split(",")),
        "fmcc_rtts_ms": None if sweep is None else swept(sweep),
        "losses": None if loss is None else numbers(loss, "--loss"),
        "plane": plane,
        "topology": topology,
        "interval_us": interval_us,
        "seed": seed,
        "services": services,
        "at_once": at_once,
    }
    if runs is not None:
        parts = ("null_runs", "bridge_runs", "case_runs", "tcp_runs", "user_runs", "service_rounds")
        changes |= {"runs": runs} | {part: min(runs, getattr(base, part)) for part in parts}
    if tcp:
        changes["tcp_runs"] = runs or base.runs
    if users:
        changes["user_runs"] = runs or base.runs
    changes = {name: value for name, value in changes.items() if value is not None}
    return msgspec.structs.replace(base, **changes).checked()


def moves(design: Design, out: Path | None, *, published: Path | None, plot: bool, output: Format) -> int:
    """Exit 0 when every run was measured and what is promised was kept, else 1."""
    if plot:
        drawable()  # to be told after an hour would be late
    folder = Folder(out or Path("experiments") / time.strftime("moves-%Y%m%dT%H%M%S"))
    say(f"results in {folder.path}; an interrupted experiment goes on with --out {folder.path}")
    with _Bar() as bar:
        records = carry_out(design, folder, bar)
    found = document(design, records, folder.environment())
    folder.write_table("runs.csv", records)
    folder.write("results.json", pretty(found))
    if plot:
        for picture in draw(found, folder.path):
            say(f"drawn: {picture}")
    if published is not None:
        for path in publish(found, records, folder.path, published):
            say(f"published: {path}")
    if output is Format.json:
        print_json(found)
    else:
        _print(found)
    return DONE if not found["failed"] and all(check["kept"] for check in found["checks"]) else CONDITION


class _Bar:
    """How far it is, on stderr; where nobody watches, a line for each session."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._quiet = not sys.stderr.isatty()
        self._progress = Progress(*columns, console=self._console, disable=self._quiet)
        self._task = self._progress.add_task("moves", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, there: int, total: int) -> None:
        self._progress.update(self._task, completed=there, total=total)
        if there:
            say(f"{there} of {total} runs are there already")

    def session(self, session: Session, blocks: int) -> None:
        self._progress.update(self._task, description=f"block {session.block + 1} of {blocks}, {session.scheme}")
        if self._quiet:
            say(f"block {session.block + 1} of {blocks}, {session.scheme}: {len(session.runs)} runs")

    def done(self, _: Record) -> None:
        self._progress.advance(self._task)

    def say(self, text: str) -> None:
        self._console.print(text)


def _print(found: dict[str, Any]) -> None:
    print_text(found["vm"])
    columns = ("scheme", "controller ms", "loss %", "n", "A p50", "p95", "p99", "max", "lost", "duplicated")
    rows: list[list[object]] = [
        _row(scheme, rtt, "0", figures)
        for scheme, points in found["summary"].items()
        for rtt, figures in points.items()
    ]
    rows += [
        _row(scheme, f"{found['design']['loss_rtt_ms']:g}", loss, figures)
        for loss, schemes in found["summary_loss"].items()
        if loss != "0"
        for scheme, figures in schemes.items()
    ]
    for name, words in (("null_move", "null move"), ("same_bridge", "same bridge")):
        if found["control"][name]:
            rows.append(_row(words, "-", "-", found["control"][name]))
    print_table(columns, rows)
    if found["predictions"]:
        print_text("")
        print_table(
            tuple(_PREDICTED.values()),
            [[one[key] for key in _PREDICTED] for one in found["predictions"]],
        )
    for scheme, tcp in found["tcp"].items():
        if scheme != "runs":
            print_text(f"TCP, {scheme}: stalls beyond B at most {tcp['stall_max']:.2f} ms, {tcp['resets']} resets")
    for scheme, crowd in (each for part in CROWDS for each in found[part].items()):
        print_text(
            f"{crowd_of(crowd)}, {scheme}: A {crowd['added_p50']:.2f} ms (median), "
            f"{crowd['added_p95']:.2f} (95th percentile), {crowd['lost']} packets lost"
        )
    for name in ("inbound", "outbound"):
        if "beyond_p95" in (flowing := found["user_moves"].get(name, {})):
            print_text(
                f"a user's move, {name}: flows {flowing['beyond_p50']:.2f} ms after the least time (median), "
                f"{flowing['beyond_p95']:.2f} (95th percentile)"
            )
    missed = [check for check in found["checks"] if not check["kept"]]
    for check in missed:
        print_text(f"not kept: {check['what']}: {check['value']:g} {check['unit']}, at most {check['bound']:g}")
    for failed in found["failed"]:
        print_text(f"run {failed['run']}: {failed['why']}")


def _row(scheme: str, rtt: str, loss: str, figures: dict[str, Any]) -> list[object]:
    added = [f"{figures[name]:8.2f}" for name in ("added_p50", "added_p95", "added_p99", "added_max")]
    return [scheme, rtt, loss, figures["n"], *added, figures["lost"], figures["duplicated"]]
