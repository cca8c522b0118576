"""What the kernel plane has beside the conformance test: its switch for a move, copies to several xTRs, statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from lispfmc.core.plans import Party, Plan
from lispfmc.wire.address import Prefix, ip_of
from tests.integration.planes import (
    EID,
    PORT,
    RLOC,
    Site,
    ipv4,
    named,
    network,
    outer_of,
    receive,
    run,
    sites,
    tunnelled,
    udp,
    until,
    watch,
)
from xtr.dataplane.choice import unavailable
from xtr.dataplane.ebpf import EbpfPlane
from xtr.dataplane.kernel_tables import Delivery
from xtr.effects import Forward, Hop
from xtr.roles.state import Held, Mode, Switch

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "the kernel plane runs here"),
]
SERVICE = Prefix.host(ip_of(EID["service"][0]))


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


def plane_of(site: Site) -> EbpfPlane:
    assert isinstance(site.plane, EbpfPlane)
    return site.plane


def test_the_kernel_delivers_and_copies_while_the_service_runs_and_hands_the_rest_to_the_slow_path() -> None:
    plan = Plan(7, 1, (SERVICE,), (ip_of(RLOC["cloud"][0]),), (ip_of(RLOC["access"][0]),))

    async def story() -> None:
        with sites("ebpf") as (access, cloud), udp("service", EID["service"][0]) as service:

            def send(payload: bytes) -> None:
                tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0], payload))

            def in_kernel() -> Delivery:
                entry = plane_of(cloud).traffic(SERVICE)
                assert entry is not None
                return entry.delivery

            cloud.plane.switch(Switch(plan, Mode.MIRROR, towards=Party.TARGET))
            assert in_kernel() is Delivery.DELIVER_AND_MIRROR
            send(b"copied")
            assert await receive(service) == b"copied"
            before = cloud.count("decapsulated")
            # the copy still waits in the device: it is a copy nevertheless, and what comes behind it is none
            cloud.plane.switch(Switch(plan, Mode.FORWARD, Held.SEND, Party.TARGET, copies=True))
            assert in_kernel() is Delivery.PUNT
            send(b"led")
            await until(lambda: cloud.plane.moved(plan.eids)["forwarded"] == 2, "it goes to the other site")
            assert (cloud.plane.moved(plan.eids)["replayed"], cloud.count("decapsulated")) == (1, before)
            cloud.plane.switch(Switch(plan, Mode.DELIVER, Held.DELIVER))
            assert [await receive(service), await receive(service)] == [b"copied", b"led"], "it was given back"
            await until(lambda: in_kernel() is Delivery.DELIVER, "the kernel has it again")
            send(b"after")
            assert await receive(service) == b"after"
            assert access.count("dropped.foreign-destination") == 2, "which the other router does not expect"

    asyncio.run(story())


def test_a_running_service_stays_in_the_kernel_when_its_move_is_prepared_and_given_up() -> None:
    """The slow path would work off what comes as long as more comes than it can take."""
    plan = Plan(7, 1, (SERVICE,), (ip_of(RLOC["cloud"][0]),), (ip_of(RLOC["access"][0]),))

    async def story() -> None:
        with sites("ebpf") as (_, cloud), udp("service", EID["service"][0]) as service:
            for number in range(150):
                tunnelled("access", RLOC["cloud"][0], ipv4(EID["user"][0], EID["service"][0], b"%d" % number))
                if number == 50:
                    cloud.plane.switch(Switch(plan, Mode.MIRROR, towards=Party.TARGET))
                if number == 100:
                    cloud.plane.switch(Switch(plan, Mode.DELIVER, Held.DISCARD))
            assert [await receive(service) for _ in range(150)] == [b"%d" % number for number in range(150)]
            assert cloud.count("punted") == 0

    asyncio.run(story())


def test_a_hosts_own_packets_leave_by_the_kernel_while_what_comes_for_it_is_led() -> None:
    plan = Plan(7, 1, (SERVICE,), (ip_of(RLOC["cloud"][0]),), (ip_of(RLOC["access"][0]),))

    async def story() -> None:
        with (
            sites("ebpf") as (_, cloud),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
        ):
            cloud.forward(EID["user"][0], RLOC["access"][0])
            cloud.plane.switch(Switch(plan, Mode.FORWARD, Held.SEND, Party.TARGET, copies=True))
            before = plane_of(cloud).traffic(SERVICE)
            for number in range(10):
                service.sendto(b"%d" % number, (EID["user"][0], PORT))
                assert await receive(user) == b"%d" % number
            after = plane_of(cloud).traffic(SERVICE)
            assert before is not None
            assert after is not None
            assert (after.delivery, after.sent_packets - before.sent_packets) == (Delivery.PUNT, 10)

    asyncio.run(story())


def test_a_replicated_packet_goes_to_each_locator_once() -> None:
    async def story() -> None:
        run(f"ip -n {named('cloud')} addr add 198.18.0.22/24 dev wan0")
        with (
            sites("ebpf") as (access, _),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
            watch("cloud", "wan0") as wire,
        ):
            hops = tuple(Hop(ip_of(rloc), 100) for rloc in (RLOC["cloud"][0], "198.18.0.22"))
            access.plane.install(SERVICE, Forward(hops, replicate=True))
            for number in range(5):  # the first ones may take the slow path, which asks for the neighbours
                user.sendto(b"%d" % number, (EID["service"][0], PORT))
                assert await receive(service) == b"%d" % number
            seen = [await outer_of(wire, RLOC["access"][0]) for _ in range(10)]
            to = sorted((outer[16:20], outer[-1:]) for outer in seen)
            assert to == sorted((hop.rloc, b"%d" % number) for hop in hops for number in range(5))
        run(f"ip -n {named('cloud')} addr del 198.18.0.22/24 dev wan0")

    asyncio.run(story())


def test_flows_are_spread_over_locators_by_their_weights() -> None:
    async def story() -> None:
        with sites("ebpf") as (access, _), watch("cloud", "wan0") as wire:
            hops = (Hop(ip_of(RLOC["cloud"][0]), 75), Hop(ip_of("198.18.0.23"), 25))
            run(f"ip -n {named('access')} neigh replace 198.18.0.23 lladdr 02:00:00:00:00:99 dev wan0 nud permanent")
            access.plane.install(SERVICE, Forward(hops))
            taken = []
            for port in range(400):
                with udp("user", EID["user"][0], 20_000 + port) as user:
                    user.sendto(b"x", (EID["service"][0], PORT))
                outer = await outer_of(wire, RLOC["access"][0])
                taken.append(outer[16:20] == hops[0].rloc)
            assert 0.65 < sum(taken) / len(taken) < 0.85

    asyncio.run(story())


def test_the_kernel_counts_for_each_host_and_tells_when_it_was_heard() -> None:
    async def story() -> None:
        with (
            sites("ebpf") as (access, cloud),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
        ):
            eid = Prefix.host(ip_of(EID["user"][0]))
            access.forward(EID["service"][0], RLOC["cloud"][0])
            assert access.plane.heard(eid) is None
            assert access.plane.used(SERVICE) is None
            for _ in range(3):
                user.sendto(b"counted", (EID["service"][0], PORT))
                await receive(service)
            sent = plane_of(access).traffic(eid)
            received = plane_of(cloud).traffic(SERVICE)
            assert sent is not None
            assert received is not None
            assert (sent.sent_packets, sent.sent_bytes) == (3, 3 * 35)
            assert (received.received_packets, received.received_bytes) == (3, 3 * 35)
            now = asyncio.get_running_loop().time()
            assert now - 1 < (access.plane.heard(eid) or 0) <= now
            assert now - 1 < (access.plane.used(SERVICE) or 0) <= now
            assert access.plane.peers(eid) == [ip_of(RLOC["cloud"][0])]

    asyncio.run(story())
