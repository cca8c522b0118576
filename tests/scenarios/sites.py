"""The papers' network as virtual nodes: two access sites, two data centres, a Map-Server, hosts that move.

An `XtrNode` keeps the tables of a data plane by the router's effects and carries packets between sites by them, so a
test can ask what matters: who gets a packet, by how many xTRs it went, who was told.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings
from tests.scenarios.network import Faults, Network, Node
from xtr.effects import Deliver, Forward, Forwarding, Install, ProbeHost, Remove, StandIn, TakeOver, Undeliver
from xtr.router import Router
from xtr.settings import XtrSettings

RLOCS = {
    "mapserver": ("198.18.0.1", "2001:2::1"),
    "fmcc": ("198.18.0.2", "2001:2::2"),
    "access1": ("198.18.0.11", "2001:2::11"),
    "access2": ("198.18.0.12", "2001:2::12"),
    "dc1": ("198.18.0.21", "2001:2::21"),
    "dc2": ("198.18.0.22", "2001:2::22"),
}
PREFIXES = {
    "access1": ["100.64.1.0/24", "fd00:0:0:1::/64"],
    "access2": ["100.64.2.0/24", "fd00:0:0:2::/64"],
    "dc1": ["100.64.101.0/24", "fd00:0:0:101::/64"],
    "dc2": ["100.64.102.0/24", "fd00:0:0:102::/64"],
}
SITES = tuple(PREFIXES)
USERS = [*PREFIXES["access1"], *PREFIXES["access2"]]
SERVICES = [*PREFIXES["dc1"], *PREFIXES["dc2"]]
ALICE = Prefix.parse("100.64.1.10/32")
ALICE6 = Prefix.parse("fd00:0:0:1::10/128")
BOB = Prefix.parse("100.64.2.10/32")
ALICE_APP = Prefix.parse("100.64.101.10/32")


def rloc(name: str) -> Ip:
    return ip_of(RLOCS[name][0])


def pair_secret(one: str, other: str) -> str:
    return "-".join(sorted((one, other)))


def xtr_settings(name: str, *, peers: tuple[str, ...] = SITES, services: str = "fig9", **changes: Any) -> XtrSettings:
    """The configuration that the lab would generate for a site. `peers` are those with whom it shares a key; `services`
    is how services move."""
    access = name.startswith("access")
    ranges, mobility = (USERS, "presence") if access else (SERVICES, services)
    values: dict[str, Any] = {
        "name": name,
        "rlocs": RLOCS[name],
        "prefixes": PREFIXES[name],
        "map_servers": [{"address": RLOCS["mapserver"][0], "key_id": 1, "secret": f"site-{name}"}],
        "dynamic": [{"prefix": prefix, "mobility": mobility} for prefix in ranges],
        "keys": [
            {"peer": address, "id": 2, "secret": pair_secret(name, other)}
            for other in peers
            if other != name
            for address in RLOCS[other]
        ],
        "controllers": []
        if access
        else [
            {
                "address": RLOCS["fmcc"][0],
                "key_id": 3,
                "secret": pair_secret(name, "fmcc"),
                "ranges": SERVICES,
                "rlocs": [*RLOCS["dc1"], *RLOCS["dc2"]],
            }
        ],
        "timers": {"rloc_probe_s": 0},  # a probe that the network loses would add to the stories that are told here
    }
    return XtrSettings.model_validate(values | changes)


def mapserver_settings() -> MapServerSettings:
    return MapServerSettings.model_validate(
        {
            "name": "mapserver",
            "listen": RLOCS["mapserver"],
            "sites": [
                {
                    "name": name,
                    "key_id": 1,
                    "secret": f"site-{name}",
                    "prefixes": PREFIXES[name],
                    "roaming": USERS if name.startswith("access") else SERVICES,
                }
                for name in SITES
            ],
            "subscribers": [
                {"name": "fmcc", "key_id": 9, "secret": "fmcc", "ranges": USERS + SERVICES, "address": RLOCS["fmcc"]}
            ],
            "mobility_ranges": [{"prefix": prefix} for prefix in USERS + SERVICES],
        }
    )


class Packet(msgspec.Struct, frozen=True):
    """A data packet. `hops` are the xTRs that it went through."""

    number: int
    source: Prefix
    destination: Prefix
    hops: tuple[str, ...] = ()
    ttl: int = 64


class Host:
    """A user's device or a service's machine: its EIDs, and the site where its one live link is."""

    def __init__(self, name: str, eids: tuple[Prefix, ...], mac: bytes) -> None:
        self.name = name
        self.eids = eids
        self.mac = mac
        self.site: XtrNode | None = None
        self.got: list[Packet] = []
        self.got_at: list[float] = []


class XtrNode(Node):
    """A site's xTR with the tables of a data plane."""

    core: Router

    def __init__(self, world: World, name: str, settings: XtrSettings) -> None:
        network = world.network
        self.world = world
        self.delivered: dict[Prefix, Deliver] = {}
        self.table: PrefixTable[Forwarding] = PrefixTable()
        self.waiting: dict[Prefix, list[Packet]] = {}
        self.talkers: dict[Prefix, dict[Ip, None]] = {}
        router = Router(settings, network.nonces(), network.random_nonces(), self._peers)
        super().__init__(network, name, tuple(ip_of(text) for text in RLOCS[name]), router)

    def start(self) -> None:
        self.apply(self.core.start(self.network.now))

    def perform(self, effect: Any) -> None:
        match effect:
            case Install(eid=eid, forwarding=forwarding):
                self.table.set(eid, forwarding)
                for waiting in [waiting for waiting in self.waiting if eid.covers(waiting)]:
                    for packet in self.waiting.pop(waiting):
                        self.forward(packet)
            case Remove(eid=eid):
                self.table.remove(eid)
            case Deliver(eid=eid):
                self.delivered[eid] = effect
                for packet in self.waiting.pop(eid, []):
                    self.forward(packet)
            case Undeliver(eid=eid):
                del self.delivered[eid]
            case ProbeHost(eid=eid):
                host = self.world.host_of(eid)
                if host is not None and host.site is self:
                    self.network.at(self.network.now + 0.001, lambda: self._answers(host, eid))
            case StandIn() | TakeOver():
                pass  # hosts of these stories have one gateway for everything
            case _:
                raise AssertionError(effect)

    def hears(self, host: Host, eid: Prefix) -> None:
        self.apply(self.core.announced(eid, "lan", host.mac, self.network.now))

    def forward(self, packet: Packet, sender: Ip | None = None) -> None:
        """A packet from this site, or, with a sender, out of a tunnel."""
        packet = msgspec.structs.replace(packet, hops=(*packet.hops, self.name))
        eid = packet.destination
        if eid in self.delivered:
            self._to_host(packet)
            return
        found = self.table.longest(eid)
        way = found[1] if found else None
        if sender is not None and isinstance(way, Forward) and way.sink:
            self.talkers.setdefault(eid, {})[sender] = None
            self.apply(self.core.moved_away(eid, sender, self.network.now))
        elif way is None or (sender is not None and not (isinstance(way, Forward) and way.away)):
            self._miss(packet)
        elif isinstance(way, Forward) and packet.ttl > 1:
            if sender is not None:
                self.talkers.setdefault(eid, {})[sender] = None
                self.apply(self.core.moved_away(eid, sender, self.network.now))
            self._encapsulate(packet, way.hops[packet.number % len(way.hops)].rloc)

    def _peers(self, eid: Prefix) -> list[Ip]:
        return list(self.talkers.get(eid, {}))

    def _answers(self, host: Host, eid: Prefix) -> None:
        if host.site is self:
            self.hears(host, eid)

    def _miss(self, packet: Packet) -> None:
        queue = self.waiting.setdefault(packet.destination, [])
        queue.append(msgspec.structs.replace(packet, hops=packet.hops[:-1]))
        if len(queue) == 1:
            self.apply(self.core.missed(packet.destination, self.network.now))

    def _encapsulate(self, packet: Packet, to: Ip) -> None:
        target = self.world.xtr_at(to)
        self.talkers.setdefault(packet.source, {})[to] = None
        sent = msgspec.structs.replace(packet, ttl=packet.ttl - 1)
        sender = next(address for address in self.addresses if len(address) == len(to))
        delay = self.network.delay_between(self.name, target.name)
        self.network.at(self.network.now + delay, lambda: target.tunnelled(sent, sender))

    def tunnelled(self, packet: Packet, sender: Ip) -> None:
        self.talkers.setdefault(packet.destination, {})[sender] = None
        self.forward(packet, sender)

    def _to_host(self, packet: Packet) -> None:
        host = self.world.host_of(packet.destination)
        if host is not None and host.site is self:  # a link that is down takes it and nobody gets it
            host.got.append(packet)
            host.got_at.append(self.network.now)


