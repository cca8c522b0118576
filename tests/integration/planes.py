"""Two real planes and real packets: user -- access xTR == core == service xTR -- service, each a namespace.

Both planes live in this process: their sockets and devices were opened in their namespaces and stay there. Every test
of what a plane does runs on each kind of `KINDS`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from pyroute2 import netns

from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.encap import header
from xtr.dataplane import DataPlane
from xtr.dataplane.choice import unavailable
from xtr.dataplane.ebpf import EbpfPlane
from xtr.dataplane.tun import TunPlane
from xtr.effects import Forward, Hop
from xtr.settings import XtrSettings

KINDS = ("tun", "ebpf")
"""Every plane; a machine whose kernel or privileges do not do for one skips its tests."""

PREFIX = f"plane{os.getpid()}"
MAC = {"user": "02:00:00:00:01:10", "service": "02:00:00:00:02:10", "gateway": "02:00:5e:00:00:01"}
RLOC = {"access": ("198.18.0.11", "2001:2::11"), "cloud": ("198.18.0.21", "2001:2::21")}
EID = {"user": ("100.64.1.10", "fd00:0:0:1::10"), "service": ("100.64.101.10", "fd00:0:0:101::10")}
NEW_RLOC = ("198.18.0.99", "2001:2::99")  # an address of the access side's, which stands for another xTR
PORT = 4000


def run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


def named(name: str) -> str:
    return f"{PREFIX}-{name}"


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread is in the namespace `name`; what is opened meanwhile stays there."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    netns.setns(named(name))
    try:
        yield
    finally:
        netns.setns(here)
        os.close(here)


def build() -> None:
    for name in ("user", "access", "cloud", "service"):
        run(f"ip netns add {named(name)}", f"ip -n {named(name)} link set lo up")
    for site, host in (("access", "user"), ("cloud", "service")):
        at, on = f"ip -n {named(site)}", f"ip -n {named(host)}"
        run(
            f"{at} link add lan type veth peer name eth0 netns {named(host)}",
            f"{at} link set lan address {MAC['gateway']} up",
            f"{at} addr add 169.254.1.1/32 dev lan",
            f"{at} addr add fe80::1/64 dev lan nodad",
            f"{on} link set eth0 address {MAC[host]} up",
            f"{on} addr add {EID[host][0]}/32 dev eth0",
            f"{on} addr add {EID[host][1]}/128 dev eth0 nodad",
            f"{on} neigh replace 169.254.1.1 lladdr {MAC['gateway']} dev eth0 nud permanent",
            f"{on} neigh replace fe80::1 lladdr {MAC['gateway']} dev eth0 nud permanent",
            f"{on} route add default via 169.254.1.1 dev eth0 onlink src {EID[host][0]}",
            f"{on} -6 route add default via fe80::1 dev eth0 src {EID[host][1]}",
        )
    run(f"ip -n {named('access')} link add wan0 type veth peer name wan0 netns {named('cloud')}")
    for site in ("access", "cloud"):
        run(
            f"ip -n {named(site)} link set wan0 mtu 1600 up",
            f"ip -n {named(site)} addr add {RLOC[site][0]}/24 dev wan0",
            f"ip -n {named(site)} -6 addr add {RLOC[site][1]}/64 dev wan0 nodad",
            f"ip netns exec {named(site)} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 "
            "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.lan.rp_filter=0",
        )
    run(
        f"ip -n {named('access')} addr add {NEW_RLOC[0]}/24 dev wan0",
        f"ip -n {named('access')} -6 addr add {NEW_RLOC[1]}/64 dev wan0 nodad",
    )


@contextmanager
def network() -> Iterator[None]:
    """The namespaces, for a module's tests."""
    try:
        build()
        yield
    finally:
        for name in ("user", "access", "cloud", "service"):
            subprocess.run(["ip", "netns", "del", named(name)], check=False, capture_output=True)


