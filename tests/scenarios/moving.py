"""Two data centres, a user's router and a controller on the virtual network, and a machine that moves between them.

The cores are the real `xtr.lossless` and `fmcc.steering.lossless`, messages are real bytes with real
signatures, and each site's packets go through the real hold queue and replay ring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from fmcc.steering import GivenUp, Ready, Redirect
from fmcc.steering import Remember as RememberLead
from fmcc.steering import lossless as steering
from fmcc.steering.lead import Lead
from fmcc.world import DataCenter
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.messages import EidRecord, Locator, Message
from lispfmc.wire.moves import MoveMessage
from tests.scenarios.network import CONTROL_PORT, Datagram, Network, Node
from xtr.dataplane.holding import HoldQueue, Numbered, ReplayRing
from xtr.lossless import Lossless
from xtr.roles import Role, State, peer
from xtr.roles.state import Held, Mode, Register, Remember, Stopped, Switch, Unregister
from xtr.senders import Role as SenderRole
from xtr.senders import Sender

APP = Prefix.parse("100.64.101.10/32")
USERS = Prefix.parse("100.64.1.0/24")
RLOCS = {name: ip_of(f"198.18.0.{last}") for name, last in {"dc1": 21, "dc2": 22, "access1": 11, "fmcc": 2}.items()}
NAMES = {rloc: name for name, rloc in RLOCS.items()}
RECENT_S = 0.02


def key_of(one: str, other: str) -> Key:
    return Key(4, "+".join(sorted((one, other))).encode())


class Site(Node):
    """A router's moves and its packets."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.peer = peer.Peer((RLOCS["dc1"],), 1) if name == "access1" else peer.Peer()
        self.remembered: dict[tuple[Prefix, ...], Role] = {}
        self.registered: list[int] = []
        self.counters: Counter[str] = Counter()
        super().__init__(world.network, name, (RLOCS[name],), self)
        self.start(Mode.DELIVER if name == "dc1" else None)

    def start(self, mode: Mode | None) -> None:
        self.mode, self.towards, self.copies = mode, b"", False
        self.hold, self.ring = HoldQueue(1 << 20, 30.0), ReplayRing(1 << 20, RECENT_S)
        self.lossless = Lossless(
            (RLOCS[self.name],),
            self.network.nonces(),
            lambda rloc: key_of(self.name, NAMES[rloc]) if rloc in NAMES else None,
            owned=lambda eid: 1 if self.name == "dc1" else None,
            peers=lambda eid: [RLOCS["access1"]] if self.name == "dc1" else [],
            mappings=lambda rloc: [EidRecord.of(USERS, [Locator.of(rloc)], ttl_minutes=60)],
            peer_of=lambda eid: self.peer,
        )
        self.core = self

    def restarts(self) -> None:
        """Killed, and started again at once: what was remembered is there, queues and exchanges are not."""
        self.start(self.mode if not self.remembered else None)
        self.apply(self.lossless.restored(self.remembered.values(), self.network.now))

    # --- the core, as the network drives it

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Any]:
        assert isinstance(message, MoveMessage)
        name = NAMES[source.ip]
        key = key_of(self.name, name)
        if not verify(message, datagram, key):
            return [Reject("bad-authentication", source)]
        role = SenderRole.CONTROLLER if name == "fmcc" else SenderRole.PEER
        dcs = frozenset({RLOCS["dc1"], RLOCS["dc2"]})
        sender = Sender(role, key, (Prefix.parse("100.64.101.0/24"),), dcs)
        return list(self.lossless.received(message, sender, source, now))

    def next_deadline(self) -> float | None:
        return self.lossless.next_deadline()

    def expired(self, now: float) -> list[Any]:
        return list(self.lossless.expired(now))

    @property
    def role(self) -> Role:
        return self.lossless.roles.get((APP,), Role(State.HERE if self.name == "dc1" else State.ABSENT))

    def _send(self, send: Send) -> None:
        assert send.key is not None
        assert isinstance(send.message, MoveMessage)
        data = sign(send.message, send.key)
        source = Endpoint(RLOCS[self.name], CONTROL_PORT)
        self.network.carry(Datagram(self.network.now, source, send.to, data, decode(data)), self.name)

    def perform(self, effect: Any) -> None:
        match effect:
            case Switch():
                self._switch(effect)
            case Remember(role=role):
                assert role.plan is not None
                self.remembered[role.plan.eids] = role
            case Register(epoch=epoch):
                self.registered.append(epoch)
            case Unregister():
                self.registered.clear()
            case peer.Use(plan=plan):
                self.peer = peer.Peer(plan.target, plan.epoch)

    # --- its packets

    def _switch(self, switch: Switch) -> None:
        now, plan = self.network.now, switch.plan
        to = {"source": plan.source[0], "target": plan.target[0]}.get(switch.towards or "", b"")
        if switch.held is Held.SEND:
            kept = self.ring.freeze(now) if self.mode is Mode.MIRROR else self.ring.copies()
            for one in kept:
                self._forward(one, to)
        elif switch.held is Held.DELIVER:
            for packet in self.hold.drain(now) + [one.packet for one in self.ring.copies()]:
                self.world.to_machine(self.name, packet)
        elif switch.held is Held.DISCARD:
            self.hold.discard()
        if switch.held is not Held.KEEP and not switch.copies:
            self.ring.clear()
        self.mode, self.towards, self.copies = switch.mode, to, switch.copies

    def packet(self, packet: bytes, sender: Ip, number: int | None) -> None:
        now = self.network.now
        if self.mode in (Mode.DELIVER, Mode.MIRROR):
            if self.mode is Mode.MIRROR:
                self.ring.put(packet, now)
            if number is None or self.hold.fresh(number):
                self.world.to_machine(self.name, packet)
        elif self.mode is Mode.PUNT and sender == self.towards:
            self.hold.put(number or 0, packet, now)
        elif self.mode is None or sender == self.towards:
            self.counters["dropped"] += 1
        else:
            copy = self.ring.put(packet, now) if self.copies else None
            self._forward(Numbered(copy if copy is not None else -1, packet, now), self.towards)

    def _forward(self, one: Numbered, to: Ip) -> None:
        number = one.sequence if one.sequence >= 0 else None
        self.world.carry(self.name, to, one.packet, number)


