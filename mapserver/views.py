"""The tables as the HTTP API shows them."""

from __future__ import annotations

from typing import Any

from lispfmc.core.registry import Registration
from lispfmc.core.subscriptions import Subscription
from lispfmc.wire.address import ip_text
from lispfmc.wire.messages import Locator
from mapserver.server import MapServer


def registrations(server: MapServer, now: float) -> dict[str, list[dict[str, Any]]]:
    return {"items": [_registration(each, now) for each in server.registrations()]}


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
