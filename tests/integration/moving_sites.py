"""A real lossless move from the routers' side: three tunnel routers and a Map-Server as daemons, a namespace each.

   user - access == core (bridge) == source - before, near
                                  == target - after, close

The service is two namespaces with the same EID: `before` stops when its link goes down, `after` runs when it announces
itself. The controller and the hypervisor agents are played here: their move messages are real, signed UDP.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lispfmc.core.plans import Plan
from lispfmc.runtime.events import Event
from lispfmc.wire import decode
from lispfmc.wire.address import Prefix, ip_of, ip_text
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from mapserver.daemon import Daemon as MapServerDaemon
from mapserver.settings import MapServerSettings
from tests.integration.planes import PORT, inside, named, run, until
from xtr.daemon import Daemon
from xtr.dataplane.choice import unavailable
from xtr.dataplane.moving import Moving
from xtr.settings import XtrSettings

RLOC = {"access": "198.18.0.11", "source": "198.18.0.21", "target": "198.18.0.22"}
MAPSERVER, FMCC = "198.18.0.1", "198.18.0.2"
SERVICE = Prefix.parse("100.64.101.10/32")
SERVICES = ["100.64.101.0/24", "100.64.102.0/24"]
HOSTS = {
    "user": ("access", "lan", "100.64.1.10"),
    "before": ("source", "lan", "100.64.101.10"),
    "near": ("source", "lan2", "100.64.101.20"),
    "after": ("target", "lan", "100.64.101.10"),
    "close": ("target", "lan2", "100.64.102.20"),
}
MACHINE = "02:00:00:00:00:77"
GATEWAY = "02:00:5e:00:00:01"


def build() -> None:
    for name in ("core", *RLOC, *HOSTS):
        run(f"ip netns add {named(name)}", f"ip -n {named(name)} link set lo up")
    core = f"ip -n {named('core')}"
    run(f"{core} link add br0 type bridge", f"{core} link set br0 up")
    run(*(f"{core} addr add {each}/24 dev br0" for each in (MAPSERVER, FMCC)))
    for site, rloc in RLOC.items():
        at = f"ip -n {named(site)}"
        run(
            f"{core} link add {site} type veth peer name wan0 netns {named(site)}",
            f"{core} link set {site} mtu 1600 master br0 up",
            f"{at} link set wan0 mtu 1600 up",
            f"{at} addr add {rloc}/24 dev wan0",
            f"ip netns exec {named(site)} sysctl -qw net.ipv4.ip_forward=1 "
            "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
        )
    for host, (site, lan, eid) in HOSTS.items():
        at, on = f"ip -n {named(site)}", f"ip -n {named(host)}"
        mac = MACHINE if host in ("before", "after") else f"02:00:00:00:01:{len(host):02x}"
        run(
            f"{at} link add {lan} type veth peer name eth0 netns {named(host)}",
            f"{at} link set {lan} address {GATEWAY} up",
            f"{at} addr add 169.254.1.1/32 dev {lan}",
            f"ip netns exec {named(site)} sysctl -qw net.ipv4.conf.{lan}.rp_filter=0",
            f"{on} link set eth0 address {mac} up",
            f"{on} addr add {eid}/32 dev eth0",
            f"{on} neigh replace 169.254.1.1 lladdr {GATEWAY} dev eth0 nud permanent",
            f"{on} route add default via 169.254.1.1 dev eth0 onlink src {eid}",
        )


@contextmanager
def network() -> Iterator[None]:
    """The namespaces, for a module's tests."""
    try:
        build()
        yield
    finally:
        for name in ("core", *RLOC, *HOSTS):
            subprocess.run(["ip", "netns", "del", named(name)], check=False, capture_output=True)


def secret(one: str, other: str) -> str:
    return "+".join(sorted((one, other)))


def xtr_settings(name: str, kind: str, folder: Path) -> XtrSettings:
    users = name == "access"
    dynamic = ["100.64.1.0/24"] if users else SERVICES
    values: dict[str, Any] = {
        "name": name,
        "rlocs": [RLOC[name]],
        "prefixes": {"access": ["100.64.1.0/24"], "source": SERVICES[:1], "target": SERVICES[1:]}[name],
        "map_servers": [{"address": MAPSERVER, "key_id": 1, "secret": f"site-{name}"}],
        "dynamic": [{"prefix": each, "mobility": "presence" if users else "lossless"} for each in dynamic],
        "keys": [
            {"peer": rloc, "id": 2, "secret": secret(name, other)} for other, rloc in RLOC.items() if other != name
        ],
        "site": {"interfaces": ["lan"] if users else ["lan", "lan2"]},
        "dataplane": {"kind": kind, "core_interfaces": ["wan0"], "eid_ranges": ["100.64.0.0/10"]},
        "state_dir": str(folder / name),
        "api": {"listen": f"unix:{folder}/{name}.sock"},
    }
    if not users:
        values["agent"] = {"address": RLOC[name], "key_id": 6, "secret": f"agent-{name}", "interfaces": ["lan"]}
        places = [RLOC["source"], RLOC["target"]]
        key = {"address": FMCC, "key_id": 3, "secret": secret(name, "fmcc")}
        values["controllers"] = [key | {"ranges": SERVICES, "rlocs": places}]
    return XtrSettings.model_validate(values)


