"""Nonces for the cores, which never make their own: an ordered sequence for what is replay-protected, a random one for
Map-Requests.

RFC 9301 §5.6 wants the nonce of a Map-Register to grow, across restarts too. An ordered nonce is unix milliseconds and
a counter, so it does unless the wall clock steps back while we are away; with a state directory it does even then. The
file there holds a mark above every nonce that was ever used, moved ahead in good time: using a nonce touches no disk.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from lispfmc.wire.errors import LocalError

_COUNTER_BITS = 20
_NONCES = 1 << 64
RESERVED_S = 600.0
RESERVED = int(RESERVED_S * 1000) << _COUNTER_BITS  # nonces that a mark is ahead of the clock
FILE = "nonces"

_log = structlog.get_logger("nonces")


class OrderedNonces(Iterator[int]):
    """Strictly growing 64-bit nonces that follow the wall clock, and never pass the mark in the file.

    When the clock steps back they count on from where they were; when the mark cannot be moved, a full disk say, they
    count on below it, which lasts for 6 * 10^11 of them.
    """

    def __init__(self, file: Path | None = None, wall_clock: Callable[[], float] = time.time) -> None:
        """Without a file there is no mark. Raises LocalError when the file cannot be read or written."""
        self._file = file
        self._wall_clock = wall_clock
        self._last = 0
        self._mark = _NONCES
        self._task: asyncio.Task[None] | None = None
        if file is not None:
            self._last = _read(file) - 1
            self.reserve()

    def __next__(self) -> int:
        clock = int(self._wall_clock() * 1000) << _COUNTER_BITS
        last = self._last
        nonce = clock if last < clock < self._mark else last + 1
        if nonce >= self._mark:
            raise LocalError(f"{self._file}: every reserved nonce is used; see why the file cannot be written")
        self._last = nonce
        return nonce

    def reserve(self) -> None:
        """Move the mark ahead: to disk first, then into use. Raises LocalError when it cannot be written."""
        if self._file is None:
            return
        clock = int(self._wall_clock() * 1000) << _COUNTER_BITS
        mark = max(clock, self._last + 1) + RESERVED
        if mark >= _NONCES:
            raise LocalError(f"{self._file}: the nonces are used up; take new keys, then delete the file")
        _write(self._file, mark)
        self._mark = mark

    def start(self) -> None:
        """Move the mark in the background from now on, by a thread: the loop never waits for a disk."""
        if self._file is not None:
            self._task = asyncio.get_running_loop().create_task(self._keep(), name="nonces")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RESERVED_S / 3)
            try:
                await asyncio.to_thread(self.reserve)
            except LocalError as error:
                _log.warning("nonces.not-reserved", why=str(error))


def ordered_nonces(state_dir: Path | None = None, wall_clock: Callable[[], float] = time.time) -> OrderedNonces:
    """Strictly growing nonces, with a mark in `state_dir` if there is one. Raises LocalError when it is unusable."""
    return OrderedNonces(state_dir / FILE if state_dir is not None else None, wall_clock)


def random_nonces() -> Iterator[int]:
    """Unpredictable 64-bit nonces: RFC 9301 §5.2 has the reply to a Map-Request trusted by them."""
    while True:
        yield secrets.randbits(64)


def _read(file: Path) -> int:
    """The mark, or 0 when there is none yet."""
    try:
        text = file.read_text(encoding="ascii")
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise LocalError(f"{file}: cannot read it, {why}; name a directory of ours as state_dir") from error
    try:
        mark = int(text, 16)
    except ValueError:
        mark = -1
    if not 0 <= mark < _NONCES:
        raise LocalError(f"{file}: {text[:20]!r} is no nonce; if the clock is right, delete the file")
    return mark


def _write(file: Path, mark: int) -> None:
    """All or nothing, and on the disk when this returns."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="ascii") as out:
            out.write(f"{mark:016x}\n")
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise LocalError(f"{file}: cannot write it, {error.strerror}; name a directory of ours as state_dir") from error
