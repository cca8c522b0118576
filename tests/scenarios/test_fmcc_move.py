"""The controller's story on virtual time: a real Map-Server core, the real controller core, real datagrams between
them with delay, seeded loss and reordering. Tunnel routers and hypervisor agents are played by the test.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from fmcc import views
from fmcc.controller import Controller
from fmcc.effects import AbortMigration, PrepareMigration, StartMigration
from fmcc.migrations import MOVES_KEPT
from fmcc.moves import Failed, Prepared, Progress, Resumed, State, Stopped
from fmcc.requests import RequestRefused
from fmcc.settings import FmccSettings
from fmcc.steering.lisp import Fig9, records_of
from lispfmc.core.effects import Emit, Reject, Send, Transmit
from lispfmc.wire import auth, decode, encode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapNotifyAck, MapRegister, MapReply, Message
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings

ACCESS = {"access1": "198.18.0.11", "access2": "198.18.0.12"}
DATACENTERS = {"dc1": "198.18.0.21", "dc2": "198.18.0.22"}
SITES = ACCESS | DATACENTERS
FMCC, MAPSERVER = "198.18.0.2", "198.18.0.1"
RTTS = [("access1", "dc1", 12), ("access1", "dc2", 240), ("access2", "dc1", 250), ("access2", "dc2", 3)]
USERS, SERVICES = ["100.64.1.0/24", "fd00:0:0:1::/64"], ["100.64.101.0/24", "fd00:0:0:101::/64"]
ALICE = (Prefix.parse("100.64.1.10/32"), Prefix.parse("fd00:0:0:1::10/128"))
APP = (Prefix.parse("100.64.101.10/32"), Prefix.parse("fd00:0:0:101::10/128"))

Core = Controller | MapServer


def fmcc_settings(**changes: object) -> FmccSettings:
    sites: list[dict[str, Any]] = [{"name": name, "kind": "access", "rlocs": [rloc]} for name, rloc in ACCESS.items()]
    sites += [
        {
            "name": name,
            "kind": "datacenter",
            "rlocs": [rloc],
            "agent": f"{rloc}:9350",
            "agent_token": "token",
            "key_id": 3,
            "secret": f"fmcc-{name}",
        }
        for name, rloc in DATACENTERS.items()
    ]
    return FmccSettings.model_validate(
        {
            "mode": "act",
            "policy": "nearest",
            "scheme": "fig9",
            "rlocs": [FMCC],
            "map_server": {"address": MAPSERVER, "key_id": 4, "secret": "pubsub"},
            "sites": sites,
            "rtts": [{"a": a, "b": b, "ms": ms} for a, b, ms in RTTS],
            "users": [{"name": "alice", "eids": [str(eid) for eid in ALICE]}],
            "services": [
                {"name": "app", "user": "alice", "eids": [str(eid) for eid in APP], "datacenter": "dc1"},
            ],
            "ranges": USERS + SERVICES,
            **changes,
        }
    )


def mapserver_settings() -> MapServerSettings:
    sites = [
        {
            "name": name,
            "key_id": 1,
            "secret": f"site-{name}",
            "prefixes": [],
            "roaming": SERVICES if name in DATACENTERS else USERS,
            "xtrs": [rloc],
        }
        for name, rloc in SITES.items()
    ]
    subscriber = {"name": "fmcc", "key_id": 4, "secret": "pubsub", "ranges": USERS + SERVICES, "address": [FMCC]}
    ranges = [{"prefix": prefix} for prefix in USERS + SERVICES]
    return MapServerSettings.model_validate(
        {
            "name": "mapserver",
            "listen": [MAPSERVER],
            "sites": sites,
            "subscribers": [subscriber],
            "mobility_ranges": ranges,
        }
    )


class Router:
    """A tunnel router as the controller sees it: registers, acknowledges, adopts a service that it is told of."""

    def __init__(self, net: Net, site: str) -> None:
        self.net, self.site, self.rloc = net, site, ip_of(SITES[site])
        self.notified: list[MapNotify] = []
        self.deaf = False

    def registers(self, *eids: Prefix, version: int = 0) -> None:
        register = MapRegister.of(
            *records_of(eids, (self.rloc,), version),
            nonce=next(self.net.nonces),
            xtr_id=self.site.encode().ljust(16),
            site_id=bytes(8),
        )
        signed = auth.sign(register, Key(1, f"site-{self.site}".encode()))
        self.net.carry(signed, self.rloc, Endpoint(ip_of(MAPSERVER), 4342))

    def receives(self, message: Message, datagram: bytes, source: Endpoint) -> None:
        if not isinstance(message, MapNotify) or self.deaf:
            return
        if source.ip == ip_of(MAPSERVER):  # told that it has lost an EID, or its own registration's answer
            key = Key(1, f"site-{self.site}".encode())
            self.net.carry(auth.sign(MapNotifyAck.of(message), key), self.rloc, source)
            return
        key = Key(3, f"fmcc-{self.site}".encode())
        assert auth.verify(message, datagram, key)
        news = message not in self.notified
        self.notified.append(message)
        self.net.carry(auth.sign(MapNotifyAck.of(message), key), self.rloc, source)
        record = message.records[0]
        if news and record.locators[0].address == self.rloc:
            self.registers(*(r.prefix for r in message.records if r.prefix), version=record.map_version)


class Net:
    """Virtual time: a heap of deliveries, and the cores' own deadlines."""

    def __init__(
        self, *, loss: float = 0.0, jitter_s: float = 0.0, seed: int = 1, delay_s: float = 0.005, **settings: object
    ) -> None:
        self.now = 1000.0
        self.nonces: Iterator[int] = itertools.count(1 << 40)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._random = random.Random(seed)
        self._loss, self._jitter_s, self._delay_s = loss, jitter_s, delay_s
        self._settings = fmcc_settings(**settings)
        self.fmcc = self.new_controller(self._settings.world())
        self.mapserver = MapServer(mapserver_settings(), self.nonces)
        self.routers = {site: Router(self, site) for site in SITES}
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self.rejects: list[str] = []
        self.asked: list[PrepareMigration | StartMigration | AbortMigration] = []
        self.sent_by_fmcc = 0

    def new_controller(self, world: Any) -> Controller:
        return Controller(
            world, self._settings.make_policy(), Fig9(world.sites, world.datacenters, self.nonces), self.nonces
        )

    def carry(self, datagram: bytes, source: Ip, to: Endpoint) -> None:
        if self._random.random() >= self._loss:
            delay_s = self._delay_s + self._random.random() * self._jitter_s
            self.later(delay_s, lambda: self._arrive(datagram, Endpoint(source, 4342), to))

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_s, next(self._order), act))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self._next()) is not None and at <= until:
            self.now = max(self.now, at)
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            for core, address in ((self.fmcc, FMCC), (self.mapserver, MAPSERVER)):
                due = core.next_deadline()
                if due is not None and due <= self.now:
                    self._perform(list(core.expired(self.now)), ip_of(address))
        self.now = until

    def tell(self, decide: Callable[..., list[Any]], *arguments: object) -> None:
        self._perform(decide(*arguments, self.now), ip_of(FMCC))

    def _next(self) -> float | None:
        deadlines = [self.fmcc.next_deadline(), self.mapserver.next_deadline()]
        deadlines += [self._heap[0][0]] if self._heap else []
        return min((at for at in deadlines if at is not None), default=None)

    def _arrive(self, datagram: bytes, source: Endpoint, to: Endpoint) -> None:
        message = decode(datagram)
        if to.ip == ip_of(FMCC):
            self._perform(self.fmcc.received(message, datagram, source, self.now), to.ip)
        elif to.ip == ip_of(MAPSERVER):
            self._perform(list(self.mapserver.received(message, datagram, source, self.now)), to.ip)
        else:
            router = next(router for router in self.routers.values() if router.rloc == to.ip)
            router.receives(message, datagram, source)

    def _perform(self, effects: list[Any], at: Ip) -> None:
        for effect in effects:
            match effect:
                case Transmit(datagram=datagram, to=to):
                    self.carry(datagram, at, to)
                case Send(message=message, to=to, key=None):
                    self.carry(encode(message), at, to)
                case Send(message=message, to=to, key=key):
                    assert isinstance(message, MapRegister | MapNotify | MapNotifyAck)
                    assert key is not None
                    self.carry(auth.sign(message, key), at, to)
                case Emit(name=name, fields=fields) if at == ip_of(FMCC):
                    self.events.append((self.now, name, dict(fields)))
                case Reject(reason=reason) if at == ip_of(FMCC):
                    self.rejects.append(reason)
                case PrepareMigration() | StartMigration() | AbortMigration():
                    self.asked.append(effect)

    # --- the story's words --------------------------------------------------------------------------------------------

    @property
    def placement(self) -> Any:
        return self.fmcc.placements["app"]

    def names(self) -> list[str]:
        return [name for _, name, _ in self.events]

    def fields(self, name: str) -> dict[str, Any]:
        return next(fields for _, event, fields in reversed(self.events) if event == name)

    def settles(self) -> None:
        """Alice at access1, her service at dc1, everything subscribed."""
        self.run(0.5)
        self.routers["access1"].registers(*ALICE)
        self.routers["dc1"].registers(*APP)
        self.run(40.0)

    def alice_moves(self, site: str = "access2") -> None:
        self.routers[site].registers(*ALICE)

    def hypervisor_moves(self, *, copy_s: float = 1.0, pause_s: float = 0.06) -> None:
        """The agents do what they were asked, from here on."""
        move = self.asked[-1].move
        self.tell(self.fmcc.agent_event, move, Prepared("emulated", True))
        self.tell(self.fmcc.agent_event, move, Progress(0.0))
        self.run(copy_s)
        self.tell(self.fmcc.agent_event, move, Stopped(int(self.now * 1e9)))
        self.run(pause_s)
        self.tell(self.fmcc.agent_event, move, Resumed(int(self.now * 1e9)))


