"""The tutorial as its reader has it: every command of docs/tutorial.md in order, in a lab of its own.

A line of a `text` block is somewhere in what the commands above it print, but for numbers and spaces; `expect` comments
are regular expressions for one line of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lispfmc.lab import lifecycle

pytestmark = pytest.mark.namespaces

ROOT = Path(__file__).resolve().parents[2]
LAB = "tutorial"
PARTS = re.compile(r"^```(sh|text)\n(.*?)^```$|^<!-- expect: (.*?) -->$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.:/])-?\d+(\.\d+)?(?![\w.:/])")
BLOCK_TIMEOUT_S = 120


class Step(NamedTuple):
    """One block of commands, and what is shown and expected of it."""

    commands: str
    shown: list[str]
    expected: list[str]


def steps() -> list[Step]:
    found: list[Step] = []
    for language, text, pattern in PARTS.findall((ROOT / "docs/tutorial.md").read_text()):
        if language == "sh":
            found.append(Step(text, [], []))
        elif language == "text":
            found[-1].shown.extend(text.splitlines())
        else:
            found[-1].expected.append(pattern)
    return found


def without_numbers(line: str) -> str:
    return NUMBER.sub("N", " ".join(line.split()))


@pytest.fixture
def run_directory() -> Iterator[Path]:
    """Short, because it holds unix sockets; the machine's own labs are left alone."""
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", folder)
        lifecycle.down(LAB)
        yield Path(folder)
        lifecycle.down(LAB)
        assert lifecycle.traces(LAB) == []


def run(commands: str, folder: Path) -> str:
    """What the commands print, in order, errors too. The shell stops at the first that fails."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    script = commands.replace("/run/lispfmc/", f"{folder}/")
    output = folder / "printed"
    with output.open("wb") as printed:  # a file, which what goes on in the background does not hold open for us
        done = subprocess.run(
            ["bash", "-euc", script],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=BLOCK_TIMEOUT_S,
            check=False,
        )
    text = output.read_text()
    assert done.returncode == 0, f"{commands}\n{text}"
    return text


def test_every_command_of_the_tutorial_does_what_the_page_shows(run_directory: Path) -> None:
    told = steps()
    assert len(told) > 15
    for step in told:
        printed = run(step.commands, run_directory).splitlines()
        lines = [without_numbers(line) for line in printed]
        for shown in step.shown:
            assert any(without_numbers(shown) in line for line in lines), (step.commands, shown, printed)
        for pattern in step.expected:
            assert any(re.search(pattern, line) for line in printed), (step.commands, pattern, printed)
