"""LISP-SEC at the Map-Resolver and Map-Server (RFC 9303 §6.6, §6.7), which are one here.

An ITR's one-time key is opened with the secret that the ITR shares with us, an ETR's is wrapped with the one that it
registers by. A subscriber with whom no key was agreed has its own from the one-time key that it asked with (RFC 9437
§7.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from lispfmc.core import lispsec
from lispfmc.core.registry import Registration
from lispfmc.wire import records
from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Ecm, MapReply, MapRequest
from mapserver.settings import ItrSettings, SubscriberSettings


class Protector:
    """Answers, and passes on, Map-Requests that came with a one-time key. Every method raises `lispsec.Unsafe`."""

    def __init__(self, itrs: Sequence[ItrSettings]) -> None:
        self._secrets: dict[int, list[bytes]] = {}
        for itr in itrs:
            self._secrets.setdefault(itr.key_id, []).append(itr.secret.encode())

    def reply(self, ecm: Ecm, answers: Sequence[bytes], *, etr_cant_sign: bool) -> bytes:
        """The protected Map-Reply with `answers`, which we vouch for: they are what was registered with us."""
        nonce, protection = self._opened(ecm)
        reply = MapReply.of(*map(records.unpacked, answers), nonce=nonce)
        vouched = _widest([records.eid_of(each) for each in answers])
        return lispsec.proxy_reply(reply, protection, vouched, etr_cant_sign=etr_cant_sign)

    def forwarding(self, ecm: Ecm, match: Registration, key: Key) -> bytes:
        """The protected ECM for the ETR that shares `key` with us; we vouch for the match (RFC 9303 §6.7.1)."""
        nonce, protection = self._opened(ecm)
        cant_sign = not all(each.registrant.security_capable for each in match.each)
        return lispsec.forwarding(
            ecm, protection, match.eid, nonce=nonce, key_id=key.id, secret=key.secret, etr_cant_sign=cant_sign
        )

    def _opened(self, ecm: Ecm) -> tuple[int, lispsec.Protection]:
        security, request = ecm.security, ecm.message
        assert security is not None
        assert isinstance(request, MapRequest)
        return request.nonce, lispsec.asked(security, request.nonce, self._secrets.get(security.key_id, ()))


class PubSubKeys:
    """The keys of subscriptions."""

    def __init__(self, itrs: Sequence[ItrSettings]) -> None:
        self._itrs = {itr.name: itr for itr in itrs}

    def key(self, subscriber: SubscriberSettings, sealed: lispsec.Sealed | None) -> Key:
        """What signs the publications to `subscriber`, who asked with `sealed`. Raises `lispsec.Unsafe`."""
        if not subscriber.itr:
            return subscriber.key
        if sealed is None:
            raise lispsec.Unsafe("unprotected-subscription", f"{subscriber.name} subscribes with LISP-SEC only")
        itr = self._itrs[subscriber.itr]
        secrets = [itr.secret.encode()] if itr.key_id == sealed.key_id else []
        return lispsec.pubsub_key(lispsec.opened(sealed, secrets), sealed.nonce, sealed.key_id)


def _widest(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Without those that lie within another one."""
    return [each for each in prefixes if not any(other.covers(each) and other != each for other in prefixes)]