class Evidence:
    """Keeps what a plane reports."""

    def __init__(self) -> None:
        self.misses: list[Prefix] = []
        self.unknown: list[Prefix] = []
        self.away: list[tuple[Prefix, Ip]] = []
        self.claims: list[tuple[Prefix, str, bytes]] = []
        self.questions: list[tuple[Prefix, str, Ip, bytes]] = []
        self.macs: list[tuple[bytes, str, int]] = []
        self.outdated_senders: list[tuple[Prefix, Ip]] = []
        self.newer_sources: list[Prefix] = []
        self.versions: dict[Prefix, int] = {}
        self.packets: dict[tuple[Prefix, ...], dict[str, int]] = {}

    def missed(self, eid: Prefix) -> None:
        self.misses.append(eid)

    def unknown_source(self, eid: Prefix) -> None:
        self.unknown.append(eid)

    def moved_away(self, eid: Prefix, sender: Ip) -> None:
        self.away.append((eid, sender))

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None:
        self.claims.append((eid, interface, mac))

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes) -> None:
        self.questions.append((eid, interface, asker, mac))

    def mac_announced(self, mac: bytes, interface: str, iid: int) -> None:
        self.macs.append((mac, interface, iid))

    def outdated(self, eid: Prefix, sender: Ip) -> None:
        self.outdated_senders.append((eid, sender))

    def newer_source(self, eid: Prefix) -> None:
        self.newer_sources.append(eid)

    def worked_off(self, eids: tuple[Prefix, ...], packets: Mapping[str, int]) -> None:
        self.packets[eids] = dict(packets)

    def version(self, eid: Prefix) -> int | None:
        return self.versions.get(eid)


def plane_of(kind: str, settings: XtrSettings) -> DataPlane:
    """A plane of that kind."""
    if kind == "tun":
        return TunPlane(settings)
    why_not = unavailable()
    if why_not:
        pytest.skip(why_not)
    return EbpfPlane(settings)


def settings_of(name: str, host: str, *, queue_seconds: float = 3.0, **changes: Any) -> XtrSettings:
    """The configuration of the xTR `name` with `host` behind it."""
    prefixes = ["100.64.1.0/24", "fd00:0:0:1::/64"]
    if host == "service":
        prefixes = ["100.64.101.0/24", "fd00:0:0:101::/64"]
    values: dict[str, Any] = {
        "name": name,
        "rlocs": RLOC[name],
        "prefixes": prefixes,
        "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
        "dataplane": {"eid_ranges": ["100.64.0.0/10", "fd00::/8"], "queue_seconds": queue_seconds},
    }
    return XtrSettings.model_validate(values | changes)


class Site:
    """A plane in its namespace, with the host behind it delivered."""

    def __init__(self, kind: str, name: str, host: str, **changes: Any) -> None:
        self.name, self.host = name, host
        self.evidence = Evidence()
        self.plane = plane_of(kind, settings_of(name, host, **changes))

    def start(self) -> None:
        with inside(self.name):
            self.plane.start(self.evidence)
        self.deliver()

    def deliver(self) -> None:
        mac = bytes.fromhex(MAC[self.host].replace(":", ""))
        for eid in EID[self.host]:
            self.plane.deliver(Prefix.host(ip_of(eid)), "lan", mac)

    def forward(self, eid: str, *rlocs: str, away: bool = False) -> None:
        hops = tuple(Hop(ip_of(rloc), 100) for rloc in rlocs)
        self.plane.install(Prefix.host(ip_of(eid)), Forward(hops, away=away))

    def eid(self, family: int) -> Prefix:
        """The host's, 0 for IPv4 and 1 for IPv6."""
        return Prefix.host(ip_of(EID[self.host][family]))

    def count(self, name: str) -> int:
        return self.plane.counters().get(name, 0)


@contextmanager
def sites(kind: str, *, queue_seconds: float = 3.0, **changes: Any) -> Iterator[tuple[Site, Site]]:
    """Both sites, running. `changes` are settings of both."""
    access = Site(kind, "access", "user", queue_seconds=queue_seconds, **changes)
    cloud = Site(kind, "cloud", "service", **changes)
    try:
        access.start()
        cloud.start()
        yield access, cloud
    finally:
        access.plane.close()
        cloud.plane.close()