def test_a_user_moves_and_its_service_follows() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    assert net.fields("user.moved") == {
        "user": "alice",
        "eid": str(ALICE[0]),
        "from": "access1",
        "to": "access2",
    }
    assert net.fields("decision.made")["to"] == "dc2"
    net.hypervisor_moves()
    net.run(0.1)
    assert net.placement.state is State.COMMITTED
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 1)
    (move,) = msgspec.to_builtins(views.moves(net.fmcc))["items"]
    assert [phase["name"] for phase in move["phases"]] == [
        "user.moved",
        "decided",
        "prepared",
        "warmed",
        "copy.started",
        "stopped",
        "resumed",
        "notified",
        "acknowledged",
        "committed",
    ]
    times = [phase["at_ms"] for phase in move["phases"]]
    assert times == sorted(times)
    assert move["blackout_events_ms"] == pytest.approx(60, abs=0.1)
    assert move["emulated"] is True


def test_both_routers_are_told_when_resumed_is_heard_and_not_before() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    move = net.asked[-1].move
    net.tell(net.fmcc.agent_event, move, Prepared("emulated", True))
    net.tell(net.fmcc.agent_event, move, Stopped(1))
    net.run(5.0)
    assert not net.routers["dc1"].notified
    assert not net.routers["dc2"].notified
    net.tell(net.fmcc.agent_event, move, Resumed(2))
    net.run(0.006)
    for site in DATACENTERS:
        (notify,) = net.routers[site].notified
        assert [record.prefix for record in notify.records] == list(APP)
        assert {record.map_version for record in notify.records} == {1}
        assert {record.locators[0].address for record in notify.records} == {ip_of(DATACENTERS["dc2"])}


