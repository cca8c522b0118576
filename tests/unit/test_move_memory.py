"""What a router has promised survives the process; what cannot be read stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.errors import LocalError
from xtr.memory import Memory
from xtr.roles import Role, State

EIDS = (Prefix.parse("100.64.101.10/32"), Prefix.parse("[7]fd00::10/128"))
PLAN = Plan(0xFEDC << 48, 5, EIDS, (ip_of("198.18.0.21"), ip_of("2001:2::21")), (ip_of("198.18.0.22"),), bicast=True)
ROLE = Role(State.HOLDING, PLAN, owned=3, promised=5)


def test_the_last_role_of_each_service_comes_back(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    other = Role(State.GONE, Plan(1, 2, EIDS[:1], PLAN.source, PLAN.target), owned=1, promised=2)
    for role in (Role(State.HERE, PLAN), other, ROLE):
        memory.remember(role)
    assert sorted(Memory(tmp_path).roles(), key=lambda role: role.promised) == [other, ROLE]


def test_a_kill_between_write_and_rename_leaves_what_was_there(tmp_path: Path) -> None:
    Memory(tmp_path).remember(ROLE)
    (path,) = (tmp_path / "moves").iterdir()
    path.with_suffix(".new").write_bytes(b'{"version"')
    assert Memory(tmp_path).roles() == [ROLE]


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":1}', b'{"version":2,"role":{}}'])
def test_what_cannot_be_read_is_not_forgotten_in_silence(tmp_path: Path, content: bytes) -> None:
    Memory(tmp_path).remember(ROLE)
    (path,) = (tmp_path / "moves").iterdir()
    path.write_bytes(content)
    with pytest.raises(LocalError, match="delete the file"):
        Memory(tmp_path).roles()


def test_without_a_folder_nothing_is_kept() -> None:
    memory = Memory(None)
    memory.remember(ROLE)
    assert memory.roles() == []
