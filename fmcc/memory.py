"""How services stand, across restarts: a journal in the state directory, one line and one write for each change.

A change is written before anything that follows from it is sent; a killed process loses nothing (without fsync, so
that a failing power supply may take the last lines with it). The last line of a service counts. The file is written
anew, all or nothing, when it is opened and when old lines dominate it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

import msgspec

from fmcc.standing import Standing
from lispfmc.wire.errors import LocalError

FILE = "moves.jsonl"
MOST_OLD_LINES = 4096


class Memory(Protocol):
    """Where standings are kept."""

    def load(self) -> dict[str, Standing]:
        """The last standing of each service. Raises LocalError when it cannot be read."""

    def remember(self, service: str, standing: Standing | None) -> None:
        """None: it is no more."""


class Forgetful:
    """Without a state directory: a restart begins from what the mapping system and the agents say."""

    def load(self) -> dict[str, Standing]:
        return {}

    def remember(self, service: str, standing: Standing | None) -> None:
        pass


class _Line(msgspec.Struct, frozen=True):
    service: str
    standing: Standing | None


class Journal:
    """See the module."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._last: dict[str, Standing] = {}
        self._lines = 0
        self._bytes = 0
        self._file = -1

    def load(self) -> dict[str, Standing]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
            # what follows the last newline is what a killed process was writing
            for number, text in enumerate(lines[:-1], 1):
                line = self._line(number, text)
                self._take(line.service, line.standing)
            self._write_anew()
        except OSError as error:
            raise LocalError(f"{self._path}: {error.strerror}; name a directory of ours as state_dir") from error
        return dict(self._last)

    def remember(self, service: str, standing: Standing | None) -> None:
        self._take(service, standing)
        line = _encoded(service, standing)
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, self._bytes)  # else the next line would begin within this one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._bytes += len(line)
        self._lines += 1
        if self._lines > MOST_OLD_LINES + 2 * len(self._last):
            self._write_anew()

    def _take(self, service: str, standing: Standing | None) -> None:
        if standing is None:
            self._last.pop(service, None)
        else:
            self._last[service] = standing

    def _line(self, number: int, text: bytes) -> _Line:
        try:
            return msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError as error:
            raise LocalError(
                f"{self._path}:{number}: {error}; delete the file, the controller then asks the mapping system and the "
                "agents where services are"
            ) from error

    def _write_anew(self) -> None:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        self._bytes = draft.write_bytes(b"".join(_encoded(*each) for each in self._last.items()))
        draft.replace(self._path)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._lines = len(self._last)


def _encoded(service: str, standing: Standing | None) -> bytes:
    return msgspec.json.encode(_Line(service, standing)) + b"\n"
