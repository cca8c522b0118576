"""Map-Registers (RFC 9301 §5.6, §8.2): who may register, what changes, and who is told.

The registrant gets a Map-Notify; the xTR that an EID has left gets the new mapping until it acknowledges, and until
then none of its registrations of that EID counts; subscribers get a publication.
"""

from __future__ import annotations

from collections.abc import Iterator

from lispfmc.core.claims import claims, lifetime_s
from lispfmc.core.effects import Effect, Emit, FieldValue, Reject, Send
from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Change, Kind, Owner, Refusal, Register, Registrant, Replayed
from lispfmc.store import Query, Store
from lispfmc.wire.address import Endpoint, ip_text
from lispfmc.wire.auth import AUTH_OFFSET
from lispfmc.wire.messages import EidRecord, MapNotify, MapRegister
from mapserver.notices import Move, Notices
from mapserver.publisher import Publisher
from mapserver.settings import MapServerSettings, SiteSettings
from mapserver.sites import Sites


class Registrar:
    """Applies Map-Registers and their expiry to the store."""

    def __init__(
        self,
        settings: MapServerSettings,
        store: Store,
        notices: Notices,
        publisher: Publisher,
        nonces: Iterator[int],
    ) -> None:
        self._settings = settings
        self._sites = Sites(settings.sites)
        self._store = store
        self._notices = notices
        self._publisher = publisher
        self._nonces = nonces

    def registered(self, message: MapRegister, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        site = self._sites.authenticate(message, datagram, source)
        if isinstance(site, str):
            return [Reject(site, source, f"Map-Register, key id {message.key_id}")]
        if (refusal := self._inadmissible(site, message, source)) is not None:
            return [refusal]
        owner = Owner(site.name, message.xtr_id or source.ip)
        life_s = lifetime_s(message.records, use_ttl=message.use_ttl, default_s=self._settings.timers.expiry_s)
        registrant = Registrant(owner, site.key, source, message.word)
        register = Register(registrant, message.nonce, claims(message.records), life_s, _memo(datagram, message))
        view = self._store.view(_query(register))
        if view.last_nonce(owner, site.key_id) is None and view.xtrs() >= self._settings.limits.xtrs:
            return [Reject("too-many-xtrs", source, site.name)]
        outcome = merge(register, view, now)
        if isinstance(outcome, Replayed):
            return [Reject("replayed-nonce", source, f"Map-Register {message.nonce:#x} after {outcome.last_nonce:#x}")]
        added = sum(change.kind is Kind.ADDED for change in outcome.changes)
        if added and len(self._store) + added > self._settings.limits.registrations:
            return [Reject("table-full", source, f"{len(self._store)} registrations")]
        return self._accepted(outcome, message, now)

    def expired(self, now: float) -> list[Effect]:
        """The registrations that nobody refreshed."""
        gone = self._store.expired(now)
        if not gone:
            return []
        view = self._store.view(Query(tuple(change.eid for change in gone)))
        plans = self._publisher.plan(gone, view)
        for change in gone:
            self._notices.settle(change.eid, change.after.owner if change.after else None)
        return [*self._publisher.commit(plans, now), *(_event(change) for change in gone)]

    def _inadmissible(self, site: SiteSettings, message: MapRegister, source: Endpoint) -> Reject | None:
        """RFC 9301 §8.2: one EID that the site may not register makes the Map-Server drop the whole message."""
        if not message.records:
            return Reject("no-records", source, "Map-Register")
        for record in message.records:
            eid = record.prefix
            if eid is None:
                return Reject("unsupported-eid", source, "Map-Register")
            if not self._sites.may_register(site, eid):
                return Reject("foreign-prefix", source, f"{site.name} may not register {eid}")
        return None

    def _accepted(self, accepted: Accepted, message: MapRegister, now: float) -> list[Effect]:
        register = accepted.register
        plans = self._publisher.plan(accepted.changes, self._store.view(_query(register)))
        told = [(move, send) for change in accepted.changes for move, send in self._moves(change)]
        told.extend(self._objections(accepted))
        effects: list[Effect] = list(self._acknowledgement(accepted, message))
        effects.extend(_event(change) for change in accepted.changes if change.kind is not Kind.REFRESHED)
        effects.extend(_notified(move, send) for move, send in told if move not in self._notices)
        effects.extend(_refused(refusal, register.registrant.source) for refusal in accepted.refusals)
        # everything is decided: from here on state changes, and nothing is decided any more
        self._store.apply([accepted], now)
        for change in accepted.changes:
            self._notices.settle(change.eid, change.after.owner if change.after else None)
        for eid in accepted.released:
            self._notices.cancel(Move(eid, register.owner))
        first: list[Effect] = [each for move, send in told for each in self._notices.start(move, send, now)]
        first.extend(self._publisher.commit(plans, now))
        return [*first, *effects]

    def _acknowledgement(self, accepted: Accepted, message: MapRegister) -> Iterator[Send]:
        """RFC 9301 §5.7: same nonce, same records, less those that were refused; to port 4342 (§8.2)."""
        stands = {refusal.eid for refusal in accepted.refusals}
        records = tuple(record for record in message.records if record.prefix not in stands)
        if message.want_notify and records:
            register = accepted.register
            yield Send(
                MapNotify.of(*records, nonce=message.nonce),
                self._control(register.registrant.source),
                register.registrant.key,
            )

    def _moves(self, change: Change) -> Iterator[tuple[Move, Send]]:
        """RFC 9301 §8.2: the xTR that the EID has left is told the new mapping, and so is every earlier one that has
        not acknowledged yet."""
        if change.after is None or change.kind is Kind.REFRESHED:
            return
        left = {each.owner: each for each in self._store.displaced(change.eid)}
        left.update((each.owner, each) for each in change.displaced)
        left.pop(change.after.owner, None)
        for owner, registration in left.items():
            yield Move(change.eid, owner), self._move(change.after.mapping, registration.registrant)

    def _objections(self, accepted: Accepted) -> Iterator[tuple[Move, Send]]:
        """A refused xTR is answered with the Map-Notify that it has not acknowledged yet, or with a new one."""
        for refusal in accepted.refusals:
            if refusal.reason == "not-owner":
                continue
            move = Move(refusal.eid, accepted.register.owner)
            yield move, self._notices.pending(move) or self._move(refusal.current.mapping, accepted.register.registrant)

    def _move(self, mapping: EidRecord, to: Registrant) -> Send:
        return Send(MapNotify.of(mapping, nonce=next(self._nonces)), self._control(to.source), to.key)

    def _control(self, source: Endpoint) -> Endpoint:
        return Endpoint(source.ip, self._settings.port)


def _query(register: Register) -> Query:
    return Query(tuple(claim.eid for claim in register.claims), register.owner, register.registrant.key.id)


def _memo(datagram: bytes, message: MapRegister) -> int:
    """What tells whether two messages differ in more than nonce and authentication data. Hashes of bytes are keyed."""
    return hash((datagram[:4], datagram[AUTH_OFFSET + len(message.auth) :])) or 1


def _event(change: Change) -> Emit:
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
    return Emit(f"registration.{change.kind.value}", fields)


def _notified(move: Move, send: Send) -> Emit:
    return Emit("move.notified", {"eid": str(move.eid), "site": move.owner.site, "to": str(send.to)})


def _refused(refusal: Refusal, source: Endpoint) -> Reject:
    holder = refusal.current.owner.site
    return Reject(refusal.reason, source, f"{refusal.eid} is {holder}'s, version {refusal.current.version}")
