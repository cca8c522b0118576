"""The committed form of a report: a README with what the page says, tables as CSV, figures as SVG, the environment.

Everything is made from the kept parts, so nothing is said that is not in the data. The folder's earlier tables and
figures go, so that none of another run stays beside the new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lispfmc.experiment.files import pretty, written
from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.parts import PARTS
from lispfmc.experiment.paper.printed import papers
from lispfmc.experiment.paper.result import Compared, Figure, Kept
from lispfmc.wire.errors import LocalError

README = "README.md"
ENVIRONMENT = "environment.json"
DIRTY = "+"
MOVED = ("tables/*.csv", "figures/*.svg")
"""What is copied, and what of an earlier publication is removed."""


def publish(archive: Archive, to: Path) -> list[str]:
    """The parts that are published. Raises LocalError when there is none."""
    kept = [each for each in map(archive.kept, PARTS) if each is not None]
    if not kept:
        raise LocalError(f"{archive.path}: no part is there; make the report first: lispfmc experiment paper")
    copied = _copied(archive, kept)
    for pattern in MOVED:
        for old in to.glob(pattern):
            if f"{old.parent.name}/{old.name}" not in copied:
                old.unlink()
    for name, data in copied.items():
        written(to / name, data)
    said = {
        each.result.part: {"environment": each.environment, "settings": each.settings, "took_s": each.took_s}
        for each in kept
    }
    written(to / ENVIRONMENT, pretty(said))
    written(to / README, readme(kept, set(copied)).encode())
    return [each.result.part for each in kept]


def _copied(archive: Archive, kept: Sequence[Kept]) -> dict[str, bytes]:
    names = [f"tables/{table.name}.csv" for each in kept for table in each.result.tables]
    names += [f"figures/{figure.name}.svg" for each in kept for figure in each.result.figures]
    return {name: (archive.path / name).read_bytes() for name in names if (archive.path / name).exists()}


def readme(kept: Sequence[Kept], pictures: set[str]) -> str:
    """As the page says it."""
    lines = ["# The papers' experiments, repeated: results", "", *_state(kept), "", *_papers()]
    for each in kept:
        lines += ["", f"## {each.result.title}", ""]
        lines += [f"{text}\n" for text in each.result.made_by]
        lines += [f"**Not done:** {text}\n" for text in each.result.cannot]
        for figure in each.result.figures:
            lines += _figure(figure, pictures)
    return "\n".join(lines) + "\n\n[Experiments](../experiments.md) · [measuring](../measuring.md)\n"


def _state(kept: Sequence[Kept]) -> list[str]:
    quick = [each.result.part for each in kept if each.settings["quick"]]
    lines = [
        "Written by `lispfmc experiment paper --publish`; tables are in `tables/`, each part's "
        f"[environment and settings]({ENVIRONMENT}) beside them."
    ]
    if quick:
        lines += ["", f"**Quick run** ({', '.join(quick)}): few repetitions and short copies; indicative."]
    lines += ["", "| Part | Commit | Begun | Load then | Took |", "|---|---|---|---|---|"]
    for each in kept:
        environment = each.environment
        commit = str(environment.get("commit"))
        tree = f"`{commit.removesuffix(DIRTY)[:12]}`" + (" with changes in no commit" if commit.endswith(DIRTY) else "")
        lines.append(
            f"| `{each.result.part}` | {tree} | {environment.get('started')} | {environment.get('load_1m')} of "
            f"{environment.get('cpus')} cores | {each.took_s:.0f} s |"
        )
    return lines


def _papers() -> list[str]:
    return [f"* **{name}**: {what}" for name, what in papers().items()]


def _figure(figure: Figure, pictures: set[str]) -> list[str]:
    lines = [f"### {figure.title}", "", f"{figure.source}.", ""]
    if (name := f"figures/{figure.name}.svg") in pictures:
        lines += [f"![{figure.title}]({name})", ""]
    lines += ["| | the paper reports | measured here | why they differ |", "|---|---|---|---|"]
    lines += [_row(row) for row in figure.compared]
    return [*lines, "", *(f"{sentence}\n" for sentence in figure.sentences)]


def _row(row: Compared) -> str:
    cells = (row.quantity, row.paper, row.measured, row.why)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
