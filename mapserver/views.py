"""The tables as the HTTP API shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import takewhile
from typing import Any

from lispfmc.core.registry import Registration
from lispfmc.core.subscriptions import Subscription
from lispfmc.runtime.http import Refused
from lispfmc.wire.address import Prefix, ip_text
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import XTR_ID_BYTES, Locator
from mapserver.server import MapServer

PAGE = 250  # registrations in one answer: some milliseconds, in which no request is served
SCANNED = 5000  # looked at for one answer, when few of them are asked for


def registrations(server: MapServer, query: Mapping[str, str], now: float) -> dict[str, Any]:
    """A page of the registrations: `after` a cursor, at most `limit`, of an `eid`, of a `site`, of an `xtr`.

    `next` is the cursor of the following page, or null. Registrations that come and go between two pages may be
    missing or there; every other one is there once.
    """
    after = _prefix(query, "after")
    limit = _number(query, "limit", PAGE)
    eid, site, xtr = _prefix(query, "eid"), query.get("site"), _xtr(query)
    found = server.registrations(after) if eid is None else _of(server, eid, after)
    items: list[dict[str, Any]] = []
    for count, each in enumerate(found, 1):
        if _is_of(each, site, xtr):
            items.append(_registration(each, now))
        if len(items) == limit or count == SCANNED:
            return {"items": items, "next": str(each.eid)}
    return {"items": items, "next": None}


def _of(server: MapServer, eid: Prefix, after: Prefix | None) -> Iterator[Registration]:
    """What answers for `eid`, and what is within it, which goes on behind `after` without a look at what is before."""
    if after is None:
        first = next(server.registrations_for(eid), None)
        if first is not None and first.eid.length < eid.length:
            yield first
    begun = after is not None and after.length >= eid.length
    for length in range(after.length if after is not None and begun else eid.length, len(eid.ip) * 8 + 1):
        start = after if begun and after is not None and after.length == length else _before(eid, length)
        yield from takewhile(partial(_is_within, eid, length), server.registrations(start))


def _is_within(eid: Prefix, length: int, found: Registration) -> bool:
    return found.eid.length == length and eid.covers(found.eid)


def _before(eid: Prefix, length: int) -> Prefix:
    """The cursor in front of the first prefix of that length within `eid`; no registration need be there."""
    size, number = len(eid.ip), int.from_bytes(eid.ip, "big")
    if number:
        return Prefix(eid.iid, (number - 1).to_bytes(size, "big"), length)
    return Prefix(eid.iid, b"\xff" * size, length - 1)


def _is_of(found: Registration, site: str | None, xtr: bytes | None) -> bool:
    if site is None and xtr is None:
        return True
    return any(site in (None, part.owner.site) and xtr in (None, part.owner.xtr) for part in found.each)


def _prefix(query: Mapping[str, str], name: str) -> Prefix | None:
    text = query.get(name)
    try:
        return Prefix.parse(text) if text else None
    except LocalError as error:
        raise Refused(str(error), do=f'give {name} like "100.64.1.0/24" or "[7]fd00::/8"') from error


def _xtr(query: Mapping[str, str]) -> bytes | None:
    text = query.get("xtr")
    if text is None:
        return None
    try:
        number = bytes.fromhex(text)
    except ValueError:
        number = b""
    if len(number) != XTR_ID_BYTES:
        raise Refused(f"xtr = {text!r} is no xTR-ID", do=f"give its {2 * XTR_ID_BYTES} hexadecimal digits")
    return number


def _number(query: Mapping[str, str], name: str, most: int) -> int:
    text = query.get(name, str(most))
    if not text.isdigit() or not int(text):
        raise Refused(f"{name} = {text!r} is no number", do=f"give a number from 1 to {most}")
    return min(int(text), most)


def subscriptions(server: MapServer) -> dict[str, list[dict[str, Any]]]:
    return {"items": [_subscription(each) for each in server.subscriptions()]}


def _registration(registration: Registration, now: float) -> dict[str, Any]:
    eid = registration.eid
    return {
        "eid": f"{ip_text(eid.ip)}/{eid.length}",
        "iid": eid.iid,
        "site": registration.owner.site,
        "locators": [_locator(each) for each in registration.mapping.locators],
        "version": registration.version,
        "xtr_id": registration.owner.xtr.hex(),
        "age_s": round(now - registration.since, 3),
        "expires_s": round(registration.lease.expires_at - now, 3),
    }


def _locator(locator: Locator) -> dict[str, Any]:
    address = locator.address
    rloc = ip_text(address) if isinstance(address, bytes) else "lcaf"
    return {"rloc": rloc, "priority": locator.priority, "weight": locator.weight}


def _subscription(subscription: Subscription) -> dict[str, Any]:
    eid = subscription.eid
    return {
        "eid": f"{ip_text(eid.ip)}/{eid.length}",
        "iid": eid.iid,
        "subscriber": subscription.subscriber,
        "xtr_id": subscription.xtr_id.hex(),
        "itr_rlocs": [ip_text(ip) for ip in subscription.itr_rlocs],
        "nonce": f"{subscription.nonce:#018x}",
        "pending": len(subscription.pending),
    }
