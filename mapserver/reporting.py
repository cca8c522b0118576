"""What people are told of Map-Registers and their end: events, and the reasons of refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from lispfmc.core.effects import Emit, EmitEach, FieldValue, Lazy, Reject, Send
from lispfmc.core.registry import Change, Kind, Owner, Refusal, Registration, ToldAlike
from lispfmc.wire.address import Endpoint, Prefix, ip_text
from mapserver.notices import Move

_NAMES: dict[Kind, str] = {kind: f"registration.{kind.value}" for kind in Kind if kind is not Kind.REFRESHED}


def told_alike(told: ToldAlike) -> EmitEach:
    """What there is to tell of hosts that were told alike, if something is told of them that was not before."""
    if told.first:
        return EmitEach(_NAMES[Kind.ADDED], _first_told_fields, told.changed)
    return EmitEach(_NAMES[Kind.CHANGED], _retold_fields, told.changed)


def _first_told_fields(after: Registration) -> dict[str, FieldValue]:
    return _fields(Change(Kind.ADDED, after.eid, None, after))


def _retold_fields(after: Registration) -> dict[str, FieldValue]:
    return _fields(Change(Kind.CHANGED, after.eid, after, after))


def event(change: Change) -> Emit:
    return Emit(_NAMES[change.kind], Lazy(_fields, change))


def events(changes: Sequence[Change]) -> Iterator[EmitEach]:
    """What there is to tell of them, in their order."""
    for kind, of in groupby(changes, key=_kind):
        if kind is not Kind.REFRESHED:
            yield EmitEach(_NAMES[kind], _fields, tuple(of))


_kind = attrgetter("kind")


def _fields(change: Change) -> dict[str, FieldValue]:
    registration = change.after or change.before
    assert registration is not None
    locators = [ip_text(each.address) for each in registration.mapping.locators if isinstance(each.address, bytes)]
    fields: dict[str, FieldValue] = {
        "eid": str(change.eid),
        "site": registration.owner.site,
        "locators": locators,
        "version": registration.version,
        "xtr_id": registration.owner.xtr.hex(),
    }
    if change.kind is Kind.CHANGED and change.before is not None:
        fields["before"] = change.before.owner.site
    return fields


_ALARMS = {
    "flapping": "registration.flapping",
    "damped": "registration.damped",
    "contested": "registration.contested",
}


def alarm(name: str, eid: Prefix, holder: Owner, other: Owner) -> Emit:
    sites = [f"{each.site} {each.xtr.hex()}" for each in (holder, other)]
    return Emit(_ALARMS[name], {"eid": str(eid), "site": holder.site, "xtrs": sites})


def notified(move: Move, send: Send) -> Emit:
    return Emit("move.notified", {"eid": str(move.eid), "site": move.owner.site, "to": str(send.to)})


def refused(refusal: Refusal, source: Endpoint) -> Reject:
    holder = refusal.current.owner.site
    return Reject(refusal.reason, source, f"{refusal.eid} is {holder}'s, version {refusal.current.version}")