class Controller(Node):
    """The controller's steering, and what the hypervisors do when it is ready."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.remembered: dict[str, Lead] = {}
        self.down = False
        self.heard: list[str] = []
        super().__init__(world.network, "fmcc", (RLOCS["fmcc"],), self)
        self.start()

    def start(self) -> None:
        sites = {name: (RLOCS[name],) for name in ("dc1", "dc2")}
        datacenters = {name: DataCenter(name, key_of("fmcc", name)) for name in sites}
        self.steering = steering.Lossless(sites, datacenters, self.network.nonces())
        self.core = self

    def restarts(self) -> None:
        self.down = False
        self.start()
        self.led(self.steering.restored(self.remembered, self.network.now))

    def led(self, effects: list[Any]) -> None:
        self.apply(effects)
        for news in self.steering.drained():
            match news:
                case RememberLead():
                    self.remembered["app"] = self.lead
                case Ready():
                    self.heard.append("ready")
                case GivenUp():
                    self.heard.append("failed")

    @property
    def lead(self) -> Lead:
        return self.steering.leads.get("app", Lead())

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Any]:
        if self.down:
            return []
        assert isinstance(message, MoveMessage)
        answer = self.steering.answered(message, datagram, source, now)
        self.led([answer] if isinstance(answer, Reject) else list(answer))
        return []

    def next_deadline(self) -> float | None:
        return None if self.down else self.steering.next_deadline()

    def expired(self, now: float) -> list[Any]:
        if not self.down:
            self.led(list(self.steering.expired(now)))
        return []

    _send = Site._send


class World:
    """Everything, and the machine."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.machine: str | None = "dc1"
        self.received: list[bytes] = []
        self.sent = 0
        self.sites = {name: Site(self, name) for name in ("dc1", "dc2", "access1")}
        self.fmcc = Controller(self)
        self.redirect = Redirect(f"{7:016x}", "app", (APP,), 2, "dc1", "dc2")

    def begins(self) -> None:
        self.fmcc.led(list(self.fmcc.steering.prepare(self.redirect, self.network.now)))

    def stops(self, *, said: bool = True, controller: bool = True) -> None:
        source, self.machine = self.machine, None
        if said and source is not None:
            site = self.sites[source]
            site.apply(list(site.lossless._step((APP,), Stopped(7), self.network.now)))
        if controller and not self.fmcc.down:
            self.fmcc.led(list(self.fmcc.steering.freeze(self.redirect, self.network.now)))

    def runs(self, place: str, *, announced: bool = True, controller: bool = True) -> None:
        self.machine = place
        site = self.sites[place]
        if announced:
            site.apply(list(site.lossless.announced(APP, self.network.now)))
        if controller and not self.fmcc.down:
            self.fmcc.led(list(self.fmcc.steering.activate(self.redirect, self.network.now)))

    def published(self) -> None:
        self.fmcc.led(list(self.fmcc.steering.commit(self.redirect, self.network.now)))

    def sends_every(self, seconds: float, count: int) -> None:
        """The user's packets, whatever happens."""
        for number in range(count):
            self.network.at(self.network.now + number * seconds, self._one)

    def _one(self) -> None:
        self.sent += 1
        self.carry("access1", self.sites["access1"].peer.rlocs[0], self.sent.to_bytes(4, "big"), None)

    def carry(self, sender: str, to: Ip, packet: bytes, number: int | None) -> None:
        delay = self.network.delay_between(sender, NAMES[to])
        site = self.sites[NAMES[to]]
        self.network.at(self.network.now + delay, lambda: site.packet(packet, RLOCS[sender], number))

    def to_machine(self, place: str, packet: bytes) -> None:
        if self.machine == place:
            self.received.append(packet)

    def owners(self) -> list[str]:
        return [name for name, site in self.sites.items() if site.mode in (Mode.DELIVER, Mode.MIRROR)]

    def missing(self) -> list[int]:
        there = set(self.received)
        return [number for number in range(1, self.sent + 1) if number.to_bytes(4, "big") not in there]

    def events(self) -> Iterator[Emit]:
        for site in self.sites.values():
            yield from (event for _, event in site.events)
