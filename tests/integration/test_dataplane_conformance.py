"""What every data plane does, with real packets: the data-plane rules of RFC 9300 and RFC 6040, bounds and refusals.

Each test runs on each plane that this machine can run.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum
from lispfmc.wire.encap import header
from tests.integration.planes import (
    EID,
    KINDS,
    MAC,
    NEW_RLOC,
    PORT,
    RLOC,
    Site,
    fragment,
    inside,
    ipv4,
    named,
    network,
    on_the_wire,
    outer_of,
    receive,
    run,
    sites,
    tunnelled,
    udp,
    until,
    watch,
    wrapped,
)
from xtr.effects import Drop

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.mark.parametrize("outside", [0, 1], ids=["IPv4 outside", "IPv6 outside"])
@pytest.mark.parametrize("within", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
def test_packets_cross_in_every_combination_of_families(plane: str, within: int, outside: int) -> None:
    async def story() -> None:
        with (
            sites(plane) as (access, cloud),
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
def test_ttl_dscp_and_ecn_are_copied_to_the_outer_header_and_congestion_back(plane: str, outside: int) -> None:
    async def story() -> None:
        with (
            sites(plane) as (access, cloud),
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
            # RFC 9300 §5.3: what the core made of the DSCP comes out with the packet
            remarked = ipv4(EID["user"][0], EID["service"][0], b"remarked", ttl=60, tos=0xB8 | 2)
            tunnelled("access", RLOC["cloud"][0], remarked, tos=0x28 | 2)
            assert await receive(service) == b"remarked"
            while b"remarked" not in (frame := await receive(delivered)):
                pass
            assert frame[15] == 0x2A
            assert internet_checksum(frame[14:34]) == 0
            # RFC 6040 §4.2: congestion outside a packet whose sender cannot hear of it
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0]), tos=3)
            await until(lambda: cloud.count("dropped.congestion") == 1, "CE on Not-ECT is dropped")

    asyncio.run(story())


def test_every_combination_of_congestion_marks_comes_out_as_rfc_6040_says(plane: str) -> None:
    not_ect, ect1, ect0, ce = range(4)
    expected = {  # RFC 6040 §4.2, Figure 4: by (inner, outer)
        **{(not_ect, outer): not_ect for outer in (not_ect, ect1, ect0)},
        **{(ect1, outer): ect1 for outer in (not_ect, ect1, ect0)},
        **{(ect0, outer): ect0 for outer in (not_ect, ect0)},
        (ect0, ect1): ect1,
        **{(inner, ce): ce for inner in (ect1, ect0)},
        **{(ce, outer): ce for outer in range(4)},
    }

    async def story() -> None:
        with (
            sites(plane) as (_access, cloud),
            udp("service", EID["service"][0]) as service,
            watch("service", "eth0") as delivered,
        ):
            for (inner, outer), out in expected.items():
                said = b"%d in %d" % (inner, outer)
                packet = ipv4(EID["user"][0], EID["service"][0], said, tos=0x28 | inner)
                tunnelled("access", RLOC["cloud"][0], packet, tos=0x28 | outer)
                assert await receive(service) == said
                while said not in (frame := await receive(delivered)):
                    pass
                assert frame[15] == 0x28 | out, f"{inner} inside {outer}"
                assert internet_checksum(frame[14:34]) == 0
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0]), tos=ce)
            await until(lambda: cloud.count("dropped.congestion") == 1, "Not-ECT inside CE is dropped")

    asyncio.run(story())


def test_a_flow_keeps_its_source_port_and_flows_are_spread(plane: str) -> None:
    """RFC 9300 §5.3: so that routers of the core may use several paths and no flow is reordered by it."""

    async def story() -> None:
        with sites(plane) as (access, _cloud), watch("cloud", "wan0") as wire:
            access.forward(EID["service"][0], RLOC["cloud"][0])
            ports: dict[int, set[int]] = {}
            for flow in range(24):
                with udp("user", EID["user"][0], PORT + flow) as user:
                    for _ in range(3):
                        user.sendto(b"x", (EID["service"][0], PORT))
                        outer = await outer_of(wire, RLOC["access"][0])
                        inner_port = outer[36 + 20] << 8 | outer[36 + 21]
                        ports.setdefault(inner_port, set()).add(outer[20] << 8 | outer[21])
            assert all(len(used) == 1 for used in ports.values())
            assert len(set().union(*ports.values())) >= 4

    asyncio.run(story())


def test_no_packet_is_lost_or_reordered_while_the_mapping_is_resolved(plane: str) -> None:
    async def story() -> None:
        with (
            sites(plane) as (access, _cloud),
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


def test_a_negative_answer_and_time_both_end_the_waiting(plane: str) -> None:
    async def story() -> None:
        with sites(plane, queue_seconds=0.2) as (access, _cloud), udp("user", EID["user"][0]) as user:
            user.sendto(b"1", ("100.64.200.1", PORT))
            await until(lambda: access.count("queued") == 1, "the packet waits")
            access.plane.install(Prefix.parse("100.64.200.0/24"), Drop())
            assert access.count("dropped.negative") == 1
            user.sendto(b"2", ("100.64.201.1", PORT))
            await until(lambda: access.count("dropped.unresolved") == 1, "nobody answered")
            user.sendto(b"3", ("100.64.201.1", PORT))
            await until(lambda: len(access.evidence.misses) == 3, "the next packet is a new miss")

    asyncio.run(story())


def test_a_moved_host_is_passed_on_with_one_hop_less_and_its_sender_reported(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), watch("access", "wan0") as wire:
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


def test_what_is_not_ours_is_dropped_and_counted(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (access, cloud), udp("service", EID["service"][0]) as service:
            expected = {
                "dropped.encrypted": 1,
                "dropped.foreign-destination": 1,
                "dropped.inner-length": 1,
                "dropped.inner-version": 1,
                "dropped.instance": 1,
            }
            inner = ipv4(EID["user"][0], EID["service"][0])
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], "100.64.7.7"))
            tunnelled("access", RLOC["cloud"][0], inner, lisp=header(7))
            tunnelled("access", RLOC["cloud"][0], inner[:-1])
            tunnelled("access", RLOC["cloud"][0], b"\x45")
            tunnelled("access", RLOC["cloud"][0], inner, lisp=b"\x01" + bytes(7))
            await until(
                lambda: {k: v for k, v in cloud.plane.counters().items() if k != "dropped.not-unicast"} == expected,
                "each in its counter",
            )
            tunnelled("access", RLOC["cloud"][0], inner, lisp=b"\xf0\x12\x34\x56\0\0\0\1")
            assert await receive(service) == b"hi", "RFC 9300 §5.3: N and V together are read as a nonce"
            run(f"ip -n {named('user')} addr add 100.64.250.1/32 dev eth0")
            with udp("user", "100.64.250.1") as liar:
                liar.sendto(b"x", (EID["service"][0], PORT))
                await until(lambda: access.count("dropped.foreign-source") == 1, "a source that is not this site's")
            assert access.evidence.unknown == [Prefix.parse("100.64.250.1/32")]
            run(f"ip -n {named('user')} addr del 100.64.250.1/32 dev eth0")

    asyncio.run(story())


def test_lengths_that_lie_and_versions_that_do_not_exist_are_refused_by_their_reasons(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", EID["service"][0]) as service:
            inner = ipv4(EID["user"][0], EID["service"][0])
            longer = inner[:2] + (len(inner) + 1).to_bytes(2, "big") + inner[4:]
            shorter = inner[:2] + (19).to_bytes(2, "big") + inner[4:]
            refused = [
                ("dropped.truncated", b"", bytes(4)),
                ("dropped.truncated", b"", b""),
                ("dropped.inner-length", longer, header(0)),
                ("dropped.inner-length", shorter, header(0)),
                ("dropped.inner-length", b"\x60" + bytes(4) + b"\x01" + bytes(34), header(0)),
                *(("dropped.inner-version", bytes([nibble << 4]) + inner[1:], header(0)) for nibble in (0, 5, 7, 15)),
                ("dropped.inner-version", b"", header(0)),
            ]
            expected: Counter[str] = Counter()
            for reason, packet, lisp in refused:
                expected[reason] += 1
                tunnelled("access", RLOC["cloud"][0], packet, lisp=lisp)
                await until(lambda: refusals(cloud) == expected, f"{reason}: {expected}")
            whole = wrapped(RLOC["access"][0], RLOC["cloud"][0], inner)
            on_the_wire("access", "cloud", whole[:24] + (len(whole) - 19).to_bytes(2, "big") + whole[26:])
            expected["dropped.outer-length"] += 1
            await until(lambda: refusals(cloud) == expected, "a UDP length beyond the packet")
            tunnelled("access", RLOC["cloud"][0], inner + b"padding")
            assert await receive(service) == b"hi", "what follows the inner packet is left out"
            assert refusals(cloud) == expected

    asyncio.run(story())


def test_outer_fragments_are_put_together_or_refused(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", EID["service"][0]) as service:
            inner = ipv4(EID["user"][0], EID["service"][0], b"in parts" * 20)
            whole = wrapped(RLOC["access"][0], RLOC["cloud"][0], inner)
            for part in (fragment(whole, 64, len(whole), 1), fragment(whole, 0, 64, 1)):
                on_the_wire("access", "cloud", part)
            assert await receive(service) == b"in parts" * 20
            assert refusals(cloud) == {}
            for part in (fragment(whole, 0, 64, 2), fragment(whole, 32, len(whole), 2)):  # they overlap
                on_the_wire("access", "cloud", part)
            await until(lambda: refusals(cloud) == {"dropped.outer-fragments": 1}, "no whole comes of these")

    asyncio.run(story())


def test_packets_in_our_own_name_are_refused(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", EID["service"][0]) as service, watch("service", "eth0"):
            inner = ipv4(EID["user"][0], EID["service"][0])
            own = RLOC["cloud"][0]
            with inside("cloud"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
                here.bind((own, 0))
                here.sendto(header(0) + inner, (own, 4341))
            await until(lambda: refusals(cloud) == {"dropped.own-source": 1}, "from this very machine")
            on_the_wire("access", "cloud", wrapped(RLOC["cloud"][1], RLOC["cloud"][1], inner))
            await until(lambda: refusals(cloud) == {"dropped.own-source": 2}, "from the core, by a forged address")
            # IPv4's stack refuses such a packet by itself (a martian), so that nobody can count it
            on_the_wire("access", "cloud", wrapped(own, own, inner))
            tunnelled("access", own, ipv4(EID["user"][0], EID["service"][0], b"after it"))
            assert await receive(service) == b"after it"

    asyncio.run(story())


def refusals(site: Site) -> dict[str, int]:
    """Packets that were dropped, by reason; but multicast, which hosts send of their own accord."""
    counted = site.plane.counters()
    return {name: n for name, n in counted.items() if name.startswith("dropped.") and n and "not-unicast" not in name}


def test_packets_that_arrive_before_the_host_wait_for_it(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", EID["service"][0]) as service:
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
        "rule show",
        "route show table all",
        "-6 rule show",
        "-6 route show table all",
        "neigh show nud permanent",
        "-6 neigh show nud permanent",
    )
    return "".join(
        subprocess.run(f"ip -n {named(name)} {each}".split(), check=True, capture_output=True, text=True).stdout
        for each in commands
    )


def test_close_leaves_nothing_behind_and_start_clears_what_a_killed_run_left(plane: str) -> None:
    async def story() -> None:
        before = state_of("access")
        with sites(plane):
            during = state_of("access")
            assert "blackhole 100.64.0.0/10 table 4341 proto 143 metric 4096" in during
            assert "blackhole fd00::/8 dev lo table 4341 proto 143 metric 4096" in during
            assert "100.64.0.0/10 dev lisp0 table 4341" in during
            assert "from all iif lan lookup 4341" in during
            assert f"{EID['user'][0]} dev lan lladdr {MAC['user']} PERMANENT" in during
        assert state_of("access") == before
        # what a run that was killed leaves: host routes, neighbours and blackholes, and no TUN
        run(
            f"ip -n {named('access')} route add 100.64.9.9/32 dev lan proto 143",
            f"ip -n {named('access')} neigh add 100.64.9.9 dev lan lladdr {MAC['user']} nud permanent",
            f"ip -n {named('access')} route add blackhole 100.64.0.0/10 metric 4096 proto 143 table 4341",
            f"ip -n {named('access')} route add throw 100.64.8.0/24 proto 143 table 4341",
            f"ip -n {named('access')} rule add iif gone priority 4341 lookup 4341 protocol 143",
            f"ip -n {named('access')} rule add iif lan priority 4341 lookup 4341 protocol 143",
        )
        with sites(plane):
            assert "100.64.9.9" not in state_of("access")
        assert state_of("access") == before

    asyncio.run(story())
