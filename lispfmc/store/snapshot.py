"""The snapshot: the whole state of a store in one SQLite file, times as unix time.

Written to a file of its own that takes its place when it is complete; one row a lease, so that loading a million EIDs
takes seconds. What the configuration maps is not in it, and keys are named, not told.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from lispfmc.core.merging import union
from lispfmc.core.registry import STATIC, Lease, Owner, Registrant, Registration
from lispfmc.core.subscriptions import Subscribed
from lispfmc.store import StoreError
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key

VERSION = 1
_IPV4 = b"\0\1"  # an AFI
FILE = "snapshot.sqlite"

Keys: TypeAlias = Callable[[str, int], Key | None]
"""A site's key by its id; another one of the site where that one is gone; None when the site is gone."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE xtrs (site TEXT, xtr BLOB, key_id INTEGER, nonce BLOB NOT NULL);
CREATE TABLE registrants (id INTEGER PRIMARY KEY, site TEXT, xtr BLOB, key_id INTEGER, ip BLOB, port INTEGER,
                          word INTEGER);
CREATE TABLE leases (number INTEGER PRIMARY KEY, registrant INTEGER, expires_at REAL, claimed INTEGER, records BLOB,
                     since BLOB);
CREATE TABLE departed (registrant INTEGER, record BLOB, since REAL, iid INTEGER, ip BLOB, length INTEGER);
CREATE TABLE subscriptions (body BLOB NOT NULL);
"""


class Loaded(msgspec.Struct):
    """A store's state, and the first journal that goes on from it."""

    memory: MemoryStore
    subscriptions: list[Subscribed]
    journal: int = 0


def write(
    folder: Path,
    memory: MemoryStore,
    subscriptions: Iterable[Subscribed],
    *,
    offset: float,
    journal: int,
    unless: Callable[[], bool] = lambda: False,
) -> None:
    """Write the state, but let the last snapshot stand if `unless` says so in the end. Raises StoreError.

    `offset` is unix time less our `now`.
    """
    draft = folder / f".{FILE}.{os.getpid()}"
    try:
        for left in folder.glob(f".{FILE}.*"):  # by a writer that was killed
            left.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as database:
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;" + _SCHEMA)
            _fill(database, memory, subscriptions, offset)
            meta = {"version": VERSION, "journal": journal, "lease": memory.leases.last_number}
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            database.execute("COMMIT")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        if unless():
            draft.unlink()
        else:
            draft.replace(folder / FILE)
    except (OSError, sqlite3.Error) as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{draft}: cannot write the snapshot, {error}") from error


