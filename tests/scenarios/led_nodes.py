"""A tunnel router whose services move by the lossless scheme, and the hypervisor agent on its host, as virtual nodes.

Packets of moving services go through the real hold queue and replay ring; the router can be killed, and then knows what
it had written down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fmcc.hypervisor.telling import Telling
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key
from tests.scenarios.network import CONTROL_PORT, Node
from tests.scenarios.sites import RLOCS, SERVICES, Packet, XtrNode, pair_secret, rloc, xtr_settings
from xtr.dataplane.holding import HoldQueue, Numbered, ReplayRing
from xtr.roles import Role
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Held, Mode, Release, Remember, Switch
from xtr.router import Router

if TYPE_CHECKING:
    from tests.scenarios.led import LedWorld

RECENT_S = 0.02
AGENT_PORT, ON_HOST_S = 50_000, 0.0001
DATACENTERS = ("dc1", "dc2")
OTHER_FMCC = "198.18.0.3"
Eids = tuple[Prefix, ...]
_json = msgspec.json


class _Led:
    """What a data plane keeps of one service that moves."""

    def __init__(self) -> None:
        self.mode: Mode | None = None
        self.towards: Ip = b""
        self.copies = self.bicast = False
        self.hold = HoldQueue(1 << 20, 30.0)
        self.ring = ReplayRing(1 << 20, RECENT_S)


class LedXtr(XtrNode):
    """A tunnel router that can be killed: what it promised is on its disk, all else is gone."""

    world: LedWorld

    def __init__(self, world: LedWorld, name: str) -> None:
        self.disk: dict[Eids, Role] = {}
        self.agent_at = Endpoint(rloc(name), AGENT_PORT)
        self.led: dict[Prefix, _Led] = {}
        self.dead = False
        agent = {"address": RLOCS[name][0], "key_id": 6, "secret": f"agent-{name}"}
        controllers = [
            {
                "address": address,
                "key_id": 3,
                "secret": pair_secret(name, "fmcc"),
                "ranges": SERVICES,
                "rlocs": [*RLOCS["dc1"], *RLOCS["dc2"]],
            }
            for address in (*RLOCS["fmcc"], OTHER_FMCC)
        ]
        more: dict[str, Any] = {"agent": agent, "controllers": controllers} if name in DATACENTERS else {}
        self.settings = xtr_settings(name, services="lossless", **more)
        super().__init__(world, name, self.settings)

    def killed(self) -> None:
        self.dead = True

    def starts_again(self) -> None:
        self.dead = False
        self.delivered.clear()
        self.led.clear()
        self.talkers.clear()
        self.table = type(self.table)()
        network = self.network
        self.core = Router(self.settings, network.nonces(), network.random_nonces(), self._peers)
        self.start()
        self.apply(self.core.restored(list(self.disk.values()), network.now))

    def datagram(self, data: bytes, source: Endpoint) -> None:
        if not self.dead:
            super().datagram(data, source)

    def apply(self, effects: list[Any]) -> None:
        if not self.dead:
            super().apply(effects)

    def _wake(self) -> None:
        if self.dead:
            self._wakes_at = None
        else:
            super()._wake()

    def _carry(self, data: bytes, to: Endpoint) -> None:
        """What goes to the agent of the same host stays on the host."""
        if to == self.agent_at:
            source = self.world.endpoint(self.name)
            self.world.on_host(source, to, data, self.world.agents[self.name])
        else:
            super()._carry(data, to)

    def hears(self, host: Any, eid: Prefix) -> None:
        if not self.dead:
            super().hears(host, eid)

    # --- effects of moves

    def perform(self, effect: Any) -> None:
        match effect:
            case Switch(plan=plan):
                led = self.led.setdefault(plan.eids[0], _Led())
                self.led.update(dict.fromkeys(plan.eids, led))
                self._switch(effect, led)
            case Release(plan=plan):
                for eid in plan.eids:
                    self.led.pop(eid, None)
            case Remember(role=role):
                assert role.plan is not None
                self.disk[role.plan.eids] = role
            case Mark() | Await():
                pass  # the order of what overtakes is the data plane's concern
            case _:
                super().perform(effect)

    def _switch(self, switch: Switch, led: _Led) -> None:
        now, plan = self.network.now, switch.plan
        to = {"source": plan.source[0], "target": plan.target[0]}.get(switch.towards or "", b"")
        led.bicast = plan.bicast
        led_before, led.mode, led.towards, led.copies = led.mode, switch.mode, to, switch.copies
        if switch.held is Held.SEND:
            kept = led.ring.freeze(now) if led_before is Mode.MIRROR else led.ring.copies()
            for one in kept:
                self._send_on(one, to)
        elif switch.held is Held.DELIVER:
            for packet in led.hold.drain(now) + [one.packet for one in led.ring.copies()]:
                self._to_host(_json.decode(packet, type=Packet))
        elif switch.held is Held.DISCARD:
            led.hold.discard()
        if switch.held is not Held.KEEP and not switch.copies:
            led.ring.clear()

    # --- packets

    def forward(self, packet: Packet, sender: Ip | None = None, number: int | None = None) -> None:
        led = self.led.get(packet.destination)
        if self.dead:
            return
        if led is None or led.mode is None:
            super().forward(packet, sender)
            return
        packet = msgspec.structs.replace(packet, hops=(*packet.hops, self.name))
        now, data = self.network.now, _json.encode(packet)
        if led.mode in (Mode.DELIVER, Mode.MIRROR):
            if led.mode is Mode.MIRROR:
                copy = Numbered(led.ring.put(data, now), data, now)
                if led.bicast:
                    self._send_on(copy, led.towards)
            if number is None or led.hold.fresh(number):
                self._to_host(packet)
        elif led.mode is Mode.PUNT and sender == led.towards:
            led.hold.put(number, data, now)
        elif sender == led.towards:
            pass  # from where it should go: no circles
        else:
            if sender is not None:
                self.apply(self.core.moved_away(packet.destination, sender, now))
            number = led.ring.put(data, now) if led.copies else -1
            self._send_on(Numbered(number, data, now), led.towards)

    def _send_on(self, one: Numbered, to: Ip) -> None:
        target = self.world.xtr_at(to)
        assert isinstance(target, LedXtr)
        packet = _json.decode(one.packet, type=Packet)
        delay = self.network.delay_between(self.name, target.name)
        number = one.sequence if one.sequence >= 0 else None
        self.network.at(self.network.now + delay, lambda: target.forward(packet, rloc(self.name), number))


class Agent(Node):
    """A hypervisor agent's way of telling its own tunnel router."""

    core: Telling

    def __init__(self, world: LedWorld, site: str) -> None:
        self.router = world.router(site)
        core = Telling(Endpoint(rloc(site), CONTROL_PORT), Key(6, f"agent-{site}".encode()), world.network.nonces())
        super().__init__(world.network, site, (), core)
        self.addresses = (rloc(site),)

    def _carry(self, data: bytes, to: Endpoint) -> None:
        """On the same host: the router answers to the port that it was asked from."""
        self.router.world.on_host(self.router.agent_at, to, data, self.router)
