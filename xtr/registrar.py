"""Registration with every Map-Server (RFC 9301 §5.6): at once on a change, again until acknowledged, then periodically.

Each Map-Server has its own schedule for each EID. A message is built from what is registered when it leaves, with a
fresh nonce, so an EID that has left is in no later message, and a late copy of an early one is a replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, FieldValue, Send
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, InstanceAddress, Ip, Prefix, ip_text
from lispfmc.wire.messages import Action, EidRecord, Locator, MapNotify, MapRegister, address_of
from xtr.asking import CONTROL_PORT
from xtr.effects import XtrEffect
from xtr.settings import MapServerSettings, XtrSettings

FIRST_RETRY_S = 1.0  # RFC 9301 §5.6: a Map-Register that wants a Map-Notify is sent again after 1 s ...
LONGEST_RETRY_S = 60.0  # ... doubling up to 60 s
TTL_MINUTES = 1440  # RFC 9301 §5.4; a move is told to those who use a mapping, they need not ask again
OPEN_NONCES = 1024  # unacknowledged messages remembered for each Map-Server; older ones are superseded anyway
TOGETHER_S = 2.0  # refreshes that are due this soon go along
MOST_MORE_SPECIFICS = 15  # in one answer, which fits a packet
_HEADER_BYTES = 16 + 16 + 24  # fixed part, authentication data, xTR-ID and Site-ID


class _Pending(msgspec.Struct, frozen=True, gc=False):
    """One EID at one Map-Server."""

    sent: float
    retry_s: float
    """The wait before the next copy; 0 when the last one was acknowledged."""
    known: bool
    """The Map-Server has acknowledged this registration before: what follows are refreshes."""


class _Server:
    """What one Map-Server has been told."""

    def __init__(self, settings: MapServerSettings) -> None:
        self.address = settings.address
        self.key = settings.key
        self.pending: dict[Prefix, _Pending] = {}
        self.due: Deadlines[Prefix] = Deadlines()
        self.open: dict[int, tuple[EidRecord, ...]] = {}

    @property
    def most_bytes(self) -> int:
        # RFC 9301 §5: without path MTU knowledge, 576 bytes for IPv4 and 1280 for IPv6, IP and UDP headers included
        return 576 - 28 if len(self.address) == 4 else 1280 - 48

    def pop_refreshes(self, until: float) -> list[Prefix]:
        """Take the refreshes that are due by then; copies keep their time."""
        refreshes: list[Prefix] = []
        for eid in list(self.due.pop_expired(until)):
            pending = self.pending[eid]
            if pending.retry_s:
                self.due.set(eid, pending.sent + pending.retry_s)
            else:
                refreshes.append(eid)
        return refreshes

    def remember(self, message: MapRegister) -> None:
        self.open[message.nonce] = message.records
        while len(self.open) > OPEN_NONCES:
            del self.open[next(iter(self.open))]


class Registrar:
    """The EID-Prefixes that this xTR registers, with their map-versions."""

    def __init__(self, settings: XtrSettings, nonces: Iterator[int]) -> None:
        self._timers = settings.timers
        self._identity = settings.identity
        self._nonces = nonces
        self._ours = frozenset(settings.rlocs)
        # RFC 9301 §5.4: locators ascend, IPv4 before IPv6
        self._locators = tuple(
            Locator.of(rloc, priority=1 if len(rloc) == 4 else 2, weight=100, local=True)
            for rloc in sorted(settings.rlocs, key=lambda rloc: (len(rloc), rloc))
        )
        self._records: dict[Prefix, EidRecord] = {}
        self._index: PrefixTable[EidRecord] = PrefixTable()
        self._servers = {server.address: _Server(server) for server in settings.map_servers}
        self._quick_until = float("-inf")

    def start(self, prefixes: Iterable[Prefix], now: float) -> list[XtrEffect]:
        """Register the fixed prefixes."""
        self._quick_until = now + self._timers.quick_period_s
        for prefix in prefixes:
            self._set(self._record(prefix, 0), prefix)
        return self._trigger(list(self._records), now)

    def add(self, eid: Prefix, version: int, now: float) -> list[XtrEffect]:
        """Register `eid`, or register it anew, at once."""
        self._set(self._record(eid, version), eid)
        return self._trigger([eid], now)

    def drop(self, eid: Prefix) -> None:
        """Register `eid` no more. Nothing is withdrawn: it has another owner now."""
        self._records.pop(eid, None)
        self._index.remove(eid)
        for server in self._servers.values():
            server.pending.pop(eid, None)
            server.due.cancel(eid)

    def withdraw(self, eids: Iterable[Prefix], now: float) -> list[XtrEffect]:
        """Register `eids` no more, and tell every Map-Server (RFC 9301 leaves the form open: TTL 0, no locators)."""
        records = [
            EidRecord.of(eid, ttl_minutes=0, authoritative=True, map_version=record.map_version)
            for eid in eids
            if (record := self._records.get(eid)) is not None
        ]
        effects: list[XtrEffect] = []
        for server in self._servers.values():
            for chunk in _chunks(records, server.most_bytes):
                message = self._message(chunk, want_notify=False)
                effects.append(Send(message, Endpoint(server.address, CONTROL_PORT), server.key))
        for record in records:
            if record.prefix is not None:
                self.drop(record.prefix)
        return effects

    def stop(self, now: float) -> list[XtrEffect]:
        """Withdraw everything: we are going."""
        return self.withdraw(list(self._records), now)

    def answer(self, eid: Prefix) -> list[EidRecord]:
        """What we say of `eid` when we are asked: its mapping and all more-specifics of that (RFC 9301 §5.5).

        Where these are too many, the part without any that `eid` is in, or to ask for less; [] when it is not ours.
        """
        closest = self._index.longest(eid)
        if closest is None:
            return []
        match, record = closest
        inside = islice(self._index.covered_by(match), 1, MOST_MORE_SPECIFICS + 2)
        records = [record, *(each for _, each in inside)]
        if len(records) <= MOST_MORE_SPECIFICS + 1:
            return records
        part = self._index.hole(eid, match.length)
        if next(self._index.covered_by(part), None) is not None:
            return [EidRecord.of(eid, ttl_minutes=1, action=Action.SEND_MAP_REQUEST, authoritative=True)]
        return [msgspec.structs.replace(record, mask_length=part.length, eid=address_of(part))]

    def mapping(self, eid: Prefix) -> EidRecord | None:
        """What is registered for `eid`, or for a prefix around it."""
        closest = self._index.longest(eid)
        return closest[1] if closest else None

    def version(self, eid: Prefix) -> int | None:
        """The map-version under which `eid` is registered; None when it is not."""
        record = self._records.get(eid)
        return record.map_version if record else None

    def acknowledged(
        self, notify: MapNotify, address: Ip, now: float
    ) -> tuple[list[XtrEffect], list[EidRecord]] | None:
        """A Map-Notify of the Map-Server at `address`: None when it answers no Map-Register of ours.

        The records of the second list are not ours any more: the Map-Server says who has them instead.
        """
        server = self._servers.get(address)
        sent = server.open.get(notify.nonce) if server else None
        if server is None or sent is None:
            return None
        effects: list[XtrEffect] = []
        answers = {record.prefix: record for record in notify.records}
        contested: list[EidRecord] = []
        for record in sent:
            eid, answer = record.prefix, answers.get(record.prefix)
            if eid is None or answer is None or self._records.get(eid) != record:
                continue  # not accepted, or changed since: it is sent again
            if not any(locator.address in self._ours for locator in answer.locators):
                contested.append(answer)
            elif server.pending[eid].retry_s:
                effects += self._settle(server, eid, now)
        return effects, contested

    def next_deadline(self) -> float | None:
        return min((at for server in self._servers.values() if (at := server.due.next()) is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Send what is due: copies that were not acknowledged, and refreshes."""
        effects: list[XtrEffect] = []
        for server in self._servers.values():
            due = list(server.due.pop_expired(now))
            if due:
                due += server.pop_refreshes(now + TOGETHER_S)
                effects += self._send(server, due, now)
        return effects

    def _trigger(self, eids: list[Prefix], now: float) -> list[XtrEffect]:
        effects: list[XtrEffect] = []
        for server in self._servers.values():
            for eid in eids:
                server.pending.pop(eid, None)  # a change starts the retransmission schedule anew
            effects += self._send(server, eids, now)
        return effects

    def _send(self, server: _Server, eids: list[Prefix], now: float) -> list[XtrEffect]:
        effects: list[XtrEffect] = []
        for records in _chunks([self._records[eid] for eid in eids], server.most_bytes):
            message = self._message(records, want_notify=True)
            server.remember(message)
            effects.append(Send(message, Endpoint(server.address, CONTROL_PORT), server.key))
        for eid in eids:
            before = server.pending.get(eid)
            waited = before.retry_s if before else 0.0
            retry_s = min(waited * 2, LONGEST_RETRY_S) if waited else FIRST_RETRY_S
            server.pending[eid] = _Pending(now, retry_s, known=before is not None and before.known)
            server.due.set(eid, now + retry_s)
        return effects

    def _set(self, record: EidRecord, eid: Prefix) -> None:
        self._records[eid] = record
        self._index.set(eid, record)

    def _message(self, records: list[EidRecord], *, want_notify: bool) -> MapRegister:
        xtr_id, site_id = self._identity
        return MapRegister.of(
            *records, nonce=next(self._nonces), want_notify=want_notify, xtr_id=xtr_id, site_id=site_id
        )

    def _settle(self, server: _Server, eid: Prefix, now: float) -> list[XtrEffect]:
        before = server.pending[eid]
        quick = now < self._quick_until
        period_s = self._timers.quick_register_s if quick else self._timers.register_s
        server.pending[eid] = _Pending(before.sent, 0.0, known=True)
        server.due.set(eid, max(before.sent + period_s, now))
        if before.known:
            return []
        fields: dict[str, FieldValue] = {
            "eid": str(eid),
            "map_server": ip_text(server.address),
            "version": self._records[eid].map_version,
            "took_ms": round((now - before.sent) * 1000, 3),
        }
        return [Emit("registration.acknowledged", fields)]

    @property
    def unacknowledged(self) -> int:
        """EID-Prefixes whose last Map-Register some Map-Server has not acknowledged."""
        waiting = (eid for server in self._servers.values() for eid, last in server.pending.items() if last.retry_s)
        return len(set(waiting))

    def _record(self, eid: Prefix, version: int) -> EidRecord:
        return EidRecord.of(eid, self._locators, ttl_minutes=TTL_MINUTES, authoritative=True, map_version=version)


def _chunks(records: Iterable[EidRecord], most_bytes: int) -> Iterator[list[EidRecord]]:
    """The records in messages of at most `most_bytes`, and at most 255 records."""
    chunk: list[EidRecord] = []
    size = _HEADER_BYTES
    for record in records:
        bytes_ = _record_bytes(record)
        if chunk and (size + bytes_ > most_bytes or len(chunk) == 255):
            yield chunk
            chunk, size = [], _HEADER_BYTES
        chunk.append(record)
        size += bytes_
    if chunk:
        yield chunk


def _record_bytes(record: EidRecord) -> int:
    eid = record.eid
    eid_bytes = len(eid) if isinstance(eid, bytes) else 28 if isinstance(eid, InstanceAddress) else 0
    addresses = (locator.address for locator in record.locators)
    return 12 + eid_bytes + sum(8 + len(address) for address in addresses if isinstance(address, bytes))
