"""What the command can say without daemons: pictures, names to complete, bundles, manuals."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from lispfmc.cli import completion
from lispfmc.cli.app import run
from lispfmc.cli.manual import pages
from lispfmc.lab.picture import DRAWINGS
from lispfmc.lab.topology import load_topology

SECRET = "0123456789abcdef-the-secret"


@pytest.fixture
def dead_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's folder, whose daemons do not run."""
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    folder = tmp_path / "fig5"
    (folder / "logs").mkdir(parents=True)
    node = {"role": "user", "socket": "/nowhere.sock", "eids": ["100.64.1.10"], "sites": ["access1", "access2"]}
    daemon = {"name": "access1", "role": "xtr", "api": f"unix:{folder}/access1.sock"}
    lab = {"name": "fig5", "topology": "fig5", "kind": "namespaces", "daemons": [daemon], "map_resolver": "198.18.0.1"}
    (folder / "lab.json").write_text(json.dumps({**lab, "nodes": [{"name": "alice", **node}, {"name": "bob", **node}]}))
    (folder / "access1.toml").write_text(f'name = "access1"\n[[map_servers]]\nsecret = "{SECRET}"\n')
    (folder / "key").write_text("the key that all others are made of")
    (folder / "logs/access1.log").write_text(f"started\nrefused: {SECRET} is no key of mine\n")
    return folder


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        files = {member.name.split("/", 1)[1]: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_a_bundle_has_everything_but_secrets(dead_lab: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    assert run(["bundle", "--out", str(out)]) == 0
    files = contents(out)
    assert {"environment.json", "lab/lab.json", "lab/access1.toml", "logs/access1.log"} <= set(files)
    assert SECRET not in "".join(files.values())
    assert "made of" not in "".join(files.values())
    assert "refused: (redacted) is no key" in files["logs/access1.log"]


def test_a_daemon_that_is_dead_is_told_in_the_bundle(dead_lab: Path, tmp_path: Path) -> None:
    assert run(["bundle", "--out", str(tmp_path / "b.tar.gz")]) == 0
    assert "cannot reach the daemon" in contents(tmp_path / "b.tar.gz")["access1/unreachable"]


def test_a_bundle_overwrites_nothing_and_leaves_nothing_half_written(
    dead_lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b.tar.gz"
    out.write_text("precious")
    assert run(["bundle", "--out", str(out)]) == 64
    assert out.read_text() == "precious"
    assert run(["bundle", "--out", str(tmp_path / "no/b.tar.gz")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    (dead_lab / "access1.toml").write_text("secret = \n")  # unknown secrets could not be blotted out
    assert run(["bundle", "--out", str(tmp_path / "c.tar.gz")]) == 1
    assert not (tmp_path / "c.tar.gz").exists()


def test_names_that_a_shell_completes_are_those_of_the_lab(dead_lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(params={"user": "alice", "lab": None})
    assert completion.labs("") == ["fig5"]
    assert completion.users(context, "al") == ["alice"]  # type: ignore[arg-type]
    assert completion.sites(context, "") == ["access1", "access2"]  # type: ignore[arg-type]
    assert completion.daemons(context, "") == ["access1"]  # type: ignore[arg-type]
    assert "fig5" in completion.topologies("f")
    monkeypatch.setenv("LISPFMC_RUN", str(dead_lab / "nothing"))
    assert completion.users(context, "") == []  # type: ignore[arg-type]


@pytest.mark.parametrize("drawing", DRAWINGS)
@pytest.mark.parametrize("name", ["fig5", "metro"])
def test_a_picture_has_every_member_and_every_round_trip(name: str, drawing: str) -> None:
    topology = load_topology(name)
    text = DRAWINGS[drawing](topology)
    for member in topology.members:
        assert member in text
    for node in topology.nodes:
        assert node.name in text
    assert text.count(" ms") == len(topology.wan.pairs)
    if drawing == "svg":
        ElementTree.fromstring(text)


def test_graph_prints_the_picture_of_a_topology(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "graph", "-o", "dot"]) == 0
    assert capsys.readouterr().out.startswith("graph fig5 {")
    assert run(["lab", "graph", "--topology", "/no/such.toml"]) == 78


def test_every_command_has_a_manual_page_that_says_what_its_help_says() -> None:
    written = dict(pages())
    assert {"lispfmc.1", "lispfmc-move.1", "lispfmc-lab-up.1", "lispfmc-mapserver.8"} <= set(written)
    assert "the access network to move to" in written["lispfmc-move.1"]
    for name, text in written.items():
        assert text.startswith(".TH "), name
        assert ".SH SYNOPSIS" in text, name
        assert "\n.\n" not in text, name
