"""The keys of publications where none was agreed: each subscription's own, from its one-time key (RFC 9437 §7.1).

A Map-Notify does not name its subscription. One that answers a request has its nonce; for any other the subscriptions
are tried that cover its EID-Prefix, and those whose last nonce is little below its own. A few, whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lispfmc.core import lispsec
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import MapNotify
from xtr.senders import Role, Sender
from xtr.settings import XtrSettings

REQUESTS_KEPT = 16_384  # keys of requests that may be answered yet; only our own requests fill it
NEAR = 16  # publications that may have been lost one after the other


class _Held(msgspec.Struct, frozen=True, gc=False):
    eid: Prefix
    key: Key
    nonce: int  # of the last Map-Notify


class PublicationKeys:
    """One for each subscription, and for each request for one."""

    def __init__(self, settings: XtrSettings) -> None:
        servers = settings.map_servers
        self._servers = {each.address for each in servers if each.subscription and each.subscription.lisp_sec}
        self._key_id = settings.map_resolver.key_id if settings.map_resolver else 0
        self._requests: dict[int, _Held] = {}
        self._held: PrefixTable[_Held] = PrefixTable()
        self._by_nonce: dict[int, _Held] = {}

    def asked(self, eid: Prefix, nonce: int, protection: lispsec.Protection | None) -> None:
        """A subscription to `eid`, or its end, was asked for under `protection`."""
        if not self._servers or protection is None:
            return
        self._requests[nonce] = _Held(eid, lispsec.pubsub_key(protection.otk, nonce, self._key_id), nonce)
        if len(self._requests) > REQUESTS_KEPT:
            del self._requests[next(iter(self._requests))]

    def subscribed(self, eid: Prefix, nonce: int) -> None:
        """The Map-Server has confirmed what was asked with `nonce`."""
        request = self._requests.get(nonce)
        if request is not None and request.eid == eid:
            self._hold(request)

    def ended(self, eid: Prefix) -> None:
        held = self._held.remove(eid)
        if held is not None:
            self._by_nonce.pop(held.nonce, None)

    def sender(self, notify: MapNotify, datagram: bytes, source: Endpoint) -> Sender | None:
        """The Map-Server at `source`, if `notify` is signed by the key of a subscription to it."""
        if source.ip not in self._servers:
            return None
        for each in self._candidates(notify):
            if verify(notify, datagram, each.key):
                if notify.nonce >= each.nonce and self._held.get(each.eid) is not None:
                    # the answer to a repeated request, which the Map-Server goes by from now on, or a publication
                    self._hold(msgspec.structs.replace(each, nonce=notify.nonce))
                return Sender(Role.PUBLISHER, each.key)
        return None

    def _candidates(self, notify: MapNotify) -> Iterator[_Held]:
        request = self._requests.get(notify.nonce)
        if request is not None:
            yield request
        eid = notify.records[0].prefix if notify.records else None
        if eid is not None:
            yield from (held for _, held in self._held.covering(eid))
        for nonce in range(notify.nonce, notify.nonce - NEAR, -1):
            if (held := self._by_nonce.get(nonce)) is not None:
                yield held

    def _hold(self, held: _Held) -> None:
        before = self._held.get(held.eid)
        if before is not None:
            if before.nonce > held.nonce:
                return
            self._by_nonce.pop(before.nonce, None)
        self._held.set(held.eid, held)
        self._by_nonce[held.nonce] = held
