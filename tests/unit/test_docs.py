"""The pages in docs/ say what the code does: reasons and examples are compared with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fmcc.hypervisor.settings import AgentSettings
from fmcc.settings import FmccSettings
from lispfmc.runtime.config import Settings, load
from mapserver.settings import MapServerSettings
from xtr.settings import XtrSettings

ROOT = Path(__file__).resolve().parents[2]
DAEMONS = ("xtr", "mapserver", "fmcc")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def documented_reasons() -> set[str]:
    """The names in backquotes in the first column of the last table of docs/events.md."""
    reasons = (ROOT / "docs/events.md").read_text().partition("\n## Refused packets")[2]
    rows = [line.split("|")[1] for line in reasons.splitlines() if line[:2] == "| "]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_reason_of_a_refusal_is_documented() -> None:
    reasons = set()
    for path in (path for package in DAEMONS for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reject":
                reasons |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    assert len(reasons) > 20
    assert reasons - documented_reasons() == set()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("xtr", XtrSettings),
        ("mapserver", MapServerSettings),
        ("fmcc", FmccSettings),
        ("agent", AgentSettings),
        ("agent-qemu", AgentSettings),
        ("agent-libvirt", AgentSettings),
    ],
)
def test_the_configuration_examples_are_valid(name: str, model: type[Settings], tmp_path: Path) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    (example,) = re.findall(rf"```toml\n(# {name}\.toml\n.*?)```", text, re.DOTALL)
    path = tmp_path / f"{name}.toml"
    path.write_text(example)
    load(path, model)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_function_that_fidelity_names_is_in_the_code() -> None:
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", (ROOT / "docs/fidelity.md").read_text())
    assert len(named) > 20
    for file, name in named:
        body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
        for part in name.split("."):
            found = [
                node
                for node in body
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part
            ]
            assert found, f"{file}:{name}"
            body = found[0].body
