"""The report of the papers' evaluation: the parts that need nothing, and a small one of moves on real packets."""

from __future__ import annotations

import csv
import json
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lispfmc.cli.app import run
from lispfmc.experiment.paper import downtime
from lispfmc.experiment.paper.work import Settings, Work
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED


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
@pytest.mark.parametrize(
    ("mapserver_ms", "first"), [(4.0, "by the target's registration"), (300.0, "by the controller")]
)
def test_a_small_downtime_figure_is_measured_and_explained(
    mapserver_ms: float, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The papers' first case, with the Map-Server near the data centres and far away: who tells the source's router
    first is another, and the downtime is nearer to what the one way gives than to what the other does."""
    if os.geteuid() != 0:
        pytest.skip("builds network namespaces: needs root")
    path = tmp_path / "network.toml"
    path.write_text(toml_text(_with_mapserver(mapserver_ms)))
    small = msgspec.structs.replace(
        downtime.designs(quick=True, seed=1)[0],
        schemes=("fig9",),
        cases_ms=((100.0, 10.0),),
        case_hypervisors_ms=(10.0,),
        case_runs=2,
        null_runs=0,
        topology=str(path),
    )
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder:  # unix sockets want short paths
        monkeypatch.setenv("LISPFMC_RUN", folder)
        result = downtime.measured(Work(Settings(quick=True), tmp_path, Silence()), [small])
    summary = next(table for table in result.tables if table.name == "fig16")
    (row,) = [dict(zip(summary.columns, values, strict=True)) for values in summary.rows]
    assert isinstance(added := row["added"], float)
    direct, registered, rest = (float(row[name] or 0) for name in ("way_direct", "way_registered", "way_heard"))
    rest += float(row["way_onward"] or 0)
    ways = {"by the controller": rest + direct, "by the target's registration": rest + registered}
    assert min(ways, key=lambda way: abs(ways[way] - added)) == first == min(ways, key=lambda way: ways[way])
    figure = next(each for each in result.figures if each.name == "fig16-100-10")
    assert any(first in sentence for sentence in figure.sentences)
    assert figure.chart is not None
    assert any("delays alone" in line.label for line in figure.chart.lines)


def _with_mapserver(rtt_ms: float) -> dict[str, Any]:
    """metro, with the Map-Server so far from both data centres."""
    values = tomllib.loads((SHIPPED / "metro.toml").read_text())
    for pair in values["wan"]["pairs"]:
        if "mapserver" in pair["between"] and {"dc1", "dc2"} & set(pair["between"]):
            pair["rtt_ms"] = rtt_ms
    return values
