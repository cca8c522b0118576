"""How results come to the disk: a file is written beside its place and renamed, so what is there is whole; a folder is
written to by one process at a time; JSON is for people to read, too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.wire.errors import LocalError


@contextmanager
def alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Nobody else writes there meanwhile. Raises LocalError, which says `otherwise`; a process that is killed holds
    nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LocalError(f"{folder}: {otherwise}") from None
        yield


def written(path: Path, data: bytes) -> None:
    """The file is whole or not there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)  # of a disk that is full


def pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