@pytest.mark.parametrize("seed", range(12))
def test_with_every_third_message_lost_and_reordered_the_move_still_commits(seed: int) -> None:
    net = Net(loss=0.33, jitter_s=0.05, seed=seed)
    net.run(120.0)
    for _ in range(12):  # routers repeat their registrations
        net.routers["access1"].registers(*ALICE)
        net.routers["dc1"].registers(*APP)
        net.run(10.0)
    assert net.fmcc.whereabouts("alice").site == "access1"
    for _ in range(12):
        net.alice_moves()
        net.run(10.0)
    assert net.asked, "the controller has heard of the move"
    net.hypervisor_moves()
    for _ in range(12):
        net.run(10.0)
        net.routers["dc2"].registers(*APP, version=1)
    assert net.placement.state is State.COMMITTED
    assert net.placement.move.acknowledged == {"dc1", "dc2"}
    assert "bad-authentication" not in net.rejects


def test_a_lost_notify_is_sent_again_after_200_ms_then_twice_as_late() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.routers["dc1"].deaf = True
    arrivals: list[float] = []
    receives = net.routers["dc1"].receives

    def count(message: Message, datagram: bytes, source: Endpoint) -> None:
        if isinstance(message, MapNotify) and source.ip == ip_of(FMCC):
            arrivals.append(net.now)
        receives(message, datagram, source)

    net.routers["dc1"].receives = count  # type: ignore[method-assign]
    net.hypervisor_moves()
    net.run(3.2)
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(arrivals)]
    assert gaps == [0.2, 0.4, 0.8, 1.6]
    assert net.placement.state is State.COMMITTED, "the mapping is published; dc1 is still being told"
    net.routers["dc1"].deaf = False
    net.run(10.0)
    assert net.placement.move.acknowledged == {"dc1", "dc2"}
    told = len(arrivals)
    net.run(300.0)
    assert len(arrivals) == told, "acknowledged: nothing is sent any more"


