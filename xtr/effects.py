"""What the tunnel router's cores want done beside sending: changes to the tables that the data plane reads.

A data packet never enters a core; only misses and evidence do (see `xtr.dataplane.Evidence`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire.address import Ip, Prefix
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Release, Remember, Switch


class Hop(msgspec.Struct, frozen=True, gc=False):
    """One usable locator with its share of the flows."""

    rloc: Ip
    weight: int


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Encapsulate to one of `hops`, chosen by flow hash; with `replicate` to each of them.

    `away` marks an EID that was here and has moved: packets that still arrive encapsulated for it are re-encapsulated
    (outer TTL - 1, RFC 9300 §5.3), and each sender is reported so that it can be told. With `sink` such packets are
    dropped instead, and their senders reported just so; the site's own packets go to `hops` in any case.
    """

    hops: tuple[Hop, ...]
    away: bool = False
    replicate: bool = False
    sink: bool = False


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Drop packets for the prefix; `native` = the mapping system said Natively-Forward (no such EID)."""

    native: bool = False


class Native(msgspec.Struct, frozen=True, gc=False):
    """Leave packets for the prefix to the plain routing table (RFC 9301 §5.4, ACT Natively-Forward)."""


Forwarding: TypeAlias = Forward | Drop | Native
"""What happens to packets for an EID-Prefix that is not here."""


class Install(msgspec.Struct, frozen=True, gc=False):
    """Set what happens to packets for `eid`; packets that were queued while it was resolved go out."""

    eid: Prefix
    forwarding: Forwarding


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Forget `eid`: the next packet for it is a miss."""

    eid: Prefix


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """The host `eid` is here, behind `interface` with this MAC address: deliver its packets locally."""

    eid: Prefix
    interface: str
    mac: bytes


class Undeliver(msgspec.Struct, frozen=True, gc=False):
    """The host `eid` is no longer here."""

    eid: Prefix


class ProbeHost(msgspec.Struct, frozen=True, gc=False):
    """Ask on the site's interfaces who has `eid` (ARP request or Neighbour Solicitation); the answer is evidence."""

    eid: Prefix


class StandIn(msgspec.Struct, frozen=True, gc=False):
    """Answer the host `asker` at `mac` on `interface` that `eid` is at our MAC address."""

    eid: Prefix
    interface: str
    asker: Ip
    mac: bytes


class TakeOver(msgspec.Struct, frozen=True, gc=False):
    """Tell the site's links that `eid`, which was here, is at our MAC address from now on."""

    eid: Prefix


MoveEffect: TypeAlias = Switch | Release | Mark | Await | Remember
"""What a lossless move asks of the data plane and of the memory that survives the process (`xtr.roles`)."""

XtrEffect: TypeAlias = (
    Send | Emit | Reject | Install | Remove | Deliver | Undeliver | ProbeHost | StandIn | TakeOver | MoveEffect
)
"""Everything that the tunnel router's core can ask for."""
