"""The folder of an experiment: whole runs only, one design, goes on where it was; and what its document says."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from lispfmc.experiment.design import Design, Kind, Planned, Point
from lispfmc.experiment.records import Folder, Lateness, OtherDesign, Record
from lispfmc.experiment.report import document
from lispfmc.lab.analysis import Figures, MoveFigures
from lispfmc.wire.errors import LocalError

DESIGN = Design(schemes=("lossless", "fig9"), fmcc_rtts_ms=(1.0, 50.0), losses=(0.0, 5.0), runs=2, null_runs=2)
KEYS = {"added_p50", "added_p95", "added_p99", "added_max", "lost", "duplicated"}


def figures(added_ms: float, lost: int) -> MoveFigures:
    one = Figures(60 + added_ms, 60.0, added_ms, 4000, lost, 1, 0, 0)
    other = msgspec.structs.replace(one, added_ms=added_ms - 1, gap_ms=59 + added_ms, lost=0)
    both = {"to_service": one, "to_user": other}
    return MoveFigures(60 + added_ms, 60.0, added_ms, lost, 1, 0, 0, both, 60.1)


def record(planned: Planned, added_ms: float = 0.3, lost: int = 0) -> Record:
    return Record(
        planned, 0, "committed", 1.0, 0.5, origin="dc1", target="dc2", figures=figures(added_ms, lost),
        lateness={"to_service": Lateness(0.1, 0), "to_user": Lateness(0.2, 3)},
    )  # fmt: skip


def everything() -> list[Record]:
    """Lossless adds 0.3 ms and loses nothing; Fig. 9 adds its delays and loses what comes meanwhile."""
    runs = [planned for session in DESIGN.sessions() for planned in session.runs]
    found = []
    for planned in runs:
        slow = planned.point.scheme == "fig9"
        found.append(record(planned, planned.point.fmcc_rtt_ms + 5 if slow else 0.3, 200 if slow else 0))
    return found


def test_a_run_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.held():
        folder.claim(DESIGN, {"cpus": 2})
        one = record(Planned(3, Point("fig9", 1.0), 7))
        folder.keep(one)
        (tmp_path / "runs" / ".00004.json.draft").write_text('{"planned": {"num')
    assert folder.records() == [one]
    assert folder.environment() == {"cpus": 2}


def test_an_experiment_killed_in_the_middle_of_a_write_goes_on_with_what_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    with folder.held():
        folder.claim(DESIGN, {"cpus": 2})
        folder.keep(record(Planned(1, Point("fig9", 1.0), 7)))
    writing, told = os.pipe()
    child = os.fork()
    if not child:  # stopped for good where the data is written, and the file not yet in its place

        def stand_still(_: object) -> None:
            os.write(told, b"!")
            signal.pause()

        monkeypatch.setattr(os, "fsync", stand_still)
        with folder.held():
            folder.keep(record(Planned(2, Point("fig9", 1.0), 8)))
        os._exit(0)
    assert os.read(writing, 1) == b"!"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert [each.planned.number for each in folder.records()] == [1]
    with folder.held():  # the killed one holds it no more
        folder.claim(DESIGN, {"cpus": 4})
        folder.keep(record(Planned(2, Point("fig9", 1.0), 8)))
    assert [each.planned.number for each in folder.records()] == [1, 2]
    assert folder.environment() == {"cpus": 2}


def test_a_disk_that_is_full_leaves_what_was_there_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    first, second = (record(Planned(number, Point("fig9", 1.0), 7)) for number in (1, 2))
    folder.keep(first)
    folder.write_table("runs.csv", [first])
    before = (tmp_path / "runs.csv").read_bytes()

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        folder.keep(second)
    with pytest.raises(OSError, match="No space"):
        folder.write_table("runs.csv", [first, second])
    assert folder.records() == [first]
    assert (tmp_path / "runs.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["00001.json", "runs.csv"]


def test_a_folder_takes_the_same_design_again_and_refuses_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.held():
        folder.claim(DESIGN, {})
        folder.claim(DESIGN, {})
        with pytest.raises(OtherDesign, match="its runs is 2, yours 50; choose another --out"):
            folder.claim(msgspec.structs.replace(DESIGN, runs=50), {})


def test_two_experiments_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        Folder(tmp_path).held(),
        pytest.raises(LocalError, match="another experiment writes there"),
        Folder(tmp_path).held(),
    ):
        pass


def test_the_table_has_a_line_for_each_direction(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    one = record(Planned(3, Point("fig9", 1.0), 7), added_ms=4.0, lost=2)
    failed = Record(Planned(4, Point("fig9", 1.0), 8), 0, "failed: no answer", 1.0, 0.5, 3)
    folder.write_table("runs.csv", [one, failed])
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [(row["run"], row["direction"], row["lost"]) for row in rows] == [
        ("3", "to_service", "2"),
        ("3", "to_user", "0"),
        ("4", "", ""),
    ]
    assert rows[0]["added_ms"] == "4.0"
    assert list(rows[0])[-2:] == ["overflowed", "at_once"], "columns are added at the end"
    assert rows[1]["probes_late"] == "3"


def test_the_table_says_what_of_a_crowd_the_receivers_had_no_room_for_and_how_many_moved_at_a_time(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path)
    crowd, limited = (Point("lossless", 50.0, kind=Kind.CROWD, at_once=at_once) for at_once in (0, 8))
    both = {"service-1": figures(1.0, 0), "service-2": figures(9.0, 2)}
    runs = [
        Record(Planned(1, crowd, 7), 0, "committed", 1.0, 0.5, services=both),
        Record(Planned(2, limited, 8), 0, "committed", 1.0, 0.5, services=both, overflowed=3),
        Record(Planned(3, limited, 9), 0, "failed: no answer", 1.0, 0.5, 3),
    ]
    folder.write_table("runs.csv", runs)
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    said = [(row["run"], row["overflowed"], row["at_once"]) for row in rows]
    assert said == [("1", "0", "")] * 4 + [("2", "3", "8")] * 4 + [("3", "", "8")]


def test_a_record_of_before_there_was_such_a_count_is_read(tmp_path: Path) -> None:
    folder, one = Folder(tmp_path), record(Planned(3, Point("fig9", 1.0), 7))
    kept = msgspec.to_builtins(one)
    assert not {"overflowed", "cut_short"} & set(kept)
    folder.write("runs/00003.json", json.dumps(kept).encode())
    assert folder.records() == [one]
    assert document(DESIGN, folder.records(), {})["probes"]["overflowed"] == 0


def test_the_document_begins_with_what_the_machine_is_and_has_the_keys_that_programs_rely_on() -> None:
    found = document(DESIGN, everything(), {"kernel": "6"})
    assert next(iter(found)) == "vm"
    assert "emulated" in found["vm"]
    assert found["complete"]
    assert set(found["summary"]) == {"lossless", "fig9"}
    assert list(found["summary"]["fig9"]) == ["1", "50"]
    assert set(found["summary_loss"]) == {"0", "5"}
    assert set(found["summary_loss"]["5"]) == {"lossless", "fig9"}
    for figures in (found["summary"]["fig9"]["1"], found["summary_loss"]["5"]["fig9"], found["control"]["null_move"]):
        assert set(figures) >= KEYS
    for run in found["runs"]:
        assert set(run) >= {
            "scheme", "fmcc_rtt_ms", "control_loss", "blackout_ms", "gap_ms", "added_ms", "lost", "duplicated",
            "reordered", "directions",
        }  # fmt: skip
    assert {run["scheme"] for run in found["control"]["runs"]} == {"null-move"}
    json.dumps(found)


def test_summaries_take_the_worse_direction_and_the_packets_of_both() -> None:
    found = document(DESIGN, everything(), {})
    assert found["summary"]["fig9"]["50"]["added_p50"] == 55.0
    assert found["summary"]["fig9"]["50"]["lost"] == 2 * 200
    assert found["summary"]["fig9"]["50"]["duplicated"] == 2 * 2
    assert found["pooled"]["lossless"]["p95_above_null_move"] == 0.0


def test_what_was_promised_and_not_kept_is_told() -> None:
    kept = document(DESIGN, everything(), {})["checks"]
    assert kept
    assert all(check["kept"] for check in kept)
    spoilt = [
        msgspec.structs.replace(each, figures=figures(3.0, 1)) if each.planned.point.scheme == "lossless" else each
        for each in everything()
    ]
    broken = [check["what"] for check in document(DESIGN, spoilt, {})["checks"] if not check["kept"]]
    assert "lossless, controller at 1 ms: packets lost" in broken
    assert "lossless, controller at 50 ms: median added" in broken
    assert "lossless, 5 % control loss: packets lost" in broken
    assert "lossless, all together: 95th percentile above the null move's" in broken


def test_the_papers_scheme_stands_beside_its_formula() -> None:
    found = document(DESIGN, everything(), {})["predictions"]
    assert [(one["fmcc_target_rtt_ms"], one["predicted_ms"], one["measured_p50"]) for one in found] == [
        (1.0, 6.0, 6.0),
        (50.0, 55.0, 55.0),
    ]
    assert all(one["within"] for one in found)


def test_a_run_that_failed_is_named_and_counts_nowhere() -> None:
    records = everything()
    failed = msgspec.structs.replace(records[0], figures=None, outcome="failed: the agent was gone")
    found = document(DESIGN, [failed, *records[1:]], {})
    assert found["failed"] == [{"run": failed.planned.number, "why": "failed: the agent was gone"}]
    total = sum(point["n"] for points in found["summary"].values() for point in points.values())
    assert len(found["runs"]) + len(found["control"]["runs"]) == len(records) - 1
    assert total <= len(found["runs"])


def test_tcp_users_and_crowds_stand_apart_from_the_sweep() -> None:
    design = msgspec.structs.replace(DESIGN, tcp_runs=2, user_runs=2, services=2, service_rounds=1)
    found = []
    for planned in (planned for session in design.sessions() for planned in session.runs):
        one = msgspec.structs.replace(record(planned, 3.0), resets=int(planned.point.scheme == "fig9"))
        match planned.point.kind:
            case Kind.USER:
                # metro: least 2 + 2 + 2.5 inbound, 2 * 2 + 2.5 outbound
                one = msgspec.structs.replace(
                    one, origin="access1", target="access2", flowing_ms={"inbound": 8.0, "outbound": None}
                )
            case Kind.CROWD:
                both = {"service-1": figures(1.0, 0), "service-2": figures(9.0, 2)}
                one = msgspec.structs.replace(one, figures=None, services=both, dropped={"dropped.hold-full": 2})
        found.append(one)
    said = document(design, found, {})
    assert said["complete"]
    assert not said["failed"]
    assert {name: (each["stall_max"], each["resets"]) for name, each in said["tcp"].items() if name != "runs"} == {
        "lossless": (3.0, 0),
        "fig9": (3.0, 2),
    }
    assert said["user_moves"]["inbound"]["beyond_p95"] == 1.5
    assert said["user_moves"]["outbound"] == {"never": 2}
    crowd = said["services"]["lossless"]
    assert (crowd["services"], crowd["rounds"], crowd["n"], crowd["lost"], crowd["added_max"]) == (2, 1, 2, 2, 9.0)
    assert crowd["dropped"] == {"dropped.hold-full": 2}, "why they are lost"
    assert said["summary"]["lossless"]["50"]["n"] == 2, "none of them counts in the sweep"
    assert {"lossless, 2 services at once: packets lost"} <= {c["what"] for c in said["checks"] if not c["kept"]}
