"""What can be said against a Map-Register whose tag is right, before anything of it is remembered.

A captured one may come again, from any source address: it must not cost more than a look at its nonce.
"""

from __future__ import annotations

from lispfmc.core.effects import Reject
from lispfmc.core.registry import Owner, View
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import MapRegister
from mapserver.settings import SiteSettings


def unusable(message: MapRegister, source: Endpoint) -> Reject | None:
    """Whether it says nothing that could be registered."""
    if not message.records:
        return Reject("no-records", source, "Map-Register")
    if any(record.eid.__class__ is not bytes and record.prefix is None for record in message.records):
        return Reject("unsupported-eid", source, "Map-Register")
    return None


def replayed(
    message: MapRegister, source: Endpoint, site: SiteSettings, key: Key, view: View, most_xtrs: int
) -> Reject | None:
    """Whether its nonce is an old one, or of an xTR that may not begin to count (RFC 9301 §5.6)."""
    last_nonce = view.last_nonce(Owner(site.name, message.xtr_id or source.ip), key.id)
    if last_nonce is not None:
        if message.nonce > last_nonce:
            return None
        return Reject("replayed-nonce", source, f"Map-Register {message.nonce:#x} after {last_nonce:#x}")
    # The tag covers the xTR-ID, and no source address. Without an xTR-ID an address that speaks for the first time has
    # to be one that the message is about: otherwise any address would begin a count of its own, with an old message.
    if message.xtr_id is None and not _names(message, source):
        return Reject("unknown-xtr", source, f"{site.name}: no xTR-ID, and no locator that it comes from")
    if view.xtrs() >= most_xtrs:
        return Reject("too-many-xtrs", source, site.name)
    return None


def _names(message: MapRegister, source: Endpoint) -> bool:
    return any(locator.address == source.ip for record in message.records for locator in record.locators)