def test_failure_before_resumed_leaves_the_service_where_it_was() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    move = net.asked[-1].move
    net.tell(net.fmcc.agent_event, move, Prepared("emulated", True))
    net.tell(net.fmcc.agent_event, move, Failed("the target is full of water"))
    net.run(1.0)
    assert net.placement.state is State.FAILED
    assert net.placement.datacenter == "dc1"
    assert net.fields("migration.failed")["reason"] == "the target is full of water"
    assert isinstance(net.asked[-1], AbortMigration)
    assert not net.routers["dc1"].notified


def test_an_agent_that_starts_anew_has_forgotten_the_move() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.tell(net.fmcc.agent_event, net.asked[-1].move, Prepared("emulated", emulated=True))
    net.tell(net.fmcc.agent_restarted, "dc2")
    assert net.placement.state is State.FAILED
    assert net.fields("migration.failed")["reason"] == "the agent of dc2 was restarted"
    net.tell(net.fmcc.agent_restarted, "dc2")
    assert net.names().count("migration.failed") == 1


def test_a_move_that_an_agents_restart_ended_is_considered_again_once() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.tell(net.fmcc.agent_event, net.asked[-1].move, Prepared("emulated", emulated=True))
    net.tell(net.fmcc.agent_restarted, "dc1")
    assert not net.placement.in_flight, "the machine may be frozen, or gone on: it has to be found first"
    net.tell(net.fmcc.found, "dc1", ["app"], net.now)
    assert net.placement.state is State.PREPARING
    again = net.asked[-1]
    assert isinstance(again, PrepareMigration)
    net.tell(net.fmcc.agent_restarted, "dc1")
    net.tell(net.fmcc.found, "dc1", ["app"], net.now)
    net.run(5.0)
    assert net.placement.state is State.FAILED  # type: ignore[comparison-overlap]
    assert net.fields("migration.failed")["move"] == again.move
    net.alice_moves("access1")
    net.run(1.0)
    net.alice_moves("access2")
    net.run(1.0)
    net.tell(net.fmcc.agent_restarted, "dc1")
    net.tell(net.fmcc.found, "dc1", ["app"], net.now)
    assert net.placement.state is State.PREPARING