class World:
    """The papers' network, started."""

    def __init__(
        self,
        seed: int = 1,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        keys: bool = True,
        served: MapServerSettings | None = None,
    ) -> None:
        self.network = Network(seed, faults)
        core = MapServer(served or mapserver_settings(), self.network.nonces())
        self.mapserver = Node(self.network, "mapserver", tuple(ip_of(text) for text in RLOCS["mapserver"]), core)
        self.server = core
        self.xtrs = {name: XtrNode(self, name, self.settings_of(name, SITES if keys else ())) for name in SITES}
        self.hosts: dict[Prefix, Host] = {}
        self._number = 0
        for xtr in self.xtrs.values():
            xtr.start()
        self.run(0.5)

    def settings_of(self, name: str, peers: tuple[str, ...]) -> XtrSettings:
        return xtr_settings(name, peers=peers)

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def host(self, name: str, *eids: Prefix, at: str) -> Host:
        """A new host, attached."""
        host = Host(name, eids, bytes([2, 0, 0, 0, 1, len(self.hosts)]))
        self.hosts.update(dict.fromkeys(eids, host))
        self.attach(host, at)
        return host

    def attach(self, host: Host, site: str) -> None:
        """The old link goes down, the new one comes up, the host announces itself."""
        host.site = self.xtrs[site]
        for eid in host.eids:
            host.site.hears(host, eid)

    def send(self, source: Prefix, destination: Prefix) -> int:
        """One data packet; its number."""
        self._number += 1
        host = self.hosts[source]
        assert host.site is not None
        host.site.forward(Packet(self._number, source, destination))
        return self._number

    def talk(self, one: Prefix, other: Prefix, seconds: float, every: float = 0.05) -> None:
        """Packets both ways for a while."""
        for _ in range(round(seconds / every)):
            self.send(one, other)
            self.send(other, one)
            self.run(every)

    def deliverers(self, eid: Prefix) -> list[str]:
        """The xTRs that deliver `eid` to their own site."""
        return [name for name, xtr in self.xtrs.items() if eid in xtr.delivered]

    def registered_at(self, eid: Prefix) -> Ip | None:
        """The first locator that the Map-Server has for exactly `eid`."""
        for registration in self.server.registrations():
            if registration.eid == eid:
                address = registration.mapping.locators[0].address
                assert isinstance(address, bytes)
                return address
        return None

    def next_hops(self, xtr: str, eid: Prefix) -> tuple[Ip, ...]:
        """Where `xtr` sends packets for `eid`."""
        found = self.xtrs[xtr].table.longest(eid)
        way = found[1] if found else None
        return tuple(hop.rloc for hop in way.hops) if isinstance(way, Forward) else ()

    def host_of(self, eid: Prefix) -> Host | None:
        return self.hosts.get(eid)

    def xtr_at(self, address: Ip) -> XtrNode:
        return next(xtr for xtr in self.xtrs.values() if address in xtr.addresses)

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(rloc(name), 4342)
