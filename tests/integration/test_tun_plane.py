"""Two real TUN planes with real packets: user -- access xTR == core == service xTR -- service, each a namespace.

Both planes live in this process: their sockets and devices were opened in their namespaces and stay there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pyroute2 import netns

from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.encap import header
from xtr.dataplane.sniffer import Sniffer
from xtr.dataplane.tun import TunPlane
from xtr.effects import Drop, Forward, Hop
from xtr.settings import DataPlaneSettings

pytestmark = pytest.mark.namespaces

PREFIX = f"tunplane{os.getpid()}"
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


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
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

    def missed(self, eid: Prefix) -> None:
        self.misses.append(eid)

    def unknown_source(self, eid: Prefix) -> None:
        self.unknown.append(eid)

    def moved_away(self, eid: Prefix, sender: Ip) -> None:
        self.away.append((eid, sender))

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None:
        self.claims.append((eid, interface, mac))


class Site:
    """A plane in its namespace, with the host behind it delivered."""

    def __init__(self, name: str, host: str, *, queue_seconds: float = 3.0) -> None:
        self.name, self.host = name, host
        self.evidence = Evidence()
        prefixes = [Prefix.parse("100.64.1.0/24"), Prefix.parse("fd00:0:0:1::/64")]
        if host == "service":
            prefixes = [Prefix.parse("100.64.101.0/24"), Prefix.parse("fd00:0:0:101::/64")]
        ranges = (Prefix.parse("100.64.0.0/10"), Prefix.parse("fd00::/8"))
        self.plane = TunPlane(
            DataPlaneSettings(eid_ranges=ranges, queue_seconds=queue_seconds),
            rlocs=[ip_of(rloc) for rloc in RLOC[name]],
            iid=0,
            interfaces=["lan"],
            fixed=prefixes,
        )

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

    def count(self, name: str) -> int:
        return self.plane.counters().get(name, 0)


@contextmanager
def sites(queue_seconds: float = 3.0) -> Iterator[tuple[Site, Site]]:
    access = Site("access", "user", queue_seconds=queue_seconds)
    cloud = Site("cloud", "service")
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


def tunnelled(
    namespace: str, rloc: str, packet: bytes, *, ttl: int = 64, tos: int = 0, lisp: bytes = header(0)
) -> None:
    """Send `packet` encapsulated to `rloc`, from an xTR that is not one of ours."""
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((NEW_RLOC[0], 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        sock.sendto(lisp + packet, (rloc, 4341))


@pytest.mark.parametrize("outside", [0, 1], ids=["IPv4 outside", "IPv6 outside"])
@pytest.mark.parametrize("within", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
def test_packets_cross_in_every_combination_of_families(within: int, outside: int) -> None:
    async def story() -> None:
        with (
            sites() as (access, cloud),
            udp("user", EID["user"][within]) as user,
            udp("service", EID["service"][within]) as service,
            watch("cloud", "wan0") as wire,
        ):
            access.forward(EID["service"][within], RLOC["cloud"][outside])
            cloud.forward(EID["user"][within], RLOC["access"][outside])
            user.sendto(b"there", (EID["service"][within], PORT))
            assert await receive(service) == b"there"
            outer = await outer_of(wire, RLOC["access"][outside])
            udp_header = outer[40:48] if outside else outer[20:28]
            assert udp_header[6:8] == b"\0\0", "RFC 9300 §5.3: UDP checksum zero"
            if not outside:
                assert outer[6] & 0x40, "Don't Fragment is set"
            service.sendto(b"back", (EID["user"][within], PORT))
            assert await receive(user) == b"back"
            assert access.plane.peers(Prefix.host(ip_of(EID["user"][within]))) == [ip_of(RLOC["cloud"][outside])]
            assert (access.count("encapsulated"), access.count("decapsulated")) == (1, 1)

    asyncio.run(story())


@pytest.mark.parametrize("outside", [0, 1], ids=["IPv4 outside", "IPv6 outside"])
def test_ttl_dscp_and_ecn_are_copied_to_the_outer_header_and_congestion_back(outside: int) -> None:
    async def story() -> None:
        with (
            sites() as (access, cloud),
            udp("user", EID["user"][0]) as user,
            watch("cloud", "wan0") as wire,
            udp("service", EID["service"][0]) as service,
            watch("service", "eth0") as delivered,
        ):
            access.forward(EID["service"][0], RLOC["cloud"][outside])
            user.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
            user.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8 | 2)  # EF, ECT(0)
            user.sendto(b"marked", (EID["service"][0], PORT))
            assert await receive(service) == b"marked"
            outer = await outer_of(wire, RLOC["access"][outside])
            tos = (outer[0] << 4 | outer[1] >> 4) & 0xFF if outside else outer[1]
            assert (tos, outer[7] if outside else outer[8]) == (0xBA, 32)  # the access router took one
            assert cloud.count("decapsulated") == 1
            # a router on the way marked congestion, and took many hops: both reach the inner packet
            while (await receive(delivered))[14:15] != b"\x45":
                pass
            marked = ipv4(EID["user"][0], EID["service"][0], b"congested", ttl=60, tos=0xB8 | 2)
            tunnelled("access", RLOC["cloud"][0], marked, ttl=9, tos=0xB8 | 3)
            assert await receive(service) == b"congested"
            while b"congested" not in (frame := await receive(delivered)):
                pass
            assert (frame[15], frame[22]) == (0xBB, 8)
            assert internet_checksum(frame[14:34]) == 0
            # RFC 6040 §4.2: congestion outside a packet whose sender cannot hear of it
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0]), tos=3)
            await until(lambda: cloud.count("dropped.congestion") == 1, "CE on Not-ECT is dropped")

    asyncio.run(story())


def test_no_packet_is_lost_or_reordered_while_the_mapping_is_resolved() -> None:
    async def story() -> None:
        with (
            sites() as (access, _cloud),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
        ):
            for number in range(200):
                user.sendto(str(number).encode(), (EID["service"][0], PORT))
            await until(lambda: access.count("queued") == 200, "200 packets wait")
            assert access.evidence.misses == [Prefix.host(ip_of(EID["service"][0]))], "reported once"
            access.forward(EID["service"][0], RLOC["cloud"][0])
            assert [int(await receive(service)) for _ in range(200)] == list(range(200))

    asyncio.run(story())


def test_a_negative_answer_and_time_both_end_the_waiting() -> None:
    async def story() -> None:
        with sites(queue_seconds=0.2) as (access, _cloud), udp("user", EID["user"][0]) as user:
            user.sendto(b"1", ("100.64.200.1", PORT))
            await until(lambda: access.count("queued") == 1, "the packet waits")
            access.plane.install(Prefix.parse("100.64.200.0/24"), Drop())
            assert access.count("dropped.negative") == 1
            user.sendto(b"2", ("100.64.201.1", PORT))
            await until(lambda: access.count("dropped.unresolved") == 1, "nobody answered")
            user.sendto(b"3", ("100.64.201.1", PORT))
            await until(lambda: len(access.evidence.misses) == 3, "the next packet is a new miss")

    asyncio.run(story())


def test_a_moved_host_is_passed_on_with_one_hop_less_and_its_sender_reported() -> None:
    async def story() -> None:
        with sites() as (_access, cloud), watch("access", "wan0") as wire:
            cloud.plane.undeliver(Prefix.host(ip_of(EID["service"][0])))
            cloud.forward(EID["service"][0], RLOC["access"][0], away=True)
            packet = ipv4(EID["user"][0], EID["service"][0], ttl=50)
            for _ in range(3):
                tunnelled("access", RLOC["cloud"][0], packet, ttl=17)
            outer = await outer_of(wire, RLOC["cloud"][0])
            assert outer[8] == 16, "RFC 9300 §5.3: the outer TTL goes on counting down"
            assert outer[36 + 8] == 17, "the inner TTL became the lesser one"
            await until(lambda: cloud.count("reencapsulated") == 3, "all three are passed on")
            assert cloud.evidence.away == [(Prefix.host(ip_of(EID["service"][0])), ip_of(NEW_RLOC[0]))], "reported once"
            tunnelled("access", RLOC["cloud"][0], packet, ttl=1)
            await until(lambda: cloud.count("dropped.ttl") == 1, "a loop ends")

    asyncio.run(story())


def test_what_is_not_ours_is_dropped_and_counted() -> None:
    async def story() -> None:
        with sites() as (access, cloud), udp("service", EID["service"][0]) as service:
            expected = {"dropped.foreign-destination": 1, "dropped.instance": 1, "dropped.malformed": 3}
            inner = ipv4(EID["user"][0], EID["service"][0])
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], "100.64.7.7"))
            tunnelled("access", RLOC["cloud"][0], inner, lisp=header(7))
            tunnelled("access", RLOC["cloud"][0], inner[:-1])
            tunnelled("access", RLOC["cloud"][0], b"\x45")
            tunnelled("access", RLOC["cloud"][0], inner, lisp=b"\x01" + bytes(7))
            await until(
                lambda: expected.items() <= cloud.plane.counters().items(),
                "each in its counter",
            )
            tunnelled("access", RLOC["cloud"][0], inner, lisp=b"\xf0\x12\x34\x56\0\0\0\1")
            assert await receive(service) == b"hi", "nonce, versions and status bits are tolerated"
            run(f"ip -n {named('user')} addr add 100.64.250.1/32 dev eth0")
            with udp("user", "100.64.250.1") as liar:
                liar.sendto(b"x", (EID["service"][0], PORT))
                await until(lambda: access.count("dropped.foreign-source") == 1, "a source that is not this site's")
            assert access.evidence.unknown == [Prefix.parse("100.64.250.1/32")]
            run(f"ip -n {named('user')} addr del 100.64.250.1/32 dev eth0")

    asyncio.run(story())


def test_packets_that_arrive_before_the_host_wait_for_it() -> None:
    async def story() -> None:
        with sites() as (_access, cloud), udp("service", EID["service"][0]) as service:
            eid = Prefix.host(ip_of(EID["service"][0]))
            cloud.plane.undeliver(eid)
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0], b"early"))
            await until(lambda: cloud.evidence.misses == [eid], "the core is asked")
            cloud.forward(EID["service"][0], RLOC["cloud"][0])  # the mapping system: it is at your own site
            cloud.deliver()
            assert await receive(service) == b"early"

    asyncio.run(story())


def state_of(name: str) -> str:
    commands = (
        "link show type tun",
        "route show",
        "-6 route show",
        "neigh show nud permanent",
        "-6 neigh show nud permanent",
    )
    return "".join(
        subprocess.run(f"ip -n {named(name)} {each}".split(), check=True, capture_output=True, text=True).stdout
        for each in commands
    )


def test_close_leaves_nothing_behind_and_start_clears_what_a_killed_run_left() -> None:
    async def story() -> None:
        before = state_of("access")
        with sites():
            during = state_of("access")
            assert "blackhole 100.64.0.0/10 proto 143 metric 4096" in during
            assert "blackhole fd00::/8 dev lo proto 143 metric 4096" in during
            assert "100.64.0.0/10 dev lisp0" in during
            assert f"{EID['user'][0]} dev lan lladdr {MAC['user']} PERMANENT" in during
        assert state_of("access") == before
        # what a run that was killed leaves: host routes, neighbours and blackholes, and no TUN
        run(
            f"ip -n {named('access')} route add 100.64.9.9/32 dev lan proto 143",
            f"ip -n {named('access')} neigh add 100.64.9.9 dev lan lladdr {MAC['user']} nud permanent",
            f"ip -n {named('access')} route add blackhole 100.64.0.0/10 metric 4096 proto 143",
        )
        with sites():
            assert "100.64.9.9" not in state_of("access")
        assert state_of("access") == before

    asyncio.run(story())


ANNOUNCE = f"""
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); s.bind(("eth0", 0))
mac = bytes.fromhex("{MAC["user"].replace(":", "")}"); ip = socket.inet_aton("{EID["user"][0]}")
arp = bytes.fromhex("0001080006040001") + mac + ip + bytes(6) + ip
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)                                   # a gratuitous ARP
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp[:8] + mac[::-1] + arp[14:])        # another's MAC
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp[:14] + bytes(4) + arp[18:])        # no address yet
"""


def announce() -> None:
    subprocess.run(["ip", "netns", "exec", named("user"), sys.executable, "-c", ANNOUNCE], check=True)


def test_a_host_is_noticed_by_its_announcement_and_answers_a_probe_in_both_families() -> None:
    async def story() -> None:
        evidence, sniffer = Evidence(), Sniffer(["lan"])
        with inside("access"):
            sniffer.start(evidence, 0)
        try:
            announce()
            mac = bytes.fromhex(MAC["user"].replace(":", ""))
            claims = [(Prefix.host(ip_of(eid)), "lan", mac) for eid in EID["user"]]
            await until(lambda: evidence.claims == claims[:1], "one claim, by the host itself")
            evidence.claims.clear()
            sniffer.probe(claims[0][0])
            await until(lambda: evidence.claims == claims[:1], "the ARP reply")
            sniffer.probe(claims[1][0])
            await until(lambda: evidence.claims == claims, "the Neighbour Advertisement")
        finally:
            sniffer.close()

    asyncio.run(story())