def mapserver_settings(folder: Path) -> MapServerSettings:
    sites = {"access": ["100.64.1.0/24"], "source": SERVICES[:1], "target": SERVICES[1:]}
    return MapServerSettings.model_validate(
        {
            "name": "mapserver",
            "listen": [MAPSERVER],
            "sites": [
                {
                    "name": name,
                    "key_id": 1,
                    "secret": f"site-{name}",
                    "prefixes": prefixes,
                    "roaming": SERVICES if name != "access" else [],
                }
                for name, prefixes in sites.items()
            ],
            "mobility_ranges": [{"prefix": each} for each in SERVICES],
            "api": {"listen": f"unix:{folder}/mapserver.sock"},
        }
    )


class World:
    """The daemons, running; the controller's and the agents' sockets."""

    def __init__(self, kind: str, folder: Path) -> None:
        if kind == "ebpf" and unavailable():
            pytest.skip(unavailable())
        self.kind, self.folder = kind, folder
        self.server = MapServerDaemon(mapserver_settings(folder))
        self.xtrs = {name: Daemon(xtr_settings(name, kind, folder)) for name in RLOC}
        self._nonce = 1 << 60
        self.plan = Plan(7, 1, (SERVICE,), (ip_of(RLOC["source"]),), (ip_of(RLOC["target"]),))

    async def start(self) -> None:
        for place in ("before", "after"):
            self.link_up(place)
        with inside("core"):
            await self.server.start()
        for name in self.xtrs:
            await self.starts(name)
        for host in ("user", "before", "near", "close"):
            self.announces(host)
        for name, eid in (("access", "100.64.1.10"), ("source", "100.64.101.10"), ("target", "100.64.102.20")):
            await until(lambda at=name, it=eid: self.here(at, it), f"{eid} is at {name}")  # type: ignore[misc]

    async def starts(self, name: str) -> None:
        with inside(name):
            await self.xtrs[name].start()

    async def close(self) -> None:
        for xtr in self.xtrs.values():
            await xtr.close()
        await self.server.close()

    def here(self, site: str, eid: str) -> bool:
        return any(host["eid"] == f"{eid}/32" for host in self.xtrs[site]._router.hosts(0.0))

    def announces(self, host: str, *, rarp: bool = False) -> None:
        """Gratuitous ARP; or RARP, as a hypervisor sends it for a machine."""
        eid, mac = ip_of(HOSTS[host][2]), bytes.fromhex(self._mac(host).replace(":", ""))
        body = bytes.fromhex("0001080006040003") + mac + bytes(4) + mac + bytes(4)
        if not rarp:
            body = bytes.fromhex("0001080006040001") + mac + eid + bytes(6) + eid
        frame = b"\xff" * 6 + mac + (b"\x80\x35" if rarp else b"\x08\x06") + body
        with inside(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("eth0", 0))
            sock.send(frame)

    def _mac(self, host: str) -> str:
        return MACHINE if host in ("before", "after") else f"02:00:00:00:01:{len(host):02x}"

    def stops(self, place: str = "before") -> None:
        """The machine: from now on what is sent to it is lost."""
        run(f"ip -n {named(place)} link set eth0 down")

    def link_up(self, place: str) -> None:
        run(f"ip -n {named(place)} link set eth0 up")
        run(
            f"ip -n {named(place)} neigh replace 169.254.1.1 lladdr {GATEWAY} dev eth0 nud permanent",
            f"ip -n {named(place)} route replace default via 169.254.1.1 dev eth0 onlink src 100.64.101.10",
        )

    def runs(self, place: str) -> None:
        """The machine again, where it had stopped."""
        self.link_up(place)
        self.announces(place)

    # --- the controller and the agents

    async def controller(self, site: str, phase: MovePhase, plan: Plan | None = None) -> Verdict:
        message = (plan or self.plan).message(phase, self._next())
        return await self._asks("core", FMCC, site, Key(3, secret(site, "fmcc").encode()), message)

    async def agent(self, site: str, phase: MovePhase, stopped_ns: int = 0) -> Verdict:
        message = MoveMessage.of(
            phase, nonce=self._next(), move=self.plan.move, epoch=self.plan.epoch, stopped_ns=stopped_ns
        )
        return await self._asks(site, RLOC[site], site, Key(6, f"agent-{site}".encode()), message)

    async def prepare(self, source: str = "source", target: str = "target") -> None:
        assert await self.controller(target, MovePhase.PREPARE) is Verdict.DONE
        assert await self.controller(source, MovePhase.PREPARE) is Verdict.DONE

    def plan_back(self) -> Plan:
        plan = self.plan
        return Plan(plan.move + 1, plan.epoch + 1, plan.eids, plan.target, plan.source)

    def _next(self) -> int:
        self._nonce += 1
        return self._nonce

    async def _asks(self, at: str, address: str, site: str, key: Key, message: MoveMessage) -> Verdict:
        with inside(at):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((address, 0))
        loop = asyncio.get_running_loop()
        with sock:
            for _ in range(20):
                sock.sendto(sign(message, key), (RLOC[site], 4342))
                try:
                    data = await asyncio.wait_for(loop.sock_recv(sock, 2048), 0.5)
                except TimeoutError:
                    continue
                answer = decode(data)
                assert isinstance(answer, MoveMessage)
                assert answer.is_acknowledgement
                assert verify(answer, data, key)
                return Verdict(answer.verdict)
        raise AssertionError(f"{site} does not answer {message}")

    # --- views

    def state(self, site: str) -> str:
        moves = self.xtrs[site]._router.moves(lambda _: {}, 0.0)
        return str(moves[0]["state"]) if moves else "none"

    def told(self, site: str, name: str) -> list[Event]:
        """The events of this name."""
        return [event for event in self.xtrs[site].events.since(0) if event.name == name]

    def packets(self, site: str) -> dict[str, int]:
        return self.xtrs[site]._plane.moved((SERVICE,))

    def moving(self, site: str) -> Moving:
        """What leads the packets of services that move, on either plane."""
        plane = self.xtrs[site]._plane
        moving = getattr(getattr(plane, "_slow", plane), "moving", None)
        assert isinstance(moving, Moving)
        return moving

    def copied_since(self, site: str, instant_ns: int) -> int:
        """How many copies the source has of packets that it has delivered since."""
        ring = self.moving(site)._handovers[(SERVICE,)]._ring
        return sum(one.at * 1e9 > instant_ns for one in ring.copies())

    def sends_to(self, site: str) -> set[str]:
        """Where a router sends packets for the service."""
        mapping = self.xtrs[site]._router._forwarding.cache.lookup(SERVICE)
        return {ip_text(rloc) for rloc in mapping.rlocs} if mapping else set()


