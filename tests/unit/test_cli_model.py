"""`lispfmc model` and `lispfmc simulate`: keys that programs rely on, and refusals that help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lispfmc.cli.app import run


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_position_has_its_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "model", "ctmc", "--rings", "3")
    assert document["pi0"] == pytest.approx(0.211268, abs=5e-7)
    assert document["mean_distance"] == pytest.approx(1.126761, abs=5e-7)
    assert document["mean_delay_s"] == pytest.approx(0.036056, abs=5e-7)
    assert document["migrations_per_handover"] == pytest.approx(0.136150, abs=5e-7)
    assert document["cost"] == pytest.approx(document["migrations_per_handover"] * 1e9)
    assert sum(document["ring_probability"]) == pytest.approx(1.0)
    whole = answer(capsys, "model", "ctmc", "--rings", "3", "--full", "--fraction", "0.1", "--signal", "1000")
    assert whole["pi0"] == pytest.approx(document["pi0"], abs=1e-12)
    assert whole["cost"] == pytest.approx(document["migrations_per_handover"] * (1e8 + 3000))


def test_the_disruption_has_its_key_by_rings_or_by_round_trip_time(capsys: pytest.CaptureFixture[str]) -> None:
    by_rings = answer(capsys, "model", "sdt", "--rings", "5")
    assert by_rings["sdt_s"] == pytest.approx(289.0, abs=0.005)
    assert answer(capsys, "model", "sdt", "--rtt", "0.25")["sdt_s"] == by_rings["sdt_s"]
    assert answer(capsys, "model", "sdt", "--rings", "5", "--fraction", "0.1")["sdt_s"] < by_rings["sdt_s"] / 5


@pytest.mark.parametrize("method", ["closed-form", "policy-iteration", "value-iteration"])
def test_every_method_gives_the_same_threshold(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "model", "policy", "--p", "0.1", "--method", method)
    assert (found["threshold"], found["method"]) == (4, method)


def test_on_hexagons_the_threshold_is_the_corners(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "model", "policy", "--dimension", "2", "--thr", "9")
    assert found["threshold"] == found["corner_threshold"] <= found["edge_threshold"]


def test_fig_14_comes_as_ten_numbers_and_a_hundred_cells(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "model", "fig14", "--reconstruction", "F", "--table", "b")
    assert found["first_migration"] == [11, 10, 9, 7, 7, 6, 6, 6, 6, 5]
    assert [len(row) for row in found["cells"]] == [10] * 10
    assert (found["equal_cells"], found["differences"]) == (100, [])
    assert "reconstruction" in found["note"]
    found = answer(capsys, "model", "fig14", "--reconstruction", "L", "--table", "b")
    assert found["differences"] == [{"p": 0.3, "d": 8}, {"p": 1.0, "d": 5}]


def test_a_simulation_names_every_score(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "--mobility", "hex", "--users", "3", "--handovers", "60", "--policy", "threshold:2")
    document = answer(capsys, *arguments)
    names = [each["policy"] for each in document["scores"]]
    assert names == ["never", "always", "threshold:2", "best-fixed", "clairvoyant"]
    assert (document["users"], document["handovers"], document["seed"]) == (3, 90, 1)
    assert document == answer(capsys, *arguments)


def test_a_trace_is_simulated_and_its_gaps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cab.csv"
    path.write_text(
        "lat,lon,time\n" + "".join(f"37.7,{-122.4 + 0.01 * (n % 5)},{60 * n + 5000 * (n > 30)}\n" for n in range(60))
    )
    assert run(["simulate", "--mobility", f"trace:{path}", "-o", "json"]) == 0
    said = capsys.readouterr()
    assert f"{path}:33: 5060 s without a position" in said.err
    assert json.loads(said.out)["gaps"] == 1
    assert run(["simulate", "--mobility", f"trace:{path}", "--refuse-gaps"]) == 78
    assert capsys.readouterr().err.startswith(f"lispfmc: {path}:33: ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["model", "ctmc", "--rings", "0"], 64, "rings is 0"),
        (["model", "ctmc"], 64, "--rings"),
        (["model", "sdt"], 64, "give --rings or --rtt"),
        (["model", "sdt", "--rings", "2", "--rtt", "1"], 64, "give --rings or --rtt"),
        (["model", "policy", "--p", "0.8", "--stay", "0.4"], 64, "sum to 1.2"),
        (["model", "policy", "--p", "nan"], 64, "p is nan"),
        (["model", "policy", "--gamma", "1"], 64, "gamma is 1.0"),
        (["model", "policy", "--thr", "5000", "--method", "value-iteration"], 64, "use the closed form"),
        (["model", "fig14", "--reconstruction", "G"], 64, "reconstructions are F and L"),
        (["simulate", "--policy", "fastest"], 64, "no policy 'fastest'"),
        (["simulate", "--mobility", "flight"], 64, "walk1d, hex and trace:FILE"),
        (["simulate", "--mobility", "trace:/no/such/file"], 78, "/no/such/file: cannot be read"),
    ],
)
def test_a_refusal_is_one_line(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["model", "ctmc", "--rings", "3"],
        ["model", "sdt", "--rings", "3"],
        ["model", "policy", "--thr", "9"],
        ["model", "fig14"],
        ["simulate", "--users", "2", "--handovers", "30"],
    ],
)
def test_every_table_can_be_drawn_and_read(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert run([*arguments, "--plot", str(tmp_path / "drawn.svg")]) == 0
    assert "<svg" in (tmp_path / "drawn.svg").read_text()
    assert capsys.readouterr().out.strip()


def test_without_matplotlib_a_plot_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["model", "fig14", "--plot", str(tmp_path / "drawn.svg")]) == 1
    assert "pip install 'lispfmc[plot]'" in capsys.readouterr().err


def test_the_command_does_not_load_numpy_for_the_other_verbs() -> None:
    code = "import sys; from lispfmc.cli.app import run; run(['decode', '00']); print('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "False"