def test_a_full_data_centre_takes_no_service_neither_by_policy_nor_by_request() -> None:
    settings = fmcc_settings()
    sites = [site.model_dump() | ({"capacity": 0} if site.name == "dc2" else {}) for site in settings.sites]
    net = Net(sites=sites)
    net.settles()
    net.alice_moves()
    net.run(0.1)
    assert net.fields("decision.made")["reason"] == "nearer to access2 but full: dc2"
    with pytest.raises(RequestRefused, match="it is full"):
        net.fmcc.requested("app", "dc2", "", net.now)
    assert not net.asked


def test_a_silent_agent_ends_the_move_after_its_limit() -> None:
    net = Net(limits={"prepare_s": 2.0})
    net.settles()
    net.alice_moves()
    net.run(3.0)
    assert net.placement.state is State.FAILED
    assert net.fields("migration.failed")["reason"] == "no news while preparing"


def test_resumed_after_the_move_was_given_up_still_leads_the_network_to_the_service() -> None:
    net = Net(limits={"resume_s": 1.0})
    net.settles()
    net.alice_moves()
    net.run(0.1)
    move = net.asked[-1].move
    net.tell(net.fmcc.agent_event, move, Prepared("emulated", True))
    net.tell(net.fmcc.agent_event, move, Stopped(1))
    net.run(2.0)
    assert net.placement.state is State.FAILED
    net.tell(net.fmcc.agent_event, move, Resumed(2))
    net.run(1.0)
    assert net.placement.state is State.COMMITTED  # type: ignore[comparison-overlap]
    assert net.placement.datacenter == "dc2"


def test_a_user_that_moves_during_a_move_is_followed_when_it_has_ended() -> None:
    net = Net()
    net.settles()
    net.alice_moves("access2")
    net.run(0.1)
    net.alice_moves("access1")
    net.run(0.1)
    assert net.fields("decision.made")["decision"] == "later"
    assert "in flight" in net.fields("decision.made")["reason"]
    assert len(net.asked) == 1
    net.hypervisor_moves()
    net.run(0.2)
    assert isinstance(net.asked[-1], PrepareMigration)
    assert (net.asked[-1].source, net.asked[-1].target) == ("dc2", "dc1")
    net.hypervisor_moves()
    net.run(0.2)
    assert (net.placement.datacenter, net.placement.version) == ("dc1", 2)
    assert net.placement.state is State.COMMITTED


def test_an_observing_controller_decides_and_moves_nothing() -> None:
    net = Net(mode="observe")
    net.settles()
    net.alice_moves()
    net.run(1.0)
    decided = net.fields("decision.made")
    assert (decided["decision"], decided["to"], decided["mode"]) == ("move", "dc2", "observe")
    assert not net.asked


def test_a_restarted_map_server_is_subscribed_to_again_and_what_was_missed_is_learned() -> None:
    net = Net()
    net.settles()
    net.mapserver = MapServer(mapserver_settings(), net.nonces)
    net.alice_moves()  # nobody is subscribed now
    net.run(61.0)
    assert net.fmcc.whereabouts("alice").site == "access2"


def test_a_restarted_controller_learns_where_everything_is() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.hypervisor_moves()
    net.run(1.0)
    net.fmcc = net.new_controller(net.fmcc.world)
    net.run(1.0)
    assert net.fmcc.whereabouts("alice").site == "access2"
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 1)
    assert net.placement.state is State.SETTLED


