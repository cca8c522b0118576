"""A Map-Register that says what the xTR's last one said: renewed and acknowledged without being decoded.

At rest nearly all registrations are refreshes, which differ in nonce and authentication data alone. Everything else,
and whatever is the least unusual, is left to `registrar`, which would answer the same.
"""

from __future__ import annotations

from lispfmc.core.effects import Transmit
from lispfmc.core.merging import remembered
from lispfmc.core.registry import Registrant, Registration, View
from lispfmc.store import Query, Store
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import AUTH_OFFSET, authentic, tagged
from lispfmc.wire.messages import SITE_ID_BYTES, XTR_ID_BYTES

_MAP_REGISTER = 0x30  # in the first byte
_XTR_ID_PRESENT = 0x02  # likewise
_WANT_NOTIFY = 0x01  # in the third
_MAP_NOTIFY = 0x4000_0000
_TRAILER = XTR_ID_BYTES + SITE_ID_BYTES
_IPV4, _HOST = b"\0\1", 32  # AFI and length of an EID that is one IPv4 address
_ANY = Query(())


def wants_notify(datagram: bytes) -> bool:
    """Whether it is a Map-Register, as long as one must be, with the M-bit."""
    return len(datagram) >= AUTH_OFFSET and datagram[0] & 0xF0 == _MAP_REGISTER and datagram[2] & _WANT_NOTIFY == 1


def memo(datagram: bytes, source: Endpoint) -> int:
    """What tells whether two Map-Registers differ in more than nonce and authentication data; never 0.

    Python's hashes of bytes are keyed at random: nobody can make two that are equal.
    """
    end = AUTH_OFFSET + (datagram[14] << 8 | datagram[15])
    return hash((datagram[:4], datagram[end:], source.ip, source.port)) or 1


def said(datagram: bytes, source: Endpoint) -> tuple[bytes, int, bytes, Endpoint]:
    """What a Map-Register says of who sends it, before anything of it is checked."""
    trailer = datagram[-_TRAILER:-SITE_ID_BYTES] if datagram[0] & _XTR_ID_PRESENT else b""
    return datagram[:3], datagram[12], trailer, source


def records_end(datagram: bytes) -> int:
    """Where the records of a Map-Register end, xTR-ID and Site-ID follow or nothing does."""
    return len(datagram) - (_TRAILER if datagram[0] & _XTR_ID_PRESENT else 0)


def acknowledgement(datagram: bytes, registrant: Registrant, port: int) -> Transmit:
    """RFC 9301 §5.7: the Map-Notify for a Map-Register of which nothing is refused has its nonce and its records."""
    told = datagram[AUTH_OFFSET + (datagram[14] << 8 | datagram[15]) : records_end(datagram)]
    source = registrant.source
    to = source if source.port == port else Endpoint(source.ip, port)
    return Transmit(tagged(_MAP_NOTIFY | datagram[3], datagram[4:12], told, registrant.key), to)


def first_of(datagram: bytes, view: View) -> Registration | None:
    """What the first EID of a Map-Register has, where that can be seen without decoding it."""
    start = AUTH_OFFSET + (datagram[14] << 8 | datagram[15])
    at = start + records.HEADER
    if datagram[at - 2 : at] == _IPV4 and datagram[start + 5] == _HOST:  # as it mostly is
        return view.hosts(4).get(datagram[at : at + 4])
    eid = records.eid_at(datagram, start)
    return view.exact(eid) if eid is not None else None


class Refreshing:
    """The short way of a refresh; `port` is where Map-Notifies go."""

    def __init__(self, store: Store, port: int) -> None:
        self._store = store
        self._port = port

    def at_once(self, datagram: bytes, source: Endpoint, now: float, noted: int) -> Transmit | None:
        """The Map-Notify for an unchanged refresh, which wants one; `noted` is its memo."""
        view = self._store.view(_ANY)
        first = first_of(datagram, view)
        lease = remembered(first, noted) if first is not None else None
        if lease is None:
            return None
        registrant = lease.registrant
        key = registrant.key
        if registrant.source != source or not authentic(datagram, key):
            return None
        nonce = int.from_bytes(datagram[4:12], "big")
        last = view.last_nonce(registrant.owner, key.id)
        if last is not None and nonce <= last:
            return None
        self._store.renew(lease, nonce, now)
        return acknowledgement(datagram, registrant, self._port)
