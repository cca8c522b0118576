"""A Map-Server on virtual time with the xTRs and the controller that talk to it, everything as bytes on a wire."""

from __future__ import annotations

import itertools
from typing import Any

from lispfmc.core.effects import Effect, Emit, EmitEach, Reject, Send, Transmit
from lispfmc.runtime.driver import QUICK
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    RequestRecord,
    Signed,
)
from mapserver.refreshing import memo
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings

ALICE = "100.64.1.10/32"
SERVICE = "100.64.101.10/32"
SITES = {
    "access1": (1, "198.18.0.11"),
    "access2": (2, "198.18.0.12"),
    "dc1": (101, "198.18.0.21"),
    "dc2": (102, "198.18.0.22"),
}
ACCESS = ["100.64.1.0/24", "100.64.2.0/24", "fd00:0:0:1::/64", "fd00:0:0:2::/64"]
SERVICES = ["100.64.101.0/24", "100.64.102.0/24"]
FMCC = "198.18.0.2"
SUBSCRIBER = {
    "name": "fmcc",
    "key_id": 9,
    "secret": "secret of fmcc",
    "ranges": ACCESS + SERVICES,
    "address": [FMCC, "2001:2::2"],
}


def settings(**changes: Any) -> MapServerSettings:
    sites = [
        {
            "name": name,
            "key_id": 1,
            "secret": f"secret of {name}",
            "prefixes": [f"100.64.{number}.0/24", f"fd00:0:0:{number}::/64", f"[7]100.64.{number}.0/24"],
            "roaming": SERVICES if name.startswith("dc") else ACCESS,
        }
        for name, (number, _) in SITES.items()
    ]
    values = {
        "name": "mapserver",
        "listen": ["198.18.0.1", "2001:2::1"],
        "sites": sites,
        "subscribers": [SUBSCRIBER],
        "mobility_ranges": [{"prefix": prefix} for prefix in ACCESS],
    }
    return MapServerSettings.model_validate(values | changes)


