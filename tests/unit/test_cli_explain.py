"""`lispfmc explain USER` against the real controller's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fmcc import views
from lispfmc.cli.explain import explain
from lispfmc.cli.failure import Failure
from lispfmc.cli.output import Format
from lispfmc.lab.installation import Daemon, Installation
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.rejects import Rejects
from tests.scenarios.test_fmcc_move import Net

pytestmark = pytest.mark.asyncio


async def told(net: Net, user: str, output: Format, folder: Path) -> int:
    """The verb, against an API that shows this controller's state."""
    api = Api("fmcc", "fmcc", EventLog(), Rejects(), dict[str, Any], list[str])
    api.get("/v1/users", lambda: views.users(net.fmcc, net.now))
    api.get("/v1/decisions", lambda: views.decisions(net.fmcc, net.now))
    listen = f"unix:{folder}/fmcc.sock"
    lab = Installation("t", "t", "namespaces", [Daemon("fmcc", "fmcc", listen)], [], "198.18.0.1")
    (folder / "t").mkdir(exist_ok=True)
    (folder / "t" / "lab.json").write_bytes(msgspec.json.encode(lab))
    await api.start(listen)
    try:
        return await explain(user, lab_name=None, output=output)
    finally:
        await api.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    monkeypatch.delenv("LISPFMC_LAB", raising=False)
    return tmp_path


async def test_it_names_the_rule_the_runner_up_and_what_was_weighed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net(policy="mdp")
    net.settles()
    net.alice_moves()
    net.run(3.0)
    assert await told(net, "alice", Format.table, folder) == 0
    out = capsys.readouterr().out
    assert "app: moves from dc1 to dc2, decided 3 s ago for access2" in out
    assert "rule       mdp: dc2 is 24.7 steps nearer to access2 (3 ms instead of 250 ms), the threshold is" in out
    assert "runner-up  stay at dc1, below a distance of" in out
    assert "dc2" in out.splitlines()[-1]
    assert await told(net, "alice", Format.json, folder) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["user"], document["site"]) == ("alice", "access2")
    assert [each["rule"] for each in document["decisions"]] == ["mdp"]


async def test_a_controller_that_observes_says_what_it_would_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net(mode="observe")
    net.settles()
    net.alice_moves()
    net.run(1.0)
    assert await told(net, "alice", Format.table, folder) == 0
    assert "would move from dc1 to dc2 (the controller only observes)" in capsys.readouterr().out


async def test_a_user_that_was_not_seen_moving_has_no_decision(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net()
    assert await told(net, "alice", Format.table, folder) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing has been decided yet" in said.err


async def test_an_unknown_user_is_named_with_the_known(folder: Path) -> None:
    with pytest.raises(Failure, match="did you mean 'alice'"):
        await told(Net(), "alcie", Format.table, folder)
