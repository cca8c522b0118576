"""Instance-IDs are worlds apart, and what is no EID's goes to those who know it (RFC 6832), on every plane."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.encap import header
from tests.integration.planes import (
    EID,
    KINDS,
    MAC,
    PORT,
    RLOC,
    inside,
    ipv4,
    named,
    network,
    receive,
    run,
    sites,
    tunnelled,
    udp,
    until,
)
from xtr.effects import Forward, Hop, Native

pytestmark = pytest.mark.namespaces

MAC7 = {"user": bytes.fromhex("020000000710"), "service": bytes.fromhex("020000000720")}
TENANT = {"user7": ("access", "user"), "service7": ("cloud", "service")}
NEIGHBOUR = "100.64.1.11"  # here, in instance 0
BOTH: dict[str, Any] = {
    "prefixes": ["100.64.1.0/24", "100.64.101.0/24", "[7]100.64.1.0/24", "[7]100.64.101.0/24"],
    "site": {"interfaces": ["lan", "lan7"], "instances": {"lan7": 7}},
    "dataplane": {"eid_ranges": ["100.64.0.0/10", "[7]100.64.0.0/10"]},
}


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    """A second host at each site, with the same EIDs as the first, in Instance-ID 7."""
    names = [named(name) for name in TENANT]
    with network():
        try:
            for name, (site, twin) in TENANT.items():
                at, on, mac = f"ip -n {named(site)}", f"ip -n {named(name)}", MAC7[twin].hex(":")
                run(
                    f"ip netns add {named(name)}",
                    f"{at} link add lan7 type veth peer name eth0 netns {named(name)}",
                    f"{at} link set lan7 address {MAC['gateway']} up",
                    f"ip netns exec {named(site)} sysctl -qw net.ipv4.conf.lan7.rp_filter=0",
                    f"{on} link set eth0 address {mac} up",
                    f"{on} addr add {EID[twin][0]}/32 dev eth0",
                    f"{on} neigh replace 169.254.1.1 lladdr {MAC['gateway']} dev eth0 nud permanent",
                    f"{on} route add default via 169.254.1.1 dev eth0 onlink src {EID[twin][0]}",
                )
            yield
        finally:
            for name in names:
                run(f"ip netns del {name}")


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def seven(eid: str) -> Prefix:
    return Prefix.host(ip_of(eid), 7)


def test_the_same_addresses_in_two_instances_never_meet(plane: str) -> None:
    async def story() -> None:
        with (
            sites(plane, **BOTH) as (access, cloud),
            udp("user", EID["user"][0]) as user,
            udp("user7", EID["user"][0]) as user7,
            udp("service", EID["service"][0]) as service,
            udp("service7", EID["service"][0]) as service7,
        ):
            access.plane.deliver(seven(EID["user"][0]), "lan7", MAC7["user"])
            cloud.plane.deliver(seven(EID["service"][0]), "lan7", MAC7["service"])
            access.forward(EID["service"][0], RLOC["cloud"][0])
            user7.sendto(b"too early", (EID["service"][0], PORT))
            await until(lambda: access.evidence.misses == [seven(EID["service"][0])], "a miss of its own")
            access.plane.install(seven(EID["service"][0]), Forward((Hop(ip_of(RLOC["cloud"][0]), 100),)))
            assert await receive(service7) == b"too early"
            for number in range(20):
                user.sendto(b"plain %d" % number, (EID["service"][0], PORT))
                user7.sendto(b"seven %d" % number, (EID["service"][0], PORT))
            assert [await receive(service) for _ in range(20)] == [b"plain %d" % n for n in range(20)]
            assert [await receive(service7) for _ in range(20)] == [b"seven %d" % n for n in range(20)]
            # an EID that only the other instance has here
            cloud.plane.undeliver(seven(EID["service"][0]))
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0], b"leak?"), lisp=header(7))
            await until(lambda: seven(EID["service"][0]) in cloud.evidence.misses, "it waits in its own instance")
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0], b"leak?"), lisp=header(9))
            await until(lambda: cloud.count("dropped.instance") == 1, "nobody's instance")
            user.sendto(b"last", (EID["service"][0], PORT))
            assert await receive(service) == b"last"

    asyncio.run(story())


def test_a_tenants_packet_for_what_its_instance_does_not_have_goes_nowhere(plane: str) -> None:
    async def story() -> None:
        tenants = ["[7]100.64.1.10/32", "[7]100.64.101.0/24"]
        narrow = BOTH | {
            "prefixes": ["100.64.1.0/24", "100.64.101.0/24", *tenants],
            "dataplane": {"eid_ranges": ["100.64.0.0/10", *tenants]},
        }
        with (
            sites(plane, **narrow) as (access, _cloud),
            udp("user", NEIGHBOUR) as user,
            udp("user7", EID["user"][0]) as user7,
        ):
            access.plane.deliver(Prefix.host(ip_of(NEIGHBOUR)), "lan", bytes.fromhex(MAC["user"].replace(":", "")))
            # in instance 0 this host is here, and the main table knows it; instance 7 has no such range
            access.plane.deliver(seven(EID["user"][0]), "lan7", MAC7["user"])
            for _ in range(5):
                user7.sendto(b"hello?", (NEIGHBOUR, PORT))
            await asyncio.sleep(0.2)
            assert access.evidence.misses == []
            with pytest.raises(BlockingIOError):
                user.recv(100)

    run(f"ip -n {named('user')} addr add {NEIGHBOUR}/32 dev eth0")
    try:
        asyncio.run(story())
    finally:
        run(f"ip -n {named('user')} addr del {NEIGHBOUR}/32 dev eth0")


def test_natively_forward_is_the_plain_routing_tables_business(plane: str) -> None:
    outside = "100.64.200.9"

    async def story() -> None:
        with sites(plane) as (access, _cloud), udp("user", EID["user"][0]) as user, udp("cloud", outside) as plain:
            user.sendto(b"1", (outside, PORT))
            await until(lambda: access.count("queued") == 1, "it waits")
            access.plane.install(Prefix.parse("100.64.200.0/24"), Native())
            assert await receive(plain) == b"1", "what waited goes out as it is"
            user.sendto(b"2", (outside, PORT))
            assert await receive(plain) == b"2"
            assert access.count("encapsulated") == 0
            # a mapping inside the range is still tunnelled, and so is the range when its time is over
            access.forward("100.64.200.10", RLOC["cloud"][0])
            user.sendto(b"3", ("100.64.200.10", PORT))
            await until(lambda: access.count("encapsulated") == 1, "the more specific one")
            access.plane.remove(Prefix.parse("100.64.200.0/24"))
            user.sendto(b"4", (outside, PORT))
            await until(lambda: Prefix.parse(f"{outside}/32") in access.evidence.misses[1:], "a miss again")

    run(
        f"ip -n {named('cloud')} addr add {outside}/32 dev lo",
        f"ip -n {named('access')} route add 100.64.200.0/24 via {RLOC['cloud'][0]} dev wan0",
    )
    try:
        asyncio.run(story())
    finally:
        run(
            f"ip -n {named('cloud')} addr del {outside}/32 dev lo",
            f"ip -n {named('access')} route del 100.64.200.0/24 via {RLOC['cloud'][0]} dev wan0",
        )


def test_a_proxy_etr_sends_on_what_is_no_eid(plane: str) -> None:
    internet = "192.0.2.9"

    async def story() -> None:
        anything: dict[str, Any] = {"dataplane": {"eid_ranges": ["0.0.0.0/0", "fd00::/8"]}}
        with (
            sites(plane, interworking={"petr": True}) as (_, cloud),
            udp("cloud", internet) as server,
        ):
            inner = ipv4(EID["user"][0], internet, b"out")
            tunnelled("access", RLOC["cloud"][0], inner)
            assert await receive(server) == b"out"
            tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], "100.64.7.7"))
            await until(lambda: cloud.count("dropped.foreign-destination") == 1, "an EID is not its business")
        with sites(plane, **anything) as (access, cloud):
            access.plane.install(Prefix.parse("0.0.0.0/0"), Forward((Hop(ip_of(RLOC["cloud"][0]), 1),)))
            with udp("user", EID["user"][0]) as user:
                user.sendto(b"far", (internet, PORT))
                await until(lambda: access.count("encapsulated") == 1, "a default route into the tunnel")
                await until(lambda: cloud.count("dropped.foreign-destination") == 1, "which is no Proxy-ETR now")

    run(f"ip -n {named('cloud')} addr add {internet}/32 dev lo")
    try:
        asyncio.run(story())
    finally:
        run(f"ip -n {named('cloud')} addr del {internet}/32 dev lo")


def test_a_proxy_itr_encapsulates_for_sources_that_are_no_eids(plane: str) -> None:
    stranger = "203.0.113.5"

    async def story() -> None:
        for pitr in (False, True):
            with (
                sites(plane, interworking={"pitr": pitr}) as (access, _cloud),
                udp("user", stranger) as outsider,
                udp("service", EID["service"][0]) as service,
            ):
                access.forward(EID["service"][0], RLOC["cloud"][0])
                outsider.sendto(b"hello", (EID["service"][0], PORT))
                if pitr:
                    assert await receive(service) == b"hello"
                    assert access.evidence.unknown == []
                else:
                    count = access.count
                    await until(lambda count=count: count("dropped.foreign-source") == 1, "it is not this site's")  # type: ignore[misc]

    run(f"ip -n {named('user')} addr add {stranger}/32 dev eth0")
    try:
        asyncio.run(story())
    finally:
        run(f"ip -n {named('user')} addr del {stranger}/32 dev eth0")


def test_map_versions_of_arriving_packets_are_held_against_ours(plane: str) -> None:
    async def story() -> None:
        with sites(plane) as (_access, cloud), udp("service", EID["service"][0]) as service, inside("access"):
            own, peer = Prefix.host(ip_of(EID["service"][0])), Prefix.host(ip_of(EID["user"][0]))
            cloud.evidence.versions.update({own: 9, peer: 5})

            def arrives(source: int, destination: int) -> None:
                lisp = bytes([0x10]) + (source << 12 | destination).to_bytes(3, "big") + bytes(4)
                packet = ipv4(EID["user"][0], EID["service"][0], b"%d %d" % (source, destination))
                tunnelled("access", RLOC["cloud"][0], packet, lisp=lisp)

            arrives(5, 9)
            assert await receive(service) == b"5 9"
            arrives(5, 10)  # newer than what we ever gave out
            arrives(5, 0)
            await until(lambda: cloud.count("dropped.version") == 2, "RFC 9302 §7.1")
            arrives(4, 9)
            await until(lambda: cloud.count("dropped.source-version") == 1, "RFC 9302 §7.2")
            arrives(5, 8)
            assert await receive(service) == b"5 8"
            assert [eid for eid, _ in cloud.evidence.outdated_senders] == [own]
            arrives(6, 9)
            assert await receive(service) == b"6 9"
            assert cloud.evidence.newer_sources == [peer]

    asyncio.run(story())
