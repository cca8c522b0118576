"""Map-Registers (RFC 9301 §5.6, §8.2): who may register, what changes, and who is told.

The registrant gets a Map-Notify; the xTR that an EID has left gets the new mapping until it acknowledges, and until
then none of its registrations of that EID counts; subscribers get a publication.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import msgspec

from lispfmc.core.claims import claims_in, claims_seen, lifetime_s, told, told_alike
from lispfmc.core.effects import Effect, Emit, Reject, Send, Transmit
from lispfmc.core.flapping import Flapping
from lispfmc.core.merging import merge, merge_alike, without
from lispfmc.core.registry import (
    STATIC,
    STATIC_WORD,
    Accepted,
    Change,
    Claim,
    Kind,
    Owner,
    Register,
    Registrant,
    ToldAlike,
    View,
)
from lispfmc.store import Dropped, Query, Store
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import AUTH_OFFSET, Key, authentic
from lispfmc.wire.messages import EidRecord, MapNotify, MapRegister
from mapserver import reporting
from mapserver.admission import replayed, unusable
from mapserver.notices import Move, Notices
from mapserver.publisher import Publisher
from mapserver.refreshing import acknowledgement, memo, records_end, said
from mapserver.settings import MapServerSettings, SiteSettings
from mapserver.sites import Sites

_USE_TTL = 0x08  # in the third byte
_ANY = Query(())
REGISTRANTS = 65_536  # remembered; holders of keys can make more of them up, and cost themselves their sharing


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
        self._store = store
        self._notices = notices
        self._publisher = publisher
        self._nonces = nonces
        self._registrants: dict[tuple[str, bytes | None, int, Endpoint, int], Registrant] = {}
        self._known: dict[tuple[bytes, int, bytes, Endpoint], tuple[SiteSettings, Registrant]] = {}
        self.configure(settings)

    def configure(self, settings: MapServerSettings) -> None:
        """Go by these settings from now on."""
        self._settings = settings
        self.sites = Sites(settings.sites)
        self._known.clear()
        damping = settings.damping
        self._flapping = Flapping(
            damping.alarm_after, damping.damp_after, damping.period_s, damping.hold_s, damping.contest_s
        )

    def registered(self, message: MapRegister, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        sender = self.sites.authenticate(message, datagram, source)
        if isinstance(sender, str):
            return [Reject(sender, source, f"Map-Register, key id {message.key_id}")]
        site, key = sender
        limits, view = self._settings.limits, self._store.view(_ANY)
        refusal = unusable(message, source) or replayed(message, source, site, key, view, limits.xtrs)
        if refusal is not None:
            return [refusal]
        claimed = claims_in(datagram[AUTH_OFFSET + len(message.auth) :], message.records)
        for claim in claimed:
            # RFC 9301 §8.2: one EID that the site may not register makes the Map-Server drop the whole message
            if not self.sites.may_register(site, claim.eid):
                return [Reject("foreign-prefix", source, f"{site.name} may not register {claim.eid}")]
        registrant = self._registrant(site, key, message, source)
        life_s = lifetime_s(message.records, use_ttl=message.use_ttl, default_s=self._settings.timers.expiry_s)
        register = Register(registrant, message.nonce, claimed, life_s, memo(datagram, source), datagram)
        outcome = merge(register, self._store.view(_query(register)), now, self._flapping.held(now))
        assert isinstance(outcome, Accepted), "replays were refused above"
        added = sum(change.kind is Kind.ADDED for change in outcome.changes)
        if added and len(self._store) + added > limits.registrations:
            return [Reject("table-full", source, f"{len(self._store)} registrations")]
        self._know(datagram, source, site, registrant)
        return [*self._accepted(outcome, now), *self._acknowledgement(outcome, message, datagram)]

    def at_once(self, datagram: bytes, source: Endpoint, now: float, noted: int) -> list[Effect] | None:
        """`registered` for a Map-Register that nobody has decoded, from an xTR whose last one said as much of itself:
        the usual change. None, and nothing changed, for the least that is unusual."""
        known = self._known.get(said(datagram, source))
        if known is None or datagram[2] & _USE_TTL or not authentic(datagram, known[1].key):
            return None
        site, registrant = known
        nonce = int.from_bytes(datagram[4:12], "big")
        view = self._store.view(_ANY)
        last_nonce = view.last_nonce(registrant.owner, registrant.key.id)
        if last_nonce is None or nonce <= last_nonce:
            return None
        register = Register(registrant, nonce, (), self._settings.timers.expiry_s, noted, datagram)
        effects: list[Effect]
        if (alike := self._told_alike(register, site, view, now)) is not None and self._tells_nobody(alike):
            effects = [reporting.told_alike(alike)] if alike.changed else []
            self._store.apply([alike], now)
        elif (accepted := self._merged(register, site, now)) is not None:
            effects = self._accepted(accepted, now)
        else:
            return None
        effects.append(acknowledgement(datagram, registrant, self._settings.port))
        return effects

    def _told_alike(self, register: Register, site: SiteSettings, view: View, now: float) -> ToldAlike | None:
        """`merge_alike`, for a Map-Register that nobody has decoded, if the site may register all of it.

        Whether it may register what the registrant has already was seen when that was registered: what a configuration
        takes away is purged, and a registrant is another value after a restart.
        """
        datagram = register.datagram
        start = AUTH_OFFSET + (datagram[14] << 8 | datagram[15])
        found = records.alike(datagram, start, records_end(datagram), datagram[3])
        if found is None:
            return None
        around = told_alike(found.header, found.locators)
        if around is None:
            return None
        alike = merge_alike(register, records.Alike(around[0], found.eids, around[1]), view, now)
        if alike is None or not alike.first:
            return alike
        if len(self._store) + len(alike.ips) > self._settings.limits.registrations:
            return None
        return alike if self.sites.may_register_hosts(site, alike.ips) else None

    def _tells_nobody(self, alike: ToldAlike) -> bool:
        """Whether nobody has to hear of it but the xTR itself, and who reads events."""
        subscriptions = self._publisher.subscriptions
        if self._store.settled and not self._notices.moved and not subscriptions:
            return True
        for eid in [registration.eid for registration in alike.registrations]:
            if eid in self._notices.moved or self._store.displaced(eid):
                return False
            if subscriptions and any(True for _ in subscriptions.interested(eid, self._store.view(Query((eid,))))):
                return False
        return True

    def _merged(self, register: Register, site: SiteSettings, now: float) -> Accepted | None:
        """What becomes of a Map-Register that nobody has decoded, if none of it is refused."""
        datagram = register.datagram
        seen = claims_seen(datagram, AUTH_OFFSET + (datagram[14] << 8 | datagram[15]), datagram[3])
        if seen is None or seen[1] != records_end(datagram) or not seen[0]:
            return None
        claimed = seen[0]
        for claim in claimed:
            if not self.sites.may_register(site, claim.eid):
                return None
        if len(self._store) + len(claimed) > self._settings.limits.registrations:
            return None  # perhaps too many: counted there
        whole = msgspec.structs.replace(register, claims=claimed)
        outcome = merge(whole, self._store.view(_query(whole)), now, self._flapping.held(now))
        return outcome if isinstance(outcome, Accepted) and not outcome.refusals else None

    def _know(self, datagram: bytes, source: Endpoint, site: SiteSettings, registrant: Registrant) -> None:
        if len(self._known) >= REGISTRANTS:
            self._known.clear()
        self._known[said(datagram, source)] = site, registrant

    def expired(self, now: float) -> list[Effect]:
        """The registrations that nobody refreshed."""
        gone = self._store.expired(now)
        if not gone:
            return []
        view = self._store.view(Query(tuple(change.eid for change in gone)))
        plans = self._publisher.plan(gone, view)
        for change in gone:
            self._notices.settle(change.eid, change.after.owner if change.after else None)
        return [*self._publisher.commit(plans, now), *(reporting.event(change) for change in gone)]

    def _registrant(self, site: SiteSettings, key: Key, message: MapRegister, source: Endpoint) -> Registrant:
        """One value for all Map-Registers of an xTR, so that its registrations share it."""
        who = (site.name, message.xtr_id, key.id, source, message.word)
        registrant = self._registrants.get(who)
        if registrant is None or registrant.key is not key:
            if len(self._registrants) >= REGISTRANTS:
                self._registrants.clear()
            owner = Owner(site.name, message.xtr_id or source.ip)
            registrant = self._registrants[who] = Registrant(owner, key, source, message.word)
        return registrant

    def _concerns_nobody(self, accepted: Accepted) -> bool:
        """Whether nobody but the xTR itself, and whoever reads events, has to hear of it: as it mostly is."""
        if accepted.refusals or accepted.released or self._notices or self._publisher.subscriptions:
            return False
        displaced = self._store.displaced
        for change in accepted.changes:  # many, and asked for each Map-Register
            before, after = change.before, change.after
            if change.displaced or displaced(change.eid):
                return False
            if before is None or after is None or before.lease.registrant is after.lease.registrant:
                continue
            if before.owner != after.owner:
                return False
        return True

    def _accepted(self, accepted: Accepted, now: float) -> list[Effect]:
        register = accepted.register
        if self._concerns_nobody(accepted):
            told_of: list[Effect] = list(reporting.events(accepted.changes))
            self._store.apply([accepted], now)
            return told_of
        eids = tuple(change.eid for change in accepted.changes)
        plans = self._publisher.plan(accepted.changes, self._store.view(Query(eids)))
        notices = [(move, send) for change in accepted.changes for move, send in self._moves(change)]
        notices.extend(self._objections(accepted))
        effects: list[Effect] = list(reporting.events(accepted.changes))
        effects.extend(reporting.notified(move, send) for move, send in notices if move not in self._notices)
        effects.extend(reporting.refused(refusal, register.registrant.source) for refusal in accepted.refusals)
        # everything is decided: from here on state changes, and nothing is decided any more
        self._store.apply([accepted], now)
        if self._notices:
            for change in accepted.changes:
                self._notices.settle(change.eid, change.after.owner if change.after else None)
        for eid in accepted.released:
            self._notices.cancel(Move(eid, register.owner))
        first: list[Effect] = [each for move, send in notices for each in self._notices.start(move, send, now)]
        first.extend(self._publisher.commit(plans, now))
        return [*first, *effects, *self._alarms(accepted, now)]

    def _alarms(self, accepted: Accepted, now: float) -> Iterator[Emit]:
        """An EID that flips about, and one that is at two sites: somebody should look."""
        for change in accepted.changes:
            before, after = change.before, change.after
            if before is None or after is None or after.parts or before.owner == after.owner:
                continue
            alarm = self._flapping.changed(change.eid, before.owner, after.owner, now)
            if alarm is not None:
                yield reporting.alarm(alarm, change.eid, after.owner, before.owner)
        for refusal in accepted.refusals:
            contests = refusal.reason in ("displaced", "damped")
            if contests and self._flapping.claimed(refusal.eid, accepted.register.owner, now):
                yield reporting.alarm("contested", refusal.eid, refusal.current.owner, accepted.register.owner)

    def pin(self, now: float) -> list[Effect]:
        """Make the static mappings those of the settings; what they displace is told so."""
        wanted = {each.prefix: records.packed(told(each.record, each.prefix)) for each in self._settings.static}
        held = {each.eid: each.record for each in self._store.static()}
        changed = [Claim(eid, None) for eid in held if eid not in wanted]
        changed.extend(Claim(eid, record) for eid, record in wanted.items() if held.get(eid) != record)
        if not changed:
            return []
        registrant = Registrant(STATIC, Key(0, b""), Endpoint(b"", 0), STATIC_WORD)
        outcome = merge(
            Register(registrant, next(self._nonces), tuple(changed), math.inf), self._store.view(Query(())), now
        )
        return self._accepted(outcome, now) if isinstance(outcome, Accepted) else []

    def remind(self, now: float) -> list[Effect]:
        """After a restart: tell every xTR that has not acknowledged it once more what it has lost."""
        effects: list[Effect] = []
        for eid, left in self._store.departures():
            current = self._store.view(Query((eid,))).exact(eid)
            if current is not None:
                send = self._move(current.mapping, left.registrant)
                effects.extend(self._notices.start(Move(eid, left.owner), send, now))
        return effects

    def purge(self, sites: Collection[str], now: float) -> list[Effect]:
        """End what these sites have registered and, by the settings, may not register any more."""
        effects: list[Effect] = []
        for registration in [each for each in self._store.registrations() if each.owner.site in sites]:
            site = self.sites.named(registration.owner.site)
            if site is not None and self.sites.may_register(site, registration.eid):
                continue
            for part in registration.each:
                eid = part.eid
                current = self._store.view(Query((eid,))).exact(eid)
                change = without(eid, current, part, Kind.WITHDRAWN, now) if current is not None else None
                if change is not None:
                    plans = self._publisher.plan([change], self._store.view(Query((eid,))))
                    self._store.apply([Dropped(eid, part.owner)], now)
                    self._notices.settle(eid, change.after.owner if change.after else None)
                    effects.extend((*self._publisher.commit(plans, now), reporting.event(change)))
        return effects

    def _acknowledgement(self, accepted: Accepted, message: MapRegister, datagram: bytes) -> Iterator[Send | Transmit]:
        """RFC 9301 §5.7: same nonce, same records, less those that were refused; to port 4342 (§8.2)."""
        if message.want_notify and not accepted.refusals:
            yield acknowledgement(datagram, accepted.register.registrant, self._settings.port)
            return
        stands = {refusal.eid for refusal in accepted.refusals}
        accepted_records = tuple(record for record in message.records if record.prefix not in stands)
        if message.want_notify and accepted_records:
            register = accepted.register
            yield Send(
                MapNotify.of(*accepted_records, nonce=message.nonce),
                self._control(register.registrant.source),
                register.registrant.key,
            )

    def _moves(self, change: Change) -> Iterator[tuple[Move, Send]]:
        """RFC 9301 §8.2: the xTR that the EID has left is told the new mapping, and so is every earlier one that has
        not acknowledged yet."""
        if change.after is None or change.kind is Kind.REFRESHED:
            return
        before = self._store.displaced(change.eid)
        if not before and not change.displaced:
            return
        left = {each.owner: each for each in before}
        left.update((each.owner, each) for each in change.displaced)
        left.pop(change.after.owner, None)
        for owner, registration in left.items():
            yield Move(change.eid, owner), self._move(change.after.mapping, registration.registrant)

    def _objections(self, accepted: Accepted) -> Iterator[tuple[Move, Send]]:
        """A refused xTR is answered with the Map-Notify that it has not acknowledged yet, or with a new one."""
        for refusal in accepted.refusals:
            if refusal.reason in ("not-owner", "static-mapping", "too-many-xtrs"):
                continue
            move = Move(refusal.eid, accepted.register.owner)
            yield move, self._notices.pending(move) or self._move(refusal.current.mapping, accepted.register.registrant)

    def _move(self, mapping: EidRecord, to: Registrant) -> Send:
        return Send(MapNotify.of(mapping, nonce=next(self._nonces)), self._control(to.source), to.key)

    def _control(self, source: Endpoint) -> Endpoint:
        return Endpoint(source.ip, self._settings.port)


def _query(register: Register) -> Query:
    return Query(tuple(claim.eid for claim in register.claims), register.owner, register.registrant.key.id)
