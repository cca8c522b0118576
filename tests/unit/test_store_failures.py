"""The sqlite store on a disk that fails: what it acknowledges is there afterwards, and it recovers by itself."""

from __future__ import annotations

import itertools
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lispfmc.core.claims import claims
from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Owner, Register, Registrant
from lispfmc.store import Query, StoreError
from lispfmc.store.journal import Journal, read
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapRegister

KEY = Key(1, b"secret of access1")
RLOC = ip_of("198.18.0.11")
OWNER = Owner("access1", b"x" * 16)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size`: what a write then says is what it says on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class Storing:
    """Map-Registers into a store that is opened, killed and opened again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nonces = itertools.count(1)
        self.store = self._opened()

    def _opened(self) -> SqliteStore:
        return SqliteStore(self._folder, lambda _site, _key_id: KEY, now=1000.0, wall_now=5000.0)

    def registers(self, eid: str) -> None:
        record = EidRecord.of(Prefix.parse(eid), [Locator.of(RLOC)], ttl_minutes=1440)
        message = MapRegister.of(record, nonce=next(self._nonces), xtr_id=OWNER.xtr, site_id=bytes(8))
        registrant = Registrant(OWNER, KEY, Endpoint(RLOC, 4342), message.word)
        memo = hash(eid) or 1
        register = Register(registrant, message.nonce, claims([record]), 180.0, memo, sign(message, KEY))
        outcome = merge(register, self.store.view(Query(())), 1000.0)
        assert isinstance(outcome, Accepted)
        self.store.apply([outcome], 1000.0)

    def killed(self) -> None:
        """Nothing is written any more; what the files say is all that there is."""
        self.store._journal.close()
        os.close(self.store._lock)
        self.store = self._opened()

    def eids(self) -> list[str]:
        return [str(each.eid) for each in self.store.registrations()]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_refresh_of_what_could_not_be_written_is_not_acknowledged_before_a_snapshot_has_it(tmp_path: Path) -> None:
    storing = Storing(tmp_path)
    storing.registers("100.64.1.1/32")
    storing.store.commit()
    storing.registers("100.64.1.2/32")
    with full_disk(storing.store._journal.size), pytest.raises(StoreError, match="cannot write"):
        storing.store.commit()

    storing.registers("100.64.1.2/32")  # the same again: only a renewal of what the journal lacks
    with pytest.raises(StoreError, match="missing"):
        storing.store.commit()
    storing.store.tend()
    storing.registers("100.64.1.3/32")
    if storing.store._writer is not None:
        with pytest.raises(StoreError, match="not complete"):
            storing.store.commit()
        os.waitid(os.P_PID, storing.store._writer, os.WEXITED | os.WNOWAIT)
    storing.store.tend()
    storing.registers("100.64.1.2/32")
    storing.store.commit()

    storing.killed()
    assert storing.eids() == ["100.64.1.1/32", "100.64.1.2/32", "100.64.1.3/32"]


def test_nothing_to_keep_is_no_failure_while_a_snapshot_is_due(tmp_path: Path) -> None:
    storing = Storing(tmp_path)
    storing.registers("100.64.1.2/32")
    with full_disk(storing.store._journal.size), pytest.raises(StoreError):
        storing.store.commit()

    storing.store.commit()  # an answer to a question: nothing is acknowledged by it


def test_a_snapshot_that_failed_for_want_of_room_is_written_again(tmp_path: Path) -> None:
    storing = Storing(tmp_path)
    with full_disk(storing.store._journal.size):
        storing.registers("100.64.1.2/32")
        with pytest.raises(StoreError):
            storing.store.commit()
        storing.store.snapshot(wait=True)
        assert storing.store.snapshot_due

    storing.store.snapshot(wait=True)
    assert not storing.store.snapshot_due
    storing.killed()
    assert storing.eids() == ["100.64.1.2/32"]


def test_a_file_that_can_neither_be_written_nor_cut_is_a_failure_of_the_store(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    unwritable = os.open(journal.path, os.O_RDONLY)
    os.dup2(unwritable, journal._file)
    os.close(unwritable)
    journal.add(2, 1.0, b"x")
    with pytest.raises(StoreError, match="cannot write"):
        journal.commit()
    journal.close()


def test_a_journal_that_cannot_be_begun_leaves_no_file_open_and_can_be_begun_later(tmp_path: Path) -> None:
    before = open_files()
    for room in (0, 5):
        with full_disk(room), pytest.raises(StoreError):
            Journal(tmp_path, 7)
    assert open_files() == before

    journal = Journal(tmp_path, 7)
    journal.add(2, 1.0, b"entry")
    assert journal.commit()
    journal.close()
    assert [entry.body for entry in read(journal.path)] == [b"entry"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    storing = Storing(tmp_path)
    (tmp_path / ".snapshot.sqlite.4711").write_bytes(b"half of it")
    storing.registers("100.64.1.2/32")
    storing.store.snapshot(wait=True)
    assert list(tmp_path.glob(".snapshot*")) == []


def test_what_cannot_be_read_of_a_journal_is_put_aside_and_told(tmp_path: Path) -> None:
    storing = Storing(tmp_path)
    for number in range(1, 6):
        storing.registers(f"100.64.1.{number}/32")
        storing.store.commit()
    path = storing.store._journal.path
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)

    storing.killed()

    [(kept, size)] = storing.store.cut.items()
    assert storing.eids() == ["100.64.1.1/32", "100.64.1.2/32"]
    assert path.read_bytes() + kept.read_bytes() == bytes(damaged)
    assert size == kept.stat().st_size
    storing.killed()
    assert storing.store.cut == {}, "told once"
