"""`lispfmc moves` and `show` against the controller's real API, with a token."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

import fmcc.coordinator
from lispfmc.cli.moves import PHASES, aborted, listed, shown, started, timeline
from lispfmc.cli.output import Format
from lispfmc.cli.show import show
from lispfmc.lab.installation import Daemon, Installation
from lispfmc.runtime.client import ApiError
from lispfmc.runtime.config import ApiSettings
from tests.unit.test_fmcc_api import TOKENS, World, certificates, running, tokens

pytestmark = pytest.mark.asyncio
Captured = pytest.CaptureFixture[str]
COORDINATOR = Path(fmcc.coordinator.__file__).read_text()


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A controller that speaks TLS and asks for tokens, and a lab that consists of it."""
    authority, certificate, key = certificates(tmp_path)
    settings = ApiSettings(listen="127.0.0.1:0", certificate=certificate, key=key, tokens=tokens())
    async with running(tmp_path, settings) as world:
        api = f"https://localhost:{world.api.port}"
        lab = Installation("t", "t", "namespaces", [Daemon("fmcc", "fmcc", api)], [], "198.18.0.1")
        (tmp_path / "t").mkdir()
        (tmp_path / "t" / "lab.json").write_bytes(msgspec.json.encode(lab))
        monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
        monkeypatch.delenv("LISPFMC_LAB", raising=False)
        monkeypatch.setenv("LISPFMC_CA", str(authority))
        monkeypatch.setenv("LISPFMC_TOKEN", TOKENS["operate"])
        yield world


async def test_a_move_is_started_listed_and_aborted(world: World, capsys: Captured) -> None:
    assert await started("app", "dc2", scheme="", dry_run=False, lab_name=None, output=Format.json) == 0
    move = json.loads(capsys.readouterr().out)
    assert (move["service"], move["to"], move["state"]) == ("app", "dc2", "preparing")
    assert await aborted(move["id"], dry_run=False, lab_name=None, output=Format.table) == 0
    assert "app from dc1 to dc2: failed (aborted by request)" in capsys.readouterr().out
    await world.kept()
    assert await listed("app", limit=5, lab_name=None, output=Format.table) == 0
    assert move["id"] in capsys.readouterr().out
    assert await shown(move["id"], lab_name=None, output=Format.table) == 0
    told = capsys.readouterr().out
    assert PHASES["decided"] in told
    assert PHASES["failed"] in told
    assert await shown(move["id"], lab_name=None, output=Format.json) == 0
    assert {"id", "scheme", "state", "phases", "blackout_events_ms"} <= set(json.loads(capsys.readouterr().out))
    assert await shown("none", lab_name=None, output=Format.table) == 1


async def test_what_cannot_be_is_one_line_and_exit_1(world: World, capsys: Captured) -> None:
    assert await started("app", "dc1", scheme="", dry_run=False, lab_name=None, output=Format.table) == 1
    assert (
        capsys.readouterr().err == "lispfmc: app cannot move to dc1, it is there already, choose another data centre\n"
    )
    assert await aborted("none", dry_run=False, lab_name=None, output=Format.table) == 1


async def test_a_token_that_may_only_read_moves_nothing(
    world: World, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISPFMC_TOKEN", TOKENS["read"])
    assert await started("app", "dc2", scheme="", dry_run=False, lab_name=None, output=Format.table) == 1
    assert "use a token with the role operate" in capsys.readouterr().err
    assert await listed(None, limit=5, lab_name=None, output=Format.json) == 0
    monkeypatch.delenv("LISPFMC_TOKEN")
    with pytest.raises(ApiError, match="no valid token"):
        await listed(None, limit=5, lab_name=None, output=Format.json)


@pytest.mark.parametrize("table", ["users", "services", "datacenters", "distances", "placements"])
async def test_every_table_of_the_controller_is_shown(world: World, capsys: Captured, table: str) -> None:
    assert await show(table, at=None, lab_name=None, output=Format.table) == 0
    assert capsys.readouterr().out


async def test_a_move_is_told_phase_by_phase_in_order_of_time() -> None:
    phases = [
        {"name": "decided", "at_ms": 0.0},
        {"name": "resumed", "at_ms": 270.25},
        {"name": "stopped", "at_ms": 210.0},
        {"name": "of.later-versions", "at_ms": 300.0},
    ]
    assert timeline(phases) == [
        ["0.0", "0.0", "decided", "it was decided"],
        ["210.0", "210.0", "stopped", "STOP: the service stands still"],
        ["270.2", "60.2", "resumed", "RESUME: it runs at the target"],
        ["300.0", "29.8", "of.later-versions", ""],
    ]


async def test_every_phase_that_the_controller_keeps_has_its_words() -> None:
    assert set(re.findall(r'_with\([^"\n]*"([a-z.]+)"', COORDINATOR)) <= set(PHASES)
