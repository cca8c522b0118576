"""The papers' network with services that move by the lossless scheme: every core is the real one.

Four tunnel routers, the Map-Server, one or two controllers that remember, and at each data centre a hypervisor agent's
way of telling its router. Packets of moving services go through the real hold queues and replay rings; played are the
hypervisors, and that any of the daemons may be killed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fmcc.controller import Controller
from fmcc.effects import AbortMigration, Persist, PrepareMigration, RecallMigration, StartMigration
from fmcc.hypervisor import Happened, Kind, Migration
from fmcc.moves import Failed, Prepared, Resumed, Stopped
from fmcc.settings import FmccSettings
from fmcc.standing import Standing
from fmcc.steering.registry import schemes
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from mapserver.server import MapServer
from tests.scenarios.led_nodes import DATACENTERS, ON_HOST_S, OTHER_FMCC, Agent, LedXtr
from tests.scenarios.network import Datagram, Faults, Network, Node
from tests.scenarios.sites import (
    ALICE,
    ALICE_APP,
    RLOCS,
    SERVICES,
    SITES,
    USERS,
    World,
    mapserver_settings,
    pair_secret,
    rloc,
)
from xtr.roles.state import Mode

COPY_S, PAUSE_S = 0.5, 0.06
RTTS_MS = {("access1", "dc1"): 12, ("access1", "dc2"): 240, ("access2", "dc1"): 250, ("access2", "dc2"): 3}
_json = msgspec.json


class Fmcc(Node):
    """A controller with a disk, and the hypervisors that do what it asks."""

    core: Controller

    def __init__(self, world: LedWorld, name: str = "fmcc", address: str = RLOCS["fmcc"][0]) -> None:
        self.world = world
        self.disk: dict[str, bytes] = {}
        self.down = False
        self.asked: list[Any] = []
        self.tells_stop = True
        self.settings = fmcc_settings(address, subscriber=name)
        self.core = self._new()
        super().__init__(world.network, name, (ip_of(address),), self.core)
        self.apply([])

    def _new(self) -> Controller:
        nonces, world = self.world.network.nonces(), self.settings.world()
        return Controller(world, self.settings.make_policy(), schemes(self.settings.scheme, world, nonces), nonces)

    def killed(self) -> None:
        self.down = True

    def starts_again(self) -> None:
        self.down = False
        self.core = self._new()
        standings = {name: _json.decode(data, type=Standing) for name, data in self.disk.items()}
        self.apply(list(self.core.restored(standings, self.network.now)))

    def datagram(self, data: bytes, source: Endpoint) -> None:
        if not self.down:
            super().datagram(data, source)

    def _wake(self) -> None:
        if self.down:
            self._wakes_at = None
        else:
            super()._wake()

    def perform(self, effect: Any) -> None:
        match effect:
            case Persist(service=service, standing=None):
                self.disk.pop(service, None)
            case Persist(service=service, standing=standing):
                self.disk[service] = _json.encode(standing)
            case PrepareMigration(move=move):
                self.asked.append(effect)
                self.network.at(
                    self.network.now + 0.01, lambda: self.hears(move, Prepared("emulated", True, self.tells_stop))
                )
            case StartMigration():
                self.asked.append(effect)
                self.world.begins_copy(self, effect)
            case RecallMigration():
                self.asked.append(effect)
                self.world.recalled(self, effect)
            case AbortMigration():
                self.asked.append(effect)
                self.world.forgets(effect.move)

    def hears(self, move: str, report: Any) -> None:
        if not self.down:
            self.apply(list(self.core.agent_event(move, report, self.network.now)))

    def asks(self, datacenter: str, scheme: str = "") -> None:
        self.apply(list(self.core.requested("alice-app", datacenter, scheme, self.network.now)))

    @property
    def placement(self) -> Any:
        return self.core.placements["alice-app"]


def fmcc_settings(address: str, subscriber: str) -> FmccSettings:
    sites: list[dict[str, Any]] = [
        {"name": site, "kind": "access", "rlocs": RLOCS[site]} for site in SITES if site not in DATACENTERS
    ]
    sites += [
        {
            "name": site,
            "kind": "datacenter",
            "rlocs": RLOCS[site],
            "agent": f"{RLOCS[site][0]}:9350",
            "agent_token": "token",
            "key_id": 3,
            "secret": pair_secret(site, "fmcc"),
        }
        for site in DATACENTERS
    ]
    return FmccSettings.model_validate(
        {
            "name": subscriber,
            "mode": "act",
            "policy": "never",
            "rlocs": [address],
            "map_server": {"address": RLOCS["mapserver"][0], "key_id": 9, "secret": subscriber},
            "sites": sites,
            "rtts": [{"a": a, "b": b, "ms": ms} for (a, b), ms in RTTS_MS.items()],
            "users": [{"name": "alice", "eids": [str(ALICE)]}],
            "services": [{"name": "alice-app", "user": "alice", "eids": [str(ALICE_APP)], "datacenter": "dc1"}],
            "ranges": USERS + SERVICES,
        }
    )


class LedWorld(World):
    """Alice at access1 talks to her service at dc1; `fmcc` moves it."""

    def __init__(self, seed: int = 1, faults: Faults = Faults()) -> None:  # noqa: B008 - frozen
        self.network = Network(seed, faults)
        settings = mapserver_settings()
        other = settings.subscribers[0].model_copy(
            update={"name": "fmcc2", "secret": "fmcc2", "address": (ip_of(OTHER_FMCC),)}
        )
        settings = settings.model_copy(update={"subscribers": (*settings.subscribers, other)})
        core = MapServer(settings, self.network.nonces())
        self.mapserver = Node(self.network, "mapserver", tuple(ip_of(text) for text in RLOCS["mapserver"]), core)
        self.server = core
        self.xtrs = {name: LedXtr(self, name) for name in SITES}
        self.hosts = {}
        self._number = 0
        self.sent: list[int] = []
        self.tells_stop = self.may_resume = True
        self.copying: dict[str, Migration] = {}
        self.agents = {site: Agent(self, site) for site in DATACENTERS}
        for address in (rloc(site) for site in DATACENTERS):  # the agents share it; datagrams are the routers'
            self.network.add(self.xtr_at(address))
        for xtr in self.xtrs.values():
            xtr.start()
        self.run(0.5)
        self.fmccs = [Fmcc(self)]
        self.host("alice", ALICE, at="access1")
        self.host("alice-app", ALICE_APP, at="dc1")
        self.run(40)
        self.talk(ALICE, ALICE_APP, 1.0)

    @property
    def fmcc(self) -> Fmcc:
        return self.fmccs[0]

    # --- the hypervisors

    def begins_copy(self, fmcc: Fmcc, start: StartMigration) -> None:
        if start.move in self.copying:
            return  # asked again
        self.copying[start.move] = Migration(start.move, start.machine, start.source, start.target, start.scheme)
        self.network.at(self.network.now + COPY_S, lambda: self.stops(start.move))

    def stops(self, move: str) -> None:
        migration = self.copying.get(move)
        app = self.hosts[ALICE_APP]
        if migration is None or app.site is not self.xtrs[migration.source]:
            return
        app.site = None
        self._happened(Kind.STOPPED, migration, migration.source)
        if self.may_resume:
            self.network.at(self.network.now + PAUSE_S, lambda: self.resumes(migration, migration.target))

    def resumes(self, migration: Migration, site: str) -> None:
        self.attach(self.hosts[ALICE_APP], site)
        self.copying.pop(migration.move, None)
        self._happened(Kind.RESUMED, migration, site)

    def forgets(self, move: str) -> None:
        """An abort: before STOP the copy ends, after it the machine resumes at one end."""
        if self.hosts[ALICE_APP].site is not None:
            self.copying.pop(move, None)

    def recalled(self, fmcc: Fmcc, recall: RecallMigration) -> None:
        site = self.hosts[ALICE_APP].site
        if recall.move in self.copying:
            return
        if site is self.xtrs[recall.target]:
            at = self.network.now
            fmcc.apply(list(fmcc.core.found(recall.target, ["alice-app"], at, at)))
        else:
            fmcc.hears(recall.move, Failed("it has ended while the controller was away"))

    def _happened(self, kind: Kind, migration: Migration, site: str) -> None:
        """To the site's router at once, to the controllers over the WAN."""
        if kind is Kind.STOPPED and not self.tells_stop:
            return
        at_ns = int(self.network.now * 1e9)
        agent = self.agents[site]
        agent.apply(list(agent.core.tell(Happened(kind, migration, at_ns), self.network.now)))
        report = Stopped(at_ns) if kind is Kind.STOPPED else Resumed(at_ns)
        for fmcc in self.fmccs:
            delay = self.network.delay_between(fmcc.name, site)
            self.network.at(self.network.now + delay, lambda fmcc=fmcc: fmcc.hears(migration.move, report))  # type: ignore[misc]

    def on_host(self, source: Endpoint, to: Endpoint, data: bytes, node: Node) -> None:
        """Between a router and its agent, which are on one host."""
        for late_s in self.network.bend(Datagram(self.network.now, source, to, data, decode(data))):
            self.network.at(self.network.now + ON_HOST_S + late_s, lambda: node.datagram(data, source))

    # --- the story's words

    def sends_every(self, seconds: float, for_s: float) -> None:
        """Alice's packets, whatever happens."""
        for number in range(int(for_s / seconds)):
            self.network.at(self.network.now + number * seconds, self._one)

    def _one(self) -> None:
        self.sent.append(self.send(ALICE, ALICE_APP))

    def lost(self) -> list[int]:
        got = {packet.number for packet in self.hosts[ALICE_APP].got}
        return [number for number in self.sent if number not in got]

    def deliverers(self, eid: Prefix) -> list[str]:
        owners = []
        for name, xtr in self.xtrs.items():
            assert isinstance(xtr, LedXtr)
            led = xtr.led.get(eid)
            local = led.mode in (Mode.DELIVER, Mode.MIRROR) if led and led.mode else eid in xtr.delivered
            owners += [name] if local and not xtr.dead else []
        return owners

    def router(self, site: str) -> LedXtr:
        xtr = self.xtrs[site]
        assert isinstance(xtr, LedXtr)
        return xtr
