"""The journal: what was accepted since the last snapshot, appended before it is acknowledged.

A flat file of entries, each with its length, checksum, version and time. One `write` takes a whole batch, so that a
killed process loses nothing that it acknowledged. The last entry may be torn: reading ends before it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lispfmc.store import StoreError

MAGIC = b"LISPFMC journal\n"
VERSION = 1
LONGEST = 1 << 17  # bytes of an entry: a datagram and what we say of it

_FRAME = struct.Struct(">II")  # bytes that follow, their CRC-32
_HEAD = struct.Struct(">BBd")  # version, kind, unix time
_NAME = "journal."


class Entry(NamedTuple):
    """`time` is unix time in seconds; what `body` means depends on `kind`."""

    kind: int
    time: float
    body: bytes


def framed(kind: int, time: float, body: bytes) -> bytes:
    """The bytes of an entry."""
    whole = _HEAD.pack(VERSION, kind, time) + body
    return _FRAME.pack(len(whole), zlib.crc32(whole)) + whole


class Journal:
    """The file that is being written."""

    def __init__(self, folder: Path, number: int, *, fsync: bool = False) -> None:
        """Goes on with the file of that number, or begins it. Raises StoreError."""
        self.number = number
        self.path = path_of(folder, number)
        self._fsync = fsync
        self._waiting: list[bytes] = []
        self.lacks = False  # entries that could not be written: what follows them means nothing without a snapshot
        self._file = -1
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self.size = os.fstat(self._file).st_size
            if self.size < len(MAGIC):
                os.ftruncate(self._file, 0)
                self._write(MAGIC)
                self.size = len(MAGIC)
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
            raise StoreError(f"{self.path}: cannot write it, {error.strerror}; name a directory of ours") from error

    def add(self, kind: int, time: float, body: bytes) -> None:
        """Append an entry with the next `commit`."""
        self._waiting.append(framed(kind, time, body))

    def commit(self) -> bool:
        """Write what waits, all at once; whether there was anything.

        Raises StoreError, and then what waits is not in the file and will not be: nothing is written behind that gap.
        """
        if not self._waiting:
            return False
        data = b"".join(self._waiting)
        self._waiting.clear()
        if self.lacks:
            raise StoreError(f"{self.path}: what could not be written before is missing; a snapshot has to be next")
        try:
            self._write(data)
        except OSError as error:
            self.lacks = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)  # half an entry would hide all that follow
            raise StoreError(f"{self.path}: cannot write it, {error.strerror}") from error
        self.size += len(data)
        return True

    def _write(self, data: bytes) -> None:
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fsync:
            os.fdatasync(self._file)

    def sync(self) -> None:
        """Have the kernel bring it to the disk; from another thread, since that takes time."""
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{_NAME}{number:08d}"


def numbers(folder: Path) -> list[int]:
    """The journals that are there, in order."""
    names = (path.name.removeprefix(_NAME) for path in folder.glob(f"{_NAME}*"))
    return sorted(int(name) for name in names if name.isdigit())


def read(path: Path) -> Iterator[Entry]:
    """The whole entries of a file. What follows them is cut off and put aside: as a write that a kill cut short, which
    was never acknowledged, or as what a disk has damaged, which may have been.

    Raises StoreError for a file, or an entry, that this version does not understand.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC[: len(data)]):
        raise StoreError(f"{path}: it is no journal; move it away")
    at = len(MAGIC)
    while at + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, at)
        start, end = at + _FRAME.size, at + _FRAME.size + size
        whole = data[start:end]
        if size > LONGEST or size < _HEAD.size or end > len(data) or zlib.crc32(whole) != checksum:
            break
        version, kind, time = _HEAD.unpack_from(whole)
        if version != VERSION:
            raise StoreError(f"{path}: an entry of version {version}, this program reads {VERSION}; use a newer one")
        yield Entry(kind, time, whole[_HEAD.size :])
        at = end
    if at < len(data) or len(data) < len(MAGIC):
        with contextlib.suppress(OSError):  # for somebody to look at; a full disk must not keep us from starting
            cut_of(path).write_bytes(data[at:])
        os.truncate(path, min(at, len(data)) if len(data) >= len(MAGIC) else 0)


def cut_of(path: Path) -> Path:
    """Where what was cut off a journal is kept."""
    return path.with_name(f"{path.name}.cut")
