"""What decoding can raise. `PeerError` and nothing else leaves `decode`: the packet is wrong, not the program.

`LocalError` is the other family: our own caller or configuration is wrong; it is raised loudly.
"""

from __future__ import annotations


class PeerError(Exception):
    """A packet from the network is refused.

    Attributes:
        field: what was being read, in the RFC's words ("locator count").
        offset: byte offset in the datagram where it stands.
        why: what is wrong with it.
    """

    def __init__(self, field: str, *, offset: int, why: str) -> None:
        super().__init__(f"{field} at byte {offset}: {why}")
        self.field = field
        self.offset = offset
        self.why = why


class LocalError(Exception):
    """Our caller or our configuration is wrong."""
