"""Outer fragments that the kernel could not put together again: it reassembles before our sockets see anything.

Counted by the kernel for the whole network namespace; what it had counted before we started is not ours.
"""

from __future__ import annotations

import contextlib
from typing import IO


class Reassembly:
    """Reads the kernel's counters of the namespace in which it was made."""

    def __init__(self) -> None:
        self._files: list[IO[str]] = []
        for name in ("snmp", "snmp6"):
            with contextlib.suppress(OSError):  # no IPv6, no /proc: nothing to count
                self._files.append(open(f"/proc/thread-self/net/{name}", encoding="ascii"))  # noqa: PTH123, SIM115
        self._before = self._now()

    def failed(self) -> int:
        """Packets that were given up since the start."""
        return self._now() - self._before

    def close(self) -> None:
        for each in self._files:
            each.close()

    def _now(self) -> int:
        total = 0
        for each in self._files:
            with contextlib.suppress(OSError, ValueError):
                each.seek(0)
                total += _failures(each.read())
        return total


def _failures(text: str) -> int:
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "Ip6ReasmFails":
            return int(words[1])
        if words and words[0] == "Ip:":
            if names:
                return int(words[names.index("ReasmFails")])
            names = words
    return 0