def udp(namespace: str, address: str, port: int = PORT) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(namespace):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((address, port))
    return sock


async def until(condition: Callable[[], object], what: str, seconds: float = 3.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


async def receive(sock: socket.socket, seconds: float = 3.0) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2048), seconds)


def watch(namespace: str, interface: str) -> socket.socket:
    with inside(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.setblocking(False)
        sock.bind((interface, 3))
    return sock


async def outer_of(watching: socket.socket, source: str) -> bytes:
    """The next frame on the core from `source` to port 4341, from its IP header on."""
    wanted = ip_of(source)
    while True:
        frame = await receive(watching)
        packet = frame[14:]
        v4 = frame[12:14] == b"\x08\x00" and packet[12:16] == wanted and packet[22:24] == b"\x10\xf5"
        v6 = frame[12:14] == b"\x86\xdd" and packet[8:24] == wanted and packet[42:44] == b"\x10\xf5"
        if v4 or v6:
            return packet


def ipv4(source: str, destination: str, payload: bytes = b"hi", *, ttl: int = 20, tos: int = 0) -> bytes:
    segment = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    checksum = udp_checksum(ip_of(source), ip_of(destination), segment)
    segment = segment[:6] + checksum.to_bytes(2, "big") + segment[8:]
    head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(segment), 7, 0, ttl, 17, 0)
    head += ip_of(source) + ip_of(destination)
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + segment


def ipv6(source: str, destination: str, payload: bytes = b"hi", *, ttl: int = 20, tos: int = 0) -> bytes:
    segment = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    checksum = udp_checksum(ip_of(source), ip_of(destination), segment)
    segment = segment[:6] + checksum.to_bytes(2, "big") + segment[8:]
    return (
        struct.pack("!IHBB", 6 << 28 | tos << 20, len(segment), 17, ttl) + ip_of(source) + ip_of(destination) + segment
    )


def tunnelled(
    namespace: str, rloc: str, packet: bytes, *, ttl: int = 64, tos: int = 0, lisp: bytes = header(0)
) -> None:
    """Send `packet` encapsulated to `rloc`, from an xTR that is not one of ours."""
    v6 = ":" in rloc
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    with inside(namespace), socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((NEW_RLOC[v6], 0))
        sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, ttl)
        sock.setsockopt(level, socket.IPV6_TCLASS if v6 else socket.IP_TOS, tos)
        sock.sendto(lisp + packet, (rloc, 4341))


def wrapped(source: str, rloc: str, packet: bytes, *, lisp: bytes = header(0)) -> bytes:
    """`packet` in whole outer headers, whoever `source` is."""
    datagram = struct.pack("!HHHH", 50_000, 4341, 16 + len(packet), 0) + lisp + packet
    addresses = ip_of(source) + ip_of(rloc)
    if len(addresses) == 32:
        checksum = udp_checksum(ip_of(source), ip_of(rloc), datagram).to_bytes(2, "big")
        return struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + addresses + datagram[:6] + checksum + datagram[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 9, 0, 64, 17, 0) + addresses
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + datagram


def fragment(packet: bytes, start: int, end: int, identification: int) -> bytes:
    """The part of an IPv4 packet that carries these bytes of its payload."""
    payload = packet[20:][start:end]
    more = 0x2000 if start + len(payload) < len(packet) - 20 else 0
    head = packet[:2] + struct.pack("!HHH", 20 + len(payload), identification, more | start // 8) + packet[8:10]
    head += b"\0\0" + packet[12:20]
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + payload


def on_the_wire(near: str, far: str, packet: bytes) -> None:
    """Put an IP packet on the core as it stands, from `near` to `far`."""
    with inside(far), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as looking:
        looking.bind(("wan0", 0))
        mac = looking.getsockname()[4]
    with inside(near), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("wan0", 0))
        sock.send(mac + sock.getsockname()[4] + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet)
