"""docs/events.md lists what the code tells: every event, wherever its name comes from, and every other line of the log.

Names are read from the calls that tell something. One that is put together otherwise than the few ways known here fails
the test: it could not be found in the documents, and neither by who reads them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from fmcc.hypervisor import Kind

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("xtr", "mapserver", "fmcc", "lispfmc")
TELLING = {"Emit", "EmitEach", "_emit"}
LEVELS = {"debug", "info", "warning", "error"}
# functions that are given a name and hand it on: their callers are looked at
HANDING_ON = {
    ("fmcc/coordinator.py", "name"),
    ("mapserver/publisher.py", "name"),
    ("lispfmc/core/effects.py", "self.name"),
    ("lispfmc/runtime/driver.py", "effect.name"),
    ("lispfmc/runtime/events.py", "event.name"),
}
STORED = ("lispfmc/store/memory.py", "now")  # a store's own list, of times


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(ROOT)), node


def called(call: ast.Call) -> tuple[str, str]:
    """Whose function, and its name."""
    if isinstance(call.func, ast.Attribute):
        return ast.unparse(call.func.value), call.func.attr
    return "", ast.unparse(call.func)


def tells(call: ast.Call) -> ast.expr | None:
    """The argument with the event's name, if this call tells of one."""
    owner, function = called(call)
    if function == "_emit":
        return call.args[1]
    by_publisher = function == "event" and owner in {"", "publisher"}
    if function in TELLING or by_publisher or (function.startswith("append") and owner.endswith("events")):
        return call.args[0] if call.args else None
    return None


def names(path: str, argument: ast.expr) -> set[str]:
    """What the argument can be."""
    module = import_module(path.removesuffix(".py").replace("/", "."))
    match argument:
        case ast.Constant(value=str(name)):
            return {name}
        case ast.Name(id=name) if isinstance(said := getattr(module, name, None), str):
            return {said}
        case ast.Subscript(value=ast.Name(id=name)):
            return values(module, name)
        case ast.JoinedStr() if ast.unparse(argument) == "f'hypervisor.{happened.kind}'":
            return {f"hypervisor.{kind}" for kind in Kind}
        case _ if (path, ast.unparse(argument)) in {*HANDING_ON, STORED}:
            return set()
    pytest.fail(f"{path}:{argument.lineno}: cannot tell which events {ast.unparse(argument)} names")


def values(module: ModuleType, name: str) -> set[str]:
    table: Mapping[object, str] = getattr(module, name)
    return set(table.values())


def listed(*headings: str) -> set[str]:
    """The names in the first column under these headings of docs/events.md."""
    sections = re.split(r"(?m)^## ", (ROOT / "docs/events.md").read_text())
    chosen = [each for each in sections if each.partition("\n")[0] in headings]
    assert len(chosen) == len(headings)
    rows = [line.split("|")[1] for section in chosen for line in section.splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_event_is_listed_and_nothing_else() -> None:
    told = {name for path, call in calls() if (argument := tells(call)) is not None for name in names(path, argument)}
    assert len(told) > 60
    # what one reader is told of its own stream is no call of these
    assert listed("Every daemon", "Tunnel router", "Map-Server", "Controller", "Hypervisor agent") == {
        *told,
        "stream.gap",
    }


def test_every_other_line_of_the_log_is_listed_and_nothing_else() -> None:
    said = set()
    for path, call in calls():
        owner, function = called(call)
        if function in LEVELS and (owner.endswith("log") or owner.startswith("structlog.get_logger")):
            said |= names(path, call.args[0])
    assert listed("Other lines of the log") == said