def _fill(
    database: sqlite3.Connection, memory: MemoryStore, subscriptions: Iterable[Subscribed], offset: float
) -> None:
    ids: dict[Registrant, int] = {}

    def registrant(each: Registrant) -> int:
        return ids.setdefault(each, len(ids))

    xtrs = (
        (owner.site, owner.xtr, key_id, nonce.to_bytes(8, "big")) for (owner, key_id), nonce in memory.nonces.items()
    )
    database.executemany("INSERT INTO xtrs VALUES (?, ?, ?, ?)", xtrs)
    leases = (
        (
            each.number,
            registrant(each.registrant),
            each.expires_at + offset,
            each.claimed,
            *_members(memory, each, offset),
        )
        for each in memory.leases
    )
    database.executemany("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)", leases)
    departed = (
        (registrant(left.registrant), left.record, left.since + offset, eid.iid, eid.ip, eid.length)
        for eid, owners in memory.departed.items()
        for left in owners.values()
        if left.owner != STATIC
    )
    database.executemany("INSERT INTO departed VALUES (?, ?, ?, ?, ?, ?)", departed)
    encode = msgspec.msgpack.encode
    database.executemany(
        "INSERT INTO subscriptions VALUES (?)", ((encode(in_unix_time(each, offset)),) for each in subscriptions)
    )
    rows = (
        (number, each.owner.site, each.owner.xtr, each.key.id, each.source.ip, each.source.port, each.word)
        for each, number in ids.items()
    )
    database.executemany("INSERT INTO registrants VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _members(memory: MemoryStore, lease: Lease, offset: float) -> tuple[bytes, bytes]:
    """The lease's registrations that still stand."""
    standing = [
        member
        for member in lease.members
        if (current := memory.table.get(member.eid)) is not None and any(part is member for part in current.each)
    ]
    lengths = array("I", (len(each.record) for each in standing)).tobytes()
    since = array("d", (each.since + offset for each in standing)).tobytes()
    return b"".join(each.record for each in standing), lengths + since


def in_unix_time(subscription: Subscribed, offset: float) -> Subscribed:
    """Its end `offset` later, if it has one."""
    until = subscription.until
    return subscription if until is None else msgspec.structs.replace(subscription, until=until + offset)


def load(folder: Path, keys: Keys, *, offset: float) -> Loaded:
    """The state of the snapshot, or an empty one where there is none. Raises StoreError."""
    loaded = Loaded(MemoryStore(), [])
    path = folder / FILE
    if not path.exists():
        return loaded
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            meta = dict(database.execute("SELECT name, value FROM meta"))
            if meta.get("version") != VERSION:
                why = f"it is of version {meta.get('version')}, this program reads {VERSION}"
                raise StoreError(f"{path}: {why}; use the program that wrote it, or move it away")
            _take(database, loaded, keys, offset)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot read the snapshot, {error}; move it away to begin anew") from error
    loaded.memory.leases.last_number = max(loaded.memory.leases.last_number, meta["lease"])
    loaded.journal = meta["journal"]
    return loaded


def _take(database: sqlite3.Connection, loaded: Loaded, keys: Keys, offset: float) -> None:
    memory = loaded.memory
    for site, xtr, key_id, nonce in database.execute("SELECT * FROM xtrs"):
        memory.nonces[Owner(site, xtr), key_id] = int.from_bytes(nonce, "big")
    registrants: dict[int, Registrant] = {}
    for number, site, xtr, key_id, ip, port, word in database.execute("SELECT * FROM registrants"):
        if (key := keys(site, key_id)) is not None:
            registrants[number] = Registrant(Owner(site, xtr), key, Endpoint(ip, port), word)
    shared: dict[Prefix, tuple[Registration, ...]] = {}
    memory.table.fill(_registrations(database, memory, registrants, shared, offset))
    for eid, parts in shared.items():
        memory.table.set(eid, union(parts, None, max(part.since for part in parts)))
    for number, record, since, iid, ip, length in database.execute("SELECT * FROM departed"):
        if (registrant := registrants.get(number)) is not None:
            left = Registration(record, Lease(0.0, 0, 0.0, registrant), since - offset)
            memory.departed.setdefault(Prefix(iid, ip, length), {})[registrant.owner] = left
    decode = msgspec.msgpack.Decoder(Subscribed).decode
    loaded.subscriptions = [
        in_unix_time(decode(body), -offset) for (body,) in database.execute("SELECT * FROM subscriptions")
    ]


def _registrations(
    database: sqlite3.Connection,
    memory: MemoryStore,
    registrants: dict[int, Registrant],
    shared: dict[Prefix, tuple[Registration, ...]],
    offset: float,
) -> Iterator[tuple[int, Ip, int, Registration]]:
    """Every registration of the snapshot, by EID; EIDs with several are gathered in `shared`."""
    merged: dict[Prefix, Registration] = {}
    for number, registrant_id, expires_at, claimed, data, sizes in database.execute(
        "SELECT * FROM leases ORDER BY number"
    ):
        registrant = registrants.get(registrant_id)
        if registrant is None:
            continue
        count = len(sizes) // 12
        lengths, since = array("I", sizes[: count * 4]), array("d", sizes[count * 4 :])
        lease = Lease(0.0, number, expires_at - offset, registrant, 0, 0.0, claimed, count)
        members: list[Registration] = []
        at = 0
        for length, began in zip(lengths, since, strict=True):
            member = Registration(data[at : at + length], lease, began - offset)
            at += length
            members.append(member)
            if registrant.merges:
                eid = member.eid
                first = merged.setdefault(eid, member)
                if first is not member:
                    shared[eid] = (*shared.get(eid, (first,)), member)
            record = member.record
            if record[10:12] == _IPV4:
                yield 0, record[12:16], record[5], member
            else:
                eid = member.eid
                yield eid.iid, eid.ip, eid.length, member
        lease.members = tuple(members)
        memory.leases.add(lease)
