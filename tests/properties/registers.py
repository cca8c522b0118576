"""Map-Registers for the registry's tests: three xTRs, two of them of one site, and EIDs that lie within one another."""

from __future__ import annotations

from lispfmc.core.claims import claims
from lispfmc.core.registry import Owner, Register, Registrant
from lispfmc.store import Query
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import AUTH_OFFSET, Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapRegister

LIFE_S = 180.0
KEY = Key(1, b"secret")
EIDS = [Prefix.parse(text) for text in ("10.1.0.1/32", "10.1.0.2/32", "10.1.0.0/24")]
OWNERS = [Owner("site0", b"\0" * 16), Owner("site0", b"\1" * 16), Owner("site2", b"\2" * 16)]


def rloc(owner: Owner) -> bytes:
    return bytes([198, 18, 0, owner.xtr[0] + 1])


_registrants: dict[tuple[Owner, int], Registrant] = {}  # one value for each, as the Map-Server has it


def register(
    owner: Owner,
    eids: list[Prefix],
    nonce: int,
    version: int = 0,
    ttl_minutes: int = 1440,
    *,
    merges: bool = False,
    weight: int = 100,
) -> Register:
    locators = [Locator.of(rloc(owner), weight=weight)] if ttl_minutes else []
    records = (EidRecord.of(eid, locators, ttl_minutes=ttl_minutes, map_version=version) for eid in eids)
    said = MapRegister.of(*records, nonce=nonce, merge=merges, xtr_id=owner.xtr, site_id=bytes(8))
    datagram = sign(said, KEY)
    message = decode(datagram)
    assert isinstance(message, MapRegister)
    registrant = Registrant(owner, KEY, Endpoint(rloc(owner), 4342), message.word)
    registrant = _registrants.setdefault((owner, message.word), registrant)
    memo = hash((datagram[:4], datagram[AUTH_OFFSET + len(message.auth) :]))
    return Register(registrant, nonce, claims(message.records), LIFE_S, memo, datagram)


def query(message: Register) -> Query:
    return Query(tuple(EIDS), message.owner, message.registrant.key.id)
