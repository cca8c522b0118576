"""A controller moves a service by authenticated Map-Notifies to both data-centre xTRs (the papers' Fig. 9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fmcc.steering import Acknowledged, Redirect
from fmcc.steering.lisp import Fig9
from fmcc.world import DataCenter
from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapNotifyAck, MapRegister, Message
from tests.scenarios.network import CONTROL_PORT, Datagram, Faults, Node
from tests.scenarios.sites import ALICE, ALICE_APP, RLOCS, SITES, World, pair_secret, rloc


class Steering:
    """The controller's steering scheme as a node's core; its decisions are not needed here."""

    def __init__(self, scheme: Fig9) -> None:
        self.scheme = scheme
        self.heard: list[str] = []

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Reject]:
        assert isinstance(message, MapNotifyAck)
        outcome = self.scheme.acknowledged(message, datagram, source)
        if isinstance(outcome, Acknowledged):
            self.heard.append(outcome.datacenter)
        return [outcome] if isinstance(outcome, Reject) else []

    def next_deadline(self) -> float | None:
        return self.scheme.next_deadline()

    def expired(self, now: float) -> list[Send]:
        return self.scheme.expired(now)


class Fmcc:
    def __init__(self, world: World) -> None:
        self.world = world
        self.nonces = world.network.nonces()
        sites = {site: tuple(ip_of(text) for text in RLOCS[site]) for site in SITES}
        datacenters = {site: DataCenter(site, fmcc_key(site)) for site in ("dc1", "dc2")}
        self.steering = Steering(Fig9(sites, datacenters, self.nonces))
        self.node = Node(world.network, "fmcc", tuple(ip_of(text) for text in RLOCS["fmcc"]), self.steering)

    def redirects(self, eid: Prefix, to: str, version: int) -> None:
        """The service runs at `to` now: both data centres are told."""
        source = "dc1" if to == "dc2" else "dc2"
        redirect = Redirect(f"move-{version}", "app", (eid,), version, source, to)
        self.node.apply(list(self.steering.scheme.activate(redirect, self.world.network.now)))


def fmcc_key(site: str) -> Key:
    return Key(3, pair_secret(site, "fmcc").encode())


def serving(seed: int = 1, faults: Faults = Faults()) -> tuple[World, Fmcc]:  # noqa: B008 - frozen
    """Alice at access1 uses her service at dc1."""
    world = World(seed, faults)
    world.host("alice", ALICE, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.run(10)
    world.talk(ALICE, ALICE_APP, 1.0)
    return world, Fmcc(world)


def version_at_map_server(world: World, eid: Prefix) -> int:
    return next(each.version for each in world.server.registrations() if each.eid == eid)


@pytest.mark.parametrize("seed", range(12))
def test_the_controllers_word_moves_a_service_and_everybody_follows(seed: int) -> None:
    world, fmcc = serving(seed, Faults(loss=0.25, duplicate=0.1, jitter_s=0.03))
    app = world.hosts[ALICE_APP]
    world.attach(app, "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.talk(ALICE, ALICE_APP, 30.0, every=0.25)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.registered_at(ALICE_APP) == rloc("dc2")
    assert version_at_map_server(world, ALICE_APP) == 1
    assert world.next_hops("access1", ALICE_APP) == (rloc("dc2"),)
    assert world.next_hops("dc1", ALICE_APP) == (rloc("dc2"),)
    assert sorted(fmcc.steering.heard) == ["dc1", "dc2"]
    last = world.send(ALICE, ALICE_APP)
    world.run(1)
    assert (app.got[-1].number, app.got[-1].hops) == (last, ("access1", "dc2"))


def test_a_machine_that_shows_up_is_delivered_but_not_registered_before_the_controller_says_so() -> None:
    world, fmcc = serving()
    world.attach(world.hosts[ALICE_APP], "dc2")
    world.run(2)
    assert world.registered_at(ALICE_APP) == rloc("dc1")
    assert world.deliverers(ALICE_APP) == ["dc1", "dc2"]
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(1)
    assert world.registered_at(ALICE_APP) == rloc("dc2")
    assert world.deliverers(ALICE_APP) == ["dc2"]


def test_the_source_erases_its_entry_so_that_what_still_arrives_is_lost_until_the_users_site_is_informed() -> None:
    world, fmcc = serving()
    app = world.hosts[ALICE_APP]
    world.attach(app, "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(0.006)
    late = world.send(ALICE, ALICE_APP)
    world.run(1)
    assert late not in [packet.number for packet in app.got]
    assert world.next_hops("access1", ALICE_APP) == (rloc("dc2"),)


def test_a_service_goes_back_with_a_higher_version_and_its_away_entry_ends() -> None:
    world, fmcc = serving()
    app = world.hosts[ALICE_APP]
    for version, site in enumerate(("dc2", "dc1", "dc2", "dc1"), start=1):
        world.attach(app, site)
        fmcc.redirects(ALICE_APP, site, version)
        world.talk(ALICE, ALICE_APP, 5.0, every=0.5)
        assert world.deliverers(ALICE_APP) == [site]
        assert world.registered_at(ALICE_APP) == rloc(site)
        assert version_at_map_server(world, ALICE_APP) == version


def test_a_machine_back_at_home_waits_for_the_controllers_word() -> None:
    world, fmcc = serving()
    app = world.hosts[ALICE_APP]
    world.attach(app, "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(5)
    world.attach(app, "dc1")
    world.run(5)
    assert world.registered_at(ALICE_APP) == rloc("dc2")
    fmcc.redirects(ALICE_APP, "dc1", 2)
    world.run(5)
    assert world.registered_at(ALICE_APP) == rloc("dc1")
    assert world.deliverers(ALICE_APP) == ["dc1"]


def test_an_older_word_that_arrives_late_changes_nothing() -> None:
    world, fmcc = serving()
    app = world.hosts[ALICE_APP]
    world.attach(app, "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 5)
    world.run(5)
    dc1 = world.xtrs["dc1"]
    before = dc1.names()
    older = MapNotify.of(_record("100.64.101.10/32", "198.18.0.21", version=4), nonce=next(fmcc.nonces))
    dc1.datagram(sign(older, fmcc_key("dc1")), world.endpoint("fmcc"))
    world.run(5)
    assert dc1.names() == before
    assert dc1.rejects == {"stale-version": 1}
    assert world.registered_at(ALICE_APP) == rloc("dc2")


def test_the_sources_refresh_lacks_the_moved_service() -> None:
    world, fmcc = serving()
    world.attach(world.hosts[ALICE_APP], "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(5)
    noted = world.network.now
    world.run(200)
    sent = [d.message for d in world.network.sent if d.at > noted and d.source.ip == rloc("dc1")]
    registers = [message for message in sent if isinstance(message, MapRegister)]
    assert registers
    assert not any(record.prefix == ALICE_APP for register in registers for record in register.records)


def test_when_the_source_never_hears_the_controller_the_map_server_tells_it() -> None:
    world, fmcc = serving()
    world.network.lose(lambda d: d.source.ip == rloc("fmcc") and d.to.ip == rloc("dc1"))
    world.attach(world.hosts[ALICE_APP], "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(2)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.next_hops("dc1", ALICE_APP) == (rloc("dc2"),)


Forge = Callable[[World, MapNotify], tuple[bytes, Endpoint]]


def _wrong_key(world: World, notify: MapNotify) -> tuple[bytes, Endpoint]:
    return sign(notify, Key(3, b"guessed")), world.endpoint("fmcc")


def _unknown_sender(world: World, notify: MapNotify) -> tuple[bytes, Endpoint]:
    return sign(notify, fmcc_key("dc1")), Endpoint(ip_of("198.18.0.99"), CONTROL_PORT)


def _altered(world: World, notify: MapNotify) -> tuple[bytes, Endpoint]:
    data = bytearray(sign(notify, fmcc_key("dc1")))
    data[-1] ^= 1
    return bytes(data), world.endpoint("fmcc")


def _right_key(world: World, notify: MapNotify) -> tuple[bytes, Endpoint]:
    return sign(notify, fmcc_key("dc1")), world.endpoint("fmcc")


def _record(eid: str, to: str, version: int = 7) -> EidRecord:
    return EidRecord.of(Prefix.parse(eid), [Locator.of(ip_of(to))], ttl_minutes=1440, map_version=version)


@pytest.mark.parametrize(
    ("forge", "record", "reason"),
    [
        (_wrong_key, _record("100.64.101.10/32", "198.18.0.22"), "bad-authentication"),
        (_altered, _record("100.64.101.10/32", "198.18.0.22"), "bad-authentication"),
        (_unknown_sender, _record("100.64.101.10/32", "198.18.0.22"), "unknown-sender"),
        (_right_key, _record("100.64.1.10/32", "198.18.0.22"), "foreign-prefix"),
        (_right_key, _record("100.64.101.0/24", "198.18.0.22"), "foreign-prefix"),
        (_right_key, _record("100.64.101.10/32", "198.18.0.99"), "foreign-locator"),
        (_right_key, _record("100.64.101.10/32", "198.18.0.22", version=0), "no-version"),
    ],
)
def test_a_forbidden_move_changes_nothing_and_is_counted(forge: Forge, record: EidRecord, reason: str) -> None:
    world, fmcc = serving()
    dc1 = world.xtrs["dc1"]
    before = (dc1.names(), dict(dc1.delivered), list(dc1.table.items()))
    data, source = forge(world, MapNotify.of(record, nonce=next(fmcc.nonces)))
    sent = len(world.network.sent)
    dc1.datagram(data, source)
    assert dc1.rejects == {reason: 1}
    assert (dc1.names(), dict(dc1.delivered), list(dc1.table.items())) == before
    assert len(world.network.sent) == sent


def test_a_replayed_move_changes_nothing_and_is_counted() -> None:
    world, fmcc = serving()
    app = world.hosts[ALICE_APP]
    dc1 = world.xtrs["dc1"]
    world.attach(app, "dc2")
    fmcc.redirects(ALICE_APP, "dc2", 1)
    world.run(5)
    old = next(d for d in world.network.sent if d.source.ip == rloc("fmcc") and d.to.ip == rloc("dc1"))
    world.attach(app, "dc1")
    fmcc.redirects(ALICE_APP, "dc1", 2)
    world.run(5)
    before = dc1.names()
    dc1.datagram(old.data, old.source)
    assert dc1.rejects == {"replayed-nonce": 1}
    assert dc1.names() == before
    assert world.deliverers(ALICE_APP) == ["dc1"]


def test_a_replayed_registration_does_not_take_a_user_back() -> None:
    world, _ = serving()
    world.attach(world.hosts[ALICE], "access2")
    world.run(5)
    olds: list[Datagram] = [
        d for d in world.network.sent if d.source.ip == rloc("access1") and isinstance(d.message, MapRegister)
    ]
    before = world.mapserver.names()
    for old in olds:
        world.mapserver.datagram(old.data, old.source)
    world.run(5)
    assert world.mapserver.rejects["replayed-nonce"] == len(olds)
    assert world.mapserver.names() == before
    assert world.registered_at(ALICE) == rloc("access2")


def test_a_site_cannot_register_what_is_not_its_own() -> None:
    world, _ = serving()
    record = EidRecord.of(ALICE_APP, [Locator.of(rloc("access1"))], ttl_minutes=1440)
    register = MapRegister.of(record, nonce=1 << 63, xtr_id=bytes(16), site_id=bytes(8))
    world.mapserver.datagram(sign(register, Key(1, b"site-access1")), world.endpoint("access1"))
    assert world.mapserver.rejects["foreign-prefix"] == 1
    assert world.registered_at(ALICE_APP) == rloc("dc1")


def test_a_peer_can_only_say_where_an_eid_went_that_it_had() -> None:
    world, _ = serving()
    access1 = world.xtrs["access1"]
    record = EidRecord.of(ALICE_APP, [Locator.of(rloc("access2"))], ttl_minutes=1440)
    key = Key(2, pair_secret("access1", "access2").encode())
    access1.datagram(sign(MapNotify.of(record, nonce=5), key), world.endpoint("access2"))
    assert access1.rejects == {"not-the-locator": 1}
    own = EidRecord.of(ALICE, [Locator.of(rloc("access2"))], ttl_minutes=1440)
    access1.datagram(sign(MapNotify.of(own, nonce=6), key), world.endpoint("access2"))
    assert access1.rejects["local-eid"] == 1
    assert world.next_hops("access1", ALICE_APP) == (rloc("dc1"),)
    assert world.deliverers(ALICE) == ["access1"]


def test_a_notify_that_is_sent_back_to_its_sender_is_refused() -> None:
    world, _ = serving()
    world.network.lose(lambda d: isinstance(d.message, MapNotifyAck) and d.to.ip == rloc("access1"))
    world.attach(world.hosts[ALICE], "access2")
    world.run(0.05)
    told: Ip = rloc("dc1")
    notifies = [d for d in world.network.sent if d.to.ip == told and isinstance(d.message, MapNotify)]
    ours = next(d for d in notifies if d.source.ip == rloc("access1"))
    access1 = world.xtrs["access1"]
    access1.datagram(ours.data, Endpoint(told, CONTROL_PORT))
    assert access1.rejects == {"reflected": 1}