@asynccontextmanager
async def world(kind: str, folder: Path) -> AsyncIterator[World]:
    made = World(kind, folder)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


class Stream:
    """Numbered packets from a host to the service, every millisecond, whatever happens; and what arrives where."""

    def __init__(self, host: str, port: int = PORT) -> None:
        self.sent = 0
        self.got: list[int] = []
        self.got_at: list[str] = []
        self.pause_s = 0.001
        self._sender = _udp(host, HOSTS[host][2], 0)
        self._sockets = [_udp(place, "100.64.101.10", port) for place in ("before", "after")]
        self._to = ("100.64.101.10", port)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Stream:
        loop = asyncio.get_running_loop()
        for sock, place in zip(self._sockets, ("before", "after"), strict=True):
            loop.add_reader(sock.fileno(), self._readable, sock, place)
        self._tasks.append(loop.create_task(self._send()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())
            sock.close()
        self._sender.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def burst(self, count: int) -> None:
        for _ in range(count):
            self._one()

    async def arrived(self, count: int) -> None:
        """So many more have come."""
        wanted = len(self.got) + count
        await until(lambda: len(self.got) >= wanted, f"{count} more packets, {len(self.got)} so far", 10.0)

    def missing(self) -> list[int]:
        there = set(self.got)
        return [number for number in range(self.sent) if number not in there]

    def at(self, place: str) -> list[int]:
        return [number for number, each in zip(self.got, self.got_at, strict=True) if each == place]

    def _one(self) -> None:
        self._sender.sendto(self.sent.to_bytes(8, "big"), self._to)
        self.sent += 1

    async def _send(self) -> None:
        while True:
            self._one()
            await asyncio.sleep(self.pause_s)

    def _readable(self, sock: socket.socket, place: str) -> None:
        while True:
            try:
                data = sock.recv(2048)
            except BlockingIOError:
                return
            self.got.append(int.from_bytes(data[:8], "big"))
            self.got_at.append(place)


def _udp(namespace: str, address: str, port: int) -> socket.socket:
    with inside(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((address, port))
    return sock
