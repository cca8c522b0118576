"""The store that lasts: memory for every decision, a journal before every acknowledgement, a snapshot now and then.

Restart = snapshot + journal, with remaining lifetimes, nonces, subscriptions, and who was displaced. Replaying takes
the decisions again by the same rule, with what was refused left out, so that it comes to the same state.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from lispfmc.core.claims import claims_in
from lispfmc.core.merging import merge
from lispfmc.core.registry import STATIC, Accepted, Change, Kind, Lease, Owner, Register, Registrant, Registration, View
from lispfmc.core.subscriptions import NONCES_KEPT, Subscribed
from lispfmc.store import Dropped, Item, Numbered, Query, Released, StoreError, journal, snapshot
from lispfmc.store.entries import Over, Registered, Renewed, Said, decoded, encoded
from lispfmc.store.journal import Journal
from lispfmc.store.memory import EVENTS_KEPT
from lispfmc.store.snapshot import Keys
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import AUTH_OFFSET
from lispfmc.wire.messages import MapRegister

Fsync: TypeAlias = Literal["never", "interval", "always"]

RECENT_S = 120.0  # for as long as a Map-Notify is repeated
JOURNAL_BYTES = 256 << 20  # after which a snapshot is due: replaying takes a second or two for each 32 MB


class SqliteStore:
    """`now` is our monotonic time, `wall_now` the unix time of the same moment."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        *,
        now: float,
        wall_now: float,
        fsync: Fsync = "never",
        journal_bytes: int = JOURNAL_BYTES,
    ) -> None:
        """Raises StoreError when the folder cannot be used, or another process uses it."""
        self._folder = folder
        self._keys = keys
        self._offset = wall_now - now
        self._fsync = fsync
        self._journal_bytes = journal_bytes
        self._writer: int | None = None  # the process that writes a snapshot
        self._owed = False  # it has what a journal lacks: until it is complete nothing may be acknowledged
        self._lock = _locked(folder)
        try:
            loaded = snapshot.load(folder, keys, offset=self._offset)
            self.memory = loaded.memory
            self._subscriptions: dict[tuple[Prefix, bytes], Subscribed] = {}
            self._ended: dict[tuple[Prefix, bytes], None] = {}
            for each in loaded.subscriptions:
                self._keep(each)
            self._recent: deque[Change] = deque(maxlen=EVENTS_KEPT)
            self._recent_from = now - RECENT_S
            self.cut: dict[Path, int] = {}  # bytes that no journal could be read beyond, and where they are now
            last = self._replay(loaded.journal)
            self._journal = Journal(folder, last, fsync=fsync == "always")
        except BaseException:
            os.close(self._lock)
            raise

    # reading is the memory's

    def view(self, query: Query) -> View:
        return self.memory

    def events(self, after: int | None) -> Iterator[Numbered]:
        return self.memory.events(after)

    @property
    def last_event(self) -> int:
        return self.memory.last_event

    def registrations(self, after: Prefix | None = None) -> Iterator[Registration]:
        return self.memory.registrations(after)

    def static(self) -> Iterable[Registration]:
        return self.memory.static()

    def displaced(self, eid: Prefix) -> tuple[Registration, ...]:
        return self.memory.displaced(eid)

    def next_deadline(self) -> float | None:
        return self.memory.next_deadline()

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def settled(self) -> bool:
        return self.memory.settled

    def departures(self) -> Iterator[tuple[Prefix, Registration]]:
        return self.memory.departures()

    def recent(self) -> Sequence[Change]:
        return tuple(self._recent)

    def subscriptions(self) -> Iterable[Subscribed]:
        return iter(self._subscriptions.values())

    # changes

    def apply(self, batch: Sequence[Item], now: float) -> None:
        self.memory.apply(batch, now)
        for item in batch:
            if isinstance(item, Subscribed):
                self._keep(item)
            if (said := self._said(item)) is not None:
                self._journal.add(*self._framed(said, now))

    def forget(self) -> None:
        self.memory.forget()

    def renew(self, lease: Lease, nonce: int, now: float) -> None:
        self.memory.renew(lease, nonce, now)
        self._journal.add(*self._framed(Renewed(lease.number, nonce, lease.lifetime_s), now))

    def expired(self, now: float) -> list[Change]:
        changes = self.memory.expired(now)
        if self.memory.ended:
            over = Over(tuple(lease.number for lease in self.memory.ended))
            self._journal.add(*self._framed(over, now))
        return changes

    def commit(self) -> None:
        if self._journal.commit() and self._owed:
            raise StoreError(f"{self._folder}: the snapshot that has what the journal lacks is not complete yet")

    @property
    def syncs(self) -> bool:
        """Whether `sync` is to be called at intervals."""
        return self._fsync == "interval"

    def sync(self) -> None:
        """Bring the journal to the disk; called by another thread, at intervals."""
        self._journal.sync()

    def close(self) -> None:
        with contextlib.suppress(StoreError):
            self._journal.commit()
        self._reap(os.WNOHANG)
        self._journal.close()
        os.close(self._lock)

    # snapshots

    @property
    def snapshot_due(self) -> bool:
        due = self._owed or self._journal.lacks or self._journal.size > self._journal_bytes
        return self._writer is None and due

    def snapshot(self, *, wait: bool = False) -> None:
        """Have a forked process write the state as it is now, while this one goes on with a new journal.

        A copy of this process costs some milliseconds; a thread would hold up every answer for seconds, since it has
        to look at each EID.
        """
        if self._writer is not None:
            return
        before = self._journal
        with contextlib.suppress(StoreError):
            before.commit()  # what it lacks now the snapshot will have
        self._journal = Journal(self._folder, before.number + 1, fsync=self._fsync == "always")
        self._owed = self._owed or before.lacks
        before.close()
        parent = os.getpid()
        self._writer = os.fork()
        if not self._writer:
            self._write_and_exit(parent)
        if wait:
            self._reap(0)

    def tend(self) -> None:
        """To be called now and then: see whether a snapshot is complete, or one is due."""
        self._reap(os.WNOHANG)
        if self.snapshot_due:
            self.snapshot()

    def _write_and_exit(self, parent: int) -> None:
        """In the forked process: nothing of the event loop, of the sockets or of the journal may be touched."""
        status = 1
        try:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.nice(5)
            number = self._journal.number
            snapshot.write(
                self._folder,
                self.memory,
                self.subscriptions(),
                offset=self._offset,
                journal=number,
                unless=lambda: os.getppid() != parent,
            )
            status = 0
        finally:
            os._exit(status)

    def _reap(self, options: int) -> None:
        if self._writer is None:
            return
        pid, status = os.waitpid(self._writer, options)
        if not pid:
            return
        self._writer = None
        if status == 0:
            self._owed = False
            for number in journal.numbers(self._folder):
                if number < self._journal.number:
                    journal.path_of(self._folder, number).unlink(missing_ok=True)

    # the journal's entries

    def _framed(self, said: Said, now: float) -> tuple[int, float, bytes]:
        kind, body = encoded(said)
        return kind, now + self._offset, body

    def _said(self, item: Item) -> Said | None:
        if isinstance(item, Released | Dropped):
            return item
        if isinstance(item, Subscribed):
            return snapshot.in_unix_time(item, self._offset)
        register, lease = item.register, item.lease
        indexes: tuple[int, ...] = ()
        if isinstance(item, Accepted):
            if register.owner == STATIC:
                return None  # the configuration brings it back
            if item.renewed and lease is not None:
                return Renewed(lease.number, register.nonce, register.lifetime_s)
            indexes = _refused(item) if item.refusals else ()
        source = register.registrant.source
        number = lease.number if lease is not None else 0
        return Registered(
            register.owner.site, source.ip, source.port, register.lifetime_s, number, indexes, register.datagram
        )

    def _keep(self, item: Subscribed) -> None:
        key = (item.eid, item.xtr_id)
        self._subscriptions.pop(key, None)
        self._subscriptions[key] = item
        self._ended.pop(key, None)
        if item.ended:
            self._ended[key] = None
            if len(self._ended) > NONCES_KEPT:
                oldest = next(iter(self._ended))
                del self._ended[oldest], self._subscriptions[oldest]

    def _replay(self, first: int) -> int:
        """Apply the journals from `first` on; returns the number of the one to go on with."""
        leases = {lease.number: lease for lease in self.memory.leases}
        last = first
        for number in journal.numbers(self._folder):
            path = journal.path_of(self._folder, number)
            if number < first:
                path.unlink(missing_ok=True)
                continue
            last = number
            whole = path.stat().st_size
            for entry in journal.read(path):
                self._again(decoded(entry.kind, entry.body), entry.time - self._offset, leases)
            if (now := path.stat().st_size) < whole:
                self.cut[journal.cut_of(path)] = whole - now
        return last

    def _again(self, said: Said, now: float, leases: dict[int, Lease]) -> None:
        match said:
            case Registered():
                self._register_again(said, now, leases)
            case Renewed():
                if (lease := leases.get(said.lease)) is not None:
                    lease.expires_at = now + said.lifetime_s
                    self.memory.nonces[lease.registrant.owner, lease.registrant.key.id] = said.nonce
            case Over(leases=numbers):
                for number in numbers:
                    if (lease := leases.pop(number, None)) is not None:
                        self._changed(self.memory.end(lease, now), now)
            case Released() | Dropped():
                self.memory.apply([said], now)
            case Subscribed():
                self._keep(snapshot.in_unix_time(said, -self._offset))

    def _register_again(self, said: Registered, now: float, leases: dict[int, Lease]) -> None:
        message = decode(said.datagram)
        assert isinstance(message, MapRegister), "only accepted Map-Registers are written"
        key = self._keys(said.site, message.key_id)
        if key is None:
            return  # the site is no longer configured
        claimed = claims_in(said.datagram[AUTH_OFFSET + len(message.auth) :], message.records)
        kept = tuple(claim for index, claim in enumerate(claimed) if index not in said.refused)
        owner = Owner(said.site, message.xtr_id or said.ip)
        registrant = Registrant(owner, key, Endpoint(said.ip, said.port), message.word)
        outcome = merge(Register(registrant, message.nonce, kept, said.lifetime_s), self.memory, now)
        if isinstance(outcome, Accepted):
            if outcome.lease is not None:
                outcome.lease.number = said.lease
                leases[said.lease] = outcome.lease
            self.memory.apply([outcome], now)
            self._changed(outcome.changes, now)

    def _changed(self, changes: Iterable[Change], now: float) -> None:
        if now >= self._recent_from:
            self._recent.extend(change for change in changes if change.kind is not Kind.REFRESHED)


def _refused(accepted: Accepted) -> tuple[int, ...]:
    """Which of the claims."""
    refused = {refusal.eid for refusal in accepted.refusals}
    return tuple(index for index, claim in enumerate(accepted.register.claims) if claim.eid in refused)


def _locked(folder: Path) -> int:
    """Take the folder for this process alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{folder}: cannot use it, {error.strerror}; name a directory of ours") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"{folder}: another Map-Server uses it; give each its own") from error
    return lock