class World:
    """The Map-Server and what came out of it."""

    def __init__(self, **changes: Any) -> None:
        self.now = 1000.0
        self.settings = settings(**changes)
        self.server = MapServer(self.settings, itertools.count(1 << 40))
        self.sent: list[Send] = []
        self.events: list[Emit] = []
        self.rejects: list[str] = []
        self._take(self.server.started(self.now))

    def configures(self, **changes: Any) -> None:
        """The operator has the daemon go by other settings."""
        self.settings = settings(**changes)
        self._take(self.server.configured(self.settings, self.now))

    def hears(self, message: Message, source: Endpoint, key: Key | None = None) -> None:
        """`message` arrives, as bytes."""
        datagram = encode(message) if key is None or not isinstance(message, Signed) else sign(message, key)
        self.hears_bytes(datagram, source)

    def hears_bytes(self, datagram: bytes, source: Endpoint) -> None:
        answer = self.server.at_once(datagram, source, self.now) if datagram[0] >> 4 in QUICK else None
        if answer is None:
            answer = self.server.received(decode(datagram), datagram, source, self.now)
        self._take(answer if isinstance(answer, list) else [answer])

    def run(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while (due := self.server.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self._take(self.server.expired(self.now))
        self.now = end

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Transmit():
                    message = decode(effect.datagram)
                    self.sent.append(Send(message, effect.to, self._key(message, effect.datagram)))
                case Send():
                    if effect.key is None:
                        assert decode(encode(effect.message)) is not None
                    self.sent.append(effect)
                case Emit():
                    self.events.append(effect)
                case EmitEach():
                    self.events.extend(effect.apart())
                case Reject():
                    self.rejects.append(effect.reason)

    def _key(self, message: Message, datagram: bytes) -> Key | None:
        """By which of the configured keys it is signed."""
        sites, subscribers = self.settings.sites, self.settings.subscribers
        keys = [*(key for each in sites for key in each.all_keys), *(each.key for each in subscribers)]
        return next((key for key in keys if isinstance(message, Signed) and verify(message, datagram, key)), None)

    def event_names(self) -> list[str]:
        return [event.name for event in self.events]

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.sent, self.events, self.rejects = [], [], []

    def refreshes_shortly(self, xtr: Xtr, eid: str) -> bool:
        """Whether a Map-Register for `eid` is answered undecoded as one that says what the last one said."""
        register = MapRegister.of(
            xtr.record(eid), nonce=next(xtr.nonces), xtr_id=xtr.xtr_id, site_id=bytes(8), want_notify=True
        )
        datagram = sign(register, xtr.key)
        if self.server._refreshing.at_once(datagram, xtr.endpoint, self.now, memo(datagram, xtr.endpoint)):
            return True
        self.hears_bytes(datagram, xtr.endpoint)
        return False

    def mappings(self) -> dict[str, str]:
        """Who holds what: EID to site."""
        return {str(each.eid): each.owner.site for each in self.server.registrations()}

    # what a resolver's client does

    def ask(self, eid: str, source: str = "198.18.0.12", *itr_rlocs: str, port: int = 61000) -> MapReply:
        """An encapsulated Map-Request, and the Map-Reply that must come of it."""
        self.forget()
        self.hears(self.request(eid, source, *itr_rlocs, port=port), Endpoint(ip_of(source), 4342))
        [send] = self.sent
        assert isinstance(send.message, MapReply)
        assert send.to.port == port
        return send.message

    def request(self, eid: str, source: str = "198.18.0.12", *itr_rlocs: str, port: int = 61000) -> Ecm:
        prefix = Prefix.parse(eid)
        rlocs = [ip_of(rloc) for rloc in itr_rlocs or (source,)]
        request = MapRequest.of(RequestRecord.of(prefix), nonce=77, itr_rlocs=rlocs)
        inner = ip_of("100.64.2.1") if len(prefix.ip) == 4 else ip_of("fd00:0:0:2::1")
        return Ecm.of(request, source=inner, destination=prefix.ip, source_port=port)


class Xtr:
    """A site's tunnel router as far as the Map-Server sees it."""

    def __init__(self, world: World, site: str) -> None:
        number, rloc = SITES[site]
        self.world = world
        self.home = f"100.64.{number}.0/24"
        self.home6 = f"fd00:0:0:{number}::/64"
        self.rloc = ip_of(rloc)
        self.rloc6 = ip_of(f"2001:2::{rloc.rpartition('.')[2]}")
        self.xtr_id = site.encode().ljust(16, b".")
        self.key = Key(1, f"secret of {site}".encode())
        self.nonces = itertools.count(1)

    def record(self, eid: str, version: int = 0, ttl_minutes: int = 1440) -> EidRecord:
        locators = [Locator.of(self.rloc, local=True), Locator.of(self.rloc6, priority=2, local=True)]
        return EidRecord.of(
            Prefix.parse(eid), locators, ttl_minutes=ttl_minutes, authoritative=True, map_version=version
        )

    def registers(self, *eids: str, version: int = 0, **options: Any) -> MapRegister:
        return self.says(*(self.record(eid, version) for eid in eids), **options)

    def says(
        self, *records: EidRecord, nonce: int | None = None, key: Key | None = None, **options: Any
    ) -> MapRegister:
        message = MapRegister.of(
            *records, nonce=nonce or next(self.nonces), xtr_id=self.xtr_id, site_id=bytes(8), **options
        )
        self.world.hears(message, self.endpoint, key or self.key)
        return message

    def withdraws(self, eid: str) -> None:
        self.says(EidRecord.of(Prefix.parse(eid), ttl_minutes=0))

    def acknowledges(self, notify: MapNotify, key: Key | None = None) -> None:
        self.world.hears(MapNotifyAck.of(notify), self.endpoint, key or self.key)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.rloc, 4342)

    def notifies(self) -> list[MapNotify]:
        """The Map-Notifies that came here, every one checked with this site's key."""
        return received(self.world, self.rloc, self.key)


class Controller:
    """The FMCC as a subscriber."""

    def __init__(self, world: World, address: str = FMCC) -> None:
        self.world = world
        self.rlocs = [ip_of(FMCC), ip_of("2001:2::2")]
        self.xtr_id = b"fmcc".ljust(16, b".")
        self.key = Key(9, b"secret of fmcc")
        self.endpoint = Endpoint(ip_of(address), 4342)

    def subscribes(
        self, eid: str, nonce: int, rlocs: list[Ip] | list[None] | None = None, xtr_id: bytes | None = None
    ) -> None:
        request = MapRequest.of(
            RequestRecord.of(Prefix.parse(eid), notify=True),
            nonce=nonce,
            itr_rlocs=rlocs or self.rlocs,
            xtr_id=xtr_id or self.xtr_id,
            site_id=bytes(8),
        )
        ecm = Ecm.of(request, source=self.rlocs[0], destination=ip_of("198.18.0.1"), source_port=4342)
        self.world.hears(ecm, self.endpoint)

    def unsubscribes(self, eid: str, nonce: int) -> None:
        self.subscribes(eid, nonce, [None])

    def acknowledges(self, notify: MapNotify, key: Key | None = None) -> None:
        self.world.hears(MapNotifyAck.of(notify), self.endpoint, key or self.key)

    def notifies(self) -> list[MapNotify]:
        return received(self.world, self.rlocs[0], self.key)


def received(world: World, to: Ip, key: Key) -> list[MapNotify]:
    notifies: list[MapNotify] = []
    for send in world.sent:
        if send.to == Endpoint(to, 4342) and isinstance(send.message, MapNotify) and send.key is not None:
            datagram = sign(send.message, send.key)
            message = decode(datagram)
            assert isinstance(message, MapNotify)
            assert verify(message, datagram, key), "not signed with the receiver's key"
            notifies.append(message)
    return notifies


def told(notify: MapNotify) -> dict[str, tuple[bytes, ...]]:
    """The EIDs of a message and their IPv4 locators."""
    return {
        str(record.prefix): tuple(
            each.address for each in record.locators if isinstance(each.address, bytes) and len(each.address) == 4
        )
        for record in notify.records
    }
