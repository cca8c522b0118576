"""An experiment on real packets: two moves by the papers' scheme and a null move, kept, summed up and gone on with."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.cli.app import run
from lispfmc.experiment.running import lab_name
from lispfmc.lab import lifecycle

RUN = {
    "scheme", "fmcc_rtt_ms", "control_loss", "blackout_ms", "gap_ms", "added_ms", "lost", "duplicated", "reordered",
    "directions",
}  # fmt: skip
SUMMARY = {"added_p50", "added_p95", "added_p99", "added_max", "lost", "duplicated"}

pytestmark = pytest.mark.namespaces


@pytest.fixture(autouse=True)
def _own_run_directory() -> Iterator[None]:
    """Short, because it holds unix sockets; the machine's own labs are left alone."""
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", folder)
        yield


def test_an_experiment_measures_moves_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", "moves", "--schemes", "fig9", "--sweep", "fmcc-rtt=20", "--runs", "2", "-o", "json"]
    command += ["--interval", "1000", "--loss", "0,5", "--out", str(tmp_path), "--publish", str(tmp_path / "page")]
    assert run(command) in {0, 1}, "1: a promise was not kept, on a busy machine"
    found = json.loads(capsys.readouterr().out)
    assert found["complete"], found["failed"]
    assert not found["failed"]
    assert {(each["from"], each["to"]) for each in found["runs"]} == {("dc1", "dc2"), ("dc2", "dc1")}
    for each in found["runs"]:
        assert each["blackout_ms"] >= 55, "the emulated pause"
        assert each["added_ms"] > 10, "the controller is 20 ms away, and the scheme waits for it"
        assert each["directions"]["to_service"]["lost"] > 0, "and loses what comes meanwhile"
        assert set(each) >= RUN
        assert set(each["directions"]) == {"to_service", "to_user"}
    assert found["summary"]["fig9"]["20"]["n"] == 2
    assert found["summary_loss"]["5"]["fig9"]["n"] == 2
    summaries = (found["summary"]["fig9"]["20"], found["summary_loss"]["5"]["fig9"], found["control"]["null_move"])
    for figures in (*summaries, found["control"]["same_bridge"]):
        assert set(figures) >= SUMMARY
    assert Counter(each["kind"] for each in found["control"]["runs"]) == {"null": 2, "bridge": 2}
    for each in found["control"]["runs"]:
        assert each["blackout_ms"] >= 55
        assert each["directions"]["to_user"]["lost"] == 0
    for name in ("runs.csv", "results.json", "design.json", "added-over-distance.svg", "page/README.md"):
        assert (tmp_path / name).stat().st_size > 0
    assert lifecycle.traces(lab_name(tmp_path)) == [], "the lab is gone"

    (tmp_path / "results.json").unlink()
    assert run(command) in {0, 1}
    again = capsys.readouterr()
    assert json.loads(again.out)["runs"] == found["runs"], "nothing is measured twice"
    assert "8 of 8 runs are there already" in again.err
    assert run([*command[:-2], "--seed", "2", *command[-2:]]) == 1
    assert "holds another experiment, its seed is 1, yours 2" in capsys.readouterr().err
