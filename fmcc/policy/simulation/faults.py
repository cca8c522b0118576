"""What is wrong with a trace."""

from __future__ import annotations

from pathlib import Path

from lispfmc.wire.errors import LocalError


class TraceError(LocalError):
    """A trace that cannot be used: `file:line: what is wrong; what to do`."""

    def __init__(self, path: Path, line: int | None, why: str) -> None:
        super().__init__(f"{path}:{line}: {why}" if line is not None else f"{path}: {why}")