def test_a_controller_killed_during_a_migration_finds_the_service_where_it_went() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.fmcc = net.new_controller(net.fmcc.world)  # the agents finish alone
    net.run(1.0)
    assert isinstance(net.asked[-1], PrepareMigration), "it wants to move it from where the mapping leads"
    net.tell(net.fmcc.agent_event, net.asked[-1].move, Failed("it is here already"))
    net.tell(net.fmcc.found, "dc1", [], net.now)
    net.tell(net.fmcc.found, "dc2", ["app", "a stranger"], net.now)
    assert net.fields("placement.found") == {"service": "app", "from": "dc1", "to": "dc2", "mode": "act"}
    net.run(1.0)
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 1)
    assert net.placement.state is State.COMMITTED
    assert net.routers["dc1"].notified
    net.tell(net.fmcc.found, "dc2", ["app"], net.now)
    assert net.names().count("placement.found") == 1


def test_a_move_refused_for_one_from_before_the_controllers_start_is_considered_again_when_that_has_failed() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.fmcc = net.new_controller(net.fmcc.world)
    net.run(1.0)
    refused = net.asked[-1]
    net.tell(net.fmcc.agent_event, refused.move, Failed("move m0 of it is copying"))
    assert net.placement.state is State.FAILED
    net.tell(net.fmcc.found, "dc1", ["app"], net.now)
    assert isinstance(net.asked[-1], PrepareMigration)
    assert net.asked[-1].move != refused.move
    net.hypervisor_moves()
    net.run(1.0)
    assert net.placement.datacenter == "dc2"


def test_what_an_agent_has_is_weighed_only_after_the_map_server_has_spoken() -> None:
    net = Net()
    net.settles()
    net.routers["dc2"].registers(*APP, version=7)
    net.run(1.0)
    net.fmcc = net.new_controller(net.fmcc.world)
    net.tell(net.fmcc.found, "dc2", ["app"], net.now)
    net.run(1.0)
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 7)
    assert "placement.found" not in net.names()


def test_an_answer_older_than_the_last_move_moves_nothing_back() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    asked = net.now
    net.hypervisor_moves()
    net.run(1.0)
    net.tell(net.fmcc.found, "dc1", ["app"], asked)
    assert (net.placement.datacenter, net.placement.state) == ("dc2", State.COMMITTED)


def test_an_observing_controller_only_says_that_a_service_is_elsewhere() -> None:
    net = Net(mode="observe")
    net.settles()
    net.tell(net.fmcc.found, "dc2", ["app"], net.now)
    net.run(1.0)
    assert net.fields("placement.found")["mode"] == "observe"
    assert net.placement.state is State.SETTLED
    assert not net.routers["dc2"].notified


@pytest.mark.parametrize("other", ["dc1", "dc2"])
def test_a_move_takes_the_version_after_the_newest_of_its_address_families(other: str) -> None:
    net = Net()
    net.settles()
    net.routers["dc1"].registers(APP[0], version=7)
    net.routers[other].registers(APP[1], version=3)
    net.run(1.0)
    net.alice_moves()
    net.run(0.1)
    net.hypervisor_moves()
    net.run(1.0)
    assert net.placement.state is State.COMMITTED
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 8)


def test_a_move_is_not_committed_by_one_address_family_alone() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.routers["dc2"].registers(APP[1])
    net.routers["dc2"].deaf = True
    net.hypervisor_moves()
    net.routers["dc2"].registers(APP[0], version=1)
    net.run(1.0)
    assert net.placement.state is State.NOTIFIED


def test_what_an_agent_tells_of_an_earlier_move_does_not_touch_the_one_under_way() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    earlier = net.asked[-1].move
    net.tell(net.fmcc.agent_event, earlier, Failed("disk full"))
    net.tell(net.fmcc.requested, "app", "dc2", "")
    net.tell(net.fmcc.agent_event, earlier, Failed("disk full"))
    net.tell(net.fmcc.agent_event, earlier, Resumed(1))
    assert net.placement.state is State.PREPARING


