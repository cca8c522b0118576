"""What a router has promised in lossless moves, on disk: one small file for each set of EIDs that moves together.

Written by one `write` and one rename, without fsync: it survives the process, which is what the protocol asks for, and
the switch-over waits for no disk.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from lispfmc.wire.errors import LocalError
from xtr.roles import Role

FOLDER = "moves"
VERSION = 1


class Remembered(msgspec.Struct, frozen=True):
    """A file's contents."""

    version: int
    role: Role


class Memory:
    """Without a folder nothing survives: a router that is started anew has promised nothing."""

    def __init__(self, state_dir: Path | None) -> None:
        """Raises LocalError when the folder cannot be made."""
        self._folder = state_dir / FOLDER if state_dir else None
        self._decode = msgspec.json.Decoder(Remembered).decode
        self._encode = msgspec.json.Encoder().encode
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"{self._folder}: {error.strerror}; what is promised in moves is kept there, see state_dir"
            ) from error

    def roles(self) -> list[Role]:
        """What was remembered. Raises LocalError: who forgets a promise may deliver what another router has."""
        if self._folder is None:
            return []
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def remember(self, role: Role) -> None:
        """Raises OSError."""
        if self._folder is None or role.plan is None:
            return
        name = sha256(repr(role.plan.eids).encode()).hexdigest()[:32]
        made = self._folder / f"{name}.new"
        made.write_bytes(self._encode(Remembered(VERSION, role)))
        made.replace(self._folder / f"{name}.json")

    def _read(self, path: Path) -> Role:
        try:
            found = self._decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise LocalError(
                f"{path}: what was promised in a move cannot be read ({error}); if that service moves nowhere now, "
                "delete the file"
            ) from error
        if found.version != VERSION:
            raise LocalError(f"{path}: version {found.version} of another release; run that one, or delete the file")
        return found.role
