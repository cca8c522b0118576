"""How the command ends when it is used wrongly: one line that helps, and an exit code that scripts can rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lispfmc.cli.app import run
from lispfmc.cli.failure import unknown


@pytest.fixture(autouse=True)
def _no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    monkeypatch.delenv("LISPFMC_LAB", raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["move"],
        ["move", "alice"],
        ["status", "--colour"],
        ["status", "-o", "yaml"],
        ["show", "nothing"],
        ["lookup", "100.64.1.10", "--count", "9"],
        ["lookup", "not-an-address"],
        ["lookup", "100.64.1.10", "--via", "nowhere"],
        ["lab", "impair", "fmcc", "dc1"],
        ["lab", "impair", "--rtt", "10"],
        ["experiment", "moves", "--schemes", "magic"],
        ["experiment", "moves", "--sweep", "1,10"],
        ["decode", "12 34 5"],
        ["decode", "zz"],
        ["decode", "/no/such/file.pcap"],
    ],
)
def test_wrong_usage_is_64_and_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["status"], ["move", "alice", "--to", "access2"], ["show", "hosts"], ["lookup", "100.64.1.10"]]
)
def test_no_lab_is_2_and_says_how_to_get_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "lispfmc lab up" in said.err
    assert len(said.err.splitlines()) == 1


def test_help_goes_to_stdout_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "monitor" in capsys.readouterr().out


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest() -> None:
    failure = unknown("user", "alcie", ["alice", "bob"])
    assert failure.code == 64
    assert str(failure) == "unknown user 'alcie': known: alice, bob; did you mean 'alice'?"


def test_several_labs_and_none_named_is_a_question_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lab.json").write_text("{}")
    assert run(["status"]) == 64
    assert "one, two" in capsys.readouterr().err


def test_a_damaged_lab_file_is_named_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fig5").mkdir()
    (tmp_path / "fig5" / "lab.json").write_text(json.dumps({"name": "fig5"}))
    assert run(["status"]) == 2
    assert "fig5/lab.json" in capsys.readouterr().err


def test_a_verb_loads_only_what_it_needs() -> None:
    wanted = "import sys; from lispfmc.cli.app import run; run(['decode', '00']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", wanted], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"aiohttp", "pyroute2", "uvloop", "structlog", "prometheus_client", "asyncio_dgram"}
