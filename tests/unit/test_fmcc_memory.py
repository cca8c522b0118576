"""The journal of how services stand: what a killed controller knows when it comes back."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fmcc import memory
from fmcc.memory import FILE, Forgetful, Journal
from fmcc.moves import Move, Phase, State
from fmcc.standing import Standing
from fmcc.steering.lead import Lead
from fmcc.steering.lead import State as LeadState
from lispfmc.core.plans import Plan
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.errors import LocalError

EIDS = (Prefix.parse("100.64.101.10/32"), Prefix.parse("[7]fd00:0:0:101::10/128"))
PLAN = Plan(7, 2, EIDS, (ip_of("198.18.0.21"),), (ip_of("198.18.0.22"), ip_of("2001:2::22")))
MOVE = Move("0000000000000007", "dc1", "dc2", 2, State.COPYING, (Phase("decided", 1.5),), deadline=9.0)
STANDING = Standing("dc1", 1, MOVE, Lead(LeadState.READY, PLAN))


def journal(folder: Path) -> Journal:
    opened = Journal(folder)
    opened.load()
    return opened


def test_what_was_written_last_is_known_after_a_restart(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.remember("app", Standing("dc1", 1))
    written.remember("other", Standing("dc2", 4))
    written.remember("app", STANDING)
    assert Journal(tmp_path).load() == {"app": STANDING, "other": Standing("dc2", 4)}


def test_what_is_removed_is_forgotten_and_may_come_again(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.remember("app", STANDING)
    written.remember("app", None)
    written.remember("other", None)
    assert Journal(tmp_path).load() == {}
    written = journal(tmp_path)
    written.remember("app", Standing("dc2", 5))
    assert Journal(tmp_path).load() == {"app": Standing("dc2", 5)}


def test_a_line_that_was_being_written_when_the_process_was_killed_does_not_count(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.remember("app", STANDING)
    written.remember("app", Standing("dc2", 2))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-5])
    again = journal(tmp_path)
    again.remember("other", Standing("dc1", 1))
    assert Journal(tmp_path).load() == {"app": STANDING, "other": Standing("dc1", 1)}


def test_a_line_that_the_disk_had_no_room_for_does_not_spoil_the_next(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.remember("app", STANDING)
    size = (tmp_path / FILE).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        with pytest.raises(OSError, match=FILE):
            written.remember("other", Standing("dc1", 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Journal(tmp_path).load() == {"app": STANDING}
    written = journal(tmp_path)
    written.remember("other", Standing("dc1", 2))
    assert Journal(tmp_path).load() == {"app": STANDING, "other": Standing("dc1", 2)}


def test_a_line_that_nobody_can_have_written_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"service": "app"}\n')
    with pytest.raises(LocalError, match=r"moves\.jsonl:1: .*; delete the file"):
        Journal(tmp_path).load()


def test_old_lines_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_OLD_LINES", 10)
    written = journal(tmp_path)
    for version in range(1, 100):
        written.remember("app", Standing("dc1", version))
    assert len((tmp_path / FILE).read_bytes().splitlines()) <= 13
    assert Journal(tmp_path).load() == {"app": Standing("dc1", 99)}


def test_a_folder_that_cannot_be_made_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="name a directory of ours as state_dir"):
        Journal(tmp_path / "file").load()


def test_without_a_folder_nothing_is_kept() -> None:
    kept = Forgetful()
    kept.remember("app", STANDING)
    assert kept.load() == {}
