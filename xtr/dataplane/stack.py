"""What the kernel's stack refused of the core's packets before our sockets saw anything: fragments that do not make a
whole, lengths that lie, wrong checksums; and what found our sockets full.

Counted by the kernel for the whole network namespace, other UDP too; what it had counted before we started is not ours.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import IO


class Stack:
    """Reads the kernel's counters of the namespace in which it was made."""

    def __init__(self) -> None:
        self._files: list[IO[str]] = []
        for name in ("snmp", "snmp6"):
            with contextlib.suppress(OSError):  # no IPv6, no /proc: nothing to count
                self._files.append(open(f"/proc/thread-self/net/{name}", encoding="ascii"))  # noqa: PTH123, SIM115
        self._before = self._now()

    def dropped(self) -> dict[str, int]:
        """Packets since the start, by the reasons for which there were any."""
        return dict(self._now() - self._before)

    def close(self) -> None:
        for each in self._files:
            each.close()

    def _now(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for each in self._files:
            with contextlib.suppress(OSError, ValueError):
                each.seek(0)
                total.update(_dropped(_counters(each.read())))
        return total


def _counters(text: str) -> dict[str, int]:
    """Both formats, as "Ip6ReasmFails 1", and names and values in lines of their own that begin with "Ip:"."""
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        protocol, *words = line.replace("Ip6", "Ip").replace("Udp6", "Udp").split()
        if not protocol.endswith(":"):
            found[protocol] = int(words[0])
        elif words[0].lstrip("-").isdigit():
            found |= {protocol[:-1] + name: int(word) for name, word in zip(names, words, strict=True)}
        else:
            names = words
    return found


def _dropped(counted: dict[str, int]) -> dict[str, int]:
    full, checksum = counted.get("UdpRcvbufErrors", 0), counted.get("UdpInCsumErrors", 0)
    others = full + checksum + counted.get("UdpMemErrors", 0)  # the kernel counts these as InErrors, too
    return {
        "dropped.outer-fragments": counted.get("IpReasmFails", 0),
        "dropped.outer-length": max(counted.get("UdpInErrors", 0) - others, 0),
        "dropped.outer-checksum": checksum,
        "dropped.receive-buffer": full,
    }