def test_one_data_centre_cannot_acknowledge_for_the_other() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    dc1, dc2 = net.routers["dc1"], net.routers["dc2"]
    dc1.deaf = True
    net.hypervisor_moves()
    net.run(0.1)
    for nonce in range(dc2.notified[-1].nonce + 1, dc2.notified[-1].nonce + 8):  # that of dc1 is one of them
        forged = MapNotifyAck.of(MapNotify.of(*dc2.notified[-1].records, nonce=nonce))
        net.carry(auth.sign(forged, Key(3, b"fmcc-dc2")), dc2.rloc, Endpoint(ip_of(FMCC), 4342))
    net.run(0.1)
    assert not net.fields("steering.acknowledged")["both"]
    dc1.deaf = False
    net.run(1.0)
    assert dc1.notified, "it is still told"
    assert net.fields("steering.acknowledged")["both"]


def test_finished_moves_are_kept_up_to_a_bound() -> None:
    net = Net()
    net.settles()
    for _ in range(MOVES_KEPT + 5):
        net.tell(net.fmcc.requested, "app", "dc2", "")
        net.tell(net.fmcc.agent_event, net.fmcc.migrations.last("app").move.id, Failed("no room"))
    assert len(net.fmcc.moves) == MOVES_KEPT
    assert net.fmcc.moves[-1] == net.fmcc.migrations.last("app")


def test_replay_state_is_kept_for_configured_eids_only() -> None:
    net = Net()
    net.settles()
    before = len(net.fmcc.subscriber._last_nonce)
    strangers = [Prefix.parse(f"100.64.1.{host}/32") for host in range(100, 140)]
    net.routers["access1"].registers(*strangers)
    net.run(1.0)
    assert len(net.fmcc.subscriber._last_nonce) == before


def test_a_restarted_controller_decides_on_no_service_before_it_has_heard_of_it() -> None:
    """One publication tells of several services: the last of them must not be moved by what was known before."""
    other = (Prefix.parse("100.64.101.20/32"), Prefix.parse("fd00:0:0:101::20/128"))
    services = [
        {"name": name, "user": "alice", "eids": [str(eid) for eid in eids], "datacenter": "dc1"}
        for name, eids in (("app", APP), ("other", other))
    ]
    net = Net(services=services)
    net.settles()
    net.routers["dc1"].registers(*APP, *other, version=7)
    net.alice_moves()
    net.run(1.0)
    net.asked.clear()
    net.fmcc = net.new_controller(net.fmcc.world)
    net.run(1.0)
    assert {asked.machine for asked in net.asked} == {"app", "other"}
    moves = [placement.move for placement in net.fmcc.placements.values()]
    assert [move.version for move in moves if move is not None] == [8, 8]


@pytest.mark.parametrize(
    ("service", "datacenter", "status"),
    [("nothing", "dc2", 404), ("app", "dc9", 403), ("app", "access1", 403), ("app", "dc1", 409)],
)
def test_what_cannot_be_requested_is_refused_with_a_reason(service: str, datacenter: str, status: int) -> None:
    net = Net()
    net.settles()
    with pytest.raises(RequestRefused) as refused:
        net.fmcc.requested(service, datacenter, "", net.now)
    assert refused.value.status == status
    assert refused.value.why
    assert refused.value.do


def test_a_second_request_while_one_is_under_way_is_refused() -> None:
    net = Net()
    net.settles()
    net.tell(net.fmcc.requested, "app", "dc2", "")
    with pytest.raises(RequestRefused, match="on its way to dc2"):
        net.fmcc.requested("app", "dc2", "", net.now)


def forged(nonce: int, site: str, *, secret: str = "pubsub", eid: Prefix = ALICE[0]) -> bytes:
    record = EidRecord.of(eid, [Locator.of(ip_of(SITES[site]))], ttl_minutes=1440)
    return auth.sign(MapNotify.of(record, nonce=nonce), Key(4, secret.encode()))


