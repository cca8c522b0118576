"""The report of the papers' evaluation: the parts that need nothing, and a small one of moves on real packets."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path

import msgspec
import pytest

from lispfmc.cli.app import run
from lispfmc.experiment.paper import downtime
from lispfmc.experiment.paper.work import Settings, Work


class Silence:
    """Nobody watches."""

    def steps(self, total: int) -> None: ...

    def step(self, what: str = "") -> None: ...

    def say(self, text: str) -> None: ...


def test_a_report_of_what_is_computed_stands_alone_and_is_not_made_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", "paper", "--only", "model,policy", "--quick", "--out", str(tmp_path), "-o", "json"]
    assert run(command) == 0
    assert [each["part"] for each in json.loads(capsys.readouterr().out)["parts"]] == ["model", "policy"]
    page = (tmp_path / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "Quick run" in page
    with (tmp_path / "tables" / "model.csv").open() as lines:
        rows = {row["k"]: row for row in csv.DictReader(lines)}
    assert float(rows["3"]["pi0"]) == pytest.approx(0.211268, abs=1e-6)
    assert float(rows["5"]["sdt_s_100%"]) == pytest.approx(289.00, abs=0.005)
    for name in ("model-pi0.svg", "fig14-b-L.png", "policy-trace.svg"):
        assert (tmp_path / "figures" / name).stat().st_size > 0
    kept = (tmp_path / "parts" / "model.json").read_bytes()
    assert run(command) == 0
    assert "model: is there already" in capsys.readouterr().err
    assert (tmp_path / "parts" / "model.json").read_bytes() == kept


@pytest.mark.namespaces
def test_a_small_downtime_figure_is_measured_and_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("builds network namespaces: needs root")
    small = msgspec.structs.replace(
        downtime.design(quick=True, seed=1),
        schemes=("fig9",),
        cases_ms=((50.0, 50.0),),
        case_hypervisors_ms=(10.0, 100.0),
        null_runs=0,
    )
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder:  # unix sockets want short paths
        monkeypatch.setenv("LISPFMC_RUN", folder)
        result = downtime.measured(Work(Settings(quick=True), tmp_path, Silence()), small)
    assert result.cannot == []
    summary = next(table for table in result.tables if table.name == "fig16")
    added = {row[2]: row[4] for row in summary.rows}
    assert isinstance(near := added[10.0], float)
    assert isinstance(far := added[100.0], float)
    assert far > near, "the scheme waits for the hypervisor's word"
    figure = next(each for each in result.figures if each.name == "fig16-50-50")
    assert "reached in case 50-50" in figure.compared[0].paper
    assert any("delays alone" in line.label for line in figure.chart.lines) if figure.chart else False
