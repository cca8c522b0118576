"""The Map-Requests that go through the Map-Resolver (RFC 9301 §5.3, §5.8), and how many of them may.

Plain ones, SMR-invoked ones, a Proxy-ITR's, and those that ask for publications as well (RFC 9437 §5, §6); with a key
for the Map-Resolver each carries a one-time key (RFC 9303).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lispfmc.core import lispsec
from lispfmc.core.effects import Send
from lispfmc.wire.address import Address, Endpoint, Prefix
from lispfmc.wire.messages import Ecm, MapRequest, RequestRecord, address_of
from lispfmc.wire.security import EcmSecurity
from xtr.settings import XtrSettings

CONTROL_PORT = 4342
LONGEST_WAIT_S = 2.0  # a question that cannot be sent sooner is refused: the packets would not be kept that long


class Asking:
    """Builds the messages."""

    def __init__(self, settings: XtrSettings) -> None:
        self._settings = settings
        self._homes = tuple(settings.placed(prefix) for prefix in settings.prefixes)

    def protection(self, nonces: Iterator[int]) -> lispsec.Protection | None:
        """A one-time key for one question (RFC 9303 §6.4); None without a key for the Map-Resolver."""
        if not self._settings.protects_requests:
            return None
        return lispsec.Protection(b"".join(next(nonces).to_bytes(8, "big") for _ in range(2)))

    def request(
        self,
        eid: Prefix,
        nonce: int,
        *,
        smr_invoked: bool,
        subscribe: bool,
        protection: lispsec.Protection | None = None,
    ) -> Send:
        """An ECM with the Map-Request; the answer comes to our control port."""
        security = self._security(protection, nonce)
        return self._send(
            eid, nonce, self._settings.rlocs, smr_invoked=smr_invoked, subscribe=subscribe, security=security
        )

    def end_of_subscription(self, eid: Prefix, nonce: int, protection: lispsec.Protection | None) -> Send:
        """RFC 9437 §6: no address to publish to."""
        security = self._security(protection, nonce)
        return self._send(eid, nonce, (None,), smr_invoked=False, subscribe=True, security=security)

    def _security(self, protection: lispsec.Protection | None, nonce: int) -> EcmSecurity | None:
        resolver = self._settings.map_resolver
        if protection is None or resolver is None:
            return None
        return lispsec.asking(protection, nonce, resolver.key_id, resolver.secret.encode())

    def _send(
        self,
        eid: Prefix,
        nonce: int,
        itr_rlocs: Sequence[Address],
        *,
        smr_invoked: bool,
        subscribe: bool,
        security: EcmSecurity | None,
    ) -> Send:
        settings = self._settings
        home = next((prefix for prefix in self._homes if _same_world(prefix, eid)), None)
        rloc = next((rloc for rloc in settings.rlocs if len(rloc) == len(eid.ip)), None)
        pitr = settings.interworking.pitr
        xtr_id, site_id = settings.identity if subscribe else (None, None)
        request = MapRequest.of(
            RequestRecord.of(eid, notify=subscribe),
            nonce=nonce,
            itr_rlocs=itr_rlocs,
            source_eid=address_of(home) if home and not pitr else None,
            smr_invoked=smr_invoked,
            pitr=pitr,
            xtr_id=xtr_id,
            site_id=site_id,
        )
        source = rloc or (home.ip if home else bytes(len(eid.ip)))
        ecm = Ecm.of(request, source=source, destination=eid.ip, source_port=CONTROL_PORT, security=security)
        return Send(ecm, Endpoint(settings.resolver, CONTROL_PORT))


class Budget:
    """Slots for requests, `rate` a second, a second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._free_at = float("-inf")

    def slot(self, wanted: float) -> float | None:
        """When a request that is wanted at `wanted` may go; None when that is too late to be of use."""
        at = max(wanted, self._free_at)
        if at > wanted + LONGEST_WAIT_S:
            return None
        self._free_at = max(self._free_at, wanted - 1.0) + self._step
        return at


def _same_world(one: Prefix, other: Prefix) -> bool:
    return one.iid == other.iid and len(one.ip) == len(other.ip)