@pytest.mark.parametrize(
    ("datagram", "source", "reason"),
    [
        (forged(1 << 50, "access2", secret="guessed"), MAPSERVER, "bad-authentication"),
        (forged(1, "access2"), MAPSERVER, "replayed-nonce"),
        (forged(1 << 50, "access2"), "198.18.0.66", "unexpected-notify"),
        (forged(1 << 50, "access2", eid=Prefix.parse("10.0.0.1/32")), MAPSERVER, "foreign-prefix"),
        (encode(MapReply.of(nonce=5)), MAPSERVER, "unexpected-reply"),
    ],
    ids=["wrong key", "old nonce", "not the Map-Server", "outside the ranges", "reply to nothing"],
)
def test_a_publication_that_is_not_the_map_servers_changes_nothing_and_is_counted(
    datagram: bytes, source: str, reason: str
) -> None:
    net = Net()
    net.settles()
    before = net.fmcc.whereabouts("alice")
    net.carry(datagram, ip_of(source), Endpoint(ip_of(FMCC), 4342))
    net.run(1.0)
    assert net.rejects == [reason]
    assert net.fmcc.whereabouts("alice") == before


def test_an_acknowledgement_with_a_wrong_key_does_not_end_the_retransmission() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.routers["dc2"].deaf = True
    net.hypervisor_moves()
    net.run(0.1)
    nonces = [nonce for nonce, ack in net.fmcc.steering._pending.items() if ack.datacenter == "dc2"]  # type: ignore[attr-defined]
    for nonce in nonces:
        ack = auth.sign(MapNotifyAck.of(MapNotify.of(nonce=nonce)), Key(3, b"guessed"))
        net.carry(ack, ip_of(DATACENTERS["dc2"]), Endpoint(ip_of(FMCC), 4342))
    net.run(0.05)
    assert net.rejects == ["bad-authentication"]
    assert "dc2" not in net.placement.move.acknowledged


def test_a_data_centre_without_rlocs_is_found_by_its_prefix_and_moves_go_there() -> None:
    sites = fmcc_settings().model_dump()["sites"]
    for site in sites:
        site["rlocs"] = [SITES[site["name"]]]
        if site["name"] == "dc2":
            del site["rlocs"]
            site["prefix"] = "100.64.101.128/25"
        for key in [key for key, value in site.items() if value is None]:
            del site[key]
    net = Net(sites=sites)
    net.settles()
    net.alice_moves()
    net.routers["dc2"].registers(*APP, version=5)
    net.run(1.0)
    assert net.placement.datacenter == "dc1", "nobody knows whose RLOC that is"
    record = EidRecord.of(Prefix.parse("100.64.101.128/25"), [Locator.of(ip_of(SITES["dc2"]))], ttl_minutes=1440)
    notify = auth.sign(MapNotify.of(record, nonce=next(net.nonces)), Key(4, b"pubsub"))
    net.carry(notify, ip_of(MAPSERVER), Endpoint(ip_of(FMCC), 4342))
    net.run(2.0)
    assert net.fields("site.located") == {"site": "dc2", "rlocs": [SITES["dc2"]]}
    assert (net.placement.datacenter, net.placement.version) == ("dc2", 5), "everything is told again"


def test_a_service_without_a_user_moves_when_it_is_told_to_and_never_else() -> None:
    net = Net(services=[{"name": "app", "eids": [str(eid) for eid in APP], "datacenter": "dc1"}])
    net.settles()
    net.alice_moves()
    net.run(1.0)
    assert net.asked == []
    net.tell(net.fmcc.requested, "app", "dc2", "")
    net.hypervisor_moves()
    net.run(1.0)
    assert net.placement.datacenter == "dc2"


def test_an_eid_outside_the_ranges_is_refused_with_a_reason() -> None:
    net = Net()
    net.settles()
    datagram = forged(next(net.nonces), "access2", eid=Prefix.parse("10.0.0.1/32"))
    net.carry(datagram, ip_of(MAPSERVER), Endpoint(ip_of(FMCC), 4342))
    net.run(0.1)
    assert net.rejects == ["foreign-prefix"]
