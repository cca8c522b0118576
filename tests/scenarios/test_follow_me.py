"""The whole story on virtual time: a user moves, the Map-Server says so, the controller decides, the service follows.

Every core is the real one: four xTRs, the Map-Server, the controller. Only the hypervisors' work is played by the test.
"""

from __future__ import annotations

from typing import Any

import pytest

from fmcc.controller import Controller
from fmcc.effects import AbortMigration, PrepareMigration, StartMigration
from fmcc.moves import Prepared, Resumed, State, Stopped
from fmcc.policy.registry import POLICIES
from fmcc.settings import FmccSettings
from fmcc.steering.lisp import Fig9
from lispfmc.wire.address import ip_of
from tests.scenarios.network import Faults, Node
from tests.scenarios.sites import ALICE, ALICE6, ALICE_APP, RLOCS, SERVICES, SITES, USERS, World, pair_secret, rloc

COPY_S, PAUSE_S = 2.0, 0.06
RTTS_MS = {("access1", "dc1"): 12, ("access1", "dc2"): 240, ("access2", "dc1"): 250, ("access2", "dc2"): 3}


def fmcc_settings() -> FmccSettings:
    sites: list[dict[str, Any]] = [
        {"name": site, "kind": "access", "rlocs": RLOCS[site]} for site in SITES if site.startswith("access")
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
        for site in ("dc1", "dc2")
    ]
    return FmccSettings.model_validate(
        {
            "mode": "act",
            "policy": "nearest",
            "rlocs": RLOCS["fmcc"],
            "map_server": {"address": RLOCS["mapserver"][0], "key_id": 9, "secret": "fmcc"},
            "sites": sites,
            "rtts": [{"a": a, "b": b, "ms": ms} for (a, b), ms in RTTS_MS.items()],
            "users": [{"name": "alice", "eids": [str(ALICE), str(ALICE6)]}],
            "services": [{"name": "alice-app", "user": "alice", "eids": [str(ALICE_APP)], "datacenter": "dc1"}],
            "ranges": USERS + SERVICES,
        }
    )


class ControllerNode(Node):
    """The controller, and hypervisors that do at once what it asks of them."""

    core: Controller

    def __init__(self, world: World) -> None:
        network, settings = world.network, fmcc_settings().world()
        self.world = world
        self.steps: list[str] = []
        nonces = network.nonces()
        steering = Fig9(settings.sites, settings.datacenters, nonces)
        core = Controller(settings, POLICIES["nearest"](), steering, nonces)
        super().__init__(network, "fmcc", tuple(ip_of(text) for text in RLOCS["fmcc"]), core)
        self.apply([])

    def perform(self, effect: Any) -> None:
        self.steps.append(type(effect).__name__)
        match effect:
            case PrepareMigration(move=move):
                self.network.at(self.network.now + 0.01, lambda: self._reports(move, Prepared("emulated", True)))
            case StartMigration():
                self.network.at(self.network.now + COPY_S, lambda: self._stops(effect))
            case AbortMigration():
                pass

    def _stops(self, migration: StartMigration) -> None:
        host = self.world.hosts[ALICE_APP]
        host.site = None
        self._reports(migration.move, Stopped(int(self.network.now * 1e9)))
        self.network.at(self.network.now + PAUSE_S, lambda: self._resumes(migration))

    def _resumes(self, migration: StartMigration) -> None:
        self.world.attach(self.world.hosts[ALICE_APP], migration.target)
        self._reports(migration.move, Resumed(int(self.network.now * 1e9)))

    def _reports(self, move: str, report: Any) -> None:
        self.apply(list(self.core.agent_event(move, report, self.network.now)))


def together(seed: int, faults: Faults = Faults()) -> tuple[World, ControllerNode]:  # noqa: B008 - frozen
    world = World(seed, faults)
    fmcc = ControllerNode(world)
    world.host("alice", ALICE, ALICE6, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.run(40)
    world.talk(ALICE, ALICE_APP, 1.0)
    return world, fmcc


@pytest.mark.parametrize("seed", range(8))
def test_the_service_follows_its_user_there_and_back_whatever_is_lost(seed: int) -> None:
    world, fmcc = together(seed, Faults(loss=0.2, duplicate=0.05, jitter_s=0.02))
    for version, (access, datacenter) in enumerate((("access2", "dc2"), ("access1", "dc1")), start=1):
        world.attach(world.hosts[ALICE], access)
        world.run(60)
        placement = fmcc.core.placements["alice-app"]
        assert placement.move is not None
        assert (placement.datacenter, placement.version, placement.move.state) == (
            datacenter,
            version,
            State.COMMITTED,
        )
        assert world.deliverers(ALICE_APP) == [datacenter]
        assert world.deliverers(ALICE) == world.deliverers(ALICE6) == [access]
        world.talk(ALICE, ALICE_APP, 12.0, every=0.2)  # a cold map-cache asks once a second, and may lose it
        asked, answered = world.send(ALICE, ALICE_APP), world.send(ALICE_APP, ALICE)
        world.run(1)
        assert world.hosts[ALICE_APP].got[-1].number == asked
        assert world.hosts[ALICE_APP].got[-1].hops == (access, datacenter)
        assert world.hosts[ALICE].got[-1].number == answered
        assert world.hosts[ALICE].got[-1].hops == (datacenter, access)


def test_nothing_is_refused_when_nothing_is_wrong() -> None:
    world, _ = together(1)
    world.attach(world.hosts[ALICE], "access2")
    world.talk(ALICE, ALICE_APP, 1.0)
    world.run(120)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    refused = {node.name: dict(node.rejects) for node in (*world.xtrs.values(), world.mapserver) if node.rejects}
    assert refused == {}


def test_in_fig9_packets_are_lost_while_the_machine_pauses_and_until_the_users_site_is_told() -> None:
    world, _ = together(1)
    alice, app = world.hosts[ALICE], world.hosts[ALICE_APP]
    world.attach(alice, "access2")
    sent: dict[int, float] = {}
    for _ in range(5000):
        sent[world.send(ALICE, ALICE_APP)] = world.network.now
        world.run(0.001)
    got = {packet.number for packet in app.got}
    lost = [at for number, at in sorted(sent.items()) if number not in got and at < world.network.now - 0.5]
    stopped = next(at for at, event in reversed(world.xtrs["dc1"].events) if event.name == "host.lost") - PAUSE_S
    assert lost
    # sent up to 5 ms before the stop; told by the controller, the source and its peer: 5 ms each after the resumption
    assert stopped - 0.02 <= min(lost)
    assert max(lost) - min(lost) <= PAUSE_S + 0.022
    assert world.registered_at(ALICE_APP) == rloc("dc2")
