"""Every test that docs/moves.md names as a proof is there, and every fault has one on virtual time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/moves.md").read_text()
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    table = PAGE[PAGE.index("| Fault |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def functions_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 20
    for file, name in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert name in functions_of(path), f"docs/moves.md names {file}::{name}, which is not there: mend the table"


def test_every_fault_is_proven_on_virtual_time_and_each_kind_in_its_place() -> None:
    for fault, virtual, real in rows():
        assert NAMED.search(virtual), f"{fault}: no test on virtual time"
        for folder, cell in (("integration", real), ("scenarios", virtual)):
            for file, _ in NAMED.findall(cell):
                (path,) = (ROOT / "tests").rglob(file)
                assert path.parent.name == folder, f"{fault}: {file} is in {path.parent.name}"
