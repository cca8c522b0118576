"""Who is registered for an EID: the values of the mapping database.

A registration is kept as the bytes of the record that others are told, and refers to the lease of the Map-Register that
brought it: a million EIDs cost a dictionary entry, their bytes, and one small value each. `lispfmc.core.merging` has
the rule that changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

import msgspec

from lispfmc.wire import records
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord

_PROXY_REPLY, _SECURITY, _MERGE = 0x0800_0000, 0x0400_0000, 0x0000_0400


class Owner(msgspec.Struct, frozen=True, gc=False, order=True):
    """The xTR that registers: its site, and its xTR-ID (its RLOC when it sends none)."""

    site: str
    xtr: bytes


STATIC = Owner("static", b"")
"""The owner of what the configuration maps. No site can be it: an xTR always has an id or an address."""
STATIC_WORD = _PROXY_REPLY  # nobody else can answer for it


class Registrant(msgspec.Struct, frozen=True, gc=False):
    """An xTR as it registers: one value for all of its Map-Registers, until it changes its mind."""

    owner: Owner
    key: Key
    source: Endpoint
    word: int  # the flag bits of its Map-Register

    @property
    def proxy_reply(self) -> bool:
        return bool(self.word & _PROXY_REPLY)

    @property
    def security_capable(self) -> bool:
        """The S-bit: it can answer with LISP-SEC (RFC 9303 §6.2)."""
        return bool(self.word & _SECURITY)

    @property
    def merges(self) -> bool:
        """The a-bit: its locators join those of the site's other xTRs (RFC 9301 §5.6)."""
        return bool(self.word & _MERGE)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One record of a Map-Register: the EID, and the record as others are told it; None withdraws."""

    eid: Prefix
    record: bytes | None


class Register(msgspec.Struct, frozen=True, gc=False):
    """A Map-Register whose authentication and prefixes were found right.

    `memo` stands for everything in the message but nonce and authentication data, 0 for nothing; no two claims have
    the same EID. `datagram` is what a store keeps of it.
    """

    registrant: Registrant
    nonce: int
    claims: tuple[Claim, ...]
    lifetime_s: float
    memo: int = 0
    datagram: bytes = b""

    @property
    def owner(self) -> Owner:
        return self.registrant.owner


class Lease(msgspec.Struct, gc=False, order=True):
    """What one Map-Register registered. Its EIDs live and expire together: one deadline, whatever their number.

    Attributes:
        due: the deadline as the store's queue knows it; a refresh only moves `expires_at`.
        memo: of the Map-Register; 0 since a restart, or since the configuration was read anew.
        live: registrations that still belong to it, of the `claimed` ones in `members`.
    """

    due: float
    number: int
    expires_at: float
    registrant: Registrant
    memo: int = 0
    lifetime_s: float = 0.0
    claimed: int = 0
    live: int = 0
    members: tuple[Registration, ...] = ()


class Registration(msgspec.Struct, frozen=True, gc=False):
    """One EID-Prefix with its current mapping, as it is told to others.

    `parts` are the registrations of several xTRs that asked to be merged; the record has the locators of all of them,
    and the lease is that of the last one.
    """

    record: bytes
    lease: Lease
    since: float
    parts: tuple[Registration, ...] = ()

    @property
    def eid(self) -> Prefix:
        return records.eid_of(self.record)

    @property
    def mapping(self) -> EidRecord:
        return records.unpacked(self.record)

    @property
    def registrant(self) -> Registrant:
        return self.lease.registrant

    @property
    def owner(self) -> Owner:
        return self.lease.registrant.owner

    @property
    def version(self) -> int:
        return records.version_of(self.record)

    @property
    def each(self) -> tuple[Registration, ...]:
        """One registration for each xTR that has one."""
        return self.parts or (self,)


class Kind(Enum):
    """What happened to a registration; the values are the events' names."""

    ADDED = "added"
    CHANGED = "changed"
    REFRESHED = "refreshed"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Change(msgspec.Struct, frozen=True, gc=False):
    """One EID's registration before and after."""

    kind: Kind
    eid: Prefix
    before: Registration | None
    after: Registration | None
    displaced: tuple[Registration, ...] = ()  # whose xTRs must be told that the EID has moved


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A record that changes nothing, and the registration that stands against it."""

    reason: str
    eid: Prefix
    current: Registration


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What a store applies.

    Attributes:
        lease: what its changes belong to; with `renewed` the one that lives on as a whole.
        released: EIDs that the displaced xTR gives up by withdrawing them.
    """

    register: Register
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...] = ()
    released: tuple[Prefix, ...] = ()
    lease: Lease | None = None
    renewed: bool = False


class ToldAlike(msgspec.Struct, frozen=True, gc=False):
    """What a store applies when an xTR tells of hosts what it tells of each: anew, and it alone has them, or for the
    first time, and nobody has them.

    Attributes:
        lease: what they belong to; it may be the one to which they, and nothing else, belong already.
        ips, registrations: the hosts, and what each has from now on.
        changed: those of which something else is told than before.
        first: whether it is the first time; all are in `changed` then.
    """

    register: Register
    lease: Lease
    ips: tuple[Ip, ...]
    registrations: tuple[Registration, ...]
    changed: tuple[Registration, ...]
    first: bool = False


class Replayed(msgspec.Struct, frozen=True, gc=False):
    """The nonce is not greater than the last one of this xTR and key: drop (RFC 9301 §5.6)."""

    last_nonce: int


Outcome: TypeAlias = Accepted | Replayed


class View(Protocol):
    """The part of a store that a decision reads."""

    def exact(self, eid: Prefix) -> Registration | None: ...

    def hosts(self, size: int) -> Mapping[Ip, Registration]:
        """The hosts with addresses of that many bytes, outside of any Instance-ID."""

    def longest(self, eid: Prefix) -> Registration | None: ...

    def uncovered(self, ips: Sequence[Ip]) -> Sequence[Ip]:
        """Those of these addresses, of one family, for which nobody has registered anything outside of any
        Instance-ID."""

    def alone(self, iid: int, ip: Ip) -> Registration | None:
        """The registration that answers for an address by itself, having no more-specifics. The way of the many."""

    def within(self, eid: Prefix) -> Iterator[Registration]:
        """The registrations of `eid` and its more-specifics, less specific first."""

    def hole(self, eid: Prefix, shortest: int) -> Prefix:
        """See `lispfmc.core.prefixes.PrefixTable.hole`."""

    def last_nonce(self, owner: Owner, key_id: int) -> int | None: ...

    def is_displaced(self, eid: Prefix, owner: Owner) -> bool: ...

    def xtrs(self) -> int:
        """How many xTRs have replay state."""
