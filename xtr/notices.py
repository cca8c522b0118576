"""What a Map-Notify record means to this xTR (RFC 9301 §5.7): read-only, one answer for each record.

A Map-Server and a controller may say that an EID has left or arrived; another xTR may only say where an EID went that
it had itself, as far as we know. A lower map-version never wins (RFC 9302 §7.1).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeAlias

from lispfmc.core.mapcache import UNUSABLE_PRIORITY, Mapping
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import EidRecord
from xtr.senders import Role, Sender


class Meaning(Enum):
    KNOWN = "known"
    """Nothing to do but to acknowledge."""
    DEPARTED = "departed"
    """The EID was ours, or could be, and is elsewhere now."""
    ARRIVED = "arrived"
    """The EID is ours now."""
    HELD = "held"
    """The Map-Server speaks of an owner that ours is newer than: register again."""
    LEARNED = "learned"
    """A newer mapping of an EID that we send to."""
    LED = "led"
    """A lossless move decides about this EID's delivery, and takes in what the mapping system says."""
    REMOVED = "removed"
    """A mapping that we use is no longer valid."""


Refusal: TypeAlias = str
"""The reason word of a refused record."""


class Standing(Protocol):
    """What this xTR knows about EIDs."""

    def registered(self, eid: Prefix) -> int | None:
        """The map-version under which we register `eid`; None when we do not."""

    def departed(self, eid: Prefix) -> int | None:
        """The map-version with which `eid` left us; None when it did not."""

    def leads(self, eid: Prefix) -> bool:
        """A lossless move decides about this EID's delivery."""

    def in_hand(self, eid: Prefix) -> bool:
        """... and it has not ended."""

    def present(self, eid: Prefix) -> bool:
        """The host is here."""

    def in_range(self, eid: Prefix) -> bool:
        """The EID may be here."""

    def believes(self, eid: Prefix, source: Ip, rlocs: tuple[Ip, ...]) -> bool:
        """The other router may say that `eid` has come to it, to `rlocs`, from wherever."""

    def mapping(self, eid: Prefix) -> Mapping | None:
        """What packets for `eid` use."""

    def ours(self, rlocs: tuple[Ip, ...]) -> bool:
        """Packets to these locators come to us."""


def rlocs_of(record: EidRecord) -> tuple[Ip, ...]:
    """The locators that may be used."""
    return tuple(
        locator.address
        for locator in record.locators
        if isinstance(locator.address, bytes) and locator.priority != UNUSABLE_PRIORITY
    )


def meaning(record: EidRecord, eid: Prefix, sender: Sender, source: Endpoint, standing: Standing) -> Meaning | Refusal:
    """What `record`, authenticated as from `sender`, says to us."""
    match sender.role:
        case Role.CONTROLLER:
            what = _from_controller(record, eid, sender, standing)
            # another scheme's move: it may follow a lossless one, not break into it
            return "move-in-hand" if what in (Meaning.ARRIVED, Meaning.DEPARTED) and standing.in_hand(eid) else what
        case Role.MAP_SERVER | Role.PUBLISHER if standing.leads(eid):
            return Meaning.LED
        case Role.MAP_SERVER:
            return _from_map_server(record, eid, standing)
        case Role.PUBLISHER:
            return _from_publisher(record, eid, standing)
        case Role.PEER:
            return _from_peer(record, eid, source, standing)
        case Role.AGENT:
            return "not-a-party"  # it speaks of machines, in move messages


def _from_controller(record: EidRecord, eid: Prefix, sender: Sender, standing: Standing) -> Meaning | Refusal:
    rlocs = rlocs_of(record)
    if not eid.is_host or not any(allowed.covers(eid) for allowed in sender.ranges):
        return "foreign-prefix"
    if not rlocs or len(rlocs) != len(record.locators) or not sender.rlocs.issuperset(rlocs):
        return "foreign-locator"
    if record.map_version == 0:
        return "no-version"  # the version is the epoch of the move: without one, nothing guards against an older move
    version, ours = record.map_version, standing.ours(rlocs)
    held, left = standing.registered(eid), standing.departed(eid)
    for known, same in ((held, ours), (left, not ours)):
        if known == version:
            return Meaning.KNOWN if same else "stale-version"
        if known is not None and newer(known, version):
            return "stale-version"
    if ours:
        return Meaning.ARRIVED
    if held is not None or standing.present(eid) or standing.in_range(eid):
        return Meaning.DEPARTED
    return _update(record, eid, standing) or Meaning.KNOWN


def _from_map_server(record: EidRecord, eid: Prefix, standing: Standing) -> Meaning | Refusal:
    rlocs, version = rlocs_of(record), record.map_version
    held, left = standing.registered(eid), standing.departed(eid)
    if standing.ours(rlocs):
        if held is None:
            return "unexpected-notify"
        # it holds a later registration of ours than we remember: we were started anew
        return Meaning.ARRIVED if newer(version, held) else Meaning.KNOWN
    mine = held is not None or standing.present(eid)
    if not rlocs:
        return "unexpected-notify" if mine else _update(record, eid, standing) or "unexpected-notify"
    if held is not None and newer(held, version):
        return Meaning.HELD
    if left is not None and newer(left, version):
        return Meaning.KNOWN
    if eid.is_host and (mine or left is not None or standing.in_range(eid)):
        return Meaning.DEPARTED
    return "unexpected-notify" if mine else _update(record, eid, standing) or "unexpected-notify"


def _from_publisher(record: EidRecord, eid: Prefix, standing: Standing) -> Meaning | Refusal:
    """RFC 9437 §7: what we subscribed to has changed. Of an EID of ours it says what a Map-Server says."""
    if standing.registered(eid) is not None or standing.present(eid) or standing.departed(eid) is not None:
        return _from_map_server(record, eid, standing)
    return _update(record, eid, standing) or Meaning.KNOWN


def _from_peer(record: EidRecord, eid: Prefix, source: Endpoint, standing: Standing) -> Meaning | Refusal:
    rlocs, mapping = rlocs_of(record), standing.mapping(eid)
    if standing.registered(eid) is not None or standing.present(eid):
        if standing.ours(rlocs):
            return Meaning.KNOWN
        return Meaning.DEPARTED if standing.believes(eid, source.ip, rlocs) else "local-eid"
    if standing.believes(eid, source.ip, rlocs):
        return Meaning.KNOWN  # told to every data centre; whom it left tells us if we send to it
    if mapping is None:
        return Meaning.KNOWN  # nothing of ours is out of date
    if mapping.eid == eid and set(mapping.rlocs) == set(rlocs):
        return Meaning.KNOWN
    if source.ip not in mapping.rlocs:
        return "not-the-locator"
    if standing.ours(rlocs):
        return Meaning.REMOVED  # it says that the EID came to us; its first packet will show
    return _update(record, eid, standing) or Meaning.KNOWN


def _update(record: EidRecord, eid: Prefix, standing: Standing) -> Meaning | Refusal | None:
    """A new mapping for an EID that we may be sending to; None when we are not."""
    mapping = standing.mapping(eid)
    if mapping is None:
        return None
    if newer(mapping.version, record.map_version):
        return "stale-version"
    return Meaning.LEARNED if record.ttl_minutes and not standing.ours(rlocs_of(record)) else Meaning.REMOVED
