"""The committed form of a report: what the page says, from which commit, and nothing of an earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.experiment.paper.archive import Archive
from lispfmc.experiment.paper.page import page
from lispfmc.experiment.paper.publishing import publish
from lispfmc.experiment.paper.result import Compared, Figure, Kept, Result, Table
from lispfmc.wire.errors import LocalError

FIGURE = Figure(
    "one", "One", "A Fig. 1", None, (Compared("a|b", "1 ms", "2 ms", "because"),), ("Two is more than one.",)
)
RESULT = Result("model", "The model", ("computed",), (FIGURE,), (Table("t", ("a",), ((1,),)),), ("Half of it.",))
COMMIT = "0123456789abcdef"


def report(folder: Path, commit: str) -> Archive:
    archive = Archive(folder)
    environment = {"commit": commit, "started": "now", "load_1m": 0.1, "cpus": 2}
    archive.keep(Kept(RESULT, {"quick": False, "seed": 1, "trace": None}, environment, 3.0))
    archive.write("figures/one.svg", b"<svg/>")
    return archive


def test_what_is_published_says_what_the_page_says(tmp_path: Path) -> None:
    archive = report(tmp_path / "report", COMMIT)
    assert publish(archive, tmp_path / "to") == ["model"]
    text = (tmp_path / "to" / "README.md").read_text()
    kept = archive.kept("model")
    assert kept is not None
    shown = page([kept], {}, archive.path)
    for said in ("Two is more than one.", "because", "Half of it.", "computed", "A Fig. 1"):
        assert said in text
        assert said in shown
    assert "a\\|b" in text, "no cell ends a table's column"
    assert "![One](figures/one.svg)" in text
    assert (tmp_path / "to" / "tables" / "t.csv").read_text() == "a\n1\n"


@pytest.mark.parametrize(("commit", "changed"), [(COMMIT, False), (f"{COMMIT}+", True)])
def test_it_says_the_commit_and_whether_the_tree_was_clean(tmp_path: Path, commit: str, changed: bool) -> None:
    publish(report(tmp_path / "report", commit), tmp_path / "to")
    text = (tmp_path / "to" / "README.md").read_text()
    assert f"`{COMMIT[:12]}`" in text
    assert ("changes in no commit" in text) is changed


def test_tables_and_figures_of_an_earlier_publication_go(tmp_path: Path) -> None:
    for old in ("tables/old.csv", "figures/old.svg"):
        (tmp_path / "to" / old).parent.mkdir(parents=True)
        (tmp_path / "to" / old).write_text("old")
    publish(report(tmp_path / "report", COMMIT), tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").glob("*/*")) == ["one.svg", "t.csv"]


def test_nothing_is_published_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="make the report first"):
        publish(Archive(tmp_path / "nowhere"), tmp_path / "to")
    assert not (tmp_path / "to").exists()
