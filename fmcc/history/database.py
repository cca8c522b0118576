"""The history's SQLite file (WAL): opened with suspicion, written in whole transactions, read in pages.

A file that is damaged, another program's, or of a later version is a clear error and stays as it is. Moves and
decisions are kept up to a bound. One thread at a time writes, one reads; neither is the event loop's.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fmcc.api.answers import Migration, PastDecision
from fmcc.history.records import Batch, KeptService, KeptUser
from lispfmc.wire.errors import LocalError

FILE = "history.sqlite"
APPLICATION_ID = 0x4C464D43  # "LFMC": how the file says whose it is
VERSION = 1
MOVES_KEPT = 10_000
DECISIONS_KEPT = 100_000
T = TypeVar("T", bound=msgspec.Struct)

# what is searched for has a column; all of it is in `described`, as JSON
SCHEMA = f"""
BEGIN;
CREATE TABLE users (name TEXT PRIMARY KEY, described TEXT NOT NULL) STRICT;
CREATE TABLE services (name TEXT PRIMARY KEY, described TEXT NOT NULL) STRICT;
CREATE TABLE sites (name TEXT PRIMARY KEY, described TEXT NOT NULL) STRICT;
CREATE TABLE moves (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, service TEXT NOT NULL,
  described TEXT NOT NULL) STRICT;
CREATE INDEX moves_of ON moves (service, number);
CREATE TABLE decisions (number INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL,
  described TEXT NOT NULL) STRICT;
CREATE INDEX decisions_of ON decisions (service, number);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class HistoryError(LocalError):
    """The history cannot be opened, read or written."""


class History:
    """One controller's. Raises HistoryError from everything."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = _locked(folder)
        try:
            self._writer, self._reader = self._opened(), self._connected()
        except BaseException:
            os.close(self._lock)
            raise
        self._reading = threading.Lock()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    # --- what the last run knew ---------------------------------------------------------------------------------------

    def users(self) -> list[KeptUser]:
        return self._all("SELECT described FROM users", KeptUser)

    def services(self) -> list[KeptService]:
        return self._all("SELECT described FROM services", KeptService)

    def sites(self) -> dict[str, list[str]]:
        """The RLOCs that the mapping system gave for sites that have none configured."""
        rows = self._rows("SELECT name, described FROM sites", ())
        return {name: self._decoded(described, list[str]) for name, described in rows}

    # --- what happens -------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """All of it, or nothing."""
        try:
            with self._writer as writer:
                writer.execute("BEGIN IMMEDIATE")
                _put(writer, "users", ((each.name, _json(each)) for each in batch.users))
                _put(writer, "services", ((each.name, _json(each)) for each in batch.services))
                writer.executemany("DELETE FROM users WHERE name = ?", ((name,) for name in batch.gone_users))
                writer.executemany("DELETE FROM services WHERE name = ?", ((name,) for name in batch.gone_services))
                if batch.sites is not None:
                    _put(writer, "sites", ((name, _json(rlocs)) for name, rlocs in batch.sites.items()))
                self._write_moves(writer, batch.moves)
                self._write_decisions(writer, batch.decisions)
        except sqlite3.Error as error:
            raise HistoryError(f"{self.path}: cannot be written, {error}; see to the disk") from error

    def _write_moves(self, writer: sqlite3.Connection, moves: list[Migration]) -> None:
        if moves:
            put = (
                "INSERT INTO moves (id, service, described) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET described = excluded.described"
            )
            writer.executemany(put, ((each.id, each.service, _json(each)) for each in moves))
            writer.execute("DELETE FROM moves WHERE number <= (SELECT max(number) FROM moves) - ?", (MOVES_KEPT,))

    def _write_decisions(self, writer: sqlite3.Connection, decisions: list[PastDecision]) -> None:
        if decisions:
            put = "INSERT INTO decisions (service, described) VALUES (?, ?)"
            writer.executemany(put, ((each.service, _json(each)) for each in decisions))
            gone = "DELETE FROM decisions WHERE number <= (SELECT max(number) FROM decisions) - ?"
            writer.execute(gone, (DECISIONS_KEPT,))

    # --- pages --------------------------------------------------------------------------------------------------------

    def migrations(self, service: str | None, before: int | None, limit: int) -> list[Migration]:
        """Newest first, those before the number `before`."""
        return self._page("moves", service, before, limit, Migration)

    def migration(self, move: str) -> Migration | None:
        rows = self._rows("SELECT number, described FROM moves WHERE id = ?", (move,))
        return next((self._numbered(number, text, Migration) for number, text in rows), None)

    def decisions(self, service: str | None, before: int | None, limit: int) -> list[PastDecision]:
        """The same, for decisions."""
        return self._page("decisions", service, before, limit, PastDecision)

    def _page(self, table: str, service: str | None, before: int | None, limit: int, kind: type[T]) -> list[T]:
        where = "number < ?" + (" AND service = ?" if service is not None else "")
        values: list[Any] = [before if before is not None else 1 << 62, *([service] if service is not None else [])]
        sql = f"SELECT number, described FROM {table} WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608 - our own names
        return [self._numbered(number, text, kind) for number, text in self._rows(sql, (*values, limit))]

    def _numbered(self, number: int, text: str, kind: type[T]) -> T:
        decoded: T = self._decoded(text, kind)
        return msgspec.structs.replace(decoded, number=number)

    def _all(self, sql: str, kind: type[T]) -> list[T]:
        return [self._decoded(text, kind) for (text,) in self._rows(sql, ())]

    def _rows(self, sql: str, values: Iterable[Any]) -> list[Any]:
        try:
            with self._reading:
                return self._reader.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise HistoryError(f"{self.path}: cannot be read, {error}; move it away and start anew") from error

    def _decoded(self, text: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError as error:
            raise HistoryError(f"{self.path}: is damaged, {error}; move it away and start anew") from error

    # --- opening ------------------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        connection = self._connected()
        try:
            if self._is_new(connection):
                connection.executescript(SCHEMA)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            connection.close()
            raise self._damaged(str(error)) from error
        except HistoryError:
            connection.close()
            raise
        return connection

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        """Raises HistoryError when there is something in the file that is not for us."""
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not owner and not tables:
            return True
        if owner != APPLICATION_ID:
            raise HistoryError(f"{self.path}: is another program's database; name another state_dir, or move it away")
        if version != VERSION:
            why = f"was written by another version ({version}, this one knows {VERSION})"
            raise HistoryError(f"{self.path}: {why}; run that one, or move the file away")
        (checked,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if checked != "ok":
            raise self._damaged(checked)
        return False

    def _damaged(self, why: str) -> HistoryError:
        return HistoryError(f"{self.path}: is damaged or no database, {why}; move it away and start anew")

    def _connected(self) -> sqlite3.Connection:
        try:
            # where users are is nobody else's business; SQLite gives its other files the same mode
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"{self.path}: cannot be opened, {error}; name a directory of ours") from error


def _put(writer: sqlite3.Connection, table: str, rows: Iterable[tuple[str, str]]) -> None:
    writer.executemany(f"INSERT OR REPLACE INTO {table} (name, described) VALUES (?, ?)", rows)  # noqa: S608 - our own names


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _locked(folder: Path) -> int:
    """Take the folder for this process alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "history.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HistoryError(f"{folder}: cannot be used, {error.strerror}; name a directory of ours") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise HistoryError(f"{folder}: another controller uses it; give each its own state_dir") from error
    return lock
