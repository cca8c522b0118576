"""The diagrams of docs/moves.md are those of the tables. `python -m tests.unit.test_moves_page` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import xtr.roles
from fmcc.steering import lead
from lispfmc.core.plans import Restarted

PAGE = Path(__file__).resolve().parents[2] / "docs/moves.md"
TABLES: dict[str, Mapping[Any, Any]] = {"router": xtr.roles.TABLE, "controller": lead.TABLE}


def diagram(table: Mapping[Any, Any]) -> str:
    """A Mermaid state diagram: one arrow for each pair of states, with what leads from one to the other."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), rows in table.items():
        for row in rows:
            if event is not Restarted and row.label not in (labels := arrows.setdefault((state, row.to), [])):
                labels.append(row.label)
    return "\n".join(["stateDiagram-v2", *_lines(arrows)])


def _lines(arrows: dict[tuple[str, str], list[str]]) -> Iterator[str]:
    for name in dict.fromkeys(name for pair in arrows for name in pair):
        if " " in name:
            yield f'  state "{name}" as {_id(name)}'
    for (source, to), labels in arrows.items():
        yield f"  {_id(source)} --> {_id(to)}: {', '.join(each.replace(':', ' -') for each in labels)}"


def _id(name: str) -> str:
    return name.replace(" ", "_")


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n```mermaid\n)(.*?)(\n```)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_tables(name: str) -> None:
    (found,) = block(name).findall(PAGE.read_text())
    assert found[1] == diagram(TABLES[name]), "run python -m tests.unit.test_moves_page"


def test_every_state_can_be_left_or_is_an_end() -> None:
    for table in TABLES.values():
        left = {state for state, _ in table}
        assert {row.to for rows in table.values() for row in rows} <= left


if __name__ == "__main__":
    text = PAGE.read_text()
    for called, states in TABLES.items():
        text = block(called).sub(lambda found, states=states: found[1] + diagram(states) + found[3], text)  # type: ignore[misc]
    PAGE.write_text(text)
