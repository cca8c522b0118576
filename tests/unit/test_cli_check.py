"""`lispfmc check`: the daemons' own answer about a file, before any daemon reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lispfmc.cli.app import run
from lispfmc.lab.topology import SHIPPED

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.toml"))


def test_each_example_is_recognised_by_its_keys_and_right(capsys: pytest.CaptureFixture[str]) -> None:
    topologies = sorted(SHIPPED.glob("*.toml"))
    assert run(["check", *map(str, [*EXAMPLES, *topologies]), "-o", "json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [item["kind"] for item in items] == [path.stem for path in EXAMPLES] + ["topology"] * len(topologies)
    assert all(item["ok"] for item in items)


def test_five_mistakes_are_five_lines_with_file_line_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "deploy/examples/xtr.toml").read_text()
    for right, wrong in (
        ("key_id = 1\n", "key_id = 70000\n"),
        ('"100.64.101.0/24"]         #', '"100.64.101.1/24"]         #'),
        ('kind = "auto"', 'kind = "fast"'),
        ("[log]", "[logs]"),
        ('mobility = "presence"', 'mobility = "perhaps"'),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    file = tmp_path / "xtr.toml"
    file.write_text(text)
    assert run(["check", str(file)]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    told = said.err.splitlines()
    assert len(told) == 5
    places = [tuple(map(int, line.removeprefix(f"{file}:").split(": ")[0].split(":"))) for line in told]
    wrong_lines = [number for number, line in enumerate(text.splitlines(), 1) if any(
        one in line for one in ("70000", "100.64.101.1/24", '"fast"', "[logs]", '"perhaps"')
    )]  # fmt: skip
    assert [line for line, _ in places] == wrong_lines
    assert all(column >= 1 for _, column in places)


def test_one_wrong_file_among_right_ones_decides_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("name = [\n")
    assert run(["check", str(EXAMPLES[0]), str(file)]) == 78
    said = capsys.readouterr()
    assert "ok" in said.out
    assert f"{file}:2:1: not valid TOML" in said.err


@pytest.mark.parametrize("text", ["", 'name = "x"\n', "colour = 1\n"])
def test_what_could_be_anything_is_asked_for(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    assert run(["check", str(file)]) == 78
    assert "--as" in capsys.readouterr().err


def test_the_kind_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--as", "agent", str(ROOT / "deploy/examples/xtr.toml")]) == 78
    assert "unknown key" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(tmp_path / "no.toml")]) == 78
    assert "cannot read the configuration" in capsys.readouterr().err
