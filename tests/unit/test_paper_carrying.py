"""A report whose parts fail: the others go on, and nothing half-written is taken for a result."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from lispfmc.experiment.design import BadDesign
from lispfmc.experiment.paper import carrying
from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.carrying import carry_out, chosen
from lispfmc.experiment.paper.downtime_figures import Group, pictures
from lispfmc.experiment.paper.downtime_real import RealMove
from lispfmc.experiment.paper.parts import PARTS
from lispfmc.experiment.paper.printed import PATH, papers, printed
from lispfmc.experiment.paper.result import Compared, Figure, Result, Table
from lispfmc.experiment.paper.work import Part, Settings, Work
from lispfmc.experiment.ways import Ways
from lispfmc.wire.errors import LocalError


class Heard:
    """What was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def part(self, part: Part, at: int, parts: int) -> None: ...

    def steps(self, total: int) -> None: ...

    def step(self, what: str = "") -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


def good(work: Work) -> Result:
    figure = Figure("one", "One", "nowhere", None, (Compared("<x>", "1", "2", "because"),), ("A sentence.",))
    return Result("model", "Good", ("made up",), (figure,), (Table("t", ("a", "b"), ((1, None), (0.5, "x"))),))


def full(work: Work) -> Result:
    raise OSError(errno.ENOSPC, "No space left on device", str(work.folder))


def failing(work: Work) -> Result:
    raise LocalError("the lab did not come up; look at its log")


GOOD, FULL, FAILING = (
    Part("model", "good", good),
    Part("policy", "full", full),
    Part("fig16", "fails", failing),
)
NEEDY = Part("mobiscud", "needs", good, (lambda: "only root may build it",))


def test_parts_that_cannot_be_made_say_why_and_the_others_are_there(tmp_path: Path) -> None:
    cannot = carry_out([NEEDY, FULL, FAILING, GOOD], Settings(), Archive(tmp_path), Heard())
    assert cannot["mobiscud"] == "only root may build it"
    assert "No space left" in cannot["policy"]
    assert cannot["fig16"] == "the lab did not come up; look at its log"
    page = (tmp_path / "index.html").read_text()
    assert "only root may build it" in page
    assert "&lt;x&gt;" in page, "what parts say is text, not markup"
    assert (tmp_path / "tables" / "t.csv").read_text() == "a,b\n1,\n0.5,x\n"
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["model.json"]


def test_a_part_is_made_anew_for_other_settings_only(tmp_path: Path) -> None:
    archive, heard = Archive(tmp_path), Heard()
    for settings in (Settings(), Settings(), Settings(quick=True)):
        assert carry_out([GOOD], settings, archive, heard) == {}
    assert heard.said.count("model: is there already") == 1
    kept = archive.kept("model")
    assert kept is not None
    assert kept.settings["quick"] is True


def test_a_torn_file_is_no_result_and_a_draft_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "model.json").write_text('{"result": {"part": "mod')
    assert archive.kept("model") is None

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        archive.write("parts/policy.json", b"half")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model.json"]


def test_without_matplotlib_the_tables_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "pictures", lambda: "matplotlib is not installed")
    heard = Heard()
    assert carry_out([GOOD], Settings(), Archive(tmp_path), heard) == {}
    assert "matplotlib is not installed" in heard.said
    assert (tmp_path / "tables" / "t.csv").exists()


def test_an_unknown_part_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadDesign, match=r"no part 'fig99'; known are .*fig16"):
        chosen("model,fig99")
    assert [part.name for part in chosen("fig16,model")] == ["model", "fig16"], "in the report's order"


def test_everything_printed_names_its_paper() -> None:
    import tomllib

    for name in tomllib.loads(PATH.read_text()):
        if name != "papers":
            assert printed(name).source.split()[0] in {*papers(), "ours;"}


def test_an_interruption_leaves_what_was_whole(tmp_path: Path) -> None:
    def interrupted(_: Work) -> Result:
        raise KeyboardInterrupt

    stopped = Part("policy", "interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out([GOOD, stopped], Settings(), Archive(tmp_path), Heard())
    assert "A sentence." in (tmp_path / "index.html").read_text()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model.json"]
    heard = Heard()
    assert carry_out([GOOD], Settings(), Archive(tmp_path), heard) == {}
    assert heard.said == ["model: is there already"]


def test_of_the_real_machine_is_said_what_its_processor_does_without_a_move() -> None:
    ways = Ways(heard=50.0, direct=50.0, registered=9.0, onward=5.0, target=5.0)
    group = Group("100-10", "fig9", 100.0, 3, 70.0, 60.0, 130.0, 69.0, 71.0, 500, 105.0, ways)
    real = RealMove("100-10", "fig9", 100.0, 80.0, 16.0, 96.0, 12.5, 90)
    (figure,) = pictures([group], [real], [])
    assert figure.chart is not None
    assert [line.kind for line in figure.chart.lines] == ["measured", "computed", "computed", "real", "paper"]
    (row,) = [row for row in figure.compared if "real VM" in row.quantity]
    assert "A 80.0, B 16.0, D 96.0 ms (median of 1)" in row.measured
    assert "silent for 12.5 ms" in row.why
    assert "real VM" in figure.chart.note


def test_the_whole_full_run_is_planned_for_forty_minutes_and_the_quick_one_for_eight() -> None:
    assert sum(part.full_s for part in PARTS.values()) < 40 * 60
    assert sum(part.quick_s for part in PARTS.values()) < 8 * 60


def test_a_kill_while_a_result_is_written_leaves_none_and_the_part_is_made_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    child = os.fork()
    if child == 0:  # killed when the draft is on the disk and not yet renamed
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        carry_out([GOOD], Settings(), archive, Heard())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert archive.kept("model") is None
    assert not (tmp_path / "tables" / "t.csv").exists()
    assert list(tmp_path.glob("*/.*.draft")), "it was in the middle of a file"
    assert carry_out([GOOD], Settings(), archive, Heard()) == {}
    assert archive.kept("model") is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_disk_that_is_full_costs_the_parts_that_do_not_fit(tmp_path: Path) -> None:
    def large(work: Work) -> Result:
        rows = [(number, "x" * 50) for number in range(5000)]
        return msgspec.structs.replace(good(work), part="policy", tables=(Table("large", ("a", "b"), rows),))

    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        cannot = carry_out([Part("policy", "large", large), GOOD], Settings(), Archive(tmp_path), Heard())
        assert "No space left" in cannot["policy"]
        assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model.json"]
        assert [path.name for path in (tmp_path / "tables").iterdir()] == ["t.csv"], "and no half of the large one"
        assert "No space left" in (tmp_path / "index.html").read_text()
        (tmp_path / "fill").write_bytes(bytes(60_000))
        with suppress(OSError), (tmp_path / "rest").open("wb") as rest:
            while True:
                rest.write(bytes(4096))
        full = carry_out([GOOD], Settings(seed=2), Archive(tmp_path), Heard())
        assert "No space left" in full["model"]
        assert "No space left" in full["page"], "said, and no traceback"
        assert "A sentence." in (tmp_path / "index.html").read_text(), "the last page that was whole"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
